"""KuCoin, classic API, spot and linear perpetuals.

Spot: `/market/snapshot` for 24 h statistics, `/market/ticker` for the last price, `/spotMarket/level1` for the
quote, `/market/match` for trades, `/spotMarket/level2Depth50` for depth and `/market/level2` for books. Perpetuals:
`/contractMarket/snapshot`, `execution` (trades, and the last price), `tickerV2` (the quote), `level2Depth50` and
`level2` of the same, and `/contract/instrument` for mark, index and funding. There is no channel of liquidations.

Everything peculiar to KuCoin is here. Update ids of spot: `sequence` of ticker, `timestamp` of
level1 and level2Depth50, `datetime` of snapshot. Only the classic socket has 24 h statistics; all three channels
together are as fast as it gets: 2 s, 100 ms and 10 ms. Quirks worth knowing:

- each connection needs a new token (`POST /api/v1/bullet-public`), whose answer also names the socket;
- commands only after the `welcome`; the client pings, in JSON, every `pingInterval` of the token answer,
  or is cut off after about 60 s even while data flow;
- an unknown symbol is acknowledged and then silent for ever; `/market/snapshot` is documented for one symbol;
- level1 and level2Depth50 have no symbol in their data: it is in the topic; a side without orders is an empty list;
- level2 has changes since a book over REST (100 levels a side are to be had without a signature), which may be
  seconds old. A message covers several sequences, each level has its own, and price 0 is a change of no level;
- level2Depth50 is whole each time, and the same may come twice;
- snapshot numbers are JSON numbers with long tails, and can be null for a new symbol;
- trades' numbers (`sequence`) pass 2^53, and skip some, which are others' of the same count: nothing is missing
  because a number is. `time` of a trade is a text of nanoseconds, that of the last price is milliseconds;
- `symbol` is permanent, `name` follows a rename: we subscribe with the one and publish the other; accounts have the
  asset's code, `baseCurrency`;
- a symbol in its call auction takes orders, and has neither trades nor quotes until it opens.

And those of perpetuals:

- sizes are numbers of contracts, of which each is `multiplier` of the base asset, as only the list of instruments
  says; 24 h volumes are in the base asset. An inverse contract (multiplier -1) is 1 USD, however much that is;
- BTC is called XBT;
- `sequence` of tickerV2, level2 and level2Depth50 is the book's, that of execution the trades';
- level2 has one change a message, a text of price, side and size, and its sequences follow each other. The book
  over REST is whole. level2Depth50 has prices as texts and sizes as numbers;
- times are in ns (`ts` of tickerV2, execution and snapshot) or ms (`timestamp`);
- `funding.rate` of instrument comes each minute with what is predicted (granularity of a minute), and with what is
  due where granularity is the interval. When it is due, and open interest, no channel says: the list of contracts
  does, and one contract's own row, which are asked for each minute;
- dated futures are in the same list, and have no place here yet: they are left out.

Source: https://www.kucoin.com/docs-new/websocket-api/base-info/introduction, the public spot and futures pages, and
https://github.com/Kucoin/kucoin-universal-sdk, as of 2026-11. Frames: tests/frames/kucoin/, kucoin_linear/
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final, Generic
from urllib.parse import quote, urlsplit

import msgspec

from feedhandler.data.book import BOOK
from feedhandler.data.contract import CONTRACT
from feedhandler.data.depth import DEPTH, BookLevel
from feedhandler.data.errors import UNDECODABLE, DecodeError, ProtocolError
from feedhandler.data.instruments import SPOT, Instrument, contract_size, price_tick
from feedhandler.data.levels import LEVELS_MAX, Amount, pack_levels
from feedhandler.data.rest import LimitHeader, RestRequest
from feedhandler.data.ticker import TICKER as TICKER_KIND
from feedhandler.data.trade import TRADE, UNKNOWN_SIDE, Side
from feedhandler.data.units import MS_PER_HOUR, NS_PER_MINUTE, NS_PER_MS
from feedhandler.data.wire import LAST as LAST_FLAG
from feedhandler.data.wire import NAN
from feedhandler.exchanges.arbitration import Arbitration, Line
from feedhandler.exchanges.base import (
    MILLISECONDS_MAX,
    NO_ORDERS,
    PONG,
    WELCOME,
    Ack,
    Capability,
    ContractSize,
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
    T,
    Traded,
    UpdateId,
    chunks,
    decode_rest,
    decode_sparse,
    in_base_asset,
    newest_time,
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
from feedhandler.exchanges.state import LAST, QUOTE, STATISTICS, State
from feedhandler.exchanges.trades import PastTrade, is_id, numbered

TOPICS_PER_CONNECTION: Final = 300  # the rate-limit page says 400, the server enforces 300
SYMBOLS_PER_COMMAND: Final = 100

SNAPSHOT: Final = "/market/snapshot:"
TICKER: Final = "/market/ticker:"
LEVEL1: Final = "/spotMarket/level1:"
MATCH: Final = "/market/match:"
SIDES: Final = {"buy": Side.BUY, "sell": Side.SELL}  # the taker's
LEVEL2: Final = "/market/level2:"
LEVEL2_SIZE: Final = len(LEVEL2)
DEPTH50: Final = "/spotMarket/level2Depth50:"
DEPTH50_SIZE: Final = len(DEPTH50)
BASE_PATH: Final = re.compile(r"/api/v\d/market/orderbook/level2(?:_(\d+))?")

STATISTICS_OF_CONTRACT: Final = "/contractMarket/snapshot:"
TICKER_V2: Final = "/contractMarket/tickerV2:"
EXECUTION: Final = "/contractMarket/execution:"
CONTRACT_LEVEL2: Final = "/contractMarket/level2:"
CONTRACT_DEPTH50: Final = "/contractMarket/level2Depth50:"
INSTRUMENT: Final = "/contract/instrument:"
CONTRACT_BASE_PATH: Final = re.compile(r"/api/v1/level2/(?:snapshot|depth(\d+))")

PERPETUAL: Final = "FFWCSX"  # the type of a contract; others are dated
OPEN: Final = "Open"
ASSETS: Final = {"XBT": "BTC"}  # what others call assets that are called otherwise here
INVERSE: Final = "inverse: its sizes are in USD, and what that is of the base asset changes with the price"
PREDICTED_MS: Final = 60_000  # granularity of a funding rate that is predicted; else it is the interval

Left = Annotated[int, msgspec.Meta(ge=0, le=366 * 24 * MS_PER_HOUR)]  # ms until the next funding

CALL_AUCTION: Final = "in its call auction: neither trades nor quotes until it opens"

OK: Final = "200000"
UNKNOWN: Final = [NAN, NAN]  # price and size of a side of which nothing is stated

COMMAND_ID_SIZE_MAX: Final = 9  # we count from 1; a connection's id has 16 characters, and a time in ms 13

# Error codes of the socket that end the connection; any other refuses a command.
TOKEN_INVALID: Final = 401
PING_TIMEOUT: Final = "ping timeout"
SERVER_ERROR: Final = 500
# Texts of code 509 that a little patience cures, as opposed to the limits on topics.
TRANSIENT: Final = ("permits per second", "service is busy")


class _Statistics(msgspec.Struct, gc=False):
    """Inner data of `/market/snapshot`. Null or absent: not known, as for a symbol just listed."""

    last: Amount | None = msgspec.field(name="lastTradedPrice", default=None)
    bid: Amount | None = msgspec.field(name="buy", default=None)
    bid_size: Amount | None = msgspec.field(name="bidSize", default=None)
    ask: Amount | None = msgspec.field(name="sell", default=None)
    ask_size: Amount | None = msgspec.field(name="askSize", default=None)
    open: Amount | None = None
    high: Amount | None = None
    low: Amount | None = None
    base_volume: Amount | None = msgspec.field(name="vol", default=None)
    quote_volume: Amount | None = msgspec.field(name="volValue", default=None)
    time: Milliseconds = msgspec.field(name="datetime", default=0)
    symbol: str = ""


class _Data(msgspec.Struct, gc=False):
    """Data of all channels; what one of them lacks stays at its default."""

    sequence: UpdateId = 0
    price: Amount | None = None
    bid: Amount | None = msgspec.field(name="bestBid", default=None)
    bid_size: Amount | None = msgspec.field(name="bestBidSize", default=None)
    ask: Amount | None = msgspec.field(name="bestAsk", default=None)
    ask_size: Amount | None = msgspec.field(name="bestAskSize", default=None)
    time: UpdateId = 0  # of a ticker in ms, of a trade in ns
    time_as_in_spec: Milliseconds = msgspec.field(name="Time", default=0)
    statistics: _Statistics | None = msgspec.field(name="data", default=None)
    bids: list[Amount] | None = None  # flat: [price, size]
    asks: list[Amount] | None = None
    timestamp: Milliseconds = 0
    side: str = ""
    size: Amount | None = None
    trade_id: str = msgspec.field(name="tradeId", default="")


class _Sides(msgspec.Struct, gc=False):
    """Data of level2Depth50, whose sides are lists of levels."""

    bids: list[tuple[Amount, Amount]]
    asks: list[tuple[Amount, Amount]]
    timestamp: Milliseconds


class _DepthFrame(msgspec.Struct, gc=False):
    type: str
    topic: str
    data: _Sides


class _Frame(msgspec.Struct, gc=False):
    """Any message. `data` is an object in messages and a text in errors."""

    type: str
    topic: str = ""
    subject: str = ""
    id: str | int = ""
    code: int = 0
    data: _Data | str | None = None


class _LevelChanges(msgspec.Struct, gc=False):
    asks: list[tuple[Amount, Amount, UpdateId]]
    bids: list[tuple[Amount, Amount, UpdateId]]


class _Changes(msgspec.Struct, gc=False):
    """Data of level2."""

    changes: _LevelChanges
    first_id: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)] = msgspec.field(name="sequenceStart")
    last_id: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)] = msgspec.field(name="sequenceEnd")
    time: Milliseconds = 0


class _ChangesFrame(msgspec.Struct, gc=False):
    data: _Changes


class _Base(msgspec.Struct):
    """Data of the answer to `base_request`."""

    last_id: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)] = msgspec.field(name="sequence")
    asks: list[tuple[Amount, Amount]] | None  # null is one that is empty
    bids: list[tuple[Amount, Amount]] | None
    time: Milliseconds = 0


class _AllTickers(msgspec.Struct):
    tickers: list[msgspec.Raw] = msgspec.field(name="ticker")


class _BulkRow(msgspec.Struct):
    """A row of allTickers. What is not known is null; the open price is left out, and follows from the change."""

    symbol: str
    bid: Amount | None = msgspec.field(name="buy", default=None)
    bid_size: Amount | None = msgspec.field(name="bestBidSize", default=None)
    ask: Amount | None = msgspec.field(name="sell", default=None)
    ask_size: Amount | None = msgspec.field(name="bestAskSize", default=None)
    last: Amount | None = None
    change: str | None = msgspec.field(name="changePrice", default=None)
    high: Amount | None = None
    low: Amount | None = None
    base_volume: Amount | None = msgspec.field(name="vol", default=None)
    quote_volume: Amount | None = msgspec.field(name="volValue", default=None)


class _PastTrade(msgspec.Struct):
    """A row of histories. It lacks the trade's id, which is its sequence."""

    sequence: UpdateId
    price: Traded
    size: Traded
    time_ns: UpdateId = msgspec.field(name="time")
    side: str = ""


