"""Readers of many speeds end on the same state, see nothing old, and cost no queue."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.data import wire
from feedhandler.gateway.conflation import EVERYTHING, Interest, Newest


def ticker(symbol, sequence, exchange="binance", session=1):
    topic = wire.topic(wire.TICKER, exchange, symbol)
    return wire.Ticker(topic=topic, session=session, sequence=sequence)


def newest():
    return Newest(lambda each, flags: f"{each.symbol}#{each.sequence}/{flags}".encode())


def texts(board, seen, interest=EVERYTHING):
    return [board.text(topic).decode() for topic in board.since(seen, interest)]


def test_a_reader_gets_the_newest_state_of_what_has_changed_since_once():
    board = newest()
    for symbol, sequence in (("A/X", 1), ("B/X", 1), ("A/X", 2)):
        board.take(ticker(symbol, sequence))
    assert texts(board, 0) == ["B/X#1/0", "A/X#2/0"]
    seen = board.changes
    assert texts(board, seen) == []
    board.take(ticker("B/X", 2))
    assert texts(board, seen) == ["B/X#2/0"]


def test_interests_are_by_symbol_and_by_exchange():
    board = newest()
    board.take(ticker("A/X", 1))
    board.take(ticker("A/X", 5, "bybit"))
    board.take(ticker("B/X", 9, "bybit"))
    assert texts(board, 0, Interest(symbols=frozenset({"A/X"}))) == ["A/X#1/0", "A/X#5/0"]
    assert texts(board, 0, Interest(exchanges=frozenset({"bybit"}))) == ["A/X#5/0", "B/X#9/0"]
    assert texts(board, 0, Interest(frozenset({"A/X"}), frozenset({"bybit"}))) == ["A/X#5/0"]
    assert texts(board, 0, Interest(symbols=frozenset())) == []
    assert Interest(frozenset({"A/X"})) == Interest(frozenset({"A/X"})) != EVERYTHING


def test_a_text_is_made_once_for_all_who_read_it():
    made = []
    board = Newest(lambda each, flags: made.append(each.sequence) or b"x")
    board.take(ticker("A/X", 1))
    for _ in range(500):
        texts(board, 0)
    assert made == [1]
    board.take(ticker("A/X", 2))
    board.take(ticker("A/X", 3))
    texts(board, 0)
    assert made == [1, 3], "what nobody read was not made"


def test_flags_for_all_are_told_to_all_once_and_taken_back():
    board = newest()
    board.take(ticker("A/X", 1))
    seen = board.changes
    board.set_flags(wire.DOWN)
    assert texts(board, seen) == [f"A/X#1/{wire.DOWN}"]
    seen = board.changes
    board.set_flags(wire.DOWN)
    assert texts(board, seen) == []
    board.set_flags(0)
    assert texts(board, seen) == ["A/X#1/0"]


@pytest.mark.long
@given(
    st.lists(st.tuples(st.sampled_from("ABCDE"), st.integers(0, 9), st.booleans()), max_size=200),
    st.integers(0, 10**6),
)
def test_however_rarely_it_looks_a_reader_ends_where_the_others_do_and_never_goes_back(events, seed):
    rng = random.Random(seed)
    board, truth = newest(), {}
    session, sequences = 1, dict.fromkeys("ABCDE", 0)
    readers = [{"seen": 0, "state": {}, "share": share} for share in (1.0, 0.3, 0.02)]

    def look(reader):
        for topic in board.since(reader["seen"], EVERYTHING):
            key = (topic.ticker.session, topic.ticker.sequence)
            assert key > reader["state"].get(topic.symbol, (0, 0)), "older than before, or the same again"
            reader["state"][topic.symbol] = key
        reader["seen"] = board.changes

    for symbol, skip, is_restart in events:
        if is_restart and skip == 0:
            session, sequences = session + 1, dict.fromkeys("ABCDE", 0)
        sequences[symbol] += 1 + skip
        board.take(ticker(f"{symbol}/X", sequences[symbol], session=session))
        truth[f"{symbol}/X"] = (session, sequences[symbol])
        for reader in readers:
            if rng.random() < reader["share"]:
                look(reader)
    for reader in readers:
        look(reader)
        assert reader["state"] == truth
    assert len(board) == len(truth)
