#!/usr/bin/env python
"""How long a configuration of a sweep takes, ledger included, beside pandas and vectorbt in the same run.

Lines of the table, for a grid of 729 V21 configurations on one panel (random walks with missing bars and delistings):
  v23                one process, plain numpy: shared indicators, books side by side, statistics, trial ledger on disk
  v23[fast]          the same through the compiled kernels
  resumed            the same sweep again: everything is in the ledger
  pandas, shared     rolling indicators once, then masks and a loop over holding periods each (a few, scaled)
  pandas, alone      everything per configuration, a loop over days                          (a few, scaled)
  vectorbt, bt       everything per configuration, those that are installed                  (a few, scaled)
Columns: milliseconds per configuration (median of rounds in turn), times faster; streams is the whole sweep over the time it
takes to read close and high once through memory; memory is the highest resident memory of a fresh process that runs the
sweep, over that of the interpreter, in panels.
Exits 1 when v23 and pandas disagree about a Sharpe ratio, or memory reaches --most panels.

Example:  python scripts/bench_sweep.py --names 500 --rounds 3 --json
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_peers as peers
from bench_parts import memory
import numpy as np

GRID = {
    "rsi_ceiling": [30.0, 35.0, 40.0], "volatility_floor": [0.25, 0.3, 0.35], "drawdown_shallow": [-0.08, -0.12, -0.16], "volume_ratio": [1.1, 1.3, 1.5],
    "volatility_ratio": [1.1, 1.2, 1.3], "positions": [20, 30, 40],
}  # fmt: skip
NAMES = {"rsi_ceiling": "rsi", "volatility_floor": "vol", "drawdown_shallow": "shallow", "volume_ratio": "busy", "volatility_ratio": "ratio", "positions": "positions"}


RIVALS = ("pandas, shared", "pandas, alone", "vectorbt", "bt")


def _timed(work: Callable[[], Any]) -> float:
    "Milliseconds."
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def sharpe(net: np.ndarray) -> float:
    "Annualised, ddof 1."
    return float(net.mean() / net.std(ddof=1) * 252**0.5)


def measure(names: int, sessions: int, rounds: int, few: int) -> dict[str, Any]:
    "Milliseconds per configuration of every line."
    from v23.fast_backtest import use_kernels
    from v23.sweep import run_sweep

    panel = peers.make_panel(names, sessions)
    frames, asked = peers.frames_of(panel), _some(few)
    assert panel.digest  # Counted once for all sweeps of a panel
    folder = Path(tempfile.mkdtemp())
    ledgers = iter(range(10**6))
    last: dict[str, Any] = {}

    def sweep(kernel: str) -> Callable[[], int]:
        def run() -> int:
            last[kernel] = folder / f"{next(ledgers)}.jsonl"
            last["found"] = run_sweep(panel, GRID, ledger=last[kernel], kernel=kernel)
            return len(last["found"].frame)

        return run

    def shared() -> int:  # The indicators would be computed once in 729: not counted
        last["pandas"] = [sharpe(peers.careful_run(frames, now, peers.RULE | c)) for c in asked]
        return few

    def alone() -> int:
        [sharpe(peers.pandas_run(frames, None, peers.RULE | c)) for c in asked[:2]]
        return 2

    def other(run: Callable[[dict[str, Any]], np.ndarray]) -> Callable[[], int]:
        def once() -> int:
            peers.quietly(lambda: run(frames))
            return 1

        return once

    now = peers.indicators(frames)
    lines: dict[str, Callable[[], int]] = {"v23": sweep("numpy")}
    if use_kernels("auto"):
        lines["v23[fast]"] = sweep("numba")
    best = "numba" if "v23[fast]" in lines else "numpy"
    lines |= {"resumed": lambda: len(run_sweep(panel, GRID, ledger=last[best], kernel=best).frame), "pandas, shared": shared, "pandas, alone": alone}
    lines |= {p: other(peers.PEERS[p][1]) for p in ("vectorbt", "bt") if peers.installed(p)}
    streams = [_timed(lambda: panel.close.sum() + panel.high.sum()) for _ in range(20)]
    times: dict[str, list[float]] = {n: [] for n in lines}
    for n in range(rounds + 1):
        for name, work in lines.items():
            if n > 1 and name in RIVALS:
                continue
            began = time.perf_counter()
            count = work()
            times[name].append((time.perf_counter() - began) / count)
    ms = {n: statistics.median(t[1:] or t) * 1e3 for n, t in times.items()}
    off = max(abs(p - _sharpe_of(last["found"].frame, c)) for p, c in zip(last["pandas"], asked, strict=True))
    return {"names": names, "sessions": sessions, "configurations": 729, "ms": ms, "best_ms": {n: min(t) * 1e3 for n, t in times.items()}, "stream_ms": min(streams), "streams": {n: v * 729 / min(streams) for n, v in ms.items()}, "sharpe_off": off}


def _some(few: int) -> list[dict[str, Any]]:
    "A few configurations of the grid, spread over it, in the peers' words."
    rng = np.random.default_rng(3)
    return [{NAMES[n]: v[int(rng.integers(3))] for n, v in GRID.items()} for _ in range(few)]


def _sharpe_of(frame: Any, rule: dict[str, Any]) -> float:
    row = frame[np.logical_and.reduce([frame[n] == rule[short] for n, short in NAMES.items()])]
    return float(row["sharpe"].iloc[0])


MEMORY = """
import sys, tempfile
from pathlib import Path
sys.path.insert(0, {folder!r})
import bench_peers, bench_sweep
from v23.sweep import run_sweep
folder = Path(tempfile.mkdtemp())
def sweep(panel, grid, name):
    return run_sweep(panel, grid, ledger=folder / name, kernel={kernel!r})
