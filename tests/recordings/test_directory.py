"""A directory of segments, as one stream a feed."""

import pytest
from msgspec.structs import replace
from recorded import T0, frames, written

from feedhandler.data.shard import parse
from feedhandler.recordings import directory
from feedhandler.recordings.traffic import Item, What

HOUR = 3600 * 10**9
HEADER = Item(What.HEADER, T0 - 5, data=b"{}")
OPENED = Item(What.OPENED, T0 - 4, 0, "spot.1", name="ws://127.0.0.1")


def again(item):
    return replace(item, is_repeated=True)


@pytest.fixture
def place(tmp_path):
    def put(feed, begun_ns, data):
        path = tmp_path / feed / directory.file_name(begun_ns)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    put("binance", T0, written([[HEADER, OPENED, *frames(3)]]))
    put("binance", T0 + HOUR, written([[again(HEADER), again(OPENED), *frames(2, 4)]]))
    put("binance", T0 + 2 * HOUR, written([[again(HEADER), *frames(1, 6)]], is_closed=False))
    put("kucoin-1of2", T0, written([frames(1)]))
    (tmp_path / "binance" / "notes.txt").write_text("no segment")
    (tmp_path / "Notes").mkdir()
    (tmp_path / "manifest.jsonl").write_text("")
    return tmp_path


def test_names_tell_feed_and_time():
    assert directory.file_name(T0) == "20260921T141320.000000000Z.segment"
    for begun_ns in (T0, T0 + 1, T0 + 123_456_789):
        for feed, shard in (("binance", "1/1"), ("kucoin-1of2", "1/2")):
            path = directory.Path("/x") / feed / directory.file_name(begun_ns)
            found = directory.segment_file(path)
            assert (found.begun_ns, found.feed) == (begun_ns, feed)
            assert shard == "1/1" or found.shard == parse(shard)


@pytest.mark.parametrize("name", ["x.segment", "20261329T220615.123456789Z.segment", "a/b.txt"])
def test_other_files_are_none(name):
    assert directory.segment_file(directory.Path("/x/binance") / name) is None


def test_segments_are_found_by_feed_in_order(place):
    found = directory.find(place)
    assert [*found] == ["binance", "kucoin-1of2"]
    assert [file.begun_ns for file in found["binance"]] == [T0, T0 + HOUR, T0 + 2 * HOUR]
    assert [*directory.find(place, ["kucoin"])] == ["kucoin-1of2"]


def test_segments_are_found_by_time(place):
    def begun(**limits):
        return [file.begun_ns - T0 for file in directory.find(place, ["binance"], **limits)["binance"]]

    assert begun(start_ns=T0 + 2 * HOUR + 5) == [HOUR, 2 * HOUR]
    assert begun(end_ns=T0 + HOUR) == [0]
    assert begun(start_ns=T0 - HOUR) == [0, HOUR, 2 * HOUR]


def test_the_segments_of_a_feed_are_one_stream_in_which_nothing_is_repeated(place):
    *items, last = directory.items(directory.find(place)["binance"])
    assert items == [HEADER, OPENED, *frames(6)]
    assert last.what is What.GAP


def test_whoever_begins_later_has_what_holds_by_then(place):
    _, second, _ = directory.find(place)["binance"]
    assert [*directory.items([second])] == [again(HEADER), again(OPENED), *frames(2, 4)]


def test_a_file_that_is_no_segment_is_a_gap(place):
    first, second, third = directory.find(place)["binance"]
    second.path.write_bytes(b"something else")
    items = [*directory.items([first, second, third])]
    assert [item.number for item in items if item.what is What.RECEIVED] == [1, 2, 3, 6]
    assert [item.what for item in items].count(What.GAP) == 2
