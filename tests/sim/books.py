"""Books kept from what is sent, by each exchange's rule and nothing else; and which channels carry them."""

from decimal import Decimal

from feedhandler.sim.binance import Binance
from feedhandler.sim.bybit import Bybit
from feedhandler.sim.kucoin import Kucoin
from feedhandler.sim.market import Instrument
from feedhandler.sim.okx import Okx
from feedhandler.sim.protocol import Exchange

Levels = list[tuple[Decimal, Decimal]]

QUOTES = {
    Binance: "btcusdt@bookTicker",
    Kucoin: "/spotMarket/level1:BTC-USDT",
    Bybit: "orderbook.1.BTCUSDT",
    Okx: "bbo-tbt:BTC-USDT",
}
TRADES = {
    Binance: "btcusdt@trade",
    Kucoin: "/market/match:BTC-USDT",
    Bybit: "publicTrade.BTCUSDT",
    Okx: "trades:BTC-USDT",
}
BOOKS = {
    Binance: "btcusdt@depth@100ms",
    Kucoin: "/market/level2:BTC-USDT",
    Bybit: "orderbook.200.BTCUSDT",
    Okx: "books:BTC-USDT",
}
WITH_SNAPSHOTS = (Bybit, Okx)  # whose books begin with one
DEPTH_ENDPOINTS = {
    Binance: "/api/v3/depth?symbol=BTCUSDT&limit=1000",
    Kucoin: "/api/v1/market/orderbook/level2_100?symbol=BTC-USDT",
    Okx: "/api/v5/market/books?instId=BTC-USDT&sz=400&source=0",
}
SYMBOLS = {Binance: "BTCUSDT", Kucoin: "BTC-USDT", Bybit: "BTCUSDT", Okx: "BTC-USDT"}


class GapError(Exception):
    """A delta does not follow on what is known."""


class KeptBook:
    """One book: a base, and what follows on it."""

    def __init__(self, make: type[Exchange]) -> None:
        self._make = make
        self.bids: dict[Decimal, Decimal] = {}
        self.asks: dict[Decimal, Decimal] = {}
        self.update_id = 0  # 0: there is no base
        self.range = (Decimal(0), Decimal("inf"))  # of prices that the base knows
        self.removed_unknown = 0
        self.is_chained = False  # something has followed on the base

    def begin(self, base: dict) -> None:
        """Take a snapshot: of REST, or the first message where that is one."""
        data = base.get("data", base)
        [data] = data if isinstance(data, list) else [data]
        self.is_chained = False
        self.bids = _levels(data.get("bids", data.get("b")))
        self.asks = _levels(data.get("asks", data.get("a")))
        self.range = (min(self.bids, default=Decimal(0)), max(self.asks, default=Decimal("inf")))
        self.update_id = int(data.get("lastUpdateId", data.get("sequence", data.get("u", data.get("seqId")))))

    def apply(self, message: dict) -> bool:
        """Follow one message; False if it is older than what is known. Raises GapError."""
        if self._make is Bybit:
            return self._apply_bybit(message)
        if self._make is Okx:
            return self._apply_okx(message)
        first, last, bids, asks = _KEYS[self._make](message)
        if last <= self.update_id:
            return False
        if first > self.update_id + 1:
            raise GapError(f"{first} after {self.update_id}")
        self._set(self.bids, [level for level in bids if self._is_newer(level)])
        self._set(self.asks, [level for level in asks if self._is_newer(level)])
        self.update_id = last
        return True

    def _apply_bybit(self, message: dict) -> bool:
        data = message["data"]
        if message["type"] == "snapshot":
            self.begin(message)
            return True
        if data["u"] != self.update_id + 1:
            raise GapError(f"{data['u']} after {self.update_id}")
        self._set(self.bids, data["b"])
        self._set(self.asks, data["a"])
        self.update_id = data["u"]
        return True

    def _apply_okx(self, message: dict) -> bool:
        [data] = message["data"]
        if message["action"] == "snapshot":
            self.begin(message)
            return True
        if data["seqId"] <= self.update_id and data["prevSeqId"] < self.update_id:
            return False
        if data["prevSeqId"] > self.update_id or (data["prevSeqId"] < self.update_id and self.is_chained):
            raise GapError(f"{data['prevSeqId']} after {self.update_id}")
        self._set(self.bids, data["bids"])
        self._set(self.asks, data["asks"])
        self.update_id, self.is_chained = data["seqId"], True
        return True

    def _is_newer(self, level: list[str]) -> bool:
        return len(level) < 3 or int(level[2]) > self.update_id

    def _set(self, side: dict[Decimal, Decimal], levels: list[list[str]]) -> None:
        for text, size, *_ in levels:
            price = Decimal(text)
            if not price:
                continue
            if Decimal(size):
                side[price] = Decimal(size)
            elif side.pop(price, None) is None:
                self.removed_unknown += 1

    def known(self) -> tuple[Levels, Levels]:
        """Return the levels among the prices that the base knows, the best first."""
        return _within(self.range, *self.levels())

    def levels(self) -> tuple[Levels, Levels]:
        return sorted(self.bids.items(), reverse=True), sorted(self.asks.items())

    def best(self) -> tuple[Levels, Levels]:
        return [max(self.bids.items())], [min(self.asks.items())]


_KEYS = {
    Binance: lambda message: (message["U"], message["u"], message["b"], message["a"]),
    Kucoin: lambda message: (
        message["data"]["sequenceStart"],
        message["data"]["sequenceEnd"],
        message["data"]["changes"]["bids"],
        message["data"]["changes"]["asks"],
    ),
}


def topic_of(message: dict) -> str:
    """Return what a message is of, as the simulator calls it; "" where the message does not say."""
    arg = message.get("arg")
    if "data" in message and isinstance(arg, dict):
        return f"{arg['channel']}:{arg['instId']}"
    return message.get("topic", "")


def _levels(levels: list[list[str]]) -> dict[Decimal, Decimal]:
    return {Decimal(price): Decimal(size) for price, size, *_ in levels}


def _within(known: tuple[Decimal, Decimal], *sides: Levels) -> tuple[Levels, Levels]:
    low, high = known
    bids, asks = ([level for level in side if low <= level[0] <= high] for side in sides)
    return bids, asks


def truth(
    instrument: Instrument, count: int = 10_000, known: tuple[Decimal, Decimal] | None = None
) -> tuple[Levels, Levels]:
    """The best levels of the simulated book, as decimals; those among the prices that a base knows."""

    def exact(levels: list[tuple[int, int]]) -> Levels:
        return [
            (
                Decimal(price).scaleb(-instrument.price_decimals),
                Decimal(size).scaleb(-instrument.size_decimals),
            )
            for price, size in levels
        ]

    book = instrument.order_book()
    bids, asks = exact(book.best_bids(count)), exact(book.best_asks(count))
    return (bids, asks) if known is None else _within(known, bids, asks)
