"""Trades, depth and books of the simulated worlds: an order book that trades, what is sent of it, what must come.

    Tape ──frames──▶ feed ──records──▶ Taken: no trade twice, none never made, no depth or book that never was

A `Tape` is one symbol of an exchange, and knows what is true; a `Taken` is what somebody was given of it.
"""

import math
import random

from feedhandler.data import kept_book, wire
from feedhandler.sim.order_book import Fill, OrderBook
from feedhandler.sim.sources import ChangeSource, WindowSource

NS_PER_MS = 1_000_000
TRADE, DEPTH, BOOK = "trade", "depth", "book"
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
DEPTHS = {
    "binance": "{lower}@depth20@100ms",
    "kucoin": "/spotMarket/level2Depth50:{native}",
    "bybit": "orderbook.50.{native}",
}
BOOKS = {
    "binance": "{lower}@depth@100ms",
    "kucoin": "/market/level2:{native}",
    "bybit": "orderbook.200.{native}",
}
BASE_LEVELS = 30  # a side that REST states, or a window of changes has: a part of the book
ALL_LEVELS = 10 * LEVELS
COUNT_OF_LINE = 1_000_000_000  # connections may number the same changes differently, by multiples of this
KINDS_DRAWN = ((),) * 6 + ((TRADE, DEPTH), (TRADE, DEPTH, BOOK), (TRADE, DEPTH, BOOK), (TRADE,))


def kinds_of(seed):
    """Draw what a seed's feeds carry beside tickers: most of them nothing."""
    return random.Random(f"kinds {seed}").choice(KINDS_DRAWN)


def topics_of(exchange, native):
    """Return the topics of a symbol's trades, depth and book."""
    return {
        kind: spelling[exchange].format(native=native, lower=native.lower())
        for kind, spelling in ((TRADE, TRADES), (DEPTH, DEPTHS), (BOOK, BOOKS))
    }


def narrow(market):
    """Have an exchange's file offer fewer levels than there are, so that what is known of a book has an end."""
    if market.base_levels:
        market.base_levels = BASE_LEVELS
    else:
        market.book_levels = BASE_LEVELS


def texts(levels):
    return [[str(price), str(size)] for price, size in levels]


