"""OKX, linear perpetuals: sizes in contracts, contracts, liquidations, and what is not of this market."""

import json
from pathlib import Path

import pytest
from table import FRAMES, NAN, RECV_NS

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import Ack
from feedhandler.exchanges.okx import OkxLinear, OkxSpot
from feedhandler.recordings.decoding import place_of

NATIVE = "BTC-USDT-SWAP"
MS = 1_000_000
T0 = 1790000000000 * MS


def load(name):
    return (FRAMES / "okx_linear" / f"{name}.json").read_bytes()


def make(*kinds):
    """A market that has read its list, and wants one symbol in these kinds."""
    market = OkxLinear()
    rows = market.decode_instruments(load("lists/instruments"))
    market.learn(market.prefixed(each) for each in rows.items)
    for kind in kinds:
        market.add([NATIVE], wire.SIMULATED, kind)
    return market


def records(market, name, line=None, recv_ns=RECV_NS):
    found = []
    answer = market.decode(
        memoryview(load(name)),
        recv_ns,
        line or Line(0),
        lambda state: found.append(wire.unpack(state.record())),
    )
    assert answer is None
    return found


def test_an_index_goes_on_without_its_contract():
    market = make("contract")
    state = market.states["contract"][NATIVE]
    records(market, "index_tickers")
    assert state.recv_ns == RECV_NS
    assert market.spoke_ns(state) == 0
    records(market, "mark_price", recv_ns=RECV_NS + MS)
    records(market, "index_tickers", line=Line(1), recv_ns=RECV_NS + 2 * MS)
    assert market.spoke_ns(state) == RECV_NS + MS


CONTRACT = {
    "mark_price": {"mark": 97420.9, "exchange_ns": T0 + 200 * MS},
    "index_tickers": {"index": 97419.5, "exchange_ns": T0 + 210 * MS},
    "funding_rate": {
        "funding_rate": -0.000125,
        "next_funding_ns": 1790006400000 * MS,
        "funding_interval_h": 4.0,
        "exchange_ns": T0 + 220 * MS,
    },
    "funding_rate_lacks_next": {
        "funding_rate": -0.000125,
        "next_funding_ns": 1790006400000 * MS,
        "exchange_ns": T0 + 220 * MS,
    },
    "funding_rate_predicted": {
        "funding_rate": -0.000125,
        "predicted_funding_rate": 0.00025,
        "next_funding_ns": 1790006400000 * MS,
        "funding_interval_h": 4.0,
        "exchange_ns": T0 + 220 * MS,
    },
    "open_interest": {"open_interest": 32100.5, "exchange_ns": T0 + 230 * MS},
    "mark_price_zero": {"exchange_ns": T0 + 200 * MS},
    "mark_price_empty": DecodeError,
    "mark_price_nan": DecodeError,
    "mark_price_lacks_time": DecodeError,
    "mark_price_two_rows": DecodeError,
    "mark_price_unknown_symbol": None,
    "index_tickers_other": None,
    "index_tickers_negative": DecodeError,
    "funding_rate_empty": DecodeError,
    "funding_rate_huge": DecodeError,
    "open_interest_lacks_coins": DecodeError,
}
NAMES = (
    "mark",
    "index",
    "funding_rate",
    "open_interest",
    "next_funding_ns",
    "funding_interval_h",
    "predicted_funding_rate",
    "exchange_ns",
)


@pytest.mark.parametrize("name", CONTRACT)
def test_a_channel_of_contracts_states_what_the_table_says(name):
    market, expected = make("contract"), CONTRACT[name]
    if expected is DecodeError:
        with pytest.raises(DecodeError):
            records(market, name)
        return
    found = records(market, name)
    if expected is None:
        assert found == []
        return
    (record,) = found
    known = {each: getattr(record, each) for each in NAMES}
    assert {each: value for each, value in known.items() if value == value and value} == expected
    assert record.topic == f"contract.okx.linear:{NATIVE}"


