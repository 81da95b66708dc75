"""The alternative that most know: ccxt.pro, whose `watch_bids_asks` is awaited in a loop.

    exchange ══WS══▶ this

One process, as in ccxt's examples; orjson, which it decodes with, comes with it. `watch_bids_asks` is a
future for the next update of any of its symbols. What arrives between two calls stays in the client's cache,
unseen. So of a fast stream this gets a part (`conflates`), and of 2,000 quotes at once, in ten symbols,
two: the first and the last.

    python -m bench.paths.ccxt_pro HOST:PORT SYMBOL…
"""

import asyncio
import sys
import time

import ccxt.pro

from bench.recorder import Recorder

SYMBOLS_PER_CALL = 100  # each call of its own symbols has a connection, and its one request 4096 bytes


def make(address: str) -> "ccxt.pro.Exchange":
    """Return ccxt's Binance at another address, and spot alone, since nothing else is simulated."""
    client = ccxt.pro.binance({"options": {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}}})
    urls = {"public": f"http://{address}/api/v3", "ws": {"spot": f"ws://{address}/ws"}}
    client.urls["api"] = {**client.urls["api"], **urls}
    return client


async def watch(client: "ccxt.pro.Exchange", symbols: list[str], recorder: Recorder) -> None:
    add, clock = recorder.add, time.time_ns
    while True:
        quotes = await client.watch_bids_asks(symbols)
        now = clock()
        for symbol, quote in quotes.items():
            add(now, symbol, quote["bid"], quote["bidVolume"], quote["ask"], quote["askVolume"])


async def main(address: str, symbols: list[str]) -> None:
    recorder = Recorder()
    recorder.serve()
    client = make(address)
    await client.load_markets()
    portions = [symbols[at : at + SYMBOLS_PER_CALL] for at in range(0, len(symbols), SYMBOLS_PER_CALL)]
    await asyncio.gather(*(watch(client, portion, recorder) for portion in portions))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
