"""No test leaves this machine: an audit hook that refuses every connection that is not loopback.

Python imports a module of this name by itself, so with this folder on PYTHONPATH the processes and kernels a test
starts are guarded too. Sockets between processes (AF_UNIX) and listening are not touched.
"""

import sys


class NotLoopback(RuntimeError):
    "A test reached for the network; not an OSError, so that nothing that retries swallows it."


def is_loopback(host: object) -> bool:
    "True for this machine's own addresses and names, and for the empty host of a listening socket."
    if isinstance(host, bytes | bytearray):
        host = bytes(host).decode("ascii", "replace")
    if host is None or host in ("", "localhost", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1"):
        return True
    text = str(host).lower()
    if text.endswith(".localhost"):
        return True
    parts = text.split(".")
    return len(parts) == 4 and parts[0] == "127" and all(p.isdigit() for p in parts)


def guard(event: str, args: tuple) -> None:
    "Refuse before the first packet; a name is refused before it is looked up."
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        if isinstance(address, tuple) and not is_loopback(address[0]):
            raise NotLoopback(f"a test tried to reach {address[0]}:{address[1]}; only loopback is allowed")
    elif event == "socket.getaddrinfo" and not is_loopback(args[0]):
        raise NotLoopback(f"a test tried to look up {args[0]}; only loopback is allowed")


if not getattr(sys, "_v23_loopback_only", False):
    sys._v23_loopback_only = True  # type: ignore[attr-defined]
    sys.addaudithook(guard)
