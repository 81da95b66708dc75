"""Trades, depth and books by number: their shape, and that a fault in any of them is seen where it comes out."""

import itertools
import json
import statistics

import numpy as np
import pytest

from bench import contenders, measure, traffic
from bench.host import Usage
from bench.rig import Load, Outcome, Received

NATIVES = [f"S{n}USDT" for n in range(7)]
FIRST, COUNT = 70, 140
LOAD = Load(rate=1000.0, seconds=COUNT / 1000)
LATE = {"p50": 10.0, "p99": 100.0, "p99.9": 200.0, "max": 300.0}


def placed(number: int) -> tuple[int, int]:
    """Return a message's symbol and which of that symbol's messages it is."""
    [index] = measure.numbered.symbol_indices(np.array([number]), len(NATIVES)).tolist()
    return index, number // len(NATIVES)


def said(kind: str, number: int, models: list[traffic.ModelBook]) -> tuple[str, int, bytes]:
    """Return what a sink that does everything right notes of a message: topic, id, values."""
    index, turn = placed(number)
    values = traffic.TRAFFIC[kind].values(index, turn)
    identity = traffic.ID_FIRST + turn
    if kind == "book":
        models[index].advance(turn + 1)
        identity = models[index].last_id
        values = np.array([identity, *models[index].best()]).tobytes() + values
    return f"{kind}.binance.S{index}/USDT", identity, values


