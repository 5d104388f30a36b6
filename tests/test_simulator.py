"The simulated exchange as a client meets it: the official library over real sockets, and rules that must hold for any order."

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
import requests
from alpaca.common.exceptions import APIError
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import StockBarsRequest, StockLatestBarRequest, StockLatestQuoteRequest, StockLatestTradeRequest, StockSnapshotRequest
from alpaca.data.timeframe import TimeFrame
from alpaca.trading.client import TradingClient
from alpaca.trading.models import TradeUpdate
from alpaca.trading.requests import ClosePositionRequest, GetAssetsRequest, GetCalendarRequest, GetOrdersRequest, LimitOrderRequest, MarketOrderRequest
from alpaca.trading.stream import TradingStream
from hypothesis import given, settings
from hypothesis import strategies as st

from v23.errors import OwnedError, PortInUseError, StateError
from v23.market_calendar import NEW_YORK, session_hours
from v23.market_data import panel_from_frames
from v23.simulator.account import available, buying_power, fractionable
from v23.simulator.exchange import Exchange
from v23.simulator.server import LoopbackAdapter, RemoteClock, SimulatorServer, VirtualClock
from v23.synthetic_market import synthetic_panel

FRIDAY = datetime(2026, 1, 23, 15, 30, tzinfo=NEW_YORK)
PANEL = synthetic_panel(3, 60, date(2025, 10, 1), date(2026, 2, 27))
NAMES = [s for s in PANEL.symbols if fractionable(s)]
HEADERS = {"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"}

def words(line):
    return set(line.split())


ACCOUNT_KEYS = words(
    "account_blocked account_number accrued_fees admin_configurations balance_asof buying_power cash created_at crypto_status crypto_tier "
    "currency effective_buying_power equity id initial_margin intraday_adjustments last_equity last_maintenance_margin long_market_value "
    "maintenance_margin multiplier non_marginable_buying_power options_approved_level options_buying_power options_trading_level "
    "pending_reg_taf_fees portfolio_value position_market_value regt_buying_power short_market_value shorting_enabled sma status "
    "trade_suspended_by_user trading_blocked transfers_blocked user_configurations"
)
ORDER_KEYS = words(
    "id client_order_id created_at updated_at submitted_at filled_at expired_at expires_at canceled_at failed_at replaced_at replaced_by "
    "replaces asset_id symbol asset_class notional qty filled_qty filled_avg_price order_class order_type type side position_intent "
    "time_in_force limit_price stop_price status extended_hours legs trail_percent trail_price hwm subtag source"
)
POSITION_KEYS = words(
    "asset_id symbol exchange asset_class asset_marginable qty qty_available avg_entry_price side market_value cost_basis unrealized_pl "
    "unrealized_plpc unrealized_intraday_pl unrealized_intraday_plpc current_price lastday_price change_today"
)


def exchange_at(start=FRIDAY, cash=100_000, **options):
    return Exchange(PANEL, 3, start, Decimal(cash), **options)


def ask(x, path, method="GET", body=None, **query):
    "One request to the state machine: (status, data)."
    answer = x.handle(method, path, query, b"" if body is None else json.dumps(body).encode())
    return answer.status, json.loads(answer.body) if answer.body else None


def order(x, symbol=NAMES[0], side="buy", **more):
    body = {"symbol": symbol, "qty": "10", "side": side, "type": "market", "time_in_force": "day"} | more
    return ask(x, "/v2/orders", "POST", {k: v for k, v in body.items() if v is not None})


class Desk:
    "An exchange behind a socket, with the official clients in front of it."

    def __init__(self, **options):
        self.exchange = exchange_at()
        self.server = SimulatorServer(self.exchange, **options)
        self.server.__enter__()
        self.trading = TradingClient("k", "s", url_override=self.server.url)
        self.trading._retry = 0
        self.data = StockHistoricalDataClient("k", "s", url_override=self.server.url)
        self.clock = RemoteClock(self.server.url)

    def buy(self, symbol=NAMES[0], qty=10, **more):
        return self.trading.submit_order(MarketOrderRequest(symbol=symbol, qty=qty, side="buy", time_in_force="day", **more))


@pytest.fixture
def desk():
    made = Desk()
    yield made
    made.server.__exit__(None, None, None)


def code_of(error):
    return error.value.status_code, error.value.code


# the official client, route by route


def test_the_client_reads_account_clock_calendar_and_assets(desk):
    account = desk.trading.get_account()
    assert (account.cash, account.equity, account.last_equity, account.buying_power, account.multiplier) == ("100000",) * 4 + ("1",)
    clock = desk.trading.get_clock()
    assert clock.is_open and clock.timestamp == FRIDAY and clock.next_close == FRIDAY.replace(hour=16, minute=0)
    days = desk.trading.get_calendar(GetCalendarRequest(start=date(2025, 11, 26), end=date(2025, 12, 1)))
    assert [(d.date.day, d.close.hour) for d in days] == [(26, 16), (28, 13), (1, 16)]
    assets = desk.trading.get_all_assets(GetAssetsRequest(status="active", asset_class="us_equity"))
    assert [a.symbol for a in assets] == list(PANEL.symbols)
    assert desk.trading.get_asset(NAMES[1]).id == desk.trading.get_asset(assets[PANEL.symbols.index(NAMES[1])].id).id
    with pytest.raises(APIError) as e:
        desk.trading.get_asset("NOPE")
    assert code_of(e) == (404, 40410000)


def test_the_client_reads_and_changes_account_configurations(desk):
    kept = desk.trading.get_account_configurations()
    assert not kept.suspend_trade and kept.max_margin_multiplier == "1"
    kept.suspend_trade = True
    assert desk.trading.set_account_configurations(kept).suspend_trade
    assert desk.trading.get_account().trade_suspended_by_user
    with pytest.raises(APIError) as e:
        desk.buy()
    assert code_of(e) == (403, 40310000)


