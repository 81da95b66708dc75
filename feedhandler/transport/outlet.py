"""A PUB that binds: messages to any number of subscribers, each with its own queue and subscriptions.

Compiled where there is a compiler, with the types of `outlet.pxd`.
"""

import socket
import sys
import time
from collections.abc import Iterable
from typing import Final

from feedhandler.data import kinds, modes, raw, wire
from feedhandler.data.contracts import Fanout
from feedhandler.transport import private, zmtp
from feedhandler.transport.endpoints import Handshakes, Listener
from feedhandler.transport.loop import TimedEvents
from feedhandler.transport.peer import Peer
from feedhandler.transport.queues import Queues
from feedhandler.transport.subscribing import SUBSCRIBE, LastValues, Subscribers
from feedhandler.transport.zmtp import REQUEST_SIZE_MAX, log

HEARERS_MAX = 100_000  # topics whose subscribers are remembered
LONG, COMMAND = zmtp.LONG, zmtp.COMMAND
SHORT_HEAD_SIZE, LONG_HEAD_SIZE = zmtp.SHORT_HEAD_SIZE, zmtp.LONG_HEAD_SIZE
HEADER_SIZE = wire.HEADER_SIZE
KIND_OFFSET = wire.KIND_OFFSET
SIZES = wire.SIZES
EVERY = kinds.EVERY
NO_MODES: Final = "this endpoint has no modes; merger.ticks has"


