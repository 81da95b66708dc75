"""Recordings played again offline: the records that a Subscriber yields, in the order of receipt."""

import hashlib
import json
import os
import subprocess
import sys

import msgspec
import pytest
from captured import BINANCE, KUCOIN, base, changes, line, received
from captured import opened as capture_opened
from msgspec.structs import replace
from patience import PATIENCE_S
from small_recording import T0, book_base, listed, match, opened, plan, put, small, trade
from small_recording import received as frame

import feedhandler
from feedhandler import replay
from feedhandler.data import wire
from feedhandler.data.errors import ConfigError
from feedhandler.data.instruments import instrument_list
from feedhandler.data.kept_book import Book
from feedhandler.exchanges.base import Instrument
from feedhandler.merger.merge import Merger
from feedhandler.recordings import decoding
from feedhandler.recordings.decoding import Decoding
from feedhandler.recordings.runs import RunReader, find_runs
from feedhandler.recordings.traffic import Item, What
from feedhandler.replay import player


def told(records):
    return [(r.topic, r.sequence) for r in records]


def test_topics_and_numbers_are_the_mergers(tmp_path):
    found = list(replay.records(small(tmp_path), kinds=["trade"], exchanges=["binance"]))
    assert {r.topic for r in found} == {"trade.binance.BTC/USDT"}
    assert [r.sequence for r in found] == list(range(1, len(found) + 1))
    assert {r.session for r in found} == {T0 // 10**9}
    assert all(r.flags & wire.REPLAY for r in found)
    assert all(r.publish_ns == r.recv_ns for r in found)
    assert isinstance(found[0], wire.Trade)
    assert found[0].kind is wire.TRADE


def test_several_exchanges_come_in_the_order_of_receipt(tmp_path):
    found = list(replay.records(small(tmp_path)))
    times = [r.recv_ns for r in found]
    assert times == sorted(times)
    assert {r.exchange for r in found} == {"binance", "kucoin"}


def test_a_book_is_fed_as_by_a_subscriber(tmp_path):
    book, states = Book(), []
    for record in replay.records(small(tmp_path), kinds=["book"]):
        book.apply(record)
        states.append(book.is_valid)
    assert states[0]
    assert not states[-1]  # frames are missing there, and no base follows
    assert book.topic == "book.binance.BTC/USDT"


def test_only_what_is_wanted(tmp_path):
    small(tmp_path)
    assert {r.symbol for r in replay.records(tmp_path, symbols=["ETH/USDT"])} == {"ETH/USDT"}
    assert not list(replay.records(tmp_path, symbols=["XRP/USDT"]))
    assert {str(r.kind) for r in replay.records(tmp_path, kinds=["ticker"])} == {"ticker"}
    everything = told(replay.records(tmp_path))
    assert [each for each in everything if each[0].startswith("trade")] == told(
        replay.records(tmp_path, kinds=["trade"])
    )


def test_conditions_come_with_their_kinds(tmp_path):
    small(tmp_path)
    found = [r for r in replay.records(tmp_path, kinds=["book"]) if r.kind == wire.CONDITION]
    assert [(r.topic, bool(r.flags & wire.INVALID)) for r in found] == [("book.binance.BTC/USDT", True)]
    assert found[0].flags & wire.REPLAY
    assert not [r for r in replay.records(tmp_path, kinds=["trade"]) if r.kind == wire.CONDITION]


def test_bytes_are_those_of_the_records(tmp_path):
    small(tmp_path)
    assert list(replay.messages(tmp_path)) == [wire.pack(each) for each in replay.records(tmp_path)]


def test_a_symbol_without_a_list_is_what_its_spelling_says(tmp_path):
    def symbols(*lines):
        path = tmp_path / "a.jsonl"
        path.write_text("".join(lines))
        return [r.symbol for r in replay.records(path)]

    def traded(symbol):
        stated = trade(1)
        stated["data"]["s"] = symbol
        return received(stated)

    assert symbols(capture_opened(BINANCE), traded("BTCFDUSD"), traded("ABCXYZ")) == ["BTC/FDUSD", "ABCXYZ/?"]
    assert symbols(capture_opened(KUCOIN), received(match(1))) == ["ETH/USDT"]


def test_a_name_that_comes_again_is_another_connection(tmp_path):
    path = tmp_path / "a.jsonl"
    first, second = capture_opened(BINANCE) + received(trade(1)), capture_opened(KUCOIN) + received(match(1))
    path.write_text(first + second)
    assert [r.exchange for r in replay.records(path)] == ["binance", "kucoin"]


def test_a_list_says_it_wherever_it_stands_in_a_capture(tmp_path):
    row = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "XBT", "quoteAsset": "USD"}
    answer = line(
        "http", url="https://api.binance.com/api/v3/exchangeInfo", data=json.dumps({"symbols": [row]})
    )
    path = tmp_path / "a.jsonl"
    path.write_text(capture_opened(BINANCE) + received(trade(1)) + answer)
    assert [r.symbol for r in replay.records(path)] == ["XBT/USD"]


