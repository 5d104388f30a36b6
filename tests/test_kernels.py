"The compiled kernels against the plain engine, which is itself held to the slow implementation: holes, delistings, every convention, both real sets."

import time
from dataclasses import replace

import numpy as np
import pytest
from broken_panel import broken_panel
from test_backtest_exact import SETS

from v23 import fast_backtest as fast
from v23.adapters.bars import load_bars
from v23.backtest import ACCOUNTINGS, FILLS, Terms
from v23.backtest_result import backtest_strategy
from v23.errors import InputError
from v23.example_strategies import TrendFollowing
from v23.fast_backtest import fast_backtest
from v23.market_data import FIELDS
from v23.settings import StrategySettings
from v23.v21_signals import V21

pytest.importorskip("numba", reason="the extra v23[fast] is not installed")
TERMS = ({}, {"cost_bps": 35.0, "cost_per_share": 0.01}, {"cash_rate": 0.05, "delisting_return": -0.4})


@pytest.fixture(scope="module")
def panel():
    return broken_panel()


def same(panel, settings, tolerance=1e-12, **arguments):
    "Both ways give the same picks, trades, days and figures; the number of trades."
    ours, theirs = (run(panel, V21(settings), **arguments) for run in (fast_backtest, backtest_strategy))
    columns = ["date", "rank", "symbol", "strict", "score", "weight"]
    assert ours.picks[columns].equals(theirs.picks[columns])
    assert ours.trades[["symbol", "entry", "exit"]].equals(theirs.trades[["symbol", "entry", "exit"]])
    np.testing.assert_allclose(ours.trades[["gross", "net"]], theirs.trades[["gross", "net"]], rtol=0, atol=tolerance, equal_nan=False)
    np.testing.assert_allclose(ours.out, theirs.out, rtol=0, atol=tolerance, equal_nan=False)
    np.testing.assert_allclose(ours.invested, theirs.invested, rtol=0, atol=max(tolerance, 1e-9))
    for name, value in theirs.figures.items():
        assert ours.figures[name] == pytest.approx(value, abs=1e-9), name
    return len(ours.trades)


@pytest.mark.parametrize("changes", [{}, *SETS, {"holding_sessions": 10, "positions": 40}, {"holding_sessions": 65, "positions": 40}], ids=lambda c: next(iter(c), "defaults") + str(c.get("holding_sessions", "")))
def test_every_parameter_set_phase_and_convention_is_the_same(panel, changes):
    s = replace(StrategySettings(), **changes)
    seen = 0
    for phase in range(min(s.holding_sessions, 5)):
        for n, fill in enumerate(FILLS):
            seen += same(panel, s, fill=fill, accounting=ACCOUNTINGS[(phase + n) % 2], phase=phase, universe=("pit", "legacy_mean")[phase % 2])
    assert seen > 60


@pytest.mark.parametrize("terms", TERMS, ids=lambda t: "+".join(t) or "none")
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("accounting", ACCOUNTINGS)
def test_terms_are_the_same(panel, terms, fill, accounting):
    assert same(panel, StrategySettings(positions=12), terms=Terms(**terms), fill=fill, accounting=accounting) > 60


@pytest.mark.parametrize("first", [0, 1, 19, 61, 203, 499, 501])
@pytest.mark.parametrize("fill", FILLS)
def test_a_late_start_and_an_early_end_are_the_same(panel, first, fill):
    same(panel, StrategySettings(), fill=fill, start=panel.sessions[first])
    same(panel, StrategySettings(), fill=fill, end=panel.sessions[first], phase=2)


def test_many_tiles_are_the_same(panel):
    wide = {f: np.tile(getattr(panel, f), (1, 15)) for f in FIELDS}
    symbols = tuple(f"{n:02d}{s}" for n in range(15) for s in panel.symbols)
    assert same(replace(panel, symbols=symbols, **wide), StrategySettings(positions=40)) > 60


@pytest.mark.parametrize("holding", [5, 7, 15])
def test_how_the_decisions_are_shared_out_changes_no_bit(panel, holding, monkeypatch):
    s, seen = StrategySettings(holding_sessions=holding, positions=12, minimum_candidates=2), []
    for few, threads in ((1000, 1), (1000, 4), (1, 2), (3, 4), (7, 1)):
        monkeypatch.setattr(fast, "FEW", few)
        monkeypatch.setattr(fast, "threads", lambda n=threads: n)
        found, run = fast.find_candidates(panel, [s, replace(s, rsi_ceiling=50.0)], "pit", 2), fast_backtest(panel, V21(s), phase=2)
        seen.append([found.offsets, found.columns, found.stats, run.out, run.parts[0][1].spells, run.invested.to_numpy()])
    assert len(seen[0][4]) > 20
    for other in seen[1:]:
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(seen[0], other, strict=True))