class _LinearData(msgspec.Struct, gc=False):
    """Data of all channels of perpetuals; what one of them lacks stays at its default."""

    sequence: UpdateId = 0
    ts: UpdateId = 0  # ns
    timestamp: Milliseconds = 0
    bid: Amount | None = msgspec.field(name="bestBidPrice", default=None)
    bid_size: Amount | None = msgspec.field(name="bestBidSize", default=None)
    ask: Amount | None = msgspec.field(name="bestAskPrice", default=None)
    ask_size: Amount | None = msgspec.field(name="bestAskSize", default=None)
    price: Amount | None = None
    size: Amount | None = None
    side: str = ""
    trade_id: str = msgspec.field(name="tradeId", default="")
    last: Amount | None = msgspec.field(name="lastPrice", default=None)
    open: Amount | None = msgspec.field(name="price24HoursBefore", default=None)
    high: Amount | None = msgspec.field(name="highPrice", default=None)
    low: Amount | None = msgspec.field(name="lowPrice", default=None)
    base_volume: Amount | None = msgspec.field(name="volume", default=None)
    quote_volume: Amount | None = msgspec.field(name="turnover", default=None)
    bids: list[tuple[Amount, Amount]] | None = None
    asks: list[tuple[Amount, Amount]] | None = None
    change: str = ""
    mark: Amount | None = msgspec.field(name="markPrice", default=None)
    index: Amount | None = msgspec.field(name="indexPrice", default=None)
    funding_rate: FundingRate | None = msgspec.field(name="fundingRate", default=None)
    granularity: Milliseconds = 0
    symbol: str = ""  # of answers over REST; frames have it in their topic


class _LinearFrame(msgspec.Struct, gc=False):
    """Any message, as `_Frame`."""

    type: str
    topic: str = ""
    id: str | int = ""
    code: int = 0
    data: _LinearData | str | None = None


class _Contract(msgspec.Struct):
    """A row of the list of contracts: what it is, and its statistics."""

    symbol: str
    base: str = msgspec.field(name="baseCurrency")
    quote: str = msgspec.field(name="quoteCurrency")
    settle: str = msgspec.field(name="settleCurrency")
    status: str
    multiplier: Decimal
    type: str = PERPETUAL
    is_inverse: bool | None = msgspec.field(name="isInverse", default=None)
    tick: Any = msgspec.field(name="tickSize", default=None)


