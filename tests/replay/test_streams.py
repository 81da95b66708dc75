"""Records of several feeds at once: their order, and the processes that decode them."""

import subprocess

import pytest
from small_recording import small

from feedhandler import replay
from feedhandler.data import wire
from feedhandler.data.errors import ConfigError
from feedhandler.replay import streams
from feedhandler.replay.streams import ReplayFailed


def test_records_come_before_all_is_decoded(tmp_path, monkeypatch):
    record = wire.pack(wire.Trade("trade.binance.BTC/USDT", kind=wire.TRADE))
    decoded = []

    def player(*_):
        for number in range(1000):
            decoded.append(number)
            yield record

    monkeypatch.setattr(streams, "CHUNK", 2)
    monkeypatch.setattr(streams, "Player", player)
    assert next(replay.messages(small(tmp_path), exchanges=["binance"])) == record
    assert len(decoded) == 2


@pytest.fixture
def started(monkeypatch):
    """Have each feed decoded in a process of its own; returns those that were started."""
    monkeypatch.setattr(streams, "APART_SIZE", 0)
    monkeypatch.setattr(streams, "_cores", lambda: 2)
    monkeypatch.setattr(streams, "CHUNK", 3)
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
