#!/usr/bin/env python
"""How long a verdict takes: `v23 validate` on a recorded campaign, every page included, against the promised seconds.

  scripts/bench_validation.py                    makes a 60-session record on the simulated exchange first
  scripts/bench_validation.py --state state      an existing one
  scripts/bench_validation.py --json

Prints wall and processor seconds of the verdict alone (checks, replay, evidence) and of the command with every page,
each in fresh processes, imports and all, and the ratio of the second to the first in the same run. On a busy machine the
processor seconds are the ones to look at.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

PROMISED = {"verdict": 5.0, "pages": 15.0}


def record(folder: Path, sessions: int, seed: int) -> Path:
    "A paper record of so many sessions."
    from v23.adapters.bars import load_bars
    from v23.campaign import trade_session
    from v23.exchange_host import ExchangeConfig, ExchangeHost, opening_instant
    from v23.trading_desk import open_desk

    panel = load_bars(None, seed=seed)
    chosen = panel.sessions[-sessions:]
    with ExchangeHost(folder, ExchangeConfig("", seed, opening_instant(chosen[0]), Decimal(100_000)), panel=panel) as host, open_desk(state=folder, reports=folder / "reports", host=host) as desk:
        for n, session in enumerate(chosen, 1):
            trade_session(desk, session)
            if n % 10 == 0:
                print(f"  {n} of {sessions} sessions traded", file=sys.stderr, flush=True)
    return folder


def timed(command: list[str], may_end_with: tuple[int, ...] = (0,)) -> tuple[float, float]:
    "Wall and processor seconds of a fresh process, imports and all."
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in may_end_with:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    "The command."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", default="")
    parser.add_argument("--sessions", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="v23-bench-") as folder:
        state = a.state or str(record(Path(folder, "state"), a.sessions, a.seed))
        code = f"from v23.paper_validator import PaperTradingValidator as V; V(state_dir={state!r}).run_validation()"
        commands = {"verdict": ([sys.executable, "-c", code], (0,)), "pages": ([sys.executable, "-m", "v23.cli", "validate", "--state", state, "--reports", f"{folder}/reports"], (0, 3, 4))}
        found = {name: [timed(*command) for _ in range(a.repeat)] for name, command in commands.items()}
    best, used = ({name: min(t[n] for t in times) for name, times in found.items()} for n in (0, 1))
    told = {
        "sessions": a.sessions, "seconds": best, "processor_seconds": used, "promised": PROMISED, "kept": all(best[k] <= PROMISED[k] for k in best),
        "pages_over_verdict": used["pages"] / used["verdict"], "load": os.getloadavg()[0],
    }  # fmt: skip
    if a.json:
        print(json.dumps(told, indent=1))
    else:
        for name, words in (("verdict", "verdict alone"), ("pages", "v23 validate, every page")):
            print(f"{words:<26} {best[name]:6.2f} s, {used[name]:5.2f} s of processor (promised {PROMISED[name]:g} s)")
        print(f"ratio in processor seconds {told['pages_over_verdict']:.2f}; load of the machine {told['load']:.1f}")
    return not told["kept"]


if __name__ == "__main__":
    sys.exit(main())
