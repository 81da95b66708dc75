"""What subscribers ask for, and what each gets first: who gets how much of a turn, and in which order it comes."""

import random
import socket
from collections import deque

import pytest
import zmq
from ends import ETH, ticker

from feedhandler.data import wire
from feedhandler.data.topics import EMPTY_KEPT
from feedhandler.transport import subscribing, zmtp
from feedhandler.transport.outlet import Outlet
from feedhandler.transport.subscribing import (
    BUDGET,
    JOINING_MAX,
    QUANTUM,
    REQUEST_COST,
    ROOM,
    TURN_S,
    WASTE_REMEMBERED_S,
    WASTED_BURST_S,
    WASTED_PER_S,
    Subscribers,
    Subscriptions,
)

TOPICS = [wire.padded(wire.topic(wire.TICKER, "binance", f"S{n:05}/USDT")) for n in range(15_000)]


class Peer:
    """A connection whose requests are there already; what it gets leaves at once, unless it is slow."""

    def __init__(self, world, requests=(), *, is_slow=False):
        self.world, self.requests, self.is_slow = world, deque(requests), is_slow
        self.subscriptions = Subscriptions()
        self.join = self.on_room = self.cut_off_for = None
        self.is_open, self.is_paused, self.is_gone = True, False, False
        self.queued = self.taken = self.resumed = 0
        self.got = []

    def read(self):
        while self.requests and self.is_open and not self.is_paused:
            self.taken += 1
            self.world.subscribers.take(self, self.requests.popleft())

    def put(self, message):
        self.got.append(bytes(message[: wire.TOPIC_SIZE]))
        self.queued += len(message)

    def flush(self):
        if not self.is_slow:
            self.drain()

    def drain(self):
        self.queued = 0
        if self.on_room is not None:
            self.on_room(self)

    def pause(self):
        assert not self.is_paused, "once"
        self.is_paused = True

    def resume(self):
        assert self.is_paused
        self.is_paused = False
        self.read()

    def close(self):
        self.is_open = False
        self.world.subscribers.drop(self)

    def cut_off(self, reason):
        self.cut_off_for = reason
        self.close()

    def has_hung_up(self):
        return self.is_gone


class World:
    """Turns of a loop by hand; `last` counts what is packed."""

    def __init__(self, **settings):
        self.values = dict.fromkeys(TOPICS, bytes(wire.TICKER_SIZE))
        self.packed = 0
        self.callback = None
        self.now_s = 1000.0
        self.index = subscribing.Groups()
        for topic in TOPICS:
            self.index.find(topic)
        self.wanted, self.modes = [], []
        settings = {"is_batched": False, **settings}
        self.subscribers = Subscribers(
            self,
            self,
            on_mode=lambda *mode: self.modes.append(mode),
            on_wanted=self.wanted.append,
            now_s=lambda: self.now_s,
            **settings,
        )

    def topics(self, prefix):
        return self.index._topics.under(prefix)

    def last(self, topic):
        self.packed += 1
        return topic + self.values[topic][len(topic) :]

    def call_later(self, delay, callback):
        assert self.callback is None, "one timer"
        assert delay == subscribing.TURN_S
        self.callback = callback
        return self

    def cancel(self):
        self.callback = None

    def turn(self):
        """Let a turn pass; returns how many last values were packed in it."""
        packed = self.packed
        self.now_s += TURN_S
        callback, self.callback = self.callback, None
        callback()
        return self.packed - packed

    def turns_until(self, condition, most=10_000):
        for number in range(most):
            if condition():
                return number
            self.turn()
        raise AssertionError("it never came true")


def subscribe(prefix=b""):
    return b"\x01" + prefix


def cancel(prefix=b""):
    return b"\x00" + prefix


def test_last_values_of_everything_come_in_portions_and_in_order():
    world = World()
    peer = Peer(world, [subscribe(b"ticker.")])
    peer.read()
    assert 0 < len(peer.got) <= QUANTUM
    while peer.join is not None:
        assert world.turn() <= BUDGET + QUANTUM
    assert peer.got == TOPICS
    assert not peer.is_paused
    world.turns_until(lambda: world.callback is None)
    assert world.packed == len(TOPICS), "once"


