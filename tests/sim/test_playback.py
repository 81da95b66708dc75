"""A recording in the place of a market: whose frames are sent, when, and what REST answers."""

import json

import pytest

from feedhandler.sim.broadcast import Broadcast
from feedhandler.sim.frames import payload_of
from feedhandler.sim.playback import EventKind, Playback, RecordedEvent, Recording
from feedhandler.sim.protocol import NS_PER_S, HttpRequest, Outbox
from feedhandler.sim.server import SimSettings, make_exchange
from feedhandler.sim.simulated import SIMULATED

T0 = 1_790_000_000 * NS_PER_S
TRADE = "btcusdt@trade"
CHANGES = "btcusdt@depth@100ms"
ACK = b'{"result":null,"id":1}'
DEPTH = "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=1000"


def combined(topic, **data):
    return json.dumps({"stream": topic, "data": data}).encode()


def trade(number):
    return combined(TRADE, e="trade", s="BTCUSDT", t=number)


def changes(first, last):
    return combined(CHANGES, e="depthUpdate", s="BTCUSDT", U=first, u=last)


def received(at_s, payload, connection="a", market=""):
    return RecordedEvent(EventKind.RECEIVED, T0 + int(at_s * NS_PER_S), connection, "", payload, market)


def closed(at_s, connection="a"):
    return RecordedEvent(EventKind.CLOSED, T0 + int(at_s * NS_PER_S), connection)


def answered(at_s, url, body):
    return RecordedEvent(EventKind.ANSWERED, T0 + int(at_s * NS_PER_S), "", url, json.dumps(body).encode())


def base(last_id):
    return {"lastUpdateId": last_id, "bids": [["10", "1"]], "asks": [["11", "1"]]}


class Play:
    """One client of a recording, and the time."""

    def __init__(self, clock, events, name="binance", speed=1.0, variant=1):
        self.clock = clock
        self.playback = Playback(speed)
        self.recording = Recording(SIMULATED[name].reading, iter(events), self.playback)
        self.exchange = make_exchange(name, SimSettings(instruments=1))
        self.room = True
        self.recording.join(self.exchange, lambda: self.room)
        self.broadcast = Broadcast(self.recording)
        self.outbox = Outbox()
        self.variant = variant

    def subscribe(self, topic):
        stream = self.broadcast.find(topic) or self.recording.stream(topic)
        shown = self.recording.snapshot(stream, self.variant, self.clock.now)
        self.broadcast.add(stream, self.variant, self.outbox, self.clock.now.mono_ns)
        return shown

    def begin(self, *topics):
        for topic in topics:
            self.subscribe(topic)
        self.playback.begin(self.recording.first_ns, self.clock.now.mono_ns)
        return self

    def until(self, at_s):
        """Pass time until then; returns what was sent."""
        now = self.clock.pass_s(at_s - self.clock.elapsed_ns / NS_PER_S)
        self.broadcast.run(now, [])
        sent, self.outbox.frames = [payload_of(frame) for frame in self.outbox.frames], []
        return sent

    def rest(self, path, method="GET", **query):
        request = HttpRequest(method=method, path=path, query=list(query.items()))
        return self.recording.rest(request, self.clock.now)


def test_frames_come_as_they_were_when_they_were(clock):
    play = Play(clock, [received(0, trade(1)), received(1, trade(2)), received(3, trade(3))]).begin(TRADE)
    assert play.until(0.5) == [trade(1)]
    assert play.until(2.9) == [trade(2)]
    assert play.until(3) == [trade(3)]
    assert play.recording.is_over
    assert play.recording.sent == {"trade": 3}


def test_nothing_comes_before_it_begins(clock):
    play = Play(clock, [received(0, trade(1))])
    play.subscribe(TRADE)
    assert not play.until(100)
    assert play.begin().until(100) == [trade(1)]


def test_a_market_is_unsubscribed_until_somebody_wants_something_of_it(clock):
    linear = json.dumps({"e": "trade", "s": "BTCUSDT", "t": 1}).encode()
    events = [received(0, trade(1)), received(1, linear, "b", "linear"), received(2, changes(1, 1))]
    play = Play(clock, events)
    assert play.recording.unsubscribed == ["", "linear"]
    play.subscribe(CHANGES)
    play.subscribe("ethusdt@trade")
    assert play.recording.unsubscribed == ["linear"]
    play.subscribe(f"linear:{TRADE}")
    assert not play.recording.unsubscribed


