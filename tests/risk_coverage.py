"""Branch coverage of what limits risk: every line and branch of sizing, checks, breakers, gate and kill is run by a test.

The tests named here are run in one process under coverage; what they left out is listed by file and line, and any of it
fails. A class of a larger page is named after a colon.
"""

import argparse
import ast
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WHAT = (
    "v23/sizing/kelly.py", "v23/sizing/multipliers.py", "v23/sizing/targets.py", "v23/sizing/study.py", "v23/position_sizer.py",
    "v23/risk/denial_codes.py", "v23/risk/pretrade_checks.py", "v23/risk/batch_checks.py", "v23/risk/breaker_rules.py", "v23/risk/split_guard.py",
    "v23/circuit_breakers.py:BreakerReader", "v23/circuit_breakers.py:BreakerAnswers", "v23/circuit_breakers.py:BreakerHand", "v23/circuit_breakers.py:CircuitBreakerManager",
    "v23/circuit_breakers.py:fold_latches", "v23/circuit_breakers.py:latch_changes",
    "v23/trading_desk.py:GateView", "v23/trading_desk.py:PurseView", "v23/trading_desk.py:StandingView", "v23/trading_desk.py:Gate", "v23/trading_desk.py:ReadingDesk", "v23/trading_desk.py:WatchingDesk",
    "v23/trading_desk.py:loss_reading", "v23/trading_desk.py:peaks", "v23/trading_desk.py:last_marks",
    "v23/kill_switch.py", "v23/liquidation.py", "v23/emergency.py",
)  # fmt: skip
TESTS = (
    "test_risk_branches.py", "test_sizing_properties.py", "test_pretrade_boundaries.py", "test_breaker_walks.py", "test_faults_risk.py",
    "test_one_gate.py", "test_settings_decide.py", "test_batch_checks.py", "test_kill.py",
)  # fmt: skip
RANDOM = "not forty_kills and not the_line_finds"  # What these reach depends on the seed


def lines_of(path: Path, name: str) -> range:
    "The lines of a class or function of a file, all of them without a name; raises SystemExit when it is gone."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not name:
        return range(1, 10**6)
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return range(node.lineno, (node.end_lineno or node.lineno) + 1)
    raise SystemExit(f"risk_coverage: {path} has no {name}; the list in {Path(__file__).name} is old")


def missing(report: dict[str, Any], what: str, root: Path = ROOT) -> list[str]:
    "Lines and branches of one entry that no test has run."
    file, _, name = what.partition(":")
    seen, span = report["files"].get(file), lines_of(root / file, name)
    if seen is None:
        return [f"{file}: not run at all"]
    lines = [f"{file}:{n}" for n in seen["missing_lines"] if n in span]
    return lines + [f"{file}:{a} → {'the end' if b < 0 else b}" for a, b in seen["missing_branches"] if a in span]


def measure(tests: tuple[str, ...] = TESTS, seed: int = 7) -> tuple[int, dict[str, Any]]:
    "Exit code of the tests and the report of coverage."
    files = sorted({w.partition(":")[0] for w in WHAT})
    with tempfile.TemporaryDirectory() as folder:
        data = f"--data-file={folder}/data"
        run = [sys.executable, "-m", "coverage", "run", "--branch", f"--include={','.join(files)}", data, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--v23-seed={seed}", "-k", RANDOM, *(f"tests/{t}" for t in tests)]
        code = subprocess.run(run, cwd=ROOT, stdout=sys.stderr, check=False).returncode
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", data, "-o", f"{folder}/report.json"], cwd=ROOT, stdout=sys.stderr, check=True)
        return code, json.loads(Path(folder, "report.json").read_text())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/risk_coverage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    code, report = measure(seed=options.seed)
    left = {w: missing(report, w) for w in WHAT}
    if options.json:
        print(json.dumps({"tests": code, "missing": left}))
    else:
        for what, gaps in left.items():
            print(f"{what:<48} {'every branch' if not gaps else f'{len(gaps)} not run'}")
            print("".join(f"    {g}\n" for g in gaps), end="")
    return int(code != 0 or any(left.values()))


if __name__ == "__main__":
    sys.exit(main())
