"""Exchanges, tickers and what else there is of a symbol as JSON: the same over HTTP and to browsers."""

from collections.abc import Sequence
from typing import Any

import msgspec

from feedhandler.data import wire
from feedhandler.data.liquidation import LIQUIDATION
from feedhandler.data.status import ExchangeStatus


class ExchangeRow(msgspec.Struct, kw_only=True):
    """One exchange. connect: whether it is to be connected to. status: None until the merger has sent one."""

    exchange: str
    is_simulated: bool
    connect: bool
    has_credentials: bool
    text: str
    status: ExchangeStatus | None = None


class NewestRow(msgspec.Struct, kw_only=True):
    """The newest record of a topic; a value that is not known is None. Times are Unix ns.

    tick is the step between prices as decimal text, "" if it is not known.
    """

    topic: str
    exchange: str
    symbol: str
    flags: Sequence[str]
    session: int
    sequence: int
    exchange_ns: int
    recv_ns: int
    publish_ns: int
    exchange_sequence: int
    tick: str


class TickerRow(NewestRow):
    last: float | None
    bid: float | None
    bid_size: float | None
    ask: float | None
    ask_size: float | None
    open_24h: float | None
    high_24h: float | None
    low_24h: float | None
    base_volume_24h: float | None
    quote_volume_24h: float | None


class TradeRow(msgspec.Struct, kw_only=True):
    """One trade, with the taker's side, or one liquidation, with that of the order. Times are Unix ns."""

    sequence: int
    flags: Sequence[str]
    exchange_ns: int
    recv_ns: int
    price: float | None
    size: float | None
    side: str
    trade_id: str
    count: int


class TopicRow(msgspec.Struct, kw_only=True):
    """A topic of which each record counts; flags are its own, tick as in `NewestRow`.

    What is new to a reader follows, the oldest first; there were passed_over more before that.
    """

    topic: str
    exchange: str
    symbol: str
    flags: Sequence[str]
    tick: str
    passed_over: int


class TradesRow(TopicRow):
    trades: list[TradeRow]


class LiquidationsRow(TopicRow):
    liquidations: list[TradeRow]


class ContractRow(NewestRow):
    """What is to be known of a derivative besides its prices. 0 is a time not known."""

    mark: float | None
    index: float | None
    funding_rate: float | None
    open_interest: float | None
    next_funding_ns: int
    funding_interval_h: float | None
    predicted_funding_rate: float | None


class DepthRow(NewestRow):
    """The best levels of a symbol, as [price, size], best first."""

    bids: Sequence[tuple[float, float]]
    asks: Sequence[tuple[float, float]]


def ticker_row(ticker: wire.Ticker, flags: int = 0, tick: str = "") -> TickerRow:
    """Return a ticker for JSON; flags are added to its own. SNAPSHOT is left out: here all are repetitions."""
    values: dict[str, Any] = {name: _known(getattr(ticker, name)) for name in wire.TICKER_VALUES}
    return TickerRow(**_common(ticker, flags, tick), **values)


def trade_row(trade: wire.Trade | wire.Liquidation) -> TradeRow:
    """Return a trade, or a liquidation, for JSON."""
    return TradeRow(
        sequence=trade.sequence,
        flags=_names(trade.flags),
        exchange_ns=trade.exchange_ns,
        recv_ns=trade.recv_ns,
        price=_known(trade.price),
        size=_known(trade.size),
        side=str(trade.side),
        trade_id=trade.trade_id,
        count=trade.count,
    )


def topic_row(topic: str, flags: int, tick: str, rows: list[TradeRow], passed_over: int) -> TopicRow:
    """Return trades or liquidations of a topic for JSON."""
    kind, exchange, symbol = topic.split(".", 2)
    head = {"topic": topic, "exchange": exchange, "symbol": symbol, "tick": tick}
    if kind == LIQUIDATION.name:
        return LiquidationsRow(**head, flags=_names(flags), passed_over=passed_over, liquidations=rows)
    return TradesRow(**head, flags=_names(flags), passed_over=passed_over, trades=rows)


def contract_row(contract: wire.Contract, flags: int = 0, tick: str = "") -> ContractRow:
    """Return a contract for JSON; flags are added to its own."""
    return ContractRow(
        **_common(contract, flags, tick),
        mark=_known(contract.mark),
        index=_known(contract.index),
        funding_rate=_known(contract.funding_rate),
        open_interest=_known(contract.open_interest),
        next_funding_ns=contract.next_funding_ns,
        funding_interval_h=_known(contract.funding_interval_h),
        predicted_funding_rate=_known(contract.predicted_funding_rate),
    )


def depth_row(depth: wire.Depth, flags: int = 0, tick: str = "") -> DepthRow:
    """Return depth for JSON; flags are added to its own."""
    return DepthRow(**_common(depth, flags, tick), bids=depth.bids, asks=depth.asks)


def _common(record: wire.Ticker | wire.Contract | wire.Depth, flags: int, tick: str) -> dict[str, Any]:
    return {
        "topic": record.topic,
        "exchange": record.exchange,
        "symbol": record.symbol,
        "flags": _names(record.flags | flags),
        "session": record.session,
        "sequence": record.sequence,
        "exchange_ns": record.exchange_ns,
        "recv_ns": record.recv_ns,
        "publish_ns": record.publish_ns,
        "exchange_sequence": record.exchange_sequence,
        "tick": tick,
    }


def _names(flags: int) -> list[str]:
    return [name for bit, name in wire.FLAG_NAMES.items() if flags & bit & ~wire.SNAPSHOT]


def _known(value: float) -> float | None:
    return value if value == value else None
