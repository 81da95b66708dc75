"""The feed process' wiring, without an exchange: what it may never wait for."""

import asyncio
import logging
import time
from types import SimpleNamespace

import msgspec
import pytest
import uvloop
from patience import PATIENCE_S

from feedhandler.data import wire
from feedhandler.data.errors import EXIT_GAVE_UP, EXIT_OK, ProtocolError
from feedhandler.data.instruments import Instrument, InstrumentList, InstrumentTable
from feedhandler.data.shard import WHOLE
from feedhandler.data.status import Phase
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import Exchange, Rows
from feedhandler.exchanges.books import Base
from feedhandler.feed import process, publisher
from feedhandler.feed.freshness import Question
from feedhandler.feed.legs import Change
from feedhandler.feed.process import Feed
from feedhandler.runtime import config
from feedhandler.runtime.settings import ExchangeConfig
from feedhandler.transport.boards import BoardReader, board_path
from feedhandler.transport.files import change_wanted, request_snapshots
from feedhandler.transport.http import POLL_SHARE, SPARE_SHARE, SURVEY_SHARE, WHOLE_SHARE, HttpRefused


class Http:
    """A REST host that never answers."""

    rest_url = "http://127.0.0.1:1"

    def __init__(self):
        self.asked = asyncio.Event()

    async def fetch(self, request, share=WHOLE_SHARE):
        self.asked.set()
        await asyncio.Event().wait()


def feed_of(directory, http, top="", own="", **others):
    path = directory / "test.toml"
    path.write_text(f'run_dir = "{directory}/run"\n{top}[exchanges.binance]\n{own}', encoding="utf-8")
    (directory / "run").mkdir(exist_ok=True)
    feed = Feed(config.load(str(path)), "binance", WHOLE, {"spot": http, "linear": Elsewhere(), **others})
    feed._listing = InstrumentList("binance", 0, [])
    return feed


def test_a_question_that_nobody_answers_does_not_keep_a_feed_from_stopping(tmp_path):
    async def play():
        http = Http()
        feed = feed_of(tmp_path, http)
        question = Question("BTCUSDT", SimpleNamespace(market=feed._markets[0]))
        feed._universe.advance = lambda _: [Change(ask=[question])]
        running = asyncio.create_task(feed._run_connections())
        await http.asked.wait()
        feed._stop.set()
        done, _ = await asyncio.wait([running], timeout=PATIENCE_S)
        feed._publisher.close()
        assert done, "it waits for REST"
        return running.result()

    assert uvloop.run(play()) == EXIT_OK


def test_connections_are_counted_with_room_for_what_is_longer_on_its_way(tmp_path):
    async def play():
        feed = feed_of(
            tmp_path, Http(), own='simulated = true\nws_url = "ws://x:1"\nrest_url = "http://x:1"\n'
        )
        budget, (count, per_s) = feed._budgets[""], feed._markets[0].connects
        now = time.monotonic_ns()
        assert all(budget.take(now) for _ in range(count))
        feed._publisher.close()
        return budget.next_mono_ns(now) - now - per_s * NS_PER_S

    assert uvloop.run(play()) == process.ON_THE_WAY_S * NS_PER_S > 0


class Failing:
    """A REST host at which the library fails in a way that nobody has a name for, so many times."""

    rest_url = "http://127.0.0.1:1"

    def __init__(self, times):
        self.times = times

    async def fetch(self, request, share=WHOLE_SHARE):
        self.times -= 1
        if self.times >= 0:
            raise RuntimeError("File descriptor 27 is used by transport")
        raise HttpRefused("enough", 0.0)


@pytest.mark.long
def test_what_a_library_raises_at_the_first_list_is_an_attempt_like_others(tmp_path):
    async def play():
        feed = feed_of(tmp_path, Failing(2))
        feed._settings = msgspec.structs.replace(feed._settings, max_attempts=3, backoff_min_s=0.0)
        status = await feed._work()
        feed._publisher.close()
        return status, feed._failures.counts

    status, counts = uvloop.run(play())
    assert status == EXIT_GAVE_UP
    assert counts == {"the instrument list: RuntimeError": 2}


