"""What is generated is current, and the check would say if it were not."""

import importlib.util
import re
import shutil
import subprocess
import sys
from typing import Annotated

import pytest
import toolchains
from patience import PATIENCE_S
from toolchains import ROOT, run

from feedhandler.data.header import HEADER, Record
from feedhandler.data.layout import (
    Body,
    Description,
    Entries,
    Retention,
    char,
    f64,
    i64,
    layout,
    levels,
    u8,
    u16,
    u32,
    u64,
)

FILES = {
    "languages/c/feedhandler.h": ("    double bid;\n", "    float bid;\n"),
    "languages/rust/feedhandler.rs": ("pub const KIND_STATUS: u8 = 2;", "pub const KIND_STATUS: u8 = 3;"),
    "languages/go/feedhandler.go": ("from[120:]", "from[128:]"),
    "languages/js/feedhandler.mjs": ("STALE: 2,", "STALE: 4,"),
    "languages/js/feedhandler.d.mts": ("get bid(): number", "get bid(): bigint"),
    "languages/numpy/feedhandler_dtype.py": ("<u8", "<i8"),
    "docs/wire.md": ("| 120 | f64 | bid |", "| 128 | f64 | bid |"),
}


def check(root):
    return subprocess.run(
        [sys.executable, root / "languages" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "languages", tmp_path / "languages", ignore=shutil.ignore_patterns("node_modules"))
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "wire.md", tmp_path / "docs")
    return tmp_path


