"""Notes every record that is published, as bytes, in a file; tells each second how many, on standard output.

python tests/soak/subscriber.py ENDPOINT FILE
"""

import signal
import struct
import sys
import time

import zmq

from feedhandler.recordings import compressed
from feedhandler.runtime.lifecycle import follow_supervisor

SIZE = struct.Struct("<I")  # before each record
KINDS = ("ticker", "trade", "depth", "book")
NOTICE = 5
READY = "ready"
LOOK_MS = 200
QUIET_MS = 1000  # nothing more comes


def records(path):
    """Yield what was noted."""
    with compressed.zstd().ZstdFile(path) as file:
        while head := file.read(SIZE.size):
            yield file.read(*SIZE.unpack(head))


def main(endpoint, path):
    follow_supervisor()
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.set(zmq.RCVHWM, 0)
    for prefix in ("@all", *(f"{kind}." for kind in KINDS)):
        socket.set(zmq.SUBSCRIBE, prefix.encode())
    socket.connect(endpoint)
    count, told_s = 0, time.monotonic()
    with compressed.zstd().ZstdFile(path, "w", level=1) as file:
        while socket.poll(QUIET_MS if stopped else LOOK_MS) or not stopped:
            while socket.poll(0):
                record = socket.recv()
                if record[65] == NOTICE:
                    print(READY, flush=True)
                    continue
                file.write(SIZE.pack(len(record)) + record)
                count += 1
            if time.monotonic() - told_s >= 1.0:
                told_s = time.monotonic()
                print(count, flush=True)
    print(count, flush=True)
    context.destroy(linger=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
