"""A market with a rhythm of its own: each symbol changes when it changes, whoever listens.

Pure. Few symbols are busy and most are quiet, see `Activity`; changes of a symbol are independent of one another
(a Poisson process). A stream is sent only after something that it shows has changed: at once, or at the next
moment that its own clock allows. So silence means that nothing has happened, and only what an exchange repeats by
the clock (`DataStream.repeat_every_ns`) comes without a change. REST answers from the same instruments.
"""

import random
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from math import log

import msgspec

from feedhandler.sim.market import BYTES_OF_RANDOM, Instrument
from feedhandler.sim.protocol import NS_PER_S, DataStream, Now

QUIET_S = 60.0  # a symbol is quiet if it changes less often than this, on average
CATCH_UP_NS = NS_PER_S // 4  # behind by more than this, a symbol's changes are given up, and counted
CHANGES_PER_TRADE = 4  # see Instrument.step
IDLE_NS = NS_PER_S // 10  # how often the market is looked at while nobody subscribes
_BITS = 8 * BYTES_OF_RANDOM


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """How often symbols change, by their rank in the listing: two power laws that meet where quiet begins."""

    busiest_per_s: float = 100.0  # changes of the first
    busy_symbols: int = 60  # so many change more often than once in QUIET_S
    quietest_s: float = 600.0  # between two changes of the last

    def __post_init__(self) -> None:
        if not 1 <= self.busiest_per_s <= 1000:
            raise ValueError(f"busiest_per_s must be from 1 to 1000, not {self.busiest_per_s:g}")
        if not 1 <= self.busy_symbols <= 5000:
            raise ValueError(f"busy_symbols must be from 1 to 5000, not {self.busy_symbols}")
        if not QUIET_S <= self.quietest_s <= 86_400:
            raise ValueError(f"quietest_s must be from {QUIET_S:g} to 86400, not {self.quietest_s:g}")

    def every_s(self, rank: int, count: int) -> float:
        """Return the mean time between two changes of the symbol at `rank`, from 0, of `count`."""
        busy = 1 + self.busy_symbols
        if rank < self.busy_symbols:
            exponent = log(QUIET_S * self.busiest_per_s) / log(busy)
            return float((1 + rank) ** exponent / self.busiest_per_s)
        if count <= busy:
            return QUIET_S
        exponent = log(self.quietest_s / QUIET_S) / log(count / busy)
        return float(QUIET_S * ((1 + rank) / busy) ** exponent)


