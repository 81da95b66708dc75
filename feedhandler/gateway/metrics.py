"""/metrics: what all processes report of themselves, for Prometheus.

Feeds and merger have no listeners of their own: what they count is in the status records, and is handed on here as
it is. Nothing is counted per symbol, so the number of series does not grow with what is subscribed to. The metrics
are described in docs/operations.md.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from feedhandler import __version__
from feedhandler.accounts.adapter import Trouble
from feedhandler.data import wire
from feedhandler.data.processes import ProcessStatus
from feedhandler.data.status import (
    LATENCY_BOUNDS_US,
    WORST_FIRST,
    ConnectionStatus,
    ExchangeStatus,
    Heartbeat,
    RecorderStatus,
    RelayStatus,
)
from feedhandler.data.units import NS_PER_S
from feedhandler.gateway.app import Parts
from feedhandler.gateway.market_data import MarketData
from feedhandler.gateway.screens import Screens
from feedhandler.runtime.host import look
from feedhandler.transport.files import read_recorder_status, read_relay_status

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
US_PER_S: Final = 1_000_000
MS_PER_S: Final = 1_000
RELAY_SILENCE_NS: Final = 5 * NS_PER_S  # it writes its status every second
ACCOUNT_STATES: Final = ("off", "syncing", "live", "failed")
STREAM_STATES: Final = ("off", "connecting", "live")
DURATIONS_S: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)


class Metrics(Collector):
    """Everything, gathered at each request."""

    def __init__(self, parts: Parts, screens: Screens) -> None:
        self._parts = parts
        self._screens = screens
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "feedhandler_http_requests",
            "Requests answered by the gateway.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._durations = Histogram(
            "feedhandler_http_request_seconds",
            "How long the gateway took to answer.",
            ("route",),
            buckets=DURATIONS_S,
            registry=self.registry,
        )
        self.registry.register(self)

    def middleware(self) -> Middleware:
        """Return what counts requests, by the route that they match."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            started, status = time.perf_counter(), 500
            try:
                answer = await handler(request)
                status = answer.status
                return answer
            except web.HTTPException as exc:
                status = exc.status
                raise
            finally:
                resource = request.match_info.route.resource
                route = resource.canonical if resource is not None else "none"
                # A method is whatever a client sends: others than the usual are one.
                method = request.method if request.method in ("GET", "POST", "PUT", "DELETE") else "other"
                self._requests.labels(method, route, f"{status // 100}xx").inc()
                if route != "/ws":  # it lasts as long as the page is open
                    self._durations.labels(route).observe(time.perf_counter() - started)

        return count

    def route(self) -> web.RouteDef:
        """Return the routes."""

        async def metrics(request: web.Request) -> web.Response:
            return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE})

        return web.get("/metrics", metrics)

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        yield from self._merger()
        yield from _relay(read_relay_status(self._parts.config.run_dir))
        if self._parts.config.recorder is not None:
            yield from _recorder(read_recorder_status(self._parts.config.run_dir))
        yield from _processes(look(self._parts.config))
        yield from self._simulated()
        # The last numbers of a merger that is silent are not true any more: its series are absent, and `up` is 0.
        statuses = self._parts.market_data.statuses if self._parts.market_data.is_merger_up else {}
        rows = {name: statuses[name] for name in self._parts.config.exchanges if name in statuses}
        yield from _exchanges(rows, time.time_ns())
        yield from _kinds(rows, self._parts.market_data)
        yield from _connections(rows)
        yield from self._accounts()
        yield from self._gateway()

    def _merger(self) -> Iterator[Metric]:
        market_data = self._parts.market_data
        yield _gauge("merger_up", "1 while the merger's heartbeats come.", float(market_data.is_merger_up))
        info = GaugeMetricFamily("feedhandler_build_info", "1, with the version.", labels=("version",))
        info.add_metric((__version__,), 1.0)
        yield info
        if (beat := market_data.heartbeat) is not None and market_data.is_merger_up:
            yield _counter("merger_records", "Records that the merger published.", beat.records)
            yield _gauge("merger_topics", "Topics that it has.", beat.topics)
            yield from _queues("merger", beat)
            yield _gauge(
                "merger_start_time_seconds", "When it started, Unix time.", beat.started_ns / NS_PER_S
            )

    def _simulated(self) -> Iterator[Metric]:
        """Also while the merger is silent: an alarm must show whether it is about real money."""
        family = _family("exchange_simulated", "1 if its data are of no real exchange.", "exchange")
        for name, exchange in self._parts.config.exchanges.items():
            family.add_metric((name,), float(exchange.simulated))
        yield family

    def _accounts(self) -> Iterator[Metric]:
        statuses = self._parts.accounts.statuses()
        state = _family("account_state", "1 for the state that an account is in.", "exchange", "state")
        stream = _family(
            "account_stream_state", "1 for the state of its private stream.", "exchange", "state"
        )
        synced = _family("account_synced_time_seconds", "When its balances last came over REST.", "exchange")
        syncs = _counters("account_syncs", "Looks at an account that succeeded.", "exchange")
        failures = _counters("account_failures", "Looks that failed, by reason.", "exchange", "reason")
        drifts = _counters("account_drifts", "Contradictions of REST and private stream.", "exchange")
        connects = _counters("account_stream_connects", "Connections of private streams.", "exchange")
        undecodable = _counters("account_undecodable", "Messages of them not understood.", "exchange")
        for name, status in statuses.items():
            for each in ACCOUNT_STATES:
                state.add_metric((name, each), float(status.state == each))
            for each in STREAM_STATES:
                stream.add_metric((name, each), float(status.stream == each))
            synced.add_metric((name,), status.as_of_ns / NS_PER_S)
            syncs.add_metric((name,), status.syncs)
            for trouble in Trouble:
                failures.add_metric((name, trouble.value), status.failures.get(trouble.value, 0))
            drifts.add_metric((name,), status.drifts)
            connects.add_metric((name,), status.stream_connects)
            undecodable.add_metric((name,), status.undecodable)
        yield from (state, stream, synced, syncs, failures, drifts, connects, undecodable)

    def _gateway(self) -> Iterator[Metric]:
        screens, follower = self._screens, self._parts.market_data.follower
        yield _gauge("websocket_clients", "Browsers that are connected.", len(screens.clients))
        yield _counter("websocket_updates", "Updates sent to them.", screens.updates)
        yield _counter(
            "websocket_passed_over",
            "Times that one was not sent to, since it did not read.",
            screens.passed_over,
        )
        yield _counter(
            "websocket_trades_passed_over",
            "Trades that one was not sent, since more came than are kept.",
            screens.trades_passed_over,
        )
        yield _counter("websocket_cut_off", "Those that did not for too long.", screens.cut_off)
        yield _counter("websocket_refused", "Those refused, or closed for what they did.", screens.refused)
        lost = sum(loss.lost for loss in follower.losses.values())
        yield _counter("gateway_lost_records", "Records that the gateway itself was too slow for.", lost)
        yield _gauge("gateway_topics", "Tickers that the gateway has.", len(screens.newest))


