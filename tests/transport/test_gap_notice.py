"""Who has missed records that count each, because it did not read, gets a notice of how many; once it is over."""

import functools
import json

import pytest
import zmq
from ends import BTC, ETH, ticker
from registering import registered

from feedhandler.client import stream
from feedhandler.client.stream import Link
from feedhandler.data import header, wire
from feedhandler.data.layout import Description, Retention, layout
from feedhandler.transport.follower import Follower
from feedhandler.transport.queues import Queues

SESSION = 1_790_000_000


class Print(header.Record):
    """A record that counts, in this test alone."""

    kind: int = 200


PRINT = Description(
    200, "print", "a test", Retention.EVERY, Print, layout("print", "one", Print, header.HEADER)
)
TOPICS = [wire.padded(f"print.binance.{name}/USDT") for name in ("BTC", "ETH")]
SIZE = 200  # that a print is made to have: many fill a queue


@pytest.fixture(autouse=True)
def kinds_of_this_test():
    with registered(PRINT):
        wire.SIZES[200] = SIZE
        yield


@pytest.fixture
def outlet(world):
    return world.outlet(has_modes=True, session=SESSION, queue_size_max=100_000)


@functools.cache
def first(topic):
    return wire.pack(Print(wire.unpadded(topic), session=SESSION)).ljust(SIZE, b"\0")


def numbered(message, number):
    """Return a copy with another sequence; to pack each of a flood anew takes most of the time."""
    copy = bytearray(message)
    wire.SEQUENCE.pack_into(copy, wire.SEQUENCE_OFFSET, number)
    return bytes(copy)


def printed(topic, number):
    return numbered(first(topic), number)


def subscriber(world, outlet, *prefixes):
    sock = world.subscriber(*prefixes, RCVHWM=1)
    world.until(lambda: outlet.is_wanted)
    return sock


def flood(outlet, start, count):
    quote = ticker(BTC)
    for number in range(start, start + count):
        for topic in TOPICS:
            outlet.send(topic, printed(topic, number))
        outlet.send(BTC, numbered(quote, number))
        outlet.flush()


def taken(messages):
    """Return the sequences of each topic, and the bodies of the notices."""
    numbers, notices = {}, []
    for message in messages:
        topic = wire.unpadded(message[: wire.TOPIC_SIZE])
        if message[wire.KIND_OFFSET] == wire.NOTICE:
            notices.append((topic, json.loads(wire.unpack(message).body)))
        else:
            numbers.setdefault(topic, []).append(wire.sequence_of(message))
    return numbers, notices


def missing(numbers, last):
    return last - len(numbers)


@pytest.mark.long
@pytest.mark.parametrize("prefix", [b"", b"print.", b"print.binance.ETH/USDT\0"])
def test_one_that_subscribed_plainly_is_told_once_how_many_records_are_missing(world, outlet, prefix):
    sock = subscriber(world, outlet, prefix)
    last = 0
    for episode in (1, 2):
        flood(outlet, last + 1, 40_000)
        last += 40_000
        numbers, notices = taken(world.drain(sock))
        assert notices == [], "not before it has all that was kept"
        flood(outlet, last + 1, 1)
        last += 1
        more, notices = taken(world.drain(sock))
        numbers = {topic: [*numbers[topic], *more.get(topic, [])] for topic in numbers}
        lost = {
            t: missing(n, last - (episode - 1) * 40_001) for t, n in numbers.items() if t.startswith("print")
        }
        assert all(each > 1000 for each in lost.values())
        assert {t: numbers[t][-2:] for t in lost} == {t: [last - 1, last] for t in lost}, "and it goes on"
        ((topic, body),) = notices
        assert topic in lost
        assert body["gap"] == sum(lost.values())
        assert body["skipped"] >= body["gap"]
    assert not taken(world.drain(sock))[1]


