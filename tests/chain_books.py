"""What is beyond the merger of a simulated chain (`chain`), for books: its file, the relay, a subscriber of both.

    merger ──▶ stream ──▶ relay ──────────┐ answers
       └─────▶ file ──────────▶ relay     ▼
               stream ──────────────▶ subscriber: a book of each topic

Each has its own way from the merger, with delays, so that now the one and now the other is ahead.
"""

import collections

from tape import check_book

from feedhandler.client.recovery import Recovery
from feedhandler.client.subscribed_books import SubscribedBooks
from feedhandler.data import retransmission, wire
from feedhandler.data.contracts import Slot
from feedhandler.data.kept_book import Book
from feedhandler.data.units import NS_PER_S
from feedhandler.relay.relayed_books import RelayedBooks, SnapshotRequests
from feedhandler.transport.follower import Follower

RECENT = 64  # records of a topic that the file has
PREFIX = b"book."
DELAY_NS_MAX = 300_000_000
ANSWERS_NS_MAX = 500_000_000


class Cells(Slot):
    """The place of one topic in the file."""

    def __init__(self, topic):
        self.topic = topic
        self.records = collections.deque(maxlen=RECENT)

    def write(self, record, publish_ns):
        self.records.append(bytes(record))


class File:
    """The merger's file of recent records, of books alone: written as `RecentWriter`, read as a `Ring`."""

    def __init__(self, session):
        self.session = session
        self.cells = []
        self._topics = {}

    def slot(self, topic, size_max):
        if not topic.startswith(PREFIX.decode()):
            return None
        self._topics[topic] = len(self.cells)
        self.cells.append(Cells(topic))
        return self.cells[-1]

    def topics(self):
        return self._topics

    def under(self, prefix):
        return sorted(topic for topic in map(wire.padded, self._topics) if topic.startswith(prefix))

    def number(self, index):
        records = self.cells[index].records
        return wire.sequence_of(records[-1]) if records else 0

    def newest(self, index):
        records = self.cells[index].records
        return records[-1] if records else None

    def record(self, index, number):
        found = (record for record in self.cells[index].records if wire.sequence_of(record) == number)
        return next(found, None)


class Way:
    """A connection to the merger's stream: in order, late, and lossy while who reads is too slow."""

    def __init__(self, chain, take):
        self.chain = chain
        self._take = take
        self._queue = collections.deque()
        self._due = 0
        self.is_open = False
        self.is_lossy = False

    def open(self, outlet):
        """Subscribe: conditions in force come first, and then a heartbeat."""
        self.is_open = True
        self._outlet = outlet
        outlet.subscribers.append(self)
        outlet.is_wanted = True
        merger = self.chain.merger
        for message in filter(None, map(merger.last, merger.topics(PREFIX))):
            self.put(message)
        self.beat()

    def close(self):
        if self.is_open:
            self._outlet.drop(self)
        self.is_open = False
        self._queue.clear()

    @property
    def follower(self):
        """An outlet hands it messages as it does to subscribers."""
        return self

    def take(self, message):
        if message.startswith(PREFIX) and not (self.is_lossy and self.chain.rng.random() < 0.3):
            self.put(message)

    def beat(self):
        self.put(None)

    def put(self, message):
        delay_ns = self.chain.rng.randrange(DELAY_NS_MAX) if self.chain.rng.random() < 0.05 else 0
        self._due = max(self._due, self.chain.now + delay_ns)
        self._queue.append((self._due, self.chain.session, None if message is None else bytes(message)))

    def turn(self):
        while self._queue and self._queue[0][0] <= self.chain.now:
            _, session, message = self._queue.popleft()
            self._take(session, message)


