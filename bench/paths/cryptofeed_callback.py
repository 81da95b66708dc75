"""cryptofeed in its usual form: a coroutine of ours is its callback, in its process.

    exchange ══WS══▶ this

Its ticker has bid and ask as Decimal and no sizes; those are in the exchange's message, which comes along as
`raw`. Whoever computes with them needs floats. Of books the callback looks at the best prices after each change;
what has changed is kept as it comes, and becomes floats when the load is over.

    python -m bench.paths.cryptofeed_callback HOST:PORT KIND SYMBOL…
"""

import struct
import sys
import time
from typing import Any

from bench.paths import cryptofeed_binance
from bench.recorder import Recorder

BOOK = struct.Struct("<5d")


def pack(said: Any) -> bytes:
    """Turn what was kept into packed doubles."""
    if isinstance(said, bytes):
        return said
    *best, last_id, delta = said
    flat = [float(value) for side in ("bid", "ask") for level in delta[side] for value in level]
    return BOOK.pack(last_id, *best) + struct.pack(f"<{len(flat)}d", *flat)


def main(address: str, kind: str, symbols: list[str]) -> None:
    recorder = Recorder()
    add, other, clock = recorder.add, recorder.add_other, time.time_ns
    trade = struct.Struct("<3d").pack
    books: dict[str, Any] = {}

    async def on_ticker(ticker: Any, receipt_timestamp: float) -> None:
        now, raw = clock(), ticker.raw
        add(now, ticker.symbol, float(ticker.bid), float(raw["B"]), float(ticker.ask), float(raw["A"]))

    async def on_trade(each: Any, receipt_timestamp: float) -> None:
        said = trade(float(each.price), float(each.amount), 1.0 if each.side == "buy" else 2.0)
        other(clock(), each.symbol, int(each.id), said)

    async def on_book(book: Any, receipt_timestamp: float) -> None:
        now, symbol, number = clock(), book.symbol, book.sequence_number
        books[symbol] = book
        bid, bid_size = book.book.bids.index(0)
        ask, ask_size = book.book.asks.index(0)
        said = float(bid), float(bid_size), float(ask), float(ask_size), number, book.delta
        if book.delta is not None:  # else it is a base
            other(now, symbol, number, said)

    def whole() -> list[tuple[Any, int, bytes]]:
        found = []
        for symbol, each in list(books.items()):
            sides = (each.book.bids.to_list(), each.book.asks.to_list())
            flat = [float(value) for side in sides for level in side for value in level]
            found.append((symbol, each.sequence_number, struct.pack(f"<{len(flat)}d", *flat)))
        return found

    recorder.books = whole
    recorder.pack = pack
    recorder.serve()
    callback = {"ticker": on_ticker, "trade": on_trade, "book": on_book}[kind]
    cryptofeed_binance.run(address, symbols, callback, kind)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
