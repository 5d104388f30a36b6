"What the pages show and other tests pass by: every remaining branch of sizing and breakers, and the proof that the measurement measures."

import math
import runpy
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
import risk_coverage
from test_books import DAY, A, codes, decision, exchange, opened, trade, until_tomorrow
from test_breaker_walks import CALM, LIMITS, NOON

from v23 import position_sizer
from v23.adapters.clocks import StillClock
from v23.adapters.ledger import Ledger
from v23.adapters.snapshots import read_snapshot
from v23.adapters.state_folder import desk_ledger, real_clock
from v23.circuit_breakers import CircuitBreakerManager
from v23.domain import Fill, Position, Purpose, Side
from v23.errors import BrokerError, InputError, OwnedError, StateError
from v23.position_sizer import KellyCalculator, PositionSizer
from v23.promotion import Promotion, mismatches
from v23.risk.breaker_rules import Lifted, LossReading, acknowledge, armed_again, next_latches
from v23.risk.denial_codes import codes_of, help_for
from v23.risk.split_guard import guarded_reading, looks_like_split, split_suspects
from v23.settings import SizingSettings, load_settings
from v23.sizing import kelly, study
from v23.sizing.multipliers import drawdown_multiplier
from v23.sizing.targets import size_portfolio
from v23.trading_desk import kelly_estimate, last_marks