class _BulkContract(msgspec.Struct):
    """A row of one of both answers that have all contracts: allTickers, or contracts/active."""

    symbol: str
    bid: Amount | None = msgspec.field(name="bestBidPrice", default=None)
    bid_size: Amount | None = msgspec.field(name="bestBidSize", default=None)
    ask: Amount | None = msgspec.field(name="bestAskPrice", default=None)
    ask_size: Amount | None = msgspec.field(name="bestAskSize", default=None)
    price: Amount | None = None
    last: Amount | None = msgspec.field(name="lastTradePrice", default=None)
    change: Decimal | None = msgspec.field(name="priceChg", default=None)
    high: Amount | None = msgspec.field(name="highPrice", default=None)
    low: Amount | None = msgspec.field(name="lowPrice", default=None)
    base_volume: Amount | None = msgspec.field(name="volumeOf24h", default=None)
    quote_volume: Amount | None = msgspec.field(name="turnoverOf24h", default=None)


class _PolledRow(msgspec.Struct):
    """A row of contracts/active, or the only one of contracts/SYMBOL, for what no channel has."""

    symbol: str
    open_interest: Amount | None = msgspec.field(name="openInterest", default=None)  # in contracts
    due_ms: Milliseconds | None = msgspec.field(name="nextFundingRateDateTime", default=None)
    left_ms: Left | None = msgspec.field(name="nextFundingRateTime", default=None)
    funding_rate: FundingRate | None = msgspec.field(name="fundingFeeRate", default=None)
    granularity: Milliseconds | None = msgspec.field(name="fundingRateGranularity", default=None)


class _ContractBase(msgspec.Struct):
    """Data of the answer to the `base_request` of a perpetual."""

    symbol: str
    last_id: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)] = msgspec.field(name="sequence")
    asks: list[tuple[Amount, Amount]] | None
    bids: list[tuple[Amount, Amount]] | None
    time_ns: UpdateId = msgspec.field(name="ts", default=0)


class _Server(msgspec.Struct):
    endpoint: str
    ping_interval_ms: int = msgspec.field(name="pingInterval")
    ping_timeout_ms: int = msgspec.field(name="pingTimeout")


class Token(msgspec.Struct):
    token: str
    servers: list[_Server] = msgspec.field(name="instanceServers")


class _Symbol(msgspec.Struct):
    symbol: str
    base: str = msgspec.field(name="baseCurrency")
    quote: str = msgspec.field(name="quoteCurrency")
    is_trading: bool = msgspec.field(name="enableTrading")
    name: str = ""
    is_in_auction: bool | None = msgspec.field(name="callauctionIsEnabled", default=None)
    tick: Any = msgspec.field(name="priceIncrement", default=None)


class _Answer(msgspec.Struct, Generic[T]):
    """Any answer over REST. Without data, whatever the code says: nothing of that name."""

    code: str
    msg: str = ""
    data: T | None = None


class Command(msgspec.Struct, omit_defaults=True):
    id: str
    type: str
    topic: str = ""
    private_channel: bool | None = msgspec.field(name="privateChannel", default=None)
    response: bool | None = None


class KuCoinMarket(Market):
    """What the markets have in common: the token, commands, and how they are answered."""

    exchange = "kucoin"
    handshake_request = RestRequest("/api/v1/bullet-public", "POST", weight=10)
    # The Public pool: https://www.kucoin.com/docs-new/rate-limit, as of 2026-11.
    rest_limit = (2000, 30.0)
    rest_header = LimitHeader("gw-ratelimit-remaining", is_left=True)

    domains = ("kucoin.com",)

    topic_key = b"topic"
    base_lag_s = 5.0  # observed: up to some seconds
    topics_max = TOPICS_PER_CONNECTION - 1
    awaits_welcome = True
    command_interval_s = 0.15  # 100 messages in 10 s, pings included
    connects = (30, 60.0)
    ping_interval_s = 18.0  # the token answer's pingInterval is used where it is shorter

    channels: ClassVar[tuple[str, ...]]  # what topics begin with: one request has topics of one channel

    def __init__(self) -> None:
        super().__init__()
        self._handshakes = 0
        self._token = msgspec.json.Decoder(_Answer[Token], strict=False)
        self._time = msgspec.json.Decoder(_Answer[Milliseconds], strict=False)

    def decode_time(self, body: bytes) -> int:
        return _data_of(self._time, body, "kucoin timestamp") * NS_PER_MS

    def endpoint(self, ws_url: str, handshake: bytes, connect_id: str) -> Endpoint:
        token = _data_of(self._token, handshake, "kucoin token")
        if not token.servers:
            raise ProtocolError("kucoin token: the answer names no server")
        self._handshakes += 1
        server = token.servers[self._handshakes % len(token.servers)]  # the next one each time
        if urlsplit(server.endpoint).scheme not in ("ws", "wss"):
            raise ProtocolError(f"kucoin token: {server.endpoint!r} is no WebSocket address")
        if server.ping_interval_ms <= 0 or server.ping_timeout_ms <= 0:
            raise ProtocolError("kucoin token: pingInterval and pingTimeout must be positive")
        separator = "" if urlsplit(server.endpoint).path else "/"
        return Endpoint(
            f"{server.endpoint}{separator}?token={quote(token.token, safe='')}&connectId={connect_id}",
            min(self.ping_interval_s, server.ping_interval_ms / 1000),
            server.ping_timeout_ms / 1000,
        )

    def batches(self, topics: Sequence[str]) -> Iterator[tuple[str, ...]]:
        for channel in self.channels:
            yield from chunks([t for t in topics if t.startswith(channel)], SYMBOLS_PER_COMMAND)

    def subscribe(self, topics: Sequence[str], command_id: str) -> bytes:
        return _command("subscribe", topics, command_id)

    def unsubscribe(self, topics: Sequence[str], command_id: str) -> bytes:
        return _command("unsubscribe", topics, command_id)

    def requested(self, frame: bytes) -> tuple[bool, Sequence[str]] | None:
        return requested(frame, Command, _topics_of)

    def ping(self, command_id: str) -> bytes:
        return msgspec.json.encode(Command(command_id, "ping"))

    def _answer(self, frame: _Frame | _LinearFrame) -> Control | None:
        kind = frame.type
        if kind == "pong":
            return PONG
        if kind == "ack":
            return Ack(str(frame.id))
        if kind == "welcome":
            return WELCOME
        if kind != "error":
            raise DecodeError(f"kucoin: message of type {kind!r}")
        reason = f"{frame.data if isinstance(frame.data, str) else 'no reason given'} (code {frame.code})"
        if frame.code == TOKEN_INVALID or PING_TIMEOUT in reason:
            return Goodbye(reason)
        is_transient = frame.code == SERVER_ERROR or any(text in reason for text in TRANSIENT)
        # Errors come with the request's id, with the connection's, with one of theirs, or with none.
        command_id = str(frame.id)
        is_ours = command_id.isascii() and command_id.isdecimal() and len(command_id) <= COMMAND_ID_SIZE_MAX
        return Nack(command_id if is_ours else "", reason, is_transient=is_transient)


