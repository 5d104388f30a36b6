"The kill switch, fault by fault."

import json
import sqlite3
import threading
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import kill_line
import pytest
from order_harness import Storm, World
from test_faults_order_path import at, held_by, names, plan, work
from test_faults_storage import full_disk, wal_size

from v23.adapters.clocks import StillClock
from v23.adapters.ledger import Ledger, StateLock
from v23.adapters.light_alpaca import Access, emergency_access
from v23.adapters.state_folder import desk_ledger
from v23.control import ControlServer, ask
from v23.domain import BreakerState, BrokerOrder, OrderState, Position, Purpose, Side
from v23.emergency import connect, kill_alone, panic
from v23.errors import Ambiguous, AuthLost, BrokerError, InputError, OwnedError, SettingsError
from v23.incident import incident_facts, incident_line
from v23.kill_switch import KillSwitch, code_of
from v23.liquidation import BARE, BareHands, Journal, adopt_bare, bare_id, bare_ids, sellable
from v23.market_calendar import NEW_YORK, session_hours
from v23.settings import Secret


@pytest.fixture
def world(tmp_path):
    made = World(3, tmp_path, Storm())
    yield made
    made.close()


class Told:
    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []

    def alert(self, code: str, subject: str, text: str, priority: str) -> None:
        self.said.append((code, subject, priority))


class Hand:
    "Sells at once, or not at all."

    def __init__(self, clock, away_until=None, error=BrokerError):
        self.clock, self.away_until, self.error, self.tries = clock, away_until, error, []

    def cancel_everything(self) -> int:
        return 0

    def liquidate(self, kill_id: str) -> dict:
        self.tries.append(self.clock.now())
        if self.away_until and self.clock.now() < self.away_until:
            raise self.error("the broker does not answer")
        return {"flat": True, "left": {}, "sold": ["AAA"]}

    def suspend(self, on: bool) -> bool:
        return True


NOON = datetime(2026, 1, 20, 12, 0, tzinfo=NEW_YORK)


def switch(folder: Path, ledger: Ledger | None, hand: Hand | None = None, clock=None, **more) -> KillSwitch:
    clock = clock or (ledger.clock if ledger is not None else StillClock(NOON))
    return KillSwitch(ledger, clock, hand, folder, **more)


def compared(ledger: Ledger) -> None:
    ledger.record("reconciled", {"session": date(2026, 1, 20), "findings": [], "stops": []})


# F72: kill with orders on their way


def test_F72_forty_kills_on_a_wild_exchange_end_flat_and_nothing_gets_in(v23_seed):
    told = kill_line.summed(kill_line.run(v23_seed * 100_000 + n) for n in range(40))
    assert told["unexplained"] == [] and told["wrong"] == [] and told["flat"] + told["listed"] == 40
    assert told["flat"] >= 36, told["left"]
    assert {"working", "unknown"} <= told["kills_that_met_an_order"].keys() and told["with_sliced_orders_under_way"] >= 10 and len(told["how"]) == 3


@pytest.mark.parametrize(("lie", "found"), [({"flat": True, "left": {}}, "wrong"), ({"flat": False, "left": {}}, "unexplained")])
def test_the_line_finds_a_kill_that_says_what_is_not_so(lie, found, monkeypatch, v23_seed):
    from v23.execution_engine import KillEngine

    monkeypatch.setattr(KillEngine, "liquidate", lambda self, kill_id: {"kill_id": kill_id, "sold": []} | lie)
    told = kill_line.summed(kill_line.run(v23_seed * 100_000 + n) for n in range(3))
    assert told[found] and told["flat"] < 3


def test_F72_a_late_fill_after_the_cancel_is_sold_too(world):
    at(world)
    (symbol,) = names(world, 1)
    world.exchange.plan_order_fault("late_fill", seconds=2.0)
    plan(world, [symbol])
    world.desk.ready(world.session)
    world.desk.look_again()
    world.kill_at = world.wire.requests + 2
    work(world)
    report = world.desk.kill.activate("drill")
    world.clock.sleep(30)
    report = world.desk.kill.activate("going on")
    assert report["flat"] is True and held_by(world) == {} and world.violations == []


def test_F72_an_order_by_hand_is_canceled_with_the_rest(world):
    at(world)
    chosen = names(world, 3)
    plan(world, chosen[:2])
    work(world)
    body = {"symbol": chosen[2], "qty": "3", "side": "buy", "type": "limit", "limit_price": "1", "time_in_force": "day", "client_order_id": "by-hand"}
    world.exchange.handle("POST", "/v2/orders", {}, json.dumps(body).encode())
    report = world.desk.kill.activate("drill")
    assert report["flat"] is True and report["canceled"] == 1 and not world.exchange.open_orders


def test_F72_an_order_by_hand_that_does_not_end_keeps_the_kill_from_being_flat(world):
    at(world)
    (symbol,) = names(world, 1)
    world.exchange.plan_order_fault("hang_cancel", seconds=500)
    body = {"symbol": symbol, "qty": "3", "side": "buy", "type": "limit", "limit_price": "1", "time_in_force": "day", "client_order_id": "by-hand"}
    world.exchange.handle("POST", "/v2/orders", {}, json.dumps(body).encode())
    report = world.desk.kill.activate("drill")
    assert report["flat"] is False and report["left"] == {} and list(report["open_orders"].values()) == [f"buy 3 {symbol} pending_cancel"]
    world.clock.sleep(600)
    assert world.desk.kill.activate("going on")["flat"] is True


