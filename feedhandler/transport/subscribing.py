"""What subscribers request, and what each is to get first: the part of an outlet that is not the stream.

Both forms of `Outlet` have one `Subscribers` each. To subscribe is work for the publisher, and anybody may do it:
so requests and last values have a budget in each turn of the loop, shared one after the other by those who want
something, and what one requests beyond it is not read from its socket before that. The stream has no part in this
but to leave out what somebody has not got the last value of (`Join`).

What was done for a subscriber that leaves is wasted. Some of that is free at once, and some each second; beyond it
all joiners together get a small part of the budget, until the waste is made up for. A crowd that joins and stays
wastes nothing.
"""

import logging
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from feedhandler.data import modes, wire
from feedhandler.data.kinds import RECORD_WORDS, keeps_every
from feedhandler.data.topics import Groups

SUBSCRIBE: Final = 1
CANCEL: Final = 0
PREFIXES_MAX: Final = 100_000  # of one subscriber
# What topics of records begin with, other than documents.
RECORDS: Final = tuple(f"{word}.".encode() for word in RECORD_WORDS)

# Of one turn, in units of some 3 us each in plain Python: a last value is packed and queued. So a turn that has
# much of this to do is longer by less than a millisecond, and as much is left for everything else.
BUDGET: Final = 256
QUANTUM: Final = 64  # of one subscriber, before it is the next one's turn
TURN_S: Final = 0.002  # at least: many requests get no more of a processor than about a quarter
REQUEST_COST: Final = 4
FOUND_PER_UNIT: Final = 1024  # topics under a prefix,
TOUCHED_PER_UNIT: Final = 32  # and those that get one more group
SIZE_PER_UNIT: Final = 1 << 12  # of a document
CLEANED_PER_TURN: Final = (
    512  # prefixes of those who have gone, and topics of prefixes that nobody has any more
)
STARTED_ANEW_MAX: Final = 100  # prefixes of one whose queue was cut
# Subscriptions of more last values than one gets in a turn: each that is under way costs something per record of
# the stream. Others wait, unread, in the order in which they came.
JOINING_MAX: Final = 4
# In units: 5 % of a processor, at the price above. A subscriber of 5,000 topics that starts anew every second stays
# within it.
WASTED_PER_S: Final = 1 << 14
WASTED_BURST_S: Final = 4.0
WASTE_REMEMBERED_S: Final = 10.0  # of making up: after everybody has left at once it need not take longer
SLOW_BUDGET: Final = int(WASTED_PER_S * TURN_S)
assert 0 < SLOW_BUDGET <= BUDGET // 4
# More must not wait for one that is to get something that it requested: it gets that when it has read some.
ROOM: Final = 1 << 16

# Of `zmtp`, whose peers they are about: what it drops of the same lines, it drops of these.
log = logging.getLogger("feedhandler.transport.zmtp")


class Clock(Protocol):
    """The part of an event loop that is needed here."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> "Cancellable": ...


class Cancellable(Protocol):
    """What was put off, and may be called off."""

    def cancel(self) -> object: ...


class Budget:
    """So much a second, and some seconds' worth at once. It may be overdrawn: then there is nothing for a while."""

    def __init__(self, rate: float, now_s: float, burst_s: float = 1.0) -> None:
        self._rate = rate
        self._burst = rate * burst_s
        self._left = self._burst
        self._now_s = now_s

    def spend(self, cost: float, now_s: float) -> float:
        """Take what something cost; returns for how many seconds nothing more is to be had."""
        self._left = min(self._left + (now_s - self._now_s) * self._rate, self._burst) - cost
        self._now_s = now_s
        return max(0.0, -self._left / self._rate)


class LastValues(Protocol):
    """What a new subscriber gets first."""

    def topics(self, prefix: bytes) -> list[bytes]:
        """Return the topics that begin with a prefix, padded, in order."""

    def last(self, topic: bytes) -> bytes | bytearray | None:
        """Return a topic's last value, flagged SNAPSHOT; None if it has none."""