def test_a_turn_is_never_longer_than_its_budget_however_many_ask_however_much():
    world = World()
    endless = [subscribe(), cancel()] * 1000
    peers = [Peer(world, endless) for _ in range(100)]
    for _ in range(50):
        before = world.packed, sum(peer.taken for peer in peers)
        for peer in peers:
            peer.read()  # who is paused has nothing to read
        world.turn()
        packed, taken = world.packed - before[0], sum(peer.taken for peer in peers) - before[1]
        assert packed <= 2 * BUDGET + QUANTUM, "what was left when it began, and what it brings"
        # One request of each may be read and kept before it is paused; more than that comes out of the budget.
        assert taken <= len(peers) + 2 * BUDGET // REQUEST_COST
    assert world.packed <= 51 * BUDGET + QUANTUM


@pytest.mark.long
def test_one_that_asks_again_and_again_gets_its_share_and_an_innocent_is_served_in_between():
    world = World()
    greedy = [Peer(world, [subscribe(), cancel()] * 10_000) for _ in range(11)]
    for peer in greedy:
        peer.read()
    for _ in range(20):
        innocent = Peer(world, [subscribe(TOPICS[77])])
        innocent.read()
        turns = world.turns_until(lambda innocent=innocent: innocent.got == [TOPICS[77]])
        assert turns <= 2 + (len(greedy) + 1) * QUANTUM // BUDGET
    world.turns_until(lambda: all(peer.taken >= 5 for peer in greedy), most=20_000)
    shares = [len(peer.got) for peer in greedy]
    assert max(shares) <= min(shares) + 2 * len(TOPICS), "and the greedy are served alike"


@pytest.mark.long
def test_a_crowd_that_joins_and_stays_gets_the_whole_budget():
    world = World()
    crowd = [Peer(world, [subscribe()]) for _ in range(20)]
    for peer in crowd:
        peer.read()
    turns = world.turns_until(lambda: all(len(peer.got) == len(TOPICS) for peer in crowd))
    assert turns <= 1.1 * len(crowd) * len(TOPICS) / BUDGET


class ComesAndGoes:
    """Joins everything, leaves once it has so many topics, and comes again."""

    def __init__(self, world, patience):
        self.world, self.patience, self.visits = world, patience, 0
        self.come()

    def come(self):
        self.visits += 1
        self.peer = Peer(self.world, [subscribe()])
        self.peer.read()

    def turn(self):
        if len(self.peer.got) >= self.patience:
            self.peer.close()
            self.come()


@pytest.mark.long
@pytest.mark.parametrize(
    "patience", [1, *(pytest.param(each, marks=pytest.mark.many) for each in (QUANTUM, 1000)), len(TOPICS)]
)
@pytest.mark.parametrize("count", [1, pytest.param(10, marks=pytest.mark.many)])
def test_those_that_join_and_leave_in_a_loop_get_a_small_part_of_the_budget_together(count, patience):
    world = World()
    restless = [ComesAndGoes(world, patience) for _ in range(count)]
    seconds = 30
    for _ in range(int(seconds / TURN_S)):
        world.turn()
        for each in restless:
            each.turn()
    assert all(each.visits > 1 for each in restless)
    under_way = count * len(TOPICS)  # is not wasted yet
    assert world.packed <= (seconds + WASTED_BURST_S) * WASTED_PER_S + under_way


@pytest.mark.long
def test_one_that_joins_for_good_is_served_among_those_that_come_and_go():
    world = World()
    restless = [ComesAndGoes(world, len(TOPICS)) for _ in range(5)]
    for _ in range(10_000):
        world.turn()
        for each in restless:
            each.turn()
    steady, narrow = Peer(world, [subscribe(b"ticker.")]), Peer(world, [subscribe(TOPICS[3])])
    for peer in (steady, narrow):
        peer.read()
    turns = {}
    for number in range(10_000):
        world.turn()
        for each in restless:
            each.turn()
        for peer, wanted in ((steady, TOPICS), (narrow, [TOPICS[3]])):
            if len(peer.got) == len(wanted):
                turns.setdefault(peer, number)
    assert turns[narrow] * TURN_S <= (JOINING_MAX + 2) * QUANTUM / WASTED_PER_S + TURN_S
    assert turns[steady] * TURN_S <= (len(restless) + 2) * len(TOPICS) / WASTED_PER_S


@pytest.mark.long
def test_after_a_crowd_has_left_at_once_the_whole_budget_is_soon_there_again():
    world = World()
    crowd = [Peer(world, [subscribe()]) for _ in range(50)]
    for peer in crowd:
        peer.read()
    world.turns_until(lambda: all(len(peer.got) == len(TOPICS) for peer in crowd))
    for peer in crowd:
        peer.close()
    assert 50 * len(TOPICS) / WASTED_PER_S > 2 * WASTE_REMEMBERED_S
    world.now_s += WASTE_REMEMBERED_S + 2 * len(TOPICS) / WASTED_PER_S
    peer = Peer(world, [subscribe()])
    peer.read()
    assert world.turns_until(lambda: peer.got == TOPICS) <= 1.1 * len(TOPICS) / BUDGET + 2


