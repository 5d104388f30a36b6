"""Order events and market data on real sockets, as the official clients meet them, unmodified.

The numbers in the names are rows of the fault catalogue: what the client sees when a stream does that.
"""

import json
import logging
import threading
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgpack
import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.live import StockDataStream
from alpaca.data.requests import StockBarsRequest
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit
from alpaca.trading.client import TradingClient
from alpaca.trading.requests import LimitOrderRequest
from alpaca.trading.stream import TradingStream
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import v23.simulator.streams as streams
from v23.market_calendar import NEW_YORK
from v23.simulator.account import fractionable
from v23.simulator.exchange import Exchange
from v23.simulator.faults import Fault, Scenario
from v23.simulator.market import Dividend, Halt, Split
from v23.simulator.server import SimulatorServer
from v23.synthetic_market import synthetic_panel

NOON = datetime(2026, 1, 23, 12, 0, tzinfo=NEW_YORK)
PANEL = synthetic_panel(3, 40, date(2025, 10, 1), date(2026, 2, 27))
NAMES = [s for s in PANEL.symbols if fractionable(s)]
A, B = NAMES[:2]
SIGNED = {"action": "authenticate", "data": {"key_id": "k", "secret_key": "s"}}
LISTEN = {"action": "listen", "data": {"streams": ["trade_updates"]}}
PATIENCE_S = 20.0


def until(holds, what="it"):
    "Wait until something holds; fails after a while."
    deadline = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S} s"
        time.sleep(0.01)
    return found


class Desk:
    "An exchange behind a socket, official clients in front of it, and everything that was started."

    def __init__(self, start=NOON, keys=None, **scenario):
        self.exchange = Exchange(PANEL, 3, start, Decimal(1_000_000), scenario=Scenario(**scenario))
        self.server = SimulatorServer(self.exchange, keys=keys)
        self.server.__enter__()
        self.trading = TradingClient("k", "s", url_override=self.server.url)
        self.data = StockHistoricalDataClient("k", "s", url_override=self.server.url)
        self.started = []

    def close(self):
        for stream, thread in self.started:
            if thread.is_alive():
                stream.stop()
        self.server.__exit__(None, None, None)  # ends the five seconds a client may wait for a message before it stops
        for _, thread in self.started:
            thread.join(timeout=10)

    def address(self, path):
        return self.server.url.replace("http", "ws") + path

    def run(self, stream):
        thread = threading.Thread(target=stream.run, daemon=True)
        thread.start()
        self.started.append((stream, thread))
        return thread

    def ears(self):
        return [ear for ear in self.exchange.listeners if ear.delivery.listening]

    def listen(self, raw=True, key="k", handler=None, wait=True):
        "A running TradingStream and what it has heard so far; a fast backoff, so that tests do not wait."
        heard = []

        async def keep(update):
            heard.append(update)

        stream = TradingStream(key, "s", raw_data=raw, url_override=self.address("/stream"))
        stream._reconnect_min_backoff = stream._reconnect_max_backoff = 0.05
        stream.subscribe_trade_updates(handler or keep)
        before = len(self.ears())
        self.run(stream)
        if wait:
            until(lambda: len(self.ears()) > before, "listening")
        return stream, heard

    def fault(self, kind, nth=1, **more):
        self.exchange.faults.add("STREAM", "trade_updates", f"stream_{kind}", nth, **more)

    def buy(self, name, symbol=A, seconds=3):
        "A market order of one share, and the time it takes to fill."
        body = {"symbol": symbol, "qty": "1", "side": "buy", "type": "market", "time_in_force": "day", "client_order_id": name}
        assert self.exchange.handle("POST", "/v2/orders", {}, json.dumps(body).encode()).status == 200
        self.exchange.advance_by(seconds)

    def truth(self):
        return [short(e) for e in self.exchange.events]


@pytest.fixture(autouse=True)
def heard_log(caplog):
    "What the client's stream writes to its log, whatever an earlier test of this process told that log to keep to itself."
    caplog.set_level(logging.DEBUG, logger="alpaca.trading.stream")


@pytest.fixture
def desks():
    made = []

    def make(**options):
        made.append(Desk(**options))
        return made[-1]

    yield make
    for desk in made:
        desk.close()


@pytest.fixture
def desk(desks):
    return desks()


def short(data):
    "An event as (order, event)."
    return data["order"]["client_order_id"], data["event"]


def shorts(heard):
    return [short(m["data"]) if m["data"] else None for m in heard]


