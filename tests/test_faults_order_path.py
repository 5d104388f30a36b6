"What must hold on the order path when something goes wrong: each fault of the catalogue by its id."

import gc
from datetime import timedelta
from decimal import Decimal

import pytest
from order_harness import FIRST, Storm, World, tick

from v23.circuit_breakers import KillSwitch
from v23.domain import OrderState, Purpose, Side
from v23.market_calendar import session_hours


@pytest.fixture
def world(tmp_path):
    made = World(3, tmp_path, Storm())
    yield made
    made.close()


def at(world: World, minutes_before_the_end: float = 25) -> None:
    "The desk has compared its books, and it is time to trade."
    hours = session_hours(world.session)
    world.wait_until(hours.window(world.settings.risk)[0])
    world.compare(world.session)
    world.wait_until(hours.window(world.settings.risk)[1] - timedelta(minutes=minutes_before_the_end))
    world.desk.look(world.session)


def names(world: World, count: int) -> list[str]:
    "Symbols with a narrow quote."
    quotes = world.desk.broker.quotes(world.panel.symbols)
    return [s for s, q in sorted(quotes.items()) if q.is_valid and q.spread_bps < 25][:count]


def plan(world: World, symbols, side=Side.BUY, quantity=10, purpose=Purpose.ENTRY, note=""):
    "One parent for each symbol, written down."
    world.desk.ready(world.session)
    quotes = world.desk.broker.quotes(list(symbols))
    world.desk.engine.plan([world.wish(s, side, Decimal(quantity), purpose, world.session, quotes.get(s), note) for s in symbols])


def work(world: World) -> None:
    world.desk.ready(world.session)
    world.desk.look_again()
    world.desk.engine.work(world.session, session_hours(world.session).window(world.settings.risk)[1])


@pytest.mark.parametrize("nth", [1, 2, 5])
def test_F72_no_entry_leaves_after_a_kill_from_another_process(nth, world):
    at(world)
    plan(world, names(world, 6))
    world.kill_at = world.wire.requests + 1 + nth
    work(world)
    assert (world.folder / "state" / "KILL").exists() and world.violations == []
    assert len(world.wire.posts) == nth
    assert {o.state for o in world.ledger.orders() if not o.attempts} == {OrderState.DENIED}


def test_F31_three_refusals_stop_the_entries_that_have_not_left(tmp_path, monkeypatch):
    from v23 import execution_engine
    from v23.errors import Rejected

    world = World(3, tmp_path, Storm(tight=True))
    try:
        monkeypatch.setattr(execution_engine, "SEND_TOGETHER", 1)
        at(world)
        tried = []

        def refuses(body):
            tried.append(body)
            raise Rejected("no", 403, 40310000)

        world.desk.broker.submit = refuses
        chosen = names(world, 9)
        plan(world, chosen)
        work(world)
        limit = world.settings.risk.max_execution_errors
        assert limit <= len(tried) <= limit + execution_engine.UNDER_WAY < len(chosen)
        assert {o.reason for o in world.ledger.orders() if not o.attempts} == {"error_limits"}
    finally:
        world.close()


def held_by(world: World) -> dict[str, Decimal]:
    return {s: h.quantity for s, h in world.exchange.holdings.items() if h.quantity}


@pytest.mark.parametrize("seconds", [0, 60])
def test_F76_a_kill_sells_nothing_twice_when_the_positions_lag_behind_the_orders(seconds, world):
    at(world)
    world.exchange.configurations["no_shorting"] = False  # nothing but the desk itself keeps it from going short
    chosen = names(world, 2)
    plan(world, chosen)
    work(world)
    world.desk.engine.positions()  # remembered by the exchange's cache
    plan(world, chosen[:1], Side.SELL, purpose=Purpose.EXIT)
    work(world)
    world.clock.sleep(seconds)
    world.exchange.faults.add("GET", "/v2/positions", "stale", times=3)
    report = world.desk.kill.activate("drill")
    assert report["flat"] and held_by(world) == {} and world.violations == []
    assert not [o for o in world.exchange.orders.values() if o.side is Side.SELL and o.opens]


