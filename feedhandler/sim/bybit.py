"""Bybit V5, simulated: public market data and REST of spot and of linear perpetuals. The account's side is in
bybit_private.py.

Pure: frames and times in, frames and decisions out. Its own reading of the documentation; the feed
handler's adapter is another, and the two meet only on the socket.

Sources:
  connection   https://bybit-exchange.github.io/docs/v5/ws/connect
  tickers      https://bybit-exchange.github.io/docs/v5/websocket/public/ticker
  liquidations https://bybit-exchange.github.io/docs/v5/websocket/public/all-liquidation
  order book   https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook
  trades       https://bybit-exchange.github.io/docs/v5/websocket/public/trade
  REST         https://bybit-exchange.github.io/docs/v5/market/instrument, .../market/tickers, .../market/time
  limits       https://bybit-exchange.github.io/docs/v5/rate-limit
Not in the documentation, reported from the live exchange: the texts of refusals, that one bad topic
rejects its whole request, and that a socket with neither subscription nor ping is cut after a minute.
Not played: klines, the full book and that of RPI orders. They are refused like an unknown topic. Inverse contracts
and options have no socket, and REST lists none.
"""

import random
import re
from collections.abc import Callable
from decimal import Decimal
from hashlib import md5
from uuid import UUID

import msgspec

from feedhandler.sim.account import ZERO
from feedhandler.sim.bybit_linear import (
    EndedPosition,
    interval_h_of,
    liquidations,
    perpetual_of,
)
from feedhandler.sim.bybit_private import PRIVATE_PATH, BybitPrivate, BybitPrivateDialog
from feedhandler.sim.market import MAJORS, Instrument, Listing, instruments_of, padded, trimmed, universe
from feedhandler.sim.order_book import Fill, Level
from feedhandler.sim.perpetuals import RATE_DECIMALS, Perpetual
from feedhandler.sim.protocol import (
    NS_PER_MS,
    NS_PER_S,
    Attempts,
    Close,
    DataStream,
    Dialog,
    Exchange,
    HttpAnswer,
    HttpRequest,
    Now,
    Reply,
    Weight,
    decode_object,
    to_json,
)
from feedhandler.sim.reading import KeptMessage, KeptState, TrafficReading
from feedhandler.sim.sources import TradeSource, WindowSource

SPOT, LINEAR = "spot", "linear"
UNPLAYED = ("inverse", "option")  # categories in which REST lists nothing: clients ask for all there are
PATHS = {"/v5/public/spot": SPOT, "/v5/public/linear": LINEAR}
TRADES_PER_MESSAGE = 1024
RECENT_TRADES = {SPOT: 60, LINEAR: 1000}
PAGE_SIZE, PAGE_SIZE_MAX = 500, 1000  # of linear instruments
REST_LEVELS, REST_LEVELS_MAX = {SPOT: 1, LINEAR: 25}, 1000  # of a book, if no limit is given, and at most
WINDOWS = {  # by channel: levels a side, and how often what has changed among them is sent
    "orderbook.50": (50, 20 * NS_PER_MS),
    "orderbook.200": (200, 100 * NS_PER_MS),
    "orderbook.1000": (1000, 200 * NS_PER_MS),
}
_TOPIC = re.compile(
    r"(?P<channel>tickers|orderbook\.(1|50|200|1000)|publicTrade|allLiquidation)\.(?P<symbol>[^.]+)"
)
_ODD = (
    Listing(base="1000FLOP", quote="USDT", price=0.000_311_8),
    Listing(base="1INCH", quote="USDT", price=0.187_4),
    Listing(base="NEXUSD", quote="USDT", price=1.0007),
    Listing(base="NEX", quote="USDT", price=0.0731),
    Listing(base="MOONX", quote="USDT", price=0.000_001_23),
    Listing(base="THINLY", quote="USDT", price=0.0519, is_thin=True),
    Listing(base="BTC", quote="COP", price=352_840_000.0),
)

_ODD_LINEAR = (
    Listing(base="1000FLOP", quote="USDT", price=0.3118),
    Listing(base="NEX", quote="USDT", price=0.0731),
    Listing(base="BTC", quote="USDC", price=86_410.0),
    Listing(base="ETH", quote="USDC", price=2_814.6),
    Listing(base="THINLY", quote="USDT", price=0.0519, is_thin=True),
    Listing(base="EARLY", quote="USDT", price=1.5, is_trading=False),
    Listing(base="SOONLY", quote="USDT", price=2.25),
    Listing(base="GONER", quote="USDT", price=0.75, is_trading=False),
)
LINEAR_SEED = 1_000_003  # beside that of spot
# Status and phase, by base: of what trades before its launch, and of what does not trade.
_EARLY_STATES = {"SOONLY": ("PreLaunch", "ContinuousTrading")}
_IDLE_STATES = {"EARLY": ("PreLaunch", "CallAuction")}  # all others are being delivered
DATED = "25DEC26"  # a future on the first symbol, in the same list
DATED_MS = 1_798_156_800_000


