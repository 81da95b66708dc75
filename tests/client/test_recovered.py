"""Holes are mended in order, whatever is lost, late, forged or away."""

import random

import msgspec
import pytest
from seeds import seeds

from feedhandler.client.recovery import DOUBT_NS, HELD_MAX, PATIENCE_NS, Recovery
from feedhandler.data import retransmission, wire
from feedhandler.data.retransmission import Head, Missing
from feedhandler.transport.boards import BoardReader, BoardWriter
from feedhandler.transport.follower import Follower

SESSION = 1_790_000_000
BTC, ETH = "ticker.binance.BTC/USDT", "ticker.binance.ETH/USDT"


class World:
    """A merger that publishes, and a subscriber that hears as much as the test lets it."""

    def __init__(self, path):
        self.path = path
        self.now_ns = 0
        self.out = []
        self.follower = Follower(self.out.append)
        self.recovery = Recovery(self.follower, self.out.append, lambda: self.now_ns)
        self.follower.on_gap = self.recovery.on_gap
        self.recovery.is_connected = True
        self.restart(SESSION)

    def restart(self, session):
        self.session = session
        self.writer = BoardWriter(self.path, depth=16, slots_max=1000, session=session)
        self.ring = BoardReader(self.path)
        self.sequences = {}

    def publish(self, topic=BTC, *, is_heard=True):
        number = self.sequences[topic] = self.sequences.get(topic, 0) + 1
        message = wire.pack_ticker(wire.Ticker(topic, session=self.session, sequence=number))
        self.writer.slot(topic).write(message, 1)
        if is_heard:
            self.follower.take(message)

    def ask(self):
        return self.recovery.request()

    def answer(self, request):
        self.recovery.on_answer(retransmission.answer(request, self.ring, {}).frames)

    def heal(self):
        while (request := self.ask()) is not None:
            self.answer(request)

    def seen(self, topic=BTC):
        return [record.sequence for record in self.out if record.topic == topic]

    @property
    def lost(self):
        return sum(loss.lost for loss in self.follower.losses.values())


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "recent.board")


def test_what_was_missed_comes_in_its_place(world):
    for number in range(1, 11):
        world.publish(is_heard=number not in (4, 5, 8))
        world.publish(ETH)
    assert world.seen() == [1, 2, 3], "what follows a gap is held back"
    assert world.seen(ETH) == list(range(1, 11)), "other topics are not"
    world.heal()
    assert world.seen() == list(range(1, 11))
    loss = world.follower.losses[BTC]
    assert (loss.lost, loss.gaps, loss.recovered, world.recovery.recovered) == (0, 2, 3, 3)
    assert not world.recovery.is_recovering
    assert not world.follower.held


def test_a_hole_that_opens_while_another_is_asked_for_is_asked_for_next(world):
    world.publish()
    world.publish(is_heard=False)
    world.publish()
    request = world.ask()
    assert world.ask() is None, "one at a time"
    world.publish(is_heard=False)
    world.publish()
    world.answer(request)
    assert world.seen() == [1]
    world.heal()
    assert world.seen() == [1, 2, 3, 4, 5]


def test_what_the_ring_has_no_more_stays_lost_and_the_rest_comes(world):
    for number in range(1, 41):
        world.publish(is_heard=number == 1 or number == 40)
    world.heal()
    assert world.seen() == [1, *range(25, 41)]
    assert world.lost == 23


def test_a_new_session_is_no_hole_and_ends_one(world):
    world.publish()
    world.publish(is_heard=False)
    world.publish()
    request = world.ask()
    world.restart(SESSION + 1)
    world.publish()
    world.answer(request)
    assert [(r.session, r.sequence) for r in world.out] == [
        (SESSION, 1),
        (SESSION, 3),
        (SESSION + 1, 1),
    ]


def test_nothing_is_held_back_for_longer_than_patience(world):
    world.publish()
    world.publish(is_heard=False)
    world.publish()
    world.ask()
    world.now_ns += PATIENCE_NS
    world.recovery.on_time()
    assert world.seen() == [1]
    world.now_ns += 1
    world.recovery.on_time()
    assert world.seen() == [1, 3]
    assert world.lost == 1


def test_nothing_is_held_back_without_anybody_to_ask(world):
    world.publish()
    world.publish(is_heard=False)
    world.publish()
    world.recovery.on_disconnect()
    assert world.seen() == [1, 3]
    world.publish(is_heard=False)
    world.publish()
    assert world.seen() == [1, 3, 5]
    assert world.ask() is None
    world.recovery.is_connected = True
    world.publish(is_heard=False)
    world.publish()
    world.heal()
    assert world.seen() == [1, 3, 5, 6, 7]


def test_too_much_is_not_held_back(world):
    world.publish()
    world.publish(is_heard=False)
    for _ in range(HELD_MAX + 1):
        world.publish()
    world.recovery.on_time()
    assert len(world.seen()) == HELD_MAX + 2


def records(*numbers, topic=BTC, session=SESSION):
    return b"".join(wire.pack_ticker(wire.Ticker(topic, session=session, sequence=n)) for n in numbers)


