"""What a subscriber does about a hole in a topic's sequence: it asks for what is missing, and keeps the order.

Records that follow a hole are held back, for that topic alone, until those before them have come or cannot be had.
Pure: the subscriber's `Follower` reports holes, frames to send and answers that came go through here; whoever
drives it owns socket and clock.
"""

import collections
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from feedhandler.data import retransmission, wire
from feedhandler.data.errors import UNDECODABLE, DecodeError
from feedhandler.data.kinds import keeps_every
from feedhandler.data.units import NS_PER_S
from feedhandler.transport.follower import Follower

# Longer than an answer takes, and short for whoever waits: after that the newer records count more.
PATIENCE_NS: Final = NS_PER_S
TOPICS_MAX: Final = 20_000  # with a hole at the same time
# After a request that nobody has answered, nothing is held back for so long: whoever is asked there hangs.
DOUBT_NS: Final = 10 * NS_PER_S
HELD_MAX: Final = 500  # records of one topic that are held back
RECORDS_MAX: Final = 10_000  # of one hole: a larger one is a restart of ours, and no ring is that deep


class Hole(msgspec.Struct):
    """A topic with missing records: those of `wanted` are asked for, `found` have come.

    since_mono_ns is when it was first asked for, and before that, when it was seen.
    """

    session: int
    wanted: list[retransmission.Missing]
    since_mono_ns: int
    held: list[wire.Record]
    found: dict[int, wire.Record] = {}
    is_asked: bool = False


