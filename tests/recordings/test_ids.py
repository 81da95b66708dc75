"""Ids of one topic: what came, and what did not."""

import random

import pytest
from seeds import seeds

from feedhandler.recordings import ids
from feedhandler.recordings.ids import ChainedIds, NumberedIds, RisingIds, Spans, UnnumberedIds, covered_ns


def test_spans_of_several_connections_are_joined():
    spans = Spans()
    spans.start("a", 10)
    spans.start("b", 20)
    assert spans.stop("a", 30)
    assert not spans.stop("a", 31)
    assert spans.until(40) == [(10, 40)]
    assert spans.stop("b", 50)
    spans.start("a", 60)
    assert spans.until(70) == [(10, 50), (60, 70)]
    assert covered_ns(spans.until(70), 45, 65) == 10


def test_spans_that_are_many_are_kept_joined(monkeypatch):
    spans = Spans()
    for n in range(5 * ids.SPANS_MAX):
        spans.start("a", n)
        spans.stop("a", n + 1)
    assert spans.until(0) == [(0, 5 * ids.SPANS_MAX)]
    assert len(spans._past) < 2 * ids.SPANS_MAX


@pytest.mark.parametrize("seed", seeds(50))
def test_whatever_the_order_missing_are_those_that_did_not_come(seed):
    rng = random.Random(seed)
    numbers = list(range(1000, 1300))
    kept = [number for number in numbers if number in (1000, 1299) or rng.random() > 0.2]
    found = NumberedIds()
    order = sorted(kept, key=lambda number: number + rng.uniform(0, 20) * (number != 1000))
    for at, number in enumerate(order, 1):
        found.take(number, number, at)
        if rng.random() < 0.2:
            found.take(number, number, at)
    missing = [number for gap in found.gaps() for number in range(gap.first, gap.last + 1)]
    assert missing == [number for number in numbers if number not in kept]
    assert found.received.total() == len(kept)


def test_gaps_beyond_a_limit_are_settled_and_still_counted(monkeypatch):
    monkeypatch.setattr(ids, "RANGES_MAX", 3)
    found = NumberedIds()
    for number in range(100, 120, 2):
        found.take(number, number, number)
    found.recover(101, 200)
    found.recover(117, 200)
    assert [gap.first for gap in found.gaps()] == [101, 103, 105, 107, 109, 111, 113, 115]


LINKED = [(998, 1000), (1001, 1001), (1002, 5), (6, 9), (10, 10), (11, 10), (11, 14)]  # of which one repeats


def test_a_message_that_goes_on_with_lower_ids_is_one_and_none_is_missing():
    """As OKX sends changes of a book: first is behind the id of the message before."""
    found, seen = NumberedIds(), []
    for at, (first, last) in enumerate(LINKED, 1):
        before = found.received.total()
        found.take(first, last, at)
        seen.append(found.received.total() - before)
    assert found.gaps() == []
    assert min(seen) >= 0
    assert (found.newest, seen[2]) == (14, 1)


@pytest.mark.parametrize("seed", seeds(30))
def test_ids_that_begin_again_are_counted_once_whichever_connection_brings_them(seed):
    """Two connections bring the same, one of them a little later: no count is below 0, and nothing is missing."""
    rng = random.Random(seed)
    alone, both = NumberedIds(), NumberedIds()
    messages = [*LINKED, *((n, n) for n in range(15, 40))]
    lags = [at + rng.uniform(0.0, 3.0) for at in range(len(messages))]
    second = sorted(range(len(messages)), key=lambda at: max(lags[: at + 1]))  # in its order
    for at, (first, last) in enumerate(messages):
        alone.take(first, last, at)
    events = [(at, at) for at in range(len(messages))] + [(max(lags[: at + 1]), at) for at in second]
    for _, at in sorted(events):
        before = both.received.total()
        both.take(*messages[at], at)
        assert both.received.total() >= before
    assert both.gaps() == alone.gaps() == []
    assert both.received == alone.received


def test_what_is_missing_before_ids_begin_again_is_told_and_can_come_no_more():
    found = NumberedIds()
    for at, (first, last) in enumerate([(100, 100), (103, 103), (106, 2), (4, 4), (103, 104)], 1):
        found.take(first, last, at)
    assert [(gap.first, gap.last) for gap in found.gaps()] == [(101, 102), (104, 105), (3, 3)]
    assert found.received.total() == 4
    found.recover(105, 6)
    found.recover(6, 7)
    assert (found.received.total(), found.recovered.total()) == (4, 1)


def test_runs_beyond_a_limit_are_settled(monkeypatch):
    monkeypatch.setattr(ids, "RUNS_MAX", 4)
    found = ChainedIds()
    for number in range(100, 160, 2):
        found.take("a", number, number, number, is_base=False)
    assert [gap.first for gap in found.gaps()] == list(range(101, 159, 2))
    assert len(found._past) <= 4


def test_a_chain_that_counts_anew_begins_again():
    found = ChainedIds()
    for number in (1000, 1001, 1002):
        found.take("a", number, number, number, is_base=False)
    found.take("a", 1, 1, 2000, is_base=True)
    found.take("a", 2, 2, 2001, is_base=False)
    assert found.gaps() == []
    assert found.received.total() == 5


def test_ids_that_rise_count_once_and_may_begin_again():
    found = RisingIds()
    for update_id in (100, 102, 101, 102, 200, 3, 4):
        found.take(0, update_id, 1)
    found.take(1, 5, 1)
    assert found.received.total() == 6
    assert found.gaps() == []


def test_ids_without_an_order_count_once():
    found = UnnumberedIds()
    for key in [*range(3000), *range(2500, 3000)]:
        found.take(key, 1)
    assert found.received.total() == 3000
