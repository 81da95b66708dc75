"""The recording of one feed: which segment its traffic goes to, and what each segment begins with.

    message ─▶ take ─▶ waiting ─▶ write ─▶ segment ─▶ the next one: after a time, a size, a start of the feed

What cannot be written waits, and is the first of the next segment. Pure: files and times come in. `take` may be
called by another thread than the rest.
"""

import contextlib
from collections import deque
from typing import BinaryIO, Final, NamedTuple, Protocol

import msgspec

from feedhandler.data.errors import UNDECODABLE
from feedhandler.recordings.packing import REPEATED, unpack
from feedhandler.recordings.plan import KeptLists, Plan
from feedhandler.recordings.segments import Footer, SegmentWriter
from feedhandler.recordings.traffic import What

FLUSH_NS: Final = 700_000_000  # with a look four times a second, an open block is younger than one
MESSAGES_PER_TURN: Final = 100  # of one feed, before others have their turn


class Limits(NamedTuple):
    """When the next segment begins."""

    age_ns: int
    size: int


class Store(Protocol):
    """What segments are written to; raises OSError."""

    def open(self, feed: str, begun_ns: int) -> tuple[str, BinaryIO]:
        """Make a file for the segment that begins then, and return its path in the directory."""

    def closed(self, path: str, footer: Footer, size: int) -> None:
        """A segment is complete."""

    def given_up(self, path: str, size: int, why: str, *, is_empty: bool) -> None:
        """A segment will have no footer; one in which there is nothing is not kept. Raises nothing."""


