"""The recorder: takes what the feeds of this host offer, and writes it to disk.

Wiring only: which file, and what each begins with, is decided in `recording`; `disk` has the directory. All that
waits for a disk is in one thread beside the loop, which reads the feeds. It never slows a feed: what it does not
read waits there, and is then dropped and counted. A disk that takes nothing, or has too little room, stops the
recording and nothing else; when it is over, feeds tell what is missing.
"""

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import uvloop

from feedhandler.data.errors import EXIT_OK, ConfigError
from feedhandler.data.processes import RECORDER
from feedhandler.data.shard import shards
from feedhandler.data.status import RecordedFeed, RecorderStatus
from feedhandler.data.units import NS_PER_S
from feedhandler.recorder.disk import RecordingsDirectory
from feedhandler.recorder.recording import FeedRecording, Limits
from feedhandler.runtime.lifecycle import END_S, on_stop_signals, run_together, use_cpus
from feedhandler.runtime.settings import Config, RecorderConfig
from feedhandler.runtime.upkeep import Upkeep
from feedhandler.transport.files import Lock, recorder_status_path, write_recorder_status
from feedhandler.transport.links import Downlink
from feedhandler.transport.tasks import END_TASKS_S, Failures

T = TypeVar("T")

NICE: Final = 5  # a feed that has a frame runs first: it holds what the recorder is late for
LOOK_EVERY_S: Final = 0.25
STATUS_EVERY_S: Final = 1.0
RETRY_S: Final = 5.0  # after an error of the disk
RETENTION_EVERY_S: Final = 60.0
LEAVE_S: Final = 1.0  # for feeds to send what is under way, at the end
LEFT_EVERY_S: Final = 0.02  # looks whether they have
WAITING_SIZE_MAX: Final = 32 << 20  # of one feed, for the disk; what is more waits in the feed
assert END_TASKS_S + LEAVE_S < END_S, "an end in order has its time"
# Room that has to be there again, as a part of what has to be there: not on and off at the limit.
ROOM_AGAIN: Final = 1.05
DAY_NS: Final = 86_400 * NS_PER_S
GB: Final = 10**9

log = logging.getLogger(__name__)