def test_the_list_of_a_market_that_is_not_offered_is_none_of_ours(tmp_path):
    row = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "XBT", "quoteAsset": "USD"}
    answer = line(
        "http", url="https://dapi.binance.com/dapi/v1/exchangeInfo", data=json.dumps({"symbols": [row]})
    )
    path = tmp_path / "a.jsonl"
    path.write_text(answer + capture_opened("wss://dstream.binance.com/stream") + received(trade(1)))
    assert [r.symbol for r in replay.records(path, exchange="binance")] == ["BTC/USDT"]


def test_what_several_instruments_claim_is_counted(tmp_path):
    row = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT"}
    rows = [{**row, "isSpotTradingAllowed": True, "symbol": name} for name in ("BTCUSDT", "BTCUSDT2")]
    item = replace(listed(), data=json.dumps({"symbols": rows}).encode())
    put(tmp_path, "binance", T0, [plan("binance", T0), item, opened(), frame(1, T0, trade(1))])
    played = replay.Player(find_runs(tmp_path)[0])
    assert not [found for found in played if isinstance(found, bytes)]
    assert played.unnamed == 1


def test_gaps_are_told_in_their_place(tmp_path):
    items = [
        frame(1, T0, trade(1)),
        Item(What.GAP, T0 + 1, number=7, name="full"),
        frame(4, T0 + 2, trade(4)),
    ]
    put(tmp_path, "binance", T0, [plan("binance", T0), listed(), opened(), *items], is_closed=False)
    found = list(replay.Player(find_runs(tmp_path)[0]))
    shape = [
        (each.reason, each.count) if isinstance(each, replay.RecordingGap) else "record" for each in found
    ]
    assert shape == [
        "record",
        ("full", 7),
        ("frames 2 to 3 received are missing, by their numbers", 2),
        "record",
        ("the end is torn off", 0),
    ]
    gap = found[2]
    assert (gap.exchange, gap.connection, gap.recv_ns) == ("binance", "spot.1", T0 + 2)


def test_what_lacks_at_either_end_of_a_connection_is_a_gap_too(tmp_path):
    closed = Item(What.CLOSED, T0 + 9, 0, "spot.1", 5, "closed")
    # begun before
    again = [opened(connection="spot.2", is_again=True), frame(7, T0 + 10, trade(7), "spot.2")]
    items = [frame(2, T0 + 1, trade(2)), frame(3, T0 + 2, trade(3)), closed, *again]
    put(tmp_path, "binance", T0, [plan("binance", T0), listed(), opened(), *items])
    gaps = [each for each in replay.Player(find_runs(tmp_path)[0]) if not isinstance(each, bytes)]
    assert [(gap.reason, gap.count) for gap in gaps] == [
        ("frames 1 to 1 received are missing, by their numbers", 1),
        ("frames 4 to 5 received are missing, by their numbers", 2),
    ]


def test_a_file_that_is_nothing_is_a_gap_of_its_time(tmp_path):
    path = put(tmp_path, "binance", T0, [plan("binance", T0)])
    path.write_bytes(b"nothing")
    (gap,) = replay.Player(find_runs(tmp_path)[0])
    assert (gap.exchange, gap.recv_ns) == ("binance", T0)


def test_a_capture_begins_with_its_first_time(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"t":"header","exchange":"BINANCE"}\n' + capture_opened(BINANCE) + received(trade(1)))
    (record,) = replay.records(path)
    assert record.session == 1_790_000_000


def test_what_a_capture_polled_is_in_the_records_that_follow(tmp_path):
    def mark(price, ts):
        data = {"e": "markPriceUpdate", "E": 1_790_000_000_100, "s": "BTCUSDT", "p": price, "i": price}
        data |= {"r": "0.0001", "T": 1_790_006_400_000}
        return received({"stream": "btcusdt@markPrice@1s", "data": data}, ts=ts)

    url = "https://fapi.binance.com/fapi/v1/openInterest?symbol=BTCUSDT"
    polled = {"openInterest": "12.5", "symbol": "BTCUSDT", "time": 1_790_000_002_000}
    path = tmp_path / "a.jsonl"
    path.write_text(
        capture_opened("wss://fstream.binance.com/market/stream")
        + mark("10", 1_790_000_001)
        + line("http", 1_790_000_002, url=url, data=json.dumps(polled))
        + mark("11", 1_790_000_003)
    )
    first, *others = replay.records(path)
    assert first.open_interest != first.open_interest
    assert [(r.mark, r.open_interest) for r in others] == [(10.0, 12.5), (11.0, 12.5)]


def test_a_capture_may_have_more_bases_than_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "BASES_MAX", 2)
    capture = capture_opened(BINANCE)
    for first in range(10, 110, 10):  # each is followed by a gap
        capture += received(changes(first, first, bids=[["10", "2"]]))
        capture += base(first) + received(changes(first + 1, first + 1, bids=[["10", "3"]]))
    path = tmp_path / "a.jsonl"
    path.write_text(capture)
    found = [r.last_id for r in replay.records(path) if r.kind is wire.BOOK and not r.flags & wire.SNAPSHOT]
    assert found[-10:] == [first + 1 for first in range(10, 110, 10)]


