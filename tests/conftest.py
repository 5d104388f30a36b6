"What all tests share: a printed seed, no network beyond this machine, real bars when there are some."

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

GUARD = Path(__file__).parent / "loopback_only"
_spec = importlib.util.spec_from_file_location("v23_loopback_only", GUARD / "sitecustomize.py")
assert _spec and _spec.loader
_spec.loader.exec_module(importlib.util.module_from_spec(_spec))  # Guards this process …
if str(GUARD) not in os.environ.get("PYTHONPATH", ""):
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(GUARD), os.environ.get("PYTHONPATH"))))  # … and its children
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_addoption(parser):
    parser.addoption("--v23-seed", type=int, default=7, help="Seed of every random test; the same seed gives the same run.")


def pytest_configure(config):
    from hypothesis import HealthCheck, core, settings

    settings.register_profile("v23", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
    settings.load_profile("v23")
    if config.getoption("hypothesis_seed", None) is None:
        core.global_force_seed = config.getoption("--v23-seed")


def header(config) -> list[str]:
    "What it takes to repeat this run."
    bars = os.environ.get("V23_REAL_DATA") or "none (V23_REAL_DATA is not set)"
    return [f"v23 seed: {config.getoption('--v23-seed')} (repeat with --v23-seed)", f"real bars: {bars}"]


def pytest_report_header(config):
    return header(config)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and session.config.get_verbosity() < 0:  # pytest -q prints no header of its own
        for line in header(session.config):
            reporter.write_line(line)


@pytest.fixture(scope="session")
def v23_seed(pytestconfig) -> int:
    "The seed of this run."
    return pytestconfig.getoption("--v23-seed")


@pytest.fixture
def rng(v23_seed) -> np.random.Generator:
    "A fresh generator from the seed of this run."
    return np.random.default_rng(v23_seed)


@pytest.fixture(scope="session")
def real_data() -> Path:
    "The folder of real bars, or a skip that says why."
    folder = os.environ.get("V23_REAL_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("V23_REAL_DATA names no folder of real bars")
    return Path(folder)


@pytest.fixture
def tmp_state(tmp_path) -> Path:
    "An empty state folder with a space in its path, as private as the real one."
    folder = tmp_path / "a desk" / "state"
    folder.mkdir(parents=True, mode=0o700)
    return folder
