"The commands around a desk that runs: what they say, what they refuse, and what a person is told to do."

import json
import os
import re
import stat
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from alert_sinks import wait_for, web_server

from v23.adapters.bars import load_bars, save_bars
from v23.market_calendar import NEW_YORK
from v23.operations import examine, new_project, write_schedule
from v23.simulator.exchange import Exchange
from v23.simulator.server import SimulatorServer

CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(("V23_", "ALPACA_", "ALERT_", "SMTP_", "TWILIO_"))} | {"MPLBACKEND": "Agg"}
KEYS = ("PKCANARY7", "canary-secret-7")


def v23(*line, cwd, **environ):
    return subprocess.run([sys.executable, "-m", "v23.cli", *line], cwd=cwd, env=CLEAN | environ, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def account():
    with SimulatorServer(Exchange(load_bars(seed=7), 7, datetime(2026, 1, 13, 10, 0, tzinfo=NEW_YORK), Decimal(100_000)), keys=KEYS) as server:
        yield server


@pytest.fixture
def paper(account, monkeypatch, tmp_path):
    "The environment of a paper account that is right in everything but its bars, which are old."
    for name in [k for k in os.environ if k not in CLEAN]:
        monkeypatch.delenv(name)
    save_bars(load_bars(seed=7), tmp_path / "bars.parquet")
    for name, value in {"V23_MODE": "paper", "ALPACA_API_KEY": KEYS[0], "ALPACA_API_SECRET": KEYS[1], "ALPACA_BASE_URL": account.url, "V23_BARS": str(tmp_path / "bars.parquet")}.items():
        monkeypatch.setenv(name, value)
    return account


def found(tmp_path):
    rows = {f.name: f for f in examine(tmp_path / "state", tmp_path)}
    assert all(f.fix for f in rows.values() if f.ok is False), rows  # whatever is at fault comes with what to do
    assert not any(k in str(rows) for k in KEYS)
    return rows


def test_a_doctor_asks_the_broker_whether_it_takes_the_keys(paper, tmp_path, monkeypatch):
    rows = found(tmp_path)
    assert rows["keys"].ok and paper.exchange.account_id in rows["keys"].detail and "ACTIVE" in rows["keys"].detail
    monkeypatch.setenv("ALPACA_API_SECRET", "canary-secret-8")
    assert found(tmp_path)["keys"].ok is False
    monkeypatch.delenv("ALPACA_API_SECRET")
    assert "not set" in found(tmp_path)["keys"].detail


def test_a_doctor_knows_another_account_old_bars_and_a_network_that_is_gone(paper, tmp_path, monkeypatch):
    monkeypatch.setenv("V23_ACCOUNT_ID", "11111111-2222-3333-4444-555555555555")
    rows = found(tmp_path)
    assert rows["keys"].ok is False and "V23_ACCOUNT_ID" in rows["keys"].detail
    monkeypatch.setattr("v23.operations.previous_session", lambda day: date(2027, 1, 4))
    assert found(tmp_path)["bars"].ok is False
    monkeypatch.delenv("V23_BARS")
    assert "V23_BARS is not set" in found(tmp_path)["bars"].detail
    monkeypatch.setenv("ALPACA_BASE_URL", "http://127.0.0.1:9")
    rows = found(tmp_path)
    assert rows["clock"].ok is False and "network" in rows["clock"].fix and rows["keys"].ok is False


@pytest.mark.parametrize(("skew", "ok"), [(0, True), (3600, False), (-60, False)])
def test_a_doctor_measures_the_brokers_clock(skew, ok, paper, tmp_path, monkeypatch):
    from email.utils import format_datetime

    class Answer:
        headers = {"Date": format_datetime(datetime.now(UTC) + timedelta(seconds=skew), usegmt=True)}

    monkeypatch.setattr("requests.head", lambda *ignored, **also: Answer)
    assert found(tmp_path)["clock"].ok is ok


def test_a_doctor_reads_permissions_settings_and_a_damaged_ledger(tmp_path, monkeypatch):
    for name in [k for k in os.environ if k not in CLEAN]:
        monkeypatch.delenv(name)
    (tmp_path / "state" / "execution").mkdir(parents=True)
    (tmp_path / "state").chmod(0o755)
    (tmp_path / "state" / "execution" / "ledger.sqlite3").write_bytes(b"not a ledger" * 100)
    rows = found(tmp_path)
    assert rows["state folder"].ok is None and "chmod 700" in rows["state folder"].fix and rows["ledger"].ok is False
    (tmp_path / ".env").write_text("ALPACA_API_KEY=canary-key\n")
    (tmp_path / ".env").chmod(0o644)
    assert found(tmp_path)["settings"].ok is False


def test_doctor_is_one_document_and_its_exit_code_tells(tmp_path):
    done = v23("doctor", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["healthy"] and {"python", "packages", "keys", "clock", "calendar", "alert channels", "disk", "state folder"} <= {c["name"] for c in told["checks"]}
    sick = v23("doctor", cwd=tmp_path, V23_MODE="paper", ALPACA_BASE_URL="http://127.0.0.1:9")
    assert sick.returncode == 1 and "FAULT  keys" in sick.stdout and ".env.example" in sick.stdout


def test_nothing_that_is_piped_has_colours(tmp_path):
    for line in (["--help"], ["status"], ["schedule", "show"], ["job", "nothing"]):
        done = v23(*line, cwd=tmp_path, FORCE_COLOR="", TERM="xterm-256color")
        assert "\x1b" not in done.stdout + done.stderr, line


def test_a_shell_completes_commands_and_options(tmp_path):
    code = "import sys; from v23.cli import app; sys.argv = ['v23']; app(prog_name='v23')"
    for words, expected in (("v23 sup", "supervise"), ("v23 schedule ", "install")):
        environ = CLEAN | {"_V23_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
        assert expected in done.stdout.split(), (words, done.stdout, done.stderr)


@pytest.mark.parametrize("kind", ["systemd", "cron"])
def test_a_schedule_is_written_where_it_was_asked_for_and_nowhere_else(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written, steps = write_schedule(kind, Path("deploy"))
    texts = {Path(p).name: Path(p).read_text() for p in written}
    assert {p.name for p in tmp_path.iterdir()} == {"deploy"} and steps
    if kind == "cron":
        assert "CRON_TZ=America/New_York" in texts["v23.cron"] and re.search(r"^\*/5 \* \* \* 1-5 cd .* schedule run", texts["v23.cron"], re.MULTILINE)
    else:
        service = texts["v23.service"]
        for line in ("Type=notify", "WatchdogSec=180", "Restart=on-failure", "RestartPreventExitStatus=2 75", f"WorkingDirectory={tmp_path}", "NoNewPrivileges=yes"):
            assert line in service, line
        assert "America/New_York" in texts["v23-jobs.timer"]
    assert v23("schedule", "install", "--kind", "at", cwd=tmp_path).returncode == 2


def test_schedule_show_knows_half_days_and_refuses_a_day_without_a_session(tmp_path):
    half = json.loads(v23("schedule", "show", "--session", "2026-11-27", "--json", cwd=tmp_path).stdout)
    assert {j["job"]: j["at"][11:16] for j in half["jobs"]}["rebalance"] == "12:30"
    closed = v23("schedule", "show", "--session", "2026-11-26", cwd=tmp_path)
    assert closed.returncode == 2 and len(closed.stderr.splitlines()) == 1


def test_a_new_project_is_private_where_it_must_be_and_never_written_over(tmp_path):
    files = new_project(tmp_path / "desk")
    assert {"my_strategy.py", "settings.ini", ".env", ".env.example", ".gitignore", "tests/test_my_strategy.py", "notebooks/my_strategy.ipynb"} <= set(files)
    assert stat.S_IMODE((tmp_path / "desk" / ".env").stat().st_mode) == 0o600 and ".env" in (tmp_path / "desk" / ".gitignore").read_text().split()
    again = v23("init", "desk", cwd=tmp_path)
    assert again.returncode == 2 and "not empty" in again.stderr


def test_jobs_and_schedule_run_say_what_there_is(tmp_path):
    assert "no runs yet" in v23("jobs", cwd=tmp_path).stdout
    refused = v23("schedule", "run", cwd=tmp_path)
    assert refused.returncode == 2 and "time of its own" in refused.stderr


def test_a_job_that_fails_without_a_supervisor_alerts_somebody(paper, tmp_path, monkeypatch):
    from v23 import operations
    from v23.jobs import JobFailed

    def fail(*ignored, **also):
        raise JobFailed("the job market_open failed: the broker is gone")

    monkeypatch.setattr(operations, "run_job", fail)
    with web_server() as (push, url):
        monkeypatch.setenv("ALERT_PUSH_URL", url.replace("http", "json") + "/me")
        told = operations.run_due(tmp_path / "state", tmp_path / "reports", datetime(2026, 1, 13, 10, 0, tzinfo=NEW_YORK))
        assert wait_for(lambda: any("the broker is gone" in str(body) for _, body in push.requests)), push.requests
    assert told["ran"] == [] and len(told["failed"]) == 1
