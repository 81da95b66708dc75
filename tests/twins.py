"""The classes of the hot path in both forms at once, for what compares them: as imported, and in Python."""

import functools
import importlib
import sys
import types

import feedhandler

HEAP_TYPE = 1 << 9  # made by a class statement that was not compiled
CLASSES = {
    "feedhandler.data.kept_book": ("Book",),
    "feedhandler.data.levels": ("Levels", "read_levels"),
    "feedhandler.exchanges.arbitration": ("Arbitration", "Line"),
    "feedhandler.exchanges.books": ("BookDepthState", "LineBook"),
    "feedhandler.exchanges.depth_state": ("DepthState",),
    "feedhandler.exchanges.full_book": ("Changes", "FullBookState"),
    "feedhandler.exchanges.state": ("RecordState", "State", "TickerState"),
    "feedhandler.exchanges.trades": ("TradeArbitration", "TradeState"),
    "feedhandler.feed.batch": ("Batch",),
    "feedhandler.feed.tap": ("Tap", "TappedConnection"),
    "feedhandler.merger.step": ("Route", "Step", "Traffic"),
    "feedhandler.recordings.carriers": ("Carrier", "Met", "RecordedConnection"),
    "feedhandler.recordings.packing": ("ConnectionFrames", "FrameCounts", "Unpacked"),
    "feedhandler.replay.merged": ("Merged", "PlacedBlocks", "block_of"),
    "feedhandler.replay.player": ("Player", "Published", "Unheard"),
    "feedhandler.transport.cells": ("BoardCells", "BoardSlot", "RingCells", "RingSlot"),
    "feedhandler.transport.follower": ("Follower", "Gatherer", "Loss"),
    "feedhandler.transport.links": ("Downlink", "Inlet", "Uplink"),
    "feedhandler.transport.loop": ("Loop",),
    "feedhandler.transport.memory": ("Memory",),
    "feedhandler.transport.outlet": ("Outlet",),
    "feedhandler.transport.peer": ("Peer",),
}
MORE = {
    "feedhandler.data.errors": ("DecodeError", "FeedError"),
    "feedhandler.exchanges": ("EXCHANGES",),
    "feedhandler.transport.boards": ("BoardReader", "BoardWriter"),
}


FORMS = ("imported", "python")


@functools.cache
def of(form):
    """Return the classes of a form: as everything else imports them, or of a second copy that is all Python."""
    if form == "imported":
        return _classes()
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_ours(name)}
    finder = feedhandler.PythonFirst()
    sys.meta_path.insert(0, finder)
    sys.modules["feedhandler"] = feedhandler
    attributes = dict(vars(feedhandler))
    try:
        return _classes()
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(ours)
        vars(feedhandler).update(attributes)  # its rooms, which an import sets anew


def _is_ours(name):
    return name == "feedhandler" or name.startswith("feedhandler.")


def _classes():
    found = {
        name: getattr(importlib.import_module(module), name)
        for module, names in (CLASSES | MORE).items()
        for name in names
    }
    return types.SimpleNamespace(**found)


DECODE_ERRORS = of("imported").DecodeError, of("python").DecodeError


def compiled_classes():
    """Return the classes that are compiled, those among them that only the others use as well."""
    modules = [importlib.import_module(name) for name in CLASSES]
    return [
        each
        for module in modules
        if not module.__file__.endswith(".py")
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__ and not each.__flags__ & HEAP_TYPE
    ]
