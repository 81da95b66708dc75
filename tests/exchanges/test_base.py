"""What holds for every exchange, whatever bytes it is sent."""

import json
import math
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table import MARKETS, RECV_NS, every_answer, every_frame, load, make

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.exchanges.arbitration import LINES_MAX, Line
from feedhandler.exchanges.base import NO_ORDERS, Control
from feedhandler.exchanges.contract_state import ContractState
from feedhandler.exchanges.depth_state import DepthState
from feedhandler.exchanges.state import (
    AHEAD_NS_MAX,
    CHANNELS_MAX,
    LAST,
    QUOTE,
    STATISTICS,
    State,
    TickerState,
)
from feedhandler.exchanges.trades import TradeState

SECOND = 1_000_000_000
NATIVES = {
    name: market().decode_instruments(load(name, "lists/instruments_ticks")).items[0].native
    for name, market in MARKETS.items()
}
RECORD_FIELDS = [name for name in wire.Ticker.__struct_fields__ if name not in ("version", "kind")]
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
    if isinstance(state, DepthState):
        return are_levels(state)
    if isinstance(state, ContractState):
        return is_a_contract(state)
    numbers = [getattr(state, name) for name in wire.TICKER_VALUES]
    fields = {name: getattr(state, name) for name in RECORD_FIELDS}
    assert wire.pack_ticker(wire.Ticker(**fields)) == state.record()
    return all(math.isnan(n) or 0 <= n < math.inf for n in numbers) and 0 <= state.exchange_ns < 2**63


def is_a_contract(state: ContractState) -> bool:
    """Nothing is infinite, and only rates are negative."""
    assert wire.pack(wire.unpack(state.record())) == state.record()
    numbers = state.mark, state.index, state.open_interest, state.funding_interval_h
    rates = state.funding_rate, state.predicted_funding_rate
    return (
        all(math.isnan(n) or 0 <= n < math.inf for n in numbers)
        and not any(math.isinf(rate) for rate in rates)
        and 0 <= state.next_funding_ns < 2**63
    )


def check_trade(record: bytes) -> None:
    trade = wire.unpack(record)
    assert isinstance(trade, wire.Trade | wire.Liquidation)
    assert 0 < trade.price < math.inf
    assert 0 < trade.size < math.inf
    assert trade.trade_id or isinstance(trade, wire.Liquidation)
    assert trade.exchange_ns > 0


def are_levels(state: DepthState) -> bool:
    """Each side is in order, each price once, and what crosses is flagged."""
    bids, asks = ([price for price, _ in side] for side in (state.bids, state.asks))
    assert wire.pack(wire.unpack(state.record())) == state.record()
    assert bids == sorted(set(bids), reverse=True)
    assert asks == sorted(set(asks))
    assert bool(state.flags & wire.INVALID) == bool(bids and asks and bids[0] >= asks[0])
    numbers = [number for level in (*state.bids, *state.asks) for number in level]
    return all(0 < n < math.inf for n in numbers) and 0 <= state.exchange_ns < 2**63


def check(exchange: str, payload: bytes) -> None:
    instance, emitted, trades = make(exchange, NATIVES[exchange]), [], []
    for kind in {"trade", "contract", "liquidation"}.intersection(instance.kinds):
        instance.add([NATIVES[exchange]], wire.SIMULATED, kind)

    def emit(state: State) -> None:
        record = state.record()  # as a feed does, at once
        if isinstance(state, TradeState):
            trades.append(record)
        else:
            emitted.append(state)

    try:
        result = instance.decode(payload, RECV_NS, instance.line, emit)
    except DecodeError:
        result = None
        assert not emitted, "but rows that are records of their own"
    for record in trades:
        check_trade(record)
    assert result is None or (isinstance(result, Control) and not emitted and not trades)
    assert all(isinstance(state, State) and is_publishable(state) for state in emitted)


def check_answer(exchange: str, body: bytes) -> None:
    """Any bytes give a time that a record can carry, numbers that a quote can have, or one of two errors."""
    instance = MARKETS[exchange]()
    for decode in (instance.decode_time, instance.decode_quote):
        try:
            result = decode(body)
        except (DecodeError, ProtocolError):
            continue
        if isinstance(result, int):
            assert 0 <= result < 2**63
        else:
            prices, sizes = (result.bid, result.ask), (result.bid_size, result.ask_size)
            assert all(math.isnan(n) or 0 < n < math.inf for n in prices)
            assert all(0 <= n < math.inf for n in sizes)


