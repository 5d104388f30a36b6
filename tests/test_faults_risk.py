"""Faults of the risk layer, each with its id: equities nobody can read, lost peaks, splits, pauses over a weekend, counters.

Where the desk matters, the whole of it runs over the official client on the simulated exchange.
"""

import itertools
import math
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone, UTC
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_books import DAY, A, B, codes, decision, exchange, opened, trade, until_tomorrow

from v23.accounting import consecutive_losses, round_trips, trades_by_session
from v23.adapters.clocks import StillClock
from v23.adapters.ledger import Ledger
from v23.circuit_breakers import CircuitBreakerManager
from v23.domain import BreakerState, Fill, OrderState, Purpose, Side
from v23.errors import InputError, OwnedError
from v23.market_calendar import NEW_YORK, next_session, previous_session, session_hours, session_of
from v23.risk.breaker_rules import LossReading, breaker_state, confirm, entries_stopped, needs_second_reading, next_latches
from v23.settings import RiskLimits
from v23.simulator.market import Split
from v23.sizing.multipliers import drawdown_multiplier
from v23.trading_desk import entries_today, losing_streak, session_errors

LIMITS = RiskLimits()
NOON = datetime(2026, 1, 20, 12, tzinfo=NEW_YORK)
OTHER = "XAAE"  # Not of the sector of A and B
CALM = LossReading(DAY, NOON, 100.0, 100.0, 100.0, 100.0)


def names(breakers):
    return {x.name for x in breakers.latches}


def closed_at(ledger, session, equity, positions=(), flow=0.0):
    "The record of a session's close."
    ledger.record("session_closed", {"session": session, "equity": Decimal(equity), "cash": Decimal(equity), "buying_power": Decimal(equity), "gross_exposure": 0.0, "flow": flow, "positions": dict(positions)})


# F34: splits


def share(ratio, **terms):
    return {"events": (Split(A, next_session(DAY), ratio),), **terms}


@pytest.mark.parametrize("ratio", [Decimal(10), Decimal("0.1")])
def test_F34_shares_that_arrive_late_sell_nothing_and_ask_a_person(ratio, tmp_path):
    tomorrow = next_session(DAY)
    with exchange(tmp_path, **share(ratio, split_lag_s=9 * 3600)) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        price = desk.broker.quotes([A])[A].ask
        trade(desk, A, int(9_000 / price))
        desk.market_close()
        until_tomorrow(desk)
        desk.market_open()
        raw = float(desk.broker.account().equity) / 100_000 - 1
        assert raw < -0.05 if ratio > 1 else raw > 0.5  # what the account says of it
        assert abs(desk.breakers.reading.daily) < 0.02 and not desk.kill.is_active
        assert not decision(desk, A).allowed and codes(desk).count("SPLIT_SUSPECT") == 1
        asked = names(desk.breakers)
        assert asked == ({"split_suspect"} if ratio > 1 else set()) and decision(desk, OTHER).allowed is not bool(asked)
        desk.wait_until(session_hours(tomorrow).open + timedelta(hours=4))
        desk.look(tomorrow)
        assert desk.gate.frozen == frozenset() and abs(desk.breakers.reading.daily) < 0.02 and desk.breakers.reading.split_suspect == 0
        assert names(desk.breakers) == asked  # a person still has to say that this was one
        if asked:
            desk.breakers.acknowledge("split_suspect", "Ada", "the exchange lists it")
            desk.look(tomorrow)
        assert decision(desk, OTHER).allowed


def frozen_desk(desk, fall, rest):
    "A held name falls to a share of its price, and the account by that and by `rest` dollars."
    positions, account = desk.broker.positions, desk.broker.account
    desk.broker.positions = lambda: tuple(replace(p, current_price=p.current_price * Decimal(str(fall))) for p in positions())
    lost = sum(float(p.market_value) * (1 - fall) for p in positions()) + rest
    desk.broker.account = lambda: replace(account(), equity=account().equity - Decimal(str(round(lost, 2))))


