"""The layout of a board, byte by byte, as `docs/board.md` has it."""

import struct

import pytest

from feedhandler.data import board_layout, wire
from feedhandler.data.errors import DecodeError

LAYOUT = board_layout.FixedHeader(
    depth=2, slots_max=3, pid=77, session=1_790_000_000, created_ns=1_790_000_000_123_456_789
)


def test_the_header_is_what_the_document_says():
    expected = (
        b"FHBOARD\0"
        + struct.pack("<II", 2, 2)
        + struct.pack("<IIIIII", 4096, 192, 256, 2, 640, 3)
        + struct.pack("<IIq", 77, 1_790_000_000, 1_790_000_000_123_456_789)
    )
    assert board_layout.pack_fixed(LAYOUT) == expected
    offsets = (
        board_layout.COUNT_OFFSET,
        board_layout.HEARTBEAT_NS_OFFSET,
        board_layout.HEARTBEAT_MONO_NS_OFFSET,
        board_layout.CLOSED_OFFSET,
    )
    assert offsets == (64, 128, 136, 192)


def test_slots_and_cells_are_where_the_document_says():
    assert LAYOUT.file_size == 4096 + 3 * 640
    assert [LAYOUT.slot_offset(n) for n in range(3)] == [4096, 4736, 5376]
    assert board_layout.NEWEST_OFFSET == 64
    assert [board_layout.cell_offset(2, n) for n in (1, 2, 3)] == [384, 128, 384]
    assert board_layout.cell_offset(17, 18) == 128 + 256
    assert board_layout.RECORD_OFFSET == 8


def test_what_was_packed_is_read():
    assert (
        board_layout.unpack_fixed(board_layout.pack_fixed(LAYOUT).ljust(4096, b"\0"), LAYOUT.file_size)
        == LAYOUT
    )


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"X", "does not begin"),
        (8, b"\1", "version 1"),
        (12, b"\1", "records of version 1"),
        (16, b"\1", "contradict"),
        (20, b"\1", "contradict"),
        (24, b"\1", "contradict"),
        (28, b"\1", "contradict"),
        (28, b"\3", "contradict"),
        (32, b"\1", "contradict"),
        (36, b"\0", "contradict"),
        (36, b"\4", "bytes, expected"),
    ],
)
def test_another_file_is_refused_with_the_reason(at, value, message):
    head = bytearray(board_layout.pack_fixed(LAYOUT).ljust(4096, b"\0"))
    head[at : at + 1] = value
    with pytest.raises(DecodeError, match=message):
        board_layout.unpack_fixed(bytes(head), LAYOUT.file_size)


def test_a_file_that_is_too_short_is_refused():
    with pytest.raises(DecodeError):
        board_layout.unpack_fixed(b"", 0)
    with pytest.raises(DecodeError, match="bytes, expected"):
        board_layout.unpack_fixed(board_layout.pack_fixed(LAYOUT).ljust(4096, b"\0"), LAYOUT.file_size - 1)


@pytest.mark.parametrize(
    ("depth", "slots_max"), [(1, 3), (board_layout.DEPTH_MAX + 1, 3), (2, 0), (2, 50_001)]
)
def test_a_layout_out_of_bounds_is_refused(depth, slots_max):
    with pytest.raises(ValueError, match="cells a slot"):
        board_layout.pack_fixed(LAYOUT._replace(depth=depth, slots_max=slots_max))


def test_a_board_lives_while_its_heartbeat_is_young_and_nobody_closed_it():
    now = 10**12
    assert board_layout.is_alive(0, now, now)
    assert board_layout.is_alive(0, now + 20_000_000, now), "a coarse clock is behind"
    assert board_layout.is_alive(0, now - board_layout.DEAD_NS + 1, now)
    assert not board_layout.is_alive(0, now - board_layout.DEAD_NS, now)
    assert not board_layout.is_alive(0, now + 10**9, now), "of before a restart of the host"
    assert not board_layout.is_alive(board_layout.ENDED, now, now)


def test_the_merger_can_have_a_slot_for_each_of_its_topics():
    from feedhandler.merger import merge

    assert board_layout.SLOTS_MAX >= merge.TOPICS_MAX
    assert wire.TICKER_SIZE == board_layout.RECORD_WORDS * board_layout.WORD
