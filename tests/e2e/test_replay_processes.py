"""A recording that is served, through real feeds, merger and subscriber: the records of offline decoding come."""

import json
import signal
import time

import msgspec
import pytest
from harness import PATIENCE_S, wait_until
from small_recording import T0, binance_items, book_base, listed, match, opened, plan, put, received

from feedhandler import replay
from feedhandler.client import Subscriber
from feedhandler.data import wire
from feedhandler.data.kept_book import Book
from feedhandler.recordings.traffic import Item, What
from feedhandler.transport.files import read_recorder_status

KUCOIN = "wss://ws-api-spot.kucoin.com/"
# As whoever received it knows them: all else is the exchange's.
OURS = {"session": 0, "sequence": 0, "recv_ns": 0, "publish_ns": 0}
# Of a feed that began at another moment, and of a clock that may be before that of the recording.
UNLIKE = wire.SNAPSHOT | wire.BAD_EXCHANGE_TIME


def content(record):
    """What the exchange has said, as bytes."""
    return wire.pack(msgspec.structs.replace(record, flags=record.flags & ~UNLIKE, **OURS))


def of_kind(records, kind):
    return [content(each) for each in records if each.kind == kind]


def changes(records):
    """The records of a book that are no snapshot: how it begins depends on when it was asked for."""
    return [content(each) for each in records if each.kind == wire.BOOK and not each.flags & wire.SNAPSHOT]


def recording(root):
    """Two exchanges, 4 s of the first, whose changes begin with a base."""
    head = [plan("binance", T0), listed(), opened(), book_base(100)]
    put(root, "binance", T0, head, binance_items(120, step_ns=10_000_000))
    row = {"symbol": "ETH-USDT", "name": "ETH-USDT", "baseCurrency": "ETH", "quoteCurrency": "USDT"}
    row |= {"enableTrading": True, "priceIncrement": "0.01", "baseIncrement": "0.0001", "market": "USDS"}
    body = json.dumps({"code": "200000", "data": [row]}).encode()
    symbols = Item(What.ANSWERED, T0, number=1, name="https://api.kucoin.com/api/v2/symbols", data=body)
    matches = [received(n, T0 + n * 30_000_000, match(n)) for n in range(1, 101)]
    put(root, "kucoin", T0, [plan("kucoin", T0), symbols, opened(KUCOIN)], matches)
    return root


class Played:
    """Feeds and a subscriber on a recording; records has what came."""

    def __init__(self, stack, root, **settings):
        self.stack = stack
        self.root = root
        stack.config.write_text(
            stack.config.read_text(encoding="utf-8").replace("simulated = true", "replay = true"),
            encoding="utf-8",
        )
        self.records = []

    def run(self, speed, is_enough):
        s = self.stack
        topics = ["ticker.", "trade.", "book."]
        with Subscriber(s.endpoint, topics=topics) as subscriber:
            s.start("merger", *s.exchanges)
            s.processes["replay"] = s.popen(
                "replay", str(self.root), "-c", str(s.config), "--speed", speed, log="replay"
            )
            ends = time.monotonic() + PATIENCE_S
            while not is_enough(self.records):
                assert time.monotonic() < ends, (len(self.records), s.log("replay"))
                self.records += subscriber.receive_many(timeout_s=0.2)
        assert s.processes["replay"].wait(PATIENCE_S) == 0


