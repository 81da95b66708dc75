"""Records of several feeds at once: their order, and the processes that decode them."""

import heapq
import importlib
import itertools
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_recording import small

from feedhandler import replay
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


@given(SEVERAL)
def test_the_order_is_that_of_a_heap_however_they_are_cut(cut):
    """Of one time they come in the order of the feeds, and of one feed in its own."""
    feeds, numbers = [], itertools.count()
    for chunks in cut:
        times = iter(sorted(itertools.chain(*chunks)))
        feeds.append([[(next(times), next(numbers)) for _ in chunk] for chunk in chunks])
    wanted = list(heapq.merge(*(itertools.chain(*chunks) for chunks in feeds), key=lambda each: each[0]))
    streamed = [(([*map(str, chunk)], [each[0] for each in chunk]) for chunk in chunks) for chunks in feeds]
    assert list(itertools.chain(*streams._merged(streamed))) == [*map(str, wanted)]


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


def test_who_decodes_elsewhere_finds_modules_where_the_caller_does(tmp_path, monkeypatch, started):
    """Such as the package itself, where a program has put its folder on the path."""
    body = "from feedhandler.replay.streams import PlayedFeed\n\n\nclass Theirs(PlayedFeed):\n    pass\n"
    (tmp_path / "theirs_of_the_caller.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    made = importlib.import_module("theirs_of_the_caller").Theirs
    stream = made((), "binance", ("trade",), frozenset(), frozenset())
    assert list(streams.played([stream])) == []
    assert len(started) == 1
