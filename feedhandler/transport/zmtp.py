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

They are driven by a loop with `add_reader`, `add_writer` and their opposites: asyncio's, or `Loop` here.
`_tick.pyx` has compiled twins of the classes, held to the same tests; `tick` says which ones are in use.
Source: https://rfc.zeromq.org/spec/23/ (ZMTP 3.0) and https://rfc.zeromq.org/spec/29/ (PUB and SUB).
"""

import contextlib
import errno
import functools
import heapq
import itertools
import logging
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol

from feedhandler.data import modes, wire
from feedhandler.data.errors import ConfigError
from feedhandler.transport import private
from feedhandler.transport.private import IPC_PATH_SIZE_MAX
from feedhandler.transport.queues import Queues
from feedhandler.transport.subscribing import (
    SUBSCRIBE,
    Budget,
    Cancellable,
    Join,
    LastValues,
    Subscribers,
    Subscriptions,
)

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
_LONG_SIZE: Final = struct.Struct("!Q")
PEER: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid of who listens, as of then
READ_SIZE: Final = 1 << 18
PARTS_MAX: Final = 64  # of a message, where one may have several
HANDSHAKE_S: Final = 10.0  # after which a connection that is no socket yet is closed; it takes milliseconds
CLOSED_PER_TURN: Final = 20  # of those: each is some system calls, and thousands may be due at once
HANDSHAKE_SIZE_MAX: Final = 1024  # of what a peer may send before it is ready
REQUEST_SIZE_MAX: Final = 1024  # of what a subscriber may send: a subscription is a prefix of 64 bytes
BUFFER_SIZE: Final = 1 << 20  # asked of the kernel, for both directions
HEARERS_MAX: Final = 100_000  # topics whose subscribers are remembered
HOP_MESSAGE_SIZE_MAX: Final = 1 << 26  # an instrument list is about 1 MB
# Bytes that may wait for one peer that does not read, a subscriber or a merger that hangs: 88,000 records.
QUEUE_SIZE_MAX: Final = 17_000_000
# Of a subscriber that wants the newest only: what the kernel holds for it is no longer the newest when it is read.
CONFLATED_BUFFER_SIZE: Final = 1 << 12
GROUP_MAY_CONNECT: Final = 0o660  # to connect to a socket is to write to it
BACKLOG: Final = 128  # connections that wait to be accepted
# To accept takes some 100 us, and a peer that comes and goes in a loop would have it done for nothing: at most 5 %
# of a processor in the long run. A few thousand that come at once are accepted at once.
ACCEPTS_PER_S: Final = 500.0
ACCEPTS_BURST_S: Final = 6.0
CONNECT_TIMEOUT_S: Final = 0.5  # on loopback
CONNECT_EVERY_S: Final = 0.1
PATIENT_CONNECT_TIMEOUT_S: Final = 5.0
NO_MODES: Final = "this endpoint has no modes; merger.ticks has"
MESSAGE_SIZE: Final = 2 + wire.TICKER_SIZE  # of most
RECORD_HEAD: Final = bytes((0, wire.TICKER_SIZE))  # precedes a ticker record
assert wire.TICKER_SIZE < 256, "a short frame"


class Events(Protocol):
    """The part of an event loop that sockets need."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> object: ...

    def remove_reader(self, fd: int) -> object: ...

    def add_writer(self, fd: int, callback: Callable[[], None]) -> object: ...

    def remove_writer(self, fd: int) -> object: ...


class TimedEvents(Events, Protocol):
    """The same with a clock: what endpoints that bind need."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Cancellable: ...


class Timer:
    """A callback that is due at a time."""

    __slots__ = ("callback", "due_mono_ns")

    def __init__(self, due_mono_ns: int, callback: Callable[[], None]) -> None:
        self.due_mono_ns = due_mono_ns
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call back."""
        self.callback = None

    def __lt__(self, other: "Timer") -> bool:
        return self.due_mono_ns < other.due_mono_ns


class Timers:
    """The callbacks of a loop that wait for their time."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []

    @property
    def due_mono_ns(self) -> int:
        """When `run` is to be called; `NEVER` if nothing waits."""
        return self._heap[0].due_mono_ns if self._heap else modes.NEVER

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Have `run` call back once so much time has passed."""
        timer = Timer(time.monotonic_ns() + int(delay_s * 1e9), callback)
        heapq.heappush(self._heap, timer)
        return timer

    def run(self, now_mono_ns: int) -> None:
        """Call back for all that is due, but not for what that puts off."""
        due = []
        while self._heap and self._heap[0].due_mono_ns <= now_mono_ns:
            due.append(heapq.heappop(self._heap))
        for timer in due:
            if timer.callback is not None:
                timer.callback()


