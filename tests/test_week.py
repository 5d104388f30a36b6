"A week as it is lived: a crash on Tuesday, a bad exchange on Wednesday, a kill drill on a half day, a holiday, and a Monday after."

import json
import os
import resource
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from alert_sinks import mail_server, web_server

from v23.control import ControlRefused, NoOwner, ask
from v23.jobs import read_history
from v23.keeper import read_pulse
from v23.market_calendar import NEW_YORK
from v23.schedule import day_plan
from v23.settings import load_settings

WEEK = [date(2025, 6, 30), date(2025, 7, 1), date(2025, 7, 2), date(2025, 7, 3), date(2025, 7, 7)]  # the third is a half day, the fourth of July a holiday
CANARIES = {"ALPACA_API_KEY": "PKCANARY0000DEADBEEF", "ALPACA_API_SECRET": "canary/secret+0123456789==", "ALERT_EMAIL_PASSWORD": "canary-mail-password", "TWILIO_AUTH_TOKEN": "canary7f3a9c"}
CHANNELS = {"SMTP_HOST": "127.0.0.1", "SMTP_SECURITY": "none", "ALERT_EMAIL_SENDER": "desk@example.com", "ALERT_EMAIL_RECIPIENT": "ann@example.com", "TWILIO_ACCOUNT_SID": "AC" + "0a1b2c3d" * 4, "TWILIO_PHONE_FROM": "+15550100100", "TWILIO_PHONE_TO": "+15550100101"}
ENVIRON = {"HOLDING_SESSIONS": "1", "V23_MODE": "simulated", **CANARIES}


class Week:
    "The process under test, and what its tester does to it from outside."

    def __init__(self, folder: Path, channels: dict[str, str]):
        self.state, self.reports = folder / "state", folder / "reports"
        command = [sys.executable, "-m", "v23.cli", "supervise", "--speed", "0", "--sessions", str(len(WEEK)), "--start", WEEK[0].isoformat(), "--state", str(self.state), "--reports", str(self.reports)]
        self.errors = folder / "stderr.txt"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(command, env=os.environ | ENVIRON | channels, stdout=subprocess.DEVNULL, stderr=errors, cwd=folder)
        self.killed_pid = 0

    def until(self, day: date, doing: str, patience_s: float = 300.0) -> dict:
        "Wait for a moment of the week: this job runs on this day."
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            assert self.process.poll() is None, self.said()
            try:
                seen = ask(self.state, "heartbeat", timeout=5)
            except NoOwner:
                time.sleep(0.05)
                continue
            now = datetime.fromisoformat(seen["now"]).astimezone(NEW_YORK)
            if (now.date(), seen["doing"]) == (day, doing):
                return seen
            assert now.date() <= day, f"{day} went by without {doing}; it is {now}\n{self.said()}"
            time.sleep(0.01)
        raise AssertionError(f"{doing} of {day} did not begin in {patience_s:g} s\n{self.said()}")

    def patiently(self, command: str, **fields: str) -> dict:
        "Ask again while the desk is at something else."
        for _ in range(30):
            try:
                return ask(self.state, command, who="tester", timeout=60, **fields)
            except ControlRefused as e:
                assert "carried out" in str(e) or "busy" in str(e) or "not flat" in str(e), e
                time.sleep(0.2)
        raise AssertionError(f"{command} was refused for too long\n{self.said()}")

    def said(self) -> str:
        log = self.state / "logs" / "v23.log"
        return self.errors.read_text()[-2000:] + (log.read_text()[-4000:] if log.exists() else "")


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    with mail_server(CANARIES["ALERT_EMAIL_PASSWORD"]) as (box, port), web_server() as (sms, sms_url), web_server() as (push, push_url):
        channels = CHANNELS | {"SMTP_PORT": str(port), "TWILIO_URL": sms_url, "ALERT_PUSH_URL": push_url.replace("http", "json") + "/me"}
        lived = live(Week(tmp_path_factory.mktemp("week"), channels))
    lived.box, lived.sms, lived.push = box, sms, push
    return lived


def live(lived: Week) -> Week:
    "From Monday's first look to the Monday after."
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    try:
        lived.killed_pid = lived.until(WEEK[1], "rebalance")["pid"]
        os.kill(lived.killed_pid, signal.SIGKILL)
        lived.until(WEEK[2], "market_open")
        url = ask(lived.state, "status", timeout=30)["exchange"]
        for fault in (
            {"method": "POST", "path_prefix": "/v2/orders", "kind": "accept_then_error", "nth": 2, "times": 3},
            {"method": "POST", "path_prefix": "/v2/orders", "kind": "drop", "nth": 9, "times": 1},
            {"method": "GET", "path_prefix": "/v2/positions", "kind": "error", "times": 1, "status": 503},
            {"method": "GET", "path_prefix": "/v2/orders", "kind": "429", "times": 2},
        ):
            requests.post(f"{url}/sim/faults", json=fault, timeout=10).raise_for_status()
        lived.until(WEEK[3], "intraday_check")
        lived.kill = ask(lived.state, "kill", who="tester", reason="drill", timeout=60)
        with pytest.raises(ControlRefused):
            ask(lived.state, "deactivate_kill", who="tester", code="CONFIRM-20250704", timeout=60)
        lived.patiently("deactivate_kill", code=f"CONFIRM-{WEEK[3]:%Y%m%d}")
        lived.resumed = ask(lived.state, "resume_entries", who="tester", reason="the drill is over", timeout=60)
        lived.code = lived.process.wait(600)
    finally:
        lived.seconds = time.monotonic() - began
        if lived.process.poll() is None:
            lived.process.terminate()
            lived.process.wait(15)
        lived.cpu_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    return lived