def test_an_answer_that_stands_later_in_a_capture_sets_no_clock(tmp_path):
    capture = base(3) + capture_opened(BINANCE)
    for number, ids in enumerate(((4, 4), (7, 7), (8, 8))):  # 5 and 6 are missing
        capture += received(changes(*ids, bids=[["10", "2"]]), ts=1_790_000_001 + number)
    late = json.loads(base(7)) | {"ts": 1_790_000_060}
    path = tmp_path / "a.jsonl"
    path.write_text(capture + json.dumps(late) + "\n")
    found = list(replay.records(path))
    assert [(r.kind, r.recv_ns // 10**9 - 1_790_000_000) for r in found] == [
        (wire.BOOK, 1),
        (wire.CONDITION, 2),
        (wire.BOOK, 2),
        (wire.BOOK, 3),
    ]
    assert {r.session for r in found} == {1_790_000_000}


def test_recordings_of_simulated_exchanges_are_flagged(tmp_path):
    head = [plan("binance", T0, simulated=True), opened("ws://127.0.0.1:9001/stream")]
    put(tmp_path, "binance", T0, head, [frame(1, T0, trade(1))])
    (record,) = replay.records(tmp_path)
    assert record.flags == wire.REPLAY | wire.SIMULATED | wire.LAST
    assert record.symbol == "BTC/USDT"


def test_what_is_no_kind_and_no_exchange_is_refused(tmp_path):
    wrongs = [
        {"kinds": ["trades"]},
        {"exchanges": ["mtgox"]},
        {"exchange": "mtgox"},
        {"symbols": ["BTCUSDT"]},
    ]
    for wrong in wrongs:
        with pytest.raises(ConfigError):
            replay.records(small(tmp_path), **wrong)


def test_a_recording_gives_what_a_running_merger_published(tmp_path):
    """But for session, time of publication and REPLAY: the same numbers, and the same bytes."""
    run = find_runs(small(tmp_path), ["binance"])[0]
    live = player.Published(0)
    merger = Merger({"binance": 1}, live, player.Unheard(), lambda: 12345, session=77, pid=1, now_mono_ns=0)
    listing = instrument_list("binance", 1, [Instrument("BTCUSDT", "BTC", "USDT")])
    body = msgspec.json.encode(listing)
    merger.on_message(
        wire.pack_document(wire.Document("instruments.binance", kind=wire.INSTRUMENTS, body=body))
    )
    decoding = Decoding("binance")
    for item in RunReader(run):
        for record in decoding.take(item).records:
            merger.on_message(record)
    again = list(replay.messages(tmp_path, exchanges=["binance"]))
    assert [_bare(each) for each in live.found] == [_bare(each) for each in again]
    assert len(again) > 40


def _bare(record):
    record = bytearray(record)
    flags = int.from_bytes(record[wire.FLAGS_OFFSET : wire.FLAGS_OFFSET + 2], "little") & ~wire.REPLAY
    wire.FLAGS.pack_into(record, wire.FLAGS_OFFSET, flags)
    wire.SESSION.pack_into(record, wire.SESSION_OFFSET, 0)
    wire.TIME.pack_into(record, wire.PUBLISH_NS_OFFSET, 0)
    if record[wire.KIND_OFFSET] == wire.CONDITION:
        wire.TIME.pack_into(record, wire.RECV_NS_OFFSET, 0)  # when the merger published it
    return bytes(record)


DIGEST = """
import hashlib, sys
from feedhandler import replay
found = hashlib.sha256()
for record in replay.messages(*sys.argv[1:]):
    found.update(record)
print(found.hexdigest())
"""


def digest_of(*paths):
    found = hashlib.sha256()
    for record in replay.messages(*paths):
        found.update(record)
    return found.hexdigest()


@pytest.mark.e2e
def test_a_recording_gives_the_same_bytes_each_time_and_in_either_form(tmp_path):
    small(tmp_path / "a")
    capture = tmp_path / "b.jsonl"
    capture.write_text(capture_opened(KUCOIN) + "".join(received(match(n)) for n in range(1, 9)))
    paths = [str(tmp_path / "a"), str(capture)]
    first = digest_of(*paths)
    assert digest_of(*paths) == first
    for pure in ("1", ""):
        environment = {**os.environ, feedhandler.PURE_ENV: pure}
        command = [sys.executable, "-c", DIGEST, *paths]
        shown = subprocess.check_output(command, text=True, env=environment, timeout=PATIENCE_S)
        assert shown.strip() == first


def test_a_base_that_comes_later_begins_a_book_anew(tmp_path):
    small(tmp_path)
    items = [book_base(200, T0 + 2 * 10**9, 3), frame(61, T0 + 3 * 10**9, trade(90))]
    put(tmp_path, "binance", T0 + 2 * 10**9, [plan("binance", T0, is_again=True), *items])
    trades = list(replay.records(tmp_path, kinds=["trade"], exchanges=["binance"]))
    assert [r.sequence for r in trades] == list(range(1, len(trades) + 1))
    assert trades[-1].trade_id == "90"
