"""Paper runs with one thing wrong each, made on the simulated exchange, and records that somebody tampered with.

Each is a state folder with a ledger; what the validator has to say about it is in tests/test_golden_runs.py.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from v23 import __version__
from v23.adapters.ledger import Ledger
from v23.adapters.state_folder import real_clock
from v23.drills import evidence, keep_drill, step
from v23.domain import Event
from v23.exchange_host import ExchangeConfig, ExchangeHost, opening_instant
from v23.market_calendar import session_of
from v23.market_data import Panel
from v23.paper_validator import PaperTradingValidator
from v23.settings import load_settings
from v23.simulator.account import OrderFault
from v23.simulator.faults import Scenario
from v23.synthetic_market import synthetic_panel
from v23.trading_desk import TradingDesk, open_desk
from v23.v21_signals import V21

SESSIONS = 20
CASH = Decimal(100_000)


@dataclass(frozen=True)
class Market:
    "Invented bars, and whether last week's losers come back."

    seed: int
    edge: float

    @property
    def panel(self) -> Panel:
        return synthetic_panel(seed=self.seed, names=260, start=date(2025, 9, 2), end=date(2026, 3, 20), reversal_edge=self.edge)


GOOD, DEAR, LATE, WORTHLESS = Market(54, 0.35), Market(46, 0.35), Market(23, 0.35), Market(7, 0.0)  # In each, win rate and Sharpe are in range but in the last


class Late(V21):
    "V21 as of one session before the one it is asked for."

    def signals(self, panel: Panel, as_of: date):
        before = panel.sessions[panel.row(as_of) - 1]
        return super().signals(panel.upto(before), before)


def plain_settings(**changed: str):
    return load_settings("/nonexistent", environ=changed)


def dearer(host: ExchangeHost, bps: float) -> None:
    "Executions so much worse than what the data feed shows."
    market, shown = host.exchange.market, host.exchange.market.quote_at

    def worse(symbol: str, moment: datetime):
        q = shown(symbol, moment)
        return q and replace(q, bid=round(q.bid * (1 - bps / 1e4), 2), ask=round(q.ask * (1 + bps / 1e4), 2))

    market.feed_quote = shown
    market.quote_at = worse


def unfilled(market: Market) -> Scenario:
    "Nobody trades every ninth name with this account."
    return Scenario(order_faults=tuple(OrderFault("no_fill", symbol=s, times=100) for s in market.panel.symbols[::9]))


def trade(folder: Path, market: Market, strategy: type[V21] = V21, scenario: Scenario | None = None, bps: float = 0.0, **changed: str) -> Path:
    "Twenty sessions on paper with three passed drills; the state folder."
    panel, settings = market.panel, plain_settings(**changed)
    sessions = panel.sessions[-SESSIONS:]
    config = ExchangeConfig("", market.seed, opening_instant(sessions[0]), CASH)
    with ExchangeHost(folder, config, panel=panel, scenario=scenario) as host:
        if bps:
            dearer(host, bps)
        with open_desk(state=folder, reports=folder / "reports", host=host, settings=settings) as desk:
            desk.wiring = replace(desk.wiring, strategy=strategy(settings.strategy))
            drill(desk)
            for session in sessions:
                for job in (desk.market_open, desk.rebalance, desk.market_close):
                    job(session)
    return folder


def drill(desk: TradingDesk) -> None:
    "The record of three drills on this build."
    for name in ("breakers", "kill_switch", "alerts"):
        keep_drill(evidence(name, [step("it works", True, True)], "Ada", real_clock().now(), "simulated"), desk.wiring.state_dir, real_clock(), desk.ledger)


class _Then:
    "A clock that shows when an event was written."

    at = datetime.min

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None: ...


def forge(source: Path, folder: Path, change: Callable[[Event], Iterable[tuple[str, Any]]]) -> Path:
    "A copy of a state folder whose ledger is written anew, chain and all, with every event changed."
    shutil.copytree(source, folder)
    path = folder / "execution" / "ledger.sqlite3"
    for left in path.parent.glob("ledger.sqlite3*"):
        left.unlink()
    clock = _Then()
    old, new = Ledger(source / "execution" / "ledger.sqlite3", clock), Ledger(path, clock, build=__version__)
    for event in old.events():
        clock.at = event.at
        for kind, body in change(event):
            new.record(kind, body)
    old.close()
    new.close()
    return folder


def tampered(source: Path, folder: Path) -> Path:
    "One losing day made a winning one, with the file's own tool."
    shutil.copytree(source, folder)
    db = sqlite3.connect(folder / "execution" / "ledger.sqlite3")
    seq, body = db.execute("SELECT seq, body FROM events WHERE kind='session_closed' ORDER BY seq LIMIT 1 OFFSET 6").fetchone()
    equity = body.split('"equity":"')[1].split('"')[0]
    db.execute("UPDATE events SET body=? WHERE seq=?", (body.replace(f'"equity":"{equity}"', '"equity":"104000.00"'), seq))
    db.commit()
    db.close()
    return folder


def without_the_beginning(source: Path, folder: Path) -> Path:
    "The first six sessions, which went badly, never happened."
    first = GOOD.panel.sessions[-SESSIONS + 6]
    return forge(source, folder, lambda e: [] if session_of(e.at) < first and e.kind != "drill" else [(e.kind, e.body)])


def without_the_end(source: Path, folder: Path) -> Path:
    "Nor did the last one."
    last = GOOD.panel.sessions[-1]
    return forge(source, folder, lambda e: [] if session_of(e.at) >= last else [(e.kind, e.body)])


def with_a_fill_twice(source: Path, folder: Path) -> Path:
    "The same execution under another id."
    done = []

    def change(e: Event):
        if e.kind == "fill" and not done:
            done.append(e)
            return [(e.kind, e.body), (e.kind, dict(e.body) | {"fill_id": e.body["fill_id"] + "x"})]
        return [(e.kind, e.body)]

    return forge(source, folder, change)


def in_another_zone(source: Path, folder: Path) -> Path:
    "Every execution stamped as if New York's time were London's."

    def change(e: Event):
        if e.kind == "fill":
            return [(e.kind, dict(e.body) | {"at": (datetime.fromisoformat(e.body["at"]) - timedelta(hours=5)).isoformat()})]
        return [(e.kind, e.body)]

    return forge(source, folder, change)


MADE: dict[str, tuple[Market, Callable[[Path], Path]]] = {
    "aligned": (GOOD, lambda d: trade(d, GOOD)),
    "zero edge": (WORTHLESS, lambda d: trade(d, WORTHLESS)),
    "lagged": (LATE, lambda d: trade(d, LATE, Late)),
    "costs doubled": (DEAR, lambda d: trade(d, DEAR, bps=11.0)),
    "a tenth missed": (GOOD, lambda d: trade(d, GOOD, scenario=unfilled(GOOD))),
    "wrong sizing": (GOOD, lambda d: trade(d, GOOD, KELLY_FRACTION="0.2")),
    "tampered day": (GOOD, lambda d: tampered(run("aligned"), d)),
    "cherry-picked": (GOOD, lambda d: without_the_beginning(run("aligned"), d)),
    "cut off": (GOOD, lambda d: without_the_end(run("aligned"), d)),
    "fill twice": (GOOD, lambda d: with_a_fill_twice(run("aligned"), d)),
    "time zone": (GOOD, lambda d: in_another_zone(run("aligned"), d)),
}


@lru_cache
def _root() -> Path:
    import atexit
    import tempfile

    folder = tempfile.TemporaryDirectory(prefix="v23-golden-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@lru_cache
def run(name: str) -> Path:
    "The state folder of a run, made once a process."
    return MADE[name][1](_root() / name.replace(" ", "-"))


def validator(name: str) -> PaperTradingValidator:
    "The validator of a run, with the settings the gate is meant for."
    market = MADE[name][0]
    return PaperTradingValidator(settings=plain_settings(), panel=market.panel, state_dir=run(name), seed=market.seed)


@lru_cache
def report(name: str) -> dict[str, Any]:
    "What the validator says about it."
    return validator(name).report()