@pytest.mark.parametrize(
    ("events", "is_later"),
    [
        ([received(0, ACK), received(4, trade(1)), received(9, trade(2))], False),
        ([received(0, ACK), received(6, ACK), received(7, trade(1))], True),
        ([received(0, ACK)], False),  # there are none
    ],
)
def test_whether_data_come_later_than_it_is_read_before_time_passes(clock, events, is_later):
    assert Play(clock, events).recording.begins_later is is_later


@pytest.mark.parametrize(("speed", "sent"), [(1, 1), (10, 11), (0, 20)])
def test_speed_is_times_as_fast_or_as_fast_as_it_is_read(clock, speed, sent):
    events = [received(number, trade(number)) for number in range(20)]
    play = Play(clock, events, speed=speed).begin(TRADE)
    play.room = False
    assert not play.until(0.5)
    play.room = True
    assert len(play.until(1.0 - 1e-6 if speed == 1 else 1.0)) == sent


def test_a_tick_has_an_end(clock):
    play = Play(clock, [received(0, trade(number)) for number in range(6_000)], speed=0).begin(TRADE)
    first = len(play.until(0))
    assert 0 < first < 6_000
    count = first
    while more := play.until(0):
        count += len(more)
    assert count == 6_000


def test_only_what_is_subscribed_to_is_sent_and_the_rest_is_counted(clock):
    events = [received(0, trade(1)), received(0, changes(1, 2)), received(0, ACK)]
    play = Play(clock, events).begin(CHANGES)
    assert play.until(0) == [changes(1, 2)]
    assert play.recording.recorded == {"trade": 1, "depth@100ms": 1}
    assert play.recording.sent == {"depth@100ms": 1}
    assert play.recording.others == 1


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize("is_combined", [False, True])
def test_binance_sends_the_form_that_was_asked_for(clock, variant, is_combined):
    data = b'{"e":"trade","s":"BTCUSDT","t":1}'
    whole = b'{"stream":"btcusdt@trade","data":' + data + b"}"
    play = Play(clock, [received(0, whole if is_combined else data)], variant=variant).begin(TRADE)
    assert play.until(0) == [whole if variant else data]


def test_a_topic_comes_from_one_connection_until_it_is_closed(clock):
    events = [
        received(0, trade(1)),
        received(0.1, trade(1), "b"),
        received(1, trade(2), "b"),
        received(1.1, trade(2)),
        received(2, trade(3), "b"),
        closed(2.1),
        received(3, trade(4), "b"),
        received(4, trade(4), "c"),
    ]
    play = Play(clock, events).begin(TRADE)
    assert play.until(2.2) == [trade(1), trade(2)]
    assert play.until(9) == [trade(3), trade(4)]  # the first had not come to the third


def test_what_comes_twice_on_one_connection_is_sent_twice(clock):
    play = Play(clock, [received(0, trade(1)), received(0, trade(1))]).begin(TRADE)
    assert play.until(0) == [trade(1), trade(1)]


def test_after_a_reset_any_connection_may_have_a_topic(clock):
    events = [received(0, trade(1)), RecordedEvent(EventKind.RESET, T0), received(1, trade(1), "b")]
    assert Play(clock, events).begin(TRADE).until(1) == [trade(1), trade(1)]


def test_a_clock_that_was_set_back_holds_nothing_up(clock):
    play = Play(clock, [received(5, trade(1)), received(2, trade(2)), received(6, trade(3))]).begin(TRADE)
    assert play.until(0) == [trade(1), trade(2)]
    assert play.until(1) == [trade(3)]


def test_what_is_due_while_nothing_may_be_sent_is_lost(clock):
    events = [received(number, trade(number)) for number in range(4)]
    play = Play(clock, events).begin(TRADE)
    play.broadcast.pause(clock.pass_s(2))
    assert play.until(3) == [trade(3)]
    play = Play(clock, events, speed=0).begin(TRADE)
    play.broadcast.pause(clock.now)
    assert len(play.until(3)) == 4  # nothing was due


def test_a_muted_symbol_is_not_sent_and_not_counted(clock):
    play = Play(clock, [received(0, trade(1)), received(1, trade(2))]).begin(TRADE)
    stream = play.broadcast.find(TRADE)
    assert play.recording.symbols_of(stream) == "BTCUSDT"
    stream.is_muted = True
    assert not play.until(0)
    stream.is_muted, stream.is_lost = False, True
    assert not play.until(1)
    assert play.recording.recorded == {"trade": 2}
    assert not play.recording.sent.total()


# REST.


