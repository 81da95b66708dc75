"""Bybit V5 spot: `tickers` for last price and 24 h statistics, `orderbook.1` for the quote, `publicTrade` for
trades, `orderbook.50` for depth and `orderbook.200` for books.

Everything peculiar to Bybit is here. Update ids: `u` of orderbook.1, `cs` of tickers, `seq` of orderbook.50, which
is the engine's count, while `u` is that of what one connection is sent. Quirks worth knowing:

- spot tickers have no bid and ask (linear ones do), and are always snapshots;
- orderbook.1 is complete and is sent again every 3 s without a change, with the same `u`; `u` = 1 is a restart of
  their service, and an empty side is an empty list. It came as deltas until 2025, and they are still understood: a
  level with size 0 is gone, another one is the side's new best, and a side without levels is as it was;
- publicTrade has up to 1024 trades in a message, in order, and says `snapshot` though each is new; ids are texts
  without an order;
- orderbook.50 is a book, then what changes in it: a size of 0 takes a level away, and one that leaves the best 50
  goes without a word. Its `u` counts by 1, though that is not promised: a gap is a reason to subscribe anew.
  orderbook.200 is the same of the best 200;
- the symbol of data is that of their topic;
- at most 10 topics in a request, and one bad topic refuses the whole request; a refusal may lack req_id;
- the pong of the spot socket says `"op":"ping"`; test `success` and `ret_msg`, not `op`.

Source: https://bybit-exchange.github.io/docs/v5/ws/connect and v5/websocket/public, as of 2026-11.
Frames: tests/frames/bybit/
"""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Generic
from urllib.parse import quote

import msgspec

from feedhandler.data.book import BOOK as BOOK_KIND
from feedhandler.data.depth import DEPTH
from feedhandler.data.errors import UNDECODABLE, DecodeError, ProtocolError
from feedhandler.data.instruments import SPOT, Instrument, price_tick
from feedhandler.data.rest import RestRequest
from feedhandler.data.ticker import TICKER
from feedhandler.data.trade import BLOCK, ID_SIZE, TRADE, UNKNOWN_SIDE, Side
from feedhandler.data.units import NS_PER_MS
from feedhandler.data.wire import LAST, NAN
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import (
    MILLISECONDS_MAX,
    NO_ORDERS,
    PONG,
    Ack,
    Amount,
    Control,
    Emit,
    Endpoint,
    Exchange,
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
    decode_rest,
    decode_sparse,
    read_rows,
    requested,
    rest_quote,
    rest_refusal,
    rest_ticker,
    spread,
)
from feedhandler.exchanges.books import NEXT, OLD, Base, BookDepthState, ChainRule
from feedhandler.exchanges.full_book import Changes, FullBookState
from feedhandler.exchanges.state import QUOTE, STATISTICS, State, TickerState
from feedhandler.exchanges.trades import PastTrade

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
SIDES: Final = {"Buy": Side.BUY, "Sell": Side.SELL}  # the taker's
TOPICS_PER_COMMAND: Final = 10
ARGS_LENGTH_MAX: Final = 21_000  # characters of all topics of one connection
ARGS_LENGTH_USED: Final = 20_000  # by symbols: quotes and commas may count or not, and there is the canary
assert ARGS_LENGTH_USED < ARGS_LENGTH_MAX

RESTARTED: Final = 1  # the update id of a book that begins anew, whatever its type is
CHAIN: Final = ChainRule(restart_id=RESTARTED)
UNKNOWN: Final = (NAN, NAN)  # price and size of a side of which nothing is stated


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


class _Trade(msgspec.Struct, gc=False):
    """A row of `publicTrade`."""

    trade_id: Annotated[str, msgspec.Meta(min_length=1, max_length=ID_SIZE)] = msgspec.field(name="i")
    time: Annotated[int, msgspec.Meta(gt=0, le=MILLISECONDS_MAX)] = msgspec.field(name="T")
    price: Traded = msgspec.field(name="p")
    size: Traded = msgspec.field(name="v")
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


class _TradeRows(msgspec.Struct):
    """A message of `publicTrade` of which not all rows can be read."""

    topic: str
    data: list[msgspec.Raw]


class _Frame(msgspec.Struct, gc=False):
    """Any message: data (`topic`), or the answer to a command (`op`)."""

    topic: str = ""
    type: str = ""
    ts: Milliseconds = 0
    cts: Milliseconds = 0
    sequence: UpdateId = msgspec.field(name="cs", default=0)  # of tickers
    data: _Data | list[_Trade] | None = None
    op: str = ""
    success: bool | None = None
    ret_msg: str = ""
    req_id: str = ""


