"Metrics equal what the ledger says, profits add up to the cent, health is measured, and machines and people get the same numbers."

import json
import math
import os
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from alert_sinks import mail_server, wait_for, web_server

from v23.adapters.clocks import StillClock
from v23.adapters import telemetry
from v23.adapters.bars import load_bars
from v23.adapters.ledger import Ledger, StateLock
from v23.adapters.snapshots import read_snapshot
from v23.adapters.telemetry import Telemetry, ping_dead_man, prometheus_text
from v23.domain import Activity, ActivityKind, to_plain
from v23.errors import BrokerError, InputError, PortInUseError
from v23.execution_engine import BookKeeper
from v23.exchange_host import ExchangeConfig, ExchangeHost, opening_instant
from v23.monitoring.health_rules import PARTS
from v23.monitoring.summaries import DEFINITIONS
from v23.monitoring_dashboard import Heartbeats, MonitoringDashboard, metrics_of, recorded_beats, recorded_books, recorded_summaries
from v23.settings import load_settings
from v23.trading_desk import open_desk

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.timeout(1200)  # sixty sessions take a minute alone, and several on a busy machine
SESSIONS = 60
FLOWS = {12: ("FEE", Decimal("1.37")), 20: ("CSD", Decimal(5_000)), 30: ("INT", Decimal("0.42")), 41: ("CSW", Decimal(2_000)), 50: ("FEE", Decimal("0.05"))}


AT = datetime(2026, 1, 23, 15, 0, tzinfo=UTC)


def settings(**texts):
    return load_settings("/nonexistent", environ={k: str(v) for k, v in texts.items()})


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    "Sixty sessions on the simulated exchange, with a deposit, a withdrawal, fees and interest on the way; the state folder."
    folder = tmp_path_factory.mktemp("sixty")
    panel = load_bars(None, seed=7)
    sessions = panel.sessions[-SESSIONS:]
    with ExchangeHost(folder / "state", ExchangeConfig("", 7, opening_instant(sessions[0]), Decimal(100_000)), panel=panel) as host:
        for n, session in enumerate(sessions):
            with open_desk(state=folder / "state", reports=folder / "reports", host=host, settings=settings()) as desk:
                desk.market_open(session)
                desk.dashboard.heartbeat(desk.broker)
                desk.rebalance(session)
                if n in FLOWS:
                    host.exchange.flow(*FLOWS[n])
                desk.market_close(session)
    return folder / "state"


@pytest.fixture
def ledger(campaign, tmp_path):
    "The campaign's ledger, opened anew."
    opened = Ledger(campaign / "execution" / "ledger.sqlite3", StillClock(AT))
    yield opened
    opened.close()


def test_metrics_recomputed_from_the_ledger_equal_the_stored_ones_exactly(ledger):
    stored = list(ledger.events("metrics"))
    sectors = load_bars(None, seed=7).sectors
    assert len(stored) == SESSIONS
    copy = Ledger(":memory:", ledger.clock)
    waiting = iter(stored)
    due = next(waiting)
    compared = 0
    for e in ledger.events():
        if due is not None and e.seq == due.seq:
            again = to_plain(metrics_of(copy, sectors, 60.0))
            assert again == due.body["metrics"], due.body["session"]
            compared += 1
            due = next(waiting, None)
        copy.record(e.kind, dict(e.body))
    assert compared == SESSIONS


