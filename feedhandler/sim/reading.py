"""How the recorded traffic of an exchange is read, so far as it takes to send it again: shapes, no facts.

Pure. Each exchange's file has its reading.
"""

import abc
import re
from collections.abc import Set
from typing import ClassVar, NamedTuple, Protocol

from feedhandler.sim.protocol import HttpRequest


class Ids(NamedTuple):
    """Which changes of a book there are."""

    first: int
    last: int


class KeptState(Protocol):
    """What a new subscriber of a topic gets at once, made of what was sent before."""

    def take(self, payload: bytes) -> None:
        """A message was received."""

    def show(self) -> bytes | None:
        """Print what it amounts to; None while that is not known."""
        ...


class KeptMessage:
    """The newest message is the whole state."""

    def __init__(self) -> None:
        self._payload: bytes | None = None

    def take(self, payload: bytes) -> None:
        self._payload = payload

    def show(self) -> bytes | None:
        return self._payload


class TrafficReading(abc.ABC):
    """One exchange's. A payload is a text frame that was received, a body is an answer of REST.

    Topics and paths are those of the simulated exchange, where markets meet: what another market has for itself has
    that market's name before it.
    """

    live: ClassVar[Set[str]] = frozenset()  # paths of REST that are answered anew: clocks, tokens
    changes: ClassVar[Set[str]] = frozenset()  # channels whose messages go on from a book that REST answers

    @abc.abstractmethod
    def topic_of(self, payload: bytes, market: str = "") -> str:
        """Return the topic under which a client subscribes to what this is of; "" for an answer to a command.

        market is that of the connection that brought it, "" the main one.
        """

    @abc.abstractmethod
    def split(self, topic: str) -> tuple[str, str]:
        """Return a topic's channel and symbol."""

    def shown(self, topic: str, payload: bytes, variant: int) -> bytes:
        """Print a payload in the form that a client has asked for."""
        return payload

    def ids(self, payload: bytes) -> Ids:
        """Return the ids of a message of changes; 0, 0: it has none."""
        return Ids(0, 0)

    def asked_book(self, request: HttpRequest) -> str:
        """Return the symbol of the book that is asked for, from which changes go on; "" if none is."""
        return ""

    def base_id(self, body: bytes) -> int:
        """Return the id of the last change that is in an answer to that; 0 for what is no book."""
        return 0

    def without_rows(self, request: HttpRequest) -> bytes | None:
        """Return an answer that lists nothing, where whoever recorded need not have asked; None: that is not so."""
        return None

    def list_with(self, request: HttpRequest) -> HttpRequest | None:
        """Return the request for a list in which there is what this one asks for; None: there is no such list."""
        return None

    def row(self, request: HttpRequest, body: bytes) -> bytes | None:
        """Return the answer that such a list amounts to; None: that is not in it."""
        return None

    def keeper(self, topic: str) -> KeptState | None:
        """Return what keeps a topic, where a subscription begins with the present state."""
        return None


def number_in(pattern: re.Pattern[bytes], data: bytes) -> int:
    """Return the number that a pattern finds; 0 if it finds none."""
    found = pattern.search(data)
    return int(found[1]) if found else 0
