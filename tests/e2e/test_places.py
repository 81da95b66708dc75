"""Where things are: paths of any spelling, disks without room, files that others remove, whom they belong to."""

import contextlib
import grp
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest
from harness import Stack, wait_until
from patience import PATIENCE_S

import feedhandler
from feedhandler.client import Board
from feedhandler.data.errors import EXIT_FAILED


def test_everything_runs_in_a_place_of_any_spelling(tmp_path):
    """The supervisor's configuration is a format string, where `%` begins an expansion."""
    place = tmp_path / "50% %d"
    place.mkdir()
    s = Stack(place, exchanges=("bybit",))
    # A socket's path has 107 bytes at most: theirs begins in the working directory.
    s.config.write_text(s.config.read_text().replace(f"{place}/", ""))
    for arguments in (("check",), ("run", "--seconds", "2")):
        done = subprocess.run(
            [sys.executable, "-m", "feedhandler", *arguments, "-c", "test.toml"],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "publishing at" in (place / "run/log/merger.log").read_text(), "whose name was not changed"


def test_a_place_that_the_supervisor_cannot_be_told_is_refused_by_check(stack):
    s = stack(exchanges=("bybit",))
    s.config.write_text(s.config.read_text().replace('run"\n', 'my #1 run"\n', 1))
    for command in ("check", "run"):
        done = s.run(command, "-c", str(s.config))
        assert (done.returncode, "use another path" in done.stderr) == (2, True), done.stderr


@pytest.fixture
def processes(stack):
    """A stack of everything but the bridge, live."""
    s = stack(exchanges=("bybit",), symbols=["BTC/USDT"], board=True)
    s.start("sim", "merger", "relay", "bybit", "gateway")
    reader = s.reader(b"ticker.")
    reader.read_until(lambda record: record.is_fresh, "a first record")
    wait_until(lambda: (s.directory / "run/recover.ipc").is_socket(), "the relay's socket")
    wait_until(lambda: (s.directory / "run/gateway.lock").exists(), "the gateway's lock")
    return s


def test_sockets_whose_files_are_removed_are_bound_anew_and_data_flow_after_every_restart(processes):
    s = processes
    run = s.directory / "run"
    sockets = sorted(path.name for path in run.glob("*.ipc"))
    assert sockets == ["batches.ipc", "bybit.ipc", "feeds.ipc", "recover.ipc", "ticks.ipc"]
    for name in sockets:
        (run / name).unlink()
    wait_until(lambda: all((run / name).is_socket() for name in sockets), "they are there again")
    for process in ("bybit", "relay", "gateway"):
        s.kill(process)
        s.start(process)
    for name in ("ticks.ipc", "bybit.ipc"):
        reader = s.reader(b"ticker.", endpoint=f"ipc://{run}/{name}")
        reader.read_until(lambda record: record.is_fresh, f"a record of {name}")
    assert "the file of ipc://" in s.log("merger")
    assert all(process.poll() is None for process in s.processes.values())


def test_locks_that_are_removed_are_taken_anew(processes):
    s = processes
    run = s.directory / "run"
    locks = {path: path.stat().st_ino for path in run.glob("*.lock")}
    assert {path.stem for path in locks} == {"sim", "merger", "relay", "feed-bybit", "gateway"}
    for path in locks:
        path.unlink()
    wait_until(lambda: all(path.exists() for path in locks), "they are there again")
    for command in (("merger",), ("feed", "bybit"), ("gateway",), ("relay",), ("sim",)):
        done = s.run(*command, "-c", str(s.config))
        assert (done.returncode, "runs already" in done.stderr) == (2, True), done.stderr


def test_whatever_is_removed_data_flow_again_once_each_process_was_started_again(processes):
    s = processes
    run = s.directory / "run"
    while run.exists():  # a file may be written while it is emptied
        shutil.rmtree(run, ignore_errors=True)
    ended = wait_until(
        lambda: (
            {name: p.returncode for name, p in s.processes.items() if p.poll() is not None}.keys()
            >= {"merger", "bybit"}
        ),
        "those whose boards and rings are gone end",
    )
    assert ended
    for name in ("merger", "bybit"):
        (line,) = [line for line in s.log(name).splitlines() if "is gone, which readers" in line]
        assert "a new start makes a new one" in line
        assert "Traceback" not in s.log(name)
        s.start(name)
    reader = s.reader(b"ticker.", endpoint=f"ipc://{s.directory}/run/ticks.ipc")
    reader.read_until(lambda record: record.is_fresh, "a record")


@pytest.mark.skipif(
    not feedhandler.IS_COMPILED, reason="without the compiled part it may be a signal that ends them"
)
def test_boards_that_are_cut_short_end_their_writers_with_a_sentence_and_nobody_else(processes):
    s = processes
    boards = [s.directory / "run" / "board" / "bybit.board", s.directory / "run" / "recent.board"]
    wait_until(lambda: all(path.exists() for path in boards), "they are there")
    for path in boards:
        os.truncate(path, 0)
    for name in ("merger", "bybit"):
        process = s.processes[name]
        wait_until(lambda process=process: process.poll() is not None, f"{name} ends")
        assert process.returncode == EXIT_FAILED
        (line,) = [line for line in s.log(name).splitlines() if "was cut short" in line]
        assert "a new start makes a new one" in line
        assert "Traceback" not in s.log(name)
    assert s.processes["relay"].poll() is None
    for name in ("merger", "bybit"):
        s.start(name)
    reader = s.reader(b"ticker.", endpoint=f"ipc://{s.directory}/run/ticks.ipc")
    reader.read_until(lambda record: record.is_fresh, "a record")
    with Board(s.directory / "run") as board:
        wait_until(lambda: any(board.read(topic) for topic in board.topics()), "a record on the new board")


SUBSCRIBER = """
import os, socket, sys
from pathlib import Path
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(65534)
run = Path(sys.argv[1])
for name in sys.argv[3:]:
    try:
        if name.endswith(".ipc"):
            socket.socket(socket.AF_UNIX).connect(str(run / name))
        elif name.endswith("/"):
            list((run / name).iterdir())
        else:
            (run / name).open("rb").close()
        print(name)
    except PermissionError:
        pass
    try:
        (run / name).unlink()
        print("removed", name)
    except (PermissionError, IsADirectoryError):
        pass
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("group", ["", "users"])
def test_a_group_may_subscribe_and_nothing_else(group):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        s = Stack(place, exchanges=("bybit",), symbols=["BTC/USDT"], board=True)
        s.config.write_text(f'group = "{group}"\n' + s.config.read_text())
        before = os.umask(0o002)
        try:
            s.start("sim", "merger", "relay", "bybit", "gateway")
        finally:
            os.umask(before)
        try:
            s.reader(b"ticker.").read_until(lambda record: record.is_fresh, "a first record")
            run = place / "run"
            wait_until(lambda: (run / "recover.ipc").is_socket(), "the relay's socket")
            wait_until(lambda: (run / "api-token").exists(), "the gateway's token")
            names = [str(path.relative_to(run)) + "/" * path.is_dir() for path in run.rglob("*")]
            assert {"feeds.ipc", "merger.lock", "recent.board", "api-token"} < {*names}
            gid = str(grp.getgrnam(group or "users").gr_gid)
            done = subprocess.run(
                [sys.executable, "-c", SUBSCRIBER, str(run), gid, *names],
                capture_output=True,
                text=True,
                check=True,
            )
            shared = {"ticks.ipc", "batches.ipc", "recover.ipc", "bybit.ipc", "board/", "board/bybit.board"}
            assert {*done.stdout.split("\n")} - {""} == (shared if group else set())
            for path in [run, *run.rglob("*")]:
                mode = stat.S_IMODE(path.lstat().st_mode)
                assert not mode & 0o007, path
                is_shared = str(path.relative_to(run)) in {each.rstrip("/") for each in shared} or path == run
                assert not mode & 0o070 or (group and is_shared), path
        finally:
            s.close()


def without_room(s, command, size=0, **environment):
    """Run a command that may write files of so many bytes, as if the disk were full then."""
    return subprocess.run(
        [sys.executable, "-m", "feedhandler", *command, "-c", str(s.config)],
        env={**os.environ, **environment},
        # Without the limit's signal, which Python ignores, what comes is an error like that of a full disk.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


PROCESSES = [["merger"], ["relay"], ["gateway"], ["feed", "bybit"], ["bridge", "nats"], ["sim"], ["run"]]


@pytest.mark.parametrize("command", PROCESSES, ids=" ".join)
@pytest.mark.parametrize("is_supervised", [False, True], ids=["alone", "supervised"])
def test_a_disk_without_room_at_the_start_is_one_sentence_and_status_2(stack, command, is_supervised):
    s = stack(exchanges=("bybit",))
    s.config.write_text(s.config.read_text() + "[nats]\n")
    done = without_room(s, command, **({"FEEDHANDLER_SUPERVISED": "1"} if is_supervised else {}))
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"run_dir: cannot write to {s.directory}/run/: File too large; make room" in line
    assert "raceback" not in line


@pytest.mark.parametrize("command", ["gateway", "run"])
def test_a_disk_with_room_for_a_lock_and_nothing_else_is_one_sentence_and_status_2(stack, command):
    s = stack(exchanges=("bybit",))
    done = without_room(s, [command], size=16)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "annot be written: File too large" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_disk_that_fills_up_while_a_process_starts_is_one_sentence(stack):
    s = stack(exchanges=("bybit",))
    run = s.directory / "run"
    run.mkdir(0o700)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k,mode=700", "tmpfs", str(run)], check=False
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (run / "filler").write_bytes(bytes(4096))
        for command in PROCESSES[:4]:
            done = s.run(*command, "-c", str(s.config))
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
            assert "No space left on device; make room" in done.stderr
    finally:
        subprocess.run(["umount", str(run)], check=True)


def test_a_terminal_that_is_closed_ends_each_process_cleanly(processes):
    s = processes
    for name in s.processes:
        assert s.kill(name, signal.SIGHUP) == 0, s.log(name)
        assert "Traceback" not in s.log(name)


def test_the_gateway_tells_that_no_descriptor_is_left_and_goes_on_when_there_are_some_again(stack):
    s = stack(exchanges=("bybit",))
    s.start("gateway")
    resource.prlimit(s.processes["gateway"].pid, resource.RLIMIT_NOFILE, (48, 48))

    def is_answered():
        try:
            with urllib.request.urlopen(f"{s.gateway}/live", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    wait_until(is_answered, "the gateway listens")
    with contextlib.ExitStack() as connections:
        for _ in range(60):
            with contextlib.suppress(OSError):
                connections.enter_context(socket.create_connection(("127.0.0.1", s.ports["gateway"]), 5))
        wait_until(lambda: "no file descriptor is left" in s.log("gateway"), "it tells")
        assert s.processes["gateway"].poll() is None
    wait_until(is_answered, "it answers again")
    assert s.kill("gateway", signal.SIGTERM) == 0
