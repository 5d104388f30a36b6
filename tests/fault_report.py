"Runs the tests that carry a fault's id and says for each fault which tests there are and how they ended."

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
IDS = tuple(f"F{n}" for n in range(1, 98))
FOUND = re.compile(r"(?<![A-Za-z0-9])F(\d{1,2})(?=_)")
NOT_THE_DESK = ("test_simulator",)  # What the exchange can do wrong is not yet what the desk makes of it
PENDING: dict[str, str] = {}  # Fault -> what is not tested yet


def ids_of(name: str) -> list[str]:
    "Fault ids in the name of a test."
    return [f"F{n}" for n in FOUND.findall(name)]


def written(folder: Path = TESTS) -> dict[str, list[str]]:
    "Ids and the tests or cases that carry them, by reading the sources."
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.glob("test_*.py")):
        if path.name.startswith(NOT_THE_DESK):
            continue
        for name in re.findall(r"def (test_\w+)|^    \"(F\d+_\w+)\":", path.read_text(encoding="utf-8"), re.MULTILINE):
            for i in ids_of(name[0].removeprefix("test") or f"_{name[1]}"):
                found[i].append(f"{path.name}::{name[0] or name[1]}")
    return dict(found)


class Watcher:
    "Chooses the tests with an id and remembers how each ended."

    def __init__(self, wanted: set[str]):
        self.wanted, self.results = wanted, dict[str, dict[str, str]]()

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        chosen = [i for i in items if not Path(str(i.path)).name.startswith(NOT_THE_DESK) and self.wanted & set(ids_of(i.nodeid.partition("::")[2].replace("test_", "_")))]
        config.hook.pytest_deselected(items=[i for i in items if i not in chosen])
        items[:] = chosen

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            for i in ids_of(report.nodeid.partition("::")[2].replace("test_", "_")):
                self.results.setdefault(i, {})[report.nodeid] = report.outcome
            print(f"\r{sum(map(len, self.results.values()))} results", end="", file=sys.stderr, flush=True)


def report(wanted: set[str]) -> dict[str, Any]:
    "Fault, tests, result."
    watcher = Watcher(wanted)
    files = [str(p) for p in sorted(TESTS.glob("test_*.py")) if not p.name.startswith(NOT_THE_DESK) and any(wanted & set(ids_of(line)) for line in re.findall(r"_F\d+_|\"F\d+_", p.read_text()) for line in [line.replace('"', "_")])]
    pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", "--no-summary", *files], plugins=[watcher])
    rows = {}
    for i in sorted(wanted, key=lambda i: int(i[1:])):
        tests = watcher.results.get(i, {})
        ends = set(tests.values())
        result = "failed" if "failed" in ends else "passed" if "passed" in ends else "skipped" if ends else "no test"
        rows[i] = {"result": result, "tests": tests, "pending": PENDING.get(i, "")}
    return {"faults": rows, "passed": sum(r["result"] == "passed" for r in rows.values()), "asked": len(rows)}


def main(arguments: list[str] | None = None) -> int:
    "The command."
    parser = argparse.ArgumentParser(description=__doc__, epilog="example:  scripts/fault_report F1 F5 --json")
    parser.add_argument("ids", nargs="*", help="fault ids; all of the order path when none is given")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    asked = parser.parse_args(arguments)
    if unknown := [i for i in asked.ids if i not in IDS]:
        print(f"there is no fault {unknown[0]!r} of the order path; {IDS[0]} to {IDS[-1]} are expected", file=sys.stderr)
        return 2
    out, sys.stdout = sys.stdout, sys.stderr  # what pytest says is progress
    try:
        told = report(set(asked.ids or IDS))
    finally:
        sys.stdout = out
    if asked.json:
        print(json.dumps(told))
    else:
        for i, row in told["faults"].items():
            print(f"{i:<4} {row['result']:<8} {len(row['tests']):>3} tests   {row['pending'] and 'pending: ' + row['pending']}")
            for test in sorted({t.partition('[')[0] for t in row["tests"]}):
                print(f"       {test}")
        print(f"{told['passed']} of {told['asked']} faults passed")
    return 0 if all(r["result"] == "passed" or r["pending"] and r["result"] == "no test" for r in told["faults"].values()) else 1
