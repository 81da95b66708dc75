"""One channel of one symbol falls silent while everything else speaks: real processes, and a raw subscriber."""

import time

from harness import EXCHANGES, STALE, wait_until

BOUND_S = 17.0  # as documented, for a channel that usually speaks every second
SLACK_S = 8.0  # of this machine

QUOTES = {
    "binance": "btcusdt@bookTicker",
    "kucoin": "/spotMarket/level1:BTC-USDT",
    "bybit": "orderbook.1.BTCUSDT",
}


def test_a_channel_that_falls_silent_is_flagged_in_time_and_heals_by_itself(stack):
    s = stack(rate=300)
    s.start()
    reader = s.wait_live()
    reader.read(23)  # what is usual is learned
    for exchange in EXCHANGES:
        s.fault(exchange, "lose_topic", topic=QUOTES[exchange])
    lost_at = time.monotonic()
    flagged = {}
    while len(flagged) < len(EXCHANGES):
        assert time.monotonic() - lost_at < BOUND_S + SLACK_S, f"flagged: {flagged}"
        for record in reader.read(0.2):
            if record.kind == 1 and record.flags & STALE:
                flagged.setdefault(record.topic, time.monotonic() - lost_at)
    assert set(flagged) == {f"ticker.{exchange}.BTC/USDT" for exchange in EXCHANGES}
    status = wait_until(
        lambda: (
            (found := s.status()) and all(e["feed"]["stale"] for e in found["exchanges"].values()) and found
        ),
        "the status says so",
    )
    for exchange in EXCHANGES:
        assert list(status["exchanges"][exchange]["feed"]["stale_topics"]) == [QUOTES[exchange]]
        assert f"stale: {QUOTES[exchange]}" in status["text"][exchange]
        s.fault(exchange, "none")
    for exchange in EXCHANGES:
        topic = f"ticker.{exchange}.BTC/USDT"
        reader.read_until(lambda r, topic=topic: r.topic == topic and r.is_fresh, f"{topic} is live again")
    assert reader.holes == []
    for exchange in EXCHANGES:
        assert s.sim_state(exchange)["violations"] == []
