"""The feed process' wiring, without an exchange: what it may never wait for."""

import asyncio

import uvloop
from patience import PATIENCE_S

from feedhandler import config
from feedhandler.errors import EXIT_OK
from feedhandler.freshness import Question
from feedhandler.instruments import InstrumentList
from feedhandler.legs import Change
from feedhandler.process.feed import Feed
from feedhandler.shard import WHOLE
from feedhandler.transport.files import change_wanted


class Http:
    """A REST host that never answers."""

    rest_url = "http://127.0.0.1:1"

    def __init__(self):
        self.asked = asyncio.Event()

    async def fetch(self, request):
        self.asked.set()
        await asyncio.Event().wait()


def feed_of(directory, http):
    path = directory / "test.toml"
    path.write_text(f'run_dir = "{directory}/run"\n[exchanges.binance]\n', encoding="utf-8")
    (directory / "run").mkdir()
    feed = Feed(config.load(str(path)), "binance", WHOLE, http)
    feed._listing = InstrumentList("binance", 0, [])
    return feed


def test_a_question_that_nobody_answers_does_not_keep_a_feed_from_stopping(tmp_path):
    async def play():
        http = Http()
        feed = feed_of(tmp_path, http)
        question = Question("BTCUSDT", feed)
        feed._universe.advance = lambda _: [Change(ask=[question])]
        running = asyncio.create_task(feed._run_connections())
        await http.asked.wait()
        feed._stop.set()
        done, _ = await asyncio.wait([running], timeout=PATIENCE_S)
        feed._publisher.close()
        assert done, "it waits for REST"
        return running.result()

    assert uvloop.run(play()) == EXIT_OK


def test_what_is_wanted_while_a_feed_stops_begins_nothing(tmp_path):
    async def play():
        feed = feed_of(tmp_path, Http())
        change_wanted(str(tmp_path / "run"), "binance", lambda wanted: wanted.subscribe(["DOGE/USDT"], []))
        feed._stop.set()
        feed._take_wanted()
        feed._publisher.close()
        return feed._wanted

    assert "DOGE/USDT" not in uvloop.run(play())
