"""What is removed: the oldest, and no more than has to be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.recorder.retention import KeptSegment, expired

HOUR = 3600 * 10**9


def kept(*sizes):
    return [KeptSegment(f"{n}", size, n * HOUR, (n + 1) * HOUR) for n, size in enumerate(sizes)]


def removed(segments, now_ns=0, **limits):
    limits = {"max_age_ns": 0, "max_size": 0, **limits}
    return [(each.path, why) for each, why in expired(segments, now_ns, **limits)]


def test_without_limits_everything_stays():
    assert removed(kept(1, 2, 3), 10**6 * HOUR) == []


def test_the_oldest_go_until_there_is_room():
    segments = kept(5, 5, 5, 5)
    assert removed(segments, max_size=20) == []
    assert removed(segments, max_size=14) == [("0", "more than max_size_gb"), ("1", "more than max_size_gb")]
    assert [path for path, _ in removed(reversed(segments), max_size=1)] == ["0", "1", "2", "3"]


def test_what_is_being_written_counts_and_stays():
    assert [path for path, _ in removed(kept(5, 5), max_size=10, other_size=3)] == ["0"]


def test_age_counts_from_the_last_write():
    assert removed(kept(1, 1, 1), 5 * HOUR, max_age_ns=3 * HOUR) == [("0", "older than max_age_days")]


@pytest.mark.long
@given(st.lists(st.integers(1, 100)), st.integers(1, 500), st.integers(1, 100))
def test_what_stays_is_within_the_limits_and_newer_than_what_goes(sizes, max_size, age):
    segments = kept(*sizes)
    gone = {path for path, _ in removed(segments, 100 * HOUR, max_size=max_size, max_age_ns=age * HOUR)}
    stays = [each for each in segments if each.path not in gone]
    assert sum(each.size for each in stays) <= max_size
    assert all(100 * HOUR - each.ended_ns <= age * HOUR for each in stays)
    assert [each.path for each in segments][: len(gone)] == sorted(gone, key=int)
