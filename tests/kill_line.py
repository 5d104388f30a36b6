"""Kills in the middle of everything, on a wild exchange: does the account end empty, and does nothing get in after the latch?

Each seed makes a small account, plans entries of every kind (market, midpoint limit, sliced), lets requests get lost, spoiled
and refused, and kills at some request: from the desk, from another process, or with a crash in the middle of the kill. Then
the desk goes on as its owner would, first while things still go wrong, then when they have calmed down.
"""

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from order_harness import KillSeen, Storm, World

from v23.domain import OrderState, Purpose, Side
from v23.market_calendar import next_session, session_hours

LEVELS = (0.0, 0.05, 0.15, 0.30)
FAULTS = ("error", "429", "drop", "half_body", "garbage", "malformed", "empty", "stale", "accept_then_error", "accept_then_hang_up", "accept_then_hang", "hide_order")
ORDER_FAULTS = ("no_fill", "slow_fill", "partial_then_cancel", "hang_cancel", "fill_on_cancel", "late_fill", "reject")


@dataclass
class Line:
    "What became of one kill."

    seed: int
    flat: bool = False
    left: dict[str, Any] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)  # Held at the exchange and not listed with a reason
    wrong: list[tuple[str, str]] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)  # Of the orders when the kill came
    sliced: bool = False
    how: str = ""
    crashes: int = 0


def storm_of(rng: random.Random) -> Storm:
    "Wild, in most seeds."
    level, chosen = rng.choice(LEVELS), [k for k in FAULTS if rng.random() < 0.5]
    rates = {k: level / max(1, len(chosen)) for k in chosen}
    return Storm(rates, crash=rng.choice((0.0, 0.0, 0.01)), order_faults=rng.choice((0.0, 0.3, 0.6)), kinds=ORDER_FAULTS, patient=rng.random() < 0.5, lost={"POST": rng.choice((0.0, 0.0, 0.3))})


def entries(world: World, rng: random.Random) -> None:
    "Purchases from tiny to sliced."
    quotes = world.desk.broker.quotes(world.panel.symbols)
    items = []
    for symbol in world.panel.symbols:
        quote = quotes.get(symbol)
        if quote is None or not quote.is_valid or rng.random() < 0.3:
            continue
        quantity = Decimal(int(rng.choice((2_000, 6_000, 24_000)) / quote.midpoint))
        if quantity > 0:
            items.append(world.wish(symbol, Side.BUY, quantity, Purpose.ENTRY, world.session, quote, "line"))
    world.desk.engine.plan(items)


def trade(world: World, rng: random.Random) -> None:
    "Plan and work until it is done, or somebody kills."
    desk = world.desk
    desk.ready(world.session)
    desk.look(world.session)
    if not desk.ledger.parents(world.session):
        entries(world, rng)
    world.watched = True
    try:
        desk.engine.work(world.session, session_hours(world.session).window(world.settings.risk)[1])
    except KillSeen:
        pass
    finally:
        world.watched = world.clock.killed = False


def go_on(world: World) -> dict[str, Any]:
    "What an owner does with a kill: again until it is over, in this process or the next."
    if not world.gate_closed:
        world.desk.kill.activate("the line", "nobody else")
    return world.desk.kill.pursue(120)


class LineWorld(World):
    "A world that remembers what its orders were doing when the kill came."

    seen: Counter[str]
    sliced = False

    @property
    def gate_closed(self) -> bool:
        return self.desk.kill.is_active

    def kill_from_outside(self) -> None:
        self.snapshot()
        super().kill_from_outside()

    def snapshot(self) -> None:
        if not hasattr(self, "seen"):
            live = [o for o in self.ledger.orders() if not o.state.is_terminal]
            self.seen = Counter(o.state.value for o in live)
            slices = {p["intent_id"]: len(p["children"]) for p in self.ledger.parents() if not p["refused"]}
            done = Counter(o.intent_id for o in self.ledger.orders() if o.attempts)
            self.sliced = any(n > 1 and 0 < done[i] < n for i, n in slices.items())


def run(seed: int) -> Line:
    "One kill and what became of it."
    line, rng = Line(seed), random.Random(f"line {seed}")
    with tempfile.TemporaryDirectory(prefix="v23-line-") as folder:
        world = LineWorld(seed, Path(folder), storm_of(rng))
        try:
            _run(world, line, rng)
        finally:
            world.close()
    return line


