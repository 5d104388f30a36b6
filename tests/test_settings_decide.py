"""A limit that nobody reads is worse than none: every setting of sizing and risk is turned, and a decision must change.

Each probe decides with the settings as loaded from what a person would type; the same account, quote and history before
and after. A setting without a probe fails the first test.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from v23.domain import OrderIntent, Purpose, Quote, Side, Signal
from v23.execution.order_routing import plan_order
from v23.execution.rebalance import DeskView, plan_rebalance
from v23.risk.breaker_rules import LossReading, breaker_state, next_latches
from v23.risk.pretrade_checks import PreTradeContext, evaluate, sectors_at
from v23.settings import KNOBS, Settings, load_settings
from v23.sizing.kelly import kelly_for_basis
from v23.sizing.multipliers import combined_multipliers
from v23.sizing.targets import size_portfolio

NOW = datetime(2026, 1, 23, 20, 0, tzinfo=UTC)
DAY = date(2026, 1, 23)
QUOTE = Quote("AAA", 99.9, 100.1, NOW)
BUY = OrderIntent("i1", "V21", DAY, "AAA", Side.BUY, Decimal(50), Purpose.ENTRY, 100.0, sector="Energy")
CONTEXT = PreTradeContext(NOW, NOW - timedelta(hours=5), NOW + timedelta(minutes=55), 100_000.0, QUOTE)
NAMES = [f"N{k:02d}" for k in range(40)]


def turned(**typed: str) -> Settings:
    return load_settings("/nonexistent", environ={}, overrides=typed)


def weights(kelly: float = 0.102, names: int = 4, sectors: int = 4, vol: float = 0.25) -> Callable[[Settings], Any]:
    def probe(s: Settings) -> Any:
        m = combined_multipliers(-0.02, 20.0, 0, vol, s.risk, s.sizing)
        return size_portfolio(NAMES[:names], kelly, m, {n: str(k % sectors) for k, n in enumerate(NAMES)}, s.sizing).weights

    return probe


def held(s: Settings) -> Any:
    "What a whole rebalance buys of forty names."
    book = {n: Quote(n, 9.99, 10.01, NOW) for n in NAMES}
    m = combined_multipliers(0.0, 20.0, 0, 0.25, s.risk, s.sizing)
    view = DeskView(DAY, NOW, (NOW - timedelta(hours=5), NOW + timedelta(minutes=55)), 100_000.0, 100_000.0, {}, {}, book, {n: n for n in NAMES}, m, kelly=0.04)
    return [p.intent.symbol for p in plan_rebalance(view, [Signal(n, DAY, k, 0.0) for k, n in enumerate(NAMES, 1)], s).allowed]


def gate(**changes: Any) -> Callable[[Settings], Any]:
    return lambda s: evaluate(BUY, replace(CONTEXT, **changes), s.risk).reasons


def breakers(**changes: Any) -> Callable[[Settings], Any]:
    def probe(s: Settings) -> Any:
        reading = replace(LossReading(DAY, NOW, 100_000.0, 100_000.0, 100_000.0, 100_000.0), **changes)
        latches = next_latches((), reading, s.risk)
        return [x.name for x in latches], breaker_state(latches, reading, s.risk)

    return probe


def wide(bps: float) -> dict[str, Any]:
    return {"quote": Quote("AAA", 100 - bps / 200, 100 + bps / 200, NOW)}


def every(*probes: Callable[[Settings], Any]) -> Callable[[Settings], Any]:
    "For a setting that two rules read: each of them must change."
    return lambda s: tuple(p(s) for p in probes)


EDGE = [(0.02 if k % 2 else -0.015) for k in range(400)]
PROBES: dict[str, tuple[str, Callable[[Settings], Any]]] = {  # setting -> (what is typed instead of the default, probe)
    "KELLY_FRACTION": ("0.25", weights()),
    "KELLY_BASIS": ("trades", lambda s: round(kelly_for_basis(s.sizing.kelly_basis, EDGE).fraction, 6)),
    "MAX_POSITION_PCT": ("0.05", every(weights(kelly=0.5), gate(position_value=4_000.0))),
    "MAX_POSITIONS": ("10", held),
    "TARGET_VOLATILITY": ("0.20", weights()),
    "MAX_GROSS_EXPOSURE": ("0.5", weights(names=30, sectors=30)),
    "MAX_SECTOR_PCT": ("0.15", every(weights(kelly=0.2, sectors=1), gate(sector_value=14_000.0))),
    "DAILY_LOSS_LIMIT_PCT": ("-3", every(breakers(equity=96_500.0), gate(daily_loss=-0.035))),
    "WEEKLY_LOSS_LIMIT_PCT": ("-8", breakers(week_start=110_000.0)),
    "DRAWDOWN_REDUCE_PCT": ("-7", every(breakers(peak=108_600.0), lambda s: combined_multipliers(-0.08, 20.0, 0, 0.25, s.risk, s.sizing).product)),
    "DRAWDOWN_HALT_PCT": ("-12", every(breakers(peak=116_000.0), lambda s: combined_multipliers(-0.13, 20.0, 0, 0.25, s.risk, s.sizing).product)),
    "DRAWDOWN_EMERGENCY_PCT": ("-18", breakers(peak=123_500.0)),
    "MAX_CONSECUTIVE_LOSSES": ("3", every(breakers(consecutive_losses=4), gate(consecutive_losses=4))),
    "MAX_TRADES_PER_DAY": ("20", gate(entries_today=30)),
    "MAX_SPREAD_BPS": ("35", every(gate(**wide(40)), lambda s: plan_order(BUY, wide(40)["quote"], NOW, NOW + timedelta(minutes=55), s.execution).refused)),
    "MAX_EXECUTION_ERRORS": ("2", every(breakers(execution_errors=2), gate(execution_errors=2))),
    "MAX_API_ERRORS": ("3", every(breakers(api_errors=4), gate(api_errors=4))),
    "MAX_QUOTE_AGE_SECONDS": ("2", gate(quote=replace(QUOTE, at=NOW - timedelta(seconds=3)))),
    "MAX_ORDERS_PER_MINUTE": ("50", gate(orders_last_minute=60)),
    "MAX_ORDERS_PER_INTENT": ("6", every(breakers(repeated_orders=8), gate(times_sent=8))),
    "PRICE_COLLAR_PCT": ("3", gate(quote=Quote("AAA", 94.99, 95.01, NOW))),
    "MAX_SECTOR_AGE_DAYS": ("30", lambda s: dict(sectors_at({"AAA": "Energy"}, date(2025, 11, 1), DAY, s.risk))),
}


def test_every_setting_of_sizing_and_risk_has_a_probe():
    assert {k.name for k in KNOBS if k.section in ("sizing", "risk")} == set(PROBES)


@pytest.mark.parametrize("name", list(PROBES))
def test_turning_a_setting_changes_a_decision(name):
    typed, probe = PROBES[name]
    before, after = probe(turned()), probe(turned(**{name: typed}))
    if isinstance(before, tuple) and probe.__qualname__.startswith("every"):
        assert all(b != a for b, a in zip(before, after, strict=True)), (name, before, after)
    assert before != after, (name, before)


@pytest.mark.parametrize("name", list(PROBES))
def test_a_setting_that_is_typed_as_its_default_changes_nothing(name):
    from v23.settings import default_text

    knob = next(k for k in KNOBS if k.name == name)
    assert PROBES[name][1](turned(**{name: default_text(knob)})) == PROBES[name][1](turned())
