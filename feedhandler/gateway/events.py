"""What happened in the last hour: how one status differs from the one before. Pure: times come in.

A condition that lasts is one event when it begins and one when it ends; what is counted (lost records, frames that
cannot be decoded) is one event for each minute in which there were some.
"""

import collections
from collections.abc import Iterable
from typing import Final

import msgspec

from feedhandler.data.processes import WELL
from feedhandler.data.status import ConnectionStatus, ExchangeStatus
from feedhandler.data.units import NS_PER_S

KEPT_NS: Final = 3600 * NS_PER_S
EVENTS_MAX: Final = 500
TOGETHER_NS: Final = 60 * NS_PER_S  # what is counted within so long is one event
NAMED_MAX: Final = 3  # channels in a text
BEGINNING: Final = ("absent", "starting", "connecting")  # of one that was not live before, these are no fault


class Event(msgspec.Struct, kw_only=True):
    """exchange: "" where it concerns all. kind: state, connection, stale, gap, undecodable, process.

    is_bad: it is worse than before; else it is an end of something bad, or neither.
    """

    at_ns: int
    exchange: str
    kind: str
    is_bad: bool
    text: str


class EventLog:
    """Compares statuses as they come. count grows with each event, and each time that one grows."""

    def __init__(self) -> None:
        self.count = 0
        self._events: collections.deque[Event] = collections.deque(maxlen=EVENTS_MAX)
        self._statuses: dict[str, ExchangeStatus] = {}
        # the last of its exchange and kind; how many
        self._counted: dict[tuple[str, str], tuple[Event, int]] = {}
        self._were_live: set[str] = set()
        self._is_merger_heard = False
        self._session_ns = 0

    def newest_first(self, now_ns: int) -> list[Event]:
        """Return the events of the last hour."""
        return [event for event in reversed(self._events) if now_ns - event.at_ns <= KEPT_NS]

    def on_merger(self, started_ns: int, now_ns: int) -> None:
        """The merger's heartbeats come, and it started then; 0: none come."""
        was_heard, self._is_merger_heard = self._is_merger_heard, started_ns != 0
        if was_heard and not started_ns:
            self._add(now_ns, "", "process", True, "the merger is silent: nothing is known of any exchange")
        elif started_ns and self._session_ns not in (0, started_ns):
            self._add(now_ns, "", "process", True, "the merger was started anew: sequences begin at 1")
            self._statuses.clear()  # it counts from 0
        elif started_ns and self._session_ns and not was_heard:
            self._add(now_ns, "", "process", False, "the merger is back")
        self._session_ns = started_ns or self._session_ns

    def on_status(self, status: ExchangeStatus, now_ns: int) -> None:
        """An exchange's status is new."""
        before = self._statuses.get(status.exchange)
        self._statuses[status.exchange] = status
        if before is None:
            return
        name = status.exchange
        if status.state != before.state:
            self._on_state(before, status, now_ns)
        self._on_count(
            now_ns, name, "gap", status.hop_lost - before.hop_lost, "records lost on the way to the merger"
        )
        old, new = before.feed, status.feed
        if old is None or new is None:
            return
        if (old.pid, old.started_ns) != (new.pid, new.started_ns):
            self._add(now_ns, name, "process", True, "its feed was started anew")
            return  # it counts from 0
        self._on_connections(before, status, now_ns)
        undecodable = [
            sum(connection.decode_errors for connection in feed.connections) for feed in (new, old)
        ]
        self._on_count(
            now_ns, name, "undecodable", undecodable[0] - undecodable[1], "frames could not be decoded"
        )
        began = [topic for topic in new.stale_topics if topic not in old.stale_topics]
        ended = [topic for topic in old.stale_topics if topic not in new.stale_topics]
        if began:
            self._add(now_ns, name, "stale", True, f"stale: {_named(began)}: {new.stale_topics[began[0]]}")
        if ended:
            self._add(now_ns, name, "stale", False, f"current again: {_named(ended)}")

    def _on_state(self, before: ExchangeStatus, status: ExchangeStatus, now_ns: int) -> None:
        is_well = status.state in WELL
        if is_well and before.state not in WELL:
            lasted_s = (status.since_ns - before.since_ns) / NS_PER_S
            again = " again" if status.exchange in self._were_live else ""
            text = f"{status.state}{again}, after {lasted_s:.0f} s {before.state}"
        else:
            text = status.state if is_well else status.stated(now_ns)
        is_bad = not is_well and not (status.state in BEGINNING and before.state in (*BEGINNING, "idle"))
        self._add(now_ns, status.exchange, "state", is_bad, text)
        if before.state == "live":
            self._were_live.add(status.exchange)

    def _on_connections(self, before: ExchangeStatus, status: ExchangeStatus, now_ns: int) -> None:
        assert before.feed is not None, "the caller has looked"
        assert status.feed is not None, "the caller has looked"
        old, new = before.feed.connections, status.feed.connections
        if _reconnects(new) <= _reconnects(old):
            return
        if any(connection.is_successor for connection in (*old, *new)):
            self._add(now_ns, status.exchange, "connection", False, "a connection was renewed, without a gap")
        else:
            # In the same order, but where a connection has come or gone meanwhile.
            pairs = zip(old, new, strict=False)
            error = next((after.ended for c, after in pairs if after.connects > c.connects), "")
            text = "reconnected" + (f" after: {error}" if error else "")
            self._add(now_ns, status.exchange, "connection", False, text)

    def _on_count(self, now_ns: int, exchange: str, kind: str, count: int, what: str) -> None:
        if count <= 0:
            return
        event, total = self._counted.get((exchange, kind), (None, 0))
        if event is None or now_ns - event.at_ns >= TOGETHER_NS:
            event, total = self._add(now_ns, exchange, kind, True, ""), 0
        event.text = f"{total + count:,} {what}"
        self._counted[exchange, kind] = event, total + count
        self.count += 1

    def _add(self, at_ns: int, exchange: str, kind: str, is_bad: bool, text: str) -> Event:
        event = Event(at_ns=at_ns, exchange=exchange, kind=kind, is_bad=is_bad, text=text)
        self._events.append(event)
        self.count += 1
        return event


def _reconnects(connections: Iterable[ConnectionStatus]) -> int:
    return sum(max(0, connection.connects - 1) for connection in connections)


def _named(topics: Iterable[str]) -> str:
    names = list(topics)
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more
