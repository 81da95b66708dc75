"""Who subscribes to which stream, and what goes into whose outbox when one is sent.

Pure: the shell calls `run` with the time and writes the outboxes. When the market moves, and which stream is to
show it, is a schedule's decision: rhythm.py, rate.py. Repeats (`DataStream.repeat_every_ns`) come on top: they are
no updates.
"""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from feedhandler.sim import frames
from feedhandler.sim.market import Instrument
from feedhandler.sim.protocol import NS_PER_S, DataStream, Now, Outbox

REPEAT_CHECK_NS = NS_PER_S // 10
LATE_FRAMES = 3  # a late frame comes this many updates after its time


class Schedule(Protocol):
    """When the market moves, and which of the streams with subscribers shows it."""

    skipped: int  # changes given up because the process was too slow
    late_ns: int  # of the first change of the last tick
    late_ns_max: int

    def start(self, stream: DataStream, mono_ns: int) -> None:
        """This stream has subscribers now."""
        ...

    def stop(self, stream: DataStream) -> None:
        """It has none any more."""
        ...

    def run(self, now: Now, send: Callable[[DataStream], None]) -> None:
        """Move the market as far as is due, and send what is to be sent of it."""
        ...

    def show(self, instrument: Instrument, now: Now, send: Callable[[DataStream], None]) -> None:
        """Send what shows this instrument, which has changed and was traded, now or when it may be."""
        ...

    def pause(self, now: Now) -> None:
        """Let the time pass until now, while nothing may be sent."""
        ...

    def next_due_ns(self, mono_ns: int) -> int:
        """When to call `run` again; far away if nobody listens."""
        ...


class Broadcast:
    """The subscriptions of one exchange."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._streams: dict[str, DataStream] = {}
        self._repeating: dict[str, DataStream] = {}
        self._of_events: dict[str, DataStream] = {}  # those that have a source
        self._next_repeat_check_ns = 0
        self._tampered: Tampering | None = None
        self._now = Now(0, 0)  # of this tick
        self._dirty: list[Outbox] = []  # that of this tick
        self.updates = 0  # messages of the market, each for any number of connections
        self.frames = 0  # copies of them, and repeats, put into outboxes
        self.effects: Counter[str] = Counter()  # by fault: copies that it added, messages that it kept back

    def topics(self) -> list[str]:
        return list(self._streams)

    def streams(self) -> list[DataStream]:
        return list(self._streams.values())

    def find(self, topic: str) -> DataStream | None:
        return self._streams.get(topic)

    def add(self, stream: DataStream, variant: int, outbox: Outbox, mono_ns: int) -> None:
        """Let an outbox get a stream, from the next update on. One that lost all subscribers is made anew."""
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

    def _start(self, stream: DataStream, mono_ns: int) -> None:
        self._streams[stream.topic] = stream
        stream.has_subscribers = True
        stream.last_mono_ns = mono_ns
        if stream.source is not None:
            self._of_events[stream.topic] = stream
            stream.source.start()
        self.schedule.start(stream, mono_ns)
        if stream.repeat_every_ns:
            self._repeating[stream.topic] = stream

    def _stop(self, stream: DataStream) -> None:
        del self._streams[stream.topic]
        stream.has_subscribers = False
        if self._of_events.pop(stream.topic, None) is not None and stream.source is not None:
            stream.source.stop()
        self.schedule.stop(stream)
        self._repeating.pop(stream.topic, None)

    def tamper(self, copies: int, delay: int, symbol_topics: set[str] | None) -> None:
        """Send the next `copies` updates twice: at once (delay 0), or `delay` updates of the stream later."""
        self._tampered = Tampering(copies, delay, symbol_topics)

    def stop_tampering(self) -> None:
        self._tampered = None

    def run(self, now: Now, dirty: list[Outbox]) -> None:
        """Fill the outboxes with all that is due; those that had been empty are appended to `dirty`."""
        self._now, self._dirty = now, dirty
        self.schedule.run(now, self._send)
        if self._repeating and now.mono_ns >= self._next_repeat_check_ns:
            self._next_repeat_check_ns = now.mono_ns + REPEAT_CHECK_NS
            self._repeat(now, dirty)

    def send_now(self, stream: DataStream, now: Now, dirty: list[Outbox]) -> None:
        """Send what a stream has, although nothing has changed."""
        self._now, self._dirty = now, dirty
        self._send(stream)

    def show(self, instrument: Instrument, now: Now, dirty: list[Outbox]) -> None:
        """Send what shows an instrument that has changed by command."""
        self._now, self._dirty = now, dirty
        self.schedule.show(instrument, now, self._send)

    def pause(self, now: Now) -> None:
        """Let the time pass, and send nothing, nor later what happens now."""
        self.schedule.pause(now)
        for stream in self._of_events.values():
            stream.lose()

    def next_due_ns(self, mono_ns: int) -> int:
        """When to call `run` again; far away if nobody listens."""
        due_ns = self.schedule.next_due_ns(mono_ns)
        return min(due_ns, self._next_repeat_check_ns) if self._repeating else due_ns

    def _send(self, stream: DataStream) -> None:
        # hot: bench/load.py
        now, dirty = self._now, self._dirty
        stream.last_mono_ns = now.mono_ns
        if stream.is_lost or stream.lost_messages:
            self._lose(stream)
            return
        source = stream.source
        is_due = source is None or source.take()
        keeps = stream.repeat_every_ns
        while is_due:
            self.updates += 1
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
            is_due = source is not None and source.take()

    def _lose(self, stream: DataStream) -> None:
        if stream.lose() and stream.lost_messages:
            stream.lost_messages -= 1
            self.effects["lose_messages"] += 1

    def _repeat(self, now: Now, dirty: list[Outbox]) -> None:
        for stream in self._repeating.values():
            if now.mono_ns - stream.last_mono_ns < stream.repeat_every_ns or stream.is_muted:
                continue
            stream.last_mono_ns = now.mono_ns
            if stream.is_lost:
                continue
            for variant, boxes in stream.audiences.items():
                if stream.encode_repeat is not None:
                    payload = stream.encode_repeat(variant, now)
                else:
                    payload = stream.last_payloads.get(variant) or stream.encode(variant, now)
                    stream.last_payloads[variant] = payload
                for box in boxes:
                    if not box.frames:
                        dirty.append(box)
                    box.frames.append(frames.text(payload))
                    self.frames += 1

    def _tamper(self, tampering: "Tampering", stream: DataStream) -> None:
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
                        self.effects[tampering.fault] += 1
        if tampering.is_over:
            self._tampered = None


class Tampering:
    """Frames to send twice, and where they are."""

    def __init__(self, copies: int, delay: int, topics: set[str] | None) -> None:
        self._copies = copies
        self._delay = delay
        self.topics = topics
        self.fault = "late" if delay else "duplicate"
        self._held: dict[str, tuple[int, dict[int, bytes]]] = {}  # topic: updates to wait, frames by variant

    @property
    def is_over(self) -> bool:
        return self._copies <= 0 and not self._held

    def take(self, stream: DataStream) -> dict[int, bytes]:
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
