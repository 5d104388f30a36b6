"The main job as a user runs it: a process of its own, real sockets, real kernels, real SIGKILL."

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

KEYS = {
    "sessions", "seed", "start", "end", "initial_equity", "final_equity", "orders", "fills", "duplicate_orders", "lost_fills",
    "positions_agree", "signal_match", "verdict", "reports",
}  # fmt: skip


def v23(*args, cwd, **options):
    return subprocess.run([sys.executable, "-m", "v23.cli", *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=240, **options)


def campaign(folder: Path, *args):
    done = v23("campaign", "--state", folder / "state", "--reports", folder / "reports", "--json", *args, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def report_of(outcome):
    "The validation report without the two sections that may differ between runs."
    report = json.loads(Path(outcome["reports"]["validation_report"]).read_text())
    return json.dumps({k: v for k, v in report["data"].items() if k not in ("timestamps", "paths")}, sort_keys=True)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a campaign with spaces")
    return folder, campaign(folder, "--sessions", 7, "--seed", 7)


def test_a_campaign_trades_and_proves_its_books(first):
    _, outcome = first
    assert outcome.keys() >= KEYS
    assert outcome["sessions"] == 7 and outcome["orders"] > 20 and outcome["fills"] >= outcome["orders"] // 2
    assert outcome["duplicate_orders"] == 0 and outcome["lost_fills"] == 0 and outcome["positions_agree"] is True
    assert outcome["signal_match"] == 1.0
    assert outcome["final_equity"] != outcome["initial_equity"]
    for path in outcome["reports"].values():
        assert Path(path).stat().st_size > 500


def test_the_reports_open_without_a_network_and_say_what_they_are(first):
    from v23.reports import remote_resources

    _, outcome = first
    for name in ("tearsheet", "go_live"):
        html = Path(outcome["reports"][name]).read_text()
        assert remote_resources(html) == [] and "SYNTHETIC MARKET" in html
        assert "V21 shows no useful edge" in html
    report = json.loads(Path(outcome["reports"]["validation_report"]).read_text())["data"]
    parts = report["difference"]["parts_dollars"]
    assert sum(parts.values()) == pytest.approx(report["difference"]["dollars"], abs=0.005)
    assert parts["unexplained"] == pytest.approx(0, abs=0.005)


def test_the_ledger_of_a_campaign_verifies_and_holds_each_order_once(first):
    folder, outcome = first
    db = sqlite3.connect(folder / "state" / "execution" / "ledger.sqlite3")
    sent = db.execute("SELECT count(*), count(DISTINCT client_order_id) FROM orders WHERE json_extract(body, '$.attempts') > 0").fetchone()
    assert sent[0] == sent[1] == outcome["orders"]
    assert db.execute("SELECT count(*) FROM fills").fetchone()[0] == outcome["fills"]


def test_the_documented_state_files_exist(first):
    folder, _ = first
    for name in (
        "execution/execution_state.json", "sizing/sizing_state.json", "circuit_breakers/circuit_breaker_state.json",
        "monitoring/dashboard_state.json", "monitoring/metrics_state.json", "monitoring/alert_history.json",
        "paper_validation/validator_state.json", "paper_validation/validation_report.json",
    ):  # fmt: skip
        assert (folder / "state" / name).stat().st_mode & 0o777 == 0o600, name


def test_the_rebalance_page_really_traded(first):
    folder, outcome = first
    results = [json.loads(p.read_text()) for p in sorted((folder / "reports" / "runs").glob("*/rebalance.result.json"))]
    assert [r["summary"]["rebalance"] for r in results] == ["done", "not today"]
    assert results[0]["report"]["parents"] > 10 and results[0]["report"]["fill_rate"] > 0.9


def test_the_last_sessions_jobs_ran_as_notebooks(first):
    folder, outcome = first
    runs = folder / "reports" / "runs" / outcome["end"]
    for name in ("market_open", "rebalance", "market_close", "validation"):
        assert (runs / f"{name}.ipynb").exists() and (runs / f"{name}.html").exists()
        assert json.loads((runs / f"{name}.result.json").read_text())


def chain_of(folder):
    "The last link of the ledger's hash chain: equal chains are equal histories, to the byte."
    db = sqlite3.connect(folder / "state" / "execution" / "ledger.sqlite3")
    return db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()


def test_the_same_seed_gives_the_same_report_and_another_does_not(first, tmp_path):
    folder, outcome = first
    (tmp_path / "again").mkdir()
    (tmp_path / "other").mkdir()
    again = campaign(tmp_path / "again", "--sessions", 7, "--seed", 7)
    assert again["final_equity"] == outcome["final_equity"] and again["fills"] == outcome["fills"]
    assert report_of(again) == report_of(outcome)
    assert chain_of(tmp_path / "again") == chain_of(folder)
    other = campaign(tmp_path / "other", "--sessions", 7, "--seed", 8)
    assert other["final_equity"] != outcome["final_equity"]


@pytest.mark.parametrize("orders_before_the_kill", [3, 45])
def test_a_campaign_survives_kill_9_and_completes(tmp_path, orders_before_the_kill):
    command = [sys.executable, "-m", "v23.cli", "campaign", "--sessions", "7", "--seed", "7", "--state", str(tmp_path / "state"), "--reports", str(tmp_path / "reports")]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "state" / "exchange" / "journal.jsonl"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and running.poll() is None:
        if journal.exists() and journal.read_text().count('"POST"') >= orders_before_the_kill:
            break
        time.sleep(0.002)
    assert running.poll() is None, "the campaign ended before it could be killed"
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    refused = v23("campaign", "--sessions", 7, "--state", tmp_path / "state", "--reports", tmp_path / "reports", cwd=tmp_path)
    assert refused.returncode == 2 and "--resume" in refused.stderr
    outcome = campaign(tmp_path, "--resume")
    assert outcome["sessions"] == 7 and outcome["duplicate_orders"] == 0 and outcome["lost_fills"] == 0 and outcome["positions_agree"] is True


def test_a_campaign_killed_inside_a_notebook_goes_on(tmp_path):
    command = [sys.executable, "-m", "v23.cli", "campaign", "--sessions", "2", "--state", str(tmp_path / "state"), "--reports", str(tmp_path / "reports")]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal, deadline = tmp_path / "state" / "exchange" / "journal.jsonl", time.monotonic() + 90
    while time.monotonic() < deadline and running.poll() is None:  # the first session rebalances, as a notebook
        if journal.exists() and journal.read_text().count('"POST"') >= 5:
            break
        time.sleep(0.002)
    assert running.poll() is None and list((tmp_path / "reports" / "runs").rglob(".rebalance.*"))
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    outcome = campaign(tmp_path, "--resume")
    assert outcome["duplicate_orders"] == 0 and outcome["lost_fills"] == 0 and outcome["positions_agree"] is True


def test_a_second_campaign_in_the_same_folder_ends_with_75_and_touches_nothing(tmp_path):
    from v23.adapters.ledger import StateLock

    held = StateLock(tmp_path / "state", ".campaign.lock")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    second = v23("campaign", "--sessions", 1, "--state", tmp_path / "state", "--reports", tmp_path / "reports", cwd=tmp_path)
    assert second.returncode == 75 and "owns" in second.stderr and "Traceback" not in second.stderr
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    held.release()


def test_a_finished_campaign_is_archived_when_a_new_one_starts(first):
    folder, _ = first
    campaign(folder, "--sessions", 1)
    assert (folder / "state" / "archive" / "campaign-001" / "execution" / "ledger.sqlite3").exists()


@pytest.mark.realdata
def test_a_campaign_runs_on_real_bars(real_data, tmp_path):
    outcome = campaign(tmp_path, "--sessions", 6, "--bars", real_data / "us_large_2020_2026.parquet")
    assert outcome["synthetic"] is False and outcome["orders"] > 0
    assert outcome["duplicate_orders"] == 0 and outcome["lost_fills"] == 0 and outcome["signal_match"] == 1.0
