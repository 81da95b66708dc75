"""What the bridge counts, for Prometheus; described in docs/operations.md. By kind, never by symbol."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from feedhandler.data import wire

if TYPE_CHECKING:
    from feedhandler.bridge.process import Bridge

PREFIX = "feedhandler_bridge"


class BridgeMetrics(Collector):
    """Gathered when it is asked for, from plain numbers: another thread asks."""

    def __init__(self, bridge: "Bridge") -> None:
        self._bridge = bridge

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        bridge, link, backlog = self._bridge, self._bridge.link, self._bridge.backlog
        for name, text, counts in (
            ("published", "Records handed to NATS.", bridge.published),
            ("conflated", "Records passed over for newer ones of their topics.", backlog.conflated),
        ):
            family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=("kind",))
            for kind, word in wire.KIND_NAMES.items():
                if kind != wire.NOTICE:
                    family.add_metric((word,), counts[word])
            yield family
        for name, text, count in (
            ("bytes", "Bytes of published records.", bridge.bytes_published),
            ("connects", "Connections to NATS that were made.", link.connects),
            ("refused", "Records that the stream refused.", link.refused),
            ("too_large", "Documents larger than the server's max_payload.", bridge.too_large),
            ("unmapped", "Records whose topic has no subject.", bridge.unmapped),
            ("undecodable", "Messages of the merger that this version cannot read.", backlog.undecodable),
            ("missed", "Records of the merger that did not arrive.", backlog.missed),
        ):
            yield CounterMetricFamily(f"{PREFIX}_{name}", text, count)
        for name, text, value in (
            ("connected", "1 while there is a connection to NATS.", link.is_connected),
            ("merger_silent", "1 while the merger is silent.", bridge.is_merger_silent),
            ("topics", "Topics that the bridge has.", len(backlog.newest)),
            ("waiting", "Records that wait for room.", len(backlog)),
            ("pending_bytes", "Bytes that wait for the socket.", link.pending_size),
            ("unconfirmed_bytes", "Bytes of records that are under way.", link.unconfirmed.size),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, float(value))
