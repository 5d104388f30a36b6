"Orders of the simulated exchange beyond the plain ones: stops, replacements, shorts, corporate actions, and everything that goes wrong on purpose."

import json
import os
import signal
import subprocess
import sys
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import RFC_4122, UUID

import pytest
import requests
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.requests import GetOrdersRequest, MarketOrderRequest

from v23.errors import InputError, StateError
from v23.exchange_host import Serving, SimulatedExchange
from v23.market_calendar import NEW_YORK, session_hours
from v23.simulator.account import ORDER_FAULTS, Flow, ManualOrder, OrderFault, Terms, fractionable
from v23.simulator.exchange import Exchange
from v23.simulator.faults import FAULT_KINDS, Fault, Scenario, read_scenario
from v23.simulator.market import Dividend, Halt, Split
from v23.simulator.server import LoopbackAdapter, SimulatorServer
from v23.synthetic_market import synthetic_panel

NOON = datetime(2026, 1, 23, 12, 0, tzinfo=NEW_YORK)
PANEL = synthetic_panel(3, 60, date(2025, 10, 1), date(2026, 2, 27))
NAME = next(s for s in PANEL.symbols if fractionable(s) and PANEL.bar(s, NOON.date()).close < 100)


def exchange(start=NOON, cash=100_000, **options):
    return Exchange(PANEL, 3, start, Decimal(cash), **options)


def ask(x, path, method="GET", body=None, **query):
    answer = x.handle(method, path, query, b"" if body is None else json.dumps(body).encode())
    return answer.status, json.loads(answer.body) if answer.body else None


def order(x, side="buy", **more):
    body = {"symbol": NAME, "qty": "10", "side": side, "type": "market", "time_in_force": "day"} | more
    return ask(x, "/v2/orders", "POST", {k: v for k, v in body.items() if v is not None})


def seen(x, placed):
    return ask(x, f"/v2/orders/{placed['id']}")[1]


def position(x):
    return Decimal(ask(x, f"/v2/positions/{NAME}")[1].get("qty", "0"))


def cash(x):
    return Decimal(ask(x, "/v2/account")[1]["cash"])


# stops


def test_a_stop_waits_for_a_trade_at_its_price_and_then_takes_the_market():
    x = exchange()
    path = x.market.path(NAME, NOON.date())
    now = path.index(NOON)
    stop = Decimal(str(round(float(path.price[now:].max()) - 0.01, 2)))
    first = now + int((path.price[now:] >= float(stop)).argmax())
    _, placed = order(x, type="stop", stop_price=str(stop))
    x.advance_to(path.hours.open + timedelta(minutes=first, seconds=-1))
    assert seen(x, placed)["status"] == "new"
    x.advance_by(5)
    done = seen(x, placed)
    assert done["status"] == "filled" and done["stop_price"] == str(stop) and done["type"] == "stop"


def test_a_stop_limit_that_is_jumped_over_rests_at_its_limit():
    x = exchange()
    order(x)
    x.advance_by(5)
    low = float(x.market.path(NAME, NOON.date()).price[x.market.path(NAME, NOON.date()).index(NOON) :].min())
    _, placed = order(x, "sell", type="stop_limit", stop_price=f"{low + 0.02:.2f}", limit_price=f"{low * 1.5:.2f}")
    x.advance_to(session_hours(NOON.date()).close - timedelta(seconds=5))
    assert seen(x, placed)["status"] == "new" and position(x) == 10
    x.advance_by(10)
    assert seen(x, placed)["status"] == "expired"


@pytest.mark.parametrize(("more", "code"), [({"type": "stop"}, 40010001), ({"type": "stop_limit", "stop_price": "1"}, 40010001), ({"type": "stop", "stop_price": "9.999"}, 42210000)])
def test_a_stop_without_its_price_is_refused(more, code):
    assert order(exchange(), **more)[1]["code"] == code


# replacements


