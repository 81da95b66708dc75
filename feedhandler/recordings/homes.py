"""Where the answers of a recording come from: of the exchange itself, or of hosts that stand for it.

    http://127.0.0.1:9/linear/api/v1/contracts/active ──plan──▶ https://api-futures.kucoin.com/api/v1/contracts/active

What an exchange's file knows of its URLs holds for those of a simulated or replayed exchange, then. Pure.
"""

import msgspec
from msgspec.structs import replace

from feedhandler.data.errors import UNDECODABLE
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Exchange
from feedhandler.recordings.plan import PlannedMarket
from feedhandler.recordings.traffic import Item


class _Header(msgspec.Struct):
    """What an item of that kind may tell, whoever recorded."""

    exchange: str = ""
    markets: list[PlannedMarket] = []


class Homes:
    """The hosts that a feed was to ask, and whose places they take; exchange is what the newest header names."""

    def __init__(self) -> None:
        self.exchange: Exchange | None = None
        self._hosts: dict[str, set[str]] = {}

    def read(self, header: bytes) -> None:
        """Take the item that a recording begins with, of whatever format."""
        try:
            found = msgspec.json.decode(header, type=_Header)
        except UNDECODABLE:
            return
        self.exchange = EXCHANGES.get(found.exchange.lower())
        for market in self.exchange.markets if self.exchange else ():
            for planned in found.markets:
                path = market.instruments_request.path
                if planned.name == market.name and planned.instruments_url.endswith(path):
                    host = planned.instruments_url.removesuffix(path)
                    self._hosts.setdefault(host, set()).add(market.rest_url)

    def at_home(self, item: Item) -> Item:
        """Return an answer with the URL that it would have of the exchange itself."""
        for host in sorted(self._hosts, key=len, reverse=True):
            if item.name.startswith(f"{host}/"):
                home, *others = self._hosts[host]
                # Of several that meet at one host the rest of the URL has to tell.
                return item if others else replace(item, name=home + item.name[len(host) :])
        return item
