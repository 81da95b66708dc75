"""The relay: answers subscribers that have missed something, and has all that other hosts connect to (`beyond`).

It is beside the tick path, and reads what the merger has written into its file, so that no request goes to the
merger. Without the relay subscribers see gaps and count them, and other hosts get nothing; everything else runs
on, unchanged.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from feedhandler.data import modes, retransmission, wire
from feedhandler.data.errors import EXIT_OK, DecodeError, ProtocolError
from feedhandler.data.kinds import KINDS
from feedhandler.data.layout import Body
from feedhandler.data.status import RelayStatus
from feedhandler.relay.relayed_books import TOPICS as BOOK_TOPICS
from feedhandler.relay.relayed_books import BooksFirst, RelayedBooks, SnapshotRequests
from feedhandler.runtime.lifecycle import keep_secrets_in_memory, on_stop_signals, settle, use_cpus
from feedhandler.runtime.settings import Config
from feedhandler.runtime.upkeep import Upkeep
from feedhandler.transport import private
from feedhandler.transport.files import Lock, relay_status_path, request_snapshots, write_relay_status
from feedhandler.transport.links import Downlink
from feedhandler.transport.loop import Loop
from feedhandler.transport.queues import Queues, size_of
from feedhandler.transport.recent import RecentReader, recent_path
from feedhandler.transport.router import Router
from feedhandler.transport.tasks import Failures

TURN_S: Final = 0.05
# Nobody waits for what it reads, unless other hosts subscribe to it: so it is sent several messages at once, which
# spares the merger the writes and the relay the wake-ups. Whoever asks is answered at once, of the merger's file,
# where a record is before it is queued: what a merger that is killed had not sent is there as well.
GATHERED: Final = modes.WITHIN + b"50"
# Of which newest ones are kept: kinds with a JSON body and a topic of their own.
DOCUMENTS: Final = {kind.code: kind.name for kind in KINDS if kind.body is Body.JSON and kind.has_topics}
NICE: Final = 5  # as nobody waits for it: the feeds, the merger and subscribers run first
FAILED_TURN_S: Final = 0.5  # after a turn that failed: subscribers of other hosts wait
LOOK_EVERY_S: Final = 0.25  # for another merger's file, while nobody writes the one that is open

if TYPE_CHECKING:
    from feedhandler.relay.beyond import Beyond

log = logging.getLogger(__name__)


class Recent:
    """The merger's file of recent records, and that of the next merger when there is one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: RecentReader | None = None
        self._looked_mono_s = 0.0

    def ring(self, session: int = 0) -> RecentReader | None:
        """Return what the merger has written, None if there has never been one; at once that of a new session."""
        reader = self._reader
        is_old = bool(session) and (reader is None or reader.session != session)
        if reader is not None and reader.is_alive() and not is_old:
            return reader
        now_s = time.monotonic()
        if is_old or now_s - self._looked_mono_s >= LOOK_EVERY_S:
            self._looked_mono_s = now_s
            if reader is None or not reader.is_current():
                self._open()
        return self._reader

    def _open(self) -> None:
        try:
            reader = RecentReader(self._path)
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

    def __init__(self, config: Config, lock: Lock) -> None:
        self._loop = Loop()
        self._is_stopping = False
        group = private.group_of(config.group, f"{config.path}: group")
        self._failures = Failures()
        self._recent = Recent(recent_path(config.run_dir))
        self._documents: dict[bytes, bytes] = {}  # newest of each topic, padded
        self._session = 0  # of the merger, as the stream states it
        self._books = RelayedBooks(lambda: self._recent.ring(self._session))
        self._requests = SnapshotRequests()
        self._queues = Queues(size_of(config.relay.queues_mb))
        self._beyond = _beyond(self._loop, config, self._answer)
        prefixes = (
            [b""]
            if config.relay.remote_ticks
            else [GATHERED, BOOK_TOPICS, *(f"{word}.".encode() for word in DOCUMENTS.values())]
        )
        take = self._take if self._beyond is not None else BooksFirst(self._books, self._take)
        # Not the batches: there a full queue drops, here it ends in the newest of each topic.
        self._downlink = Downlink(self._loop, config.merger.ticks[0], prefixes, take)
        self._router = Router(
            self._loop,
            config.relay.recover,
            self._answer,
            key="relay.recover",
            request_size_max=retransmission.REQUEST_SIZE_MAX,
            queues=self._queues,
            group=group,
        )
        self._upkeep = Upkeep(config, lock.look, self._router.look)
        self._looked_mono_s = 0.0
        self._run_dir = config.run_dir
        self._is_told = True

    def _take(self, message: bytes) -> None:
        """Keep the newest document of each topic, and pass on everything."""
        if len(message) < wire.HEADER_SIZE:
            return
        if (session := wire.session_of(message)) != self._session:
            self._forget_merger()  # another has followed, and the last one's session is over
            self._session = session
        kept = bytes(message)
        kind = kept[wire.KIND_OFFSET]
        if kind == wire.NOTICE:
            return  # about this subscriber
        if kind in DOCUMENTS:
            self._documents[kept[: wire.TOPIC_SIZE]] = kept
            if kind == wire.HEARTBEAT:  # the last that a new subscriber gets, after all conditions in force
                self._books.join()
        elif kind in (wire.BOOK, wire.CONDITION) and kept.startswith(BOOK_TOPICS):
            self._books.take(kept)
        if self._beyond is not None:
            self._beyond.stream.send(kept)

    def _forget_merger(self) -> None:
        self._session = 0
        self._documents.clear()
        if self._beyond is not None:
            self._beyond.stream.forget()

    def _answer(self, request: bytes) -> tuple[list[bytes], int]:
        try:
            with self._failures.converted("an answer"):
                ring = self._recent.ring(self._session)
                answer = retransmission.answer(
                    request, ring, self._documents, _flags_of(ring), self._books.last
                )
        except ProtocolError:
            return [], 1  # none: a subscriber waits for a second at most
        return answer.frames, answer.cost

    def stop(self) -> None:
        """Leave the loop at its next turn."""
        self._is_stopping = True

    def run(self) -> None:
        """Answer until `stop`."""
        while not self._is_stopping:
            if self._failures.attempt_now("a turn of the relay", self._run_once) is not None:
                time.sleep(FAILED_TURN_S)

    def _run_once(self) -> None:
        if not self._downlink.poll():
            self._forget_merger()
            self._books.suspend()
        if self._beyond is not None:
            self._beyond.on_time()
        self._router.on_time()
        if (now_s := time.monotonic()) - self._looked_mono_s >= 1.0:
            self._looked_mono_s = now_s
            self._each_second()
        self._loop.run_once(TURN_S if self._beyond is None else self._beyond.wait_s(TURN_S))

    def _each_second(self) -> None:
        self._upkeep.on_time(self._looked_mono_s)
        lacking = self._requests.due(self._books.lacking(), self._looked_mono_s)
        beyond = self._beyond
        status = RelayStatus(
            pid=os.getpid(),
            as_of_ns=time.time_ns(),
            requests=self._router.requests + (beyond.answers.requests if beyond else 0),
            delays=self._router.delays + (beyond.answers.delays if beyond else 0),
            refused=self._router.refused,
            subscribers=beyond.subscribers if beyond else 0,
            failures=self._failures.counts.total(),
            strangers=beyond.strangers if beyond else 0,
            queues_bytes=self._queues.size,
            queues_bytes_max=self._queues.size_max,
            queues_cut=self._queues.cuts,
            queues_closed=self._queues.closed,
            books=len(self._books),
            books_valid=self._books.valid,
        )
        try:
            if lacking:
                request_snapshots(self._run_dir, lacking)
                log.info("requested snapshots of %d books, such as %s", len(lacking), lacking[0])
            write_relay_status(self._run_dir, status)
            self._is_told = True
        except OSError as exc:
            if self._is_told:
                log.warning("the relay's status cannot be written: %s", exc.strerror)
            self._is_told = False

    def close(self) -> None:
        """Close the sockets."""
        self._router.close()
        if self._beyond is not None:
            self._beyond.close()
        self._downlink.close()
        self._loop.close()
        relay_status_path(self._run_dir).unlink(missing_ok=True)


def _beyond(
    loop: Loop, config: Config, on_request: Callable[[bytes], tuple[list[bytes], int]]
) -> "Beyond | None":
    """Return what other hosts connect to, None if nothing is for them."""
    relay = config.relay
    if not (relay.remote_ticks or relay.remote_recover or relay.remote_feeds):
        return None
    from feedhandler.relay.beyond import Beyond  # most hosts need no libzmq

    return Beyond(loop, config, on_request)


def _flags_of(ring: RecentReader | None) -> int:
    """Return the flags to be added to last values: they are not current while there is no merger."""
    return 0 if ring is None or ring.is_alive() else wire.DOWN


def run(config: Config) -> int:
    """Run the relay; returns the exit status."""
    if config.curve.key:
        keep_secrets_in_memory()
    with Lock(config.run_dir, "relay") as lock:
        use_cpus(config.relay.cpus, f"{config.path}: relay.cpus")
        if not config.relay.remote_ticks:
            os.nice(NICE)
        process = RelayProcess(config, lock)
        on_stop_signals(process.stop)
        log.info("answering at %s", ", ".join(config.relay.recover))
        settle()
        process.run()
        process.close()
        log.info("stopped")
    return EXIT_OK
