"""REST manners: what may be asked when, and what the client makes of answers."""

import asyncio
import contextlib
import functools
import heapq
import itertools
import time
from urllib.parse import parse_qsl, urlsplit

import pytest
import uvloop
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from loopback import free_ports
from patience import PATIENCE_S

from feedhandler.data.errors import ProtocolError
from feedhandler.data.refusal import FINAL_S
from feedhandler.data.rest import LimitHeader, RestRequest
from feedhandler.data.shard import SHARDS_MAX
from feedhandler.exchanges import EXCHANGES
from feedhandler.sim.protocol import HttpRequest, Now
from feedhandler.sim.server import SimServer, SimSettings, make_exchange
from feedhandler.sim.simulated import SIMULATED
from feedhandler.transport.http import (
    POLL_SHARE,
    REST_SHARE,
    SPARE_SHARE,
    SURVEY_SHARE,
    TURN_WAIT_MAX_S,
    HttpClient,
    HttpRefused,
    RestBudget,
    refusal,
    retry_after_s,
)

SECOND = 1_000_000_000
NOW = 50 * SECOND
GET = RestRequest("/x")


def budget(weight_max=10, per_s=4.0):
    return RestBudget((int(weight_max / REST_SHARE), per_s))


# --- the budget


def test_a_feed_uses_a_tenth_of_what_each_exchange_permits():
    assert {name: RestBudget(e.main.rest_limit).weight_max for name, e in EXCHANGES.items()} == {
        "binance": 600,
        "kucoin": 200,
        "bybit": 60,
        "okx": 80,
    }


@pytest.mark.parametrize("name", EXCHANGES)
@pytest.mark.parametrize("count", [1, 2, 5, 6, SHARDS_MAX])
def test_feeds_that_share_an_exchange_leave_half_of_its_limit_to_others_and_can_start(name, count):
    exchange = EXCHANGES[name].main
    weight, _ = exchange.rest_limit
    shared = RestBudget(exchange.rest_limit, count)
    assert shared.weight_max * count <= weight / 2
    requests = [exchange.instruments_request, *[exchange.time_request] * 5]
    requests += [exchange.handshake_request] * 2 if exchange.handshake_request else []
    assert [shared.take(request.weight, NOW) for request in requests] == [NOW] * len(requests)


@pytest.mark.parametrize("name", EXCHANGES)
def test_every_request_of_a_start_fits_the_budget_at_once(name):
    exchange = EXCHANGES[name].main
    requests = [exchange.instruments_request, *[exchange.time_request] * 5]
    requests += [exchange.handshake_request] * 10 if exchange.handshake_request else []
    shared = RestBudget(exchange.rest_limit)
    assert [shared.take(request.weight, NOW) for request in requests] == [NOW] * len(requests)


def test_what_does_not_fit_waits_until_enough_has_left_the_window():
    shared = budget()
    assert [shared.take(6, NOW), shared.take(4, NOW + SECOND)] == [NOW, NOW + SECOND]
    assert shared.take(5, NOW + 2 * SECOND) == NOW + 4 * SECOND, "when the 6 have left"
    assert shared.take(1, NOW + 2 * SECOND) == NOW + 4 * SECOND, "in turn: a light one does not overtake"
    assert shared.take(1, NOW + 2 * SECOND) == NOW + 5 * SECOND, "when the 4 have left as well"


def test_spare_requests_leave_a_third_to_others_and_wait_for_nothing():
    shared = budget(weight_max=12)
    assert [shared.take(4, NOW, share=SPARE_SHARE) for _ in range(2)] == [NOW, NOW]
    with pytest.raises(HttpRefused, match=r"weight 8 in 4 s is used up.* free in 4\.0 s"):
        shared.take(1, NOW, share=SPARE_SHARE)
    assert shared.take(4, NOW) == NOW, "a handshake has its turn at once"
    assert shared.take(4, NOW + 4 * SECOND, share=SPARE_SHARE) == NOW + 4 * SECOND


LEFT = LimitHeader("left", is_left=True)


def test_what_the_share_has_no_room_for_goes_beyond_it_evenly_while_half_is_free():
    shared = RestBudget((100, 40.0), header=LEFT)  # 10 are ours, 6 of them for such requests; 40 are beyond
    ask = functools.partial(shared.take, 2, share=SPARE_SHARE)
    shared.on_headers({"left": "90"}, NOW)
    assert [ask(NOW) for _ in range(6)] == [NOW] * 4 + [NOW + 2 * SECOND, NOW + 4 * SECOND]
    with pytest.raises(HttpRefused, match=r"free in 6\.0 s"):
        ask(NOW)
    assert [shared.take(2, NOW) for _ in range(2)] == [NOW] * 2, "who connects has the share as ever"


