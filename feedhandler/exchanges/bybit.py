"""Bybit V5, spot and linear perpetuals: `tickers` for last price and 24 h statistics, `orderbook.1` for the quote,
`publicTrade` for trades, `orderbook.50` for depth and `orderbook.200` for books; of perpetuals also `tickers` for
mark, index, funding and open interest, and `allLiquidation`.

Everything peculiar to Bybit is here. Update ids: `u` of orderbook.1, `cs` of tickers, `seq` of orderbook.50, which
is the engine's count, while `u` is that of what one connection is sent. Quirks worth knowing:

- spot tickers have no bid and ask, and are always snapshots. Linear ones have both, and are a snapshot, then deltas
  every 100 ms: an absent field is as it was, and "" says that there is no such thing, as of funding before the
  launch. Each connection has deltas to its own snapshot;
- `openInterest` counts both sides of each contract, `singleOpenInterest` (since 2026-06) each contract once;
- `allLiquidation` says whose position it was: "Buy" is that of a long one, which is sold. The price is the one at
  which the position is worth nothing. It brings all of them, each 500 ms, without ids;
- orderbook.1 is complete and is sent again every 3 s without a change, with the same `u`; `u` = 1 is a restart of
  their service, and an empty side is an empty list. It came as deltas until 2025, and they are still understood: a
  level with size 0 is gone, another one is the side's new best, and a side without levels is as it was;
- publicTrade has up to 1024 trades in a message, in order, and says `snapshot` though each is new; ids are texts
  without an order;
- orderbook.50 is a book, then what changes in it: a size of 0 takes a level away, and one that leaves the best 50
  goes without a word. Its `u` counts by 1, though that is not promised: a gap is a reason to subscribe anew.
  orderbook.200 is the same of the best 200;
- the symbol of data is that of their topic;
- on spot at most 10 topics in a request; one bad topic refuses the whole request; a refusal may lack req_id;
- the pong of the public sockets says `"op":"ping"`; test `success` and `ret_msg`, not `op`;
- the list of linear instruments comes in pages, and without `status` has those alone that trade. There are dated
  futures among them, which have no funding and no place here yet: they are left out.

Source: https://bybit-exchange.github.io/docs/v5/ws/connect and v5/websocket/public, as of 2026-11.
Frames: tests/frames/bybit/, tests/frames/bybit_linear/
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Final, Generic
from urllib.parse import quote, urlencode

import msgspec

from feedhandler.data.book import BOOK as BOOK_KIND
from feedhandler.data.contract import CONTRACT
from feedhandler.data.depth import DEPTH
from feedhandler.data.errors import UNDECODABLE, DecodeError, ProtocolError
from feedhandler.data.instruments import SPOT, Instrument, price_tick
from feedhandler.data.levels import Amount
from feedhandler.data.liquidation import LIQUIDATION
from feedhandler.data.rest import RestRequest
from feedhandler.data.ticker import TICKER
from feedhandler.data.trade import BLOCK, ID_SIZE, TRADE, UNKNOWN_SIDE, Side
from feedhandler.data.units import NS_PER_MS
from feedhandler.data.wire import LAST, NAN, TICKER_VALUES
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import (
    MILLISECONDS_MAX,
    NO_ORDERS,
    PONG,
    Ack,
    Capability,
    Control,
    Emit,
    Endpoint,
    Exchange,
    FundingRate,
    Market,
    Milliseconds,
    Nack,
    Quote,
    RestTicker,
    Resubscribe,
    Rows,
    T,
    Traded,
    UpdateId,
    chunks,
    decode_digits,
    decode_rest,
    decode_sparse,
    is_same,
    parameters,
    read_row,
    read_rows,
    requested,
    rest_quote,
    rest_refusal,
    rest_ticker,
    spread,
)
from feedhandler.exchanges.books import ASK_AGAIN_NS, GAP, NEXT, OLD, Base, BookDepthState, ChainRule
from feedhandler.exchanges.contract_state import ContractState
from feedhandler.exchanges.full_book import Changes, FullBookState
from feedhandler.exchanges.state import QUOTE, STATISTICS, State, TickerState
from feedhandler.exchanges.trades import PastTrade, TradeState, told_apart

BOOK: Final = "orderbook.1."
BOOK_SIZE: Final = len(BOOK)
BOOK_50: Final = "orderbook.50."
BOOK_50_SIZE: Final = len(BOOK_50)
BOOK_50_LEVELS: Final = 50
BOOK_200: Final = "orderbook.200."
BOOK_200_SIZE: Final = len(BOOK_200)
BOOK_200_LEVELS: Final = 200
BOOK_TYPES: Final = ("snapshot", "delta")
TICKERS: Final = "tickers."
TICKERS_SIZE: Final = len(TICKERS)
TRADES: Final = "publicTrade."
TRADES_SIZE: Final = len(TRADES)
LIQUIDATIONS: Final = "allLiquidation."
LIQUIDATIONS_SIZE: Final = len(LIQUIDATIONS)
TOPICS: Final = (BOOK, BOOK_50, BOOK_200, TICKERS, TRADES)
SIDES: Final = {"Buy": Side.BUY, "Sell": Side.SELL}  # the taker's
LIQUIDATED: Final = {"Buy": Side.SELL, "Sell": Side.BUY}  # the order's, by the position's
TOPICS_PER_COMMAND: Final = 10
# Of linear ones no limit is documented; one that is refused costs a request for each topic of its.
LINEAR_TOPICS_PER_COMMAND: Final = 50
ARGS_LENGTH_MAX: Final = 21_000  # characters of all topics of one connection
ARGS_LENGTH_USED: Final = 20_000  # by symbols: quotes and commas may count or not, and there is the canary
assert ARGS_LENGTH_USED < ARGS_LENGTH_MAX

RESTARTED: Final = 1  # the update id of a book that begins anew, whatever its type is
CHAIN: Final = ChainRule(restart_id=RESTARTED)
UNKNOWN: Final = (NAN, NAN)  # price and size of a side of which nothing is stated

TRADING: Final = "Trading"  # status of an instrument
PRE_LAUNCH: Final = "PreLaunch"
CONTINUOUS: Final = "ContinuousTrading"  # the phase before its launch in which one trades
# that instruments are requested by, "" = Trading; Closed are not
STATUSES: Final = ("", PRE_LAUNCH, "Delivering")
PERPETUAL: Final = "LinearPerpetual"  # the other contracts of that market are dated
USDC_ENDING: Final = "PERP"  # of a symbol that is quoted in USDC
PAGE_SIZE: Final = 1000  # instruments, at most


class _Data(msgspec.Struct, gc=False):
    """Data of `tickers`, and of `orderbook.` 1, 50 and 200; what one of them lacks stays at its default."""

    last: Amount = msgspec.field(name="lastPrice", default=NAN)
    high: Amount = msgspec.field(name="highPrice24h", default=NAN)
    low: Amount = msgspec.field(name="lowPrice24h", default=NAN)
    open: Amount = msgspec.field(name="prevPrice24h", default=NAN)
    base_volume: Amount = msgspec.field(name="volume24h", default=NAN)
    quote_volume: Amount = msgspec.field(name="turnover24h", default=NAN)
    bids: list[tuple[Amount, Amount]] | None = msgspec.field(name="b", default=None)
    asks: list[tuple[Amount, Amount]] | None = msgspec.field(name="a", default=None)
    update_id: UpdateId = msgspec.field(name="u", default=0)
    sequence: UpdateId = msgspec.field(name="seq", default=0)


class _LinearData(_Data, gc=False):
    """The same of perpetuals: what a connection has stated of one, or what of it has changed, NaN = has not.

    VOID stands for an empty text: there is no such thing. No number that is decoded is infinite.
    """

    bid: Amount = msgspec.field(name="bid1Price", default=NAN)
    bid_size: Amount = msgspec.field(name="bid1Size", default=NAN)
    ask: Amount = msgspec.field(name="ask1Price", default=NAN)
    ask_size: Amount = msgspec.field(name="ask1Size", default=NAN)
    mark: Amount = msgspec.field(name="markPrice", default=NAN)
    index: Amount = msgspec.field(name="indexPrice", default=NAN)
    funding_rate: FundingRate = msgspec.field(name="fundingRate", default=NAN)
    next_funding_ms: Annotated[float, msgspec.Meta(ge=0, le=MILLISECONDS_MAX)] = msgspec.field(
        name="nextFundingTime", default=NAN
    )
    funding_interval_h: Amount = msgspec.field(name="fundingIntervalHour", default=NAN)
    open_interest: Amount = msgspec.field(name="singleOpenInterest", default=NAN)
    open_interest_of_sides: Amount = msgspec.field(name="openInterest", default=NAN)  # of both

    def change(self, delta: "_LinearData") -> None:
        """Take over what has changed."""
        # hot: `make bench-micro`, decode
        for name in TICKER_FIELDS:
            value = getattr(delta, name)
            if value == value:
                setattr(self, name, NAN if value == VOID else value)


VOID: Final = math.inf
_OF_BOOKS: Final = ("bids", "asks", "update_id", "sequence")
TICKER_FIELDS: Final = tuple(name for name in _LinearData.__struct_fields__ if name not in _OF_BOOKS)
SPELLED: Final = {  # by what they are in messages
    field.encode_name: field.name
    for field in msgspec.structs.fields(_LinearData)
    if field.name in TICKER_FIELDS
}


class _Execution(msgspec.Struct, gc=False):
    """A row of `publicTrade`, or one of `allLiquidation`, which has no id."""

    time: Annotated[int, msgspec.Meta(gt=0, le=MILLISECONDS_MAX)] = msgspec.field(name="T")
    price: Traded = msgspec.field(name="p")
    size: Traded = msgspec.field(name="v")
    trade_id: Annotated[str, msgspec.Meta(max_length=ID_SIZE)] = msgspec.field(name="i", default="")
    side: str = msgspec.field(name="S", default="")
    sequence: UpdateId = msgspec.field(name="seq", default=0)
    is_block: bool = msgspec.field(name="BT", default=False)


class _PastTrade(msgspec.Struct):
    """A row of recent-trade."""

    trade_id: Annotated[str, msgspec.Meta(min_length=1, max_length=ID_SIZE)] = msgspec.field(name="execId")
    time: Annotated[int, msgspec.Meta(gt=0, le=MILLISECONDS_MAX)]
    price: Traded
    size: Traded
    side: str = ""
    sequence: UpdateId = msgspec.field(name="seq", default=0)
    is_block: bool = msgspec.field(name="isBlockTrade", default=False)


class _ExecutionRows(msgspec.Struct):
    """A message of such rows of which not all can be read."""

    topic: str
    data: list[msgspec.Raw]


class _Frame(msgspec.Struct, gc=False):
    """Any message: data (`topic`), or the answer to a command (`op`)."""

    topic: str = ""
    type: str = ""
    ts: Milliseconds = 0
    cts: Milliseconds = 0
    sequence: UpdateId = msgspec.field(name="cs", default=0)  # of tickers
    data: _Data | list[_Execution] | None = None
    op: str = ""
    success: bool | None = None
    ret_msg: str = ""
    req_id: str = ""


class _LinearFrame(_Frame, gc=False):
    data: _LinearData | list[_Execution] | None = None


class _Instrument(msgspec.Struct):
    symbol: str
    base: str = msgspec.field(name="baseCoin")
    quote: str = msgspec.field(name="quoteCoin")
    status: str = TRADING
    prices: Any = msgspec.field(name="priceFilter", default=None)
    contract_type: str = msgspec.field(name="contractType", default="")
    settle: str = msgspec.field(name="settleCoin", default="")
    pre_listing: Any = msgspec.field(name="preListingInfo", default=None)

    @property
    def tick(self) -> str:
        return price_tick(self.prices.get("tickSize")) if isinstance(self.prices, dict) else ""

    @property
    def phase(self) -> str:
        """How far it is on the way to its launch, if it is."""
        return str(self.pre_listing.get("curAuctionPhase")) if isinstance(self.pre_listing, dict) else ""


class _Instruments(msgspec.Struct):
    rows: list[msgspec.Raw] | None = msgspec.field(name="list", default=None)  # each an _Instrument
    cursor: str = msgspec.field(name="nextPageCursor", default="")  # of the next page


class _Time(msgspec.Struct):
    time_ns: UpdateId | None = msgspec.field(name="timeNano", default=None)


class _RestTicker(msgspec.Struct):
    """An empty side's texts are empty, or null."""

    bid: str | None = msgspec.field(name="bid1Price")
    bid_size: str | None = msgspec.field(name="bid1Size")
    ask: str | None = msgspec.field(name="ask1Price")
    ask_size: str | None = msgspec.field(name="ask1Size")


