"""Recorded traffic is decoded as a feed decodes it, wherever a recording has its answers."""

import itertools
import json
from pathlib import Path

import msgspec
import pytest
from captured import (
    BINANCE,
    BYBIT,
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
from msgspec.structs import replace

from feedhandler import replay
from feedhandler.data import wire
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import LINES_MAX
from feedhandler.recordings.captures import CaptureReader
from feedhandler.recordings.decoding import Decoding, place_of
from feedhandler.recordings.listed import ListedNatives
from feedhandler.recordings.plan import Plan, PlannedMarket
from feedhandler.recordings.traffic import Item, What

FOLDER = Path(__file__).parent.parent / "frames"

TRADE = {"e": "trade", "s": "BTCUSDT", "t": 7, "p": "10", "q": "1", "T": 1_790_000_000_400_000, "m": True}


def decoded(tmp_path, lines, name=""):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(lines))
    decoding = Decoding(name)
    return [decoding.take(item) for item in CaptureReader(path)]


def records(found):
    return [wire.unpack(record) for each in found for record in each.records]


@pytest.mark.parametrize("market", [m for e in EXCHANGES.values() for m in e.markets])
def test_a_market_is_known_by_its_own_addresses(market):
    instance = market()
    handshake = b'{"code":"200000","data":{"token":"t","instanceServers":[{"endpoint":"%s","pingInterval":1,'
    body = handshake % market.ws_url.encode() + b'"pingTimeout":1}]}}' if market.handshake_request else b""
    url = instance.endpoint(market.ws_url, body, "1").url
    assert place_of(url, f"{market.name}.0").market is market, "several may share an address"
    if market.base_levels:
        native = "A-B-SWAP" if instance.prefix else "A-B"
        request = market.rest_url + instance.base_request(native).path
        assert place_of(request).market is market
        assert instance.base_at(request) in ((native, market.base_levels), (native, 0))  # 0: all


@pytest.mark.parametrize(
    ("address", "exchange", "is_ours"),
    [
        ("wss://data-stream.binance.vision/ws/btcusdt@trade", "binance", True),
        ("wss://fstream.binance.com/stream", "binance", True),
        ("wss://fstream.binance.com/market/stream", "binance", True),
        ("https://fapi.binance.com/fapi/v1/depth?symbol=A", "binance", True),
        ("wss://dstream.binance.com/stream", "binance", False),
        ("https://dapi.binance.com/dapi/v1/depth?symbol=A", "binance", False),
        ("wss://push-private.kucoin.com/endpoint?token=T", "kucoin", True),
        ("wss://ws-api-futures.kucoin.com/?token=T", "kucoin", True),
        ("wss://stream.bybit.com/v5/public/spot", "bybit", True),
        ("wss://stream.bybit.com/v5/public/linear", "bybit", True),
        ("wss://stream.bybit.com/v5/public/inverse", "bybit", False),
        ("wss://ws.kraken.com/v2", "", False),
        ("wss://stream.binance.com.evil.org/stream", "", False),
        ("", "", False),
        ("not an address", "", False),
    ],
)
def test_what_an_address_is(address, exchange, is_ours):
    place = place_of(address)
    assert (place.exchange, place.market is not None) == (exchange, is_ours)


def test_symbols_need_not_be_named(tmp_path):
    trade = {"stream": "btcusdt@trade", "data": TRADE}
    found = decoded(tmp_path, [opened(BINANCE), received(trade), received(quote(5, "1", "1", "2", "1"))])
    assert [(each.kind, each.native) for each in found] == [
        ("", ""),
        ("trade", "BTCUSDT"),
        ("ticker", "BTCUSDT"),
    ]
    taken, ticker = records(found)
    assert (taken.topic, taken.sequence, taken.trade_id) == ("trade.binance.BTCUSDT", 1, "7")
    assert (ticker.bid, ticker.exchange_sequence) == (1.0, 5)


BASE, FRAMES = base(100), [received(changes(n, n, [("10", str(n))])) for n in range(99, 104)]


@pytest.mark.parametrize("place", range(6))
def test_a_book_begins_wherever_its_base_stands(tmp_path, place):
    """It begins with the answer, or with the first change that follows where that is known before."""
    lines = [*FRAMES[:place], BASE, *FRAMES[place:], received(changes(104, 104))]
    snapshot, *deltas = [r for r in records(decoded(tmp_path, [opened(BINANCE), *lines])) if r.kind == 8]
    assert snapshot.flags & wire.SNAPSHOT
    assert snapshot.last_id == max(100, 98 + place)
    assert len(records(decoded(tmp_path, [opened(BINANCE), *lines[:place], BASE]))) == (place > 0)
    assert [d.last_id for d in deltas] == list(range(snapshot.last_id + 1, 105))


