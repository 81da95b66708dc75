"""The feed's step: from a frame to the message for the merger.

    payload ──▶ Session.on_frame ──▶ Publisher.emit ┄┄ end of the read ┄┄▶ Publisher.flush ══▶ Inlet

Timed: the clock read of each frame, on_frame, emit, and a flush after 1 or 40 frames of as many symbols, with the
write to a real socket. Not timed: picows, and the reader at the other end, which reads between the rounds.
"""

import itertools
import tempfile
import time

import pytest
from material import QUOTES, RECORDS, Hop, expected, frame_of, natives_of, records_in, running_session
from table import RECV_NS

from feedhandler.data import wire


@pytest.fixture
def hop(exchange):
    with tempfile.TemporaryDirectory() as directory:
        hop = Hop(directory, exchange)
        yield hop
        hop.close()


@pytest.mark.parametrize("per_flush", [1, 40])
@pytest.mark.parametrize("exchange", QUOTES)
def bench_feed(measure, hop, exchange, per_flush):
    natives = natives_of(exchange, per_flush)
    read = [memoryview(frame_of(exchange, QUOTES[exchange], native)) for native in natives]
    publisher = hop.publisher
    check(hop, exchange, natives, read)

    on_frame = running_session(exchange, natives, publisher.emit).on_frame
    flush, clock = publisher.flush, time.time_ns
    reads = list(itertools.repeat(read, RECORDS // per_flush))

    def call():
        for payloads in reads:
            for payload in payloads:
                on_frame(payload, clock())
            flush()

    measure(
        "feed: on_frame, emit, flush", f"{exchange} {QUOTES[exchange]}, {per_flush} a flush", call, hop.drain
    )
    hop.drain()
    assert sum(map(len, hop.received)) == publisher.records * wire.TICKER_SIZE, "nothing was lost"


def check(hop, exchange, natives, read):
    """One read becomes one message, with a record of each symbol in order, and the frame's values in it."""
    session = running_session(exchange, natives, hop.publisher.emit)
    hop.received.clear()
    for number, payload in enumerate(read):
        session.on_frame(payload, RECV_NS + number)
    hop.publisher.flush()
    hop.drain()
    records = records_in(b"".join(hop.received))
    assert len(hop.received) == 1
    assert [r.topic for r in records] == [wire.topic(wire.TICKER, exchange, native) for native in natives]
    assert [r.recv_ns - RECV_NS for r in records] == list(range(len(read)))
    for name, value in expected(exchange, QUOTES[exchange]).items():
        assert all(getattr(record, name) == value for record in records)
