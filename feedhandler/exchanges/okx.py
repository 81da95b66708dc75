"""OKX V5, spot and linear perpetuals: `tickers` for last price and 24 h statistics, `bbo-tbt` for the quote,
`trades`, and `books` for books and depth. Of perpetuals besides: `mark-price`, `index-tickers`, `funding-rate` and
`open-interest` for contracts, and `liquidation-orders`.

Everything peculiar to OKX is here. Update ids: `ts` of tickers, bbo-tbt and depth, `seqId` of books. Quirks worth
knowing:

- ping and pong are texts, and no JSON;
- a request is answered by one message per argument, each with the request's id, which is letters and digits; a bad
  argument is refused alone, and named in the text only. 480 requests an hour and connection are permitted, however
  many arguments they have, so requests are long, and answers are counted here;
- trades: one message is one taker order at one price, with `count` fills merged; `tradeId` is the last one's, and a
  message that does not begin where the one before ended is a loss. A subscription brings the last trade at first;
- books: 400 levels a side, that the exchange keeps itself. `prevSeqId` is the id of the message before: ids jump.
  What has both the same repeats that nothing has changed, each minute; a lower `seqId` goes on with lower ids. The
  checksum is always 0. The exchange has announced that the snapshot on subscription will end: then the book over
  REST, which has an id since, is what it begins with. Depth by itself has the snapshot alone. What is lost is
  fetched over REST, and subscribed to anew if that does not help;
- perpetuals: sizes are numbers of contracts, each of `ctVal` times `ctMult`, as the list of instruments alone says;
  `volCcy24h` and `oiCcy` are in the base asset, and no channel has a volume in quote. The list has inverse ones,
  too, which `ctType` tells, and no name. `fundingTime` is the next funding, `nextFundingTime` the one after it;
- liquidation-orders is of all perpetuals at once, has no ids, at most one a second and contract, and states the
  price at which the position is worth nothing;
- a channel that is silent may be a quiet market's: books and bbo-tbt are repeated each minute, the others are not.

Source: https://www.okx.com/docs-v5/en/#order-book-trading-market-data, as of 2026-11.
Frames: tests/frames/okx/, tests/frames/okx_linear/
"""

import abc
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final, Generic
from urllib.parse import quote, urlsplit

import msgspec

from feedhandler.data.book import BOOK as BOOK_KIND
from feedhandler.data.contract import CONTRACT
from feedhandler.data.depth import DEPTH, BookLevel
from feedhandler.data.errors import UNDECODABLE, DecodeError, ProtocolError
from feedhandler.data.instruments import SPOT, Instrument, contract_size, price_tick
from feedhandler.data.levels import Amount
from feedhandler.data.liquidation import LIQUIDATION
from feedhandler.data.rest import RestRequest
from feedhandler.data.ticker import TICKER
from feedhandler.data.trade import TRADE, Side
from feedhandler.data.units import MS_PER_HOUR, NS_PER_MS, NS_PER_S
from feedhandler.data.wire import LAST, NAN
from feedhandler.exchanges.arbitration import LINES_MAX, Line
from feedhandler.exchanges.base import (
    MILLISECONDS_MAX,
    NO_ORDERS,
    PONG,
    WHOLE,
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
    Resubscribe,
    Rows,
    T,
    Traded,
    UpdateId,
    chunks,
    decode_rest,
    decode_sparse,
    in_base_asset,
    newest_time,
    parameters,
    read_row,
    read_rows,
    requested,
    rest_quote,
    rest_refusal,
    rest_ticker,
)
from feedhandler.exchanges.books import Base, BookDepthState, ChainRule, Succession
from feedhandler.exchanges.contract_state import ContractState
from feedhandler.exchanges.full_book import Changes, FullBookState
from feedhandler.exchanges.state import QUOTE, STATISTICS, State
from feedhandler.exchanges.trades import PastTrade, TradeState, numbered, told_apart

TICKERS: Final = "tickers"
BBO: Final = "bbo-tbt"
TRADES: Final = "trades"
BOOKS: Final = "books"
MARK: Final = "mark-price"
FUNDING: Final = "funding-rate"
OPEN_INTEREST: Final = "open-interest"
INDEX: Final = "index-tickers"
LIQUIDATIONS: Final = "liquidation-orders"
CHANNELS: Final = (BBO, TICKERS, BOOKS, TRADES)
SIDES: Final = {"buy": Side.BUY, "sell": Side.SELL}  # the taker's
LEVELS: Final = 400  # of a book, a side
CHAIN: Final = ChainRule(is_linked=True)
REPEATS_S: Final = 60.0  # of a book that does not change
SUBSCRIBE_AGAIN_NS: Final = 60 * NS_PER_S  # to a topic without a book: 480 requests an hour are permitted
REST_NS: Final = 5 * NS_PER_S  # what REST has not given in this time is subscribed to anew

ARGS_MAX: Final = (
    100  # of a request: 64 KB are permitted, but one that is refused whole is asked for one by one
)
ASKED_MAX: Final = 1024  # requests that wait for answers: connections may be gone

SWAP: Final = "-SWAP"  # the end of a perpetual's name
# Of kind contract: its channels, and what each states.
CONTRACT_CHANNELS: Final = {
    MARK: "mark",
    FUNDING: "funding_rate",
    OPEN_INTEREST: "open_interest",
    INDEX: "index",
}
ADDRESSES: Final = r"\w+://(ws\w*\.okx\.com(:\d+)?/ws/v5/public\b|(www|aws|openapi|eea|us)\.okx\.com/api/v5/"

