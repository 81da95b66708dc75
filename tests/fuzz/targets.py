"""What is fuzzed: frames, ZMTP streams, batches, boards, and sends that fail; each over both forms
of the code, side by side.

A target makes a round from a seeded `random.Random`: a fresh world and some cases in it. It raises if the forms
differ, or if either does what it must not; what harms memory the sanitizers see (`make sanitize`).
"""

import math
import mmap
import random
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import table
import twins

from feedhandler.data import board_layout, wire
from feedhandler.data.contracts import Fanout
from feedhandler.exchanges.arbitration import Line
from feedhandler.sim.simulated import SIMULATED
from feedhandler.transport import zmtp
from feedhandler.transport.boards import BoardWriter

GOLDEN: Final = Path(__file__).parent.parent / "golden"
NATIVES: Final = {name: each.native("BTC") for name, each in SIMULATED.items()}
CASES: Final = 40  # of a round
EXTREMES: Final = (
    b"0", b"-1", b"1e308", b"1e-320", b"-0.0", b"NaN", b"null", b'""', b"9223372036854775807",
    b"9223372036854775808", b"18446744073709551615", b"18446744073709551616", b"-9223372036854775809",
    b"[]", b"{}", b"1" * 400, b"\xff", b"\0", b'"\\ud800"',
)  # fmt: skip
SIZES: Final = (0, 1, 2, 7, 8, 63, 64, 127, 128, 191, 192, 193, 255, 256, 383, 384, 385, 4096, 65_535, 65_536)
WORDS: Final = (0, 1, 2, 3, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)


class Broken(Exception):
    """What a part raises that is not ours."""


