"""The recorder's wiring, with a feed's tap beside it in one loop: a disk that fails, a pause, an end in order."""

import asyncio
import errno
import random
import time

import pytest
import uvloop
from patience import PATIENCE_S

from feedhandler.feed.tap import NOT_TAKEN, Tap
from feedhandler.recorder import process
from feedhandler.recorder.disk import RecordingsDirectory
from feedhandler.recorder.process import Recorder
from feedhandler.recordings import directory
from feedhandler.recordings.plan import Plan
from feedhandler.runtime import config
from feedhandler.transport.offer import Offer


class Feed:
    """What a feed offers, at the endpoint that the recorder reads."""

    def __init__(self, loop, settings, exchange):
        (endpoint,) = settings.exchange(exchange).raw
        self.offer = Offer(loop, [endpoint], lambda: self.tap.on_join(), key="raw", queue_size_max=1 << 20)
        self.tap = Tap(self.offer.send, time.time_ns, time.monotonic_ns, loop.call_soon)
        self.tap.begin(Plan(exchange=exchange, session_ns=time.time_ns()))
        self.connection = self.tap.connection("spot", lambda payload, recv_ns: False)
        self.connection.on_opened("ws://x")

    def frames(self, count, size=20):
        for _ in range(count):
            self.connection.on_frame(memoryview(bytes(size)), time.time_ns())