def test_one_that_misses_no_record_that_counts_is_told_nothing(world, outlet):
    sock = subscriber(world, outlet, b"ticker.")
    flood(outlet, 1, 60_000)
    world.drain(sock)
    flood(outlet, 60_001, 1)
    numbers, notices = taken(world.drain(sock))
    assert (notices, numbers["ticker.binance.BTC/USDT"][-1]) == ([], 60_001)


@pytest.mark.long
def test_one_that_reads_is_told_nothing_while_another_does_not(world, outlet):
    slow = subscriber(world, outlet, b"print.")
    fast = world.subscriber(b"print.", RCVHWM=0)
    outlet.send(TOPICS[0], printed(TOPICS[0], 0))
    outlet.flush()
    world.settle()
    seen = []
    for number in range(1, 30_000, 100):
        flood(outlet, number, 100)
        seen += world.receive(fast, 1)
    seen += world.drain(fast)
    assert taken(seen)[1] == []
    world.drain(slow)
    flood(outlet, 30_001, 1)
    assert len(taken(world.drain(slow))[1]) == 1


@pytest.mark.long
@pytest.mark.parametrize("mode", [b"@all", b"@latest"])
def test_one_that_declared_a_mode_has_its_own_notices(world, outlet, mode):
    sock = world.subscriber(mode, b"print.", RCVHWM=1)
    world.receive(sock)
    world.until(lambda: outlet.is_wanted)
    flood(outlet, 1, 40_000)
    world.drain(sock)
    flood(outlet, 40_001, 1)
    assert all(topic == mode.decode() for topic, _ in taken(world.drain(sock))[1])


@pytest.mark.long
def test_a_batch_that_finds_no_room_is_told_when_there_is_some_again(world):
    outlet = world.outlet(is_batched=True, queue_size_max=100_000)
    sock = subscriber(world, outlet, b"")
    count, each = 20_000, 3
    for number in range(1, count + 1):
        parts = [printed(t, number) for t in TOPICS] + [ticker(BTC, number)]
        outlet.send(TOPICS[0], b"".join(parts))
        outlet.flush()
    messages = world.drain(sock)
    outlet.send(ETH, ticker(ETH, 1))
    outlet.flush()
    messages += world.drain(sock)
    batches = [m for m in messages if m[wire.KIND_OFFSET] != wire.NOTICE]
    notices = taken(messages)[1]
    got = len(batches) - 1
    assert sum(body["gap"] for _, body in notices) == 2 * (count - got)
    assert sum(body["skipped"] for _, body in notices) == each * (count - got)


@pytest.mark.long
def test_one_whose_queue_was_cut_is_told_how_many_records_were_in_it(world):
    queues = Queues(1 << 21)
    outlet = world.outlet(queues=queues, queue_size_max=1 << 24)
    sock = subscriber(world, outlet, b"print.")
    flood(outlet, 1, 60_000)
    assert queues.cuts
    numbers, notices = taken(world.drain(sock))
    flood(outlet, 60_001, 1)
    more, later = taken(world.drain(sock))
    got = sum(len(n) for n in numbers.values()) + sum(len(n) for n in more.values())
    assert sum(body["gap"] for _, body in notices + later) == 2 * 60_001 - got


def test_the_notice_is_nobody_elses_in_python(world, outlet, monkeypatch):
    """A follower without use for it does not take it for a record of the topic; a link has it."""
    monkeypatch.setattr(stream, "FIRST_WORDS", (b"print.",))
    out = []
    follower = Follower(out.append)
    link = Link(world.loop, world.endpoint(), ["print."], lambda aside: Follower(out.append, aside=aside))
    header_of = Print(wire.unpadded(TOPICS[0]), session=SESSION, sequence=9)
    notice = wire.pack(
        wire.Document(
            header_of.topic, kind=wire.NOTICE, session=SESSION, sequence=9, body=b'{"skipped":5,"gap":3}'
        )
    )
    for each in (follower, link.follower):
        each.take(notice)
        assert not each.losses
    assert out == []
    assert (link.notice.gap, link.notice.skipped) == (3, 5)
    link.close()


