"""The subscriber's ZeroMQ socket, with each option and its reason; nothing relies on defaults.

It is libzmq's, as any program's would be; the other ends are in `zmtp`.
"""

from collections.abc import Sequence
from typing import Final

import zmq

# Messages that may wait in the subscriber before it reads them; further ones wait with the publisher, which
# drops when its queue for this subscriber is full. 100,000 are 30 MB.
TICKS_HWM_MESSAGES: Final = 100_000
RECONNECT_MS: Final = 100  # on loopback there is nothing to be polite to
RECONNECT_MAX_MS: Final = 1000


def ticks_subscriber(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, prefixes: Sequence[bytes]
) -> "zmq.Socket[bytes]":
    """Return a subscriber's end."""
    socket = context.socket(zmq.SUB)
    socket.set(zmq.RCVHWM, TICKS_HWM_MESSAGES)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    for prefix in prefixes:
        socket.set(zmq.SUBSCRIBE, prefix)
    socket.connect(endpoint)
    return socket