def log_of(desk):
    return [(h.kind, h.path, h.order) for h in desk.exchange.faults.log]


def stop(stream):
    stream.stop()


# order events, as they should be


def test_several_listeners_hear_every_event_in_order(desk):
    heard = [desk.listen()[1] for _ in range(3)]
    for n in range(5):
        desk.buy(f"mine-{n}")
    for one in heard:
        until(lambda one=one: len(one) == len(desk.exchange.events))
        assert shorts(one) == desk.truth() and len(one) >= 10


def test_events_are_binary_frames_of_json_and_msgpack_on_request(desk):
    with connect(desk.address("/stream")) as plain, connect(desk.address("/stream"), additional_headers={"Content-Type": "application/msgpack"}) as packed:
        for ws, write in ((plain, json.dumps), (packed, msgpack.packb)):
            for message in (SIGNED, LISTEN):
                ws.send(write(message))
        frames = [[ws.recv(timeout=5) for _ in range(2)] for ws in (plain, packed)]
        desk.buy("mine")
        for ws, kept in zip((plain, packed), frames, strict=True):
            kept += [ws.recv(timeout=5) for _ in desk.exchange.events]
    assert all(isinstance(f, bytes) for kept in frames for f in kept)
    texts, packs = [json.loads(f) for f in frames[0]], [msgpack.unpackb(f) for f in frames[1]]
    assert texts == packs and [m["stream"] for m in texts[:3]] == ["authorization", "listening", "trade_updates"]
    assert [m["data"] for m in texts[2:]] == desk.exchange.events


def test_to_listen_again_replaces_what_is_listened_to(desk):
    def ask(ws, *names):
        ws.send(json.dumps({"action": "listen", "data": {"streams": list(names)}}))
        return json.loads(ws.recv(timeout=5))["data"]["streams"]

    with connect(desk.address("/stream")) as ws:
        ws.send(json.dumps(SIGNED))
        ws.recv(timeout=5)
        assert ask(ws, "trade_updates", "account_updates") == ["trade_updates"]
        assert ask(ws) == []
        desk.buy("unheard")
        assert ask(ws, "trade_updates") == ["trade_updates"]
        desk.buy("heard")
        assert json.loads(ws.recv(timeout=5))["data"]["order"]["client_order_id"] == "heard"


def test_a_trailing_slash_is_the_same_stream(desk):
    with connect(desk.address("/stream/")) as ws:
        ws.send(json.dumps(SIGNED))
        assert json.loads(ws.recv(timeout=5))["data"]["status"] == "authorized"


# order events, as they are


def test_f19_a_mute_connection_is_open_and_says_nothing(desk):
    desk.fault("mute", nth=2)
    stream, heard = desk.listen()
    with connect(desk.address("/stream")) as ws:
        for message in (SIGNED, LISTEN):
            ws.send(json.dumps(message))
            ws.recv(timeout=5)
        desk.fault("mute")  # the first event meets it on this connection too
        desk.buy("unheard")
        assert ws.ping().wait(5), "pings are answered"
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.3)
        ws.send(json.dumps(LISTEN))
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.3)
    desk.buy("also unheard")
    time.sleep(0.2)
    assert len(heard) <= 1 and stream._running and stream._ws.open
    assert desk.trading.get_order_by_client_id("also unheard").status.value == "filled", "the account knows"
    assert {kind for kind, _, _ in log_of(desk)} == {"stream_mute"}


def test_f20_an_event_arrives_twice_with_the_same_execution(desk):
    desk.fault("duplicate", times=2)
    _, heard = desk.listen()
    desk.buy("mine")
    until(lambda: len(heard) == len(desk.exchange.events) + 2)
    assert shorts(heard) == [("mine", "new")] * 2 + [("mine", "fill")] * 2
    fills = [m["data"]["execution_id"] for m in heard if m["data"]["event"] == "fill"]
    assert len(fills) == 2 and len(set(fills)) == 1 and len(desk.exchange.activities) == 1


def test_f21_a_fill_arrives_before_its_order_is_new(desk):
    desk.fault("swap")
    _, heard = desk.listen()
    desk.buy("mine")
    until(lambda: len(heard) == 2)
    assert desk.truth() == [("mine", "new"), ("mine", "fill")] and shorts(heard) == desk.truth()[::-1]
    assert log_of(desk) == [("stream_swap", "trade_updates", "mine")]


