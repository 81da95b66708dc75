"""A perpetual beside its spot pair: one feed, two markets of one exchange, all kinds at a subscriber."""

import contextlib
import json
import math
import signal
import time
from collections import defaultdict

import pytest
import zmq
from harness import PATIENCE_S, Stack, wait_until
from played_again import bare

from feedhandler import replay
from feedhandler.client import Subscriber
from feedhandler.data import wire

KINDS = ("ticker", "trade", "depth", "book", "contract", "liquidation")
SPOT, PERPETUAL = "BTC/USDT", "BTC/USDT:USDT"
EXTRA = f"kinds = {json.dumps(KINDS)}"
SIM = "busiest_per_s = 100"


def test_records_of_all_kinds_of_both_markets_come_to_a_subscriber(tmp_path):
    stack = Stack(tmp_path, exchanges=("bybit",), symbols=(SPOT, PERPETUAL), extra=EXTRA, sim=SIM)
    wanted = {(kind, symbol) for kind in KINDS for symbol in (SPOT, PERPETUAL)}
    wanted -= {("contract", SPOT), ("liquidation", SPOT)}
    newest = {}
    with contextlib.closing(stack):
        stack.start("sim", "merger", "relay", "bybit")
        with Subscriber(stack.endpoint, [f"{kind}." for kind in KINDS], recover=stack.recover) as subscriber:
            for record in subscriber:
                if record.kind in (wire.CONDITION, wire.NOTICE) or not record.is_live:
                    continue
                kind, exchange, symbol = record.topic.split(".", 2)
                assert exchange == "bybit"
                newest[kind, symbol] = record
                has_all = isinstance(newest.get(("ticker", PERPETUAL)), wire.Ticker) and all(
                    not math.isnan(getattr(newest["ticker", PERPETUAL], name)) for name in wire.TICKER_VALUES
                )
                if newest.keys() == wanted and has_all:
                    break
            check(newest)
            books = subscriber.books
            assert not books or all(book.best.bid < book.best.ask for book in books.values() if book.is_valid)
        status = stack.status()["exchanges"]["bybit"]["feed"]
        assert status["rejected"] == {}
        assert status["wanted"] == {SPOT: list(KINDS[:4]), PERPETUAL: list(KINDS)}
        assert {connection["market"] for connection in status["connections"]} == {"spot", "linear"}
        assert not any("list" in problem for problem in status["problems"])
        assert sum(connection["decode_errors"] for connection in status["connections"]) == 0
        assert stack.sim_state("bybit")["violations"] == []
        lines = stack.run("tail", "--kind", "contract", "--count", "1", "-c", str(stack.config)).stdout
        assert f"contract.bybit.{PERPETUAL} " in lines
        assert " mark " in lines


def check(newest):
    spot, perpetual = newest["ticker", SPOT], newest["ticker", PERPETUAL]
    day, other_day = ((each.open_24h, each.base_volume_24h) for each in (spot, perpetual))
    assert day != other_day, "each of its own market"
    contract = newest["contract", PERPETUAL]
    assert abs(contract.mark / perpetual.last - 1) < 0.01
    assert abs(contract.index / contract.mark - 1) < 0.01
    assert contract.open_interest > 0
    assert abs(contract.funding_rate) < 0.001
    assert contract.next_funding_ns > contract.recv_ns
    assert contract.funding_interval_h in (1, 4, 8)
    assert math.isnan(contract.predicted_funding_rate), "Bybit states none"
    liquidation = newest["liquidation", PERPETUAL]
    is_long = liquidation.side == wire.Side.SELL
    assert (liquidation.price < perpetual.last * 1.002) == is_long
    assert liquidation.size > 0
    for symbol in (SPOT, PERPETUAL):
        depth = newest["depth", symbol]
        assert depth.bids[0][0] < depth.asks[0][0]
        assert newest["trade", symbol].trade_id


KUCOIN_KINDS = KINDS[:-1]  # it has no channel of liquidations


