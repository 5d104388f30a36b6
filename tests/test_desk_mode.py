"Desk mode against the replay of a paper record, which goes through the same rules another way, and against its own books."

from dataclasses import replace

import numpy as np
import pytest
from broken_panel import broken_panel
from hypothesis import given, settings as how, strategies as st

from v23.desk_mode import DESK_FILLS, DeskAssumptions, beside, desk_backtest
from v23.domain import Quote
from v23.example_strategies import LowVolatility
from v23.market_calendar import session_hours
from v23.market_data import FIELDS
from v23.settings import load_settings
from v23.v21_signals import V21
from v23.validation.replay import RecordedDay, replay

FREE = {"cost_bps": 0.0}


def settings_of(tmp_path="/nowhere", **environ):
    return load_settings(tmp_path, environ=environ)


@pytest.fixture(scope="module")
def panel():
    return broken_panel()


def recorded(panel, settings, fill, holding, phase, spread_bps):
    "The days of a paper record on which every name was quoted around the price desk mode fills at."
    price, days = panel.open if fill == "next_open" else panel.close, []
    for row, session in enumerate(panel.sessions):
        marks = {s: float(x) for s, x in zip(panel.symbols, panel.close[row], strict=True) if x == x}
        if row == 0 or (row - 1) % holding != phase:
            days.append(RecordedDay(session, marks))
            continue
        hours = session_hours(session)
        now = hours.window(settings.risk)[0] if fill == "next_open" else hours.rebalance_at(settings.monitoring)
        half = spread_bps / 2e4
        quotes = {s: Quote(s, float(x) * (1 - half), float(x) * (1 + half), now) for s, x in zip(panel.symbols, price[row], strict=True) if x == x}
        days.append(RecordedDay(session, marks, panel.sessions[row - 1], now, hours.window(settings.risk), quotes))
    return days


@pytest.mark.parametrize("fill", DESK_FILLS)
@pytest.mark.parametrize("strategy", [V21(), LowVolatility(12, 60, 10)], ids=lambda s: s.name)
@pytest.mark.parametrize("kelly", [0.102, 0.3])
def test_the_replay_of_the_same_days_agrees_to_the_cent(panel, fill, strategy, kelly):
    settings = settings_of(MAX_CONSECUTIVE_LOSSES="1000", DAILY_LOSS_LIMIT_PCT="-3", WEEKLY_LOSS_LIMIT_PCT="-30")
    assume = DeskAssumptions(fill=fill, **FREE)
    ours = desk_backtest(panel, strategy, settings, assume, phase=2, kelly=kelly)
    theirs = replay(panel, strategy, recorded(panel, settings, fill, strategy.holding_sessions, 2, assume.spread_bps), assume.capital, settings, kelly)
    np.testing.assert_allclose(ours.equity, [d.equity for d in theirs], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.cash, [d.cash for d in theirs], rtol=0, atol=1e-6)
    assert ours.breakers.to_list() == [d.breaker_state.name for d in theirs]
    sent = ours.orders[ours.orders["refused"] == ""]
    assert list(sent[["session", "symbol", "side", "quantity"]].itertuples(index=False, name=None)) == [(t.session, t.symbol, t.side.value, int(t.quantity)) for d in theirs for t in d.trades]
    assert len(sent) > 60


@given(fill=st.sampled_from(DESK_FILLS), cost=st.floats(0, 60), share=st.floats(0, 0.05), cash_rate=st.floats(0, 0.08), delisting=st.floats(-1, 0), kelly=st.floats(0, 1), lift=st.none() | st.integers(1, 40), phase=st.integers(0, 4))
@how(max_examples=12)
def test_cash_and_positions_are_the_equity_and_no_limit_is_broken(fill, cost, share, cash_rate, delisting, kelly, lift, phase):
    panel, settings = broken_panel(), settings_of()
    desk = desk_backtest(panel, settings=settings, assume=DeskAssumptions(fill=fill, cost_bps=cost, cost_per_share=share, cash_rate=cash_rate, delisting_return=delisting, lift_after=lift), phase=phase, kelly=kelly)
    assert float(((desk.positions.sum(axis=1) + desk.cash) / desk.equity - 1).abs().max()) < 1e-9
    assert desk.cash.min() > -1e-6 * desk.capital - cost / 1e4 * desk.capital  # Purchases fit the purse; their cost comes out of what is left
    assert desk.sizing["gross"].max() <= settings.sizing.max_gross_exposure + 1e-9
    entries = desk.orders[(desk.orders["purpose"] == "entry") & (desk.orders["refused"] == "")]
    values = entries["quantity"] * entries["price"]
    equity = desk.equity.shift(1, fill_value=desk.capital)
    assert all(v <= 0.11 * equity.loc[str(s)] for v, s in zip(values, entries["session"], strict=True))
    assert (entries.groupby("session").size() <= settings.risk.max_trades_per_day).all()


