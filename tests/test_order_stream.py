"""A desk in real time with the order stream as a hint: whatever the stream does, the books are the broker's.

Real sockets, the official clients, seconds that pass. F-numbers are rows of the fault catalogue.
"""

import time
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal

import pytest

import v23.adapters.order_stream as order_stream
import v23.execution_engine as engine
from v23.domain import OrderIntent, Purpose, Side
from v23.errors import InputError
from v23.exchange_host import ExchangeConfig, ExchangeHost, Serving
from v23.execution.order_lifecycle import intent_key
from v23.execution.order_routing import plan_order
from v23.market_calendar import session_hours
from v23.synthetic_market import synthetic_panel
from v23.trading_desk import open_desk

PANEL = synthetic_panel(3, 40, date(2025, 10, 1), date(2026, 2, 27))
DAY = date(2026, 1, 20)
NAMES = PANEL.symbols[:4]


@contextmanager
def desk_in_real_time(tmp_path, listens=True):
    start = session_hours(DAY).open + timedelta(hours=2)
    folders = {"state": tmp_path / "state", "reports": tmp_path / "reports"}
    host = ExchangeHost(tmp_path / "state", ExchangeConfig("", 3, start, Decimal(100_000)), panel=PANEL, serving=Serving(speed=1.0))
    with host, open_desk(**folders, exchange=host.url, panel=PANEL, stream=listens) as desk:
        desk.engine.settings.__dict__.update(spread_threshold_bps=1e4, max_spread_bps=1e4)  # market orders all
        desk.ready(DAY)
        desk.look(DAY)
        yield host, desk


def stream_of(desk):
    return desk.engine.pause.__self__


def trade(desk, note="", names=NAMES):
    items, now = [], desk.clock.now()
    for symbol, quote in desk.broker.quotes(names).items():
        intent = OrderIntent(intent_key("test", DAY, symbol, Side.BUY, Purpose.ENTRY, note), "test", DAY, symbol, Side.BUY, Decimal(5), Purpose.ENTRY, quote.midpoint)
        items.append((plan_order(intent, quote, now, now + timedelta(minutes=1), desk.engine.settings), desk.gate(intent, quote)))
    desk.engine.plan(items)
    desk.engine.work(DAY, now + timedelta(minutes=1))


def until(holds, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def books_agree(host, desk, shares):
    findings, stops = desk.reconcile(DAY)
    assert (findings, stops) == ([], []) and desk.booked_positions() == shares
    assert len({f.fill_id for f in desk.ledger.fills()}) == len(desk.ledger.fills())


def test_an_event_ends_the_wait_for_the_next_poll(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "POLL_WAITS_S", (30.0,))  # without a hint this takes half a minute
    with desk_in_real_time(tmp_path) as (host, desk):
        until(lambda: stream_of(desk).connected)
        time.sleep(0.3)
        began = time.monotonic()
        trade(desk)
        assert time.monotonic() - began < 15
        assert stream_of(desk).messages >= 4
        books_agree(host, desk, dict.fromkeys(NAMES, Decimal(5)))


@pytest.mark.parametrize("kind", ["stream_duplicate", "stream_swap", "stream_late", "stream_drop", "stream_null"])
def test_F20_F21_F22_F25_events_that_are_doubled_shuffled_late_lost_or_empty_change_no_book(kind, tmp_path):
    with desk_in_real_time(tmp_path) as (host, desk):
        until(lambda: stream_of(desk).connected)
        host.exchange.faults.add("STREAM", "trade_updates", kind, times=6, seconds=0.5)
        trade(desk)
        books_agree(host, desk, dict.fromkeys(NAMES, Decimal(5)))


def test_F19_a_stream_that_stays_mute_while_orders_move_is_said_so_and_connected_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(order_stream, "MUTE_S", 1.0)
    with desk_in_real_time(tmp_path) as (host, desk):
        until(lambda: stream_of(desk).connected)
        host.exchange.faults.add("STREAM", "trade_updates", "stream_mute", times=1, seconds=3_600)
        trade(desk)
        time.sleep(1.1)
        trade(desk, "again")
        time.sleep(1.1)
        desk.engine.polled(False)
        assert "STREAM_MUTE" in [e.body["code"] for e in desk.ledger.events("error")] and stream_of(desk).connections >= 2
        books_agree(host, desk, dict.fromkeys(NAMES, Decimal(10)))


def test_F23_a_socket_that_is_closed_again_and_again_loses_nothing(tmp_path):
    with desk_in_real_time(tmp_path) as (host, desk):
        until(lambda: stream_of(desk).connected)
        host.exchange.faults.add("STREAM", "trade_updates", "stream_close", times=20)
        for n in range(3):
            trade(desk, str(n))
        books_agree(host, desk, dict.fromkeys(NAMES, Decimal(15)))


def test_a_stream_is_refused_where_time_moves_only_when_told(tmp_path):
    host = ExchangeHost(tmp_path / "state", ExchangeConfig("", 3, session_hours(DAY).open, Decimal(100_000)), panel=PANEL)
    with host, pytest.raises(InputError, match="real time"):
        open_desk(state=tmp_path / "state", reports=tmp_path / "reports", host=host, stream=True)


def test_a_desk_that_listens_closes_within_five_seconds(tmp_path):
    with desk_in_real_time(tmp_path) as (host, desk):
        until(lambda: stream_of(desk).connected)
        stream, began = stream_of(desk), time.monotonic()
        desk.close()
        assert time.monotonic() - began < 5 and not stream.connected
