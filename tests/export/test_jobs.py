"""What is to be exported, and what has been: an end anywhere is resumed, and doing it twice changes nothing."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from lazily import research
from patience import PATIENCE_S
from small_recording import T0, binance_items, listed, opened, plan, put, received, small, trade

from feedhandler.cli import main
from feedhandler.export import jobs, work
from feedhandler.recordings.directory import LOCK


def export(source, out, *arguments):
    return main.main(["export", str(source), "--to", str(out), "--quiet", "--jobs", "1", *arguments])


def contents(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path):
    small(tmp_path / "r")
    assert export(tmp_path / "r", tmp_path / "out") == 0
    return tmp_path


@pytest.fixture
def done(monkeypatch):
    """The names of the jobs that are done from here on."""
    names, do = [], work.do
    monkeypatch.setattr(work, "do", lambda job, *rest: names.append(job.name) or do(job, *rest))
    return names


def test_done_twice_is_done_once(place, done):
    before = contents(place / "out")
    assert export(place / "r", place / "out") == 0
    assert not done
    assert contents(place / "out") == before


def test_nothing_is_left_beside_the_files_and_the_manifest(place):
    names = {path.name for path in (place / "out").iterdir()}
    assert {name for name in names if not name.startswith("kind=")} == {"manifest.json"}


def test_a_manifest_says_what_input_gave_what_output(place):
    manifest = json.loads((place / "out" / "manifest.json").read_text())
    entry = manifest["runs"]["kucoin-20260921T141320.000000005Z"]
    (given,), (made,) = entry["inputs"], entry["outputs"]
    path = place / "r" / given["name"]
    assert (given["size"], given["sha256"]) == (path.stat().st_size, jobs.digest(path))
    assert (made["rows"], made["size"]) == (20, (place / "out" / made["path"]).stat().st_size)
    assert manifest["runs"]["binance-20260921T141320.000000000Z"]["missing"] == 3


def test_a_copy_of_the_recording_is_the_same_one(place, done):
    for path in (place / "r").rglob("*.segment"):
        os.utime(path, ns=(1, 1))
    (place / "r").rename(place / "elsewhere")
    assert export(place / "elsewhere", place / "out") == 0
    assert not done


def test_a_recording_that_has_grown_replaces_what_was_made_of_it(place, done):
    items = [received(61, T0 + 2 * 10**9, trade(90))]
    put(place / "r", "binance", T0 + 2 * 10**9, [plan("binance", T0, is_again=True), *items])
    assert export(place / "r", place / "out") == 0
    assert done == ["binance-20260921T141320.000000000Z"]
    found = research.read(place / "out", exchanges="binance", to="arrow").to_pylist()
    assert [row["sequence"] for row in found] == list(range(1, 21))
    assert export(place / "r", place / "fresh") == 0
    assert contents(place / "fresh") == contents(place / "out")


def test_what_was_being_written_and_is_torn_since_has_a_gap(tmp_path):
    items = [received(1, T0, trade(1))]
    put(tmp_path / "r", "binance", T0, [plan("binance", T0), listed(), opened()], items, is_closed=False)
    with (tmp_path / "r" / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert export(tmp_path / "r", tmp_path / "out") == 0
        assert research.kinds(tmp_path / "out") == ["trade"]
    assert export(tmp_path / "r", tmp_path / "out") == 0
    (gap,) = research.read(tmp_path / "out", kind="gap", to="arrow").to_pylist()
    assert gap["reason"] == "the end is torn off"


def test_a_file_that_is_gone_or_changed_is_made_again(place, done):
    path = next((place / "out" / "kind=trade" / "exchange=kucoin").rglob("*.parquet"))
    before = contents(place / "out")
    path.unlink()
    assert export(place / "r", place / "out") == 0
    assert len(done) == 1
    assert contents(place / "out") == before


def test_other_kinds_are_added(tmp_path, done):
    small(tmp_path / "r")
    assert export(tmp_path / "r", tmp_path / "out", "--kinds", "trade") == 0
    assert research.kinds(tmp_path / "out") == ["gap", "trade"]
    assert export(tmp_path / "r", tmp_path / "out", "--kinds", "ticker") == 0
    assert research.kinds(tmp_path / "out") == ["gap", "ticker", "trade"]
    assert export(tmp_path / "r", tmp_path / "out", "--kinds", "trade,ticker") == 0
    assert len(done) == 4


@pytest.mark.long
def test_what_retention_has_taken_stays_exported_and_the_rest_is_added(place, done):
    """Also if the last segment was still being written then."""
    first, second = sorted((place / "r" / "binance").iterdir())
    rows = research.read(place / "out", exchanges="binance", to="arrow").num_rows
    first.unlink()
    assert export(place / "r", place / "out") == 0
    assert not done
    items = [received(61, T0 + 2 * 10**9, trade(90)), received(62, T0 + 2 * 10**9 + 1, trade(91))]
    put(
        place / "r",
        "binance",
        T0 + 2 * 10**9,
        [plan("binance", T0, is_again=True), opened(is_again=True), *items],
    )
    assert export(place / "r", place / "out") == 0
    assert done == ["binance-20260921T141322.000000000Z"]
    found = research.read(place / "out", exchanges="binance", to="arrow").to_pylist()
    assert len(found) == rows + 2
    more = [*binance_items(20)[33:], received(61, T0 + 10**8, trade(77))]
    put(place / "r", "binance", T0 + 10**9, [plan("binance", T0, is_again=True), opened(is_again=True)], more)
    assert second.exists()
    assert export(place / "r", place / "out") == 0
    found = research.read(place / "out", exchanges="binance", to="arrow").to_pylist()
    ids = [row["trade_id"] for row in found]
    assert len(ids) == len(set(ids)) == rows + 3
    assert export(place / "r", place / "out") == 0
    assert len(done) == 2


def test_kinds_of_what_is_gone_cannot_be_had(tmp_path, capsys):
    small(tmp_path / "r")
    assert export(tmp_path / "r", tmp_path / "out", "--kinds", "trade") == 0
    sorted((tmp_path / "r" / "binance").iterdir())[0].unlink()
    assert export(tmp_path / "r", tmp_path / "out", "--kinds", "trade,book") == 2
    assert "without book" in capsys.readouterr().err


def test_the_same_options_for_all_of_a_directory(place, capsys):
    for arguments in (["--symbols", "ETH/USDT"], ["--books", "depth"], ["--format", "tardis"]):
        assert export(place / "r", place / "out", *arguments) == 2
        assert "name another directory" in capsys.readouterr().err


def test_a_directory_of_others_is_left_alone(tmp_path, capsys):
    small(tmp_path / "r")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert export(tmp_path / "r", tmp_path / "out") == 2
    assert "has files" in capsys.readouterr().err
    for text in ("{", '{"version": 9, "options": {}}'):
        (tmp_path / "out" / "manifest.json").write_text(text)
        assert export(tmp_path / "r", tmp_path / "out") == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere"],
        ["r", "--kinds", "trades"],
        ["r", "--symbols", "BTCUSDT"],
        ["r", "--exchange", "mtgox"],
        ["r", "--exchanges", "mtgox"],
        ["r", "--jobs", "-1"],
        ["r/binance/none.segment"],
    ],
)
def test_what_cannot_be_is_refused(tmp_path, arguments, monkeypatch):
    small(tmp_path / "r")
    monkeypatch.chdir(tmp_path)
    assert export(arguments[0], "out", *arguments[1:]) == 2


def test_what_is_no_recording_is_refused(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("hello\n")
    assert export(tmp_path / "a.txt", tmp_path / "out") == 2
    assert "no recording" in capsys.readouterr().err


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    small(tmp_path / "r")
    for name in [name for name in sys.modules if name.startswith(("pyarrow", "feedhandler.export.parquet"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "feedhandler.export.tables", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert export(tmp_path / "r", tmp_path / "out") == 2
    assert "pip install" in capsys.readouterr().err
    assert export(tmp_path / "r", tmp_path / "csv", "--format", "tardis") == 0


@pytest.mark.long
def test_a_full_disk_is_told_and_the_same_command_goes_on(tmp_path):
    """A limit of the size of files stands for it."""
    small(tmp_path / "r")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        "from feedhandler.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["export", str(tmp_path / "r"), "--to", str(tmp_path / "out"), "--jobs", "1"]
    shown = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert shown.returncode == 2, shown
    assert "make room" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert export(tmp_path / "r", tmp_path / "out") == 0
    assert export(tmp_path / "r", tmp_path / "fresh") == 0
    assert contents(tmp_path / "fresh") == contents(tmp_path / "out")


@pytest.mark.e2e
def test_the_same_comes_of_any_number_of_processes(tmp_path):
    small(tmp_path / "r")
    put(tmp_path / "r", "binance", T0 + 10**10, [plan("binance", T0 + 10**10), listed(), opened()])
    for count in ("1", "3"):
        arguments = ["export", str(tmp_path / "r"), "--to", str(tmp_path / count), "--quiet", "--jobs", count]
        assert main.main(arguments) == 0
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def command_of(tmp_path):
    """The export of recordings in "r" to "out", as a process of its own."""
    words = ("export", tmp_path / "r", "--to", tmp_path / "out")
    return [sys.executable, "-m", "feedhandler", *map(str, words)]


@pytest.mark.e2e
def test_interrupted_it_says_so_and_goes_on(tmp_path):
    items = binance_items(4_000)
    put(tmp_path / "r", "binance", T0, [plan("binance", T0), listed(), opened()], items)
    put(tmp_path / "r", "binance", T0 + 10**10, [plan("binance", T0 + 10**10), listed(), opened()], items)
    command = command_of(tmp_path)
    process = subprocess.Popen([*command, "--jobs", "2"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and not any((tmp_path / "out").rglob("*.parquet")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, told) == (1, "feedhandler: stopped; the same command goes on\n")
    assert export(tmp_path / "r", tmp_path / "out") == 0


@pytest.mark.e2e
def test_killed_anywhere_it_goes_on(tmp_path):
    """Whatever stands there under its own name is complete."""
    items = binance_items(1000)
    put(tmp_path / "r", "binance", T0, [plan("binance", T0), listed(), opened()], items)
    small(tmp_path / "r2")
    (tmp_path / "r2" / "kucoin").rename(tmp_path / "r" / "kucoin")
    assert export(tmp_path / "r", tmp_path / "fresh") == 0
    command = command_of(tmp_path)
    for attempt in range(4):
        process = subprocess.Popen([*command, "--jobs", str(1 + attempt % 2)], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and process.poll() is None:
            if (tmp_path / "out").exists() and any((tmp_path / "out").rglob(".parts/*/*")):
                break
            time.sleep(0.001)
        time.sleep(0.006 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
        expected = contents(tmp_path / "fresh")
        there = {name: data for name, data in contents(tmp_path / "out").items() if name.startswith("kind=")}
        assert there.items() <= expected.items()
    assert export(tmp_path / "r", tmp_path / "out") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
