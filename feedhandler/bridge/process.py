"""The bridge to NATS: republishes the merger's stream, for those who outgrow one machine.

Wiring only: what is still due is decided in `backlog`, connections are made by `connection`. A subscriber like any
other, outside the tick path: feeds, merger and other subscribers run on, unchanged, when it or NATS is down.
"""

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections import Counter
from typing import Any, Final

import msgspec
import uvloop
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.process_collector import ProcessCollector

from feedhandler.bridge.backlog import Backlog
from feedhandler.bridge.connection import CLOSE_S, NatsConnection
from feedhandler.bridge.login import check_credentials
from feedhandler.bridge.merger_silence import MergerSilence
from feedhandler.bridge.metrics import BridgeMetrics, BridgeStatus
from feedhandler.bridge.subjects import own_subject, subject_of
from feedhandler.data import wire
from feedhandler.data.errors import EXIT_OK, ConfigError
from feedhandler.data.processes import BRIDGE
from feedhandler.runtime.lifecycle import (
    END_S,
    keep_secrets_in_memory,
    on_stop_signals,
    run_together,
    use_cpus,
)
from feedhandler.runtime.settings import Config, NatsConfig
from feedhandler.runtime.upkeep import Upkeep
from feedhandler.transport.files import Lock
from feedhandler.transport.links import Downlink
from feedhandler.transport.tasks import END_TASKS_S, Failures

LOOK_EVERY_S: Final = 0.05
JOIN_EVERY_S: Final = 0.25  # a merger that was away
STATUS_EVERY_S: Final = 1.0
FLUSH_S: Final = 2.0  # at the end
assert END_TASKS_S + FLUSH_S + CLOSE_S < END_S, "an end in order has its time"
REQUEST_S: Final = 10.0  # of silence, on a connection for metrics
LOGGED_MAX: Final = 20  # topics that are named in the log

log = logging.getLogger(__name__)


