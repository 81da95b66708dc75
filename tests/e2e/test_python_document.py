"""Every Python example of the documents, as it stands, against real processes; one stack for all of them."""

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from harness import EXCHANGES, MAJORS, PATIENCE_S, Stack, wait_until

from feedhandler.client import Subscriber

ROOT = Path(__file__).parent.parent.parent
# Where examples say nothing else, they subscribe at the usual port: here at the stack's.
PREAMBLE = """\
from feedhandler.client import AsyncSubscriber, Subscriber, arrays
for each in (AsyncSubscriber, Subscriber, arrays.ArraySubscriber):
    each.__init__.__defaults__ = ({endpoint!r}, *each.__init__.__defaults__[1:])
"""


def examples(document):
    """Return the examples of a document, by the heading above each."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        heading = re.findall(r"^#+ (.*)", text[: match.start()], re.MULTILINE)[-1]
        number = sum(heading in name for name, _ in found)
        found.append((f"{heading} {number + 1}" if number else heading, match[1]))
    return found


ENDING = examples("docs/python.md")
ENDLESS = examples("README.md")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A directory in which a stack runs, and its endpoint."""
    symbols = json.dumps([*MAJORS, "BTC/USDT:USDT"])
    extra = dict.fromkeys(EXCHANGES, "") | {
        "binance": 'kinds = ["ticker", "trade", "depth", "book"]',
        "bybit": f'kinds = ["ticker", "contract"]\nsymbols = {symbols}',
    }
    stack = Stack(tmp_path_factory.mktemp("examples"), exchanges=EXCHANGES, extra=extra)
    try:
        stack.start()
        stack.wait_live()
        yield stack
    finally:
        stack.close()


def command(stack, code):
    preamble = PREAMBLE.format(endpoint=stack.endpoint)
    if '["book.' in code:  # and the relay is beside the usual port
        preamble += f"Subscriber.__init__.__kwdefaults__['recover'] = {stack.recover!r}\n"
    return [sys.executable, "-c", preamble + code]


@pytest.mark.parametrize("code", [code for _, code in ENDING], ids=[name for name, _ in ENDING])
def test_an_example_of_the_document_prints_something_and_ends(running, code):
    result = subprocess.run(
        command(running, code),
        cwd=running.directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    if "except TimeoutError as error" in code:  # its output is shown as well
        assert result.stdout in (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


NUMBER = rb"\d+(\.\d+)?(e-\d+)?"
SIDE = rb"\((\(%s, %s\)(, )?){3}\)" % (NUMBER, NUMBER)
LEVELS = rb"\[(\(%s, %s\)(, )?){3}\]" % (NUMBER, NUMBER)
PRINTED = {
    '["ticker.': rb"BTC/USDT \d+\.\d+ \d+\.\d+ [A-Z|]* 0\n",
    'pair = ("ticker.': rb"%s %s [+-]0\.\d{4}%% [+-]0\.\d{4}%%\n" % (NUMBER, NUMBER),
    '["trade.': rb"BTC/USDT (buy|sell) %s %s \d+\n" % (NUMBER, NUMBER),
    '["depth.': rb"BTC/USDT %s %s\n" % (SIDE, SIDE),
    '["book.': rb"\d+ .*%s.* %s %s\n" % (NUMBER, LEVELS, LEVELS),
}


@pytest.mark.parametrize("code", [code for _, code in ENDLESS], ids=[name for name, _ in ENDLESS])
def test_an_example_of_the_readme_goes_on_printing(running, code):
    (printed,) = (each for subscribed, each in PRINTED.items() if subscribed in code)
    arguments = command(running, code)
    arguments.insert(1, "-u")
    with subprocess.Popen(arguments, cwd=running.directory, stdout=subprocess.PIPE) as process:
        limit = threading.Timer(PATIENCE_S, process.kill)
        limit.start()
        try:
            lines = [process.stdout.readline() for _ in range(10)]
        finally:
            limit.cancel()
            process.kill()
    assert all(re.fullmatch(printed, line) for line in lines), lines


PIPED = [
    *(each for each in ENDLESS if "BrokenPipeError" in each[1]),
    *(each for each in ENDING if each[0] == "Into a pipe"),
]


@pytest.mark.parametrize("code", [code for _, code in PIPED], ids=[name for name, _ in PIPED])
def test_an_example_ends_quietly_when_its_output_is_closed(running, code):
    with subprocess.Popen(
        command(running, code), cwd=running.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout.readline()
            process.stdout.close()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
        # the port where it asks for what it missed may be something else's here
        errors = process.stderr.read()
    assert b"Traceback" not in errors, errors
    assert b"BrokenPipe" not in errors, errors


def test_a_merger_that_hangs_is_told_by_its_silence(running):
    """It is connected all the time, and no record says anything."""
    merger = running.processes["merger"]
    with Subscriber(running.endpoint, ["ticker.binance."]) as subscriber:

        def silence_s():
            subscriber.receive_many(timeout_s=0.1)
            return subscriber.silence_s

        wait_until(lambda: silence_s() < 1.0, "a sign of life")
        try:
            merger.send_signal(signal.SIGSTOP)
            wait_until(lambda: silence_s() > 3.0, "its end")
            assert subscriber.is_connected
            assert subscriber.newest("ticker.binance.BTC/USDT").is_live, "as of what was heard"
        finally:
            merger.send_signal(signal.SIGCONT)
        wait_until(lambda: silence_s() < 1.0, "another sign of life")
    running.wait_live()
