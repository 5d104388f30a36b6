"The package is exactly what its notebooks export, and the notebooks are as nbdev leaves them."

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def in_sync(check: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / "scripts" / "in_sync.py", check, folder], capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "a small tree"
    (folder / "nbs" / "components").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in ("00_domain", "01_errors"):
        shutil.copy(ROOT / "nbs" / "components" / f"{name}.ipynb", folder / "nbs" / "components")
    (folder / "v23").mkdir()
    for name in ("__init__", "domain", "errors"):
        shutil.copy(ROOT / "v23" / f"{name}.py", folder / "v23")
    subprocess.run([Path(sys.executable).parent / "nbdev-export"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("check", ["export", "clean"])
def test_the_tree_is_in_sync(check):
    done = in_sync(check)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_small_tree_in_sync_passes(copy):
    for check in ("export", "clean"):
        done = in_sync(check, copy)
        assert done.returncode == 0, done.stdout + done.stderr


def test_an_edit_in_the_package_is_caught(copy):
    path = copy / "v23" / "errors.py"
    path.write_text(path.read_text() + "# by hand\n")
    done = in_sync("export", copy)
    assert done.returncode == 1 and "errors.py: differs" in done.stdout


def test_a_file_no_notebook_makes_is_caught(copy):
    (copy / "v23" / "extra.py").write_text("x = 1\n")
    done = in_sync("export", copy)
    assert done.returncode == 1 and "extra.py: in the tree" in done.stdout


def test_a_page_that_was_not_exported_is_caught(copy):
    (copy / "v23" / "domain.py").unlink()
    done = in_sync("export", copy)
    assert done.returncode == 1 and "domain.py: nbdev-export makes it" in done.stdout


def test_an_execution_count_is_caught(copy):
    page = copy / "nbs" / "components" / "01_errors.ipynb"
    page.write_text(page.read_text().replace('"execution_count": null', '"execution_count": 7', 1))
    done = in_sync("clean", copy)
    assert done.returncode == 1 and "01_errors.ipynb: differs" in done.stdout
