"""The sockets and the steps of the tick path: compiled if they were built, else in Python.

Both do the same (the tests run over both); the compiled ones leave more of a processor to others. Setting
FEEDHANDLER_PURE in the environment chooses Python, to compare them or to debug.
"""

import contextlib
import os
from typing import TYPE_CHECKING, Final

from feedhandler.exchanges.base import State
from feedhandler.feed.batch import Batch
from feedhandler.merger.merge import Step
from feedhandler.transport.cells import BoardCells, BoardSlot, mapped
from feedhandler.transport.follower import Follower, Gatherer
from feedhandler.transport.zmtp import Downlink, Inlet, Loop, Outlet, Uplink

PURE_ENV: Final = "FEEDHANDLER_PURE"
COMPILED_MODULE: Final = "feedhandler.transport._tick"

if not TYPE_CHECKING and not os.environ.get(PURE_ENV):
    with contextlib.suppress(ImportError):  # not built: there was no compiler
        from feedhandler.transport._tick import (
            Batch,
            BoardCells,
            BoardSlot,
            Downlink,
            Follower,
            Gatherer,
            Inlet,
            Loop,
            Outlet,
            State,
            Step,
            Uplink,
            mapped,
        )

IS_COMPILED: Final = Loop.__module__ == COMPILED_MODULE
NAME: Final = "compiled tick path" if IS_COMPILED else "pure Python tick path"

__all__ = [
    "IS_COMPILED",
    "NAME",
    "Batch",
    "BoardCells",
    "BoardSlot",
    "Downlink",
    "Follower",
    "Gatherer",
    "Inlet",
    "Loop",
    "Outlet",
    "State",
    "Step",
    "Uplink",
    "mapped",
]
