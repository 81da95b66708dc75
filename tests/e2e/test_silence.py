"""One channel of one symbol falls silent while everything else speaks: real processes, and a raw subscriber."""

import time

from harness import EXCHANGES, STALE, wait_until


def test_a_channel_that_falls_silent_is_flagged_in_time_and_heals_by_itself(stack):
    s = stack(rate=300)
    s.start()
    reader = s.wait_live()
    reader.read(23)  # what is usual is learned
    lost = {exchange: s.lose_quotes(exchange, "BTC/USDT") for exchange in EXCHANGES}
    lost_at = time.monotonic()
    flagged = {}

    def all_flagged(record):
        if record.kind == 1 and record.flags & STALE:
            flagged.setdefault(record.topic, round(time.monotonic() - lost_at, 1))
        return len(flagged) == len(EXCHANGES)

    # That 17 s are enough is shown in simulated time, and by `make chaos`.
    reader.read_until(all_flagged, "STALE in each exchange")
    print("seconds until it is flagged:", flagged)
    assert set(flagged) == {f"ticker.{exchange}.BTC/USDT" for exchange in EXCHANGES}
    status = wait_until(
        lambda: (
            (found := s.status()) and all(e["feed"]["stale"] for e in found["exchanges"].values()) and found
        ),
        "the status says so",
    )
    for exchange in EXCHANGES:
        assert list(status["exchanges"][exchange]["feed"]["stale_topics"]) == [lost[exchange]]
        assert f"stale: {lost[exchange]}" in status["text"][exchange]
        s.fault(exchange, "none")
    for exchange in EXCHANGES:
        topic = f"ticker.{exchange}.BTC/USDT"
        reader.read_until(lambda r, topic=topic: r.topic == topic and r.is_fresh, f"{topic} is live again")
    assert reader.holes == []
    for exchange in EXCHANGES:
        assert s.sim_state(exchange)["violations"] == []
