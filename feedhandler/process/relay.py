"""The relay: answers subscribers that have missed something, beside the tick path and never on it.

It reads what the merger has written into its file, so that nobody asks the merger anything. Without the relay
subscribers see holes and count them; everything else runs on, unchanged.
"""

import logging
import time
from pathlib import Path
from typing import Final

from feedhandler import recover, wire
from feedhandler.config import Config
from feedhandler.errors import EXIT_OK, DecodeError
from feedhandler.process.runtime import on_stop_signals, settle, use_cpus
from feedhandler.transport import tick
from feedhandler.transport.board import BoardReader, recent_path
from feedhandler.transport.files import Lock
from feedhandler.transport.router import Router

TURN_S: Final = 0.05
LOOK_EVERY_S: Final = 0.25  # for another merger's file, while nobody writes the one that is open

log = logging.getLogger(__name__)


class Recent:
    """The merger's file of recent records, and that of the next merger when there is one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: BoardReader | None = None
        self._looked_mono_s = 0.0

    def ring(self) -> BoardReader | None:
        """Return what the merger has written, None if there has never been one."""
        reader = self._reader
        if reader is not None and reader.is_alive():
            return reader
        now_s = time.monotonic()
        if now_s - self._looked_mono_s >= LOOK_EVERY_S:
            self._looked_mono_s = now_s
            if reader is None or not reader.is_current():
                self._open()
        return self._reader

    def _open(self) -> None:
        try:
            reader = BoardReader(self._path)
        except FileNotFoundError:
            return
        except (OSError, DecodeError) as exc:
            log.warning("what the merger published cannot be read: %s", exc)
            return
        if self._reader is not None:
            self._reader.close()
        self._reader = reader
        log.info("answering for the merger of session %d", reader.session)


class RelayProcess:
    """Owns the sockets and the loop."""

    def __init__(self, config: Config) -> None:
        self._loop = tick.Loop()
        self._is_stopping = False
        self._recent = Recent(recent_path(config.run_dir))
        self._documents: dict[bytes, bytes] = {}  # newest of each topic, padded
        self._documents_session = 0
        prefixes = [
            wire.KIND_NAMES[kind].encode() for kind in (wire.STATUS, wire.INSTRUMENTS, wire.HEARTBEAT)
        ]
        self._downlink = tick.Downlink(self._loop, config.merger.ticks[0], prefixes, self._take)
        self._router = Router(
            self._loop,
            config.relay.recover,
            self._answer,
            key="relay.recover",
            request_size_max=recover.REQUEST_SIZE_MAX,
        )

    def _take(self, message: bytes | memoryview) -> None:
        """Keep the newest document of each topic."""
        document = bytes(message)
        if len(document) < wire.HEADER_SIZE:
            return
        self._documents[document[: wire.TOPIC_SIZE]] = document

    def _answer(self, request: bytes) -> tuple[list[bytes], int]:
        answer = recover.answer(request, self._recent.ring(), self._documents)
        return answer.frames, answer.cost

    def stop(self) -> None:
        """Leave the loop at its next turn."""
        self._is_stopping = True

    def run(self) -> None:
        """Answer until `stop`."""
        while not self._is_stopping:
            self._downlink.poll()
            self._router.on_time()
            self._loop.run_once(TURN_S)

    def close(self) -> None:
        """Close the sockets."""
        self._router.close()
        self._downlink.close()
        self._loop.close()


def run(config: Config) -> int:
    """Run the relay; returns the exit status."""
    with Lock(config.run_dir, "relay"):
        use_cpus(config.relay.cpus, f"{config.path}: relay.cpus")
        process = RelayProcess(config)
        on_stop_signals(process.stop)
        log.info("answering at %s", ", ".join(config.relay.recover))
        settle()
        process.run()
        process.close()
        log.info("stopped")
    return EXIT_OK