class _Linear(EXCHANGES["binance"].main):
    name = "linear"


class Listing(Http):
    """A REST host with one instrument, which may be away."""

    is_away = False
    body = b'{"symbols":[{"symbol":"AUSDT","status":"TRADING","baseAsset":"A","quoteAsset":"USDT"}]}'

    async def fetch(self, request, share=WHOLE_SHARE):
        if self.is_away:
            raise ProtocolError("away")
        return self.body


def test_a_market_whose_host_does_not_answer_keeps_no_other_waiting(tmp_path, monkeypatch):
    monkeypatch.setitem(EXCHANGES, "binance", Exchange("binance", (EXCHANGES["binance"].main, _Linear)))
    monkeypatch.setattr("feedhandler.feed.listings.OTHER_LISTS_S", 0.01)

    async def play():
        feed = feed_of(tmp_path, Listing(), linear=Http())
        assert await feed._first_instruments()
        assert list(feed._table.by_native) == ["AUSDT"]
        assert feed._status.problems == ["binance: no instrument list of linear yet"]
        (late,) = await feed._listings.fetch()
        assert "of linear takes long" in str(late)
        feed._publisher.close()

    uvloop.run(asyncio.wait_for(play(), PATIENCE_S))


def test_a_market_that_lists_nothing_is_one_unless_it_is_the_main_one(tmp_path, monkeypatch):
    monkeypatch.setitem(EXCHANGES, "binance", Exchange("binance", (EXCHANGES["binance"].main, _Linear)))
    empty = Listing()
    empty.body = b'{"symbols":[]}'

    async def play():
        feed = feed_of(tmp_path, Listing(), linear=empty)
        assert await feed._first_instruments()
        assert feed._status.problems == []
        feed._publisher.close()
        (tmp_path / "other").mkdir()
        feed = feed_of(tmp_path / "other", empty, linear=empty)
        (error,) = await feed._listings.fetch()  # of spot
        assert "lists no tradable instrument" in str(error)
        feed._publisher.close()

    uvloop.run(play())


def test_a_market_whose_list_cannot_be_had_keeps_no_other_waiting(tmp_path, monkeypatch):
    monkeypatch.setitem(EXCHANGES, "binance", Exchange("binance", (EXCHANGES["binance"].main, _Linear)))

    async def play():
        spot, linear = Listing(), Listing()
        linear.is_away = True
        feed = feed_of(tmp_path, spot, linear=linear)
        assert await feed._first_instruments()
        assert list(feed._table.by_native) == ["AUSDT"]
        assert feed._status.problems == ["binance: no instrument list of linear yet"]
        linear.is_away = False
        assert await feed._listings.fetch() == []
        feed._take_instruments()
        assert sorted(feed._table.by_native) == ["AUSDT", "linear:AUSDT"]
        assert feed._status.problems[0].startswith("binance: A/USDT is claimed by"), "as nothing is settled"
        feed._publisher.close()

        spot.is_away = linear.is_away = True  # at the next start
        feed = feed_of(tmp_path, spot, linear=linear)
        assert await feed._first_instruments()
        assert sorted(feed._table.by_native) == ["AUSDT", "linear:AUSDT"]
        feed._publisher.close()

    uvloop.run(play())


class _Settled(EXCHANGES["binance"].main):
    name = "linear"
    rest_url = "https://linear.example.com"

    def decode_instruments(self, body):
        rows = super().decode_instruments(body)
        return Rows([msgspec.structs.replace(row, settle=row.quote) for row in rows.items], rows.problem)


class Elsewhere(Listing):
    """The host of another market alone; it counts what it is asked."""

    rest_url = "http://127.0.0.1:2"
    requests = 0

    async def fetch(self, request, share=WHOLE_SHARE):
        self.requests += 1
        return await super().fetch(request, share)


@pytest.fixture
def settled(monkeypatch):
    """Have binance a market of contracts on a host of its own."""
    monkeypatch.setitem(EXCHANGES, "binance", Exchange("binance", (EXCHANGES["binance"].main, _Settled)))


