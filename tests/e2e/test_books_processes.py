"""Books through a real merger and relay, of records that this test writes: right, or not valid, whatever dies.

    this test as a feed ──▶ merger ──▶ subscribers, over cut connections
                              └──▶ relay ──▶ who joins late

Each book is known at each of its ids, so any book at any time is either that of its id, or has nothing.
"""

import asyncio
import contextlib
import random
import re
import subprocess
import threading
import time

import msgspec
import pytest
import zmq
from book_market import Market, check, condition, packed
from harness import PATIENCE_S, Stack, free_ports, wait_until
from test_other_hosts import curve, secure
from test_recovery import Proxy
from toolchains import BOOKS

from feedhandler.client import AsyncSubscriber, Subscriber
from feedhandler.data import kept_book, wire
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.status import FeedStatus
from feedhandler.transport import keys

pytestmark = pytest.mark.e2e
SYMBOLS = {"BTCUSDT": ("BTC", "USDT"), "ETHUSDT": ("ETH", "USDT"), "SOLUSDT": ("SOL", "USDT")}
QUIET = "SOLUSDT"
EVERY_S = 0.02


def topic_of(native):
    return f"book.binance.{'/'.join(SYMBOLS[native])}"


class Feed:
    """A feed's side of the hop, in a thread: some symbols change all the time, one never."""

    def __init__(self, endpoint):
        self.markets = {native: Market(random.Random(n), levels=300) for n, native in enumerate(SYMBOLS)}
        self.lock = threading.Lock()
        self.is_silent = False  # it hangs: not even heartbeats
        self.does_snapshots = True  # when a merger joins
        self.joins = 0
        self._endpoint = endpoint
        self._is_stopping = False
        self._orders = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        context = zmq.Context()
        self._socket = sock = context.socket(zmq.XPUB)
        sock.set(zmq.LINGER, 0)
        sock.set(zmq.RECONNECT_IVL, 20)
        sock.set(zmq.SNDHWM, 0)
        sock.set(zmq.IMMEDIATE, 1)  # nothing is kept for a merger that is to come
        sock.set(zmq.XPUB_VERBOSE, 1)  # the next merger subscribes as the last one did
        sock.connect(self._endpoint)
        beat_s = 0.0
        while not self._is_stopping:
            if self.is_silent:
                time.sleep(EVERY_S)
                continue
            while sock.poll(0):
                if sock.recv()[:1] == b"\x01":
                    self._join()
            with self.lock:
                while self._orders:
                    self._orders.pop(0)()
                for native, market in self.markets.items():
                    if native != QUIET:
                        self._send(native, market.change(300 if market.rng.random() < 0.01 else None))
            if time.monotonic() - beat_s > 0.1:
                beat_s = time.monotonic()
                self._document(wire.HEARTBEAT, {"pid": 7, "shard": "1/1"})
            time.sleep(EVERY_S)
        context.destroy(linger=0)

    def _join(self):
        listing = instrument_list("binance", 1, [Instrument(n, b, q) for n, (b, q) in SYMBOLS.items()])
        self._document(wire.INSTRUMENTS, listing)
        self.joins += 1
        status = FeedStatus(
            exchange="binance", pid=7, started_ns=time.time_ns(), state="live", resync=self.joins
        )
        self._document(wire.STATUS, status)
        if self.does_snapshots:
            for native in SYMBOLS:
                self._snapshot(native)

    def _document(self, kind, body):
        document = wire.Document(
            wire.topic(kind, "binance"), kind=kind, body=msgspec.json.encode(body), recv_ns=time.time_ns()
        )
        self._socket.send(wire.pack_document(document))

    def _send(self, native, bodies, flags=0):
        topic = f"book.binance.{native}"
        records = [
            packed(body, sequence=0, session=0, flags=flags | wire.SIMULATED, topic=topic) for body in bodies
        ]
        self._socket.send(b"".join(records))

    def _snapshot(self, native):
        self._send(native, self.markets[native].snapshot(), wire.SNAPSHOT)

    def order(self, order):
        """Have the thread do something, between two messages."""
        with self.lock:
            self._orders.append(order)

    def snapshot(self, *natives):
        for native in natives or SYMBOLS:
            self.order(lambda native=native: self._snapshot(native))

    def condition(self, native, flags):
        record = wire.pack(condition(flags, 0, 0, f"book.binance.{native}"))
        self.order(lambda: self._socket.send(record))

    def change(self, native):
        self.order(lambda: self._send(native, self.markets[native].change(1)))

    def lose(self, native):
        """Have the market change, and nobody hear of it."""
        self.order(lambda: self.markets[native].change(1))

    def close(self):
        self._is_stopping = True
        self._thread.join(PATIENCE_S)


