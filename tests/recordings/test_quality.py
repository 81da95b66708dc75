"""What exchanges' ids prove: what is missing is named, what is complete is called so, and what cannot be known."""

import json
import random

import pytest
from exchange_traffic import (
    HOUR,
    Traffic,
    binance_change,
    binance_quote,
    binance_trade,
    bybit_change,
    bybit_trade,
    kucoin_change,
    kucoin_trade,
    okx_change,
)
from msgspec.structs import replace
from recorded import Place, again, plan
from seeds import seeds

from feedhandler.cli.main import main
from feedhandler.recordings.quality import (
    AWAY,
    COMPLETE,
    CONNECTED,
    MISSING,
    NOT_CONNECTED,
    QUIET,
    UNKNOWN,
)
from feedhandler.recordings.traffic import What


@pytest.fixture
def traffic():
    made = Traffic()
    made.open(kinds=["trade", "book"])
    return made


def trades(traffic, *ids, connection="spot.1"):
    for number in ids:
        traffic.wait(0.001)
        traffic.receive(binance_trade(number), connection)


def changes(traffic, *ids, connection="spot.1"):
    for first, last in ids:
        traffic.wait(0.001)
        traffic.receive(binance_change(first, last), connection)


# --- trades


def test_trades_whose_ids_follow_each_other_are_complete(traffic):
    trades(traffic, 7, 8, 9)
    assert traffic.rows("trade") == [(0, COMPLETE, 3, 0, 0)]


def test_missing_trades_count_in_the_hour_in_which_that_was_seen(traffic):
    trades(traffic, 7, 8, 11)
    traffic.wait(3600)
    trades(traffic, 12, 14)
    assert traffic.rows("trade") == [(0, MISSING, 3, 0, 2), (1, MISSING, 2, 0, 1)]
    assert traffic.gaps() == [("trade", 9, 10), ("trade", 13, 13)]
    assert {gap.why for gap in traffic.report().gaps} == {CONNECTED}


def test_an_hour_from_which_a_gap_reaches_into_the_next_is_not_complete(traffic):
    trades(traffic, 7, 8)
    traffic.wait(3600)
    trades(traffic, 11)
    assert traffic.rows("trade") == [(0, MISSING, 2, 0, 0), (1, MISSING, 1, 0, 2)]


def test_what_another_connection_brings_is_not_missing(traffic):
    traffic.open("spot.2", ["trade"])
    trades(traffic, 7, 8, 10, 12)
    trades(traffic, 8, 9, 10, connection="spot.2")
    assert traffic.rows("trade") == [(0, MISSING, 5, 0, 1)]
    assert traffic.gaps() == [("trade", 11, 11)]


def test_what_rest_gave_is_not_missing(traffic):
    trades(traffic, 7, 8, 12)
    traffic.past(8, 9, 10)
    assert traffic.rows("trade") == [(0, MISSING, 5, 2, 1)]
    traffic.past(11)
    assert traffic.rows("trade") == [(0, COMPLETE, 6, 3, 0)]


def test_what_rest_gave_before_a_connection_goes_on_is_not_missing(traffic):
    trades(traffic, 7, 8)
    traffic.close()
    traffic.wait(1)
    traffic.past(9, 10, 11)
    traffic.open("spot.2", ["trade"])
    trades(traffic, 12, connection="spot.2")
    assert traffic.rows("trade") == [(0, COMPLETE, 6, 3, 0)]


def test_ids_go_on_when_the_feed_starts_anew(traffic):
    traffic.items.insert(0, replace(plan(1), wall_ns=HOUR))
    trades(traffic, 7, 8)
    traffic.items.append(replace(plan(2), wall_ns=traffic.now))
    traffic.wait(5)
    traffic.open(kinds=["trade"])
    trades(traffic, 11)
    assert traffic.rows("trade") == [(0, MISSING, 3, 0, 2)]
    assert [gap.why for gap in traffic.report().gaps] == [NOT_CONNECTED]


def test_what_was_not_recorded_is_told(traffic):
    trades(traffic, 7)
    traffic.put(What.GAP, "", 3, "the disk is full")
    trades(traffic, 9)
    assert [gap.why for gap in traffic.report().gaps] == ["not recorded: the disk is full"]


def test_what_nobody_wanted_is_not_missing(traffic):
    trades(traffic, 7, 8)
    traffic.subscribe("trade", is_end=True)
    traffic.wait(7200)
    traffic.subscribe("trade")
    trades(traffic, 100, 101)
    assert traffic.gaps() == []