def mutated(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Return bytes that are nearly those: a few are turned, cut, repeated, exchanged, or of something else."""
    changed = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        start = rng.randint(0, len(changed))
        end = min(len(changed), start + rng.choice((0, 1, 1, 2, 4, 8, 12, 100)))
        kind = rng.randrange(7)
        if kind == 0 and changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[start:end]
        elif kind == 2:
            changed[start:end] = rng.randbytes(rng.choice((1, 2, 8, 30)))
        elif kind == 3:
            changed[start:start] = changed[start:end] * rng.choice((1, 2, 9))
        elif kind == 4:
            changed[start:end] = rng.choice(EXTREMES)
        elif kind == 5:
            del changed[start:]
        else:
            other = rng.choice(others)
            changed[start:] = other[rng.randint(0, len(other)) :]
    return bytes(changed)


def outcome(call: Callable[..., Any], *arguments: Any) -> str:
    """Return what a call came to, in words that compare: its result, or the error that it may raise."""
    try:
        return repr(call(*arguments))
    except (Broken, *twins.DECODE_ERRORS, IndexError) as exc:
        return type(exc).__name__


def agree(what: str, found: list[Any], about: object) -> None:
    if found[0] != found[1]:
        first, second = map(repr, found)
        at = next((n for n, pair in enumerate(zip(first, second, strict=False)) if len(set(pair)) > 1), 0)
        parts = " and ".join(text[max(0, at - 40) : at + 80] for text in (first, second))
        raise AssertionError(f"the forms differ in {what}: {parts}; of {repr(about)[:300]}")


def both() -> list[Any]:
    return [twins.of(form) for form in twins.FORMS]


# --- frames of the exchanges


class Decoding:
    """An exchange with one symbol, over states of one twin, and a batch that takes what changes."""

    def __init__(self, twin: Any, exchange: str) -> None:
        self.end = End()
        self.batch = twin.Batch(self.end, End(), self.end.clock)
        self.exchange = twin.EXCHANGES[exchange].main()
        self.lines = [Line(index) for index in range(3)]
        self.exchange.add((NATIVES[exchange],), 0)
        (self.trade,) = self.exchange.add((NATIVES[exchange],), 0, "trade")
        self.state = self.exchange.tickers[NATIVES[exchange]]

    def take(self, payload: bytes, recv_ns: int, line: int) -> str:
        sequence = self.state.sequence, self.trade.sequence
        try:
            answer = self.exchange.decode(payload, recv_ns, self.lines[line], self.batch.emit)
        except twins.DECODE_ERRORS:
            return "DecodeError"
        return repr(answer) if (self.state.sequence, self.trade.sequence) == sequence else "state"


def frames(rng: random.Random) -> None:
    """Any bytes at all are a state, a control word, nothing, or a DecodeError."""
    exchange = rng.choice(sorted(NATIVES))
    all_frames = [table.load(exchange, name) for name in sorted(table.every_frame(exchange))]
    worlds = [Decoding(twin, exchange) for twin in both()]
    for _ in range(CASES):
        payload = mutated(rng, rng.choice(all_frames)[:6000], all_frames)
        recv_ns, line = table.RECV_NS + rng.randrange(-(10**11), 10**11), rng.randrange(3)
        agree("outcome", [world.take(payload, recv_ns, line) for world in worlds], payload)
        agree("record", [world.state.record() for world in worlds], payload)
        if rng.random() < 0.05:
            act = rng.choice(("forget", "renew", "release", "inherit"))
            for world in worlds:
                for state in (world.state, world.trade):
                    getattr(state, act)(*(() if act == "forget" else (line,)))
    for world in worlds:
        world.batch.flush()
    agree("what is sent", [world.end.sent for world in worlds], exchange)


# --- streams of ZeroMQ's protocol


def frame_of(rng: random.Random, body: bytes) -> bytes:
    flags = rng.choice((0, 0, 0, 0, 0, zmtp.MORE, zmtp.COMMAND, zmtp.LONG, 0x40, 0xFF))
    if len(body) > 255 or flags & zmtp.LONG:
        size = len(body) if rng.random() < 0.97 else rng.choice(WORDS)
        return bytes((flags | zmtp.LONG,)) + size.to_bytes(8, "big") + body
    return bytes((flags, len(body) if rng.random() < 0.97 else rng.randrange(256))) + body


def bodies(rng: random.Random) -> Iterator[bytes]:
    while True:
        kind = rng.randrange(8)
        if kind < 3:
            yield rng.choice((b"\1", b"\0", b"\2", b"")) + rng.choice(
                (b"", b"ticker.", b"@latest", b"@interval=5", b"a" * 300)
            )
        elif kind == 3:
            yield rng.choice(
                (b"\4PING\0\1x", b"\5READY", b"\tSUBSCRIBEa", b"\6CANCELa", b"\5ERROR\1x", b"\xff", b"\4PONG")
            )
        elif kind == 4:
            yield hop_message(rng)
        else:
            yield rng.randbytes(rng.choice(SIZES))


def stream(rng: random.Random, socket_type: bytes) -> bytes:
    parts = [zmtp.GREETING, zmtp.ready_frame(socket_type)]
    source = bodies(rng)
    parts += [frame_of(rng, next(source)) for _ in range(rng.randrange(12))]
    if rng.random() < 0.1:
        rng.shuffle(parts)
    whole = b"".join(parts)
    return whole if rng.random() < 0.4 else mutated(rng, whole, [whole])


class LastValues:
    """Three topics, with records as they are."""

    def topics(self, prefix: bytes) -> list[bytes]:
        return [topic for name in "ABC" if (topic := wire.padded(f"ticker.x.{name}")).startswith(prefix)]

    def last(self, topic: bytes) -> bytes:
        return table_record(wire.unpadded(topic))


class Listening:
    """An inlet and an outlet of one twin, in a loop of its own."""

    def __init__(self, twin: Any, directory: str) -> None:
        self.loop = twin.Loop()
        count = len(list(Path(directory).iterdir()))
        self.paths = [f"{directory}/{count}.{name}" for name in ("in", "out")]
        self.received: list[bytes] = []
        inlet, outlet = (f"ipc://{path}" for path in self.paths)
        self.inlet = twin.Inlet(
            self.loop, inlet, lambda message: self.received.append(bytes(message)), key="k"
        )
        self.outlet = twin.Outlet(
            self.loop, [outlet], LastValues(), key="k", queue_size_max=5000, has_modes=True,
        )  # fmt: skip

    def take(self, which: int, chunks: list[bytes]) -> tuple[list[bytes], bool]:
        """Send a stream in pieces; returns what was received, and whether the connection was ended."""
        self.received.clear()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.paths[which])
            sock.settimeout(0)
            is_ended = False
            for chunk in chunks:
                try:
                    sock.sendall(chunk)
                except OSError:
                    is_ended = True
                for _ in range(3):
                    self.loop.run_once(0)
                if which:
                    self.outlet.send(wire.padded("ticker.x.A"), table_record("ticker.x.A"))
                    self.outlet.flush()
        for _ in range(3):
            self.loop.run_once(0)
        return list(self.received), is_ended

    def close(self) -> None:
        self.outlet.close(0)
        self.inlet.close()
        self.loop.close()


def table_record(topic: str, **fields: Any) -> bytes:
    return wire.pack_ticker(wire.Ticker(topic, **fields))


def streams(rng: random.Random) -> None:
    """Whatever a peer sends, in whatever pieces, is received alike, or ends that connection and no other."""
    with tempfile.TemporaryDirectory() as directory:
        worlds = [Listening(twin, directory) for twin in both()]
        try:
            for _ in range(CASES):
                which = rng.randrange(2)
                data = stream(rng, (b"PUB", b"SUB")[which])
                chunks = list(pieces(rng, data))
                found = [world.take(which, chunks) for world in worlds]
                if which == 0:
                    agree("what was received", [received for received, _ in found], chunks)
        finally:
            for world in worlds:
                world.close()


def pieces(rng: random.Random, data: bytes) -> Iterator[bytes]:
    largest = rng.choice((1, 9, 100, 5000, 50_000))
    if len(data) // largest > 300:
        largest = 5000
    while data:
        size = rng.randint(1, largest)
        yield data[:size]
        data = data[size:]


# --- messages of the hop, and of a merger


def hop_message(rng: random.Random) -> bytes:
    """Records of a few topics, back to back, or a document; their numbers are anything."""
    if rng.random() < 0.1:
        body = rng.choice((b"{}", b"[]", b"", b"x" * 300))
        document = wire.Document("status.x", kind=wire.STATUS, body=body)
        return bytes(wire.pack_document(document))
    records = [
        table_record(
            f"ticker.x.{rng.randrange(6)}",
            flags=rng.choice((0, 0, 0, 1, 2, 4, 8, 0xFFFF)),
            session=rng.choice((1, 1, 1, 2, 2**32 - 1)),
            sequence=rng.choice((*WORDS, *range(1, 20))),
            exchange_ns=rng.choice(TIMES),
            recv_ns=rng.choice(TIMES),
            publish_ns=rng.choice(TIMES),
            bid=rng.choice((1.0, math.nan, math.inf, -0.0)),
        )
        for _ in range(rng.choice((1, 1, 2, 5, 30)))
    ]
    return b"".join(records)


TIMES: Final = (0, 1, -1, table.RECV_NS, table.RECV_NS + 10**9, 2**63 - 1, -(2**63))


class Merging:
    def __init__(self, twin: Any) -> None:
        self.each, self.batches = End(), End()
        self.traffic = twin.Traffic()
        self.routes: dict[bytes, Any] = {}
        self.documents: list[bytes] = []
        self.make_route = twin.Route
        self.step = twin.Step(
            self.routes, self._find_route, lambda message: self.documents.append(bytes(message)),
            self.each, self.batches, self.each.clock, 7,
        )  # fmt: skip

    def _find_route(self, topic: bytes) -> Any:
        if not topic.startswith(b"ticker.x."):
            return None
        route = self.routes[topic] = self.make_route(wire.padded("ticker.x.Y"), self.traffic)
        return route

    def state(self) -> tuple[object, ...]:
        counted = self.traffic.records, self.traffic.messages, self.traffic.latencies
        return self.each.sent, self.batches.sent, self.documents, counted, self.traffic.newest_recv_ns


class Following:
    def __init__(self, twin: Any) -> None:
        self.emitted: list[str] = []
        self.follower = twin.Follower(
            lambda record: self.emitted.append(repr(record)), lambda record, after: False
        )
        self.gatherer = twin.Gatherer()

    def take(self, message: bytes) -> None:
        self.follower.take(message)
        self.gatherer.take(message)

    def state(self) -> tuple[object, ...]:
        losses = {topic: repr(loss) for topic, loss in self.follower.losses.items()}
        return self.emitted, losses, self.follower.undecodable, bytes(self.gatherer.collect())


def batches(rng: random.Random) -> None:
    """Any message is records, a document, or counted as neither; merger and subscribers stay as they are."""
    pairs = [(Merging(twin), Following(twin)) for twin in both()]
    golden = [path.read_bytes() for path in sorted(GOLDEN.glob("*.bin"))]
    for _ in range(CASES):
        message = hop_message(rng)
        if rng.random() < 0.5:
            message = mutated(rng, message, golden)
        is_each, is_batch, breaks_at = (
            rng.random() < 0.7,
            rng.random() < 0.7,
            rng.choice((None,) * 8 + ("send",)),
        )
        for merging, following in pairs:
            merging.each.is_wanted, merging.batches.is_wanted = is_each, is_batch
            merging.batches.breaks_at = breaks_at
            outcome(merging.step.take, message)
            following.take(message)
        agree("what is merged", [merging.state() for merging, _ in pairs], message)
        agree("what is followed", [following.state() for _, following in pairs], message)


class End(Fanout):
    """Where things are sent; it breaks at a call, if that is asked for, and its clock moves with each look."""

    def __init__(self) -> None:
        self.is_wanted = True
        self.sent: list[tuple[bytes, ...]] = []
        self.breaks_at: str | None = None
        self.flushes = self.looks = 0

    def send(self, *message: bytes) -> None:
        if self.breaks_at == "send":
            raise Broken
        self.sent.append(tuple(map(bytes, message)))

    def flush(self) -> None:
        if self.breaks_at == "flush":
            raise Broken
        self.flushes += 1

    def clock(self) -> int:
        if self.breaks_at == "clock":
            raise Broken
        self.looks += 1
        return table.RECV_NS + self.looks


class Emitting:
    def __init__(self, twin: Any) -> None:
        self.hop, self.direct, self.now = End(), End(), End()
        self.batch = twin.Batch(self.hop, self.direct, self.now.clock)
        self.states_of = [twin.TickerState(topic=f"ticker.x.{n}", native=str(n)) for n in range(3)]

    def emit(self, number: int, count: int) -> None:
        for _ in range(count):
            self.batch.emit(self.states_of[number])

    def state(self) -> tuple[object, ...]:
        return self.hop.sent, self.direct.sent, self.batch.records


def sends(rng: random.Random) -> None:
    """A send that fails costs its message, whatever is emitted, flushed and repeated before and after."""
    worlds = [Emitting(twin) for twin in both()]
    for _ in range(CASES):
        kind, number, count = rng.randrange(9), rng.randrange(3), rng.choice((1, 2, 509, 511, 512, 513))
        part, breaks_at = rng.choice(("hop", "direct", "now")), rng.choice((None, "send", "flush", "clock"))
        is_wanted = rng.random() < 0.2
        found = []
        for world in worlds:
            if kind == 0:
                found.append(outcome(world.batch.flush))
            elif kind == 1:
                records = [world.states_of[number].record()] * count
                found.append(outcome(world.batch.repeat, records))
            elif kind < 5:
                getattr(world, part).breaks_at = breaks_at
            elif kind == 5:
                world.direct.is_wanted = is_wanted
            else:
                found.append(outcome(world.emit, number, count))
        agree("outcome", found or ["", ""], (kind, part, breaks_at))
        agree("what is sent", [world.state() for world in worlds], (kind, part, breaks_at))


# --- boards


def boards(rng: random.Random) -> None:
    """Whatever a board's file has in it, it is refused, or read alike, and never beyond its end."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.board"
        depth = rng.choice((2, 2, 3, 17))
        writer = BoardWriter(path, depth=depth, slots_max=4, session=5)
        for number in range(rng.randrange(4)):
            slot = writer.slot(f"ticker.x.{number}")
            for sequence in range(rng.randrange(5)):
                slot.write(table_record("ticker.x.n", sequence=sequence), table.RECV_NS)
        writer.close()
        image = path.read_bytes()
        for _ in range(CASES // 4):
            path.write_bytes(damaged(rng, image, depth))
            read_alike(rng, path)
            slot_alike(rng, path.read_bytes())


def damaged(rng: random.Random, image: bytes, depth: int) -> bytes:
    changed = bytearray(image)
    size = board_layout.BOARD.slot_size(depth)
    places = [
        28,
        32,
        36,
        board_layout.COUNT_OFFSET,
        board_layout.CLOSED_OFFSET,
        board_layout.HEARTBEAT_MONO_NS_OFFSET,
    ]
    for index in range(4):
        at = board_layout.HEADER_SIZE + index * size
        places += [
            at,
            at + board_layout.NEWEST_OFFSET,
            at + board_layout.SLOT_HEADER_SIZE,
            at + board_layout.SLOT_HEADER_SIZE + 48,
        ]
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        at = rng.choice(places)
        word = rng.choice((*WORDS, rng.randrange(12), depth)).to_bytes(8, "little")
        width = 4 if at < 64 else 8
        changed[at : at + width] = word[:width]
    if rng.random() < 0.1:
        del changed[rng.randrange(len(changed)) :]
    return bytes(changed)


def read_alike(rng: random.Random, path: Path) -> None:
    readers = []
    for twin in both():
        try:
            readers.append(twin.BoardReader(path))
        except twins.DECODE_ERRORS as exc:
            readers.append(str(exc))
    if isinstance(readers[0], str):
        agree("refusal", readers, path)
        return
    calls = [
        (name, (index,))
        for name in ("newest", "number", "topic", "ticker")
        for index in (-1, 0, 1, 2, 3, 4, 2**40)
    ]
    calls += [("record", (rng.randrange(-1, 5), rng.choice((*WORDS, *range(8))))) for _ in range(12)]
    calls += [
        ("count", ()),
        ("is_alive", ()),
        ("copy", ()),
        ("copy", (rng.randrange(-1, 6),)),
        ("wait", (0, 0, 100)),
    ]
    for name, arguments in calls:
        agree(name, [outcome(getattr(reader.cells, name), *arguments) for reader in readers], arguments)


def slot_alike(rng: random.Random, image: bytes) -> None:
    """Slots anywhere in anything: refused alike, or written alike."""
    offset = rng.choice(
        (
            -8,
            0,
            8,
            board_layout.HEADER_SIZE,
            len(image) - board_layout.BOARD.slot_size(2),
            len(image),
            rng.randrange(9000),
        )
    )
    depth = rng.choice((0, 1, 2, 3, 17, 1025, 1026, 2**60))
    found, memories = [], []
    for twin in both():
        memory = mmap.mmap(-1, max(8, len(image)))
        memory[: len(image)] = image
        memories.append(memory)
        try:
            slot = twin.BoardSlot(memory, offset, depth)
        except ValueError as exc:
            found.append(str(exc))
            continue
        for _ in range(2):
            slot.write(table_record("ticker.x.z", sequence=9), 1)
        found.append(repr((slot.topic, slot.newest(), slot.number)))
        end = offset + board_layout.BOARD.slot_size(depth)
        assert memory[:offset] == image[:offset], "before the slot"
        assert memory[end : len(image)] == image[end:], "behind the slot"
    agree("slot", found, (offset, depth))


TARGETS: Final[dict[str, Callable[[random.Random], None]]] = {
    each.__name__: each for each in (frames, streams, batches, sends, boards)
}


def play(target: str, seed: int, number: int) -> None:
    """Play one round of a target."""
    TARGETS[target](random.Random(f"{seed} {target} {number}"))