@pytest.mark.parametrize(
    ("headers", "ago_s", "share"),
    [
        ({}, 0, SPARE_SHARE),
        ({"left": "many"}, 0, SPARE_SHARE),
        ({"left": "51"}, 0, SPARE_SHARE),
        ({"left": "90"}, 41, SPARE_SHARE),
        ({"left": "90"}, 0, POLL_SHARE),
    ],
    ids=["nothing told", "no number", "half would not be free", "long ago", "for ever"],
)
def test_nothing_goes_beyond_the_share_without_room(headers, ago_s, share):
    shared = RestBudget((100, 40.0), header=LEFT)
    shared.take(8, NOW)
    shared.on_headers(headers, NOW - ago_s * SECOND)
    with pytest.raises(HttpRefused, match=r"free in 40\.0 s"):
        shared.take(2, NOW, share=share)


def test_what_went_beyond_since_the_exchange_told_is_not_left():
    shared = RestBudget((100, 4.0), header=LEFT)
    shared.take(8, NOW)
    shared.on_headers({"left": "55"}, NOW)
    assert [shared.take(2, NOW, share=SPARE_SHARE) for _ in range(2)] == [NOW, NOW + SECOND // 5]
    with pytest.raises(HttpRefused):
        shared.take(2, NOW, share=SPARE_SHARE)
    shared.on_headers({"left": "90"}, NOW)
    assert shared.take(2, NOW, share=SPARE_SHARE) == NOW + 2 * SECOND // 5


def test_what_is_refused_is_told_the_sooner_of_its_turns_in_the_share_and_beyond():
    shared = RestBudget((100, 40.0), 2, header=LEFT)  # 10 are ours, 40 beyond
    shared.take(10, NOW)
    shared.on_headers({"left": "90"}, NOW)
    assert [shared.take(10, NOW + 35 * SECOND, share=SPARE_SHARE) for _ in range(1)] == [NOW + 35 * SECOND]
    with pytest.raises(HttpRefused, match=r"free in 5\.0 s"):
        shared.take(10, NOW + 35 * SECOND, share=SPARE_SHARE)


NATIVES = {("binance", "spot"): "BTCUSDT", ("binance", "linear"): "BTCUSDT"}
NATIVES |= {("kucoin", "spot"): "BTC-USDT", ("kucoin", "linear"): "XBTUSDTM"}


class Address:
    """Feeds that want many books of a simulated exchange, and other programs, at one address; in simulated time."""

    def __init__(self, market, feeds=1, others=0.0):
        self.market, self.others = market, others
        self.exchange = make_exchange(market.exchange, SimSettings(instruments=1))
        self.budgets = [RestBudget(market.rest_limit, feeds, market.rest_header) for _ in range(feeds)]
        self.now = NOW
        self.ours, self.refused, self.left_min = 0, 0, market.rest_limit[0]
        self.order = itertools.count()

    def ask(self, request):
        parts = urlsplit(request.path)
        main = EXCHANGES[self.market.exchange].main
        path = parts.path if self.market.rest_url == main.rest_url else f"/{self.market.name}{parts.path}"
        query = parse_qsl(parts.query)
        answer = self.exchange.rest(
            HttpRequest(method="GET", path=path, query=query, remote="a"), Now(self.now, self.now)
        )
        self.refused += answer.status != 200
        left = self.market.rest_header.left(answer.headers, self.market.rest_limit[0])
        self.left_min = min(self.left_min, left)
        return answer.headers

    def run(self, seconds, books=10**9):
        """Each feed has four requests under way; returns how many books came, and after how long."""
        native = NATIVES[self.market.exchange, self.market.name]
        base, small = self.market.base_request(native), self.market.time_request
        weight, per_s = self.market.rest_limit
        due = [(NOW, next(self.order), budget, "ask") for budget in self.budgets for _ in range(4)]
        if self.others:
            due.append((NOW, next(self.order), None, "others"))
        heapq.heapify(due)
        while self.ours < books and due[0][0] < NOW + seconds * SECOND:
            self.now, _, budget, what = heapq.heappop(due)
            if what == "others":
                self.ask(small)
                after_ns = int(small.weight / (weight * self.others) * per_s * SECOND)
            elif what == "ask":
                try:
                    turn = budget.take(base.weight, self.now, share=SPARE_SHARE)
                    after_ns, what = turn - self.now, "send"
                except HttpRefused as exc:
                    after_ns = max(SECOND // 2, int(exc.retry_after_s * SECOND))
            elif what == "send":
                self.ours += 1
                after_ns, what = SECOND // 10, self.ask(base)
            else:
                budget.on_headers(what, self.now)
                after_ns, what = 0, "ask"
            heapq.heappush(due, (self.now + after_ns, next(self.order), budget, what))
        return self.ours, (self.now - NOW) / SECOND


TOLD = [m() for e in EXCHANGES.values() for m in e.markets if m.rest_header is not None]
by_market = pytest.mark.parametrize("market", TOLD, ids=lambda m: f"{m.exchange}_{m.name}")


@pytest.mark.long
@by_market
def test_many_books_are_there_soon_and_half_of_the_limit_stays_free(market):
    weight, per_s = market.rest_limit
    books = 2 * weight // market.base_request("X").weight  # twice what all of the limit permits
    address = Address(market)
    came, took_s = address.run(100 * per_s, books)
    assert came == books
    assert took_s < 5 * per_s
    assert address.left_min >= weight / 2
    assert not address.refused


@pytest.mark.long
@by_market
def test_what_others_at_the_address_use_is_left_to_them(market):
    seconds = 4 * market.rest_limit[1]
    shared, alone = Address(market, others=0.7), Address(market)
    assert shared.run(seconds) < alone.run(seconds)
    assert not shared.refused


@pytest.mark.long
@by_market
@pytest.mark.parametrize("feeds", [2, 4, SHARDS_MAX])
def test_feeds_that_share_an_exchange_leave_half_together_when_they_go_beyond(market, feeds):
    address = Address(market, feeds)
    address.run(4 * market.rest_limit[1])
    assert address.left_min >= market.rest_limit[0] / 2
    assert not address.refused


@pytest.mark.parametrize(
    "market", [m for e in EXCHANGES.values() for m in e.markets], ids=lambda m: f"{m.exchange}_{m.name}"
)
def test_what_single_symbols_wait_for_does_not_keep_back_the_values_of_all(market):
    shared = RestBudget(market.rest_limit)
    with pytest.raises(HttpRefused):
        while True:
            shared.take(1, NOW, share=SPARE_SHARE)
    for request in market.survey_requests:
        assert shared.take(request.weight, NOW, share=SURVEY_SHARE) == NOW


@pytest.mark.parametrize("name", EXCHANGES)
@pytest.mark.parametrize("count", [1, 2, 6])
def test_all_present_values_of_an_exchange_can_be_asked_for_beside_a_start(name, count):
    exchange = EXCHANGES[name].main
    shared = RestBudget(exchange.rest_limit, count)
    first = [exchange.instruments_request, exchange.time_request]
    first += [exchange.handshake_request] if exchange.handshake_request else []
    for request in first:
        shared.take(request.weight, NOW)
    for request in exchange.survey_requests:
        assert shared.take(request.weight, NOW, share=SURVEY_SHARE) == NOW


def test_a_turn_that_is_far_off_is_refused_with_the_budget_and_the_time():
    shared = budget(per_s=60.0)
    shared.take(9, NOW)
    with pytest.raises(
        HttpRefused, match=r"weight 10 in 60 s is used up, and has 2 free in 50\.0 s"
    ) as refused:
        shared.take(2, NOW + 10 * SECOND)
    assert refused.value.retry_after_s == 50.0
    assert shared.take(1, NOW + 10 * SECOND) == NOW + 10 * SECOND, "one that fits still does"
    assert shared.take(2, NOW + 60 * SECOND) == NOW + 60 * SECOND, "what was refused took nothing"


def test_a_request_heavier_than_the_budget_has_it_for_itself():
    shared = budget()
    shared.take(1, NOW)
    assert shared.take(25, NOW + SECOND) == NOW + 4 * SECOND


@given(asked=st.lists(st.tuples(st.integers(1, 10), st.integers(0, 3 * SECOND)), max_size=40))
def test_no_window_ever_holds_more_than_the_budget_and_turns_keep_their_order(asked):
    shared, now, turns = budget(), NOW, []
    for weight, pause_ns in asked:
        now += pause_ns
        with contextlib.suppress(HttpRefused):
            turn_ns = shared.take(weight, now)
            assert now <= turn_ns <= now + TURN_WAIT_MAX_S * SECOND
            turns.append((turn_ns, weight))
    assert turns == sorted(turns, key=lambda turn: turn[0])
    for end_ns, _ in turns:
        assert sum(weight for at_ns, weight in turns if end_ns - 4 * SECOND < at_ns <= end_ns) <= 10


@pytest.mark.parametrize("status", [429, 418, 403])
def test_after_a_ban_nothing_goes_out_until_it_is_over(status):
    shared = budget()
    shared.ban.on_answer(status, 7.0, NOW)
    for later_s in (0, 3, 6):
        with pytest.raises(HttpRefused, match=f"HTTP {status}") as refused:
            shared.take(1, NOW + later_s * SECOND)
        assert refused.value.retry_after_s == 7.0 - later_s
    assert shared.take(1, NOW + 7 * SECOND) == NOW + 7 * SECOND


def test_a_shorter_ban_does_not_end_a_longer_one():
    shared = budget()
    shared.ban.on_answer(418, 100.0, NOW)
    shared.ban.on_answer(429, 1.0, NOW)
    with pytest.raises(HttpRefused, match="HTTP 418"):
        shared.take(1, NOW + 99 * SECOND)


def test_an_answer_about_one_request_alone_bans_nothing():
    shared = budget()
    for status in (200, 400, 404, 500, 503):
        shared.ban.on_answer(status, 30.0, NOW)
    assert shared.take(1, NOW) == NOW


@pytest.mark.parametrize(
    ("headers", "status", "seconds"),
    [
        ({"Retry-After": "12"}, 429, 12.0),
        ({"gw-ratelimit-reset": "2500"}, 429, 2.5),
        ({"Retry-After": "999999999"}, 418, 3 * 86400.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 429, 30.0),
        ({"Retry-After": "9" * 5000}, 429, 30.0),
        ({}, 429, 30.0),
        ({}, 418, 120.0),
        ({}, 403, 600.0),
        ({}, 400, 0.0),
        ({"gw-ratelimit-reset": "2500"}, 200, 0.0),
    ],
)
def test_an_exchange_is_taken_at_its_word_about_how_long_to_wait(headers, status, seconds):
    assert retry_after_s(headers, status) == seconds


# --- the client


@contextlib.asynccontextmanager
async def served(handler, **settings):
    """A client of a server with one handler for everything; yields both, and the list of what was asked."""
    asked = []

    async def handle(request):
        asked.append((request.method, request.raw_path, dict(request.headers)))
        return await handler(request) if asyncio.iscoroutinefunction(handler) else handler(request)

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)  # some never answer
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with HttpClient(f"http://127.0.0.1:{port}", **settings) as http:
            yield http, asked
    finally:
        await runner.cleanup()


def test_a_request_goes_out_as_it_was_made():
    async def main():
        async with served(lambda _: web.Response(body=b"yes")) as (http, asked):
            path = RestRequest("/q?symbol=%E6%B1%89%26USDT", headers=(("X-Unit", "us"),))
            assert await http.fetch(path) == b"yes"
            assert await http.fetch(RestRequest("/t", "POST")) == b"yes"
            return asked

    (get, path, headers), (post, other, _) = uvloop.run(main())
    assert (get, path, headers["X-Unit"]) == ("GET", "/q?symbol=%E6%B1%89%26USDT", "us")
    assert (post, other) == ("POST", "/t")


def test_after_a_ban_the_exchange_is_not_asked_again():
    async def main():
        answer = {"status": 418, "headers": {"Retry-After": "60"}, "text": "banned"}
        async with served(lambda _: web.Response(**answer)) as (http, asked):
            with pytest.raises(HttpRefused, match="HTTP 418 banned") as first:
                await http.fetch(GET)
            with pytest.raises(HttpRefused, match=r"/y: not asked for \d\d\.\d s more.*HTTP 418") as second:
                await http.fetch(RestRequest("/y"))
            return first.value, second.value, asked

    first, second, asked = uvloop.run(main())
    assert first.retry_after_s == 60.0
    assert 0 < second.retry_after_s <= 60.0
    assert len(asked) == 1


COUNTRY = b'{"code":"400302","msg":"Our services are unavailable here; use a non-restricted country"}'


@pytest.mark.parametrize(
    ("status", "body", "words", "wait_s"),
    [
        (451, b"", "HTTP 451; the exchange does not serve the country", FINAL_S),
        (400, COUNTRY, 'non-restricted country"}; the exchange does not serve the country', FINAL_S),
        (403, b"<h1>Not in your\nregion</h1>", "HTTP 403 Not in your region; the exchange does", FINAL_S),
        (403, b"<h1>Blocked</h1>", "HTTP 403 Blocked; a firewall of the exchange", FINAL_S),
        (429, b"too many", "HTTP 429 too many", 30.0),
        (500, b"\x00\x1b[2J\xff" + b"x" * 10_000, "HTTP 500 [2J", 0.0),
        (302, b"", "HTTP 302, a redirect to https://a.example/x, which is not followed", 0.0),
    ],
)
def test_what_is_refused_is_told_in_one_line_with_a_remedy_and_a_pause(status, body, words, wait_s):
    location = "https://a.example/x?token=secret" if status == 302 else ""
    text, pause_s = refusal(status, body, location)
    assert words in text
    assert pause_s == wait_s
    assert text.isprintable()
    assert len(text) < 600
    assert "secret" not in text


def test_after_a_country_is_refused_nothing_is_asked_for_minutes():
    async def main():
        async with served(lambda _: web.Response(status=451, text="no")) as (http, asked):
            for words in ("HTTP 451 no; the exchange", "not asked for 600"):
                with pytest.raises(HttpRefused, match=words) as refused:
                    await http.fetch(GET)
                assert refused.value.status == 451
                assert refused.value.retry_after_s > FINAL_S - 60
            return asked

    assert len(uvloop.run(main())) == 1


@pytest.mark.parametrize("status", [429, 451])
def test_a_refusal_of_one_markets_list_does_not_stop_the_other_at_the_same_host(status):
    """Where the exchange says that it is about the path: even where both ask for it, with other parameters."""

    def answer(request):
        if "linear" in request.raw_path:
            return web.Response(status=status, headers={"Retry-After": "60"})
        return web.Response(body=b"yes")

    async def main():
        budget = RestBudget((1000, 60.0))
        async with (
            served(answer, budget=budget, path_statuses={429, 451}) as (spot, asked),
            HttpClient(spot.rest_url, budget, path_statuses={429, 451}) as linear,
        ):
            for words in (f"HTTP {status}", "not asked"):
                with pytest.raises(HttpRefused, match=words) as refused:
                    await linear.fetch(RestRequest("/list?of=linear"))
                assert refused.value.retry_after_s > 50
            assert await linear.fetch(RestRequest("/time")) == b"yes"
            assert await spot.fetch(RestRequest("/list?of=spot")) == b"yes"
            return [path for _, path, _ in asked]

    assert uvloop.run(main()) == ["/list?of=linear", "/time", "/list?of=spot"]


def test_a_refusal_of_the_address_stops_all_markets_of_a_host():
    async def main():
        budget = RestBudget((1000, 60.0))
        async with (
            served(lambda _: web.Response(status=403), budget=budget, path_statuses={429, 451}) as (
                spot,
                asked,
            ),
            HttpClient(spot.rest_url, budget, path_statuses={429, 451}) as linear,
        ):
            for http in (linear, spot):
                with pytest.raises(HttpRefused, match="HTTP 403"):
                    await http.fetch(GET)
            return asked

    assert len(uvloop.run(main())) == 1


def test_a_request_that_waits_for_its_turn_is_stopped_by_a_ban():
    async def main():
        def answer(_):
            return web.Response(status=429, headers={"Retry-After": "60"})

        async with served(answer, budget=RestBudget((10, 0.2))) as (http, asked):
            results = await asyncio.gather(http.fetch(GET), http.fetch(GET), return_exceptions=True)
            return results, asked

    (first, second), asked = uvloop.run(main())
    assert "HTTP 429" in str(first)
    assert "not asked" in str(second)
    assert len(asked) == 1


def test_a_request_waits_for_its_turn_and_then_goes():
    async def main():
        async with served(lambda _: web.Response(body=b"yes"), budget=RestBudget((10, 0.1))) as (http, asked):
            assert await asyncio.gather(*(http.fetch(GET) for _ in range(3))) == [b"yes"] * 3
            return asked

    assert len(uvloop.run(main())) == 3


def test_hosts_that_are_counted_together_share_a_budget():
    async def main():
        budget = RestBudget((20, 3600.0))
        yes = web.Response
        async with (
            served(lambda _: yes(), budget=budget) as (one, asked),
            served(yes, budget=budget) as (two, _),
        ):
            await one.fetch(GET)
            await one.fetch(GET)
            with pytest.raises(HttpRefused, match="our budget of weight 2"):
                await two.fetch(GET)
            return asked

    assert len(uvloop.run(main())) == 2


def test_what_an_answer_tells_of_the_limit_is_taken_by_the_budget():
    async def main():
        def answer(_):
            return web.Response(body=b"yes", headers={"Left": "90"})

        async with served(answer, budget=RestBudget((100, 3600.0), header=LEFT)) as (http, asked):
            for _ in range(7):  # six of them are the share
                await http.fetch(GET, share=SPARE_SHARE)
            return asked

    assert len(uvloop.run(main())) == 7


def test_what_reached_no_host_costs_nothing():
    """Where nothing listens yet, attempts used up what the first requests need once something does."""

    async def main():
        (port,) = free_ports(1)
        async with HttpClient(f"http://127.0.0.1:{port}", RestBudget((100, 3600.0))) as http:
            for _ in range(20):
                with pytest.raises(ProtocolError, match="Cannot connect"):
                    await http.fetch(GET)

    uvloop.run(main())


def test_a_used_up_budget_refuses_without_asking():
    async def main():
        async with served(lambda _: web.Response(body=b"yes"), budget=RestBudget((10, 3600.0))) as (
            http,
            asked,
        ):
            await http.fetch(GET)
            with pytest.raises(HttpRefused, match=r"GET http://127.*/x: our budget of weight 1 in 3600 s"):
                await http.fetch(GET)
            return asked

    assert len(uvloop.run(main())) == 1


def test_a_host_that_is_away_is_a_protocol_error_that_names_the_address():
    async def main():
        async with HttpClient("http://127.0.0.1:1") as http:
            with pytest.raises(ProtocolError, match=r"http://127\.0\.0\.1:1/x"):
                await http.fetch(GET)

    uvloop.run(main())


def test_a_request_that_is_cancelled_as_its_time_is_over_is_cancelled(monkeypatch):
    """The end of one is why the other is cancelled, so both fall into the same turn of the loop."""
    monkeypatch.setattr("feedhandler.transport.http.TIMEOUT_S", 0.3)

    async def never(_):
        await asyncio.Event().wait()

    async def main():
        async with served(never) as (http, _):

            async def again_and_again():
                while True:
                    with contextlib.suppress(ProtocolError):
                        await http.ask(RestRequest("/time"))

            other = asyncio.create_task(again_and_again())
            with pytest.raises(ProtocolError, match="no answer within"):
                await http.ask(GET)
            other.cancel()
            done, _ = await asyncio.wait([other], timeout=PATIENCE_S)
            return done

    assert uvloop.run(main()), "it asks on"


# --- against the simulator


@pytest.mark.parametrize("name", SIMULATED)
def test_a_simulated_exchange_tells_its_time_and_its_quotes(name):
    exchange = EXCHANGES[name].main()

    async def fetch_all(http):
        instruments = exchange.decode_instruments(await http.fetch(exchange.instruments_request))
        trading = [i.native for i in instruments.items if i.is_trading]
        odd = next((native for native in trading if not native.isascii()), trading[-1])
        before_ns = time.time_ns()
        time_ns = exchange.decode_time(await http.fetch(exchange.time_request))
        assert before_ns - 1_000_000 <= time_ns <= time.time_ns()
        for native in (trading[0], odd):
            quote = exchange.decode_quote(await http.fetch(exchange.quote_request(native)))
            assert 0 < quote.bid < quote.ask
            assert min(quote.bid_size, quote.ask_size) > 0
        with pytest.raises(ProtocolError):
            exchange.decode_quote(await http.fetch(exchange.quote_request("NOSUCH")))

    async def main():
        server = SimServer(name, SimSettings(), ws_url="ws://127.0.0.1:0", rest_url="http://127.0.0.1:0")
        await server.start()
        try:
            async with HttpClient(server.rest_url, RestBudget(exchange.rest_limit)) as http:
                await fetch_all(http)
        finally:
            await server.close()

    uvloop.run(main())