def test_the_money_metrics_equal_a_slow_computation_of_their_own(ledger):
    closes = [e.body for e in ledger.events("session_closed")]
    start = float(next(iter(ledger.events("session_opened"))).body["equity"])
    equity = [float(c["equity"]) for c in closes]
    flows = [float(c.get("flow", 0.0)) for c in closes]
    for n, e in enumerate(ledger.events("metrics")):
        m, session = e.body["metrics"], date.fromisoformat(e.body["session"])
        before = start if n == 0 else equity[n - 1]
        assert m["daily_pnl"] == pytest.approx(equity[n] - before - flows[n], abs=1e-6)
        gains = [(date.fromisoformat(c["session"]), equity[i] - (start if i == 0 else equity[i - 1]) - flows[i]) for i, c in enumerate(closes[: n + 1])]
        assert m["mtd_pnl"] == pytest.approx(sum(g for s, g in gains if (s.year, s.month) == (session.year, session.month)), abs=1e-6)
        assert m["ytd_pnl"] == pytest.approx(sum(g for s, g in gains if s.year == session.year), abs=1e-6)
        shifted = [start + sum(flows[: n + 1]), *(equity[i] + sum(flows[i + 1 : n + 1]) for i in range(n + 1))]
        assert m["current_drawdown"] == pytest.approx(equity[n] / max(shifted) - 1, abs=1e-12)
        held = {s: float(p["quantity"]) * float(p["price"]) for s, p in closes[n]["positions"].items()}
        assert m["total_exposure"] == pytest.approx(sum(held.values())) and m["open_positions"] == len(held)
        assert sum(m["sector_concentration"].values()) == pytest.approx(sum(held.values()) / equity[n])
        assert (m["portfolio_beta"] is None) == (n < 20)


def test_profit_adds_up_to_the_cent_every_day(ledger):
    books = recorded_books(ledger)
    assert [b.flows for b in books if b.flows] == [Decimal(5_000), Decimal(-2_000)]
    assert {n: b.fees + b.income for n, b in enumerate(books) if b.fees or b.income} == {12: Decimal("-1.37"), 30: Decimal("0.42"), 50: Decimal("-0.05")}
    assert len(books) == SESSIONS and any(b.realised for b in books) and any(b.unrealised for b in books)
    for b in books:
        assert abs(b.unexplained) < Decimal("0.01"), b


def test_a_day_that_does_not_add_up_is_seen(ledger):
    class Without:
        "The same ledger without its last fill."

        def __getattr__(self, name):
            return getattr(ledger, name)

        def fills(self):
            return ledger.fills()[:-1]

        def remembered(self, name, kinds, make):
            return make()

    assert any(abs(b.unexplained) >= Decimal("0.01") for b in recorded_books(Without()))


def test_a_fee_that_is_not_booked_is_seen(ledger):
    books = [b for b in recorded_books(ledger) if b.fees]
    assert books and all(abs(replace(b, fees=Decimal(0)).unexplained) >= Decimal("0.01") for b in books)


@pytest.mark.parametrize("kind", [k for k in ActivityKind if k is not ActivityKind.SPLIT])
def test_every_kind_of_cash_is_booked_once_and_the_day_adds_up(kind):
    clock = StillClock(AT)
    ledger, paid = Ledger(":memory:", clock), Activity("a1", kind, date(2026, 1, 23), Decimal("-3.21"))
    ledger.record("session_opened", {"session": "2026-01-23", "equity": "1000"})
    books = BookKeeper.__new__(BookKeeper)
    books.ledger, books.clock, books.broker = ledger, clock, SimpleNamespace(activities=lambda after: [paid])
    assert [books.book_activities(AT) for _ in range(2)] == [1, 0]
    ledger.record("session_closed", {"session": "2026-01-23", "equity": "996.79", "positions": {}, "flow": -3.21 if kind.is_flow else 0.0})
    (day,) = recorded_books(ledger)
    assert day.unexplained == 0 and [day.flows, day.fees, day.income].count(Decimal("-3.21")) == 1 and (day.fees != 0) == kind.is_cost


def test_summaries_cover_five_periods_and_agree_with_the_closes(ledger):
    found = {p["period"]: p for p in recorded_summaries(ledger)}
    assert list(found) == ["day", "7 days", "30 days", "month to date", "year to date"]
    last = list(ledger.events("metrics"))[-1].body["metrics"]
    assert found["day"]["pnl"] == pytest.approx(last["daily_pnl"], abs=1e-6)
    assert found["month to date"]["pnl"] == pytest.approx(last["mtd_pnl"], abs=1e-6)
    assert found["day"]["sharpe"] is None and found["30 days"]["sharpe"] is not None
    assert found["30 days"]["trades"] and 0 <= found["30 days"]["win_rate"] <= 1


