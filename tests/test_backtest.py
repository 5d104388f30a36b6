"The backtest against a slow, plain second implementation, on bars with holes and delistings, and against its own rules."

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from v23 import v21_signals
from v23.backtest import ACCOUNTINGS, FILLS, UNIVERSES, all_phases, backtest
from v23.errors import InputError
from v23.market_data import FIELDS
from v23.settings import StrategySettings
from v23.synthetic_market import synthetic_panel

SETTINGS = StrategySettings()


@pytest.fixture(scope="module")
def panel():
    "Two years of eighty names: some never listed to the end, some listed late, some with holes, some idle."
    whole = synthetic_panel(21, 80, date(2024, 1, 2), date(2025, 12, 31))
    rng = np.random.default_rng(4)
    bars = {f: getattr(whole, f).copy() for f in FIELDS}
    gone = np.zeros(whole.close.shape, dtype=bool)
    for c in range(0, 30):
        gone[rng.integers(80, 480) :, c] = True
    for c in range(30, 40):
        gone[: rng.integers(20, 200), c] = True
    gone |= rng.random(gone.shape) < 0.004
    for f in FIELDS:
        bars[f][gone] = np.nan
    bars["volume"][(rng.random(gone.shape) < 0.01) & ~gone] = 0.0
    for f in ("open", "high", "low", "close"):  # Names that stand still for weeks
        bars[f][100:160, 45:50] = np.where(np.isnan(bars[f][100:160, 45:50]), np.nan, bars["close"][99, 45:50])
    return replace(whole, **bars)


def slow_picks(panel, universe: str, phase: int) -> list[tuple]:
    "Rolling pandas over whole columns, as the conventions are worded."
    close, high, volume = panel.frame("close"), panel.frame("high"), panel.frame("volume")
    returns = close / close.shift(1) - 1
    vol20, vol60 = (returns.rolling(n).std() * 252**0.5 for n in (20, 60))
    ups, downs = (returns.clip(lower=0).rolling(14).mean(), (-returns.clip(upper=0)).rolling(14).mean())
    ups, downs = (x.mask(x * 14 < 1e-12, 0.0) for x in (ups, downs))
    rsi = 100 - 100 / (1 + ups / downs)
    rsi = rsi.mask((downs == 0) & (ups > 0), 100.0).mask((downs == 0) & (ups == 0), 50.0)
    if universe == "legacy_mean":
        rsi = rsi.mask(downs == 0, 0.0)
        allowed = pd.DataFrame(np.tile(((close * volume).mean() > 1e6).to_numpy(), (len(close), 1)), close.index, close.columns)
    else:
        allowed = ((close * volume).rolling(20).mean() > 1e6) & (close > 5)
    drawdown, busy = close / high.rolling(20).max() - 1, volume / volume.rolling(20).mean()
    band = (drawdown >= -0.5) & (drawdown <= -0.12) & allowed
    strict = band & (vol20 / vol60 > 1.2) & (vol20 > 0.30) & (rsi < 35) & (busy > 1.3)
    relaxed = band & (rsi < 45) & (vol20 > 0.24)
    week = close / close.shift(5) - 1
    out = []
    for row in range(phase, len(close), 5):
        rule = strict if (strict.iloc[row] & week.iloc[row].notna()).sum() >= 30 else relaxed
        found = sorted((week.iloc[row][s], s) for s in close.columns if rule.iloc[row][s] and week.iloc[row][s] == week.iloc[row][s])
        out.append((row, [s for _, s in found[:30]] if len(found) >= 5 else [], rule is strict, len(found)))
    return out


