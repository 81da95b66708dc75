"""What kinds take on disk: all that was recorded is told once, and the parts make the whole."""

import json
import subprocess
import sys

import pytest
from patience import PATIENCE_S
from small_recording import small

from feedhandler.cli import sizing
from feedhandler.export import sizes
from feedhandler.recordings import directory
from feedhandler.recordings.runs import find_runs
from feedhandler.recordings.traffic import What


@pytest.fixture
def place(tmp_path):
    return small(tmp_path / "recordings", rounds=200)


def by_kind(found):
    return {(each.exchange, each.kind): each for each in found}


def test_each_message_is_one_of_a_kind(place):
    found = by_kind(sizes.measure(find_runs(place)))
    assert {key for key in found if key[1] != sizes.OTHER} == {
        ("binance", "ticker"),
        ("binance", "trade"),
        ("binance", "book"),
        ("kucoin", "trade"),
    }
    items = [item for files in directory.find(place).values() for item in directory.items(files)]
    frames = [item.data for item in items if item.what is What.RECEIVED]
    kinds = [each for each in found.values() if each.kind != sizes.OTHER]
    assert sum(each.messages for each in kinds) == len(frames)
    assert sum(each.received for each in kinds) == sum(map(len, frames))
    for each in kinds:
        assert 0 < each.segments < each.received
        assert 0 < each.gzip < each.received
    assert found["kucoin", "trade"].seconds == pytest.approx(0.4, rel=0.01)
    assert found["kucoin", "trade"].a_day(1000) == pytest.approx(1000 * 86400 / 0.4, rel=0.01)


def test_what_is_exported_is_weighed_and_removed(place, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    runs = find_runs(place)
    found = sizes.measure(runs)
    sizes.add_parquet(found, runs)
    kinds = by_kind(found)
    assert kinds["binance", "trade"].rows > 150
    assert all(each.parquet for each in found if each.kind != sizes.OTHER)
    assert not [*tmp_path.glob("feedhandler-sizes-*")]


def test_the_table_can_be_pasted_into_a_document(place):
    found = sizes.measure(find_runs(place))
    lines = sizing.lines(found)
    assert len(lines) == len(found) + 2
    assert {line.count("|") for line in lines} == {len(sizing.COLUMNS) + 1}
    assert len({*map(len, lines)}) == 1


@pytest.mark.e2e
def test_the_command_prints_it(place):
    command = [sys.executable, "-m", "feedhandler", "captures", "sizes", str(place), "--exchange", "kucoin"]
    printed = subprocess.check_output(command, text=True, timeout=PATIENCE_S)
    assert "| kucoin   | trade |" in printed
    as_json = subprocess.check_output([*command, "--json"], text=True, timeout=PATIENCE_S)
    assert json.loads(as_json.splitlines()[0])["messages"] == 200
