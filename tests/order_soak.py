"Many seeded sessions of the order path, judged against the exchange's books, and proof that the trouble really happened."

import argparse
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from order_harness import Outcome, run_seed

MUST_BE_ZERO = ("duplicate_orders", "lost_fills", "double_fills", "shorts", "limit_breaches", "entries_after_latch")
ALSO_ZERO = ("kills_not_flat", "unsettled", "broken_chain")
STATES = ("planned", "denied", "sending", "unknown", "working", "cancel_sent", "filled", "canceled", "expired", "rejected", "abandoned")
AT_LEAST = 20


def sessions_of(seed: int) -> int:
    "One, two or three."
    return 1 + seed % 3


def seeds_for(sessions: int, seed: int) -> list[int]:
    "Seeds that make up this many sessions; runs of different seeds share none."
    found: list[int] = []
    first, n = seed * 1_000_000, 0
    while n < sessions:
        found.append(first + len(found))
        n += sessions_of(found[-1])
    return found


def outcomes(seeds: list[int], workers: int) -> Iterator[Outcome]:
    "The outcome of every seed, in order."
    if workers <= 1:
        yield from map(run_seed, seeds)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(run_seed, seeds, chunksize=4)


def summed(results: Iterable[Outcome], seed: int) -> dict[str, Any]:
    "The report of a soak."
    totals: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    points: Counter[str] = Counter()
    violations: list[dict[str, Any]] = []
    chain = hashlib.sha256()
    for o in results:
        totals += Counter({"sessions": o.sessions, "faults_injected": o.faults, "crashes": o.crashes, "kills": o.kills, "orders": o.orders})
        counts += o.counts
        pairs += o.pairs
        points += o.points
        violations += [{"seed": o.seed, "what": what, "detail": detail} for what, detail in o.violations]
        chain.update(f"{o.seed} {o.chain}\n".encode())
    report: dict[str, Any] = {"seed": seed} | {k: totals[k] for k in ("sessions", "faults_injected", "crashes", "kills", "orders")}
    report |= {k: counts[k] for k in (*MUST_BE_ZERO, *ALSO_ZERO)}
    seen = {f"{fault} x {state}": n for (fault, state), n in sorted(pairs.items())}
    return report | {"violations": violations[:50], "crash_points": dict(sorted(points.items())), "pairs": seen, "chain": chain.hexdigest()}


def progress(results: Iterable[Outcome], total: int) -> Iterator[Outcome]:
    "A bar on stderr."
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from rich.console import Console

    with Progress(TextColumn("sessions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("soak", total=total)
        for o in results:
            bar.advance(task, o.sessions)
            yield o


def soak(sessions: int, seed: int, workers: int | None = None, bar: bool = False) -> dict[str, Any]:
    "Run and report."
    seeds = seeds_for(sessions, seed)
    results = outcomes(seeds, workers or os.cpu_count() or 1)
    return summed(progress(results, sum(map(sessions_of, seeds))) if bar else results, seed)
