"""The board as a strategy uses it, with the test as the feeds."""

import builtins
import math
import threading
import time

import pytest
from patience import PATIENCE_S

from feedhandler.client import Board
from feedhandler.client import board as module
from feedhandler.data import board_layout as layout
from feedhandler.data import wire
from feedhandler.data.shard import parse
from feedhandler.transport.boards import BoardWriter, board_path

BTC = "ticker.binance.BTC/USDT"
ETH = "ticker.binance.ETH/USDT"


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch):
    """Whoever misses something looks whenever it is asked, so that no test has to wait."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.0)


def writer_of(run, exchange="binance", shard="1/1"):
    return BoardWriter(board_path(run, exchange, parse(shard)), slots_max=8)


def write(writer, topic, sequence, flags=0):
    record = wire.pack_ticker(wire.Ticker("native", sequence=sequence, bid=float(sequence), flags=flags))
    writer.slot(topic).write(record, time.time_ns())


def test_any_topic_of_any_feed_is_read_and_nothing_of_those_that_are_not_there(tmp_path):
    with Board(tmp_path) as board:
        assert board.read(BTC) is None
        assert board.topics() == []
        assert board.age_s("binance") == math.inf
        one, two = writer_of(tmp_path, shard="1/2"), writer_of(tmp_path, shard="2/2")
        other = writer_of(tmp_path, "bybit")
        write(one, BTC, 1)
        write(two, ETH, 2)
        write(other, "ticker.bybit.BTC/USDT", 3)
        assert [board[topic].sequence for topic in (BTC, ETH, "ticker.bybit.BTC/USDT")] == [1, 2, 3]
        assert board[BTC].topic == BTC
        assert BTC in board
        write(one, BTC, 4)
        assert board[BTC].bid == 4.0
        assert board.topics() == [BTC, ETH, "ticker.bybit.BTC/USDT"]
        assert 0 <= board.age_s("binance") < 60
        two.slot("ticker.binance.XRP/USDT")
        for topic in ("ticker.binance.XRP/USDT", "ticker.kucoin.BTC/USDT", "BTC", ""):
            with pytest.raises(KeyError, match=r"no board in .* has a record of"):
                board[topic]


def test_a_topic_that_appears_later_is_found(tmp_path):
    board = Board(tmp_path)
    writer = writer_of(tmp_path)
    assert board.read(BTC) is None
    write(writer, BTC, 1)
    assert board.read(BTC).sequence == 1


def test_a_feed_that_fell_silent_or_ended_is_down_until_it_is_back(tmp_path):
    board = Board(tmp_path)
    writer = writer_of(tmp_path)
    write(writer, BTC, 1, wire.SIMULATED)
    assert board[BTC].flags == wire.SIMULATED
    writer._words[layout.HEARTBEAT_MONO_NS_OFFSET >> 3] -= 1_500_000_000
    assert board[BTC].flags == wire.SIMULATED | wire.DOWN
    assert board.age_s("binance") >= 1.5
    writer.beat()
    assert board[BTC].flags == wire.SIMULATED
    writer.close()
    assert board[BTC].flags == wire.SIMULATED | wire.DOWN
    writer = writer_of(tmp_path)
    assert board.read(BTC) is None, "the new feed has no record yet"
    write(writer, ETH, 8)
    write(writer, BTC, 1)
    assert (board[BTC].sequence, board[BTC].flags, board[ETH].sequence) == (1, 0, 8)


def test_a_board_that_is_gone_or_no_board_is_none(tmp_path):
    writer = writer_of(tmp_path)
    write(writer, BTC, 1)
    board_path(tmp_path, "kucoin").write_bytes(b"nothing")
    board = Board(tmp_path)
    assert board.topics() == [BTC]
    board_path(tmp_path, "binance").unlink()
    writer.close()
    assert board.read(BTC) is None
    board.close()
    assert board.read(BTC) is None


def test_of_two_boards_with_a_topic_the_one_that_lives_is_read(tmp_path):
    old, new = writer_of(tmp_path, shard="1/2"), writer_of(tmp_path, shard="2/2")
    write(new, BTC, 2)
    write(old, BTC, 1)
    old.close()
    assert Board(tmp_path)[BTC].sequence == 2


def test_all_records_of_an_exchange_are_an_array(tmp_path):
    one, two = writer_of(tmp_path, shard="1/2"), writer_of(tmp_path, shard="2/2")
    write(one, BTC, 1)
    one.slot("ticker.binance.XRP/USDT")
    write(two, ETH, 2)
    write(writer_of(tmp_path, "bybit"), "ticker.bybit.BTC/USDT", 3)
    board = Board(tmp_path)
    array = board.exchange("binance")
    assert [(row["topic"].decode(), int(row["sequence"])) for row in array] == [(BTC, 1), (ETH, 2)]
    assert array.dtype.itemsize == wire.TICKER_SIZE
    assert array.dtype.names == wire.Ticker.__struct_fields__
    assert array["bid"].sum() == 3.0
    assert math.isnan(array["last"][0])
    assert len(board.all()) == 3
    assert len(board.exchange("kucoin")) == 0
    two.close()
    assert [int(flags) for flags in board.exchange("binance")["flags"]] == [0, wire.DOWN]
    write(one, BTC, 9)
    assert int(array["sequence"][0]) == 1, "a copy"


def test_without_numpy_arrays_say_what_is_missing_and_records_are_read(tmp_path, monkeypatch):
    write(writer_of(tmp_path), BTC, 1)
    real = builtins.__import__

    def without(name, *rest):
        if name == "numpy":
            raise ImportError(name)
        return real(name, *rest)

    board = Board(tmp_path)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install numpy"):
        board.exchange("binance")
    assert board[BTC].sequence == 1


@pytest.mark.parametrize("spin_s", [0.0, 0.001, math.inf])
def test_waiting_ends_with_the_next_record(tmp_path, spin_s):
    writer = writer_of(tmp_path)
    board = Board(tmp_path)
    assert board.wait(BTC, timeout_s=0.0, spin_s=spin_s) is None
    assert board.wait(BTC, timeout_s=0.01, spin_s=spin_s) is None
    write(writer, BTC, 1)
    assert board.wait(BTC, spin_s=spin_s).sequence == 1, "what is there already"
    assert board.wait(BTC, 1, timeout_s=0.01, spin_s=spin_s) is None
    waits = threading.Event()
    got = []

    def wait():
        waits.set()
        got.append(board.wait(BTC, 1, timeout_s=PATIENCE_S, spin_s=spin_s))

    thread = threading.Thread(target=wait)
    thread.start()
    waits.wait()
    write(writer, BTC, 2)
    thread.join()
    assert got[0].sequence == 2


def test_waiting_goes_on_over_a_restart_of_the_feed(tmp_path):
    write(writer_of(tmp_path), BTC, 5)
    board = Board(tmp_path)
    assert board[BTC].sequence == 5
    got = []
    thread = threading.Thread(target=lambda: got.append(board.wait(BTC, 5, timeout_s=PATIENCE_S)))
    thread.start()
    write(writer_of(tmp_path), BTC, 1)
    thread.join()
    assert got[0].sequence == 1, "a new session counts anew"
