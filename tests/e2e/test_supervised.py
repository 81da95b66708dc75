"""`feedhandler run`: one command, any process killed, everything stopped."""

import os
import random
import re
import signal
import time

import pytest
from harness import PATIENCE_S, is_alive, leftovers, programs, wait_until

from feedhandler.runtime.lifecycle import SUPERVISED_ENV
from feedhandler.transport.files import Lock

KILLS_EACH = int(os.environ.get("KILLS_EACH", "1"))  # acceptance asks for 10, which takes five minutes


def start(s, *arguments):
    s.processes["run"] = s.popen("run", "-c", str(s.config), *arguments, log="run")
    return s.processes["run"]


def test_any_process_may_be_killed_and_the_stream_comes_back(stack):
    """Every program but the supervisor, several times, in a seeded random order, under load."""
    s = stack(rate=1000, extra="backoff_max_s = 1.0")
    run = start(s)
    reader = s.wait_live()
    victims = ["sim", "merger", "gateway", *s.exchanges] * KILLS_EACH
    random.Random(5).shuffle(victims)
    times = []
    for victim in victims:
        reader.read()
        old = programs(run)[victim]
        os.kill(old, signal.SIGKILL)
        restarted = wait_until(
            lambda old=old, v=victim: programs(run).get(v, old) != old and time.monotonic(), victim
        )
        reader.read()
        hit = (victim,) if victim in s.exchanges else s.exchanges
        s.wait_live(reader, exchanges=hit)
        times.append((round(time.monotonic() - restarted, 2), victim))
        time.sleep(1.2)  # a process that ends within its first second is a failed start to the supervisor
    print("seconds from restart to the whole stream:", sorted(times, reverse=True)[:10])
    assert reader.holes == [], "no topic of any exchange has a hole in a session's sequence"
    everybody = [*programs(run).values()]
    assert len(everybody) == 8
    run.send_signal(signal.SIGINT)
    assert run.wait(PATIENCE_S) == 0
    assert [pid for pid in everybody if is_alive(pid)] == []
    assert leftovers(s) == set()


@pytest.mark.parametrize("victim", ["run", "supervisord"])
def test_a_killed_supervisor_leaves_no_process_behind(stack, victim):
    s = stack(exchanges=("bybit",))
    run = start(s)
    s.wait_live()
    everybody = programs(run)
    os.kill(run.pid if victim == "run" else everybody["supervisord"], signal.SIGKILL)
    wait_until(lambda: not [pid for pid in everybody.values() if is_alive(pid)], "all gone")
    run.wait(PATIENCE_S)
    again = start(s, "--seconds", "2")
    assert again.wait(PATIENCE_S) == 0, "what a killed run left behind does not hinder the next"
    assert leftovers(s) == set()


def test_a_simulator_that_comes_later_is_no_fault_of_the_start(stack, monkeypatch):
    s = stack(exchanges=("kucoin",))
    s.start("merger")
    monkeypatch.setenv(SUPERVISED_ENV, "1")  # what starts both of them
    s.start("kucoin")
    wait_until(
        lambda: s.status()["text"].get("kucoin") == "connecting, waits for the simulator to listen",
        "the wait",
    )
    s.start("sim")
    s.wait_live()
    (connection,) = s.status()["exchanges"]["kucoin"]["feed"]["connections"]
    assert (connection["connects"], connection["ended"]) == (1, "")
    assert not [line for line in s.log("kucoin").splitlines() if '"level":"INFO"' not in line]


def test_a_process_that_does_not_stay_up_is_told_of_once(stack):
    s = stack(exchanges=("bybit",))
    with Lock(f"{s.directory}/run", "relay"):  # another has its place
        run = start(s)
        line = wait_until(
            lambda: [t for t in s.log("run").splitlines() if "relay was started again" in t], "it"
        )
        assert "log/relay.log: relay runs already in " in line[0]
        check = s.run("status", "-c", str(s.config), "--check")
        assert check.returncode
        assert "relay: started again and again" in check.stdout
    wait_until(lambda: "relay" in programs(run), "the relay")
    old = programs(run)["bybit"]
    s.wait_live()
    os.kill(old, signal.SIGKILL)

    def restarts():
        return {each["process"]: each["restarts"] for each in s.status()["processes"]}

    wait_until(lambda: (found := restarts())["feed-bybit"] == 1 and found["merger"] == 0, "another one")
    run.send_signal(signal.SIGINT)
    assert run.wait(PATIENCE_S) == 0
    assert s.log("run").count("was started again") == 1


def test_a_run_without_a_terminal_ends_with_a_summary(stack):
    s = stack()
    assert start(s, "--seconds", "3").wait(PATIENCE_S) == 0
    text = s.log("run")
    assert re.search(rf"^ +{' +'.join(s.exchanges)}$", text, re.MULTILINE), "the columns of the summary"
    assert "gaps" in text
    assert "p99" in text
    assert leftovers(s) == set()


def test_a_run_in_which_nothing_flows_fails_and_says_why(stack):
    s = stack(exchanges=("binance",), sim_table=False)
    run = start(s, "--seconds", "1", "--wait", f"{PATIENCE_S:g}")
    wait_until(lambda: "binance: connecting, attempt" in s.log("run"), "it shows what it is doing")
    run.send_signal(signal.SIGINT)
    assert run.wait(PATIENCE_S) == 1
    text = s.log("run")
    assert "binance: no data flowed: connecting, attempt" in text
    assert "Cannot connect" in text


def test_without_a_route_the_status_says_what_it_is_doing(stack):
    s = stack(exchanges=("bybit",), sim_table=False)
    start(s)
    line = wait_until(
        lambda: [
            line
            for line in s.run("status", "-c", str(s.config)).stdout.splitlines()
            if "bybit" in line and "next in" in line
        ],
        "a countdown",
    )[0]
    assert "connecting, attempt" in line
    assert "last error: " in line
    s.processes["run"].send_signal(signal.SIGTERM)
    assert s.processes["run"].wait(PATIENCE_S) == 0
