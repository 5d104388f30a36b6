"The quick ways through the checks say what the long ways say: of one order, and of a whole plan."

import math
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_pretrade_boundaries import ALWAYS_BROKEN, BROKEN, BUY, CALM, EDGES, LIMITS, NOW, QUOTE, SELL

from v23.domain import BreakerState, Decision, Purpose, Quote, Side
from v23.risk.batch_checks import Batch, decide_all, decide_each
from v23.risk.pretrade_checks import Passed, clearly_passes, evaluate, written
from v23.settings import RiskLimits

EXTREME = st.sampled_from([math.nan, math.inf, -math.inf, None, "5", Decimal("NaN"), Decimal(3), 10**400, True, 0.0, -0.0, 1e308, 49.0000000001])


def near(limit):
    "Values around a limit, down to the last bit of a float."
    return st.sampled_from([limit, math.nextafter(limit, math.inf), math.nextafter(limit, -math.inf), limit * (1 + 1e-12), limit * (1 + 3e-12), limit * (1 - 1e-9), limit / 2]) | EXTREME


def long_way(intent, context, limits=LIMITS):
    return Decision(intent.intent_id, written(intent, context, limits))


def same(quick, slow):
    assert (quick.intent_id, quick.allowed, quick.reasons) == (slow.intent_id, slow.allowed, slow.reasons)
    assert str(quick.checks) == str(slow.checks)  # NaN is not equal to itself


contexts = st.fixed_dictionaries({}, optional={
    "equity": st.just(100_000.0) | st.just(100_000) | EXTREME,
    "position_value": near(10_000 - 50 * 100.01),
    "sector_value": near(25_000 - 50 * 100.01),
    "daily_loss": near(-0.05),
    "entries_today": st.integers(47, 51) | EXTREME,
    "consecutive_losses": st.integers(3, 6) | EXTREME,
    "losses_acknowledged": st.booleans(),
    "execution_errors": st.integers(1, 4) | EXTREME,
    "api_errors": st.integers(3, 6) | EXTREME,
    "orders_last_minute": st.integers(98, 101) | EXTREME,
    "times_sent": st.integers(10, 13) | EXTREME,
    "breaker_state": st.sampled_from([*BreakerState, 0, 1, None, "NORMAL"]),
    "entries_paused": st.sampled_from([False, False, True, None, 0]),
    "quarantined": st.sampled_from([False, False, True, None]),
    "killed": st.sampled_from([False, False, True, 0]),
    "already_sent": st.sampled_from([False, False, True, None]),
    "opposite_live": st.sampled_from([False, False, True]),
    "tradable": st.sampled_from([True, True, False, 1]),
    "quantity_available": st.sampled_from([Decimal(50), Decimal("49.9"), Decimal("Infinity"), Decimal("NaN"), Decimal("sNaN"), None, 60.0]),
    "now": st.sampled_from([NOW, CALM.window_start, CALM.window_end, CALM.window_end + timedelta(microseconds=1), NOW.replace(tzinfo=None), None]),
    "window_start": st.sampled_from([CALM.window_start, CALM.window_start.replace(tzinfo=None), None]),
    "quote": st.none() | st.builds(lambda bid, ask, age, symbol: Quote(symbol, bid, ask, NOW - timedelta(seconds=age)), st.sampled_from([99.99, 99.75, 109.9, 90.0]) | EXTREME, st.sampled_from([100.01, 100.25, 110.1, 99.99]) | EXTREME, st.sampled_from([0, 5, -5, 5.000001]), st.sampled_from(["AAA", "AAA", "BBB"])),
})  # fmt: skip
orders = st.fixed_dictionaries({}, optional={
    "quantity": st.sampled_from([Decimal(50), Decimal("50.5"), Decimal("50.0000000000000000000000001"), Decimal("1e-400"), Decimal(0), Decimal("NaN"), Decimal("sNaN"), 50, None]),
    "purpose": st.sampled_from(list(Purpose)),
    "side": st.sampled_from(list(Side)),
    "reference_price": st.sampled_from([100.0, 90.91, 111.1, 0.0, -1.0]) | EXTREME,
    "symbol": st.sampled_from(["AAA", "aaa", "A" * 11, "BRK.B"]),
})  # fmt: skip


