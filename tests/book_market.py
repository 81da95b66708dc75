"""A book that is known at each of its ids, as a feed and a merger publish it: for what is to keep one."""

import struct

from feedhandler.data import book, wire
from feedhandler.data.header import HEADER

TOPIC = "book.x.A/B"
HEAD = struct.Struct(HEADER.format)


def packed(body, *, sequence, flags=0, session=100, topic=TOPIC):
    """Return the record that has a body."""
    times = 5, 1_000 + sequence, 2_000 + sequence
    return HEAD.pack(topic.encode(), wire.VERSION, wire.BOOK, flags, session, sequence, *times) + body


def condition(flags, sequence, session=100, topic=TOPIC):
    return wire.Condition(topic, flags=flags, session=session, sequence=sequence)


class Market:
    """One symbol's book. `change` and `snapshot` return the bodies of records; at[id] is the book at an id."""

    def __init__(self, rng, *, levels=40, first_id=1000):
        self.rng = rng
        self.id = first_id
        self.middle = 800 + levels
        self.sides = [
            {price / 4: self.size() for price in range(800, self.middle)},
            {price / 4: self.size() for price in range(self.middle + 1, self.middle + 1 + levels)},
        ]
        self.at = {}
        self._note()

    def size(self):
        return self.rng.randint(1, 99) / 8

    def _note(self):
        bids, asks = self.sides
        self.at[self.id] = sorted(bids.items(), reverse=True), sorted(asks.items())

    def change(self, count=None):
        """One message of the exchange: some levels change, come and go."""
        rng = self.rng
        first_id, self.id = self.id + 1, self.id + rng.randint(1, 4)
        changed = [{}, {}]
        for _ in range(rng.choice((0, 1, 3, 8)) if count is None else count):
            which = rng.randrange(2)
            price = (self.middle + (rng.randint(1, 400) if which else -rng.randint(0, 400))) / 4
            size = 0.0 if rng.random() < 0.4 else self.size()
            changed[which][price] = size
            self.sides[which].pop(price, None)
            if size:
                self.sides[which][price] = size
        self._note()
        return book.bodies(first_id, self.id, *(book.packed_levels(side.items()) for side in changed))

    def snapshot(self):
        return book.bodies(self.id, self.id, *map(book.packed_levels, self.at[self.id]))


class Stream:
    """The records of a topic as the merger numbers them."""

    def __init__(self, market, topic=TOPIC, session=100):
        self.market = market
        self.topic = topic
        self.restart(session)

    def restart(self, session):
        self.session, self.sequence = session, 0

    def publish(self, bodies, flags=0):
        records = []
        for number, body in enumerate(bodies, 1):
            self.sequence += 1
            last = wire.LAST if number == len(bodies) else 0
            records.append(
                packed(
                    body,
                    sequence=self.sequence,
                    flags=flags | last,
                    session=self.session,
                    topic=self.topic,
                )
            )
        return records

    def change(self, count=None):
        return self.publish(self.market.change(count))

    def snapshot(self):
        return self.publish(self.market.snapshot(), wire.SNAPSHOT)

    def condition(self, flags):
        return wire.pack(condition(flags, self.sequence, self.session, self.topic))


def check(kept, market):
    """A book is as it was at its id, or it has nothing."""
    if kept.is_valid:
        assert (kept.bids[:], kept.asks[:]) == market.at[kept.last_id]
    else:
        assert (len(kept.bids), len(kept.asks), kept.reason != "") == (0, 0, True)
        assert all(value != value for value in (*kept.best, kept.known_from, kept.known_to))