class Loop:
    """The smallest event loop: epoll and callbacks, for a process that has nothing to do but sockets."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}
        self._timers = Timers()

    def run_once(self, timeout_s: float) -> None:
        """Wait for something, and call back for all that is there or due."""
        # hot: `make bench`
        due_mono_ns = self._timers.due_mono_ns
        if due_mono_ns != modes.NEVER:
            timeout_s = max(0.0, min(timeout_s, (due_mono_ns - time.monotonic_ns()) / 1e9))
        for fd, event in self._epoll.poll(timeout_s):
            if event & ~select.EPOLLOUT and (read := self._readers.get(fd)) is not None:
                read()
            if event & select.EPOLLOUT and (write := self._writers.get(fd)) is not None:
                write()
        if due_mono_ns != modes.NEVER:
            self._timers.run(time.monotonic_ns())

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call back once so many seconds have passed."""
        return self._timers.call_later(delay, callback)

    def run_until(self, mono_ns: int) -> None:
        """Call back for all that comes until then."""
        while (left_ns := mono_ns - time.monotonic_ns()) > 0:
            self.run_once(left_ns / 1e9)

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self._readers[fd] = callback
        self._update(fd)

    def remove_reader(self, fd: int) -> None:
        self._readers.pop(fd, None)
        self._update(fd)

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        self._writers[fd] = callback
        self._update(fd)

    def remove_writer(self, fd: int) -> None:
        self._writers.pop(fd, None)
        self._update(fd)

    def _update(self, fd: int) -> None:
        wanted = (select.EPOLLIN if fd in self._readers else 0) | (
            select.EPOLLOUT if fd in self._writers else 0
        )
        if not wanted:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)
            return
        try:
            self._epoll.modify(fd, wanted)
        except FileNotFoundError:
            self._epoll.register(fd, wanted)

    def close(self) -> None:
        self._epoll.close()