def test_the_snapshots_hold_everything_the_dashboard_shows(campaign):
    told = read_snapshot(campaign / "monitoring" / "dashboard_state.json")
    assert {"health", "overall", "kpis", "summary", "summaries", "execution", "uptime", "books", "channels", "api_latency_ms"} <= set(told)
    kept = read_snapshot(campaign / "monitoring" / "metrics_state.json")
    assert {d["name"] for d in kept["definitions"]} == {d.name for d in DEFINITIONS} <= set(kept)
    assert all(d["reason"] for d in kept["definitions"] if d["value"] is None)
    assert {r["name"] for r in told["kpis"]} == {"fill_rate_pct", "avg_slippage_bps", "api_uptime_pct", "errors_per_week", "sharpe_30d"}
    assert all((r["value"] is None) == bool(r["reason"]) for r in told["kpis"])
    assert all(p.stat().st_mode & 0o077 == 0 for p in (campaign / "monitoring").iterdir())


def test_after_sixty_sessions_everything_under_state_is_its_owners_alone(campaign):
    found = list(campaign.rglob("*"))
    assert len(found) > 20 and [str(p) for p in found if p.stat().st_mode & 0o077] == []


def test_prometheus_the_grafana_page_and_the_alert_rules_speak_of_the_same_names(campaign):
    import yaml

    text = (campaign / "monitoring" / "v23.prom").read_text()
    there = set(re.findall(r"^(v23_\w+)", text, re.MULTILINE)) | {"v23_alert_channel_up", "v23_api_latency_ms"}
    page = json.loads((ROOT / "scripts" / "monitoring" / "grafana_dashboard.json").read_text())
    rules = yaml.safe_load((ROOT / "scripts" / "monitoring" / "prometheus_alerts.yml").read_text())
    asked = {n for p in page["panels"] for t in p["targets"] for n in re.findall(r"v23_\w+", t["expr"])}
    ruled = {n for g in rules["groups"] for r in g["rules"] for n in re.findall(r"v23_\w+", r["expr"])}
    assert asked and ruled and asked | ruled <= there, (asked | ruled) - there
    assert len({p["id"] for p in page["panels"]}) == len(page["panels"]) and page["uid"] and page["schemaVersion"] >= 36
    spots = [(p["gridPos"]["x"] + dx, p["gridPos"]["y"] + dy) for p in page["panels"] for dx in range(p["gridPos"]["w"]) for dy in range(p["gridPos"]["h"])]
    assert len(spots) == len(set(spots)) and max(x for x, _ in spots) < 24
    for rule in (r for g in rules["groups"] for r in g["rules"]):
        assert rule["labels"]["severity"] in ("critical", "high", "medium") and rule["annotations"]["summary"] and rule["annotations"]["action"]


def test_the_endpoint_is_on_loopback_only_and_serves_what_was_published():
    server = Telemetry(0)
    try:
        server.publish(prometheus_text({"daily_pnl": 1.0}, [], [], [], None, None, datetime.now(UTC)))
        with urllib.request.urlopen(server.url) as reply:
            assert b"v23_daily_pnl 1.0" in reply.read()
        assert server.url.startswith("http://127.0.0.1:")
        with pytest.raises(PortInUseError, match="METRICS_PORT"):
            Telemetry(int(server.url.split(":")[2].split("/")[0]))
    finally:
        server.close()


def test_the_dead_man_is_visited_in_the_background_and_never_waited_for():
    with web_server() as (web, url):
        found = settings(DEAD_MAN_URL=url + "/ping/abc")
        web.delay_s = 1.0
        began = time.perf_counter()
        assert ping_dead_man(found) and not ping_dead_man(found)  # one visit at a time
        assert time.perf_counter() - began < 0.2
        assert wait_for(lambda: [p for p, _ in web.requests] == ["/ping/abc"])
        assert not ping_dead_man(found, healthy=False) and not ping_dead_man(settings())
    telemetry._visit.join(5)
    assert ping_dead_man(settings(DEAD_MAN_URL="http://127.0.0.1:9/x"))
    telemetry._visit.join(10)
    assert not telemetry._visit.is_alive()


