#!/usr/bin/env python
"""How fast the simulated exchange answers, in process and over HTTP on loopback.

Lines of the table:
  GET account, POST order, GET order   requests a second: in process (the state machine alone), through alpaca-py in
                                       process (LoopbackAdapter, no sockets) and through alpaca-py over HTTP
  day                                  sessions a second of one day: account, positions, a quote and a market order for
                                       each of 60 names of a 500-name panel, every order asked for by id until it is
                                       filled, positions, executions, and time to the next morning; the same requests
                                       in process and over HTTP
  ratio                                day in process / day over HTTP; below --floor the exit code is 1

Example:  python scripts/bench_simulator.py --days 5 --json
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from v23.simulator.exchange import Exchange

NAMES, ORDERS = 500, 60


def rate(work: Callable[[], object], seconds: float = 0.5) -> float:
    "Calls a second, after one to warm up."
    work()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - began)


class Bench:
    "An exchange of 500 names, and the doors to it."

    def __init__(self) -> None:
        from alpaca.data.historical import StockHistoricalDataClient
        from alpaca.trading.client import TradingClient

        from v23.market_calendar import NEW_YORK
        from v23.simulator.exchange import Exchange
        from v23.simulator.server import LoopbackAdapter, SimulatorServer
        from v23.synthetic_market import synthetic_panel

        panel, start = synthetic_panel(7, NAMES, date(2025, 6, 2), date(2026, 2, 27)), datetime(2025, 9, 2, 10, 0, tzinfo=NEW_YORK)
        self.names = panel.symbols[:ORDERS]
        self.exchange = Exchange(panel, 7, start, Decimal(10**9))
        self.served = Exchange(panel, 7, start, Decimal(10**9))
        self.server = SimulatorServer(self.served)
        self.server.__enter__()
        self.near = TradingClient("k", "s", url_override="http://simulated")
        self.near._session.mount("http://simulated", LoopbackAdapter(self.exchange))
        self.far = TradingClient("k", "s", url_override=self.server.url)
        self.data = StockHistoricalDataClient("k", "s", url_override=self.server.url)

    def ask(self, method: str, path: str, body: bytes = b"", **query: str) -> bytes:
        "One request to the state machine."
        return self.exchange.handle(method, path, query, body).body

    @staticmethod
    def next_day(x: "Exchange") -> None:
        "Half an hour after the next bell, whatever day that is."
        from v23.market_calendar import next_session, session_hours, session_of

        x.advance_to(session_hours(next_session(session_of(x.now))).open + timedelta(minutes=30))

    @staticmethod
    def body(symbol: str) -> bytes:
        "A market order."
        return json.dumps({"symbol": symbol, "qty": "10", "side": "buy", "type": "market", "time_in_force": "day"}).encode()

    def day_in_process(self) -> None:
        "The day, without sockets and without a client."
        self.ask("GET", "/v2/account"), self.ask("GET", "/v2/positions")
        placed = []
        for name in self.names:
            self.ask("GET", "/v2/stocks/quotes/latest", symbols=name)
            placed.append(json.loads(self.ask("POST", "/v2/orders", self.body(name)))["id"])
        while placed:
            self.exchange.advance_by(1)
            placed = [i for i in placed if json.loads(self.ask("GET", f"/v2/orders/{i}"))["status"] != "filled"]
        self.ask("GET", "/v2/positions"), self.ask("GET", "/v2/account/activities/FILL")
        self.next_day(self.exchange)

    def day_over_http(self) -> None:
        "The same requests through alpaca-py and a socket; time moves without one."
        from alpaca.data.requests import StockLatestQuoteRequest

        self.far.get_account(), self.far.get_all_positions()
        placed = []
        for name in self.names:
            self.data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols=name))
            placed.append(self.far.submit_order(self.order(name)).id)
        while placed:
            self.served.advance_by(1)
            placed = [i for i in placed if self.far.get_order_by_id(i).status.value != "filled"]
        self.far.get_all_positions(), self.far.get("/account/activities/FILL")
        self.next_day(self.served)

    @staticmethod
    def order(name: str) -> object:
        "The same order for the client."
        from alpaca.trading.requests import MarketOrderRequest

        return MarketOrderRequest(symbol=name, qty=10, side="buy", time_in_force="day")

    def measure(self, days: int) -> dict[str, object]:
        "Every line of the table."
        order = self.far.submit_order(self.order(self.names[0]))
        near = self.near.submit_order(self.order(self.names[0]))
        lines = {
            "GET account": [rate(lambda: self.ask("GET", "/v2/account")), rate(self.near.get_account), rate(self.far.get_account)],
            "GET order": [rate(lambda: self.ask("GET", f"/v2/orders/{near.id}")), rate(lambda: self.near.get_order_by_id(near.id)), rate(lambda: self.far.get_order_by_id(order.id))],
            "POST order": [rate(lambda: self.ask("POST", "/v2/orders", self.body(self.names[1]))), rate(lambda: self.near.submit_order(self.order(self.names[1]))), rate(lambda: self.far.submit_order(self.order(self.names[1])))],
        }  # fmt: skip
        for x in (self.exchange, self.served):
            self.next_day(x)
        times: dict[str, list[float]] = {"in process": [], "over HTTP": []}
        for _ in range(days + 1):  # in turn, so that a busy machine disturbs both; the first is not counted
            for name, day in (("in process", self.day_in_process), ("over HTTP", self.day_over_http)):
                began = time.perf_counter()
                day()
                times[name].append(time.perf_counter() - began)
        near_day, far_day = (statistics.median(t[1:]) for t in times.values())
        return {"requests_per_s": lines, "sessions_per_s": {"in process": 1 / near_day, "over HTTP": 1 / far_day}, "ratio": far_day / near_day}


def main() -> int:
    "Measure, print, and say whether the floor holds."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=5, help="days that are counted")
    parser.add_argument("--floor", type=float, default=20.0, help="ratio below which the exit code is 1")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    args = parser.parse_args()
    bench = Bench()
    try:
        found = bench.measure(args.days)
    finally:
        bench.server.__exit__()
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"{'requests/s':<14}{'in process':>12}{'alpaca-py near':>16}{'over HTTP':>12}")
        for name, row in found["requests_per_s"].items():
            print(f"{name:<14}{row[0]:>12,.0f}{row[1]:>16,.0f}{row[2]:>12,.0f}")
        days = found["sessions_per_s"]
        print(f"{'day':<14}{days['in process']:>12.1f}{'':>16}{days['over HTTP']:>12.2f}   sessions/s, {ORDERS} orders, {NAMES} names")
        print(f"ratio {found['ratio']:.1f} (floor {args.floor:g})")
    return 0 if found["ratio"] >= args.floor else 1


if __name__ == "__main__":
    sys.exit(main())