def _queues(process: str, of: Heartbeat | RelayStatus) -> Iterator[Metric]:
    yield _gauge(f"{process}_queues_bytes", "Room that queues have taken.", of.queues_bytes)
    yield _gauge(f"{process}_queues_bytes_max", "The limit for all of them.", of.queues_bytes_max)
    yield _counter(f"{process}_queues_cut", "Queues that were cut at that limit.", of.queues_cut)
    yield _counter(f"{process}_queues_closed", "Connections that were ended at it.", of.queues_closed)


def _relay(status: RelayStatus | None) -> Iterator[Metric]:
    is_up = status is not None and abs(time.time_ns() - status.as_of_ns) < RELAY_SILENCE_NS
    yield _gauge("relay_up", "1 while the relay writes its status.", float(is_up))
    if status is None or not is_up:
        return
    yield _counter("relay_requests", "Requests that the relay answered.", status.requests)
    yield _counter("relay_delays", "Times that one with too many requests had to wait.", status.delays)
    yield _counter("relay_refused", "Connections that were one too many.", status.refused)
    yield _gauge("relay_subscribers", "Connections of subscribers of other hosts.", status.subscribers)
    yield _gauge("relay_books", "Books that the relay keeps for those who join.", status.books)
    yield _gauge("relay_books_valid", "Those of them that it can give.", status.books_valid)
    yield from _queues("relay", status)
    yield _counter(
        "relay_strangers", "Connections of other hosts that ended in their handshake.", status.strangers
    )


def _recorder(status: RecorderStatus | None) -> Iterator[Metric]:
    if status is None:
        return  # it does not run, which `process_up` tells
    is_recording = not status.trouble(time.time_ns())
    yield _gauge("recorder_recording", "1 while the recorder writes what feeds offer.", float(is_recording))
    yield _gauge("recorder_free_bytes", "Room on its file system.", status.free_size)
    yield _gauge("recorder_min_free_bytes", "With less than this it stops.", status.min_free_size)
    yield _gauge("recorder_size_bytes", "Size of all recordings there.", status.size)
    connected = _family("recorder_connected", "1 while it reads a feed.", "feed")
    frames = _counters("recorder_frames", "Frames that were recorded.", "feed")
    raw = _counters("recorder_raw_bytes", "Bytes of what was recorded.", "feed")
    stored = _counters("recorder_stored_bytes", "Bytes that it has in files.", "feed")
    lost = _counters("recorder_lost", "Items that feeds could not hand over.", "feed")
    for name, feed in status.feeds.items():
        connected.add_metric((name,), float(feed.is_connected))
        frames.add_metric((name,), feed.received)
        raw.add_metric((name,), feed.items_size)
        stored.add_metric((name,), feed.stored_size)
        lost.add_metric((name,), feed.lost)
    yield from (connected, frames, raw, stored, lost)