def test_F72_a_symbol_with_a_lost_purchase_is_sold_all_the_same(world):
    at(world)
    (symbol,) = names(world, 1)
    plan(world, [symbol])
    work(world)
    world.exchange.faults.add("POST", "/v2/orders", "drop", times=1)
    plan(world, [symbol], note="more")
    world.kill_at = world.wire.requests + 3
    work(world)
    unknown = [o for o in world.ledger.orders() if o.state is OrderState.UNKNOWN]
    report = world.desk.kill.activate("drill")
    assert [o.purpose for o in unknown] == [Purpose.ENTRY] and report["flat"] is True and held_by(world) == {} and world.violations == []


# F73 and F74: closed, and away


def test_F73_going_on_before_the_bell_leaves_the_sales_in_the_queue(world):
    at(world)
    plan(world, names(world, 3))
    work(world)
    world.wait_until(session_hours(world.session).close + timedelta(hours=3))
    assert world.desk.kill.activate("drill")["state"] == "PENDING_OPEN"
    waiting = set(world.exchange.open_orders)
    for _ in range(3):
        world.clock.sleep(600)
        report = world.desk.kill.activate("going on")
        assert report["state"] == "PENDING_OPEN" and set(world.exchange.open_orders) == waiting and len(waiting) == 3
        assert all(x["reason"] == "its sale waits for the bell" for x in report["left"].values())
    report = world.desk.kill.pursue(24 * 3600)
    assert report["flat"] is True and held_by(world) == {}
    opened = session_hours(world.session).open + timedelta(days=1)
    assert opened <= world.clock.now() <= opened + timedelta(minutes=5)


def test_F74_half_an_hour_without_the_broker(world):
    at(world, 90)
    plan(world, names(world, 3))
    work(world)
    told = world.desk.kill.alerts = Told()
    back = world.clock.now() + timedelta(minutes=30)
    for method, path in (("GET", "/v2/positions"), ("GET", "/v2/orders"), ("DELETE", "/v2/orders"), ("POST", "/v2/orders")):
        world.exchange.faults.add(method, path, "drop", times=100_000)
    slept = world.clock.sleep

    def sleep(seconds):
        slept(seconds)
        if world.clock.now() >= back:
            world.exchange.faults.waiting.clear()

    world.clock.sleep = sleep
    report = world.desk.kill.activate("drill")
    assert report["flat"] is False and world.desk.kill.is_active
    report = world.desk.kill.pursue(3600)
    assert report["flat"] is True and held_by(world) == {} and back <= world.clock.now() < back + timedelta(minutes=2)
    codes = [code for code, _, priority in told.said if priority == "CRITICAL"]
    assert codes.count("KILL_SWITCH") == 1 and 5 <= codes.count("KILL_PENDING") <= 7
    assert len([e for e in world.ledger.events("kill") if e.body["action"] == "pending"]) <= 10


def test_F74_the_tries_back_off_and_a_loop_may_ask_as_often_as_it_likes(tmp_path):
    clock = StillClock(NOON)
    ledger, hand = Ledger(":memory:", clock), Hand(clock, NOON + timedelta(minutes=4))
    kill = switch(tmp_path, ledger, hand)
    assert kill.go_on() is None
    kill.latch("drill")
    for _ in range(3000):
        kill.go_on()
        clock.sleep(0.1)
    waits = [round((b - a).total_seconds()) for a, b in zip(hand.tries, hand.tries[1:], strict=False)]
    assert kill.is_flat and waits[:5] == [1, 2, 4, 8, 15] and set(waits[5:]) == {15} and kill.go_on() is None


def test_F74_an_owner_that_died_in_the_middle_goes_on_after_its_restart(world):
    at(world)
    plan(world, names(world, 4))
    work(world)
    world.exchange.faults.add("POST", "/v2/orders", "error", times=1_000)
    assert world.desk.kill.activate("drill", "Ada")["flat"] is False
    world.exchange.faults.waiting.clear()
    world.restart()
    assert world.desk.kill.is_active and not world.desk.kill.is_flat
    report = world.desk.kill.go_on()
    assert report["flat"] is True and held_by(world) == {}
    assert [e.body["who"] for e in world.ledger.events("kill") if e.body["action"] == "activated"] == ["Ada"]


# F75 and F76: one of thirty, and twice


def test_F75_one_that_cannot_be_sold_stops_nothing_and_is_named(world):
    at(world)
    chosen = names(world, 5)
    plan(world, chosen)
    work(world)
    submit = world.desk.broker.submit

    def refuses(body, client=None):
        if f'"{chosen[2]}"' in body:
            raise Ambiguous("the exchange has halted it", 503)
        return submit(body)

    world.desk.broker.submit = refuses
    report = world.desk.kill.activate("drill")
    assert list(report["left"]) == [chosen[2]] and "halted" in report["left"][chosen[2]]["reason"] and len(report["sold"]) == 4
    assert set(held_by(world)) == {chosen[2]} and report["flat"] is False


def test_F76_pressed_by_many_at_once_is_one_kill(world):
    at(world)
    plan(world, names(world, 4))
    work(world)
    state = world.folder / "state"
    pressed = [KillSwitch(None, world.clock, None, state) for _ in range(8)]
    ids: list[str] = []
    threads = [threading.Thread(target=lambda k=k: ids.append(k.latch("stop", "somebody"))) for k in pressed]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for _ in range(3):
        report = world.desk.kill.activate("again")
    assert report["flat"] is True and set(ids) == {report["kill_id"]} and world.violations == []
    sales = [o for o in world.exchange.orders.values() if o.side is Side.SELL]
    assert len(sales) == 4 == len({o.symbol for o in sales})
    assert len([e for e in world.ledger.events("kill") if e.body["action"] == "activated"]) == 1