@pytest.mark.parametrize(("rest", "trips"), [(0.0, {"split_suspect"}), (6_000.0, {"daily_loss"}), (21_500.0, {"drawdown_emergency"})])
def test_F34_the_loss_without_the_suspect_still_trips(rest, trips, tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, int(9_900 / desk.broker.quotes([A])[A].ask))
        desk.market_close()
        until_tomorrow(desk)
        frozen_desk(desk, 0.1, rest)
        desk.market_open()
        assert trips <= names(desk.breakers) and desk.kill.is_active is (rest > 20_000)


def test_F34_a_person_may_say_that_the_fall_is_real(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, int(9_900 / desk.broker.quotes([A])[A].ask))
        desk.market_close()
        until_tomorrow(desk)
        frozen_desk(desk, 0.1, 0.0)
        desk.market_open()
        assert "daily_loss" not in names(desk.breakers)
        with pytest.raises(InputError, match="name of the person"):
            desk.breakers.judge_split(A, False, "", "fraud")
        desk.breakers.judge_split(A, False, "Ada", "fraud, trading resumed at a tenth")
        desk.look(desk.session())
        assert "daily_loss" in names(desk.breakers) and desk.gate.frozen == frozenset()


# F65 to F71: what the breakers read, and when they let go


@given(st.dictionaries(st.sampled_from(["equity", "day_start", "week_start", "peak"]), st.sampled_from([None, math.nan, math.inf, -math.inf, 0.0, -5.0]), min_size=1))
def test_F65_an_equity_that_cannot_be_read_stops_entries_and_never_sells(bad):
    reading = replace(CALM, **bad)
    latches = next_latches((), reading, LIMITS)
    assert [x.name for x in latches] == ["equity_invalid"] and entries_stopped(latches)
    assert breaker_state(latches, reading, LIMITS) is BreakerState.HALTED and not needs_second_reading(reading, LIMITS)


@pytest.mark.parametrize("equity", [Decimal(0), Decimal(-5), Decimal("NaN"), Decimal("Infinity")])
def test_F65_a_desk_with_an_unreadable_account_buys_nothing_and_keeps_what_it_holds(equity, tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        account = desk.broker.account
        desk.broker.account = lambda: replace(account(), equity=equity)
        desk.look(DAY)
        assert "equity_invalid" in names(desk.breakers) and not desk.kill.is_active and desk.booked_positions() == {A: 10}
        assert not decision(desk, B).allowed and decision(desk, A, 10, Purpose.EXIT).allowed
        desk.broker.account = account
        desk.look(DAY)
        assert decision(desk, B).allowed


def test_F65_an_emergency_needs_two_readings_ten_seconds_apart(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        account, asked = desk.broker.account, []
        desk.broker.account = lambda: asked.append(desk.clock.now()) or replace(account(), equity=Decimal(79_000))
        desk.look(DAY)
        assert desk.breakers.state is BreakerState.EMERGENCY and (asked[1] - asked[0]).total_seconds() >= 10
    low = replace(CALM, equity=79.0)
    for seconds, equity, confirmed in ((10, 79.0, True), (9.99, 79.0, False), (60, 80.5, False), (60, math.nan, False)):
        assert confirm(low, replace(low, now=NOON + timedelta(seconds=seconds), equity=equity), LIMITS).confirmed is confirmed


def test_F67_a_day_begins_at_new_yorks_midnight_whatever_the_hosts_zone_and_a_restart(tmp_path):
    clock = StillClock(NOON)
    ledger = Ledger(":memory:", clock)
    evening = datetime(2026, 1, 20, 23, 59, tzinfo=NEW_YORK)
    for zone in (UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))):
        assert [session_of((evening + timedelta(minutes=m)).astimezone(zone)) for m in (0, 1)] == [DAY, DAY + timedelta(days=1)]
    halted = replace(CALM, equity=94.0)
    for at in (NOON, evening, evening + timedelta(minutes=2), datetime(2026, 1, 21, 9, 29, tzinfo=NEW_YORK)):
        clock.at = at.astimezone(UTC)
        breakers = CircuitBreakerManager(ledger, LIMITS, clock)  # a new process each time
        breakers.update(replace(halted, now=clock.at))
        assert names(breakers) == {"daily_loss"}
    clock.at = datetime(2026, 1, 21, 9, 30, tzinfo=NEW_YORK)
    breakers.update(replace(CALM, session=date(2026, 1, 21), now=clock.at))
    assert names(breakers) == set()


