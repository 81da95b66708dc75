"""What somebody was given, topic by topic: enough to tell whether another was given the same, byte for byte.

Compared is each record without its session and time of publication. What a recording does not have is left out:

    STALE and DOWN           a feed's and a merger's own word; so is the last value, sent again, that ends it
    tickers, at first        until channels have stated all values: the first ones are from REST
    snapshots of books       that a feed repeats every ten minutes, by its own clock
"""

import math
import struct
from array import array
from collections import Counter

from claims import Claim
from played_again import bare

from feedhandler.data import wire
from feedhandler.data.kept_book import Book

OWN = wire.STALE | wire.DOWN
LATEST = {int(kind) for kind in (wire.TICKER, wire.DEPTH)}
LEVELS = 20  # of each side of a book
KINDS = {int(kind): str(kind) for kind in (wire.TICKER, wire.TRADE, wire.DEPTH, wire.BOOK)}
SEQUENCE = slice(wire.SEQUENCE_OFFSET, wire.SEQUENCE_OFFSET + wire.SEQUENCE.size)
VALUES, VALUES_OFFSET = struct.Struct("<10d"), wire.HEADER_SIZE + 8  # of a ticker
ID, LAST_ID_OFFSET = struct.Struct("<Q"), wire.HEADER_SIZE + 8  # of a book
NO_SEQUENCE = bytes(wire.SEQUENCE.size)


class Topic:
    """The records of one topic, as hashes."""

    def __init__(self, name, kind):
        self.name, self.kind = name, kind
        self.records, self.times = array("q"), array("q")
        self.complete_from = None  # of a ticker: which record first has all values
        self.book = Book()
        self.last_id = 0  # of a book, the exchange's
        self.states = {}  # of a book: by the exchange's id, a hash of its best levels
        self.sequence = 0
        self.missed = 0
        self.is_flagged = False

    def take(self, record, flags):
        sequence = wire.sequence_of(record)
        self.missed += sequence - self.sequence - 1
        self.sequence = sequence
        was_flagged, self.is_flagged = self.is_flagged, bool(flags & OWN)
        if self.is_flagged:
            return
        found = bare(record)
        if self.kind in LATEST:
            found = found[: SEQUENCE.start] + NO_SEQUENCE + found[SEQUENCE.stop :]
            if was_flagged and self.records and hash(found) == self.records[-1]:
                return
        if self.kind == wire.TICKER:
            if self.complete_from is None and all(
                map(math.isfinite, VALUES.unpack_from(record, VALUES_OFFSET))
            ):
                self.complete_from = len(self.records)
        elif self.kind == wire.BOOK:
            found = found[: SEQUENCE.start] + NO_SEQUENCE + found[SEQUENCE.stop :]
            if self._is_repeated(record, flags):
                return
        self.records.append(hash(found))
        (recv_ns,) = wire.TIME.unpack_from(record, wire.RECV_NS_OFFSET)
        self.times.append(recv_ns)

    def _is_repeated(self, record, flags):
        """Apply a record to the book, and tell whether it belongs to a snapshot of what the book was already."""
        book, (last_id,) = self.book, ID.unpack_from(record, LAST_ID_OFFSET)
        is_repeated = bool(flags & wire.SNAPSHOT) and last_id == self.last_id
        book.apply(wire.unpack(record))
        if flags & wire.LAST:
            self.last_id = last_id
        if book.is_valid:
            self.states[last_id] = hash((tuple(book.bids[:LEVELS]), tuple(book.asks[:LEVELS])))
        return is_repeated


class Notes:
    def __init__(self, records):
        self.topics = {}
        self.counts = Counter()  # records by kind
        self.rows = Counter()  # of an export, by kind
        self.flagged = 0
        for record in records:
            self._take(record)

    def _take(self, record):
        code = record[wire.KIND_OFFSET]
        if code == wire.CONDITION:
            self.rows["condition"] += 1
            return
        kind = KINDS[code]
        (flags,) = wire.FLAGS.unpack_from(record, wire.FLAGS_OFFSET)
        self.counts[kind] += 1
        self.flagged += bool(flags & OWN)
        counts = wire.COUNTS[code]
        self.rows[kind] += 1 if counts is None else (len(record) - counts.head) // counts.size
        name = record[: wire.TOPIC_SIZE]
        topic = self.topics.get(name)
        if topic is None:
            topic = self.topics[name] = Topic(wire.unpadded(name), code)
        topic.take(record, flags)

    def of_kind(self, kind):
        return {name: topic for name, topic in self.topics.items() if KINDS[topic.kind] == kind}


def compare(live, again):
    """Return a claim for each kind: a replay has what was published."""
    return [_alike(kind, live.of_kind(kind), again.of_kind(kind)) for kind in KINDS.values()]


def _alike(kind, live, again):
    wrong = [wire.unpadded(name) for name in live.keys() ^ again.keys()]
    said = Counter()
    for name in live.keys() & again.keys():
        problem = COMPARE[kind](live[name], again[name], said)
        if problem:
            wrong.append(f"{live[name].name}: {problem}")
    measured = ", ".join(f"{count:,} {what}" for what, count in said.items()) + f" of {len(live)} topics"
    if wrong:
        measured += f"; {len(wrong)} differ: {'; '.join(sorted(wrong)[:3])}"
    return Claim(f"replay = live: {kind}", measured, bool(live) and not wrong)


def _records(live, again, said, *, first=0, first_again=0):
    """Compare records one after the other; returns what is wrong, in words."""
    one, two = live.records[first:], again.records[first_again:]
    said["records"] += len(one)
    if one == two:
        return ""
    at = next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    times = (live.times[first + at : first + at + 1], again.times[first_again + at : first_again + at + 1])
    return f"{len(one)} records, and {len(two)}; record {at} of {[*times[0], *times[1]]} is another"


def _tickers(live, again, said):
    first_again = again.complete_from
    if first_again is None:
        return "no record of the replay has all values"
    recv_ns = again.times[first_again]
    first = next((n for n, each in enumerate(live.times) if each == recv_ns), len(live.times))
    said["before all values were known"] += first
    return _records(live, again, said, first=first, first_again=first_again)


def _books(live, again, said):
    problem = _records(live, again, said)
    both = live.states.keys() & again.states.keys()
    said["books after a message"] += len(both)
    differing = [each for each in both if live.states[each] != again.states[each]]
    if differing:
        problem += f" {len(differing)} of {len(both)} books differ, the first after {min(differing)}"
    missing = live.states.keys() - again.states.keys()
    more = again.states.keys() - live.states.keys()
    if missing or more:
        problem += (
            f" {len(missing)} of {len(live.states)} books are not in the replay, and {len(more)} only there"
        )
    return problem.strip()


COMPARE = {"trade": _records, "depth": _records, "ticker": _tickers, "book": _books}
