"""The floor, second of three: from the feeds' socket to the subscribers', looking at nothing.

floor_feed ══PUB══▶ SUB this PUB ══▶ floor_subscriber

python -m bench.paths.floor_merger IN OUT
"""

import sys

import zmq

from bench.paths.floor_feed import QUEUE_MESSAGES


def main(into: str, out: str) -> None:
    context = zmq.Context(io_threads=1)
    feeds, ticks = context.socket(zmq.SUB), context.socket(zmq.PUB)
    feeds.set(zmq.RCVHWM, QUEUE_MESSAGES)
    feeds.set(zmq.SUBSCRIBE, b"")
    feeds.bind(into)
    ticks.set(zmq.SNDHWM, QUEUE_MESSAGES)
    ticks.bind(out)
    receive, send = feeds.recv, ticks.send
    while True:
        send(receive(), zmq.NOBLOCK)


if __name__ == "__main__":
    main(*sys.argv[1:])