def test_F76_the_day_goes_on_with_no_sale_of_a_kill(world):
    at(world)
    world.exchange.configurations["no_shorting"] = False
    (symbol,) = names(world, 1)
    plan(world, [symbol])
    work(world)
    world.exchange.plan_order_fault("no_fill")
    world.desk.kill.activate("drill")  # its first sale never trades, and is canceled when the kill goes on
    world.exchange.order_faults.clear()
    world.exchange.faults.add("GET", "/v2/account/activities/FILL", "error", times=6, status=500)  # the books lag behind the orders
    world.desk.look(world.session)
    assert held_by(world) == {} and fills_of(world) == {symbol: 10}
    sales = sum(o.side is Side.SELL for o in world.ledger.orders())
    world.exchange.faults.add("GET", "/v2/account/activities/FILL", "error", times=6, status=500)
    world.desk.engine.work(world.session, session_hours(world.session).window(world.settings.risk)[1])
    assert sum(o.side is Side.SELL for o in world.ledger.orders()) == sales == 2 and world.violations == []


def test_F37_shares_an_order_says_are_sold_are_not_sold_again_while_the_books_lag(world):
    at(world)
    world.exchange.configurations["no_shorting"] = False
    (symbol,) = names(world, 1)
    plan(world, [symbol])
    work(world)
    plan(world, [symbol], Side.SELL, purpose=Purpose.EXIT)
    world.exchange.faults.add("GET", "/v2/account/activities/FILL", "error", times=6, status=500)
    work(world)
    assert held_by(world) == {} and fills_of(world) == {symbol: 10}
    quote = world.desk.broker.quotes([symbol])[symbol]
    again = world.wish(symbol, Side.SELL, Decimal(10), Purpose.EXIT, world.session, quote, "again")
    assert again[1].reasons == ("quantity",)
    settled(world)


def by_hand(world: World, **order: str) -> None:
    "An order at the broker's page."
    import json

    body = {"side": "buy", "type": "market", "time_in_force": "day"} | order
    assert world.exchange.handle("POST", "/v2/orders", {}, json.dumps(body).encode()).status == 200
    world.clock.sleep(5)


def test_F36_an_exit_sells_to_the_ninth_decimal_and_whole_shares_where_parts_do_not_trade(world):
    from v23.simulator.account import fractionable

    at(world)
    first, second = [s for s in names(world, 14) if fractionable(s)][:2]
    plan(world, [first, second])
    work(world)
    for s in (first, second):
        by_hand(world, symbol=s, notional="12.34")
    world.compare(world.session)
    held = held_by(world)
    assert fills_of(world) == held and all(q % 1 for q in held.values())
    plan(world, [first], Side.SELL, held[first], Purpose.EXIT)
    work(world)
    assert first not in held_by(world)
    world.exchange.configurations["fractional_trading"] = False
    plan(world, [second], Side.SELL, held[second], Purpose.EXIT)
    work(world)
    assert held_by(world) == {second: held[second] % 1}
    report = world.desk.kill.activate("drill")
    assert not report["flat"] and set(report["left"]) == {second}
    settled(world)


def test_F36_dust_is_named_and_stops_nothing(world):
    at(world)
    symbol, other = names(world, 2)
    plan(world, [symbol])
    work(world)
    by_hand(world, symbol=symbol, notional="12.34")
    world.compare(world.session)
    by_hand(world, symbol=symbol, side="sell", qty=str(held_by(world)[symbol] - Decimal("0.0003")))
    findings, stops = world.desk.reconcile(world.session)
    assert any("worth less than a dollar" in f for f in findings) and stops == []
    assert held_by(world) == fills_of(world) == {symbol: Decimal("0.0003")}
    plan(world, [other], note="more")
    work(world)
    assert other in held_by(world)


