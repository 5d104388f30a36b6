#!/usr/bin/env python
"""A long random walk through the simulated exchange: orders, cancels, replacements, closures, money and time.

The walk of tests/test_simulator_walk.py (a Hypothesis state machine), as long as one wishes. Beside the exchange, books
are kept from its events alone; after every operation cash agrees with them to the cent and every position to the
share, no accepted order has left a negative buying power, no filled quantity has shrunk, and what a request says of an
order is what its last event said. What fails is shown as the shortest walk that still shows it.

Example:  python scripts/walk_simulator.py --operations 200000 --seed 7
"""

import argparse
import json
import sys
import time
from pathlib import Path

from hypothesis import core


def main() -> int:
    "Walk, and print how far and how fast."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=200_000, help="how many at least")
    parser.add_argument("--seed", type=int, default=7, help="another one, another walk")
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from test_simulator_walk import MET, tally, walk

    began, rounds = time.perf_counter(), 0
    while tally["operations"] < args.operations:
        core.global_force_seed = args.seed + rounds
        walk(max(4000, args.operations - tally["operations"]))
        rounds += 1
    took = time.perf_counter() - began
    print(json.dumps({"operations": tally["operations"], "seconds": round(took, 1), "per_second": round(tally["operations"] / took), "met": dict(sorted(tally.items()))}))
    return 0 if all(tally[what] for what in MET) else 1


if __name__ == "__main__":
    sys.exit(main())
