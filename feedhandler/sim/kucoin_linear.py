"""KuCoin's linear perpetuals, simulated: what is theirs alone. Sessions, tokens and limits are those of kucoin.py.

Pure. Its own reading of the documentation; the feed handler's adapter is another, and the two meet only on the
socket. The exchange has them on hosts of their own; here those are the paths that begin with `PATH`.

Sources:
  channels   https://www.kucoin.com/docs-new/3470082w0
  REST       https://github.com/Kucoin/kucoin-universal-sdk (spec/)
Sizes are numbers of contracts; those of 24 h are in coins. Sequences of level2 follow each other: what no level
shows is printed as a level that is gone and never was. Rates of funding come each minute, of what is predicted, and
once to who subscribes; the rate that is due comes when it is paid. An inverse contract and a dated one are listed,
and silent.
Not played: announcements. They are acknowledged and silent.
"""

from collections.abc import Callable, Container
from decimal import Decimal

import msgspec

from feedhandler.sim.market import ContractInstrument, Instrument, contracts_of, trimmed
from feedhandler.sim.order_book import Fill, Level
from feedhandler.sim.perpetuals import HOUR_NS, RATE_DECIMALS, RATE_MAX, Perpetual
from feedhandler.sim.protocol import (
    NS_PER_MS,
    NS_PER_S,
    BookState,
    DataStream,
    HttpAnswer,
    HttpRequest,
    Now,
    to_json,
)
from feedhandler.sim.sources import EachChangeSource, TradeSource

PATH = "/linear"
DATA_TOPICS = (
    "/contractMarket/ticker",
    "/contractMarket/tickerV2",
    "/contractMarket/execution",
    "/contractMarket/snapshot",
    "/contractMarket/level2",
    "/contractMarket/level2Depth5",
    "/contractMarket/level2Depth50",
    "/contract/instrument",
)
SILENT_TOPICS = ("/contract/announcement",)
PERPETUAL, DATED = "FFWCSX", "FFICSX"  # types
STATES = {"HALTED": "Paused", "BROKEN": "BeingSettled"}  # by base; all others are open
CONTRACTS_OF_LOTS = (1, 10, 100)  # how many lots of the market a contract is, in turn
FUNDING_HOURS = (8, 8, 4, 1)
MINUTE_MS = 60_000
HISTORY = 100
FUNDING_FIELDS = (  # of the list; null of what is dated
    "fundingRateSymbol",
    "fundingFeeRate",
    "predictedFundingFeeRate",
    "fundingRateGranularity",
    "nextFundingRateTime",
    "nextFundingRateDateTime",
)
TRADE_ID_FIRST = 1_794_000_000_000
_CODES = {"BTC": "XBT"}  # assets that the exchange calls otherwise

_Encode = Callable[[int, Now], bytes]


def ok(data: object) -> HttpAnswer:
    return HttpAnswer(body=to_json({"code": "200000", "data": data}))


def _not_found() -> HttpAnswer:
    return HttpAnswer(body=to_json({"code": "300000", "msg": "Symbol Not Found"}))


