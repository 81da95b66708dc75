"""A known rate: so many messages per second, shared out over what is subscribed to.

For tests and benchmarks; no symbol ever rests. Pure. Open loop: the n-th slot is due at start + n / rate whatever
happened before, so lateness is visible and never hidden by sending less. A slot goes to a regular stream that is
due (a 24 h ticker), else to a real-time stream: three of four to the much traded symbols, every fourth in turn, so
that no symbol is left out. Where a rate below the regular streams' own cadence is set, they share half of it.
The market moves as far as a stream shows it, and no further.
"""

import random
from bisect import insort
from collections.abc import Callable
from heapq import heappop, heappush

from feedhandler.sim.market import BYTES_OF_RANDOM, Instrument
from feedhandler.sim.protocol import NS_PER_S, DataStream, Now

CATCH_UP_S = (
    0.25  # behind by more than this, slots are given up and counted: memory and one tick stay bounded
)
THROTTLED_TRIES = 4  # a slot looks at so many streams before it is left empty
IDLE_NS = NS_PER_S
_BITS = 8 * BYTES_OF_RANDOM
_PICK_BITS = 24


class FixedRate:
    """A schedule of slots."""

    def __init__(self, messages_per_s: float, seed: int) -> None:
        self._random = random.Random(f"broadcast {seed}")
        self._real_time: list[DataStream] = []  # by rank, the most traded first
        self._turn = 0
        self._regular: list[tuple[int, int, DataStream]] = []  # heap of (due, tie-break, stream)
        self._regular_count = 0
        self._was_regular = False
        self._rate = messages_per_s
        self._start_ns = 0
        self._slots = 0  # since start, used or not
        self.skipped = 0
        self.late_ns = 0
        self.late_ns_max = 0

    @property
    def messages_per_s(self) -> float:
        return self._rate

    def set_rate(self, messages_per_s: float) -> None:
        """Begin a new schedule; the worst lateness is that of the running one."""
        self._rate = messages_per_s
        self.late_ns_max = 0
        self._slots = 0
        self._start_ns = 0

    def start(self, stream: DataStream, mono_ns: int) -> None:
        if stream.moves_quote:
            stream.instrument.quote_stream_count += 1
        if stream.regular_every_ns:
            # Somewhere in its period, as the exchange's clock does not start when we subscribe.
            self._regular_count += 1
            due_ns = mono_ns + self._random.randrange(stream.regular_every_ns)
            heappush(self._regular, (due_ns, self._regular_count, stream))
        else:
            if not self._real_time:
                self._due_slots(mono_ns)  # the time before the first listener is no arrears
            insort(self._real_time, stream, key=_rank)

    def stop(self, stream: DataStream) -> None:
        if stream.moves_quote:
            stream.instrument.quote_stream_count -= 1
        if not stream.regular_every_ns:  # else it leaves the heap when it comes up
            self._real_time.remove(stream)

    def run(self, now: Now, send: Callable[[DataStream], None]) -> None:
        due = self._due_slots(now.mono_ns)
        if due:
            self._fill(due, now, send)

    def show(self, instrument: Instrument, now: Now, send: Callable[[DataStream], None]) -> None:
        for stream in self._real_time:
            if stream.instrument is instrument and not stream.is_muted:
                send(stream)

    def pause(self, now: Now) -> None:
        """The slots pass unused."""
        self._due_slots(now.mono_ns)

    def next_due_ns(self, mono_ns: int) -> int:
        if self._real_time or (self._regular and self._regular[0][0] <= mono_ns):
            return self._start_ns + int((self._slots + 1) * NS_PER_S / self._rate)
        return self._regular[0][0] if self._regular else mono_ns + IDLE_NS

    def _due_slots(self, mono_ns: int) -> int:
        """Advance the schedule to now; returns how many slots fell due and are to be used."""
        if not self._start_ns:
            self._start_ns = mono_ns
        slots = int((mono_ns - self._start_ns) * self._rate / NS_PER_S)
        due = slots - self._slots
        if due <= 0:
            return 0
        if self._real_time:
            self.late_ns = mono_ns - self._start_ns - int((self._slots + 1) * NS_PER_S / self._rate)
            self.late_ns_max = max(self.late_ns_max, self.late_ns)
        self._slots = slots
        most = max(1, int(self._rate * CATCH_UP_S))
        if due > most:
            if self._real_time:
                self.skipped += due - most
            due = most
        return due

    def _fill(self, slots: int, now: Now, send: Callable[[DataStream], None]) -> None:
        # hot: bench/load.py
        mono_ns, unix_ns = now
        regular, real_time = self._regular, self._real_time
        getrandbits = self._random.getrandbits
        for _ in range(slots):
            if regular and regular[0][0] <= mono_ns and not (self._was_regular and real_time):
                self._was_regular = True
                self._send_regular(now, send)
                continue
            self._was_regular = False
            if not real_time:
                return  # the remaining slots have nothing to carry
            bits = getrandbits(_BITS)
            stream = self._pick(bits, mono_ns)
            if stream is not None:
                _move(stream, bits, unix_ns)
                send(stream)

    def _pick(self, bits: int, mono_ns: int) -> DataStream | None:
        """Choose a real-time stream: by popularity, every fourth time in turn."""
        streams = self._real_time
        count = len(streams)
        self._turn += 1
        if self._turn & 3:
            fraction = (bits >> (_BITS - _PICK_BITS)) / (1 << _PICK_BITS)
            stream = streams[int(count * fraction * fraction * fraction)]
        else:
            stream = streams[(self._turn >> 2) % count]
        if not stream.is_muted and mono_ns - stream.last_mono_ns >= stream.at_most_every_ns:
            return stream
        return self._pick_another(mono_ns)

    def _pick_another(self, mono_ns: int) -> DataStream | None:
        streams = self._real_time
        for _ in range(THROTTLED_TRIES):
            self._turn += 4
            stream = streams[(self._turn >> 2) % len(streams)]
            if not stream.is_muted and mono_ns - stream.last_mono_ns >= stream.at_most_every_ns:
                return stream
        return None

    def _send_regular(self, now: Now, send: Callable[[DataStream], None]) -> None:
        due_ns, _, stream = heappop(self._regular)
        if not stream.has_subscribers:
            return
        # A rate below the cadence must not pile up arrears: at most one period is made up for.
        self._regular_count += 1
        due_ns = max(due_ns + stream.regular_every_ns, now.mono_ns)
        heappush(self._regular, (due_ns, self._regular_count, stream))
        if stream.is_muted:
            stream.lose()
            return
        _move(stream, self._random.getrandbits(_BITS), now.unix_ns)
        send(stream)


def _rank(stream: DataStream) -> int:
    return stream.rank


def _move(stream: DataStream, bits: int, unix_ns: int) -> None:
    """Let the market move as far as this stream shows it.

    A stream without the right to move the quote leaves it alone while another one announces its changes. Where
    there is an order book, a trade moves the quote as well: the next slot of the stream of quotes shows it.
    """
    if stream.next_instrument is not None:
        stream.instrument = stream.next_instrument(bits)
    if stream.is_trade:
        stream.instrument.trade(bits, unix_ns)
    elif stream.moves_quote or stream.shows_book or not stream.instrument.quote_stream_count:
        stream.instrument.step(bits, unix_ns)
    elif stream.instrument.book is None:
        stream.instrument.trade(bits, unix_ns)
