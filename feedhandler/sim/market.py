"""A made-up market: pairs and contracts, and one seeded random walk or order book for each.

Pure: no clock, no sockets, no exchange. All quantities are integers, prices in ticks and sizes in lots,
so that nothing is rounded and every exchange prints the digits its own way. Invariants, after any number
of steps: bid < ask, low <= last <= high, volumes and `update_id` only grow.

An instrument whose tickers alone are wanted walks, which costs next to nothing. From when its trades or its depth
are wanted it has an order book, which then decides about quotes and trades alike.
"""

import random
from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from feedhandler.sim.order_book import Fill, Level, OrderBook

MAJORS: tuple[tuple[str, float], ...] = (
    ("BTC", 86_420.0),
    ("ETH", 2_815.0),
    ("SOL", 131.4),
    ("ADA", 0.4127),
    ("XRP", 2.086),
    ("DOGE", 0.1468),
    ("BNB", 848.6),
    ("LTC", 84.3),
    ("TRX", 0.2751),
    ("LINK", 12.84),
    ("AVAX", 13.57),
    ("DOT", 2.291),
    ("BCH", 553.2),
    ("UNI", 6.137),
    ("ATOM", 2.518),
    ("XLM", 0.2516),
)
# What one unit of the quote is worth in USDT: prices of a coin in two quotes then agree.
QUOTES: tuple[tuple[str, float], ...] = (
    ("USDC", 0.9998),
    ("BTC", 86_420.0),
    ("EUR", 1.1534),
    ("TRY", 0.02357),
    ("ETH", 2_815.0),
    ("BRL", 0.1851),
)
BYTES_OF_RANDOM = 8  # one draw feeds a pick and a step
_SYLLABLES = (
    "BA",
    "CO",
    "DU",
    "FI",
    "GRA",
    "HEL",
    "JO",
    "KA",
    "LUM",
    "MO",
    "NEX",
    "PO",
    "RI",
    "SOL",
    "TA",
    "VE",
    "ZU",
)
BASIS_PART = 500  # of the price: a contract that is farther than that from its pair comes back
_SIZE_COUNT = 512  # sizes are drawn from a table: their text is then almost always in the cache
_LEVELS_MAX, _LEVELS_MIN = 1500, 8  # a side of the order book, of the first and of the last


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One pair as the market lists it; how it is spelled is the exchange's business."""

    base: str
    quote: str
    price: float  # in quote currency, where the walk starts
    is_trading: bool = True
    is_thin: bool = False  # one side of its book is empty now and then
    settle: str = ""  # of a contract: what it is settled in; "" for a spot pair
    delivery: str = ""  # of a dated contract: YYMMDD
    funding_hours: int = 0  # of a contract, between two fundings; 0: by its rank
    renamed_from: str = ""  # the base's code before a rename, where the exchange keeps the old symbol


