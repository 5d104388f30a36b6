"""Compare the tree with what nbdev makes of its notebooks, on a copy: nothing here is changed.

in_sync.py export   v23/ holds exactly what the notebooks export
in_sync.py clean    the notebooks are as nbdev-clean leaves them
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def nbdev(command: str, folder: Path) -> None:
    "Run one nbdev command in a folder, without the settings of the person who happens to run it."
    tools = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environ = os.environ | {"PATH": tools, "XDG_CONFIG_HOME": str(folder / ".config")}
    done = subprocess.run([command], cwd=folder, env=environ, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")


def files(folder: Path, pattern: str) -> dict[str, bytes]:
    "Contents by relative path."
    found = (p for p in folder.rglob(pattern) if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(found) if p.is_file()}


def differences(ours: dict[str, bytes], theirs: dict[str, bytes], made_by: str) -> list[str]:
    "One line per file that is missing, left over or different."
    lines = []
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours:
            lines.append(f"{name}: {made_by} makes it, the tree lacks it")
        elif name not in theirs:
            lines.append(f"{name}: in the tree, but {made_by} does not make it")
        elif ours[name] != theirs[name]:
            lines.append(f"{name}: differs from what {made_by} makes")
    return lines


def check_export(root: Path) -> list[str]:
    "Export every notebook into an empty package and compare it with v23/."
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        shutil.copy(root / "pyproject.toml", copy)
        shutil.copytree(root / "nbs", copy / "nbs", ignore=shutil.ignore_patterns(".*"))
        (copy / "v23").mkdir()
        shutil.copy(root / "v23" / "__init__.py", copy / "v23")
        nbdev("nbdev-export", copy)
        return differences(files(root / "v23", "*.py"), files(copy / "v23", "*.py"), "nbdev-export")


def check_clean(root: Path) -> list[str]:
    "Clean a copy of every notebook and compare."
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        shutil.copy(root / "pyproject.toml", copy)
        shutil.copytree(root / "nbs", copy / "nbs", ignore=shutil.ignore_patterns(".*"))
        nbdev("nbdev-clean", copy)
        return differences(files(root / "nbs", "*.ipynb"), files(copy / "nbs", "*.ipynb"), "nbdev-clean")


CHECKS = {"export": check_export, "clean": check_clean}

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in CHECKS:
        raise SystemExit("usage: in_sync.py export|clean [folder]")
    root = Path(sys.argv[2]).resolve() if len(sys.argv) == 3 else ROOT
    found = CHECKS[sys.argv[1]](root)
    for line in found:
        print(line)
    print("scripts/sync mends this" if found else "in sync")
    sys.exit(bool(found))
