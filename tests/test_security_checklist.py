"""The security checklist, line by line, with the tests of each; the last test holds this list to the tests there are.

1 Loopback alone unless there is a certificate: test_dashboard_security::test_only_loopback_without_a_certificate,
  test_dashboard_security::test_over_tls_a_browser_signs_in_and_plain_http_gets_nothing
2 No default secret, hashes alone, compared in constant time: test_dashboard_security::test_there_is_no_default_password_and_only_hashes_are_kept,
  test_dashboard_security::test_the_source_has_no_unsafe_reading_and_compares_in_constant_time
3 No route without a session: test_dashboard_security::test_F95_no_route_answers_without_a_session,
  test_dashboard_security::test_F95_a_route_added_later_is_guarded_without_anybody_remembering
4 State changes by POST, with our token, from our origin: test_dashboard_security::test_F95_an_action_needs_a_post_with_our_token_from_our_origin,
  test_dashboard_security::test_the_cookie_is_strict_and_ends_with_the_session,
  test_dashboard_security::test_over_tls_the_cookie_is_secure_and_http_origins_are_foreign
5 No command over a websocket: test_dashboard_security::test_F95_there_is_no_socket_to_talk_to
6 Host allow-list: test_dashboard_security::test_F95_a_foreign_host_name_is_not_answered
7 Kill and its undoing, and the split of processes: test_dashboard_security::test_F95_a_kill_with_all_of_it_reaches_the_owner_and_both_diaries,
  test_dashboard_security::test_F95_what_loosens_a_stop_needs_the_password_a_code_and_a_number_used_once,
  test_dashboard_security::test_five_wrong_passwords_lock_an_address_out_also_after_a_restart,
  test_dashboard_security::test_the_dashboard_never_opens_the_ledger_and_reads_no_keys,
  test_control::test_the_socket_is_private, test_control::test_a_request_is_used_once,
  test_control::test_an_old_or_future_request_is_refused, test_control::test_another_user_is_refused_on_both_sides
8 Symbols at every door, and what others wrote is text: test_dashboard_security::test_F96_whatever_a_file_says_is_text_on_every_page,
  test_alerts::test_F85_no_secret_no_header_and_no_markup_gets_out, test_notebook::test_order_plans_show_alone_and_together_and_escape_what_they_name,
  test_pretrade_boundaries::test_quantity_duplicate_and_symbol_bind_for_every_purpose, test_security_checklist::test_what_is_no_symbol_is_refused_where_it_comes_in,
  test_security_checklist::test_a_command_refuses_what_is_no_symbol_in_one_line, test_security_checklist::test_what_a_broker_holds_is_taken_whatever_it_is_called,
  test_security_checklist::test_an_odd_holding_is_counted_shown_as_text_and_not_traded, test_security_checklist::test_an_odd_name_does_not_blind_the_other_quotes,
  test_security_checklist::test_no_written_table_computes_in_a_spreadsheet, test_security_checklist::test_what_a_broker_says_begins_no_line_and_moves_no_terminal,
  test_security_checklist::test_a_job_is_found_by_its_name_alone, test_security_checklist::test_a_file_named_after_no_symbol_is_refused,
  test_security_checklist::test_what_has_no_name_at_all_is_no_answer, test_security_checklist::test_a_kill_sells_the_rest_and_names_what_the_broker_would_not_take
9 Policies of every page, reports without rights: test_dashboard_security::test_every_answer_carries_the_policies,
  test_dashboard_security::test_pages_name_no_other_machine_and_carry_no_inline_script,
  test_dashboard_security::test_F96_what_a_report_hides_is_taken_out_before_it_is_served
10 The viewer stays in its folder: test_dashboard_security::test_F96_the_viewer_serves_nothing_but_reports,
  test_dashboard_security::test_F96_a_report_is_served_without_rights_and_a_huge_one_not_at_all
11 Rates, sizes and slow clients: test_dashboard_security::test_more_than_ten_actions_a_minute_are_too_many,
  test_dashboard_security::test_bodies_are_small_and_forms_readable, test_dashboard_security::test_a_body_that_never_ends_is_let_go,
  test_dashboard_security::test_a_silent_connection_is_let_go, test_dashboard_security::test_a_head_that_does_not_end_is_let_go_early,
  test_dashboard_security::test_twenty_streams_cost_one_look; the loop under 500 requests a second is measured by scripts/bench_dashboard.py
12 Secrets in no file, message or page: test_week::test_no_secret_is_in_anything_that_was_written,
  test_faults_data::test_F97_secrets_that_others_can_read_stop_the_start, test_alerts::test_F85_what_a_command_tells_holds_no_secret_and_a_damaged_line_stops_nothing,
  test_operations::test_F89_a_secret_in_an_output_fails_the_job_and_deletes_the_output,
  test_security_checklist::test_no_committed_file_holds_a_key, test_security_checklist::test_keys_are_in_no_error_log_or_traceback
13 Private files: test_monitoring::test_after_sixty_sessions_everything_under_state_is_its_owners_alone,
  test_dashboard_security::test_the_files_of_a_session_are_private
14 Nothing runs data as code, JSON of others is read strictly: test_faults_data::test_F97_what_runs_data_as_code_is_refused_by_our_linter,
  test_faults_data::test_F97_nothing_of_ours_loads_pickles_from_arrays_or_lets_a_rule_pass_unseen,
  test_security_checklist::test_nothing_runs_data_as_code, test_security_checklist::test_what_runs_data_as_code_is_found,
  test_security_checklist::test_the_linter_asks_for_security_everywhere, test_security_checklist::test_an_answer_that_is_no_plain_json_is_no_answer,
  test_security_checklist::test_a_request_that_is_no_plain_json_is_refused, test_security_checklist::test_a_state_file_that_is_no_plain_json_is_not_believed
15 Locked and hashed, no network in tests, a bill of materials: test_kit::test_a_lock_pins_and_hashes_every_package_and_names_no_address,
  test_kit::test_no_committed_file_names_a_package_registry, test_loopback_only::test_a_far_address_is_refused_before_a_packet_leaves,
  test_loopback_only::test_a_process_started_by_a_test_is_guarded_too, test_security_checklist::test_the_bill_of_materials_lists_what_is_locked,
  test_security_checklist::test_what_runs_on_a_proposal_names_no_secret
16 No live trading in a test: test_paper_mode::test_live_never_starts_inside_a_test_run,
  test_faults_broker::test_F13_a_mode_and_a_host_that_do_not_belong_together_are_refused
"""

