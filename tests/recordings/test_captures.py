"""Lines of captures: what they may look like, and what becomes of those that cannot be read."""

import base64
import gzip
import json

import pytest
from captured import line, received

from feedhandler.data.errors import ConfigError
from feedhandler.recordings import compressed
from feedhandler.recordings.captures import CaptureReader
from feedhandler.recordings.traffic import What

FRAME = {"stream": "btcusdt@trade", "data": {"p": "1.10"}}


def read(tmp_path, text, name="a.jsonl"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    reader = CaptureReader(path)
    return reader, list(reader)


def test_each_kind_of_line_is_an_item(tmp_path):
    text = (
        '{"t":"header","exchange":"BINANCE"}\n'
        + line("connect", addr="wss://a/b")
        + line("send", data='{"id":1}')
        + line("recv", data='{"id":2}')
        + line("http", url="https://a/c", data="[]")
        + line("gap", count=7, reason="full")
        + line("close", reason="1006")
    )
    reader, items = read(tmp_path, text)
    assert [(i.what, i.name, i.number, i.data) for i in items[1:]] == [
        (What.OPENED, "wss://a/b", 0, b""),
        (What.SENT, "", 0, b'{"id":1}'),
        (What.RECEIVED, "", 0, b'{"id":2}'),
        (What.ANSWERED, "https://a/c", 0, b"[]"),
        (What.GAP, "full", 7, b""),
        (What.CLOSED, "1006", 0, b""),
    ]
    assert items[0].what is What.HEADER
    assert json.loads(items[0].data)["exchange"] == "BINANCE"
    assert {i.connection for i in items[1:]} == {"c"}
    assert (reader.bad, reader.cut) == ([], "")
    assert [i.what for i in reader.answers()] == [What.ANSWERED]


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(FRAME),  # text
        FRAME,  # JSON itself
        base64.b64encode(json.dumps(FRAME).encode()).decode(),
        base64.b64encode(json.dumps(FRAME, indent=1).encode()).decode(),  # begins with other characters
        base64.b64encode(b"{ " + json.dumps(FRAME)[1:].encode()).decode(),
    ],
)
def test_a_frame_is_text_or_json_or_bytes(tmp_path, data):
    _, (item,) = read(tmp_path, line("recv", data=data))
    assert json.loads(item.data) == FRAME


@pytest.mark.parametrize("data", ["pong", "Wyoming", "eyJ no base64", "echo", ""])
def test_a_text_that_only_looks_like_base64_is_a_text(tmp_path, data):
    _, (item,) = read(tmp_path, line("recv", data=data))
    assert item.data == data.encode()


@pytest.mark.parametrize(
    "ts",
    [
        1_790_000_000.123456789,
        "1790000000.123456789",
        1_790_000_000_123,
        "1790000000123456",
        1_790_000_000_123_456_789,
    ],
)
def test_a_time_is_of_any_usual_unit(tmp_path, ts):
    _, (item,) = read(tmp_path, line("recv", ts, data="{}"))
    assert item.wall_ns // 10**6 == 1_790_000_000_123


def test_a_line_without_a_time_or_a_name_has_those_that_are_known(tmp_path):
    text = line("recv", 1_790_000_000, data="{}") + '{"t":"recv","conn":7,"data":{}}\n{"t":"recv"}\n'
    _, items = read(tmp_path, text)
    assert [i.wall_ns for i in items] == [1_790_000_000 * 10**9] * 3
    assert [i.connection for i in items] == ["c", "7", ""]


def test_a_last_line_that_was_interrupted_costs_that_line_alone(tmp_path):
    reader, items = read(tmp_path, received(FRAME) + received(FRAME)[:40])
    assert len(items) == 1
    assert reader.bad == []
    assert "line 2, the last one, is cut short" in reader.cut


def test_lines_in_the_middle_that_cannot_be_read_are_named(tmp_path):
    bad = [
        received(FRAME)[:40] + "\n",
        line("recv", "noon"),
        line("recv", -1),
        line("recv", 9e10),
        '{"a":1}\n',
        "\xff\n",
    ]
    reader, items = read(tmp_path, (received(FRAME) + "".join(bad) + received(FRAME)).encode("latin-1"))
    assert len(items) == 2
    assert [each.number for each in reader.bad] == [2, 3, 4, 5, 6, 7]
    assert "'noon' is no time" in reader.bad[1].reason
    assert reader.cut == ""


def test_lines_of_other_kinds_are_counted(tmp_path):
    reader, items = read(tmp_path, received(FRAME) + line("note") + line("note"))
    assert len(items) == 1
    assert reader.unknown == {"note": 2}


@pytest.mark.parametrize("text", ["# a document\n", b"\x00\x01\x02"])
def test_what_is_no_capture_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="no recording in JSON lines"):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.jsonl: No such file"):
        list(CaptureReader(tmp_path / "nothing.jsonl"))
    with pytest.raises(ConfigError, match="directory"):
        list(CaptureReader(tmp_path))


def test_an_empty_file_has_no_items_and_is_called_empty(tmp_path):
    reader, items = read(tmp_path, "")
    assert (items, reader.bad, reader.cut) == ([], [], "it is empty")


def test_a_compressed_file_is_known_by_its_bytes(tmp_path):
    text = received(FRAME).encode() * 100
    reader, items = read(tmp_path, gzip.compress(text))
    assert len(items) == 100
    reader, items = read(tmp_path, gzip.compress(text)[:-20])
    assert "cut short" in reader.cut
    packed = bytearray(gzip.compress(text))
    wrong_check, no_such_block = packed[:], packed[:]
    wrong_check[-6] ^= 1
    no_such_block[10] |= 6
    for damaged in (wrong_check, no_such_block):
        reader, items = read(tmp_path, bytes(damaged))
        assert "damaged" in reader.bad[-1].reason
        assert not reader.cut


def test_zstd_is_read_in_several_frames_and_cut_short(tmp_path):
    zstd = compressed.zstd() or pytest.skip("neither Python 3.14 nor backports.zstd")
    text = received(FRAME).encode() * 100
    reader, items = read(tmp_path, zstd.compress(text) + zstd.compress(text))
    assert (len(items), reader.cut) == (200, "")
    reader, items = read(tmp_path, zstd.compress(text) + zstd.compress(text)[:-10])
    assert len(items) >= 100
    assert "cut short" in reader.cut
    damaged = bytearray(zstd.compress(text))
    damaged[20:24] = b"\xff\xff\xff\xff"
    reader, items = read(tmp_path, bytes(damaged))
    assert "damaged" in reader.bad[-1].reason


def test_without_zstd_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "zstd", lambda: None)
    with pytest.raises(ConfigError, match=r"pip install backports\.zstd"):
        read(tmp_path, b"\x28\xb5\x2f\xfd" + b"x" * 20)


@pytest.mark.parametrize(("count", "number"), [(7, 7), (0, 0), (-5, 0), (10**30, 0), ("7", 0), (None, 0)])
def test_a_gap_of_no_sensible_size_is_of_an_unknown_one(tmp_path, count, number):
    _, (item,) = read(tmp_path, line("gap", count=count, reason="full"))
    assert (item.what, item.number) == (What.GAP, number)
