"""The relay: answers subscribers that have missed something, and serves those of other hosts, beside the tick path.

It reads what the merger has written into its file, so that nobody asks the merger anything; what goes to other
hosts is encrypted here. Without the relay subscribers see holes and count them, and other hosts see nothing;
everything else runs on, unchanged.
"""

import logging
import os
import time
from pathlib import Path
from typing import Final

from feedhandler.data import retransmission, wire
from feedhandler.data.errors import EXIT_OK, DecodeError, ProtocolError
from feedhandler.data.status import RelayStatus
from feedhandler.runtime.config import Config
from feedhandler.runtime.curve import server_security
from feedhandler.runtime.lifecycle import keep_secrets_in_memory, on_stop_signals, settle, use_cpus
from feedhandler.runtime.upkeep import Upkeep
from feedhandler.transport import private, tick, zmtp
from feedhandler.transport.boards import BoardReader, recent_path
from feedhandler.transport.files import Lock, relay_status_path, write_relay_status
from feedhandler.transport.queues import Queues, size_of
from feedhandler.transport.router import RATE_ALL, Router
from feedhandler.transport.subscribing import Budget, LastValues
from feedhandler.transport.tasks import Failures

TURN_S: Final = 0.05
DOCUMENTS: Final = [wire.KIND_NAMES[kind] for kind in (wire.STATUS, wire.INSTRUMENTS, wire.HEARTBEAT)]
FAILED_TURN_S: Final = 0.5  # after a turn that failed: subscribers of other hosts wait
LOOK_EVERY_S: Final = 0.25  # for another merger's file, while nobody writes the one that is open

log = logging.getLogger(__name__)


class Recent:
    """The merger's file of recent records, and that of the next merger when there is one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: BoardReader | None = None
        self._looked_mono_s = 0.0

    def ring(self, session: int = 0) -> BoardReader | None:
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


class Beyond:
    """The stream for other hosts: the merger's, message for message. While the merger is away, so is this."""

    def __init__(self, loop: tick.Loop, config: Config, last: LastValues, queues: Queues) -> None:
        self._queues = queues
        self._loop = loop
        self._endpoints = config.relay.ticks
        self._last = last
        self._session = int(time.time())
        self.security = server_security(config)
        self.outlet: zmtp.Outlet | None = None

    def open(self) -> None:
        """Let subscribers come, to an endpoint that is closed."""
        self.outlet = zmtp.Outlet(
            self._loop,
            self._endpoints,
            self._last,
            key="relay.ticks",
            queue_size_max=zmtp.QUEUE_SIZE_MAX,
            queues=self._queues,
            has_modes=True,
            session=self._session,
            security=self.security,
        )
        log.info("for other hosts at %s", ", ".join(self._endpoints))

    def close(self) -> None:
        """End all connections: subscribers see what those of this host see when the merger goes."""
        if self.outlet is not None:
            self.outlet.close()
            self.outlet = None

    def send(self, message: bytes) -> None:
        """Pass on one record or document."""
        if self.outlet is not None:
            self.outlet.send(message[: wire.TOPIC_SIZE], message)


