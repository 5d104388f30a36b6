"""Processes of a desk that are ended with SIGKILL, over real sockets and a real disk, and started again.

Each process first finds its way after the one before, says READY, then trades or kills until it dies at a named point
or at any moment. After each death the exchange's journal is held against the ledger: nothing has left that was not
written down before.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from order_harness import CASH, FIRST, Trader, panel_of, settings_with

from v23.adapters.alpaca import AlpacaAPI
from v23.adapters.snapshots import CRASH_POINTS, crash_hook, on_crash_point, read_envelope
from v23.adapters.state_folder import desk_ledger
from v23.circuit_breakers import KillSwitch
from v23.domain import OrderState
from v23.market_calendar import NEW_YORK, next_session, session_hours
from v23.settings import Secret
from v23.simulator.account import held
from v23.simulator.exchange import Exchange
from v23.simulator.server import RemoteClock, SimulatorServer
from v23.trading_desk import ReadyDesk, Wiring

READY_S = 5.0
POINTS = (*CRASH_POINTS, "random")


class ExchangeClock(RemoteClock):
    "The exchange's time over one connection that is kept."

    def __init__(self, url: str):
        super().__init__(url)
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)

    def _ask(self, method: str, path: str, data: Any = None) -> datetime:
        body = json.dumps(data).encode() if data is not None else None
        self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        return datetime.fromisoformat(json.loads(self._connection.getresponse().read())["now"])


class DeskProcess(Trader):
    "What runs in the process that dies."

    def __init__(self, url: str, state: Path, seed: int):
        self.seed, self.panel, self.clock = seed, panel_of(1), ExchangeClock(url)
        self.settings = settings_with(max_api_errors=10**6, max_execution_errors=10**6)
        broker = AlpacaAPI(Secret("k"), Secret("s"), url, url, self.settings.execution, self.clock)
        self.desk = ReadyDesk(Wiring(broker, self.clock, self.panel.upto, self.panel.sectors, self.settings, None, state, state.parent / "reports", "simulated", "", True, seed))  # type: ignore[arg-type]

    def trade(self, session: date) -> None:
        "The day from wherever it was left."
        desk, hours = self.desk, session_hours(session)
        desk.wait_until(hours.window(self.settings.risk)[1] - timedelta(minutes=25))
        desk.ready(session)
        desk.look(session)
        desk.engine.refresh = desk.look_again
        if desk.kill.is_active:
            desk.reconcile(session)
            self.lift()
            desk.look(session)
        if not desk.ledger.parents(session):
            desk.engine.plan(self.wants(session))
        desk.engine.work(session, hours.window(self.settings.risk)[1])
        desk.save_state()

    def lift(self) -> None:
        "The kill is over."
        code = f"CONFIRM-{self.clock.now().astimezone(NEW_YORK):%Y%m%d}"
        self.desk.kill.deactivate(code, "operator", "" if self.desk.kill.is_flat else "drill")
        self.desk.kill.resume("operator", "drill")


def run(url: str, state: str, seed: int, session: str, job: str, wanted: str, ready: str, born: float) -> None:
    "The life of one process."
    on_crash_point(crash_hook(wanted))
    process = DeskProcess(url, Path(state), seed)
    process.desk.engine.recover()
    Path(ready).write_text(f"{time.time() - born}")
    if job == "kill":
        process.desk.kill.activate("drill")
    else:
        process.trade(date.fromisoformat(session))
    process.desk.close()


@dataclass
class Sweep:
    "What a sweep saw."

    kills: Counter[str] = field(default_factory=Counter)
    ready: list[float] = field(default_factory=list)  # Seconds from the start of a process to READY
    fresh: list[float] = field(default_factory=list)  # The same with a new interpreter
    orders: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Sweep") -> None:
        "What another account saw, too."
        self.kills += other.kills
        self.orders += other.orders
        for mine, theirs in ((self.ready, other.ready), (self.fresh, other.fresh)):
            mine.extend(theirs)
        self.wrong += other.wrong

    def report(self) -> dict[str, Any]:
        "For people and programs."
        return {
            "kills": sum(self.kills.values()), "by_point": dict(sorted(self.kills.items())), "orders": self.orders, "sent_unjournaled": sum("journal" in w for w in self.wrong),
            "ready_s_median": round(sorted(self.ready)[len(self.ready) // 2], 3) if self.ready else None, "ready_s_worst": round(max(self.ready, default=0.0), 3),
            "new_interpreter_ready_s_worst": round(max(self.fresh, default=0.0), 3), "violations": self.wrong[:20],
        }  # fmt: skip


class Sweeper:
    "One exchange in this process, and processes of a desk that come and go."

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed, self.rng = folder, seed, random.Random(f"sweep {seed}")
        self.state, self.ready_file = folder / "state", folder / "ready"
        self.exchange = Exchange(panel_of(1), seed, session_hours(FIRST).open - timedelta(minutes=30), CASH, journal=folder / "journal.jsonl")
        self.exchange.configurations["no_shorting"] = False
        self.server = SimulatorServer(self.exchange)
        self.session, self.result = FIRST, Sweep()
        self.context = multiprocessing.get_context("forkserver")
        here = Path(__file__).resolve().parent
        paths = [str(here), str(here.parent), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))  # the server of forks finds what it loads ahead
        self.context.set_forkserver_preload(["crash_sweep"])

    def live(self, job: str, wanted: str, after_requests: int = 0, fresh: bool = False, by: int = signal.SIGKILL) -> int:
        "Start a process, wait for its end, or end it at a random moment; its exit code."
        self.ready_file.unlink(missing_ok=True)
        asked = (self.server.url, str(self.state), self.seed, self.session.isoformat(), job, wanted, str(self.ready_file), time.time())
        begun = self.server.shell.requests
        if fresh:
            code = "import sys, json; sys.path[:0] = json.loads(sys.argv[2]); from crash_sweep import run; run(*json.loads(sys.argv[1]))"
            child: Any = subprocess.Popen([sys.executable, "-c", code, json.dumps(asked), json.dumps([str(Path(__file__).parent)])], stderr=subprocess.PIPE)
            ended = child.poll
        else:
            child = self.context.Process(target=run, args=asked)
            child.start()
            ended = lambda: child.exitcode  # noqa: E731
        limit = told = time.monotonic() + 120
        while ended() is None and time.monotonic() < limit:
            if after_requests and self.server.shell.requests - begun >= after_requests and self.ready_file.exists():
                os.kill(child.pid, by)
                after_requests, told = 0, time.monotonic()
            time.sleep(0.001)
        code, self.ended_after = ended(), max(0.0, time.monotonic() - told)
        if code is None:
            os.kill(child.pid, signal.SIGKILL)
            child.wait() if fresh else child.join()  # its lock goes with it
            self.result.wrong.append(f"a process that {job}s with {wanted or 'no crash'} did not end in 120 s")
            return -1
        errors = child.communicate()[1].decode() if fresh else child.join() or ""
        if self.ready_file.exists():
            (self.result.fresh if fresh else self.result.ready).append(float(self.ready_file.read_text()))
        if code not in (0, -9, -by):
            said = errors[-300:]
            self.result.wrong.append(f"a process that {job}s ended with {code} {said}")
        return code

    def die(self, point: str, fresh: bool = False) -> None:
        "One process that ends at a point, or at random when six days in a row never come to that point."
        for _ in range(6):
            job = "kill" if point.startswith("kill") else "trade"
            if point == "random":
                code = self.live(job, "", self.rng.randrange(2, 60), fresh)
            else:
                most = {"plan": 1, "kill_latch": 3, "kill_step": 2, "snapshot": 5, "rename": 5}.get(point, 8)
                code = self.live(job, f"{point}:{self.rng.randrange(1, most + 1)}", 0, fresh)
            self.look(point)
            if code == -9:
                self.result.kills[point] += 1
                return
            if code == 0 and job == "trade":
                self.session = next_session(self.session)
            if code not in (0, -9):
                return
        if point != "random":
            self.die("random", fresh)

    def look(self, point: str) -> None:
        "After a death: nothing left that was not in the ledger, and every snapshot is whole."
        with self.server.lock, desk_ledger(self.state, self.server_clock, create=True) as ledger:
            known = {o.client_order_id: o for o in ledger.orders()}
            for o in self.exchange.orders.values():
                kept = known.get(o.client_order_id)
                if kept is None or not kept.attempts or Decimal(json.loads(kept.body)["qty"]) != o.quantity:
                    self.result.wrong.append(f"{point}: {o.client_order_id} is in the exchange's journal and not in the ledger's")
            for path in self.state.rglob("*.json"):
                if not path.name.startswith(".") and read_envelope(path)["seq"] > ledger.last_seq:
                    self.result.wrong.append(f"{point}: {path.name} is ahead of the ledger")
            latched = [e for e in ledger.events("kill") if e.body["action"] in ("activated", "deactivated")]
            if latched and latched[-1].body["action"] == "activated" and not KillSwitch(state_dir=self.state).is_active:
                self.result.wrong.append(f"{point}: a kill in the ledger is not one for who reads the files")

    @property
    def server_clock(self) -> Any:
        from v23.simulator.server import VirtualClock

        return VirtualClock(self.exchange)

    def settle(self) -> None:
        "A last process without a crash, then both books are compared to the share."
        for _ in range(2):
            self.live("trade", "")
            self.session = next_session(self.session)
        with desk_ledger(self.state, self.server_clock) as ledger:
            orders = {o.client_order_id: o for o in ledger.orders()}
            for o in self.exchange.orders.values():
                if orders[o.client_order_id].filled_quantity != o.filled:
                    self.result.wrong.append(f"{o.client_order_id}: ledger {orders[o.client_order_id].filled_quantity}, exchange {o.filled}")
            wanted, got = {p["intent_id"]: Decimal(p["quantity"]) for p in ledger.parents()}, Counter[str]()
            for o in orders.values():
                got[o.intent_id] += o.filled_quantity  # type: ignore[assignment]
            self.result.wrong += [f"{i} wanted {wanted[i]} and got {n}" for i, n in got.items() if n > wanted[i]]
            self.result.wrong += [f"{o.client_order_id} is {o.state.value}" for o in orders.values() if o.state is OrderState.SENDING]
            bought = Counter[str]()
            for f in ledger.fills():
                bought[f.symbol] += f.side.sign * f.quantity  # type: ignore[assignment]
            for s in set(bought) | set(self.exchange.holdings):
                if bought[s] != held(self.exchange, s) or bought[s] < 0:
                    self.result.wrong.append(f"{s}: ledger {bought[s]}, exchange {held(self.exchange, s)} shares")
        self.result.orders = len(self.exchange.orders)
        posts = sum('"POST"' in line for line in (self.folder / "journal.jsonl").read_text().splitlines())
        if posts < self.result.orders:
            self.result.wrong.append("the exchange holds orders its journal does not")


ONE_ACCOUNT = 2 * len(POINTS)  # Kills before the next one begins anew: its bars end some day


def sweep(kills: int, seed: int, folder: Path, fresh: int = 2, bar: Any = None) -> Sweep:
    "Kill so often, each point in turn, on one account after the other."
    total = Sweep()
    for first in range(0, kills, ONE_ACCOUNT):
        sweeper = Sweeper(folder / str(first), seed * 1_000 + first)
        with sweeper.server:
            try:
                for n in range(first, min(kills, first + ONE_ACCOUNT)):
                    sweeper.die(POINTS[n % len(POINTS)], fresh=n % max(1, kills // max(1, fresh)) == 1)
                    if bar:
                        bar(n + 1)
                sweeper.settle()
            finally:
                sweeper.exchange.close()
        total.add(sweeper.result)
    if os.getloadavg()[0] < 2 * (os.cpu_count() or 1):  # on a machine that is busy with something else a second says little
        slow = [s for s in (*total.ready, *total.fresh) if s > READY_S]
        total.wrong += [f"READY after {s:.1f} s, {READY_S:g} are allowed" for s in slow]
    return total


def main(arguments: list[str] | None = None) -> int:
    "The command."
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], epilog="example:  scripts/crash_sweep --kills 200 --seed 7 --json")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    asked = parser.parse_args(arguments)
    if asked.kills < 1 or asked.seed < 0:
        print(f"--kills {asked.kills}, --seed {asked.seed}: 1 and 0 are the least", file=sys.stderr)
        return 2
    from rich.console import Console
    from rich.progress import Progress

    began = time.monotonic()
    with Progress(console=Console(stderr=True)) as progress, tempfile.TemporaryDirectory(prefix="v23-sweep-") as folder:
        task = progress.add_task("kills", total=asked.kills)
        result = sweep(asked.kills, asked.seed, Path(folder), fresh=10, bar=lambda n: progress.update(task, completed=n))
    report = result.report() | {"seed": asked.seed, "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps(report) if asked.json else "\n".join(f"{k:<30} {v}" for k, v in report.items()))
    short = sum(result.kills.values()) < asked.kills * 0.9
    return 1 if result.wrong or short else 0