import ast
import http.server
import json
import logging
import re
import subprocess
import sys
import threading
import traceback
from datetime import UTC, datetime
from decimal import Decimal
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
import tomllib
from starlette.testclient import TestClient
from test_kit import committed, page_sources

from v23.adapters.alpaca import AlpacaAPI, executions_of, parse_activity, parse_fill, parse_order, parse_position
from v23.adapters.bars import read_bars
from v23.adapters.clocks import StillClock
from v23.adapters.light_alpaca import LightAlpaca
from v23.adapters.snapshots import read_snapshot, write_snapshot
from v23.bars_library import read_symbol_files
from v23.bars_source import alpaca_symbols
from v23.cli import main
from v23.cli_base import answer, say
from v23.control import ControlRefused, read_request
from v23.dashboard import access
from v23.dashboard.app import Desk, build_app
from v23.domain import Position
from v23.errors import Ambiguous, BrokerError, DataError, InputError, StateError
from v23.jobs import job_path
from v23.logs import log_to, stop_logging
from v23.market_data import panel_from_frames, panel_from_rows
from v23.settings import SECRETS, ExecutionSettings, Secret
from v23.sweep import Sweep, write_sweep
from v23.trading_desk import open_desk

ROOT = Path(__file__).parent.parent
NOON = datetime(2026, 1, 20, 17, tzinfo=UTC)
ODD = (
    "aapl", "1A", "A" * 11, "A A", " AAPL", "AAPL\n", "../AAPL", "AAPL/..", "<img src=x onerror=alert(1)>", "${7*7}{{7*7}}", "=cmd|' /C calc'!A0",
    "+1+1", "@SUM(1)", "-A", "\u202eLPAA", "\u0391APL", "AAPL\x00", "AAPL\x1b[2J", "A,B", "BTC/USD", "X" * 10_000,
)  # fmt: skip


