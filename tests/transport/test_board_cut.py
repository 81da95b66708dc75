"""Boards that somebody cuts short while they are mapped. What may end the process is done in a child."""

import contextlib
import mmap
import os
import signal
from pathlib import Path

import pytest
import twins
from patience import PATIENCE_S

import feedhandler
from feedhandler.client import Board
from feedhandler.data import board_layout, wire
from feedhandler.data.errors import DecodeError, FeedError
from feedhandler.transport.boards import BoardReader, BoardWriter, board_path, open_board, retire

BTC = "ticker.x.BTC/USDT"
RECORD = wire.pack_ticker(wire.Ticker("ticker.x.BTCUSDT", sequence=1, last=1.0))
SIZES = (0, 100, board_layout.HEADER_SIZE, 2 * board_layout.HEADER_SIZE, 200_000)
compiled = pytest.mark.skipif(not feedhandler.IS_COMPILED, reason="the handler is in the compiled part")


def status_of(act) -> int:
    """Run it in a child; return how that ended: 0, 1 for an exception, or less the number of a signal."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            signal.alarm(int(PATIENCE_S))
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 2)  # where a handler of the test's own would print
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def mean_writer(path: Path, make: type = BoardWriter) -> BoardWriter:
    writer = make(path, slots_max=5000)
    for number in range(1000):
        writer.slot(f"ticker.x.{number}").write(RECORD, 1)
    return writer


@compiled
@pytest.mark.parametrize("size", SIZES)
def test_a_writer_goes_on_until_it_is_told_by_its_next_heartbeat(tmp_path, size):
    path = tmp_path / "x.board"

    def act():
        writer = mean_writer(path)
        slots = [writer.slot(f"ticker.x.{number}") for number in range(1000)]
        os.truncate(path, size)
        for slot in slots:
            slot.write(RECORD, 2)
        writer.slot("ticker.x.new")
        for _ in range(2):
            with pytest.raises(
                FeedError, match=r"x\.board was cut short while it was in use; a new start makes"
            ):
                writer.beat()
        writer.close()
        BoardWriter(path).close()  # the new start

    assert status_of(act) == 0
    assert BoardReader(path).closed == board_layout.ENDED


@compiled
@pytest.mark.parametrize("size", SIZES)
def test_a_reader_finds_nothing_more_and_opens_nothing_that_is_short(tmp_path, size):
    path = tmp_path / "x.board"
    mean_writer(path)

    def act():
        reader = BoardReader(path)
        os.truncate(path, size)
        for index in (999, 0, 1, 500, 4999):
            with contextlib.suppress(DecodeError):
                reader.newest(index)
                reader.cells.ticker(index)
        with contextlib.suppress(DecodeError):
            reader.cells.copy()
        assert not reader.is_current()
        assert reader.newest(999) is None, "it was there"
        with pytest.raises(DecodeError):
            BoardReader(path)

    assert status_of(act) == 0


@compiled
def test_the_python_board_of_a_file_that_was_cut_has_no_record_until_the_next_one(tmp_path):
    path = board_path(tmp_path, "x")

    def act():
        writer = open_board(path, session=1)
        writer.slot(BTC).write(RECORD, 1)
        with Board(tmp_path) as found:
            assert found["ticker.x.BTC/USDT"].last == 1.0
            os.truncate(path, 0)
            assert found.read("ticker.x.BTC/USDT") is None
            successor = open_board(path, session=2)
            successor.slot(BTC).write(RECORD, 1)
            while found.wait("ticker.x.BTC/USDT", timeout_s=0.1) is None:
                successor.beat()

    assert status_of(act) == 0


@compiled
def test_a_board_that_was_cut_and_made_long_again_is_told(tmp_path):
    """The file is as long as ever, and what is written is somewhere else."""
    path = tmp_path / "x.board"

    def act():
        writer = mean_writer(path)
        size = path.stat().st_size
        os.truncate(path, 0)
        writer.slot("ticker.x.0").write(RECORD, 2)  # from here on into nothing
        os.truncate(path, size)
        with pytest.raises(FeedError, match="cut short"):
            writer.beat()

    assert status_of(act) == 0


def test_without_the_handler_a_heartbeat_tells_too_and_nothing_is_written(tmp_path):
    python = twins.of("python")
    for size in SIZES:
        writer = mean_writer(tmp_path / "x.board", python.BoardWriter)
        os.truncate(tmp_path / "x.board", size)
        with pytest.raises(python.FeedError, match="cut short"):
            writer.beat()
        writer.close()
        retire(tmp_path / "x.board")


@compiled
def test_what_is_no_board_is_decided_by_what_was_there_before(tmp_path):
    path = tmp_path / "x.board"
    other = tmp_path / "other"
    other.write_bytes(bytes(100_000))

    def cut_other(before):
        signal.signal(signal.SIGBUS, before)
        writer = mean_writer(path)
        with other.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        os.truncate(path, 0)
        writer.slot("ticker.x.0").write(RECORD, 2)
        os.truncate(other, 0)
        return memory[0]

    def be_sent():
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        mean_writer(path)
        os.kill(os.getpid(), signal.SIGBUS)

    assert status_of(lambda: cut_other(signal.SIG_DFL)) == -signal.SIGBUS
    assert status_of(lambda: cut_other(signal.SIG_IGN)) == -signal.SIGBUS
    assert status_of(be_sent) == -signal.SIGBUS


@compiled
def test_more_boards_than_the_table_has_places_are_mapped_all_the_same(tmp_path):
    def act():
        BoardWriter(tmp_path / "x.board", slots_max=1)
        readers = [BoardReader(tmp_path / "x.board") for _ in range(1100)]
        assert all(reader.cells.count() == 0 for reader in readers)
        del readers
        reader = BoardReader(tmp_path / "x.board")
        os.truncate(tmp_path / "x.board", 0)
        assert reader.newest(0) is None

    assert status_of(act) == 0
