"""What recording costs: a feed, and the recorder.

    frame ──▶ TappedConnection.on_frame ──▶ batch ┄┄▶ message        beside the same without a tap
    message ──▶ FeedRecording ──▶ segment: compressed, in memory

Timed: per frame of 250 bytes whose numbers differ, as a market's do. Not timed: decoding, sockets and disks.
"""

import io
import random
import time

import pytest
from material import RECORDS

from feedhandler.feed.tap import Tap
from feedhandler.recorder.recording import FeedRecording, Limits
from feedhandler.recordings.packing import pack
from feedhandler.recordings.traffic import Item, What

RNG = random.Random(1)
PAYLOADS = [
    (
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":%d,"s":"BTCUSDT","t":%d,"p":"%d.%02d","q":"0.%05d",'
        b'"b":%d,"a":%d,"T":%d,"S":"1","X":"MARKET","m":true,"M":true}}'
        % (
            1_790_000_000_000_000 + number,
            4_000_000 + number,
            RNG.randrange(60_000, 70_000),
            RNG.randrange(100),
            RNG.randrange(100_000),
            RNG.randrange(10**10),
            RNG.randrange(10**10),
            1_790_000_000_000_000 + number,
        )
    )
    for number in range(RECORDS)
]


def nothing(payload, recv_ns):
    return False


@pytest.mark.parametrize("is_tapped", [False, True], ids=["without", "with"])
def bench_tap(measure, is_tapped):
    sent = []

    def send(message):
        sent.append(message)
        return True

    tap = Tap(send, time.time_ns, time.monotonic_ns, lambda act: act())
    connection = tap.connection("spot", nothing)
    on_frame = connection.on_frame if is_tapped else nothing
    views = [memoryview(payload) for payload in PAYLOADS]
    clock = time.time_ns

    def call():
        for payload in views:
            on_frame(payload, clock())
        sent.clear()

    measure("a frame into the tap", "with" if is_tapped else "without", call)
    tap.flush()
    assert connection.received % RECORDS == 0
    assert bool(connection.received) == is_tapped


class Memory:
    """Takes segments, and keeps the last."""

    def __init__(self):
        self.file = io.BytesIO()

    def open(self, feed, begun_ns):
        self.file = io.BytesIO()
        return "x", self.file

    def closed(self, path, footer, size):
        pass

    def given_up(self, path, size, why, *, is_empty):
        raise AssertionError(why)


def bench_recording(measure):
    recording = FeedRecording("x", Memory(), Limits(10**18, 1 << 26))
    recording.take(pack(Item(What.HEADER, 1, data=b'{"exchange":"x","session_ns":1}')), 1)
    message = b"".join(
        pack(Item(What.RECEIVED, number + 1, number, "spot.1", number + 1, data=payload))
        for number, payload in enumerate(PAYLOADS)
    )

    def call():
        recording.take(message, 1)
        while recording.write(1, 1):
            pass

    measure("a frame into a segment", "compressed", call)
    received, items_size, stored_size = recording.totals()
    assert received % RECORDS == 0
    assert 0 < stored_size < items_size / 2
