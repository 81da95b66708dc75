"""A book as its exchange's messages make it: a base, then changes whose update ids have to follow each other.

    base, id 100 ── changes 101 to 104 ── changes 105 to 105 ── changes 107 to 109
                            next                   next                gap: it is not known any more

From a gap on nothing is known until there is another base: a book that lacks a change looks sound and is wrong.
Pure: messages and times come in; who fetches a base, or subscribes anew, is the caller's business. Compiled where
there is a compiler, with the types of `books.pxd`.
"""

import enum
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from feedhandler.data import book, wire
from feedhandler.data.depth import BookLevel
from feedhandler.data.levels import Levels, pack_levels, pairs_of
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.arbitration import LINES_MAX
from feedhandler.exchanges.depth_state import DepthState

CROSSED_NS: Final = NS_PER_S  # a bid at or above an ask for so long: the book is wrong
ASK_AGAIN_NS: Final = 10 * NS_PER_S  # a base that was asked for, and has not come
OLD_NS: Final = 10 * NS_PER_S  # nothing but what is in the book for so long: the exchange counts anew


class Succession(enum.Enum):
    """How a message's ids follow those of a book."""

    OLD = "old"  # all that it has is in the book
    NEXT = "next"
    GAP = "gap"  # changes before it are missing, or there is no base


# For what looks at each message: before Python 3.12 `Succession.OLD` takes as long as seven names.
OLD, NEXT, GAP = Succession


class ChainRule(msgspec.Struct, frozen=True):
    """What the ids of an exchange's messages say.

    A message has changes from a first to a last id; where there is but one it is both. restart_id: the id of a
    message that replaces the book, whatever its type says; 0 if there is none. has_level_ids: each level comes with
    the id that changed it, and a price of 0 stands for a change that is not of this book. is_linked: each message
    names the one that it follows, and its first id is the next after that one's; what has no changes repeats the id
    of the book, and what ends before it begins goes on with lower ids.
    """

    restart_id: int = 0
    has_level_ids: bool = False
    is_linked: bool = False


class Base(msgspec.Struct, frozen=True):
    """What a book begins with: its levels after a change. limit: how many a side it can have, 0 = all."""

    last_id: int
    bids: Sequence[BookLevel]
    asks: Sequence[BookLevel]
    limit: int = 0
    exchange_ns: int = 0