class Instrument:
    """One listing and its walk: prices in units of 10**-price_decimals, sizes of 10**-size_decimals."""

    __slots__ = (
        "_best",
        "_ceiling",
        "_fills",
        "_floor",
        "_quantum",
        "_sizes",
        "ask",
        "ask_size",
        "base_volume",
        "bid",
        "bid_size",
        "book",
        "first_trade_id",
        "high",
        "index",
        "is_quote_new",
        "is_sell",
        "last",
        "last_size",
        "listing",
        "low",
        "open",
        "price_decimals",
        "quote_stream_count",
        "quote_volume",
        "size_decimals",
        "trade_id",
        "traded_unix_ns",
        "update_id",
    )

    def __init__(self, index: int, listing: Listing, sizes: Sequence[int], rng: random.Random) -> None:
        self.index = index  # rank: lower is traded more
        self.listing = listing
        self.quote_stream_count = 0  # of the streams with subscribers, those that move the quote
        self.price_decimals, ticks = _ticks(listing.price)
        self.size_decimals = _size_decimals(listing.price)
        self._sizes = sizes
        self._quantum = max(1, ticks // 40_000)  # a step is about 1/400 of a percent
        self._floor = max(2, ticks // 2)
        self._ceiling = ticks * 2 + 8
        self.book: OrderBook | None = None
        self.is_quote_new = True  # whether the last step changed it
        self._fills: list[Fill] = []  # of the step that the book takes
        self._best: tuple[list[Level], list[Level]] = ([], [])  # of the book, as it was before
        self._start(ticks, rng)

    def _start(self, ticks: int, rng: random.Random) -> None:
        self.bid = ticks
        self.ask = ticks + 1
        self.last = ticks
        self.open = max(1, round(ticks * rng.uniform(0.94, 1.06)))
        self.high = round(max(self.open, self.ask) * rng.uniform(1.0, 1.03))
        self.low = max(1, round(min(self.open, self.bid) * rng.uniform(0.97, 1.0)))
        self.bid_size = rng.choice(self._sizes)
        self.ask_size = rng.choice(self._sizes)
        self.last_size = rng.choice(self._sizes)
        self.is_sell = False
        value = 10 ** rng.uniform(8.0, 9.3) / (1 + self.index)  # traded in 24 h, in quote currency
        self.base_volume = max(1, int(value / self.listing.price * 10**self.size_decimals))
        self.quote_volume = self.base_volume * ((self.low + self.high) // 2)
        self.update_id = rng.randrange(10**8, 10**10)
        self.trade_id = rng.randrange(10**6, 10**9)
        self.first_trade_id = self.trade_id - rng.randrange(10**3, 10**6)
        self.traded_unix_ns = 0  # when it was traded last; 0: before anybody looked

    @property
    def is_bid_empty(self) -> bool:
        if self.book is not None:
            return not self.book.bids
        return self.listing.is_thin and self.update_id % 5 == 0

    @property
    def is_ask_empty(self) -> bool:
        if self.book is not None:
            return not self.book.asks
        return self.listing.is_thin and self.update_id % 7 == 0

    def order_book(self) -> OrderBook:
        """Return the book, made around the present quote if nobody wanted it before."""
        if self.book is None:
            self.book = OrderBook(
                ((self.bid, self.bid_size), (self.ask, self.ask_size)),
                Fill(
                    self.trade_id,
                    self.update_id,
                    self.last,
                    self.last_size,
                    self.is_sell,
                    self.traded_unix_ns,
                ),
                levels=max(_LEVELS_MIN, _LEVELS_MAX // (1 + self.index // 10)),
                quantum=self._quantum,
                bounds=(self._floor, self._ceiling),
                sizes=self._sizes,
                is_thin=self.listing.is_thin,
                seed=f"book {self.listing.base} {self.listing.quote} {self.update_id}",
            )
            self.book.fill_logs.append(self._fills)
            self._best = (self.book.best_bids(1), self.book.best_asks(1))
        return self.book

    def step(self, bits: int, unix_ns: int = 0) -> None:
        """Move the quote; every fourth time also trade. `bits`: 32 or more random bits; `unix_ns`: when.

        # hot: bench/load.py, 50,000 times a second
        """
        book = self.book
        if book is not None:
            book.step(unix_ns)
            self._follow(book)
            return
        self.update_id += 1 + (bits & 3)
        kind = (bits >> 2) & 15
        if kind < 3:
            self._move(-self._quantum)
        elif kind < 6:
            self._move(self._quantum)
        elif kind < 11:
            self.bid_size = self._sizes[(bits >> 8) % _SIZE_COUNT]
        else:
            self.ask_size = self._sizes[(bits >> 8) % _SIZE_COUNT]
        if not (bits >> 6) & 3:
            self.trade(bits >> 7, unix_ns)

    def trade(self, bits: int, unix_ns: int = 0) -> None:
        """Let somebody hit the bid or lift the ask; the quote stays, but where there is a book."""
        book = self.book
        if book is not None:
            book.take(bool(bits & 1), self._sizes[(bits >> 1) % _SIZE_COUNT], unix_ns)
            self._follow(book)
            return
        self.is_sell = bool(bits & 1)
        price = self.bid if self.is_sell else self.ask
        size = self._sizes[(bits >> 1) % _SIZE_COUNT]
        self.last = price
        self.last_size = size
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.base_volume += size
        self.quote_volume += size * price
        self.trade_id += 1
        self.traded_unix_ns = unix_ns

    def burst(self, count: int, unix_ns: int) -> None:
        """Let `count` trades happen at once."""
        book = self.order_book()
        book.burst(count, unix_ns)
        self._follow(book)

    def _follow(self, book: OrderBook) -> None:
        """Stand as the book does."""
        for fill in self._fills:
            self.last, self.last_size, self.is_sell = fill.price, fill.size, fill.is_sell
            self.high = max(self.high, fill.price)
            self.low = min(self.low, fill.price)
            self.base_volume += fill.size
            self.quote_volume += fill.size * fill.price
            self.traded_unix_ns = fill.unix_ns
        self._fills.clear()
        self.trade_id = book.trade_id
        self.update_id = book.update_id
        bids, asks = book.best_bids(1), book.best_asks(1)
        self.is_quote_new = (bids, asks) != self._best
        self._best = (bids, asks)
        for level in bids:
            self.bid, self.bid_size = level
        for level in asks:
            self.ask, self.ask_size = level

    def _move(self, ticks: int) -> None:
        bid = self.bid + ticks
        if bid < self._floor or bid > self._ceiling:
            bid = self.bid - ticks
        self.bid = bid
        self.ask = bid + (1 if bid & 1 else 1 + self._quantum)


class ContractInstrument(Instrument):
    """A contract: a market of its own, which stays near that of its pair."""

    __slots__ = ("pair",)

    def __init__(self, pair: Instrument, listing: Listing, sizes: Sequence[int], rng: random.Random) -> None:
        super().__init__(pair.index, listing, sizes, rng)
        self.pair = pair

    def step(self, bits: int, unix_ns: int = 0) -> None:
        away = self.bid - self.pair.bid
        if abs(away) > self.pair.bid // BASIS_PART:
            if self.book is not None:
                self.book.push(away < 0, unix_ns)
            else:
                self._move(-self._quantum if away > 0 else self._quantum)
        super().step(bits, unix_ns)


def instruments_of(listings: Iterable[Listing], seed: int) -> list[Instrument]:
    """Return the instruments of one exchange, most traded first."""
    rng = random.Random(f"market {seed}")
    sizes = _sizes(rng)
    return [Instrument(index, listing, sizes, rng) for index, listing in enumerate(listings)]


def contracts_of(pairs: Iterable[tuple[Instrument, Listing]], seed: int) -> list[ContractInstrument]:
    """Return contracts, each with the rank of the pair that it is about: it is traded as often."""
    rng = random.Random(f"contracts {seed}")
    sizes = _sizes(rng)
    return [ContractInstrument(pair, listing, sizes, rng) for pair, listing in pairs]


def _sizes(rng: random.Random) -> list[int]:
    return [int(10 ** rng.uniform(1, 5)) for _ in range(_SIZE_COUNT)]


def universe(seed: int, count: int, odd: Sequence[Listing]) -> list[Listing]:
    """List `count` pairs, or more if the majors and `odd` alone are more: majors against USDT come first."""
    rng = random.Random(f"universe {seed}")
    listings = [Listing(base=base, quote="USDT", price=price) for base, price in MAJORS]
    listings += odd
    listings += [
        _cross(base, price, *quote) for quote in QUOTES for base, price in MAJORS if base != quote[0]
    ]
    taken = {listing.base for listing in listings}
    while len(listings) < count:
        base = _new_base(rng, taken)
        listings += _pairs(rng, base, price=10 ** rng.uniform(-5, 2.5))
    return listings[: max(count, len(MAJORS) + len(odd))]


def _cross(base: str, price: float, quote: str, quote_price: float) -> Listing:
    return Listing(base=base, quote=quote, price=price / quote_price)


def _new_base(rng: random.Random, taken: set[str]) -> str:
    base = rng.choice(_SYLLABLES) + rng.choice(_SYLLABLES)
    while base in taken:
        base += rng.choice(_SYLLABLES)
    taken.add(base)
    return base


def _pairs(rng: random.Random, base: str, price: float) -> list[Listing]:
    quotes = [("USDT", 1.0), *rng.sample(QUOTES, rng.randrange(0, 3))]
    return [_cross(base, price, quote, quote_price) for quote, quote_price in quotes]


def _ticks(price: float) -> tuple[int, int]:
    """Choose the tick for a price: five to seven digits, and never more than eight decimals."""
    decimals = 0
    while decimals < 8 and price * 10**decimals < 100_000:
        decimals += 1
    return decimals, max(4, round(price * 10**decimals))


def _size_decimals(price: float) -> int:
    """Choose the lot: dear coins trade in small pieces."""
    return next(decimals for floor, decimals in ((1000, 5), (10, 3), (0.1, 1), (0, 0)) if price > floor)


@lru_cache(maxsize=65_536)
def padded(value: int, decimals: int, places: int) -> bytes:
    """Print `value` * 10**-decimals with exactly `places` decimals; digits beyond them are cut off."""
    scaled = value * 10 ** (places - decimals) if places >= decimals else value // 10 ** (decimals - places)
    whole, fraction = divmod(abs(scaled), 10**places)
    return b"%s%d.%0*d" % (b"-" if scaled < 0 else b"", whole, places, fraction)


@lru_cache(maxsize=65_536)
def trimmed(value: int, decimals: int) -> bytes:
    """Print `value` * 10**-decimals without trailing zeros: 84100, 0.25."""
    if not decimals:
        return b"%d" % value
    return padded(value, decimals, decimals).rstrip(b"0").rstrip(b".")