class _RestTickers(msgspec.Struct):
    tickers: list[_RestTicker] | None = msgspec.field(name="list", default=None)


class _BulkRow(_RestTicker):
    """The same of all symbols, with what is stated besides."""

    symbol: str
    last: str = msgspec.field(name="lastPrice", default="")
    open: str = msgspec.field(name="prevPrice24h", default="")
    high: str = msgspec.field(name="highPrice24h", default="")
    low: str = msgspec.field(name="lowPrice24h", default="")
    base_volume: str = msgspec.field(name="volume24h", default="")
    quote_volume: str = msgspec.field(name="turnover24h", default="")


class _BulkRows(msgspec.Struct):
    rows: list[msgspec.Raw] | None = msgspec.field(name="list", default=None)


class _Answer(msgspec.Struct, Generic[T]):
    """Any answer over REST."""

    code: int = msgspec.field(name="retCode")
    message: str = msgspec.field(name="retMsg", default="")
    result: T | None = None


class _Command(msgspec.Struct, omit_defaults=True):
    req_id: str
    op: str
    args: Sequence[str] = ()


class BybitMarket(Market):
    """What the markets have in common: `name` is what Bybit calls their category, too."""

    exchange = "bybit"
    kinds: ClassVar[tuple[str, ...]] = (TICKER.name, TRADE.name, DEPTH.name, BOOK_KIND.name)
    capabilities = {
        TICKER.name: Capability(
            (TICKERS, BOOK),
            "statistics each 50 ms, the quote each 10 ms, again after 3 s without a change",
            "nothing: ids ascend and jump; a quote that is not repeated is stale",
            "that statistics of a quiet symbol are alive: REST alone tells",
        ),
        TRADE.name: Capability(
            (TRADES,),
            "at once, up to 1,024 in a message",
            "nothing: ids have no order; after a lost connection the newest are fetched over REST (60 of them)",
            "that none is missing",
        ),
        DEPTH.name: Capability(
            (BOOK_50,),
            "changes each 20 ms",
            "ids follow each other, though that is not promised; a gap costs a new subscription",
            "how much a gap has lost",
        ),
        BOOK_KIND.name: Capability(
            (BOOK_200,),
            "changes each 100 ms",
            "ids follow each other, though that is not promised; a gap costs a new subscription",
            "levels beyond the best 200 a side; there is no checksum",
        ),
    }
    ws_url = "wss://stream.bybit.com"
    rest_url = "https://api.bybit.com"
    time_request = RestRequest("/v5/market/time")
    # Requests, whatever they are for: https://bybit-exchange.github.io/docs/v5/rate-limit, as of 2026-11.
    rest_limit = (600, 5.0)
    # Too many requests of an address are a 403, for 10 minutes; 429 protects a system, and is to be tried again.
    path_statuses = frozenset({429, 451})

    domains = ("bybit.com", "bytick.com")

    topic_key = b"topic"
    command_interval_s = 0.05  # no limit is documented; 200 requests in 0.4 s were all accepted
    connects = (500, 300.0)
    ping_interval_s = 20.0  # recommended; a socket that neither pings nor subscribes was cut after 61 s
    has_pages: ClassVar[bool] = False  # its list of instruments comes in several answers
    topics_per_command: ClassVar[int]
    book_rule = CHAIN
    book_levels = BOOK_200_LEVELS
    repeats_s = {(TICKER.name, QUOTE): 3.0}

    _frame_type: ClassVar[type[_Frame]] = _Frame
    _listed: ClassVar[tuple[str, ...]] = (TRADES,)  # topics whose data are lists

    def __init__(self) -> None:
        super().__init__()
        self._decode: Callable[[Any], _Frame] = msgspec.json.Decoder(self._frame_type, strict=False).decode
        self._execution_rows = msgspec.json.Decoder(_ExecutionRows)
        self._execution = msgspec.json.Decoder(_Execution, strict=False)
        self._instruments = msgspec.json.Decoder(_Answer[_Instruments], strict=False)
        self._row = msgspec.json.Decoder(_Instrument, strict=False)
        self._time = msgspec.json.Decoder(_Answer[_Time], strict=False)
        self._tickers = msgspec.json.Decoder(_Answer[_RestTickers], strict=False)
        self._all_tickers = msgspec.json.Decoder(_Answer[_BulkRows], strict=False)
        self._past_trade_row = msgspec.json.Decoder(_PastTrade, strict=False)
        self._bulk_row = msgspec.json.Decoder(_BulkRow, strict=False)

    def decode_instruments(self, body: bytes) -> Rows[Instrument]:
        answer = decode_rest(self._instruments, body, "bybit instruments-info")
        if answer.code != 0 or answer.result is None or answer.result.rows is None:
            raise rest_refusal("bybit instruments-info", answer.code, answer.message)
        rows, is_page = answer.result.rows, self.has_pages
        return read_rows(self._instrument, rows, "bybit instruments-info", is_page=is_page)

    def _instrument(self, row: msgspec.Raw) -> Instrument:
        found = self._row.decode(row)
        is_trading = found.status == TRADING
        return Instrument(found.symbol, found.base, found.quote, is_trading, found.status, tick=found.tick)

    def decode_time(self, body: bytes) -> int:
        answer = decode_rest(self._time, body, "bybit time")
        if answer.code != 0 or answer.result is None or answer.result.time_ns is None:
            raise rest_refusal("bybit time", answer.code, answer.message)
        return answer.result.time_ns

    def quote_request(self, native: str) -> RestRequest:
        return RestRequest(f"/v5/market/tickers?category={self.name}&symbol={quote(native, safe='')}")

    def decode_quote(self, body: bytes) -> Quote:
        answer = decode_rest(self._tickers, body, "bybit tickers")
        if answer.code != 0 or answer.result is None or answer.result.tickers is None:
            raise rest_refusal("bybit tickers", answer.code, answer.message)
        if not answer.result.tickers:
            raise ProtocolError("bybit tickers: the exchange lists no such symbol")
        if len(answer.result.tickers) != 1:
            raise DecodeError("bybit tickers: one symbol was requested, and several answered")
        (ticker,) = answer.result.tickers
        return rest_quote(
            _amount(ticker.bid), _amount(ticker.bid_size), _amount(ticker.ask), _amount(ticker.ask_size)
        )

    def past_trades_request(self, native: str, number: int) -> RestRequest:
        path = f"/v5/market/recent-trade?category={self.name}&symbol={quote(native, safe='')}"
        return RestRequest(f"{path}&limit={self.past_trades_max}")

    def decode_past_trades(self, native: str, body: bytes) -> Rows[PastTrade]:
        answer = decode_rest(self._all_tickers, body, "bybit recent-trade")
        if answer.code != 0 or answer.result is None or answer.result.rows is None:
            raise rest_refusal("bybit recent-trade", answer.code, answer.message)
        found = read_rows(self._past_trade, answer.result.rows, "bybit recent-trade")
        # The newest come first, many of one moment; those of one order have one `seq`.
        rows = found.items[::-1]
        rows.sort(key=lambda row: (row.exchange_ns, row.sequence))
        return Rows(rows, found.problem)

    def _past_trade(self, row: msgspec.Raw) -> PastTrade:
        r = self._past_trade_row.decode(row)
        trade = r.trade_id, r.price, r.size, SIDES.get(r.side, UNKNOWN_SIDE)
        bits = BLOCK if r.is_block else 0
        return PastTrade(r.trade_id, 0, r.time * NS_PER_MS, r.sequence, trade, bits)

    def lists(self, url: str) -> bool:
        return super().lists(url) and self._is_own(url)

    def past_trades_at(self, url: str) -> str:
        return super().past_trades_at(url) if self._is_own(url) else ""

    def _is_own(self, url: str) -> bool:
        """Return whether a request is of this market, by its category; whoever states none means spot."""
        return parameters(url).get("category", SPOT) == self.name

    def decode_survey(self, body: bytes) -> Rows[RestTicker]:
        answer = decode_rest(self._all_tickers, body, "bybit tickers")
        if answer.code != 0 or answer.result is None or answer.result.rows is None:
            raise rest_refusal("bybit tickers", answer.code, answer.message)
        return read_rows(self._rest_ticker, answer.result.rows, "bybit tickers")

    def _rest_ticker(self, row: msgspec.Raw) -> RestTicker:
        r = self._bulk_row.decode(row)
        bid, bid_size, ask, ask_size = map(_amount, (r.bid, r.bid_size, r.ask, r.ask_size))
        texts = (r.open, r.high, r.low, r.base_volume, r.quote_volume)
        statistics = tuple(_amount(text) if text else None for text in texts)
        return rest_ticker(r.symbol, (bid, bid_size, ask, ask_size), _amount(r.last), statistics)

    def endpoint(self, ws_url: str, handshake: bytes, connect_id: str) -> Endpoint:
        return Endpoint(f"{ws_url}/v5/public/{self.name}")

    def connections(self, states: Sequence[State]) -> list[list[State]]:
        return spread(states, self._length, ARGS_LENGTH_USED)

    def _length(self, state: State) -> tuple[int]:
        return (sum(len(topic) + 3 for topic in self.topics(state.native, state.kind)),)

    def make_state(self, kind: str, topic: str, native: str, base_flags: int) -> State:
        if kind != DEPTH.name:
            return super().make_state(kind, topic, native, base_flags)
        names = {"topic": topic, "native": native, "base_flags": base_flags, "flags": base_flags}
        return BookDepthState(CHAIN, BOOK_50_LEVELS, **names)

    def topics(self, native: str, kind: str) -> tuple[str, ...]:
        if kind == TRADE.name:
            return (TRADES + native,)
        if kind == DEPTH.name:
            return (BOOK_50 + native,)
        if kind == BOOK_KIND.name:
            return (BOOK_200 + native,)
        return (TICKERS + native, BOOK + native)

    def batches(self, topics: Sequence[str]) -> Iterator[tuple[str, ...]]:
        return chunks(topics, self.topics_per_command)

    def subscribe(self, topics: Sequence[str], command_id: str) -> bytes:
        return msgspec.json.encode(_Command(command_id, "subscribe", topics))

    def unsubscribe(self, topics: Sequence[str], command_id: str) -> bytes:
        return msgspec.json.encode(_Command(command_id, "unsubscribe", topics))

    def requested(self, frame: bytes) -> tuple[bool, Sequence[str]] | None:
        return requested(frame, _Command, lambda command: (command.op, command.args))

    def ping(self, command_id: str) -> bytes:
        return msgspec.json.encode(_Command(command_id, "ping"))

    def decode(
        self, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit
    ) -> Control | None:
        # hot: `make bench-micro`, decode
        try:
            frame = self._decode(payload)
        except UNDECODABLE as exc:
            if self._decode_rows(payload, recv_ns, line, emit, f"bybit: {exc}"):
                return None
            frame = self._decode_odd(payload, line, f"bybit: {exc}")
        data = frame.data
        if isinstance(data, _Data):
            if frame.topic.startswith(BOOK):
                self._book(frame, data, recv_ns, line, emit)
                return None
            if frame.topic.startswith(TICKERS):
                return self._ticker(frame, data, recv_ns, line, emit)
            if frame.topic.startswith(BOOK_50):
                return self._depth(frame, data, recv_ns, line, emit)
            if frame.topic.startswith(BOOK_200):
                self._whole_book(frame, data, recv_ns, line, emit)
                return None
        elif isinstance(data, list) and frame.topic.startswith(self._listed):
            self._executions(frame.topic, data, range(len(data)), recv_ns, line, emit)
            return None
        if data is not None:
            if not frame.topic:
                raise DecodeError("bybit: data without a topic")
            if frame.topic.startswith((*TOPICS, *self._listed)):
                self._doubt(frame.topic, line)
                raise DecodeError(f"bybit: {frame.topic} has data of another shape")
            return None  # a topic that we did not request
        return self._answer(frame)

    def _book(self, frame: _Frame, data: _Data, recv_ns: int, line: Line, emit: Emit) -> None:
        bids, asks = data.bids, data.asks
        if bids is None and asks is None:
            raise DecodeError("bybit: orderbook.1 has neither side")
        state = self.tickers.get(frame.topic[BOOK_SIZE:])
        if state is None:
            return
        if frame.type == "delta" and data.update_id != RESTARTED:
            self._book_delta(frame, state, data, recv_ns, line, emit)
            return
        if not state.accept(QUOTE, line, data.update_id, recv_ns):
            return
        state.exchange_sequence = data.update_id
        state.exchange_ns = (frame.cts or frame.ts) * NS_PER_MS
        bid, bid_size = bids[0] if bids else NO_ORDERS if bids is not None else UNKNOWN
        ask, ask_size = asks[0] if asks else NO_ORDERS if asks is not None else UNKNOWN
        state.set_quote(bid, bid_size, ask, ask_size)
        state.on_news(recv_ns)
        emit(state)

    def _book_delta(
        self, frame: _Frame, state: TickerState, data: _Data, recv_ns: int, line: Line, emit: Emit
    ) -> None:
        """Take what has changed since the line's last book; that has to be what is known."""
        quote = state.channels[QUOTE]
        base = quote.line_update_id(line.index)
        if data.update_id > quote.update_id and base != quote.update_id:
            raise DecodeError("bybit: orderbook.1 as a delta to a book that is not known")
        if not base:
            raise DecodeError("bybit: orderbook.1 as a delta before its snapshot")
        if not state.accept(QUOTE, line, data.update_id, recv_ns):
            return
        state.exchange_sequence = data.update_id
        state.exchange_ns = (frame.cts or frame.ts) * NS_PER_MS
        bid, bid_size = _best(data.bids, state.bid, state.bid_size)
        ask, ask_size = _best(data.asks, state.ask, state.ask_size)
        state.set_quote(bid, bid_size, ask, ask_size)
        state.on_news(recv_ns)
        emit(state)

    def _depth(self, frame: _Frame, data: _Data, recv_ns: int, line: Line, emit: Emit) -> Resubscribe | None:
        """Take a message into the line's own book, and publish the best of it if no other line was first."""
        if data.bids is None and data.asks is None:
            raise DecodeError("bybit: orderbook.50 has neither side")
        state: BookDepthState | None = self.states[DEPTH.name].get(frame.topic[BOOK_50_SIZE:])
        if state is None or line.group != state.group:
            return None
        book, update_id = state.books[line.index], data.update_id
        bids, asks = data.bids or (), data.asks or ()
        order = data.sequence or update_id  # of messages on whatever connection
        newest = state.channels[0].line_update_id(line.index)
        found = NEXT
        if frame.type == "delta" and not book.is_restart(update_id):
            found = book.apply(update_id, update_id, bids, asks)
            if found is NEXT and order < newest:
                found = GAP  # it was made before, with an id that is used again
        else:
            book.replace(update_id, bids, asks)
        # One that is old, and was made later, is of another count: its ids would follow those of the book one day.
        if found is OLD and order <= newest and not book.stays_old(update_id, recv_ns):
            return None
        if found is not NEXT or book.stays_crossed(recv_ns):
            return self._lose(state, frame.topic, recv_ns, line, emit)
        if not state.accept(0, line, order, recv_ns):
            return None
        state.exchange_sequence = update_id
        state.exchange_ns = (frame.cts or frame.ts) * NS_PER_MS
        if state.update(book.bids, book.asks, recv_ns):
            emit(state)
        return None

    def _whole_book(self, frame: _Frame, data: _Data, recv_ns: int, line: Line, emit: Emit) -> None:
        # Nothing is taken for granted here: of what is left out it would not be known whether it is as it was.
        if data.bids is None or data.asks is None or not data.update_id or frame.type not in BOOK_TYPES:
            raise DecodeError("bybit: orderbook.200 lacks a side, its id or its type")
        state: FullBookState | None = self.states[BOOK_KIND.name].get(frame.topic[BOOK_200_SIZE:])
        if state is None:
            return
        update_id, exchange_ns = data.update_id, (frame.cts or frame.ts) * NS_PER_MS
        order = data.sequence or update_id  # of messages on whatever connection
        if frame.type == "delta" and update_id != RESTARTED:
            changes = Changes(update_id, update_id, data.bids, data.asks, exchange_ns)
            state.take(line, changes, order, recv_ns, emit)
        else:
            base = Base(update_id, data.bids, data.asks, self.book_levels, exchange_ns)
            state.take_base(line, base, order, recv_ns, emit)

    def _lose(
        self, state: BookDepthState, topic: str, recv_ns: int, line: Line, emit: Emit
    ) -> Resubscribe | None:
        flags = state.flags
        is_due = state.lose(line.index, recv_ns)
        if state.flags != flags:
            emit(state)
        return Resubscribe(topic) if is_due else None

    def _ticker(self, frame: _Frame, data: _Data, recv_ns: int, line: Line, emit: Emit) -> Resubscribe | None:
        """Take a message of tickers."""
        raise NotImplementedError

    def _doubt(self, topic: str, line: Line) -> None:
        """Note that a message of a topic could not be read."""

    def _decode_odd(self, payload: bytes | bytearray | memoryview, line: Line, refused: str) -> _Frame:
        """Return a message that was refused as it is without its empty fields. Raises DecodeError."""
        return decode_sparse(self._decode, payload, refused)

    def _decode_rows(
        self, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit, refused: str
    ) -> bool:
        """Take the trades that can be read of a message that was refused; False if it has none.

        Raises DecodeError after the last of them, if not all can be read.
        """
        try:
            frame = self._execution_rows.decode(payload)
        except UNDECODABLE:
            return False
        if not frame.topic.startswith(self._listed):
            return False
        rows, indices = [], []
        for index, row in enumerate(frame.data):
            with contextlib.suppress(DecodeError):
                rows.append(read_row(self._execution.decode, row))
                indices.append(index)
        bad = len(frame.data) - len(rows)
        with contextlib.suppress(DecodeError) if bad else contextlib.nullcontext():  # of those without an id
            self._executions(frame.topic, rows, indices, recv_ns, line, emit)
        if bad:
            raise DecodeError(f"{refused}; {bad} of {len(frame.data)} rows cannot be read")
        return True

    def _executions(
        self,
        topic: str,
        rows: Sequence[_Execution],
        indices: Sequence[int],
        recv_ns: int,
        line: Line,
        emit: Emit,
    ) -> None:
        """Take the rows of a message of trades. Raises DecodeError after the last for those without an id."""
        state: TradeState | None = self.states[TRADE.name].get(topic[TRADES_SIZE:])
        if state is not None:
            # All are judged before the first is emitted: the last one that is new is flagged.
            new = [
                (index, row, SIDES.get(row.side, UNKNOWN_SIDE))
                for index, row in zip(indices, rows, strict=True)
                if row.trade_id and state.accept_trade(line, row.trade_id, row.time * NS_PER_MS, recv_ns)
            ]
            self._publish(state, new, recv_ns, emit)
        if not all(row.trade_id for row in rows):
            raise DecodeError(f"bybit: {topic} has a row without an id")

    def _publish(
        self, state: TradeState, new: Sequence[tuple[int, _Execution, Side]], recv_ns: int, emit: Emit
    ) -> None:
        left = len(new)
        for index, row, side in new:
            left -= 1
            state.publish(
                (row.trade_id, row.price, row.size, side),
                row.time * NS_PER_MS,
                recv_ns,
                emit,
                sequence=row.sequence,
                bits=BLOCK if row.is_block else 0,
                index=index,
                flags=0 if left else LAST,
            )

    def _answer(self, frame: _Frame) -> Control | None:
        if frame.op == "pong" or frame.ret_msg == "pong":
            return PONG
        if frame.success is None:
            if frame.topic:
                return None
            raise DecodeError("bybit: message of no known kind")
        if frame.success:
            return Ack(frame.req_id)
        if "already subscribed" in frame.ret_msg:
            # The first subscription runs on. For a request of one topic that is all we want; a longer
            # one was refused whole, and the session requests its topics one by one.
            return Nack(frame.req_id, frame.ret_msg, is_satisfied=True)
        return Nack(frame.req_id, frame.ret_msg or "no reason given")


