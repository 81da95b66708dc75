"""Witnesses of all markets: they note trades, liquidations and mark prices, and share no code with feeds.

`TABLE` has a line for each market; those are witnessed that are offered.
"""

import asyncio
import json
import threading
from collections import defaultdict
from typing import NamedTuple
from urllib.parse import quote

import aiohttp
from witness import PING_EVERY_S
from yarl import URL

from feedhandler.data.instruments import SPOT as SPOT_NAME
from feedhandler.exchanges import EXCHANGES

TRADE, LIQUIDATION, MARK = "trade", "liquidation", "mark"
SPOT = tuple(f"{base}/USDT" for base in ("BTC", "ETH"))
LINEAR = tuple(f"{symbol}:USDT" for symbol in SPOT)


# --- what is asked for, and what is read: kind, native symbol, id or value


def binance_requests(natives):
    return [{"method": "SUBSCRIBE", "params": [f"{name.lower()}@trade" for name in natives], "id": 1}]


def binance_read(message):
    data = message.get("data") or {}
    if "t" in data:
        yield TRADE, data["s"], str(data["t"])


def binance_linear_requests(natives):
    kinds = ("aggTrade", "forceOrder", "markPrice@1s")
    params = [f"{name.lower()}@{kind}" for name in natives for kind in kinds]
    return [{"method": "SUBSCRIBE", "params": params, "id": 1}]


def binance_linear_read(message):
    data = message.get("data") or {}
    if data.get("e") == "aggTrade":
        yield TRADE, data["s"], str(data["a"])
    elif data.get("e") == "forceOrder":
        yield LIQUIDATION, data["o"]["s"], (data["o"]["T"], float(data["o"]["p"]))
    elif data.get("e") == "markPriceUpdate":
        yield MARK, data["s"], float(data["p"])


def kucoin_requests(natives):
    return [_kucoin_topic("/market/match", natives)]


def kucoin_read(message):
    if message.get("subject") == "trade.l3match":
        yield TRADE, message["topic"].rpartition(":")[2], message["data"]["tradeId"]


def kucoin_linear_requests(natives):
    return [
        _kucoin_topic(channel, natives) for channel in ("/contractMarket/execution", "/contract/instrument")
    ]


def _kucoin_topic(channel, natives):
    return {"id": channel, "type": "subscribe", "topic": f"{channel}:{','.join(natives)}", "response": True}


def kucoin_linear_read(message):
    native = message.get("topic", "").rpartition(":")[2]
    if message.get("subject") == "match":
        yield TRADE, native, message["data"]["tradeId"]
    elif message.get("subject") == "mark.index.price":
        yield MARK, native, float(message["data"]["markPrice"])


def bybit_requests(natives):
    return [{"op": "subscribe", "args": [f"publicTrade.{name}" for name in natives]}]


def bybit_linear_requests(natives):
    channels = ("publicTrade", "allLiquidation", "tickers")
    return [{"op": "subscribe", "args": [f"{channel}.{name}" for channel in channels for name in natives]}]


def bybit_read(message):
    topic, data = message.get("topic", ""), message.get("data")
    channel, _, native = topic.partition(".")
    if channel == "publicTrade":
        yield from ((TRADE, native, row["i"]) for row in data)
    elif channel == "allLiquidation":
        yield from ((LIQUIDATION, native, (row["T"], float(row["p"]))) for row in data)
    elif channel == "tickers" and "markPrice" in data:
        yield MARK, native, float(data["markPrice"])


def okx_requests(natives):
    return [{"op": "subscribe", "args": [{"channel": "trades", "instId": name} for name in natives]}]


def okx_linear_requests(natives):
    args = [{"channel": channel, "instId": name} for channel in ("trades", "mark-price") for name in natives]
    return [{"op": "subscribe", "args": [*args, {"channel": "liquidation-orders", "instType": "SWAP"}]}]


def okx_read(message):
    if not isinstance(message, dict):
        return
    channel = message.get("arg", {}).get("channel")
    for row in message.get("data", ()):
        if channel == "trades":
            yield TRADE, row["instId"], row["tradeId"]
        elif channel == "mark-price":
            yield MARK, row["instId"], float(row["markPx"])
        elif channel == "liquidation-orders":
            for each in row["details"]:
                yield LIQUIDATION, row["instId"], (int(each["ts"]), float(each["bkPx"]))


class Row(NamedTuple):
    """How a market's witness connects, how symbols are spelled, what it asks for, how it reads, and its ping."""

    path: str
    spelling: str
    requests: object
    read: object
    ping: str = ""
    handshake: str = ""
    has_liquidations: bool = False


