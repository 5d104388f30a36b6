"Every page opens cleanly, reads as a page, and shows no trace of where it was last run."

import ast
import copy
import json
import re
from pathlib import Path

import nbformat
import pytest

NBS = Path(__file__).parent.parent / "nbs"
LONGEST_EXPORT = 60  # Lines; what does not fit on a screen is hiding two ideas


def source(cell: dict) -> str:
    return "".join(cell["source"])


def python(text: str) -> ast.Module:
    "A cell parsed without its IPython magics."
    return ast.parse("\n".join("pass" if line.startswith(("%", "!")) else line for line in text.splitlines()))


def common_faults(page: dict) -> list[str]:
    "What holds for every page."
    cells, faults = page["cells"], []
    if page["metadata"].get("kernelspec", {}).get("name") != "python3":
        faults.append("no python3 kernelspec, so Lab asks which kernel")
    ids = [c.get("id") for c in cells]
    if None in ids or len(set(ids)) != len(ids):
        faults.append("cell ids are missing or repeated")
    if not cells or cells[0]["cell_type"] != "markdown" or not re.match(r"# \S", source(cells[0])):
        faults.append("does not begin with a '# Title' cell")
    for number, cell in enumerate(cells):
        where = f"cell {number}"
        if extra := cell.get("metadata", {}).keys() - {"tags"}:
            faults.append(f"{where}: metadata {', '.join(sorted(extra))}")
        if cell["cell_type"] != "code":
            continue
        if cell.get("execution_count") is not None or any(o.get("execution_count") for o in cell["outputs"]):
            faults.append(f"{where}: an execution count")
        if any(o["output_type"] == "error" for o in cell["outputs"]):
            faults.append(f"{where}: the output is an error")
        if any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in ast.walk(python(source(cell)))):
            faults.append(f"{where}: import *")
    return faults


def component_faults(page: dict) -> list[str]:
    "What holds for a page that becomes a module."
    cells, faults = page["cells"], common_faults(page)
    if cells and not re.search(r"^> \S", source(cells[0]), re.MULTILINE):
        faults.append("no '> purpose' line under the title")
    code = [source(c) for c in cells if c["cell_type"] == "code"]
    if sum(bool(re.search(r"^#\| *default_exp +\S", text, re.MULTILINE)) for text in code) != 1:
        faults.append("not exactly one default_exp")
    for number, cell in enumerate(cells):
        text = source(cell)
        if cell["cell_type"] == "code" and re.search(r"^#\| *export", text, re.MULTILINE) and len(text.splitlines()) > LONGEST_EXPORT:
            faults.append(f"cell {number}: an exported cell of {len(text.splitlines())} lines; {LONGEST_EXPORT} fit on a screen")
    return faults


def job_faults(page: dict) -> list[str]:
    "What holds for a page papermill runs."
    cells, faults = page["cells"], common_faults(page)
    tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        faults.append(f"{len(tagged)} cells tagged parameters; without exactly one a job runs with its defaults and says nothing")
    for cell in tagged:
        if not all(isinstance(node, ast.AnnAssign) for node in python(source(cell)).body):
            faults.append("the parameters cell holds something other than  name: type = default")
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code" and any(
            isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for n in ast.walk(python(source(cell)))
        ):
            faults.append(f"cell {number}: a job is a page of calls; functions live in components")
    return faults


KINDS = {"components": component_faults, "jobs": job_faults, "tutorials": common_faults}
PAGES = [(kind, path) for kind in KINDS for path in sorted((NBS / kind).glob("[!_]*.ipynb"))]


@pytest.mark.parametrize(("kind", "path"), PAGES, ids=[f"{kind}/{path.stem}" for kind, path in PAGES])
def test_the_page_is_clean(kind, path):
    page = json.loads(path.read_text(encoding="utf-8"))
    faults = KINDS[kind](page)
    assert not faults, "\n".join((str(path.relative_to(NBS)), *faults))
    nbformat.validate(page)


def test_numbers_are_layers_and_no_module_has_two_pages():
    names = [path.stem for kind, path in PAGES if kind == "components"]
    assert [n for n in names if not re.fullmatch(r"\d{2,3}_[a-z0-9_]+", n)] == []
    exported = [m.group(1) for kind, path in PAGES if kind == "components" if (m := re.search(r"#\| *default_exp +([\w.]+)", path.read_text()))]
    assert len(set(exported)) == len(exported) == len(names)


def test_the_template_is_a_clean_page_that_nothing_runs_or_exports():
    path = NBS / "_template.ipynb"
    page = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(page)
    assert component_faults(page) == []
    assert "_template" in path.stem and not (NBS.parent / "v23" / "your_module.py").exists()


@pytest.fixture
def page() -> dict:
    "A small clean component page; also a clean job once a cell is tagged."
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Title\n", "\n", "> Purpose."]},
        {"cell_type": "code", "id": "b", "metadata": {}, "source": ["#| default_exp x"], "outputs": [], "execution_count": None},
        {"cell_type": "code", "id": "c", "metadata": {}, "source": ["#| export\n", "y: int = 1"], "outputs": [], "execution_count": None},
    ]
    return {"cells": cells, "metadata": {"kernelspec": {"name": "python3", "display_name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}


def test_a_clean_page_has_no_faults(page):
    assert component_faults(page) == []
    page["cells"][2]["metadata"]["tags"] = ["parameters"]
    assert job_faults(page) == []


PLANTED = {
    "kernelspec": lambda p: p["metadata"].clear(),
    "ids": lambda p: p["cells"][1].update(id="a"),
    "Title": lambda p: p["cells"][0].update(source=["Title\n> Purpose."]),
    "purpose": lambda p: p["cells"][0].update(source=["# Title"]),
    "metadata": lambda p: p["cells"][1]["metadata"].update(collapsed=True),
    "execution count": lambda p: p["cells"][1].update(execution_count=3),
    "an error": lambda p: p["cells"][1]["outputs"].append({"output_type": "error", "ename": "E", "evalue": "", "traceback": []}),
    "import *": lambda p: p["cells"][2].update(source=["#| export\nfrom math import *"]),
    "default_exp": lambda p: p["cells"].pop(1),
    "an exported cell of": lambda p: p["cells"][2].update(source=["#| export\n" + "x = 1\n" * LONGEST_EXPORT]),
}


@pytest.mark.parametrize("words", PLANTED)
def test_a_planted_fault_is_caught(words, page):
    PLANTED[words](page)
    faults = component_faults(page)
    assert len(faults) == 1 and words in faults[0], faults


def test_a_job_without_one_parameters_cell_or_with_a_function_is_caught(page):
    assert "0 cells tagged" in job_faults(page)[0]
    page["cells"][2]["metadata"]["tags"] = ["parameters"]
    two = copy.deepcopy(page)
    two["cells"][1]["metadata"]["tags"] = ["parameters"]
    assert "2 cells tagged" in job_faults(two)[0]
    loose = copy.deepcopy(page)
    loose["cells"][2]["source"] = ["y = 1"]
    assert "name: type = default" in job_faults(loose)[0]
    page["cells"][1]["source"] = ["def f(): ..."]
    assert "functions live in components" in job_faults(page)[0]
