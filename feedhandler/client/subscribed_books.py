"""Books as a subscriber keeps them: of the records that come, and of the relay where those do not suffice.

    stream ──▶ SubscribedBooks ──▶ records, in order
                  │      ▲
          request └─ relay ┘ snapshot

A topic that is joined in mid-stream, or of which a record is missing, has its next records held back until the
relay has answered. Its snapshot is handed on before those that follow it, so that whoever makes a book of the
records alone has the same one. Pure: records, answers and times come in, records and requests go out. Compiled
where there is a compiler, with the types of `subscribed_books.pxd`.
"""

from collections import deque
from collections.abc import Callable
from itertools import groupby
from typing import Final

import msgspec

from feedhandler.client.recovery import answer_records
from feedhandler.data import retransmission, wire
from feedhandler.data.book import BookRecord
from feedhandler.data.errors import UNDECODABLE, DecodeError
from feedhandler.data.kept_book import MISSED, RESTARTED, UNCERTAIN, Book
from feedhandler.data.units import NS_PER_MS, NS_PER_S

WORD: Final = "book."
PREFIX: Final = WORD.encode()
BOOKS_MAX: Final = (
    5_000  # of 1,000 levels a side 160 MB; records of other topics are handed on, without a book
)
HELD_MAX: Final = 500  # records of one topic
HELD_ALL_MAX: Final = 20_000
PATIENCE_NS: Final = 3 * NS_PER_S  # with an answer, for which many who join may have to wait
DOUBT_NS: Final = 10 * NS_PER_S  # after a request without an answer nothing is held back
NAMES_MAX: Final = 20  # topics that are asked for at once; an answer has about ten books
# A book that the relay has not either: asked for again after so long, then twice as long, and so on.
PAUSE_NS: Final = NS_PER_S
PAUSE_MAX_NS: Final = 60 * NS_PER_S
LOOK_EVERY_NS: Final = 250 * NS_PER_MS
# The last record before a silence may be lost, and no gap tells: so numbers are compared with the relay's.
CONFIRM_EVERY_NS: Final = 5 * NS_PER_S
UNREADABLE: Final = (*UNDECODABLE, IndexError)  # as a name: Cython has no starred expression behind `except`

Record = wire.Record


