"""One market of a recording: what its connections carry, decoded frame by frame into records.

    frame ──▶ Carrier.receive ──▶ Market.decode ──▶ states ──▶ Carrier.emit ──▶ records

Compiled where there is a compiler, with the types of `carriers.pxd`: of what a recorded frame takes, this was as
much as its JSON. Which market a connection is of, and what answers are, is `decoding`'s.
"""

from collections import deque
from collections.abc import Collection
from typing import Any, Final, NamedTuple

import msgspec

from feedhandler.data import raw, wire
from feedhandler.data.book import BOOK
from feedhandler.data.errors import DecodeError
from feedhandler.data.ticker import TICKER
from feedhandler.exchanges.arbitration import LINES_MAX, Line
from feedhandler.exchanges.base import Control, Market
from feedhandler.exchanges.full_book import NOBODY, FullBookState
from feedhandler.exchanges.state import State
from feedhandler.recordings.traffic import Item

RECORD_SIZE_MAX: Final = wire.RECORD_SIZE_MAX


class KeptBase(NamedTuple):
    """An answer that books begin with; it stays bytes, as levels take four times as much."""

    last_id: int
    data: bytes
    limit: int
    is_ahead: bool = False  # the same answer comes once more, where it stands


class Met(dict[str, Any]):
    """The states of one kind: whoever is listed, and asked for, is there, and gets the present frame if the carrier
    agrees.
    """

    def __init__(self, carrier: "Carrier", kind: str, base_flags: int) -> None:
        self._carrier, self._kind, self._base_flags = carrier, kind, base_flags

    def get(self, native: str, default: Any = None) -> Any:
        """Return a symbol's state."""
        state = dict.get(self, native)
        if state is None:
            state = self._made(native)
            if state is None:
                return default
        return state if self._carrier.note(state) else default

    def _made(self, native: str) -> State | None:
        if not native or (self._carrier.listed and native not in self._carrier.listed):
            return None
        try:
            (state,) = self._carrier.market.add([native], self._base_flags, self._kind)
        except ValueError:  # no name of a symbol is as long
            return None
        return state

    def __contains__(self, native: object) -> bool:
        return True


class RecordedConnection:
    """One of a recording. carrier is that of its market, None if it is of none of ours: where says of what.

    One with a socket for each path of its market is one for all of them, as it is in a feed. beside is the same one
    as another market's, where the address is of both, and nothing but its frames tells.
    """

    def __init__(self, where: str, is_guessed: bool = False) -> None:
        self.where = where
        self.is_guessed = is_guessed  # without an address
        self.carrier: Carrier | None = None
        self.line = Line(0)  # that most of its symbols have it as
        self.lines: dict[str, int] = {}  # which line of each native symbol it is
        self.topics: set[str] = set()  # that are subscribed to, as far as frames of ours are recorded
        self.beside: RecordedConnection | None = None

    def all(self) -> "list[RecordedConnection]":
        """Return it as each market's."""
        return [self, *(self.beside.all() if self.beside is not None else ())]


