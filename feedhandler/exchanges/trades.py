"""Trades: which are new, whichever connection brings them, and the state that publishes each once.

    line A ──7──8──9─────────13──14─▶     all new
    line B ─────7──8──9──10──11──12──13─▶     7, 8, 9: duplicates; 10, 11, 12: new; 13: duplicate

A trade is known by its id. So it does not matter which connection is ahead, which of them was away, and what a
channel repeats on subscription. A bounded window of recent ids is kept for each symbol, also while nothing is
connected. Pure: ids and times come in. Compiled where there is a compiler, with the types of `trades.pxd`.
"""

import struct
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Final

import msgspec

from feedhandler.data import wire
from feedhandler.data.layout import Description
from feedhandler.data.liquidation import LIQUIDATION
from feedhandler.data.trade import ID_SIZE, TRADE, Side
from feedhandler.data.units import NS_PER_MS, NS_PER_S
from feedhandler.exchanges.arbitration import LINES_MAX, Line
from feedhandler.exchanges.state import RecordState

# Ids are kept in two generations: the older one is forgotten when the younger one is full, or is no longer recent
# and has a few. So the newest KEPT_MIN are known, and those of the last minute up to KEPT_MAX. They take some 100
# bytes each: 1.6 MB for a symbol with 140 trades a second or more, 100 KB for one with a few, 6 MB at the most.
KEPT_MIN: Final = 512
KEPT_MAX: Final = 8192
MOMENT_MAX: Final = 4 * KEPT_MAX  # of one moment, which is kept together
KEPT_NS: Final = 60 * NS_PER_S
assert KEPT_MIN < KEPT_MAX

SILENT_NS: Final = 10 * NS_PER_S  # nothing was new for so long: what is not known is new, whatever its time
REPEATS_NS: Final = 5 * NS_PER_S  # but on a line that has begun since: it may repeat what was made before

MISSING_MAX: Final = 64  # ranges of numbers that are noted as missing
HELD_MAX: Final = 20_000  # trades of one symbol that wait for older ones: 6 MB

MS_BITS: Final = 42  # of a time in milliseconds: until 2109
INDEX_MAX: Final = 2**16 - 1

_PACKED: Final = struct.Struct(f"<{wire.HEADER_SIZE}x{TRADE.layout.codes}")
assert _PACKED.size == TRADE.size == LIQUIDATION.size


