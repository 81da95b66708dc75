"""What a feed says of topics that are not to be used: which, how many, and since when."""

from feedhandler.data import wire
from feedhandler.data.status import LISTED_MAX, FeedStatus
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.books import Base
from feedhandler.feed.report import InvalidTopics, left_out

NS_PER_S = 10**9
EPOCH_NS = 1_790_000_000 * NS_PER_S


def reported(topics, second):
    """The status after one look at all parts."""
    for part in range(5):
        topics.look(part, 5, EPOCH_NS + second * NS_PER_S)
    status = FeedStatus(exchange="binance", pid=1, started_ns=0)
    topics.report(status)
    return status


def test_topics_are_named_with_since_when_they_are_invalid():
    market = EXCHANGES["binance"].main()
    topics = InvalidTopics([market])
    assert reported(topics, 0).invalid == {}
    books = market.add(["BTCUSDT", "ETHUSDT"], 0, "book")
    (depth,) = market.add(["BTCUSDT"], 0, "depth")
    market.add(["BTCUSDT"], 0, "ticker")
    first = reported(topics, 10)
    assert first.invalid == {"book": 2}, "they wait for a base"
    depth.flags |= wire.INVALID
    books[0].take_base(Line(0), Base(1, [(1.0, 1.0)], [(2.0, 1.0)]), 1, 1, lambda state: None)
    then = reported(topics, 15)
    assert then.invalid == {"book": 1, "depth": 1}
    assert then.invalid_topics == {
        "book.binance.ETHUSDT": EPOCH_NS + 10 * NS_PER_S,
        "depth.binance.BTCUSDT": EPOCH_NS + 15 * NS_PER_S,
    }
    market.remove([books[1]])
    depth.flags = 0
    assert reported(topics, 20).invalid == {}


def test_those_are_named_that_have_been_so_for_the_longest():
    market = EXCHANGES["binance"].main()
    topics = InvalidTopics([market])
    for second in range(3 * LISTED_MAX):
        market.add([f"S{second}"], 0, "book")
        status = reported(topics, second)
    assert status.invalid == {"book": 3 * LISTED_MAX}
    assert list(status.invalid_topics) == [f"book.binance.S{n}" for n in range(LISTED_MAX)]


def test_what_an_exchange_leaves_out_is_told_of_kinds_that_are_wanted():
    spot, linear = (market() for market in EXCHANGES["okx"].markets)
    linear.add(["BTC-USDT-SWAP"], 0, "contract")
    assert left_out([spot, linear]) == {}
    linear.add(["BTC-USDT-SWAP"], 0, "liquidation")
    assert left_out([spot, linear]) == {"liquidation": "all but one a second and contract"}
    assert left_out([linear, linear]) == left_out([linear]), "two markets that leave out the same"
