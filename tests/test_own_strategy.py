"A desk trades the strategy it is told to, and its validation replays that one."

import subprocess
import sys

import pytest

from v23.errors import SettingsError
from v23.go_live import validate_desk
from v23.settings import load_settings
from v23.trading_desk import open_desk

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


@pytest.mark.parametrize("spec", ["v22", "nowhere.py:Mine", "v23.v21_signals:Nobody", "v23.domain:Quote"])
def test_a_strategy_that_cannot_be_is_one_line(spec, tmp_path):
    with pytest.raises(SettingsError, match="V23_STRATEGY is") as e:
        open_desk(state=tmp_path / "state", reports=tmp_path / "reports", settings=settings_for(spec, tmp_path))
    assert len(str(e.value).splitlines()) == 1 and not (tmp_path / "state").exists()


def test_the_campaign_refuses_it_before_anything_is_written(tmp_path):
    done = subprocess.run([sys.executable, "-m", "v23.cli", "campaign", "--sessions", "2", "--strategy", "nowhere.py:Mine"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "there is no file nowhere.py" in done.stderr and not (tmp_path / "state").exists()


def test_a_record_is_bound_to_the_strategy_and_its_file(tmp_path):
    from v23.record_checks import terms_of

    path = tmp_path / "mine.py"
    path.write_text(LOSERS)
    mine = settings_for(f"{path}:Losers", tmp_path)
    rules = [terms_of(s, "")["rules"] for s in (mine, settings_for("v21", tmp_path), settings_for("trend", tmp_path))]
    path.write_text(LOSERS.replace("[:6]", "[:7]"))
    rules.append(terms_of(mine, "")["rules"])
    assert len(set(rules)) == 4
    path.write_text(LOSERS)
    assert terms_of(mine, "")["rules"] == rules[0]
