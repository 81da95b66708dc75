"""Trades and depth of the simulated worlds: an order book that trades, what is sent of it, what must come of it.

    Tape ──frames──▶ feed ──records──▶ Taken: no trade twice, none that was not made, no depth that never was

A `Tape` is one symbol of an exchange, and knows what is true; a `Taken` is what somebody was given of it.
"""

import random

from feedhandler.data import wire
from feedhandler.sim.order_book import Fill, OrderBook
from feedhandler.sim.sources import WindowSource

NS_PER_MS = 1_000_000
TRADE, DEPTH = "trade", "depth"
TICKS = 1_000_000  # prices are far above those of tickers' quotes
LEVELS = 45  # a side, about: more than some of the exchanges show
SIZES = tuple(1 + number * number % 97 for number in range(512))
DEPTH_EVERY_NS = 100 * NS_PER_MS
STEP = {"kucoin": 7}  # between two trades' numbers, where others count there too
SHOWN = {"binance": 20, "kucoin": 50, "bybit": 50}
PUBLISHED = 20
RETURNS_NS = 5_000_000_000  # whoever is wanted again so soon may not have been let go
BYBIT_FRAME_MAX = 1024
REST_MAX = {"binance": 1000, "kucoin": 100, "bybit": 60}
TRADES = {"binance": "{lower}@trade", "kucoin": "/market/match:{native}", "bybit": "publicTrade.{native}"}
BOOKS = {
    "binance": "{lower}@depth20@100ms",
    "kucoin": "/spotMarket/level2Depth50:{native}",
    "bybit": "orderbook.50.{native}",
}
KINDS_DRAWN = ((),) * 6 + ((TRADE, DEPTH),) * 3 + ((TRADE,),)


def kinds_of(seed):
    """Draw what a seed's feeds carry beside tickers: most of them nothing."""
    return random.Random(f"kinds {seed}").choice(KINDS_DRAWN)


def topics_of(exchange, native):
    """Return the topics of a symbol's trades and depth."""
    return {
        kind: spelling[exchange].format(native=native, lower=native.lower())
        for kind, spelling in ((TRADE, TRADES), (DEPTH, BOOKS))
    }


def texts(levels):
    return [[str(price), str(size)] for price, size in levels]


