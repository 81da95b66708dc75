"""Segments for tests."""

import io
import random

from feedhandler.recordings import packing, segments
from feedhandler.recordings.traffic import Item, What

T0 = 1_790_000_000_000_000_000


def frames(count, first=1, connection="spot.1"):
    return [
        Item(
            What.RECEIVED,
            T0 + number * 1000,
            number * 1000,
            connection,
            number,
            data=b'{"price":"%d"}' % random.Random(number).randrange(10**6),
        )
        for number in range(first, first + count)
    ]


def written(groups, *, is_closed=True):
    """Return a segment whose blocks hold these groups of items."""
    file = io.BytesIO()
    writer = segments.SegmentWriter(file, T0)
    for group in groups:
        writer.add(packing.packed(group))
        writer.flush()
    if is_closed:
        writer.close("time")
    return file.getvalue()


GROUPS = [frames(5), frames(4, 6), frames(7, 10)]
