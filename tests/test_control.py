"The control channel: who may ask, what is refused, and what a caller learns when the owner is not there."

import json
import os
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from v23 import control
from v23.control import MAX_BODY, SOCKET_NAME, ControlRefused, ControlServer, Inbox, NoOwner, OwnerSilent, ask, is_owned
from v23.errors import InputError


def echo(who, fields):
    return {"who": who, **fields}


@pytest.fixture
def server(tmp_state):
    with ControlServer(tmp_state, {"status": echo}) as running:
        yield running


def raw(state, line: bytes, half_close: bool = True) -> dict:
    "What the owner says to arbitrary bytes."
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(10)
        with control._address(state, SOCKET_NAME) as address:
            s.connect(address)
        try:
            s.sendall(line)
            if half_close:
                s.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it had enough already; the answer is what counts
        return json.loads(s.makefile().readline())


def request(**changes) -> bytes:
    asked = {"id": os.urandom(16).hex(), "at": datetime.now(UTC).isoformat(), "command": "status", "who": "ann", "fields": {}}
    return json.dumps(asked | changes).encode() + b"\n"


def test_a_command_gets_the_owners_answer(server, tmp_state):
    assert ask(tmp_state, "status", who="ann", depth=2) == {"who": "ann", "depth": 2}
    assert ask(tmp_state, "status")["who"] == control.user_name()


def test_the_socket_is_private(server, tmp_state):
    assert oct((tmp_state / SOCKET_NAME).stat().st_mode)[-4:] == "0600"
    assert [p.name for p in tmp_state.iterdir()] == [SOCKET_NAME]


def test_a_request_is_used_once(server, tmp_state):
    line = request()
    assert raw(tmp_state, line)["ok"]
    assert raw(tmp_state, line) == {"ok": False, "reason": "this request was already used; ask again"}


@pytest.mark.parametrize("seconds", [-31, -3600, 31])
def test_an_old_or_future_request_is_refused(server, tmp_state, seconds):
    reply = raw(tmp_state, request(at=(datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()))
    assert not reply["ok"] and "s old, at most 30 s" in reply["reason"]


def test_a_replay_after_the_nonce_is_forgotten_is_too_old(tmp_state):
    clock = [datetime.now(UTC)]
    with ControlServer(tmp_state, {"status": echo}, now=lambda: clock[0]):
        line = request()
        assert raw(tmp_state, line)["ok"]
        clock[0] += timedelta(seconds=90)
        assert raw(tmp_state, request(at=clock[0].isoformat()))["ok"]  # lets go of old nonces
        assert "old" in raw(tmp_state, line)["reason"]


def test_a_large_request_is_refused_before_and_after_it_leaves(server, tmp_state):
    with pytest.raises(InputError, match="at most 65536"):
        ask(tmp_state, "status", text="x" * MAX_BODY)
    assert "more than 65536 bytes" in raw(tmp_state, request(who="x" * (2 * MAX_BODY)))["reason"]
    assert ask(tmp_state, "status", text="x" * (MAX_BODY - 1000))["text"]


@pytest.mark.parametrize(
    "line",
    [b"\n", b"hello\n", b"[]\n", b"{}\n", b"\xff\xfe\n", request(fields=[]), request(command=7), request(at="yesterday"), request(at="2026-01-20T12:00:00"), request(id="1"), b"[" * 50_000 + b"\n"],
)
def test_anything_of_another_form_is_refused(server, tmp_state, line):
    assert raw(tmp_state, line) == {"ok": False, "reason": "the request is not one JSON line with id, at, command, who and fields"}
    assert ask(tmp_state, "status")


def test_another_user_is_refused_on_both_sides(server, tmp_state, monkeypatch):
    monkeypatch.setattr(control, "peer_uid", lambda connection: 4242)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert raw(tmp_state, request())["reason"] == "the desk belongs to another user"
    with pytest.raises(ControlRefused, match="belongs to another user"):
        ask(tmp_state, "status")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_real_other_user_is_refused_even_where_the_file_lets_him(server, tmp_path, tmp_state):
    os.chmod(tmp_state, 0o755)
    os.chmod(tmp_state / SOCKET_NAME, 0o666)
    code = (
        "import os, sys, socket; os.chdir(sys.argv[1]); os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
        f"s.connect('{SOCKET_NAME}'); s.sendall(sys.stdin.buffer.read()); print(s.makefile().readline())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_state)], input=request(), capture_output=True, check=True, timeout=30)
    assert json.loads(done.stdout)["reason"] == "the desk belongs to another user"


def test_nobody_there_is_said_so(tmp_state):
    with pytest.raises(NoOwner, match="no process owns the desk"):
        ask(tmp_state, "status")
    with pytest.raises(NoOwner):
        ask(tmp_state / "nowhere", "status")
    assert not is_owned(tmp_state)


OWNER = """
import sys, time
from v23.control import ControlServer
with ControlServer(sys.argv[1], {"status": lambda who, fields: time.sleep(fields.get("sleep", 0)) or {}}):
    print("ready", flush=True)
    time.sleep(60)
"""


def owner_process(state) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(state)], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def test_a_dead_owner_is_nobody_and_the_next_takes_its_place(tmp_state):
    process = owner_process(tmp_state)
    assert ask(tmp_state, "status") == {}
    end(process)
    assert (tmp_state / SOCKET_NAME).exists()  # nobody was left to tidy up
    with pytest.raises(NoOwner):
        ask(tmp_state, "status")
    with ControlServer(tmp_state, {"status": echo}):
        assert ask(tmp_state, "status", a=1)["a"] == 1
    assert not (tmp_state / SOCKET_NAME).exists()


def test_an_owner_that_dies_while_asked_is_told_apart_from_a_refusal(tmp_state):
    process = owner_process(tmp_state)
    threading.Timer(0.3, process.kill).start()
    with pytest.raises(OwnerSilent, match="ended before it answered"):
        ask(tmp_state, "status", sleep=30)
    end(process)


def test_an_owner_that_hangs_is_nobody_after_the_timeout(tmp_state):
    process = owner_process(tmp_state)
    began = time.monotonic()
    with pytest.raises(NoOwner, match="did not answer status within 0.3 s"):
        ask(tmp_state, "status", timeout=0.3, sleep=30)
    assert time.monotonic() - began < 2
    end(process)


def test_the_former_owner_does_not_take_away_the_socket_of_the_next(tmp_state):
    first = ControlServer(tmp_state, {"status": lambda who, fields: {"n": 1}}).start()
    second = ControlServer(tmp_state, {"status": lambda who, fields: {"n": 2}}).start()
    first.stop()
    assert ask(tmp_state, "status") == {"n": 2}
    second.stop()
    second.stop()


def test_a_reason_is_one_line_and_a_broken_handler_ends_nobody(tmp_state, monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_type))

    def refuse(who, fields):
        raise ControlRefused("not\nnow")

    with ControlServer(tmp_state, {"kill": refuse, "save": lambda who, fields: 1 / 0, "status": echo}):
        with pytest.raises(ControlRefused, match="^not now$"):
            ask(tmp_state, "kill")
        with pytest.raises(ControlRefused, match="its log says why"):
            ask(tmp_state, "save")
        with pytest.raises(ControlRefused, match="no command 'sell'"):
            ask(tmp_state, "sell")
        assert ask(tmp_state, "status")
    assert seen == [ZeroDivisionError]


