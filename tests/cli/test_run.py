"""How long `feedhandler run --seconds` runs."""

import subprocess
import sys

import pytest
from patience import PATIENCE_S

from feedhandler.cli.run import Span


def test_the_seconds_count_from_the_first_data_of_the_last_exchange():
    span = Span(10.0, 60.0, now_mono=100.0)
    assert not span.is_over(109.0, flowing=0, missing=3)
    assert not span.is_over(130.0, flowing=2, missing=1)
    assert not span.is_over(140.0, flowing=3, missing=0)
    assert not span.is_over(149.9, flowing=3, missing=0)
    assert span.is_over(150.0, flowing=3, missing=0)


def test_an_exchange_without_data_is_waited_for_so_long_and_no_longer():
    span = Span(10.0, 60.0, now_mono=100.0)
    assert not span.is_over(159.9, flowing=1, missing=1)
    assert not span.is_over(160.0, flowing=1, missing=1)
    assert span.is_over(170.0, flowing=1, missing=1)


def test_what_is_missing_later_prolongs_nothing():
    span = Span(10.0, 60.0, now_mono=100.0)
    assert not span.is_over(105.0, flowing=1, missing=0)
    assert span.is_over(115.0, flowing=1, missing=1), "an exchange that is to be connected again"


def test_where_nothing_flows_the_wait_is_all():
    span = Span(10.0, 60.0, now_mono=100.0)
    assert not span.is_over(159.9, flowing=0, missing=1)
    assert span.is_over(160.0, flowing=0, missing=1)


def test_where_nothing_is_to_flow_nothing_is_waited_for():
    span = Span(10.0, 60.0, now_mono=100.0)
    assert not span.is_over(103.0, flowing=0, missing=0)
    assert span.is_over(113.0, flowing=0, missing=0)


SLOW = """
import os, signal, sys, time
from feedhandler.runtime.settings import Config
from feedhandler.cli import run
from feedhandler.runtime import lifecycle
lifecycle.END_S = 0.2  # of every other process

class Slow:
    def __init__(self, *_): pass
    def stop(self): pass
    def run(self, *_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.0)  # for the supervisor's end
        return 7

run.Foreground = Slow
sys.exit(run.run(Config(run_dir=sys.argv[1]), None, 0.0))
"""


@pytest.mark.e2e
def test_a_supervisor_that_takes_its_time_to_end_is_not_left_behind(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SLOW, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (7, "")