def test_the_future_changes_nothing_before_it(panel):
    cut = 330
    order = np.random.default_rng(3).permutation(len(panel.symbols))
    other = replace(panel, **{f: np.vstack([getattr(panel, f)[:cut], getattr(panel, f)[cut:][:, order]]) for f in FIELDS})
    for basis in ("published", "backtest", "trades"):
        ours, theirs = (desk_backtest(p, settings=settings_of(KELLY_BASIS=basis), kelly=None) for p in (panel, other))
        assert ours.days.iloc[:cut].equals(theirs.days.iloc[:cut])


def test_on_trades_without_an_edge_kelly_says_do_not_bet(panel):
    desk = desk_backtest(panel, settings=settings_of(KELLY_BASIS="backtest"))
    measured = desk.sizing["kelly"]
    assert measured.iloc[0] == 0 and not desk.invested[desk.invested.index < desk.sizing.loc[measured > 0, "session"].astype("datetime64[ns]").min()].any()


def test_each_rule_of_the_desk_can_be_seen_in_the_result(panel):
    small = desk_backtest(panel, settings=settings_of(MAX_POSITION_PCT="0.02"), kelly=0.5)
    large = desk_backtest(panel, settings=settings_of(), kelly=0.5)
    assert small.invested.max() < large.invested.max()
    strict = desk_backtest(panel, settings=settings_of(MAX_TRADES_PER_DAY="3"), kelly=0.3)
    assert "trade_count" in strict.denials().index
    nervous = desk_backtest(replace(panel, market=panel.market.assign(vix=50.0)), settings=settings_of(), kelly=0.3)
    assert set(nervous.sizing["regime"]) == {0.60}
    assert list(beside(small, large).index)[:3] == ["cagr", "volatility", "sharpe"]


def test_on_its_own_trades_the_desk_bets_as_published_until_it_has_fifty_and_then_as_they_say(panel):
    from v23.sizing.kelly import kelly_for_basis

    desk = desk_backtest(panel, settings=settings_of(KELLY_BASIS="trades", MAX_CONSECUTIVE_LOSSES="1000"))
    done = len(desk.trades) - int((desk.positions.iloc[-1] > 0).sum())
    closed, before, after = desk.trades.iloc[:done], 0, 0
    for session, kelly in zip(desk.sizing["session"], desk.sizing["kelly"], strict=True):
        known = closed.loc[closed["exit"] < session.isoformat(), "net"].tolist()
        expected = kelly_for_basis("published" if len(known) < 50 else "trades", known).fraction
        assert kelly == expected
        before, after = before + (len(known) < 50), after + (len(known) >= 50)
    assert before > 3 and after > 3


@pytest.mark.parametrize(("falls", "sold"), [("overnight", 200), ("during the day", 201)])
def test_an_emergency_is_sold_at_the_open_that_shows_it_or_at_the_next(panel, falls, sold):
    shocked = {f: getattr(panel, f).copy() for f in FIELDS}
    for f in ("open", "high", "low", "close"):
        shocked[f][200 if falls == "overnight" or f in ("low", "close") else 201 :] *= 0.5
    for fill in DESK_FILLS:
        desk = desk_backtest(replace(panel, **shocked), settings=settings_of(MAX_CONSECUTIVE_LOSSES="1000"), assume=DeskAssumptions(fill=fill), kelly=0.5)
        kills = desk.orders[desk.orders["purpose"] == "kill"]
        assert len(kills) > 3 and set(kills["session"]) == {panel.sessions[sold]}
        assert kills["price"].tolist() == [shocked["open"][sold, panel.column(s)] for s in kills["symbol"]]


def test_a_daily_loss_stops_entries_that_day_only(panel):
    shocked = {f: getattr(panel, f).copy() for f in FIELDS}
    for f in ("open", "high", "low", "close"):
        shocked[f][200:] *= 0.9
    desk = desk_backtest(replace(panel, **shocked), settings=settings_of(MAX_CONSECUTIVE_LOSSES="1000", WEEKLY_LOSS_LIMIT_PCT="-90", DRAWDOWN_REDUCE_PCT="-70", DRAWDOWN_HALT_PCT="-80", DRAWDOWN_EMERGENCY_PCT="-90"), kelly=0.5)
    assert "daily_loss" in desk.days["latches"].iloc[200]
    assert "daily_loss" not in desk.days["latches"].iloc[201]


@pytest.mark.realdata
def test_the_real_sets_are_traded_by_the_desk(real_data):
    from v23.adapters.bars import load_bars

    panel = load_bars(real_data / "us_large_2020_2026.parquet")
    desk = desk_backtest(panel, settings=settings_of(), assume=DeskAssumptions(lift_after=21))
    assert float(((desk.positions.sum(axis=1) + desk.cash) / desk.equity - 1).abs().max()) < 1e-9
    assert desk.drawdown.min() > -0.35 and len(desk.trades) > 200 and desk.invested.max() <= 1.02