def test_F40_money_that_is_gone_shrinks_the_purchases_and_is_no_error(tmp_path):
    world = World(3, tmp_path, Storm(), cash=Decimal(30_000))
    try:
        at(world, 30)
        chosen = names(world, 4)
        quotes = world.desk.broker.quotes(chosen)
        wanted = {s: int(2_500 / q.ask) for s, q in quotes.items()}
        by_hand(world, symbol=next(s for s in world.panel.symbols if s not in chosen), qty="1", side="buy")
        for s in chosen:
            plan(world, [s], quantity=wanted[s])
        world.exchange.cash = Decimal(6_000)  # somebody has taken the rest
        world.desk.look(world.session)
        world.desk.gate.equity = 30_000.0  # the caps are not what this is about
        world.desk.look_again = lambda: True
        world.desk.engine.refresh = lambda: True
        work(world)
        held = held_by(world)
        assert [held[s] for s in chosen[:2]] == [wanted[s] for s in chosen[:2]] and 0 < held[chosen[2]] < wanted[chosen[2]]
        sent = [o for o in world.ledger.orders() if o.attempts]
        assert {o.state for o in sent} == {OrderState.FILLED} and errors(world) == []
        assert {o.reason for o in world.ledger.orders() if not o.attempts} == {"buying_power"}
        assert 0 <= float(world.desk.broker.account().cash) < 500
        settled(world)
    finally:
        world.close()


def rests(world: World, symbol: str, price: str = "1.00", quantity: int = 10) -> None:
    "One purchase that waits far below the market, sent."
    from v23.domain import ChildOrder, OrderType
    from v23.execution.order_lifecycle import planned_order

    plan(world, [symbol], quantity=quantity)
    intent = world.wish(symbol, Side.BUY, Decimal(quantity), Purpose.ENTRY, world.session, None)[0].intent
    now = world.clock.now()
    order = planned_order(ChildOrder(0, OrderType.LIMIT, Decimal(quantity), now, now + timedelta(seconds=60), Decimal(price)), intent, "simulated", "0")
    world.desk.engine.wire.keep(order)
    world.desk.engine.wire.send(order)


def test_F28_a_late_fill_whose_look_up_failed_reaches_the_order_at_the_next_look(world):
    at(world)
    world.exchange.plan_order_fault("late_fill", seconds=30.0)
    rests(world, names(world, 1)[0])
    world.clock.sleep(2)
    world.desk.engine.cancel_all_pending()
    world.clock.sleep(60)
    world.exchange.faults.add("GET", "/v2/orders:by_client_order_id", "error", times=3, status=500)
    world.desk.engine.tracker.book_fills(thorough=True)
    (order,) = world.ledger.orders()
    assert (order.state, order.filled_quantity, len(world.ledger.fills())) == (OrderState.CANCELED, 0, 1)
    world.desk.engine.recover()
    assert world.ledger.orders()[0].filled_quantity == 10 and world.verdict() == {}
    asked = world.wire.requests
    world.desk.engine.recover()
    assert world.wire.requests - asked == 1  # nothing is open to doubt any more: executions only


def test_an_order_that_simply_fills_is_not_looked_up_once_more(world):
    at(world)
    plan(world, names(world, 3))
    world.exchange.faults.log.clear()
    seen = []
    send = world.wire.shell.answer
    world.wire.shell.answer = lambda method, path, *more: (seen.append(path), send(method, path, *more))[1]
    work(world)
    assert all(o.state is OrderState.FILLED for o in world.ledger.orders()) and "/v2/orders:by_client_order_id" not in seen


def fills_of(world: World) -> dict[str, Decimal]:
    from v23.accounting import signed_positions

    return signed_positions(world.ledger.fills())


def errors(world: World) -> list[tuple[str, str]]:
    return [(e.body["kind"], e.body["code"]) for e in world.ledger.events("error")]


def settled(world: World) -> None:
    "Both books agree to the share, and each wish is at the exchange once."
    world.settle()
    assert {k: v for k, v in world.verdict().items() if v} == {}, world.violations