class KucoinLinear:
    """The perpetuals, each on a pair against USDT. unlisted: symbols that are in no list, as a fault has it."""

    def __init__(
        self, pairs: list[Instrument], seed: int, book_every_s: float, unlisted: Container[str] = ()
    ) -> None:
        self._unlisted = unlisted
        listed = [(each, msgspec.structs.replace(each.listing, settle="USDT")) for each in pairs]
        self.instruments = contracts_of(listed, seed)
        self.by_symbol = {symbol_of(each): each for each in self.instruments}
        self.perpetuals = {
            symbol: Perpetual(each, FUNDING_HOURS[each.index % len(FUNDING_HOURS)] * HOUR_NS)
            for symbol, each in self.by_symbol.items()
        }
        self._book_every_ns = book_every_s * NS_PER_S
        self._kept_books: dict[str, BookState] = {}

    def listed(self) -> list[ContractInstrument]:
        """Return what lists have."""
        return [each for symbol, each in self.by_symbol.items() if symbol not in self._unlisted]

    def stream(self, topic: str) -> DataStream | None:
        """Make the stream of an accepted topic; None: acknowledged, and silent for ever."""
        channel, _, symbol = topic.partition(":")
        each = self.by_symbol.get(symbol)
        if each is None or not each.listing.is_trading:
            return None
        if channel == "/contractMarket/tickerV2":
            return DataStream(topic, each, _ticker_v2(topic, each))
        if channel == "/contractMarket/ticker":
            trades = TradeSource(each.order_book())
            return DataStream(topic, each, _ticker_v1(topic, each), is_trade=True, source=trades)
        if channel == "/contractMarket/execution":
            trades = TradeSource(each.order_book())
            return DataStream(topic, each, _execution(topic, each, trades), is_trade=True, source=trades)
        if channel == "/contractMarket/snapshot":
            return DataStream(topic, each, _statistics(topic, each), regular_every_ns=5 * NS_PER_S)
        if channel == "/contractMarket/level2":
            changes = EachChangeSource(each.order_book())
            encode = _level2(self, topic, each, changes)
            return DataStream(topic, each, encode, shows_book=True, source=changes)
        if channel.startswith("/contractMarket/level2Depth"):
            encode = _best_levels(topic, each, int(channel.removeprefix("/contractMarket/level2Depth")))
            return DataStream(topic, each, encode, regular_every_ns=100 * NS_PER_MS, shows_book=True)
        if channel == "/contract/instrument":
            source = ContractSource(topic, self.perpetuals[symbol])
            return DataStream(topic, each, source.encode, regular_every_ns=NS_PER_S, source=source)
        return None

    def book_of(self, each: ContractInstrument, now: Now) -> BookState:
        """Return the newest snapshot of a book; a new one is taken when it is time for that."""
        kept = self._kept_books.get(symbol_of(each))
        if kept is None or not 0 <= now.mono_ns - kept.at.mono_ns < self._book_every_ns:
            book = each.order_book()
            count = max(len(book.bids), len(book.asks))
            kept = BookState(book.update_id, now, book.best_bids(count), book.best_asks(count))
            self._kept_books[symbol_of(each)] = kept
        return kept


def symbol_of(each: Instrument) -> str:
    return f"{code_of(each.listing.base)}{each.listing.quote}M"


def code_of(asset: str) -> str:
    return _CODES.get(asset, asset)


def multiplier_of(each: Instrument) -> Decimal:
    """Return how many coins a contract is."""
    return Decimal(CONTRACTS_OF_LOTS[each.index % len(CONTRACTS_OF_LOTS)]).scaleb(-each.size_decimals)


def _price(each: Instrument, ticks: int) -> bytes:
    return trimmed(ticks, each.price_decimals)


def _coins(each: Instrument, contracts: int) -> bytes:
    return trimmed(contracts * CONTRACTS_OF_LOTS[each.index % len(CONTRACTS_OF_LOTS)], each.size_decimals)


def _turnover(each: Instrument) -> bytes:
    value = each.quote_volume * CONTRACTS_OF_LOTS[each.index % len(CONTRACTS_OF_LOTS)]
    return trimmed(value, each.price_decimals + each.size_decimals)


def _side(fill: Fill) -> bytes:
    return b"sell" if fill.is_sell else b"buy"


# Topics.


def _head(topic: str, subject: bytes, more: bytes = b"") -> bytes:
    return b'{"topic":%b,"type":"message","subject":"%b",%b"data":' % (to_json(topic), subject, more)


def _ticker_v2(topic: str, each: Instrument) -> _Encode:
    """Best bid and offer; a side without orders has a price of 0."""
    head = _head(topic, b"tickerV2")
    symbol = symbol_of(each).encode()

    def encode(variant: int, now: Now) -> bytes:
        return (
            b'%b{"symbol":"%b","sequence":%d,"bestBidSize":%d,"bestBidPrice":"%b","bestAskPrice":"%b",'
            b'"bestAskSize":%d,"ts":%d}}'
        ) % (
            head,
            symbol,
            each.update_id,
            each.bid_size,
            _price(each, each.bid),
            _price(each, each.ask),
            each.ask_size,
            now.unix_ns // NS_PER_MS * NS_PER_MS,
        )

    return encode


