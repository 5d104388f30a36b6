"The next size of a live account: what it takes, what stands against it, and who has to type what."

import json
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from v23.adapters.ledger import Ledger
from v23.adapters.snapshots import write_snapshot
from v23.adapters.state_folder import real_clock
from v23.domain import to_plain
from v23.errors import InputError, SettingsError
from v23.market_calendar import NEW_YORK, session_hours, sessions_between
from v23.promotion import LATEST, SIGNED, Promotion, ask_standing, code_fingerprint, promotion_file, read_promotion, step_up, validation_report
from v23.record_checks import terms_of
from v23.settings import load_settings

SETTINGS = load_settings("/nonexistent", environ={})


class Then:
    "A clock that is set by hand."

    def __init__(self, at):
        self.at = at

    def now(self):
        return self.at

    def sleep(self, seconds): ...


def live_folder(path, size=0.25, sessions=14, account="live-1", breaker="NORMAL", before=0, end=None, **changed):
    "A live desk's state folder after so many closed sessions at this size, with a validation of them; its clock."
    clock = Then(end or datetime(2026, 2, 25, 18, 0, tzinfo=NEW_YORK))
    last = clock.at
    days = [d for d in sessions_between((last - timedelta(days=60)).date(), last.date()) if session_hours(d).close < last][-(sessions + before) :]
    promoted = session_hours(days[before]).open - timedelta(hours=1) if days else last - timedelta(hours=1)
    ledger = Ledger(path / "execution" / "ledger.sqlite3", clock)
    for day in days:
        clock.at = session_hours(day).open
        ledger.record("session_opened", {"session": day.isoformat(), "account_id": account})
        clock.at = session_hours(day).close + timedelta(minutes=1)
        ledger.record("session_closed", {"session": day.isoformat(), "breaker_state": breaker if day == days[-1] else "NORMAL"})
    ledger.close()
    clock.at = last
    report = {
        "valid": True, "evidence": {"verdict": "WEAK", "band_low": -0.04, "band_high": 0.04}, "signals": {"match": 1.0}, "checks": [{"id": "c07_errors", "passed": True}],
        "days": [{"session": d.isoformat()} for d in days],
    } | changed  # fmt: skip
    write_snapshot(path / "paper_validation" / LATEST, report, 2, last)
    write_snapshot(path / "paper_validation" / SIGNED, {"valid": True}, 1, last)
    terms = terms_of(SETTINGS, "")
    p = Promotion("live-1", size, code_fingerprint(), terms["rules"], terms["gate"], validation_report(path, SIGNED)[1], "ALL_PASS", "WEAK", "V21", "x", "Ada", promoted, last + timedelta(days=5))
    write_snapshot(promotion_file(path), to_plain(p), 0, last)
    return clock


@pytest.mark.parametrize(("size", "following"), [(0.25, 0.50), (0.50, 1.00)])
def test_fourteen_sessions_at_one_size_earn_the_next_and_nothing_beyond(size, following, tmp_path):
    clock = live_folder(tmp_path, size)
    asked = ask_standing(tmp_path, clock, SETTINGS)
    assert (asked.sessions, asked.next, asked.causes) == (14, following, ()) and asked.words.startswith(f"PROMOTE {following:.2f} ")
    p = step_up(tmp_path, clock, SETTINGS, "Bob", asked.words)
    assert read_promotion(tmp_path) == p and (p.size, p.who, p.live_report_sha256) == (following, "Bob", asked.report_sha256) and p.expires > clock.at + timedelta(days=29)
    ledger = Ledger(tmp_path / "execution" / "ledger.sqlite3", clock)
    assert [(e.body["action"], e.body["promotion"]["size"]) for e in ledger.events("promotion")] == [("stepped up", following)]
    ledger.close()
    with pytest.raises(InputError, match=r"not promoted further: .*(0 live sessions at|is full size already)"):
        step_up(tmp_path, clock, SETTINGS, "Bob", asked.words)


