"""Depth, which is the best of both sides: compiled and in Python."""

import pytest
import twins

from feedhandler.data import wire
from feedhandler.data.book import packed_levels

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


def replace(depth_of, bids, asks, recv_ns):
    return depth_of.replace(packed_levels(bids), packed_levels(asks), recv_ns)


def state(module):
    return module.DepthState(topic="depth.x.Y", native="Y", base_flags=wire.SIMULATED, flags=wire.SIMULATED)


def test_a_record_has_every_field_of_its_state(module):
    full = state(module)
    replace(full, BIDS, ASKS, RECV_NS)
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
    assert replace(depth_of, many, ASKS, RECV_NS)
    assert not replace(depth_of, many, ASKS, RECV_NS + 1), "the same"
    assert not replace(depth_of, [*many[:20], (5.0, 1.0)], ASKS, RECV_NS + 2), "beyond the best"
    assert depth_of.recv_ns == RECV_NS + 2
    assert replace(depth_of, [*many[:19], (5.0, 1.0)], ASKS, RECV_NS + 3)
    assert replace(depth_of, many, ASKS[1:], RECV_NS + 4)
    assert replace(depth_of, [], [], RECV_NS + 5)
    assert not replace(depth_of, [], [], RECV_NS + 6)


@pytest.mark.parametrize("flag", [wire.STALE, wire.DOWN, wire.INVALID])
def test_what_is_known_already_is_emitted_if_it_ends_a_condition(module, flag):
    depth_of = state(module)
    replace(depth_of, BIDS, ASKS, RECV_NS)
    depth_of.flags |= flag
    assert replace(depth_of, BIDS, ASKS, RECV_NS + 1)
    assert depth_of.flags == wire.SIMULATED
    assert not replace(depth_of, BIDS, ASKS, RECV_NS + 2)


def test_an_empty_book_is_known_and_a_forgotten_one_is_not(module):
    depth_of = state(module)
    fresh = depth_of.record()
    assert not depth_of.is_known
    assert replace(depth_of, [], [], RECV_NS), "the first one"
    assert depth_of.is_known
    replace(depth_of, BIDS, ASKS, RECV_NS)
    depth_of.exchange_sequence = 7
    depth_of.forget()
    assert depth_of.record() == fresh
    assert replace(depth_of, [], [], RECV_NS)


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
    assert replace(depth_of, bids, asks, RECV_NS)
    assert (depth_of.is_crossed, bool(depth_of.flags & wire.INVALID)) == (is_crossed, is_crossed)
    assert replace(depth_of, BIDS, ASKS, RECV_NS + 1)
    assert not depth_of.flags & wire.INVALID
    replace(depth_of, bids, asks, RECV_NS + 2)
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