def test_the_list_is_the_newest_of_its_time(clock):
    url = "https://api.binance.com/api/v3/exchangeInfo?showPermissionSets=false"
    events = [answered(at, url, {"at": at}) for at in (1, 2, 4)] + [
        received(3, trade(1)),
        received(30, trade(2)),
    ]
    play = Play(clock, sorted(events, key=lambda event: event.at_ns))

    def stated(**query):
        return json.loads(play.rest("/api/v3/exchangeInfo", **query).body)["at"]

    assert stated(showPermissionSets="false") == 1  # before it begins
    play.begin(TRADE).until(0)
    assert stated(showPermissionSets="false") == 2
    assert stated() == 2
    assert play.rest("/api/v3/exchangeInfo", symbol="BTCUSDT").status == 503
    play.until(27)
    assert stated() == 4


def test_what_was_not_answered_is_503(clock):
    play = Play(clock, [received(0, trade(1))])
    assert play.rest("/api/v3/ticker/24hr").status == 503
    assert play.recording.unanswered == {"/api/v3/ticker/24hr": 1}


@pytest.mark.parametrize(
    ("name", "path", "method"),
    [
        ("binance", "/api/v3/time", "GET"),
        ("kucoin", "/api/v1/timestamp", "GET"),
        ("kucoin", "/api/v1/bullet-public", "POST"),
        ("kucoin", "/linear/api/v1/bullet-public", "POST"),
        ("kucoin", "/linear/api/v1/timestamp", "GET"),
        ("binance", "/linear/fapi/v1/time", "GET"),
        ("bybit", "/v5/market/time", "GET"),
    ],
)
def test_clocks_and_tokens_are_of_now(clock, name, path, method):
    play = Play(clock, [answered(0, f"https://host{path}", {"old": True})], name)
    answer = play.rest(path, method)
    assert answer.status == 200
    assert b"old" not in answer.body


def test_a_book_begins_with_the_answer_from_which_its_changes_go_on(clock):
    bases = [answered(at, DEPTH, base(last_id)) for at, last_id in ((0, 90), (0.5, 110), (3, 130), (60, 200))]
    events = [
        received(at, changes(first, first + 9)) for at, first in ((0.1, 101), (0.6, 111), (2, 121), (50, 131))
    ]
    play = Play(clock, sorted(bases + events, key=lambda event: event.at_ns)).begin(CHANGES)

    def base_id(symbol="BTCUSDT"):
        answer = play.rest("/api/v3/depth", symbol=symbol, limit="1000")
        return json.loads(answer.body)["lastUpdateId"] if answer.status == 200 else answer.status

    assert base_id() == 90  # nothing was sent yet
    play.until(0)
    assert base_id() == 110  # 90 is not followed by 101; it is on its way
    play.until(1.9)
    assert base_id() == 130
    assert base_id("ETHUSDT") == 503
    play.until(45)
    play.subscribe(CHANGES)  # anew
    assert base_id() == 130
    play.until(50)
    assert base_id() == 130


def test_a_book_of_an_older_version_of_the_api_will_do(clock):
    url = "https://api.kucoin.com/api/v3/market/orderbook/level2?symbol=BTC-USDT"
    body = {"code": "200000", "data": {"sequence": "7", "bids": [], "asks": []}}
    play = Play(clock, [answered(0, url, body)], "kucoin")
    assert json.loads(play.rest("/api/v1/market/orderbook/level2_100", symbol="BTC-USDT").body) == body
    lists = [answered(0, "https://api.kucoin.com/api/v1/symbols", {"data": []})]
    assert play.rest("/api/v2/symbols").status == 503
    assert Play(clock, lists, "kucoin").rest("/api/v2/symbols").status == 200


def test_a_contract_by_itself_is_what_the_list_says_of_it_while_that_is_new(clock):
    rows = [{"symbol": name, "openInterest": str(n)} for n, name in enumerate(("XBTUSDTM", "ETHUSDTM"))]
    listed = answered(0, "/linear/api/v1/contracts/active", {"code": "200000", "data": rows})
    single = answered(2, "/linear/api/v1/contracts/ETHUSDTM", {"code": "200000", "data": rows[0]})
    frames = [received(at_s, changes(at_s, at_s)) for at_s in (1, 181, 182)]
    play = Play(clock, [listed, *frames], "kucoin").begin()
    assert json.loads(play.rest("/linear/api/v1/contracts/ETHUSDTM").body) == {
        "code": "200000",
        "data": rows[1],
    }
    assert play.rest("/linear/api/v1/contracts/SOLUSDTM").status == 503
    play.until(179.5)
    assert play.rest("/linear/api/v1/contracts/ETHUSDTM").status == 200
    play.until(181)
    assert play.rest("/linear/api/v1/contracts/ETHUSDTM").status == 503
    play = Play(clock, [listed, single], "kucoin")
    assert json.loads(play.rest("/linear/api/v1/contracts/ETHUSDTM").body)["data"] == rows[0]


