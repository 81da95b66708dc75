"""Which of several feeds has a symbol, and what they say together."""

from feedhandler.data.shard import shards
from feedhandler.data.topics import symbol_in
from feedhandler.data.wire import TICKER, padded, topic
from feedhandler.merger.feeds import ExchangeView, FeedView, Route, Traffic, quantile_us


def view(exchange, count):
    exchange.spread([FeedView("x", shard, Traffic(), 0) for shard in shards(count)])


def test_each_route_is_with_the_feed_that_has_its_symbol_whatever_the_count():
    exchange = ExchangeView("x", 0)
    view(exchange, 1)
    natives = [f"S{number}" for number in range(50)]
    (whole,) = exchange.feeds.values()
    for native in natives:
        name = padded(topic(TICKER, "x", native))
        whole.routes[name] = Route(name, whole.traffic)
    for count in (4, 3, 16, 1, 2):
        view(exchange, count)
        assert sum(len(feed.routes) for feed in exchange.feeds.values()) == 50
        for feed in exchange.feeds.values():
            for name, route in feed.routes.items():
                assert feed.shard.has(symbol_in(name))
                assert exchange.feed_of(symbol_in(name)) is feed
                assert route.traffic is feed.traffic


def test_counters_never_fall_when_feeds_are_replaced():
    exchange = ExchangeView("x", 0)
    view(exchange, 2)
    for number, feed in enumerate(exchange.feeds.values(), 1):
        feed.traffic.records, feed.hop_lost, feed.traffic.newest_recv_ns = 10 * number, number, 100 * number
    view(exchange, 3)
    status = exchange.status()
    assert (status.records, status.hop_lost, status.newest_recv_ns) == (30, 3, 200)


def test_latency_is_that_of_all_feeds():
    exchange = ExchangeView("x", 0)
    view(exchange, 2)
    one, other = exchange.feeds.values()
    one.traffic.latencies = [(1000, 2000)] * 3
    other.traffic.latencies = [(5000, 2000)]
    status = exchange.status()
    assert (status.latency_p50_us, status.latency_p99_us, status.feed_p99_us) == (3.0, 7.0, 5.0)


def test_a_quantile_is_a_value_that_occurred():
    assert quantile_us([], 0.5) is None
    assert [quantile_us([1000, 2000, 3000], q) for q in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]


def test_a_native_symbol_may_have_dots_and_any_letters():
    assert symbol_in(padded("ticker.x.A.B币")) == "A.B币"