# 8: symbols


def bars(symbol: str) -> pd.DataFrame:
    days = pd.to_datetime(["2026-01-05", "2026-01-06"])
    return pd.DataFrame({"symbol": symbol, "date": days, "open": 10.0, "high": 11.0, "low": 9.0, "close": 10.0, "volume": 1000.0})


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_what_is_no_symbol_is_refused_where_it_comes_in(text, tmp_path):
    assert panel_from_rows(bars("BRK.B"), "good").symbols == ("BRK.B",)
    rows = pd.concat([bars("AAPL"), bars(text)], ignore_index=True)
    rows.to_parquet(tmp_path / "bars.parquet")
    wide = {f: rows.pivot(index="date", columns="symbol", values=f) for f in ("open", "high", "low", "close", "volume")}
    for brought in (lambda: panel_from_rows(rows, "rows"), lambda: panel_from_frames(wide, "frames"), lambda: read_bars(tmp_path / "bars.parquet")):
        with pytest.raises(DataError, match="is not a symbol") as refused:
            brought()
        assert len(str(refused.value)) < 400 and str(refused.value).isprintable()
    if text.strip().upper() not in ("AAPL", "A,B"):  # what is asked of Alpaca is made upper case, and a comma makes two
        with pytest.raises(InputError, match="is not a symbol"):
            alpaca_symbols(f"alpaca:AAPL,{text}")


def test_a_file_named_after_no_symbol_is_refused(tmp_path):
    for name in ("AAPL", "=1+1"):
        bars("AAPL").drop(columns="symbol").to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(DataError, match="'=1\\+1' is not a symbol"):
        read_symbol_files(tmp_path)


@pytest.mark.parametrize("arguments", [
    ("signals", "--bars", "alpaca:AAPL,<script>alert(1)</script>"), ("data", "import", "alpaca:=1+1", "--out", "x.parquet"), ("data", "info", "--bars", "odd.csv"), ("backtest", "--bars", "odd.csv"),
])  # fmt: skip
def test_a_command_refuses_what_is_no_symbol_in_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPACA_API_KEY", "k")
    monkeypatch.setenv("ALPACA_API_SECRET", "s")
    bars("AAPL\x1b[2J\n<b>").to_csv("odd.csv", index=False)
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2 and last.startswith("v23: ") and "not a symbol" in last and "\x1b" not in last
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["odd.csv"]


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_what_a_broker_holds_is_taken_whatever_it_is_called(text):
    held = {"symbol": text, "qty": "3", "avg_entry_price": "10", "current_price": "11"}
    order = {"id": "o", "side": "buy", "symbol": text, "qty": "3", "limit_price": "10", "status": "new"}
    fill = {"id": "f", "order_id": "o", "symbol": text, "side": "buy", "qty": "3", "price": "10", "transaction_time": "2026-01-20T17:00:00Z"}
    assert parse_position(held).symbol == parse_order(order).symbol == parse_fill(fill, {}).symbol == text
    assert parse_activity({"id": "a", "activity_type": "DIV", "date": "2026-01-20", "symbol": text}).symbol == text


