"""Logs: one JSON object a line for programs, whatever is logged, and also for what ends the process."""

import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from patience import PATIENCE_S

from feedhandler.data.errors import EXIT_GAVE_UP, EXIT_OK, ConfigError, one_line
from feedhandler.runtime.lifecycle import SUPERVISED_ENV

SCRIPT = """
import logging
from feedhandler.runtime import lifecycle
lifecycle.set_up_logging("merger")
log = logging.getLogger("feedhandler.test")
log.info("a line\\nand %s", '"another"')
log.debug("not this")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("caught")
raise ValueError("not caught")
"""


@pytest.mark.e2e
def test_each_line_is_an_object_with_time_level_process_and_message():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["INFO", "ERROR", "CRITICAL"]
    assert [line["message"] for line in lines] == ['a line\nand "another"', "caught", "ends: not caught"]
    assert {line["process"] for line in lines} == {"merger"}
    assert all(line["time"].endswith("Z") and line["pid"] > 1 for line in lines)
    assert lines[0]["logger"] == "feedhandler.test"
    assert "ZeroDivisionError" in lines[1]["traceback"]
    assert lines[2]["traceback"].startswith("Traceback (most recent call last)")


FOLLOWER = (
    "from feedhandler.runtime.lifecycle import follow_supervisor; follow_supervisor(); raise SystemExit(7)"
)


@pytest.mark.e2e
@pytest.mark.parametrize(("is_read", "status"), [(True, 7), (False, 0)])
def test_a_process_whose_supervisor_died_while_it_was_loaded_ends(is_read, status):
    ours, theirs = os.pipe()
    if not is_read:
        os.close(ours)
    environment = {**os.environ, SUPERVISED_ENV: "1"}
    process = subprocess.Popen([sys.executable, "-c", FOLLOWER], stdout=theirs, env=environment)
    os.close(theirs)
    assert process.wait(PATIENCE_S) == status
    if is_read:
        os.close(ours)


ENDLESS = """
import asyncio, os, signal, sys, threading, time
from feedhandler.runtime import lifecycle
lifecycle.set_up_logging("merger")
lifecycle.END_S = 0.2
kind = sys.argv[1]
if kind == "loop":
    async def main():
        lifecycle.on_stop_signals(lambda: None, asyncio.get_running_loop())
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)
    asyncio.run(main())
elif kind == "plain":
    lifecycle.on_stop_signals(lambda: None)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
else:
    lifecycle.end_within(0.2, 75)
    time.sleep(60)
"""


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("kind", "status"), [("loop", EXIT_OK), ("plain", EXIT_OK), ("gave up", EXIT_GAVE_UP)]
)
def test_an_end_that_does_not_come_is_cut_short_with_its_status(kind, status):
    done = subprocess.run(
        [sys.executable, "-c", ENDLESS, kind], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == status
    (line,) = map(json.loads, done.stderr.splitlines())
    assert "not ended within 0.2 s" in line["message"]
    assert 'File "<string>", line' in line["message"], "it says where it was"


QUOTING = """
import logging
from feedhandler.runtime import lifecycle
lifecycle.set_up_logging("merger")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("aiohttp.server").exception("400, message:\\n  Invalid character\\n\\n    ^")
logging.getLogger("feedhandler.x").error("our own\\nstack")
"""


@pytest.mark.e2e
def test_on_a_terminal_what_a_library_words_in_several_lines_is_one_and_a_traceback_follows():
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", QUOTING], stderr=theirs, check=True)
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 65536):
            text += chunk
    except OSError:  # as terminals end
        pass
    os.close(ours)
    lines = text.decode().splitlines()
    assert lines[0].endswith(": 400, message: Invalid character ^")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-2].endswith(": our own")
    assert lines[-1] == "stack"


def test_messages_of_our_errors_have_one_line():
    quoted = "400, message:\n  Invalid character in chunk size:\n\n    b'zz'\n      ^"
    assert str(ConfigError(f"x: {quoted}")) == "x: 400, message: Invalid character in chunk size: b'zz' ^"
    assert one_line("two  blanks stay") == "two  blanks stay"


STOPPED = """
import signal, sys
from feedhandler.runtime import lifecycle
if sys.argv[1] == "nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
stopped = []
lifecycle.on_stop_signals(lambda: stopped.append(1))
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.raise_signal(number)
print(len(stopped))
"""


@pytest.mark.e2e
@pytest.mark.parametrize(("how", "count"), [("terminal", 3), ("nohup", 2)])
def test_a_terminal_that_is_closed_ends_a_process_unless_it_is_to_outlive_it(how, count):
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, how],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    assert done.stdout.strip() == str(count)
