"""A book is what its records make it, or it is not valid."""

import math
import random
import struct

import pytest
from book_market import TOPIC, Market, Stream, check, condition, packed
from seeds import seeds

from feedhandler.data import book, kept_book, wire
from feedhandler.data.kept_book import Book

BIDS = [(100.0, 1.0), (99.5, 2.0), (99.0, 3.0)]
ASKS = [(100.5, 4.0), (101.0, 5.0)]


def record(sequence, first_id, last_id=None, bids=(), asks=(), *, flags=0, **fields):
    fields = {"session": 100, **fields}
    last_id = first_id if last_id is None else last_id
    return wire.BookRecord.of(
        TOPIC, bids, asks, sequence=sequence, first_id=first_id, last_id=last_id, flags=flags, **fields
    )


def snapshot(sequence, last_id, bids=BIDS, asks=ASKS, **fields):
    return record(sequence, last_id, last_id, bids, asks, flags=wire.SNAPSHOT, **fields)


@pytest.fixture
def kept():
    made = Book()
    assert made.apply(snapshot(10, 1000))
    return made


def has_nothing(kept, reason):
    assert (kept.is_valid, kept.reason, len(kept.bids), len(kept.asks)) == (False, reason, 0, 0)
    assert all(map(math.isnan, (*kept.best, kept.known_from, kept.known_to)))
    assert kept.snapshot() == []
    return True


def test_a_snapshot_makes_it_and_changes_change_it(kept):
    assert (kept.bids[:], kept.asks[:], kept.is_valid, kept.reason) == (BIDS, ASKS, True, "")
    assert kept.best == (100.0, 1.0, 100.5, 4.0)
    assert (kept.best.bid, kept.best.ask_size) == (100.0, 4.0)
    assert (kept.topic, kept.session, kept.sequence, kept.last_id) == (TOPIC, 100, 10, 1000)
    assert kept.apply(record(11, 1001, 1004, [(100.0, 0.0), (99.75, 7.0)], [(100.25, 8.0), (300.0, 0.0)]))
    assert kept.bids[:] == [(99.75, 7.0), (99.5, 2.0), (99.0, 3.0)]
    assert kept.asks[:] == [(100.25, 8.0), *ASKS]
    assert (kept.sequence, kept.last_id, kept.best.bid, kept.best.bid_size) == (11, 1004, 99.75, 7.0)
    assert list(kept.asks) == kept.asks.pairs()
    assert (kept.bids[0], kept.bids[-1], len(kept.bids)) == ((99.75, 7.0), (99.0, 3.0), 3)
    assert (kept.bids[1:], kept.bids[::-1][0], kept.bids[:99]) == (
        kept.bids.pairs()[1:],
        (99.0, 3.0),
        kept.bids.pairs(),
    )
    with pytest.raises(IndexError):
        kept.bids[3]


def test_before_a_snapshot_there_is_nothing():
    kept = Book()
    assert has_nothing(kept, kept_book.NO_SNAPSHOT)
    assert not kept.apply(record(10, 1001))
    assert has_nothing(kept, kept_book.NO_SNAPSHOT)


def test_an_empty_book_and_an_empty_side_are_valid():
    kept = Book()
    kept.apply(snapshot(1, 5, [], []))
    assert kept.is_valid
    assert all(map(math.isnan, kept.best))
    kept.apply(snapshot(2, 6, BIDS, []))
    assert kept.best[:2] == BIDS[0]
    assert all(map(math.isnan, kept.best[2:]))


