"What must hold on the order path when something goes wrong: each fault of the catalogue by its id."

from datetime import timedelta
from decimal import Decimal

import pytest
from order_harness import Storm, World

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
    quotes = world.desk.broker.quotes(list(symbols))
    world.desk.engine.plan([world.wish(s, side, Decimal(quantity), purpose, world.session, quotes.get(s), note) for s in symbols])


def work(world: World) -> None:
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
