"""The board: what it costs its writers, and what a look at it costs.

    TickerState ──▶ Batch.emit ──▶ the hop             with and without a slot
    message ──▶ Merger.on_message ──▶ outlet     with and without the ring of the last 16 records
    file in memory ──▶ Board.read

Timed: of 10 symbols and of 5,000 in random order, whose slots are rarely in the processor's cache. The classes are
those that the processes take: compiled, if they were built.
"""

import itertools
import random
import time
from typing import Any

import pytest
from material import RECORDS, Outlet, message_runs, records_in, running_merger, ticker

from feedhandler.client import Board
from feedhandler.data import wire
from feedhandler.data.contracts import Fanout
from feedhandler.exchanges.state import TickerState
from feedhandler.feed.batch import Batch
from feedhandler.transport.boards import BoardReader, BoardWriter, board_path

RECENT = 16
SYMBOLS = [10, 5000]
AS_THE_MERGER_HAS_IT: dict[str, Any] = {"depth": RECENT + 1, "session": 100}


class Hop(Fanout):
    """Takes messages, and keeps none."""

    def send(self, *message):
        pass

    def flush(self):
        pass


def topic_of(number):
    return f"ticker.binance.C{number:04}/USDT"


def shuffled(symbols):
    numbers = [number % symbols for number in range(max(RECORDS, symbols))]
    random.Random(1).shuffle(numbers)
    return numbers


@pytest.mark.parametrize("has_board", [False, True], ids=["without", "with"])
@pytest.mark.parametrize("symbols", SYMBOLS)
def bench_emit(measure, tmp_path, symbols, has_board):
    batch = Batch(Hop(), Hop(), time.time_ns)
    writer = BoardWriter(tmp_path / "x.board")
    states = [
        TickerState(topic=wire.topic(wire.TICKER, "binance", f"C{number:04}USDT"), native=f"C{number:04}USDT")
        for number in range(symbols)
    ]
    if has_board:
        for number, state in enumerate(states):
            state.slot = writer.slot(topic_of(number))
    numbers = shuffled(symbols)
    starts = itertools.cycle(range(0, len(numbers), RECORDS))
    emit, flush = batch.emit, batch.flush

    def prepare():
        start = next(starts)
        return ([states[number] for number in numbers[start : start + RECORDS]],), {}

    def call(states):
        for state in states:
            emit(state)
        flush()

    way = "with a board" if has_board else "without"
    measure("board: Batch.emit", f"{symbols:5,} symbols, {way}", call, prepare)
    reader = BoardReader(writer.path)
    assert len(reader.topics()) == (symbols if has_board else 0)
    for number, index in enumerate(reader.topics().values()):
        kept = reader.cells.ticker(index)
        assert kept is not None and kept.sequence == states[number].sequence


@pytest.mark.parametrize("has_ring", [False, True], ids=["without", "with"])
@pytest.mark.parametrize("symbols", SYMBOLS)
def bench_merge_into_ring(measure, tmp_path, symbols, has_ring):
    ring = BoardWriter(tmp_path / "recent.board", **AS_THE_MERGER_HAS_IT)
    outlet = Outlet(is_wanted=True)
    merger = running_merger(
        symbols,
        outlet,
        Outlet(is_wanted=False),
        time.time_ns,
        ring=ring if has_ring else None,
    )
    on_message = merger.on_message
    rounds = itertools.cycle(message_runs(symbols, 1))

    def prepare():
        return (next(rounds),), {}

    def call(messages):
        for message in messages:
            on_message(message)

    way = f"with a ring of {RECENT}" if has_ring else "without"
    measure("board: Merger.on_message", f"{symbols:5,} symbols, {way}", call, prepare)
    (sent,) = records_in(outlet.newest)
    if has_ring:
        reader = BoardReader(ring.path)
        kept = reader.record(reader.topics()[sent.topic], sent.sequence)
        assert kept == bytes(outlet.newest)


@pytest.mark.parametrize("symbols", SYMBOLS)
def bench_read(measure, tmp_path, symbols):
    writer = BoardWriter(board_path(tmp_path, "binance"))
    for number in range(symbols):
        slot = writer.slot(topic_of(number))
        assert slot is not None, "there is room"
        slot.write(wire.pack_ticker(ticker(number)), time.time_ns())
    board = Board(tmp_path)
    numbers = shuffled(symbols)
    starts = itertools.cycle(range(0, len(numbers), RECORDS))
    topics = [topic_of(number) for number in range(symbols)]
    for number, topic in enumerate(topics):
        record = board[topic]
        assert (record.topic, record.bid) == (topic_of(number), number + 0.5)
    read = board.read

    def prepare():
        writer.beat()
        start = next(starts)
        return ([topics[number] for number in numbers[start : start + RECORDS]],), {}

    def call(topics):
        for topic in topics:
            read(topic)

    measure("board: Board.read", f"{symbols:5,} symbols", call, prepare)


def bench_array(measure, tmp_path):
    writer = BoardWriter(board_path(tmp_path, "binance"))
    for number in range(RECORDS):
        slot = writer.slot(topic_of(number))
        assert slot is not None, "there is room"
        slot.write(wire.pack_ticker(ticker(number)), time.time_ns())
    board = Board(tmp_path)
    assert len(board.exchange("binance")) == RECORDS

    def prepare():
        writer.beat()

    measure(
        "board: Board.exchange",
        f"an array of {RECORDS:,} records",
        lambda: board.exchange("binance"),
        prepare,
    )
