"""Why nothing has come: logged once, when a subscriber has waited for it; the subscriber goes on.

A topic that nothing begins with is no error, since it may begin tomorrow. So who mistypes one waits for ever.
"""

import difflib
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from feedhandler.data import wire
from feedhandler.data.errors import UNDECODABLE
from feedhandler.data.status import ExchangeStatus, Heartbeat
from feedhandler.data.wanted import DEFAULT_KINDS
from feedhandler.transport.follower import Follower, Record
from feedhandler.transport.links import Downlink

LOGS_AFTER_S: Final = 3.0  # without a record; a merger sends what it has within milliseconds
STATUSES_S: Final = 1.0  # for which the statuses are waited, which make the reason a better one
WAITS_S: Final = 1.0  # who waits looks more often
NAMED_MAX: Final = 5  # topics in a message
IPC: Final = "ipc://"

Body = TypeVar("Body", ExchangeStatus, Heartbeat)

log = logging.getLogger("feedhandler.client")


class Patient(Protocol):
    """What is needed of a subscriber's connection."""

    endpoint: str
    prefixes: list[bytes]
    heartbeat: wire.Document | None

    @property
    def is_connected(self) -> bool: ...


class Doubt:
    """Watches a connection until something has come. statuses_of subscribes to the publisher's status records."""

    def __init__(self, link: Patient, statuses_of: Callable[[Follower], Downlink]) -> None:
        self._link = link
        self._statuses_of = statuses_of
        self._is_logged_away = self._is_connected = False
        self._since_mono_s = self._looked_mono_s = -math.inf  # since when it has been as it is
        self._asking: Downlink | None = None
        self._statuses: list[Record] = []

    def look(self) -> bool:
        """Log why nothing has come, if it is time; False once all has been logged."""
        link, now = self._link, time.monotonic()
        if now - self._looked_mono_s > WAITS_S:
            self._since_mono_s = now  # who does something else meanwhile has not waited
        self._looked_mono_s = now
        if link.is_connected and not self._is_connected:
            self._since_mono_s = now  # what it has is to be seen
        self._is_connected = link.is_connected
        if self._asking is not None:
            return self._look_at_statuses(now)
        if now - self._since_mono_s < LOGS_AFTER_S:
            return True
        if not link.is_connected:
            if not self._is_logged_away:
                self._is_logged_away = True
                log.warning("nothing has come in %g s: %s", LOGS_AFTER_S, nobody_listens(link.endpoint))
            return True
        if link.heartbeat is None:
            log.warning(
                "nothing has come in %g s: what listens at %s says nothing", LOGS_AFTER_S, link.endpoint
            )
            return False
        self._asking, self._since_mono_s = self._statuses_of(Follower(self._statuses.append)), now
        return True

    def _look_at_statuses(self, now: float) -> bool:
        assert self._asking is not None, "the caller has looked"
        self._asking.poll()
        states = states_of(self._link.heartbeat)
        statuses = statuses_in(self._statuses)
        if len(statuses) < len(states) and now - self._since_mono_s < STATUSES_S:
            return True
        self.close()
        prefixes = self._link.prefixes
        reasons = [_why(each, states, statuses) for each in prefixes[:NAMED_MAX]]
        more = f"; and {len(prefixes) - NAMED_MAX} more" if len(prefixes) > NAMED_MAX else ""
        log.warning("nothing has come in %g s: %s%s", LOGS_AFTER_S, "; ".join(reasons), more)
        return False

    def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.close()
            self._asking = None


def nobody_listens(endpoint: str) -> str:
    """Return that there is no publisher at an endpoint, and what to do."""
    remedy = "start one with `feedhandler run`"
    path = Path(endpoint.removeprefix(IPC))
    if endpoint.startswith(IPC) and not path.is_absolute() and not path.exists():
        return (
            f"there is no publisher at {endpoint}, which from here is {path.absolute()}; {remedy},"
            " or give the path as it is from the root"
        )
    return f"there is no publisher at {endpoint}; {remedy}"


def states_of(heartbeat: Record | None) -> dict[str, str]:
    """Return the state of each exchange that the merger knows of."""
    beat = body(heartbeat, Heartbeat)
    return {} if beat is None else {name: str(state) for name, state in beat.exchanges.items()}


def statuses_in(records: Iterable[Record]) -> dict[str, ExchangeStatus]:
    """Return the statuses among some records, by exchange."""
    found = [body(record, ExchangeStatus) for record in records]
    return {status.exchange: status for status in found if status is not None}


def reason(topic: str, states: Mapping[str, str], statuses: Mapping[str, ExchangeStatus]) -> str:
    """Return why no record has come whose topic begins so, "" if that is not known.

    states and statuses are the merger's of exchanges, as far as they have come.
    """
    kind, exchange, symbol = [*topic.rstrip("\0").split(".", 2), "", ""][:3]
    if exchange and states and exchange not in states and (symbol or not _begins(exchange, states)):
        near = difflib.get_close_matches(exchange, states, n=1)
        hint = _did_you_mean(f"{kind}.{near[0]}.{symbol}") if near else ""
        return f"the merger knows of {', '.join(states)}, and of no {exchange!r}{hint}"
    status = statuses.get(exchange)
    feed = status.feed if status is not None else None
    state = status.state if status is not None else states.get(exchange)
    if not state:
        return ""
    if feed is not None and kind in feed.rejected.get(symbol, {}):
        return f"{exchange} does not have it: {feed.rejected[symbol][kind]}"
    wanted = [each for each, kinds in feed.wanted.items() if kind in kinds] if feed is not None else []
    what = f"{exchange} is {state}" + (f", {status.reason}" if status is not None and status.reason else "")
    if not symbol or (feed is None and state != "live") or (feed is not None and _begins(symbol, wanted)):
        return what
    near = difflib.get_close_matches(symbol.upper(), wanted, n=1)
    hint = _did_you_mean(f"{kind}.{exchange}.{near[0]}") if near else ""
    option = "" if (kind,) == DEFAULT_KINDS else f" --kind {kind}"
    return f"{what}: is it wanted? `feedhandler subscribe {exchange} {symbol}{option}`{hint}"


def _why(prefix: bytes, states: Mapping[str, str], statuses: Mapping[str, ExchangeStatus]) -> str:
    text = prefix.rstrip(b"\0").decode(errors="replace")
    what = f"no topic begins with {text!r}" if text else "there is no topic at all"
    why = reason(prefix.decode(errors="replace"), states, statuses)
    return f"{what}: {why}" if why else what


def _begins(start: str, names: Iterable[str]) -> bool:
    return any(name.startswith(start) for name in names)


def _did_you_mean(text: str) -> str:
    return f"; did you mean {text!r}?"


def body(record: Record | None, type_: type[Body]) -> Body | None:
    """Return the content of a document, None if there is none that can be read."""
    if not isinstance(record, wire.Document):
        return None
    try:
        return msgspec.json.decode(record.body, type=type_)
    except UNDECODABLE:
        return None