def test_contracts_of_kucoin_come_in_the_base_asset_beside_spot(tmp_path):
    extra = f"kinds = {json.dumps(KUCOIN_KINDS)}"
    stack = Stack(tmp_path, exchanges=("kucoin",), symbols=(SPOT, PERPETUAL), extra=extra, sim=SIM)
    wanted = {(kind, symbol) for kind in KUCOIN_KINDS for symbol in (SPOT, PERPETUAL)} - {("contract", SPOT)}
    newest = {}
    with contextlib.closing(stack):
        stack.start("sim", "merger", "relay", "kucoin")
        with Subscriber(
            stack.endpoint, [f"{kind}." for kind in KUCOIN_KINDS], recover=stack.recover
        ) as subscriber:
            for record in subscriber:
                if record.kind in (wire.CONDITION, wire.NOTICE) or not record.is_live:
                    continue
                kind, _, symbol = record.topic.split(".", 2)
                newest[kind, symbol] = record
                if newest.keys() == wanted and all(map(is_complete, newest.values())):
                    break
        ticker, contract = newest["ticker", PERPETUAL], newest["contract", PERPETUAL]
        depth = newest["depth", PERPETUAL]
        assert abs(contract.mark / ticker.last - 1) < 0.01
        assert abs(contract.index / contract.mark - 1) < 0.01
        assert abs(contract.predicted_funding_rate) < 0.01
        assert abs(contract.funding_rate) < 0.01
        assert contract.open_interest > 0, "REST has it"
        assert contract.next_funding_ns > contract.recv_ns
        assert contract.funding_interval_h in (1, 4, 8)
        assert abs(ticker.base_volume_24h * ticker.last / ticker.quote_volume_24h - 1) < 0.2, "coins"
        assert depth.bids[0][0] < depth.asks[0][0]
        assert newest["trade", PERPETUAL].size < 100, "coins, and no contracts"
        wait_until(
            lambda: [each["known"] for each in feed_of(stack)["polled"]] == [1], "the status tells of it"
        )
        status = feed_of(stack)
        (polled,) = status["polled"]
        assert (polled["market"], polled["symbols"], polled["late"]) == ("linear", 1, 0)
        assert polled["fields"] == ["open_interest", "next_funding_ns"]
        assert 0 <= time.time_ns() - polled["oldest_ns"] < polled["lasts_s"] * 1e9
        assert status["wanted"] == {SPOT: list(KINDS[:4]), PERPETUAL: list(KUCOIN_KINDS)}
        assert {connection["market"] for connection in status["connections"]} == {"spot", "linear"}
        assert not any("list" in problem for problem in status["problems"])
        assert sum(connection["decode_errors"] for connection in status["connections"]) == 0
        assert stack.sim_state("kucoin")["violations"] == []


def feed_of(stack):
    return stack.status()["exchanges"]["kucoin"]["feed"]


def test_contracts_of_binance_come_from_two_paths_beside_spot(tmp_path):
    stack = Stack(tmp_path, exchanges=("binance",), symbols=(SPOT, PERPETUAL), extra=EXTRA, sim=SIM)
    wanted = {(kind, symbol) for kind in KINDS for symbol in (SPOT, PERPETUAL)}
    wanted -= {("contract", SPOT), ("liquidation", SPOT)}
    newest = {}
    with contextlib.closing(stack):
        stack.start("sim", "merger", "relay", "binance")
        with Subscriber(stack.endpoint, [f"{kind}." for kind in KINDS], recover=stack.recover) as subscriber:
            for record in subscriber:
                if record.kind in (wire.CONDITION, wire.NOTICE) or not record.is_live:
                    continue
                kind, _, symbol = record.topic.split(".", 2)
                newest[kind, symbol] = record
                contract = newest.get(("contract", PERPETUAL))
                is_polled = contract and not math.isnan(contract.open_interest + contract.funding_interval_h)
                ticker = newest.get(("ticker", PERPETUAL))
                if newest.keys() == wanted and is_polled and is_complete(ticker):
                    break
            check(newest)
            books = [book for book in subscriber.books.values() if book.is_valid]
            assert all(book.best.bid < book.best.ask for book in books)
        assert newest["trade", PERPETUAL].count >= 1
        status = stack.status()["exchanges"]["binance"]["feed"]
        assert status["rejected"] == {}
        assert status["wanted"] == {SPOT: list(KINDS[:4]), PERPETUAL: list(KINDS)}
        assert {connection["market"] for connection in status["connections"]} == {"spot", "linear"}
        assert not any("list" in problem for problem in status["problems"])
        assert sum(connection["decode_errors"] for connection in status["connections"]) == 0
        assert status["left_out"]["liquidation"]
        state = stack.sim_state("binance")
        assert state["violations"] == []
        assert sorted(each["path"] for each in state["connections"])[:2] == sorted(PATHS)