@pytest.mark.many
@pytest.mark.parametrize("exchange", MARKETS)
@settings(max_examples=300)
@given(data=st.data())
def test_no_rest_answer_gives_an_impossible_time_or_quote(exchange, data):
    name = data.draw(st.sampled_from(sorted(every_answer(exchange))))
    body = bytearray(load(exchange, name))
    for _ in range(data.draw(st.integers(0, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 12)))
        body[start:end] = data.draw(st.sampled_from(PARTS) | st.binary(max_size=8))
    check_answer(exchange, bytes(body))
    check_answer(exchange, bytes(data.draw(st.binary(max_size=100))))


@pytest.mark.parametrize("exchange", MARKETS)
@given(payload=st.binary(max_size=200))
def test_any_bytes_are_a_state_a_control_word_nothing_or_a_decode_error(exchange, payload):
    check(exchange, payload)


@pytest.mark.many
@pytest.mark.parametrize("exchange", MARKETS)
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


@pytest.mark.many
@pytest.mark.parametrize("exchange", MARKETS)
def test_each_value_of_each_frame_replaced_by_nonsense_is_handled_alike(exchange):
    for name in every_frame(exchange):
        frame = load(exchange, name)[:4000]
        for match in re.finditer(rb'(?<=[:\[,])("[^"]*"|-?[0-9.]+|null|true)(?=[,}\]])', frame):
            for part in PARTS:
                check(exchange, frame[: match.start()] + part + frame[match.end() :])


@pytest.mark.many
@pytest.mark.parametrize("exchange", MARKETS)
def test_every_prefix_of_a_frame_is_handled_alike(exchange):
    for name in every_frame(exchange):
        frame = load(exchange, name)[:4000]
        for size in range(len(frame)):
            check(exchange, frame[:size])


class Digits(float):
    """A number that is written as it came."""

    def __new__(cls, text: str):
        self = super().__new__(cls, text)
        self.text = text
        return self

    def __repr__(self) -> str:
        return self.text


