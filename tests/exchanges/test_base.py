"""What holds for every exchange, whatever bytes it is sent."""

import math

import pytest
import table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table import RECV_NS, every_frame, load, make

from feedhandler import wire
from feedhandler.errors import DecodeError
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import AHEAD_NS_MAX, NO_ORDERS, Control, State

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
    assert wire.pack_ticker(state) == state.record()
    return all(math.isnan(n) or 0 <= n < math.inf for n in numbers) and 0 <= state.exchange_ns < 2**63


def check(exchange: str, payload: bytes) -> None:
    instance = make(exchange, NATIVES[exchange])
    try:
        result = instance.decode(payload, RECV_NS)
    except DecodeError:
        return
    assert result is None or isinstance(result, table.make_state | Control)
    if isinstance(result, table.make_state):
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
    channels = range(len(instance.topics(NATIVES[exchange])))
    assert all(state.has_heard(channel) for channel in channels)
    assert state.heard() == len(channels)
    state.forget()
    assert wire.pack_ticker(state) == fresh
    assert not any(state.has_heard(channel) for channel in channels)
    assert state.heard() == 0


# --- states


def state() -> State:
    return table.make_state(topic=b"ticker.x.Y", native="Y", base_flags=wire.SIMULATED, flags=wire.SIMULATED)


def test_a_record_has_every_field_of_its_state():
    full = state()
    ranges = {"flags": 16, "session": 32, "sequence": 64, "exchange_sequence": 64}
    numbers = {name: 2**bits - 3 for name, bits in ranges.items()}
    times = {"exchange_ns": 1, "recv_ns": 2, "publish_ns": 2**63 - 1}
    values = {name: number + 0.25 for number, name in enumerate(wire.TICKER_VALUES)}
    for name, value in {**numbers, **times, **values}.items():
        setattr(full, name, value)
    assert full.record() == wire.pack_ticker(wire.Ticker(b"ticker.x.Y", **numbers, **times, **values))
    with pytest.raises((OverflowError, wire.struct.error)):
        full.flags = 2**16
        full.record()


def test_the_price_of_an_empty_side_is_unknown_and_its_size_is_not():
    quote = state()
    quote.set_quote(*NO_ORDERS, 1.5, 2.5)
    assert math.isnan(quote.bid)
    assert (quote.bid_size, quote.ask, quote.ask_size) == (0.0, 1.5, 2.5)
    quote.set_quote(1.25, 2.25, *NO_ORDERS)
    assert math.isnan(quote.ask)
    assert (quote.bid, quote.bid_size, quote.ask_size) == (1.25, 2.25, 0.0)


def test_prices_of_what_never_traded_are_unknown_and_its_volumes_are_0():
    statistics = state()
    statistics.set_statistics(0.0, 0.0, 0.0, 0.0, 0.0)
    assert all(math.isnan(n) for n in (statistics.open_24h, statistics.high_24h, statistics.low_24h))
    assert (statistics.base_volume_24h, statistics.quote_volume_24h) == (0.0, 0.0)
    statistics.set_statistics(1.0, 2.0, 3.0, 4.0, 5.0)
    assert [getattr(statistics, name) for name in wire.TICKER_VALUES[-5:]] == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(("ahead_ns", "is_bad"), [(AHEAD_NS_MAX, False), (AHEAD_NS_MAX + 1, True)])
def test_news_decide_every_flag_anew(ahead_ns, is_bad):
    news = state()
    news.flags = wire.STALE
    news.exchange_ns = RECV_NS + ahead_ns
    news.on_news(RECV_NS)
    assert news.recv_ns == RECV_NS
    assert news.flags == wire.SIMULATED | (wire.BAD_EXCHANGE_TIME if is_bad else 0)


def test_a_topic_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="bytes, 39 fit"):
        make("binance", "B" * 30)
