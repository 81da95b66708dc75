"""What processes report of themselves: the JSON of status records, and its one-line summaries.

Written by feeds and the merger, read by `feedhandler status`, the live table and anybody with a JSON
parser. Pure. Times are Unix nanoseconds; the fields are described in `docs/wire.md`.
"""

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from feedhandler.data.book import BOOK
from feedhandler.data.units import NS_PER_MS, NS_PER_S
from feedhandler.data.wanted import Kinds, difference, spelled

# Upper ends of the counted latencies, in microseconds; what is longer is counted after the last.
LATENCY_BOUNDS_US: Final = (25, 50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 25_600, 102_400, 409_600)
PROBLEM_SIZE_SHOWN: Final = 160  # characters of one, in words about a feed; its list has it whole
FEED_HEARTBEAT_NS: Final = 200 * NS_PER_MS  # how often a feed sends a sign of life
NAMED_MAX: Final = 3  # of those in words
LISTED_MAX: Final = 20  # names in a list; the counts beside it are complete


class Phase(enum.Enum):
    BACKOFF = "backoff"
    CONNECTING = "connecting"
    GREETING = "greeting"
    RUNNING = "running"


class KeptFrame(msgspec.Struct):
    """An undecodable message, kept for inspection; head is its beginning, printable."""

    at_ns: int
    reason: str
    size: int
    head: str


class Undecodable(msgspec.Struct):
    """Messages of one kind that could not be decoded: how many, and the newest of them."""

    count: int
    topic: str
    newest: KeptFrame


class ConnectionStatus(msgspec.Struct, kw_only=True):
    """One connection of a feed. Of its frames about our symbols it was first to bring some."""

    market: str = ""
    leg: int = 0
    is_successor: bool = False  # it is to follow that leg's connection, which lives on until then
    phase: str  # backoff, connecting, greeting, running
    attempt: int  # in a row that came to nothing
    next_attempt_ns: int = 0
    last_error: str = ""  # of this connection, or why there is none
    ended: str = ""  # why the one before, or the last attempt, ended
    connects: int = 0
    opened_ns: int = 0
    address: str = ""  # of the exchange, as address:port, while there is a socket
    symbols: int = 0
    topics: int = 0  # channels of all its symbols
    quiet: int = 0  # channels without data on this connection so far,
    silent: int = 0  # and those of them that should have
    silent_topics: list[str] = []
    pending_topics: int = 0
    rejected_topics: dict[str, str] = {}
    is_stale: bool = False
    frames: int = 0
    first: int = 0
    duplicate: int = 0  # another leg was first,
    behind_us: float | None = None  # by so much, on average
    late: int = 0  # older than what is known
    decode_errors: int = 0
    kept_frames: list[KeptFrame] = []

    @property
    def is_starting(self) -> bool:
        """True while its first attempt, or its subscriptions, are under way: nothing is wrong with it."""
        if self.phase == Phase.RUNNING.value:
            return self.pending_topics > 0 and not self.is_stale
        return not self.last_error and not self.is_successor

    @property
    def topics_to_go(self) -> int:
        """How many topics are still to be requested or to be acknowledged."""
        return self.pending_topics if self.phase == Phase.RUNNING.value else self.topics

    def text(self, now_ns: int) -> str:
        """Return what the connection is doing, in words."""
        error = f", last error: {self.last_error}" if self.last_error else ""
        if self.phase == Phase.BACKOFF.value:
            wait_s = max(0.0, (self.next_attempt_ns - now_ns) / NS_PER_S)
            return f"connecting, attempt {self.attempt + 1}, next in {wait_s:.1f} s{error}"
        if self.phase != Phase.RUNNING.value:
            return f"connecting, attempt {self.attempt}, in progress{error}"
        if self.is_stale:
            return "connected, but no data, and there should be some"
        if self.pending_topics:
            return f"subscribing, {self.pending_topics} topics to go"
        if self.silent:
            return f"live, but {self.silent} channels are silent: {', '.join(self.silent_topics[:3])}"
        return f"live, {self.quiet} channels quiet so far" if self.quiet else "live"