class KuCoinSpot(KuCoinMarket):
    name = SPOT
    kinds = (TICKER_KIND.name, TRADE.name, DEPTH.name, BOOK.name)
    capabilities = {
        TICKER_KIND.name: Capability(
            (SNAPSHOT, LEVEL1, TICKER),
            "statistics each 2 s, the quote each 10 ms, the last price each 100 ms",
            "nothing: sequences ascend and jump; a silent channel is held against REST",
            "that a symbol exists: any is acknowledged, and silent",
        ),
        TRADE.name: Capability(
            (MATCH,),
            "each trade, at once",
            "nothing: numbers ascend and skip others'; after a lost connection the newest 100 are fetched",
            "that none is missing",
        ),
        DEPTH.name: Capability(
            (DEPTH50,), "each 100 ms", "nothing: each message is whole", "what was between two messages"
        ),
        BOOK.name: Capability(
            (LEVEL2,),
            "each change, after a base over REST",
            "a message begins with the sequence that follows the last one's",
            "levels beyond the 100 a side of the base, until they change; there is no checksum",
        ),
    }
    ws_url = "wss://ws-api-spot.kucoin.com"  # for messages only: the token answer names the socket
    rest_url = "https://api.kucoin.com"
    instruments_request = RestRequest("/api/v2/symbols", weight=4)
    time_request = RestRequest("/api/v1/timestamp", weight=3)
    survey_requests = (RestRequest("/api/v1/market/allTickers", weight=15),)
    past_trades_max = 100
    book_rule = ChainRule(has_level_ids=True)
    base_levels = 100

    separator = "-"
    addresses = re.compile(r"\w+://(ws-api(-spot)?|push[\w-]*|api|openapi-v2)\.kucoin\.com\b")

    channels = (SNAPSHOT, LEVEL1, TICKER, MATCH, DEPTH50, LEVEL2)

    def __init__(self) -> None:
        super().__init__()
        self._decode = msgspec.json.Decoder(_Frame, strict=False).decode
        self._decode_depth = msgspec.json.Decoder(_DepthFrame, strict=False).decode
        self._decode_changes = msgspec.json.Decoder(_ChangesFrame, strict=False).decode
        self._base = msgspec.json.Decoder(_Answer[_Base], strict=False)
        self._symbols = msgspec.json.Decoder(_Answer[list[msgspec.Raw]], strict=False)
        self._symbol = msgspec.json.Decoder(_Symbol, strict=False)
        self._rest_quote = msgspec.json.Decoder(_Answer[_Data], strict=False)
        self._all_tickers = msgspec.json.Decoder(_Answer[_AllTickers], strict=False)
        self._histories = msgspec.json.Decoder(_Answer[list[msgspec.Raw]], strict=False)
        self._past_trade_row = msgspec.json.Decoder(_PastTrade, strict=False)
        self._bulk_row = msgspec.json.Decoder(_BulkRow, strict=False)

    def decode_instruments(self, body: bytes) -> Rows[Instrument]:
        rows = _data_of(self._symbols, body, "kucoin symbols")
        return read_rows(self._instrument, rows, "kucoin symbols")

    def _instrument(self, row: msgspec.Raw) -> Instrument:
        symbol = self._symbol.decode(row)
        base = _base(symbol)
        code = symbol.base if symbol.base != base else ""
        status, note = ("open" if symbol.is_trading else "closed"), ""
        if symbol.is_in_auction:
            status, note = "call auction", CALL_AUCTION if symbol.is_trading else ""
        tick = price_tick(symbol.tick)
        return Instrument(symbol.symbol, base, symbol.quote, symbol.is_trading, status, code, note, tick)

    def quote_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v1/market/orderbook/level1?symbol={quote(native, safe='')}", weight=2)

    def decode_quote(self, body: bytes) -> Quote:
        data = _data_of(self._rest_quote, body, "kucoin level1")
        if not data.time:
            raise DecodeError("kucoin level1: the answer is no quote")
        return rest_quote(data.bid, data.bid_size, data.ask, data.ask_size)

    def past_trades_request(self, native: str, number: int) -> RestRequest:
        return RestRequest(f"/api/v1/market/histories?symbol={quote(native, safe='')}", weight=3)

    def decode_past_trades(self, native: str, body: bytes) -> Rows[PastTrade]:
        rows = _data_of(self._histories, body, "kucoin histories")
        return read_rows(self._past_trade, rows, "kucoin histories")

    def _past_trade(self, row: msgspec.Raw) -> PastTrade:
        r = self._past_trade_row.decode(row)
        trade = str(r.sequence), r.price, r.size, SIDES.get(r.side, UNKNOWN_SIDE)
        return PastTrade(numbered(r.sequence, r.time_ns), r.sequence, r.time_ns, r.sequence, trade)

    def base_request(self, native: str) -> RestRequest:
        path = "/api/v1/market/orderbook/level2_100"
        return RestRequest(f"{path}?symbol={quote(native, safe='')}", weight=4)

    def decode_base(self, native: str, body: bytes) -> Base:
        found = _data_of(self._base, body, "kucoin level2_100")
        return Base(
            found.last_id, found.bids or (), found.asks or (), self.base_levels, found.time * NS_PER_MS
        )

    def base_at(self, url: str) -> tuple[str, int] | None:
        found, asked = BASE_PATH.fullmatch(urlsplit(url).path), parameters(url)
        return (asked["symbol"], int(found[1] or 0)) if found and "symbol" in asked else None

    def stated_quote(self, payload: bytes) -> StatedQuote | None:
        try:
            frame = self._decode(payload)
        except UNDECODABLE:
            return None  # what `decode` refuses as well
        data, (channel, _, native) = frame.data, frame.topic.partition(":")
        if channel != "/market/ticker" or not isinstance(data, _Data) or not data.sequence:
            return None
        quote = (data.bid or NAN, _known(data.bid_size), data.ask or NAN, _known(data.ask_size))
        return StatedQuote(frame.subject if native == "all" else native, data.sequence, quote)

    def decode_survey(self, body: bytes) -> Rows[RestTicker]:
        found = _data_of(self._all_tickers, body, "kucoin allTickers")
        return read_rows(self._rest_ticker, found.tickers, "kucoin allTickers")

    def _rest_ticker(self, row: msgspec.Raw) -> RestTicker:
        r = self._bulk_row.decode(row)
        statistics = (_open_of(r.symbol, r.last, r.change), r.high, r.low, r.base_volume, r.quote_volume)
        return rest_ticker(r.symbol, (r.bid, r.bid_size, r.ask, r.ask_size), r.last, statistics)

    def topics(self, native: str, kind: str) -> tuple[str, ...]:
        if kind == TRADE.name:
            return (MATCH + native,)
        if kind == DEPTH.name:
            return (DEPTH50 + native,)
        if kind == BOOK.name:
            return (LEVEL2 + native,)
        return (SNAPSHOT + native, LEVEL1 + native, TICKER + native)

    def decode(
        self, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit
    ) -> Control | None:
        # hot: `make bench-micro`, decode
        try:
            frame = self._decode(payload)
        except UNDECODABLE as exc:
            # Depth is refused at its first level, where level1 has a number, which costs it 4 %; to look at each
            # message's topic first would cost all others a half. A union (`list[Amount | tuple[Amount, Amount]]`)
            # is misread by msgspec 0.22, which takes other memory for the bounds of its numbers.
            if (levels := self._levels(payload)) is not None:
                self._depth(levels, recv_ns, line, emit)
                return None
            frame = decode_sparse(self._decode, payload, f"kucoin: {exc}")
        if frame.type != "message":
            return self._answer(frame)
        data = frame.data
        if not isinstance(data, _Data):
            raise DecodeError(f"kucoin: message on {frame.topic!r} without data")
        channel, _, native = frame.topic.partition(":")
        if channel == "/spotMarket/level1":
            self._level1(native, data, recv_ns, line, emit)
            return None
        if channel == "/market/ticker":
            # ticker:all has the symbol in its subject
            self._ticker(frame.subject if native == "all" else native, data, recv_ns, line, emit)
            return None
        if channel == "/market/snapshot":
            self._snapshot(data, recv_ns, line, emit)
            return None
        if channel == "/market/match":
            self._match(native, data, recv_ns, line, emit)
            return None
        if channel == "/market/level2":
            self._level2(native, payload, recv_ns, line, emit)
            return None
        if frame.topic.startswith(DEPTH50):  # without any level, or none that can be read
            if (levels := self._levels(payload)) is None:
                raise DecodeError("kucoin: level2Depth50 lacks a side, or its time")
            self._depth(levels, recv_ns, line, emit)
        return None  # a topic that we did not request

    def _levels(self, payload: bytes | bytearray | memoryview) -> _DepthFrame | None:
        """Return a message if it is one of depth."""
        try:
            frame = self._decode_depth(payload)
        except UNDECODABLE:
            return None
        return frame if frame.type == "message" and frame.topic.startswith(DEPTH50) else None

    def _depth(self, frame: _DepthFrame, recv_ns: int, line: Line, emit: Emit) -> None:
        data = frame.data
        state = self.states[DEPTH.name].get(frame.topic[DEPTH50_SIZE:])
        time_ns = data.timestamp * NS_PER_MS
        if state is None or not state.accept(0, line, time_ns, recv_ns, True):
            return
        state.exchange_ns = time_ns
        if state.replace(pack_levels(data.bids), pack_levels(data.asks), recv_ns):
            emit(state)

    def _level1(self, native: str, data: _Data, recv_ns: int, line: Line, emit: Emit) -> None:
        bids, asks = data.bids, data.asks
        if bids is None or asks is None:
            if bids is asks:
                raise DecodeError("kucoin: level1 has neither side")
            bids, asks = UNKNOWN if bids is None else bids, UNKNOWN if asks is None else asks
        if len(bids) not in (0, 2) or len(asks) not in (0, 2):
            raise DecodeError("kucoin: level1 has a side that is no level")
        state = self.tickers.get(native)
        time_ns = data.timestamp * NS_PER_MS
        if state is None or not state.accept(QUOTE, line, time_ns, recv_ns, True):
            return
        state.exchange_ns = time_ns
        bid, bid_size = bids or NO_ORDERS
        ask, ask_size = asks or NO_ORDERS
        state.set_quote(bid, bid_size, ask, ask_size)
        state.on_news(recv_ns)
        emit(state)

    def _ticker(self, native: str, data: _Data, recv_ns: int, line: Line, emit: Emit) -> None:
        if data.price is None and data.bid is None and data.ask is None:
            raise DecodeError("kucoin: ticker lacks every number")
        if data.time > MILLISECONDS_MAX:
            raise DecodeError("kucoin: ticker has a time that cannot be")
        state = self.tickers.get(native)
        if state is None or not state.accept(LAST, line, data.sequence, recv_ns):
            return
        state.exchange_sequence = data.sequence
        # The time is that of the last match, hours ago perhaps: it may be the newest that is known, and else tells
        # nothing. So the quote that comes along cannot be put in order, and that of the snapshot has to do.
        state.exchange_ns = newest_time(state, (data.time or data.time_as_in_spec) * NS_PER_MS, recv_ns)
        state.last = data.price or NAN
        state.on_news(recv_ns)
        emit(state)

    def _snapshot(self, data: _Data, recv_ns: int, line: Line, emit: Emit) -> None:
        statistics = data.statistics
        if statistics is None or not statistics.symbol:
            raise DecodeError("kucoin: snapshot lacks its data or symbol")
        state = self.tickers.get(statistics.symbol)
        time_ns = statistics.time * NS_PER_MS
        if state is None or not state.accept(STATISTICS, line, time_ns, recv_ns, True):
            return
        state.exchange_ns = time_ns
        state.set_statistics(
            statistics.open or NAN,
            statistics.high or NAN,
            statistics.low or NAN,
            _known(statistics.base_volume),
            _known(statistics.quote_volume),
        )
        if statistics.last is not None:
            state.fill_last(statistics.last or NAN)
        if statistics.bid is not None or statistics.ask is not None:
            bid_size, ask_size = _known(statistics.bid_size), _known(statistics.ask_size)
            state.fill_quote(statistics.bid or NAN, bid_size, statistics.ask or NAN, ask_size)
        state.on_news(recv_ns)
        emit(state)

    def _level2(
        self,
        native: str,
        payload: bytes | bytearray | memoryview,
        recv_ns: int,
        line: Line,
        emit: Emit,
    ) -> None:
        state: FullBookState | None = self.states[BOOK.name].get(native)
        if state is None:
            return
        # To have each message's levels decoded would cost all others.
        try:
            data = self._decode_changes(payload).data
        except UNDECODABLE as exc:
            raise DecodeError(f"kucoin: level2: {exc}") from exc
        first_id, last_id = data.first_id, data.last_id
        if first_id > last_id:
            raise DecodeError("kucoin: level2 ends before it begins")
        bids, asks = data.changes.bids, data.changes.asks
        taken = Changes(first_id, last_id, bids, asks, data.time * NS_PER_MS)
        state.take(line, taken, last_id, recv_ns, emit)

    def _match(self, native: str, data: _Data, recv_ns: int, line: Line, emit: Emit) -> None:
        price, size, number, time_ns = data.price, data.size, data.sequence, data.time
        if not number or not time_ns or not price or not size:
            raise DecodeError("kucoin: match lacks its sequence, time, price or size")
        trade_id = data.trade_id or str(number)
        if not is_id(trade_id):
            raise DecodeError(f"kucoin: match has an id that is too long: {trade_id[:60]!r}")
        state = self.states[TRADE.name].get(native)
        if state is None or not state.accept_trade(line, numbered(number, time_ns), time_ns, recv_ns, number):
            return
        trade = trade_id, price, size, SIDES.get(data.side, UNKNOWN_SIDE)
        state.publish(trade, time_ns, recv_ns, emit, sequence=number, flags=LAST_FLAG)