def test_f21_an_event_is_late_by_seconds_of_virtual_time(desk):
    desk.fault("late", nth=2, seconds=60)
    _, heard = desk.listen()
    desk.buy("mine")
    desk.exchange.advance_by(50)
    time.sleep(0.2)
    assert shorts(heard) == [("mine", "new")]
    desk.exchange.advance_by(10)
    until(lambda: len(heard) == 2)
    assert shorts(heard) == desk.truth()


def test_f21_an_event_is_late_until_the_next_one(desk):
    desk.fault("late", nth=2, seconds=3600)
    _, heard = desk.listen()
    desk.buy("one")
    desk.buy("two")
    until(lambda: len(heard) == 4)
    assert shorts(heard) == desk.truth()


def test_f22_a_dropped_fill_is_known_to_the_account_only(desk):
    desk.fault("drop", nth=2)
    _, heard = desk.listen()
    desk.buy("one")
    desk.buy("two")
    until(lambda: len(heard) == 3)
    assert shorts(heard) == [("one", "new"), ("two", "new"), ("two", "fill")]
    fills = desk.trading.get("/account/activities/FILL", {})
    assert len(fills) == 2 and desk.trading.get_order_by_client_id("one").filled_qty == "1"


def test_f23_a_closed_connection_is_opened_again_and_the_gap_is_lost(desk):
    desk.fault("close", nth=2)
    _, heard = desk.listen()
    first = desk.ears()[0]
    desk.buy("one")
    until(lambda: desk.ears() and desk.ears()[0] is not first, "another connection")
    desk.buy("two")
    until(lambda: len(heard) == 3)
    assert shorts(heard) == [("one", "new"), ("two", "new"), ("two", "fill")]


def test_f23_twenty_closed_connections_are_opened_again(desk):
    desk.fault("close", times=20)
    _, heard = desk.listen()
    for n in range(20):
        ear = until(desk.ears)[0]
        desk.trading.submit_order(LimitOrderRequest(symbol=B, qty=1, side="buy", time_in_force="day", limit_price=round(1 + n / 100, 2), client_order_id=f"mine-{n}"))
        desk.exchange.advance_by(1)
        until(lambda ear=ear: desk.ears() and desk.ears()[0] is not ear, f"connection {n + 2}")
    desk.buy("last")
    until(lambda: len(heard) == 2)
    assert shorts(heard) == [("last", "new"), ("last", "fill")] and len(desk.exchange.listeners) == 1


def test_f23_a_handshake_refused_with_429_is_tried_again(desk):
    desk.exchange.faults.add("GET", "/stream", "429", times=3)
    with pytest.raises(InvalidStatus) as e:
        connect(desk.address("/stream"))
    assert e.value.response.status_code == 429
    _, heard = desk.listen()
    desk.buy("mine")
    until(lambda: len(heard) == 2)
    assert log_of(desk) == [("429", "/stream", "")] * 3


def test_f25_a_message_without_data_costs_the_client_nothing_but_a_line_in_its_log(desk, caplog):
    desk.fault("null", nth=1, times=2)
    (_, raw), (_, parsed) = desk.listen(), desk.listen(raw=False)
    desk.buy("mine")
    until(lambda: len(parsed) == 2 and len(raw) == 3)  # a fault for each of them
    assert shorts(raw) == [None, ("mine", "new"), ("mine", "fill")] and [u.event for u in parsed] == ["new", "fill"]
    assert "argument after ** must be a mapping" in caplog.text


def rejections(caplog):
    return sum(r.levelname == "ERROR" and "failed to authenticate" in r.getMessage() for r in caplog.records)


def test_f25_rejected_credentials_are_tried_for_ever_and_only_logged(desks, caplog):
    desk = desks(keys=("k", "s"))
    stream, heard = desk.listen(key="revoked", wait=False)
    until(lambda: rejections(caplog) >= 4)
    assert not heard and not desk.ears() and desk.started[0][1].is_alive()


def test_f25_a_rejection_that_passes_is_survived(desk, caplog):
    desk.exchange.faults.add("GET", "/stream", "auth", times=2)
    _, heard = desk.listen()
    desk.buy("mine")
    until(lambda: len(heard) == 2)
    assert rejections(caplog) == 2


