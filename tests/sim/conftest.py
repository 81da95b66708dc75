"""Shared by the tests of the simulator: simulated time for its pure parts."""

import pytest

from feedhandler.sim.protocol import NS_PER_S, Now

UNIX_NS = 1_790_000_000_123_456_789


class Clock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.elapsed_ns = 0

    @property
    def now(self) -> Now:
        return Now(1_000 * NS_PER_S + self.elapsed_ns, UNIX_NS + self.elapsed_ns)

    def pass_s(self, seconds: float) -> Now:
        self.elapsed_ns += int(seconds * NS_PER_S)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()
