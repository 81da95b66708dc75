"""A consumer of the bridge's subjects: prints the stream, and says what is missing.

    pip install 'feedhandler[nats]'
    python nats_consumer.py [URL [SUBJECT]]          # such as nats://127.0.0.1:4222 'ticker.binance.>'

The bodies are the merger's messages, unchanged, so the decoder is that of every other subscriber.
"""

import asyncio
import os
import sys

import nats

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError

NOT_LIVE = wire.STALE | wire.DOWN


class Consumer:
    """Follows each topic's numbers; lost counts those that are missing: conflated by the bridge, or dropped."""

    def __init__(self):
        self._newest = {}  # by topic: session, sequence, flags
        self.lost = 0

    def take(self, record):
        """Return whether a record was not seen before."""
        session, sequence, flags = self._newest.get(record.topic, (0, 0, 0))
        state = record.flags & ~wire.SNAPSHOT
        if session == record.session:
            if record.sequence < sequence:
                return False
            if record.sequence == sequence and flags == state:
                return False  # a duplicate, for somebody who came later
            self.lost += max(0, record.sequence - sequence - 1)
        self._newest[record.topic] = record.session, record.sequence, state
        return True


async def main(url="nats://127.0.0.1:4222", subject="ticker.>"):
    consumer, closed = Consumer(), asyncio.Event()

    async def on_message(message):
        try:
            record = wire.unpack(message.data)
        except DecodeError as exc:
            print(f"{message.subject}: {exc}", file=sys.stderr)
            return
        if not consumer.take(record):
            return
        live = " NOT LIVE" if record.flags & NOT_LIVE else ""
        if isinstance(record, wire.Ticker):
            text = f"last {record.last} bid {record.bid} ask {record.ask}{live}"
        else:
            text = f"{len(record.body)} bytes of JSON{live}"
        try:
            print(f"{record.topic} #{record.sequence} {text} lost {consumer.lost}", flush=True)
        except BrokenPipeError:  # our output was closed, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            closed.set()

    client = await nats.connect(url, max_reconnect_attempts=-1)
    await client.subscribe(subject, cb=on_message)
    await closed.wait()
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