def numbers_as_texts(value):
    if isinstance(value, dict):
        return {name: numbers_as_texts(each) for name, each in value.items()}
    if isinstance(value, list):
        return [numbers_as_texts(each) for each in value]
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def texts_as_numbers(value):
    if isinstance(value, dict):
        return {name: texts_as_numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [texts_as_numbers(each) for each in value]
    is_number = isinstance(value, str) and re.fullmatch(r"-?(0|[1-9]\d{0,18})(\.\d+)?", value)
    return (Digits(value) if "." in value else int(value)) if is_number else value


def with_what_is_new(value):
    """Return it with fields that nobody knows, null and others, and its own in another order."""
    if isinstance(value, dict):
        own = {name: with_what_is_new(value[name]) for name in reversed(value)}
        return {"isNew": {"a": [1, None]}} | own | {"zNew": None, "zList": [], "zNumber": 1e300}
    return [with_what_is_new(each) for each in value] if isinstance(value, list) else value


def said(exchange, payload):
    """What comes of a message: its records, and the answer that it is."""
    instance, records = make(exchange, NATIVES[exchange]), []
    for kind in {"trade", "contract", "liquidation", "book"}.intersection(instance.kinds):
        instance.add([NATIVES[exchange]], wire.SIMULATED, kind)
    answer = instance.decode(payload, RECV_NS, instance.line, lambda state: records.append(state.record()))
    return records, answer


@pytest.mark.parametrize("other", [numbers_as_texts, texts_as_numbers, with_what_is_new])
@pytest.mark.parametrize("exchange", MARKETS)
def test_numbers_may_be_texts_and_texts_numbers_and_fields_may_be_new(exchange, other):
    count = 0
    for name in every_frame(exchange):
        payload = load(exchange, name)
        try:
            expected = said(exchange, payload)
            frame = json.loads(payload, parse_float=Digits)
        except (DecodeError, ValueError):
            continue
        if not expected[0] and other is texts_as_numbers:
            continue  # ids of requests are as we sent them
        assert said(exchange, json.dumps(other(frame), ensure_ascii=False).encode()) == expected, name
        count += 1
    assert count > 3


@pytest.mark.parametrize("other", [numbers_as_texts, texts_as_numbers, with_what_is_new])
@pytest.mark.parametrize("exchange", MARKETS)
def test_so_they_may_in_answers_over_rest(exchange, other):
    market = MARKETS[exchange]
    body = load(exchange, "lists/instruments_ticks")
    answer = json.dumps(other(json.loads(body, parse_float=Digits))).encode()
    assert market().decode_instruments(answer) == market().decode_instruments(body)
    count = 0
    for name in every_answer(exchange):
        body = load(exchange, name)
        for ask in (lambda made: made.decode_time, lambda made: made.decode_quote):
            try:
                expected = ask(make(exchange))(body)
                frame = json.loads(body, parse_float=Digits)
            except (DecodeError, ProtocolError, ValueError):
                continue
            answer = json.dumps(other(frame)).encode()
            assert repr(ask(make(exchange))(answer)) == repr(expected), name
            count += 1
    assert count > 1


@pytest.mark.parametrize("exchange", MARKETS)
def test_a_new_connection_forgets_what_the_old_one_said(exchange):
    instance = make(exchange, NATIVES[exchange])
    state = instance.tickers[NATIVES[exchange]]
    fresh = state.record()
    for name in sorted(every_frame(exchange)):
        try:
            instance.decode(load(exchange, name), RECV_NS, instance.line, lambda state: None)
        except DecodeError:
            continue
    assert state.record() != fresh
    channels = range(len(instance.topics(NATIVES[exchange], "ticker")))
    assert [state.channels[channel].heard_ns(0) for channel in channels] == [RECV_NS] * len(channels)
    assert state.heard(0) == len(channels)
    assert state.heard(1) == 0
    state.forget()
    assert state.record() == fresh
    assert not any(channel.heard_ns(0) for channel in state.channels)
    assert state.heard(0) == 0


# --- states


def state() -> TickerState:
    return TickerState(topic="ticker.x.Y", native="Y", base_flags=wire.SIMULATED, flags=wire.SIMULATED)


def test_a_record_has_every_field_of_its_state():
    full = state()
    ranges = {"flags": 16, "session": 32, "sequence": 64, "exchange_sequence": 64}
    numbers = {name: 2**bits - 3 for name, bits in ranges.items()}
    times = {"exchange_ns": 1, "recv_ns": 2, "publish_ns": 2**63 - 1}
    values = {name: number + 0.25 for number, name in enumerate(wire.TICKER_VALUES)}
    for name, value in {**numbers, **times, **values}.items():
        setattr(full, name, value)
    assert full.record() == wire.pack_ticker(wire.Ticker("ticker.x.Y", **numbers, **times, **values))
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


@pytest.mark.parametrize("offset_s", [-300, 0, 300])
@pytest.mark.parametrize(("beyond_ns", "is_bad"), [(0, False), (1, True)])
def test_with_the_exchanges_clock_known_it_alone_says_what_cannot_be(offset_s, beyond_ns, is_bad):
    exchange = make("bybit", "BTCUSDT")
    ahead_ns_max = offset_s * SECOND + 1_200_000_000
    exchange.set_clock(offset_s * SECOND, ahead_ns_max)
    exchange.add(["ETHUSDT"], 0)
    for state in exchange.tickers.values():
        state.exchange_ns = RECV_NS + ahead_ns_max + beyond_ns
        state.on_news(RECV_NS)
        assert bool(state.flags & wire.BAD_EXCHANGE_TIME) == is_bad
        state.forget()
        assert state.ahead_ns_max == ahead_ns_max
    exchange.set_clock()
    assert {(s.offset_ns, s.ahead_ns_max) for s in exchange.tickers.values()} == {(0, AHEAD_NS_MAX)}


@pytest.mark.parametrize("offset_s", [-300, 0, 300])
def test_a_time_that_cannot_be_counts_as_the_exchanges_present(offset_s):
    exchange = make("bybit", "BTCUSDT")
    exchange.set_clock(offset_s * SECOND, offset_s * SECOND + 1_200_000_000)
    (state,) = exchange.tickers.values()
    present = RECV_NS + offset_s * SECOND
    assert state.accept(STATISTICS, exchange.line, present + 5 * SECOND, RECV_NS, True)
    assert not state.accept(STATISTICS, exchange.line, present - 1, RECV_NS, True), "older than what counts"
    assert state.accept(STATISTICS, exchange.line, present + SECOND, RECV_NS + SECOND, True)


# Our clock is slow, which is not known: what two lines bring after an update that is 12 s old, and when, in
# seconds by the exchange's clock; and whether it is first.
SLOW = {
    "what follows closely on what can be is in order": [
        *((0, 0, 0, True), (1, 0, 0, False), (0, 1, 1, True)),
        *((1, 0, 2, False), (1, 1, 2, False), (1, 3, 3, True)),
    ],
    "what is far ahead of all is not older than what is known": [
        (0, 300, 0, True),
        (0, 1, 1, True),
        (0, 2, 2, True),
    ],
}


@pytest.mark.parametrize("case", SLOW)
def test_a_time_that_cannot_be_since_our_own_clock_is_slow_is_not_older_than_the_newest(case):
    (state,) = make("okx", "BTC-USDT").tickers.values()
    both, slow = lines(), 71 * SECOND
    assert state.accept(STATISTICS, both[0], RECV_NS - 12 * SECOND, RECV_NS - slow, True)
    for line, time_s, recv_s, is_first in SLOW[case]:
        time_ns, recv_ns = RECV_NS + time_s * SECOND, RECV_NS + recv_s * SECOND - slow
        assert state.accept(STATISTICS, both[line], time_ns, recv_ns, True) == is_first, (time_s, recv_s)


@pytest.mark.parametrize("is_known", [True, False])
def test_our_own_clock_is_set_back_and_times_stay_in_order(is_known):
    """By so little that nothing else tells, or by so much that no time can be."""
    exchange = make("okx", "BTC-USDT")
    (state,) = exchange.tickers.values()
    back = (5 if is_known else 65) * SECOND
    if is_known:
        exchange.set_clock(0, SECOND)
    ahead, behind = lines()
    for second in range(4):
        recv_ns = RECV_NS + second * SECOND - (back if second > 1 else 0)
        assert state.accept(STATISTICS, ahead, RECV_NS + second * SECOND, recv_ns, True), second
        old_ns = RECV_NS + (second - 2) * SECOND
        assert not state.accept(STATISTICS, behind, old_ns, recv_ns + SECOND // 2, True), second


def test_a_time_is_of_the_present_by_the_exchanges_clock():
    """Set back by half a second, while ours is five minutes slow."""
    exchange = make("bybit", "BTCUSDT")
    exchange.set_clock(300 * SECOND, 301 * SECOND)
    (state,) = exchange.tickers.values()
    present = RECV_NS + 300 * SECOND
    assert state.accept(STATISTICS, exchange.line, present + SECOND, RECV_NS, True)
    later = RECV_NS + 10 * SECOND + SECOND // 2
    assert not state.accept(STATISTICS, exchange.line, present + SECOND // 2 - 1, later, True), "too old"
    assert state.accept(STATISTICS, exchange.line, present + SECOND // 2, later, True)


@pytest.mark.parametrize(
    ("exchange", "kind", "name", "stated"),
    [
        ("kucoin", "ticker", "ticker", b'"time":1790000000'),
        ("kucoin_linear", "ticker", "execution", b'"ts":1790000000'),
        ("okx_linear", "contract", "mark_price", b'"ts":"1790000000'),
    ],
)
def test_a_time_that_cannot_be_does_not_outlive_the_next_one(exchange, kind, name, stated):
    market = make(exchange, NATIVES[exchange])
    if kind not in ("ticker", "depth"):
        market.add([NATIVES[exchange]], wire.SIMULATED, kind)
    state = market.states[kind][NATIVES[exchange]]
    frame = load(exchange, name)
    assert stated in frame
    ahead, later = (frame.replace(stated, stated.replace(b"0000000", at)) for at in (b"0009999", b"0000001"))
    market.decode(ahead, RECV_NS, market.line, lambda state: None)
    assert state.flags & wire.BAD_EXCHANGE_TIME
    market.decode(later, RECV_NS + 2 * SECOND, market.line, lambda state: None)
    assert not state.flags & wire.BAD_EXCHANGE_TIME
    assert state.exchange_ns < RECV_NS + 2 * SECOND


def test_a_topic_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="bytes, 63 fit"):
        make("binance", "B" * 60)


# --- channels


def lines(count=2):
    return [Line(index) for index in range(count)]


def test_what_a_line_of_another_group_brings_is_nobodys():
    quote, (own,) = state(), lines(1)
    assert quote.accept(QUOTE, own, 100, RECV_NS)
    other = Line(0, 7)
    assert not quote.accept(QUOTE, other, 101, RECV_NS + 1)
    newest = quote.channels[QUOTE]
    assert (other.frames, newest.update_id, newest.updates) == (0, 100, 1)
    quote.group = 7
    assert quote.accept(QUOTE, other, 101, RECV_NS + 2)
    assert not quote.accept(QUOTE, own, 102, RECV_NS + 3)


def test_channels_are_counted_each_for_itself():
    quote, (one, two) = state(), lines()
    assert quote.accept(QUOTE, one, 100, RECV_NS)
    assert quote.accept(STATISTICS, two, 7, RECV_NS)
    assert (quote.heard(0), quote.heard(1)) == (1, 1)
    assert (quote.channels[QUOTE].heard_ns(0), quote.channels[STATISTICS].heard_ns(0)) == (RECV_NS, 0)


def test_a_slower_channel_fills_the_quote_until_its_own_has_sent_and_is_evidence_from_then_on():
    quote, (one, two) = state(), lines()
    quote.fill_quote(1.0, 2.0, 3.0, 4.0)
    quote.fill_quote(0.0, 0.0, 6.0, 7.0)
    assert math.isnan(quote.bid)
    assert (quote.bid_size, quote.ask, quote.ask_size) == (0.0, 6.0, 7.0)
    quote.accept(QUOTE, one, 100, RECV_NS)
    quote.set_quote(1.5, 2.5, 3.5, 4.5)
    assert not quote.accept(QUOTE, two, 99, RECV_NS)
    quote.renew(0)
    quote.release(0)
    quote.fill_quote(5.0, 6.0, 7.0, 8.0)
    assert (quote.bid, quote.bid_size, quote.ask, quote.ask_size) == (1.5, 2.5, 3.5, 4.5)
    assert quote.stated(QUOTE) == (5.0, 6.0, 7.0, 8.0)
    quote.forget()
    assert all(math.isnan(value) for value in quote.stated(QUOTE))
    quote.fill_quote(5.0, 6.0, 7.0, 8.0)
    assert quote.bid == 5.0, "whoever begins anew has sent nothing"


def test_a_slower_channel_fills_the_last_price_in_the_same_way():
    last, (one,) = state(), lines(1)
    last.fill_last(1.0)
    assert last.last == 1.0
    last.fill_last(0.0)
    assert math.isnan(last.last)
    last.accept(LAST, one, 100, RECV_NS)
    last.last = 2.0
    last.fill_last(3.0)
    assert (last.last, last.stated(LAST), last.stated(STATISTICS)) == (2.0, (3.0,), ())


@pytest.mark.parametrize("flag", [wire.STALE, wire.DOWN])
def test_what_is_known_already_is_news_to_a_state_that_is_not_live(flag):
    quote, (one, two) = state(), lines()
    assert quote.accept(QUOTE, one, 100, RECV_NS)
    quote.flags |= flag
    assert not quote.accept(QUOTE, two, 99, RECV_NS), "but never what is older"
    assert quote.accept(QUOTE, two, 100, RECV_NS)


def test_a_time_ahead_of_ours_does_not_silence_what_follows():
    quote, (one, two) = state(), lines()
    assert quote.accept(QUOTE, one, RECV_NS + 3600 * SECOND, RECV_NS, True)
    assert quote.accept(QUOTE, one, RECV_NS + 2 * SECOND, RECV_NS + 2 * SECOND, True)
    assert quote.accept(QUOTE, two, RECV_NS + 3 * SECOND, RECV_NS + 3 * SECOND, True)


@pytest.mark.parametrize("set_back_s", [120, 3600])
def test_our_own_clock_set_back_silences_no_line(set_back_s):
    """Nor for as long as nobody can say how far the exchange's is ahead since."""
    known, (a, b) = state(), lines()
    for time_ns in range(RECV_NS, RECV_NS + 20 * SECOND, SECOND):
        for line in (a, b):
            known.accept(QUOTE, line, time_ns, time_ns + 1, True)
    for time_ns in range(RECV_NS + 20 * SECOND, RECV_NS + 40 * SECOND, SECOND):
        recv_ns = time_ns - set_back_s * SECOND
        assert known.accept(QUOTE, a, time_ns, recv_ns, True)
        known.accept(QUOTE, b, time_ns, recv_ns + 1, True)
    assert (a.late, b.late) == (0, 0)
    newest_ns = max(known.channels[QUOTE].heard_ns(each) for each in range(LINES_MAX))
    assert newest_ns < RECV_NS, "by the clock as it is now"


def test_lines_and_channels_beyond_the_last_are_refused():
    quote, (one,) = state(), lines(1)
    with pytest.raises(IndexError):
        quote.accept(CHANNELS_MAX, one, 1, RECV_NS)
    with pytest.raises(IndexError):
        quote.renew(LINES_MAX)
    with pytest.raises(IndexError):
        quote.heard(LINES_MAX)
