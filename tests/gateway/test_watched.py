"""Of trades each reader gets what is new to it, or is told how many it does not get; of depth the newest."""

import msgspec

from feedhandler.data import wire
from feedhandler.gateway.watched import NOTHING, TRADES_KEPT, WatchedTopics

TRADES, DEPTH = "trade.binance.BTC/USDT", "depth.binance.BTC/USDT"
CONTRACT, LIQUIDATIONS = "contract.okx.BTC/USDT:USDT", "liquidation.okx.BTC/USDT:USDT"


def trade(sequence, session=7, **fields):
    return wire.Trade(TRADES, session=session, sequence=sequence, price=1.0, size=2.0, **fields)


def depth(sequence, bid=1.0, **fields):
    return wire.Depth.of(DEPTH, [(bid, 2.0)], [(3.0, 4.0)], session=7, sequence=sequence, **fields)


class Board:
    def __init__(self):
        self.made = 0
        self.watched = WatchedTopics(self.encode)

    def encode(self, name, row):
        self.made += 1
        return msgspec.json.encode({"type": name} | msgspec.structs.asdict(row))

    def open(self, topic, newest=None, flags=0):
        return self.watched.open(topic, newest, flags, "0.1")

    def take(self, *records):
        for record in records:
            self.watched.take(record)

    def read(self, reading):
        update = self.watched.update(reading)
        return msgspec.json.decode(update.text) if update is not NOTHING else None

    def trades(self, reading):
        row = self.read(reading)
        return ([each["sequence"] for each in row["trades"]], row["passed_over"]) if row else None


def test_a_reader_gets_each_trade_once_and_nothing_from_before_it_came():
    board = Board()
    early = board.open(TRADES)
    assert board.trades(early) == ([], 0), "what the topic's condition is"
    board.take(trade(1), trade(2))
    late = board.open(TRADES)
    assert board.trades(late) == ([], 0)
    assert board.trades(early) == ([1, 2], 0)
    assert board.trades(early) is None
    board.take(trade(3))
    assert board.trades(early) == board.trades(late) == ([3], 0)
    assert board.trades(early) is board.trades(late) is None


def test_who_was_away_gets_the_last_ones_and_is_told_how_many_are_passed_over():
    board = Board()
    away = board.open(TRADES)
    board.read(away)
    board.take(*(trade(number) for number in range(1, TRADES_KEPT + 51)))
    sequences, passed_over = board.trades(away)
    assert (sequences[0], len(sequences), passed_over) == (51, TRADES_KEPT, 50)


def test_what_the_gateway_has_missed_is_passed_over_too_but_not_over_a_new_session():
    board = Board()
    reader = board.open(TRADES, trade(5))
    board.read(reader)
    board.take(trade(9))
    assert board.trades(reader) == ([9], 3)
    board.take(trade(4, session=8), trade(5, session=8))
    assert board.trades(reader) == ([4, 5], 0)


def test_readers_that_are_alike_share_the_bytes():
    board = Board()
    readers = [board.open(TRADES) for _ in range(10)] + [board.open(DEPTH) for _ in range(10)]
    board.take(trade(1), depth(1))
    made = board.made
    assert all(map(board.read, readers))
    assert board.made - made == 2


def test_conditions_of_trades_are_told_and_end_with_the_next_trade():
    board = Board()
    reader = board.open(TRADES, None, wire.DOWN | wire.SIMULATED)
    assert board.read(reader)["flags"] == ["DOWN", "SIMULATED"]
    board.take(wire.Condition(TRADES, flags=wire.SIMULATED))
    assert board.read(reader)["flags"] == ["SIMULATED"]
    board.take(trade(1, flags=wire.SIMULATED | wire.LAST | wire.RECOVERED))
    row = board.read(reader)
    assert (row["flags"], row["trades"][0]["flags"]) == (["SIMULATED"], ["SIMULATED", "LAST", "RECOVERED"])
    board.watched.set_flags(wire.DOWN)
    assert board.read(reader)["flags"] == ["DOWN", "SIMULATED"], "a merger that is silent"
    assert board.read(reader) is None


def test_depth_is_the_newest_at_once_and_whatever_was_missed():
    board = Board()
    reader = board.open(DEPTH, depth(4, bid=1.5))
    row = board.read(reader)
    assert (row["type"], row["bids"], row["asks"], row["sequence"]) == (
        "depth_update",
        [[1.5, 2.0]],
        [[3.0, 4.0]],
        4,
    )
    board.take(depth(5), depth(6, flags=wire.INVALID))
    row = board.read(reader)
    assert (row["sequence"], row["flags"], row["tick"]) == (6, ["INVALID"], "0.1")
    assert board.read(reader) is None
    assert board.read(board.open("depth.binance.ETH/USDT")) is None, "none has come"


def test_a_contract_is_the_newest_at_once_and_what_is_not_known_is_none():
    board = Board()
    contract = wire.Contract(
        CONTRACT, session=7, sequence=4, mark=2.5, funding_rate=-0.0001, next_funding_ns=5
    )
    reader = board.open(CONTRACT, contract)
    row = board.read(reader)
    assert (row["type"], row["symbol"], row["sequence"]) == ("contract_update", "BTC/USDT:USDT", 4)
    assert (row["mark"], row["funding_rate"], row["next_funding_ns"]) == (2.5, -0.0001, 5)
    assert row["index"] is row["open_interest"] is row["predicted_funding_rate"] is None
    assert board.read(reader) is None
    board.take(wire.Contract(CONTRACT, session=7, sequence=5, flags=wire.STALE))
    assert board.read(reader)["flags"] == ["STALE"]


def test_who_comes_sees_the_last_liquidations_and_then_each_once():
    board = Board()

    def liquidation(sequence):
        return wire.Liquidation(LIQUIDATIONS, session=7, sequence=sequence, price=1.0, side=wire.Side.SELL)

    def read(reader):
        row = board.read(reader)
        return ([each["sequence"] for each in row["liquidations"]], row["passed_over"]) if row else None

    early = board.open(LIQUIDATIONS, liquidation(8), wire.SIMULATED)
    row = board.read(early)
    assert (row["type"], row["flags"], row["liquidations"][0]["side"]) == (
        "liquidation_update",
        ["SIMULATED"],
        "sell",
    )
    board.take(liquidation(9), liquidation(12))
    late = board.open(LIQUIDATIONS, liquidation(12))
    assert read(late) == ([8, 9, 12], 2), "those between were not kept"
    assert read(early) == ([9, 12], 2)
    board.take(liquidation(13))
    assert read(late) == read(early) == ([13], 0)
    none = board.open("liquidation.okx.ETH/USDT:USDT")
    assert read(none) == ([], 0)


def test_what_nobody_looks_at_is_not_kept():
    board = Board()
    board.take(trade(1), depth(1))
    one, other = board.open(TRADES), board.open(TRADES)
    board.watched.close(one)
    assert len(board.watched) == 1
    board.watched.close(other)
    assert len(board.watched) == 0
