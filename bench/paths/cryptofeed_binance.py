"""What both of cryptofeed's paths begin with: its Binance feed at another address, the rest as it comes.

Not a program. It runs in cryptofeed's own virtual environment, with cryptofeed 2.4 or 3. uvloop and the fast
JSON decoder come with either, and are on by default.
"""

import os
from dataclasses import replace
from typing import Any

from cryptofeed import FeedHandler
from cryptofeed.defines import L2_BOOK, TICKER, TRADES
from cryptofeed.exchanges import Binance

# The defaults, but for the log file, which would land in the checkout. 2.4 wants all of them if one is given.
CHANNELS = {"ticker": TICKER, "trade": TRADES, "book": L2_BOOK}  # by our kinds
CONFIG = {"uvloop": True, "log": {"filename": os.devnull, "level": "WARNING"}}


class Local(Binance):  # type: ignore[misc]
    """Binance without TLS: cryptofeed takes wss:// addresses only; they are put right once it has looked."""

    def connect(self) -> list[tuple[Any, ...]]:
        connections: list[tuple[Any, ...]] = super().connect()
        for connection, *_ in connections:
            connection.address = connection.address.replace("wss://", "ws://", 1)
        return connections


def run(address: str, symbols: list[str], callback: Any, kind: str = "ticker") -> None:
    """Feed what these symbols have of a kind to a callback, or to one of cryptofeed's backends, for ever."""
    Local.websocket_endpoints = [
        replace(each, address=f"wss://{address}") for each in Binance.websocket_endpoints
    ]
    Local.rest_endpoints = [replace(each, address=f"http://{address}") for each in Binance.rest_endpoints]
    handler = FeedHandler(config=CONFIG)
    names = [symbol.replace("/", "-") for symbol in symbols]
    channel = CHANNELS[kind]
    # timeout: between two loads nothing comes.
    handler.add_feed(Local(symbols=names, channels=[channel], callbacks={channel: callback}, timeout=-1))
    handler.run()
