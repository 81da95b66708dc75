"""Logs: one JSON object a line for programs, whatever is logged, and also for what ends the process."""

import json
import subprocess
import sys

SCRIPT = """
import logging
from feedhandler.process import runtime
runtime.set_up_logging("merger")
log = logging.getLogger("feedhandler.test")
log.info("a line\\nand %s", '"another"')
log.debug("not this")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("caught")
raise ValueError("not caught")
"""


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
