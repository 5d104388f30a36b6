"Drills: real code, a sealed record, and a checklist that believes it only as far as it should."

import json
from datetime import date, timedelta

import pytest
from alert_sinks import mail_server, web_server
from test_alerts import MAIL, SMS

from typer.testing import CliRunner

from v23 import __version__
from v23.adapters.state_folder import desk_ledger, real_clock
from v23.cli import app
from v23.domain import from_plain
from v23.drills import DRILLS, counts, drill_rows, evidence, is_sealed, keep_drill, kill_drill, step
from v23.errors import InputError
from v23.jobs import run_job
from v23.paper_validator import read_drills
from v23.trading_desk import open_desk
from v23.validation.go_live_rules import DRILLS as CHECKED, check_drill
from v23.validation.record import Drill, PaperRecord, Provenance


@pytest.mark.parametrize("name", ["kill_switch", "breakers"])
def test_a_drill_leaves_a_sealed_record_that_the_checklist_reads(name, tmp_path):
    job = {"kill_switch": "kill_switch_drill", "breakers": "breaker_drill"}[name]
    done = run_job(job, {"state": str(tmp_path / "state"), "who": "Ada"}, tmp_path / "reports", date(2026, 1, 20))
    assert done.result["passed"] is True and done.result["who"] == "Ada" and is_sealed({k: v for k, v in done.result.items() if k != "job"})
    assert done.html.stat().st_size > 10_000
    with desk_ledger(tmp_path / "state", real_clock()) as ledger:
        (event,) = ledger.events("drill")
        kept = from_plain(Drill, event.body)
        row = next(r for r in drill_rows(ledger, real_clock().now()) if r["drill"] == name)
    assert (kept.name, kept.passed, kept.who) == (name, True, "Ada")
    assert row["counts"]
    file = tmp_path / "state" / event.body["uri"]
    assert json.loads(file.read_text())["sha256"] == event.body["sha256"]


def test_an_alert_drill_without_channels_is_a_record_that_failed(tmp_path):
    done = run_job("alert_drill", {"state": str(tmp_path / "state")}, tmp_path / "reports", date(2026, 1, 20))
    assert done.result["passed"] is False and all(not s["passed"] for s in done.result["steps"])


def test_a_kill_switch_that_does_not_sell_fails_its_drill(tmp_path, monkeypatch):
    from v23.execution_engine import KillEngine

    monkeypatch.setattr(KillEngine, "liquidate", lambda self, kill_id: {"kill_id": kill_id, "flat": True, "left": {}, "sold": []})
    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", seed=7) as desk:
        desk.market_open()
        desk.rebalance()
        steps = {s.name: s.passed for s in kill_drill(desk, "Ada")}
    assert steps["flat"] and not steps["positions at the broker"]
    assert not evidence("kill_switch", [step(name, True, passed) for name, passed in steps.items()], "Ada", real_clock().now(), "simulated")["passed"]


def test_a_live_account_is_never_drilled(tmp_path):
    from dataclasses import replace

    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", seed=7) as desk:
        desk.wiring = replace(desk.wiring, mode="live")
        with pytest.raises(InputError, match="never on a live one"):
            kill_drill(desk, "Ada")
        assert not desk.kill.is_active


@pytest.mark.parametrize("change", [{"passed": True}, {"who": "Eve"}, {"expires_at": "2099-01-01T00:00:00+00:00"}, {"steps": []}, {"code": "0" * 64}])
def test_a_record_that_was_touched_does_not_count(change):
    now = real_clock().now()
    record = evidence("alerts", [step("a message", True, False)], "Ada", now, "configured")
    assert counts(record, now) == "it failed"
    assert counts(record | change, now) == "it was changed after it was made"


def test_an_alert_drill_passes_where_every_channel_takes_the_message_and_fails_where_one_does_not(tmp_path, monkeypatch):
    with mail_server() as (box, port), web_server() as (sms, sms_url), web_server() as (push, push_url):
        channels = {**MAIL, "SMTP_PORT": str(port), **SMS, "TWILIO_URL": sms_url, "ALERT_PUSH_URL": push_url.replace("http", "json") + "/me"}
        for name, value in channels.items():
            monkeypatch.setenv(name, value)
        told = [run_job("alert_drill", {"state": str(tmp_path / "state"), "who": "Ada"}, tmp_path / "reports", date(2026, 1, 20)).result]
        assert len(box.messages) == len(sms.requests) == len(push.requests) == 1
        sms.statuses += [500] * 3
        told.append(run_job("alert_drill", {"state": str(tmp_path / "state"), "who": "Ada"}, tmp_path / "reports", date(2026, 1, 20)).result)
    assert [r["passed"] for r in told] == [True, False]
    assert [s["passed"] for s in told[1]["steps"]].count(False) == 1
    with desk_ledger(tmp_path / "state", real_clock()) as ledger:
        first, second = read_drills(ledger, real_clock().now())
    assert (first.passed, first.why, second.passed) == (True, "", False)


def test_the_checklist_does_not_count_evidence_that_ran_out_was_touched_or_has_no_seal(tmp_path):
    clock = real_clock()
    now = clock.now()
    with desk_ledger(tmp_path, clock, create=True) as ledger:
        keep_drill(evidence("breakers", [step("trips", True, True)], "Ada", now, "simulated"), tmp_path, clock, ledger)
        ledger.record("drill", evidence("kill_switch", [step("flat", True, False)], "Ada", now, "simulated") | {"passed": True})
        ledger.record("drill", {"name": "alerts", "passed": True, "at": now, "build": __version__, "who": "Ada"})

        def checks(at):
            record = PaperRecord(1.0, (), (), (), 0, Provenance("x", True, "simulated", 7, "a", __version__, 1), read_drills(ledger, at))
            return {c.id: c for c in (check_drill(record, *row) for row in CHECKED)}

        fresh, old = checks(now + timedelta(days=29)), checks(now + timedelta(days=30))
    assert {i: c.passed for i, c in fresh.items()} == {"c08_breakers": True, "c09_kill": False, "c10_alerts": False}
    assert "changed after" in fresh["c09_kill"].observed and "without a seal" in fresh["c10_alerts"].observed
    assert not old["c08_breakers"].passed and "counted until" in old["c08_breakers"].observed and old["c08_breakers"].evidence == "NOT_MEASURED"


def test_a_record_runs_out_and_counts_for_one_code_only(tmp_path):
    clock = real_clock()
    now = clock.now()
    record = evidence("kill_switch", [step("flat", True, True)], "Ada", now, "simulated")
    assert counts(record, now + timedelta(days=29)) == "" and "counted until" in counts(record, now + timedelta(days=30))
    assert counts(record, now, "another") == "it was made on other code"
    keep_drill(record, tmp_path, clock)
    with desk_ledger(tmp_path, clock) as ledger:
        assert [r["counts"] for r in drill_rows(ledger, now)] == [n == "kill_switch" for n in DRILLS]


@pytest.mark.parametrize("job", ["breaker_drill", "alert_drill"])
def test_a_drill_runs_by_its_command(job, tmp_path):
    done = CliRunner().invoke(app, ["job", job, "-p", "who=Ada", "--state", str(tmp_path / "state"), "--reports", str(tmp_path / "reports"), "--json"])
    assert done.exit_code == 0, done.exception
    with desk_ledger(tmp_path / "state", real_clock()) as ledger:
        assert [e.body["who"] for e in ledger.events("drill")] == ["Ada"]