def batch(number):
    return b"".join([printed(t, number) for t in TOPICS] + [ticker(BTC, number)])


@pytest.mark.long
@pytest.mark.parametrize("hanging", [1, 4])
def test_what_hangs_at_the_batch_endpoint_has_a_message_counted_once(world, hanging, monkeypatch):
    outlet = world.outlet(is_batched=True, queue_size_max=100_000)
    socks = [subscriber(world, outlet, b"") for _ in range(hanging)]
    world.settle()
    split, calls = wire.split, []
    monkeypatch.setattr(wire, "split", lambda message: calls.append(1) or split(message))
    for number in range(10_000):
        outlet.send(TOPICS[0], batch(number))
        outlet.flush()
    assert calls == [], "not one by one, and not for each of them"
    assert all(len(world.drain(sock)) < 10_000 for sock in socks), "it did hang"


@pytest.mark.long
def test_each_that_hangs_at_the_batch_endpoint_is_told_what_it_did_not_get(world):
    outlet = world.outlet(is_batched=True, queue_size_max=100_000)
    socks = [subscriber(world, outlet, prefix) for prefix in (b"", b"print.", b"print.binance.")]
    world.settle()
    count, got = 20_000, {}
    for number in range(1, count + 1):
        outlet.send(TOPICS[0], batch(number))
        outlet.flush()
        if number == 10_000:
            got[socks[0]] = world.drain(socks[0])  # so that they are not all behind at the same messages
    for sock in socks:
        got[sock] = got.get(sock, []) + world.drain(sock)
    outlet.send(TOPICS[0], batch(count + 1))
    outlet.flush()
    for sock in socks:
        messages = got[sock] + world.drain(sock)
        batches = [m for m in messages if m[wire.KIND_OFFSET] != wire.NOTICE]
        notices = taken(messages)[1]
        lost = count + 1 - len(batches)
        assert lost > 1000
        assert sum(body["gap"] for _, body in notices) == 2 * lost
        assert sum(body["skipped"] for _, body in notices) == 3 * lost


@pytest.mark.long
def test_a_gap_is_told_though_the_queue_was_cut_before_it_had_been_read(world):
    queues = Queues(3 << 20)
    outlet = world.outlet(is_batched=True, queues=queues, queue_size_max=2 << 20)
    sock = subscriber(world, outlet, b"")
    world.settle()
    sent = 0

    def send(count):
        nonlocal sent
        for _ in range(count):
            sent += 1
            outlet.send(TOPICS[0], batch(sent))
            outlet.flush()

    send(10_000)  # more than it gets
    messages = world.receive(sock, 2000)
    send(100)  # for which there is room again
    assert not queues.cuts
    other = subscriber(world, outlet, b"print.")
    world.settle()
    while not queues.cuts:
        send(100)
        assert sent < 100_000
    world.drain(other)
    messages += world.drain(sock)
    send(1)
    messages += world.drain(sock)
    batches = [m for m in messages if m[wire.KIND_OFFSET] != wire.NOTICE]
    notices = taken(messages)[1]
    assert sum(body["gap"] for _, body in notices) == 2 * (sent - len(batches))


@pytest.mark.long
def test_one_that_declares_a_mode_while_it_is_behind_is_told_its_gap_first(world, outlet):
    sock = subscriber(world, outlet, b"print.")
    flood(outlet, 1, 40_000)
    sock.set(zmq.SUBSCRIBE, b"@all")
    messages = world.drain(sock)
    numbers, notices = taken(messages)
    lost = sum(missing(numbers[topic], 40_000) for topic in numbers)
    assert all(numbers[topic][-1] == 40_000 for topic in numbers)
    assert [topic == "@all" for topic, _ in notices] == [False, True]
    assert lost > 1000
    assert notices[0][1]["gap"] == lost
