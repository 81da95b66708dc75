"""Contract: what is to be known of a derivative besides its prices: mark, index, funding, open interest.

The newest record is always enough.
"""

from typing import Annotated, Final

from feedhandler.data.header import HEADER, Record
from feedhandler.data.layout import Description, Retention, f64, i64, layout, u64

CODE: Final = 9
NAN: Final = float("nan")


class Contract(Record):
    """Mark and index price, funding and open interest of one instrument.

    NaN is not known (yet), or that the instrument has no such thing: one that is delivered has no funding.
    """

    kind: int = CODE
    exchange_sequence: Annotated[
        int, u64("", "the newest update id that the exchange gave for these values; 0 = it gives none")
    ] = 0
    mark: Annotated[float, f64("quote currency", "price at which positions are valued")] = NAN
    index: Annotated[float, f64("quote currency", "price of what it is about, on spot markets")] = NAN
    funding_rate: Annotated[
        float, f64("fraction", "what longs pay to shorts at the next funding; 0.0001 = 0.01 %")
    ] = NAN
    open_interest: Annotated[float, f64("base currency", "all open positions, each counted once")] = NAN
    next_funding_ns: Annotated[int, i64("Unix ns", "when it is due; 0 = not known")] = 0
    funding_interval_h: Annotated[float, f64("hours", "from one funding to the next")] = NAN
    predicted_funding_rate: Annotated[
        float, f64("fraction", "what the exchange expects of the funding after the next one")
    ] = NAN


CONTRACT: Final = Description(
    CODE,
    "contract",
    "a derivative's mark and index price, funding and open interest",
    Retention.LATEST,
    Contract,
    layout("contract", "mark, index, funding and open interest; NaN is not known (yet)", Contract, HEADER),
)
assert CONTRACT.size == 168
