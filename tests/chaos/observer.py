"""A subscriber that only watches: what is live, what was flagged, and what must never be.

It knows the wire as a stranger does, from docs/wire.md; books are made as a subscriber makes them. `Observer` is
pure: messages and times come in. `Watch` reads a socket in a thread of its own, so that what a play does meanwhile
delays nothing.
"""

import json
import struct
import threading
import time
from collections import Counter

import zmq
from harness import DOWN, HEADER, SNAPSHOT, STALE, TICKER

from feedhandler.data.kept_book import Book

NS_PER_S = 1_000_000_000
TICKER_KIND, STATUS_KIND, TRADE_KIND, DEPTH_KIND, BOOK_KIND = 1, 2, 6, 7, 8
CONTRACT_KIND, LIQUIDATION_KIND, CONDITION_KIND = 9, 10, 11
OTHER_KINDS = (TRADE_KIND, DEPTH_KIND, CONTRACT_KIND, LIQUIDATION_KIND, CONDITION_KIND)
BOOKS = b"book."
TRADE = struct.Struct("<QddIBBH40s")  # after the header,
DEPTH = struct.Struct("<QHHI80d")  # both,
CONTRACT = struct.Struct("<Q4dqdd")  # and this
RECOVERED, NOT_LIVE = 64, STALE | DOWN | 128
COMPARED = 20  # levels of a side of a book
TOLD_NS = 60 * NS_PER_S  # at the latest: REST is asked several times before
FLAGGED = STALE | DOWN
BID, ASK = 1, 3  # places among the values
SILENT = "feed process is silent"  # what a status says of a feed that was held up, or died
HELD_UP_NS = 2 * NS_PER_S  # the status that says so follows the flags at once
LOOK_EVERY_NS = NS_PER_S // 10


def agree(known, sides):
    """True if the levels of both sides are the same as far as both know them."""
    return all(one[: len(other)] == other[: len(one)] for one, other in zip(known, sides, strict=True))


class Topic:
    """The newest record of one topic, and what has been seen of it."""

    def __init__(self, name):
        self.name = name
        self.session = self.sequence = self.flags = 0
        self.changes = 0  # of what the exchange says, since `begin`
        self.recv_ns = self.exchange_sequence = 0
        self.values = ()
        self.falls_allowed = 0  # how often the exchange's count may restart
        self.sequences = set()
        self.times_ns = set()

    @property
    def exchange(self):
        return self.name.split(".", 2)[1]

    def is_live(self, since_ns):
        """True if all is known, nothing is flagged, and it was received later than since_ns.

        Of contracts not every exchange states a volume in quote, which is the last of the values.
        """
        values = self.values[:-1] if ":" in self.name else self.values
        return (
            not self.flags & (FLAGGED | SNAPSHOT)
            and self.recv_ns > since_ns
            and bool(values)
            and all(value == value for value in values)
        )


