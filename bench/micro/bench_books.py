"""Books: what a record of changes costs who packs it, and who keeps the book.

    frame ──▶ BinanceSpot.decode ──▶ FullBookState           a feed, without its sockets
    levels ──▶ book.bodies                                   a feed packs them
    message ──▶ Follower ──▶ SubscribedBooks ──▶ Book        a subscriber, without its socket
    message ──▶ RelayedBooks                                 the relay

Timed: records of 8 levels, the mean of real traffic, on a book of 1,000 levels a side, near its best prices. Not
timed: sockets. The snapshot is of the whole book, so its row is to be read as one of RECORDS such.
"""

import random
import struct

from material import RECORDS

from feedhandler.client.subscribed_books import SubscribedBooks
from feedhandler.data import book, wire
from feedhandler.data.header import HEADER
from feedhandler.data.kept_book import Book
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.binance import BinanceSpot
from feedhandler.exchanges.books import Base
from feedhandler.relay.relayed_books import RelayedBooks
from feedhandler.transport.follower import Follower

LEVELS = 1000
CHANGED = 8
TOPIC = "book.binance.BTC/USDT"
HEAD = struct.Struct(HEADER.format)
BOOK_SIZE_MAX = book.BOOK.size_max


def message(body: bytes, sequence: int, flags: int = 0) -> bytes:
    return HEAD.pack(TOPIC.encode(), wire.VERSION, wire.BOOK, flags, 100, sequence, 1, 2, 3) + body


def snapshot() -> list[bytes]:
    """Return the records of a snapshot, whose last one has number 8, and id 8."""
    sides = [[(100_000.0 - n, 1.0) for n in range(LEVELS)], [(100_001.0 + n, 1.0) for n in range(LEVELS)]]
    bodies = book.bodies(8, 8, *map(book.packed_levels, sides))
    assert len(bodies) == 8
    return [message(body, number, wire.SNAPSHOT) for number, body in enumerate(bodies, 1)]


def changes(rng: random.Random) -> list[list[tuple[float, float]]]:
    """Return the bids and asks of a message: half of each, some of which go, or come again."""
    return [
        [(top + sign * rng.randrange(60), rng.choice((0.0, 1.0, 2.5))) for _ in range(CHANGED // 2)]
        for top, sign in ((100_000.0, -1), (100_001.0, 1))
    ]


def stream() -> list[bytes]:
    rng = random.Random(7)
    made = []
    for number in range(9, 9 + RECORDS):
        [body] = book.bodies(number, number, *map(book.packed_levels, changes(rng)))
        made.append(message(body, number))
    return made


def joined(take):
    for record in snapshot():
        take(record)


def frames() -> list[memoryview]:
    rng, made = random.Random(7), []
    for number in range(9, 9 + RECORDS):
        sides = (
            b",".join(b'["%.8f","%.8f"]' % level for level in {p: (p, s) for p, s in side}.values())
            for side in changes(rng)
        )
        head = b'{"e":"depthUpdate","E":1790000000250125,"s":"BTCUSDT","U":%d,"u":%d,' % (number, number)
        data = head + b'"b":[%b],"a":[%b]}' % tuple(sides)
        made.append(memoryview(b'{"stream":"btcusdt@depth@100ms","data":%b}' % data))
    return made


def bench_feed(measure):
    messages, line = frames(), Line(0)
    bids = [(100_000.0 - n, 1.0) for n in range(LEVELS)]
    base = Base(8, bids, [(100_001.0 + n, 1.0) for n in range(LEVELS)])
    packed = bytearray(BOOK_SIZE_MAX)

    def prepare():
        market = BinanceSpot()
        market.add(["BTCUSDT"], wire.SIMULATED, "book")
        state = market.states["book"]["BTCUSDT"]
        state.offer([0], base, 1, lambda state: state.pack(packed, 0))
        return (market, state), {}

    def call(market, state):
        for recv_ns, each in enumerate(messages, 10**18):
            market.decode(each, recv_ns, line, lambda state: state.pack(packed, 0))

    (market, state), _ = prepare()
    call(market, state)
    assert state.lines[0].last_id == 8 + RECORDS
    measure("books: feed", f"a frame of Binance of up to {CHANGED} levels", call, prepare)


def bench_pack_changes(measure):
    rng = random.Random(7)
    made = [changes(rng) for _ in range(RECORDS)]

    def call():
        for bids, asks in made:
            book.bodies(1, 2, book.packed_levels(bids), book.packed_levels(asks))

    measure("books: pack", f"{CHANGED} levels", call)


def bench_apply(measure):
    messages = stream()
    records = [wire.unpack(each) for each in messages]

    def prepare():
        kept = Book()
        joined(kept.apply)
        return (kept,), {}

    def call(kept):
        for record in records:
            kept.apply(record)

    (kept,), _ = prepare()
    call(kept)
    assert (kept.is_valid, kept.last_id) == (True, 8 + RECORDS)
    measure("books: keep", f"Book.apply of {CHANGED} levels", call, prepare)


def bench_subscriber(measure):
    messages = stream()
    out: list[wire.Record] = []

    def prepare():
        out.clear()
        books = SubscribedBooks([b"book."], out.append, lambda: 0)
        follower = Follower(out.append, emit_other=books.take)
        joined(follower.take)
        return (follower, books), {}

    def call(follower, books):
        for each in messages:
            follower.take(each)

    (follower, books), _ = prepare()
    call(follower, books)
    assert books.by_topic[TOPIC].last_id == 8 + RECORDS
    assert len(out) == 8 + RECORDS
    measure("books: keep", f"a subscriber's message of {CHANGED} levels", call, prepare)


def bench_relay(measure):
    messages = stream()

    def prepare():
        books = RelayedBooks(lambda: None)
        joined(books.take)
        return (books,), {}

    def call(books):
        for each in messages:
            books.take(each)

    (books,), _ = prepare()
    call(books)
    assert books.valid == 1
    measure("books: keep", f"the relay's message of {CHANGED} levels", call, prepare)


def bench_snapshot(measure):
    kept = Book()
    joined(kept.apply)
    assert len(kept.snapshot()) == 8

    def call():
        for _ in range(RECORDS):
            kept.snapshot()

    measure("books: snapshot", f"{LEVELS} levels a side", call)
