"""feedhandler's own Subscriber to several kinds at once: each record as an object, and each book kept.

merger ══PUB══▶ SUB this ══ask══▶ relay

Driven by a line on standard input, answered by JSON in a line; it ends when that closes:

    live      by kind: of how many topics there are data, and the monotonic time at which the newest of them began
    begin     what comes from now on is a load's
    report    what has come of it: records by kind, latency, levels of changes, what was lost
    status    the exchange's newest status; empty if none has come

python -m bench.paths.all_kinds ENDPOINT RECOVER KIND…
"""

import json
import os
import sys
import threading
import time
import traceback
from array import array
from typing import Any

import numpy as np

from feedhandler.client import Subscriber
from feedhandler.data import wire
from feedhandler.data.book import BookRecord
from feedhandler.data.kinds import NAMES

BAD = wire.STALE | wire.DOWN | wire.INVALID
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


class Columns:
    """What came of a load: a row a record."""

    def __init__(self) -> None:
        self.kinds, self.topics = array("B"), array("L")
        self.recv_ns, self.publish_ns, self.now_ns = array("q"), array("q"), array("q")
        self.levels = array("L")  # of each change of a book
        self.crossed = 0


class Sink:
    """Takes records in one thread, and answers in another."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._columns = Columns()
        self._topics: dict[str, int] = {}
        self._live: dict[str, dict[str, int]] = {}  # by kind and topic, since when
        self._lost = 0  # before the load
        self._status = b"{}"

    def run(self) -> None:
        """Take records for ever."""
        clock, topics, live = time.time_ns, self._topics, self._live
        books = self._subscriber.books
        for record in self._subscriber:
            now = clock()
            if isinstance(record, wire.Document):
                if record.kind == wire.STATUS:
                    self._status = record.body
                continue
            if record.kind in (wire.CONDITION, wire.NOTICE):
                continue
            topic, columns = record.topic, self._columns
            number = topics.get(topic)
            if number is None:
                if record.flags & BAD:
                    continue
                number = topics[topic] = len(topics)
                live.setdefault(topic.partition(".")[0], {})[topic] = time.monotonic_ns()
            if record.flags & wire.SNAPSHOT:
                continue
            if isinstance(record, BookRecord):
                best = books[topic].best
                columns.crossed += best.bid >= best.ask
                columns.levels.append(len(record.levels) // 16)
            columns.kinds.append(record.kind)
            columns.topics.append(number)
            columns.now_ns.append(now)
            columns.recv_ns.append(record.recv_ns)
            columns.publish_ns.append(record.publish_ns)

    def answer(self, word: str) -> dict[str, Any]:
        """Do what a line says."""
        match word:
            case "live":
                return {kind: [len(found), max(found.values())] for kind, found in list(self._live.items())}
            case "begin":
                self._columns, self._lost = Columns(), self._subscriber.lost
                return {}
            case "report":
                columns, self._columns = self._columns, Columns()
                return self._report(columns)
            case "status":
                status: dict[str, Any] = json.loads(self._status)
                return status
            case _:
                raise ValueError(f"no command {word!r}")

    def _report(self, columns: Columns) -> dict[str, Any]:
        names = {number: topic for topic, number in self._topics.items()}
        count = len(columns.publish_ns)  # a row that is about to be whole is left out
        now_ns, recv_ns = (np.array(column[:count]) for column in (columns.now_ns, columns.recv_ns))
        kinds, of_kinds = np.unique(columns.kinds[:count], return_counts=True)
        symbols: dict[str, int] = {}
        numbers, of_topics = np.unique(columns.topics[:count], return_counts=True)
        for number, of_topic in zip(numbers.tolist(), of_topics.tolist(), strict=True):
            symbol = names[number].split(".", 2)[2]
            symbols[symbol] = symbols.get(symbol, 0) + of_topic
        levels = np.array(columns.levels) if columns.levels else np.zeros(1)
        return {
            "records": {
                NAMES[kind]: of_kind for kind, of_kind in zip(kinds.tolist(), of_kinds.tolist(), strict=True)
            },
            "symbols": sorted(symbols.values(), reverse=True),
            "latency_us": percentiles((now_ns - recv_ns) / 1e3),
            "held_us": percentiles((np.array(columns.publish_ns[:count]) - recv_ns) / 1e3),
            "levels_mean": float(levels.mean()),
            "levels_p99": float(np.percentile(levels, 99)),
            "lost": self._subscriber.lost - self._lost,
            "crossed": columns.crossed,
            "books_valid": sum(book.is_valid for book in list(self._subscriber.books.values())),
        }


def percentiles(values: "np.ndarray[Any, Any]") -> dict[str, float]:
    if not len(values):
        return {}
    found = np.percentile(values, list(PERCENTILES.values())).tolist()
    return dict(zip(PERCENTILES, found, strict=True))


def serve(sink: Sink) -> None:
    """Answer what standard input says. A failure in here must end the program, which would never answer else."""
    status = 1
    try:
        for line in sys.stdin:
            print(json.dumps(sink.answer(line.strip())), flush=True)
        status = 0
    except Exception:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(status)


def main(endpoint: str, recover: str, *kinds: str) -> None:
    with Subscriber(endpoint, ["status.", *(f"{kind}." for kind in kinds)], recover=recover) as subscriber:
        sink = Sink(subscriber)
        threading.Thread(target=serve, args=(sink,), daemon=True).start()
        sink.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
