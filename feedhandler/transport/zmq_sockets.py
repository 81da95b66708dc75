"""Every ZeroMQ socket of the project, with each option and its reason; nothing relies on defaults.

Feed hop: the merger binds a SUB, feeds connect an XPUB, so that feeds can come and go, and a feed learns
from the subscription when a merger has (re)joined. Ticks: the merger binds an XPUB, subscribers connect.
"""

import contextlib
import socket as socket_module
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import zmq

from feedhandler.errors import ConfigError

# Messages queued for one peer before further ones are dropped (a PUB never waits). A feed's message is one
# socket read: one record when it is quiet, some ten in a burst, so 10,000 are 2 to 20 MB if the merger hangs,
# and half a second at 20,000 a second. A tick message is 168 bytes, with libzmq's overhead about 300, so
# 100,000 are 30 MB for each subscriber that does not read.
FEED_HWM_MESSAGES: Final = 10_000
TICKS_HWM_MESSAGES: Final = 100_000
RECONNECT_MS: Final = 100  # on loopback there is nothing to be polite to
RECONNECT_MAX_MS: Final = 1000
LINGER_MS: Final = 200  # at exit, to let the last records (DOWN) leave


def feed_publisher(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> "zmq.Socket[bytes]":
    """Return a feed's end of the feed hop."""
    socket = context.socket(zmq.XPUB)
    socket.set(zmq.SNDHWM, FEED_HWM_MESSAGES)
    socket.set(zmq.LINGER, LINGER_MS)
    socket.set(zmq.XPUB_VERBOSE, 1)  # tell of every subscription: a restarted merger sends the same one
    socket.set(zmq.IMMEDIATE, 1)  # queue nothing while there is no merger: it gets a snapshot on joining
    socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    make_directory_for(endpoint)
    socket.connect(endpoint)
    return socket


def feed_subscriber(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> "zmq.Socket[bytes]":
    """Return the merger's end of the feed hop. Raises ConfigError if it cannot bind."""
    socket = context.socket(zmq.SUB)
    socket.set(zmq.RCVHWM, FEED_HWM_MESSAGES)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SUBSCRIBE, b"")
    bind(socket, endpoint, "merger.feeds")
    return socket


def ticks_publisher(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoints: Sequence[str]
) -> "zmq.Socket[bytes]":
    """Return the merger's end toward subscribers. Raises ConfigError if it cannot bind."""
    socket = context.socket(zmq.XPUB)
    socket.set(zmq.SNDHWM, TICKS_HWM_MESSAGES)
    socket.set(zmq.LINGER, LINGER_MS)
    # Subscriptions take effect when we say so: otherwise libzmq may switch one on in the middle of a burst,
    # and its subscriber gets newer records before the replay of the last ones.
    socket.set(zmq.XPUB_MANUAL, 1)
    for endpoint in endpoints:
        bind(socket, endpoint, "merger.ticks")
    return socket


def ticks_subscriber(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, prefixes: Sequence[bytes]
) -> "zmq.Socket[bytes]":
    """Return a subscriber's end."""
    socket = context.socket(zmq.SUB)
    socket.set(zmq.RCVHWM, TICKS_HWM_MESSAGES)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    for prefix in prefixes:
        socket.set(zmq.SUBSCRIBE, prefix)
    socket.connect(endpoint)
    return socket


def bind(socket: "zmq.Socket[bytes]", endpoint: str, key: str) -> None:
    """Bind, patiently for a second: a predecessor killed a moment ago may still hold the port.

    Raises ConfigError with the remedy.
    """
    make_directory_for(endpoint)
    if is_ipc_in_use(endpoint):  # libzmq would take it over without a word
        raise ConfigError(
            f"{key}: {endpoint} is in use by another process; stop it, or configure another address"
        )
    deadline = time.monotonic() + 1.0
    while True:
        try:
            socket.bind(endpoint)
            return
        except zmq.ZMQError as exc:
            if exc.errno == zmq.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise ConfigError(
                f"{key}: cannot bind {endpoint}: {exc.strerror};"
                " stop what holds it, or configure another address"
            ) from exc


def is_ipc_in_use(endpoint: str) -> bool:
    """True if a process listens at an ipc address; a file left behind by a killed one does not count."""
    scheme, _, path = endpoint.partition("://")
    if scheme != "ipc":
        return False
    with socket_module.socket(socket_module.AF_UNIX, socket_module.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == 0


def remove_file_of(endpoint: str) -> None:
    """Remove the socket file that libzmq leaves behind; only the process that had bound it may."""
    scheme, _, path = endpoint.partition("://")
    if scheme == "ipc":
        Path(path).unlink(missing_ok=True)


def make_directory_for(endpoint: str) -> None:
    """Create the directory of an ipc endpoint."""
    scheme, _, path = endpoint.partition("://")
    if scheme == "ipc":
        with contextlib.suppress(FileExistsError):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