@given(changes=contexts, order=orders)
@example(changes={}, order={})
@example(changes={"equity": 100_000}, order={"side": Side.SELL, "purpose": Purpose.EXIT})
def test_an_order_is_decided_the_same_with_and_without_its_sentences(changes, order):
    intent, context = replace(BUY, **order), replace(CALM, **changes)
    try:
        slow = long_way(intent, context)
    except (TypeError, ArithmeticError, ValueError):  # nothing of the kind is ever built; it certainly does not pass
        assert not clearly_passes(intent, context, LIMITS)
        return
    same(evaluate(intent, context, LIMITS), slow)


@pytest.mark.parametrize("changes", [*(f for _, _, f in EDGES), *(b for _, b in BROKEN), *(c for _, i, c in ALWAYS_BROKEN if not i)])
def test_nothing_that_fails_passes_quickly(changes):
    assert clearly_passes(BUY, CALM, LIMITS) and clearly_passes(SELL, CALM, LIMITS)
    decided = evaluate(BUY, replace(CALM, **changes), LIMITS)
    assert not isinstance(decided, Passed) or decided.allowed is all(c.passed for c in decided.checks) is True


def test_a_quick_decision_is_on_record_in_full_whenever_it_is_read():
    decided = evaluate(BUY, CALM, LIMITS)
    assert isinstance(decided, Passed) and decided.checks is decided.checks and len(decided.checks) == 15
    assert decided == evaluate(BUY, CALM, LIMITS) and all(c.passed and c.detail for c in decided.checks)


# A whole plan

SYMBOLS = [f"S{n}" for n in range(9)]
SECTORS = {s: ("Energy", "Banks", "Retail")[n % 3] for n, s in enumerate(SYMBOLS[:-1])}
quotes = st.builds(lambda mid, half, age: (mid - half, mid + half, age), st.sampled_from([100.0, 50.0, 109.0, 89.0]), st.sampled_from([0.01, 0.01, 0.01, 0.3, 0.0]), st.sampled_from([0, 0, 0, 6]))
rows = st.lists(st.tuples(st.sampled_from(SYMBOLS), st.sampled_from([Side.BUY, Side.BUY, Side.SELL]), st.sampled_from([Decimal(n) for n in (1, 30, 60, 83, 99, 100, 200)] + [Decimal("1.5")])), max_size=14)
odd = st.sampled_from([{}, {}, {}, {"entries_today": 47}, {"entries_today": None}, {"breaker_state": BreakerState.HALTED}, {"entries_paused": True}, {"killed": True}, {"equity": math.nan}, {"consecutive_losses": 5, "losses_acknowledged": True}])


def plan_of(wanted, decided=100.0):
    "Sales are exits, purchases entries; the same wish has the same id."
    return [replace(BUY if side is Side.BUY else SELL, intent_id=f"{symbol}{side}", symbol=symbol, quantity=shares, reference_price=decided, sector=SECTORS.get(symbol, "UNKNOWN")) for symbol, side, shares in wanted]


@example(wanted=[("S0", Side.BUY, Decimal(1))], seen={}, held={}, common={"entries_today": None}, unpaid=set())
@given(wanted=rows, seen=st.dictionaries(st.sampled_from(SYMBOLS), quotes), held=st.dictionaries(st.sampled_from(SYMBOLS), st.sampled_from([0.0, 4_000.0, 5_000.0, math.nan])), common=odd, unpaid=st.sets(st.sampled_from(SYMBOLS), max_size=1))
def test_a_plan_is_decided_at_once_as_it_is_one_by_one(wanted, seen, held, common, unpaid):
    book = {s: Quote(s, 99.99, 100.01, NOW) for s in SYMBOLS} | {s: Quote(s, bid, ask, NOW - timedelta(seconds=age)) for s, (bid, ask, age) in seen.items()}
    batch = Batch(replace(CALM, quote=None, **common), book, held, SECTORS, {s: Decimal(100) for s in held}, frozenset(unpaid))
    plan = plan_of(wanted)
    for quick, slow in zip(decide_all(batch, plan, LIMITS), decide_each(batch, plan, LIMITS), strict=True):
        same(quick, slow)


