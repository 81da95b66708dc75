"""Rings: records of any size, written by one and read by others at the same time; both forms, each with each."""

import os
import random
import signal
import time

import pytest
import twins
from patience import PATIENCE_S

from feedhandler.data import board_layout, wire
from feedhandler.data.errors import DecodeError
from feedhandler.transport.boards import BoardReader, BoardWriter, retire

TOPIC = "later.x.A/B"
NOW = 1_790_000_000_000_000_000
MAX = board_layout.RING_RECORD_SIZE_MAX
RING = {"form": board_layout.RING}
KILLS = int(os.environ.get("BOARD_KILLS", "20"))


def record(number, size=wire.HEADER_SIZE, publish_ns=NOW):
    """A record of which every word after the header is its number."""
    header = wire.Unknown(TOPIC, kind=250, sequence=number, publish_ns=publish_ns)
    return wire.pack(header) + (number.to_bytes(8, "little") * (size // 8))[: size - wire.HEADER_SIZE]


def is_whole(found):
    number = wire.sequence_of(found)
    return found == record(number, len(found), wire.unpack(found).publish_ns)


@pytest.fixture
def make(tmp_path, writes, reads):
    def make(depth=9, slots_max=4):
        path = tmp_path / "x.ring"
        writer = writes.BoardWriter(path, depth=depth, slots_max=slots_max, **RING)
        return writer, reads.BoardReader(path, **RING)

    return make


def test_records_of_any_size_are_read_as_they_were_written(make):
    writer, reader = make()
    slot = writer.slot(TOPIC, MAX)
    assert reader.newest(0) is slot.newest() is None
    for number, size in enumerate((104, 105, 111, 112, 193, 760, MAX), 1):
        slot.write(record(number, size), NOW)
        assert reader.newest(0) == slot.newest() == record(number, size)
        assert reader.number(0) == number
        found = [reader.record(0, each) for each in range(number + 2)]
        assert found[number] == record(number, size)
        assert found[0] is found[-1] is None
        assert all(is_whole(each) for each in found if each is not None)
    later = bytearray(record(8, 232))
    slot.write(later, NOW + 5)
    assert wire.unpack(reader.newest(0)).publish_ns == NOW + 5
    assert wire.unpack(bytes(later)).publish_ns == NOW, "the writer's own stays as it is"


@pytest.mark.parametrize("seed", range(8))
def test_the_last_records_are_there_as_far_as_the_ring_goes(make, seed):
    rng = random.Random(seed)
    depth = rng.choice((2, 3, 9, 65))
    writer, reader = make(depth)
    slot = writer.slot(TOPIC, MAX)
    sizes = [104, 112, 760, 768, MAX, MAX - 1, 2000]
    written = [b""]
    for number in range(1, 400):
        written.append(record(number, rng.choice(sizes)))
        slot.write(written[-1], NOW)
        found = {each: reader.record(0, each) for each in range(max(1, number - depth - 1), number + 1)}
        there = [each for each, data in found.items() if data is not None]
        assert all(found[each] == written[each] for each in there)
        assert there == list(range(there[0], number + 1)), "none is missing between two"
        size = sum(len(each) + 7 for each in written[-depth:])
        if size + MAX <= board_layout.ring_size(depth):
            assert len(there) == min(number, depth)
    assert reader.newest(0) == written[-1]


def test_as_many_records_of_the_largest_fixed_size_are_kept_as_are_wanted(make):
    writer, reader = make(depth=65)
    slot = writer.slot(TOPIC, MAX)
    for number in range(1, 200):
        slot.write(record(number, board_layout.RING_BYTES_EACH), NOW)
    assert all(reader.record(0, number) is not None for number in range(136, 200))


def test_what_is_no_record_or_too_large_is_refused_and_changes_nothing(make):
    writer, reader = make()
    assert writer.slot(TOPIC, MAX + 1) is None
    slot = writer.slot(TOPIC, MAX)
    for data in (b"", bytes(103), bytes(MAX + 1)):
        with pytest.raises(ValueError, match="no record"):
            slot.write(data, NOW)
    assert (slot.number, reader.newest(0)) == (0, None)


def test_a_ring_is_no_board_and_a_board_no_ring(tmp_path):
    BoardWriter(tmp_path / "x.ring", **RING)
    BoardWriter(tmp_path / "x.board")
    with pytest.raises(DecodeError, match="does not begin"):
        BoardReader(tmp_path / "x.ring")
    with pytest.raises(DecodeError, match="does not begin"):
        BoardReader(tmp_path / "x.board", **RING)
    retire(tmp_path / "x.ring", board_layout.RING)
    assert not (tmp_path / "x.ring").exists()


@pytest.mark.parametrize("word", [0, 1, 7, 8, MAX, 2**31, 2**62, 2**63, 2**64 - 1])
@pytest.mark.parametrize("at", ["position", "size", "reserved", "newest"])
def test_a_damaged_slot_is_refused_or_empty_and_read_within_its_bounds(make, word, at):
    writer, reader = make()
    slot = writer.slot(TOPIC, MAX)
    slot.write(record(1, 760), NOW)
    start = board_layout.HEADER_SIZE
    cell = start + board_layout.SLOT_HEADER_SIZE + board_layout.RING_CELL_SIZE
    offset = {
        "newest": start + board_layout.NEWEST_OFFSET,
        "reserved": start + board_layout.RESERVED_OFFSET,
        "position": cell + 8,
        "size": cell + 16,
    }[at]
    writer._file[offset : offset + 8] = word.to_bytes(8, "little")
    try:
        found = reader.record(0, 1)
    except twins.DECODE_ERRORS:
        return
    assert found is None or len(found) <= board_layout.ring_size(9)


def write_for_ever(path, form):
    rng = random.Random(1)
    records = [record(number, rng.choice((104, 112, 760, 4000, MAX))) for number in range(1, 500)]
    writer = twins.of(form).BoardWriter(path, depth=9, slots_max=4, **RING)
    slot = writer.slot(TOPIC, MAX)
    while True:
        writer.beat()
        for each in records:
            slot.write(each, NOW)


def start(path, form):
    pid = os.fork()
    if pid:
        return pid
    try:
        write_for_ever(path, form)
    finally:
        os._exit(1)


def await_reader(path, before, form):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            reader = twins.of(form).BoardReader(path, **RING)
        except (FileNotFoundError, *twins.DECODE_ERRORS):
            continue
        if (before is None or reader._inode != before._inode) and reader.topics() and reader.number(0):
            return reader
    raise AssertionError("no writer has come")


@pytest.mark.e2e
@pytest.mark.parametrize("form", twins.FORMS)
def test_nobody_sees_a_mixture_while_a_writer_writes_or_after_it_was_killed(tmp_path, form):
    path = tmp_path / "x.ring"
    rng = random.Random(form)
    reader, pids, seen, gone = None, [], 0, 0
    try:
        for kill in range(KILLS):
            pids.append(start(path, form))
            reader = await_reader(path, reader, twins.FORMS[kill % len(twins.FORMS)])
            for _ in range(200):
                assert is_whole(reader.newest(0))
                old = reader.record(0, reader.number(0) - rng.randrange(8))
                seen, gone = seen + (old is not None), gone + (old is None)
                assert old is None or is_whole(old)
            os.kill(pids[-1], signal.SIGKILL)
            os.waitpid(pids.pop(), 0)
            assert is_whole(reader.newest(0)), "at once: nobody waits for the dead"
            kept = [reader.record(0, reader.number(0) - each) for each in range(9)]
            assert all(is_whole(each) for each in kept if each is not None)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    print(f"{form}: {seen} older records seen, {gone} gone meanwhile")
    assert seen
