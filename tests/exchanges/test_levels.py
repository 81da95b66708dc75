"""The levels of one side, and depth, which is the best of both: compiled and in Python."""

import math
import random

import pytest
import twins

from feedhandler.data import depth, wire
from feedhandler.exchanges.levels import LEVELS_MAX

RECV_NS = 1_790_000_000_000_000_000
BIDS = [(100.0, 1.0), (99.5, 2.0), (99.0, 3.0)]
ASKS = [(100.5, 1.0), (101.0, 2.0)]


@pytest.fixture(params=twins.FORMS)
def module(request):
    return twins.of(request.param)


def side(module, is_bids, levels=()):
    made = module.Levels(is_bids)
    made.replace(levels)
    return made


CHANGES = [
    ("another size", [(99.5, 7.0)], [(100.0, 1.0), (99.5, 7.0), (99.0, 3.0)]),
    ("a new best", [(100.25, 4.0)], [(100.25, 4.0), *BIDS]),
    ("one between", [(99.25, 4.0)], [(100.0, 1.0), (99.5, 2.0), (99.25, 4.0), (99.0, 3.0)]),
    ("a new worst", [(98.0, 4.0)], [*BIDS, (98.0, 4.0)]),
    ("the best goes", [(100.0, 0.0)], BIDS[1:]),
    ("the worst goes", [(99.0, 0.0)], BIDS[:2]),
    ("one goes that was never there", [(99.75, 0.0), (200.0, 0.0), (1.0, 0.0)], BIDS),
    ("one comes and goes in one message", [(99.75, 1.0), (99.75, 0.0)], BIDS),
    ("one price twice", [(99.75, 1.0), (99.75, 2.0)], [BIDS[0], (99.75, 2.0), *BIDS[1:]]),
    ("all go", [(price, 0.0) for price, _ in BIDS], []),
    ("no price", [(0.0, 5.0), (0.0, 0.0)], BIDS),
    ("nothing", [], BIDS),
]


@pytest.mark.parametrize(
    ("changes", "expected"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_changes_are_made_where_they_belong(module, changes, expected):
    bids = side(module, True, BIDS)
    bids.change(changes)
    assert bids.pairs() == expected
    asks = side(module, False, [(1000.0 - price, size) for price, size in BIDS])
    asks.change([(1000.0 - price if price else 0.0, size) for price, size in changes])
    assert asks.pairs() == [(1000.0 - price, size) for price, size in expected]


def test_the_best_is_the_highest_bid_and_the_lowest_ask(module):
    assert side(module, True, BIDS).best() == 100.0
    assert side(module, False, BIDS).best() == 99.0
    assert math.isnan(side(module, True).best())


def test_levels_are_looked_up_by_price_and_cut_from_the_worst(module):
    bids = side(module, True, BIDS)
    assert [bids.size_at(price) for price in (100.0, 99.0, 99.25, 1.0, 200.0)] == [1.0, 3.0, 0.0, 0.0, 0.0]
    assert [bids.count_to(price) for price in (101.0, 100.0, 99.75, 99.0, 1.0)] == [0, 1, 1, 3, 3]
    assert (bids.worst(), side(module, False, BIDS).worst()) == (99.0, 100.0)
    assert math.isnan(side(module, True).worst())
    bids.cut(5)
    bids.cut(-1)
    assert bids.count == 3
    bids.cut(2)
    assert (bids.pairs(), bids.size_at(99.0)) == (BIDS[:2], 0.0)
    bids.set(99.0, 4.0)
    assert bids.pairs() == [*BIDS[:2], (99.0, 4.0)]


@pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 500])
def test_the_best_are_copied_with_nothing_known_behind_them(module, count):
    levels = [(1000.0 - number, 1.0 + number) for number in range(count)]
    target = bytearray(b"x" * 400)
    assert side(module, True, levels).copy_best(target, 40) == min(count, 20)
    record = wire.Depth("t", bid_count=min(count, 20), bid_levels=bytes(target[40:360]))
    assert record.bids == tuple(levels[:20])
    used = 40 + 16 * min(count, 20)
    assert target[used:360] == depth.NONE[: 360 - used]
    assert (target[:40], target[360:]) == (b"x" * 40, b"x" * 40)
    for start in (-1, 81):
        with pytest.raises(IndexError):
            side(module, True, levels).copy_best(target, start)


@pytest.mark.parametrize("seed", range(20))
def test_after_any_changes_a_side_is_the_dict_that_they_make(module, seed):
    rng = random.Random(seed)
    is_bids = rng.random() < 0.5
    levels, expected = side(module, is_bids), {}
    for _ in range(300):
        if rng.random() < 0.02:
            expected = {float(price): 1.0 for price in rng.sample(range(1, 400), rng.randint(0, 200))}
            levels.replace(expected.items())
        price, size = rng.randint(1, 400) / 4, float(rng.choice((0, 0, 1, 2.5, 7)))
        levels.set(price, size)
        expected.pop(price, None)
        if size:
            expected[price] = size
        assert levels.pairs() == sorted(expected.items(), reverse=is_bids)


