"What a notebook shows of v23's objects: readable, escaped, nothing heavy until it is asked for, and the command line in a cell."

import re
import subprocess
import sys
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from IPython.core.interactiveshell import InteractiveShell

from v23 import notebook
from v23.control import ControlServer
from v23.desk_client import ConnectedDesk
from v23.domain import BreakerState, OrderIntent, Purpose, Quote, Side
from v23.execution.order_routing import plan_order
from v23.market_calendar import NEW_YORK
from v23.settings import ExecutionSettings

HOSTILE = "<script>alert(1)</script>&\"'"
NOW = datetime(2026, 1, 20, 15, 30, tzinfo=NEW_YORK)
STATUS = {
    "session": "2026-01-20", "phase": "open", "mode": "paper", "state": "state", "entries_allowed": False, "breakers": "REDUCED", "killed": False, "equity": "99000.5", "positions": 3,
    "open_orders": 1, "safe_mode": "", "doing": HOSTILE, "next_job": "market_close at 16:01", "trouble": HOSTILE, "pauses": [HOSTILE], "synthetic": True,
    "health": [{"name": "api", "every_s": 60.0, "age_s": 3.0, "ok": True, "detail": HOSTILE}, {"name": "books", "every_s": 300.0, "age_s": None, "ok": None, "detail": "not yet"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def shell():
    found = InteractiveShell()
    found.run_line_magic("load_ext", "v23")
    return found


def html(shell, thing):
    return shell.display_formatter.format(thing)[0].get("text/html")


def plan(symbol=HOSTILE, shares=20, ask=100.02):
    quote = Quote(symbol, 100.0, ask, NOW)
    intent = OrderIntent("an intent", "test", NOW.date(), symbol, Side.BUY, Decimal(shares), Purpose.ENTRY, quote.midpoint)
    return plan_order(intent, quote, NOW, NOW + timedelta(minutes=25), ExecutionSettings())


def test_loading_imports_nothing_heavy():
    code = "import v23.notebook, sys; print([m for m in ('numpy', 'pandas', 'v23.trading_desk', 'v23.cli', 'typer') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_display_is_registered_under_a_type_that_exists():
    from importlib import import_module

    for module, name in (*notebook.SHOWN, *notebook.TOGETHER):
        found = getattr(import_module(module), name)
        assert (found.__module__, found.__name__) == (module, name)


def test_a_desk_that_runs_elsewhere_shows_state_health_and_curve(shell, tmp_path):
    points = {"value": [{"session": "2026-01-16", "equity": 100_000.0}, {"session": "2026-01-20", "equity": 99_000.5}]}
    with ControlServer(tmp_path, {"status": lambda who, fields: STATUS, "call": lambda who, fields: points}):
        shown = html(shell, ConnectedDesk(tmp_path))
    for part in ("REDUCED", "stopped", "99,000.50", "every 60 s", "not yet", "<svg", "SYNTHETIC"):
        assert part in shown, part
    assert "<script" not in shown and shown.count("&lt;script") == 4
    assert "nobody" in html(shell, ConnectedDesk(tmp_path)) or "no process owns" in html(shell, ConnectedDesk(tmp_path))


def test_order_plans_show_alone_and_together_and_escape_what_they_name(shell):
    for shown, count in ((html(shell, plan()), 1), (html(shell, [plan(), plan(shares=300), plan(ask=102.0)]), 3)):
        assert f"<b>{count} order" in shown and "<script" not in shown and "may go" in shown
    assert "twap" in shown and "1 refused" in shown and "100 at 15:35:00" in shown
    assert html(shell, [plan(), 1]) is None and html(shell, []) is None and html(shell, ["a"]) is None


def test_breakers_kill_switch_and_checklist_show_as_tables(shell, tmp_path):
    from v23.circuit_breakers import CircuitBreakerManager
    from v23.kill_switch import KillSwitch
    from v23.paper_validator import Checklist
    from v23.validation.go_live_rules import GoLiveCheck

    assert "no latch is set" in html(shell, CircuitBreakerManager(state_dir=tmp_path))
    kill = KillSwitch(state_dir=tmp_path)
    assert "off" in html(shell, kill)
    kill.latch(HOSTILE, "ann")
    assert "ACTIVE" in html(shell, kill) and "<script" not in html(shell, kill)
    assert "HALTED" in html(shell, BreakerState.HALTED)
    check = GoLiveCheck("c01", HOSTILE, "one", "none", 0, False)
    told = Checklist(recommendation=HOSTILE, checks=[check.__dict__], evidence={"verdict": "NONE", "reasons": [HOSTILE]}, problems=[], missing=[], decision={})
    for shown in (html(shell, check), html(shell, (check, check)), html(shell, told)):
        assert "fail" in shown and "<script" not in shown
    assert "0 of 1 checks pass" in html(shell, told)


def test_a_backtest_shows_figures_and_a_curve(shell):
    from v23.adapters.bars import load_bars
    from v23.backtest import backtest

    panel = load_bars(seed=7)
    shown = html(shell, backtest(panel, start=panel.sessions[-120]))
    assert "<svg" in shown and "sharpe" in shown and "SYNTHETIC" in shown


def test_no_display_sets_a_colour_for_words_or_ground(shell):
    for shown in (html(shell, plan()), html(shell, BreakerState.HALTED)):
        assert not re.search(r"[^-]color:|background", shown)


def test_the_command_line_answers_in_a_cell(shell, capsys, tmp_path):
    shell.run_line_magic("v23", f"status --state {tmp_path}")
    assert "holds no desk yet" in capsys.readouterr().out
    shell.run_line_magic("v23", "jobs --last 0")
    said = capsys.readouterr()
    assert "exit code 2" in said.out and said.err.startswith("v23: ")


BAR = """
import time
from v23.adapters.progress import progress_bar

with progress_bar(True, "configurations") as told:
    for n in range(1, 401):
        told(n, 400)
        time.sleep(0.001)
"""


def test_in_a_kernel_the_bar_is_one_output_without_widgets_and_the_extension_loads(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    cells = [BAR, "%load_ext v23", f"%v23 status --state {tmp_path}", "from v23.domain import BreakerState\nBreakerState.HALTED"]
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(page, kernel_name="python3", timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    bar, _, status, state = (c["outputs"] for c in page.cells)
    assert len(bar) == 1 and "400 of 400" in bar[0]["data"]["text/html"] and "<progress" in bar[0]["data"]["text/html"]
    assert "holds no desk yet" in status[0]["text"] and "HALTED" in state[0]["data"]["text/html"]


def test_in_a_terminal_the_bar_moves_and_into_a_pipe_nothing_is_written():
    import os

    ours, theirs = os.openpty()
    try:
        subprocess.run([sys.executable, "-c", BAR], stderr=theirs, check=True, env=os.environ | {"TERM": "xterm", "COLUMNS": "80"})
        assert b"400/400" in os.read(ours, 1 << 20)
    finally:
        os.close(ours)
        os.close(theirs)
    piped = subprocess.run([sys.executable, "-c", BAR], capture_output=True, check=True)
    assert piped.stderr == piped.stdout == b""
