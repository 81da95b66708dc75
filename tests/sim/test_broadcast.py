"""The schedule, in simulated time: how much, when, to whom."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.sim import frames
from feedhandler.sim.broadcast import CATCH_UP_S, Broadcast
from feedhandler.sim.market import Market, universe
from feedhandler.sim.protocol import NS_PER_MS, NS_PER_S, Now, Outbox, Stream

START_NS = 5_000 * NS_PER_S


class World:
    """A broadcast with streams of a small market, and time that the test moves."""

    def __init__(self, rate: float, seed: int = 1) -> None:
        self.broadcast = Broadcast(rate, seed)
        self.instruments = Market(universe(seed, 60, ()), seed).instruments
        self.now_ns = START_NS
        self.box = Outbox()
        self.seen: list[tuple[int, str]] = []  # when, payload

    def stream(self, index: int, name: str = "quote", **options) -> Stream:
        instrument = self.instruments[index]

        def encode(variant: int, now: Now) -> bytes:
            return f"{name} {instrument.index} {instrument.update_id} {variant}".encode()

        return Stream(f"{name}.{index}", instrument, encode, **options)

    def add(self, stream: Stream, box: Outbox | None = None, variant: int = 0) -> None:
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

    def count(self, name: str) -> dict[int, int]:
        """How many messages each instrument had under a name."""
        counts: dict[int, int] = {}
        for _, text in self.seen:
            kind, index, *_ = text.split()
            if kind == name:
                counts[int(index)] = counts.get(int(index), 0) + 1
        return counts


@settings(max_examples=25, deadline=None)
@given(rate=st.sampled_from([1, 7.5, 100, 1000, 20_000]), tick_ms=st.sampled_from([0.3, 1, 2, 17]))
def test_the_rate_holds_whatever_the_tick(rate, tick_ms):
    world = World(rate)
    for index in range(10):
        world.add(world.stream(index))
    seconds = 2.0 if rate < 1000 else 0.5
    world.run(seconds, tick_ms)
    assert abs(world.broadcast.updates - rate * seconds) <= 1 + rate * tick_ms / 1000
    assert world.broadcast.skipped == 0


def test_nobody_listening_costs_nothing():
    world = World(50_000)
    world.run(1.0)
    assert world.broadcast.updates == 0
    assert world.broadcast.next_due_ns(world.now_ns) > world.now_ns + NS_PER_S // 2


def test_the_time_before_the_first_listener_is_no_arrears():
    world = World(1000)
    world.run(1.0)
    world.now_ns += NS_PER_S
    world.add(world.stream(0))
    world.now_ns += NS_PER_MS
    world.step()
    assert len(world.seen) == 1


def test_every_symbol_gets_some_and_the_first_get_more():
    world = World(1000)
    for index in reversed(range(50)):
        world.add(world.stream(index))
    world.run(10.0)
    counts = world.count("quote")
    assert counts.keys() == set(range(50))
    assert min(counts.values()) >= 10_000 / 4 / 50 - 1
    assert counts[0] > 5 * counts[49]


def test_a_regular_stream_keeps_its_period():
    world = World(1000)
    world.add(world.stream(0, "regular", regular_every_ns=NS_PER_S))
    for index in range(20):
        world.add(world.stream(index))
    world.run(10.0)
    times = [at_ns for at_ns, text in world.seen if text.startswith("regular")]
    gaps = [(later - earlier) / NS_PER_S for earlier, later in itertools.pairwise(times)]
    assert len(times) == 10
    assert all(abs(gap - 1.0) < 0.01 for gap in gaps)


def test_only_regular_streams_do_not_fill_the_rate():
    world = World(50_000)
    for index in range(20):
        world.add(world.stream(index, "regular", regular_every_ns=NS_PER_S))
    world.run(5.0)
    assert world.broadcast.updates == 100


def test_below_the_cadence_regular_and_real_time_share_the_rate():
    world = World(20)
    for index in range(50):
        world.add(world.stream(index, "regular", regular_every_ns=NS_PER_S))
        world.add(world.stream(index))
    world.run(10.0)
    assert sum(world.count("regular").values()) == pytest.approx(100, abs=2)
    assert sum(world.count("quote").values()) == pytest.approx(100, abs=2)
    assert world.count("regular").keys() == set(range(50)), "none is starved"


def test_update_ids_of_a_symbol_strictly_increase():
    world = World(2000)
    for index in range(10):
        world.add(world.stream(index))
    world.run(2.0)
    last: dict[str, int] = {}
    for _, text in world.seen:
        _, index, update_id, _ = text.split()
        assert int(update_id) > last.get(index, 0)
        last[index] = int(update_id)


def test_a_ticker_does_not_move_a_quote_that_somebody_else_hears():
    world = World(1000)
    world.add(world.stream(0))
    world.add(world.stream(0, "regular", regular_every_ns=NS_PER_S // 10))
    world.run(2.0)
    ids: list[int] = []
    for _, text in world.seen:
        name, _, update_id, _ = text.split()
        if name == "regular" and ids:
            assert int(update_id) == ids[-1], "the ticker shows the quote that was sent last"
        elif name == "quote":
            ids.append(int(update_id))


def test_a_throttled_stream_keeps_its_distance():
    world = World(10_000)
    world.add(world.stream(0, "slow", at_most_every_ns=50 * NS_PER_MS))
    world.add(world.stream(1))
    world.run(2.0)
    times = [at_ns for at_ns, text in world.seen if text.startswith("slow")]
    assert all(later - earlier >= 50 * NS_PER_MS for earlier, later in itertools.pairwise(times))
    assert len(times) > 30


def test_silence_is_broken_by_the_same_payload_again():
    world = World(1)
    for index in range(40):
        world.add(world.stream(index, repeat_every_ns=3 * NS_PER_S))
    world.run(10.0, tick_ms=5)
    by_index: dict[str, list[tuple[int, str]]] = {}
    for at_ns, text in world.seen:
        by_index.setdefault(text.split()[1], []).append((at_ns, text))
    assert len(by_index) == 40, "although the rate is one update per second"
    for entries in by_index.values():
        gaps = [(later[0] - earlier[0]) / NS_PER_S for earlier, later in itertools.pairwise(entries)]
        assert all(gap <= 3.2 for gap in gaps)
    assert any(len({text for _, text in entries}) < len(entries) for entries in by_index.values())
    assert world.broadcast.updates <= 11, "a repeat is no update"


def test_a_long_stop_is_made_up_for_in_part_and_counted():
    world = World(1000)
    world.add(world.stream(0))
    world.run(0.1)
    before = world.broadcast.updates
    world.now_ns += 10 * NS_PER_S
    world.step()
    assert world.broadcast.updates - before == 1000 * CATCH_UP_S
    assert world.broadcast.skipped == pytest.approx(10_000 - 1000 * CATCH_UP_S, abs=2)
    assert world.broadcast.late_ns_max == pytest.approx(10 * NS_PER_S, rel=0.01)


def test_each_listener_gets_a_copy_in_its_own_variant():
    world = World(100)
    other, third = Outbox(), Outbox()
    stream = world.stream(0)
    world.add(stream)
    world.add(stream, other, variant=1)
    world.add(stream, third, variant=1)
    world.now_ns += 10 * NS_PER_MS
    dirty: list[Outbox] = []
    world.broadcast.run(Now(world.now_ns, world.now_ns), dirty)
    assert dirty == [world.box, other, third]
    assert other.frames == third.frames
    assert frames.payload_of(world.box.frames[0]).endswith(b" 0")
    assert frames.payload_of(other.frames[0]).endswith(b" 1")
    assert world.broadcast.updates == 1
    assert world.broadcast.frames == 3


def test_whoever_left_hears_nothing_more():
    world = World(1000)
    stream = world.stream(0)
    world.add(stream)
    world.add(world.stream(1, "regular", regular_every_ns=NS_PER_S // 10))
    world.run(0.5)
    world.broadcast.remove("quote.0", world.box)
    world.broadcast.remove("regular.1", world.box)
    world.broadcast.remove("never.0", world.box)
    world.seen.clear()
    world.run(1.0)
    assert world.seen == []
    assert world.broadcast.topics() == []
    assert stream.instrument.quote_stream_count == 0


def test_the_same_seed_sends_the_same():
    def play(seed: int) -> list[tuple[int, str]]:
        world = World(500, seed)
        for index in range(20):
            world.add(world.stream(index))
        world.run(1.0)
        return world.seen

    assert play(1) == play(1)
    assert play(1) != play(2)


def test_a_duplicate_follows_at_once():
    world = World(1000)
    world.add(world.stream(0))
    world.broadcast.tamper(copies=3, delay=0, symbol_topics=None)
    world.run(0.1)
    texts = [text for _, text in world.seen]
    assert sum(earlier == later for earlier, later in itertools.pairwise(texts)) == 3


def test_a_late_frame_comes_after_newer_ones():
    world = World(1000)
    world.add(world.stream(0))
    world.add(world.stream(1))
    world.broadcast.tamper(copies=1, delay=3, symbol_topics={"quote.1"})
    world.run(0.2)
    ids = [int(text.split()[2]) for _, text in world.seen if text.split()[1] == "1"]
    late = [position for position in range(1, len(ids)) if ids[position] < ids[position - 1]]
    assert len(late) == 1
    assert ids[late[0]] == ids[0]


def test_a_muted_stream_is_passed_over():
    world = World(1000)
    muted = world.stream(0)
    world.add(muted)
    world.add(world.stream(1))
    muted.is_muted = True
    world.run(1.0)
    assert world.count("quote") == {1: pytest.approx(1000, abs=2)}


def test_a_new_rate_holds_from_now_on():
    world = World(1000)
    world.add(world.stream(0))
    world.run(1.0)
    world.broadcast.set_rate(100)
    before = world.broadcast.updates
    world.run(2.0)
    assert world.broadcast.updates - before == pytest.approx(200, abs=2)


def test_subscribing_and_leaving_at_random_leaves_nothing_behind():
    rng = random.Random(11)
    world = World(500)
    boxes = [Outbox() for _ in range(4)]
    streams = [world.stream(index) for index in range(20)]
    streams += [world.stream(index, "regular", regular_every_ns=NS_PER_S // 5) for index in range(20)]
    for _ in range(2000):
        stream, box = rng.choice(streams), rng.choice(boxes)
        if rng.random() < 0.5:
            world.broadcast.add(world.broadcast.find(stream.topic) or stream, 0, box, world.now_ns)
        else:
            world.broadcast.remove(stream.topic, box)
        if rng.random() < 0.1:
            world.run(0.01)
    for stream in streams:
        for box in boxes:
            world.broadcast.remove(stream.topic, box)
    assert world.broadcast.topics() == []
    assert all(each.quote_stream_count == 0 for each in world.instruments)
    before = world.broadcast.updates
    world.run(1.0)
    assert world.broadcast.updates == before