class FeedRecording:
    """Traffic of one feed, message by message; counts are since the recorder started."""

    def __init__(self, feed: str, store: Store, limits: Limits) -> None:
        self._feed = feed
        self._store = store
        self._limits = limits
        self._waiting: deque[bytes] = deque()
        self._taken_size = self._written_size = 0  # one for each thread
        self._session_ns = 0  # of the feed
        self._planned: Plan | None = None
        self._plan = b""  # what the next segment begins with, as items
        self._lists: KeptLists[bytes] = KeptLists()
        self._opened: dict[str, bytes] = {}  # by connection
        self._file: BinaryIO | None = None
        self._writer: SegmentWriter | None = None
        self._flushed_mono_ns = self._begun_mono_ns = 0
        self._begun_ns = 0
        self.path = ""  # of the segment that is open
        self.segments = 0
        self.received = self.items_size = self.stored_size = 0  # of segments that are over
        self.gaps = self.lost = 0  # that were told, and items that are missing there
        self.last_ns = 0  # when the newest message was taken

    @property
    def waiting_size(self) -> int:
        """Bytes that are not in a file yet, open blocks not counted."""
        return self._taken_size - self._written_size

    @property
    def open_size(self) -> int:
        """The size of the file that is being written."""
        writer = self._writer
        return writer.size if writer is not None else 0

    def take(self, message: bytes, now_ns: int) -> None:
        """Take what the feed has sent: items back to back."""
        self._waiting.append(message)
        self._taken_size += len(message)
        self.last_ns = now_ns

    def write(self, now_ns: int, now_mono_ns: int) -> bool:
        """Write what waits, and what is open for long; True if more waits. Raises OSError; nothing is lost then."""
        for _ in range(MESSAGES_PER_TURN):
            if not self._waiting:
                break
            message = self._waiting[0]
            self._look_at_session(message)
            writer = self._writer or self._begin(now_ns, now_mono_ns)
            size = writer.size
            self._waiting.popleft()
            self._written_size += len(message)
            writer.add(message)  # what of it cannot be written is in `unwritten`
            if writer.size != size:
                self._flushed_mono_ns = now_mono_ns
            if writer.size + writer.open_size >= self._limits.size:
                self.end("size")
        if (last := self._writer) is not None:
            if now_mono_ns - self._begun_mono_ns >= self._limits.age_ns:
                self.end("time")
            elif now_mono_ns - self._flushed_mono_ns >= FLUSH_NS:
                self._flushed_mono_ns = now_mono_ns
                last.flush()
        return bool(self._waiting)

    def _look_at_session(self, message: bytes) -> None:
        """A feed that has started anew says so in the first item of a message."""
        if message[4] & ~REPEATED != What.HEADER:
            return
        plan = _plan_of(message)
        if plan is not None and plan.session_ns != self._session_ns:
            self.end("the feed started anew")
            self._session_ns = plan.session_ns
            self._plan = b""
            self._lists.clear()
            self._opened.clear()

    def _begin(self, now_ns: int, now_mono_ns: int) -> SegmentWriter:
        begins = [self._plan, *self._lists.pages, *self._opened.values()]
        self._begun_ns = max(now_ns, self._begun_ns + 1)  # names are in order, also if the clock goes back
        self.path, self._file = self._store.open(self._feed, self._begun_ns)
        self._writer = writer = SegmentWriter(self._file, self._begun_ns, self._on_rare)
        self._flushed_mono_ns = self._begun_mono_ns = now_mono_ns
        self.segments += 1
        try:
            for item in begins:
                if item:
                    writer.add(item[:4] + bytes((item[4] | REPEATED,)) + item[5:])
            writer.flush()
        except OSError:
            writer.clear()  # another segment begins with the same
            raise
        return writer

    def _on_rare(self, what: int, data: bytes) -> None:
        """Keep what holds, for the next segment to begin with."""
        (item,) = unpack(data)
        if item.what is What.HEADER:
            self._planned, self._plan = _plan_of(data), data
        elif item.what is What.ANSWERED:
            self._lists.take(self._planned, item.name, data)
        elif item.what is What.OPENED:
            self._opened[item.connection] = data
        elif item.what is What.CLOSED:
            self._opened.pop(item.connection, None)
        elif item.what is What.GAP:
            self.gaps += 1
            self.lost += item.number

    def end(self, reason: str) -> None:
        """Close the segment that is open, if there is one. Raises OSError; nothing is lost then."""
        writer, file = self._writer, self._file
        if writer is None or file is None:
            return
        footer = writer.close(reason)
        self._writer = self._file = None
        file.close()
        self._count(writer)
        path, self.path = self.path, ""
        self._store.closed(path, footer, writer.size)

    def settle(self, reason: str) -> None:
        """Close the segment that is open, as far as the disk lets."""
        try:
            self.end(reason)
        except OSError as exc:
            self.give_up(exc.strerror or str(exc))

    def give_up(self, why: str) -> None:
        """The segment that is open cannot be written: what is not in it is for the next one."""
        writer, file = self._writer, self._file
        self._writer = self._file = None
        if file is not None:
            _close(file)
        if writer is None:
            return
        self._count(writer)
        if unwritten := writer.unwritten:
            self._waiting.appendleft(unwritten)
            self._written_size -= len(unwritten)
            self.received -= sum(item.what is What.RECEIVED for item in unpack(unwritten))  # they come again
        path, self.path = self.path, ""
        self._store.given_up(path, writer.size, why, is_empty=not writer.footer.index)

    def _count(self, writer: SegmentWriter) -> None:
        self.received += writer.footer.received
        self.items_size += writer.footer.items_size
        self.stored_size += writer.size

    def totals(self) -> tuple[int, int, int]:
        """Return frames received, bytes of items and bytes in files, the open segment's among them."""
        writer = self._writer
        if writer is None:
            return self.received, self.items_size, self.stored_size
        footer = writer.footer
        return (
            self.received + footer.received,
            self.items_size + footer.items_size,
            self.stored_size + writer.size,
        )


def _plan_of(message: bytes) -> Plan | None:
    """Return the plan that is the first item of a message, None if it cannot be read."""
    item = next(unpack(message))
    try:
        return msgspec.json.decode(item.data, type=Plan)
    except UNDECODABLE:
        return None


def _close(file: BinaryIO) -> None:
    """Close a file that may be on a disk that fails."""
    with contextlib.suppress(OSError):
        file.close()
