"""Who has seen what of the newest: updates for many readers at many speeds, without a queue for any of them.

Each topic has the number of the change at which it last changed, a reader the number up to which it has seen: the
difference is what it is due, in the newest state, however long it has not looked. Pure.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from feedhandler.data import wire


class Topic:
    """A ticker's newest record; text is its encoding, made when the first reader wants it."""

    __slots__ = ("change", "exchange", "symbol", "text", "ticker")

    def __init__(self, ticker: wire.Ticker) -> None:
        self.ticker = ticker
        self.exchange = ticker.exchange
        self.symbol = ticker.symbol
        self.change = 0
        self.text: bytes | None = None


class Interest(NamedTuple):
    """What a reader wants updates of; None: all."""

    symbols: frozenset[str] | None = None
    exchanges: frozenset[str] | None = None

    def has(self, topic: Topic) -> bool:
        """Return whether it is about this topic."""
        return (self.symbols is None or topic.symbol in self.symbols) and (
            self.exchanges is None or topic.exchange in self.exchanges
        )


EVERYTHING: Final = Interest()


class Newest:
    """The newest record of each topic; encode turns one into what readers get, flags are added to its own."""

    def __init__(self, encode: Callable[[wire.Ticker, int], bytes]) -> None:
        self.changes = 0
        self.flags = 0
        self._encode = encode
        self._topics: dict[str, Topic] = {}  # the last to change is last

    def __len__(self) -> int:
        return len(self._topics)

    def take(self, ticker: wire.Ticker) -> None:
        """Take a record: whoever publishes sees to it that none is older than the one before."""
        # hot: once a record of the whole stream
        topic = self._topics.pop(ticker.topic, None)
        if topic is None:
            topic = Topic(ticker)
        else:
            topic.ticker, topic.text = ticker, None
        self.changes += 1
        topic.change = self.changes
        self._topics[ticker.topic] = topic

    def set_flags(self, flags: int) -> None:
        """Add these flags to all records from now on; every reader gets them."""
        if flags == self.flags:
            return
        self.flags = flags
        self.changes += 1
        for topic in self._topics.values():
            topic.text, topic.change = None, self.changes

    def since(self, seen: int, interest: Interest) -> list[Topic]:
        """Return what has changed after a change, the oldest first."""
        return [topic for topic in self._since(seen) if interest.has(topic)][::-1]

    def _since(self, seen: int) -> Iterator[Topic]:
        for topic in reversed(self._topics.values()):
            if topic.change <= seen:
                return
            yield topic

    def text(self, topic: Topic) -> bytes:
        """Return what readers get of a topic."""
        if topic.text is None:
            topic.text = self._encode(topic.ticker, self.flags)
        return topic.text