class Healer:
    """Asks for missing records, one request at a time; emits what was held back.

    follower is the subscriber's; its `on_hole` is to be the method of this name. It is idle unless `is_connected`.
    recovered counts records that came after all, refusals answers that were none.
    """

    def __init__(
        self,
        follower: Follower,
        emit: Callable[[wire.Record], object],
        clock: Callable[[], int],
        *,
        takes_latest: bool = True,
    ) -> None:
        """clock returns the monotonic time in nanoseconds.

        takes_latest: whether tickers are asked for, too, of which the newest is enough.
        """
        self._takes_latest = takes_latest
        self._follower = follower
        self._emit = emit
        self._clock = clock
        self._holes: dict[str, Hole] = {}
        self._request_id = 0
        self._asked: dict[str, list[retransmission.Missing]] | None = None  # in the request that is under way
        self._asked_mono_ns = 0
        self._doubted_until_ns = 0
        self.is_connected = False
        self.recovered = 0
        self.refusals = 0

    @property
    def is_healing(self) -> bool:
        """True while something is missing and may still come."""
        return bool(self._holes)

    def on_hole(self, record: wire.Record, first: int) -> bool:
        """Take a record before which others are missing, from number first on; False: it is not held back."""
        end = _end(record)
        if not self.is_connected or not self._is_wanted(record) or end - first > RECORDS_MAX:
            return False
        if self._clock() < self._doubted_until_ns:
            return False
        missing = retransmission.Missing(record.topic, first, end - 1)
        hole = self._holes.get(record.topic)
        if hole is not None and hole.session != record.session:
            self._close(record.topic, hole)  # of a merger that is gone
            hole = None
        if hole is None:
            if len(self._holes) >= TOPICS_MAX:
                return False
            hole = Hole(record.session, [missing], self._clock(), [record])
            self._holes[record.topic] = hole
            self._follower.held[record.topic] = hole.held
        else:
            hole.wanted.append(missing)
            hole.held.append(record)
        return True

    def _is_wanted(self, record: wire.Record) -> bool:
        if isinstance(record, wire.Ticker):
            return self._takes_latest or keeps_every(record.kind)
        return isinstance(record, wire.Condition) or keeps_every(record.kind)

    def request(self) -> bytes | None:
        """Return the next request to send; None if there is nothing to ask, or one is under way."""
        if not self.is_connected or self._is_under_way():
            return None
        session, asked = 0, {}
        room = retransmission.RANGES_MAX
        for hole in self._holes.values():
            session = session or hole.session
            if hole.session == session and hole.wanted and len(hole.wanted) <= room:
                asked[hole.wanted[0].topic] = list(hole.wanted)
                room -= len(hole.wanted)
        if not asked:
            return None
        self._asked = asked
        self._asked_mono_ns = self._clock()
        self._request_id += 1
        for topic in asked:
            hole = self._holes[topic]
            if not hole.is_asked:
                hole.is_asked, hole.since_mono_ns = True, self._asked_mono_ns
        missing = [each for ranges in asked.values() for each in ranges]
        return msgspec.json.encode(
            retransmission.Request(id=self._request_id, session=session, missing=missing)
        )

    def _is_under_way(self) -> bool:
        """Return whether an answer is waited for; one that does not come is not waited for any longer."""
        if self._asked is None:
            return False
        now_ns = self._clock()
        if now_ns - self._asked_mono_ns <= PATIENCE_NS:
            return True
        self._asked = None
        self._doubted_until_ns = now_ns + DOUBT_NS
        return False

    def on_answer(self, frames: list[bytes]) -> None:
        """Take the frames of an answer; one that nobody waits for, or that makes no sense, changes nothing."""
        try:
            head = msgspec.json.decode(frames[0], type=retransmission.Head)
            records = list(_records(frames[1]))
        except (*UNDECODABLE, DecodeError, IndexError):
            self.refusals += 1
            return
        if self._asked is None or head.id != self._request_id:
            return
        asked, self._asked = self._asked, None
        if head.error:
            self.refusals += 1
        rest: dict[str, list[retransmission.Missing]] = {}
        for each in head.rest:
            if any(own.first <= each.first <= each.last <= own.last for own in asked.get(each.topic, ())):
                rest.setdefault(each.topic, []).append(each)
        for record in records:
            hole, ranges = self._holes.get(record.topic), asked.get(record.topic, ())
            is_asked = any(each.first <= record.sequence <= each.last for each in ranges)
            if hole is not None and is_asked and record.session == hole.session:
                hole.found[record.sequence] = record
        for topic in asked:
            hole = self._holes.get(topic)
            if hole is not None:
                # What was asked is answered; holes that were seen meanwhile are still to be asked for.
                hole.wanted = [*rest.get(topic, ()), *hole.wanted[len(asked[topic]) :]]
                if not hole.wanted:
                    self._close(topic, hole)

    def on_time(self) -> None:
        """Give up what takes too long, or holds back too much."""
        if not self._holes:
            return
        oldest = self._clock() - PATIENCE_NS
        for topic, hole in list(self._holes.items()):
            if hole.since_mono_ns < oldest or len(hole.held) > HELD_MAX:
                self._close(topic, hole)

    def on_disconnect(self) -> None:
        """There is nobody to ask: nothing is held back any longer."""
        self.is_connected = False
        self._asked = None
        for topic, hole in list(self._holes.items()):
            self._close(topic, hole)

    def _close(self, topic: str, hole: Hole) -> None:
        """Pass on what has come and what was held back, in order."""
        if self._asked is not None:
            self._asked.pop(topic, None)  # its answer comes too late, and is not for the next hole
        loss = self._follower.losses[topic]
        del self._holes[topic]
        del self._follower.held[topic]
        numbers = collections.deque(sorted(hole.found))
        for record in hole.held:
            while numbers and record.session == hole.session and numbers[0] < _end(record):
                self._emit(hole.found[numbers.popleft()])
                self.recovered += 1
                loss.lost -= 1
                loss.recovered += 1
            self._emit(record)


def _end(record: wire.Record) -> int:
    """Return the number behind those that come before a record; a condition follows the record of its number."""
    return record.sequence + isinstance(record, wire.Condition)


def _records(data: bytes) -> Iterator[wire.Record]:
    """Yield the records of an answer. Raises DecodeError."""
    for part in wire.split(data):
        record = wire.unpack(part)
        if isinstance(record, wire.Document | wire.Unknown):
            raise DecodeError("an answer has something else among its records")
        yield record
