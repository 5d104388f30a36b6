"A desk on an account of its own keys: the official client, real addresses, bars that keep up; the account is simulated."

import json
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import requests
from alert_sinks import web_server

from v23.adapters.bars import load_bars, save_bars
from v23.adapters.clocks import SystemClock
from v23.control import ask
from v23.errors import DataError, InputError, SettingsError, StateError
from v23.jobs import read_history
from v23.market_calendar import NEW_YORK, new_york_hours
from v23.settings import load_settings
from v23.simulator.exchange import Exchange
from v23.simulator.server import SimulatorServer, VirtualClock
from v23.supervisor import SupervisorPlan, own
from v23.trading_desk import open_desk

KEYS = ("PKCANARY7", "canary-secret-7")
TUESDAY = datetime(2026, 1, 13, 9, 0, tzinfo=NEW_YORK)


@pytest.fixture
def account(tmp_path):
    panel = load_bars(seed=7)
    exchange = Exchange(panel, 7, TUESDAY, Decimal(100_000))
    save_bars(panel, tmp_path / "bars.parquet")
    with SimulatorServer(exchange, keys=KEYS) as server:
        yield exchange, server.url


def settings_of(url, tmp_path, **more):
    said = {"V23_MODE": "paper", "ALPACA_API_KEY": KEYS[0], "ALPACA_API_SECRET": KEYS[1], "ALPACA_BASE_URL": url, "ALPACA_DATA_URL": url, "V23_BARS": str(tmp_path / "bars.parquet")}
    return load_settings(tmp_path / "nothing", environ=said | more)


def desk_of(account, tmp_path, state="state", **more):
    exchange, url = account
    return open_desk(state=tmp_path / state, reports=tmp_path / "reports", settings=settings_of(url, tmp_path, **more), clock=VirtualClock(exchange))


def test_a_day_of_paper_trading(account, tmp_path):
    exchange, _ = account
    with desk_of(account, tmp_path) as desk:
        assert desk.wiring.mode == "paper"
        desk.market_open()
        done = desk.rebalance()
        closed = desk.market_close()
        held = {p.symbol: p.quantity for p in desk.broker.positions()}
        assert done["summary"]["parents"] >= 5 and held and held == {s: q for s, q in desk.booked_positions().items() if q}
        assert closed["summary"]["differences"] == 0
    ids = [o["client_order_id"] for o in exchange_orders(account)]
    assert len(ids) == len(set(ids)) and all(i.startswith("v23-p-") for i in ids)
    exchange.advance_by(16 * 3600)
    with desk_of(account, tmp_path) as desk:  # the next process goes on with the same account
        assert desk.market_open()["summary"]["session"] == "2026-01-14"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not any(key.encode() in path.read_bytes() for key in KEYS), path


def exchange_orders(account):
    from alpaca.trading.client import TradingClient
    from alpaca.trading.requests import GetOrdersRequest

    client = TradingClient(*KEYS, url_override=account[1], raw_data=True)
    return client.get_orders(GetOrdersRequest(status="all", limit=500))


def test_fetched_bars_end_before_today(account, tmp_path):
    with desk_of(account, tmp_path, V23_BARS="alpaca:XAAA,XAAB,XAAC") as desk:
        panel = desk.wiring.bars(datetime(2026, 1, 12).date())
        assert panel.symbols == ("XAAA", "XAAB", "XAAC") and str(panel.sessions[-1]) == "2026-01-12"
        assert len(list((tmp_path / "state" / "bars").glob("*.parquet"))) == 1


def test_nothing_is_decided_on_old_bars(account, tmp_path):
    save_bars(load_bars(seed=7).upto(datetime(2026, 1, 9).date()), tmp_path / "bars.parquet")
    with pytest.raises(DataError, match=r"ends on 2026-01-09, bars of 2026-01-12 are needed"):
        desk_of(account, tmp_path)


def test_a_pinned_account(account, tmp_path):
    exchange, _ = account
    with desk_of(account, tmp_path, "other", V23_ACCOUNT_ID="11111111-2222-3333-4444-555555555555") as desk, pytest.raises(SettingsError, match="V23_ACCOUNT_ID"):
        desk.market_open()
    assert exchange_orders(account) == []
    with desk_of(account, tmp_path, V23_ACCOUNT_ID=exchange.account_id) as desk:
        desk.market_open()


def test_a_state_folder_serves_one_account(account, tmp_path):
    with desk_of(account, tmp_path) as desk:
        desk.market_open()
    with SimulatorServer(Exchange(load_bars(seed=7), 8, TUESDAY, Decimal(100_000)), keys=KEYS) as other:
        stranger = (Exchange(load_bars(seed=7), 8, TUESDAY, Decimal(100_000)), other.url)
        with desk_of(stranger, tmp_path) as desk, pytest.raises(StateError, match="record of account"):
            desk.rebalance()
    with pytest.raises(InputError, match="not simulated here"):
        open_desk(state=tmp_path / "state", reports=tmp_path / "reports")


