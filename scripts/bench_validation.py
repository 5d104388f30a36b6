#!/usr/bin/env python
"""How long a verdict takes: `v23 validate` on a recorded campaign, every page included, against the promised seconds.

  scripts/bench_validation.py                    makes a 60-session record on the simulated exchange first
  scripts/bench_validation.py --state state      an existing one
  scripts/bench_validation.py --json

Prints the verdict alone (checks, replay, evidence), the command with every page, and the ratio of the second to the
first in the same run.
"""

import argparse
import json
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


def timed(code: str) -> float:
    "Seconds of a fresh process, imports and all."
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - start


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
        verdict = f"from v23.paper_validator import PaperTradingValidator as V; V(state_dir={state!r}).run_validation()"
        pages = f"from v23.go_live import validate_state as v; v({state!r}, {folder + '/reports'!r})"
        best = {"verdict": min(timed(verdict) for _ in range(a.repeat)), "pages": min(timed(pages) for _ in range(a.repeat))}
    told = {"sessions": a.sessions, "seconds": best, "promised": PROMISED, "kept": all(best[k] <= PROMISED[k] for k in best), "pages_over_verdict": best["pages"] / best["verdict"]}
    if a.json:
        print(json.dumps(told, indent=1))
    else:
        print(f"verdict {best['verdict']:.2f} s (promised {PROMISED['verdict']:g}), with every page {best['pages']:.2f} s (promised {PROMISED['pages']:g}), ratio {told['pages_over_verdict']:.2f}")
    return not told["kept"]


if __name__ == "__main__":
    sys.exit(main())
