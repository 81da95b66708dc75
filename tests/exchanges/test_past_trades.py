"""Trades as REST states them: the same trade is known by the same key, wherever it comes from."""

import json

import pytest
from table import FRAMES, load

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.trades import PastTrade, numbered

MS = 1_000_000
T0 = 1_790_000_000_250_125_000
T1 = 1_790_000_000_250_300_000
BUY, SELL = wire.Side.BUY, wire.Side.SELL
NUMBERS = {
    "binance": (5790000018, 5790000019),
    "kucoin": (21067996711960577, 21067996711960580),
    "okx": (1067468270, 1067468271),
}


def by_number(exchange, unit_ns=1):
    one, two = NUMBERS[exchange]
    first_ns, second_ns = T0 // unit_ns * unit_ns, (T1 if unit_ns == 1 else T0 + unit_ns) // unit_ns * unit_ns
    return [
        PastTrade(numbered(one, first_ns), one, first_ns, one, (f"{one}", 97421.5, 0.012, SELL)),
        PastTrade(numbered(two, second_ns), two, second_ns, two, (f"{two}", 97421.6, 1.0, BUY)),
    ]


def by_id():
    one, two = (f"{number:08x}-0000-5000-8000-0000000000ab" for number in (1, 2))
    return [
        PastTrade(one, 0, 1790000000250 * MS, 3189232173, (one, 97421.5, 0.012, SELL)),
        PastTrade(two, 0, 1790000000251 * MS, 3189232174, (two, 97421.6, 1.0, BUY), 1),
    ]


EXPECTED = {
    "binance": by_number("binance"),
    "kucoin": by_number("kucoin"),
    "bybit": by_id(),
    "okx": by_number("okx", MS),
}


def decoded(exchange, name):
    return EXCHANGES[exchange].main().decode_past_trades("", load(exchange, f"trades/{name}"))


@pytest.mark.parametrize("exchange", EXPECTED)
def test_an_answer_has_the_trades_it_states(exchange):
    rows = decoded(exchange, "answer")
    assert sorted(rows.items, key=lambda row: row.exchange_ns) == EXPECTED[exchange]
    assert rows.problem == ""


@pytest.mark.parametrize("exchange", EXPECTED)
def test_an_odd_row_costs_itself_alone(exchange):
    rows = decoded(exchange, "one_odd")
    assert [row.trade[1] for row in rows.items] == [97421.6]
    assert "1 of 2 rows" in rows.problem


@pytest.mark.parametrize("exchange", EXPECTED)
def test_a_refusal_is_told_apart(exchange):
    with pytest.raises((ProtocolError, DecodeError)):
        decoded(exchange, "refused")


@pytest.mark.parametrize("exchange", EXPECTED)
def test_every_answer_on_disk_is_decoded_here(exchange):
    names = {path.stem for path in (FRAMES / exchange / "trades").glob("*.json")}
    assert names == {"answer", "one_odd", "refused"}


PATHS = {
    "binance": ("/api/v3/historicalTrades?symbol=%E6%B1%89USDT&fromId=18&limit=1000", 25),
    "kucoin": ("/api/v1/market/histories?symbol=%E6%B1%89USDT", 3),
    "bybit": ("/v5/market/recent-trade?category=spot&symbol=%E6%B1%89USDT&limit=60", 1),
    "okx": ("/api/v5/market/history-trades?instId=%E6%B1%89USDT&type=1&after=118&limit=100", 4),
}


@pytest.mark.parametrize("exchange", PATHS)
def test_past_trades_are_requested_with_the_symbol_encoded(exchange):
    request = EXCHANGES[exchange].main().past_trades_request("汉USDT", 18)
    assert (request.path, request.weight) == PATHS[exchange]


TOPICS = {
    "binance": "btcusdt@trade",
    "kucoin": "/market/match:BTC-USDT",
    "bybit": "publicTrade.BTCUSDT",
    "okx": "trades:BTC-USDT",
}


@pytest.mark.parametrize("exchange", TOPICS)
def test_trades_have_one_topic_and_are_subscribed_to_within_the_limits(exchange):
    market = EXCHANGES[exchange].main()
    native = "BTC-USDT" if "BTC-USDT" in TOPICS[exchange] else "BTCUSDT"
    assert market.topics(native, "trade") == (TOPICS[exchange],)
    wanted = [topic for n in range(250) for topic in market.topics(f"A{n}-USDT", "trade")]
    mixed = wanted + [topic for n in range(250) for topic in market.topics(f"A{n}-USDT", "ticker")]
    batches = list(market.batches(mixed))
    assert sorted(topic for batch in batches for topic in batch) == sorted(mixed)
    assert max(map(len, batches)) <= 100
    if exchange == "kucoin":
        subscribed = [json.loads(market.subscribe(batch, "7"))["topic"] for batch in batches]
        matches = [topic for topic in subscribed if topic.startswith("/market/match:")]
        assert [topic.count(",") + 1 for topic in matches] == [100, 100, 50]
