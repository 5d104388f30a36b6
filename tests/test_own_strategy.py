"A desk trades the strategy it is told to, and its validation replays that one."

import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from v23.adapters.trial_ledger import read_trials
from v23.backtest_result import backtest_strategy
from v23.errors import InputError, SettingsError
from v23.go_live import exit_code, validate_desk, validator_of
from v23.paper_validator import PaperTradingValidator
from v23.record_checks import terms_of
from v23.search import Conditions, Grid
from v23.settings import load_settings
from v23.strategy_source import strategy_of
from v23.sweep import run_sweep
from v23.synthetic_market import synthetic_panel
from v23.trading_desk import kelly_estimate, open_desk
from v23.v21_signals import V21

LOSERS = '''
import numpy as np
from v23.domain import Signal


class Losers:
    "The names that fell most over a month."

    name, holding_sessions, warmup_sessions = "losers", 3, 25

    def signals(self, panel, as_of):
        row = panel.row(as_of)
        fell = panel.close[row] / panel.close[row - 21] - 1
        order = [c for c in np.argsort(fell, kind="stable") if np.isfinite(fell[c])][:6]
        return tuple(Signal(panel.symbols[c], as_of, n, float(fell[c])) for n, c in enumerate(order, 1))
'''


def settings_for(spec, folder):
    return load_settings(folder / "nothing", environ={"V23_STRATEGY": spec})


def test_a_strategy_of_ones_own_is_traded_and_replayed(tmp_path):
    (tmp_path / "mine.py").write_text(LOSERS)
    settings = settings_for(f"{tmp_path}/mine.py:Losers", tmp_path)
    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", settings=settings) as desk:
        session = desk.session()
        for part in (desk.market_open, desk.rebalance, desk.market_close):
            part(session)
        panel = desk.wiring.bars(session)
        wanted = {s.symbol for s in desk.wiring.strategy.signals(panel, panel.sessions[-2])}
        held = {s for s, q in desk.booked_positions().items() if q}
        told = {e.body["strategy"] for e in desk.ledger.events("signals")}
        report = validate_desk(desk)
    assert told == {"losers"} and held and held <= wanted and len(wanted) == 6
    assert report["signal_match"] == 1.0
    assert "losers paper against backtest" in (tmp_path / "reports" / "tearsheets" / session.isoformat() / "tearsheet.html").read_text()


MEASURED = """
from v23.validation.record import Baseline

Losers.baseline = Baseline("losers", 0.9, 0.525, 504, 12, provenance=("measured on bars of 2019 to 2024",))
"""


def judged(settings, folder):
    "The validator's report of one session with these settings, its page and its summary."
    with open_desk(state=folder / "state", reports=folder / "reports", settings=settings) as desk:
        for part in (desk.market_open, desk.rebalance, desk.market_close):
            part()
        outcome = validate_desk(desk)
        report = validator_of(desk).report()
    page = re.sub("<svg.*?</svg>", "", Path(outcome["reports"]["go_live"]).read_text(), flags=re.S).partition("<h2>What Kelly")[0]
    return report, page, Path(outcome["reports"]["summary"]).read_text(), Path(outcome["reports"]["tearsheet"]).read_text()


def test_without_a_baseline_of_its_own_it_is_compared_with_nothing_and_never_with_v21s(tmp_path):
    (tmp_path / "mine.py").write_text(LOSERS)
    report, page, summary, sheet = judged(settings_for(f"{tmp_path}/mine.py:Losers", tmp_path), tmp_path)
    checks = {c["id"]: c for c in report["checks"]}
    assert report["strategy"] == "losers" and report["baseline"] is None and report["gate"]["baseline_sharpe"] is None
    assert not checks["c05_win"]["passed"] and not checks["c06_sharpe"]["passed"] and exit_code(report) == 3
    assert any("losers has no baseline" in m for m in report["missing"]) and report["evidence"]["selection"].startswith("UNKNOWN")
    assert "NO BASELINE" in page and "losers on " in page and "losers on " in summary
    for text in (page, summary, sheet):
        assert not [x for x in ("V21", "1.54", "1.078", "55.1", "729 ") if x in text]


def test_its_own_baseline_is_what_the_gate_and_the_page_ask_for(tmp_path):
    (tmp_path / "mine.py").write_text(LOSERS + MEASURED)
    settings = settings_for(f"{tmp_path}/mine.py:Losers", tmp_path)
    report, page, summary, _ = judged(settings, tmp_path)
    checks = {c["id"]: c for c in report["checks"]}
    assert checks["c06_sharpe"]["required"] == ">= 70% of 0.9 = 0.630" and checks["c05_win"]["required"].startswith("52.5% ± 5 points")
    assert "measured on bars of 2019 to 2024" in page and "NO BASELINE" not in page and "V21" not in page + summary
    assert report["dossier"]["baseline"]["psr"] == pytest.approx(0.898, abs=0.002) and "none is on record" in report["evidence"]["selection"]  # Φ(0.9·√(503/252)/√(1 + …))
    before = terms_of(settings, "")["gate"]
    (tmp_path / "mine.py").write_text(LOSERS + MEASURED.replace("0.9,", "0.3,"))
    assert terms_of(settings, "")["gate"] != before