def test_all_channels_together_are_one_record_and_a_value_that_is_repeated_is_none():
    market, line = make("contract"), Line(0)
    for name in ("mark_price", "index_tickers", "funding_rate", "open_interest"):
        (record,) = records(market, name, line)
    assert (record.mark, record.index, record.funding_rate, record.open_interest) == (
        97420.9,
        97419.5,
        -0.000125,
        32100.5,
    )
    assert records(market, "mark_price", line, RECV_NS + 1) == []
    assert records(market, "mark_price", Line(1), RECV_NS + 2) == []


def test_sizes_are_in_the_base_asset_in_all_that_is_published():
    market, line = make("ticker", "trade", "depth", "book"), Line(0)
    (ticker,) = records(market, "tickers", line)
    assert (ticker.last, ticker.bid_size, ticker.ask_size) == (97421.5, 0.5, 3.0)
    assert (ticker.base_volume_24h, str(ticker.quote_volume_24h)) == (18234.5, "nan")
    (ticker,) = records(market, "bbo", line)
    assert (ticker.bid, ticker.bid_size, ticker.ask, ticker.ask_size) == (97421.4, 0.125, 97421.5, 3.75)
    book, depth = records(market, "books", line)
    assert depth.bids == book.bids == ((97421.4, 0.125), (97421.1, 0.03))
    assert depth.asks == ((97421.6, 3.75), (97422.0, 1.5))
    assert records(market, "trade", line) == [], "the last one before the subscription"
    frame = load("trade").replace(b"1067468269", b"1067468270")
    found = []
    market.decode(frame, RECV_NS, line, lambda state: found.append(wire.unpack(state.record())))
    assert [(each.trade_id, each.size) for each in found] == [("1067468270", 0.07)]


def test_sizes_over_rest_are_in_the_base_asset_as_well():
    market = make()
    quote = market.decode_quote(load("rest/quote"))
    assert (quote.bid_size, quote.ask_size) == (0.125, 3.75)
    with pytest.raises(ProtocolError, match="51001"):
        market.decode_quote(load("rest/quote_unknown_symbol"))
    assert market.decode_time(load("rest/time")) == T0 + 250 * MS
    base = market.decode_base(NATIVE, load("books/base"))
    assert (base.last_id, base.bids, base.asks) == (100, [(97421.4, 0.125)], [(97421.6, 3.75)])
    (past,) = market.decode_past_trades(NATIVE, load("trades/answer")).items
    assert past.trade[:3] == ("1067468270", 97421.5, 0.07)
    rows = market.decode_survey(load("lists/tickers"))
    assert [row.native for row in rows.items] == [NATIVE], "inverse ones, and those without values, are none"
    assert rows.problem == ""
    assert (rows.items[0].quote.bid_size, rows.items[0].statistics[3]) == (0.5, 18234.5)


def test_without_a_list_nothing_is_published_whose_sizes_are_not_known():
    market = OkxLinear()
    for kind in ("ticker", "trade", "depth", "book", "liquidation"):
        market.add([NATIVE], 0, kind)
    for name in ("tickers", "bbo", "books", "trade", "liquidation"):
        with pytest.raises(DecodeError, match="how much a contract"):
            records(market, name)


LIQUIDATIONS = {
    "liquidation": [(97000.5, 10.0, "sell", T0 + 150 * MS, 0, True)],
    "liquidations": [
        (97000.5, 10.0, "sell", T0 + 150 * MS, 0, False),
        (99000.0, 0.05, "buy", T0 + 240 * MS, 1, True),
    ],
    "liquidation_of_nulls": [(97000.5, 10.0, "sell", T0 + 150 * MS, 0, True)],
    "liquidation_of_another": [],
    "liquidation_lacks_price": DecodeError,
    "liquidation_size_zero": DecodeError,
    "liquidation_as_an_object": DecodeError,
}


@pytest.mark.parametrize("name", LIQUIDATIONS)
def test_liquidations_are_those_of_our_symbols_each_once(name):
    market, expected, line = make("liquidation"), LIQUIDATIONS[name], Line(0)
    if expected is DecodeError:
        with pytest.raises(DecodeError):
            records(market, name, line)
        return
    found = [
        (each.price, each.size, str(each.side), each.exchange_ns, each.index, bool(each.flags & wire.LAST))
        for each in records(market, name, line)
    ]
    assert found == expected
    assert records(market, name, Line(1)) == []
    assert records(market, name, line) == []


