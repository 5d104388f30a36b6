"Every check just below, at and just beyond its limit, and with an input that is no number, for every purpose."

import math
from dataclasses import replace
from datetime import date, datetime, timedelta, UTC
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v23.domain import BreakerState, OrderIntent, Purpose, Quote, Side
from v23.risk.denial_codes import DENIALS, DenialCode
from v23.risk.pretrade_checks import ALWAYS, BELTS, NINE, PreTradeContext, evaluate
from v23.settings import RiskLimits

LIMITS = RiskLimits()
NOW = datetime(2026, 1, 23, 20, 0, tzinfo=UTC)
BUY = OrderIntent("i1", "V21", date(2026, 1, 23), "AAA", Side.BUY, Decimal(50), Purpose.ENTRY, 100.0, sector="Energy")
SELL = replace(BUY, side=Side.SELL, purpose=Purpose.EXIT)
QUOTE = Quote("AAA", 99.99, 100.01, NOW)
CALM = PreTradeContext(NOW, NOW - timedelta(hours=5), NOW + timedelta(minutes=55), 100_000.0, QUOTE, quantity_available=Decimal(50))
VALUE = 50 * 100.01
BAD_NUMBERS = [math.nan, math.inf, -math.inf, None, "5", Decimal("NaN")]


def spread(bps):
    "A quote around 100 dollars with this spread."
    return {"quote": Quote("AAA", 100 - bps / 200, 100 + bps / 200, NOW)}


def price(dollars):
    "A narrow quote around this price; the order was decided on 100."
    return {"quote": Quote("AAA", dollars * (1 - 1e-5), dollars * (1 + 1e-5), NOW)}


def age(seconds):
    "The same quote stamped this many seconds ago."
    return {"quote": replace(QUOTE, at=NOW - timedelta(seconds=seconds))}


def at(moment):
    "The same desk at another time, freshly quoted."
    return {"now": moment, "quote": replace(QUOTE, at=moment)}


