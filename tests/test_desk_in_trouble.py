"The desk as a whole when things go wrong: lost requests, and a book that loses a fifth."

from decimal import Decimal

import pytest

from v23.domain import BreakerState
from v23.market_calendar import previous_session
from v23.trading_desk import open_desk


def test_an_emergency_sells_everything_and_survives_a_restart(tmp_path):
    folders = {"state": tmp_path / "state", "reports": tmp_path / "reports", "seed": 7}
    with open_desk(**folders) as desk:
        desk.market_open()
        desk.rebalance()
        held = desk.booked_positions()
        assert len(held) > 4
        account = desk.broker.account
        from dataclasses import replace

        desk.broker.account = lambda: replace(account(), equity=Decimal(79_000))
        desk.look(desk.session())
        assert desk.breakers.state is BreakerState.EMERGENCY and desk.kill.is_active
        assert desk.booked_positions() == {} and desk.broker.positions() == ()
    with open_desk(**folders) as desk:
        assert desk.breakers.state is BreakerState.EMERGENCY and desk.kill.is_active


def test_one_wrong_reading_sells_nothing(tmp_path):
    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", seed=7) as desk:
        desk.market_open()
        desk.rebalance()
        held, account, readings = desk.booked_positions(), desk.broker.account, iter([Decimal(70_000)])
        from dataclasses import replace

        desk.broker.account = lambda: replace(account(), equity=next(readings, account().equity))
        desk.look(desk.session())
        assert not desk.kill.is_active and desk.booked_positions() == held


def test_F2_requests_that_never_arrived_are_sent_again_by_the_whole_desk(tmp_path):
    from v23.adapters.bars import load_bars
    from v23.exchange_host import ExchangeConfig, ExchangeHost, opening_instant

    panel = load_bars(seed=7)
    config = ExchangeConfig("", 7, opening_instant(panel.sessions[-8]), Decimal(100_000))
    with ExchangeHost(tmp_path / "state", config, panel=panel) as host, open_desk(state=tmp_path / "state", reports=tmp_path / "reports", host=host) as desk:
        for n in range(6):
            if n in (0, 5):  # both rebalances: entries, then exits and entries
                host.server.faults.add("POST", "/v2/orders", "drop", nth=3, times=2)
            for part in (desk.market_open, desk.rebalance, desk.market_close):
                result = part(panel.sessions[-8 + n])
        assert [e.body["code"] for e in desk.ledger.events("error")].count("REPLY_LOST") == 4
        sent = [o for o in desk.ledger.orders() if o.attempts > 1]
        assert len(sent) >= 3 and {o.side.value for o in sent} == {"buy", "sell"} and all(o.filled_quantity == o.quantity for o in sent)
        assert result["stops"] == []


def test_an_order_nobody_can_find_stops_entries_after_a_minute(tmp_path):
    from dataclasses import replace

    from v23.domain import OrderIntent, OrderState, Purpose, Side

    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", seed=7) as desk:
        desk.market_open()
        desk.rebalance()
        order = desk.ledger.orders()[0]
        desk.ledger.record("order", replace(order, state=OrderState.UNKNOWN, sent_at=desk.clock.now()))
        symbol = next(s for s in desk.booked_positions() if s != order.symbol)
        session = desk.session()
        price = desk.broker.quotes([symbol])[symbol].midpoint
        entry = OrderIntent("other", "V21", session, symbol, Side.BUY, Decimal(1), Purpose.ENTRY, float(price))
        leave = replace(entry, side=Side.SELL, purpose=Purpose.EXIT)
        asked = []
        for seconds in (30, 40):
            desk.clock.sleep(seconds)
            desk.look(session)
            quote = desk.broker.quotes([symbol])[symbol]
            asked.append((desk.gate(entry, quote).allowed, desk.gate(leave, quote).allowed))
        assert asked == [(True, True), (False, True)]


@pytest.mark.parametrize(("seconds", "allowed"), [(-45, False), (45, False), (20, True)])
def test_F14_a_clock_far_from_the_brokers_stops_entries(tmp_path, seconds, allowed):
    from v23.adapters.bars import load_bars
    from v23.exchange_host import ExchangeConfig, ExchangeHost, opening_instant

    panel = load_bars(seed=7)
    session = panel.sessions[-8]
    config = ExchangeConfig("", 7, opening_instant(session), Decimal(100_000))
    folders = {"state": tmp_path / "state", "reports": tmp_path / "reports"}
    with ExchangeHost(tmp_path / "state", config, panel=panel) as host, open_desk(**folders, host=host) as desk:
        host.server.faults.add("GET", "/v2/clock", "clock_skew", times=50, seconds=seconds)
        desk.market_open(session)
        desk.rebalance(session)
        assert bool(desk.booked_positions()) is allowed
        assert "CLOCK_SKEW" in [e.body["code"] for e in desk.ledger.events("error")]


