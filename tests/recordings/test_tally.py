"""What is counted of a recording, and which books are called wrong."""

import json
from pathlib import Path

from captured import (
    BINANCE,
    BYBIT,
    BYBIT_LINEAR,
    KUCOIN,
    KUCOIN_BOOK,
    answered,
    base,
    changes,
    kucoin_changes,
    line,
    opened,
    quote,
    received,
)

from feedhandler.recordings.captures import CaptureReader
from feedhandler.recordings.tally import Tally

FRAMES = Path(__file__).parent.parent / "frames"


def counted(tmp_path, lines):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(lines))
    tally = Tally()
    for item in CaptureReader(path):
        tally.take(item)
    return tally, tally.finish()


START = [base(100), opened(BINANCE)]


def book(tmp_path, *frames):
    _, (market,) = counted(tmp_path, [*START, *map(received, frames)])
    (found,) = market.books
    return found


def test_records_and_levels_are_counted(tmp_path):
    frames = [changes(100, 101, [("10", "2"), ("9", "0")], [("11", "3")]), changes(102, 102, [("8", "1")])]
    _, (market,) = counted(tmp_path, [*START, *map(received, frames), line("send", data="{}")])
    assert (market.frames, market.changes, market.snapshots, market.bases) == (2, 2, 1, 1)
    assert market.levels == 1  # what the base was made of came with the snapshot
    (found,) = market.books
    assert (found.symbol, found.began, found.is_valid, found.gaps, found.crossed) == (
        "BTCUSDT",
        1,
        True,
        0,
        0,
    )


def test_of_another_market_there_are_books_and_other_kinds_as_well(tmp_path):
    natives = "BTCUSDT", "linear"  # a name that the market's prefix would be part of
    lines = [opened(BYBIT_LINEAR)]
    for native in natives:
        for name in ("bybit/books/snapshot", "bybit/books/delta", "bybit_linear/tickers"):
            frame = json.loads((FRAMES / f"{name}.json").read_text().replace("BTCUSDT", native))
            lines.append(received(frame))
    liquidation = json.loads((FRAMES / "bybit_linear/liquidation.json").read_text())
    spot, snapshot = opened(BYBIT, "spot"), json.loads((FRAMES / "bybit/books/snapshot.json").read_text())
    _, (linear, other) = counted(tmp_path, [*lines, received(liquidation), spot, received(snapshot, "spot")])
    assert [(each.symbol, each.began, each.levels > 0) for each in linear.books] == [
        (native, 1, True) for native in natives
    ]
    assert (linear.market, linear.tickers, linear.others) == ("linear", 2, {"contract": 2, "liquidation": 1})
    assert (other.market, [each.symbol for each in other.books]) == ("spot", ["BTCUSDT"])


def test_a_quote_of_the_same_id_confirms_a_book_whichever_comes_first(tmp_path):
    first = book(tmp_path, changes(101, 101, [("10", "2")]), quote(101, "10", "2", "11", "1"))
    assert (first.compared, first.disagreed) == (1, 0)
    other = book(tmp_path, quote(101, "10", "2", "11", "1"), changes(101, 101, [("10", "2")]))
    assert (other.compared, other.disagreed) == (1, 0)
    none = book(tmp_path, quote(102, "10", "2", "11", "1"), changes(101, 101, [("10", "2")]))
    assert none.compared == 0


def test_a_quote_that_states_something_else_is_shown(tmp_path):
    found = book(tmp_path, changes(101, 101, [("10", "2")]), quote(101, "10", "3", "11", "1"))
    assert found.disagreed == 1
    assert found.first_disagreement.startswith("id 101: (10.0, 2.0, 11.0, 1.0), stated (10.0, 3.0")


def test_an_empty_side_agrees_with_an_empty_side(tmp_path):
    asks = [("11", "0"), ("12", "0")]
    found = book(tmp_path, changes(101, 101, [], asks), quote(101, "10", "1", "0", "0"))
    assert (found.compared, found.disagreed) == (1, 0)


def test_times_crossed_are_counted_and_not_messages(tmp_path):
    crossed, calm = [("11", "1")], [("11", "0")]
    frames = [changes(n, n, crossed if n in (102, 103, 105) else calm) for n in range(101, 107)]
    assert book(tmp_path, *frames).crossed == 2


def test_gaps_are_counted(tmp_path):
    found = book(tmp_path, changes(101, 101), changes(104, 104), changes(105, 105))
    assert (found.gaps, found.began, found.is_valid) == (1, 1, False)


def test_a_book_without_a_base_waits_for_it(tmp_path):
    _, (market,) = counted(tmp_path, [opened(BINANCE), received(changes(104, 104))])
    assert market.books[0].waits_for == "an answer from which its changes go on"


def test_frames_that_cannot_be_decoded_are_shown_once_a_reason(tmp_path):
    bad = {"stream": "btcusdt@bookTicker", "data": {"s": "BTCUSDT", "b": "x"}}
    _, (market,) = counted(tmp_path, [opened(BINANCE), *[received(bad)] * 3, received({})])
    assert market.undecodable == 4
    assert len(market.problems) == 2
    assert "bookTicker" in market.problems[0].head


def test_channels_that_are_not_decoded_are_told_apart(tmp_path):
    frames = [{"stream": "btcusdt@kline_1m", "data": {"e": "kline", "s": "BTCUSDT"}}, changes(101, 101)]
    _, (market,) = counted(tmp_path, [*START, *[received(frame) for frame in (*frames[::-1], frames[0])]])
    assert market.other == 2
    assert market.channels == {"…@kline_1m": 2}


def test_trades_that_are_missing_by_their_ids_are_counted(tmp_path):
    def trade(number):
        at = 1_790_000_000_400_000 + number
        return {"data": {"e": "trade", "s": "BTCUSDT", "t": number, "p": "10", "q": "1", "T": at, "m": True}}

    _, (market,) = counted(tmp_path, [opened(BINANCE), *[received(trade(n)) for n in (1, 2, 6)]])
    assert (market.trades, market.trades_missing) == (3, 3)


def test_a_ticker_of_kucoin_confirms_its_book(tmp_path):
    levels = {"bids": [["10", "1"]], "asks": [["11", "1"]]}
    body = {"code": "200000", "data": {"sequence": "100", "time": 1, **levels}}
    ticker = {
        "topic": "/market/ticker:BTC-USDT",
        "type": "message",
        "subject": "trade.ticker",
        "data": {"sequence": "101", "price": "10", "size": "1", "time": 1}
        | {"bestBid": "10", "bestBidSize": "3", "bestAsk": "11", "bestAskSize": "1"},
    }
    lines = [answered(f"{KUCOIN_BOOK}?symbol=BTC-USDT", body), opened(KUCOIN)]
    lines += [received(kucoin_changes(101, 101, [["10", "3", "101"]])), received(ticker)]
    _, (market,) = counted(tmp_path, lines)
    assert (market.books[0].compared, market.books[0].disagreed) == (1, 0)


def test_frames_of_connections_without_an_address_are_told(tmp_path):
    _, (market,) = counted(tmp_path, [*START, received(changes(101, 101)), received(changes(1, 2), conn="d")])
    assert (market.frames, market.guessed) == (2, 1)


def test_frames_that_were_not_recorded_are_counted(tmp_path):
    tally, _ = counted(tmp_path, [*START, line("gap", count=5), line("gap", count=2)])
    assert (tally.gaps, tally.not_recorded) == (2, 7)