second = timedelta(seconds=1)
EDGES = [  # (check, passes, fails)
    (DenialCode.BREAKER_STATE, {"breaker_state": BreakerState.REDUCED}, {"breaker_state": BreakerState.HALTED}),
    (DenialCode.BREAKER_STATE, {"breaker_state": BreakerState.WARNING}, {"breaker_state": BreakerState.EMERGENCY}),
    (DenialCode.BREAKER_STATE, {"entries_paused": False}, {"entries_paused": True}),
    (DenialCode.BREAKER_STATE, {"killed": False}, {"killed": True}),
    (DenialCode.POSITION_SIZE, {"position_value": 10_000 - VALUE}, {"position_value": 10_000 - VALUE + 0.01}),
    (DenialCode.POSITION_SIZE, {"position_value": 10_000 - VALUE - 0.01}, {"position_value": 20_000.0}),
    (DenialCode.DAILY_LOSS, {"daily_loss": -0.0499999}, {"daily_loss": -0.05}),
    (DenialCode.DAILY_LOSS, {"daily_loss": 0.03}, {"daily_loss": 95_000 / 100_000 - 1}),
    (DenialCode.TRADE_COUNT, {"entries_today": 49}, {"entries_today": 50}),
    (DenialCode.CONSECUTIVE_LOSSES, {"consecutive_losses": 4}, {"consecutive_losses": 5}),
    (DenialCode.CONSECUTIVE_LOSSES, {"consecutive_losses": 5, "losses_acknowledged": True}, {"consecutive_losses": 6}),
    (DenialCode.SPREAD, spread(50), spread(50.01)),
    (DenialCode.SPREAD, spread(49.99), spread(400)),
    (DenialCode.SPREAD, age(5), age(5.001)),
    (DenialCode.SPREAD, age(-5), age(-5.001)),
    (DenialCode.SECTOR, {"sector_value": 25_000 - VALUE}, {"sector_value": 25_000 - VALUE + 0.01}),
    (DenialCode.MARKET_HOURS, at(CALM.window_start), at(CALM.window_start - second)),
    (DenialCode.MARKET_HOURS, at(CALM.window_end), at(CALM.window_end + second)),
    (DenialCode.ERRORS, {"execution_errors": 2}, {"execution_errors": 3}),
    (DenialCode.ERRORS, {"api_errors": 4}, {"api_errors": 5}),
    (DenialCode.PRICE_COLLAR, price(110.0), price(110.0 * (1 + 1e-9))),
    (DenialCode.PRICE_COLLAR, price(90.0), price(90.0 * (1 - 1e-9))),
    (DenialCode.THROTTLE, {"orders_last_minute": 99}, {"orders_last_minute": 100}),
    (DenialCode.REPEATED, {"times_sent": 11}, {"times_sent": 12}),
]
BROKEN = [
    *((DenialCode.POSITION_SIZE, {"equity": bad}) for bad in (*BAD_NUMBERS, 0.0, -1.0)),
    *((DenialCode.SECTOR, {"equity": bad}) for bad in (*BAD_NUMBERS, 0.0, -1.0)),
    *((DenialCode.POSITION_SIZE, {"position_value": bad}) for bad in BAD_NUMBERS),
    *((DenialCode.SECTOR, {"sector_value": bad}) for bad in BAD_NUMBERS),
    *((DenialCode.DAILY_LOSS, {"daily_loss": bad}) for bad in BAD_NUMBERS),
    *((DenialCode.TRADE_COUNT, {"entries_today": bad}) for bad in BAD_NUMBERS),
    *((DenialCode.CONSECUTIVE_LOSSES, {"consecutive_losses": bad}) for bad in BAD_NUMBERS),
    *((DenialCode.CONSECUTIVE_LOSSES, {"consecutive_losses": bad, "losses_acknowledged": True}) for bad in BAD_NUMBERS),
    *((DenialCode.ERRORS, {"execution_errors": bad}) for bad in BAD_NUMBERS if bad != -math.inf),
    *((DenialCode.ERRORS, {"api_errors": bad}) for bad in BAD_NUMBERS if bad != -math.inf),
    *((DenialCode.THROTTLE, {"orders_last_minute": bad}) for bad in BAD_NUMBERS),
    *((DenialCode.REPEATED, {"times_sent": bad}) for bad in BAD_NUMBERS),
    *((DenialCode.PRICE_COLLAR, {"quote": q}) for q in (None, replace(QUOTE, bid=math.nan), replace(QUOTE, bid=0.0))),
    *((DenialCode.SPREAD, {"quote": q}) for q in (None, replace(QUOTE, at=None), replace(QUOTE, at=NOW.replace(tzinfo=None)))),
    *((DenialCode.SPREAD, {"quote": replace(QUOTE, bid=b, ask=a)}) for b, a in ((math.nan, 100), (100, math.nan), (0, 1), (-1, 1), (100, 100), (101, 100), (100, math.inf))),
    *((DenialCode.BREAKER_STATE, {name: None}) for name in ("breaker_state", "entries_paused", "killed")),
    *((DenialCode.MARKET_HOURS, {name: bad}) for name in ("now", "window_start", "window_end") for bad in (None, NOW.replace(tzinfo=None))),
]
ALWAYS_BROKEN = [
    (DenialCode.DUPLICATE, {}, {"already_sent": True}),
    (DenialCode.DUPLICATE, {}, {"already_sent": None}),
    (DenialCode.DUPLICATE, {}, {"opposite_live": True}),
    (DenialCode.SYMBOL, {}, {"tradable": False}),
    (DenialCode.SYMBOL, {}, {"tradable": None}),
    (DenialCode.SYMBOL, {}, {"quote": replace(QUOTE, symbol="BBB")}),
    *((DenialCode.SYMBOL, {"symbol": s}, {}) for s in ("", "aaa", "1A", "A" * 11, "<img>", "A A", "../A", "AAA\n")),
    *((DenialCode.QUANTITY, {"quantity": q}, {}) for q in (Decimal(0), Decimal(-1), Decimal("NaN"), Decimal("Infinity"), None, 5.0)),
    (DenialCode.QUANTITY, {"side": Side.SELL}, {"quantity_available": Decimal(49)}),
    *((DenialCode.QUANTITY, {"side": Side.SELL}, {"quantity_available": q}) for q in (None, Decimal("NaN"), math.nan)),
]


def reasons(intent, context):
    return evaluate(intent, context, LIMITS).reasons


def test_a_calm_desk_allows_everything():
    for intent in (BUY, SELL, replace(SELL, purpose=Purpose.KILL)):
        assert reasons(intent, CALM) == ()


def test_the_nine_are_asked_in_the_documents_order_and_all_answers_are_kept():
    wanted = ["breaker_state", "position_size", "daily_loss", "trade_count", "consecutive_losses", "spread", "sector_concentration", "market_hours", "error_limits"]
    then = ["quantity", "duplicate", "symbol", "price_collar", "throttle", "repeated_orders"]
    checks = evaluate(BUY, replace(CALM, equity=math.nan, breaker_state=BreakerState.EMERGENCY), LIMITS).checks
    assert [c.name for c in checks] == wanted + then and (len(NINE), len(ALWAYS), len(BELTS)) == (9, 3, 3)
    assert all(c.detail for c in checks)