PATHS = ("/linear/public/stream", "/linear/market/stream")


class Watched:
    """Two legs of Binance's perpetual beside spot, all kinds, recorded; and what a subscriber was given."""

    def __init__(self, directory, legs=2):
        extra = f"{EXTRA}\nlegs = {legs}"
        self.stack = Stack(directory, exchanges=("binance",), symbols=(SPOT, PERPETUAL), extra=extra, sim=SIM)
        self.recordings = directory / "recordings"
        with self.stack.config.open("a", encoding="utf-8") as file:
            file.write(f"[recorder]\ndirectory = {json.dumps(str(self.recordings))}\nmin_free_gb = 0\n")
        self.records = []  # as they were published
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.set(zmq.RCVHWM, 0)
        for kind in KINDS:
            self._socket.set(zmq.SUBSCRIBE, f"{kind}.".encode())
        self._socket.connect(self.stack.endpoint)

    def close(self):
        self._context.destroy(linger=0)
        self.stack.close()

    def until(self, condition, what, patience_s=PATIENCE_S):
        ends = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < ends, f"in vain: {what}"
            self.take()

    def take(self):
        self._socket.poll(50)
        while self._socket.poll(0):
            self.records.append(self._socket.recv())

    def begin(self):
        """Start all, and wait for all kinds."""
        self.stack.start("recorder", "sim", "merger", "relay", "binance")
        topics = {f"{kind}.binance.{PERPETUAL}" for kind in KINDS}
        self.until(lambda: topics <= by_topic(self.records).keys(), "all kinds")

    def check_recording(self, kinds):
        """End feed and recorder, and compare what they have; returns what was published, by topic."""
        for name in ("binance", "recorder"):
            assert self.stack.kill(name, signal.SIGTERM) == 0
        self.take()
        live = by_topic(self.records)
        again = by_topic(replay.messages(self.recordings, kinds=kinds))
        for kind in kinds:
            topic = f"{kind}.binance.{PERPETUAL}"
            assert live[topic] == again[topic] != [], topic
        verified = self.stack.run("captures", "verify", str(self.recordings))
        assert verified.returncode == 0, verified.stdout + verified.stderr
        return live

    def flagged(self, since=0):
        """Which topics of the perpetual were not live."""
        found = map(wire.unpack, self.records[since:])
        return {each.topic for each in found if each.topic.endswith(PERPETUAL) and each.flags & NOT_LIVE}

    def connections(self):
        """Numbers of the exchange's sockets, by path."""
        found = {}
        for each in self.stack.sim_state("binance")["connections"]:
            found.setdefault(each["path"], []).append(each["connection"])
        return found

    def legs(self):
        return [
            connection
            for connection in self.stack.status()["exchanges"]["binance"]["feed"]["connections"]
            if connection["market"] == "linear"
        ]

    def are_well(self):
        """All legs have all that is wanted, for long enough that each has followed the other."""
        legs = self.legs()
        return all(
            each["phase"] == "running" and not each["is_stale"] and not each["pending_topics"]
            for each in legs
        )


NOT_LIVE = wire.STALE | wire.DOWN | wire.INVALID


