"""Which recordings are to be removed: those that are too old, and the oldest where there are too many. Pure."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class KeptSegment(NamedTuple):
    """A segment on disk; one that is being written is never removed."""

    path: str
    size: int
    begun_ns: int
    ended_ns: int  # when it was last written to


def expired(
    segments: Iterable[KeptSegment], now_ns: int, *, max_age_ns: int, max_size: int, other_size: int = 0
) -> Iterator[tuple[KeptSegment, str]]:
    """Yield what is to be removed, and why, the oldest first; limits of 0 are none.

    other_size: of what counts and cannot be removed.
    """
    oldest_first = sorted(segments, key=lambda segment: segment.begun_ns)
    size = other_size + sum(segment.size for segment in oldest_first)
    for segment in oldest_first:
        if max_age_ns and now_ns - segment.ended_ns > max_age_ns:
            why = "older than max_age_days"
        elif max_size and size > max_size:
            why = "more than max_size_gb"
        else:
            continue
        size -= segment.size
        yield segment, why