class Tape:
    """One symbol's book, its trades, and the frames in which the exchange sends both."""

    def __init__(self, exchange, native, seed, kinds=()):
        self.exchange, self.native = exchange, native
        self.has_book = BOOK in kinds
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
        is_window = exchange == "bybit"
        self._book_source = WindowSource(self.book, BASE_LEVELS) if is_window else ChangeSource(self.book)
        if self.has_book:
            self._book_source.start()
        self.books = {}  # by what `book_key` returns: what the book was
        self.book_times = []  # (when, id, both sides) of each message of changes
        self.book_id = self.book_sent_ns = 0
        self.numbers_alike = False  # all connections do: since a restart
        self.is_book_restarting = False

    def restart(self):
        """The exchange's service begins its books anew: where changes are of a window, that is seen."""
        self.is_restarting = self.is_book_restarting = self.exchange == "bybit"

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

    # --- every level

    def changes(self, unix_ns):
        """Return the message of what has changed of the whole book; None if nothing has, or it is too early."""
        source = self._book_source
        if not self.has_book or unix_ns - self.book_sent_ns < DEPTH_EVERY_NS or not source.take():
            return None
        if self.is_book_restarting:
            self.is_book_restarting, self.numbers_alike = False, True
            source.restart()
            source.take()
        self._note_book(unix_ns)
        if self.exchange == "binance":
            data = {"e": "depthUpdate", "E": self.book_sent_ns // 1000, "s": self.native}
            bids, asks = (texts(side.items()) for side in source.levels())
            data |= {"U": source.first_id, "u": source.last_id, "b": bids, "a": asks}
            return {"stream": self.topics[BOOK], "data": data}
        if self.exchange == "kucoin":
            levels = {"asks": [], "bids": []}
            for number, is_bid, price, size in source.message:
                levels["bids" if is_bid else "asks"].append([str(price), str(size), str(number)])
            data = {"changes": levels, "sequenceStart": source.first_id, "sequenceEnd": source.last_id}
            data |= {"symbol": self.native, "time": self.book_sent_ns // NS_PER_MS}
            return {"type": "message", "topic": self.topics[BOOK], "subject": "trade.l2update", "data": data}
        return self._book_window("snapshot" if source.is_snapshot else "delta")

    def first_book(self, unix_ns):
        """Return the window in full, as it was sent last: who subscribes gets it."""
        if not self.book_sent_ns:
            self._note_book(unix_ns)
        self._book_source.show_all()
        return self._book_window("snapshot")

    def _book_window(self, kind):
        source, ms = self._book_source, self.book_sent_ns // NS_PER_MS
        data = {"s": self.native, "b": texts(source.bids), "a": texts(source.asks), "u": source.message_id}
        data["seq"] = source.update_id
        return {"topic": self.topics[BOOK], "type": kind, "ts": ms, "cts": ms, "data": data}

    def numbered(self, message, offset):
        """Return a message of the book as a connection has it which counts from elsewhere."""
        if not offset or self.numbers_alike or self.exchange != "bybit":
            return message
        return message | {"data": message["data"] | {"u": message["data"]["u"] + offset}}

    def spoiled(self, message):
        """Return a message of the book of which nobody can read a level."""
        data = message["data"]
        if self.exchange == "kucoin":
            levels = {"asks": [["x", "1", "1"]], "bids": []}
            return message | {"data": data | {"changes": levels}}
        return message | {"data": data | {"b": [["x", "1"]]}}

    def spoiled_trades(self, frame):
        """Return a message of trades of which nobody can read the first one."""
        data = frame["data"]
        if self.exchange == "bybit":
            return frame | {"data": [data[0] | {"p": "x"}, *data[1:]]}
        return frame | {"data": data | {"price" if self.exchange == "kucoin" else "p": "x"}}

    def _note_book(self, unix_ns):
        self.book_sent_ns = unix_ns // NS_PER_MS * NS_PER_MS
        source = self._book_source
        self.book_id = source.message_id if self.exchange == "bybit" else source.last_id
        sides = self._sides_now()
        self.books[self.book_key(self.book_id, self.book_sent_ns)] = sides
        self.book_times.append((unix_ns, self.book_id, sides))

    def _sides_now(self):
        return self.book.best_bids(ALL_LEVELS), self.book.best_asks(ALL_LEVELS)

    def book_key(self, last_id, exchange_ns):
        """Return what the state of the book is known by: ids of windows may be used again, and come with a time."""
        return (last_id % COUNT_OF_LINE, exchange_ns) if self.exchange == "bybit" else last_id

    def is_newest(self, book):
        """True for a book that has what was sent last; a base may have what nobody was sent yet."""
        if self.exchange == "bybit":
            return book.last_id % COUNT_OF_LINE == self.book_id
        return book.last_id >= self.book_id

    def is_behind(self, book, sent_ns):
        """True for a book that lacks a message which was sent by a time."""
        newest = next((each for each in reversed(self.book_times) if each[0] <= sent_ns), None)
        if newest is None:
            return False
        if self.exchange == "bybit":  # where ids are used again
            return book.exchange_ns < newest[0] // NS_PER_MS * NS_PER_MS
        return book.last_id < newest[1]

    def base(self, known_ns):
        """Return what REST answers about the book, which is as it was at a time."""
        number, sides = self.book.update_id, self._sides_now()
        if older := [each for each in self.book_times[-100:] if each[0] > known_ns]:
            _, number, sides = next((e for e in reversed(self.book_times) if e[0] <= known_ns), older[0])
        self.books[number] = sides
        bids, asks = (texts(side[:BASE_LEVELS]) for side in sides)
        if self.exchange == "binance":
            return {"lastUpdateId": number, "bids": bids, "asks": asks}
        data = {"sequence": str(number), "time": known_ns // NS_PER_MS, "bids": bids, "asks": asks}
        return {"code": "200000", "data": data}

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
        self.flags = {TRADE: 0, DEPTH: 0, BOOK: 0}  # as they are now
        self.conditions = []  # of trades
        self.depths = 0
        self.key = 0  # the id or time of the newest depth
        self.best = None
        self.since_ns = 0  # since when it is wanted
        self.book = kept_book.Book()  # made of the records
        self.had_book = False  # since then

    def begin(self, unix_ns):
        """It is wanted again from now on. Of trades the same ones are known."""
        self.since_ns, self.key, self.had_book = unix_ns, 0, False

    def take(self, record, *, may_go_back=False, is_clock_right=True):
        """Look whether a record can be true; raises AssertionError."""
        if record.kind == wire.TRADE:
            self._take_trade(record, is_clock_right=is_clock_right)
        elif record.kind == wire.DEPTH:
            self._take_depth(record, may_go_back=may_go_back)
        elif record.topic.startswith(BOOK):
            self.flags[BOOK] = record.flags
            self.take_book(record)
        elif record.kind == wire.CONDITION:
            self.flags[TRADE] = record.flags
            self.conditions.append(record.flags)

    def _take_trade(self, record, *, is_clock_right):
        number = int(record.trade_id.rpartition("-")[2])
        fill = self.tape.trades.get(number)
        assert fill is not None, f"trade {number} was never made"
        # Feeds that follow each other know their trades by time alone, and that has been set.
        is_excused = bool(record.flags & wire.RECOVERED) and not is_clock_right
        assert number not in self.numbers or is_excused, f"trade {number} is published twice"
        stated = (record.price, record.size, str(record.side), record.exchange_ns // NS_PER_MS)
        side = "sell" if fill.is_sell else "buy"
        assert stated == (fill.price, fill.size, side, fill.unix_ns // NS_PER_MS), f"trade {number}: {stated}"
        is_wanted = not record.flags & wire.RECOVERED or fill.unix_ns >= self.since_ns - RETURNS_NS
        # Else nobody knows when connections brought something, in the exchange's time.
        assert is_wanted or not is_clock_right, f"trade {number} is of before it was wanted"
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

    def take_book(self, record):
        """Take a record or condition into the book, and look whether that is the exchange's at its id."""
        self.book.apply(record)
        self.had_book = self.had_book or self.book.is_valid
        check_book(self.book, self.tape)
        if record.kind == wire.BOOK and record.part + 1 == record.parts and self.book.is_valid:
            assert self.book.last_id == record.last_id, (
                f"{self.book!r} stays at {self.book.last_id}: {record}"
            )

    def missing(self):
        """Return the trades since the first that came which were made, and not given."""
        return [n for n in self.tape.trades if n > self.first and n not in self.numbers] if self.first else []


def check_book(book, tape):
    """A book is as the exchange's was at its id, as far as it is known, or it has no levels."""
    if not book.is_valid:
        return
    sides = tape.books.get(tape.book_key(book.last_id, book.exchange_ns))
    assert sides is not None, f"{book.topic} at {book.last_id}, where it never was"
    limits = book.known_from, book.known_to
    for side, known, made in zip((book.bids, book.asks), limits, sides, strict=True):
        count = side.count_to(known) if known < math.inf else len(side)
        expected = made if known in (0.0, math.inf) else [e for e in made if is_known(e[0], known, side)]
        text = f"{book.topic} at {book.last_id} is wrong, and nobody is told"
        assert side[:count] == expected, f"{text}: {first_difference(side[:count], expected)}"
        assert count == len(side) or set(side[count:]) <= set(made), f"{text}, beyond {known}"


def is_known(price, known, side):
    return price >= known if side.is_bids else price <= known


def first_difference(found, expected):
    at = next((at for at, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), -1)
    return (
        f"level {at} of {len(found)}, {len(expected)} expected: {found[at : at + 2]}, {expected[at : at + 2]}"
    )
