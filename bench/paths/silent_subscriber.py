"""A subscriber that takes everything and does not read: what it costs the others is to be nothing.

merger ══PUB══▶ SUB this

python -m bench.paths.silent_subscriber ENDPOINT
"""

import signal
import sys

from feedhandler.client import Subscriber


def main(endpoint: str) -> None:
    with Subscriber(endpoint) as subscriber:
        subscriber.receive()  # so it has subscribed
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
