"""Replay: what a recorded frame costs, from a segment on disk to the records that come of it.

    segment ──▶ items ──▶ Player ──▶ messages ──▶ records

Timed: per frame of trades, each of which is a record, in this process.
"""

import collections

import pytest
from bench_recorder import PAYLOADS
from material import RECORDS

from feedhandler import replay
from feedhandler.recordings import packing, segments
from feedhandler.recordings.directory import file_name
from feedhandler.recordings.traffic import Item, What

ADDRESS = "wss://stream.binance.com:9443/stream"


@pytest.fixture
def recording(tmp_path):
    """Return a recording of RECORDS trades."""
    head = [
        Item(What.HEADER, 1, data=b'{"exchange":"binance","session_ns":1}'),
        Item(What.OPENED, 1, 0, "spot.1", name=ADDRESS),
    ]
    frames = [
        Item(What.RECEIVED, number + 1, number, "spot.1", number + 1, data=payload)
        for number, payload in enumerate(PAYLOADS)
    ]
    path = tmp_path / "binance" / file_name(1)
    path.parent.mkdir()
    with path.open("wb", buffering=0) as file:
        writer = segments.SegmentWriter(file, 1)
        writer.add(packing.packed([*head, *frames]))
        writer.close("time")
    return tmp_path


@pytest.mark.parametrize("form", ["messages", "records"])
def bench_replay(measure, recording, form):
    read = getattr(replay, form)
    assert [each.sequence for each in replay.records(recording)] == list(range(1, RECORDS + 1))
    assert len(list(read(recording))) == RECORDS

    def call():
        collections.deque(read(recording), maxlen=0)

    measure("a recorded frame, decoded", form, call)
