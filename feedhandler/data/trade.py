"""Trade: one trade as the exchange states it. Each counts, once."""

import enum
from typing import Annotated, Final

from feedhandler.data.header import HEADER, Record
from feedhandler.data.layout import Description, Retention, char, f64, layout, u8, u16, u32, u64

CODE: Final = 6
NAN: Final = float("nan")
ID_SIZE: Final = 40  # Bybit's UUIDs have 36 characters
BLOCK: Final = 1  # of bits


class Side(enum.IntEnum):
    """What the taker did. It prints as a word."""

    UNKNOWN = 0
    BUY = 1
    SELL = 2

    def __str__(self) -> str:
        return self.name.lower()

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


# For each trade: before Python 3.12 `Side.UNKNOWN` takes as long as seven names.
UNKNOWN_SIDE: Final = Side.UNKNOWN


class Trade(Record):
    """One trade, or several that the exchange merged.

    side is a `Side` where it was received. The price is in quote currency, the size in base currency.
    """

    kind: int = CODE
    exchange_sequence: Annotated[
        int,
        u64(
            "",
            "its number at the exchange, which never falls; several trades may share one; 0 = it gives none",
        ),
    ] = 0
    price: Annotated[float, f64("quote currency", "the price")] = NAN
    size: Annotated[float, f64("base currency", "how much was traded")] = NAN
    count: Annotated[int, u32("", "how many trades the exchange has merged into this one; 1 = it is one")] = 1
    side: Annotated[Side, u8("", "the taker's: 0 = not known, 1 = buy, 2 = sell")] = Side.UNKNOWN
    bits: Annotated[int, u8("", "1 = a block trade, made apart from the book")] = 0
    index: Annotated[int, u16("", "its position in the exchange's message, from 0")] = 0
    trade_id: Annotated[str, char(ID_SIZE, "its id as the exchange gives it: text, padded with NUL")] = ""


TRADE: Final = Description(
    CODE,
    "trade",
    "one trade, as the exchange states it",
    Retention.EVERY,
    Trade,
    layout("trade", "one trade, as the exchange states it", Trade, HEADER),
)
assert TRADE.size == 176
