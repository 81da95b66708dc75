"""Books by frames of each exchange: what they begin with, what follows, and what is a doubt."""

import pytest
from table import FRAMES, RECV_NS, load

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.data.kept_book import Book
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.books import Base, ChainRule
from feedhandler.exchanges.full_book import NOBODY, Changes, FullBookState

NATIVES = {"binance": "BTCUSDT", "kucoin": "BTC-USDT", "bybit": "BTCUSDT", "okx": "BTC-USDT"}
BIDS, ASKS = [(97421.4, 0.125), (97421.1, 2.0)], [(97421.6, 3.75), (97422.0, 1.5)]
CHANGED = [(97421.2, 1.0), (97421.1, 2.0)]
MORE = [(97421.6, 4.0), (97422.0, 1.5)]
SAME = "nothing is emitted"
LOST = "the book is lost"

# Each file in its order: what the book is then, at which id; SAME, LOST, or an error.
STORIES = {
    "bybit": [
        ("unknown_symbol", SAME),
        ("snapshot", (100, BIDS, ASKS)),
        ("lacks_a_side", DecodeError),
        ("negative_size", DecodeError),
        ("empty_type", DecodeError),
        ("lacks_id", DecodeError),
        ("delta", (101, CHANGED, ASKS)),
        ("delta_twice", SAME),
        ("delta_next", (102, CHANGED, MORE)),
        ("delta_after_a_gap", LOST),
        ("restart", (1, BIDS, ASKS)),
    ],
    "binance": [
        ("delta_around_the_base", SAME),
        ("base_refused", ProtocolError),
        ("base_lacks_id", DecodeError),
        ("base", (101, CHANGED, ASKS)),
        ("delta_twice", SAME),
        ("unknown_symbol", SAME),
        ("negative_size", DecodeError),
        ("ends_before_it_begins", DecodeError),
        ("lacks_a_side", DecodeError),
        ("null_side", DecodeError),
        ("delta_next", (102, CHANGED, MORE)),
        ("delta_raw", (105, CHANGED, [(97421.6, 3.0), (97422.0, 1.5)])),
        ("delta_after_a_gap", LOST),
    ],
    "kucoin": [
        ("base_unknown_symbol", ProtocolError),
        ("base_lacks_a_side", DecodeError),
        ("delta_around_the_base", SAME),
        ("base", (102, CHANGED, ASKS)),
        ("delta_of_no_level", (103, CHANGED, ASKS)),
        ("unknown_symbol", SAME),
        ("negative_size", DecodeError),
        ("ends_before_it_begins", DecodeError),
        ("lacks_a_side", DecodeError),
        ("level_without_id", DecodeError),
        ("delta_next", (105, CHANGED, MORE)),
        ("delta_after_a_gap", LOST),
        ("base_null_side", (107, [], [(97421.6, 5.0), (97422.0, 1.5)])),
    ],
    "okx": [
        ("base_unknown_symbol", ProtocolError),
        ("base_of_none", ProtocolError),
        ("base_lacks_a_side", DecodeError),
        ("update_around_the_base", SAME),
        ("keep_alive_before_the_base", SAME),
        ("base", (101, CHANGED, ASKS)),
        ("unknown_symbol", SAME),
        ("keep_alive", SAME),
        ("negative_size", DecodeError),
        ("lacks_a_side", DecodeError),
        ("lacks_id", DecodeError),
        ("lacks_previous_id", DecodeError),
        ("previous_is_none", DecodeError),
        ("empty_action", DecodeError),
        ("update_next", (131, CHANGED, MORE)),
        ("ids_go_on_lower", (40, CHANGED, [(97421.6, 3.0), (97422.0, 1.5)])),
        ("update_of_lower_ids", (45, CHANGED, MORE)),
        ("update_after_a_gap", LOST),
        ("snapshot", (100, BIDS, ASKS)),
        ("update_twice", (131, BIDS, MORE)),
        ("update_twice", LOST),
        ("snapshot", (100, BIDS, ASKS)),
        ("update_next_to_the_base", (101, CHANGED, ASKS)),
        ("update_overlaps", LOST),
        ("snapshot", (100, BIDS, ASKS)),
        ("keep_alive_of_another_id", LOST),
    ],
}


def test_who_takes_over_is_furthest_and_not_who_has_heard_most():
    """One that began as the leading one was has heard nothing yet; another stands still, and has heard much."""
    state = FullBookState(ChainRule(), keeps=True, topic="book.x.AB", native="AB")
    emitted = []
    for own in (0, 1):
        state.take(Line(own), Changes(1, 9, [], []), 9, RECV_NS, emitted.append)
    state.offer([0, 1], Base(10, BIDS, ASKS), RECV_NS, emitted.append)
    state.take(Line(0), Changes(11, 11, [], []), 11, RECV_NS, emitted.append)
    for number in range(11, 20):
        state.take(Line(1), Changes(number, number, CHANGED, []), number, RECV_NS, emitted.append)
    state.hand_over([0, 1], emitted.append)
    assert (state.leader, state.lines[1].last_id) == (1, 19)
    assert state.adopt(2, 1, emitted.append)
    state.release(1)
    state.settle(emitted.append)
    assert state.leader == 2
    state.take(Line(0), Changes(12, 20, CHANGED, []), 20, RECV_NS, emitted.append)
    assert state.behind_id([0, 2]) == 19


