"""Binance, spot and USD-M perpetuals: `@ticker` for last price and 24 h statistics, `@bookTicker` for the quote,
`@trade` or `@aggTrade`, `@depth20`, and `@depth` for books; of perpetuals also `@markPrice` and `@forceOrder`.

Everything peculiar to Binance is here. bookTicker and depth20 state no event time, so their records carry
exchange_ns 0; `u` and `lastUpdateId`, which are of one count, are the exchange_sequence. Update ids: those, and the
event time of ticker. Ids of trades (`t`) are consecutive for each symbol; `m` says that the buyer was the maker, so
the taker sold.
Quirks worth knowing:

- a well-formed stream of a symbol that does not exist is acknowledged and then silent for ever;
- a malformed stream name is an error *and* the end of the connection;
- errors come flat as documented, `{"code":..,"msg":..}`, or nested, `{"error":{..},"id":..}`;
- books begin with one over REST: 1,000 levels a side weigh 50 of the 6,000 a minute, 5,000 weigh 250;
- depth20 has neither symbol nor event in its data: the combined form's `stream` names it;
- the server pings; each of our pongs counts toward the 5 messages per second that it accepts;
- `serverShutdown` arrives without being subscribed.

Perpetuals differ: every event states its times, of which T, of the matching engine, is that of our records;
depth20 is called depthUpdate as the changes of a book are, and only its stream tells them apart; changes name the
event before them (`pu`), and ids in between are none's; trades come as the exchange merges them (`a` is
consecutive, `f` to `l` are its trades). forceOrder has no id, and at most one a symbol and second comes, so that
liquidations are not complete.
Streams are on two paths, so that a connection has two sockets; one without a path acknowledges all streams, and
brings those of /public alone. Open interest and the interval of funding are in no stream: REST has the one of each
symbol alone, and of the other those that are not 8 h.

Source: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams and rest-api, and
https://developers.binance.com/docs/derivatives/usds-margined-futures, as of 2026-11.
Frames: tests/frames/binance/, binance_linear/
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from feedhandler.data.book import BOOK
from feedhandler.data.contract import CONTRACT
from feedhandler.data.depth import DEPTH
from feedhandler.data.errors import UNDECODABLE, DecodeError
from feedhandler.data.instruments import SPOT, Instrument, price_tick
from feedhandler.data.levels import Amount, pack_levels, read_levels
from feedhandler.data.liquidation import LIQUIDATION
from feedhandler.data.rest import LimitHeader, RestRequest
from feedhandler.data.ticker import TICKER
from feedhandler.data.trade import TRADE, UNKNOWN_SIDE, Side
from feedhandler.data.units import NS_PER_MS
from feedhandler.data.wire import LAST, NAN
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import (
    MILLISECONDS_MAX,
    Ack,
    Capability,
    Control,
    Emit,
    Endpoint,
    Exchange,
    FundingRate,
    Goodbye,
    Market,
    Milliseconds,
    Nack,
    Quote,
    RestTicker,
    Rows,
    StatedQuote,
    Traded,
    UpdateId,
    decode_rest,
    decode_sparse,
    parameters,
    read_rows,
    requested,
    rest_quote,
    rest_refusal,
    rest_ticker,
)
from feedhandler.exchanges.books import Base, ChainRule
from feedhandler.exchanges.contract_state import ContractState
from feedhandler.exchanges.full_book import Changes, FullBookState
from feedhandler.exchanges.polled import Poll, PolledContract
from feedhandler.exchanges.state import QUOTE, STATISTICS, State
from feedhandler.exchanges.trades import PastTrade, TradeState, numbered

STREAMS_PER_CONNECTION: Final = 1024
DEPTH_STREAM: Final = "@depth20@100ms"
BOOK_STREAM: Final = "@depth@100ms"
MARK_STREAM: Final = "@markPrice@1s"
USED_WEIGHT: Final = LimitHeader("x-mbx-used-weight-1m", is_left=False)
BASE_PATH: Final = re.compile("/api/v[13]/depth")
BASE_LIMIT: Final = 100  # of a book that is requested without any
LINEAR_BASE_PATH: Final = "/fapi/v1/depth"
BARE: Final = b"-"  # stands for the stream where none is named
LINEAR_BASE_LIMIT: Final = 500
# Where the streams of perpetuals are, by what follows the symbol.
PUBLIC: Final = "/public"
MARKET: Final = "/market"
PATHS: Final = {
    "@bookTicker": PUBLIC,
    DEPTH_STREAM: PUBLIC,
    BOOK_STREAM: PUBLIC,
    "@ticker": MARKET,
    "@aggTrade": MARKET,
    MARK_STREAM: MARKET,
    "@forceOrder": MARKET,
}
PERPETUAL: Final = frozenset({"PERPETUAL", "TRADIFI_PERPETUAL"})  # others have a day of delivery
HEAD_SIZE: Final = 100  # of a message; its stream's name stands there, unless what sent it has another order
HEAD: Final = b'{"stream":"'  # what it begins with otherwise
TRADE_MARK, DEPTH_MARK, BOOK_MARK = b'@trade"', f'{DEPTH_STREAM}"'.encode(), f'{BOOK_STREAM}"'.encode()

# Undocumented: frames over about 4096 bytes were cut (Binance.Net issues 884 and 974).
STREAMS_PER_COMMAND: Final = 100
COMMAND_SIZE_MAX: Final = 4000

# Times are requested in microseconds, but a proxy or testnet may ignore that. Milliseconds stay below
# this until the year 5138, microseconds have been above it since 1973.
MICROSECONDS_ABOVE: Final = 10**14
COUNT_MAX: Final = 2**32 - 1  # of a record
TIME_NS_MAX: Final = 2**63 - 1
NS_PER_YEAR: Final = 31_556_952 * 1_000_000_000
TIME_MAX: Final = (2**63 - 1) // 1000
Time = Annotated[int, msgspec.Meta(ge=0, le=TIME_MAX)]
Stated = Annotated[int, msgspec.Meta(gt=0, le=MILLISECONDS_MAX)]  # of perpetuals: milliseconds, always


TRADING: Final = "TRADING"
# the taker's, by whether the buyer was the maker
SIDES: Final[dict[bool | None, Side]] = {True: Side.SELL, False: Side.BUY}
ORDER_SIDES: Final = {"BUY": Side.BUY, "SELL": Side.SELL}


class _Event(msgspec.Struct, gc=False):
    """`@bookTicker` and `@depth20` data, and what others have in common with them; a lacking one is its default."""

    update_id: UpdateId = msgspec.field(name="u", default=0)
    symbol: str = msgspec.field(name="s", default="")
    bid: Amount = msgspec.field(name="b", default=NAN)
    bid_size: Amount = msgspec.field(name="B", default=NAN)
    ask: Amount = msgspec.field(name="a", default=NAN)
    ask_size: Amount = msgspec.field(name="A", default=NAN)
    event: str = msgspec.field(name="e", default="")
    last_update_id: UpdateId = msgspec.field(name="lastUpdateId", default=0)
    bids: list[tuple[Amount, Amount]] | None = None
    asks: list[tuple[Amount, Amount]] | None = None


class _Combined(msgspec.Struct, gc=False):
    """What nearly every message is: data of a stream, wrapped with its name."""

    data: _Event | None = None


class _Statistics(_Event, gc=False):
    """`@ticker` data. They are decoded a second time: these fields above would cost each quote a fifth."""

    time: Time = msgspec.field(name="E", default=0)
    last: Amount = msgspec.field(name="c", default=NAN)
    open: Amount = msgspec.field(name="o", default=NAN)
    high: Amount = msgspec.field(name="h", default=NAN)
    low: Amount = msgspec.field(name="l", default=NAN)
    base_volume: Amount = msgspec.field(name="v", default=NAN)
    quote_volume: Amount = msgspec.field(name="q", default=NAN)


class _CombinedStatistics(msgspec.Struct, gc=False):
    data: _Statistics


class _Trade(msgspec.Struct, tag_field="e", tag="trade", gc=False):
    """`@trade` data; more fields above would cost each quote 8 %."""

    symbol: str = msgspec.field(name="s")
    number: UpdateId = msgspec.field(name="t")
    time: Annotated[int, msgspec.Meta(gt=0, le=TIME_MAX)] = msgspec.field(name="T")
    price: Traded = msgspec.field(name="p")
    size: Traded = msgspec.field(name="q")
    buyer_is_maker: bool | None = msgspec.field(name="m", default=None)


class _Changes(msgspec.Struct, gc=False):
    """`@depth` data, which is refused above: a side stands where bookTicker has a price."""

    event: str = msgspec.field(name="e")
    symbol: str = msgspec.field(name="s")
    first_id: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)] = msgspec.field(name="U")
    last_id: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)] = msgspec.field(name="u")
    bids: msgspec.Raw = msgspec.field(name="b")
    asks: msgspec.Raw = msgspec.field(name="a")
    time: Time = msgspec.field(name="E", default=0)


class _CombinedChanges(msgspec.Struct, gc=False):
    data: _Changes


class _Depth(msgspec.Struct, gc=False):
    """`@depth20` data alone. What has an event or a symbol is something else."""

    last_update_id: UpdateId = msgspec.field(name="lastUpdateId")
    bids: msgspec.Raw
    asks: msgspec.Raw
    event: str = msgspec.field(name="e", default="")
    symbol: str = msgspec.field(name="s", default="")


class _CombinedDepth(msgspec.Struct, gc=False):
    data: _Depth


class _CombinedTrade(msgspec.Struct, gc=False):
    data: _Trade


class _Wrapped(msgspec.Struct):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


class _Frame(_Statistics, gc=False):
    """Any other message: data unwrapped, or the answer to a command."""

    id: int | str | None = None
    result: Any = msgspec.UNSET
    error: _Error | None = None
    code: int | None = None
    msg: str = ""


class _Symbol(msgspec.Struct):
    symbol: str
    status: str
    base: str = msgspec.field(name="baseAsset")
    quote: str = msgspec.field(name="quoteAsset")
    is_spot: bool = msgspec.field(name="isSpotTradingAllowed", default=True)
    filters: Any = None


class _ExchangeInfo(_Error):
    symbols: list[msgspec.Raw] | None = None  # each a _Symbol


class _Time(_Error):
    time: Time | None = msgspec.field(name="serverTime", default=None)


class _BookTicker(_Error):
    """Answer to `quote_request`; an empty side has prices of 0."""

    bid: Amount | None = msgspec.field(name="bidPrice", default=None)
    bid_size: Amount | None = msgspec.field(name="bidQty", default=None)
    ask: Amount | None = msgspec.field(name="askPrice", default=None)
    ask_size: Amount | None = msgspec.field(name="askQty", default=None)


class _Base(_Error):
    """Answer to `base_request`."""

    last_id: UpdateId = msgspec.field(name="lastUpdateId", default=0)
    bids: list[tuple[Amount, Amount]] | None = None
    asks: list[tuple[Amount, Amount]] | None = None


class _BulkRow(msgspec.Struct):
    """A row of ticker/bookTicker, or of ticker/24hr, whose quotes are older."""

    symbol: str
    bid: Amount | None = msgspec.field(name="bidPrice", default=None)
    bid_size: Amount | None = msgspec.field(name="bidQty", default=None)
    ask: Amount | None = msgspec.field(name="askPrice", default=None)
    ask_size: Amount | None = msgspec.field(name="askQty", default=None)
    last: Amount | None = msgspec.field(name="lastPrice", default=None)
    open: Amount | None = msgspec.field(name="openPrice", default=None)
    high: Amount | None = msgspec.field(name="highPrice", default=None)
    low: Amount | None = msgspec.field(name="lowPrice", default=None)
    base_volume: Amount | None = msgspec.field(name="volume", default=None)
    quote_volume: Amount | None = msgspec.field(name="quoteVolume", default=None)


class _PastTrade(msgspec.Struct):
    """A row of historicalTrades."""

    number: UpdateId = msgspec.field(name="id")
    price: Traded
    size: Traded = msgspec.field(name="qty")
    time: Time
    buyer_is_maker: bool | None = msgspec.field(name="isBuyerMaker", default=None)


class _Command(msgspec.Struct):
    method: str
    params: Sequence[str]
    id: int


class _LinearQuote(msgspec.Struct, tag_field="e", tag="bookTicker", gc=False):
    update_id: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)] = msgspec.field(name="u")
    symbol: str = msgspec.field(name="s")
    bid: Amount = msgspec.field(name="b", default=NAN)
    bid_size: Amount = msgspec.field(name="B", default=NAN)
    ask: Amount = msgspec.field(name="a", default=NAN)
    ask_size: Amount = msgspec.field(name="A", default=NAN)
    time: Milliseconds = msgspec.field(name="T", default=0)


class _OpenInterest(msgspec.Struct):
    """The answer to `openInterest`, or the error that there is instead."""

    symbol: str = ""
    amount: Amount | None = msgspec.field(name="openInterest", default=None)
    code: int = 0
    msg: str = ""


class _FundingInfo(msgspec.Struct):
    """A row of `fundingInfo`."""

    symbol: str
    interval_h: Traded = msgspec.field(name="fundingIntervalHours")


class _LinearTicker(msgspec.Struct, tag_field="e", tag="24hrTicker", gc=False):
    symbol: str = msgspec.field(name="s")
    time: Stated = msgspec.field(name="E")
    last: Amount = msgspec.field(name="c", default=NAN)
    open: Amount = msgspec.field(name="o", default=NAN)
    high: Amount = msgspec.field(name="h", default=NAN)
    low: Amount = msgspec.field(name="l", default=NAN)
    base_volume: Amount = msgspec.field(name="v", default=NAN)
    quote_volume: Amount = msgspec.field(name="q", default=NAN)


class _Merged(msgspec.Struct, kw_only=True, gc=False):
    """Trades as the exchange merges them: what an event and a row of REST have in common."""

    number: UpdateId = msgspec.field(name="a")
    first: UpdateId = msgspec.field(name="f")
    last: UpdateId = msgspec.field(name="l")
    price: Traded = msgspec.field(name="p")
    size: Traded = msgspec.field(name="q")
    buyer_is_maker: bool | None = msgspec.field(name="m", default=None)

    def count(self) -> int:
        """Return how many trades are merged. Raises DecodeError."""
        if not 0 <= self.last - self.first < COUNT_MAX:
            raise DecodeError(f"binance: an aggTrade is of trades {self.first} to {self.last}")
        return self.last - self.first + 1

    def trade(self) -> tuple[str, float, float, Side]:
        """Return it as it is published."""
        return str(self.number), self.price, self.size, SIDES.get(self.buyer_is_maker, UNKNOWN_SIDE)


class _MergedTrade(_Merged, tag_field="e", tag="aggTrade", kw_only=True, gc=False):
    symbol: str = msgspec.field(name="s")
    time: Stated = msgspec.field(name="T")


class _LinearChanges(msgspec.Struct, tag_field="e", tag="depthUpdate", gc=False):
    """Data of `@depth` and of `@depth20`, which has all levels and not what has changed."""

    symbol: str = msgspec.field(name="s")
    first_id: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)] = msgspec.field(name="U")
    last_id: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)] = msgspec.field(name="u")
    before_id: UpdateId = msgspec.field(name="pu")
    bids: msgspec.Raw = msgspec.field(name="b")
    asks: msgspec.Raw = msgspec.field(name="a")
    time: Milliseconds = msgspec.field(name="T", default=0)


class _MarkPrice(msgspec.Struct, tag_field="e", tag="markPriceUpdate", gc=False):
    symbol: str = msgspec.field(name="s")
    time: Stated = msgspec.field(name="E")
    mark: Amount = msgspec.field(name="p", default=NAN)
    index: Amount = msgspec.field(name="i", default=NAN)
    funding_rate: FundingRate = msgspec.field(name="r", default=NAN)
    next_funding: Milliseconds = msgspec.field(name="T", default=0)


class _ForcedOrder(msgspec.Struct, gc=False):
    symbol: str = msgspec.field(name="s")
    side: str = msgspec.field(name="S")
    price: Traded = msgspec.field(name="p")
    size: Traded = msgspec.field(name="q")
    time: Stated = msgspec.field(name="T")


class _Liquidated(msgspec.Struct, tag_field="e", tag="forceOrder", gc=False):
    order: _ForcedOrder = msgspec.field(name="o")


EVENTS: Final = frozenset(
    kind.__struct_config__.tag
    for kind in (_LinearQuote, _LinearTicker, _MergedTrade, _LinearChanges, _MarkPrice, _Liquidated)
)


class _LinearFrame(msgspec.Struct, gc=False):
    """Every message of perpetuals: data of a stream, wrapped with its name, or the answer to a command."""

    stream: str = ""
    data: _LinearQuote | _LinearTicker | _MergedTrade | _LinearChanges | _MarkPrice | _Liquidated | None = (
        None
    )
    id: int | str | None = None
    result: Any = msgspec.UNSET
    error: _Error | None = None
    code: int | None = None
    msg: str = ""


class _Named(msgspec.Struct):
    event: str = msgspec.field(name="e", default="")


class _CombinedName(msgspec.Struct):
    """What a message of any event has, also of one that is none of ours."""

    data: _Named


class _Contract(msgspec.Struct):
    symbol: str
    status: str
    base: str = msgspec.field(name="baseAsset")
    quote: str = msgspec.field(name="quoteAsset")
    settle: str = msgspec.field(name="marginAsset")
    type: str = msgspec.field(name="contractType")
    filters: Any = None


class _PastMerged(_Merged, kw_only=True, gc=False):
    """A row of aggTrades."""

    time: Milliseconds = msgspec.field(name="T")


class BinanceMarket(Market):
    """What the markets have in common: requests, their answers, and how REST states quotes and books."""

    exchange = "binance"
    domains = ("binance.com", "binance.vision")
    topic_key = b"stream"
    topics_max = 1000
    assert topics_max + 1 <= STREAMS_PER_CONNECTION, "and the canary"
    # At most 5 messages a second, pongs included, and no burst: the window is strict.
    command_interval_s = 0.3
    connects = (300, 300.0)
    clocked = frozenset({(TICKER.name, STATISTICS)})

    def __init__(self) -> None:
        super().__init__()
        self._decode_wrapped = msgspec.json.Decoder(_Wrapped).decode
        self._base = msgspec.json.Decoder(_Base, strict=False)
        self._time = msgspec.json.Decoder(_Time, strict=False)
        self._rest_quote = msgspec.json.Decoder(_BookTicker, strict=False)
        self._rows = msgspec.json.Decoder(list[msgspec.Raw])
        self._bulk_row = msgspec.json.Decoder(_BulkRow, strict=False)

    def decode_time(self, body: bytes) -> int:
        answer = decode_rest(self._time, body, "binance time")
        if answer.time is None:
            raise rest_refusal("binance time", answer.code, answer.msg)
        return _time_ns(answer.time)

    def decode_quote(self, body: bytes) -> Quote:
        answer = decode_rest(self._rest_quote, body, "binance bookTicker")
        if answer.code:
            raise rest_refusal("binance bookTicker", answer.code, answer.msg)
        if None in (answer.bid, answer.bid_size, answer.ask, answer.ask_size):
            raise DecodeError("binance bookTicker: the answer lacks a price or size")
        return rest_quote(answer.bid, answer.bid_size, answer.ask, answer.ask_size)

    def decode_base(self, native: str, body: bytes) -> Base:
        answer = decode_rest(self._base, body, "binance depth")
        if answer.code:
            raise rest_refusal("binance depth", answer.code, answer.msg)
        if answer.bids is None or answer.asks is None or not answer.last_id:
            raise DecodeError("binance depth: the answer lacks a side, or its id")
        return Base(answer.last_id, answer.bids, answer.asks, self.base_levels)

    def decode_survey(self, body: bytes) -> Rows[RestTicker]:
        rows: list[msgspec.Raw] = decode_rest(self._rows, body, "binance tickers")
        return read_rows(self._rest_ticker, rows, "binance tickers")

    def _rest_ticker(self, row: msgspec.Raw) -> RestTicker:
        r = self._bulk_row.decode(row)
        if r.last is None:
            return rest_ticker(r.symbol, (r.bid, r.bid_size, r.ask, r.ask_size))
        statistics = (r.open, r.high, r.low, r.base_volume, r.quote_volume)
        return rest_ticker(r.symbol, (None, None, None, None), r.last, statistics)

    def batches(self, topics: Sequence[str]) -> Iterator[tuple[str, ...]]:
        batch: list[str] = []
        size = 0
        for topic in topics:
            topic_size = len(topic.encode()) + 3  # two quotes and a comma
            if batch and (len(batch) == STREAMS_PER_COMMAND or size + topic_size > COMMAND_SIZE_MAX - 100):
                yield tuple(batch)
                batch, size = [], 0
            batch.append(topic)
            size += topic_size
        if batch:
            yield tuple(batch)

    def subscribe(self, topics: Sequence[str], command_id: str) -> bytes:
        return msgspec.json.encode(_Command("SUBSCRIBE", topics, int(command_id)))

    def unsubscribe(self, topics: Sequence[str], command_id: str) -> bytes:
        return msgspec.json.encode(_Command("UNSUBSCRIBE", topics, int(command_id)))

    def requested(self, frame: bytes) -> tuple[bool, Sequence[str]] | None:
        return requested(frame, _Command, lambda command: (command.method, command.params))

    def _answer(self, frame: "_Frame | _LinearFrame") -> Control | None:
        error = frame.error
        if error is None and frame.code is not None:
            error = _Error(frame.code, frame.msg)
        command_id = "" if frame.id is None else str(frame.id)
        if error is not None:
            return Nack(command_id, f"{error.msg} (code {error.code})")
        if frame.result is msgspec.UNSET:
            raise DecodeError("binance: message of no known kind")
        return Ack(command_id)


class BinanceSpot(BinanceMarket):
    name = SPOT
    kinds = (TICKER.name, TRADE.name, DEPTH.name, BOOK.name)
    capabilities = {
        TICKER.name: Capability(
            ("@ticker", "@bookTicker"),
            "statistics each second, the quote with each change",
            "nothing: ids of quotes ascend and jump; a silent channel is held against REST",
            "when a quote was made: no time is stated",
        ),
        TRADE.name: Capability(
            ("@trade",),
            "each trade, at once",
            "ids are consecutive; what is missing is fetched over REST",
            "that the newest has come, until the next one has",
        ),
        DEPTH.name: Capability(
            (DEPTH_STREAM,),
            "each 100 ms",
            "nothing: each message is whole",
            "what was between two messages, and when: no time is stated",
        ),
        BOOK.name: Capability(
            (BOOK_STREAM,),
            "each 100 ms, after a base over REST",
            "a message begins with the id that follows the last one's",
            "levels beyond the 1,000 a side of the base, until they change; there is no checksum",
        ),
    }
    ws_url = "wss://stream.binance.com:9443"
    rest_url = "https://api.binance.com"
    instruments_request = RestRequest("/api/v3/exchangeInfo?showPermissionSets=false", weight=20)
    time_request = RestRequest("/api/v3/time", headers=(("X-MBX-TIME-UNIT", "MICROSECOND"),))
    survey_requests = (
        RestRequest("/api/v3/ticker/bookTicker", weight=4),
        RestRequest("/api/v3/ticker/24hr", weight=80),
    )
    trade_ids_are_consecutive = True
    past_trades_max = 1000
    base_levels = 1000
    # REQUEST_WEIGHT of exchangeInfo's rateLimits: rest-api, "Limits", as of 2026-11.
    rest_limit = (6000, 60.0)
    rest_header = USED_WEIGHT

    quote_assets = (
        *(
            "USDT",
            "USDC",
            "FDUSD",
            "TUSD",
            "BUSD",
            "DAI",
            "USD1",
            "BTC",
            "ETH",
            "BNB",
            "SOL",
            "XRP",
            "TRX",
            "DOGE",
        ),
        *(
            "EUR",
            "TRY",
            "BRL",
            "JPY",
            "GBP",
            "AUD",
            "ZAR",
            "UAH",
            "PLN",
            "RON",
            "ARS",
            "MXN",
            "COP",
            "CZK",
            "IDR",
        ),
    )
    addresses = re.compile(
        r"\w+://(stream|data-stream|(api\d?|api-gcp|data-api)|(stream\.)?testnet)\.binance\.(com|vision)\b"
    )
    # The server pings every 20 s. A ping of ours goes out after 10 s of silence: so either is enough to live on.
    pong_timeout_s = 15.0

    def __init__(self) -> None:
        super().__init__()
        self._has_others = False  # symbols of other kinds than tickers
        # strict=False: numbers come as strings; the decoder converts them without a Python float().
        self._decode = msgspec.json.Decoder(_Combined, strict=False).decode
        self._decode_statistics = msgspec.json.Decoder(_CombinedStatistics, strict=False).decode
        self._decode_depth = msgspec.json.Decoder(_CombinedDepth, strict=False).decode
        self._decode_trade = msgspec.json.Decoder(_CombinedTrade, strict=False).decode
        self._decode_raw_trade = msgspec.json.Decoder(_Trade, strict=False).decode
        self._decode_changes = msgspec.json.Decoder(_CombinedChanges, strict=False).decode
        self._decode_raw_changes = msgspec.json.Decoder(_Changes, strict=False).decode
        self._decode_other = msgspec.json.Decoder(_Frame, strict=False).decode
        self._info = msgspec.json.Decoder(_ExchangeInfo, strict=False)
        self._symbol = msgspec.json.Decoder(_Symbol, strict=False)
        self._past_trade_row = msgspec.json.Decoder(_PastTrade, strict=False)

    def decode_instruments(self, body: bytes) -> Rows[Instrument]:
        info = decode_rest(self._info, body, "binance exchangeInfo")
        if info.symbols is None:
            raise rest_refusal("binance exchangeInfo", info.code, info.msg)
        return read_rows(self._instrument, info.symbols, "binance exchangeInfo")

    def _instrument(self, row: msgspec.Raw) -> Instrument:
        symbol = self._symbol.decode(row)
        is_trading = symbol.status == TRADING and symbol.is_spot
        return Instrument(
            symbol.symbol, symbol.base, symbol.quote, is_trading, symbol.status, tick=_tick(symbol.filters)
        )

    def quote_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v3/ticker/bookTicker?symbol={quote(native, safe='')}", weight=2)

    def past_trades_request(self, native: str, number: int) -> RestRequest:
        path = f"/api/v3/historicalTrades?symbol={quote(native, safe='')}&fromId={number}"
        return RestRequest(
            f"{path}&limit={self.past_trades_max}", weight=25, headers=(("X-MBX-TIME-UNIT", "MICROSECOND"),)
        )

    def decode_past_trades(self, native: str, body: bytes) -> Rows[PastTrade]:
        rows: list[msgspec.Raw] = decode_rest(self._rows, body, "binance historicalTrades")
        return read_rows(self._past_trade, rows, "binance historicalTrades")

    def _past_trade(self, row: msgspec.Raw) -> PastTrade:
        r = self._past_trade_row.decode(row)
        time_ns = _time_ns(r.time)
        trade = str(r.number), r.price, r.size, SIDES.get(r.buyer_is_maker, UNKNOWN_SIDE)
        return PastTrade(numbered(r.number, time_ns), r.number, time_ns, r.number, trade)

    def base_request(self, native: str) -> RestRequest:
        return RestRequest(
            f"/api/v3/depth?symbol={quote(native, safe='')}&limit={self.base_levels}", weight=50
        )

    def base_at(self, url: str) -> tuple[str, int] | None:
        asked = parameters(url)
        if not BASE_PATH.fullmatch(urlsplit(url).path) or "symbol" not in asked:
            return None
        limit = asked.get("limit", "")
        return asked["symbol"], int(limit) if limit.isdecimal() else BASE_LIMIT

    def stated_quote(self, payload: bytes) -> StatedQuote | None:
        try:
            event = self._decode(payload).data or self._decode_other(payload)
        except UNDECODABLE:
            return None  # changes, or what `decode` refuses as well
        if event.symbol and not event.event and event.update_id:
            quote = (event.bid or NAN, event.bid_size, event.ask or NAN, event.ask_size)
            return StatedQuote(event.symbol, event.update_id, quote)
        if event.last_update_id and event.bids is not None and event.asks is not None:
            native = self.topic_of(payload[:HEAD_SIZE]).partition("@")[0].upper()
            best = [levels[0] if levels else (NAN, 0.0) for levels in (event.bids, event.asks)]
            return StatedQuote(native, event.last_update_id, (*best[0], *best[1])) if native else None
        return None

    def add(self, natives: Iterable[str], base_flags: int, kind: str = TICKER.name) -> list[State]:
        self._has_others = self._has_others or kind != TICKER.name
        return super().add(natives, base_flags, kind)

    def endpoint(self, ws_url: str, handshake: bytes, connect_id: str) -> Endpoint:
        return Endpoint(f"{ws_url}/stream?timeUnit=MICROSECOND")

    def topics(self, native: str, kind: str) -> tuple[str, ...]:
        name = native.lower()
        if kind == TRADE.name:
            return (f"{name}@trade",)
        if kind == DEPTH.name:
            return (name + DEPTH_STREAM,)
        if kind == BOOK.name:
            return (name + BOOK_STREAM,)
        return (f"{name}@ticker", f"{name}@bookTicker")

    def decode(
        self, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit
    ) -> Control | None:
        # hot: `make bench-micro`, decode. Two decoders: the wrapped form alone costs 18 % less than any form.
        # Other kinds are known by their stream: to look costs 0.2 us, to decode them in vain 0.7.
        if self._has_others and self._take_other(payload, recv_ns, line, emit):
            return None
        frame: _Frame | None = None
        try:
            event = self._decode(payload).data
            if event is None:
                event = frame = self._decode_other(payload)
        except UNDECODABLE as exc:
            if self._take_changes(payload, recv_ns, line, emit, is_combined=False):
                return None
            event = frame = decode_sparse(self._decode_sparse, payload, f"binance: {exc}")
        kind = event.event
        if not kind and event.symbol:
            self._book_ticker(event, recv_ns, line, emit)
            return None
        if kind == "24hrTicker":
            self._ticker(self._statistics(payload) if frame is None else frame, recv_ns, line, emit)
            return None
        if kind == "trade":
            try:
                trade = self._decode_trade(payload).data if frame is None else self._decode_raw_trade(payload)
            except UNDECODABLE as exc:
                raise DecodeError(f"binance: trade: {exc}") from exc
            self._trade(trade, recv_ns, line, emit)
            return None
        if kind == "serverShutdown":
            return Goodbye("serverShutdown announced")
        if kind == "depthUpdate" and (not event.symbol or event.symbol in self.states[BOOK.name]):
            raise DecodeError("binance: changes of a book that cannot be read")
        if kind:
            return None  # an event that we did not request
        if event.bids is not None or event.asks is not None:
            self._depth(event, payload, recv_ns, line, emit)
            return None
        if frame is None:
            raise DecodeError("binance: message of no known kind")
        return self._answer(frame)

    def _take_other(
        self, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit
    ) -> bool:
        """Take a message whose stream is of another kind than tickers; False if it is none, or cannot be read."""
        head = bytes(payload[:HEAD_SIZE])
        at = head.find(b"@")
        if head.startswith(BOOK_MARK, at):
            return self._take_changes(payload, recv_ns, line, emit)
        if head.startswith(TRADE_MARK, at):
            return self._take_trade(payload, recv_ns, line, emit)
        if head.startswith(DEPTH_MARK, at) and head.startswith(HEAD):
            return self._take_depth(payload, head[len(HEAD) : at], recv_ns, line, emit)
        return False

    def _decode_sparse(self, payload: bytes) -> "_Frame":
        """Decode a message of either form; its own data stand for the wrapped ones."""
        data = bytes(self._decode_wrapped(payload).data)
        return self._decode_other(payload if data == b"null" else data)

    def _book_ticker(self, event: _Event, recv_ns: int, line: Line, emit: Emit) -> None:
        bid, bid_size, ask, ask_size = event.bid, event.bid_size, event.ask, event.ask_size
        # A missing number is NaN, and so is its sum; no other number can be.
        if not bid + bid_size + ask + ask_size >= 0.0 and not (bid >= 0.0 or ask >= 0.0):
            raise DecodeError(f"binance: message about {event.symbol} has neither bid nor ask")
        state = self.tickers.get(event.symbol)
        if state is None or not state.accept(QUOTE, line, event.update_id, recv_ns):
            return
        state.exchange_sequence = event.update_id
        state.exchange_ns = 0
        state.set_quote(bid, bid_size, ask, ask_size)
        state.on_news(recv_ns)
        emit(state)

    def _statistics(self, payload: bytes | bytearray | memoryview) -> _Statistics:
        try:
            return self._decode_statistics(payload).data
        except UNDECODABLE as exc:
            return decode_sparse(self._decode_sparse, payload, f"binance: {exc}")

    def _ticker(self, event: _Statistics, recv_ns: int, line: Line, emit: Emit) -> None:
        values = event.last + event.open + event.high + event.low + event.base_volume + event.quote_volume
        if not event.symbol:
            raise DecodeError("binance: 24hrTicker lacks its symbol")
        if not values >= 0.0 and not _is_any_known(event):
            raise DecodeError("binance: 24hrTicker lacks every number")
        state = self.tickers.get(event.symbol)
        time_ns = _time_ns(event.time)
        if state is None or not state.accept(STATISTICS, line, time_ns, recv_ns, True):
            return
        state.exchange_ns = time_ns
        state.last = event.last or NAN
        state.set_statistics(event.open, event.high, event.low, event.base_volume, event.quote_volume)
        if event.bid >= 0.0 or event.ask >= 0.0:
            state.fill_quote(event.bid, event.bid_size, event.ask, event.ask_size)
        state.on_news(recv_ns)
        emit(state)

    def _take_trade(
        self, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit
    ) -> bool:
        """Take a trade; False if it is another message, or cannot be read."""
        try:
            trade = self._decode_trade(payload).data
        except UNDECODABLE:
            return False
        self._trade(trade, recv_ns, line, emit)
        return True

    def _trade(self, trade: _Trade, recv_ns: int, line: Line, emit: Emit) -> None:
        number, time_ns = trade.number, _time_ns(trade.time)
        state = self.states[TRADE.name].get(trade.symbol)
        if state is None or not state.accept_trade(line, numbered(number, time_ns), time_ns, recv_ns, number):
            return
        side = SIDES.get(trade.buyer_is_maker, UNKNOWN_SIDE)
        made = str(number), trade.price, trade.size, side
        state.publish(made, time_ns, recv_ns, emit, sequence=number, flags=LAST)

    def _take_changes(
        self,
        payload: bytes | bytearray | memoryview,
        recv_ns: int,
        line: Line,
        emit: Emit,
        *,
        is_combined: bool = True,
    ) -> bool:
        """Take changes of a book; False if it is another message, or cannot be read. is_combined: or unwrapped."""
        try:
            changes = self._decode_changes(payload).data
        except UNDECODABLE:
            if is_combined:
                return False
            try:
                changes = self._decode_raw_changes(payload)
            except UNDECODABLE:
                return False
        first_id, last_id = changes.first_id, changes.last_id
        if changes.event != "depthUpdate" or first_id > last_id:
            return False
        try:
            bids, asks = read_levels(changes.bids), read_levels(changes.asks)
        except UNDECODABLE:
            return False
        state: FullBookState | None = self.states[BOOK.name].get(changes.symbol)
        if state is not None:
            taken = Changes(first_id, last_id, bids, asks, _time_ns(changes.time))
            state.take(line, taken, last_id, recv_ns, emit)
        return True

    def _take_depth(
        self, payload: bytes | bytearray | memoryview, native: bytes, recv_ns: int, line: Line, emit: Emit
    ) -> bool:
        """Take depth of a symbol, as its stream names it; False if it is another message, or cannot be read."""
        try:
            depth = self._decode_depth(payload).data
            bids, asks = read_levels(depth.bids), read_levels(depth.asks)
        except UNDECODABLE:
            return False
        if depth.event or depth.symbol or not depth.last_update_id or b"\\" in native:
            return False
        self._set_depth(
            native.decode(errors="replace"), depth.last_update_id, bids, asks, recv_ns, line, emit
        )
        return True

    def _depth(
        self,
        event: _Event,
        payload: bytes | bytearray | memoryview,
        recv_ns: int,
        line: Line,
        emit: Emit,
    ) -> None:
        if event.bids is None or event.asks is None or not event.last_update_id:
            raise DecodeError("binance: depth lacks a side, or its id")
        stream = self.topic_of(bytes(payload[:HEAD_SIZE])) or self._stream(payload)
        native = stream.removesuffix(DEPTH_STREAM)
        if native == stream:
            return  # other levels, that we did not request
        bids, asks = pack_levels(event.bids), pack_levels(event.asks)
        self._set_depth(native, event.last_update_id, bids, asks, recv_ns, line, emit)

    def _set_depth(
        self, native: str, update_id: int, bids: bytes, asks: bytes, recv_ns: int, line: Line, emit: Emit
    ) -> None:
        state = self.states[DEPTH.name].get(native.upper())
        if state is None or not state.accept(0, line, update_id, recv_ns):
            return
        state.exchange_sequence = update_id
        if state.replace(bids, asks, recv_ns):
            emit(state)

    def _stream(self, payload: bytes | bytearray | memoryview) -> str:
        """Return the stream of a message that does not begin with it. Raises DecodeError if it names none."""
        try:
            stream = self._decode_wrapped(payload).stream
        except UNDECODABLE as exc:
            raise DecodeError(f"binance: {exc}") from exc
        if not stream:
            raise DecodeError("binance: depth of no stream")
        return stream


# Of 2400 a minute a feed has 80 for what it polls: 500 symbols take six minutes.
OPEN_INTEREST: Final = Poll(fields=("open_interest",), every_s=60.0, lasts_s=900.0, is_single=True)
# The list has what is not 8 h, and some that is. It shares 500 requests in 5 min with the history of funding.
INTERVALS: Final = Poll(
    fields=("funding_interval_h",),
    every_s=3600.0,
    lasts_s=4 * 3600.0,
    request=RestRequest("/fapi/v1/fundingInfo"),
    absent={"funding_interval_h": 8.0},
)


class BinanceLinear(BinanceMarket):
    """Perpetuals that are settled in what they are quoted in ("USD-M")."""

    name = "linear"
    kinds = (TICKER.name, TRADE.name, DEPTH.name, BOOK.name, CONTRACT.name, LIQUIDATION.name)
    capabilities = {
        TICKER.name: Capability(
            ("@ticker", "@bookTicker"),
            "statistics each 2 s, the quote with each change",
            "nothing: ids of quotes ascend and jump; a silent channel is held against REST",
            "that a symbol exists: any is acknowledged, and silent",
        ),
        TRADE.name: Capability(
            ("@aggTrade",),
            "each 100 ms, trades of one price and side as one, with their count",
            "numbers are consecutive; what is missing is fetched over REST",
            "that the newest has come, until the next one has",
            left_out="trades of the insurance fund and of ADL",
        ),
        DEPTH.name: Capability(
            (DEPTH_STREAM,),
            "each 100 ms",
            "nothing: each message is whole",
            "what was between two messages",
        ),
        BOOK.name: Capability(
            (BOOK_STREAM,),
            "each 100 ms, after a base over REST",
            "a message names the one before it",
            "levels beyond the 1,000 a side of the base, until they change; there is no checksum",
        ),
        CONTRACT.name: Capability(
            (MARK_STREAM,),
            "mark, index, funding rate and time each second; over REST open interest, each minute or as the limit"
            " permits, and the interval each hour",
            "nothing: the newest record replaces all before it",
            "open interest is up to 15 minutes old, and unknown after that: no channel has it; there is no"
            " predicted rate",
        ),
        LIQUIDATION.name: Capability(
            ("@forceOrder",),
            "each second",
            "nothing: they have no ids, and are incomplete by design",
            "how many there were; the price is that of the order, not of a fill",
            left_out="all but the newest a second and symbol",
        ),
    }
    ws_url = "wss://fstream.binance.com"
    rest_url = "https://fapi.binance.com"
    instruments_request = RestRequest("/fapi/v1/exchangeInfo")
    time_request = RestRequest("/fapi/v1/time")
    survey_requests = (
        RestRequest("/fapi/v1/ticker/bookTicker", weight=5),
        RestRequest("/fapi/v1/ticker/24hr", weight=40),
    )
    polls = (OPEN_INTEREST, INTERVALS)
    trade_ids_are_consecutive = True
    past_trades_max = 1000
    base_levels = 1000
    book_rule = ChainRule(is_linked=True)
    rest_limit = (2400, 60.0)
    rest_header = USED_WEIGHT
    rest_budget = "linear"  # counted for each host
    connect_budget = "linear"
    canary = "BTC/USDT:USDT"
    paths = (PUBLIC, MARKET)
    quote_assets = ("USDT", "USDC")
    addresses = re.compile(r"\w+://(fstream|fapi|demo-fstream|demo-fapi)\.binance\.com\b")
    command_interval_s = 0.15  # at most 10 messages a second, pongs included
    clocked = frozenset({(TICKER.name, STATISTICS), (CONTRACT.name, 0)})
    repeats_s = {(CONTRACT.name, 0): 1.0}
    pong_timeout_s = 15.0  # the server pings every 3 min

    def __init__(self) -> None:
        super().__init__()
        self._decode = msgspec.json.Decoder(_LinearFrame, strict=False).decode
        self._decode_name = msgspec.json.Decoder(_CombinedName).decode
        self._info = msgspec.json.Decoder(_ExchangeInfo, strict=False)
        self._contract = msgspec.json.Decoder(_Contract, strict=False)
        self._past_trade_row = msgspec.json.Decoder(_PastMerged, strict=False)
        self._open_interest = msgspec.json.Decoder(_OpenInterest, strict=False)
        self._funding_info = msgspec.json.Decoder(_FundingInfo, strict=False)

    def decode_instruments(self, body: bytes) -> Rows[Instrument]:
        info = decode_rest(self._info, body, "binance exchangeInfo")
        if info.symbols is None:
            raise rest_refusal("binance exchangeInfo", info.code, info.msg)
        found = read_rows(self._instrument, info.symbols, "binance exchangeInfo")
        return Rows([each for each in found.items if each.settle], found.problem)

    def _instrument(self, row: msgspec.Raw) -> Instrument:
        """Return a perpetual; what is no such thing has no settle asset, and is left out."""
        found = self._contract.decode(row)
        return Instrument(
            found.symbol,
            found.base,
            found.quote,
            found.status == TRADING,
            found.status,
            tick=_tick(found.filters),
            settle=found.settle if found.type in PERPETUAL else "",
        )

    def spelled(self, native: str) -> Instrument | None:
        found = super().spelled(native)
        return msgspec.structs.replace(found, settle=found.quote) if found is not None else None

    # --- REST

    def quote_request(self, native: str) -> RestRequest:
        return RestRequest(f"/fapi/v1/ticker/bookTicker?symbol={quote(native, safe='')}", weight=2)

    def past_trades_request(self, native: str, number: int) -> RestRequest:
        path = f"/fapi/v1/aggTrades?symbol={quote(native, safe='')}&fromId={number}"
        return RestRequest(f"{path}&limit={self.past_trades_max}", weight=20)

    def decode_past_trades(self, native: str, body: bytes) -> Rows[PastTrade]:
        rows: list[msgspec.Raw] = decode_rest(self._rows, body, "binance aggTrades")
        return read_rows(self._past_trade, rows, "binance aggTrades")

    def _past_trade(self, row: msgspec.Raw) -> PastTrade:
        r = self._past_trade_row.decode(row)
        time_ns = r.time * NS_PER_MS
        key = numbered(r.number, time_ns)
        return PastTrade(key, r.number, time_ns, r.number, r.trade(), count=r.count())

    def base_request(self, native: str) -> RestRequest:
        path = f"{LINEAR_BASE_PATH}?symbol={quote(native, safe='')}&limit={self.base_levels}"
        return RestRequest(path, weight=20)

    def base_at(self, url: str) -> tuple[str, int] | None:
        asked = parameters(url)
        if urlsplit(url).path != LINEAR_BASE_PATH or "symbol" not in asked:
            return None
        limit = asked.get("limit", "")
        return asked["symbol"], int(limit) if limit.isdecimal() else LINEAR_BASE_LIMIT

    def poll_request(self, poll: Poll, native: str) -> RestRequest:
        return RestRequest(f"/fapi/v1/openInterest?symbol={quote(native, safe='')}")

    def decode_poll(self, poll: Poll, body: bytes, recv_ns: int) -> Rows[PolledContract]:
        if poll is OPEN_INTEREST:
            found = decode_rest(self._open_interest, body, "binance openInterest")
            if found.amount is None:
                raise rest_refusal("binance openInterest", found.code, found.msg)
            return Rows([PolledContract(found.symbol, {"open_interest": found.amount})])
        rows: list[msgspec.Raw] = decode_rest(self._rows, body, "binance fundingInfo")
        return read_rows(self._interval, rows, "binance fundingInfo")

    def _interval(self, row: msgspec.Raw) -> PolledContract:
        found = self._funding_info.decode(row)
        return PolledContract(found.symbol, {"funding_interval_h": found.interval_h})

    def stated_quote(self, payload: bytes) -> StatedQuote | None:
        try:
            data = self._decode(payload).data
        except UNDECODABLE:
            return None  # what `decode` refuses as well
        if not isinstance(data, _LinearQuote):
            return None
        return StatedQuote(
            data.symbol, data.update_id, (data.bid or NAN, data.bid_size, data.ask or NAN, data.ask_size)
        )

    # --- frames

    def endpoint(self, ws_url: str, handshake: bytes, connect_id: str) -> Endpoint:
        return Endpoint(f"{ws_url}/stream")

    def path_of(self, topic: str) -> str:
        return PATHS[topic[topic.index("@") :]]

    def canary_topics(self, native: str) -> tuple[str, ...]:
        return self.quote_topic(native), *self.topics(native, CONTRACT.name)

    def topics(self, native: str, kind: str) -> tuple[str, ...]:
        name = native.lower()
        if kind == TRADE.name:
            return (f"{name}@aggTrade",)
        if kind == DEPTH.name:
            return (name + DEPTH_STREAM,)
        if kind == BOOK.name:
            return (name + BOOK_STREAM,)
        if kind == CONTRACT.name:
            return (name + MARK_STREAM,)
        if kind == LIQUIDATION.name:
            return (f"{name}@forceOrder",)
        return (f"{name}@ticker", f"{name}@bookTicker")

    def decode(
        self, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit
    ) -> Control | None:
        # hot: the kinds of messages are told apart while they are decoded
        try:
            frame = self._decode(payload)
        except UNDECODABLE as exc:
            if self._is_of_others(payload):
                return None
            frame = decode_sparse(self._decode, payload, f"binance: {exc}")
        data = frame.data
        if isinstance(data, _LinearQuote):
            self._take_quote(data, recv_ns, line, emit)
        elif isinstance(data, _LinearChanges):
            self._take_changes(frame.stream, data, recv_ns, line, emit)
        elif isinstance(data, _MergedTrade):
            self._take_trade(data, recv_ns, line, emit)
        elif isinstance(data, _MarkPrice):
            self._take_contract(data, recv_ns, line, emit)
        elif isinstance(data, _LinearTicker):
            self._take_ticker(data, recv_ns, line, emit)
        elif isinstance(data, _Liquidated):
            self._take_liquidation(data.order, recv_ns, line, emit)
        elif frame.stream or frame.result is not msgspec.UNSET or frame.error or frame.code is not None:
            return self._answer(frame)
        else:  # bare, as on a connection of one stream: a capture may have it
            return self.decode(b'{"stream":"%b","data":%b}' % (BARE, bytes(payload)), recv_ns, line, emit)
        return None

    def _is_of_others(self, payload: bytes | bytearray | memoryview) -> bool:
        """True for a message of an event that was not requested."""
        try:
            event = self._decode_name(payload).data.event
        except UNDECODABLE:
            return False
        return bool(event) and event not in EVENTS

    def _take_quote(self, data: _LinearQuote, recv_ns: int, line: Line, emit: Emit) -> None:
        if not (data.bid >= 0.0 or data.ask >= 0.0):
            raise DecodeError(f"binance: bookTicker of {data.symbol} has neither bid nor ask")
        state = self.tickers.get(data.symbol)
        if state is None or not state.accept(QUOTE, line, data.update_id, recv_ns):
            return
        state.exchange_sequence, state.exchange_ns = data.update_id, data.time * NS_PER_MS
        state.set_quote(data.bid or NAN, data.bid_size, data.ask or NAN, data.ask_size)
        state.on_news(recv_ns)
        emit(state)

    def _take_ticker(self, data: _LinearTicker, recv_ns: int, line: Line, emit: Emit) -> None:
        numbers = (data.last, data.open, data.high, data.low, data.base_volume, data.quote_volume)
        if not any(number >= 0.0 for number in numbers):
            raise DecodeError("binance: 24hrTicker lacks every number")
        state = self.tickers.get(data.symbol)
        time_ns = data.time * NS_PER_MS
        if state is None or not state.accept(STATISTICS, line, time_ns, recv_ns, True):
            return
        state.exchange_ns = time_ns
        state.last = data.last or NAN
        state.set_statistics(data.open, data.high, data.low, data.base_volume, data.quote_volume)
        state.on_news(recv_ns)
        emit(state)

    def _take_trade(self, data: _MergedTrade, recv_ns: int, line: Line, emit: Emit) -> None:
        number, time_ns = data.number, data.time * NS_PER_MS
        count = data.count()
        state: TradeState | None = self.states[TRADE.name].get(data.symbol)
        if state is None or not state.accept_trade(line, numbered(number, time_ns), time_ns, recv_ns, number):
            return
        state.publish(data.trade(), time_ns, recv_ns, emit, sequence=number, count=count, flags=LAST)

    def _take_changes(self, stream: str, data: _LinearChanges, recv_ns: int, line: Line, emit: Emit) -> None:
        if data.first_id > data.last_id or data.before_id > data.last_id:
            raise DecodeError("binance: depthUpdate ends before it begins")
        try:
            bids, asks = read_levels(data.bids), read_levels(data.asks)
        except UNDECODABLE as exc:
            raise DecodeError(f"binance: depthUpdate: {exc}") from exc
        time_ns = data.time * NS_PER_MS
        if stream.endswith(BOOK_STREAM):
            book: FullBookState | None = self.states[BOOK.name].get(data.symbol)
            if book is not None:
                # The ids between an event's `pu` and its U are of no change of this book.
                changes = Changes(data.before_id + 1, data.last_id, bids, asks, time_ns)
                book.take(line, changes, data.last_id, recv_ns, emit)
            return
        if not stream.endswith(DEPTH_STREAM):
            if stream in ("", BARE.decode()):  # it may be either
                raise DecodeError("binance: depthUpdate of no stream")
            return  # other levels, that we did not request
        state = self.states[DEPTH.name].get(data.symbol)
        if state is None or not state.accept(0, line, data.last_id, recv_ns):
            return
        state.exchange_sequence, state.exchange_ns = data.last_id, time_ns
        if state.replace(bids, asks, recv_ns):
            emit(state)

    def _take_contract(self, data: _MarkPrice, recv_ns: int, line: Line, emit: Emit) -> None:
        if not (data.mark >= 0.0 or data.index >= 0.0 or data.funding_rate == data.funding_rate):
            raise DecodeError("binance: markPriceUpdate lacks every number")
        state: ContractState | None = self.states[CONTRACT.name].get(data.symbol)
        time_ns = data.time * NS_PER_MS
        if state is None or not state.accept(0, line, time_ns, recv_ns, True):
            return
        state.exchange_ns = time_ns
        state.mark, state.index = data.mark or NAN, data.index or NAN
        state.funding_rate, state.next_funding_ns = data.funding_rate, data.next_funding * NS_PER_MS
        if state.update(recv_ns):
            emit(state)

    def _take_liquidation(self, order: _ForcedOrder, recv_ns: int, line: Line, emit: Emit) -> None:
        state: TradeState | None = self.states[LIQUIDATION.name].get(order.symbol)
        time_ns = order.time * NS_PER_MS
        key = order.time, order.side, order.price, order.size
        if state is None or not state.accept_trade(line, key, time_ns, recv_ns):
            return
        made = "", order.price, order.size, ORDER_SIDES.get(order.side, UNKNOWN_SIDE)
        state.publish(made, time_ns, recv_ns, emit, flags=LAST)


BINANCE: Final = Exchange("binance", (BinanceSpot, BinanceLinear))


def _tick(filters: Any) -> str:
    """Return the step between prices, "" if the list does not state it."""
    for each in filters if isinstance(filters, list) else ():
        if isinstance(each, dict) and each.get("filterType") == "PRICE_FILTER":
            return price_tick(each.get("tickSize"))
    return ""


def _is_any_known(event: _Statistics) -> bool:
    numbers = (event.last, event.open, event.high, event.low, event.base_volume, event.quote_volume)
    return any(number >= 0.0 for number in (*numbers, event.bid, event.ask))


def _time_ns(time: int) -> int:
    """Return a time of either unit in Unix ns. Raises DecodeError for one that no record can carry."""
    time_ns = time * (1000 if time > MICROSECONDS_ABOVE else 1_000_000)
    if time_ns > TIME_NS_MAX:
        raise DecodeError(f"binance: the time {time} is of the year {1970 + time_ns // NS_PER_YEAR}")
    return time_ns
