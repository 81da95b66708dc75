"""Our program with one kind and one exchange more, which exist in tests alone: what two files and two lines add.

    python deals.py FOLDER feed example -c FILE     any command of `feedhandler`
    python deals.py FOLDER subscriber TICKS RECOVER    a subscriber to deals that prints what it gets

FOLDER has `example.py`, the adapter of docs/exchanges.md: the exchange is that one, with deals.
"""

import sys
from typing import Annotated

import msgspec

from feedhandler.data import header, kinds
from feedhandler.data.layout import Description, Retention, char, f64, layout, u64

CODE = 210


class Deal(header.Record):
    """A record that counts, 40 bytes longer than a ticker."""

    kind: int = CODE
    number: Annotated[int, u64("", "counts the deals of a symbol")] = 0
    price: Annotated[float, f64("quote currency", "its price")] = 0.0
    text: Annotated[str, char(112, "for its length")] = ""


DEAL = Description(
    CODE, "deal", "a test", Retention.EVERY, Deal, layout("deal", "one deal", Deal, header.HEADER)
)


def register():
    """Add the kind before anything is made of the registry."""
    assert "feedhandler.data.wire" not in sys.modules
    kinds.KINDS += (DEAL,)
    kinds.BY_CODE[CODE], kinds.NAMES[CODE], kinds.EVERY[CODE] = DEAL, DEAL.name, True
    kinds.TOPIC_WORDS += (DEAL.name,)
    kinds.RECORD_WORDS += (DEAL.name,)


def market(spot):
    """Return the example's market with deals: frames of any number of them."""

    class Deals(msgspec.Struct):
        deals: list[tuple[str, int, float]]

    decode_deals = msgspec.json.Decoder(Deals).decode

    class Dealing(spot):
        kinds = ("ticker", "deal")

        def topics(self, native, kind):
            return (f"deal.{native}",) if kind == "deal" else super().topics(native, kind)

        def decode(self, payload, recv_ns, line, emit):
            if not bytes(payload[:8]).startswith(b'{"deals"'):
                return super().decode(payload, recv_ns, line, emit)
            deals = decode_deals(payload).deals
            for index, (native, number, price) in enumerate(deals, 1):
                state = self.states["deal"].get(native)
                if state is not None and state.accept(0, line, number, recv_ns):
                    flags = header.LAST if index == len(deals) else 0
                    state.put(Deal("", number=number, price=price, flags=flags))
                    state.on_news(recv_ns)
                    emit(state)
            return None

    return Dealing


def subscribe(endpoint, recover):
    """Print what a subscriber gets, a line each: deals, conditions, and at last what it has counted."""
    from feedhandler.client import Subscriber

    with Subscriber(endpoint, topics=["deal."], recover=recover) as subscriber:

        def show(record):
            words = [
                record.topic,
                record.session,
                record.sequence,
                int(record.flags),
                getattr(record, "number", 0),
            ]
            print(msgspec.json.encode([record.kind, *words]).decode(), flush=True)

        counts = None
        while True:
            for record in subscriber.receive_many(timeout_s=0.2):
                show(record)
            now = [subscriber.lost, subscriber.recovered, subscriber.notice.gap, subscriber.undecodable]
            if now != counts:
                counts = now
                print(msgspec.json.encode([0, *counts]).decode(), flush=True)


def main():
    folder = sys.argv.pop(1)
    register()
    sys.path.insert(0, folder)
    if sys.argv[1] == "subscriber":
        return subscribe(*sys.argv[2:])
    from example import Spot

    from feedhandler import exchanges
    from feedhandler.exchanges.base import Exchange

    exchanges.EXCHANGES["example"] = Exchange("example", (market(Spot),))
    from feedhandler.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
