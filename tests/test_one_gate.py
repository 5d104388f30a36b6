"""Only one way to the wire: every order request passes the gate, whatever the code path, and every refusal has a known word.

One half reads the sources: who could send an order at all. The other half runs a desk whose gate says no.
"""

import ast
from collections import defaultdict
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from test_books import DAY, A, B, codes, decision, exchange, opened, trade, wish

import v23
from v23.domain import Check, ChildOrder, Decision, OrderState, OrderType, Purpose
from v23.execution.order_lifecycle import planned_order
from v23.risk.denial_codes import DENIALS, DenialCode, codes_of

ROOT = Path(v23.__file__).parent
SENDERS = {"submit", "start_many", "submit_many", "submit_order", "submit_orders", "post", "close_position", "close_all_positions", "replace_order", "replace_order_by_id"}
ORDER_PATHS = ("/v2/orders", "/orders", "v2/orders")
# Who calls what can send an order, and why that is right.
CALLERS = {
    ("adapters/alpaca.py", "submit"): "the client itself",
    ("adapters/alpaca.py", "start_many"): "the client itself",
    ("adapters/alpaca.py", "start"): "the client itself",
    ("adapters/alpaca.py", "one"): "the client itself, one of several at a time",
    ("adapters/light_alpaca.py", "sleep"): "moves the clock of a simulated exchange, no order",
    ("adapters/alert_outbox.py", "_take"): "hands an alert to its channels, no order",
    ("adapters/alert_outbox.py", "_remember"): "hands an alert to its channels, no order",
    ("adapters/alert_outbox.py", "_after"): "hands an alert to its channels, no order",
    ("supervisor.py", "on_kill"): "puts a kill into the inbox of the desk's own thread, no order",
    ("liquidation.py", "_sell"): "sells for a kill when the ledger cannot be written; never buys",
    ("execution_engine.py", "_start"): "the only caller of the client, for `send_all`: what it is given passed the gate or is a kill",
}
# Who hands orders to the engine's wire.
WIRE = {
    ("execution_engine.py", "send"): "the wire itself",
    ("execution_engine.py", "_act"): "asks `_still` of each order, and that asks the gate",
    ("execution_engine.py", "send_kills"): "sells for the kill switch, each sale asked of the gate",
    ("liquidation.py", "liquidate"): "sends a kill's lost request again",
}


def calls(root=ROOT):
    "(file, function) -> names of the methods it calls and the texts in it, simulator aside: it is the exchange."
    found = defaultdict(set)
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name.startswith("simulator/"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]:
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    owner = node.func.value.attr if isinstance(node.func.value, ast.Attribute) else getattr(node.func.value, "id", "")
                    found[name, function.name].add((node.func.attr, owner, tuple(a.value for a in node.args if isinstance(a, ast.Constant))))
    return found


def strangers(found):
    "Functions that could send an order and are not known to."
    odd = set()
    for where, made in found.items():
        for method, owner, texts in made:
            posts = method in SENDERS and not (method == "submit" and owner in ("client", "pool", "executor"))
            posts |= method in ("request", "_request", "urlopen") and "POST" in texts and any(t in ORDER_PATHS for t in texts)
            if posts and where not in CALLERS:
                odd.add((*where, method))
            if method in ("send", "send_all") and owner == "wire" and where not in WIRE:
                odd.add((*where, method))
    return odd


def test_no_other_function_can_send_an_order():
    assert strangers(calls()) == set()


def test_a_second_way_to_the_wire_is_found(tmp_path):
    (tmp_path / "clever.py").write_text("def a(broker, o):\n    broker.start_many([o], None)\n\ndef b(engine, o):\n    engine.wire.send(o)\n\ndef c(http):\n    http.request('POST', '/v2/orders')\n")
    assert {x[1] for x in strangers(calls(tmp_path))} == {"a", "b", "c"}


def deny(intent, quote, batch=()):
    return Decision(intent.intent_id, (Check(DenialCode.BREAKER_STATE.value, False, "no"),))


def test_a_gate_that_says_no_lets_nothing_out_on_any_path(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        sent = []
        submit = desk.broker.start_many
        desk.broker.start_many = lambda orders, halted: sent.extend(orders) or submit(orders, halted)
        gate, desk.engine.gate = desk.engine.gate, deny
        desk.rebalance_to({B: 0.05})
        desk.rebalance()
        late = wish(desk, B, 3)[0]
        desk.ledger.record("order", replace(desk.ledger.orders()[0], intent_id=late.intent_id, client_order_id="v23-x", symbol=B, state=OrderState.PLANNED, attempts=0, order_id=""))
        desk.engine.recover()
        assert sent == [] and desk.booked_positions() == {A: 10}
        desk.engine.gate = gate
        assert desk.kill.activate("drill")["flat"] is True  # getting out asks nobody
        assert len(sent) == 1


@pytest.mark.parametrize("changes", [{"equity": Decimal(94_000)}, {"equity": Decimal(-1)}])
def test_every_refusal_on_record_has_a_known_word(changes, tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 5)
        account = desk.broker.account
        desk.broker.account = lambda: replace(account(), **changes)
        desk.rebalance_to({B: 0.05, A: 0.05})
        refused = [p["refused"] for p in desk.ledger.parents(DAY) if p["refused"]] + [o.reason for o in desk.ledger.orders() if o.state is OrderState.DENIED]
        assert all(codes_of(r) for r in refused)
        assert bool(refused) or changes["equity"] < 0  # nothing is even planned on an equity nobody can read


def test_every_code_says_what_it_asks_and_what_helps():
    assert set(DENIALS) == set(DenialCode) and len({c.value for c in DenialCode}) == len(DenialCode)
    assert all(d.asks and d.help and d.binds for d in DENIALS.values())
    assert all(set(d.binds) in ({Purpose.ENTRY}, {Purpose.ENTRY, Purpose.EXIT}, set(Purpose)) for d in DENIALS.values())


def test_the_entries_of_one_batch_count_as_trades_of_the_day(tmp_path):
    "Forty-nine decided just before and not on record yet leave room for one more."
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        intent, quote = wish(desk, B, 1)
        child = ChildOrder(0, OrderType.MARKET, intent.quantity, desk.clock.now(), desk.clock.now() + timedelta(hours=1))
        batch = [planned_order(child, replace(intent, intent_id=f"{intent.intent_id}{n}")) for n in range(50)]
        assert desk.gate(intent, quote, batch[:49]).allowed
        assert desk.gate(intent, quote, batch).reasons == ("trade_count",)
        assert desk.gate(replace(intent, intent_id=batch[0].intent_id), quote, batch).reasons == ("duplicate",)


def test_an_old_map_of_sectors_makes_every_name_unknown(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        desk.gate.sectors_as_of = DAY - timedelta(days=400)
        assert desk.gate.known_sectors() == desk.wiring.sectors
        desk.gate.sectors_as_of = date(2024, 1, 1)
        desk.look(DAY)
        desk.look(DAY)
        assert desk.gate.known_sectors() == {} and codes(desk).count("SECTORS_STALE") == 1
        worth = {A: 9_000, "XAAE": 9_000, B: 9_000}
        for symbol in list(worth)[:2]:
            trade(desk, symbol, int(worth[symbol] / desk.broker.quotes([symbol])[symbol].ask))
        third = decision(desk, B, int(9_000 / desk.broker.quotes([B])[B].ask))
        assert third.reasons == ("sector_concentration",)
