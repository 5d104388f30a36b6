"Every convention of the backtest against the slow second implementation: parameter sets, phases, terms, weights, tranches, both real sets; and what must always hold."

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from broken_panel import broken_panel
from hypothesis import given, settings as how, strategies as st
from slow_backtest import equal_targets, slow_indicators, slow_picks, slow_run

from v23 import candidates
from v23.adapters.bars import load_bars
from v23.backtest import ACCOUNTINGS, FILLS, Target, Terms, backtest, run_targets
from v23.backtest_result import backtest_strategy, phase_spread
from v23.errors import InputError
from v23.example_strategies import LowVolatility, TrendFollowing
from v23.market_data import FIELDS
from v23.settings import StrategySettings
from v23.v21_signals import V21

SETS = (
    {"positions": 10, "rsi_ceiling": 45.0},
    {"holding_sessions": 3, "positions": 12, "volatility_floor": 0.2},
    {"holding_sessions": 7, "drawdown_shallow": -0.05, "drawdown_deep": -0.3},
    {"holding_sessions": 1, "positions": 5, "minimum_candidates": 1},
    {"holding_sessions": 25, "volume_ratio": 0.8, "volatility_ratio": 0.9, "positions": 4},
    {"relaxed_rsi": 25.0, "relaxed_volatility": 0.3, "minimum_candidates": 2},
    {"minimum_price": 40.0, "minimum_dollar_volume": 2e7, "positions": 3},
)  # fmt: skip
TERMS = (
    {"cost_bps": 35.0, "cost_per_share": 0.01},
    {"cash_rate": 0.05},
    {"delisting_return": -0.3},
    {"capacity": 2e-3, "capital": 5e6},
    {"cost_bps": 5.0, "cost_per_share": 0.005, "cash_rate": 0.03, "delisting_return": -0.5, "capacity": 1e-3, "capital": 3e6},
)
HONEST = {"fill": "next_open", "accounting": "drift"}


@pytest.fixture(scope="module")
def panel():
    return broken_panel()


@pytest.fixture(scope="module")
def slow(panel):
    return slow_indicators(panel)


def check(result, days, spells, panel, tolerance=1e-12):
    "Daily rows, equity, cash and trades of a result are those of the slow run."
    np.testing.assert_allclose(result.daily[["gross", "cost", "net", "turnover", "unfilled"]], days[:, :5], rtol=0, atol=tolerance, equal_nan=False)
    scale = result.capital
    np.testing.assert_allclose(result.equity / scale, days[:, 5] / scale, rtol=0, atol=tolerance * 100)
    np.testing.assert_allclose(result.cash / scale, days[:, 6] / scale, rtol=0, atol=tolerance * 100)
    dates = [s.isoformat() for s in panel.sessions]
    assert list(result.trades[["symbol", "entry", "exit"]].itertuples(index=False, name=None)) == [(s, dates[a], dates[b]) for s, a, _, b, _ in spells]
    np.testing.assert_allclose(result.trades["gross"], [q / p - 1 for _, _, p, _, q in spells], rtol=0, atol=tolerance, equal_nan=False)


@pytest.mark.parametrize("changes", SETS, ids=lambda c: next(iter(c)) + str(c.get("holding_sessions", "")))
def test_every_parameter_set_and_phase_agrees(panel, slow, changes):
    s = replace(StrategySettings(), **changes)
    seen = 0
    for phase in range(min(s.holding_sessions, 5)):
        picks = slow_picks(panel, slow, s, "pit", phase)
        fill, accounting = FILLS[phase % 3], ACCOUNTINGS[phase % 2]
        days, spells = slow_run(panel, equal_targets(picks), fill, accounting, Terms(s.cost_bps))
        check(backtest_strategy(panel, V21(s), fill=fill, accounting=accounting, phase=phase), days, spells, panel)
        seen += len(spells)
    assert seen > 20


@pytest.mark.parametrize("given_terms", TERMS, ids=lambda t: "+".join(t))
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("accounting", ACCOUNTINGS)
def test_costs_interest_delistings_and_capacity_agree(panel, slow, given_terms, fill, accounting):
    terms, s = Terms(**given_terms), replace(StrategySettings(), positions=12)
    picks = slow_picks(panel, slow, s)
    days, spells = slow_run(panel, equal_targets(picks), fill, accounting, terms)
    result = backtest_strategy(panel, V21(s), terms, fill=fill, accounting=accounting)
    check(result, days, spells, panel, 1e-11)
    assert (result.daily["unfilled"].sum() > 0.5) == (terms.capacity is not None)


def test_each_of_these_terms_matters(panel):
    s = V21(replace(StrategySettings(), positions=12))
    ends = [float(backtest_strategy(panel, s, Terms(**t)).equity.iloc[-1]) / Terms(**t).capital for t in ({}, *TERMS)]
    assert len({round(e, 6) for e in ends}) == len(ends)


