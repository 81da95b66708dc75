"""Compiled code and memory: whatever is asked of it, in whatever order, it answers or refuses, and never crashes.

Calls that could end the process are made in a child, which tells by its status how it ended. `make sanitize` runs
these tests with sanitizers, which see a write behind a buffer that harms nobody here.
"""

import contextlib
import gc
import itertools
import mmap
import os
import random
import signal
import socket
import struct
import time
import types
from collections.abc import Callable

import pytest
import twins
from patience import PATIENCE_S

from feedhandler.data import board_layout, ticker, wire
from feedhandler.data.contracts import Fanout
from feedhandler.exchanges.books import ChainRule
from feedhandler.feed import batch
from feedhandler.recordings.packing import pack
from feedhandler.recordings.runs import Run
from feedhandler.recordings.traffic import Item, What
from feedhandler.transport import follower, loop, zmtp
from feedhandler.transport import memory as shared

pytestmark = pytest.mark.e2e
TOPIC = wire.padded("ticker.x.A")
RECORD = wire.pack_ticker(wire.Ticker("ticker.x.A", flags=8, recv_ns=1))
DEPTH = 2
BOARD_SIZE = board_layout.HEADER_SIZE + 3 * board_layout.BOARD.slot_size(DEPTH)
RING_SIZE = board_layout.HEADER_SIZE + 3 * board_layout.RING.slot_size(DEPTH)
JUNK = (
    None,
    -1,
    0,
    1,
    2**31,
    2**63,
    1.5,
    b"",
    b"x",
    b"@latest",
    TOPIC,
    RECORD,
    bytearray(RECORD),
    memoryview(b""),
    "x",
    [],
    {},
)
FOR_EVER = {"run_once", "run_until", "wait"}  # with a time to wait that is far enough away


class Broken(Exception):
    """What a part raises that is not ours."""


