"""OKX V5, simulated: public market data and REST of spot and swaps. The account's side is not played.

Pure: frames and times in, frames and decisions out. Its own reading of the documentation; the feed
handler's adapter is another, and the two meet only on the socket.

Sources:
  connection   https://www.okx.com/docs-v5/en/#overview-websocket-connect, ...-subscribe, ...-notification
  channels     https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-tickers-channel and those beside it
  REST         https://www.okx.com/docs-v5/en/#public-data-rest-api-get-instruments, #order-book-trading-market-data
  errors       https://www.okx.com/docs-v5/en/#error-code
Not in the documentation, reported from the live exchange: the checksum of a book is 0
(https://github.com/ccxt/ccxt/issues/30299); the first push of trades is the last trade before the subscription;
a quiet book of one level is repeated; an id with other characters than letters and digits is error 60033.
A connection attempt too many is refused here with HTTP 429: how the exchange does it is not stated.
instId in a subscription to liquidations is dropped without a word; at most one a second is told of each contract.
REST has one row for each fill, where the channel of trades merges those of one order at one price.
Not played: the business path (candles, trades one by one), books for who pays, RPI orders, price limits, funding of
the past, candles of REST.
"""

import random
import re
from collections.abc import Callable
from decimal import Decimal

import msgspec

from feedhandler.sim.market import Instrument, Listing, trimmed
from feedhandler.sim.order_book import Fill, Level, OrderBook
from feedhandler.sim.perpetuals import (
    HOUR_NS,
    INTEREST,
    RATE_DECIMALS,
    RATE_MAX,
    LiquidatedPosition,
    LiquidationSource,
    Perpetual,
)
from feedhandler.sim.protocol import (
    NS_PER_MS,
    NS_PER_S,
    Attempts,
    BookState,
    Close,
    DataStream,
    Dialog,
    Exchange,
    HttpAnswer,
    HttpRequest,
    NoPrivate,
    Now,
    Reply,
    SlidingWindow,
    Weight,
    decode_object,
    to_json,
)
from feedhandler.sim.reading import KeptMessage, KeptState, TrafficReading
from feedhandler.sim.sources import TradeSource, WindowSource

PUBLIC_PATH = "/ws/v5/public"
BOOK_LEVELS = 400
BEST_LEVELS = 5
CHANNELS = ("tickers", "bbo-tbt", "trades", "books", "books5")
CONTRACT_CHANNELS = ("mark-price", "funding-rate", "open-interest")
LIQUIDATIONS = "liquidation-orders"
BUSINESS_CHANNELS = ("trades-all", "candle")  # their beginnings
LOGIN_CHANNELS = ("books-l2-tbt", "books50-l2-tbt")
REPEAT_NS = 60 * NS_PER_S  # what a quiet book is repeated after
OLD_TRADE_NS = 20 * NS_PER_S  # ago: a trade from before anybody looked
DAY_NS = 86_400 * NS_PER_S
FUNDING_HOURS = (8, 8, 4, 1)  # by rank, in turn
# A contract has so many coins, as a power of ten: the more the cheaper they are. By decimals of a lot of coins.
_CONTRACT_EXPONENTS = {5: -2, 3: -1, 1: 1, 0: 2}
INVERSE_VALUE = 100  # USD of a contract that is settled in its coin
# by base, of what does not trade; all others are suspended then
_STATES = {"SOONER": "preopen", "PROBED": "test"}
_ODD = (
    Listing(base="1INCH", quote="USDT", price=0.187_4),
    Listing(base="NEXUSD", quote="USDT", price=1.0007),
    Listing(base="NEX", quote="USDT", price=0.0731),
    Listing(base="MOONX", quote="USDT", price=0.000_001_23),
    Listing(base="THINLY", quote="USDT", price=0.0519, is_thin=True),
    Listing(base="BTC", quote="BRL", price=466_000.0),
    Listing(base="HALTED", quote="USDT", price=3.141, is_trading=False),
    Listing(base="SOONER", quote="USDT", price=0.25, is_trading=False),
    Listing(base="PROBED", quote="USDT", price=12.5, is_trading=False),
)
_TYPES = ("SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION")
_ID = re.compile(r"[A-Za-z0-9]{1,32}")


