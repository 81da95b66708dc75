"""The subscriber's step: bytes to a record in the user's hands.

    message ──▶ wire.unpack
    XPUB ══ipc══▶ SUB ──▶ Subscriber.receive, receive_many, and the iterator
                     ├──▶ AsyncSubscriber, in asyncio and in uvloop
                     └──▶ ArraySubscriber, and to_pandas, to_polars of what it returns

Timed: unpack alone, of 40 symbols in turn; then the receiving calls, for messages of one record and of 40,
with all messages of a round in the subscriber's queue already, so that nothing waits: a pause before each
round lets libzmq's I/O threads bring them there. A round that finds its queue short, because the machine was
busy, shows in the spread and not in `min`.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
import uvloop
import zmq
from material import RECORDS, ticker

from feedhandler.client import AsyncSubscriber, Subscriber, arrays
from feedhandler.data import wire
from feedhandler.transport.follower import Follower, Gatherer

SYMBOLS = 40
SOCKET_ROUNDS = 30
ARRIVAL_S = 0.02  # ample: RECORDS messages are there 1 ms after the last was sent


def published(sequence):
    """Return the message of a merger that has this place in the stream; each topic counts its own."""
    number = sequence % SYMBOLS
    topic = f"ticker.binance.C{number:04}/USDT"
    return wire.pack_ticker(ticker(number, topic=topic, session=100, sequence=1 + sequence // SYMBOLS))


def check(record, sequence):
    assert record == wire.unpack(published(sequence))
    assert (record.bid, record.symbol) == (sequence % SYMBOLS + 0.5, f"C{sequence % SYMBOLS:04}/USDT")


def bench_unpack(measure):
    messages = [published(sequence) for sequence in range(RECORDS)]
    unpack = wire.unpack
    for sequence, message in enumerate(messages):
        check(unpack(message), sequence)

    def call():
        for message in messages:
            unpack(message)

    measure("client: wire.unpack", f"{SYMBOLS} symbols", call)


@pytest.fixture(params=[1, 40])
def published_stream(request):
    """An endpoint, and a function that publishes RECORDS records there and returns when they have arrived."""
    with tempfile.TemporaryDirectory() as directory:
        context = zmq.Context(io_threads=1)
        publisher = context.socket(zmq.XPUB)
        publisher.set(zmq.SNDHWM, 0)
        endpoint = f"ipc://{directory}/ticks.ipc"
        publisher.bind(endpoint)
        sequences = itertools.count()

        def publish():
            for _ in range(RECORDS // request.param):
                publisher.send(b"".join(map(published, itertools.islice(sequences, request.param))))
            time.sleep(ARRIVAL_S)

        yield PublishedStream(endpoint, publish, lambda: bool(publisher.poll(0)), request.param)
        context.destroy(linger=0)


@pytest.fixture
def stream(published_stream):
    """A subscriber to it."""
    with Subscriber(published_stream.endpoint, ["ticker."]) as subscriber:
        while not published_stream.is_subscribed():
            subscriber.receive(0.01)
        yield Stream(subscriber, published_stream.publish, published_stream.per_message)


class PublishedStream(NamedTuple):
    endpoint: str
    publish: Callable[[], None]
    is_subscribed: Callable[[], bool]
    per_message: int


class Stream(NamedTuple):
    subscriber: Subscriber
    publish: Callable[[], None]
    per_message: int


def bench_receive(measure, stream):
    receive = stream.subscriber.receive
    stream.publish()
    for sequence in range(RECORDS):
        check(receive(), sequence)

    def call():
        for _ in range(RECORDS):
            receive()

    measure_stream(measure, stream, "receive()", call)


def bench_iterate(measure, stream):
    records = iter(stream.subscriber)
    stream.publish()
    for sequence, record in enumerate(itertools.islice(records, RECORDS)):
        check(record, sequence)

    def call():
        for _ in itertools.islice(records, RECORDS):
            pass

    measure_stream(measure, stream, "for record in subscriber", call)


def bench_receive_many(measure, stream):
    def call():
        count = 0
        while count < RECORDS:
            count += len(stream.subscriber.receive_many())

    measure_stream(measure, stream, "receive_many()", call)


def bench_callback(measure, stream):
    subscriber = stream.subscriber
    left = RECORDS

    def on_record(record):
        nonlocal left
        left -= 1
        if not left:
            left = RECORDS
            subscriber.stop()

    measure_stream(measure, stream, "run(callback)", lambda: subscriber.run(on_record))


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("call_name", ["async for", "receive_many()"])
def bench_async(measure, published_stream, loop, call_name):
    """All records of a round are in the kernel's hands, or in the subscriber's, before it is timed."""
    with asyncio.Runner(loop_factory=loop) as runner:
        subscriber = AsyncSubscriber(published_stream.endpoint, ["ticker."])
        runner.run(subscriber.__aenter__())
        while not published_stream.is_subscribed():
            runner.run(subscriber.receive(0.01))

        async def iterate():
            count = 0
            async for _ in subscriber:
                count += 1
                if count == RECORDS:
                    return

        async def receive_many():
            count = 0
            while count < RECORDS:
                count += len(await subscriber.receive_many())

        take = iterate if call_name == "async for" else receive_many
        name = f"{call_name}, {published_stream.per_message} a message"
        measure(
            f"client: AsyncSubscriber, {loop.__module__.split('.')[0]}",
            name,
            lambda: runner.run(take()),
            published_stream.publish,
            SOCKET_ROUNDS,
        )
        assert subscriber.lost == subscriber.undecodable == 0
        runner.run(subscriber.__aexit__(None, None, None))


def bench_arrays(measure, published_stream):
    with arrays.ArraySubscriber(published_stream.endpoint) as subscriber:
        while not published_stream.is_subscribed():
            subscriber.receive(timeout_s=0.01)
        published_stream.publish()
        array = subscriber.receive(RECORDS, every_s=10 * ARRIVAL_S)
        assert array.tobytes() == b"".join(map(published, range(RECORDS)))

        def call():
            count = 0
            while count < RECORDS:
                count += len(subscriber.receive())

        name = f"receive(), {published_stream.per_message} a message"
        measure("client: ArraySubscriber", name, call, published_stream.publish, SOCKET_ROUNDS)
        assert subscriber.lost == subscriber.undecodable == 0


@pytest.mark.parametrize("kind", ["Follower", "Gatherer"])
@pytest.mark.parametrize("per_message", [1, 40])
def bench_gather(measure, kind, per_message):
    """The same messages as objects, and as bytes in a buffer; both follow the sequences."""

    def prepare():
        taken: list[wire.Record] = []
        records = map(published, range(RECORDS))
        messages = [b"".join(itertools.islice(records, per_message)) for _ in range(RECORDS // per_message)]
        sink = Gatherer() if kind == "Gatherer" else Follower(taken.append)
        return (sink, messages), {}

    def call(sink, messages):
        for message in messages:
            sink.take(message)

    (sink, messages), _ = prepare()
    call(sink, messages)
    assert len(sink.losses) == SYMBOLS
    measure(f"client: {kind}", f"{per_message} a message", call, prepare)


@pytest.mark.parametrize("frame", [arrays.to_pandas, arrays.to_polars], ids=["to_pandas", "to_polars"])
def bench_frame(measure, frame):
    array = arrays.view(b"".join(map(published, range(RECORDS))))
    assert frame(array)["bid"].to_list() == array["bid"].tolist()
    measure("client: frames", frame.__name__, lambda: frame(array))


def measure_stream(measure, stream, name, call):
    name = f"{name}, {stream.per_message} a message"
    measure("client: Subscriber", name, call, stream.publish, SOCKET_ROUNDS)
    assert stream.subscriber.lost == stream.subscriber.undecodable == 0
