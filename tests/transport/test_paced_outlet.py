"""Subscribers that say how they want their records: the newest, at intervals, or all and what was dropped."""

import itertools
import json
import random
import time

import pytest
import zmq
from ends import BTC, ETH, ticker
from loopback import free_endpoint

from feedhandler.data import modes, wire

SESSION = 1_790_000_000
S = 1_000_000_000


@pytest.fixture
def outlet(world):
    return world.outlet(has_modes=True, session=SESSION, queue_size_max=100_000)


def receive_notice(world, sock):
    (message,) = world.receive(sock)
    document = wire.unpack(message)
    assert document.kind == wire.NOTICE
    assert document.session == SESSION
    return document.topic, json.loads(document.body)


def declare(world, outlet, mode, prefix=b"ticker.", **options):
    """Return a subscriber that has declared a mode, and whose subscription stands."""
    wanted = outlet.is_wanted
    sock = world.subscriber(mode, prefix, **options)
    topic, body = receive_notice(world, sock)
    assert topic == mode.decode()
    assert "error" not in body, body
    if not wanted:
        world.until(lambda: outlet.is_wanted)
    return sock


def sequences(messages, topic=None):
    records = [wire.unpack(message) for message in messages]
    return [r.sequence for r in records if r.kind == wire.TICKER and topic in (None, wire.padded(r.topic))]


def skipped(messages):
    notices = [wire.unpack(message) for message in messages if message[wire.KIND_OFFSET] == wire.NOTICE]
    return json.loads(notices[-1].body)["skipped"] if notices else 0


def flood(world, outlet, count, *others, start=1):
    """Publish numbered records of two topics in turn, while the others read; returns what those got."""
    seen = {other: [] for other in others}
    for number in range(start, start + count):
        outlet.send(BTC, ticker(BTC, number))
        outlet.send(ETH, ticker(ETH, number))
        if number % 20 == 0:
            outlet.flush()
            world.loop.run_once(0)
            for other in others:
                while other.poll(0):
                    seen[other].append(other.recv())
    outlet.flush()
    return [seen[other] for other in others]


@pytest.mark.parametrize("mode", [b"@all", b"@latest", b"@interval=100", b"@within=100"])
def test_a_declaration_is_answered_and_says_what_is_in_force(world, outlet, mode):
    sock = world.subscriber(mode)
    topic, body = receive_notice(world, sock)
    assert topic == mode.decode()
    assert body["mode"] == mode.decode()[1:].split("=")[0]
    assert body.get("interval_ms", 0) == (100 if b"=" in mode else 0)


@pytest.mark.parametrize(
    "mode",
    [
        *(b"@", b"@fast", b"@interval=", b"@interval=9", b"@interval=3600001", b"@interval=-1"),
        *(b"@interval=1e2", b"@within", b"@within=9", b"@interval=@within=10"),
    ],
)
def test_an_unknown_mode_is_refused_with_the_choices_and_changes_nothing(world, outlet, mode):
    sock = world.subscriber(mode, b"ticker.")
    _, body = receive_notice(world, sock)
    assert "choose @all, @latest, @interval=MS or @within=MS" in body["error"]
    outlet.send(BTC, ticker())
    outlet.flush()
    assert world.receive(sock) == [ticker()]


def test_an_endpoint_without_modes_says_so(world):
    world.outlet()
    sock = world.subscriber(b"@latest")
    (message,) = world.receive(sock)
    assert "this endpoint has no modes" in json.loads(wire.unpack(message).body)["error"]


def test_the_newest_reaches_a_reader_that_keeps_up_without_delay(world, outlet):
    sock = declare(world, outlet, b"@latest")
    for number in range(1, 50):
        outlet.send(BTC, ticker(BTC, number))
        outlet.flush()
        assert sequences(world.receive(sock)) == [number]


def send(outlet, *numbers):
    for number in numbers:
        outlet.send(BTC, ticker(BTC, number))
        outlet.flush()


def test_what_is_gathered_is_written_when_it_is_due_all_of_it_and_in_order(world, outlet):
    gathering = declare(world, outlet, b"@within=3600000")
    quick = declare(world, outlet, b"@all")
    outlet.on_time(time.monotonic_ns())
    send(outlet, 1, 2, 3)
    assert sequences(world.receive(quick, 3)) == [1, 2, 3]
    outlet.on_time(time.monotonic_ns())
    assert not gathering.poll(20), "it is not due, and nobody is woken"
    outlet.on_time(time.monotonic_ns() + 3601 * S)
    assert sequences(world.receive(gathering, 3)) == [1, 2, 3]


