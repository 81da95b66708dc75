"""Locks and the instrument cache."""

import os
import subprocess
import sys

import pytest

from feedhandler.errors import ConfigError
from feedhandler.instruments import Instrument, instrument_list
from feedhandler.transport.files import Lock, read_instruments, write_instruments

LISTING = instrument_list("x", 1, [Instrument("AB", "A", "B")])


def test_a_second_owner_is_refused_with_the_pid_of_the_first(tmp_path):
    with Lock(str(tmp_path), "merger"), pytest.raises(ConfigError, match=rf"pid {os.getpid()}"):
        Lock(str(tmp_path), "merger").__enter__()
    assert list(tmp_path.iterdir()) == []
    with Lock(str(tmp_path), "merger"):
        pass


def test_a_directory_that_cannot_be_written_is_a_configuration_error():
    with pytest.raises(ConfigError, match="run_dir: cannot write to /proc/nowhere/"):
        Lock("/proc/nowhere", "merger").__enter__()


def test_a_lock_dies_with_its_owner(tmp_path):
    code = f"""
import os
from feedhandler.transport.files import Lock
Lock({str(tmp_path)!r}, "m").__enter__()
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with Lock(str(tmp_path), "m"):
        pass


def test_an_instrument_list_is_kept_per_host(tmp_path):
    write_instruments(str(tmp_path), "http://127.0.0.1:9101", LISTING)
    assert read_instruments(str(tmp_path), "http://127.0.0.1:9101", "x") == LISTING
    assert read_instruments(str(tmp_path), "https://api.x.com", "x") is None, (
        "a simulator's list is not the real one"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 20000, b"{}"])
def test_a_damaged_cache_is_no_cache(tmp_path, content):
    write_instruments(str(tmp_path), "http://h", LISTING)
    (path,) = (tmp_path / "instruments").iterdir()
    path.write_bytes(content)
    assert read_instruments(str(tmp_path), "http://h", "x") is None
