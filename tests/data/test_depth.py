"""Depth records: what is made of levels, and what is read back."""

import json
import math
import struct
from pathlib import Path

import pytest

from feedhandler.data import depth, wire

GOLDEN = Path(__file__).parent.parent / "golden"
SIDE = [(97421.4 - level, 0.5 + level) for level in range(depth.LEVELS_MAX)]


@pytest.mark.parametrize("bids", [0, 1, 19, 20])
@pytest.mark.parametrize("asks", [0, 20])
def test_a_record_has_the_levels_that_it_was_made_of(bids, asks):
    record = wire.Depth.of("depth.x.A/B", SIDE[:bids], SIDE[:asks], exchange_sequence=7, flags=wire.SIMULATED)
    packed = wire.pack(record)
    assert len(packed) == 104 + 656
    read = wire.unpack(packed)
    assert (read.bids, read.asks) == (tuple(SIDE[:bids]), tuple(SIDE[:asks]))
    assert (read.exchange_sequence, read.kind, str(read.flags)) == (7, wire.DEPTH, "SIMULATED")


def test_unused_levels_are_nan():
    packed = wire.pack(wire.Depth.of("depth.x.A/B", SIDE[:1], []))
    numbers = struct.unpack_from("<80d", packed, 120)
    assert numbers[:2] == SIDE[0]
    assert all(map(math.isnan, numbers[2:]))
    assert wire.pack(wire.Depth("depth.x.A/B"))[120:] == struct.pack("<80d", *[math.nan] * 80)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("depth_*.bin")), ids=lambda path: path.stem)
def test_golden_records_stand_for_their_levels(path):
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    record = wire.unpack(path.read_bytes())
    assert [list(map(list, side)) for side in (record.bids, record.asks)] == [
        expected["bids"],
        expected["asks"],
    ]
    for name in ("exchange_sequence", "bid_count", "ask_count", "flags", "sequence", "topic"):
        assert getattr(record, name) == expected[name]


def test_counts_that_cannot_be_give_no_more_levels_than_there_are():
    record = wire.Depth.of("depth.x.A/B", SIDE, SIDE)
    record.bid_count = 2**16 - 1
    assert record.bids == tuple(SIDE)


def test_more_levels_than_a_record_has_room_for_are_refused():
    with pytest.raises(ValueError, match="20"):
        wire.Depth.of("depth.x.A/B", [*SIDE, (1.0, 1.0)], [])