@pytest.mark.parametrize(
    ("following", "reason"),
    [
        (record(12, 1001), kept_book.MISSED),
        (record(11, 1002), kept_book.UNLINKED),
        (record(11, 1001, part=1, parts=2), kept_book.CUT_SHORT),
        (record(11, 1001, parts=0), kept_book.CUT_SHORT),
        (record(11, 1001, bids=[(math.nan, 1.0)]), kept_book.DAMAGED),
        (record(11, 1001, bids=[(1.0, -1.0)]), kept_book.DAMAGED),
        (record(11, 1001, bids=[(1.0, math.inf)]), kept_book.DAMAGED),
        (record(1, 1001, session=101), kept_book.RESTARTED),
        (record(11, 1001, flags=wire.INVALID), kept_book.INVALID),
        (snapshot(12, 1001, part=1, parts=2), kept_book.MISSED),
        (snapshot(11, 1001, part=1, parts=2), kept_book.CUT_SHORT),
        (condition(wire.INVALID, 10), kept_book.INVALID),
        (condition(0, 11), kept_book.MISSED),
        (condition(0, 1, session=101), kept_book.RESTARTED),
        (b"no record", kept_book.DAMAGED),
    ],
)
def test_from_the_first_doubt_it_has_nothing_until_the_next_snapshot(kept, following, reason):
    kept.apply(following)
    assert has_nothing(kept, reason)
    after = 200, 1002, 1003
    kept.apply(record(*after, [(99.0, 1.0)], session=kept.session))
    assert not kept.is_valid
    kept.apply(snapshot(201, 1003, ASKS and BIDS[:1], session=kept.session))
    assert (kept.is_valid, kept.bids[:]) == (True, BIDS[:1])


def test_what_is_old_changes_nothing(kept):
    kept.apply(record(11, 1001, 1003, [(100.0, 9.0)]))
    for old in (
        record(11, 1001, 1003, [(100.0, 1.0)]),
        record(10, 900, 1000, [(100.0, 1.0)]),
        snapshot(10, 1000),
        snapshot(11, 1003),
        condition(wire.INVALID, 9),
        condition(wire.DOWN, 3),
    ):
        assert not kept.apply(old)
        assert (kept.is_valid, kept.best.bid_size) == (True, 9.0)
    assert kept.sequence == 11
    assert kept.apply(record(12, 1002, 1005, [(100.0, 3.0)])), "in part"
    assert (kept.last_id, kept.best.bid_size) == (1005, 3.0)


@pytest.mark.parametrize("ids", [(1000, 1000), (2, 2), (700, 999)])
def test_the_next_record_with_ids_of_before_is_of_another_count_whose_snapshot_was_missed(kept, ids):
    """A connection that took over may count from elsewhere."""
    kept.apply(condition(wire.DOWN, 10))
    kept.apply(record(11, *ids, [(100.0, 1.0)]))
    assert has_nothing(kept, kept_book.UNLINKED)
    kept.apply(record(12, 1001, 1001, [(100.0, 1.0)]))
    assert not kept.is_valid
    kept.apply(snapshot(13, 3))
    assert (kept.is_valid, kept.last_id) == (True, 3)


def test_a_snapshot_in_the_stream_replaces_everything(kept):
    assert kept.apply(snapshot(11, 900, [(50.0, 1.0)], []))
    assert (kept.bids[:], kept.asks[:], kept.last_id, kept.sequence) == ([(50.0, 1.0)], [], 900, 11)
    assert kept.apply(snapshot(15, 910, BIDS, ASKS)), "also where something before it was missed"
    assert (kept.is_valid, kept.last_id) == (True, 910)


@pytest.mark.parametrize("is_repeated", [False, True])
def test_a_snapshot_of_several_parts_counts_with_its_last_one(kept, is_repeated):
    """Those of the stream have a number each, those that are sent on request that of the last change."""
    numbers = (20, 20, 20) if is_repeated else (11, 12, 13)
    parts = [
        snapshot(numbers[0], 1005, [(90.0, 1.0)], [], part=0, parts=3),
        snapshot(numbers[1], 1005, [(89.0, 1.0)], [], part=1, parts=3),
        snapshot(numbers[2], 1005, [], [(91.0, 1.0)], part=2, parts=3),
    ]
    for part in parts[:2]:
        assert not kept.apply(part)
        assert (kept.is_valid, kept.bids[:], kept.last_id) == (True, BIDS, 1000)
    assert kept.apply(parts[2])
    assert (kept.bids[:], kept.asks[:]) == ([(90.0, 1.0), (89.0, 1.0)], [(91.0, 1.0)])
    assert (kept.sequence, kept.last_id) == (numbers[2], 1005)
    assert kept.apply(record(numbers[2] + 1, 1006))


