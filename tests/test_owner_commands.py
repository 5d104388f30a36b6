"What a person asks of a desk that runs: a real process owns the folder, the commands reach it over its socket, and only it writes."

import contextlib
import json
import signal
import subprocess
import sys
import time
from datetime import date
from decimal import Decimal

import pytest
from typer.testing import CliRunner

from v23.adapters.ledger import Ledger, StateLock
from v23.adapters.state_folder import desk_ledger, real_clock
from v23.cli import app
from v23.control import ControlRefused, NoOwner, ask
from v23.drills import counts, evidence, keep_drill, step
from v23.errors import InputError, OwnedError
from v23.exchange_host import ExchangeConfig, ExchangeHost, opening_instant
from v23.jobs import run_job
from v23.market_calendar import previous_session
from v23.trading_desk import open_desk

DAY = date(2025, 7, 1)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def owned(tmp_path_factory):
    "A state folder whose desk runs in another process; its record says that the equity was once 130,000 dollars."
    folder = tmp_path_factory.mktemp("owned")
    state, reports = folder / "state", folder / "reports"
    with ExchangeHost(state, ExchangeConfig("", 7, opening_instant(DAY), Decimal(100_000))) as host, open_desk(state=state, reports=reports, host=host) as desk:
        desk.market_open()
        desk.ledger.record("session_closed", {"session": previous_session(DAY), "equity": Decimal(130_000), "cash": Decimal(130_000), "buying_power": Decimal(130_000), "gross_exposure": 0.0, "flow": 0.0, "positions": {}})
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "v23.supervisor", "mode=simulated", f"state={state}", f"reports={reports}", "speed=60"], cwd=folder, stderr=log, stdout=log)
        try:
            until = time.monotonic() + 120
            while time.monotonic() < until:
                with contextlib.suppress(NoOwner, ControlRefused):
                    ask(state, "status", timeout=30)
                    break
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            yield state
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    with desk_ledger(state, real_clock()) as ledger:
        kept = [e.body for e in ledger.events("drill")]
        assert ledger.verify() > 0
    assert [b["name"] for b in kept] == ["kill_switch", "alerts", "breakers"] and all(not counts(b, real_clock().now()) for b in (kept[0], kept[2]))


def made(name="kill_switch", **changes):
    return evidence(name, [step("flat", True, True)], "Ada", real_clock().now(), "simulated") | changes


def test_the_evidence_of_a_drill_beside_a_desk_is_kept_by_the_desk_once(owned):
    with pytest.raises(OwnedError), desk_ledger(owned, real_clock()):
        pass
    record = made()
    paths = {keep_drill(record, owned, real_clock()) for _ in range(2)}  # the second asks again, as after a lost answer
    (path,) = paths
    assert json.loads(path.read_text())["sha256"] == record["sha256"]


@pytest.mark.parametrize("forged", [{"passed": False}, {"name": "../../x"}, {"at": "../../../2026-01-20"}, {"who": "Eve"}, {"sha256": "0" * 64}])
def test_evidence_that_is_not_sealed_is_refused_by_the_desk(forged, owned):
    with pytest.raises(ControlRefused, match="no sealed record"):
        ask(owned, "keep_evidence", record=made() | forged)


@pytest.mark.parametrize("fields", [{}, {"record": None}, {"record": []}, {"record": {"name": "alerts"}}])
def test_what_is_no_evidence_is_refused_by_the_desk(fields, owned):
    with pytest.raises(ControlRefused, match="no sealed record"):
        ask(owned, "keep_evidence", **fields)


def test_a_test_of_the_channels_beside_a_desk_is_on_record(owned):
    done = run("alerts", "test", "--who", "Ada", "--state", owned, "--json")
    assert done.exit_code == 1 and json.loads(done.stdout)["recorded"] is True  # nothing is set up, and that is on record


def test_a_drill_page_beside_a_desk_leaves_its_evidence(owned, tmp_path):
    done = run_job("breaker_drill", {"state": str(owned), "who": "Ada"}, tmp_path / "reports", date(2026, 1, 20))
    assert done.result["passed"] is True
    assert [p.name.partition("-")[0] for p in sorted((owned / "drills").glob("breakers-*.json"))] == ["breakers"]


def test_an_emergency_is_left_by_commands_to_the_desk_that_runs(owned):
    "Killed by the breaker; the peak rebased, the kill lifted, resumed, the last quarter acknowledged: all over the socket, by a person with a reason."
    until = time.monotonic() + 60
    while not (told := ask(owned, "status", timeout=30))["killed"] and time.monotonic() < until:
        time.sleep(0.2)
    assert told["killed"] and told["breakers"] == "EMERGENCY"
    code = f"CONFIRM-{told['now'][:10].replace('-', '')}"
    nobody = run("rebase-peak", "--state", owned)
    assert nobody.exit_code != 0 and isinstance(nobody.exception, InputError) and "--who" in str(nobody.exception)
    done = run("rebase-peak", "--who", "Ada", "--reason", "a smaller book", "--state", owned, "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["old_peak"] == 130_000, done.output
    again = run("rebase-peak", "--who", "Ada", "--reason", "again", "--state", owned)
    assert isinstance(again.exception, ControlRefused) and "nothing to rebase" in str(again.exception)
    assert run("deactivate", code, "--who", "Ada", "--still-held", "nothing was held", "--state", owned).exit_code == 0
    at = ask(owned, "status", timeout=30)["now"]
    while (told := ask(owned, "status", timeout=30))["now"] < f"{at[:14]}{int(at[14:16]) + 2:02d}" and time.monotonic() < until + 60:
        time.sleep(0.2)  # Two looks later nobody has killed again
    assert not told["killed"], told
    assert run("resume", "reviewed", "--who", "Ada", "--state", owned).exit_code == 0
    lifted = run("acknowledge", "peak_rebased", "--who", "Ada", "--reason", "the book is small enough", "--state", owned, "--json")
    assert lifted.exit_code == 0 and {x["name"] for x in json.loads(lifted.stdout)["latches"]} == {"daily_loss"}
    split = run("acknowledge", "--real-loss", "xaaa", "--who", "Ada", "--reason", "it fell", "--state", owned)
    assert split.exit_code == 0
    unset = run("acknowledge", "weekly_loss", "--who", "Ada", "--reason", "again", "--state", owned)
    assert isinstance(unset.exception, ControlRefused)


def test_a_folder_that_is_owned_and_takes_no_requests_keeps_no_evidence(tmp_path):
    lock = StateLock(tmp_path)
    try:
        with pytest.raises(OwnedError):
            keep_drill(made(), tmp_path, real_clock())
    finally:
        lock.release()
    ledger = Ledger(":memory:", real_clock())
    with pytest.raises(InputError, match="no sealed record"):
        keep_drill(made(passed=False), tmp_path, real_clock(), ledger)
    assert not list(ledger.events("drill"))


def test_the_breakers_do_not_say_that_entries_are_allowed_while_the_desk_is_killed(tmp_path):
    for killed in (False, True):
        if killed:
            (tmp_path / "KILL").write_text("kill-x by hand\n")
        done, told = run("acknowledge", "--state", tmp_path), json.loads(run("acknowledge", "--state", tmp_path, "--json").stdout)
        assert done.exit_code == 0 and ("the kill switch is active" in done.stdout) is killed is told["killed"]
