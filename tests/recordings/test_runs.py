"""What of recordings is decoded as a whole."""

import fcntl

import pytest
from small_recording import DAY, T0, binance_items, opened, plan, put, small

from feedhandler.data.errors import ConfigError
from feedhandler.recordings.directory import LOCK
from feedhandler.recordings.runs import RunReader, find_runs
from feedhandler.recordings.traffic import What


def names(runs):
    return [(run.feed, len(run.files)) for run in runs]


def test_segments_of_a_feed_that_goes_on_are_one_run(tmp_path):
    runs = find_runs(small(tmp_path))
    assert names(runs) == [("binance", 2), ("kucoin", 1)]
    assert [run.exchange for run in runs] == ["binance", "kucoin"]
    assert runs[0].name == "binance-20260921T141320.000000000Z"
    assert runs[0].begun_ns == T0


def test_a_feed_that_was_started_anew_begins_another(tmp_path):
    small(tmp_path)
    put(tmp_path, "binance", T0 + DAY, [plan("binance", T0 + DAY), opened()])
    put(tmp_path, "binance", T0 + 2 * DAY, [opened(is_again=True)])  # it does not tell
    runs = find_runs(tmp_path)
    assert names(runs) == [("binance", 2), ("binance", 2), ("kucoin", 1)]
    assert len({run.name for run in runs}) == 3


def test_what_a_header_says_of_the_world_is_known(tmp_path):
    put(tmp_path, "binance", T0, [plan("binance", T0, simulated=True)])
    assert find_runs(tmp_path)[0].is_simulated


def test_only_some_exchanges(tmp_path):
    assert names(find_runs(small(tmp_path), ["kucoin"])) == [("kucoin", 1)]
    assert find_runs(tmp_path, ["bybit"]) == []


def test_a_segment_alone_is_one_wherever_it_lies(tmp_path):
    path = put(tmp_path, "binance", T0, [plan("binance", T0)], binance_items(2))
    assert names(find_runs(path)) == [("binance", 1)]
    other = path.rename(tmp_path / "copied")
    (run,) = find_runs(other)
    assert run.exchange == "binance"
    assert [item.what for item in RunReader(run)].count(What.RECEIVED) == 6


def test_a_capture_is_one(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"t":"recv","data":"{}"}\n')
    (run,) = find_runs(path)
    assert run.is_capture
    assert run.name.startswith("a-")
    assert [item.what for item in RunReader(run)] == [What.RECEIVED]


def test_the_end_of_a_segment_that_is_being_written_is_no_gap(tmp_path):
    """Those before it, and all once the recorder is gone, are torn."""
    for begun_ns in (T0, T0 + 10**9):
        put(tmp_path, "binance", begun_ns, [plan("binance", T0), opened()], is_closed=False)

    def gaps():
        return [item.what for run in find_runs(tmp_path) for item in RunReader(run)].count(What.GAP)

    with (tmp_path / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert gaps() == 1
    assert gaps() == 2


def test_a_reader_knows_how_far_it_is(tmp_path):
    reader = RunReader(find_runs(small(tmp_path))[0])
    positions = [reader.position for _ in reader]
    assert positions == sorted(positions)
    assert len(set(positions)) > 2  # also within a file
    assert reader.position == reader.size


@pytest.mark.parametrize("make", [lambda path: path, lambda path: path.mkdir() or path])
def test_what_is_none_is_refused(tmp_path, make):
    with pytest.raises(ConfigError):
        find_runs(make(tmp_path / "nothing"))
