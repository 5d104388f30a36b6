"What is judged was never seen by what was chosen: splits that do not touch, a planted overlap that the purge removes, luck that does not survive."

from dataclasses import replace
from datetime import date
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v23.backtest_result import backtest_strategy
from v23.errors import InputError
from v23.example_strategies import LowVolatility, ranked
from v23.integrity import Verdict
from v23.synthetic_market import synthetic_panel
from v23.walk_forward import Study, combinatorial_splits, cross_validate, paths_of, purge, reach, walk_forward, walk_forward_splits


@pytest.fixture(scope="module")
def panel():
    return synthetic_panel(11, 60, date(2020, 1, 2), date(2025, 6, 30))


def touches(train, test, span):
    "Some outcome of a training decision overlaps some outcome of a test decision."
    outcome = lambda rows: {int(r + k) for r in rows for k in range(span + 1)}  # noqa: E731
    return bool(outcome(train) & outcome(test))


@settings(max_examples=60)
@given(st.integers(330, 900), st.integers(1, 8), st.integers(1, 12), st.integers(0, 12), st.booleans())
def test_no_outcome_of_a_training_decision_reaches_into_a_forward_test(count, folds, span, embargo, expanding):
    for split in walk_forward_splits(3, count, folds, span, embargo, 200, expanding):
        assert not touches(split.train, split.test, span)
        assert split.test[0] - split.train[-1] == span + embargo + 1


@settings(max_examples=25)
@given(st.integers(400, 700), st.integers(4, 8), st.integers(1, 3), st.integers(1, 10), st.integers(0, 8))
def test_no_outcome_overlaps_in_the_combinatorial_splits_either(count, groups, tested, span, embargo):
    splits = combinatorial_splits(0, count, groups, tested, span, embargo)
    assert [s.groups for s in splits] == list(combinations(range(groups), tested))
    for split in splits:
        assert not touches(split.train, split.test, span)
        assert len(set(split.train) | set(split.test)) == len(split.train) + len(split.test)


def test_without_a_purge_they_would_touch():
    test = np.arange(100, 120)
    train = np.r_[0:100, 120:200]
    assert touches(train, test, 6) and not touches(purge(train, test, 6, 0), test, 6)
    assert set(train) - set(purge(train, test, 6, 0)) == set(range(94, 100)) | set(range(120, 126))
    assert set(purge(train, test, 6, 0)) - set(purge(train, test, 6, 5)) == set(range(126, 131))


def test_ten_groups_two_tested_are_45_splits_and_nine_paths():
    splits = combinatorial_splits(0, 1499)
    paths = paths_of(splits)
    assert (len(splits), len(paths)) == (45, 9)
    used = [(g, s.number) for path in paths for g, s in path.items()]
    assert len(set(used)) == 90 and all(sorted(path) == list(range(10)) for path in paths)


class Follows:
    "Buys what paid best after the latest decisions it learned from."

    name, holding_sessions, warmup_sessions = "follows", 5, 1
    asked: list = []

    def __init__(self, known=()):
        self.known = known

    def fit(self, panel, rows):
        self.asked.append((panel.sessions[-1], panel.sessions[rows[-1]], len(panel.sessions) - 1 - int(rows[-1])))
        late = rows[-3:]
        paid = panel.close[np.minimum(late + 6, len(panel.sessions) - 1)] / panel.close[late] - 1
        return Follows(tuple(np.argsort(-np.nanmean(paid, axis=0))[:2]))

    def signals(self, panel, as_of):
        scores = np.full(len(panel.symbols), np.nan)
        scores[list(self.known)] = 1.0
        return ranked(panel, as_of, scores, 2)


def opening(told):
    "Mean return of the first five sessions of each fold."
    return float(np.mean([(1 + told.returns.loc[str(d) :].iloc[:5]).prod() - 1 for d in told.folds["start"]]))


def test_a_planted_overlap_of_labels_is_removed_by_the_purge(panel):
    starts = [int(s.test[0]) for s in walk_forward_splits(1, len(panel.sessions) - 1, 6, 6, 5)]
    factor = np.ones(panel.close.shape)
    for row in starts:
        for n in range(5):
            factor[row + n :, [5, 9]] *= 1.05
    planted = replace(panel, **{f: getattr(panel, f) * factor for f in ("open", "high", "low", "close")})
    leaky = opening(walk_forward(Study(planted, Follows, [{}]), purged=0, embargo=0))
    purged = opening(walk_forward(Study(planted, Follows, [{}]), embargo=0))
    both = opening(walk_forward(Study(planted, Follows, [{}])))
    assert leaky > 0.12 and abs(purged) < 0.06 and abs(both) < 0.06, (leaky, purged, both)