@pytest.mark.long
def test_few_join_at_a_time_and_the_others_wait_unread_in_their_order():
    world = World()
    crowd = [Peer(world, [subscribe(b"ticker."), subscribe(b"status.")]) for _ in range(20)]
    for peer in crowd:
        peer.read()
    finished = []

    def is_over():
        assert sum(peer.join is not None for peer in crowd) <= JOINING_MAX
        finished.extend(p for p in crowd if len(p.got) == len(TOPICS) and p not in finished)
        return len(finished) == len(crowd)

    world.turns_until(is_over)
    assert finished == crowd
    world.turns_until(lambda: world.callback is None)
    assert all(peer.taken == 2 and not peer.is_paused for peer in crowd)


def test_those_that_do_not_read_keep_nobody_from_joining():
    world = World()
    slow = [Peer(world, [subscribe()], is_slow=True) for _ in range(2 * JOINING_MAX)]
    steady = Peer(world, [subscribe()])
    for peer in (*slow, steady):
        peer.read()
    world.turns_until(lambda: steady.got == TOPICS)
    assert all(peer.queued < ROOM + wire.TICKER_SIZE for peer in slow)


def test_those_that_go_while_they_wait_to_join_are_passed_over():
    world = World()
    crowd = [Peer(world, [subscribe()]) for _ in range(JOINING_MAX + 20)]
    for peer in crowd:
        peer.read()
    hung_up, closed, stays = crowd[JOINING_MAX : JOINING_MAX + 9], crowd[JOINING_MAX + 9 : -1], crowd[-1]
    for peer in hung_up:
        peer.is_gone = True  # it is not read, so nobody has seen it
    for peer in closed:
        peer.close()
    world.turns_until(lambda: stays.got == TOPICS)
    assert not any(peer.is_open or peer.got for peer in hung_up)
    world.turns_until(lambda: world.callback is None)


@pytest.mark.long
def test_one_that_has_hung_up_before_its_request_is_read_gets_nothing():
    world = World()
    peer = Peer(world, [subscribe()])
    peer.is_gone = True
    peer.read()
    assert not peer.is_open
    assert world.packed == 0
    assert world.subscribers.find(TOPICS[5]) == []


def test_one_that_has_hung_up_before_its_request_is_read_leaves_the_others_as_they_are():
    world = World()
    stays, leaves = Peer(world, [subscribe()]), Peer(world, [subscribe()])
    stays.read()
    world.turns_until(lambda: stays.got == TOPICS)
    leaves.is_gone = True
    leaves.read()
    world.turns_until(lambda: world.callback is None)
    assert not leaves.is_open
    assert world.subscribers.find(TOPICS[5]) == [[stays]]


def test_what_one_still_asks_who_has_gone_is_dropped_unread():
    world = World()
    peer = Peer(world, [subscribe(b"%d" % n) for n in range(100_000)])
    peer.read()
    taken = peer.taken
    assert taken <= QUANTUM // REQUEST_COST + 1
    peer.is_gone = True
    world.turn()
    assert not peer.is_open
    assert peer.taken == taken
    world.turns_until(lambda: world.callback is None)


def test_thousands_of_subscribers_with_one_topic_each_cost_a_few_units_each():
    world = World()
    for topic in TOPICS:
        world.subscribers.find(topic)
    peers = [Peer(world, [subscribe(topic)]) for topic in TOPICS[:2000]]
    for peer in peers:
        peer.read()
    turns = world.turns_until(lambda: all(peer.got for peer in peers))
    assert turns <= len(peers) * (REQUEST_COST + 3) // BUDGET + 2
    assert world.packed == len(peers)
    assert world.subscribers.find(TOPICS[5]) == [[peers[5]]]


