"""feedhandler's own Subscriber to trades, depth or books, as a program would use it: each record as an object.

merger ══PUB══▶ SUB this ══ask══▶ relay

Of books it looks at the best prices after each change, and keeps the whole of each, which is saved with the load.

python -m bench.paths.other_subscriber ENDPOINT RECOVER KIND
"""

import struct
import sys
import time
from typing import Any

from bench.recorder import Recorder
from feedhandler.client import Subscriber
from feedhandler.data import wire
from feedhandler.data.book import BookRecord
from feedhandler.data.depth import Depth
from feedhandler.data.trade import Trade

OLD_NEWS = wire.SNAPSHOT | wire.STALE | wire.DOWN
BOOK = struct.Struct("<5d")


def pack(said: Any) -> bytes:
    """Turn what was kept into packed doubles."""
    if isinstance(said, bytes):
        return said
    best, last_id, levels = said
    return BOOK.pack(last_id, *best) + bytes(levels)


def main(endpoint: str, recover: str, kind: str) -> None:
    recorder = Recorder()
    clock, add = time.time_ns, recorder.add_other
    recv_ns, publish_ns = recorder.recv_ns.append, recorder.publish_ns.append
    trade = struct.Struct("<3d").pack
    with Subscriber(endpoint, [f"{kind}.", "status."], recover=recover) as subscriber:
        books = subscriber.books

        def whole() -> list[tuple[Any, int, bytes]]:
            return [
                (t, b.last_id, b.bids.packed() + b.asks.packed())
                for t, b in list(books.items())
                if b.is_valid
            ]

        if kind == "book":
            recorder.books = whole
        recorder.pack = pack
        recorder.serve()
        for record in subscriber:
            now = clock()
            if isinstance(record, wire.Document):
                recorder.statuses.append(b"%d " % record.publish_ns + record.body)
                continue
            if record.flags & OLD_NEWS:
                continue
            if isinstance(record, Trade):
                said = trade(record.price, record.size, record.side)
                add(now, record.topic, int(record.trade_id), said)
            elif isinstance(record, Depth):
                add(now, record.topic, record.exchange_sequence, record.bid_levels + record.ask_levels)
            elif isinstance(record, BookRecord):
                book = books[record.topic]
                add(now, record.topic, record.last_id, (book.best, book.last_id, record.levels))
            else:
                continue
            recv_ns(record.recv_ns)
            publish_ns(record.publish_ns)


if __name__ == "__main__":
    main(*sys.argv[1:])
