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
from v23.domain import Fill, Side, to_plain
from v23.market_calendar import NEW_YORK, sessions_between
from v23.risk.breaker_rules import BY_NAME
from v23.settings import RiskLimits
from v23.trading_desk import loss_reading

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