@pytest.mark.parametrize("strategy", [LowVolatility(15, 60, 10), TrendFollowing(15, 120, 10, 0.08, 10)], ids=lambda s: s.name)
@pytest.mark.parametrize("fill", FILLS)
def test_weights_of_other_strategies_agree(panel, strategy, fill):
    targets = {}
    for row in range(0, len(panel.sessions), strategy.holding_sessions):
        day = panel.sessions[row]
        names = strategy.signals(panel.upto(day), day)
        weights = strategy.weights(panel.upto(day), day, names) if hasattr(strategy, "weights") and names else {n.symbol: 1 / len(names) for n in names}
        targets[row] = {n: w for n, w in weights.items() if w > 0}
    days, spells = slow_run(panel, targets, fill, "drift", Terms())
    check(backtest_strategy(panel, strategy, fill=fill), days, spells, panel, 1e-11)
    assert len(spells) > 20 and (strategy.name != "trend following" or days[:, 6].max() > 0)


def test_five_tranches_are_five_books_side_by_side(panel, slow):
    parts = [slow_run(panel, equal_targets(slow_picks(panel, slow, StrategySettings(), "pit", p)), "next_open", "drift", Terms(capital=2e5))[0] for p in range(5)]
    result = backtest_strategy(panel, V21(), Terms(capital=1e6), tranches=True)
    np.testing.assert_allclose(result.equity, sum(p[:, 5] for p in parts), rtol=1e-12)
    np.testing.assert_allclose(result.cash, sum(p[:, 6] for p in parts), rtol=1e-11, atol=1e-5)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["us_large_2020_2026", "us_mid_2018_2024"])
def test_all_phases_and_other_parameters_agree_on_real_bars(real_data, name):
    panel = load_bars(real_data / f"{name}.parquet")
    slow = slow_indicators(panel)
    for changes in ({}, {"holding_sessions": 10, "positions": 15, "rsi_ceiling": 30.0}):
        s = replace(StrategySettings(), **changes)
        for phase in range(s.holding_sessions) if not changes else (0, 7):
            for universe in ("pit", "legacy_mean"):
                picks = slow_picks(panel, slow, s, universe, phase)
                fills = FILLS if phase == 3 else (FILLS[phase % 3],)
                for n, fill in enumerate(fills):
                    accounting = ACCOUNTINGS[(phase + n) % 2]
                    days, spells = slow_run(panel, equal_targets(picks), fill, accounting, Terms(s.cost_bps))
                    result = backtest_strategy(panel, V21(s), fill=fill, accounting=accounting, phase=phase, universe=universe)
                    assert [(r, names) for r, names, *_ in picks if names] == [(panel.row(day.date()), group["symbol"].to_list()) for day, group in result.picks.groupby(pd.to_datetime(result.picks["date"]))]
                    check(result, days, spells, panel, 1e-9)


# What must always hold


def changed(panel, **fields):
    return replace(panel, **{n: f(getattr(panel, n)) for n, f in fields.items()})


@given(factor=st.floats(0.25, 40.0))
@how(max_examples=12)
def test_another_currency_changes_nothing(factor):
    panel = broken_panel()
    prices = dict.fromkeys(("open", "high", "low", "close"), lambda m: m * factor)
    other = changed(panel, **prices, volume=lambda m: m / factor)
    s = replace(StrategySettings(), minimum_price=0.0)
    ours, theirs = (backtest(p, s) for p in (panel, other))
    assert ours.picks.drop(columns="ret5").equals(theirs.picks.drop(columns="ret5")) and len(ours.picks) > 500
    np.testing.assert_allclose(ours.daily[["gross", "net", "turnover"]], theirs.daily[["gross", "net", "turnover"]], rtol=0, atol=1e-12)


@given(seed=st.integers(0, 10_000))
@how(max_examples=10)
def test_other_names_for_the_same_bars_change_nothing_but_the_order_of_ties(seed):
    panel = broken_panel()
    order = np.random.default_rng(seed).permutation(len(panel.symbols))
    other = changed(panel, **dict.fromkeys(FIELDS, lambda m: m[:, order]))
    renamed = dict(zip(panel.symbols, np.array(panel.symbols)[order], strict=True))
    ours, theirs = backtest(panel), backtest(other)
    mapped = theirs.picks.assign(symbol=theirs.picks["symbol"].map(renamed))
    untied = ~ours.picks.duplicated(["date", "ret5"], keep=False)
    assert ours.picks[untied].reset_index(drop=True).equals(mapped[untied].reset_index(drop=True))
    np.testing.assert_allclose(ours.daily[["gross", "net"]], theirs.daily[["gross", "net"]], rtol=0, atol=1e-12)


