"""The hot path's two forms, in Python and compiled: what tests one tests the other."""

import importlib
import sys
import types

import pytest

import feedhandler
from feedhandler.exchanges.arbitration import Arbitration, Line
from feedhandler.exchanges.base import State
from feedhandler.feed.batch import Batch
from feedhandler.merger.step import Route, Step, Traffic
from feedhandler.transport import tick
from feedhandler.transport.cells import BoardCells, BoardSlot
from feedhandler.transport.follower import Follower, Gatherer
from feedhandler.transport.memory import Memory
from feedhandler.transport.zmtp import Downlink, Inlet, Loop, Outlet, Uplink

HEAP_TYPE = 1 << 9  # made by a class statement that was not compiled
KINDS = ("pure", "compiled")
PURE = (Downlink, Inlet, Loop, Outlet, State, Uplink)
ONCE = (
    Arbitration, Batch, BoardCells, BoardSlot, Memory, Follower, Gatherer, Line, Route, Step, Traffic,
)  # fmt: skip


def compiled_classes():
    """Return the classes that are compiled, those among them that only the others use as well."""
    modules = {sys.modules[cls.__module__] for cls in vars(of("compiled")).values() if isinstance(cls, type)}
    return [
        each
        for module in modules
        if not module.__file__.endswith(".py")
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__ and not each.__flags__ & HEAP_TYPE
    ]


def of(kind):
    """Return what has the classes of one kind; skips the test if they were not built, or are not to be used."""
    if kind == "pure":
        return types.SimpleNamespace(**{each.__name__: each for each in (*PURE, *ONCE)})
    if not feedhandler.IS_COMPILED:
        pytest.skip("not built since its source was changed: pip install -e . with a C compiler builds it")
    module = importlib.import_module(tick.COMPILED_MODULE)
    names = {name: each for name, each in vars(module).items() if isinstance(each, type)}
    return types.SimpleNamespace(**{each.__name__: each for each in (*PURE, *ONCE)} | names)
