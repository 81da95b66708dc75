"""A subscriber without feedhandler's client: libzmq's SUB and one struct, as docs/wire.md has it.

merger ══PUB══▶ SUB this

python -m bench.paths.libzmq_subscriber ENDPOINT
"""

import struct
import sys
import time

import zmq

from bench.recorder import Recorder

TICKER = struct.Struct("<64sBBHIQqqqQ10d")
OLD_NEWS = 1 | 2 | 4  # SNAPSHOT, STALE, DOWN
QUEUE_MESSAGES = 100_000


def main(endpoint: str) -> None:
    recorder = Recorder()
    recorder.serve()
    socket = zmq.Context(io_threads=1).socket(zmq.SUB)
    socket.set(zmq.RCVHWM, QUEUE_MESSAGES)
    socket.set(zmq.SUBSCRIBE, b"ticker.")
    socket.connect(endpoint)
    receive, unpack, clock = socket.recv, TICKER.unpack, time.time_ns
    while True:
        fields = unpack(receive())
        now = clock()
        if not fields[3] & OLD_NEWS:
            recorder.add(now, fields[0], fields[11], fields[12], fields[13], fields[14])
            recorder.recv_ns.append(fields[7])
            recorder.publish_ns.append(fields[8])


if __name__ == "__main__":
    main(sys.argv[1])