def test_stream_faults_change_nothing_but_what_is_heard(desks):
    "The planted twin: the same account with every stream fault there is, and without any."
    quiet, loud = desks(), desks()
    for kind in ("drop", "duplicate", "swap", "late", "null", "close"):
        loud.fault(kind)
    heard = [d.listen()[1] for d in (quiet, loud)]
    for n in range(6):
        for d in (quiet, loud):
            d.buy(f"mine-{n}")
    until(lambda: len(heard[0]) == len(quiet.exchange.events))
    assert quiet.exchange.event_digest() == loud.exchange.event_digest()
    assert shorts(heard[0]) == quiet.truth() and shorts(heard[1]) != quiet.truth()


def test_equal_seeds_meet_equal_stream_faults_however_slow_the_socket_is(desks):
    logs = []
    for pause in (0.0, 0.05):
        desk = desks(profile="wild")
        with connect(desk.address("/stream"), max_queue=None) as ws:
            for message in (SIGNED, LISTEN):
                ws.send(json.dumps(message))
                ws.recv(timeout=5)
            for n in range(12):
                desk.buy(f"mine-{n}", NAMES[n])
                time.sleep(pause)
        logs.append([h for h in log_of(desk) if h[0].startswith("stream_")])
    assert logs[0] == logs[1] and logs[0]


# what the official client does with what it hears


def test_to_listen_before_signing_in_is_refused_by_name(desk):
    with connect(desk.address("/stream")) as ws:
        ws.send(json.dumps(LISTEN))
        assert json.loads(ws.recv(timeout=5)) == {"stream": "authorization", "data": {"status": "unauthorized", "action": "listen"}}
        desk.buy("unheard")
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.2)


def test_a_stream_that_never_ran_cannot_be_stopped(desk):
    with pytest.raises(AttributeError):
        TradingStream("k", "s", url_override=desk.address("/stream")).stop()


def test_an_unknown_status_kills_that_event_of_a_parsing_client_only(desk, caplog):
    desk.exchange.plan_order_fault("strange", A)
    (_, raw), (_, parsed) = desk.listen(), desk.listen(raw=False)
    desk.buy("strange")
    desk.buy("plain", B)
    until(lambda: len(raw) == len(desk.exchange.events) and any(u.order.client_order_id == "plain" and u.event == "fill" for u in parsed))
    assert shorts(raw) == desk.truth() and ("strange", "new") in shorts(raw)
    assert ("strange", "new") not in [(u.order.client_order_id, u.event) for u in parsed] and "pending_settlement_2031" in caplog.text


def test_an_unknown_event_passes(desk):
    _, parsed = desk.listen(raw=False)
    desk.buy("mine")
    with desk.exchange.lock:
        desk.exchange.emit("order_replace_rejected_2031", desk.exchange.by_client_id["mine"])
    until(lambda: len(parsed) == 3)
    assert parsed[-1].event == "order_replace_rejected_2031"


def test_a_handler_that_fails_loses_that_event_and_hears_the_next(desk, caplog):
    kept = []

    async def handler(message):
        if not kept:
            kept.append("failed")
            raise RuntimeError("no room on the disk")
        kept.append(short(message["data"]))

    desk.listen(handler=handler)
    desk.buy("mine")
    until(lambda: len(kept) == 2)
    assert kept == ["failed", ("mine", "fill")] and "no room on the disk" in caplog.text


# market data


class Listener:
    "A running StockDataStream and what it has heard, by kind."

    def __init__(self, desk, feed="iex", raw=False, key="k", **options):
        self.heard, self.desk = {k: [] for k in "qtbds"}, desk
        self.stream = StockDataStream(key, "s", raw_data=raw, url_override=desk.address(f"/v2/{feed}"), **options)
        self.stream._reconnect_min_backoff = self.stream._reconnect_max_backoff = 0.05

    def keep(self, kind):
        async def handler(message):
            self.heard[kind].append(message)

        return handler

    def start(self):
        self.thread = self.desk.run(self.stream)
        return self

    def move(self, kind="q"):
        "Let whole minutes pass until something is heard, and forget it."
        until(lambda: (self.desk.exchange.advance_by(60), time.sleep(0.1), self.heard[kind])[-1], "market data")
        self.settle()

    def settle(self):
        time.sleep(0.3)
        for kept in self.heard.values():
            kept.clear()