def test_F4_a_resend_that_is_refused_for_money_stays_unknown_because_the_first_may_hold_it(world):
    from v23.errors import Rejected

    at(world)
    plan(world, names(world, 1))
    world.exchange.faults.add("POST", "/v2/orders", "accept_then_hang_up")
    broker, hidden = world.desk.broker, [True]
    listed, found, submit, tried = broker.orders, broker.order_by_client_id, broker.submit, []
    broker.orders = lambda after, **more: () if hidden[0] else listed(after, **more)
    broker.order_by_client_id = lambda cid: None if hidden[0] else found(cid)

    def second_is_refused(body):
        tried.append(body)
        if len(tried) == 2:
            hidden[0] = False
            raise Rejected("insufficient buying power", 403, 40310000)
        return submit(body)

    world.desk.broker.submit = second_is_refused
    work(world)
    states = [e.body["state"] for e in world.ledger.events("order")]
    assert len(tried) == 2 and tried[0] == tried[1] and "rejected" not in states
    assert len(world.exchange.orders) == 1 and world.ledger.orders()[0].state is OrderState.FILLED
    assert fills_of(world) == held_by(world) != {}


def test_F6_throttling_is_no_error_and_exits_have_tokens_that_entries_have_not(world):
    at(world)
    chosen = names(world, 2)
    world.exchange.faults.add("GET", "/v2/orders", "429", times=2)
    world.exchange.faults.add("GET", "/v2/orders", "429_bare", times=2)
    plan(world, chosen)
    work(world)
    assert len(fills_of(world)) == 2 and {kind for kind, _ in errors(world)} <= {"notice"}
    budget = world.desk.broker.budget
    world.clock.sleep(120)
    budget.take()
    budget.tokens, before = budget.reserve, world.clock.now()
    plan(world, chosen[:1], Side.SELL, purpose=Purpose.EXIT)
    spent_waiting = world.clock.now() - before
    budget.tokens, before = budget.reserve, world.clock.now()
    world.desk.broker.orders(before - timedelta(hours=1))
    assert world.clock.now() == before and spent_waiting > timedelta(0)  # a poll is urgent, a quote is not


def test_F7_an_account_that_cannot_be_read_is_not_an_empty_one(world):
    from v23.errors import BrokerError

    at(world)
    plan(world, names(world, 3))
    work(world)
    before = fills_of(world)
    world.exchange.faults.add("GET", "/v2/positions", "error", times=60, status=500)
    with pytest.raises(BrokerError):
        world.desk.look(world.session)
    with pytest.raises(BrokerError):
        world.desk.reconcile(world.session)
    report = world.desk.kill.activate("drill")
    assert report["flat"] is False and fills_of(world) == before == held_by(world)
    world.exchange.faults.waiting.clear()
    world.desk.look(world.session)
    assert world.desk.kill.is_flat and held_by(world) == {}


def test_F12_lost_credentials_stop_entries_and_are_tried_once_a_minute(world):
    at(world)
    chosen = names(world, 6)
    plan(world, chosen)
    world.exchange.faults.add("*", "/v2/orders", "auth", times=10_000)
    work(world)
    assert ("critical", "AUTH_LOST") in errors(world)
    assert sum(world.wire.posts.values()) == 1 and fills_of(world) == {}  # the others were marked and never left
    world.exchange.faults.waiting.clear()
    settled(world)


def test_F19_what_no_event_reported_is_found_by_the_poll_within_half_a_minute(world):
    at(world)
    world.exchange.plan_order_fault("slow_fill", seconds=75.0)
    plan(world, names(world, 1))
    work(world)
    (fill,) = world.ledger.fills()
    booked = next(e.at for e in world.ledger.events("fill"))
    assert timedelta(0) <= booked - fill.at <= timedelta(seconds=30)


@pytest.mark.parametrize("kind", ["duplicate", "shuffle", "drop"])
@pytest.mark.parametrize("path", ["/v2/orders", "/v2/account/activities/FILL"])
def test_F20_F21_F22_lists_that_repeat_mix_up_or_leave_out_rows_change_nothing_in_the_end(kind, path, world):
    import random

    at(world)
    plan(world, names(world, 5))
    for n in range(4):
        world.wire.spoil[path] = (kind, random.Random(n))
        work(world)
        world.clock.sleep(30)
    world.desk.engine.recover()
    settled(world)
    assert len(fills_of(world)) == 5


