"""The judge of `make chaos`: each thing that it claims to notice, it notices."""

import json
import struct
from collections import defaultdict

from harness import DOWN, HEADER, SNAPSHOT, STALE, TICKER
from observer import (
    BOOK_KIND,
    CONDITION_KIND,
    DEPTH,
    DEPTH_KIND,
    NS_PER_S,
    RECOVERED,
    SILENT,
    TRADE,
    TRADE_KIND,
    Observer,
)

TOPIC = "ticker.binance.BTC/USDT"
NOW_NS = 1_790_000_000 * NS_PER_S


def ticker(sequence, update_id=0, *, flags=0, session=1, recv_ns=NOW_NS, exchange_ns=0, values=(1.0,) * 10):
    return TICKER.pack(
        TOPIC.encode(), 2, 1, flags, session, sequence, exchange_ns, recv_ns, recv_ns, update_id, *values
    )


def not_heard():
    body = json.dumps({"exchange": "binance", "state": "down", "reason": SILENT, "feed": None}).encode()
    return HEADER.pack(b"status.binance", 2, 2, 0, 1, 1, 0, NOW_NS, NOW_NS) + body


def observed(*messages, now_ns=NOW_NS):
    observer = Observer()
    observer.begin(notes_updates=True)
    for message in messages:
        observer.take(message, now_ns)
    return observer


class Heard:
    """A witness of these updates of one symbol."""

    def __init__(self, *seen, times_ns=()):
        self.seen = defaultdict(list, {"BTC/USDT": list(seen)})
        self.times_ns = defaultdict(list, {"BTC/USDT": list(times_ns)})


def test_a_missing_number_of_a_session_is_a_hole():
    assert observed(ticker(1), ticker(2), ticker(1, session=2)).holes == []
    assert observed(ticker(1), ticker(3)).holes == [(TOPIC, 1, 3)]


def test_a_replay_is_no_hole_and_no_news():
    observer = observed(ticker(5, 100), ticker(5, 90, flags=SNAPSHOT), ticker(6, 101))
    assert observer.holes == observer.falls == []
    assert observer.records == 2


def test_an_update_id_that_goes_back_is_a_fall_except_where_the_count_may_restart():
    assert observed(ticker(1, 100), ticker(2, 0), ticker(3, 100)).falls == []
    assert observed(ticker(1, 100), ticker(2, 0), ticker(3, 99)).falls == [(TOPIC, 100, 99)]
    observer = observed(ticker(1, 100))
    observer.allow_restart("binance")
    observer.take(ticker(2, 5), NOW_NS)
    assert observer.falls == []
    observer.take(ticker(3, 4), NOW_NS)
    assert observer.falls == [(TOPIC, 5, 4)]


def test_an_old_record_without_a_flag_is_a_lie_told_once():
    observer = observed(ticker(1))
    observer.lie_after_ns = 7 * NS_PER_S
    for second in (6, 8, 9):
        observer.look(NOW_NS + second * NS_PER_S)
    assert observer.lies == [(TOPIC, 8.0)]
    assert observer.silence_max_ns == 9 * NS_PER_S


def test_an_old_record_with_a_flag_is_none():
    for flag in (STALE, DOWN):
        observer = observed(ticker(1, flags=flag))
        observer.lie_after_ns = 7 * NS_PER_S
        observer.look(NOW_NS + 60 * NS_PER_S)
        assert observer.lies == []
        assert observer.silence_max_ns == 0


def test_only_a_process_that_was_held_up_excuses_a_flag():
    assert observed(ticker(1), ticker(2, flags=DOWN)).unexplained() == [(TOPIC, DOWN)]
    assert observed(ticker(1), ticker(2, flags=DOWN), not_heard()).unexplained() == []
    assert observed(ticker(1), ticker(2, flags=STALE), not_heard()).unexplained() == [(TOPIC, STALE)]
    late = observed(ticker(1), ticker(2, flags=DOWN))
    late.take(not_heard(), NOW_NS + 10 * NS_PER_S)
    assert late.unexplained() == [(TOPIC, DOWN)]


def test_down_is_what_the_newest_record_says():
    assert observed(ticker(1, flags=DOWN)).is_down(TOPIC)
    assert not observed(ticker(1, flags=DOWN), ticker(2)).is_down(TOPIC)
    assert not observed().is_down(TOPIC)


def test_a_quote_is_known_when_both_sides_are_whatever_else_is_not():
    nan = float("nan")
    assert observed(ticker(1, values=(nan, 1.0, 1.0, 2.0, 1.0, *(nan,) * 5))).without_quote([TOPIC]) == []
    assert observed(ticker(1, values=(1.0, 1.0, 1.0, nan, 1.0, *(1.0,) * 5))).without_quote([TOPIC]) == [
        TOPIC
    ]
    assert observed().without_quote([TOPIC]) == [TOPIC]


def test_flagged_now_is_what_the_newest_record_says():
    assert observed(ticker(1, flags=STALE)).flagged_now() == [TOPIC]
    assert observed(ticker(1, flags=STALE), ticker(2)).flagged_now() == []


def test_live_is_complete_fresh_and_later():
    assert observed(ticker(1)).not_live([TOPIC], NOW_NS - 1) == []
    assert observed(ticker(1)).not_live([TOPIC], NOW_NS) == [TOPIC]
    assert observed(ticker(1, flags=STALE)).not_live([TOPIC], 0) == [TOPIC]
    assert observed(ticker(1, values=(float("nan"), *(1.0,) * 9))).not_live([TOPIC], 0) == [TOPIC]
    assert observed().not_live([TOPIC], 0) == [TOPIC]


