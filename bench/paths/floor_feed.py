"""The floor, first of three: WebSocket frames to ZeroMQ as they are.

    exchange ══WS══▶ this ══PUB══▶ floor_merger

One ZeroMQ message per frame. It subscribes as feedhandler's adapter does, and answers pings; nothing else.

    python -m bench.paths.floor_feed WS_URL OUT KIND NATIVE…
"""

import asyncio
import sys

import picows
import uvloop
import zmq

from feedhandler.exchanges.binance import BinanceSpot
from feedhandler.feed.websocket import READ_BUFFER_SIZE

QUEUE_MESSAGES = 100_000  # at every socket of the floor


class Listener(picows.WSListener):
    def __init__(self, send: "zmq.Socket[bytes]") -> None:
        self._send = send.send

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is picows.WSMsgType.TEXT:
            self._send(frame.get_payload_as_bytes(), zmq.NOBLOCK)


async def main(ws_url: str, out: str, kind: str, natives: list[str]) -> None:
    socket = zmq.Context(io_threads=1).socket(zmq.PUB)
    socket.set(zmq.SNDHWM, QUEUE_MESSAGES)
    socket.set(zmq.LINGER, 0)
    socket.connect(out)
    exchange = BinanceSpot()
    endpoint = exchange.endpoint(ws_url, b"", "")
    for run in exchange.connections(exchange.add(natives, 0, kind)):
        transport, _ = await picows.ws_connect(
            lambda: Listener(socket),
            endpoint.url,
            read_buffer_init_size=READ_BUFFER_SIZE,
            use_aiofastnet=False,  # costs less without TLS; our feed does the same
        )
        topics = [topic for state in run for topic in exchange.topics(state.native, state.kind)]
        for number, batch in enumerate(exchange.batches(topics), 1):
            transport.send(picows.WSMsgType.TEXT, exchange.subscribe(batch, str(number)))
            await asyncio.sleep(exchange.command_interval_s)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