def test_a_replacement_takes_the_place_of_a_resting_order():
    x = exchange()
    _, old = order(x, type="limit", limit_price="1.00")
    x.advance_by(1)
    status, new = ask(x, f"/v2/orders/{old['id']}", "PATCH", {"qty": "20", "limit_price": "1.10", "client_order_id": "second"})
    assert (status, new["replaces"], seen(x, old)["status"]) == (200, old["id"], "pending_replace")
    assert Decimal("100000") - Decimal(ask(x, "/v2/account")[1]["buying_power"]) == Decimal("22.0")  # the larger of the two
    assert order(x, "sell")[0] == 403 and ask(x, f"/v2/orders/{old['id']}", "DELETE")[0] == 422
    x.advance_by(1)
    assert (seen(x, old)["status"], seen(x, old)["replaced_by"], seen(x, new)["status"]) == ("replaced", new["id"], "new")
    assert [o["id"] for o in ask(x, "/v2/orders")[1]] == [new["id"]]
    assert [e["event"] for e in x.events] == ["new", "replaced", "new"]


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_the_price_of_an_order_that_is_filled_in_part_may_be_changed(side):
    quote = PANEL.bar(NAME, NOON.date()).close
    quantity, limit = int(exchange().market.quote_at(NAME, NOON).ask_size) * 25, round(quote * 1.5, 2) if side == "buy" else 1.00
    x = exchange(cash=int(quantity * quote * 1.52))
    if side == "sell":
        order(x, qty=str(quantity))
        while position(x) < quantity:
            x.advance_by(60)
    _, old = order(x, side, type="limit", limit_price=str(limit), qty=str(quantity))
    while seen(x, old)["status"] != "partially_filled":
        x.advance_by(0.2)
    filled = int(seen(x, old)["filled_qty"])
    status, new = ask(x, f"/v2/orders/{old['id']}", "PATCH", {"limit_price": str(round(limit + 0.01, 2))})
    assert status == 200, new
    free = Decimal(ask(x, f"/v2/positions/{NAME}")[1]["qty_available"])
    assert free == (0 if side == "sell" else filled)  # What is left is reserved once
    while seen(x, new)["status"] != "filled":
        x.advance_by(60)
    assert abs(position(x)) == (0 if side == "sell" else quantity) and int(seen(x, new)["filled_qty"]) <= quantity - filled


def test_a_replacement_of_what_fills_first_is_rejected():
    x = exchange()
    x.plan_order_fault("slow_fill", seconds=0.01)
    _, old = order(x)
    while seen(x, old)["status"] != "new":
        x.advance_by(0.005)
    assert ask(x, f"/v2/orders/{old['id']}", "PATCH", {"qty": "20"})[0] == 200
    x.advance_by(3)
    statuses = sorted(o["status"] for o in ask(x, "/v2/orders", status="all")[1])
    assert statuses == ["filled", "rejected"] and position(x) == 10


@pytest.mark.parametrize(
    ("body", "message"),
    [({}, "not changed"), ({"qty": "0.5"}, "fractional"), ({"limit_price": "1.001"}, "sub-penny"), ({"notional": "5"}, "notional"), ({"client_order_id": "mine"}, "not changed")],
)
def test_a_replacement_that_cannot_be_is_refused(body, message):
    x = exchange()
    _, old = order(x, type="limit", limit_price="1.00", client_order_id="mine")
    assert ask(x, f"/v2/orders/{old['id']}", "PATCH", {"qty": "20"})[1]["message"] == "cannot replace order in pending_new status"
    x.advance_by(1)
    status, answer = ask(x, f"/v2/orders/{old['id']}", "PATCH", body)
    assert status == 422 and message in answer["message"] and seen(x, old)["status"] == "new"


# shorts


def test_shares_are_sold_short_only_on_margin_and_when_allowed():
    assert order(exchange(), "sell")[1]["message"] == "account is not allowed to short"
    x = exchange(multiplier=2)
    assert order(x, "sell")[1]["message"] == "account is not allowed to short"
    ask(x, "/v2/account/configurations", "PATCH", {"no_shorting": False})
    assert order(x, "sell", qty="0.5")[1]["message"] == "fractional orders cannot be sold short"
    status, placed = order(x, "sell", qty="30")
    assert (status, placed["position_intent"]) == (200, "sell_to_open")
    x.advance_by(5)
    _, held = ask(x, f"/v2/positions/{NAME}")
    account = ask(x, "/v2/account")[1]
    assert (held["qty"], held["side"], Decimal(account["short_market_value"]) < 0) == ("-30", "short", True)
    assert abs(Decimal(account["equity"]) - 100_000) < 50 and Decimal(account["cash"]) > 100_000
    assert order(x, "buy", qty="31")[1]["available"] == "30"
    assert ask(x, f"/v2/positions/{NAME}", "DELETE")[1]["position_intent"] == "buy_to_close"
    x.advance_by(5)
    assert ask(x, "/v2/positions")[1] == []


def test_the_margin_stays_within_the_accounts_terms():
    x = exchange(multiplier=2)
    assert ask(x, "/v2/account")[1]["buying_power"] == "200000"
    assert ask(x, "/v2/account/configurations", "PATCH", {"max_margin_multiplier": "4"})[0] == 422
    ask(x, "/v2/account/configurations", "PATCH", {"max_margin_multiplier": "1"})
    assert ask(x, "/v2/account")[1]["buying_power"] == "100000"


# what befalls the market


