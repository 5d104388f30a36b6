"Answers of the broker that cannot be used: none of them ends the desk, and none is read as something it is not."


import pytest
from order_harness import Storm, World

from v23.errors import BrokerError


@pytest.fixture
def world(tmp_path):
    made = World(3, tmp_path, Storm())
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["empty", "garbage", "malformed", "redirect", "error", "429", "429_bare", "drop", "half_body"])
@pytest.mark.parametrize("path", ["/v2/stocks/quotes/latest", "/v2/account", "/v2/positions", "/v2/clock", "/v2/orders"])
def test_F10_no_unusable_answer_to_a_question_ends_the_desk(kind, path, world):
    world.exchange.faults.add("GET", path, kind, times=3)
    asked = {
        "/v2/stocks/quotes/latest": lambda: world.desk.broker.quotes(world.panel.symbols),
        "/v2/account": world.desk.broker.account,
        "/v2/positions": world.desk.broker.positions,
        "/v2/clock": world.desk.broker.market_clock,
        "/v2/orders": lambda: world.desk.broker.orders(world.clock.now()),
    }[path]
    with pytest.raises(BrokerError):
        asked()
    world.exchange.faults.waiting.clear()
    asked()


def test_F26_a_bust_is_booked_once_whether_or_not_its_execution_is_in_the_window(world):
    world.exchange.plan_order_fault("bust", seconds=2.0)
    world.trade_day()
    undone = [f for f in world.ledger.fills() if f.fill_id.endswith(":undone")]
    assert len(undone) == 1
    for _ in range(3):  # the window moves past the execution, the bust stays in it
        world.trade_day()
    world.desk.engine.tracker.book_fills(thorough=True)
    assert [f.fill_id for f in world.ledger.fills() if f.order_id == undone[0].order_id].count(undone[0].fill_id) == 1
    assert world.desk.engine.tracker.reconcile() == ()
    rows = [a for a in world.exchange.activities if a[1]["type"] == "trade_bust"]
    apart = world.desk.broker.fills(rows[0][0].replace(microsecond=0))  # begins after the execution it takes back
    assert undone[0].fill_id in {f.fill_id for f in apart}


@pytest.mark.parametrize(("mode", "host"), [("live", "https://paper-api.alpaca.markets"), ("paper", "https://api.alpaca.markets")])
def test_F13_a_mode_and_a_host_that_do_not_belong_together_are_refused(mode, host):
    from v23.errors import SettingsError
    from v23.settings import load_settings

    with pytest.raises(SettingsError, match="disagree"):
        load_settings("/nonexistent", environ={}, overrides={"V23_MODE": mode, "ALPACA_BASE_URL": host})
