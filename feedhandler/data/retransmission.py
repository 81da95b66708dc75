"""Asking for what was missed: requests to the relay, and what it answers. `docs/wire.md` has it for every language.

A request is one JSON frame; it selects last values of topics, or single records by their numbers, and may be
repeated at will, since it changes nothing. An answer is a JSON head, one frame of records back to back,
and a frame for each JSON document.

Pure: what the merger has written comes in as a `Ring`, answers go out as frames; the relay owns sockets and clock.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from feedhandler.data import wire
from feedhandler.data.errors import UNDECODABLE
from feedhandler.data.kinds import keeps_every

REQUEST_SIZE_MAX: Final = 1 << 16
PREFIXES_MAX: Final = 100
RANGES_MAX: Final = 1000
RECORDS_MAX: Final = 2000  # in one answer,
SIZE_MAX: Final = RECORDS_MAX * wire.TICKER_SIZE  # and bytes of them: 384 kB; or one book, which is whole
# What answering costs, in records, each some 10 us: an answer with none has to be read and written as well.
REQUEST_COST: Final = 20
RANGES_PER_RECORD: Final = 10  # one that is lost is looked for all the same
BYTES_PER_RECORD: Final = 1000  # of a request, which have to be read
LOOKS_PER_RECORD: Final = 20  # at topics that match, whether or not their records are in this answer


class Missing(msgspec.Struct, frozen=True, array_like=True):
    """Records of one topic: `["ticker.binance.BTC/USDT", 101, 104]` are four."""

    topic: str
    first: int
    last: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """A subscriber's request. id comes back in the answer.

    topics are prefixes, as in subscriptions: the last value of each topic, from slot `start` on. missing are
    records of the given session.
    """

    id: int = 0
    topics: list[str] = []
    start: int = 0
    session: int = 0
    missing: list[Missing] = []


class Head(msgspec.Struct, omit_defaults=True):
    """The first frame of an answer.

    records and documents count what follows. lost are those requested that are not there any more. rest has still
    to be requested, and so has what begins at slot next: the answer was full. error is why there is no answer.
    """

    id: int = 0
    session: int = 0
    records: int = 0
    documents: int = 0
    lost: list[Missing] = []
    rest: list[Missing] = []
    next: int = 0
    error: str = ""


class Ring(Protocol):
    """What the merger has published: the newest record of each topic and some before it, by number."""

    @property
    def session(self) -> int: ...

    def topics(self) -> Mapping[str, int]:
        """Return the slot of each topic."""

    def under(self, prefix: bytes) -> list[bytes]:
        """Return the topics that begin with a prefix, padded, in order."""

    def number(self, index: int) -> int:
        """Return the number of the newest record, 0 if there is none."""

    def newest(self, index: int) -> bytes | None: ...

    def record(self, index: int, number: int) -> bytes | None: ...


class Records:
    """The records of an answer, as many as it may have."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0  # in bytes

    def add(self, record: bytes) -> bool:
        """Add one; False if there is no room for it."""
        if len(self.parts) == RECORDS_MAX or self.size + len(record) > SIZE_MAX:
            return False
        self.parts.append(record)
        self.size += len(record)
        return True

    def add_whole(self, parts: list[bytes]) -> bool:
        """Add what has to stay together; False if there is no room for it beside others."""
        size = sum(map(len, parts))
        if self.parts and (len(self.parts) + len(parts) > RECORDS_MAX or self.size + size > SIZE_MAX):
            return False
        self.parts += parts
        self.size += size
        return True

    def end_with(self, count: int) -> None:
        """Turn the last ones around: they came from the end."""
        self.parts[len(self.parts) - count :] = reversed(self.parts[len(self.parts) - count :])


class Answer(msgspec.Struct):
    """Frames, and what they cost, in records."""

    frames: list[bytes]
    cost: int


Books = Callable[[str, int], list[bytes]]


def no_books(topic: str, flags: int) -> list[bytes]:
    """Return nothing of a book: nobody keeps it."""
    return []