def want(directory, *symbols):
    change_wanted(
        f"{directory}/run",
        "binance",
        lambda wanted: wanted.subscribe(symbols, ExchangeConfig().configured),
    )


@pytest.mark.usefixtures("settled")
def test_a_host_of_another_market_is_left_alone_until_a_symbol_of_its_form_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr("feedhandler.feed.process.Feed._apply", lambda feed, change: None)

    async def play():
        linear = Elsewhere()
        feed = feed_of(tmp_path, Listing(), linear=linear)
        feed._take_wanted()
        clock = asyncio.create_task(feed._keep_time(feed._markets[1], feed._timekeepers[1]))
        assert await feed._first_instruments()
        assert await feed._listings.fetch() == []
        feed._carry()
        await asyncio.sleep(0)
        assert linear.requests == 0
        assert feed._status.problems == []
        refresh = asyncio.create_task(feed._refresh())
        await asyncio.sleep(0)
        want(tmp_path, "A/USDT:USDT")
        feed._take_wanted()
        assert "A/USDT:USDT" not in feed._status.rejected, "its list is on the way"
        while "linear:AUSDT" not in feed._universe.natives:
            await asyncio.sleep(0.01)
        assert not refresh.done()
        while linear.requests < 2:  # its clock, too
            await asyncio.sleep(0.01)
        refresh.cancel()
        clock.cancel()
        feed._publisher.close()

    uvloop.run(asyncio.wait_for(play(), PATIENCE_S))


@pytest.mark.usefixtures("settled")
def test_contracts_whose_list_cannot_be_had_are_rejected_for_that(tmp_path):
    async def play():
        linear = Elsewhere()
        linear.is_away = True
        feed = feed_of(tmp_path, Listing(), linear=linear)
        want(tmp_path, "A/USDT:USDT")
        feed._take_wanted()
        assert await feed._first_instruments()
        feed._carry()
        assert feed._status.problems == ["binance: no instrument list of linear yet"]
        assert set(feed._status.rejected["A/USDT:USDT"].values()) == {
            "binance has not listed anything in linear yet"
        }
        feed._publisher.close()

    uvloop.run(play())


@pytest.mark.usefixtures("settled")
def test_whoever_asks_a_proxy_for_spot_does_not_ask_production_for_the_rest(tmp_path):
    async def play():
        linear = Elsewhere()
        feed = feed_of(tmp_path, Listing(), linear=linear, own='rest_url = "http://127.0.0.1:1"\n')
        want(tmp_path, "A/USDT:USDT")
        feed._take_wanted()
        assert await feed._first_instruments()
        feed._carry()
        assert linear.requests == 0
        (reason,) = set(feed._status.rejected["A/USDT:USDT"].values())
        assert reason.startswith("exchanges.binance.markets.linear.rest_url: is missing")
        feed._publisher.close()

    uvloop.run(play())


def test_what_a_library_raises_in_a_question_answers_it_with_nothing(tmp_path):
    async def play():
        feed = feed_of(tmp_path, Failing(1))
        answers = []
        watch = SimpleNamespace(market=feed._markets[0], on_quote=lambda *answer: answers.append(answer))
        await feed._asking.quote(Question("BTCUSDT", watch))
        feed._publisher.close()
        return answers

    assert uvloop.run(play()) == [("BTCUSDT", None)]


def test_an_answer_about_all_symbols_that_confuses_us_costs_the_answer_alone(tmp_path):
    class Odd(Http):
        async def fetch(self, request, share=WHOLE_SHARE):
            return b"[]"

    def decode(body):
        raise RuntimeError("nobody foresaw this")

    async def play():
        feed = feed_of(tmp_path, Odd())
        market = feed._markets[0]
        market.decode_survey = decode
        await feed._asking.about_all(market, feed._surveys[market])
        feed._publisher.close()
        return dict(feed._failures.counts)

    assert uvloop.run(play()) == {"present values: RuntimeError": 1}