def test_F76_a_kill_over_the_control_socket_latches_before_the_desk_finds_time(world):
    at(world)
    plan(world, names(world, 2))
    work(world)
    kill, state = world.desk.kill, world.folder / "state"
    with ControlServer(state, {"kill": lambda who, fields: {"kill_id": kill.latch(fields["reason"], who)}}):
        told = ask(state, "kill", who="Ada", reason="the data is wrong")
    assert told["kill_id"] == kill.pressed and kill.halted() and (state / "KILL").exists() and world.ledger.last("kill") is None
    plan(world, names(world, 3), note="more")
    posts = len(world.wire.posts)
    work(world)
    assert len(world.wire.posts) == posts
    assert kill.go_on()["flat"] is True
    first = next(iter(world.ledger.events("kill"))).body
    assert (first["kill_id"], first["who"], first["reason"]) == (told["kill_id"], "Ada", "the data is wrong")


# F77: codes


@pytest.fixture
def killed(tmp_path):
    clock = StillClock(NOON)
    ledger = Ledger(tmp_path / "ledger.sqlite3", clock)
    kill = switch(tmp_path, ledger, Hand(clock))
    kill.activate("drill")
    compared(ledger)
    yield kill
    ledger.close()


BAD = ["", " ", "CONFIRM-20260119", "CONFIRM-20260121", "confirm-20260120", "CONFIRM-20260120 ", "CONFIRM-2026-01-20", "CONFIRM-20262001", "CONFIRM-", "x" * 100_000, "CONFIRM-２０２６0120", "\udcff", "CONFIRM-20260120\0"]


@pytest.mark.parametrize("code", BAD, ids=range(len(BAD)))
def test_F77_a_bad_code_lifts_nothing_and_is_on_record(code, killed):
    with pytest.raises(InputError, match="wrong"):
        killed.deactivate(code, "Eve")
    last = killed.ledger.last("kill").body
    assert killed.is_active and (last["action"], last["who"]) == ("wrong_code", "Eve") and (len(code) < 20 or code not in json.dumps(last))


@pytest.mark.parametrize(("moment", "right"), [
    ("2026-01-20T23:59:59-05:00", "20260120"), ("2026-01-21T00:00:00-05:00", "20260121"), ("2026-01-21T04:59:59+00:00", "20260120"),
    ("2026-03-08T01:59:59-05:00", "20260308"), ("2026-11-01T23:30:00-05:00", "20261101"), ("2026-01-21T10:29:00+05:30", "20260120"),
])  # fmt: skip
def test_F77_the_date_is_new_yorks_whatever_the_clock_shows(moment, right, killed):
    killed.clock.at = datetime.fromisoformat(moment)
    day = datetime.fromisoformat(moment).astimezone(NEW_YORK).date()
    assert code_of(day) == f"CONFIRM-{right}"
    for wrong in (day - timedelta(days=1), day + timedelta(days=1)):
        with pytest.raises(InputError, match="wrong"):
            killed.deactivate(code_of(wrong))
    killed.deactivate(f"CONFIRM-{right}", "Ada")
    assert not killed.is_active and killed.state is BreakerState.HALTED and killed.needs_resume


def test_F77_five_wrong_codes_lock_out_for_a_quarter_of_an_hour_also_after_a_restart(tmp_path, killed):
    for n in range(5):
        killed.clock.sleep(60)
        with pytest.raises(InputError, match="wrong"):
            killed.deactivate(f"guess {n}", "Eve")
    right, until = code_of(date(2026, 1, 20)), killed.locked_until
    assert until == killed.clock.now() + timedelta(minutes=15)
    killed.ledger.close()
    ledger = Ledger(tmp_path / "ledger.sqlite3", killed.clock)
    again = switch(tmp_path, ledger, Hand(killed.clock))
    for ahead in (1, 600, 298):
        killed.clock.sleep(ahead)
        with pytest.raises(InputError, match="5 wrong codes"):
            again.deactivate(right, "Ada")
    killed.clock.at -= timedelta(hours=1)  # somebody turns the clock back
    with pytest.raises(InputError, match="5 wrong codes"):
        again.deactivate(right, "Ada")
    killed.clock.at += timedelta(hours=1, seconds=1)
    again.deactivate(right, "Ada")
    assert not again.is_active
    actions = [e.body["action"] for e in ledger.events("kill")]
    assert actions.count("wrong_code") == 5 and actions.count("code_while_locked") == 4
    ledger.close()


def test_F77_five_wrong_codes_over_a_longer_time_do_not_lock(killed):
    for _ in range(6):
        killed.clock.sleep(240)
        with pytest.raises(InputError, match="is wrong"):
            killed.deactivate("guess")
    assert killed.locked_until is None


def test_F77_a_code_that_was_used_lifts_no_later_kill_of_another_day_and_nothing_that_is_not_active(killed):
    right = code_of(date(2026, 1, 20))
    killed.deactivate(right, "Ada")
    with pytest.raises(InputError, match="not active"):
        killed.deactivate(right, "Eve")
    killed.clock.sleep(86_400)
    killed.activate("the next day")
    compared(killed.ledger)
    with pytest.raises(InputError, match="wrong"):
        killed.deactivate(right, "Eve")
    assert killed.is_active