def answer(
    request: bytes,
    ring: Ring | None,
    documents: Mapping[bytes, bytes],
    flags: int = 0,
    books: Books = no_books,
) -> Answer:
    """Answer one request, whatever its bytes; documents are the newest of each topic, padded.

    flags are added to last values: DOWN, while there is no merger. books returns the records that stand for the
    last value of a book, of a topic and these flags.
    """
    try:
        asked = msgspec.json.decode(request, type=Request)
        _check(asked)
    except (*UNDECODABLE, ValueError) as exc:
        return _refusal(_id_of(request), f"this is no request: {exc}", len(request))
    if ring is None:
        error = "nothing has been published here yet; is the merger running?"
        return _refusal(asked.id, error, len(request))
    head = Head(id=asked.id, session=ring.session)
    records = Records()
    found: list[bytes] = []
    cost = REQUEST_COST + len(request) // BYTES_PER_RECORD + len(asked.missing) // RANGES_PER_RECORD
    if asked.topics:
        prefixes = _distinct(asked.topics)
        if asked.start == 0:
            found = [
                replayed(m, flags) for topic, m in documents.items() if topic.startswith(tuple(prefixes))
            ]
        cost += _add_newest(asked.start, prefixes, ring, records, head, flags, books)
    if asked.missing:
        _add_missing(asked, ring, records, head)
    head.records, head.documents = len(records.parts), len(found)
    cost += max(len(records.parts), records.size // wire.TICKER_SIZE)
    cost += sum(map(len, found)) // wire.TICKER_SIZE
    return Answer([msgspec.json.encode(head), b"".join(records.parts), *found], cost)


def _check(asked: Request) -> None:
    """Raise ValueError for what no subscriber needs to request."""
    if len(asked.topics) > PREFIXES_MAX or len(asked.missing) > RANGES_MAX:
        raise ValueError(f"more than {PREFIXES_MAX} prefixes, or {RANGES_MAX} ranges")
    if not asked.topics and not asked.missing:
        raise ValueError("it asks for neither topics nor missing")
    if asked.start < 0 or any(not 0 < each.first <= each.last for each in asked.missing):
        raise ValueError("numbers begin at 1, and the first comes before the last")


class _Id(msgspec.Struct):
    """The part of a request that its answer repeats, whatever is wrong with the rest."""

    id: int = 0


def _id_of(request: bytes) -> int:
    try:
        return msgspec.json.decode(request, type=_Id).id
    except UNDECODABLE:
        return 0


def _refusal(number: int, error: str, size: int) -> Answer:
    cost = REQUEST_COST + size // BYTES_PER_RECORD
    return Answer([msgspec.json.encode(Head(id=number, error=error)), b""], cost)


def _add_newest(
    start: int,
    prefixes: list[bytes],
    ring: Ring,
    records: Records,
    head: Head,
    flags: int,
    books: Books,
) -> int:
    """Add last values from a slot on; returns what it cost to look."""
    slots = ring.topics()
    found = sorted(slots[wire.unpadded(topic)] for prefix in prefixes for topic in ring.under(prefix))
    for index in found[bisect_left(found, start) :]:
        record = ring.newest(index)
        if record is None:
            continue
        if record[wire.KIND_OFFSET] == wire.BOOK:
            parts = books(wire.unpadded(record[: wire.TOPIC_SIZE]), flags)
        elif keeps_every(record[wire.KIND_OFFSET]):
            continue
        else:
            parts = [replayed(record[: wire.size_at(record, 0)], flags)]
        if not records.add_whole(parts):
            head.next = index
            break
    return len(found) // LOOKS_PER_RECORD


def _distinct(prefixes: list[str]) -> list[bytes]:
    """Return prefixes without those that another one covers: no topic begins with two of the rest."""
    distinct: list[bytes] = []
    for prefix in sorted(prefix.encode() for prefix in prefixes):
        if not distinct or not prefix.startswith(distinct[-1]):
            distinct.append(prefix)
    return distinct


def replayed(message: bytes, more: int = 0) -> bytes:
    """Return a message as the last value: not a new event, and no number of its own."""
    replayed = bytearray(message)
    (flags,) = wire.FLAGS.unpack_from(replayed, wire.FLAGS_OFFSET)
    wire.FLAGS.pack_into(replayed, wire.FLAGS_OFFSET, flags | wire.SNAPSHOT | more)
    return bytes(replayed)


def _add_missing(asked: Request, ring: Ring, records: Records, head: Head) -> None:
    """Add records by number, those that are left of each range; note what is lost, and what did not fit."""
    topics = ring.topics()
    for each in asked.missing:
        if asked.session != ring.session:
            head.lost.append(each)  # of a merger that is gone
            continue
        index = topics.get(each.topic)
        newest = 0 if index is None else ring.number(index)
        if index is None or not newest:
            head.lost.append(each)
            continue
        _add_range(each, index, newest, ring, records, head)


def _add_range(each: Missing, index: int, newest: int, ring: Ring, records: Records, head: Head) -> None:
    """Walk a range from its end: what the ring has is the last of it, and what precedes that is lost."""
    if each.last > newest:
        head.rest.append(Missing(each.topic, max(each.first, newest + 1), each.last))  # not published yet
    count = 0
    number = min(each.last, newest)
    while number >= each.first:
        record = ring.record(index, number)
        if record is None or wire.sequence_of(record) != number:
            head.lost.append(Missing(each.topic, each.first, number))
            break
        if not records.add(record[: wire.size_at(record, 0)]):
            head.rest.append(Missing(each.topic, each.first, number))
            break
        count += 1
        number -= 1
    records.end_with(count)
