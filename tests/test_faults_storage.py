"Disks that fill up, fail, tear, flip a bit, forget or turn read-only: real files, and nothing leaves that is not on them."

import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import tempfile
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from order_harness import Storm, World
from test_faults_order_path import at, errors, fills_of, held_by, names, plan, settled, work

from v23.adapters.ledger import Ledger
from v23.adapters.ledger_files import backup_ledger, restore_ledger
from v23.adapters.snapshots import read_snapshot, write_atomic
from v23.domain import OrderState, Purpose, Side
from v23.errors import LedgerError, V23Error
from v23.market_calendar import session_hours
from v23.trading_desk import safe_mode


@pytest.fixture
def world(tmp_path):
    made = World(3, tmp_path, Storm())
    yield made
    made.close()


@contextmanager
def full_disk(room: int):
    "No file of this process may grow beyond so many bytes: writing more fails, as on a disk that is full."
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    was = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, was)


def wal_size(world: World) -> int:
    return (world.folder / "state" / "execution" / "ledger.sqlite3-wal").stat().st_size


@pytest.mark.parametrize("pages", [0, 1, 3, 6, 10, 20])
def test_F56_on_a_full_disk_nothing_leaves_that_is_not_written_down(pages, world):
    at(world)
    plan(world, names(world, 5))
    with full_disk(wal_size(world) + pages * 4_200), pytest.raises(LedgerError):
        work(world)
    assert world.violations == []  # every request on the wire was SENDING in the ledger
    known = {o.client_order_id for o in world.ledger.orders() if o.attempts}
    assert {o.client_order_id for o in world.exchange.orders.values()} <= known
    world.restart()  # there is room again
    world.desk.look(world.session)
    work(world)
    settled(world)
    assert len(fills_of(world)) == 5


@pytest.mark.parametrize("nth", range(1, 8))
@pytest.mark.parametrize("what", ["write", "fsync", "replace"])
def test_F56_a_snapshot_that_cannot_be_written_leaves_the_old_one(what, nth, tmp_path, monkeypatch):
    import errno

    target, calls, real = tmp_path / "file.json", [0], {"fsync": os.fsync, "replace": os.replace, "write": os.open}[what]

    def fails(*args, **more):
        calls[0] += 1
        if calls[0] == nth:
            raise OSError(errno.EIO if nth % 2 else errno.ENOSPC, "no")
        return real(*args, **more)

    write_atomic(target, "0")
    monkeypatch.setattr(os, {"fsync": "fsync", "replace": "replace", "write": "open"}[what], fails)
    for n in range(1, 5):
        before = target.read_text()
        try:
            write_atomic(target, str(n))
            assert target.read_text() == str(n)
        except OSError:
            assert target.read_text() in (before, str(n))
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_F56_a_kill_on_a_full_disk_is_latched_and_says_what_it_could_not_do(world):
    at(world)
    plan(world, names(world, 2))
    work(world)
    with full_disk(wal_size(world)):
        report = world.desk.kill.activate("drill")
        assert report["not_written"] and (world.folder / "state" / "KILL").exists() and world.desk.kill.is_active
        plan_more = pytest.raises(V23Error)
        with plan_more:
            plan(world, names(world, 3), note="more")
    world.restart()
    world.desk.look(world.session)
    assert held_by(world) == {} and world.desk.kill.is_flat and world.violations == []


def nobody(folder: str, answer) -> None:
    "A process without rights on the folder tries to open a desk there."
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    try:
        World(3, Path(folder), Storm())
        answer.put("opened")
    except (V23Error, OSError) as e:
        answer.put(type(e).__name__)


def test_F56_in_a_read_only_folder_no_desk_opens():
    folder = Path(tempfile.mkdtemp(prefix="v23-read-only-"))
    try:
        (folder / "state").mkdir()
        (folder / "state").chmod(0o555)
        folder.chmod(0o555)
        context = multiprocessing.get_context("fork")
        answer = context.Queue()
        child = context.Process(target=nobody, args=(str(folder), answer))
        child.start()
        assert answer.get(timeout=60) in ("LedgerError", "OwnedError", "PermissionError", "StateError")
        child.join()
        assert list((folder / "state").iterdir()) == []
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def traded(tmp_path_factory):
    "The files of a desk that died with everything still in its write-ahead log, and the events it had."
    folder = tmp_path_factory.mktemp("traded")
    world = World(3, folder, Storm())
    at(world)
    plan(world, names(world, 4))
    work(world)
    events = [row[0] for row in world.ledger._db.execute("SELECT hash FROM events ORDER BY seq")]
    kept = folder / "kept"
    shutil.copytree(folder / "state" / "execution", kept)
    world.close()
    return kept, events, world


