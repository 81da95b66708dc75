"""cryptofeed with its ZeroMQ backend, first of two: tickers as JSON, published.

exchange ══WS══▶ this ══PUB══▶ cryptofeed_receiver

python -m bench.paths.cryptofeed_zmq HOST:PORT PORT SYMBOL…
"""

import os
import sys
import threading

from cryptofeed.backends.zmq import TickerZMQ

from bench.paths import cryptofeed_binance

# Seconds for which cryptofeed 3 gathers messages before it sends any. Its default of 0.5, made for databases,
# would be half a second of latency at 1,000 messages/s. 2.4 sends what is there, and ignores this.
BATCH_INTERVAL_S = 0.0


def end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


def main(address: str, port: str, symbols: list[str]) -> None:
    threading.Thread(target=end_with_input, daemon=True).start()
    cryptofeed_binance.run(address, symbols, TickerZMQ(port=int(port), batch_interval=BATCH_INTERVAL_S))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
