"""An independent client of a simulated exchange: it notes what was said, and shares no code with the feeds."""

import asyncio
import json
import math
import threading
from collections import defaultdict

import aiohttp
from harness import MAJORS, quote_topic

PING_EVERY_S = 15.0  # where the client has to; KuCoin says 18


async def no_handshake(http, port):
    return ""


async def kucoin_handshake(http, port):
    async with http.post(f"http://127.0.0.1:{port}/api/v1/bullet-public") as answer:
        return f"/?token={(await answer.json())['data']['token']}&connectId=witness"


def binance_requests():
    topics = [quote_topic("binance", symbol) for symbol in MAJORS]
    return [{"method": "SUBSCRIBE", "params": topics, "id": 1}]


def kucoin_requests():
    symbols = ",".join(symbol.replace("/", "-") for symbol in MAJORS)
    return [
        {"id": channel, "type": "subscribe", "topic": f"{channel}:{symbols}", "response": True}
        for channel in ("/spotMarket/level1", "/market/ticker")
    ]


def bybit_requests():
    return [{"op": "subscribe", "args": [quote_topic("bybit", symbol) for symbol in MAJORS]}]


def plain_update(message):
    """The update id `u` of a quote, as Binance and Bybit have it: native symbol, number, no time."""
    data = message.get("data") or {}
    return (data["s"], data["u"], 0) if "u" in data else None


def kucoin_update(message):
    """The sequence of the ticker, or the time in ms of the quote, which has no other id."""
    channel, _, native = message.get("topic", "").partition(":")
    if channel == "/market/ticker":
        return native, int(message["data"]["sequence"]), 0
    return (native, 0, message["data"]["timestamp"]) if native else None


# The path or where it comes from, what to ask for, how to read an update, and the client's ping.
PROTOCOLS = {
    "binance": ("/stream", no_handshake, binance_requests, plain_update, None),
    "kucoin": ("", kucoin_handshake, kucoin_requests, kucoin_update, {"id": "ping", "type": "ping"}),
    "bybit": ("/v5/public/spot", no_handshake, bybit_requests, plain_update, {"op": "ping"}),
}


class Witness:
    """Notes every update of the majors' quotes, by canonical symbol, until it is closed.

    seen are update ids, times_ns the times that stand in for them where an exchange states none.
    """

    def __init__(self, exchange, port):
        self.seen = defaultdict(list)
        self.times_ns = defaultdict(list)
        self.failure = ""  # why it could not hear everything until the end
        self._protocol = PROTOCOLS[exchange]
        self._port = port
        self._symbols = {symbol.replace("/", ""): symbol for symbol in MAJORS}
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._run(),), daemon=True
        )
        self._thread.start()

    @property
    def hears_all(self):
        return all(self.seen.get(symbol) for symbol in MAJORS)

    def requests(self):
        return self._protocol[2]()

    def note(self, message):
        update = self._protocol[3](message)
        if update is not None:
            native, number, ms = update
            symbol = self._symbols[native.replace("-", "")]
            if number:
                self.seen[symbol].append(number)
            if ms:
                self.times_ns[symbol].append(ms * 1_000_000)

    async def _run(self):
        path, handshake, _, _, ping = self._protocol
        try:
            async with aiohttp.ClientSession() as http:
                path += await handshake(http, self._port)
                async with http.ws_connect(f"ws://127.0.0.1:{self._port}{path}") as ws:
                    tasks = [asyncio.create_task(self._read(ws, self.requests()))]
                    tasks += [asyncio.create_task(self._keep_alive(ws, ping))] if ping else []
                    tasks.append(asyncio.create_task(self._stop.wait()))
                    await self.begin(http)
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in tasks:
                        task.cancel()
                    if not self._stop.is_set():
                        self.failure = "the exchange closed its connection"
        except (aiohttp.ClientError, OSError) as exc:
            self.failure = f"{type(exc).__name__}: {exc}"

    async def begin(self, http):
        """Fetch what is to be known besides."""

    async def _keep_alive(self, ws, ping):
        while True:
            await asyncio.sleep(PING_EVERY_S)
            await ws.send_json(ping)

    async def _read(self, ws, requests):
        is_welcome_due = self._protocol[1] is kucoin_handshake
        if is_welcome_due:
            await ws.receive()
        for request in requests:
            await ws.send_json(request)
        async for message in ws:
            self.note(json.loads(message.data))

    def close(self):
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(30)