def test_an_answer_that_comes_too_late_is_not_for_the_next_hole(world):
    world.publish()
    world.publish(is_heard=False)
    world.publish()
    late = world.ask()
    world.now_ns += PATIENCE_NS + 1
    world.recovery.on_time()
    assert world.seen() == [1, 3]
    world.publish(is_heard=False)
    world.publish()
    world.answer(late)
    world.now_ns += DOUBT_NS
    world.publish(is_heard=False)
    world.publish()
    world.heal()
    assert world.seen() == sorted(set(world.seen()))
    assert world.seen()[-2:] == [6, 7]


def test_one_who_was_busy_when_a_hole_came_asks_all_the_same(world):
    world.publish()
    world.publish(is_heard=False)
    world.publish()
    world.now_ns += PATIENCE_NS + 1
    request = world.ask()
    world.recovery.on_time()
    world.answer(request)
    assert world.seen() == [1, 2, 3]


def test_a_relay_that_does_not_answer_is_not_waited_for_again_and_again(world):
    for _ in range(5):
        world.publish(is_heard=False)
        world.publish()
        world.publish(is_heard=False)
        world.publish()
        world.ask()
        world.now_ns += PATIENCE_NS + 1
        world.recovery.on_time()
    assert world.ask() is None
    world.publish(is_heard=False)
    world.publish()
    assert world.seen()[-1] == world.sequences[BTC], "nothing is held back any more"
    world.now_ns += DOUBT_NS + 1
    world.publish(is_heard=False)
    world.publish()
    world.heal()
    assert world.seen()[-2:] == [world.sequences[BTC] - 1, world.sequences[BTC]]


def test_what_was_not_asked_for_is_not_asked_for_because_an_answer_says_so(world):
    for _ in range(11):
        world.publish()
    world.publish(is_heard=False)
    world.publish()
    world.ask()
    head = Head(id=1, session=SESSION, rest=[Missing(BTC, 1, 9)])
    world.recovery.on_answer([msgspec.json.encode(head), b""])
    world.heal()
    assert world.seen() == [*range(1, 12), 13]
    assert world.lost == 1


def test_a_restart_within_a_hole_counts_for_the_new_session_alone(world):
    world.publish()
    world.publish(is_heard=False)
    world.publish()
    world.restart(SESSION + 1)
    world.publish()
    world.publish(is_heard=False)
    world.publish()
    world.heal()
    assert [(r.session - SESSION, r.sequence) for r in world.out] == [(0, 1), (0, 3), (1, 1), (1, 2), (1, 3)]
    loss = world.follower.losses[BTC]
    assert (loss.lost, loss.recovered, world.recovery.recovered) == (1, 1, 1)


FORGED = [
    ("nothing asked for", lambda head: [head, records(1, 3, 99)]),
    ("another topic", lambda head: [head, records(2, topic=ETH)]),
    ("another session", lambda head: [head, records(2, session=5)]),
    ("half a record", lambda head: [head, records(2)[:-1]]),
    (
        "a document",
        lambda head: [head, wire.pack_document(wire.Document(BTC, kind=wire.STATUS, body=b"x" * 88))],
    ),
    ("no head", lambda head: [b"", records(2)]),
    ("no frames", lambda head: []),
    ("another request's", lambda head: [msgspec.json.encode(Head(id=99)), records(2)]),
]


@pytest.mark.parametrize("frames", [case for _, case in FORGED], ids=[name for name, _ in FORGED])
def test_a_forged_answer_brings_nothing_that_was_not_asked_for(world, frames):
    world.publish()
    world.publish(is_heard=False)
    world.publish()
    world.ask()
    head = msgspec.json.encode(Head(id=1, session=SESSION))
    world.recovery.on_answer(frames(head))
    world.now_ns += 2 * PATIENCE_NS
    world.recovery.on_time()
    assert world.seen() == [1, 3]
    assert world.lost == 1


def test_an_answer_that_comes_twice_is_taken_once(world):
    world.publish()
    world.publish(is_heard=False)
    world.publish()
    frames = retransmission.answer(world.ask(), world.ring, {}).frames
    world.recovery.on_answer(frames)
    world.recovery.on_answer(frames)
    assert world.seen() == [1, 2, 3]


@pytest.mark.parametrize("seed", seeds(30))
def test_within_the_ring_nothing_is_missing_whatever_is_lost_on_the_way(world, seed):
    """In order, once each; answers come late, connections end, the clock goes on."""
    rng = random.Random(seed)
    request, run = None, 0
    for _ in range(2000):
        topic = rng.choice((BTC, ETH))
        run = run + 1 if rng.random() < 0.3 else 0
        world.publish(topic, is_heard=run in (0, 6))
        if request is not None and rng.random() < 0.5:
            world.answer(request)
            request = None
        if request is None and rng.random() < 0.7:
            request = world.ask()
    if request is not None:
        world.answer(request)
    for topic in (BTC, ETH):
        world.publish(topic)
    world.heal()
    for topic in (BTC, ETH):
        seen = world.seen(topic)
        assert seen == sorted(set(seen))
        assert len(seen) == world.sequences[topic] - seen[0] + 1
    assert world.lost == 0