class Relay:
    """One process of the relay, as `relay/process.py` has it."""

    def __init__(self, chain):
        self.chain = chain
        self.session = 0
        self.books = RelayedBooks(self.ring)
        self.requests = SnapshotRequests()
        self._looks_at = 0
        self.way = Way(chain, self._on_message)

    def ring(self):
        """The newest file, once the stream has told of it or the last merger is gone."""
        return self.chain.file

    def _on_message(self, session, message):
        if message is None:
            self.books.join()
        else:
            self.books.take(message)

    def turn(self):
        if self.way.is_open and self.chain.merger is None:
            self.way.close()
            self.books.suspend()
        if not self.way.is_open and self.chain.is_merging:
            self.way.open(self.chain.each)
        self.way.turn()
        if self.chain.now >= self._looks_at:
            self._looks_at = self.chain.now + NS_PER_S
            if lacking := self.requests.due(self.books.lacking(), self.chain.now / NS_PER_S):
                self.chain.note(f"the relay requests {lacking}")
                self.chain.requested = lacking

    def answer(self, request):
        flags = wire.DOWN if self.chain.merger is None else 0
        return retransmission.answer(request, self.ring(), {}, flags, self.books.last).frames


class Reader:
    """A subscriber's parts, as its stream has them."""

    def __init__(self, chain):
        self.chain = chain
        self.made = {}  # of what is handed on, by topic: somebody's who makes books of records alone
        self.books = SubscribedBooks([PREFIX], self._emit, lambda: chain.now)
        self.follower = Follower(self._emit, emit_other=self.books.take)
        self.books.newest = self.follower.newest
        self.recovery = Recovery(self.follower, self.books.take, lambda: chain.now, takes_latest=False)
        self.follower.on_gap = self.recovery.on_gap
        self.way = Way(chain, self._on_message)
        self._answers = collections.deque()  # (when, of which relay, frames)
        self._beats_at = 0
        self._relay = None
        self._looked = {}  # number of each book

    def _emit(self, record):
        if record.kind == wire.BOOK or record.topic.startswith(PREFIX.decode()):
            self.made.setdefault(record.topic, Book(record.topic)).apply(record)

    def _on_message(self, session, message):
        if message is None:
            self.books.on_heartbeat(session)
        else:
            self.follower.take(message)

    def leave(self):
        """The connection ends; the next one is made as soon as it can be."""
        self.way.close()
        self.books.on_disconnect()

    def turn(self):
        chain = self.chain
        if self.way.is_open and chain.merger is None:
            self.leave()
        if not self.way.is_open and chain.is_merging:
            self.way.open(chain.each)
        if chain.now >= self._beats_at and chain.is_merging:
            self._beats_at = chain.now + NS_PER_S
            self.way.beat()
        self.way.turn()
        self._ask()
        self._look()

    def _ask(self):
        chain = self.chain
        if self._relay is not chain.relay:
            if self._relay is not None:
                self.recovery.on_disconnect()
                self.books.on_relay_gone()
            self._relay = chain.relay
        while self._answers and self._answers[0][0] <= chain.now:
            _, relay, frames = self._answers.popleft()
            if relay is self._relay and not self.books.on_answer(frames):
                self.recovery.on_answer(frames)
        if self._relay is None:
            return
        self.books.is_connected = self.recovery.is_connected = True
        requests = [self.recovery.request() if self.recovery.is_recovering else None, self.books.request()]
        self.recovery.on_time()
        for request in filter(None, requests):
            # Answers come in the order of requests.
            due = chain.now + chain.rng.randrange(ANSWERS_NS_MAX)
            due = max(due, self._answers[-1][0] if self._answers else 0)
            self._answers.append((due, self._relay, self._relay.answer(request)))

    def _look(self):
        """Each book is the exchange's at its id, or says that it is not valid."""
        for topic, book in self.books.by_topic.items():
            if self._looked.get(topic) != (book.session, book.sequence):
                self._looked[topic] = book.session, book.sequence
                tape = self.chain.tapes[tuple(topic.split(".", 2)[1:])]
                check_book(book, tape)
                check_book(self.made[topic], tape) if topic in self.made else None

    def book(self, topic):
        """Return the book of a topic; one without anything if none has been heard of."""
        return self.books.by_topic.get(topic) or Book(topic)