class Reader:
    """A subscriber in a thread; each of its books is looked at after each record."""

    def __init__(self, feed, endpoint, recover, topics=("book.",), **settings):
        self.feed = feed
        self.error = None
        self.records = 0
        self._is_stopping = False
        self._arguments = endpoint, list(topics)
        self._settings = {"recover": recover, **settings}
        self.books = {}
        self.reasons = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        with Subscriber(*self._arguments, **self._settings) as subscriber:
            self.books = subscriber.books
            try:
                while not self._is_stopping:
                    record = subscriber.receive(0.1)
                    self.records += record is not None
                    for native, market in self.feed.markets.items():
                        kept = subscriber.books.get(topic_of(native))
                        if kept is None:
                            continue
                        self.reasons.add(kept.reason)
                        if kept.is_valid and kept.last_id not in market.at:
                            with self.feed.lock:  # it is being noted
                                pass
                        check(kept, market)
            except Exception as exc:  # noqa: BLE001  it is told by the test's thread
                self.error = exc

    def is_valid(self, *natives):
        if self.error is not None:
            raise self.error
        found = [self.books.get(topic_of(native)) for native in natives or SYMBOLS]
        return all(each is not None and each.is_valid for each in found)

    def wait_valid(self, *natives, what=""):
        wait_until(
            lambda: self.is_valid(*natives), lambda: f"{what}: {dict(self.books)}; {self.feed.joins} joins"
        )

    def is_current(self, native):
        """Of a symbol that is quiet, the newest."""
        return self.is_valid(native) and self.books[topic_of(native)].last_id == self.feed.markets[native].id

    def close(self):
        self._is_stopping = True
        self._thread.join(PATIENCE_S)
        if self.error is not None:
            raise self.error


@pytest.fixture
def world(tmp_path):
    with contextlib.ExitStack() as parts:
        stack = Stack(tmp_path, exchanges=("binance",), sim_table=False)
        parts.callback(stack.close)
        stack.start("merger", "relay")
        feed = Feed(f"ipc://{tmp_path}/run/feeds.ipc")
        parts.callback(feed.close)
        yield World(stack, feed, parts)


class World:
    def __init__(self, stack, feed, parts):
        self.stack, self.feed, self._parts = stack, feed, parts

    def reader(self, endpoint=None, **settings):
        reader = Reader(self.feed, endpoint or self.stack.endpoint, self.stack.recover, **settings)
        self._parts.callback(reader.close)
        return reader

    def book(self, *topics):
        """Return what the five lines of the documents get."""
        with Subscriber(self.stack.endpoint, list(topics), recover=self.stack.recover) as subscriber:
            for record in subscriber:
                kept = subscriber.books[record.topic]
                if kept.is_valid:
                    return kept
        return None


