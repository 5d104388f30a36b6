"Backtest, replay and paper make a decision by calling the same function: change it once, and all three change."

import subprocess
import sys
from dataclasses import replace
from datetime import date

import pytest

from v23 import v21_signals
from v23.adapters.bars import load_bars
from v23.backtest import backtest
from v23.go_live import validate_desk, validator_of
from v23.trading_desk import open_desk


def three(days=2):
    "What backtest, replay and paper hold after their first decision."
    panel = load_bars(seed=7)
    picks = backtest(panel, start=date(2026, 6, 1)).picks
    tested = picks[picks["date"] == picks["date"].iloc[0]]["symbol"].tolist()
    with open_desk(seed=7) as desk:
        session = desk.session()
        for part in (desk.market_open, desk.rebalance, desk.market_close):
            part(session)
        paper = sorted(desk.booked_positions())
        record = validator_of(desk).record()
        replayed = record.days[0].replay_signals
        report = validate_desk(desk)
    return tested, replayed, paper, report


def test_one_changed_decision_changes_all_three(monkeypatch):
    tested, replayed, paper, report = three()
    assert len(tested) > 4 and len(replayed) > 4 and len(paper) > 4 and report["signal_match"] == 1.0
    original = v21_signals.relaxed_rule

    def only_the_deepest(now, settings):
        return original(now, settings) & (now.drawdown20 < -0.16)

    monkeypatch.setattr(v21_signals, "relaxed_rule", only_the_deepest)
    changed_test, changed_replay, changed_paper, changed = three()
    for before, after in ((tested, changed_test), (replayed, changed_replay)):
        assert len(after) > 4 and set(after) != set(before)
    assert set(changed_paper) <= set(changed_replay) and set(changed_paper) - set(paper) | set(paper) - set(changed_paper)
    assert changed["signal_match"] == 1.0


def test_a_changed_sizing_rule_reaches_paper_and_its_replay(monkeypatch):
    from v23.execution import rebalance

    original = rebalance.size_portfolio

    def half(*arguments):
        sizing = original(*arguments)
        return replace(sizing, names=tuple(replace(n, final=n.final / 2) for n in sizing.names))

    def exposure():
        with open_desk(seed=7) as desk:
            for part in (desk.market_open, desk.rebalance, desk.market_close):
                part()
            validator = validator_of(desk)
            record = validator.record()
            held = sum(float(p.market_value) for p in desk.broker.positions())
            return held, [float(p.intended) for p in record.parents], abs(record.days[-1].paper_equity - record.days[-1].replay_equity)

    whole, wanted, gap = exposure()
    monkeypatch.setattr(rebalance, "size_portfolio", half)
    halved, less, still = exposure()
    assert halved == pytest.approx(whole / 2, rel=0.05)
    assert sum(less) < 0.55 * sum(wanted)
    assert gap < 200 and still < 200  # the replay followed


@pytest.mark.parametrize("component", ["execution_engine", "position_sizer", "circuit_breakers", "monitoring_dashboard", "paper_validator"])
def test_a_component_checks_itself(component, tmp_path):
    done = subprocess.run([sys.executable, "-m", f"v23.{component}"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-800:]
    assert component.replace("_", " ").split()[0] in done.stdout and len(done.stdout.splitlines()) >= 3
    assert list(tmp_path.iterdir()) == []


def test_the_documented_names_are_where_the_document_looks_for_them():
    import importlib

    names = {
        "execution_engine": ("ExecutionEngine", "ExecutionManager", "AlpacaAPI", "Order", "Quote"),
        "position_sizer": ("PositionSizer", "KellyCalculator"),
        "circuit_breakers": ("CircuitBreakerManager", "PreTradeValidator", "KillSwitch"),
        "monitoring_dashboard": ("MonitoringDashboard",),
        "paper_validator": ("PaperTradingValidator",),
    }
    for module, wanted in names.items():
        found = importlib.import_module(f"v23.{module}")
        assert [n for n in wanted if not hasattr(found, n)] == []
