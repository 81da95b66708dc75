"""Binance's USD-M contracts, simulated: what is theirs alone. Connections are those of binance.py.

Pure. Its own reading of the documentation; the feed handler's adapter is another, and the two meet only on the
socket. The exchange has them on hosts of their own; here those are the paths that begin with `PATH`.

Sources:
  streams, REST  https://developers.binance.com/docs/derivatives/usds-margined-futures
  shapes         https://github.com/binance/binance-connector-python (clients/derivatives_trading_usds_futures)
Streams are on two paths, `/public` and `/market`. Either acknowledges those of the other, and is silent; so is a
socket without a path, which brings those of `/public`: the form that was retired in 2026-04 (reported). `/private`
can be connected to, and brings nothing: accounts are not played.
Ids of changes are counted across all contracts: those of one rise and leave out many, so that an event names the
one before it (`pu`). Trades of one price and side come merged, every 100 ms; of liquidations the newest of each
second; a liquidation is one of the trades. A rate of funding is that of the interval that runs, until it is due.
fundingInfo has only the contracts whose interval or bounds were changed: the others have 8 h.
Not in the documentation, and served (https://github.com/tardis-dev/tardis-node): single trades, by `/public`.
Not played: klines, composite indexes, streams of all contracts. They are acknowledged and silent.
"""

import re
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from feedhandler.sim.market import (
    ContractInstrument,
    Instrument,
    Listing,
    contracts_of,
    instruments_of,
    padded,
)
from feedhandler.sim.order_book import Fill, Level, OrderBook
from feedhandler.sim.perpetuals import INTEREST, ONE_IN, RATE_DECIMALS, RATE_MAX, Perpetual
from feedhandler.sim.protocol import (
    NS_PER_MS,
    NS_PER_S,
    Attempts,
    BookState,
    DataStream,
    Exchange,
    HttpAnswer,
    HttpRequest,
    Now,
    Weight,
    to_json,
)
from feedhandler.sim.sources import ChangeSource, TradeSource, drop_all

LINEAR = "linear"
PATH = f"/{LINEAR}"
PUBLIC, MARKET, PRIVATE = WAYS = "/public", "/market", "/private"
COMBINED, MICROSECOND = 1, 2  # bits of a variant
UNIT = 1  # `st` of an event: USD-M
IDS_PER_CHANGE = 7  # of one book; between two of its ids there are those of other books
MERGED_NS = 100 * NS_PER_MS
MERGED_KEPT = 2000  # the newest, for REST
ENGINE_MS = 2  # by which T, of the matching engine, is before E
OLD_TRADE_NS = 20 * NS_PER_S  # ago: a trade from before anybody looked
DAY_MS = 86_400_000
FOR_EVER_MS = 4_133_404_800_000  # when a perpetual is delivered
PLACES = 8  # decimals of what is computed: mark and index prices, rates
USUAL_HOURS = 8
FUNDING_HOURS = (8, 8, 4, 1)  # by rank, in turn
DEPTH_WEIGHTS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}  # by limit: there are no others
FUNDING_WAYS = ("/fapi/v1/fundingRate", "/fapi/v1/fundingInfo")  # they share a limit of their own
STATES = {"SOONER": "PENDING_TRADING"}  # by base, of what does not trade; all others are being settled then
_QUARTERS = {  # by day of delivery
    "261225": (1_798_185_600_000, "CURRENT_QUARTER"),
    "270326": (1_806_048_000_000, "NEXT_QUARTER"),
}
_DATED = ("BTC", "ETH")
_TRADIFI = {"XAU": "COMMODITY", "TSLA": "EQUITY"}  # what is underlying, by base
_INDEXES = (  # of what is in no spot market here
    Listing(base="XAU", quote="USDT", price=4_112.4),
    Listing(base="TSLA", quote="USDT", price=428.7),
    Listing(base="SOONER", quote="USDT", price=0.25, is_trading=False),
)
_INTERVALS = "1m|3m|5m|15m|30m|1h|2h|4h|6h|8h|12h|1d|3d|1w|1M"
_PUBLIC_KINDS = r"bookTicker | trade | depth(5|10|20)?(@(100|250|500)ms)? | rpiDepth@500ms"
_MARKET_KINDS = rf"""
    aggTrade | markPrice(@1s)? | ticker | miniTicker | forceOrder | compositeIndex | kline_({_INTERVALS})
"""
_OF_ALL = (
    r"!(miniTicker|ticker|forceOrder|assetIndex)@arr | !markPrice@arr(@1s)? | !contractInfo | tradingSession"
)
_CONTINUOUS = (
    rf"[^!@/\s]+_(perpetual|current_quarter|next_quarter|tradifi_perpetual)@continuousKline_({_INTERVALS})"
)
_OF_PUBLIC = re.compile(rf"[^!@/\s]+@({_PUBLIC_KINDS}) | !bookTicker", re.VERBOSE)
_OF_MARKET = re.compile(rf"[^!@/\s]+@({_MARKET_KINDS}) | {_OF_ALL} | {_CONTINUOUS}", re.VERBOSE)
_DEPTH = re.compile(r"depth(?P<levels>5|10|20)?(@(?P<every_ms>100|250|500)ms)?")

EncodeEvent = Callable[[int, Now], bytes]


