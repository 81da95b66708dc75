"""What a running process does for its files: somebody may remove them, a cleaner of temporary files perhaps.

What goes unnoticed otherwise: a socket whose file is gone serves those who have come, and nobody else for ever.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from feedhandler.runtime.settings import Config
from feedhandler.transport import private

LOOK_EVERY_S: Final = 1.0
YOUNG_EVERY_S: Final = 3600.0  # cleaners take what nobody has used for days
TOLD_EVERY_S: Final = 60.0

log = logging.getLogger(__name__)


class Upkeep:
    """looks see to files of one kind each, and raise FeedError for what is gone and cannot be had again."""

    def __init__(self, config: Config, *looks: Callable[[], None]) -> None:
        self._looks = looks
        self._folders = {Path(config.run_dir)}
        for _, endpoint in config.endpoints():
            if endpoint.startswith("ipc://") and not endpoint.startswith("ipc://@"):
                self._folders.add(Path(endpoint.removeprefix("ipc://")))
        self._look_mono_s = self._young_mono_s = self._told_mono_s = 0.0

    def on_time(self, now_mono_s: float) -> None:
        """Look if it is time to; may be called as often as one likes. Raises FeedError."""
        if now_mono_s < self._look_mono_s:
            return
        self._look_mono_s = now_mono_s + LOOK_EVERY_S
        for look in self._looks:
            look()
        if now_mono_s >= self._young_mono_s:
            self._young_mono_s = now_mono_s + YOUNG_EVERY_S
            for folder in self._folders:
                private.keep_young(folder)
        self._look_at_descriptors(now_mono_s)

    def _look_at_descriptors(self, now_mono_s: float) -> None:
        """Tell when none is left: whoever connects is then turned away by the loop's library, without a word."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as exc:
            if now_mono_s >= self._told_mono_s:
                self._told_mono_s = now_mono_s + TOLD_EVERY_S
                log.error(
                    "no file descriptor is left (%s): connections are turned away (see `ulimit -n`)",
                    exc.strerror,
                )

    async def run(self) -> None:
        """The same in an event loop; for ever."""
        while True:
            self.on_time(time.monotonic())
            await asyncio.sleep(LOOK_EVERY_S)
