"`v23 kill`, `panic`, `deactivate` and `resume` as a person calls them, against an exchange of its own."

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from test_light_imports import HEAVY

from v23.adapters.ledger import StateLock
from v23.adapters.state_folder import desk_ledger, real_clock
from v23.control import ControlServer
from v23.kill_switch import KillSwitch
from v23.market_calendar import NEW_YORK
from v23.simulator.exchange import Exchange
from v23.simulator.server import SimulatorServer
from v23.synthetic_market import synthetic_panel

PANEL = synthetic_panel(3, 12, date(2025, 10, 1), date(2026, 1, 30))
V23 = str(Path(sys.executable).with_name("v23"))


@pytest.fixture
def exchange():
    return Exchange(PANEL, 3, datetime(2026, 1, 23, 15, 30, tzinfo=NEW_YORK))


@pytest.fixture
def server(exchange):
    with SimulatorServer(exchange) as served:
        yield served


def invest(exchange, count: int = 5) -> None:
    "Positions, and an order that rests."
    for symbol in PANEL.symbols[:count]:
        exchange.handle("POST", "/v2/orders", {}, f'{{"symbol":"{symbol}","qty":"25","side":"buy","type":"market","time_in_force":"day"}}'.encode())
    exchange.advance_by(5)
    exchange.handle("POST", "/v2/orders", {}, f'{{"symbol":"{PANEL.symbols[count]}","qty":"1","side":"buy","type":"limit","limit_price":"1","time_in_force":"day"}}'.encode())
    assert len(exchange.holdings) == count and exchange.open_orders


def environment(**more: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("V23_", "ALPACA_"))} | more


def v23(*arguments: str, **more: str) -> subprocess.CompletedProcess:
    arguments = (*arguments, "--no-page") if arguments[0] == "kill" and "--reports" not in arguments else arguments
    return subprocess.run([V23, *arguments], capture_output=True, text=True, env=environment(**more), timeout=120)


@pytest.fixture
def paced(exchange, server):
    "The same exchange, its minutes passing in real seconds, as a broker in paper mode."
    told = threading.Event()

    def pace():
        while not told.wait(0.02):
            with exchange.lock:
                exchange.advance_by(1)

    thread = threading.Thread(target=pace, daemon=True)
    thread.start()
    yield {"V23_MODE": "paper", "ALPACA_BASE_URL": server.url, "ALPACA_API_KEY": "k", "ALPACA_API_SECRET": "s"}
    told.set()
    thread.join()


