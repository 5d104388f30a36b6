"The files around the pages: what a stranger finds in a fresh copy works, and says nothing about where it was made."

import ast
import configparser
import json
import os
import platform
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import v23
from v23.settings import KNOBS, SECRETS, TEXTS, default_text, describe, load_settings

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
SKIPPED = {".git", ".edit", "__pycache__", "build", "dist", ".ipynb_checkpoints", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"}


def committed() -> list[Path]:
    "Files git tracks or would track; in a copy without git, everything that is not made by running."
    try:
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        found = [p for p in ROOT.rglob("*") if not SKIPPED & set(p.relative_to(ROOT).parts) and not p.relative_to(ROOT).parts[0].startswith(".venv")]
        made = (ROOT / "reports", ROOT / "state")
        found = [p for p in found if p.name == "README.md" or not any(folder in p.parents for folder in made)]
        found = [p for p in found if not any(part.endswith(".egg-info") for part in p.parts) and p.name != ".env"]
    return [p for p in found if p.is_file()]


def naming(words: list[str], files: list[Path]) -> list[str]:
    "Files that hold one of the words, with the line."
    pattern = re.compile("|".join(map(re.escape, words)))
    lines = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines += [f"{path}:{text.count(chr(10), 0, m.start()) + 1}: {m.group()}" for m in pattern.finditer(text)]
    return lines


HOSTS = ["pypi" + ".org", "python" + "hosted.org", "ana" + "conda.org", "ana" + "conda.com", "npm" + "js.org", "yarn" + "pkg.com"]
HOMES = ["/ho" + "me/", "/Us" + "ers/", "/ro" + "ot/", "C:\\Us" + "ers"]


def test_no_committed_file_names_a_package_registry(tmp_path):
    assert naming(HOSTS, committed()) == []
    planted = tmp_path / "planted.txt"
    planted.write_text("one\nhttps://" + HOSTS[0] + "/simple\n")
    assert naming(HOSTS, [planted]) == [f"{planted}:2: {HOSTS[0]}"]


def test_no_committed_file_names_the_machine_it_was_made_on(tmp_path):
    words = [*HOMES, f"{ROOT}/"]
    if len(platform.node()) > 12:
        words.append(platform.node())
    assert naming(words, committed()) == []
    planted = tmp_path / "planted.txt"
    planted.write_text(f"see {ROOT}/nbs\n")
    assert len(naming(words, [planted])) == 1


def locked(name: str) -> list[str]:
    "The entries of a lock file: a pin, a marker when there is one, and hashes."
    return re.split(r"\n(?=[A-Za-z0-9])", (ROOT / name).read_text().strip())


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_every_package_and_names_no_address(name):
    text = (ROOT / name).read_text()
    assert "://" not in text and "file:" not in text and "--index" not in text and "--find-links" not in text
    for entry in locked(name):
        assert re.match(r"[a-z0-9][a-z0-9._-]*==\S+", entry) and "--hash=sha256:" in entry, entry[:80]
    names = {entry.split("==")[0] for entry in locked(name)}
    assert not names & {"torch", "tensorflow"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + (project["optional-dependencies"]["dev"] if "dev" in name else [])
    missing = [w for w in wanted if re.sub(r"[_.]+", "-", re.match(r"[\w.-]+", w).group().lower()) not in names]
    assert missing == [], "run scripts/lock"


def test_what_runs_is_locked_to_the_same_versions_for_development():
    run, dev = ({re.match(r"[\w.-]+==[\w.+!-]+", entry).group() for entry in locked(name)} for name in LOCKS)
    assert run <= dev


def imported_by(sources: dict[str, str]) -> dict[str, str]:
    "Top-level modules imported anywhere in some Python texts, and one place each comes from."
    found = {}
    for where, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                found |= {a.name.split(".")[0]: where for a in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found[node.module.split(".")[0]] = where
    return found


def undeclared(sources: dict[str, str], requirements: list[str], own: set[str]) -> list[str]:
    "Imports that neither the standard library, nor ourselves, nor a declared requirement provides."
    declared = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", r).group().lower()) for r in requirements}
    provided = packages_distributions()
    lines = []
    for module, where in sorted(imported_by(sources).items()):
        names = {re.sub(r"[-_.]+", "-", d.lower()) for d in provided.get(module, [module])}
        if module not in sys.stdlib_module_names and module not in own and not names & declared:
            lines.append(f"{where} imports {module}, which pyproject.toml does not ask for")
    return lines


def page_sources(folder: Path) -> dict[str, str]:
    "The code of every page, without IPython magics."
    texts = {}
    for path in sorted(folder.rglob("[!_]*.ipynb")):
        cells = [c["source"] for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        lines = "\n".join("".join(c) for c in cells).splitlines()
        texts[str(path.relative_to(ROOT))] = "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)
    return texts


PEERS = {"backtrader", "bt", "vectorbt"}  # Measured beside us by scripts/bench_*, where somebody has installed them


def test_every_import_is_asked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    runs = project["dependencies"] + [r for name, group in extras.items() if name != "dev" for r in group]
    package = {str(p.relative_to(ROOT)): p.read_text() for p in (ROOT / "v23").rglob("*.py")}
    jobs = page_sources(ROOT / "nbs" / "jobs")
    assert undeclared(package | jobs, runs, {"v23"}) == []
    tests = {str(p.relative_to(ROOT)): p.read_text() for folder in ("tests", "scripts") for p in (ROOT / folder).rglob("*.py")}
    own = {"v23", "conftest", *PEERS, *(p.stem for folder in ("tests", "scripts") for p in (ROOT / folder).rglob("*.py"))}
    pages = page_sources(ROOT / "nbs" / "components") | page_sources(ROOT / "nbs" / "tutorials")
    assert undeclared(tests | pages, runs + extras["dev"], own) == []


def test_an_undeclared_import_is_found():
    sources = {"a.py": "import json, v23\ndef f():\n    from numpy.linalg import norm\n"}
    assert undeclared(sources, ["numpy>=2"], {"v23"}) == []
    assert undeclared(sources, [], {"v23"}) == ["a.py imports numpy, which pyproject.toml does not ask for"]


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "v23.__version__"}
    written = re.findall(r'^__version__ *= *"(.+)"', (ROOT / "v23" / "__init__.py").read_text(), re.MULTILINE)
    assert written == [v23.__version__]
    assert v23.__version__ in (ROOT / "CHANGELOG.md").read_text()


# settings.ini and .env.example


def test_settings_ini_names_every_knob_with_its_default_unit_and_range():
    text = (ROOT / "settings.ini").read_text()
    section, seen = "", {}
    lines = text.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if found := re.match(r"\[(\w+)\]", line):
            section = found.group(1)
        elif found := re.match(r";?(\w+) = (\S+)$", line):
            seen[found.group(1)] = (section, found.group(2), before)
    units = {row["name"]: row for row in describe()}
    assert seen.keys() == {k.name for k in KNOBS}
    for knob in KNOBS:
        section, default, comment = seen[knob.name]
        span = units[knob.name]["range"] or ", ".join(knob.choices)
        assert (section, default) == (knob.section, default_text(knob)), knob.name
        assert comment == f"# {knob.unit}" + (f": {span}" if span else ""), knob.name


def test_settings_ini_loads_as_it_stands_and_with_every_line_uncommented(tmp_path):
    assert load_settings(ROOT, environ={}, overrides={}).values == {} or (ROOT / ".env").exists()
    text = (ROOT / "settings.ini").read_text()
    (tmp_path / "settings.ini").write_text(re.sub(r"(?m)^;(?=\w+ = )", "", text))
    loaded = load_settings(tmp_path, environ={})
    plain = load_settings(tmp_path / "nowhere", environ={})
    assert set(loaded.values) == {k.name for k in KNOBS}
    for section in ("strategy", "sizing", "risk", "execution", "monitoring", "validation"):
        assert getattr(loaded, section) == getattr(plain, section)


def test_env_example_names_every_variable_once_and_sets_none(tmp_path):
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    assert sorted(lines) == sorted(f"{name}=" for name in (*TEXTS, *SECRETS))
    (tmp_path / ".env").write_text((ROOT / ".env.example").read_text())
    (tmp_path / ".env").chmod(0o600)
    loaded = load_settings(tmp_path, environ={})
    assert loaded.mode == "simulated" and not loaded.has_credentials and loaded.origin == {}


def test_git_ignores_secrets_and_what_runs_leave():
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {".env", ".venv*/", "/state/*", "/reports/*"} <= set(ignored)
    assert {"!/state/README.md", "!/reports/README.md"} <= set(ignored)


# scripts


@pytest.mark.parametrize("name", ["scripts/start", "scripts/check", "scripts/lock", "scripts/sync", "scripts/refresh", ".ci/run"])
def test_a_script_parses_and_may_be_run(name):
    path = ROOT / name
    assert path.read_text().startswith("#!/usr/bin/env bash\n") and path.stat().st_mode & 0o111
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_a_suitable_python_one_line_says_so(tmp_path):
    folder = tmp_path / "a copy"
    (folder / "scripts").mkdir(parents=True)
    for name in ("scripts/start", "scripts/environment.sh", *LOCKS, "pyproject.toml", "setup.py"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "cat", "cut", "sha256sum", "shasum"):
        where = subprocess.run(["bash", "-c", f"command -v {tool}"], capture_output=True, text=True).stdout.strip()
        if where:
            (tools / tool).symlink_to(where)
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")  # Too old, or without venv
    (tools / "python3").chmod(0o755)
    done = subprocess.run(["bash", folder / "scripts" / "start"], env={"PATH": str(tools)}, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "Python 3.11" in done.stderr
    assert not (folder / ".venv").exists()


# the wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    "The package built as a wheel from a copy of the tree and installed elsewhere, without its dependencies."
    folder = tmp_path_factory.mktemp("a wheel with spaces")
    copy = folder / "tree"
    for path in committed():
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", folder / "wheels", copy]
    done = subprocess.run(list(map(str, build)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (folder / "wheels").glob("*.whl")
    put = [*pip, "install", "--no-deps", "--no-index", "--target", folder / "site", wheel]
    done = subprocess.run(list(map(str, put)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, wheel


def outside(folder: Path, *args: str) -> subprocess.CompletedProcess:
    environ = os.environ | {"PYTHONPATH": str(folder / "site")}
    return subprocess.run([sys.executable, *args], cwd=folder, env=environ, capture_output=True, text=True, timeout=60)


def test_the_wheel_carries_the_package_the_jobs_and_the_licence(installed):
    folder, wheel = installed
    assert wheel.name.startswith(f"v23-{v23.__version__}-")
    site = folder / "site"
    ours = {p.relative_to(ROOT).as_posix() for p in (ROOT / "v23").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    there = {p.relative_to(site).as_posix() for p in (site / "v23").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    jobs = {f"v23/job_notebooks/{p.name}" for p in (ROOT / "nbs" / "jobs").glob("[!_]*.ipynb")}
    assert there == ours | jobs
    (info,) = site.glob("v23-*.dist-info")
    assert "Apache License" in (info / "licenses" / "LICENSE").read_text()
    points = configparser.ConfigParser()
    points.read(info / "entry_points.txt")
    assert points["console_scripts"]["v23"] == "v23.cli:main"


def test_the_installed_package_works_outside_the_repository(installed):
    folder, _ = installed
    done = outside(folder, "-c", "import v23; print(v23.__version__); print(v23.__file__)")
    assert done.returncode == 0, done.stderr
    version, where = done.stdout.splitlines()
    assert version == v23.__version__ and Path(where).is_relative_to(folder)
    if (ROOT / "v23" / "cli.py").exists():
        done = outside(folder, "-m", "v23.cli", "version")
        assert done.returncode == 0 and f"v23 {v23.__version__}" in done.stdout, done.stderr


def test_a_new_project_tests_itself_and_trades_with_no_repository_around(installed):
    folder, _ = installed
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("V23_", "ALPACA_"))} | {"PYTHONPATH": str(folder / "site"), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*args: str, cwd: Path) -> str:
        done = subprocess.run([sys.executable, *args], cwd=cwd, env=environ, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (args, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    run("-m", "v23.cli", "init", "desk", cwd=folder)
    desk = folder / "desk"
    assert "3 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=desk)
    told = json.loads(run("-m", "v23.cli", "campaign", "--sessions", "1", "--json", cwd=desk))
    assert Path(told["reports"]["go_live"]).is_relative_to(desk.resolve()) and (desk / "state" / "execution" / "ledger.sqlite3").exists()
