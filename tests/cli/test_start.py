"""The start of thousands of symbols: as fast as the exchange's limits allow, and no faster."""

import json
import random

import pytest

from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.shard import WHOLE, shards
from feedhandler.data.status import FeedStatus
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Endpoint
from feedhandler.feed.legs import Legs
from feedhandler.feed.report import connection_status

EPOCH_NS = 1_790_000_000 * NS_PER_S
STEP_NS = 10_000_000
ROUND_TRIP_NS = 100_000_000
NATIVES = [f"{number:04d}TOKENUSDT" for number in range(2900)]
MESSAGES_PER_S, STREAMS_MAX, CONNECTS_MAX = 5, 1024, 300


class Start:
    """Feeds of Binance that share its budget of connections; each request is answered after a round trip."""

    def __init__(self, parts):
        self.now = 50 * NS_PER_S
        self.sent = {}  # session → times and sizes of requests
        self.connects = []
        self.answers = []  # due time, session, text
        self.streams = {}  # session → what it is subscribed to
        self.progress = []
        make = EXCHANGES["binance"].main
        budget = ConnectBudget(*make.connects)
        self.sessions = []
        for part in parts:
            exchange = make()
            natives = [native for native in NATIVES if part.has(native)]
            for run in exchange.connections(exchange.add(natives, 0)):
                legs = Legs(
                    exchange, run, lambda state: None, count=1, policy=Policy(), budget=budget,
                    rng=random.Random(1),
                )  # fmt: skip
                self.sessions += legs.sessions

    def run(self):
        """Return after how many seconds all is subscribed."""
        start = self.now
        while sum(map(len, self.streams.values())) < 2 * len(NATIVES):
            assert self.now - start < 60 * NS_PER_S, "it must come to an end"
            for due, session, text in [answer for answer in self.answers if answer[0] <= self.now]:
                self.answers.remove((due, session, text))
                if session.on_frame(text, EPOCH_NS + self.now):
                    self.step(session)
            for session in self.sessions:
                if self.now >= session.deadline_mono_ns:
                    self.step(session)
            self.now += STEP_NS
            self.progress.append(self.status())
        return (self.now - start) / NS_PER_S

    def step(self, session):
        step = session.advance(self.now)
        if step.connect:
            self.connects.append(self.now)
            session.on_endpoint(Endpoint("ws://x"))
            session.on_open(self.now)
            self.step(session)
        for request in step.send:
            message = json.loads(request)
            self.sent.setdefault(session, []).append(self.now)
            self.streams.setdefault(session, set()).update(message["params"])
            text = json.dumps({"result": None, "id": message["id"]}).encode()
            self.answers.append((self.now + ROUND_TRIP_NS, session, text))
        assert not step.close

    def status(self):
        connections = [connection_status(s, EPOCH_NS + self.now, self.now) for s in self.sessions]
        return FeedStatus(exchange="binance", pid=1, started_ns=0, connections=connections).text(0)


@pytest.mark.long
@pytest.mark.parametrize("parts", [(WHOLE,), shards(4)], ids=["whole", "4 shards"])
def test_2900_symbols_start_within_the_limits_and_in_about_the_least_time(parts):
    start = Start(parts)
    seconds = start.run()
    assert len(start.connects) <= max(6, 2 * len(parts)) <= CONNECTS_MAX
    assert all(len(streams) <= STREAMS_MAX for streams in start.streams.values())
    for times in start.sent.values():
        for first, sixth in zip(times, times[MESSAGES_PER_S:], strict=False):
            assert sixth - first > NS_PER_S, "5 messages a second at most, pongs not yet counted"
    least = max(len(times) for times in start.sent.values()) / MESSAGES_PER_S
    assert seconds <= 2 * least + 1


@pytest.mark.long
def test_the_status_counts_down_while_thousands_of_symbols_start():
    start = Start([WHOLE])
    start.run()
    texts = list(dict.fromkeys(start.progress))
    assert texts[0].startswith("subscribing, 5,800 of 5,800 topics to go, 0 % done")
    to_go = [int(text.split()[1].replace(",", "")) for text in texts if text.startswith("subscribing")]
    assert to_go == sorted(to_go, reverse=True)
    assert len(to_go) > 8, "several times on the way"
    assert to_go[-1] <= 600
