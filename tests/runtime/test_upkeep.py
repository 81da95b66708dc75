"""What a running process does for its files."""

import errno
import os

import pytest

from feedhandler.data.errors import ConfigError
from feedhandler.runtime import config
from feedhandler.runtime.upkeep import YOUNG_EVERY_S, Upkeep
from feedhandler.transport.files import Lock

DAYS_AGO = 1_700_000_000


def settings(tmp_path, ticks):
    text = f'run_dir = "{tmp_path}/run"\n[exchanges.bybit]\ndirect = []\n[merger]\nticks = ["{ticks}"]\n'
    return config.parse(text, "x.toml")


def test_files_in_use_look_used_and_are_not_changed(tmp_path):
    (tmp_path / "run" / "wanted").mkdir(parents=True)
    paths = [
        tmp_path / "elsewhere.ipc",
        tmp_path / "run" / "merger.lock",
        tmp_path / "run" / "wanted" / "x.json",
    ]

    def age():
        for path in paths:
            path.write_text("content")
            os.utime(path, (DAYS_AGO, DAYS_AGO))

    upkeep = Upkeep(settings(tmp_path, f"ipc://{paths[0]}"))
    age()
    upkeep.on_time(1.0)
    assert all(path.stat().st_mtime > DAYS_AGO and path.read_text() == "content" for path in paths)
    age()
    upkeep.on_time(YOUNG_EVERY_S)
    assert all(path.stat().st_mtime == DAYS_AGO for path in paths), "an hour has not passed"
    upkeep.on_time(YOUNG_EVERY_S + 1.0)
    assert all(path.stat().st_mtime > DAYS_AGO for path in paths)


def test_it_looks_each_second_however_often_it_is_called(tmp_path):
    looks = []
    upkeep = Upkeep(settings(tmp_path, "ipc://@x"), lambda: looks.append(1))
    for tenth in range(10, 31):
        upkeep.on_time(tenth / 10)
    assert len(looks) == 3


def test_that_no_descriptor_is_left_is_told_once_a_minute(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    upkeep = Upkeep(settings(tmp_path, "ipc://@x"))
    monkeypatch.setattr(os, "open", refuse)
    for second in range(100, 190):
        upkeep.on_time(float(second))
    assert [record.getMessage() for record in caplog.records] == [
        "no file descriptor is left (Too many open files): connections are turned away (see `ulimit -n`)"
    ] * 2


def test_a_lock_that_somebody_else_has_taken_meanwhile_ends_the_process(tmp_path):
    with Lock(str(tmp_path), "merger") as mine:
        (tmp_path / "merger.lock").unlink()
        with Lock(str(tmp_path), "merger"), pytest.raises(ConfigError, match="merger runs already"):
            mine.look()
