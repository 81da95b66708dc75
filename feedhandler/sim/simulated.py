"""The table of the exchanges that can be simulated: one row each, for the simulator, tests and benchmarks.

A row has what others must know of an exchange to subscribe to it and to disturb it. It is our own reading of
the exchange's documentation, and independent of the adapters in exchanges/.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from feedhandler.sim import credentials
from feedhandler.sim.binance import Binance, BinanceReading, BinanceRules
from feedhandler.sim.bybit import Bybit, BybitReading, BybitRules
from feedhandler.sim.credentials import Credentials
from feedhandler.sim.kucoin import Kucoin, KucoinReading, KucoinRules
from feedhandler.sim.okx import Okx, OkxReading, OkxRules
from feedhandler.sim.protocol import Exchange
from feedhandler.sim.reading import TrafficReading

Rules = BinanceRules | KucoinRules | BybitRules | OkxRules


class Simulated(NamedTuple):
    make: Callable[[int, int, Any], Exchange]  # instruments, seed, rules
    rules: type[Rules]
    reading: TrafficReading  # of recordings
    credentials: Credentials | None  # that its account has; None: accounts are not played
    spelling: str  # of a symbol
    quotes: str  # the topic of its fastest quotes
    channels: int  # of each symbol, that make up a ticker
    faults: tuple[str, ...] = ()  # those that not every exchange has

    def native(self, base: str, quote: str = "USDT") -> str:
        """Spell a symbol as the exchange does."""
        return self.spelling.format(base=base, quote=quote)

    def quote_topic(self, native: str) -> str:
        return self.quotes.format(native=native, lower=native.lower())


SIMULATED = {
    "binance": Simulated(
        Binance,
        BinanceRules,
        BinanceReading(),
        credentials.BINANCE,
        "{base}{quote}",
        "{lower}@bookTicker",
        channels=2,
        faults=("server_shutdown", "end_subscriptions"),
    ),
    "kucoin": Simulated(
        Kucoin,
        KucoinRules,
        KucoinReading(),
        credentials.KUCOIN,
        "{base}-{quote}",
        "/spotMarket/level1:{native}",
        channels=3,
        faults=("expired_token", "refuse_key unified"),
    ),
    "bybit": Simulated(
        Bybit,
        BybitRules,
        BybitReading(),
        credentials.BYBIT,
        "{base}{quote}",
        "orderbook.1.{native}",
        channels=2,
        faults=("restart_books",),
    ),
    "okx": Simulated(
        Okx,
        OkxRules,
        OkxReading(),
        None,
        "{base}-{quote}",
        "bbo-tbt:{native}",
        channels=2,
        faults=("restart_books", "no_snapshots", "server_shutdown"),
    ),
}
ACCOUNTS = {name: each.credentials for name, each in SIMULATED.items() if each.credentials is not None}
# What chaos, the end-to-end tests and the bench play: another row above must not change what their seeds play.
SEEDED = ("binance", "kucoin", "bybit")