def test_F34_a_split_changes_prices_at_once_and_shares_after_the_lag():
    session = date(2026, 1, 26)
    x = exchange(scenario=Scenario(events=(Split(NAME, session, Decimal(2)),), split_lag_s=6 * 3600))
    order(x, qty="100")
    order(x, type="limit", limit_price="1.00", time_in_force="gtc", symbol=NAME)
    x.advance_by(10)
    before = float(ask(x, f"/v2/positions/{NAME}")[1]["current_price"])
    x.advance_to(session_hours(session).open + timedelta(minutes=5))
    lagging = ask(x, f"/v2/positions/{NAME}")[1]
    assert lagging["qty"] == "100" and 0.4 < float(lagging["current_price"]) / before < 0.6
    x.advance_to(session_hours(session).open + timedelta(hours=1))
    assert position(x) == 200 and ask(x, "/v2/account/activities/SPLIT")[1][0]["qty"] == "100"
    assert ask(x, "/v2/orders")[1] == []  # what rested on the old price is gone


def test_a_dividend_is_paid_to_who_held_over_night():
    session = date(2026, 1, 26)
    x = exchange(scenario=Scenario(events=(Dividend(NAME, session, Decimal("0.25")),)))
    order(x, qty="100")
    x.advance_by(10)
    before = cash(x)
    x.advance_to(session_hours(session).open)
    row = ask(x, "/v2/account/activities", activity_types="DIV")[1][0]
    assert cash(x) - before == 25 and (row["net_amount"], row["per_share_amount"], row["symbol"]) == ("25", "0.25", NAME)


def test_F32_nothing_trades_in_a_halt():
    x = exchange(scenario=Scenario(events=(Halt(NAME, NOON - timedelta(minutes=5), NOON + timedelta(minutes=10)),)))
    _, placed = order(x)
    x.advance_by(500)
    assert seen(x, placed)["status"] == "new"
    x.advance_by(200)
    assert seen(x, placed)["status"] == "filled" and seen(x, placed)["filled_at"] >= "2026-01-23T17:10:00"


def test_F66_money_comes_and_goes_by_schedule_and_on_demand():
    x = exchange(scenario=Scenario(events=(Flow(NOON + timedelta(hours=1), "CSD", Decimal("1000.50")),)))
    x.advance_by(3600)
    x.flow("CSW", Decimal(400))
    x.flow("JNLC", Decimal("-0.50"))
    account = ask(x, "/v2/account")[1]
    assert (account["cash"], account["intraday_adjustments"]) == ("100600", "600")
    assert [a["net_amount"] for a in ask(x, "/v2/account/activities", activity_types="TRANS", direction="asc")[1]] == ["1000.5", "-400"]
    for kind, amount, text in (("CSW", 10**7, "holds"), ("CSD", -5, "CSD is -5"), ("XYZ", 5, "XYZ")):
        with pytest.raises(InputError, match=text):
            x.flow(kind, Decimal(amount))


def test_F45_somebody_trades_by_hand():
    x = exchange(scenario=Scenario(events=(ManualOrder(NOON + timedelta(minutes=1), NAME, "buy", Decimal(7)), ManualOrder(NOON, "NOPE", "buy", Decimal(7)))))
    x.advance_by(70)
    assert position(x) == 7 and len(ask(x, "/v2/orders", status="all")[1]) == 1


def test_a_large_order_moves_the_price_and_runs_out_of_volume():
    x = exchange(cash=100_000_000)
    quote = x.market.quote_at(NAME, NOON)
    _, placed = order(x, qty=str(int(quote.ask_size) * 25))
    x.advance_by(45)
    part = seen(x, placed)
    assert part["status"] == "partially_filled"
    x.advance_to(session_hours(NOON.date()).close)
    prices = [Decimal(e["price"]) for e in x.events if e["event"] in ("fill", "partial_fill")]
    bar = PANEL.bar(NAME, NOON.date())
    assert prices[1] > prices[0] and all(Decimal(str(round(bar.low, 2))) <= p <= Decimal(str(round(bar.high, 2))) for p in prices)
    minutes = {}
    for e in x.events:
        if e["event"] in ("fill", "partial_fill"):
            minutes[e["timestamp"][:16]] = minutes.get(e["timestamp"][:16], 0) + int(e["qty"])
    assert max(minutes.values()) <= 10 * max(int(x.market.path(NAME, NOON.date()).size.max()), 1)


def test_orders_of_the_night_meet_the_opening_auction():
    x = exchange(start=datetime(2026, 1, 23, 8, 0, tzinfo=NEW_YORK))
    _, market = order(x)
    _, limit = order(x, type="limit", limit_price=f"{PANEL.bar(NAME, NOON.date()).open * 1.3:.2f}")
    x.advance_to(session_hours(NOON.date()).open + timedelta(seconds=5))
    opened = Decimal(str(round(PANEL.bar(NAME, NOON.date()).open, 4)))
    assert [Decimal(seen(x, o)["filled_avg_price"]) for o in (market, limit)] == [opened, opened]