def test_the_newest_base_that_fits_is_taken_and_one_that_is_too_old_is_not(tmp_path):
    lines = [base(50), base(101), base(100), opened(BINANCE), *FRAMES]
    first = next(r for r in records(decoded(tmp_path, lines)) if r.kind == 8)
    assert first.last_id == 100  # with the first frame from which one goes on
    assert not [r for r in records(decoded(tmp_path, [base(50), opened(BINANCE), *FRAMES])) if r.kind == 8]


def test_a_book_that_is_subscribed_to_begins_with_its_base_alone(tmp_path):
    """As far as our own frames are recorded; none is made of a symbol that nobody subscribed to, or no more."""

    def sent(method, *topics):
        return line("send", data=json.dumps({"method": method, "params": topics, "id": 1}))

    begin = [opened(BINANCE), sent("SUBSCRIBE", "btcusdt@depth@100ms", "ethusdt@trade")]
    found = records(decoded(tmp_path, [*begin, base(100), base(100, symbol="ETHUSDT"), *FRAMES[2:]]))
    assert [(r.symbol, r.last_id) for r in found] == [("BTCUSDT", n) for n in (100, 101, 102, 103)]
    assert found[0].flags & wire.SNAPSHOT
    assert not records(decoded(tmp_path, [*begin, sent("UNSUBSCRIBE", "btcusdt@depth@100ms"), base(100)]))


def test_a_base_of_fewer_levels_claims_to_know_no_more(tmp_path):
    levels = [(str(10 - n / 10), "1") for n in range(5)]
    for limit, edge in ((5, 9.6), (1000, 0.0)):
        found = decoded(tmp_path, [base(100, levels, limit=limit), opened(BINANCE), *FRAMES])
        snapshot = next(r for r in records(found) if r.kind == 8)
        is_edge = snapshot.bids[0] == (edge, 0.0)
        assert is_edge == bool(edge)


def test_a_gap_ends_a_book_until_another_base(tmp_path):
    lines = [base(100), opened(BINANCE), *FRAMES, received(changes(110, 110)), received(changes(111, 112))]
    found = decoded(tmp_path, lines)
    assert [each.has_lost for each in found].count(True) == 1
    assert records(found)[-1].flags & wire.INVALID
    again = decoded(tmp_path, [*lines, base(111), received(changes(113, 113))])
    *_, snapshot, last = records(again)
    assert snapshot.flags & wire.SNAPSHOT
    assert (snapshot.last_id, last.last_id) == (112, 113)


@pytest.mark.parametrize(("last_id", "edge"), [(102, 8.0), (104, 8.0), (99, 9.0)])
def test_a_book_of_which_too_little_is_known_takes_the_base_that_its_feed_took(tmp_path, last_id, edge):
    """Also one that is behind, by the changes since it began to run out; one older than these is of no use."""
    small, large = ((str(price), "1") for price in (10, 9)), ((str(price), "1") for price in (10, 9, 8))
    lines = [base(100, [*small], limit=2), opened(BINANCE), *FRAMES, base(last_id, [*large], limit=3)]
    found = records(decoded(tmp_path, lines))
    snapshots = [r for r in found if r.flags & wire.SNAPSHOT]
    assert snapshots[-1].bids[0] == (edge, 0.0)
    assert snapshots[-1].last_id == (100 if last_id == 99 else max(103, last_id))
    assert not [r for r in found if r.flags & wire.INVALID]


def test_a_change_that_cannot_be_read_ends_a_book(tmp_path):
    bad = received(changes(104, 104, [("10",)]))
    found = decoded(tmp_path, [base(100), opened(BINANCE), *FRAMES, bad])
    assert found[-1].problem
    assert found[-1].has_lost
    assert records(found)[-1].flags & wire.INVALID


def test_levels_of_kucoin_that_the_base_has_are_left_out(tmp_path):
    body = {
        "code": "200000",
        "data": {"sequence": "100", "time": 1, "bids": [["10", "1"]], "asks": [["11", "1"]]},
    }
    frames = [
        kucoin_changes(99, 101, [["10", "9", "100"], ["9", "2", "101"]]),
        kucoin_changes(102, 102, [["0", "0", "102"]]),
    ]
    lines = [answered(f"{KUCOIN_BOOK}?symbol=BTC-USDT", body), opened(KUCOIN), *map(received, frames)]
    snapshot = records(decoded(tmp_path, lines))[0]
    assert snapshot.bids == ((10.0, 1.0), (9.0, 2.0))