def test_liquidations_that_are_alike_in_a_message_are_several_and_their_repetition_is_none():
    """As Bybit's: without ids they are known by what is stated, and by their places among those alike."""
    market, line, found = make("liquidation"), Line(0), []
    frame = json.loads(load("liquidation"))
    details = frame["data"][0]["details"]
    frame["data"][0]["details"] = [details[0]] * 3
    payload = json.dumps(frame).encode()
    for each in (line, Line(1), line):
        market.decode(payload, RECV_NS, each, lambda state: found.append(wire.unpack(bytes(state.record()))))
    assert [(record.price, record.index, bool(record.flags & wire.LAST)) for record in found] == [
        (97000.5, 0, False),
        (97000.5, 1, False),
        (97000.5, 2, True),
    ]


def test_an_odd_liquidation_costs_itself_alone_and_is_of_the_channel():
    market, line = make("liquidation"), Line(0)
    frame = json.loads(load("liquidations"))
    ours = frame["data"][1]
    ours["details"].insert(0, ours["details"][0] | {"bkPx": ""})
    frame["data"].insert(0, {"instType": "SWAP"})
    found = []
    payload = json.dumps(frame).encode()
    with pytest.raises(DecodeError, match="liquidation-orders"):
        market.decode(
            payload, RECV_NS, line, lambda state: found.append(wire.unpack(bytes(state.record())).price)
        )
    assert found == [97000.5, 99000.0]
    assert [market.topic_of(payload)] == list(market.topics(NATIVE, "liquidation"))


def test_what_a_perpetual_before_its_opening_is_need_not_be_stated():
    row = json.loads(load("lists/instruments"))["data"][0] | {"ctVal": "", "ctMult": ""}
    rows = OkxLinear().decode_instruments(
        json.dumps({"code": "0", "data": [row | {"state": "preopen"}]}).encode()
    )
    assert [(each.is_trading, each.status, each.contract_size) for each in rows.items] == [
        (False, "preopen", "")
    ]
    assert rows.problem == ""
    with pytest.raises(ProtocolError, match="is no size"):
        OkxLinear().decode_instruments(json.dumps({"code": "0", "data": [row]}).encode())


def test_the_channel_of_liquidations_is_one_for_all_and_its_answer_names_no_instrument():
    market = make()
    assert market.topics(NATIVE, "liquidation") == market.topics("ETH-USDT-SWAP", "liquidation")
    (topic,) = market.topics(NATIVE, "liquidation")
    sent = json.loads(market.subscribe([topic], "7"))
    assert sent["args"] == [{"channel": "liquidation-orders", "instType": "SWAP"}]
    assert market.requested(json.dumps(sent).encode()) == (True, [topic])
    answer = load("ack_liquidations").replace(b'"id":"7"', b'"id":"%s"' % sent["id"].encode())
    assert market.decode(answer, RECV_NS, Line(0), lambda state: None) == Ack("7")


def test_instruments_are_the_linear_ones_and_a_contract_is_its_value_times_its_multiplier():
    rows = OkxLinear().decode_instruments(load("lists/instruments"))
    assert {each.native: (each.symbol, each.contract_size) for each in rows.items} == {
        NATIVE: ("BTC/USDT:USDT", "0.01"),
        "ETH-USDT-SWAP": ("ETH/USDT:USDT", "0.1"),
        "BTC-USD_UM-SWAP": ("BTC/USD:USD", "0.001"),
        "SHIB-USDT-SWAP": ("SHIB/USDT:USDT", "1000000"),
        "OLD-USDT-SWAP": ("OLD/USDT:USDT", "1"),
        "SOON-USDT-SWAP": ("SOON/USDT:USDT", "1"),
    }
    assert {each.native: each.status for each in rows.items if not each.is_trading} == {
        "OLD-USDT-SWAP": "suspend",
        "SOON-USDT-SWAP": "preopen",
    }
    assert "2 of 9 rows cannot be read" in rows.problem


def test_the_tick_of_prices_is_what_the_exchange_states():
    rows = OkxLinear().decode_instruments(load("lists/instruments_ticks"))
    ticks = {each.base: each.tick for each in rows.items}
    assert ticks == {"BTC": "0.01", "SHIB": "0.00000001", "BIG": "10", "NONE": "", "ODD": ""}