class Tape:
    """One symbol's book, its trades, and the frames in which the exchange sends both."""

    def __init__(self, exchange, native, seed):
        self.exchange, self.native = exchange, native
        self.topics = topics_of(exchange, native)
        self.book = OrderBook(
            ((TICKS, 50), (TICKS + 1, 50)),
            Fill(1000, 1_000_000, TICKS, 1, False, 0),
            levels=LEVELS,
            quantum=2,
            bounds=(TICKS // 2, 2 * TICKS),
            sizes=SIZES,
            is_thin=False,
            seed=f"tape {exchange} {native} {seed}",
        )
        self._fills = []
        self.book.fill_logs.append(self._fills)
        self._window = WindowSource(self.book, SHOWN[exchange])
        self._window.start()
        self.trades = {}  # number → what was traded
        self.levels = {}  # by the id or time of each depth that was sent: what its best levels were
        self.key = self.sent_ns = 0  # of the newest
        self._sides = ((), ())
        self.best = ((), ())
        self.is_restarting = False

    def step(self, unix_ns):
        """Let something happen. Returns the frames of trades, each with the numbers in it."""
        self.book.step(unix_ns)
        fills, self._fills[:] = self._fills[:], []
        numbers = []
        for fill in fills:
            number = fill.trade_id * STEP.get(self.exchange, 1)
            self.trades[number] = fill
            numbers.append(number)
        if self.exchange != "bybit":
            return [(self._trade(number), [number]) for number in numbers]
        runs = [numbers[at : at + BYBIT_FRAME_MAX] for at in range(0, len(numbers), BYBIT_FRAME_MAX)]
        return [(self._rows(run), run) for run in runs]

    def _trade(self, number):
        fill, topic = self.trades[number], self.topics[TRADE]
        if self.exchange == "binance":
            data = {"e": "trade", "E": fill.unix_ns // 1000, "s": self.native, "t": number}
            data |= {"p": str(fill.price), "q": str(fill.size), "T": fill.unix_ns // 1000, "m": fill.is_sell}
            return {"stream": topic, "data": data}
        data = {"sequence": str(number), "tradeId": str(number), "price": str(fill.price)}
        data |= {"size": str(fill.size), "side": "sell" if fill.is_sell else "buy", "time": str(fill.unix_ns)}
        return {"type": "message", "topic": topic, "subject": "trade.l3match", "data": data}

    def _rows(self, numbers):
        rows = []
        for number in numbers:
            fill = self.trades[number]
            row = {"i": f"id-{number}", "T": fill.unix_ns // NS_PER_MS, "p": str(fill.price)}
            row |= {"v": str(fill.size), "S": "Sell" if fill.is_sell else "Buy", "seq": fill.update_id}
            rows.append(row)
        return {"topic": self.topics[TRADE], "type": "snapshot", "ts": rows[-1]["T"], "data": rows}

    def depth(self, unix_ns):
        """Return the frame of what has changed of the levels; None if nothing has, or it is too early."""
        if unix_ns - self.sent_ns < DEPTH_EVERY_NS or not self._window.take():
            return None
        if self.is_restarting:
            self.is_restarting = False
            self._window.restart()
            self._window.take()
        self._note(unix_ns)
        if self.exchange != "bybit":
            return self._whole()
        kind = "snapshot" if self._window.is_snapshot else "delta"
        return self._bybit(kind, self._window.bids, self._window.asks)

    def first_depth(self, unix_ns):
        """Return the levels in full, as they were sent last: who subscribes gets them."""
        if not self.sent_ns:
            self._note(unix_ns)
        return self._bybit("snapshot", *self._sides) if self.exchange == "bybit" else self._whole()

    def _note(self, unix_ns):
        count = SHOWN[self.exchange]
        self._sides = self.book.best_bids(count), self.book.best_asks(count)
        self.best = tuple(
            tuple((float(price), float(size)) for price, size in side[:PUBLISHED]) for side in self._sides
        )
        self.sent_ns = unix_ns // NS_PER_MS * NS_PER_MS
        self.key = self.book.update_id if self.exchange == "binance" else self.sent_ns
        self.levels[self.key] = hash(self.best)

    def _whole(self):
        bids, asks = map(texts, self._sides)
        topic = self.topics[DEPTH]
        if self.exchange == "binance":
            return {"stream": topic, "data": {"lastUpdateId": self.key, "bids": bids, "asks": asks}}
        data = {"asks": asks, "bids": bids, "timestamp": self.sent_ns // NS_PER_MS}
        return {"type": "message", "topic": topic, "subject": "level2", "data": data}

    def _bybit(self, kind, bids, asks):
        data = {"s": self.native, "b": texts(bids), "a": texts(asks), "u": self._window.message_id}
        data["seq"] = self._window.update_id
        ms = self.sent_ns // NS_PER_MS
        return {"topic": self.topics[DEPTH], "type": kind, "ts": ms, "cts": ms, "data": data}

    def past(self, path, known_ns):
        """Return what REST answers about trades, of those that it knows: until a time."""
        numbers = [number for number, fill in self.trades.items() if fill.unix_ns <= known_ns]
        count = REST_MAX[self.exchange]
        if self.exchange == "binance":
            first = int(path.partition("fromId=")[2].partition("&")[0])
            return [self._past(number) for number in numbers if number >= first][:count]
        rows = [self._past(number) for number in numbers[: -count - 1 : -1]]
        if self.exchange == "kucoin":
            return {"code": "200000", "data": rows}
        return {"retCode": 0, "retMsg": "OK", "result": {"category": "spot", "list": rows}}

    def _past(self, number):
        fill = self.trades[number]
        price, size, side = str(fill.price), str(fill.size), "Sell" if fill.is_sell else "Buy"
        if self.exchange == "binance":
            row = {"id": number, "price": price, "qty": size, "time": fill.unix_ns // 1000}
            return row | {"isBuyerMaker": fill.is_sell}
        if self.exchange == "kucoin":
            row = {"sequence": str(number), "price": price, "size": size}
            return row | {"side": side.lower(), "time": fill.unix_ns}
        row = {"execId": f"id-{number}", "symbol": self.native, "price": price, "size": size, "side": side}
        row |= {"time": str(fill.unix_ns // NS_PER_MS), "isBlockTrade": False, "seq": str(fill.update_id)}
        return row


class Taken:
    """What somebody was given of one symbol."""

    def __init__(self, tape):
        self.tape = tape
        self.numbers = {}  # of trades, in their order: the flags of each
        self.first = self.newest = 0  # numbers of the first and the last
        self.flags = {TRADE: 0, DEPTH: 0}  # as they are now
        self.conditions = []  # of trades
        self.depths = 0
        self.key = 0  # the id or time of the newest depth
        self.best = None
        self.since_ns = 0  # since when it is wanted

    def begin(self, unix_ns):
        """It is wanted again from now on. Of trades the same ones are known."""
        self.since_ns, self.key = unix_ns, 0

    def take(self, record, *, may_go_back=False):
        """Look whether a record can be true; raises AssertionError."""
        if record.kind == wire.TRADE:
            self._take_trade(record)
        elif record.kind == wire.DEPTH:
            self._take_depth(record, may_go_back=may_go_back)
        elif record.kind == wire.CONDITION:
            self.flags[TRADE] = record.flags
            self.conditions.append(record.flags)

    def _take_trade(self, record):
        number = int(record.trade_id.rpartition("-")[2])
        fill = self.tape.trades.get(number)
        assert fill is not None, f"trade {number} was never made"
        assert number not in self.numbers, f"trade {number} is published twice"
        stated = (record.price, record.size, str(record.side), record.exchange_ns // NS_PER_MS)
        side = "sell" if fill.is_sell else "buy"
        assert stated == (fill.price, fill.size, side, fill.unix_ns // NS_PER_MS), f"trade {number}: {stated}"
        is_wanted = not record.flags & wire.RECOVERED or fill.unix_ns >= self.since_ns - RETURNS_NS
        assert is_wanted, f"trade {number} is of before it was wanted"
        self.first = self.first or number
        self.newest = number
        self.numbers[number] = record.flags
        self.flags[TRADE] = 0

    def _take_depth(self, record, *, may_go_back):
        self.flags[DEPTH] = record.flags
        self.depths += 1
        if record.flags & wire.NOT_LIVE:
            return
        before = self.key
        self.key = record.exchange_sequence if self.tape.exchange == "binance" else record.exchange_ns
        assert may_go_back or self.key >= before, f"depth moves from {before} back to {self.key}"
        self.best = record.bids, record.asks
        assert self.key in self.tape.levels, f"depth of {self.key}, which never was"
        assert hash(self.best) == self.tape.levels[self.key], f"depth of {self.key} is wrong, and not flagged"

    def missing(self):
        """Return the trades since the first that came which were made, and not given."""
        return [n for n in self.tape.trades if n > self.first and n not in self.numbers] if self.first else []
