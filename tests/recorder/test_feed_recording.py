"""One feed's recording: when segments begin, what they begin with, and that a disk which fails loses nothing."""

import io
import random

import msgspec
import pytest
from msgspec.structs import replace

from feedhandler.recorder.recording import FLUSH_NS, FeedRecording, Limits
from feedhandler.recordings import segments
from feedhandler.recordings.packing import packed
from feedhandler.recordings.plan import Plan, PlannedMarket
from feedhandler.recordings.traffic import Item, What

S = 10**9
LIST = "http://x/list"


def plan(session=1, wanted=()):
    markets = [PlannedMarket(name="spot", prefix="", instruments_url=LIST)]
    body = Plan(
        exchange="binance", session_ns=session, markets=markets, wanted={symbol: [] for symbol in wanted}
    )
    return Item(What.HEADER, 1, data=msgspec.json.encode(body))


def opened(name):
    return Item(What.OPENED, 2, connection=name, name="ws://x")


def answer(number, url=LIST):
    return Item(What.ANSWERED, 3, number=number, name=url, data=b"%d" % number)


def frame(number, size=10):
    data = random.Random(number).randbytes(size)  # which zstd leaves as they are
    return Item(What.RECEIVED, 1000 + number, 0, "spot.1", number, data=data)


class File(io.BytesIO):
    """A file of a disk with so much room."""

    def __init__(self, disk):
        super().__init__()
        self.disk = disk

    def write(self, data):
        part = bytes(data[: max(0, self.disk.room)])
        if not part:
            raise OSError(28, "No space left on device")
        self.disk.room -= len(part)
        return super().write(part)

    def close(self):
        pass


class Disk:
    """Keeps everything in memory."""

    def __init__(self):
        self.room = 10**12
        self.files = {}
        self.events = []
        self.error = None

    def open(self, feed, begun_ns):
        if self.error:
            raise self.error
        name = f"{feed}/{begun_ns}"
        assert name not in self.files
        self.files[name] = File(self)
        return name, self.files[name]

    def closed(self, path, footer, size):
        self.events.append((path, footer.reason))

    def given_up(self, path, size, why, *, is_empty):
        self.events.append((path, "empty" if is_empty else "torn"))
        if is_empty:
            del self.files[path]

    def segments(self):
        """Return what is in each file, without the tears."""
        return [
            [item for item in segments.items(file) if item.what is not What.GAP]
            for file in self.files.values()
        ]


class World:
    """A recording and its clock."""

    def __init__(self, age_ns=900 * S, size=10**9):
        self.disk = Disk()
        self.recording = FeedRecording("binance", self.disk, Limits(age_ns, size))
        self.now = 100 * S

    def take(self, *items):
        self.recording.take(packed(items), self.now)

    def write(self, after_ns=0):
        self.now += after_ns
        while self.recording.write(self.now, self.now):
            pass


@pytest.fixture
def world():
    return World()


def new(items):
    return [item for item in items if not item.is_repeated]


def repeated(items):
    return [(item.what, item.connection or item.data) for item in items if item.is_repeated]


def test_what_is_taken_is_in_a_file_within_a_moment(world):
    world.take(plan(), opened("spot.1"), frame(1))
    world.write()
    assert world.disk.segments() == [[]] or not world.disk.files["binance/100000000000"].getvalue()
    world.write(FLUSH_NS)
    assert world.disk.segments() == [[plan(), opened("spot.1"), frame(1)]]


def test_after_a_time_the_next_segment_begins_with_what_holds(world):
    world.take(plan(), answer(1), opened("spot.1"), opened("spot.2"), frame(1))
    world.take(answer(2), answer(3, "http://x/other"), answer(4, f"{LIST}?cursor=9"))
    world.take(Item(What.CLOSED, 9, connection="spot.2"))
    world.write()
    world.write(900 * S)
    world.take(frame(2))
    world.write(S)
    world.recording.end("stopping")
    assert [reason for _, reason in world.disk.events] == ["time", "stopping"]
    first, second = world.disk.segments()
    assert len(new(first)) == 9
    assert new(second) == [frame(2)]
    assert repeated(second) == [
        (What.HEADER, plan().data),
        (What.ANSWERED, b"2"),
        (What.ANSWERED, b"4"),
        (What.OPENED, "spot.1"),
    ]


