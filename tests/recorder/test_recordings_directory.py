"""The directory that is recorded to: who may have it, what is noted in its manifest, and what is removed."""

import errno
import os
from pathlib import Path

import pytest

from feedhandler.data.errors import ConfigError
from feedhandler.recorder.disk import RecordingsDirectory
from feedhandler.recordings import directory, packing
from feedhandler.recordings.segments import SegmentWriter
from feedhandler.recordings.traffic import Item, What

T0 = 1_790_000_000_000_000_000
KEY = "x.toml: recorder.directory"


def entered(path):
    return RecordingsDirectory(str(path), KEY)


def write(disk, feed="binance", begun_ns=T0, frames=3, reason="time"):
    """Write a segment; reason "": it is torn, as by a kill."""
    path, file = disk.open(feed, begun_ns)
    with file:
        writer = SegmentWriter(file, begun_ns)
        writer.add(
            packing.packed(
                Item(What.RECEIVED, begun_ns, connection="spot.1", number=n + 1) for n in range(frames)
            )
        )
        writer.flush()
        if reason:
            disk.closed(path, writer.close(reason), writer.size)
    return path


def events(path):
    return [(entry.event, entry.path) for entry in directory.manifest(path) if entry.path]


def test_a_directory_is_made_for_its_user_alone(tmp_path):
    with entered(tmp_path / "a" / "b") as disk:
        assert disk.path.stat().st_mode & 0o777 == 0o700
        assert disk.free() > 0


def test_one_recorder_has_a_directory(tmp_path):
    with entered(tmp_path):
        assert directory.is_recorded(tmp_path)
        with pytest.raises(ConfigError, match=rf"{KEY}: another recorder writes .*pid {os.getpid()}.*; stop"):
            entered(tmp_path).__enter__()
    assert not directory.is_recorded(tmp_path)
    with entered(tmp_path):
        pass


def test_what_cannot_be_a_directory_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(ConfigError, match=f"^{KEY}: cannot write to .*; set another directory$"):
            entered(path).__enter__()


def test_a_full_disk_is_told_apart(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match="No space left on device; make room"):
        entered(tmp_path).__enter__()
    assert not directory.is_recorded(tmp_path), "nothing is held after that"


def test_a_segment_that_is_closed_is_noted_with_what_it_holds(tmp_path):
    with entered(tmp_path) as disk:
        path = write(disk)
        (entry,) = directory.manifest(tmp_path)
        assert (entry.event, entry.path, entry.received) == ("closed", path, 3)
        assert entry.size == (tmp_path / path).stat().st_size == disk.size


def test_what_a_killed_recorder_left_is_noted_once_and_stays_as_it_is(tmp_path):
    with entered(tmp_path) as disk:
        torn = write(disk, reason="")
        whole = write(disk, begun_ns=T0 + 1, reason="time")
        empty, file = disk.open("binance", T0 + 2)
        file.close()
    lines = (tmp_path / directory.MANIFEST).read_bytes().splitlines(keepends=True)
    (tmp_path / directory.MANIFEST).write_bytes(b"".join(lines[:-1]) + b'{"event":"clo')  # of a torn manifest
    before = {path: (tmp_path / path).read_bytes() for path in (torn, whole, empty)}
    with entered(tmp_path) as disk:
        assert disk.recover() == 2
        assert disk.size == sum(map(len, before.values()))
    with entered(tmp_path) as disk:
        assert disk.recover() == 0
    assert sorted(events(tmp_path)) == sorted([("torn", torn), ("closed", whole), ("torn", empty)])
    assert {path: (tmp_path / path).read_bytes() for path in before} == before


def test_what_is_given_up_with_nothing_in_it_is_removed(tmp_path):
    with entered(tmp_path) as disk:
        path, file = disk.open("binance", T0)
        file.close()
        disk.given_up(path, 0, "full", is_empty=True)
        assert not (tmp_path / path).exists()
        kept = write(disk, begun_ns=T0 + 1, reason="")
        disk.given_up(kept, 1, "full", is_empty=False)
        assert events(tmp_path) == [("torn", kept)]


def test_the_oldest_are_removed_and_noted_but_nothing_else(tmp_path):
    with entered(tmp_path) as disk:
        paths = [write(disk, begun_ns=T0 + n) for n in range(4)]
        being_written, file = disk.open("kucoin", T0 - 1)
        (tmp_path / "binance" / "notes.txt").write_text("mine")
        sizes = [(tmp_path / path).stat().st_size for path in paths]
        disk.remove_expired(T0, max_age_ns=0, max_size=sum(sizes[2:]), open_size=0)
        file.close()
        assert [event for event in events(tmp_path) if event[0] == "removed"] == [
            ("removed", path) for path in paths[:2]
        ]
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file()}
        assert left == {
            *paths[2:],
            being_written,
            "binance/notes.txt",
            directory.MANIFEST,
            directory.LOCK,
        }
        assert disk.size == sum(sizes[2:])


def test_a_directory_that_is_gone_is_not_made_anew(tmp_path):
    """It may have been that of a disk that is gone, and the one below it is small."""
    path = tmp_path / "mounted"
    with entered(path) as disk:
        for each in path.iterdir():
            each.unlink()
        path.rmdir()
        with pytest.raises(FileNotFoundError):
            disk.open("binance", T0)
        assert not path.exists()