# order faults, each by its effect


def faulty(kind, **options):
    x = exchange()
    x.plan_order_fault(kind, **options)
    return x, order(x)[1]


def test_F31_an_order_is_rejected_after_it_was_accepted():
    x, placed = faulty("reject")
    x.advance_by(1)
    after = seen(x, placed)
    assert placed["status"] == "pending_new" and after["status"] == "rejected" and after["failed_at"] and x.events[-1]["event"] == "rejected"


def test_F42_an_order_never_fills():
    x, placed = faulty("no_fill")
    x.advance_by(3600)
    assert seen(x, placed)["status"] == "new"


def test_an_order_fills_late():
    x, placed = faulty("slow_fill", seconds=60)
    x.advance_by(50)
    assert seen(x, placed)["status"] == "new"
    x.advance_by(20)
    assert seen(x, placed)["status"] == "filled"


def test_F27_a_part_trades_and_the_exchange_cancels_the_rest():
    x, placed = faulty("partial_then_cancel")
    x.advance_by(5)
    assert (seen(x, placed)["status"], seen(x, placed)["filled_qty"], position(x)) == ("canceled", "5", 5)


def resting(kind, **options):
    x = exchange()
    x.plan_order_fault(kind, **options)
    _, placed = order(x, type="limit", limit_price="1.00")
    x.advance_by(1)
    assert ask(x, f"/v2/orders/{placed['id']}", "DELETE")[0] == 204
    return x, placed


def test_a_cancel_hangs():
    x, placed = resting("hang_cancel", seconds=600)
    x.advance_by(590)
    assert seen(x, placed)["status"] == "pending_cancel" and ask(x, f"/v2/orders/{placed['id']}", "DELETE")[0] == 422
    x.advance_by(20)
    assert seen(x, placed)["status"] == "canceled"


def test_F17_an_order_fills_between_the_cancel_and_its_confirmation():
    x, placed = resting("fill_on_cancel")
    x.advance_by(5)
    assert seen(x, placed)["status"] == "filled" and position(x) == 10


def test_F28_shares_trade_after_the_order_was_canceled():
    x, placed = resting("late_fill", seconds=30)
    x.advance_by(5)
    assert (seen(x, placed)["status"], seen(x, placed)["filled_qty"]) == ("canceled", "0")
    x.advance_by(60)
    assert (seen(x, placed)["status"], seen(x, placed)["filled_qty"], position(x)) == ("canceled", "10", 10)


def test_F30_one_share_more_than_ordered_trades():
    x, placed = faulty("overfill")
    x.advance_by(5)
    assert (seen(x, placed)["status"], seen(x, placed)["filled_qty"], position(x)) == ("filled", "11", 11)


def test_F26_an_execution_is_taken_back():
    x, placed = faulty("bust", seconds=30)
    x.advance_by(10)
    assert position(x) == 10
    x.advance_by(30)
    assert position(x) < 10 and x.events[-1]["event"] == "trade_bust"
    row = ask(x, "/v2/account/activities/FILL")[1][0]
    assert row["type"] == "trade_bust" and row["previous_id"] in {a["id"] for a in ask(x, "/v2/account/activities/FILL")[1]}
    assert Decimal(seen(x, placed)["filled_qty"]) == position(x)


def test_F26_the_price_of_an_execution_is_corrected():
    x, placed = faulty("correct", seconds=30)
    x.advance_by(10)
    before, price = cash(x), Decimal(seen(x, placed)["filled_avg_price"])
    x.advance_by(30)
    assert cash(x) < before and Decimal(seen(x, placed)["filled_avg_price"]) > price and position(x) == 10


def test_F11_an_order_has_a_status_nobody_has_heard_of():
    x, placed = faulty("strange")
    assert placed["status"] == "pending_settlement_2031" and placed["introduced_later"] == {"level": 3}
    x.advance_by(5)
    assert seen(x, placed)["status"] == "filled"


def test_every_order_fault_is_kept_in_the_journal(tmp_path):
    kept = tmp_path / "journal.jsonl"
    x = exchange(journal=kept)
    for n, kind in enumerate(ORDER_FAULTS):
        x.plan_order_fault(kind, seconds=3)
        order(x, qty=str(n + 1), client_order_id=f"mine-{n}")
        x.advance_by(10)
    x.flow("CSD", Decimal(5))
    told, digest = ask(x, "/v2/account")[1], x.event_digest()
    x.close()
    again = exchange(journal=kept)
    assert (ask(again, "/v2/account")[1], again.event_digest()) == (told, digest)
    again.close()
    with pytest.raises(StateError, match="order_faults"):
        exchange(journal=kept, scenario=Scenario(order_faults=(OrderFault("bust"),)))


