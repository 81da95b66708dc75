"""Books as the relay has them, for those who join in mid-stream, or missed too much: one of each topic.

They are made of the merger's stream, and of its file of recent records: before each answer a book is brought to the
newest record there, so that nobody who asks is further than the answer. What was missed of the stream comes from
there as well, as far as the file goes back. Pure: records, and the file as a `Ring`, come in; records go out.
"""

from collections.abc import Callable
from typing import Final

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError
from feedhandler.data.kept_book import DOWN, UNCERTAIN, Book
from feedhandler.data.retransmission import Ring

# Of 1,000 levels a side: 160 MB. A topic beyond that is not valid here, whatever its feed says.
BOOKS_MAX: Final = 5_000
TOPICS: Final = b"book."
PAST_MAX: Final = 1024  # records that are looked at to make a book of: no ring has more


class RelayedBooks:
    """The books of one merger's session. ring returns what the merger has written, None if there is nothing yet.

    The caller says with `join` that the stream has all conditions that are in force: before, nothing is answered.
    """

    def __init__(self, ring: Callable[[], Ring | None]) -> None:
        self._ring = ring
        self._books: dict[str, Book] = {}
        self._looked_up: set[str] = set()  # without a base, of which all was looked at that there is
        self._session = 0
        self._has_joined = False

    def __len__(self) -> int:
        return len(self._books)

    @property
    def valid(self) -> int:
        """How many may be used."""
        return sum(book.is_valid for book in self._books.values())

    def join(self) -> None:
        """The stream is subscribed to, and what it repeats of conditions has come."""
        self._has_joined = True

    def suspend(self) -> None:
        """The stream was interrupted: nothing counts until it is known what was missed."""
        self._has_joined = False
        for book in self._books.values():
            book.suspend(UNCERTAIN)

    def take(self, message: bytes) -> None:
        """Take a record or condition of a book's topic, from the stream."""
        try:
            record = wire.unpack(message)
        except DecodeError:
            return  # its number is missing before the next one
        self._enter(record.session)
        book = self._book(record.topic)
        if book is None:
            return
        is_condition = isinstance(record, wire.Condition)
        before = record.sequence if is_condition else record.sequence - 1
        if before > book.seen:
            self._catch_up(book, before)
        book.apply(record)

    def last(self, topic: str, flags: int = 0) -> list[bytes]:
        """Return the records of a topic's snapshot; if its book is not valid, a condition that says so.

        flags are those of all last values: DOWN, while nobody keeps anything current.
        """
        ring = self._ring()
        if ring is None or not self._has_joined:
            return []
        self._enter(ring.session)
        index = ring.topics().get(topic)
        newest = 0 if index is None else ring.number(index)
        book = self._book(topic)
        if book is not None:
            self._catch_up(book, newest)
            book.confirm(newest)
            if book.is_valid and not flags & wire.DOWN:
                return book.snapshot()
        is_down = flags & wire.DOWN or (book is not None and book.reason == DOWN)
        why = wire.DOWN if is_down else wire.INVALID
        condition = wire.Condition(topic, flags=why | wire.SNAPSHOT, session=ring.session, sequence=newest)
        return [wire.pack(condition)]

    def _enter(self, session: int) -> None:
        """Forget the books of another merger."""
        if session != self._session:
            self._session = session
            self._books.clear()
            self._looked_up.clear()

    def _book(self, topic: str) -> Book | None:
        book = self._books.get(topic)
        if book is None and len(self._books) < BOOKS_MAX:
            book = self._books[topic] = Book(topic)
        return book

    def _catch_up(self, book: Book, newest: int) -> None:
        """Bring a book to a number by the records that the merger has written.

        Without a base all is looked at, once, for there may be a snapshot. What is not there was missed.
        """
        ring = self._ring()
        if ring is None or ring.session != self._session or (index := ring.topics().get(book.topic)) is None:
            return
        oldest = book.seen + 1
        if book.has_base:
            self._looked_up.discard(book.topic)
        elif book.topic not in self._looked_up:
            self._looked_up.add(book.topic)
            oldest = 1
        records: list[bytes] = []
        for number in range(newest, max(oldest, newest - PAST_MAX + 1) - 1, -1):
            record = ring.record(index, number)
            if record is None or wire.sequence_of(record) != number:
                break
            records.append(record[: wire.size_at(record, 0)])
        for record in reversed(records):
            book.apply(record)