def _ticker_v1(topic: str, each: Instrument) -> _Encode:
    """The last trade with the best levels, at each trade; the exchange advises against it, and clients use it."""
    head = _head(topic, b"ticker")

    def encode(variant: int, now: Now) -> bytes:
        return b"%b%b}" % (head, to_json(_ticker(each, now)))

    return encode


def _execution(topic: str, each: Instrument, trades: TradeSource) -> _Encode:
    head = _head(topic, b"match")
    symbol = symbol_of(each).encode()

    def encode(variant: int, now: Now) -> bytes:
        [fill] = trades.message
        trade_id = TRADE_ID_FIRST + fill.update_id
        return (
            b'%b{"symbol":"%b","sequence":%d,"side":"%b","size":%d,"price":"%b","takerOrderId":"%d",'
            b'"makerOrderId":"%d","tradeId":"%d","ts":%d}}'
        ) % (
            head,
            symbol,
            trade_id,
            _side(fill),
            fill.size,
            _price(each, fill.price),
            fill.unix_ns,
            fill.price << 20 | fill.trade_id,
            trade_id,
            fill.unix_ns // NS_PER_MS * NS_PER_MS,
        )

    return encode


def _statistics(topic: str, each: Instrument) -> _Encode:
    """24 h, as numbers; volume in coins, turnover in the quote currency; the time has all its digits."""
    head = _head(topic, b"snapshot.24h", b'"id":"673ab3fff4088b0001664f41",')

    def encode(variant: int, now: Now) -> bytes:
        return (
            b'%b{"highPrice":%b,"lastPrice":%b,"lowPrice":%b,"price24HoursBefore":%b,"priceChg":%b,'
            b'"priceChgPct":%.4f,"symbol":"%b","ts":%d,"turnover":%b,"volume":%b}}'
        ) % (
            head,
            _price(each, each.high),
            _price(each, each.last),
            _price(each, each.low),
            _price(each, each.open),
            _price(each, each.last - each.open),
            (each.last - each.open) / each.open,
            symbol_of(each).encode(),
            now.unix_ns,
            _turnover(each),
            _coins(each, each.base_volume),
        )

    return encode


def _level2(market: KucoinLinear, topic: str, each: ContractInstrument, changes: EachChangeSource) -> _Encode:
    """One change; of what no level shows, that the lowest ask there can be is gone."""
    head = _head(topic, b"level2")

    def encode(variant: int, now: Now) -> bytes:
        market.book_of(each, now)
        [change] = changes.message
        price, side = change.price or 1, b"buy" if change.is_bid and change.price else b"sell"
        return b'%b{"sequence":%d,"change":"%b,%b,%d","timestamp":%d}}' % (
            head,
            change.update_id,
            _price(each, price),
            side,
            change.size,
            now.unix_ms,
        )

    return encode


def _best_levels(topic: str, each: Instrument, count: int) -> _Encode:
    """The best levels, whole: prices are texts, sizes numbers."""
    head = _head(topic, b"level2")
    book = each.order_book()

    def encode(variant: int, now: Now) -> bytes:
        return b'%b{"bids":[%b],"sequence":%d,"timestamp":%d,"ts":%d,"asks":[%b]}}' % (
            head,
            _levels(each, book.best_bids(count), b'["%b",%d]'),
            book.update_id,
            now.unix_ms,
            now.unix_ms,
            _levels(each, book.best_asks(count), b'["%b",%d]'),
        )

    return encode


def _levels(each: Instrument, levels: list[Level], form: bytes) -> bytes:
    return b",".join([form % (_price(each, price), size) for price, size in levels])