@pytest.mark.parametrize("feed", ["iex", "sip"])
def test_the_official_client_hears_quotes_trades_bars_and_days(desk, feed):
    one = Listener(desk, feed)
    one.stream.subscribe_quotes(one.keep("q"), A, B)
    one.stream.subscribe_trades(one.keep("t"), A)
    one.stream.subscribe_bars(one.keep("b"), "*")
    one.stream.subscribe_daily_bars(one.keep("d"), B)
    one.start().move()
    desk.exchange.advance_by(60)
    until(lambda: one.heard["q"] and one.heard["d"] and len(one.heard["b"]) >= len(PANEL.symbols))
    now = desk.exchange.now
    assert Counter(q.symbol for q in one.heard["q"]) == {A: 1, B: 1} and [t.symbol for t in one.heard["t"]] == [A]
    q, t, d = one.heard["q"][0], one.heard["t"][0], one.heard["d"][0]
    assert q.timestamp == now and q.timestamp.tzinfo and 0 < q.bid_price < q.ask_price and q.bid_size >= 100
    assert t.timestamp == now and t.price == round(desk.exchange.market.price_at(A, now), 4)
    assert {b.timestamp for b in one.heard["b"]} == {now - timedelta(minutes=1)} and {b.symbol for b in one.heard["b"]} == set(PANEL.symbols)
    bar = next(b for b in one.heard["b"] if b.symbol == A)
    assert bar.close == t.price and bar.low <= bar.vwap <= bar.high and bar.volume > 0 and bar.trade_count > 1
    assert d.symbol == B and d.volume > bar.volume and d.timestamp.astimezone(NEW_YORK).hour == 0


def test_a_client_unsubscribes(desk):
    one = Listener(desk)
    one.stream.subscribe_quotes(one.keep("q"), A, B)
    one.start().move()
    one.stream.unsubscribe_quotes(A)
    one.stream.subscribe_trades(one.keep("t"), B)
    time.sleep(0.2)
    desk.exchange.advance_by(60)
    until(lambda: one.heard["q"] and one.heard["t"])
    assert [m.symbol for m in one.heard["q"] + one.heard["t"]] == [B, B]


def test_a_halt_is_told_when_it_begins_and_when_it_ends(desks):
    start, end = NOON + timedelta(minutes=30), NOON + timedelta(minutes=40, seconds=30)
    desk = desks(events=(Halt(A, start, end),))
    one = Listener(desk)
    one.stream.subscribe_trading_statuses(one.keep("s"), "*")
    one.stream.subscribe_quotes(one.keep("q"), A, B)
    one.start().move()
    assert desk.exchange.now < start
    desk.exchange.advance_to(start + timedelta(minutes=1))
    until(lambda: one.heard["s"])
    assert [(s.symbol, s.status_code, s.timestamp) for s in one.heard["s"]] == [(A, "H", start)]
    one.settle()
    desk.exchange.advance_to(start + timedelta(minutes=2))
    until(lambda: one.heard["q"])
    time.sleep(0.1)
    assert {q.symbol for q in one.heard["q"]} == {B} and not one.heard["s"]
    desk.exchange.advance_to(end + timedelta(minutes=2))
    until(lambda: one.heard["s"])
    assert [(s.symbol, s.status_code, s.timestamp) for s in one.heard["s"]] == [(A, "T", end)]
    until(lambda: any(q.symbol == A for q in one.heard["q"]))


def test_a_jump_of_a_month_is_no_flood(desk):
    one = Listener(desk)
    one.stream.subscribe_bars(one.keep("b"), "*")
    one.stream.subscribe_quotes(one.keep("q"), "*")
    one.start().move("b")
    desk.exchange.advance_to(NOON + timedelta(days=28))
    until(lambda: len(one.heard["q"]) == len(PANEL.symbols) and len(one.heard["b"]) >= 60 * len(PANEL.symbols))
    time.sleep(0.2)
    assert set(Counter(b.symbol for b in one.heard["b"]).values()) == {60}
    assert max(b.timestamp for b in one.heard["b"]) == desk.exchange.now - timedelta(minutes=1)


def test_nothing_is_told_at_night(desks):
    desk = desks(start=NOON.replace(hour=15, minute=50))
    one = Listener(desk)
    for subscribe, kind in ((one.stream.subscribe_quotes, "q"), (one.stream.subscribe_trades, "t"), (one.stream.subscribe_bars, "b")):
        subscribe(one.keep(kind), A)
    one.start().move()
    desk.exchange.advance_to(NOON.replace(hour=16, minute=1))
    until(lambda: one.heard["b"])
    assert one.heard["q"][-1].timestamp == one.heard["t"][-1].timestamp == NOON.replace(hour=16)
    one.settle()
    desk.exchange.advance_to(NOON.replace(hour=23))
    time.sleep(0.3)
    assert not any(one.heard.values())


