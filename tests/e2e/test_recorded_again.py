"""What was published while it was recorded is what its recording gives: by real processes, byte for byte."""

import signal
from collections import defaultdict

import pytest
import zmq
from harness import EXCHANGES, wait_until
from played_again import bare
from test_recorder import received, recording

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