@pytest.mark.parametrize("nothing", [None, "", 7, [], {}])
def test_what_has_no_name_at_all_is_no_answer(nothing):
    held = {"symbol": nothing, "qty": "3", "avg_entry_price": "10", "current_price": "11"}
    fill = {"id": "f", "symbol": nothing, "side": "buy", "qty": "3", "price": "10", "transaction_time": "2026-01-20T17:00:00Z"}
    for read in (lambda: parse_position(held), lambda: parse_position(nothing), lambda: executions_of(fill, {}), lambda: parse_fill(fill | {"symbol": "A", "side": nothing}, {}), lambda: parse_fill(fill | {"symbol": "A", "id": nothing}, {})):
        with pytest.raises(Ambiguous, match="lacks"):
            read()


def test_an_odd_holding_is_counted_shown_as_text_and_not_traded(tmp_path, monkeypatch):
    monkeypatch.setitem(access.SCRYPT, "n", 2**4)
    odd = "=cmd|'<img src=x onerror=alert(1)>/../\u202ex"
    state, reports = tmp_path / "state", tmp_path / "reports"
    with open_desk(state=state, reports=reports, seed=7) as desk:
        real = desk.broker.positions
        desk.broker.positions = lambda: (*real(), Position(odd, Decimal(10), Decimal(10), Decimal(100), Decimal(100), "an asset"))
        desk.market_open()
        desk.rebalance()
        assert desk.gate.shares()[odd] == 10, "it is exposure"
        assert odd in desk.ledger.last("reconciled").body["quarantined"]
        sent = [o for o in desk.ledger.orders() if o.attempts]
        assert len(sent) >= 5 and odd not in {o.symbol for o in sent}
        assert all("symbol" in p["refused"] for p in desk.ledger.parents() if p["symbol"] == odd)
        desk.market_close()
    assert [p for p in tmp_path.rglob("*") if "cmd" in p.name or "onerror" in p.name] == []
    board = Desk(state, reports)
    with TestClient(build_app(board), base_url="http://127.0.0.1") as browser:
        browser.post("/login", data={"password": board.passwords.create()["viewer"]}, headers={"origin": "http://127.0.0.1"})
        pages = {path: browser.get(path).text for path in ("/", "/positions", "/orders", "/risk", "/alerts", "/desk-health")}
    assert not any("<img src=x" in text for text in pages.values())
    assert odd in unescape(pages["/positions"]), "a holding that nobody may trade is shown"


def test_a_kill_sells_the_rest_and_names_what_the_broker_would_not_take(tmp_path):
    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", seed=7) as desk:
        real = desk.broker.positions
        desk.market_open()
        desk.rebalance()
        held = {p.symbol for p in real()}
        desk.broker.positions = lambda: (*real(), Position("=1+1", Decimal(10), Decimal(10), Decimal(100), Decimal(100), "an asset"))
        told = desk.kill.activate("drill", "ann")
        assert len(held) >= 5 and set(told["sold"]) == held and real() == ()
        assert not told["flat"] and told["left"] == {"=1+1": {"quantity": "10", "reason": "UNTRADABLE"}}
        tried = [json.loads(o.body) for o in desk.ledger.orders() if o.symbol == "=1+1"]  # a kill sells whatever is held, by the name the broker has for it
        assert tried and all((b["symbol"], b["side"], b["qty"]) == ("=1+1", "sell", "10") for b in tried)


class Answering(http.server.BaseHTTPRequestHandler):
    "Alpaca's host, saying what a test wants it to say."

    said = b"{}"
    asked: list[str] = []

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.said)))
        self.end_headers()
        self.wfile.write(self.said)

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def host():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


KEYS = ("PKCANARY7SECURITY", "canary-secret+/of-7")


@pytest.fixture(scope="module")
def clients(host):
    clock, keys = StillClock(NOON), [Secret(k) for k in KEYS]
    return AlpacaAPI(*keys, host, host, ExecutionSettings(), clock), LightAlpaca(*keys, host, clock)