def test_a_later_message_with_an_old_id_is_of_a_new_count_where_the_exchange_says_what_is_later():
    emitted = []
    state = FullBookState(ChainRule(restart_id=1), keeps=False, topic="book.x.AB", native="AB")
    line = Line(0)
    state.take_base(line, Base(100, [(9.0, 1.0)], [(10.0, 1.0)]), 5000, RECV_NS, emitted.append)
    state.take(line, Changes(101, 101, CHANGED, []), 5010, RECV_NS, emitted.append)
    for order in (5000, 5010):
        state.take(line, Changes(100, 100, CHANGED, []), order, RECV_NS, emitted.append)
    assert state.leader == 0, "sent again"
    state.take(line, Changes(100, 100, CHANGED, []), 6000, RECV_NS, emitted.append)
    assert state.leader == NOBODY
    assert state.flags & wire.INVALID


def test_a_message_that_follows_by_its_id_and_was_made_before_is_of_an_old_count():
    emitted = []
    state = FullBookState(ChainRule(restart_id=1), keeps=False, topic="book.x.AB", native="AB")
    line = Line(0)
    state.take_base(line, Base(1, [(9.0, 1.0)], [(10.0, 1.0)]), 5000, RECV_NS, emitted.append)
    for number, order in ((2, 5000), (3, 5010)):
        state.take(line, Changes(number, number, CHANGED, []), order, RECV_NS, emitted.append)
        assert state.leader == 0
    state.take(line, Changes(4, 4, CHANGED, []), 5009, RECV_NS, emitted.append)
    assert state.leader == NOBODY
    assert state.flags & wire.INVALID


@pytest.mark.parametrize("exchange", NATIVES)
def test_frames_make_a_book_as_the_table_says(exchange):
    market, book, line, emitted = EXCHANGES[exchange].main(), Book(), Line(0), []
    (state,) = market.add([NATIVES[exchange]], wire.SIMULATED, "book")

    def emit(emitting):
        takes_number, packed = emitting.takes_number, bytearray(emitting.record())
        emitting.sequence += takes_number
        wire.SEQUENCE.pack_into(packed, wire.SEQUENCE_OFFSET, emitting.sequence)
        emitted.append(wire.unpack(bytes(packed)))
        book.apply(emitted[-1])

    for name, expected in STORIES[exchange]:
        emitted.clear()
        body = load(exchange, f"books/{name}")
        error = expected if isinstance(expected, type) else None
        if name.startswith("base"):
            if error:
                with pytest.raises(error):
                    market.decode_base(NATIVES[exchange], body)
            else:
                assert state.offer([0], market.decode_base(NATIVES[exchange], body), RECV_NS, emit) == 1
        elif error:
            with pytest.raises(error):
                market.decode(body, RECV_NS, line, emit)
        else:
            assert market.decode(memoryview(body), RECV_NS, line, emit) is None
        if expected == SAME or error:
            assert emitted == [], name
        elif expected == LOST:
            assert [record.flags & wire.NOT_LIVE for record in emitted] == [wire.INVALID]
            assert not book.is_valid
        else:
            assert emitted[-1].flags & wire.LAST
            assert (book.last_id, book.bids[:], book.asks[:]) == expected, name
            assert emitted[-1].flags & wire.SIMULATED
    used = {f"{name}" for name, _ in STORIES[exchange]}
    assert used == {path.stem for path in (FRAMES / exchange / "books").glob("*.json")}


def test_a_window_tells_where_what_is_known_ends():
    market, book, line = EXCHANGES["bybit"].main(), Book(), Line(0)
    market.book_levels = 2
    market.add(["BTCUSDT"], 0, "book")

    def emit(emitting):
        takes_number, packed = emitting.takes_number, bytearray(emitting.record())
        emitting.sequence += takes_number
        wire.SEQUENCE.pack_into(packed, wire.SEQUENCE_OFFSET, emitting.sequence)
        book.apply(bytes(packed))

    market.decode(load("bybit", "books/snapshot"), RECV_NS, line, emit)
    assert (book.known_from, book.known_to) == (97421.1, 97422.0)
    market.decode(load("bybit", "books/delta"), RECV_NS, line, emit)
    assert (book.known_from, book.bids[:]) == (97421.1, CHANGED)
    better = load("bybit", "books/delta_next").replace(b'"a":[["97421.6","4"]', b'"a":[["97421.5","4"]')
    market.decode(better, RECV_NS, line, emit)
    assert book.asks[:] == [(97421.5, 4.0), (97421.6, 3.75)]
    assert (book.known_from, book.known_to) == (97421.1, 97421.6)
