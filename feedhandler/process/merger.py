"""The merger: a plain blocking poll loop between the feeds' socket and the subscribers'. No asyncio.

Wiring only: what to publish is decided in `merge`. It waits for no subscriber: a full queue drops, and the
subscriber sees the hole in the sequence.
"""

import contextlib
import logging
import os
import time
from typing import Final

import zmq

from feedhandler.config import Config
from feedhandler.errors import EXIT_OK
from feedhandler.merge import NS_PER_MS, TICK_NS, Merger
from feedhandler.process.runtime import on_stop_signals
from feedhandler.transport import zmq_sockets
from feedhandler.transport.files import Lock

TICK_MS: Final = TICK_NS // NS_PER_MS
# Messages taken from the feeds before the loop looks at subscriptions and the clock again.
DRAIN_MESSAGES: Final = 256
SUBSCRIPTIONS: Final = 64  # served before the loop looks at the feeds again
SUBSCRIBE: Final = b"\x01"  # first byte of an XPUB message
UNSUBSCRIBE: Final = b"\x00"

log = logging.getLogger(__name__)


class MergerProcess:
    """Owns the two sockets and the loop."""

    def __init__(self, config: Config, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self._ticks = zmq_sockets.ticks_publisher(context, config.merger.ticks)
        self._feeds = zmq_sockets.feed_subscriber(context, config.merger.feeds)
        self._endpoints = (*config.merger.ticks, config.merger.feeds)
        self._is_stopping = False
        self.merger = Merger(
            list(config.exchanges),
            self._send,
            time.time_ns,
            session=int(time.time()),
            pid=os.getpid(),
            now_mono_ns=time.monotonic_ns(),
        )

    def _send(self, message: bytes | bytearray) -> None:
        # hot: bench/load.py. An XPUB never blocks: it drops at the high-water mark.
        self._ticks.send(message, zmq.NOBLOCK)

    def stop(self) -> None:
        """Leave the loop at its next turn."""
        self._is_stopping = True

    def run(self) -> None:
        """Move messages until `stop`."""
        poller = zmq.Poller()
        poller.register(self._feeds, zmq.POLLIN)
        poller.register(self._ticks, zmq.POLLIN)
        next_tick = 0
        while not self._is_stopping:
            ready = dict(poller.poll(TICK_MS))
            if self._feeds in ready:
                self._drain()
            if self._ticks in ready:
                self._serve_subscriptions()
            now = time.monotonic_ns()
            if now >= next_tick:
                self.merger.on_tick(now)
                next_tick = now + TICK_NS

    def _drain(self) -> None:
        # hot: bench/load.py
        receive, on_message = self._feeds.recv, self.merger.on_message
        try:
            for _ in range(DRAIN_MESSAGES):
                on_message(receive(zmq.NOBLOCK))
        except zmq.Again:
            return

    def _serve_subscriptions(self) -> None:
        """Switch each subscription on, and replay to it, before any newer record can go out."""
        with contextlib.suppress(zmq.Again):
            for _ in range(SUBSCRIPTIONS):
                event = self._ticks.recv(zmq.NOBLOCK)
                if event[:1] == SUBSCRIBE:
                    self._ticks.set(zmq.SUBSCRIBE, event[1:])
                    self.merger.on_subscription(event[1:])
                elif event[:1] == UNSUBSCRIBE:
                    self._ticks.set(zmq.UNSUBSCRIBE, event[1:])

    def close(self) -> None:
        """Tell subscribers that everything is down, and close the sockets."""
        self.merger.on_stop()
        self._feeds.close()
        self._ticks.close()
        for endpoint in self._endpoints:
            zmq_sockets.remove_file_of(endpoint)


def run(config: Config) -> int:
    """Run the merger; returns the exit status."""
    with Lock(config.run_dir, "merger"):
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        process = MergerProcess(config, context)
        on_stop_signals(process.stop)
        log.info("publishing at %s", ", ".join(config.merger.ticks))
        process.run()
        process.close()
        context.term()
        log.info("stopped")
    return EXIT_OK