def test_what_was_sent_while_it_was_subscribed_to_anew_is_missing(traffic):
    trades(traffic, 7, 8)
    traffic.subscribe("trade", is_end=True)
    traffic.wait(1)
    traffic.subscribe("trade")
    trades(traffic, 10)
    assert traffic.gaps() == [("trade", 9, 9)]


def test_an_exchange_that_counts_anew_has_lost_nothing(traffic):
    trades(traffic, 1000, 1001, 1, 2, 3)
    assert traffic.rows("trade") == [(0, COMPLETE, 5, 0, 0)]


# --- hours without data


def test_a_quiet_hour_is_known_to_be_covered_while_a_connection_is_there(traffic):
    trades(traffic, 7)
    traffic.wait(3 * 3600)
    trades(traffic, 8)
    verdicts = [row[:3] for row in traffic.rows("trade")]
    assert verdicts == [(0, COMPLETE, 1), (1, QUIET, 0), (2, QUIET, 0), (3, COMPLETE, 1)]


def test_a_symbol_without_any_data_is_quiet_if_it_was_subscribed_to(traffic):
    traffic.wait(1800)
    trades(traffic, 7)
    assert traffic.rows("book") == [(0, QUIET, 0, 0, 0)]


def test_an_hour_without_a_connection_cannot_be_known(traffic):
    trades(traffic, 7)
    traffic.close()
    traffic.wait(2 * 3600)
    traffic.open("spot.2")
    rows = traffic.rows("trade")
    assert [row[:3] for row in rows] == [(0, UNKNOWN, 1), (1, AWAY, 0), (2, AWAY, 0)]


def test_ids_prove_an_hour_in_which_no_connection_was_there(traffic):
    trades(traffic, 7)
    traffic.close()
    traffic.wait(2 * 3600)
    traffic.open("spot.2", ["trade"])
    trades(traffic, 8, connection="spot.2")
    assert [row[1] for row in traffic.rows("trade")] == [COMPLETE] * 3


def test_a_feed_that_stops_closes_one_connection_after_the_other(traffic):
    traffic.open("spot.2", ["ticker"])
    trades(traffic, 7, 8)
    traffic.wait(1)
    traffic.close("spot.1")
    traffic.wait(0.5)
    traffic.close("spot.2")
    assert [row.verdict for row in traffic.report().rows if row.kind == "trade"] == [COMPLETE]


# --- books


def test_changes_that_follow_each_other_are_complete_and_others_are_named(traffic):
    changes(traffic, (9, 12), (13, 14))
    assert traffic.rows("book") == [(0, COMPLETE, 6, 0, 0)]
    changes(traffic, (17, 18))
    assert traffic.gaps() == [("book", 15, 16)]


def test_changes_of_two_connections_together_are_complete(traffic):
    traffic.open("spot.2", ["book"])
    changes(traffic, (9, 12), (16, 18))
    changes(traffic, (11, 15), (16, 18), connection="spot.2")
    assert traffic.rows("book") == [(0, COMPLETE, 10, 0, 0)]


def test_a_book_of_kucoin_is_proven_by_its_sequences():
    traffic = Traffic("kucoin")
    traffic.open(kinds=["book"])
    for first, last in ((5, 5), (6, 9), (12, 12)):
        traffic.wait(0.01)
        traffic.receive(kucoin_change(first, last))
    assert traffic.rows("book") == [(0, MISSING, 6, 0, 2)]
    assert traffic.gaps() == [("book", 10, 11)]


class Bybit:
    """Two connections, each with a count of its own."""

    def __init__(self):
        self.traffic = Traffic("bybit")
        self.ids = {}

    def open(self, connection, first_id, number):
        self.traffic.open(connection, ["book"])
        self.ids[connection] = first_id - number
        self.put(connection, number, is_base=True)

    def put(self, connection, *numbers, is_base=False):
        for number in numbers:
            self.traffic.wait(0.02)
            frame = bybit_change(self.ids[connection] + number, number, is_base=is_base)
            self.traffic.receive(frame, connection)


def test_a_book_of_bybit_is_proven_by_each_connections_own_ids():
    bybit = Bybit()
    bybit.open("spot.1", 500, 10)
    bybit.put("spot.1", 11, 12, 14)
    assert bybit.traffic.rows("book") == [(0, MISSING, 4, 0, 1)]
    assert bybit.traffic.gaps() == [("book", 503, 503)]


