"""The whole order path in one process under seeded trouble, and an independent count of what left it.

A `World` is one simulated account and one desk on it: the real engine, ledger, gate, breakers and kill switch over the
real client, without a socket and on virtual time. A `Storm` says what goes wrong and how often. A crash drops the
desk at a named point, as SIGKILL would, and opens it again from its files.
"""

import contextlib
import json
import math
import random
import sqlite3
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import v23.execution_engine as execution_engine
from v23.accounting import signed_positions
from v23.adapters.alpaca import AlpacaAPI
from v23.adapters.snapshots import CRASH_POINTS, on_crash_point
from v23.circuit_breakers import KillSwitch, fold_latches
from v23.domain import BreakerState, Decision, OrderIntent, OrderPlan, OrderState, Purpose, Side
from v23.errors import BrokerError, InputError
from v23.execution.order_lifecycle import intent_key, is_ours
from v23.execution.order_routing import plan_order
from v23.liquidation import BARE
from v23.market_calendar import NEW_YORK, next_session, session_hours, session_of
from v23.market_data import Panel
from v23.risk.breaker_rules import breaker_state, entries_stopped
from v23.settings import Secret, Settings, load_settings
from v23.simulator.account import available, held
from v23.simulator.exchange import Exchange
from v23.simulator.faults import Fault, FaultPlan, Scenario
from v23.simulator.server import LoopbackAdapter, VirtualClock
from v23.synthetic_market import synthetic_panel
from v23.trading_desk import ReadyDesk, Wiring

FIRST = date(2026, 1, 12)
CASH = Decimal(400_000)
URL = "http://simulated"
ORDER_POST = ("POST", "/v2/orders")
READ_FAULTS = ("error", "auth", "429", "429_bare", "drop", "redirect", "half_body", "garbage", "malformed", "empty", "new_fields", "stale")
SEND_FAULTS = ("accept_then_error", "accept_then_hang_up", "accept_then_hang", "hide_order")
ORDER_TROUBLE = ("reject", "no_fill", "slow_fill", "partial_then_cancel", "hang_cancel", "fill_on_cancel", "late_fill", "overfill", "bust", "correct", "strange")


class Died(BaseException):
    "Stands for SIGKILL: no handler of the desk may see it."


class KillSeen(BaseException):
    "A supervisor saw that somebody killed, and interrupts the desk where it waits."


class WatchedClock(VirtualClock):
    "The exchange's time; who sleeps on it is woken by a kill."

    killed = False
    offset = timedelta(0)  # Of the desk's clock from the exchange's

    def now(self) -> datetime:
        return super().now() + self.offset

    def sleep(self, seconds: float) -> None:
        if self.killed:
            self.killed = False
            raise KillSeen
        super().sleep(seconds)


@cache
def panel_of(seed: int) -> Panel:
    "A small market; a few of them serve all runs."
    return synthetic_panel(seed, 14, date(2025, 12, 1), date(2026, 1, 30))


@cache
def plain_settings() -> Settings:
    "The documented defaults, whatever this machine sets."
    return load_settings("/nonexistent", environ={}, overrides={"V23_MODE": "simulated"})


def settings_with(**risk: Any) -> Settings:
    "The defaults with some limits changed."
    made = replace(plain_settings())
    made.__dict__["risk"] = replace(plain_settings().risk, **risk)
    return made


