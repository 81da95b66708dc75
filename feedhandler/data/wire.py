"""The bytes that we publish: one fixed header, then a body by kind.

The one definition of the layout: offsets, sizes, kinds, flags and sentinels exist nowhere else.
`docs/wire.md` describes the same bytes for readers without Python. Pure: no sockets, no clock.

A ticker record is the full current state of one instrument, so the newest one is always enough.
Unknown numbers are NaN, unknown times 0. Status, instruments and heartbeat bodies are UTF-8 JSON.
"""

import struct
from typing import Any, Final

import msgspec

from feedhandler.data.errors import DecodeError

VERSION: Final = 1

# Kinds. The topic's first word names the kind too, so that a prefix subscription filters by it.
TICKER: Final = 1
STATUS: Final = 2
INSTRUMENTS: Final = 3
HEARTBEAT: Final = 4
NOTICE: Final = 5  # to one subscriber, about itself: its topic is the mode that it declared
KIND_NAMES: Final = {
    TICKER: "ticker",
    STATUS: "status",
    INSTRUMENTS: "instruments",
    HEARTBEAT: "heartbeat",
    NOTICE: "notice",
}

# Flags, a bit set.
SNAPSHOT: Final = 1  # last value replayed, not a new event
STALE: Final = 2  # data stopped while the connection lives
DOWN: Final = 4  # exchange not connected, or its feed process gone
SIMULATED: Final = 8  # not a real exchange
BAD_EXCHANGE_TIME: Final = 16  # the exchange's clock cannot be right
FLAG_NAMES: Final = {
    SNAPSHOT: "SNAPSHOT",
    STALE: "STALE",
    DOWN: "DOWN",
    SIMULATED: "SIMULATED",
    BAD_EXCHANGE_TIME: "BAD_EXCHANGE_TIME",
}

NOT_LIVE: Final = STALE | DOWN  # with either, the values are the last known ones

NAN: Final = float("nan")

TOPIC_SIZE: Final = 40
TOPIC_BYTES_MAX: Final = TOPIC_SIZE - 1  # at least one NUL, so that `topic + NUL` is an exact subscription
NO_NUL: Final = f"the topic has more than {TOPIC_BYTES_MAX} bytes"

#   topic, version, kind, flags, session, sequence, exchange_ns, recv_ns, publish_ns
HEADER: Final = struct.Struct("<40sBBHIQqqq")
#   exchange_sequence, then the ten numbers in the order of `Ticker`
TICKER_BODY: Final = struct.Struct("<Q10d")
TICKER_RECORD: Final = struct.Struct("<40sBBHIQqqqQ10d")

HEADER_SIZE: Final = HEADER.size
TICKER_SIZE: Final = TICKER_RECORD.size
assert HEADER_SIZE == 80
assert TICKER_BODY.size == 88
assert TICKER_SIZE == HEADER_SIZE + TICKER_BODY.size == 168, "no padding between header and body"

KIND_OFFSET: Final = 41
FLAGS_OFFSET: Final = 42
SESSION_OFFSET: Final = 44
SEQUENCE_OFFSET: Final = 48
EXCHANGE_NS_OFFSET: Final = 56
PUBLISH_NS_OFFSET: Final = 72
# What the merger takes from a feed's record (topic, flags, exchange_ns and recv_ns, body), and what it puts in
# its own after the topic: flags, session, sequence, exchange_ns and recv_ns, publish_ns, body.
HOP_RECORD: Final = struct.Struct("<40s2xH12x16s8x88s")
HOP_TIMES: Final = struct.Struct("<64xqq")  # recv_ns, and when the feed sent it
AFTER_KIND: Final = struct.Struct("<HIQ16sq88s")
RECV_NS_OFFSET: Final = 64
FLAGS: Final = struct.Struct("<H")
SEQUENCE_AFTER_FLAGS: Final = struct.Struct("<HIQ")
SESSION: Final = struct.Struct("<I")
SEQUENCE: Final = struct.Struct("<Q")
TIME: Final = struct.Struct("<q")
assert HOP_RECORD.size == FLAGS_OFFSET + AFTER_KIND.size == TICKER_SIZE
assert FLAGS_OFFSET + SEQUENCE_AFTER_FLAGS.size == EXCHANGE_NS_OFFSET
assert SESSION_OFFSET + SESSION.size == SEQUENCE_OFFSET
assert SEQUENCE_OFFSET + SEQUENCE.size == EXCHANGE_NS_OFFSET
assert RECV_NS_OFFSET + TIME.size == PUBLISH_NS_OFFSET
assert HOP_TIMES.size == HEADER_SIZE


class Record(msgspec.Struct):
    """The header, which every message has.

    topic is without padding; times are Unix nanoseconds; see `docs/wire.md` for every field.
    """

    topic: bytes
    version: int = VERSION
    kind: int = TICKER
    flags: int = 0
    session: int = 0
    sequence: int = 0
    exchange_ns: int = 0
    recv_ns: int = 0
    publish_ns: int = 0

    @property
    def exchange(self) -> str:
        """Second word of the topic: `binance` of `ticker.binance.BTC/USDT`."""
        return self.topic.decode().split(".", 2)[1]

    @property
    def symbol(self) -> str:
        """Third word of the topic, `BTC/USDT`; empty for kinds that have none."""
        words = self.topic.decode().split(".", 2)
        return words[2] if len(words) == 3 else ""

    @property
    def flag_names(self) -> list[str]:
        return [name for bit, name in FLAG_NAMES.items() if self.flags & bit]

    @property
    def is_live(self) -> bool:
        """Neither STALE nor DOWN: the values are not merely the last known ones."""
        return not self.flags & NOT_LIVE

    @property
    def is_stale(self) -> bool:
        return bool(self.flags & STALE)

    @property
    def is_down(self) -> bool:
        return bool(self.flags & DOWN)

    @property
    def is_snapshot(self) -> bool:
        """The last value again, because somebody subscribed; not a new event."""
        return bool(self.flags & SNAPSHOT)

    @property
    def is_simulated(self) -> bool:
        return bool(self.flags & SIMULATED)

    @property
    def latency_ns(self) -> int:
        """Our own latency: from the frame's receipt until it was published."""
        return self.publish_ns - self.recv_ns