@pytest.mark.parametrize("is_ours", [False, True])
def test_a_connection_that_fails_is_begun_again_unless_it_is_we_who_are_wrong(tmp_path, monkeypatch, is_ours):
    monkeypatch.setattr("feedhandler.transport.tasks.PAUSE_S", (0.0, 0.0))
    runs = []

    async def run(connection):
        runs.append(connection)
        if len(runs) == 1 and is_ours:
            exec(compile("assert False, 'ours'", "x.py", "exec"), {"__name__": "feedhandler.x"})
        if len(runs) < 3:
            raise RuntimeError("a library's own")
        feed._stop.set()

    async def play():
        nonlocal feed
        feed = feed_of(tmp_path, Http())
        monkeypatch.setattr("feedhandler.feed.process.Connection.run", run)
        session = SimpleNamespace(
            market=feed._markets[0],
            leg=0,
            reason="",
            phase=Phase.BACKOFF,
            sockets=(),
            subscriptions=SimpleNamespace(states=()),
        )
        monkeypatch.setattr("feedhandler.feed.process._status_of", lambda connection: None)
        feed._apply(Change(run=[session]))
        feed._connections.clear()
        try:
            return await feed._run_connections()
        finally:
            feed._publisher.close()

    feed = None
    if is_ours:
        with pytest.raises(AssertionError, match="ours"):
            uvloop.run(play())
    else:
        assert uvloop.run(play()) == EXIT_OK
        assert len(runs) == 3


def test_what_is_wanted_while_a_feed_stops_begins_nothing(tmp_path):
    async def play():
        feed = feed_of(tmp_path, Http())
        configured = feed._settings.configured
        change_wanted(
            str(tmp_path / "run"), "binance", lambda wanted: wanted.subscribe(["DOGE/USDT"], configured)
        )
        feed._stop.set()
        feed._take_wanted()
        feed._publisher.close()
        return feed._wanted

    assert "DOGE/USDT" not in uvloop.run(play())


def test_what_was_wanted_before_the_start_is_told_once_in_one_line(tmp_path, caplog):
    async def play():
        feed = feed_of(tmp_path, Http())
        run_dir = str(tmp_path / "run")

        def before(wanted):
            wanted.subscribe(["DOGE/USDT"], feed._settings.configured)
            wanted.connect = False

        change_wanted(run_dir, "binance", before)
        feed._take_wanted()
        feed._take_wanted()
        change_wanted(run_dir, "binance", lambda wanted: setattr(wanted, "connect", True))
        feed._take_wanted()
        feed._publisher.close()

    caplog.set_level("INFO")
    uvloop.run(play())
    assert [text.partition(", by ")[0] for text in caplog.messages if text.startswith("wanted")] == [
        "wanted besides the configuration",
        "wanted more: BTC/USDT, ETH/USDT, SOL/USDT, ADA/USDT, XRP/USDT, DOGE/USDT",
    ]
    assert (
        "run/wanted/binance.json: DOGE/USDT (operator); disconnected by order (`feedhandler connect binance`"
    ) in caplog.text


def test_there_is_a_board_only_where_one_is_configured_and_an_old_one_goes(tmp_path):
    path = board_path(tmp_path / "run", "binance")

    async def play(top):
        feed_of(tmp_path, Http(), top)._publisher.close()

    uvloop.run(play(""))
    assert not path.parent.exists()
    uvloop.run(play("board = true\n"))
    with BoardReader(path) as board:
        assert not board.closed
        uvloop.run(play(""))
        assert board.closed, "its readers are told"
    assert not path.exists()


class Kept:
    """A hop that keeps what is sent."""

    def __init__(self):
        self.messages = []

    def send(self, message):
        self.messages.append(bytes(message))

    def close(self):
        pass


def with_a_book(feed):
    """Have a book of BTC/USDT, which is valid."""
    feed._table = InstrumentTable("binance", [Instrument("BTCUSDT", "BTC", "USDT")])
    feed._wanted = {"BTC/USDT": ["book", "trade"]}
    feed._carry()
    (book,) = feed._markets[0].states["book"].values()
    base = Base(100, [(10.0, 1.0)], [(11.0, 1.0)])
    book.take_base(Line(0, book.group), base, 100, 1, feed._publisher.emit)
    return book


