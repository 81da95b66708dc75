"""The subscriber's step: bytes to a record in the user's hands.

    message ──▶ wire.unpack
    XPUB ══ipc══▶ SUB ──▶ Subscriber.receive, and the iterator

Timed: unpack alone, of 40 symbols in turn; then the receiving calls, for messages of one record and of 40,
with all messages of a round in the subscriber's queue already, so that nothing waits: a pause before each
round lets libzmq's I/O threads bring them there. A round that finds its queue short, because the machine was
busy, shows in the spread and not in `min`.
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
import zmq
from material import RECORDS, ticker

from feedhandler import wire
from feedhandler.client import Subscriber

SYMBOLS = 40
SOCKET_ROUNDS = 30
ARRIVAL_S = 0.02  # ample: RECORDS messages are there 1 ms after the last was sent


def published(sequence):
    """Return the message of a merger that has this place in the stream; each topic counts its own."""
    number = sequence % SYMBOLS
    topic = b"ticker.binance.C%04d/USDT" % number
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
def stream(request):
    """A subscriber, and a function that publishes RECORDS records to it and returns when they are there."""
    with tempfile.TemporaryDirectory() as directory:
        context = zmq.Context(io_threads=1)
        publisher = context.socket(zmq.XPUB)
        publisher.set(zmq.SNDHWM, 0)
        publisher.bind(f"ipc://{directory}/ticks.ipc")
        sequences = itertools.count()

        def publish():
            for _ in range(RECORDS // request.param):
                publisher.send(b"".join(map(published, itertools.islice(sequences, request.param))))
            time.sleep(ARRIVAL_S)

        with Subscriber(f"ipc://{directory}/ticks.ipc", ["ticker."]) as subscriber:
            while not publisher.poll(0):  # until its subscription has come
                subscriber.receive(0.01)
            yield Stream(subscriber, publish, request.param)
        context.destroy(linger=0)


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


def measure_stream(measure, stream, name, call):
    name = f"{name}, {stream.per_message} a message"
    measure("client: Subscriber", name, call, stream.publish, SOCKET_ROUNDS)
    assert stream.subscriber.lost == stream.subscriber.undecodable == 0