def test_F77_a_replayed_request_is_refused_by_the_socket(tmp_path, killed):
    import socket

    heard = []
    line = json.dumps({"id": "0123456789abcdef", "at": datetime.now(NEW_YORK).isoformat(), "command": "deactivate_kill", "who": "Eve", "fields": {"code": "x"}}).encode() + b"\n"
    with ControlServer(tmp_path, {"deactivate_kill": lambda who, fields: heard.append(who) or {}}):
        answers = []
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(tmp_path / "control.sock"))
                s.sendall(line)
                answers.append(json.loads(s.makefile().readline()))
    assert [a["ok"] for a in answers] == [True, False] and len(heard) == 1


def test_F77_not_flat_needs_a_reason_and_every_refusal_is_on_record(tmp_path):
    clock = StillClock(NOON)
    ledger = Ledger(":memory:", clock)
    kill = switch(tmp_path, ledger, Hand(clock, NOON + timedelta(days=1)))
    kill.activate("drill")
    right = code_of(NOON.date())
    compared(ledger)
    with pytest.raises(InputError, match="not flat"):
        kill.deactivate(right, "Eve")
    with pytest.raises(InputError, match="not flat"):
        kill.deactivate(right, "Eve", still_held="  ")
    assert [e.body["action"] for e in ledger.events("kill")][-2:] == ["refused", "refused"] and kill.is_active
    kill.deactivate(right, "Ada", still_held="AAA is halted")
    assert ledger.last("kill").body["still_held"] == "AAA is halted" and kill.state is BreakerState.HALTED
    for who, why in (("", "x"), ("Ada", " ")):
        with pytest.raises(InputError, match="name"):
            kill.resume(who, why)
    kill.resume("Ada", "looked at it")
    assert kill.state is BreakerState.NORMAL


def test_F77_a_kill_that_comes_while_another_is_lifted_stays(tmp_path, killed):
    class Slow(Hand):
        def suspend(self, on):
            if not on:
                killed.sentinel.write_text("kill-20260120T121500 somebody else\n")
            return True

    killed.engine = Slow(killed.clock)
    killed.deactivate(code_of(NOON.date()), "Ada")
    assert killed.is_active and killed.sentinel.read_text().startswith("kill-20260120T121500")
    assert killed.latch("again") == "kill-20260120T121500"


# Files and disks


@pytest.mark.parametrize("text", ["", "null", "{}", "{torn", '{"active": false}', "\ufeff", "[]"])
def test_F58_an_unreadable_kill_file_means_killed(text, tmp_path):
    kill = switch(tmp_path, Ledger(":memory:", StillClock(NOON)))
    assert not kill.is_active
    kill.path.parent.mkdir()
    kill.path.write_text(text)
    assert kill.is_active and kill.state is BreakerState.EMERGENCY and "cannot be read" in kill.status()["reason"]
    kill.save_state()
    assert kill.path.read_text() == text


def test_a_sentinel_by_hand_is_a_kill_with_its_reason(tmp_path):
    clock = StillClock(NOON)
    ledger = Ledger(":memory:", clock)
    kill = switch(tmp_path, ledger, Hand(clock))
    kill.sentinel.write_text("the market has gone mad")
    assert kill.is_active and kill.halted() and kill.status()["reason"] == "the market has gone mad"
    kill.go_on()
    assert next(iter(ledger.events("kill"))).body["reason"] == "the market has gone mad" and kill.sentinel.read_text().startswith("kill-")
    kill.sentinel.unlink()
    kill.sentinel.touch()
    assert KillSwitch(None, clock, None, tmp_path).status()["reason"] == "the market has gone mad"  # the file knows
    kill.path.unlink()
    assert "KILL is there" in KillSwitch(None, clock, None, tmp_path).status()["reason"]


def test_F56_a_kill_on_a_full_disk_sells_without_the_ledger_and_the_next_desk_adopts_it(world):
    at(world)
    plan(world, names(world, 3))
    work(world)
    with full_disk(wal_size(world)):
        report = world.desk.kill.activate("drill")
    assert report["flat"] is True and report["without_ledger"] and held_by(world) == {} and world.violations == []
    assert all(c.startswith(BARE) for c in bare_ids(world.folder / "state" / "kill-emergency.jsonl"))
    world.restart()
    world.desk.look(world.session)
    assert world.desk.kill.is_flat
    world.desk.gate.ready = False
    world.desk.ready(world.session)
    assert world.desk.booked_positions() == {} and {o.state for o in world.ledger.orders() if o.purpose is Purpose.KILL} <= {OrderState.FILLED}


def test_F56_without_any_disk_it_says_what_it_does_on_stderr(tmp_path, capsys):
    journal = Journal(tmp_path / "no" / "such" / "folder", StillClock(NOON))
    journal.note("sell", symbol="AAA")
    assert '"what": "sell"' in capsys.readouterr().err
    (tmp_path / "file").write_text('{"what": "sell", "client_order_id": "v23-kill-a"}\n{torn\n[1]\n{"what": "report"}\n')
    assert bare_ids(tmp_path / "file") == ["v23-kill-a"] and bare_ids(tmp_path / "none") == []


def test_bare_hands_sell_what_they_can_and_say_what_they_cannot(world):
    at(world)
    chosen = names(world, 3)
    plan(world, chosen)
    work(world)
    hands = BareHands(world.desk.broker, world.clock, Journal(world.folder / "journal", world.clock))
    submit = world.desk.broker.submit

    def refuses(body, client=None):
        if f'"{chosen[1]}"' in body:
            from v23.errors import Rejected

            raise Rejected("halted", 403, 40310000)
        return submit(body)

    world.desk.broker.submit = refuses
    report = hands.liquidate("kill-x", max_rounds=8)
    assert report["flat"] is False and report["left"] == {chosen[1]: {"quantity": "10", "reason": "halted"}}
    world.desk.broker.submit = submit
    again = BareHands(world.desk.broker, world.clock, hands.journal)  # another process, with the same kill
    assert again.liquidate("kill-x")["flat"] is True and held_by(world) == {}
    sales = [o for o in world.exchange.orders.values() if o.side is Side.SELL]
    assert len(sales) == 3 == len({o.symbol for o in sales})