def records_of(messages):
    return [wire.unpack(record) for message in messages for record in wire.split(message)]


def test_a_merger_that_lost_records_has_books_invalid_until_their_snapshots(tmp_path, monkeypatch):
    hop = Kept()
    monkeypatch.setattr(publisher, "_uplink", lambda *_: hop)

    async def play():
        feed = feed_of(tmp_path, Http())
        with_a_book(feed)
        feed._publisher.flush()
        hop.messages.clear()
        feed._publisher.greet()
        feed._universe.repeat_all_books()
        greeted = records_of(hop.messages)
        hop.messages.clear()
        list(feed._universe.advance(time.monotonic_ns()))
        feed._publisher.flush()
        feed._publisher.close()
        return greeted, records_of(hop.messages)

    greeted, then = uvloop.run(play())
    (condition,) = [record for record in greeted if record.topic.startswith("book.")]
    assert condition.kind == wire.CONDITION
    assert condition.flags & wire.INVALID
    assert [record.topic for record in then] == ["book.binance.BTCUSDT"]
    assert then[0].flags & wire.SNAPSHOT
    assert not then[0].flags & wire.INVALID


def test_a_snapshot_that_a_relay_requests_is_published(tmp_path):
    async def play():
        feed = feed_of(tmp_path, Http())
        book = with_a_book(feed)
        feed._universe.repeat_books(set())
        now = time.monotonic_ns()
        list(feed._universe.advance(now))
        found = []
        for asked in ("book.binance.ETH/USDT", "book.kucoin.BTC/USDT", "book.binance.BTC/USDT"):
            before = book.snapshots
            request_snapshots(f"{tmp_path}/run", [asked])
            feed._take_requests()
            now += 60 * 10**9
            list(feed._universe.advance(now))
            found.append(book.snapshots - before)
        (tmp_path / "run" / "snapshots.json").write_text("no list")
        feed._take_requests()
        feed._publisher.close()
        return found

    assert uvloop.run(play()) == [0, 0, 1]


class Polled(EXCHANGES["kucoin"].market("linear")):
    """Its spot, as far as the feed knows; the one contract has been brought by a connection."""

    name = "spot"
    canary = ""