@given(cut=st.integers(65, 500), fill=st.sampled_from(FILLS))
@how(max_examples=15)
def test_a_future_that_never_came_changes_no_past(cut, fill):
    panel = broken_panel()
    ours, theirs = backtest(panel, fill=fill), backtest(panel.upto(panel.sessions[cut]), fill=fill)
    assert ours.daily.iloc[: cut + 1].equals(theirs.daily)
    before = panel.sessions[cut].isoformat()
    assert ours.picks[ours.picks["date"] <= before].reset_index(drop=True).equals(theirs.picks)


@given(low=st.floats(0, 60), step=st.floats(0.01, 60), fill=st.sampled_from(FILLS), accounting=st.sampled_from(ACCOUNTINGS))
@how(max_examples=15)
def test_a_higher_cost_never_pays(low, step, fill, accounting):
    panel = broken_panel()
    cheap, dear = (backtest_strategy(panel, V21(), Terms(cost_bps=c), fill=fill, accounting=accounting) for c in (low, low + step))
    assert (dear.daily["net"] <= cheap.daily["net"] + 1e-15).all() and dear.figures["cagr"] < cheap.figures["cagr"]
    assert dear.figures["cost_per_year"] > cheap.figures["cost_per_year"]


@given(
    fill=st.sampled_from(FILLS), accounting=st.sampled_from(ACCOUNTINGS), tranches=st.booleans(), cost_bps=st.floats(0, 100), per_share=st.floats(0, 0.05),
    cash_rate=st.floats(-0.01, 0.1), delisting=st.floats(-1, 0.5), capacity=st.none() | st.floats(1e-4, 0.5), capital=st.floats(1e4, 1e8),
)  # fmt: skip
@how(max_examples=25)
def test_cash_and_positions_are_the_equity_every_day(fill, accounting, tranches, cost_bps, per_share, cash_rate, delisting, capacity, capital):
    terms = Terms(cost_bps, per_share, cash_rate, delisting, capacity, capital)
    result = backtest_strategy(broken_panel(), V21(), terms, fill=fill, accounting=accounting, tranches=tranches)
    off = (result.positions.sum(axis=1) + result.cash) / result.equity - 1
    assert float(off.abs().max()) < 1e-9
    assert (result.positions >= 0).all(axis=None) and float((result.cash / result.equity).min()) > -1e-9


@given(weights=st.lists(st.floats(0.001, 0.12), min_size=1, max_size=8), fill=st.sampled_from(FILLS))
@how(max_examples=20)
def test_any_weights_trade_as_the_slow_book_does(weights, fill):
    panel = broken_panel()
    rng = np.random.default_rng(len(weights))
    targets, plain = [], {}
    for row in range(70, 480, 9):
        columns = np.sort(rng.choice(len(panel.symbols), len(weights), replace=False))
        columns = columns[~np.isnan(panel.close[row, columns])]
        w = np.array(weights[: len(columns)])
        targets.append(Target(row, columns, w))
        plain[row] = {panel.symbols[c]: float(x) for c, x in zip(columns, w, strict=True)}
    run = run_targets(panel, targets, fill, "drift", Terms())
    days, spells = slow_run(panel, plain, fill, "drift", Terms())
    np.testing.assert_allclose(run.out, days[:, :4], rtol=0, atol=1e-12)
    assert len(run.spells) == len(spells)


def test_phases_and_tranches_stand_side_by_side(panel):
    table = phase_spread(panel, V21())
    assert list(table.index) == ["0", "1", "2", "3", "4", "tranches"]
    assert table["sharpe"].to_list()[:5] == [backtest(panel, phase=p).metrics["sharpe"] for p in range(5)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"terms": lambda: Terms(capacity=2.0)}, "capacity is 2.0"), ({"terms": lambda: Terms(cost_bps=-1)}, "cost_bps is -1"), ({"phase": 5}, "phase is 5"),
     ({"phase": 1, "tranches": True}, "tranches"), ({"fill": "open"}, "fill is 'open'"), ({"universe": "sp500"}, "sp500")],
)  # fmt: skip
def test_what_cannot_be_is_named(panel, arguments, said):
    with pytest.raises(InputError, match=said):
        backtest_strategy(panel, V21(), **{k: v() if callable(v) else v for k, v in arguments.items()})


def test_how_the_windows_are_shared_out_changes_no_bit(monkeypatch):
    panel, s, seen = broken_panel(), StrategySettings(rsi_ceiling=50.0), []
    for batch, threads in ((10**6, 1), (64, 4), (7, 2), (1, 2), (1000, 3)):
        monkeypatch.setattr(candidates, "BATCH", batch)
        monkeypatch.setattr(candidates, "threads", lambda n=threads: n)
        found = candidates.find_candidates(panel, [s], "pit", 1)
        seen.append([found.offsets, found.columns, *vars(found.now).values()])
    assert len(seen[0][1]) > 500
    for other in seen[1:]:
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(seen[0], other, strict=True))
