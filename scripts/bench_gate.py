#!/usr/bin/env python
"""What the pre-trade gate costs per order, in microseconds: one order, and the sixty of a rebalance, beside others in the same run.

Lines of the table:
  checks        every check of one order made and kept; the sentences are written when somebody reads them
  sentences     the same, and every sentence written
  audit row     the same, and the decision as one JSON line with its fifteen sentences
  plan          sixty orders of a rebalance at once (numpy), each seeing what the ones before it reserve
  one by one    the same sixty in a loop
  gate          the desk's gate: the context from the ledger (orders in flight, positions, counters), then the checks; after --history orders
  batch         sixty orders through the gate, each seeing the ones before it
  plain floats  the nine limits as comparisons, first failure ends it, nothing recorded: the least it could be
  pydantic      request, quote and limits validated as pydantic models for each order, then the same comparisons
  nautilus      RiskEngine.execute of NautilusTrader, compiled, on a cash account: quantity, price, notional, balance and rate, nothing
                recorded; orders and commands made before, when it is installed (--nautilus PYTHON names an interpreter that has it)

Processor time, because nothing here waits; medians of --rounds rounds, taken in turn. Example:  python scripts/bench_gate.py --rounds 7 --json
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

NOW = datetime(2026, 1, 20, 17, 0, tzinfo=UTC)
NAUTILUS = '''
import statistics, sys, time
from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.component import MessageBus, TestClock
from nautilus_trader.common.factories import OrderFactory
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.config import RiskEngineConfig
from nautilus_trader.execution.messages import SubmitOrder
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.identifiers import StrategyId, TraderId
from nautilus_trader.model.objects import Quantity
from nautilus_trader.portfolio.portfolio import Portfolio
from nautilus_trader.risk.engine import RiskEngine
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.test_kit.stubs.events import TestEventStubs
from nautilus_trader.model.data import QuoteTick
rounds, many = int(sys.argv[1]), 60
clock, trader, strategy = TestClock(), TraderId("T-1"), StrategyId("S-1")
bus, cache = MessageBus(trader, clock), Cache()
portfolio = Portfolio(bus, cache, clock)
engine = RiskEngine(portfolio, bus, cache, clock, RiskEngineConfig(max_order_submit_rate="1000000/00:00:01"))
sent = []
bus.register("ExecEngine.execute", sent.append)
instrument = TestInstrumentProvider.equity(symbol="AAPL", venue="XNAS")
cache.add_instrument(instrument)
cache.add_quote_tick(QuoteTick(instrument.id, instrument.make_price(100.0), instrument.make_price(100.02), Quantity.from_int(1000), Quantity.from_int(1000), 0, 0))
portfolio.update_account(TestEventStubs.cash_account_state())
factory, took = OrderFactory(trader, strategy, clock), []
for _ in range(rounds):
    commands = []
    for _ in range(many):
        order = factory.market(instrument.id, OrderSide.BUY, Quantity.from_int(1))
        cache.add_order(order)
        commands.append(SubmitOrder(trader, strategy, order, UUID4(), 0))
    began = time.process_time()
    for command in commands:
        engine.execute(command)
    took.append((time.process_time() - began) / many * 1e6)
assert len(sent) == rounds * many, len(sent)
print(statistics.median(took))
'''


def timed(call: Callable[[], Any], times: int) -> float:
    "Microseconds of one call."
    began = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - began) / times * 1e6


def plain_floats(o: Any, c: Any, limits: Any) -> str:
    "The nine limits as comparisons; the first that fails is named."
    value = o.quantity * o.ask
    if c.state >= 3:
        return "breaker"
    if not c.position + value <= limits.max_position * c.equity:
        return "position"
    if not c.daily > limits.daily_loss:
        return "daily"
    if not c.entries < limits.max_trades_per_day:
        return "trades"
    if not c.losses < limits.max_consecutive_losses:
        return "losses"
    if not (o.ask - o.bid) / (o.ask + o.bid) * 2e4 <= limits.max_spread_bps:
        return "spread"
    if not c.sector + value <= limits.max_sector * c.equity:
        return "sector"
    if not c.start <= c.now <= c.end:
        return "hours"
    return "errors" if c.execution >= limits.max_execution_errors or c.api >= limits.max_api_errors else ""


def alternatives(limits: Any) -> dict[str, Callable[[], Any]]:
    "The same nine limits without a record, and with everything validated by pydantic."
    from pydantic import AwareDatetime, BaseModel, PositiveFloat

    class Request(BaseModel):
        symbol: str
        quantity: PositiveFloat
        bid: PositiveFloat
        ask: PositiveFloat

    class Desk(BaseModel):
        now: AwareDatetime
        start: AwareDatetime
        end: AwareDatetime
        equity: PositiveFloat
        state: int = 0
        position: float = 0.0
        sector: float = 0.0
        daily: float = 0.0
        entries: int = 0
        losses: int = 0
        execution: int = 0
        api: int = 0

    asked = {"symbol": "AAA", "quantity": 50.0, "bid": 99.99, "ask": 100.01}
    seen = {"now": NOW, "start": NOW - timedelta(hours=2), "end": NOW + timedelta(hours=3), "equity": 1e5}
    order, desk = Request(**asked), Desk(**seen)
    bare = type("Bare", (), {})
    o, c = bare(), bare()
    o.__dict__.update(order.model_dump())
    c.__dict__.update(desk.model_dump())
    return {"plain floats": lambda: plain_floats(o, c, limits), "pydantic": lambda: plain_floats(Request(**asked), Desk(**seen), limits)}


def desk_with(history: int, folder: Path) -> tuple[Any, list[Any]]:
    "An open desk with that many finished orders on record, and sixty wishes."
    from v23.domain import ChildOrder, OrderIntent, OrderState, OrderType, Purpose, Side
    from v23.exchange_host import ExchangeConfig, ExchangeHost, opening_instant
    from v23.execution.order_lifecycle import intent_key, planned_order
    from v23.execution.order_routing import plan_order
    from v23.synthetic_market import synthetic_panel
    from v23.trading_desk import open_desk

    panel, day = synthetic_panel(3, 70, date(2025, 10, 1), date(2026, 2, 27)), date(2026, 1, 20)
    host = ExchangeHost(folder / "state", ExchangeConfig("", 3, opening_instant(day), Decimal(1_000_000)), panel=panel).__enter__()
    desk = open_desk(state=folder / "state", reports=folder / "reports", host=host)
    desk.on_close(lambda: host.__exit__(None, None, None))
    desk.market_open()
    quotes, end = desk.broker.quotes(list(panel.symbols[:60])), desk.clock.now() + timedelta(hours=3)
    wishes = []
    for s, q in quotes.items():
        key = intent_key("bench", day, s, Side.BUY, Purpose.ENTRY)
        wishes.append((OrderIntent(key, "bench", day, s, Side.BUY, Decimal(max(1, int(5_000 / q.ask))), Purpose.ENTRY, q.midpoint, sector=panel.sectors.get(s, "UNKNOWN")), q))
    desk.engine.plan([(plan_order(i, q, desk.clock.now(), end, desk.settings.execution), desk.gate(i, q)) for i, q in wishes])
    done = []
    for n in range(history):
        intent = wishes[n % len(wishes)][0]
        past = replace(intent, intent_id=f"past{n}")
        child = ChildOrder(0, OrderType.MARKET, past.quantity, desk.clock.now(), end)
        done.append(("order", replace(planned_order(child, past), state=OrderState.CANCELED, attempts=1, sent_at=desk.clock.now() - timedelta(days=1))))
    if done:
        desk.ledger.record_all(done)
    return desk, wishes


def waiting(desk: Any, wishes: list[Any]) -> list[Any]:
    "The wishes as orders that are about to leave."
    from v23.domain import ChildOrder, OrderType
    from v23.execution.order_lifecycle import planned_order

    now = desk.clock.now()
    return [planned_order(ChildOrder(0, OrderType.MARKET, i.quantity, now, now + timedelta(hours=3)), i) for i, _ in wishes]


def sixty(desk: Any, wishes: list[Any], orders: list[Any]) -> list[Any]:
    "Each order decided with the ones before it in flight."
    return [desk.gate(intent, quote, orders[:n]) for n, (intent, quote) in enumerate(wishes)]


def plan_of(desk: Any, wishes: list[Any]) -> tuple[Any, list[Any]]:
    "The same wishes as a plan of a rebalance."
    from v23.risk.batch_checks import Batch

    intent, quote = wishes[0]
    common = replace(desk.gate.context(intent, quote, ()), quote=None, position_value=0.0, sector_value=0.0, quarantined=False, already_sent=False)
    return Batch(common, {q.symbol: q for _, q in wishes}, {}, desk.wiring.sectors), [i for i, _ in wishes]


def nautilus(python: str, rounds: int) -> float | None:
    "Microseconds of one order through NautilusTrader's risk engine, or None when it is not there."
    ran = subprocess.run([python, "-c", NAUTILUS, str(rounds)], capture_output=True, text=True, check=False)
    if ran.returncode:
        print(f"bench_gate: no NautilusTrader: {(ran.stderr.strip().splitlines() or ['no answer'])[-1]}", file=sys.stderr)
        return None
    return float(ran.stdout.strip().splitlines()[-1])


def measure(rounds: int, calls: int, history: int, python: str) -> dict[str, Any]:
    "Medians in microseconds per order."
    from v23.domain import to_plain
    from v23.risk.batch_checks import decide_all, decide_each
    from v23.risk.pretrade_checks import evaluate

    with tempfile.TemporaryDirectory() as name:
        desk, wishes = desk_with(history, Path(name))
        limits = desk.gate.settings.__dict__["risk"] = replace(desk.settings.risk, max_trades_per_day=len(wishes))  # sixty purchases, so that none is denied for being too many
        intent, quote = next(w for w in wishes if w[1].spread_bps < 30)
        context = desk.gate.context(intent, quote, ())
        orders, (batch, intents) = waiting(desk, wishes), plan_of(desk, wishes)
        lines: dict[str, tuple[Callable[[], Any], int, int]] = {
            "checks": (lambda: evaluate(intent, context, limits), calls, 1),
            "sentences": (lambda: evaluate(intent, context, limits).checks, calls // 4, 1),
            "audit row": (lambda: json.dumps(to_plain(evaluate(intent, context, limits))), calls // 4, 1),
            "plan": (lambda: decide_all(batch, intents, limits), 20, len(intents)),
            "one by one": (lambda: decide_each(batch, intents, limits), 5, len(intents)),
            "gate": (lambda: desk.gate(intent, quote), max(20, calls // 20), 1),
            "batch": (lambda: sixty(desk, wishes, orders), 2, len(wishes)),
            **{n: (c, calls * 5, 1) for n, c in alternatives(limits).items()},
        }
        assert evaluate(intent, context, limits).allowed
        print(f"allowed: {sum(d.allowed for d in decide_all(batch, intents, limits))} of the plan, {sum(d.allowed for d in sixty(desk, wishes, orders))} of the batch", file=sys.stderr)
        taken: dict[str, list[float]] = {n: [] for n in lines}
        for _ in range(rounds):
            for n, (call, times, many) in lines.items():
                taken[n].append(timed(call, times) / many)
        desk.close()
    told: dict[str, Any] = {n: statistics.median(x) for n, x in taken.items()}
    told["nautilus"] = nautilus(python, max(rounds, 20))
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--history", type=int, default=600, help="finished orders on record")
    parser.add_argument("--nautilus", default=sys.executable, help="python of an environment with NautilusTrader")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    told = measure(options.rounds, options.calls, options.history, options.nautilus)
    ratios = {f"{a} / {b}": told[a] / told[b] for a, b in (("checks", "pydantic"), ("checks", "plain floats"), ("plan", "one by one"), ("gate", "nautilus"), ("checks", "nautilus"), ("plan", "nautilus")) if told.get(b)}
    if options.json:
        print(json.dumps({"us_per_order": told, "ratios": ratios, "history": options.history}))
        return 0
    for n, us in told.items():
        print(f"{n:<14} {'not installed' if us is None else f'{us:9.2f} µs an order'}")
    for n, r in ratios.items():
        print(f"{n:<24} {r:6.2f} ×")
    return 0


if __name__ == "__main__":
    sys.exit(main())
