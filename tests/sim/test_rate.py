"""A known rate, in simulated time: how much, when, for which symbols."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.sim.protocol import NS_PER_MS, NS_PER_S
from feedhandler.sim.rate import CATCH_UP_S

from .listener import rated


@pytest.mark.long
@settings(max_examples=25, deadline=None)
@given(rate=st.sampled_from([1, 7.5, 100, 1000, 20_000]), tick_ms=st.sampled_from([0.3, 1, 2, 17]))
def test_the_rate_holds_whatever_the_tick(rate, tick_ms):
    world = rated(rate)
    for index in range(10):
        world.add(world.stream(index))
    seconds = 2.0 if rate < 1000 else 0.5
    world.run(seconds, tick_ms)
    assert abs(world.broadcast.updates - rate * seconds) <= 1 + rate * tick_ms / 1000
    assert world.schedule.skipped == 0


def test_nobody_listening_costs_nothing():
    world = rated(50_000)
    world.run(1.0)
    assert world.broadcast.updates == 0
    assert world.broadcast.next_due_ns(world.now_ns) > world.now_ns + NS_PER_S // 2


def test_the_time_before_the_first_listener_is_no_arrears():
    world = rated(1000)
    world.run(1.0)
    world.now_ns += NS_PER_S
    world.add(world.stream(0))
    world.now_ns += NS_PER_MS
    world.step()
    assert len(world.seen) == 1


def test_every_symbol_gets_some_and_the_first_get_more():
    world = rated(1000)
    for index in reversed(range(50)):
        world.add(world.stream(index))
    world.run(10.0)
    counts = world.count("quote")
    assert counts.keys() == set(range(50))
    assert min(counts.values()) >= 10_000 / 4 / 50 - 1
    assert counts[0] > 5 * counts[49]


def test_a_regular_stream_keeps_its_period():
    world = rated(1000)
    world.add(world.stream(0, "regular", regular_every_ns=NS_PER_S))
    for index in range(20):
        world.add(world.stream(index))
    world.run(10.0)
    times = [at_ns for at_ns, text in world.seen if text.startswith("regular")]
    gaps = [(later - earlier) / NS_PER_S for earlier, later in itertools.pairwise(times)]
    assert len(times) == 10
    assert all(abs(gap - 1.0) < 0.01 for gap in gaps)


def test_only_regular_streams_do_not_fill_the_rate():
    world = rated(50_000)
    for index in range(20):
        world.add(world.stream(index, "regular", regular_every_ns=NS_PER_S))
    world.run(5.0)
    assert world.broadcast.updates == 100


def test_below_the_cadence_regular_and_real_time_share_the_rate():
    world = rated(20)
    for index in range(50):
        world.add(world.stream(index, "regular", regular_every_ns=NS_PER_S))
        world.add(world.stream(index))
    world.run(10.0)
    assert sum(world.count("regular").values()) == pytest.approx(100, abs=2)
    assert sum(world.count("quote").values()) == pytest.approx(100, abs=2)
    assert world.count("regular").keys() == set(range(50)), "none is starved"


def test_update_ids_of_a_symbol_strictly_increase():
    world = rated(2000)
    for index in range(10):
        world.add(world.stream(index))
    world.run(2.0)
    last: dict[str, int] = {}
    for _, text in world.seen:
        _, index, update_id, _ = text.split()
        assert int(update_id) > last.get(index, 0)
        last[index] = int(update_id)


def test_a_ticker_does_not_move_a_quote_that_somebody_else_hears():
    world = rated(1000)
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
    world = rated(10_000)
    world.add(world.stream(0, "slow", at_most_every_ns=50 * NS_PER_MS))
    world.add(world.stream(1))
    world.run(2.0)
    times = [at_ns for at_ns, text in world.seen if text.startswith("slow")]
    assert all(later - earlier >= 50 * NS_PER_MS for earlier, later in itertools.pairwise(times))
    assert len(times) > 30


def test_a_long_stop_is_made_up_for_in_part_and_counted():
    world = rated(1000)
    world.add(world.stream(0))
    world.run(0.1)
    before = world.broadcast.updates
    world.now_ns += 10 * NS_PER_S
    world.step()
    assert world.broadcast.updates - before == 1000 * CATCH_UP_S
    assert world.schedule.skipped == pytest.approx(10_000 - 1000 * CATCH_UP_S, abs=2)
    assert world.schedule.late_ns_max == pytest.approx(10 * NS_PER_S, rel=0.01)


def test_the_same_seed_sends_the_same():
    def play(seed: int) -> list[tuple[int, str]]:
        world = rated(500, seed)
        for index in range(20):
            world.add(world.stream(index))
        world.run(1.0)
        return world.seen

    assert play(1) == play(1)
    assert play(1) != play(2)


def test_a_muted_stream_is_passed_over():
    world = rated(1000)
    muted = world.stream(0)
    world.add(muted)
    world.add(world.stream(1))
    muted.is_muted = True
    world.run(1.0)
    assert world.count("quote") == {1: pytest.approx(1000, abs=2)}


def test_a_new_rate_holds_from_now_on():
    world = rated(1000)
    world.add(world.stream(0))
    world.run(1.0)
    world.schedule.set_rate(100)
    before = world.broadcast.updates
    world.run(2.0)
    assert world.broadcast.updates - before == pytest.approx(200, abs=2)