class BybitSpot(BybitMarket):
    name = SPOT
    instruments_request = RestRequest("/v5/market/instruments-info?category=spot")
    survey_requests = (RestRequest("/v5/market/tickers?category=spot"),)
    quote_assets = (
        "USDT",
        "USDC",
        "USDE",
        "USDQ",
        "USDR",
        "DAI",
        "BTC",
        "ETH",
        "SOL",
        "MNT",
        "EUR",
        "BRL",
        "PLN",
        "TRY",
    )
    addresses = re.compile(
        r"\w+://(stream(-testnet)?\.\w+\.com/v5/public/spot\b|api(-testnet)?\..*[?&]category=spot\b)"
    )
    topics_per_command = TOPICS_PER_COMMAND
    past_trades_max = 60

    def _ticker(self, frame: _Frame, data: _Data, recv_ns: int, line: Line, emit: Emit) -> Resubscribe | None:
        values = data.last + data.open + data.high + data.low + data.base_volume + data.quote_volume
        if not values >= 0.0:
            if frame.type == "delta":  # as on other markets: what it lacks is as it was
                raise DecodeError("bybit: tickers as a delta")
            if not _is_any_known(data):
                raise DecodeError("bybit: tickers lacks every number")
        state = self.tickers.get(frame.topic[TICKERS_SIZE:])
        time_ns = frame.ts * NS_PER_MS
        update_id = frame.sequence or time_ns
        if state is None or not state.accept(STATISTICS, line, update_id, recv_ns, not frame.sequence):
            return None
        state.exchange_ns = time_ns
        state.last = data.last or NAN
        state.set_statistics(data.open, data.high, data.low, data.base_volume, data.quote_volume)
        state.on_news(recv_ns)
        emit(state)
        return None


