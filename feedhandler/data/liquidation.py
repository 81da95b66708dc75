"""Liquidation: one, as the exchange states it. Each counts, once. Its bytes are laid out as those of a trade."""

from typing import Annotated, Final

from feedhandler.data.header import HEADER, Record
from feedhandler.data.layout import Description, Retention, char, f64, layout, u8, u16, u32, u64
from feedhandler.data.trade import ID_SIZE, TRADE, Side

CODE: Final = 10
NAN: Final = float("nan")


class Liquidation(Record):
    """A position that the exchange closes, or a part of it, by an order of its own.

    side is that order's: a long position is sold. The price is in quote currency, the size in base currency.
    """

    kind: int = CODE
    exchange_sequence: Annotated[int, u64("", "its number at the exchange; 0 = it gives none")] = 0
    price: Annotated[float, f64("quote currency", "that of the order; not what it was filled at")] = NAN
    size: Annotated[float, f64("base currency", "how much is liquidated")] = NAN
    count: Annotated[int, u32("", "how many liquidations the exchange has merged into this one")] = 1
    side: Annotated[Side, u8("", "that of the order: 0 = not known, 1 = buy, 2 = sell: a long position")] = (
        Side.UNKNOWN
    )
    bits: Annotated[int, u8("", "0")] = 0
    index: Annotated[int, u16("", "its position in the exchange's message, from 0")] = 0
    trade_id: Annotated[
        str, char(ID_SIZE, "its id as the exchange gives it, empty if it gives none: text, padded with NUL")
    ] = ""


LIQUIDATION: Final = Description(
    CODE,
    "liquidation",
    "one liquidation, as the exchange states it",
    Retention.EVERY,
    Liquidation,
    layout("liquidation", "one liquidation, as the exchange states it", Liquidation, HEADER),
)
assert LIQUIDATION.layout.format == TRADE.layout.format
