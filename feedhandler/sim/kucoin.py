"""KuCoin, simulated: the classic token-handshake WebSocket and REST of spot. What an account's own data look
like is in kucoin_private.py, what perpetuals have in kucoin_linear.py.

Pure: frames and times in, frames and decisions out. Its own reading of the documentation; the feed
handler's adapter is another, and the two meet only on the socket.

Sources:
  connection   https://www.kucoin.com/docs-new/websocket-api/base-info/introduction
  channels     https://github.com/Kucoin/kucoin-universal-sdk (spec/), https://www.kucoin.com/docs-new/3470063w0
  errors       https://www.kucoin.com/docs-new/error-code/websocket
  limits       https://www.kucoin.com/docs-new/rate-limit
Not in the documentation, reported from the live exchange: 300 topics per session where the limits page
says 400 (https://github.com/ccxt/ccxt/issues/25450); an unknown symbol is acknowledged and silent; without
a JSON ping for a minute the session ends in the error "ping timeout" although data flows.
Ids of trades: sequence and tradeId are one number, beyond 2^53
(https://github.com/Kucoin/kucoin-universal-sdk, spec/ of /api/v1/market/histories).
A snapshot of a book may be older than the newest change that was pushed, by up to seconds
(https://github.com/bmoscon/cryptofeed/issues/1016).
Not played: candle topics. They are acknowledged and silent.
"""

import random
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import unquote

import msgspec

from feedhandler.sim import kucoin_linear
from feedhandler.sim.account import Update
from feedhandler.sim.kucoin_linear import KucoinLinear, ok
from feedhandler.sim.kucoin_private import BALANCE_TOPIC, KucoinPrivate
from feedhandler.sim.market import Instrument, Listing, padded, trimmed
from feedhandler.sim.order_book import Fill, Level, LevelChange
from feedhandler.sim.protocol import (
    NS_PER_MS,
    NS_PER_S,
    NS_PER_US,
    Attempts,
    BookState,
    Close,
    DataStream,
    Dialog,
    Exchange,
    HttpAnswer,
    HttpRequest,
    Now,
    Reply,
    SlidingWindow,
    Weight,
    decode_object,
    to_json,
)
from feedhandler.sim.reading import Ids, TrafficReading, number_in
from feedhandler.sim.sources import ChangeSource, TradeSource

TAKEN_BACK = "taken back before it was used"  # what is wrong with a token, and nobody's fault
LONG_ZEROS = 20  # the 24 h numbers of a snapshot are printed with this many decimals
ALL_TOPIC = "/market/ticker:all"
# Paths that name a symbol: what is before it, and behind.
NAMING_PATHS = (
    ("/api/v2/symbols/", ""),
    ("/api/v1/contracts/", ""),
    ("/api/v1/funding-rate/", "/current"),
    ("/api/v1/mark-price/", "/current"),
)
CONTRACT_TOPICS = ("/contractMarket/", "/contract/")
DATA_TOPICS = (
    "/market/ticker",
    "/market/snapshot",
    "/spotMarket/level1",
    "/market/match",
    "/spotMarket/level2Depth5",
    "/spotMarket/level2Depth50",
    "/market/level2",
)
SILENT_TOPICS = ("/market/candles",)
PRIVATE_TOPICS = (
    BALANCE_TOPIC,
    "/spotMarket/tradeOrders",
    "/spotMarket/tradeOrdersV2",
    "/spotMarket/advancedOrders",
)
TRADE_ID_FIRST = 10_976_028_000_000_000  # ids of trades rise, are not consecutive, and are beyond 2^53
HISTORIES = 100
ALL_TICKERS_EVERY_NS = 2 * NS_PER_S
TOKENS = 10_000  # tokens remembered; the oldest is forgotten, as if it had expired
_ODD = (
    Listing(base="1INCH", quote="USDT", price=0.187_4),
    Listing(base="1000PUP", quote="USDT", price=0.000_417),
    Listing(base="FENNEW", quote="USDT", price=0.6142, renamed_from="FENOLD"),  # symbol FENOLD-USDT for ever
    Listing(base="NEXUSD", quote="USDT", price=1.0007),
    Listing(base="NEX", quote="USDT", price=0.0731),
    Listing(base="MOONX", quote="USDT", price=0.000_001_23),
    Listing(base="BTC", quote="IDR", price=1_384_000_000.0),
    Listing(base="HALTED", quote="USDT", price=3.141, is_trading=False),
    Listing(base="BROKEN", quote="BTC", price=0.000_021_4, is_trading=False),
)
_MARKETS = {"USDT": "USDS", "USDC": "USDS", "BTC": "BTC", "ETH": "ALTS"}


