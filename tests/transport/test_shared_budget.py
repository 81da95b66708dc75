"""The budget for new connections, shared by processes that may die at any moment."""

import os
import signal
import subprocess
import sys
import time

import pytest

from feedhandler.data.units import NS_PER_S
from feedhandler.transport.shared_budget import SharedBudget, path_of

NOW = 5_000 * NS_PER_S


@pytest.fixture
def path(tmp_path):
    return path_of("binance", "wss://stream.binance.com:9443", str(tmp_path))


def test_two_processes_share_one_budget(path):
    one, two = SharedBudget(path, 3, 60.0), SharedBudget(path, 3, 60.0)
    assert one.take(NOW)
    assert two.take(NOW + 1 * NS_PER_S)
    assert one.take(NOW + 2 * NS_PER_S)
    assert not two.take(NOW + 3 * NS_PER_S)
    assert one.next_mono_ns(NOW + 3 * NS_PER_S) == two.next_mono_ns(NOW + 3 * NS_PER_S) == NOW + 60 * NS_PER_S
    assert two.take(NOW + 60 * NS_PER_S)
    assert not one.take(NOW + 60 * NS_PER_S)


def test_who_comes_back_finds_what_its_predecessor_has_used(path):
    for second in range(3):
        assert SharedBudget(path, 3, 60.0).take(NOW + second * NS_PER_S)
    assert not SharedBudget(path, 3, 60.0).take(NOW + 3 * NS_PER_S)


def test_who_looked_at_its_clock_earlier_does_not_forget_those_who_were_faster(path):
    slow, fast = SharedBudget(path, 2, 60.0), SharedBudget(path, 2, 60.0)
    assert fast.take(NOW + 5)
    assert fast.take(NOW + 7)
    assert not slow.take(NOW + 3)
    assert slow.next_mono_ns(NOW + 3) == NOW + 5 + 60 * NS_PER_S


def test_times_of_before_the_last_boot_count_no_more(path):
    before = SharedBudget(path, 1, 60.0)
    assert before.take(NOW)
    assert SharedBudget(path, 1, 60.0).take(10 * NS_PER_S)


def test_exchanges_and_addresses_have_budgets_of_their_own(tmp_path):
    ways = [
        ("binance", "wss://a:1"),
        ("binance", "wss://b:1"),
        ("bybit", "wss://a:1"),
        ("binance", "wss://a:2"),
    ]
    assert len({path_of(*way, str(tmp_path)) for way in ways}) == len(ways)
    for way in ways:
        assert SharedBudget(path_of(*way, str(tmp_path)), 1, 60.0).take(NOW)


def test_without_a_folder_it_is_one_of_this_user_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert path_of("bybit", "wss://x").parent == tmp_path / "feedhandler" / "connects"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert path_of("bybit", "wss://x").parent == tmp_path / f"feedhandler-{os.getuid()}" / "connects"


def test_half_a_file_is_half_the_truth_and_no_error(path):
    assert SharedBudget(path, 3, 60.0).take(NOW)
    path.write_bytes(path.read_bytes()[:8] + b"abc")
    budget = SharedBudget(path, 3, 60.0)
    assert budget.take(NOW + 1)
    assert budget.take(NOW + 2)
    assert not budget.take(NOW + 3)


def test_a_folder_that_cannot_be_written_leaves_a_budget_of_ones_own_and_one_warning(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    budget = SharedBudget(blocked / "connects", 2, 60.0)
    assert budget.take(NOW)
    assert budget.take(NOW)
    assert not budget.take(NOW)
    assert budget.next_mono_ns(NOW) == NOW + 60 * NS_PER_S
    assert len([r for r in caplog.records if "for this process alone" in r.message]) == 1


def test_somebody_elses_folder_is_not_trusted(path, monkeypatch, caplog):
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert SharedBudget(path, 2, 60.0).take(NOW)
    assert "belongs to somebody else" in caplog.text
    assert not path.exists()


TAKER = """
import sys, time
from pathlib import Path
from feedhandler.transport.shared_budget import SharedBudget
budget = SharedBudget(Path(sys.argv[1]), 40, 3600.0)
end = time.monotonic() + float(sys.argv[2])
taken = 0
print("ready", flush=True)
while time.monotonic() < end:
    if budget.take(time.monotonic_ns()):
        taken += 1
        print("took", flush=True)
"""


@pytest.mark.e2e
def test_processes_that_race_and_are_killed_never_take_more_than_there_is(path):
    takers = [
        subprocess.Popen([sys.executable, "-c", TAKER, str(path), "1.5"], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for taker in takers:
        assert taker.stdout.readline() == "ready\n"
    time.sleep(0.05)
    takers[0].send_signal(signal.SIGKILL)
    takers[1].send_signal(signal.SIGSTOP)  # perhaps with the lock in its hand
    taken = sum(taker.communicate()[0].count("took") for taker in takers[2:])
    takers[1].send_signal(signal.SIGCONT)
    taken += sum(taker.communicate()[0].count("took") for taker in takers[:2])
    assert taken <= 40
    assert not SharedBudget(path, 40, 3600.0).take(time.monotonic_ns()) or taken < 40


def test_several_connections_at_once_are_permitted_together_or_not_at_all(path):
    one, two = SharedBudget(path, 4, 60.0), SharedBudget(path, 4, 60.0)
    assert one.take(NOW, 2)
    assert two.take(NOW + 1)
    assert not one.take(NOW + 2, 2)
    assert one.next_mono_ns(NOW + 2) == 0
    assert one.next_mono_ns(NOW + 2, 2) == two.next_mono_ns(NOW + 2, 2) == NOW + 60 * NS_PER_S
    assert two.next_mono_ns(NOW + 2, 4) == NOW + 1 + 60 * NS_PER_S
    assert two.take(NOW + 60 * NS_PER_S, 2)