def test_f19_a_mute_data_stream_is_given_up_by_a_client_with_a_timeout(desk):
    desk.exchange.faults.add("STREAM", "/v2/iex", "stream_mute", nth=2)
    one = Listener(desk, data_timeout=0.6)
    one.stream.subscribe_quotes(one.keep("q"), A)
    one.start().move()
    quiet = 0
    deadline = time.monotonic() + PATIENCE_S
    while len(one.heard["q"]) < 2 and time.monotonic() < deadline:
        desk.exchange.advance_by(60)
        time.sleep(0.1)
        quiet += not one.heard["q"]
    assert quiet >= 1 and len(one.heard["q"]) >= 2, "silence, another connection, quotes"
    assert log_of(desk) == [("stream_mute", "/v2/iex", "")]


def test_f23_a_closed_data_stream_is_opened_again(desk):
    desk.exchange.faults.add("STREAM", "/v2/sip", "stream_close", nth=2, times=3)
    one = Listener(desk, "sip")
    one.stream.subscribe_quotes(one.keep("q"), A)
    one.start().move()
    until(lambda: (desk.exchange.advance_by(60), time.sleep(0.1), len(log_of(desk)) == 3)[-1])
    one.move()


def test_409_ends_the_official_client(desks):
    desk = desks(feed="iex")
    one = Listener(desk, "sip")
    one.stream.subscribe_quotes(one.keep("q"), A)
    one.start().thread.join(timeout=10)
    assert not one.thread.is_alive()


def test_406_a_second_connection_waits_for_its_place(desk, caplog):
    first, second = Listener(desk), Listener(desk)
    for one in (first, second):
        one.stream.subscribe_quotes(one.keep("q"), A)
    first.start().move()
    second.start()
    until(lambda: "connection limit exceeded" in caplog.text)
    stop(first.stream)
    second.move()


# market data, message by message


def talk(ws, *messages, write=json.dumps, read=json.loads):
    "What each message is answered with."
    found = []
    for message in messages:
        ws.send(message if isinstance(message, str | bytes) else write(message))
        found += read(ws.recv(timeout=5))
    return found


def greeted(ws, read=json.loads):
    assert read(ws.recv(timeout=5)) == [{"T": "success", "msg": "connected"}]
    return ws


AUTH = {"action": "auth", "key": "k", "secret": "s"}


def test_the_data_protocol_in_json(desk):
    with connect(desk.address("/v2/iex")) as ws:
        greeted(ws)
        codes = [m.get("code") or m["msg"] for m in talk(ws, "{", {"action": "subscribe", "bars": [A]}, {"action": "dance"}, {"action": "auth", "key": "", "secret": "s"}, AUTH, AUTH, {"action": "subscribe", "bars": A})]
        assert codes == [400, 401, 400, 402, "authenticated", 403, 400]
        told = talk(ws, {"action": "subscribe", "quotes": [B, A], "trades": [A], "statuses": ["*"], "orderbooks": ["X"]}, {"action": "unsubscribe", "quotes": [B], "trades": ["*"]})
        assert told[0] == {"T": "subscription", "trades": [A], "quotes": sorted([A, B]), "bars": [], "updatedBars": [], "dailyBars": [], "statuses": ["*"], "lulds": [], "corrections": [A], "cancelErrors": [A]}
        assert (told[1]["quotes"], told[1]["trades"]) == ([A], [A])
        desk.exchange.advance_by(90)
        frame = ws.recv(timeout=5)
        assert isinstance(frame, str)
        trade, quote = json.loads(frame)
        assert (trade["T"], quote["T"], quote["S"]) == ("t", "q", A)
        assert set(quote) == {"T", "S", "t", "ax", "ap", "as", "bx", "bp", "bs", "c", "z"} and set(trade) == {"T", "S", "t", "x", "p", "s", "c", "i", "z"}
        assert trade["t"] == "2026-01-23T17:01:00.000000000Z" and quote["t"] == "2026-01-23T17:01:30.000000000Z"


def test_a_first_binary_frame_asks_for_msgpack_and_times_are_timestamps(desk):
    with connect(desk.address("/v2/sip")) as ws:
        greeted(ws)
        assert talk(ws, AUTH, {"action": "subscribe", "bars": [A]}, write=msgpack.packb, read=msgpack.unpackb)[0]["msg"] == "authenticated"
        desk.exchange.advance_by(60)
        (bar,) = msgpack.unpackb(ws.recv(timeout=5))
        assert isinstance(bar["t"], msgpack.Timestamp) and bar["t"].to_datetime() == NOON.astimezone(UTC) and set(bar) == {"T", "S", "t", "o", "h", "l", "c", "v", "n", "vw"}


