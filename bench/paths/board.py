"""A strategy that looks at the board: the newest record of each symbol in turn, awake, without a subscription.

feed ── memory ──▶ this

python -m bench.paths.board RUN_DIR TOPIC…
"""

import sys
import time

from bench.recorder import Recorder
from feedhandler.client import Board
from feedhandler.data import wire

OLD_NEWS = wire.SNAPSHOT | wire.STALE | wire.DOWN


def main(run_dir: str, topics: list[str]) -> None:
    recorder = Recorder()
    recorder.serve()
    clock, symbol = time.time_ns, recorder.symbol.append
    now_ns, recv_ns, publish_ns = recorder.now_ns.append, recorder.recv_ns.append, recorder.publish_ns.append
    bid, bid_size = recorder.bid.append, recorder.bid_size.append
    ask, ask_size = recorder.ask.append, recorder.ask_size.append
    seen = dict.fromkeys(topics, 0)
    with Board(run_dir) as board:
        read = board.read
        while True:
            for topic in topics:
                record = read(topic)
                if record is None or record.sequence == seen[topic]:
                    continue
                now = clock()
                seen[topic] = record.sequence
                if record.flags & OLD_NEWS:
                    continue
                now_ns(now)
                symbol(record.topic)
                bid(record.bid)
                bid_size(record.bid_size)
                ask(record.ask)
                ask_size(record.ask_size)
                recv_ns(record.recv_ns)
                publish_ns(record.publish_ns)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