class Answering:
    "A broker that answers until it does not."

    def __init__(self, clock):
        self.clock, self.up = clock, True

    def market_clock(self):
        if not self.up:
            raise BrokerError("timeout")
        return type("Clock", (), {"at": self.clock.now() + timedelta(seconds=1.5)})()


def test_uptime_is_measured_from_heartbeats_that_were_due(tmp_path):
    clock = StillClock(AT)
    ledger, broker = Ledger(":memory:", clock), Answering(clock)
    beats = Heartbeats(ledger, clock)
    for n in range(60):
        broker.up = n not in (10, 11)
        assert beats.beat(broker, iter([0.0, 0.025]).__next__) is broker.up
        clock.sleep(60)
    beats.flush()
    clock.sleep(1800)  # the desk is dead for half an hour
    again = Heartbeats(ledger, clock)
    again.beat(broker, iter([0.0, 0.025]).__next__)
    again.flush()
    row = recorded_beats(ledger, 60.0)[0]
    assert (row.made, row.answered, row.due) == (61, 59, 91) and row.longest_gap_s == 1860 and set(row.latencies_ms) == {25.0}


def test_heartbeats_reach_the_log_and_nobody_else(tmp_path):
    from v23.adapters.alert_channels import open_outbox

    clock = StillClock(AT)
    ledger = Ledger(":memory:", clock)
    outbox = open_outbox(ledger, clock, settings(), tmp_path)
    dashboard = MonitoringDashboard(ledger, clock, settings(), tmp_path, outbox)
    for _ in range(17):
        dashboard.heartbeat(Answering(clock))
        clock.sleep(60)
    rows = [json.loads(x) for x in (tmp_path / "monitoring" / "alerts.log").read_text().splitlines()]
    assert [(r["priority"], r["text"]) for r in rows if r["code"] == "HEARTBEAT"] == [("LOW", "16 heartbeats, 16 answered by the broker")]
    assert "HEARTBEAT" not in {r["code"] for r in outbox.rows()}


def test_health_tells_late_from_at_rest_and_says_why():
    clock = StillClock(AT)
    ledger = Ledger(":memory:", clock)
    dashboard = MonitoringDashboard(ledger, clock, settings(), "/tmp/nonexistent-v23")
    assert {r["component"]: r["status"] for r in dashboard.check_health()}["positions"] == "unknown"
    ledger.record("reconciled", {"session": "2026-01-23", "stops": [], "findings": []})
    dashboard.heartbeat(Answering(clock))
    now = {r["component"]: r for r in dashboard.check_health()}
    assert now["positions"]["status"] == now["api_connection"]["status"] == now["clock"]["status"] == "ok" and "+1.5 s" in now["clock"]["detail"]
    clock.sleep(700)
    now = {r["component"]: r["status"] for r in dashboard.check_health()}
    assert now["positions"] == "late" and now["api_connection"] == "problem"
    clock.sleep(8 * 3600)
    assert {r["component"]: r["status"] for r in dashboard.check_health()}["positions"] == "idle"
    ledger.record("reconciled", {"session": "2026-01-23", "stops": ["AAA: 3 shares more"], "findings": []})
    assert {r["component"]: r["detail"] for r in dashboard.check_health()}["positions"] == "AAA: 3 shares more"
    dashboard.killed = True
    assert {r["component"]: r["status"] for r in dashboard.check_health()}["kill_switch"] == "problem"


RUNBOOK = (
    "from v23.monitoring_dashboard import MonitoringDashboard; d = MonitoringDashboard(); print(d.check_health())",
    "from v23.monitoring_dashboard import MonitoringDashboard; d = MonitoringDashboard(); d.send_daily_summary()",
    "from v23.monitoring_dashboard import MonitoringDashboard; print(MonitoringDashboard().get_metrics())",
)


def run(line, **environ):
    return subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, timeout=120, env=os.environ | environ, cwd="/tmp")


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"}


