"""A simulated exchange in a thread of its own, for other people's clients, many of which block."""

import asyncio
import heapq
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

import pytest
from patience import PATIENCE_S

from feedhandler.sim.market import Instrument
from feedhandler.sim.order_book import Fill, LevelChange
from feedhandler.sim.server import SimServer, SimSettings

QUIET_SETTINGS = SimSettings(messages_per_s=200.0)  # some of these clients are slow


Levels = list[list[float]]  # price, size


class Simulator:
    """Where it is, and what it has seen."""

    def __init__(self, server: SimServer) -> None:
        self.ws_url = server.ws_url
        self.rest_url = server.rest_url
        self._exchange = server._exchange

    def follow(self, symbol: str, market: str = "") -> "History":
        """Note all that happens to a symbol from now on; before anybody subscribes to it."""
        by_symbol = self._exchange.by_symbol_of[market] if market else self._exchange.by_symbol
        return History(by_symbol[symbol])

    def state(self) -> dict:
        with urlopen(f"{self.rest_url}/_sim/state", timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def fault(self, **request: object) -> None:
        body = json.dumps(request).encode()
        with urlopen(f"{self.rest_url}/_sim/faults", body, timeout=PATIENCE_S) as answer:
            assert json.load(answer)["ok"]

    def wait_for_topic(self, topic: str) -> None:
        """Wait until some private connection is subscribed, whatever the client says about it."""
        until = time.monotonic() + PATIENCE_S
        while not any(
            each["is_private"] and topic in each["subscriptions"] for each in self.state()["connections"]
        ):
            assert time.monotonic() < until, self.state()
            time.sleep(0.01)

    def assert_well_behaved(self) -> None:
        state = self.state()
        assert state["violations"] == []
        assert state["connections_opened"] == 1, "it had to reconnect"
        assert state["messages_sent"] > 0


class History:
    """What has happened to a simulated book, to hold other people's against it."""

    def __init__(self, instrument: Instrument) -> None:
        book = instrument.order_book()
        self._instrument = instrument
        self._first = (book.update_id, dict(book.bids), dict(book.asks))
        self._changes: list[LevelChange] = []
        self.fills: list[Fill] = []
        book.change_logs.append(self._changes)
        book.fill_logs.append(self.fills)

    def best(self, update_id: int, count: int) -> tuple[Levels, Levels]:
        """Return the best levels as they were after a change."""
        return next(self._best(sides, count) for known_id, sides in self._sides() if known_id == update_id)

    def states(self, count: int) -> Iterator[tuple[int, tuple[Levels, Levels]]]:
        """Return the best levels after each change, the oldest first, as floats that their texts decode to."""
        return ((update_id, self._best(sides, count)) for update_id, sides in self._sides())

    def _sides(self) -> Iterator[tuple[int, tuple[dict[int, int], dict[int, int]]]]:
        """Return both sides after each change; the next one changes them."""
        update_id, bids, asks = self._first[0], dict(self._first[1]), dict(self._first[2])
        for change in [None, *self._changes]:
            if change is not None:
                update_id = change.update_id
                side = bids if change.is_bid else asks
                if change.size:
                    side[change.price] = change.size
                else:
                    side.pop(change.price, None)
            yield update_id, (bids, asks)

    def _best(self, sides: tuple[dict[int, int], dict[int, int]], count: int) -> tuple[Levels, Levels]:
        bids, asks = sides
        return (
            [self.level(*each) for each in heapq.nlargest(count, bids.items())],
            [self.level(*each) for each in heapq.nsmallest(count, asks.items())],
        )

    def level(self, price: int, size: int) -> list[float]:
        # A float has each of these whole numbers exactly, so the quotient is the float nearest to the text.
        return [price / 10**self._instrument.price_decimals, size / 10**self._instrument.size_decimals]

    def level_of(self, price: float, contracts: float) -> list[float]:
        """Return a level as ours are, of one whose size is a number of contracts."""
        return [price, contracts / 10**self._instrument.size_decimals]

    def merged(self, last_id: int, count: int) -> tuple[float, float, str]:
        """Return some trades in a row as one of their size, at the price and on the side that all had."""
        fills = [fill for fill in self.fills if last_id - count < fill.trade_id <= last_id]
        assert len(fills) == count
        [(price, is_sell)] = {(fill.price, fill.is_sell) for fill in fills}
        size = sum(fill.size for fill in fills)
        return (*self.level(price, size), "sell" if is_sell else "buy")

    def had(self, trades: list[tuple[float, float, str]]) -> bool:
        """Whether these were trades, one after the other, none left out: (price, size, side)."""
        known = [
            (*self.level(fill.price, fill.size), "sell" if fill.is_sell else "buy") for fill in self.fills
        ]
        return any(known[start : start + len(trades)] == trades for start in range(len(known)))


@contextmanager
def _running(exchange: str) -> Iterator[Simulator]:
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, SimServer]] = []
    is_started = threading.Event()

    async def main() -> None:
        url = "127.0.0.1:0"
        server = SimServer(exchange, QUIET_SETTINGS, ws_url=f"ws://{url}", rest_url=f"http://{url}")
        stop = asyncio.Event()
        await server.start()
        try:
            started.append((asyncio.get_running_loop(), stop, server))
            is_started.set()
            await stop.wait()
        finally:
            await server.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),), name=f"sim {exchange}")
    thread.start()
    assert is_started.wait(PATIENCE_S)
    loop, stop, server = started[0]
    try:
        yield Simulator(server)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.fixture
def binance() -> Iterator[Simulator]:
    with _running("binance") as simulator:
        yield simulator


@pytest.fixture
def kucoin() -> Iterator[Simulator]:
    with _running("kucoin") as simulator:
        yield simulator


@pytest.fixture
def bybit() -> Iterator[Simulator]:
    with _running("bybit") as simulator:
        yield simulator


@pytest.fixture
def okx() -> Iterator[Simulator]:
    with _running("okx") as simulator:
        yield simulator
