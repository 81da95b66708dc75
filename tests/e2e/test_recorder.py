"""The recorder with real processes: everything that was sent is recorded, killed or not, whatever its disk does."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
from harness import EXCHANGES, PATIENCE_S, programs, wait_until

from feedhandler.recordings import directory
from feedhandler.recordings.traffic import What
from feedhandler.transport.files import read_recorder_status

KILLS = int(os.environ.get("RECORDER_KILLS", "8"))  # acceptance asks for 100, which takes three minutes
ALL_KINDS = 'kinds = ["ticker", "trade", "depth", "book"]'


def recording(stack, **settings):
    """Return a stack whose recorder writes to its directory, not started yet."""
    made = stack(extra=ALL_KINDS, **settings)
    made.recordings = made.directory / "recordings"
    configure(made)
    return made


def configure(s, **keys):
    keys = {"directory": json.dumps(str(s.recordings)), "min_free_gb": 0, **keys}
    lines = "\n".join(f"{key} = {value}" for key, value in keys.items())
    with s.config.open("a", encoding="utf-8") as file:
        file.write(f"[recorder]\n{lines}\n")


def status(s):
    return read_recorder_status(str(s.directory / "run"))


def received(s, exchange):
    """How many frames of an exchange are recorded, by the recorder that runs."""
    found = status(s)
    return found.feeds[exchange].received if found is not None else 0


def reports(s):
    return {report.feed: report for report in directory.verify(s.recordings)}


def is_reply(frame):
    """Acknowledgements, welcomes and pongs, which the simulator does not count."""
    body = json.loads(frame)
    return "result" in body or "op" in body or body.get("type") in ("ack", "welcome", "pong")


def market_frames(s, exchange):
    """How many market messages are on disk."""
    found = directory.find(s.recordings, [exchange])
    items = [item for files in found.values() for item in directory.items(files)]
    return sum(item.what is What.RECEIVED and not is_reply(item.data) for item in items)


def test_what_the_simulator_sends_is_recorded_frame_by_frame(stack):
    s = recording(stack, rate=500)
    s.start("recorder", "sim", "merger", "relay", *s.exchanges)
    s.wait_live()
    for exchange in s.exchanges:
        wait_until(lambda exchange=exchange: received(s, exchange) > 3000, "some traffic")
    for exchange in s.exchanges:
        s.fault(exchange, "rate", messages_per_s=1)
    for exchange in s.exchanges:
        wait_until(
            lambda exchange=exchange: market_frames(s, exchange) == s.sim_state(exchange)["messages_sent"],
            lambda exchange=exchange: f"{exchange}: {market_frames(s, exchange)} of {s.sim_state(exchange)}",
        )
    assert all(segment.state == "open" for report in reports(s).values() for segment in report.segments)
    assert all(report.is_complete for report in reports(s).values()), "also while it is written"
    for name in (*s.exchanges, "recorder"):
        assert s.kill(name, signal.SIGTERM) == 0
    found = reports(s)
    assert {*found} == {*EXCHANGES}
    for exchange, report in found.items():
        assert report.is_complete, report
        assert [segment.state for segment in report.segments] == ["closed"]
        items = [*directory.items(directory.find(s.recordings, [exchange])[exchange])]
        closed = [item for item in items if item.what is What.CLOSED]
        assert closed, "each connection's end"
        assert closed[-1].name == "stopping"
        assert any(item.what is What.ANSWERED and len(item.data) > 10_000 for item in items), "lists"
    listed = s.run("captures", "list", str(s.recordings))
    assert listed.returncode == 0
    assert "kucoin: 1 segment" in listed.stdout
    verified = s.run("captures", "verify", str(s.recordings))
    assert verified.returncode == 0, verified.stdout
    assert verified.stdout.count(": complete\n") == len(EXCHANGES)


def test_no_token_is_recorded(stack):
    """The simulated exchange hands out one, as the real one does, in an answer and in an address."""
    s = recording(stack, exchanges=("kucoin",))
    s.start("recorder", "sim", "merger", "kucoin")
    wait_until(lambda: received(s, "kucoin") > 100, "some traffic")
    for name in ("kucoin", "recorder"):
        s.kill(name, signal.SIGTERM)
    items = [*directory.items(directory.find(s.recordings)["kucoin"])]
    addresses = [item.name for item in items if item.what in (What.OPENED, What.ANSWERED)]
    assert any(address.startswith("ws://") for address in addresses)
    assert not any("token" in address or "bullet" in address for address in addresses)
    assert not any(b"token" in item.data for item in items if item.what is not What.RECEIVED)


def test_a_recorder_killed_in_its_first_moment_has_what_it_lost_explained(stack):
    """That a connection was opened may be among what was not written yet."""
    s = recording(stack, exchanges=("kucoin",), rate=1000)
    s.start("recorder", "sim", "merger", "kucoin")
    wait_until(lambda: s.is_simulated("kucoin"), "the exchange")
    wait_until(lambda: s.sim_state("kucoin")["messages_sent"] > 20, "some traffic")
    s.kill("recorder")
    s.start("recorder")
    wait_until(lambda: received(s, "kucoin") > 300, "more of it")
    for name in ("kucoin", "recorder"):
        assert s.kill(name, signal.SIGTERM) == 0
    report = reports(s)["kucoin"]
    assert report.is_sound, report.ranges
    assert [segment.state for segment in report.segments] == ["torn", "closed"]


@pytest.mark.parametrize("seed", [1])
def test_a_recorder_killed_again_and_again_loses_its_open_blocks_alone(stack, seed):
    rng = random.Random(seed)
    s = recording(stack, exchanges=("binance", "kucoin"), rate=1000)
    s.start("recorder", "sim", "merger", *s.exchanges)
    for _ in range(KILLS):
        wait_until(lambda: all(received(s, exchange) > 300 for exchange in s.exchanges), "some traffic")
        time.sleep(rng.uniform(0.0, 1.0))
        pid = s.processes["recorder"].pid
        before = {path: path.read_bytes() for path in s.recordings.rglob("*.segment") if path.stat().st_size}
        s.kill("recorder")
        s.start("recorder")
        wait_until(lambda pid=pid: status(s) is not None and status(s).pid != pid, "the next one")
        for path, data in before.items():
            assert path.read_bytes()[: len(data)] == data, "nothing is rewritten"
    wait_until(lambda: all(received(s, exchange) > 300 for exchange in s.exchanges), "some traffic")
    for name in (*s.exchanges, "recorder"):
        assert s.kill(name, signal.SIGTERM) == 0
    for report in reports(s).values():
        assert report.is_sound, report.ranges
        assert report.unknown_ends == 0
        torn = [segment for segment in report.segments if segment.state == "torn"]
        assert len(torn) == KILLS
        assert report.received > 300 * KILLS
        assert {each.why.partition(": ")[0] for each in report.ranges} <= {
            *(segment.path for segment in torn),
            "the recorder was started anew",
        }
    verified = s.run("captures", "verify", "--frames-only", "--json", str(s.recordings))
    assert verified.returncode == (0 if all(r.is_complete for r in reports(s).values()) else 1)
    assert len(verified.stdout.splitlines()) == 2


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid():
        pytest.skip("needs root, to mount a small file system")
    command = [mount, "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {result.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_stops_the_recording_and_nothing_else(stack, small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(bytes(7_500_000))
    s = stack(extra=ALL_KINDS, exchanges=("binance",), rate=1000)
    s.recordings = small_disk / "recordings"
    configure(s)
    s.start("recorder", "sim", "merger", "binance")
    reader = s.wait_live(exchanges=["binance"])
    found = wait_until(lambda: (found := status(s)) and found.stopped and found, "a full disk")
    assert "No space left on device" in found.stopped
    checked = s.run("status", "--check", "-c", str(s.config))
    assert checked.returncode, "no other process of the stack runs either"
    assert "recorder: nothing is recorded: No space left on device" in checked.stdout
    reader.read()
    since_ns = time.time_ns()
    s.wait_live(reader, exchanges=["binance"], since_ns=since_ns)
    assert reader.holes == []
    filler.unlink()
    wait_until(lambda: not status(s).stopped, "room again")
    count = received(s, "binance")
    wait_until(lambda: received(s, "binance") > count + 1000, "some traffic")
    for name in ("binance", "recorder"):
        assert s.kill(name, signal.SIGTERM) == 0
    report = reports(s)["binance"]
    assert report.is_sound, report
    assert report.cut_sessions == report.unknown_ends == 0
    assert report.missing == 0, "as long as the feed can hold it"
    log = s.log("recorder")
    assert log.count("nothing is recorded any more") == 1
    assert "recording again" in log


def test_run_starts_the_recorder_and_stops_it_after_the_feeds(stack):
    s = recording(stack, exchanges=("bybit",))
    run = s.processes["run"] = s.popen("run", "-c", str(s.config), log="run")
    wait_until(lambda: received(s, "bybit") > 300, "some traffic")
    assert "recorder" in programs(run)
    shown = s.run("status", "-c", str(s.config), "--json")
    assert json.loads(shown.stdout)["recorder"]["feeds"]["bybit"]["is_connected"]
    run.send_signal(signal.SIGINT)
    assert run.wait(PATIENCE_S) == 0
    report = reports(s)["bybit"]
    assert report.is_complete
    assert report.cut_sessions == 0
    assert [segment.reason for segment in report.segments] == ["stopping"]


def test_a_directory_that_cannot_be_used_is_told_at_once(stack):
    s = recording(stack, exchanges=("bybit",))
    s.recordings.write_text("a file")
    result = s.run("recorder", "-c", str(s.config))
    assert result.returncode == 2
    assert "recorder.directory: cannot write to" in result.stderr
    assert "set another directory" in result.stderr
    bare = stack(exchanges=("bybit",))
    result = bare.run("recorder", "-c", str(bare.config))
    assert result.returncode == 2
    assert "add [recorder]" in result.stderr


def test_shards_are_recorded_apart_and_a_killed_feed_begins_a_segment(stack):
    s = stack(extra="shards = 2\n" + ALL_KINDS, exchanges=("binance",), rate=500)
    s.recordings = s.directory / "recordings"
    configure(s)
    names = ("binance-1of2", "binance-2of2")
    s.start("recorder", "sim", "merger", *names)
    for name in names:
        wait_until(lambda name=name: received(s, name) > 300, "some traffic")
    s.kill("binance-1of2")
    count = received(s, "binance-1of2")
    s.start("binance-1of2")
    wait_until(lambda: received(s, "binance-1of2") > count + 300, "some more")
    for name in (*names, "recorder"):
        assert s.kill(name, signal.SIGTERM) == 0
    found = reports(s)
    assert {*found} == {*names}
    killed, whole = found["binance-1of2"], found["binance-2of2"]
    assert (killed.sessions, killed.cut_sessions, len(killed.segments)) == (2, 1, 2)
    assert [segment.reason for segment in killed.segments] == ["the feed started anew", "stopping"]
    assert (whole.sessions, whole.cut_sessions, len(whole.segments)) == (1, 0, 1)
    assert killed.is_complete, "as far as can be known, and it says that its last moment cannot"
    assert whole.is_complete
    shown = s.run("captures", "verify", "--frames-only", str(s.recordings))
    assert shown.returncode == 0
    assert (
        "1 end of the feed without a word: what it received in its last moment cannot be known"
        in shown.stdout
    )