class LineBook:
    """The levels of one book. levels_max: how many a side the exchange keeps current, 0 = all.

    last_id is the newest change's, is_known false until there is a base, and from a gap on. A base that has but a
    part of the book leaves what lies beyond it unknown, until it changes: known_from and known_to are the lowest
    price from which all bids are known, and the highest to which all asks are. Where the exchange keeps but the
    best levels current, they move with the worst of those. Times are those of the message that came last.
    """

    def __init__(self, rule: ChainRule, levels_max: int = 0) -> None:
        self._rule = rule
        self._has_level_ids, self._is_linked = rule.has_level_ids, rule.is_linked
        self._levels_max = levels_max
        self.bids, self.asks = Levels(True), Levels(False)
        self.is_known = False
        self.last_id = 0
        self.known_from, self.known_to = 0.0, math.inf
        self.exchange_ns = self.recv_ns = 0
        self.order = 0  # of that message among those of all connections, where ids do not tell it
        self.is_joining = False  # no message has followed the base yet, which is not the connection's own
        self._crossed_ns = 0  # since when
        self._old_ns = 0  # since when nothing has come but what is in it

    def forget(self) -> None:
        """Nothing is known any more."""
        self.is_known = False
        self.last_id = self._crossed_ns = self._old_ns = 0
        self.bids.clear()
        self.asks.clear()

    def replace(
        self, last_id: int, bids: Iterable[BookLevel], asks: Iterable[BookLevel], limit: int = 0
    ) -> None:
        """Take a base: the levels as they were after a change. limit: how many a side it can have, if not all."""
        self.bids.replace(bids)
        self.asks.replace(asks)
        self.known_from = self.bids.worst() if 0 < limit <= self.bids.count else 0.0
        self.known_to = self.asks.worst() if 0 < limit <= self.asks.count else math.inf
        self.last_id, self.is_known, self.is_joining = last_id, True, False
        self._old_ns = 0
        self._prune()

    def copy(self, other: "LineBook") -> None:
        """Have the base that another line has come to."""
        self.replace(other.last_id, other.bids, other.asks)
        self.known_from, self.known_to = other.known_from, other.known_to
        self.exchange_ns, self.recv_ns = other.exchange_ns, other.recv_ns
        self.is_joining = True

    def is_restart(self, last_id: int) -> bool:
        """True for a message that is a base, whatever its type says."""
        return last_id == self._rule.restart_id != 0

    def judge(self, first_id: int, last_id: int) -> Succession:
        """Return how a message follows; changes nothing."""
        if not self.is_known:
            return GAP
        if self._is_linked and (first_id == self.last_id + 1 or not self.is_joining):
            if first_id != self.last_id + 1:
                return GAP
            return OLD if last_id == self.last_id else NEXT
        if last_id <= self.last_id:
            return OLD
        return NEXT if first_id <= self.last_id + 1 else GAP

    def apply(self, first_id: int, last_id: int, bids: Sequence[Any], asks: Sequence[Any]) -> Succession:
        """Take a message's changes if it follows; after a gap the book is not known any more.

        Levels are pairs of price and size, or, where they have ids, triples; or as they stand in records.
        """
        found = self.judge(first_id, last_id)
        if found is GAP:
            self.forget()
        elif found is NEXT:
            self.bids.change(self._changes(bids))
            self.asks.change(self._changes(asks))
            self.last_id, self.is_joining = last_id, False
            self._old_ns = 0
            self._prune()
        return found

    def take(
        self, first_id: int, last_id: int, bids: Sequence[Any] | bytes, asks: Sequence[Any] | bytes
    ) -> list[bytes]:
        """Take a message that is known to follow; returns the bodies of the records that say the same."""
        # hot: `make bench-micro`, books
        if not self._levels_max:  # what is known ends where it did
            sides = self.bids.record(self._packed(bids)), self.asks.record(self._packed(asks))
            self.last_id, self.is_joining = last_id, False
            self._old_ns = 0
            return book.bodies(first_id, last_id, *sides)
        known_from, known_to = self.known_from, self.known_to
        changed = {price: size for price, size in self._changes(bids) if price > 0.0}
        other = {price: size for price, size in self._changes(asks) if price > 0.0}
        self.bids.change(changed.items())
        self.asks.change(other.items())
        self.last_id, self.is_joining = last_id, False
        self._old_ns = 0
        _move_window(changed, self.bids, self._levels_max)
        _move_window(other, self.asks, self._levels_max)
        self.known_from = self._edge(self.bids, self.known_from)
        self.known_to = self._edge(self.asks, self.known_to)
        bid_edge = self.known_from if self.known_from != known_from else 0.0
        ask_edge = self.known_to if self.known_to != known_to else 0.0
        return book.bodies(
            first_id, last_id, _packed(changed, self.bids, bid_edge), _packed(other, self.asks, ask_edge)
        )

    def _edge(self, side: Levels, known: float) -> float:
        """Return where what is known of a side of a window ends: at its worst, once anything was beyond that."""
        is_open = known in (0.0, math.inf) and side.count < self._levels_max
        return known if is_open or not side.count else side.worst()

    def snapshot(self) -> list[bytes]:
        """Return the bodies of the records that say what it is."""
        bids, asks = self.bids.packed(), self.asks.packed()
        bids = book.edge(self.known_from) + bids if self.known_from > 0.0 else bids
        asks = book.edge(self.known_to) + asks if self.known_to < math.inf else asks
        return book.bodies(self.last_id, self.last_id, bids, asks)

    def stays_old(self, last_id: int, recv_ns: int) -> bool:
        """Look at a message all of which is in the book; True if it is of another count."""
        if self._is_linked and last_id == self.last_id:
            self._old_ns = 0  # it says that nothing has changed
            return False
        self._old_ns = self._old_ns or recv_ns
        return last_id <= self.last_id // 2 or recv_ns - self._old_ns >= OLD_NS

    def _packed(self, levels: Sequence[Any] | bytes) -> bytes:
        """Return what is not in the book yet as it stands in records."""
        return levels if isinstance(levels, bytes) else pack_levels(self._changes(levels))

    def _changes(self, levels: Sequence[Any] | bytes) -> Sequence[BookLevel]:
        """Return what is not in the book yet: a message may begin before the base, or a base within a message."""
        found: Sequence[Any] = pairs_of(levels) if isinstance(levels, bytes) else levels
        if not self._has_level_ids:
            return found
        return [(price, size) for price, size, level_id in found if level_id > self.last_id and price]

    def _prune(self) -> None:
        if self._levels_max:
            self.bids.cut(self._levels_max)
            self.asks.cut(self._levels_max)

    def runs_out(self, count: int) -> bool:
        """True if the best so many of a side may lie where not all is known: it is time for another base."""
        return (self.known_from > 0.0 and self.bids.count_to(self.known_from) < count) or (
            self.known_to < math.inf and self.asks.count_to(self.known_to) < count
        )

    @property
    def is_crossed(self) -> bool:
        """True if the best bid is not below the best ask."""
        return self.bids.best() >= self.asks.best()

    def stays_crossed(self, recv_ns: int) -> bool:
        """Look whether it is crossed, after each message; True once it has been for `CROSSED_NS`."""
        if not self.bids.best() >= self.asks.best():
            self._crossed_ns = 0
            return False
        self._crossed_ns = self._crossed_ns or recv_ns
        return recv_ns - self._crossed_ns >= CROSSED_NS