def test_a_recording_of_two_paths_gives_what_was_published(tmp_path):
    with contextlib.closing(Watched(tmp_path, legs=1)) as watched:
        watched.begin()
        count = len(watched.records)
        watched.until(lambda: len(watched.records) > 2 * count + 2000, "more")
        watched.check_recording((*RECORDED, "book"))


@pytest.mark.long
def test_what_ends_one_path_of_a_leg_is_not_noticed_beside_another_leg_and_is_in_the_recording(tmp_path):
    with contextlib.closing(Watched(tmp_path)) as watched:
        stack = watched.stack
        watched.begin()
        for kind, path in (
            ("rst", PATHS[0]),
            ("rst", PATHS[1]),
            ("half_open", PATHS[0]),
            ("half_open", PATHS[1]),
        ):
            watched.until(watched.are_well, "both legs are well")
            begun = len(watched.records)
            connects = sum(leg["connects"] for leg in watched.legs())
            stack.fault("binance", kind, connection=watched.connections()[path][0])
            watched.until(
                lambda: sum(leg["connects"] for leg in watched.legs()) > connects,  # noqa: B023
                f"the leg is made anew, {path}",
            )
            watched.until(watched.are_well, "both legs are well again")
            ended = [leg["ended"] for leg in watched.legs() if leg["ended"]]
            assert any(
                text.endswith(f", on {path.removeprefix('/linear').removesuffix('/stream')}")
                for text in ended
            )
            assert watched.flagged(begun) == set(), f"{kind} on {path}"
        assert {len(numbers) for numbers in watched.connections().values()} == {2}, "sockets are pairs again"
        # A book that began as that of another leg has no base in the recording.
        live = watched.check_recording(RECORDED)
        for symbol in (SPOT, PERPETUAL):
            numbers = [wire.unpack(each).exchange_sequence for each in live[f"trade.binance.{symbol}"]]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), (
                f"{symbol}: a trade is missing"
            )


RECORDED = ("trade", "depth", "liquidation")  # of others REST gives some, which is a feed's own doing


def by_topic(records):
    """Records, but for those that say that a feed ends."""
    found = defaultdict(list)
    for record in records:
        (flags,) = wire.FLAGS.unpack_from(record, wire.FLAGS_OFFSET)
        if record[wire.KIND_OFFSET] != wire.CONDITION and not flags & wire.DOWN:
            found[wire.unpadded(record[: wire.TOPIC_SIZE])].append(bare(record))
    return found


@pytest.mark.long
@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_is_silent_is_told_and_its_connection_made_anew_though_the_other_brings_all(
    tmp_path, path
):
    with contextlib.closing(Watched(tmp_path, legs=1)) as watched:
        stack = watched.stack
        stack.start("sim", "merger", "relay", "binance")
        watched.until(lambda: bool(watched.records), "records")
        watched.until(lambda: watched.legs()[0]["first"] > 500, "silences are known")
        watched.until(watched.are_well, "it is well")
        begun = len(watched.records)
        stack.fault("binance", "mute", seconds=600, path=path)
        watched.until(lambda: watched.legs()[0]["is_stale"], "it is stale")
        watched.until(lambda: watched.legs()[0]["connects"] > 1, "a new one")
        assert watched.legs()[0]["ended"].startswith("no data for ")
        assert watched.legs()[0]["ended"].endswith(path.removeprefix("/linear").removesuffix("/stream"))
        told = {topic.partition(".")[0] for topic in watched.flagged(begun)}
        assert told >= {"ticker", "contract", "depth", "book"}, told
        stack.fault("binance", "mute", seconds=0.1, path=path)  # no longer
        watched.until(watched.are_well, "all is well again")


def is_complete(record):
    """All is known that KuCoin has."""
    if isinstance(record, wire.Ticker):
        return not any(math.isnan(getattr(record, name)) for name in wire.TICKER_VALUES)
    if isinstance(record, wire.Contract):
        return not any(
            map(math.isnan, (record.mark, record.index, record.predicted_funding_rate, record.open_interest))
        )
    return True