@dataclass(frozen=True)
class Storm:
    "What goes wrong in one world, as probabilities."

    requests: dict[str, float] = field(default_factory=dict)  # Fault kind -> share of the requests it can happen to
    crash: float = 0.0  # Of every crash point passed
    kill: float = 0.0  # Of a session, from another process
    order_faults: float = 0.0  # Share of orders that go wrong at the exchange
    kinds: tuple[str, ...] = ORDER_TROUBLE
    foreign: bool = False
    feed: str = "sip"
    tight: bool = False  # The documented error limits; else errors never stop entries
    patient: bool = False  # Nearly every order rests at the midpoint before it is repriced
    steps: tuple[str, ...] = ()  # Points at which one process of a session ends
    stubborn: str = ""  # An order fault every order meets all day
    cancels: float = 0.0  # Share of the cancels that arrive and are answered with an error, or not at all
    lost: dict[str, float] = field(default_factory=dict)  # Method -> share of its requests that never arrive

    @classmethod
    def drawn(cls, rng: random.Random) -> "Storm":
        "A random subset of everything, at random rates from calm to four requests in ten; some are made for what is rare."
        kind = rng.random()
        if kind < 0.05:
            return cls()
        every = dict.fromkeys(READ_FAULTS, 0.012) | dict.fromkeys(SEND_FAULTS, 0.03)
        if kind < 0.21:  # orders that cannot be canceled, and end with the day
            hangs = rng.random() < 0.7
            return cls(every, stubborn="hang_cancel" if hangs else "no_fill", kill=0.9, patient=True, cancels=0.9 * hangs, lost={} if hangs else {"DELETE": 0.97})
        if kind < 0.28:  # orders that never arrive
            return cls(every, kill=0.7, lost={"POST": 0.8})
        if kind < 0.35:  # processes that end while orders are still to be sent
            return cls(every | dict.fromkeys(SEND_FAULTS, 0.06), crash=0.04, order_faults=0.5, patient=rng.random() < 0.5)
        level = rng.choice((0.02, 0.05, 0.10, 0.20, 0.40))
        chosen = [k for k in (*READ_FAULTS, *SEND_FAULTS) if rng.random() < 0.35]
        rates = {k: level / max(1, len(chosen)) * (4 if k in SEND_FAULTS else 1) for k in chosen}
        return cls(
            requests=rates,
            crash=rng.choice((0.0, 0.0, 0.01, 0.03)),
            kill=rng.choice((0.0, 0.3, 0.6)),
            order_faults=rng.choice((0.0, 0.2, 0.5)),
            kinds=tuple(k for k in ORDER_TROUBLE if rng.random() < 0.5) or ("late_fill",),
            feed=rng.choice(("sip", "sip", "iex")),
            tight=rng.random() < 0.2,
            patient=rng.random() < 0.4,
            steps=tuple(rng.sample(CRASH_POINTS, 3)) if rng.random() < 0.5 else (),
        )


class Swarm(FaultPlan):
    "Faults drawn from a storm's rates, each kind where it can happen; planned ones go first."

    def __init__(self, storm: Storm, rng: random.Random, now: Callable[[], datetime], hit: Callable[[str, str, str, str], None]):
        super().__init__(now=now)
        self.rates, self.cancels, self.lost = storm.requests, storm.cancels, storm.lost
        self.rng, self.hit, self.on = rng, hit, True

    def _draw(self, method: str, path: str) -> Fault | None:
        if not self.on or not self.rates:
            return None
        if self.rng.random() < self.lost.get(method, 0.0):
            return Fault(method, path, "drop")
        if method == "DELETE" and self.rng.random() < self.cancels:
            return Fault(method, path, self.rng.choice(("accept_then_error", "accept_then_hang_up", "accept_then_hang")))
        draw = self.rng.random()
        for kind, rate in self.rates.items():
            unfit = (method, path) != ORDER_POST if kind == "hide_order" else method == "GET" if kind in SEND_FAULTS else method != "GET" and kind == "stale"
            if unfit:
                continue
            draw -= rate
            if draw < 0:
                return Fault(method, path, kind, status=(500, 502, 503, 504)[self.rng.randrange(4)], seconds=self.rng.choice((1.0, 30.0)))
        return None

    def note(self, kind: str, method: str, path: str, order: str) -> None:
        "Write down what happened, and what it happened to."
        super().note(kind, method, path, order)
        self.hit(kind, method, path, order)