class SubscriberPeer(Protocol):
    """A connection, as it is seen here."""

    subscriptions: "Subscriptions"
    join: "Join | None"
    on_room: "Callable[[SubscriberPeer], None] | None"  # called after each write

    @property
    def is_open(self) -> bool: ...

    @property
    def queued(self) -> int: ...

    def put(self, message: bytes | bytearray, /) -> None: ...

    def flush(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...

    def cut_off(self, reason: str, /) -> None: ...

    def has_hung_up(self) -> bool: ...


class Subscriptions:
    """One subscriber's prefixes, however many."""

    __slots__ = ("_counts", "_records", "_sizes")

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}  # how often each prefix is subscribed
        self._sizes: dict[int, int] = {}  # how many prefixes have each length
        self._records = 0  # how many include records of some kind

    @property
    def cover_records(self) -> bool:
        """True if one of them includes other records than documents."""
        return self._records > 0

    @property
    def prefixes(self) -> list[bytes]:
        """Each of them, once."""
        return list(self._counts)

    def has_other(self, topic: bytes, prefix: bytes) -> bool:
        """True if another one than this is the beginning of a topic, padded."""
        return any(
            topic[:size] in self._counts for size in self._sizes if size != len(prefix) and size <= len(topic)
        )

    def take(self, request: bytes, *, is_batched: bool) -> int:
        """Note a subscription or its cancellation; returns 1 if its prefix is new, -1 if it is over, else 0.

        Raises ValueError for one too many.
        """
        prefix = request[1:]
        count = self._counts.get(prefix, 0)
        if request[0] == CANCEL:
            if count > 1:
                self._counts[prefix] = count - 1
            elif count:
                del self._counts[prefix]
                self._note(prefix, -1)
            return -1 if count == 1 else 0
        if is_batched and is_narrow(prefix):
            log.warning("batches: subscription to %r refused: it is narrower than an exchange", prefix)
            return 0
        if len(self._counts) >= PREFIXES_MAX:
            raise ValueError(f"a subscriber has more than {PREFIXES_MAX} subscriptions")
        self._counts[prefix] = count + 1
        if count:
            return 0
        self._note(prefix, 1)
        return 1

    def withdraw(self, prefix: bytes) -> None:
        """Forget a prefix that was new."""
        del self._counts[prefix]
        self._note(prefix, -1)

    def _note(self, prefix: bytes, change: int) -> None:
        size = len(prefix)
        self._sizes[size] = self._sizes.get(size, 0) + change
        if not self._sizes[size]:
            del self._sizes[size]
        if prefix.startswith(RECORDS) or any(word.startswith(prefix) for word in RECORDS):
            self._records += change


def is_narrow(prefix: bytes) -> bool:
    """True if a prefix covers less than all records of a kind and an exchange."""
    words = prefix.split(b".", 2)
    return prefix.startswith(RECORDS) and len(words) == 3 and words[2] != b""


def _counts_alone(record: bytes | bytearray | memoryview) -> bool:
    kind = record[wire.KIND_OFFSET]
    return kind == wire.CONDITION or keeps_every(kind)


class Join:
    """What one subscriber is still to get first, of one prefix: last values, topic by topic.

    Until a topic's turn has come the subscriber gets nothing of it: its last value comes first, and is then the
    newest. What it had already by another prefix goes on without a gap.
    """

    __slots__ = ("_done", "_is_batched", "_prefix", "_subscriptions", "_topics")

    def __init__(
        self, subscriptions: Subscriptions, prefix: bytes, topics: list[bytes], *, is_batched: bool
    ) -> None:
        self._subscriptions = subscriptions
        self._prefix = prefix
        self._topics = topics
        self._done = 0
        self._is_batched = is_batched

    @property
    def is_over(self) -> bool:
        """True once every topic has had its turn."""
        return self._done == len(self._topics)

    def next(self) -> bytes:
        """Return the topic whose turn it is."""
        self._done += 1
        return self._topics[self._done - 1]

    def holds(self, topic: bytes) -> bool:
        """True if nothing of a topic, padded, may go to the subscriber yet."""
        index = bisect_left(self._topics, topic, self._done)
        return (
            index < len(self._topics)
            and self._topics[index] == topic
            and not self._subscriptions.has_other(topic, self._prefix)
        )

    def let_through(self, topic: bytes, message: bytes | bytearray) -> bytes | bytearray | None:
        """Return what may go of a message, None if nothing may.

        Records of kinds that keep every one wait for nothing: no last value will say what they say.
        """
        if not self._is_batched or wire.size_at(message, 0) == len(message):
            return message if _counts_alone(message) or not self.holds(topic) else None
        passed = [
            record
            for record in wire.split(bytes(message))
            if _counts_alone(record) or not self.holds(bytes(record[: wire.TOPIC_SIZE]))
        ]
        return b"".join(passed) or None


