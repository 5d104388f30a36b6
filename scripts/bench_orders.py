#!/usr/bin/env python
"""A rebalance of many orders through the official client over HTTP, against the least time it could take.

Lines of the table, for each latency (added to every request, as a network would):
  floor        rounds of requests x latency: ceil(orders / connections) x latency, and nothing else
  v23          the execution engine: written down before it leaves, several at a time, the request budget on, journal synced
  naive        a plain loop over alpaca-py: a quote, an order, and its state, one name after the other
  requests     HTTP requests of a whole rebalance: orders, quotes, account, positions, lists
  journal      commits of the ledger and their time, against an append and fdatasync of the same bytes in the same run
  ledger       commits a second, one event each, against the same

Example:  python scripts/bench_orders.py --orders 60 --latency 0 50 --rounds 3 --json
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench_parts import START, RunningClock



def delayed(client: Any, seconds: float) -> Any:
    "The same client, every request some seconds later."
    send = client._session.send

    def slow(request: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return send(request, **options)

    if seconds:
        client._session.send = slow
    return client


def serve(panel: Any, start: datetime, line: Any) -> None:
    "The exchange, in a process of its own as it would be on a machine of its own; it answers on `line` how many requests it had."
    from v23.simulator.exchange import Exchange
    from v23.simulator.server import SimulatorServer

    with SimulatorServer(Exchange(panel, 7, start, Decimal(10**8)), speed=1.0) as server:
        line.send(server.url)
        while line.recv() == "requests":
            line.send(server.shell.requests)


class Round:
    "A fresh exchange and a fresh ledger for one measurement."

    def __init__(self, panel: Any, orders: int, latency_s: float, connections: int, folder: Path):
        from v23.adapters.alpaca import AlpacaAPI
        from v23.adapters.ledger import Ledger
        from v23.domain import Check, Decision
        from v23.execution_engine import ExecutionEngine
        from v23.market_calendar import NEW_YORK
        from v23.settings import ExecutionSettings, Secret
        start = datetime(*START, tzinfo=NEW_YORK)
        self.names = panel.symbols[:orders]
        self.settings = ExecutionSettings(concurrent_orders=connections, spread_threshold_bps=1e4, max_spread_bps=1e4)  # market orders all
        self.line, theirs = get_context("spawn").Pipe()
        self.server = get_context("spawn").Process(target=serve, args=(panel, start, theirs), daemon=True)
        self.server.start()
        url = self.line.recv()
        self.clock = RunningClock(start)
        keys = (Secret("bench"), Secret("bench"))
        self.broker = AlpacaAPI(*keys, url, url, self.settings, self.clock, concurrency=connections)
        make = self.broker._make
        self.broker._make = lambda: delayed(make(), latency_s)
        self.broker.trading = self.broker._make()
        delayed(self.broker.data, latency_s)
        self.ledger = Ledger(folder / f"{time.monotonic_ns()}.sqlite3", self.clock)
        self.engine = ExecutionEngine(self.broker, self.ledger, self.clock, self.settings, lambda i, q, b: Decision(i.intent_id, (Check("open", True, ""),)), folder)

    def items(self) -> list[Any]:
        "Ten shares of every name, planned on one request for all quotes."
        from v23.domain import OrderIntent, Purpose, Side
        from v23.execution.order_lifecycle import intent_key
        from v23.execution.order_routing import plan_order

        now, quotes, day = self.clock.now(), self.broker.quotes(self.names), date(*START[:3])
        made = []
        for symbol in self.names:
            key = intent_key("bench", day, symbol, Side.BUY, Purpose.ENTRY)
            intent = OrderIntent(key, "bench", day, symbol, Side.BUY, Decimal(10), Purpose.ENTRY, quotes[symbol].midpoint)
            made.append((plan_order(intent, quotes[symbol], now, now + timedelta(hours=2), self.settings), self.engine.gate(intent, None, ())))
        return made

    def requests(self) -> int:
        "HTTP requests the exchange has answered."
        self.line.send("requests")
        return int(self.line.recv())

    def close(self) -> None:
        self.broker.close()
        self.ledger.close()
        self.line.send("end")
        self.server.join()


def engine_round(round_: Round) -> dict[str, float]:
    "Seconds until the last order is acknowledged and until all are filled; requests and commits."
    commits = [0.0, 0.0]
    record_all = round_.ledger.record_all

    def counted(items: Any) -> int:
        began = time.perf_counter()
        seq = record_all(items)
        commits[0] += 1
        commits[1] += time.perf_counter() - began
        return seq

    send_all, sent = round_.engine.wire.send_all, [0.0]

    def timed(*orders: Any) -> Any:
        began = time.perf_counter()
        done = send_all(*orders)
        sent[0] += time.perf_counter() - began
        return done

    round_.ledger.record_all, round_.engine.wire.send_all = counted, timed  # type: ignore[method-assign]
    requests, began = round_.requests(), time.perf_counter()
    round_.broker.account(), round_.broker.positions(), round_.broker.market_clock()
    round_.engine.plan(round_.items())
    round_.engine.work(date(*START[:3]), round_.clock.now() + timedelta(minutes=1))
    wall = time.perf_counter() - began
    filled = sum(o.filled_quantity == o.quantity for o in round_.ledger.orders())
    if filled < len(round_.names):
        raise SystemExit(f"bench_orders: {filled} of {len(round_.names)} orders filled")
    return {"send_s": sent[0], "wall_s": wall, "requests": round_.requests() - requests, "commits": commits[0], "journal_s": commits[1]}


def naive_round(round_: Round) -> dict[str, float]:
    "The loop one writes first."
    from alpaca.data.requests import StockLatestQuoteRequest
    from alpaca.trading.enums import OrderSide, TimeInForce
    from alpaca.trading.requests import MarketOrderRequest

    trading, data = round_.broker.trading, round_.broker.data
    requests, began = round_.requests(), time.perf_counter()
    for symbol in round_.names:
        data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols=symbol))
        order = trading.submit_order(MarketOrderRequest(symbol=symbol, qty=10, side=OrderSide.BUY, time_in_force=TimeInForce.DAY))
        trading.get_order_by_id(order["id"])
    wall = time.perf_counter() - began
    return {"wall_s": wall, "requests": round_.requests() - requests}


def fsync_floor(folder: Path, times: int, size: int = 1_000) -> float:
    "Seconds of so many appends, each synced."
    with open(folder / "floor.bin", "ab") as f:
        began = time.perf_counter()
        for _ in range(times):
            f.write(b"x" * size)
            f.flush()
            os.fdatasync(f.fileno())
        return time.perf_counter() - began


def commit_rates(folder: Path, clock: Any, times: int = 300) -> dict[str, float]:
    "Commits a second of the ledger, one event each, and of an append and fdatasync of as many bytes, in turns."
    from v23.adapters.ledger import Ledger

    body = {"session": "2026-01-23", "text": "x" * 800}
    ledger, rates = Ledger(folder / "rates.sqlite3", clock), []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(times):
            ledger.record("note", body)
        rates.append((times / (time.perf_counter() - began), times / fsync_floor(folder, times)))
    ledger.close()
    ours, floor = (statistics.median(r[i] for r in rates) for i in (0, 1))
    return {"commits_per_s": ours, "fsyncs_per_s": floor, "commit_over_fsync": floor / ours}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=60)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 50.0], help="milliseconds added to every request")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from v23.synthetic_market import synthetic_panel

    panel, rows = synthetic_panel(7, max(100, options.orders), date(2025, 9, 2), date(2026, 2, 27)), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for latency in options.latency:
            results: dict[str, list[dict[str, float]]] = {"v23": [], "naive": []}
            for _ in range(options.rounds):
                for kind, work in (("v23", engine_round), ("naive", naive_round)):
                    made = Round(panel, options.orders, latency / 1e3, options.connections, folder)
                    try:
                        results[kind].append(work(made))
                    finally:
                        made.close()
            best = {k: statistics.median(r[k] for r in results["v23"]) for k in results["v23"][0]}
            loop = {k: statistics.median(r[k] for r in results["naive"]) for k in results["naive"][0]}
            floor = math.ceil(options.orders / options.connections) * latency / 1e3
            synced = fsync_floor(folder, int(best["commits"]))
            rows.append({
                "latency_ms": latency, "orders": options.orders, "connections": options.connections, "floor_s": floor, "send_s": best["send_s"],
                "send_over_floor": best["send_s"] / floor if floor else None, "wall_s": best["wall_s"], "naive_s": loop["wall_s"], "naive_over_v23": loop["wall_s"] / best["send_s"],
                "requests": best["requests"], "naive_requests": loop["requests"], "commits": best["commits"], "journal_s": best["journal_s"], "journal_over_fsync": best["journal_s"] / synced,
            })  # fmt: skip
        rates = commit_rates(folder, RunningClock(datetime(*START, tzinfo=UTC)))
    if options.json:
        print(json.dumps({"rebalance": rows, "ledger": rates}))
        return 0
    for r in rows:
        over = f" ({r['send_over_floor']:.2f} x floor {r['floor_s']:.3f} s)" if r["send_over_floor"] else ""
        print(f"{r['orders']} orders, {r['latency_ms']:g} ms, {r['connections']} connections")
        print(f"  v23      sent in {r['send_s']:.3f} s{over}; all filled after {r['wall_s']:.3f} s; {r['requests']:.0f} requests")
        print(f"  naive    {r['naive_s']:.3f} s, {r['naive_over_v23']:.1f} x v23 sending; {r['naive_requests']:.0f} requests")
        print(f"  journal  {r['commits']:.0f} commits, {r['journal_s'] * 1e3:.1f} ms, {r['journal_over_fsync']:.2f} x append and fdatasync")
    print(f"ledger       {rates['commits_per_s']:.0f} commits/s, one event each; append and fdatasync {rates['fsyncs_per_s']:.0f}/s ({rates['commit_over_fsync']:.2f} x its time)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