class Wire(LoopbackAdapter):
    "Beneath everything: counts every order that leaves, and holds it against what may leave."

    def __init__(self, exchange: Exchange, world: "World"):
        super().__init__(exchange)
        self.world, self.requests = world, 0
        self.posts: Counter[str] = Counter()  # By client_order_id
        self.bodies: dict[str, set[bytes]] = {}
        self.methods: Counter[str] = Counter()
        self.spoil: dict[str, tuple[str, random.Random]] = {}  # Path -> how its next list is spoiled

    def send(self, request: Any, timeout: Any = None, **ignored: Any) -> Any:
        self.requests += 1
        self.methods[request.method] += request.method != "PATCH" or request.path_url.startswith("/v2/orders")
        is_order = request.method == "POST" and request.path_url == "/v2/orders"
        if is_order:
            body = request.body.encode() if isinstance(request.body, str) else request.body
            order = json.loads(body)
            cid = order.get("client_order_id", "")
            self.posts[cid] += 1
            self.bodies.setdefault(cid, set()).add(body)
            self.world.on_post(order)
        try:
            return self.spoiled(request, super().send(request, timeout, **ignored))
        finally:
            self.world.after_request(self.requests)
            if is_order:
                self.world.crash("wire")


    def spoiled(self, request: Any, reply: Any) -> Any:
        "A list with some rows gone, some twice, or in another order."
        path = request.path_url.partition("?")[0]
        if request.method != "GET" or path not in self.spoil or not isinstance(rows := reply.json() if reply.status_code == 200 and reply.content[:1] == b"[" else None, list):
            return reply
        kind, rng = self.spoil.pop(path)
        if kind == "drop":
            rows = [r for r in rows if rng.random() < 0.6]
        elif kind == "duplicate":
            rows = [r for r in rows for _ in range(1 + (rng.random() < 0.5))]
        else:
            rng.shuffle(rows)
        reply._content = json.dumps(rows).encode()
        return reply


def connect(broker: AlpacaAPI, adapter: LoopbackAdapter) -> AlpacaAPI:
    "Every session of a client goes through this adapter."
    for client in (broker.trading, broker.data):
        client._session.mount(URL, adapter)
    return broker