class ContractSource:
    """Mark and index each second, and at times a rate: one message after the other."""

    def __init__(self, topic: str, perpetual: Perpetual) -> None:
        self._topic = topic
        self._perpetual = perpetual
        self._minute = self._paid_ns = 0
        self._next = ["mark"]

    def start(self) -> None:
        self._minute = self._paid_ns = 0
        self._next = ["mark", "predicted"]

    def stop(self) -> None:
        self._next = []

    def take(self) -> bool:
        if self._next:
            return True
        self._next = ["mark"]
        return False

    def lose(self) -> bool:
        has_waited = bool(self._next)
        self._next = ["mark"]
        return has_waited

    def encode(self, variant: int, now: Now) -> bytes:
        """Print what is next."""
        what = self._next.pop(0) if self._next else "mark"
        perpetual, each = self._perpetual, self._perpetual.contract
        minute, due_ns = now.unix_ms // MINUTE_MS, perpetual.funding_ns(now.unix_ns)
        if self._minute and minute != self._minute:
            self._next.append("predicted")
        if self._paid_ns and due_ns != self._paid_ns:
            self._next.append("due")
        self._minute, self._paid_ns = minute, due_ns
        if what == "mark":
            return b'%b{"markPrice":%b,"indexPrice":%b,"granularity":1000,"timestamp":%d}}' % (
                _head(self._topic, b"mark.index.price"),
                _price(each, perpetual.mark),
                _price(each, perpetual.index),
                now.unix_ms // 1000 * 1000,
            )
        is_due = what == "due"
        rate = perpetual.settled_rate(now.unix_ns) if is_due else perpetual.rate
        return b'%b{"granularity":%d,"fundingRate":%b,"timestamp":%d}}' % (
            _head(self._topic, b"funding.rate"),
            perpetual.interval_ns // NS_PER_MS if is_due else MINUTE_MS,
            trimmed(rate, RATE_DECIMALS),
            now.unix_ms // MINUTE_MS * MINUTE_MS,
        )


# REST.


def contracts(market: KucoinLinear, request: HttpRequest, now: Now) -> HttpAnswer:
    """All that are listed, and two that are of other kinds."""
    rows = [_contract(market, each, now) for each in market.listed()]
    inverse = rows[0] | {
        "symbol": "XBTUSDM",
        "rootSymbol": "XBT",
        "quoteCurrency": "USD",
        "settleCurrency": "XBT",
        "multiplier": -1.0,
        "isInverse": True,
    }
    dated = inverse | {
        "symbol": "XBTMZ26",
        "type": DATED,
        "expireDate": 1_798_156_800_000,
        "fairMethod": None,
        **dict.fromkeys(FUNDING_FIELDS),
    }
    return ok([*rows, inverse, dated])


def contract(market: KucoinLinear, request: HttpRequest, now: Now) -> HttpAnswer:
    each = market.by_symbol.get(request.one("symbol") or "")
    return _not_found() if each is None else ok(_contract(market, each, now))