def test_the_lines_of_the_runbook_work_without_a_running_desk_and_beside_one(campaign):
    save = "from v23.monitoring_dashboard import MonitoringDashboard; MonitoringDashboard().save_state(); print('State saved')"
    told = [run(line, V23_STATE_DIR=str(campaign)) for line in (*RUNBOOK, save)]
    assert [t.returncode for t in told] == [0] * 4, [t.stderr[-400:] for t in told]
    assert "no desk runs" in told[0].stdout and "daily_pnl" in told[2].stdout
    lock = StateLock(campaign)
    try:
        before = contents(campaign)
        beside = [run(line, V23_STATE_DIR=str(campaign)) for line in RUNBOOK]
        refused = run(save, V23_STATE_DIR=str(campaign))
        assert [t.returncode for t in beside] == [0] * 3, [t.stderr[-400:] for t in beside]
        assert refused.returncode != 0 and "owns" in refused.stderr and contents(campaign) == before
    finally:
        lock.release()


def test_beside_a_desk_that_answers_the_same_lines_reach_it(campaign):
    from v23.control import ControlServer

    asked = []
    with_handlers = ControlServer(campaign, {"heartbeat": lambda who, fields: {"alive": True}, "save": lambda who, fields: asked.append("save") or {}})
    with_handlers.start()
    try:
        dashboard = MonitoringDashboard(settings=settings(), state_dir=campaign)
        dashboard.save_state()
        assert asked == ["save"] and dashboard.check_health()[0]["status"] == "ok"
    finally:
        with_handlers.stop()


def test_where_no_desk_ever_ran_everything_is_unknown_and_nothing_is_made(tmp_path):
    dashboard = MonitoringDashboard(settings=settings(), state_dir=tmp_path / "none")
    rows = {r["component"]: r["status"] for r in dashboard.check_health()}
    assert all(rows[p.name] in ("unknown", "idle") for p in PARTS) and dashboard.get_metrics() == {}
    with pytest.raises(InputError, match="no closed session"):
        dashboard.send_daily_summary()
    with pytest.raises(InputError):
        dashboard.save_state()
    assert not (tmp_path / "none").exists()


def test_the_daily_summary_is_a_mail_with_a_picture_and_a_text(campaign):
    with mail_server() as (box, port):
        found = settings(SMTP_HOST="127.0.0.1", SMTP_PORT=port, ALERT_EMAIL_SENDER="desk@example.com", ALERT_EMAIL_RECIPIENT="ann@example.com")
        from v23.adapters.alert_channels import open_outbox

        ledger = Ledger(campaign / "execution" / "ledger.sqlite3", StillClock(AT))
        outbox = open_outbox(ledger, StillClock(AT), found, campaign)
        dashboard = MonitoringDashboard(ledger, StillClock(AT), found, campaign, outbox)
        dashboard.update({})
        assert dashboard.send_daily_summary() == ["email", "log"]
        outbox.close(20.0)
        ledger.close()
        assert MonitoringDashboard(settings=found, state_dir=campaign).send_daily_summary() == ["email"]
    for mail in (m for m in box.messages if "CHANNEL" not in m["subject"] and "channel" not in m["subject"]):
        kinds = [p.get_content_type() for p in mail.walk()]
        assert "text/html" in kinds and "text/plain" in kinds and "image/png" in kinds, kinds
        html = next(p for p in mail.walk() if p.get_content_type() == "text/html").get_content()
        name = re.search(r'src="cid:([^"]+)"', html).group(1)
        image = next(p for p in mail.walk() if p.get_content_type() == "image/png")
        assert name in image["Content-ID"] and len(image.get_content()) < 60_000 and "SYNTHETIC MARKET" in html and "http://" not in html
        assert "P&L" in next(p for p in mail.walk() if p.get_content_type() == "text/plain").get_content()


def test_no_metric_is_a_number_that_is_not_one(campaign):
    def walk(value):
        if isinstance(value, dict):
            for v in value.values():
                yield from walk(v)
        elif isinstance(value, list):
            for v in value:
                yield from walk(v)
        else:
            yield value

    for name in ("dashboard_state", "metrics_state", "alert_history"):
        assert all(not isinstance(v, float) or math.isfinite(v) for v in walk(read_snapshot(campaign / "monitoring" / f"{name}.json")))
