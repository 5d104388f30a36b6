"The research commands as they are typed: every flag of a backtest does something, and every bad input is one line that names the thing."

import importlib
import json
import sys
from types import SimpleNamespace

import pytest
from test_cli_errors import HEADER, refused

RULE = """
from v23.domain import Signal

class Mine:
    name, holding_sessions, warmup_sessions = "mine", 21, 30

    def __init__(self, score: float = 1.0, column: int = 3):
        self.score, self.column = score, column

    def signals(self, panel, as_of):
        return (Signal(panel.symbols[self.column], as_of, 1, self.score),)

class Nan(Mine):
    name = "nan"

    def __init__(self, score: float = float("nan"), column: int = 3):
        super().__init__(score, column)

class Twice(Mine):
    def signals(self, panel, as_of):
        return tuple(Signal(panel.symbols[self.column], as_of, n, 1.0) for n in (1, 2))

class Elsewhere(Mine):
    def signals(self, panel, as_of):
        return (Signal("NOWHERE", as_of, 1, 1.0),)

class Column(Mine):
    def signals(self, panel, as_of):
        panel.frame("closing")
        return ()

class Unrecordable(Mine):
    def __init__(self, table=None):
        super().__init__()
        self.table = table
"""
TWO = HEADER + "".join(f"{s},2026-01-{d:02},10,11,9,10,1000\n" for s in ("AAA", "BBB") for d in (5, 6, 7, 8, 9))
BAD = {
    "NaN scores": (("backtest", "--strategy", "mine.py:Nan"), 2, ("score", "is nan")),
    "one name twice": (("backtest", "--strategy", "mine.py:Twice"), 2, ("twice",)),
    "a name that is not there": (("backtest", "--strategy", "mine.py:Elsewhere"), 2, ("NOWHERE",)),
    "an unknown field": (("backtest", "--strategy", "mine.py:Column"), 2, ("closing",)),
    "no such class": (("backtest", "--strategy", "mine.py:Yours"), 2, ("Yours",)),
    "no such file": (("backtest", "--strategy", "yours.py:Mine"), 2, ("yours.py",)),
    "a strategy by a wrong name": (("backtest", "--strategy", "V22"), 2, ("V22", "v21")),
    "a date outside": (("backtest", "--start", "2031-01-02"), 2, ("2031-01-02", "runs from")),
    "a date that is none": (("backtest", "--end", "2025-02-30"), 2, ("--end", "2025-02-30")),
    "a phase too far": (("backtest", "--phase", "5"), 2, ("phase is 5",)),
    "tranches with a phase": (("backtest", "--phase", "1", "--tranches"), 2, ("tranches",)),
    "a capacity above one": (("backtest", "--capacity", "3"), 2, ("capacity is 3",)),
    "a cost below zero": (("backtest", "--cost-bps", "-1"), 2, ("cost_bps is -1",)),
    "an unknown kernel": (("backtest", "--kernel", "fortran"), 2, ("fortran", "numba")),
    "another universe than its own": (("backtest", "--strategy", "low-volatility", "--universe", "legacy_mean"), 2, ("universe",)),
    "one symbol twice a day": (("backtest", "--bars", "twice.csv"), 2, ("AAA", "2026-01-05")),
    "a column is missing": (("backtest", "--bars", "short.csv"), 2, ("volume",)),
    "a typo in a grid": (("sweep", "--grid", "rsi_cieling=30"), 2, ("did you mean 'rsi_ceiling'",)),
    "a typo in a grid of one's own": (("sweep", "--strategy", "mine.py:Mine", "--grid", "colum=1,2"), 2, ("did you mean 'column'",)),
    "a scheduler that is gone": (("sweep", "--grid", "positions=10,20", "--scheduler", "tcp://127.0.0.1:9"), 2, ("tcp://127.0.0.1:9", "does not answer")),
    "a scheduler that is no address": (("sweep", "--grid", "positions=10,20", "--scheduler", "nowhere"), 2, ("nowhere",)),
    "desk mode of a strategy that is not there": (("desk-backtest", "--strategy", "mine.py:Yours"), 2, ("Yours",)),
    "two costs for one sweep": (("sweep", "--grid", "cost_bps=5,10", "--cost-bps", "7"), 2, ("cost_bps is 5", "say 7")),
    "two phases for one sweep": (("sweep", "--grid", "phase=0,1,2", "--phase", "3"), 2, ("phase is 0", "phase 3")),
    "a phase of tranches": (("sweep", "--grid", "positions=20,30", "--tranches", "--phase", "3"), 2, ("leave it at 0",)),
    "one parameter twice": (("sweep", "--grid", "positions=20", "--grid", "positions=40"), 2, ("positions twice",)),
    "one parameter of a report twice": (("research-report", "--grid", "positions=20", "--grid", "positions=40"), 2, ("positions twice",)),
    "a value a strategy cannot take": (("research-report", "--strategy", "low-volatility", "--grid", "window=abc"), 2, ("window is 'abc'",)),
    "a phase beyond the holding period": (("sweep", "--grid", "positions=20,30", "--phase", "9"), 2, ("phase is 9", "0 to 4")),
    "a report's grid that is none": (("research-report", "--grid", "rsi"), 2, ("'rsi'", "name=value")),
    "a typo in a report's grid": (("research-report", "--grid", "rsi_cieling=30,40"), 2, ("did you mean 'rsi_ceiling'",)),
    "a report on nothing": (("research-report", "--strategy", "mine.py:Yours"), 2, ("Yours",)),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(RULE)
    (tmp_path / "twice.csv").write_text(TWO + "AAA,2026-01-05,10,11,9,10,1000\n")
    (tmp_path / "short.csv").write_text("symbol,date,open,high,low,close\nAAA,2026-01-05,10,11,9,10\n")
    return tmp_path


@pytest.fixture
def v23(folder, monkeypatch, capfd):
    "The command in this process: what it prints and how it ends."
    from v23.cli import main

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["v23", *args])
        with pytest.raises(SystemExit) as e:
            main()
        told = capfd.readouterr()
        return SimpleNamespace(returncode=e.value.code or 0, stdout=told.out, stderr=told.err)

    return run