def test_what_those_leave_behind_who_had_many_prefixes_is_cleaned_up_in_portions():
    world = World()
    for topic in TOPICS:
        world.subscribers.find(topic)
    rude = [subscribe(b"ticker.binance.S"[: n % 17] + b"x" * n) for n in range(1000)]
    peer = Peer(world, [*rude, subscribe(b""), subscribe(b"t")])
    peer.read()
    world.turns_until(lambda: not peer.requests and not peer.is_paused)
    peer.close()
    assert world.wanted == [True, False], "nobody wants tickers any more, at once"
    world.turns_until(lambda: world.callback is None)
    assert not any(group for groups in world.subscribers.by_topic.values() for group in groups)
    assert max(map(len, world.subscribers.by_topic.values())) <= EMPTY_KEPT


def test_one_without_room_waits_for_it_and_holds_up_nobody():
    world = World()
    slow, quick = Peer(world, [subscribe()], is_slow=True), Peer(world, [subscribe()])
    for peer in (slow, quick):
        peer.read()
    world.turns_until(lambda: quick.got == TOPICS)
    world.turns_until(lambda: world.callback is None)
    assert slow.queued < ROOM + wire.TICKER_SIZE, "it has read nothing"
    count = len(slow.got)
    slow.drain()
    world.turns_until(lambda: world.callback is None)
    assert len(slow.got) > count
    slow.is_slow = False
    slow.drain()
    world.turns_until(lambda: slow.got == TOPICS)


def test_one_without_room_may_cancel_and_its_next_subscription_waits():
    world = World()
    peer = Peer(world, [subscribe(TOPICS[1])])
    peer.read()
    peer.queued = ROOM
    peer.requests += [cancel(TOPICS[1]), subscribe(TOPICS[2])]
    peer.read()
    assert peer.subscriptions.prefixes == []
    world.turns_until(lambda: world.callback is None)
    assert peer.got == [TOPICS[1]]
    peer.drain()
    world.turns_until(lambda: len(peer.got) == 2)
    assert peer.got == [TOPICS[1], TOPICS[2]]


@pytest.mark.long
def test_a_request_that_had_to_wait_and_is_refused_ends_the_connection(monkeypatch):
    monkeypatch.setattr(subscribing, "PREFIXES_MAX", 20)
    world = World()
    peer = Peer(world, [subscribe(b"%d" % n) for n in range(30)])
    with pytest.raises(ValueError, match="more than 20 subscriptions"):
        peer.read()
        world.turns_until(lambda: not peer.is_open)
        raise ValueError(peer.cut_off_for)


# --- through real sockets, while a stream runs


class Stream:
    """Publishes numbered records of many topics, one after the other, and is their last values."""

    def __init__(self, world, count, **settings):
        self.world = world
        self.topic_list = TOPICS[:count]
        self.numbers = dict.fromkeys(self.topic_list, 1)
        self.outlet = Outlet(
            world.loop, [world.endpoint()], self, key="merger.ticks", queue_size_max=1 << 24, **settings
        )
        world.parts.append(self.outlet)
        self.rng = random.Random(1)

    def topics(self, prefix):
        return [topic for topic in self.topic_list if topic.startswith(prefix)]

    def last(self, topic):
        record = bytearray(ticker(topic, self.numbers[topic]))
        record[wire.FLAGS_OFFSET] |= wire.SNAPSHOT
        return record

    def publish(self, count):
        for _ in range(count):
            topic = self.rng.choice(self.topic_list)
            self.numbers[topic] += 1
            self.outlet.send(topic, ticker(topic, self.numbers[topic]))
        self.outlet.flush()

    def publish_batch(self):
        topics = self.rng.sample(self.topic_list, 20)
        for topic in topics:
            self.numbers[topic] += 1
        self.outlet.send(topics[-1], b"".join(ticker(topic, self.numbers[topic]) for topic in topics))
        self.outlet.flush()


def read_all(sock, records):
    while sock.poll(0):
        message = sock.recv()
        size = wire.TICKER_SIZE
        records += [wire.unpack(message[start : start + size]) for start in range(0, len(message), size)]


def by_topic(records):
    found = {}
    for record in records:
        found.setdefault(wire.padded(record.topic), []).append(record)
    return found


def check(stream, records, topics):
    """Of each topic: its last value first, and then every record, in order, to the newest."""
    found = by_topic(records)
    assert set(found) == set(topics)
    for topic, of_topic in found.items():
        assert [bool(r.flags & wire.SNAPSHOT) for r in of_topic] == [True] + [False] * (len(of_topic) - 1)
        first = of_topic[0].sequence
        assert [r.sequence for r in of_topic] == list(range(first, stream.numbers[topic] + 1))


