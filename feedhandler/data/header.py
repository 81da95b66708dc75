"""The header that each record begins with, and its flags."""

import enum
from typing import Annotated, Final, Self

import msgspec

from feedhandler.data.layout import Layout, char, i64, layout, u8, u16, u32, u64

VERSION: Final = 2
TOPIC_SIZE: Final = 64
TOPIC_BYTES_MAX: Final = TOPIC_SIZE - 1  # at least one NUL, so that `topic + NUL` is an exact subscription


class Flag(enum.IntFlag):
    """The bits of the flags. What is read from records is of this type, and prints as words.

    `&` is that of an int, so a bit is looked up in some 30 ns; enum's own takes half a microsecond.
    """

    meaning: str

    def __new__(cls, bit: int, meaning: str = "") -> Self:
        self = int.__new__(cls, bit)
        self._value_ = bit
        self.meaning = meaning
        return self

    SNAPSHOT = (
        1,
        "the last value again, because somebody subscribed; not a new event, and no number of its own",
    )
    STALE = (
        2,
        "the connection lives, but its data have stopped: all of them, or one channel of this symbol that "
        "has updates otherwise (which one, and why it is taken to be dead: `feed.stale_topics` of the status). "
        "Values of other channels may be fresh",
    )
    DOWN = (
        4,
        "the exchange is not connected, its feed process is gone, or the symbol is not subscribed to any "
        "more: the values are the last known ones",
    )
    SIMULATED = (
        8,
        "not a real exchange",
    )
    BAD_EXCHANGE_TIME = (
        16,
        "the exchange's time cannot be right: it is later than the exchange's own clock, by "
        "more than 1 s and what that is uncertain (`feed.clock_uncertainty_ms`); as long as that clock is not "
        "known, more than 60 s in our future",
    )
    LAST = (
        32,
        "the last record of one message of the exchange, for kinds of which a message has several; not set on "
        "tickers",
    )
    RECOVERED = (
        64,
        "fetched later, not received live",
    )
    INVALID = (
        128,
        "a book, or depth, that must not be used until its next snapshot",
    )
    REPLAY = (
        256,
        "from a recording",
    )

    __and__ = int.__and__  # type: ignore[assignment]
    __rand__ = int.__rand__  # type: ignore[assignment]

    def __str__(self) -> str:
        return "|".join(flag.name for flag in Flag if int(self) & int(flag) and flag.name)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


class _Flags(dict[int, Flag]):
    """The flags of each number that was met."""

    def __missing__(self, bits: int) -> Flag:
        flags = self[bits] = Flag(bits)
        return flags


FLAGS_OF: Final = _Flags()  # 16 bits, so at most 65,536
SNAPSHOT: Final = 1
STALE: Final = 2
DOWN: Final = 4
SIMULATED: Final = 8
BAD_EXCHANGE_TIME: Final = 16
LAST: Final = 32
RECOVERED: Final = 64
INVALID: Final = 128
REPLAY: Final = 256
assert all(globals()[str(flag.name)] == flag == 1 << index for index, flag in enumerate(Flag))
FLAG_NAMES: Final = {flag.value: str(flag.name) for flag in Flag}

ORIGIN: Final = SIMULATED | REPLAY  # where data come from: each message about them tells
NOT_LIVE: Final = STALE | DOWN | INVALID  # with any of these, the values are the last known ones


class Record(msgspec.Struct):
    """The header, which every message has.

    kind and flags are a `Kind` and a `Flag` where they were received; times are Unix nanoseconds. Every field is in
    `docs/wire.md`.
    """

    topic: Annotated[
        str, char(TOPIC_SIZE, "UTF-8, padded with NUL, at least one NUL: `ticker.binance.BTC/USDT`")
    ]
    version: Annotated[int, u8("", f"{VERSION}. Refuse any other")] = VERSION
    kind: Annotated[int, u8("", "how to read the body: the kinds. Ignore one that you do not know")] = 0
    flags: Annotated[int, u16("", "a bit set: the flags")] = 0
    session: Annotated[int, u32("Unix s", "when the merger started. A new value restarts all sequences")] = 0
    sequence: Annotated[int, u64("", "per topic and session, from 1, without gaps: a gap is loss")] = 0
    exchange_ns: Annotated[
        int, i64("Unix ns", "event time as the exchange states it; 0 = it states none")
    ] = 0
    recv_ns: Annotated[int, i64("Unix ns", "the feed took the frame from the socket")] = 0
    publish_ns: Annotated[int, i64("Unix ns", "just before the merger sent")] = 0

    @property
    def exchange(self) -> str:
        """Second word of the topic: `binance` of `ticker.binance.BTC/USDT`."""
        return self.topic.split(".", 2)[1]

    @property
    def symbol(self) -> str:
        """Third word of the topic, `BTC/USDT`; empty for kinds that have none."""
        words = self.topic.split(".", 2)
        return words[2] if len(words) == 3 else ""

    @property
    def flag_names(self) -> list[str]:
        return [name for bit, name in FLAG_NAMES.items() if self.flags & bit]

    @property
    def is_live(self) -> bool:
        """Neither STALE, DOWN nor INVALID: the values are not merely the last known ones."""
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
    def is_replay(self) -> bool:
        return bool(self.flags & REPLAY)

    @property
    def is_simulated(self) -> bool:
        return bool(self.flags & SIMULATED)

    @property
    def latency_ns(self) -> int:
        """Our own latency: from the frame's receipt until it was published."""
        return self.publish_ns - self.recv_ns


HEADER: Final[Layout] = layout("header", "what every message begins with", Record)
assert HEADER.size == 104