def test_what_is_not_decoded_is_no_error(tmp_path):
    kline = {"topic": "kline.1.BTCUSDT", "data": [{"start": 1}], "ts": 1, "type": "snapshot"}
    found = decoded(
        tmp_path, [opened(BYBIT), received(kline), received({"topic": "tickers.BTCUSDT", "data": {}})]
    )
    assert [(each.kind, bool(each.problem)) for each in found] == [("", False), ("", False), ("", True)]
    elsewhere = decoded(tmp_path, [opened("wss://ws.kraken.com/v2"), received(kline)])
    assert [(each.market, each.where) for each in elsewhere] == [
        (None, "ws.kraken.com, no exchange of ours")
    ] * 2


@pytest.mark.parametrize("address", ["wss://ws.okx.com/ws/v5/public", ""])
def test_markets_that_share_an_address_are_told_apart_by_their_frames(tmp_path, address):
    def bbo(native, price):
        side = {"asks": [[price + 1, "1", "0", "1"]], "bids": [[price, "1", "0", "1"]]}
        row = {**side, "ts": "1790000000100", "seqId": price}
        return received({"arg": {"channel": "bbo-tbt", "instId": native}, "data": [row]})

    contract = {
        "instId": "BTC-USDT-SWAP",
        "ctVal": "0.01",
        "ctMult": "1",
        "ctType": "linear",
        "state": "live",
    }
    contract |= {"ctValCcy": "BTC", "settleCcy": "USDT", "uly": "BTC-USDT", "tickSz": "0.1"}
    lines = [
        line("header", exchange="OKX"),
        answered(
            "https://www.okx.com/api/v5/public/instruments?instType=SWAP", {"code": "0", "data": [contract]}
        ),
        *([opened(address)] if address else []),
        *(bbo("BTC-USDT", 10), bbo("BTC-USDT-SWAP", 20), bbo("BTC-USD-SWAP", 30), bbo("BTC-USDT", 11)),
        line("close"),
    ]
    found = decoded(tmp_path, lines)
    assert [each.market.name for each in found if each.kind] == ["spot", "linear", "spot"]
    assert not any(each.problem for each in found)
    told = [(r.topic, r.bid, r.bid_size) for r in records(found) if not r.flags]
    assert told == [
        ("ticker.okx.BTC-USDT", 10.0, 1.0),
        ("ticker.okx.linear:BTC-USDT-SWAP", 20.0, 0.01),
        ("ticker.okx.BTC-USDT", 11.0, 1.0),
    ]
    played = [(r.symbol, r.bid) for r in replay.records(tmp_path / "a.jsonl") if not r.flags & wire.NOT_LIVE]
    assert played == [("BTC/USDT", 10.0), ("BTC/USDT:USDT", 20.0), ("BTC/USDT", 11.0)]


def test_frames_of_contracts_that_are_not_offered_are_no_problem(tmp_path):
    inverse = {**CONTRACTS[0], "symbol": "XBTUSDM", "quoteCurrency": "USD", "settleCurrency": "XBT"}
    inverse |= {"multiplier": -1, "isInverse": True}
    listed = {"code": "200000", "data": [*CONTRACTS, inverse]}
    frame = {"symbol": "XBTUSDM", "sequence": 1, "bestBidPrice": "1", "bestBidSize": 1, "ts": 1}
    frame = {"topic": "/contractMarket/tickerV2:XBTUSDM", "subject": "tickerV2", "data": frame}
    url = "https://api-futures.kucoin.com" + LIST
    lines = [answered(url, listed), opened(KUCOIN_LINEAR), received({**frame, "type": "message"})]
    last = decoded(tmp_path, lines)[-1]
    assert (last.kind, last.problem) == ("", "")


