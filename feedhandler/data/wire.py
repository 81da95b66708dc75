"""Records as bytes: packed, unpacked, and cut out of messages of several.

The layout is described in `data/`, one file a kind; here is what follows from it. `docs/wire.md` describes the same
bytes for readers without Python. Pure: no sockets, no clock.
"""

import enum
import struct
import typing
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from msgspec.structs import astuple

from feedhandler.data import ticker
from feedhandler.data.book import BookRecord
from feedhandler.data.condition import Condition
from feedhandler.data.contract import Contract
from feedhandler.data.depth import Depth
from feedhandler.data.documents import Document
from feedhandler.data.errors import DecodeError
from feedhandler.data.header import (
    BAD_EXCHANGE_TIME,
    DOWN,
    FLAG_NAMES,
    FLAGS_OF,
    INVALID,
    LAST,
    NOT_LIVE,
    ORIGIN,
    RECOVERED,
    REPLAY,
    SIMULATED,
    SNAPSHOT,
    STALE,
    TOPIC_BYTES_MAX,
    TOPIC_SIZE,
    VERSION,
    Flag,
    Record,
)
from feedhandler.data.header import HEADER as HEADER_LAYOUT
from feedhandler.data.kinds import BY_CODE, DOCUMENTS, TOPIC_WORDS, Kind
from feedhandler.data.kinds import NAMES as KIND_NAMES
from feedhandler.data.layout import Description
from feedhandler.data.liquidation import Liquidation
from feedhandler.data.ticker import NAN, Ticker
from feedhandler.data.ticker import VALUES as TICKER_VALUES
from feedhandler.data.trade import Side, Trade

__all__ = [
    "BAD_EXCHANGE_TIME",
    "DOWN",
    "FLAGS_OF",
    "FLAG_NAMES",
    "INVALID",
    "KIND_NAMES",
    "LAST",
    "NAN",
    "NOT_LIVE",
    "ORIGIN",
    "RECOVERED",
    "REPLAY",
    "SIMULATED",
    "SNAPSHOT",
    "STALE",
    "TICKER_VALUES",
    "TOPIC_BYTES_MAX",
    "TOPIC_SIZE",
    "TOPIC_WORDS",
    "VERSION",
    "BookRecord",
    "Condition",
    "Contract",
    "Depth",
    "Document",
    "Flag",
    "Kind",
    "Liquidation",
    "Record",
    "Side",
    "Ticker",
    "Trade",
]

# Kinds. The topic's first word names the kind too, so that a prefix subscription filters by it.
TICKER: Final = Kind.TICKER
STATUS: Final = Kind.STATUS
INSTRUMENTS: Final = Kind.INSTRUMENTS
HEARTBEAT: Final = Kind.HEARTBEAT
NOTICE: Final = Kind.NOTICE
TRADE: Final = Kind.TRADE
DEPTH: Final = Kind.DEPTH
BOOK: Final = Kind.BOOK
CONTRACT: Final = Kind.CONTRACT
LIQUIDATION: Final = Kind.LIQUIDATION
CONDITION: Final = Kind.CONDITION

NO_NUL: Final = f"the topic has more than {TOPIC_BYTES_MAX} bytes"

HEADER: Final = struct.Struct(HEADER_LAYOUT.format)
TICKER_RECORD: Final = struct.Struct(ticker.TICKER.layout.format)
HEADER_SIZE: Final = HEADER.size
TICKER_SIZE: Final = TICKER_RECORD.size
assert (HEADER_LAYOUT.size, ticker.TICKER.size) == (HEADER_SIZE, TICKER_SIZE), "no padding"

VERSION_OFFSET: Final = HEADER_LAYOUT.offset("version")
KIND_OFFSET: Final = HEADER_LAYOUT.offset("kind")
FLAGS_OFFSET: Final = HEADER_LAYOUT.offset("flags")
SESSION_OFFSET: Final = HEADER_LAYOUT.offset("session")
SEQUENCE_OFFSET: Final = HEADER_LAYOUT.offset("sequence")
EXCHANGE_NS_OFFSET: Final = HEADER_LAYOUT.offset("exchange_ns")
RECV_NS_OFFSET: Final = HEADER_LAYOUT.offset("recv_ns")
PUBLISH_NS_OFFSET: Final = HEADER_LAYOUT.offset("publish_ns")

