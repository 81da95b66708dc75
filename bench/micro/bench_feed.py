"""The feed's step: from a frame to the message for the merger.

    payload ──▶ Session.on_frame ──▶ Publisher.emit ┄┄ end of the read ┄┄▶ Publisher.flush ──▶ XPUB

Timed: the clock read of each frame, on_frame, emit, and a flush after 1 or 40 frames of as many symbols, into
real XPUB sockets that nobody subscribes to. Not timed: picows, and what libzmq does where there is a merger:
a copy into its queue, and its I/O thread.
"""

import itertools
import tempfile
import time

import pytest
import zmq
from material import (
    QUOTES,
    RECORDS,
    expected,
    frame_of,
    natives_of,
    publisher_to,
    records_in,
    running_session,
)
from table import RECV_NS

from feedhandler import wire
from feedhandler.transport import zmq_sockets


class Kept:
    """Stands in for both sockets, and keeps what was sent."""

    def __init__(self):
        self.messages = []

    def send(self, message, flags=0):
        self.messages.append(bytes(message))


@pytest.fixture
def sockets():
    """The hop's and the direct one."""
    with tempfile.TemporaryDirectory() as directory:
        context = zmq.Context(io_threads=1)
        hop = zmq_sockets.feed_publisher(context, f"ipc://{directory}/feeds.ipc")
        yield hop, zmq_sockets.subscribers_publisher(context, [f"ipc://{directory}/direct.ipc"], "direct")
        context.destroy(linger=0)


@pytest.mark.parametrize("per_flush", [1, 40])
@pytest.mark.parametrize("exchange", QUOTES)
def bench_feed(measure, sockets, exchange, per_flush):
    natives = natives_of(exchange, per_flush)
    read = [memoryview(frame_of(exchange, QUOTES[exchange], native)) for native in natives]
    check(exchange, natives, read)

    publisher = publisher_to(*sockets, exchange)
    on_frame = running_session(exchange, natives, publisher.emit).on_frame
    flush, clock = publisher.flush, time.time_ns
    reads = list(itertools.repeat(read, RECORDS // per_flush))

    def call():
        for payloads in reads:
            for payload in payloads:
                on_frame(payload, clock())
            flush()

    measure("feed: on_frame, emit, flush", f"{exchange} {QUOTES[exchange]}, {per_flush} a flush", call)
    assert publisher.records >= RECORDS


def check(exchange, natives, read):
    """One read becomes one message, with a record of each symbol in order, and the frame's values in it."""
    kept = Kept()
    publisher = publisher_to(kept, kept, exchange)
    session = running_session(exchange, natives, publisher.emit)
    for number, payload in enumerate(read):
        session.on_frame(payload, RECV_NS + number)
    publisher.flush()
    records = records_in(b"".join(kept.messages))
    assert len(kept.messages) == 1
    assert [r.topic for r in records] == [wire.topic(wire.TICKER, exchange, native) for native in natives]
    assert [r.recv_ns - RECV_NS for r in records] == list(range(len(read)))
    for name, value in expected(exchange, QUOTES[exchange]).items():
        assert all(getattr(record, name) == value for record in records)
