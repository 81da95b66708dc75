"""feedhandler's own Subscriber, as a program would use it: every record as an object.

merger (or a feed) ══PUB══▶ SUB this

python -m bench.paths.subscriber ENDPOINT [SPIN_S [MODE]]
"""

import sys
import time

from bench.recorder import Recorder
from feedhandler.client import Subscriber
from feedhandler.data import wire

OLD_NEWS = wire.SNAPSHOT | wire.STALE | wire.DOWN


def main(endpoint: str, spin_s: float, mode: str) -> None:
    recorder = Recorder()
    recorder.serve()
    clock, symbol = time.time_ns, recorder.symbol.append
    now_ns, recv_ns, publish_ns = recorder.now_ns.append, recorder.recv_ns.append, recorder.publish_ns.append
    bid, bid_size = recorder.bid.append, recorder.bid_size.append
    ask, ask_size = recorder.ask.append, recorder.ask_size.append
    with Subscriber(endpoint, ["ticker.", "status."], spin_s=spin_s, mode=mode) as subscriber:
        for record in subscriber:
            now = clock()
            if not isinstance(record, wire.Ticker):
                assert isinstance(record, wire.Document), "there are no others in these topics"
                recorder.statuses.append(b"%d " % record.publish_ns + record.body)
                continue
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
    endpoint, *options = sys.argv[1:]
    spin_s, mode = (*options, *("0", "")[len(options) :])
    main(endpoint, float(spin_s), mode)
