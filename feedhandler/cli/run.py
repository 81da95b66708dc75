"""`feedhandler run`: everything under supervisord, in the foreground, with a live view until Ctrl-C."""

import contextlib
import logging
import math
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.live import Live

from feedhandler.cli import compiled
from feedhandler.cli.logs import last_line
from feedhandler.cli.supervision import error_log, feed_programs, install, log_dir, spawn
from feedhandler.cli.view import Watch
from feedhandler.client import Subscriber
from feedhandler.data import hints
from feedhandler.data.errors import EXIT_FAILED, EXIT_OK
from feedhandler.data.processes import Loops
from feedhandler.runtime.host import look
from feedhandler.runtime.lifecycle import on_stop_signals
from feedhandler.runtime.settings import Config
from feedhandler.transport.files import Lock

REFRESH_S: Final = 0.5
LINE_EVERY_S: Final = 5.0
LOOK_EVERY_S: Final = 1.0  # at processes that do not stay up
STOP_TIMEOUT_S: Final = 20.0  # supervisord stops one priority after the other
END_S: Final = 30.0  # the supervisor's end included
assert END_S > STOP_TIMEOUT_S, "a supervisor that takes its time is not left behind"
LOG_TAIL_LINES: Final = 5


class Span:
    """When a run of so many seconds is over. Pure.

    They count from when each exchange has had data: how long processes take to start depends on the machine. After
    `wait_s` what is missing is waited for no longer; if nothing flows then, nothing is left to be shown.
    """

    def __init__(self, seconds: float, wait_s: float, now_mono: float) -> None:
        self._seconds = seconds
        self._wait_end_mono = now_mono + wait_s
        self.end_mono = math.inf  # until it is known

    def is_over(self, now_mono: float, flowing: int, missing: int) -> bool:
        """`flowing` exchanges have had data, `missing` ones are to have some."""
        if self.end_mono == math.inf and (not missing or now_mono >= self._wait_end_mono):
            self.end_mono = now_mono + (self._seconds if flowing or not missing else 0.0)
        return now_mono >= self.end_mono


