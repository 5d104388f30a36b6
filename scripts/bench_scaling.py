#!/usr/bin/env python
"""Whether a backtest and a sweep take time in proportion to the bars they look at.

Each line is a panel (names × sessions): milliseconds of one backtest by the plain engine and by the kernels (best of
rounds in turn, processor time, so that other programs disturb little), nanoseconds per cell, and times the time it takes
to read close and high once. The exponent at the end is the slope of log time over log cells between the largest panel and the
smallest of at least --floor cells: 1 is linear, below is better. Exits 1 when an exponent is above --most.

Example:  python scripts/bench_scaling.py --names 250 500 1000 2000 --json
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import bench_peers as peers


def best(work: Callable[[], Any], rounds: int) -> float:
    "Milliseconds of processor time of the quickest of some rounds, after one that is not counted."
    work()
    times = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times) * 1e3


def measure(names: int, sessions: int, rounds: int) -> dict[str, Any]:
    "One panel."
    from v23.fast_backtest import fast_backtest, use_kernels

    panel = peers.make_panel(names, sessions)
    ms = {"stream": best(lambda: panel.close.sum() + panel.high.sum(), rounds), "v23": best(lambda: fast_backtest(panel, kernel="numpy").figures, rounds)}
    if use_kernels("auto"):
        ms["v23[fast]"] = best(lambda: fast_backtest(panel, kernel="numba").figures, rounds)
    return {"names": names, "sessions": sessions, "ms": ms, "ns_per_cell": {k: v * 1e6 / (names * sessions) for k, v in ms.items()}}


def exponents(lines: list[dict[str, Any]], floor: int) -> dict[str, float]:
    "Slope of log time over log cells."
    large = sorted((x for x in lines if x["names"] * x["sessions"] >= floor), key=lambda x: x["names"] * x["sessions"])
    if len(large) < 2:
        return {}
    low, high = large[0], large[-1]
    cells = math.log(high["names"] * high["sessions"] / (low["names"] * low["sessions"]))
    return {k: math.log(high["ms"][k] / low["ms"][k]) / cells for k in high["ms"]}


def main() -> int:
    "Measure, print, and say whether it is linear."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, nargs="+", default=[250, 500, 1000, 2500, 5000])
    parser.add_argument("--sessions", type=int, nargs="+", default=[2520])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--floor", type=int, default=1_000_000, help="cells below which a fixed cost counts")
    parser.add_argument("--most", type=float, default=1.15, help="exponent at which the exit code is 1")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    args = parser.parse_args()
    lines = [measure(n, s, args.rounds) for s in args.sessions for n in args.names]
    slopes = exponents(lines, args.floor)
    if args.json:
        print(json.dumps({"lines": lines, "exponents": slopes}, indent=1))
    else:
        kinds = list(lines[0]["ms"])
        print(f"{'panel':>14}" + "".join(f"{k + ' ms':>14}{'ns/cell':>9}" for k in kinds))
        for x in lines:
            print(f"{x['names']:>7} × {x['sessions']:<4}" + "".join(f"{x['ms'][k]:>14.2f}{x['ns_per_cell'][k]:>9.1f}" for k in kinds))
        print("exponent of time over cells: " + ", ".join(f"{k} {v:.2f}" for k, v in slopes.items()))
    return int(any(v > args.most for k, v in slopes.items() if k != "stream"))


if __name__ == "__main__":
    sys.exit(main())