def test_the_week_ends_by_itself(week):
    assert week.code == 0, week.said()
    assert week.seconds < 180 or week.cpu_s < 120, f"{week.seconds:.0f} s, {week.cpu_s:.0f} s of them computing"  # three minutes, on a machine that is not busy with something else


def test_every_scheduled_job_ran_exactly_once(week):
    expected = Counter((j.name, j.session.isoformat()) for day in WEEK for j in day_plan(day, load_settings()))
    expected["incident", WEEK[3].isoformat()] = 1  # nobody planned it: the page of the kill
    runs = read_history(week.reports)
    assert Counter((e["job"], e["session"]) for e in runs if e["status"] == "done") == expected
    assert [e for e in runs if e["status"] == "missed"] == []
    assert (date(2025, 7, 4).isoformat()) not in {e["session"] for e in runs}
    last = WEEK[-1].isoformat()
    assert {p.name for p in (week.reports / "runs" / last).glob("*.result.json")} >= {"market_open.result.json", "rebalance.result.json", "market_close.result.json"}


def test_the_crash_was_one_and_the_desk_came_back_without_safe_mode(week):
    assert len(json.loads((week.state / "supervisor" / "crashes.json").read_text())) == 1
    assert read_pulse(week.state)[0]["pid"] != week.killed_pid
    assert "ended with -9; starting again in 1 s" in week.errors.read_text()


def test_the_exchange_really_was_faulty(week):
    from v23.adapters.ledger import Ledger
    from v23.adapters.state_folder import real_clock

    ledger = Ledger(week.state / "execution" / "ledger.sqlite3", real_clock())
    codes = Counter(e.body["code"] for e in ledger.events("error") if e.body["session"] == WEEK[2].isoformat())
    ledger.close()
    assert sum(codes.values()) >= 1, codes


def test_the_kill_drill_sold_everything_and_was_lifted(week):
    assert week.kill["latched"] and (not week.kill["report"] or week.kill["report"]["flat"] is True)  # answered within three seconds, or told to look later
    assert week.resumed["pauses"] == []
    assert not (week.state / "circuit_breakers" / "KILL").exists()


def test_the_kill_was_told_on_the_channels_of_its_priority_and_has_its_page(week):
    kill_id = week.kill["kill_id"]
    assert [t for t in week.box.subjects if "KILL_SWITCH" in t or "kill switch is active" in t], week.box.subjects
    assert any("kill switch is active" in str(body) for _, body in week.sms.requests), week.sms.requests
    assert any("kill switch was touched" in str(body) for _, body in week.push.requests), week.push.requests  # high alerts go by push, critical ones do not
    assert (week.reports / "incidents" / f"{kill_id}.json").exists() and (week.reports / "runs" / WEEK[3].isoformat() / "incident.html").exists()


def test_every_alert_of_the_week_was_delivered_over_the_crash_and_the_end(week):
    from v23.adapters.alert_outbox import DONE, recent_alerts
    from v23.adapters.ledger import Ledger
    from v23.adapters.state_folder import real_clock

    ledger = Ledger(week.state / "execution" / "ledger.sqlite3", real_clock())
    rows = recent_alerts(ledger, 5_000)
    ledger.close()
    late = [(r["code"], r["subject"], c, s) for r in rows for c, s in r["channels"].items() if s["status"] not in DONE]
    assert late == [] and {r["code"] for r in rows} >= {"KILL_SWITCH", "KILL_CHANGED", "DAILY_SUMMARY"}, Counter(r["code"] for r in rows)
    assert len({r["subject"] for r in rows if r["code"] == "DAILY_SUMMARY"}) == len(WEEK)


def test_the_desk_is_ready_and_the_books_agree(week):
    from v23.campaign import audit
    from v23.exchange_host import ExchangeHost
    from v23.trading_desk import open_desk, safe_mode

    with ExchangeHost(week.state) as host, open_desk(state=week.state, reports=week.reports, host=host) as desk:
        desk.ready(WEEK[-1])
        desk.look(WEEK[-1])
        assert desk.gate.pauses() == () and not desk.kill.is_active and safe_mode(desk.ledger) is None
        assert desk.engine.open_orders() == ()
        proof = audit(desk, host.config.start - timedelta(days=1))
        assert proof.clean and proof.orders > 20, proof
        assert [e.body["session"] for e in desk.ledger.events("session_closed")] == [d.isoformat() for d in WEEK]
        desk.ledger.verify()


def test_no_secret_is_in_anything_that_was_written(week):
    searched = [p for folder in (week.state, week.reports) for p in folder.rglob("*") if p.is_file() and not p.is_socket()]
    assert len(searched) > 50
    for path in [*searched, week.errors]:
        content = path.read_bytes()
        assert not [name for name, value in CANARIES.items() for form in (value, quote(value, safe=""), b64encode(value.encode()).decode()) if form.encode() in content], path


def test_nothing_half_written_is_left(week):
    left = [p for folder in (week.state, week.reports) for p in folder.rglob("*") if p.name.endswith(".tmp") or (p.name.startswith(".") and p.suffix in (".ipynb", ".html", ".json"))]
    assert [p for p in left if "logs" not in p.parts] == []
