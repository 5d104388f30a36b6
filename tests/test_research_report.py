"A research report says what was found in plain words, counts every trial once, opens without a network, and refuses in one line."

import json
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from v23.adapters.bars import read_bars, save_bars
from v23.adapters.state_folder import real_clock
from v23.adapters.trial_ledger import TrialLedger, read_trials
from v23.backtest_result import backtest_strategy
from v23.breaker_study import STUDIED
from v23.errors import InputError
from v23.example_strategies import LowVolatility, ranked
from v23.integrity import Section, Verdict
from v23.reports import remote_resources
from v23.research import HEADLINES, Recipe, outcome_of, recipe_of, research
from v23.research_report import CLAIMS, research_report, trials_path
from v23.settings import load_settings
from v23.synthetic_market import synthetic_panel

RULE = """
from v23.example_strategies import ranked


class Mine:
    name, holding_sessions, warmup_sessions = "mine", 10, 22
    grid = {"days": (10, 20), "names": (8, 12)}

    def __init__(self, days=20, names=8):
        self.days, self.names = days, names

    def signals(self, panel, as_of):
        r = panel.row(as_of)
        past = panel.close[max(r - self.days, 0)]
        return ranked(panel, as_of, panel.close[r] / past - 1 if r >= self.days else past * float("nan"), self.names)
"""


@pytest.fixture(scope="module")
def panel():
    return synthetic_panel(3, 60, date(2021, 1, 4), date(2025, 6, 30))