def _run(world: LineWorld, line: Line, rng: random.Random) -> None:
    hours = session_hours(world.session)
    window = hours.window(world.settings.risk)
    with world.quiet():
        world.wait_until(window[0])
        world.compare(world.session)
        world.wait_until(window[1] - timedelta(minutes=rng.choice((12, 20, 40))))
        world.desk.look(world.session)
    for _ in range(8):
        if rng.random() < world.storm.order_faults:
            world.exchange.plan_order_fault(rng.choice(ORDER_FAULTS), nth=rng.randrange(1, 14), seconds=rng.choice((2.0, 30.0, 300.0)))
    line.how = rng.choice(("outside", "outside", "inside", "crash"))
    world.kill_at = world.wire.requests + rng.randrange(3, 70)
    if line.how == "inside":
        world.kill_at = 0
        stop_at = world.clock.now() + timedelta(seconds=rng.randrange(1, 400))
        slept = world.clock.sleep

        def sleep(seconds: float) -> None:
            slept(seconds)
            if world.watched and world.clock.now() >= stop_at:
                raise KillSeen

        world.clock.sleep = sleep  # type: ignore[method-assign]
    if line.how == "crash":
        world.crash_at = (rng.choice(("kill_step", "sending", "wire", "reply", "commit")), rng.randrange(1, 12))
    world.try_to(lambda: trade(world, rng), tries=4)
    world.snapshot()
    if not world.gate_closed and line.how != "inside":
        world.kill_from_outside()
    world.try_to(lambda: go_on(world), tries=4)
    world.crash_at = None
    with world.quiet():
        world.exchange.order_faults.clear()
        if not world.desk.kill.is_flat:
            world.restart()
            report = go_on(world)
            if not report["flat"]:
                world.wait_until(session_hours(next_session(world.session)).open + timedelta(minutes=1))
                report = go_on(world)
        world.clock.sleep(120)  # what was canceled and trades all the same
        world.desk.engine.tracker.poll()
        report = world.desk.kill.activate("late")
    judge(world, line, report)


def judge(world: LineWorld, line: Line, report: dict[str, Any]) -> None:
    "Against the exchange's own books."
    held = {s: h.quantity for s, h in world.exchange.holdings.items() if h.quantity}
    line.flat, line.left = not held and not world.exchange.open_orders and report["flat"] is True, report["left"]
    line.unexplained = [s for s in held if not report["left"].get(s, {}).get("reason")]
    line.wrong = [w for w in world.violations if w[0] in ("entries_after_latch", "shorts", "duplicate_orders")]
    if report["flat"] and held:
        line.wrong.append(("false_flat", f"{held} are held and the report says flat"))
    line.states, line.sliced, line.crashes = world.seen, world.sliced, len(world.crashes)
    live = [o.client_order_id for o in world.ledger.orders() if o.state.may_be_live and o.state is not OrderState.UNKNOWN]
    if line.flat and live:
        line.wrong.append(("still_live", f"{live[:2]} in the ledger of a flat account"))


def summed(lines: Iterable[Line]) -> dict[str, Any]:
    "The report of many."
    lines = list(lines)
    states: Counter[str] = Counter()
    for x in lines:
        states.update(x.states.keys())
    return {
        "kills": len(lines), "flat": sum(x.flat for x in lines), "listed": sum(not x.flat and not x.unexplained for x in lines),
        "unexplained": [(x.seed, x.unexplained) for x in lines if x.unexplained], "wrong": [(x.seed, *w) for x in lines for w in x.wrong],
        "how": dict(Counter(x.how for x in lines)), "crashes": sum(x.crashes for x in lines), "with_sliced_orders_under_way": sum(x.sliced for x in lines),
        "kills_that_met_an_order": dict(states), "left": {x.seed: x.left for x in lines if not x.flat},
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    "The command."
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], epilog="example:  scripts/kill_line --seeds 500 --json")
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=7, help="the first seeds' family; the same gives the same kills")
    parser.add_argument("--only", type=int, default=None, metavar="SEED", help="one kill again")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    if asked.seeds < 1 or asked.seed < 0:
        print(f"--seeds {asked.seeds}, --seed {asked.seed}: 1 and 0 are the least", file=sys.stderr)
        return 2
    chosen = [asked.only] if asked.only is not None else [asked.seed * 100_000 + n for n in range(asked.seeds)]
    lines = []
    for n, seed in enumerate(chosen, 1):
        lines.append(run(seed))
        if sys.stderr.isatty() or n == len(chosen):
            print(f"\r{n} of {len(chosen)} kills, {sum(x.flat for x in lines)} flat", end="" if n < len(chosen) else "\n", file=sys.stderr, flush=True)
    told = summed(lines)
    print(json.dumps(told) if asked.json else "\n".join(f"{k:<28} {v}" for k, v in told.items()))
    return 1 if told["unexplained"] or told["wrong"] else 0