def test_a_profile_makes_orders_go_wrong_the_same_way_for_a_seed():
    def run():
        x = exchange(scenario=Scenario(profile="wild"), cash=10_000_000)
        for _ in range(120):
            order(x, symbol=NAME)
            x.advance_by(7)
        return x

    a, b = run(), run()
    ends = {o["status"] for o in ask(a, "/v2/orders", status="all", limit="500")[1]}
    assert a.event_digest() == b.event_digest() and "rejected" in ends


# faults between exchange and client, through the official client over real sockets


def client_meets(kind, path="/v2/account", method="GET", call=lambda c: c.get_account(), **options):
    x = exchange()
    with SimulatorServer(x) as server:
        client = TradingClient("k", "s", url_override=server.url)
        client._retry = 0
        call(client)
        server.faults.add(method, path, kind, **options)
        try:
            return x, call(client), server.faults.log
        except (APIError, requests.RequestException, ValueError, TypeError) as e:
            return x, e, server.faults.log


@pytest.mark.parametrize(
    ("kind", "sign"),
    [("error", "APIError"), ("auth", "APIError"), ("429", "APIError"), ("429_bare", "APIError"), ("drop", "ConnectionError"), ("redirect", "TypeError"),
     ("accept_then_error", "APIError"), ("accept_then_hang_up", "ConnectionError"), ("half_body", "ChunkedEncodingError"), ("garbage", "JSONDecodeError"),
     ("malformed", "JSONDecodeError"), ("empty", "TypeError"), ("huge", "ValidationError"), ("new_fields", "TradeAccount"), ("stale", "TradeAccount")],
)  # fmt: skip
def test_what_the_official_client_makes_of_a_fault(kind, sign):
    _, answer, log = client_meets(kind)
    assert type(answer).__name__ == sign, repr(answer)
    assert [(h.number, h.kind, h.method, h.path, h.at) for h in log] == [(1, kind, "GET", "/v2/account", NOON)]


def test_F1_silence_and_then_a_closed_connection():
    _, answer, _ = client_meets("accept_then_hang", seconds=0.3)
    assert type(answer).__name__ == "ConnectionError"


def test_F9_a_body_that_drips_takes_its_time():
    import time

    began = time.monotonic()
    _, answer, _ = client_meets("drip", seconds=2)
    assert type(answer).__name__ == "TradeAccount" and time.monotonic() - began > 1.5


def test_F14_a_skewed_clock_tells_another_time():
    _, clock, _ = client_meets("clock_skew", "/v2/clock", call=lambda c: c.get_clock(), seconds=-45)
    assert clock.timestamp == NOON - timedelta(seconds=45)


def test_the_log_names_the_order_of_every_fault():
    x = exchange()
    client = TradingClient("k", "s", url_override="http://simulated")
    client._session.mount("http://simulated", LoopbackAdapter(x))
    client._retry = 0
    x.faults.add("POST", "/v2/orders", "accept_then_error")
    x.faults.add("DELETE", "/v2/orders/", "drop")
    x.plan_order_fault("no_fill")
    with pytest.raises(APIError):
        client.submit_order(MarketOrderRequest(symbol=NAME, qty=1, side="buy", time_in_force="day", client_order_id="mine"))
    placed = client.get_order_by_client_id("mine")
    with pytest.raises(requests.ConnectionError):
        client.cancel_order_by_id(placed.id)
    assert [(h.kind, h.order) for h in x.faults.log] == [("accept_then_error", "mine"), ("no_fill", "mine"), ("drop", str(placed.id))]


def test_the_log_names_an_order_its_client_gave_no_id():
    x = exchange()
    client = TradingClient("k", "s", url_override="http://simulated")
    client._session.mount("http://simulated", LoopbackAdapter(x))
    client._retry = 0
    x.faults.add("POST", "/v2/orders", "accept_then_error")
    x.plan_order_fault("no_fill")
    with pytest.raises(APIError):
        client.submit_order(MarketOrderRequest(symbol=NAME, qty=1, side="buy", time_in_force="day"))
    (placed,) = x.orders.values()
    assert [(h.kind, h.order) for h in x.faults.log] == [("accept_then_error", placed.client_order_id), ("no_fill", placed.client_order_id)]


def test_positions_lag_behind_orders():
    x = exchange()
    client = TradingClient("k", "s", url_override="http://simulated")
    client._session.mount("http://simulated", LoopbackAdapter(x))
    assert client.get_all_positions() == []
    x.faults.add("GET", "/v2/positions", "stale", times=2)
    order(x)
    x.advance_by(5)
    assert [len(client.get_all_positions()) for _ in range(3)] == [0, 0, 1]