def hashes(path: Path) -> list[str]:
    db = sqlite3.connect(path)
    try:
        return [row[0] for row in db.execute("SELECT hash FROM events ORDER BY seq")]
    finally:
        db.close()


def test_F56_a_torn_log_is_a_shorter_history_and_never_another(traded, tmp_path, v23_seed):
    kept, events, world = traded
    rng, lengths = random.Random(v23_seed), set()
    whole = (kept / "ledger.sqlite3-wal").read_bytes()
    for n in range(int(os.environ.get("V23_TORN", "60"))):
        folder = tmp_path / str(n)
        shutil.copytree(kept, folder)
        (folder / "ledger.sqlite3-shm").unlink(missing_ok=True)
        cut = rng.randrange(len(whole))
        torn = whole[:cut] + (rng.randbytes(rng.randrange(600)) if n % 3 == 0 else b"")
        (folder / "ledger.sqlite3-wal").write_bytes(torn)
        ledger = Ledger(folder / "ledger.sqlite3", world.clock)
        ledger.verify()
        ledger.close()
        found = hashes(folder / "ledger.sqlite3")
        assert found == events[: len(found)]
        lengths.add(len(found))
        shutil.rmtree(folder)
    assert len(lengths) > 5


def test_F59_a_flipped_bit_is_found_or_changes_nothing(traded, tmp_path, v23_seed):
    kept, events, world = traded
    whole_folder = tmp_path / "whole"
    shutil.copytree(kept, whole_folder)
    ledger = Ledger(whole_folder / "ledger.sqlite3", world.clock)
    ledger._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()
    whole = Ledger(whole_folder / "ledger.sqlite3", world.clock)
    kinds = sorted({e.kind for e in whole.events()})
    by_kind = {k: [e.seq for e in whole.events(k)] for k in kinds}
    whole.close()
    image, rng, found = (whole_folder / "ledger.sqlite3").read_bytes(), random.Random(v23_seed), 0
    for n in range(int(os.environ.get("V23_FLIPS", "150"))):
        path = tmp_path / f"{n}.sqlite3"
        at_byte = rng.randrange(len(image))
        path.write_bytes(image[:at_byte] + bytes([image[at_byte] ^ (1 << rng.randrange(8))]) + image[at_byte + 1 :])
        try:
            ledger = Ledger(path, world.clock)
        except LedgerError:
            found += 1
            continue
        try:
            ledger.verify()
            assert [row[0] for row in ledger._db.execute("SELECT hash FROM events ORDER BY seq")] == events
            assert {k: [e.seq for e in ledger.events(k)] for k in kinds} == by_kind  # an index counts too
        except LedgerError:
            found += 1
        finally:
            ledger.close()
    assert found > 30


def damaged(world: World, *statements: str) -> None:
    "The desk ends, and somebody or something writes to its ledger past it."
    for statement in statements:
        world.ledger._db.execute(statement)
    world.drop()


def aside(world: World) -> list[Path]:
    return sorted((world.folder / "state" / "execution").glob("ledger.damaged-*.sqlite3"))


