"""The floor, third of three: frames as they were sent, dated.

    floor_merger ══PUB══▶ SUB this

They are decoded when the load is over, to see that all came.

    python -m bench.paths.floor_subscriber ENDPOINT KIND
"""

import struct
import sys
import time

import msgspec
import zmq

from bench.paths.floor_feed import QUEUE_MESSAGES
from bench.recorder import Recorder
from bench.traffic import NO_BOOK

Level = tuple[float, float]


class _Data(msgspec.Struct):
    """Whatever Binance may send of the kinds."""

    s: str = ""
    b: float | list[Level] = 0.0
    B: float = 0.0
    a: float | list[Level] = 0.0
    A: float = 0.0
    e: str = ""
    t: int = 0
    p: float = 0.0
    q: float = 0.0
    m: bool = False
    u: int = 0
    lastUpdateId: int = 0
    bids: list[Level] = []
    asks: list[Level] = []


class _Frame(msgspec.Struct):
    stream: str = ""
    data: _Data | None = None


def decode(recorder: Recorder, kind: str) -> None:
    """Turn the frames into columns; answers to commands and statistics are left out."""
    decoder = msgspec.json.Decoder(_Frame, strict=False)
    times = recorder.now_ns[:]
    del recorder.now_ns[:]
    for now_ns, raw in zip(times, recorder.raw, strict=True):
        frame = decoder.decode(raw)
        data = frame.data
        if data is None:
            continue
        symbol = frame.stream.partition("@")[0]
        if kind == "trade":
            recorder.add_other(now_ns, symbol, data.t, struct.pack("<3d", data.p, data.q, 1 + data.m))
        elif kind == "depth":
            recorder.add_other(now_ns, symbol, data.lastUpdateId, packed(data.bids, data.asks))
        elif kind == "book":
            assert isinstance(data.b, list), "of a book"
            assert isinstance(data.a, list), "of a book"
            recorder.add_other(now_ns, symbol, data.u, NO_BOOK + packed(data.b, data.a))
        elif not data.e:
            assert isinstance(data.b, float), "of a quote"
            assert isinstance(data.a, float), "of a quote"
            recorder.add(now_ns, data.s, data.b, data.B, data.a, data.A)


def packed(bids: list[Level], asks: list[Level]) -> bytes:
    """Return levels as records have them."""
    flat = [value for side in (bids, asks) for level in side for value in level]
    return struct.pack(f"<{len(flat)}d", *flat)


def main(endpoint: str, kind: str) -> None:
    recorder = Recorder()
    recorder.serve(lambda each: decode(each, kind))
    socket = zmq.Context(io_threads=1).socket(zmq.SUB)
    socket.set(zmq.RCVHWM, QUEUE_MESSAGES)
    socket.set(zmq.SUBSCRIBE, b"")
    socket.connect(endpoint)
    receive, clock, noted, dated = socket.recv, time.time_ns, recorder.raw.append, recorder.now_ns.append
    while True:
        message = receive()
        dated(clock())
        noted(message)


if __name__ == "__main__":
    main(*sys.argv[1:])
