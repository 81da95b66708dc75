"""What there is of the symbols that browsers look at, besides tickers: what each reader is due, without a queue.

Of depth and contracts that is the newest record. Of trades and liquidations it is what came since, as far as it is
kept; the others are counted. What nobody looks at costs one look-up a record. Pure.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from feedhandler.data import wire
from feedhandler.data.contract import CONTRACT
from feedhandler.data.depth import DEPTH
from feedhandler.data.liquidation import LIQUIDATION
from feedhandler.data.trade import TRADE
from feedhandler.gateway.rows import TopicRow, TradeRow, contract_row, depth_row, topic_row, trade_row

TRADES_KEPT: Final = 100  # of a symbol: some 20 kB of JSON for who was away
TOPICS_MAX: Final = 20  # of a kind that one reader looks at
OF_A_TOPIC: Final = wire.NOT_LIVE | wire.SIMULATED | wire.REPLAY  # flags; the others are a single trade's

Seen = tuple[int, int]  # how much of a view a reader has: updates, and changes of its condition
Encode = Callable[[str, msgspec.Struct], bytes]


class Due(NamedTuple):
    """What a reader gets; passed_over: how many trades or liquidations it does not get."""

    text: bytes
    passed_over: int = 0


NOTHING: Final = Due(b"")


class View(Protocol):
    """One topic that somebody looks at."""

    def now(self) -> Seen: ...

    def joining(self) -> Seen:
        """Return what a reader who comes now is taken to have seen."""
        ...

    def take(self, record: wire.Record) -> None: ...

    def row(self, seen: Seen, flags: int) -> tuple[msgspec.Struct | None, int]:
        """Return what is new, None if nothing is yet, and how many records were passed over; flags are added."""
        ...


class LastTrades:
    """The last trades or liquidations of a symbol; the number of each counts those that did not come here, too."""

    def __init__(self, topic: str, newest: wire.Record | None, flags: int, tick: str) -> None:
        self._topic, self._tick = topic, tick
        self._trades: deque[tuple[int, TradeRow]] = deque(maxlen=TRADES_KEPT)
        self._count = self._conditions = 0
        self._flags = flags & OF_A_TOPIC
        self._session, self._sequence = (newest.session, newest.sequence) if newest is not None else (0, 0)
        if isinstance(newest, wire.Liquidation):
            self._count = 1
            self._trades.append((1, trade_row(newest)))

    def now(self) -> Seen:
        return self._count, self._conditions

    def joining(self) -> Seen:
        """Of trades what comes, of liquidations, which are rare, the last ones, too; the condition at once."""
        is_rare = self._topic.startswith(f"{LIQUIDATION.name}.")
        return self._trades[0][0] - 1 if is_rare and self._trades else self._count, -1

    def take(self, record: wire.Record) -> None:
        # hot: once a trade of what is looked at
        flags = record.flags & OF_A_TOPIC
        if flags != self._flags:
            self._flags = flags
            self._conditions += 1
        if not isinstance(record, wire.Trade | wire.Liquidation):
            return
        missing = record.sequence - self._sequence - 1 if record.session == self._session else 0
        self._session, self._sequence = record.session, record.sequence
        self._count += 1 + max(0, missing)
        self._trades.append((self._count, trade_row(record)))

    def row(self, seen: Seen, flags: int) -> tuple[TopicRow, int]:
        trades = [row for number, row in self._trades if number > seen[0]]
        passed_over = self._count - seen[0] - len(trades)
        row = topic_row(self._topic, self._flags | flags, self._tick, trades, passed_over)
        return row, passed_over


class NewestRecord:
    """The newest record of a symbol, of a kind of which it is enough; make_row is given it, flags and the tick."""

    def __init__(
        self,
        form: type[wire.Record],
        make_row: Callable[[Any, int, str], msgspec.Struct],
        topic: str,
        newest: wire.Record | None,
        flags: int,
        tick: str,
    ) -> None:
        self._form, self._make_row, self._tick = form, make_row, tick
        self._newest = newest if isinstance(newest, form) else None
        self._count = int(self._newest is not None)

    def now(self) -> Seen:
        return self._count, 0

    def joining(self) -> Seen:
        return 0, 0

    def take(self, record: wire.Record) -> None:
        if isinstance(record, self._form):
            self._newest = record
            self._count += 1

    def row(self, seen: Seen, flags: int) -> tuple[msgspec.Struct | None, int]:
        return self._make_row(self._newest, flags, self._tick) if self._newest is not None else None, 0


# Kinds that a reader names symbols of; what its updates are called, and what keeps them.
VIEWS: Final[dict[str, tuple[str, Callable[[str, wire.Record | None, int, str], View]]]] = {
    TRADE.name: ("trade_update", LastTrades),
    DEPTH.name: ("depth_update", partial(NewestRecord, wire.Depth, depth_row)),
    CONTRACT.name: ("contract_update", partial(NewestRecord, wire.Contract, contract_row)),
    LIQUIDATION.name: ("liquidation_update", LastTrades),
}


class Reading:
    """How far a reader is with a topic, and with the flags that are added to all."""

    __slots__ = ("changes", "seen", "topic")

    def __init__(self, topic: str, seen: Seen, changes: int) -> None:
        self.topic = topic
        self.seen = seen
        self.changes = changes


class _Shown:
    """A view, how many look at it, and its present updates by what their readers have seen."""

    def __init__(self, name: str, view: View) -> None:
        self.name, self.view = name, view
        self.readers = 0
        self.made_of: tuple[Seen, int] | None = None
        self.updates: dict[Seen, Due] = {}


class WatchedTopics:
    """The topics that somebody looks at. encode makes a message of its type and data."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._shown: dict[str, _Shown] = {}
        self._flags = self._changes = 0  # that are added to all, and how often they changed

    def __len__(self) -> int:
        return len(self._shown)

    def take(self, record: wire.Record) -> None:
        """Take a record of one of these kinds, or a condition."""
        # hot: once a record of the stream that is no ticker
        shown = self._shown.get(record.topic)
        if shown is not None:
            shown.view.take(record)

    def set_flags(self, flags: int) -> None:
        """Add these flags to all from now on; every reader gets them."""
        if flags != self._flags:
            self._flags = flags
            self._changes += 1

    def open(self, topic: str, newest: wire.Record | None, flags: int, tick: str) -> Reading:
        """Begin to look at a topic; its newest record and its flags are of before."""
        shown = self._shown.get(topic)
        if shown is None:
            name, make = VIEWS[topic.partition(".")[0]]
            shown = self._shown[topic] = _Shown(name, make(topic, newest, flags, tick))
        shown.readers += 1
        return Reading(topic, shown.view.joining(), self._changes)

    def close(self, reading: Reading) -> None:
        """Look at it no more."""
        shown = self._shown[reading.topic]
        shown.readers -= 1
        if not shown.readers:
            del self._shown[reading.topic]

    def update(self, reading: Reading) -> Due:
        """Return what a reader is due, and take it that it gets that; readers that are alike share the bytes."""
        shown = self._shown[reading.topic]
        now, seen = shown.view.now(), reading.seen
        if (now, self._changes) == (seen, reading.changes):
            return NOTHING
        if shown.made_of != (now, self._changes):
            shown.made_of = now, self._changes
            shown.updates.clear()
        if seen not in shown.updates:
            row, passed_over = shown.view.row(seen, self._flags)
            made = Due(self._encode(shown.name, row), passed_over) if row is not None else NOTHING
            shown.updates[seen] = made
        reading.seen, reading.changes = now, self._changes
        return shown.updates[seen]