def test_headers_sign_in_as_well(desks):
    desk = desks(keys=("k", "s"))
    for secret, answer in (("s", {"T": "success", "msg": "authenticated"}), ("guess", {"T": "error", "code": 402, "msg": "auth failed"})):
        with connect(desk.address("/v2/iex"), additional_headers={"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": secret}) as ws:
            assert json.loads(greeted(ws).recv(timeout=5)) == [answer]


def closes(ws, code):
    "The connection says this number and is closed."
    assert json.loads(ws.recv(timeout=5)) == [{"T": "error", "code": code, "msg": streams.ERRORS[code]}]
    with pytest.raises(ConnectionClosed):
        ws.recv(timeout=5)


def test_404_who_does_not_sign_in_is_sent_away(desk, monkeypatch):
    monkeypatch.setattr(streams, "SIGN_IN_WITHIN_S", 0.2)
    with connect(desk.address("/v2/iex")) as ws:
        closes(greeted(ws), 404)
    with connect(desk.address("/v2/iex")) as ws:
        talk(greeted(ws), AUTH)
        time.sleep(0.4)
        assert talk(ws, AUTH)[0]["code"] == 403


def test_405_thirty_symbols_without_a_subscription(desks):
    desk = desks(feed="iex")
    with connect(desk.address("/v2/iex")) as ws:
        many = [f"X{n}" for n in range(31)]
        told = talk(greeted(ws), AUTH, *({"action": "subscribe", **what} for what in ({"quotes": many}, {"trades": ["*"]}, {"quotes": many[:30]}, {"quotes": many[30:]}, {"bars": ["*"]})))
        assert [m.get("code", m["T"]) for m in told[1:]] == [405, 405, "subscription", 405, "subscription"]
        assert told[-1]["quotes"] == sorted(many[:30]) and told[-1]["trades"] == []


def test_406_one_connection_for_each_key_and_stream(desk):
    with connect(desk.address("/v2/iex")) as first:
        talk(greeted(first), AUTH)
        with connect(desk.address("/v2/iex")) as second:
            second.send(json.dumps(AUTH))
            closes(greeted(second), 406)
        for path, key in (("/v2/sip", "k"), ("/v2/iex", "other")):
            with connect(desk.address(path)) as other:
                assert talk(greeted(other), AUTH | {"key": key})[0]["msg"] == "authenticated"
    until(lambda: _free(desk))


def _free(desk):
    with connect(desk.address("/v2/iex")) as ws:
        return talk(greeted(ws), AUTH)[0]["T"] == "success"


def test_407_a_slow_client_is_sent_away(desk, monkeypatch):
    with connect(desk.address("/v2/iex")) as ws:
        talk(greeted(ws), AUTH)
        monkeypatch.setattr(streams, "TOO_MANY", -1)
        closes(ws, 407)


def test_a_fault_of_the_handshake_refuses_a_data_stream(desk):
    desk.exchange.faults.add("GET", "/v2/iex", "error", status=503)
    desk.exchange.faults.add("GET", "/v2/iex", "auth", nth=2)
    with pytest.raises(InvalidStatus) as e:
        connect(desk.address("/v2/iex"))
    assert e.value.response.status_code == 503
    with connect(desk.address("/v2/iex")) as ws:
        assert talk(greeted(ws), AUTH)[0]["code"] == 402


# history and the latest, over HTTP


def frame(amount, unit):
    return TimeFrame(amount, unit)