def test_what_one_connection_of_bybit_lacks_another_has():
    bybit = Bybit()
    bybit.open("spot.1", 500, 10)
    bybit.open("spot.2", 9000, 10)
    bybit.put("spot.1", 11, 12, 14, 15)
    bybit.put("spot.2", 11, 12, 13, 14)
    assert bybit.traffic.rows("book")[0][1] == COMPLETE
    bybit.put("spot.2", 15, 16, 18, 19)
    bybit.put("spot.1", 16, 17, 18, 19)
    assert bybit.traffic.rows("book")[0][1] == COMPLETE
    bybit.put("spot.1", 21)
    bybit.put("spot.2", 21)
    assert bybit.traffic.gaps() == [("book", 510, 510)]


def test_what_bybit_sent_while_nothing_was_connected_cannot_be_known():
    bybit = Bybit()
    bybit.open("spot.1", 500, 10)
    bybit.put("spot.1", 11)
    bybit.traffic.close("spot.1")
    bybit.traffic.wait(5)
    bybit.open("spot.2", 50, 90)
    report = bybit.traffic.report()
    assert [(row.verdict, row.missing) for row in report.rows] == [(UNKNOWN, 0)]
    assert (report.missing, report.unknown) == (0, 1)
    assert [(gap.last, gap.why) for gap in report.gaps] == [(0, NOT_CONNECTED)]


def test_a_connection_of_bybit_that_follows_another_leaves_no_gap():
    bybit = Bybit()
    bybit.open("spot.1", 500, 10)
    bybit.put("spot.1", 11)
    bybit.open("spot.2", 50, 11)
    bybit.put("spot.1", 12)
    bybit.traffic.close("spot.1")
    bybit.put("spot.2", 12, 13)
    assert [row[1] for row in bybit.traffic.rows("book")] == [COMPLETE]


# --- what proves nothing


def test_of_others_nothing_can_be_known():
    kucoin = Traffic("kucoin")
    kucoin.open(kinds=["trade"])
    for number in (5, 9, 9, 11):
        kucoin.receive(kucoin_trade(number))
    assert kucoin.rows("trade") == [(0, UNKNOWN, 3, 0, None)]
    bybit = Traffic("bybit")
    bybit.open(kinds=["trade"])
    for number in (5, 9, 9):
        bybit.receive(bybit_trade(number))
    assert bybit.rows("trade") == [(0, UNKNOWN, 2, 0, None)]
    binance = Traffic()
    binance.open(kinds=["ticker"])
    for number in (5, 9, 8, 9, 12):
        binance.receive(binance_quote(number))
    assert binance.rows("ticker") == [(0, UNKNOWN, 3, 0, None)]
    assert binance.report().missing == 0


def test_what_cannot_be_decoded_is_counted(traffic):
    traffic.receive({"stream": "btcusdt@trade", "data": {"e": "trade", "s": "BTCUSDT", "t": "x"}})
    (row,) = [row for row in traffic.report().rows if row.kind == "trade"]
    assert row.undecodable == 1


# --- any one frame


KINDS = {
    ("binance", "trade"): lambda n: binance_trade(n),
    ("binance", "book"): lambda n: binance_change(3 * n, 3 * n + 2),
    ("kucoin", "book"): lambda n: kucoin_change(2 * n, 2 * n + 1),
    ("bybit", "book"): lambda n: bybit_change(n, 5 * n, is_base=n == 100),
}


@pytest.mark.parametrize("seed", seeds(30))
@pytest.mark.parametrize("exchange, kind", list(KINDS))
def test_a_complete_hour_is_complete_and_any_frame_that_is_removed_is_found_and_named(exchange, kind, seed):
    """Two connections bring every message; what is removed is removed from both, or else nothing is missing."""
    rng = random.Random(seed)
    traffic = Traffic(exchange)
    connections = ["spot.1", "spot.2"][: rng.randint(1, 2)]
    for connection in connections:
        traffic.open(connection, [kind])
    numbers = range(100, 160)
    removed = rng.choice(numbers[1:-1])
    spared = rng.choice([None, *connections])
    lag = rng.randint(0, 5)

    def deliver(*, is_whole):
        traffic.items = traffic.items[: 2 * len(connections)]
        traffic.now = HOUR
        for step in range(len(numbers) + lag):
            traffic.wait(3599 / (len(numbers) + lag))
            for place, connection in enumerate(connections):
                number = numbers[0] + step - lag * place
                is_there = is_whole or number != removed or connection == spared
                if number in numbers and is_there:
                    traffic.receive(KINDS[exchange, kind](number), connection)
        return traffic.report()

    whole = deliver(is_whole=True)
    assert [row.verdict for row in whole.rows] == [COMPLETE]
    assert (whole.missing, whole.unknown) == (0, 0)
    found = deliver(is_whole=False)
    if spared:
        assert [row.verdict for row in found.rows] == [COMPLETE]
        return
    assert [row.verdict for row in found.rows] == [MISSING]
    width = {"binance": 3 if kind == "book" else 1, "kucoin": 2, "bybit": 1}[exchange]
    assert [(gap.kind, gap.first, gap.last) for gap in found.gaps] == [
        (kind, width * removed, width * removed + width - 1)
    ]
    assert found.missing == width


