"""The merger: a plain blocking loop between the feeds' socket and the subscribers'. No asyncio.

Wiring only: what to publish is decided in `merge`. It waits for no subscriber: a full queue drops, and the
subscriber sees a gap in the sequence.
"""

import logging
import os
import time
from pathlib import Path
from typing import Final

from feedhandler.data import board_layout
from feedhandler.data.errors import EXIT_OK
from feedhandler.data.units import NS_PER_S
from feedhandler.merger.merge import TICK_NS, Merger
from feedhandler.runtime.lifecycle import on_stop_signals, settle, settle_the_rest, use_cpus
from feedhandler.runtime.settings import Config
from feedhandler.runtime.upkeep import Upkeep
from feedhandler.transport import private, zmtp
from feedhandler.transport.boards import retire
from feedhandler.transport.files import Lock
from feedhandler.transport.links import Inlet
from feedhandler.transport.loop import Loop
from feedhandler.transport.outlet import Outlet
from feedhandler.transport.queues import Queues, size_of
from feedhandler.transport.recent import RecentWriter, recent_path, ring_path

GROUP_MAY_PASS: Final = 0o710  # through `run_dir`, to what is for subscribers

log = logging.getLogger(__name__)


class MergerProcess:
    """Owns the sockets and the loop."""

    def __init__(self, config: Config, lock: Lock) -> None:
        self._loop = Loop(is_alone=True)  # each TICK_NS Python runs, and with it whatever thread there may be
        self._is_stopping = False
        self._group = private.group_of(config.group, f"{config.path}: group")
        private.let_in(Path(config.run_dir), GROUP_MAY_PASS, self._group)
        session = int(time.time())
        self._queues = Queues(size_of(config.merger.queues_mb))
        self._ticks = self._outlet(config.merger.ticks, "merger.ticks", has_modes=True, session=session)
        self._batches = self._outlet(config.merger.batches, "merger.batches", is_batched=True)
        recent, count = recent_path(config.run_dir), config.merger.recent
        self._ring = RecentWriter(recent, count, session=session) if count else None
        if self._ring is None:
            retire(recent)
            retire(ring_path(recent), board_layout.RING)
        self.merger = Merger(
            {name: exchange.shards for name, exchange in config.exchanges.items()},
            self._ticks,
            self._batches,
            time.time_ns,
            session=session,
            pid=os.getpid(),
            now_mono_ns=time.monotonic_ns(),
            ring=self._ring,
            queues=self._queues,
        )
        # From here to the outlets no line of this process runs, if the tick path is compiled.
        self._feeds = Inlet(
            self._loop,
            config.merger.feeds,
            self.merger.step,
            key="merger.feeds",
            outlets=(self._ticks, self._batches),
        )
        looks = [lock.look, self._ticks.look, self._batches.look, self._feeds.look]
        looks += [self._ring.look] if self._ring is not None else []
        self._upkeep = Upkeep(config, *looks)

    def _outlet(
        self,
        endpoints: tuple[str, ...],
        key: str,
        *,
        is_batched: bool = False,
        has_modes: bool = False,
        session: int = 0,
    ) -> Outlet:
        return Outlet(
            self._loop,
            endpoints,
            self,
            key=key,
            queue_size_max=zmtp.QUEUE_SIZE_MAX,
            queues=self._queues,
            is_batched=is_batched,
            has_modes=has_modes,
            session=session,
            group=self._group,
        )

    def topics(self, prefix: bytes) -> list[bytes]:
        """For outlets, which are there before the merger."""
        return self.merger.topics(prefix)

    def last(self, topic: bytes) -> bytearray | None:
        """The same."""
        return self.merger.last(topic)

    def stop(self) -> None:
        """Leave the loop at its next turn."""
        self._is_stopping = True

    def run(self) -> None:
        """Move messages until `stop`."""
        settle_mono_ns = 0
        while not self._is_stopping:
            now = time.monotonic_ns()
            if now >= settle_mono_ns:
                settle_mono_ns = now + NS_PER_S
                settle_the_rest()
            self._upkeep.on_time(now / 1e9)
            self.merger.on_tick(now)
            if self._ring is not None:
                self._ring.beat()
            self._ticks.flush()
            self._batches.flush()
            self._ticks.on_time(now)
            self._loop.run_until(min(now + TICK_NS, self._ticks.look_mono_ns(now)))

    def close(self) -> None:
        """Tell subscribers that everything is down, and close the sockets."""
        self._feeds.close()
        self.merger.on_stop()
        if self._ring is not None:
            self._ring.close()
        self._ticks.close()
        self._batches.close()
        self._loop.close()


def run(config: Config) -> int:
    """Run the merger; returns the exit status."""
    with Lock(config.run_dir, "merger") as lock:
        use_cpus(config.merger.cpus, f"{config.path}: merger.cpus")
        process = MergerProcess(config, lock)
        on_stop_signals(process.stop)
        log.info("publishing at %s", ", ".join((*config.merger.ticks, *config.merger.batches)))
        settle()
        process.run()
        process.close()
        log.info("stopped")
    return EXIT_OK
