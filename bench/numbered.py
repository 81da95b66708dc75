"""Numbered quotes: every message carries its number in its values, so that a record says which message it was.

Message `n` has bid `(BID_FIRST + n) / 100`; ask and sizes are functions of `n` that no two neighbours share.
The frames themselves are the simulator's, digit for digit; only the market behind them is replaced. A record
that comes out at the far end, of whatever library, is then checked against what it must be, and dated by the
moment at which its message was due. Pure: no clock, no sockets.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from feedhandler.sim.market import Instrument

Numbers = NDArray[np.int64]
Values = NDArray[np.float64]

BID_FIRST: Final = 1_000_000  # in hundredths: 10,000.00
UPDATE_ID_FIRST: Final = 10**9
PRICE_DECIMALS: Final = 2
SIZE_DECIMALS: Final = 3
_BID_SIZES, _ASK_SIZES = 99_991, 99_989  # primes: sizes repeat after so many messages
_SPREADS = 7


def prepare(instrument: Instrument) -> None:
    """Give an instrument of the simulator the decimals that numbered quotes need; before its streams are made."""
    instrument.price_decimals, instrument.size_decimals = PRICE_DECIMALS, SIZE_DECIMALS


def show(instrument: Instrument, number: int) -> None:
    """Let the instrument stand as message `number` is to print it."""
    instrument.update_id = UPDATE_ID_FIRST + number
    instrument.bid = BID_FIRST + number
    instrument.bid_size = 1 + number * 7919 % _BID_SIZES
    instrument.ask = instrument.bid + 1 + number % _SPREADS
    instrument.ask_size = 1 + number * 104_729 % _ASK_SIZES


def numbers_of(bid: Values) -> Numbers:
    """Return the numbers of the messages that had these bids; nonsense for bids that are none of ours."""
    return np.rint(np.nan_to_num(bid, nan=-1.0) * 10**PRICE_DECIMALS).astype(np.int64) - BID_FIRST


def expected(number: Numbers) -> tuple[Values, Values, Values, Values]:
    """Return bid, bid_size, ask and ask_size of messages, as the floats that their texts decode to."""
    bid = BID_FIRST + number
    ask = bid + 1 + number % _SPREADS
    price, size = 10.0**PRICE_DECIMALS, 10.0**SIZE_DECIMALS
    # Division of two exact integers rounds once, as does a decimal text: the same float.
    return (
        bid / price,
        (1 + number * 7919 % _BID_SIZES) / size,
        ask / price,
        (1 + number * 104_729 % _ASK_SIZES) / size,
    )


def spread_stride(symbols: int) -> int:
    """Return a step that visits all symbols before it repeats, neighbours far apart.

    Symbol `number * stride % symbols` is then another connection's as often as chance would have it: a plain
    round robin would fill one connection's reads with its own symbols alone.
    """
    stride = max(1, int(symbols * 0.618_034))
    while np.gcd(stride, symbols) != 1:
        stride += 1
    return stride


def symbol_indices(number: Numbers, symbols: int) -> Numbers:
    """Return which symbol, as an index, each message is about."""
    return number * spread_stride(symbols) % symbols