def test_F5_an_accepted_order_is_found_nowhere_for_a_while():
    x = exchange()
    client = TradingClient("k", "s", url_override="http://simulated")
    client._session.mount("http://simulated", LoopbackAdapter(x))
    other = order(x)[1]
    x.faults.add("POST", "/v2/orders", "invisible", seconds=9)
    placed = client.submit_order(MarketOrderRequest(symbol=NAME, qty=1, side="buy", time_in_force="day", client_order_id="mine"))
    x.advance_by(8)
    everything = GetOrdersRequest(status="all")
    for look in (lambda: client.get_order_by_id(placed.id), lambda: client.get_order_by_client_id("mine")):
        with pytest.raises(APIError) as refused:
            look()
        assert refused.value.status_code == 404
    assert [str(o.id) for o in client.get_orders(everything)] == [other["id"]]
    with pytest.raises(APIError, match="unique"):  # it is there all the same
        client.submit_order(MarketOrderRequest(symbol=NAME, qty=1, side="buy", time_in_force="day", client_order_id="mine"))
    x.advance_by(2)
    assert client.get_order_by_client_id("mine").id == placed.id and len(client.get_orders(everything)) == 2
    assert [(h.kind, h.order) for h in x.faults.log] == [("invisible", "mine")]


def test_what_befalls_the_account_is_in_the_log():
    at = NOON + timedelta(minutes=1)
    x = exchange(scenario=Scenario(events=(Flow(at, "CSW", Decimal(100)), ManualOrder(at, NAME, "buy", Decimal(3)), Split(NAME, date(2026, 1, 26), Decimal(2))), split_lag_s=3600))
    x.flow("CSD", Decimal(5))
    x.advance_by(4 * 86_400)
    assert [(h.kind, h.method, h.path) for h in x.faults.log] == [("CSD", "ACCOUNT", "5"), ("CSW", "ACCOUNT", "-100"), ("by_hand", "ACCOUNT", f"buy 3 {NAME}"), ("split_lag", "ACCOUNT", NAME)]
    assert [h.at for h in x.faults.log][:2] == [NOON, at]


# what the broker has to enable


def agreed(start, *tifs):
    return exchange(start=start, scenario=Scenario(time_in_force=tifs or ("opg", "cls", "ioc", "fok")))


def test_auction_orders_trade_at_the_one_price_of_their_auction():
    x, day = agreed(NOON.replace(hour=9, minute=0)), NOON.date()
    opening, closing = order(x, time_in_force="opg")[1], order(x, time_in_force="cls")[1]
    dear = order(x, time_in_force="opg", type="limit", limit_price="1.00")[1]
    x.advance_to(NOON.replace(hour=9, minute=31))
    bar = x.market.raw_bar(NAME, day)
    done = seen(x, opening)
    assert done["status"] == "filled" and float(done["filled_avg_price"]) == bar.open
    assert (seen(x, closing)["status"], seen(x, dear)["status"]) == ("new", "canceled")
    status, answer = order(x, time_in_force="opg")
    assert (status, answer["code"]) == (403, 40310000) and "09:28 to 19:00" in answer["message"]
    x.advance_to(NOON.replace(hour=15, minute=50))
    assert "15:50 to 19:00" in order(x, time_in_force="cls")[1]["message"]
    x.advance_to(NOON.replace(hour=16, minute=0))
    done = seen(x, closing)
    assert done["status"] == "filled" and float(done["filled_avg_price"]) == bar.close and done["filled_at"].startswith("2026-01-23T21:00:00.000")
    x.advance_to(NOON.replace(hour=19, minute=0))
    assert order(x, time_in_force="opg")[1]["status"] == order(x, time_in_force="cls")[1]["status"] == "accepted"


def test_an_immediate_order_takes_what_is_shown_and_one_that_is_all_or_nothing_nothing():
    x = agreed(NOON)
    size = int(x.market.quote_at(NAME, x.now).ask_size)
    price = f"{x.market.quote_at(NAME, x.now).ask + 1:.2f}"
    x = exchange(cash=10**9, scenario=Scenario(time_in_force=("ioc", "fok")))
    part, none = (order(x, qty=str(10 * size), type="limit", limit_price=price, time_in_force=tif)[1] for tif in ("ioc", "fok"))
    x.advance_by(3)
    part, none = seen(x, part), seen(x, none)
    assert part["status"] == none["status"] == "canceled" and 0 < int(part["filled_qty"]) < 10 * size and none["filled_qty"] == "0"
    small = order(x, qty="5", time_in_force="fok")[1]
    x.advance_by(61)
    assert seen(x, small)["status"] in ("filled", "canceled")
    x.advance_to(NOON.replace(hour=17))
    late = order(x, time_in_force="ioc")[1]
    x.advance_by(1)
    assert seen(x, late)["status"] == "canceled"


