"""Shared by all tests: time limits of hypothesis off, since nothing may depend on a machine's speed."""

import collections
import gc
import logging
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for folder in ("exchanges", "e2e", "gateway", "languages", "transport"):
    sys.path.insert(0, str(Path(__file__).parent / folder))

# Started by nohup, or with & in a script, we ignore these, and processes inherit that: tests of them would wait
# for ends that never come. What is caught here is not inherited.
for number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)

settings.register_profile(
    "feedhandler", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("before-commit", settings.get_profile("feedhandler"), max_examples=25)
settings.load_profile("feedhandler")


# The files that take longest, by the table that is printed: no worker is left alone with one of them at the end.
LONGEST = (
    *("test_walk.py", "test_perpetuals.py", "test_dashboard.py", "test_whole_books.py", "test_supervised.py"),
    *("test_stream.py", "test_daemon.py", "test_renewal.py"),
    # And of `make check`.
    *("test_server_faults.py", "test_screens.py", "test_websocket.py", "test_recorder_process.py"),
    *("test_server_books.py", "test_server.py", "test_sources.py", "test_zmtp.py", "test_gap_notice.py"),
)


def pytest_ignore_collect(collection_path, config):
    """Do not import what is left out as a whole, with all that it needs."""
    is_left_out = "not e2e" in config.option.markexpr
    return True if is_left_out and collection_path.name in ("e2e", "test_rig.py") else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Run what waits for processes first, which takes long, and then the many short files."""

    def place(item):
        name = item.path.name
        return LONGEST.index(name) if name in LONGEST else len(LONGEST) + ("e2e" not in item.path.parts)

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is collected stays, with all that it loads: the garbage collector need not look at it in any round."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


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