def ends_well(act: Callable[[], object]) -> bool:
    """Run it in a child; False if that crashed, or raised."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            signal.alarm(int(PATIENCE_S))
            gc.freeze()  # what the tests before have left is not the child's to look through: a minute, together
            act()
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return status == 0


def ask_everything(thing: object) -> None:
    """Call every method with everything, set every attribute to everything."""
    rng = random.Random(1)
    names = [name for name in dir(type(thing)) if not name.startswith("__")] + ["__init__", "__call__"]
    for name in names:
        value = None
        with contextlib.suppress(Exception):  # of a property
            value = getattr(thing, name, None)
        if callable(value) and not isinstance(value, type):
            junk = (None, -1, 0, b"") if name in FOR_EVER else JUNK
            pairs = itertools.product(junk, repeat=2)
            triples = [rng.choices(junk, k=3) for _ in range(300)]
            for arguments in ((), *((each,) for each in junk), *pairs, *triples):
                _quietly(value, *arguments)
        else:
            for other in JUNK:
                _quietly(setattr, thing, name, other)


def _quietly(call, *arguments):
    with contextlib.suppress(Exception):
        call(*arguments)


def buffer(size: int = BOARD_SIZE) -> mmap.mmap:
    """Memory as a board has it, all zero but for the topic of the first slot."""
    made = mmap.mmap(-1, size)
    if size >= board_layout.HEADER_SIZE + len(TOPIC):
        made[board_layout.HEADER_SIZE : board_layout.HEADER_SIZE + len(TOPIC)] = TOPIC
    return made


class Events:
    """A loop that calls nobody."""

    def __getattr__(self, name):
        return lambda *_: None


class End(Fanout):
    """Where things are sent, until it breaks at a call; everything is wanted."""

    def __init__(self):
        self.is_wanted = True
        self.sent = []
        self.breaks_at = None  # the name of a call
        self.calls = 0

    def _call(self, name):
        self.calls += 1
        if self.breaks_at == name:
            raise Broken

    def send(self, *message):
        self._call("send")
        self.sent.append(tuple(map(bytes, message)))

    def flush(self):
        self._call("flush")

    def clock(self):
        self._call("clock")
        return 1_790_000_000_000_000_000 + self.calls


def make(twin, name, tmp_path):
    """Return an object of a class as it is used, with what it needs."""
    end = End()
    if name == "Loop":
        return twin.Loop()
    if name in {"Traffic", "Sink", "Topic", "Gatherer"}:
        return getattr(twin, name)()
    if name in {"Timer", "Timers"}:
        of = getattr(loop, name)
        return of(0, end.flush) if name == "Timer" else of()
    if name == "Route":
        return twin.Route(TOPIC, twin.Traffic())
    if name == "Loss":
        return follower.Loss(1, 1)
    if name == "Follower":
        return twin.Follower(lambda record: None)
    if name == "Arbitration":
        return twin.Arbitration()
    if name == "Line":
        return twin.Line(0)
    if name == "State":
        return twin.State(ticker.TICKER, (), topic="ticker.x.A", native="A")
    if name == "TickerState":
        return twin.TickerState(topic="ticker.x.A", native="A")
    if name == "RecordState":
        return twin.RecordState(ticker.TICKER, (twin.Arbitration(),), topic="ticker.x.A", native="A")
    if name == "Levels":
        return twin.Levels(True)
    if name == "DepthState":
        return twin.DepthState(topic="depth.x.A", native="A")
    if name == "Batch":
        return twin.Batch(end, end, end.clock)
    if name == "Step":
        return twin.Step({}, lambda topic: None, lambda document: None, end, end, end.clock, 1)
    if name in {"Tap", "TappedConnection"}:
        tap = twin.Tap(end.send, end.clock, end.clock, end.send)
        return tap if name == "Tap" else tap.connection("spot", end.send)
    if name == "Unpacked":
        return twin.Unpacked(pack(Item(What.RECEIVED, 1, 1, "spot.1", 1, data=b"{}")))
    if name in {"ConnectionFrames", "FrameCounts"}:
        return getattr(twin, name)()
    if name == "RecordedConnection":
        return twin.RecordedConnection("binance")
    if name in {"Carrier", "Met"}:
        carrier = twin.Carrier(twin.EXCHANGES["binance"].main, ("trade",), 0, {})
        return carrier if name == "Carrier" else twin.Met(carrier, "trade", 0)
    if name == "Player":
        return twin.Player(Run("binance", "binance", "binance", ()))
    if name in {"Merged", "PlacedBlocks"}:
        block, _ = twin.block_of([RECORD, RECORD], 0)
        return twin.Merged([iter([block])], True) if name == "Merged" else twin.PlacedBlocks(iter([block]))
    if name == "Published":
        return twin.Published(0)
    if name == "Unheard":
        return twin.Unheard()
    if name == "Book":
        return twin.Book()
    if name == "Changes":
        return twin.Changes(1, 2, [(1.0, 2.0)], [])
    if name == "LineBook":
        return twin.LineBook(ChainRule())
    if name == "BookDepthState":
        return twin.BookDepthState(ChainRule(), 0, topic="depth.x.A", native="A")
    if name == "FullBookState":
        return twin.FullBookState(ChainRule(), topic="book.x.A", native="A")
    if name == "TradeArbitration":
        return twin.TradeArbitration()
    if name == "TradeState":
        return twin.TradeState(topic="trade.x.A", native="A")
    if name == "Guarded":
        return shared.Guarded(buffer())
    if name == "Memory":
        return shared.Memory(buffer())
    if name == "BoardSlot":
        return twin.BoardSlot(buffer(), board_layout.HEADER_SIZE, DEPTH)
    if name == "RingSlot":
        return twin.RingSlot(buffer(RING_SIZE), board_layout.HEADER_SIZE, DEPTH)
    if name in {"BoardCells", "RingCells"}:
        return getattr(twin, name)(buffer(RING_SIZE), DEPTH)
    if name == "Cells":
        return twin.BoardCells(buffer(), DEPTH)  # it is the base of both
    endpoint = f"ipc://{tmp_path}/x.ipc"
    if name == "Outlet":
        return twin.Outlet(Events(), [endpoint], last_values(), key="k", queue_size_max=1000, has_modes=True)
    if name == "Inlet":
        return twin.Inlet(Events(), endpoint, end.send, key="k")
    if name == "Uplink":
        return twin.Uplink(Events(), endpoint, end.flush, queue_size_max=1000)
    if name == "Downlink":
        return twin.Downlink(Events(), endpoint, [b""], end.send)
    assert name == "Peer", f"a class that is not in this table: {name}"
    ours, _ = socket.socketpair()
    ours.setblocking(False)
    return peer_of(twin, ours)


def last_values():
    return types.SimpleNamespace(topics=lambda prefix: [], last=lambda topic: None)


def peer_of(twin, sock, on_message=lambda peer, message: None, events=None, **settings):
    return twin.Peer(
        events or Events(),
        sock,
        b"SUB",
        **{
            "peer_types": (b"PUB", b"XPUB"),
            "on_ready": lambda peer: None,
            "on_message": on_message,
            "on_closed": lambda peer: None,
            "message_size_max": 10_000,
            **settings,
        },
    )


def test_an_object_that_is_not_whole_cannot_be_had_or_harms_nobody():
    for cls in twins.compiled_classes():

        def act(cls=cls):
            try:
                thing = cls.__new__(cls)
            except TypeError:
                return
            ask_everything(thing)

        assert ends_well(act), cls


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("BoardSlot", (buffer(), 1 << 40, DEPTH)),
        ("BoardSlot", (buffer(), board_layout.HEADER_SIZE, 1 << 60)),
        ("BoardSlot", (bytes(BOARD_SIZE), board_layout.HEADER_SIZE, DEPTH)),
        ("RingSlot", (buffer(RING_SIZE), RING_SIZE - 8, DEPTH)),
        ("RingSlot", (buffer(RING_SIZE), board_layout.HEADER_SIZE, 1 << 60)),
        ("RingSlot", (bytes(RING_SIZE), board_layout.HEADER_SIZE, DEPTH)),
        ("RingCells", (buffer(8), DEPTH)),
        ("RingCells", (buffer(), 1 << 60)),
        ("BoardCells", (buffer(8), DEPTH)),
        ("BoardCells", (buffer(), 1 << 60)),
        ("State", ()),
        ("TickerState", ()),
        ("RecordState", ()),
    ],
)
def test_what_is_refused_leaves_no_object_behind(name, arguments):
    cls = getattr(twins.of("imported"), name)
    with pytest.raises((TypeError, ValueError, IndexError, BufferError)):
        cls(*arguments)


def test_whatever_is_asked_of_an_object_it_answers_or_refuses(tmp_path):
    twin = twins.of("imported")
    for cls in twins.compiled_classes():
        folder = tmp_path / cls.__name__
        folder.mkdir()
        assert ends_well(lambda: ask_everything(make(twin, cls.__name__, folder))), cls  # noqa: B023


@pytest.fixture
def twin():
    return twins.of("imported")


def test_a_slot_is_in_its_buffer_and_can_be_written(twin):
    size = board_layout.BOARD.slot_size(DEPTH)
    for offset in (-8, -size, 4, BOARD_SIZE - size + 8, BOARD_SIZE, 1 << 62):
        with pytest.raises(ValueError, match="no such slot"):
            twin.BoardSlot(buffer(), offset, DEPTH)
    for depth in (0, 1, board_layout.DEPTH_MAX + 1, 1 << 59, (1 << 64) - 1):
        with pytest.raises(ValueError, match="cells"):
            twin.BoardSlot(buffer(), board_layout.HEADER_SIZE, depth)
    for short in (b"", b"short", bytes(BOARD_SIZE)):
        with pytest.raises((BufferError, TypeError, ValueError)):
            twin.BoardSlot(short, board_layout.HEADER_SIZE, DEPTH)
    twin.BoardSlot(buffer(), BOARD_SIZE - size, DEPTH).write(RECORD, 1)


def test_a_slot_takes_a_record_and_nothing_else(twin):
    slot = twin.BoardSlot(buffer(), board_layout.HEADER_SIZE, DEPTH)
    for other in (b"", RECORD[:-1], RECORD + b"\0", bytearray(), memoryview(RECORD)[:8]):
        with pytest.raises(ValueError, match="not a ticker record"):
            slot.write(other, 1)
    assert (slot.number, slot.newest()) == (0, None)
    slot.write(RECORD, 1)
    slot.write(bytearray(RECORD), 2)
    for publish_ns in (2**63, -(2**63) - 1):
        with pytest.raises((OverflowError, struct.error)):
            slot.write(RECORD, publish_ns)
    assert (slot.number, wire.unpack(slot.newest()).publish_ns) == (2, 2), "as before"
    slot.write(RECORD, -(2**63))
    assert (slot.number, wire.unpack(slot.newest()).publish_ns) == (3, -(2**63))


def test_cells_of_a_buffer_that_is_too_short_are_refused(twin):
    for size in (1, 8, board_layout.HEADER_SIZE - 1):
        with pytest.raises(ValueError, match="too short"):
            twin.BoardCells(buffer(size), DEPTH)
    for depth in (0, 1, board_layout.DEPTH_MAX + 1, 1 << 59, (1 << 64) - 1):
        with pytest.raises(ValueError, match="cells"):
            twin.BoardCells(buffer(), depth)


def test_cells_believe_no_count_and_no_number(twin):
    memory = buffer(BOARD_SIZE + 100)
    memory[board_layout.COUNT_OFFSET : board_layout.COUNT_OFFSET + 8] = b"\xff" * 8
    cells = twin.BoardCells(memory, DEPTH)
    assert cells.count() == 3
    at = board_layout.HEADER_SIZE + board_layout.NEWEST_OFFSET
    for number in (1, 2**63, 2**64 - 1):
        memory[at : at + 8] = number.to_bytes(8, "little")
        with pytest.raises(Exception, match="damaged"):
            cells.newest(0)
        with pytest.raises(Exception, match="damaged"):
            cells.copy()
        assert cells.record(0, number) is None
    for index in (-1, 3, 2**40):
        with pytest.raises(IndexError):
            cells.topic(index)
    with pytest.raises(IndexError):
        cells.copy(-1)
    assert cells.copy(3) == cells.copy(2**40) == b""


class Sending:
    """A batch between ends that break, and what has to come of it."""

    def __init__(self, twin):
        self.end, self.direct = End(), End()
        self.now = End()
        self.batch = twin.Batch(self.end, self.direct, self.now.clock)
        self.state = twin.TickerState(topic="ticker.x.A", native="A")

    def count(self):
        return sum(len(message) // wire.TICKER_SIZE for (message,) in self.end.sent)


BREAKS = [("end", "send"), ("direct", "send"), ("direct", "flush"), ("now", "clock")]


@pytest.mark.parametrize(("part", "call"), BREAKS)
def test_a_message_whose_sending_raised_is_gone_and_the_next_one_is_whole(twin, part, call):
    sending = Sending(twin)
    for full in range(3):
        for _ in range(batch.RECORDS_MAX - 1):
            sending.batch.emit(sending.state)
        getattr(sending, part).breaks_at = call
        with pytest.raises(Broken):
            sending.batch.emit(sending.state)
        for _ in range(3 * full):
            _quietly(sending.batch.emit, sending.state)
            _quietly(sending.batch.flush)
        getattr(sending, part).breaks_at = None
    assert sending.batch.records - sending.count() == sending.state.sequence, (
        "counted, so that the merger misses them"
    )
    before = sending.count()
    for _ in range(2 * batch.RECORDS_MAX):
        sending.batch.emit(sending.state)
    assert sending.count() - before == 2 * batch.RECORDS_MAX
    assert {len(message) for (message,) in sending.end.sent} == {batch.RECORDS_MAX * wire.TICKER_SIZE}


@pytest.mark.parametrize(("part", "call"), [("end", "send"), ("now", "clock")])
def test_repeating_what_cannot_be_sent_leaves_nothing_behind(twin, part, call):
    sending = Sending(twin)
    getattr(sending, part).breaks_at = call
    for count in (1, batch.RECORDS_MAX, 2 * batch.RECORDS_MAX + 5):
        with pytest.raises(Broken):
            sending.batch.repeat([RECORD] * count)
    getattr(sending, part).breaks_at = None
    sending.batch.repeat([RECORD] * 3)
    assert [len(message) // wire.TICKER_SIZE for (message,) in sending.end.sent] == [3]
    for other in (b"", RECORD[:-1], RECORD * 2):
        with pytest.raises(ValueError, match="one record"):
            sending.batch.repeat([other])
    with pytest.raises(ValueError, match="one record"):
        sending.batch.repeat([RECORD, b"short"])
    sending.batch.flush()
    assert [len(message) // wire.TICKER_SIZE for (message,) in sending.end.sent] == [3, 1]


def test_what_is_emitted_while_a_message_is_sent_is_in_the_next_one(twin):
    """An end that calls back finds the batch empty."""
    state = twin.TickerState(topic="ticker.x.A", native="A")
    sent = []

    class Talker:
        def send(self, message):
            sent.append([record.sequence for record in records_in(message)])
            if len(sent) < 4:
                for _ in range(batch.RECORDS_MAX // 2):
                    whole.emit(state)

    talker = Talker()
    whole = twin.Batch(talker, Fanout(), time.time_ns)
    for _ in range(batch.RECORDS_MAX):
        whole.emit(state)
    whole.flush()
    for _ in range(batch.RECORDS_MAX + 1):
        whole.emit(state)
    whole.flush()
    numbers = list(itertools.chain(*sent))
    assert numbers == list(range(1, state.sequence + 1))
    assert all(numbers for numbers in sent)


def records_in(message):
    return [
        wire.unpack(bytes(message[start : start + wire.TICKER_SIZE]))
        for start in range(0, len(message), wire.TICKER_SIZE)
    ]


class Merging:
    """The merger's step between ends that break."""

    def __init__(self, twin):
        self.each, self.batches, self.now, self.found = End(), End(), End(), End()
        traffic = twin.Traffic()
        self.routes = {}

        def find_route(topic):
            self.found._call("find_route")
            route = self.routes[topic] = twin.Route(topic, traffic)
            return route

        self.step = twin.Step(
            self.routes, find_route, self._on_document, self.each, self.batches, self.now.clock, 5
        ).take

    def _on_document(self, message):
        self.found._call("on_document")