class OkxRules(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and timers, as documented or reported; tests shorten them."""

    silence_s: float = 30.0  # without a push and without a ping
    requests_per_hour: int = 480  # to subscribe and unsubscribe, of one connection
    request_size: int = 64 * 1024
    attempts_per_s: int = 3


class Okx(Exchange):
    """The exchange."""

    name = "okx"
    rest_levels = BOOK_LEVELS

    def __init__(self, instruments: int, seed: int, rules: OkxRules | None = None) -> None:
        super().__init__(instruments, seed, _ODD, symbol_of)
        self.rules = rules or OkxRules()
        self.private = NoPrivate()
        self._random = random.Random(f"connections {seed}")
        self._attempts = Attempts(self.rules.attempts_per_s, 1.0)
        self._used = {path: Weight(2.0) for path in _ENDPOINTS}
        self._list_swaps(seed)
        self._windows: dict[str, BookWindow] = {}  # by symbol: they count on while nobody is subscribed
        self._changed_unix_ns: dict[str, int] = {}  # by symbol: when a ticker was pushed last

    def _list_swaps(self, seed: int) -> None:
        """List a swap of each pair against USDT, in whatever state that is, and one that is inverse."""
        pairs = [
            each for each in self.instruments if each.listing.quote == "USDT" and not each.listing.is_thin
        ]
        linear = [(each, msgspec.structs.replace(each.listing, settle="USDT")) for each in pairs]
        inverse = msgspec.structs.replace(pairs[0].listing, quote="USD", settle=pairs[0].listing.base)
        contracts = self.list_contracts([*linear, (pairs[0], inverse)], seed)
        self.swaps = {
            symbol_of(each): Perpetual(each, FUNDING_HOURS[each.index % len(FUNDING_HOURS)] * HOUR_NS)
            for each in contracts
        }
        self.indexes = {family_of(each): each.pair for each in contracts}

    def accept(self, request: HttpRequest, now: Now) -> Dialog | HttpAnswer:
        if not self._attempts.admit(request.remote, now.mono_ns):
            violation = f"more than {self.rules.attempts_per_s} connections in a second"
            return HttpAnswer(body=b"", status=429, violation=violation)
        if request.path != PUBLIC_PATH:
            return HttpAnswer(body=b"", status=404)
        return OkxDialog(self, f"{self._random.getrandbits(32):08x}")

    def refusal(self, channel: str, symbol: str) -> tuple[str, str] | None:
        """Say why a channel of a symbol cannot be had: code and text; None if it can."""
        if channel in LOGIN_CHANNELS:
            return "60011", "Please log in."
        if channel.startswith(BUSINESS_CHANNELS):
            return "64001", "This channel has been migrated to the '/business' URL. Please subscribe there."
        if self._has(channel, symbol) and symbol not in self.rejected_symbols:
            return None
        return "60018", (
            f"Wrong URL or channel:{channel},instId:{symbol} doesn't exist. Please use the correct URL,"
            " channel and parameters referring to API document."
        )

    def _has(self, channel: str, symbol: str) -> bool:
        if channel == LIQUIDATIONS:
            return symbol in _TYPES
        if channel == "index-tickers":
            return self.knows_all or symbol in self.indexes
        if channel in CONTRACT_CHANNELS:
            return self.knows_all or symbol in self.swaps
        return channel in CHANNELS and self.knows(symbol)

    def stream(self, topic: str) -> DataStream | None:
        channel, _, symbol = topic.partition(":")
        if channel == LIQUIDATIONS:
            return self._liquidations(topic) if symbol == "SWAP" else None
        instrument = self.indexes.get(symbol) if channel == "index-tickers" else self.by_symbol.get(symbol)
        if instrument is None or not instrument.listing.is_trading:
            return None
        if channel in _CONTRACT_STREAMS:
            return self._contract_stream(topic, channel, instrument)
        if channel == "tickers":
            return DataStream(topic, instrument, self._ticker(instrument), at_most_every_ns=100 * NS_PER_MS)
        if channel == "bbo-tbt":
            return DataStream(
                topic,
                instrument,
                self._best(instrument),
                at_most_every_ns=10 * NS_PER_MS,
                repeat_every_ns=REPEAT_NS,
            )
        if channel == "trades":
            trades = MergedTrades(instrument.order_book())
            return DataStream(
                topic, instrument, self._trades(instrument, trades), is_trade=True, source=trades
            )
        if channel == "books5":
            best = WholeWindow(instrument.order_book(), BEST_LEVELS)
            encode = self._best_levels(instrument, best)
            return DataStream(
                topic,
                instrument,
                encode,
                regular_every_ns=100 * NS_PER_MS,
                shows_book=True,
                source=best,
            )
        window = self.window(instrument)
        return DataStream(
            topic,
            instrument,
            _book(instrument, window),
            regular_every_ns=100 * NS_PER_MS,
            repeat_every_ns=REPEAT_NS,
            encode_repeat=_unchanged_book(instrument, window),
            shows_book=True,
            source=window,
        )

    def _contract_stream(self, topic: str, channel: str, instrument: Instrument) -> DataStream:
        """Print what there is of a contract or an index by a clock of its own, changed or not."""
        at_most_every_s, repeat_every_s, print_row = _CONTRACT_STREAMS[channel]
        symbol = topic.partition(":")[2]
        head = _head(channel, symbol)

        def encode(variant: int, now: Now) -> bytes:
            return b'%b"data":[%b]}' % (head, to_json(print_row(self, symbol, now)))

        return DataStream(
            topic,
            instrument,
            encode,
            at_most_every_ns=int(at_most_every_s * NS_PER_S),
            repeat_every_ns=int(repeat_every_s * NS_PER_S),
            encode_repeat=encode,
            shows_quote=channel == "mark-price",
        )

    def _liquidations(self, topic: str) -> DataStream:
        contracts = [each.contract for each in self.swaps.values() if each.contract.listing.is_trading]
        source = LiquidationSource(contracts, lambda: stream.instrument, topic)

        def encode(variant: int, now: Now) -> bytes:
            return b'{"arg":%b,"data":[%b]}' % (
                to_json({"channel": LIQUIDATIONS, "instType": "SWAP"}),
                to_json(_liquidation_row(source.message)),
            )

        def next_instrument(bits: int) -> Instrument:
            return contracts[(bits >> 20) % len(contracts)]

        stream = DataStream(topic, contracts[0], encode, next_instrument=next_instrument, source=source)
        stream.moves_quote = False
        return stream

    def symbols_of(self, stream: DataStream) -> str:
        return stream.topic.partition(":")[2]

    def window(self, instrument: Instrument) -> "BookWindow":
        """Return what the channel of books shows of one: of one count, whoever is subscribed."""
        symbol = symbol_of(instrument)
        if symbol not in self._windows:
            self._windows[symbol] = BookWindow(instrument.order_book(), BOOK_LEVELS)
        return self._windows[symbol]

    def sequence(self, instrument: Instrument, update_id: int) -> int:
        """Return the seqId of a change: it begins anew after a maintenance."""
        window = self._windows.get(symbol_of(instrument))
        return update_id - (window.offset if window is not None else 0)

    def snapshot(self, stream: DataStream, variant: int, now: Now) -> bytes | None:
        if isinstance(stream.source, LiquidationSource):
            return None
        if stream.topic.startswith("tickers:"):
            return _push("tickers", stream.instrument, self.ticker_row(stream.instrument, now))
        if isinstance(stream.source, BookWindow):
            if not self.has_snapshots:
                return None
            stream.source.show_all()
        elif isinstance(stream.source, WholeWindow):
            stream.source.show_all()
        return stream.encode(variant, now)

    def restart_book(self, stream: DataStream) -> bool:
        if not isinstance(stream.source, BookWindow):
            return False
        stream.source.count_anew()
        return True

    def shutdown_notice(self, dialog: Dialog, now: Now) -> bytes | None:
        assert isinstance(dialog, OkxDialog)
        text = "The connection will soon be closed for a service upgrade. Please reconnect."
        return to_json({"event": "notice", "code": "64008", "msg": text, "connId": dialog.connection_id})

    def _newest_state(self, instrument: Instrument, now: Now) -> BookState:
        """Return a book as the channel has it, with which it shares its count."""
        window = self.window(instrument)
        window.show_all()
        return BookState(window.sequence, now, window.bids, window.asks)

    def throttled(self, status: int, retry_after_s: int, now: Now) -> HttpAnswer:
        code, text = (
            ("50011", "Too Many Requests") if status in (418, 429) else ("50001", "Service unavailable")
        )
        return _refused(code, text, status=status, headers={"Retry-After": str(retry_after_s)})

    def rest(self, request: HttpRequest, now: Now) -> HttpAnswer:
        endpoint = _ENDPOINTS.get(request.path)
        if endpoint is None:
            return _refused("404", "Not Found", status=404)
        if request.method != "GET":
            return _refused("405", "Method Not Allowed", status=405)
        if self._used[request.path].use(request.remote, 1, now.mono_ns) > endpoint.limit:
            refusal = _refused("50011", "Too Many Requests", status=429)
            violation = f"more than {endpoint.limit} requests in 2 s: {request.path}"
            return msgspec.structs.replace(refusal, violation=violation)
        return endpoint.answer(self, request, now)

    def ticker_row(self, each: Instrument, now: Now) -> bytes:
        """Print a ticker as it is; its time is that of its last change."""
        changed = max(self._changed_unix_ns.get(symbol_of(each), 0), each.traded_unix_ns)
        return _ticker_row(each, (changed or now.unix_ns - OLD_TRADE_NS) // NS_PER_MS)

    # Topics.

    def _ticker(self, instrument: Instrument) -> "_Encode":
        symbol = symbol_of(instrument)

        def encode(variant: int, now: Now) -> bytes:
            self._changed_unix_ns[symbol] = now.unix_ns
            return _push("tickers", instrument, _ticker_row(instrument, now.unix_ms))

        return encode

    def _best(self, instrument: Instrument) -> "_Encode":
        """Best bid and offer, whole each time; a side may be empty."""
        head = _head("bbo-tbt", symbol_of(instrument)) + b'"data":[{"asks":['

        def encode(variant: int, now: Now) -> bytes:
            # hot: bench/load.py
            each = instrument
            return b'%b%b],"bids":[%b],"ts":"%d","seqId":%d}]}' % (
                head,
                b"" if each.is_ask_empty else _levels(each, [(each.ask, each.ask_size)]),
                b"" if each.is_bid_empty else _levels(each, [(each.bid, each.bid_size)]),
                now.unix_ms,
                self.sequence(each, each.update_id),
            )

        return encode

    def _best_levels(self, instrument: Instrument, best: "WholeWindow") -> "_Encode":
        symbol = symbol_of(instrument)

        def encode(variant: int, now: Now) -> bytes:
            return _push(
                "books5",
                instrument,
                b'{"asks":[%b],"bids":[%b],"instId":"%b","ts":"%d","seqId":%d}'
                % (
                    _levels(instrument, best.asks),
                    _levels(instrument, best.bids),
                    symbol.encode(),
                    now.unix_ms,
                    self.sequence(instrument, best.update_id),
                ),
            )

        return encode

    def _trades(self, instrument: Instrument, trades: "MergedTrades") -> "_Encode":
        """One order's fills at one price, as one trade that has the id of the last and the size of all."""
        head = _head("trades", symbol_of(instrument))
        template = b'"data":[{"instId":"%b","tradeId":"%%d",%%b,"count":"%%d","source":"0","seqId":%%d}]}' % (
            symbol_of(instrument).encode()
        )

        def encode(variant: int, now: Now) -> bytes:
            last, count = trades.message[-1], len(trades.message)
            merged = last._replace(size=sum(fill.size for fill in trades.message))
            return head + template % (
                last.trade_id,
                _fill(instrument, merged, now),
                count,
                self.sequence(instrument, last.update_id),
            )

        return encode


class OkxDialog(Dialog):
    """One connection. There is no greeting; requests that fail leave it open."""

    def __init__(self, exchange: Okx, connection_id: str) -> None:
        super().__init__()
        self._exchange = exchange
        self._rules = exchange.rules
        self.connection_id = connection_id
        self._requests = SlidingWindow(self._rules.requests_per_hour, 3600.0)
        self._alive_ns = 0  # something was pushed, subscribed to, or a ping came
        self._pushed_before = 0

    def on_open(self, now: Now) -> Reply:
        self._alive_ns = now.mono_ns
        return Reply()

    def on_text(self, text: str, now: Now) -> Reply:
        if text == "ping":
            self._alive_ns = now.mono_ns
            return Reply(texts=[b"pong"])
        if text == "pong":
            return Reply()
        if len(text.encode(errors="replace")) > self._rules.request_size:
            return Reply(close=Close(1009, "request too long"), violation="request too long")
        message = decode_object(text)
        if message is None:
            return self._refuse("60012", f"Invalid request: {text[:100]}", {})
        if "id" in message and not (isinstance(message["id"], str) and _ID.fullmatch(message["id"])):
            return self._refuse("60033", "Parameter id error", {})
        operation = message.get("op")
        if operation not in ("subscribe", "unsubscribe"):
            return self._refuse("60019", f"Invalid op: {operation}", message)
        if not self._requests.admit(now.mono_ns):
            return self._refuse("60014", "Requests too frequent", message)
        args = message.get("args")
        if not isinstance(args, list) or not args:
            return self._refuse("60013", "Invalid args", message)
        reply = Reply()
        for arg in args:
            self._take(str(operation), arg, message, reply)
        if reply.subscribe:
            self._alive_ns = now.mono_ns
        return reply

    def on_tick(self, now: Now) -> Reply:
        if self.topics and self.pushed != self._pushed_before:
            self._pushed_before = self.pushed
            self._alive_ns = now.mono_ns
        if now.mono_ns - self._alive_ns <= self._rules.silence_s * NS_PER_S:
            return Reply()
        return Reply(
            close=Close(4004, "No data received in 30s."), violation="neither data nor a ping in time"
        )

    def _take(self, operation: str, arg: object, message: dict[str, object], reply: Reply) -> None:
        """Answer one channel of a request; one that is refused does not concern the others."""
        fields = arg if isinstance(arg, dict) else {}
        channel, key = (
            fields.get("channel"),
            "instType" if fields.get("channel") == LIQUIDATIONS else "instId",
        )
        symbol = fields.get(key, "" if key == "instType" else None)
        if not isinstance(channel, str) or not isinstance(symbol, str):
            return self._add_refusal(reply, "60013", "Invalid args", message)
        topic = f"{channel}:{symbol}"
        if operation == "subscribe":
            refusal = self._exchange.refusal(channel, symbol)
            if refusal is not None:
                is_whim = symbol in self._exchange.rejected_symbols  # ours, and no fault of the client's
                return self._add_refusal(reply, *refusal, message, is_whim=is_whim)
            if topic not in self.topics:
                self.topics[topic] = None
                reply.subscribe.append(topic)
        elif topic in self.topics:
            del self.topics[topic]
            reply.unsubscribe.append(topic)
        answer: dict[str, object] = {"event": operation, "arg": {"channel": channel, key: symbol}}
        reply.texts.append(self._answer(message, answer))
        return None

    def _add_refusal(
        self, reply: Reply, code: str, text: str, message: dict[str, object], *, is_whim: bool = False
    ) -> None:
        refused = self._refuse(code, text, message)
        reply.texts += refused.texts
        reply.violation = reply.violation if is_whim else refused.violation

    def _refuse(self, code: str, text: str, message: dict[str, object]) -> Reply:
        answer = self._answer(message, {"event": "error", "code": code, "msg": text})
        return Reply(texts=[answer], violation=f"{code} {text}")

    def _answer(self, message: dict[str, object], answer: dict[str, object]) -> bytes:
        request_id = {"id": message["id"]} if "id" in message else {}
        return to_json(request_id | answer | {"connId": self.connection_id})


# What is sent.


class MergedTrades(TradeSource):
    """The trades, those of one order at one price in one message."""

    def __init__(self, book: OrderBook) -> None:
        super().__init__(book)
        fills = list(book.fills)
        first = next((n for n in range(len(fills) - 1, 0, -1) if not _is_one(fills[n - 1], fills[n])), 0)
        self.message = fills[first:]

    def take(self) -> bool:
        waiting = self._waiting
        self._most = next(
            (n for n in range(1, len(waiting)) if not _is_one(waiting[n - 1], waiting[n])), len(waiting)
        )
        return super().take()


def _is_one(earlier: Fill, later: Fill) -> bool:
    """True if one order is behind both, as far as can be seen."""
    return (earlier.price, earlier.is_sell, earlier.unix_ns) == (later.price, later.is_sell, later.unix_ns)


class BookWindow(WindowSource):
    """What changes among the best levels; each message names the one before, and ids jump."""

    def __init__(self, book: OrderBook, depth: int) -> None:
        super().__init__(book, depth)
        self.offset = 0  # by which ids are below those of the market
        self.sequence = self.previous = book.update_id
        self._is_counted_anew = False

    def start(self) -> None:
        super().start()
        self.sequence = self.update_id - self.offset

    def take(self) -> bool:
        is_changed = super().take()
        is_anew, self._is_counted_anew = self._is_counted_anew, False
        if is_anew:
            self.offset = self._book.update_id - 1
            if not is_changed:
                self.bids, self.asks, self.is_snapshot = [], [], False
        if is_changed or is_anew:
            self.previous, self.sequence = self.sequence, self.update_id - self.offset
        return is_changed or is_anew

    def show_all(self) -> None:
        super().show_all()
        if not self._is_running:
            self.sequence = self.update_id - self.offset

    def count_anew(self) -> None:
        """Let the next message have a lower id than the one before, as after a maintenance."""
        self._is_counted_anew = True


class WholeWindow:
    """The best levels, all of them, whenever one has changed."""

    def __init__(self, book: OrderBook, depth: int) -> None:
        self._window = WindowSource(book, depth)

    @property
    def bids(self) -> list[Level]:
        return self._window.bids

    @property
    def asks(self) -> list[Level]:
        return self._window.asks

    @property
    def update_id(self) -> int:
        return self._window.update_id

    def start(self) -> None:
        self._window.start()

    def stop(self) -> None:
        self._window.stop()

    def take(self) -> bool:
        is_changed = self._window.take()
        self.show_all()
        return is_changed

    def lose(self) -> bool:
        return self._window.lose()

    def show_all(self) -> None:
        self._window.show_all()


_Encode = Callable[[int, Now], bytes]


def _book(instrument: Instrument, window: BookWindow) -> _Encode:
    head = _head("books", symbol_of(instrument))

    def encode(variant: int, now: Now) -> bytes:
        return b'%b"action":"%b","data":[%b]}' % (
            head,
            b"snapshot" if window.is_snapshot else b"update",
            _book_data(instrument, window, now, previous=-1 if window.is_snapshot else window.previous),
        )

    return encode


def _unchanged_book(instrument: Instrument, window: BookWindow) -> _Encode:
    """Nothing has changed for long: a message without levels, whose id is that of the one before."""
    head = _head("books", symbol_of(instrument))

    def encode(variant: int, now: Now) -> bytes:
        window.bids, window.asks = [], []
        data = _book_data(instrument, window, now, previous=window.sequence)
        return b'%b"action":"update","data":[%b]}' % (head, data)

    return encode


def _book_data(instrument: Instrument, window: BookWindow, now: Now, previous: int) -> bytes:
    return b'{"asks":[%b],"bids":[%b],"ts":"%d","checksum":0,"seqId":%d,"prevSeqId":%d}' % (
        _levels(instrument, window.asks),
        _levels(instrument, window.bids),
        now.unix_ms,
        window.sequence,
        previous,
    )


def _head(channel: str, symbol: str) -> bytes:
    return b'{"arg":%b,' % to_json({"channel": channel, "instId": symbol})


def _push(channel: str, instrument: Instrument, row: bytes) -> bytes:
    return b'%b"data":[%b]}' % (_head(channel, symbol_of(instrument)), row)


def _levels(instrument: Instrument, levels: list[Level]) -> bytes:
    """Price, size, a field of former times, and how many orders there are."""
    return b",".join(
        [
            b'["%b","%b","0","%d"]'
            % (_price(instrument, price), _size(instrument, size), size and 1 + size % 7)
            for price, size in levels
        ]
    )


def _fill(each: Instrument, fill: Fill, now: Now) -> bytes:
    return b'"px":"%b","sz":"%b","side":"%b","ts":"%d"' % (
        _price(each, fill.price),
        _size(each, fill.size),
        b"sell" if fill.is_sell else b"buy",
        (fill.unix_ns or now.unix_ns - OLD_TRADE_NS) // NS_PER_MS,
    )


def _ticker_row(each: Instrument, time_ms: int) -> bytes:
    """Last trade, best bid and offer, and 24 h that roll; what is not traded has texts that are empty."""
    is_known = state_of(each) != "preopen"
    is_trading = each.listing.is_trading
    has_bid, has_ask = is_trading and not each.is_bid_empty, is_trading and not each.is_ask_empty
    return (
        b'{"instType":"%b","instId":"%b","last":"%b","lastSz":"%b","askPx":"%b","askSz":"%b","bidPx":"%b",'
        b'"bidSz":"%b","open24h":"%b","high24h":"%b","low24h":"%b","volCcy24h":"%b","vol24h":"%b","ts":"%d",'
        b'"sodUtc0":"%b","sodUtc8":"%b"}'
    ) % (
        type_of(each).encode(),
        symbol_of(each).encode(),
        _price(each, each.last) if is_known else b"",
        _size(each, each.last_size) if is_known else b"",
        _price(each, each.ask) if has_ask else b"",
        _size(each, each.ask_size) if has_ask else b"",
        _price(each, each.bid) if has_bid else b"",
        _size(each, each.bid_size) if has_bid else b"",
        _price(each, each.open) if is_known else b"",
        _price(each, each.high) if is_known else b"",
        _price(each, each.low) if is_known else b"",
        _other_volume(each) if is_known else b"0",
        _size(each, each.base_volume) if is_known else b"0",
        time_ms,
        _price(each, each.open) if is_known else b"",
        _price(each, each.open) if is_known else b"",
    )


def _other_volume(each: Instrument) -> bytes:
    """In quote currency on spot, and in coins of what is counted in contracts."""
    if not each.listing.settle:
        return trimmed(each.quote_volume, each.price_decimals + each.size_decimals)
    return _coins(each, each.base_volume)


def _coins(each: Instrument, lots: int) -> bytes:
    """Print how many coins contracts are."""
    if is_inverse(each):
        return trimmed(lots * INVERSE_VALUE * 10 ** (each.price_decimals + 4) // each.last, 4)
    return trimmed(lots, each.size_decimals)


def _mark_row(exchange: Okx, symbol: str, now: Now) -> dict[str, object]:
    swap = exchange.swaps[symbol]
    mark = _price(swap.contract, swap.mark).decode()
    return {"instType": "SWAP", "instId": symbol, "markPx": mark, "ts": str(now.unix_ms)}


def _index_row(exchange: Okx, symbol: str, now: Now) -> dict[str, object]:
    each = exchange.indexes[symbol]
    opened = _price(each, each.open).decode()
    return {
        "instId": symbol,
        "idxPx": _price(each, each.last).decode(),
        "high24h": _price(each, each.high).decode(),
        "low24h": _price(each, each.low).decode(),
        "open24h": opened,
        "sodUtc0": opened,
        "sodUtc8": opened,
        "ts": str(now.unix_ms),
    }


def _funding_row(exchange: Okx, symbol: str, now: Now) -> dict[str, object]:
    """The rate is of what is paid at fundingTime, the next one; what comes after that is not forecast."""
    swap = exchange.swaps[symbol]
    settled = swap.settled_rate(now.unix_ns)
    next_ms, interval_ms = swap.funding_ns(now.unix_ns) // NS_PER_MS, swap.interval_ns // NS_PER_MS
    return {
        "formulaType": "withRate",
        "fundingRate": _rate(swap.rate),
        "fundingTime": str(next_ms),
        "impactValue": "20000",
        "instId": symbol,
        "instType": "SWAP",
        "interestRate": _rate(INTEREST),
        "maxFundingRate": _rate(RATE_MAX),
        "method": "current_period",
        "minFundingRate": _rate(-RATE_MAX),
        "nextFundingRate": "",
        "nextFundingTime": str(next_ms + interval_ms),
        "premium": _rate(swap.premium),
        "prevFundingTime": str(next_ms - interval_ms),
        "settFundingRate": _rate(settled),
        "settState": "settled",
        "ts": str(now.unix_ms),
    }


def _interest_row(exchange: Okx, symbol: str, now: Now) -> dict[str, object]:
    swap = exchange.swaps[symbol]
    each, lots = swap.contract, swap.open_interest
    usd = (
        trimmed(lots * INVERSE_VALUE, 0)
        if is_inverse(each)
        else trimmed(lots * each.last, each.size_decimals + each.price_decimals)
    )
    return {
        "instType": "SWAP",
        "instId": symbol,
        "oi": _size(each, lots).decode(),
        "oiCcy": _coins(each, lots).decode(),
        "oiUsd": usd.decode(),
        "ts": str(now.unix_ms),
    }


def _liquidation_row(said: LiquidatedPosition) -> dict[str, object]:
    """Its price is that at which the position was worth nothing; who has one position a contract has none named."""
    each = said.instrument
    side = "long" if said.is_sell else "short"
    details = {
        "bkLoss": "0",
        "bkPx": _price(each, said.price).decode(),
        "ccy": "",
        "posSide": side if said.size % 3 else "net",
        "side": "sell" if said.is_sell else "buy",
        "sz": _size(each, said.size).decode(),
        "ts": str(said.unix_ns // NS_PER_MS),
    }
    family = family_of(each)
    return {
        "details": [details],
        "instFamily": family,
        "instId": symbol_of(each),
        "instType": "SWAP",
        "uly": family,
    }


def _rate(rate: int) -> str:
    return trimmed(rate, RATE_DECIMALS).decode()


_Print = Callable[[Okx, str, Now], dict[str, object]]
_CONTRACT_STREAMS: dict[str, tuple[float, float, _Print]] = {  # at most every, and again after, in seconds
    "mark-price": (0.2, 10.0, _mark_row),
    "index-tickers": (0.1, 60.0, _index_row),
    "funding-rate": (60.0, 60.0, _funding_row),
    "open-interest": (3.0, 0.0, _interest_row),
}


def type_of(instrument: Instrument) -> str:
    return "SWAP" if instrument.listing.settle else "SPOT"


def family_of(instrument: Instrument) -> str:
    """Return the pair that a contract is about, which is the name of its index, too."""
    return f"{instrument.listing.base}-{instrument.listing.quote}"


def symbol_of(instrument: Instrument) -> str:
    return family_of(instrument) + ("-SWAP" if instrument.listing.settle else "")


def is_inverse(instrument: Instrument) -> bool:
    """True if a contract is so much money, and settled in coins."""
    return instrument.listing.settle == instrument.listing.base


def state_of(instrument: Instrument) -> str:
    return "live" if instrument.listing.is_trading else _STATES.get(instrument.listing.base, "suspend")


def _price(instrument: Instrument, ticks: int) -> bytes:
    return trimmed(ticks, instrument.price_decimals)


def _size(instrument: Instrument, lots: int) -> bytes:
    """Print an amount: in coins on spot, else in contracts."""
    if not instrument.listing.settle:
        return trimmed(lots, instrument.size_decimals)
    if is_inverse(instrument):
        return trimmed(lots, 0)
    return trimmed(lots, instrument.size_decimals + _CONTRACT_EXPONENTS[instrument.size_decimals])


# REST.


def _rows(rows: list[bytes]) -> HttpAnswer:
    return HttpAnswer(body=b'{"code":"0","msg":"","data":[%b]}' % b",".join(rows))


def _refused(code: str, text: str, status: int = 200, headers: dict[str, str] | None = None) -> HttpAnswer:
    body = to_json({"code": code, "msg": text, "data": []})
    return HttpAnswer(body=body, status=status, headers=headers or {})


def _one(exchange: Okx, request: HttpRequest) -> Instrument | HttpAnswer:
    """Resolve instId, or answer what is wrong with it."""
    symbol = request.one("instId")
    if not symbol:
        return _refused("50014", "Parameter instId can not be empty.", status=400)
    instrument = exchange.by_symbol.get(symbol)
    if instrument is None:
        return _refused("51001", "Instrument ID, Instrument ID code, or Spread ID doesn't exist.")
    return instrument


def _of_type(exchange: Okx, request: HttpRequest) -> list[Instrument] | HttpAnswer:
    """Resolve instType, or answer what is wrong with it."""
    kind = request.one("instType")
    if not kind:
        return _refused("50014", "Parameter instType can not be empty.", status=400)
    if kind not in _TYPES:
        return _bad("instType")
    family = request.one("instFamily") or request.one("uly")
    return [
        each
        for each in exchange.listed()
        if type_of(each) == kind and (not family or family_of(each) == family)
    ]


def _number(request: HttpRequest, name: str, default: int) -> int | None:
    """Read a parameter that is a number; None: it is none."""
    text = request.one(name)
    if not text:
        return default
    return int(text[:18]) if text.isascii() and text.isdigit() else None


def _bad(name: str) -> HttpAnswer:
    return _refused("51000", f"Parameter {name} error", status=400)


def _time(exchange: Okx, request: HttpRequest, now: Now) -> HttpAnswer:
    return _rows([to_json({"ts": str(now.unix_ms)})])


def _instruments(exchange: Okx, request: HttpRequest, now: Now) -> HttpAnswer:
    """Everything of a type in one answer."""
    selected = _of_type(exchange, request)
    if isinstance(selected, HttpAnswer):
        return selected
    symbol = request.one("instId")
    rows = [each for each in selected if not symbol or symbol_of(each) == symbol]
    if symbol and not rows:
        return _refused("51001", "Instrument ID, Instrument ID code, or Spread ID doesn't exist.")
    return _rows([to_json(_instrument_row(each, now)) for each in rows])


def _instrument_row(each: Instrument, now: Now) -> dict[str, object]:
    is_early = state_of(each) == "preopen"
    family = family_of(each) if each.listing.settle else ""
    # Not below what a day is rounded to: the same in each answer.
    listed_ns = now.unix_ns // DAY_NS * DAY_NS + (2 if is_early else -900) * DAY_NS
    row: dict[str, object] = {
        "alias": "",
        "auctionEndTime": "",
        "baseCcy": "" if each.listing.settle else each.listing.base,
        "category": "1",
        "contTdSwTime": "",
        **_contract_fields(each),
        "expTime": "",
        "futureSettlement": False,
        "groupId": "1",
        "instCategory": "1",
        "instFamily": family,
        "instId": symbol_of(each),
        "instType": type_of(each),
        "lever": "10" if each.index < 20 else "",
        "listTime": str(listed_ns // NS_PER_MS),
        "lotSz": _size(each, 1).decode(),
        "maxIcebergSz": "9999999999.0000000000000000",
        "maxLmtAmt": "20000000",
        "maxLmtSz": "9999999999",
        "maxMktAmt": "1000000",
        "maxMktSz": "1000000",
        "maxStopSz": "1000000",
        "maxTriggerSz": "9999999999.0000000000000000",
        "maxTwapSz": "9999999999.0000000000000000",
        "minSz": _size(each, 1).decode(),
        "openType": "call_auction" if is_early else "",
        "optType": "",
        "quoteCcy": "" if each.listing.settle else each.listing.quote,
        "ruleType": "pre_market" if is_early and each.listing.settle else "normal",
        "settleCcy": each.listing.settle,
        "state": state_of(each),
        "stk": "",
        "tickSz": _price(each, 1).decode(),
        "tradeQuoteCcyList": [each.listing.quote],
        "uly": family,
        "upcChg": [],
    }
    if each.index % 7:
        row["instIdCode"] = (
            20_000 if each.listing.settle else 10_000
        ) + each.index  # a number, and absent here and there
    return row


def _contract_fields(each: Instrument) -> dict[str, object]:
    """A contract is so many coins, or of an inverse one so much money; a spot pair has texts that are empty."""
    if not each.listing.settle:
        return dict.fromkeys(("ctMult", "ctType", "ctVal", "ctValCcy"), "")
    if is_inverse(each):
        return {"ctMult": "1", "ctType": "inverse", "ctVal": str(INVERSE_VALUE), "ctValCcy": "USD"}
    value = Decimal(1).scaleb(_CONTRACT_EXPONENTS[each.size_decimals])
    return {"ctMult": "1", "ctType": "linear", "ctVal": f"{value:f}", "ctValCcy": each.listing.base}


def _tickers(exchange: Okx, request: HttpRequest, now: Now) -> HttpAnswer:
    selected = _of_type(exchange, request)
    if isinstance(selected, HttpAnswer):
        return selected
    return _rows([exchange.ticker_row(each, now) for each in selected])


def _ticker(exchange: Okx, request: HttpRequest, now: Now) -> HttpAnswer:
    each = _one(exchange, request)
    return each if isinstance(each, HttpAnswer) else _rows([exchange.ticker_row(each, now)])


def _books(exchange: Okx, request: HttpRequest, now: Now) -> HttpAnswer:
    """The best levels; the id of the channel's count is there for who asks for it by its source."""
    each, count = _one(exchange, request), _number(request, "sz", 1)
    if isinstance(each, HttpAnswer):
        return each
    if count is None or count > BOOK_LEVELS:
        return _bad("sz")
    if not each.listing.is_trading:
        return _rows([b'{"asks":[],"bids":[],"ts":"%d"}' % now.unix_ms])
    book = exchange.book_state(each, now)
    row = b'{"asks":[%b],"bids":[%b],"ts":"%d"%b}' % (
        _levels(each, book.asks[:count]),
        _levels(each, book.bids[:count]),
        book.at.unix_ms,
        b',"seqId":%d' % book.update_id if request.one("source") == "0" else b"",
    )
    return _rows([row])


def _newest_trades(exchange: Okx, request: HttpRequest, now: Now) -> HttpAnswer:
    each, limit = _one(exchange, request), _number(request, "limit", 100)
    if isinstance(each, HttpAnswer):
        return each
    if limit is None:
        return _bad("limit")
    return _trade_rows(each, list(each.order_book().fills)[: -min(limit, 500) - 1 : -1], now)


def _history_trades(exchange: Okx, request: HttpRequest, now: Now) -> HttpAnswer:
    """The newest trades of those older than one and newer than another, by id or by time, the newest first."""
    each, limit = _one(exchange, request), _number(request, "limit", 100)
    if isinstance(each, HttpAnswer):
        return each
    after, before = _number(request, "after", 10**18), _number(request, "before", -1)
    kind = request.one("type") or "1"
    if limit is None or after is None or before is None or kind not in ("1", "2"):
        return _bad("limit, after, before or type")
    fills = [
        fill
        for fill in each.order_book().fills
        if before < (fill.trade_id if kind == "1" else fill.unix_ns // NS_PER_MS) < after
    ]
    return _trade_rows(each, fills[: -min(limit, 100) - 1 : -1], now)


def _trade_rows(each: Instrument, fills: list[Fill], now: Now) -> HttpAnswer:
    symbol = symbol_of(each).encode()
    return _rows(
        [
            b'{"instId":"%b","tradeId":"%d",%b,"source":"0"}'
            % (symbol, fill.trade_id, _fill(each, fill, now))
            for fill in fills
        ]
    )


def _of_swaps(print_row: "_Print") -> Callable[[Okx, HttpRequest, Now], HttpAnswer]:
    """Answer one row of each swap that trades, or of one."""

    def answer(exchange: Okx, request: HttpRequest, now: Now) -> HttpAnswer:
        selected = _of_type(exchange, request)
        if isinstance(selected, HttpAnswer):
            return selected
        symbol = request.one("instId")
        rows = [
            print_row(exchange, symbol_of(each), now)
            for each in selected
            if symbol_of(each) in exchange.swaps and each.listing.is_trading
            if not symbol or symbol_of(each) == symbol
        ]
        return _rows([to_json(row) for row in rows])

    return answer


def _funding(exchange: Okx, request: HttpRequest, now: Now) -> HttpAnswer:
    """The funding of one swap, or of ANY: of all that trade."""
    if request.one("instId") == "ANY":
        swaps = [symbol for symbol, swap in exchange.swaps.items() if swap.contract.listing.is_trading]
        return _rows([to_json(_funding_row(exchange, symbol, now)) for symbol in swaps])
    each = _one(exchange, request)
    if isinstance(each, HttpAnswer):
        return each
    if not each.listing.settle:
        return _bad("instId")
    return _rows([to_json(_funding_row(exchange, symbol_of(each), now))])


def _indexes(exchange: Okx, request: HttpRequest, now: Now) -> HttpAnswer:
    symbol, quote = request.one("instId"), request.one("quoteCcy")
    if not symbol and not quote:
        return _refused("50014", "Parameter instId or quoteCcy can not be empty.", status=400)
    found = [
        each
        for each in exchange.indexes
        if (not symbol or each == symbol) and (not quote or each.endswith(f"-{quote}"))
    ]
    if not found:
        return _refused("51001", "Instrument ID, Instrument ID code, or Spread ID doesn't exist.")
    return _rows([to_json(_index_row(exchange, each, now)) for each in found])


def _status(exchange: Okx, request: HttpRequest, now: Now) -> HttpAnswer:
    """No maintenance is planned."""
    return _rows([])


class _Endpoint(msgspec.Struct, frozen=True):
    limit: int  # requests in 2 s, of one address
    answer: Callable[[Okx, HttpRequest, Now], HttpAnswer]


_ENDPOINTS: dict[str, _Endpoint] = {
    "/api/v5/public/time": _Endpoint(10, _time),
    "/api/v5/public/instruments": _Endpoint(20, _instruments),
    "/api/v5/market/tickers": _Endpoint(20, _tickers),
    "/api/v5/market/ticker": _Endpoint(20, _ticker),
    "/api/v5/market/books": _Endpoint(40, _books),
    "/api/v5/market/trades": _Endpoint(100, _newest_trades),
    "/api/v5/market/history-trades": _Endpoint(20, _history_trades),
    "/api/v5/market/index-tickers": _Endpoint(20, _indexes),
    "/api/v5/public/mark-price": _Endpoint(10, _of_swaps(_mark_row)),
    "/api/v5/public/open-interest": _Endpoint(20, _of_swaps(_interest_row)),
    "/api/v5/public/funding-rate": _Endpoint(20, _funding),
    "/api/v5/system/status": _Endpoint(1, _status),
}


# Recordings.

_ARG = re.compile(rb'"arg"\s*:\s*(\{[^{}]*\})')


class OkxReading(TrafficReading):
    """A subscription begins with the present state, and that of trades with the last one."""

    live = frozenset({"/api/v5/public/time"})

    def topic_of(self, payload: bytes, market: str = "") -> str:
        match = _ARG.search(payload)
        if match is None or b'"data"' not in payload:
            return ""
        arg = decode_object(match[1]) or {}
        return f"{arg.get('channel')}:{arg.get('instId', arg.get('instType'))}"

    def split(self, topic: str) -> tuple[str, str]:
        channel, _, symbol = topic.partition(":")
        return channel, symbol

    def keeper(self, topic: str) -> KeptState | None:
        if topic.startswith(LIQUIDATIONS):
            return None
        return KeptBook() if topic.startswith("books:") else KeptMessage()


class _BookData(msgspec.Struct):
    asks: list[list[str]]
    bids: list[list[str]]
    ts: str
    checksum: int = 0
    seqId: int = 0
    prevSeqId: int = -1


class _BookMessage(msgspec.Struct):
    arg: dict[str, str]
    action: str
    data: list[_BookData]


class KeptBook:
    """Snapshot and updates of a book, as one snapshot."""

    def __init__(self) -> None:
        self._newest: _BookMessage | None = None
        self._bids: dict[Decimal, list[str]] = {}
        self._asks: dict[Decimal, list[str]] = {}
        self._decode = msgspec.json.Decoder(_BookMessage).decode

    def take(self, payload: bytes) -> None:
        try:
            message = self._decode(payload)
            [data] = message.data
        except ValueError:  # msgspec's is one
            self._newest = None  # an update is missing
            return
        if message.action == "snapshot":
            self._bids, self._asks = {}, {}
        elif self._newest is None:
            return
        for levels, changes in ((self._bids, data.bids), (self._asks, data.asks)):
            levels.update((Decimal(level[0]), level) for level in changes)
            for price, size, *_ in changes:
                if not Decimal(size):
                    levels.pop(Decimal(price), None)
        self._newest = message

    def show(self) -> bytes | None:
        if self._newest is None:
            return None
        [data] = self._newest.data
        bids = [level for _, level in sorted(self._bids.items(), reverse=True)]
        asks = [level for _, level in sorted(self._asks.items())]
        data = msgspec.structs.replace(data, bids=bids, asks=asks, prevSeqId=-1)
        return to_json(msgspec.structs.replace(self._newest, action="snapshot", data=[data]))