class Observer:
    """Follows every topic. holes: missing numbers of a session; falls: an exchange's update id that went back;
    flagged: beginnings of STALE or DOWN; lies: records without a flag whose data had stopped for too long."""

    def __init__(self):
        self.topics = {}
        self.records = 0
        self.holes = []
        self.falls = []
        self.flagged = []  # (ns, topic, flags)
        self.held_up = []  # (ns, exchange)
        self.statuses = {}  # of each exchange, the newest
        self.lies = []
        self.silence_max_ns = 0  # the oldest record without a flag
        self.lie_after_ns = None  # how old such a record may be; None: it is not looked at
        self.trades = {}  # by topic: of each id how often it came; when first, in which session, its flags
        self.liquidations = {}  # by topic: time in ms and price, how often each came
        self.marks = {}  # by topic: the newest mark price
        self.depths = {}  # by topic: what came without a flag, (id, time in ms, bids, asks)
        self.books = {}  # by topic
        self.books_at = {}  # by topic: each book that was valid, (id, its best levels)
        self.conditions = []  # (ns, topic, flags)
        self._numbers = {}  # by topic of trades
        self._told = {}
        self._notes_updates = False

    def begin(self, *, notes_updates=False):
        """Forget what was seen so far, but not where each topic is. notes_updates: for `compare`."""
        self._notes_updates = notes_updates
        for topic in self.topics.values():
            topic.sequences, topic.times_ns = set(), set()
            topic.changes = 0
        self.trades, self.depths, self.books_at, self.conditions = {}, {}, {}, []
        self.liquidations = {}
        self.flagged, self.held_up, self.lies = [], [], []
        self.silence_max_ns = 0

    def allow_restart(self, exchange):
        """The count of this exchange's update ids may begin anew, once."""
        for topic in self.topics.values():
            if topic.exchange == exchange:
                topic.falls_allowed = 1

    def take(self, message, now_ns):
        kind = message[65]
        if kind == STATUS_KIND:
            self._take_status(message, now_ns)
        if message.startswith(BOOKS):
            self._take_book(message)
        if kind in OTHER_KINDS:
            self._take_other(kind, message, now_ns)
        if kind != TICKER_KIND:
            return
        fields = TICKER.unpack(message)
        flags, session, sequence = fields[3:6]
        topic = self.topics.get(fields[0])
        if topic is None:
            topic = self.topics[fields[0]] = Topic(fields[0].rstrip(b"\0").decode())
        elif session == topic.session:
            if flags & SNAPSHOT and sequence <= topic.sequence:
                return
            if sequence != topic.sequence + 1:
                self.holes.append((topic.name, topic.sequence, sequence))
        self.records += 1
        if flags & FLAGGED & ~topic.flags:
            self.flagged.append((now_ns, topic.name, flags & FLAGGED))
        topic.session, topic.sequence, topic.flags = session, sequence, flags
        topic.changes += topic.values != fields[10:]
        topic.recv_ns, topic.values = fields[7], fields[10:]
        if self._notes_updates:
            topic.times_ns.add(fields[6])
            topic.sequences.add(fields[9])
        if 0 < fields[9] < topic.exchange_sequence:
            if topic.falls_allowed:
                topic.falls_allowed -= 1
            else:
                self.falls.append((topic.name, topic.exchange_sequence, fields[9]))
        topic.exchange_sequence = fields[9] or topic.exchange_sequence

    def _take_other(self, kind, message, now_ns):
        fields = HEADER.unpack_from(message)
        name, flags, session, sequence = fields[0].rstrip(b"\0").decode(), *fields[3:6]
        self.records += 1
        if kind == CONDITION_KIND:
            if flags & NOT_LIVE and not flags & SNAPSHOT:
                self.conditions.append((now_ns, name, flags & NOT_LIVE))
        elif kind == TRADE_KIND:
            trade_id = TRADE.unpack_from(message, HEADER.size)[7].rstrip(b"\0").decode()
            ids = self.trades.setdefault(name, {})
            ids.setdefault(trade_id, [0, now_ns, session, flags])[0] += 1
            before = self._numbers.get(name)
            if before is not None and before[0] == session and sequence != before[1] + 1:
                self.holes.append((name, before[1], sequence))
            self._numbers[name] = session, sequence
        elif kind == LIQUIDATION_KIND:
            price = TRADE.unpack_from(message, HEADER.size)[1]
            counts = self.liquidations.setdefault(name, Counter())
            counts[fields[6] // 1_000_000, price] += 1
        elif flags & NOT_LIVE:
            self.conditions.append((now_ns, name, flags & NOT_LIVE))
        elif kind == CONTRACT_KIND:
            self.marks[name] = CONTRACT.unpack_from(message, HEADER.size)[1]
        else:
            number, bids, asks, _, *numbers = DEPTH.unpack_from(message, HEADER.size)
            levels = list(zip(numbers[::2], numbers[1::2], strict=True))
            sides = tuple(levels[:bids]), tuple(levels[20 : 20 + asks])
            self.depths.setdefault(name, []).append((number, fields[6] // 1_000_000, *sides))

    def _take_book(self, message):
        name = message[:64].rstrip(b"\0").decode()
        book = self.books.setdefault(name, Book(name))
        if book.apply(message) and book.is_valid:
            limits = book.known_from, book.known_to  # a base is a part of the book, and the market moves
            counts = [
                side.count_to(known) for side, known in zip((book.bids, book.asks), limits, strict=True)
            ]
            sides = tuple(book.bids[: counts[0]][:COMPARED]), tuple(book.asks[: counts[1]][:COMPARED])
            self.books_at.setdefault(name, []).append((book.last_id, *sides))
        self.records += 1

    def not_valid(self, wanted):
        """Return those of some topics of books whose book is not valid."""
        return [name for name in wanted if name not in self.books or not self.books[name].is_valid]

    def compare_books(self, exchange, witness):
        """Return how many books were compared, each at its id, and those that are wrong."""
        count, wrong = 0, []
        for symbol, known in witness.books.items():
            name = f"book.{exchange}.{symbol}"
            for number, *sides in self.books_at.get(name, ()):
                if number in known:
                    count += 1
                    is_right = any(agree(each, sides) for each in known[number])
                    wrong += [] if is_right else [(name, number)]
        return count, wrong

    def compare_market(self, exchange, witness):
        """Return how many trades and depths were compared; trades that are missing or came twice; wrong depths."""
        trades, depths, missing, doubled, wrong = 0, 0, [], [], []
        for symbol, seen in witness.trades.items():
            name = f"trade.{exchange}.{symbol}"
            got = self.trades.get(name, {})
            first = next((at for at, each in enumerate(seen) if each in got), len(seen))
            trades += len(seen) - first
            missing += [(name, each) for each in seen[first:] if each not in got]
            doubled += [(name, each) for each, (count, *_) in got.items() if count > 1]
        for symbol, known in witness.depths.items():
            name = f"depth.{exchange}.{symbol}"
            for number, ms, bids, asks in self.depths.get(name, ()):
                expected = known.get(number or ms)
                if expected is not None:
                    depths += 1
                    wrong += [(name, number or ms)] if [bids, asks] not in expected else []
        return trades, depths, missing, doubled, wrong

    def compare_liquidations(self, exchange, witness):
        """Return how many there were since the first that came, and those that came too seldom or too often."""
        count, wrong = 0, []
        for symbol, seen in witness.liquidations.items():
            got = self.liquidations.get(f"liquidation.{exchange}.{symbol}", {})
            first = next((at for at, each in enumerate(seen) if each in got), len(seen))
            count += len(seen) - first
            wrong += [(exchange, symbol, each) for each in seen[first:] if got.get(each) != seen.count(each)]
        return count, wrong

    def too_often(self, exchange, witness):
        """Return the liquidations that came more often than they were."""
        found = []
        for symbol, seen in witness.liquidations.items():
            got = self.liquidations.get(f"liquidation.{exchange}.{symbol}", {})
            found += [(exchange, symbol, each) for each in set(seen) if got.get(each, 0) > seen.count(each)]
        return found

    def untold(self, exchange, witness):
        """Return the trades of a witness that are missing, and of which nothing told when it happened.

        What tells is a condition of their topic, or another session.
        """
        untold = []
        for symbol, seen in witness.trades.items():
            name = f"trade.{exchange}.{symbol}"
            got = self.trades.get(name, {})
            told_ns = [at_ns for at_ns, topic, _ in self.conditions if topic == name]
            before, waiting = None, []
            for each in seen:
                if each not in got:
                    waiting += [each] if before else []
                    continue
                if got[each][3] & RECOVERED:
                    continue  # it came out of order
                if waiting and before[2] == got[each][2]:
                    since_ns, until_ns = before[1] - NS_PER_S, got[each][1] + TOLD_NS
                    if not any(since_ns <= at_ns <= until_ns for at_ns in told_ns):
                        untold += [(name, one) for one in waiting]
                before, waiting = got[each], []
            untold += [(name, one) for one in waiting]  # nothing has come since
        return untold

    def _take_status(self, message, now_ns):
        status = json.loads(message[HEADER.size :])
        self.statuses[status["exchange"]] = status
        if status["reason"].startswith(SILENT) and status["state"] == "down":
            self.held_up.append((now_ns, status["exchange"]))

    def look(self, now_ns):
        """See how old each record is that carries no flag; only when nothing is left to read."""
        if self.lie_after_ns is None:
            return
        for topic in self.topics.values():
            age_ns = now_ns - topic.recv_ns
            if topic.flags & FLAGGED or not topic.recv_ns:
                continue
            self.silence_max_ns = max(self.silence_max_ns, age_ns)
            if age_ns > self.lie_after_ns and self._told.get(topic.name) != topic.recv_ns:
                self._told[topic.name] = topic.recv_ns
                self.lies.append((topic.name, round(age_ns / NS_PER_S, 1)))

    def unexplained(self):
        """What was flagged although no process was held up: `docs/operations.md` says what a hold-up looks like."""
        return [
            (name, flags)
            for at_ns, name, flags in self.flagged
            if flags & STALE
            or not any(
                exchange == name.split(".", 2)[1] and abs(since_ns - at_ns) < HELD_UP_NS
                for since_ns, exchange in self.held_up
            )
        ]

    def not_live(self, wanted, since_ns):
        """Return those of the wanted topics that are not live with data later than since_ns."""
        live = {topic.name for topic in self.topics.values() if topic.is_live(since_ns)}
        return sorted(set(wanted) - live)

    def without_quote(self, wanted):
        """Return those of the wanted topics whose best bid and offer are not known."""
        known = {
            topic.name
            for topic in self.topics.values()
            if topic.values
            and topic.values[BID] == topic.values[BID]
            and topic.values[ASK] == topic.values[ASK]
        }
        return sorted(set(wanted) - known)

    def flagged_now(self):
        """Return the topics whose newest record is STALE or DOWN."""
        return sorted(topic.name for topic in self.topics.values() if topic.flags & FLAGGED)

    def is_down(self, name):
        return any(topic.name == name and topic.flags & DOWN for topic in self.topics.values())

    def compare(self, exchange, witness):
        """Return how many updates of a witness were to come, since the first that did, and those that did not."""
        expected, missing = 0, []
        for topic in self.topics.values():
            if topic.exchange != exchange:
                continue
            symbol = topic.name.split(".", 2)[2]
            for seen, got in (
                (witness.seen[symbol], topic.sequences),
                (witness.times_ns[symbol], topic.times_ns),
            ):
                first = next((at for at, update in enumerate(seen) if update in got), len(seen))
                expected += len(seen) - first
                missing += [(topic.name, update) for update in seen[first:] if update not in got]
        return expected, missing


class Watch:
    """An observer at an endpoint, and the thread that reads for it."""

    def __init__(self, endpoint):
        self.lock = threading.Lock()
        self._observer = Observer()
        self._is_over = False
        self._failure = None
        self._context = zmq.Context()
        self._thread = threading.Thread(target=self._read, args=(endpoint,), daemon=True)
        self._thread.start()

    def __enter__(self):
        """Lend the observer, to whom nothing happens meanwhile."""
        self.lock.acquire()
        if self._failure:
            self.lock.release()
            raise AssertionError("the subscriber cannot go on") from self._failure
        return self._observer

    def __exit__(self, *exc):
        self.lock.release()

    def _read(self, endpoint):
        try:
            self._follow(endpoint)
        except Exception as exc:  # noqa: BLE001 - whoever asks is told
            self._failure = exc

    def _follow(self, endpoint):
        with self._context.socket(zmq.SUB) as socket:
            socket.set(zmq.RCVHWM, 0)
            for prefix in (
                b"ticker.",
                b"status.",
                b"trade.",
                b"depth.",
                b"contract.",
                b"liquidation.",
                BOOKS,
            ):
                socket.set(zmq.SUBSCRIBE, prefix)
            socket.connect(endpoint)
            looked_ns = 0
            while not self._is_over:
                if time.time_ns() - looked_ns > LOOK_EVERY_NS and not socket.poll(0):
                    looked_ns = time.time_ns()
                    with self.lock:
                        self._observer.look(looked_ns)
                if socket.poll(50):
                    message = socket.recv()
                    with self.lock:
                        self._observer.take(message, time.time_ns())

    def close(self):
        self._is_over = True
        self._thread.join(30)
        self._context.destroy(linger=0)
