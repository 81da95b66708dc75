"""What the last program of every path does alike: note what arrived, and when, in a few appends.

All contenders' sinks note the same: arrival time, symbol, bid, bid_size, ask, ask_size; of trades, depth and books
arrival time, symbol, the exchange's id and what else was said, which becomes numbers after the load. Commands come
in on standard input, a line each, and are answered on standard output; when it closes, the program ends.

    count          how many were noted since the last save
    save PATH      write them as .npz, and begin anew
"""

import gc
import os
import sys
import threading
import traceback
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np


class Recorder:
    """Columns of what arrived. A sink appends to them; between two loads, `save` empties them."""

    def __init__(self) -> None:
        # What is noted of a load is kept, as no user would keep it, and the collector would look through all of it
        # again and again, for up to 20 ms.
        gc.disable()
        self.now_ns = array("q")
        self.symbol: list[Any] = []
        self.bid, self.bid_size, self.ask, self.ask_size = (array("d") for _ in range(4))
        # Of records that state them, else empty: when the feed had the frame, and when it was published.
        self.recv_ns, self.publish_ns = array("q"), array("q")
        self.raw: list[bytes] = []  # of a sink that decodes nothing
        self.ids = array("q")  # of other kinds than quotes
        self.said: list[Any] = []  # with them
        self.pack: Callable[[Any], bytes] = bytes  # turns that into packed doubles, as `traffic` has them
        # Of books as they are at the end: symbol, id, packed levels.
        self.books: Callable[[], list[tuple[Any, int, bytes]]] = list
        self.statuses: list[bytes] = []  # Unix ns and JSON, of a path that says how it does

    def add(self, now_ns: int, symbol: Any, bid: float, bid_size: float, ask: float, ask_size: float) -> None:
        """Note one quote."""
        self.now_ns.append(now_ns)
        self.symbol.append(symbol)
        self.bid.append(bid)
        self.bid_size.append(bid_size)
        self.ask.append(ask)
        self.ask_size.append(ask_size)

    def add_other(self, now_ns: int, symbol: Any, number: int, said: Any) -> None:
        """Note one trade, depth, or change of a book, by the exchange's id."""
        self.now_ns.append(now_ns)
        self.symbol.append(symbol)
        self.ids.append(number)
        self.said.append(said)

    def serve(self, decode: "Callable[[Recorder], None] | None" = None) -> None:
        """Answer commands in a thread of its own; decode fills the columns from `raw` before they are saved."""
        threading.Thread(target=self._serve, args=(decode,), daemon=True).start()

    def _serve(self, decode: "Callable[[Recorder], None] | None") -> None:
        status = 1  # a failure in here must end the program, which would otherwise never answer
        try:
            for line in sys.stdin:
                word, _, path = line.strip().partition(" ")
                count = len(self.now_ns)
                if word == "save":
                    if decode is not None:
                        decode(self)
                    self._save(path)
                print(count, flush=True)
            status = 0
        except Exception:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(status)

    def _columns(self) -> dict[str, Any]:
        names = ("now_ns", "bid", "bid_size", "ask", "ask_size", "recv_ns", "publish_ns", "ids")
        return {name: getattr(self, name) for name in names}

    def _save(self, path: str) -> None:
        noted = (*self._columns().values(), self.symbol, self.said)
        # A row that the sink is about to note is the next load's.
        count = min((len(column) for column in noted if len(column)), default=0)
        columns: dict[str, Any] = {name: np.array(column[:count]) for name, column in self._columns().items()}
        said = [self.pack(each) for each in self.said[:count]]
        statuses, books = self.statuses[:], self.books()
        texts: dict[str, Any] = {
            "symbol": np.array(self.symbol[:count], dtype=np.bytes_),
            "statuses": np.array(statuses, dtype=np.bytes_),
            "said": np.frombuffer(b"".join(said)),
            "said_counts": np.array([len(each) // 8 for each in said], dtype=np.int64),
            "book_symbol": np.array([symbol for symbol, _, _ in books], dtype=np.bytes_),
            "book_id": np.array([number for _, number, _ in books], dtype=np.int64),
            "book": np.frombuffer(b"".join(levels for _, _, levels in books)),
            "book_counts": np.array([len(levels) // 8 for _, _, levels in books], dtype=np.int64),
        }
        np.savez(path, **(texts | columns))
        for column in noted:
            del column[:count]
        del self.statuses[: len(statuses)]
        del self.raw[:]