def test_a_learner_is_never_given_a_bar_of_its_test(panel):
    Follows.asked.clear()
    told = walk_forward(Study(panel, Follows, [{}]), folds=4)
    assert len(Follows.asked) == 4 and len({t.key for t in told.trials}) == 4 and told.figures["hindsight_sharpe"] is None
    assert "hindsight" not in told.section().sentence and told.plot() is not None
    for (last, taught, ahead), start in zip(Follows.asked, told.folds["start"], strict=True):
        assert taught < last < start and ahead == reach(5)


class Lots:
    "Draws lots; the number is its seed."

    name, holding_sessions, warmup_sessions = "lots", 5, 1

    def __init__(self, number: int = 0):
        self.number = number

    def signals(self, panel, as_of):
        return ranked(panel, as_of, np.random.default_rng([self.number, panel.row(as_of)]).random(len(panel.symbols)), 8)


def test_luck_does_not_survive_and_the_hindsight_beside_it_shows_what_it_was_worth(panel):
    told = walk_forward(Study(panel, Lots, {"number": range(15)}))
    f = told.figures
    assert f["hindsight_sharpe"] > f["sharpe"] + 0.3
    assert len(told.trials) == 15 and {t.study for t in told.trials} == {"grid"}


class Knows:
    "Has an edge when its switch is on."

    name, holding_sessions, warmup_sessions = "knows", 5, 1

    future: object = None

    def __init__(self, on: bool = False):
        self.on = on

    def signals(self, panel, as_of):
        r = panel.row(as_of)
        if not self.on or r + 6 >= len(self.future.sessions):
            return Lots(1).signals(panel, as_of)
        return ranked(panel, as_of, self.future.close[r + 6] / self.future.close[r + 1], 8)


def test_a_real_difference_is_chosen_in_every_fold_and_on_every_split(panel):
    Knows.future, grid = panel, {"on": (False, True)}
    told = walk_forward(Study(panel, Knows, grid))
    assert set(told.folds["chosen"]) == {"True"} and told.figures["sharpe"] > 3 and told.section().verdict is Verdict.HOLDS
    crossed = cross_validate(Study(panel, Knows, grid), groups=6)
    assert set(crossed.splits["chosen"]) == {"True"} and crossed.section().verdict is Verdict.HOLDS


def test_a_fold_is_a_backtest_that_starts_in_cash_and_ends_sold(panel):
    told = walk_forward(Study(panel, LowVolatility, [{"positions": 10}]), folds=3)
    first = panel.row(told.folds["start"].iloc[1])
    last = panel.row(told.folds["end"].iloc[1])
    alone = backtest_strategy(panel, LowVolatility(10), start=panel.sessions[first - 1], end=panel.sessions[last], phase=(first - 1) % 21)
    ours, theirs = told.returns.loc[str(panel.sessions[first]) : str(panel.sessions[last])].to_numpy(), alone.returns.to_numpy()[1:]
    assert ours[:-1] == pytest.approx(theirs[:-1], abs=1e-15) and alone.returns.iloc[0] == 0
    assert theirs[-1] - ours[-1] == pytest.approx(0.001 * alone.exposure["invested"].iloc[-1], abs=1e-12)
    assert list(told.returns.index.date) == list(panel.sessions[panel.row(told.folds["start"].iloc[0]) :])


def test_progress_is_told(panel):
    seen = []
    walk_forward(Study(panel, LowVolatility, {"positions": (10, 20)}, lambda *step: seen.append(step)), folds=3)
    assert seen == [(2, 2, "candidates"), (1, 3, "folds"), (2, 3, "folds"), (3, 3, "folds")]  # both candidates share their scores and are done at once


@pytest.mark.parametrize(
    ("grid", "more", "said"),
    [
        ({"windw": (63,)}, {}, "did you mean 'window'"),
        ({"window": ()}, {}, "grid is empty"),
        ({"positions": (10,)}, {"folds": 400}, "give no 400 folds"),
        ({"positions": (10,)}, {"least": 20}, "20 to train on"),
        ({"positions": (10,)}, {"inner": 90}, "no inner block of 20"),
        ({"positions": (10,)}, {"fill": "yesterday"}, "fill is 'yesterday'"),
    ],
)
def test_what_cannot_be_walked_is_refused_in_one_line(panel, grid, more, said):
    with pytest.raises(InputError, match=said) as e:
        walk_forward(Study(panel, LowVolatility, grid, **{k: more.pop(k) for k in ("fill",) if k in more}), **more)
    assert "\n" not in str(e.value)
