"Starting is cheap: what a command does not need, it does not import."

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("pandas", "numpy", "scipy", "matplotlib", "quantstats", "alpaca", "exchange_calendars", "starlette", "uvicorn", "papermill", "nbconvert")
LIGHT = ("v23", "v23.control", "v23.domain", "v23.errors", "v23.settings")


def heavy_after(code: str) -> list[str]:
    "Which heavy packages a fresh process holds after running the code."
    probe = f"{code}\nimport sys, json\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("module", LIGHT)
def test_the_vocabulary_imports_nothing_heavy(module):
    assert heavy_after(f"import {module}") == []


def test_the_probe_sees_what_is_there():
    assert "numpy" in heavy_after("import numpy")


def test_the_command_line_starts_without_anything_heavy():
    if not (Path(__file__).parent.parent / "v23" / "cli.py").exists():
        return
    assert heavy_after("import v23.cli") == []
