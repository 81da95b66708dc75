"""Segments: whatever is torn off or changed, the rest is read, and what is missing is told."""

import contextlib
import io

import msgspec
import pytest
import twins
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from recorded import GROUPS, T0, frames, written

from feedhandler.recordings import packing, segments
from feedhandler.recordings.traffic import Item, What

COUNTS = st.integers(0, 2**63 - 1)
ITEMS = st.builds(
    Item,
    st.sampled_from(What),
    COUNTS,
    COUNTS,
    st.text(max_size=20).filter(lambda text: len(text.encode()) <= packing.CONNECTION_SIZE_MAX),
    COUNTS,
    st.text(max_size=50),
    st.binary(max_size=300),
    st.booleans(),
)


def read(data):
    return list(segments.items(io.BytesIO(data)))


def offsets(data):
    return [block.offset for block in segments.blocks(io.BytesIO(data))]


@pytest.mark.long
@given(st.lists(ITEMS))
def test_items_are_read_as_they_were_packed(items):
    assert list(packing.unpack(packing.packed(items))) == items


@pytest.mark.long
@given(st.lists(st.lists(ITEMS, min_size=1)))
def test_a_segment_is_read_as_it_was_written(groups):
    data = written(groups)
    assert read(data) == [item for group in groups for item in group]


@pytest.mark.long
@pytest.mark.parametrize("form", twins.FORMS)
@given(items=st.lists(ITEMS), room=st.integers(0, 2000), torn=st.integers(0, 3))
def test_frames_are_counted_up_to_what_is_none_or_does_not_fit(form, items, room, torn):
    counts = twins.of(form).FrameCounts()
    whole = b"".join(map(packing.pack, items))
    data = whole[: max(0, len(whole) - torn)]
    fit, end = [], 0
    for item in items:
        size = len(packing.pack(item))
        if item.what not in segments.FRAMES or item.is_repeated or end + size > min(room, len(data)):
            break
        fit.append(item)
        end += size
    assert counts.take(b"???" + data, 3, room) == 3 + end
    received, sent = ([item for item in fit if item.what is what] for what in (What.RECEIVED, What.SENT))
    assert (counts.received, counts.sent) == (len(received), len(sent))
    times = [item.wall_ns for item in fit if item.wall_ns]
    assert (counts.first_ns, counts.last_ns) == (min(times, default=0), max(times, default=0))
    for name, numbers in counts.connections.items():
        own = [item.number for item in received if item.connection.encode() == name]
        assert numbers.last_received == ([0, *own])[-1]
        assert numbers.first_received == next((number for number in own if number), 0)
    assert {name.decode() for name in counts.connections} == {item.connection for item in fit}


@given(st.binary(max_size=200))
def test_any_bytes_are_items_or_refused(data):
    with contextlib.suppress(ValueError):
        assert packing.packed(packing.unpack(data)) == data


@given(st.binary(max_size=500))
def test_any_file_is_a_segment_or_is_refused(data):
    with contextlib.suppress(segments.NotASegment):
        assert read(data)[-1].what is What.GAP


def test_names_that_are_too_long_are_refused():
    with pytest.raises(ValueError, match="too long"):
        packing.pack(Item(What.OPENED, connection="x" * 256))
    with pytest.raises(ValueError, match="too long"):
        packing.pack(Item(What.OPENED, name="x" * 4097))


def test_items_fill_blocks_without_being_cut():
    file = io.BytesIO()
    writer = segments.SegmentWriter(file, T0)
    large = [replace(item, data=bytes(100_000)) for item in frames(6)]
    writer.add(packing.packed(large))
    writer.add(packing.packed([Item(What.ANSWERED, T0, name="/lists", data=bytes(1_000_000))]))
    writer.close("size")
    found = list(segments.blocks(file))
    assert [block.items for block in found] == [2, 2, 2, 1, 0]
    assert [block.first_item for block in found] == [1, 3, 5, 7, 8]
    assert len(read(file.getvalue())) == 7


def test_the_footer_tells_what_a_segment_holds():
    items = [
        Item(What.HEADER, T0 - 5, is_repeated=True),
        *frames(5, 3),
        Item(What.SENT, T0 + 9000, 9000, "spot.1", 1),
        *frames(2, 1, "spot.2"),
        Item(What.ANSWERED, T0 + 9001, number=1),
        Item(What.GAP, T0 + 9002, number=7),
    ]
    footer = segments.footer(io.BytesIO(written([items[:4], items[4:]])))
    assert (footer.blocks, footer.items, footer.received, footer.sent, footer.answered) == (2, 11, 7, 1, 1)
    assert (footer.gaps, footer.lost, footer.reason, footer.begun_ns) == (1, 7, "time", T0)
    assert (footer.first_ns, footer.last_ns) == (T0 + 1000, T0 + 9002)
    assert footer.connections == {
        "spot.1": segments.Numbers((3, 7), (1, 1)),
        "spot.2": segments.Numbers((1, 2)),
    }
    assert [first for _, first, _ in footer.index] == [1, 5]


