"Orders over the real client and a real socket, with the replies going wrong: one order per wish, whatever happens."

import json
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from v23.accounting import signed_positions
from v23.adapters.alpaca import AlpacaAPI
from v23.adapters.ledger import Ledger
from v23.domain import Check, ChildOrder, Decision, OrderIntent, OrderState, OrderType, Purpose, Side
from v23.errors import Ambiguous, AuthLost, BrokerError, Rejected
from v23.execution.order_lifecycle import intent_key, planned_order
from v23.execution.order_routing import plan_order
from v23.execution_engine import ExecutionEngine, ExecutionManager, liquidate, plan_of
from v23.market_calendar import NEW_YORK
from v23.settings import ExecutionSettings, Secret
from v23.simulator.exchange import Exchange
from v23.simulator.server import SimulatorServer, VirtualClock
from v23.synthetic_market import synthetic_panel

START = datetime(2026, 1, 23, 15, 30, tzinfo=NEW_YORK)
END = START + timedelta(minutes=25)
QUICK = ExecutionSettings(connect_timeout_s=0.5, read_timeout_s=0.5, total_deadline_s=1.0)


def yes(intent, quote, batch=()):
    return Decision(intent.intent_id, (Check("open", True, ""),))


class Desk:
    "An engine on a simulated exchange."

    def __init__(self, tmp_path, gate=yes, cash=100_000):
        self.panel = synthetic_panel(3, 60, datetime(2025, 10, 1).date(), datetime(2026, 1, 30).date())
        self.exchange = Exchange(self.panel, 3, START, Decimal(cash))
        self.server = SimulatorServer(self.exchange)
        self.clock = VirtualClock(self.exchange, self.server.lock)
        self.path, self.gate = tmp_path / "ledger.sqlite3", gate
        self.server.__enter__()
        self.start()

    def start(self):
        "As a new process would."
        self.broker = AlpacaAPI(Secret("k"), Secret("s"), self.server.url, self.server.url, QUICK, self.clock)
        self.ledger = Ledger(self.path, self.clock)
        self.engine = ExecutionEngine(self.broker, self.ledger, self.clock, QUICK, self.gate, self.path.parent)

    def restart(self):
        self.ledger.close()
        self.start()
        return self.engine.recover()

    def close(self):
        self.ledger.close()
        self.server.__exit__(None, None, None)

    def plans(self, count=4, side=Side.BUY, quantity=10, purpose=Purpose.ENTRY):
        names = [s for s, q in self.broker.quotes(self.panel.symbols).items() if q.spread_bps < 25][:count]
        intents = [OrderIntent(intent_key("t", START.date(), s, side, purpose), "t", START.date(), s, side, Decimal(quantity), purpose, 1.0) for s in names]
        quotes = self.broker.quotes(names)
        return [(plan_order(i, quotes[i.symbol], self.clock.now(), END, QUICK), self.gate(i, quotes[i.symbol])) for i in intents]

    def trade(self, plans):
        return ExecutionManager(self.engine).rebalance(plans, START.date(), END)

    def check(self, orders):
        "Each wish is at the exchange once, and the books agree to the share."
        seen = Counter(o.client_order_id for o in self.exchange.orders.values())
        assert len(seen) == orders and set(seen.values()) <= {1}
        assert self.engine.tracker.reconcile() == ()
        assert self.ledger.verify() == self.ledger.last_seq
        assert not [o for o in self.ledger.orders() if o.state in (OrderState.SENDING, OrderState.UNKNOWN)]

    def posts(self):
        return len(self.exchange.orders)


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path)
    yield made
    made.close()


LOST = {
    "F1_accepted_reply_lost": ("accept_then_hang_up", {}),
    "F2_never_arrived": ("drop", {}),
    "F3_accepted_then_504": ("accept_then_error", {"status": 504}),
    "F3_accepted_then_502": ("accept_then_error", {"status": 502}),
    "F6_throttled": ("error", {"status": 429}),
    "F6_throttled_with_headers": ("429", {}),
    "F6_throttled_without_headers": ("429_bare", {}),
    "F8_reset_in_the_middle_of_the_body": ("half_body", {}),
    "F9_a_body_slower_than_the_deadline": ("drip", {"seconds": 4}),
    "F10_unreadable_body": ("garbage", {}),
    "F10_body_breaks_off": ("malformed", {}),
    "F10_empty_body": ("empty", {}),
    "F10_huge_body": ("huge", {}),
    "F15_redirected": ("redirect", {}),
}