@pytest.mark.e2e
def test_the_generated_files_are_what_the_definition_says():
    done = check(ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.e2e
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_edited_is_named_and_made_right_again(name, copy):
    right = (copy / name).read_text(encoding="utf-8")
    old, new = FILES[name]
    assert old in right
    (copy / name).write_text(right.replace(old, new), encoding="utf-8")
    done = check(copy)
    assert done.returncode == 1
    assert done.stderr == f"{name} is not what feedhandler/data/ says; run: make languages\n"
    subprocess.run([sys.executable, copy / "languages" / "generate.py"], check=True, timeout=PATIENCE_S)
    assert (copy / name).read_text(encoding="utf-8") == right


def test_the_page_has_the_table_of_each_struct_and_of_the_flags_and_kinds():
    text = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
    assert re.findall(r"<!-- (\w+): make languages -->", text) == [
        "header",
        "flags",
        "kinds",
        "ticker",
        "trade",
        "depth",
        "book",
        "contract",
        "liquidation",
    ]


@pytest.mark.e2e
def test_a_table_that_is_empty_is_filled_and_takes_nothing_else_away(copy):
    page = copy / "docs" / "wire.md"
    right = page.read_text(encoding="utf-8")
    mark = "<!-- book: make languages -->\n"
    before, after = right.split(mark)
    page.write_text(before + mark + after[after.index("<!-- end -->") :], encoding="utf-8")
    subprocess.run([sys.executable, copy / "languages" / "generate.py"], check=True, timeout=PATIENCE_S)
    assert page.read_text(encoding="utf-8") == right


class Gauge(Record):
    """A kind that exists in this test alone."""

    kind: int = 250
    turn: Annotated[int, u64("", "turn")] = 0
    written_ns: Annotated[int, i64("Unix ns", "written")] = 0
    place: Annotated[float, f64("", "place")] = 0.0
    width: Annotated[int, u32("", "width")] = 0
    mark: Annotated[int, u16("", "mark")] = 0
    side: Annotated[int, u8("", "side")] = 0
    end: Annotated[int, u8("", "end")] = 0
    name_of_it: Annotated[bytes, char(8, "name")] = b""
    sides: Annotated[bytes, levels(2, "sides")] = bytes(32)


class Ladder(Record):
    """The same, with entries that its counts tell."""

    kind: int = 251
    bids: Annotated[int, u16("", "entries")] = 0
    asks: Annotated[int, u16("", "more of them")] = 0
    rest: Annotated[int, u32("", "0")] = 0
    steps: Annotated[bytes, Entries(("bids", "asks"), 16, 512, "price and size")] = b""


LADDER = Description(
    251,
    "ladder",
    "another test",
    Retention.EVERY,
    Ladder,
    layout("ladder", "a ladder", Ladder, HEADER),
    Body.COUNTED,
)
GAUGE = Description(250, "gauge", "a test", Retention.EVERY, Gauge, layout("gauge", "a gauge", Gauge, HEADER))


# Two records in a message, of two entries and of none; the first alone, cut short. Fails by its exit status.
SPLIT = {
    "ladder.rs": """
mod feedhandler;
use feedhandler::*;
fn main() {
    let mut message = vec![0u8; 2 * LADDER_SIZE + 32];
    for (at, counts) in [(0, 1u8), (LADDER_SIZE + 32, 0)] {
        message[at + 64] = VERSION;
        message[at + 65] = KIND_LADDER;
        message[at + 104] = counts;
        message[at + 106] = counts;
    }
    let sizes: Vec<usize> = split(&message).map(|record| record.len()).collect();
    assert_eq!(sizes, [LADDER_SIZE + 32, LADDER_SIZE]);
    assert!(split(&message).all(|record| matches!(decode(record), Ok(Record::Ladder(_)))));
    assert_eq!(decode(&message[..LADDER_SIZE + 31]), Err(Error::Length));
}
""",
    "go.mod": "module feedhandler\n\ngo 1.18\n",
    "ladder_test.go": """package feedhandler

import "testing"

func TestSplit(t *testing.T) {
	message := make([]byte, 2*LadderSize+32)
	for at, count := range map[int]byte{0: 1, LadderSize + 32: 0} {
		message[at+64], message[at+65] = Version, KindLadder
		message[at+104], message[at+106] = count, count
	}
	records := Split(message)
	if len(records) != 2 || len(records[0]) != LadderSize+32 || len(records[1]) != LadderSize {
		t.Fatal(records)
	}
	for _, each := range records {
		if record, err := Decode(each); err != nil || record.(*Ladder).Kind != KindLadder {
			t.Fatal(record, err)
		}
	}
	if _, err := Decode(message[:LadderSize+31]); err != ErrLength {
		t.Fatal(err)
	}
}
""",
    "ladder.mjs": """
import assert from "node:assert"
import { KIND, LADDER_SIZE, Ladder, VERSION, decode, split } from "./feedhandler.mjs"
const message = new Uint8Array(2 * LADDER_SIZE + 32)
for (const [at, count] of [[0, 1], [LADDER_SIZE + 32, 0]]) {
  message.set([VERSION, KIND.LADDER], at + 64)
  message[at + 104] = message[at + 106] = count
}
const records = split(message)
assert.deepEqual(records.map((each) => each.length), [LADDER_SIZE + 32, LADDER_SIZE])
assert(records.every((each) => decode(each) instanceof Ladder))
assert.throws(() => decode(message.subarray(0, LADDER_SIZE + 31)), { code: "length" })
""",
}


@pytest.mark.long
def test_another_kind_is_another_line_in_the_registry(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("generate", ROOT / "languages" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    monkeypatch.setattr(generate, "KINDS", (*generate.KINDS, GAUGE, LADDER))
    for path, text in generate.files().items():
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    assert "| gauge | 250 | every | 176 | a test |" in (tmp_path / "wire.md").read_text(encoding="utf-8")
    assert "| ladder | 251 | every | 112 and 16 an entry, 512 at most |" in (tmp_path / "wire.md").read_text(
        "utf-8"
    )
    assert "#define FH_GAUGE_SIZE 176" in (tmp_path / "feedhandler.h").read_text(encoding="utf-8")
    source = tmp_path / "gauge.c"
    source.write_text(
        '#include "feedhandler.h"\n'
        "static int split_ladders(void) {  /* of two and of no entries */\n"
        "    enum { FIRST = FH_LADDER_SIZE + 32, ALL = FIRST + FH_LADDER_SIZE };\n"
        "    unsigned char bytes[ALL] = {[64] = FH_VERSION, [65] = FH_KIND_LADDER, [104] = 1, [106] = 1,\n"
        "        [FIRST + 64] = FH_VERSION, [FIRST + 65] = FH_KIND_LADDER};\n"
        "    fh_record record;\n"
        "    if (fh_record_size(bytes, ALL) != FIRST) return 1;\n"
        "    if (fh_record_size(bytes + FIRST, ALL - FIRST) != FH_LADDER_SIZE) return 2;\n"
        "    if (fh_record_size(bytes, FIRST - 1) != FIRST - 1) return 3;\n"
        "    if (fh_decode(bytes, FIRST, &record) || record.ladder.asks != 1) return 4;\n"
        "    return !(fh_decode(bytes, FIRST - 1, &record) == FH_ERROR_LENGTH\n"
        "        && fh_decode(bytes, FH_HEADER_SIZE, &record) == FH_ERROR_LENGTH);\n"
        "}\n"
        "int main(void) {\n"
        "    unsigned char bytes[2 * FH_GAUGE_SIZE] =\n"
        "        {[64] = FH_VERSION, [65] = FH_KIND_GAUGE, [104] = 7, [135] = 9, [167] = 0x40};\n"
        "    fh_record record;\n"
        "    size_t size = fh_record_size(bytes, sizeof bytes);\n"
        "    if (fh_decode(bytes, size, &record)) return 1;\n"
        "    if (record.gauge.turn != 7 || split_ladders() || record.gauge.sides[1].price != 2.0) return 2;\n"
        "    return !(record.gauge.turn == 7 && record.gauge.end == 9 && record.header.kind == FH_KIND_GAUGE);\n"
        "}\n",
        encoding="utf-8",
    )
    toolchains.compile_c(source, tmp_path / "gauge")
    run(tmp_path / "gauge")
    for language, command in {
        "rustc": ("--edition", "2018", "-D", "warnings", "--crate-type", "lib", "feedhandler.rs"),
        "go": ("vet", "feedhandler.go"),
        "node": ("--check", "feedhandler.mjs"),
    }.items():
        if program := shutil.which(language):
            run(program, *command, cwd=tmp_path)
    for name, text in SPLIT.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    if program := shutil.which("rustc"):
        run(program, "--edition", "2018", "-D", "warnings", "ladder.rs", cwd=tmp_path)
        run(tmp_path / "ladder")
    if program := shutil.which("go"):
        run(program, "test", "feedhandler.go", "ladder_test.go", cwd=tmp_path)
    if program := shutil.which("node"):
        run(program, "ladder.mjs", cwd=tmp_path)


def test_each_generated_file_says_so_in_its_first_line():
    for name in FILES:
        if name.startswith("languages/"):
            first = (ROOT / name).read_text(encoding="utf-8").splitlines()[0]
            assert "generated by languages/generate.py" in first
            assert "DO NOT EDIT" in first