@pytest.fixture(scope="module")
def made(panel, tmp_path_factory):
    "One report of a rule of one's own, through the command line."
    folder = tmp_path_factory.mktemp("a report")
    save_bars(panel, folder / "bars.parquet")
    (folder / "mine.py").write_text(RULE)
    command = [sys.executable, "-m", "v23.cli", "research-report", "--strategy", "mine.py:Mine", "--bars", "bars.parquet", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_command_prints_one_document_and_progress_beside_it(made):
    folder, done = made
    told = json.loads(done.stdout)
    assert told["outcome"] in HEADLINES and told["headline"] == HEADLINES[told["outcome"]]
    assert told["strategy"] == "mine" and told["trials"]["n"] == 4
    assert {s["verdict"] for s in told["sections"]} <= {v.value for v in Verdict}
    assert set(CLAIMS) - {s["title"] for s in told["sections"]} == {"Published figures"}
    assert "candidates: 4 of 4" in done.stderr and "splits: 45 of 45" in done.stderr and "Traceback" not in done.stderr


def test_the_page_is_complete_in_itself_and_says_it_in_words(made):
    folder, done = made
    told = json.loads(done.stdout)
    html = (folder / told["report"]).read_text(encoding="utf-8")
    assert remote_resources(html) == [] and "<script src" not in html
    assert told["headline"] in html and "SYNTHETIC MARKET" in html
    for section in told["sections"]:
        assert CLAIMS[section["title"]].replace("'", "&#x27;") in html
    assert html.count("data:image/png;base64,") >= 9 and "def signals" not in html and "make(strategy" not in html


def test_the_page_says_how_often_each_breaker_would_have_fired_and_what_it_cost_or_saved(made):
    folder, done = made
    told = json.loads(done.stdout)
    section = next(s for s in told["sections"] if s["title"] == "Breakers")
    fired = {n: section["figures"][f"{n}: fired"] for n in (*STUDIED, "all of them")}
    assert fired["all of them"] == sum(fired[n] for n in STUDIED) > 0 and section["figures"]["all of them: effect"] != 0
    html = (folder / told["report"]).read_text(encoding="utf-8")
    assert "What would the breakers have done?" in html and "drawdown_halt" in html and "of the final equity" in html


def test_bars_that_a_desk_cannot_trade_leave_the_breakers_unknown_and_the_outcome_alone(made, monkeypatch):
    from v23 import research_report

    folder, done = made
    told = research(read_bars(folder / "bars.parquet"), recipe_of(f"{folder / 'mine.py'}:Mine"), TrialLedger(folder / "again.jsonl", real_clock()))

    def refuse(*given, **more):
        raise InputError("too few sessions")

    monkeypatch.setattr(research_report, "breaker_study", refuse)
    more = research_report.with_breakers(told, load_settings())
    assert more.sections["Breakers"].verdict is Verdict.UNKNOWN and "too few sessions" in more.sections["Breakers"].sentence
    assert more.outcome == told.outcome and more.reasons() == told.reasons()


def test_it_runs_as_a_job_like_any_other(made):
    folder, _ = made
    command = [sys.executable, "-m", "v23.cli", "job", "research_report", "-p", "strategy=mine.py:Mine", "-p", "bars=bars.parquet", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0 and json.loads(done.stdout)["trials"]["n"] == 4, done.stderr


def test_the_same_report_again_counts_nothing_twice(made, tmp_path):
    folder, done = made
    path = trials_path(folder / "state")
    before = path.read_bytes()
    recipe = recipe_of(f"{folder / 'mine.py'}:Mine")
    told = research(read_bars(folder / "bars.parquet"), recipe, TrialLedger(path, real_clock()))
    assert path.read_bytes() == before and told.trials.n == 4 == read_trials(path).n
    assert told.outcome == json.loads(done.stdout)["outcome"]


def test_what_was_tried_before_is_counted_too(panel, tmp_path):
    ledger = TrialLedger(tmp_path / "trials.jsonl", real_clock())
    first = research(panel, Recipe("low volatility", LowVolatility, {}, {"positions": (10, 20)}), ledger)
    second = research(panel, Recipe("low volatility", LowVolatility, {}, {"positions": (10, 20), "window": (42, 63)}), ledger)
    assert second.trials.n > first.trials.n and second.sections["Number of trials"]["trials"] == second.trials.n
    other = synthetic_panel(4, 60, date(2021, 1, 4), date(2025, 6, 30))
    assert research(other, Recipe("low volatility", LowVolatility, {}, {"positions": (10, 20)}), ledger).trials.n == first.trials.n


def test_a_sweep_and_a_report_know_each_others_trials(panel, tmp_path):
    from v23.sweep import run_sweep
    from v23.v21_signals import V21

    ledger = TrialLedger(tmp_path / "trials.jsonl", real_clock())
    run_sweep(panel, {"positions": (10, 20), "rsi_ceiling": (30.0, 35.0)}, ledger=ledger)
    told = research(panel, Recipe("V21", V21, {"positions": 10}, {"positions": (10, 20), "rsi_ceiling": (30.0, 35.0)}), ledger)
    assert told.trials.n == 4 == ledger.trials().n


class Peeks:
    "Buys what rises tomorrow."

    name, holding_sessions, warmup_sessions = "peeks", 5, 1

    def signals(self, panel, as_of):
        r = panel.row(as_of)
        return ranked(panel, as_of, panel.close[min(r + 1, len(panel.sessions) - 1)] / panel.close[r], 10)


def test_a_rule_that_looks_ahead_is_told_so_and_nothing_else(panel, tmp_path):
    told = research(panel, Recipe("peeks", Peeks), TrialLedger(tmp_path / "t.jsonl", real_clock()))
    assert told.outcome == "meaningless" and list(told.sections) == ["Look-ahead", "Validated?"]
    assert "LOOKS AHEAD, first at 2021-" in told.reasons()[0]


class Reverts:
    "Buys the week's losers."

    name, holding_sessions, warmup_sessions = "reverts", 5, 6
    grid = {"names": (10, 15)}

    def __init__(self, names=10):
        self.names = names

    def signals(self, panel, as_of):
        r = panel.row(as_of)
        return ranked(panel, as_of, panel.close[r - 5] / panel.close[r] if r > 4 else np.full(len(panel.symbols), np.nan), self.names)


def test_a_planted_edge_is_evidence_and_its_absence_is_not(tmp_path):
    told = {}
    for edge in (0.0, 0.6):
        market = synthetic_panel(3, 80, date(2020, 1, 2), date(2025, 12, 31), reversal_edge=edge)
        told[edge] = research(market, Recipe("reverts", Reverts, {"names": 10}, Reverts.grid), TrialLedger(tmp_path / f"{edge}.jsonl", real_clock()))
    for question in ("Chance", "Number of trials", "Better than nothing", "Walk-forward", "Cross-validation", "Costs", "Against the market"):
        assert told[0.6].sections[question].verdict is Verdict.HOLDS, told[0.6].sections[question]
    assert told[0.6].outcome == "evidence" and told[0.0].outcome == "no evidence"


@pytest.mark.parametrize("spec", ["v21", "trend", "low-volatility"])
def test_nobody_has_an_edge_on_a_market_without_one(spec, tmp_path):
    market = synthetic_panel(7, 150, date(2019, 1, 2), date(2025, 12, 31))
    told = research(market, recipe_of(spec), TrialLedger(tmp_path / "trials.jsonl", real_clock()))
    assert told.outcome == "no evidence" and told.sections["Look-ahead"].verdict is Verdict.HOLDS, told


@pytest.mark.realdata
@pytest.mark.parametrize("bars", ["us_large_2020_2026", "us_mid_2018_2024"])
def test_v21_on_real_bars_shows_no_evidence_of_an_edge(bars, real_data, tmp_path):
    told = research(read_bars(real_data / f"{bars}.parquet"), recipe_of("v21"), TrialLedger(tmp_path / "trials.jsonl", real_clock()))
    assert told.headline == "There is no evidence of an edge."
    assert told.trials.n == 729 and not told.sections["Validated?"]["validated"]
    for question in ("Chance", "Number of trials", "Better than nothing", "Walk-forward", "Costs", "Against the market", "Published figures"):
        assert told.sections[question].verdict is Verdict.FAILS, told.sections[question]
    assert told.sections["Look-ahead"].verdict is Verdict.HOLDS
    assert told.sections["Survivorship"]["stamp"] == "SURVIVORS ONLY"


def section(title, verdict, **figures):
    return Section(title, verdict, "", pd.DataFrame(), figures)


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "evidence"),
        ({"Look-ahead": Verdict.FAILS}, "meaningless"),
        ({"Chance": Verdict.FAILS}, "no evidence"),
        ({"Number of trials": Verdict.FAILS}, "no evidence"),
        ({"Walk-forward": Verdict.FAILS}, "no evidence"),
        ({"Against the market": Verdict.FAILS}, "no evidence"),
        ({"Against the market": Verdict.DOUBTFUL, "Better than nothing": Verdict.FAILS}, "no evidence"),
        ({"Better than nothing": Verdict.FAILS}, "not enough"),
        ({"Costs": Verdict.FAILS}, "not enough"),
        ({"Choosing": Verdict.UNKNOWN}, "not enough"),
        ({"Cross-validation": Verdict.DOUBTFUL}, "not enough"),
    ],
    ids=str,
)
def test_the_headline_follows_the_written_rule(changes, outcome):
    names = ("Look-ahead", "Chance", "Number of trials", "Choosing", "Better than nothing", "Walk-forward", "Cross-validation", "Against the market", "Costs")
    verdicts = dict.fromkeys(names, Verdict.HOLDS) | changes
    holds = all(verdicts[n] is Verdict.HOLDS for n in names if n not in ("Costs", "Against the market"))
    sections = {n: section(n, v) for n, v in verdicts.items()} | {"Validated?": section("Validated?", Verdict.HOLDS, validated=holds)}
    assert outcome_of(sections) == outcome


