"""Ports of loopback for processes and sockets that have to be told theirs before they are started.

A port that was bound and closed again belongs to whoever asks next: another test beside this one, or any
connection, since the kernel takes the near end's port from the same range. So these are below that range, and each
is given out once, to one process: it keeps blocks of them, by names of sockets that end with it.
"""

import contextlib
import os
import socket
from pathlib import Path

FIRST = 10_000
BLOCK = 100

_kept = []  # sockets without a file, whose names tell that a block is taken
_free = []  # ports of the last block


def free_ports(count):
    """Return ports that nobody listens to, and that nobody else is given while this process lives."""
    return [_next() for _ in range(count)]


def free_endpoint():
    return f"tcp://127.0.0.1:{_next()}"


def _next():
    while True:
        if not _free:
            _free.extend(_new_block())
        port = _free.pop()
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def _new_block():
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    blocks = (end - FIRST) // BLOCK
    for number in range(blocks):
        first = FIRST + (os.getpid() + number) % blocks * BLOCK
        keeper = socket.socket(socket.AF_UNIX)
        try:
            keeper.bind(f"\0feedhandler tests: ports from {first}")
        except OSError:
            keeper.close()
            continue
        _kept.append(keeper)
        return range(first, first + BLOCK)
    raise OSError(f"all {blocks} blocks of ports are taken by other tests")