def test_the_client_trades_lists_cancels_and_closes(desk):
    placed = desk.buy(client_order_id="mine-1")
    assert placed.status.value == "pending_new" and placed.filled_qty == "0" and placed.filled_avg_price is None
    desk.clock.sleep(3)
    filled = desk.trading.get_order_by_client_id("mine-1")
    assert filled.status.value == "filled" and filled.filled_qty == "10" and desk.trading.get_order_by_id(placed.id).id == filled.id
    position = desk.trading.get_open_position(NAMES[0])
    assert (position.qty, position.qty_available, position.avg_entry_price) == ("10", "10", filled.filled_avg_price)
    assert desk.trading.get_open_position(str(position.asset_id)).symbol == NAMES[0]
    resting = desk.trading.submit_order(LimitOrderRequest(symbol=NAMES[1], qty=2, side="buy", time_in_force="day", limit_price=1.5))
    desk.clock.sleep(1)
    assert [o.id for o in desk.trading.get_orders()] == [resting.id]
    closed = desk.trading.get_orders(GetOrdersRequest(status="closed", limit=5, direction="asc", symbols=[NAMES[0]], side="buy", nested=True))
    assert [o.id for o in closed] == [placed.id]
    assert desk.trading.get_orders(GetOrdersRequest(status="all", after=filled.submitted_at, until=resting.submitted_at)) == []
    desk.trading.cancel_order_by_id(resting.id)
    desk.clock.sleep(1)
    assert desk.trading.get_order_by_id(resting.id).status.value == "canceled"
    with pytest.raises(APIError) as e:
        desk.trading.cancel_order_by_id(resting.id)
    assert code_of(e) == (422, 42210000)
    with pytest.raises(APIError) as e:
        desk.trading.cancel_order_by_id(str(UUID(int=1)))
    assert code_of(e) == (404, 40410000)
    half = desk.trading.close_position(NAMES[0], ClosePositionRequest(percentage="50"))
    assert half.qty == "5" and half.side.value == "sell"
    assert [c.status for c in desk.trading.cancel_orders()] in ([200], [])  # it may have filled on the way
    desk.clock.sleep(3)
    assert [c.status for c in desk.trading.close_all_positions(cancel_orders=True)] == [200]
    desk.clock.sleep(3)
    assert desk.trading.get_all_positions() == []
    with pytest.raises(APIError) as e:
        desk.trading.get_open_position(NAMES[0])
    assert code_of(e) == (404, 40410000)


def test_activities_page_through_every_fill_once(desk):
    for symbol in NAMES[:12]:
        desk.buy(symbol, qty=20)
    desk.clock.sleep(5)
    for direction in ("asc", "desc"):
        seen, token = [], {}
        while page := desk.trading.get("/account/activities/FILL", {"page_size": 5, "direction": direction, **token}):
            assert len(page) <= 5
            seen += page
            token = {"page_token": page[-1]["id"]}
        assert len({a["id"] for a in seen}) == len(seen) == len(desk.exchange.activities)
        times = [a["transaction_time"] for a in seen]
        assert times == sorted(times, reverse=direction == "desc")
        assert sum(Decimal(a["qty"]) for a in seen) == 240
    first = min(a["transaction_time"] for a in seen)
    later = desk.trading.get("/account/activities", {"activity_types": "FILL", "after": first, "direction": "asc"})
    assert [a["transaction_time"] for a in later] == [t for t in sorted(times) if t > first]
    stamp, execution = seen[0]["id"].split("::")
    assert stamp.startswith("20260123153") and len(stamp) == 17 and UUID(execution)
    assert desk.trading.get("/account/activities/DIV") == []


def test_portfolio_history_has_one_point_a_close(desk):
    desk.buy(qty=100)
    desk.exchange.advance_to(FRIDAY + timedelta(days=5))
    history = desk.trading.get_portfolio_history()
    assert [datetime.fromtimestamp(t, NEW_YORK).day for t in history.timestamp] == [23, 26, 27]
    account = desk.trading.get_account()
    assert history.equity[-1] == float(account.last_equity) and history.base_value == 100_000
    assert history.profit_loss[-1] == pytest.approx(history.equity[-1] - 100_000)


def test_the_data_client_reads_quotes_trades_bars_and_snapshots(desk):
    two = NAMES[:2]
    quotes = desk.data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols=[*two, "NOPE"]))
    assert set(quotes) == set(two) and all(0 < q.bid_price < q.ask_price and q.bid_size >= 100 for q in quotes.values())
    trades = desk.data.get_stock_latest_trade(StockLatestTradeRequest(symbol_or_symbols=two))
    bars = desk.data.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols=two))
    snaps = desk.data.get_stock_snapshot(StockSnapshotRequest(symbol_or_symbols=two))
    for s in two:
        today, before = PANEL.bar(s, FRIDAY.date()), PANEL.bar(s, date(2026, 1, 22))
        assert today.low <= trades[s].price <= today.high and bars[s].close == trades[s].price == snaps[s].latest_trade.price
        assert snaps[s].previous_daily_bar.close == before.close and snaps[s].daily_bar.open == today.open
        assert snaps[s].daily_bar.volume < today.volume and snaps[s].latest_quote.timestamp == FRIDAY


def test_daily_bars_page_and_never_show_the_unfinished_day(desk):
    request = StockBarsRequest(symbol_or_symbols=NAMES[:3], timeframe=TimeFrame.Day, start=datetime(2026, 1, 5), limit=None)
    bars = desk.data.get_stock_bars(request)
    assert [b.timestamp.date() for b in bars[NAMES[0]]][-1] == date(2026, 1, 22)
    assert bars[NAMES[2]][3].close == PANEL.bar(NAMES[2], bars[NAMES[2]][3].timestamp.date()).close
    paged, token = Counter(), None
    while True:
        query = {"symbols": ",".join(NAMES[:3]), "timeframe": "1Day", "start": "2026-01-05", "limit": 7} | ({"page_token": token} if token else {})
        page = desk.data.get("/stocks/bars", query)
        assert sum(map(len, page["bars"].values())) <= 7
        paged.update((s, b["t"]) for s, rows in page["bars"].items() for b in rows)
        if (token := page["next_page_token"]) is None:
            break
    assert set(paged.values()) == {1} and len(paged) == sum(map(len, bars.data.values()))
    desk.exchange.advance_to(FRIDAY.replace(hour=16, minute=0))
    assert desk.data.get_stock_bars(request)[NAMES[0]][-1].timestamp.date() == FRIDAY.date()
    assert desk.data.get_stock_bars(StockBarsRequest(symbol_or_symbols="NOPE", timeframe=TimeFrame.Day, start=datetime(2026, 1, 5))).data == {}


