"""Packing: a state to the bytes of its record.

Timed: `TickerState.record`, once per record, over the states of 40 symbols in turn.
"""

import itertools

from material import RECORDS, natives_of, running_exchange

from feedhandler.data import wire

SYMBOLS = 40


def bench_pack(measure):
    states = list(running_exchange("binance", natives_of("binance", SYMBOLS)).tickers.values())
    for state in states:
        record = wire.unpack(state.record())
        assert all(getattr(record, name) == getattr(state, name) for name in ("topic", *wire.TICKER_VALUES))
    turns = list(itertools.islice(itertools.cycle(states), RECORDS))

    def call():
        for state in turns:
            state.record()

    measure("pack: TickerState.record", f"{SYMBOLS} symbols", call)
