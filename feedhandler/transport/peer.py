"""One connection of ZeroMQ's protocol: handshake, frames in, bytes out, and the socket options of it.

Compiled where there is a compiler, with the types of `peer.pxd`. A queue is a part of a bytearray, which doubles:
to append to one that grows by itself, and to delete from its front, costs twice as much.
"""

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from feedhandler.data import modes, raw
from feedhandler.data.contracts import Readable, Sink
from feedhandler.transport import calls, zmtp
from feedhandler.transport.loop import Events
from feedhandler.transport.queues import Queues
from feedhandler.transport.subscribing import Join, Subscriptions
from feedhandler.transport.zmtp import (
    GREETING,
    PARTS_MAX,
    QUEUE_SIZE_MAX,
    check_greeting,
    log,
    pong_frame,
    read_command,
    ready_frame,
)

BUFFER_SIZE: Final = 1 << 20  # asked of the kernel, for both directions
# Of a subscriber that wants the newest only: what the kernel holds for it is no longer the newest when it is read.
CONFLATED_BUFFER_SIZE: Final = 1 << 12
HEAD_SIZE_MAX = zmtp.LONG_HEAD_SIZE  # of a frame
QUEUE_SIZE = 1 << 13  # of a queue at first
QUEUE_KEPT_MAX = 1 << 20  # of an empty one: what is larger is given back
CHUNKS_MAX = modes.CHUNKS_MAX
GREETING_SIZE = len(GREETING)
HANDSHAKE_SIZE_MAX = zmtp.HANDSHAKE_SIZE_MAX
READ_SIZE = zmtp.READ_SIZE
MORE, LONG, COMMAND = zmtp.MORE, zmtp.LONG, zmtp.COMMAND


