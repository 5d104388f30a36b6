#!/usr/bin/env python
"""Whether a desk that never stops stays small: memory, open files, ledger and the time of a session, over many sessions.

One process trades V21 for as many sessions as asked; the simulated exchange is another, so that only the desk is
measured. The table has one line every ten sessions;
at the end, what the second half added per session is compared with what the first half did. Growth that is not a record
of something traded is a leak: exit 1 when the second half grew the memory by more than --most percent.

Example:  python scripts/bench_desk.py --sessions 60 --json
"""

import argparse
import gc
import json
import multiprocessing
import os
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any


def resident_mb() -> float:
    "Memory of this process that is in use."
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def size_mb(folder: Path) -> float:
    "Bytes of a folder's files."
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def serve(folder: str, seed: int, sessions: int, told: Any) -> None:
    "The exchange, in a process of its own."
    from v23.adapters.bars import load_bars
    from v23.exchange_host import ExchangeConfig, ExchangeHost, opening_instant

    panel = load_bars(seed=seed)
    config = ExchangeConfig("", seed, opening_instant(panel.sessions[-sessions]), Decimal(100_000))
    with ExchangeHost(Path(folder), config, panel=panel) as host:
        told.send(host.url)
        told.recv()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--most", type=float, default=5.0, help="percent of memory the second half may add")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from v23.adapters.bars import load_bars
    from v23.trading_desk import open_desk

    panel, rows = load_bars(seed=options.seed), []
    sessions = panel.sessions[-options.sessions :]
    with tempfile.TemporaryDirectory() as name:
        state = Path(name) / "state"
        ours, theirs = multiprocessing.Pipe()
        other = multiprocessing.get_context("spawn").Process(target=serve, args=(str(Path(name) / "exchange"), options.seed, options.sessions, theirs))
        other.start()
        with open_desk(state=state, reports=Path(name) / "reports", exchange=ours.recv(), panel=panel) as desk:
            for n, session in enumerate(sessions, 1):
                began = time.perf_counter()
                for part in (desk.market_open, desk.rebalance, desk.market_close):
                    if part(session).get("stops"):
                        raise SystemExit(f"bench_desk: the books differ on {session}")
                gc.collect()
                files, orders = len(os.listdir("/proc/self/fd")), len(desk.ledger.orders())
                rows.append({"session": n, "seconds": time.perf_counter() - began, "rss_mb": resident_mb(), "files": files, "ledger_mb": size_mb(state / "execution"), "state_mb": size_mb(state), "orders": orders})
                if not options.json and (n % 10 == 0 or n == 1):
                    r = rows[-1]
                    print(f"session {n:>3}  {r['seconds']:.2f} s  memory {r['rss_mb']:.0f} MB  files {r['files']}  ledger {r['ledger_mb']:.1f} MB  orders {r['orders']}", flush=True)
        ours.send("done")
        other.join()
    half = len(rows) // 2
    grown = (rows[-1]["rss_mb"] / rows[half]["rss_mb"] - 1) * 100
    told = {
        "sessions": len(rows), "orders": rows[-1]["orders"], "memory_growth_second_half_pct": grown, "files_growth": rows[-1]["files"] - rows[half]["files"],
        "ledger_kb_per_order": rows[-1]["ledger_mb"] * 1e3 / max(1, rows[-1]["orders"]), "state_mb": rows[-1]["state_mb"],
        "session_seconds_ratio": sum(r["seconds"] for r in rows[half:]) / max(1e-9, sum(r["seconds"] for r in rows[:half])) * half / (len(rows) - half),
    }  # fmt: skip
    print(json.dumps(told) if options.json else "\n".join(f"{k:<30} {v:.3g}" for k, v in told.items()))
    return int(grown > options.most or told["files_growth"] > 0)


if __name__ == "__main__":
    sys.exit(main())
