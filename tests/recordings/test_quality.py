"""What an exchange's ids prove: what is missing is found, and what cannot be known is called so."""

import json

import pytest
from recorded import T0, Place, again, closed, plan

from feedhandler.cli.main import main
from feedhandler.recordings.quality import HOUR_NS, Quality
from feedhandler.recordings.traffic import Item, What

WS = "wss://stream.binance.com:9443/stream"
REST = "https://api.binance.com/api/v3"
KUCOIN = "wss://ws-api-spot.kucoin.com/"
HOUR = T0 - T0 % HOUR_NS


class World:
    """Items of one feed, and what they come to."""

    def __init__(self, name="binance", address=WS):
        self.quality = Quality(name)
        self.address = address
        self.items = []
        self.now = HOUR
        self.numbers = {}

    def put(self, what, connection="spot.1", number=0, name="", data=b""):
        self.items.append(Item(what, self.now, 0, connection, number, name, data))

    def open(self, connection="spot.1"):
        self.numbers[connection] = 0
        self.put(What.OPENED, connection, name=self.address)

    def close(self, connection="spot.1"):
        self.put(What.CLOSED, connection, self.numbers[connection])

    def receive(self, frame, connection="spot.1"):
        self.numbers[connection] += 1
        self.put(What.RECEIVED, connection, self.numbers[connection], data=json.dumps(frame).encode())

    def trades(self, *ids, connection="spot.1"):
        for number in ids:
            time_us = T0 // 1000 + number
            data = {"e": "trade", "E": time_us, "s": "BTCUSDT", "t": number, "p": "10", "q": "1"}
            frame = {"stream": "btcusdt@trade", "data": {**data, "T": time_us, "m": True, "M": True}}
            self.receive(frame, connection)

    def past(self, *ids, number=1):
        rows = [
            {
                "id": each,
                "price": "10",
                "qty": "1",
                "quoteQty": "10",
                "time": T0 // 1000 + each,
                "isBuyerMaker": True,
                "isBestMatch": True,
            }
            for each in ids
        ]
        url = f"{REST}/historicalTrades?symbol=BTCUSDT&fromId={ids[0]}&limit=1000"
        self.put(What.ANSWERED, "", number, url, json.dumps(rows).encode())

    def change(self, first, last, connection="spot.1"):
        data = {"e": "depthUpdate", "E": T0 // 1000, "s": "BTCUSDT", "U": first, "u": last}
        data |= {"b": [["9", str(last)]], "a": []}
        self.receive({"stream": "btcusdt@depth@100ms", "data": data}, connection)

    def base(self, last_id, number=1):
        body = {"lastUpdateId": last_id, "bids": [["10", "1"]], "asks": [["11", "1"]]}
        self.put(
            What.ANSWERED, "", number, f"{REST}/depth?symbol=BTCUSDT&limit=1000", json.dumps(body).encode()
        )

    def rows(self):
        items, self.items = self.items, []
        for item in items:
            self.quality.take(item)
        return [
            (row.kind, (row.hour_ns - HOUR) // HOUR_NS, row.received, row.recovered, row.missing)
            for row in self.quality.rows()
        ]


@pytest.fixture
def world():
    made = World()
    made.open()
    return made


def test_trades_whose_ids_follow_each_other_are_complete(world):
    world.trades(7, 8, 9)
    assert world.rows() == [("trade", 0, 3, 0, 0)]


def test_missing_trades_count_in_the_hour_in_which_that_was_seen(world):
    world.trades(7, 8, 11)
    world.now += HOUR_NS
    world.trades(12, 14)
    assert world.rows() == [("trade", 0, 3, 0, 2), ("trade", 1, 2, 0, 1)]


def test_what_another_connection_brings_is_not_missing(world):
    world.open("spot.2")
    world.trades(7, 8, 10, 12)
    world.trades(8, 9, 10, connection="spot.2")
    assert world.rows() == [("trade", 0, 5, 0, 1)]


def test_what_rest_gave_is_not_missing(world):
    world.trades(7, 8, 12)
    world.past(8, 9, 10)
    assert world.rows() == [("trade", 0, 5, 2, 1)]


def test_ids_go_on_when_the_feed_starts_anew(world):
    world.trades(7, 8)
    world.rows()
    world.quality.begin()
    world.open()
    world.trades(11)
    assert world.rows() == [("trade", 0, 3, 0, 2)]


def test_a_chain_that_holds_has_no_breaks_and_one_that_does_not_has(world):
    world.base(10)
    world.change(9, 12)
    world.change(13, 14)
    assert world.rows() == [("book", 0, 2, 0, 0)]
    world.change(16, 17)
    assert world.rows() == [("book", 0, 3, 0, 1)]


def test_a_book_that_no_connection_had_for_a_while_has_a_break_there(world):
    world.base(10)
    world.change(9, 12)
    world.close()
    assert world.rows() == [("book", 0, 1, 0, 0)], "the end is none"
    world.open("spot.2")
    world.change(20, 21, "spot.2")
    assert world.rows() == [("book", 0, 2, 0, 1)]


def test_a_connection_that_follows_another_is_no_break(world):
    world.base(10)
    world.change(9, 12)
    world.open("spot.2")
    world.change(9, 12, "spot.2")
    world.close("spot.1")
    world.change(13, 14, "spot.2")
    assert world.rows() == [("book", 0, 3, 0, 0)]


def test_of_others_nothing_can_be_known():
    world = World("kucoin", KUCOIN)
    world.open()
    data = {
        "bestAsk": "11",
        "bestAskSize": "1",
        "bestBid": "10",
        "bestBidSize": "1",
        "price": "10",
        "sequence": "5",
        "size": "1",
        "time": T0 // 10**6,
    }
    topic = "/market/ticker:BTC-USDT"
    world.receive({"type": "message", "topic": topic, "subject": "trade.ticker", "data": data})
    assert world.rows() == [("ticker", 0, 1, 0, None)]


def test_the_command_shows_it_by_symbol_and_hour(tmp_path, capsys):
    world = World()
    world.open()
    world.trades(7, 8, 11)
    place = Place(tmp_path)
    place.put([plan(), *world.items])
    place.put([again(plan()), again(world.items[0]), closed(3)])
    assert main(["captures", "verify", "--ids", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "binance: complete"
    assert lines[-2].split() == ["hour", "market", "symbol", "kind", "received", "missing"]
    assert lines[-1].split() == ["2026-09-21", "14", "spot", "BTCUSDT", "trade", "3", "2"]
    main(["captures", "verify", "--ids", "--json", str(tmp_path)])
    (row,) = json.loads(capsys.readouterr().out)["ids"]
    assert (row["received"], row["missing"], row["symbol"]) == (3, 2, "BTCUSDT")