class Answering(Http):
    """A REST host whose answers to polls are given, one after the other; the last one again and again."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = [*answers]
        self.shares = []

    async def fetch(self, request, share=WHOLE_SHARE):
        self.shares.append(share)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


POLLED = b'{"code":"200000","data":{"symbol":"XBTUSDTM","openInterest":"5000"}}'


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (HttpRefused("HTTP 429 Too Many Requests", 0.01, 429), "HTTP 429"),
        (HttpRefused("our budget is used up", 0.01), ""),
        (ProtocolError("no answer within 10 s"), "no answer"),
        (RuntimeError("File descriptor 27 is used by transport"), "RuntimeError"),
        (b'{"code":"200000","data":{"symbol":"XBTUSDTM","openInterest":"-1"}}', "Expected"),
        (b'{"code":"200000","data":"maintenance"}', "Expected"),
        (b"<html>", "JSON"),
        (b"", "truncated"),
    ],
)
def test_a_poll_that_comes_to_nothing_costs_nothing_but_the_age_of_a_value(tmp_path, monkeypatch, bad, said):
    monkeypatch.setitem(EXCHANGES, "binance", Exchange("kucoin", (Polled,)))

    async def play():
        http = Answering(bad, POLLED)
        feed = feed_of(tmp_path, http)
        (market,), (polling,) = feed._markets, feed._pollings
        market.contract_sizes = {"XBTUSDTM": (1, 1000)}
        (state,) = market.add(["XBTUSDTM"], 0, "contract")
        state.mark = 10.0
        state.update(time.time_ns())
        await feed._asking.poll(polling.advance(time.monotonic_ns()))
        before = wire.unpack(state.record())
        assert (before.mark, before.flags, before.open_interest != before.open_interest) == (10.0, 0, True)
        assert said in polling.status(time.monotonic_ns()).problem
        polling._next_mono_ns = 0
        await feed._asking.poll(polling.advance(time.monotonic_ns()))
        feed._publisher.close()
        status = polling.status(time.monotonic_ns())
        assert (state.open_interest, status.problem, status.known) == (5.0, "", 1)
        assert status.oldest_ns == state.recv_ns
        assert http.shares == [POLL_SHARE] * 2

    uvloop.run(play())


ROW = b'{"symbol":"XBTUSDTM","lastTradePrice":9.5,"openInterest":"5000"}'
LISTED = b'{"code":"200000","data":[' + ROW + b"]}"


@pytest.mark.parametrize("is_odd", [False, True])
def test_an_answer_for_something_else_has_what_is_polled_and_never_fails_for_it(
    tmp_path, monkeypatch, is_odd
):
    monkeypatch.setitem(EXCHANGES, "binance", Exchange("kucoin", (Polled,)))

    async def play():
        feed = feed_of(tmp_path, Answering(LISTED))
        (market,), (polling,) = feed._markets, feed._pollings
        market.contract_sizes = {"XBTUSDTM": (1, 1000)}
        market.survey_requests = market.survey_requests[1:]
        feed._table = InstrumentTable("kucoin", [])
        if is_odd:
            market.decode_poll = lambda *_: 1 // 0
        (state,) = market.add(["XBTUSDTM"], 0, "contract")
        state.mark = 10.0
        state.update(time.time_ns())
        polling.advance(time.monotonic_ns())
        await feed._asking.about_all(market, feed._surveys[market])
        feed._publisher.close()
        assert (state.open_interest == 5.0) == (not is_odd)
        assert dict(feed._failures.counts) == ({"a poll: ZeroDivisionError": 1} if is_odd else {})

    uvloop.run(play())


def test_what_is_polled_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setitem(EXCHANGES, "binance", Exchange("kucoin", (Polled,)))

    async def play():
        feed = feed_of(tmp_path, Answering(POLLED))
        answers = []
        feed._asking._tap = SimpleNamespace(answered=lambda *answer: answers.append(answer))
        (market,), (polling,) = feed._markets, feed._pollings
        market.contract_sizes = {"XBTUSDTM": (1, 1000)}
        (state,) = market.add(["XBTUSDTM"], 0, "contract")
        state.mark = 10.0
        state.update(time.time_ns())
        await feed._asking.poll(polling.advance(time.monotonic_ns()))
        feed._publisher.close()
        assert answers == [(f"{Http.rest_url}/api/v1/contracts/XBTUSDTM", POLLED, state.recv_ns)]

    uvloop.run(play())


@pytest.mark.parametrize(
    ("refused", "is_said"),
    [(HttpRefused("our budget is used up", 0.01), False), (HttpRefused("HTTP 429", 0.01, 429), True)],
)
def test_books_that_wait_for_our_own_budget_are_no_line_each_in_the_log(tmp_path, caplog, refused, is_said):
    async def play():
        feed = feed_of(tmp_path, Answering(refused))
        market = feed._markets[0]
        (state,) = market.add(["BTCUSDT"], 0, "book")
        waiting = []
        bases = SimpleNamespace(market=market, on_refused=lambda *answer: waiting.append(answer))
        question = SimpleNamespace(
            bases=bases, watched=SimpleNamespace(state=state), request=market.base_request("BTCUSDT")
        )
        with caplog.at_level(logging.INFO):
            await feed._asking.base(question)
        feed._publisher.close()
        return waiting == [(question, 0.01)]

    assert uvloop.run(play())
    assert ("no book of BTCUSDT" in caplog.text) == is_said


def test_present_values_of_all_are_not_kept_back_by_what_single_symbols_wait_for(tmp_path):
    async def play():
        http = Answering(HttpRefused("enough", 0.0))
        feed = feed_of(tmp_path, http)
        market = feed._markets[0]
        await feed._asking.about_all(market, feed._surveys[market])
        feed._publisher.close()
        return http.shares

    assert uvloop.run(play())[0] == SURVEY_SHARE > SPARE_SHARE
