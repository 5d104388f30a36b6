"""What the ledger does with things it did not order: flows, splits, trades at the broker's page, lost records.

Every test runs the whole desk over the official client on the simulated exchange. F-numbers are rows of the fault catalogue.
"""

import json
import math
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import pytest

from v23.accounting import round_trips
from v23.adapters.ledger import Ledger
from v23.domain import BrokerOrder, OrderIntent, Purpose, Side
from v23.errors import InputError, StateError
from v23.exchange_host import ExchangeConfig, ExchangeHost, opening_instant
from v23.execution.order_lifecycle import intent_key
from v23.execution.order_routing import plan_order
from v23.execution_engine import foreign_orders
from v23.market_calendar import next_session, session_hours
from v23.simulator.faults import Scenario
from v23.simulator.market import Split
from v23.synthetic_market import synthetic_panel
from v23.trading_desk import exposures, flow_since_close, open_desk

PANEL = synthetic_panel(3, 40, date(2025, 10, 1), date(2026, 2, 27))
DAY = date(2026, 1, 20)
A, B, C = PANEL.symbols[:3]


@contextmanager
def exchange(tmp_path, **scenario):
    config = ExchangeConfig("", 3, opening_instant(DAY), Decimal(100_000))
    with ExchangeHost(tmp_path / "state", config, panel=PANEL, scenario=Scenario(**scenario)) as host:
        yield host


def opened(tmp_path, host):
    return open_desk(state=tmp_path / "state", reports=tmp_path / "reports", host=host)


def wish(desk, symbol, shares, purpose=Purpose.ENTRY, note=""):
    side = Side.BUY if purpose is Purpose.ENTRY else Side.SELL
    session, quote = desk.session(), desk.broker.quotes([symbol])[symbol]
    return OrderIntent(intent_key("test", session, symbol, side, purpose, note), "test", session, symbol, side, Decimal(shares), purpose, quote.midpoint), quote


def decision(desk, symbol, shares=5, purpose=Purpose.ENTRY):
    intent, quote = wish(desk, symbol, shares, purpose)
    return desk.gate(intent, quote)


def trade(desk, symbol, shares, purpose=Purpose.ENTRY, note=""):
    intent, quote = wish(desk, symbol, shares, purpose, note)
    end = session_hours(desk.session()).window(desk.settings.risk)[1]
    made = plan_order(intent, quote, desk.clock.now(), end, desk.settings.execution)
    allowed = desk.gate(intent, quote)
    assert allowed.allowed, [c.detail for c in allowed.checks if c.binding and not c.passed]
    desk.engine.plan([(made, allowed)])
    desk.engine.work(desk.session(), end)


def until_tomorrow(desk):
    desk.wait_until(session_hours(next_session(desk.session())).open - timedelta(minutes=10))


def codes(desk):
    return [e.body["code"] for e in desk.ledger.events("error")]


def manual_order(host, symbol, qty, side, client_order_id=None):
    body = {"symbol": symbol, "qty": str(qty), "side": side, "type": "market", "time_in_force": "day"}
    body |= {"client_order_id": client_order_id} if client_order_id else {}
    assert host.exchange.handle("POST", "/v2/orders", {}, json.dumps(body).encode()).status == 200
    host.exchange.advance_by(60)


