"""Books as the relay has them, for those who join in mid-stream, or missed too much: one of each topic.

They are made of the merger's stream, and of its file of recent records: before each answer a book is brought to the
newest record there, so that nobody who asks is further than the answer. What was missed of the stream comes from
there as well, as far as the file goes back. Pure: records, and the file as a `Ring`, come in; records go out.
Compiled where there is a compiler, with the types of `relayed_books.pxd`.
"""

from collections.abc import Callable, Sequence
from typing import Final

from feedhandler.data import wire
from feedhandler.data.book import BOOK
from feedhandler.data.contracts import Sink
from feedhandler.data.errors import DecodeError
from feedhandler.data.kept_book import DOWN, UNCERTAIN, Book, read
from feedhandler.data.retransmission import Ring

# Of 1,000 levels a side: 160 MB. A topic beyond that is not valid here, whatever its feed says.
BOOKS_MAX: Final = 5_000
WORD: Final = f"{BOOK.name}."
TOPICS: Final = WORD.encode()
WAIT_S: Final = 2.0  # what is lacking for so long is requested: snapshots may be on their way
PAUSE_S: Final = 15.0  # after snapshots were requested: of 1,000 books they take ten,
PAUSE_MAX_S: Final = 240.0  # and of one whose feed does not read what is requested they come in any case
PAST_MAX: Final = 1024  # records that are looked at to make a book of: no ring has more
_TOPIC_SIZE = wire.TOPIC_SIZE  # for the class: what has a type in the .pxd is not to be had from Python


class RelayedBooks:
    """The books of one merger's session. ring returns what the merger has written, None if there is nothing yet.

    The caller says with `join` that the stream has all conditions that are in force: before, nothing is answered.
    """

    def __init__(self, ring: Callable[[], Ring | None]) -> None:
        self._ring = ring
        self._books: dict[str, Book] = {}
        self._topics: dict[bytes, str] = {}  # as they stand in records
        self._looked_up: set[str] = set()  # without a base, of which all was looked at that there is
        self._session = 0
        self._has_joined = False

    def __len__(self) -> int:
        return len(self._books)

    @property
    def valid(self) -> int:
        """How many may be used."""
        return sum(book.is_valid for book in self._books.values())

    def lacking(self) -> list[str]:
        """Return the topics of which there is no book, and would be with a snapshot.

        They are looked for in the merger's file: of a quiet book nothing comes.
        """
        ring = self._ring()
        if ring is None or not self._has_joined:
            return []
        self._enter(ring.session)
        found = []
        for topic, index in list(ring.topics().items()):
            if not topic.startswith(WORD) or (book := self._book(topic)) is None or book.has_base:
                continue
            self._catch_up(book, ring.number(index))
            if book.lacks_snapshot:
                found.append(topic)
        return found

    def join(self) -> None:
        """The stream is subscribed to, and what it repeats of conditions has come."""
        self._has_joined = True

    def suspend(self) -> None:
        """The stream was interrupted: nothing counts until it is known what was missed."""
        self._has_joined = False
        for book in self._books.values():
            book.suspend(UNCERTAIN)

    def follow(self, message: bytes) -> bool:
        """Take a message if it is a record that simply follows in its book, as nearly all do; else do nothing."""
        # hot: `make bench`, books
        topic = self._topics.get(message[:_TOPIC_SIZE])
        book = None if topic is None else self._books.get(topic)
        return book is not None and book.follow(message)

    def take(self, message: bytes) -> None:
        """Take a record or condition of a book's topic, from the stream."""
        if self.follow(message):
            return
        padded = message[:_TOPIC_SIZE]
        topic = self._topics.get(padded, "")
        try:
            record = read(message, topic)
        except DecodeError:
            return  # its number is missing before the next one
        self._enter(record.session)
        book = self._book(record.topic)
        if book is None:
            return
        if not topic and len(self._topics) < BOOKS_MAX:
            self._topics[padded] = record.topic
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


class BooksFirst(Sink):
    """Hands on what does not simply follow in its book."""

    def __init__(self, books: RelayedBooks, rest: Callable[[bytes], object]) -> None:
        self._books = books
        self._rest = rest

    def take(self, data: bytes) -> None:
        # hot: `make bench`, books
        if not self._books.follow(data):
            self._rest(data)


class SnapshotRequests:
    """When feeds are asked for snapshots that are lacking: soon, and again with growing pauses."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}
        self._asked: set[str] = set()
        self._pause_s = PAUSE_S
        self._due_s = 0.0

    def due(self, lacking: Sequence[str], now_s: float) -> list[str]:
        """Take what is lacking now; return what is to be requested. Call about once a second."""
        self._since_s = {topic: self._since_s.get(topic, now_s) for topic in lacking}
        wanted = [topic for topic, since_s in self._since_s.items() if now_s - since_s >= WAIT_S]
        has_more = not self._asked.issuperset(wanted)
        if not wanted:
            self._asked = set()
        if not wanted or not (has_more or now_s >= self._due_s):
            return []
        self._pause_s = PAUSE_S if has_more else min(2 * self._pause_s, PAUSE_MAX_S)
        self._asked, self._due_s = set(wanted), now_s + self._pause_s
        return wanted