class Carrier:
    """One market: what its connections carry, and which line of each symbol a connection is.

    Connections that share no symbol may be the same line. Of one that shares a symbol with more than it may have,
    that symbol's last line is one more: what counts once does so all the same, by its ids. bases are answers by
    native symbol, from which changes may go on. met is what the last frame was about, None if it was about nothing;
    problem says why it could not be decoded. has_lost: a book's chain has ended on that connection, was_crossed: it
    was crossed before.
    """

    def __init__(
        self,
        made: type[Market],
        kinds: Collection[str],
        base_flags: int,
        bases: dict[str, deque[KeptBase]],
    ) -> None:
        self.market = made()
        self.states: dict[str, Met] = {
            kind: Met(self, kind, base_flags) for kind in made.kinds if kind in kinds
        }
        self.market.states.update(self.states)
        self.market.tickers = self.states.get(TICKER.name, self.market.tickers)
        self._bases = bases
        self.listed: set[str] = set()  # native symbols that there are; none: that is not known
        topics = [topic for kind in made.kinds for topic in self.market.topics("\0", kind)]
        # What stands before and behind a symbol; a topic of all symbols has none.
        self._topics = [(before, behind) for before, _, behind in (topic.partition("\0") for topic in topics)]
        self._lines = [Line(index) for index in range(LINES_MAX)]
        self._taken: dict[str, list[int]] = {}  # how many connections are each line of a native symbol
        self.met: State | None = None
        self.control: Control | None = None  # of the last frame, if it was decoded
        self.problem = ""
        self.was_known = self.was_crossed = self.has_lost = False
        self._connection = RecordedConnection("")  # on which the present frame came
        self._line = self._lines[0]
        self._is_of_another_line = False
        self._records: list[bytes] = []
        self._buffer = bytearray(RECORD_SIZE_MAX)
        self.begun_ns: dict[State, int] = {}  # when the exchange made the first record of each
        self._decode = self.market.decode
        self._emit = self.emit

    def receive(self, item: Item, connection: RecordedConnection) -> list[bytes]:
        """Decode a frame; returns the records that come of it."""
        # hot: `make bench-micro`, replay
        self.control, self.problem, self.has_lost = None, "", False
        try:
            self.control = self._decoded(item.data, item.wall_ns, connection)
        except DecodeError as exc:
            self._refuse(item.data, str(exc))
        met = self.met
        if isinstance(met, FullBookState):
            self._look_at(met, connection.lines[met.native], item.wall_ns)
        return self.take_records()

    def _decoded(self, data: bytes, recv_ns: int, connection: RecordedConnection) -> Control | None:
        """Decode a frame. Raises DecodeError, and afterwards knows what it is about all the same."""
        self._connection, self._line = connection, connection.line
        try:
            control = self._attempt(data, recv_ns)
        except DecodeError:
            if not self._is_of_another_line:
                raise
        if not self._is_of_another_line:
            return control
        connection.line = self._line
        return self._attempt(data, recv_ns)

    def _attempt(self, data: bytes, recv_ns: int) -> Control | None:
        self.met, self._is_of_another_line = None, False
        self.was_known = self.was_crossed = False
        return self._decode(data, recv_ns, self._line, self._emit)

    def note(self, state: State) -> bool:
        """Note what the present frame is about; False if it has to be decoded as that of another line."""
        if state is self.met:
            return True
        index = self._connection.lines.get(state.native)
        if index is None:
            index = self._line_of(state.native)
        if index != self._line.index:
            self._line, self._is_of_another_line = self._lines[index], True
            return False
        self._meet(state, index)
        return True

    def _meet(self, state: State, index: int) -> None:
        """The present frame is about this, on that line of it."""
        self.met = state
        if isinstance(state, FullBookState):
            book = state.lines[index]
            self.was_known, self.was_crossed = book.is_known, book.is_known and book.is_crossed

    def emit(self, state: State) -> None:
        """Take the record of a state, under the topic's next number, as a feed does."""
        if state.takes_number:
            state.sequence += 1
            if state.sequence == 1:
                self.begun_ns[state] = state.exchange_ns
        size = state.pack(self._buffer, 0)
        self._records.append(raw.cut(self._buffer, 0, size))

    def take_records(self) -> list[bytes]:
        """Return what was emitted since the last call."""
        records, self._records = self._records, []
        return records

    # --- frames that are not decoded, and books

    def _refuse(self, data: bytes, reason: str) -> None:
        """A frame cannot be decoded: that is a problem if it is of a channel of ours."""
        topic = self.market.topic_of(data)
        if self.met is not None or not topic or self._is_decoded(topic):
            self.problem = reason
        for state in self._books():  # it had a change, perhaps, as a feed has to take it
            if topic in self.market.topics(state.native, BOOK.name):
                index = self._line_of(state.native)
                self._meet(state, index)
                state.lose(index, self._emit)

    def _is_decoded(self, topic: str) -> bool:
        """True for a channel that is ours."""
        return any(topic.startswith(before) and topic.endswith(behind) for before, behind in self._topics)

    def _books(self) -> list[FullBookState]:
        return list(self.states[BOOK.name].values()) if BOOK.name in self.states else []

    def _look_at(self, state: FullBookState, line: int, recv_ns: int) -> None:
        """Look whether a frame has ended a book's chain; a line without a book begins, if there is what with."""
        if state.lines[line].is_known:
            return
        self.has_lost = self.was_known
        for kept in sorted(self._bases.get(state.native, ()), key=lambda each: -each.last_id):
            if state.can_begin(line, kept.last_id):
                base = self.market.decode_base(state.native, kept.data)
                base = msgspec.structs.replace(base, limit=kept.limit)
                if state.offer([line], base, recv_ns, self._emit):
                    return
        self._adopt(state, line)

    def _adopt(self, state: FullBookState, line: int) -> None:
        """A line without a book begins as the one that is ahead of all, as in a feed, which requests none then."""
        if self.market.base_levels and not state.lines[line].is_known:
            foremost = state.foremost(range(LINES_MAX))
            if foremost != NOBODY:
                state.adopt(line, foremost, self._emit)

    # --- lines

    def _line_of(self, native: str) -> int:
        """Return which line of a symbol the present connection is: the same as of others, if that is free."""
        lines = self._connection.lines
        index = lines.get(native)
        if index is None:
            taken = self._taken.setdefault(native, [0] * LINES_MAX)
            free = [line for line, count in enumerate(taken) if not count]
            index = self._line.index if self._line.index in free else free[0] if free else LINES_MAX - 1
            lines[native] = index
            taken[index] += 1
            if taken[index] == 1:
                for state in self._states_of(native):
                    state.renew(index)
                    self._settle(state)
        return index

    def join(self, connection: RecordedConnection, native: str) -> None:
        """A connection is to bring a symbol's book."""
        self._connection, self._line, self.met = connection, connection.line, None
        self._line = self._lines[self._line_of(native)]
        self.states[BOOK.name].get(native)

    def close(self, connection: RecordedConnection) -> None:
        """A connection is closed."""
        for native, index in connection.lines.items():
            taken = self._taken[native]
            taken[index] -= 1
            if not taken[index]:
                for state in self._states_of(native):
                    if isinstance(state, FullBookState):
                        self._hand_on(state, index)
                    state.release(index)
                    self._settle(state)

    def _hand_on(self, state: FullBookState, line: int) -> None:
        """Have the other lines that carry a book be where one is that is about to end."""
        for other in self.lines_of(state.native):
            self._adopt(state, other)
        state.hand_on(line, self._emit)

    def lines_of(self, native: str) -> list[int]:
        """Return the lines of a symbol that are connections."""
        return [line for line, count in enumerate(self._taken.get(native, ())) if count]

    def state_of(self, kind: str, native: str) -> State | None:
        """Return a symbol's state, None if nothing about it has come."""
        return dict.get(self.states[kind], native) if kind in self.states else None

    def _states_of(self, native: str) -> list[State]:
        found = [self.state_of(kind, native) for kind in self.states]
        return [state for state in found if state is not None]

    def _settle(self, state: State) -> None:
        if isinstance(state, FullBookState):
            state.settle(self._emit)