def outcome(kind: str, change=lambda rows, books: None) -> Outcome:
    models = traffic.model_books(len(NATIVES))
    rows = [list(said(kind, number, models)) for number in range(FIRST, FIRST + COUNT)]
    books = [[f"book.binance.S{n}/USDT", m.last_id, m.values()] for n, m in enumerate(models)]
    books = books if kind == "book" else []
    change(rows, books)
    start_ns = 1_790_000_000_000_000_000
    columns = {
        "now_ns": start_ns + np.arange(len(rows)) * 1_000_000 + 200_000,
        "symbol": np.array([row[0] for row in rows], dtype=np.bytes_),
        "ids": np.array([row[1] for row in rows], dtype=np.int64),
        "said": np.frombuffer(b"".join(row[2] for row in rows)),
        "said_counts": np.array([len(row[2]) // 8 for row in rows], dtype=np.int64),
        "book_symbol": np.array([book[0] for book in books], dtype=np.bytes_),
        "book_id": np.array([book[1] for book in books], dtype=np.int64),
        "book": np.frombuffer(b"".join(book[2] for book in books)),
        "book_counts": np.array([len(book[2]) // 8 for book in books], dtype=np.int64),
        "statuses": np.array([], dtype=np.bytes_),
        **{name: np.array([]) for name in ("bid", "bid_size", "ask", "ask_size", "recv_ns", "publish_ns")},
    }
    sent = {
        "first": FIRST,
        "sent": COUNT,
        "start_unix_ns": start_ns,
        "late_us": LATE,
        "cpu_s": 0.001,
        "took_s": LOAD.seconds,
        "writes": COUNT,
        "backlog_max": 0,
        "lost_clients": 0,
    }
    used = {"feed": Usage(0.001, 10, 40.0)}
    return Outcome(LOAD, {"binance": sent}, {"binance": NATIVES}, used, 1.0, [Received(columns)], kind)


def problems(kind: str, change=lambda rows, books: None) -> list[str]:
    run = measure.run_of(contenders.OTHERS, [outcome(kind, change)], symbols=7, subscribers=1, feeds=1)
    assert run.kind == kind
    return run.problems


def test_changes_have_the_shape_of_real_traffic():
    counts = [sum(map(len, traffic.changes(index, turn))) for index in range(20) for turn in range(500)]
    assert statistics.mean(counts) == pytest.approx(traffic.LEVELS_MEAN, rel=0.05)
    assert np.percentile(counts, 99) == pytest.approx(traffic.LEVELS_P99, rel=0.1)


def test_a_message_changes_each_level_once_and_the_book_never_crosses():
    model = traffic.ModelBook(3)
    for turn in range(300):
        for side in traffic.changes(3, turn):
            assert len({place for place, _ in side}) == len(side)
        model.advance(turn + 1)
        bid, _, ask, _ = model.best()
        assert bid < ask
    assert 900 < len(model.bids) <= traffic.BOOK_LEVELS


@pytest.mark.parametrize("kind", list(traffic.TRAFFIC))
def test_what_is_printed_says_what_is_expected(kind):
    events = traffic.TRAFFIC[kind]
    for turn in range(50):
        data = json.loads(events.event(events.streams[0], b"S2USDT", 2, turn, 5))
        if kind == "trade":
            identity, values = data["t"], [float(data["p"]), float(data["q"]), 1 + data["m"]]
        else:
            sides = (data["bids"], data["asks"]) if kind == "depth" else (data["b"], data["a"])
            identity = data["lastUpdateId"] if kind == "depth" else data["u"]
            values = [float(value) for side in sides for level in side for value in level]
        assert events.turns(np.array([identity])).tolist() == [turn]
        assert np.frombuffer(events.values(2, turn)).tolist() == values


def test_the_ids_of_changes_follow_on_one_another():
    events = traffic.TRAFFIC["book"]
    data = [json.loads(events.event("depth@100ms", b"S2USDT", 2, turn, 5)) for turn in range(20)]
    assert all(after["U"] == before["u"] + 1 for before, after in itertools.pairwise(data))
    assert data[0]["U"] == traffic.ModelBook(2).last_id + 1


@pytest.mark.parametrize("symbols", [1, 3, 100, 500])
def test_symbol_and_turn_tell_the_number(symbols):
    number = np.arange(5 * symbols)
    index = measure.numbered.symbol_indices(number, symbols)
    turns = traffic.Turns(symbols)
    assert (turns.numbers(index, number // symbols) == number).all()
    for sent in (0, 1, symbols, 2 * symbols + 1):
        assert [turns.count(n, sent) for n in range(symbols)] == np.bincount(
            index[:sent], minlength=symbols
        ).tolist()


@pytest.mark.parametrize("kind", list(traffic.TRAFFIC))
def test_a_run_in_which_all_is_right_has_no_problems(kind):
    assert problems(kind) == []


@pytest.mark.parametrize("kind", list(traffic.TRAFFIC))
def test_what_is_lost_or_comes_twice_is_seen(kind):
    assert problems(kind, lambda rows, books: rows.pop(20)) == [f"1 of {COUNT} lost"]
    assert problems(kind, lambda rows, books: rows.insert(21, rows[20])) == ["1 came twice"]


def test_disorder_within_a_symbol_is_seen():
    def swap(rows, books):
        rows[0], rows[len(NATIVES)] = rows[len(NATIVES)], rows[0]

    assert problems("trade", swap) == ["1 out of order"]


@pytest.mark.parametrize("kind", list(traffic.TRAFFIC))
def test_a_wrong_value_is_seen(kind):
    def spoil(rows, books):
        values = np.frombuffer(rows[7][2]).copy()
        values[-1] += 0.001
        rows[7][2] = values.tobytes()

    assert problems(kind, spoil) == ["1 with wrong values"]


def test_a_wrong_best_price_is_seen():
    def spoil(rows, books):
        values = np.frombuffer(rows[7][2]).copy()
        values[1] += 0.01
        rows[7][2] = values.tobytes()

    assert problems("book", spoil) == ["1 with wrong best prices"]


def test_a_book_that_is_wrong_or_missing_at_the_end_is_seen():
    def spoil(rows, books):
        values = np.frombuffer(books[2][2]).copy()
        values[-1] += 0.001
        books[2][2] = values.tobytes()

    assert problems("book", spoil) == ["1 books wrong at the end"]
    assert problems("book", lambda rows, books: books.pop()) == ["1 books wrong at the end"]


def test_a_symbol_that_is_none_of_ours_is_seen():
    def rename(rows, books):
        rows[5][0] = "trade.binance.NONE/USDT"

    assert problems("trade", rename) == ["1 messages that nobody sent"]