class PollStatus(msgspec.Struct, kw_only=True):
    """Values that no channel of a market has, and REST is asked for: fields of the kind contract, and their age.

    The time of an answer is that of its receipt.
    """

    market: str
    fields: list[str]
    every_s: float  # of each symbol, as far as the exchange's limits permit,
    lasts_s: float  # and when a value that is older becomes unknown
    symbols: int  # that are wanted,
    known: int  # those of them that have a value,
    late: int  # and those that have had none for longer than that
    oldest_ns: int = 0  # when the oldest that is in use was received, 0: there is none,
    newest_ns: int = 0  # and the newest
    problem: str = ""  # of the newest answer, or why there is none

    def text(self, now_ns: int) -> str:
        """Return what is wrong with it, in words; "" if all is well."""
        if not self.symbols or not (self.late or self.problem):
            return ""
        age = f", the oldest {max(0, now_ns - self.oldest_ns) / NS_PER_S:.0f} s old" if self.oldest_ns else ""
        what = (
            f"{', '.join(self.fields)} of {self.market} from REST: {self.known} of {self.symbols} known{age}"
        )
        return f"{what}: {self.problem[:PROBLEM_SIZE_SHOWN]}" if self.problem else what


class FeedStatus(msgspec.Struct, kw_only=True):
    """Body of a feed's status message to the merger; part of `ExchangeStatus` for subscribers."""

    exchange: str
    shard: str = "1/1"  # which part of the exchange's symbols: of several, in `ExchangeStatus`, all of them
    pid: int  # 0 of several
    started_ns: int
    state: str = "starting"  # starting, connecting, live, stale, down, idle
    simulated: bool = False
    replay: bool = False  # it receives a recording
    starting: str = ""  # what a feed without connections is doing, in words; "" once it has them
    stopping: bool = False
    connect: bool = True  # False: the operator wants no connection to this exchange
    wanted: Kinds = {}  # canonical symbol → kinds of records
    rejected: dict[str, dict[str, str]] = {}  # those of them that cannot be had: symbol → kind → reason
    renamed: dict[str, str] = {}  # wanted under a name that the exchange has changed since → the new one
    problems: list[str] = []  # of the instrument list, and of instruments that are wanted
    instruments: int = 0
    instruments_as_of_ns: int = 0
    clock_offset_ms: float | None = None  # the exchange's clock less this host's, as its REST host states it,
    clock_uncertainty_ms: float | None = None  # give or take; None until known
    clock_error: str = ""  # why it is not known
    failures: dict[str, int] = {}  # what nobody foresaw, by place and type of the error
    connections: list[ConnectionStatus] = []
    stale: int = 0  # channels that are silent and should not be,
    stale_topics: dict[str, str] = {}  # some of them, with the reason
    lost_trades: dict[str, int] = {}  # by topic, native: how many could be had from nowhere; -1 = not known
    recovered_trades: int = 0  # that no connection brought, and REST did
    polled: list[PollStatus] = []  # what REST is asked for all the time, as no channel has it
    books_valid: int = 0  # books that may be used,
    books_waiting: int = 0  # and those that wait for a base
    invalid: dict[str, int] = {}  # how many topics of a kind are INVALID, or wait for a base;
    invalid_topics: dict[str, int] = {}  # some of them, native, and since when: Unix ns, the longest first
    # of kinds that are wanted: what the exchange leaves out on purpose, in words
    left_out: dict[str, str] = {}
    # Counted since `resync` last rose, which is when the merger joined: it compares, and knows what was lost.
    resync: int = 0
    hop_records: int = 0

    def kinds_of(self, symbol: str) -> list[str]:
        """Return the kinds that are wanted of a symbol, under this name or the one that it had."""
        names = [symbol, *(old for old, new in self.renamed.items() if new == symbol)]
        return [kind for name in names for kind in self.wanted.get(name, ())]

    def text(self, now_ns: int) -> str:
        """Return what the feed is doing, in words; of several connections, the worst."""
        if self.stopping:
            return "stopped"
        if not self.connections:
            return self.starting or self._idle_text()
        parts = self._connection_texts(now_ns)
        if self.starting:
            parts.append(self.starting)
        if self.books_waiting:
            waiting = f"{self.books_waiting} wait for a base{self._invalid_text(BOOK.name, now_ns)}"
            parts.append(f"books: {self.books_valid} valid, {waiting}")
        for kind, count in self.invalid.items():
            if kind != BOOK.name:
                parts.append(f"{kind}: {count} INVALID{self._invalid_text(kind, now_ns)}")
        if self.stale:
            first = ", ".join(f"{topic} ({reason})" for topic, reason in list(self.stale_topics.items())[:2])
            parts.append(f"stale: {first}" + (f" and {self.stale - 2} more" if self.stale > 2 else ""))
        refused = [spelled(symbol, kinds) for symbol, kinds in self.rejected.items()]
        if rejected := [*refused, *(topic for c in self.connections for topic in c.rejected_topics)]:
            parts.append(f"rejected: {', '.join(rejected[:3])}" + (" …" if len(rejected) > 3 else ""))
        if self.lost_trades:
            parts.append(f"trades lost: {self._lost_text()}")
        parts += filter(None, (each.text(now_ns) for each in self.polled))
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            parts.append(f"instrument list: {self.problems[0][:PROBLEM_SIZE_SHOWN]}{more}")
        return "; ".join(parts)

    def _invalid_text(self, kind: str, now_ns: int) -> str:
        """Return the symbols that have been INVALID for the longest, and for how long."""
        found = [
            (t.split(".", 2)[-1], ns) for t, ns in self.invalid_topics.items() if t.startswith(f"{kind}.")
        ]
        texts = [f"{symbol} for {max(0, now_ns - ns) / NS_PER_S:.0f} s" for symbol, ns in found[:NAMED_MAX]]
        more = self.invalid.get(kind, 0) - len(texts)
        return f" ({', '.join(texts)}{f' and {more} more' if more > 0 else ''})" if texts else ""

    def _lost_text(self) -> str:
        """Return how many trades nobody brought, by topic; those of which it is not known go first."""
        lost = sorted(self.lost_trades.items(), key=lambda each: (each[1] >= 0, -each[1]))
        texts = [f"{count if count >= 0 else 'some'} of {topic}" for topic, count in lost[:2]]
        return ", ".join(texts) + (f" and of {len(lost) - 2} more" if len(lost) > 2 else "")

    def _idle_text(self) -> str:
        if not self.connect:
            return f"disconnected by order: `feedhandler connect {self.exchange}` ends that"
        if self.wanted:
            return "nothing to do: every wanted symbol was rejected"
        part = "" if self.shard == "1/1" else f" in shard {self.shard}"
        return f"nothing to do: no symbol is wanted{part}"

    def _connection_texts(self, now_ns: int) -> list[str]:
        """Return how far several connections have come that start, and the worst of the others."""
        is_counted = len(self.connections) > 1
        others = [c.text(now_ns) for c in self.connections if not (is_counted and c.is_starting)]
        parts = [self._progress()] if len(others) < len(self.connections) else []
        others = [text for text in others if text != "live"]
        if others:
            more = f" (and {len(others) - 1} more of {len(self.connections)} connections)"
            parts.append(others[0] + (more if len(others) > 1 else ""))
        return parts or ["live"]

    def _progress(self) -> str:
        lasting = [c for c in self.connections if not c.is_successor]
        to_go, count = sum(c.topics_to_go for c in lasting), sum(c.topics for c in lasting)
        share = f", {100 * (count - to_go) // count} % done" if count >= to_go > 0 else ""
        return f"subscribing, {to_go:,} of {count:,} topics to go{share}"


