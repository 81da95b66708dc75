"""Shared by all tests: time limits of hypothesis off, since nothing may depend on a machine's speed."""

import collections
import gc
import logging
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for folder in ("exchanges", "e2e", "gateway", "languages", "transport"):
    sys.path.insert(0, str(Path(__file__).parent / folder))

settings.register_profile(
    "feedhandler", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("feedhandler")


def pytest_collection_finish():
    """What is loaded by now stays: the garbage collector need not look at it in each of its rounds."""
    gc.collect()
    gc.freeze()


FILES_SHOWN = 25
seconds_of = collections.Counter()  # by file, over all workers


def pytest_runtest_logreport(report):
    seconds_of[report.nodeid.partition("::")[0]] += report.duration


def pytest_terminal_summary(terminalreporter):
    """Show which files take the time."""
    shown = seconds_of.most_common(FILES_SHOWN) if len(seconds_of) > 1 else ()
    if shown:
        terminalreporter.section(f"the {len(shown)} slowest of {len(seconds_of)} files")
        for path, seconds in shown:
            terminalreporter.write_line(f"{seconds:7.1f} s  {path}")
        terminalreporter.write_line(f"{seconds_of.total():7.1f} s  all of them, over all workers")


@pytest.fixture(autouse=True)
def _log_everything_again():
    """What one test has had logged is logged for the next one as well."""
    for each in logging.getLogger("feedhandler.transport.zmtp").filters:
        each.forget()