@pytest.mark.parametrize(("code", "passes", "fails"), EDGES)
def test_an_entry_is_denied_at_the_limit_and_by_that_check_alone(code, passes, fails):
    assert reasons(BUY, replace(CALM, **passes)) == ()
    assert reasons(BUY, replace(CALM, **fails)) == (code.value,)


@pytest.mark.parametrize(("code", "broken"), BROKEN)
def test_an_input_that_cannot_be_read_denies_an_entry(code, broken):
    assert code.value in reasons(BUY, replace(CALM, **broken))


@pytest.mark.parametrize("changes", [*(fails for _, _, fails in EDGES), *(broken for _, broken in BROKEN)])
def test_no_limit_on_entries_holds_back_an_exit_or_a_kill(changes):
    context = replace(CALM, **changes)
    hours = ("market_hours",) if "market_hours" in reasons(BUY, context) else ()
    assert reasons(SELL, context) == hours
    assert reasons(replace(SELL, purpose=Purpose.KILL), context) == ()


@pytest.mark.parametrize(("code", "intent", "context"), ALWAYS_BROKEN)
@pytest.mark.parametrize("purpose", list(Purpose))
def test_quantity_duplicate_and_symbol_bind_for_every_purpose(code, intent, context, purpose):
    assert code.value in reasons(replace(BUY, **({"purpose": purpose} | intent)), replace(CALM, **context))


def test_an_entry_buys_whole_shares_and_an_exit_may_sell_a_fraction():
    assert reasons(replace(BUY, quantity=Decimal("1.5")), CALM) == ("quantity",)
    assert reasons(replace(SELL, quantity=Decimal("0.0003")), CALM) == ()


# Nine checks, six states of the desk, three purposes


STATES = {**{state.name: {"breaker_state": state} for state in BreakerState}, "KILLED": {"killed": True, "entries_paused": True, "breaker_state": BreakerState.EMERGENCY}}


@pytest.mark.parametrize("purpose", list(Purpose))
@pytest.mark.parametrize("state", list(STATES))
@pytest.mark.parametrize("code", list(DenialCode)[:9])
@pytest.mark.parametrize("failing", [False, True])
def test_nine_checks_in_six_states_for_three_purposes(code, state, purpose, failing):
    "Each check passing and failing: an entry needs all nine and a state below HALTED, an exit the hours, a kill nothing."
    passes, fails = next((p, f) for c, p, f in EDGES if c is code)
    changes = (fails if failing else passes) | STATES[state]
    if code is DenialCode.BREAKER_STATE:
        changes = STATES[state] | ({"entries_paused": True} if failing else {})
    intent = BUY if purpose is Purpose.ENTRY else replace(SELL, purpose=purpose)
    stopped = STATES[state].get("breaker_state") in (BreakerState.HALTED, BreakerState.EMERGENCY)
    expected = {DenialCode.BREAKER_STATE.value} if stopped else set()
    expected |= {code.value} if failing else set()
    if purpose is not Purpose.ENTRY:
        expected &= {DenialCode.MARKET_HOURS.value} if purpose is Purpose.EXIT else set()
    decided = evaluate(intent, replace(CALM, **changes), LIMITS)
    assert set(decided.reasons) == expected and decided.allowed is not bool(expected)
    assert len(decided.checks) == 15 and all(DENIALS[DenialCode(c.name)].binds.count(purpose) == c.binding for c in decided.checks)


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.none() | st.integers(-(10**400), 10**400)


@given(equity=numbers, position=numbers, sector=numbers, today=numbers, bid=st.floats(), ask=st.floats())
def test_whatever_the_numbers_a_check_answers_and_an_allowed_entry_is_within_every_limit(equity, position, sector, today, bid, ask):
    context = replace(CALM, equity=equity, position_value=position, sector_value=sector, daily_loss=today, quote=Quote("AAA", bid, ask, NOW))
    if reasons(BUY, context) == ():
        assert 0 < bid < ask < math.inf and (ask - bid) / (ask + bid) * 2e4 <= 50 * (1 + 1e-9)
        assert float(position) + 50 * ask <= 0.10 * float(equity) * (1 + 1e-9)
        assert float(sector) + 50 * ask <= 0.25 * float(equity) * (1 + 1e-9)
        assert today > -0.05
