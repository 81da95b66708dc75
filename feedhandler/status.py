"""What processes say about themselves: the JSON of status records, and its one-line summaries.

Written by feeds and the merger, read by `feedhandler status`, the live table and anybody with a JSON
parser. Pure. Times are Unix nanoseconds; the fields are described in `docs/wire.md`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from feedhandler.legs import Legs
from feedhandler.session import KeptFrame, Phase, Session

LISTED_MAX: Final = 20  # names in a list; the counts beside it are complete
NS_PER_S: Final = 1_000_000_000


class ConnectionStatus(msgspec.Struct, kw_only=True):
    """One connection of a feed. Of its frames about our symbols, news are what it was first to say."""

    leg: int = 0
    is_successor: bool = False  # it is to follow that leg's connection, which lives on until then
    phase: str  # backoff, connecting, greeting, running
    attempt: int  # in a row without data
    next_attempt_ns: int = 0
    last_error: str = ""
    connects: int = 0
    opened_ns: int = 0
    symbols: int = 0
    unheard: int = 0  # channels that have not spoken on this connection,
    silent: int = 0  # and those of them that have had their time to
    silent_topics: list[str] = []
    pending_topics: int = 0
    rejected_topics: dict[str, str] = {}
    is_stale: bool = False
    frames: int = 0
    news: int = 0
    repeated: int = 0  # another leg was first,
    behind_us: float | None = None  # by so much, on average
    late: int = 0  # older than what is known
    decode_errors: int = 0
    kept_frames: list[KeptFrame] = []

    def text(self, now_ns: int) -> str:
        """Return what the connection is doing, in words."""
        error = f", last error: {self.last_error}" if self.last_error else ""
        if self.phase == Phase.BACKOFF.value:
            wait_s = max(0.0, (self.next_attempt_ns - now_ns) / NS_PER_S)
            return f"connecting, attempt {self.attempt + 1}, next in {wait_s:.1f} s{error}"
        if self.phase != Phase.RUNNING.value:
            return f"connecting, attempt {self.attempt}, in progress{error}"
        if self.is_stale:
            return "connected, but no data"
        if self.pending_topics:
            return f"subscribing, {self.pending_topics} topics to go"
        if self.silent:
            return f"live, but {self.silent} channels are silent: {', '.join(self.silent_topics[:3])}"
        return f"live, first data of {self.unheard} channels to come" if self.unheard else "live"


def connection_status(session: Session, now_ns: int, now_mono_ns: int) -> ConnectionStatus:
    """Return what a session says of itself; the two clocks are the same moment."""
    line = session.line
    is_running = session.phase is Phase.RUNNING
    silent = session.subscriptions.silent_topics() if is_running else []
    offset = now_ns - now_mono_ns
    return ConnectionStatus(
        leg=session.leg,
        is_successor=bool(session.reason),
        phase=session.phase.value,
        attempt=session.attempts,
        next_attempt_ns=session.deadline_mono_ns + offset if session.phase is Phase.BACKOFF else 0,
        last_error=session.last_error,
        connects=session.connects,
        opened_ns=session.opened_mono_ns + offset if is_running else 0,
        symbols=len(session.subscriptions.states),
        unheard=session.subscriptions.unheard() if is_running else 0,
        silent=len(silent),
        silent_topics=silent[:LISTED_MAX],
        pending_topics=session.subscriptions.pending(),
        rejected_topics=dict(list(session.subscriptions.rejected.items())[:LISTED_MAX]),
        is_stale=session.is_stale,
        frames=session.frames,
        news=line.news,
        repeated=line.repeated,
        behind_us=line.behind_ns / line.repeated / 1000 if line.repeated else None,
        late=line.late,
        decode_errors=session.decode_errors,
        kept_frames=list(session.kept_frames),
    )


class FeedStatus(msgspec.Struct, kw_only=True):
    """Body of a feed's status message to the merger; part of `ExchangeStatus` for subscribers."""

    exchange: str
    pid: int
    started_ns: int
    state: str = "starting"  # starting, connecting, live, stale, down
    simulated: bool = False
    starting: str = ""  # what a feed without connections is doing, in words; "" once it has them
    stopping: bool = False
    wanted: list[str] = []  # canonical
    rejected: dict[str, str] = {}  # canonical symbol → reason
    renamed: dict[str, str] = {}  # wanted under a name that the exchange has changed since → the new one
    problems: list[str] = []  # of the instrument list
    instruments: int = 0
    instruments_as_of_ns: int = 0
    clock_offset_ms: float | None = None  # the exchange's clock less this host's, as its REST host tells it,
    clock_uncertainty_ms: float | None = None  # give or take; None until known
    clock_error: str = ""  # why it could not be asked
    connections: list[ConnectionStatus] = []
    # Counted since `resync` last rose, which is when the merger joined: it compares, and knows what was lost.
    resync: int = 0
    hop_records: int = 0

    def text(self, now_ns: int) -> str:
        """Return what the feed is doing, in words; of several connections, the worst."""
        if self.stopping:
            return "stopped"
        if not self.connections:
            nothing = "every wanted symbol was rejected" if self.wanted else "no symbol is wanted"
            return self.starting or f"nothing to do: {nothing}"
        texts = [c.text(now_ns) for c in self.connections]
        unwell = [text for text in texts if text != "live"]
        text = unwell[0] if unwell else "live"
        if len(unwell) > 1:
            text += f" (and {len(unwell) - 1} more of {len(texts)} connections)"
        if rejected := [*self.rejected, *(topic for c in self.connections for topic in c.rejected_topics)]:
            text += f"; rejected: {', '.join(rejected[:3])}" + (" …" if len(rejected) > 3 else "")
        return text


def feed_state(legs: Sequence[Legs], *, is_starting: bool) -> str:
    """Return a feed's state in one word; cheap, for it is asked five times a second."""
    if not legs:
        return "connecting" if is_starting else "down"
    states = {each.state() for each in legs}
    return next(state for state in ("connecting", "stale", "live") if state in states)


class ExchangeStatus(msgspec.Struct, kw_only=True):
    """Body of a status record: one exchange as the merger sees it."""

    exchange: str
    state: str  # absent, starting, connecting, live, stale, down
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
    hop_lost: int = 0  # records that the feed sent and the merger did not get
    malformed: int = 0
    unmapped: int = 0  # records whose native symbol is in no instrument list
    feed: FeedStatus | None = None

    def text(self, now_ns: int) -> str:
        """Return what the exchange is doing, in words."""
        if self.reason:
            return self.reason
        return self.feed.text(now_ns) if self.feed else self.state


class Heartbeat(msgspec.Struct, kw_only=True):
    """Body of the merger's heartbeat record."""

    pid: int
    started_ns: int
    topics: int
    records: int
    records_per_s: float
    exchanges: dict[str, str]  # exchange → state