def test_nothing_is_bought_before_the_books_are_compared(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.wait_until(session_hours(DAY).open + timedelta(minutes=10))
        desk.look(DAY)
        refused = decision(desk, A)
        assert refused.reasons == ("breaker_state",) and "not settled" in refused.checks[0].detail
        desk.ready(DAY)
        assert decision(desk, A).allowed


def test_F45_a_trade_at_the_brokers_page_is_booked_and_counts_as_exposure(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        manual_order(host, A, 4, "sell")
        manual_order(host, B, 7, "buy")
        findings, stops = desk.reconcile(DAY)
        assert desk.booked_positions() == {A: 6, B: 7} and stops == [] and codes(desk).count("FOREIGN_TRADE") == 2
        assert len(findings) == 2 and all("not in the ledger" in f for f in findings)
        desk.look(DAY)
        quote = desk.broker.quotes([B])[B]
        value = desk.gate.context(wish(desk, B, 1)[0], quote, ()).position_value
        assert value == pytest.approx(7 * quote.midpoint, rel=0.01)
        assert decision(desk, A).allowed


def test_F45_an_open_order_of_somebody_else_counts_as_exposure_until_it_is_gone(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        desk.look(DAY)
        quote = desk.broker.quotes([B])[B]
        value = lambda: desk.gate.context(wish(desk, B, 1)[0], quote, ()).position_value  # noqa: E731
        body = {"symbol": B, "qty": "700", "side": "buy", "type": "limit", "limit_price": f"{quote.bid * 0.8:.2f}", "time_in_force": "gtc"}
        placed = host.exchange.handle("POST", "/v2/orders", {}, json.dumps(body).encode())
        assert placed.status == 200 and value() == 0
        for _ in range(2):  # written down once, however often the books are compared
            desk.reconcile(DAY)
        assert value() == pytest.approx(700 * quote.midpoint, rel=0.01) and len(list(desk.ledger.events("foreign_orders"))) == 1
        desk.broker.cancel(json.loads(placed.body)["id"])
        host.exchange.advance_by(60)
        desk.reconcile(DAY)
        assert value() == 0 and foreign_orders(desk.ledger) == ()


def test_F45_the_shares_of_an_order_by_amount_are_unknown_and_nothing_is_added_to_them():
    order = BrokerOrder("1", "", A, Side.BUY, "new", Decimal(0), Decimal(0), None, "market", None, None, None)
    assert math.isnan(exposures({}, (), {A: 10.0}, [order])[A])


def test_F24_an_order_in_our_name_that_nobody_planned_is_safe_mode_until_a_person_accepts_it(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        manual_order(host, B, 3, "buy", "v23-s-0-20260120-nobodyplannedthis")
        _, stops = desk.reconcile(DAY)
        desk.look(DAY)
        assert stops and "ORPHAN_ORDER" in codes(desk)
        refused = decision(desk, C)
        assert not refused.allowed and "not in the ledger" in refused.checks[0].detail
        assert decision(desk, A, 10, Purpose.EXIT).allowed  # what is held may always be sold
        with pytest.raises(InputError, match="a reason"):
            desk.accept("Ada", " ")
        told = desk.accept("Ada", "the desk before the restore sent it")
        assert len(told) == 1 and desk.booked_positions() == {A: 10, B: 3}
        desk.look(DAY)
        assert decision(desk, C).allowed and desk.reconcile(DAY) == ([], [])


def test_F57_a_deleted_ledger_is_safe_mode_and_the_shares_are_accepted_not_traded(tmp_path):
    with exchange(tmp_path) as host:
        with opened(tmp_path, host) as desk:
            desk.market_open()
            trade(desk, A, 50)
            desk.save_state()
        sent = len(host.exchange.orders)
        for left in (tmp_path / "state" / "execution").glob("ledger.sqlite3*"):
            left.unlink()
        with opened(tmp_path, host) as desk:
            desk.ready(DAY)
            desk.look(DAY)
            refused = decision(desk, C)
            assert not refused.allowed and "deleted" in refused.checks[0].detail
            desk.accept("Ada", "the disk was replaced")
            desk.look(DAY)
            assert desk.booked_positions() == {A: 50} and decision(desk, C).allowed
        assert len(host.exchange.orders) == sent


def test_shares_nobody_can_explain_quarantine_their_symbol_only(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        desk.look(DAY)
        trade(desk, B, 10)
        positions, extra = desk.broker.positions, {A: -4}
        desk.broker.positions = lambda: tuple(replace(p, quantity=p.quantity + extra.get(p.symbol, 0), quantity_available=p.quantity_available + extra.get(p.symbol, 0)) for p in positions())
        _, stops = desk.reconcile(DAY)
        desk.look(DAY)
        assert stops == [] and "QUARANTINE" in codes(desk)
        refused = decision(desk, A)
        assert not refused.allowed and "quarantined" in refused.checks[0].detail and decision(desk, B).allowed and decision(desk, C).allowed
        assert decision(desk, A, 6, Purpose.EXIT).allowed and not decision(desk, A, 7, Purpose.EXIT).allowed  # what the broker has of it
        desk.broker.positions = positions
        desk.reconcile(DAY)
        assert decision(desk, A).allowed


def test_a_tenth_of_the_account_unexplained_stops_everything(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        positions, price = desk.broker.positions, float(desk.broker.positions()[0].current_price)
        many = Decimal(int(11_000 / price))
        desk.broker.positions = lambda: tuple(replace(p, quantity=p.quantity + many) for p in positions())
        _, stops = desk.reconcile(DAY)
        desk.look(DAY)
        assert len(stops) == 1 and "of equity" in stops[0] and not decision(desk, C).allowed
        assert decision(desk, A, 10, Purpose.EXIT).allowed


def test_F41_a_short_position_stops_everything(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        positions = desk.broker.positions
        desk.broker.positions = lambda: tuple(replace(p, quantity=Decimal(-1)) for p in positions())
        _, stops = desk.reconcile(DAY)
        assert any("short" in s for s in stops)


def test_F22_positions_that_lag_the_orders_are_looked_at_again(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        positions, looks = desk.broker.positions, []
        desk.broker.positions = lambda: looks.append(1) or (() if len(looks) < 3 else positions())
        assert desk.reconcile(DAY) == ([], [])


@pytest.mark.parametrize("ratio", [Decimal(2), Decimal("0.5")])
def test_F34_a_split_over_night_is_explained_and_no_trade_lost(ratio, tmp_path):
    tomorrow = next_session(DAY)
    with exchange(tmp_path, events=(Split(A, tomorrow, ratio),)) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 40)
        desk.market_close()
        until_tomorrow(desk)
        opened_again = desk.market_open()
        assert opened_again["stops"] == [] == opened_again["findings"] and desk.booked_positions() == {A: 40 * ratio}
        assert desk.breakers.get_status()["entries_allowed"] and not desk.kill.is_active
        trade(desk, A, 40 * ratio, Purpose.EXIT)
        (trip,) = round_trips([replace(f, at=f.at) for f in desk.ledger.fills()], desk.ledger.adjustments())[:1]
        assert abs(trip.trade_return) < 0.2 and desk.booked_positions() == {}


@pytest.mark.parametrize(("kind", "amount"), [("CSD", 50_000), ("CSW", 30_000), ("JNLC", -25_000)])
def test_F66_money_that_comes_or_goes_is_no_profit_and_no_loss(kind, amount, tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        host.exchange.flow(kind, Decimal(amount))
        desk.look(DAY)
        reading = desk.breakers.reading
        assert abs(reading.daily) < 0.01 and abs(reading.drawdown) < 0.01 and desk.breakers.state.name == "NORMAL"
        desk.market_close()
        closed = desk.closing(DAY)
        assert closed["flow"] == (-amount if kind == "CSW" else amount)
        assert abs(desk.dashboard.get_metrics()["daily_pnl"]) < 1_000
        until_tomorrow(desk)
        desk.market_open()
        assert flow_since_close(desk.ledger, desk.broker.account(), next_session(DAY)) == 0.0
        assert abs(desk.breakers.reading.drawdown) < 0.02 and abs(desk.breakers.reading.weekly) < 0.02


def test_F66_a_withdrawal_after_the_close_is_counted_on_the_next_day(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        desk.market_close()
        host.exchange.flow("CSW", Decimal(40_000))
        until_tomorrow(desk)
        desk.market_open()
        assert desk.breakers.reading.daily == pytest.approx(0.0, abs=1e-9) and desk.breakers.state.name == "NORMAL"


def test_F66_the_account_knows_of_a_withdrawal_before_the_list_of_activities_does(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        desk.broker.activities = lambda after: ()
        host.exchange.flow("CSW", Decimal(40_000))
        desk.look(DAY)
        assert desk.breakers.reading.daily == pytest.approx(0.0, abs=1e-9) and not desk.kill.is_active


def test_F13_another_account_is_refused_before_anything_is_sent(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        until_tomorrow(desk)
        account = desk.broker.account
        desk.broker.account = lambda: replace(account(), account_id="another-account")
        with pytest.raises(StateError, match="another --state"):
            desk.market_open()
        assert desk.gate.ready is False


def test_F35_a_company_that_changes_its_symbol_takes_its_shares_along(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        desk.reconcile(DAY)
        positions = desk.broker.positions
        desk.broker.positions = lambda: tuple(replace(p, symbol="NEWNAME") for p in positions())
        assert desk.reconcile(DAY) == ([], []) and desk.booked_positions() == {"NEWNAME": 10}


def test_the_broker_is_told_never_to_short_and_to_refuse_everything_after_a_kill(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        told = host.exchange.configurations
        assert (told["no_shorting"], told["max_margin_multiplier"], told["suspend_trade"]) == (True, "1", False)
        trade(desk, A, 10)
        assert desk.kill.activate("test")["flat"] is True and host.exchange.configurations["suspend_trade"] is True
        desk.look(DAY)
        assert "suspended" in "; ".join(desk.gate.pauses())
        manual = host.exchange.handle("POST", "/v2/orders", {}, json.dumps({"symbol": B, "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}).encode())
        assert manual.status == 403
        desk.reconcile(DAY)
        desk.kill.deactivate(f"CONFIRM-{DAY:%Y%m%d}")
        assert host.exchange.configurations["suspend_trade"] is False
        desk.kill.resume("Ada", "it was a test")
        desk.look(DAY)
        assert decision(desk, B).allowed


def test_a_ledger_with_accepted_differences_verifies_and_says_who(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        positions = desk.broker.positions
        desk.broker.positions = lambda: tuple(replace(p, quantity=p.quantity - 2) for p in positions())
        desk.accept("Ada", "two shares went to another account")
        assert desk.booked_positions() == {A: 8} and desk.ledger.verify() > 0
        assert desk.ledger.last("accepted").body["who"] == "Ada"
    ledger = Ledger(tmp_path / "state" / "execution" / "ledger.sqlite3", desk.clock)
    assert ledger.positions() == {A: 8}
    ledger.close()


def test_F6_a_broker_that_asks_to_be_left_alone_is_and_it_is_no_error(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        host.server.faults.add("GET", "/v2/positions", "429")
        began = desk.clock.now()
        desk.look(DAY)
        assert (desk.clock.now() - began).total_seconds() >= 1 and desk.broker.trouble == ""
        assert [e.body for e in desk.ledger.events("error") if e.body["kind"] == "api"] == []


def test_F6_while_the_broker_is_to_be_left_alone_nothing_is_bought(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        intent, quote = wish(desk, A, 5)
        desk.broker.budget.hold(20)
        assert "left alone" in desk.gate(intent, quote).checks[0].detail and not desk.gate(intent, quote).allowed
        desk.clock.sleep(20)
        desk.look(DAY)
        assert decision(desk, A).allowed


def test_F7_an_account_that_cannot_be_read_stops_entries_and_is_never_read_as_flat(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        host.server.faults.add("GET", "/v2/account", "error", times=50)
        desk.clock.sleep(31)
        assert desk.look_again() is False and desk.booked_positions() == {A: 10}
        refused = decision(desk, B)
        assert not refused.allowed and "last read" in refused.checks[0].detail
        assert decision(desk, A, 10, Purpose.EXIT).allowed


def test_F12_keys_that_are_refused_are_offered_once_a_minute_and_stop_entries(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        intent, quote = wish(desk, A, 5)
        host.server.faults.add("GET", "/v2/account", "auth", times=1)
        desk.clock.sleep(16)
        assert desk.look_again() is False
        asked = host.server.shell.requests
        for _ in range(3):
            desk.clock.sleep(16)
            assert desk.look_again() is False
        assert host.server.shell.requests == asked  # not offered again
        assert "refused our keys" in desk.gate(intent, quote).checks[0].detail and "LOOK_FAILED" in codes(desk)
        assert {e.body["kind"] for e in desk.ledger.events("error")} == {"critical"}
        desk.clock.sleep(16)
        assert desk.look_again() is True and desk.broker.trouble == ""


def test_a_kill_between_the_plan_and_the_request_lets_no_entry_leave(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        submit, sent = desk.broker.submit, []

        def submit_and_kill(body, client=None):
            answer = submit(body)
            if not sent:
                desk.kill.sentinel.write_text("somebody pressed the button\n")
            sent.append(body)
            return answer

        desk.broker.submit = submit_and_kill
        end, items = session_hours(DAY).window(desk.settings.risk)[1], []
        for symbol in (A, B, C):
            intent, quote = wish(desk, symbol, 3)
            items.append((plan_order(intent, quote, desk.clock.now(), end, desk.settings.execution), desk.gate(intent, quote)))
        desk.engine.plan(items)
        desk.engine.work(DAY, end)  # ends at once: the rest is the kill's
        desk.clock.sleep(5)
        desk.engine.tracker.poll()
        states = {o.symbol: o.state.value for o in desk.ledger.orders()}
        assert len(sent) == 1 and sorted(states.values()) == ["denied", "denied", "filled"]


def test_the_dry_plan_sends_nothing_and_is_what_the_rebalance_then_sends(tmp_path):
    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", seed=7) as desk:
        session = desk.session()
        desk.market_open()
        desk.wait_until(session_hours(session).rebalance_at(desk.settings.monitoring))
        before = desk.ledger.parents(), desk.ledger.orders(), desk.broker.orders(desk.clock.now() - timedelta(days=2))
        rows = desk.dry_plan()
        assert before == (desk.ledger.parents(), desk.ledger.orders(), desk.broker.orders(desk.clock.now() - timedelta(days=2))) == ((), (), ())
        desk.rebalance()
        assert [(r["symbol"], r["side"], str(r["quantity"])) for r in rows] == [(p["symbol"], p["side"], p["quantity"]) for p in desk.ledger.parents()] and len(rows) > 4
        spent = {o.symbol: o.side.sign * (o.filled_avg_price or 0) * o.filled_quantity for o in desk.ledger.orders()}
        assert all(float(spent[r["symbol"]]) <= r["worst_price"] * float(r["quantity"]) * 1.02 for r in rows if r["sent"] and r["symbol"] in spent)


def test_a_notebook_trades_to_target_weights_with_the_fewest_orders(tmp_path):
    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        desk.rebalance_to({A: 0.05, B: 0.08})
        worth = {p.symbol: float(p.market_value) / 100_000 for p in desk.broker.positions()}
        assert worth.keys() == {A, B} and worth[A] == pytest.approx(0.05, abs=0.005) and worth[B] == pytest.approx(0.08, abs=0.005)
        desk.clock.sleep(60)
        sent = len(desk.ledger.orders())
        desk.rebalance_to({A: 0.05})
        assert {o.symbol for o in desk.ledger.orders()[sent:]} == {B}
        for weights, said in (({A: 0.2}, "0 to 0.1"), ({A: float("nan")}, "nan"), ({"NOSUCH": 0.01}, "NOSUCH")):
            with pytest.raises(InputError, match=said):
                desk.rebalance_to(weights)


def test_F33_a_held_name_the_broker_takes_no_orders_for_is_named_once_and_keeps_the_kill_from_nothing_else(tmp_path, monkeypatch):
    import v23.simulator.rules as rules

    with exchange(tmp_path) as host, opened(tmp_path, host) as desk:
        desk.market_open()
        trade(desk, A, 10)
        trade(desk, B, 10)
        monkeypatch.setattr(rules, "tradable", lambda x, symbol: symbol != A)
        monkeypatch.setattr("v23.simulator.trading.tradable", lambda x, symbol: symbol != A)
        report = desk.kill.activate("drill")
        assert report["flat"] is False and report["left"] == {A: {"quantity": "10", "reason": "UNTRADABLE"}} and report["sold"] == [B]
        assert codes(desk).count("UNTRADABLE") == 1 and len([o for o in desk.ledger.orders() if o.symbol == A]) == 2  # bought, and one sale refused
        monkeypatch.undo()
        desk.gate.ready = False
        desk.ready(DAY)  # asked again
        assert desk.kill.activate("going on")["flat"] is True