class Kept:
    """A topic's book; held has the records that wait for a snapshot, None: nothing waits."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.held: list[Record] | None = None
        self.due_ns = 0  # not asked for before
        self.pause_ns = PAUSE_NS
        self.unconfirmed = -1  # the number that was the newest here when the relay had a newer one


class Inquiry(msgspec.Struct):
    """What is asked for: last values of what begins with prefixes, of those the named topics; or their numbers."""

    prefixes: list[str]
    names: list[str] = []
    start: int = 0
    numbers: dict[str, int] = {}  # asked for what follows them


class SubscribedBooks:
    """The books of one subscriber, by topic. `take` gets each record of the stream, emit what is to be handed on.

    prefixes are what is subscribed to. It asks while `is_connected`, which says that there is a relay. newest is of
    all topics: the last record of a snapshot is put there if nothing else of its topic has come.
    """

    def __init__(
        self,
        prefixes: list[bytes],
        emit: Callable[[Record], object],
        clock: Callable[[], int],
    ) -> None:
        """clock returns the monotonic time in nanoseconds."""
        self.by_topic: dict[str, Book] = {}
        self._prefixes = book_prefixes(prefixes)
        self._emit = emit
        self._clock = clock
        self.newest: dict[str, Record] = {}
        self._kept: dict[str, Kept] = {}
        self._held_count = 0
        self._wanted: dict[str, None] = {}
        self._queries: deque[Inquiry] = deque()
        self._asked: Inquiry | None = None
        self._asked_ns = 0
        self._request_id = 0
        self._doubted_until_ns = self._looked_ns = self._confirmed_ns = 0
        self._is_subscribed = False  # at the publisher, as its heartbeat says
        self._session = 0
        self._is_discovered = False  # the relay has said what it has under the prefixes
        self._discover_ns, self._discover_pause_ns = 0, PAUSE_NS
        self.is_connected = False

    @property
    def is_asking(self) -> bool:
        """True while an answer is awaited, or something is to be requested at once."""
        return self._asked is not None or bool(self._wanted) or bool(self._queries)

    def book(self, topic: str) -> Book | None:
        """Return the book of a topic, valid or not; None if there are too many."""
        kept = self._kept_of(topic)
        return None if kept is None else kept.book

    # --- the stream

    def take(self, record: Record) -> None:
        """Take a record of any kind, in the order of the stream."""
        # hot: `make bench-micro`, books
        if not isinstance(record, BookRecord) and not (
            isinstance(record, wire.Condition) and record.topic.startswith(WORD)
        ):
            self._emit(record)
            return
        kept = self._kept.get(record.topic) or self._kept_of(record.topic)
        if kept is None:
            self._emit(record)
            return
        if kept.held is not None:
            self._hold(kept, kept.held, record)
            return
        kept.book.apply(record)
        if isinstance(record, wire.Condition):
            kept.due_ns, kept.pause_ns = 0, PAUSE_NS  # what the relay did not have, it may have now
        if kept.book.lacks_snapshot and self._may_ask(kept):
            kept.held = []
            self._held_count += 1
            kept.held.append(record)
            self._wanted[record.topic] = None
            return
        self._emit(record)

    def _kept_of(self, topic: str) -> Kept | None:
        kept = self._kept.get(topic)
        if kept is None and len(self._kept) < BOOKS_MAX:
            kept = self._kept[topic] = Kept(Book(topic))
            self.by_topic[topic] = kept.book
        return kept

    def _may_ask(self, kept: Kept) -> bool:
        now_ns = self._clock()
        return (
            self.is_connected and self._is_subscribed and now_ns >= max(kept.due_ns, self._doubted_until_ns)
        )

    def _hold(self, kept: Kept, held: list[Record], record: Record) -> None:
        begins = isinstance(record, BookRecord) and record.flags & wire.SNAPSHOT and not record.part
        if begins or (held and held[0].session != record.session):
            self._release(kept)  # the stream has what was asked for, or is another merger's
            self.take(record)
            return
        held.append(record)
        self._held_count += 1
        if len(held) > HELD_MAX:
            self._postpone(kept)
        elif self._held_count > HELD_ALL_MAX:
            self._give_up()

    def on_heartbeat(self, session: int) -> None:
        """The publisher lives: all that was subscribed to before its heartbeats is, and conditions have come."""
        if session != self._session:
            self._session = session
            for book in self.by_topic.values():
                if book.session != session:
                    book.doubt(RESTARTED)
        if not self._is_subscribed:
            self._is_subscribed = True
            self._looked_ns = self._confirmed_ns = 0

    def on_disconnect(self) -> None:
        """The connection to the publisher ended: nobody knows whether something is missing."""
        self._is_subscribed = False
        self._queries.clear()
        self._give_up()
        for book in self.by_topic.values():
            book.suspend(UNCERTAIN)

    def on_relay_gone(self) -> None:
        """The connection to the relay ended."""
        self.is_connected = False
        self._queries.clear()
        self._give_up()

    # --- the relay

    def request(self) -> bytes | None:
        """Return the next request to send; None if there is nothing to ask, or one is under way."""
        if not (self.is_connected and self._is_subscribed) or self._is_under_way():
            return None
        now_ns = self._clock()
        if now_ns < self._doubted_until_ns:
            return None
        if not self._looked_ns or now_ns - self._looked_ns >= LOOK_EVERY_NS:
            self._looked_ns = now_ns
            self._look(now_ns)
        if self._wanted:
            names = list(self._wanted)[:NAMES_MAX]
            for name in names:
                del self._wanted[name]
            query = Inquiry([name + "\0" for name in names], names)
        elif self._queries:
            query = self._queries.popleft()
        else:
            return None
        self._asked, self._asked_ns = query, now_ns
        self._request_id -= 1  # so that it is none of `Recovery`'s
        missing = [retransmission.Missing(topic, n + 1, n + 1) for topic, n in query.numbers.items()]
        return msgspec.json.encode(
            retransmission.Request(
                id=self._request_id,
                topics=query.prefixes,
                start=query.start,
                session=self._session,
                missing=missing,
            )
        )

    def _is_under_way(self) -> bool:
        if self._asked is None:
            return False
        if self._clock() - self._asked_ns <= PATIENCE_NS:
            return True
        self._doubted_until_ns = self._clock() + DOUBT_NS
        self._give_up()
        return False

    def _look(self, now_ns: int) -> None:
        """Find what is to be asked for."""
        if not self._is_discovered and now_ns >= self._discover_ns:
            self._discover_ns = now_ns + self._discover_pause_ns
            self._discover_pause_ns = min(2 * self._discover_pause_ns, PAUSE_MAX_NS)
            at = range(0, len(self._prefixes), retransmission.PREFIXES_MAX)
            self._queries += [Inquiry(self._prefixes[i : i + retransmission.PREFIXES_MAX]) for i in at]
        for topic, kept in self._kept.items():
            if kept.book.lacks_snapshot and kept.held is None and now_ns >= kept.due_ns:
                kept.held = []
                self._wanted[topic] = None
        if not self._confirmed_ns or now_ns - self._confirmed_ns >= CONFIRM_EVERY_NS:
            self._confirmed_ns = now_ns
            known = [(topic, k.book.seen) for topic, k in self._kept.items() if _is_settled(k.book)]
            step = retransmission.RANGES_MAX // 2  # topics may be long, and a request has 64 kB
            self._queries += [
                Inquiry([], numbers=dict(known[at : at + step])) for at in range(0, len(known), step)
            ]

    def on_answer(self, frames: list[bytes]) -> bool:
        """Take the frames of an answer; False if it is not for a request that was made here."""
        try:
            head = msgspec.json.decode(frames[0], type=retransmission.Head)
        except UNREADABLE:
            return False
        if head.id >= 0:
            return False
        if self._asked is None or head.id != self._request_id:
            return True
        query, self._asked = self._asked, None
        records: list[Record] = []
        if not head.error and head.session == self._session:
            try:
                records = [r for r in answer_records(frames[1]) if r.session == head.session]
            except (DecodeError, IndexError):
                head.error = "it cannot be read"
        if query.numbers:
            if not head.error and head.session == self._session:
                self._compare(query, head, records)
            return True
        answered = set()
        for topic, group in groupby(records, lambda record: record.topic):
            if topic.startswith(WORD):
                answered.add(topic)
                self._on_last(topic, list(group))
        names = [name for name in query.names if name not in answered]
        if head.next and not head.error:
            self._queries.appendleft(Inquiry(query.prefixes, names, head.next))
            return True
        for name in names:
            self._postpone(self._kept[name])
        if answered and not query.names:
            self._is_discovered = True
        return True

    def _on_last(self, topic: str, records: list[Record]) -> None:
        """Take what the relay has of a topic: the records of a snapshot, or a condition."""
        kept = self._kept_of(topic)
        if kept is None or kept.book.is_valid:
            return
        book, first = kept.book, records[0]
        if not isinstance(first, BookRecord):
            if book.session == first.session and not first.is_down:
                book.confirm(first.sequence)
            if not book.is_valid:
                self._postpone(kept)
            return
        if book.has_base:
            if book.session == first.session and first.sequence <= book.seen:
                book.confirm(first.sequence)
                return
        elif self._is_too_old(kept, first):
            if kept.held is None:
                kept.held = []
            self._wanted[topic] = None
            return
        held, kept.held = kept.held or [], None
        self._held_count -= len(held)
        self._wanted.pop(topic, None)
        for record in held:
            if _is_in(record, first.sequence):
                self._emit(record)
        self._begin(kept, records)
        for record in held:
            if not _is_in(record, first.sequence):
                self.take(record)

    def _is_too_old(self, kept: Kept, first: BookRecord) -> bool:
        """True if records that follow a snapshot were handed on before it came."""
        numbers = [
            r.sequence for r in kept.held or () if isinstance(r, BookRecord) and r.session == first.session
        ]
        if not numbers and kept.book.session != first.session:
            return False
        return first.sequence < (numbers[0] if numbers else kept.book.seen + 1) - 1

    def _begin(self, kept: Kept, records: list[Record]) -> None:
        for record in records:
            kept.book.apply(record)
        if not kept.book.is_valid:
            self._postpone(kept)
            return
        kept.pause_ns = PAUSE_NS
        self.newest.setdefault(kept.book.topic, records[-1])
        for record in records:
            self._emit(record)

    def _compare(self, query: Inquiry, head: retransmission.Head, records: list[Record]) -> None:
        """Compare numbers: where the relay has none that follows, nothing was missed."""
        following = {record.topic for record in records} | {each.topic for each in head.lost}
        for topic in {each.topic for each in head.rest}:
            kept = self._kept.get(topic)
            if kept is not None and topic in query.numbers:
                kept.unconfirmed = -1
                if kept.book.session == head.session:
                    kept.book.confirm(query.numbers[topic])
        for topic in following & query.numbers.keys():
            kept = self._kept[topic]
            number = query.numbers[topic]
            if kept.book.seen != number or not _is_settled(kept.book):
                kept.unconfirmed = -1
            elif kept.unconfirmed != number and kept.book.reason != UNCERTAIN:
                kept.unconfirmed = number  # it may be on its way
            else:
                kept.book.doubt(MISSED)

    # --- what is held back

    def _postpone(self, kept: Kept) -> None:
        """Ask for a topic later, and hold nothing back until then."""
        kept.due_ns = self._clock() + kept.pause_ns
        kept.pause_ns = min(2 * kept.pause_ns, PAUSE_MAX_NS)
        self._release(kept)

    def _release(self, kept: Kept) -> None:
        """Hand on what was held back, without what it waited for."""
        self._wanted.pop(kept.book.topic, None)
        held, kept.held = kept.held, None
        if not held:
            return
        self._held_count -= len(held)
        for record in held:
            kept.book.apply(record)
            self._emit(record)

    def _give_up(self) -> None:
        """Nothing is answered: hold nothing back."""
        self._asked = None
        for kept in self._kept.values():
            if kept.held is not None:
                self._release(kept)


def _is_settled(book: Book) -> bool:
    """True for a book of which nothing is known to be missing: it is valid, or its feed says that it is not."""
    return not book.lacks_snapshot


def book_prefixes(prefixes: list[bytes]) -> list[str]:
    """Return which topics of books are subscribed to."""
    found = {
        p if p.startswith(PREFIX) else PREFIX
        for p in prefixes
        if p.startswith(PREFIX) or PREFIX.startswith(p)
    }
    return sorted(prefix.decode() for prefix in found)


def _is_in(record: Record, sequence: int) -> bool:
    """True for a record that is in a snapshot of a number, or of before it."""
    return record.sequence < sequence or (record.sequence == sequence and isinstance(record, BookRecord))
