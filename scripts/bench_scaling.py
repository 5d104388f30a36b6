#!/usr/bin/env python
"""Whether a backtest and a sweep take time in proportion to the bars they look at.

Each line is a panel (names × sessions): milliseconds of one backtest by the plain engine and by the kernels (best of
rounds, processor time, so that other programs disturb little), nanoseconds per cell, and streams: times the time it takes
to read close and high once through memory. At the sizes --peers names, the other tools that are installed run the same rule
on the same panel (once, after a small one that warms them up), and a second table says how many times faster v23 is.
The exponent at the end is the slope of log time over log cells between the largest panel and the smallest of at least
--floor cells: 1 is linear, below is better. Exits 1 when an exponent is above --most.

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


def measure(names: int, sessions: int, rounds: int, wanted: list[str]) -> dict[str, Any]:
    "One panel; the peers once each."
    from v23.fast_backtest import fast_backtest, use_kernels

    panel = peers.make_panel(names, sessions)
    ms = {"stream": best(lambda: panel.close.sum() + panel.high.sum(), rounds), "v23": best(lambda: fast_backtest(panel, kernel="numpy").figures, rounds)}
    if use_kernels("auto"):
        ms["v23[fast]"] = best(lambda: fast_backtest(panel, kernel="numba").figures, rounds)
    own, frames = [k for k in ms if k != "stream"], peers.frames_of(panel) if wanted else {}
    others = {p: once(p, frames) for p in wanted}
    return {
        "names": names, "sessions": sessions, "ms": ms, "ns_per_cell": {k: v * 1e6 / (names * sessions) for k, v in ms.items()},
        "streams": {k: ms[k] / ms["stream"] for k in own}, "peers_ms": others, "faster": {k: {p: t / ms[k] for p, t in others.items()} for k in own},
    }  # fmt: skip


def once(peer: str, frames: dict[str, Any]) -> float:
    "Milliseconds of processor time of one run of a peer."
    print(f"{peer} …", end=" ", file=sys.stderr, flush=True)
    began = time.process_time()
    peers.quietly(lambda: peers.PEERS[peer][1](frames))
    took = (time.process_time() - began) * 1e3
    print(f"{took / 1e3:.1f} s", file=sys.stderr)
    return took


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
    parser.add_argument("--peers", type=int, nargs="*", default=[500, 5000], help="names at which the other tools run too; none: nowhere")
    parser.add_argument("--slow", action="store_true", help="backtrader too; minutes at 500, hours at 5000")
    parser.add_argument("--without", nargs="*", default=[], help="peers to leave out")
    parser.add_argument("--floor", type=int, default=1_000_000, help="cells below which a fixed cost counts")
    parser.add_argument("--most", type=float, default=1.15, help="exponent at which the exit code is 1")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    args = parser.parse_args()
    wanted = [p for p in peers.PEERS if peers.installed(p) and p not in args.without and (p != "backtrader" or args.slow)]
    missing = [p for p in peers.PEERS if not peers.installed(p)]
    small = peers.frames_of(peers.make_panel(40, 300)) if args.peers else {}
    for p in wanted if args.peers else ():
        once(p, small)
    lines = [measure(n, s, args.rounds, wanted if n in args.peers else []) for s in args.sessions for n in args.names]
    slopes = exponents(lines, args.floor)
    if args.json:
        print(json.dumps({"lines": lines, "exponents": slopes, "not_installed": missing}, indent=1))
    else:
        show(lines, slopes, missing)
    return int(any(v > args.most for k, v in slopes.items() if k != "stream"))


def show(lines: list[dict[str, Any]], slopes: dict[str, float], missing: list[str]) -> None:
    "The panels, what others take beside them, and the slopes."
    kinds = list(lines[0]["ms"])
    print(f"{'panel':>14}" + "".join(f"{k + ' ms':>14}{'ns/cell':>9}" + (f"{'streams':>9}" if k != "stream" else "") for k in kinds))
    for x in lines:
        print(f"{x['names']:>7} × {x['sessions']:<4}" + "".join(f"{x['ms'][k]:>14.2f}{x['ns_per_cell'][k]:>9.1f}" + (f"{x['streams'][k]:>9.1f}" if k in x["streams"] else "") for k in kinds))
    for x in lines:
        for p, ms in x["peers_ms"].items():
            print(f"{x['names']:>7} × {x['sessions']:<4}  {p:<13}{ms:>10.0f} ms   " + "   ".join(f"{k} {x['faster'][k][p]:.1f} times faster" for k in x["faster"]))
    if missing:
        print(f"not installed, not compared: {', '.join(missing)}")
    print("exponent of time over cells: " + ", ".join(f"{k} {v:.2f}" for k, v in slopes.items()))


if __name__ == "__main__":
    sys.exit(main())
