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

from v23.adapters.snapshots import CRASH_POINTS

MUST_BE_ZERO = ("duplicate_orders", "lost_fills", "double_fills", "shorts", "limit_breaches", "entries_after_latch")
ALSO_ZERO = ("kills_not_flat", "unsettled", "broken_chain")
STATES = ("planned", "denied", "sending", "unknown", "working", "cancel_sent", "filled", "canceled", "expired", "rejected", "abandoned")
AT_LEAST = 20
JUDGED_FROM = 1_000  # Sessions; fewer cannot meet every pair often enough

READS = ("error", "auth", "429", "429_bare", "drop", "redirect", "half_body", "garbage", "malformed", "empty", "new_fields", "crash", "kill")
LIFE = ("sending", "unknown", "working")  # Of every order that leaves
REACHABLE: dict[str, tuple[str, ...]] = (
    dict.fromkeys(READS, STATES)
    | {"stale": tuple(s for s in STATES if s != "sending")}
    | dict.fromkeys(("accept_then_error", "accept_then_hang_up", "accept_then_hang"), ("sending", "working", "cancel_sent"))
    | {"hide_order": ("sending", "unknown")}
    | dict.fromkeys(("overfill", "bust", "correct", "strange"), (*LIFE, "filled"))
    | {
        "reject": (*LIFE, "rejected"),
        "no_fill": (*LIFE, "cancel_sent", "canceled", "expired"),
        "slow_fill": (*LIFE, "cancel_sent", "filled", "canceled"),
        "partial_then_cancel": (*LIFE, "canceled"),
        "hang_cancel": (*LIFE, "cancel_sent", "filled", "canceled", "expired"),
        "fill_on_cancel": (*LIFE, "cancel_sent", "filled"),
        "late_fill": (*LIFE, "cancel_sent", "canceled"),
    }
)  # A fault on a question meets every order the answer is about; one on a changing request the order it changes
UNREACHABLE: dict[str, str] = {
    "stale": "an old answer exists to a question only, and what is SENDING has been asked about by nobody: recovery turns it into UNKNOWN first",
    "accept_then_error": "requests that change something are the POST of a SENDING order and the DELETE of a WORKING or CANCEL_SENT one",
    "accept_then_hang_up": "as accept_then_error",
    "accept_then_hang": "as accept_then_error",
    "hide_order": "it begins with the POST of a SENDING order and ends with the look-ups of an UNKNOWN one; a known order is read from the list",
    "reject": "comes within 0.4 s of the acceptance, so the order neither fills nor rests",
    "no_fill": "an order that never trades is never FILLED",
    "slow_fill": "an order that trades the same day does not expire; nothing rejects it",
    "partial_then_cancel": "the exchange ends it with shares left, so it is never FILLED and our cancel comes too late",
    "hang_cancel": "nothing rejects an order that was accepted",
    "fill_on_cancel": "its cancel ends in a fill; CANCELED only when the session was over",
    "late_fill": "the fault needs an order that was canceled; one that fills before has not met it",
    "overfill": "needs the last share to trade, so the order is FILLED",
    "bust": "needs an execution; CANCELED and EXPIRED with one are FILLED's case to the ledger",
    "correct": "the same as bust",
    "strange": "an unknown status is WORKING, and the order fills",
    "any order fault": "PLANNED, DENIED and ABANDONED orders are not at the exchange",
}


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
    thin = [f"{f} x {s}: {pairs[f, s]}" for f, states in REACHABLE.items() for s in states if pairs[f, s] < AT_LEAST]
    thin += [f"crash point {name}: {points[name]}" for name in CRASH_POINTS if points[name] < AT_LEAST]
    report |= {"coverage_judged": totals["sessions"] >= JUDGED_FROM, "reachable_pairs": sum(map(len, REACHABLE.values())), "thin_pairs": thin, "unreachable": UNREACHABLE}
    return report | {"violations": violations[:50], "crash_points": dict(sorted(points.items())), "pairs": seen, "chain": chain.hexdigest()}


def progress(results: Iterable[Outcome], total: int) -> Iterator[Outcome]:
    "A bar on stderr."
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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


def failures(report: dict[str, Any]) -> list[str]:
    "Why a soak has failed; empty when it has not."
    wrong = [f"{name}: {report[name]}" for name in (*MUST_BE_ZERO, *ALSO_ZERO) if report[name]]
    return wrong + ([f"vacuous: {pair}, at least {AT_LEAST} are expected" for pair in report["thin_pairs"]] if report["coverage_judged"] else [])


def main(arguments: list[str] | None = None) -> int:
    "The command."
    parser = argparse.ArgumentParser(description=__doc__, epilog="example:  scripts/soak --sessions 200 --seed 7 --json")
    parser.add_argument("--sessions", type=int, default=10_000, help="how many; from 1,000 on every pair of fault and order state must have happened 20 times")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same histories, to the byte")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; they do not change the result")
    parser.add_argument("--only", type=int, default=None, metavar="SEED", help="one world again, by the seed of a violation")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    asked = parser.parse_args(arguments)
    if asked.sessions < 1 or asked.workers < 1 or asked.seed < 0:
        print(f"--sessions {asked.sessions}, --workers {asked.workers}, --seed {asked.seed}: 1, 1 and 0 are the least", file=sys.stderr)
        return 2
    began = time.monotonic()
    report = summed([run_seed(asked.only)], asked.seed) if asked.only is not None else soak(asked.sessions, asked.seed, asked.workers, bar=sys.stderr.isatty() or asked.json)
    report["seconds"] = round(time.monotonic() - began, 1)
    wrong = failures(report)
    if asked.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            if name not in ("pairs", "violations", "unreachable"):
                print(f"{name:<22} {value}")
        for v in report["violations"]:
            print(f"  seed {v['seed']}: {v['what']}: {v['detail']}")
    for line in wrong:
        print(f"FAILED {line}", file=sys.stderr)
    return 1 if wrong else 0
