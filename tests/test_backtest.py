"The backtest against a slow, plain second implementation, on bars with holes and delistings, and against its own rules."

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from broken_panel import broken_panel
from slow_backtest import equal_targets, slow_indicators, slow_picks, slow_run

from v23 import v21_signals
from v23.backtest import ACCOUNTINGS, FILLS, UNIVERSES, Terms, all_phases, backtest
from v23.errors import InputError, V23Error
from v23.market_data import FIELDS
from v23.settings import StrategySettings
from v23.synthetic_market import synthetic_panel

SETTINGS = StrategySettings()


@pytest.fixture(scope="module")
def panel():
    return broken_panel()


@pytest.fixture(scope="module")
def slow(panel):
    return slow_indicators(panel)


@pytest.mark.parametrize("universe", UNIVERSES)
@pytest.mark.parametrize("phase", [0, 3])
def test_a_second_implementation_agrees(panel, slow, universe, phase):
    picks = slow_picks(panel, slow, SETTINGS, universe, phase)
    for fill in FILLS:
        for accounting in ACCOUNTINGS:
            result = backtest(panel, fill=fill, accounting=accounting, universe=universe, phase=phase)
            theirs = [(panel.sessions[row].isoformat(), n, s, int(strict), count) for row, names, strict, count in picks for n, s in enumerate(names, 1)]
            assert list(result.picks[["date", "rank", "symbol", "strict", "n_valid"]].itertuples(index=False, name=None)) == theirs
            days, spells = slow_run(panel, equal_targets(picks), fill, accounting, Terms())
            np.testing.assert_allclose(result.daily[["gross", "cost", "net", "turnover"]], days[:, :4], rtol=0, atol=1e-12, equal_nan=False)
            dates = [s.isoformat() for s in panel.sessions]
            assert list(result.trades[["symbol", "entry", "exit"]].itertuples(index=False, name=None)) == [(s, dates[a], dates[b]) for s, a, _, b, _ in spells]
            np.testing.assert_allclose(result.trades["gross"], [q / p - 1 for _, _, p, _, q in spells], rtol=0, atol=1e-12, equal_nan=False)
    assert len(spells) > 100 and any(picks[n][1] for n in range(len(picks)))


def test_the_legacy_floor_is_the_mean_of_close_times_volume(panel):
    mean = np.nanmean(panel.close * panel.volume, axis=0)
    level = 1e6 * (1 + 1e-4 * (-1) ** np.arange(len(mean)))  # A hair above and below the floor, in turn
    edge = replace(panel, volume=panel.volume / mean * level)
    ours = backtest(edge, universe="legacy_mean").picks
    theirs = [(edge.sessions[row].isoformat(), s) for row, names, *_ in slow_picks(edge, slow_indicators(edge), SETTINGS, "legacy_mean") for s in names]
    assert list(ours[["date", "symbol"]].itertuples(index=False, name=None)) == theirs
    assert set(ours["symbol"]) <= set(panel.symbols[::2]) and len(ours) > 50


def test_the_panel_of_these_tests_has_what_it_must(panel):
    trades = backtest(panel).trades
    there = pd.DataFrame(~np.isnan(panel.close), index=[s.isoformat() for s in panel.sessions], columns=list(panel.symbols))
    assert sum(not there.loc[t.exit, t.symbol] for t in trades.itertuples()) >= 3  # Sold, or marked, without a bar


def test_a_delisted_holding_leaves_at_its_last_close(panel):
    whole = synthetic_panel(21, 80, date(2024, 1, 2), date(2025, 12, 31))
    before = backtest(whole)
    held = before.trades[before.trades["entry"] > "2024-08-01"].iloc[0]
    last = whole.row(date.fromisoformat(held["entry"])) + 1
    c = whole.column(held["symbol"])
    bars = {f: getattr(whole, f).copy() for f in FIELDS}
    for f in FIELDS:
        bars[f][last + 1 :, c] = np.nan
    trade = (result := backtest(replace(whole, **bars))).trades.query("symbol == @held.symbol and entry == @held.entry").iloc[0]
    assert trade["gross"] == pytest.approx(whole.close[last, c] / whole.open[last - 1, c] - 1, abs=1e-12)
    assert trade["exit"] >= whole.sessions[last].isoformat() and held["symbol"] not in set(result.picks.query("date > @trade.exit")["symbol"])
    assert result.trades.notna().all(axis=None) and result.daily.notna().all(axis=None)


def test_signals_and_backtest_pick_the_same_names(panel):
    picks = backtest(panel, phase=2).picks
    strategy = v21_signals.V21()
    for row in range(2, len(panel.sessions), 5):
        day = panel.sessions[row]
        signals = strategy.signals(panel, day)
        expected = picks[picks["date"] == day.isoformat()]
        assert [(s.rank, s.symbol, s.score, s.strict) for s in signals] == [(p.rank, p.symbol, p.ret5, bool(p.strict)) for p in expected.itertuples()]