class Trader:
    "Wants something each session, without a strategy, of a desk on a panel."

    desk: ReadyDesk
    panel: Panel
    settings: Settings
    clock: Any
    seed: int

    def wants(self, session: date) -> list[tuple[OrderPlan, Decision]]:
        "Targets of a session without a strategy: some sales, some small, large, too large and wide purchases."
        desk = self.desk
        holdings = {p.symbol: p for p in desk.engine.positions() if p.quantity > 0}
        quotes = desk.broker.quotes(self.panel.symbols)
        rng = random.Random(f"plan {self.seed} {session}")  # the same wishes after a crash
        items: list[tuple[OrderPlan, Decision]] = []
        for symbol in self.panel.symbols:
            draw, size, share = rng.random(), rng.random(), rng.random()
            quote = quotes.get(symbol)
            price = quote.midpoint if quote is not None and quote.is_valid else math.nan
            if symbol in holdings:
                if draw > 0.55:
                    continue
                everything = holdings[symbol].quantity_available
                quantity, side, purpose = everything if share < 0.6 or everything < 2 else Decimal(int(everything // 2)), Side.SELL, Purpose.EXIT
            elif draw < 0.55 and math.isfinite(price):
                dollars = (800 + 7_000 * share) if size < 0.6 else (11_000 + 25_000 * share) if size < 0.9 else 45_000.0
                quantity, side, purpose = Decimal(int(dollars / price)), Side.BUY, Purpose.ENTRY
            else:
                continue
            if quantity > 0:
                items.append(self.wish(symbol, side, quantity, purpose, session, quote))
        return sorted(items, key=lambda i: i[0].intent.side is Side.BUY)

    def wish(self, symbol: str, side: Side, quantity: Decimal, purpose: Purpose, session: date, quote: Any, note: str = "") -> tuple[OrderPlan, Decision]:
        "One parent, planned and checked as the desk would."
        key = intent_key("soak", session, symbol, side, purpose, note)
        price = quote.midpoint if quote is not None and quote.is_valid else math.nan
        intent = OrderIntent(key, "soak", session, symbol, side, quantity, purpose, price, 0.0, self.panel.sectors.get(symbol, "UNKNOWN"))
        end = session_hours(session).window(self.settings.risk)[1]
        plan = plan_order(intent, quote, self.clock.now(), end, self.settings.execution, self.settings.risk.max_quote_age_s)
        return plan, self.desk.gate(intent, quote)


class World(Trader):
    "One account, one desk, and what an onlooker saw of them."

    def __init__(self, seed: int, folder: Path, storm: Storm | None = None, cash: Decimal = CASH, events: tuple[Any, ...] = (), start: datetime | None = None, **risk: Any):
        self.seed, self.folder = seed, Path(folder)
        self.rng = random.Random(f"world {seed}")
        self.storm = storm if storm is not None else Storm.drawn(self.rng)
        self.panel = panel_of(seed % 4 + 1)
        limits = ({} if self.storm.tight else {"max_api_errors": 10**6, "max_execution_errors": 10**6}) | risk
        self.settings = settings_with(**limits)
        if self.storm.patient:
            self.settings.__dict__["execution"] = replace(self.settings.execution, spread_threshold_bps=2.0)
        self.session = FIRST if start is None else session_of(start)
        begin = start or session_hours(FIRST).open - timedelta(minutes=30)
        self.exchange = Exchange(self.panel, seed, begin, cash, scenario=Scenario(feed=self.storm.feed, events=events))
        if self.rng.random() < 0.5:
            self.exchange.configurations["no_shorting"] = False  # else the broker's own belt would hide a short
        self.exchange.faults = Swarm(self.storm, random.Random(f"faults {seed}"), lambda: self.exchange.now, self.on_fault)
        self.clock = WatchedClock(self.exchange)
        self.wire = Wire(self.exchange, self)
        self.crash_rng = random.Random(f"crashes {seed}")
        self.crash_at: tuple[str, int] | None = None  # A planned crash: a point and how many passings from now
        self.kill_at = 0  # A request after which somebody else kills
        self.calm = self.watched = False
        self.together = self.rng.choice((1, 1, 1, 2, 8))  # Orders that leave in one go: the fewer, the longer some stay PLANNED
        self.crashes: list[str] = []
        self.interrupted = 0  # A kill was seen while the desk waited, which may be between writing down and sending
        self.not_posted: Counter[str] = Counter()  # SENDING was written, and the process ended before the request left
        self.violations: list[tuple[str, str]] = []
        self.pairs: Counter[tuple[str, str]] = Counter()  # (fault, order state)
        self.faulted: dict[str, set[str]] = {}  # Order -> faults of the exchange it met
        while not hasattr(self, "desk"):  # it may die as it is opened
            with contextlib.suppress(Died):
                self.start()

    # -- life and death of the desk

    def start(self) -> None:
        "Open the desk as a new process would."
        broker = connect(AlpacaAPI(Secret("k"), Secret("s"), URL, URL, self.settings.execution, self.clock), self.wire)
        wiring = Wiring(broker, self.clock, self.panel.upto, self.panel.sectors, self.settings, None, self.folder / "state", self.folder / "reports", "simulated", "", True, self.seed)  # type: ignore[arg-type]
        on_crash_point(self.crash)
        execution_engine.SEND_TOGETHER = self.together
        self.desk = ReadyDesk(wiring)
        self.desk.engine.refresh = self.desk.look_again

    def drop(self) -> None:
        "What SIGKILL leaves: files as they are, locks gone."
        self.desk.ledger._db.close()
        self.desk._lock.release()

    def crash(self, point: str) -> None:
        "A crash point is passed: die there when it is due."
        due = False
        if self.crash_at is not None:
            name, left = self.crash_at
            if name in (point, "any"):
                self.crash_at = (name, left - 1)
                due = left <= 1
        elif not self.calm and self.storm.crash and self.crash_rng.random() < self.storm.crash:
            due = True
        if due:
            self.crash_at = None
            self.crashes.append(point)
            for state in self.states():
                self.pairs["crash", state] += 1
            raise Died(point)

    def restart(self) -> None:
        "The process died; another one starts and finds its way."
        self.drop()
        self.start()
        self.desk.engine.recover()

    @property
    def ledger(self) -> Any:
        return self.desk.ledger

    # -- what the onlooker sees

    @property
    def excused(self) -> set[str]:
        "Symbols whose shares the exchange itself changed: it took an execution back, gave one too many, or traded after the end."
        touched = [o for o, kinds in self.faulted.items() if kinds & {"bust", "overfill", "late_fill"}]
        return {self.exchange.by_client_id[o].symbol for o in touched if o in self.exchange.by_client_id}

    def states(self) -> list[str]:
        "States of every order in the ledger, each once."
        try:
            return [row[0] for row in self.ledger._db.execute("SELECT DISTINCT state FROM orders")]
        except (AttributeError, sqlite3.ProgrammingError):  # it died as it was opened: there is no desk, or only the one before
            return []

    def state_of(self, cid: str) -> str | None:
        row = self.ledger._db.execute("SELECT state FROM orders WHERE client_order_id=? OR body LIKE ?", (cid, f'%"order_id":"{cid}"%')).fetchone()
        return row[0] if row else None

    def on_fault(self, kind: str, method: str, path: str, order: str) -> None:
        if method == "ORDER":
            self.faulted.setdefault(order, set()).add(kind)
            return
        if not hasattr(self, "desk"):
            return
        for state in [s for s in [self.state_of(order)] if s] if order else self.states():
            self.pairs[kind, state] += 1

    def after_request(self, number: int) -> None:
        late = self.storm.stubborn == "hang_cancel" and self.states().count("cancel_sent") == 0  # wait for something to cancel twice
        if self.kill_at and number >= self.kill_at and not (late and self.watched):
            self.kill_at = 0
            self.kill_from_outside()

    def kill_from_outside(self) -> None:
        "Another process asks for the kill while this one trades."
        on_crash_point(None)
        try:
            KillSwitch(None, self.clock, None, self.folder / "state").activate("drill", "somebody")
        finally:
            on_crash_point(self.crash)
        self.clock.killed = self.watched
        for state in self.states():
            self.pairs["kill", state] += 1

    @property
    def latched(self) -> bool:
        "Entries are forbidden, by the files and the events themselves."
        if (self.folder / "state" / "KILL").exists():
            return True
        last = [e for e in self.ledger.events("kill") if e.body["action"] in ("activated", "deactivated", "resumed")]
        memory = fold_latches(self.ledger)
        halted = breaker_state(memory.latches, None, self.settings.risk) >= BreakerState.HALTED or entries_stopped(memory.latches)
        return bool(last and last[-1].body["action"] != "resumed") or halted

    def wrong(self, what: str, detail: str) -> None:
        "Something happened that must never happen."
        self.violations.append((what, detail))

    def on_post(self, body: dict[str, Any]) -> None:
        "An order leaves: it is in the ledger as SENDING, it is allowed, and it fits."
        cid, symbol, quantity = body.get("client_order_id", ""), body["symbol"], Decimal(body["qty"])
        known = self.ledger.order(cid)
        if cid.startswith(BARE) and body["side"] == "sell":  # a kill while the ledger cannot be written
            return self.check_sale(cid, symbol, quantity)
        if self.ledger._db.in_transaction or known is None or known.state is not OrderState.SENDING or json.loads(known.body) != body:
            self.wrong("duplicate_orders", f"{cid} left without being SENDING in the ledger")
            return
        if len(self.wire.bodies[cid]) > 1:
            self.wrong("duplicate_orders", f"{cid} left with two bodies")
        if cid in self.exchange.by_client_id:
            return  # it collides harmlessly
        if body["side"] == "sell":
            self.check_sale(cid, symbol, quantity)
        if known.purpose is Purpose.ENTRY:
            if not math.isfinite(self.desk.gate.equity) or abs((self.clock.now() - self.exchange.now).total_seconds()) > 30:
                self.wrong("entries_unready", f"{cid} {symbol}: equity {self.desk.gate.equity}, clock {self.clock.now()} of {self.exchange.now}")
            if self.latched:
                self.wrong("entries_after_latch", f"{cid} {symbol} at {self.exchange.now}")
            if not self.desk.kill.is_active:
                self.check_limits(cid, symbol, quantity)

    def check_sale(self, cid: str, symbol: str, quantity: Decimal) -> None:
        if symbol not in self.excused and quantity > available(self.exchange, symbol):
            self.wrong("shorts", f"{cid} sells {quantity} {symbol} of {available(self.exchange, symbol)} available")

    def check_limits(self, cid: str, symbol: str, quantity: Decimal) -> None:
        "Held at the exchange, working at the exchange, possibly on its way, and this: within the caps, at the prices the desk knows."
        x, gate, limits = self.exchange, self.desk.gate, self.settings.risk
        quote = x.market.quote_at(symbol, x.now)
        marks = dict(gate.marks or {}) | ({symbol: quote.midpoint} if quote else {})
        shares: Counter[str] = Counter()
        for s, h in x.holdings.items():
            shares[s] += h.quantity
        for o in x.open_orders.values():
            if o.side is Side.BUY:
                shares[o.symbol] += o.open_quantity
        for o in self.ledger.orders(states=[OrderState.UNKNOWN, OrderState.SENDING]):
            if o.side is Side.BUY and o.client_order_id not in x.by_client_id and o.client_order_id != cid:
                shares[o.symbol] += o.remaining
        shares[symbol] += quantity
        room = 1.002  # a quote may have moved between the decision and the wire
        value = {s: float(q) * marks.get(s, 0.0) for s, q in shares.items() if s not in self.excused}
        sector = self.panel.sectors.get(symbol, "UNKNOWN")
        in_sector = math.fsum(v for s, v in value.items() if self.panel.sectors.get(s, "UNKNOWN") == sector)
        if value.get(symbol, 0.0) > limits.max_position * gate.equity * room:
            self.wrong("limit_breaches", f"{cid} {symbol} {value[symbol] / gate.equity:.4%} of equity")
        if in_sector > limits.max_sector * gate.equity * room:
            self.wrong("limit_breaches", f"{cid} sector {sector} {in_sector / gate.equity:.4%} of equity")

    # -- a session

    def try_to(self, part: Callable[[], Any], tries: int = 12) -> Any:
        "Do a part of the day, again after a crash or an answer that did not come; None when it could not be done."
        for _ in range(tries):
            try:
                return part()
            except Died:
                for _ in range(tries):
                    try:
                        self.restart()
                        break
                    except Died:
                        continue
                    except BrokerError:
                        break
            except BrokerError:
                self.clock.sleep(20)
        return None

    def trade(self, session: date) -> None:
        "Plan once, work to the end; called again after a crash it goes on."
        desk = self.desk
        desk.ready(session)
        desk.look(session)
        desk.engine.refresh = desk.look_again
        if not desk.ledger.parents(session):
            items = self.wants(session)
            desk.engine.plan(items)
        self.watched = True
        try:
            desk.engine.work(session, session_hours(session).window(self.settings.risk)[1])
        except KillSeen:
            self.watched, self.interrupted = False, self.interrupted + 1
            for _ in range(5 if self.storm.cancels else 0):
                desk.engine.cancel_all_pending()  # somebody is impatient
            desk.look(session)
        finally:
            self.watched = self.clock.killed = False
        desk.save_state()

    def compare(self, session: date) -> None:
        desk = self.desk
        desk.gate.ready = False
        desk.ready(session)
        desk.look(session)
        desk.save_state()

    def wait_until(self, moment: datetime) -> None:
        if (ahead := (moment - self.clock.now()).total_seconds()) > 0:
            self.clock.sleep(ahead)

    def trade_day(self) -> None:
        "One session: the morning's comparison, the trading, the evening's comparison; perhaps a kill on the way."
        session = self.session
        hours, rng = session_hours(session), self.rng
        end = hours.window(self.settings.risk)[1]
        self.wait_until(hours.window(self.settings.risk)[0])
        self.come_back()
        self.try_to(lambda: self.compare(session))
        self.wait_until(end - timedelta(minutes=12 if self.storm.stubborn else rng.choice((12, 18, 25, 45))))
        if rng.random() < self.storm.kill:
            self.kill_at = self.wire.requests + (rng.randrange(30, 80) if self.storm.stubborn else rng.randrange(5, 60))
        if self.storm.steps:
            point = rng.choice((*self.storm.steps, "kill_latch", "kill_step"))  # a kill has few steps
            self.crash_at = (point, rng.randrange(1, {"kill_latch": 3, "plan": 4, "kill_step": 4}.get(point, 30)))
            self.kill_at = self.wire.requests + rng.randrange(5, 40) if point.startswith("kill") else self.kill_at
        if self.storm.stubborn:
            self.exchange.order_faults.clear()
            self.exchange.plan_order_fault(self.storm.stubborn, times=100, seconds=20_000)
        if self.storm.order_faults:
            for _ in range(12):
                if rng.random() < self.storm.order_faults:
                    kind = rng.choice(self.storm.kinds)
                    self.exchange.plan_order_fault(kind, nth=rng.randrange(1, 12), seconds=rng.choice((2.0, 20.0, 200.0)))
        self.try_to(lambda: self.trade(session))
        self.wait_until(hours.close + timedelta(seconds=60))
        self.try_to(lambda: self.compare(session))
        self.kill_at, self.crash_at = 0, None
        self.session = next_session(session)

    def come_back(self) -> None:
        "The morning after a kill: sell what is left, compare, lift it, go on."
        if not self.desk.kill.is_active:
            return
        with self.quiet():
            self.try_to(lambda: self.desk.kill.activate("going on"))
            self.try_to(lambda: self.compare(self.session))
            if not self.desk.kill.is_flat:
                left = [p.symbol for p in self.desk.engine.positions() if p.quantity > 0 and p.symbol not in self.excused]
                if left:
                    self.wrong("kills_not_flat", f"{left} are held in the morning after a kill")
            code = f"CONFIRM-{self.clock.now().astimezone(NEW_YORK):%Y%m%d}"
            try:
                self.desk.kill.deactivate(code, "operator", "" if self.desk.kill.is_flat else "drill")
                self.desk.kill.resume("operator", "drill")
            except InputError:
                return  # the books differ: entries stay off

    @contextmanager
    def quiet(self) -> Iterator[None]:
        "Nothing goes wrong meanwhile."
        faults = self.exchange.faults
        waiting, was, calm, orders = faults.waiting, faults.on, self.calm, self.exchange.order_faults
        faults.waiting, faults.on, self.calm, self.exchange.order_faults = [], False, True, type(orders)()
        try:
            yield
        finally:
            faults.waiting, faults.on, self.calm, self.exchange.order_faults = waiting, was, calm, orders

    # -- the verdict

    def settle(self) -> None:
        "The trouble ends; the desk starts once more and has time to find everything."
        self.exchange.order_faults.clear()
        with self.quiet():
            self.kill_at, self.crash_at = 0, None
            self.clock.sleep(240)
            self.restart()
            self.clock.sleep(60)
            self.compare(session_of(self.clock.now()))
            self.clock.sleep(300)  # a kill that goes on may just have canceled something that still trades
            self.desk.engine.recover()

    def verdict(self) -> Counter[str]:
        "What must be zero, counted against the exchange's own books."
        x, ledger = self.exchange, self.ledger
        found: Counter[str] = Counter(what for what, _ in self.violations)
        mine = {o.client_order_id: o for o in ledger.orders()}
        for o in x.orders.values():
            if is_ours(o.client_order_id) and o.client_order_id not in mine:
                self.note(found, "duplicate_orders", f"{o.client_order_id} is at the exchange and not in the ledger")
        self.check_fills(found, mine)
        self.check_parents(found, mine)
        self.check_wire(found, mine)
        unsettled = [o for o in mine.values() if o.state is OrderState.SENDING]
        for o in unsettled:
            self.note(found, "unsettled", f"{o.client_order_id} is still {o.state.value}")
        if ledger.verify() != ledger.last_seq:
            self.note(found, "broken_chain", "the ledger does not verify")
        return found

    def note(self, found: Counter[str], what: str, detail: str) -> None:
        found[what] += 1
        self.violations.append((what, detail))

    def check_fills(self, found: Counter[str], mine: dict[str, Any]) -> None:
        "Each execution of the exchange is booked once, and the shares agree."
        x, booked = self.exchange, self.ledger.fills()
        ids = Counter(f.fill_id for f in booked)
        by_order: Counter[str] = Counter()
        for f in booked:
            by_order[f.client_order_id] += f.side.sign * f.quantity
        for _, row in x.activities:
            if row["activity_type"] == "FILL" and row["type"] in ("fill", "partial_fill"):
                cid = x.orders[row["order_id"]].client_order_id
                if is_ours(cid) and row["id"] not in ids:
                    self.note(found, "lost_fills", f"{cid} {row['id']} was never booked")
        for i, n in ids.items():
            if n > 1:
                self.note(found, "double_fills", f"{i} is booked {n} times")
        for cid, o in mine.items():
            at_exchange = x.by_client_id.get(cid)
            filled = at_exchange.filled if at_exchange else Decimal(0)
            if o.filled_quantity != filled and "bust" not in self.faulted.get(cid, ()):
                what = "lost_fills" if o.filled_quantity < filled else "double_fills"
                self.note(found, what, f"{cid} {o.state.value}: ledger {o.filled_quantity}, exchange {filled}")
        books = signed_positions(booked)
        for s in sorted(set(books) | set(x.holdings)):
            if s not in self.foreign and books.get(s, Decimal(0)) != held(x, s):
                what = "lost_fills" if abs(books.get(s, 0)) < abs(held(x, s)) else "double_fills"
                self.note(found, what, f"{s}: ledger {books.get(s, 0)}, exchange {held(x, s)} shares")
            if held(x, s) < 0 and s not in self.excused:
                self.note(found, "shorts", f"{s} {held(x, s)}")

    foreign: frozenset[str] = frozenset()  # Symbols somebody else trades

    def check_parents(self, found: Counter[str], mine: dict[str, Any]) -> None:
        "No parent got more than it wanted, and none has two children that may trade at once."
        wanted = {p["intent_id"]: Decimal(p["quantity"]) for p in self.ledger.parents()}
        total: Counter[str] = Counter()
        for cid, o in mine.items():
            at_exchange = self.exchange.by_client_id.get(cid)
            extra = Decimal(1) if "overfill" in self.faulted.get(cid, ()) else Decimal(0)
            total[o.intent_id] += max(Decimal(0), (at_exchange.filled if at_exchange else Decimal(0)) - extra)
        for intent, quantity in total.items():
            late = any("late_fill" in self.faulted.get(c, ()) for c, o in mine.items() if o.intent_id == intent)
            if quantity > wanted.get(intent, Decimal(0)) and not late:
                self.note(found, "duplicate_orders", f"{intent} wanted {wanted.get(intent)} and got {quantity}")

    def check_wire(self, found: Counter[str], mine: dict[str, Any]) -> None:
        "As many requests left as the ledger says, less those that a crash, or a kill seen in the wait for the request budget, kept from leaving."
        written: Counter[str] = Counter({o.client_order_id: o.attempts for o in self.ledger.orders()})
        lost = self.together * (len(self.crashes) + self.interrupted)  # so many are marked together before the first of them leaves
        for cid, n in self.wire.posts.items():
            if n > written[cid]:
                self.note(found, "duplicate_orders", f"{cid} left {n} times, the ledger knows {written[cid]}")
        missing = sum(written.values()) - sum(self.wire.posts.values())
        if not 0 <= missing <= lost:
            self.note(found, "duplicate_orders", f"{missing} requests of the ledger never left; crashes and interruptions explain {lost}")
        if self.wire.methods["PATCH"]:
            self.note(found, "duplicate_orders", "an order was replaced")

    def count_order_faults(self) -> None:
        "Which states the orders passed that the exchange did something to, from the moment they left."
        for e in self.ledger.events("order"):
            for kind in self.faulted.get(e.body["client_order_id"], ()) if e.body["attempts"] else ():
                self.pairs[kind, e.body["state"]] += 1

    def chain(self) -> str:
        "The last link of the ledger, and of the exchange's events."
        row = self.ledger._db.execute("SELECT hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return f"{row[0] if row else ''}:{self.exchange.event_digest()}"

    def close(self) -> None:
        on_crash_point(None)
        self.desk.close()


@dataclass
class Outcome:
    "What one seed did."

    seed: int
    sessions: int
    faults: int
    crashes: int
    kills: int
    orders: int
    counts: Counter[str]
    pairs: Counter[tuple[str, str]]
    violations: list[tuple[str, str]]
    chain: str
    points: Counter[str]  # Crash points at which a process ended


def tick(engine: Any, session: date, window_end: datetime, seconds: float) -> None:
    "One turn of the engine's loop, and some time."
    steps = engine._open_steps(session, window_end)
    acted = bool(steps) and engine._act(steps)
    if not acted:
        engine.clock.sleep(seconds)
    engine.tracker.poll()


def scratch() -> str | None:
    "A folder in memory, where there is one: fsync costs nothing there."
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def run_seed(seed: int, sessions: int | None = None, storm: Storm | None = None) -> Outcome:
    "One to three sessions of one world, settled and judged."
    folder = Path(tempfile.mkdtemp(prefix="v23-soak-", dir=scratch()))
    try:
        world = World(seed, folder, storm)
        try:
            count = sessions or 1 + seed % 3
            for _ in range(count):
                world.trade_day()
            world.settle()
            counts = world.verdict()
            world.count_order_faults()
            kills = sum(e.body["action"] == "activated" for e in world.ledger.events("kill"))
            return Outcome(seed, count, len(world.exchange.faults.log), len(world.crashes), kills, len(world.wire.posts), counts, world.pairs, world.violations, world.chain(), Counter(world.crashes))
        finally:
            world.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