@pytest.mark.parametrize("has_base", [False, True])
@pytest.mark.parametrize(
    "between",
    [
        record(12, 1001),
        record(12, 1005, part=1, parts=3),
        snapshot(12, 1006, part=1, parts=3),
        snapshot(12, 1005, part=1, parts=2),
        snapshot(12, 1005, part=2, parts=3),
    ],
)
def test_a_snapshot_that_something_interrupts_is_none(kept, between, has_base):
    if not has_base:
        kept = Book()
    kept.apply(snapshot(11, 1005, [(90.0, 1.0)], [], part=0, parts=3))
    kept.apply(between)
    kept.apply(snapshot(13, 1005, part=1, parts=3))
    kept.apply(snapshot(14, 1005, part=2, parts=3))
    assert not kept.is_valid


def test_a_snapshot_begins_anew_where_another_one_was_not_finished(kept):
    kept.apply(snapshot(11, 1005, [(90.0, 1.0)], [], part=0, parts=2))
    kept.apply(snapshot(12, 1006, [(80.0, 1.0)], [], part=0, parts=2))
    kept.apply(snapshot(13, 1006, [], [(81.0, 1.0)], part=1, parts=2))
    assert (kept.is_valid, kept.bids[:], kept.asks[:]) == (True, [(80.0, 1.0)], [(81.0, 1.0)])


def test_changes_of_several_parts_change_it_with_the_last_one(kept):
    assert not kept.apply(record(11, 1001, 1003, [(100.0, 0.0)], part=0, parts=2))
    assert (kept.bids[:], kept.last_id, kept.sequence) == (BIDS, 1000, 10)
    assert kept.apply(record(12, 1001, 1003, [], [(100.25, 1.0)], part=1, parts=2, flags=wire.LAST))
    assert (kept.bids[:], kept.asks[0], kept.last_id, kept.sequence) == (BIDS[1:], (100.25, 1.0), 1003, 12)


@pytest.mark.parametrize(
    "second",
    [
        record(12, 1004, 1005),
        record(12, 1001, 1004, part=1, parts=2),
        record(12, 1001, 1003, part=1, parts=3),
        record(12, 1001, 1003, part=0, parts=2),
    ],
)
def test_half_a_message_makes_it_invalid(kept, second):
    kept.apply(record(11, 1001, 1003, [(100.0, 0.0)], part=0, parts=2))
    kept.apply(second)
    assert has_nothing(kept, kept_book.CUT_SHORT)


def test_while_it_is_down_it_has_nothing_and_goes_on_if_nothing_was_missed(kept):
    assert kept.apply(condition(wire.DOWN, 10))
    assert has_nothing(kept, kept_book.DOWN)
    assert kept.has_base
    assert kept.apply(condition(0, 10)), "all is well, though nothing has happened"
    assert (kept.is_valid, kept.bids[:]) == (True, BIDS)
    kept.apply(condition(wire.DOWN, 10))
    assert kept.apply(record(11, 1001, bids=[(100.0, 2.0)]))
    assert (kept.is_valid, kept.best.bid_size) == (True, 2.0)
    kept.apply(condition(wire.DOWN, 11))
    kept.apply(record(12, 1005))
    assert has_nothing(kept, kept_book.UNLINKED)
    kept.apply(condition(wire.DOWN, 12))
    kept.apply(condition(0, 12))
    assert has_nothing(kept, kept_book.UNLINKED)


def test_invalid_counts_also_where_it_comes_late_unless_there_was_a_snapshot_since(kept):
    kept.apply(record(11, 1001))
    kept.apply(condition(wire.INVALID, 10))
    assert has_nothing(kept, kept_book.INVALID)
    kept.apply(snapshot(12, 1002))
    kept.apply(condition(wire.INVALID, 11))
    assert kept.is_valid


def test_a_snapshot_of_before_it_was_invalid_is_none(kept):
    kept.apply(record(11, 1001))
    kept.apply(condition(wire.INVALID, 11))
    for sequence in (10, 11):
        kept.apply(snapshot(sequence, 1001))
        assert has_nothing(kept, kept_book.INVALID)
    kept.apply(condition(0, 11))
    kept.apply(record(13, 1002))
    kept.apply(snapshot(11, 1001))
    assert not kept.is_valid
    kept.apply(snapshot(12, 1002))
    assert kept.is_valid


