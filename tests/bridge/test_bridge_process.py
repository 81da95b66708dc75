"""The bridge's wiring: what a library raises costs no record and does not end it."""

import asyncio

import pytest
import uvloop

from feedhandler.bridge.backlog import Backlog
from feedhandler.data import wire
from feedhandler.runtime import config
from feedhandler.runtime.settings import NatsConfig

nats = pytest.importorskip("nats")

from feedhandler.bridge.connection import NatsConnection  # noqa: E402
from feedhandler.bridge.process import Bridge  # noqa: E402


def record(number):
    ticker = wire.Ticker(wire.topic(wire.TICKER, "binance", f"A{number}/USDT"), sequence=number)
    return bytes(wire.pack_ticker(ticker))


def bridge_of(directory):
    path = directory / "test.toml"
    path.write_text(
        f'run_dir = "{directory}/run"\n[exchanges.binance]\n[nats]\n'
        f'[merger]\nticks = ["ipc://{directory}/ticks.ipc"]\nfeeds = "ipc://{directory}/feeds.ipc"\n',
        encoding="utf-8",
    )
    settings = config.load(str(path))
    return Bridge(asyncio.get_running_loop(), settings, settings.nats)


@pytest.mark.parametrize("exc", [RuntimeError("a library's own"), asyncio.CancelledError()])
def test_what_is_not_published_since_something_failed_stays_due(tmp_path, monkeypatch, exc):
    published, left = [], [exc]

    async def main():
        bridge = bridge_of(tmp_path)

        async def publish(subject, record):
            if left and published:
                raise left.pop()
            published.append(subject)

        monkeypatch.setattr(bridge.connection, "publish", publish)
        monkeypatch.setattr(bridge.connection, "has_room", lambda: True)
        chunk = [record(1), record(2), record(3)]
        with pytest.raises(type(exc)):
            await bridge._publish(chunk)
        await bridge._publish(bridge.backlog.take_chunk())
        bridge._downlink.close()

    uvloop.run(main())
    assert published == [f"ticker.binance.A{number}-USDT" for number in (1, 2, 3)]


def test_records_are_published_in_order_from_the_moment_that_there_is_a_connection(tmp_path):
    async def main():
        bridge = bridge_of(tmp_path)
        bridge.backlog.is_away = True  # as the last look found it
        bridge.connection._client = Client()
        bridge.connection._on_change()
        for number in (1, 2):
            bridge.backlog.take(record(1)[: wire.SEQUENCE_OFFSET] + record(number)[wire.SEQUENCE_OFFSET :])
        bridge._downlink.close()
        return [wire.sequence_of(each) for each in bridge.backlog.take_chunk()], bridge.backlog.conflated

    assert uvloop.run(main()) == ([1, 2], {})


class Client:
    """What nats-py's does, as far as it is asked to here."""

    is_connected = True
    last_error = None

    async def publish(self, subject, record):
        raise nats.errors.ConnectionClosedError

    async def close(self):
        pass


def test_a_connection_that_has_ended_since_there_was_room_hands_back_what_it_was_given():
    lost = []

    async def main():
        connection = NatsConnection(NatsConfig(), {}, "nats", on_lost=lost.extend, on_change=lambda: None)
        connection._client = Client()
        await connection.publish("a", record(1))

        async def failing():
            raise RuntimeError("a library's own")

        connection._run = failing
        with pytest.raises(RuntimeError):
            await connection.run()
        assert not connection.is_connected

    uvloop.run(main())
    assert lost == [record(1)]


def test_a_backlog_takes_back_in_order():
    backlog = Backlog()
    backlog.return_first([record(1), record(2)])
    assert backlog.take_chunk() == [record(1), record(2)]