def test_a_name_decides_where_addresses_do_not(tmp_path):
    lines = [opened("ws://127.0.0.1:9001/stream"), received({"data": TRADE})]
    assert not records(decoded(tmp_path, lines))
    assert len(records(decoded(tmp_path, lines, "binance"))) == 1
    assert len(records(decoded(tmp_path, [received({"data": TRADE})], "binance"))) == 1
    header = line("header", exchange="Binance")
    assert len(records(decoded(tmp_path, [header, received({"data": TRADE})]))) == 1
    named = line("recv", conn="BINANCE.ws.1", data={"data": TRADE})
    assert len(records(decoded(tmp_path, [named]))) == 1
    sent = line("send", conn="x", addr=BINANCE, data={}) + line("recv", conn="x", data={"data": TRADE})
    assert len(records(decoded(tmp_path, [sent]))) == 1
    assert not records(decoded(tmp_path, [named.replace("BINANCE", "BINANCE_FUTURES")]))
    inverse = [opened("wss://dstream.binance.com/stream"), received({"data": TRADE})]
    assert not records(decoded(tmp_path, inverse, "kucoin"))
    assert len(records(decoded(tmp_path, inverse, "binance"))) == 1


def test_two_connections_of_a_symbol_are_lines(tmp_path):
    trade = {"data": TRADE}
    lines = [opened(BINANCE, "a"), opened(BINANCE, "b"), received(trade, "a"), received(trade, "b")]
    assert len(records(decoded(tmp_path, lines))) == 1


def test_a_connection_that_begins_anew_has_no_book(tmp_path):
    lines = [base(100), opened(BINANCE), *FRAMES, line("close"), opened(BINANCE), received(changes(104, 104))]
    found = decoded(tmp_path, lines)
    assert records(found)[-1].flags & wire.INVALID
    assert not any(each.has_lost for each in found)


@pytest.mark.parametrize("has_spoken", [True, False])
def test_a_connection_that_takes_over_has_the_book_of_the_one_before_it(tmp_path, has_spoken):
    """As in the feed, which requests no other base then. What it subscribes to need not have changed yet."""
    asked = json.dumps({"method": "SUBSCRIBE", "params": ["btcusdt@depth@100ms"], "id": 1})
    lines = [base(100), opened(BINANCE), *FRAMES, opened(BINANCE, "b"), line("send", conn="b", data=asked)]
    lines += [received(changes(104, 104), "b")] * has_spoken
    lines += [received(changes(104, 104)), line("close"), received(changes(105, 105), "b")]
    found = [r for r in records(decoded(tmp_path, lines)) if r.kind == wire.BOOK]
    assert [r.last_id for r in found] == [100, 101, 102, 103, 104, 104, 105]
    assert not any(r.flags & wire.INVALID for r in found)


def test_a_line_that_began_beside_another_leads_when_that_has_a_gap(tmp_path):
    lines = [base(100), opened(BINANCE), *FRAMES, opened(BINANCE, "b")]
    lines += [received(changes(104, 104), conn) for conn in "cb"]
    lines += [received(changes(110, 110)), received(changes(105, 105), "b")]
    found = [r for r in records(decoded(tmp_path, lines)) if r.kind == wire.BOOK]
    assert [r.last_id for r in found] == [100, 101, 102, 103, 104, 104, 105]
    assert not any(r.flags & wire.INVALID for r in found)


def test_a_connection_that_is_repeated_goes_on(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join([base(100), opened(BINANCE), *FRAMES]))
    items, decoding = list(CaptureReader(path)), Decoding()
    again = replace(items[1], is_repeated=True)
    last = [decoding.take(item) for item in (*items, again)][-1]
    assert not last.records


def test_more_connections_than_a_symbol_may_have_are_decoded_together(tmp_path):
    names = [f"c{n}" for n in range(LINES_MAX + 2)]
    lines = [opened(BINANCE, name) for name in names]
    lines += [received(quote(5, "1", "1", "2", "1", f"S{n}"), name) for n, name in enumerate(names)]
    found = decoded(tmp_path, lines)
    assert [(r.topic, r.sequence) for r in records(found)] == [
        (f"ticker.binance.S{n}", 1) for n in range(len(names))
    ]


def test_what_counts_once_does_so_on_however_many_connections(tmp_path):
    """Also where connections that share nothing else were the same line."""
    names = [f"c{n}" for n in range(LINES_MAX + 2)]
    own = [{"data": {**TRADE, "s": f"S{n}"}} for n in range(len(names))]
    lines = [opened(BINANCE, name) for name in names]
    lines += [received(frame, name) for frame, name in zip(own, names, strict=True)]
    lines += [received({"data": {**TRADE, "t": id}}, name) for id in (7, 8) for name in names]
    lines += [line("close", conn="c1"), opened(BINANCE, "d"), received({"data": TRADE}, "d")]
    found = records(decoded(tmp_path, lines))
    assert [r.trade_id for r in found if r.symbol == "BTCUSDT"] == ["7", "8"]
    assert len(found) == len(names) + 2


