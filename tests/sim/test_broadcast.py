"""Who hears what, in which form, how often, in simulated time."""

import itertools
import random

from feedhandler.sim import frames
from feedhandler.sim.protocol import NS_PER_MS, NS_PER_S, Now, Outbox

from .listener import rated


def test_silence_is_broken_by_the_same_payload_again():
    world = rated(1)
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


def test_each_listener_gets_a_copy_in_its_own_variant():
    world = rated(100)
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
    world = rated(1000)
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


def test_a_duplicate_follows_at_once():
    world = rated(1000)
    world.add(world.stream(0))
    world.broadcast.tamper(copies=3, delay=0, symbol_topics=None)
    world.run(0.1)
    texts = [text for _, text in world.seen]
    assert sum(earlier == later for earlier, later in itertools.pairwise(texts)) == 3


def test_a_late_frame_comes_after_newer_ones():
    world = rated(1000)
    world.add(world.stream(0))
    world.add(world.stream(1))
    world.broadcast.tamper(copies=1, delay=3, symbol_topics={"quote.1"})
    world.run(0.2)
    ids = [int(text.split()[2]) for _, text in world.seen if text.split()[1] == "1"]
    late = [position for position in range(1, len(ids)) if ids[position] < ids[position - 1]]
    assert len(late) == 1
    assert ids[late[0]] == ids[0]


def test_subscribing_and_leaving_at_random_leaves_nothing_behind():
    rng = random.Random(11)
    world = rated(500)
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
