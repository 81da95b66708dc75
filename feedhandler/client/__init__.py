"""Subscribing from Python: records as they come, the newest of each topic, and what was lost; and the board.

`arrays` has the same as NumPy arrays and frames; it is imported by itself, since it needs NumPy. `docs/python.md`
shows all of it. The bytes behind it are in `wire`, and in `docs/wire.md` for other languages.
"""

from feedhandler.client.asynchronous import AsyncSubscriber
from feedhandler.client.board import Board
from feedhandler.client.stream import DEFAULT_ENDPOINT, Curve, exact
from feedhandler.client.subscriber import Subscriber
from feedhandler.data.kept_book import Book
from feedhandler.data.wire import (
    BookRecord,
    Condition,
    Contract,
    Depth,
    Document,
    Flag,
    Kind,
    Liquidation,
    Record,
    Side,
    Ticker,
    Trade,
    Unknown,
)

__all__ = [
    "DEFAULT_ENDPOINT",
    "AsyncSubscriber",
    "Board",
    "Book",
    "BookRecord",
    "Condition",
    "Contract",
    "Curve",
    "Depth",
    "Document",
    "Flag",
    "Kind",
    "Liquidation",
    "Record",
    "Side",
    "Subscriber",
    "Ticker",
    "Trade",
    "Unknown",
    "exact",
]
