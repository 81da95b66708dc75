"""What is known of the processes of a configuration, without asking who supervises them."""

import os
import subprocess
import sys
import time

import pytest

from feedhandler.cli.supervision import feed_programs, here, render
from feedhandler.runtime import config
from feedhandler.runtime.host import look, names, usage
from feedhandler.transport import starts
from feedhandler.transport.files import Lock

TEXT = """
[exchanges.binance]
shards = 2
[exchanges.bybit]
ws_url = "ws://127.0.0.1:1"
rest_url = "http://127.0.0.1:1"
simulated = true
[exchanges.kucoin]
elsewhere = true
"""


def settings(tmp_path, more=""):
    return config.parse(f'run_dir = "{tmp_path}/run"\n{TEXT}{more}', "x.toml")


@pytest.mark.parametrize(
    "more",
    ["", "[nats]\n[sim]\n", '[merger]\nfeeds = "tcp://192.0.2.1:5550"\n[curve]\nkey = "k"\nserver = "s"\n'],
)
def test_the_names_are_those_that_the_supervisor_starts(tmp_path, more):
    of = settings(tmp_path, more)
    text = render(of, here(of))
    programs = [line[9:-1] for line in text.splitlines() if line.startswith("[program:")]
    assert sorted(names(of)) == sorted(programs)
    assert {name for name, _ in feed_programs(of, "binance")} < {*names(of)}


def test_who_holds_a_lock_runs_and_its_usage_is_the_kernels(tmp_path):
    of = settings(tmp_path)
    with Lock(of.run_dir, "relay"):
        found = {each.process: each for each in look(of)}
    relay = found["relay"]
    assert (relay.state, relay.pid, relay.restarts) == ("up", os.getpid(), 0)
    assert abs(time.time() - relay.started_ns / 1e9) < 86400 * 365
    assert relay.started_ns / 1e9 <= time.time() + 1
    assert relay.cpu_s > 0
    assert relay.resident_bytes > 1 << 20
    assert relay.open_files > 2
    assert (found["merger"].state, found["merger"].pid, found["merger"].started_ns) == ("down", 0, 0)


def test_a_recorder_that_a_demo_started_is_there_though_no_file_has_it(tmp_path):
    of = settings(tmp_path)
    assert "recorder" not in {each.process for each in look(of)}
    with Lock(of.run_dir, "recorder"):
        found = {each.process: each for each in look(of)}
    assert (found["recorder"].state, found["recorder"].pid) == ("up", os.getpid())


@pytest.mark.e2e
def test_a_process_that_has_gone_uses_nothing():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert usage(child.pid).started_s == 0.0


NOTE = "import sys; from feedhandler.transport import starts; starts.note(*sys.argv[1:])"


@pytest.mark.e2e
def test_each_start_is_noted_for_the_supervisor_that_runs(tmp_path):
    run_dir = str(tmp_path / "run")
    assert starts.read(run_dir, "relay") is None
    for _ in range(3):
        subprocess.run([sys.executable, "-c", NOTE, run_dir, "relay"], check=True)
    assert starts.read(run_dir, "relay").restarts == 2
    assert starts.read(run_dir, "merger") is None
    # A supervisor of its own, which has ended since: who runs now was started by somebody else.
    other = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {NOTE!r}, *sys.argv[1:]], check=True)"
    )
    subprocess.run([sys.executable, "-c", other, run_dir, "relay"], check=True)
    assert starts.read(run_dir, "relay") is None


def test_what_cannot_be_noted_stops_nobody(tmp_path):
    starts.note("/proc/nowhere", "relay")
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    starts.note(str(open_to_all), "relay")
    assert starts.read(str(open_to_all), "relay") is None
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes" / "relay.json").write_bytes(b"[")
    assert starts.read(str(tmp_path), "relay") is None