def test_an_odd_name_does_not_blind_the_other_quotes(clients, monkeypatch):
    monkeypatch.setattr(Answering, "asked", [])
    monkeypatch.setattr(Answering, "said", b'{"quotes": {"AAPL": {"t": "2026-01-20T17:00:00Z", "bp": 9.9, "ap": 10.1, "bs": 1, "as": 1}}}')
    assert clients[0].quotes(["AAPL", *ODD])["AAPL"].bid == 9.9 and len(Answering.asked) == 1 and "symbols=AAPL" in Answering.asked[0] and "%" not in Answering.asked[0]
    assert clients[0].quotes(ODD) == {} and not any(client.tradable(s) for client in clients for s in ODD) and len(Answering.asked) == 1


def test_no_written_table_computes_in_a_spreadsheet(tmp_path, monkeypatch):
    monkeypatch.setattr(Sweep, "plot_parallel", lambda *a: pytest.importorskip("matplotlib.figure").Figure())
    sweep = Sweep.__new__(Sweep)
    frame = pd.DataFrame({"rule": ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "fine"], "sharpe": [-1.0] * 7})
    monkeypatch.setattr(Sweep, "frame", frame, raising=False)
    monkeypatch.setattr(Sweep, "names", ("rule",), raising=False)
    write_sweep(sweep, tmp_path)
    lines = (tmp_path / "sweep.csv").read_bytes().decode().replace('"', "")
    assert "'=cmd" in lines and "'+1," in lines and "'-1," in lines and ",-1" in lines and "'@SUM" in lines and "'\t=1" in lines and "'\r=1" in lines and "\nfine" in lines
    for name in ("backtest.py", "backtest_result.py", "sweep.py"):
        assert "spreadsheet_safe(" in (ROOT / "v23" / name).read_text()
    unsafe = [p.name for p in (ROOT / "v23").rglob("*.py") if re.search(r"(?<!\))\.to_csv\(|csv\.writer|DictWriter", re.sub(r"spreadsheet_safe\([^\n]*?\)\.to_csv\(", "", p.read_text()))]
    assert unsafe == []


def test_what_a_broker_says_begins_no_line_and_moves_no_terminal(tmp_path, capsys):
    reason = "rejected\r\n2026-01-20 12:00:00,000 CRITICAL v23  all is well\x1b[2J\u202egnp"
    handlers = log_to(tmp_path)
    logging.getLogger("v23.test").warning("AAPL: %s", reason)
    stop_logging(handlers)
    line, rest = (tmp_path / "v23.log").read_text().split("\n", 1)
    assert rest == "" and line.endswith("all is well\\x1b[2J\\u202egnp")
    assert json.loads((tmp_path / "v23.jsonl").read_text())["message"] == f"AAPL: {reason}"
    say(reason)
    answer({}, False, reason)
    out, err = capsys.readouterr()
    assert not set("\x1b\r\u202e") & set(out + err) and out.count("\n") == 2


@pytest.mark.parametrize("name", ["../jobs/market_open", "market_open.ipynb", "/etc/passwd", "market_open\x00", "<b>", "=1+1", "\u202enepo", ""])
def test_a_job_is_found_by_its_name_alone(name):
    assert job_path("market_open").is_file()
    with pytest.raises(InputError, match="there is no job"):
        job_path(name)


# 12: secrets

KEY = re.compile(r"\b[PA]K[A-Z0-9]{16,24}\b|\bAC[0-9a-f]{32}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bAKIA[A-Z0-9]{16}\b|\bxox[abp]-[0-9A-Za-z-]{20,}")
MADE_UP = re.compile(r"CANARY|ABCDEFGH|^PK(?=(.))\1+$")


def keys_in(path: Path) -> list[str]:
    text = path.read_bytes().decode("utf-8", "ignore")
    return [m.group() for m in KEY.finditer(text) if not MADE_UP.search(m.group())]