# What a subscription begins with.


def window(kind, u, bids=(), asks=(), topic="orderbook.50.BTCUSDT"):
    data = {"s": "BTCUSDT", "b": list(bids), "a": list(asks), "u": u, "seq": 7 * u}
    return json.dumps({"topic": topic, "ts": u, "type": kind, "data": data, "cts": u}).encode()


BOOK = "orderbook.50.BTCUSDT"
SNAPSHOT = window("snapshot", 5, [["10", "1"], ["9", "2"]], [["11", "1"]])
DELTA = window("delta", 6, [["10", "0"], ["9.5", "3"]], [["10.5", "4"]])


def test_bybit_begins_with_a_snapshot_made_of_what_came_before(clock):
    play = Play(clock, [received(0, SNAPSHOT), received(1, DELTA)], "bybit")
    assert play.subscribe(BOOK) is None
    assert play.begin().until(1) == [SNAPSHOT, DELTA]
    shown = json.loads(play.subscribe(BOOK))
    assert (shown["type"], shown["topic"], shown["data"]["u"]) == ("snapshot", BOOK, 6)
    assert shown["data"]["b"] == [["9.5", "3"], ["9", "2"]]
    assert shown["data"]["a"] == [["10.5", "4"], ["11", "1"]]


def test_bybit_has_no_snapshot_where_none_was_recorded(clock):
    play = Play(clock, [received(0, DELTA)], "bybit").begin(BOOK)
    assert play.until(0) == [DELTA]
    assert play.subscribe(BOOK) is None


def test_another_connection_of_bybit_takes_over_with_a_snapshot(clock):
    other = window("snapshot", 800, [["10", "1"]], [["11", "2"]])
    following = window("delta", 801, [["9", "1"]])
    events = [
        received(0, SNAPSHOT),
        received(0.1, other, "b"),
        received(0.2, DELTA),
        closed(1),
        received(2, following, "b"),
        received(3, window("delta", 802), "b"),
    ]
    play = Play(clock, events, "bybit").begin(BOOK)
    assert play.until(1) == [SNAPSHOT, DELTA]
    sent = [json.loads(each) for each in play.until(3)]
    assert [(each["type"], each["data"]["u"]) for each in sent] == [("snapshot", 801), ("delta", 802)]
    assert sent[0]["data"]["b"] == [["10", "1"], ["9", "1"]]


def test_the_newest_ticker_is_what_a_subscription_begins_with(clock):
    ticker = b'{"topic":"tickers.BTCUSDT","type":"snapshot","data":{"symbol":"BTCUSDT"}}'
    play = Play(clock, [received(0, ticker)], "bybit").begin()
    play.until(0)
    assert play.subscribe("tickers.BTCUSDT") == ticker


# Markets beside the main one.


def test_one_name_in_two_markets_is_two_topics(clock):
    named = combined("btcusdt@bookTicker", u=1), combined("btcusdt@bookTicker", u=2)
    events = [received(0, named[0], "a"), received(0, named[1], "b", "linear")]
    play = Play(clock, events).begin("linear:btcusdt@bookTicker")
    assert play.until(0) == [named[1]]
    assert play.recording.recorded == {"bookTicker": 1, "linear:bookTicker": 1}
    assert play.recording.symbols_of(play.broadcast.find("linear:btcusdt@bookTicker")) == "linear:BTCUSDT"


@pytest.mark.parametrize(
    ("topic", "event"),
    [
        ("linear:btcusdt@aggTrade", {"e": "aggTrade", "s": "BTCUSDT", "a": 1}),
        ("linear:btcusdt@markPrice@1s", {"e": "markPriceUpdate", "s": "BTCUSDT"}),
        ("linear:btcusdt@forceOrder", {"e": "forceOrder", "E": 1, "o": {"s": "BTCUSDT"}}),
        ("linear:btcusdt@bookTicker", {"e": "bookTicker", "s": "BTCUSDT", "u": 1}),
    ],
)
def test_events_of_contracts_that_were_not_combined_get_their_stream(clock, topic, event):
    payload = json.dumps(event).encode()
    play = Play(clock, [received(0, payload, market="linear")]).begin(topic)
    name = topic.removeprefix("linear:").encode()
    assert play.until(0) == [b'{"stream":"%b","data":%b}' % (name, payload)]