class Bridge:
    """Owns the sockets; figures are for its status and its metrics."""

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config, nats: NatsConfig) -> None:
        self.started_ns = time.time_ns()
        self._config = nats
        self.backlog = Backlog()
        self.failures = Failures()
        self._silence = MergerSilence(time.monotonic_ns())
        self._wake = asyncio.Event()
        self._is_stopping = False
        where = f"{config.path}: nats"
        self.connection = NatsConnection(
            nats, os.environ, where, on_lost=self.backlog.put_back, on_change=self._on_connection
        )
        self.published: Counter[str] = Counter()
        self.bytes_published = 0
        self.too_large = 0
        self.unmapped = 0
        self._logged: set[bytes] = set()  # topics that the log has named
        self._subjects: dict[bytes, str | None] = {wire.padded(OWN_TOPIC): own_subject(nats.prefix)}
        self._wants_heartbeat = any(HEARTBEAT.startswith(topic.encode()) for topic in nats.topics)
        self._loop = loop
        self._endpoint = (*config.merger.batches, *config.merger.ticks)[0]
        self._joined_s = 0.0
        self._downlink = self._join()
        self._statuses = 0

    @property
    def is_merger_silent(self) -> bool:
        return self._silence.is_silent

    def _join(self) -> Downlink:
        prefixes = {b""} if "" in self._config.topics else {HEARTBEAT, *map(str.encode, self._config.topics)}
        return Downlink(self._loop, self._endpoint, sorted(prefixes), self._take)

    # --- from the merger

    def _take(self, message: bytes) -> None:
        # hot: `python -m bench.bridge`
        self._silence.on_receive()
        self.backlog.take(message)
        self._wake.set()

    async def look(self) -> None:
        """See whether the merger and NATS are there; for ever."""
        is_connected = False
        while True:
            now_s, now_ns = time.monotonic(), time.monotonic_ns()
            if is_connected or now_s - self._joined_s >= JOIN_EVERY_S:
                self._joined_s = now_s
                is_connected = self._downlink.poll()
            was_silent = self._silence.is_silent
            if self._silence.look(now_ns, is_connected=is_connected):
                count = len(self.backlog.newest)
                log.warning("the merger is silent: %d topics, its tickers are flagged DOWN", count)
                self.backlog.flag_down()
            elif was_silent and not self._silence.is_silent:
                log.info("the merger sends at %s", self._endpoint)
                self.backlog.clear_down()
            if self.backlog.on_time(now_ns):
                log.warning("%d records were missed: requesting all of the merger again", self.backlog.missed)
                self._downlink.close()
                self._downlink = self._join()
                is_connected = self._downlink.poll()
            self.backlog.is_away = not self.connection.is_connected
            if self.connection.take_repeat():
                self.backlog.repeat()
            self.connection.on_time()
            self._wake.set()
            await asyncio.sleep(LOOK_EVERY_S)

    # --- to NATS

    def _on_connection(self) -> None:
        # At once: what comes between a connection and the next look is not to be conflated.
        self.backlog.is_away = not self.connection.is_connected
        self._wake.set()

    async def publish(self) -> None:
        """Publish what is due as long as there is room; for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.connection.has_room() and (chunk := self.backlog.take_chunk()):
                await self._publish(chunk)
                self.connection.on_time()
                await asyncio.sleep(0)  # nats-py writes, and the merger is read

    async def _publish(self, chunk: list[bytes]) -> None:
        # hot: `python -m bench.bridge`
        position = 0
        try:
            for position, record in enumerate(chunk):
                if not self.connection.has_room():
                    self.backlog.return_first(chunk[position:])
                    return
                kind = record[wire.KIND_OFFSET]
                if (subject := self._subject(record)) is None:
                    continue
                if kind == wire.HEARTBEAT and not self._wants_heartbeat:
                    continue
                if len(record) > wire.TICKER_SIZE and len(record) > self.connection.size_max:
                    self._on_too_large(record)
                    continue
                await self.connection.publish(subject, record)
                self.published[wire.KIND_NAMES[kind]] += 1
                self.bytes_published += len(record)
        except BaseException:  # also a cancellation at the end: what is left is still to be published
            self.backlog.return_first(chunk[position:])
            raise

    def _subject(self, record: bytes) -> str | None:
        topic = record[: wire.TOPIC_SIZE]
        try:
            subject = self._subjects[topic]
        except KeyError:
            subject = self._find_subject(topic)
        if subject is None:
            self.unmapped += 1
        return subject

    def _find_subject(self, topic: bytes) -> str | None:
        subject: str | None = None
        try:
            subject = subject_of(topic, self._config.prefix)
        except ValueError as exc:
            self._log_once(topic, "not published: %s", exc)
        self._subjects[topic] = subject
        return subject

    def _on_too_large(self, record: bytes) -> None:
        self.too_large += 1
        self._log_once(
            record[: wire.TOPIC_SIZE],
            "%s is not published: it has %d bytes, and max_payload of the NATS server is %d; raise it there",
            self._subject(record),
            len(record),
            self.connection.size_max,
        )

    def _log_once(self, topic: bytes, text: str, *values: object) -> None:
        if topic not in self._logged and len(self._logged) < LOGGED_MAX:
            self._logged.add(topic)
            log.warning(text, *values)

    # --- about itself

    def status(self) -> BridgeStatus:
        """Return its state and its counts."""
        state = "stopping" if self._is_stopping else "down" if self.is_merger_silent else "live"
        return BridgeStatus(
            pid=os.getpid(),
            started_ns=self.started_ns,
            state=state,
            is_merger_silent=self.is_merger_silent,
            topics=len(self.backlog.newest),
            published=dict(self.published),
            conflated=dict(self.backlog.conflated),
            bytes_published=self.bytes_published,
            connects=self.connection.connects,
            waiting=len(self.backlog),
            refused=self.connection.refused,
            too_large=self.too_large,
            unmapped=self.unmapped,
            missed=self.backlog.missed,
            failures=self.failures.counts.total(),
        )

    def _publish_status(self) -> None:
        self._statuses += 1
        now_ns = time.time_ns()
        document = wire.Document(
            OWN_TOPIC,
            kind=wire.STATUS,
            flags=wire.DOWN if self.is_merger_silent or self._is_stopping else 0,
            session=self.started_ns // 1_000_000_000,
            sequence=self._statuses,
            recv_ns=now_ns,
            publish_ns=now_ns,
            body=msgspec.json.encode(self.status()),
        )
        self.backlog.put(wire.padded(OWN_TOPIC), wire.pack_document(document))

    async def publish_statuses(self) -> None:
        """Publish the status each second; for ever."""
        while True:
            self._publish_status()
            self._wake.set()
            await asyncio.sleep(STATUS_EVERY_S)

    async def stop(self) -> None:
        """Flag everything DOWN, and wait until it has arrived, for a moment."""
        self._is_stopping = True
        self._downlink.close()
        self.backlog.flag_down()
        self._publish_status()
        deadline = time.monotonic() + FLUSH_S
        while time.monotonic() < deadline and self.connection.is_connected:
            while self.connection.has_room() and (chunk := self.backlog.take_chunk()):
                await self._publish(chunk)
                await asyncio.sleep(0)
            if not len(self.backlog) and not len(self.connection.unconfirmed):
                break
            self.connection.on_time()
            await asyncio.sleep(LOOK_EVERY_S / 10)
        left = len(self.backlog) + len(self.connection.unconfirmed)
        await self.connection.close()
        total = sum(self.published.values())
        log.info("stopped: %d records published, %d conflated, %d left", total, self._conflated(), left)

    def _conflated(self) -> int:
        return sum(self.backlog.conflated.values())


def _listen(config: Config, nats: NatsConfig, bridge: Bridge) -> None:
    if not nats.metrics:
        return
    registry = CollectorRegistry()
    registry.register(BridgeMetrics(bridge))
    ProcessCollector(namespace="feedhandler_bridge", registry=registry)
    host, port = nats.metrics_address
    try:
        # A thread of its own, that ends with the process; and one per connection.
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as exc:
        raise ConfigError(
            f"{config.path}: nats.metrics: cannot listen at {nats.metrics}: {exc.strerror or exc};"
            " stop what holds it, or configure another one"
        ) from exc
    server.RequestHandlerClass = _limited(server.RequestHandlerClass)
    log.info("metrics are at http://%s/metrics", nats.metrics)


def _limited(handler: Any) -> Any:
    """Return a handler of connections that gives up one on which nothing is received, without a traceback."""

    class Limited(handler):  # type: ignore[misc]
        timeout = REQUEST_S

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                super().handle()

    return Limited


def _on_exception(failures: Failures, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """nats-py leaves the OSError of a connection that broke to a task that nobody awaits; `connection` logs it."""
    if isinstance(context.get("exception"), OSError):
        log.debug("%s: %r", context.get("message"), context.get("exception"))
    else:
        failures.on_loop_exception(loop, context)


async def _main(config: Config, nats: NatsConfig, lock: Lock) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    on_stop_signals(stop.set, loop)
    check_credentials(nats, f"{config.path}: nats")
    bridge = Bridge(loop, config, nats)
    loop.set_exception_handler(functools.partial(_on_exception, bridge.failures))
    _listen(config, nats, bridge)
    works = {
        "the connection to NATS": bridge.connection.run,
        "the merger's stream": bridge.look,
        "publishing": bridge.publish,
        "the status": bridge.publish_statuses,
        "files": Upkeep(config, lock.look).run,
    }
    await run_together(bridge.failures, works, stop)  # raises for a stream that cannot be had
    await bridge.stop()
    return EXIT_OK


def run(config: Config) -> int:
    """Run the bridge; returns the exit status."""
    if config.nats is None:
        raise ConfigError(
            f"{config.path}: nats: there is no such table; add [nats], with the servers unless it is"
            ' servers = ["nats://127.0.0.1:4222"]'
        )
    keep_secrets_in_memory()
    with Lock(config.run_dir, BRIDGE) as lock:
        use_cpus(config.nats.cpus, f"{config.path}: nats.cpus")
        return uvloop.run(_main(config, config.nats, lock))


HEARTBEAT: Final = wire.topic(wire.HEARTBEAT, "merger").encode()
OWN_TOPIC: Final = wire.topic(wire.STATUS, BRIDGE)
