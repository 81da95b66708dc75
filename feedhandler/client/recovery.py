"""Recovery: a subscriber requests what is missing in a gap of a topic's sequence, and keeps the order.

Records that follow a gap are held back, for that topic alone, until those before them have come or cannot be had.
Pure: the subscriber's `Follower` reports gaps, frames to send and answers that came go through here; the caller
owns socket and clock.
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
TOPICS_MAX: Final = 20_000  # with a gap at the same time
# After a request without an answer, nothing is held back for so long: the other side hangs.
DOUBT_NS: Final = 10 * NS_PER_S
HELD_MAX: Final = 500  # records of one topic that are held back
RECORDS_MAX: Final = 10_000  # of one gap: a larger one is a restart of ours, and no ring is that deep


class Gap(msgspec.Struct):
    """A topic with missing records: those of `wanted` are requested, `found` have come.

    since_mono_ns is when it was first requested, and before that, when it was seen.
    """

    session: int
    wanted: list[retransmission.Missing]
    since_mono_ns: int
    held: list[wire.Record]
    found: dict[int, wire.Record] = {}
    is_requested: bool = False


class Recovery:
    """Requests missing records, one request at a time; emits what was held back.

    follower is the subscriber's; its `on_gap` is to be the method of this name. It is idle unless `is_connected`.
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

        takes_latest: whether kinds of which the newest is enough are asked for, too.
        """
        self._takes_latest = takes_latest
        self._follower = follower
        self._emit = emit
        self._clock = clock
        self._gaps: dict[str, Gap] = {}
        self._request_id = 0
        self._requested: dict[str, list[retransmission.Missing]] | None = (
            None  # in the request that is under way
        )
        self._requested_mono_ns = 0
        self._doubted_until_ns = 0
        self.is_connected = False
        self.recovered = 0
        self.refusals = 0

    @property
    def is_recovering(self) -> bool:
        """True while something is missing and may still come."""
        return bool(self._gaps)

    def on_gap(self, record: wire.Record, first: int) -> bool:
        """Take a record before which others are missing, from number first on; False: it is not held back."""
        end = _end(record)
        if not self.is_connected or not self._is_wanted(record) or end - first > RECORDS_MAX:
            return False
        if self._clock() < self._doubted_until_ns:
            return False
        missing = retransmission.Missing(record.topic, first, end - 1)
        gap = self._gaps.get(record.topic)
        if gap is not None and gap.session != record.session:
            self._close(record.topic, gap)  # of a merger that is gone
            gap = None
        if gap is None:
            if len(self._gaps) >= TOPICS_MAX:
                return False
            gap = Gap(record.session, [missing], self._clock(), [record])
            self._gaps[record.topic] = gap
            self._follower.held[record.topic] = gap.held
        else:
            gap.wanted.append(missing)
            gap.held.append(record)
        return True

    def _is_wanted(self, record: wire.Record) -> bool:
        if isinstance(record, wire.Document | wire.Unknown):
            return False  # no answer has one
        return self._takes_latest or isinstance(record, wire.Condition) or keeps_every(record.kind)

    def request(self) -> bytes | None:
        """Return the next request to send; None if nothing is missing, or one is under way."""
        if not self.is_connected or self._is_under_way():
            return None
        session, requested = 0, {}
        room = retransmission.RANGES_MAX
        for gap in self._gaps.values():
            session = session or gap.session
            if gap.session == session and gap.wanted and len(gap.wanted) <= room:
                requested[gap.wanted[0].topic] = list(gap.wanted)
                room -= len(gap.wanted)
        if not requested:
            return None
        self._requested = requested
        self._requested_mono_ns = self._clock()
        self._request_id += 1
        for topic in requested:
            gap = self._gaps[topic]
            if not gap.is_requested:
                gap.is_requested, gap.since_mono_ns = True, self._requested_mono_ns
        missing = [each for ranges in requested.values() for each in ranges]
        return msgspec.json.encode(
            retransmission.Request(id=self._request_id, session=session, missing=missing)
        )

    def _is_under_way(self) -> bool:
        """Return whether an answer is waited for; one that does not come is not waited for any longer."""
        if self._requested is None:
            return False
        now_ns = self._clock()
        if now_ns - self._requested_mono_ns <= PATIENCE_NS:
            return True
        self._requested = None
        self._doubted_until_ns = now_ns + DOUBT_NS
        return False

    def on_answer(self, frames: list[bytes]) -> None:
        """Take the frames of an answer; one that is not waited for, or that makes no sense, changes nothing."""
        try:
            head = msgspec.json.decode(frames[0], type=retransmission.Head)
            records = list(answer_records(frames[1]))
        except (*UNDECODABLE, DecodeError, IndexError):
            self.refusals += 1
            return
        if self._requested is None or head.id != self._request_id:
            return
        requested, self._requested = self._requested, None
        if head.error:
            self.refusals += 1
        rest: dict[str, list[retransmission.Missing]] = {}
        for each in head.rest:
            if any(own.first <= each.first <= each.last <= own.last for own in requested.get(each.topic, ())):
                rest.setdefault(each.topic, []).append(each)
        for record in records:
            gap, ranges = self._gaps.get(record.topic), requested.get(record.topic, ())
            is_requested = any(each.first <= record.sequence <= each.last for each in ranges)
            if gap is not None and is_requested and record.session == gap.session:
                gap.found[record.sequence] = record
        for topic in requested:
            gap = self._gaps.get(topic)
            if gap is not None:
                # What was requested is answered; gaps that were seen meanwhile are still to be requested.
                gap.wanted = [*rest.get(topic, ()), *gap.wanted[len(requested[topic]) :]]
                if not gap.wanted:
                    self._close(topic, gap)

    def on_time(self) -> None:
        """Give up what takes too long, or holds back too much."""
        if not self._gaps:
            return
        oldest = self._clock() - PATIENCE_NS
        for topic, gap in list(self._gaps.items()):
            if gap.since_mono_ns < oldest or len(gap.held) > HELD_MAX:
                self._close(topic, gap)

    def on_disconnect(self) -> None:
        """There is no relay: nothing is held back any longer."""
        self.is_connected = False
        self._requested = None
        for topic, gap in list(self._gaps.items()):
            self._close(topic, gap)

    def _close(self, topic: str, gap: Gap) -> None:
        """Pass on what has come and what was held back, in order."""
        if self._requested is not None:
            self._requested.pop(topic, None)  # its answer comes too late, and is not for the next gap
        loss = self._follower.losses[topic]
        del self._gaps[topic]
        del self._follower.held[topic]
        numbers = collections.deque(sorted(gap.found))
        for record in gap.held:
            while numbers and record.session == gap.session and numbers[0] < _end(record):
                self._emit(gap.found[numbers.popleft()])
                self.recovered += 1
                loss.lost -= 1
                loss.recovered += 1
            self._emit(record)


def _end(record: wire.Record) -> int:
    """Return the number behind those that come before a record; a condition follows the record of its number."""
    return record.sequence + isinstance(record, wire.Condition)


def answer_records(data: bytes) -> Iterator[wire.Record]:
    """Yield the records of an answer. Raises DecodeError."""
    for part in wire.split(data):
        record = wire.unpack(part)
        if isinstance(record, wire.Document | wire.Unknown):
            raise DecodeError("an answer has something else among its records")
        yield record
