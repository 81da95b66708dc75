"""The programs in docs/board.md, as they stand there, against a board that is being written."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from patience import PATIENCE_S

from feedhandler.data import board_layout, wire
from feedhandler.transport.boards import BoardWriter, board_path

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "board.md").read_text(encoding="utf-8")
TOPIC = "ticker.binance.BTC/USDT"


def program(language):
    (text,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return text


@contextlib.contextmanager
def written(run):
    """Write bids of 100, 101, ... and asks of 0.5 more until the block is left; then end, as a feed does."""
    writer = BoardWriter(board_path(run, "binance"), slots_max=8)
    slot = writer.slot(TOPIC)
    enough = threading.Event()

    def write():
        number = 0
        while not enough.wait(0.002):
            number += 1
            writer.beat()
            ticker = wire.Ticker(TOPIC, sequence=number, bid=99.0 + number, ask=99.5 + number)
            slot.write(wire.pack_ticker(ticker), number)

    write_one = threading.Thread(target=write)
    write_one.start()
    try:
        yield
    finally:
        enough.set()
        write_one.join()
        writer.close()


NEWEST_AT = board_layout.HEADER_SIZE + board_layout.NEWEST_OFFSET  # of the first slot


def lines_until(process, count):
    lines = []
    while len(lines) < count and (line := process.stdout.readline()):
        lines.append(line.strip())
    assert len(lines) == count, process.stderr and process.stderr.read()
    return lines


def test_the_program_in_python_runs(tmp_path):
    pytest.importorskip("numpy")
    path = tmp_path / "look.py"
    path.write_text(program("python"), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with written(tmp_path / "run"):
        while not (tmp_path / "run/board/binance.board").read_bytes()[NEWEST_AT]:
            pass
        process = subprocess.Popen(
            [sys.executable, path],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        first, *lines = lines_until(process, 13)
        *lines, topics, array = lines
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, "")
    assert re.fullmatch(r"\d+\.0 \d+\.5", first), "and no flags"
    for line in lines:
        sequence, bid, ask = line.split()
        assert float(bid) == 99.0 + int(sequence) == float(ask) - 0.5
    assert topics.startswith("['ticker.binance.BTC/USDT'] ")
    assert array.startswith("[b'ticker.binance.BTC/USDT'] ")


def test_the_program_in_c_runs(tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, binary = tmp_path / "look.c", tmp_path / "look"
    source.write_text(program("c"), encoding="utf-8")
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run([compiler, *flags, "-I", ROOT / "languages" / "c", "-o", binary, source], check=True)
    stdbuf = shutil.which("stdbuf")
    command = [stdbuf, "-oL", binary] if stdbuf else [binary]
    with written(tmp_path / "run"):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        lines = lines_until(process, 20)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, "it ends when the writer has ended"
    for line in lines[1:]:  # it may have come before the first record
        bid, ask = re.fullmatch(r"bid (\S+) ask (\S+)", line).groups()
        assert float(bid) == float(ask) - 0.5 >= 100.0