def _move_window(changed: dict[float, float], side: Levels, count: int) -> None:
    """Take what has left the best so many out of a side, and note it among what has changed."""
    if side.count > count:
        changed.update((price, 0.0) for price, _ in side[count:])
        side.cut(count)


def _packed(changed: dict[float, float], side: Levels, edge: float) -> bytes:
    """Return what has changed as it stands in records; edge: where what is known ends now, if that has moved."""
    if not edge:
        return book.packed_levels(changed.items())
    changed.pop(edge, None)
    return book.edge(edge) + book.packed_levels([(edge, side.size_at(edge)), *changed.items()])


class BookDepthState(DepthState):
    """Depth of an exchange that sends changes: each line has a book of its own, whose best levels are published.

    A line whose book is lost counts as one that has sent nothing: what another has published stands.
    """

    def __init__(self, rule: ChainRule, levels_max: int, **names: Any) -> None:
        self.books = [LineBook(rule, levels_max) for _ in range(LINES_MAX)]
        self._asked_ns = [0] * LINES_MAX
        DepthState.__init__(self, **names)

    def forget(self) -> None:
        """Make every value unknown: no line is left to keep them."""
        DepthState.forget(self)
        for line in range(LINES_MAX):
            self._drop(line)

    def renew(self, line: int) -> None:
        """Another connection has this line from now on, and has sent nothing yet."""
        DepthState.renew(self, line)
        self._drop(line)

    def release(self, line: int) -> None:
        """A line is gone: another may repeat what it sent last."""
        DepthState.release(self, line)
        self._drop(line)

    def _drop(self, line: int) -> None:
        self.books[line].forget()
        self._asked_ns[line] = 0

    def lose(self, line: int, recv_ns: int) -> bool:
        """A line's book is in doubt: it is dropped; True if its topic is to be subscribed to anew.

        Without any other book the state is INVALID until there is one: the caller emits it, if its flags change.
        """
        self.books[line].forget()
        self.channels[0].renew(line)
        if self.is_known and not self.flags & wire.NOT_LIVE and not any(book.is_known for book in self.books):
            self.flags |= wire.INVALID
        is_due = not 0 <= recv_ns - self._asked_ns[line] < ASK_AGAIN_NS
        if is_due:
            self._asked_ns[line] = recv_ns
        return is_due
