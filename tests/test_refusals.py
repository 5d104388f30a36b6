"Orders that cannot be: each is refused in words that name the field, the value and what was expected, and nothing leaves."

from dataclasses import replace
from decimal import Decimal

import pytest
from order_harness import Storm, World
from test_faults_order_path import at, held_by, names, rests, work

from v23.domain import OrderState, Purpose, Side
from v23.errors import InputError
from v23.execution.rebalance import check_weights


@pytest.fixture
def world(tmp_path):
    made = World(3, tmp_path, Storm())
    at(made)
    yield made
    made.close()


@pytest.mark.parametrize("purpose", [Purpose.ENTRY, Purpose.EXIT])
@pytest.mark.parametrize("quantity", ["0", "-5", "NaN", "Infinity", "-Infinity", "sNaN"])
def test_a_quantity_that_is_no_positive_number_is_refused_by_name(quantity, purpose, world):
    (symbol,) = names(world, 1)
    quote = world.desk.broker.quotes([symbol])[symbol]
    planned, decision = world.wish(symbol, Side.BUY if purpose is Purpose.ENTRY else Side.SELL, Decimal(quantity), purpose, world.session, quote)
    (check,) = [c for c in decision.checks if c.name == "quantity"]
    assert planned.refused == "quantity" and planned.detail == f"{symbol}: quantity {quantity}; a positive number is expected"
    assert not decision.allowed and "quantity" in decision.reasons and quantity in check.detail
    world.desk.engine.plan([(planned, decision)])
    work(world)
    assert world.wire.posts == {} and world.ledger.parents()[0]["refused"] == "quantity"


def test_part_of_a_share_is_not_bought(world):
    (symbol,) = names(world, 1)
    quote = world.desk.broker.quotes([symbol])[symbol]
    _, decision = world.wish(symbol, Side.BUY, Decimal("1.5"), Purpose.ENTRY, world.session, quote)
    assert decision.reasons == ("quantity",) and "1.5" in decision.checks[9].detail


@pytest.mark.parametrize("symbol", ["ZZZZ", "aapl", "A B", "", "../etc", "X" * 30])
def test_an_unknown_symbol_is_refused_by_name(symbol, world):
    world.desk.ready(world.session)
    known = world.desk.broker.quotes([symbol]).get(symbol) if symbol == "ZZZZ" else None
    planned, decision = world.wish(symbol, Side.BUY, Decimal(5), Purpose.ENTRY, world.session, known)
    assert planned.refused and not decision.allowed and symbol in planned.detail
    if symbol != "ZZZZ":
        assert "symbol" in decision.reasons
    world.desk.engine.plan([(planned, decision)])
    work(world)
    assert world.wire.posts == {}


def test_a_price_beyond_the_collar_is_refused_with_the_price_and_the_limit(world):
    symbol, other = names(world, 2)
    quotes = world.desk.broker.quotes([symbol, other])
    too_much = f"{quotes[symbol].ask * 1.02:.2f}"
    world.desk.engine.wire.send, send = lambda order: order, world.desk.engine.wire.send
    rests(world, symbol, price=too_much)
    world.desk.engine.wire.send = send
    work(world)
    (order,) = world.ledger.orders()
    assert order.state is OrderState.DENIED and order.reason.startswith(f"price: {symbol} limit_price {too_much}, at most ")
    assert f"collar of {world.settings.execution.collar_bps:g} bps" in order.reason and world.wire.posts == {}


def test_another_order_under_an_id_that_is_taken_is_refused_and_the_same_one_is_left(world):
    (symbol,) = names(world, 1)
    quote = world.desk.broker.quotes([symbol])[symbol]
    planned, decision = world.wish(symbol, Side.BUY, Decimal(10), Purpose.ENTRY, world.session, quote)
    engine = world.desk.engine
    with pytest.raises(InputError, match=f"{planned.intent.intent_id} appears twice"):
        engine.plan([(planned, decision)] * 2)
    engine.plan([(planned, decision)])
    engine.plan([(planned, decision)])
    other = replace(planned, intent=replace(planned.intent, quantity=Decimal(20)))
    with pytest.raises(InputError, match=f"{planned.intent.intent_id} is already buy 10 {symbol}; buy 20 {symbol} is another order"):
        engine.plan([(other, decision)])
    work(world)
    assert len(world.ledger.parents()) == 1 and held_by(world) == {symbol: 10}


def test_an_order_of_an_intent_that_may_be_live_is_a_duplicate(world):
    (symbol,) = names(world, 1)
    rests(world, symbol)
    intent = world.wish(symbol, Side.BUY, Decimal(10), Purpose.ENTRY, world.session, None)[0].intent
    decision = world.desk.gate(intent, world.desk.broker.quotes([symbol])[symbol])
    (check,) = [c for c in decision.checks if c.name == "duplicate"]
    assert "duplicate" in decision.reasons and "may be live" in check.detail


@pytest.mark.parametrize(("weights", "said"), [
    ({f"X{i:02d}": 0.1 for i in range(11)}, "add up to 1.1; at most 1 of equity (MAX_GROSS_EXPOSURE)"),
    ({"X00": 0.11}, "the weight of X00 is 0.11; 0 to 0.1 of equity is expected"),
    ({"X00": -0.01}, "the weight of X00 is -0.01; 0 to 0.1"),
    ({"X00": float("nan")}, "the weight of X00 is nan"),
    ({"X00": float("inf")}, "the weight of X00 is inf"),
    ({"X00": "5%"}, "the weight of X00 is '5%'"),
    ({"ZZZZ": 0.05}, "the symbol 'ZZZZ'"),
])  # fmt: skip
def test_target_weights_that_cannot_be_are_refused_by_name(weights, said, world):
    with pytest.raises(InputError) as refused:
        check_weights(weights, [f"X{i:02d}" for i in range(11)], world.settings.sizing)
    assert said in str(refused.value)
