"""Books of the relay, which has the merger's file and its stream: answers are right, or say that they are not."""

import itertools
import random

import pytest
from book_market import Market, check
from book_play import OTHER, OTHER_NATIVE, TOPIC, Play
from seeds import seeds
from test_any_size import World

from feedhandler.data import retransmission, wire
from feedhandler.data.kept_book import Book
from feedhandler.relay.relayed_books import BOOKS_MAX, PAUSE_MAX_S, PAUSE_S, WAIT_S, SnapshotRequests


@pytest.fixture
def play(tmp_path):
    return Play(tmp_path / "recent.board")


def test_a_book_is_answered_with_a_snapshot_of_its_newest_record(play):
    play.snapshot()
    assert play.is_current()
    for _ in range(100):
        play.change()
        assert play.is_current()
    assert (len(play.books), play.books.valid) == (1, 1)


def test_an_answer_is_not_behind_who_has_heard_more_than_the_relay(play):
    play.snapshot()
    for _ in range(10):
        play.change(is_heard=False)
    assert play.is_current()
    start = len(play.world.each.sent) - 5
    play.hear(start)
    play.change()
    assert play.is_current()


def test_what_was_missed_comes_of_the_file(play):
    play.snapshot()
    for count in (1, 5, 15):
        for _ in range(count):
            play.change(is_heard=False)
        play.change()
        assert play.is_current()


def test_what_the_file_has_no_more_makes_it_invalid_until_the_next_snapshot(play):
    play.snapshot()
    for _ in range(40):
        play.change(is_heard=False)
    assert play.is_invalid()
    play.change()
    assert play.is_invalid()
    play.snapshot()
    assert play.is_current()


def test_a_relay_that_starts_late_has_what_the_file_has_a_snapshot_of(play):
    play.snapshot()
    for _ in range(15):
        play.change()
    play.restart()
    assert play.is_current(), "without any record of the stream"
    play.restart()
    play.change()
    assert play.is_current()
    for _ in range(20):
        play.change()
    assert play.is_current()
    play.restart()
    assert play.is_invalid()
    play.change()
    assert play.is_invalid()
    play.snapshot()
    assert play.is_current()


def test_a_book_is_lacking_that_nothing_but_a_snapshot_brings_back(play):
    assert play.books.lacking() == []  # nothing is known yet
    play.snapshot()
    assert play.books.lacking() == []
    for _ in range(40):
        play.change(is_heard=False)
    play.restart()
    assert play.books.lacking() == [TOPIC], "quiet, and not in the file"
    play.condition(wire.INVALID)
    assert play.books.lacking() == [], "its feed has none either"
    play.snapshot()
    assert play.books.lacking() == []


def test_what_is_lacking_is_requested_soon_and_again_with_growing_pauses():
    requests = SnapshotRequests()
    at = [s for s in range(3600) if requests.due(["a", "b"], float(s))]
    assert at[0] == WAIT_S
    pauses = [after - before for before, after in itertools.pairwise(at)]
    assert pauses[:3] == [PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S]
    assert pauses[-1] == PAUSE_MAX_S


def test_what_comes_to_be_lacking_does_not_wait_for_what_was_requested():
    requests = SnapshotRequests()
    found = [requests.due(["a", "b"] if s >= 5 else ["a"], float(s)) for s in range(9)]
    assert [each for each in found if each] == [["a"], ["a", "b"]]
    assert requests.due([], 9.0) == []
    assert requests.due(["a"], 10.0) == []
    assert requests.due(["a"], 12.0) == ["a"]


@pytest.mark.parametrize("has_base", [True, False])
def test_what_the_feed_says_of_a_book_is_answered(play, has_base):
    play.snapshot(is_heard=has_base)
    play.condition(wire.INVALID)
    assert play.is_invalid()
    if not has_base:
        play.restart()
        play.condition(0)
        play.condition(wire.INVALID)
        assert play.is_invalid(), "the snapshot in the file is of before"
    play.snapshot()
    assert play.is_current()
    play.condition(wire.DOWN)
    assert play.is_invalid(wire.DOWN)
    play.condition(0)
    assert play.is_current()
    play.condition(wire.DOWN)
    play.change()
    assert play.is_current()


