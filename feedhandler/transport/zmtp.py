"""ZeroMQ's own protocol, ZMTP 3.0, for the sockets of the tick path, spoken in the thread that has the data.

libzmq does its input and output in a thread of its own, so each hop between processes costs three wake-ups of a
sleeping thread: into the sender's I/O thread, into the receiver's, and into the receiver. On a virtual machine
that is most of the latency and of the CPU time of a message (docs/performance.md has the numbers). Here the
sender writes, and the receiver reads: one wake-up a hop. On the other side of each socket may be any ZeroMQ
library: PUB and SUB, NULL mechanism, ipc and tcp on loopback; what leaves this host is libzmq's (`remote`).

    Outlet     binds; a PUB for any number of subscribers, each with its own queue and subscriptions
    Inlet      binds; a SUB to everything, for any number of publishers
    Uplink     connects, and again; a PUB for the one subscriber that bound
    Downlink   connects, and again; a SUB with prefixes

They are driven by a loop with `add_reader`, `add_writer` and their opposites: asyncio's, or `loop.Loop`.
Here are the bytes: greeting, commands, frames, and the limits. `peer` is a connection, `outlet` and `links` are the
sockets, `endpoints` and `loop` what they need.
Source: https://rfc.zeromq.org/spec/23/ (ZMTP 3.0) and https://rfc.zeromq.org/spec/29/ (PUB and SUB).
"""

import logging
import struct
import time
from typing import Final

LOGGED_MAX: Final = 100
LOG_AGAIN_S: Final = 60.0


class NotAgain(logging.Filter):
    """Passes the same line once a minute: a peer that comes back ten times a second is not to fill a log."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[str, float] = {}  # when it may be logged again

    def forget(self) -> None:
        """Let everything pass again."""
        self._logged.clear()

    def filter(self, record: logging.LogRecord) -> bool:
        text, now_s = record.getMessage(), time.monotonic()
        if now_s < self._logged.get(text, 0.0):
            return False
        if len(self._logged) >= LOGGED_MAX:  # or whoever finds something new to say each time
            self._logged = {text: until for text, until in self._logged.items() if now_s < until}
            if len(self._logged) >= LOGGED_MAX:
                return False
        self._logged[text] = now_s + LOG_AGAIN_S
        return True


log = logging.getLogger(__name__)
log.addFilter(NotAgain())

NULL: Final = b"NULL"
# Signature, version 3.0, mechanism, that we are no server, filler.
GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00" + NULL.ljust(20, b"\0") + bytes(32)
GREETING_SIZE: Final = 64
assert len(GREETING) == GREETING_SIZE
MECHANISM: Final = slice(12, 32)
VERSION_MAJOR: Final = 10
MORE, LONG, COMMAND = 1, 2, 4  # bits of a frame's first byte
SHORT_HEAD_SIZE, LONG_HEAD_SIZE = 2, 9  # of a frame: flags, and a u8 or u64 of its size
_LONG_SIZE: Final = struct.Struct("!Q")
READ_SIZE: Final = 1 << 18
PARTS_MAX: Final = 64  # of a message, where one may have several
HANDSHAKE_SIZE_MAX: Final = 1024  # of what a peer may send before it is ready
REQUEST_SIZE_MAX: Final = 1024  # of what a subscriber may send: a subscription is a prefix of 64 bytes
HOP_MESSAGE_SIZE_MAX: Final = 1 << 26  # an instrument list is about 1 MB
# Bytes that may wait for one peer that does not read, a subscriber or a merger that hangs: 88,000 records.
QUEUE_SIZE_MAX: Final = 17_000_000


def check_greeting(greeting: bytes) -> None:
    """Raise ValueError if a peer speaks another protocol, or wants a security that there is not."""
    if greeting[0] != 0xFF or greeting[9] & 1 == 0 or greeting[VERSION_MAJOR] < 3:
        raise ValueError("it does not speak ZMTP 3")
    mechanism = greeting[MECHANISM].rstrip(b"\0")
    if mechanism == b"CURVE":
        raise ValueError(
            "it is under CURVE, and we have come without keys (docs/operations.md, Beyond this host)"
        )
    if mechanism != NULL:
        raise ValueError(f"it wants the security mechanism {mechanism!r}, which is unknown here")


def ready_frame(socket_type: bytes) -> bytes:
    """Return the command that follows the greeting."""
    body = b"\x05READY\x0bSocket-Type" + struct.pack("!I", len(socket_type)) + socket_type
    return bytes((COMMAND, len(body))) + body


def pong_frame(rest: bytes) -> bytes:
    """Return the answer to a PING; rest is what follows its name."""
    answer = b"\x04PONG" + rest[2:18]  # after the time to live
    return bytes((COMMAND, len(answer))) + answer


def read_command(body: bytes, is_ready: bool, peer_types: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """Return name and rest of a command. Raises ValueError if it is broken, or ends the connection."""
    if not body:
        raise ValueError("it sent a command without a name")
    name, rest = body[1 : 1 + body[0]], body[1 + body[0] :]
    if name == b"READY" and not is_ready:
        kind = _properties(rest).get(b"socket-type", b"")
        if kind not in peer_types:
            raise ValueError(f"it is a {kind.decode(errors='replace')} socket")
    elif name == b"ERROR":
        raise ValueError(f"it refused us: {rest[1:].decode(errors='replace')}")
    return name, rest


def _properties(data: bytes) -> dict[bytes, bytes]:
    """Decode a READY command's metadata; names are case-insensitive. Raises ValueError."""
    found = {}
    while data:
        name_end = 1 + data[0]
        if len(data) < name_end + 4:
            raise ValueError("its READY command is broken")
        value_end = name_end + 4 + int.from_bytes(data[name_end : name_end + 4], "big")
        if len(data) < value_end:
            raise ValueError("its READY command is broken")
        found[data[1:name_end].lower()] = data[name_end + 4 : value_end]
        data = data[value_end:]
    return found


def frame_head(size: int, flags: int = 0) -> bytes:
    """Return what precedes a message, or a part of one, of that size."""
    return bytes((flags, size)) if size < 256 else bytes((flags | LONG,)) + _LONG_SIZE.pack(size)
