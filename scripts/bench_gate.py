#!/usr/bin/env python
"""What the pre-trade gate costs per order, in microseconds: one order, and the sixty of a rebalance, beside others in the same run.

Lines of the table:
  checks        every check of one order evaluated and recorded, with the sentence a person reads
  audit row     the same, and the decision as one JSON line
  gate          the desk's gate: the context from the ledger (orders in flight, positions, counters), then the checks; after --history orders
  batch         sixty orders through the gate, each seeing the ones before it
  plain floats  the nine limits as comparisons, first failure ends it, nothing recorded: the least it could be
  pydantic      request, quote and limits validated as pydantic models for each order, then the same comparisons
  nautilus      RiskEngine of NautilusTrader with its rate limits and notional check, when it is installed (--nautilus PYTHON
                names the interpreter of an environment that has it)

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
from decimal import Decimal
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig, RiskEngineConfig
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.identifiers import Venue
from nautilus_trader.model.objects import Money, Quantity
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.trading.strategy import Strategy
rounds, many = int(sys.argv[1]), 60
class Sends(Strategy):
    took = []
    def on_start(self):
        self.subscribe_quote_ticks(instrument.id)
    def on_quote_tick(self, tick):
        if len(self.took) >= rounds:
            return
        orders = [self.order_factory.market(instrument.id, OrderSide.BUY, Quantity.from_int(1)) for _ in range(many)]
        began = time.process_time()
        for order in orders:
            self.submit_order(order)
        self.took.append((time.process_time() - began) / many * 1e6)
engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), risk_engine=RiskEngineConfig(max_order_submit_rate="1000000/00:00:01", max_notional_per_order={})))
engine.add_venue(Venue("XNAS"), oms_type=OmsType.NETTING, account_type=AccountType.CASH, base_currency=USD, starting_balances=[Money(100_000_000, USD)])
instrument = TestInstrumentProvider.equity(symbol="AAPL", venue="XNAS")
engine.add_instrument(instrument)
engine.add_data([QuoteTick(instrument.id, instrument.make_price(100.00), instrument.make_price(100.02), Quantity.from_int(100000), Quantity.from_int(100000), n * 10**9, n * 10**9) for n in range(rounds + 5)])
strategy = Sends()
engine.add_strategy(strategy)
engine.run()
print(statistics.median(strategy.took))
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
    done = []
    for n in range(history):
        intent = wishes[n % len(wishes)][0]
        past = replace(intent, intent_id=f"past{n}")
        child = ChildOrder(0, OrderType.MARKET, past.quantity, desk.clock.now(), end)
        done.append(("order", replace(planned_order(child, past), state=OrderState.CANCELED, attempts=1, sent_at=desk.clock.now() - timedelta(days=1))))
    if done:
        desk.ledger.record_all(done)
    return desk, wishes


def sixty(desk: Any, wishes: list[Any]) -> list[Any]:
    "Each order decided with the ones before it in flight."
    from v23.domain import ChildOrder, OrderType
    from v23.execution.order_lifecycle import planned_order

    batch: list[Any] = []
    decided, end = [], desk.clock.now() + timedelta(hours=3)
    for intent, quote in wishes:
        decided.append(desk.gate(intent, quote, batch))
        batch.append(planned_order(ChildOrder(0, OrderType.MARKET, intent.quantity, desk.clock.now(), end), intent))
    return decided


def nautilus(python: str, rounds: int) -> float | None:
    "Microseconds of one submit_order through NautilusTrader's risk engine, or None when it is not there."
    ran = subprocess.run([python, "-c", NAUTILUS, str(rounds)], capture_output=True, text=True, check=False)
    if ran.returncode:
        print(f"bench_gate: no NautilusTrader: {(ran.stderr.strip().splitlines() or ['no answer'])[-1]}", file=sys.stderr)
        return None
    return float(ran.stdout.strip().splitlines()[-1])


def measure(rounds: int, calls: int, history: int, python: str) -> dict[str, Any]:
    "Medians in microseconds per order."
    from v23.domain import to_plain
    from v23.risk.pretrade_checks import evaluate

    with tempfile.TemporaryDirectory() as name:
        desk, wishes = desk_with(history, Path(name))
        limits = desk.settings.risk
        intent, quote = next(w for w in wishes if w[1].spread_bps < 30)
        context = desk.gate.context(intent, quote, ())
        lines: dict[str, tuple[Callable[[], Any], int, int]] = {
            "checks": (lambda: evaluate(intent, context, limits), calls, 1),
            "audit row": (lambda: json.dumps(to_plain(evaluate(intent, context, limits))), calls, 1),
            "gate": (lambda: desk.gate(intent, quote), max(20, calls // 20), 1),
            "batch": (lambda: sixty(desk, wishes), 2, len(wishes)),
            **{n: (c, calls * 5, 1) for n, c in alternatives(limits).items()},
        }
        assert evaluate(intent, context, limits).allowed
        taken: dict[str, list[float]] = {n: [] for n in lines}
        for _ in range(rounds):
            for n, (call, times, orders) in lines.items():
                taken[n].append(timed(call, times) / orders)
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
    ratios = {f"{a} / {b}": told[a] / told[b] for a, b in (("checks", "pydantic"), ("checks", "plain floats"), ("gate", "nautilus"), ("checks", "nautilus")) if told.get(b)}
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