def test_lines_of_a_book_are_kept_apart_whatever_else_their_connections_carry(tmp_path):
    """Both are the first line of what they have alone; then one of them ends, and the other leads."""
    lines = [base(100), opened(BINANCE, "a"), opened(BINANCE, "b")]
    lines += [
        received(quote(5, "1", "1", "2", "1", symbol), conn) for symbol, conn in (("A", "a"), ("B", "b"))
    ]
    lines += [received(changes(n, n), conn) for n in (101, 102) for conn in "ab"]
    lines += [line("close", conn="a"), received(changes(103, 103), "b")]
    found = [r for r in records(decoded(tmp_path, lines)) if r.kind == wire.BOOK]
    assert [r.last_id for r in found] == [101, 102, 102, 103]
    assert not any(r.flags & wire.INVALID for r in found)


PAST = "https://api.binance.com/api/v3/historicalTrades?symbol=BTCUSDT&fromId=8&limit=1000"


def test_trades_that_rest_gave_are_recovered(tmp_path):
    """Each once; and none of before the first that a connection brought."""

    def row(number):
        made = 1_790_000_000_400_000 + number
        return {"id": number, "price": "10", "qty": "1", "time": made, "isBuyerMaker": True}

    def made(number):
        return received({"data": {**TRADE, "t": number, "T": 1_790_000_000_400_000 + number}})

    answer = answered(PAST, [row(number) for number in range(5, 12)])
    lines = [opened(BINANCE), made(7), made(10), answer, answer, made(9), made(12)]
    found = [(r.trade_id, bool(r.flags & wire.RECOVERED)) for r in records(decoded(tmp_path, lines))]
    recovered = [("8", True), ("9", True), ("11", True)]
    assert found == [("7", False), ("10", False), *recovered, ("12", False)]
    before = records(decoded(tmp_path, [opened(BINANCE), answer, made(7)]))
    assert [r.trade_id for r in before] == ["7"]
    bad = decoded(tmp_path, [opened(BINANCE), made(7), answered(PAST, {"code": -1, "msg": "no"})])
    assert bad[-1].problem


def test_kinds_that_are_not_wanted_are_not_decoded(tmp_path):
    lines = [
        base(100),
        opened(BINANCE),
        *FRAMES,
        received({"data": TRADE}),
        received(quote(5, "1", "1", "2", "1")),
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(lines))
    decoding = Decoding(kinds=("trade",), base_flags=wire.REPLAY)
    found = records(decoding.take(item) for item in CaptureReader(path))
    assert [(r.kind, r.flags & wire.REPLAY) for r in found] == [(wire.TRADE, wire.REPLAY)]


def test_what_comes_of_a_recording_does_not_depend_on_how_often_it_is_read(tmp_path):
    lines = [base(100), opened(BINANCE), *itertools.chain(FRAMES, [received({"data": TRADE})])]
    first, second = (decoded(tmp_path, lines) for _ in range(2))
    assert [each.records for each in first] == [each.records for each in second]


def test_an_answer_of_a_simulated_exchange_is_of_the_market_that_asks_so():
    """Its host says nothing, and both markets ask at one path."""
    decoding = Decoding("bybit")
    for market, symbol in (("bybit", "BTC/USDT"), ("bybit_linear", "BTC/USDT:USDT")):
        body = (FOLDER / market / "lists/instruments_ticks.json").read_bytes()
        category = market.partition("_")[2] or "spot"
        url = f"http://127.0.0.1:9/v5/market/instruments-info?category={category}&limit=9"
        found, instruments = decoding.instruments(Item(What.ANSWERED, 1, name=url, data=body))
        assert found.prefix == ("linear:" if ":" in symbol else "")
        assert symbol in {instrument.symbol for instrument in instruments}
        assert all(instrument.native.startswith(found.prefix) for instrument in instruments)


KUCOIN_LINEAR = "wss://ws-api-futures.kucoin.com/?token=T"
LIST = "/api/v1/contracts/active"
CONTRACTS = [
    {
        "symbol": "XBTUSDTM",
        "baseCurrency": "XBT",
        "quoteCurrency": "USDT",
        "settleCurrency": "USDT",
        "status": "Open",
        "multiplier": 0.001,
        "openInterest": "5000",
    },
]


def mark(price):
    data = {"markPrice": price, "indexPrice": price, "granularity": 1000, "timestamp": 1_790_000_000_000}
    return {
        "topic": "/contract/instrument:XBTUSDTM",
        "type": "message",
        "subject": "mark.index.price",
        "data": data,
    }