def _contract(market: KucoinLinear, each: ContractInstrument, now: Now) -> dict[str, object]:
    perpetual = market.perpetuals[symbol_of(each)]
    base = code_of(each.listing.base)
    next_ms = perpetual.funding_ns(now.unix_ns) // NS_PER_MS
    return {
        "symbol": symbol_of(each),
        "rootSymbol": each.listing.quote,
        "type": PERPETUAL,
        "firstOpenDate": 1585555200000,
        "expireDate": None,
        "settleDate": None,
        "baseCurrency": base,
        "quoteCurrency": each.listing.quote,
        "settleCurrency": each.listing.settle,
        "maxOrderQty": 1000000,
        "maxPrice": 1000000.0,
        "lotSize": 1,
        "tickSize": _number(_price(each, 1)),
        "indexPriceTickSize": _number(_price(each, 1)),
        "multiplier": float(multiplier_of(each)),
        "initialMargin": 0.008,
        "maintainMargin": 0.004,
        "makerFeeRate": 0.0002,
        "takerFeeRate": 0.0006,
        "isDeleverage": True,
        "isQuanto": False,
        "isInverse": False,
        "markMethod": "FairPrice",
        "fairMethod": "FundingRate",
        "indexSymbol": f".K{base}{each.listing.quote}",
        "fundingRateSymbol": _rate_symbol(perpetual),
        "status": "Open" if each.listing.is_trading else STATES.get(each.listing.base, "Paused"),
        "fundingFeeRate": _number(trimmed(perpetual.settled_rate(now.unix_ns), RATE_DECIMALS)),
        "predictedFundingFeeRate": _number(trimmed(perpetual.rate, RATE_DECIMALS)),
        "fundingRateGranularity": perpetual.interval_ns // NS_PER_MS,
        "openInterest": str(perpetual.open_interest),
        "turnoverOf24h": _number(_turnover(each)),
        "volumeOf24h": _number(_coins(each, each.base_volume)),
        "markPrice": _number(_price(each, perpetual.mark)),
        "indexPrice": _number(_price(each, perpetual.index)),
        "lastTradePrice": _number(_price(each, each.last)),
        "nextFundingRateTime": next_ms - now.unix_ms,
        "nextFundingRateDateTime": next_ms,
        "maxLeverage": 125,
        "lowPrice": _number(_price(each, each.low)),
        "highPrice": _number(_price(each, each.high)),
        "priceChgPct": round((each.last - each.open) / each.open, 4),
        "priceChg": _number(_price(each, each.last - each.open)),
    }


def funding_rate(market: KucoinLinear, request: HttpRequest, now: Now) -> HttpAnswer:
    """The rate of this interval, and what the next one's looks like; the symbol is the rate's own."""
    perpetual = market.perpetuals.get(request.one("symbol") or "")
    if perpetual is None:
        return _not_found()
    next_ns = perpetual.funding_ns(now.unix_ns)
    return ok(
        {
            "symbol": _rate_symbol(perpetual),
            "granularity": perpetual.interval_ns // NS_PER_MS,
            "timePoint": (next_ns - perpetual.interval_ns) // NS_PER_MS,
            "value": _number(trimmed(perpetual.settled_rate(now.unix_ns), RATE_DECIMALS)),
            "predictedValue": _number(trimmed(perpetual.rate, RATE_DECIMALS)),
            "fundingRateCap": _number(trimmed(RATE_MAX, RATE_DECIMALS)),
            "fundingRateFloor": -_number(trimmed(RATE_MAX, RATE_DECIMALS)),
            "period": 1,
            "fundingTime": next_ns // NS_PER_MS,
        }
    )


def mark_price(market: KucoinLinear, request: HttpRequest, now: Now) -> HttpAnswer:
    perpetual = market.perpetuals.get(request.one("symbol") or "")
    if perpetual is None:
        return _not_found()
    each = perpetual.contract
    return ok(
        {
            "symbol": symbol_of(each),
            "granularity": 1000,
            "timePoint": now.unix_ms // 1000 * 1000,
            "value": _number(_price(each, perpetual.mark)),
            "indexPrice": _number(_price(each, perpetual.index)),
        }
    )


def open_interest(market: KucoinLinear, request: HttpRequest, now: Now) -> HttpAnswer:
    """Those of some contracts, or of all, as the exchange's unified interface has them, in contracts."""
    asked = request.one("symbol")
    symbols = asked.split(",") if asked else [*market.perpetuals]
    if any(symbol not in market.perpetuals for symbol in symbols):
        return _not_found()
    interests = {symbol: market.perpetuals[symbol].open_interest for symbol in symbols}
    return ok(
        [{"symbol": each, "openInterest": str(lots), "ts": now.unix_ms} for each, lots in interests.items()]
    )


def _rate_symbol(perpetual: Perpetual) -> str:
    return f".{symbol_of(perpetual.contract)}FPI{perpetual.interval_ns // HOUR_NS}H"


def _number(text: bytes) -> float:
    return float(text)


def all_tickers(market: KucoinLinear, request: HttpRequest, now: Now) -> HttpAnswer:
    return ok([_ticker(each, now) for each in market.listed() if each.listing.is_trading])