def test_F24_an_order_of_somebody_else_is_left_alone_and_one_that_looks_like_ours_stops_entries(world):
    at(world)
    chosen = names(world, 2)
    for cid in ("by-hand-1", "v23-s-0-20260112-00000000000000000000"):
        body = f'{{"symbol":"{chosen[0]}","qty":"1","side":"buy","type":"limit","limit_price":"1.00","time_in_force":"day","client_order_id":"{cid}"}}'
        world.exchange.handle("POST", "/v2/orders", {}, body.encode())
        _, stops = world.desk.reconcile(world.session)
        assert bool(stops) is cid.startswith("v23-")
    plan(world, chosen)
    work(world)
    assert fills_of(world) == {} and all(o.is_open for o in world.exchange.orders.values())
    assert world.wire.methods["DELETE"] == 0


def test_F29_an_order_is_never_replaced_and_a_new_child_waits_for_the_end_of_the_old(tmp_path):
    world = World(3, tmp_path, Storm(patient=True))
    try:
        at(world)
        for _ in range(3):
            world.exchange.plan_order_fault("no_fill", times=2)
        plan(world, names(world, 3))
        work(world)
        ended = {}
        for e in world.ledger.events("order"):
            if e.body["state"] == "planned" and e.body["seq"]:
                assert ended[e.body["intent_id"], e.body["seq"] - 1]
            ended[e.body["intent_id"], e.body["seq"]] = e.body["state"] in ("filled", "canceled", "denied", "rejected")
        assert max(o.seq for o in world.ledger.orders()) >= 1 and world.wire.methods["PATCH"] == 0
        settled(world)
    finally:
        world.close()


def test_F32_in_a_halt_an_exit_rests_and_an_entry_waits(tmp_path):
    from v23.simulator.market import Halt

    begin = session_hours(FIRST).close - timedelta(minutes=20)
    symbol = "XAAC"
    world = World(3, tmp_path, Storm(), events=(Halt(symbol, begin, begin + timedelta(minutes=6)),))
    try:
        at(world)
        plan(world, [symbol])
        work(world)
        assert fills_of(world) == {symbol: 10}
        world.wait_until(begin + timedelta(minutes=2))
        plan(world, [symbol], Side.SELL, purpose=Purpose.EXIT)
        plan(world, [symbol], note="more")
        work(world)
        sold = [o for o in world.exchange.orders.values() if o.side is Side.SELL and o.filled]
        assert len(sold) == 1 and sold[0].times["filled_at"] >= begin + timedelta(minutes=6)
        settled(world)
    finally:
        world.close()


def test_F37_two_exits_of_the_same_shares_sell_them_once(world):
    at(world)
    world.exchange.configurations["no_shorting"] = False
    chosen = names(world, 2)
    plan(world, chosen)
    work(world)
    plan(world, chosen, Side.SELL, purpose=Purpose.EXIT)
    plan(world, chosen, Side.SELL, purpose=Purpose.EXIT, note="again")
    work(world)
    assert held_by(world) == {} and world.violations == []
    assert sum(o.side is Side.SELL for o in world.exchange.orders.values()) == 2
    settled(world)


def test_F38_the_other_side_waits_until_an_order_has_ended(world):
    at(world)
    (symbol,) = names(world, 1)
    plan(world, [symbol])
    work(world)
    plan(world, [symbol], note="more")
    world.exchange.plan_order_fault("no_fill")
    tick(world.desk.engine, world.session, session_hours(world.session).close, 1.0)
    assert [o.side for o in world.exchange.open_orders.values()] == [Side.BUY]
    leave = world.wish(symbol, Side.SELL, Decimal(10), Purpose.EXIT, world.session, world.desk.broker.quotes([symbol])[symbol])
    assert leave[1].reasons == ("duplicate",)
    world.desk.engine.cancel_all_pending()
    assert world.desk.gate(leave[0].intent, world.desk.broker.quotes([symbol])[symbol]).allowed


