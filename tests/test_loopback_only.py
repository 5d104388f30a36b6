"No test reaches beyond this machine, in its own process or in one it starts."

import socket
import subprocess
import sys

import pytest

FAR = "192.0.2.1"  # Reserved for documentation: nobody lives there


def test_a_far_address_is_refused_before_a_packet_leaves():
    with socket.socket() as s, pytest.raises(RuntimeError, match="only loopback"):
        s.connect((FAR, 443))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s, pytest.raises(RuntimeError, match="only loopback"):
        s.sendto(b"x", (FAR, 53))
    with pytest.raises(RuntimeError, match="look up"):
        socket.create_connection(("example.com", 80), timeout=1)


def test_this_machine_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            socket.create_connection((host, port), timeout=5).close()
    left, right = socket.socketpair()
    left.sendall(b"x")
    assert right.recv(1) == b"x"
    left.close(), right.close()


def test_a_process_started_by_a_test_is_guarded_too():
    code = f"import socket; socket.create_connection(({FAR!r}, 443), timeout=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0 and "only loopback" in done.stderr