def test_the_stream_brings_every_event_to_the_official_client(desk):
    seen: list[TradeUpdate] = []
    stream = TradingStream("k", "s", url_override=desk.server.url.replace("http", "ws") + "/stream")

    async def handler(update):
        seen.append(update)

    stream.subscribe_trade_updates(handler)
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not desk.exchange.listeners and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    desk.buy(qty=30)
    desk.clock.sleep(5)
    while len(seen) < len(desk.exchange.events) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [(u.event, u.order.status.value) for u in seen] == [(e["event"], e["order"]["status"]) for e in desk.exchange.events]
    assert seen[-1].position_qty == 30 and sum(u.qty or 0 for u in seen) == 30
    assert str(seen[-1].execution_id) in desk.exchange.activities[-1][1]["id"]
    stream.stop()
    thread.join(timeout=10)
    assert not thread.is_alive() and not desk.exchange.listeners


def stream_of(server):
    from websockets.sync.client import connect

    return connect(server.url.replace("http", "ws") + "/stream")


def test_the_stream_does_not_repeat_what_happened_before():
    x = exchange_at()
    order(x, client_order_id="before")
    x.advance_by(5)
    with SimulatorServer(x) as server, stream_of(server) as ws:
        for message in ({"action": "authenticate", "data": {"key_id": "k", "secret_key": "s"}}, {"action": "listen", "data": {"streams": ["trade_updates"]}}):
            ws.send(json.dumps(message))
            ws.recv(timeout=5)
        order(x, client_order_id="after")
        x.advance_by(5)
        assert json.loads(ws.recv(timeout=5))["data"]["order"]["client_order_id"] == "after"


def test_the_stream_refuses_strangers():

    with SimulatorServer(exchange_at(), keys=("id", "secret")) as server, stream_of(server) as ws:
        for message, status in (
            ({"action": "listen", "data": {"streams": ["trade_updates"]}}, "unauthorized"),
            ({"action": "authenticate", "data": {"key_id": "id", "secret_key": "guess"}}, "unauthorized"),
            ({"action": "authenticate", "data": {"key_id": "id", "secret_key": "secret"}}, "authorized"),
        ):
            ws.send(json.dumps(message))
            frame = ws.recv(timeout=5)
            assert isinstance(frame, bytes) and json.loads(frame)["data"]["status"] == status


# shapes and codes


def test_answers_have_exactly_alpacas_keys():
    x = exchange_at()
    assert set(ask(x, "/v2/account")[1]) == ACCOUNT_KEYS
    _, placed = order(x)
    assert set(placed) == ORDER_KEYS and placed["order_class"] == "" and placed["legs"] is None
    assert placed["created_at"] == "2026-01-23T20:30:00.000000000Z" and placed["expires_at"].startswith("2026-01-23T21:00:00")
    x.advance_by(5)
    position = ask(x, f"/v2/positions/{NAMES[0]}")[1]
    assert set(position) == POSITION_KEYS and all(isinstance(v, str | bool) for v in position.values())
    done = ask(x, f"/v2/orders/{placed['id']}")[1]
    assert done["filled_at"] > done["created_at"] and done["status"] == "filled"


