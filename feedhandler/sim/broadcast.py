"""Which stream is due, at which moment, and into whose outbox it goes.

Pure: the shell calls `run` with the time and writes the outboxes. Open loop: the n-th slot is due at
start + n / rate whatever happened before, so lateness is visible and never hidden by sending less. A slot
goes to a regular stream that is due (a 24 h ticker), else to a real-time stream: three of four to the much
traded symbols, every fourth in turn, so that no symbol is left out. Where a rate below the regular streams'
own cadence is asked for, they share half of it. Repeats (`Stream.repeat_every_ns`) come on top: they are
not updates.
"""

import random
from bisect import insort
from heapq import heappop, heappush

from feedhandler.sim import frames
from feedhandler.sim.market import BYTES_OF_RANDOM
from feedhandler.sim.protocol import NS_PER_S, Now, Outbox, Stream

CATCH_UP_S = (
    0.25  # behind by more than this, slots are given up and counted: memory and one tick stay bounded
)
REPEAT_CHECK_NS = NS_PER_S // 10
THROTTLED_TRIES = 4  # a slot looks at so many streams before it is left empty
IDLE_NS = NS_PER_S
LATE_FRAMES = 3  # a late frame comes this many updates after its time
_BITS = 8 * BYTES_OF_RANDOM
_PICK_BITS = 24


class Broadcast:
    """The market rate and the subscriptions of one exchange."""

    def __init__(self, messages_per_s: float, seed: int) -> None:
        self._random = random.Random(f"broadcast {seed}")
        self._streams: dict[str, Stream] = {}
        self._real_time: list[Stream] = []  # by rank, the most traded first
        self._turn = 0
        self._regular: list[tuple[int, int, Stream]] = []  # heap of (due, tie-break, stream)
        self._regular_count = 0
        self._repeating: dict[str, Stream] = {}
        self._next_repeat_check_ns = 0
        self._tampered: Tampering | None = None
        self._was_regular = False
        self._rate = messages_per_s
        self._start_ns = 0
        self._slots = 0  # since start, used or not
        self.updates = 0  # messages of the market, each for any number of connections
        self.frames = 0  # copies of them, and repeats, put into outboxes
        self.skipped = 0  # slots given up because the process was too slow
        self.late_ns = 0  # of the first slot of the last tick
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

    def topics(self) -> list[str]:
        return list(self._streams)

    def streams(self) -> list[Stream]:
        return list(self._streams.values())

    def find(self, topic: str) -> Stream | None:
        return self._streams.get(topic)

    def add(self, stream: Stream, variant: int, outbox: Outbox, mono_ns: int) -> None:
        """Let an outbox hear a stream, from the next update on. One that lost all hearers is made anew."""
        if stream.topic not in self._streams:
            self._start(stream, mono_ns)
        boxes = stream.audiences.setdefault(variant, [])
        if outbox not in boxes:
            boxes.append(outbox)

    def remove(self, topic: str, outbox: Outbox) -> None:
        """Undo `add`; harmless if there is nothing to undo."""
        stream = self._streams.get(topic)
        if stream is None:
            return
        for variant, boxes in list(stream.audiences.items()):
            if outbox in boxes:
                boxes.remove(outbox)
            if not boxes:
                del stream.audiences[variant]
        if not stream.audiences:
            self._stop(stream)

    def _start(self, stream: Stream, mono_ns: int) -> None:
        self._streams[stream.topic] = stream
        stream.is_heard = True
        stream.last_mono_ns = mono_ns
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
        if stream.repeat_every_ns:
            self._repeating[stream.topic] = stream

    def _stop(self, stream: Stream) -> None:
        del self._streams[stream.topic]
        stream.is_heard = False  # a regular one leaves the heap when it comes up
        if stream.moves_quote:
            stream.instrument.quote_stream_count -= 1
        if not stream.regular_every_ns:
            self._real_time.remove(stream)
        self._repeating.pop(stream.topic, None)

    def tamper(self, copies: int, delay: int, symbol_topics: set[str] | None) -> None:
        """Send the next `copies` updates twice: at once (delay 0), or `delay` updates of the stream later."""
        self._tampered = Tampering(copies, delay, symbol_topics)

    def stop_tampering(self) -> None:
        self._tampered = None

    def run(self, now: Now, dirty: list[Outbox]) -> None:
        """Fill the outboxes with all that is due; those that had been empty are appended to `dirty`."""
        due = self._due_slots(now.mono_ns)
        if due:
            self._fill(due, now, dirty)
        if self._repeating and now.mono_ns >= self._next_repeat_check_ns:
            self._next_repeat_check_ns = now.mono_ns + REPEAT_CHECK_NS
            self._repeat(now, dirty)

    def pause(self, mono_ns: int) -> None:
        """Let the slots pass unused until now."""
        self._due_slots(mono_ns)

    def next_due_ns(self, mono_ns: int) -> int:
        """When to call `run` again; far away if nobody listens."""
        if self._real_time or (self._regular and self._regular[0][0] <= mono_ns):
            return self._start_ns + int((self._slots + 1) * NS_PER_S / self._rate)
        due_ns = self._regular[0][0] if self._regular else mono_ns + IDLE_NS
        return min(due_ns, self._next_repeat_check_ns) if self._repeating else due_ns

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

    def _fill(self, slots: int, now: Now, dirty: list[Outbox]) -> None:
        # hot: bench/load.py
        mono_ns = now.mono_ns
        regular, real_time = self._regular, self._real_time
        getrandbits = self._random.getrandbits
        for _ in range(slots):
            if regular and regular[0][0] <= mono_ns and not (self._was_regular and real_time):
                self._was_regular = True
                self._send_regular(now, dirty)
                continue
            self._was_regular = False
            if not real_time:
                return  # the remaining slots have nothing to carry
            bits = getrandbits(_BITS)
            stream = self._pick(bits, mono_ns)
            if stream is not None:
                _move(stream, bits)
                self._send(stream, now, dirty)

    def _pick(self, bits: int, mono_ns: int) -> Stream | None:
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

    def _pick_another(self, mono_ns: int) -> Stream | None:
        streams = self._real_time
        for _ in range(THROTTLED_TRIES):
            self._turn += 4
            stream = streams[(self._turn >> 2) % len(streams)]
            if not stream.is_muted and mono_ns - stream.last_mono_ns >= stream.at_most_every_ns:
                return stream
        return None

    def _send_regular(self, now: Now, dirty: list[Outbox]) -> None:
        due_ns, _, stream = heappop(self._regular)
        if not stream.is_heard:
            return
        # A rate below the cadence must not pile up arrears: at most one period is made up for.
        self._regular_count += 1
        due_ns = max(due_ns + stream.regular_every_ns, now.mono_ns)
        heappush(self._regular, (due_ns, self._regular_count, stream))
        if stream.is_muted:
            return
        _move(stream, self._random.getrandbits(_BITS))
        self._send(stream, now, dirty)

    def _send(self, stream: Stream, now: Now, dirty: list[Outbox]) -> None:
        # hot: bench/load.py
        stream.last_mono_ns = now.mono_ns
        if stream.is_lost:
            return
        self.updates += 1
        keeps = stream.repeat_every_ns
        for variant, boxes in stream.audiences.items():
            payload = stream.encode(variant, now)
            if keeps:
                stream.last_payloads[variant] = payload
            frame = frames.text(payload)
            for box in boxes:
                if not box.frames:
                    dirty.append(box)
                box.frames.append(frame)
                self.frames += 1
        if self._tampered is not None:
            self._tamper(self._tampered, stream)

    def _repeat(self, now: Now, dirty: list[Outbox]) -> None:
        for stream in self._repeating.values():
            if now.mono_ns - stream.last_mono_ns < stream.repeat_every_ns or stream.is_muted:
                continue
            stream.last_mono_ns = now.mono_ns
            if stream.is_lost:
                continue
            for variant, boxes in stream.audiences.items():
                payload = stream.last_payloads.get(variant) or stream.encode(variant, now)
                stream.last_payloads[variant] = payload
                for box in boxes:
                    if not box.frames:
                        dirty.append(box)
                    box.frames.append(frames.text(payload))
                    self.frames += 1

    def _tamper(self, tampering: "Tampering", stream: Stream) -> None:
        """Append the frame that `_send` just put into the boxes once more, or an older one."""
        if tampering.topics is not None and stream.topic not in tampering.topics:
            return
        again = tampering.take(stream)
        if again:
            for variant, boxes in stream.audiences.items():
                for box in boxes:
                    if variant in again:
                        box.frames.append(again[variant])
                        self.frames += 1
        if tampering.is_over:
            self._tampered = None


