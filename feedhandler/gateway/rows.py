"""Exchanges and tickers as JSON: the same over HTTP and to browsers."""

from collections.abc import Sequence

import msgspec

from feedhandler.data import wire
from feedhandler.data.status import ExchangeStatus


class ExchangeRow(msgspec.Struct, kw_only=True):
    """One exchange. connect: whether it is to be connected to. status: None until the merger has sent one."""

    exchange: str
    is_simulated: bool
    connect: bool
    has_credentials: bool
    text: str
    status: ExchangeStatus | None = None


class TickerRow(msgspec.Struct, kw_only=True):
    """One ticker; a value that is not known is None. Times are Unix ns.

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
    tick: str


def ticker_row(ticker: wire.Ticker, flags: int = 0, tick: str = "") -> TickerRow:
    """Return a ticker for JSON; flags are added to its own. SNAPSHOT is left out: here all are repetitions."""
    names = [name for bit, name in wire.FLAG_NAMES.items() if (ticker.flags | flags) & bit & ~wire.SNAPSHOT]
    values = {name: _known(getattr(ticker, name)) for name in wire.TICKER_VALUES}
    return TickerRow(
        topic=ticker.topic,
        exchange=ticker.exchange,
        symbol=ticker.symbol,
        flags=names,
        session=ticker.session,
        sequence=ticker.sequence,
        exchange_ns=ticker.exchange_ns,
        recv_ns=ticker.recv_ns,
        publish_ns=ticker.publish_ns,
        exchange_sequence=ticker.exchange_sequence,
        tick=tick,
        **values,
    )


def _known(value: float) -> float | None:
    return value if value == value else None
