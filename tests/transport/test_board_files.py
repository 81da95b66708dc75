"""Boards as files, written and read by both forms of the code, each with each."""

import errno
import os
import time

import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.data import board_layout, wire
from feedhandler.data.errors import DecodeError
from feedhandler.data.shard import parse
from feedhandler.transport.boards import (
    BoardReader,
    BoardWriter,
    board_path,
    boards_in,
    open_board,
    retire,
    retire_others,
)

BTC = "ticker.binance.BTC/USDT"
ETH = "ticker.binance.ETH/USDT"
NOW = 1_790_000_000_000_000_000


def record(number, topic="ticker.binance.BTCUSDT", **fields):
    return wire.pack_ticker(wire.Ticker(topic, sequence=number, last=float(number), bid=number / 2, **fields))


@pytest.fixture
def make(tmp_path, writes, reads):
    """Return a writer and a reader of one board."""

    def make(depth=2, slots_max=8, **more):
        path = tmp_path / "x.board"
        writer = writes.BoardWriter(path, depth=depth, slots_max=slots_max, **more)
        return writer, reads.BoardReader(path)

    return make


def test_a_record_is_read_as_it_was_written_but_for_topic_and_time(make):
    writer, reader = make(session=123)
    slot = writer.slot(BTC)
    slot.write(record(7, session=5, flags=wire.SIMULATED, exchange_ns=1, recv_ns=2), NOW)
    expected = wire.Ticker(
        BTC,
        session=5,
        sequence=7,
        flags=wire.SIMULATED,
        exchange_ns=1,
        recv_ns=2,
        publish_ns=NOW,
        last=7.0,
        bid=3.5,
    )
    assert reader.newest(0) == wire.pack_ticker(expected)
    assert slot.newest() == wire.pack_ticker(expected)
    assert repr(reader.cells.ticker(0)) == repr(wire.unpack(wire.pack(expected)))
    assert reader.session == 123


def test_topics_appear_when_they_are_added_and_keep_their_index(make):
    writer, reader = make()
    assert reader.topics() == {}
    slot = writer.slot(BTC)
    assert reader.topics() == {BTC: 0}
    assert reader.newest(0) is None
    assert slot.newest() is None
    assert reader.cells.ticker(0) is None
    assert not reader.cells.copy()
    writer.slot(ETH).write(record(1), NOW)
    assert reader.topics() == {BTC: 0, ETH: 1}
    assert writer.slot(BTC) is slot
    assert wire.unpack(bytes(reader.cells.copy())).topic == ETH
    with pytest.raises(IndexError):
        reader.newest(8)
    with pytest.raises(IndexError):
        reader.newest(-1)


