"""The hot path's two forms, in Python and compiled: what tests one tests the other."""

import types

import pytest

from feedhandler.exchanges.base import State
from feedhandler.feed.batch import Batch
from feedhandler.merger.merge import Step
from feedhandler.transport import tick
from feedhandler.transport.cells import BoardCells, BoardSlot
from feedhandler.transport.follower import Follower, Gatherer
from feedhandler.transport.zmtp import Downlink, Inlet, Loop, Outlet, Uplink

KINDS = ("pure", "compiled")
PURE = (Batch, BoardCells, BoardSlot, Downlink, Follower, Gatherer, Inlet, Loop, Outlet, State, Step, Uplink)


def of(kind):
    """Return what has the classes of one kind; skips the test if they were not built."""
    if kind == "pure":
        return types.SimpleNamespace(**{each.__name__: each for each in PURE})
    return pytest.importorskip(
        tick.COMPILED_MODULE, reason="not built: pip install -e . with a C compiler builds it"
    )