class Rhythm:
    """A schedule of changes. others are instruments of another market, whose chance is its own."""

    def __init__(
        self,
        instruments: Sequence[Instrument],
        activity: Activity,
        seed: int,
        others: Sequence[Instrument] = (),
    ) -> None:
        both = (instruments, random.Random(f"rhythm {seed}")), (others, random.Random(f"others {seed}"))
        self._instruments = [each for market, _ in both for each in market]
        self._randoms = [chance for market, chance in both for _ in market]
        self._every_ns = [
            activity.every_s(each.index, len(market)) * NS_PER_S if each.listing.is_trading else 0.0
            for market, _ in both
            for each in market
        ]
        self._changes: list[tuple[int, int]] = []  # heap of (due, position); made when time begins
        self._streams: list[list[DataStream]] = [[] for _ in self._instruments]
        self._position = {id(each): position for position, each in enumerate(self._instruments)}
        self._of_all: list[DataStream] = []  # those that carry every instrument
        self._stream_count = 0
        self._clock_ns: dict[str, int] = {}  # by topic: a moment at which a regular stream was due
        self._waiting: list[tuple[int, int, DataStream]] = []  # heap of (due, tie-break, stream)
        self._waiting_count = 0
        self.skipped = 0
        self.late_ns = 0
        self.late_ns_max = 0

    def start(self, stream: DataStream, mono_ns: int) -> None:
        self._stream_count += 1
        self._streams_beside(stream).append(stream)
        if stream.regular_every_ns:
            # Somewhere in its period, as the exchange's clock does not start when we subscribe.
            chance = self._randoms[self._position[id(stream.instrument)]]
            self._clock_ns[stream.topic] = mono_ns + chance.randrange(stream.regular_every_ns)

    def stop(self, stream: DataStream) -> None:
        self._stream_count -= 1
        self._streams_beside(stream).remove(stream)
        self._clock_ns.pop(stream.topic, None)
        stream.is_waiting = False  # it leaves the heap when it comes up

    def _streams_beside(self, stream: DataStream) -> list[DataStream]:
        return (
            self._of_all if stream.next_instrument else self._streams[self._position[id(stream.instrument)]]
        )

    def run(self, now: Now, send: Callable[[DataStream], None]) -> None:
        changes = self._changes_due(now)
        if changes:
            self.late_ns = now.mono_ns - changes[0][0]
            self.late_ns_max = max(self.late_ns_max, self.late_ns)
        for _, position in changes:
            is_traded = self._change(position, now.unix_ns)
            is_quote_new = self._instruments[position].is_quote_new
            for stream in self._streams[position]:
                if (is_quote_new and stream.shows_quote) or is_traded or stream.shows_book:
                    self._show(stream, now.mono_ns, send)
            if self._of_all and (is_quote_new or is_traded):
                self._show_in_all(position, now.mono_ns, send)
        waiting = self._waiting
        while waiting and waiting[0][0] <= now.mono_ns:
            _, _, stream = heappop(waiting)
            if stream.is_waiting:
                stream.is_waiting = False
                if stream.is_muted:
                    stream.lose()
                else:
                    send(stream)

    def show(self, instrument: Instrument, now: Now, send: Callable[[DataStream], None]) -> None:
        position = self._position[id(instrument)]
        for stream in self._streams[position]:
            self._show(stream, now.mono_ns, send)
        self._show_in_all(position, now.mono_ns, send)

    def pause(self, now: Now) -> None:
        """The market goes on, and nothing is sent."""
        for _, position in self._changes_due(now):
            self._change(position, now.unix_ns)

    def next_due_ns(self, mono_ns: int) -> int:
        if not self._stream_count:
            return mono_ns + IDLE_NS
        due_ns = self._changes[0][0] if self._changes else mono_ns
        return min(due_ns, self._waiting[0][0]) if self._waiting else due_ns

    def _changes_due(self, now: Now) -> list[tuple[int, int]]:
        """Take what has fallen due, in order: (when it was due, position)."""
        mono_ns, changes = now.mono_ns, self._changes
        if not changes:
            self._begin(now)
        due: list[tuple[int, int]] = []
        while changes and changes[0][0] <= mono_ns:
            due_ns, position = changes[0]
            due.append((due_ns, position))
            if mono_ns - due_ns > CATCH_UP_NS:
                self.skipped += int((mono_ns - due_ns) / self._every_ns[position])
                due_ns = mono_ns
            heapreplace(changes, (due_ns + self._pause_ns(position), position))
        return due

    def _begin(self, now: Now) -> None:
        """Let every symbol be somewhere between two changes, and its last trade some changes ago."""
        for position, every_ns in enumerate(self._every_ns):
            if every_ns:
                self._changes.append((now.mono_ns + self._pause_ns(position), position))
                traded_ago_ns = CHANGES_PER_TRADE * self._pause_ns(position)
                self._instruments[position].traded_unix_ns = now.unix_ns - traded_ago_ns
        heapify(self._changes)

    def _pause_ns(self, position: int) -> int:
        return 1 + int(self._randoms[position].expovariate(1.0) * self._every_ns[position])

    def _change(self, position: int, unix_ns: int) -> bool:
        """Move one symbol; True if it was traded, too."""
        instrument = self._instruments[position]
        trade_id = instrument.trade_id
        instrument.step(self._randoms[position].getrandbits(_BITS), unix_ns)
        return instrument.trade_id != trade_id

    def _show_in_all(self, position: int, mono_ns: int, send: Callable[[DataStream], None]) -> None:
        for stream in self._of_all:
            stream.instrument = self._instruments[position]
            self._show(stream, mono_ns, send)

    def _show(self, stream: DataStream, mono_ns: int, send: Callable[[DataStream], None]) -> None:
        """Send a stream that shows what has changed, now or when it may be."""
        if stream.is_muted:
            stream.lose()
            return
        if stream.is_waiting:
            return
        due_ns = mono_ns
        if stream.regular_every_ns:
            since_ns = mono_ns - self._clock_ns[stream.topic]
            due_ns += stream.regular_every_ns - since_ns % stream.regular_every_ns
        elif stream.at_most_every_ns:
            due_ns = stream.last_mono_ns + stream.at_most_every_ns
        if due_ns <= mono_ns:
            send(stream)
        else:
            stream.is_waiting = True
            self._waiting_count += 1
            heappush(self._waiting, (due_ns, self._waiting_count, stream))