class BybitRules(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and timers, as documented or reported; tests shorten them."""

    args_per_request: int = 10
    args_characters: int = 21_000
    idle_s: float = 60.0
    funding_hour_s: float = 3600.0  # how long an hour is between two fundings
    attempts: int = 500
    attempts_period_s: float = 300.0
    requests_per_5_s: int = 600


class Bybit(Exchange):
    """The exchange. It lists nothing that does not trade."""

    name = "bybit"
    private: BybitPrivate

    def __init__(self, instruments: int, seed: int, rules: BybitRules | None = None) -> None:
        super().__init__(instruments, seed, _ODD, _symbol)
        self.rules = rules or BybitRules()
        self._random = random.Random(f"connections {seed}")
        self._attempts = Attempts(self.rules.attempts, self.rules.attempts_period_s)
        self._requests = Weight(5.0)
        self.private = BybitPrivate(self.price)
        self._windows: dict[str, WindowSource] = {}  # by topic: they go on counting when nobody is subscribed
        perpetuals = [
            each
            for each in universe(seed + LINEAR_SEED, 2 * instruments, _ODD_LINEAR)
            if each.quote in ("USDT", "USDC")
        ]
        count = max(instruments, len(MAJORS) + len(_ODD_LINEAR))
        self.other_instruments = instruments_of(perpetuals[:count], seed + LINEAR_SEED)
        self.by_symbol_of = {
            SPOT: self.by_symbol,
            LINEAR: {_symbol(each, LINEAR): each for each in self.other_instruments},
            **{category: {} for category in UNPLAYED},
        }

        self.perpetuals = {
            symbol: perpetual_of(each, self.rules.funding_hour_s)
            for symbol, each in self.by_symbol_of[LINEAR].items()
        }

    def price(self, asset: str) -> Decimal:
        """Value an asset in USD, for which USDT stands; 0 if it is not traded."""
        instrument = self.by_symbol.get(f"{asset}USDT")
        if instrument is None:
            return Decimal(1) if asset == "USDT" else ZERO
        return Decimal(instrument.last).scaleb(-instrument.price_decimals)

    def accept(self, request: HttpRequest, now: Now) -> Dialog | HttpAnswer:
        if not self._attempts.admit(request.remote, now.mono_ns):
            return HttpAnswer(
                body=b"", status=403, violation=f"more than {self.rules.attempts} connections in 5 minutes"
            )
        if request.path == PRIVATE_PATH:
            connection_id = f"{self._random.getrandbits(80):020x}-{self._random.getrandbits(10):x}"
            return BybitPrivateDialog(self.private, connection_id, request.one("max_active_time"))
        market = PATHS.get(request.path)
        if market is None:
            return HttpAnswer(body=b"", status=404)
        return BybitDialog(self, str(UUID(int=self._random.getrandbits(128), version=4)), market)

    def refusal(self, topic: object, market: str) -> str | None:
        """Say why a topic cannot be subscribed; None if it can."""
        unknown = f"error:handler not found,topic:{topic}"
        if not isinstance(topic, str) or (match := _TOPIC.fullmatch(topic)) is None:
            return unknown
        symbol = match["symbol"]
        if match["channel"] == "allLiquidation" and market == SPOT:
            return unknown
        is_known = self.knows_all or symbol in self.by_symbol_of[market]
        if not is_known or self.is_rejected(topic, market):
            return f"Invalid symbol :[{topic}]" if market == SPOT else unknown
        return None

    def is_rejected(self, topic: object, market: str) -> bool:
        return isinstance(topic, str) and _known_as(topic.rpartition(".")[2], market) in self.rejected_symbols

    def find(self, symbol: str) -> Instrument | None:
        market, _, named = symbol.rpartition(":")
        return self.by_symbol_of.get(market or SPOT, {}).get(named)

    def stream(self, topic: str) -> DataStream | None:
        """Make the stream of a topic, which has its market before it if that is not spot."""
        market, is_linear, named = topic.partition(":")
        market, named = (market, named) if is_linear else (SPOT, topic)
        channel, _, symbol = named.rpartition(".")
        instrument = self.by_symbol_of[market].get(symbol)
        if instrument is None:
            return None
        if channel == "orderbook.1":
            return DataStream(topic, instrument, _book(instrument, symbol), repeat_every_ns=3 * NS_PER_S)
        if channel in WINDOWS:
            window = self.window(topic, channel, instrument)
            encode = _window(named, instrument, symbol, window)
            return DataStream(
                topic,
                instrument,
                encode,
                regular_every_ns=WINDOWS[channel][1],
                shows_book=True,
                source=window,
            )
        if channel == "tickers" and is_linear:
            ticker = LinearTickerSource(self.perpetuals[symbol], symbol)
            return DataStream(
                topic, instrument, ticker.encode, regular_every_ns=100 * NS_PER_MS, source=ticker
            )
        if channel == "tickers":
            encode = _ticker(instrument, symbol)
            return DataStream(topic, instrument, encode, at_most_every_ns=50 * NS_PER_MS, shows_quote=False)
        if channel == "publicTrade":
            trades = TradeSource(instrument.order_book(), TRADES_PER_MESSAGE)
            encode = _trades(instrument, symbol, market, trades)
            return DataStream(topic, instrument, encode, is_trade=True, source=trades)
        if channel == "allLiquidation":
            found = LiquidationBatches(instrument, symbol)
            return DataStream(topic, instrument, found.encode, regular_every_ns=500 * NS_PER_MS, source=found)
        return None

    def window(self, topic: str, channel: str, instrument: Instrument) -> WindowSource:
        """Return what a topic of a book shows: of one count, whoever is subscribed."""
        window = self._windows.get(topic)
        if window is None:
            window = self._windows[topic] = WindowSource(instrument.order_book(), WINDOWS[channel][0])
        return window

    def snapshot(self, stream: DataStream, variant: int, now: Now) -> bytes | None:
        if isinstance(stream.source, WindowSource):
            stream.source.show_all()
        if isinstance(stream.source, LinearTickerSource):
            return stream.source.snapshot(now)
        has_none = stream.is_trade or isinstance(stream.source, LiquidationBatches)
        return None if has_none else stream.encode(variant, now)

    def restart_book(self, stream: DataStream) -> bool:
        if not isinstance(stream.source, WindowSource):
            return False
        stream.source.restart()
        return True

    def throttled(self, status: int, retry_after_s: int, now: Now) -> HttpAnswer:
        code, text = (10006, "Too many visits!") if status == 429 else (403, "access too frequent")
        reset = str(now.unix_ms + retry_after_s * 1000)
        headers = {"Retry-After": str(retry_after_s), "X-Bapi-Limit-Reset-Timestamp": reset}
        return _answer(code, text, {}, now, status=status, headers=headers)

    def rest(self, request: HttpRequest, now: Now) -> HttpAnswer:
        used = self._requests.use(request.remote, 1, now.mono_ns)
        if used > self.rules.requests_per_5_s:
            refusal = self.throttled(403, 600, now)
            return msgspec.structs.replace(refusal, violation="more than 600 HTTP requests in 5 s")
        if request.path == "/v5/account/wallet-balance" and request.method == "GET":
            return self._wallet_balance(request, now)
        endpoint = _ENDPOINTS.get(request.path)
        if endpoint is None or request.method != "GET":
            return HttpAnswer(body=b"404 page not found", status=404, content_type="text/plain")
        headers = {
            "X-Bapi-Limit": str(self.rules.requests_per_5_s),
            "X-Bapi-Limit-Status": str(self.rules.requests_per_5_s - used),
            "X-Bapi-Limit-Reset-Timestamp": str(now.unix_ms + int(self._requests.left_s(now.mono_ns) * 1000)),
        }
        return msgspec.structs.replace(endpoint(self, request, now), headers=headers)

    def _wallet_balance(self, request: HttpRequest, now: Now) -> HttpAnswer:
        refusal = self.private.refusal(request, now)
        headers = self.private.limit_headers(now)
        if refusal is None:
            return _answer(0, "OK", self.private.print_balance(request.one("coin")), now, headers=headers)
        if refusal.status != 200:
            return HttpAnswer(body=b"", status=refusal.status, violation=refusal.violation)
        answer = _answer(refusal.code, refusal.text, {}, now, headers=headers)
        return msgspec.structs.replace(answer, violation=refusal.violation, remark=refusal.remark)

    def listed_of(self, market: str) -> list[Instrument]:
        """Return what the instrument list of a market has."""
        if market == SPOT:
            return self.listed()
        names = self.by_symbol_of[market].items()
        return [each for symbol, each in names if _known_as(symbol, market) not in self.unlisted_symbols]

    def selected(self, request: HttpRequest, now: Now) -> "list[Instrument] | HttpAnswer":
        """Resolve category and symbol, or answer what is wrong with them."""
        market = request.one("category") or ""
        if market not in self.by_symbol_of:
            return _answer(10001, "params error: Category is invalid", {}, now)
        symbol = request.one("symbol")
        if symbol is None:
            return self.listed_of(market)
        instrument = self.by_symbol_of[market].get(symbol)
        return (
            [instrument]
            if instrument is not None
            else _answer(10001, "params error: Symbol Invalid", {}, now)
        )


class BybitDialog(Dialog):
    """One public connection. There is no greeting; requests that fail leave it open."""

    def __init__(self, exchange: Bybit, connection_id: str, market: str = SPOT) -> None:
        super().__init__()
        self._exchange = exchange
        self._market = market
        self._prefix = "" if market == SPOT else f"{market}:"  # of topics, where those of all markets meet
        self._rules = exchange.rules
        self._connection_id = connection_id
        self._characters = 0  # of all topics subscribed
        self._alive_ns = 0  # subscribed to something, or pinged

    def on_open(self, now: Now) -> Reply:
        self._alive_ns = now.mono_ns
        return Reply()

    def on_text(self, text: str, now: Now) -> Reply:
        message = decode_object(text)
        if message is None:
            return self._refuse(f"Failed to decode incoming data:{text[:100]}", {}, "")
        operation = message.get("op")
        if operation == "ping":
            self._alive_ns = now.mono_ns
            return Reply(texts=[self._answer(True, "pong", message, "ping")])
        if operation == "subscribe":
            return self._on_subscribe(message, now)
        if operation == "unsubscribe":
            return self._on_unsubscribe(message)
        return self._refuse("error:invalid op", message, str(operation or ""))

    def on_tick(self, now: Now) -> Reply:
        if self.topics:
            self._alive_ns = now.mono_ns
        elif now.mono_ns - self._alive_ns > self._rules.idle_s * NS_PER_S:
            return Reply(close=Close(0), violation="no subscription and no ping in time")
        return Reply()

    def _on_subscribe(self, message: dict[str, object], now: Now) -> Reply:
        args = message.get("args")
        if not isinstance(args, list) or not args:
            return self._refuse("error:args is empty", message, "subscribe")
        if self._market == SPOT and len(args) > self._rules.args_per_request:
            without_id = {key: value for key, value in message.items() if key != "req_id"}
            return self._refuse(f"args size >{self._rules.args_per_request}", without_id, "subscribe")
        for index, topic in enumerate(args):
            refusal = self._exchange.refusal(topic, self._market)
            is_repeated = refusal is None and self._prefix + topic in self.topics
            if is_repeated or (refusal is None and topic in args[:index]):
                refusal = f"error:already subscribed,topic:{topic}"
            if refusal is not None:
                reply = self._refuse(refusal, message, "subscribe")
                reply.repeats = self._prefix + topic if is_repeated else ""
                if self._exchange.is_rejected(topic, self._market):
                    reply.violation = ""  # our whim, not the client's fault
                return reply
        characters = self._characters + sum(len(topic) for topic in args)
        if characters > self._rules.args_characters:
            return self._refuse(f"error:args length >{self._rules.args_characters}", message, "subscribe")
        self._characters = characters
        topics = [self._prefix + topic for topic in args]
        self.topics.update(dict.fromkeys(topics))
        text = "subscribe" if self._market == SPOT else ""
        return Reply(texts=[self._answer(True, text, message, "subscribe")], subscribe=topics)

    def _on_unsubscribe(self, message: dict[str, object]) -> Reply:
        args = message.get("args")
        asked = [f"{self._prefix}{topic}" for topic in args] if isinstance(args, list) else []
        known = [topic for topic in asked if topic in self.topics]
        for topic in known:
            self.topics.pop(topic, None)
            self._characters -= len(topic) - len(self._prefix)
        text = "unsubscribe" if self._market == SPOT else ""
        return Reply(texts=[self._answer(True, text, message, "unsubscribe")], unsubscribe=known)

    def _refuse(self, text: str, message: dict[str, object], operation: str) -> Reply:
        return Reply(texts=[self._answer(False, text, message, operation)], violation=text)

    def _answer(self, is_success: bool, text: str, message: dict[str, object], operation: str) -> bytes:
        answer: dict[str, object] = {"success": is_success, "ret_msg": text, "conn_id": self._connection_id}
        if "req_id" in message:
            answer["req_id"] = str(message["req_id"])
        return to_json(answer | {"op": operation})


# Topics.

_Encode = Callable[[int, Now], bytes]


def _book(instrument: Instrument, spelled: str) -> _Encode:
    """Best bid and offer, always complete; a side of the thin instrument is empty now and then."""
    symbol = spelled.encode()
    template = (
        b'{"topic":"orderbook.1.%b","ts":%%d,"type":"snapshot","data":{"s":"%b","b":[["%%b","%%b"]],'
        b'"a":[["%%b","%%b"]],"u":%%d,"seq":%%d},"cts":%%d}' % (symbol, symbol)
    )
    price_decimals, size_decimals = instrument.price_decimals, instrument.size_decimals

    def encode(variant: int, now: Now) -> bytes:
        # hot: bench/load.py
        time_ms = now.unix_ns // NS_PER_MS
        return template % (
            time_ms,
            trimmed(instrument.bid, price_decimals),
            trimmed(instrument.bid_size, size_decimals),
            trimmed(instrument.ask, price_decimals),
            trimmed(instrument.ask_size, size_decimals),
            instrument.update_id,
            _cross_sequence(instrument.update_id),
            time_ms,
        )

    return _thin(instrument, symbol) if instrument.listing.is_thin else encode


def _thin(each: Instrument, symbol: bytes) -> _Encode:
    def encode(variant: int, now: Now) -> bytes:
        bids = (
            b""
            if each.is_bid_empty
            else b'["%b","%b"]' % (_price(each, each.bid), _size(each, each.bid_size))
        )
        asks = (
            b""
            if each.is_ask_empty
            else b'["%b","%b"]' % (_price(each, each.ask), _size(each, each.ask_size))
        )
        return (
            b'{"topic":"orderbook.1.%b","ts":%d,"type":"snapshot","data":{"s":"%b","b":[%b],"a":[%b],'
            b'"u":%d,"seq":%d},"cts":%d}'
        ) % (
            symbol,
            now.unix_ms,
            symbol,
            bids,
            asks,
            each.update_id,
            _cross_sequence(each.update_id),
            now.unix_ms,
        )

    return encode


def _window(topic: str, instrument: Instrument, symbol: str, window: WindowSource) -> _Encode:
    """The best levels as a snapshot first, then what has changed of them; a new snapshot replaces everything."""
    template = (
        b'{"topic":%b,"ts":%%d,"type":"%%b","data":{"s":"%b","b":[%%b],"a":[%%b],"u":%%d,"seq":%%d},"cts":%%d}'
        % (to_json(topic), symbol.encode())
    )

    def encode(variant: int, now: Now) -> bytes:
        return template % (
            now.unix_ms,
            b"snapshot" if window.is_snapshot else b"delta",
            _levels(instrument, window.bids),
            _levels(instrument, window.asks),
            window.message_id,
            _cross_sequence(window.update_id),
            now.unix_ms,
        )

    return encode


def _levels(instrument: Instrument, levels: list[Level]) -> bytes:
    return b",".join(
        [b'["%b","%b"]' % (_price(instrument, price), _size(instrument, size)) for price, size in levels]
    )


def _ticker(instrument: Instrument, spelled: str) -> _Encode:
    """Last price and 24 h statistics; on spot there is no bid and no ask."""
    symbol = spelled.encode()
    template = (
        b'{"topic":"tickers.%b","ts":%%d,"type":"snapshot","cs":%%d,"data":{"symbol":"%b","lastPrice":"%%b",'
        b'"highPrice24h":"%%b","lowPrice24h":"%%b","prevPrice24h":"%%b","volume24h":"%%b","turnover24h":"%%b",'
        b'"price24hPcnt":"%%b","usdIndexPrice":"%%b"}}' % (symbol, symbol)
    )

    def encode(variant: int, now: Now) -> bytes:
        each = instrument
        return template % (
            now.unix_ms,
            _cross_sequence(each.update_id),
            _price(each, each.last),
            _price(each, each.high),
            _price(each, each.low),
            _price(each, each.open),
            _size(each, each.base_volume),
            _turnover(each),
            _percent(each),
            _index_price(each),
        )

    return encode


def _trades(instrument: Instrument, spelled: str, market: str, trades: TradeSource) -> _Encode:
    symbol = spelled.encode()
    template = (
        b'{"i":"%%b","T":%%d,"p":"%%b","v":"%%b","S":"%%b","seq":%%d,"s":"%b","BT":false,"RPI":false}'
        % symbol
    )

    def encode(variant: int, now: Now) -> bytes:
        rows = [
            template
            % (
                _trade_id(spelled, market, fill).encode(),
                fill.unix_ns // NS_PER_MS,
                _price(instrument, fill.price),
                _size(instrument, fill.size),
                _side(fill).encode(),
                _cross_sequence(fill.update_id),
            )
            for fill in trades.message
        ]
        return b'{"topic":"publicTrade.%b","ts":%d,"type":"snapshot","data":[%b]}' % (
            symbol,
            now.unix_ms,
            b",".join(rows),
        )

    return encode


def _trade_id(symbol: str, market: str, fill: Fill) -> str:
    """Print what looks like a UUID, and is the same for the same trade."""
    made_of = f"{_known_as(symbol, market)} {fill.trade_id}".encode()
    return str(UUID(bytes=md5(made_of, usedforsecurity=False).digest(), version=5))


def _side(fill: Fill) -> str:
    return "Sell" if fill.is_sell else "Buy"


def _cross_sequence(update_id: int) -> int:
    """Return what counts the whole market: it runs ahead and skips."""
    return update_id * 7


def _symbol(instrument: Instrument, market: str = SPOT) -> str:
    base, quote = instrument.listing.base, instrument.listing.quote
    return f"{base}PERP" if market == LINEAR and quote == "USDC" else base + quote


def _known_as(symbol: str, market: str) -> str:
    """Return what a symbol is called where those of all markets meet."""
    return symbol if market == SPOT else f"{market}:{symbol}"


def _price(instrument: Instrument, ticks: int) -> bytes:
    return trimmed(ticks, instrument.price_decimals)


def _size(instrument: Instrument, lots: int) -> bytes:
    return trimmed(lots, instrument.size_decimals)


def _turnover(each: Instrument) -> bytes:
    return trimmed(each.quote_volume, each.price_decimals + each.size_decimals)


def _percent(each: Instrument) -> bytes:
    """A fraction with four decimals: 0.0196 is 1.96 %."""
    return padded(round((each.last - each.open) * 10_000 / each.open), 4, 4)


def _index_price(each: Instrument) -> bytes:
    """Known for the majors only; "" for the rest."""
    return _price(each, each.last) if each.listing.quote == "USDT" and each.index < 16 else b""


# Linear perpetuals.


class LinearTickerSource:
    """Tickers as deltas: what has changed since the last message, and a snapshot of what was sent until then."""

    def __init__(self, perpetual: Perpetual, symbol: str) -> None:
        self._perpetual = perpetual
        self._instrument = perpetual.contract
        self._symbol = symbol
        self._sent: dict[str, str] = {}  # {}: nobody knows anything
        self._update_id = 0  # as of then
        self._now = Now(0, 0)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self._sent = {}

    def take(self) -> bool:
        return self._update_id != self._instrument.update_id

    def lose(self) -> bool:
        is_due = self.take()
        self._read(self._now)
        return is_due

    def _read(self, now: Now) -> dict[str, str]:
        """Note the present values; return those that have changed, a price with its size."""
        self._now, self._update_id = now, self._instrument.update_id
        before, self._sent = self._sent, linear_values(self._perpetual, now)
        changed = {name: text for name, text in self._sent.items() if before.get(name) != text}
        for price, size in (("bid1Price", "bid1Size"), ("ask1Price", "ask1Size")):
            if price in changed or size in changed:
                changed |= {price: self._sent[price], size: self._sent[size]}
        return changed

    def encode(self, variant: int, now: Now) -> bytes:
        """Print the next delta."""
        return self._print("delta", self._read(now), now)

    def snapshot(self, now: Now) -> bytes:
        """Print all that was sent, from which the next delta goes on."""
        if not self._sent:
            self._read(now)
        return self._print("snapshot", self._sent, now)

    def _print(self, type_: str, values: dict[str, str], now: Now) -> bytes:
        return to_json(
            {
                "topic": f"tickers.{self._symbol}",
                "type": type_,
                "data": {"symbol": self._symbol, **values},
                "cs": _cross_sequence(self._update_id),
                "ts": now.unix_ms,
            }
        )


class LiquidationBatches:
    """Liquidations, all of half a second in one message; mostly there are none."""

    def __init__(self, instrument: Instrument, symbol: str) -> None:
        self._instrument = instrument
        self._symbol = symbol
        self._update_id = instrument.update_id
        self.message: list[EndedPosition] = []

    def start(self) -> None:
        self._update_id = self._instrument.update_id

    def stop(self) -> None:
        pass

    def take(self) -> bool:
        if self._update_id == self._instrument.update_id:
            return False
        self._update_id = self._instrument.update_id
        self.message = liquidations(self._instrument)
        return bool(self.message)

    def lose(self) -> bool:
        return self.take()

    def encode(self, variant: int, now: Now) -> bytes:
        """Print them; the side is the position's."""
        rows = [
            {
                "T": now.unix_ms - each.ago_ms,
                "s": self._symbol,
                "S": "Buy" if each.is_long else "Sell",
                "v": _size(self._instrument, each.size).decode(),
                "p": _price(self._instrument, each.price).decode(),
            }
            for each in self.message
        ]
        topic = f"allLiquidation.{self._symbol}"
        return to_json({"topic": topic, "type": "snapshot", "ts": now.unix_ms, "data": rows})


def state_of(each: Instrument) -> tuple[str, str]:
    """Return the status of a perpetual, and its phase before the launch."""
    if each.listing.is_trading:
        return _EARLY_STATES.get(each.listing.base, ("Trading", ""))
    return _IDLE_STATES.get(each.listing.base, ("Delivering", ""))


def linear_values(perpetual: Perpetual, now: Now) -> dict[str, str]:
    """Return what tickers have of a perpetual, as texts. The rate of funding is that of the minute."""
    each, mark, open_interest = perpetual.contract, perpetual.mark, perpetual.open_interest
    next_funding_ms = perpetual.funding_ns(now.unix_ns) // NS_PER_MS
    status, phase = state_of(each)
    has_funding = status != "PreLaunch"
    both = 2 * open_interest  # sides
    value_decimals = each.price_decimals + each.size_decimals
    values = {
        "tickDirection": b"MinusTick" if each.is_sell else b"PlusTick",
        "price24hPcnt": _percent(each),
        "lastPrice": _price(each, each.last),
        "prevPrice24h": _price(each, each.open),
        "highPrice24h": _price(each, each.high),
        "lowPrice24h": _price(each, each.low),
        "markPrice": _price(each, mark),
        "indexPrice": _price(each, perpetual.index) if has_funding else b"",
        "openInterest": _size(each, both),
        "openInterestValue": trimmed(both * mark, value_decimals),
        "turnover24h": _turnover(each),
        "volume24h": _size(each, each.base_volume),
        "fundingIntervalHour": b"%d" % interval_h_of(each) if has_funding else b"",
        "fundingCap": b"0.005",
        "singleOpenInterest": _size(each, open_interest),
        "singleOpenInterestValue": trimmed(open_interest * mark, value_decimals),
        "nextFundingTime": b"%d" % next_funding_ms if has_funding else b"",
        "fundingRate": trimmed(perpetual.rate_of_minute(now.unix_ns), RATE_DECIMALS) if has_funding else b"",
        "bid1Price": b"" if each.is_bid_empty else _price(each, each.bid),
        "bid1Size": b"" if each.is_bid_empty else _size(each, each.bid_size),
        "ask1Price": b"" if each.is_ask_empty else _price(each, each.ask),
        "ask1Size": b"" if each.is_ask_empty else _size(each, each.ask_size),
        "preOpenPrice": b"",
        "preQty": b"",
        "curPreListingPhase": phase.encode(),
    }
    return {name: text.decode() for name, text in values.items()}


# REST.


def _answer(
    code: int | str,
    text: str,
    result: object,
    now: Now,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> HttpAnswer:
    body = {"retCode": code, "retMsg": text, "result": result, "retExtInfo": {}, "time": now.unix_ms}
    return HttpAnswer(body=to_json(body), status=status, headers=headers or {})


def _time(exchange: Bybit, request: HttpRequest, now: Now) -> HttpAnswer:
    result = {"timeSecond": str(now.unix_ns // NS_PER_S), "timeNano": str(now.unix_ns)}
    return _answer(0, "OK", result, now)


def _instruments(exchange: Bybit, request: HttpRequest, now: Now) -> HttpAnswer:
    """Spot in one page, for it knows no cursor and ignores a limit; contracts page by page, of one status."""
    if request.one("category") == SPOT:
        return _listed(exchange, request, now, _instrument_info)
    return _linear_instruments(exchange, request, now)


def _tickers(exchange: Bybit, request: HttpRequest, now: Now) -> HttpAnswer:
    if request.one("category") == SPOT:
        return _listed(exchange, request, now, _rest_ticker)
    return _linear_tickers(exchange, request, now)


def _listed(
    exchange: Bybit, request: HttpRequest, now: Now, print_one: Callable[[Instrument], dict[str, object]]
) -> HttpAnswer:
    selected = exchange.selected(request, now)
    if isinstance(selected, HttpAnswer):
        return selected
    return _answer(0, "OK", {"category": "spot", "list": [print_one(each) for each in selected]}, now)


def _instrument_info(each: Instrument) -> dict[str, object]:
    return {
        "symbolId": each.index + 1,
        "symbol": _symbol(each),
        "baseCoin": each.listing.base,
        "quoteCoin": each.listing.quote,
        "innovation": "1" if each.listing.is_thin else "0",
        "status": "Trading",
        "marginTrading": "utaOnly" if each.index < 20 else "none",
        "stTag": "0",
        "lotSizeFilter": {
            "basePrecision": _size(each, 1).decode(),
            "quotePrecision": trimmed(1, each.price_decimals + each.size_decimals).decode(),
            "minOrderQty": _size(each, 10).decode(),
            "maxOrderQty": _size(each, 10**9).decode(),
            "minOrderAmt": "5",
            "maxOrderAmt": "8000000",
            "maxLimitOrderQty": _size(each, 10**9).decode(),
            "maxMarketOrderQty": _size(each, 5 * 10**8).decode(),
            "postOnlyMaxLimitOrderSize": "60000",
        },
        "priceFilter": {"tickSize": _price(each, 1).decode()},
        "riskParameters": {"priceLimitRatioX": "0.01", "priceLimitRatioY": "0.02"},
        "symbolType": "innovation" if each.listing.is_thin else "",
    }


def _rest_ticker(each: Instrument) -> dict[str, object]:
    return {
        "symbol": _symbol(each),
        "bid1Price": "" if each.is_bid_empty else _price(each, each.bid).decode(),
        "bid1Size": "" if each.is_bid_empty else _size(each, each.bid_size).decode(),
        "ask1Price": "" if each.is_ask_empty else _price(each, each.ask).decode(),
        "ask1Size": "" if each.is_ask_empty else _size(each, each.ask_size).decode(),
        "lastPrice": _price(each, each.last).decode(),
        "prevPrice24h": _price(each, each.open).decode(),
        "price24hPcnt": _percent(each).decode(),
        "highPrice24h": _price(each, each.high).decode(),
        "lowPrice24h": _price(each, each.low).decode(),
        "turnover24h": _turnover(each).decode(),
        "volume24h": _size(each, each.base_volume).decode(),
        "usdIndexPrice": _index_price(each).decode(),
    }


def _linear_instruments(exchange: Bybit, request: HttpRequest, now: Now) -> HttpAnswer:
    selected = exchange.selected(request, now)
    if isinstance(selected, HttpAnswer):
        return selected
    limit, cursor = request.one("limit") or str(PAGE_SIZE), request.one("cursor") or "page0"
    if not limit.isdecimal() or not 0 < int(limit[:9]) <= PAGE_SIZE_MAX:
        return _answer(10001, "params error: Limit is invalid", {}, now)
    if not cursor.startswith("page") or not cursor[4:].isdecimal():
        return _answer(10001, "params error: Cursor is invalid", {}, now)
    status, first = request.one("status") or "Trading", int(cursor[4:13])
    rows = [_linear_info(each) for each in selected]
    if request.one("symbol") is None:
        rows = [row for row in rows if row["status"] == status]
        rows[1:1] = [_dated_info(selected[0])] if rows and status == "Trading" else []
    until = first + int(limit)
    result = {
        "category": request.one("category"),
        "list": rows[first:until],
        "nextPageCursor": f"page{until}" if until < len(rows) else "",
    }
    return _answer(0, "OK", result, now)


def _linear_info(each: Instrument) -> dict[str, object]:
    status, phase = state_of(each)
    phases = {"curAuctionPhase": phase, "phases": [], "auctionFeeInfo": {}, "skipCallAuction": False}
    return {
        "symbol": _symbol(each, LINEAR),
        "contractType": "LinearPerpetual",
        "status": status,
        "baseCoin": each.listing.base,
        "quoteCoin": each.listing.quote,
        "launchTime": "1700000000000",
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": str(each.price_decimals),
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "50.00", "leverageStep": "0.01"},
        "priceFilter": {
            "minPrice": _price(each, 1).decode(),
            "maxPrice": _price(each, 10**9).decode(),
            "tickSize": _price(each, 1).decode(),
        },
        "lotSizeFilter": {
            "maxOrderQty": _size(each, 10**9).decode(),
            "minOrderQty": _size(each, 1).decode(),
            "qtyStep": _size(each, 1).decode(),
            "postOnlyMaxOrderQty": _size(each, 10**9).decode(),
            "maxMktOrderQty": _size(each, 10**8).decode(),
            "minNotionalValue": "5",
        },
        "unifiedMarginTrade": True,
        "fundingInterval": interval_h_of(each) * 60,
        "settleCoin": each.listing.quote,
        "copyTrading": "none",
        "upperFundingRate": "0.005",
        "lowerFundingRate": "-0.005",
        "isPreListing": bool(phase),
        "preListingInfo": phases if phase else None,
        "riskParameters": {"priceLimitRatioX": "0.05", "priceLimitRatioY": "0.1"},
        "displayName": "",
        "symbolType": "innovation" if each.listing.is_thin else "",
        "forbidUplWithdrawal": False,
        "symbolId": each.index + 1,
    }


def _dated_info(each: Instrument) -> dict[str, object]:
    """A future on the same, which nobody trades here."""
    return _linear_info(each) | {
        "symbol": f"{_symbol(each, LINEAR)}-{DATED}",
        "contractType": "LinearFutures",
        "deliveryTime": str(DATED_MS),
        "fundingInterval": 0,
    }


def _linear_tickers(exchange: Bybit, request: HttpRequest, now: Now) -> HttpAnswer:
    selected = exchange.selected(request, now)
    if isinstance(selected, HttpAnswer):
        return selected
    rows = [
        {
            "symbol": _symbol(each, LINEAR),
            **linear_values(exchange.perpetuals[_symbol(each, LINEAR)], now),
            "deliveryTime": "0",
            "basis": "",
            "basisRate": "",
        }
        for each in selected
        if each.listing.is_trading or request.one("symbol")
    ]
    return _answer(0, "OK", {"category": request.one("category"), "list": rows}, now)


def _order_book(exchange: Bybit, request: HttpRequest, now: Now) -> HttpAnswer:
    """The best levels of one symbol, numbered as the topic numbers them that has the most."""
    selected = exchange.selected(request, now)
    if isinstance(selected, HttpAnswer):
        return selected
    market, symbol = request.one("category") or "", request.one("symbol")
    limit = request.one("limit") or str(REST_LEVELS.get(market, 0))
    if symbol is None or not limit.isdecimal() or not 0 < int(limit[:9]) <= REST_LEVELS_MAX:
        return _answer(10001, "params error: symbol or limit is invalid", {}, now)
    [each] = selected
    channel, count = f"orderbook.{REST_LEVELS_MAX}", int(limit)
    window = exchange.window(f"{'' if market == SPOT else f'{market}:'}{channel}.{symbol}", channel, each)
    window.show_all()
    result = {
        "s": symbol,
        "b": msgspec.Raw(b"[%b]" % _levels(each, window.bids[:count])),
        "a": msgspec.Raw(b"[%b]" % _levels(each, window.asks[:count])),
        "ts": now.unix_ms,
        "u": window.message_id,
        "seq": _cross_sequence(window.update_id),
        "cts": now.unix_ms,
    }
    return _answer(0, "OK", result, now)


def _recent_trades(exchange: Bybit, request: HttpRequest, now: Now) -> HttpAnswer:
    """The newest trades of one symbol, the newest first."""
    selected = exchange.selected(request, now)
    if isinstance(selected, HttpAnswer):
        return selected
    market = request.one("category") or SPOT
    limit = request.one("limit") or str(RECENT_TRADES.get(market, 0))
    if request.one("symbol") is None or not limit.isascii() or not limit.isdigit():
        return _answer(10001, "params error: symbol or limit is invalid", {}, now)
    [each] = selected
    count = max(1, min(int(limit[:9]), RECENT_TRADES[market]))
    fills = list(each.order_book().fills)[: -count - 1 : -1]
    rows = [_rest_trade(each, market, fill) for fill in fills]
    return _answer(0, "OK", {"category": market, "list": rows}, now)


def _rest_trade(each: Instrument, market: str, fill: Fill) -> dict[str, object]:
    return {
        "execId": _trade_id(_symbol(each, market), market, fill),
        "symbol": _symbol(each, market),
        "price": _price(each, fill.price).decode(),
        "size": _size(each, fill.size).decode(),
        "side": _side(fill),
        "time": str(fill.unix_ns // NS_PER_MS),
        "isBlockTrade": False,
        "isRPITrade": False,
        "seq": str(_cross_sequence(fill.update_id)),
    }


_ENDPOINTS: dict[str, Callable[[Bybit, HttpRequest, Now], HttpAnswer]] = {
    "/v5/market/time": _time,
    "/v5/market/instruments-info": _instruments,
    "/v5/market/tickers": _tickers,
    "/v5/market/orderbook": _order_book,
    "/v5/market/recent-trade": _recent_trades,
}


# Recordings.

_TOPIC_KEY = re.compile(rb'"topic"\s*:\s*"([^"\\]+)"')


class BybitReading(TrafficReading):
    """A subscription begins with the present state, which is made of what was received before."""

    live = frozenset({"/v5/market/time"})

    def topic_of(self, payload: bytes, market: str = "") -> str:
        match = _TOPIC_KEY.search(payload)
        if match is None:
            return ""
        name = match[1].decode()
        return f"{market}:{name}" if market else name

    def split(self, topic: str) -> tuple[str, str]:
        channel, _, symbol = topic.rpartition(".")
        return channel, symbol

    def without_rows(self, request: HttpRequest) -> bytes | None:
        """Contracts that do not trade yet, or no more, are lists of their own."""
        if not request.path.endswith("/instruments-info") or request.one("status") in (None, "Trading"):
            return None
        result: dict[str, object] = {"category": request.one("category"), "list": [], "nextPageCursor": ""}
        return to_json({"retCode": 0, "retMsg": "OK", "result": result})

    def keeper(self, topic: str) -> KeptState | None:
        market, _, name = topic.rpartition(":")
        if name.startswith("orderbook."):
            return KeptWindow()
        if not name.startswith("tickers."):
            return None
        return KeptTicker() if market else KeptMessage()


class KeptTicker:
    """Snapshot and changes of a perpetual's ticker, as one snapshot."""

    def __init__(self) -> None:
        self._newest: dict[str, object] | None = None

    def take(self, payload: bytes) -> None:
        message = decode_object(payload)
        data = message.get("data") if message else None
        if message is None or not isinstance(data, dict):
            self._newest = None  # a change is missing
        elif message.get("type") == "snapshot":
            self._newest = message
        elif self._newest is not None:
            before = self._newest["data"]
            assert isinstance(before, dict)
            self._newest = message | {"type": "snapshot", "data": before | data}

    def show(self) -> bytes | None:
        return None if self._newest is None else to_json(self._newest)


class _WindowData(msgspec.Struct):
    s: str
    b: list[tuple[str, str]]
    a: list[tuple[str, str]]
    u: int
    seq: int


class _WindowMessage(msgspec.Struct):
    topic: str
    ts: int
    type: str
    data: _WindowData
    cts: int = 0


class KeptWindow:
    """Snapshot and changes of a book's best levels, as one snapshot."""

    def __init__(self) -> None:
        self._newest: _WindowMessage | None = None
        self._bids: dict[str, str] = {}
        self._asks: dict[str, str] = {}
        self._decode = msgspec.json.Decoder(_WindowMessage).decode

    def take(self, payload: bytes) -> None:
        try:
            message = self._decode(payload)
        except msgspec.DecodeError:
            self._newest = None  # a change is missing
            return
        if message.type == "snapshot":
            self._bids, self._asks = dict(message.data.b), dict(message.data.a)
        elif self._newest is None:
            return
        else:
            for levels, changes in ((self._bids, message.data.b), (self._asks, message.data.a)):
                levels.update(changes)
                for price, size in changes:
                    if not Decimal(size):
                        levels.pop(price, None)
        self._newest = message

    def show(self) -> bytes | None:
        if self._newest is None:
            return None
        bids = sorted(self._bids.items(), key=lambda level: -Decimal(level[0]))
        asks = sorted(self._asks.items(), key=lambda level: Decimal(level[0]))
        data = msgspec.structs.replace(self._newest.data, b=bids, a=asks)
        return to_json(msgspec.structs.replace(self._newest, type="snapshot", data=data))
