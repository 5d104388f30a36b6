"The commands that read, carry and compare a desk's record, on a desk that has traded one session."

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from v23.market_data import FIELDS
from v23.synthetic_market import synthetic_panel
from v23.trading_desk import open_desk


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("records")
    with open_desk(state=made / "state", reports=made / "reports", seed=7) as desk:
        session = desk.session()
        for part in (desk.market_open, desk.rebalance, desk.market_close):
            part(session)
    return made


def v23(folder, *arguments, code=0):
    done = subprocess.run([sys.executable, "-m", "v23.cli", *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code and "Traceback" not in done.stderr, (done.stdout[-500:], done.stderr[-2000:])
    return done.stdout if code == 0 else done.stdout + done.stderr


def test_every_order_is_listed_with_what_became_of_it(folder):
    rows = json.loads(v23(folder, "orders", "--json"))["orders"]
    assert len(rows) > 4 and {r["state"] for r in rows} <= {"filled", "canceled", "expired", "denied"} and rows[0]["client_order_id"].startswith("v23-")
    session = rows[0]["session"]
    assert len(json.loads(v23(folder, "orders", "--session", session, "--json"))["orders"]) == len(rows)
    assert v23(folder, "orders", "--open").strip() == v23(folder, "orders", "--session", "2020-01-02").strip() == "no orders"


def test_a_plan_shows_every_check_with_its_limit_and_sends_nothing(tmp_path):
    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", seed=7) as desk:
        desk.market_open(desk.session())
    plan = json.loads(v23(tmp_path, "plan", "--json"))
    assert plan["orders"] and all(r["sent"] or r["detail"] for r in plan["orders"]) and plan["cost_unknown"] == []
    assert {"name", "value", "limit", "detail", "passed", "binding"} == set(plan["orders"][0]["checks"][0])
    table = v23(tmp_path, "plan", "--checks").splitlines()
    assert len(table) == sum(1 + len(r["checks"]) for r in plan["orders"]) + 1 and "nothing was sent" in table[-1]
    assert all(any(c["detail"] in line for line in table) for r in plan["orders"] for c in r["checks"])
    assert v23(tmp_path, "orders").strip() == "no orders"


def test_the_books_are_compared_and_nothing_is_left_to_cancel(folder):
    assert json.loads(v23(folder, "reconcile", "--json")) == {"findings": [], "stops": [], "quarantined": [], "safe_mode": None, "accepted": []}
    assert json.loads(v23(folder, "cancel-orders", "--json")) == {"canceled": 0, "still_open": []}


def test_a_share_bought_at_the_brokers_page_is_booked_and_named(folder, tmp_path):
    from v23.exchange_host import ExchangeHost

    shutil.copytree(folder / "state", tmp_path / "state")
    with ExchangeHost(tmp_path / "state") as host:
        symbol = next(iter(host.exchange.holdings))
        host.exchange.advance_by(3600 * 18)
        host.exchange.handle("POST", "/v2/orders", {}, json.dumps({"symbol": symbol, "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}).encode())
        host.exchange.advance_by(60)
    told = json.loads(v23(tmp_path, "reconcile", "--json"))
    assert told["stops"] == [] and len(told["findings"]) == 1 and symbol in told["findings"][0]


def test_a_damaged_snapshot_is_named_and_written_anew_from_the_ledger(folder, tmp_path):
    shutil.copytree(folder / "state", tmp_path / "state")
    hurt = tmp_path / "state" / "monitoring" / "dashboard_state.json"
    before = json.loads(hurt.read_text())["data"]["summary"]
    hurt.write_text("null")
    assert "dashboard_state.json" in v23(tmp_path, "status", code=1) and hurt.read_text() == "null"
    v23(tmp_path, "reconcile")
    assert before and json.loads(v23(tmp_path, "status", "--json"))["dashboard"]["summary"] == before


@pytest.mark.parametrize("text", ["", "null", '{"active": false}'])
def test_status_says_killed_when_the_kill_file_cannot_be_read(text, folder, tmp_path):
    shutil.copytree(folder / "state", tmp_path / "state")
    (tmp_path / "state" / "circuit_breakers" / "kill_switch_state.json").write_text(text)
    assert json.loads(v23(tmp_path, "status", "--json"))["killed"] is True
    told = v23(tmp_path, "status")
    assert "kill switch ACTIVE" in told and "entries stopped" in told


def test_a_ledger_is_carried_away_and_brought_back(folder, tmp_path):
    told = json.loads(v23(folder, "ledger", "verify", "--json"))
    assert told["events"] > 50 and told["fills"] >= 5
    v23(folder, "ledger", "backup", str(tmp_path / "kept.sqlite3"))
    assert v23(folder, "ledger", "backup", str(tmp_path / "kept.sqlite3"), code=2).count("exists already") == 1
    v23(folder, "ledger", "export", str(tmp_path / "fills.jsonl"), "--kind", "fill")
    assert len((tmp_path / "fills.jsonl").read_text().splitlines()) == told["fills"]
    assert "v23 reconcile" in v23(folder, "ledger", "restore", str(tmp_path / "kept.sqlite3"))
    with open_desk(state=folder / "state", reports=folder / "reports") as desk:
        from v23.trading_desk import unreconciled

        assert unreconciled(desk.ledger)  # entries are off until the books are compared
    v23(folder, "reconcile")
    with open_desk(state=folder / "state", reports=folder / "reports") as desk:
        assert not unreconciled(desk.ledger)
        assert "owns" in v23(folder, "ledger", "verify", code=75)
        assert v23(folder, "orders", "--open").strip() == "no orders"  # from the snapshot, while somebody else trades


def test_a_damaged_backup_is_not_brought_back(folder, tmp_path):
    bad = tmp_path / "bad.sqlite3"
    bad.write_bytes(b"not a ledger at all")
    before = (folder / "state" / "execution" / "ledger.sqlite3").stat().st_mtime_ns
    assert "bad.sqlite3" in v23(folder, "ledger", "restore", str(bad), code=1)
    assert "none.sqlite3" in v23(folder, "ledger", "restore", str(tmp_path / "none.sqlite3"), code=2)
    assert (folder / "state" / "execution" / "ledger.sqlite3").stat().st_mtime_ns == before


def test_bars_are_imported_checked_and_described(tmp_path):
    panel = synthetic_panel(3, 12, pd.Timestamp("2024-01-02").date(), pd.Timestamp("2025-12-31").date())
    (tmp_path / "csv").mkdir()
    for symbol in panel.symbols:
        table = pd.DataFrame({f: panel.frame(f)[symbol] for f in FIELDS}).rename_axis("Date")
        table.iloc[200:, :4] /= 4 if symbol == panel.symbols[0] else 1
        table.to_csv(tmp_path / "csv" / f"{symbol}.csv")
    told = json.loads(v23(tmp_path, "data", "import", "csv", "--out", "bars.parquet", "--json"))
    assert told["symbols"] == 12 and told["odd"][0]["symbol"] == panel.symbols[0] and told["odd"][0]["splits"] == 1
    assert "unadjusted splits" in v23(tmp_path, "data", "check", "--bars", "bars.parquet", code=1)
    facts = json.loads(v23(tmp_path, "data", "info", "--bars", "bars.parquet", "--json"))
    assert (facts["symbols"], facts["sessions"], facts["synthetic"]) == (12, len(panel.sessions), False)
    assert "missing" in v23(tmp_path, "data", "import", "missing", "--out", "x.parquet", code=2)
    (tmp_path / "csv" / "EMPTY.csv").write_text("Date,Open,High,Low,Close,Volume\n")
    assert "EMPTY.csv" in v23(tmp_path, "data", "import", "csv", "--out", "bars.parquet", code=2)
    assert json.loads(v23(tmp_path, "data", "info", "--bars", "bars.parquet", "--json"))["digest"] == facts["digest"]
