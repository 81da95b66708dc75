"""What the merger knows of feeds and exchanges: who sends which topic, when each sent last, and their joint status.

Pure, and without decisions: those are in `merge`. It knows no exchange.
"""

import bisect
from collections.abc import Sequence
from typing import NamedTuple

from feedhandler.data import wire
from feedhandler.data.instruments import InstrumentTable
from feedhandler.data.shard import Shard, shard_number
from feedhandler.data.status import LATENCY_BOUNDS_US, ExchangeStatus, FeedStatus, ShardStatus, joined, worst
from feedhandler.data.topics import symbol_in
from feedhandler.merger.step import Route, Traffic


class Latency(NamedTuple):
    """How long one record took, in nanoseconds."""

    in_feed_ns: int  # from receipt to the feed's send
    on_hop_ns: int  # from there to our publishing it


class FeedView:
    """One feed process as the merger sees it: it has an exchange's symbols, or a shard of them."""

    def __init__(self, exchange: str, shard: Shard, traffic: Traffic, now_mono_ns: int) -> None:
        self.exchange = exchange
        self.shard = shard
        self.traffic = traffic
        self.routes: dict[bytes, Route] = {}  # by the native topic, padded
        self.status: FeedStatus | None = None
        self.received_mono_ns = now_mono_ns
        self.is_silent = True  # nothing at all for `merge.FEED_SILENCE_NS`
        self.reported_mono_ns = now_mono_ns
        self.has_reported = False  # a status or a heartbeat, since the last look
        self.is_without_reports = True  # no status or heartbeat for so long; records may be its successor's
        self.is_down = True  # until its first sign of life
        self.reason = f"no feed process for {exchange} yet"
        self.state = "absent"
        self.records_seen = self.messages_seen = 0
        self.rate = 0.0
        self.hop_base = self.hop_lost = self.resync = self.pid = self.started_ns = 0
        # Records that we flagged DOWN for its silence → their own flags, and the number that they got by that.
        self.flagged: dict[Route, tuple[int, int]] = {}

    def on_report(self) -> None:
        """A status or a heartbeat has come."""
        self.traffic.is_heard = self.has_reported = True
        self.is_without_reports = False

    def row(self) -> ShardStatus:
        """Return its row in the exchange's status."""
        return ShardStatus(
            shard=str(self.shard),
            pid=self.pid,
            state=self.state,
            reason=self.reason,
            topics=len(self.routes),
            records_per_s=self.rate,
        )