def _processes(processes: Iterable[ProcessStatus]) -> Iterator[Metric]:
    up = _family("process_up", "1 while a process of this host runs, and stays up.", "process")
    restarts = _counters("process_restarts", "How often its supervisor has started it again.", "process")
    started = _family("process_start_time_seconds", "When it started, Unix time.", "process")
    cpu = _counters("process_cpu_seconds", "Time of processors that it has used.", "process")
    memory = _family("process_resident_memory_bytes", "Memory that it has in use.", "process")
    files = _family("process_open_fds", "Files and sockets that it has open.", "process")
    for each in processes:
        labels = (each.process,)
        up.add_metric(labels, float(each.state == "up"))
        restarts.add_metric(labels, each.restarts)
        if not each.started_ns:
            continue
        started.add_metric(labels, each.started_ns / NS_PER_S)
        cpu.add_metric(labels, each.cpu_s)
        memory.add_metric(labels, each.resident_bytes)
        if each.open_files is not None:
            files.add_metric(labels, each.open_files)
    yield from (up, restarts, started, cpu, memory, files)


def _exchanges(rows: dict[str, ExchangeStatus], now_ns: int) -> Iterator[Metric]:
    state = _family("exchange_state", "1 for the state that an exchange is in.", "exchange", "state")
    wanted = _family("exchange_connect", "1 if it is to be connected to.", "exchange")
    records = _counters("exchange_records", "Records of an exchange.", "exchange")
    topics = _family("exchange_topics", "Topics of an exchange.", "exchange")
    newest = _family("exchange_newest_time_seconds", "When its newest record was received.", "exchange")
    hop_lost = _counters(
        "exchange_hop_lost", "Records that a feed sent and the merger did not get.", "exchange"
    )
    malformed = _counters("exchange_malformed", "Messages of feeds that were no records.", "exchange")
    unmapped = _counters("exchange_unmapped", "Records without a canonical symbol.", "exchange")
    stale = _family("exchange_stale_channels", "Channels that are silent and should not be.", "exchange")
    rejected = _family("exchange_rejected_symbols", "Wanted symbols that cannot be had.", "exchange")
    offset = _family("exchange_clock_offset_seconds", "How far its clock is ahead of ours.", "exchange")
    lost = _counters("trades_lost", "Trades that could be had from nowhere.", "exchange")
    unknown = _family("trades_lost_unknown_topics", "Topics of which as many as is not known.", "exchange")
    recovered = _counters("trades_recovered", "Trades that REST gave, and no connection.", "exchange")
    invalid = _family(
        "exchange_invalid_topics",
        "Topics that are INVALID at the feed, or wait for a base.",
        "exchange",
        "kind",
    )
    since = _family(
        "exchange_invalid_seconds", "For how long the longest of all has been so, 0 without any.", "exchange"
    )
    late = _family(
        "exchange_polled_late",
        "Contracts without a value that REST alone has, for longer than one counts.",
        "exchange",
        "market",
        "field",
    )
    polled = _family(
        "exchange_polled_oldest_time_seconds",
        "When the oldest of such values that is in use was received.",
        "exchange",
        "market",
        "field",
    )
    latency = HistogramMetricFamily(
        "feedhandler_tick_to_publish_seconds",
        "From a frame's receipt to its record's publication, sampled.",
        labels=("exchange",),
    )
    for name, status in rows.items():
        for word in WORST_FIRST:
            state.add_metric((name, word), float(status.state == word))
        records.add_metric((name,), status.records)
        topics.add_metric((name,), status.topics)
        newest.add_metric((name,), status.newest_recv_ns / NS_PER_S)
        hop_lost.add_metric((name,), status.hop_lost)
        malformed.add_metric((name,), status.malformed)
        unmapped.add_metric((name,), status.unmapped)
        if len(status.latency_counts) == len(LATENCY_BOUNDS_US) + 1:
            latency.add_metric((name,), _buckets(status.latency_counts), status.latency_sum_us / US_PER_S)
        if status.feed is None:
            continue
        wanted.add_metric((name,), float(status.feed.connect))
        stale.add_metric((name,), status.feed.stale)
        rejected.add_metric((name,), len(status.feed.rejected))
        counts = status.feed.lost_trades.values()
        lost.add_metric((name,), sum(max(0, count) for count in counts))
        unknown.add_metric((name,), sum(count < 0 for count in counts))
        recovered.add_metric((name,), status.feed.recovered_trades)
        for kind, count in status.feed.invalid.items():
            invalid.add_metric((name, kind), count)
        oldest_ns = min(status.feed.invalid_topics.values(), default=now_ns)
        since.add_metric((name,), max(0, now_ns - oldest_ns) / NS_PER_S)
        for each in status.feed.polled:
            for field in each.fields if each.symbols else ():
                late.add_metric((name, each.market, field), each.late)
                polled.add_metric((name, each.market, field), each.oldest_ns / NS_PER_S)
        if status.feed.clock_offset_ms is not None:
            offset.add_metric((name,), status.feed.clock_offset_ms / MS_PER_S)
    yield from (
        state,
        wanted,
        records,
        topics,
        newest,
        hop_lost,
        malformed,
        unmapped,
        stale,
        rejected,
        offset,
        lost,
        unknown,
        recovered,
        invalid,
        since,
        late,
        polled,
    )
    yield latency