def test_more_levels_than_any_book_has_are_refused(module):
    many = [(float(number), 1.0) for number in range(1, LEVELS_MAX + 1)]
    asks = side(module, False, many)
    assert asks.pairs() == many
    with pytest.raises(twins.DECODE_ERRORS, match="a book of more than 81920 levels"):
        asks.set(LEVELS_MAX + 1.0, 1.0)
    assert asks.count == LEVELS_MAX


@pytest.mark.parametrize("level", [(1.0,), (1.0, 2.0, 3.0), "ab", None, ("a", 1.0)])
def test_what_is_no_level_is_refused(module, level):
    with pytest.raises((TypeError, ValueError)):
        side(module, True, [(2.0, 1.0), level])


# --- depth


def state(module):
    return module.DepthState(topic="depth.x.Y", native="Y", base_flags=wire.SIMULATED, flags=wire.SIMULATED)


def test_a_record_has_every_field_of_its_state(module):
    full = state(module)
    full.replace(BIDS, ASKS, RECV_NS)
    full.session, full.sequence, full.exchange_sequence = 2**32 - 1, 2**64 - 1, 2**64 - 2
    full.exchange_ns, full.publish_ns = 5, 2**63 - 1
    expected = wire.Depth.of(
        "depth.x.Y",
        BIDS,
        ASKS,
        flags=wire.SIMULATED,
        session=2**32 - 1,
        sequence=2**64 - 1,
        exchange_sequence=2**64 - 2,
        exchange_ns=5,
        recv_ns=RECV_NS,
        publish_ns=2**63 - 1,
    )
    assert full.record() == wire.pack(expected)
    assert (full.bids, full.asks, full.kind) == (tuple(BIDS), tuple(ASKS), "depth")
    target = bytearray(800)
    assert full.pack(target, 40) == 760
    assert target[40:] == full.record()
    with pytest.raises(IndexError):
        full.pack(target, 41)


def test_only_what_changes_the_best_levels_is_emitted(module):
    depth_of = state(module)
    many = [(100.0 - number, 1.0) for number in range(21)]
    assert depth_of.replace(many, ASKS, RECV_NS)
    assert not depth_of.replace(many, ASKS, RECV_NS + 1), "the same"
    assert not depth_of.replace([*many[:20], (5.0, 1.0)], ASKS, RECV_NS + 2), "beyond the best"
    assert depth_of.recv_ns == RECV_NS + 2
    assert depth_of.replace([*many[:19], (5.0, 1.0)], ASKS, RECV_NS + 3)
    assert depth_of.replace(many, ASKS[1:], RECV_NS + 4)
    assert depth_of.replace([], [], RECV_NS + 5)
    assert not depth_of.replace([], [], RECV_NS + 6)


@pytest.mark.parametrize("flag", [wire.STALE, wire.DOWN, wire.INVALID])
def test_what_is_known_already_is_emitted_if_it_ends_a_condition(module, flag):
    depth_of = state(module)
    depth_of.replace(BIDS, ASKS, RECV_NS)
    depth_of.flags |= flag
    assert depth_of.replace(BIDS, ASKS, RECV_NS + 1)
    assert depth_of.flags == wire.SIMULATED
    assert not depth_of.replace(BIDS, ASKS, RECV_NS + 2)


def test_an_empty_book_is_known_and_a_forgotten_one_is_not(module):
    depth_of = state(module)
    fresh = depth_of.record()
    assert not depth_of.is_known
    assert depth_of.replace([], [], RECV_NS), "the first one"
    assert depth_of.is_known
    depth_of.replace(BIDS, ASKS, RECV_NS)
    depth_of.exchange_sequence = 7
    depth_of.forget()
    assert depth_of.record() == fresh
    assert depth_of.replace([], [], RECV_NS)


@pytest.mark.parametrize(
    ("bids", "asks", "is_crossed"),
    [
        ([(100.0, 1.0)], [(100.0, 1.0)], True),
        ([(100.5, 1.0)], [(100.0, 1.0)], True),
        ([(99.0, 1.0)], [(100.0, 1.0)], False),
        ([(99.0, 1.0), (101.0, 1.0)], [(100.0, 1.0)], True),
        ([(100.0, 1.0)], [], False),
        ([], [(100.0, 1.0)], False),
        ([], [], False),
    ],
)
def test_a_crossed_book_is_invalid_until_it_is_not_crossed(module, bids, asks, is_crossed):
    depth_of = state(module)
    assert depth_of.replace(bids, asks, RECV_NS)
    assert (depth_of.is_crossed, bool(depth_of.flags & wire.INVALID)) == (is_crossed, is_crossed)
    assert depth_of.replace(BIDS, ASKS, RECV_NS + 1)
    assert not depth_of.flags & wire.INVALID
    depth_of.replace(bids, asks, RECV_NS + 2)
    depth_of.forget()
    assert depth_of.flags == wire.SIMULATED


def test_the_best_of_a_book_that_somebody_keeps_are_taken_as_they_are(module):
    depth_of, bids, asks = state(module), side(module, True, BIDS), side(module, False, ASKS)
    assert depth_of.update(bids, asks, RECV_NS)
    bids.change([(99.75, 2.0)])
    assert depth_of.bids == tuple(BIDS), "until it is told"
    assert depth_of.update(bids, asks, RECV_NS)
    assert depth_of.bids[1] == (99.75, 2.0)
    with pytest.raises((TypeError, AttributeError)):
        depth_of.update(None, asks, RECV_NS)
