"""A process that owns a simulated desk and does what its standard input says: the other half of the dashboard's tests.

    python tests/dashboard_owner.py STATE REPORTS

Words on standard input: open, rebalance, close, next (day), quit. One JSON line on standard output after each. Commands of
the control channel are done between them and while it waits.
"""

import json
import select
import sys
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from v23.control import ControlServer, Inbox
from v23.exchange_host import ExchangeConfig, ExchangeHost, opening_instant
from v23.settings import load_settings
from v23.synthetic_market import synthetic_panel
from v23.trading_desk import TradingDesk, open_desk


def handlers(desk: TradingDesk, inbox: Inbox) -> dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]]:
    "What this owner can honour; all of it in the desk's own thread, the latch of a kill at once."

    def kill(who: str, fields: dict[str, Any]) -> dict[str, Any]:
        (desk.wiring.state_dir / "KILL").write_text(f"outside {fields['reason']}\n")

        def sell(who: str, fields: dict[str, Any]) -> dict[str, Any]:
            report = desk.kill.activate(fields["reason"], who=who)
            desk.look(desk.session())
            desk.save_state()
            return {"note": f"flat: {report['flat']}"}

        return dict(inbox.handler(sell)(who, fields))

    def pause(who: str, fields: dict[str, Any]) -> dict[str, Any]:
        desk.ledger.record("paused", {"who": who, "why": fields["reason"]})
        desk.view.saw(pauses=[f"paused by {who}: {fields['reason']}"])  # type: ignore[union-attr]
        return {}

    def cancel(who: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {"note": f"{desk.engine.cancel_all_pending()} canceled"}

    def deactivate(who: str, fields: dict[str, Any]) -> dict[str, Any]:
        desk.reconcile(desk.session())
        desk.kill.deactivate(fields["code"], who, fields["still_held"])
        return {}

    def resume(who: str, fields: dict[str, Any]) -> dict[str, Any]:
        desk.kill.resume(who, fields["reason"])
        return {}

    told = {name: inbox.handler(work) for name, work in (("pause_entries", pause), ("cancel_all", cancel), ("deactivate_kill", deactivate), ("resume_entries", resume))}
    return {"kill": kill, "status": lambda who, fields: {"seq": desk.ledger.last_seq}, **told}


def main(state: Path, reports: Path) -> None:
    panel = synthetic_panel(60, 200, date(2025, 4, 1), date(2026, 1, 30))
    days = [d for d in panel.sessions if d >= date(2026, 1, 20)]
    config = ExchangeConfig("", 60, opening_instant(days[0]), Decimal(100_000))
    settings, inbox, day = load_settings(environ={}), Inbox(), 0
    with ExchangeHost(state, config, panel=panel) as host, open_desk(state=state, reports=reports, host=host, settings=settings, panel=panel) as desk, ControlServer(state, handlers(desk, inbox)):
        print(json.dumps({"ready": True}), flush=True)
        while True:
            inbox.run()
            if not select.select([sys.stdin], [], [], 0.05)[0]:
                continue
            word = sys.stdin.readline().strip()
            if word in ("", "quit"):
                return
            if word == "next":
                day += 1
            else:
                getattr(desk, {"open": "market_open", "rebalance": "rebalance", "close": "market_close"}[word])(days[day])
                desk.look(days[day])
            print(json.dumps({"done": word, "seq": desk.ledger.last_seq, "fills": len(desk.ledger.fills())}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