def _kinds(rows: Iterable[str], market_data: MarketData) -> Iterator[Metric]:
    """By kind, from the sequences of the stream: the newest number of a topic is how many records it has had."""
    records = _counters("kind_records", "Records of a kind, in this session.", "exchange", "kind")
    topics = _family("kind_topics", "Topics of a kind.", "exchange", "kind")
    invalid = _family("kind_invalid_topics", "Topics of a kind that are INVALID now.", "exchange", "kind")
    counts: dict[tuple[str, str], list[int]] = {}
    for topic, loss in market_data.follower.losses.items():
        kind, exchange, *symbol = topic.split(".", 2)
        if symbol and exchange in rows and loss.session == market_data.session:
            count = counts.setdefault((exchange, kind), [0, 0, 0])
            count[0] += loss.sequence
            count[1] += 1
            count[2] += bool(market_data.flags_of(topic) & wire.INVALID)
    for labels, count in counts.items():
        records.add_metric(labels, count[0])
        topics.add_metric(labels, count[1])
        invalid.add_metric(labels, count[2])
    yield from (records, topics, invalid)


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    """Return counts as Prometheus has them: of all up to each bound."""
    bounds = [*(f"{bound / US_PER_S:g}" for bound in LATENCY_BOUNDS_US), "+Inf"]
    total, found = 0, []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        found.append((bound, float(total)))
    return found


# Of a leg's connections that are there: one that is renewed counts anew, so these are no counters to Prometheus.
LEG_FIGURES: Final[dict[str, tuple[str, Callable[[ConnectionStatus], float]]]] = {
    "connections": ("Connections that are up.", lambda c: c.phase == "running"),
    "stale_connections": ("Those of them that bring no data.", lambda c: c.is_stale),
    "connects": ("How often they were made.", lambda c: c.connects),
    "frames": ("Frames that they brought.", lambda c: c.frames),
    "first": ("Updates that they were first to bring.", lambda c: c.first),
    "duplicate": ("Updates that another was first to bring.", lambda c: c.duplicate),
    "late": ("Updates older than what was known.", lambda c: c.late),
    "undecodable": ("Frames that could not be decoded.", lambda c: c.decode_errors),
}


def _connections(rows: dict[str, ExchangeStatus]) -> Iterator[Metric]:
    families = {
        name: _family(f"leg_{name}", text, "exchange", "leg") for name, (text, _) in LEG_FIGURES.items()
    }
    behind = _family(
        "leg_behind_seconds", "By how much a leg is behind others, on average.", "exchange", "leg"
    )
    for name, status in rows.items():
        legs: dict[int, list[ConnectionStatus]] = {}
        for connection in status.feed.connections if status.feed else ():
            legs.setdefault(connection.leg, []).append(connection)
        for leg, connections in sorted(legs.items()):
            labels = (name, str(leg))
            for figure, (_, value) in LEG_FIGURES.items():
                families[figure].add_metric(labels, float(sum(map(value, connections))))
            if late := [c.behind_us for c in connections if c.behind_us is not None]:
                behind.add_metric(labels, max(late) / US_PER_S)
    yield from families.values()
    yield behind


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"feedhandler_{name}", text, labels=labels)


def _counters(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"feedhandler_{name}", text, labels=labels)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"feedhandler_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"feedhandler_{name}", text, value=value)
