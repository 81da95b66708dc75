"""A simulator on real sockets and a client that talks to it: what the tests over the wire share."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote

import aiohttp
from patience import PATIENCE_S

from feedhandler.sim.server import SimServer, SimSettings
from feedhandler.sim.simulated import SIMULATED

HOST = "127.0.0.1:0"


class Client:
    """One HTTP session against one simulator."""

    def __init__(self, exchange: str, server: SimServer, http: aiohttp.ClientSession) -> None:
        self.exchange = exchange
        self.server = server
        self.http = http

    async def state(self) -> dict:
        async with self.http.get(f"{self.server.rest_url}/_sim/state") as answer:
            return await answer.json()

    async def fault(self, **request: object) -> dict:
        async with self.http.post(f"{self.server.rest_url}/_sim/faults", json=request) as answer:
            body = await answer.json()
            assert answer.status == 200, body
            return body

    async def connect(self, path: str = "") -> aiohttp.ClientWebSocketResponse:
        return await self.http.ws_connect(self.server.ws_url + (path or await self.path()), autoping=False)

    async def connect_raw(self, path: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a WebSocket that nobody decodes."""
        host, port = self.server.ws_url.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
        writer.write(handshake(path or await self.path()))
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    async def path(self) -> str:
        """Where this exchange's socket is; on KuCoin with a token that is fetched first."""
        if self.exchange != "kucoin":
            return {"binance": "/ws", "bybit": "/v5/public/spot", "okx": "/ws/v5/public"}[self.exchange]
        async with self.http.post(f"{self.server.rest_url}/api/v1/bullet-public") as answer:
            token = (await answer.json())["data"]["token"]
        return f"/?token={quote(token, safe='')}&connectId=me"

    async def rest(self, path: str) -> object:
        async with self.http.get(f"{self.server.rest_url}{path}") as answer:
            return await answer.json()

    async def wait_for(self, is_reached: Callable[[dict], bool]) -> dict:
        """Look at the state until it is as wanted."""
        while not is_reached(state := await self.state()):
            await asyncio.sleep(0.01)
        return state

    async def subscribe(self, ws: aiohttp.ClientWebSocketResponse, symbol: str = "BTC") -> None:
        """Ask for the best bid and offer of one symbol against USDT."""
        topic = SIMULATED[self.exchange].quote_topic(SIMULATED[self.exchange].native(symbol))
        message = {
            "binance": {"method": "SUBSCRIBE", "params": [topic], "id": 1},
            "kucoin": {"id": "1", "type": "subscribe", "topic": topic, "response": True},
            "bybit": {"req_id": "1", "op": "subscribe", "args": [topic]},
            "okx": okx_request(topic),
        }
        await ws.send_json(message[self.exchange])


def okx_request(topic: str) -> dict:
    """Return the request for what this simulator calls a topic."""
    channel, _, symbol = topic.partition(":")
    return {"id": "1", "op": "subscribe", "args": [{"channel": channel, "instId": symbol}]}


def handshake(path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    ).encode()


def make(exchange: str, rules=None, **settings) -> SimServer:
    """Without further settings a market at a known rate, so that nobody has to wait for it."""
    chosen = SimSettings(**{"messages_per_s": 1000} | settings)
    return SimServer(exchange, chosen, ws_url=f"ws://{HOST}", rest_url=f"http://{HOST}", rules=rules)


@asynccontextmanager
async def running(exchange: str, rules=None, **settings) -> AsyncIterator[Client]:
    server = make(exchange, rules, **settings)
    await server.start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE_S)) as http:
            yield Client(exchange, server, http)
    finally:
        await server.close()


def run(scenario: Awaitable[None]) -> None:
    """Run one scenario to its end; what it leaves running is an error."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left, left

    asyncio.run(bounded())


async def until(ws: aiohttp.ClientWebSocketResponse, is_wanted: Callable[[dict], bool]) -> dict:
    """Read on until a message is wanted."""
    while True:
        message = await ws.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, message
        decoded = json.loads(message.data)
        if is_wanted(decoded):
            return decoded


async def end_of(ws: aiohttp.ClientWebSocketResponse) -> aiohttp.WSMessage:
    """Read on until the connection ends, however it does."""
    while True:
        message = await ws.receive()
        if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.PING):
            return message


def is_quote(message: dict) -> bool:
    """A push of best bid and offer, on any of them."""
    data = message.get("data", message)
    if isinstance(data, list):
        return any("bids" in row for row in data)
    return isinstance(data, dict) and ("b" in data or "bids" in data)