@pytest.mark.parametrize("fault", LOST)
def test_a_lost_reply_never_makes_a_second_order(fault, desk):
    kind, more = LOST[fault]
    plans = desk.plans()
    desk.server.faults.add("POST", "/v2/orders", kind, nth=2, **more)
    report = desk.trade(plans)
    assert report["fill_rate"] == 1.0
    desk.check(orders=4)
    assert [e.body["code"] for e in desk.ledger.events("error")] == ["RATE_LIMITED" if "F6" in fault else "REPLY_LOST"]


def ended(desk, kind, **more):
    "One order that meets a fault of the exchange, worked to its end and looked at again after the session."
    desk.exchange.plan_order_fault(kind, **more)
    report = desk.trade(desk.plans(1))
    desk.clock.sleep(2400)
    desk.engine.recover()
    return report, desk.ledger.orders()


def test_F11_an_unknown_status_and_a_new_field_are_an_order_that_works(desk):
    desk.server.faults.add("POST", "/v2/orders", "new_fields", times=2)
    desk.server.faults.add("GET", "/v2/account", "new_fields")
    report, orders = ended(desk, "strange")
    assert report["fill_rate"] == 1.0 and len(orders) == 1 and desk.broker.account().cash > 0
    desk.check(orders=1)


def test_F27_the_rest_of_an_order_the_exchange_canceled_is_worked_on(desk):
    report, orders = ended(desk, "partial_then_cancel")
    assert report["fill_rate"] == 1.0 and [(o.state, o.filled_quantity) for o in orders] == [(OrderState.CANCELED, 5), (OrderState.FILLED, 5)]
    desk.check(orders=2)


def test_F31_a_rejection_after_the_acceptance_ends_the_order_once(desk):
    report, orders = ended(desk, "reject")
    assert report["fill_rate"] == 0.0 and [o.state for o in orders] == [OrderState.REJECTED]
    desk.check(orders=1)


def test_F30_more_shares_than_ordered_are_booked_and_reported(desk):
    _, orders = ended(desk, "overfill")
    assert orders[0].filled_quantity == 11 and [f.kind.value for f in desk.engine.tracker.reconcile()] == ["overfill"]
    assert {p.symbol: p.quantity for p in desk.broker.positions()} == {orders[0].symbol: 11}


def test_F28_shares_that_trade_after_the_end_of_an_order_are_booked(desk):
    wide = [(replace(p, intent=replace(p.intent, reference_price=1.0), order_type=OrderType.LIMIT, children=()), d) for p, d in desk.plans(1)]
    desk.exchange.plan_order_fault("late_fill", seconds=30)
    desk.engine._price = lambda plan, step, quote, batch: planned_order(ChildOrder(step.seq, OrderType.LIMIT, step.quantity, desk.clock.now(), desk.clock.now() + timedelta(seconds=60), Decimal("1.00")), plan.intent, "simulated", "0")
    desk.engine.plan(wide)
    work = desk.engine.work
    desk.engine.settings = replace(QUICK, limit_reprices=0)
    work(START.date(), END)
    ended = desk.ledger.orders()[0]
    assert (ended.state, ended.filled_quantity) == (OrderState.CANCELED, 0)
    desk.clock.sleep(120)
    desk.engine.recover()
    late = desk.ledger.orders()[0]
    assert (late.state, late.filled_quantity) == (OrderState.CANCELED, 10) and signed_positions(desk.ledger.fills()) == {late.symbol: 10}
    assert desk.engine.tracker.reconcile() == ()


def test_F26_an_execution_that_is_taken_back_is_reversed_in_the_books(desk):
    _, orders = ended(desk, "bust", seconds=30)
    assert desk.broker.positions() == () and signed_positions(desk.ledger.fills()) == {}
    assert [f.side for f in desk.ledger.fills()] == [Side.BUY, Side.SELL] and len(orders) == 1
    assert desk.engine.tracker.reconcile() == ()


