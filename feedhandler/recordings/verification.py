"""Is a recording complete? What is in each segment, which numbers are missing, and what is known of why.

Frames of a connection are numbered in each direction, and answers of a feed, so whatever is missing shows between
two numbers. It is *told* where a gap, a torn end or a pause of the recorder stands in its place. What nothing tells
of is worse: somebody has changed the files, or we are wrong. What a feed received in its last moment before it was
killed cannot be known. Pure: open files come in.
"""

from collections.abc import Callable
from typing import BinaryIO, Final

import msgspec

from feedhandler.data.errors import UNDECODABLE
from feedhandler.recordings.packing import unpack
from feedhandler.recordings.plan import Plan
from feedhandler.recordings.segments import FOOTER, TORN, Block, NotASegment, blocks, read_footer
from feedhandler.recordings.traffic import Item, What

RANGES_MAX: Final = 100  # of missing numbers that are listed for a feed; all are counted
ROLLED: Final = ("time", "size")  # a segment that was closed for these goes on in the next one
ANSWERS: Final = ("", "answers")


class MissingRange(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers that no segment has; why is "" if nothing tells."""

    connection: str
    what: str  # received, sent or answers
    first: int
    last: int
    after_ns: int  # when the last before it was noted
    why: str


class SegmentReport(msgspec.Struct, kw_only=True):
    """One file. state: closed, open (it is being written), torn, or unreadable."""

    path: str
    size: int
    state: str = "torn"
    reason: str = ""  # why it was closed, or what is wrong with it
    items: int = 0
    received: int = 0
    sent: int = 0
    answered: int = 0
    first_ns: int = 0
    last_ns: int = 0
    damage: list[str] = []


class FeedVerification(msgspec.Struct, kw_only=True):
    """All segments of one feed. Counts of missing are frames and answers."""

    feed: str
    segments: list[SegmentReport] = []
    sessions: int = 0  # of the feed
    received: int = 0
    sent: int = 0
    answered: int = 0
    gaps: int = 0
    lost: int = 0  # items that gaps tell of
    missing: int = 0  # by their numbers: where nothing follows a gap, they do not show it
    unexplained: int = 0  # of those
    damaged: int = 0  # places in files
    unknown_ends: int = 0  # torn ends behind which the feed did not go on: what is missing cannot be known
    cut_sessions: int = 0  # of feeds that ended without closing their connections
    ranges: list[MissingRange] = []

    @property
    def is_complete(self) -> bool:
        """True if nothing is missing, and nothing may be."""
        return not (self.missing or self.lost or self.damaged or self.unknown_ends)

    @property
    def is_sound(self) -> bool:
        """True if all that is missing is told, and the files are as they were written."""
        return not (self.unexplained or self.damaged)


class _Count:
    """The numbers of one connection, in one direction."""

    def __init__(self, last: int, told: int) -> None:
        self.last = last
        self.told = told  # how many reasons had been told when that came
        self.last_ns = 0


class Verifier:
    """Takes the segments of one feed, in order."""

    def __init__(self, feed: str) -> None:
        self.report = FeedVerification(feed=feed)
        self.report.segments = []
        self.report.ranges = []
        self._session_ns = 0
        self._counts: dict[tuple[str, str], _Count] = {}
        self._open: set[str] = set()  # connections
        self._told = 0
        self._why = ""
        self._heard = 0  # how much had been told when the last item came that is not repeated
        self._is_first = True  # segment: it may go on from what has been removed
        self._was_torn = False

    def take(
        self,
        path: str,
        file: BinaryIO,
        size: int,
        *,
        is_open: bool = False,
        on_progress: Callable[[int], object] = lambda offset: None,
    ) -> SegmentReport:
        """Read one segment; is_open: a recorder is writing it. on_progress gets how far it was read."""
        found = SegmentReport(path=path, size=size, damage=[])
        self.report.segments.append(found)
        try:
            self._read(found, file, is_open, on_progress)
        except NotASegment as exc:
            if size and not is_open:
                self.damage(found, str(exc))
            found.state = "open" if is_open else "unreadable" if size else "torn"
            if not is_open:
                self._was_torn = True
                self.tell(f"{path} cannot be read")
        report = self.report
        report.received += found.received
        report.sent += found.sent
        report.answered += found.answered
        self._is_first = False
        return found

    def _read(
        self, found: SegmentReport, file: BinaryIO, is_open: bool, on_progress: Callable[[int], object]
    ) -> None:
        expected = 1
        tail = ""
        is_damaged = False  # just before
        for block in blocks(file):
            on_progress(block.offset)
            if not isinstance(block, Block):
                if block.is_tail:
                    tail = block.why
                else:
                    self.damage(found, f"{block.size} bytes at {block.offset}: {block.why}")
                    is_damaged = True
                continue
            if block.first_item > expected and not is_damaged:
                self.damage(found, f"{block.first_item - expected} items are missing before {block.offset}")
            is_damaged = False
            if block.what == FOOTER:
                footer = read_footer(block.data)
                found.state, found.reason = "closed", footer.reason if footer is not None else ""
                continue
            expected = block.first_item + block.items
            self._take_items(found, block)
        if found.state == "closed":
            if tail:
                self.damage(found, f"behind the footer: {tail}")
            self._was_torn = False
            if found.reason not in ROLLED:
                self.tell(f"the recorder closed {found.path}: {found.reason}")
            return
        found.reason = tail or TORN
        if is_open:
            found.state = "open"
        else:
            self._was_torn = True
            self.tell(f"{found.path}: {TORN}")

    def _take_items(self, found: SegmentReport, block: Block) -> None:
        try:
            for item in unpack(block.data):
                found.items += 1
                self._take(found, item)
        except ValueError as exc:
            self.damage(found, f"block at {block.offset}: {exc}")
        if block.first_ns:
            found.first_ns = min(found.first_ns or block.first_ns, block.first_ns)
            found.last_ns = max(found.last_ns, block.last_ns)

    def _take(self, found: SegmentReport, item: Item) -> None:
        what = item.what
        if what is not What.GAP and not item.is_repeated:
            self._heard = self._told
        if what is What.RECEIVED:
            found.received += 1
            self._number((item.connection, "received"), item)
        elif what is What.SENT:
            found.sent += 1
            self._number((item.connection, "sent"), item)
        elif what is What.ANSWERED:
            if item.is_repeated:
                self._seen(ANSWERS, item)
            else:
                found.answered += 1
                self._number(ANSWERS, item)
        elif what is What.HEADER:
            self._begin_session(item)
        elif what is What.OPENED:
            self._on_opened(item)
        elif what is What.CLOSED:
            self._on_closed(item)
        elif what is What.GAP:
            self.report.gaps += 1
            self.report.lost += item.number
            self.tell(item.name)

    def _begin_session(self, item: Item) -> None:
        try:
            session_ns = msgspec.json.decode(item.data, type=Plan).session_ns
        except UNDECODABLE:
            return
        if session_ns == self._session_ns:
            return
        if self._session_ns or not item.is_repeated:
            self.finish()
        self._was_torn = False
        self._session_ns = session_ns
        if not item.is_repeated:  # else its beginning is lost, and what tells of that came before
            self._told, self._why, self._heard = 0, "", 0
        self._counts.clear()
        self._open.clear()
        self.report.sessions += 1

    def finish(self) -> None:
        """No more of this session comes."""
        self.report.unknown_ends += self._was_torn
        if self._session_ns:
            self.report.cut_sessions += bool(self._open) and not self._was_torn
        self._was_torn = False

    def end(self) -> FeedVerification:
        """There are no more segments; returns the report."""
        last = self.report.segments[-1] if self.report.segments else None
        if last is not None and last.state == "torn":
            self.finish()
        return self.report

    # --- numbers

    def _on_opened(self, item: Item) -> None:
        name = item.connection
        self._open.add(name)
        for key in ((name, "received"), (name, "sent")):
            if key not in self._counts:
                # Of one that was open before all that we have, what came before cannot be missed.
                is_known = not (item.is_repeated and self._is_first)
                # If that it was opened is lost, its first frames are too, and are told of as what is lost there.
                told = self._heard if item.is_repeated else self._told
                self._counts[key] = _Count(0 if is_known else -1, told)

    def _on_closed(self, item: Item) -> None:
        self._open.discard(item.connection)
        count = self._counts.get((item.connection, "received"))
        last = count.last if count is not None else 0
        if item.number > last >= 0:
            self._miss((item.connection, "received"), last + 1, item.number, count)
            if count is not None:
                count.last = item.number

    def _seen(self, key: tuple[str, str], item: Item) -> None:
        """A number of before the segment: nothing before it can be missed here."""
        count = self._counts.get(key)
        if count is None:
            self._counts[key] = _Count(-1, self._told)

    def _number(self, key: tuple[str, str], item: Item) -> None:
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count(0, 0)
        number = item.number
        if count.last < 0:
            count.last = number - 1
        if number > count.last + 1:
            self._miss(key, count.last + 1, number - 1, count)
        count.last = max(count.last, number)
        count.told = self._told
        count.last_ns = item.wall_ns

    def _miss(self, key: tuple[str, str], first: int, last: int, count: _Count | None) -> None:
        told = self._told > (count.told if count is not None else 0)
        why = self._why if told else ""
        report = self.report
        report.missing += last - first + 1
        report.unexplained += 0 if told else last - first + 1
        if len(report.ranges) < RANGES_MAX:
            after_ns = count.last_ns if count is not None else 0
            report.ranges.append(
                MissingRange(
                    connection=key[0], what=key[1], first=first, last=last, after_ns=after_ns, why=why
                )
            )

    def tell(self, why: str) -> None:
        """This explains what is missing just there."""
        self._told += 1
        self._why = why

    def damage(self, found: SegmentReport, text: str) -> None:
        """Something is wrong with a segment, or it is not there."""
        self.report.damaged += 1
        found.damage.append(text)
        self.tell(f"{found.path} is damaged: {text}")
