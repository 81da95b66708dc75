"""Subscribers and feeds of other hosts, under CURVE, with real processes."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import zmq
from harness import MAJORS, PATIENCE_S, Stack, free_ports, wait_until
from zmq.utils import z85

from feedhandler.client import Curve, Subscriber
from feedhandler.data import wire
from feedhandler.transport import keys, zmtp

pytestmark = pytest.mark.e2e


@pytest.fixture
def folder(tmp_path):
    for name in ("central", "desk", "stranger", "near"):
        keys.make(tmp_path / "keys", name)
    return tmp_path


def secure(stack, folder, relay):
    """Add to a stack's configuration what other hosts need."""
    text = stack.config.read_text().replace("[relay]\n", f"[relay]\n{relay}\n")
    curve = f'[curve]\nkey = "{folder}/keys/central.key_secret"\nclients = "{folder}/clients"\n'
    stack.config.write_text(text + curve, encoding="utf-8")


def run(stack, *arguments):
    result = stack.run(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def curve(folder, name):
    return Curve(f"{folder}/keys/{name}.key_secret", f"{folder}/keys/central.key")


def test_another_hosts_subscriber_gets_everything_and_a_stranger_nothing(folder):
    ticks = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    stack = Stack(folder, rate=300, exchanges=("binance",))
    secure(stack, folder, relay=f'remote_ticks = ["{ticks}"]')
    try:
        stack.start()
        stack.wait_live()
        run(stack, "keys", "authorize", f"{folder}/keys/desk.key", "-c", str(stack.config))
        assert "desk" in run(stack, "keys", "list", "-c", str(stack.config))
        with (
            Subscriber(ticks, ["ticker."], curve=curve(folder, "desk")) as desk,
            Subscriber(ticks, ["ticker."], curve=curve(folder, "stranger")) as stranger,
        ):
            seen = {}
            while len(seen) < len(MAJORS) or len(desk.losses) < len(MAJORS) or sum(seen.values()) < 300:
                record = desk.receive(PATIENCE_S)
                assert record is not None
                seen[record.symbol] = seen.get(record.symbol, 0) + 1
            assert set(seen) == set(MAJORS)
            assert desk.lost == 0
            assert stranger.receive(1.5) is None
            wait_until(lambda: "its key is not authorized" in stack.log("relay"), "it is told")

            # The merger goes, and this stream comes back with the next session.
            session = record.session
            stack.kill("merger")
            stack.start("merger")
            while desk.receive(PATIENCE_S).session == session:
                pass

            # What is allowed may be withdrawn, and allowed to others, while everything runs.
            run(stack, "keys", "revoke", "desk", "-c", str(stack.config))
            run(stack, "keys", "authorize", f"{folder}/keys/stranger.key", "-c", str(stack.config))
            assert stranger.receive(PATIENCE_S) is not None
            wait_until(lambda: desk.receive(1.0) is None, "nothing comes any more")
        command = ["tail", "--endpoint", ticks, "--count", "3", "--json"]
        key = ["--key", f"{folder}/keys/stranger.key_secret", "--server-key", f"{folder}/keys/central.key"]
        assert len(run(stack, *command, *key).splitlines()) == 3
    finally:
        stack.close()
    for log in folder.glob("*.log"):
        for name in ("central", "desk", "stranger"):
            secret = keys.load_pair(f"{folder}/keys/{name}.key_secret", "k").secret
            assert z85.encode(secret).decode() not in log.read_text(), "no secret in a log"


def test_recovery_beyond_this_host_is_for_those_with_a_key(folder):
    endpoint = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    stack = Stack(folder, rate=300, exchanges=("binance",))
    secure(stack, folder, relay=f'remote_recover = ["{endpoint}"]')
    keys.authorize(f"{folder}/keys/desk.key", folder / "clients")
    pair = keys.load_pair(f"{folder}/keys/desk.key_secret", "k")
    try:
        stack.start()
        stack.wait_live()
        with zmq.Context() as context, context.socket(zmq.REQ) as req, context.socket(zmq.REQ) as plain:
            for sock in (req, plain):
                sock.set(zmq.LINGER, 0)
            req.set(zmq.CURVE_PUBLICKEY, z85.encode(pair.public))
            req.set(zmq.CURVE_SECRETKEY, z85.encode(pair.secret))
            req.set(zmq.CURVE_SERVERKEY, z85.encode(keys.load_public(f"{folder}/keys/central.key", "k")))
            for sock in (plain, req):
                sock.connect(endpoint)
                sock.send(b'{"topics": ["ticker."]}')
            assert req.poll(PATIENCE_S * 1000)
            head, records = req.recv_multipart()[:2]
            assert json.loads(head)["records"] == len(records) // wire.TICKER_SIZE == len(MAJORS)
            assert not plain.poll(200)
    finally:
        stack.close()


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_relay_that_hangs_costs_subscribers_of_this_host_nothing(folder):
    ticks = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    stack = Stack(folder, rate=3000, exchanges=("binance",))
    secure(stack, folder, relay=f'remote_ticks = ["{ticks}"]')
    keys.authorize(f"{folder}/keys/desk.key", folder / "clients")
    try:
        stack.start()
        reader = stack.wait_live()
        merger = stack.processes["merger"].pid
        with Subscriber(ticks, ["ticker."], curve=curve(folder, "desk"), recover="") as desk:
            desk.wait_for("ticker.binance.BTC/USDT", timeout_s=PATIENCE_S)
            os.kill(stack.processes["relay"].pid, signal.SIGSTOP)
            before, newest, count = resident_bytes(merger), dict(reader.newest), 0
            deadline = time.monotonic() + PATIENCE_S
            while count < 6000 and time.monotonic() < deadline:  # some seconds of it
                count += len(reader.read(0.5))
            assert count >= 6000
            assert not reader.holes
            assert all(reader.newest[topic] > newest[topic] for topic in newest)
            # What waits for the relay is bounded as it is for every subscriber.
            assert resident_bytes(merger) - before < 2 * zmtp.QUEUE_SIZE_MAX
            os.kill(stack.processes["relay"].pid, signal.SIGCONT)
            session, sequence = reader.newest["ticker.binance.BTC/USDT"]

            def has_caught_up():
                desk.receive_many(timeout_s=0.1)
                record = desk.newest("ticker.binance.BTC/USDT")
                return record.session == session and record.sequence > sequence

            wait_until(has_caught_up, "the other host gets the newest again")
    finally:
        os.kill(stack.processes["relay"].pid, signal.SIGCONT)
        stack.close()


def own_address():
    """Return an address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            address = probe.getsockname()[0]
        except OSError:
            address = "127.0.0.1"
    if address.startswith("127."):
        pytest.skip("this machine has no address but loopback's")
    return address


def test_a_feed_of_another_host_reaches_the_merger_and_its_death_shows(folder):
    (port,) = free_ports(1)
    endpoint = f"tcp://{own_address()}:{port}"
    central = Stack(folder, rate=300, exchanges=("binance",))
    text = central.config.read_text()
    secure(central, folder, relay=f'remote_feeds = ["{endpoint}"]')
    near = folder / "near.toml"
    text = text.replace(f'run_dir = "{folder}/run"', f'run_dir = "{folder}/near"')
    text = text.replace(f'feeds = "ipc://{folder}/run/feeds.ipc"', f'feeds = "{endpoint}"')
    near.write_text(
        text + f'[curve]\nkey = "{folder}/keys/near.key_secret"\nserver = "{folder}/keys/central.key"\n',
        encoding="utf-8",
    )
    keys.authorize(f"{folder}/keys/near.key", folder / "clients")
    try:
        assert central.run("check", "-c", str(near)).returncode == 0
        central.start("sim", "merger", "relay")
        feed = central.popen("feed", "binance", "-c", str(near), log="near")
        central.processes["near"] = feed
        reader = central.wait_live(exchanges=["binance"])
        os.kill(feed.pid, signal.SIGKILL)
        feed.wait(PATIENCE_S)
        reader.read_until(lambda record: record.kind == 1 and record.flags & 4, "its records are DOWN")
        central.processes["near"] = central.popen("feed", "binance", "-c", str(near), log="near")
        central.wait_live(exchanges=["binance"])
        # The other way round: the merger goes, and the feed finds the next one.
        central.kill("merger")
        central.start("merger")
        central.wait_live(exchanges=["binance"])
        central.kill("relay")
        central.start("relay")
        central.wait_live(exchanges=["binance"])
        refused = central.run("run", "-c", str(near))
        assert refused.returncode == 2
        assert "merger.feeds: is on another host" in refused.stderr
    finally:
        central.close()