def test_F26_a_corrected_price_is_the_price_of_the_books(desk):
    ended(desk, "correct", seconds=30)
    bought, again, undone = desk.ledger.fills()
    assert (undone.price, undone.side, again.side) == (bought.price, Side.SELL, Side.BUY) and again.price > bought.price
    spent = sum(f.side.sign * f.quantity * f.price for f in desk.ledger.fills())
    assert 100_000 - desk.exchange.cash == spent and desk.engine.tracker.reconcile() == ()


def test_F5_an_order_that_is_not_visible_yet_is_resent_under_the_same_id_and_collides_harmlessly(desk):
    plans = desk.plans(1)
    desk.server.faults.add("POST", "/v2/orders", "accept_then_hang_up")
    desk.server.faults.add("GET", "/v2/orders:by_client_order_id", "hide_order", times=3)
    desk.trade(plans)
    desk.check(orders=1)
    order = desk.ledger.orders()[0]
    assert order.state is OrderState.FILLED


def test_F4_the_duplicate_answer_means_the_order_exists(desk):
    plans = desk.plans(1)
    desk.engine.plan(plans)
    desk.server.faults.add("POST", "/v2/orders", "accept_then_hang_up")
    desk.server.faults.add("GET", "/v2/orders:by_client_order_id", "hide_order", times=2)
    desk.engine.work(START.date(), END)
    desk.check(orders=1)


def test_F8_F9_reads_that_fail_are_tried_again_and_never_read_as_flat(desk):
    desk.trade(desk.plans(2))
    desk.server.faults.add("GET", "/v2/positions", "error", times=5, status=500)
    with pytest.raises(BrokerError):
        desk.broker.positions()
    desk.server.faults.waiting.clear()
    desk.server.faults.add("GET", "/v2/positions", "garbage", times=1)
    assert len(desk.broker.positions()) == 2


def test_F17_F18_canceling_what_has_filled_is_no_error(desk):
    desk.trade(desk.plans(1))
    desk.broker.cancel(next(iter(desk.exchange.orders)))
    with pytest.raises(Rejected):
        desk.broker.cancel("no-such-order")


def test_F16_every_order_is_listed_beyond_one_page(desk):
    symbol = desk.plans(1)[0][0].intent.symbol
    for n in range(620):
        desk.exchange.handle("POST", "/v2/orders", {}, f'{{"symbol":"{symbol}","qty":"1","side":"buy","type":"limit","limit_price":"1.00","time_in_force":"day","client_order_id":"o{n}"}}'.encode())
        if n % 50 == 0:
            desk.exchange.advance_to(desk.exchange.now + timedelta(milliseconds=1))
    found = desk.broker.orders(after=START - timedelta(days=1))
    assert len({o.order_id for o in found}) == len(desk.exchange.orders) == 620


@pytest.mark.parametrize("moment", ["before_sending", "while_sending", "after_reply"])
def test_F53_a_process_that_dies_around_a_post_finds_its_orders_again(moment, desk):
    plans = desk.plans(3)
    desk.engine.plan(plans)
    submit = desk.broker.submit

    class Died(BaseException):
        "Stands for SIGKILL: no handler of the engine may see it."

    def dies(body):
        if desk.posts() == 1:
            if moment == "while_sending":
                submit(body)
            if moment in ("before_sending", "while_sending"):
                raise Died
        answer = submit(body)
        if moment == "after_reply" and desk.posts() == 2:
            raise Died
        return answer

    desk.broker.submit = dies
    with pytest.raises(Died):
        desk.engine.work(START.date(), END)
    desk.restart()
    desk.engine.work(START.date(), END)
    desk.check(orders=3)
    assert all(o.state is OrderState.FILLED for o in desk.ledger.orders())


