"""Book: levels in records of different sizes, as they stand in the golden vectors and as they are made."""

import json
import math
import struct
from pathlib import Path

import pytest

from feedhandler.data import book, wire
from feedhandler.data.errors import DecodeError

GOLDEN = Path(__file__).parent.parent / "golden"
BIDS = [(100.0 - level, 1.0 + level) for level in range(300)]
ASKS = [(101.0 + level, 2.0 + level) for level in range(300)]


@pytest.mark.parametrize(("bids", "asks"), [(0, 0), (1, 0), (0, 1), (3, 5), (256, 0), (0, 256), (128, 128)])
def test_a_record_has_the_levels_that_it_was_made_of(bids, asks):
    fields = {"first_id": 2**64 - 2, "last_id": 2**64 - 1, "part": 2, "parts": 5, "flags": wire.SIMULATED}
    record = wire.BookRecord.of("book.x.A/B", BIDS[:bids], ASKS[:asks], **fields)
    packed = wire.pack(record)
    assert len(packed) == 128 + 16 * (bids + asks) == wire.size_at(packed + b"more", 0)
    read = wire.unpack(packed)
    assert (read.bids, read.asks) == (tuple(BIDS[:bids]), tuple(ASKS[:asks]))
    assert (read.bid_count, read.ask_count, read.kind, str(read.flags)) == (
        bids,
        asks,
        wire.BOOK,
        "SIMULATED",
    )
    assert (read.first_id, read.last_id, read.part, read.parts) == (2**64 - 2, 2**64 - 1, 2, 5)
    assert read == record


def test_more_levels_than_a_record_may_have_are_refused():
    with pytest.raises(ValueError, match="counts"):
        wire.pack(wire.BookRecord.of("book.x.A/B", BIDS[:200], ASKS[:57]))
    largest = bytearray(wire.pack(wire.BookRecord.of("book.x.A/B", BIDS[:200], ASKS[:56])) + bytes(16))
    struct.pack_into("<H", largest, book.BOOK.layout.offset("ask_count"), 57)
    with pytest.raises(DecodeError, match="book record"):
        wire.unpack(bytes(largest))


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("book_*.bin")), ids=lambda path: path.stem)
def test_golden_records_stand_for_their_levels(path):
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    record = wire.unpack(path.read_bytes())
    assert [list(map(list, side)) for side in (record.bids, record.asks)] == [
        expected["bids"],
        expected["asks"],
    ]
    for name in (
        "first_id",
        "last_id",
        "bid_count",
        "ask_count",
        "part",
        "parts",
        "flags",
        "sequence",
        "topic",
    ):
        assert getattr(record, name) == expected[name]
    assert wire.pack(record) == path.read_bytes()


@pytest.mark.parametrize(
    ("bids", "asks", "parts"),
    [
        (0, 0, [(0, 0)]),
        (256, 0, [(256, 0)]),
        (100, 156, [(100, 156)]),
        (100, 157, [(100, 0), (0, 157)]),
        (300, 10, [(256, 0), (44, 0), (0, 10)]),
        (0, 257, [(0, 256), (0, 1)]),
        (300, 300, [(256, 0), (44, 0), (0, 256), (0, 44)]),
    ],
)
def test_levels_are_spread_over_as_many_records_as_they_need(bids, asks, parts):
    made = book.bodies(7, 9, book.packed_levels(BIDS[:bids]), book.packed_levels(ASKS[:asks]))
    head = bytes(wire.pack(wire.BookRecord("book.x.A/B"))[: wire.HEADER_SIZE])
    records = [wire.unpack(head + body) for body in made]
    assert [(r.bid_count, r.ask_count) for r in records] == parts
    assert [(r.part, r.parts) for r in records] == [(n, len(parts)) for n in range(len(parts))]
    assert {(r.first_id, r.last_id) for r in records} == {(7, 9)}
    assert [level for r in records for level in r.bids] == BIDS[:bids]
    assert [level for r in records for level in r.asks] == ASKS[:asks]


def test_what_is_known_of_a_side_ends_at_its_first_level_if_that_has_no_size():
    side = book.packed_levels(BIDS[:3])
    marked = book.edge(BIDS[2][0]) + side
    assert book.edge_of(marked, 0, 4, True) == 98.0
    assert book.edge_of(side, 0, 3, True) == 0.0
    assert book.edge_of(b"", 0, 0, True) == book.edge_of(b"", 0, 0, False) == 0.0
    removal = book.packed_levels([(98.0, 0.0), (97.0, 1.0)])
    assert book.edge_of(removal, 0, 2, False) == book.edge_of(removal, 0, 1, False) == 0.0
    assert book.edge_of(book.edge(98.0) + book.packed_levels([(98.0, 4.0)]), 0, 2, False) == 98.0
    assert (
        book.edge_of(side + book.edge(97.0) + book.packed_levels([(97.0, 4.0)]), len(side), 2, False) == 97.0
    )


def test_numbers_pass_as_they_are():
    levels = [(5e-324, math.inf), (-1.0, math.nan)]
    assert str(wire.unpack(wire.pack(wire.BookRecord.of("book.x.A/B", levels))).bids) == str(tuple(levels))