# Where the changes of a book are said, and its base, if the first message is none.
CHANGES = {
    "binance": "{lower}@depth@100ms",
    "kucoin": "/market/level2:{dashed}",
    "bybit": "orderbook.200.{name}",
}
BASES = {
    "binance": "/api/v3/depth?symbol={name}&limit=5000",
    "kucoin": "/api/v1/market/orderbook/level2_100?symbol={dashed}",
}


class WholeBook:
    """The book of one symbol: a base, and what follows it, of which nothing is missing on one connection.

    A base of so many levels may be a part of the book: what is beyond it is not known.
    """

    def __init__(self, levels_max=0):
        self.bids, self.asks = {}, {}
        self.last_id = 0
        self._waiting = []
        self._levels_max = levels_max
        self._known = 0.0, math.inf

    def begin(self, last_id, bids, asks):
        self.bids = {float(price): float(size) for price, size in bids}
        self.asks = {float(price): float(size) for price, size in asks}
        is_whole = not self._levels_max
        self._known = (
            0.0 if is_whole or len(self.bids) < self._levels_max else min(self.bids),
            math.inf if is_whole or len(self.asks) < self._levels_max else max(self.asks),
        )
        self.last_id = last_id
        waiting, self._waiting = self._waiting, []
        return [self.best() for each in waiting if self.change(*each)]

    def follows(self, last_id):
        """True if the changes that wait follow a base of an id."""
        return bool(self._waiting) and self._waiting[0][0] <= last_id + 1

    def change(self, first_id, last_id, bids, asks):
        """Take changes; True if there is a new book. Levels may come with ids of their own."""
        if not self.last_id:
            self._waiting.append((first_id, last_id, bids, asks))
            return False
        if last_id <= self.last_id:
            return False
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, size, *number in levels:
                if not number or (int(number[0]) > self.last_id and float(price)):
                    side[float(price)] = float(size)
                    if not float(size):
                        del side[float(price)]
        self.last_id = last_id
        return True

    def best(self):
        """Return the id and the best levels, as far as they are known."""
        low, high = self._known
        bids = sorted((each for each in self.bids.items() if each[0] >= low), reverse=True)
        asks = sorted(each for each in self.asks.items() if each[0] <= high)
        return self.last_id, (tuple(bids[:20]), tuple(asks[:20]))