def test_F76_two_pairs_of_bare_hands_place_the_same_order(world):
    at(world)
    plan(world, names(world, 2))
    work(world)
    both = [BareHands(world.desk.broker, world.clock, Journal(world.folder / "journal", world.clock)) for _ in range(2)]
    for p in world.desk.broker.positions():
        for hands in both:
            hands._sell("kill-x", p, {})
    world.clock.sleep(5)
    assert len([o for o in world.exchange.orders.values() if o.side is Side.SELL]) == 2
    assert both[1].why and set(both[1].why.values()) == {"its sale is not listed yet"}


def test_bare_hands_wait_for_the_bell(world):
    at(world)
    plan(world, names(world, 2))
    work(world)
    world.wait_until(session_hours(world.session).close + timedelta(hours=1))
    hands = BareHands(world.desk.broker, world.clock, Journal(world.folder / "journal", world.clock))
    report = hands.liquidate("kill-x")
    assert report["market_open"] is False and len(world.exchange.open_orders) == 2
    assert hands.cancel_everything() == 0 and len(world.exchange.open_orders) == 2  # its own sales stay
    world.wait_until(report["opens_at"] + timedelta(minutes=1))
    assert hands.liquidate("kill-x")["flat"] is True


def test_a_kill_from_outside_leaves_an_owned_folder_to_its_owner(world):
    kill = KillSwitch(None, world.clock, None, world.folder / "state")
    report = kill.activate("drill", "Ada")
    assert report["flat"] is None and "latched" in report["note"] and world.desk.kill.is_active
    with pytest.raises(OwnedError):
        kill.deactivate("CONFIRM-20260112", "Ada")


def test_F59_a_damaged_ledger_stops_no_kill_from_outside(tmp_path):
    (tmp_path / "execution").mkdir()
    (tmp_path / "execution" / "ledger.sqlite3").write_bytes(b"no database" * 200)
    report = switch(tmp_path, None).activate("drill")
    assert report["flat"] is None and switch(tmp_path, None).is_active
    spare = Hand(StillClock(NOON))
    report = switch(tmp_path, None, spare).activate("drill")  # the ledger was mended: it is the hand that sells
    assert report["flat"] is True and len(spare.tries) == 1
    assert list((tmp_path / "execution").glob("ledger*")) and switch(tmp_path, None).is_active


