"""What holds for every exchange, whatever bytes it is sent."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table import RECV_NS, every_frame, load, make

from feedhandler import wire
from feedhandler.errors import DecodeError
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Control, State

NATIVES = {"binance": "BTCUSDT", "kucoin": "BTC-USDT", "bybit": "BTCUSDT"}
PARTS = [
    b'"nan"',
    b'"inf"',
    b"-1",
    b'"-1"',
    b"1e999",
    b"18446744073709551616",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"true",
]


def is_publishable(state: State) -> bool:
    """No number from an exchange may reach a subscriber as infinite, negative or out of the wire's range."""
    numbers = [getattr(state, name) for name in wire.TICKER_VALUES]
    wire.pack_ticker(state)
    return all(math.isnan(n) or 0 <= n < math.inf for n in numbers) and 0 <= state.exchange_ns < 2**63


def check(exchange: str, payload: bytes) -> None:
    instance = make(exchange, NATIVES[exchange])
    try:
        result = instance.decode(payload, RECV_NS)
    except DecodeError:
        return
    assert result is None or isinstance(result, State | Control)
    if isinstance(result, State):
        assert is_publishable(result)


@pytest.mark.parametrize("exchange", EXCHANGES)
@given(payload=st.binary(max_size=200))
def test_any_bytes_are_a_state_a_control_word_nothing_or_a_decode_error(exchange, payload):
    check(exchange, payload)


@pytest.mark.parametrize("exchange", EXCHANGES)
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_mutation_of_a_real_frame_is_handled_alike(exchange, data):
    name = data.draw(st.sampled_from(sorted(every_frame(exchange))))
    payload = bytearray(load(exchange, name)[:4000])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(payload)))
        end = data.draw(st.integers(start, min(len(payload), start + 12)))
        payload[start:end] = data.draw(st.sampled_from(PARTS) | st.binary(max_size=8))
    check(exchange, bytes(payload))


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_each_value_of_each_frame_replaced_by_nonsense_is_handled_alike(exchange):
    import re

    for name in every_frame(exchange):
        frame = load(exchange, name)[:4000]
        for match in re.finditer(rb'(?<=[:\[,])("[^"]*"|-?[0-9.]+|null|true)(?=[,}\]])', frame):
            for part in PARTS:
                check(exchange, frame[: match.start()] + part + frame[match.end() :])


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_every_prefix_of_a_frame_is_handled_alike(exchange):
    for name in every_frame(exchange):
        frame = load(exchange, name)[:4000]
        for size in range(len(frame)):
            check(exchange, frame[:size])


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_new_connection_forgets_what_the_old_one_said(exchange):
    instance = make(exchange, NATIVES[exchange])
    state = instance.states[NATIVES[exchange]]
    fresh = wire.pack_ticker(state)
    for name in sorted(every_frame(exchange)):
        try:
            instance.decode(load(exchange, name), RECV_NS)
        except DecodeError:
            continue
    assert wire.pack_ticker(state) != fresh
    assert instance.unheard(NATIVES[exchange]) == []
    state.forget()
    assert wire.pack_ticker(state) == fresh
    assert instance.unheard(NATIVES[exchange]) == list(instance.topics(NATIVES[exchange]))