def test_what_fails_in_a_thread_is_raised_here(monkeypatch):
    monkeypatch.setattr(fast, "FEW", 1)

    def work(portion):
        if portion.start > 20:
            raise MemoryError("no room")
        return portion.stop

    with pytest.raises(MemoryError, match="no room"):
        list(fast._in_threads(work, 40))


@pytest.mark.parametrize("threads", [1, 3])
def test_whoever_is_interrupted_begins_nothing_new(threads, monkeypatch):
    monkeypatch.setattr(fast, "FEW", 1)
    monkeypatch.setattr(fast, "threads", lambda: threads)
    begun = []

    def work(portion):
        begun.append(portion.start)
        time.sleep(0.005)

    portions = fast._in_threads(work, 400)
    next(portions)
    portions.close()
    assert len(begun) < 40


def test_a_day_on_which_nothing_moved_is_none_whatever_the_last_bit_says(panel):
    steps = (1.01 ** (np.arange(len(panel.sessions)) // 7))[:, None]  # A rise every seventh session, to prices that are no round numbers
    rising = replace(panel, **{f: np.repeat((panel.volume if f == "volume" else panel.close)[30:31], len(steps), axis=0) * (1 if f == "volume" else steps) for f in FIELDS})
    s = StrategySettings(rsi_ceiling=101.0, volatility_floor=-1.0, drawdown_deep=-9.0, drawdown_shallow=9.0, volatility_ratio=-1.0, volume_ratio=-1.0, minimum_candidates=1, positions=3, cost_bps=0.0)
    ours, theirs = (run(rising, V21(s), Terms(0.0)).figures["daily_win_rate"] for run in (fast_backtest, backtest_strategy))
    assert ours == theirs == 1.0


def test_a_panel_of_one_name_and_one_of_few_sessions(panel):
    one = {f: getattr(panel, f)[:, 60:61] for f in FIELDS}
    same(replace(panel, symbols=panel.symbols[60:61], **one), StrategySettings(minimum_candidates=1, positions=1))
    for end in (0, 3, 18, 19, 20, 24, 25):
        same(panel.upto(panel.sessions[end]), StrategySettings())


def test_what_the_kernels_do_not_know_goes_through_the_plain_engine(panel):
    terms = Terms(capacity=1e-3, capital=5e6)
    assert np.array_equal(fast_backtest(panel, terms=terms).out, backtest_strategy(panel, V21(), terms).out)
    trend = TrendFollowing(15, 120, 10, 0.08, 10)
    assert np.array_equal(fast_backtest(panel, trend).out, backtest_strategy(panel, trend).out)


@pytest.mark.parametrize("fill", FILLS)
def test_tranches_are_the_same(panel, fill):
    ours, theirs = (run(panel, V21(), Terms(cash_rate=0.03, delisting_return=-0.3), fill=fill, tranches=True) for run in (fast_backtest, backtest_strategy))
    np.testing.assert_allclose(ours.out, theirs.out, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.invested, theirs.invested, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.cash, theirs.cash, rtol=1e-9)
    assert ours.picks.equals(theirs.picks) and ours.trades[["symbol", "entry", "exit", "phase"]].equals(theirs.trades[["symbol", "entry", "exit", "phase"]])
    assert ours.figures["mean_exposure"] == pytest.approx(theirs.figures["mean_exposure"], abs=1e-9) == pytest.approx(float((1 - theirs.cash / theirs.equity).mean()), abs=1e-9)


def test_without_numba_the_plain_engine_answers_and_asking_for_it_is_refused(panel, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert np.array_equal(fast_backtest(panel).out, backtest_strategy(panel, V21()).out)
    with pytest.raises(InputError, match=r"v23\[fast\]"):
        fast_backtest(panel, kernel="numba")


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["us_large_2020_2026", "us_mid_2018_2024"])
def test_real_bars_are_the_same(real_data, name):
    panel = load_bars(real_data / f"{name}.parquet")
    for phase in range(5):
        assert same(panel, StrategySettings(), 1e-11, fill=FILLS[phase % 3], accounting=ACCOUNTINGS[phase % 2], phase=phase, universe=("pit", "legacy_mean")[phase % 2]) > 1000
