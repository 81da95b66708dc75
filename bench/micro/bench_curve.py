"""What CURVE costs a record: boxed for each subscriber of another host, and opened there.

Timed: `Channel.seal`, once per record and subscriber in the relay; with `Channel.open`, its other end.
"""

from material import RECORDS, ticker

from feedhandler.data import wire
from feedhandler.transport.curve import Client, Server, transient


def channels():
    """Return both ends of a connection."""
    server_keys = transient()
    server, client = Server(server_keys, lambda key: True, b""), Client(transient(), server_keys.public, b"")
    (welcome,), _ = server.take(client.greet()[0])
    (ready,), _ = server.take(client.take(welcome)[0][0])
    client.take(ready)
    return server.channel, client.channel


def bench_seal(measure):
    server, _ = channels()
    message, turns = wire.pack_ticker(ticker(1)), range(RECORDS)

    def call():
        for _ in turns:
            server.seal(0, message)

    measure("curve", "seal", call)


def bench_seal_and_open(measure):
    server, client = channels()
    message, turns = wire.pack_ticker(ticker(1)), range(RECORDS)
    assert client.open(server.seal(0, message)) == (0, message)

    def call():
        for _ in turns:
            client.open(server.seal(0, message))

    measure("curve", "seal and open", call)
