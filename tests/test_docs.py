"The documentation builds without a warning, fetches nothing, and leaves no command out."

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "docs"), "--out", str(out)], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def every_command(command, name=""):
    if not hasattr(command, "commands"):
        return [name]
    return [found for key, sub in command.commands.items() for found in every_command(sub, f"{name} {key}".strip())]


COMMANDS = every_command(typer.main.get_command(__import__("v23.cli").cli.app))


def test_every_page_is_there(site):
    for folder in ("components", "jobs", "tutorials"):
        pages = {path.stem for path in (ROOT / "nbs" / folder).glob("[!_]*.ipynb")}
        assert pages and pages == {path.stem for path in (site / folder).glob("*.html")}


def test_every_command_is_documented(site):
    text = (site / "commands.html").read_text()
    assert len(COMMANDS) > 20 and [name for name in COMMANDS if f"v23 {name}<" not in text] == []


def test_every_command_has_help_with_an_example():
    def helps(command, name=""):
        if not hasattr(command, "commands"):
            yield name, command.help or ""
        else:
            for key, sub in command.commands.items():
                yield from helps(sub, f"{name} {key}".strip())

    bare = [name for name, text in helps(typer.main.get_command(__import__("v23.cli").cli.app)) if not re.search(r"Examples?:\s+v23 ", text)]
    assert bare == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_names_every_command(name):
    readme = (ROOT / "README.md").read_text()
    group, *rest = name.split()
    assert re.search(rf"\b{group}\b", readme) and all(re.search(rf"\b{part}\b", readme) for part in rest)


def test_nothing_is_fetched(site):
    loads = [(page.name, found) for page in site.rglob("*.html") for found in re.findall(r'<(?:script|img|iframe|link)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text())]
    assert loads == []


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "docs"), "--out", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "empty folder" in done.stderr and (tmp_path / "thesis.txt").exists()
