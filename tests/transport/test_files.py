"""Locks and the instrument cache."""

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from feedhandler.data.errors import ConfigError
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.shard import WHOLE, Shard, shards
from feedhandler.transport.files import (
    WANTED_SIZE_MAX,
    Lock,
    change_wanted,
    feed_lock,
    lock_owner,
    read_instruments,
    read_wanted,
    running_feeds,
    wanted_path,
    write_instruments,
)

LISTING = instrument_list("x", 1, [Instrument("AB", "A", "B")])


def test_a_second_owner_is_refused_with_the_pid_of_the_first(tmp_path):
    with Lock(str(tmp_path), "merger"), pytest.raises(ConfigError, match=rf"pid {os.getpid()}"):
        Lock(str(tmp_path), "merger").__enter__()
    assert list(tmp_path.iterdir()) == []
    with Lock(str(tmp_path), "merger"):
        pass


def test_a_directory_that_cannot_be_written_is_a_configuration_error():
    with pytest.raises(ConfigError, match="run_dir: cannot write to /proc/nowhere/"):
        Lock("/proc/nowhere", "merger").__enter__()


@pytest.mark.e2e
def test_a_lock_dies_with_its_owner(tmp_path):
    code = f"""
import os
from feedhandler.transport.files import Lock
Lock({str(tmp_path)!r}, "m").__enter__()
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with Lock(str(tmp_path), "m"):
        pass


class Holder:
    """A process that runs as some shard of x, until it is told or killed."""

    CODE = """
import sys
from feedhandler.data.errors import ConfigError
from feedhandler.data.shard import parse
from feedhandler.transport.files import feed_lock
try:
    with feed_lock(sys.argv[1], "x", parse(sys.argv[2])):
        print("runs", flush=True)
        sys.stdin.read()
except ConfigError as exc:
    print(exc, flush=True)