@pytest.mark.parametrize("nudge", [-2e-9, -1e-12, -1e-16, 0.0, 1e-16, 1e-12, 2e-9])
@pytest.mark.parametrize("field", ["max_sector", "max_position"])
def test_a_limit_between_two_floats_is_decided_exactly(field, nudge):
    "Three purchases fill the sector, or one its name, to the limit and a hair more or less."
    plan = plan_of([("S0", Side.BUY, Decimal(60)), ("S3", Side.BUY, Decimal(60)), ("S6", Side.BUY, Decimal(60))])
    edge = (2 * 60 * 100.0 + 60 * 100.01) / 100_000 if field == "max_sector" else 60 * 100.01 / 100_000
    limits = replace(LIMITS, **{field: edge + nudge})
    batch = Batch(replace(CALM, quote=None), {s: Quote(s, 99.99, 100.01, NOW) for s in SYMBOLS}, {}, SECTORS)
    quick, slow = decide_all(batch, plan, limits), decide_each(batch, plan, limits)
    assert [d.reasons for d in quick] == [d.reasons for d in slow]
    assert quick[2].allowed is (nudge > -1e-11)


@pytest.mark.parametrize("strange", [{"bid": "99"}, {"ask": None}, {"bid": Decimal(99)}, {"at": None}, {"at": NOW.replace(tzinfo=None)}, {"symbol": "S1"}])
def test_a_quote_that_is_none_holds_back_its_own_order_alone(strange):
    book = {s: Quote(s, 99.99, 100.01, NOW) for s in SYMBOLS}
    batch = Batch(replace(CALM, quote=None), book | {"S0": replace(replace(QUOTE, symbol="S0"), **strange)}, {}, SECTORS)
    plan = plan_of([("S0", Side.BUY, Decimal(10)), ("S1", Side.BUY, Decimal(10))])
    if strange.get("bid") == Decimal(99):
        with pytest.raises(TypeError):  # no client makes one; it reaches nobody
            decide_all(batch, plan, LIMITS)
    else:
        assert [d.allowed for d in decide_all(batch, plan, LIMITS)] == [False, True]


def test_the_order_of_a_plan_decides_who_gets_the_room_that_is_left():
    "Each order sees what the ones before it took, and what a denied one did not take."
    wide = {"S3": Quote("S3", 99.0, 101.0, NOW)}
    batch = Batch(replace(CALM, quote=None, entries_today=47), {s: Quote(s, 99.99, 100.01, NOW) for s in SYMBOLS} | wide, {"S0": 6_000.0}, SECTORS, {"S0": Decimal(60)})
    wanted = [(s, Side.BUY, Decimal(90)) for s in ("S3", "S6", "S1", "S2", "S4")]
    assert [d.reasons for d in decide_all(batch, plan_of(wanted), RiskLimits())] == [("spread",), (), (), (), ("trade_count",)]
    first, then = plan_of([("S6", Side.BUY, Decimal(99)), ("S3", Side.BUY, Decimal(99))]), plan_of([("S0", Side.SELL, Decimal(60))])
    calm = replace(batch, quotes={s: Quote(s, 99.99, 100.01, NOW) for s in SYMBOLS})
    assert [d.allowed for d in decide_all(calm, [*first, *then], RiskLimits())] == [True, False, True]
    assert [d.allowed for d in decide_all(calm, [*then, *first], RiskLimits())] == [True, True, True]