OK: Final = "0"
CLOSING: Final = "64008"  # a notice, a minute before the connection is closed
TRANSIENT: Final = ("60014", "64007")  # too many requests; an error of theirs
REFUSED: Final = re.compile(r"channel:\s*([\w-]+)[,\s]+instId:\s*([^\s,]+)")  # in the text of an error
# and what is to be known of it
OPEN: Final = {"live": "", "post_only": "takes no orders that would trade at once"}


CHANNEL_IN: Final = re.compile(rb'"channel"\s*:\s*"([^"\\]*)"')
NATIVE_IN: Final = re.compile(rb'"instId"\s*:\s*"([^"\\]*)"')


class _Level(msgspec.Struct, array_like=True, gc=False):
    """A level has more: what is deprecated, and how many orders it is."""

    price: Amount
    size: Amount


class _Data(msgspec.Struct, gc=False):
    """A row of any channel; what one lacks stays at its default."""

    ts: Milliseconds = 0
    bids: list[_Level] | None = None
    asks: list[_Level] | None = None
    update_id: UpdateId = msgspec.field(name="seqId", default=0)
    before_id: Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 2)] = msgspec.field(name="prevSeqId", default=-1)
    last: Amount = NAN
    bid: Amount = msgspec.field(name="bidPx", default=NAN)
    bid_size: Amount = msgspec.field(name="bidSz", default=NAN)
    ask: Amount = msgspec.field(name="askPx", default=NAN)
    ask_size: Amount = msgspec.field(name="askSz", default=NAN)
    open: Amount = msgspec.field(name="open24h", default=NAN)
    high: Amount = msgspec.field(name="high24h", default=NAN)
    low: Amount = msgspec.field(name="low24h", default=NAN)
    volume: Amount = msgspec.field(name="vol24h", default=NAN)
    currency_volume: Amount = msgspec.field(name="volCcy24h", default=NAN)
    number: UpdateId = msgspec.field(name="tradeId", default=0)
    price: Amount = msgspec.field(name="px", default=NAN)
    size: Amount = msgspec.field(name="sz", default=NAN)
    side: str = ""
    count: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)] = 1

    @property
    def is_trade(self) -> bool:
        return self.number > 0 and self.price > 0.0 and self.size > 0.0 and self.ts > 0