def _page(status: str, cursor: str = "") -> RestRequest:
    """Return the request for instruments of a status, "" for those that trade; cursor says where they go on."""
    query = {"category": "linear", "limit": str(PAGE_SIZE)}
    query |= {name: text for name, text in (("status", status), ("cursor", cursor)) if text}
    return RestRequest(f"/v5/market/instruments-info?{urlencode(query)}")


class BybitLinear(BybitMarket):
    """Perpetuals that are settled in the asset that they are quoted in."""

    name = "linear"
    has_pages = True
    kinds = (*BybitMarket.kinds, CONTRACT.name, LIQUIDATION.name)
    capabilities = {
        **BybitMarket.capabilities,
        TICKER.name: Capability(
            (TICKERS, BOOK),
            "statistics each 100 ms with a change, the quote each 10 ms, again after 3 s without one",
            "nothing: a lost change of statistics stands until the field changes again, or a new snapshot",
            "that statistics of a quiet symbol are alive: REST alone tells",
        ),
        TRADE.name: Capability(
            (TRADES,),
            "at once, up to 1,024 in a message",
            "nothing: ids have no order; after a lost connection the newest are fetched over REST (1,000 of them)",
            "that none is missing",
        ),
        CONTRACT.name: Capability(
            (TICKERS,),
            "each 100 ms, what has changed",
            "nothing: a lost change stands until the field changes again, or a new snapshot",
            "that mark, index, funding and open interest are of one moment; there is no predicted rate",
        ),
        LIQUIDATION.name: Capability(
            (LIQUIDATIONS,),
            "each 500 ms, all of them",
            "nothing: they have no ids, and REST has none",
            "that none is missing; the price is that of bankruptcy, not of a fill",
        ),
    }
    instruments_request = _page("")
    survey_requests = (RestRequest("/v5/market/tickers?category=linear"),)
    canary = "BTC/USDT:USDT"
    quote_assets = ("USDT", "USDC")
    addresses = re.compile(
        r"\w+://(stream(-testnet)?\.\w+\.com/v5/public/linear\b|api(-testnet)?\..*[?&]category=linear\b)"
    )
    topics_per_command = LINEAR_TOPICS_PER_COMMAND
    past_trades_max = 1000

    _frame_type = _LinearFrame
    _listed = (TRADES, LIQUIDATIONS)

    def __init__(self) -> None:
        super().__init__()
        # What each connection has stated of a symbol, which its deltas go on from, by the symbol, and the line's
        # group and place; and when a new snapshot was asked for, for want of one.
        self._stated: dict[str, dict[tuple[int, int], _LinearData]] = {}
        self._asked_ns: dict[tuple[str, int, int], int] = {}

    # --- instruments

    def rest_of_list(self, request: RestRequest, body: bytes) -> RestRequest | None:
        answer = decode_rest(self._instruments, body, "bybit instruments-info")
        status = parameters(request.path).get("status", "")
        if answer.result is not None and answer.result.cursor:
            return _page(status, answer.result.cursor)
        later = STATUSES[STATUSES.index(status) + 1 :]
        return _page(later[0]) if later else None

    def decode_instruments(self, body: bytes) -> Rows[Instrument]:
        rows = super().decode_instruments(body)
        return Rows([each for each in rows.items if each.settle], rows.problem)

    def _instrument(self, row: msgspec.Raw) -> Instrument:
        """Return a perpetual; what is no such thing has no settle asset, and is left out."""
        found = self._row.decode(row)
        instrument = super()._instrument(row)
        if found.contract_type != PERPETUAL:
            return instrument
        note = ""
        if is_early := found.status == PRE_LAUNCH and found.phase == CONTINUOUS:
            note = "before its launch: there is no funding yet, and no index"
        return msgspec.structs.replace(
            instrument,
            settle=found.settle or found.quote,
            is_trading=instrument.is_trading or is_early,
            status=f"{found.status}, {found.phase}" if found.phase else found.status,
            note=note,
        )

    def spelled(self, native: str) -> Instrument | None:
        if native.endswith(USDC_ENDING):
            base = native.removesuffix(USDC_ENDING)
            return Instrument(native, base, "USDC", market=self.name, settle="USDC")
        found = super().spelled(native)
        return msgspec.structs.replace(found, settle=found.quote) if found is not None else None

    # --- frames

    def topics(self, native: str, kind: str) -> tuple[str, ...]:
        if kind == CONTRACT.name:
            return (TICKERS + native,)
        if kind == LIQUIDATION.name:
            return (LIQUIDATIONS + native,)
        return super().topics(native, kind)

    def remove(self, states: Iterable[State]) -> None:
        """Take these out of that set; what still comes about them is ignored."""
        super().remove(states)
        carried = self.tickers.keys() | self.states[CONTRACT.name].keys()
        for native in self._stated.keys() - carried:
            del self._stated[native]
        self._asked_ns = {asked: ns for asked, ns in self._asked_ns.items() if asked[0] in carried}

    def _ticker(self, frame: _Frame, data: _Data, recv_ns: int, line: Line, emit: Emit) -> Resubscribe | None:
        assert isinstance(data, _LinearData), "as its frames have it"
        native = frame.topic[TICKERS_SIZE:]
        ticker: TickerState | None = self.tickers.get(native)
        contract: ContractState | None = self.states[CONTRACT.name].get(native)
        if ticker is None and contract is None:
            return None
        place = line.group, line.index
        time_ns = frame.ts * NS_PER_MS
        update_id = frame.sequence or time_ns
        if frame.type == "delta":
            # A new connection has sent nothing yet, though its line may be an old one's.
            newest = max(_newest_id(ticker, line), _newest_id(contract, line))
            stated = self._stated.get(native, {}).get(place) if newest else None
            if stated is None:
                return self._ask_snapshot(frame.topic, native, line, recv_ns)
            if update_id >= newest:
                stated.change(data)
        elif _has_nothing(data):
            self._doubt(frame.topic, line)
            raise DecodeError("bybit: tickers lacks every number")
        else:
            stated = self._stated.setdefault(native, {})[place] = data
        if ticker is not None and ticker.accept(STATISTICS, line, update_id, recv_ns, not frame.sequence):
            _take_ticker(ticker, stated, time_ns, recv_ns, emit)
        if contract is not None and contract.accept(0, line, update_id, recv_ns, not frame.sequence):
            _take_contract(contract, stated, frame.sequence, time_ns, recv_ns, emit)
        return None

    def _ask_snapshot(self, topic: str, native: str, line: Line, recv_ns: int) -> Resubscribe | None:
        """Have a topic begin anew of which nothing is known on a connection, but not with each of its deltas."""
        asked = native, line.group, line.index
        if 0 <= recv_ns - self._asked_ns.get(asked, -ASK_AGAIN_NS) < ASK_AGAIN_NS:
            return None
        self._asked_ns[asked] = recv_ns
        return Resubscribe(topic)

    def _doubt(self, topic: str, line: Line) -> None:
        """What has changed is missing from now on: deltas go on from nothing."""
        if topic.startswith(TICKERS):
            self._stated.get(topic[TICKERS_SIZE:], {}).pop((line.group, line.index), None)

    def _decode_odd(self, payload: bytes | bytearray | memoryview, line: Line, refused: str) -> _Frame:
        try:
            frame = super()._decode_odd(payload, line, refused)
        except DecodeError:
            self._doubt(self.topic_of(bytes(payload)), line)
            raise
        if isinstance(frame.data, _LinearData) and frame.type == "delta":
            for spelled, stated in decode_digits(payload)["data"].items():
                if spelled in SPELLED and (stated is None or stated == ""):
                    setattr(frame.data, SPELLED[spelled], VOID)
        return frame

    def _executions(
        self,
        topic: str,
        rows: Sequence[_Execution],
        indices: Sequence[int],
        recv_ns: int,
        line: Line,
        emit: Emit,
    ) -> None:
        if not topic.startswith(LIQUIDATIONS):
            return super()._executions(topic, rows, indices, recv_ns, line, emit)
        state: TradeState | None = self.states[LIQUIDATION.name].get(topic[LIQUIDATIONS_SIZE:])
        if state is None:
            return None
        keys = told_apart((row.time, row.side, row.price, row.size) for row in rows)
        new = [
            (index, row, LIQUIDATED.get(row.side, UNKNOWN_SIDE))
            for index, row, key in zip(indices, rows, keys, strict=True)
            if state.accept_trade(line, key, row.time * NS_PER_MS, recv_ns)
        ]
        return self._publish(state, new, recv_ns, emit)