def test_wherever_a_segment_ends_everything_but_the_open_block_is_read():
    data = written(GROUPS)
    ends = [*offsets(data)[1:], len(data)]  # of the three blocks, and of the footer
    for size in range(1, len(data)):
        whole = [item for end, group in zip(ends, GROUPS, strict=False) if size >= end for item in group]
        if not whole:
            with pytest.raises(segments.NotASegment):
                read(data[:size])
            continue
        *items, last = read(data[:size])
        assert items == whole
        assert last.what is What.GAP
        assert last.name.startswith(segments.TORN)


def test_every_bit_that_changes_is_found_and_costs_its_block_alone():
    data = written(GROUPS)
    ends = [*offsets(data)[1:], len(data)]
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        hit = next(number for number, end in enumerate(ends) if position < end)
        rest = [item for number, group in enumerate(GROUPS) if number != hit for item in group]
        found = read(bytes(changed))
        gaps = [item for item in found if item.what is What.GAP]
        assert [item for item in found if item.what is not What.GAP] == rest
        assert len(gaps) == 1
        if hit < len(GROUPS):
            assert gaps[0].number == len(GROUPS[hit])
            assert gaps[0].name.startswith(segments.DAMAGED)
        else:
            assert gaps[0].name.startswith(segments.TORN)


def test_a_block_that_was_taken_out_is_missing():
    data = written(GROUPS)
    first, second, third, footer = offsets(data)
    for cut in (slice(first, second), slice(second, third), slice(third, footer)):
        kept = data[: cut.start] + data[cut.stop :]
        gaps = [item for item in read(kept) if item.what is What.GAP]
        assert len(gaps) == 1
        assert gaps[0].number in map(len, GROUPS)


def test_a_block_of_another_segment_is_no_part_of_this_one():
    file = io.BytesIO()
    other = segments.SegmentWriter(file, T0 + 1)
    other.add(packing.packed(frames(3, 100)))
    other.flush()
    data = written(GROUPS[:1], is_closed=False)
    *items, gap = read(data + file.getvalue())
    assert items == GROUPS[0]
    assert "another segment" in gap.name


def test_a_frame_that_has_a_segment_in_it_is_a_frame():
    """Recordings of recordings: what is searched behind damage are blocks of this segment."""
    inner = [Item(What.RECEIVED, T0, 1, "spot.1", 1, data=written([frames(2)]))]
    data = written([frames(3), inner, frames(2, 50)])
    assert read(data) == [*frames(3), *inner, *frames(2, 50)]
    changed = bytearray(data)
    changed[offsets(data)[1] + 8] ^= 1  # the head of the block with the segment in it
    assert [item for item in read(bytes(changed)) if item.what is not What.GAP] == [
        *frames(3),
        *frames(2, 50),
    ]


class Full(io.RawIOBase):
    """A file that takes so many bytes, and in small parts."""

    def __init__(self, room):
        self.room = room
        self.data = b""

    def write(self, data):
        part = bytes(data[: min(self.room, 100)])
        if not part:
            raise OSError(28, "No space left on device")
        self.data += part
        self.room -= len(part)
        return len(part)


@pytest.mark.parametrize("room", [0, 50, 99, 250, 10_000])
def test_a_disk_that_becomes_full_leaves_what_a_tear_leaves(room):
    file = Full(room)
    writer = segments.SegmentWriter(file, T0)
    held = 0
    try:
        for number in range(100):
            writer.add(packing.packed(frames(3, 1 + 3 * number)))
            writer.flush()
            held += 3
    except OSError:
        assert len(file.data) == room
    if held:
        *items, gap = read(file.data)
        assert items == frames(held)
        assert gap.name.startswith(segments.TORN)


def test_a_block_that_tells_an_absurd_size_is_not_decompressed():
    data = bytearray(written(GROUPS, is_closed=False))
    offset = offsets(bytes(data))[1]
    head = list(segments.HEAD.unpack_from(data, offset))
    head[5] = 2**32 - 1
    frame = bytes(data[offset + 64 : offset + 64 + head[4]])
    packed = segments.HEAD.pack(*head)[:60]
    crc = segments.zlib.crc32(frame, segments.zlib.crc32(packed))
    data[offset : offset + 64] = packed + segments.CRC.pack(crc)
    gaps = [item for item in read(bytes(data)) if item.what is What.GAP]
    assert "more than one may have" in gaps[0].name


def test_a_footer_that_cannot_be_read_is_none():
    assert segments.read_footer(b"[") is None
    assert segments.read_footer(msgspec.json.encode({})) is None
    assert segments.footer(io.BytesIO(written(GROUPS, is_closed=False))) is None
