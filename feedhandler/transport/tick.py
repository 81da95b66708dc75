"""The sockets and the steps of the tick path: compiled if they were built, else in Python.

Both do the same (the tests run over both); the compiled ones leave more of a processor to others.
"""

import contextlib
from typing import TYPE_CHECKING, Final

from feedhandler import IS_COMPILED
from feedhandler.exchanges.base import State
from feedhandler.feed.batch import Batch
from feedhandler.transport.zmtp import Downlink, Inlet, Loop, Outlet, Uplink

COMPILED_MODULE: Final = "feedhandler.transport._tick"

if not TYPE_CHECKING and IS_COMPILED:
    with contextlib.suppress(ImportError):  # of a part that was not built
        from feedhandler.transport._tick import (
            Downlink,
            Inlet,
            Loop,
            Outlet,
            State,
            Uplink,
        )


__all__ = [
    "Batch",
    "Downlink",
    "Inlet",
    "Loop",
    "Outlet",
    "State",
    "Uplink",
]