def test_books_are_right_or_not_valid_whoever_is_cut_off_or_started_again(world):
    stack, feed = world.stack, world.feed
    first = world.reader()
    first.wait_valid(what="with the first snapshots")

    # Late, and of a symbol that does not change at all.
    late = world.reader()
    late.wait_valid(what="of one who joins late")
    quiet = world.book(topic_of(QUIET))
    assert quiet.best.bid < quiet.best.ask
    check(quiet, feed.markets[QUIET])

    # Connections are cut; what changes meanwhile, and then no more, is known when a book is valid again.
    with contextlib.closing(Proxy(stack.ports["ticks"])) as proxy:
        cut_off = world.reader(proxy.endpoint)
        cut_off.wait_valid(what="by way of the proxy")
        for _ in range(5):
            connects = proxy.connects
            proxy.cut()
            feed.change(QUIET)
            wait_until(lambda before=connects: proxy.connects > before, "another connection")
            wait_until(lambda: cut_off.is_current(QUIET), "the newest of what is quiet")
            cut_off.wait_valid(what="after a cut")
        cut_off.close()

    # The relay dies: nobody who has a book notices. Who joins then has it with the next snapshot.
    stack.kill("relay")
    feed.change(QUIET)
    stack.start("relay")
    wait_until(lambda: first.is_current(QUIET) and late.is_current(QUIET), "changes without a relay")
    joined = world.reader()
    before = first.records
    wait_until(lambda: first.records > before + 300, "more than the merger's file has")
    first.wait_valid(what="without the relay that had them")
    feed.snapshot()
    joined.wait_valid(what="with snapshots of the stream")
    once_more = world.reader()
    once_more.wait_valid(what="of the relay, which has the books again")

    # The feed hangs for a while, and goes on where it was: DOWN, and no snapshot is needed.
    feed.is_silent = True
    wait_until(lambda: not any(r.is_valid(n) for r in (first, late) for n in SYMBOLS), "DOWN")
    wait_until(lambda: kept_book.DOWN in first.reasons, "the reason")
    feed.is_silent = False
    for reader in (first, late, joined, once_more):
        reader.wait_valid(what="after DOWN")

    # A change is lost on the way to the merger, or the feed has doubts itself: of one symbol alone.
    feed.lose("BTCUSDT")
    wait_until(
        lambda: first.is_valid("ETHUSDT", QUIET) and not first.is_valid("BTCUSDT"), "the lost change is seen"
    )
    feed.condition("ETHUSDT", wire.INVALID)
    wait_until(lambda: not first.is_valid("ETHUSDT"), "INVALID")
    feed.snapshot("BTCUSDT", "ETHUSDT")
    for reader in (first, late, joined, once_more):
        reader.wait_valid(what="with new snapshots")

    # The merger dies: another session, which the feed begins with snapshots.
    stack.kill("merger")
    time.sleep(1.1)  # a session is a second
    stack.start("merger")
    for reader in (first, late, joined, once_more):
        reader.wait_valid(what="of the second merger")
    world.reader().wait_valid(what="of the second merger, for one who joins")
    assert {kept.session for kept in first.books.values()} == {kept.session for kept in late.books.values()}