def joined(statuses: Sequence[FeedStatus]) -> FeedStatus | None:
    """Return one status of an exchange's feeds, each with a part of its symbols; None of none."""
    if not statuses:
        return None
    newest = max(statuses, key=lambda status: status.instruments_as_of_ns)
    starting = [f"shard {s.shard}: {s.starting}" for s in statuses if s.starting]
    return msgspec.structs.replace(
        newest,
        shard="1/1",
        pid=0,
        started_ns=min(status.started_ns for status in statuses),
        state=worst(status.state for status in statuses),
        simulated=any(status.simulated for status in statuses),
        replay=any(status.replay for status in statuses),
        starting="; ".join(starting[:3]) + (" …" if len(starting) > 3 else ""),
        stopping=all(status.stopping for status in statuses),
        connect=any(status.connect for status in statuses),
        wanted={symbol: kinds for status in statuses for symbol, kinds in status.wanted.items()},
        rejected={symbol: kinds for status in statuses for symbol, kinds in status.rejected.items()},
        renamed={symbol: name for status in statuses for symbol, name in status.renamed.items()},
        failures=dict(sum((Counter(status.failures) for status in statuses), Counter[str]())),
        connections=[connection for status in statuses for connection in status.connections],
        stale=sum(status.stale for status in statuses),
        stale_topics={topic: text for status in statuses for topic, text in status.stale_topics.items()},
        lost_trades={topic: count for status in statuses for topic, count in status.lost_trades.items()},
        recovered_trades=sum(status.recovered_trades for status in statuses),
        polled=_joined_polls([each for status in statuses for each in status.polled]),
        books_valid=sum(status.books_valid for status in statuses),
        books_waiting=sum(status.books_waiting for status in statuses),
        invalid=dict(sum((Counter(status.invalid) for status in statuses), Counter[str]())),
        invalid_topics=dict(
            sorted(
                (each for status in statuses for each in status.invalid_topics.items()), key=lambda t: t[1]
            )
        ),
        left_out={kind: text for status in statuses for kind, text in status.left_out.items()},
        resync=sum(status.resync for status in statuses),
        hop_records=sum(status.hop_records for status in statuses),
    )