class _Arg(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    channel: str = ""
    native: str = msgspec.field(name="instId", default="")
    market: str = msgspec.field(name="instType", default="")  # where a channel is that of all its instruments

    @property
    def topic(self) -> str:
        return f"{self.channel}:{self.native or self.market}"


NO_ARG: Final = _Arg()
NO_TRADE: Final = _Data()


class _Frame(msgspec.Struct, gc=False):
    """Any message: data, or an event."""

    arg: _Arg = NO_ARG
    action: str = ""
    data: list[_Data] | None = None
    event: str = ""
    id: str = ""
    code: str = ""
    msg: str = ""


class _Rows(msgspec.Struct):
    """A message of which not all rows can be read."""

    arg: _Arg
    data: list[msgspec.Raw]


class _Asked(msgspec.Struct, eq=False):
    """A request of ours: what of it has no answer yet, and what was refused."""

    command_id: str
    topics: set[str]
    refused: tuple[str, ...] = ()
    reason: str = ""


class _Instrument(msgspec.Struct):
    native: str = msgspec.field(name="instId")
    base: str = msgspec.field(name="baseCcy", default="")
    quote: str = msgspec.field(name="quoteCcy", default="")
    settle: str = msgspec.field(name="settleCcy", default="")
    contract_type: str = msgspec.field(name="ctType", default="")
    contract_value: str = msgspec.field(name="ctVal", default="")
    multiplier: str = msgspec.field(name="ctMult", default="")
    valued_in: str = msgspec.field(name="ctValCcy", default="")
    state: str = "live"
    tick: str = msgspec.field(name="tickSz", default="")


class _Ticker(msgspec.Struct):
    """A row of tickers over REST. What is not known is empty."""

    native: str = msgspec.field(name="instId")
    last: Amount | None = None
    bid: Amount | None = msgspec.field(name="bidPx", default=None)
    bid_size: Amount | None = msgspec.field(name="bidSz", default=None)
    ask: Amount | None = msgspec.field(name="askPx", default=None)
    ask_size: Amount | None = msgspec.field(name="askSz", default=None)
    open: Amount | None = msgspec.field(name="open24h", default=None)
    high: Amount | None = msgspec.field(name="high24h", default=None)
    low: Amount | None = msgspec.field(name="low24h", default=None)
    volume: Amount | None = msgspec.field(name="vol24h", default=None)
    currency_volume: Amount | None = msgspec.field(name="volCcy24h", default=None)


class _ContractData(msgspec.Struct, gc=False):
    """A row of any channel of contracts; what one lacks, or is empty there, stays at its default."""

    ts: Annotated[int, msgspec.Meta(gt=0, le=MILLISECONDS_MAX)]
    mark: Amount = msgspec.field(name="markPx", default=NAN)
    index: Amount = msgspec.field(name="idxPx", default=NAN)
    open_interest: Amount = msgspec.field(name="oiCcy", default=NAN)
    funding_rate: FundingRate = msgspec.field(name="fundingRate", default=NAN)
    next_funding_rate: FundingRate = msgspec.field(name="nextFundingRate", default=NAN)
    funding_time: Milliseconds = msgspec.field(name="fundingTime", default=0)  # the next one,
    # and the one after that
    next_funding_time: Milliseconds = msgspec.field(name="nextFundingTime", default=0)


class _ContractFrame(msgspec.Struct, gc=False):
    data: Annotated[list[_ContractData], msgspec.Meta(min_length=1, max_length=1)]


class _Liquidation(msgspec.Struct, gc=False):
    """The price is that at which the position is worth nothing; the side is the order's."""

    price: Traded = msgspec.field(name="bkPx")
    size: Traded = msgspec.field(name="sz")
    ts: Annotated[int, msgspec.Meta(gt=0, le=MILLISECONDS_MAX)]
    side: str = ""
    position_side: str = msgspec.field(name="posSide", default="")


class _LiquidationData(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="instId")
    details: list[msgspec.Raw]  # each a _Liquidation


class _LiquidationFrame(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]  # each a _LiquidationData


class _Clock(msgspec.Struct):
    ts: Milliseconds


class _Answer(msgspec.Struct, Generic[T]):
    """Any answer over REST."""

    code: str
    msg: str = ""
    data: list[T] | None = None


class _Command(msgspec.Struct):
    id: str
    op: str
    args: list[_Arg]


class _Depth(BookDepthState):
    """Depth; lacking_ns is since when each line has had no book, 0 if it has, or is another connection's."""

    def __init__(self, **names: Any) -> None:
        self.lacking_ns = [0] * LINES_MAX
        BookDepthState.__init__(self, CHAIN, LEVELS, **names)

    def _drop(self, line: int) -> None:
        BookDepthState._drop(self, line)
        self.lacking_ns[line] = 0


class _Book(FullBookState):
    """A book; lacking_ns as of depth."""

    def __init__(self, **names: Any) -> None:
        self.lacking_ns = [0] * LINES_MAX
        super().__init__(CHAIN, LEVELS, keeps=True, **names)

    def forget(self) -> None:
        super().forget()
        self.lacking_ns = [0] * LINES_MAX

    def renew(self, line: int) -> None:
        super().renew(line)
        self.lacking_ns[line] = 0


def _is_due(lacking_ns: list[int], line: int, recv_ns: int, patience_ns: int) -> bool:
    """Return whether a topic is to begin anew: it has lacked a book for so long, and again each minute."""
    since_ns = lacking_ns[line] = lacking_ns[line] or recv_ns
    if since_ns - SUBSCRIBE_AGAIN_NS <= recv_ns < since_ns + patience_ns:
        return False
    lacking_ns[line] = recv_ns + SUBSCRIBE_AGAIN_NS - patience_ns
    return True


class OkxMarket(Market):
    """What the markets have in common: hosts, limits, and the channels of all four kinds."""

    exchange = "okx"
    kinds: ClassVar[tuple[str, ...]] = (TICKER.name, TRADE.name, DEPTH.name, BOOK_KIND.name)
    capabilities = {
        TICKER.name: Capability(
            (TICKERS, BBO),
            "statistics each 100 ms with a change, the quote each 10 ms, again after a minute without one",
            "nothing: ids jump; a quote that is not repeated is stale",
            "that statistics of a quiet symbol are alive: REST alone tells",
        ),
        TRADE.name: Capability(
            (TRADES,),
            "a message for each taker's order and price, with the count of its fills",
            "an id less its count is the id before; what is missing is fetched over REST",
            "that ids follow each other: it is observed, and not promised",
        ),
        DEPTH.name: Capability(
            (BOOKS,), "changes each 100 ms", "each message names the id before it", "how much a gap has lost"
        ),
        BOOK_KIND.name: Capability(
            (BOOKS,),
            "changes each 100 ms, again after a minute without one",
            "each message names the id before it",
            "how much a gap has lost; levels beyond the best 400 a side; the checksum is always 0",
        ),
    }
    ws_url = "wss://ws.okx.com"
    rest_url = "https://www.okx.com"
    time_request = RestRequest("/api/v5/public/time", weight=2)
    # Each endpoint has a limit of its own, of 20 requests in 2 s, or 40 for books. Weights are such that those that
    # are repeated keep a tenth of theirs, all together.
    rest_limit = (800, 20.0)
    path_statuses = frozenset({429, 451})  # and what is not served in a country may be contracts alone
    trade_ids_are_consecutive = True
    trades_begin_with_last = True
    past_trades_max = 100
    book_rule = CHAIN
    book_levels = LEVELS
    base_levels = LEVELS

    domains = ("okx.com", "okex.com")

    topics_max = 240  # no limit is published; 236 channels of books on one connection were without trouble
    command_interval_s = 0.1
    requests_max = (480, 3600.0)  # to subscribe and unsubscribe
    connects = (3, 1.0)
    ping_interval_s = 20.0  # the connection is cut after 30 s in which nothing was sent
    repeats_s = {(TICKER.name, QUOTE): REPEATS_S, (BOOK_KIND.name, 0): REPEATS_S}

    def __init__(self) -> None:
        super().__init__()
        self._decode = msgspec.json.Decoder(_Frame, strict=False).decode
        self._decode_rows = msgspec.json.Decoder(_Rows).decode
        self._row = msgspec.json.Decoder(_Data, strict=False)
        self._rows = msgspec.json.Decoder(_Answer[msgspec.Raw], strict=False)
        self._instrument_row = msgspec.json.Decoder(_Instrument, strict=False)
        self._ticker_row = msgspec.json.Decoder(_Ticker, strict=False)
        self._tickers = msgspec.json.Decoder(_Answer[_Ticker], strict=False)
        self._time = msgspec.json.Decoder(_Answer[_Clock], strict=False)
        self._books = msgspec.json.Decoder(_Answer[_Data], strict=False)
        self._asked: dict[str, _Asked] = {}  # by the id that they were sent with
        self._asked_count = 0

    def add(self, natives: Iterable[str], base_flags: int, kind: str = TICKER.name) -> list[State]:
        """Take symbols, in a kind, into the set whose frames are decoded.

        Raises ValueError for one of another market: in recordings, connections have those of several.
        """
        natives = list(natives)
        if not all(map(self.is_own, natives)):
            raise ValueError(f"of another market: {', '.join(natives)[:60]}")
        return super().add(natives, base_flags, kind)

    @abc.abstractmethod
    def is_own(self, native: str) -> bool:
        """Return whether a native symbol is of this market, by its spelling."""

    @abc.abstractmethod
    def volumes(self, row: "_Data | _Ticker") -> tuple[Any, Any]:
        """Return the volumes of 24 h in base and quote asset."""

    # --- REST

    def decode_instruments(self, body: bytes) -> Rows[Instrument]:
        rows = _data_of(self._rows, body, "okx instruments")
        found = read_rows(self._instrument, rows, "okx instruments")
        return Rows([row for row in found.items if row is not None], found.problem)

    def _instrument(self, raw: msgspec.Raw) -> Instrument | None:
        row = self._instrument_row.decode(raw)
        found = self.instrument(row)
        if found is None:
            return None
        if not self.is_own(row.native):
            raise DecodeError(f"{row.native} is not spelled as instruments of this market are")
        if not found.base or not found.quote:
            raise DecodeError("an instrument without base or quote")
        is_trading, note, tick = row.state in OPEN, OPEN.get(row.state, ""), price_tick(row.tick)
        return msgspec.structs.replace(found, is_trading=is_trading, status=row.state, note=note, tick=tick)

    @abc.abstractmethod
    def instrument(self, row: "_Instrument") -> Instrument | None:
        """Return what a row of the list names; None: it is of no market of ours."""

    def decode_time(self, body: bytes) -> int:
        return _one(_data_of(self._time, body, "okx time"), "okx time").ts * NS_PER_MS

    def quote_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v5/market/ticker?instId={quote(native, safe='')}", weight=4)

    def decode_quote(self, body: bytes) -> Quote:
        row = _one(_data_of(self._tickers, body, "okx ticker"), "okx ticker")
        size = self.contract_size(row.native)
        return rest_quote(
            row.bid, in_base_asset(row.bid_size, size), row.ask, in_base_asset(row.ask_size, size)
        )

    def decode_survey(self, body: bytes) -> Rows[RestTicker]:
        rows = _data_of(self._rows, body, "okx tickers")
        found = read_rows(self._rest_ticker, rows, "okx tickers")
        return Rows([row for row in found.items if row is not None], found.problem)

    def _rest_ticker(self, raw: msgspec.Raw) -> RestTicker | None:
        row = self._ticker_row.decode(raw)
        if row.last is row.bid is row.ask is None or not self.is_known(row.native):
            return None  # all of it is empty: trading has not begun, or has ended; or it is of another market
        size = self.contract_size(row.native)
        quote = row.bid, in_base_asset(row.bid_size, size), row.ask, in_base_asset(row.ask_size, size)
        return rest_ticker(row.native, quote, row.last, (row.open, row.high, row.low, *self.volumes(row)))

    def is_known(self, native: str) -> bool:
        """Return whether sizes of a symbol can be read."""
        return True

    def past_trades_request(self, native: str, number: int) -> RestRequest:
        # `after` is older than, so this is the page that begins with the number.
        path = f"/api/v5/market/history-trades?instId={quote(native, safe='')}&type=1"
        after = f"&after={number + self.past_trades_max}" if number else ""
        return RestRequest(f"{path}{after}&limit={self.past_trades_max}", weight=4)

    def lists(self, url: str) -> bool:
        own = parameters(self.instruments_request.path)["instType"]
        return super().lists(url) and parameters(url).get("instType") == own

    def past_trades_at(self, url: str) -> str:
        native = parameters(url).get("instId", "")
        is_asked = urlsplit(url).path == "/api/v5/market/history-trades" and self.is_own(native)
        return native if is_asked else ""

    def decode_past_trades(self, native: str, body: bytes) -> Rows[PastTrade]:
        rows, size = _data_of(self._rows, body, "okx history-trades"), self.contract_size(native)
        return read_rows(lambda raw: self._past_trade(raw, size), rows, "okx history-trades")

    def _past_trade(self, raw: msgspec.Raw, size: ContractSize) -> PastTrade:
        row = self._row.decode(raw)
        if not row.is_trade:
            raise DecodeError("a trade without its id, price, size or time")
        time_ns = row.ts * NS_PER_MS
        trade = str(row.number), row.price, in_base_asset(row.size, size), SIDES.get(row.side, Side.UNKNOWN)
        return PastTrade(numbered(row.number, time_ns), row.number, time_ns, row.number, trade)

    def base_request(self, native: str) -> RestRequest:
        path = f"/api/v5/market/books?instId={quote(native, safe='')}"
        return RestRequest(f"{path}&sz={self.base_levels}&source=0", weight=2)

    def decode_base(self, native: str, body: bytes) -> Base:
        row = _one(_data_of(self._books, body, "okx books"), "okx books")
        if row.bids is None or row.asks is None:
            raise DecodeError("okx books: the answer lacks a side")
        if not row.update_id:
            raise DecodeError("okx books: the answer lacks its id, so no change can follow it")
        size = self.contract_size(native)
        bids, asks = _pairs(row.bids, size), _pairs(row.asks, size)
        return Base(row.update_id, bids, asks, LEVELS, row.ts * NS_PER_MS)

    def base_at(self, url: str) -> tuple[str, int] | None:
        asked = parameters(url)
        if urlsplit(url).path != "/api/v5/market/books" or not self.is_own(asked.get("instId", "")):
            return None
        size = asked.get("sz", "")
        return asked["instId"], int(size) if size.isdecimal() else 1

    # --- connections and requests

    def endpoint(self, ws_url: str, handshake: bytes, connect_id: str) -> Endpoint:
        return Endpoint(f"{ws_url}/ws/v5/public")

    def make_state(self, kind: str, topic: str, native: str, base_flags: int) -> State:
        if kind not in (DEPTH.name, BOOK_KIND.name):
            return super().make_state(kind, topic, native, base_flags)
        names = {"topic": topic, "native": native, "base_flags": base_flags, "flags": base_flags}
        return _Depth(**names) if kind == DEPTH.name else _Book(**names)

    def topics(self, native: str, kind: str) -> tuple[str, ...]:
        if kind == TRADE.name:
            return (f"{TRADES}:{native}",)
        if kind in (DEPTH.name, BOOK_KIND.name):
            return (f"{BOOKS}:{native}",)
        return (f"{TICKERS}:{native}", f"{BBO}:{native}")

    def topic_of(self, head: bytes) -> str:
        channel, native = CHANNEL_IN.search(head), NATIVE_IN.search(head)
        found = b"%s:%s" % (channel[1], native[1]) if channel and native else b""
        return found.decode(errors="replace")

    def batches(self, topics: Sequence[str]) -> Iterator[tuple[str, ...]]:
        return chunks(topics, ARGS_MAX)

    def subscribe(self, topics: Sequence[str], command_id: str) -> bytes:
        return self._command("subscribe", topics, command_id)

    def unsubscribe(self, topics: Sequence[str], command_id: str) -> bytes:
        return self._command("unsubscribe", topics, command_id)

    def _command(self, op: str, topics: Sequence[str], command_id: str) -> bytes:
        """Return a request, and note what is to be answered: its id is like no other of any connection."""
        self._asked_count += 1
        sent_id = f"{command_id}x{self._asked_count}"
        if len(self._asked) >= ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        self._asked[sent_id] = _Asked(command_id, set(topics))
        args = [_arg(topic) for topic in topics]
        return msgspec.json.encode(_Command(sent_id, op, args))

    def requested(self, frame: bytes) -> tuple[bool, Sequence[str]] | None:
        return requested(frame, _Command, lambda command: (command.op, [arg.topic for arg in command.args]))

    def ping(self, command_id: str) -> bytes:
        return b"ping"

    # --- messages

    def decode(
        self, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit
    ) -> Control | None:
        # hot: `make bench-micro`, decode
        try:
            frame = self._decode(payload)
        except UNDECODABLE as exc:
            if payload == b"pong":
                return PONG
            if payload == b"ping":
                return Ack("ping")  # a sign of life, and the answer to nothing
            if self._take_odd(payload, recv_ns, line, emit):
                return None
            frame = decode_sparse(self._decode, payload, f"okx: {exc}")
        if frame.data is None or frame.event:
            return self._answer(frame)
        channel, native = frame.arg.channel, frame.arg.native
        if channel == TRADES:
            self._trades(native, frame.data, recv_ns, line, emit)
            return None
        if channel not in CHANNELS:
            if channel:
                self.take_other(frame.arg, payload, recv_ns, line, emit)
                return None
            raise DecodeError("okx: data of no channel")
        if len(frame.data) != 1 or not frame.data[0].ts:
            raise DecodeError(f"okx: {channel} is not one row with its time")
        data = frame.data[0]
        if channel == BBO:
            self._bbo(native, data, recv_ns, line, emit)
        elif channel == TICKERS:
            self._ticker(native, data, recv_ns, line, emit)
        else:
            return self._book(frame.arg, frame.action, data, recv_ns, line, emit)
        return None

    def take_other(
        self, arg: _Arg, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit
    ) -> None:
        """Take a message of another channel, which may be one that we did not request."""

    def _bbo(self, native: str, data: _Data, recv_ns: int, line: Line, emit: Emit) -> None:
        bids, asks = data.bids, data.asks
        if bids is None or asks is None:
            raise DecodeError("okx: bbo-tbt lacks a side")
        state = self.tickers.get(native)
        time_ns = data.ts * NS_PER_MS
        if state is None:
            return
        size = self.contract_size(native)
        if not state.accept(QUOTE, line, time_ns, recv_ns, True):
            return
        state.exchange_sequence = data.update_id
        state.exchange_ns = time_ns
        bid, bid_size = (bids[0].price, bids[0].size) if bids else NO_ORDERS
        ask, ask_size = (asks[0].price, asks[0].size) if asks else NO_ORDERS
        state.set_quote(bid, in_base_asset(bid_size, size), ask, in_base_asset(ask_size, size))
        state.on_news(recv_ns)
        emit(state)

    def _ticker(self, native: str, data: _Data, recv_ns: int, line: Line, emit: Emit) -> None:
        values = data.last + data.open + data.high + data.low + data.volume + data.currency_volume
        if not values >= 0.0 and not _is_any_known(data):
            raise DecodeError("okx: tickers lacks every number")
        state = self.tickers.get(native)
        time_ns = data.ts * NS_PER_MS
        if state is None:
            return
        size = self.contract_size(native)
        if not state.accept(STATISTICS, line, time_ns, recv_ns, True):
            return
        state.exchange_ns = time_ns
        state.last = data.last or NAN
        state.set_statistics(data.open, data.high, data.low, *self.volumes(data))
        if data.bid >= 0.0 or data.ask >= 0.0:
            bid_size, ask_size = in_base_asset(data.bid_size, size), in_base_asset(data.ask_size, size)
            state.fill_quote(data.bid, bid_size, data.ask, ask_size)
        state.on_news(recv_ns)
        emit(state)

    def _take_odd(
        self, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit
    ) -> bool:
        """Take the trades that can be read of a message that was refused; False if it is to be refused.

        Rows of channels that we did not request have any shape.
        """
        try:
            frame = self._decode_rows(payload)
        except UNDECODABLE:
            return False
        if frame.arg.channel not in ("", *CHANNELS):
            self.take_other(frame.arg, payload, recv_ns, line, emit)
            return True
        if frame.arg.channel != TRADES:
            return False
        rows = []
        for raw in frame.data:
            try:
                rows.append(read_row(self._row.decode, raw))
            except DecodeError:
                rows.append(NO_TRADE)
        self._trades(frame.arg.native, rows, recv_ns, line, emit)
        return True

    def _trades(self, native: str, rows: Sequence[_Data], recv_ns: int, line: Line, emit: Emit) -> None:
        """Publish those that are new. Raises DecodeError after the last of them, if any cannot be read."""
        trades = [(index, row) for index, row in enumerate(rows) if row.is_trade]
        state: TradeState | None = self.states[TRADE.name].get(native)
        if state is not None:
            self._publish(state, trades, self.contract_size(native), recv_ns, line, emit)
        if bad := len(rows) - len(trades):
            raise DecodeError(f"okx: {bad} of {len(rows)} trades cannot be read")

    def _publish(
        self,
        state: TradeState,
        trades: Sequence[tuple[int, _Data]],
        size: ContractSize,
        recv_ns: int,
        line: Line,
        emit: Emit,
    ) -> None:
        # All are judged before the first is emitted: the last one that is new is flagged.
        new = []
        for index, row in trades:
            time_ns = row.ts * NS_PER_MS
            key = numbered(row.number, time_ns)
            if state.accept_trade(line, key, time_ns, recv_ns, row.number, row.count):
                new.append((index, row))
        left = len(new)
        for index, row in new:
            left -= 1
            state.publish(
                (
                    str(row.number),
                    row.price,
                    in_base_asset(row.size, size),
                    SIDES.get(row.side, Side.UNKNOWN),
                ),
                row.ts * NS_PER_MS,
                recv_ns,
                emit,
                sequence=row.number,
                count=row.count,
                index=index,
                flags=0 if left else LAST,
            )

    def _book(
        self, arg: _Arg, action: str, data: _Data, recv_ns: int, line: Line, emit: Emit
    ) -> Resubscribe | None:
        """Take a message of `books`, for depth and for the whole book."""
        depth: _Depth | None = self.states[DEPTH.name].get(arg.native)
        book: _Book | None = self.states[BOOK_KIND.name].get(arg.native)
        if depth is None and book is None:
            return None
        is_base = action == "snapshot"
        if data.bids is None or data.asks is None or not (is_base or action == "update"):
            raise DecodeError("okx: books lacks a side, or its action")
        if not data.update_id or not (is_base or data.before_id >= 0):
            raise DecodeError("okx: books lacks its ids")
        index, update_id, time_ns = line.index, data.update_id, data.ts * NS_PER_MS
        size = self.contract_size(arg.native)
        bids, asks = _pairs(data.bids, size), _pairs(data.asks, size)
        changes = Changes(data.before_id + 1, update_id, bids, asks, time_ns)
        is_known = True
        # Depth and book of a symbol may be on connections of their own: what one lacks is no matter of the other.
        if book is not None and book.group != line.group:
            book = None
        if book is not None and is_base:
            book.take_base(line, Base(update_id, bids, asks, LEVELS, time_ns), update_id, recv_ns, emit)
        elif book is not None:
            book.take(line, changes, update_id, recv_ns, emit)
            is_known = book.is_known_on(index)
        if depth is not None and depth.group == line.group:
            own = depth.books[index]
            found = Succession.NEXT
            if is_base:
                own.replace(update_id, bids, asks)
            else:
                if book is not None and book.is_known_on(index) > own.is_known:
                    own.copy(book.lines[index])  # it has begun over REST
                found = own.apply(changes.first_id, update_id, bids, asks)
            is_known = self._depth(depth, found, changes, recv_ns, line, emit) and is_known
        lacking = book or depth  # either is told of a new connection
        if is_known or lacking is None:
            if lacking is not None:
                lacking.lacking_ns[index] = 0
            return None
        is_due = _is_due(lacking.lacking_ns, index, recv_ns, REST_NS if book is not None else 0)
        return Resubscribe(arg.topic) if is_due else None

    def _depth(
        self,
        state: BookDepthState,
        found: Succession,
        changes: Changes,
        recv_ns: int,
        line: Line,
        emit: Emit,
    ) -> bool:
        """Publish the best of the line's own book, which has a message; False if the book is lost."""
        book = state.books[line.index]
        is_gone = found is Succession.OLD and book.stays_old(changes.last_id, recv_ns)
        if found is Succession.GAP or is_gone or book.stays_crossed(recv_ns):
            flags = state.flags
            state.lose(line.index, recv_ns)
            if state.flags != flags:
                emit(state)
            return False
        if state.accept(0, line, changes.exchange_ns, recv_ns, True):
            state.exchange_sequence = changes.last_id
            state.exchange_ns = changes.exchange_ns
            if state.update(book.bids, book.asks, recv_ns):
                emit(state)
        return True

    def _answer(self, frame: _Frame) -> Control | None:
        if frame.event in ("subscribe", "unsubscribe"):
            return self._granted(frame)
        if frame.event == "error":
            return self._refused(frame, f"{frame.msg or 'no reason given'} (code {frame.code})")
        if frame.event == "notice":
            return Goodbye(f"{frame.msg} (code {frame.code})") if frame.code == CLOSING else None
        raise DecodeError("okx: message of no known kind")

    def _granted(self, frame: _Frame) -> Ack | Nack | None:
        asked = self._asked.get(frame.id)
        if asked is None:
            return Ack(frame.id)
        asked.topics.discard(frame.arg.topic)
        return self._answered(frame.id, asked)

    def _refused(self, frame: _Frame, reason: str) -> Ack | Nack | None:
        asked, named = self._asked.get(frame.id), REFUSED.search(frame.msg)
        topic = f"{named[1]}:{named[2]}" if named else ""
        is_transient = frame.code in TRANSIENT
        if asked is None:
            return Nack(frame.id, reason, is_transient=is_transient)
        if topic not in asked.topics or is_transient:
            del self._asked[frame.id]
            return Nack(asked.command_id, reason, is_transient=is_transient)
        asked.topics.discard(topic)
        asked.refused, asked.reason = (*asked.refused, topic), reason
        return self._answered(frame.id, asked)

    def _answered(self, sent_id: str, asked: _Asked) -> Ack | Nack | None:
        """Return the answer to a request as a whole, once each of its arguments has one."""
        if asked.topics:
            return Ack(sent_id)  # a part of it: of no request that is known by this
        del self._asked[sent_id]
        if asked.refused:
            return Nack(asked.command_id, asked.reason, topics=asked.refused)
        return Ack(asked.command_id)


class OkxSpot(OkxMarket):
    name = SPOT
    instruments_request = RestRequest("/api/v5/public/instruments?instType=SPOT", weight=2)
    survey_requests = (RestRequest("/api/v5/market/tickers?instType=SPOT", weight=2),)
    separator = "-"
    addresses = re.compile(f"{ADDRESSES}(?!.*(SWAP|FUTURES|OPTION)))")

    def is_own(self, native: str) -> bool:
        return native.count("-") < 2

    def instrument(self, row: _Instrument) -> Instrument | None:
        return Instrument(row.native, row.base, row.quote)

    def contract_size(self, native: str) -> ContractSize:
        return WHOLE

    def volumes(self, row: _Data | _Ticker) -> tuple[Any, Any]:
        return row.volume, row.currency_volume


class OkxLinear(OkxMarket):
    """Perpetuals that are settled in what they are quoted in. Sizes are in contracts, and volumes in both."""

    name = "linear"
    kinds = (*OkxMarket.kinds, CONTRACT.name, LIQUIDATION.name)
    capabilities = {
        **OkxMarket.capabilities,
        CONTRACT.name: Capability(
            (MARK, FUNDING, OPEN_INTEREST, INDEX),
            "with a change: mark each 200 ms, else 10 s; index each 100 ms, else a minute; open interest each 3 s;"
            " funding each 30 to 90 s",
            "nothing: the newest record replaces all before it",
            "that mark, index, funding and open interest are of one moment",
        ),
        LIQUIDATION.name: Capability(
            (LIQUIDATIONS,),
            "at once",
            "nothing: they have no ids, and are incomplete by design",
            "how many there were; the price is that of bankruptcy, not of a fill",
            left_out="all but one a second and contract",
        ),
    }
    instruments_request = RestRequest("/api/v5/public/instruments?instType=SWAP", weight=2)
    survey_requests = (RestRequest("/api/v5/market/tickers?instType=SWAP", weight=2),)
    canary = "BTC/USDT:USDT"
    foreign = frozenset({(CONTRACT.name, list(CONTRACT_CHANNELS).index(INDEX))})
    addresses = re.compile(f"{ADDRESSES}.*SWAP)")

    def __init__(self) -> None:
        super().__init__()
        self._decode_contract = msgspec.json.Decoder(_ContractFrame, strict=False).decode
        self._decode_liquidations = msgspec.json.Decoder(_LiquidationFrame, strict=False).decode
        self._liquidations_of_one = msgspec.json.Decoder(_LiquidationData, strict=False).decode
        self._liquidation_row = msgspec.json.Decoder(_Liquidation, strict=False).decode

    def is_own(self, native: str) -> bool:
        return native.endswith(SWAP) or not native.strip("\0")

    def is_known(self, native: str) -> bool:
        return native in self.contract_sizes

    def spelled(self, native: str) -> Instrument | None:
        base, _, quote = native.removesuffix(SWAP).partition("-")
        is_one = native.endswith(SWAP) and base and quote and quote != "USD"  # that is mostly inverse
        return Instrument(native, base, quote, market=self.name, settle=quote) if is_one else None

    def instrument(self, row: _Instrument) -> Instrument | None:
        """Return a perpetual; base and quote are empty there, and stand in what it is valued in and settled in."""
        if row.contract_type != "linear":
            return None
        try:
            size = contract_size(Decimal(row.contract_value) * Decimal(row.multiplier))
        except ArithmeticError:
            size = ""
        if not size and row.state in OPEN:  # before it opens, what it is may not be stated yet
            raise DecodeError(f"a contract of {row.contract_value!r} times {row.multiplier!r} is no size")
        return Instrument(row.native, row.valued_in, row.settle, settle=row.settle, contract_size=size)

    def volumes(self, row: _Data | _Ticker) -> tuple[Any, Any]:
        return row.currency_volume, NAN

    def topic_of(self, head: bytes) -> str:
        channel = CHANNEL_IN.search(head)
        if channel is not None and channel[1] == LIQUIDATIONS.encode():
            return f"{LIQUIDATIONS}:SWAP"  # instruments are named in its rows alone
        return super().topic_of(head)

    def topics(self, native: str, kind: str) -> tuple[str, ...]:
        if kind == CONTRACT.name:
            index = native.removesuffix(SWAP).partition("_")[0]
            return (
                f"{MARK}:{native}",
                f"{FUNDING}:{native}",
                f"{OPEN_INTEREST}:{native}",
                f"{INDEX}:{index}",
            )
        if kind == LIQUIDATION.name:
            return (f"{LIQUIDATIONS}:SWAP",)
        return super().topics(native, kind)

    def take_other(
        self, arg: _Arg, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit
    ) -> None:
        if arg.channel == LIQUIDATIONS:
            self._liquidations(payload, recv_ns, line, emit)
        elif arg.channel == INDEX:
            for native in filter(self.is_known, (f"{arg.native}{SWAP}", f"{arg.native}_UM{SWAP}")):
                self._contract(native, INDEX, payload, recv_ns, line, emit)
        elif arg.channel in CONTRACT_CHANNELS:
            self._contract(arg.native, arg.channel, payload, recv_ns, line, emit)

    def _contract(
        self,
        native: str,
        channel: str,
        payload: bytes | bytearray | memoryview,
        recv_ns: int,
        line: Line,
        emit: Emit,
    ) -> None:
        state: ContractState | None = self.states[CONTRACT.name].get(native)
        if state is None:
            return
        try:
            (data,) = self._decode_contract(payload).data
        except UNDECODABLE as exc:
            frame = decode_sparse(self._decode_contract, payload, f"okx: {channel}: {exc}")
            (data,) = frame.data
        value = getattr(data, CONTRACT_CHANNELS[channel])
        if value != value:
            raise DecodeError(f"okx: {channel} lacks its number")
        time_ns = data.ts * NS_PER_MS
        if not state.accept(list(CONTRACT_CHANNELS).index(channel), line, time_ns, recv_ns, True):
            return
        is_price = channel in (MARK, INDEX)  # which is not 0: it is not known
        setattr(state, CONTRACT_CHANNELS[channel], (value or NAN) if is_price else value)
        if channel == FUNDING:
            state.next_funding_ns = data.funding_time * NS_PER_MS
            hours = (data.next_funding_time - data.funding_time) / MS_PER_HOUR
            state.funding_interval_h = hours if data.funding_time and hours > 0.0 else NAN
            state.predicted_funding_rate = data.next_funding_rate
        state.exchange_ns = newest_time(state, time_ns, recv_ns)
        if state.update(recv_ns):
            emit(state)

    def _liquidations(
        self, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit
    ) -> None:
        """Publish those of our symbols; all of the market's come."""
        try:
            frame = self._decode_liquidations(payload)
        except UNDECODABLE as exc:
            raise DecodeError(f"okx: {LIQUIDATIONS}: {exc}") from exc
        found, odd = [], ""  # rows are judged one by one: they are of many symbols
        for raw in frame.data:
            try:
                data = read_row(self._liquidations_of_one, raw)
            except DecodeError as exc:
                odd = odd or str(exc)
                continue
            if self.contract_sizes and not self.is_known(data.native):
                continue  # the list has it not: of another market, or inverse
            state: TradeState | None = self.states[LIQUIDATION.name].get(data.native)
            if state is None:
                continue
            size = self.contract_size(data.native)
            for index, row in enumerate(data.details):
                try:
                    each = read_row(self._liquidation_row, row)
                except DecodeError as exc:
                    odd = odd or f"{data.native}: {exc}"
                    continue
                found.append((state, index, each, size))
        keys = told_apart(
            (state.native, each.ts, each.side, each.position_side, each.price, each.size)
            for state, _, each, _ in found
        )
        new = [
            (state, index, each, size)
            for (state, index, each, size), key in zip(found, keys, strict=True)
            if state.accept_trade(line, key, each.ts * NS_PER_MS, recv_ns)
        ]
        left = len(new)
        for state, index, each, size in new:
            left -= 1
            order = "", each.price, in_base_asset(each.size, size), SIDES.get(each.side, Side.UNKNOWN)
            state.publish(order, each.ts * NS_PER_MS, recv_ns, emit, index=index, flags=0 if left else LAST)
        if odd:
            raise DecodeError(f"okx: {LIQUIDATIONS}: {odd}")


OKX: Final = Exchange("okx", (OkxSpot, OkxLinear))


def _arg(topic: str) -> _Arg:
    channel, _, name = topic.partition(":")
    return _Arg(channel, market=name) if channel == LIQUIDATIONS else _Arg(channel, name)


def _data_of(decoder: "msgspec.json.Decoder[_Answer[T]]", body: bytes, what: str) -> list[T]:
    """Return the rows of an answer over REST. Raises DecodeError or ProtocolError, with what was requested."""
    answer = decode_rest(decoder, body, what)
    if answer.code != OK or answer.data is None:
        raise rest_refusal(what, answer.code, answer.msg)
    return answer.data


def _one(rows: Sequence[T], what: str) -> T:
    if not rows:
        raise ProtocolError(f"{what}: the exchange lists no such symbol")
    if len(rows) != 1:
        raise DecodeError(f"{what}: one row was requested, and several answered")
    return rows[0]


def _pairs(levels: Sequence[_Level], size: ContractSize) -> list[BookLevel]:
    if size is WHOLE:
        return [(level.price, level.size) for level in levels]
    count, parts = size
    return [(level.price, level.size * count / parts) for level in levels]


def _is_any_known(data: _Data) -> bool:
    numbers = (data.last, data.open, data.high, data.low, data.volume, data.currency_volume)
    return any(number >= 0.0 for number in (*numbers, data.bid, data.ask))