class Program:
    """An example in another language, whose lines are looked at."""

    LINE = re.compile(
        r"(\S+) #(\d+) id (\d+) bids (\d+) asks (\d+)(?: bid (\S+) x (\S+))?(?: ask (\S+) x (\S+))?"
    )

    def __init__(self, command, market, *arguments):
        self.market = market
        self.valid, self.invalid, self.last_id, self.error = 0, [], 0, None
        self.process = subprocess.Popen(
            [*map(str, command), *arguments], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        for line in self.process.stdout:
            try:
                self._take(line.strip())
            except Exception as exc:  # noqa: BLE001  it is told by the test's thread
                self.error = exc
                return

    def _take(self, line):
        if "not valid" in line:
            self.invalid.append(line)
            self.last_id = 0
            return
        _, _, last_id, bids, asks, *best = self.LINE.fullmatch(line).groups()
        sides = self.market.at[int(last_id)]
        assert (int(bids), int(asks)) == tuple(map(len, sides)), line
        assert [float(word) for word in best] == [*sides[0][0], *sides[1][0]], line
        self.valid += 1
        self.last_id = int(last_id)

    def wait(self, condition, what):
        def is_true():
            if self.error is not None:
                raise self.error
            assert self.process.poll() is None
            return condition()

        wait_until(is_true, lambda: f"{what}: {self.valid}, {self.invalid[-3:]}")

    def close(self):
        self.process.kill()
        self.process.wait()
        self._thread.join(PATIENCE_S)


@pytest.mark.parametrize("build", BOOKS.values(), ids=BOOKS)
def test_examples_in_other_languages_have_the_same_books(world, build, tmp_path):
    command, feed, stack = build(tmp_path), world.feed, world.stack
    world.reader().wait_valid(what="with the first snapshots")
    with contextlib.ExitStack() as parts:
        proxy = parts.enter_context(contextlib.closing(Proxy(stack.ports["ticks"])))
        programs = {}
        for native in ("BTCUSDT", QUIET):
            program = Program(command, feed.markets[native], topic_of(native), proxy.endpoint, stack.recover)
            programs[native] = parts.enter_context(contextlib.closing(program))
        quiet, busy = programs[QUIET], programs["BTCUSDT"]
        quiet.wait(lambda: quiet.last_id == feed.markets[QUIET].id, "one that joins a quiet book")
        busy.wait(lambda: busy.valid > 50, "one that joins in mid-stream")

        proxy.cut()
        feed.change(QUIET)
        quiet.wait(lambda: quiet.last_id == feed.markets[QUIET].id > 1000, "what changed meanwhile")
        before = busy.valid
        busy.wait(lambda: busy.valid > before + 20, "after the cut")

        feed.condition("BTCUSDT", wire.INVALID)
        busy.wait(lambda: busy.invalid and not busy.last_id, "INVALID")
        assert busy.invalid[-1].endswith(kept_book.INVALID)
        feed.snapshot("BTCUSDT")
        before = busy.valid
        busy.wait(lambda: busy.valid > before + 20, "after the snapshot")


def test_a_subscriber_of_another_host_has_the_books_too(tmp_path):
    for name in ("central", "desk"):
        keys.make(tmp_path / "keys", name)
    keys.authorize(f"{tmp_path}/keys/desk.key", tmp_path / "clients")
    ticks, recover = (f"tcp://127.0.0.1:{port}" for port in free_ports(2))
    with contextlib.ExitStack() as parts:
        stack = Stack(tmp_path, exchanges=("binance",), sim_table=False)
        secure(stack, tmp_path, relay=f'remote_ticks = ["{ticks}"]\nremote_recover = ["{recover}"]')
        parts.callback(stack.close)
        stack.start("merger", "relay")
        feed = Feed(f"ipc://{tmp_path}/run/feeds.ipc")
        parts.callback(feed.close)
        here = Reader(feed, stack.endpoint, stack.recover)
        parts.callback(here.close)
        here.wait_valid(what="on this host")
        there = Reader(feed, ticks, recover, curve=curve(tmp_path, "desk"))
        parts.callback(there.close)
        there.wait_valid(what="on another host")
        stack.kill("relay")
        feed.change(QUIET)
        wait_until(lambda: not there.is_valid(QUIET), "the end of the connection")
        stack.start("relay")
        before = here.records
        wait_until(lambda: here.records > before + 300, "more than the merger's file has")
        feed.snapshot()
        there.wait_valid(what="with the next snapshots")
        wait_until(lambda: there.is_current(QUIET), "the newest of what is quiet")


def test_asyncio_has_the_same_books_and_waits_for_them(world):
    async def main():
        topics = [topic_of(native) for native in SYMBOLS]
        async with AsyncSubscriber(
            world.stack.endpoint, ["book."], recover=world.stack.recover
        ) as subscriber:
            await subscriber.wait_for(*topics, timeout_s=PATIENCE_S)
            for native, topic in zip(SYMBOLS, topics, strict=True):
                assert subscriber.book(topic).is_valid
                check(subscriber.book(topic), world.feed.markets[native])
            return {record.topic async for record in _some(subscriber, 20)}

    async def _some(subscriber, count):
        async for record in subscriber:
            yield record
            if (count := count - 1) == 0:
                return

    assert asyncio.run(main())
