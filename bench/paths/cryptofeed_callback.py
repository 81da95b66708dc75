"""cryptofeed in its usual form: a coroutine of ours is its callback, in its process.

    exchange ══WS══▶ this

Its ticker has bid and ask as Decimal and no sizes; those are in the exchange's message, which comes along as
`raw`. Whoever computes with them needs floats.

    python -m bench.paths.cryptofeed_callback HOST:PORT SYMBOL…
"""

import sys
import time
from typing import Any

from bench.paths import cryptofeed_binance
from bench.recorder import Recorder


def main(address: str, symbols: list[str]) -> None:
    recorder = Recorder()
    recorder.serve()
    add, clock = recorder.add, time.time_ns

    async def on_ticker(ticker: Any, receipt_timestamp: float) -> None:
        now, raw = clock(), ticker.raw
        add(now, ticker.symbol, float(ticker.bid), float(raw["B"]), float(ticker.ask), float(raw["A"]))

    cryptofeed_binance.run(address, symbols, on_ticker)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