@pytest.mark.parametrize("reason", ["account is restricted to liquidation", "insufficient intraday margin"])
def test_F39_a_refused_exit_is_not_sent_again_and_a_kill_says_why(reason, world):
    from v23.errors import Rejected

    at(world)
    (symbol,) = names(world, 1)
    plan(world, [symbol])
    work(world)
    submit, sold = world.desk.broker.submit, []

    def refuses(body):
        if '"sell"' in body:
            sold.append(body)
            raise Rejected(reason, 403, 40310000)
        return submit(body)

    world.desk.broker.submit = refuses
    plan(world, [symbol], Side.SELL, purpose=Purpose.EXIT)
    work(world)
    assert len(sold) == 1 and errors(world).count(("execution", "ORDER_REJECTED")) == 1
    report = world.desk.kill.activate("drill")
    assert report["flat"] is False and reason in report["left"][symbol]["reason"] and len(sold) <= 6


def test_F41_a_short_position_stops_entries(world):
    at(world)
    chosen = names(world, 2)
    world.exchange.configurations["no_shorting"] = False
    world.exchange.configurations["max_margin_multiplier"] = "2"
    body = f'{{"symbol":"{chosen[0]}","qty":"5","side":"sell","type":"market","time_in_force":"day","client_order_id":"by-hand"}}'
    world.exchange.handle("POST", "/v2/orders", {}, body.encode())
    world.clock.sleep(5)
    assert held_by(world)[chosen[0]] == -5
    _, stops = world.desk.reconcile(world.session)
    plan(world, chosen)
    work(world)
    assert stops and fills_of(world) == {chosen[0]: -5} and len(world.wire.posts) == 0


def test_F42_a_limit_that_never_fills_is_repriced_three_times_and_ends_with_the_window(tmp_path):
    world = World(3, tmp_path, Storm(patient=True))
    try:
        at(world)
        world.exchange.plan_order_fault("no_fill", times=50)
        chosen = names(world, 2)
        plan(world, chosen)
        work(world)
        orders = world.ledger.orders()
        assert {o.state for o in orders} == {OrderState.CANCELED} and max(o.seq for o in orders) == world.settings.execution.limit_reprices
        assert all(o.limit_price == o.limit_price.quantize(Decimal("0.01")) and '"day"' in o.body for o in orders)
        from v23.execution_engine import execution_report

        report = execution_report(world.ledger, world.session)
        assert report["fill_rate"] == 0.0 and set(report["unfilled"]) == set(chosen)
        assert world.exchange.open_orders == {}
        settled(world)
    finally:
        world.close()


def test_F43_after_the_bell_an_entry_is_denied_and_a_kill_waits_for_the_next(world):
    at(world)
    chosen = names(world, 2)
    plan(world, chosen)
    work(world)
    world.wait_until(session_hours(world.session).close + timedelta(minutes=30))
    quote = world.desk.broker.quotes(chosen)[chosen[0]]
    wish = world.wish(chosen[0], Side.BUY, Decimal(1), Purpose.ENTRY, world.session, quote, "late")
    assert "market_hours" in wish[1].reasons
    report = world.desk.kill.activate("drill")
    assert report["state"] == "PENDING_OPEN" and held_by(world) != {}
    world.wait_until(session_hours(world.session).open + timedelta(days=1, minutes=6))
    world.desk.look(world.session)
    assert held_by(world) == {} and world.violations == []


@pytest.mark.parametrize("point", ["sending", "wire", "reply", "commit", "apply"])
def test_F44_a_sliced_order_that_died_between_its_slices_ends_at_its_size(point, world):
    at(world)
    (symbol,) = names(world, 1)
    price = world.desk.broker.quotes([symbol])[symbol].midpoint
    quantity = int(30_000 / price)
    plan(world, [symbol], quantity=quantity)
    for n in (1, 2, 3):
        world.crash_at = (point, n)
        world.try_to(lambda: (world.desk.look(world.session), work(world)))
    orders = world.ledger.orders()
    assert sum(o.filled_quantity for o in orders) == quantity and {o.seq for o in orders} == {0, 1, 2}
    times = sorted(o.created_at for o in world.exchange.orders.values())
    assert times[-1] - times[0] >= timedelta(seconds=590) and world.crashes
    settled(world)