def test_what_a_feed_polled_of_contracts_is_in_the_records(tmp_path):
    url = "https://api-futures.kucoin.com"
    listed = answered(url + LIST, {"code": "200000", "data": CONTRACTS})
    one = {
        "code": "200000",
        "data": CONTRACTS[0] | {"openInterest": 7000, "nextFundingRateDateTime": 1_790_006_400_000},
    }
    lines = [
        listed,
        opened(KUCOIN_LINEAR),
        received(mark(10)),
        listed,
        answered(f"{url}/api/v1/contracts/XBTUSDTM", one),
    ]
    found = records(decoded(tmp_path, lines))
    assert [record.mark for record in found] == [10.0] * 3
    assert [record.open_interest for record in found[1:]] == [5.0, 7.0]
    assert found[0].open_interest != found[0].open_interest, "a state takes what comes after its first frame"
    assert found[2].next_funding_ns == 1_790_006_400_000_000_000
    odd = decoded(tmp_path, [*lines, answered(url + LIST, {"code": "429000", "msg": "Too Many Requests"})])
    assert "429000" in odd[-1].problem
    assert not odd[-1].records


def test_answers_of_a_market_that_is_simulated_below_a_path_are_read_as_its_own():
    """Its own host is known from what the feed was to receive."""
    host = "http://127.0.0.1:9"
    urls = {"spot": f"{host}/api/v2/symbols", "linear": f"{host}/linear{LIST}"}
    markets = [PlannedMarket(name=n, prefix="", instruments_url=url) for n, url in urls.items()]
    plan = Plan(exchange="kucoin", session_ns=1, simulated=True, markets=markets)
    decoding = Decoding("kucoin")
    decoding.take(Item(What.HEADER, 1, data=msgspec.json.encode(plan)))
    body = json.dumps({"code": "200000", "data": CONTRACTS}).encode()
    market, instruments = decoding.instruments(Item(What.ANSWERED, 1, name=f"{host}/linear{LIST}", data=body))
    assert (market.name, [instrument.symbol for instrument in instruments]) == ("linear", ["BTC/USDT:USDT"])


def test_a_symbol_that_no_list_has_is_none(tmp_path):
    """Once a list is complete: a recording without one, or with a part of one, has whatever its frames name."""
    url = "https://api.binance.com/api/v3/exchangeInfo?showPermissionSets=false"
    row = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT"}
    traded = [received({"data": {**TRADE, "s": symbol, "t": 7}}) for symbol in ("BTCUSDT", "BTCUSDX")]
    for listed, expected in [
        ([], ["BTCUSDT", "BTCUSDX"]),
        ([answered(url, {"symbols": [row]})], ["BTCUSDT"]),
        ([answered(url, {"symbols": [row, {"symbol": "ODD"}]})], ["BTCUSDT", "BTCUSDX"]),
        ([answered(url, {"code": -1, "msg": "no"})], ["BTCUSDT", "BTCUSDX"]),
        ([answered(f"{url}&symbol=BTCUSDT", {"symbols": [row]})], ["BTCUSDT", "BTCUSDX"]),
    ]:
        found = decoded(tmp_path, [*listed, opened(BINANCE), *traded])
        assert [record.topic.split(".")[-1] for record in records(found)] == expected
        assert not any(each.problem for each in found), "it is of nothing that we have"


def test_a_list_of_pages_is_complete_with_its_last_one():
    market = EXCHANGES["bybit"].market("linear")()
    listed = ListedNatives(market)
    cursor, pages = "", []
    request = market.instruments_request
    while request is not None:
        cursor = "more" if len(pages) == 0 else ""
        body = {"retCode": 0, "retMsg": "OK", "result": {"list": [], "nextPageCursor": cursor}, "time": 1}
        pages.append((f"https://x{request.path}", json.dumps(body).encode(), f"S{len(pages)}USDT"))
        request = market.rest_of_list(request, pages[-1][1])
    assert len(pages) > 2
    every = {native for *_, native in pages}

    def take(*some, is_whole=True):
        for url, body, native in some:
            listed.take(url, body, [native], is_whole=is_whole)
        return listed.natives

    assert take(*pages[:-1]) == set()
    assert take(pages[0], *pages[2:]) == set(), "one is missing"
    assert take(*pages, is_whole=False) == set()
    assert take(*pages) == every
    assert take(pages[0]) == every, "what is fetched anew takes nothing away"
