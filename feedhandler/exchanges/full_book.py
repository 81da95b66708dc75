"""The book of one symbol as a feed publishes it: that of one line, until another has to take over.

    line A ── base ── changes ── changes ── gap
    line B ──── base ── changes ── changes ─┬─ changes ─▶
    stream ── snapshot ── changes ── changes ─ snapshot of B's ── changes ─▶

Each line keeps a book of its own, for ids of two connections need not be of one count. What is published is valid
or INVALID, never in between: from the first doubt about the book of the line that leads, another line's is
published in full, or else it is INVALID until there is a base. Pure: messages come in; who fetches bases is the
caller's business. Compiled where there is a compiler, with the types of `full_book.pxd`.
"""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from feedhandler.data import wire
from feedhandler.data.book import BOOK
from feedhandler.data.errors import DecodeError
from feedhandler.exchanges.arbitration import LINES_MAX, Arbitration, Line
from feedhandler.exchanges.books import GAP, NEXT, OLD, Base, ChainRule, LineBook
from feedhandler.exchanges.state import RecordState

NOBODY: Final = -1  # leads
BEST: Final = 20  # levels of a side that are always to be known
SOON: Final = 2 * BEST  # with no more than these another base is on its way soon, which may lag behind
KEPT_MAX: Final = 1000  # messages that wait for a base: 100 s of a channel that sends every 100 ms
_NO_HEADER: Final = bytes(wire.HEADER_SIZE)

EmitBook = Callable[["FullBookState"], None]


class Changes:
    """A message of changes.

    Levels are as they stand in records, or pairs of price and size, or triples with the id of the level's change.
    """

    def __init__(
        self,
        first_id: int,
        last_id: int,
        bids: Sequence[Any] | bytes,
        asks: Sequence[Any] | bytes,
        exchange_ns: int = 0,
    ) -> None:
        self.first_id = first_id
        self.last_id = last_id
        self.bids = bids
        self.asks = asks
        self.exchange_ns = exchange_ns


