"Every planted look-ahead is found and named, a clean rule is not flagged, and what only needs more history is told apart."

from datetime import date

import numpy as np
import pytest
from planted_rules import MISTAKES, RECURSIVE, rule, universe

from v23.domain import Signal
from v23.errors import InputError
from v23.example_strategies import LowVolatility, TrendFollowing, decide, ranked
from v23.lookahead import check_strategy, cuts_of, future_scramble, observe, truncate_and_compare, warm_up_sensitivity, with_holes, without_future
from v23.synthetic_market import synthetic_panel
from v23.v21_signals import V21


@pytest.fixture(scope="module")
def panel():
    return universe()


def test_the_clean_rule_is_not_flagged(panel):
    report = check_strategy(rule(), panel)
    assert report.passed and not report.looks_ahead, report


@pytest.mark.parametrize("bug", MISTAKES)
def test_a_planted_look_ahead_is_named(bug, panel):
    report = check_strategy(rule(bug), panel, 10)
    assert report.looks_ahead, report
    for name in ("truncated", "scrambled"):
        first = report.probe(name).first
        assert first and first.session in panel.sessions and first.symbol in panel.symbols and first.column == "score"
    note = report.probe("scrambled").note
    expected = {"full-sample max for drawdown": "high", "full-sample liquidity filter": "volume"}.get(bug, "close")
    assert expected in note, note


def test_a_recursive_average_fails_the_warm_up_only(panel):
    report = check_strategy(rule(RECURSIVE), panel)
    assert not report.looks_ahead
    assert [p.name for p in report.probes if not p.passed] == ["warm-up"]


def test_the_first_bad_session_is_where_the_mistake_begins(panel):
    cuts = cuts_of(panel, 65, 20)
    assert truncate_and_compare(rule("shift(-1)"), panel).first.session == panel.sessions[cuts[0]]
    assert future_scramble(rule("shift(-1)"), panel).first.session == panel.sessions[cuts[0]]


def test_a_fault_planted_at_one_session_and_name_is_found_there(panel):
    row, column = 300, 77

    def later(p):
        table = p.close.copy()
        if len(p.sessions) > row + 50:
            table[row, column] = p.close[row + 50, column]
        return {"a": p.high, "b": table}

    first = future_scramble(later, panel, 20).first
    assert (first.session, first.symbol, first.column) == (panel.sessions[row], panel.symbols[column], "b")


@pytest.mark.parametrize("strategy", [V21(), LowVolatility(), TrendFollowing()], ids=lambda s: s.name)
def test_the_shipped_strategies_pass(strategy, v23_seed):
    report = check_strategy(strategy, synthetic_panel(v23_seed, 150, date(2022, 1, 3), date(2025, 12, 31)), seed=v23_seed)
    assert report.passed, report


@pytest.mark.realdata
@pytest.mark.parametrize("strategy", [V21(), LowVolatility(), TrendFollowing()], ids=lambda s: s.name)
def test_the_shipped_strategies_pass_on_real_bars(strategy, real_data):
    from v23.adapters.bars import read_bars

    report = check_strategy(strategy, read_bars(real_data / "us_mid_2018_2024.parquet"), 8)
    assert report.passed, report


def test_a_strategy_that_says_it_needs_less_history_than_it_does_is_caught(panel):
    short = LowVolatility(positions=10)
    short.warmup_sessions = 100
    assert not warm_up_sensitivity(short, panel).passed
    short.warmup_sessions = 127
    assert warm_up_sensitivity(short, panel).passed


def test_the_scramble_leaves_the_past_alone_and_changes_every_later_bar(panel, rng):
    day = panel.sessions[200]
    other = without_future(panel, day, rng)
    assert np.array_equal(other.close[:201], panel.close[:201]) and not (other.close[201:] == panel.close[201:]).any()
    assert other.market.loc[:str(day)].equals(panel.market.loc[:str(day)])
    assert not (other.market.loc[str(panel.sessions[201]) :] == panel.market.loc[str(panel.sessions[201]) :]).any(axis=None)
    only = without_future(panel, day, rng, "volume")
    assert np.array_equal(only.close, panel.close) and not np.array_equal(only.volume, panel.volume)
    holes = with_holes(panel, rng, 0.1)
    assert 0.08 < np.isnan(holes.close).mean() < 0.12 and (np.isnan(holes.close) == np.isnan(holes.volume)).all()


class Says:
    name, holding_sessions, warmup_sessions = "says", 5, 1

    def __init__(self, make):
        self.make = make

    def signals(self, panel, as_of):
        return self.make(panel, as_of)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p, d: (Signal(p.symbols[0], d, 1, float("nan")),), "the score of XAAA is nan; a finite number is expected"),
        (lambda p, d: (Signal("XAAA", d, 1, 1.0), Signal("XAAA", d, 2, 1.0)), "XAAA is ranked twice"),
        (lambda p, d: (Signal("NOPE", d, 1, 1.0),), "'NOPE' is not among the 500 symbols"),
        (lambda p, d: ranked(p, date(1999, 1, 4), np.ones(500), 3), "1999-01-04"),
        (lambda p, d: (), "no name at any of"),
    ],
    ids=["NaN score", "duplicate symbol", "unknown symbol", "date outside", "nothing"],
)
def test_a_bad_answer_is_one_line_that_names_the_thing(make, said, panel):
    report = check_strategy(Says(make), panel, 3)
    assert not report.passed and said in report.verdict and "\n" not in report.verdict


def test_a_date_outside_the_panel_is_refused_in_one_line(panel):
    for ask in (lambda: decide(V21(), panel, date(2031, 1, 2)), lambda: V21().signals(panel, date(1999, 1, 4)), lambda: panel.upto(date(2031, 1, 2))):
        with pytest.raises(InputError, match=r"which run from 2023-01-03 to 2025-01-24$"):
            ask()


def test_an_answer_that_changes_its_columns_is_refused(panel):
    def moody(p):
        return {"a" if len(p.sessions) == len(panel.sessions) else "b": p.close}

    with pytest.raises(InputError, match="columns a and then with b"):
        truncate_and_compare(moody, panel)
    assert observe(lambda p: p.close, panel, [3])["score"].shape == (4, 500)
