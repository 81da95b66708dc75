"""The levels of one side: compiled and in Python."""

import math
import random

import msgspec
import pytest
import twins
from seeds import seeds

from feedhandler.data import depth, wire
from feedhandler.data.book import packed_levels
from feedhandler.data.levels import LEVELS_MAX

BIDS = [(100.0, 1.0), (99.5, 2.0), (99.0, 3.0)]


@pytest.fixture(params=twins.FORMS)
def module(request):
    return twins.of(request.param)


@pytest.fixture
def read_levels(module):
    return module.read_levels


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


@pytest.mark.parametrize("seed", seeds(20))
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


@pytest.mark.parametrize("seed", seeds(20))
def test_what_a_message_changes_is_recorded_with_each_price_once(module, seed):
    rng = random.Random(seed)
    is_bids = rng.random() < 0.5
    levels, expected = side(module, is_bids), side(module, is_bids)
    for _ in range(100):
        prices = [rng.randint(0, 40) / 4 for _ in range(rng.randint(0, 12))]
        if order := rng.randrange(3):
            prices = sorted(set(prices) if rng.random() < 0.8 else prices, reverse=order == 1)
        message = [(price, float(rng.choice((0, 0, 1, 2.5, 7)))) for price in prices]
        changed = {price: size for price, size in message if price > 0.0}
        assert levels.record(packed_levels(message)) == packed_levels(changed.items())
        expected.change(changed.items())
        assert levels.pairs() == expected.pairs()


@pytest.mark.parametrize("seed", seeds(20))
def test_a_side_is_replaced_by_levels_in_any_order_as_a_record_has_them(module, seed):
    rng = random.Random(seed)
    is_bids = rng.random() < 0.5
    levels = side(module, is_bids, BIDS)
    for count in (3, 0, 40, 500, 1):
        pairs = [(rng.randint(0, 400) / 4, float(rng.choice((0, 1, 2.5)))) for _ in range(count)]
        if rng.random() < 0.5:
            pairs = sorted(dict(pairs).items(), reverse=is_bids)
        levels.replace_packed(packed_levels(pairs))
        assert levels.pairs() == side(module, is_bids, pairs).pairs()


READABLE = [
    "[]",
    '[["100.25","3"]]',
    '[["100.25000000","3.00000000"],["100.50","0.00000000"],["0","0.0"]]',
    '[["9007199254740992","0.9007199254740992"],["9007199254740993","123456789012345678.5"]]',
    '[["0.0000000000000000000001","0.00000000000000000000001"],["0.1","0.3"],["1.10","2.675"]]',
    '[[100.25,3],["1e3","2.5E-1"]]',
    ' [ ["1", "2"] , ["3","4"] ] ',
    '[["1","\\u0032"]]',
]
UNREADABLE = ["", "[", "{}", "null", '[["1"]]', '[["1","2","3"]]', '[["1","2"],]', '[["1","2"]', '["1","2"]']
UNREADABLE += [
    f'[["{number}","1"]]' for number in ("", "-1", "nan", "inf", "1.", ".5", "01", "+1", "1,0", "1 ")
]
UNREADABLE += [
    '[["1","2"]]x',
    '[["1","2"]x]',
    '[["1","2"x]]',
    '[["1"x"2"]]',
    '[["1","2"],["1,"2"]]',
    '[["1","-0.5"]]',
]


@pytest.mark.parametrize("text", READABLE)
def test_levels_are_read_as_a_library_reads_them(read_levels, text):
    expected = msgspec.json.decode(text, type=list[tuple[float, float]], strict=False)
    assert read_levels(msgspec.Raw(text.encode())) == packed_levels(expected)


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_are_no_levels_cannot_be_read(read_levels, text):
    with pytest.raises(msgspec.MsgspecError):
        read_levels(msgspec.Raw(text.encode()))


@pytest.mark.parametrize("seed", seeds(20))
def test_any_numbers_of_any_length_are_read_exactly(read_levels, seed):
    rng = random.Random(seed)

    def number():
        whole = str(rng.choice((0, rng.randrange(10), rng.randrange(10 ** rng.randint(1, 18)))))
        decimals = "".join(rng.choice("0123456789000") for _ in range(rng.choice((0, 1, 2, 8, 8, 15, 30))))
        return f"{whole}.{decimals}" if decimals else whole

    levels = [(number(), number()) for _ in range(200)]
    for count in (200, 1):
        for first in range(0, 200, count):
            part = levels[first : first + count]
            expected = packed_levels([(float(price), float(size)) for price, size in part])
            assert read_levels(msgspec.Raw(msgspec.json.encode(part))) == expected


@pytest.mark.long
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


@pytest.mark.parametrize("is_bids", [True, False])
def test_levels_are_taken_as_they_stand_in_a_record_and_given_so(module, is_bids):
    bids = side(module, is_bids, BIDS)
    changes = packed_levels([(1.0, 1.0), (99.5, 0.0), (99.25, 4.0), (0.0, 3.0)])
    bids.take(b"x" * 7 + changes, 7 + 16, 3)
    expected = sorted([BIDS[0], BIDS[2], (99.25, 4.0)], reverse=is_bids)
    assert bids.pairs() == expected
    assert bids.packed() == bids.packed(0) == bids.packed(-3, 99) == packed_levels(expected)
    assert (bids.packed(1, 1), bids.packed(3), bids.packed(99, 1)) == (packed_levels(expected[1:2]), b"", b"")
    for start, count in ((8, 4), (-1, 1), (64, 1)):
        with pytest.raises(IndexError):
            bids.take(changes, start, count)


@pytest.mark.parametrize(
    "level", [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, math.inf), (-1.0, 1.0), (1.0, -1.0)]
)
def test_what_is_no_price_or_no_size_is_refused(module, level):
    with pytest.raises(twins.DECODE_ERRORS, match="none"):
        side(module, True).take(packed_levels([level]), 0, 1)


def test_a_side_is_a_sequence(module):
    bids = side(module, True, BIDS)
    assert (len(bids), list(bids), bids[0], bids[-1]) == (3, BIDS, BIDS[0], BIDS[2])
    for part in (slice(2), slice(1, None), slice(0, 99), slice(None, None, -1), slice(-2, None), slice(2, 1)):
        assert bids[part] == BIDS[part]
    for index in (3, -4):
        with pytest.raises(IndexError):
            bids[index]
    assert not side(module, True)