class KucoinRules(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and timers, as documented or reported; tests shorten them."""

    welcome_after_s: float = 0.005  # long enough to notice a client that does not wait for it
    ping_interval_s: float = 18.0
    ping_timeout_s: float = 10.0
    silence_s: float = 60.0
    token_age_s: float = 86_400.0
    max_age_s: float = 86_400.0
    messages: int = 100
    messages_period_s: float = 10.0
    topics_per_message: int = 100
    topics: int = 300
    snapshot_every_s: float = 0.5  # between two of a book: REST has the newest, as old as it is
    attempts_per_minute: int = 30  # from the limits page of 2025; a remark, as its enforcement is not known
    weight_per_30_s: int = 2000
    spot_weight_per_30_s: int = 4000  # signed requests are counted by account, in two pools
    management_weight_per_30_s: int = 2000


class Kucoin(Exchange):
    """The exchange."""

    name = "kucoin"
    rest_levels = 100
    private: KucoinPrivate

    def __init__(self, instruments: int, seed: int, rules: KucoinRules | None = None) -> None:
        super().__init__(instruments, seed, _ODD, _symbol)
        self.rules = rules or KucoinRules()
        self._random = random.Random(f"tokens {seed}")
        # Token: when it was handed out, whether it is private, and the path of the market that it is for.
        self._tokens: dict[str, tuple[int, bool, str]] = {}
        self._used_tokens: set[str] = set()
        self._taken_back: set[str] = set()  # before they were used: who comes with one could not know
        self._attempts = Attempts(self.rules.attempts_per_minute, 60.0)
        self._pools = {
            "public": (Weight(30.0), self.rules.weight_per_30_s),
            "spot": (Weight(30.0), self.rules.spot_weight_per_30_s),
            "management": (Weight(30.0), self.rules.management_weight_per_30_s),
        }
        self.private = KucoinPrivate()
        self.all_tickers: HttpAnswer | None = None  # the newest, for a request that comes soon
        self.all_tickers_mono_ns = 0
        self._kept_books: dict[int, BookState] = {}  # by index of instrument
        self._trading = [instrument for instrument in self.instruments if instrument.listing.is_trading]
        pairs = [each for each in self.instruments if each.listing.quote == "USDT"]
        self.linear = KucoinLinear(pairs, seed, self.rules.snapshot_every_s, self.unlisted_symbols)
        self.other_instruments = list(self.linear.instruments)
        self.by_symbol_of = {"linear": self.linear.by_symbol}

    def accept(self, request: HttpRequest, now: Now) -> Dialog | HttpAnswer:
        path = request.path.rstrip("/")
        if path not in ("", kucoin_linear.PATH):
            return HttpAnswer(body=b"", status=404)
        token = request.one("token") or ""
        remarks = []
        if not self._attempts.admit(request.remote, now.mono_ns):
            remarks.append(f"more than {self.rules.attempts_per_minute} connections in a minute")
        if token in self._used_tokens:
            remarks.append("token used for a second connection")
        if token in self._tokens:
            self._used_tokens.add(token)
        connect_id = request.one("connectId") or f"{self._random.getrandbits(48):012x}"
        _, is_private, _ = self._tokens.get(token, (0, False, ""))
        wrong = ""
        if not self.is_valid(token, now.mono_ns, path):
            wrong = TAKEN_BACK if token in self._taken_back else "token unknown or expired"
        self._taken_back.discard(token)
        dialog = KucoinDialog(self, connect_id, wrong, ", ".join(remarks), is_private=is_private)
        if path:
            dialog.data_topics = kucoin_linear.DATA_TOPICS + kucoin_linear.SILENT_TOPICS
        return dialog

    def is_valid(self, token: str, mono_ns: int, path: str = "") -> bool:
        given_ns, _, market = self._tokens.get(token, (None, False, ""))
        is_young = given_ns is not None and mono_ns - given_ns < self.rules.token_age_s * NS_PER_S
        return is_young and market == path

    def new_token(self, now: Now, *, is_private: bool = False, path: str = "") -> str:
        """Hand out a token, without + and /, as all that were seen of the exchange: not every client encodes it."""
        body, seal = self._random.randbytes(48), self._random.randbytes(16)
        token = f"{urlsafe_b64encode(body).decode()}.{urlsafe_b64encode(seal).decode()}"
        self._tokens[token] = (now.mono_ns, is_private, path)
        if len(self._tokens) > TOKENS:
            oldest = next(iter(self._tokens))
            del self._tokens[oldest]
            self._used_tokens.discard(oldest)
        return token

    def stream(self, topic: str) -> DataStream | None:
        if topic == ALL_TOPIC:
            return self._all_stream()
        if topic.startswith(CONTRACT_TOPICS):
            return self.linear.stream(topic)
        prefix, _, symbol = topic.partition(":")
        instrument = self.by_symbol.get(symbol)
        if instrument is None or not instrument.listing.is_trading:
            return None
        if prefix == "/spotMarket/level1":
            return DataStream(topic, instrument, _level1(instrument))
        if prefix == "/market/ticker":
            return DataStream(topic, instrument, _ticker(instrument), at_most_every_ns=100 * NS_PER_MS)
        if prefix in ("/spotMarket/level2Depth5", "/spotMarket/level2Depth50"):
            encode = _best_levels(topic, instrument, int(prefix.removeprefix("/spotMarket/level2Depth")))
            return DataStream(topic, instrument, encode, regular_every_ns=100 * NS_PER_MS, shows_book=True)
        if prefix == "/market/level2":
            changes = ChangeSource(instrument.order_book())
            encode = _level2(self, instrument, changes)
            return DataStream(topic, instrument, encode, shows_book=True, source=changes)
        if prefix == "/market/match":
            trades = TradeSource(instrument.order_book())
            return DataStream(topic, instrument, _match(instrument, trades), is_trade=True, source=trades)
        if prefix == "/market/snapshot":
            return DataStream(topic, instrument, _snapshot(instrument), regular_every_ns=2 * NS_PER_S)
        return None

    def symbols_of(self, stream: DataStream) -> str:
        is_contract = stream.topic.startswith(CONTRACT_TOPICS)
        return kucoin_linear.symbol_of(stream.instrument) if is_contract else super().symbols_of(stream)

    def _all_stream(self) -> DataStream:
        trading = self._trading

        def encode(variant: int, now: Now) -> bytes:
            instrument = stream.instrument
            head = b'{"topic":"/market/ticker:all","type":"message","subject":%s,' % to_json(
                _symbol(instrument)
            )
            return head + _ticker_data(instrument, now)

        def next_instrument(bits: int) -> Instrument:
            return trading[(bits >> 20) % len(trading)]

        stream = DataStream(ALL_TOPIC, trading[0], encode, next_instrument=next_instrument)
        stream.moves_quote = False  # each symbol's level1, where subscribed, is the one to announce changes
        return stream

    def keep_book(self, instrument: Instrument, now: Now) -> BookState:
        """Return the newest snapshot of a book; a new one is taken when it is time for that."""
        kept = self._kept_books.get(instrument.index)
        every_ns = self.rules.snapshot_every_s * NS_PER_S
        if kept is None or not 0 <= now.mono_ns - kept.at.mono_ns < every_ns:
            kept = self._kept_books[instrument.index] = super().book_state(instrument, now)
        return kept

    def book_state(self, instrument: Instrument, now: Now) -> BookState:
        return self.old_books.get(_symbol(instrument)) or self.keep_book(instrument, now)

    def throttled(self, status: int, retry_after_s: int, now: Now) -> HttpAnswer:
        headers = _rate_headers(self.rules.weight_per_30_s, 0, retry_after_s * 1000)
        return _too_many(status, headers, retry_after_s)

    def expire_tokens(self, now: Now) -> None:
        self._taken_back = self._tokens.keys() - self._used_tokens
        self._tokens.clear()
        self._used_tokens.clear()

    def expired_token_error(self, dialog: Dialog) -> bytes | None:
        return (
            _socket_error(dialog.connect_id, 401, "token is expired")
            if isinstance(dialog, KucoinDialog)
            else None
        )

    def is_rejected(self, topic: str) -> bool:
        return topic.partition(":")[2] in self.rejected_symbols

    def rest(self, request: HttpRequest, now: Now) -> HttpAnswer:
        path, symbol, table = request.path, None, _ENDPOINTS
        if path.startswith(f"{kucoin_linear.PATH}/"):
            path, table = path.removeprefix(kucoin_linear.PATH), _LINEAR_ENDPOINTS
        for parent, behind in NAMING_PATHS:
            if path not in table and path.startswith(parent) and path.endswith(behind):
                path, symbol = parent, unquote(path[len(parent) : len(path) - len(behind)])
        endpoint = table.get(path)
        if endpoint is None:
            return _error("404000", "Url Not Found", status=404)
        if request.method != endpoint.method:
            return _error("405000", "Method Not Allowed", status=405)
        if endpoint.pool != "public":
            refusal = self.private.refusal(request, now)
            if refusal is not None:
                return refusal.answer()
        return self._weighed(endpoint, request if symbol is None else _with_symbol(request, symbol), now)

    def _weighed(self, endpoint: "_Endpoint", request: HttpRequest, now: Now) -> HttpAnswer:
        """Answer, and count: what is public by address, what is signed by account."""
        weight, limit = self._pools[endpoint.pool]
        whose = request.remote if endpoint.pool == "public" else "account"
        used = weight.use(whose, endpoint.weight, now.mono_ns)
        left_ms = int(weight.left_s(now.mono_ns) * 1000)
        headers = _rate_headers(limit, max(0, limit - used), left_ms)
        if used > limit:
            refusal = _too_many(429, headers, left_ms // 1000 + 1)
            return msgspec.structs.replace(refusal, violation="request weight of the 30 s used up")
        return msgspec.structs.replace(endpoint.answer(self, request, now), headers=headers)


class KucoinDialog(Dialog):
    """One session. It begins with the exchange's welcome; every topic counts once per symbol."""

    def __init__(
        self, exchange: Kucoin, connect_id: str, wrong_token: str, remark: str, *, is_private: bool
    ) -> None:
        super().__init__()
        self._exchange = exchange
        self._rules = exchange.rules
        self.connect_id = connect_id
        self.is_private = is_private
        self._wrong_token = wrong_token
        self._remark = remark
        self.data_topics: tuple[str, ...] = DATA_TOPICS + SILENT_TOPICS
        self._incoming = SlidingWindow(self._rules.messages, self._rules.messages_period_s)
        self._is_welcomed = False
        self._opened_ns = 0
        self._pinged_ns = 0

    def on_open(self, now: Now) -> Reply:
        self._opened_ns = self._pinged_ns = now.mono_ns
        if self._wrong_token:
            text = _socket_error(self.connect_id, 401, "token is invalid")
            violation = "" if self._wrong_token == TAKEN_BACK else self._wrong_token
            return Reply(texts=[text], close=Close(1000, "Bye"), violation=violation)
        return Reply(remark=self._remark)

    def on_text(self, text: str, now: Now) -> Reply:
        reply = self._on_text(text, now)
        if not self._is_welcomed:
            reply.texts.insert(0, self._welcome())
            reply.remark = reply.remark or "message before the welcome"
        return reply

    def _on_text(self, text: str, now: Now) -> Reply:
        if not self._incoming.admit(now.mono_ns):
            return self._refuse(None, 509, "exceed max permits per second")
        message = decode_object(text)
        if message is None:
            return self._refuse(None, 400, "invalid message")
        request_id = message.get("id")
        kind = message.get("type")
        if kind == "ping":
            self._pinged_ns = now.mono_ns
            return Reply(texts=[self._pong(request_id, now)])
        if kind == "subscribe":
            return self._on_subscribe(message, request_id)
        if kind == "unsubscribe":
            return self._on_unsubscribe(message, request_id)
        return self._refuse(request_id, 415, "type is not supported")

    def on_tick(self, now: Now) -> Reply:
        age_ns = now.mono_ns - self._opened_ns
        if age_ns > self._rules.max_age_s * NS_PER_S:
            return Reply(close=Close(1000, "Bye"))
        if now.mono_ns - self._pinged_ns > self._rules.silence_s * NS_PER_S:
            error = b'{"type":"error","code":400,"data":"ping timeout"}'
            return Reply(texts=[error], close=Close(1000, "Bye"), violation="no JSON ping in time")
        if not self._is_welcomed and age_ns >= self._rules.welcome_after_s * NS_PER_S:
            return Reply(texts=[self._welcome()])
        return Reply()

    def on_account(self, update: Update, now: Now) -> Reply:
        if not self.is_private or BALANCE_TOPIC not in self.topics:
            return Reply()
        return Reply(texts=self._exchange.private.print_events(update))

    def _welcome(self) -> bytes:
        self._is_welcomed = True
        return to_json({"id": self.connect_id, "type": "welcome"})

    def _pong(self, request_id: object, now: Now) -> bytes:
        timestamp_us = now.unix_ns // NS_PER_US
        return to_json(
            {"id": _text_id(request_id, self.connect_id), "type": "pong", "timestamp": timestamp_us}
        )

    def _on_subscribe(self, message: dict[str, object], request_id: object) -> Reply:
        topics = self._topics(message, request_id)
        if isinstance(topics, Reply):
            return topics
        if len(topics) > self._rules.topics_per_message:
            limit = self._rules.topics_per_message
            return self._refuse(
                request_id, 509, f"exceed max subscription count limitation of {limit} per time"
            )
        fresh = [topic for topic in topics if topic not in self.topics]
        if len(self.topics) + len(fresh) > self._rules.topics:
            limit = self._rules.topics
            return self._refuse(
                request_id, 509, f"exceed max subscription count limitation of {limit} per session"
            )
        if any(self._exchange.is_rejected(topic) for topic in topics):
            return Reply(texts=[self._error(request_id, 404, f"topic {message['topic']} is not exist")])
        self.topics.update(dict.fromkeys(fresh))
        streams = [topic for topic in fresh if topic not in PRIVATE_TOPICS]
        return Reply(texts=self._ack(message, request_id), subscribe=streams)

    def _on_unsubscribe(self, message: dict[str, object], request_id: object) -> Reply:
        topics = self._topics(message, request_id)
        if isinstance(topics, Reply):
            return topics
        known = [topic for topic in topics if topic in self.topics]
        for topic in known:
            self.topics.pop(topic, None)
        return Reply(texts=self._ack(message, request_id), unsubscribe=known)

    def _topics(self, message: dict[str, object], request_id: object) -> list[str] | Reply:
        """Split "prefix:S1,S2" into one topic per symbol, or refuse it."""
        topic = message.get("topic")
        if not isinstance(topic, str) or not topic:
            return self._refuse(request_id, 406, "topic is required")
        prefix, colon, symbols = topic.partition(":")
        if prefix in PRIVATE_TOPICS:
            if not self.is_private or message.get("privateChannel") not in (True, "true"):
                return self._refuse(request_id, 403, "login is required")
            return [prefix]
        if prefix not in self.data_topics:
            return self._refuse(request_id, 404, f"topic {topic} is not exist")
        names = symbols.split(",")
        if not colon or not all(names) or any(name != name.strip() for name in names):
            return self._refuse(request_id, 400, "topic is invalid")
        return [f"{prefix}:{name}" for name in dict.fromkeys(names)]

    def _ack(self, message: dict[str, object], request_id: object) -> list[bytes]:
        if message.get("response") not in (True, "true"):
            return []
        return [to_json({"id": _text_id(request_id, self.connect_id), "type": "ack"})]

    def _refuse(self, request_id: object, code: int, text: str) -> Reply:
        return Reply(texts=[self._error(request_id, code, text)], violation=f"{code} {text}")

    def _error(self, request_id: object, code: int, text: str) -> bytes:
        return _socket_error(_text_id(request_id, self.connect_id), code, text)


def _text_id(request_id: object, connect_id: str) -> str:
    """Print an id as the exchange does, also a number; what belongs to no request carries the session's."""
    return str(request_id) if isinstance(request_id, (str, int)) else connect_id


def _socket_error(request_id: str, code: int, text: str) -> bytes:
    return to_json({"id": request_id, "type": "error", "code": code, "data": text})


# Topics.

_Encode = Callable[[int, Now], bytes]


def _level1(instrument: Instrument) -> _Encode:
    """Best bid and offer in flat arrays; the symbol is in the topic only."""
    template = (
        b'{"topic":"/spotMarket/level1:%s","type":"message","subject":"level1",'
        b'"data":{"asks":["%%b","%%b"],"bids":["%%b","%%b"],"timestamp":%%d}}' % _symbol(instrument).encode()
    )
    price_decimals, size_decimals = instrument.price_decimals, instrument.size_decimals

    def encode(variant: int, now: Now) -> bytes:
        # hot: bench/load.py
        return template % (
            trimmed(instrument.ask, price_decimals),
            trimmed(instrument.ask_size, size_decimals),
            trimmed(instrument.bid, price_decimals),
            trimmed(instrument.bid_size, size_decimals),
            now.unix_ns // NS_PER_MS,
        )

    return encode


def _ticker(instrument: Instrument) -> _Encode:
    head = (
        b'{"topic":"/market/ticker:%s","type":"message","subject":"trade.ticker",'
        % _symbol(instrument).encode()
    )

    def encode(variant: int, now: Now) -> bytes:
        return head + _ticker_data(instrument, now)

    return encode


def _ticker_data(each: Instrument, now: Now) -> bytes:
    """Last trade, and best bid and offer; the time is that of the trade, minutes ago where trades are rare."""
    return (
        b'"data":{"bestAsk":"%b","bestAskSize":"%b","bestBid":"%b","bestBidSize":"%b",'
        b'"price":"%b","sequence":"%d","size":"%b","time":%d}}'
    ) % (
        _price(each, each.ask),
        _size(each, each.ask_size),
        _price(each, each.bid),
        _size(each, each.bid_size),
        _price(each, each.last),
        each.update_id,
        _size(each, each.last_size),
        (each.traded_unix_ns or now.unix_ns) // NS_PER_MS,
    )


def _best_levels(topic: str, instrument: Instrument, count: int) -> _Encode:
    """The best levels, whole; the symbol is in the topic only, and there is no sequence."""
    head = b'{"topic":%b,"type":"message","subject":"level2","data":{"asks":[' % to_json(topic)
    book = instrument.order_book()

    def encode(variant: int, now: Now) -> bytes:
        return b'%b%b],"bids":[%b],"timestamp":%d}}' % (
            head,
            _levels(instrument, book.best_asks(count)),
            _levels(instrument, book.best_bids(count)),
            now.unix_ms,
        )

    return encode


def _level2(exchange: Kucoin, instrument: Instrument, changes: ChangeSource) -> _Encode:
    """Changes of levels, each with its sequence; one that no level shows has the price 0."""
    symbol = _symbol(instrument).encode()
    template = (
        b'{"topic":"/market/level2:%b","type":"message","subject":"trade.l2update","data":{"changes":{'
        b'"asks":[%%b],"bids":[%%b]},"sequenceEnd":%%d,"sequenceStart":%%d,"symbol":"%b","time":%%d}}'
        % (symbol, symbol)
    )

    def encode(variant: int, now: Now) -> bytes:
        exchange.keep_book(instrument, now)
        return template % (
            _numbered_levels(instrument, [each for each in changes.message if not each.is_bid]),
            _numbered_levels(instrument, [each for each in changes.message if each.is_bid]),
            changes.last_id,
            changes.first_id,
            now.unix_ms,
        )

    return encode


def _numbered_levels(instrument: Instrument, changes: list[LevelChange]) -> bytes:
    return b",".join(
        [
            b'["%b","%b","%d"]' % (_price(instrument, price), _size(instrument, size), update_id)
            for update_id, _, price, size in changes
        ]
    )


def _levels(instrument: Instrument, levels: list[Level]) -> bytes:
    return b",".join(
        [b'["%b","%b"]' % (_price(instrument, price), _size(instrument, size)) for price, size in levels]
    )


def _match(instrument: Instrument, trades: TradeSource) -> _Encode:
    """One trade; its sequence is its id, and counts nothing else. The time is in ms, and printed in ns."""
    symbol = _symbol(instrument).encode()
    template = (
        b'{"topic":"/market/match:%b","type":"message","subject":"trade.l3match","data":{"makerOrderId":"%%b",'
        b'"price":"%%b","sequence":"%%d","side":"%%b","size":"%%b","symbol":"%%b","takerOrderId":"%%b",'
        b'"time":"%%d","tradeId":"%%d","type":"match"}}' % symbol
    )

    def encode(variant: int, now: Now) -> bytes:
        [fill] = trades.message
        trade_id = TRADE_ID_FIRST + fill.update_id
        return template % (
            b"%024x" % (fill.price << 40 | fill.trade_id),
            _price(instrument, fill.price),
            trade_id,
            _side(fill),
            _size(instrument, fill.size),
            symbol,
            b"%024x" % fill.unix_ns,
            fill.unix_ns // NS_PER_MS * NS_PER_MS,
            trade_id,
        )

    return encode


def _side(fill: Fill) -> bytes:
    return b"sell" if fill.is_sell else b"buy"


def _snapshot(instrument: Instrument) -> _Encode:
    """Full 24 h ticker: JSON numbers, the derived ones with a long tail of zeros."""
    symbol = _symbol(instrument)
    listing = instrument.listing
    head = (
        b'{"topic":"/market/snapshot:%s","type":"message","subject":"trade.snapshot","data":'
        % symbol.encode()
    )
    words = to_json(
        {
            "baseCurrency": listing.base,
            "board": 1,
            "makerCoefficient": 1.0,
            "makerFeeRate": 0.001,
            "marginTrade": instrument.index < 20,
            "mark": 0,
            "market": _market(instrument),
            "markets": [_market(instrument)],
            "quoteCurrency": listing.quote,
            "siteTypes": ["global"],
            "sort": 100,
            "symbol": symbol,
            "symbolCode": symbol,
            "takerCoefficient": 1.0,
            "takerFeeRate": 0.001,
            "trading": listing.is_trading,
        }
    )[1:]

    def encode(variant: int, now: Now) -> bytes:
        each = instrument
        window = _window(each)
        numbers = (
            b'{"askSize":%b,"averagePrice":%b,"bidSize":%b,"buy":%b,"close":%b,"datetime":%d,"lastTradedPrice":%b,'
            b'"marketChange1h":{%b},"marketChange4h":{%b},"marketChange24h":{%b},"sell":%b,%b,'
        ) % (
            _size(each, each.ask_size),
            _average(each),
            _size(each, each.bid_size),
            _price(each, each.bid),
            _price(each, each.last),
            now.unix_ms,
            _price(each, each.last),
            window,
            window,
            window,
            _price(each, each.ask),
            window,
        )
        return b'%b{"sequence":"%d","data":%b%b}}' % (head, each.update_id, numbers, words)

    return encode


def _window(each: Instrument) -> bytes:
    """The statistics of a period; the walk has only one, so that of 1 h and 4 h is the same."""
    return (b'"changePrice":%b,"changeRate":%b,"high":%b,"low":%b,"open":%b,"vol":%b,"volValue":%b') % (
        _long_price(each, each.last - each.open),
        _rate(each),
        _long_price(each, each.high),
        _long_price(each, each.low),
        _long_price(each, each.open),
        padded(each.base_volume, each.size_decimals, LONG_ZEROS),
        padded(each.quote_volume, each.price_decimals + each.size_decimals, LONG_ZEROS),
    )


def _symbol(instrument: Instrument) -> str:
    """Permanent: a rename changes name and base currency only."""
    listing = instrument.listing
    return f"{listing.renamed_from or listing.base}-{listing.quote}"


def _name(instrument: Instrument) -> str:
    return f"{instrument.listing.base}-{instrument.listing.quote}"


def _market(instrument: Instrument) -> str:
    return _MARKETS.get(instrument.listing.quote, "FIAT")


def _price(instrument: Instrument, ticks: int) -> bytes:
    return trimmed(ticks, instrument.price_decimals)


def _long_price(instrument: Instrument, ticks: int) -> bytes:
    return padded(ticks, instrument.price_decimals, LONG_ZEROS)


def _size(instrument: Instrument, lots: int) -> bytes:
    return trimmed(lots, instrument.size_decimals)


def _rate(each: Instrument) -> bytes:
    return padded(round((each.last - each.open) * 10_000 / each.open), 4, 4)


def _average(each: Instrument) -> bytes:
    return trimmed(each.quote_volume * 10**8 // (each.base_volume * 10**each.price_decimals), 8)


# REST.


def _error(code: str, text: str, status: int = 200, headers: dict[str, str] | None = None) -> HttpAnswer:
    return HttpAnswer(body=to_json({"code": code, "msg": text}), status=status, headers=headers or {})


def _with_symbol(request: HttpRequest, symbol: str) -> HttpRequest:
    return msgspec.structs.replace(request, query=[("symbol", symbol)])


def _rate_headers(limit: int, remaining: int, reset_ms: int) -> dict[str, str]:
    return {
        "gw-ratelimit-limit": str(limit),
        "gw-ratelimit-remaining": str(remaining),
        "gw-ratelimit-reset": str(reset_ms),
    }


def _too_many(status: int, headers: dict[str, str], retry_after_s: int) -> HttpAnswer:
    all_headers = headers | {"Retry-After": str(retry_after_s)}
    return _error("429000", "Too Many Requests", status=status, headers=all_headers)


def _public_bullet(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    return _bullet(exchange, exchange.new_token(now))


def _linear_bullet(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    path = kucoin_linear.PATH
    return _bullet(exchange, exchange.new_token(now, path=path), path)


def _private_bullet(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    return _bullet(exchange, exchange.new_token(now, is_private=True))


def _accounts(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    found = exchange.private.print_accounts(request.one("type"), request.one("currency"))
    return _error("400100", "Parameter Error: type") if found is None else ok(found)


def _account_mode(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    return ok(exchange.private.print_mode())


def _bullet(exchange: Kucoin, token: str, path: str = "") -> HttpAnswer:
    server = {
        "endpoint": f"{exchange.ws_url.rstrip('/')}{path}/",
        "encrypt": exchange.ws_url.startswith("wss"),
        "protocol": "websocket",
        "pingInterval": int(exchange.rules.ping_interval_s * 1000),
        "pingTimeout": int(exchange.rules.ping_timeout_s * 1000),
    }
    return ok({"token": token, "instanceServers": [server]})


def _timestamp(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    return ok(now.unix_ms)


def _status(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    return ok({"status": "open", "msg": ""})


def _symbols(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    market = request.one("market")
    return ok([_symbol_info(each) for each in exchange.listed() if market is None or _market(each) == market])


def _one_symbol(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    instrument = exchange.by_symbol.get(request.one("symbol") or "")
    return _not_found() if instrument is None else ok(_symbol_info(instrument))


def _not_found() -> HttpAnswer:
    return _error("900001", "symbol not exists")


def _symbol_info(each: Instrument) -> dict[str, object]:
    return {
        "symbol": _symbol(each),
        "name": _name(each),
        "baseCurrency": each.listing.base,
        "quoteCurrency": each.listing.quote,
        "feeCurrency": each.listing.quote,
        "market": _market(each),
        "baseMinSize": _size(each, 10).decode(),
        "quoteMinSize": "0.1",
        "baseMaxSize": "10000000000",
        "quoteMaxSize": "99999999",
        "baseIncrement": _size(each, 1).decode(),
        "quoteIncrement": "0.000001",
        "priceIncrement": _price(each, 1).decode(),
        "priceLimitRate": "0.1",
        "minFunds": "0.1",
        "isMarginEnabled": each.index < 20,
        "enableTrading": each.listing.is_trading,
        "feeCategory": 1,
        "makerFeeCoefficient": "1.00",
        "takerFeeCoefficient": "1.00",
        "st": False,
        "callauctionIsEnabled": False,
        "callauctionPriceFloor": None,
        "callauctionPriceCeiling": None,
        "callauctionFirstStageStartTime": None,
        "callauctionSecondStageStartTime": None,
        "callauctionThirdStageStartTime": None,
        "tradingStartTime": None,
    }


def _statistics(each: Instrument) -> dict[str, object]:
    """24 h in strings, without an open; what does not trade has no book: null."""
    is_trading = each.listing.is_trading
    return {
        "buy": _price(each, each.bid).decode() if is_trading else None,
        "sell": _price(each, each.ask).decode() if is_trading else None,
        "changeRate": _rate(each).decode(),
        "changePrice": _price(each, each.last - each.open).decode(),
        "high": _price(each, each.high).decode(),
        "low": _price(each, each.low).decode(),
        "vol": _size(each, each.base_volume).decode(),
        "volValue": trimmed(each.quote_volume, each.price_decimals + each.size_decimals).decode(),
        "last": _price(each, each.last).decode(),
        "averagePrice": _average(each).decode(),
        "takerFeeRate": "0.001",
        "makerFeeRate": "0.001",
        "takerCoefficient": "1",
        "makerCoefficient": "1",
    }


def _all_tickers(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    """Everything at once, as it was when that was last put together: up to 2 s ago."""
    if exchange.all_tickers is None or now.mono_ns - exchange.all_tickers_mono_ns >= ALL_TICKERS_EVERY_NS:
        exchange.all_tickers_mono_ns = now.mono_ns
        exchange.all_tickers = _put_together(exchange, now)
    return exchange.all_tickers


def _put_together(exchange: Kucoin, now: Now) -> HttpAnswer:
    rows = [
        {
            "symbol": _symbol(each),
            "symbolName": _name(each),
            **_statistics(each),
            "bestBidSize": _size(each, each.bid_size).decode() if each.listing.is_trading else None,
            "bestAskSize": _size(each, each.ask_size).decode() if each.listing.is_trading else None,
        }
        for each in exchange.listed()
    ]
    return ok({"time": now.unix_ms, "ticker": rows})


def _stats(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    instrument = exchange.by_symbol.get(request.one("symbol") or "")
    if instrument is None:
        return _not_found()
    return ok({"time": now.unix_ms, "symbol": _symbol(instrument), **_statistics(instrument)})


def _best_quote(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    each = exchange.by_symbol.get(request.one("symbol") or "")
    if each is None:
        return _not_found()
    return ok(
        {
            "time": now.unix_ms,
            "sequence": str(each.update_id),
            "price": _price(each, each.last).decode(),
            "size": _size(each, each.last_size).decode(),
            "bestBid": _price(each, each.bid).decode(),
            "bestBidSize": _size(each, each.bid_size).decode(),
            "bestAsk": _price(each, each.ask).decode(),
            "bestAskSize": _size(each, each.ask_size).decode(),
        }
    )


def _level2_20(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    return _part_of_book(exchange, request, now, 20)


def _level2_100(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    return _part_of_book(exchange, request, now, 100)


def _part_of_book(exchange: Kucoin, request: HttpRequest, now: Now, count: int) -> HttpAnswer:
    each = exchange.by_symbol.get(request.one("symbol") or "")
    if each is None:
        return _not_found()
    if not each.listing.is_trading:
        return ok({"time": now.unix_ms, "sequence": str(each.update_id), "bids": [], "asks": []})
    book = exchange.book_state(each, now)
    body = b'{"code":"200000","data":{"time":%d,"sequence":"%d","bids":[%b],"asks":[%b]}}' % (
        book.at.unix_ms,
        book.update_id,
        _levels(each, book.bids[:count]),
        _levels(each, book.asks[:count]),
    )
    return HttpAnswer(body=body)


def _histories(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    """The newest hundred trades, the newest first."""
    each = exchange.by_symbol.get(request.one("symbol") or "")
    if each is None:
        return _not_found()
    return ok([_history(each, fill) for fill in list(each.order_book().fills)[: -HISTORIES - 1 : -1]])


def _history(each: Instrument, fill: Fill) -> dict[str, object]:
    return {
        "sequence": str(TRADE_ID_FIRST + fill.update_id),
        "price": _price(each, fill.price).decode(),
        "size": _size(each, fill.size).decode(),
        "side": _side(fill).decode(),
        "time": fill.unix_ns // NS_PER_MS * NS_PER_MS,
    }


def _currencies(exchange: Kucoin, request: HttpRequest, now: Now) -> HttpAnswer:
    codes = dict.fromkeys(
        code for each in exchange.instruments for code in (each.listing.base, each.listing.quote)
    )
    return ok([_currency(code) for code in codes])


def _currency(code: str) -> dict[str, object]:
    return {
        "currency": code,
        "name": code,
        "fullName": code,
        "precision": 8,
        "confirms": None,
        "contractAddress": None,
        "isMarginEnabled": False,
        "isDebitEnabled": False,
        "chains": [],
    }


_Answer = Callable[[Kucoin, HttpRequest, Now], HttpAnswer]


def _of_linear(answer: Callable[[KucoinLinear, HttpRequest, Now], HttpAnswer]) -> _Answer:
    return lambda exchange, request, now: answer(exchange.linear, request, now)


class _Endpoint(msgspec.Struct, frozen=True):
    method: str
    pool: str  # all but the public one are for who signs
    weight: int
    answer: _Answer


_ENDPOINTS: dict[str, _Endpoint] = {
    "/api/v1/bullet-public": _Endpoint("POST", "public", 10, _public_bullet),
    "/api/v1/timestamp": _Endpoint("GET", "public", 3, _timestamp),
    "/api/v1/status": _Endpoint("GET", "public", 3, _status),
    "/api/v1/symbols": _Endpoint("GET", "public", 4, _symbols),  # older clients begin with it
    "/api/v2/symbols": _Endpoint("GET", "public", 4, _symbols),
    "/api/v2/symbols/": _Endpoint("GET", "public", 4, _one_symbol),
    "/api/v1/market/allTickers": _Endpoint("GET", "public", 15, _all_tickers),
    "/api/v1/market/stats": _Endpoint("GET", "public", 15, _stats),
    "/api/v1/market/orderbook/level1": _Endpoint("GET", "public", 2, _best_quote),
    "/api/v1/market/orderbook/level2_20": _Endpoint("GET", "public", 2, _level2_20),
    "/api/v1/market/orderbook/level2_100": _Endpoint("GET", "public", 4, _level2_100),
    "/api/v1/market/histories": _Endpoint("GET", "public", 3, _histories),
    "/api/v3/currencies": _Endpoint("GET", "public", 3, _currencies),
    "/api/v1/bullet-private": _Endpoint("POST", "spot", 10, _private_bullet),
    "/api/v1/accounts": _Endpoint("GET", "management", 5, _accounts),
    "/api/ua/v2/account/mode": _Endpoint("GET", "management", 20, _account_mode),
    "/api/ua/v1/market/open-interest": _Endpoint(
        "GET", "public", 10, _of_linear(kucoin_linear.open_interest)
    ),
}


_LINEAR_ENDPOINTS = {
    "/api/v1/bullet-public": _Endpoint("POST", "public", 10, _linear_bullet),
    **{
        path: _Endpoint("GET", "public", weight, _of_linear(answer))
        for path, (weight, answer) in kucoin_linear.ENDPOINTS.items()
    },
}


# Recordings.

_TOPIC_KEY = re.compile(rb'"topic"\s*:\s*("(?:[^"\\]|\\.)*")')
_SEQUENCE = re.compile(rb'"sequence"\s*:\s*"?(\d+)')
_SEQUENCE_START = re.compile(rb'"sequenceStart"\s*:\s*"?(\d+)')
_SEQUENCE_END = re.compile(rb'"sequenceEnd"\s*:\s*"?(\d+)')
_LIVE = ("/api/v1/bullet-public", "/api/v1/timestamp", "/api/v1/status")
_CONTRACTS = f"{kucoin_linear.PATH}/api/v1/contracts/"


class _ListedContract(msgspec.Struct):
    symbol: str


class _ContractList(msgspec.Struct):
    data: list[msgspec.Raw]


class KucoinReading(TrafficReading):
    """A book is of the same count whichever request has it: an answer may have other levels than were asked for."""

    live = frozenset(market + path for market in ("", kucoin_linear.PATH) for path in _LIVE)
    changes = frozenset({"/market/level2", "/contractMarket/level2"})

    def topic_of(self, payload: bytes, market: str = "") -> str:
        match = _TOPIC_KEY.search(payload)
        return str(msgspec.json.decode(match[1])) if match is not None else ""

    def split(self, topic: str) -> tuple[str, str]:
        channel, _, symbol = topic.partition(":")
        return channel, symbol

    def ids(self, payload: bytes) -> Ids:
        if not (first := number_in(_SEQUENCE_START, payload)):
            first = number_in(_SEQUENCE, payload)  # of contracts: one change a message
            return Ids(first, first)
        return Ids(first, number_in(_SEQUENCE_END, payload))

    def asked_book(self, request: HttpRequest) -> str:
        return (request.one("symbol") or "") if "/level2" in request.path else ""

    def base_id(self, body: bytes) -> int:
        return number_in(_SEQUENCE, body)

    def list_with(self, request: HttpRequest) -> HttpRequest | None:
        """A contract by itself is answered with its row of the list of all."""
        if not request.path.startswith(_CONTRACTS):
            return None
        return HttpRequest(method="GET", path=f"{_CONTRACTS}active")

    def row(self, request: HttpRequest, body: bytes) -> bytes | None:
        symbol = request.path.removeprefix(_CONTRACTS)
        try:
            for row in msgspec.json.decode(body, type=_ContractList).data:
                if msgspec.json.decode(row, type=_ListedContract).symbol == symbol:
                    return ok(row).body
        except ValueError:  # msgspec's is one: the list was refused
            return None
        return None
