"""cryptofeed with its ZeroMQ backend, second of two: what its example `demo_zmq.py` receives with.

    cryptofeed_zmq ══PUB══▶ SUB this

The message has bid and ask as numbers and no sizes, which are noted as NaN. The queues at either end have
ZeroMQ's default of 1,000 messages: the backend offers no other, and the example asks for none.

    python -m bench.paths.cryptofeed_receiver PORT
"""

import math
import sys
import time

import zmq

try:  # the decoder that cryptofeed has: of 3,
    from msgspec.json import decode as loads
except ImportError:  # and of 2.4, which the example uses
    from yapic.json import loads  # type: ignore[no-redef]

from bench.recorder import Recorder


def main(port: str) -> None:
    recorder = Recorder()
    recorder.serve()
    add, clock = recorder.add, time.time_ns
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.bind(f"tcp://127.0.0.1:{port}")
    while True:
        _, text = socket.recv_string().split(" ", 1)
        ticker = loads(text)
        add(clock(), ticker["symbol"], ticker["bid"], math.nan, ticker["ask"], math.nan)


if __name__ == "__main__":
    main(sys.argv[1])
