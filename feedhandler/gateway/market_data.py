"""The newest of everything that the merger publishes: what the gateway shows, and decides by.

A subscriber like any other, on the gateway's own loop. It keeps one record per topic: to fall behind costs updates
here, and nothing anywhere else.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec

from feedhandler.data import wire
from feedhandler.data.errors import UNDECODABLE
from feedhandler.data.instruments import InstrumentList, InstrumentTable
from feedhandler.data.status import ExchangeStatus, Heartbeat
from feedhandler.transport.follower import Follower
from feedhandler.transport.links import Downlink

LOOK_EVERY_S: Final = 0.25  # for a merger that was away
SILENCE_S: Final = 3.0  # it sends something every second

log = logging.getLogger(__name__)


class MarketData:
    """Newest records by topic; statuses, instrument lists and tables by exchange.

    on_ticker is called for each ticker record, on_other for each of another kind and for each condition, in order;
    both have to be quick. on_document is called after a status, an instrument list or a heartbeat was taken, with
    its kind and its exchange.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: str,
        on_ticker: Callable[[wire.Ticker], object],
        on_other: Callable[[wire.Record], object],
        on_document: Callable[[int, str], object],
    ) -> None:
        self.tickers: dict[str, wire.Ticker] = {}
        self.statuses: dict[str, ExchangeStatus] = {}
        self.listings: dict[str, InstrumentList] = {}
        self.tables: dict[str, InstrumentTable] = {}
        self._symbols: dict[str, dict[str, str]] = {}
        self.session = 0  # of the merger whose records came last
        self._conditions: dict[str, int] = {}  # flags, by topics whose kinds keep every record
        self.heartbeat: Heartbeat | None = None
        self.heartbeat_mono = 0.0  # when the merger's last heartbeat came
        self._on_ticker = on_ticker
        self._on_other = on_other
        self._on_document = on_document
        self.follower = Follower(self._take)
        self._downlink = Downlink(loop, endpoint, [b""], self.follower)

    @property
    def is_merger_up(self) -> bool:
        """True while the merger's heartbeats come: its last records are then current, or flagged."""
        return self.heartbeat is not None and time.monotonic() - self.heartbeat_mono < SILENCE_S

    def tick_of(self, ticker: wire.Ticker) -> str:
        """Return the step between a ticker's prices, as its exchange's list has it; "" if it is not known."""
        return self.tick_at(ticker.topic)

    def tick_at(self, topic: str) -> str:
        """Return the step between the prices of a topic, likewise."""
        _, exchange, symbol = topic.split(".", 2)
        table = self.tables.get(exchange)
        return table.tick_of(symbol) if table is not None else ""

    def symbols_of(self, exchange: str) -> dict[str, str]:
        """Return an exchange's symbols by native, as far as they are known."""
        return self._symbols.get(exchange, {})

    def newest(self, topic: str) -> wire.Record | None:
        """Return a topic's newest record; None before there was one."""
        return self.follower.newest.get(topic)

    def flags_of(self, topic: str) -> int:
        """Return the flags of a topic: of its newest record, or of the condition that came after that."""
        record = self.newest(topic)
        return self._conditions.get(topic, record.flags if record is not None else 0)

    async def run(self) -> None:
        """Keep the connection to the merger; for ever."""
        while True:
            self._downlink.poll()
            await asyncio.sleep(LOOK_EVERY_S)

    def close(self) -> None:
        """Leave the merger."""
        self._downlink.close()

    def _take(self, record: wire.Record) -> None:
        if isinstance(record, wire.Document):
            with contextlib.suppress(*UNDECODABLE):  # of another version's merger
                self._take_document(record)
        elif isinstance(record, wire.Ticker):
            self.tickers[record.topic] = record
            self._on_ticker(record)
        elif isinstance(record, wire.Condition):
            self._conditions[record.topic] = record.flags
            self._on_other(record)
        else:
            condition = self._conditions.get(record.topic, 0)
            if not condition & wire.INVALID or record.flags & wire.SNAPSHOT:  # which ends that
                self._conditions.pop(record.topic, None)
            self._on_other(record)

    def _take_document(self, document: wire.Document) -> None:
        exchange = ""
        if document.kind == wire.HEARTBEAT:
            self.heartbeat = msgspec.json.decode(document.body, type=Heartbeat)
            self.session = document.session
            self.heartbeat_mono = time.monotonic()
        elif document.kind == wire.STATUS:
            status = msgspec.json.decode(document.body, type=ExchangeStatus)
            self.statuses[status.exchange] = status
            exchange = status.exchange
        elif document.kind == wire.INSTRUMENTS:
            listing = msgspec.json.decode(document.body, type=InstrumentList)
            self.listings[listing.exchange], self.tables[listing.exchange] = listing, listing.table()
            self._symbols[listing.exchange] = {row.native: row.symbol for row in listing.instruments}
            exchange = listing.exchange
        self._on_document(document.kind, exchange)