def test_a_baseline_that_cannot_be_is_one_line_before_anything_is_traded(tmp_path):
    (tmp_path / "mine.py").write_text(LOSERS + "Losers.baseline = 1.5\n")
    with pytest.raises(InputError, match=r"the baseline of losers is 1.5; a v23.validation.record.Baseline is expected"):
        terms_of(settings_for(f"{tmp_path}/mine.py:Losers", tmp_path), "")


def test_a_measured_kelly_comes_from_the_trades_of_the_strategy_that_trades(tmp_path):
    (tmp_path / "mine.py").write_text(LOSERS)
    settings = load_settings(tmp_path / "nothing", environ={"V23_STRATEGY": f"{tmp_path}/mine.py:Losers", "KELLY_BASIS": "backtest"})
    panel = synthetic_panel(seed=3, names=40, start=date(2024, 1, 2), end=date(2024, 12, 31))
    sized = kelly_estimate(settings, None, panel, strategy_of(settings))
    validator = PaperTradingValidator(settings=settings, panel=panel, state_dir=tmp_path)
    told = next(k for k in validator.report()["kelly"] if k["basis"] == "backtest")
    assert sized.trades == told["trades"] == len(validator.measured().trades) != kelly_estimate(settings, None, panel, V21()).trades
    assert sized.fraction == pytest.approx(told["kelly"])


def test_the_dossier_tells_of_the_rule_that_trades_and_of_no_other_on_record(tmp_path):
    panel = synthetic_panel(seed=3, names=40, start=date(2022, 1, 3), end=date(2024, 12, 31))
    run_sweep(panel, Grid({"rsi_ceiling": [30.0, 35.0, 40.0], "positions": [20, 30]}), V21, Conditions(), tmp_path / "research" / "trials.jsonl", kernel="numpy")
    settings = load_settings("/nonexistent", environ={})

    def told(**changed):
        return PaperTradingValidator(settings=settings, strategy=V21(replace(settings.strategy, **changed)), panel=panel, state_dir=tmp_path).report()

    ours, other = told(), told(rsi_ceiling=31.0)
    d = ours["dossier"]["trials"]
    assert d["trials"] == 6 and d["parameters"]["rsi_ceiling"] == 35.0 and d["parameters"]["positions"] == 30
    net = backtest_strategy(panel, V21()).returns
    trials = read_trials(tmp_path / "research" / "trials.jsonl")
    assert np.allclose(trials.where(lambda t: t.key == d["key"]).returns().iloc[:, 0], net, rtol=0, atol=1e-14)
    assert d["psr"] is not None and 0 <= d["dsr"] <= d["psr"] and 0 <= d["pbo"] <= 1
    assert d["plateau"]["neighbours"] == 3 and (d["walk_forward"]["folds"], d["walk_forward"]["candidates"]) == (6, 6)
    assert ours["selection"]["trials"] == 6 and "from 6 tries on record" in ours["evidence"]["selection"]
    assert other["dossier"]["trials"]["psr"] is None and "not among the 6 tries" in other["dossier"]["trials"]["sentences"][0] and other["selection"]["trials"] == 0
    assert ours["dossier"]["bars"]["survivorship"].startswith("not applicable") and [c["bps"] for c in ours["dossier"]["costs"]["curve"]] == [0, 5, 10, 15, 25, 50]
    with open(tmp_path / "research" / "trials.jsonl", "a") as f:
        f.write("{}\n")
    assert told()["dossier"]["trials"] is None and "line" in told()["dossier"]["trouble"]


@pytest.mark.parametrize("spec", ["v22", "nowhere.py:Mine", "v23.v21_signals:Nobody", "v23.domain:Quote"])
def test_a_strategy_that_cannot_be_is_one_line(spec, tmp_path):
    with pytest.raises(SettingsError, match="V23_STRATEGY is") as e:
        open_desk(state=tmp_path / "state", reports=tmp_path / "reports", settings=settings_for(spec, tmp_path))
    assert len(str(e.value).splitlines()) == 1 and not (tmp_path / "state").exists()


def test_the_campaign_refuses_it_before_anything_is_written(tmp_path):
    done = subprocess.run([sys.executable, "-m", "v23.cli", "campaign", "--sessions", "2", "--strategy", "nowhere.py:Mine"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "there is no file nowhere.py" in done.stderr and not (tmp_path / "state").exists()


def test_a_record_is_bound_to_the_strategy_and_its_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(LOSERS)
    mine = settings_for(f"{path}:Losers", tmp_path)
    rules = [terms_of(s, "")["rules"] for s in (mine, settings_for("v21", tmp_path), settings_for("trend", tmp_path))]
    path.write_text(LOSERS.replace("[:6]", "[:7]"))
    rules.append(terms_of(mine, "")["rules"])
    assert len(set(rules)) == 4
    path.write_text(LOSERS)
    assert terms_of(mine, "")["rules"] == rules[0]
