"""A feed, a merger with its file, and a relay's books, without processes: for who joins, and misses something."""

import random

import msgspec
from book_market import Market, check, packed
from test_any_size import World

from feedhandler.data import retransmission, wire
from feedhandler.data.kept_book import Book
from feedhandler.relay.relayed_books import RelayedBooks

NATIVE, TOPIC = "book.binance.BTCUSDT", "book.binance.BTC/USDT"
OTHER_NATIVE, OTHER = "book.binance.ETHUSDT", "book.binance.ETH/USDT"


class Play:
    """A feed, a merger, and a relay that hears as much of it as the test lets it."""

    def __init__(self, path, rng=None, recent=16):
        self.world = World(path, recent=recent)
        self.market = Market(rng or random.Random(1))
        self.restart()

    def restart(self):
        """Have another relay."""
        self.books = RelayedBooks(lambda: self.world.reader)
        self.books.join()

    def send(self, bodies, flags=0, *, native=NATIVE, is_heard=True):
        start = len(self.world.each.sent)
        message = b"".join(packed(body, sequence=0, flags=flags, topic=native) for body in bodies)
        self.world.merger.on_message(message)
        if is_heard:
            self.hear(start)
        return self.world.each.sent[start:]

    def hear(self, start):
        for message in self.world.each.sent[start:]:
            self.books.take(message)

    def snapshot(self, **how):
        return self.send(self.market.snapshot(), wire.SNAPSHOT, **how)

    def change(self, **how):
        return self.send(self.market.change(), **how)

    def condition(self, flags, *, is_heard=True):
        start = len(self.world.each.sent)
        self.world.merger.on_message(wire.pack(wire.Condition(NATIVE, flags=flags)))
        if is_heard:
            self.hear(start)

    def in_force(self):
        """Return what somebody who joins now gets of the topic: its condition, if it has one."""
        topic = wire.padded(TOPIC)
        return self.world.merger.last(topic) if topic in self.world.merger.topics(topic) else None

    def ask(self, *topics, start=0):
        request = msgspec.json.encode(retransmission.Request(topics=list(topics or [TOPIC]), start=start))
        found = retransmission.answer(request, self.world.reader, {}, 0, self.books.last)
        head = msgspec.json.decode(found.frames[0], type=retransmission.Head)
        records = list(wire.split(found.frames[1]))
        assert len(records) == head.records
        return head, records

    def answered(self):
        """Return the book that an answer makes, and what its records are."""
        made = Book()
        _, records = self.ask()
        for record in records:
            made.apply(record)
        check(made, self.market)
        return made, [wire.unpack(record) for record in records]

    @property
    def newest(self):
        return self.world.reader.number(self.world.reader.topics()[TOPIC])

    def is_current(self):
        made, records = self.answered()
        if not made.is_valid:
            return False
        assert made.last_id == self.market.id
        assert {r.sequence for r in records} == {made.sequence} == {self.newest}
        assert all(r.is_snapshot for r in records)
        return True

    def is_invalid(self, flag=wire.INVALID):
        made, [condition] = self.answered()
        assert (condition.kind, int(condition.flags)) == (wire.CONDITION, flag | wire.SNAPSHOT)
        assert condition.sequence == self.newest
        return not made.is_valid