class Foreground:
    """One run: the supervisor as a child, and a subscriber that shows what flows."""

    def __init__(self, config: Config, console: Console) -> None:
        self._config = config
        self._console = console
        self._is_stopping = False
        self._loops = Loops()
        self.watch = Watch(config.exchanges)

    def stop(self) -> None:
        """End the view; the supervisor and its children follow."""
        self._is_stopping = True

    def run(self, seconds: float | None, wait_s: float) -> int:
        """Show the stream for so long (see `Span`), or until `stop`; returns the exit status."""
        supervisor = self._start()
        for line in (compiled.advice(), f"dashboard: {self._config.gateway.url}"):
            if line:
                self._console.print(hints.spelled(line), highlight=False, markup=False, soft_wrap=True)
        try:
            with Subscriber(self._config.merger.ticks[0], recover=False) as subscriber:
                span = None if seconds is None else Span(seconds, wait_s, time.monotonic())
                self._show(subscriber, supervisor, span)
                self._console.print(self.watch.summary(subscriber))
        finally:
            self._stop_supervisor(supervisor)
        return self._verdict(supervisor, seconds)

    def _start(self) -> "subprocess.Popen[bytes]":
        # It gets no requests: a control socket's path may be too long in a deep directory.
        return spawn(self._config, install(self._config, has_control=False), ends_with_us=True)

    def _show(self, subscriber: Subscriber, supervisor: "subprocess.Popen[bytes]", span: Span | None) -> None:
        with contextlib.ExitStack() as stack:
            update = self._updater(stack)
            next_update = next_look = 0.0
            while not self._is_stopping and supervisor.poll() is None:
                now = time.monotonic()
                if span is not None and span.is_over(now, len(self.watch.since_mono), len(self._missing())):
                    return
                if now >= next_look:
                    next_look = now + LOOK_EVERY_S
                    self._tell_loops()
                if now >= next_update:
                    next_update = now + update()
                until = min(next_update, now + REFRESH_S)
                self._receive(subscriber, until if span is None else min(until, span.end_mono))

    def _tell_loops(self) -> None:
        """Say once of a process that it does not stay up, above the live table, which does not show why."""
        for each in self._loops.new(look(self._config)):
            path = log_dir(self._config.run_dir) / f"{each.process}.log"
            why = last_line(path, each.pid)
            text = f"{each.process} was started again {each.restarts} times so far; the end of {path}: {why}"
            self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def _updater(self, stack: contextlib.ExitStack) -> Callable[[], float]:
        """Return what shows the present state, and returns the seconds until it wants to again."""
        if not self._console.is_terminal:

            def print_line() -> float:
                self._console.print(self.watch.line(), soft_wrap=True, highlight=False)
                return LINE_EVERY_S

            return print_line
        live = stack.enter_context(Live(console=self._console, auto_refresh=False, screen=False))

        def draw() -> float:
            rows_max = max(5, self._console.height - 5 - len(self.watch.exchanges))
            live.update(self.watch.picture(rows_max, self._console.width), refresh=True)
            return REFRESH_S

        return draw

    def _receive(self, subscriber: Subscriber, until: float) -> None:
        while not self._is_stopping and (left := until - time.monotonic()) > 0:
            record = subscriber.receive(min(left, 0.1))
            if record is not None:
                self.watch.take(record)

    def _stop_supervisor(self, supervisor: "subprocess.Popen[bytes]") -> None:
        if supervisor.poll() is None:
            supervisor.send_signal(signal.SIGTERM)
        try:
            supervisor.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._console.print(f"the supervisor did not stop within {STOP_TIMEOUT_S:g} s; killing it")
            supervisor.kill()  # its children end with it
            supervisor.wait()

    def _verdict(self, supervisor: "subprocess.Popen[bytes]", seconds: float | None) -> int:
        if not self._is_stopping and (seconds is None or supervisor.returncode not in (0, -signal.SIGTERM)):
            self._console.print(f"the supervisor ended by itself, status {supervisor.returncode}")
            self._print_log(error_log(self._config.run_dir).name)
            self._print_log("supervisord.log")
            return EXIT_FAILED
        silent = self._missing()
        for name in silent:
            status = self.watch.statuses.get(name)
            reason = hints.spelled(status.text(time.time_ns())) if status else "nothing came from the merger"
            self._console.print(f"{name}: no data flowed: {reason}", soft_wrap=True, highlight=False)
            feeds = [program for program, _ in feed_programs(self._config, name)]
            for program in feeds if status else ["merger"]:
                self._print_log(f"{program}.log")
        return EXIT_FAILED if silent and seconds is not None else EXIT_OK

    def _missing(self) -> list[str]:
        """Return the exchanges that are to have data, and have had none."""
        return [name for name, count in self.watch.records.items() if not count and self._is_wanted(name)]

    def _is_wanted(self, name: str) -> bool:
        status = self.watch.statuses.get(name)
        return status is None or status.feed is None or status.feed.connect

    def _print_log(self, name: str) -> None:
        path = log_dir(self._config.run_dir) / name
        with contextlib.suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
            self._console.print(f"the end of {path}:", *lines, sep="\n  ", soft_wrap=True, highlight=False)


def run(config: Config, seconds: float | None, wait_s: float) -> int:
    """Run everything until Ctrl-C, or for so many seconds (see `Span`); returns the exit status."""
    logging.getLogger("feedhandler.client").setLevel(logging.ERROR)  # why nothing comes yet is shown
    with Lock(config.run_dir, "run"):
        foreground = Foreground(config, Console())
        on_stop_signals(foreground.stop, limit_s=END_S)
        return foreground.run(seconds, wait_s)
