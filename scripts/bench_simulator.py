#!/usr/bin/env python
"""How fast the simulated exchange answers, in process and over HTTP on loopback.

Lines of the table:
  GET account, POST order, GET order   requests a second: in process (the state machine alone), through alpaca-py in
                                       process (LoopbackAdapter, no sockets) and through alpaca-py over HTTP
  orders                               account, positions, a quote and a market order for each of 60 names of a 500-name
                                       panel, every order asked for by id until it is filled, positions, executions;
                                       days a second of this alone
  session                              the same, and until the close what a desk that owns an account asks for: its open
                                       orders every 30 seconds, the clock every minute, account and positions every 5
                                       minutes; sessions a second, the same requests in process and over HTTP
  ratio                                a session in process / over HTTP; below --floor the exit code is 1

Example:  python scripts/bench_simulator.py --days 5 --json
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from v23.market_calendar import NEW_YORK, next_session, session_hours, session_of
from v23.simulator.exchange import Exchange

NAMES, ORDERS = 500, 60
POLL_S, HEARTBEAT, RECONCILIATION = 30, 2, 10  # Seconds; polls


def rate(work: Callable[[], object], seconds: float = 0.5) -> float:
    "Calls a second, after one to warm up."
    work()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - began)


def market_order(name: str) -> Any:
    "The order for the official client."
    from alpaca.trading.requests import MarketOrderRequest

    return MarketOrderRequest(symbol=name, qty=10, side="buy", time_in_force="day")


class Near:
    "A desk that asks the state machine."

    def __init__(self, x: Exchange):
        self.x = x

    def ask(self, method: str, path: str, body: bytes = b"", **query: str) -> bytes:
        "One request."
        return self.x.handle(method, path, query, body).body

    def account(self) -> object:
        "What it has."
        return self.ask("GET", "/v2/account")

    def positions(self) -> object:
        "What it holds."
        return self.ask("GET", "/v2/positions")

    def clock(self) -> object:
        "What time it is."
        return self.ask("GET", "/v2/clock")

    def open_orders(self) -> object:
        "What is working."
        return self.ask("GET", "/v2/orders", status="open")

    def fills(self) -> object:
        "What was executed."
        return self.ask("GET", "/v2/account/activities/FILL")

    def quote(self, name: str) -> object:
        "What it costs."
        return self.ask("GET", "/v2/stocks/quotes/latest", symbols=name)

    def buy(self, name: str) -> str:
        "A market order; its id."
        body = {"symbol": name, "qty": "10", "side": "buy", "type": "market", "time_in_force": "day"}
        return str(json.loads(self.ask("POST", "/v2/orders", json.dumps(body).encode()))["id"])

    def status(self, key: str) -> str:
        "How an order stands."
        return str(json.loads(self.ask("GET", f"/v2/orders/{key}"))["status"])


class Far:
    "A desk that asks through alpaca-py and a socket."

    def __init__(self, url: str):
        from alpaca.data.historical import StockHistoricalDataClient
        from alpaca.data.requests import StockLatestQuoteRequest
        from alpaca.trading.client import TradingClient

        self.trading, data = TradingClient("k", "s", url_override=url), StockHistoricalDataClient("k", "s", url_override=url)
        self.account, self.positions, self.clock = self.trading.get_account, self.trading.get_all_positions, self.trading.get_clock
        self.open_orders, self.fills = self.trading.get_orders, lambda: self.trading.get("/account/activities/FILL")
        self.quote = lambda name: data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols=name))
        self.buy = lambda name: str(self.trading.submit_order(market_order(name)).id)
        self.status = lambda key: self.trading.get_order_by_id(key).status.value


def day(x: Exchange, names: tuple[str, ...], desk: Near | Far, watched: bool) -> None:
    "Sixty orders half an hour after the bell; watched: what a desk asks for until the close as well. Then the next day."
    desk.account(), desk.positions()
    placed = []
    for name in names:
        desk.quote(name)
        placed.append(desk.buy(name))
    while placed:
        x.advance_by(1)
        placed = [key for key in placed if desk.status(key) != "filled"]
    desk.positions(), desk.fills()
    polls, close = 0, session_hours(session_of(x.now)).close
    while watched and x.now < close:
        x.advance_by(POLL_S)
        polls += 1
        desk.open_orders()
        if polls % HEARTBEAT == 0:
            desk.clock()
        if polls % RECONCILIATION == 0:
            desk.account(), desk.positions()
    next_morning(x)


def next_morning(x: Exchange) -> None:
    "Half an hour after the next bell, whatever day that is."
    x.advance_to(session_hours(next_session(session_of(x.now))).open + timedelta(minutes=30))


def measure(days: int) -> dict[str, Any]:
    "Every line of the table."
    from alpaca.trading.client import TradingClient

    from v23.simulator.server import LoopbackAdapter, SimulatorServer
    from v23.synthetic_market import synthetic_panel

    panel, start = synthetic_panel(7, NAMES, date(2025, 6, 2), date(2026, 2, 27)), datetime(2025, 9, 2, 10, 0, tzinfo=NEW_YORK)
    names, here, there = panel.symbols[:ORDERS], Exchange(panel, 7, start, Decimal(10**9)), Exchange(panel, 7, start, Decimal(10**9))
    with SimulatorServer(there) as server:
        near, far, client = Near(here), Far(server.url), TradingClient("k", "s", url_override="http://simulated")
        client._session.mount("http://simulated", LoopbackAdapter(here))
        key, order = near.buy(names[0]), far.buy(names[0])
        lines = {
            "GET account": [rate(near.account), rate(client.get_account), rate(far.account)],
            "GET order": [rate(lambda: near.status(key)), rate(lambda: client.get_order_by_id(key)), rate(lambda: far.status(order))],
            "POST order": [rate(lambda: near.buy(names[1])), rate(lambda: client.submit_order(market_order(names[1]))), rate(lambda: far.buy(names[1]))],
        }
        found: dict[str, Any] = {"requests_per_s": lines, "days_per_s": {}, "ratio": {}}
        for name, watched in (("orders", False), ("session", True)):
            times: tuple[list[float], list[float]] = ([], [])
            next_morning(here), next_morning(there)
            for _ in range(days + 1):  # in turn, so that a busy machine disturbs both; the first is not counted
                for kept, x, desk in zip(times, (here, there), (near, far), strict=True):
                    began = time.perf_counter()
                    day(x, names, desk, watched)
                    kept.append(time.perf_counter() - began)
            quick, slow = (min(kept[1:]) for kept in times)  # the best of each: what is left when a busy machine lets go
            found["days_per_s"][name], found["ratio"][name] = [1 / quick, 1 / slow], slow / quick
    return found


def main() -> int:
    "Measure, print, and say whether the floor holds."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=5, help="days that are counted")
    parser.add_argument("--floor", type=float, default=20.0, help="ratio below which the exit code is 1")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    args = parser.parse_args()
    found = measure(args.days)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"{'requests/s':<14}{'in process':>12}{'alpaca-py near':>16}{'over HTTP':>12}")
        for name, row in found["requests_per_s"].items():
            print(f"{name:<14}{row[0]:>12,.0f}{row[1]:>16,.0f}{row[2]:>12,.0f}")
        for name, (quick, slow) in found["days_per_s"].items():
            print(f"{name:<14}{quick:>12.2f}{'':>16}{slow:>12.2f}   a second; {ORDERS} orders, {NAMES} names; ratio {found['ratio'][name]:.1f}")
        print(f"a session in process is {found['ratio']['session']:.1f} times as fast as over HTTP (floor {args.floor:g})")
    return 0 if found["ratio"]["session"] >= args.floor else 1


if __name__ == "__main__":
    sys.exit(main())
