"Answers of the broker that cannot be used: none of them ends the desk, and none is read as something it is not."

from decimal import Decimal

import pytest
from order_harness import Storm, World

from v23.errors import Ambiguous, BrokerError


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
