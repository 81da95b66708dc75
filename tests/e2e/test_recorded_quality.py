"""What simulated exchanges lose is found in the recording by their ids, and what they do not is complete."""

import json

import pytest
from harness import wait_until
from test_recorder import received, recording

from feedhandler.recordings import directory
from feedhandler.recordings.quality import COMPLETE, CONNECTED, MISSING, Quality

BOOKS = {
    "binance": ("BTCUSDT", "btcusdt@depth@100ms"),
    "kucoin": ("BTC-USDT", "/market/level2:BTC-USDT"),
    "bybit": ("BTCUSDT", "orderbook.200.BTCUSDT"),
}
LOST = 3  # messages


def quality(s, exchange):
    """What ids prove of an exchange's recording so far."""
    found = Quality(exchange)
    for item in directory.items(directory.find(s.recordings, [exchange])[exchange]):
        found.take(item)
    return found.report()


@pytest.mark.e2e
def test_changes_of_books_that_an_exchange_loses_are_missing_and_nothing_else_is(stack):
    s = recording(stack, rate=300)
    s.start("recorder", "sim", "merger", *s.exchanges)
    s.wait_live()
    for exchange in s.exchanges:
        wait_until(lambda exchange=exchange: received(s, exchange) > 1000, "some traffic")
    assert all(quality(s, exchange).missing == 0 for exchange in s.exchanges)

    for exchange, (_, topic) in BOOKS.items():
        s.fault(exchange, "lose_messages", topic=topic, count=LOST)
    for exchange in s.exchanges:
        s.wait_effect(exchange, "lose_messages", LOST)
    before = {exchange: received(s, exchange) for exchange in s.exchanges}
    for exchange, count in before.items():
        wait_until(lambda exchange=exchange, count=count: received(s, exchange) > count + 300, "more traffic")
    for exchange in s.exchanges:
        s.kill(exchange, 15)
    s.kill("recorder", 15)

    for exchange, (symbol, _) in BOOKS.items():
        report = quality(s, exchange)
        assert {(gap.kind, gap.symbol) for gap in report.gaps} == {("book", symbol)}
        assert report.missing >= LOST
        assert CONNECTED in {gap.why for gap in report.gaps}, "and others while Bybit is subscribed to anew"
        proven = [row for row in report.rows if row.missing is not None and row.received]
        bad = {(row.kind, row.symbol) for row in proven if row.verdict != COMPLETE}
        assert bad == {("book", symbol)}, "of all others an hour is complete"
    answer = s.run("captures", "verify", "--json", str(s.recordings))
    assert answer.returncode == 1
    found = {line["feed"]: line for line in map(json.loads, answer.stdout.splitlines())}
    for exchange, (symbol, _) in BOOKS.items():
        assert found[exchange]["missing"] == 0, "every frame that came was kept"
        verdicts = {row["verdict"] for row in found[exchange]["ids"]["rows"] if row["symbol"] == symbol}
        assert MISSING in verdicts
