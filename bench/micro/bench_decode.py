"""Decoding: what one frame costs, by exchange and message kind, alone and through the session.

    payload (memoryview) ──▶ Market.decode
    payload (memoryview) ──▶ Session.on_frame ──▶ emit

Timed: the one call per frame, of an exchange with one symbol of which every channel has spoken, so that the
slow channels leave the quote alone. `emit` is that of a deque that keeps the newest. Not timed: picows, the clock.
"""

import collections

import pytest
from material import ANSWERS, DATA, DEPTH, NATIVE, RECORDS, expected, running_exchange, running_session
from table import RECV_NS, check_row, load, values

from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.state import State, TickerState


@pytest.mark.parametrize(("exchange", "frame"), DATA + DEPTH + ANSWERS)
def bench_decode(measure, exchange, frame):
    check_row(exchange, (NATIVE[exchange],), frame, expected(exchange, frame))
    decode = running_exchange(exchange, [NATIVE[exchange]]).decode
    newest: collections.deque[State] = collections.deque(maxlen=1)
    line, emit = Line(0), newest.append
    payloads = [memoryview(load(exchange, frame))] * RECORDS

    def call():
        for payload in payloads:
            decode(payload, RECV_NS, line, emit)

    measure("decode: Market.decode", f"{exchange} {frame}", call)


@pytest.mark.parametrize(("exchange", "frame"), DATA)
def bench_session(measure, exchange, frame):
    emitted: collections.deque[TickerState] = collections.deque(maxlen=1)
    on_frame = running_session(exchange, [NATIVE[exchange]], emitted.append).on_frame
    payloads = [memoryview(load(exchange, frame))] * RECORDS
    on_frame(payloads[0], RECV_NS)
    assert expected(exchange, frame).items() <= values(emitted[0]).items()
    assert emitted[0].recv_ns == RECV_NS

    def call():
        for payload in payloads:
            on_frame(payload, RECV_NS)

    measure("session: Session.on_frame, decode included", f"{exchange} {frame}", call)