# What the merger takes from a feed's record (topic, flags, exchange_ns and recv_ns, body), and what it puts in
# its own after the topic: flags, session, sequence, exchange_ns and recv_ns, publish_ns, body.
_BODY: Final = f"{TICKER_SIZE - HEADER_SIZE}s"
HOP_RECORD: Final = struct.Struct(f"<{TOPIC_SIZE}s2xH12x16s8x{_BODY}")
HOP_TIMES: Final = struct.Struct(f"<{RECV_NS_OFFSET}xqq")  # recv_ns, and when the feed sent it
AFTER_KIND: Final = struct.Struct(f"<HIQ16sq{_BODY}")
FLAGS: Final = struct.Struct("<H")
SEQUENCE_AFTER_FLAGS: Final = struct.Struct("<HIQ")
SESSION: Final = struct.Struct("<I")
SEQUENCE: Final = struct.Struct("<Q")
TIME: Final = struct.Struct("<q")
COUNT: Final = struct.Struct("<H")
assert HOP_RECORD.size == FLAGS_OFFSET + AFTER_KIND.size == TICKER_SIZE
assert FLAGS_OFFSET + SEQUENCE_AFTER_FLAGS.size == EXCHANGE_NS_OFFSET
assert SESSION_OFFSET + SESSION.size == SEQUENCE_OFFSET
assert SEQUENCE_OFFSET + SEQUENCE.size == EXCHANGE_NS_OFFSET
assert RECV_NS_OFFSET + TIME.size == PUBLISH_NS_OFFSET
assert HOP_TIMES.size == HEADER_SIZE


class Unknown(Record):
    """A record of a kind that this version does not know: its header, and the bytes of its body."""

    body: bytes = b""


# Records that take no number of their topic, and those of which nobody here knows whether they do.
UNNUMBERED: Final = (Condition, Unknown)

# after the topic; a class that is more than its record has more
_TICKER_FIELDS: Final = len(Ticker.__struct_fields__) - 1
KIND_OF: Final[list[int]] = [next((kind for kind in Kind if kind == code), code) for code in range(256)]
PACKINGS: Final = {kind.code: struct.Struct(kind.layout.format) for kind in BY_CODE.values()}


class Counts(NamedTuple):
    """Where a record says how many entries follow its fields, and how large they are."""

    first: int  # offset of a u16
    second: int  # of another
    size: int  # bytes of one entry
    head: int  # bytes before the first one
    size_max: int  # of a record


def counts_of(kind: Description) -> Counts | None:
    """Return what the size of a record follows from; None: its size is fixed, or it takes the rest."""
    entries = kind.layout.entries
    if entries is None:
        return None
    first, second = map(kind.layout.offset, entries.counts)
    return Counts(first, second, entries.size, kind.size, kind.size_max)


COUNTS: Final = [counts_of(BY_CODE[code]) if code in BY_CODE else None for code in range(256)]
# Of one record; 0: it takes the rest of its message; COUNTED: as its own counts have it.
COUNTED: Final = -1
SIZES: Final = [
    (COUNTED if COUNTS[code] else BY_CODE[code].size) if code in BY_CODE else 0 for code in range(256)
]
RECORD_SIZE_MAX: Final = 8320  # of any kind, but documents: some 500 levels, should a kind have them
assert all(kind.size_max <= RECORD_SIZE_MAX for kind in BY_CODE.values())
TOPIC_SIZE_1: Final = 40  # in version 1
TOPICS_MAX: Final = 20_000  # whose texts are kept: 4 MB


class _NumbersOrWords(dict[int, int]):
    """Numbers of which some have names: a later release may know more of them."""

    def __missing__(self, value: int) -> int:
        return value


class _TopicTexts(dict[bytes, str]):
    """The texts of topics that were met: to make one anew takes as long as to make a record of its numbers."""

    def __missing__(self, padded: bytes) -> str:
        if len(self) >= TOPICS_MAX:  # names that somebody makes up
            self.clear()
        topic = self[padded] = unpadded(padded)
        return topic


TOPIC_OF: Final = _TopicTexts()
FieldReading = Callable[[Any], Any]