class _ContractState(ContractState):
    """Rates of funding are on the channel of mark and index, and older: they go by times of their own."""

    def __init__(self, **names: Any) -> None:
        self.funding_ns = self.predicted_ns = 0
        super().__init__((Arbitration(),), **names)

    def forget(self) -> None:
        """Make every value unknown: no line is left to keep them."""
        super().forget()
        self.funding_ns = self.predicted_ns = 0


class KuCoinLinear(KuCoinMarket):
    """Perpetuals that are settled in what they are quoted in."""

    name = "linear"
    kinds = (TICKER_KIND.name, TRADE.name, DEPTH.name, BOOK.name, CONTRACT.name)
    capabilities = {
        TICKER_KIND.name: Capability(
            (STATISTICS_OF_CONTRACT, TICKER_V2, EXECUTION),
            "statistics each 5 s, the quote with each change, the last price with each trade",
            "nothing: sequences ascend and jump; a silent channel is held against REST",
            "that a symbol exists: any is acknowledged, and silent",
        ),
        TRADE.name: Capability(
            (EXECUTION,),
            "each trade, at once",
            "nothing: numbers ascend, and need not follow each other; after a lost connection the newest 100 are"
            " fetched",
            "that none is missing",
        ),
        DEPTH.name: Capability(
            (CONTRACT_DEPTH50,),
            "each 100 ms",
            "nothing: each message is whole",
            "what was between two messages",
        ),
        BOOK.name: Capability(
            (CONTRACT_LEVEL2,),
            "each change, one a message, after the whole book over REST",
            "sequences follow each other",
            "that levels are right: there is no checksum",
        ),
        CONTRACT.name: Capability(
            (INSTRUMENT,),
            "mark and index each second, funding rates each minute; over REST each minute: open interest, and when"
            " funding is due",
            "nothing: the newest record replaces all before it",
            "open interest is up to 3 minutes old, and unknown after that: no channel has it",
        ),
    }
    ws_url = "wss://ws-api-futures.kucoin.com"  # for messages only: the token answer names the socket
    rest_url = "https://api-futures.kucoin.com"
    instruments_request = RestRequest("/api/v1/contracts/active", weight=3)
    time_request = RestRequest("/api/v1/timestamp", weight=2)
    survey_requests = (
        RestRequest("/api/v1/allTickers", weight=5),
        RestRequest("/api/v1/contracts/active", weight=3),
    )
    polls = (
        Poll(
            fields=("open_interest", "next_funding_ns"),
            fills=("funding_rate", "funding_interval_h"),
            every_s=60.0,
            lasts_s=180.0,
            request=instruments_request,
            is_single=True,
        ),
    )
    past_trades_max = 100
    base_levels = LEVELS_MAX  # all
    canary = "BTC/USDT:USDT"
    quote_assets = ("USDT", "USDC")
    addresses = re.compile(r"\w+://(ws-api-futures|api-futures)\.kucoin\.com\b")

    channels = (
        STATISTICS_OF_CONTRACT,
        TICKER_V2,
        EXECUTION,
        CONTRACT_DEPTH50,
        CONTRACT_LEVEL2,
        INSTRUMENT,
    )

    def __init__(self) -> None:
        super().__init__()
        self._decode = msgspec.json.Decoder(_LinearFrame, strict=False).decode
        self._rows = msgspec.json.Decoder(_Answer[list[msgspec.Raw]], strict=False)
        self._contract_row = msgspec.json.Decoder(_Contract, strict=False)
        self._bulk_row = msgspec.json.Decoder(_BulkContract, strict=False)
        self._polled = msgspec.json.Decoder(_Answer[list[msgspec.Raw] | _PolledRow], strict=False)
        self._polled_row = msgspec.json.Decoder(_PolledRow, strict=False)
        self._past_trade_row = msgspec.json.Decoder(_LinearData, strict=False)
        self._base = msgspec.json.Decoder(_Answer[_ContractBase], strict=False)
        self._rest_quote = msgspec.json.Decoder(_Answer[_LinearData], strict=False)
        self._takers = {
            name.removesuffix(":"): take
            for name, take in (
                (TICKER_V2, self._take_quote),
                (EXECUTION, self._take_execution),
                (CONTRACT_LEVEL2, self._take_change),
                (CONTRACT_DEPTH50, self._take_depth),
                (STATISTICS_OF_CONTRACT, self._take_statistics),
                (INSTRUMENT, self._take_contract),
            )
        }

    def make_state(self, kind: str, topic: str, native: str, base_flags: int) -> State:
        if kind == CONTRACT.name:
            return _ContractState(topic=topic, native=native, base_flags=base_flags, flags=base_flags)
        return super().make_state(kind, topic, native, base_flags)

    def decode_instruments(self, body: bytes) -> Rows[Instrument]:
        rows = _data_of(self._rows, body, "kucoin contracts")
        found = read_rows(self._instrument, rows, "kucoin contracts")
        return Rows([each for each in found.items if each.settle], found.problem)

    def _instrument(self, row: msgspec.Raw) -> Instrument:
        """Return a perpetual; what is no such thing has no settle asset, and is left out."""
        found = self._contract_row.decode(row)
        base, quote, settle = (ASSETS.get(each, each) for each in (found.base, found.quote, found.settle))
        if found.type != PERPETUAL:
            return Instrument(found.symbol, base, quote)
        is_inverse = (
            found.is_inverse or settle == base or (found.multiplier.is_finite() and found.multiplier < 0)
        )
        size = contract_size(found.multiplier)
        if not size and not is_inverse:
            raise DecodeError(f"{found.symbol}: multiplier {found.multiplier} is no size")
        return Instrument(
            found.symbol,
            base,
            quote,
            found.status == OPEN and not is_inverse,
            found.status,
            code=found.base if found.base != base else "",
            note=INVERSE if is_inverse else "",
            tick=price_tick(str(found.tick)),
            settle=settle,
            contract_size="" if is_inverse else size,
        )

    def spelled(self, native: str) -> Instrument | None:
        found = super().spelled(native.removesuffix("M")) if native.endswith("M") else None
        if found is None:
            return None
        return msgspec.structs.replace(
            found, native=native, base=ASSETS.get(found.base, found.base), settle=found.quote
        )

    # --- REST

    def quote_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v1/ticker?symbol={quote(native, safe='')}", weight=2)

    def decode_quote(self, body: bytes) -> Quote:
        data = _data_of(self._rest_quote, body, "kucoin ticker")
        if not data.symbol:
            raise DecodeError("kucoin ticker: the answer is no quote")
        contract = self.contract_size(data.symbol)
        bid_size, ask_size = (in_base_asset(each or 0.0, contract) for each in (data.bid_size, data.ask_size))
        return rest_quote(data.bid, bid_size, data.ask, ask_size)

    def past_trades_request(self, native: str, number: int) -> RestRequest:
        return RestRequest(f"/api/v1/trade/history?symbol={quote(native, safe='')}", weight=5)

    def decode_past_trades(self, native: str, body: bytes) -> Rows[PastTrade]:
        rows = _data_of(self._rows, body, "kucoin trade history")
        contract = self.contract_size(native)

        def read(row: msgspec.Raw) -> PastTrade:
            data = self._past_trade_row.decode(row)
            number, time_ns, trade_id, side, price, size = _executed(data)
            trade = trade_id, price, in_base_asset(size, contract), side
            return PastTrade(numbered(number, time_ns), number, time_ns, number, trade)

        return read_rows(read, rows, "kucoin trade history")

    def base_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v1/level2/snapshot?symbol={quote(native, safe='')}", weight=3)

    def decode_base(self, native: str, body: bytes) -> Base:
        found = _data_of(self._base, body, "kucoin level2 snapshot")
        size = self.contract_size(found.symbol)
        return Base(
            found.last_id, _levels(found.bids or (), size), _levels(found.asks or (), size), 0, found.time_ns
        )

    def base_at(self, url: str) -> tuple[str, int] | None:
        found, asked = CONTRACT_BASE_PATH.fullmatch(urlsplit(url).path), parameters(url)
        return (asked["symbol"], int(found[1] or 0)) if found and "symbol" in asked else None

    def decode_survey(self, body: bytes) -> Rows[RestTicker]:
        rows = _data_of(self._rows, body, "kucoin contracts")
        found = read_rows(self._rest_ticker, rows, "kucoin contracts")
        return Rows([each for each in found.items if each is not None], found.problem)

    def _rest_ticker(self, row: msgspec.Raw) -> RestTicker | None:
        """Return what a row states, None for what is not carried, such as an inverse contract."""
        r = self._bulk_row.decode(row)
        if r.symbol not in self.contract_sizes:
            return None
        contract = self.contract_sizes[r.symbol]
        bid_size, ask_size = (in_base_asset(each, contract) for each in (r.bid_size, r.ask_size))
        last = r.price if r.last is None else r.last
        statistics = _open_of(r.symbol, r.last, r.change), r.high, r.low, r.base_volume, r.quote_volume
        return rest_ticker(r.symbol, (r.bid, bid_size, r.ask, ask_size), last, statistics)

    def poll_request(self, poll: Poll, native: str) -> RestRequest:
        return RestRequest(f"/api/v1/contracts/{quote(native, safe='')}", weight=3)

    def decode_poll(self, poll: Poll, body: bytes, recv_ns: int) -> Rows[PolledContract]:
        data = _data_of(self._polled, body, "kucoin contracts")
        if isinstance(data, _PolledRow):
            found = Rows([self._polled_of(data, recv_ns)])
        else:
            read = self._polled_row.decode
            found = read_rows(lambda row: self._polled_of(read(row), recv_ns), data, "kucoin contracts")
        return Rows([each for each in found.items if each.values], found.problem)

    def _polled_of(self, r: _PolledRow, recv_ns: int) -> PolledContract:
        """Return what a row states; nothing of what is not carried, such as an inverse contract."""
        values: dict[str, float] = {}
        contract = self.contract_sizes.get(r.symbol)
        if contract is None:
            return PolledContract(r.symbol, values)
        if r.open_interest is not None:
            values["open_interest"] = in_base_asset(r.open_interest, contract)
        if r.due_ms:
            values["next_funding_ns"] = r.due_ms * NS_PER_MS
        elif r.left_ms:  # as of when it was sent: funding is due on the minute
            due_ns = recv_ns + r.left_ms * NS_PER_MS
            values["next_funding_ns"] = (due_ns + NS_PER_MINUTE // 2) // NS_PER_MINUTE * NS_PER_MINUTE
        if r.funding_rate is not None:
            values["funding_rate"] = r.funding_rate
        if r.granularity:
            values["funding_interval_h"] = r.granularity / MS_PER_HOUR
        return PolledContract(r.symbol, values)

    # --- frames

    def topics(self, native: str, kind: str) -> tuple[str, ...]:
        if kind == TRADE.name:
            return (EXECUTION + native,)
        if kind == DEPTH.name:
            return (CONTRACT_DEPTH50 + native,)
        if kind == BOOK.name:
            return (CONTRACT_LEVEL2 + native,)
        if kind == CONTRACT.name:
            return (INSTRUMENT + native,)
        return (STATISTICS_OF_CONTRACT + native, TICKER_V2 + native, EXECUTION + native)

    def decode(
        self, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit
    ) -> Control | None:
        # hot: `make bench-micro`, decode
        try:
            frame = self._decode(payload)
        except UNDECODABLE as exc:
            frame = decode_sparse(self._decode, payload, f"kucoin: {exc}")
        if frame.type != "message":
            return self._answer(frame)
        data = frame.data
        if not isinstance(data, _LinearData):
            raise DecodeError(f"kucoin: message on {frame.topic!r} without data")
        channel, _, native = frame.topic.partition(":")
        take = self._takers.get(channel)
        if take is not None:  # else a topic that we did not request
            take(native, data, recv_ns, line, emit)
        return None

    def _take_quote(self, native: str, data: _LinearData, recv_ns: int, line: Line, emit: Emit) -> None:
        if not data.sequence or (data.bid is None and data.ask is None):
            raise DecodeError("kucoin: tickerV2 lacks its sequence, or every price")
        state = self.tickers.get(native)
        if state is None:
            return
        contract = self.contract_size(native)
        if not state.accept(QUOTE, line, data.sequence, recv_ns):
            return
        state.exchange_sequence, state.exchange_ns = data.sequence, data.ts
        state.set_quote(
            data.bid or NAN,
            in_base_asset(_known(data.bid_size), contract),
            data.ask or NAN,
            in_base_asset(_known(data.ask_size), contract),
        )
        state.on_news(recv_ns)
        emit(state)

    def _take_execution(self, native: str, data: _LinearData, recv_ns: int, line: Line, emit: Emit) -> None:
        number, time_ns, trade_id, side, price, size = _executed(data)
        ticker, state = self.tickers.get(native), self.states[TRADE.name].get(native)
        if state is not None:
            contract = self.contract_size(native)
            if state.accept_trade(line, numbered(number, time_ns), time_ns, recv_ns, number):
                trade = trade_id, price, in_base_asset(size, contract), side
                state.publish(trade, time_ns, recv_ns, emit, sequence=number, flags=LAST_FLAG)
        if ticker is not None and ticker.accept(LAST, line, number, recv_ns):
            ticker.exchange_ns = newest_time(ticker, time_ns, recv_ns)
            ticker.last = price
            ticker.on_news(recv_ns)
            emit(ticker)

    def _take_statistics(self, native: str, data: _LinearData, recv_ns: int, line: Line, emit: Emit) -> None:
        if not data.ts:
            raise DecodeError("kucoin: snapshot lacks its time")
        state = self.tickers.get(native)
        if state is None or not state.accept(STATISTICS, line, data.ts, recv_ns, True):
            return
        state.exchange_ns = data.ts
        state.set_statistics(
            data.open or NAN,
            data.high or NAN,
            data.low or NAN,
            _known(data.base_volume),
            _known(data.quote_volume),
        )
        if data.last is not None:
            state.fill_last(data.last)
        state.on_news(recv_ns)
        emit(state)

    def _take_depth(self, native: str, data: _LinearData, recv_ns: int, line: Line, emit: Emit) -> None:
        if data.bids is None or data.asks is None or not data.sequence:
            raise DecodeError("kucoin: level2Depth50 lacks a side, or its sequence")
        state = self.states[DEPTH.name].get(native)
        if state is None:
            return
        size = self.contract_size(native)
        if not state.accept(0, line, data.sequence, recv_ns):
            return
        state.exchange_sequence, state.exchange_ns = data.sequence, data.timestamp * NS_PER_MS
        bids, asks = pack_levels(_levels(data.bids, size)), pack_levels(_levels(data.asks, size))
        if state.replace(bids, asks, recv_ns):
            emit(state)

    def _take_change(self, native: str, data: _LinearData, recv_ns: int, line: Line, emit: Emit) -> None:
        state: FullBookState | None = self.states[BOOK.name].get(native)
        if state is None:
            return
        contract = self.contract_size(native)
        number = data.sequence
        price, side, size = _changed(data.change)
        if not number:
            raise DecodeError("kucoin: level2 lacks its sequence")
        level = [(price, in_base_asset(size, contract))]
        bids, asks = (level, []) if side is Side.BUY else ([], level)
        changes = Changes(number, number, bids, asks, data.timestamp * NS_PER_MS)
        state.take(line, changes, number, recv_ns, emit)

    def _take_contract(self, native: str, data: _LinearData, recv_ns: int, line: Line, emit: Emit) -> None:
        has_prices, rate = data.mark is not None or data.index is not None, data.funding_rate
        if not data.timestamp or (not has_prices and rate is None):
            raise DecodeError("kucoin: instrument lacks its time, or every number")
        state: _ContractState | None = self.states[CONTRACT.name].get(native)
        if state is None or line.group != state.group:
            return
        time_ns = data.timestamp * NS_PER_MS
        if has_prices:
            if not state.accept(0, line, time_ns, recv_ns, True):
                return
            state.mark, state.index = data.mark or NAN, data.index or NAN
            state.exchange_ns = time_ns
        elif rate is None or not _take_rate(state, rate, data.granularity, time_ns):
            return
        if state.update(recv_ns):
            emit(state)


KUCOIN: Final = Exchange("kucoin", (KuCoinSpot, KuCoinLinear))


def _data_of(decoder: "msgspec.json.Decoder[_Answer[T]]", body: bytes, what: str) -> T:
    """Return the data of an answer over REST. Raises DecodeError or ProtocolError, with what was requested."""
    answer = decode_rest(decoder, body, what)
    if answer.code != OK or answer.data is None:
        raise rest_refusal(what, answer.code, answer.msg)
    return answer.data


def _open_of(symbol: str, last: float | None, change: str | Decimal | None) -> float | None:
    """Return the price of 24 h ago: the last one less its change, in the exchange's digits. Raises DecodeError."""
    if last is None or change is None:
        return None
    try:
        open_24h = float(Decimal(repr(last)) - Decimal(change))
    except ArithmeticError as exc:
        raise DecodeError(f"{symbol}: changePrice {str(change)[:40]!r} is no number") from exc
    return open_24h if 0.0 <= open_24h < math.inf else None


def _executed(data: _LinearData) -> tuple[int, int, str, Side, float, float]:
    """Return a trade's number, time, id, side, price and size in contracts. Raises DecodeError."""
    number, price, size = data.sequence, data.price, data.size
    if not number or not data.ts or not price or not size:
        raise DecodeError("kucoin: execution lacks its sequence, time, price or size")
    trade_id = data.trade_id or str(number)
    if not is_id(trade_id):
        raise DecodeError(f"kucoin: execution has an id that is too long: {trade_id[:60]!r}")
    return number, data.ts, trade_id, SIDES.get(data.side, Side.UNKNOWN), price, size


def _changed(change: str) -> tuple[float, Side, float]:
    """Return price, side and size in contracts of a text such as "97421.4,buy,12". Raises DecodeError."""
    try:
        price, side, size = change.split(",")
        found = float(price), SIDES[side], float(size)
    except (ValueError, KeyError) as exc:
        raise DecodeError(f"kucoin: level2 has no change: {change[:60]!r}") from exc
    if not (0.0 <= found[0] < math.inf and 0.0 <= found[2] < math.inf):
        raise DecodeError(f"kucoin: level2 has a change that cannot be: {change[:60]!r}")
    return found


def _levels(levels: Iterable[BookLevel], size: ContractSize) -> list[BookLevel]:
    """Return levels with their sizes in the base asset."""
    count, parts = size
    return [(price, lots * count / parts) for price, lots in levels]


def _take_rate(state: _ContractState, rate: float, granularity_ms: int, time_ns: int) -> bool:
    """Take a rate of funding over, which is the predicted one or the one that is due; False if it is an old one."""
    if granularity_ms == PREDICTED_MS:
        if time_ns < state.predicted_ns:
            return False
        state.predicted_funding_rate, state.predicted_ns = rate, time_ns
        return True
    if time_ns < state.funding_ns:
        return False
    state.funding_rate, state.funding_ns = rate, time_ns
    state.funding_interval_h = granularity_ms / MS_PER_HOUR if granularity_ms else state.funding_interval_h
    return True


def _command(kind: str, topics: Sequence[str], command_id: str) -> bytes:
    """Return a request for topics of one channel."""
    channel = topics[0].partition(":")[0]
    symbols = ",".join(topic.partition(":")[2] for topic in topics)
    return msgspec.json.encode(Command(command_id, kind, f"{channel}:{symbols}", False, True))


def _topics_of(command: Command) -> tuple[str, list[str]]:
    """Return a request's type, and its topics one by one."""
    channel, _, symbols = command.topic.partition(":")
    return command.type, [f"{channel}:{symbol}" for symbol in symbols.split(",") if symbol]


def _base(symbol: _Symbol) -> str:
    """Return the base asset as KuCoin displays it: `name` less the quote that the exchange states.

    After a rename `name` has the new code, while `symbol`, and in some answers `baseCurrency`, keep the old.
    """
    base = symbol.name.removesuffix(f"-{symbol.quote}")
    return base if base and base != symbol.name else symbol.base


def _known(number: float | None) -> float:
    return NAN if number is None else number
