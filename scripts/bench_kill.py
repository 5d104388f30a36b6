#!/usr/bin/env python
"""A kill over HTTP, against the least it could take, and the emergency commands from the prompt to their first byte.

Lines, for each latency (added to every request, as a network would):
  floor     one cancel-all and one sale per position on the same connections, nothing written down, nothing asked
  v23       activation until the last sale has left: latched, journaled, checked, the request budget on; then until flat twice
  naive     a plain loop over alpaca-py: cancel_orders(), get_all_positions(), close_position() one after the other
Start-up, a process each:
  bare      the interpreter that does nothing
  kill, panic   until the first byte of a request reaches the exchange
  alpaca    the same for a script of two lines on alpaca-py

Example:  python scripts/bench_kill.py --positions 30 --latency 0 50 --rounds 3 --json
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench_parts import START, RunningClock

ALPACA = "from alpaca.trading.client import TradingClient; TradingClient('k', 's', paper=True, url_override={url!r}).cancel_orders()"


class Round:
    "A fresh exchange that holds positions and open orders."

    def __init__(self, panel: Any, positions: int, opens: int):
        from v23.market_calendar import NEW_YORK
        from v23.simulator.exchange import Exchange
        from v23.simulator.server import SimulatorServer

        start = datetime(*START, tzinfo=NEW_YORK)
        self.exchange, self.positions = Exchange(panel, 7, start, Decimal(10**8)), positions
        for symbol in panel.symbols[:positions]:
            self.post({"symbol": symbol, "qty": "10", "side": "buy", "type": "market", "time_in_force": "day"})
        self.exchange.advance_by(20)
        for symbol in panel.symbols[positions : positions + opens]:
            self.post({"symbol": symbol, "qty": "10", "side": "buy", "type": "limit", "limit_price": "1", "time_in_force": "day"})
        self.exchange.advance_by(2)
        if len(self.exchange.holdings) != positions or len(self.exchange.open_orders) != opens:
            raise SystemExit(f"bench_kill: {len(self.exchange.holdings)} positions and {len(self.exchange.open_orders)} open orders before the kill")
        self.server = SimulatorServer(self.exchange, speed=1.0)
        self.server.__enter__()
        self.clock = RunningClock(self.exchange.now)

    def post(self, body: dict[str, str]) -> None:
        self.exchange.handle("POST", "/v2/orders", {}, json.dumps(body).encode())

    def close(self) -> None:
        self.server.__exit__()


class Counted:
    "Transports whose requests are counted, timed and late."

    def __init__(self, broker: Any, latency_s: float):
        self.sent: list[tuple[float, str, str]] = []
        make = broker._make

        def late() -> Any:
            transport = make()
            request = transport.request

            def slow(method: str, path: str, *rest: Any, **more: Any) -> Any:
                self.sent.append((time.perf_counter(), method, path))
                if latency_s:
                    time.sleep(latency_s)
                return request(method, path, *rest, **more)

            transport.request = slow
            return transport

        broker._make, broker.trading = late, late()

    def sales(self) -> list[float]:
        return [at for at, method, path in self.sent if (method, path) == ("POST", "/orders")]


def light(round_: Round, latency_s: float, connections: int) -> tuple[Any, Counted]:
    from v23.adapters.light_alpaca import LightAlpaca
    from v23.settings import Secret

    broker = LightAlpaca(Secret("k"), Secret("s"), round_.server.url, round_.clock, concurrency=connections)
    return broker, Counted(broker, latency_s)


def kill_round(round_: Round, latency_s: float, connections: int) -> dict[str, float]:
    "The kill switch as the emergency command uses it."
    from v23.emergency import kill_alone

    broker, counted = light(round_, latency_s, connections)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        report = kill_alone(Path(folder), broker, round_.clock, "bench", "bench")
        wall = time.perf_counter() - began
    broker.close()
    last = max(counted.sales())
    if not report["flat"] or round_.exchange.holdings or len(counted.sales()) != round_.positions:
        raise SystemExit(f"bench_kill: not flat, or {len(counted.sales())} sales of {round_.positions}: {report}")
    return {"last_sent_s": last - began, "requests_until_last": sum(at <= last for at, _, _ in counted.sent), "flat_s": wall, "requests": len(counted.sent)}


def floor_round(round_: Round, latency_s: float, connections: int) -> dict[str, float]:
    "The same requests and nothing else."
    import threading

    broker, counted = light(round_, latency_s, connections)
    own = threading.local()
    symbols = sorted(round_.exchange.holdings)

    def sell(symbol: str) -> None:
        if not hasattr(own, "transport"):
            own.transport = broker._make()
        own.transport.post("/orders", {"symbol": symbol, "qty": "10", "side": "sell", "type": "market", "time_in_force": "day"})

    began = time.perf_counter()
    broker.trading.delete("/orders")
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(sell, symbols))
    return {"last_sent_s": max(counted.sales()) - began, "requests_until_last": len(counted.sent)}


def naive_round(round_: Round, latency_s: float, connections: int) -> dict[str, float]:
    "The loop one writes first."
    from alpaca.trading.client import TradingClient

    client = TradingClient("k", "s", paper=True, url_override=round_.server.url, raw_data=True)
    send, sent = client._session.send, []

    def slow(request: Any, **options: Any) -> Any:
        sent.append(time.perf_counter())
        time.sleep(latency_s)
        return send(request, **options)

    client._session.send = slow  # type: ignore[method-assign]
    began = time.perf_counter()
    client.cancel_orders()
    for p in client.get_all_positions():
        client.close_position(p["symbol"])  # type: ignore[index]
    return {"last_sent_s": max(sent) - began, "requests_until_last": len(sent)}


def first_byte(round_: Round, command: list[str], more: dict[str, str]) -> float:
    "Seconds from the start of a process to its first request at the exchange."
    seen: list[float] = []
    answer = round_.server.shell.answer

    def noting(*a: Any, **k: Any) -> Any:
        seen.append(time.perf_counter())
        return answer(*a, **k)

    round_.server.shell.answer = noting  # type: ignore[method-assign]
    keys = {"V23_MODE": "paper", "ALPACA_BASE_URL": round_.server.url, "ALPACA_API_KEY": "k", "ALPACA_API_SECRET": "s"}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        running = subprocess.Popen(command, cwd=folder, env=_environment() | keys | more, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not seen and running.poll() is None:
            time.sleep(0.0005)
        running.kill()
        running.wait()
    round_.server.shell.answer = answer  # type: ignore[method-assign]
    if not seen:
        raise SystemExit(f"bench_kill: {command} sent nothing")
    return seen[0] - began


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE" and not k.startswith(("V23_", "ALPACA_"))}


def bare() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True, env=_environment())
    return time.perf_counter() - began


def liquidation(panel: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    "Floor, v23 and the loop in turn, for each latency."
    rows = []
    for latency in options.latency:
        results: dict[str, list[dict[str, float]]] = {"floor": [], "v23": [], "naive": []}
        for _ in range(options.rounds):
            for kind, work in (("floor", floor_round), ("v23", kill_round), ("naive", naive_round)):
                made = Round(panel, options.positions, options.opens)
                try:
                    results[kind].append(work(made, latency / 1e3, options.connections))
                finally:
                    made.close()
        best = {kind: {k: statistics.median(r[k] for r in rs) for k in rs[0]} for kind, rs in results.items()}
        rows.append({
            "latency_ms": latency, "positions": options.positions, "open_orders": options.opens, "connections": options.connections,
            "floor_s": best["floor"]["last_sent_s"], "floor_requests": 1 + options.positions, "theory_s": (1 + math.ceil(options.positions / options.connections) - 1) * latency / 1e3,
            "last_sent_s": best["v23"]["last_sent_s"], "over_floor": best["v23"]["last_sent_s"] / best["floor"]["last_sent_s"], "requests_until_last": best["v23"]["requests_until_last"],
            "flat_s": best["v23"]["flat_s"], "requests": best["v23"]["requests"],
            "naive_s": best["naive"]["last_sent_s"], "naive_over_v23": best["naive"]["last_sent_s"] / best["v23"]["last_sent_s"], "naive_requests": best["naive"]["requests_until_last"],
        })  # fmt: skip
    return rows


def start_up(panel: Any, rounds: int) -> dict[str, float]:
    "Medians, the processes in turn."
    made = Round(panel, 3, 1)
    v23 = str(Path(sys.executable).with_name("v23"))
    times: dict[str, list[float]] = {"bare": [], "kill": [], "panic": [], "alpaca": []}
    try:
        for _ in range(rounds):
            times["bare"].append(bare())
            times["kill"].append(first_byte(made, [v23, "kill"], {}))
            times["panic"].append(first_byte(made, [v23, "panic", "--yes"], {}))
            times["alpaca"].append(first_byte(made, [sys.executable, "-c", ALPACA.format(url=made.server.url)], {}))
    finally:
        made.close()
    medians = {k: statistics.median(v) for k, v in times.items()}
    return {f"{k}_s": v for k, v in medians.items()} | {f"{k}_over_bare": medians[k] / medians["bare"] for k in ("kill", "panic", "alpaca")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=30)
    parser.add_argument("--opens", type=int, default=10, help="open orders to cancel")
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 50.0], help="milliseconds added to every request")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from v23.synthetic_market import synthetic_panel

    panel = synthetic_panel(7, options.positions + options.opens, date(2025, 9, 2), date(2026, 2, 27))
    rows, started = liquidation(panel, options), start_up(panel, options.rounds)
    if options.json:
        print(json.dumps({"liquidation": rows, "start_up": started}))
        return 0
    for r in rows:
        print(f"{r['positions']} positions, {r['open_orders']} open orders, {r['latency_ms']:g} ms, {r['connections']} connections")
        print(f"  floor    last sale sent after {r['floor_s']:.3f} s, {r['floor_requests']} requests")
        print(f"  v23      {r['last_sent_s']:.3f} s ({r['over_floor']:.2f} x floor), {r['requests_until_last']:.0f} requests; flat twice after {r['flat_s']:.1f} s and {r['requests']:.0f} requests")
        print(f"  naive    {r['naive_s']:.3f} s ({r['naive_over_v23']:.2f} x v23), {r['naive_requests']:.0f} requests")
    print("from the prompt to the first byte")
    print(f"  bare     {started['bare_s'] * 1e3:.0f} ms (the interpreter alone)")
    for k in ("kill", "panic", "alpaca"):
        print(f"  {k:<8} {started[f'{k}_s'] * 1e3:.0f} ms, {started[f'{k}_over_bare']:.1f} x bare")
    return 0


if __name__ == "__main__":
    sys.exit(main())