class MarketWitness(Witness):
    """Notes trades, depth and books of the majors, by canonical symbol: ids, and levels by what they are known by.

    That is the exchange's id, or its time in ms, which the records carry as well; a simulator that catches up may
    say several things in one ms.
    """

    def __init__(self, exchange, port):
        self.exchange = exchange
        self.trades = defaultdict(list)
        self.depths = defaultdict(lambda: defaultdict(list))
        self.books = defaultdict(lambda: defaultdict(list))
        self._whole = defaultdict(lambda: WholeBook(100 if exchange == "kucoin" else 0))
        self._books = defaultdict(lambda: ({}, {}))  # Bybit sends changes
        super().__init__(exchange, port)

    @property
    def hears_all(self):
        return all(self.trades.get(s) and self.depths.get(s) and self.books.get(s) for s in MAJORS)

    def _book_topic(self, symbol, spelling):
        name = symbol.replace("/", "")
        return spelling[self.exchange].format(name=name, lower=name.lower(), dashed=symbol.replace("/", "-"))

    async def begin(self, http):
        lacking = list(MAJORS) if self.exchange in BASES else []
        while lacking and not self._stop.is_set():
            await asyncio.sleep(0.5)
            symbol = lacking.pop(0)
            path = self._book_topic(symbol, BASES)
            async with http.get(f"http://127.0.0.1:{self._port}{path}") as answer:
                found = await answer.json()
            found = found.get("data", found)
            last_id = int(found.get("lastUpdateId") or found["sequence"])
            if not self._whole[symbol].follows(last_id):
                lacking.append(symbol)  # it may be behind the changes
                continue
            for number, sides in self._whole[symbol].begin(last_id, found["bids"], found["asks"]):
                self.books[symbol][number].append(sides)

    def _note_book(self, topic, message, data):
        symbol = self._symbol(topic.partition("@")[0].rpartition(".")[2].rpartition(":")[2])
        book = self._whole[symbol]
        if self.exchange == "binance":
            is_new = book.change(data["U"], data["u"], data["b"], data["a"])
        elif self.exchange == "kucoin":
            changes, ids = data["changes"], (data["sequenceStart"], data["sequenceEnd"])
            is_new = book.change(*ids, changes["bids"], changes["asks"])
        elif message["type"] == "snapshot":
            book.begin(data["u"], data["b"], data["a"])
            is_new = True
        else:
            is_new = book.change(data["u"], data["u"], data["b"], data["a"])
        if is_new:
            number, sides = book.best()
            self.books[symbol][number].append(sides)

    def requests(self):
        topics = [self._book_topic(symbol, CHANGES) for symbol in MAJORS]
        if self.exchange == "binance":
            return [*self._requests(), {"method": "SUBSCRIBE", "params": topics, "id": 2}]
        if self.exchange == "bybit":
            return [*self._requests(), {"op": "subscribe", "args": topics}]
        joined = ",".join(topic.rpartition(":")[2] for topic in topics)
        topic = f"/market/level2:{joined}"
        return [*self._requests(), {"id": "book", "type": "subscribe", "topic": topic, "response": True}]

    def _requests(self):
        joined = [symbol.replace("/", "") for symbol in MAJORS]
        if self.exchange == "binance":
            params = [f"{name.lower()}@{word}" for name in joined for word in ("trade", "depth20@100ms")]
            return [{"method": "SUBSCRIBE", "params": params, "id": 1}]
        if self.exchange == "bybit":
            topics = [f"{word}.{name}" for name in joined for word in ("publicTrade", "orderbook.50")]
            return [{"op": "subscribe", "args": topics}]
        symbols = ",".join(symbol.replace("/", "-") for symbol in MAJORS)
        return [
            {"id": channel, "type": "subscribe", "topic": f"{channel}:{symbols}", "response": True}
            for channel in ("/market/match", "/spotMarket/level2Depth50")
        ]

    def note(self, message):
        topic = message.get("topic") or message.get("stream") or ""
        if topic.startswith(("/market/level2:", "orderbook.200.")) or topic.endswith("@depth@100ms"):
            self._note_book(topic, message, message["data"])
        elif topic and "data" in message:
            getattr(self, f"_note_{self.exchange}")(topic, message, message["data"])

    def _symbol(self, native):
        return self._symbols[native.replace("-", "").upper()]

    def _note_binance(self, topic, message, data):
        symbol = self._symbol(topic.partition("@")[0])
        if "t" in data:
            self.trades[symbol].append(str(data["t"]))
        else:
            self.depths[symbol][data["lastUpdateId"]].append(self._best(data["bids"], data["asks"]))

    def _note_kucoin(self, topic, message, data):
        symbol = self._symbol(topic.rpartition(":")[2])
        if "tradeId" in data:
            self.trades[symbol].append(data["tradeId"])
        elif "timestamp" in data:
            self.depths[symbol][data["timestamp"]].append(self._best(data["bids"], data["asks"]))

    def _note_bybit(self, topic, message, data):
        symbol = self._symbol(topic.rpartition(".")[2])
        if isinstance(data, list):
            self.trades[symbol] += [row["i"] for row in data]
            return
        if message["type"] == "snapshot":
            self._books[symbol] = ({}, {})
        for side, levels in zip(self._books[symbol], (data["b"], data["a"]), strict=True):
            for price, size in levels:
                side[float(price)] = size
                if not float(size):
                    del side[float(price)]
        bids, asks = self._books[symbol]
        best = self._best(sorted(bids.items(), reverse=True), sorted(asks.items()))
        self.depths[symbol][data["u"]].append(best)

    @staticmethod
    def _best(bids, asks):
        return [tuple((float(price), float(size)) for price, size in side[:20]) for side in (bids, asks)]