class World:
    """A recorder and a feed in one loop."""

    def __init__(self, path, **settings):
        lines = [f"{key} = {value}" for key, value in {"min_free_gb": 0, **settings}.items()]
        text = (
            f'run_dir = "{path}/run"\n[exchanges.binance]\n[recorder]\ndirectory = "{path}/recordings"\n'
            + "\n".join(lines)
        )
        self.config = config.parse(text, "x.toml")
        (path / "run").mkdir(mode=0o700, exist_ok=True)
        self.disk = RecordingsDirectory(self.config.recorder.directory, "directory")
        self.tasks = []

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        self.disk.__enter__()
        self.feed = Feed(loop, self.config, "binance")
        self.start()
        return self

    def start(self):
        loop = asyncio.get_running_loop()
        self.recorder = Recorder(loop, self.config, self.config.recorder, self.disk)
        self.tasks = [
            asyncio.create_task(work())
            for work in (self.recorder.join, self.recorder.write, self.recorder.watch, self.flush)
        ]

    async def flush(self):
        while True:
            self.feed.tap.flush()
            await asyncio.sleep(0.02)

    async def stop(self):
        for task in self.tasks:
            task.cancel()
        done = await asyncio.gather(*self.tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in done), done
        await self.recorder.stop()

    async def __aexit__(self, *_):
        self.feed.offer.close()
        self.disk.__exit__(None, None, None)

    async def until(self, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    def received(self):
        return self.recorder.status().feeds["binance"].received

    def report(self):
        (found,) = directory.verify(self.disk.path)
        return found


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(process, "RETRY_S", 0.2)


def test_what_a_feed_offers_is_on_disk_and_complete(tmp_path):
    async def main():
        async with World(tmp_path) as world:
            world.feed.frames(1000)
            await world.until(lambda: world.received() == 1000)
            world.feed.frames(500)
            world.feed.tap.flush()
            await world.stop()
            report = world.report()
            assert report.is_complete
            assert (report.received, report.sessions) == (1500, 1)

    uvloop.run(main())


def test_a_recorder_that_is_started_anew_misses_nothing(tmp_path):
    """What comes while it is away is held by the feed."""

    async def main():
        async with World(tmp_path) as world:
            for _ in range(3):
                world.feed.frames(100)
                await world.until(lambda: world.received() == 100)
                world.feed.frames(50)
                await world.stop()
                world.feed.frames(50)
                world.start()
                await world.until(lambda: world.received() >= 50)
                await world.stop()
                world.start()
            await world.stop()
            report = world.report()
            assert report.is_complete, report
            assert report.received == 600

    uvloop.run(main())


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
def test_a_disk_that_fails_stops_the_recording_and_nothing_else(tmp_path, monkeypatch, error):
    async def main():
        async with World(tmp_path) as world:
            world.feed.frames(100)
            await world.until(lambda: world.received() == 100)
            whole = world.disk.open

            def fail(feed, begun_ns):
                raise OSError(error, "what the system says")

            monkeypatch.setattr(world.disk, "open", fail)
            for recording in world.recorder.recordings.values():
                recording.end("time")
            world.feed.frames(100)
            await world.until(lambda: world.recorder.stopped)
            assert "what the system says" in world.recorder.status().stopped
            world.feed.frames(100)
            await asyncio.sleep(0.5)
            monkeypatch.setattr(world.disk, "open", whole)
            await world.until(lambda: not world.recorder.stopped)
            world.feed.frames(100)
            await world.until(lambda: world.received() == 400)
            await world.stop()
            report = world.report()
            assert report.is_complete, "what comes meanwhile is held"

    uvloop.run(main())


@pytest.mark.long
def test_too_little_room_stops_the_recording_and_the_gap_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("feedhandler.feed.tap.HELD_SIZE_MAX", 20_000)

    async def main():
        async with World(tmp_path, min_free_gb=1) as world:
            world.feed.frames(100)
            await world.until(lambda: world.received() == 100)
            monkeypatch.setattr(world.disk, "free", lambda: 10**9 - 1)
            await world.until(lambda: world.recorder.stopped)
            assert world.recorder.stopped == (
                f"1.00 GB are free at {tmp_path}/recordings/, and min_free_gb is 1"
            )
            await world.until(lambda: not world.feed.offer.is_joined)
            for _ in range(20):
                world.feed.frames(100)
                await asyncio.sleep(0.001)
            monkeypatch.setattr(world.disk, "free", lambda: 10**9 + 1)
            await asyncio.sleep(0.5)
            assert world.recorder.stopped, "not on and off at the limit"
            monkeypatch.setattr(world.disk, "free", lambda: 2 * 10**9)
            await world.until(lambda: not world.recorder.stopped)
            await world.until(lambda: world.recorder.status().feeds["binance"].lost)
            world.feed.frames(100)
            world.feed.tap.flush()
            await world.stop()
            report = world.report()
            assert report.is_sound
            assert not report.is_complete
            assert report.missing == world.feed.tap.dropped > 1000
            assert report.received == 2200 - report.missing
            assert {each.why for each in report.ranges} == {NOT_TAKEN}
            assert [each.state for each in report.segments] == ["closed"] * 2

    uvloop.run(main())


def test_a_disk_that_is_slow_makes_the_feed_wait_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "WAITING_SIZE_MAX", 100_000)

    async def main():
        async with World(tmp_path) as world:
            (recording,) = world.recorder.recordings.values()
            whole, sizes = recording.write, []

            def slow(now_ns, now_mono_ns):
                sizes.append(recording.waiting_size)
                time.sleep(0.2)
                return whole(now_ns, now_mono_ns)

            monkeypatch.setattr(recording, "write", slow)
            for _ in range(50):
                world.feed.frames(100, 1000)
                await asyncio.sleep(0.01)
            await world.until(lambda: world.received() == 5000)
            monkeypatch.setattr(recording, "write", whole)
            await world.stop()
            report = world.report()
            assert report.missing == world.feed.tap.dropped == 0
            assert report.is_complete

    uvloop.run(main())


@pytest.mark.long
def test_segments_begin_by_time_and_go_on_without_a_gap(tmp_path):
    async def main():
        async with World(tmp_path, segment_s=1) as world:
            for number in range(1, 13):
                world.feed.frames(100)
                await world.until(lambda number=number: world.received() == 100 * number)
                await asyncio.sleep(0.25)
            await world.stop()
            report = world.report()
            assert report.is_complete
            assert len(report.segments) >= 2
            assert report.received == 1200

    uvloop.run(main())


def test_what_is_too_much_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "RETENTION_EVERY_S", 0.1)
    monkeypatch.setattr(process, "STATUS_EVERY_S", 0.1)

    async def main():
        async with World(tmp_path, segment_s=1, max_size_gb=0.001) as world:
            rng = random.Random(1)

            def removed():
                return [entry for entry in directory.manifest(world.disk.path) if entry.event == "removed"]

            while not removed():
                for _ in range(100):
                    world.feed.connection.on_frame(memoryview(rng.randbytes(2000)), time.time_ns())
                await asyncio.sleep(0.2)
            await world.stop()
            reports = directory.verify(world.disk.path)
            assert all(report.is_complete for report in reports), "what is left"

    uvloop.run(main())