def slow_run(panel, picks, fill: str, accounting: str) -> tuple[np.ndarray, list[tuple]]:
    "Day by day over dictionaries: weights, last prices, spells."
    close, opened = panel.frame("close"), panel.frame("open")
    last, weights, spells, closed, days = {}, {}, {}, [], []
    due = {row + (fill != "close"): names for row, names, *_ in picks}

    def earn(prices):
        gain = sum(w * (prices[s] / last[s] - 1) for s, w in weights.items())
        if accounting == "drift":
            weights.update({s: w * (prices[s] / last[s]) / (1 + gain) for s, w in weights.items()})
        return gain

    def trade(row, names, prices, here):
        names = [s for s in names if s in here or s in weights]
        turnover = sum(abs((1 / len(names) if s in names else 0) - weights.get(s, 0)) for s in {*names, *weights})
        for s in sorted(set(weights) - set(names)):
            closed.append((s, *spells.pop(s), row, prices[s]))
        for s in names:
            spells.setdefault(s, (row, prices[s]))
        weights.clear()
        weights.update({s: 1 / len(names) for s in names})
        return turnover

    for row in range(len(close)):
        here = {s for s, x in close.iloc[row].items() if x == x}
        end = last | {s: close.iloc[row][s] for s in here}
        gross = turnover = 0.0
        if fill == "next_open" and row in due:
            start = last | {s: opened.iloc[row][s] for s in here}
            gross = 1 + earn(start)
            turnover = trade(row, due[row], start, here)
            last = start
            gross = gross * (1 + earn(end)) - 1
        else:
            gross = earn(end)
        last = end
        if fill != "next_open" and row in due:
            turnover = trade(row, due[row], end, here)
        days.append((gross, turnover * 1e-3, gross - turnover * 1e-3, turnover))
    still = [(s, *spells[s], len(close) - 1, last[s]) for s in sorted(spells)]
    return np.array(days), sorted(closed, key=lambda t: (t[3], t[1], t[0])) + still


@pytest.mark.parametrize("universe", UNIVERSES)
@pytest.mark.parametrize("phase", [0, 3])
def test_a_second_implementation_agrees(panel, universe, phase):
    picks = slow_picks(panel, universe, phase)
    for fill in FILLS:
        for accounting in ACCOUNTINGS:
            result = backtest(panel, fill=fill, accounting=accounting, universe=universe, phase=phase)
            theirs = [(panel.sessions[row].isoformat(), n, s, int(strict), count) for row, names, strict, count in picks for n, s in enumerate(names, 1)]
            assert list(result.picks[["date", "rank", "symbol", "strict", "n_valid"]].itertuples(index=False, name=None)) == theirs
            days, spells = slow_run(panel, picks, fill, accounting)
            np.testing.assert_allclose(result.daily[["gross", "cost", "net", "turnover"]], days, rtol=0, atol=1e-12, equal_nan=False)
            dates = [s.isoformat() for s in panel.sessions]
            assert list(result.trades[["symbol", "entry", "exit"]].itertuples(index=False, name=None)) == [(s, dates[a], dates[b]) for s, a, _, b, _ in spells]
            np.testing.assert_allclose(result.trades["gross"], [q / p - 1 for _, _, p, _, q in spells], rtol=0, atol=1e-12, equal_nan=False)
    assert len(spells) > 100 and any(picks[n][1] for n in range(len(picks)))


def test_the_legacy_floor_is_the_mean_of_close_times_volume(panel):
    mean = np.nanmean(panel.close * panel.volume, axis=0)
    level = 1e6 * (1 + 1e-4 * (-1) ** np.arange(len(mean)))  # A hair above and below the floor, in turn
    edge = replace(panel, volume=panel.volume / mean * level)
    ours = backtest(edge, universe="legacy_mean").picks
    theirs = [(edge.sessions[row].isoformat(), s) for row, names, *_ in slow_picks(edge, "legacy_mean", 0) for s in names]
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
    assert len(calls) >= (90 if name == "rank_candidates" else 2)  # Windows of several days go through in one call


def test_reversing_the_ranking_changes_both(panel, monkeypatch):
    day = panel.sessions[300]
    picks, signals = backtest(panel).picks, v21_signals.V21().signals(panel, day)
    original = v21_signals.rank_candidates

    def worst_last(now, universe, settings):
        return original(replace(now, week_return=-now.week_return), universe, settings)

    monkeypatch.setattr(v21_signals, "rank_candidates", worst_last)
    assert not backtest(panel).picks.equals(picks)
    assert [s.symbol for s in v21_signals.V21().signals(panel, day)] != [s.symbol for s in signals]


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