def ticker(market: KucoinLinear, request: HttpRequest, now: Now) -> HttpAnswer:
    each = market.by_symbol.get(request.one("symbol") or "")
    return _not_found() if each is None else ok(_ticker(each, now))


def _ticker(each: Instrument, now: Now) -> dict[str, object]:
    return {
        "sequence": each.update_id,
        "symbol": symbol_of(each),
        "side": "sell" if each.is_sell else "buy",
        "size": each.last_size,
        "tradeId": str(TRADE_ID_FIRST + each.trade_id),
        "price": _price(each, each.last).decode(),
        "bestBidPrice": _price(each, each.bid).decode(),
        "bestBidSize": each.bid_size,
        "bestAskPrice": _price(each, each.ask).decode(),
        "bestAskSize": each.ask_size,
        "ts": (each.traded_unix_ns or now.unix_ns) // NS_PER_MS * NS_PER_MS,
    }


def whole_book(market: KucoinLinear, request: HttpRequest, now: Now) -> HttpAnswer:
    return _book(market, request, now, None)


def book_20(market: KucoinLinear, request: HttpRequest, now: Now) -> HttpAnswer:
    return _book(market, request, now, 20)


def book_100(market: KucoinLinear, request: HttpRequest, now: Now) -> HttpAnswer:
    return _book(market, request, now, 100)


def _book(market: KucoinLinear, request: HttpRequest, now: Now, count: int | None) -> HttpAnswer:
    """A book as it was up to half a second ago: prices and sizes are numbers."""
    each = market.by_symbol.get(request.one("symbol") or "")
    if each is None:
        return _not_found()
    book = market.book_of(each, now)
    body = b'{"code":"200000","data":{"sequence":%d,"symbol":"%b","bids":[%b],"asks":[%b],"ts":%d}}' % (
        book.update_id,
        symbol_of(each).encode(),
        _levels(each, book.bids[:count], b"[%b,%d]"),
        _levels(each, book.asks[:count], b"[%b,%d]"),
        book.at.unix_ns,
    )
    return HttpAnswer(body=body)


def history(market: KucoinLinear, request: HttpRequest, now: Now) -> HttpAnswer:
    """The newest hundred trades, the newest first; none says of which symbol it is."""
    each = market.by_symbol.get(request.one("symbol") or "")
    if each is None:
        return _not_found()
    fills = list(each.order_book().fills)[: -HISTORY - 1 : -1]
    return ok([_past_trade(each, fill) for fill in fills])


def _past_trade(each: Instrument, fill: Fill) -> dict[str, object]:
    trade_id = TRADE_ID_FIRST + fill.update_id
    return {
        "sequence": trade_id,
        "contractId": each.index,
        "tradeId": str(trade_id),
        "makerOrderId": str(fill.price << 20 | fill.trade_id),
        "takerOrderId": str(fill.unix_ns),
        "ts": fill.unix_ns // NS_PER_MS * NS_PER_MS,
        "size": fill.size,
        "price": _price(each, fill.price).decode(),
        "side": _side(fill).decode(),
    }


def time(market: KucoinLinear, request: HttpRequest, now: Now) -> HttpAnswer:
    return ok(now.unix_ms)


def status(market: KucoinLinear, request: HttpRequest, now: Now) -> HttpAnswer:
    return ok({"msg": "", "status": "open"})


ENDPOINTS: dict[str, tuple[int, Callable[[KucoinLinear, HttpRequest, Now], HttpAnswer]]] = {  # with weights
    "/api/v1/timestamp": (2, time),
    "/api/v1/status": (4, status),
    "/api/v1/contracts/active": (3, contracts),
    "/api/v1/contracts/": (3, contract),
    "/api/v1/funding-rate/": (2, funding_rate),
    "/api/v1/mark-price/": (3, mark_price),
    "/api/v1/allTickers": (5, all_tickers),
    "/api/v1/ticker": (2, ticker),
    "/api/v1/level2/snapshot": (3, whole_book),
    "/api/v1/level2/depth20": (5, book_20),
    "/api/v1/level2/depth100": (5, book_100),
    "/api/v1/trade/history": (5, history),
}