def test_no_more_is_gathered_than_there_is_a_limit_for(world, outlet):
    gathering = declare(world, outlet, b"@within=3600000")
    outlet.on_time(time.monotonic_ns())
    count = -(-modes.GATHERED_SIZE // (len(ticker()) + 2)) + 1  # with the head of each
    send(outlet, *range(1, count + 1))
    assert sequences(world.receive(gathering, count)) == list(range(1, count + 1))


def test_whoever_ends_its_declaration_gets_what_was_gathered_at_once(world, outlet):
    gathering = declare(world, outlet, b"@within=3600000")
    outlet.on_time(time.monotonic_ns())
    send(outlet, 1)
    assert not gathering.poll(20)
    gathering.setsockopt(zmq.UNSUBSCRIBE, b"@within=3600000")
    assert sequences(world.receive(gathering)) == [1]
    send(outlet, 2)
    assert sequences(world.receive(gathering)) == [2]


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
def test_a_latest_reader_that_stops_gets_the_newest_of_each_topic_when_it_reads_again(world, scheme):
    endpoint = world.endpoint() if scheme == "ipc" else free_endpoint()
    outlet = world.outlet(endpoint, has_modes=True, session=SESSION)
    stopped = declare(world, outlet, b"@latest", endpoint=endpoint, RCVHWM=100, RCVBUF=4096)
    quick = declare(world, outlet, b"@all", endpoint=endpoint)
    count = 8000
    (of_quick,) = flood(world, outlet, count, quick)
    of_quick += world.receive(quick, 2 * count - len(of_quick))
    assert sequences(of_quick, BTC) == sequences(of_quick, ETH) == list(range(1, count + 1))
    late = world.drain(stopped)
    for topic in (BTC, ETH):
        got = sequences(late, topic)
        assert got == sorted(set(got)), "in order, once"
        assert got[-1] == count, "the newest"
    assert len(late) < 1000, "what the kernel kept, and not what was published since"
    outlet.on_time(time.monotonic_ns() + 2 * S)
    late += world.drain(stopped)
    assert skipped(late) + len(sequences(late)) == 2 * count, "and it is told how many it did not get"


@pytest.mark.long
def test_all_tells_how_many_were_passed_over_and_that_is_the_size_of_the_holes(world, outlet):
    slow = declare(world, outlet, b"@all", RCVHWM=100)
    count = 8000
    flood(world, outlet, count)
    late = world.drain(slow)
    outlet.on_time(time.monotonic_ns() + 2 * S)
    late += world.receive(slow)
    holes = 0
    for topic in (BTC, ETH):
        got = sequences(late, topic)
        holes += sum(after - before - 1 for before, after in itertools.pairwise(got))
        assert got[-1] == count, "the newest comes, even if nothing follows it"
    assert holes == skipped(late) > 0
    (more,) = flood(world, outlet, 500, slow, start=count + 1)
    more += world.receive(slow, 1000 - len(more))
    assert sequences(more, BTC) == list(range(count + 1, count + 501)), "once it keeps up, all again"


def test_one_that_declared_nothing_ends_on_the_newest_as_well(world, outlet):
    slow = world.subscriber(b"ticker.", RCVHWM=100)
    world.until(lambda: outlet.is_wanted)
    flood(world, outlet, 8000)
    late = world.drain(slow)
    assert sequences(late, BTC)[-1] == sequences(late, ETH)[-1] == 8000
    assert len(late) < 16000


def test_at_intervals_each_topic_comes_once_and_in_its_newest_state(world, outlet):
    start = time.monotonic_ns()
    sock = declare(world, outlet, b"@interval=60000")
    quick = declare(world, outlet, b"@all")
    outlet.send(BTC, ticker(BTC, 1))
    outlet.on_time(time.monotonic_ns())
    assert sequences(world.receive(sock)) == [1], "the first after a silence goes at once"
    for number in range(2, 6):
        outlet.send(BTC, ticker(BTC, number))
    outlet.send(ETH, ticker(ETH, 1))
    outlet.flush()
    world.receive(quick, 6)
    assert not sock.poll(0)
    assert start + 60 * S <= outlet.look_mono_ns(time.monotonic_ns()) <= time.monotonic_ns() + 60 * S
    outlet.on_time(time.monotonic_ns() + 60 * S)
    notice, *rest = world.receive(sock, 3)
    assert skipped([notice]) == 3
    assert sequences(rest, BTC) == [5]
    assert sequences(rest, ETH) == [1]
    outlet.on_time(time.monotonic_ns() + 120 * S)
    assert not sock.poll(50), "nothing has changed since"


def test_another_mode_may_be_declared_and_what_was_due_is_not_lost(world, outlet):
    sock = declare(world, outlet, b"@interval=60000")
    outlet.on_time(time.monotonic_ns())
    outlet.send(BTC, ticker(BTC, 1))
    outlet.on_time(time.monotonic_ns())
    world.receive(sock)
    outlet.send(BTC, ticker(BTC, 2))
    sock.set(zmq.SUBSCRIBE, b"@all")
    record, notice = world.receive(sock, 2)
    assert sequences([record]) == [2]
    assert json.loads(wire.unpack(notice).body) == {"mode": "all"}
    outlet.send(BTC, ticker(BTC, 3))
    outlet.flush()
    assert sequences(world.receive(sock)) == [3]


def test_a_declaration_that_is_cancelled_is_over_and_what_was_due_goes_out(world, outlet):
    sock = declare(world, outlet, b"@interval=60000")
    outlet.send(BTC, ticker(BTC, 1))
    outlet.on_time(time.monotonic_ns())
    outlet.send(BTC, ticker(BTC, 2))
    sock.set(zmq.UNSUBSCRIBE, b"@interval=60000")
    assert sequences(world.receive(sock, 2)) == [1, 2]
    assert outlet.look_mono_ns(time.monotonic_ns()) == modes.NEVER


def test_the_last_declaration_counts_also_if_it_was_made_before(world, outlet):
    sock = declare(world, outlet, b"@latest")
    for mode in (b"@interval=60000", b"@latest"):
        sock.set(zmq.SUBSCRIBE, mode)
        assert receive_notice(world, sock)[0] == mode.decode()
    for number in range(1, 20):
        outlet.send(BTC, ticker(BTC, number))
        outlet.flush()
        assert sequences(world.receive(sock)) == [number]


@pytest.mark.long
def test_who_cancels_what_he_never_declared_gets_no_longer_queue(world, outlet):
    slow = world.subscriber(b"ticker.", RCVHWM=10)
    slow.set(zmq.SUBSCRIBE, b"@all")
    world.until(lambda: outlet.is_wanted)
    flood(world, outlet, 20_000)
    for _ in range(50):
        slow.set(zmq.UNSUBSCRIBE, b"@all")
        slow.set(zmq.SUBSCRIBE, b"@all")
        outlet.send(BTC, ticker(BTC, 9000))
        world.loop.run_once(0.001)
    late = world.drain(slow)
    assert len(late) < 20_000, "what was passed over is not made good by asking for it"


@pytest.mark.parametrize("mode", [b"@latest", b"@interval=60000"])
def test_what_one_is_due_when_it_ends_is_the_last_that_it_hears(world, outlet, mode):
    sock = declare(world, outlet, mode)
    quick = declare(world, outlet, b"@all")
    outlet.on_time(time.monotonic_ns())
    for number in (1, 2, 3):
        outlet.send(BTC, ticker(BTC, number))
        outlet.send(ETH, ticker(ETH, number))
    outlet.flush()
    world.receive(quick, 6)
    world.parts.remove(outlet)
    outlet.close()
    late = world.drain(sock)
    assert sequences(late, BTC)[-1] == sequences(late, ETH)[-1] == 3


def test_one_that_dies_with_something_due_takes_nobody_along(world, outlet):
    dying = declare(world, outlet, b"@latest", RCVHWM=100)
    quick = declare(world, outlet, b"@all")
    (got,) = flood(world, outlet, 5000, quick)
    dying.close()
    (more,) = flood(world, outlet, 100, quick, start=5001)
    got += more
    got += world.receive(quick, 2 * 5100 - len(got))
    assert sequences(got, BTC) == list(range(1, 5101))
    outlet.on_time(time.monotonic_ns() + 2 * S)
    world.until(lambda: outlet.look_mono_ns(0) == modes.NEVER)


def test_many_topics_for_one_that_reads_slowly_leave_in_parts(world, outlet):
    """Others are served between the parts; it gets each topic's newest all the same."""
    topics = [wire.padded(wire.topic(wire.TICKER, "binance", f"S{n}/USDT")) for n in range(5000)]
    slow = declare(world, outlet, b"@latest", RCVHWM=100)
    for number in (1, 2, 3):
        for topic in topics:
            outlet.send(topic, ticker(topic, number))
        outlet.flush()
    newest = {}
    for message in world.drain(slow):
        record = wire.unpack(message)
        newest[record.topic] = record.sequence
    assert newest == {wire.unpadded(topic): 3 for topic in topics}


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_speed_of_reading_it_ends_on_what_everybody_ends_on(world, outlet, seed):
    rng = random.Random(seed)
    topics = [wire.padded(wire.topic(wire.TICKER, "binance", f"S{n}/USDT")) for n in range(30)]
    modes = {b"@latest": {}, b"@interval=10": {}, b"@all": {}}
    socks = {mode: declare(world, outlet, mode, RCVHWM=100) for mode in modes}
    sent = dict.fromkeys(topics, 0)
    for _ in range(4000):
        topic = rng.choice(topics)
        sent[topic] += 1
        outlet.send(topic, ticker(topic, sent[topic]))
        if rng.random() < 0.1:
            outlet.flush()
            outlet.on_time(time.monotonic_ns())
            world.loop.run_once(0)
        if rng.random() < 0.05:
            take(socks, modes, rng.randrange(20))
    outlet.flush()

    def is_complete():
        outlet.on_time(time.monotonic_ns())
        take(socks, modes, 1000)
        return all(
            of_mode == {wire.unpadded(t): n for t, n in sent.items() if n} for of_mode in modes.values()
        )

    world.until(is_complete)


def take(socks, modes, count):
    for mode, sock in socks.items():
        for _ in range(count):
            if not sock.poll(0):
                break
            record = wire.unpack(sock.recv())
            if record.kind == wire.TICKER:
                assert record.sequence > modes[mode].get(record.topic, 0), "never backwards, never twice"
                modes[mode][record.topic] = record.sequence