def test_topics_are_those_of_the_perpetual_and_of_its_index():
    market = make()
    assert market.topics(NATIVE, "contract") == (
        "mark-price:BTC-USDT-SWAP",
        "funding-rate:BTC-USDT-SWAP",
        "open-interest:BTC-USDT-SWAP",
        "index-tickers:BTC-USDT",
    )
    assert market.topics("BTC-USD_UM-SWAP", "contract")[3] == "index-tickers:BTC-USD"
    assert market.topics(NATIVE, "trade") == ("trades:BTC-USDT-SWAP",)


@pytest.mark.parametrize("name", ["tickers_inverse", "tickers_of_spot"])
def test_what_is_of_another_market_is_ignored(name):
    assert records(make("ticker"), name) == []
    for native in ("BTC-USDT", "BTC-USD-261225"):
        with pytest.raises(ValueError, match="another market"):
            OkxLinear().add([native], 0)


def test_markets_that_share_an_address_are_told_apart_by_the_name_of_the_connection_and_by_requests():
    url = OkxLinear().endpoint(OkxLinear.ws_url, b"", "c").url
    assert place_of(url).market is OkxSpot
    assert place_of(url, "spot.0.1").market is OkxSpot
    assert place_of(url, "linear.0.1").market is OkxLinear
    for market, native in ((OkxSpot(), "BTC-USDT"), (OkxLinear(), NATIVE)):
        for request in (
            market.instruments_request,
            *market.survey_requests,
            market.quote_request(native),
            market.base_request(native),
            market.past_trades_request(native, 7),
        ):
            assert place_of(market.rest_url + request.path).market is type(market)


def test_a_spelling_tells_what_is_quoted_in_but_not_of_dollars():
    found = OkxLinear().spelled(NATIVE)
    assert (found.base, found.quote, found.settle) == ("BTC", "USDT", "USDT")
    assert OkxLinear().spelled("BTC-USD-SWAP") is None, "inverse, most often"
    assert OkxLinear().spelled("BTC-USDT") is None


def test_every_frame_on_disk_is_used_here():
    text = Path(__file__).read_text(encoding="utf-8")
    for path in (FRAMES / "okx_linear").rglob("*.json"):
        name = str(path.relative_to(FRAMES / "okx_linear").with_suffix(""))
        assert f'"{name}"' in text, name


def test_prices_without_orders_are_unknown():
    market = make("ticker")
    frame = json.loads(load("bbo"))
    frame["data"][0]["bids"] = []
    found = []
    market.decode(json.dumps(frame).encode(), RECV_NS, Line(0), lambda state: found.append(state.record()))
    ticker = wire.unpack(found[0])
    assert (str(ticker.bid), ticker.bid_size, ticker.ask_size) == (str(NAN), 0.0, 3.75)


def test_a_request_is_of_the_market_that_it_names():
    """For recordings of a host that is not OKX's: there the address does not tell."""
    spot, linear = OkxSpot(), OkxLinear()
    for market, own, other in ((spot, "SPOT", "SWAP"), (linear, "SWAP", "SPOT")):
        assert market.lists(f"http://127.0.0.1/api/v5/public/instruments?instType={own}")
        assert not market.lists(f"http://127.0.0.1/api/v5/public/instruments?instType={other}")
    for native, own, other in (("BTC-USDT", spot, linear), (NATIVE, linear, spot)):
        book = f"http://127.0.0.1/api/v5/market/books?instId={native}&sz=400"
        trades = f"http://127.0.0.1/api/v5/market/history-trades?instId={native}&type=1"
        assert (own.base_at(book), own.past_trades_at(trades)) == ((native, 400), native)
        assert (other.base_at(book), other.past_trades_at(trades)) == (None, "")


class Met(dict):
    """States as a recording has them: made of whatever is named."""

    def get(self, native, default=None):
        self[native] = default
        return default


def test_an_index_names_no_contract_that_does_not_exist():
    market = make("contract")
    market.states["contract"] = met = Met()
    records(market, "index_tickers")
    assert list(met) == [NATIVE]
