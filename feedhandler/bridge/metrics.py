"""What the bridge reports of itself: its status record (docs/bridge.md), and for Prometheus (docs/operations.md).

By kind, never by symbol.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Protocol

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from feedhandler.bridge.backlog import Backlog
from feedhandler.bridge.connection import NatsConnection
from feedhandler.data import wire

PREFIX = "feedhandler_bridge"


class BridgeStatus(msgspec.Struct, kw_only=True):
    """Body of the bridge's own status, published each second as that of `bridge-nats`.

    Times are Unix ns. Counts by kind's name are since it started.
    """

    pid: int
    started_ns: int
    state: str  # live; down: the merger is silent; stopping
    is_merger_silent: bool
    topics: int
    published: dict[str, int]
    conflated: dict[str, int]
    bytes_published: int
    connects: int
    waiting: int
    refused: int
    too_large: int
    unmapped: int
    missed: int
    failures: int = 0  # that nobody foresaw; the log has the first of each kind


class Counted(Protocol):
    """What is read of a bridge: plain numbers."""

    connection: NatsConnection
    backlog: Backlog
    published: Counter[str]
    bytes_published: int
    too_large: int
    unmapped: int

    @property
    def is_merger_silent(self) -> bool:
        """True if nothing comes from the merger."""


class BridgeMetrics(Collector):
    """Gathered at each request, from plain numbers: requests come in another thread."""

    def __init__(self, bridge: Counted) -> None:
        self._bridge = bridge

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        bridge, backlog = self._bridge, self._bridge.backlog
        connection = bridge.connection
        for name, text, counts in (
            ("published", "Records handed to NATS.", bridge.published),
            ("conflated", "Records passed over for newer ones of their topics.", backlog.conflated),
        ):
            family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=("kind",))
            for word in wire.TOPIC_WORDS:
                family.add_metric((word,), counts[word])
            yield family
        for name, text, count in (
            ("bytes", "Bytes of published records.", bridge.bytes_published),
            ("connects", "Connections to NATS that were made.", connection.connects),
            ("refused", "Records that the stream refused.", connection.refused),
            ("too_large", "Documents larger than the server's max_payload.", bridge.too_large),
            ("unmapped", "Records whose topic has no subject.", bridge.unmapped),
            ("undecodable", "Messages of the merger that this version cannot read.", backlog.undecodable),
            ("missed", "Records of the merger that did not arrive.", backlog.missed),
        ):
            yield CounterMetricFamily(f"{PREFIX}_{name}", text, count)
        for name, text, value in (
            ("connected", "1 while there is a connection to NATS.", connection.is_connected),
            ("merger_silent", "1 while the merger is silent.", bridge.is_merger_silent),
            ("topics", "Topics that the bridge has.", len(backlog.newest)),
            ("waiting", "Records that wait for room.", len(backlog)),
            ("pending_bytes", "Bytes that wait for the socket.", connection.pending_size),
            ("unconfirmed_bytes", "Bytes of records that are under way.", connection.unconfirmed.size),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, float(value))