def test_F59_a_ledger_that_cannot_be_mended_leaves_it_to_the_spare_hands_after_the_latch(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("v23.kill_switch.open_ledger", fail)
    report = switch(tmp_path, None).activate("drill")
    assert report["flat"] is None and report["not_written"] and switch(tmp_path, None).is_active
    spare = Hand(StillClock(NOON))
    report = switch(tmp_path, None, spare=spare).activate("drill")
    assert report["flat"] is True and report["not_written"] and len(spare.tries) == 1


def test_F59_a_ledger_that_cannot_be_read_holds_no_latch_back(tmp_path):
    clock = StillClock(NOON)
    ledger = Ledger(tmp_path / "ledger.sqlite3", clock)
    kill = switch(tmp_path, ledger)
    ledger.close()  # every question to it fails from now on
    with pytest.raises(sqlite3.Error):
        list(ledger.events("kill"))
    named = kill.latch("the disk is gone", "Ada")
    assert kill.pressed == named and kill.halted() and (tmp_path / "KILL").exists() and switch(tmp_path, None).status()["reason"] == "the disk is gone"


def test_F76_what_comes_in_while_a_try_is_under_way_waits_for_its_end(tmp_path):
    "A hand that waits lets its owner answer others: a second press adds nothing, and nobody lifts the kill in the middle."
    said = []

    class Waiting(Hand):
        def liquidate(self, kill_id):
            said.append(kill.activate("again", "Bob")["flat"])
            said.append(kill.go_on())
            with pytest.raises(InputError, match="being carried out"):
                kill.deactivate(code_of(NOON.date()), "Eve", "never mind")
            return super().liquidate(kill_id)

    clock = StillClock(NOON)
    kill = switch(tmp_path, Ledger(":memory:", clock), Waiting(clock))
    assert kill.activate("drill")["flat"] is True and said == [None, None] and kill.is_active and not kill.flattening


def test_a_broker_that_cannot_be_told_to_refuse_orders_is_said(tmp_path):
    class Deaf(Hand):
        def suspend(self, on):
            raise BrokerError("no answer")

    clock = StillClock(NOON)
    kill = switch(tmp_path, Ledger(":memory:", clock), Deaf(clock))
    assert kill.activate("drill")["not_suspended"] == "no answer" and kill.is_flat


def test_a_kill_with_nothing_to_sell_with_is_latched(tmp_path):
    clock = StillClock(NOON)
    kill = switch(tmp_path, Ledger(":memory:", clock))
    assert kill.activate("drill")["flat"] is None and kill.is_active
    with pytest.raises(InputError, match="nothing to go on with"):
        switch(tmp_path / "other", Ledger(":memory:", clock)).pursue(1)
    with pytest.raises(InputError, match="active"):
        kill.resume("Ada", "x")
    assert kill.status() == {"active": True, "needs_resume": False, "reason": "drill", "state": "EMERGENCY", "flat": False}


def test_quantities_of_the_books_decide_what_is_sold_at_once(world):
    at(world)
    (symbol,) = names(world, 1)
    plan(world, [symbol], quantity=7)
    work(world)
    world.exchange.handle("POST", "/v2/orders", {}, json.dumps({"symbol": symbol, "qty": "5", "side": "buy", "type": "market", "time_in_force": "day"}).encode())
    world.clock.sleep(5)
    assert world.desk.kill.activate("drill")["flat"] is True
    assert sum((o.filled for o in world.exchange.orders.values() if o.side is Side.SELL), Decimal(0)) == 12


def test_a_place_nobody_can_look_at_counts_as_killed(tmp_path):
    kill = switch(tmp_path, Ledger(":memory:", StillClock(NOON)))
    kill.sentinel = tmp_path / ("x" * 5_000)
    assert kill.halted() and kill.is_active


def test_a_switch_takes_what_it_needs_from_an_engine(world):
    kill = KillSwitch(execution_engine=world.desk.engine)
    assert (kill.ledger, kill.clock, kill.folder, kill.engine) == (world.ledger, world.clock, world.folder / "state", world.desk.engine)


def test_the_books_have_to_agree_before_a_kill_is_lifted(killed):
    right = code_of(NOON.date())
    killed.ledger.record("reconciled", {"session": date(2026, 1, 20), "findings": [], "stops": ["AAA: 3 shares too many"]})
    with pytest.raises(InputError, match="3 shares too many"):
        killed.deactivate(right, "Ada")
    killed.activate("again")
    killed.ledger.record("kill", {"action": "flattened", "kill_id": killed.pressed, "report": {"left": {}}})
    with pytest.raises(InputError, match="books have to agree"):
        killed.deactivate(right, "Ada")


def test_a_short_position_is_named_and_left_to_a_person(world):
    at(world)
    (symbol,) = names(world, 1)
    world.exchange.configurations["no_shorting"], world.exchange.configurations["max_margin_multiplier"] = False, "2"
    body = {"symbol": symbol, "qty": "5", "side": "sell", "type": "market", "time_in_force": "day", "client_order_id": "by-hand"}
    world.exchange.handle("POST", "/v2/orders", {}, json.dumps(body).encode())
    world.clock.sleep(5)
    assert held_by(world)[symbol] == -5
    report = world.desk.kill.activate("drill")
    assert report["flat"] is False and "short" in report["left"][symbol]["reason"]


def test_a_broker_without_a_clock_counts_as_open_and_a_foreign_cancel_that_fails_is_noted(world):
    at(world)
    chosen = names(world, 2)
    plan(world, chosen[:1])
    work(world)
    world.exchange.plan_order_fault("hang_cancel", seconds=40)
    body = {"symbol": chosen[1], "qty": "3", "side": "buy", "type": "limit", "limit_price": "1", "time_in_force": "day", "client_order_id": "by-hand"}
    world.exchange.handle("POST", "/v2/orders", {}, json.dumps(body).encode())
    world.exchange.faults.add("GET", "/v2/clock", "error", times=20)
    cancel = world.desk.broker.cancel

    def fails(order_id):
        raise BrokerError("no answer")

    world.desk.broker.cancel = fails
    report = world.desk.kill.activate("drill")
    world.desk.broker.cancel = cancel
    assert report["flat"] is True and "CANCEL_FAILED" in [e.body["code"] for e in world.ledger.events("error")]


# What no fault of the exchange reaches


class Shelf:
    "A broker that holds what it is told to, and sells or refuses as it is told."

    def __init__(self, held=(), opens=(), cancel=None, sell=None):
        self.held, self.opens, self.cancel_error, self.sell_error, self.bodies, self.canceled = list(held), list(opens), cancel, sell, [], []

    def positions(self):
        return tuple(self.held)

    def orders(self, after, status="all"):
        return tuple(self.opens)

    def cancel_all(self):
        self.canceled.append("all")

    def cancel(self, order_id):
        self.canceled.append(order_id)
        if self.cancel_error:
            raise self.cancel_error

    def submit(self, body):
        self.bodies.append(json.loads(body))
        if self.sell_error:
            raise self.sell_error

    def configure(self, **wanted):
        return True

    def market_clock(self):
        raise BrokerError("no clock")


HELD = Position("AAA", Decimal(10), Decimal(10), Decimal(5), Decimal(5))


def listed(number, status, filled=0, minutes=1, order_id=""):
    "A sale without a ledger as the broker lists it, or an order of somebody else when it has no number."
    cid = bare_id("kill-x", "AAA", number) if number else "by-hand"
    stamp = NOON - timedelta(minutes=minutes)
    return BrokerOrder(order_id or cid, cid, "AAA", Side.SELL, status, Decimal(10), Decimal(filled), None, "market", None, stamp, stamp)


def hands(shelf, tmp_path):
    return BareHands(shelf, StillClock(NOON), Journal(tmp_path / "journal", StillClock(NOON)))


@pytest.mark.parametrize(
    ("before", "next_one"),
    [
        ([listed(1, "new")], None),  # one may trade still
        ([listed(1, "filled", 10, minutes=0)], None),  # the list of positions may not know of it yet
        ([listed(1, "rejected")], 2),
        ([listed(1, "canceled", 4)], 2),
        ([listed(n, "rejected") for n in (1, 2, 3, 4, 5)], None),
    ],
)
def test_bare_hands_place_the_next_sale_only_after_the_last_has_ended(before, next_one, tmp_path):
    shelf = Shelf([HELD])
    bare = hands(shelf, tmp_path)
    bare._sell("kill-x", HELD, {b.client_order_id: b for b in before})
    assert [b["client_order_id"] for b in shelf.bodies] == ([bare_id("kill-x", "AAA", next_one)] if next_one else [])
    assert bare.why.get("AAA") == ("refused too often" if len(before) == 5 else "its sale is not done yet" if next_one else None)


def test_bare_hands_take_a_lost_answer_for_a_sale_that_may_be_there(tmp_path):
    shelf = Shelf([HELD], sell=Ambiguous("no answer"))
    bare = hands(shelf, tmp_path)
    bare._sell("kill-x", HELD, {})
    bare._sell("kill-x", HELD, {})
    assert len(shelf.bodies) == 1 and bare.why == {"AAA": "no answer"}


def test_bare_hands_cancel_around_a_young_sale_and_go_on_when_one_does_not_end(tmp_path):
    shelf = Shelf(opens=[listed(1, "new", minutes=0), listed(0, "new", order_id="a"), listed(0, "new", order_id="b")], cancel=BrokerError("not now"))
    assert hands(shelf, tmp_path).cancel_everything() == 2 and shelf.canceled == ["a", "b"]
    assert [json.loads(x)["what"] for x in (tmp_path / "journal").read_text().splitlines()] == ["cancel_failed", "cancel_failed", "cancel_all"]
    old = Shelf(opens=[listed(1, "new", minutes=9)])
    assert hands(old, tmp_path).cancel_everything() == 0 and old.canceled == []  # nobody can say that the market is open


def test_bare_hands_ask_again_for_the_end_of_what_is_not_theirs(tmp_path):
    shelf = Shelf(opens=[listed(0, "pending_cancel", order_id="a")])
    report = hands(shelf, tmp_path).liquidate("kill-x", max_rounds=16)
    assert shelf.canceled == ["a"] and report["flat"] is False and report["left"] == {}


def test_a_sale_of_the_emergency_file_is_adopted_once_and_only_when_it_is_there(world):
    at(world)
    plan(world, names(world, 1))
    work(world)
    path = world.folder / "state" / "kill-emergency.jsonl"
    bare = BareHands(world.desk.broker, world.clock, Journal(path, world.clock))
    assert bare.liquidate("kill-x")["flat"] is True
    Journal(path, world.clock).note("sell", client_order_id=bare_id("kill-x", "ZZZ", 1))  # it never arrived
    assert adopt_bare(world.desk.engine, path) == 1 and adopt_bare(world.desk.engine, path) == 0


def test_a_kill_is_lifted_and_resumed_from_without_a_desk(tmp_path):
    clock = StillClock(NOON)
    with desk_ledger(tmp_path, clock, create=True) as ledger:
        KillSwitch(ledger, clock, None, tmp_path).activate("drill", "Ada")
        compared(ledger)
    alone = KillSwitch(state_dir=tmp_path, clock=clock)
    alone.deactivate(code_of(NOON.date()), "Ada", still_held="nobody looked")
    assert KillSwitch(state_dir=tmp_path, clock=clock).is_active is False
    alone.resume("Ada", "looked")
    with desk_ledger(tmp_path, clock) as ledger:
        assert [e.body["action"] for e in ledger.events("kill")][-2:] == ["deactivated", "resumed"]


def test_people_are_told_of_a_kill_once(tmp_path):
    told = Told()
    kill = switch(tmp_path, Ledger(":memory:", StillClock(NOON)), alerts=told)
    kill.announce("kill-1", "drill")
    kill.announce("kill-1", "drill")
    kill.announce("kill-2", "again")
    assert [(code, subject) for code, subject, _ in told.said] == [("KILL_SWITCH", "kill-1"), ("KILL_SWITCH", "kill-2")]


def test_lifting_a_kill_leaves_the_files_of_another_one_alone(tmp_path, killed):
    killed._save(True, "kill-20260120T130000", "somebody else", "Eve")
    killed._lift("kill-20260120T110000")
    assert killed.is_active and killed._noted()["kill_id"] == "kill-20260120T130000"


def test_a_kill_file_is_read_again_when_it_was_touched(tmp_path):
    kill = switch(tmp_path, Ledger(":memory:", StillClock(NOON)))
    kill.save_state()
    for active in (False, True, False):
        kill._save(active, "kill-1" if active else "", "")
        assert kill.is_active is kill.is_active is active
    kill.path.write_text("torn")
    assert kill.is_active and kill.is_active


def test_an_entry_that_the_first_cancel_missed_ends_in_the_rounds(world, monkeypatch):
    at(world)
    (symbol,) = names(world, 1)
    world.exchange.plan_order_fault("no_fill")
    plan(world, [symbol])
    world.kill_at = world.wire.requests + 3
    work(world)
    assert [o.state for o in world.desk.engine.tracker.live()] == [OrderState.WORKING]
    monkeypatch.setattr(type(world.desk.engine), "cancel_everything", lambda self: 0)
    assert world.desk.kill.activate("drill")["flat"] is True and not world.exchange.open_orders and world.violations == []


def test_shares_only_the_broker_sees_are_sold_once_it_has_said_so_for_longer_than_its_list_lags():
    excess: dict[str, datetime] = {}
    seen = [sellable(HELD, Decimal(booked), excess, NOON + timedelta(seconds=s)) for booked, s in ((4, 0), (-3, 5), (4, 10), (4, 11))]
    assert seen == [4, 0, 4, 10]


def test_the_incident_tells_orders_quotes_equity_and_every_event_from_the_ledger_alone(world):
    at(world)
    chosen = names(world, 3)
    plan(world, chosen)
    work(world)
    world.ledger.record("session_opened", {"session": world.session, "equity": Decimal(100_000), "account_id": "a", "intraday_adjustments": 0})
    world.desk.kill.activate("drill", "Ada")
    facts = incident_facts(world.ledger)
    arrivals = {p["symbol"]: p["arrival"] for p in world.ledger.parents() if p["arrival"]}
    assert {r["symbol"]: (r["bid"], r["ask"], r["quoted_at"]) for r in facts["sales"]} == {s: (arrivals[s]["bid"], arrivals[s]["ask"], arrivals[s]["at"]) for s in chosen}
    assert facts["equity"] and facts["equity"][-1]["when"] == "opened" and len(facts["timeline"]) > 10
    assert incident_line(facts).startswith(f"{facts['kill_id']} by Ada: drill; flat after ") and "3 sales sent" in incident_line(facts)
    assert "not flat: AAA" in incident_line(facts | {"flat_at": None, "left": {"AAA": {}}})


# Without a desk: the way out of `v23 kill` and `v23 panic`, in this process


def test_a_kill_alone_latches_writes_down_and_gets_out(world, tmp_path):
    at(world)
    plan(world, names(world, 2))
    work(world)
    told = Told()
    report = kill_alone(tmp_path / "alone", world.desk.broker, world.clock, "drill", "Ada", alerts=told)
    assert report["flat"] is True and held_by(world) == {} and [code for code, _, _ in told.said] == ["KILL_SWITCH"]
    with desk_ledger(tmp_path / "alone", world.clock) as ledger:
        assert [e.body["action"] for e in ledger.events("kill")] == ["activated", "flattened"]


@pytest.mark.parametrize("trouble", ["owned", "no ledger"])
def test_a_kill_alone_leaves_an_owned_folder_latched_and_does_without_a_ledger_that_cannot_be_opened(trouble, world, tmp_path):
    at(world)
    plan(world, names(world, 1))
    work(world)
    state = tmp_path / "alone"
    lock = StateLock(state) if trouble == "owned" else None
    if lock is None:
        (state / "execution" / "ledger.sqlite3").mkdir(parents=True)
    report = kill_alone(state, world.desk.broker, world.clock, "drill", "Ada")
    assert (state / "KILL").exists() and (report["flat"] is None if lock else report["flat"] is True)
    assert bool(held_by(world)) is bool(lock) and ("owns the desk" in report["note"] if lock else len(report["not_written"]) == 1)
    if lock:
        lock.release()


def test_without_keys_nothing_is_connected_and_an_exchange_says_what_time_it_is():
    with pytest.raises(SettingsError, match="are not set"):
        connect(Access("https://paper-api.alpaca.markets", Secret(""), Secret(""), "paper"))
    real, clock = connect(Access("https://paper-api.alpaca.markets", Secret("k"), Secret("s"), "paper"))
    assert real.clock is clock and abs((clock.now() - datetime.now(UTC)).total_seconds()) < 5
    with pytest.raises(BrokerError, match="no simulated exchange answers"):
        connect(emergency_access(exchange="http://127.0.0.1:1"), "http://127.0.0.1:1")[1].now()


class Panicked(Shelf):
    "A broker that closes everything, in steps: what it holds, and what it says, at each look."

    def __init__(self, looks, rows=(), opened=True, errors=()):
        super().__init__()
        self.looks, self.rows, self.opened, self.errors, self.asked, self.clock = list(looks), list(rows), opened, list(errors), 0, StillClock(NOON)

    def close_all(self):
        if self.errors and (error := self.errors.pop(0)):
            raise error
        self.asked += 1
        return self.rows

    def positions(self):
        self.held, self.opens = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return tuple(self.held)

    def is_market_open(self):
        return self.opened


def panicked(broker, seconds=120.0):
    said: list[str] = []
    return panic(broker, broker.clock, seconds, said.append), said


def test_panic_sees_the_account_empty_twice_and_says_what_was_answered():
    rows = [{"symbol": "AAA", "status": 200, "body": {}}, {"symbol": "BBB", "status": 422, "body": {"message": "halted"}}, {"symbol": "CCC", "status": 500, "body": "oops"}]
    told, said = panicked(Panicked([([HELD], [listed(1, "new")]), ([], [])], rows))
    assert told["flat"] is True and told["requests"] == 1 and said == [] and told["market_open"] is True
    assert told["asked"] == {"AAA": "accepted", "BBB": "refused (422): halted", "CCC": "refused (500): oops"}


def test_panic_asks_again_for_what_is_not_on_its_way_out_and_ends_with_its_patience():
    told, _ = panicked(Panicked([([HELD], [])], [{"symbol": "AAA", "status": 422, "body": {"message": "halted"}}]))
    assert told["flat"] is False and told["requests"] > 2 and told["left"]["AAA"]["reason"] == "refused (422): halted"


def test_panic_leaves_a_closed_market_to_the_bell():
    told, _ = panicked(Panicked([([HELD], [listed(1, "new")])], opened=False))
    assert told["market_open"] is False and told["flat"] is False and told["left"]["AAA"]["reason"] == "its sale is under way"


def test_panic_goes_on_when_the_broker_does_not_answer_and_points_to_its_page_when_the_keys_are_refused():
    told, said = panicked(Panicked([([], [])], errors=[BrokerError("away"), AuthLost("refused")]))
    assert told["flat"] is True and said == ["away", "refused; use the page of the broker"]
    told, said = panicked(Panicked([([], [])], errors=[BrokerError("away")] * 99), seconds=20.0)
    assert told["flat"] is False and told["wrong"] == "away" and len(said) >= 4
