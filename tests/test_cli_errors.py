"Bad input at the command line: one line that names the thing, the right exit code, no traceback, nothing changed."

import json
import socket
import subprocess
import sys

import pytest


def v23(*args, cwd, env=None):
    import os

    return subprocess.run(
        [sys.executable, "-m", "v23.cli", *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})}
    )


def refused(done, code, *words):
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert "Traceback" not in done.stderr
    assert lines[-1].startswith("v23: ")
    for word in words:
        assert word in lines[-1], (word, lines[-1])


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


HEADER = "symbol,date,open,high,low,close,volume\n"
CASES = {
    "missing file": (None, ("backtest", "--bars", "nowhere.parquet"), "nowhere.parquet"),
    "empty panel": (HEADER, ("backtest", "--bars", "bars.csv"), "bars.csv"),
    "NaN price": (HEADER + "AAA,2026-01-05,10,11,9,,1000\n", ("backtest", "--bars", "bars.csv"), "AAA"),
    "no session": (None, ("campaign", "--sessions", "0"), "--sessions"),
    "start that is no date": (None, ("campaign", "--start", "soon"), "--start"),
    "start after the bars": (None, ("campaign", "--start", "2031-01-06"), "2031-01-06"),
    "unknown fill": (None, ("backtest", "--fill", "yesterday"), "yesterday"),
    "unknown job": (None, ("job", "breakfast"), "breakfast"),
    "job parameter of a wrong type": (None, ("job", "market_open", "-p", "seed=seven"), "seed"),
    "unknown job parameter": (None, ("job", "market_open", "-p", "sede=7"), "sede"),
    "secret as a job parameter": (None, ("job", "market_open", "-p", "api_key=PK1"), "secret"),
    "unknown option": (None, ("campaign", "--session", "3"), "--session"),
    "unknown symbol": (None, ("signals", "--symbol", "NOPE"), "NOPE"),
    "bars from Alpaca without keys": (None, ("signals", "--bars", "alpaca:AAPL"), "ALPACA_API_KEY"),
    "nothing to resume": (None, ("campaign", "--resume"), "resume"),
    "nothing to promote": (None, ("promote", "--size", "0.5", "--who", "Ada", "--account", "x"), "validate"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_and_exit_2(name, tmp_path):
    text, args, word = CASES[name]
    if text is not None:
        (tmp_path / "bars.csv").write_text(text)
    before = tree(tmp_path)
    refused(v23(*args, cwd=tmp_path), 2, word)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("DAILY_LOSS_LIMIT_PCT", "5.0", "did you mean -5"),
        ("DAILY_LOSS_LIMIT_PCT", "-0.05", "did you mean -5"),
        ("MAX_POSITION_PCT", "10", "did you mean 0.1"),
        ("V23_MODE", "turbo", "turbo"),
    ],
)
def test_a_setting_of_the_wrong_sign_or_unit_is_refused(name, value, word, tmp_path):
    refused(v23("campaign", "--sessions", "1", cwd=tmp_path, env={name: value}), 2, name, word)
    assert tree(tmp_path) == []


def test_a_port_in_use_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(v23("simulate", "--port", port, cwd=tmp_path), 1, str(port))


@pytest.mark.parametrize("damage", ["", "null", '{"schema": 1', '{"schema": 99, "seq": 1, "sha256": "", "data": {}}'])
def test_a_corrupted_snapshot_is_named_and_left_alone(damage, tmp_path):
    plan = tmp_path / "state" / "campaign.json"
    plan.parent.mkdir()
    plan.write_text(damage)
    refused(v23("campaign", "--resume", cwd=tmp_path), 1, "campaign.json")
    assert plan.read_text() == damage


def test_json_output_is_one_document(tmp_path):
    done = v23("signals", "--json", "--as-of", "2026-01-23", cwd=tmp_path)
    assert done.returncode == 0
    data = json.loads(done.stdout)
    assert data["synthetic"] is True and len(data["signals"]) >= 5