class Recorder:
    """Owns the sockets and the thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        settings: RecorderConfig,
        disk: RecordingsDirectory,
    ) -> None:
        self._run_dir = config.run_dir
        self._settings = settings
        self._disk = disk
        self._loop = loop
        self.failures = Failures()
        self._thread = ThreadPoolExecutor(1, "disk")
        self._wake = asyncio.Event()
        self.stopped = ""  # why nothing is recorded
        self._retry_mono_s = 0.0
        self._free = 0
        self._is_told = True
        self._is_paused: set[str] = set()
        self.recordings: dict[str, FeedRecording] = {}
        self._downlinks: dict[str, Downlink] = {}
        limits = Limits(int(settings.segment_s * NS_PER_S), settings.segment_mb * 10**6)
        for name, exchange in config.exchanges.items():
            for shard in () if exchange.elsewhere else shards(exchange.shards):
                feed = name + shard.suffix
                self.recordings[feed] = recording = FeedRecording(feed, disk, limits)
                take = functools.partial(self._take, recording)
                self._downlinks[feed] = Downlink(loop, exchange.raw_of(shard)[0], [b""], take)

    def _take(self, recording: FeedRecording, message: bytes) -> None:
        recording.take(message, time.time_ns())
        self._wake.set()

    async def _on_disk(self, work: Callable[[], T]) -> T:
        """Do what may wait for a disk, one at a time."""
        return await self._loop.run_in_executor(self._thread, work)

    # --- for ever

    async def join(self) -> None:
        """See that feeds are read which are there, unless nothing is recorded, or too much waits for the disk."""
        while True:
            for feed, downlink in self._downlinks.items():
                waiting = self.recordings[feed].waiting_size
                if not self.stopped:
                    downlink.poll()
                if waiting > WAITING_SIZE_MAX:
                    self._is_paused.add(feed)
                    downlink.pause()
                elif feed in self._is_paused and waiting <= WAITING_SIZE_MAX // 2:
                    self._is_paused.discard(feed)
                    downlink.resume()
            await asyncio.sleep(LOOK_EVERY_S)

    async def write(self) -> None:
        """Write what has come, as long as the disk takes it."""
        while True:
            with contextlib.suppress(TimeoutError):  # what is open may be due
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
            self._wake.clear()
            if self.stopped:
                await self._try_again()
                continue
            try:
                if await self._on_disk(self._write_all):
                    self._wake.set()
            except OSError as exc:
                await self._stop_recording(_words(exc))

    def _write_all(self) -> bool:
        now_ns, now_mono_ns = time.time_ns(), time.monotonic_ns()
        more = False
        for recording in self.recordings.values():
            more = recording.write(now_ns, now_mono_ns) or more
        return more

    def _settle_all(self, reason: str) -> None:
        for recording in self.recordings.values():
            recording.settle(reason)

    async def _stop_recording(self, why: str) -> None:
        """Leave the feeds to themselves until there is a disk again."""
        if not self.stopped:
            log.error("nothing is recorded any more: %s", why)
        self.stopped = why
        self._retry_mono_s = time.monotonic() + RETRY_S
        for downlink in self._downlinks.values():
            downlink.resume()
            downlink.leave()
        self._is_paused.clear()
        await self._on_disk(functools.partial(self._settle_all, why))

    async def _try_again(self) -> None:
        await asyncio.sleep(max(0.0, self._retry_mono_s - time.monotonic()))
        self._retry_mono_s = time.monotonic() + RETRY_S
        try:
            why = await self._on_disk(lambda: self._lack_of_room(ROOM_AGAIN))
            if not why:
                # what has waited; if it cannot be written, it goes on waiting
                await self._on_disk(self._write_all)
        except OSError as exc:
            why = _words(exc)
            await self._on_disk(functools.partial(self._settle_all, why))
        if not why:
            log.warning("recording again; %s", self.stopped)
        self.stopped = why

    def _lack_of_room(self, factor: float = 1.0) -> str:
        """Return in words that there is too little room, "" if there is enough."""
        self._free = self._disk.free()
        least = self._settings.min_free_gb * GB
        if self._free >= least * factor:
            return ""
        return (
            f"{self._free / GB:.2f} GB are free at {self._disk.path}/, and min_free_gb is"
            f" {self._settings.min_free_gb:g}"
        )

    async def watch(self) -> None:
        """See how much room there is, remove what is to be kept no longer, and write the status."""
        removed_mono_s = -RETENTION_EVERY_S
        while True:
            try:
                if not self.stopped and (why := await self._on_disk(self._lack_of_room)):
                    await self._stop_recording(why)
                if time.monotonic() - removed_mono_s >= RETENTION_EVERY_S:
                    removed_mono_s = time.monotonic()
                    await self._on_disk(self._remove_expired)
            except OSError as exc:
                if not self.stopped:
                    await self._stop_recording(_words(exc))
            self._write_status()
            await asyncio.sleep(STATUS_EVERY_S)

    def _remove_expired(self) -> None:
        settings = self._settings
        if settings.max_age_days or settings.max_size_gb:
            self._disk.remove_expired(
                time.time_ns(),
                max_age_ns=int(settings.max_age_days * DAY_NS),
                max_size=int(settings.max_size_gb * GB),
                open_size=self._open_size(),
            )

    def _open_size(self) -> int:
        return sum(each.open_size for each in self.recordings.values())

    # --- about itself

    def status(self) -> RecorderStatus:
        """Return what it reports."""
        feeds = {}
        for feed, recording in self.recordings.items():
            received, items_size, stored_size = recording.totals()
            feeds[feed] = RecordedFeed(
                is_connected=self._downlinks[feed].is_connected,
                received=received,
                items_size=items_size,
                stored_size=stored_size,
                segments=recording.segments,
                gaps=recording.gaps,
                lost=recording.lost,
                waiting_size=recording.waiting_size,
                newest_ns=recording.last_ns,
                segment=recording.path,
            )
        return RecorderStatus(
            pid=os.getpid(),
            as_of_ns=time.time_ns(),
            directory=str(self._disk.path),
            stopped=self.stopped,
            free_size=self._free,
            min_free_size=int(self._settings.min_free_gb * GB),
            size=self._disk.size + self._open_size(),
            feeds=feeds,
            failures=self.failures.counts.total(),
        )

    def _write_status(self) -> None:
        try:
            write_recorder_status(self._run_dir, self.status())
            self._is_told = True
        except OSError as exc:
            if self._is_told:
                log.warning("the recorder's status cannot be written: %s", exc.strerror)
            self._is_told = False

    async def stop(self) -> None:
        """Take what feeds have sent, and close the segments."""
        for downlink in self._downlinks.values():
            downlink.resume()
            downlink.leave()
        for _ in range(round(LEAVE_S / LEFT_EVERY_S)):
            if not any(each.is_connected for each in self._downlinks.values()):
                break
            await asyncio.sleep(LEFT_EVERY_S)
        for downlink in self._downlinks.values():
            downlink.close()
        try:
            while await self._on_disk(self._write_all):
                pass
        except OSError as exc:
            log.error("the last moment could not be written: %s", _words(exc))
        await self._on_disk(functools.partial(self._settle_all, "stopping"))
        self._thread.shutdown()
        recorder_status_path(self._run_dir).unlink(missing_ok=True)
        log.info("stopped: %d frames recorded", sum(each.received for each in self.recordings.values()))


def _words(exc: OSError) -> str:
    return f"{exc.strerror or exc}{f': {exc.filename}' if exc.filename else ''}"


async def _main(config: Config, settings: RecorderConfig, disk: RecordingsDirectory, lock: Lock) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    on_stop_signals(stop.set, loop)
    disk.recover()
    recorder = Recorder(loop, config, settings, disk)
    loop.set_exception_handler(recorder.failures.on_loop_exception)
    log.info("recording %s to %s/", ", ".join(recorder.recordings), disk.path)
    works = {
        "the feeds": recorder.join,
        "writing": recorder.write,
        "the disk": recorder.watch,
        "files": Upkeep(config, lock.look).run,
    }
    try:
        await run_together(recorder.failures, works, stop)
    finally:
        await recorder.stop()
    return EXIT_OK


def run(config: Config) -> int:
    """Run the recorder; returns the exit status."""
    if config.recorder is None:
        raise ConfigError(
            f"{config.path}: recorder: there is no such table; add [recorder], with the directory unless it is"
            ' directory = "recordings"'
        )
    where = f"{config.path}: recorder"
    with (
        Lock(config.run_dir, RECORDER) as lock,
        RecordingsDirectory(config.recorder.directory, f"{where}.directory") as disk,
    ):
        use_cpus(config.recorder.cpus, f"{where}.cpus")
        os.nice(NICE)
        return uvloop.run(_main(config, config.recorder, disk, lock))
