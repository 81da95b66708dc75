"""Binance, simulated: connections, and the market streams and REST of spot. The account's side is in
binance_private.py, what contracts have in binance_linear.py.

Pure: frames and times in, frames and decisions out. Its own reading of the documentation; the feed
handler's adapter is another, and the two meet only on the socket.

Sources:
  streams   https://developers.binance.com/en/docs/products/spot/web-socket-streams
  REST      https://github.com/binance/binance-spot-api-docs/blob/master/rest-api.md
  errors    https://github.com/binance/binance-spot-api-docs/blob/master/errors.md
Not in the documentation, reported from the live exchange: errors come nested under "error"; a malformed
stream name is answered and then disconnected, a well-formed unknown one is acknowledged and silent; too
many messages end in close code 1008 (https://github.com/binance/binance-connector-js/issues/530); a
subscribe message beyond 4096 bytes is ignored (https://github.com/JKorf/Binance.Net/issues/884).
The trades of one order at one price come merged as `aggTrade`.
Not played: kline and rolling-window streams. They are acknowledged and silent.
"""

import re
from collections.abc import Callable
from urllib.parse import unquote

import msgspec

from feedhandler.sim import binance_linear
from feedhandler.sim.binance_linear import (
    COMBINED,
    LINEAR,
    MICROSECOND,
    BinanceContracts,
    BinanceLinearRules,
    ConnectionRules,
    EncodeEvent,
    Entrance,
    MergedByInstrument,
    MergedTrade,
    MergedTradeSource,
    combinable,
    error,
    percent_of,
    too_many,
    unread_parameters,
)
from feedhandler.sim.binance_private import (
    ACCOUNT_WEIGHT,
    CONNECT_WEIGHT,
    BinancePrivate,
    BinanceWsApiDialog,
    WsApiRules,
)
from feedhandler.sim.market import Instrument, Listing, padded
from feedhandler.sim.order_book import Fill, Level, OrderBook
from feedhandler.sim.protocol import (
    NS_PER_MS,
    NS_PER_S,
    NS_PER_US,
    Attempts,
    Close,
    DataStream,
    Dialog,
    Exchange,
    HttpAnswer,
    HttpRequest,
    Now,
    Reply,
    ServerPings,
    SlidingWindow,
    Weight,
    decode_object,
    to_json,
)
from feedhandler.sim.reading import Ids, TrafficReading, number_in
from feedhandler.sim.sources import ChangeSource, TradeSource

PLACES = 8  # every price and size is printed with eight decimals
DAY_MS = 86_400_000
TRADES_WEIGHT = 25
AGG_TRADES_WEIGHT = 4
ORDER_NS = 1  # trades of one order are of one moment
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_INTERVALS = "1s|1m|3m|5m|15m|30m|1h|2h|4h|6h|8h|12h|1d|3d|1w|1M"
_KINDS = rf"""
    ticker | miniTicker | bookTicker | trade | aggTrade | blockTrade | avgPrice | referencePrice
    | ticker_(1h|4h|1d) | depth(5|10|20)?(@(100|1000)ms)? | kline_({_INTERVALS})(@\+08:00)?
"""
_STREAM = re.compile(
    rf"(?P<symbol>[^!@/\s]+)@(?P<kind>{_KINDS}) | !(miniTicker|ticker|ticker_(1h|4h|1d))@arr | !bookTicker",
    re.VERBOSE,
)
_DEPTH = re.compile(r"depth(?P<levels>5|10|20)?(@(?P<every_ms>100|1000)ms)?")
_TEXT_ID = re.compile(r"[A-Za-z0-9_\-]{1,36}")
_ODD = (
    Listing(base="1000SATS", quote="USDT", price=0.000_164_2),
    Listing(base="1INCH", quote="USDT", price=0.187_4),
    Listing(base="松鼠币", quote="USDT", price=0.024_61),  # made up: a base outside ASCII
    Listing(base="NEXUSD", quote="USDT", price=1.0007),  # ends like a quote
    Listing(base="NEX", quote="USDT", price=0.0731),
    Listing(base="MOONX", quote="USDT", price=0.000_001_23),
    Listing(base="BTC", quote="COP", price=352_840_000.0),
    Listing(base="HALTED", quote="USDT", price=3.141, is_trading=False),
    Listing(base="BROKEN", quote="BTC", price=0.000_021_4, is_trading=False),
)
_HALT = {"HALTED": "HALT"}  # every other one that does not trade is in BREAK
_ORDER_TYPES = ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"]


class BinanceRules(ConnectionRules, frozen=True, kw_only=True):
    """Those of spot, and in `linear` those of contracts."""

    ping_every_s: float = 20.0
    pong_within_s: float = 60.0
    messages_per_s: int = 5
    weight_per_minute: int = 6000
    linear: BinanceLinearRules = BinanceLinearRules()