def test_the_newest_record_again_does_not_end_down(kept):
    kept.apply(condition(wire.DOWN, 10))
    kept.apply(snapshot(10, 1000))
    assert has_nothing(kept, kept_book.DOWN)


def test_a_feed_that_began_anew_has_a_snapshot_first(kept):
    kept.apply(condition(wire.DOWN, 10))
    kept.apply(snapshot(11, 5, [(7.0, 1.0)], []))
    assert (kept.is_valid, kept.bids[:], kept.last_id) == (True, [(7.0, 1.0)], 5)


def test_stale_is_told_and_its_levels_stay(kept):
    assert kept.apply(condition(wire.STALE, 10))
    assert (kept.is_valid, kept.is_stale, kept.bids[:]) == (True, True, BIDS)
    assert not kept.apply(condition(wire.STALE, 10))
    assert kept.apply(condition(0, 10))
    assert not kept.is_stale
    kept.apply(condition(wire.STALE, 10))
    kept.apply(record(11, 1001))
    assert not kept.is_stale


def test_after_a_connection_was_lost_it_goes_on_if_nothing_was_missed(kept):
    assert kept.suspend(kept_book.UNCERTAIN)
    assert has_nothing(kept, kept_book.UNCERTAIN)
    assert kept.apply(snapshot(10, 1000)), "the newest is the one that is known"
    assert kept.is_valid
    kept.suspend(kept_book.UNCERTAIN)
    assert not kept.apply(record(9, 999))
    assert not kept.is_valid
    assert kept.apply(record(11, 1001))
    kept.suspend(kept_book.UNCERTAIN)
    kept.apply(record(13, 1002))
    assert has_nothing(kept, kept_book.MISSED)
    assert not kept.suspend(kept_book.UNCERTAIN)
    assert has_nothing(kept, kept_book.MISSED)


def test_what_is_known_of_a_part_of_a_book_is_told(kept):
    assert (kept.known_from, kept.known_to) == (0.0, math.inf)
    kept.apply(snapshot(11, 1001, [(99.0, 0.0), *BIDS], [(101.0, 0.0), *ASKS]))
    assert (kept.known_from, kept.known_to) == (99.0, 101.0)
    assert (kept.bids[:], kept.asks[:]) == (BIDS, ASKS)
    kept.apply(record(12, 1002, bids=[(99.0, 0.0), (98.0, 1.0)]))
    assert (kept.known_from, kept.bids[-1]) == (99.0, (98.0, 1.0)), "it is known of those that changed"
    kept.apply(record(13, 1003, bids=[(99.25, 0.0), (99.25, 6.0), (98.0, 0.0)]))
    assert (kept.known_from, kept.known_to, kept.bids[-1]) == (99.25, 101.0, (99.25, 6.0))
    kept.apply(snapshot(14, 1004))
    assert (kept.known_from, kept.known_to) == (0.0, math.inf)


@pytest.mark.parametrize("levels", [0, 3, 128, 129, 700])
@pytest.mark.parametrize("is_known", [False, True])
def test_its_snapshot_makes_the_same_book(levels, is_known):
    market = Market(random.Random(7), levels=levels)
    kept, other = Book(), Book()
    stream = Stream(market)
    for message in [*stream.snapshot(), *stream.change(), *stream.change(300)]:
        kept.apply(message)
    if not is_known and levels:
        [body] = book.bodies(
            market.id, market.id + 1, book.edge(150.0) + book.packed_levels([(150.0, 5.0)]), b""
        )
        kept.apply(packed(body, sequence=stream.sequence + 1))
        assert kept.known_from == 150.0
    messages = kept.snapshot()
    for message in messages:
        assert not other.is_valid
        read = wire.unpack(message)
        assert (read.sequence, read.session, int(read.flags)) == (kept.sequence, 100, wire.SNAPSHOT)
        assert (read.recv_ns, read.publish_ns) == (kept.recv_ns, kept.publish_ns)
        other.apply(message)
    assert (other.bids[:], other.asks[:]) == (kept.bids[:], kept.asks[:])
    names = ("known_from", "known_to", "sequence", "session", "last_id", "topic", "best")
    assert str([getattr(other, name) for name in names]) == str([getattr(kept, name) for name in names])
    assert other.snapshot() == messages


