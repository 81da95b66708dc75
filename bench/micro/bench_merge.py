"""The merger's step: a feed's message to the messages for subscribers.

    message of 1, 10 or 40 records ──▶ Merger.on_message ──▶ outlet for each record | for batches

Timed: on_message with the real clock. The outlets keep the newest message; one
of them is wanted at a time: each record in a message of its own, or those that came together in one. 5,000
symbols come in random order, so that a record's route is rarely in the processor's cache. Not timed: sockets,
and `on_tick`, which runs between the rounds.
"""

import itertools
import time

import pytest
from material import Outlet, message_runs, records_in, running_merger, ticker

from feedhandler.data import wire
from feedhandler.merger.merge import TICK_NS


@pytest.mark.parametrize("is_batched", [False, True], ids=["each", "batch"])
@pytest.mark.parametrize("per_message", [1, 10, 40])
@pytest.mark.parametrize("symbols", [10, 5000])
def bench_merge(measure, symbols, per_message, is_batched):
    check(per_message, is_batched)

    outlet = Outlet(is_wanted=True)
    outlets = [Outlet(is_wanted=False), outlet] if is_batched else [outlet, Outlet(is_wanted=False)]
    merger = running_merger(symbols, *outlets, time.time_ns)
    on_message = merger.on_message
    rounds = itertools.cycle(message_runs(symbols, per_message))
    now_mono_ns = 0

    def prepare():
        nonlocal now_mono_ns
        now_mono_ns += TICK_NS
        merger.on_tick(now_mono_ns)
        return (next(rounds),), {}

    def call(messages):
        for message in messages:
            on_message(message)

    way = "in batches" if is_batched else "each alone"
    measure(
        f"merge: Merger.on_message, {way}", f"{symbols:5,} symbols, {per_message:2} a message", call, prepare
    )
    assert records_in(outlet.newest)[-1].kind == wire.TICKER


def check(per_message, is_batched):
    """What comes out is what came in, under the canonical topic, numbered and stamped."""
    each, batches = Outlet(is_wanted=not is_batched), Outlet(is_wanted=is_batched)
    merger = running_merger(50, each, batches, lambda: 77)
    sent = (batches if is_batched else each).sent = []
    merger.on_message(b"".join(wire.pack_ticker(ticker(number)) for number in range(per_message)))
    assert len(sent) == (1 if is_batched else per_message)
    stamps = {"session": 100, "sequence": 2, "publish_ns": 77}  # the second of each: the first made it known
    assert list(itertools.chain.from_iterable(map(records_in, sent))) == [
        ticker(number, topic=f"ticker.binance.C{number:04}/USDT", **stamps) for number in range(per_message)
    ]