@pytest.mark.parametrize(
    ("part", "call"),
    [
        ("each", "send"),
        ("batches", "send"),
        ("now", "clock"),
        ("found", "find_route"),
        ("found", "on_document"),
    ],
)
def test_a_step_that_was_broken_off_does_the_next_message_rightly(twin, part, call):
    merging = Merging(twin)
    message = b"".join(wire.pack_ticker(wire.Ticker(f"ticker.x.{n}")) for n in range(9))
    for breaking in range(3):
        merging.routes.clear()
        getattr(merging, part).breaks_at = call
        for size in (len(message), len(message) - 1, 0, wire.TICKER_SIZE):
            _quietly(merging.step, message[:size])
        getattr(merging, part).breaks_at = None
        merging.each.sent.clear()
        merging.batches.sent.clear()
        merging.step(message * (breaking + 1))
        assert len(merging.each.sent) == 9 * (breaking + 1)
        assert [len(m) for _, m in merging.batches.sent] == [len(message) * (breaking + 1)]
        assert [r.topic for r in records_in(merging.batches.sent[0][1])] == [
            f"ticker.x.{(n % 9)}" for n in range(9 * (breaking + 1))
        ]


def test_a_step_within_a_step_spoils_neither(twin):
    """Whoever is sent a batch may bring the next message; its batch is one of its own."""
    merging = Merging(twin)
    message = b"".join(wire.pack_ticker(wire.Ticker(f"ticker.x.{n}")) for n in range(3))
    send, depth = merging.each.send, []

    def talk(topic, record):
        send(topic, record)
        if len(depth) < 2:
            depth.append(topic)
            merging.step(message * 9000 if len(depth) == 2 else message)

    merging.each.send = talk
    merging.step(message)
    sizes = [len(m) // wire.TICKER_SIZE for _, m in merging.batches.sent]
    assert sorted(sizes) == [3, 3, 27_000]
    for _, batched in merging.batches.sent:
        assert [r.topic[-1:] for r in records_in(batched[: 9 * wire.TICKER_SIZE])] == [
            str(n % 3) for n in range(min(9, len(batched) // wire.TICKER_SIZE))
        ]


def test_a_route_without_traffic_is_refused():
    merging = Merging(twins.of("imported"))
    merging.step(RECORD)
    (route,) = merging.routes.values()

    def act():
        route.traffic = None
        with pytest.raises(AttributeError, match="NoneType"):
            merging.step(RECORD)

    assert ends_well(act)


@pytest.mark.parametrize("kind", ["Follower", "Gatherer"])
def test_a_follower_that_was_broken_off_takes_the_next_message(twin, kind):
    breaks = [False]

    def emit(record):
        if breaks[0]:
            raise Broken

    follower = twin.Follower(emit) if kind == "Follower" else twin.Gatherer()
    for number in range(1, 200):
        breaks[0] = number % 3 == 0
        message = wire.pack_ticker(wire.Ticker("ticker.x.A", session=1, sequence=number))
        for cut in (message, message[:-1], b"", message * 3):
            _quietly(follower.take, cut)
        if kind == "Gatherer" and number % 50 == 0:
            assert len(follower.collect()) == 50 * wire.TICKER_SIZE
            assert follower.collect() == b""
    assert follower.losses["ticker.x.A"].sequence == 199


@pytest.mark.parametrize("fails", range(1, 6))
def test_a_peer_whose_callback_raised_goes_on_with_what_follows(fails):
    twin = twins.of("imported")
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    seen = []

    def on_message(peer, message):
        seen.append(bytes(message))
        if len(seen) == fails:
            raise Broken

    loop = twin.Loop()
    peer = peer_of(twin, ours, on_message, loop)
    theirs.sendall(greeting() + b"".join(bytes((0, 200)) + bytes((n,)) * 200 for n in range(9)))
    for _ in range(3):
        _quietly(loop.run_once, 0)
    theirs.sendall(bytes((0, 1)) + b"z")
    for _ in range(3):
        _quietly(loop.run_once, 0)
    assert [message[:1] for message in seen] == [bytes((n,)) for n in range(9)] + [b"z"]
    peer.close()


def greeting():
    return zmtp.GREETING + zmtp.ready_frame(b"PUB")