BYBIT: Final = Exchange("bybit", (BybitSpot, BybitLinear))


def _newest_id(state: State | None, line: Line) -> int:
    """Return the newest update of tickers that a connection has sent of a state, 0 if it has sent none."""
    if state is None or state.group != line.group:
        return 0
    return int(state.channels[STATISTICS].line_update_id(line.index))


def _has_nothing(data: _LinearData) -> bool:
    return all(not 0.0 <= getattr(data, name) < VOID for name in TICKER_FIELDS)


def _take_ticker(state: TickerState, stated: _LinearData, time_ns: int, recv_ns: int, emit: Emit) -> None:
    """Have a ticker be as a connection states it, and emit it if that is news."""
    before, flags, was_known = _values(state), state.flags, state.is_known
    state.last = stated.last or NAN
    state.set_statistics(stated.open, stated.high, stated.low, stated.base_volume, stated.quote_volume)
    state.fill_quote(stated.bid, stated.bid_size, stated.ask, stated.ask_size)
    if not is_same(_values(state), before):
        state.exchange_ns = time_ns
    state.on_news(recv_ns)
    if not was_known or state.flags != flags or not is_same(_values(state), before):
        emit(state)


def _values(state: TickerState) -> tuple[float, ...]:
    return tuple(getattr(state, name) for name in TICKER_VALUES)