@pytest.mark.parametrize("origin", [wire.SIMULATED, wire.REPLAY, wire.ORIGIN])
def test_a_book_of_no_real_market_says_so_in_its_snapshot(origin):
    kept = Book()
    kept.apply(record(1, 1, 1, BIDS, flags=wire.SNAPSHOT | origin))
    assert (kept.is_simulated, kept.is_replay) == (bool(origin & wire.SIMULATED), bool(origin & wire.REPLAY))
    assert wire.unpack(kept.snapshot()[0]).flags & wire.ORIGIN == origin


def test_it_is_one_topics_and_of_books(kept):
    with pytest.raises(ValueError, match=r"book\.x\.A/B"):
        kept.apply(wire.Condition("book.x.A/C", session=100, sequence=10))
    with pytest.raises(ValueError, match="ticker"):
        Book().apply(wire.Ticker("ticker.x.A/B", kind=wire.TICKER))
    assert repr(kept) == "<Book book.x.A/B #10 100.0 / 100.5>"
    assert "not valid: no snapshot" in repr(Book("book.x.A/B"))


def test_its_sides_are_had_as_arrays_of_their_own(kept):
    numpy = pytest.importorskip("numpy")
    bids, asks = kept.bids_array(), kept.asks_array()
    assert (bids["price"].tolist(), asks["size"].tolist()) == ([100.0, 99.5, 99.0], [4.0, 5.0])
    bids["price"] *= numpy.float64(2)
    kept.apply(record(11, 1001, bids=[(100.0, 0.0)]))
    assert (bids["price"][0], len(kept.bids)) == (200.0, 2)
    assert len(Book().bids_array()) == 0


def state_of(kept):
    """Return all that it says, and what the next record has to follow."""
    names = (
        "topic",
        "session",
        "sequence",
        "seen",
        "last_id",
        "exchange_ns",
        "recv_ns",
        "publish_ns",
        "origin",
    )
    values = [getattr(kept, name) for name in names]
    values += [kept.reason, kept.has_base, kept.is_stale, kept.bids[:], kept.asks[:]]
    return *values, repr((kept.known_from, kept.known_to))


def test_a_record_that_follows_and_is_damaged_makes_it_invalid(kept):
    """As taken whole, so taken as it was sent."""
    level = struct.pack("<2d", math.nan, 1.0)
    following = wire.pack(record(11, 1001, bids=[(100.0, 1.0)]))
    assert kept.follow(following[: -len(level)] + level)
    assert (kept.reason, kept.seen, len(kept.bids)) == (kept_book.DAMAGED, 11, 0)


@pytest.mark.parametrize("seed", seeds(60))
def test_whatever_happens_to_its_records_it_is_right_or_not_valid(seed):
    """Lost, repeated, in another order, of another session, damaged, and conditions among them.

    One that takes what follows as it was sent is the same.
    """
    rng = random.Random(seed)
    market = Market(rng, levels=rng.choice((5, 40, 200)))
    stream, kept, follower = Stream(market), Book(), Book()
    valid = followed = 0
    delayed = []
    for _ in range(400):
        draw = rng.random()
        if draw < 0.05:
            messages = stream.snapshot()
        elif draw < 0.08:
            messages = [stream.condition(rng.choice((0, wire.STALE, wire.DOWN, wire.INVALID)))]
        elif draw < 0.1:
            messages = stream.change(400)
        elif draw < 0.105:
            stream.restart(stream.session + 1)
            messages = []
        elif draw < 0.12:
            market.change()  # lost before the merger
            messages = []
        else:
            messages = stream.change()
        delayed += [each for each in messages if rng.random() < 0.01]
        if delayed and rng.random() < 0.2:
            messages.append(delayed.pop(rng.randrange(len(delayed))))
        if rng.random() < 0.01:
            rng.shuffle(messages)
        for message in messages:
            if rng.random() < 0.01:
                continue
            if rng.random() < 0.002:
                message = message[: rng.randrange(len(message))]
            for _ in range(1 + (rng.random() < 0.02)):
                kept.apply(message)
                check(kept, market)
                if follower.follow(message):
                    followed += 1
                else:
                    follower.apply(message)
                assert state_of(follower) == state_of(kept)
        valid += kept.is_valid
    assert valid > 20
    assert followed > 20