def test_F45_a_trade_by_hand_is_booked_as_what_it_is(world):
    at(world)
    chosen = names(world, 2)
    body = f'{{"symbol":"{chosen[0]}","qty":"5","side":"buy","type":"market","time_in_force":"day"}}'
    world.exchange.handle("POST", "/v2/orders", {}, body.encode())
    world.clock.sleep(5)
    findings, stops = world.desk.reconcile(world.session)
    assert any(chosen[0] in f for f in findings) and stops == [] and fills_of(world) == {chosen[0]: 5} == held_by(world)


def test_F55_a_second_desk_ends_before_it_asks_anybody(world):
    from v23.errors import OwnedError
    from v23.trading_desk import SavingDesk

    asked = world.wire.requests
    before = {p: p.read_bytes() for p in (world.folder / "state").rglob("*") if p.is_file()}
    with pytest.raises(OwnedError) as refused:
        SavingDesk(world.desk.wiring)
    assert refused.value.exit_code == 75 and world.wire.requests == asked
    assert before == {p: p.read_bytes() for p in before}


DAMAGED = {
    "empty": b"", "truncated": b'{"schema":1,"se', "null": b"null", "a_list": b"[]", "bom": b"\xef\xbb\xbf{}", "twice": b'{"schema":1,"schema":1,"seq":0,"sha256":"","data":{"active":false}}',
    "old": b'{"schema":0,"seq":1,"sha256":"","data":{"active":false}}', "future": b'{"schema":9,"seq":1,"sha256":"","data":{"active":false}}',
    "edited": b'{"schema":1,"seq":1,"written_at":"","sha256":"00","data":{"active":false}}', "not_text": b"\xff\xfe\x00",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_F58_a_damaged_file_is_never_believed_and_a_damaged_kill_file_kills(damage, world):
    from v23.adapters.snapshots import read_snapshot
    from v23.errors import StateError

    at(world)
    plan(world, names(world, 1))
    work(world)
    world.desk.save_state()
    state = world.folder / "state"
    kept = read_snapshot(state / "execution" / "execution_state.json")["positions"]
    (state / "execution" / "execution_state.json").write_bytes(DAMAGED[damage])
    with pytest.raises(StateError):
        read_snapshot(state / "execution" / "execution_state.json")
    world.restart()
    world.desk.save_state()
    assert read_snapshot(state / "execution" / "execution_state.json")["positions"] == kept
    (state / "circuit_breakers" / "kill_switch_state.json").write_bytes(DAMAGED[damage])
    assert world.desk.kill.is_active
    plan(world, names(world, 2), note="more")
    work(world)
    assert [o.purpose for o in world.ledger.orders() if o.attempts] == [Purpose.ENTRY, Purpose.KILL]  # what was held is sold, nothing is bought


@pytest.mark.parametrize("seconds", [-86_400, -3_600, 3_600, 86_400])
def test_F60_after_a_jump_of_the_clock_no_entry_leaves_until_it_agrees_again(seconds, world):
    at(world)
    plan(world, names(world, 3))
    world.clock.offset = timedelta(seconds=seconds)
    world.desk.look(world.session)
    work(world)
    assert len(world.wire.posts) == 0 and world.violations == []
    world.clock.offset = timedelta(0)
    world.desk.look(world.session)
    plan(world, names(world, 3), note="again")
    work(world)
    settled(world)
    assert len(fills_of(world)) == 3


@pytest.mark.parametrize("planned", [False, True])
def test_F62_after_two_hours_asleep_an_old_plan_is_not_sent(planned, world):
    at(world)
    plan(world, names(world, 3))
    if planned:  # the process died after the children were written down
        world.crash_at = ("sending", 1)
        with pytest.raises(BaseException, match="sending"):
            work(world)
    world.clock.sleep(7200)
    world.restart()
    world.desk.look(world.session)
    work(world)
    assert len(world.wire.posts) == 0 and fills_of(world) == {}
    assert {o.state for o in world.ledger.orders()} <= {OrderState.DENIED, OrderState.UNKNOWN, OrderState.ABANDONED}


def test_F63_every_event_says_which_code_wrote_it_and_another_build_goes_on(world, monkeypatch):
    at(world)
    plan(world, names(world, 2))
    world.crash_at = ("reply", 1)
    with pytest.raises(BaseException, match="reply"):
        work(world)
    monkeypatch.setattr("v23.__version__", "99.0")
    world.restart()
    world.desk.look(world.session)
    work(world)
    builds = [row[0] for row in world.ledger._db.execute("SELECT build FROM events ORDER BY seq")]
    assert set(builds) == {builds[0], "99.0"} and builds == sorted(builds, key=lambda b: b == "99.0")
    settled(world)


@pytest.mark.timeout(600)
def test_F64_over_thirty_sessions_files_descriptors_and_memory_stay_flat(tmp_path):
    import os
    import resource
    from datetime import datetime

    from v23.market_calendar import NEW_YORK

    world = World(5, tmp_path, Storm(), start=datetime(2025, 12, 8, 9, 0, tzinfo=NEW_YORK))
    try:
        marks = []
        for n in range(30):
            world.trade_day()
            if n in (9, 19, 29):
                gc.collect()  # what other tests left
                files = sum(p.stat().st_size for p in (tmp_path / "state").rglob("*.json"))
                ledger = sum(p.stat().st_size for p in (tmp_path / "state" / "execution").glob("ledger*"))
                marks.append((len(os.listdir("/proc/self/fd")), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, files, ledger, world.ledger.last_seq))
        fds, memory, files, ledger, events = zip(*marks, strict=True)
        assert len(set(fds)) == 1 and memory[2] < memory[1] * 1.15
        assert files[2] < 1_000_000 and ledger[2] < 25_000_000 and ledger[2] - ledger[1] < 2 * (ledger[1] - ledger[0] + 500_000) and not list(tmp_path.rglob("*.tmp"))
        settled(world)
    finally:
        world.close()


def test_F69_the_peak_comes_from_the_record_whatever_was_restarted(world):
    from v23.market_calendar import previous_session

    at(world)
    world.ledger.record("session_closed", {"session": previous_session(world.session), "equity": Decimal(460_000), "cash": Decimal(460_000), "gross_exposure": 0.0, "positions": {}})
    world.restart()
    world.desk.look(world.session)
    assert {x.name for x in world.desk.breakers.latches} >= {"drawdown_reduce"}
    plan(world, names(world, 1))
    world.restart()
    world.desk.look(world.session)
    assert world.desk.breakers.reduced


@pytest.mark.parametrize("place", ["ledger", "file", "sentinel"])
def test_F72_a_kill_is_remembered_by_who_starts_next_from_any_of_three_places(place, world):
    at(world)
    world.desk.kill.activate("drill")
    state = world.folder / "state"
    sentinel, file = state / "KILL", state / "circuit_breakers" / "kill_switch_state.json"
    assert sentinel.exists() and file.exists() and world.ledger.last("kill") is not None
    for path in {"ledger": (sentinel, file), "file": (sentinel,), "sentinel": (file,)}[place]:
        path.unlink()
    if place != "ledger":
        assert KillSwitch(None, world.clock, None, state).is_active  # read by somebody without a ledger
    world.restart()
    assert world.desk.kill.is_active
    world.desk.look(world.session)
    plan(world, names(world, 3))
    work(world)
    assert len(world.wire.posts) == 0


def test_F73_a_kill_that_was_gone_on_with_many_times_before_the_bell_still_sells_after_it(world):
    at(world)
    plan(world, names(world, 3))
    work(world)
    opened = session_hours(world.session).open + timedelta(days=1)
    world.wait_until(opened - timedelta(hours=2))
    for _ in range(8):
        assert world.desk.kill.activate("drill")["state"] == "PENDING_OPEN"
    world.exchange.plan_order_fault("reject", times=20)  # what waits for the bell does not make it
    world.desk.kill.activate("drill")
    world.wait_until(opened + timedelta(minutes=1))
    world.exchange.order_faults.clear()
    world.desk.look(world.session)
    assert world.desk.kill.is_flat and held_by(world) == {} and world.violations == []
    settled(world)