def test_the_data_client_reads_bars_of_any_length(desk):
    start = datetime(2026, 1, 20, tzinfo=NEW_YORK)

    def bars(timeframe, **more):
        return desk.data.get_stock_bars(StockBarsRequest(symbol_or_symbols=[A, B], timeframe=timeframe, start=start, **more)).data

    minutes, fives, hours = bars(frame(1, TimeFrameUnit.Minute)), bars(frame(5, TimeFrameUnit.Minute)), bars(frame(1, TimeFrameUnit.Hour))
    assert len(minutes[A]) == 3 * 390 + 150 and len(fives[A]) == 3 * 78 + 30 and len(hours[A]) == 3 * 7 + 3
    assert minutes[A][-1].timestamp == NOON - timedelta(minutes=1) and hours[A][-1].timestamp == NOON - timedelta(hours=1)
    days = bars(TimeFrame.Day)[A]
    assert [d.timestamp.day for d in days] == [20, 21, 22] and days[0].trade_count > 390 and days[0].low < days[0].vwap < days[0].high
    for many in (minutes, fives, hours):
        first = [b for b in many[A] if b.timestamp.date() == date(2026, 1, 20)]
        assert (first[0].open, first[-1].close, sum(b.volume for b in first)) == (days[0].open, days[0].close, days[0].volume)
    assert bars(TimeFrame.Week) == {} and bars(TimeFrame.Month) == {}
    desk.exchange.advance_to(NOON.replace(hour=16))
    assert bars(TimeFrame.Week) == {}, "it began on Monday the 19th, before the start"
    (week,) = desk.data.get_stock_bars(StockBarsRequest(symbol_or_symbols=A, timeframe=TimeFrame.Week, start=datetime(2026, 1, 19))).data[A]
    assert week.open == days[0].open and week.timestamp.astimezone(NEW_YORK).date() == date(2026, 1, 19)
    assert len(desk.data.get_stock_bars(StockBarsRequest(symbol_or_symbols=[A, B], timeframe=frame(1, TimeFrameUnit.Minute), start=start, limit=500)).data[A]) == 500


def test_adjustments_know_no_future(desks):
    split, paid = Split(A, date(2026, 1, 22), Decimal(2)), Dividend(A, date(2026, 1, 26), Decimal("0.25"))
    desk = desks(events=(split, paid), start=NOON - timedelta(days=2))

    def closes_of(how):
        request = StockBarsRequest(symbol_or_symbols=A, timeframe=TimeFrame.Day, start=datetime(2026, 1, 16, tzinfo=NEW_YORK), adjustment=how)
        return [b.close for b in desk.data.get_stock_bars(request)[A]]

    truth = [PANEL.bar(A, date(2026, 1, d)).close for d in (16, 20, 21, 22)]
    assert closes_of("all") == closes_of("raw") == [round(2 * c, 4) for c in truth[:2]]
    desk.exchange.advance_to(NOON + timedelta(days=0))
    assert closes_of("split") == closes_of("all") == truth and closes_of("raw") == [*(round(2 * c, 4) for c in truth[:3]), truth[3]]
    desk.exchange.advance_to(NOON + timedelta(days=3))
    last = PANEL.bar(A, date(2026, 1, 23)).close
    assert closes_of("all")[:4] == pytest.approx([c * (1 - 0.25 / last) for c in truth], abs=1e-4) and closes_of("split")[:4] == truth


def test_single_symbol_paths(desk):
    def get(path, **query):
        return desk.data.get(f"/stocks/{path}", query)

    many = {k: desk.data.get(f"/stocks/{p}", {"symbols": A}) for k, p in (("quote", "quotes/latest"), ("trade", "trades/latest"), ("bar", "bars/latest"))}
    for kind, whole in many.items():
        assert get(f"{A}/{kind}s/latest") == {kind: whole[f"{kind}s"][A], "symbol": A}
    assert get(f"{A}/snapshot") == desk.data.get("/stocks/snapshots", {"symbols": A})[A] | {"symbol": A}
    page = get(f"{A}/bars", timeframe="1Min", limit=3, sort="desc")
    assert page["symbol"] == A and [b["t"][11:16] for b in page["bars"]] == ["16:59", "16:58", "16:57"]
    assert get(f"{A}/bars", timeframe="1Min", limit=1, sort="desc", page_token=page["next_page_token"])["bars"][0]["t"][11:16] == "16:56"
    assert get("NOPE/bars", timeframe="1Min") == {"bars": [], "next_page_token": None, "symbol": "NOPE"}
    for path, query, status in ((f"{A}/bars", {}, 400), (f"{A}/bars", {"timeframe": "61Min"}, 400), ("NOPE/quotes/latest", {}, 404), (f"{A}/snapshot", {"feed": "tape"}, 400)):
        with pytest.raises(APIError) as e:
            get(path, **query)
        assert e.value.status_code == status and set(json.loads(str(e.value))) == {"message"}


def test_a_plan_that_is_written_down_reaches_the_stream(desks):
    desk = desks(faults=(Fault("STREAM", "trade_updates", "stream_drop"),))
    _, heard = desk.listen()
    desk.buy("mine")
    until(lambda: len(heard) == 1)
    assert shorts(heard) == [("mine", "fill")]
