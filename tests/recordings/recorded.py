"""Segments for tests."""

import io
import random

import msgspec
from msgspec.structs import replace

from feedhandler.recordings import directory, packing, segments
from feedhandler.recordings.plan import Plan
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


def plan(session=1):
    return Item(What.HEADER, T0, data=msgspec.json.encode(Plan(exchange="binance", session_ns=session)))


def opened(connection="spot.1"):
    return Item(What.OPENED, T0, connection=connection, name="ws://x")


def closed(frames, connection="spot.1"):
    return Item(What.CLOSED, T0, connection=connection, number=frames, name="stopping")


def answer(number):
    return Item(What.ANSWERED, T0, number=number, name="http://x")


def again(item):
    return replace(item, is_repeated=True)


class Place:
    """A directory of recordings of one feed."""

    def __init__(self, path):
        self.path = path
        self.count = 0
        (path / "binance").mkdir()

    def put(self, *groups, reason="time"):
        """Write a segment whose blocks hold these items; reason "": without a footer."""
        self.count += 1
        path = self.path / "binance" / directory.file_name(T0 + self.count * 10**9)
        with path.open("wb", buffering=0) as file:
            writer = segments.SegmentWriter(file, T0 + self.count * 10**9)
            for group in groups:
                writer.add(packing.packed(group))
                writer.flush()
            if reason:
                writer.close(reason)
        return path

    def note(self, path, event):
        line = {"event": event, "at_ns": 1, "path": str(path.relative_to(self.path)), "size": 1}
        with (self.path / directory.MANIFEST).open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")

    def verify(self):
        (report,) = directory.verify(self.path)
        return report