def test_without_an_agreement_they_are_refused():
    for tif in ("opg", "cls", "ioc", "fok"):
        assert order(agreed(NOON, "opg") if tif != "opg" else exchange(), time_in_force=tif)[1]["message"] == f"time_in_force {tif} is not enabled for this account"
    assert order(agreed(NOON), type="stop", stop_price="1.00", time_in_force="ioc")[0] == 422
    with pytest.raises(InputError, match="times in force"):
        Terms(time_in_force=("gtd",))


# details of the rules


def test_no_order_opens_against_one_that_opens_the_other_way():
    x = exchange(multiplier=2)
    ask(x, "/v2/account/configurations", "PATCH", {"no_shorting": False})
    order(x, type="limit", limit_price="1.00")
    status, answer = order(x, "sell", type="limit", limit_price="900.00")
    assert (status, answer["code"], answer["message"]) == (403, 40310000, "cannot open a short sell while a long buy order is open")


def test_outside_hours_an_order_reserves_the_last_price():
    x = exchange(start=NOON.replace(hour=18))
    order(x, qty="10")
    account = ask(x, "/v2/account")[1]
    assert Decimal(account["cash"]) - Decimal(account["buying_power"]) == 10 * Decimal(str(round(x.market.raw_bar(NAME, NOON.date()).close, 4)))


def test_parts_of_shares_go_with_simple_orders_only():
    assert order(exchange(), qty="0.5", order_class="bracket")[1] == {"code": 42210000, "message": "fractional orders must be simple orders"}


def test_ids_are_uuids_of_version_4():
    x = exchange()
    placed = order(x)[1]
    assert {UUID(placed[k]).version for k in ("id", "client_order_id", "asset_id")} == {4} and UUID(placed["id"]).variant == RFC_4122


def test_a_deposit_reaches_an_account_that_owes_money():
    x = exchange(cash=1000, multiplier=2)
    price = x.market.quote_at(NAME, x.now).ask
    order(x, qty=str(int(1800 / price)))
    x.advance_by(120)
    owed = Decimal(ask(x, "/v2/account")[1]["cash"])
    x.flow("CSD", Decimal("0.01"))
    assert owed < 0 and Decimal(ask(x, "/v2/account")[1]["cash"]) == owed + Decimal("0.01")
    with pytest.raises(InputError):
        x.flow("CSW", Decimal("0.01"))


def test_every_kind_is_documented_and_tried_in_this_module():
    from pathlib import Path

    here = Path(__file__).read_text()
    page = Path(__file__).parent.parent.joinpath("nbs/components/756_simulator_faults.ipynb").read_text()
    account = Path(__file__).parent.parent.joinpath("nbs/components/751_simulator_account.ipynb").read_text()
    tried = here + Path(__file__).with_name("test_order_path.py").read_text()
    assert [k for k in FAULT_KINDS if f"`{k}`" not in page or f'"{k}"' not in tried] == []
    assert [k for k in ORDER_FAULTS if f"`{k}`" not in account or f'"{k}"' not in here] == []


# a file of trouble, and the command line