AGAINST = {
    "too early": ({"sessions": 13}, "13 live sessions at 0.25, 14 are needed"),
    "sessions of another size": ({"sessions": 6, "before": 10}, "6 live sessions at 0.25"),
    "another account": ({"account": "paper"}, "0 live sessions"),
    "full already": ({"size": 1.0}, "1.00 is full size already"),
    "a breaker": ({"breaker": "HALTED"}, "a breaker is at HALTED"),
    "drift": ({"evidence": {"verdict": "WEAK", "band_low": -0.3, "band_high": -0.1}}, "live differs from its replay"),
    "signals": ({"signals": {"match": 0.9}}, "signals agree with the replay on 90.0% only"),
    "contradicted": ({"evidence": {"verdict": "CONTRADICTED", "band_low": -0.04, "band_high": 0.04}}, "the evidence contradicts"),
    "errors": ({"checks": [{"id": "c07_errors", "passed": False}]}, "a critical error is on record"),
    "an invalid record": ({"valid": False}, "the live record is invalid"),
    "an old report": ({"days": [{"session": "2026-02-10"}]}, "not about the latest session"),
}


@pytest.mark.parametrize("name", AGAINST)
def test_what_stands_against_a_larger_size_is_said_and_changes_nothing(name, tmp_path):
    how, words = AGAINST[name]
    clock = live_folder(tmp_path, **how)
    before = read_promotion(tmp_path)
    asked = ask_standing(tmp_path, clock, SETTINGS)
    assert asked.next == asked.size and words in "; ".join(asked.causes)
    with pytest.raises(InputError, match="not promoted further"):
        step_up(tmp_path, clock, SETTINGS, "Ada", f"PROMOTE 0.50 {asked.report_sha256[:8]}")
    assert read_promotion(tmp_path) == before


@pytest.mark.parametrize("typed", ["", "yes", "PROMOTE 0.50", "PROMOTE 1.00 {sha}", "promote 0.50 {sha}"])
def test_other_words_than_those_asked_for_promote_nobody(typed, tmp_path):
    clock = live_folder(tmp_path)
    with pytest.raises(InputError, match="the confirmation is wrong; type  PROMOTE 0.50 "):
        step_up(tmp_path, clock, SETTINGS, "Ada", typed.format(sha=ask_standing(tmp_path, clock, SETTINGS).report_sha256[:8]))


@pytest.mark.parametrize(("change", "words"), [({"demoted": "drift"}, "taken back"), ({"expires": datetime(2026, 1, 1, tzinfo=NEW_YORK)}, "expired"), ({"code": "x"}, "the code is not"), ({"rules": "x"}, "settings are not"), ({"gate": "x"}, "gate or its baseline")])
def test_a_promotion_that_does_not_hold_is_not_stepped_up(change, words, tmp_path):
    clock = live_folder(tmp_path)
    write_snapshot(promotion_file(tmp_path), to_plain(replace(read_promotion(tmp_path), **change)), 0, clock.at)
    with pytest.raises(SettingsError, match=words):
        step_up(tmp_path, clock, SETTINGS, "Ada", "x")


def test_the_command_refuses_tells_the_words_and_steps_up(tmp_path):
    def ran(state, *more):
        done = subprocess.run(["v23", "step-up", "--who", "Ada", "--state", str(state), *more], cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    live_folder(tmp_path / "live", end=real_clock().now())
    code, out, err = ran(tmp_path / "live")
    assert code == 2 and not out and "type  PROMOTE 0.50 " in err
    words = err[err.index("PROMOTE 0.50 ") :].split("\n")[0].strip()
    code, out, _ = ran(tmp_path / "live", "--confirm", words, "--json")
    assert code == 0 and json.loads(out)["size"] == 0.5 and read_promotion(tmp_path / "live").size == 0.5
    assert ran(tmp_path / "nowhere")[0] == 2
