"""Writers killed in mid-write, again and again, while readers in Python and in C look: nobody ever sees a mixture.

Each record's numbers are all made of one, so that a mixture of two shows. `BOARD_KILLS` in the environment sets how
many writers of each kind are killed.
"""

import os
import random
import shutil
import signal
import subprocess
import time
import warnings
from pathlib import Path

import pytest
import twins
from patience import PATIENCE_S

from feedhandler.data import board_layout, wire

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
TOPIC = "ticker.x.A/B"
KILLS = int(os.environ.get("BOARD_KILLS", "50"))
READS = 200  # between two kills, at least


def record(number):
    return wire.TICKER_RECORD.pack(
        b"native",
        wire.VERSION,
        wire.TICKER,
        number & 0x7FFF,
        number & 0xFFFFFFFF,
        number,
        number,
        number,
        0,
        number,
        *[float(number)] * 10,
    )


def is_whole(found):
    topic, version, kind, flags, session, number, *rest = wire.TICKER_RECORD.unpack(found)
    assert (wire.unpadded(topic), version, kind) == (TOPIC, wire.VERSION, wire.TICKER)
    return (flags, session) == (number & 0x7FFF, number & 0xFFFFFFFF) and rest == [number] * 14


def write_for_ever(path, kind, depth):
    """What a writer process does: it writes, and beats sometimes. Never returns."""
    records = [(number, record(number)) for number in range(1, 2000)]
    writer = twins.of(kind).BoardWriter(path, depth=depth, slots_max=4)
    slot = writer.slot(TOPIC)
    while True:
        writer.beat()
        for number, each in records:
            slot.write(each, number)


def start(path, kind, depth):
    pid = os.fork()
    if pid:
        return pid
    try:
        write_for_ever(path, kind, depth)
    finally:
        os._exit(1)


def await_reader(path, before, kind):
    """Return a reader of another file than before, which has records."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            reader = twins.of(kind).BoardReader(path)
        except (FileNotFoundError, *twins.DECODE_ERRORS):
            continue
        if (before is None or reader._inode != before._inode) and reader.topics() and reader.number(0):
            return reader
    raise AssertionError("no writer has come")


def unfinished(reader):
    """Return how many cells were being written when their writer was killed."""
    at = range(
        board_layout.HEADER_SIZE + board_layout.SLOT_HEADER_SIZE,
        board_layout.HEADER_SIZE + reader.layout.slot_size,
        board_layout.CELL_SIZE,
    )
    return sum(reader._file[offset] & 1 for offset in at)


@pytest.fixture
def c_reader(tmp_path):
    """The program that reads in C; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        warnings.warn("no C compiler: the reader in C was not tested", stacklevel=1)
        return None
    program = tmp_path / "reader"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    source = ROOT / "tests" / "board_reader.c"
    subprocess.run([compiler, *flags, "-I", ROOT / "languages" / "c", "-o", program, source], check=True)
    return program


@pytest.mark.parametrize("kind", twins.FORMS)
@pytest.mark.parametrize("depth", [2, 5])
def test_no_killed_writer_leaves_a_mixture_or_keeps_a_reader(tmp_path, c_reader, kind, depth):
    path = tmp_path / "x.board"
    rng = random.Random(depth)
    readers = twins.FORMS
    in_c = c_reader and subprocess.Popen(
        [c_reader, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    reader = None
    in_the_writing = reads = 0
    pids = []
    try:
        for kill in range(KILLS):
            pids.append(start(path, kind, depth))
            reader = await_reader(path, reader, readers[kill % len(readers)])
            for _ in range(READS + rng.randrange(READS)):
                assert is_whole(reader.newest(0))
                reads += 1
            os.kill(pids[-1], signal.SIGKILL)
            os.waitpid(pids.pop(), 0)
            in_the_writing += unfinished(reader)
            assert unfinished(reader) <= 1
            newest = reader.number(0)
            kept = [reader.record(0, number) for number in range(newest - depth, newest + 2)]
            assert all(is_whole(each) for each in kept if each is not None)
            assert kept[-2] is not None
            assert sum(each is not None for each in kept) >= min(newest, depth - 1)
            assert is_whole(reader.newest(0)), "at once: nobody waits for the dead"
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if in_c:
            out, _ = in_c.communicate("", timeout=PATIENCE_S)
    print(f"{kind}, depth {depth}: {reads} reads, {in_the_writing} of {KILLS} killed in mid-write")
    assert in_the_writing or kind == "imported" or KILLS < 20, (
        "compiled, it is rarely met in the middle of a write"
    )
    if in_c:
        assert in_c.returncode == 0
        reads, torn, files = map(int, out.split())
        print(f"in C: {reads} reads of {files} files")
        assert (torn, files > 0, reads > 0) == (0, True, True)


def test_the_header_in_c_has_the_same_layout():
    text = (ROOT / "languages" / "c" / "board.h").read_text(encoding="utf-8")
    numbers = {
        words[0].removeprefix("FH_BOARD_"): int(words[2].rstrip(","))
        for line in text.splitlines()
        if len(words := line.split()) == 3 and words[1] == "=" and words[0].startswith("FH_BOARD_")
    }
    ours = {**vars(board_layout), "WIRE_VERSION": wire.VERSION, "RECORD_SIZE": wire.TICKER_SIZE}
    ours["TOPIC_SIZE"] = wire.TOPIC_SIZE
    assert numbers == {name: ours[name] for name in numbers}
    assert len(numbers) == 17
