"""The format's document: its reader, as it stands, reads what ours does; its numbers are those of the code."""

import io
import re
import subprocess
import sys
from pathlib import Path

from patience import PATIENCE_S
from recorded import GROUPS, T0, written

from feedhandler.recordings import packing, segments
from feedhandler.recordings.traffic import Item, What

TEXT = (Path(__file__).parent.parent.parent / "docs" / "recording.md").read_text(encoding="utf-8")
(READER,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
FIRST = [
    Item(What.HEADER, T0 - 5, 0, data=b"{}", is_repeated=True),
    Item(What.OPENED, T0 - 4, 0, "spot.1", name="wss://example/ws", is_repeated=True),
]
LAST = [
    Item(What.SENT, T0 + 1, 1, "spot.1", 1, data=b"ping"),
    Item(What.CLOSED, T0 + 2, 2, "spot.1", 16, "stopping"),
    Item(What.ANSWERED, T0 + 3, 3, "", 1, "https://example/list", b"[]"),
    Item(What.GAP, T0 + 4, 4, "", 12, "queue full"),
]


def printed(tmp_path, data):
    path = tmp_path / "x.segment"
    path.write_bytes(data)
    command = [sys.executable, "-c", READER, str(path)]
    return subprocess.check_output(command, text=True, timeout=PATIENCE_S).splitlines()


def line(item):
    words = (
        item.wall_ns,
        item.what.name.lower(),
        item.connection or "-",
        item.number,
        item.name or "-",
        len(item.data),
    )
    return f"{' '.join(map(str, words))} {'again' if item.is_repeated else ''}"


def test_the_reader_has_less_than_a_hundred_lines():
    assert len(READER.splitlines()) < 100


def test_the_reader_prints_every_item(tmp_path):
    groups = [FIRST, *GROUPS, LAST]
    assert printed(tmp_path, written(groups)) == [line(item) for group in groups for item in group]


def test_the_reader_tells_of_a_torn_end(tmp_path):
    data = written(GROUPS)
    for cut in (1, 100, 300):
        items = [item for item in segments.items(io.BytesIO(data[:-cut])) if item.what is not What.GAP]
        assert printed(tmp_path, data[:-cut]) == [*map(line, items), "something is missing here"]


def test_the_reader_tells_of_a_block_that_is_missing(tmp_path):
    data = written(GROUPS)
    _, second, third, _ = (block.offset for block in segments.blocks(io.BytesIO(data)))
    lines = printed(tmp_path, data[:second] + data[third:])
    assert lines == [
        *map(line, GROUPS[0]),
        "something is missing here",
        *map(line, GROUPS[2]),
    ]


def test_the_tables_have_the_structures_of_the_code():
    codes = {"char[4]": "4s", "u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q"}
    for heading, struct in (("Head of a block", segments.HEAD), ("Item", packing.ITEM)):
        table = TEXT.partition(f"### {heading}\n")[2].partition("\n| what |")[0].partition("\n#")[0]
        rows = re.findall(r"^\| (\d+) \| (\S+) \|", table, re.MULTILINE)
        offset, form = 0, "<"
        for at, kind in rows:
            if kind == "char[]":
                break
            assert int(at) == offset
            form += codes[kind]
            offset = segments.struct.calcsize(form)
        assert form == struct.format
    assert {what.value for what in What} == {
        *map(
            int,
            re.findall(r"^\| (\d) \| \S+ ?.*\|.*\|.*\|", TEXT.partition("| what | | name")[2], re.MULTILINE),
        )
    }
