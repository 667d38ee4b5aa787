"""Loopback ports for a server that must be told its port before it listens.

The system chooses a port as it binds a socket. Here that socket stays bound, though nothing
listens on it, until the server has the port: meanwhile the system gives it to nobody else.
On Linux both may bind it, as both allow that (SO_REUSEADDR; Java, Rust and Go set it for
every listener) and only one listens. Elsewhere the port is free again from the launch on,
and a server that lost it is started again on another.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

HOST = "127.0.0.1"


@contextmanager
def reserve_ports(number: int) -> Iterator[list[int]]:
    """Ports of 127.0.0.1 that nobody else is given while the block runs.

    Raises:
        OSError: there is none left.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(_bound(0)) for _ in range(number)]
        ports: list[int] = [one.getsockname()[1] for one in sockets]
        if sys.platform != "linux":
            stack.close()
        yield ports


def is_port_free(port: int) -> bool:
    """Whether a server could listen on it now."""
    try:
        with _bound(port) as one:
            one.listen(1)
    except OSError:
        return False
    return True


def _bound(port: int) -> socket.socket:
    one = socket.socket()
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((HOST, port))
    except BaseException:
        one.close()
        raise
    return one