def test_a_file_with_everything_in_it_is_read(tmp_path):
    file = tmp_path / "trouble.toml"
    file.write_text(
        f"""
profile = "wild"
feed = "iex"
split_lag_s = 3600
[[fault]]
method = "POST"
path = "/v2/orders"
kind = "drop"
nth = 3
times = 2
[[order_fault]]
kind = "overfill"
[[halt]]
symbol = "{NAME}"
start = 2026-01-23T11:00:00-05:00
end = 2026-01-23T11:15:00-05:00
[[split]]
symbol = "{NAME}"
session = 2026-01-26
ratio = "1.5"
[[dividend]]
symbol = "{NAME}"
session = 2026-01-27
rate = 0.25
[[order]]
at = 2026-01-23T12:30:00-05:00
symbol = "{NAME}"
side = "buy"
quantity = 3
"""
    )
    read = read_scenario(file)
    assert read.faults == (Fault("POST", "/v2/orders", "drop", 2, 2),) and read.split_lag_s == 3600 and len(read.events) == 4
    x = exchange(scenario=read)
    x.advance_by(3600)
    assert position(x) in (0, 3, 4) and x.market.splits[0].ratio == Decimal("1.5")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("fault = 3", "[[fault]]"), ("[fault]", "[[fault]]"), ("[[fault]]", "not TOML"), ('[[fault]]\nkind="drop"', "lacks method and path"), ('split_lag_s = "x"', "split_lag_s"),
        ('[[fault]]\nmethod="GET"\npath="/"\nkind="drop"\nnth="a"', "nth"), ('[[fault]]\nmethod="GET"\npath="/"\nkind="gale"', "gale"), ("profile = 5", "profile"),
        ('feed = "x"', "feed"), ('time_in_force = ["gtd"]', "gtd"), ("time_in_force = 5", "times in force"), ("time_in_force = [[1]]", "time"), ('[[flow]]\nat="noon"\nkind="CSD"\namount=1', "at is"),
    ],
)  # fmt: skip
def test_a_fault_file_that_cannot_be_is_one_line(tmp_path, written, told):
    path = tmp_path / "trouble.toml"
    path.write_text(written if told != "not TOML" else "[[fault]")
    with pytest.raises(InputError) as refused:
        SimulatedExchange(seed=3, panel=PANEL, at=NOON, faults=path)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def simulate(*arguments, cwd):
    return subprocess.Popen([sys.executable, "-m", "v23.cli", "simulate", *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_says_where_it_is_ends_clean_and_goes_on_from_its_record(tmp_path, number):
    def run(*more):
        return simulate("--port", "0", "--speed", "0", "--at", "2026-03-10T10:00-04:00", "--record", "run.jsonl", *more, cwd=tmp_path)

    first = run("--key", "K", "--secret", "S")
    facts = json.loads(first.stdout.readline())
    assert facts["now"].startswith("2026-03-10T10:00:00") and facts["stream_url"].startswith("ws://127.0.0.1:")
    client = TradingClient("K", "S", url_override=facts["url"])
    with pytest.raises(APIError):
        TradingClient("K", "other", url_override=facts["url"]).get_account()
    client.get_account()
    requests.post(f"{facts['url']}/sim/advance", json={"seconds": 90}, timeout=10)
    assert "Simulated exchange" in requests.get(facts["status_page"], timeout=10).text
    first.send_signal(number)
    assert first.wait(10) == 0 and "Traceback" not in first.stderr.read()
    second = run()
    assert json.loads(second.stdout.readline())["now"].startswith("2026-03-10T10:01:30")
    third = run()
    assert third.wait(30) == 75 and "in use" in third.stderr.read()
    second.terminate()
    assert second.wait(10) == 0
    other = run("--seed", "8")
    assert other.wait(60) == 1 and "belongs to another simulated account" in other.stderr.read()


def test_the_command_ends_in_the_middle_of_everything(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    from websockets.sync.client import connect

    made = simulate("--port", "0", "--speed", "60", "--at", "2026-03-10T10:00-04:00", "--record", "run.jsonl", cwd=tmp_path)
    facts = json.loads(made.stdout.readline())
    keys = {"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"}
    with connect(facts["stream_url"]) as orders, connect(facts["data_stream_url"]), ThreadPoolExecutor() as pool:
        orders.send(json.dumps({"action": "auth", "key": "k", "secret": "s"}))
        assert json.loads(orders.recv(5))["data"]["status"] == "authorized"
        fault = {"method": "GET", "path_prefix": "/v2/account", "kind": "accept_then_hang", "seconds": 60}
        assert requests.post(f"{facts['url']}/sim/faults", json=fault, timeout=10).status_code == 200
        waiting = pool.submit(requests.get, f"{facts['url']}/v2/account", headers=keys, timeout=30)
        while not requests.get(f"{facts['url']}/sim/faults", timeout=10).json()["log"]:
            pass
        made.send_signal(signal.SIGTERM)
        assert made.wait(10) == 0
        assert isinstance(waiting.exception(10), requests.ConnectionError)  # never a 500 that no fault asked for
    told = made.communicate()[1]
    assert "Traceback" not in told and told.count("\n") == 1, told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--record", "."), "the record"),
        (("--speed", "inf"), "--speed"),
        (("--bars", "bad.csv"), "bad.csv"),
        (("--faults", "missing.toml"), "missing.toml"),
        (("--faults", "bad.toml"), "gust"),
        (("--host", "0.0.0.0"), "--expose"),
        (("--at", "tomorrow"), "--at"),
        (("--at", "2026-03-10T10:00"), "zone"),
        (("--key", "K"), "--secret"),
        (("--margin", "3"), "multiplier"),
        (("--bars", "none.parquet"), "none.parquet"),
        (("--state", "nowhere"), "nowhere"),
    ],
)
def test_a_wrong_argument_is_one_line(tmp_path, arguments, told):
    (tmp_path / "bad.toml").write_text("[[gust]]\n")
    (tmp_path / "bad.csv").write_text("one,two\n1,2\n")
    done = simulate("--port", "0", *arguments, cwd=tmp_path)
    out, err = done.communicate(timeout=60)
    assert done.returncode == 2 and told in err and "Traceback" not in err and out == ""


def test_two_lines_in_a_notebook(tmp_path):
    with SimulatedExchange(seed=3, panel=PANEL, at=NOON, serving=Serving(keys=("K", "S"))) as x:
        assert TradingClient("K", "S", url_override=x.url).get_clock().timestamp == NOON
        order(x.exchange)
        x.clock.sleep(60)
        assert NAME in x.picture().axes[0].get_title()
