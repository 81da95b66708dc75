"""What the micro-benchmarks move: frames of tests/frames, exchanges and sessions that know them, records.

The one place to adapt when a constructor changes. Nothing here is timed.
"""

import asyncio
import collections
import importlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
from table import RECV_NS, load

from feedhandler.data import wire
from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.contracts import Fanout
from feedhandler.data.depth import DEPTH as DEPTH_KIND
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.shard import WHOLE
from feedhandler.data.ticker import TICKER
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import Market
from feedhandler.exchanges.state import State
from feedhandler.feed.legs import Legs
from feedhandler.feed.publisher import Publisher
from feedhandler.feed.session import Session
from feedhandler.merger.merge import Merger
from feedhandler.runtime import config
from feedhandler.sim.simulated import SIMULATED
from feedhandler.transport import private
from feedhandler.transport.links import Inlet

RECORDS: Final = 1000  # moved by every timed call, so that the tables can show nanoseconds a record

NATIVE: Final = {name: each.native("BTC") for name, each in SIMULATED.items()}
QUOTES: Final = {"binance": "book_ticker", "bybit": "orderbook", "kucoin": "level1"}  # the fast channel
DATA: Final = [
    ("binance", "book_ticker"), ("binance", "ticker"),
    ("bybit", "orderbook"), ("bybit", "tickers"),
    ("kucoin", "level1"), ("kucoin", "snapshot"), ("kucoin", "ticker"),
]  # fmt: skip
DEPTH: Final = [("binance", "depth_twenty"), ("kucoin", "depth_fifty"), ("bybit", "depth")]
ANSWERS: Final = [
    ("binance", "ack"),
    ("bybit", "ack"),
    ("bybit", "pong"),
    ("kucoin", "ack"),
    ("kucoin", "pong"),
]


def expected(exchange: str, frame: str) -> Any:
    """Return what the exchange's own test says that a frame decodes to."""
    return dict(importlib.import_module(f"test_{exchange}").CASES)[frame]


def running_exchange(name: str, natives: Sequence[str]) -> Market:
    """Return an exchange of which every channel has just spoken, as in a feed that runs."""
    exchange = EXCHANGES[name].main()
    line = Line(0)
    for kind in (TICKER.name, DEPTH_KIND.name):
        exchange.add(natives, wire.SIMULATED, kind)
    emitted: list[State] = []
    for native in natives:
        for frame in [frame for owner, frame in DATA if owner == name]:
            exchange.decode(frame_of(name, frame, native), RECV_NS, line, emitted.append)
            assert emitted.pop() is exchange.tickers[native]
    return exchange


def frame_of(exchange: str, frame: str, native: str) -> bytes:
    """Return a frame of tests/frames as if it were about another symbol."""
    own = NATIVE[exchange]
    payload: bytes = load(exchange, frame)
    return payload.replace(own.encode(), native.encode())


def natives_of(exchange: str, count: int) -> list[str]:
    """Return symbols as long as usual ones."""
    return [NATIVE[exchange].replace("BTC", f"C{number:02}") for number in range(count)]


def running_session(name: str, natives: Sequence[str], emit: Callable[[State], None]) -> Session:
    """Return a session whose exchange is running; on_frame is all that is used of it."""
    exchange = running_exchange(name, natives)
    legs = Legs(
        exchange,
        exchange.tickers.values(),
        emit,
        count=1,
        policy=Policy(),
        budget=ConnectBudget(1, 1.0),
        rng=random.Random(1),
    )
    return legs.sessions[0]


class Hop:
    """A feed's publisher, and the inlet of a merger at the other end of a real socket."""

    def __init__(self, directory: str, exchange: str) -> None:
        self.received: list[bytes] = []
        self._loop = asyncio.new_event_loop()
        settings = config.parse(f'run_dir = "{directory}"\n[exchanges.{exchange}]\n', "micro.toml")
        self._inlet = Inlet(self._loop, settings.merger.feeds, self._keep, key="merger.feeds")
        joined: list[bool] = []
        self.publisher = Publisher(
            self._loop,
            settings,
            exchange,
            [EXCHANGES[exchange].main()],
            WHOLE,
            lambda: joined.append(True),
            private.NOBODY,
        )
        while not joined:
            self.publisher.poll()
            self.drain()

    def _keep(self, message: bytes) -> None:
        self.received.append(message)

    def drain(self) -> None:
        """Let the inlet read what was sent."""
        for _ in range(4):
            self._loop.run_until_complete(asyncio.sleep(0.0005))

    def close(self) -> None:
        self.publisher.close()
        self._inlet.close()
        self._loop.close()


def ticker(number: int, **fields: Any) -> wire.Ticker:
    """Return a record, all fields set, as a feed sends it; number is the symbol's, and bid tells it again."""
    given = {"topic": wire.topic(wire.TICKER, "binance", f"C{number:04}USDT"), "bid": number + 0.5, **fields}
    return wire.Ticker(
        flags=wire.SIMULATED, exchange_ns=RECV_NS - 5_000_000, recv_ns=RECV_NS,
        exchange_sequence=79_231_000_001,
        last=97421.5, bid_size=0.125, ask=97421.5, ask_size=3.75,
        open_24h=96000.0, high_24h=98000.25, low_24h=95500.125,
        base_volume_24h=18234.5, quote_volume_24h=1770000000.0625, **given,
    )  # fmt: skip


class Outlet(Fanout):
    """Stands in for the merger's outlets: keeps what was sent, the newest alone unless asked for all."""

    def __init__(self, *, is_wanted: bool) -> None:
        self.is_wanted = is_wanted
        self.sent: Any = collections.deque(maxlen=1)

    @property
    def newest(self) -> bytes | bytearray:
        return self.sent[-1]  # type: ignore[no-any-return]

    def send(self, topic: bytes, message: bytes | bytearray) -> None:
        self.sent.append(bytes(message))


def running_merger(
    symbols: int, each: Outlet, batches: Outlet, clock: Callable[[], int], **more: Any
) -> Merger:
    """Return a merger that knows the symbols, and has had a record of each."""
    merger = Merger({"binance": 1}, each, batches, clock, session=100, pid=1, now_mono_ns=0, **more)
    rows = [Instrument(f"C{number:04}USDT", f"C{number:04}", "USDT") for number in range(symbols)]
    body = msgspec.json.encode(instrument_list("binance", 1, rows))
    topic = wire.topic(wire.INSTRUMENTS, "binance")
    merger.on_message(wire.pack_document(wire.Document(topic, kind=wire.INSTRUMENTS, body=body)))
    for number in range(symbols):
        merger.on_message(wire.pack_ticker(ticker(number)))
    return merger


def message_runs(symbols: int, per_message: int) -> Iterator[list[bytes]]:
    """Runs of messages, RECORDS records each, that visit every symbol in random order."""
    numbers = [number % symbols for number in range(max(RECORDS, symbols))]
    random.Random(1).shuffle(numbers)
    records = [wire.pack_ticker(ticker(number)) for number in numbers]
    for start in range(0, len(records), RECORDS):
        run = records[start : start + RECORDS]
        yield [b"".join(run[i : i + per_message]) for i in range(0, RECORDS, per_message)]


def records_in(message: bytes | bytearray) -> list[wire.Ticker]:
    """Return the records of a message that has them back to back."""
    starts = range(0, len(message), wire.TICKER_SIZE)
    return [wire.unpack(bytes(message[start : start + wire.TICKER_SIZE])) for start in starts]  # type: ignore[misc]