class ConnectionRules(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and timers of connections, as documented; tests shorten them."""

    ping_every_s: float
    pong_within_s: float
    max_age_s: float = 86_400.0
    messages_per_s: int
    message_size: int = 4096
    streams: int = 1024
    attempts: int = 300
    attempts_period_s: float = 300.0


class BinanceLinearRules(ConnectionRules, frozen=True, kw_only=True):
    """Those of contracts; a ban follows when many requests were refused, how many is not documented."""

    ping_every_s: float = 180.0
    pong_within_s: float = 600.0
    messages_per_s: int = 10
    weight_per_minute: int = 2400
    refusals_per_minute: int = 10
    funding_requests: int = 500
    funding_period_s: float = 300.0
    funding_hour_s: float = 3600.0  # how long an hour is between two fundings


def error(code: int, text: str, status: int = 400, headers: dict[str, str] | None = None) -> HttpAnswer:
    return HttpAnswer(body=to_json({"code": code, "msg": text}), status=status, headers=headers or {})


def too_many(status: int, limit: int, retry_after_s: int, now: Now) -> HttpAnswer:
    """Refuse a request for how many there were."""
    headers = {"Retry-After": str(retry_after_s)}
    if status == 418:
        until_ms = now.unix_ms + retry_after_s * 1000
        text = f"Way too much request weight used; IP banned until {until_ms}. Please use WebSocket Streams."
    elif status == 429:
        text = f"Too much request weight used; current limit is {limit} per 1 MINUTE."
    else:
        return HttpAnswer(body=b"", status=status, headers=headers)
    return error(-1003, text, status=status, headers=headers)


def combinable(name: str, event: EncodeEvent) -> EncodeEvent:
    """Wrap an event for those that want the combined form."""
    head = b'{"stream":%s,"data":' % to_json(name)

    def encode(variant: int, now: Now) -> bytes:
        return head + event(variant, now) + b"}" if variant & COMBINED else event(variant, now)

    return encode


def unread_parameters(request: HttpRequest, allowed: frozenset[str]) -> HttpAnswer | None:
    """Refuse parameters that an endpoint does not have."""
    unknown = [name for name, _ in request.query if name not in allowed]
    if not unknown:
        return None
    count, known = len(request.query), len(request.query) - len(unknown)
    text = f"Not all sent parameters were read; read '{known}' parameter(s) but was sent '{count}'."
    return error(-1104, text)


class Entrance(Protocol):
    """What a connection must know of where it was opened."""

    @property
    def rules(self) -> ConnectionRules: ...

    def is_well_formed(self, name: str) -> bool:
        """True if there may be such a stream."""
        ...

    def is_rejected(self, name: str) -> bool:
        """True if a fault has it refused."""
        ...

    def topic_of(self, name: str) -> str:
        """Return the name that a stream has where those of all markets meet."""
        ...

    def name_of(self, topic: str) -> str:
        """Undo `topic_of`."""
        ...


class LinearEntrance:
    """One of the paths, or none."""

    def __init__(self, market: "BinanceContracts", path: str) -> None:
        self._market = market
        self._path = path or PUBLIC
        self.rules = market.rules

    def is_well_formed(self, name: str) -> bool:
        return path_of(name) is not None

    def is_rejected(self, name: str) -> bool:
        return self._market.is_rejected(name.partition("@")[0].upper())

    def topic_of(self, name: str) -> str:
        """A stream of the other path has a name that no data have."""
        is_here = path_of(name) == self._path
        return f"{LINEAR}:{name}" if is_here else f"{LINEAR}{self._path}:{name}"

    def name_of(self, topic: str) -> str:
        return topic.partition(":")[2]


def path_of(name: str) -> str | None:
    """Return on which path a stream is; None: there is no such stream."""
    if _OF_PUBLIC.fullmatch(name):
        return PUBLIC
    return MARKET if _OF_MARKET.fullmatch(name) else None


class BinanceContracts:
    """The contracts: perpetuals, on pairs against USDT or USDC and on what is no coin, and some that are dated."""

    def __init__(self, exchange: Exchange, seed: int, rules: BinanceLinearRules) -> None:
        self.rules = rules
        self._exchange = exchange
        self._attempts = Attempts(rules.attempts, rules.attempts_period_s)
        self._weight, self._refusals = Weight(60.0), Weight(60.0)
        self._funding_requests = Weight(rules.funding_period_s)
        pairs = [each for each in exchange.instruments if each.listing.quote in ("USDT", "USDC")]
        indexes = instruments_of(_INDEXES, seed)
        listed = [
            (each, msgspec.structs.replace(each.listing, settle=each.listing.quote))
            for each in (*pairs, *indexes)
        ]
        dated = [
            (each, msgspec.structs.replace(listing, delivery=delivery))
            for each, listing in listed
            if listing.base in _DATED and listing.quote == "USDT"
            for delivery in _QUARTERS
        ]
        self.instruments = contracts_of([*listed, *dated], seed)
        self.indexes = indexes  # they move, and nobody can subscribe to them
        self.by_symbol = {symbol_of(each): each for each in self.instruments}
        self.by_stream_symbol = {symbol.lower(): each for symbol, each in self.by_symbol.items()}
        self.perpetuals = {
            symbol: Perpetual(each, int(interval_h_of(each) * rules.funding_hour_s * NS_PER_S))
            for symbol, each in self.by_symbol.items()
        }
        self.merged = MergedByInstrument(MERGED_NS)

    def entrance(self, path: str, request: HttpRequest, now: Now) -> LinearEntrance | HttpAnswer:
        """Let somebody in by a path, or say why not."""
        if not self._attempts.admit(request.remote, now.mono_ns):
            violation = f"more than {self.rules.attempts} attempts in {self.rules.attempts_period_s:g} s"
            return HttpAnswer(body=b"", status=429, headers={"Retry-After": "60"}, violation=violation)
        return LinearEntrance(self, path)

    def is_rejected(self, symbol: str) -> bool:
        return f"{LINEAR}:{symbol}" in self._exchange.rejected_symbols

    def listed(self) -> list[ContractInstrument]:
        """Return what the list has."""
        unlisted = self._exchange.unlisted_symbols
        return [each for each in self.instruments if f"{LINEAR}:{symbol_of(each)}" not in unlisted]

    def trading(self) -> list[ContractInstrument]:
        return [each for each in self.listed() if each.listing.is_trading]

    def stream(self, name: str) -> DataStream | None:
        """Make the stream of a name; None: acknowledged, and silent for ever."""
        symbol, _, kind = name.partition("@")
        each = self.by_stream_symbol.get(symbol)
        if each is None or not each.listing.is_trading:
            return None
        topic = f"{LINEAR}:{name}"
        if kind == "bookTicker":
            return DataStream(topic, each, combinable(name, _book_ticker(each)))
        if kind == "trade":
            trades = TradeSource(each.order_book())
            encode = combinable(name, _trade(each, trades))
            return DataStream(topic, each, encode, is_trade=True, source=trades)
        if kind == "aggTrade":
            merged = MergedTradeSource(self.merged.of(each))
            encode = combinable(name, _agg_trade(each, merged))
            return DataStream(topic, each, encode, regular_every_ns=MERGED_NS, is_trade=True, source=merged)
        if kind == "ticker":
            return DataStream(topic, each, combinable(name, _ticker(each)), regular_every_ns=2 * NS_PER_S)
        if kind == "miniTicker":
            encode = combinable(name, _mini_ticker(each))
            return DataStream(topic, each, encode, regular_every_ns=2 * NS_PER_S, shows_quote=False)
        if kind == "forceOrder":
            orders = ForcedOrderSource(each.order_book())
            encode = combinable(name, _force_order(each, orders))
            return DataStream(topic, each, encode, regular_every_ns=NS_PER_S, is_trade=True, source=orders)
        if kind in ("markPrice", "markPrice@1s"):
            every_ns = (1 if kind.endswith("1s") else 3) * NS_PER_S
            encode = combinable(name, _mark_price(each, self.perpetuals[symbol_of(each)]))
            # By the clock, changed or not.
            return DataStream(
                topic,
                each,
                encode,
                regular_every_ns=every_ns,
                repeat_every_ns=every_ns,
                encode_repeat=encode,
            )
        match = _DEPTH.fullmatch(kind)
        return None if match is None else _depth_stream(topic, name, each, match)

    def rest(self, request: HttpRequest, now: Now) -> HttpAnswer:
        """Answer a request, and count it: a refusal is counted as well, and many of them are a ban."""
        endpoint = _ENDPOINTS.get(request.path)
        if endpoint is None:
            return HttpAnswer(body=b"", status=404, content_type="text/html")
        if request.method != "GET":
            return HttpAnswer(body=b"", status=405)
        if self._refusals.use(request.remote, 0, now.mono_ns) > self.rules.refusals_per_minute:
            return self._refused(request, self._refusals, "banned", now)
        if request.path in FUNDING_WAYS:
            used = self._funding_requests.use(request.remote, 1, now.mono_ns)
            if used > self.rules.funding_requests:
                return self._refused(request, self._funding_requests, "requests about funding used up", now)
        used = self._weight.use(request.remote, endpoint.weight(request), now.mono_ns)
        if used > self.rules.weight_per_minute:
            return self._refused(request, self._weight, "request weight of the minute used up", now)
        answer = unread_parameters(request, endpoint.parameters) or endpoint.answer(self, request, now)
        return msgspec.structs.replace(answer, headers={"x-mbx-used-weight-1m": str(used)})

    def _refused(self, request: HttpRequest, limit: Weight, violation: str, now: Now) -> HttpAnswer:
        """Refuse a request until a limit's time is over."""
        refusals = self._refusals.use(request.remote, 1, now.mono_ns)
        status = 429 if refusals <= self.rules.refusals_per_minute else 418
        left_s = int(limit.left_s(now.mono_ns)) + 1
        refusal = too_many(status, self.rules.weight_per_minute, left_s, now)
        return msgspec.structs.replace(refusal, violation=f"linear: {violation}")

    def book_state(self, each: ContractInstrument, now: Now) -> BookState:
        return self._exchange.book_state(each, now)

    def one(self, request: HttpRequest) -> ContractInstrument | HttpAnswer:
        """Resolve a `symbol` that must be there."""
        symbol = request.one("symbol")
        if not symbol:
            return error(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        return self.by_symbol.get(symbol) or error(-1121, "Invalid symbol.")


def symbol_of(each: Instrument) -> str:
    return pair_of(each) + (f"_{each.listing.delivery}" if each.listing.delivery else "")


def pair_of(each: Instrument) -> str:
    return each.listing.base + each.listing.quote


def interval_h_of(each: Instrument) -> int:
    return each.listing.funding_hours or FUNDING_HOURS[each.index % len(FUNDING_HOURS)]


def update_number(update_id: int) -> int:
    """Return the id of a change of a book, as the exchange counts."""
    return update_id * IDS_PER_CHANGE


# What is sent of trades and books.


class MergedTrade(msgspec.Struct):
    """Trades of one price and side."""

    number: int
    first_id: int
    last_id: int
    price: int
    size: int
    is_sell: bool
    unix_ns: int


class MergedFills:
    """The trades of one book, merged if they are less than so long apart; what was read is not added to."""

    def __init__(self, book: OrderBook, within_ns: int) -> None:
        self._within_ns = within_ns
        self.kept: deque[MergedTrade] = deque(maxlen=MERGED_KEPT)
        self.logs: list[list[MergedTrade]] = []
        self._next = book.fills[0].trade_id // 2
        self._is_open = False
        for fill in book.fills:
            self.append(fill)
        book.fill_logs.append(self)

    def append(self, fill: Fill) -> None:
        newest = self.kept[-1] if self._is_open else None
        if (
            newest is not None
            and (newest.price, newest.is_sell) == (fill.price, fill.is_sell)
            and fill.unix_ns - newest.unix_ns < self._within_ns
        ):
            newest.last_id, newest.size = fill.trade_id, newest.size + fill.size
            return
        merged = MergedTrade(
            self._next, fill.trade_id, fill.trade_id, fill.price, fill.size, fill.is_sell, fill.unix_ns
        )
        self._next += 1
        self._is_open = True
        self.kept.append(merged)
        for log in self.logs:
            log.append(merged)

    def close(self) -> None:
        """What there is now is read."""
        self._is_open = False

    def read(self, first: int, begin_ms: int, end_ms: int, limit: int, now: Now) -> list[MergedTrade]:
        """Return so many from a number and a time on, or the newest; the oldest first."""
        self.close()
        found = [
            trade
            for trade in self.kept
            if trade.number >= first and begin_ms <= _time(trade.unix_ns, now) <= end_ms
        ]
        return found[:limit] if first or begin_ms else found[-limit:]


class MergedByInstrument:
    """Of each instrument of a market the trades as they are merged, from when they are wanted first."""

    def __init__(self, within_ns: int) -> None:
        self._within_ns = within_ns
        self._found: dict[int, MergedFills] = {}  # by the identity of the instrument

    def of(self, each: Instrument) -> MergedFills:
        """Return those of one."""
        found = self._found.get(id(each))
        if found is None:
            found = self._found[id(each)] = MergedFills(each.order_book(), self._within_ns)
        return found


class MergedTradeSource:
    """The merged trades, each in a message of its own."""

    def __init__(self, merged: MergedFills) -> None:
        self._merged = merged
        self._waiting: list[MergedTrade] = []
        self.message = merged.kept[-1]

    def start(self) -> None:
        self._merged.close()
        self._merged.logs.append(self._waiting)

    def stop(self) -> None:
        self._merged.logs[:] = [log for log in self._merged.logs if log is not self._waiting]

    def take(self) -> bool:
        self._merged.close()
        if not self._waiting:
            return False
        self.message = self._waiting.pop(0)
        return True

    def lose(self) -> bool:
        self._merged.close()
        return drop_all(self._waiting)


class ForcedOrderSource(TradeSource):
    """Of the liquidations since the last message the newest."""

    def take(self) -> bool:
        found = [fill for fill in self._waiting if is_liquidation(fill)]
        self._waiting.clear()
        self.message = found[-1:] or self.message
        return bool(found)

    def lose(self) -> bool:
        return self.take()


def is_liquidation(fill: Fill) -> bool:
    return fill.trade_id % ONE_IN == 0


class TopSource:
    """The best levels, whole, whenever anything has changed; each message names the one before."""

    def __init__(self, book: OrderBook) -> None:
        self._book = book
        self.before_id = self.last_id = book.update_id

    def start(self) -> None:
        self.before_id = self.last_id = self._book.update_id

    def stop(self) -> None:
        """There is nothing to give back."""

    def take(self) -> bool:
        if self.last_id == self._book.update_id:
            return False
        self.before_id, self.last_id = self.last_id, self._book.update_id
        return True

    def lose(self) -> bool:
        return self.take()


# Streams. A template holds what never changes; the rest is integers until it is printed.


def _price(each: Instrument, ticks: int) -> bytes:
    return _fixed(ticks, each.price_decimals)


def _size(each: Instrument, lots: int) -> bytes:
    return _fixed(lots, each.size_decimals)


def _fixed(value: int, decimals: int) -> bytes:
    return padded(value, decimals, decimals) if decimals else b"%d" % value


def _computed(each: Instrument, ticks: int) -> bytes:
    return padded(ticks, each.price_decimals, PLACES)


def _rate(rate: int) -> bytes:
    return padded(rate, RATE_DECIMALS, PLACES)


def _time(unix_ns: int, now: Now) -> int:
    """Return when a trade was."""
    return (unix_ns or now.unix_ns - OLD_TRADE_NS) // NS_PER_MS


def _names(each: Instrument) -> bytes:
    """Print which pair it is of, and of which family."""
    return b'"ps":%b,"st":%d' % (to_json(pair_of(each)), UNIT)


def _symbol(each: Instrument) -> bytes:
    return b'"s":%b' % to_json(symbol_of(each))


def _book_ticker(each: Instrument) -> EncodeEvent:
    template = b'{"e":"bookTicker","u":%%d,%b,%b,"b":"%%b","B":"%%b","a":"%%b","A":"%%b","T":%%d,"E":%%d}' % (
        _symbol(each),
        _names(each),
    )

    def encode(variant: int, now: Now) -> bytes:
        return template % (
            update_number(each.update_id),
            _price(each, each.bid),
            _size(each, each.bid_size),
            _price(each, each.ask),
            _size(each, each.ask_size),
            now.unix_ms - ENGINE_MS,
            now.unix_ms,
        )

    return encode


def _depth_stream(topic: str, name: str, each: ContractInstrument, match: "re.Match[str]") -> DataStream:
    every_ns = int(match["every_ms"] or 250) * NS_PER_MS
    book = each.order_book()
    source: TopSource | ChangeSource
    if match["levels"]:
        source = top = TopSource(book)
        event = _best_levels(each, top, book, int(match["levels"]))
    else:
        source = changes = ChangeSource(book)
        event = _depth_update(each, changes)
    encode = combinable(name, event)
    return DataStream(topic, each, encode, regular_every_ns=every_ns, shows_book=True, source=source)


def _best_levels(each: Instrument, top: TopSource, book: OrderBook, count: int) -> EncodeEvent:
    update = _update(each)

    def encode(variant: int, now: Now) -> bytes:
        return update(now, top.before_id, top.last_id, book.best_bids(count), book.best_asks(count))

    return encode


def _depth_update(each: Instrument, changes: ChangeSource) -> EncodeEvent:
    """What has changed since the event before."""
    update = _update(each)

    def encode(variant: int, now: Now) -> bytes:
        bids, asks = changes.levels()
        return update(now, changes.first_id - 1, changes.last_id, sorted(bids.items()), sorted(asks.items()))

    return encode


def _update(each: Instrument) -> Callable[[Now, int, int, list[Level], list[Level]], bytes]:
    """Print an event of a book: ids after that of the one before begin anywhere up to the first change."""
    template = b'{"e":"depthUpdate","E":%%d,"T":%%d,%b,%b,"U":%%d,"u":%%d,"pu":%%d,"b":[%%b],"a":[%%b]}' % (
        _symbol(each),
        _names(each),
    )

    def update(now: Now, before_id: int, last_id: int, bids: list[Level], asks: list[Level]) -> bytes:
        before, last = update_number(before_id), update_number(last_id)
        return template % (
            now.unix_ms,
            now.unix_ms - ENGINE_MS,
            min(last, before + 1 + last_id % IDS_PER_CHANGE),
            last,
            before,
            _levels(each, bids),
            _levels(each, asks),
        )

    return update


def _levels(each: Instrument, levels: list[Level]) -> bytes:
    return b",".join([b'["%b","%b"]' % (_price(each, price), _size(each, size)) for price, size in levels])


def _trade(each: Instrument, trades: TradeSource) -> EncodeEvent:
    """Each of its own: `X` says that it was one of the market, and not of the insurance fund."""
    symbol = _symbol(each)

    def encode(variant: int, now: Now) -> bytes:
        [fill] = trades.message
        return b'{"e":"trade","E":%d,"T":%d,%b,"t":%d,"p":"%b","q":"%b","X":"MARKET","m":%b,"st":%d}' % (
            now.unix_ms,
            _time(fill.unix_ns, now),
            symbol,
            fill.trade_id,
            _price(each, fill.price),
            _size(each, fill.size),
            b"true" if fill.is_sell else b"false",
            UNIT,
        )

    return encode


def _agg_trade(each: Instrument, merged: MergedTradeSource) -> EncodeEvent:
    symbol = _symbol(each)

    def encode(variant: int, now: Now) -> bytes:
        return b'{"e":"aggTrade","E":%d,%b,%b,"st":%d}' % (
            now.unix_ms,
            symbol,
            _merged_trade(each, merged.message, now),
            UNIT,
        )

    return encode


def _merged_trade(each: Instrument, merged: MergedTrade, now: Now) -> bytes:
    size = _size(each, merged.size)
    return b'"a":%d,"p":"%b","q":"%b","nq":"%b","f":%d,"l":%d,"T":%d,"m":%b' % (
        merged.number,
        _price(each, merged.price),
        size,
        size,
        merged.first_id,
        merged.last_id,
        _time(merged.unix_ns, now),
        b"true" if merged.is_sell else b"false",
    )


def _force_order(each: Instrument, orders: ForcedOrderSource) -> EncodeEvent:
    """Of a trade: its order was for the price at which nothing is left of the position."""

    def encode(variant: int, now: Now) -> bytes:
        [fill] = orders.message
        size, away = _size(each, fill.size), max(1, fill.price // 200)
        return (
            b'{"e":"forceOrder","E":%d,"o":{%b,"S":"%b","o":"LIMIT","f":"IOC","q":"%b","p":"%b","ap":"%b",'
            b'"X":"FILLED","l":"%b","z":"%b","T":%d,%b},"st":%d}'
        ) % (
            now.unix_ms,
            _symbol(each),
            b"SELL" if fill.is_sell else b"BUY",
            size,
            _price(each, max(1, fill.price - away) if fill.is_sell else fill.price + away),
            _price(each, fill.price),
            size,
            size,
            _time(fill.unix_ns, now),
            _names(each),
            UNIT,
        )

    return encode


def _mark_price(each: Instrument, perpetual: Perpetual) -> EncodeEvent:
    """What is dated has neither a rate nor a time of funding."""
    symbol, is_dated = _symbol(each), bool(each.listing.delivery)

    def encode(variant: int, now: Now) -> bytes:
        mark = _computed(each, perpetual.mark)
        return (
            b'{"e":"markPriceUpdate","E":%d,%b,"p":"%b","ap":"%b","i":"%b","P":"%b","r":"%b","T":%d,"st":%d}'
            % (
                now.unix_ms,
                symbol,
                mark,
                mark,
                _computed(each, perpetual.index),
                mark,
                b"" if is_dated else _rate(perpetual.rate),
                0 if is_dated else perpetual.funding_ns(now.unix_ns) // NS_PER_MS,
                UNIT,
            )
        )

    return encode


def _ticker(each: Instrument) -> EncodeEvent:
    """24 h, without the quote."""
    head, names = _symbol(each), _names(each)

    def encode(variant: int, now: Now) -> bytes:
        return (
            b'{"e":"24hrTicker","E":%d,%b,%b,"p":"%b","P":"%b","w":"%b","c":"%b","Q":"%b","o":"%b","h":"%b",'
            b'"l":"%b","v":"%b","q":"%b","O":%d,"C":%d,"F":%d,"L":%d,"n":%d}'
        ) % (
            now.unix_ms,
            head,
            names,
            _price(each, each.last - each.open),
            percent_of(each),
            _average(each),
            _price(each, each.last),
            _size(each, each.last_size),
            _price(each, each.open),
            _price(each, each.high),
            _price(each, each.low),
            _size(each, each.base_volume),
            _value(each),
            now.unix_ms - DAY_MS,
            now.unix_ms,
            each.first_trade_id,
            each.trade_id,
            each.trade_id - each.first_trade_id + 1,
        )

    return encode


def _mini_ticker(each: Instrument) -> EncodeEvent:
    head, names = _symbol(each), _names(each)

    def encode(variant: int, now: Now) -> bytes:
        return (
            b'{"e":"24hrMiniTicker","E":%d,%b,%b,"c":"%b","o":"%b","h":"%b","l":"%b","v":"%b","q":"%b"}'
        ) % (
            now.unix_ms,
            head,
            names,
            _price(each, each.last),
            _price(each, each.open),
            _price(each, each.high),
            _price(each, each.low),
            _size(each, each.base_volume),
            _value(each),
        )

    return encode


def _value(each: Instrument) -> bytes:
    return _fixed(each.quote_volume, each.price_decimals + each.size_decimals)


def _average(each: Instrument) -> bytes:
    return _price(each, each.quote_volume // each.base_volume)


def percent_of(each: Instrument) -> bytes:
    """Print by how much the price has changed in 24 h."""
    return padded(round((each.last - each.open) * 100_000 / each.open), 3, 3)


# REST.

_Answer = Callable[[BinanceContracts, HttpRequest, Now], HttpAnswer]


class _Endpoint(msgspec.Struct, frozen=True):
    parameters: frozenset[str]
    weight: Callable[[HttpRequest], int]
    answer: _Answer


def _weighing(of_one: int, of_all: int | None = None) -> Callable[[HttpRequest], int]:
    """Weigh a request by whether it is about one symbol."""
    return lambda request: of_one if of_all is None or request.one("symbol") else of_all


def _depth_weight(request: HttpRequest) -> int:
    return DEPTH_WEIGHTS.get(_depth_limit(request), 2)


def _depth_limit(request: HttpRequest) -> int:
    """Read the limit; one that is none of those there are is 0."""
    limit = _number(request, "limit", 500)
    return limit if limit in DEPTH_WEIGHTS else 0


def _number(request: HttpRequest, name: str, usual: int) -> int:
    """Read a number; -1: it is none."""
    text = request.one(name)
    if text is None:
        return usual
    return int(text[:20]) if text.isascii() and text.isdigit() else -1


def _bad(name: str) -> HttpAnswer:
    return error(-1130, f"Data sent for parameter '{name}' is not valid.")


def _ping(market: BinanceContracts, request: HttpRequest, now: Now) -> HttpAnswer:
    return HttpAnswer(body=b"{}")


def _server_time(market: BinanceContracts, request: HttpRequest, now: Now) -> HttpAnswer:
    return HttpAnswer(body=to_json({"serverTime": now.unix_ms}))


def _exchange_info(market: BinanceContracts, request: HttpRequest, now: Now) -> HttpAnswer:
    """All of them: it knows no symbol."""
    limits = [
        ("REQUEST_WEIGHT", "MINUTE", 1, market.rules.weight_per_minute),
        ("ORDERS", "MINUTE", 1, 1200),
        ("ORDERS", "SECOND", 10, 300),
    ]
    body = {
        "timezone": "UTC",
        "serverTime": now.unix_ms,
        "futuresType": "U_MARGINED",
        "rateLimits": [
            {"rateLimitType": kind, "interval": interval, "intervalNum": count, "limit": limit}
            for kind, interval, count, limit in limits
        ],
        "exchangeFilters": [],
        "assets": [
            {"asset": asset, "marginAvailable": True, "autoAssetExchange": "-10000"}
            for asset in ("USDT", "USDC")
        ],
        "symbols": [_contract(each) for each in market.listed()],
    }
    return HttpAnswer(body=to_json(body))


def _contract(each: ContractInstrument) -> dict[str, object]:
    base, quote = each.listing.base, each.listing.quote
    delivered_ms, kind = _QUARTERS.get(each.listing.delivery, (FOR_EVER_MS, "PERPETUAL"))
    if base in _TRADIFI:
        kind = "TRADIFI_PERPETUAL"
    return {
        "symbol": symbol_of(each),
        "pair": pair_of(each),
        "contractType": kind,
        "deliveryDate": delivered_ms,
        "onboardDate": 1_569_398_400_000,
        "status": "TRADING" if each.listing.is_trading else STATES.get(base, "SETTLING"),
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": base,
        "quoteAsset": quote,
        "marginAsset": each.listing.settle,
        "pricePrecision": each.price_decimals,
        "quantityPrecision": each.size_decimals,
        "baseAssetPrecision": PLACES,
        "quotePrecision": PLACES,
        "underlyingType": _TRADIFI.get(base, "COIN"),
        "underlyingSubType": ["TradFi"] if base in _TRADIFI else ["PoW"],
        "settlePlan": 0,
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10000,
        "filters": _filters(each),
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
        "permissionSets": ["GRID", "COPY"],
    }


def _filters(each: Instrument) -> list[dict[str, object]]:
    tick, lot = _price(each, 1).decode(), _size(each, 1).decode()
    highest = _price(each, each.open * 10).decode()
    most = _size(each, 10 ** (each.size_decimals + 6)).decode()
    return [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": highest, "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": most, "stepSize": lot},
        {"filterType": "MARKET_LOT_SIZE", "minQty": lot, "maxQty": most, "stepSize": lot},
        {"filterType": "MAX_NUM_ORDERS", "limit": 200},
        {"filterType": "MIN_NOTIONAL", "notional": "5"},
        {
            "filterType": "PERCENT_PRICE",
            "multiplierUp": "1.0500",
            "multiplierDown": "0.9500",
            "multiplierDecimal": "4",
        },
    ]


def _depth(market: BinanceContracts, request: HttpRequest, now: Now) -> HttpAnswer:
    each, limit = market.one(request), _depth_limit(request)
    if isinstance(each, HttpAnswer):
        return each
    if not limit:
        return _bad("limit")
    book = market.book_state(each, now)
    is_trading = each.listing.is_trading
    body = b'{"lastUpdateId":%d,"E":%d,"T":%d,"bids":[%b],"asks":[%b]}' % (
        update_number(book.update_id),
        now.unix_ms,
        book.at.unix_ms - ENGINE_MS,
        _levels(each, book.bids[:limit]) if is_trading else b"",
        _levels(each, book.asks[:limit]) if is_trading else b"",
    )
    return HttpAnswer(body=body)


def _agg_trades(market: BinanceContracts, request: HttpRequest, now: Now) -> HttpAnswer:
    """Merged trades from a number or a time on, or the newest; the oldest first."""
    each, limit = market.one(request), _number(request, "limit", 500)
    if isinstance(each, HttpAnswer):
        return each
    if not 0 < limit <= 1000:
        return _bad("limit")
    first, begin_ms = _number(request, "fromId", 0), _number(request, "startTime", 0)
    end_ms = _number(request, "endTime", 2**63)
    if min(first, begin_ms, end_ms) < 0:
        return _bad("fromId, startTime or endTime")
    found = market.merged.of(each).read(first, begin_ms, end_ms, limit, now)
    return _rows([b"{%b}" % _merged_trade(each, trade, now) for trade in found])


def _rows(rows: list[bytes]) -> HttpAnswer:
    return HttpAnswer(body=b"[%b]" % b",".join(rows))


def _trades(market: BinanceContracts, request: HttpRequest, now: Now) -> HttpAnswer:
    """The newest trades, each of its own."""
    each, limit = market.one(request), _number(request, "limit", 500)
    if isinstance(each, HttpAnswer):
        return each
    if not 0 < limit <= 1000:
        return _bad("limit")
    rows = []
    for fill in list(each.order_book().fills)[-limit:]:
        value = _fixed(fill.price * fill.size, each.price_decimals + each.size_decimals)
        rows.append(
            b'{"id":%d,"price":"%b","qty":"%b","quoteQty":"%b","time":%d,"isBuyerMaker":%b,"isRPITrade":false}'
            % (
                fill.trade_id,
                _price(each, fill.price),
                _size(each, fill.size),
                value,
                _time(fill.unix_ns, now),
                b"true" if fill.is_sell else b"false",
            )
        )
    return _rows(rows)


def _open_interest(market: BinanceContracts, request: HttpRequest, now: Now) -> HttpAnswer:
    """In coins."""
    each = market.one(request)
    if isinstance(each, HttpAnswer):
        return each
    interest = _size(each, market.perpetuals[symbol_of(each)].open_interest).decode()
    return HttpAnswer(
        body=to_json({"openInterest": interest, "symbol": symbol_of(each), "time": now.unix_ms})
    )


def _funding_info(market: BinanceContracts, request: HttpRequest, now: Now) -> HttpAnswer:
    """What was adjusted: of some the interval, and of the second one its bounds alone."""
    rows = [
        {
            "symbol": symbol_of(each),
            "adjustedFundingRateCap": _rate(RATE_MAX).decode(),
            "adjustedFundingRateFloor": _rate(-RATE_MAX).decode(),
            "fundingIntervalHours": interval_h_of(each),
            "disclaimer": False,
        }
        for each in market.listed()
        if not each.listing.delivery and (interval_h_of(each) != USUAL_HOURS or each.index == 1)
    ]
    return HttpAnswer(body=to_json(rows))


def _per_symbol(
    print_one: Callable[[BinanceContracts, ContractInstrument, Now], dict[str, object]],
) -> _Answer:
    """Answer one object for `symbol`, else a list of what trades."""

    def answer(market: BinanceContracts, request: HttpRequest, now: Now) -> HttpAnswer:
        if request.one("symbol") is None:
            return HttpAnswer(body=to_json([print_one(market, each, now) for each in market.trading()]))
        each = market.one(request)
        return (
            each if isinstance(each, HttpAnswer) else HttpAnswer(body=to_json(print_one(market, each, now)))
        )

    return answer


def _premium(market: BinanceContracts, each: ContractInstrument, now: Now) -> dict[str, object]:
    perpetual, is_dated = market.perpetuals[symbol_of(each)], bool(each.listing.delivery)
    mark = _computed(each, perpetual.mark).decode()
    return {
        "symbol": symbol_of(each),
        "markPrice": mark,
        "indexPrice": _computed(each, perpetual.index).decode(),
        "estimatedSettlePrice": mark,
        "lastFundingRate": "" if is_dated else _rate(perpetual.rate).decode(),
        "interestRate": "" if is_dated else _rate(INTEREST).decode(),
        "nextFundingTime": 0 if is_dated else perpetual.funding_ns(now.unix_ns) // NS_PER_MS,
        "time": now.unix_ms,
    }


def _funding_rates(market: BinanceContracts, request: HttpRequest, now: Now) -> HttpAnswer:
    """What was paid last: there is no history of before."""
    each = market.one(request) if request.one("symbol") else None
    if isinstance(each, HttpAnswer):
        return each
    rows = []
    for contract in market.trading() if each is None else [each]:
        perpetual = market.perpetuals[symbol_of(contract)]
        if not contract.listing.delivery:
            paid_ns = perpetual.funding_ns(now.unix_ns) - perpetual.interval_ns
            rows.append(
                {
                    "symbol": symbol_of(contract),
                    "fundingTime": paid_ns // NS_PER_MS,
                    "fundingRate": _rate(perpetual.settled_rate(now.unix_ns)).decode(),
                    "markPrice": _computed(contract, perpetual.mark).decode(),
                    "rateType": "REGULAR",
                }
            )
    return HttpAnswer(body=to_json(rows))


def _day_ticker(market: BinanceContracts, each: ContractInstrument, now: Now) -> dict[str, object]:
    return {
        "symbol": symbol_of(each),
        "priceChange": _price(each, each.last - each.open).decode(),
        "priceChangePercent": percent_of(each).decode(),
        "weightedAvgPrice": _average(each).decode(),
        "lastPrice": _price(each, each.last).decode(),
        "lastQty": _size(each, each.last_size).decode(),
        "openPrice": _price(each, each.open).decode(),
        "highPrice": _price(each, each.high).decode(),
        "lowPrice": _price(each, each.low).decode(),
        "volume": _size(each, each.base_volume).decode(),
        "quoteVolume": _value(each).decode(),
        "openTime": now.unix_ms - DAY_MS,
        "closeTime": now.unix_ms,
        "firstId": each.first_trade_id,
        "lastId": each.trade_id,
        "count": each.trade_id - each.first_trade_id + 1,
    }


def _book_row(market: BinanceContracts, each: ContractInstrument, now: Now) -> dict[str, object]:
    """What does not trade has no book: its row is there, in zeros."""
    is_trading = each.listing.is_trading
    return {
        "symbol": symbol_of(each),
        "bidPrice": _price(each, each.bid if is_trading else 0).decode(),
        "bidQty": _size(each, each.bid_size if is_trading else 0).decode(),
        "askPrice": _price(each, each.ask if is_trading else 0).decode(),
        "askQty": _size(each, each.ask_size if is_trading else 0).decode(),
        "time": now.unix_ms - ENGINE_MS,
    }


def _last_price(market: BinanceContracts, each: ContractInstrument, now: Now) -> dict[str, object]:
    time_ms = _time(each.traded_unix_ns, now)
    return {"symbol": symbol_of(each), "price": _price(each, each.last).decode(), "time": time_ms}


_NONE: frozenset[str] = frozenset()
_SYMBOL = frozenset({"symbol"})
_ENDPOINTS: dict[str, _Endpoint] = {
    "/fapi/v1/ping": _Endpoint(_NONE, _weighing(1), _ping),
    "/fapi/v1/time": _Endpoint(_NONE, _weighing(1), _server_time),
    "/fapi/v1/exchangeInfo": _Endpoint(_NONE, _weighing(1), _exchange_info),
    "/fapi/v1/depth": _Endpoint(_SYMBOL | {"limit"}, _depth_weight, _depth),
    "/fapi/v1/trades": _Endpoint(_SYMBOL | {"limit"}, _weighing(5), _trades),
    "/fapi/v1/aggTrades": _Endpoint(
        _SYMBOL | {"fromId", "startTime", "endTime", "limit"}, _weighing(20), _agg_trades
    ),
    "/fapi/v1/openInterest": _Endpoint(_SYMBOL, _weighing(1), _open_interest),
    "/fapi/v1/premiumIndex": _Endpoint(_SYMBOL, _weighing(1, 10), _per_symbol(_premium)),
    "/fapi/v1/fundingRate": _Endpoint(
        _SYMBOL | {"startTime", "endTime", "limit"}, _weighing(0), _funding_rates
    ),
    "/fapi/v1/fundingInfo": _Endpoint(_NONE, _weighing(0), _funding_info),
    "/fapi/v1/ticker/24hr": _Endpoint(_SYMBOL, _weighing(1, 40), _per_symbol(_day_ticker)),
    "/fapi/v1/ticker/bookTicker": _Endpoint(_SYMBOL, _weighing(2, 5), _per_symbol(_book_row)),
    "/fapi/v1/ticker/price": _Endpoint(_SYMBOL, _weighing(1, 2), _per_symbol(_last_price)),
    "/fapi/v2/ticker/price": _Endpoint(_SYMBOL, _weighing(1, 2), _per_symbol(_last_price)),
}