LIVE = {"V23_MODE": "live", "ALPACA_API_KEY": "k", "ALPACA_API_SECRET": "s", "ALPACA_BASE_URL": "https://api.alpaca.markets"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"V23_MODE": "paper"}, "ALPACA_API_KEY"),
        ({"V23_MODE": "paper", "ALPACA_API_KEY": "k", "ALPACA_API_SECRET": "s"}, "V23_BARS is not set"),
        ({"V23_MODE": "paper", "ALPACA_BASE_URL": "https://api.alpaca.markets"}, "disagree"),
        ({"V23_MODE": "paper", "ALPACA_BASE_URL": "http://paper-api.alpaca.markets"}, "disagree"),
        ({"V23_MODE": "paper", "ALPACA_BASE_URL": "https://paper-api.alpaca.markets.example.com"}, "disagree"),
        (LIVE | {"ALPACA_BASE_URL": "https://paper-api.alpaca.markets"}, "disagree"),
        (LIVE, "V23_ACCOUNT_ID is not set"),
        (LIVE | {"V23_ACCOUNT_ID": "a"}, "promotion record"),
    ],
)
def test_F13_mode_keys_address_and_account_must_agree(said, expected, tmp_path):
    with pytest.raises(SettingsError, match=expected):
        open_desk(state=tmp_path / "state", reports=tmp_path / "reports", settings=load_settings(tmp_path / "nothing", environ=said))
    assert not (tmp_path / "state").exists()


def test_an_account_at_alpaca_is_not_traded_on_a_synthetic_market(tmp_path):
    save_bars(load_bars(seed=7), tmp_path / "bars.parquet")

    class Noon:
        def now(self):
            return TUESDAY

    settings = settings_of("https://paper-api.alpaca.markets", tmp_path)
    with pytest.raises(SettingsError, match="synthetic market"):
        open_desk(state=tmp_path / "state", reports=tmp_path / "reports", settings=settings, clock=Noon())


def test_live_never_starts_inside_a_test_run(tmp_path, monkeypatch):
    import v23.trading_desk as desks

    monkeypatch.setattr(desks, "require_promotion", lambda *a: type("Promoted", (), {"size": 0.5}))
    settings = load_settings(tmp_path / "nothing", environ=LIVE | {"V23_ACCOUNT_ID": "a"})
    with pytest.raises(SettingsError, match="inside a test run"):
        open_desk(state=tmp_path / "state", reports=tmp_path / "reports", settings=settings)


def test_a_synthetic_market_never_trades_a_live_account(tmp_path, monkeypatch):
    import v23.trading_desk as desks

    monkeypatch.setattr(desks, "require_promotion", lambda *a: type("Promoted", (), {"size": 0.5}))
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    save_bars(load_bars(seed=7), tmp_path / "bars.parquet")

    class Noon:
        def now(self):
            return TUESDAY

    settings = load_settings(tmp_path / "nothing", environ=LIVE | {"V23_ACCOUNT_ID": "a", "V23_BARS": str(tmp_path / "bars.parquet")})
    with pytest.raises(SettingsError, match="synthetic market"):
        open_desk(state=tmp_path / "state", reports=tmp_path / "reports", settings=settings, clock=Noon())


class AtTheExchange(SystemClock):
    "Real time, moved to the exchange's day."

    def __init__(self, exchange):
        self.offset = exchange.now - datetime.now(UTC)

    def now(self):
        return new_york_hours(datetime.now(UTC) + self.offset)


def metric(port, name):
    lines = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_an_owner_in_real_time_keeps_its_intervals_hears_the_stream_is_watched_and_ends_at_once(tmp_path, monkeypatch):
    panel = load_bars(seed=7)
    exchange = Exchange(panel, 7, datetime(2026, 1, 13, 15, 30, tzinfo=NEW_YORK), Decimal(100_000))
    save_bars(panel, tmp_path / "bars.parquet")
    owners, ended = [], []
    with web_server() as (pings, ping_url), SimulatorServer(exchange, keys=KEYS, speed=1.0) as server:
        said = {"V23_MODE": "paper", "ALPACA_API_KEY": KEYS[0], "ALPACA_API_SECRET": KEYS[1], "ALPACA_BASE_URL": server.url, "ALPACA_DATA_URL": server.url}
        port = free_port()
        for name, value in (said | {"V23_BARS": str(tmp_path / "bars.parquet"), "DEAD_MAN_URL": ping_url, "METRICS_PORT": str(port)}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        plan = SupervisorPlan(mode="paper", state=str(tmp_path / "state"), reports=str(tmp_path / "reports"))
        life = threading.Thread(target=lambda: ended.append(own(plan, owners.append, AtTheExchange(exchange))))
        life.start()
        try:
            until = time.monotonic() + 120
            while not [e for e in read_history(tmp_path / "reports", "rebalance") if e["status"] == "done"]:
                assert life.is_alive() and time.monotonic() < until, read_history(tmp_path / "reports")
                time.sleep(0.1)
            status = ask(tmp_path / "state", "status", timeout=30)
            graded = metric(port, "v23_health{component=\"api_connection\"}")
        finally:
            began = time.monotonic()
            owners[0].clock.stop()
            life.join(30)
    assert ended == ["told to stop"] and time.monotonic() - began < 10  # five seconds, and what a busy machine takes
    every = {x["name"]: x["every_s"] for x in status["health"]}
    assert every == {"api_connection": 60.0, "account": 60.0, "order_status": 30.0, "market_data": 5.0, "positions": 300.0, "state_persistence": 900.0}
    assert all(x["ok"] for x in status["health"]) and status["positions"] > 5 and graded == 0
    assert owners[0].desk.stream.messages >= status["positions"]  # an event for every fill
    assert pings.requests
    assert json.loads((tmp_path / "state" / "monitoring" / "live_state.json").read_text())["data"]["seen"]["account"]["equity"]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not any(key.encode() in path.read_bytes() for key in KEYS), path


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