class Outlet(Fanout):
    """A PUB that binds: each message goes to the subscribers with a matching prefix, through a queue of each.

    last has what a new subscription gets before anything newer, topic by topic, for its subscriber alone. When a
    queue that the kernel does not take exceeds queue_size_max, only the newest of each topic is kept of what comes
    on top, until the subscriber has read all: it sees gaps in the sequences and ends on the newest values, and
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
        self._paced: set[Peer] = set()  # that declared a mode; others have a pace while they do not keep up
        self._peers: set[Peer] = set()
        self._unflushed: list[Peer] = []
        self._stamp = 0  # of the last message
        # What was counted last: the message, and when; its records, those that count, and where the last such is.
        self._counted: bytes | bytearray | None = None
        self._counted_stamp = 0
        self._skipped = 0
        self._gap = 0
        self._newest = 0
        self._head = b""
        super().__init__()
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
        are_several = len(groups) > 1
        self._stamp += 1
        for group in groups:
            for peer in group:
                if are_several:
                    if peer.stamp == self._stamp:
                        continue  # it has another prefix of this topic as well
                    peer.stamp = self._stamp
                self._give(peer, topic, message)

    def _give(self, peer: Peer, topic: bytes, message: bytes | bytearray) -> None:
        """Queue a message for one subscriber, or do what its condition asks."""
        if peer.join is not None:
            passed = peer.join.let_through(topic, message)
            if passed is None:
                return
            message = passed
        # Of one that gathers nothing is kept back but what a full queue had no room for; it is blocked until that
        # has left.
        if (
            peer.pace is not None
            and (peer.is_blocked or not peer.gathered_size)
            and self._is_kept_back(peer, peer.pace, topic, message)
        ):
            return
        if not peer.is_blocked:
            if not peer.is_listed and peer.queued >= peer.gathered_size:
                peer.is_listed = True
                self._unflushed.append(peer)
        elif peer.queued > peer.room and not self._has_room(peer, topic, message):
            return
        peer.put(message)

    def _is_kept_back(
        self, peer: Peer, its_pace: modes.Pace, topic: bytes, message: bytes | bytearray
    ) -> bool:
        """Decide about a message for a subscriber with a mode; True if it is not to be queued now."""
        if not its_pace.is_conflated:
            is_full = peer.is_blocked and peer.queued > self._queue_size_max
            if not is_full and not its_pace.is_waiting:
                # Not before the queue is empty: until then it may be cut, and what is said in it with it.
                if not peer.queued and isinstance(its_pace, modes.Overflow):
                    peer.pace = None
                    self._end_overflow(peer, its_pace)
                return False
        elif its_pace.is_immediate and not peer.is_blocked and peer.queued < modes.CHUNK_SIZE:
            return False
        self._keep(its_pace, topic, message)
        return True

    def _keep(self, its_pace: modes.Pace, topic: bytes, message: bytes | bytearray) -> None:
        """Keep a message for later, the newest of its topic.

        Batches are not: they would be kept by the first of their topics.
        """
        if self._is_batched:
            self._lose(its_pace, message)
        else:
            its_pace.note(topic, message)

    def _lose(self, its_pace: modes.Pace, message: bytes | bytearray) -> None:
        """Have a message not go to one; its records are counted once, however many do not get it."""
        if self._counted is not message or self._counted_stamp != self._stamp:
            self._skipped = self._gap = 0
            self._count_records(message, 0, len(message))
            self._head = raw.cut(message, self._newest, HEADER_SIZE) if self._gap else b""
            self._counted, self._counted_stamp = message, self._stamp
        its_pace.lose(self._skipped, self._gap, self._head)

    def _end_overflow(self, peer: Peer, overflow: modes.Overflow) -> None:
        """One has got all that was kept for it: what is next follows, after how much it did not get."""
        peer.dropped += overflow.skipped
        if (notice := overflow.end()) is not None:
            self._list(peer)
            peer.put(notice)

    def _list(self, peer: Peer) -> None:
        """Have `flush` write to one."""
        if not peer.is_listed:
            peer.is_listed = True
            self._unflushed.append(peer)

    def _has_room(self, peer: Peer, topic: bytes, message: bytes | bytearray) -> bool:
        """Find room for a message in a queue that has used what it had; False if it is not to be queued."""
        if peer.queued > self._queue_size_max:
            self._overflow(peer, topic, message)
            return False
        if self._queues.grant(peer, self._cut):
            return True
        if isinstance(peer.pace, modes.Overflow):  # it was cut itself
            self._lose(peer.pace, message)
        return False

    def _cut(self, peer: Peer) -> bool:
        """Shorten a queue; its subscriber gets the newest of each topic when it reads, this message's as well."""
        if not self._subscribers.start_anew(peer):
            return False
        frames = peer.shorten()
        if not frames:
            return True
        overflow = self._overflow_of(peer)
        self._count(frames, overflow)
        if peer in self._paced and peer.pace is not None:
            peer.pace.skip(overflow.skipped)
        else:
            overflow.drop()
            peer.pace = overflow
        return True

    def _count(self, frames: bytes, overflow: modes.Overflow) -> None:
        """Count the records in frames that were in a queue: perhaps a hundred thousand, while others wait."""
        at, size = 0, len(frames)
        self._counted = None
        self._skipped = self._gap = 0
        while at < size:
            flags = raw.get_u8(frames, at)
            if flags & LONG:
                end = at + LONG_HEAD_SIZE + raw.get_u64_big(frames, at + 1)
                at += LONG_HEAD_SIZE
            else:
                end = at + SHORT_HEAD_SIZE + raw.get_u8(frames, at + 1)
                at += SHORT_HEAD_SIZE
            if not flags & COMMAND:
                self._count_records(frames, at, end)
            at = end
        overflow.lose(
            self._skipped, self._gap, raw.cut(frames, self._newest, HEADER_SIZE) if self._gap else b""
        )

    def _count_records(self, data: bytes | bytearray, at: int, end: int) -> None:
        """Add the records that are there to what is counted."""
        while end - at >= HEADER_SIZE:
            code = raw.get_u8(data, at + KIND_OFFSET)
            self._skipped += 1
            if EVERY[code]:
                self._gap += 1
                self._newest = at
            length = SIZES[code]
            if length < 0:
                length = wire.size_at(data, at)
            at = end if not 0 < length < end - at else at + length

    def _overflow_of(self, peer: Peer) -> modes.Overflow:
        """Return what one has not got, who declared nothing."""
        if isinstance(peer.pace, modes.Overflow):
            return peer.pace
        return modes.Overflow(time.monotonic_ns())

    def _overflow(self, peer: Peer, topic: bytes, message: bytes | bytearray) -> None:
        """A queue is full: what comes on top is kept by topic, the newest of each, until all of it has left."""
        peer.pace = self._overflow_of(peer)
        self._keep(peer.pace, topic, message)

    def flush(self) -> None:
        """Write what was queued; what the kernel does not take is written later."""
        # hot: `make bench`
        while self._unflushed:
            peer = self._unflushed.pop()
            peer.is_listed = False
            peer.flush()

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
            if its_pace.release(now_mono_ns):
                peer.flush()  # what was gathered
            if peer.queued:
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
        self._set_pace(peer, its_pace)
        self._paced.add(peer)
        return its_pace.answer(self._session, time.time_ns())

    def _set_pace(self, peer: Peer, its_pace: modes.Pace | None) -> None:
        """Have one follow another mode: what it was due goes first, and how much it did not get."""
        last = peer.pace
        peer.set_pace(its_pace)
        if isinstance(last, modes.Overflow):
            self._end_overflow(peer, last)

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
        # for all together: those that read are served first, by the flush
        deadline = time.monotonic() + wait_s
        for peer in list(self._peers):
            if peer.pace is not None:
                self._set_pace(peer, None)  # what it was due is the last that it hears
            peer.close_gently(max(0.0, deadline - time.monotonic()))
