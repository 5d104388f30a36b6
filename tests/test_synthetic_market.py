"The synthetic market: the same for a seed, coherent, tradable by V21, and without an edge unless one is asked for."

from datetime import date

import numpy as np
import pytest

from v23 import v21_signals
from v23.market_calendar import sessions_between
from v23.market_data import FIELDS
from v23.settings import StrategySettings
from v23.synthetic_market import SECTORS, synthetic_panel

SETTINGS = StrategySettings()
SEEDS = (7, 11, 12, 13)


def rankings(panel, step=5):
    for row in range(v21_signals.WINDOW, len(panel.sessions), step):
        now = v21_signals.indicators(panel, row)
        universe = v21_signals.tradable(now, SETTINGS)
        yield row, universe, v21_signals.rank_candidates(now, universe, SETTINGS)


def excess_returns(panel) -> np.ndarray:
    "Mean next-five-session return of V21's picks minus that of its universe, one number a rebalance."
    found = []
    for row, universe, ranking in rankings(panel):
        if row + 5 < len(panel.sessions) and len(ranking.columns):
            ahead = panel.close[row + 5] / panel.close[row] - 1
            found.append(ahead[ranking.columns].mean() - ahead[universe].mean())
    return np.array(found)


def t_statistic(x: np.ndarray) -> float:
    return float(x.mean() / x.std(ddof=1) * np.sqrt(len(x)))


def test_a_seed_is_a_market():
    first, again = synthetic_panel.__wrapped__(5, 60), synthetic_panel.__wrapped__(5, 60)
    assert first.digest == again.digest and first.market.equals(again.market) and first.sectors == again.sectors
    assert synthetic_panel.__wrapped__(6, 60).digest != first.digest
    assert synthetic_panel(7) is synthetic_panel(7)


def test_the_default_market_covers_the_calendar_and_says_what_it_is():
    panel = synthetic_panel()
    assert panel.sessions == sessions_between(date(2018, 1, 2), date(2026, 12, 31)) and len(panel.symbols) == 400
    assert panel.synthetic and "synthetic" in panel.source and "seed 7" in panel.source
    assert "reversal edge 0.1" in synthetic_panel(7, 11, date(2026, 1, 2), date(2026, 1, 30), 0.1).source
    assert set(panel.sectors.values()) == set(SECTORS) and len(panel.sectors) < len(panel.symbols)
    assert panel.market.notna().all(axis=None) and panel.market["vix"].between(9, 90).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_bars_are_coherent_and_plausible(seed):
    p = synthetic_panel(seed)
    assert all(np.isfinite(getattr(p, f)).all() for f in FIELDS) and (p.volume > 0).all()
    assert (p.low >= 0.01).all() and (p.low <= np.minimum(p.open, p.close)).all() and (p.high >= np.maximum(p.open, p.close)).all()
    for prices in (p.open, p.high, p.low, p.close):
        assert np.allclose(prices * 100, np.round(prices * 100), atol=1e-6)
    returns = p.close[1:] / p.close[:-1] - 1
    busy = [np.corrcoef(np.abs(returns[:, c]), p.volume[1:, c])[0, 1] for c in range(0, 400, 20)]
    assert np.mean(busy) > 0.3
    liquid = p.close.min(axis=0) > 5
    standard = (returns[:, liquid] - returns[:, liquid].mean(axis=0)) / returns[:, liquid].std(axis=0)
    assert (standard**4).mean() > 5  # Fat tails


@pytest.mark.parametrize("seed", SEEDS)
def test_v21_finds_something_to_hold(seed):
    panel = synthetic_panel(seed)
    eligible = np.array([(panel.sessions[r].year, k.eligible) for r, _, k in rankings(panel)])
    recent = eligible[eligible[:, 0] == 2026, 1]
    assert (eligible[:, 1] >= 5).mean() > 0.985 and (eligible[:, 1] >= 30).mean() > 0.75
    assert (recent >= 5).mean() > 0.95


def test_without_an_edge_v21_is_chance():
    each = [excess_returns(synthetic_panel(seed)) for seed in SEEDS]
    pooled = np.concatenate(each)
    assert all(abs(t_statistic(x)) < 3.3 for x in each)  # One in a thousand, of four
    assert abs(t_statistic(pooled)) < 2.6
    assert pooled.std(ddof=1) / np.sqrt(len(pooled)) < 6e-4  # So 16 bps a week would have been seen


def daily_correlations(panel, back: int) -> np.ndarray:
    "Across names of at least $5, each day: the return over the last `back` sessions against the next session's."
    close, found = panel.close, []
    for t in range(back, len(close) - 1):
        kept = close[t] >= 5
        found.append(np.corrcoef(close[t, kept] / close[t - back, kept], close[t + 1, kept] / close[t, kept])[0, 1])
    return np.array(found)


@pytest.mark.parametrize("back", [1, 5, 20])
def test_past_returns_say_nothing_about_the_next_one(back):
    pooled = np.concatenate([daily_correlations(synthetic_panel(seed), back) for seed in SEEDS])
    assert abs(t_statistic(pooled)) < 3.3
    assert pooled.std(ddof=1) / np.sqrt(len(pooled)) < 0.0015  # A correlation of half a percent would have been seen


def test_the_edge_that_is_asked_for_is_there():
    weak, strong = (excess_returns(synthetic_panel.__wrapped__(7, reversal_edge=e)) for e in (0.05, 0.2))
    assert t_statistic(weak) > 3 and t_statistic(strong) > 10 and strong.mean() > 2 * weak.mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_gap_does_not_foretell_its_day(seed):
    p = synthetic_panel(seed)
    kept = p.close.min(axis=0) > 5
    night, day = (p.open[1:] / p.close[:-1] - 1)[:, kept], (p.close[1:] / p.open[1:] - 1)[:, kept]
    assert abs(np.corrcoef(night.mean(axis=1), day.mean(axis=1))[0, 1]) < 0.08
    own = [x - x.mean(axis=1, keepdims=True) for x in (night, day)]
    assert abs(np.corrcoef(own[0].ravel(), own[1].ravel())[0, 1]) < 0.02
    assert 0.2 < night.var() / (night.var() + day.var()) < 0.4