class Peer:
    """One connection: handshake, frames in, bytes out.

    on_message gets each whole message, on loan until it returns, once the handshake is over; on_read is called
    after those of one read. `queue` is what waits to be written; `flush` writes as much as the kernel takes.
    With on_parts, messages have parts, and it gets each whole one as a list of them.
    """

    def __init__(
        self,
        events: Events,
        sock: socket.socket,
        socket_type: bytes,
        *,
        peer_types: tuple[bytes, ...],
        on_ready: Callable[["Peer"], None],
        on_message: Callable[["Peer", memoryview], None],
        on_closed: Callable[["Peer"], None],
        message_size_max: int,
        on_read: Callable[[], None] | None = None,
        on_parts: Callable[["Peer", list[bytes]], None] | None = None,
    ) -> None:
        self._events = events
        self._sock = sock
        self._fd = sock.fileno()
        self._socket_type = socket_type
        self._peer_types = peer_types
        self._on_ready = on_ready
        self._on_message = on_message
        self._on_closed = on_closed
        self._on_read = on_read
        self._on_parts = on_parts
        self._parts: list[bytes] = []  # of a message that has not ended
        self._is_paused = False
        self._message_size_max = message_size_max
        self._buffer = memoryview(bytearray(min(message_size_max, READ_SIZE)))
        self._rest = b""  # read, and not yet a whole frame
        self._is_greeted = False
        self.is_ready = False
        self.is_open = True
        self.opened_mono_s = time.monotonic()
        self.is_blocked = False  # the kernel takes no more until it says so
        self.queue = bytearray()
        self.subscriptions = Subscriptions()  # of a subscriber
        self.pace: modes.Pace | None = None  # that it declared
        self.dropped = 0  # messages, at a full queue
        self.join: Join | None = None  # what a subscriber is still to get first
        self.queues: Queues | None = None  # the limit for all of them, where there is one
        self.room = 0  # for the queue, as granted by that
        self.sent = 0  # bytes, since there is the connection
        self.marks: deque[int] = deque()  # ends of messages, counted in the same way
        self.on_room: Callable[[Any], None] | None = (
            None  # called after each write, if somebody waits for room
        )
        prepare(sock)
        events.add_reader(self._fd, self._on_readable)
        self.queue += GREETING
        self.flush()

    # --- out

    @property
    def queued(self) -> int:
        """How many bytes wait to be written."""
        return len(self.queue)

    def put(self, message: bytes | bytearray | memoryview) -> None:
        """Queue a message, whatever waits there already."""
        self.queue += frame_head(len(message))
        self.queue += message

    def put_parts(self, parts: list[bytes]) -> None:
        """Queue a message of several parts."""
        for part in parts[:-1]:
            self.queue += frame_head(len(part), MORE)
            self.queue += part
        self.put(parts[-1])

    def flush(self) -> None:
        """Write what is queued; the rest when the peer has read some."""
        # hot: `make bench`
        if self.is_blocked or not self.queue:
            return
        self._write()

    def _write(self) -> None:
        queue = self.queue
        chunks = 0
        while queue:
            try:
                sent = self._sock.send(queue)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                queue.clear()  # what came since the connection was closed
                return
            self.sent += sent
            del queue[:sent]
            if queue or self.pace is None or not self.pace.is_waiting:
                break
            chunks += 1
            self.refill()
            if chunks == modes.CHUNKS_MAX:
                break  # the rest in the next turn, after what others have to say
        self._set_blocked(bool(queue))
        if self.room and not queue and self.queues is not None:
            self.queues.release(self)
        if self.on_room is not None:
            self.on_room(self)

    def shorten(self) -> int:
        """Drop what is queued, but for the beginning of what may be on its way; returns how many bytes."""
        kept = next((mark - self.sent for mark in self.marks if mark >= self.sent), len(self.queue))
        dropped = len(self.queue) - kept
        del self.queue[kept:]
        self.marks.clear()
        return dropped

    def refill(self) -> None:
        """Queue a part of what a subscriber with a mode is due, or one that has not kept up."""
        assert self.pace is not None
        for message in self.pace.take():
            self.put(message)

    def _set_blocked(self, is_blocked: bool) -> None:
        if is_blocked and not self.is_blocked:
            self._events.add_writer(self._fd, self._write)
        elif self.is_blocked and not is_blocked:
            self._events.remove_writer(self._fd)
        self.is_blocked = is_blocked

    def set_pace(self, its_pace: modes.Pace | None) -> None:
        """Follow another mode from now on; what was still due in the last one goes first."""
        if self.pace is not None:
            for message in self.pace.take_all():
                self.put(message)
        self.pace = its_pace
        set_send_buffer(self._sock, its_pace is not None and its_pace.is_conflated)

    # --- in

    def _on_readable(self) -> None:
        # hot: `make bench`. Into a buffer of our own: a fresh one of that size is mapped and unmapped each time.
        try:
            size = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self.close()
            return
        self._on_data(self._buffer[:size])

    def pause(self) -> None:
        """Read nothing more, so that the other side has to wait; what was read is kept."""
        if self.is_open and not self._is_paused:
            self._is_paused = True
            self._events.remove_reader(self._fd)

    def resume(self) -> None:
        """Go on where `pause` left off."""
        if self.is_open and self._is_paused:
            self._is_paused = False
            self._events.add_reader(self._fd, self._on_readable)
            self._on_data(memoryview(b""))

    def has_hung_up(self) -> bool:
        """True if the other side is gone, whatever of it is still to be read."""
        return has_hung_up(self._fd)

    def _on_data(self, data: memoryview) -> None:
        if self._rest:
            data = memoryview(self._rest + data)
        try:
            used = self._take(data)
        except ValueError as exc:
            self.cut_off(str(exc))
            used = len(data)
        self._rest = bytes(data[used:]) if used < len(data) else b""
        if self._on_read is not None:
            self._on_read()

    def cut_off(self, reason: str) -> None:
        """End the connection, and say why."""
        log.warning("a ZeroMQ peer was cut off: %s", reason)
        self.close()

    def _take(self, data: memoryview) -> int:
        """Handle all whole frames; returns how many bytes they were. Raises ValueError for a broken peer."""
        position, size = 0, len(data)
        if not self._is_greeted:
            if size < GREETING_SIZE:
                return 0
            self._greet(bytes(data[:GREETING_SIZE]))
            position = GREETING_SIZE
        while self.is_open and not self._is_paused and size - position >= 2:
            flags = data[position]
            if flags & LONG:
                if size - position < 9:
                    break
                (length,) = _LONG_SIZE.unpack_from(data, position + 1)
                start = position + 9
            else:
                length = data[position + 1]
                start = position + 2
            if length > (self._message_size_max if self.is_ready else HANDSHAKE_SIZE_MAX):
                raise ValueError(f"it announced a frame of {length} bytes")
            if start + length > size:
                break
            position = start + length
            if flags & COMMAND:
                self._on_command(bytes(data[start:position]))
            else:
                self._on_frame(flags, data[start:position])
        return position

    def _on_frame(self, flags: int, frame: memoryview) -> None:
        """Take a part of a message, most often its only one."""
        # hot: `make bench`
        if self._on_parts is None:
            if not self.is_ready or flags & MORE:
                raise ValueError("it sent a message before it was ready, or one of several parts")
            self._on_message(self, frame)
            return
        if not self.is_ready or len(self._parts) == PARTS_MAX:
            raise ValueError("it sent a message before it was ready, or one of too many parts")
        self._parts.append(bytes(frame))
        if not flags & MORE:
            parts, self._parts = self._parts, []
            self._on_parts(self, parts)

    def _greet(self, greeting: bytes) -> None:
        check_greeting(greeting)
        self._is_greeted = True
        self.queue += ready_frame(self._socket_type)
        self.flush()

    def _on_command(self, body: bytes) -> None:
        name, rest = read_command(body, self.is_ready, self._peer_types)
        if name == b"READY" and not self.is_ready:
            self.is_ready = True
            self._on_ready(self)
        elif name == b"PING":
            if len(self.queue) > QUEUE_SIZE_MAX:
                raise ValueError("it wants to hear from us, and does not read")
            self.queue += pong_frame(rest)
            self.flush()
        elif name in (b"SUBSCRIBE", b"CANCEL") and self.is_ready:  # as ZMTP 3.1 has it
            self._on_message(self, memoryview(bytes((name == b"SUBSCRIBE",)) + rest))

    def close(self) -> None:
        """End the connection; what is queued is lost."""
        if not self.is_open:
            return
        self.is_open = False
        if not self._is_paused:
            self._events.remove_reader(self._fd)
        if self.is_blocked:
            self.is_blocked = False
            self._events.remove_writer(self._fd)
        self._sock.close()
        self.queue.clear()
        if self.queues is not None:
            self.queues.release(self)
        self._on_closed(self)

    def close_gently(self, wait_s: float) -> None:
        """End the connection, after a moment for what is queued."""
        if self.is_open and self.queue:
            with contextlib.suppress(OSError):
                self._sock.settimeout(wait_s)
                self._sock.sendall(self.queue)
        self.close()


