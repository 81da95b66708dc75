"""The recording that ships with the tests is read as on the day on which it was made.

A format of tomorrow that reads it otherwise, or not at all, fails here. stored_recording.py made it, and tells what
went wrong in it; stored.json has what came of it then.
"""

import json
import subprocess
import sys

import pytest
from patience import PATIENCE_S
from stored_recording import STATED, STORED, exported, replayed, verified
from test_recording_document import READER

from feedhandler.recordings.quality import CONNECTED, NOT_CONNECTED

AGAIN = "if other records are to come of the same frames: tests/recordings/stored_recording.py --as-it-is"


@pytest.fixture(scope="module")
def stated():
    return json.loads(STATED.read_text(encoding="utf-8"))


def test_what_is_missing_is_what_went_wrong_and_nothing_else(stated):
    status, feeds = verified(STORED)
    assert status == 1, "something is missing, and all of it is told"
    assert {*feeds} == {"binance", "kucoin", "bybit"}
    for found in feeds.values():
        assert [segment["state"] for segment in found["segments"]] == ["torn", "closed"]
        assert found["unexplained"] == 0
        assert found["missing"] == sum(each["last"] - each["first"] + 1 for each in found["frames"]) > 0
    why = {name: {} for name in feeds}
    for name, found in feeds.items():
        for gap in found["ids"]:
            why[name].setdefault(gap["why"].partition(":")[0], []).append((gap["kind"], gap["symbol"]))
    assert all(each.pop("not recorded") for each in why.values()), "the recorder was killed"
    assert why["binance"] == {CONNECTED: [("book", "BTCUSDT")]}
    assert {*why["kucoin"]} == {NOT_CONNECTED}
    assert why["bybit"] == {}
    assert feeds == stated["feeds"]


@pytest.mark.long
def test_an_export_has_the_rows_that_it_had(stated, tmp_path):
    assert exported(STORED, tmp_path / "out") == stated["rows"], AGAIN


def test_replayed_records_are_the_bytes_that_they_were(stated):
    assert replayed(STORED) == stated["records"], AGAIN


@pytest.mark.long
def test_the_reader_of_the_document_prints_every_item(stated):
    torn = "something is missing here"
    for found in stated["feeds"].values():
        for segment in found["segments"]:
            command = [sys.executable, "-c", READER, str(STORED / segment["path"])]
            lines = subprocess.check_output(command, text=True, timeout=PATIENCE_S).splitlines()
            assert len([line for line in lines if line != torn]) == segment["items"]
            assert (lines[-1] == torn) == (segment["state"] == "torn")


def test_it_is_small():
    assert sum(path.stat().st_size for path in STORED.rglob("*") if path.is_file()) < 400_000
