"""What was published while it was recorded is what its recording gives: by real processes, byte for byte."""

import contextlib
import signal
from collections import defaultdict

import pytest
import zmq
from harness import EXCHANGES, Stack, wait_until
from played_again import bare
from test_recorder import configure, received, recording

from feedhandler import replay, research
from feedhandler.data import wire

KINDS = ("trade", "depth", "book")  # of tickers REST gives the first values, which is a feed's own doing
CODES = {int(wire.TRADE), int(wire.DEPTH), int(wire.BOOK)}
FRAMES = 1500  # of each exchange


def by_topic(records):
    """Records of these kinds, but for those that say that a feed ends."""
    found = defaultdict(list)
    for record in records:
        (flags,) = wire.FLAGS.unpack_from(record, wire.FLAGS_OFFSET)
        if record[wire.KIND_OFFSET] in CODES and not flags & wire.DOWN:
            found[wire.unpadded(record[: wire.TOPIC_SIZE])].append(bare(record))
    return found


@pytest.mark.e2e
def test_a_recording_gives_what_was_published(stack, tmp_path):
    s = recording(stack, rate=300)
    s.start("recorder", "merger")
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.set(zmq.RCVHWM, 0)
    for kind in KINDS:
        socket.set(zmq.SUBSCRIBE, kind.encode() + b".")
    socket.connect(s.endpoint)
    published = []

    def has_come():
        while socket.poll(20):
            published.append(socket.recv())
        return all(received(s, exchange) > FRAMES for exchange in s.exchanges)

    try:
        s.start("sim", *s.exchanges)
        wait_until(has_come, "some traffic")
        for name in (*s.exchanges, "recorder"):
            assert s.kill(name, signal.SIGTERM) == 0
        has_come()
    finally:
        context.destroy(linger=0)
    live = by_topic(published)
    again = by_topic(replay.messages(s.recordings, kinds=KINDS))
    assert {topic.split(".")[1] for topic in live} == {*EXCHANGES}
    assert live.keys() == again.keys()
    for topic, records in live.items():
        assert records == again[topic], topic
    assert (
        s.run("export", str(s.recordings), "--to", str(tmp_path / "out"), "--kinds", "trade,depth").returncode
        == 0
    )
    for kind in KINDS[:2]:
        counted = sum(len(records) for topic, records in live.items() if topic.startswith(kind))
        assert len(research.read(tmp_path / "out", kind=kind)) == counted > 100


@pytest.mark.e2e
def test_a_recording_gives_contracts_as_they_were_published_with_what_was_polled(tmp_path):
    """What REST states is at the place at which the answer came."""
    perpetual = "BTC/USDT:USDT"
    extra = 'kinds = ["contract"]'
    s = Stack(tmp_path, exchanges=("kucoin",), symbols=(perpetual,), extra=extra, sim="busiest_per_s = 100")
    s.recordings = s.directory / "recordings"
    configure(s)
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.set(zmq.SUBSCRIBE, f"contract.kucoin.{perpetual}".encode())
    socket.connect(s.endpoint)
    published = []

    def has_come():
        while socket.poll(20):
            record = socket.recv()
            (flags,) = wire.FLAGS.unpack_from(record, wire.FLAGS_OFFSET)
            if not flags & (wire.DOWN | wire.SNAPSHOT):
                published.append(record)
        return len(published) > 8 and wire.unpack(published[-1]).open_interest > 0

    with contextlib.closing(s):
        s.start("recorder", "merger", "sim", "kucoin")
        try:
            wait_until(has_come, "contracts, with open interest")
            for name in ("kucoin", "recorder"):
                assert s.kill(name, signal.SIGTERM) == 0
            has_come()
        finally:
            context.destroy(linger=0)
    again = [
        record
        for record in replay.messages(s.recordings, kinds=["contract"])
        if record[wire.KIND_OFFSET] == wire.CONTRACT
    ]
    assert list(map(bare, published)) == list(map(bare, again))
    assert any(wire.unpack(each).open_interest != wire.unpack(each).open_interest for each in again)