class Binance(Exchange):
    """The exchange."""

    name = "binance"
    private: BinancePrivate

    def __init__(self, instruments: int, seed: int, rules: BinanceRules | None = None) -> None:
        super().__init__(instruments, seed, _ODD, _spelled)
        self.rules = rules or BinanceRules()
        self._attempts = Attempts(self.rules.attempts, self.rules.attempts_period_s)
        self._weight = Weight(60.0)
        self.private = BinancePrivate()
        self._by_stream_symbol = {symbol.lower(): each for symbol, each in self.by_symbol.items()}
        self.linear = BinanceContracts(self, seed, self.rules.linear)
        self.other_instruments = [*self.linear.instruments, *self.linear.indexes]
        self.by_symbol_of = {LINEAR: self.linear.by_symbol}
        self.merged = MergedByInstrument(ORDER_NS)

    def find(self, symbol: str) -> Instrument | None:
        market, _, named = symbol.rpartition(":")
        return self.linear.by_symbol.get(named) if market == LINEAR else super().find(symbol)

    def keep_books(self, now: Now) -> None:
        super().keep_books(now)
        for each in self.linear.instruments:
            if each.book is not None:
                self.old_books[self._spell(each)] = self._newest_state(each, now)

    def accept(self, request: HttpRequest, now: Now) -> Dialog | HttpAnswer:
        if request.path.startswith(f"{binance_linear.PATH}/"):
            return self._accept_linear(request, now)
        if not self._attempts.admit(request.remote, now.mono_ns):
            return HttpAnswer(
                body=b"",
                status=429,
                headers={"Retry-After": "60"},
                violation="more than 300 attempts in 5 minutes",
            )
        if request.path == "/ws-api/v3":
            return self._accept_ws_api(request, now)
        asked = _asked_streams(request, request.path)
        if asked is None:
            return HttpAnswer(body=b"", status=404)
        names, variant = asked
        if (request.one("timeUnit") or "").upper() == "MICROSECOND":
            variant |= MICROSECOND
        return BinanceDialog(self, names, variant)

    def _accept_linear(self, request: HttpRequest, now: Now) -> Dialog | HttpAnswer:
        path = request.path.removeprefix(binance_linear.PATH)
        way = next((each for each in binance_linear.WAYS if path.startswith(f"{each}/")), "")
        asked = _asked_streams(request, path.removeprefix(way))
        if asked is None:
            return HttpAnswer(body=b"", status=404)
        entrance = self.linear.entrance(way, request, now)
        return entrance if isinstance(entrance, HttpAnswer) else BinanceDialog(entrance, *asked)

    def _accept_ws_api(self, request: HttpRequest, now: Now) -> Dialog | HttpAnswer:
        def use_weight(weight: int, at: Now) -> tuple[int, float]:
            return self._weight.use(request.remote, weight, at.mono_ns), self._weight.left_s(at.mono_ns)

        used, left_s = use_weight(CONNECT_WEIGHT, now)
        if used > self.rules.weight_per_minute:
            refusal = self.throttled(429, int(left_s) + 1, now)
            return msgspec.structs.replace(refusal, violation="request weight of the minute used up")
        return BinanceWsApiDialog(
            self.private,
            WsApiRules(
                ping_every_s=self.rules.ping_every_s,
                pong_within_s=self.rules.pong_within_s,
                max_age_s=self.rules.max_age_s,
                weight_per_minute=self.rules.weight_per_minute,
            ),
            use_weight,
            is_micro=(request.one("timeUnit") or "").upper() == "MICROSECOND",
            with_limits=request.one("returnRateLimits") != "false",
        )

    def is_well_formed(self, name: str) -> bool:
        return _STREAM.fullmatch(name) is not None

    def is_rejected(self, name: str) -> bool:
        symbol, _, _ = name.partition("@")
        return symbol.upper() in self.rejected_symbols

    def topic_of(self, name: str) -> str:
        return name

    def name_of(self, topic: str) -> str:
        return topic

    def stream(self, topic: str) -> DataStream | None:
        market, _, name = topic.partition(":")
        if market == LINEAR:
            return self.linear.stream(name)
        symbol, _, kind = topic.partition("@")
        instrument = self._by_stream_symbol.get(symbol)
        if instrument is None or not instrument.listing.is_trading:
            return None
        if kind == "bookTicker":
            return DataStream(topic, instrument, combinable(topic, _book_ticker(instrument)))
        if kind == "trade":
            trades = TradeSource(instrument.order_book())
            encode = combinable(topic, _trade(instrument, trades))
            return DataStream(topic, instrument, encode, is_trade=True, source=trades)
        if kind == "aggTrade":
            merged = MergedTradeSource(self.merged.of(instrument))
            encode = combinable(topic, _agg_trade(instrument, merged))
            return DataStream(topic, instrument, encode, is_trade=True, source=merged)
        if kind == "ticker":
            return DataStream(
                topic, instrument, combinable(topic, _ticker(instrument)), regular_every_ns=NS_PER_S
            )
        if kind == "miniTicker":
            encode = combinable(topic, _mini_ticker(instrument))
            return DataStream(topic, instrument, encode, regular_every_ns=NS_PER_S, shows_quote=False)
        match = _DEPTH.fullmatch(kind)
        return None if match is None else _depth_stream(topic, instrument, match)

    def throttled(self, status: int, retry_after_s: int, now: Now) -> HttpAnswer:
        return too_many(status, self.rules.weight_per_minute, retry_after_s, now)

    def end_subscriptions(self, dialog: Dialog, now: Now) -> Reply:
        return dialog.end_subscriptions(now) if isinstance(dialog, BinanceWsApiDialog) else Reply()

    def shutdown_notice(self, dialog: Dialog, now: Now) -> bytes | None:
        if isinstance(dialog, BinanceWsApiDialog):
            return dialog.shutdown_notice(now)
        if not isinstance(dialog, BinanceDialog) or dialog.entrance is not self:
            return None  # of contracts none is documented
        event = b'{"e":"serverShutdown","E":%d}' % _time(dialog.variant, now)
        return b'{"stream":"!serverShutdown","data":%s}' % event if dialog.variant & COMBINED else event

    def rest(self, request: HttpRequest, now: Now) -> HttpAnswer:
        if request.path.startswith(f"{binance_linear.PATH}/"):
            path = request.path.removeprefix(binance_linear.PATH)
            return self.linear.rest(msgspec.structs.replace(request, path=path), now)
        endpoint = _ENDPOINTS.get(request.path)
        if endpoint is None:
            return HttpAnswer(
                body=b"<html><body><h2>404 Not found</h2></body></html>", status=404, content_type="text/html"
            )
        if request.method != "GET":
            return HttpAnswer(body=b"", status=405)
        allowed, answer = endpoint
        refusal = unread_parameters(request, allowed)
        if refusal is not None:
            return refusal
        return self._weighed(request, answer(self, request, now), now)

    def _weighed(self, request: HttpRequest, answer: "_Weighed", now: Now) -> HttpAnswer:
        used = self._weight.use(request.remote, answer.weight, now.mono_ns)
        if used > self.rules.weight_per_minute:
            left_s = int(self._weight.left_s(now.mono_ns)) + 1
            refusal = self.throttled(429, left_s, now)
            return msgspec.structs.replace(refusal, violation="request weight of the minute used up")
        headers = {"x-mbx-used-weight": str(used), "x-mbx-used-weight-1m": str(used)}
        return msgspec.structs.replace(answer.answer, headers=headers | answer.answer.headers)

    def one(self, request: HttpRequest) -> "Instrument | HttpAnswer":
        """Resolve a `symbol` that must be there."""
        symbol = request.one("symbol")
        if not symbol:
            return error(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        return self.by_symbol.get(symbol) or error(-1121, "Invalid symbol.")

    def selected(self, request: HttpRequest) -> "list[Instrument] | HttpAnswer":
        """Resolve `symbol` or `symbols`; all that are listed if neither is given."""
        symbol, symbols = request.one("symbol"), request.one("symbols")
        if symbol is not None and symbols is not None:
            return error(-1128, "Combination of optional parameters invalid.")
        if symbol is not None:
            names = [symbol]
        elif symbols is not None:
            try:
                names = msgspec.json.decode(symbols.encode(), type=list[str])
            except msgspec.DecodeError:
                return error(
                    -1100, "Illegal characters found in parameter 'symbols'; legal range is a JSON array."
                )
        else:
            return self.listed()
        if any(name not in self.by_symbol for name in names):
            return error(-1121, "Invalid symbol.")
        return [self.by_symbol[name] for name in names]


def _asked_streams(request: HttpRequest, path: str) -> tuple[list[str], int] | None:
    """Return the streams that a URL asks for, and in which form; None: there is nothing."""
    if path == "/ws" or path.startswith("/ws/"):
        names, variant = path[4:].split("/"), 0
    elif path == "/stream":
        names, variant = (request.one("streams") or "").split("/"), COMBINED
    else:
        return None
    return [unquote(name) for name in names if name], variant


class BinanceDialog(Dialog):
    """One stream connection. In combined form events are wrapped with their stream's name, answers never."""

    def __init__(self, entrance: Entrance, names: list[str], variant: int) -> None:
        super().__init__()
        self.entrance = entrance
        self._rules = entrance.rules
        self._first_names = names
        self.variant = variant
        self._incoming = SlidingWindow(self._rules.messages_per_s, 1.0)
        self._opened_ns = 0

    def on_open(self, now: Now) -> Reply:
        self._opened_ns = now.mono_ns
        self._pings = ServerPings(self._rules.ping_every_s, self._rules.pong_within_s, now.mono_ns)
        # A name in the URL that makes no sense is let pass: clients put a running number there.
        names = [name for name in self._first_names if self.entrance.is_well_formed(name)]
        if len(names) > self._rules.streams:
            return self._breach("more than 1024 streams", Close(1008, "Too many streams"))
        return self._subscribe([self.entrance.topic_of(name) for name in names])

    def on_text(self, text: str, now: Now) -> Reply:
        if not self._incoming.admit(now.mono_ns):
            return self._too_many()
        if len(text.encode(errors="replace")) > self._rules.message_size:
            return Reply(violation=f"message of more than {self._rules.message_size} bytes, ignored")
        try:
            message = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return self._refuse(3, "Invalid JSON: expected value at line 1 column 1")
        if not isinstance(message, dict):
            return self._refuse(2, "Invalid request: missing field `method`")
        request_id = message.get("id")
        if not _is_id(request_id):
            return self._refuse(2, "Invalid request: request ID must be an unsigned integer")
        return self._on_method(message, request_id)

    def on_ping(self, payload: bytes, now: Now) -> Reply:
        return Reply(pong=payload) if self._incoming.admit(now.mono_ns) else self._too_many()

    def on_pong(self, payload: bytes, now: Now) -> Reply:
        if not self._incoming.admit(now.mono_ns):
            return self._too_many()
        self._pings.on_pong(payload)
        return Reply()

    def on_tick(self, now: Now) -> Reply:
        if now.mono_ns - self._opened_ns > self._rules.max_age_s * NS_PER_S:
            return Reply(close=Close(1001, "24 h"))
        if self._pings.is_late(now.mono_ns):
            return self._breach("no pong with the ping's payload in time", Close(1008, "Pong timeout"))
        return Reply(ping=self._pings.due(now))

    def _on_method(self, message: dict[str, object], request_id: object) -> Reply:
        method, params = message.get("method"), message.get("params", [])
        if method is None:
            return self._refuse(2, "Invalid request: missing field `method`", request_id)
        if method not in METHODS:
            known = ", ".join(f"`{name}`" for name in METHODS)
            return self._refuse(
                2, f"Invalid request: unknown variant `{method}`, expected one of {known}", request_id
            )
        if method == "LIST_SUBSCRIPTIONS":
            names = [self.entrance.name_of(topic) for topic in self.topics]
            return Reply(texts=[to_json({"result": names, "id": request_id})])
        if not isinstance(params, list):
            return self._refuse(
                2, "Invalid request: invalid type for field `params`, expected a sequence", request_id
            )
        if method in ("SET_PROPERTY", "GET_PROPERTY"):
            return self._on_property(str(method), params, request_id)
        return self._on_streams(str(method), params, request_id)

    def _on_streams(self, method: str, names: list[object], request_id: object) -> Reply:
        if not all(isinstance(name, str) and self.entrance.is_well_formed(name) for name in names):
            reply = self._refuse(2, "Invalid request: invalid stream", request_id)
            reply.close = Close(1008, "Invalid request")
            return reply
        topics = [self.entrance.topic_of(str(name)) for name in names]
        if method == "UNSUBSCRIBE":
            return self._unsubscribe(topics, request_id)
        if any(self.entrance.is_rejected(str(name)) for name in names):
            return Reply(texts=[_socket_error(2, "Invalid request: invalid stream", request_id)])
        if len(self.topics.keys() | set(topics)) > self._rules.streams:
            return self._refuse(4, "Too many subscriptions", request_id)
        reply = self._subscribe(topics)
        reply.texts = [to_json({"result": None, "id": request_id})]
        return reply

    def _subscribe(self, topics: list[str]) -> Reply:
        fresh = [topic for topic in dict.fromkeys(topics) if topic not in self.topics]
        self.topics.update(dict.fromkeys(fresh))
        return Reply(subscribe=fresh)

    def _unsubscribe(self, topics: list[str], request_id: object) -> Reply:
        known = [topic for topic in topics if topic in self.topics]
        for topic in known:
            self.topics.pop(topic, None)
        return Reply(texts=[to_json({"result": None, "id": request_id})], unsubscribe=known)

    def _on_property(self, method: str, params: list[object], request_id: object) -> Reply:
        wanted = 2 if method == "SET_PROPERTY" else 1
        if len(params) > wanted:
            return self._refuse(2, "Invalid request: too many parameters", request_id)
        if not params or not isinstance(params[0], str):
            return self._refuse(2, "Invalid request: property name must be a string", request_id)
        if params[0] != "combined":
            return self._refuse(0, "Unknown property", request_id)
        if method == "GET_PROPERTY":
            return Reply(texts=[to_json({"result": bool(self.variant & COMBINED), "id": request_id})])
        if len(params) < wanted or not isinstance(params[1], bool):
            return self._refuse(1, "Invalid value type: expected Boolean", request_id)
        return self._set_combined(params[1], request_id)

    def _set_combined(self, is_combined: bool, request_id: object) -> Reply:
        self.variant = (self.variant & ~COMBINED) | (COMBINED if is_combined else 0)
        # Out of the audience of one form, into that of the other.
        topics = list(self.topics)
        text = to_json({"result": None, "id": request_id})
        return Reply(texts=[text], unsubscribe=topics, subscribe=topics)

    def _refuse(self, code: int, text: str, request_id: object = None) -> Reply:
        return Reply(texts=[_socket_error(code, text, request_id)], violation=text)

    def _breach(self, what: str, close: Close) -> Reply:
        return Reply(violation=what, close=close)

    def _too_many(self) -> Reply:
        return self._breach(
            f"more than {self._rules.messages_per_s} messages in a second", Close(1008, "Too many requests")
        )


def _is_id(value: object) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or (isinstance(value, str) and _TEXT_ID.fullmatch(value) is not None)


def _socket_error(code: int, text: str, request_id: object) -> bytes:
    error = {"code": code, "msg": text}
    return to_json({"error": error} if request_id is None else {"error": error, "id": request_id})


# Streams. A template holds what never changes; the rest is integers until it is printed.


def _book_ticker(instrument: Instrument) -> EncodeEvent:
    """The only event that states neither its kind nor a time."""
    template = b'{"u":%%d,"s":%s,"b":"%%b","B":"%%b","a":"%%b","A":"%%b"}' % _json_symbol(instrument)
    price_decimals, size_decimals = instrument.price_decimals, instrument.size_decimals

    def encode(variant: int, now: Now) -> bytes:
        # hot: bench/load.py
        return template % (
            instrument.update_id,
            padded(instrument.bid, price_decimals, PLACES),
            padded(instrument.bid_size, size_decimals, PLACES),
            padded(instrument.ask, price_decimals, PLACES),
            padded(instrument.ask_size, size_decimals, PLACES),
        )

    return encode


def _trade(instrument: Instrument, trades: TradeSource) -> EncodeEvent:
    template = (
        b'{"e":"trade","E":%%d,"s":%s,"t":%%d,"p":"%%b","q":"%%b","T":%%d,"m":%%b,"M":true}'
        % _json_symbol(instrument)
    )

    def encode(variant: int, now: Now) -> bytes:
        [fill] = trades.message
        return template % (
            _time(variant, now),
            fill.trade_id,
            _price(instrument, fill.price),
            _size(instrument, fill.size),
            _in_unit(variant, fill.unix_ns),
            b"true" if fill.is_sell else b"false",
        )

    return encode


def _agg_trade(instrument: Instrument, merged: MergedTradeSource) -> EncodeEvent:
    template = b'{"e":"aggTrade","E":%%d,"s":%s,%%b}' % _json_symbol(instrument)

    def encode(variant: int, now: Now) -> bytes:
        return template % (_time(variant, now), _merged_trade(instrument, merged.message, variant))

    return encode


def _merged_trade(instrument: Instrument, merged: MergedTrade, variant: int) -> bytes:
    return b'"a":%d,"p":"%b","q":"%b","f":%d,"l":%d,"T":%d,"m":%b,"M":true' % (
        merged.number,
        _price(instrument, merged.price),
        _size(instrument, merged.size),
        merged.first_id,
        merged.last_id,
        _in_unit(variant, merged.unix_ns),
        b"true" if merged.is_sell else b"false",
    )


def _depth_stream(topic: str, instrument: Instrument, match: "re.Match[str]") -> DataStream:
    every_ns = int(match["every_ms"] or 1000) * NS_PER_MS
    book = instrument.order_book()
    if match["levels"]:
        encode = combinable(topic, _best_levels(instrument, book, int(match["levels"])))
        return DataStream(topic, instrument, encode, regular_every_ns=every_ns, shows_book=True)
    changes = ChangeSource(book)
    encode = combinable(topic, _depth_update(instrument, changes))
    return DataStream(topic, instrument, encode, regular_every_ns=every_ns, shows_book=True, source=changes)


def _best_levels(instrument: Instrument, book: OrderBook, count: int) -> EncodeEvent:
    """The best levels, whole; neither symbol nor time is in it."""

    def encode(variant: int, now: Now) -> bytes:
        return b'{"lastUpdateId":%d,"bids":[%b],"asks":[%b]}' % (
            book.update_id,
            _levels(instrument, book.best_bids(count)),
            _levels(instrument, book.best_asks(count)),
        )

    return encode


def _depth_update(instrument: Instrument, changes: ChangeSource) -> EncodeEvent:
    """What has changed since the event before: its ids follow on one another, also those that no level shows."""
    template = b'{"e":"depthUpdate","E":%%d,"s":%s,"U":%%d,"u":%%d,"b":[%%b],"a":[%%b]}' % _json_symbol(
        instrument
    )

    def encode(variant: int, now: Now) -> bytes:
        bids, asks = changes.levels()
        return template % (
            _time(variant, now),
            changes.first_id,
            changes.last_id,
            _levels(instrument, sorted(bids.items(), reverse=True)),
            _levels(instrument, sorted(asks.items())),
        )

    return encode


def _levels(instrument: Instrument, levels: list[Level]) -> bytes:
    return b",".join(
        [b'["%b","%b"]' % (_price(instrument, price), _size(instrument, size)) for price, size in levels]
    )


def _ticker(instrument: Instrument) -> EncodeEvent:
    template = (
        b'{"e":"24hrTicker","E":%%d,"s":%s,"p":"%%b","P":"%%b","w":"%%b","x":"%%b","c":"%%b","Q":"%%b",'
        b'"b":"%%b","B":"%%b","a":"%%b","A":"%%b","o":"%%b","h":"%%b","l":"%%b","v":"%%b","q":"%%b",'
        b'"O":%%d,"C":%%d,"F":%%d,"L":%%d,"n":%%d}' % _json_symbol(instrument)
    )

    def encode(variant: int, now: Now) -> bytes:
        time = _time(variant, now)
        day = DAY_MS * (1000 if variant & MICROSECOND else 1)
        each = instrument
        return template % (
            time,
            _price(each, each.last - each.open),
            percent_of(each),
            _average(each),
            _price(each, each.open),
            _price(each, each.last),
            _size(each, each.last_size),
            _price(each, each.bid),
            _size(each, each.bid_size),
            _price(each, each.ask),
            _size(each, each.ask_size),
            _price(each, each.open),
            _price(each, each.high),
            _price(each, each.low),
            _size(each, each.base_volume),
            _value(each),
            time - day,
            time,
            each.first_trade_id,
            each.trade_id,
            each.trade_id - each.first_trade_id + 1,
        )

    return encode


def _mini_ticker(instrument: Instrument) -> EncodeEvent:
    template = (
        b'{"e":"24hrMiniTicker","E":%%d,"s":%s,"c":"%%b","o":"%%b","h":"%%b","l":"%%b","v":"%%b","q":"%%b"}'
        % _json_symbol(instrument)
    )

    def encode(variant: int, now: Now) -> bytes:
        each = instrument
        return template % (
            _time(variant, now),
            _price(each, each.last),
            _price(each, each.open),
            _price(each, each.high),
            _price(each, each.low),
            _size(each, each.base_volume),
            _value(each),
        )

    return encode


def _symbol(instrument: Instrument) -> str:
    return instrument.listing.base + instrument.listing.quote


def _spelled(instrument: Instrument) -> str:
    """Spell a symbol for a command: that of a contract has its market before it."""
    if not instrument.listing.settle:
        return _symbol(instrument)
    return f"{LINEAR}:{binance_linear.symbol_of(instrument)}"


def _json_symbol(instrument: Instrument) -> bytes:
    return to_json(_symbol(instrument))


def _time(variant: int, now: Now) -> int:
    return _in_unit(variant, now.unix_ns)


def _in_unit(variant: int, unix_ns: int) -> int:
    return unix_ns // (NS_PER_US if variant & MICROSECOND else NS_PER_MS)


def _price(instrument: Instrument, ticks: int) -> bytes:
    return padded(ticks, instrument.price_decimals, PLACES)


def _size(instrument: Instrument, lots: int) -> bytes:
    return padded(lots, instrument.size_decimals, PLACES)


def _value(instrument: Instrument) -> bytes:
    return padded(instrument.quote_volume, instrument.price_decimals + instrument.size_decimals, PLACES)


def _average(instrument: Instrument) -> bytes:
    scaled = instrument.quote_volume * 10**PLACES // (instrument.base_volume * 10**instrument.price_decimals)
    return padded(scaled, PLACES, PLACES)


# REST.


class _Weighed(msgspec.Struct, frozen=True):
    answer: HttpAnswer
    weight: int


def _status(instrument: Instrument) -> str:
    if instrument.listing.is_trading:
        return "TRADING"
    return _HALT.get(instrument.listing.base, "BREAK")


def _ping(exchange: Binance, request: HttpRequest, now: Now) -> _Weighed:
    return _Weighed(HttpAnswer(body=b"{}"), 1)


def _server_time(request: HttpRequest, now: Now) -> int:
    return _time(MICROSECOND if _is_micro(request) else 0, now)


def _is_micro(request: HttpRequest) -> bool:
    return request.headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"


def _rest_time(exchange: Binance, request: HttpRequest, now: Now) -> _Weighed:
    return _Weighed(HttpAnswer(body=to_json({"serverTime": _server_time(request, now)})), 1)


def _exchange_info(exchange: Binance, request: HttpRequest, now: Now) -> _Weighed:
    selected = exchange.selected(request)
    if isinstance(selected, HttpAnswer):
        return _Weighed(selected, 20)
    refusal, chosen = _filtered(selected, request)
    if refusal is not None:
        return _Weighed(refusal, 20)
    with_sets = (request.one("showPermissionSets") or "true").lower() != "false"
    body = {
        "timezone": "UTC",
        "serverTime": _server_time(request, now),
        "rateLimits": [
            _rate_limit("REQUEST_WEIGHT", "MINUTE", 1, exchange.rules.weight_per_minute),
            _rate_limit("ORDERS", "SECOND", 10, 100),
            _rate_limit("ORDERS", "DAY", 1, 200_000),
            _rate_limit("RAW_REQUESTS", "MINUTE", 5, 300_000),
        ],
        "exchangeFilters": [],
        "symbols": [_symbol_info(instrument, with_sets) for instrument in chosen],
    }
    return _Weighed(HttpAnswer(body=to_json(body)), 20)


def _filtered(selected: list[Instrument], request: HttpRequest) -> tuple[HttpAnswer | None, list[Instrument]]:
    """Apply `symbolStatus` and `permissions`, which exclude `symbol` and `symbols`."""
    status, permissions = request.one("symbolStatus"), request.one("permissions")
    has_names = request.one("symbol") is not None or request.one("symbols") is not None
    if has_names and (status is not None or permissions is not None):
        return error(-1128, "Combination of optional parameters invalid."), []
    if status is not None and status not in ("TRADING", "HALT", "BREAK"):
        return error(-1122, "Invalid symbolStatus."), []
    if status is not None:
        selected = [instrument for instrument in selected if _status(instrument) == status]
    if permissions is not None and not {"SPOT", "MARGIN"} & set(re.findall(r"\w+", permissions)):
        selected = []
    return None, selected


def _rate_limit(kind: str, interval: str, count: int, limit: int) -> dict[str, object]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": count, "limit": limit}


def _symbol_info(instrument: Instrument, with_sets: bool) -> dict[str, object]:
    info: dict[str, object] = {
        "symbol": _symbol(instrument),
        "status": _status(instrument),
        "baseAsset": instrument.listing.base,
        "baseAssetPrecision": PLACES,
        "quoteAsset": instrument.listing.quote,
        "quotePrecision": PLACES,
        "quoteAssetPrecision": PLACES,
        "baseCommissionPrecision": PLACES,
        "quoteCommissionPrecision": PLACES,
        "orderTypes": _ORDER_TYPES,
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": instrument.index < 20,
        "filters": _filters(instrument),
        "permissions": [],
        "permissionSets": [["SPOT", "MARGIN"] if instrument.index < 20 else ["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT"],
    }
    if not with_sets:
        del info["permissionSets"]
    return info


def _filters(instrument: Instrument) -> list[dict[str, object]]:
    tick = _price(instrument, 1).decode()
    lot = _size(instrument, 1).decode()
    highest = _price(instrument, instrument.open * 10).decode()
    return [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": highest, "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "9000000.00000000", "stepSize": lot},
        {
            "filterType": "NOTIONAL",
            "minNotional": "5.00000000",
            "applyMinToMarket": True,
            "maxNotional": "9000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
    ]


def _account(exchange: Binance, request: HttpRequest, now: Now) -> _Weighed:
    return _Weighed(exchange.private.rest_account(request, now), ACCOUNT_WEIGHT)


def _day_tickers(exchange: Binance, request: HttpRequest, now: Now) -> _Weighed:
    kind = request.one("type") or "FULL"
    if kind not in ("FULL", "MINI"):
        return _Weighed(error(-1139, "Invalid ticker type."), 2)
    ms = now.unix_ms
    return _per_symbol(exchange, request, (2, 2, 40, 80), lambda each: _day_ticker(each, kind == "MINI", ms))


def _day_ticker(each: Instrument, is_mini: bool, unix_ms: int) -> dict[str, object]:
    window = {
        "openTime": unix_ms - DAY_MS,
        "closeTime": unix_ms,
        "firstId": each.first_trade_id,
        "lastId": each.trade_id,
        "count": each.trade_id - each.first_trade_id + 1,
    }
    prices = {
        "openPrice": _price(each, each.open).decode(),
        "highPrice": _price(each, each.high).decode(),
        "lowPrice": _price(each, each.low).decode(),
        "lastPrice": _price(each, each.last).decode(),
        "volume": _size(each, each.base_volume).decode(),
        "quoteVolume": _value(each).decode(),
    }
    if is_mini:
        return {"symbol": _symbol(each), **prices, **window}
    return {
        "symbol": _symbol(each),
        "priceChange": _price(each, each.last - each.open).decode(),
        "priceChangePercent": percent_of(each).decode(),
        "weightedAvgPrice": _average(each).decode(),
        "prevClosePrice": _price(each, each.open).decode(),
        "lastPrice": prices["lastPrice"],
        "lastQty": _size(each, each.last_size).decode(),
        **_best(each),
        "openPrice": prices["openPrice"],
        "highPrice": prices["highPrice"],
        "lowPrice": prices["lowPrice"],
        "volume": prices["volume"],
        "quoteVolume": prices["quoteVolume"],
        **window,
    }


def _best(each: Instrument) -> dict[str, object]:
    """What does not trade has no book: its row is there, in zeros."""
    if not each.listing.is_trading:
        return dict.fromkeys(("bidPrice", "bidQty", "askPrice", "askQty"), _size(each, 0).decode())
    return {
        "bidPrice": _price(each, each.bid).decode(),
        "bidQty": _size(each, each.bid_size).decode(),
        "askPrice": _price(each, each.ask).decode(),
        "askQty": _size(each, each.ask_size).decode(),
    }


def _book_tickers(exchange: Binance, request: HttpRequest, now: Now) -> _Weighed:
    weights = (2, 4, 4, 4)
    return _per_symbol(exchange, request, weights, lambda each: {"symbol": _symbol(each), **_best(each)})


def _last_prices(exchange: Binance, request: HttpRequest, now: Now) -> _Weighed:
    return _per_symbol(
        exchange,
        request,
        (2, 4, 4, 4),
        lambda each: {"symbol": _symbol(each), "price": _price(each, each.last).decode()},
    )


def _per_symbol(
    exchange: Binance,
    request: HttpRequest,
    weights: tuple[int, int, int, int],
    print_one: Callable[[Instrument], dict[str, object]],
) -> _Weighed:
    """Print one object for `symbol`, else a list. `weights`: of the one; a list up to 20, up to 100, longer."""
    selected = exchange.selected(request)
    if isinstance(selected, HttpAnswer):
        return _Weighed(selected, weights[0])
    rows = [print_one(instrument) for instrument in selected]
    is_one = request.one("symbol") is not None
    weight = weights[0 if is_one else 1 if len(rows) <= 20 else 2 if len(rows) <= 100 else 3]
    return _Weighed(HttpAnswer(body=to_json(rows[0] if is_one else rows)), weight)


def _depth(exchange: Binance, request: HttpRequest, now: Now) -> _Weighed:
    limit = _limit(request, 100, exchange.rest_levels)
    if isinstance(limit, HttpAnswer):
        return _Weighed(limit, 5)
    weight = 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250
    each = exchange.one(request)
    if isinstance(each, HttpAnswer):
        return _Weighed(each, weight)
    if (request.one("symbolStatus") or _status(each)) != _status(each):
        return _Weighed(
            error(-1220, "The symbol's status does not match the requested symbolStatus."), weight
        )
    if not each.listing.is_trading:
        return _Weighed(
            HttpAnswer(body=to_json({"lastUpdateId": each.update_id, "bids": [], "asks": []})), weight
        )
    book = exchange.book_state(each, now)
    body = b'{"lastUpdateId":%d,"bids":[%b],"asks":[%b]}' % (
        book.update_id,
        _levels(each, book.bids[:limit]),
        _levels(each, book.asks[:limit]),
    )
    return _Weighed(HttpAnswer(body=body), weight)


def _limit(request: HttpRequest, usual: int, most: int) -> int | HttpAnswer:
    """Read `limit`; more than `most` counts as that."""
    limit = _number(request, "limit")
    if limit is None:
        return usual
    if isinstance(limit, HttpAnswer):
        return limit
    return min(limit, most) if limit else error(-1130, "Data sent for parameter 'limit' is not valid.")


def _recent_trades(exchange: Binance, request: HttpRequest, now: Now) -> _Weighed:
    return _Weighed(_trades_from(exchange, request, None), TRADES_WEIGHT)


def _old_trades(exchange: Binance, request: HttpRequest, now: Now) -> _Weighed:
    from_id = _number(request, "fromId")
    if isinstance(from_id, HttpAnswer):
        return _Weighed(from_id, TRADES_WEIGHT)
    return _Weighed(_trades_from(exchange, request, from_id), TRADES_WEIGHT)


def _number(request: HttpRequest, name: str) -> int | HttpAnswer | None:
    """Read a number, None if it is not there."""
    text = request.one(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        return error(
            -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
        )
    return int(text[:20])


def _agg_trades(exchange: Binance, request: HttpRequest, now: Now) -> _Weighed:
    """Merged trades from an id or a time on, or the newest; the oldest first."""
    return _Weighed(_merged_from(exchange, request, now), AGG_TRADES_WEIGHT)


def _merged_from(exchange: Binance, request: HttpRequest, now: Now) -> HttpAnswer:
    numbers = []
    for name, usual in (("fromId", 0), ("startTime", 0), ("endTime", 2**63)):
        number = _number(request, name)
        if isinstance(number, HttpAnswer):
            return number
        numbers.append(usual if number is None else number)
    asked = _asked_trades(exchange, request)
    if isinstance(asked, HttpAnswer):
        return asked
    each, limit = asked
    first, begin_ms, end_ms = numbers
    found = exchange.merged.of(each).read(first, begin_ms, end_ms, limit, now)
    variant = MICROSECOND if _is_micro(request) else 0
    return HttpAnswer(
        body=b"[%b]" % b",".join([b"{%b}" % _merged_trade(each, one, variant) for one in found])
    )


def _asked_trades(exchange: Binance, request: HttpRequest) -> tuple[Instrument, int] | HttpAnswer:
    """Read of which symbol trades are wanted, and how many at most."""
    limit = _limit(request, 500, 1000)
    if isinstance(limit, HttpAnswer):
        return limit
    each = exchange.one(request)
    return each if isinstance(each, HttpAnswer) else (each, limit)


def _trades_from(exchange: Binance, request: HttpRequest, from_id: int | None) -> HttpAnswer:
    """Print trades from an id on, or the newest; the oldest first."""
    asked = _asked_trades(exchange, request)
    if isinstance(asked, HttpAnswer):
        return asked
    each, limit = asked
    fills = list(each.order_book().fills)
    first = fills[-limit:][0].trade_id if from_id is None else from_id
    fills = [fill for fill in fills if fill.trade_id >= first][:limit]
    variant = MICROSECOND if _is_micro(request) else 0
    return HttpAnswer(body=to_json([_rest_trade(each, fill, variant) for fill in fills]))


def _rest_trade(each: Instrument, fill: Fill, variant: int) -> dict[str, object]:
    decimals = each.price_decimals + each.size_decimals
    return {
        "id": fill.trade_id,
        "price": _price(each, fill.price).decode(),
        "qty": _size(each, fill.size).decode(),
        "quoteQty": padded(fill.price * fill.size, decimals, PLACES).decode(),
        "time": _in_unit(variant, fill.unix_ns),
        "isBuyerMaker": fill.is_sell,
        "isBestMatch": True,
    }


_Endpoint = tuple[frozenset[str], Callable[[Binance, HttpRequest, Now], _Weighed]]
_ENDPOINTS: dict[str, _Endpoint] = {
    "/api/v3/ping": (frozenset(), _ping),
    "/api/v3/time": (frozenset(), _rest_time),
    "/api/v3/exchangeInfo": (
        frozenset({"symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"}),
        _exchange_info,
    ),
    "/api/v3/account": (frozenset({"omitZeroBalances", "recvWindow", "timestamp", "signature"}), _account),
    "/api/v3/depth": (frozenset({"symbol", "limit", "symbolStatus"}), _depth),
    "/api/v3/trades": (frozenset({"symbol", "limit"}), _recent_trades),
    "/api/v3/historicalTrades": (frozenset({"symbol", "limit", "fromId"}), _old_trades),
    "/api/v3/aggTrades": (frozenset({"symbol", "limit", "fromId", "startTime", "endTime"}), _agg_trades),
    "/api/v3/ticker/24hr": (frozenset({"symbol", "symbols", "type"}), _day_tickers),
    "/api/v3/ticker/bookTicker": (frozenset({"symbol", "symbols"}), _book_tickers),
    "/api/v3/ticker/price": (frozenset({"symbol", "symbols"}), _last_prices),
}


# Recordings.

_EVENTS = {
    "trade": "trade",
    "24hrTicker": "ticker",
    "24hrMiniTicker": "miniTicker",
    "bookTicker": "bookTicker",
    "depthUpdate": "depth@100ms",
    "aggTrade": "aggTrade",
    "markPriceUpdate": "markPrice@1s",
    "forceOrder": "forceOrder",
}
_COMBINED = re.compile(rb'\s*\{\s*"stream"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"data"\s*:\s*')
_FIRST_ID, _LAST_ID = re.compile(rb'"U"\s*:\s*(\d+)'), re.compile(rb'"u"\s*:\s*(\d+)')
_ID_BEFORE = re.compile(rb'"pu"\s*:\s*(\d+)')
_BASE_ID = re.compile(rb'"lastUpdateId"\s*:\s*(\d+)')


class BinanceReading(TrafficReading):
    """Recorded in combined form or not: a client gets the one that it has asked for."""

    live = frozenset(
        {"/api/v3/ping", "/api/v3/time"}
        | {f"{binance_linear.PATH}/fapi/v1/{name}" for name in ("ping", "time")}
    )
    changes = frozenset(
        market + channel
        for market in ("", f"{LINEAR}:")
        for channel in ("depth", "depth@100ms", "depth@250ms", "depth@500ms", "depth@1000ms")
    )

    def topic_of(self, payload: bytes, market: str = "") -> str:
        name = self._stream_of(payload)
        return f"{market}:{name}" if market and name else name

    def _stream_of(self, payload: bytes) -> str:
        if (match := _COMBINED.match(payload)) is not None:
            return str(msgspec.json.decode(match[1]))
        event = decode_object(payload) or {}
        order = event.get("o")
        symbol = event.get("s", order.get("s") if isinstance(order, dict) else None)
        kind = _EVENTS.get(str(event.get("e")))
        if kind is None and event.keys() >= {"u", "b", "B", "a", "A"}:
            kind = "bookTicker"  # on spot the only event that does not state its kind
        return f"{symbol.lower()}@{kind}" if isinstance(symbol, str) and kind else ""

    def split(self, topic: str) -> tuple[str, str]:
        market, colon, name = topic.rpartition(":")
        symbol, _, channel = name.partition("@")
        return market + colon + channel, market + colon + symbol.upper()

    def shown(self, topic: str, payload: bytes, variant: int) -> bytes:
        match = _COMBINED.match(payload)
        if variant & COMBINED:
            name = topic.rpartition(":")[2]
            return payload if match is not None else b'{"stream":%b,"data":%b}' % (to_json(name), payload)
        return payload if match is None else payload[match.end() :].rstrip().removesuffix(b"}")

    def ids(self, payload: bytes) -> Ids:
        before = number_in(_ID_BEFORE, payload)  # of contracts: what is between it and U is of other books
        return Ids(before + 1 if before else number_in(_FIRST_ID, payload), number_in(_LAST_ID, payload))

    def asked_book(self, request: HttpRequest) -> str:
        symbol = request.one("symbol")
        if not symbol or not request.path.endswith("/depth"):
            return ""
        return f"{LINEAR}:{symbol}" if request.path.startswith(f"{binance_linear.PATH}/") else symbol

    def base_id(self, body: bytes) -> int:
        return number_in(_BASE_ID, body)