class FullBookState(RecordState):
    """One symbol's book. lines are those that each connection keeps; leader is the line whose book is published.

    keeps: changes are kept for a line that waits for a base, which comes by another way; and for all, while what
    is published runs out of known levels: so what comes of a base follows from messages alone, as a recording has
    them. snapshots counts those that were published.
    """

    def __init__(self, rule: ChainRule, levels_max: int = 0, *, keeps: bool = False, **names: Any) -> None:
        self.lines = [LineBook(rule, levels_max) for _ in range(LINES_MAX)]
        self._kept: list[collections.deque[tuple[Changes, int]]] = [
            collections.deque(maxlen=KEPT_MAX) for _ in range(LINES_MAX)
        ]
        self._keeps = keeps
        self.leader = NOBODY
        self.snapshots = 0
        self._order = Arbitration(is_once=True)
        RecordState.__init__(self, BOOK, (self._order,), **names)
        self.flags |= wire.INVALID

    def _decide(
        self, channel: int, line: Line, update_id: int, recv_ns: int, present_ns: int, is_live: bool
    ) -> bool:
        return self._order.accept(line, update_id, recv_ns, present_ns, is_live)

    # --- lines come and go

    def forget(self) -> None:
        """No line is left: nothing is known until there is a base."""
        RecordState.forget(self)
        self.leader = NOBODY
        for line in range(LINES_MAX):
            self._drop(line)
        self.flags |= wire.INVALID

    def renew(self, line: int) -> None:
        """Another connection has this line from now on, and has sent nothing yet."""
        RecordState.renew(self, line)
        self._drop(line)

    def release(self, line: int) -> None:
        """A line is gone; the caller has another one take over, by `settle`."""
        RecordState.release(self, line)
        self._drop(line)

    def _drop(self, line: int) -> None:
        self.lines[line].forget()
        self._kept[line].clear()
        if self.leader == line:
            self.leader = NOBODY

    def is_known_on(self, line: int) -> bool:
        """True if a line has a book."""
        return self.lines[line].is_known

    # --- what the lines bring

    def take_base(self, line: Line, base: Base, update_id: int, recv_ns: int, emit: EmitBook) -> None:
        """Take a base that came on a line. update_id tells messages of all lines apart, for their counts."""
        if line.group != self.group:
            return
        self.accept(0, line, update_id, recv_ns)
        own = line.index
        self.lines[own].order = update_id
        if self._begin(own, base, recv_ns, emit) and self.leader in (own, NOBODY):
            self._lead(own, emit)

    def _begin(self, own: int, base: Base, recv_ns: int, emit: EmitBook) -> bool:
        """Let a line's book begin anew; False if it cannot."""
        book = self.lines[own]
        try:
            book.replace(base.last_id, base.bids, base.asks, base.limit)
        except DecodeError:
            self.lose(own, emit)
            return False
        book.exchange_ns, book.recv_ns = base.exchange_ns, recv_ns
        return True

    def take(self, line: Line, changes: Changes, update_id: int, recv_ns: int, emit: EmitBook) -> None:
        """Take changes that came on a line, and publish them if it leads."""
        # hot: `make bench-micro`, decode
        if line.group != self.group:
            return
        own = line.index
        if changes.last_id < changes.first_id - 1:
            self._order.renew(own)  # its ids go on lower
        self.accept(0, line, update_id, recv_ns)
        book = self.lines[own]
        if not book.is_known:
            self._keep(own, changes, recv_ns)
            return
        found = book.judge(changes.first_id, changes.last_id)
        if found is OLD and not self._is_of_another_count(book, changes, update_id, recv_ns):
            return
        # Ids of a service that began anew are used again: what follows by its id, and was made before, does not.
        if found is not NEXT or (update_id < book.order and not self._keeps):
            self.lose(own, emit)
            self._keep(own, changes, recv_ns)
            return
        book.order = update_id
        leading = book if self.leader == own else self.lines[self.leader] if self.leader != NOBODY else None
        if leading is not None and leading.runs_out(SOON):
            self._keep(own, changes, recv_ns)
        elif self._kept[own]:
            self._kept[own].clear()
        bodies = self._apply(book, changes, recv_ns)
        if not bodies or book.stays_crossed(recv_ns):
            self.lose(own, emit)
        elif own == self.leader:
            self._go_on(own, changes, bodies, emit)
        elif self.leader == NOBODY:
            self._lead(own, emit)

    def _go_on(self, own: int, changes: Changes, bodies: list[bytes], emit: EmitBook) -> None:
        """Publish changes of the line that leads; where ids go on lower, subscribers need a base."""
        if changes.last_id < changes.first_id:
            self._lead(own, emit)
        else:
            self._publish(self.lines[own], bodies, 0, emit)

    def _is_of_another_count(self, book: LineBook, changes: Changes, update_id: int, recv_ns: int) -> bool:
        """Look at a message that is old by its ids: it is not old if it was made later, or nothing else comes."""
        is_later = not self._keeps and update_id > book.order
        return is_later or book.stays_old(changes.last_id, recv_ns)

    def _apply(self, book: LineBook, changes: Changes, recv_ns: int) -> list[bytes]:
        """Take changes that follow into a book; returns no bodies if they cannot be."""
        try:
            bodies = book.take(changes.first_id, changes.last_id, changes.bids, changes.asks)
        except DecodeError:
            return []
        book.exchange_ns, book.recv_ns = changes.exchange_ns, recv_ns
        return bodies

    def _keep(self, own: int, changes: Changes, recv_ns: int) -> None:
        """Keep changes until there is a base that they follow; of two that do not, the second is the first."""
        if not self._keeps:
            return
        kept = self._kept[own]
        if changes.last_id < changes.first_id - 1:
            kept.clear()  # what follows has lower ids
            return
        newest = kept[-1][0].last_id if kept else changes.first_id - 1
        if changes.first_id > newest + 1 or changes.last_id <= newest // 2:
            kept.clear()
        elif changes.last_id <= newest:
            return
        kept.append((changes, recv_ns))

    # --- doubt, and its end

    def lose(self, line: int, emit: EmitBook) -> None:
        """A line's book is in doubt: it is dropped, and if it is the one that is published, another takes over."""
        self._drop(line)
        self.settle(emit)

    def settle(self, emit: EmitBook) -> None:
        """Have a line lead; without any that can, the book is INVALID."""
        if self.leader != NOBODY:
            return
        foremost = self.foremost(range(LINES_MAX))
        if foremost != NOBODY:
            self._lead(foremost, emit)
        elif not self.flags & wire.INVALID:
            self.flags |= wire.INVALID
            emit(self)

    def foremost(self, lines: Iterable[int]) -> int:
        """Return which of some lines has a book that is ahead of all others, NOBODY if none is known."""
        known = [line for line in lines if self.lines[line].is_known]
        return max(known, key=self._progress) if known else NOBODY

    def _progress(self, line: int) -> tuple[int, int]:
        return self._reached_id(line), self.lines[line].recv_ns

    def _reached_id(self, line: int) -> int:
        """Return how far a line's book is, by ids of one count: no message need have brought it there."""
        return self.lines[line].last_id if self._keeps else self._order.line_update_id(line)

    def behind_id(self, others: Iterable[int]) -> int:
        """Return what the line that leads has come to, if another of these with a book is ahead; else 0."""
        if self.leader == NOBODY:
            return 0
        own = self._reached_id(self.leader)
        is_behind = any(self.lines[line].is_known and self._reached_id(line) > own for line in others)
        return own if is_behind else 0

    def hand_over(self, others: Iterable[int], emit: EmitBook) -> None:
        """Have the line of these lead that is ahead of all."""
        foremost = self.foremost(others)
        if foremost != NOBODY:
            self._lead(foremost, emit)

    # --- bases that come by another way

    @property
    def runs_out(self) -> bool:
        """True if what is published may soon lack some of the best levels: it is time for another base."""
        return self.leader != NOBODY and self.lines[self.leader].runs_out(BEST)

    def can_begin(self, line: int, last_id: int) -> bool:
        """True if what is kept for a line goes on from a base of this id, and has come as far."""
        kept = self._kept[line]
        return bool(kept) and kept[0][0].first_id - 1 <= last_id <= kept[-1][0].last_id

    def offer(self, lines: Iterable[int], base: Base, recv_ns: int, emit: EmitBook) -> int:
        """Take a base for some lines; returns how many of their books begin with it.

        Others are ahead of it: what is between it and the first message that they have was missed.
        """
        begun = [own for own in lines if self._join(own, base, recv_ns, emit)]
        if self.leader in begun:
            self._lead(self.leader, emit)
        self.settle(emit)
        return len(begun)

    def _join(self, own: int, base: Base, recv_ns: int, emit: EmitBook) -> bool:
        kept = self._kept[own]
        while kept and kept[0][0].last_id <= base.last_id:
            kept.popleft()
        if kept and kept[0][0].first_id > base.last_id + 1:
            return False
        if not kept and self.lines[own].is_known and base.last_id < self.lines[own].last_id:
            return False  # it has been lost since, and begun anew
        if not self._begin(own, base, recv_ns, emit):
            return False
        self.lines[own].is_joining = True
        return self._catch_up(own, emit)

    def _catch_up(self, own: int, emit: EmitBook) -> bool:
        """Take what was kept for a line into its book, which has a base."""
        kept, book = self._kept[own], self.lines[own]
        for changes, recv_ns in kept:
            found = book.judge(changes.first_id, changes.last_id)
            if found is OLD:
                continue
            if found is GAP or not self._apply(book, changes, recv_ns):
                self.lose(own, emit)
                return False
        kept.clear()
        return True

    def adopt(self, own: int, other: int, emit: EmitBook) -> bool:
        """Let a line's book begin as that of another is now, whose ids are of one count; False if it is ahead."""
        kept, source = self._kept[own], self.lines[other]
        if kept and kept[0][0].first_id > source.last_id + 1:
            return False
        self.lines[own].copy(source)
        return self._catch_up(own, emit)

    def is_joining(self, line: int) -> bool:
        """True if a line's book has begun as another's, or over REST, and no message has followed on it yet."""
        book = self.lines[line]
        return bool(book.is_known and book.is_joining)

    def hand_on(self, line: int, emit: EmitBook) -> None:
        """Have those that have begun be where a line is, until a message follows on them.

        What was under way on it when they were subscribed to comes on it alone.
        """
        source = self.lines[line]
        for own, book in enumerate(self.lines if source.is_known else ()):
            if own not in (line, self.leader) and self.is_joining(own) and book.last_id < source.last_id:
                self.adopt(own, line, emit)

    # --- what is published

    def repeat(self, emit: EmitBook) -> None:
        """Publish the book in full, if it is known."""
        if self.leader != NOBODY:
            self._lead(self.leader, emit)

    def _lead(self, line: int, emit: EmitBook) -> None:
        self.leader = line
        self.snapshots += 1
        book = self.lines[line]
        self._publish(book, book.snapshot(), wire.SNAPSHOT, emit)

    def _publish(self, book: LineBook, bodies: Sequence[bytes], flags: int, emit: EmitBook) -> None:
        """Emit a message as the records that say the same, the last one flagged."""
        self.exchange_ns = book.exchange_ns
        left = len(bodies)
        for body in bodies:
            left -= 1
            self.put_packed(_NO_HEADER + body, flags if left else flags | wire.LAST)
            self.on_news(book.recv_ns)
            emit(self)
