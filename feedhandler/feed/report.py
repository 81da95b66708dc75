"""What a feed reports of its connections: their status, its own in one word, and lines for the log."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from feedhandler.data import wire
from feedhandler.data.book import BOOK
from feedhandler.data.depth import DEPTH
from feedhandler.data.status import LISTED_MAX, ConnectionStatus, FeedStatus, Phase, Undecodable
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.base import Market
from feedhandler.exchanges.state import State
from feedhandler.feed.legs import Legs
from feedhandler.feed.session import Session

COMPLAINS_EVERY_NS: Final = 60 * NS_PER_S
SHOWN_SIZE: Final = 120  # characters of a message, in the log
KINDS: Final = (BOOK.name, DEPTH.name)  # that can be INVALID


def connection_status(session: Session, now_ns: int, now_mono_ns: int, address: str = "") -> ConnectionStatus:
    """Return the status of a session; the two clocks are the same moment, address is its socket's."""
    line = session.line
    is_running = session.phase is Phase.RUNNING
    silent = session.subscriptions.silent_topics() if is_running else []
    offset = now_ns - now_mono_ns
    return ConnectionStatus(
        market=session.market.name,
        leg=session.leg,
        is_successor=bool(session.reason),
        phase=session.phase.value,
        attempt=session.attempts,
        next_attempt_ns=session.deadline_mono_ns + offset if session.phase is Phase.BACKOFF else 0,
        last_error=session.last_error,
        ended=session.ended,
        connects=session.connects,
        opened_ns=session.opened_mono_ns + offset if is_running else 0,
        address=address,
        symbols=session.subscriptions.symbol_count,
        topics=session.subscriptions.topic_count,
        quiet=session.subscriptions.unheard() if is_running else 0,
        silent=len(silent),
        silent_topics=silent[:LISTED_MAX],
        pending_topics=session.subscriptions.pending(),
        rejected_topics=dict(list(session.subscriptions.rejected.items())[:LISTED_MAX]),
        is_stale=session.is_stale,
        frames=session.frames,
        first=line.first,
        duplicate=line.duplicate,
        behind_us=line.behind_ns / line.duplicate / 1000 if line.duplicate else None,
        late=line.late,
        decode_errors=session.decode_errors,
        kept_frames=list(session.kept_frames),
    )


class InvalidTopics:
    """Which topics of depth and books are INVALID, or wait for a base, and since when."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self._markets = markets
        self._changes = -1  # of the markets' symbols, which were these then
        self._states: list[State] = []
        self._since: dict[str, tuple[str, int]] = {}  # by topic: the kind, and when it was first seen so

    def look(self, part: int, parts: int, now_ns: int) -> None:
        """Look at one of so many parts of all topics."""
        changes = sum(market.changes for market in self._markets)
        if changes != self._changes:
            self._changes = changes
            states = [m.states[kind].values() for m in self._markets for kind in KINDS if kind in m.states]
            self._states = [state for each in states for state in each]
            topics = {state.topic for state in self._states}
            self._since = {topic: since for topic, since in self._since.items() if topic in topics}
        for state in self._states[part::parts]:
            if state.flags & wire.INVALID:
                self._since.setdefault(state.topic, (state.kind, now_ns))
            elif self._since:
                self._since.pop(state.topic, None)

    def report(self, status: FeedStatus) -> None:
        """Write into a status what there is."""
        status.invalid = dict(Counter(kind for kind, _ in self._since.values()))
        longest = sorted(self._since.items(), key=lambda each: each[1][1])[:LISTED_MAX]
        status.invalid_topics = {topic: since_ns for topic, (_, since_ns) in longest}


def left_out(markets: Iterable[Market]) -> dict[str, str]:
    """Return what the exchange leaves out on purpose of the kinds that are wanted there."""
    texts: dict[str, dict[str, None]] = {}
    for market in markets:
        for kind, offered in market.capabilities.items():
            if offered.left_out and market.states.get(kind):
                texts.setdefault(kind, {})[offered.left_out] = None
    return {kind: "; ".join(found) for kind, found in texts.items()}


class Complaints:
    """Log lines about messages that cannot be decoded: one a kind, at most once in `COMPLAINS_EVERY_NS`."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, int]] = {}  # kind → when, and how many there were by then

    def due(self, sessions: Iterable[Session], now_ns: int) -> list[str]:
        """Return what is to be logged now."""
        counts: dict[str, int] = {}
        newest: dict[str, Undecodable] = {}
        for session in sessions:
            for kind, each in session.undecodable.items():
                counts[kind] = counts.get(kind, 0) + each.count
                if kind not in newest or each.newest.at_ns > newest[kind].newest.at_ns:
                    newest[kind] = each
        texts = []
        for kind, count in counts.items():
            at_ns, before = self._told.get(kind, (0, 0))
            if count == before or abs(now_ns - at_ns) < COMPLAINS_EVERY_NS:
                continue
            self._told[kind] = (now_ns, count)
            each, what = newest[kind], newest[kind].topic or "no topic that is named"
            texts.append(
                f"{count - before if count > before else count} messages cannot be decoded, the newest of {what}:"
                f" {each.newest.reason}; it begins {each.newest.head[:SHOWN_SIZE]!r}"
            )
        return texts


def feed_state(legs: Sequence[Legs], *, is_starting: bool, is_idle: bool) -> str:
    """Return a feed's state in one word; cheap, for it is called five times a second."""
    if not legs:
        return "connecting" if is_starting else "idle" if is_idle else "down"
    states = {each.state() for each in legs}
    return next(state for state in ("connecting", "stale", "live") if state in states)