def test_changes_that_do_not_follow_make_it_invalid(play):
    play.snapshot()
    play.market.change()  # lost on the way to the merger
    play.change()
    assert play.is_invalid()


def test_nothing_is_answered_before_the_stream_is_subscribed_to(play):
    play.snapshot()
    play.books.suspend()
    assert play.ask()[1] == []
    play.books.join()
    assert play.is_current(), "nothing was missed"
    play.books.suspend()
    for _ in range(3):
        play.change(is_heard=False)
    play.books.join()
    assert play.is_current()
    play.books.suspend()
    for _ in range(30):
        play.change(is_heard=False)
    play.books.join()
    assert play.is_invalid()


def test_while_there_is_no_merger_a_book_is_down(play):
    play.snapshot()
    assert wire.unpack(play.books.last(TOPIC, wire.DOWN)[0]).is_down
    assert play.is_current()


def test_of_another_merger_nothing_is_left(play, tmp_path):
    play.snapshot()
    play.world = World(tmp_path / "other.board")
    play.world.reader._board = type(
        "Board", (), {"session": 101, "topics": play.world.reader._board.topics}
    )()
    assert wire.unpack(play.books.last(TOPIC)[0]).flags & wire.INVALID
    assert play.books.valid == 0


def test_a_book_is_answered_whole_and_with_others_as_far_as_there_is_room(tmp_path):
    play = Play(tmp_path / "recent.board", recent=64)
    play.market = Market(random.Random(1), levels=700)
    many = Market(random.Random(2), levels=14_000)  # more than an answer may have
    play.send(many.snapshot(), wire.SNAPSHOT, native=OTHER_NATIVE)
    play.snapshot()
    head, records = play.ask("book.")
    assert {wire.unpack(record).topic for record in records} == {OTHER}
    assert sum(map(len, records)) > retransmission.SIZE_MAX
    made = Book()
    for record in records:
        made.apply(record)
    check(made, many)
    assert made.is_valid
    head, records = play.ask("book.", start=head.next)
    assert ({wire.unpack(record).topic for record in records}, head.next) == ({TOPIC}, 0)
    assert play.ask("book.binance.BTC/USDT\0")[1] == records
    assert play.ask("book.binance.BTC/USD\0")[1] == []


def test_more_topics_than_the_relay_has_room_for_are_invalid(play, monkeypatch):
    assert BOOKS_MAX >= 1000
    monkeypatch.setattr("feedhandler.relay.relayed_books.BOOKS_MAX", 1)
    play.send(play.market.snapshot(), wire.SNAPSHOT, native=OTHER_NATIVE)
    play.snapshot()
    assert play.is_invalid()


def test_what_is_no_record_changes_nothing(play):
    play.snapshot()
    play.books.take(b"book.binance.BTC/USDT")
    assert play.is_current()


@pytest.mark.parametrize("seed", seeds(30))
def test_an_answer_is_right_or_says_that_it_is_not_valid_whatever_is_lost(seed, tmp_path):
    rng = random.Random(seed)
    play = Play(tmp_path / "recent.board", rng)
    valid = 0
    for _ in range(300):
        draw, is_heard = rng.random(), rng.random() < 0.9
        if draw < 0.04:
            play.snapshot(is_heard=is_heard)
        elif draw < 0.05:
            play.condition(rng.choice((wire.INVALID, wire.DOWN, wire.STALE)))
        elif draw < 0.06:
            for _ in range(rng.randrange(40)):
                play.change(is_heard=False)
        elif draw < 0.07:
            play.market.change()
        elif draw < 0.08:
            play.books.suspend()
            play.change(is_heard=False)
            play.books.join()
        elif draw < 0.085:
            in_force = play.in_force()
            play.restart()
            if in_force is not None:
                play.books.take(bytes(in_force))
        elif draw < 0.1:
            play.send(play.market.change(500), is_heard=is_heard)
        else:
            play.change(is_heard=is_heard)
        if rng.random() < 0.5:
            made, _ = play.answered()
            valid += made.is_valid
    assert valid > 10
    play.snapshot()
    assert play.is_current()