@pytest.mark.parametrize("name", ["indicators", "tradable", "strict_rule", "relaxed_rule", "rank_candidates", "rsi", "volatility"])
def test_signals_and_backtest_go_through_the_same_functions(panel, monkeypatch, name):
    original, calls = getattr(v21_signals, name), []
    monkeypatch.setattr(v21_signals, name, lambda *a, **o: calls.append(name) or original(*a, **o))
    v21_signals.V21().signals(panel, panel.sessions[300])
    assert calls
    calls.clear()
    backtest(panel)
    assert len(calls) >= 2  # Windows of several days go through in one call


def test_a_rule_that_changes_without_its_batch_ends_the_backtest(panel, monkeypatch):
    day = panel.sessions[300]
    signals = v21_signals.V21().signals(panel, day)
    original = v21_signals.rank_candidates

    def worst_last(now, universe, settings):
        return original(replace(now, week_return=-now.week_return), universe, settings)

    monkeypatch.setattr(v21_signals, "rank_candidates", worst_last)
    assert [s.symbol for s in v21_signals.V21().signals(panel, day)] != [s.symbol for s in signals]
    with pytest.raises(V23Error, match="would not be what is traded"):
        backtest(panel)


@pytest.mark.parametrize("fill", FILLS)
def test_the_future_changes_nothing_before_it(panel, fill):
    cut = 350
    rng = np.random.default_rng(1)
    scrambled = replace(panel, **{f: np.vstack([getattr(panel, f)[:cut], rng.permutation(getattr(panel, f)[cut:])]) for f in FIELDS})
    ours, theirs = backtest(panel, fill=fill), backtest(scrambled, fill=fill)
    day = panel.sessions[cut].isoformat()
    assert ours.daily[ours.daily["date"] < day].equals(theirs.daily[theirs.daily["date"] < day])
    assert ours.picks[ours.picks["date"] < day].equals(theirs.picks[theirs.picks["date"] < day])
    assert not ours.daily.equals(theirs.daily)


def test_legacy_mean_is_a_look_ahead_and_pit_is_not(panel):
    thin = panel.volume * 0.03  # Half of the names near the floor
    dried = thin.copy()
    dried[300:] = 0.0
    before = panel.sessions[295].isoformat()

    def early(volume, universe):
        picks = backtest(replace(panel, volume=volume), universe=universe).picks
        return picks[picks["date"] < before].reset_index(drop=True)

    assert len(early(thin, "pit")) > 50
    assert early(thin, "pit").equals(early(dried, "pit"))
    assert not early(thin, "legacy_mean").equals(early(dried, "legacy_mean"))


def test_a_record_may_start_late_and_keeps_its_history_and_phase(panel):
    start, end = panel.sessions[203], panel.sessions[400]
    whole, part = backtest(panel, phase=1), backtest(panel, phase=1, start=start, end=end)

    def within(table, first):
        return table[(table["date"] >= first.isoformat()) & (table["date"] <= end.isoformat())].reset_index(drop=True)

    assert part.picks.equals(within(whole.picks, start)) and len(part.picks)
    assert part.metrics["days"] == 198 == len(part.daily) and part.daily["date"].iloc[0] == start.isoformat()
    settled = panel.sessions[213]  # The first decision is of row 206 and filled at 207
    np.testing.assert_allclose(within(part.daily, settled)[["gross", "net"]], within(whole.daily, settled)[["gross", "net"]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("arguments", [{"fill": "open"}, {"accounting": "cash"}, {"universe": "all"}, {"phase": 5}, {"phase": -1}, {"start": date(2030, 1, 2)}])
def test_arguments_out_of_range_are_named(panel, arguments):
    with pytest.raises(InputError, match=str(next(iter(arguments.values())))):
        backtest(panel, **arguments)


def test_five_phases_and_files(panel, tmp_path):
    phases = all_phases(panel)
    assert [p["phase"] for p in phases] == [0, 1, 2, 3, 4]
    result = backtest(panel)
    assert (phases[0]["sharpe"], phases[0]["max_dd"]) == (result.metrics["sharpe"], result.metrics["max_dd"])
    result.write(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["daily.csv", "metrics.json", "picks.csv", "trades.csv"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == json.loads(json.dumps(result.metrics))
    assert pd.read_csv(tmp_path / "out" / "daily.csv")["net"].to_numpy() == pytest.approx(result.daily["net"].to_numpy(), abs=0)
    assert "SYNTHETIC" in result._repr_html_() and "published" in result._repr_html_()