TABLE = {
    ("binance", SPOT): Row("/stream", "{base}USDT", binance_requests, binance_read),
    ("binance", LINEAR): Row(
        "/linear/market/stream",
        "{base}USDT",
        binance_linear_requests,
        binance_linear_read,
        has_liquidations=True,
    ),
    ("kucoin", SPOT): Row(
        "/", "{base}-USDT", kucoin_requests, kucoin_read, '{"id":"p","type":"ping"}', "/api/v1/bullet-public"
    ),
    ("kucoin", LINEAR): Row(
        "/linear/",
        "{code}USDTM",
        kucoin_linear_requests,
        kucoin_linear_read,
        '{"id":"p","type":"ping"}',
        "/linear/api/v1/bullet-public",
    ),
    ("bybit", SPOT): Row("/v5/public/spot", "{base}USDT", bybit_requests, bybit_read, '{"op":"ping"}'),
    ("bybit", LINEAR): Row(
        "/v5/public/linear",
        "{base}USDT",
        bybit_linear_requests,
        bybit_read,
        '{"op":"ping"}',
        has_liquidations=True,
    ),
    ("okx", SPOT): Row("/ws/v5/public", "{base}-USDT", okx_requests, okx_read, "ping"),
    ("okx", LINEAR): Row(
        "/ws/v5/public", "{base}-USDT-SWAP", okx_linear_requests, okx_read, "ping", has_liquidations=True
    ),
}


OFFERED = [
    (name, LINEAR if market.name != SPOT_NAME else SPOT)
    for name, each in EXCHANGES.items()
    for market in each.markets
]
MARKETS = {each: row for each, row in TABLE.items() if each in OFFERED}
ALL = tuple(dict.fromkeys(name for name, _ in MARKETS))


def symbols_of(exchange):
    return [symbol for name, symbols in MARKETS if name == exchange for symbol in symbols]


class MarketsWitness:
    """Notes what an exchange says of all of its markets, by canonical symbol, until it is closed."""

    def __init__(self, exchange, port):
        self.exchange = exchange
        self.trades, self.liquidations = defaultdict(list), defaultdict(list)
        self.marks = {}  # the newest
        self.depths, self.books = {}, {}  # these are others' business
        self.failure = ""  # why it could not hear everything until the end
        self._rows = {symbols: row for (name, symbols), row in MARKETS.items() if name == exchange}
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        work = self._loop.run_until_complete
        self._thread = threading.Thread(target=work, args=(self._run(),), daemon=True)
        self._thread.start()

    @property
    def hears_all(self):
        symbols = symbols_of(self.exchange)
        contracts = [symbol for symbol in symbols if ":" in symbol]
        return all(map(self.trades.get, symbols)) and all(symbol in self.marks for symbol in contracts)

    async def _run(self):
        try:
            async with aiohttp.ClientSession() as http:
                tasks = [asyncio.create_task(self._hear(http, *each)) for each in self._rows.items()]
                tasks.append(asyncio.create_task(self._stop.wait()))
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                for task in done:
                    task.result()
                if not self._stop.is_set():
                    self.failure = "the exchange closed a connection"
        except (aiohttp.ClientError, OSError) as exc:
            self.failure = f"{type(exc).__name__}: {exc}"

    async def _hear(self, http, symbols, row):
        query = ""
        if row.handshake:
            async with http.post(f"http://127.0.0.1:{self._port}{row.handshake}") as answer:
                query = f"?token={quote((await answer.json())['data']['token'], safe='')}&connectId=witness"
        natives = {}
        for symbol in symbols:
            base = symbol.partition("/")[0]
            natives[row.spelling.format(base=base, code="XBT" if base == "BTC" else base)] = symbol
        url = URL(f"ws://127.0.0.1:{self._port}{row.path}{query}", encoded=True)
        async with http.ws_connect(url) as ws:
            if row.handshake:
                await ws.receive()
            for request in row.requests(list(natives)):
                await ws.send_json(request)
            pinging = asyncio.create_task(self._ping(ws, row.ping))
            try:
                async for message in ws:
                    for kind, native, what in (
                        row.read(json.loads(message.data)) if message.data != "pong" else ()
                    ):
                        if native in natives:
                            self._note(kind, natives[native], what)
            finally:
                pinging.cancel()

    async def _ping(self, ws, text):
        while text:
            await asyncio.sleep(PING_EVERY_S)
            await ws.send_str(text)

    def _note(self, kind, symbol, what):
        if kind == TRADE:
            self.trades[symbol].append(what)
        elif kind == LIQUIDATION:
            self.liquidations[symbol].append(what)
        else:
            self.marks[symbol] = what

    def close(self):
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(30)