def test_what_a_witness_heard_after_the_first_that_came_must_come():
    observer = observed(ticker(1, 10), ticker(2, 11), ticker(3, 13))
    assert observer.compare("binance", Heard(8, 10, 11, 13)) == (3, [])
    assert observer.compare("binance", Heard(8, 10, 11, 12, 13)) == (4, [(TOPIC, 12)])
    assert observer.compare("bybit", Heard(10, 12)) == (0, [])


def test_where_an_exchange_has_no_update_id_its_times_must_come():
    observer = observed(ticker(1, exchange_ns=500), ticker(2, exchange_ns=700))
    assert observer.compare("binance", Heard(times_ns=(500, 600, 700))) == (3, [(TOPIC, 600)])


def test_a_new_beginning_forgets_what_was_seen_and_not_where_topics_are():
    observer = observed(ticker(1, 10), ticker(2, 11, flags=DOWN), not_heard())
    observer.begin(notes_updates=True)
    assert (observer.flagged, observer.held_up) == ([], [])
    assert observer.compare("binance", Heard(10, 11)) == (0, [])
    observer.take(ticker(4, 9), NOW_NS)
    assert observer.holes == [(TOPIC, 2, 4)]
    assert observer.falls == [(TOPIC, 11, 9)]


TRADES = "trade.binance.BTC/USDT"
DEPTHS = "depth.binance.BTC/USDT"


def header(topic, kind, sequence, flags=0, session=1, exchange_ns=0):
    return HEADER.pack(topic.encode(), 2, kind, flags, session, sequence, exchange_ns, NOW_NS, NOW_NS)


def trade(sequence, trade_id, **fields):
    body = TRADE.pack(trade_id, 1.0, 1.0, 1, 1, 0, 0, str(trade_id).encode())
    return header(TRADES, TRADE_KIND, sequence, **fields) + body


def depth(sequence, number, *, bid=1.0, flags=0):
    levels = [bid, 1.0] + [float("nan")] * 38 + [2.0, 1.0] + [float("nan")] * 38
    return header(DEPTHS, DEPTH_KIND, sequence, flags) + DEPTH.pack(number, 1, 1, 0, *levels)


class HeardMarket:
    """A witness of these trades of one symbol, and of its depth, best bids by id."""

    def __init__(self, trades=(), depths=()):
        self.trades = {"BTC/USDT": [str(each) for each in trades]}
        sides = {number: [[((bid, 1.0),), ((2.0, 1.0),)]] for number, bid in dict(depths).items()}
        self.depths = {"BTC/USDT": sides}


def test_of_trades_each_comes_once_since_the_first_that_came():
    heard = HeardMarket([8, 9, 10, 11])
    assert observed(trade(1, 9), trade(2, 10), trade(3, 11)).compare_market("binance", heard)[2:4] == ([], [])
    observer = observed(trade(1, 9), trade(2, 11), trade(3, 11))
    assert observer.compare_market("binance", heard)[2:4] == ([(TRADES, "10")], [(TRADES, "11")])
    assert observed(trade(1, 9), trade(3, 10)).holes == [(TRADES, 1, 3)]


def test_depth_without_a_flag_is_as_the_witness_knows_it():
    heard = HeardMarket(depths={5: 1.0, 6: 1.5})
    assert observed(depth(1, 5), depth(2, 7)).compare_market("binance", heard)[1::3] == (1, [])
    assert observed(depth(1, 6)).compare_market("binance", heard)[4] == [(DEPTHS, 6)]
    assert observed(depth(1, 6, flags=STALE)).compare_market("binance", heard)[4] == []


BOOK = "book.binance.BTC/USDT"
LEVELS_OF_BOOK = struct.Struct("<QQHHHH4d")


def book(sequence, first_id, last_id, size, *, flags=0):
    body = LEVELS_OF_BOOK.pack(first_id, last_id, 1, 1, 0, 1, 1.0, size, 2.0, 1.0)
    return header(BOOK, BOOK_KIND, sequence, flags) + body


class HeardBook:
    """A witness of one book: the size of its bid by id."""

    def __init__(self, sizes):
        sides = {number: [(((1.0, size),), ((2.0, 1.0),))] for number, size in sizes.items()}
        self.books = {"BTC/USDT": sides}


def test_a_book_that_is_valid_is_as_the_witness_knows_it_at_its_id():
    heard = HeardBook({5: 1.0, 6: 2.0, 8: 4.0})
    snapshot, right, wrong = book(1, 5, 5, 1.0, flags=SNAPSHOT), book(2, 6, 6, 2.0), book(2, 6, 6, 3.0)
    assert observed(snapshot, right).compare_books("binance", heard) == (2, [])
    assert observed(snapshot, wrong).compare_books("binance", heard) == (2, [(BOOK, 6)])
    observer = observed(snapshot, right, book(3, 8, 8, 3.0))
    assert observer.compare_books("binance", heard) == (2, []), "a gap: it is not valid"
    assert observer.not_valid([BOOK, "book.x.A/B"]) == [BOOK, "book.x.A/B"]
    assert observed(snapshot).not_valid([BOOK]) == []


def test_a_trade_that_is_missing_is_told_by_a_condition_or_another_session():
    heard = HeardMarket([9, 10, 11])
    condition = header(TRADES, CONDITION_KIND, 1, flags=DOWN)
    assert observed(trade(1, 9), trade(2, 11)).untold("binance", heard) == [(TRADES, "10")]
    assert observed(trade(1, 9), condition, trade(2, 11)).untold("binance", heard) == []
    assert observed(trade(1, 9), trade(1, 11, session=2)).untold("binance", heard) == []
    recovered = trade(2, 10, flags=RECOVERED)
    assert observed(trade(1, 9), recovered, trade(3, 11)).untold("binance", heard) == []
    assert observed(trade(1, 9), recovered).untold("binance", heard) == [(TRADES, "11")]