def _take_contract(
    state: ContractState, stated: _LinearData, sequence: int, time_ns: int, recv_ns: int, emit: Emit
) -> None:
    """The same of a contract."""
    state.mark, state.index = stated.mark or NAN, stated.index or NAN
    state.funding_rate, state.funding_interval_h = stated.funding_rate, stated.funding_interval_h or NAN
    due_ms = stated.next_funding_ms
    state.next_funding_ns = int(due_ms) * NS_PER_MS if due_ms == due_ms else 0
    is_single = stated.open_interest == stated.open_interest
    state.open_interest = stated.open_interest if is_single else stated.open_interest_of_sides / 2
    state.exchange_sequence, state.exchange_ns = sequence, time_ns
    if state.update(recv_ns):
        emit(state)


def _best(levels: Sequence[tuple[float, float]] | None, price: float, size: float) -> tuple[float, float]:
    """Return a side's best level after a delta, in whatever order it takes the old one away and brings another."""
    for level_price, level_size in levels or ():
        if level_size:
            price, size = level_price, level_size
        elif level_price == price:
            price, size = NO_ORDERS
    return price, size


def _is_any_known(data: _Data) -> bool:
    numbers = (data.last, data.open, data.high, data.low, data.base_volume, data.quote_volume)
    return any(number >= 0.0 for number in numbers)


def _amount(text: str | None) -> float:
    """Return a number of a REST answer, 0 for an empty text. Raises DecodeError."""
    try:
        return msgspec.convert(text or "0", Amount, strict=False)
    except msgspec.ValidationError as exc:
        raise DecodeError(f"bybit tickers: {(text or '')[:40]!r} is no price or size") from exc
