"""What belongs to one user alone, whatever the umask is."""

import contextlib
import os
import stat
import subprocess
import sys
import time

import pytest

from feedhandler.data.errors import ConfigError
from feedhandler.data.instruments import instrument_list
from feedhandler.transport import private
from feedhandler.transport.files import Lock, change_wanted, write_instruments, write_positions


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022])
def test_folders_and_files_are_their_users_alone(tmp_path, mask):
    run = tmp_path / "deep" / "run"
    with umask(mask), Lock(str(run), "merger"):
        change_wanted(str(run), "bybit", lambda wanted: wanted.replace("a", ["BTC/USDT"]))
        write_positions(str(run), [])
        write_instruments(str(run), "http://h", instrument_list("x", 1, []))
        for path in (tmp_path / "deep").rglob("*"):
            assert mode(path) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("open_mode", [0o775, 0o777, 0o1777, 0o722])
def test_a_run_dir_that_others_may_write_is_refused_with_the_remedy(tmp_path, open_mode):
    run = tmp_path / "run"
    run.mkdir()
    run.chmod(open_mode)
    with pytest.raises(ConfigError, match=rf"others may write to {run}/ .*`chmod 700 {run}`"):
        Lock(str(run), "merger").__enter__()
    run.chmod(0o700)
    with Lock(str(run), "merger"):
        pass


def test_a_folder_like_tmp_may_be_above_it_and_one_without_the_sticky_bit_not(tmp_path):
    tmp_path.chmod(0o1777)
    with Lock(str(tmp_path / "run"), "merger"):
        pass
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match=rf"everybody may replace what is in {tmp_path}/"):
        Lock(str(tmp_path / "run"), "merger").__enter__()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_a_run_dir_of_somebody_else_is_refused(tmp_path):
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to user 12345, not to"):
        Lock(str(tmp_path), "merger").__enter__()


def test_what_an_older_version_left_open_is_closed(tmp_path):
    (tmp_path / "wanted").mkdir()
    (tmp_path / "wanted" / "bybit.json").write_text("{}")
    (tmp_path / "merger.lock").write_text("1\n")
    for path, was in ((tmp_path, 0o755), (tmp_path / "wanted", 0o755), (tmp_path / "merger.lock", 0o644)):
        path.chmod(was)
    (tmp_path / "wanted" / "bybit.json").chmod(0o664)
    with Lock(str(tmp_path), "merger"):
        for path in (tmp_path / "wanted", tmp_path / "merger.lock", tmp_path / "wanted" / "bybit.json"):
            assert not mode(path) & 0o077, path
        assert not mode(tmp_path) & 0o067


def test_a_link_is_not_followed(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    run = tmp_path / "run"
    run.mkdir(0o700)
    (run / "wanted").mkdir()
    for name in ("merger.lock", "wanted/bybit.json", "wanted/bybit.lock", "wanted/positions.json"):
        (run / name).symlink_to(theirs)
    with pytest.raises(ConfigError, match="run_dir: cannot write to"):
        Lock(str(run), "merger").__enter__()
    with pytest.raises(ConfigError, match=r"bybit\.json"):
        change_wanted(str(run), "bybit", lambda wanted: None)
    write_positions(str(run), [])
    assert not (run / "wanted/positions.json").is_symlink()
    assert theirs.read_text() == "precious"


@pytest.mark.e2e
def test_a_file_is_replaced_whole_or_not_at_all_and_what_a_killed_one_left_is_removed(tmp_path):
    path = tmp_path / "x.json"
    private.write_whole(path, b"old")
    code = f"""
import os, pathlib, tempfile
from feedhandler.transport import private
os.fsync = lambda fd: os.kill(os.getpid(), 9)
private.write_whole(pathlib.Path({str(path)!r}), b"new")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert path.read_bytes() == b"old"
    (left,) = tmp_path.glob(".x.json.*.tmp")
    private.take_over(tmp_path)
    assert left.exists(), "it may just be written"
    os.utime(left, (time.time() - 3600,) * 2)
    private.take_over(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_group_that_is_not_there_is_refused():
    assert private.group_of("", "group") == private.NOBODY
    with pytest.raises(ConfigError, match="group: 'nobody-has-this' is no group of this host"):
        private.group_of("nobody-has-this", "group")