def test_no_committed_file_holds_a_key(tmp_path):
    assert [(str(p), found) for p in committed() if (found := keys_in(p))] == []
    planted = tmp_path / "planted.py"
    planted.write_text('KEY = "PK' + "Q7ZK2M9X4T1B8V3NRD" + '"\n-----BEGIN ' + "RSA PRIVATE KEY-----\n")
    assert len(keys_in(planted)) == 2


@pytest.mark.parametrize("said", [b"not json", b"[]", b'{"equity": NaN}', None])
def test_keys_are_in_no_error_log_or_traceback(said, clients, monkeypatch, caplog):
    monkeypatch.setattr(Answering, "said", said or b"")
    caplog.set_level(logging.DEBUG)
    for client in clients:
        with pytest.raises(BrokerError) as failed:
            client.account()
        told = "".join(traceback.TracebackException.from_exception(failed.value, capture_locals=True).format()) + repr(vars(client)) + caplog.text
        assert not [k for k in KEYS if k in told.replace(repr(KEYS), "")]


# 14: data is not code


def risky(text: str) -> list[str]:
    "Calls and imports that turn data into code."
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [n for n in names if n.split(".")[0] in ("pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle")]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle", "pandas.read_pickle"):
                found.append(called)
            found += [f"{called}({k.arg}=…)" for k in node.keywords if k.arg in ("shell", "allow_pickle") and not (isinstance(k.value, ast.Constant) and not k.value.value)]
    return found


def test_nothing_runs_data_as_code():
    texts = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in (ROOT / "v23").rglob("*.py")} | page_sources(ROOT / "nbs" / "jobs")
    for path in (ROOT / "scripts").iterdir():
        if path.is_file() and (path.suffix == ".py" or path.read_bytes().startswith(b"#!/usr/bin/env python")):
            texts[path.name] = path.read_text(encoding="utf-8")
    assert len(texts) > 120 and {name: found for name, text in texts.items() if (found := risky(text))} == {}


@pytest.mark.parametrize("text", [
    "import pickle", "from marshal import loads", "import a, shelve", "eval('1')", "exec(x)", "__import__('os')", "os.system('ls')", "yaml.load(x)", "subprocess.run(x, shell=True)", "subprocess.run(x, shell=flag)",
    "np.load(x, allow_pickle=True)", "pd.read_pickle(x)", "def f():\n    import dill",
])  # fmt: skip
def test_what_runs_data_as_code_is_found(text):
    assert len(risky(text)) == 1 and risky("yaml.safe_load(x)\nsubprocess.run(x, shell=False)\nast.literal_eval(x)\nimport json") == []


def test_the_linter_asks_for_security_everywhere():
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in lint["select"] and [r for r in lint["ignore"] if r.startswith("S") and r != "S101" and not r.startswith("SIM")] == []
    assert {p: [r for r in rules if r.startswith("S")] for p, rules in lint["per-file-ignores"].items()} == {"v23/*": [], "tests/*": ["S"], "scripts/*": ["S603", "S607"]}
    never = re.compile(r"noqa[^\n]*\bS(102|30[1-8]|31[3-9]|32\d|50\d|60[24567]|70[1-3])\b|noqa\s*$|noqa\s+[^:\s]", re.MULTILINE)
    assert [p for folder in ("v23", "scripts") for p in (ROOT / folder).rglob("*.py") if never.search(p.read_text(encoding="utf-8"))] == []
    assert never.search("x  # noqa: BLE001, S301") and never.search("x  # noqa\n") and not never.search("x  # noqa: S603")