def test_F46_on_quotes_of_a_minute_ago_entries_wait_and_exits_go_with_a_collar(tmp_path):
    from dataclasses import replace
    from datetime import timedelta

    from v23.domain import Purpose

    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", seed=7) as desk:
        first = desk.session()
        for _ in range(5):
            for part in (desk.market_open, desk.rebalance, desk.market_close):
                part(desk.session())
            desk.clock.sleep(3600 * 6)
        quotes = desk.broker.quotes
        desk.broker.quotes = lambda symbols: {s: replace(q, at=q.at - timedelta(seconds=90)) for s, q in quotes(symbols).items()}
        session = desk.session()
        desk.market_open(session)
        desk.rebalance(session)
        sent = [o for o in desk.ledger.orders() if o.attempts and o.expires_at.date() > first and o.client_order_id.split("-")[3] == f"{session:%Y%m%d}"]
        refused = [p for p in desk.ledger.parents(session) if p["purpose"] == "entry"]
        assert refused and all(p["refused"] for p in refused)
        assert sent and {o.purpose for o in sent} == {Purpose.EXIT} and all(o.limit_price is not None for o in sent)


def test_an_order_that_never_arrived_is_given_up_after_its_session_and_adopted_when_it_appears(tmp_path):
    from v23.adapters.bars import load_bars
    from v23.domain import OrderState
    from v23.exchange_host import ExchangeConfig, ExchangeHost, opening_instant

    panel = load_bars(seed=7)
    session = panel.sessions[-8]
    config = ExchangeConfig("", 7, opening_instant(session), Decimal(100_000))
    folders = {"state": tmp_path / "state", "reports": tmp_path / "reports"}
    with ExchangeHost(tmp_path / "state", config, panel=panel) as host, open_desk(**folders, host=host) as desk:
        host.server.faults.add("POST", "/v2/orders", "drop", nth=3, times=1)
        host.server.faults.add("POST", "/v2/orders", "error", nth=4, times=10_000, status=503)
        desk.market_open(session)
        desk.rebalance(session)
        host.server.faults.waiting.clear()
        assert {o.state for o in desk.ledger.orders() if o.attempts} == {OrderState.FILLED, OrderState.UNKNOWN}
        assert desk.market_close(session)["stops"] == []
        given_up = [o for o in desk.ledger.orders() if o.state is OrderState.ABANDONED]
        assert given_up and desk.engine.open_orders() == ()
        body = given_up[0].body.encode()
        desk.clock.sleep(3600 * 18)
        host.exchange.handle("POST", "/v2/orders", {}, body)  # the lost request arrives a day late
        desk.clock.sleep(60)
        desk.engine.tracker.reconcile()
        late = desk.ledger.order(given_up[0].client_order_id)
        assert late.state is OrderState.FILLED and desk.booked_positions()[late.symbol] == late.quantity
        assert "ORDER_CAME_BACK" in [e.body["code"] for e in desk.ledger.events("error")]


def test_a_kill_that_found_no_exchange_goes_on_at_the_next_start(tmp_path):
    from v23.adapters.bars import load_bars
    from v23.exchange_host import ExchangeConfig, ExchangeHost, opening_instant

    panel = load_bars(seed=7)
    session = panel.sessions[-8]
    config = ExchangeConfig("", 7, opening_instant(session), Decimal(100_000))
    folders = {"state": tmp_path / "state", "reports": tmp_path / "reports"}
    with ExchangeHost(tmp_path / "state", config, panel=panel) as host:
        with open_desk(**folders, host=host) as desk:
            desk.market_open(session)
            desk.rebalance(session)
            host.server.faults.add("POST", "/v2/orders", "error", times=10_000)
            report = desk.kill.activate("drill")
            assert report["flat"] is False and desk.booked_positions() and not desk.kill.is_flat
        host.server.faults.waiting.clear()
        with open_desk(**folders, host=host) as desk:
            desk.look(session)
            assert desk.kill.is_flat and desk.booked_positions() == {} == {p.symbol: p for p in desk.broker.positions()}


@pytest.mark.parametrize(("lifted", "size"), [(False, 0.0), (True, 0.25)])
def test_after_a_lifted_halt_the_desk_comes_back_at_a_quarter(tmp_path, lifted, size):
    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", seed=7) as desk:
        session = desk.session()
        desk.ledger.record("session_closed", {"session": previous_session(session), "equity": Decimal(120_000), "gross_exposure": 0.0, "positions": {}, "cash": Decimal(120_000), "buying_power": Decimal(120_000)})
        desk.market_open()
        assert {x.name for x in desk.breakers.latches} >= {"drawdown_halt", "drawdown_reduce"}
        if lifted:
            desk.breakers.acknowledge("drawdown_halt", "Ada", "looked at it")
        desk.rebalance()
        sizing = desk.ledger.last("sizing").body
        assert next(m["value"] for m in sizing["multipliers"] if m["name"] == "drawdown") == size
        assert all(set(why) for why in sizing["resized"].values()) and bool(sizing["resized"]) is not lifted
