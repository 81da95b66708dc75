"""The records of several feeds in the order of receipt, decoded on all cores.

    runs of a feed ──▶ Player ──▶ blocks ──pipe──┐
    runs of a feed ──▶ Player ──▶ blocks ──pipe──┼──▶ Merged ──▶ records
    runs of a feed ──▶ Player ──▶ blocks ────────┘

Each feed is decoded in a process of its own, but what is done before one has started, and what no core is left for.
A process ends with its pipe: when all has been sent, when nobody reads any more, and when who reads is killed.
"""

import contextlib
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from multiprocessing.connection import Connection, Pipe
from typing import Any, Final

import msgspec

from feedhandler.data import wire
from feedhandler.data.errors import FeedError
from feedhandler.recordings.runs import Run
from feedhandler.replay.merged import Merged, RecordBlock, block_of
from feedhandler.replay.player import Player

APART_SIZE: Final = 2 << 20  # bytes of a feed's files: decoded in 0.25 s, where a process starts in 0.2 s
GARBAGE: Final = 100_000  # objects between two looks for cycles: a tenth of the time, and decoders make none
SERVE: Final = "import sys; sys.path[:] = {!r}; from feedhandler.replay import streams; streams.serve({})"


class ReplayFailed(FeedError):
    """A process that decoded has died."""


class PlayedFeed(msgspec.Struct, frozen=True):
    """What is to be read of one feed. exchange is whose a recording is that does not tell; no symbols: all."""

    runs: tuple[Run, ...]
    exchange: str
    kinds: tuple[str, ...]
    symbols: frozenset[str]
    exchanges: frozenset[str]

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for run in self.runs for path in run.files)


def played(streams: Sequence[PlayedFeed], is_unpacked: bool) -> Iterator[Any]:
    """Yield the records of all streams in order, as objects or as bytes. Raises what a decoder raises."""
    return chain.from_iterable(_merged(streams, is_unpacked))


def _merged(streams: Sequence[PlayedFeed], is_unpacked: bool) -> Iterator[list[Any]]:
    cores = _cores()
    by_size = sorted((each for each in streams if each.size >= APART_SIZE), key=lambda each: -each.size)
    apart = by_size[:cores] if cores > 1 else []
    with contextlib.ExitStack() as stack:
        blocks = [stack.enter_context(_Apart(each)) if each in apart else _blocks(each) for each in streams]
        yield from Merged(blocks, is_unpacked)


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _blocks(stream: PlayedFeed) -> Iterator[RecordBlock]:
    """Yield the records of one feed."""
    newest_ns = 0
    is_wanted = _chooser(stream.symbols, stream.exchanges)
    for run in stream.runs:
        for part in Player(run, stream.exchange, stream.kinds).parts():
            block, newest_ns = block_of(part, newest_ns, is_wanted)
            if block is not None:
                yield block


def _chooser(symbols: frozenset[str], exchanges: frozenset[str]) -> Callable[[bytes], bool] | None:
    """Return what says whether a record is of one of these symbols and exchanges; None: all are."""
    known: dict[bytes, bool] = {}

    def is_wanted(record: bytes) -> bool:
        topic = record[: wire.TOPIC_SIZE]
        found = known.get(topic)
        if found is None:
            _, exchange, symbol = wire.unpadded(topic).split(".", 2)
            found = (not symbols or symbol in symbols) and (not exchanges or exchange in exchanges)
            known[topic] = found
        return found

    return is_wanted if symbols or exchanges else None


class _Apart:
    """The blocks of a stream that a process of its own decodes."""

    def __init__(self, stream: PlayedFeed) -> None:
        self._stream = stream

    def __enter__(self) -> Iterator[RecordBlock]:
        self._pipe, there = Pipe()
        with there:
            # A program of its own: what `multiprocessing` starts would run the caller's main module once more. It
            # finds modules where the caller does. In a session of its own, as Ctrl-C is the caller's.
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE.format(sys.path, there.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                start_new_session=True,
            )
        self._pipe.send(self._stream)
        return self._received()

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.wait()

    def _received(self) -> Iterator[RecordBlock]:
        while True:
            try:
                found = self._pipe.recv()
            except (EOFError, ConnectionResetError):
                raise ReplayFailed("a process that decoded was killed: for want of memory, perhaps") from None
            if found is None:
                return
            if isinstance(found, Exception):
                raise found
            yield found


def serve(fd: int) -> None:
    """Do what the other end of a pipe asks for: what a process of its own does."""
    gc.set_threshold(GARBAGE)
    with Connection(fd) as pipe, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream = pipe.recv()
        try:
            for block in _blocks(stream):
                pipe.send(block)
        except Exception as exc:
            if isinstance(exc, BrokenPipeError | ConnectionResetError):
                raise
            pipe.send(exc)
        pipe.send(None)
