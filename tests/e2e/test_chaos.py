"""`make chaos`, short: it comes to its verdict, and whatever ends it ends everything that it started."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import PATIENCE_S, descendants, is_alive, wait_until

PROCESSES = 7  # run, the supervisor, simulator, merger, three feeds
CHAOS = Path(__file__).parent.parent / "chaos"


@contextlib.contextmanager
def started(directory, *arguments):
    environment = os.environ | {"TMPDIR": str(directory)}
    command = [sys.executable, str(CHAOS), "--seed", "3", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_short_run_of_it_finds_that_every_claim_holds(tmp_path):
    with started(
        tmp_path, "--seconds", "6", "--kills", "2", "--act", "random faults", "--act", "kills"
    ) as run:
        output, _ = run.communicate(timeout=3 * PATIENCE_S)
    assert run.returncode == 0, output
    assert "every claim holds" in output
    assert "2 killed: " in output
    assert "FAILS" not in output
    assert list(tmp_path.iterdir()) == [], "logs are kept only for whoever has to look at them"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_it_ends_everything(tmp_path, number):
    with started(tmp_path, "--act", "random faults") as run:
        everybody = wait_until(
            lambda: (found := descendants(run.pid)) and len(found) >= PROCESSES and found, "everything runs"
        )
        run.send_signal(number)
        output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 1)
    wait_until(lambda: not [pid for pid in everybody if is_alive(pid)], "all gone")
    if number != signal.SIGKILL:
        assert "again: make chaos SEED=3 " in output
