"""`feedhandler prod`: a daemon that runs what the configuration says, no more and no less."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness import PATIENCE_S, Stack, free_ports, is_alive, leftovers, programs, wait_until
from natsworld import NATS_SERVER, needs_server

EVERYWHERE = {"supervisord", "sim", "merger", "relay", "gateway"}


@pytest.fixture
def place():
    """A directory whose path leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(prefix="feedhandler-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def production(place):
    """Makes configurations, and ends what was started from them."""
    made = []

    def make(name="", **settings):
        directory = place / name
        directory.mkdir(exist_ok=True)
        made.append(Stack(directory, **settings))
        return made[-1]

    yield make
    for s in made:
        stopped = prod(s, "stop")
        print(stopped.stdout, stopped.stderr)
        for path in s.directory.rglob("*.log"):
            print(f"--- {path.name}\n{path.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def prod(s, action, *arguments):
    return s.run("prod", action, *arguments, "-c", str(s.config))


def running(s):
    """Return the pids of the daemon and its processes, by name."""
    try:
        pid = int((s.directory / "run/supervisord.pid").read_text())
    except (OSError, ValueError):
        return {}
    return programs(SimpleNamespace(pid=pid)) | ({"supervisord": pid} if is_alive(pid) else {})


def shown(answer):
    """Return the processes that are shown as up, by name as `programs` has it."""
    rows = [line.split() for line in answer.stdout.splitlines()]
    return {row[0].removeprefix("feed-"): int(row[2]) for row in rows if len(row) > 3 and row[1] == "up"}


@needs_server
def test_what_runs_is_what_the_configuration_says_and_after_a_change_what_it_says_then(production):
    (port,) = free_ports(1)
    nats = f'[nats]\nservers = ["nats://127.0.0.1:{port}"]\n'
    server = subprocess.Popen([NATS_SERVER, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        extra = {"binance": "shards = 2", "bybit": ""}
        s = production(exchanges=("binance", "bybit"), extra=extra)
        s.config.write_text(s.config.read_text() + nats)
        started = prod(s, "start")
        assert started.returncode == 0, started.stderr
        expected = EVERYWHERE | {"bridge", "binance-1of2", "binance-2of2", "bybit"}
        first = running(s)
        assert {*first} == expected
        assert shown(started) == {
            {"bridge": "bridge-nats"}.get(name, name): pid
            for name, pid in first.items()
            if name != "supervisord"
        }
        s.wait_live()
        status = prod(s, "status")
        assert status.returncode == 0, status.stderr
        assert shown(status) == shown(started)
        assert "binance " in status.stdout
        assert "bybit " in status.stdout
        assert prod(s, "stop").stdout == "stopped\n"
        assert [name for name, pid in first.items() if is_alive(pid)] == []
        assert leftovers(s) == set()

        s = production(exchanges=("binance",), extra=extra)
        assert prod(s, "start").returncode == 0
        assert {*running(s)} == EVERYWHERE | {"binance-1of2", "binance-2of2"}
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def test_nothing_is_started_twice_and_a_check_validates_while_it_runs(production):
    s = production(exchanges=("bybit",))
    assert (prod(s, "stop").returncode, prod(s, "stop").stdout) == (0, "not running\n")
    assert (prod(s, "status").returncode, prod(s, "status").stdout) == (1, "not running\n")
    started = prod(s, "start")
    assert started.returncode == 0, started.stderr
    assert "started; " in started.stdout
    before = running(s)
    for command in (("prod", "start"), ("run",)):
        again = s.run(*command, "-c", str(s.config))
        assert (again.returncode, again.stderr.count("\n")) == (2, 1)
        assert f"runs already in {s.directory}/run/ (supervisor pid {before['supervisord']})" in again.stderr
    check = s.run("check", "-c", str(s.config))
    assert check.returncode == 0, check.stderr
    for name in ("merger", "relay", "gateway", "sim", "feed-bybit"):
        assert f"note: {name} runs already" in check.stdout
    (port,) = free_ports(1)
    with subprocess.Popen([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]) as other:
        try:
            moved = s.directory / "moved.toml"
            moved.write_text(s.config.read_text().replace(f":{s.ports['recover']}", f":{port}"))
            refused = wait_until(
                lambda: (answer := s.run("check", "-c", str(moved))).returncode and answer, "it listens"
            )
            assert f"relay.recover: port {port} on 127.0.0.1: Address already in use" in refused.stderr
        finally:
            other.kill()
    assert running(s) == before


def test_a_process_that_does_not_stay_up_is_named_with_its_last_word(production, monkeypatch):
    monkeypatch.delenv("FEEDHANDLER_API_TOKEN", raising=False)
    s = production(exchanges=("bybit",), gateway='hosts = ["feeds.example"]')
    s.config.write_text(
        s.config.read_text().replace(f"127.0.0.1:{s.ports['gateway']}", f"0.0.0.0:{s.ports['gateway']}")
    )
    started = prod(s, "start")
    assert started.returncode == 1
    assert "gateway did not stay up for 5 s: " in started.stderr
    assert "FEEDHANDLER_API_TOKEN" in started.stderr
    assert "merger did not" not in started.stderr
    s.wait_live()
    assert prod(s, "status").returncode == 1


def test_two_directories_on_one_host_do_not_touch_each_other(production):
    """One of them under a supervisord of somebody's own, from what is printed for it, in another directory."""
    one, other = (production(name, exchanges=("bybit",)) for name in ("one", "other"))
    printed = other.run("supervisord", "-c", str(other.config))
    assert printed.returncode == 0, printed.stderr
    path = other.directory / "own.conf"
    path.write_text(printed.stdout)
    (other.directory / "run" / "log").mkdir(parents=True)
    (other.directory / "run").chmod(0o700)
    with subprocess.Popen(
        [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(path)],
        stdout=subprocess.DEVNULL,
        cwd="/",
    ) as own:
        try:
            assert prod(one, "start").returncode == 0
            other.wait_live()
            before = wait_until(
                lambda: len(shown(prod(other, "status"))) == 5 and running(other), "all of it"
            )
            assert not {*before.values()} & {*running(one).values()}
            assert prod(one, "stop").stdout == "stopped\n"
            assert running(one) == {}
            assert running(other) == before
            assert prod(other, "stop").stdout == "stopped\n"
            assert own.wait(PATIENCE_S) == 0
        finally:
            own.terminate()


def test_in_the_foreground_it_is_the_supervisor_and_ends_by_a_signal(production):
    s = production(exchanges=("bybit",))
    with subprocess.Popen(
        [*s.command, "prod", "start", "--foreground", "-c", str(s.config)], stdout=subprocess.PIPE
    ) as process:
        try:
            everybody = wait_until(lambda: len(all_ := running(s)) == 6 and all_, "everything")
            assert everybody["supervisord"] == process.pid
            os.kill(process.pid, signal.SIGTERM)
            process.stdout.read()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
    assert [name for name, pid in everybody.items() if is_alive(pid)] == []