NOT_PLAIN = (b'{"equity": NaN}', b'{"equity": Infinity}', b'{"equity": -Infinity}', b"[" * 100 + b"]" * 100, b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{}", b"{", b"nan", b'{"a": "' + b"x" * 5_000_001 + b'"}')


@pytest.mark.parametrize("said", NOT_PLAIN, ids=range(len(NOT_PLAIN)))
def test_an_answer_that_is_no_plain_json_is_no_answer(said, clients, monkeypatch):
    monkeypatch.setattr(Answering, "said", said)
    for client in clients:
        for asked in (client.account, client.positions, client.market_clock):
            with pytest.raises(Ambiguous):
                asked()


@pytest.mark.parametrize("fields", ['{"x": NaN}', '{"x": 1e999, "y": Infinity}', '{"x": ' + "[" * 100 + "]" * 100 + "}", '{"x": ' + "[" * 50_000 + "}", '{"x": 1, "x": 2}'], ids=range(5))
def test_a_request_that_is_no_plain_json_is_refused(fields):
    line = '{"id": "cccccccccccccccc", "at": "2026-01-20T17:00:00+00:00", "command": "kill", "who": "ann", "fields": %s}'
    assert read_request((line % '{"reason": "drill"}').encode())[2] == "kill"
    with pytest.raises(ControlRefused, match="not one JSON line"):
        read_request((line % fields).encode())


@pytest.mark.parametrize("data", ['{"x": NaN}', '{"x": ' + "[" * 100 + "]" * 100 + "}", '{"x": ' + "[" * 100_000 + "}", '{"x": 1, "x": 2}'], ids=range(4))
def test_a_state_file_that_is_no_plain_json_is_not_believed(data, tmp_path):
    write_snapshot(tmp_path / "a.json", {"x": 1}, 1, NOON)
    text = (tmp_path / "a.json").read_text()
    assert read_snapshot(tmp_path / "a.json") == {"x": 1}
    (tmp_path / "a.json").write_text(re.sub(r'"data": \{[^}]*\}', lambda m: f'"data": {data}', text))
    with pytest.raises(StateError, match="does not parse"):
        read_snapshot(tmp_path / "a.json")


# 15: what we are made of


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_the_bill_of_materials_lists_what_is_locked(name, tmp_path):
    told = [subprocess.run([sys.executable, ROOT / "scripts" / "sbom", ROOT / name], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    bill, lock = json.loads(told[0]), (ROOT / name).read_text()
    assert told[0] == told[1] and (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert [f"{c['name']}=={c['version']}" for c in bill["components"]] == re.findall(r"^[a-z0-9][\w.-]*==[^\s;]+", lock, re.MULTILINE)
    assert sorted(h["content"] for c in bill["components"] for h in c["hashes"]) == sorted(re.findall(r"sha256:(\w{64})", lock)) and all(c["hashes"] for c in bill["components"])
    assert len({c["bom-ref"] for c in bill["components"]}) == len(bill["components"])
    for spoiled in (lock + "unpinned>=1 \\\n    --hash=sha256:" + "0" * 64 + "\n", lock + "bare==1\n", "requests @ file:///tmp/x\n"):
        (tmp_path / "a.lock").write_text(spoiled)
        done = subprocess.run([sys.executable, ROOT / "scripts" / "sbom", tmp_path / "a.lock"], capture_output=True, text=True)
        assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1


def test_what_runs_on_a_proposal_names_no_secret():
    files = [p for p in committed() if ".ci" in p.parts or ".github" in p.parts or p.name in ("check", "environment.sh", "start", "lock")]
    assert len(files) >= 5
    assert [(p, name) for p in files for name in SECRETS if name in p.read_text()] == []


# the list itself


def test_every_line_of_the_checklist_has_tests_that_exist():
    lines = re.split(r"(?m)^(?=\d+ )", __doc__)[1:]
    here = {name for name in globals() if name.startswith("test_")} - {"test_every_line_of_the_checklist_has_tests_that_exist"}
    assert here == set(re.findall(r"test_security_checklist::(test_\w+)", __doc__))
    assert [int(line.split()[0]) for line in lines] == list(range(1, 17))
    for line in lines:
        named = re.findall(r"(test_\w+)::(test_\w+)", line)
        assert named, line
        for module, name in named:
            functions = {n.name for n in ast.walk(ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)}
            assert name in functions, f"{module}::{name}"
