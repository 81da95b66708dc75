"""The task that asks for an exchange's time, over a client that the test plays, and over the simulator."""

import asyncio
import contextlib
import time

import aiohttp
import msgspec
import pytest
import uvloop
from patience import PATIENCE_S

from feedhandler.data.errors import ProtocolError
from feedhandler.data.status import FeedStatus
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.state import AHEAD_NS_MAX
from feedhandler.sim.server import SimServer, SimSettings
from feedhandler.sim.simulated import SIMULATED
from feedhandler.transport import timekeeper
from feedhandler.transport.http import HttpClient, HttpRefused
from feedhandler.transport.timekeeper import Timekeeper

SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(timekeeper, "SAMPLE_EVERY_S", 0.0)
    monkeypatch.setattr(timekeeper, "LOOK_EVERY_S", 0.001)


class Http:
    """Answers as the test says: the seconds that the exchange is ahead, or an error to raise."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    async def fetch(self, request):
        assert request is EXCHANGES["bybit"].main.time_request
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        time_ns = time.time_ns() + int(answer * SECOND)
        return msgspec.json.encode({"retCode": 0, "result": {"timeNano": str(time_ns)}})


def keep(http, until):
    """Run a timekeeper until a condition of it and its state holds."""
    exchange = EXCHANGES["bybit"].main()
    exchange.add(["AUSDT"], 0)
    keeper, state = Timekeeper(exchange, http), exchange.tickers["AUSDT"]

    async def main():
        task = asyncio.create_task(keeper.run())
        async with asyncio.timeout(PATIENCE_S):
            while not until(keeper, state) and not task.done():
                await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    uvloop.run(main())
    return keeper, state


def test_after_a_round_the_states_know_the_exchanges_clock():
    http = Http(120.0)
    keeper, state = keep(http, lambda k, s: s.offset_ns)
    assert http.asked == timekeeper.SAMPLES_MIN
    assert state.offset_ns == keeper.estimate().offset_ns
    assert state.ahead_ns_max > state.offset_ns + SECOND
    status = FeedStatus(exchange="bybit", pid=1, started_ns=0)
    assert status.clock_offset_ms is status.clock_uncertainty_ms is None
    keeper.report(status)
    assert abs(status.clock_offset_ms - 120_000) <= status.clock_uncertainty_ms
    assert status.clock_error == ""


def test_a_host_that_is_away_costs_a_line_in_the_status():
    http = Http(ProtocolError("cannot reach http://host"))
    keeper, state = keep(http, lambda k, s: k.error)
    assert (state.offset_ns, state.ahead_ns_max) == (0, AHEAD_NS_MAX)
    status = FeedStatus(exchange="bybit", pid=1, started_ns=0)
    keeper.report(status)
    assert status.clock_error == "cannot reach http://host"
    assert status.clock_offset_ms is None


def test_a_host_that_is_back_is_asked_again_and_the_line_goes(monkeypatch):
    monkeypatch.setattr(timekeeper, "RETRY_S", (0.01, 0.01))
    keeper, _ = keep(Http(ProtocolError("away"), ValueError("nonsense"), 0.0), lambda k, s: s.offset_ns)
    assert keeper.error == ""


def test_an_exchange_that_asks_for_patience_is_not_asked_before(monkeypatch):
    monkeypatch.setattr(timekeeper, "RETRY_S", (0.001, 0.001))
    http = Http(HttpRefused("HTTP 429", 3600.0))
    keep(http, lambda k, s: k.error)
    assert http.asked == 1


def test_answers_that_contradict_each_other_are_not_believed():
    http = Http(*range(0, 1000, 10))
    keeper, state = keep(http, lambda k, s: k.error)
    assert "contradict" in keeper.error
    assert http.asked == timekeeper.SAMPLES_MAX
    assert state.ahead_ns_max == AHEAD_NS_MAX


def test_a_clock_that_is_set_is_noticed_and_asked_about_at_once(monkeypatch):
    http, offsets = Http(0.0), []
    set_by_ns = 0
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + set_by_ns)

    def until(keeper, state):
        nonlocal set_by_ns
        if state.offset_ns and not offsets:
            offsets.append(state.offset_ns)
            set_by_ns = -600 * SECOND
            http.answers = [600.0]
        return offsets and state.offset_ns > 500 * SECOND

    keep(http, until)
    assert http.asked == 2 * timekeeper.SAMPLES_MIN


@pytest.mark.parametrize("name", SIMULATED)
def test_the_clock_of_a_simulated_exchange_is_found(name):
    exchange = EXCHANGES[name].main()

    async def ask(offset_s):
        server = SimServer(name, SimSettings(), ws_url="ws://127.0.0.1:0", rest_url="http://127.0.0.1:0")
        await server.start()
        try:
            fault = {"fault": "clock", "offset_s": offset_s}
            async with aiohttp.ClientSession() as admin, HttpClient(server.rest_url) as http:
                async with admin.post(f"{server.rest_url}/_sim/faults", json=fault) as answer:
                    assert answer.status == 200, await answer.text()
                keeper = Timekeeper(exchange, http)
                task = asyncio.create_task(keeper.run())
                async with asyncio.timeout(PATIENCE_S):
                    while not keeper.clock.is_settled:
                        await asyncio.sleep(0.001)
                task.cancel()
                return keeper.estimate()
        finally:
            await server.close()

    for offset_s in (-90.0, 90.0):
        known = uvloop.run(ask(offset_s))
        assert abs(known.offset_ns - offset_s * SECOND) <= known.uncertainty_ns