class Tampering:
    """Frames to send twice, and where they are."""

    def __init__(self, copies: int, delay: int, topics: set[str] | None) -> None:
        self._copies = copies
        self._delay = delay
        self.topics = topics
        self._held: dict[str, tuple[int, dict[int, bytes]]] = {}  # topic: updates to wait, frames by variant

    @property
    def is_over(self) -> bool:
        return self._copies <= 0 and not self._held

    def take(self, stream: Stream) -> dict[int, bytes]:
        """Return the frames to add now, after the newest ones."""
        wait, held = self._held.get(stream.topic, (0, {}))
        if held:
            if wait > 1:
                self._held[stream.topic] = (wait - 1, held)
                return {}
            del self._held[stream.topic]
            return held
        if self._copies <= 0:
            return {}
        self._copies -= 1
        newest = {variant: boxes[0].frames[-1] for variant, boxes in stream.audiences.items()}
        if not self._delay:
            return newest
        self._held[stream.topic] = (self._delay, newest)
        return {}


def _rank(stream: Stream) -> int:
    return stream.rank


def _move(stream: Stream, bits: int) -> None:
    """Let the market move as far as this stream shows it.

    A stream without the right to move the quote leaves it alone while another one announces its changes.
    """
    if stream.next_instrument is not None:
        stream.instrument = stream.next_instrument(bits)
    if stream.is_trade:
        stream.instrument.trade(bits)
    elif stream.moves_quote or not stream.instrument.quote_stream_count:
        stream.instrument.step(bits)
    else:
        stream.instrument.trade(bits)
