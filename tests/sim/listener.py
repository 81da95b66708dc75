"""A listener to a small market, in simulated time: what the tests of broadcast and schedules share."""

from feedhandler.sim import frames
from feedhandler.sim.broadcast import Broadcast, Schedule
from feedhandler.sim.market import Instrument, instruments_of, universe
from feedhandler.sim.protocol import NS_PER_MS, NS_PER_S, DataStream, Now, Outbox
from feedhandler.sim.rate import FixedRate

START_NS = 5_000 * NS_PER_S


class World:
    """A broadcast with streams of a small market, and time that the test moves."""

    def __init__(self, schedule: Schedule, instruments: list[Instrument]) -> None:
        self.schedule = schedule
        self.broadcast = Broadcast(schedule)
        self.instruments = instruments
        self.now_ns = START_NS
        self.box = Outbox()
        self.seen: list[tuple[int, str]] = []  # when, payload

    def stream(self, index: int, name: str = "quote", **options) -> DataStream:
        instrument = self.instruments[index]

        def encode(variant: int, now: Now) -> bytes:
            return f"{name} {instrument.index} {instrument.update_id} {variant}".encode()

        return DataStream(f"{name}.{index}", instrument, encode, **options)

    def add(self, stream: DataStream, box: Outbox | None = None, variant: int = 0) -> None:
        self.broadcast.add(stream, variant, box or self.box, self.now_ns)

    def run(self, seconds: float, tick_ms: float = 1.0) -> None:
        end_ns = self.now_ns + int(seconds * NS_PER_S)
        while self.now_ns < end_ns:
            self.now_ns += int(tick_ms * NS_PER_MS)
            self.step()

    def step(self) -> None:
        dirty: list[Outbox] = []
        self.broadcast.run(Now(self.now_ns, self.now_ns), dirty)
        self.seen += [(self.now_ns, frames.payload_of(frame).decode()) for frame in self.box.frames]
        for box in dirty:
            box.frames.clear()

    def times(self, name: str, index: int = 0) -> list[int]:
        """When an instrument had messages under a name."""
        return [at_ns for at_ns, text in self.seen if text.split()[:2] == [name, str(index)]]

    def count(self, name: str) -> dict[int, int]:
        """How many messages each instrument had under a name."""
        counts: dict[int, int] = {}
        for _, text in self.seen:
            kind, index, *_ = text.split()
            if kind == name:
                counts[int(index)] = counts.get(int(index), 0) + 1
        return counts


def rated(rate: float, seed: int = 1) -> World:
    """A market at a known rate."""
    return World(FixedRate(rate, seed), instruments_of(universe(seed, 60, ()), seed))