def test_F67_the_days_start_is_the_last_recorded_close_also_over_midnight(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        closed_at(desk.ledger, previous_session(DAY), 101_000)
        desk.market_open()
        assert desk.breakers.reading.day_start == 101_000
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.look(DAY)
        assert desk.breakers.reading.day_start == 101_000


def test_F68_a_new_week_does_not_lift_a_halt_that_waits_for_a_person():
    clock = StillClock(NOON)
    ledger = Ledger(":memory:", clock)
    breakers = CircuitBreakerManager(ledger, LIMITS, clock)
    breakers.update(replace(CALM, equity=88.0, day_start=88.0, peak=88.0))
    assert names(breakers) == {"weekly_loss"}
    for days in (6, 7, 13, 35):
        clock.at = NOON + timedelta(days=days)
        again = CircuitBreakerManager(ledger, LIMITS, clock)
        again.update(replace(CALM, session=clock.at.date(), now=clock.at))
        assert names(again) == {"weekly_loss"} and not again.get_status()["entries_allowed"]
    again.acknowledge("weekly_loss", "Ada", "reviewed")
    assert CircuitBreakerManager(ledger, LIMITS, clock).latches == ()


def test_F69_a_deleted_snapshot_loses_no_peak_and_a_deleted_ledger_buys_nothing(tmp_path):
    with exchange(tmp_path) as host:
        with opened(tmp_path, host) as desk:
            closed_at(desk.ledger, previous_session(DAY), 115_000)
            desk.market_open()
            assert "drawdown_reduce" in names(desk.breakers) and desk.breakers.reading.peak == 115_000
        (tmp_path / "state" / "circuit_breakers" / "circuit_breaker_state.json").unlink()
        with opened(tmp_path, host) as desk:
            desk.look(DAY)
            assert desk.breakers.reading.peak == 115_000 and desk.breakers.reduced
        for file in (tmp_path / "state" / "execution").glob("ledger*"):
            file.unlink()
        with opened(tmp_path, host) as desk:
            desk.ready(DAY)
            desk.look(DAY)
            assert "deleted" in "; ".join(desk.gate.pauses()) and not decision(desk, B).allowed


def test_F70_a_drawdown_that_swings_around_its_limit_changes_size_once():
    clock = StillClock(NOON)
    ledger = Ledger(":memory:", clock)
    sizes, told = [], []
    for n in range(120):
        drawdown = -0.10 + 0.015 * math.sin(n / 5) - 1e-6
        clock.at = NOON + timedelta(minutes=n)
        breakers = CircuitBreakerManager(ledger, LIMITS, clock)
        breakers.update(replace(CALM, now=clock.at, peak=100 / (1 + drawdown)))
        sizes.append(drawdown_multiplier(drawdown, LIMITS, reduced=breakers.reduced).value)
        told = [e.body for e in ledger.events("latch")]
    assert sizes[0] == 0.5 and set(sizes) == {0.5} and len(told) == 1
    breakers.update(replace(CALM, now=clock.at, peak=100 / 0.9201))
    assert breakers.reduced is False and len(list(ledger.events("latch"))) == 2


@pytest.mark.parametrize("name", ["daily_loss", "weekly_loss", "drawdown_emergency", "consecutive_losses", "execution_errors", "api_errors", "equity_invalid", "split_suspect", "repeated_orders"])
def test_F71_no_breaker_keeps_anybody_from_getting_out(name, tmp_path):
    trip = {
        "daily_loss": {"equity": 94_000.0}, "weekly_loss": {"equity": 89_000.0}, "drawdown_emergency": {"equity": 79_000.0}, "equity_invalid": {"equity": None},
        "consecutive_losses": {"consecutive_losses": 5}, "execution_errors": {"execution_errors": 3}, "api_errors": {"api_errors": 5}, "split_suspect": {"split_suspect": 1},
        "repeated_orders": {"repeated_orders": 12},
    }  # fmt: skip
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        desk.breakers.update(replace(desk.breakers.reading, **trip[name]))
        assert name in names(desk.breakers) and not decision(desk, B).allowed
        assert decision(desk, A, 10, Purpose.EXIT).allowed and decision(desk, A, 10, Purpose.KILL).allowed
        trade(desk, A, 10, Purpose.EXIT)
        assert desk.booked_positions() == {}


# F78 to F81: pauses, streaks, counters, and the way back


@pytest.mark.parametrize(
    ("at", "until"),
    [
        (datetime(2026, 1, 23, 15, 45, tzinfo=NEW_YORK), datetime(2026, 1, 26, 15, 45, tzinfo=NEW_YORK)),  # Friday to Monday
        (datetime(2026, 1, 20, 10, 0, tzinfo=NEW_YORK), datetime(2026, 1, 21, 10, 0, tzinfo=NEW_YORK)),
        (datetime(2026, 3, 6, 15, 45, tzinfo=NEW_YORK), datetime(2026, 3, 9, 15, 45, tzinfo=NEW_YORK)),  # The clocks change
        (datetime(2025, 11, 26, 12, 0, tzinfo=NEW_YORK), datetime(2025, 11, 28, 12, 0, tzinfo=NEW_YORK)),  # Thanksgiving
    ],
)  # fmt: skip
def test_F78_a_pause_for_five_losses_lasts_into_the_next_session(at, until):
    five = replace(CALM, session=at.date(), now=at, consecutive_losses=5)
    latches = next_latches((), five, LIMITS)
    assert latches[0].until == until and (until - at) >= timedelta(hours=24)
    for moment, held in ((until - timedelta(seconds=1), 1), (until, 0)):
        assert len(next_latches(latches, replace(five, session=moment.date(), now=moment), LIMITS)) == held


def fill(n, symbol, side, price, minute):
    return Fill(f"x{n}", f"o{n}", f"c{n}", symbol, side, Decimal(10), Decimal(str(price)), NOON + timedelta(minutes=minute))


def test_F79_a_streak_is_counted_by_the_time_of_the_fill_then_the_symbol():
    bought = [fill(n, s, Side.BUY, 10, n) for n, s in enumerate("ABCDE")]
    sold = [fill(10 + n, s, Side.SELL, p, m) for n, (s, p, m) in enumerate((("A", 9, 60), ("B", 11, 61), ("C", 9, 62), ("D", 9, 62), ("E", 10, 62)))]
    counted = set()
    for order in itertools.permutations(sold):
        trips = trades_by_session(round_trips([*bought, *order]), session_of)
        counted.add((tuple(t[1] for t in trips), consecutive_losses([pnl for _, _, pnl, _ in trips])))
    ((symbols, streak),) = counted
    assert symbols == ("A", "B", "C", "D", "E") and streak == 2  # a trade at no profit neither breaks a streak nor adds to it


def test_F80_counters_are_the_ledgers_however_often_a_desk_is_started(tmp_path):
    with exchange(tmp_path) as host:
        with opened(tmp_path, host) as desk:
            desk.market_open()
            trade(desk, A, 10)
            trade(desk, B, 10)
            for n in range(4):
                desk.engine.wire.error("api", "TEST", f"failure {n}")
            want = (entries_today(desk.ledger, DAY), session_errors(desk.ledger, DAY), losing_streak(desk.ledger))
            assert want[0] == 2 and want[1]["api"] >= 4
        for _ in range(10):
            with opened(tmp_path, host) as desk:
                assert (entries_today(desk.ledger, DAY), session_errors(desk.ledger, DAY), losing_streak(desk.ledger)) == want
                desk.look(DAY)
        with opened(tmp_path, host) as desk:
            desk.engine.wire.error("api", "TEST", "the fifth")
            desk.ready(DAY)
            desk.look(DAY)
            assert "api_errors" in names(desk.breakers) and not decision(desk, B).allowed


def test_F81_an_emergency_is_left_by_a_rebased_peak_and_sizes_come_back_at_a_quarter(tmp_path):
    with exchange(tmp_path) as host:
        with opened(tmp_path, host) as desk:
            closed_at(desk.ledger, previous_session(DAY), 130_000)
            desk.market_open()
            desk.look(DAY)
            assert desk.breakers.state is BreakerState.EMERGENCY
            for words in (("", "why"), ("Ada", " ")):
                with pytest.raises(InputError, match="name of the person"):
                    desk.rebase_peak(*words)
            desk.reconcile(DAY)
            desk.kill.deactivate(f"CONFIRM-{DAY:%Y%m%d}", "Ada", still_held="nothing was held")
            desk.kill.resume("Ada", "reviewed")
            done = desk.rebase_peak("Ada", "reviewed, a smaller book")
            assert done["state"] == "HALTED" and done["old_peak"] == 130_000  # the day's and the week's losses are not forgiven
            assert names(desk.breakers) == {"daily_loss", "weekly_loss", "peak_rebased"}
            body = desk.ledger.last("peak_rebased").body
            assert (body["who"], body["why"], body["old_peak"]) == ("Ada", "reviewed, a smaller book", 130_000)
            desk.breakers.acknowledge("weekly_loss", "Ada", "reviewed")
            with pytest.raises(InputError, match="nothing to rebase"):
                desk.rebase_peak("Ada", "again")
            desk.market_close()
            until_tomorrow(desk)
        with opened(tmp_path, host) as desk:  # also after a restart
            desk.market_open()
            assert names(desk.breakers) == {"peak_rebased"} and desk.breakers.state is BreakerState.REDUCED and desk.breakers.get_status()["entries_allowed"]
            assert desk.breakers.reading.drawdown == pytest.approx(0.0, abs=1e-9) and desk.breakers.reading.since_old_peak < -0.2
            r = desk.breakers.reading
            assert desk.sizer.multipliers(r.drawdown, 20.0, 0, 0.25, desk.breakers.reentry, desk.breakers.reduced, desk.breakers.rebased).drawdown.value == 0.25
            account = desk.broker.account
            desk.broker.account = lambda: replace(account(), equity=Decimal(119_700))  # the old peak is within eight per cent
            desk.look(desk.session())
            assert names(desk.breakers) == set() and desk.breakers.reading.old_peak == 130_000
            desk.broker.account = account
            desk.look(desk.session())
            assert "peak_rebased" not in names(desk.breakers) and desk.breakers.reading.old_peak is None
    with pytest.raises(OwnedError):
        CircuitBreakerManager(limits=LIMITS, state_dir=tmp_path / "state").rebase_peak("Ada", "outside")


def test_F81_a_rebased_peak_moves_with_deposits(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        closed_at(desk.ledger, previous_session(DAY), 120_000)
        desk.market_open()
        desk.rebase_peak("Ada", "reviewed")
        host.exchange.flow("CSD", Decimal(50_000))
        desk.look(DAY)
        r = desk.breakers.reading
        assert r.peak == pytest.approx(150_000, rel=1e-3) and r.old_peak == pytest.approx(170_000, rel=1e-3) and abs(r.drawdown) < 0.01


@pytest.mark.parametrize("state", [OrderState.FILLED, OrderState.CANCELED])
def test_a_wish_that_is_sent_again_and_again_halts_trading(state, tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        order = desk.ledger.orders()[0]
        for n in range(1, 11):
            desk.ledger.record("order", replace(order, client_order_id=f"{order.client_order_id[:-2]}{n:02d}", seq=n, state=state, filled_quantity=Decimal(0)))
        desk.look(DAY)
        assert "repeated_orders" not in names(desk.breakers)
        desk.ledger.record("order", replace(order, client_order_id=f"{order.client_order_id[:-2]}99", seq=99, state=state, filled_quantity=Decimal(0)))
        desk.look(DAY)
        assert "repeated_orders" in names(desk.breakers) and not decision(desk, B).allowed