def test_a_kill_without_an_owner_gets_out_and_stays_latched(tmp_path, exchange, server):
    invest(exchange)
    done = v23("kill", "the data is wrong", "--who", "Ada", "--exchange", server.url, "--state", str(tmp_path), "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["flat"] is True and len(told["sold"]) == 5
    assert exchange.holdings == {} and not exchange.open_orders and exchange.configurations["suspend_trade"] is True
    switch = KillSwitch(state_dir=tmp_path)
    assert switch.is_active and switch.status()["reason"] == "the data is wrong"
    with desk_ledger(tmp_path, real_clock()) as ledger:
        first = next(iter(ledger.events("kill"))).body
        assert (first["action"], first["reason"], first["who"]) == ("activated", "the data is wrong", "Ada")
        assert {o.state.value for o in ledger.orders()} == {"filled"} and len(ledger.orders()) == 5
        assert all(c["name"] for p in ledger.parents() for c in p["decision"])
    again = v23("kill", "again", "--exchange", server.url, "--state", str(tmp_path), "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["kill_id"] == told["kill_id"]


def test_F59_a_kill_without_an_owner_gets_out_although_the_ledger_is_damaged(tmp_path, exchange, server):
    invest(exchange)
    (tmp_path / "execution").mkdir()
    (tmp_path / "execution" / "ledger.sqlite3").write_bytes(b"no database" * 200)
    done = v23("kill", "the disk is bad", "--exchange", server.url, "--state", str(tmp_path), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["flat"] is True, done.stderr
    assert exchange.holdings == {} and KillSwitch(state_dir=tmp_path).is_active


def test_a_kill_in_paper_mode_takes_its_keys_although_the_settings_do_not_load(tmp_path, exchange, paced):
    invest(exchange)
    (tmp_path / "settings.ini").write_text("[v23]\nMAX_POSITON_PCT = 10\n")
    done = subprocess.run([V23, "kill", "--json", "--no-page"], cwd=tmp_path, capture_output=True, text=True, env=environment(**paced), timeout=120)
    assert done.returncode == 0 and json.loads(done.stdout)["flat"] is True and exchange.holdings == {}
    assert "settings do not load" in done.stderr and (tmp_path / "state" / "KILL").exists()


def test_the_owner_is_asked_and_the_files_are_latched_whatever_it_says(tmp_path):
    heard = []
    lock = StateLock(tmp_path)
    with ControlServer(tmp_path, {"kill": lambda who, fields: heard.append((who, fields["reason"])) or {"kill_id": "kill-x"}}):
        done = v23("kill", "stop", "--who", "Ada", "--state", str(tmp_path), "--json")
    assert heard == [("Ada", "stop")] and done.returncode == 0 and json.loads(done.stdout)["kill_id"] == "kill-x"
    with ControlServer(tmp_path, {}):
        done = v23("kill", "--state", str(tmp_path))
    assert done.returncode == 0 and "did not take the request" in done.stdout
    done = v23("kill", "--exchange", "http://127.0.0.1:9", "--state", str(tmp_path))  # owned, without a socket
    assert done.returncode in (0, 1) and (tmp_path / "KILL").exists() and KillSwitch(state_dir=tmp_path).is_active
    lock.release()


def test_F55_a_folder_that_somebody_owns_is_left_to_them_latched(tmp_path, exchange, server):
    invest(exchange)
    lock = StateLock(tmp_path)
    done = v23("kill", "--exchange", server.url, "--state", str(tmp_path), "--json")
    lock.release()
    assert done.returncode == 0 and json.loads(done.stdout)["flat"] is None and exchange.holdings != {}
    assert KillSwitch(state_dir=tmp_path).is_active


def test_panic_needs_keys_and_nothing_else(tmp_path, exchange, server):
    invest(exchange)
    done = v23("panic", "--yes", "--exchange", server.url, "--state", str(tmp_path / "none"), "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["flat"] is True and set(told["asked"].values()) == {"accepted"}
    assert exchange.holdings == {} and not exchange.open_orders and not (tmp_path / "none").exists()


def test_panic_in_paper_mode_stops_the_desk_of_the_folder_too(tmp_path, exchange, paced):
    invest(exchange)
    done = v23("panic", "--yes", "--state", str(tmp_path), **paced)
    assert done.returncode == 0 and "FLAT" in done.stdout and exchange.holdings == {}
    assert KillSwitch(state_dir=tmp_path).is_active


def test_panic_says_per_symbol_what_the_broker_refused(tmp_path, exchange, server, monkeypatch):
    import v23.simulator.trading as trading

    invest(exchange)
    stuck = sorted(exchange.holdings)[2]
    monkeypatch.setattr(trading, "tradable", lambda x, symbol: symbol != stuck)
    monkeypatch.setattr("v23.simulator.rules.tradable", lambda x, symbol: symbol != stuck)
    done = v23("panic", "--yes", "--exchange", server.url, "--state", str(tmp_path), "--seconds", "40", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1 and list(told["left"]) == [stuck] and told["asked"][stuck].startswith("refused")
    assert set(exchange.holdings) == {stuck}


def test_a_patience_that_is_no_number_is_refused_in_one_line(tmp_path):
    for text in ("soon", "inf", "nan"):
        done = v23("kill", "--seconds", text, "--state", str(tmp_path))
        assert done.returncode == 2 and "--seconds" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "KILL").exists()


def test_panic_without_keys_says_so(tmp_path):
    done = v23("panic", "--yes", "--state", str(tmp_path))
    assert done.returncode == 2 and "ALPACA_API_KEY" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("closed", [False, True])
def test_F73_a_kill_on_a_saturday_waits_for_the_bell_and_sells_after_it(tmp_path, exchange, server, closed):
    invest(exchange)
    if closed:
        exchange.advance_by(24 * 3600)  # Saturday
    done = v23("kill", "--exchange", server.url, "--state", str(tmp_path), "--json", *(["--wait"] if closed else []))
    assert done.returncode == 0 and json.loads(done.stdout)["flat"] is True and exchange.holdings == {}
    if closed:
        assert exchange.now.date() == date(2026, 1, 26) and exchange.now.hour == 9


def test_F73_without_waiting_it_says_when_the_bell_rings(tmp_path, exchange, server):
    invest(exchange)
    exchange.advance_by(24 * 3600)
    done = v23("kill", "--exchange", server.url, "--state", str(tmp_path), "--seconds", "60")
    assert done.returncode == 1 and "PENDING_OPEN" in done.stdout and "2026-01-26 09:30" in done.stdout and "waits for the bell" in done.stdout
    assert len(exchange.holdings) == 5 and all(o.side.value == "sell" for o in exchange.open_orders.values())
    exchange.advance_by(3 * 24 * 3600)
    done = v23("kill", "--exchange", server.url, "--state", str(tmp_path))
    assert done.returncode == 0 and exchange.holdings == {}


def test_F61_F74_a_kill_that_is_ended_while_the_broker_is_away_goes_on_at_the_next_call(tmp_path, exchange, paced, server):
    invest(exchange)
    away = paced | {"ALPACA_BASE_URL": "http://127.0.0.1:9"}
    running = subprocess.Popen([V23, "kill", "--who", "Ada", "--state", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(**away), text=True)
    began = time.monotonic()
    while not (tmp_path / "KILL").exists() or not (tmp_path / "execution").exists():
        assert time.monotonic() - began < 60
        time.sleep(0.05)
    time.sleep(1)
    asked = time.monotonic()
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=10)
    assert time.monotonic() - asked < 5 and len(exchange.holdings) == 5
    done = v23("kill", "--state", str(tmp_path), "--json", **paced)
    assert done.returncode == 0 and json.loads(done.stdout)["flat"] is True and exchange.holdings == {}
    with desk_ledger(tmp_path, real_clock()) as ledger:
        assert [e.body["who"] for e in ledger.events("kill") if e.body["action"] == "activated"] == ["Ada"]


def test_F56_a_kill_whose_ledger_cannot_be_opened_sells_without_it(tmp_path, exchange, server):
    invest(exchange)
    (tmp_path / "execution" / "ledger.sqlite3").mkdir(parents=True)
    done = v23("kill", "--exchange", server.url, "--state", str(tmp_path), "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["flat"] is True and told["not_written"] and exchange.holdings == {}
    lines = [json.loads(line) for line in (tmp_path / "kill-emergency.jsonl").read_text().splitlines()]
    assert [x["what"] for x in lines].count("sell") == 5 and lines[-1]["report"]["flat"] is True


# pydantic is there: the command line itself reads its options with it
PROBE = """
import sys, json
from v23.adapters.light_alpaca import Transport
seen, send = [], Transport.request
def request(self, method, path, *rest, **more):
    if self.prefix and not seen:
        seen.append([m for m in {heavy!r} + ('requests', 'starlette', 'websockets', 'httpx') if m in sys.modules])
    return send(self, method, path, *rest, **more)
Transport.request = request
from v23.cli import main
sys.argv = ["v23", *{arguments!r}]
try:
    main()
except SystemExit as e:
    print(json.dumps({{"code": e.code, "first": seen, "last": [m for m in {heavy!r} if m in sys.modules]}}), file=sys.stderr)
"""


@pytest.mark.parametrize("command", [("kill",), ("panic", "--yes")])
def test_the_wire_is_reached_without_anything_heavy(command, tmp_path, exchange, server):
    invest(exchange)
    arguments = (*command, "--exchange", server.url, "--state", str(tmp_path), *(["--no-page"] if command == ("kill",) else []))
    done = subprocess.run([sys.executable, "-c", PROBE.format(heavy=HEAVY, arguments=arguments)], capture_output=True, text=True, env=environment(), timeout=120)
    told = json.loads(done.stderr.splitlines()[-1])
    assert told == {"code": 0, "first": [[]], "last": []} and exchange.holdings == {}


def test_the_way_back_takes_the_code_and_a_reason(tmp_path):
    "On the simulated account of a state folder, whose desk this command opens."
    from v23.trading_desk import open_desk

    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", seed=7) as desk:
        desk.market_open()
        desk.rebalance()
        assert desk.booked_positions()
        day = desk.clock.now().astimezone(NEW_YORK)
    where = ("--state", str(tmp_path / "state"), "--reports", str(tmp_path / "reports"))
    done = v23("kill", "a drill", *where, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["flat"] is True
    page = Path(done.stderr.splitlines()[-1])
    assert page.name == "incident.html" and "a drill" in page.read_text() and "by Ada" not in page.read_text()
    told = v23("incident", *where, "--json")
    assert told.returncode == 0 and json.loads(told.stdout)["state"] == "FLAT" and json.loads(told.stdout)["sales"] > 3
    assert v23("incident", "kill-x", *where).returncode == 2
    yesterday = f"CONFIRM-{day - timedelta(days=1):%Y%m%d}"
    done = v23("deactivate", yesterday, "--who", "Ada", *where)
    assert done.returncode == 2 and "wrong" in done.stderr
    done = v23("resume", "too early", "--who", "Ada", "--state", str(tmp_path / "state"))
    assert done.returncode == 2 and "active" in done.stderr
    done = v23("deactivate", f"CONFIRM-{day:%Y%m%d}", "--who", "Ada", *where, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "HALTED"
    done = v23("resume", "the drill is over", "--who", "Ada", "--state", str(tmp_path / "state"), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["state"] == "NORMAL"


def test_an_owner_that_waits_for_the_bell_is_told_of_in_words(tmp_path):
    opens = datetime(2026, 1, 21, 9, 30, tzinfo=NEW_YORK)
    report = {"kill_id": "kill-1", "flat": False, "state": "PENDING_OPEN", "left": {"XAAB": {"quantity": "5", "reason": "closed"}}, "opens_at": opens}
    with ControlServer(tmp_path, {"kill": lambda who, fields: {"kill_id": "kill-1", "report": report}}):
        done = v23("kill", "the data is wrong", "--state", str(tmp_path))
        told = json.loads(v23("kill", "--state", str(tmp_path), "--json").stdout)
    assert done.returncode == 0 and done.stderr == "" and "New York opens 2026-01-21 09:30, the desk that runs sells then" in done.stdout
    assert told["flat"] is False and datetime.fromisoformat(told["opens_at"]) == opens
