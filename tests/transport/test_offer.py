"""A feed's offer to a recorder: one subscriber at a time, who may leave in order, and whose slowness is told."""

import zmq

from feedhandler.transport.links import Downlink
from feedhandler.transport.offer import Offer


def offer(world, **settings):
    joined = []
    made = Offer(
        world.loop,
        [world.endpoint()],
        lambda: joined.append(made.send(b"first")),
        key="raw",
        queue_size_max=settings.get("queue_size_max", 1_000_000),
    )
    world.parts.append(made)
    return made, joined


def downlink(world, received):
    made = Downlink(world.loop, world.endpoint(), [b""], received.append)
    world.parts.append(made)
    made.poll()
    return made


def test_what_is_sent_when_a_subscriber_joins_is_the_first_that_it_gets(world):
    made, joined = offer(world)
    assert made.send(b"nobody is there") is False
    received = []
    downlink(world, received)
    world.until(lambda: made.is_joined)
    assert joined == [True]
    assert made.send(b"second") is True
    world.until(lambda: received == [b"first", b"second"])


def test_any_subscriber_of_zeromq_may_read(world):
    made, _ = offer(world)
    subscriber = world.subscriber(b"")
    assert world.receive(subscriber) == [b"first"]
    assert made.is_joined


def test_a_second_subscriber_is_turned_away_until_the_first_has_gone(world):
    made, _ = offer(world)
    first, second = [], []
    one = downlink(world, first)
    world.until(lambda: made.is_joined)
    other = downlink(world, second)
    world.until(lambda: not other.is_connected)
    made.send(b"x")
    world.until(lambda: first == [b"first", b"x"])
    assert second == []
    one.close()
    world.until(lambda: other.poll() and made.is_joined)
    world.until(lambda: second == [b"first"])


def test_one_that_does_not_read_is_told_and_costs_no_time(world):
    made, _ = offer(world, queue_size_max=100_000)
    received = []
    slow = downlink(world, received)
    world.until(lambda: made.is_joined)
    slow.pause()
    sent = 0
    while made.send(bytes(10_000)):
        sent += 1
    assert made.is_joined
    slow.resume()
    world.until(lambda: len(received) == 1 + sent)
    assert made.send(b"there is room again")


def test_one_that_leaves_gets_what_is_queued_and_then_the_end(world):
    made, _ = offer(world, queue_size_max=10_000_000)
    received = []
    leaving = downlink(world, received)
    world.until(lambda: made.is_joined)
    leaving.pause()
    for _ in range(500):
        assert made.send(bytes(10_000))
    leaving.leave()
    world.until(lambda: not made.is_joined)
    assert made.send(b"for the next one") is False
    assert leaving.is_connected
    leaving.resume()
    world.until(lambda: not leaving.is_connected)
    assert len(received) == 501


def test_one_that_dies_makes_room_for_the_next(world):
    made, joined = offer(world)
    subscriber = world.socket(zmq.SUB)
    subscriber.set(zmq.SUBSCRIBE, b"")
    subscriber.connect(world.endpoint())
    world.until(lambda: made.is_joined)
    subscriber.close()
    world.until(lambda: not made.is_joined)
    received = []
    downlink(world, received)
    world.until(lambda: len(joined) == 2)