@pytest.mark.long
@given(depth=st.integers(2, 9), count=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("kind", twins.FORMS)
def test_the_last_records_can_be_read_by_their_number_and_no_others(tmp_path_factory, kind, depth, count):
    path = tmp_path_factory.mktemp("board") / "x.board"
    twin = twins.of(kind)
    writer = twin.BoardWriter(path, depth=depth, slots_max=2)
    reader = twin.BoardReader(path)
    slot = writer.slot(BTC)
    for number in range(1, count + 1):
        slot.write(record(number), NOW)
    assert reader.number(0) == slot.number == count
    for number in range(-1, count + 3):
        found = reader.record(0, number)
        if max(1, count - depth + 1) <= number <= count:
            assert wire.unpack(found).sequence == number
        else:
            assert found is None
    assert reader.record(0, 1 << 64) is None


def test_a_record_in_the_writing_is_never_seen_and_the_newest_one_always(make):
    writer, reader = make(depth=3)
    slot = writer.slot(BTC)
    for number in range(1, 8):
        slot.write(record(number), NOW)
        at = board_layout.HEADER_SIZE + board_layout.cell_offset(3, number + 1)
        writer._file[at : at + 8] = (2 * number + 1).to_bytes(8, "little")  # killed in mid-write of the next
        writer._file[at + 84 : at + 124] = b"\xff" * 40
        assert wire.unpack(reader.newest(0)).sequence == number
        assert reader.record(0, number + 1) is None
        assert reader.record(0, number - 2) is None


def test_a_damaged_board_ends_with_an_error_and_not_in_a_loop(make):
    writer, reader = make()
    writer.slot(BTC).write(record(1), NOW)
    at = board_layout.HEADER_SIZE + board_layout.NEWEST_OFFSET
    writer._file[at : at + 8] = (9).to_bytes(8, "little")
    for read in (reader.newest, reader.cells.ticker):
        with pytest.raises(twins.DECODE_ERRORS, match="slot 0 of the board is damaged"):
            read(0)


def test_a_writer_that_ended_or_fell_silent_is_told_by_flag_and_age(make):
    writer, reader = make()
    writer.slot(BTC).write(record(1), NOW)
    assert reader.is_alive()
    assert not reader.cells.ticker(0).flags & wire.DOWN
    assert 0 <= reader.writer_age_ns(time.monotonic_ns()) < 60_000_000_000
    writer._words[board_layout.HEARTBEAT_MONO_NS_OFFSET >> 3] -= 2_000_000_000
    assert not reader.is_alive()
    assert reader.writer_age_ns(time.monotonic_ns()) >= 2_000_000_000
    assert reader.cells.ticker(0).flags == wire.DOWN
    assert wire.unpack(bytes(reader.cells.copy())).flags == wire.DOWN
    assert wire.unpack(reader.newest(0)).flags == 0, "as it was written"
    writer.beat()
    assert reader.is_alive()
    writer.close()
    assert not reader.is_alive()
    assert (reader.closed, reader.is_current()) == (board_layout.ENDED, True)


def test_a_successor_takes_the_place_and_readers_are_told(make, tmp_path, writes, reads):
    writer, reader = make()
    slot = writer.slot(BTC)
    slot.write(record(1), NOW)
    writes.BoardWriter(tmp_path / "x.board", slots_max=8)
    assert (reader.closed, reader.is_current()) == (board_layout.SUPERSEDED, False)
    assert wire.unpack(reader.newest(0)).sequence == 1, "what is mapped stays"
    assert reads.BoardReader(tmp_path / "x.board").topics() == {}
    slot.write(record(2), NOW)  # the old writer harms nobody
    assert not (tmp_path / "x.board.tmp").exists()


def test_what_is_no_board_is_replaced_and_refused(tmp_path):
    path = tmp_path / "x.board"
    path.write_bytes(b"something else")
    with pytest.raises(DecodeError, match=r"x\.board: no board"):
        BoardReader(path)
    BoardWriter(path).close()
    assert BoardReader(path).closed == board_layout.ENDED
    with pytest.raises(FileNotFoundError):
        BoardReader(tmp_path / "y.board")


def test_a_retired_board_is_gone_and_its_readers_are_told(make, tmp_path):
    _, reader = make()
    retire(tmp_path / "x.board")
    assert (reader.closed, reader.is_current()) == (board_layout.SUPERSEDED, False)
    retire(tmp_path / "x.board")


def test_boards_of_another_count_of_shards_are_retired_and_no_others(tmp_path):
    for exchange, shard in [("a", "1/1"), ("a", "1/2"), ("a", "2/2"), ("b", "1/1"), ("a", "1/4")]:
        BoardWriter(board_path(tmp_path, exchange, parse(shard)), slots_max=1)
    (tmp_path / "board" / "a-x.board").touch()
    reader = BoardReader(board_path(tmp_path, "a"))
    assert len(boards_in(tmp_path)) == 5
    retire_others(tmp_path, "a", parse("2/2"))
    assert [(exchange, str(shard)) for exchange, shard in boards_in(tmp_path).values()] == [
        ("a", "1/2"),
        ("a", "2/2"),
        ("b", "1/1"),
    ]
    assert reader.closed == board_layout.SUPERSEDED


def test_a_full_board_has_no_slot_and_a_full_disk_says_so(make, monkeypatch, caplog):
    writer, _ = make(slots_max=1)
    assert writer.slot(BTC) is not None
    assert writer.slot(ETH) is None

    def is_full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer, reader = make(slots_max=2000)
    writer.slot(BTC)
    monkeypatch.setattr(os, "posix_fallocate", is_full)
    slots = [writer.slot(f"ticker.x.{number}") for number in range(2000)]
    assert 100 < len(reader.topics()) < 2000, "what there was room for is there"
    assert sum(slot is not None for slot in slots) == len(reader.topics()) - 1
    assert [r.getMessage() for r in caplog.records if "No space" in r.getMessage()] == [
        f"{writer.path}: no more topics on this board: No space left on device"
    ]


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    assert open_board(tmp_path / "file" / "x.board", session=1) is None
    assert "no board for readers of this host: " in caplog.text


def test_the_file_takes_room_for_what_is_used(make, tmp_path):
    writer, _ = make(depth=17, slots_max=board_layout.SLOTS_MAX)
    writer.slot(BTC)
    status = (tmp_path / "x.board").stat()
    assert status.st_size > 150_000_000
    assert status.st_blocks * 512 < 2_000_000


def test_waiting_ends_with_the_next_record_or_with_the_patience(make):
    writer, reader = make()
    slot = writer.slot(BTC)
    assert not reader.cells.wait(0, 0, 1000)
    slot.write(record(1), NOW)
    assert reader.cells.wait(0, 0, 0)
    assert not reader.cells.wait(0, 1, 0)


def test_a_slot_takes_nothing_but_ticker_records(make):
    writer, _ = make()
    with pytest.raises(ValueError, match="ticker record"):
        writer.slot(BTC).write(b"short", NOW)


def test_slots_outlive_their_board(make):
    writer, reader = make()
    slot = writer.slot(BTC)
    cells = reader.cells
    writer.close()
    del writer, reader
    slot.write(record(3), NOW)
    assert wire.unpack(cells.newest(0)).sequence == 3
