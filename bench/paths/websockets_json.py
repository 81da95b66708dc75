"""The alternative without a library for exchanges: `websockets`, the standard library's json, and float().

    exchange ══WS══▶ this

One process, one connection, plain asyncio, as the documentation of `websockets` begins. A quote is four
texts, and whoever computes with it needs floats.

    python -m bench.paths.websockets_json WS_URL NATIVE…
"""

import asyncio
import json
import sys
import time

from websockets.asyncio.client import ClientConnection, connect

from bench.recorder import Recorder

STREAMS_PER_REQUEST = 100  # of at most 4096 bytes; five requests a second are allowed
REQUEST_INTERVAL_S = 0.25


async def subscribe(ws: ClientConnection, natives: list[str]) -> None:
    """Ask for the quotes in portions: in the address they would be too long from some hundreds on."""
    for start in range(0, len(natives), STREAMS_PER_REQUEST):
        streams = [f"{native.lower()}@bookTicker" for native in natives[start : start + STREAMS_PER_REQUEST]]
        await ws.send(json.dumps({"method": "SUBSCRIBE", "params": streams, "id": start}))
        await asyncio.sleep(REQUEST_INTERVAL_S)


async def main(ws_url: str, natives: list[str]) -> None:
    recorder = Recorder()
    recorder.serve()
    add, clock = recorder.add, time.time_ns
    async with connect(f"{ws_url}/ws") as ws:
        await subscribe(ws, natives)
        async for message in ws:
            quote = json.loads(message)
            if "s" in quote:  # else the answer to a request
                add(
                    clock(),
                    quote["s"],
                    float(quote["b"]),
                    float(quote["B"]),
                    float(quote["a"]),
                    float(quote["A"]),
                )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