SETTINGS = load_settings("/nonexistent", environ={})
EDGE = [0.02 if k % 2 else -0.01 for k in range(400)]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: kelly.kelly_binary(1.01, 1), "win_rate is 1.01"),
        (lambda: kelly.kelly_binary(0.5, -1), "payoff is -1"),
        (lambda: kelly.kelly_continuous(0.1, math.nan), "volatility is nan"),
        (lambda: kelly.ruin_probability(0.0, 0.5), "level is 0.0"),
        (lambda: kelly.largest_share_for_drawdown(1.0), "probability is 1.0"),
        (lambda: kelly.kelly_multi([0.1, 0.1], [0.2, 0.2], 1.0), "singular"),
        (lambda: kelly.simultaneous_even_money(0, 0.5), "names is 0"),
        (lambda: kelly.kelly_from_trades([math.nan]), "not finite"),
        (lambda: kelly.kelly_for_basis("hope"), "'hope'"),
        (lambda: size_portfolio(["A", "A"], 0.1, None, {}, SizingSettings()), "appears twice"),
        (lambda: size_portfolio(["A"], 0.1, None, {}, SizingSettings(size_multiplier=1.01)), "size multiplier"),
    ],
)
def test_what_cannot_be_sized_is_refused_by_name(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_kelly_of_trades_waits_for_fifty_and_believes_the_lower_quartile():
    few, coin, edge = (kelly.kelly_from_trades(r) for r in (EDGE[:49], [0.01, -0.01] * 200, EDGE))
    assert few.fraction == 0 and "50" in few.detail
    assert coin.fraction == 0 and "do not bet" in coin.detail
    assert 0 < edge.fraction < kelly.kelly_binary(0.5, 2.0) and edge.trades == 400
    assert kelly.kelly_from_trades([0.01] * 60).fraction == kelly.kelly_from_trades([]).fraction == 0  # no loss, no payoff
    assert kelly.implied_share(0.25, 0.0) == math.inf and kelly.best_share(0.8, 2.05) == pytest.approx(0.567, abs=1e-3) and kelly.growth_share(0.5) == 0.75
    assert kelly.simultaneous_even_money(3, 0.5) == 0.0 and kelly.simultaneous_even_money(2, 1.0) == pytest.approx(0.5)


def test_the_calculator_puts_the_bases_side_by_side():
    c = KellyCalculator(SETTINGS)
    assert c.optimal(0.4, 1.0) == 0.0 and c.from_trades(EDGE).fraction > 0
    assert [r["basis"] for r in c.compare(EDGE, EDGE[:10])] == ["published", "backtest", "trades"]
    assert c.portfolio_share(1.54)["share"] == pytest.approx(0.1623, abs=1e-4) and c.portfolio_share(0.0)["ever_minus_20"] == 1.0
    assert c.portfolio_share(1.0, 0.1)["share"] == pytest.approx(0.1)
    assert KellyCalculator().settings == SETTINGS.sizing


def test_the_last_recommendation_survives_what_happens_to_its_file(tmp_path):
    at = datetime(2026, 1, 23, tzinfo=UTC)
    sizer = PositionSizer(SETTINGS, tmp_path)
    assert sizer.get_sizing_recommendation() == {}
    sizer.size(["AAA", "BBB"], kelly.kelly_for_basis("published"), sizer.multipliers(-0.02, 20.0, 0, 0.25), {})
    sizer.save_state(1, at)
    assert PositionSizer(SETTINGS, tmp_path).get_sizing_recommendation() == sizer.get_sizing_recommendation() != {}
    with pytest.raises(InputError, match="no desk"):
        sizer.save_state()
    sizer.path.write_text("{torn")
    torn = PositionSizer(SETTINGS, tmp_path)
    with pytest.raises(StateError):
        torn.get_sizing_recommendation()
    torn.save_state(2, at)
    assert sizer.path.read_text() == "{torn"
    ledger = Ledger(":memory:", real_clock())
    assert PositionSizer(SETTINGS, tmp_path, ledger).last == {}
    ledger.record("sizing", {"session": "2026-01-23", "resized": {}, "product": 0.5})
    assert PositionSizer(SETTINGS, tmp_path, ledger).get_sizing_recommendation() == {"product": 0.5}
    with desk_ledger(tmp_path, real_clock(), create=True) as owned:
        pass
    with pytest.raises(InputError, match="not sized anything"):
        torn.save_state()
    with desk_ledger(tmp_path, real_clock()) as owned:
        owned.record("sizing", {"session": "2026-01-23", "resized": {}, "product": 0.25})
    assert read_snapshot(torn.save_state()) == {"product": 0.25}


def test_the_self_check_checks(monkeypatch):
    assert "gross" in position_sizer.self_check()
    wrong = size_portfolio
    monkeypatch.setattr(position_sizer, "size_portfolio", lambda *a: replace(wrong(*a), names=tuple(replace(n, final=0.2) for n in wrong(*a).names)))
    with pytest.raises(AssertionError, match="its own bounds"):
        position_sizer.self_check()
    ran = subprocess.run([sys.executable, "-m", "v23.position_sizer"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and "position sizer" in ran.stdout


@pytest.mark.parametrize("size", [None, "0.5", math.nan, math.inf, 0.0, -0.5, 0.51, 2.0])
def test_live_trading_with_another_size_than_a_stage_is_refused(size, tmp_path):
    p = Promotion("account", size, "code", "rules", "gate", "sha", "ALL_PASSED", "STRONG", "V21", "bars", "Ada", NOON, NOON + timedelta(days=30))
    assert f"its size is {size!r}" in mismatches(p, SETTINGS, NOON, "account", tmp_path)
    half = replace(p, size=0.5)
    assert not any("size" in reason for reason in mismatches(half, SETTINGS, NOON, "account", tmp_path))


def test_the_promotion_record_sizes_the_live_book():
    live, book = replace(SETTINGS, texts={**SETTINGS.texts, "V23_MODE": "live"}), {}
    for size in (0.5, 0.25):
        settings = replace(live, promoted_size=size)
        sizer = PositionSizer(settings, "/nonexistent")
        names = [f"N{n}" for n in range(30)]
        sized = sizer.size(names, kelly.kelly_for_basis("published"), sizer.multipliers(0.0, 15.0, 0, 0.10), {n: n for n in names})
        book[size] = sized.gross
        assert max(sized.weights.values()) <= 0.10 * size
    assert book == {0.5: pytest.approx(0.5), 0.25: pytest.approx(0.25)} and live.sizing.size_multiplier == 1.0


def test_error_bars_and_the_price_of_growth():
    c = KellyCalculator(SETTINGS)
    bars = c.error_bars(EDGE)
    assert 0 < bars["low"] <= bars["quarter"] <= bars["median"] <= bars["high"] and bars["trades"] == 400
    table = c.growth_and_ruin()
    assert [round(table[2][k], 2) for k in ("growth kept", "ever -20%")] == [0.75, 0.51]


def test_the_pictures_of_sizing_show_what_the_rules_say():
    import matplotlib.pyplot as plt

    figure = study.plot_weights()
    held = figure.axes[0].lines[1].get_ydata()
    assert held[0] == pytest.approx(100 / 30, rel=0.02) and held[-1] == 0 and len(study.plot_collision().axes[0].lines) == 5
    plt.close("all")
    with pytest.raises(InputError, match="'mood'"):
        study.weights_against("mood")
    for returns in ([0.1], [0.1, math.nan]):
        with pytest.raises(InputError, match="trade returns"):
            study.kelly_band(returns)
    assert study.kelly_band([0.1, 0.2]).fraction == 1.0 and study.kelly_band([-0.1, -0.2]).nothing == 1.0
    assert study.believed([0.0, 0.8], 2.05)["share worth betting"].tolist() == [0.0, pytest.approx(0.567, abs=1e-3)]


def test_breakers_of_nobody_and_by_nobody_are_refused(tmp_path):
    clock = StillClock(NOON)
    inside = CircuitBreakerManager(Ledger(":memory:", clock), LIMITS, clock, tmp_path)
    outside = CircuitBreakerManager(limits=LIMITS, clock=clock, state_dir=tmp_path)
    with pytest.raises(OwnedError, match="only read"):
        outside.update(CALM)
    for call in (lambda: inside.acknowledge("daily_loss", "", "why"), lambda: inside.rebase_peak("Ada", ""), lambda: inside.judge_split("AAA", True, "Ada", "")):
        with pytest.raises(InputError, match="name of the person"):
            call()
    for reading, says in ((None, "not known"), (replace(CALM, equity=math.nan), "not known"), (CALM, "nothing to rebase")):
        inside.reading = reading
        with pytest.raises(InputError, match="nothing to rebase" if reading is CALM else says if reading is None else says):
            inside.rebase_peak("Ada", "reviewed")
    inside.update(replace(CALM, equity=89.0, day_start=89.0, week_start=89.0, reconciled=False))
    with pytest.raises(InputError, match="books have to agree"):
        inside.rebase_peak("Ada", "reviewed")
    with pytest.raises(InputError, match="no desk"):
        outside.save_state()
    with pytest.raises(OwnedError):
        outside.rebase_peak("Ada", "reviewed")


def test_a_person_lifts_and_judges_while_no_desk_runs(tmp_path):
    with desk_ledger(tmp_path, real_clock(), create=True) as ledger:
        breakers = CircuitBreakerManager(ledger, LIMITS, real_clock(), tmp_path)
        now = real_clock().now()
        breakers.update(LossReading(date(2026, 1, 20), now, 89_000.0, 90_000.0, 100_000.0, 98_000.0))
        breakers.save_state()
    outside = CircuitBreakerManager(limits=LIMITS, state_dir=tmp_path)
    outside.judge_split("AAA", False, "Ada", "it is a loss")
    with pytest.raises(InputError, match="neither a symbol nor held"):
        outside.judge_split("=1+1", False, "Ada", "it is a loss")
    outside.acknowledge("weekly_loss", "Ada", "reviewed")
    assert outside.latches == () == CircuitBreakerManager(limits=LIMITS, state_dir=tmp_path).latches
    assert outside.save_state().exists()
    with desk_ledger(tmp_path, real_clock()) as ledger:
        assert ledger.last("split_verdict").body["symbol"] == "AAA"


def test_what_is_not_set_and_what_ends_by_itself_is_not_lifted():
    daily = next_latches((), replace(CALM, equity=94.0), LIMITS)
    for name, says in (("weekly_loss", "no breaker"), ("daily_loss", "ends by itself")):
        with pytest.raises(InputError, match=says):
            acknowledge(daily, name, CALM.session)
    with pytest.raises(InputError, match="when the reading has recovered"):
        acknowledge(next_latches((), replace(CALM, equity=None), LIMITS), "equity_invalid", CALM.session)


def test_words_and_ratios_nobody_knows_say_nothing():
    assert codes_of("insufficient funds") == () and help_for("insufficient funds") == "" and help_for("spread")
    assert not looks_like_split(math.nan) and looks_like_split(0.5) and not looks_like_split(0.9)
    held = (Position("AAA", Decimal(100), Decimal(100), Decimal(1), Decimal(50)),)
    suspects = split_suspects(held, {"AAA": (Decimal(100), 100.0)}, {})
    assert "like a split 2 for 1" in suspects[0].detail
    assert guarded_reading(CALM, (), LIMITS) is CALM and guarded_reading(replace(CALM, equity=None), suspects, LIMITS).equity is None


def test_a_line_no_test_runs_is_found(tmp_path):
    (tmp_path / "v23").mkdir()
    (tmp_path / "v23" / "rule.py").write_text("def a(x):\n    if x:\n        return 1\n    return 2\n\n\nclass B:\n    c = 1\n")
    report = {"files": {"v23/rule.py": {"missing_lines": [3], "missing_branches": [[2, 3], [2, -1]]}}}
    assert risk_coverage.missing(report, "v23/rule.py:a", tmp_path) == ["v23/rule.py:3", "v23/rule.py:2 → 3", "v23/rule.py:2 → the end"]
    assert risk_coverage.missing(report, "v23/rule.py:B", tmp_path) == [] and len(risk_coverage.missing(report, "v23/rule.py", tmp_path)) == 3
    with pytest.raises(SystemExit, match="has no gone"):
        risk_coverage.missing(report, "v23/rule.py:gone", tmp_path)
    assert risk_coverage.missing({"files": {}}, "v23/rule.py", tmp_path) == ["v23/rule.py: not run at all"]


def test_the_rest_of_the_formulas():
    full = kelly.kelly_continuous(0.11, 0.15, 0.06)
    assert full.fraction == pytest.approx(2.2222, abs=1e-4) and kelly.largest_share_for_drawdown(0.05) == pytest.approx(0.13865, abs=1e-5)
    assert kelly.overbet_factor(30, 0.3) == pytest.approx(9.7) and len(kelly.kelly_multi([0.1, 0.08], [0.2, 0.15], 0.0)) == 2
    assert drawdown_multiplier(-0.18, LIMITS, reentry=True).value == 0.25
    assert next_latches((), replace(CALM, equity=None), LIMITS)[0].name == "equity_invalid"
    assert "drawdown_emergency" not in {x.name for x in next_latches((), replace(CALM, equity=79.0, confirmed=False), LIMITS)}
    runpy.run_module("v23.position_sizer", run_name="__main__", alter_sys=True)


def test_what_was_lifted_is_armed_again_by_a_new_week_a_new_session_or_a_recovery():
    week, errors = Lifted("weekly_loss", -0.11, CALM.session), Lifted("api_errors", 5.0, CALM.session)
    for lifted, days, again in ((week, 0, False), (week, 7, True), (errors, 0, False), (errors, 1, True)):
        later = replace(CALM, session=CALM.session + timedelta(days=days), equity=89.0, api_errors=5)
        assert armed_again(lifted, later, LIMITS) is again


def test_where_the_books_differ_the_broker_says_what_may_be_sold(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        positions, short = desk.broker.positions, {A: -4}
        desk.broker.positions = lambda: tuple(replace(p, quantity=p.quantity + short.get(p.symbol, 0), quantity_available=p.quantity_available + short.get(p.symbol, 0)) for p in positions())
        desk.reconcile(DAY)
        desk.gate.looked_at = None
        assert desk.gate.available(A, Decimal(0)) == 10  # before anybody has looked
        desk.look(DAY)
        assert desk.gate.available(A, Decimal(0)) == 6 and desk.gate.shares() == {A: 10} and not decision(desk, A).allowed
        desk.broker.positions = lambda: ()
        desk.look(DAY)
        assert desk.gate.available(A, Decimal(0)) == 0


def test_a_desk_looks_again_when_its_look_is_old_and_says_when_it_cannot(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        assert desk.look_again() is True
        desk.clock.sleep(16)
        account, real = desk.broker.account, desk.broker.market_clock
        desk.broker.account = lambda: (_ for _ in ()).throw(BrokerError("gone"))
        assert desk.look_again() is False and "LOOK_FAILED" in codes(desk)
        desk.broker.account = account
        desk.broker.market_clock = lambda: replace(real(), at=real().at + timedelta(seconds=3))
        assert desk.look_again() is True and "CLOCK_SKEW" in codes(desk)
        desk.kill.engine = None
        desk.kill.activate("drill")
        desk.kill.engine = desk.engine
        desk.look(DAY)
        assert desk.kill.is_flat


def test_shares_traded_since_the_last_close_are_counted(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        assert last_marks(desk.ledger, DAY) == ({}, {})
        desk.market_open()
        trade(desk, A, 10)
        desk.market_close()
        until_tomorrow(desk)
        desk.market_open()
        trade(desk, A, 4, Purpose.EXIT)
        marks, traded = last_marks(desk.ledger, desk.session())
        assert marks[A][0] == 10 and traded == {A: Decimal(-4)}


@pytest.mark.parametrize(("trips", "bets"), [(49, False), (60, True), (400, True)])
def test_kelly_on_closed_trades_sizes_the_desk_only_with_fifty_and_an_edge(trips, bets, tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        at = datetime(2026, 1, 5, 15, tzinfo=UTC)
        fills = []
        for n in range(trips):
            for k, (side, price) in enumerate(((Side.BUY, 100.0), (Side.SELL, 102.0 if n % 3 else 99.0))):
                fills.append(("fill", Fill(f"t{n}{k}", f"o{n}{k}", f"c{n}{k}", f"T{n}", side, Decimal(1), Decimal(str(price)), at + timedelta(minutes=n, seconds=k))))
        desk.ledger.record_all(fills)
        made = replace(desk.settings)
        made.__dict__["sizing"] = replace(desk.settings.sizing, kelly_basis="trades")
        desk.settings = made
        found = kelly_estimate(made, desk.ledger, desk.wiring.bars(DAY), desk.wiring.strategy)
        assert (found.basis, found.trades, found.fraction > 0) == ("trades", trips, bets)
        if trips < 50:
            assert "50" in found.detail
        else:
            assert 0 <= found.fraction < kelly.kelly_binary(2 / 3, 2.0) * 0.9  # shrunk toward no edge, and the lower quartile
        desk.rebalance()
        kept = desk.ledger.last("view")
        assert kept is not None and kept.body["kelly"] == found.fraction
