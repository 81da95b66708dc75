"""An independent client of a simulated exchange: it notes what was said, and shares no code with the feeds."""

import asyncio
import json
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
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in tasks:
                        task.cancel()
                    if not self._stop.is_set():
                        self.failure = "the exchange closed its connection"
        except (aiohttp.ClientError, OSError) as exc:
            self.failure = f"{type(exc).__name__}: {exc}"

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


class MarketWitness(Witness):
    """Notes every trade and depth of the majors, by canonical symbol: ids, and levels by what they are known by.

    That is the exchange's id, or its time in ms, which the records carry as well; a simulator that catches up may
    say several things in one ms.
    """

    def __init__(self, exchange, port):
        self.exchange = exchange
        self.trades = defaultdict(list)
        self.depths = defaultdict(lambda: defaultdict(list))
        self._books = defaultdict(lambda: ({}, {}))  # Bybit sends changes
        super().__init__(exchange, port)

    @property
    def hears_all(self):
        return all(self.trades.get(symbol) and self.depths.get(symbol) for symbol in MAJORS)

    def requests(self):
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
        if topic and "data" in message:
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
