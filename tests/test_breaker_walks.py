"Breakers on random walks: what a loss sets, only time, recovery or a person lifts, and a lifted limit is not forgotten."

import math
from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v23.adapters.clocks import StillClock
from v23.adapters.ledger import Ledger
from v23.circuit_breakers import CircuitBreakerManager
from v23.domain import BreakerState
from v23.errors import InputError
from v23.market_calendar import NEW_YORK, sessions_between
from v23.risk.breaker_rules import BY_NAME, LossReading, breaker_state, entries_stopped, next_latches
from v23.settings import RiskLimits

LIMITS = RiskLimits()
SESSIONS = sessions_between(date(2026, 1, 5), date(2026, 4, 30))
NOON = datetime(2026, 1, 5, 12, tzinfo=NEW_YORK)
CALM = LossReading(SESSIONS[0], NOON, 100.0, 100.0, 100.0, 100.0)
LEVELS = {"daily_loss": -0.05, "weekly_loss": -0.10, "drawdown_reduce": -0.10, "drawdown_halt": -0.15, "drawdown_emergency": -0.20}


def walk(equities, per_day=3):
    "Readings along a path: day and week starts and the peak as a record would give them."
    closes, peak = [100.0], 100.0
    for n, equity in enumerate(equities):
        day = SESSIONS[n // per_day]
        before = [c for c, s in zip(closes[1:], SESSIONS, strict=False) if s < day - timedelta(days=day.weekday())]
        now = datetime(day.year, day.month, day.day, 10 + n % per_day, tzinfo=NEW_YORK)
        yield LossReading(day, now, equity, closes[-1], before[-1] if before else 100.0, peak)
        if n % per_day == per_day - 1:
            closes.append(equity)
            peak = max(peak, equity)


paths = st.lists(st.floats(-0.06, 0.05), min_size=3, max_size=90).map(lambda steps: [100 * math.exp(sum(steps[: k + 1])) for k in range(len(steps))])


@given(paths)
def test_on_any_path_a_limit_that_is_passed_is_latched_and_stays_until_it_may_go(path):
    latches = ()
    for reading in walk(path):
        before = {x.name: x for x in latches}
        latches = next_latches(latches, reading, LIMITS)
        now = {x.name: x for x in latches}
        for name, limit in LEVELS.items():
            if getattr(reading, BY_NAME[name].reading) <= limit:
                assert name in now
        for name in before.keys() - now.keys():
            assert name in ("daily_loss", "drawdown_reduce")
            assert reading.session > before[name].session if name == "daily_loss" else reading.drawdown >= -0.08 - 1e-9
        assert all(now[name] == before[name] for name in before.keys() & now.keys() if now[name].set_at == before[name].set_at)
        assert breaker_state(latches, reading, LIMITS) >= max([x.state for x in latches], default=BreakerState.NORMAL)
        assert entries_stopped(latches) == any(x.state >= BreakerState.HALTED for x in latches)


@given(paths, st.data())
def test_the_state_after_a_restart_is_the_state_before_it(path, data):
    clock = StillClock(NOON)
    ledger = Ledger(":memory:", clock)
    breakers = CircuitBreakerManager(ledger, LIMITS, clock)
    for reading in walk(path):
        clock.at = reading.now
        breakers.update(reading)
        if breakers.latches and data.draw(st.integers(0, 9)) == 0:
            name = data.draw(st.sampled_from([x.name for x in breakers.latches]))
            if BY_NAME[name].release == "manual":
                breakers.acknowledge(name, "Ada", "looked")
        again = CircuitBreakerManager(ledger, LIMITS, clock)
        again.reading = breakers.reading
        assert again.latches == breakers.latches and again.get_status() == breakers.get_status()
        assert again.reentry == breakers.reentry and again.lifted == breakers.lifted


@given(st.lists(st.sampled_from(["equity", "day_start", "week_start", "peak"]), min_size=1), st.sampled_from([None, math.nan, math.inf, 0.0, -1.0]))
def test_what_cannot_be_read_stops_entries_and_never_liquidates(fields, bad):
    latches = next_latches((), replace(CALM, **dict.fromkeys(fields, bad)), LIMITS)
    assert [x.name for x in latches] == ["equity_invalid"] and entries_stopped(latches)
    assert next_latches(latches, CALM, LIMITS) == ()


@pytest.mark.parametrize("name", list(LEVELS))
def test_a_loss_trips_at_its_limit_and_warns_at_four_fifths_of_it(name):
    limit, reading = LEVELS[name], BY_NAME[name].reading
    field = {"daily": "day_start", "weekly": "week_start", "drawdown": "peak"}[reading]
    for value, trips in ((limit + 1e-6, False), (limit, True), (limit - 1e-6, True)):
        r = replace(CALM, **{field: 100 / (1 + value)})
        assert (name in {x.name for x in next_latches((), r, LIMITS)}) is trips
    warned = replace(CALM, **{field: 100 / (1 + 0.8 * limit)})
    if name not in ("drawdown_halt", "drawdown_emergency"):  # 80 % of these is past the first limit
        assert next_latches((), warned, LIMITS) == () and breaker_state((), warned, LIMITS) is BreakerState.WARNING


@pytest.fixture
def desk():
    "Breakers over a ledger, their clock, and a way to read an equity."
    clock = StillClock(NOON)
    ledger = Ledger(":memory:", clock)

    def read(equity, **changes):
        "A new process reads the account once."
        breakers = CircuitBreakerManager(ledger, LIMITS, clock)
        breakers.update(replace(CALM, session=clock.at.date(), now=clock.at, equity=equity, day_start=equity, **changes))
        return breakers

    return clock, read


def names(breakers):
    return [x.name for x in breakers.latches]


def test_an_acknowledged_loss_halts_again_in_another_month(desk):
    clock, read = desk
    breakers = read(84.0)
    for name in ("weekly_loss", "drawdown_halt"):
        breakers.acknowledge(name, "Ada", "looked at the fills")
    assert names(read(84.0)) == ["drawdown_reduce"] and names(read(83.0)) == ["drawdown_reduce"]
    clock.at += timedelta(days=28)
    assert names(read(100.0)) == []
    clock.at += timedelta(days=1)
    assert names(read(84.5)) == ["weekly_loss", "drawdown_reduce", "drawdown_halt"]


def test_an_acknowledged_loss_halts_again_when_it_is_two_points_deeper(desk):
    _, read = desk
    read(84.0).acknowledge("drawdown_halt", "Ada", "looked")
    assert "drawdown_halt" not in names(read(82.1))
    assert "drawdown_halt" in names(read(82.0))


def test_a_weekly_loss_of_the_next_week_is_a_new_one(desk):
    clock, read = desk
    read(88.0).acknowledge("weekly_loss", "Ada", "looked")
    assert "weekly_loss" not in names(read(88.0))
    clock.at += timedelta(days=7)
    assert "weekly_loss" in names(read(89.0))


def test_every_streak_of_losses_pauses_once_also_after_a_restart(desk):
    clock, read = desk
    for _ in range(2):
        assert names(read(100.0, consecutive_losses=5)) == ["consecutive_losses"]
        clock.at += timedelta(days=3)
        over = read(100.0, consecutive_losses=5)
        assert names(over) == [] and over.losses_acknowledged(5) and not over.losses_acknowledged(6)
        ended = read(100.0, consecutive_losses=0)
        assert not ended.losses_acknowledged(5)


def test_errors_a_person_has_looked_at_count_from_there(desk):
    clock, read = desk
    breakers = read(100.0, execution_errors=3)
    breakers.acknowledge("execution_errors", "Ada", "the symbol was halted")
    assert breakers.errors_since_acknowledged("execution", 3) == 0
    assert names(read(100.0, execution_errors=3)) == [] and names(read(100.0, execution_errors=4)) == ["execution_errors"]
    clock.at += timedelta(days=1)
    later = read(100.0, execution_errors=3)
    assert names(later) == ["execution_errors"] and later.errors_since_acknowledged("execution", 3) == 3


def test_errors_of_yesterday_hold_until_the_books_agree(desk):
    clock, read = desk
    assert names(read(100.0, api_errors=5)) == ["api_errors"]
    clock.at += timedelta(days=1)
    assert names(read(100.0, reconciled=False)) == ["api_errors"]
    assert names(read(100.0)) == []


def test_after_a_lifted_halt_trading_comes_back_at_a_quarter_until_the_drawdown_is_mended(desk):
    _, read = desk
    breakers = read(79.0)
    assert breakers.state is BreakerState.EMERGENCY and not breakers.reentry
    for name in ("weekly_loss", "drawdown_halt", "drawdown_emergency"):
        breakers.acknowledge(name, "Ada", "flat, reviewed")
    for equity, reentry, reduced in ((79.0, True, True), (86.0, True, True), (90.0, True, True), (90.1, False, True), (91.9, False, True), (92.0, False, False), (86.0, False, True)):
        again = read(equity, week_start=equity)
        assert (again.reentry, again.reduced) == (reentry, reduced), equity


@pytest.mark.parametrize(("reading", "name"), [({"equity": 94.0}, "daily_loss"), ({"consecutive_losses": 5}, "consecutive_losses"), ({"peak": 112.0}, "drawdown_reduce"), ({"equity": None}, "equity_invalid")])
def test_what_ends_by_itself_is_not_lifted_by_hand(reading, name):
    clock = StillClock(NOON)
    breakers = CircuitBreakerManager(Ledger(":memory:", clock), LIMITS, clock)
    breakers.update(replace(CALM, **reading))
    with pytest.raises(InputError, match="ends by itself"):
        breakers.acknowledge(name, "Ada", "please")