class Subscribers:
    """Who is subscribed to what at one endpoint, and what each is still to get.

    on_mode gets declarations (`pace`), on_wanted whether some subscription covers records, each time that this
    changes. Each subscriber is in one of these conditions: it is read, and what it requests is done at once; or it
    is not read, because it waits for its turn (`_waiting`), for others to have joined (`_joiners`), or for room in
    its queue.
    """

    def __init__(
        self,
        clock: Clock,
        last: LastValues,
        *,
        is_batched: bool,
        on_mode: Callable[[Any, bytes], object],
        on_wanted: Callable[[bool], object],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now_s = now_s
        self._clock = clock
        self._last = last
        self._is_batched = is_batched
        self._on_mode = on_mode
        self._on_wanted = on_wanted
        self._groups = Groups()
        self.by_topic = self._groups.by_topic
        self.find = self._groups.find
        self.forget = self._groups.forget
        self._left = BUDGET  # of this turn; less than nothing is owed by the next ones
        self._spent: dict[SubscriberPeer, int] = {}  # in this turn
        self._costs: dict[SubscriberPeer, int] = {}  # of what each has
        self._wasted = Budget(WASTED_PER_S, now_s(), WASTED_BURST_S)
        self._joining: set[SubscriberPeer] = set()  # in portions; those that wait for room do not count
        # with wide subscriptions, which wait for others to have joined
        self._joiners: deque[SubscriberPeer] = deque()
        self._requests: dict[SubscriberPeer, bytes] = {}  # of those who wait, the one that is read already
        self._waiting: deque[SubscriberPeer] = deque()
        self._wanting: set[SubscriberPeer] = set()  # records
        # with prefixes whose groups they are still in
        self._gone: deque[tuple[SubscriberPeer, list[bytes]]] = deque()
        self._timer: Cancellable | None = None

    def take(self, peer: SubscriberPeer, request: bytes) -> None:
        """Take a subscription or its cancellation; one with more than its share is not read for a while.

        Raises ValueError for anything else.
        """
        if not request or request[0] not in (SUBSCRIBE, CANCEL):
            raise ValueError("a subscriber sent something other than a subscription")
        if self._left <= 0 or self._spent.get(peer, 0) >= QUANTUM or not _has_room(peer, request):
            self._requests[peer] = request
            self._put_off(peer)
            return
        if self._must_queue(request):
            self._requests[peer] = request
            peer.pause()
            self._joiners.append(peer)
            return
        self._do(peer, request)
        if peer.join is not None:
            self._joining.add(peer)
            self._put_off(peer)

    def _must_queue(self, request: bytes) -> bool:
        """Return whether a request is to wait until others have joined."""
        if request[0] == CANCEL or len(self._joining) < JOINING_MAX or modes.is_declaration(request[1:]):
            return False
        return len(self._last.topics(request[1:])) > QUANTUM

    def _put_off(self, peer: SubscriberPeer) -> None:
        peer.pause()
        self._waiting.append(peer)
        self._arm()

    def _has_joined(self, peer: SubscriberPeer) -> None:
        """Let the next one join; one that has hung up meanwhile is closed in its turn."""
        self._joining.discard(peer)
        while self._joiners and len(self._joining) < JOINING_MAX:
            following = self._joiners.popleft()
            if following.is_open:
                self._joining.add(following)
                self._waiting.append(following)
                self._arm()

    def _do(self, peer: SubscriberPeer, request: bytes) -> None:
        """Do what one requests. Raises ValueError for one subscription too many."""
        prefix = request[1:]
        change = peer.subscriptions.take(request, is_batched=self._is_batched)
        self._spend(peer, REQUEST_COST)
        if request[0] == CANCEL:
            self._waste(peer)
        if modes.is_declaration(prefix):
            self._on_mode(peer, request)
            peer.flush()
            return
        if change > 0:
            topics = self._last.topics(prefix)
            if len(topics) > QUANTUM and peer.has_hung_up():
                peer.subscriptions.withdraw(prefix)  # whose group it is not in
                peer.close()
                return
            touched = self._groups.enter(prefix, peer)
            self._spend(peer, touched // TOUCHED_PER_UNIT + len(topics) // FOUND_PER_UNIT)
            self._note_wanting(peer)
            if topics:
                peer.join = Join(peer.subscriptions, prefix, topics, is_batched=self._is_batched)
                self._go_on(peer, peer.join)
        elif change < 0:
            self._groups.leave(prefix, peer)
            self._note_wanting(peer)

    def _go_on(self, peer: SubscriberPeer, join: Join) -> None:
        """Send what comes next of that which one is to get first."""
        units = QUANTUM
        while units > 0 and not join.is_over and peer.queued < ROOM:
            units -= 1
            if (message := self._last.last(join.next())) is not None:
                peer.put(message)
                units -= len(message) // SIZE_PER_UNIT
        if join.is_over and peer.join is join:  # else its queue was cut meanwhile
            peer.join = None
        self._spend(peer, QUANTUM - units)
        peer.flush()

    def _spend(self, peer: SubscriberPeer, cost: int) -> None:
        self._left -= cost
        self._spent[peer] = self._spent.get(peer, 0) + cost
        self._costs[peer] = self._costs.get(peer, 0) + cost
        if not peer.is_open:  # it has gone while it was written to
            self._waste(peer)
        self._arm()

    def _waste(self, peer: SubscriberPeer) -> None:
        """Count what was done for one that has no use for it any more."""
        now_s = self._now_s()
        cost = self._costs.pop(peer, 0)
        if self._wasted.spend(0, now_s) < WASTE_REMEMBERED_S:
            self._wasted.spend(cost, now_s)

    def _note_wanting(self, peer: SubscriberPeer) -> None:
        was_wanted = bool(self._wanting)
        if peer.is_open and peer.subscriptions.cover_records:
            self._wanting.add(peer)
        else:
            self._wanting.discard(peer)
        if bool(self._wanting) != was_wanted:
            self._on_wanted(bool(self._wanting))

    def drop(self, peer: SubscriberPeer) -> None:
        """Forget one whose connection has ended, with whatever it had requested."""
        peer.join = peer.on_room = None
        self._requests.pop(peer, None)
        self._spent.pop(peer, None)
        self._waste(peer)
        self._has_joined(peer)
        self._note_wanting(peer)
        if prefixes := peer.subscriptions.prefixes:
            self._gone.append((peer, prefixes))  # later: a message may be on its way to these groups now
            self._arm()

    def start_anew(self, peer: SubscriberPeer) -> bool:
        """Have one whose queue was cut get everything that it is subscribed to as if it had just come.

        Returns False if it has too many subscriptions for that.
        """
        prefixes = peer.subscriptions.prefixes
        if len(prefixes) > STARTED_ANEW_MAX:
            return False
        topics = sorted({topic for prefix in prefixes for topic in self._last.topics(prefix)})
        is_read = peer.join is None and peer not in self._requests
        peer.join = Join(Subscriptions(), b"", topics, is_batched=self._is_batched)
        if is_read:
            self._put_off(peer)
        return True

    # --- turn by turn

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self._clock.call_later(TURN_S, self._turn)

    def _turn(self) -> None:
        """Begin another turn: serve those who wait, one after the other, as far as the budget goes."""
        self._timer = None
        budget = SLOW_BUDGET if self._wasted.spend(0, self._now_s()) else BUDGET
        self._left = min(self._left + budget, budget)
        self._spent.clear()
        while self._waiting and self._left > 0:
            self._serve(self._waiting.popleft())
        self._clean()
        if self._waiting or self._gone or not self._groups.is_tidy:
            self._arm()

    def _serve(self, peer: SubscriberPeer) -> None:
        if not peer.is_open:
            return
        self._spend(peer, 1)
        if peer.has_hung_up():
            peer.close()  # nothing that it still requests would be received
            return
        request = self._requests.get(peer)
        if peer.join is not None:
            self._go_on(peer, peer.join)
        elif request is not None and _has_room(peer, request):
            if peer not in self._joining and self._must_queue(request):
                self._joiners.append(peer)
                return
            del self._requests[peer]
            try:
                self._do(peer, request)
            except ValueError as exc:
                peer.cut_off(str(exc))
        if not peer.is_open:
            return
        if peer.join is None or peer.queued >= ROOM:
            self._has_joined(peer)
        else:
            self._joining.add(peer)
        if peer in self._requests or peer.join is not None:
            if peer.queued >= ROOM:
                peer.on_room = self._on_room
            else:
                self._waiting.append(peer)
        else:
            peer.resume()

    def _on_room(self, peer: SubscriberPeer) -> None:
        if peer.queued < ROOM:
            peer.on_room = None
            self._waiting.append(peer)
            self._arm()

    def _clean(self) -> None:
        """Forget, a part of it, what those have left behind who are gone."""
        steps = CLEANED_PER_TURN
        while self._gone and steps:
            steps -= 1
            peer, prefixes = self._gone[0]
            self._groups.leave(prefixes.pop(), peer)
            if not prefixes:
                self._gone.popleft()
        self._groups.tidy(steps)

    def close(self) -> None:
        """Serve nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _has_room(peer: SubscriberPeer, request: bytes) -> bool:
    """Return whether one's queue has room for what it requests; to cancel is always possible."""
    return peer.queued < ROOM or (request[0] == CANCEL and not modes.is_declaration(request[1:]))