class Ticker(Record):
    """Last price, best bid and offer, and 24 h statistics of one instrument.

    Prices in quote currency, sizes and base_volume_24h in base currency; NaN is not known (yet).
    exchange_sequence is the newest update id that the exchange gave for this instrument, 0 if it gives none.
    """

    exchange_sequence: int = 0
    last: float = NAN
    bid: float = NAN
    bid_size: float = NAN
    ask: float = NAN
    ask_size: float = NAN
    open_24h: float = NAN
    high_24h: float = NAN
    low_24h: float = NAN
    base_volume_24h: float = NAN
    quote_volume_24h: float = NAN


class Document(Record):
    """A message with a JSON body: status, instruments, heartbeat or notice."""

    body: bytes = b""

    def decode(self) -> Any:
        """Return the body as Python objects. Raises DecodeError if it is not JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise DecodeError(f"{self.topic.decode()}: body is not JSON: {exc}") from exc


TICKER_VALUES: Final = Ticker.__struct_fields__[-10:]  # the ten numbers, in wire order
assert TICKER_VALUES[0] == "last"
assert TICKER_VALUES[-1] == "quote_volume_24h"


def topic(kind: int, exchange: str, symbol: str = "") -> bytes:
    """Return the topic, unpadded. Raises ValueError if it does not fit, rather than cutting it."""
    words = [KIND_NAMES[kind], exchange, symbol] if symbol else [KIND_NAMES[kind], exchange]
    encoded = ".".join(words).encode()
    if len(encoded) > TOPIC_BYTES_MAX:
        raise ValueError(
            f"topic {'.'.join(words)!r} has {len(encoded)} bytes, {TOPIC_BYTES_MAX} fit the wire format"
        )
    if b"\0" in encoded:
        raise ValueError(f"topic {'.'.join(words)!r} contains NUL")
    return encoded


def padded(topic: bytes) -> bytes:
    """Return a topic as it stands in a record."""
    return topic.ljust(TOPIC_SIZE, b"\0")


def session_of(message: bytes | bytearray | memoryview) -> int:
    """Return the session in a message."""
    (session,) = SESSION.unpack_from(message, SESSION_OFFSET)
    return int(session)


def sequence_of(message: bytes | bytearray | memoryview) -> int:
    """Return the sequence in a message."""
    (sequence,) = SEQUENCE.unpack_from(message, SEQUENCE_OFFSET)
    return int(sequence)


def pack_ticker(ticker: Ticker) -> bytes:
    """Return the 168 bytes of one ticker record."""
    # hot: once per frame in a feed.
    return TICKER_RECORD.pack(
        ticker.topic,
        VERSION,
        TICKER,
        ticker.flags,
        ticker.session,
        ticker.sequence,
        ticker.exchange_ns,
        ticker.recv_ns,
        ticker.publish_ns,
        ticker.exchange_sequence,
        ticker.last,
        ticker.bid,
        ticker.bid_size,
        ticker.ask,
        ticker.ask_size,
        ticker.open_24h,
        ticker.high_24h,
        ticker.low_24h,
        ticker.base_volume_24h,
        ticker.quote_volume_24h,
    )


def pack_document(document: Document) -> bytes:
    """Return header and JSON body of any message that is no ticker."""
    return (
        HEADER.pack(
            document.topic,
            VERSION,
            document.kind,
            document.flags,
            document.session,
            document.sequence,
            document.exchange_ns,
            document.recv_ns,
            document.publish_ns,
        )
        + document.body
    )


def is_batch(message: bytes | memoryview) -> bool:
    """True for more than one ticker record back to back, as batch endpoints send them."""
    size = len(message)
    return size > TICKER_SIZE and size % TICKER_SIZE == 0 and message[KIND_OFFSET] == TICKER


def unpack(message: bytes | memoryview) -> Ticker | Document:
    """Return the record in one message of the subscriber endpoint.

    Raises DecodeError for a length, version or kind that this version does not know, and for a topic without NUL.
    """
    size = len(message)
    if size < HEADER_SIZE:
        raise DecodeError(f"message of {size} bytes is shorter than the {HEADER_SIZE}-byte header")
    version, kind = message[KIND_OFFSET - 1], message[KIND_OFFSET]
    if version != VERSION:
        raise DecodeError(f"wire version {version}, this is a reader of version {VERSION}")
    if kind == TICKER:
        if size != TICKER_SIZE:
            raise DecodeError(f"ticker message of {size} bytes, expected {TICKER_SIZE}")
        if message[TOPIC_BYTES_MAX]:
            raise DecodeError(NO_NUL)
        # hot: `make bench-micro`, client. Positional, and the topic stripped afterwards: half the time.
        ticker = Ticker(*TICKER_RECORD.unpack(message))
        ticker.topic = ticker.topic.rstrip(b"\0")
        return ticker
    if kind not in KIND_NAMES:
        raise DecodeError(f"kind {kind} is reserved")
    if message[TOPIC_BYTES_MAX]:
        raise DecodeError(NO_NUL)
    name, *fields = HEADER.unpack_from(message)
    document = Document(name.rstrip(b"\0"), *fields)
    document.body = bytes(message[HEADER_SIZE:])
    return document
