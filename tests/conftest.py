"Fixtures shared by all tests."

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    "The folder of real bars, or a skip that says why."
    folder = os.environ.get("V23_REAL_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("V23_REAL_DATA names no folder of real bars")
    return Path(folder)
