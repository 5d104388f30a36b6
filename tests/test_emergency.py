"A book that loses a fifth is closed, by two readings, and stays closed over a restart."

from decimal import Decimal

from v23.domain import BreakerState
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