class ExchangeView:
    """One exchange as the merger sees it: the feeds that share its symbols, and what they have in common.

    All feeds are shards of the same count; it is the count that they stated last.
    """

    def __init__(self, name: str, now_ns: int) -> None:
        self.name = name
        self.feeds: dict[str, FeedView] = {}  # by shard, as it is written
        self._by_number: tuple[FeedView, ...] = ()
        self.table: InstrumentTable | None = None
        self.instruments_body = b""
        self.instruments_as_of_ns = 0
        self.state = "absent"
        self.since_ns = now_ns
        self.unmapped = self.malformed = 0
        self.latency_counts = [0] * (len(LATENCY_BOUNDS_US) + 1)
        self.latency_sum_us = 0.0
        # Of feeds that were, before the count of shards changed.
        self.records_before = self.hop_lost_before = self.newest_recv_ns_before = 0

    def spread(self, feeds: Sequence[FeedView]) -> None:
        """Have these feeds from now on, the shards in their order; the routes go to their new owners."""
        routes = [route for feed in self.feeds.values() for route in feed.routes.items()]
        for feed in self.feeds.values():
            self.records_before += feed.traffic.records
            self.hop_lost_before += feed.hop_lost
            self.newest_recv_ns_before = max(self.newest_recv_ns_before, feed.traffic.newest_recv_ns)
        self._by_number = tuple(feeds)
        self.feeds = {str(feed.shard): feed for feed in feeds}
        for native_topic, route in routes:
            feed = self.feed_of(symbol_in(native_topic))
            feed.routes[native_topic] = route
            route.traffic = feed.traffic

    def feed_of(self, native: str) -> FeedView:
        """Return the feed that has a symbol."""
        return self._by_number[shard_number(native, len(self._by_number)) - 1]

    def count_latencies(self, feed: FeedView) -> None:
        """Count a second's samples of a feed."""
        for in_feed_ns, on_hop_ns in feed.traffic.latencies:
            latency_us = (in_feed_ns + on_hop_ns) / 1000
            self.latency_counts[bisect.bisect_left(LATENCY_BOUNDS_US, latency_us)] += 1
            self.latency_sum_us += latency_us

    @property
    def records(self) -> int:
        return self.records_before + sum(feed.traffic.records for feed in self._by_number)

    @property
    def rate(self) -> float:
        return sum(feed.rate for feed in self._by_number)

    @property
    def origin(self) -> int:
        """Flags of what is sent about it."""
        statuses = [feed.status for feed in self._by_number if feed.status is not None]
        simulated = wire.SIMULATED if any(status.simulated for status in statuses) else 0
        return simulated | (wire.REPLAY if any(status.replay for status in statuses) else 0)

    def has_begun_anew(self, status: FeedStatus) -> bool:
        """True if a feed of another count of shards has followed those of the present one.

        They never run at the same time; but an old one's last message may arrive after a new one's first.
        """
        feeds = self._by_number
        return all(feed.is_without_reports for feed in feeds) or status.started_ns > max(
            f.started_ns for f in feeds
        )

    def joined_state(self) -> str:
        """Return the worst state of the feeds."""
        return worst(feed.state for feed in self._by_number)

    def joined_reason(self) -> str:
        """Return which feeds are absent or down, and why; "" if none is."""
        shards_of: dict[str, list[str]] = {}
        for feed in self._by_number:
            if feed.reason:
                shards_of.setdefault(feed.reason, []).append(str(feed.shard))
        if len(self._by_number) == len(next(iter(shards_of.values()), ())):
            return next(iter(shards_of))  # all of them
        return "; ".join(f"{reason}: shard {', '.join(names)}" for reason, names in shards_of.items())

    def status(self) -> ExchangeStatus:
        """Return the status of the exchange, all its feeds taken together."""
        feeds = self._by_number
        latencies = [Latency(*each) for feed in feeds for each in feed.traffic.latencies]
        in_feed_ns = sorted(latency.in_feed_ns for latency in latencies)
        on_hop_ns = sorted(latency.on_hop_ns for latency in latencies)
        total_ns = sorted(sum(latency) for latency in latencies)
        statuses = [feed.status for feed in feeds if feed.status is not None]
        return ExchangeStatus(
            exchange=self.name,
            state=self.state,
            since_ns=self.since_ns,
            reason=self.joined_reason(),
            topics=sum(len(feed.routes) for feed in feeds),
            records=self.records,
            records_per_s=self.rate,
            newest_recv_ns=max(self.newest_recv_ns_before, *(feed.traffic.newest_recv_ns for feed in feeds)),
            latency_p50_us=quantile_us(total_ns, 0.5),
            latency_p99_us=quantile_us(total_ns, 0.99),
            feed_p50_us=quantile_us(in_feed_ns, 0.5),
            feed_p99_us=quantile_us(in_feed_ns, 0.99),
            hop_p50_us=quantile_us(on_hop_ns, 0.5),
            hop_p99_us=quantile_us(on_hop_ns, 0.99),
            latency_counts=self.latency_counts,
            latency_sum_us=self.latency_sum_us,
            hop_lost=self.hop_lost_before + sum(feed.hop_lost for feed in feeds),
            malformed=self.malformed,
            unmapped=self.unmapped,
            shards=[feed.row() for feed in feeds] if len(feeds) > 1 else [],
            feed=joined(statuses) if len(feeds) > 1 else next(iter(statuses), None),
        )


def quantile_us(ordered_ns: Sequence[int], quantile: float) -> float | None:
    """Return the nearest-rank quantile in microseconds, None of nothing."""
    if not ordered_ns:
        return None
    return ordered_ns[min(len(ordered_ns) - 1, int(quantile * len(ordered_ns)))] / 1000
