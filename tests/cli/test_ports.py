"""Are the addresses free that a configuration names?"""

import socket
import subprocess
import sys

import pytest
from loopback import free_ports

from feedhandler.cli import ports
from feedhandler.data.errors import ConfigError
from feedhandler.data.shard import Shard
from feedhandler.runtime import config
from feedhandler.transport.files import Lock, feed_lock


def parse(tmp_path, text):
    """Nothing is at a port that all of this host share, but what text names."""
    (port,) = free_ports(1)
    merger = f'[merger]\nticks = ["ipc://{tmp_path}/ticks.ipc"]\n'
    merger += f'[gateway]\nhttp = "127.0.0.1:{port}"\n'
    if "[relay]" not in text:
        merger += f'[relay]\nrecover = ["ipc://{tmp_path}/recover.ipc"]\n'
    return config.parse(f'run_dir = "{tmp_path}"\n[exchanges.binance]\n{text}\n{merger}', "my.toml")


def test_free_addresses_are_no_error(tmp_path):
    ports.check(parse(tmp_path, "shards = 2"))


@pytest.mark.parametrize(("text", "name"), [("", "binance"), ("shards = 2", "binance-2of2")])
def test_a_feeds_own_address_that_is_in_use_is_named_for_each_shard(tmp_path, text, name):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{tmp_path}/{name}.ipc")
        other.listen()
        with pytest.raises(ConfigError, match=rf"my.toml: exchanges.binance.direct: .*/{name}.ipc is in use"):
            ports.check(parse(tmp_path, text))


def test_what_the_process_itself_holds_that_is_to_have_it_is_a_note_where_notes_are_taken(tmp_path):
    (port,) = free_ports(1)
    settings = parse(tmp_path, f'[relay]\nrecover = ["tcp://127.0.0.1:{port}"]\n')
    notes = []
    with (
        socket.socket() as recover,
        socket.socket(socket.AF_UNIX) as direct,
        Lock(str(tmp_path), "relay"),
        feed_lock(str(tmp_path), "binance", Shard()),
    ):
        recover.bind(("127.0.0.1", port))
        recover.listen()
        direct.bind(f"{tmp_path}/binance.ipc")
        direct.listen()
        ports.check(settings, notes.append)
        with pytest.raises(ConfigError, match=f"relay.recover: port {port} .*in use"):
            ports.check(settings)
    assert [note.partition(" (pid")[0] for note in notes] == [
        f"relay runs already in {tmp_path}/",
        f"feed-binance runs already in {tmp_path}/",
    ]


@pytest.mark.e2e
def test_what_somebody_else_holds_is_an_error_even_if_the_process_runs(tmp_path):
    """As when a port was changed in the file, to one that is taken."""
    (port,) = free_ports(1)
    settings = parse(tmp_path, f'[relay]\nrecover = ["tcp://127.0.0.1:{port}"]\n')
    with socket.socket() as recover:
        recover.bind(("127.0.0.1", port))
        recover.listen()
        with pytest.raises(ConfigError, match=f"relay.recover: port {port} .*in use"):
            ports.check(settings, pytest.fail)
        command = [sys.executable, "-c", HOLDER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
            assert holder.stdout.readline() == b"held\n"
            try:
                with pytest.raises(ConfigError, match=f"relay.recover: port {port} .*in use"):
                    ports.check(settings, pytest.fail)
            finally:
                holder.kill()


HOLDER = """
import sys, time
from feedhandler.transport.files import Lock
with Lock(sys.argv[1], "relay"):
    print("held", flush=True)
    time.sleep(600)
"""