@pytest.mark.parametrize("speed", ["1", "10", "max"])
def test_records_are_those_of_offline_decoding(stack, tmp_path, speed):
    root = recording(tmp_path / "recordings")
    offline = list(replay.records(root))
    counts = {kind: len(of_kind(offline, kind)) for kind in (wire.TRADE, wire.TICKER)}
    assert counts == {wire.TRADE: 220, wire.TICKER: 120}

    def is_enough(records):
        book = changes(records)
        is_there = bool(book) and book[-1] == changes(offline)[-1]
        return is_there and all(len(of_kind(records, kind)) >= count for kind, count in counts.items())

    s = stack(
        exchanges=("binance", "kucoin"),
        sim_table=False,
        extra={
            "binance": 'kinds = ["ticker", "trade", "book"]\nsymbols = ["BTC/USDT"]',
            "kucoin": 'kinds = ["trade"]\nsymbols = ["ETH/USDT"]',
        },
    )
    played = Played(s, root)
    played.run(speed, is_enough)
    found = played.records
    assert all(each.flags & wire.REPLAY for each in found)
    for exchange in s.exchanges:
        ours = [each for each in found if each.exchange == exchange and each.kind == wire.TRADE]
        theirs = [each for each in offline if each.exchange == exchange and each.kind == wire.TRADE]
        assert [each.sequence for each in ours] == [each.sequence for each in theirs]
        assert of_kind(ours, wire.TRADE) == of_kind(theirs, wire.TRADE)
    live = [each for each in found if not each.flags & wire.DOWN]
    assert of_kind(live, wire.TICKER) == of_kind(offline, wire.TICKER)
    wanted = changes(offline)
    assert changes(found)[-len(wanted) :] == wanted
    assert levels(found) == levels(offline)


def levels(records):
    """The book at the last change, as a subscriber has it."""
    book, last = Book(), None
    for record in records:
        if record.kind == wire.BOOK:
            book.apply(record)
            if book.is_valid:
                last = book.last_id, list(book.bids), list(book.asks)
    return last


def test_what_the_recorder_wrote_of_simulated_markets_is_played_with_faults(stack, tmp_path):
    """Each trade once, though a connection is cut; books valid; flags of both."""
    recordings = tmp_path / "recordings"
    s = stack(extra='kinds = ["ticker", "trade", "depth", "book"]', rate=300)
    original = s.config.read_text(encoding="utf-8")
    with s.config.open("a", encoding="utf-8") as file:
        file.write(f'[recorder]\ndirectory = "{recordings}"\nmin_free_gb = 0\n')
    s.start("recorder", "sim", "merger", *s.exchanges)
    s.wait_live()

    def is_recorded():
        found = read_recorder_status(str(s.directory / "run"))
        return found is not None and all(found.feeds[name].received > 3000 for name in s.exchanges)

    wait_until(is_recorded, "some traffic")
    for name in (*s.exchanges, "recorder", "merger", "sim"):
        s.kill(name, signal.SIGTERM)
    offline = list(replay.records(recordings, kinds=["trade"]))
    printed = s.run("replay", str(recordings), "--print-config")
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.count("simulated = true") == len(s.exchanges)
    assert '"depth"' in printed.stdout
    text = original.replace("simulated = true", "simulated = true\nreplay = true")
    s.config.write_text(text.partition("[sim]")[0], encoding="utf-8")
    wanted = {name: of_kind([r for r in offline if r.exchange == name], wire.TRADE) for name in s.exchanges}
    found = {name: [] for name in s.exchanges}
    books = {}
    is_cut = False
    with Subscriber(s.endpoint, topics=["trade.", "book."]) as subscriber:
        s.start("merger", *s.exchanges)
        s.processes["replay"] = s.popen("replay", str(recordings), "-c", str(s.config), log="replay")
        ends = time.monotonic() + PATIENCE_S
        while any(not found[name] or found[name][-1] != wanted[name][-1] for name in s.exchanges):
            assert time.monotonic() < ends, s.log("replay")
            for record in subscriber.receive_many(timeout_s=0.2):
                assert record.flags & wire.REPLAY
                assert record.flags & wire.SIMULATED
                if record.kind == wire.TRADE:
                    found[record.exchange] += of_kind([record], wire.TRADE)
                elif record.kind == wire.BOOK:
                    books.setdefault(record.topic, Book()).apply(record)
            if not is_cut and len(found["bybit"]) > 100:
                is_cut = True
                assert b'"ok": true' in s.fault("bybit", "rst")
    assert is_cut
    for name in ("binance", "kucoin"):
        assert found[name] == wanted[name]
        assert {topic.split(".")[1] for topic, book in books.items() if book.is_valid} >= {name}
    assert len(found["bybit"]) == len({*found["bybit"]})