def test_a_kill_does_not_queue_behind_a_slow_command(tmp_state):
    inbox, killed = Inbox(patience_s=5), threading.Event()
    handlers = {"save": inbox.handler(echo), "kill": lambda who, fields: killed.set() or {}}
    with ControlServer(tmp_state, handlers):
        slow = threading.Thread(target=lambda: ask(tmp_state, "save"))
        slow.start()
        assert inbox.arrived.wait(5)
        assert ask(tmp_state, "kill", timeout=1) == {} and killed.is_set()
        assert inbox.run() == 1
        slow.join()


def test_what_the_desk_was_too_busy_for_is_never_done_later(tmp_state):
    done, inbox = [], Inbox(patience_s=0.1)
    handlers = {"save": inbox.handler(lambda who, fields: done.append(1) or {})}
    with ControlServer(tmp_state, handlers), pytest.raises(ControlRefused, match="busy for 0.1 s; nothing was done"):
        ask(tmp_state, "save")
    assert inbox.run() == 0 and done == []


def test_clients_that_say_nothing_do_not_lock_others_out_for_long(tmp_state):
    with ControlServer(tmp_state, {"status": echo}, read_timeout_s=0.3):
        mute = []
        for _ in range(control.MAX_CLIENTS + 4):
            s = socket.socket(socket.AF_UNIX)
            with control._address(tmp_state, SOCKET_NAME) as address:
                s.connect(address)
            mute.append(s)
        assert ask(tmp_state, "status", timeout=5)
        for s in mute:
            s.close()


def test_a_folder_deeper_than_a_socket_name_works(tmp_path):
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    with ControlServer(deep, {"status": echo}):
        assert ask(deep, "status", x=1)["x"] == 1
    assert not is_owned(deep)


def test_the_channel_costs_no_heavy_import():
    probe = "import v23.control, sys; print([m for m in ('pandas', 'numpy', 'pydantic', 'alpaca', 'asyncio', 'requests') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