@pytest.mark.parametrize("name", BAD)
def test_bad_input_of_research_is_one_line(name, v23):
    if "--scheduler" in BAD[name][0]:
        pytest.importorskip("distributed")
    args, code, words = BAD[name]
    done = v23(*args)
    refused(done, code, *words)
    assert len([x for x in done.stderr.splitlines() if x.startswith("v23: ")]) == 1 and len(done.stderr.splitlines()[-1]) < 400


def test_every_flag_of_a_backtest_changes_what_it_should(folder, v23):
    def run(*args):
        done = v23("backtest", "--start", "2025-01-02", "--json", *args)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    plain = run()
    assert plain["run_kwargs"]["phase"] == 0 and len(plain["phases"]) == 5 and plain["phases"][0]["sharpe"] == plain["sharpe"]
    same = run("--capital", "1e5")  # Goes the other way, and is the same
    assert same["sharpe"] == pytest.approx(plain["sharpe"], abs=1e-12) and same["trades"] == plain["trades"]
    assert [p["sharpe"] for p in same["phases"]][:5] == pytest.approx([p["sharpe"] for p in plain["phases"]], abs=1e-12)
    for flags in (("--cost-bps", "25"), ("--cost-per-share", "0.02")):
        assert run(*flags)["cost_per_year"] > plain["cost_per_year"]
    assert run("--cash-rate", "0.05")["terms"]["cash_rate"] == 0.05
    tranches = run("--tranches")
    assert tranches["arguments"]["tranches"] and tranches["sharpe"] == pytest.approx(tranches["phases"][5]["sharpe"], abs=1e-12)
    full = run("--capacity", "0.0001", "--capital", "1e9")
    assert full["turnover_per_year"] < plain["turnover_per_year"] and any("not filled" in n for n in full["notes"])
    kernels = [run("--cost-bps", "9", "--kernel", k)["cagr"] for k in ("numpy", "auto")]
    assert kernels[0] == pytest.approx(kernels[1], abs=1e-9)
    mine = run("--strategy", "mine.py:Mine", "--out", "found")
    assert mine["strategy"] == "mine" and len(mine["phases"]) == 22
    assert sorted(p.name for p in (folder / "found").iterdir()) == ["daily.csv", "figures.json", "picks.csv", "trades.csv"]


def test_every_flag_of_a_sweep_changes_what_it_should(folder, v23):
    def run(*args):
        done = v23("sweep", "--start", "2025-01-02", "--json", *args)
        assert done.returncode == 0, done.stderr
        return {r["positions"]: r for r in json.loads(done.stdout)["results"]}

    plain, costs = run("--grid", "positions=10,25"), []
    for flags in (("--cost-bps", "25"), ("--cost-per-share", "0.02")):
        costs += [r["cost_per_year"] - plain[n]["cost_per_year"] for n, r in run("--grid", "positions=10,25", *flags).items()]
    assert min(costs) > 0.01
    for flags in (("--cash-rate", "0.2"), ("--accounting", "constant"), ("--universe", "legacy_mean"), ("--phase", "3"), ("--tranches",), ("--fill", "next_close")):
        assert all(r["cagr"] != plain[n]["cagr"] for n, r in run("--grid", "positions=10,25", *flags).items()), flags
    full = run("--grid", "positions=10,25", "--capacity", "0.0001", "--capital", "1e9")
    assert all(full[n]["turnover_per_year"] < plain[n]["turnover_per_year"] for n in plain)
    same = run("--grid", "positions=10,25", "--cost-bps", "10")
    assert same[10]["cagr"] == plain[10]["cagr"] and same[10]["key"] == plain[10]["key"]


def test_a_cost_that_is_varied_goes_before_that_of_the_terms(folder, v23):
    done = v23("sweep", "--start", "2025-01-02", "--grid", "cost_bps=0,10,40", "--cash-rate", "0.05", "--json")
    found = json.loads(done.stdout)["results"]
    assert [r["cost_per_year"] / found[1]["cost_per_year"] for r in found] == pytest.approx([0, 1, 4])
    assert found[0]["cagr"] > found[1]["cagr"] > found[2]["cagr"]


def test_what_cannot_be_recorded_is_one_short_line(folder):
    import numpy as np

    from v23.errors import InputError
    from v23.sweep import run_sweep
    from v23.synthetic_market import synthetic_panel

    sys.path.insert(0, str(folder))
    try:
        Unrecordable = importlib.import_module("mine").Unrecordable
    finally:
        sys.path.remove(str(folder))
    with pytest.raises(InputError) as e:
        run_sweep(synthetic_panel(7, 30), {"table": [np.zeros((300, 40)), None]}, Unrecordable, ledger=folder / "t.jsonl")
    assert len(str(e.value).splitlines()) == 1 and len(str(e.value)) < 200 and "ndarray" in str(e.value)