def test_a_refused_entry_is_never_sent(tmp_path):
    def no(intent, quote, batch=()):
        return Decision(intent.intent_id, (Check("breaker_state", False, "HALTED"),))

    desk = Desk(tmp_path, gate=no)
    try:
        desk.trade(desk.plans())
        assert desk.posts() == 0
        assert {p["refused"] for p in desk.ledger.parents()} == {"breaker_state"}
    finally:
        desk.close()


def test_a_gate_that_closes_after_the_plan_stops_what_was_not_sent(tmp_path):
    open_gate = {"yes": True}

    def gate(intent, quote, batch=()):
        return Decision(intent.intent_id, (Check("breaker_state", open_gate["yes"], ""),))

    desk = Desk(tmp_path, gate=gate)
    try:
        plans = desk.plans()
        desk.engine.plan(plans)
        open_gate["yes"] = False
        desk.engine.work(START.date(), END)
        assert desk.posts() == 0
        assert {o.state for o in desk.ledger.orders()} == {OrderState.DENIED}
    finally:
        desk.close()


def test_a_large_order_is_worked_in_slices_that_survive_a_restart(desk):
    symbol = max(desk.broker.quotes(desk.panel.symbols).values(), key=lambda q: q.midpoint * (q.spread_bps < 25)).symbol
    quote = desk.broker.quotes([symbol])[symbol]
    quantity = Decimal(int(30_000 / quote.midpoint))
    intent = OrderIntent(intent_key("t", START.date(), symbol, Side.BUY, Purpose.ENTRY), "t", START.date(), symbol, Side.BUY, quantity, Purpose.ENTRY, quote.midpoint)
    desk.engine.plan([(plan_order(intent, quote, desk.clock.now(), END, QUICK), yes(intent, quote))])
    slept = desk.clock.sleep

    def sleep(seconds):
        if desk.clock.now() > START + timedelta(seconds=200):
            raise KeyboardInterrupt
        slept(seconds)

    desk.engine.clock.sleep = sleep
    with pytest.raises(KeyboardInterrupt):
        desk.engine.work(START.date(), END)
    desk.clock.sleep = slept
    desk.restart()
    desk.engine.work(START.date(), END)
    orders = desk.ledger.orders()
    assert len(plan_of(desk.ledger.parents()[0]).children) == 3 == len({o.seq for o in orders})
    assert sum(o.filled_quantity for o in orders) == quantity
    times = sorted(o.created_at for o in desk.exchange.orders.values())
    assert times[-1] - times[0] >= timedelta(seconds=590)
    assert desk.engine.tracker.reconcile() == ()


def test_liquidation_isolates_a_symbol_that_cannot_be_sold(desk):
    desk.trade(desk.plans(4))
    stuck = sorted(desk.exchange.holdings)[1]
    submit = desk.broker.submit

    def refuses(body):
        if stuck in body:
            raise Rejected(f"{stuck} is halted", 403, 40310000)
        return submit(body)

    desk.broker.submit = refuses
    report = liquidate(desk.engine, "kill-1", max_rounds=12)
    assert report["flat"] is False and list(report["left"]) == [stuck] and len(report["sold"]) == 3
    desk.broker.submit = submit
    assert liquidate(desk.engine, "kill-2")["flat"] is True


def test_no_order_is_patched_and_no_post_is_unknown_to_the_ledger(desk, monkeypatch):
    seen = []
    handle = desk.exchange.handle
    monkeypatch.setattr(desk.exchange, "handle", lambda m, p, q, b=b"": (seen.append((m, p, b, desk.ledger.orders(states=[OrderState.SENDING]))), handle(m, p, q, b))[1])
    desk.trade(desk.plans())
    posts = [(json.loads(body)["client_order_id"], {o.client_order_id for o in sending}) for method, path, body, sending in seen if method == "POST"]
    assert len(posts) == 4 and all(sent in sending for sent, sending in posts)
    assert "PATCH" not in {m for m, *_ in seen}


def test_an_answer_is_certain_only_when_it_can_be_read(desk):
    desk.server.faults.add("GET", "/v2/account", "error", times=3, status=503)
    with pytest.raises(Ambiguous):
        desk.broker.account()
    desk.broker.trading._api_key = ""
    with pytest.raises((AuthLost, Ambiguous)):
        desk.broker.account()
