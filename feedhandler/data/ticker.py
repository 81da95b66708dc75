"""Ticker: the full current state of one instrument, so the newest record is always enough."""

from typing import Annotated, Final

from feedhandler.data.header import HEADER, Record
from feedhandler.data.layout import Description, Retention, f64, layout, u64

CODE: Final = 1
NAN: Final = float("nan")


class Ticker(Record):
    """Last price, best bid and offer, and 24 h statistics of one instrument.

    Prices in quote currency, sizes and base_volume_24h in base currency; NaN is not known (yet).
    """

    kind: int = CODE
    exchange_sequence: Annotated[
        int, u64("", "the newest update id that the exchange gave for this instrument; 0 = it gives none")
    ] = 0
    last: Annotated[float, f64("quote currency", "price of the last trade")] = NAN
    bid: Annotated[float, f64("quote currency", "best bid price")] = NAN
    bid_size: Annotated[float, f64("base currency", "what is bid for at that price")] = NAN
    ask: Annotated[float, f64("quote currency", "best ask price")] = NAN
    ask_size: Annotated[float, f64("base currency", "what is offered at that price")] = NAN
    open_24h: Annotated[float, f64("quote currency", "price 24 hours ago (rolling, not the UTC day)")] = NAN
    high_24h: Annotated[float, f64("quote currency", "highest price of the last 24 hours")] = NAN
    low_24h: Annotated[float, f64("quote currency", "lowest price of the last 24 hours")] = NAN
    base_volume_24h: Annotated[float, f64("base currency", "traded in the last 24 hours")] = NAN
    quote_volume_24h: Annotated[float, f64("quote currency", "traded in the last 24 hours")] = NAN

    @property
    def mid(self) -> float:
        """The middle between best bid and offer; NaN if one of them is not known."""
        return (self.bid + self.ask) / 2


TICKER: Final = Description(
    CODE,
    "ticker",
    "one instrument's prices, sizes and 24 h statistics",
    Retention.LATEST,
    Ticker,
    layout("ticker", "the full current state of one instrument; NaN is not known (yet)", Ticker, HEADER),
)
assert TICKER.size == 192
VALUES: Final = Ticker.__struct_fields__[-10:]  # the ten numbers, in wire order
assert (VALUES[0], VALUES[-1]) == ("last", "quote_volume_24h")