def _joined_polls(polls: Sequence[PollStatus]) -> list[PollStatus]:
    """Return one status of what several feeds poll, each for its symbols."""
    found: dict[tuple[str, ...], PollStatus] = {}
    for each in polls:
        key = each.market, *each.fields
        one = found.setdefault(key, each)
        if one is each:
            continue
        times = [time_ns for time_ns in (one.oldest_ns, each.oldest_ns) if time_ns]
        found[key] = msgspec.structs.replace(
            one,
            symbols=one.symbols + each.symbols,
            known=one.known + each.known,
            late=one.late + each.late,
            oldest_ns=min(times, default=0),
            newest_ns=max(one.newest_ns, each.newest_ns),
            problem=one.problem or each.problem,
        )
    return list(found.values())


# A feed that has nothing to do is no fault of the exchange's.
WORST_FIRST: Final = ("down", "absent", "starting", "connecting", "stale", "live", "idle")


def worst(states: Iterable[str]) -> str:
    """Return the worst of some states; one that is not known is the worst."""
    return min(states, key=lambda state: WORST_FIRST.index(state) if state in WORST_FIRST else -1)


class ShardStatus(msgspec.Struct, kw_only=True):
    """One feed process of several, as the merger sees it."""

    shard: str
    pid: int  # 0: no status has come yet
    state: str
    reason: str = ""
    topics: int = 0
    records_per_s: float = 0.0