def numbered(number: int, time_ns: int) -> int:
    """Return what a trade is known by that has a number: with its time, for an exchange may count anew.

    In milliseconds: connections and REST may state it in different units.
    """
    return number << MS_BITS | (time_ns // NS_PER_MS & (1 << MS_BITS) - 1)


class TradeArbitration:
    """The connections of one symbol's trades: each trade is new once. It stands where `Arbitration` does.

    Of a trade that is not known and not newer than all that was forgotten its number says whether it is new: it is
    beyond all that were met, or known to be missing. Without a number it is new if the line that brings it has
    brought what is newer, for a connection brings trades in their order, so the exchange's clock was set back. What
    else is not known is late.

    is_consecutive: numbers follow each other, so `missing` has those that did not come, each range as its first and
    last one. It has so many ranges at most: given_up counts what was taken out for that, or since the exchange
    counts anew, until somebody takes note.
    """

    def __init__(self, *, is_consecutive: bool = False) -> None:
        self._is_consecutive = is_consecutive
        self.missing: list[tuple[int, int]] = []
        self.given_up = 0
        self.is_parted = False  # nobody wants it, or nothing has come since somebody does again,
        self.parts = 0  # how often that was
        self._returned_ns = self._returned_at = 0  # when what came first since then was made, and came,
        self._returned_number = 0  # and its number
        self.updates = self.update_id = 0  # the second grows with each new trade
        self._recent: dict[Hashable, int] = {}  # when a trade was new, and the line that brought it
        self._before: dict[Hashable, int] = {}  # the generation before
        self._recent_since_ns = 0
        self._recent_ns = self._before_ns = 0  # the newest times of both,
        self._forgotten_ns = 0  # and of what was forgotten
        self.number = 0  # the highest that was met
        self.first_ns = 0  # when the newest trade came
        self._heard_ns = [0] * LINES_MAX
        self._first_heard_ns = [0] * LINES_MAX
        self._reached_ns = [0] * LINES_MAX  # the newest time on each line,
        self._earlier_ns = [0] * LINES_MAX  # and what it was before the line's newest message,
        self._began_ns = [0] * LINES_MAX  # and the newest that was known when it was subscribed to
        self._holds = [False] * LINES_MAX

    def reset(self) -> None:
        """All connections are gone; what is known stays known."""
        self.updates = 0
        for line in range(LINES_MAX):
            self.renew(line)

    def part(self) -> None:
        """Nobody wants it any more: what is made from now on is not missing, and what was made before is late."""
        self.missing, self.given_up, self.is_parted = [], 0, True
        self.parts += 1
        self._began_ns = [0] * LINES_MAX
        self._forgotten_ns = max(self._forgotten_ns, self._newest_ns())

    def renew(self, line: int) -> None:
        """Another connection has this line from now on, and has sent nothing yet."""
        self._heard_ns[line] = self._reached_ns[line] = self._earlier_ns[line] = self._began_ns[line] = 0
        self._first_heard_ns[line] = 0
        self._holds[line] = False

    def begin(self, line: int) -> None:
        """A line was subscribed to: what it does not bring from now on is newer than all that is known."""
        self._began_ns[line] = 0 if self.is_parted else self._newest_ns()

    def inherit(self, line: int) -> None:
        """The channel is silent on this line, and was silent elsewhere since it began."""
        self._holds[line] = True

    def release(self, line: int) -> None:
        """A line is gone: what it has brought is known all the same."""

    def accept(
        self, line: Line, key: Hashable, time_ns: int, recv_ns: int, number: int = 0, count: int = 1
    ) -> bool:
        """Note a trade; False if it is a duplicate, or late.

        key is what it is known by. time_ns is when it was made, 0 if that is not stated; a number grows. count: how
        many trades it stands for, whose numbers end with its own.
        """
        own = line.index
        line.frames += 1
        self.updates += 1
        if recv_ns != self._heard_ns[own]:  # another message
            self._earlier_ns[own] = self._reached_ns[own]
            self._first_heard_ns[own] = self._first_heard_ns[own] or recv_ns
        self._heard_ns[own] = recv_ns
        since_ns = self._recent.get(key) or self._before.get(key) or 0
        if since_ns:
            line.duplicate += 1
            if since_ns % LINES_MAX != own and since_ns > LINES_MAX:
                line.behind_ns += max(0, recv_ns - since_ns)  # to a few ns
            self._reached_ns[own] = max(self._reached_ns[own], time_ns)
            return False
        if 0 < time_ns <= self._forgotten_ns and number <= self.number:
            if not self._is_new(own, number, recv_ns):
                line.late += 1
                return False
            self._forgotten_ns = self._forgotten_ns if number else time_ns - 1
        elif self._is_unwanted(own, time_ns, recv_ns, number):
            line.late += 1
            return False
        self._note(key, own, time_ns, recv_ns, number, count)
        self._reached_ns[own] = max(self._reached_ns[own], time_ns)
        line.first += 1
        return True

    def _is_new(self, own: int, number: int, recv_ns: int) -> bool:
        """Decide about a trade that may have been forgotten, whose number is no new one."""
        if number:
            return self._is_missing(number)
        if self._reached_ns[own] > self._forgotten_ns:
            return True
        is_settled = recv_ns - self._first_heard_ns[own] >= REPEATS_NS
        return is_settled and recv_ns - self.first_ns >= SILENT_NS

    def _is_unwanted(self, own: int, time_ns: int, recv_ns: int, number: int) -> bool:
        """True if a line repeats what was made while nobody wanted it, after what it brought since."""
        if 0 < number < self._returned_number:  # times may be no more than our clock's
            is_before = self._reached_ns[own] >= self._returned_ns
        else:
            is_before = 0 < time_ns < min(self._returned_ns, self._reached_ns[own])
        return is_before and recv_ns - self._returned_at < SILENT_NS

    def _is_missing(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self.missing)

    def add(self, key: Hashable, time_ns: int, recv_ns: int, number: int = 0) -> bool:
        """Note a trade that no line brought; False if it is known."""
        if key in self._recent or key in self._before:
            self._fill(number, number)
            return False
        if self._is_consecutive and 0 < number <= self.number and not self._is_missing(number):
            return False  # it came, and was forgotten since
        self._note(key, 0, time_ns, recv_ns, number)
        self._recent[key] = 1  # no line brought it
        return True

    def came_ns(self, key: Hashable) -> int:
        """Return when a line brought a trade, to a few ns; 0 if none did, or it is not known."""
        since = self._recent.get(key) or self._before.get(key) or 0
        return since if since > LINES_MAX else 0

    @property
    def newest_ns(self) -> int:
        """When the newest trades were made."""
        return self._newest_ns()

    def _newest_ns(self) -> int:
        return max(self._recent_ns, self._before_ns)

    @property
    def missing_count(self) -> int:
        return _count_of(self.missing)

    def _keep_missing(self, ranges: list[tuple[int, int]]) -> None:
        """Note what is missing, the newest ranges at most."""
        self.given_up += _count_of(ranges[:-MISSING_MAX])
        self.missing = ranges[-MISSING_MAX:]

    def _count(self, first_number: int, number: int, time_ns: int) -> None:
        """Note which numbers are missing, now that these have come."""
        newest = self.number
        if self.is_parted:
            self.number = max(newest, number)
            return
        if 0 < newest < first_number - 1:
            self._keep_missing([*self.missing, (newest + 1, first_number - 1)])
        elif number <= newest // 2 and time_ns > self._newest_ns():  # the exchange counts anew
            self.given_up += self.missing_count
            self.missing, self.number = [], number
            return
        self._fill(first_number, number)
        self.number = max(newest, number)

    def _fill(self, first_number: int, number: int) -> None:
        """Note that the numbers from the first to the last are not missing."""
        if not self.missing:
            return
        left = []
        for first, last in self.missing:
            if first <= number and first_number <= last:
                left += [(first, first_number - 1)] if first < first_number else []
                left += [(number + 1, last)] if number < last else []
            else:
                left.append((first, last))
        self._keep_missing(left)

    def _note(self, key: Hashable, own: int, time_ns: int, recv_ns: int, number: int, count: int = 1) -> None:
        first_number = number - count + 1
        if self._is_consecutive and (first_number != self.number + 1 or self.is_parted):
            self._count(first_number, number, time_ns)
        else:
            self.number = max(self.number, number)
        if self.is_parted:
            self.is_parted, self._returned_ns, self._returned_at = False, time_ns, recv_ns
            self._returned_number = number
        # Not within one moment: what was made at the time of something forgotten could not be told from it.
        kept = len(self._recent)
        is_old = kept >= KEPT_MIN and recv_ns - self._recent_since_ns >= KEPT_NS
        is_later = time_ns > self._recent_ns or kept >= MOMENT_MAX
        if (kept >= KEPT_MAX or is_old) and is_later:
            self._forgotten_ns = max(self._forgotten_ns, self._before_ns)
            self._before, self._before_ns = self._recent, self._recent_ns
            self._recent, self._recent_ns = {}, 0
        if not self._recent:
            self._recent_since_ns = recv_ns
        self._recent[key] = recv_ns - recv_ns % LINES_MAX + own
        self._recent_ns = max(self._recent_ns, time_ns)
        self.first_ns = recv_ns
        self.update_id += 1

    # --- what is asked about it

    @property
    def kept(self) -> int:
        """How many trades are known."""
        return len(self._recent) + len(self._before)

    def is_kept(self, line: int) -> bool:
        """True if nothing is missed on a line: the channel has sent on it, or nothing else since."""
        return self._heard_ns[line] != 0 or self._holds[line]

    def heard_ns(self, line: int) -> int:
        """Return when the channel last sent on a line, 0 if it has not."""
        return self._heard_ns[line]

    def reached_ns(self, line: int) -> int:
        """Return when the newest trade on a line was made, 0 if none has come."""
        return self._reached_ns[line]

    def earlier_ns(self, line: int) -> int:
        """Return what `reached_ns` was before the newest message on a line."""
        return self._earlier_ns[line]

    def began_ns(self, line: int) -> int:
        """Return when the newest trade that was known at the line's subscription was made, 0 if none was wanted."""
        return self._began_ns[line]


def _count_of(ranges: list[tuple[int, int]]) -> int:
    return sum(last - first + 1 for first, last in ranges)


class PastTrade(msgspec.Struct, frozen=True):
    """A trade as REST states it. key, number and count are as those of the same trade on a connection."""

    key: Hashable
    number: int
    exchange_ns: int
    sequence: int
    trade: tuple[str, float, float, Side]
    bits: int = 0
    count: int = 1  # merged by the exchange


class TradeState(RecordState):
    """The trades of one symbol, or its liquidations: they have the same bytes, and each counts once.

    While older ones are being fetched, new ones are held. is_followed: it has been subscribed to since it is
    wanted, so what has been missed since then should not be. begins_with_last: a subscription brings the last trade
    that was made before it, so the first one that comes is not new; others are counted from there.
    """

    def __init__(
        self,
        kind: Description = TRADE,
        *,
        topic: str,
        native: str,
        base_flags: int = 0,
        flags: int = 0,
        is_consecutive: bool = False,
        begins_with_last: bool = False,
    ) -> None:
        self.trades = TradeArbitration(is_consecutive=is_consecutive)
        self.is_followed = False
        self._begins_with_last = begins_with_last
        self._begun = -1  # of how many times that it was wanted no more, when a message came last
        self._held: list[_Held] | None = None
        RecordState.__init__(
            self, kind, (self.trades,), topic=topic, native=native, base_flags=base_flags, flags=flags
        )

    def accept_trade(
        self, line: Line, key: Hashable, time_ns: int, recv_ns: int, number: int = 0, count: int = 1
    ) -> bool:
        """Note a trade; False if it was published already, or cannot be told from what was.

        What is as `TradeArbitration.accept` has it.
        """
        if line.group != self.group:
            return False  # what was under way when the symbol left that group
        # It cannot be; but what follows closely on the trades before it tells that our own clock was set back. Nor
        # does one that cannot be come before them, if it is our clock that is wrong: then none would ever be new.
        newest_ns = self.trades._newest_ns()
        if time_ns > max(recv_ns, newest_ns) + self.ahead_ns_max:
            time_ns = max(newest_ns + 1, recv_ns + self.offset_ns)
        trades = self.trades
        is_first, self._begun = self._begins_with_last and self._begun != trades.parts, trades.parts
        return trades.accept(line, key, time_ns, recv_ns, number, count) and not is_first

    def publish(
        self,
        trade: tuple[str, float, float, Side],
        exchange_ns: int,
        recv_ns: int,
        emit: Callable[["TradeState"], None],
        *,
        sequence: int = 0,
        count: int = 1,
        bits: int = 0,
        index: int = 0,
        flags: int = 0,
    ) -> None:
        """Emit a trade that is new, id, price, size and side; or keep it for later, if new ones are held."""
        trade_id, price, size, side = trade
        index = min(index, INDEX_MAX)
        packed = _PACKED.pack(sequence, price, size, count, side, bits, index, trade_id.encode())
        held = self._held
        if held is None or flags & wire.RECOVERED:
            self._emit((packed, flags, exchange_ns, recv_ns), emit)
            return
        held.append((packed, flags, exchange_ns, recv_ns))
        if len(held) >= HELD_MAX:
            self.release_held(emit)

    def _emit(self, held: "_Held", emit: Callable[["TradeState"], None]) -> None:
        packed, flags, self.exchange_ns, recv_ns = held
        self.put_packed(packed, flags)
        self.on_news(recv_ns)
        emit(self)

    def hold(self) -> None:
        """Hold new trades from now on."""
        self._held = [] if self._held is None else self._held

    @property
    def held_count(self) -> int:
        return len(self._held or ())

    def release_held(self, emit: Callable[["TradeState"], None]) -> None:
        """Emit what was held, and hold no more."""
        held, self._held = self._held or [], None
        for each in held:
            self._emit(each, emit)


_Held = tuple[bytes, int, int, int]  # a record without its header, flags, exchange_ns, recv_ns


def told_apart(stated: Iterable[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Return keys of rows without ids: all that each states, and its place among those alike in the message."""
    met: Counter[tuple[object, ...]] = Counter()
    keys = []
    for each in stated:
        met[each] += 1
        keys.append((*each, met[each]))
    return keys


def is_id(text: str) -> bool:
    """True if a record has room for an id."""
    return 0 < len(text.encode()) <= ID_SIZE