def test_a_book_of_contracts_goes_on_from_the_id_before_its_first_change(clock):
    """U is no next number: what is between it and pu is of other books."""
    url = "/linear/fapi/v1/depth?symbol=BTCUSDT&limit=1000"
    spot = "/api/v3/depth?symbol=BTCUSDT&limit=1000"
    changed = combined("btcusdt@depth@100ms", e="depthUpdate", s="BTCUSDT", U=170, u=180, pu=150)
    events = [answered(0, url, base(last_id)) for last_id in (140, 160)] + [answered(0, spot, base(175))]
    play = Play(clock, [*events, received(0, changed, market="linear")]).begin("linear:" + CHANGES)
    assert play.until(0) == [changed]
    answer = play.rest("/linear/fapi/v1/depth", symbol="BTCUSDT", limit="1000")
    assert json.loads(answer.body)["lastUpdateId"] == 160


def test_a_book_of_kucoins_contracts_has_a_change_a_message(clock):
    topic = "/contractMarket/level2:XBTUSDTM"
    url = "/linear/api/v1/level2/snapshot?symbol=XBTUSDTM"
    events = [answered(0, url, {"data": {"sequence": number}}) for number in (40, 51, 53)]
    changed = [
        json.dumps({"topic": topic, "data": {"sequence": number, "change": "1,buy,2"}}).encode()
        for number in (51, 52)
    ]
    play = Play(clock, [*events, *(received(0, each, market="linear") for each in changed)], "kucoin").begin(
        topic
    )
    assert play.until(0) == changed
    answer = play.rest("/linear/api/v1/level2/snapshot", symbol="XBTUSDTM")
    assert json.loads(answer.body)["data"]["sequence"] == 51


def test_lists_come_page_by_page(clock):
    pages = [
        ("/v5/market/instruments-info?category=linear&limit=1000&cursor=x", 2),
        ("/v5/market/instruments-info?category=linear&limit=1000&status=PreLaunch", 3),
        ("/v5/market/instruments-info?category=linear&limit=1000", 1),
        ("/v5/market/instruments-info?category=spot", 4),
    ]
    play = Play(clock, [answered(0, url, {"page": page}) for url, page in pages], "bybit")

    def page(**query):
        answer = play.rest("/v5/market/instruments-info", **query)
        return json.loads(answer.body)["page"] if answer.status == 200 else answer.status

    assert page(category="linear", limit="1000") == 1
    assert page(category="linear", limit="1000", cursor="x") == 2
    assert page(category="linear", limit="1000", cursor="y") == 503
    assert page(category="linear", limit="1000", status="PreLaunch") == 3
    assert page(category="spot") == 4


def test_of_states_that_nobody_has_asked_about_there_is_none(clock):
    path = "/v5/market/instruments-info"
    play = Play(clock, [answered(0, f"{path}?category=linear&status=Trading", {"page": 1})], "bybit")
    assert json.loads(play.rest(path, category="linear", limit="1000").body) == {"page": 1}
    others = json.loads(play.rest(path, category="linear", limit="1000", status="PreLaunch").body)
    assert others["result"] == {"category": "linear", "list": [], "nextPageCursor": ""}
    assert not play.recording.unanswered


def test_changes_of_a_contracts_ticker_are_one_snapshot_to_who_comes_later(clock):
    def ticker(type_, **data):
        stated = {
            "topic": "tickers.BTCUSDT",
            "type": type_,
            "data": {"symbol": "BTCUSDT", **data},
            "cs": len(data),
        }
        return json.dumps(stated).encode()

    messages = [ticker("snapshot", markPrice="1", bid1Price="2"), ticker("delta", markPrice="3")]
    events = [received(at, each, market="linear") for at, each in enumerate(messages)]
    play = Play(
        clock, [*events, received(2, b'{"topic":"tickers.BTCUSDT","data":[', market="linear")], "bybit"
    )
    topic = "linear:tickers.BTCUSDT"
    assert play.subscribe(topic) is None
    assert play.begin().until(1) == messages
    shown = json.loads(play.subscribe(topic))
    assert shown == json.loads(ticker("snapshot", markPrice="3", bid1Price="2")) | {"cs": 1}
    play.until(2)
    assert play.subscribe(topic) is None, "a change is missing"