def readings_of(kind: Description) -> tuple[tuple[int, FieldReading], ...]:
    """Return what to make of the fields that are more than numbers, by their places: texts, and what has names."""
    hints = typing.get_type_hints(kind.record)
    named: dict[str, FieldReading] = {"topic": TOPIC_OF.__getitem__, "flags": FLAGS_OF.__getitem__}
    found: list[tuple[int, FieldReading]] = []
    for place, field in enumerate(kind.layout.all_fields):
        hint = hints[field.name]
        if field.name in named:
            found.append((place, named[field.name]))
        elif field.name == "kind":
            found.append((place, KIND_OF.__getitem__))
        elif field.type == "char":
            found.append((place, unpadded))
        elif isinstance(hint, type) and issubclass(hint, enum.IntEnum):
            found.append((place, _NumbersOrWords({member.value: member for member in hint}).__getitem__))
    return tuple(found)


def topic(kind: int, exchange: str, symbol: str = "") -> str:
    """Return the topic. Raises ValueError if it does not fit, rather than cutting it."""
    words = [KIND_NAMES[kind], exchange, symbol] if symbol else [KIND_NAMES[kind], exchange]
    joined = ".".join(words)
    size = len(joined.encode())
    if size > TOPIC_BYTES_MAX:
        raise ValueError(f"topic {joined!r} has {size} bytes, {TOPIC_BYTES_MAX} fit the wire format")
    if "\0" in joined:
        raise ValueError(f"topic {joined!r} contains NUL")
    return joined


def padded(topic: str) -> bytes:
    """Return a topic as it stands in a record."""
    return topic.encode().ljust(TOPIC_SIZE, b"\0")


def unpadded(topic: bytes) -> str:
    """Return a topic that stands in a record; what is not UTF-8 in it is replaced."""
    return topic.rstrip(b"\0").decode(errors="replace")


def texts_of(kind: Description) -> tuple[int, ...]:
    """Return the places of the texts of a body, after the topic."""
    return tuple(place - 1 for place, reading in readings_of(kind) if reading is unpadded)


READINGS: Final = {kind.code: readings_of(kind) for kind in BY_CODE.values()}
TEXTS: Final = {kind.code: texts_of(kind) for kind in BY_CODE.values()}


def session_of(message: bytes | bytearray | memoryview) -> int:
    """Return the session in a message."""
    (session,) = SESSION.unpack_from(message, SESSION_OFFSET)
    return int(session)


def sequence_of(message: bytes | bytearray | memoryview) -> int:
    """Return the sequence in a message."""
    (sequence,) = SEQUENCE.unpack_from(message, SEQUENCE_OFFSET)
    return int(sequence)


def pack_ticker(ticker: Ticker) -> bytes:
    """Return the bytes of one ticker record."""
    # hot: once per frame in a feed.
    topic, *fields = astuple(ticker)
    return TICKER_RECORD.pack(topic.encode(), *fields[:_TICKER_FIELDS])


def pack_document(document: Document) -> bytes:
    """Return header and JSON body of a document."""
    return pack(document)


def pack(record: Record) -> bytes:
    """Return the bytes of a record of any kind."""
    topic, *fields = astuple(record)
    size, counts = SIZES[record.kind], COUNTS[record.kind]
    for index in TEXTS.get(record.kind, ()):
        fields[index] = fields[index].encode()
    if size and counts is None:
        return PACKINGS[record.kind].pack(topic.encode(), *fields)
    *header, body = fields
    if counts is not None:
        packed: bytes = PACKINGS[record.kind].pack(topic.encode(), *header) + body
        if counted_size(packed, 0, counts) != len(packed) or len(packed) > counts.size_max:
            raise ValueError(f"{topic}: {len(body)} bytes of entries are not what the record's counts say")
        return packed
    return HEADER.pack(topic.encode(), *header) + bytes(body)


def size_at(message: bytes | bytearray | memoryview, start: int) -> int:
    """Return how many bytes the record has that starts there: all the rest, if its kind does not give the size.

    What is no record of this version is one that takes the rest; `unpack` raises what is wrong with it.
    """
    rest = len(message) - start
    if rest < HEADER_SIZE or message[start + VERSION_OFFSET] != VERSION:
        return rest
    kind = message[start + KIND_OFFSET]
    size = SIZES[kind]
    counts = COUNTS[kind]
    if counts is not None:
        size = counted_size(message, start, counts) if rest >= counts.head else rest
    return size if 0 < size <= rest else rest


