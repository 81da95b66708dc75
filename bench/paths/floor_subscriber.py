"""The floor, third of three: frames as they were sent, dated.

    floor_merger ══PUB══▶ SUB this

They are decoded when the load is over, to see that all came.

    python -m bench.paths.floor_subscriber ENDPOINT
"""

import sys
import time

import msgspec
import zmq

from bench.paths.floor_feed import QUEUE_MESSAGES
from bench.recorder import Recorder


class _Data(msgspec.Struct):
    s: str
    b: float
    B: float
    a: float
    A: float
    e: str = ""


class _Frame(msgspec.Struct):
    data: _Data | None = None


def decode(recorder: Recorder) -> None:
    """Turn the frames into columns; answers to commands and statistics are left out."""
    decoder = msgspec.json.Decoder(_Frame, strict=False)
    times = recorder.now_ns[:]
    del recorder.now_ns[:]
    for now_ns, raw in zip(times, recorder.raw, strict=True):
        data = decoder.decode(raw).data
        if data is not None and not data.e:
            recorder.add(now_ns, data.s, data.b, data.B, data.a, data.A)


def main(endpoint: str) -> None:
    recorder = Recorder()
    recorder.serve(decode)
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
    main(sys.argv[1])
