#!/usr/bin/env python
"""How long one backtest of V21 takes, beside other tools in the same run, and how much memory.

Lines of the table, per panel (random walks; missing bars and delistings unless --clean):
  stream             reading close and high once through memory: nothing that looks at all bars can be faster
  v23                the plain engine: signals, simulation, trades, turnover, costs and the figures
  v23[fast]          the compiled kernels, the same result to 1e-9
  plain pandas, vectorbt, bt, backtrader   those that are installed; backtrader only with --slow
Columns: milliseconds (median of rounds in turn; what takes less than a tenth of a second runs five times in its turn), times faster than each peer, times the stream.
  memory             highest resident memory over that of the interpreter, as a multiple of the panel, for one run
Exits 1 when v23 and plain pandas do not end at the same equity, or memory reaches --most times the panel.

Example:  python scripts/bench_backtest.py --names 500 --rounds 5 --json
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import bench_peers as peers
from bench_parts import memory
import numpy as np


def ours(panel: Any, kernel: str) -> np.ndarray:
    "Net daily returns of one run whose figures were looked at."
    from v23.fast_backtest import fast_backtest

    result = fast_backtest(panel, kernel=kernel)
    assert result.figures["trades"]
    return result.out[:, 2]


def measure(names: int, sessions: int, rounds: int, clean: bool, wanted: list[str]) -> dict[str, Any]:
    "Milliseconds of every line, and where each ended."
    from v23.fast_backtest import use_kernels

    panel = peers.make_panel(names, sessions, holes=not clean)
    frames = peers.frames_of(panel)
    lines: dict[str, Callable[[], Any]] = {"stream": lambda: panel.close.sum() + panel.high.sum(), "v23": lambda: ours(panel, "numpy")}
    if use_kernels("auto"):
        lines["v23[fast]"] = lambda: ours(panel, "numba")
    for name in wanted:
        lines[name] = lambda run=peers.PEERS[name][1]: peers.quietly(lambda: run(frames))  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in lines}
    ends: dict[str, float] = {}
    for n in range(rounds + 1):  # In turn, so that a busy machine disturbs all; the first is not counted unless it is the only one
        for name, work in lines.items():
            if name in peers.PEERS and n > 1 and times[name][-1] > 5:
                continue  # What takes seconds is measured once
            for _ in range(5 if times[name] and times[name][-1] < 0.1 else 1):
                began = time.perf_counter()
                found = work()
                times[name].append(time.perf_counter() - began)
            if isinstance(found, np.ndarray):
                ends[name] = float(np.prod(1 + found))
    median = {name: statistics.median(t[1:] or t) * 1e3 for name, t in times.items()}
    best = {name: min(t) * 1e3 for name, t in times.items()}
    return {"names": names, "sessions": sessions, "ms": median, "best_ms": best, "end": ends, "ns_per_cell": {n: best[n] * 1e6 / (names * sessions) for n in best}}


MEMORY = """
import sys
sys.path.insert(0, {folder!r})
import bench_peers
from v23.fast_backtest import fast_backtest
small = bench_peers.make_panel(20, 200)
fast_backtest(small, kernel={kernel!r}).figures
def now():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1])
base = now()
panel = bench_peers.make_panel({names}, {sessions})
held = now()
open("/proc/self/clear_refs", "w").write("5")
fast_backtest(panel, kernel={kernel!r}).figures
peak = int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
print((peak - base) * 1024 / (panel.close.nbytes * 5), (held - base) * 1024 / (panel.close.nbytes * 5))
"""


def main() -> int:
    "Measure, print, and say whether the ends meet."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--sessions", type=int, default=2520)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clean", action="store_true", help="no missing bars, no delistings")
    parser.add_argument("--slow", action="store_true", help="backtrader too; minutes")
    parser.add_argument("--without", nargs="*", default=[], help="peers to leave out")
    parser.add_argument("--most", type=float, default=3.0, help="panels of memory at which the exit code is 1")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    args = parser.parse_args()
    wanted = [p for p in peers.PEERS if peers.installed(p) and p not in args.without and (p != "backtrader" or args.slow)]
    found, bad = [], 0
    for names in args.names:
        line = measure(names, args.sessions, args.rounds, args.clean, wanted)
        line["memory"] = {k: memory(MEMORY, names, args.sessions, "numpy" if k == "v23" else "numba") for k in line["ms"] if k.startswith("v23")}
        own = [k for k in line["ms"] if k.startswith("v23")]
        line["faster"] = {k: {p: line["ms"][p] / line["ms"][k] for p in wanted} for k in own}
        line["streams"] = {k: line["ms"][k] / line["ms"]["stream"] for k in own}
        known = [line["end"][k] for k in (*own, "plain pandas") if k in line["end"]]
        bad |= int(max(known) / min(known) - 1 > 1e-9) | int(max(line["memory"].values()) >= args.most)
        found.append(line)
        if not args.json:
            show(line, wanted)
    if args.json:
        print(json.dumps(found, indent=1))
    return bad


def show(line: dict[str, Any], wanted: list[str]) -> None:
    "One panel as a table."
    print(f"\n{line['names']} × {line['sessions']}  ({resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB in all)")
    head = "".join(f"{'× ' + p:>15}" for p in wanted)
    print(f"{'':<14}{'ms':>10}{'best':>10}{'ns/cell':>9}{'end':>10}{head}{'streams':>9}{'memory':>8}")
    for name, ms in line["ms"].items():
        faster = "".join(f"{line['faster'][name][p]:>15.1f}" if name in line["faster"] else f"{'':>15}" for p in wanted)
        rest = f"{line['streams'][name]:>9.1f}{line['memory'][name]:>8.2f}" if name in line["streams"] else ""
        print(f"{name:<14}{ms:>10.2f}{line['best_ms'][name]:>10.2f}{line['ns_per_cell'][name]:>9.1f}{line['end'].get(name, float('nan')):>10.4f}{faster}{rest}")

    if missing := [p for p in peers.PEERS if not peers.installed(p)]:
        print(f"not installed, not compared: {', '.join(missing)}")


if __name__ == "__main__":
    sys.exit(main())
