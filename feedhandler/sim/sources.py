"""What is sent of an order book event by event: its trades, its changes, and windows of its best levels.

Pure. A state may be sent now or later, and once for many changes; events are sent all, in order, in as many
messages as that takes. `Source` has what a stream (protocol.py) needs of them. Nothing is kept for a stream that
nobody is subscribed to.
"""

from typing import Any, Protocol

from feedhandler.sim.order_book import Fill, FillLog, Level, LevelChange, OrderBook


class Source(Protocol):
    """What a stream of events has to send."""

    def start(self) -> None:
        """There are subscribers now."""

    def stop(self) -> None:
        """There are none any more."""

    def take(self) -> bool:
        """Move on to the next message; False if everything has been sent."""
        ...

    def lose(self) -> bool:
        """Let what waits go, as if it had been sent and not arrived; False if nothing has waited."""
        ...


def drop_all(waiting: list[Any]) -> bool:
    """Drop what waits; False if nothing did."""
    has_waited = bool(waiting)
    waiting.clear()
    return has_waited


class TradeSource:
    """The trades, up to `most` in one message."""

    def __init__(self, book: OrderBook, most: int = 1) -> None:
        self._book = book
        self._most = most
        self._waiting: list[Fill] = []
        self.message: list[Fill] = [book.fills[-1]]

    def start(self) -> None:
        self._book.fill_logs.append(self._waiting)

    def stop(self) -> None:
        _remove(self._book.fill_logs, self._waiting)

    def take(self) -> bool:
        if not self._waiting:
            return False
        self.message = self._waiting[: self._most]
        del self._waiting[: self._most]
        return True

    def lose(self) -> bool:
        return drop_all(self._waiting)


class ChangeSource:
    """The changes of levels, all that there were since the last message in one."""

    def __init__(self, book: OrderBook) -> None:
        self._book = book
        self._waiting: list[LevelChange] = []
        self.message: list[LevelChange] = []
        self.first_id = self.last_id = book.update_id
        self.is_crossed_next = (
            False  # a fault: the next message has a bid above the best ask, which never was
        )

    def start(self) -> None:
        self.last_id = self._book.update_id
        self._book.change_logs.append(self._waiting)

    def stop(self) -> None:
        _remove(self._book.change_logs, self._waiting)

    def take(self) -> bool:
        if not self._waiting:
            return False
        self.message = self._waiting[:]
        self._waiting.clear()
        self.first_id, self.last_id = self.last_id + 1, self.message[-1].update_id
        if self.is_crossed_next:
            self.is_crossed_next = False
            self.message += [LevelChange(self.last_id, True, *level) for level in _crossing(self._book)]
        return True

    def lose(self) -> bool:
        return self.take()

    def levels(self) -> tuple[dict[int, int], dict[int, int]]:
        """Return the newest size of each level of the message, by price: of bids, and of asks."""
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        for _, is_bid, price, size in self.message:
            if price:
                (bids if is_bid else asks)[price] = size
        return bids, asks


class EachChangeSource(ChangeSource):
    """The changes of levels, each in a message of its own."""

    def take(self) -> bool:
        if not self._waiting:
            return False
        change = self._waiting.pop(0)
        if self.is_crossed_next:
            self.is_crossed_next = False
            change = next(
                (LevelChange(change.update_id, True, *level) for level in _crossing(self._book)), change
            )
        self.first_id = self.last_id = change.update_id
        self.message = [change]
        return True

    def lose(self) -> bool:
        return drop_all(self._waiting)


class WindowSource:
    """What changes among the best `depth` levels a side: one that leaves them counts as gone.

    Each message has a number, one more than the message before.
    """

    def __init__(self, book: OrderBook, depth: int) -> None:
        self._book = book
        self._depth = depth
        self._bids: dict[int, int] = {}  # as they were sent last
        self._asks: dict[int, int] = {}
        self._is_running = False
        self._is_snapshot = False
        self.message_id = book.update_id
        self.bids: list[Level] = []  # of the message
        self.asks: list[Level] = []
        self.update_id = book.update_id  # of the book, when the message was made
        self.is_snapshot = False
        self.is_crossed_next = False  # as in ChangeSource

    def start(self) -> None:
        """Go on from the present state, which is sent by itself to who subscribes."""
        self._is_running = True
        self._read()

    def stop(self) -> None:
        self._is_running = False
        self.message_id += 2  # it goes on changing while nobody looks

    def take(self) -> bool:
        if self._is_snapshot:
            self._is_snapshot = False
            self.show_all()
            return True
        if self.update_id == self._book.update_id:
            return False
        bids, asks = self._bids, self._asks
        self._read()
        self.bids, self.asks = _difference(bids, self._bids), _difference(asks, self._asks)
        self.is_snapshot = False
        if not self.bids and not self.asks:
            return False
        if self.is_crossed_next:
            self.is_crossed_next = False
            self.bids += _crossing(self._book)
        self.message_id += 1
        return True

    def lose(self) -> bool:
        return self.take()

    def show_all(self) -> None:
        """Let the message be the whole window, as it was sent last; while nobody looks, as it is."""
        if not self._is_running:
            self.message_id += self.update_id != self._book.update_id
            self._read()
        self.bids = sorted(self._bids.items(), reverse=True)
        self.asks = sorted(self._asks.items())
        self.is_snapshot = True

    def restart(self) -> None:
        """Let the next message be the whole window, number 1, as after a restart of the exchange's service."""
        self._is_snapshot = True
        self.message_id = 1
        self._read()

    def _read(self) -> None:
        self._bids = dict(self._book.best_bids(self._depth))
        self._asks = dict(self._book.best_asks(self._depth))
        self.update_id = self._book.update_id


def _crossing(book: OrderBook) -> list[Level]:
    return [(price + 1, 1) for price, _ in book.best_asks(1)]


def _difference(old: dict[int, int], new: dict[int, int]) -> list[Level]:
    """Return the levels that differ, those that are gone with size 0."""
    changed = [(price, size) for price, size in new.items() if old.get(price) != size]
    return changed + [(price, 0) for price in old if price not in new]


def _remove(logs: list[FillLog] | list[list[LevelChange]], log: object) -> None:
    """Take a log out: that very list, as lists that are empty are all equal."""
    for index, each in enumerate(logs):
        if each is log:
            del logs[index]
            return