def test_after_a_size_the_next_segment_begins():
    world = World(size=600_000)
    world.take(plan())
    for number in range(10):
        world.take(frame(number, 100_000))
        world.write()
    world.recording.end("stopping")
    found = world.disk.segments()
    assert [reason for _, reason in world.disk.events][:-1] == ["size"] * (len(found) - 1)
    assert len(found) > 1
    assert [item.number for items in found for item in new(items) if item.what is What.RECEIVED] == [
        *range(10)
    ]


def test_a_feed_that_starts_anew_has_a_segment_of_its_own(world):
    world.take(plan(1), opened("spot.1"), frame(1))
    world.take(plan(1, ["BTC/USDT"]), frame(2))
    world.take(plan(2), frame(1))
    world.write()
    world.recording.end("stopping")
    first, second = world.disk.segments()
    assert len(first) == 5
    assert second == [plan(2), frame(1)], "and nothing of the last one is repeated"
    assert world.disk.events[0][1] == "the feed started anew"


def test_a_recorder_that_comes_to_a_feed_keeps_what_it_repeats(world):
    world.take(replace(plan(), is_repeated=True), replace(answer(1), is_repeated=True), frame(7))
    world.write()
    world.write(900 * S)
    world.take(frame(8))
    world.write()
    world.recording.end("stopping")
    assert repeated(world.disk.segments()[1]) == [(What.HEADER, plan().data), (What.ANSWERED, b"1")]


@pytest.mark.parametrize("room", [0, 1, 64, 200, 1000, 3000, 20_000])
def test_whatever_room_there_is_nothing_is_lost_or_written_twice(world, room):
    """Also not while it is tried again and again."""
    world.disk.room = room
    world.take(plan(), answer(1), opened("spot.1"))
    number = 0
    for _ in range(50):
        for _ in range(5):
            number += 1
            world.take(frame(number, 50))
        try:
            world.write(S)
        except OSError as exc:
            world.recording.settle(exc.strerror)
            size = world.recording.waiting_size
    world.disk.room = 10**12
    world.write(S)
    world.recording.end("stopping")
    assert world.recording.waiting_size == 0
    found = [item.number for items in world.disk.segments() for item in items if item.what is What.RECEIVED]
    assert found == [*range(1, number + 1)]
    assert room > 3000 or size > 0
    plans = [item for items in world.disk.segments() for item in new(items) if item.what is What.HEADER]
    assert plans == [plan()]
    assert world.recording.totals()[0] == number


def test_a_disk_that_takes_nothing_makes_no_heap_of_files_and_no_heap_in_memory(world):
    world.take(plan(), answer(1), opened("spot.1"), frame(1))
    world.write()
    world.write(S)
    world.disk.room = 0
    world.take(frame(2))
    sizes = set()
    for _ in range(20):
        with pytest.raises(OSError, match="No space"):
            world.write(S)
        world.recording.settle("full")
        sizes.add(world.recording.waiting_size)
    assert len(world.disk.files) == 1
    assert len(sizes) == 1


def test_a_directory_that_is_gone_loses_nothing(world):
    world.disk.error = FileNotFoundError(2, "the directory is gone")
    world.take(plan(), frame(1))
    with pytest.raises(FileNotFoundError):
        world.write(S)
    world.recording.settle("gone")
    world.disk.error = None
    world.write(S)
    world.recording.end("stopping")
    assert world.disk.segments() == [[plan(), frame(1)]]


def test_a_clock_that_goes_back_keeps_names_in_order(world):
    world.take(plan(), frame(1))
    world.write()
    world.recording.end("x")
    world.now -= 50 * S
    world.take(frame(2))
    world.write()
    assert sorted(world.disk.files) == [*world.disk.files]


def test_gaps_that_the_feed_tells_are_counted(world):
    world.take(plan(), Item(What.GAP, 5, number=17, name="x"), Item(What.GAP, 5, number=3, name="x"))
    world.write()
    assert (world.recording.gaps, world.recording.lost) == (2, 20)
