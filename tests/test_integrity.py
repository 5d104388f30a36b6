"Each integrity question answers what it is asked: planted optimism, luck and market exposure are seen, honest gains are left alone."

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from v23.backtest import Terms
from v23.backtest_result import backtest_strategy
from v23.data_quality import quality_report
from v23.errors import InputError
from v23.example_strategies import LowVolatility, TrendFollowing, ranked
from v23.integrity import Verdict, alpha_beta, concentration, cost_curve, equal_weight, fill_optimism, parameter_plateau, phase_luck, regression, survivorship_stamp
from v23.synthetic_market import synthetic_panel
from v23.v21_signals import V21


@pytest.fixture(scope="module")
def panel():
    return synthetic_panel(5, 80, date(2022, 1, 3), date(2025, 6, 30))


class Losers:
    "Yesterday's losers, held for a session."

    name, holding_sessions, warmup_sessions = "losers", 1, 2

    def signals(self, panel, as_of):
        r = panel.row(as_of)
        return ranked(panel, as_of, 1 - panel.close[r] / panel.close[r - 1] if r else np.full(len(panel.symbols), np.nan), 10)


def test_a_gain_that_hangs_on_the_closing_print_is_seen(panel, rng):
    bounce = np.exp(rng.normal(0, 0.02, panel.close.shape))  # The close is printed off the true price and back by the next open
    close = panel.close * bounce
    printed = replace(panel, close=close, high=np.maximum(panel.high, close), low=np.minimum(panel.low, close))
    told = fill_optimism(printed, Losers(), terms=Terms(cost_bps=0))
    assert told.verdict is Verdict.DOUBTFUL and told["optimism"] > 3
    assert fill_optimism(panel, LowVolatility(20)).verdict is Verdict.HOLDS


def test_reporting_the_same_close_fails_whatever_it_shows(panel):
    assert fill_optimism(panel, LowVolatility(20), default="close").verdict is Verdict.FAILS


@pytest.mark.parametrize("arguments", [{}, {"fill": "next_close"}, {"fill": "close", "accounting": "constant"}, {"phase": 3}], ids=str)
@pytest.mark.parametrize("strategy", [V21(), TrendFollowing(positions=15)], ids=lambda s: s.name)
def test_the_cost_curve_of_one_run_is_what_other_runs_would_show(panel, strategy, arguments):
    curve = cost_curve(backtest_strategy(panel, strategy, **arguments), (0, 7, 40)).table
    for bps in (0, 7, 40):
        again = backtest_strategy(panel, strategy, Terms(cost_bps=bps), **arguments).figures
        assert curve.loc[bps, "sharpe"] == pytest.approx(again["sharpe"], abs=1e-9)
        assert curve.loc[bps, "cagr"] == pytest.approx(again["cagr"], abs=1e-9)
    assert curve["cagr"].is_monotonic_decreasing and curve["sharpe"].is_monotonic_decreasing


def test_at_the_break_even_cost_nothing_is_earned(panel):
    told = cost_curve(backtest_strategy(panel, LowVolatility(20)))
    even = told["break_even_bps"]
    assert even is not None and abs(backtest_strategy(panel, LowVolatility(20), Terms(cost_bps=even)).figures["cagr"]) < 1e-6
    assert (told.verdict is Verdict.HOLDS) == (even >= 20)


def test_the_phases_are_the_phases(panel):
    told = phase_luck(panel, V21())
    for p in range(5):
        assert told.table.loc[str(p), "sharpe"] == backtest_strategy(panel, V21(), phase=p).figures["sharpe"]
    assert told["spread"] == pytest.approx(told["highest"] - told["lowest"])


def test_a_panel_without_the_dead_is_stamped(panel):
    real = replace(panel, synthetic=False)
    assert survivorship_stamp(real)["stamp"] == "SURVIVORS ONLY" and survivorship_stamp(real).verdict is Verdict.DOUBTFUL
    close = panel.close.copy()
    close[400:, :16] = np.nan
    fields = {n: np.where(np.isnan(close), np.nan, getattr(panel, n)) for n in ("open", "high", "low", "close", "volume")}
    dying = replace(real, **fields)
    told = survivorship_stamp(dying, quality_report(dying))
    assert told["ended"] == 0.2 and told.verdict is Verdict.UNKNOWN


def test_the_market_itself_has_no_alpha_and_a_beta_of_one(panel):
    market = equal_weight(panel).to_numpy()[1:]
    told = regression(market, market)
    assert abs(told["alpha"]) < 1e-12 and told["beta"] == pytest.approx(1) and told["r2"] == pytest.approx(1)
    told = alpha_beta(backtest_strategy(panel, LowVolatility(40)))
    assert told["alpha_t_equal_weights"] < 2.5 and 0.5 < told["beta_equal_weights"] < 1.2


def test_t_values_allow_for_autocorrelation(rng):
    x, noise = rng.normal(0, 0.01, 3000), rng.normal(0, 0.01, 3000)
    smooth = np.convolve(noise, np.ones(5) / 5, mode="full")[:3000] + 0.0003
    shuffled = rng.permutation(smooth)
    assert abs(regression(smooth, x)["alpha_t"]) < 0.75 * abs(regression(shuffled, x)["alpha_t"])


def test_concentration_counts_the_days(panel):
    result = backtest_strategy(panel, LowVolatility(20))
    told, net = concentration(result), np.sort(result.returns.to_numpy())[::-1]
    few = told["days_to_nothing"]
    assert np.prod(1 + net[few:]) <= 1 + 1e-12 < np.prod(1 + net[few - 1 :]) + 1e-12
    assert told["without_10"] == pytest.approx(np.prod(1 + net[10:]) - 1)


class Tuned:
    "Knows the future when its number is 7, else draws lots."

    name, holding_sessions, warmup_sessions = "tuned", 5, 1

    future: object = None

    def __init__(self, number: int = 7):
        self.number = number

    def signals(self, panel, as_of):
        r = panel.row(as_of)
        if self.number == 7 and r + 6 < len(self.future.sessions):
            return ranked(panel, as_of, self.future.close[r + 6] / self.future.close[r + 1], 10)
        return ranked(panel, as_of, np.random.default_rng([self.number, r]).random(len(panel.symbols)), 10)


def test_a_spike_is_no_plateau(panel):
    Tuned.future = panel
    told = parameter_plateau(panel, Tuned, {"number": 7}, {"number": (5, 6, 8, 9)})
    assert told["chosen"] > 5 and told.verdict is not Verdict.HOLDS
    assert told["neighbour_median"] < 0.4 * told["chosen"]


def test_what_a_plateau_is_asked_wrongly_is_said_in_one_line(panel):
    with pytest.raises(InputError, match="did you mean 'window'"):
        parameter_plateau(panel, LowVolatility, {}, {"windw": (63,)})
    with pytest.raises(InputError, match="outside"):
        fill_optimism(panel, V21(), start=date(2031, 1, 2))
