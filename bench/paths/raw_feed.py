"""Nothing of a feed but what it offers to the recorder: frames of a recording, as fast as that takes them.

frames ══offer══▶ recorder

python -m bench.paths.raw_feed ENDPOINT RECORDINGS COUNT

Begins with a line on its standard input, and ends with that. In between it prints when it began, Unix ns, how many
were sent, and how many of them were dropped.
"""

import asyncio
import itertools
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from feedhandler.feed.process import RAW_QUEUE_SIZE_MAX
from feedhandler.feed.tap import Tap
from feedhandler.recordings import directory
from feedhandler.recordings.plan import Plan
from feedhandler.recordings.traffic import What
from feedhandler.transport.offer import Offer

FRAMES = 50_000  # that differ
BATCH = 200  # frames, between two looks
PAUSE_S = 0.001


async def main(endpoint: str, recordings: str, count: int) -> None:
    items = (item for files in directory.find(Path(recordings)).values() for item in directory.items(files))
    frames = [memoryview(item.data) for item in items if item.what is What.RECEIVED][:FRAMES]
    is_full = True

    def send(batch: bytes) -> bool:
        nonlocal is_full
        is_full = not offer.send(batch)
        return not is_full

    tap = Tap(send, time.time_ns, time.monotonic_ns, lambda act: act())
    offer = Offer(
        asyncio.get_running_loop(), (endpoint,), tap.on_join, key="raw", queue_size_max=RAW_QUEUE_SIZE_MAX
    )
    tap.begin(Plan(exchange="binance", session_ns=time.time_ns()))
    connection = tap.connection("spot", lambda payload, recv_ns: True)
    connection.on_opened("ws://127.0.0.1/")
    await asyncio.to_thread(sys.stdin.readline)
    begun_ns = time.time_ns()
    numbered = itertools.islice(itertools.cycle(frames), count)
    now_ns = time.time_ns
    while batch := list(itertools.islice(numbered, BATCH)):
        while is_full:
            await asyncio.sleep(PAUSE_S)
            tap.flush()
        for frame in batch:
            connection.on_frame(frame, now_ns())
        await asyncio.sleep(0)
    connection.on_closed("all is sent")
    tap.flush()
    while is_full:
        await asyncio.sleep(PAUSE_S)
        tap.flush()
    done = {"begun_ns": begun_ns, "frames": connection.received, "dropped": tap.dropped}
    print(msgspec.json.encode(done).decode(), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