class _Instrument(msgspec.Struct):
    symbol: str
    base: str = msgspec.field(name="baseCoin")
    quote: str = msgspec.field(name="quoteCoin")
    status: str = "Trading"
    prices: Any = msgspec.field(name="priceFilter", default=None)

    @property
    def tick(self) -> str:
        return price_tick(self.prices.get("tickSize")) if isinstance(self.prices, dict) else ""


class _Instruments(msgspec.Struct):
    rows: list[msgspec.Raw] | None = msgspec.field(name="list", default=None)  # each an _Instrument


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


class BybitSpot(Market):
    exchange = "bybit"
    name = SPOT
    kinds = (TICKER.name, TRADE.name, DEPTH.name, BOOK_KIND.name)
    ws_url = "wss://stream.bybit.com"
    rest_url = "https://api.bybit.com"
    instruments_request = RestRequest("/v5/market/instruments-info?category=spot")
    time_request = RestRequest("/v5/market/time")
    survey_requests = (RestRequest("/v5/market/tickers?category=spot"),)
    # Requests, whatever they are for: https://bybit-exchange.github.io/docs/v5/rate-limit, as of 2026-11.
    rest_limit = (600, 5.0)

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
    domains = ("bybit.com", "bytick.com")
    addresses = re.compile(
        r"\w+://(stream(-testnet)?\.\w+\.com/v5/public/spot\b|api(-testnet)?\..*[?&]category=spot\b)"
    )

    topic_key = b"topic"
    command_interval_s = 0.05  # no limit is documented; 200 requests in 0.4 s were all accepted
    connects = (500, 300.0)
    ping_interval_s = 20.0  # recommended; a socket that neither pings nor subscribes was cut after 61 s
    past_trades_max = 60
    book_rule = CHAIN
    book_levels = BOOK_200_LEVELS
    repeats_s = {(TICKER.name, QUOTE): 3.0}

    def __init__(self) -> None:
        super().__init__()
        self._decode = msgspec.json.Decoder(_Frame, strict=False).decode
        self._trade_rows = msgspec.json.Decoder(_TradeRows)
        self._trade = msgspec.json.Decoder(_Trade, strict=False)
        self._instruments = msgspec.json.Decoder(_Answer[_Instruments])
        self._row = msgspec.json.Decoder(_Instrument)
        self._time = msgspec.json.Decoder(_Answer[_Time], strict=False)
        self._tickers = msgspec.json.Decoder(_Answer[_RestTickers])
        self._all_tickers = msgspec.json.Decoder(_Answer[_BulkRows])
        self._past_trade_row = msgspec.json.Decoder(_PastTrade, strict=False)
        self._bulk_row = msgspec.json.Decoder(_BulkRow)

    def decode_instruments(self, body: bytes) -> Rows[Instrument]:
        answer = decode_rest(self._instruments, body, "bybit instruments-info")
        if answer.code != 0 or answer.result is None or answer.result.rows is None:
            raise rest_refusal("bybit instruments-info", answer.code, answer.message)
        return read_rows(self._instrument, answer.result.rows, "bybit instruments-info")

    def _instrument(self, row: msgspec.Raw) -> Instrument:
        found = self._row.decode(row)
        is_trading = found.status == "Trading"
        return Instrument(found.symbol, found.base, found.quote, is_trading, found.status, tick=found.tick)

    def decode_time(self, body: bytes) -> int:
        answer = decode_rest(self._time, body, "bybit time")
        if answer.code != 0 or answer.result is None or answer.result.time_ns is None:
            raise rest_refusal("bybit time", answer.code, answer.message)
        return answer.result.time_ns

    def quote_request(self, native: str) -> RestRequest:
        return RestRequest(f"/v5/market/tickers?category=spot&symbol={quote(native, safe='')}")

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
        path = f"/v5/market/recent-trade?category=spot&symbol={quote(native, safe='')}"
        return RestRequest(f"{path}&limit={self.past_trades_max}")

    def decode_past_trades(self, native: str, body: bytes) -> Rows[PastTrade]:
        answer = decode_rest(self._all_tickers, body, "bybit recent-trade")
        if answer.code != 0 or answer.result is None or answer.result.rows is None:
            raise rest_refusal("bybit recent-trade", answer.code, answer.message)
        return read_rows(self._past_trade, answer.result.rows, "bybit recent-trade")

    def _past_trade(self, row: msgspec.Raw) -> PastTrade:
        r = self._past_trade_row.decode(row)
        trade = r.trade_id, r.price, r.size, SIDES.get(r.side, UNKNOWN_SIDE)
        bits = BLOCK if r.is_block else 0
        return PastTrade(r.trade_id, 0, r.time * NS_PER_MS, r.sequence, trade, bits)

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
        return Endpoint(f"{ws_url}/v5/public/spot")

    def connections(self, states: Sequence[State]) -> list[list[State]]:
        return spread(states, self._length, ARGS_LENGTH_USED)

    def _length(self, state: State) -> int:
        return sum(len(topic) + 3 for topic in self.topics(state.native, state.kind))

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
        return chunks(topics, TOPICS_PER_COMMAND)

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
            frame = decode_sparse(self._decode, payload, f"bybit: {exc}")
        data = frame.data
        if data.__class__ is _Data:
            if frame.topic.startswith(BOOK):
                self._book(frame, data, recv_ns, line, emit)
                return None
            if frame.topic.startswith(TICKERS):
                self._ticker(frame, data, recv_ns, line, emit)
                return None
            if frame.topic.startswith(BOOK_50):
                return self._depth(frame, data, recv_ns, line, emit)
            if frame.topic.startswith(BOOK_200):
                self._whole_book(frame, data, recv_ns, line, emit)
                return None
        elif isinstance(data, list) and frame.topic.startswith(TRADES):
            self._trades(frame.topic, data, range(len(data)), recv_ns, line, emit)
            return None
        if data is not None:
            if not frame.topic:
                raise DecodeError("bybit: data without a topic")
            if frame.topic.startswith((BOOK, BOOK_50, BOOK_200, TICKERS, TRADES)):
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
        found = NEXT
        if frame.type == "delta" and not book.is_restart(update_id):
            found = book.apply(update_id, update_id, bids, asks)
        else:
            book.replace(update_id, bids, asks)
        if found is OLD:
            # One that was made later is of another count, of which the book is not: its ids would follow one day.
            is_later = order > state.channels[0].line_update_id(line.index)
            if not is_later and not book.stays_old(update_id, recv_ns):
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

    def _ticker(self, frame: _Frame, data: _Data, recv_ns: int, line: Line, emit: Emit) -> None:
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
            return
        state.exchange_ns = time_ns
        state.last = data.last or NAN
        state.set_statistics(data.open, data.high, data.low, data.base_volume, data.quote_volume)
        state.on_news(recv_ns)
        emit(state)

    def _decode_rows(
        self, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit, refused: str
    ) -> bool:
        """Take the trades that can be read of a message that was refused; False if it has none.

        Raises DecodeError after the last of them.
        """
        try:
            frame = self._trade_rows.decode(payload)
        except UNDECODABLE:
            return False
        if not frame.topic.startswith(TRADES):
            return False
        trades, indices = [], []
        for index, row in enumerate(frame.data):
            try:
                trades.append(self._trade.decode(row))
                indices.append(index)
            except UNDECODABLE:
                continue
        self._trades(frame.topic, trades, indices, recv_ns, line, emit)
        bad = len(frame.data) - len(trades)
        raise DecodeError(f"{refused}; {bad} of {len(frame.data)} trades cannot be read")

    def _trades(
        self,
        topic: str,
        trades: Sequence[_Trade],
        indices: Sequence[int],
        recv_ns: int,
        line: Line,
        emit: Emit,
    ) -> None:
        state = self.states[TRADE.name].get(topic[TRADES_SIZE:])
        if state is None:
            return
        # All are judged before the first is emitted: the last one that is new is flagged.
        new = [
            (index, trade)
            for index, trade in zip(indices, trades, strict=True)
            if state.accept_trade(line, trade.trade_id, trade.time * NS_PER_MS, recv_ns)
        ]
        left = len(new)
        for index, trade in new:
            left -= 1
            state.publish(
                (trade.trade_id, trade.price, trade.size, SIDES.get(trade.side, UNKNOWN_SIDE)),
                trade.time * NS_PER_MS,
                recv_ns,
                emit,
                sequence=trade.sequence,
                bits=BLOCK if trade.is_block else 0,
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


BYBIT: Final = Exchange("bybit", (BybitSpot,))


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