class Peer(Readable):
    """One connection: handshake, frames in, bytes out.

    Once the handshake is over, each whole message is given to sink, which is flushed after those of one read, or to
    on_message, which gets this peer as well. With on_parts, messages have parts, and it gets each whole one as a
    list of them. What waits to be written is in a queue; `flush` writes as much as the kernel takes.
    """

    def __init__(
        self,
        events: Events,
        sock: socket.socket,
        socket_type: bytes,
        *,
        peer_types: tuple[bytes, ...],
        on_ready: Callable[["Peer"], None],
        on_closed: Callable[["Peer"], None],
        message_size_max: int,
        on_message: Callable[["Peer", bytes], None] | None = None,
        sink: Sink | None = None,
        on_parts: Callable[["Peer", list[bytes]], None] | None = None,
    ) -> None:
        self._events = events
        self._sock = sock
        self._fd = sock.fileno()
        self._socket_type = socket_type
        self._peer_types = peer_types
        self._on_ready = on_ready
        self._on_message = on_message
        self._sink = sink
        self._on_closed = on_closed
        self._on_parts = on_parts
        self._parts: list[bytes] = []  # of a message that has not ended
        self._message_size_max = message_size_max
        # Larger than any frame that is not whole yet, with its head, so that there is always room to read.
        self._size_max = max(message_size_max, HANDSHAKE_SIZE_MAX) + GREETING_SIZE
        self._size_first = min(self._size_max, READ_SIZE)
        self._buffer = bytearray(self._size_first)  # read, and not yet a whole frame: its first _used bytes
        self._used = 0
        self._parsed = 0  # of those that are being parsed
        self._is_parsing = False
        self._is_paused = False
        self._is_greeted = False
        self._queue = bytearray()  # has what waits to be written: from _start,
        self._start = 0
        self.queued = 0  # so many bytes
        self.is_listed = False  # among those to be flushed
        self.stamp = 0  # the number of the last message that it was given
        self.is_ready = False
        self.is_open = True
        self.is_blocked = False  # the kernel takes no more until it says so
        self.opened_mono_s = time.monotonic()
        self.subscriptions = Subscriptions()  # of a subscriber
        self.pace: modes.Pace | None = None  # that it declared
        self.gathered_size = 0  # bytes that may be queued before they are written, as that has it
        self.dropped = 0  # messages, at a full queue
        self.join: Join | None = None  # what a subscriber is still to get first
        self.queues: Queues | None = None  # the limit for all of them, where there is one
        self.room = 0  # for the queue, as granted by that
        self.sent = 0  # bytes, since there is the connection
        self.marks: deque[int] = deque()  # ends of messages, counted in the same way
        # Called after each write, if somebody waits for room.
        self.on_room: Callable[[Any], None] | None = None
        prepare(sock)
        events.add_reader(self._fd, self.read)
        self._put_bytes(GREETING)
        self.flush()

    # --- out

    def put(self, message: bytes | bytearray) -> None:
        """Queue a message, whatever waits there already."""
        # hot: `make bench`
        if self.is_open:
            self._append(0, message)

    def put_parts(self, parts: list[bytes]) -> None:
        """Queue a message of several parts."""
        if self.is_open:
            for part in parts[:-1]:
                self._append(MORE, part)
            self._append(0, parts[-1])

    def flush(self) -> None:
        """Write what is queued; the rest when the peer has read some."""
        # hot: `make bench`
        if not self.is_blocked and self.queued:
            self.write()

    def _append(self, flags: int, message: bytes | bytearray) -> None:
        """Queue a message, or a part of one, with its head."""
        size = raw.size(message)
        queue, end = self._queue, self._start + self.queued
        if len(queue) - end < HEAD_SIZE_MAX + size:
            self._reserve(HEAD_SIZE_MAX + size)
            queue, end = self._queue, self._start + self.queued
        if size < 256:
            raw.put_u8(queue, end, flags)
            raw.put_u8(queue, end + 1, size)
            end += 2
        else:
            raw.put_u8(queue, end, flags | LONG)
            raw.put_u64_big(queue, end + 1, size)
            end += HEAD_SIZE_MAX
        raw.copy(queue, end, message, 0, size)
        self.queued = end + size - self._start

    def _put_bytes(self, data: bytes) -> None:
        """Queue bytes as they are."""
        self._reserve(len(data))
        raw.copy(self._queue, self._start + self.queued, data, 0, len(data))
        self.queued += len(data)

    def _reserve(self, count: int) -> None:
        """Have room for so many bytes at the end of the queue."""
        size = len(self._queue)
        used = self.queued
        if size - self._start - used >= count:
            return
        if used <= self._start and size - used >= count:
            raw.copy(self._queue, 0, self._queue, self._start, used)
        else:
            size = max(QUEUE_SIZE, size)
            while size - used < count:
                size *= 2
            larger = bytearray(size)
            raw.copy(larger, 0, self._queue, self._start, used)
            self._queue = larger
        self._start = 0

    def write(self) -> None:
        """Write what the kernel takes."""
        # hot: `make bench`
        chunks = 0
        if not self.is_open:  # the same turn of the loop may have found it readable, and at its end
            return
        while self._send_queue():
            if self.queued or self.pace is None or not self.pace.is_waiting:
                break
            chunks += 1
            self.refill()
            if chunks == CHUNKS_MAX:
                break  # the rest in the next turn, after what others have to say
        if not self.is_open:
            return
        if self.queued:
            self._set_blocked(True)
        else:
            self._start = 0
            if len(self._queue) > QUEUE_KEPT_MAX:
                self._queue = bytearray()
            self._set_blocked(False)
            if self.room and self.queues is not None:
                self.queues.release(self)
        if self.on_room is not None:
            self.on_room(self)

    def _send_queue(self) -> bool:
        """Write what the kernel takes of the queue; False if the connection is gone."""
        if not self.queued:
            return True
        sent = calls.send(self._fd, self._queue, self._start, self._start + self.queued)
        if sent < 0:
            self.close()
            return False
        self._start += sent
        self.queued -= sent
        self.sent += sent
        return True

    def shorten(self) -> bytes:
        """Drop what is queued, but for the beginning of what may be on its way; returns the rest: whole frames."""
        used = self.queued
        kept = min((mark - self.sent for mark in self.marks if mark >= self.sent), default=used)
        self.marks.clear()
        if kept >= used:
            return b""
        dropped = raw.cut(self._queue, self._start + kept, used - kept)
        smaller = bytearray(max(kept, QUEUE_SIZE))
        raw.copy(smaller, 0, self._queue, self._start, kept)
        self._queue, self._start, self.queued = smaller, 0, kept
        return dropped

    def refill(self) -> None:
        """Queue a part of what a subscriber with a mode is due, or one that has not kept up."""
        if self.pace is not None:
            for message in self.pace.take():
                self.put(message)

    def set_pace(self, its_pace: modes.Pace | None) -> None:
        """Follow another mode from now on; what was still due in the last one goes first."""
        if self.pace is not None:
            for message in self.pace.take_all():
                self.put(message)
        self.pace = its_pace
        self.gathered_size = 0 if its_pace is None else its_pace.gathered_size
        set_send_buffer(self._sock, its_pace is not None and its_pace.is_conflated)

    def _set_blocked(self, is_blocked: bool) -> None:
        if is_blocked == self.is_blocked:
            return
        self.is_blocked = is_blocked
        if is_blocked:
            self._events.add_writer(self._fd, self.write)
        else:
            self._events.remove_writer(self._fd)

    # --- in

    def pause(self) -> None:
        """Read nothing more, so that the other side has to wait; what was read is kept."""
        if self.is_open and not self._is_paused:
            self._is_paused = True
            self._events.remove_reader(self._fd)

    def resume(self) -> None:
        """Go on where `pause` left off."""
        if not self.is_open or not self._is_paused:
            return
        self._is_paused = False
        self._events.add_reader(self._fd, self.read)
        if self._used and not self._is_parsing:
            self._parse(self._buffer, self._used)

    def has_hung_up(self) -> bool:
        """True if the other side is gone, whatever of it is still to be read."""
        return has_hung_up(self._fd)

    def cut_off(self, reason: str) -> None:
        """End the connection, and say why."""
        log.warning("a ZeroMQ peer was cut off: %s", reason)
        self.close()

    def read(self) -> None:
        """Take what the kernel has."""
        # hot: `make bench`
        if self.is_open and not self._is_parsing and not self._is_paused:
            self._receive()

    def _receive(self) -> None:
        buffer = self._buffer
        count = calls.receive(self._fd, buffer, self._used, len(buffer))
        if count > 0:
            self._parse(buffer, self._used + count)
        elif count < 0:
            self.close()

    def _parse(self, buffer: bytearray, size: int) -> None:
        """Handle what is in the buffer, and keep what is no whole frame yet."""
        self._parsed = 0
        self._is_parsing = True
        try:
            self._take(buffer, size)
        except ValueError as exc:
            self.cut_off(str(exc))
        finally:
            self._is_parsing = False
            if self.is_open:
                self._keep(buffer, size)
        if self._sink is not None:
            self._sink.flush()

    def _keep(self, buffer: bytearray, size: int) -> None:
        """Move what is no whole frame yet to the front, and have room for more."""
        rest, wanted = size - self._parsed, len(buffer)
        if self._parsed:
            raw.copy(buffer, 0, buffer, self._parsed, rest)
        self._used = rest
        if rest == len(buffer):
            wanted = min(2 * rest, self._size_max)
        elif not rest:
            wanted = self._size_first
        if wanted != len(buffer) and wanted >= rest:
            other = bytearray(wanted)
            raw.copy(other, 0, buffer, 0, rest)
            self._buffer = other

    def _take(self, buffer: bytearray, size: int) -> None:
        """Handle all whole frames; _parsed says how many bytes they were. Raises ValueError for a broken peer."""
        # hot: `make bench`
        position = 0
        if not self._is_greeted:
            if size < GREETING_SIZE:
                return
            self._parsed = position = GREETING_SIZE
            check_greeting(raw.cut(buffer, 0, GREETING_SIZE))
            self._is_greeted = True
            self._put_bytes(ready_frame(self._socket_type))
            self.flush()
        while self.is_open and not self._is_paused and size - position >= 2:
            flags = raw.get_u8(buffer, position)
            if flags & LONG:
                if size - position < HEAD_SIZE_MAX:
                    break
                length = raw.get_u64_big(buffer, position + 1)
                start = position + HEAD_SIZE_MAX
            else:
                length = raw.get_u8(buffer, position + 1)
                start = position + 2
            if length > (self._message_size_max if self.is_ready else HANDSHAKE_SIZE_MAX):
                raise ValueError(f"it announced a frame of {length} bytes")
            if length > size - start:
                break
            self._parsed = position = start + length
            self._on_frame(flags, raw.cut(buffer, start, length))

    def _on_frame(self, flags: int, frame: bytes) -> None:
        """Take a command, or a part of a message, most often its only one."""
        # hot: `make bench`
        if flags & COMMAND:
            self._on_command(frame)
        elif not self.is_ready:
            raise ValueError("it sent a message before it was ready")
        elif self._on_parts is not None:
            if len(self._parts) == PARTS_MAX:
                raise ValueError("it sent a message of too many parts")
            self._parts.append(frame)
            if not flags & MORE:
                parts, self._parts = self._parts, []
                self._on_parts(self, parts)
        elif flags & MORE:
            raise ValueError("it sent a message of several parts")
        else:
            self._hand_on(frame)

    def _hand_on(self, message: bytes) -> None:
        if self._sink is not None:
            self._sink.take(message)
        elif self._on_message is not None:
            self._on_message(self, message)

    def _on_command(self, body: bytes) -> None:
        name, rest = read_command(body, self.is_ready, self._peer_types)
        if name == b"READY" and not self.is_ready:
            self.is_ready = True
            self._on_ready(self)
        elif name == b"PING":
            if self.queued > QUEUE_SIZE_MAX:
                raise ValueError("it wants to hear from us, and does not read")
            self._put_bytes(pong_frame(rest))
            self.flush()
        elif name in (b"SUBSCRIBE", b"CANCEL") and self.is_ready:  # as ZMTP 3.1 has it
            self._hand_on(bytes((name == b"SUBSCRIBE",)) + rest)

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
        self._fd = -1
        self._queue = bytearray()
        self._start = self.queued = 0
        self._buffer = bytearray()  # `read` has a reference of its own
        if self.queues is not None:
            self.queues.release(self)
        self._on_closed(self)

    def close_gently(self, wait_s: float) -> None:
        """End the connection, after a moment for what is queued."""
        if self.is_open and self.queued:
            with contextlib.suppress(OSError):
                self._sock.settimeout(wait_s)
                self._sock.sendall(raw.cut(self._queue, self._start, self.queued))
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
