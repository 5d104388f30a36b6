"What an owner writes for people who may only look: complete, prompt, private, and never in the way of trading."

import json
import stat
import time
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from v23.adapters import live_view
from v23.adapters.snapshots import read_snapshot
from v23.dashboard.data import OrderReader, what_if
from v23.domain import Adjustment, Side, to_plain
from v23.errors import InputError
from v23.exchange_host import ExchangeConfig, ExchangeHost, opening_instant
from v23.settings import load_settings
from v23.synthetic_market import synthetic_panel
from v23.trading_desk import open_desk

PANEL = synthetic_panel(60, 200, date(2025, 4, 1), date(2026, 1, 30))
DAY = date(2026, 1, 20)


@pytest.fixture
def host(tmp_state):
    config = ExchangeConfig("", 60, opening_instant(DAY), Decimal(100_000))
    with ExchangeHost(tmp_state, config, panel=PANEL) as served:
        yield served


def opened(state: Path, host: ExchangeHost):
    return open_desk(state=state, reports=state.parent / "reports", host=host, panel=PANEL, settings=load_settings(environ={}))


def wait_for(check, seconds: float = 2.0) -> float:
    "How long it took; fails when it takes longer."
    began = time.monotonic()
    while not check():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)
    return time.monotonic() - began


def test_the_view_says_what_the_ledger_says_within_two_seconds(tmp_state, host):
    with opened(tmp_state, host) as desk:
        desk.market_open(DAY)
        desk.rebalance(DAY)
        reader = OrderReader(tmp_state)
        wait_for(lambda: reader.read("monitoring/live_state.json").seq == desk.ledger.last_seq)
        live, rows = reader.live, reader.orders("2026-01-20")
        assert live["shares"] == to_plain(desk.ledger.positions()) and live["fills"] == len(desk.ledger.fills()) > 5
        assert {r["intent_id"] for r in rows} == {p["intent_id"] for p in desk.ledger.parents()}
        known = {c["client_order_id"]: c for r in rows for c in r["children"]}
        assert {o.client_order_id: o.state.value for o in desk.ledger.orders()} == {k: c["state"] for k, c in known.items()}
        assert sorted(f["fill_id"] for c in known.values() for f in c["fills"]) == sorted(f.fill_id for f in desk.ledger.fills())
        for c in known.values():
            assert c["steps"][0]["state"] == "planned" and c["steps"][-1]["state"] == c["state"]
        desk.ledger.record("adjustment", Adjustment("split:1", next(iter(live["shares"])), Decimal(100), desk.clock.now(), "split", Decimal(2)))
        wait_for(lambda: reader.live["shares"] == to_plain(desk.ledger.positions()))
        held = [r for r in reader.positions() if r["agrees"] is not None]
        assert held and sum(r["agrees"] is False for r in held) <= 1, "the broker knows nothing of the invented split"


def test_a_start_makes_anew_what_was_lost_and_files_are_private(tmp_state, host):
    with opened(tmp_state, host) as desk:
        desk.market_open(DAY)
        desk.rebalance(DAY)
    before = read_snapshot(tmp_state / "execution" / "orders" / "2026-01-20.json")
    seen = read_snapshot(tmp_state / "monitoring" / "live_state.json")["seen"]
    (tmp_state / "execution" / "orders" / "2026-01-20.json").write_text("torn")
    with opened(tmp_state, host):
        pass
    assert read_snapshot(tmp_state / "execution" / "orders" / "2026-01-20.json") == before
    assert seen and read_snapshot(tmp_state / "monitoring" / "live_state.json")["seen"] == seen, "what was seen last is kept with its time"
    for path in (*(tmp_state / "monitoring").iterdir(), *(tmp_state / "execution" / "orders").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and not path.name.endswith(".view")


def test_a_disk_that_takes_no_view_does_not_stop_a_desk(tmp_state, host, monkeypatch, caplog):
    def full(*args):
        raise OSError(28, "No space left on device")

    with opened(tmp_state, host) as desk:
        monkeypatch.setattr(live_view, "write_view", full)
        desk.market_open(DAY)
        time.sleep(0.7)
        desk.rebalance(DAY)
        assert len(desk.ledger.fills()) > 5
        monkeypatch.undo()
        desk.ledger.record("note", {"text": "the disk has room again"})
        wait_for(lambda: OrderReader(tmp_state).read("monitoring/live_state.json").seq == desk.ledger.last_seq)
        wait_for(lambda: len(OrderReader(tmp_state).orders("2026-01-20")) == len(desk.ledger.parents()), 3.0)
    assert "No space left" in caplog.text


def test_the_question_why_has_the_answer_of_the_gate(tmp_state, host):
    with opened(tmp_state, host) as desk:
        desk.market_open(DAY)
        now = desk.clock.now()
        wait_for(lambda: bool(OrderReader(tmp_state).live.get("seen", {}).get("window")))
        reader, symbol = OrderReader(tmp_state), PANEL.symbols[0]
        fine, words = what_if(reader, symbol, Side.BUY, 10, 20.0, 5.0, now)
        assert words == "would be sent" and len(fine) == 12
        wide = what_if(reader, symbol, Side.BUY, 10, 20.0, 80.0, now)[1]
        large = what_if(reader, symbol, Side.BUY, 1000, 20.0, 5.0, now)[1]
        naked = what_if(reader, symbol, Side.SELL, 10, 20.0, 5.0, now)[1]
        assert ("spread" in wide, "position_size" in large, "quantity" in naked) == (True, True, True)
        desk.kill.activate("drill", who="test")
        desk.look(DAY)
        wait_for(lambda: "breaker_state" in what_if(OrderReader(tmp_state), symbol, Side.BUY, 10, 20.0, 5.0, now)[1])
        for bad in ("", "aapl", "A" * 11, "A B", "<IMG>", "../A", "A\n"):
            with pytest.raises(InputError, match="no symbol"):
                what_if(reader, bad, Side.BUY, 10, 20.0, 5.0, now)


def test_a_pause_is_on_the_page_before_the_next_look(tmp_state, host):
    with opened(tmp_state, host) as desk:
        desk.market_open(DAY)
        desk.ledger.record("entries", {"action": "paused", "who": "ann", "reason": "news"})
        wait_for(lambda: OrderReader(tmp_state).pauses()[:1] == ["ann paused entries: news"])
        desk.ledger.record("entries", {"action": "resumed", "who": "ann", "reason": "over"})
        wait_for(lambda: OrderReader(tmp_state).pauses() == [])


def test_the_envelope_is_that_of_every_state_file(tmp_path):
    from datetime import datetime

    from v23.market_calendar import NEW_YORK

    live_view.write_view(tmp_path / "a.json", {"n": Decimal("1.50"), "text": "é <b>"}, 3, datetime(2026, 1, 20, tzinfo=NEW_YORK))
    assert read_snapshot(tmp_path / "a.json") == {"n": "1.50", "text": "é <b>"} and json.loads((tmp_path / "a.json").read_text())["seq"] == 3
    live_view.write_view(tmp_path / "b.json", {"n": float("nan")}, 3, datetime(2026, 1, 20, tzinfo=NEW_YORK))
    assert "NaN" not in (tmp_path / "b.json").read_text().replace('"NaN"', "") and sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "b.json"]