class NaN(Reverts):
    "Ranks by NaN."

    name = "nan"

    def signals(self, panel, as_of):
        return tuple(replace(s, score=float("nan")) for s in super().signals(panel, as_of))


def test_a_strategy_that_scores_nan_is_refused_in_one_line(panel, tmp_path):
    with pytest.raises(InputError, match=r"the score of \w+ is nan; a finite number is expected") as e:
        backtest_strategy(panel, NaN())
    assert "\n" not in str(e.value)
    with pytest.raises(InputError, match="is nan"):
        research(panel, Recipe("nan", NaN), TrialLedger(tmp_path / "t.jsonl", real_clock()))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--strategy", "v2l"], "there is no strategy 'v2l'; did you mean v21?"),
        (["--strategy", "nowhere.py:X"], "there is no file nowhere.py"),
        (["--strategy", "broken.py:X"], "broken.py, line 1: "),
        (["--strategy", "mine.py:Yours"], "mine.py has no 'Yours'"),
        (["--bars", "nowhere.parquet"], "there is no bars file nowhere.parquet"),
        (["--fill", "yesterday"], "fill is 'yesterday'"),
    ],
    ids=lambda x: x[1] if isinstance(x, list) else "",
)
def test_bad_input_is_one_line_and_exit_2(arguments, said, tmp_path):
    (tmp_path / "mine.py").write_text(RULE)
    (tmp_path / "broken.py").write_text("def (:\n")
    done = subprocess.run([sys.executable, "-m", "v23.cli", "research-report", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr and done.stdout == "", done
    assert len(done.stderr.strip().splitlines()) == 1
    assert not Path(tmp_path, "state").exists()


def test_help_teaches_with_an_example():
    done = subprocess.run([sys.executable, "-m", "v23.cli", "research-report", "--help"], capture_output=True, text=True)
    assert "v23 research-report --strategy my_rule.py:MyRule" in " ".join(done.stdout.split())


def test_a_report_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="no strategy"):
        research_report("nobody", "", 7, tmp_path / "state", tmp_path / "reports")
    assert list(tmp_path.iterdir()) == []