class RelayProcess:
    """Owns the sockets and the loop."""

    def __init__(self, config: Config, lock: Lock) -> None:
        self._loop = tick.Loop()
        self._is_stopping = False
        group = private.group_of(config.group, f"{config.path}: group")
        self._failures = Failures()
        self._recent = Recent(recent_path(config.run_dir))
        self._documents: dict[bytes, bytes] = {}  # newest of each topic, padded
        self._session = 0  # of the merger, as the stream says
        self._queues = Queues(size_of(config.relay.queues_mb))
        self._beyond = Beyond(self._loop, config, self, self._queues) if config.relay.ticks else None
        prefixes = [b""] if self._beyond else [f"{kind}.".encode() for kind in DOCUMENTS]
        # Not the batches: there a full queue drops, here it ends in the newest of each topic.
        self._downlink = tick.Downlink(self._loop, config.merger.ticks[0], prefixes, self._take)
        self._security = self._beyond.security if self._beyond else None
        if config.relay.recover_beyond and self._security is None:
            self._security = server_security(config)
        of_all = Budget(RATE_ALL, time.monotonic())
        self._routers = [
            Router(
                self._loop,
                endpoints,
                self._answer,
                key=key,
                request_size_max=retransmission.REQUEST_SIZE_MAX,
                security=security,
                of_all=of_all,
                queues=self._queues,
                group=group,
            )
            for key, endpoints, security in (
                ("relay.recover", config.relay.recover, None),
                ("relay.recover_beyond", config.relay.recover_beyond, self._security),
            )
        ]
        self._upkeep = Upkeep(config, lock.look, *(router.look for router in self._routers))
        self._looked_mono_s = 0.0
        self._run_dir = config.run_dir
        self._is_told = True

    def _take(self, message: bytes | memoryview) -> None:
        """Keep the newest document of each topic, and pass on everything."""
        if len(message) < wire.HEADER_SIZE:
            return
        if (session := wire.session_of(message)) != self._session:
            self._forget_merger()  # another has followed, and what the last one said is over
            self._session = session
        kept = bytes(message)
        if kept[wire.KIND_OFFSET] != wire.TICKER:
            self._documents[kept[: wire.TOPIC_SIZE]] = kept
        if self._beyond is not None:
            self._beyond.send(kept)

    def _forget_merger(self) -> None:
        self._session = 0
        self._documents.clear()
        if self._beyond is not None:
            self._beyond.close()

    def topics(self, prefix: bytes) -> list[bytes]:
        """Return the topics of which a subscriber of another host gets something first, padded, in order."""
        documents = sorted(topic for topic in self._documents if topic.startswith(prefix))
        ring = self._recent.ring(self._session)
        return sorted(documents + ring.under(prefix)) if ring is not None else documents

    def last(self, topic: bytes) -> bytes | None:
        """Return a topic's last value, flagged SNAPSHOT; None if there is none any more."""
        ring = self._recent.ring(self._session)
        return retransmission.last_value(topic, ring, self._documents, _flags_of(ring))

    def _answer(self, request: bytes) -> tuple[list[bytes], int]:
        try:
            with self._failures.converted("an answer"):
                ring = self._recent.ring(self._session)
                answer = retransmission.answer(request, ring, self._documents, _flags_of(ring))
        except ProtocolError:
            return [], 1  # none: whoever asks waits for a second at most
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
        if self._beyond is not None:
            self._turn(self._beyond)
        for router in self._routers:
            router.on_time()
        if self._security is not None:
            self._security.on_time()
        if (now_s := time.monotonic()) - self._looked_mono_s >= 1.0:
            self._looked_mono_s = now_s
            self._each_second()
        self._loop.run_once(self._wait_s())

    def _each_second(self) -> None:
        self._upkeep.on_time(self._looked_mono_s)
        outlet = self._beyond.outlet if self._beyond is not None else None
        status = RelayStatus(
            pid=os.getpid(),
            as_of_ns=time.time_ns(),
            requests=sum(router.requests for router in self._routers),
            delays=sum(router.delays for router in self._routers),
            refused=sum(router.refused for router in self._routers),
            subscribers=outlet.subscribers if outlet is not None else 0,
            failures=self._failures.counts.total(),
            strangers=self._security.unauthorized if self._security is not None else 0,
            queues_bytes=self._queues.size,
            queues_bytes_max=self._queues.size_max,
            queues_cut=self._queues.cuts,
            queues_closed=self._queues.closed,
        )
        try:
            write_relay_status(self._run_dir, status)
            self._is_told = True
        except OSError as exc:
            if self._is_told:
                log.warning("how the relay is doing cannot be told: %s", exc.strerror)
            self._is_told = False

    def _wait_s(self) -> float:
        """Return how long to sleep at most."""
        outlet = self._beyond.outlet if self._beyond is not None else None
        if outlet is None:
            return TURN_S
        now = time.monotonic_ns()
        return min(TURN_S, (outlet.look_mono_ns(now) - now) / 1e9)

    def _turn(self, beyond: Beyond) -> None:
        if beyond.outlet is None and self._session:
            ring = self._recent.ring(self._session)
            if ring is not None and ring.session == self._session:
                beyond.open()  # not before last values are those of this merger
        if beyond.outlet is not None:
            beyond.outlet.flush()
            beyond.outlet.on_time(time.monotonic_ns())

    def close(self) -> None:
        """Close the sockets."""
        for router in self._routers:
            router.close()
        if self._beyond is not None:
            self._beyond.close()
        self._downlink.close()
        self._loop.close()
        relay_status_path(self._run_dir).unlink(missing_ok=True)


def _flags_of(ring: BoardReader | None) -> int:
    """Return what is to be added to last values: nobody keeps them current while there is no merger."""
    return 0 if ring is None or ring.is_alive() else wire.DOWN


def run(config: Config) -> int:
    """Run the relay; returns the exit status."""
    if config.curve.key:
        keep_secrets_in_memory()
    with Lock(config.run_dir, "relay") as lock:
        use_cpus(config.relay.cpus, f"{config.path}: relay.cpus")
        process = RelayProcess(config, lock)
        on_stop_signals(process.stop)
        log.info("answering at %s", ", ".join(config.relay.recover))
        settle()
        process.run()
        process.close()
        log.info("stopped")
    return EXIT_OK
