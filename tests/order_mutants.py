"""Known mistakes, planted one at a time in a copy of the package: each has to be caught by the tests that are there for it.

A mistake that no test notices, or a place that is not found any more, fails the run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutant:
    "One mistake."

    name: str
    module: str  # Below v23/
    old: str  # Found exactly once
    new: str
    tests: tuple[str, ...]  # One of them has to fail
    keyword: str = ""


LIFE, ENGINE, PATH = "execution/order_lifecycle.py", "execution_engine.py", "test_faults_order_path.py"
MUTANTS = (
    Mutant("a lost reply is a rejection", LIFE, "return replace(order, state=OrderState.UNKNOWN, reason=reason, updated_at=now)", "return replace(order, state=OrderState.REJECTED, reason=reason, updated_at=now)", ("test_order_path.py",), "F1_accepted or F3_accepted"),
    Mutant("another id on a resend", ENGINE, "[(o.body, o.purpose is Purpose.ENTRY) for o in marked]", '[(o.body.replace(o.client_order_id, o.client_order_id + "r" * (o.attempts - 1)), o.purpose is Purpose.ENTRY) for o in marked]', ("test_order_path.py",), "F2_never or F5"),
    Mutant("not found once means it never was", ENGINE, "if may_abandon(order, looks, session_is_over(order, self.clock.now())):", "if looks:", ("test_order_path.py",), "F5 or F4_the"),
    Mutant("nothing in flight is reserved", "domain.py", "return Decimal(0) if self.state.is_terminal else max(self.remaining, Decimal(0))", "return Decimal(0)", (PATH, "test_order_machine.py"), "F37 or F38 or I1_to"),
    Mutant("fills are added up from events", LIFE, "filled_quantity=seen.filled_quantity if more else order.filled_quantity", "filled_quantity=order.filled_quantity + seen.filled_quantity if more else order.filled_quantity", ("test_soak.py",), "calm_world or same_seed or alone or document"),
    Mutant("a kill is kept in memory only", "kill_switch.py", "            try:\n                step()\n            except (OSError, StateError) as e:", "            try:\n                pass\n            except (OSError, StateError) as e:", (PATH,), "F72_a_kill_is"),
    Mutant("a kill sells again what the positions still show", "liquidation.py", "return min(p.quantity_available, max(booked, Decimal(0)))", "return p.quantity_available", (PATH,), "F76"),
    Mutant("a refusal of a resend is final", LIFE, "state = OrderState.REJECTED if order.attempts <= 1 else OrderState.UNKNOWN", "state = OrderState.REJECTED", (PATH,), "F4_"),
    Mutant("sent before it is written down", ENGINE, "        self.keep(*marked)\n        for order in marked:", "        for order in marked:", ("test_order_path.py", PATH), "F53 or no_order_is_patched or F37"),
    Mutant("the peak begins anew at a restart", "execution/rebalance.py", "return max([*levels, began]), None", "return began, None", (PATH,), "F69"),
    Mutant("an exit is asked what only entries are asked", "risk/pretrade_checks.py", "check.limit, binding=False)", "check.limit, binding=True)", ("test_pretrade_boundaries.py",), "exit"),
    Mutant("a sliced order begins anew after a restart", "execution/working.py", "used = {o.seq for o in orders}", "used = {o.seq for o in orders if not o.state.is_terminal}", (PATH,), "F44"),
    Mutant("an entry is not asked about again as it leaves", ENGINE, "if order.purpose is not Purpose.ENTRY or (decision", "if True or (decision", (PATH,), "F72 or F31_three"),
    Mutant("a bust has two ids", "adapters/alpaca.py", 'replace(fill, fill_id=f"{fill.fill_id}:undone", side=fill.side.opposite)]  #', "replace(fill, side=fill.side.opposite)]  #", ("test_faults_broker.py",), "F26"),
)  # fmt: skip


def mutated(mutant: Mutant, folder: Path) -> Path:
    "A copy of package and tests with the mistake in it."
    for name in ("v23", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
    for name in ("settings.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    path = folder / "v23" / mutant.module
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.name}: {mutant.module} has the place {text.count(mutant.old)} times, once is expected: {mutant.old!r}")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    return folder


def trial(mutant: Mutant, planted: bool = True) -> tuple[bool, str]:
    "Whether the tests fail, and their last line; not planted: the same tests on the package as it is."
    with tempfile.TemporaryDirectory(prefix="v23-mutant-") as name:
        folder = mutated(mutant if planted else Mutant(mutant.name, mutant.module, mutant.old, mutant.old, mutant.tests), Path(name))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *(f"tests/{t}" for t in mutant.tests)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(folder), str(folder / "tests"))), "V23_EXAMPLES": "25", "MPLBACKEND": "Agg"}
        done = subprocess.run([*command, "-k", mutant.keyword] if mutant.keyword else command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
        lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))] or done.stdout.splitlines()[-1:]
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{mutant.name}: pytest ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")
        return done.returncode == 1, lines[0][:160] if lines else ""


def main(arguments: list[str] | None = None) -> int:
    "The command."
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], epilog="example:  scripts/mutants --json")
    parser.add_argument("--only", default="", help="mutants whose name contains this")
    parser.add_argument("--clean", action="store_true", help="also run each mutant's tests on the package as it is: they have to pass")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    asked = parser.parse_args(arguments)
    chosen = [m for m in MUTANTS if asked.only in m.name]
    if not chosen:
        print(f"no mutant is called {asked.only!r}; there are: {', '.join(m.name for m in MUTANTS)}", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    for number, mutant in enumerate(chosen, 1):
        began = time.monotonic()
        try:
            caught, by = trial(mutant)
            if asked.clean and trial(mutant, planted=False)[0]:
                caught, by = False, "its tests fail on the package as it is"
        except (LookupError, RuntimeError) as e:
            caught, by = False, str(e)
        rows.append({"mutant": mutant.name, "caught": caught, "by": by, "seconds": round(time.monotonic() - began, 1)})
        print(f"{number:>2}/{len(chosen)} {'caught' if caught else 'NOT CAUGHT':<10} {mutant.name:<55} {by}", file=sys.stderr, flush=True)
    told = {"mutants": len(rows), "caught": sum(r["caught"] for r in rows), "rows": rows}
    print(json.dumps(told) if asked.json else f"{told['caught']} of {told['mutants']} mutants caught")
    return 0 if told["caught"] == told["mutants"] else 1
