"""How long a test waits for what usually takes a moment: for a condition, up to one limit that is the same for all.

The limit is no claim. It ends a test that hangs, and is so long that a machine which is busy with something else
does not reach it. What is claimed about time is shown by a clock that the test moves, by an order, or in bench/.
"""

import asyncio
import os
import time

# TEST_PATIENCE=5 makes it five times as long: for sanitizers, emulators, and machines that are overloaded.
PATIENCE_S = 120.0 * float(os.environ.get("TEST_PATIENCE", "1"))


def wait_until(condition, what, patience_s=PATIENCE_S, every_s=0.05):
    """Return the first true value of condition()."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {_told(what)}"
        time.sleep(every_s)
    return value


async def until(condition, what, every_s=0.01):
    """Return the first true value of condition(), while the loop goes on."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {_told(what)}"
        await asyncio.sleep(every_s)
    return value


def _told(what):
    """What was waited for may be known only when it did not come."""
    return what() if callable(what) else what