sweep(bench_peers.make_panel(30, 200), {{"positions": [5, 6]}}, "warm.jsonl")
def now():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1])
base = now()
panel = bench_peers.make_panel({names}, {sessions})
open("/proc/self/clear_refs", "w").write("5")
sweep(panel, bench_sweep.GRID, "t.jsonl")
peak = int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
print((peak - base) * 1024 / (panel.close.nbytes * 5))
"""


def main() -> int:
    "Measure, print, and say whether the Sharpe ratios agree."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, nargs="+", default=[500])
    parser.add_argument("--sessions", type=int, default=2520)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--few", type=int, default=4, help="configurations that pandas runs")
    parser.add_argument("--most", type=float, default=6.0, help="panels of memory at which the exit code is 1")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    args = parser.parse_args()
    found, bad = [], 0
    for names in args.names:
        line = measure(names, args.sessions, args.rounds, args.few)
        line["memory"] = {k: memory(MEMORY, names, args.sessions, "numpy" if k == "v23" else "numba") for k in line["ms"] if k.startswith("v23")}
        bad |= int(line["sharpe_off"] > 1e-9) | int(max(line["memory"].values()) >= args.most)
        found.append(line)
        if not args.json:
            show(line)
    if args.json:
        print(json.dumps(found, indent=1))
    return bad


def show(line: dict[str, Any]) -> None:
    "One panel as a table."
    rivals = [p for p in RIVALS if p in line["ms"]]
    print(f"\n{line['names']} × {line['sessions']}, {line['configurations']} configurations; largest difference of a Sharpe ratio to pandas {line['sharpe_off']:.1e}")
    print(f"{'':<16}{'ms each':>10}{'best':>10}" + "".join(f"{'× ' + p:>18}" for p in rivals) + f"{'streams':>10}{'memory':>8}")
    for name, ms in line["ms"].items():
        faster = "".join(f"{line['ms'][p] / ms:>18.1f}" if name not in rivals else f"{'':>18}" for p in rivals)
        rest = f"{line['memory'][name]:>8.2f}" if name in line["memory"] else ""
        print(f"{name:<16}{ms:>10.3f}{line['best_ms'][name]:>10.3f}{faster}{line['streams'][name]:>10.0f}{rest}")
    if missing := [p for p in ("vectorbt", "bt") if not peers.installed(p)]:
        print(f"not installed, not compared: {', '.join(missing)}")


if __name__ == "__main__":
    sys.exit(main())
