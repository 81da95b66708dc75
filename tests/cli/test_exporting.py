"""`feedhandler export` on a terminal, and what it says."""

import os
import pty
import subprocess
import sys

import pytest
from patience import PATIENCE_S
from small_recording import small

from feedhandler.cli import main


def test_it_says_what_has_come_of_it(tmp_path, capsys):
    arguments = ["export", str(small(tmp_path / "r")), "--to", str(tmp_path / "out"), "--jobs", "1"]
    assert main.main(arguments) == 0
    told = capsys.readouterr()
    assert told.out.startswith("69 records: 81 rows, ")
    assert "1 gaps in the recording" in told.out
    assert not told.err
    assert main.main(arguments) == 0
    assert capsys.readouterr().out == "2 of the recordings' runs were there already\n"
    assert main.main([*arguments, "--quiet"]) == 0
    assert not capsys.readouterr().out


def test_it_tells_of_which_symbols_there_is_nothing(tmp_path, capsys):
    arguments = ["export", str(small(tmp_path / "r")), "--to", str(tmp_path / "out"), "--jobs", "1"]
    assert main.main([*arguments, "--symbols", "BTC/USDT,ETH/USDT,BTC/USTD"]) == 0
    told = capsys.readouterr()
    assert told.err == "feedhandler: there is nothing of BTC/USTD in these kinds\n"
    assert told.out.startswith("69 records: ")


@pytest.mark.long
def test_on_a_terminal_there_is_a_bar(tmp_path):
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "feedhandler",
        "export",
        str(small(tmp_path / "r")),
        "--to",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen([*command, "--jobs", "1"], stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:
        pass  # its end is closed
    out, _ = process.communicate(timeout=PATIENCE_S)
    os.close(ours)
    assert process.returncode == 0
    assert b"records" in shown
    assert "81 rows" in out