def prepare(sock: socket.socket) -> None:
    """Set the options of a connection, whoever opened it."""
    sock.setblocking(False)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def has_hung_up(fd: int) -> bool:
    """Return whether the other end of a connection was closed."""
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


def set_send_buffer(sock: socket.socket, is_conflated: bool) -> None:
    """Have the kernel hold little of what is sent to a subscriber that wants the newest only."""
    size = CONFLATED_BUFFER_SIZE if is_conflated else BUFFER_SIZE
    with contextlib.suppress(OSError):  # the connection may be gone
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)


def shrink_receive_buffer(sock: socket.socket) -> None:
    """Have the kernel hold little for a subscriber that wants the newest only."""
    with contextlib.suppress(OSError):  # the connection may be gone
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CONFLATED_BUFFER_SIZE)


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


class Outlet:
    """A PUB that binds: each message goes to the subscribers with a matching prefix, through a queue of each.

    last has what a new subscription gets before anything newer, topic by topic, for its subscriber alone. When a
    queue that the kernel does not take exceeds queue_size_max, only the newest of each topic is kept of what comes
    on top, until the subscriber has read all: it sees holes in the sequences and ends on the newest values, and
    nobody else sees anything. Raises ConfigError if an endpoint cannot be bound; key
    names it in messages.

    is_batched: messages hold several records, filtered by the topic of the first. A subscription to less than
    an exchange would then miss records without a word, so it is refused, and brings nothing at all. A full queue
    drops them.

    A message that is sent may be kept: one that is changed afterwards has to stay its topic's newest.

    has_modes: subscribers may declare a mode (`pace`). Then `on_time` is to be called when `look_mono_ns` says.
    session is for notices.
    """

    def __init__(
        self,
        events: TimedEvents,
        endpoints: Iterable[str],
        last: LastValues,
        *,
        key: str,
        queue_size_max: int,
        is_batched: bool = False,
        has_modes: bool = False,
        session: int = 0,
        group: int = private.NOBODY,
        queues: Queues | None = None,
    ) -> None:
        self._events = events
        self._queues = Queues(sys.maxsize) if queues is None else queues
        self._queue_size_max = queue_size_max
        self._is_batched = is_batched
        self._has_modes = has_modes
        self._session = session
        self._paced: set[Peer] = set()  # that declared a mode
        self._peers: set[Peer] = set()
        self._unflushed: list[Peer] = []
        self.is_wanted = False  # by a subscription that covers tickers
        self._subscribers = Subscribers(
            events, last, is_batched=is_batched, on_mode=self._on_mode, on_wanted=self._on_wanted
        )
        self._groups = self._subscribers.by_topic
        self._handshakes = Handshakes(events)
        self._listener = Listener(events, endpoints, self._on_accept, key, group)

    def send(self, topic: bytes, message: bytes | bytearray) -> None:
        """Queue one message under its topic, padded; `flush` follows."""
        # hot: `make bench`
        groups = self._groups.get(topic)
        if groups is None:
            groups = self._find_groups(topic)
        # One who has several prefixes of a topic is in several of its groups.
        peers = groups[0] if len(groups) == 1 else dict.fromkeys(itertools.chain.from_iterable(groups))
        for peer in peers:
            passed = message
            if peer.join is not None:
                let_through = peer.join.let_through(topic, message)
                if let_through is None:
                    continue
                passed = let_through
            queue = peer.queue
            if peer.pace is not None and self._is_kept_back(peer, peer.pace, topic, passed):
                continue
            if not queue:
                self._unflushed.append(peer)
            elif peer.is_blocked and len(queue) > peer.room and not self._has_room(peer, topic, passed):
                continue
            queue += RECORD_HEAD if len(passed) == wire.TICKER_SIZE else frame_head(len(passed))
            queue += passed

    def _is_kept_back(
        self, peer: Peer, its_pace: modes.Pace, topic: bytes, message: bytes | bytearray
    ) -> bool:
        """Decide about a message for a subscriber with a mode; True if it is not to be queued now."""
        if not its_pace.is_conflated:
            is_full = peer.is_blocked and len(peer.queue) > self._queue_size_max
            if not is_full and not its_pace.is_waiting:
                return False
        elif its_pace.is_immediate and not peer.is_blocked and len(peer.queue) < modes.CHUNK_SIZE:
            return False
        its_pace.note(topic, message)
        return True

    def _has_room(self, peer: Peer, topic: bytes, message: bytes | bytearray) -> bool:
        """Find room for a message in a queue that has used what it had; False if it is not to be queued."""
        if len(peer.queue) > self._queue_size_max:
            self._overflow(peer, topic, message)
            return False
        return self._queues.grant(peer, self._cut)

    def _cut(self, peer: Peer) -> bool:
        """Shorten a queue; its subscriber gets the newest of each topic when it reads, this message's as well."""
        if not self._subscribers.start_anew(peer):
            return False
        lost = peer.shorten() // MESSAGE_SIZE
        peer.dropped += lost
        if peer.pace is not None:
            peer.pace.skip(lost)
        return True

    def _overflow(self, peer: Peer, topic: bytes, message: bytes | bytearray) -> None:
        """A queue is full: what comes on top is kept by topic, the newest of each, until all of it has left."""
        if self._is_batched:
            peer.dropped += 1  # it would be kept by the first of its topics
            return
        peer.pace = modes.Pace(modes.ALL, time.monotonic_ns())  # undeclared: nobody is told
        peer.pace.note(topic, message)

    def flush(self) -> None:
        """Write what was queued; what the kernel does not take is written later."""
        # hot: `make bench`
        if self._unflushed:
            for peer in self._unflushed:
                peer.flush()
            self._unflushed.clear()

    @property
    def subscribers(self) -> int:
        """How many are connected."""
        return sum(peer.is_ready for peer in self._peers)

    def look_mono_ns(self, now_mono_ns: int) -> int:
        """Return when `on_time` is to be called next, at the latest."""
        return min(
            (peer.pace.look_mono_ns(now_mono_ns) for peer in self._paced if peer.pace is not None),
            default=modes.NEVER,
        )

    def on_time(self, now_mono_ns: int) -> None:
        """Let go what is due to subscribers at intervals, and tell each what it did not get."""
        for peer in list(self._paced):  # one may go while it is written to
            its_pace = peer.pace
            assert its_pace is not None
            its_pace.release(now_mono_ns)
            if peer.queue:
                continue  # the rest of it has to wait for room anyway
            if (notice := its_pace.report(self._session, now_mono_ns, time.time_ns())) is not None:
                peer.put(notice)
            else:
                peer.refill()
            peer.flush()

    def _find_groups(self, topic: bytes) -> list[list[Peer]]:
        if len(self._groups) >= HEARERS_MAX:
            self._subscribers.forget()
        return self._subscribers.find(topic)

    def _on_accept(self, sock: socket.socket) -> None:
        peer = Peer(
            self._events,
            sock,
            b"XPUB",
            peer_types=(b"SUB", b"XSUB"),
            on_ready=lambda peer: None,
            on_message=self._subscribers.take,
            on_closed=self._on_closed,
            message_size_max=REQUEST_SIZE_MAX,
        )
        if peer.is_open:  # it may have gone while it was greeted
            peer.queues = self._queues
            self._peers.add(peer)
            self._handshakes.watch(peer)

    def _on_mode(self, peer: Peer, request: bytes) -> None:
        """Take a declaration, however often it was made before, or its end."""
        if request[0] == SUBSCRIBE:
            peer.put(self._declare(peer, request[1:]))
        elif peer in self._paced and peer.pace is not None and request[1:] == peer.pace.declaration:
            self._paced.discard(peer)
            peer.set_pace(None)

    def _declare(self, peer: Peer, declaration: bytes) -> bytes:
        """Take a subscriber's mode; returns the notice that says so, or why not."""
        try:
            if not self._has_modes:
                raise ValueError(NO_MODES)
            its_pace = modes.Pace(declaration, time.monotonic_ns())
        except ValueError as exc:
            log.warning("a subscriber's declaration has no effect: %s", exc)
            return modes.refusal(declaration, str(exc), self._session, time.time_ns())
        peer.set_pace(its_pace)
        self._paced.add(peer)
        return its_pace.answer(self._session, time.time_ns())

    def _on_closed(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self._paced.discard(peer)
        self._subscribers.drop(peer)
        skipped = peer.dropped + (peer.pace.skipped if peer.pace and not peer.pace.is_conflated else 0)
        if skipped:
            log.warning("a subscriber that went had lost %d messages by not reading", skipped)

    def _on_wanted(self, is_wanted: bool) -> None:
        self.is_wanted = is_wanted

    def look(self) -> None:
        """See that subscribers can still come, as `Listener.look` does."""
        self._listener.look()

    def close(self, wait_s: float = 0.2) -> None:
        """Close everything, after a moment for what is queued."""
        self._listener.close()
        self._subscribers.close()
        self._handshakes.close()
        self.flush()
        deadline = (
            time.monotonic() + wait_s
        )  # for all together: those that read are served first, by the flush
        for peer in list(self._peers):
            if peer.pace is not None:
                peer.set_pace(None)  # what it was due is the last that it hears
            peer.close_gently(max(0.0, deadline - time.monotonic()))


class Inlet:
    """A SUB that binds and subscribes to everything; on_message gets each message, on loan until it returns.

    outlets are flushed after the messages of one read. Raises ConfigError if the endpoint cannot be bound; key
    names it in messages.
    """

    def __init__(
        self,
        events: TimedEvents,
        endpoint: str,
        on_message: Callable[[memoryview], None],
        *,
        key: str,
        outlets: Iterable[Outlet] = (),
    ) -> None:
        self._events = events
        self._on_message = on_message
        self._outlets = tuple(outlets)
        self._peers: set[Peer] = set()
        self._handshakes = Handshakes(events)
        self._listener = Listener(events, [endpoint], self._on_accept, key)

    def _on_accept(self, sock: socket.socket) -> None:
        peer = Peer(
            self._events,
            sock,
            b"SUB",
            peer_types=(b"PUB", b"XPUB"),
            on_ready=subscribe_to_everything,
            on_message=lambda peer, message: self._on_message(message),
            on_closed=self._peers.discard,
            message_size_max=HOP_MESSAGE_SIZE_MAX,
            on_read=self._on_read,
        )
        if peer.is_open:  # it may have gone while it was greeted
            self._peers.add(peer)
            self._handshakes.watch(peer)

    def _on_read(self) -> None:
        for outlet in self._outlets:
            outlet.flush()

    def look(self) -> None:
        """See that publishers can still come, as `Listener.look` does."""
        self._listener.look()

    def close(self) -> None:
        """Close everything."""
        self._listener.close()
        self._handshakes.close()
        for peer in list(self._peers):
            peer.close()


def subscribe_to_everything(peer: Peer) -> None:
    peer.put(bytes((SUBSCRIBE,)))
    peer.flush()


def is_half_open(peer: Peer) -> bool:
    """True for a connection that is no socket yet."""
    return peer.is_open and not peer.is_ready


class Handshakes:
    """The limit on handshakes at an endpoint: whoever connects and says nothing keeps no descriptor for longer."""

    def __init__(self, events: TimedEvents) -> None:
        self._events = events
        self._waiting: deque[Peer] = deque()  # the oldest first
        self._timer: Cancellable | None = None

    def watch(self, peer: Peer) -> None:
        """Close this connection if it is not ready in time."""
        self._forget_the_ready()
        self._waiting.append(peer)
        if self._timer is None:
            self._timer = self._events.call_later(HANDSHAKE_S, self._look)

    def _forget_the_ready(self) -> None:
        while self._waiting and not is_half_open(self._waiting[0]):
            self._waiting.popleft()

    def _look(self) -> None:
        """Close those whose time is over, some in each turn of the loop, and sleep until that of the next."""
        oldest_mono_s = time.monotonic() - HANDSHAKE_S
        self._timer = None
        for _ in range(CLOSED_PER_TURN):
            self._forget_the_ready()
            if not self._waiting:
                return
            if (left_s := self._waiting[0].opened_mono_s - oldest_mono_s) > 0:
                self._timer = self._events.call_later(left_s, self._look)
                return
            self._waiting.popleft().close()
        self._timer = self._events.call_later(0.0, self._look)

    def make_room(self) -> bool:
        """Close the oldest connection that is no socket yet; False if there is none."""
        self._forget_the_ready()
        if not self._waiting:
            return False
        self._waiting.popleft().close()
        return True

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Uplink:
    """A PUB that connects to the one SUB that binds there, and again when it is gone, whenever `poll` is called.

    on_join is called each time that a subscriber joined: what it sends is the first that comes there. Nothing is
    queued while there is no subscriber: `send` then does nothing. A subscriber that does not read costs messages
    beyond queue_size_max, never time; `take_loss` tells when there is room again.
    """

    def __init__(
        self,
        events: Events,
        endpoint: str,
        on_join: Callable[[], object],
        *,
        queue_size_max: int,
    ) -> None:
        self._events = events
        self._connector = Connector(endpoint, self._adopt)
        self._on_join = on_join
        self._queue_size_max = queue_size_max
        self._peer: Peer | None = None
        self._is_subscribed = False

    def poll(self) -> None:
        """Connect if there is no connection."""
        if self._peer is None:
            self._connector.poll()

    def take_loss(self) -> bool:
        """Return, once, that messages were dropped, when there is room again for what they said."""
        peer = self._peer
        if peer is None or not peer.dropped or len(peer.queue) > self._queue_size_max // 2:
            return False
        peer.dropped = 0
        return True

    def send(self, message: bytes | bytearray) -> None:
        """Send one message, if a subscriber is there and reads."""
        # hot: `make bench`
        peer = self._peer
        if peer is None or not self._is_subscribed:
            return
        queue = peer.queue
        if peer.is_blocked and len(queue) > self._queue_size_max:
            peer.dropped += 1
            return
        peer.put(message)
        peer.flush()

    def _adopt(self, sock: socket.socket) -> None:
        peer = Peer(
            self._events,
            sock,
            b"XPUB",
            peer_types=(b"SUB", b"XSUB"),
            on_ready=lambda peer: None,
            on_message=self._on_request,
            on_closed=self._on_closed,
            message_size_max=REQUEST_SIZE_MAX,
        )
        self._peer = peer if peer.is_open else None  # it may have gone while it was greeted

    def _on_request(self, peer: Peer, message: memoryview) -> None:
        if message and message[0] == SUBSCRIBE and not self._is_subscribed:
            self._is_subscribed = True
            self._on_join()

    def _on_closed(self, peer: Peer) -> None:
        self._peer = None
        self._is_subscribed = False

    def close(self, wait_s: float = 0.2) -> None:
        """Close the connection, after a moment for what is queued."""
        self._connector.close()
        if self._peer is not None:
            self._peer.close_gently(wait_s)


class Downlink:
    """A SUB that connects, and again when the publisher is gone, whenever `poll` is called.

    on_message gets each message that starts with one of the prefixes, on loan until it returns. is_conflated: what
    is not the newest any more is not to lie in the kernel for long. is_patient: connecting must not make the loop
    wait.
    """

    def __init__(
        self,
        events: Events,
        endpoint: str,
        prefixes: Iterable[bytes],
        on_message: Callable[[memoryview], None],
        *,
        is_conflated: bool = False,
        is_patient: bool = False,
    ) -> None:
        self._is_conflated = is_conflated
        self._events = events
        self._connector = connector(events, endpoint, self._adopt, is_patient=is_patient)
        self._prefixes = list(prefixes)
        self._on_message = on_message
        self._peer: Peer | None = None

    @property
    def is_connected(self) -> bool:
        """True while there is a connection."""
        return self._peer is not None

    def poll(self) -> bool:
        """Connect if there is no connection; True if there is one."""
        if self._peer is None:
            self._connector.poll()
        return self._peer is not None

    def _adopt(self, sock: socket.socket) -> None:
        peer = Peer(
            self._events,
            sock,
            b"SUB",
            peer_types=(b"PUB", b"XPUB"),
            on_ready=self._subscribe,
            on_message=lambda peer, message: self._on_message(message),
            on_closed=self._on_closed,
            message_size_max=HOP_MESSAGE_SIZE_MAX,
        )
        if self._is_conflated:
            shrink_receive_buffer(sock)
        self._peer = peer if peer.is_open else None  # it may have gone while it was greeted

    def _subscribe(self, peer: Peer) -> None:
        for prefix in self._prefixes:
            peer.put(bytes((SUBSCRIBE,)) + prefix)
        peer.flush()

    def _on_closed(self, peer: Peer) -> None:
        self._peer = None

    def close(self) -> None:
        """Close the connection."""
        self._connector.close()
        if self._peer is not None:
            self._peer.close()


class Connector:
    """Connects to an endpoint of this host, whenever `poll` is called; on_connected gets the socket."""

    def __init__(self, endpoint: str, on_connected: Callable[[socket.socket], None]) -> None:
        self._endpoint = endpoint
        self._on_connected = on_connected
        self._next_mono_s = 0.0

    def poll(self) -> None:
        """Try at once, but not again and again: who accepts and hangs up would be asked without a pause."""
        now_s = time.monotonic()
        if now_s < self._next_mono_s:
            return
        self._next_mono_s = now_s + CONNECT_EVERY_S
        if (sock := connected(self._endpoint)) is not None:
            self._on_connected(sock)

    def close(self) -> None:
        """Nothing is under way."""


class PatientConnector(Connector):
    """The same without waiting for an answer, which one who hangs does not give."""

    def __init__(self, events: Events, endpoint: str, on_connected: Callable[[socket.socket], None]) -> None:
        super().__init__(endpoint, on_connected)
        self._events = events
        self._sock: socket.socket | None = None
        self._deadline_mono_s = 0.0

    def poll(self) -> None:
        """Begin to connect, or go on; a name is looked up first, which a host file or cache should answer."""
        if self._sock is not None:
            if time.monotonic() >= self._deadline_mono_s:
                self.close()
            return
        if time.monotonic() < self._next_mono_s:
            return
        self._next_mono_s = time.monotonic() + CONNECT_EVERY_S
        family, address = address_of(self._endpoint)
        self._sock = sock = _socket(family)
        if sock is None:
            return
        sock.setblocking(False)
        self._deadline_mono_s = time.monotonic() + PATIENT_CONNECT_TIMEOUT_S
        try:
            error = sock.connect_ex(address)
        except OSError:  # no such name
            error = errno.EHOSTUNREACH
        if error in (0, errno.EINPROGRESS):
            self._events.add_writer(sock.fileno(), self._on_writable)
        else:
            self._sock = None
            sock.close()

    def _on_writable(self) -> None:
        sock, self._sock = self._sock, None
        assert sock is not None, "called as long as there is one"
        self._events.remove_writer(sock.fileno())
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            sock.close()
        else:
            self._on_connected(sock)

    def close(self) -> None:
        """Give up an attempt that is under way."""
        if self._sock is not None:
            self._events.remove_writer(self._sock.fileno())
            self._sock.close()
            self._sock = None


def connector(
    events: Events,
    endpoint: str,
    on_connected: Callable[[socket.socket], None],
    *,
    is_patient: bool = False,
) -> Connector:
    """Return what connects to an endpoint.

    An answer comes at once, unless who listens hangs and many have asked already: is_patient is for loops that
    must not wait even then.
    """
    return (
        PatientConnector(events, endpoint, on_connected) if is_patient else Connector(endpoint, on_connected)
    )


def _socket(family: int) -> socket.socket | None:
    """Return a new socket, None if there is no descriptor for it: some may be given back until the next try."""
    try:
        return socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        log.error("no connection can be made: %s (see `ulimit -n`)", exc.strerror)
        return None


def connected(endpoint: str) -> socket.socket | None:
    """Return a connection to an endpoint, None if nobody listens there."""
    family, address = address_of(endpoint)
    if (sock := _socket(family)) is None:
        return None
    sock.settimeout(CONNECT_TIMEOUT_S)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        return None
    return sock


class Listener:
    """Binds endpoints and accepts connections. Raises ConfigError, with the remedy; key is for its message.

    More connections than its budget has wait in the kernel until their turn has come. Who may connect to an ipc
    endpoint is this user, and group if there is one.
    """

    def __init__(
        self,
        events: TimedEvents,
        endpoints: Iterable[str],
        on_accept: Callable[[socket.socket], None],
        key: str,
        group: int = private.NOBODY,
    ) -> None:
        self._group = group
        self._key = key
        self._events = events
        self._on_accept = on_accept
        self._sockets: dict[str, socket.socket] = {}  # by endpoint
        self._accepts = Budget(ACCEPTS_PER_S, time.monotonic(), ACCEPTS_BURST_S)
        self._timers: dict[socket.socket, Cancellable] = {}  # of those that are not looked at for a while
        self._files: dict[str, tuple[Path, tuple[int, int]]] = {}  # those of sockets, as they were made
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for endpoint in endpoints:
            self._bind(endpoint)

    def _bind(self, endpoint: str) -> None:
        family, address = address_of(endpoint)
        path = None
        if family == socket.AF_UNIX and isinstance(address, str) and not address.startswith("\0"):
            if is_ipc_in_use(endpoint):
                raise ConfigError(
                    f"{self._key}: {endpoint} is in use by another process; stop it, or configure another address"
                )
            path = _vacated(Path(address), endpoint, self._key)
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if path is not None:
                os.fchmod(
                    sock.fileno(), private.FILE
                )  # what bind makes of it: open to nobody else for no moment
            _bind_patiently(sock, address)
            if path is not None:
                self._files[endpoint] = path, private.identity(path)
                if self._group != private.NOBODY:
                    private.let_in(path, GROUP_MAY_CONNECT, self._group)
                    private.let_pass(path.parent, self._group)
            sock.listen(BACKLOG)
        except OSError as exc:
            sock.close()
            raise ConfigError(
                f"{self._key}: cannot bind {endpoint}: {exc.strerror}; stop what holds it,"
                " or configure another address"
            ) from exc
        sock.setblocking(False)
        self._sockets[endpoint] = sock
        self._look_at(sock)

    def _look_at(self, sock: socket.socket) -> None:
        self._timers.pop(sock, None)
        self._events.add_reader(sock.fileno(), functools.partial(self._accept, sock))

    def look(self) -> None:
        """Bind anew where the file of a socket is gone: nobody could connect any more. To be called every second.

        Connections that there are stay. Raises ConfigError if it cannot be bound, or somebody else has done so.
        """
        for endpoint, (path, made) in list(self._files.items()):
            if private.identity(path) == made:
                continue
            log.warning("%s: the file of %s is gone; it is bound anew", self._key, endpoint)
            self._unbind(endpoint)
            self._bind(endpoint)

    def _unbind(self, endpoint: str) -> None:
        sock = self._sockets.pop(endpoint)
        if (timer := self._timers.pop(sock, None)) is not None:
            timer.cancel()
        else:
            self._events.remove_reader(sock.fileno())
        sock.close()

    def _accept(self, sock: socket.socket) -> None:
        if wait_s := self._accepts.spend(1.0, time.monotonic()):
            self._events.remove_reader(sock.fileno())
            self._timers[sock] = self._events.call_later(wait_s, functools.partial(self._look_at, sock))
        try:
            accepted, _ = sock.accept()
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away(sock)
            return  # else it has gone already
        self._on_accept(accepted)

    def _turn_away(self, sock: socket.socket) -> None:
        """Accept with the descriptor kept for this, and hang up: what waits would wake us again and again."""
        log.error("no file descriptor is left: a connection was turned away (see `ulimit -n`)")
        os.close(self._spare)
        with contextlib.suppress(OSError):
            sock.accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Stop listening, and remove the socket files."""
        for endpoint in list(self._sockets):
            self._unbind(endpoint)
        with contextlib.suppress(OSError):
            os.close(self._spare)
        for path, made in self._files.values():
            if private.identity(path) == made:
                path.unlink(missing_ok=True)


def _vacated(path: Path, endpoint: str, key: str) -> Path:
    """Make room for a socket file: its directory, and no file left behind by a process that was killed."""
    try:
        private.make_folder(path.parent)
        if path.exists() and not path.is_socket():
            raise ConfigError(f"{key}: {endpoint} names a file that is no socket; configure another address")
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigError(
            f"{key}: cannot bind {endpoint}: {exc.strerror}; configure another address"
        ) from exc
    return path


def _bind_patiently(sock: socket.socket, address: str | tuple[str, int]) -> None:
    """Bind within a second: a predecessor killed a moment ago may still hold the port. Raises OSError."""
    deadline = time.monotonic() + 1.0
    while True:
        try:
            sock.bind(address)
            return
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def address_of(endpoint: str) -> tuple[int, str | tuple[str, int]]:
    """Return family and address of an `ipc://` or `tcp://` endpoint. Raises ValueError if it is neither."""
    scheme, _, place = endpoint.partition("://")
    if scheme == "ipc" and place and len(place.encode()) <= IPC_PATH_SIZE_MAX:
        return socket.AF_UNIX, "\0" + place[1:] if place.startswith("@") else place
    host, _, port = place.rpartition(":")
    if (
        scheme != "tcp"
        or not host.strip("*[]")
        or ":" in host
        or not port.isdigit()
        or not 0 < int(port) < 65536
    ):
        raise ValueError(f"{endpoint!r} is no endpoint")
    return socket.AF_INET, (host, int(port))


def is_ipc_in_use(endpoint: str) -> bool:
    """True if a process listens at an ipc address; a file left behind by a killed one does not count."""
    return listener_of(endpoint) is not None


def listener_of(endpoint: str) -> int | None:
    """Return the pid of who listens at an ipc address, 0 if it is not to be seen from here; None if nobody does."""
    family, address = address_of(endpoint)
    if family != socket.AF_UNIX:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(address):
            return None
        pid, _, _ = PEER.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
        return int(pid)