REFUSALS = {
    "unknown asset": ({"symbol": "NOPE"}, 422, 42210000),
    "no quantity": ({"qty": None}, 422, 40010001),
    "both quantities": ({"notional": "10"}, 422, 40010001),
    "zero": ({"qty": "0"}, 422, 40010001),
    "negative": ({"qty": "-1"}, 422, 40010001),
    "not a number": ({"qty": "NaN"}, 422, 40010001),
    "infinite": ({"qty": "1e400"}, 422, 40010001),
    "side": ({"side": "short"}, 422, 40010001),
    "type": ({"type": "stop"}, 422, 40010001),
    "time in force": ({"time_in_force": "someday"}, 422, 40010001),
    "needs an agreement": ({"time_in_force": "ioc"}, 403, 40310000),
    "no limit": ({"type": "limit"}, 422, 40010001),
    "sub-penny": ({"type": "limit", "limit_price": "290.123"}, 422, 42210000),
    "sub-penny below a dollar": ({"type": "limit", "limit_price": "0.12345"}, 422, 42210000),
    "long client id": ({"client_order_id": "x" * 129}, 422, 40010001),
    "fractional gtc": ({"qty": "0.5", "time_in_force": "gtc"}, 422, 42210000),
    "ten decimals": ({"qty": "0.0000000001"}, 422, 40010001),
    "small notional": ({"qty": None, "notional": "0.99"}, 422, 40010001),
    "extended hours market": ({"extended_hours": True}, 422, 42210000),
    "bracket": ({"order_class": "bracket"}, 422, 40010001),
    "too much money": ({"qty": "1000000"}, 403, 40310000),
    "short": ({"side": "sell"}, 403, 40310000),
    "not fractionable": ({"symbol": next(s for s in PANEL.symbols if not fractionable(s)), "qty": "0.5"}, 403, 40310000),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refusal_has_its_code_and_changes_nothing(what):
    x = exchange_at()
    changes, status, code = REFUSALS[what]
    answer = order(x, **changes)
    assert (answer[0], answer[1]["code"]) == (status, code), answer
    x.advance_by(10)
    assert not x.orders and not x.events and ask(x, "/v2/account")[1]["buying_power"] == "100000"


def test_a_price_may_be_a_number_or_text_and_goes_to_a_hundredth_of_a_cent_below_a_dollar():
    x = exchange_at()
    assert order(x, type="limit", limit_price=0.1234, qty=1.0)[1]["limit_price"] == "0.1234"
    assert order(x, type="limit", limit_price="5.10", qty="1")[1]["limit_price"] == "5.1"


def test_a_client_order_id_is_used_once_for_ever():
    x = exchange_at()
    _, resting = order(x, type="limit", limit_price="1.00", client_order_id="once")
    assert order(x, client_order_id="once")[1]["code"] == 40010001
    ask(x, f"/v2/orders/{resting['id']}", "DELETE")
    x.advance_by(1)
    status, answer = order(x, client_order_id="once")
    assert (status, answer["code"], answer["message"]) == (422, 40010001, "client_order_id must be unique")


def test_open_purchases_reserve_buying_power_until_they_end():
    x = exchange_at(cash=1_000)
    _, first = order(x, qty="2", type="limit", limit_price="300.00")
    assert ask(x, "/v2/account")[1]["buying_power"] == "400"
    status, answer = order(x, symbol=NAMES[1], qty="2", type="limit", limit_price="200.01")
    assert (status, answer["code"], answer["buying_power"], answer["cost_basis"]) == (403, 40310000, "400", "400.02")
    assert order(x, symbol=NAMES[1], qty="2", type="limit", limit_price="2.00")[0] == 200
    ask(x, "/v2/orders", "DELETE")
    x.advance_by(2)
    account = ask(x, "/v2/account")[1]
    assert Decimal(account["buying_power"]) == Decimal(account["cash"])
    assert exchange_at(multiplier=2).multiplier == 2 and buying_power(exchange_at(multiplier=2)) == 200_000


def test_open_sales_reserve_shares():
    x = exchange_at()
    order(x, qty="10")
    x.advance_by(5)
    assert order(x, side="sell", qty="6", type="limit", limit_price="9999.00")[0] == 200
    assert ask(x, f"/v2/positions/{NAMES[0]}")[1]["qty_available"] == "4"
    status, answer = order(x, side="sell", qty="5")
    assert (status, answer["code"], answer["available"], answer["existing_qty"], answer["held_for_orders"]) == (403, 40310000, "4", "10", "6")
    status, answer = ask(x, f"/v2/positions/{NAMES[0]}", "DELETE")
    assert (status, answer["code"]) == (403, 40310000)
    status, closed = ask(x, "/v2/positions", "DELETE")
    assert status == 207 and closed[0]["status"] == 403 and closed[0]["body"]["code"] == 40310000
    status, closed = ask(x, "/v2/positions", "DELETE", cancel_orders="True")
    assert closed[0]["status"] == 200
    x.advance_by(5)
    assert not x.holdings and not x.open_orders


def test_opposite_orders_that_could_trade_with_each_other_are_refused():
    x = exchange_at()
    order(x, qty="10")
    x.advance_by(5)
    _, sale = order(x, side="sell", qty="1", type="limit", limit_price="5000.00")
    status, answer = order(x, qty="1")
    assert (status, answer["code"], answer["existing_order_id"]) == (403, 40310000, sale["id"])
    assert answer["reject_reason"] == "opposite side limit order exists"
    assert order(x, qty="1", type="limit", limit_price="5000.00")[1]["code"] == 40310000
    assert order(x, qty="1", type="limit", limit_price="1.00")[0] == 200
    assert order(x, symbol=NAMES[1], qty="1")[0] == 200


# the life of an order


@settings(max_examples=25)
@given(st.data())
def test_money_and_shares_are_conserved_and_no_fill_is_worse_than_the_day_or_the_limit(data):
    x = exchange_at(FRIDAY.replace(hour=10, minute=0), cash=50_000)
    for _ in range(data.draw(st.integers(3, 12))):
        symbol = data.draw(st.sampled_from(NAMES[:4]))
        quote = x.market.quote_at(symbol, x.now)
        price = quote.midpoint * data.draw(st.floats(0.97, 1.03))
        kind = data.draw(st.sampled_from(["market", "limit"]))
        more = {"limit_price": f"{price:.2f}"} if kind == "limit" else {}
        order(x, symbol, data.draw(st.sampled_from(["buy", "sell"])), qty=str(data.draw(st.integers(1, 3000))), type=kind, **more)
        x.advance_by(data.draw(st.sampled_from([0.0, 0.1, 0.3, 2.0, 60.0, 3600.0])))
        if x.open_orders and data.draw(st.booleans()):
            ask(x, f"/v2/orders/{next(iter(x.open_orders))}", "DELETE")
        assert all(available(x, s) >= 0 and h.quantity > 0 for s, h in x.holdings.items())
    x.advance_to(FRIDAY.replace(hour=16, minute=30))
    assert not x.open_orders  # day orders do not outlive the day
    cash, held = Decimal(50_000), Counter()
    for _, a in x.activities:
        sign, quantity, price = (1 if a["side"] == "buy" else -1), Decimal(a["qty"]), Decimal(a["price"])
        bar, placed = PANEL.bar(a["symbol"], FRIDAY.date()), x.orders[a["order_id"]]
        assert bar.low <= float(price) <= bar.high
        assert placed.limit_price is None or sign * (placed.limit_price - price) >= 0
        cash, held[a["symbol"]] = cash - sign * quantity * price, held[a["symbol"]] + sign * quantity
    assert x.cash == cash and {s: q for s, q in held.items() if q} == {s: h.quantity for s, h in x.holdings.items()}
    for placed in x.orders.values():
        fills = [Decimal(a["qty"]) for _, a in x.activities if a["order_id"] == placed.id]
        assert sum(fills, Decimal(0)) == placed.filled <= placed.quantity and (placed.status == "filled") == (placed.filled == placed.quantity)


def test_a_market_order_takes_the_far_side_of_the_quote_of_its_arrival():
    x = exchange_at()
    for symbol in NAMES[:20]:
        order(x, symbol, qty="1")
    x.advance_by(1)
    for at, a in x.activities:
        assert float(a["price"]) == x.market.quote_at(a["symbol"], at).ask
        assert timedelta(milliseconds=50) <= at - FRIDAY <= timedelta(milliseconds=400)
    assert len(x.activities) == 20


def test_a_large_order_fills_in_pieces_no_larger_than_what_is_displayed():
    x = exchange_at(cash=10_000_000)
    symbol = min(NAMES, key=lambda s: x.market.quote_at(s, FRIDAY).ask_size)
    size = x.market.quote_at(symbol, FRIDAY).ask_size
    _, placed = order(x, symbol, qty=str(int(size * 4 + 1)))
    x.advance_by(0.5)
    assert ask(x, f"/v2/orders/{placed['id']}")[1]["status"] == "partially_filled"
    x.advance_by(600)
    assert ask(x, f"/v2/orders/{placed['id']}")[1]["status"] == "filled"
    fills = [(at, a) for at, a in x.activities]
    assert len(fills) >= 4 and [a["type"] for _, a in fills] == ["partial_fill"] * (len(fills) - 1) + ["fill"]
    assert all(float(a["qty"]) <= x.market.quote_at(symbol, at).ask_size for at, a in fills)


def test_about_one_order_in_ten_is_filled_in_two_pieces():
    x = exchange_at(FRIDAY.replace(hour=11), cash=100_000_000)
    for n in range(400):
        order(x, NAMES[n % 40], qty="5")
        x.advance_by(3)
    pieces = Counter(a["order_id"] for _, a in x.activities)
    assert len(pieces) == 400 and 20 <= sum(n > 1 for n in pieces.values()) <= 65


def test_an_order_outside_hours_waits_for_the_bell():
    x = exchange_at(FRIDAY.replace(hour=18))
    _, placed = order(x)
    assert placed["status"] == "accepted"
    x.advance_to(datetime(2026, 1, 26, 9, 29, 59, tzinfo=NEW_YORK))
    assert ask(x, f"/v2/orders/{placed['id']}")[1]["status"] == "accepted"
    x.advance_by(10)
    done = ask(x, f"/v2/orders/{placed['id']}")[1]
    assert done["status"] == "filled" and done["filled_at"].startswith("2026-01-26T14:30:00")


def test_a_limit_order_waits_for_its_price_and_a_day_order_ends_with_the_day():
    x = exchange_at(FRIDAY.replace(hour=9, minute=31))
    low = {s: PANEL.bar(s, FRIDAY.date()).low for s in NAMES[:20]}
    reachable = [order(x, s, qty="1", type="limit", limit_price=f"{low[s] * 1.004:.2f}")[1] for s in NAMES[:10]]
    beyond = [order(x, s, qty="1", type="limit", limit_price=f"{low[s] * 0.99:.2f}")[1] for s in NAMES[10:20]]
    kept = order(x, NAMES[25], qty="1", type="limit", limit_price="1.00", time_in_force="gtc")[1]
    x.advance_to(FRIDAY.replace(hour=16, minute=0))
    statuses = {o["id"]: o["status"] for o in ask(x, "/v2/orders", status="all", limit="500")[1]}
    assert Counter(statuses[o["id"]] for o in beyond) == {"expired": 10}
    assert Counter(statuses[o["id"]] for o in reachable)["filled"] >= 8
    assert statuses[kept["id"]] == "new"
    x.advance_to(datetime(2026, 2, 26, 12, 0, tzinfo=NEW_YORK))
    assert ask(x, f"/v2/orders/{kept['id']}")[1]["status"] == "new"
    x.advance_to(FRIDAY + timedelta(days=92))
    ended = ask(x, f"/v2/orders/{kept['id']}")[1]
    assert ended["status"] == "canceled" and ended["canceled_at"][:16] == "2026-04-23T20:15" == ended["expires_at"][:14] + "15"  # in New York a quarter past four


def test_a_limit_order_that_is_good_till_canceled_fills_on_a_later_day():
    x = exchange_at(FRIDAY.replace(hour=15, minute=59))
    lows = {s: (PANEL.bar(s, FRIDAY.date()).close, PANEL.bar(s, date(2026, 1, 26)).low) for s in NAMES}
    symbol = max(lows, key=lambda s: lows[s][0] / lows[s][1])  # falls most on Monday
    limit = Decimal(str(round(lows[symbol][1] * 1.01, 2)))
    _, placed = order(x, symbol, qty="5", type="limit", limit_price=str(limit), time_in_force="gtc")
    x.advance_to(datetime(2026, 1, 26, 16, 0, tzinfo=NEW_YORK))
    done = ask(x, f"/v2/orders/{placed['id']}")[1]
    assert done["status"] == "filled" and done["filled_at"].startswith("2026-01-26") and Decimal(done["filled_avg_price"]) <= limit


def test_a_weekend_in_which_the_clocks_change_is_72_real_hours_long():
    x = exchange_at(datetime(2026, 3, 6, 15, 30, tzinfo=NEW_YORK))
    bell = datetime(2026, 3, 9, 9, 30, tzinfo=NEW_YORK)
    VirtualClock(x).sleep((bell - x.now).total_seconds())
    assert x.now == bell
    x = exchange_at(datetime(2026, 3, 6, 15, 30, tzinfo=NEW_YORK))
    VirtualClock(x).sleep(72 * 3600)
    assert (x.now.hour, x.now.minute, x.now.utcoffset()) == (16, 30, timedelta(hours=-4))
    assert [ask(x, "/v2/clock")[1][k][11:] for k in ("next_open", "next_close")] == ["09:30:00-04:00", "16:00:00-04:00"]


def test_a_symbol_without_a_bar_today_does_not_trade_today():
    bars = {f: PANEL.frame(f) for f in ("open", "high", "low", "close", "volume")}
    for frame in bars.values():
        frame.loc["2026-01-23", NAMES[0]] = float("nan")
        frame.loc["2026-01-05":, NAMES[1]] = float("nan")
        frame.loc["2025-12-01":, NAMES[2]] = float("nan")
        frame.loc[:"2026-01-26", NAMES[3]] = float("nan")
    x = Exchange(panel_from_frames(bars, "holes"), 3, FRIDAY)
    _, placed = order(x, NAMES[0])
    quote = ask(x, "/v2/stocks/quotes/latest", symbols=",".join(NAMES[:4]))[1]["quotes"]
    assert quote[NAMES[0]]["t"].startswith("2026-01-22T21:00") and quote[NAMES[1]]["t"].startswith("2026-01-02") and NAMES[3] not in quote
    x.advance_to(FRIDAY.replace(hour=16))
    assert ask(x, f"/v2/orders/{placed['id']}")[1]["status"] == "expired" and not x.activities
    assert "not tradable" in order(x, NAMES[2])[1]["message"] and ask(x, f"/v2/assets/{NAMES[2]}")[1]["tradable"] is False
    assert order(x, NAMES[3])[1]["code"] == 42210000 and ask(x, f"/v2/assets/{NAMES[3]}")[0] == 404


def test_a_cancel_takes_effect_later_and_a_fill_may_come_first():
    filled_after_cancel = 0
    for n in range(30):
        x = Exchange(PANEL, n, FRIDAY)
        _, placed = order(x)
        assert ask(x, f"/v2/orders/{placed['id']}", "DELETE")[0] == 204
        assert ask(x, f"/v2/orders/{placed['id']}")[1]["status"] == "pending_cancel"
        assert ask(x, f"/v2/orders/{placed['id']}", "DELETE")[1]["message"] == "order pending cancel"
        x.advance_by(3)
        done = ask(x, f"/v2/orders/{placed['id']}")[1]
        assert done["status"] in ("filled", "canceled")
        assert Decimal(done["filled_qty"]) == sum(Decimal(a["qty"]) for _, a in x.activities)
        filled_after_cancel += done["status"] == "filled"
    assert 0 < filled_after_cancel < 30


def test_dollars_buy_parts_of_shares():
    x = exchange_at()
    _, placed = order(x, qty=None, notional="250.00")
    assert placed["qty"] is None and placed["notional"] == "250"
    x.advance_by(3)
    done = ask(x, f"/v2/orders/{placed['id']}")[1]
    spent = Decimal(done["filled_qty"]) * Decimal(done["filled_avg_price"])
    assert done["status"] == "filled" and done["qty"] is None and Decimal("249.99") < spent <= 250
    _, closing = ask(x, f"/v2/positions/{NAMES[0]}", "DELETE")
    x.advance_by(3)
    assert closing["qty"] == done["filled_qty"] and not x.holdings


def test_equity_is_marked_at_the_midpoint_in_hours_and_at_the_close_after_it():
    x = exchange_at()
    order(x, qty="100")
    x.advance_by(5)
    mid = x.market.quote_at(NAMES[0], x.now).midpoint
    account = ask(x, "/v2/account")[1]
    assert float(account["equity"]) == pytest.approx(float(account["cash"]) + 100 * mid, abs=0.01) and account["last_equity"] == "100000"
    x.advance_to(FRIDAY.replace(hour=17))
    account = ask(x, "/v2/account")[1]
    close = PANEL.bar(NAMES[0], FRIDAY.date()).close
    assert float(account["equity"]) == pytest.approx(float(account["cash"]) + 100 * close, abs=0.01)
    assert account["equity"] == account["last_equity"]
    x.advance_to(datetime(2026, 1, 26, 11, 0, tzinfo=NEW_YORK))
    position = ask(x, f"/v2/positions/{NAMES[0]}")[1]
    assert float(position["lastday_price"]) == pytest.approx(close, abs=1e-4)
    move = 100 * (Decimal(position["current_price"]) - Decimal(position["lastday_price"]))
    assert float(position["unrealized_intraday_pl"]) == pytest.approx(float(move), abs=0.01)


# determinism and the journal


def a_busy_day(x):
    "Commands of every kind, refused ones among them."
    for n, symbol in enumerate(NAMES[:15]):
        order(x, symbol, qty=str(50 + 40 * n), client_order_id=f"busy-{n}")
        x.advance_by(0.2)
    order(x, "NOPE")
    order(x, NAMES[20], qty="3", type="limit", limit_price="1.00")
    ask(x, "/v2/account/configurations", "PATCH", {"trade_confirm_email": "none"})
    x.advance_by(30)
    order(x, NAMES[0], "sell", qty="20")
    ask(x, "/v2/orders", "DELETE")
    x.advance_to(FRIDAY + timedelta(days=4))
    ask(x, f"/v2/positions/{NAMES[1]}", "DELETE", percentage="40")
    x.advance_by(5)


def everything(x):
    paths = ("/v2/account", "/v2/positions", "/v2/account/activities", "/v2/account/portfolio/history", "/v2/account/configurations", "/v2/clock")
    return [ask(x, p)[1] for p in paths], ask(x, "/v2/orders", status="all", limit="500")[1], list(x.events), x.event_digest(), x.now


def test_equal_commands_give_equal_bytes_and_another_seed_does_not():
    one, two, other = exchange_at(), exchange_at(), Exchange(PANEL, 4, FRIDAY)
    for x in (one, two, other):
        a_busy_day(x)
    assert json.dumps(everything(one)[:3]) == json.dumps(everything(two)[:3]) and one.event_digest() == two.event_digest()
    assert other.event_digest() != one.event_digest()


def test_time_passes_the_same_in_one_step_and_in_many():
    one, two = exchange_at(), exchange_at()
    for x in (one, two):
        for n, symbol in enumerate(NAMES[:10]):
            order(x, symbol, qty=str(60 + n), type="limit" if n % 2 else "market", limit_price=f"{x.market.price_at(symbol, FRIDAY) * 0.999:.2f}" if n % 2 else None)
    one.advance_by(3000)
    for _ in range(3000):
        two.advance_by(1)
    assert one.event_digest() == two.event_digest() and len(one.events) > 15


def test_the_journal_replays_to_the_same_account_after_a_torn_line(tmp_path):
    kept = tmp_path / "a folder" / "journal.jsonl"
    first = exchange_at(journal=kept)
    a_busy_day(first)
    before = everything(first)
    first.close()
    with pytest.raises(StateError, match="closed"):
        first.advance_by(1)
    whole = kept.read_bytes()
    kept.write_bytes(whole + b'{"method": "DELETE", "path": "/v2/posi')
    second = exchange_at(journal=kept)
    assert everything(second) == before and kept.read_bytes() == whole
    order(second, NAMES[3], qty="1", client_order_id="after")
    second.advance_by(5)
    with pytest.raises(OwnedError, match="in use"):
        exchange_at(journal=kept)
    second.close()
    third = exchange_at(journal=kept)
    assert everything(third) == everything(second)
    third.close()


@pytest.mark.parametrize("change", [{"seed": 4}, {"start": FRIDAY + timedelta(days=3)}, {"cash": Decimal(5)}, {"multiplier": 2}, {"panel": PANEL.upto(date(2026, 2, 2))}])
def test_the_journal_of_another_account_is_refused_and_left_alone(tmp_path, change):
    kept = tmp_path / "journal.jsonl"
    made = {"panel": PANEL, "seed": 3, "start": FRIDAY, "cash": Decimal(100_000), "journal": kept}
    Exchange(**made).close()
    before = kept.read_bytes()
    with pytest.raises(StateError, match=f"its {next(iter(change))} is"):
        Exchange(**made | change)
    assert kept.read_bytes() == before


def test_a_damaged_journal_is_refused_and_left_alone(tmp_path):
    kept = tmp_path / "journal.jsonl"
    first = exchange_at(journal=kept)
    a_busy_day(first)
    first.close()
    lines = kept.read_bytes().split(b"\n")
    lines[5] = lines[5][:-4]
    kept.write_bytes(b"\n".join(lines))
    before = kept.read_bytes()
    for _ in range(2):  # a refused journal is not left locked either
        with pytest.raises(StateError, match="damaged"):
            exchange_at(journal=kept)
    assert kept.read_bytes() == before


def test_what_was_answered_survives_kill_9(tmp_path):
    program = textwrap.dedent("""
        import json, sys
        from datetime import date, datetime
        from pathlib import Path
        from v23.market_calendar import NEW_YORK
        from v23.simulator.exchange import Exchange
        from v23.synthetic_market import synthetic_panel

        panel = synthetic_panel(3, 60, date(2025, 10, 1), date(2026, 2, 27))
        x = Exchange(panel, 3, datetime(2026, 1, 23, 15, 30, tzinfo=NEW_YORK), journal=Path(sys.argv[1]))
        n = 0
        while True:
            n += 1
            body = {"symbol": panel.symbols[n % 60], "qty": 1, "side": "buy", "type": "market", "time_in_force": "day", "client_order_id": f"k{n}"}
            answer = x.handle("POST", "/v2/orders", {}, json.dumps(body).encode())
            print(answer.status, n, flush=True)
            x.advance_by(0.5)
    """)
    kept = tmp_path / "journal.jsonl"
    process = subprocess.Popen([sys.executable, "-c", program, str(kept)], stdout=subprocess.PIPE, text=True)
    answered = [process.stdout.readline().split() for _ in range(60)]
    os.kill(process.pid, signal.SIGKILL)
    answered += [line.split() for line in process.stdout.read().splitlines() if line.count(" ") == 1]
    process.communicate()
    x = exchange_at(journal=kept)
    accepted = {f"k{n}" for status, n in answered if status == "200"}
    assert len(accepted) >= 60 and accepted <= set(x.by_client_id) and len(x.by_client_id) <= len(answered) + 1
    x.close()


# the doors


def test_a_taken_port_is_one_line(desk):
    with pytest.raises(PortInUseError, match=rf"^port {desk.server.port} on 127\.0\.0\.1 is in use; [^\n]*$"):
        SimulatorServer(exchange_at(), port=desk.server.port)
    waiting = SimulatorServer(exchange_at())  # not yet serving, and the port is taken all the same
    with pytest.raises(PortInUseError):
        SimulatorServer(exchange_at(), port=waiting.port)
    waiting._socket.close()


def test_an_answer_over_the_socket_is_not_held_back_by_the_network(desk):
    desk.trading.get_clock()
    took = []
    for _ in range(20):
        started = time.perf_counter()
        desk.trading.get_clock()
        took.append(time.perf_counter() - started)
    assert sorted(took)[10] < 0.02  # a delayed acknowledgement costs 0.04


def test_nothing_of_a_day_is_known_before_its_bell():
    x = exchange_at(datetime(2026, 1, 26, 9, 29, 59, tzinfo=NEW_YORK))
    friday, monday = (PANEL.bar(NAMES[0], d) for d in (FRIDAY.date(), date(2026, 1, 26)))
    snap = ask(x, "/v2/stocks/snapshots", symbols=NAMES[0])[1][NAMES[0]]
    assert (snap["latestTrade"]["p"], snap["dailyBar"]["c"], snap["dailyBar"]["v"]) == (round(friday.close, 4), friday.close, friday.volume)
    x.advance_by(1)
    snap = ask(x, "/v2/stocks/snapshots", symbols=NAMES[0])[1][NAMES[0]]
    assert snap["dailyBar"]["o"] == snap["dailyBar"]["h"] == monday.open and snap["prevDailyBar"]["c"] == friday.close


def test_keys_are_asked_for(desk):
    assert requests.get(f"{desk.server.url}/v2/account", timeout=5).status_code == 401
    with SimulatorServer(exchange_at(), keys=("id", "secret")) as server:
        assert requests.get(f"{server.url}/v2/account", headers=HEADERS, timeout=5).status_code == 401
        assert TradingClient("id", "secret", url_override=server.url).get_account().status.value == "ACTIVE"


def test_answers_carry_a_request_id_and_the_rate_of_a_virtual_minute(desk):
    first, second = (requests.get(f"{desk.server.url}/v2/clock", headers=HEADERS, timeout=5).headers for _ in range(2))
    assert first["X-Request-ID"] != second["X-Request-ID"] and first["X-RateLimit-Limit"] == "200"
    assert int(first["X-RateLimit-Remaining"]) - int(second["X-RateLimit-Remaining"]) == 1
    assert int(second["X-RateLimit-Reset"]) == int(FRIDAY.timestamp()) + 60
    desk.clock.sleep(60)
    assert requests.get(f"{desk.server.url}/v2/clock", headers=HEADERS, timeout=5).headers["X-RateLimit-Remaining"] == "199"


def test_time_and_events_are_reachable_over_the_address(desk):
    assert desk.clock.now() == FRIDAY
    desk.buy()
    url = desk.server.url
    assert requests.post(f"{url}/sim/advance", json={"to": (FRIDAY + timedelta(minutes=2)).isoformat()}, timeout=5).json()["now"] == (FRIDAY + timedelta(minutes=2)).isoformat()
    told = requests.get(f"{url}/sim/events", timeout=5).json()
    assert told["events"] == desk.exchange.events and told["digest"] == desk.exchange.event_digest()
    for bad in ({"to": "tomorrow"}, {"to": "2026-01-26T10:00:00"}, {"seconds": "many"}, {"seconds": 1e18}, {"to": "2032-12-30T10:00:00Z"}, {}, []):
        assert requests.post(f"{url}/sim/advance", json=bad, timeout=5).status_code == 422, bad
    assert requests.post(f"{url}/sim/faults", json={"method": "GET", "path_prefix": "/v2", "kind": "surprise"}, timeout=5).status_code == 422
    assert desk.clock.now() == FRIDAY + timedelta(minutes=2)


def test_time_never_runs_backwards_and_two_clocks_agree(desk):
    clock = VirtualClock(desk.exchange)
    clock.sleep(30)
    desk.exchange.advance_to(FRIDAY)
    clock.sleep(-5)
    assert clock.now() == desk.clock.now() == FRIDAY + timedelta(seconds=30)


def test_a_paced_server_moves_by_itself():
    x = exchange_at()
    with SimulatorServer(x, speed=600):
        time.sleep(0.4)
    assert timedelta(seconds=60) < x.now - FRIDAY < timedelta(seconds=3000)
    stopped = x.now
    time.sleep(0.15)
    assert x.now == stopped


FAULTS = {
    "error": (False, 504), "429": (False, 429), "drop": (False, None), "accept_then_error": (True, 504),
    "accept_then_hang_up": (True, None), "accept_then_hang": (True, None), "garbage": (True, 200),
}  # fmt: skip


@pytest.mark.parametrize("door", ["socket", "in process"])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_happens_once_and_leaves_what_it_should(kind, door, desk):
    executed, status = FAULTS[kind]
    session = requests.Session()
    session.trust_env = False
    if door == "in process":
        session.mount(desk.server.url, LoopbackAdapter(desk.exchange))
    requests.post(f"{desk.server.url}/sim/faults", json={"method": "POST", "path_prefix": "/v2/orders", "nth": 2, "kind": kind, "seconds": 0.3}, timeout=5)

    def post(n):
        body = {"symbol": NAMES[0], "qty": 1, "side": "buy", "type": "market", "time_in_force": "day", "client_order_id": f"f{n}"}
        try:
            return session.post(f"{desk.server.url}/v2/orders", json=body, headers=HEADERS, timeout=3)
        except (requests.ConnectionError, requests.ReadTimeout):
            return None

    first, second, third = post(1), post(2), post(3)
    assert first.status_code == third.status_code == 200
    assert (None if second is None else second.status_code) == status
    assert ("f2" in desk.exchange.by_client_id) is executed and "f3" in desk.exchange.by_client_id
    if kind == "garbage":
        with pytest.raises(requests.JSONDecodeError):
            second.json()
    if kind == "429":
        assert second.json()["code"] == 42910000 and second.headers["Retry-After"]


@pytest.mark.parametrize("planned_on", ["the look-up", "the order"])
def test_an_order_can_be_invisible_for_a_while(planned_on, desk):
    if planned_on == "the order":
        desk.exchange.faults.add("POST", "/v2/orders", kind="hide_order", times=2)
    else:
        desk.exchange.faults.add("GET", "/v2/orders:by_client_order_id", kind="hide_order", times=2)
    placed = desk.buy(client_order_id="shy")
    for _ in range(2):
        with pytest.raises(APIError) as e:
            desk.trading.get_order_by_client_id("shy")
        assert code_of(e) == (404, 40410000)
    assert desk.trading.get_order_by_client_id("shy").id == placed.id


def test_the_official_client_runs_without_sockets():
    x = exchange_at()
    trading, data = TradingClient("k", "s", url_override="http://simulated"), StockHistoricalDataClient("k", "s", url_override="http://simulated")
    for client in (trading, data):
        client._session.mount("http://simulated", LoopbackAdapter(x))
    trading.submit_order(MarketOrderRequest(symbol=NAMES[0], qty=3, side="buy", time_in_force="day"))
    VirtualClock(x).sleep(5)
    assert trading.get_open_position(NAMES[0]).qty == "3"
    assert NAMES[1] in data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols=NAMES[1]))
    x.faults.add("GET", "/v2/account", kind="error", status=503)
    with pytest.raises(APIError) as e:
        trading.get_account()
    assert e.value.status_code == 503


ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["buy", "limit", "day", "1", "0.5", "1e9", NAMES[0]]))
PATHS = [
    "/v2/orders", "/v2/orders/x", "/v2/orders:by_client_order_id", "/v2/positions", f"/v2/positions/{NAMES[0]}", "/v2/account", "/v2/account/configurations",
    "/v2/account/activities", "/v2/account/activities/FILL", "/v2/account/portfolio/history", "/v2/clock", "/v2/calendar", "/v2/assets", "/v2/assets/x",
    "/v2/stocks/bars", "/v2/stocks/quotes/latest", "/v2/stocks/trades/latest", "/v2/stocks/bars/latest", "/v2/stocks/snapshots", "/v2/nowhere", "/",
]  # fmt: skip
QUERY_NAMES = ["limit", "after", "until", "direction", "status", "symbols", "side", "page_size", "page_token", "date", "start", "end", "timeframe", "qty", "percentage", "activity_types", "sort"]
FUZZED = exchange_at()
order(FUZZED)
FUZZED.advance_by(5)