"""

    def __init__(self, run_dir, shard):
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, str(run_dir), str(shard)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    @property
    def answer(self):
        return self.process.stdout.readline().strip()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.communicate()


@pytest.fixture
def hold(tmp_path):
    holders = []

    def make(shard):
        holders.append(Holder(tmp_path, shard))
        return holders[-1]

    yield make
    for holder in holders:
        holder.kill()
        holder.process.stdout.close()
        holder.process.stdin.close()


@pytest.mark.e2e
def test_shards_of_one_count_run_side_by_side_and_leave_nothing_behind(tmp_path, hold):
    holders = {shard: hold(shard) for shard in shards(4)}
    assert [holder.answer for holder in holders.values()] == ["runs"] * 4
    assert running_feeds(str(tmp_path), "x") == {shard: holder.pid for shard, holder in holders.items()}
    for holder in holders.values():
        holder.stop()
    assert list(tmp_path.iterdir()) == []


REFUSALS = [
    (WHOLE, WHOLE, "feed-x runs already in {dir}/ (pid {pid}); stop it first, or set another run_dir"),
    (
        Shard(1, 4),
        Shard(1, 4),
        "feed-x-1of4 runs already in {dir}/ (pid {pid}); stop it first, or set another run_dir",
    ),
    (
        WHOLE,
        Shard(1, 4),
        "feed-x runs already in {dir}/ (pid {pid}); as shard 1/4 it would send the same again: stop",
    ),
    (
        Shard(1, 4),
        WHOLE,
        "feed-x runs already in {dir}/, as shard 1/4 (pid {pid}); unsharded it would send the same again: stop",
    ),
    (
        Shard(1, 4),
        Shard(2, 2),
        "feed-x runs already in {dir}/, as shard 1/4 (pid {pid}); as shard 2/2 it would send the same again",
    ),
]


@pytest.mark.e2e
@pytest.mark.parametrize(("first", "second", "message"), REFUSALS, ids=[f"{a}-{b}" for a, b, _ in REFUSALS])
def test_what_would_send_the_same_again_is_refused_with_what_runs(tmp_path, hold, first, second, message):
    holder = hold(first)
    assert holder.answer == "runs"
    assert hold(second).answer.startswith(message.format(dir=tmp_path, pid=holder.pid))
    holder.kill()
    assert hold(second).answer == "runs", "the kernel frees it"


@pytest.mark.e2e
def test_a_shard_that_was_refused_or_left_does_not_let_others_in(tmp_path, hold):
    ones = [hold(shard) for shard in shards(2)]
    assert [holder.answer for holder in ones] == ["runs"] * 2
    ones[0].stop()
    assert "would send the same again" in hold(Shard(1, 3)).answer
    assert "would send the same again" in hold(WHOLE).answer
    assert hold(Shard(1, 2)).answer == "runs"
    assert lock_owner(str(tmp_path), "feed-x") is None, "shared, it has no owner"


@pytest.mark.e2e
def test_of_counts_that_start_at_the_same_time_no_two_run(hold):
    starts = (WHOLE, *shards(2), *shards(3))
    holders = [hold(shard) for shard in starts]
    running = {shard.count for shard, holder in zip(starts, holders, strict=True) if holder.answer == "runs"}
    assert len(running) <= 1


@pytest.mark.parametrize("text", ["", "of 4\n", "\0\0"])
def test_a_lock_whose_owner_has_only_just_come_has_none_yet(tmp_path, text):
    with (tmp_path / "feed-x.lock").open("w") as file:
        file.write(text)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert lock_owner(str(tmp_path), "feed-x") is None
        assert running_feeds(str(tmp_path), "x") == {}


def test_feeds_of_another_exchange_and_other_files_are_not_taken_for_this_ones(tmp_path):
    for name in ("feed-xy.lock", "feed-x-1of99.lock", "feed-x-.lock", "feed-x-1of4.lock"):
        (tmp_path / name).write_text("1\n")
    assert running_feeds(str(tmp_path), "x") == {}
    with feed_lock(str(tmp_path), "xy", WHOLE):
        assert running_feeds(str(tmp_path), "x") == {}
        assert running_feeds(str(tmp_path), "xy") == {WHOLE: os.getpid()}


def test_an_instrument_list_is_kept_per_host(tmp_path):
    write_instruments(str(tmp_path), "http://127.0.0.1:9101", LISTING)
    assert read_instruments(str(tmp_path), "http://127.0.0.1:9101", "x") == LISTING
    assert read_instruments(str(tmp_path), "https://api.x.com", "x") is None, (
        "a simulator's list is not the real one"
    )


def test_of_lists_that_several_feeds_write_at_once_a_whole_one_stays(tmp_path):
    listings = [
        instrument_list("x", number, [Instrument("AB", "A", "B")] * number) for number in range(1, 20)
    ]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda listing: write_instruments(str(tmp_path), "http://h", listing), listings))
    assert read_instruments(str(tmp_path), "http://h", "x") in listings
    assert len([*(tmp_path / "instruments").iterdir()]) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 20000, b"{}"])
def test_a_damaged_cache_is_no_cache(tmp_path, content):
    write_instruments(str(tmp_path), "http://h", LISTING)
    (path,) = (tmp_path / "instruments").iterdir()
    path.write_bytes(content)
    assert read_instruments(str(tmp_path), "http://h", "x") is None


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: os.truncate(path.open("wb").name, 1 << 30)]
)
def test_what_is_no_file_of_wishes_is_refused_at_once(tmp_path, make):
    """A pipe would block the feed for ever, and a huge file for long."""
    path = wanted_path(str(tmp_path), "binance")
    path.parent.mkdir()
    make(path)
    with pytest.raises(ConfigError, match=r"binance\.json: cannot be used"):
        read_wanted(str(tmp_path), "binance")


def test_wishes_without_kinds_are_refused_with_the_remedy_and_kept(tmp_path):
    path = wanted_path(str(tmp_path), "binance")
    path.parent.mkdir()
    path.write_text('{"requested": {"a": ["BTC/USDT"]}, "excluded": []}')
    for use in (
        lambda: read_wanted(str(tmp_path), "binance"),
        lambda: change_wanted(str(tmp_path), "binance", id),
    ):
        with pytest.raises(
            ConfigError, match=r"cannot be used: Expected `object`, got `array`.*; remove it"
        ) as it:
            use()
        assert "\n" not in str(it.value)
    path.unlink()
    assert read_wanted(str(tmp_path), "binance").requested == {}


@pytest.mark.long
def test_wishes_that_nobody_could_read_any_more_are_refused_and_the_others_stay(tmp_path):
    run_dir = str(tmp_path)
    change_wanted(run_dir, "bybit", lambda wanted: wanted.replace("a", ["BTC/USDT"]))
    symbols = [f"{number:059}/USDT" for number in range(WANTED_SIZE_MAX // 64)]
    with pytest.raises(ConfigError, match="would exceed 4 MiB; take back"):
        change_wanted(run_dir, "bybit", lambda wanted: wanted.replace("b", symbols))
    assert read_wanted(run_dir, "bybit").requested == {"a": {"BTC/USDT": ["ticker"]}}