def counted_size(message: bytes | bytearray | memoryview, start: int, counts: Counts) -> int:
    """Return how many bytes a record has by its own counts, which have to be there."""
    (first,) = COUNT.unpack_from(message, start + counts.first)
    (second,) = COUNT.unpack_from(message, start + counts.second)
    return counts.head + (int(first) + int(second)) * counts.size


def split(message: bytes | memoryview) -> Iterator[bytes | memoryview]:
    """Yield the records of a message, of whatever kinds; a batch endpoint sends them back to back."""
    start = 0
    while start < len(message):
        size = size_at(message, start)
        yield message[start : start + size]
        start += size


def unpack(message: bytes | memoryview) -> Record:
    """Return the one record that these bytes are.

    A kind that this version does not know is an `Unknown`. Raises DecodeError for a length that is not that of the
    kind, for another version, and for a topic without NUL.
    """
    size = len(message)
    if size < HEADER_SIZE or message[VERSION_OFFSET] != VERSION:
        raise DecodeError(_refusal(message))
    kind = message[KIND_OFFSET]
    if kind == ticker.CODE and size == TICKER_SIZE and not message[TOPIC_BYTES_MAX]:
        # hot: `make bench-micro`, client. Positional, and what is named set afterwards: half the time.
        record = Ticker(*TICKER_RECORD.unpack(message))
        record.topic = TOPIC_OF[record.topic]  # type: ignore[index]
        record.kind = TICKER
        record.flags = FLAGS_OF[record.flags]
        return record
    counts = COUNTS[kind]
    if counts is not None:
        return _unpack_counted(message, counts)
    if size != SIZES[kind] and SIZES[kind]:
        raise DecodeError(_refusal(message))
    if message[TOPIC_BYTES_MAX]:
        raise DecodeError(NO_NUL)
    if SIZES[kind]:
        return _record(kind, [*PACKINGS[kind].unpack(message)])
    document = (Document if kind in DOCUMENTS else Unknown)(*HEADER.unpack_from(message))
    document.body = bytes(message[HEADER_SIZE:])
    document.topic = TOPIC_OF[document.topic]  # type: ignore[index]
    document.kind, document.flags = KIND_OF[kind], FLAGS_OF[document.flags]
    return document


def _unpack_counted(message: bytes | memoryview, counts: Counts) -> Record:
    """Return a record with the entries that follow its fields, as bytes."""
    size, kind = len(message), message[KIND_OFFSET]
    if size < counts.head or size != counted_size(message, 0, counts) or size > counts.size_max:
        raise DecodeError(_refusal(message))
    if message[TOPIC_BYTES_MAX]:
        raise DecodeError(NO_NUL)
    return _record(kind, [*PACKINGS[kind].unpack_from(message), bytes(message[counts.head :])])


def _record(kind: int, fields: list[Any]) -> Record:
    """Return a record whose texts are texts, and whose kind, flags and the like have names."""
    # hot: `make bench-micro`, client
    for place, reading in READINGS[kind]:
        fields[place] = reading(fields[place])
    made: Record = BY_CODE[kind].record(*fields)
    return made


def _refusal(message: bytes | memoryview) -> str:
    """Say what is wrong with the length or the version of a message."""
    size = len(message)
    if size > TOPIC_SIZE_1 and not message[TOPIC_SIZE_1 - 1] and message[TOPIC_SIZE_1] == 1:
        version = 1  # where it stood then, after a NUL that ended the topic: padding has NUL there
    elif size < HEADER_SIZE:
        return f"message of {size} bytes is shorter than the {HEADER_SIZE}-byte header"
    else:
        version = message[VERSION_OFFSET]
    if version != VERSION:
        return f"wire version {version}, this is a reader of version {VERSION}: run the same release on both sides"
    kind = BY_CODE[message[KIND_OFFSET]]
    counts = COUNTS[kind.code]
    expected = kind.size
    if counts is not None and size >= kind.size:
        expected = min(counted_size(message, 0, counts), counts.size_max)
    return f"{kind.name} record of {size} bytes, expected {expected}"