@pytest.mark.parametrize("is_batched", [False, True], ids=["each", "batched"])
def test_a_late_joiner_gets_each_topics_last_value_first_and_then_all_while_the_stream_goes_on(
    world, is_batched
):
    stream = Stream(world, 2000, is_batched=is_batched)
    sock = world.subscriber(b"ticker.")
    records = []

    def is_through():
        if is_batched:
            stream.publish_batch()
        else:
            stream.publish(20)
        read_all(sock, records)
        return len(by_topic(records)) == 2000

    world.until(is_through)
    stream.outlet.flush()
    world.settle()
    read_all(sock, records)
    check(stream, records, stream.topic_list)
    assert len(records) > 2000, "the stream went on meanwhile"


def test_what_was_heard_already_goes_on_without_a_hole_while_a_wider_subscription_joins(world):
    stream = Stream(world, 3000)
    narrow = stream.topic_list[-300:]
    sock = world.subscriber(*narrow, SNDHWM=0)
    records = []
    world.until(lambda: (read_all(sock, records), len(records) == 300)[1])
    sock.set(zmq.SUBSCRIBE, b"ticker.")

    def is_through():
        stream.publish(20)
        read_all(sock, records)
        return len(by_topic(records)) == 3000

    world.until(is_through)
    world.settle()
    read_all(sock, records)
    for topic, of_topic in by_topic(records).items():
        live = [r.sequence for r in of_topic if not r.flags & wire.SNAPSHOT]
        first = of_topic[0].sequence
        assert live == list(range(first + 1, stream.numbers[topic] + 1))
        assert [r.sequence for r in of_topic] == sorted(r.sequence for r in of_topic), "never backwards"
        assert of_topic[0].flags & wire.SNAPSHOT


def test_a_topic_that_is_new_during_a_join_is_heard_from_its_first_record(world):
    stream = Stream(world, 3000)
    newcomer = stream.topic_list.pop()
    sock = world.subscriber(b"ticker.")
    world.until(lambda: stream.outlet.is_wanted)
    stream.topic_list.append(newcomer)
    stream.outlet.send(newcomer, ticker(newcomer, 1))
    stream.outlet.flush()
    records = []
    world.until(lambda: (read_all(sock, records), len(by_topic(records)) == 3000)[1])
    assert [r.flags for r in by_topic(records)[newcomer]] == [0]


def test_one_that_unsubscribes_during_a_join_gets_nothing_once_that_is_taken(world):
    stream = Stream(world, 3000)
    sock = world.subscriber(b"ticker.")
    records = []
    world.until(lambda: (read_all(sock, records), records)[1])
    sock.set(zmq.UNSUBSCRIBE, b"ticker.")
    world.until(lambda: (sock.poll(0), not stream.outlet.is_wanted)[1])
    world.settle()
    read_all(sock, [])
    stream.publish(5000)
    world.settle()
    assert not sock.poll(0)


def test_whoever_hangs_up_in_mid_request_or_mid_join_leaves_nothing_behind(world):
    stream = Stream(world, 3000)
    for _ in range(20):
        rude = socket.socket(socket.AF_UNIX)
        rude.connect(world.endpoint().removeprefix("ipc://"))
        ready = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
        asked = b"".join(b"\x00\x09\x01tick%04d" % n for n in range(5000))
        rude.setblocking(False)
        rude.send(zmtp.GREETING + ready + b"\x00\x01\x01" + asked)
        world.settle(0.005)
        rude.close()
    world.until(lambda: not stream.outlet.is_wanted)
    sock = world.subscriber(ETH, stream.topic_list[7])
    assert [bytes(m) for m in world.receive(sock)] == [bytes(stream.last(stream.topic_list[7]))]


@pytest.mark.parametrize("mode", [b"@latest", b"@interval=10", b"@all"])
def test_modes_join_like_everybody_and_end_on_the_newest(world, mode):
    stream = Stream(world, 2000, has_modes=True)
    sock = world.subscriber(mode, b"ticker.")
    newest, first = {}, {}

    def take():
        while sock.poll(0):
            record = wire.unpack(sock.recv())
            if record.kind == wire.TICKER:
                topic = wire.padded(record.topic)
                first.setdefault(topic, record)
                assert record.sequence >= newest.get(topic, 0), "never backwards"
                newest[topic] = record.sequence

    def is_through():
        if len(newest) < 2000:
            stream.publish(20)
        stream.outlet.on_time(zmtp.time.monotonic_ns())
        take()
        return newest == stream.numbers

    world.until(is_through)
    assert all(record.flags & wire.SNAPSHOT for record in first.values())
