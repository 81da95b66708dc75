"""Records of several feeds at once: their order, and the processes that decode them."""

import heapq
import importlib
import itertools
import struct
import subprocess

import pytest
import twins
from hypothesis import given
from hypothesis import strategies as st
from small_recording import small

from feedhandler import replay
from feedhandler.data import wire
from feedhandler.data.errors import ConfigError
from feedhandler.recordings.runs import RunReader
from feedhandler.replay import player, streams
from feedhandler.replay.streams import ReplayFailed


def test_records_come_before_all_is_decoded(tmp_path, monkeypatch):
    taken = []
    read = RunReader.parts

    def counted(reader):
        for part in read(reader):
            for item in part:
                taken.append(item)
                yield [item]

    monkeypatch.setattr(player, "PART", 2)
    monkeypatch.setattr(RunReader, "parts", counted)
    found = replay.messages(small(tmp_path, rounds=100), exchanges=["binance"])
    next(found)
    before = len(taken)
    assert list(found)
    assert 10 * before < len(taken)


SEVERAL = st.lists(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=5), max_size=4), max_size=4)


@pytest.mark.parametrize("form", twins.FORMS)
@given(cut=SEVERAL)
def test_the_order_is_that_of_a_heap_however_they_are_cut(form, cut):
    """Of one time they come in the order of the feeds, and of one feed in its own."""
    feeds, numbers = [], itertools.count()
    for chunks in cut:
        times = iter(sorted(itertools.chain(*chunks)))
        feeds.append([[(next(times), next(numbers)) for _ in chunk] for chunk in chunks])
    wanted = list(heapq.merge(*(itertools.chain(*chunks) for chunks in feeds), key=lambda each: each[0]))
    blocks = [[block for chunk in chunks if (block := block_at(chunk))] for chunks in feeds]
    merged = twins.of(form).Merged([*map(iter, blocks)], False)
    assert [wire.unpack(each).sequence for each in itertools.chain(*merged)] == [each[1] for each in wanted]


def block_at(chunk):
    """Return a block of records that were received at these times, under these numbers."""
    made = [wire.pack(wire.Trade("trade.binance.BTC/USDT", recv_ns=at, sequence=n)) for at, n in chunk]
    return twins.of("imported").block_of(made, 0)[0]


@pytest.mark.parametrize("form", twins.FORMS)
def test_a_place_in_the_order_is_the_time_of_receipt_and_never_falls(form):
    twin = twins.of(form)
    made = [wire.pack(wire.Trade("trade.binance.BTC/USDT", recv_ns=at)) for at in (5, 3, 9)]
    block, newest_ns = twin.block_of([made[0], "a gap", *made[1:]], 4)
    assert (block[0], newest_ns) == (b"".join(made), 9)
    assert struct.unpack("<3q", block[2]) == (5, 5, 9)
    block, newest_ns = twin.block_of(made, 7, lambda record: record is made[1])
    assert (block[0], struct.unpack("<q", block[2]), newest_ns) == (made[1], (7,), 9)
    assert twin.block_of(["a gap"], 7) == (None, 7)


@pytest.mark.parametrize("form", twins.FORMS)
def test_records_are_those_that_any_reader_makes(form):
    named = {"sequence": 7, "recv_ns": 3, "flags": wire.REPLAY, "version": wire.VERSION}
    made = [
        wire.Ticker("ticker.kucoin.BTC/USDT", bid=1.5, last=2.0, **named),
        wire.Trade("trade.kucoin.BTC/USDT", price=1.5, side=wire.Side.SELL, trade_id="é7", **named),
        wire.Trade("trade.kucoin.BTC/USDT", price=1.5, side=9, **named),
        wire.Depth("depth.kucoin.BTC/USDT", bid_count=3, **named),
        wire.BookRecord.of("book.kucoin.BTC/USDT", [(1.0, 2.0)], [(3.0, 4.0), (5.0, 0.0)], **named),
        wire.Contract("contract.kucoin.BTC/USDT", mark=1.5, kind=wire.CONTRACT, **named),
        wire.Condition("book.kucoin.BTC/USDT", kind=wire.CONDITION, **named),
    ]
    packed = [wire.pack(each) for each in made]
    twin = twins.of(form)
    block, _ = twin.block_of(packed, 0)
    found = list(itertools.chain(*twin.Merged([iter([block])], True)))
    assert [*map(repr, found)] == [repr(wire.unpack(each)) for each in packed]
    assert [type(each).__name__ for each in found] == [type(each).__name__ for each in made]


@pytest.fixture
def started(monkeypatch):
    """Have each feed decoded in a process of its own; returns those that were started."""
    monkeypatch.setattr(streams, "APART_SIZE", 0)
    monkeypatch.setattr(streams, "_cores", lambda: 2)
    found, popen = [], subprocess.Popen

    def start(*arguments, **options):
        found.append(popen(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return found


@pytest.mark.e2e
def test_processes_give_the_same_bytes(tmp_path, started, monkeypatch):
    small(tmp_path)
    apart = list(replay.messages(tmp_path))
    of_symbol = list(replay.messages(tmp_path, symbols=["ETH/USDT"], kinds=["trade"]))
    assert len(started) == 4
    monkeypatch.setattr(streams, "_cores", lambda: 1)
    assert apart == list(replay.messages(tmp_path))
    assert of_symbol == list(replay.messages(tmp_path, symbols=["ETH/USDT"], kinds=["trade"]))
    assert len(started) == 4


@pytest.mark.e2e
def test_they_end_when_nobody_reads_any_more(tmp_path, started):
    records = replay.records(small(tmp_path, rounds=500))
    next(records)
    assert len(started) == 2
    del records
    assert all(each.returncode is not None for each in started)


@pytest.mark.e2e
def test_what_a_decoder_raises_there_is_raised_here(tmp_path, started):
    path = tmp_path / "a.jsonl"
    path.write_text("no recording\n")
    with pytest.raises(ConfigError, match="no recording"):
        list(replay.messages(path))


@pytest.mark.e2e
def test_one_that_was_killed_is_told(tmp_path, started, monkeypatch):
    monkeypatch.setattr(streams, "SERVE", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)  # {}")
    with pytest.raises(ReplayFailed):
        list(replay.messages(small(tmp_path)))


@pytest.mark.long
def test_who_decodes_elsewhere_finds_modules_where_the_caller_does(tmp_path, monkeypatch, started):
    """Such as the package itself, where a program has put its folder on the path."""
    body = "from feedhandler.replay.streams import PlayedFeed\n\n\nclass Theirs(PlayedFeed):\n    pass\n"
    (tmp_path / "theirs_of_the_caller.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    made = importlib.import_module("theirs_of_the_caller").Theirs
    stream = made((), "binance", ("trade",), frozenset(), frozenset())
    assert list(streams.played([stream], is_unpacked=False)) == []
    assert len(started) == 1