DAMAGES = {
    "an event": ("UPDATE events SET body=replace(body, '10', '11') WHERE seq=(SELECT max(seq) FROM events WHERE kind='fill')",),
    "an event is gone": ("DELETE FROM events WHERE seq=(SELECT min(seq) + 3 FROM events WHERE kind='order')",),
    "a table": ("DELETE FROM fills",),
    "all of it": ("DROP TABLE events",),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_F59_a_desk_with_a_damaged_ledger_opens_in_safe_mode_sells_and_buys_nothing(what, world):
    at(world)
    chosen = names(world, 3)
    plan(world, chosen[:2])
    work(world)
    held = held_by(world)
    damaged(world, *DAMAGES[what])
    world.start()
    (kept,) = aside(world)
    why = safe_mode(world.ledger)
    assert why and kept.name in why and world.ledger.verify() == world.ledger.last_seq
    before = len(world.exchange.orders)
    world.desk.look(world.session)
    plan(world, chosen, note="more")
    work(world)
    assert len(world.exchange.orders) == before and ("critical", "LEDGER_DAMAGED") in errors(world)
    leave = chosen[0]
    plan(world, [leave], Side.SELL, held[leave], Purpose.EXIT, "leave")
    work(world)
    assert leave not in held_by(world) and world.violations == []
    world.restart()
    assert safe_mode(world.ledger) and aside(world) == [kept]  # another start changes nothing
    world.desk.accept("somebody", "compared with the broker's page")
    world.desk.look(world.session)
    plan(world, chosen[2:], note="after")
    work(world)
    assert chosen[2] in held_by(world) and fills_and_accepted(world) == held_by(world)


def fills_and_accepted(world: World) -> dict[str, Decimal]:
    return {s: q for s, q in world.ledger.positions().items() if q}


def test_F59_a_kill_with_a_damaged_ledger_sells_everything(world):
    at(world)
    plan(world, names(world, 3))
    work(world)
    damaged(world, "UPDATE events SET body='{}' WHERE seq=2")
    world.start()
    assert world.desk.kill.activate("drill")["flat"] and held_by(world) == {} and world.violations == []


def test_F59_a_kill_that_is_latched_outlives_the_ledger(world):
    at(world)
    plan(world, names(world, 2))
    work(world)
    world.desk.kill.activate("drill")
    damaged(world, "UPDATE events SET body='{}' WHERE seq=2")
    world.start()
    assert world.desk.kill.is_active
    world.desk.look(world.session)
    plan(world, names(world, 2), note="more")
    work(world)
    assert held_by(world) == {} and world.violations == []


@pytest.mark.parametrize("nth", range(1, 4))
def test_F59_a_process_that_dies_while_it_mends_is_followed_by_one_that_mends(nth, world, monkeypatch):
    from order_harness import Died

    at(world)
    plan(world, names(world, 2))
    work(world)
    events = world.ledger.last_seq
    damaged(world, "UPDATE events SET body='{}' WHERE seq=7")
    real, calls = os.replace, [0]

    def dies(*paths):
        calls[0] += 1
        if calls[0] == nth:
            raise Died
        real(*paths)

    monkeypatch.setattr(os, "replace", dies)
    if nth <= 2:  # the note, the ledger
        with pytest.raises(Died):
            world.start()
    monkeypatch.setattr(os, "replace", real)
    world.start()
    assert safe_mode(world.ledger) and "6 events of it verify" in safe_mode(world.ledger) and world.ledger.last_seq < events
    assert not (world.folder / "state" / "execution" / ".mending").exists() and aside(world)


def test_F57_a_restored_backup_keeps_entries_off_until_the_books_agree(world):
    at(world)
    chosen = names(world, 4)
    plan(world, chosen[:2])
    work(world)
    state, backup = world.folder / "state", world.folder / "backup.sqlite3"
    world.drop()
    backup_ledger(state, backup, world.clock)
    world.start()
    world.desk.look(world.session)
    plan(world, chosen[2:])
    work(world)
    world.drop()
    restore_ledger(state, backup, world.clock)
    world.start()
    world.desk.look(world.session)
    plan(world, chosen[:1], note="after")
    before = len(world.exchange.orders)
    work(world)
    world.desk.engine.recover()
    _, stops = world.desk.reconcile(world.session)
    assert stops and len(world.exchange.orders) == before


def test_F58_an_old_snapshot_is_written_anew_from_the_ledger(world):
    at(world)
    path = world.folder / "state" / "execution" / "execution_state.json"
    world.desk.save_state()
    old = path.read_bytes()
    plan(world, names(world, 2))
    work(world)
    path.write_bytes(old)
    world.restart()
    world.desk.save_state()
    assert {s: Decimal(q) for s, q in read_snapshot(path)["positions"].items()} == fills_of(world)
    assert session_hours(world.session).close - world.clock.now() > timedelta(0) and {o.state for o in world.ledger.orders()} == {OrderState.FILLED}