# --- what frames of ours ask for


@pytest.mark.parametrize("exchange", ["binance", "kucoin", "bybit"])
@pytest.mark.parametrize("kind", ["ticker", "trade", "depth", "book"])
def test_what_was_subscribed_to_is_read_from_the_frame(exchange, kind):
    market = Traffic(exchange).market
    topics = [topic for native in ("BTC-USDT", "ETH-USDT") for topic in market.topics(native, kind)]
    for batch in market.batches(topics):
        assert market.requested(market.subscribe(batch, "1")) == (True, list(batch))
        assert market.requested(market.unsubscribe(batch, "1")) == (False, list(batch))
    for other in (market.ping("2"), b"", b"{}", b"[1]", b'{"id":1}'):
        assert other is None or market.requested(other) is None


# --- the command


def recorded(place, traffic):
    head = replace(plan(), wall_ns=HOUR)
    opened = [item for item in traffic.items if item.what is What.OPENED]
    place.put([head, *traffic.items])
    place.put(
        [again(head), *map(again, opened), replace(traffic.items[-1], what=What.CLOSED, data=b"", number=1)]
    )


def test_the_command_names_what_is_missing(tmp_path, capsys, traffic):
    trades(traffic, 7, 8, 11)
    recorded(Place(tmp_path), traffic)
    assert main(["captures", "verify", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "binance: complete"
    assert "  spot trade, hours of symbols: 1 missing" in lines
    named = "  trade BTCUSDT: 9 to 10 missing between 2026-09-21 14:00:00.002 and 14:00:00.003: "
    assert f"{named}{CONNECTED}" in lines
    row = next(line for line in lines if line.startswith("  2026-09-21 14  spot    BTCUSDT  trade"))
    assert row.split()[5:7] == ["3", "2"]
    assert main(["captures", "verify", "--json", str(tmp_path)]) == 1
    ids = json.loads(capsys.readouterr().out)["ids"]
    assert (ids["missing"], ids["gaps"][0]["first"], ids["gaps"][0]["last"]) == (2, 9, 10)
    assert main(["captures", "verify", "--frames-only", str(tmp_path)]) == 0


def test_the_command_calls_complete_what_is(tmp_path, capsys, traffic):
    trades(traffic, 7, 8, 9)
    recorded(Place(tmp_path), traffic)
    assert main(["captures", "verify", "--hours", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "  spot trade, hours of symbols: 1 complete" in out.splitlines()
    assert "BTCUSDT" in out, "every hour is shown"


# --- OKX


def test_a_book_of_okx_whose_ids_begin_again_is_complete():
    traffic = Traffic("okx")
    traffic.open(kinds=["book"])
    traffic.receive(okx_change(-1, 1000, is_base=True))
    for before, last in [(1000, 1003), (1003, 1003), (1003, 5), (5, 9), (9, 12)]:
        traffic.wait(1)
        traffic.receive(okx_change(before, last))
    ((hour, verdict, received, recovered, missing),) = traffic.rows("book")
    assert (hour, verdict, recovered, missing) == (0, COMPLETE, 0, 0)
    assert received > 0
    assert traffic.gaps() == []
    assert all(row.undecodable == 0 for row in traffic.report().rows)


def test_a_book_of_okx_that_lacks_a_message_is_not_complete():
    traffic = Traffic("okx")
    traffic.open(kinds=["book"])
    for before, last in [(1000, 1003), (1006, 1009)]:
        traffic.receive(okx_change(before, last))
    assert traffic.gaps() == [("book", 1004, 1006)]