class ExchangeStatus(msgspec.Struct, kw_only=True):
    """Body of a status record: one exchange as the merger sees it."""

    exchange: str
    state: str  # absent, starting, connecting, live, stale, down, idle; the worst of its shards
    since_ns: int
    reason: str = ""  # why it is absent or down
    topics: int = 0
    records: int = 0
    records_per_s: float = 0.0
    newest_recv_ns: int = 0
    latency_p50_us: float | None = None  # tick to publish, of the last second; None without data
    latency_p99_us: float | None = None
    feed_p50_us: float | None = None  # the same, up to the feed's send,
    feed_p99_us: float | None = None
    hop_p50_us: float | None = None  # and from there on
    hop_p99_us: float | None = None
    # Of this session's sampled records: how many took so long, by `LATENCY_BOUNDS_US`, and how long all took.
    latency_counts: list[int] = []
    latency_sum_us: float = 0.0
    hop_lost: int = 0  # records that the feed sent and the merger did not get
    malformed: int = 0
    unmapped: int = 0  # records whose native symbol is in no instrument list
    shards: list[ShardStatus] = []  # none if one process has it all
    feed: FeedStatus | None = None  # of several, their statuses together

    @property
    def symbols(self) -> int:
        """How many symbols are wanted and to be had; of those topics some may still be silent."""
        if self.feed is None:
            return self.topics
        return len(self._to_be_had(self.feed))

    @property
    def kinds(self) -> dict[str, int]:
        """Of how many symbols each kind is wanted and to be had; none where that is not known."""
        if self.feed is None:
            return {}
        return dict(Counter(kind for kinds in self._to_be_had(self.feed).values() for kind in kinds))

    def _to_be_had(self, feed: FeedStatus) -> Kinds:
        return difference(feed.wanted, {symbol: list(kinds) for symbol, kinds in feed.rejected.items()})

    def stated(self, now_ns: int) -> str:
        """Return the state, and what the exchange is doing, where that does not begin with the same word."""
        text = self.text(now_ns)
        return text if text.startswith(self.state) else f"{self.state}: {text}"

    def text(self, now_ns: int) -> str:
        """Return what the exchange is doing, in words."""
        if self.reason and self.shards and self.feed:
            return f"{self.reason}; the others: {self.feed.text(now_ns)}"
        if self.reason:
            return self.reason
        return self.feed.text(now_ns) if self.feed else self.state


class RelayStatus(msgspec.Struct, kw_only=True):
    """What the relay reports of itself, in a file, since it has no subscribers: for the gateway's metrics.

    Counts are since it started. delays is how often one with too many requests had to wait, refused connections
    that were one too many; strangers those from other hosts that ended in their handshake.
    """

    pid: int
    as_of_ns: int
    requests: int = 0
    delays: int = 0
    refused: int = 0
    subscribers: int = 0  # of other hosts, that are connected
    strangers: int = 0
    failures: int = 0  # that nobody foresaw; the log has the first of each kind
    queues_bytes: int = 0  # as in the merger's heartbeat
    queues_bytes_max: int = 0
    queues_cut: int = 0
    queues_closed: int = 0
    books: int = 0  # that it keeps
    books_valid: int = 0


RECORDER_SILENCE_NS: Final = 10 * NS_PER_S  # it writes its status every second


class RecordedFeed(msgspec.Struct, kw_only=True):
    """What the recorder has of one feed; counts are since it started. Sizes are in bytes, times Unix time."""

    is_connected: bool = False
    received: int = 0  # frames
    items_size: int = 0
    stored_size: int = 0
    segments: int = 0
    gaps: int = 0
    lost: int = 0  # items, as gaps tell
    waiting_size: int = 0
    newest_ns: int = 0
    segment: str = ""  # that is being written


class RecorderStatus(msgspec.Struct, kw_only=True):
    """What the recorder reports of itself, in a file."""

    pid: int
    as_of_ns: int
    directory: str
    stopped: str = ""  # why nothing is recorded; "": it is
    free_size: int = 0  # of the file system
    min_free_size: int = 0
    size: int = 0  # of all recordings there
    feeds: dict[str, RecordedFeed] = {}
    failures: int = 0  # that nobody foresaw; the log has the first of each kind

    def trouble(self, now_ns: int) -> str:
        """Return why nothing is recorded, "" if it is."""
        if abs(now_ns - self.as_of_ns) > RECORDER_SILENCE_NS:
            return "has not said for 10 s what it does: is its disk slow, or away?"
        return f"nothing is recorded: {self.stopped}" if self.stopped else ""


class Heartbeat(msgspec.Struct, kw_only=True):
    """Body of the merger's heartbeat record."""

    pid: int
    started_ns: int
    topics: int
    records: int
    records_per_s: float
    exchanges: dict[str, str]  # exchange → state
    queues_bytes: int = 0  # room that queues of subscribers have taken, of all that there is,
    queues_bytes_max: int = 0
    queues_cut: int = 0  # and how many were cut, or ended with their connections, because there was no more
    queues_closed: int = 0