@settings(max_examples=150)
@given(
    st.sampled_from(["GET", "POST", "PATCH", "DELETE"]),
    st.sampled_from(PATHS),
    st.dictionaries(st.sampled_from(QUERY_NAMES), st.one_of(st.text(max_size=12), st.sampled_from(["-1", "0", "99999", "2026-01-01", NAMES[0], "1Day", "desc"])), max_size=4),
    st.one_of(st.binary(max_size=20), st.dictionaries(st.sampled_from(["symbol", "qty", "notional", "side", "type", "time_in_force", "limit_price", "client_order_id", "suspend_trade"]), ANYTHING).map(lambda d: json.dumps(d).encode())),
)
def test_no_request_breaks_the_exchange(method, path, query, body):
    answer = FUZZED.handle(method, path, query, body)
    assert 200 <= answer.status < 500
    if answer.status != 204:
        json.loads(answer.body)


def test_a_quiet_month_costs_nothing_and_a_request_about_a_millisecond():
    x = exchange_at(FRIDAY.replace(hour=10))
    for n in range(60):
        order(x, NAMES[n % 40], qty="2")
    started = time.perf_counter()
    x.advance_to(datetime(2026, 2, 26, 12, 0, tzinfo=NEW_YORK))
    assert time.perf_counter() - started < 2.0 and len(x.history) > 20
    started = time.perf_counter()
    for _ in range(100):
        ask(x, "/v2/account")
    assert (time.perf_counter() - started) / 100 < 0.01
    assert session_hours(x.history[0][0]).close.astimezone(UTC) <= x.now
