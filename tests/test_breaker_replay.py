"""SIGKILL in the middle of a losing month: peak, starts, counters, latches and what was lifted are the ledger's, to the last bit.

A child process writes closes, fills, errors, flows and readings to a ledger on disk and says after each step how many
there were. It is killed at a step, and at a random moment; the record is replayed by another process and has to be what
an undisturbed run had after as many steps.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from v23.adapters.clocks import StillClock
from v23.adapters.ledger import Ledger
from v23.circuit_breakers import CircuitBreakerManager
from v23.domain import Fill, Quote, Side, to_plain
from v23.example_strategies import LowVolatility
from v23.market_calendar import NEW_YORK, session_hours, sessions_between
from v23.paper_validator import recorded_days
from v23.risk.breaker_rules import BY_NAME
from v23.settings import RiskLimits, load_settings
from v23.synthetic_market import synthetic_panel
from v23.trading_desk import loss_reading
from v23.validation.replay import RecordedDay, replay

SESSIONS = sessions_between(date(2026, 1, 5), date(2026, 3, 31))
LIMITS = RiskLimits()


def read(ledger, clock, equity):
    return loss_reading(ledger, clock.at.date(), clock.at, equity, 100_000.0)


def steps(ledger, clock, seed):
    "A losing walk: every step commits once or a few times, and yields the number of events after it."
    rng, equity, breakers = random.Random(seed), 100_000.0, CircuitBreakerManager(ledger, LIMITS, clock)
    for n, session in enumerate(SESSIONS):
        clock.at = datetime(session.year, session.month, session.day, 11, tzinfo=NEW_YORK)
        if n == 0:
            ledger.record("session_opened", {"session": session, "equity": Decimal(100_000), "account_id": "a", "intraday_adjustments": 0})
        for _ in range(3):
            equity *= 1 + rng.gauss(-0.004, 0.02)
            clock.at += timedelta(minutes=45)
            if rng.random() < 0.3:
                ledger.record("error", {"kind": rng.choice(("api", "execution")), "code": "X", "text": "", "session": session})
            if rng.random() < 0.5:
                k = ledger.last_seq
                for side, price in ((Side.BUY, 10.0), (Side.SELL, 10 * (1 + rng.gauss(-0.01, 0.02)))):
                    ledger.record("fill", Fill(f"f{k}{side}", f"o{k}", f"c{k}", "AAA", side, Decimal(5), Decimal(str(round(price, 2))), clock.at))
            breakers.update(read(ledger, clock, equity))
            manual = [x.name for x in breakers.latches if BY_NAME[x.name].release == "manual"]
            if manual and rng.random() < 0.3:
                breakers.acknowledge(manual[0], "Ada", "looked")
            if breakers.reduced and breakers.reading.reconciled and rng.random() < 0.05:
                breakers.rebase_peak("Ada", "begin anew")
            yield ledger.last_seq
        flow = rng.choice((0.0, 0.0, 5_000.0, -3_000.0))
        equity += flow
        ledger.record("session_closed", {"session": session, "equity": Decimal(str(round(equity, 2))), "cash": Decimal(0), "gross_exposure": 0.5, "flow": flow, "positions": {}})
        yield ledger.last_seq


def told(ledger, clock):
    "All that a process would go on with."
    breakers = CircuitBreakerManager(ledger, LIMITS, clock)
    reading = read(ledger, clock, 80_000.0)
    return json.dumps(to_plain({"status": breakers.get_status(), "reading": reading, "memory": breakers.memory}), sort_keys=True)


def states(seed):
    "Events -> what is told after them, of an undisturbed run; one ledger per prefix is the replay itself."
    clock = StillClock(datetime(2026, 1, 5, 10, tzinfo=NEW_YORK))
    ledger, found = Ledger(":memory:", clock), {}
    for events in steps(ledger, clock, seed):
        found[events] = (told(ledger, clock), clock.at)
    return found


def child(path, seed):
    clock = StillClock(datetime(2026, 1, 5, 10, tzinfo=NEW_YORK))
    ledger = Ledger(Path(path), clock)
    for events in steps(ledger, clock, seed):
        print(events, flush=True)


@pytest.mark.parametrize("kill", [1, 2, 3, 4])
def test_F69_F80_after_kill_9_and_replay_nothing_of_the_breakers_is_different(kill, v23_seed):
    seed = v23_seed * 10 + kill
    expected = states(seed)
    assert any("peak_rebased" in x or "weekly_loss" in x for x, _ in expected.values())
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        process = subprocess.Popen([sys.executable, __file__, str(path), str(seed)], stdout=subprocess.PIPE, text=True)
        last, stop = 0, rng.randrange(20, len(expected) - 5)
        for n, line in enumerate(process.stdout):
            last = int(line)
            if n >= stop:
                break
        time.sleep(rng.random() * 0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        clock = StillClock(datetime(2026, 1, 5, 10, tzinfo=NEW_YORK))
        ledger = Ledger(path, clock)
        assert ledger.last_seq >= last  # what it had said was durable
        ledger.verify()
        reached = [e for e in expected if e <= ledger.last_seq]
        if ledger.last_seq not in expected:  # killed inside a step: the prefix of a step is a state nobody was told of
            whole = Ledger(":memory:", clock)
            for e in ledger.events():
                if e.seq <= reached[-1]:
                    clock.at = e.at
                    whole.record(e.kind, e.body)
            ledger = whole
        want, clock.at = expected[reached[-1]]
        assert told(ledger, clock) == want


if __name__ == "__main__":
    child(sys.argv[1], int(sys.argv[2]))


# What a person did to the peak, in the replay of the record


def losing_days(panel, strategy, settings, people):
    "Sessions of a record whose prices fall by three tenths after the first purchase and then rise; a decision every ten."
    falls = [1.0] * 2 + [1 - 0.03 * n for n in range(1, 11)] + [0.7 + 0.018 * n for n in range(40)]
    days = []
    for n, factor in enumerate(falls):
        row = 70 + n
        session = panel.sessions[row]
        price = {s: float(x) * factor for s, x in zip(panel.symbols, panel.close[70], strict=True) if x == x}
        acts = people.get(n, {})
        if n % 10 != 1:
            days.append(RecordedDay(session, price, **acts))
            continue
        hours = session_hours(session)
        now = hours.rebalance_at(settings.monitoring)
        quotes = {s: Quote(s, x * (1 - 1e-5), x * (1 + 1e-5), now) for s, x in price.items()}
        days.append(RecordedDay(session, price, panel.sessions[row - 1], now, hours.window(settings.risk), quotes, **acts))
    return days


@pytest.mark.parametrize("people", [
    {}, {9: {"late_rebased": True}}, {11: {"late_rebased": True, "flow": 20_000.0}}, {9: {"late_rebased": True}, 15: {"flow": -15_000.0}},
    {9: {"late_rebased": True}, 13: {"lifted": ("peak_rebased",)}}, {12: {"lifted": ("drawdown_halt",)}}, {11: {"late_lifted": ("drawdown_halt",)}},
])  # fmt: skip
def test_the_replay_follows_a_rebased_peak_as_the_desk_does(people):
    "The equities of the replay, given to a desk's breakers with the same acts of people: the same peaks, latches and states."
    settings = load_settings("/nowhere", environ={"MAX_CONSECUTIVE_LOSSES": "1000", "DAILY_LOSS_LIMIT_PCT": "-30", "WEEKLY_LOSS_LIMIT_PCT": "-60", "DRAWDOWN_HALT_PCT": "-12"})
    panel = synthetic_panel(3, 40, date(2025, 1, 2), date(2025, 8, 29))
    strategy = LowVolatility(20, 20, 10)
    days = losing_days(panel, strategy, settings, people)
    replayed = replay(panel, strategy, days, 100_000.0, settings, 0.4)
    clock = StillClock(datetime(2025, 1, 1, 12, tzinfo=NEW_YORK))
    ledger = Ledger(":memory:", clock)
    ledger.record("session_opened", {"session": days[0].session, "equity": 100_000.0, "account_id": "a", "intraday_adjustments": 0})
    breakers, states, deepest = CircuitBreakerManager(ledger, settings.risk, clock), [], 0.0
    for day, seen in zip(days, replayed, strict=True):
        clock.at = session_hours(day.session).close

        def reading(equity=seen.equity, flow=day.flow, session=day.session):
            return loss_reading(ledger, session, clock.at, equity, 100_000.0, flow)

        breakers.update(reading())
        deepest = min(deepest, breakers.reading.drawdown)
        for name in (*day.lifted, *day.late_lifted):
            breakers.acknowledge(name, "Ada", "looked")
        if day.late_rebased:
            breakers.rebase_peak("Ada", "begin anew", day.flow)
            breakers.update(reading())
        states.append(breakers.state)
        ledger.record("session_closed", {"session": day.session, "equity": seen.equity, "gross_exposure": seen.gross_exposure, "flow": day.flow, "positions": {}})
    assert [d.breaker_state for d in replayed] == states
    assert deepest < -0.1 and {s.name for s in states} >= {"NORMAL", "REDUCED"}
    told = recorded_days(ledger, settings)
    assert [n for n, d in enumerate(told) if d.late_rebased] == [n for n, acts in people.items() if acts.get("late_rebased")]


def test_sizes_after_a_rebased_peak_are_a_quarter_in_the_replay_too():
    settings = load_settings("/nowhere", environ={"MAX_CONSECUTIVE_LOSSES": "1000", "DAILY_LOSS_LIMIT_PCT": "-30", "WEEKLY_LOSS_LIMIT_PCT": "-60", "DRAWDOWN_HALT_PCT": "-12"})
    panel, strategy = synthetic_panel(3, 40, date(2025, 1, 2), date(2025, 8, 29)), LowVolatility(20, 20, 10)
    gross = {}
    for name, people in (("followed", {11: {"rebased": True}}), ("late", {10: {"late_rebased": True}}), ("halted", {})):
        replayed = replay(panel, strategy, losing_days(panel, strategy, settings, people)[:22], 100_000.0, settings, 0.4)
        gross[name] = (replayed[10].gross_exposure, replayed[11].gross_exposure)
    assert gross["followed"] == gross["late"] and gross["followed"][1] < 0.35 * gross["followed"][0]
