"""kucoin-universal-sdk, KuCoin's own client, unmodified but for its endpoint, receives market data and balances."""

import itertools
import queue
import threading
import time
import warnings
from types import SimpleNamespace

import pytest
from patience import PATIENCE_S

from feedhandler.sim import credentials

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def _sdk():
    """Loaded where these tests run: each worker collects them, and it takes a second."""
    global DefaultClient, GetSpotAccountListReq, GetSpotAccountListReqBuilder, GetAllSymbolsReqBuilder
    global GetPartOrderBookReqBuilder, GetTradeHistoryReqBuilder, futures
    global ClientOptionBuilder, RestError, TransportOptionBuilder, WebSocketClientOptionBuilder
    pytest.importorskip(
        "kucoin_universal_sdk", reason="third-party client not installed: pip install -e .[third-party]"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is written against an older pydantic
        from kucoin_universal_sdk.api.client import DefaultClient
        from kucoin_universal_sdk.generate.account.account.model_get_spot_account_list_req import (
            GetSpotAccountListReq,
            GetSpotAccountListReqBuilder,
        )
        from kucoin_universal_sdk.generate.futures import fundingfees, market
        from kucoin_universal_sdk.generate.spot.market.model_get_all_symbols_req import (
            GetAllSymbolsReqBuilder,
        )
        from kucoin_universal_sdk.generate.spot.market.model_get_part_order_book_req import (
            GetPartOrderBookReqBuilder,
        )
        from kucoin_universal_sdk.generate.spot.market.model_get_trade_history_req import (
            GetTradeHistoryReqBuilder,
        )
        from kucoin_universal_sdk.model.client_option import ClientOptionBuilder
        from kucoin_universal_sdk.model.common import RestError
        from kucoin_universal_sdk.model.transport_option import TransportOptionBuilder
        from kucoin_universal_sdk.model.websocket_option import WebSocketClientOptionBuilder

        futures = SimpleNamespace(market=market, funding=fundingfees)  # whose names are those of spot


@pytest.fixture
def sdk(kucoin):
    return make(kucoin, credentials.Credentials(key="", secret=""))


@pytest.fixture
def private_sdk(kucoin):
    return make(kucoin, credentials.KUCOIN)


def make(kucoin, key: credentials.Credentials) -> "DefaultClient":
    option = (
        ClientOptionBuilder()
        .set_key(key.key)
        .set_secret(key.secret)
        .set_passphrase(key.passphrase)
        .set_spot_endpoint(kucoin.rest_url)
        .set_futures_endpoint(f"{kucoin.rest_url}/linear")
        .set_broker_endpoint(kucoin.rest_url)
        .set_transport_option(TransportOptionBuilder().build())
        .set_websocket_client_option(WebSocketClientOptionBuilder().with_reconnect(False).build())
        .build()
    )
    return DefaultClient(option)


def stop(service):
    """Stop a session, which takes the SDK 10 s, without waiting for it."""
    threading.Thread(target=service.stop, daemon=True).start()


def test_ticker_snapshot_and_level1(kucoin, sdk):
    received: queue.Queue = queue.Queue()
    public = sdk.ws_service().new_spot_public_ws()
    public.start()
    try:
        public.ticker(["BTC-USDT", "ETH-USDT"], lambda topic, subject, data: received.put((topic, data)))
        public.symbol_snapshot("SOL-USDT", lambda topic, subject, data: received.put((topic, data)))
        public.orderbook_level1(["XRP-USDT"], lambda topic, subject, data: received.put((topic, data)))
        seen = collect(received, 4)
    finally:
        stop(public)
    for topic in ("/market/ticker:BTC-USDT", "/market/ticker:ETH-USDT"):
        assert 0 < float(seen[topic].best_bid) < float(seen[topic].best_ask)
        assert float(seen[topic].price) > 0
    snapshot = seen["/market/snapshot:SOL-USDT"].data
    assert snapshot.symbol == "SOL-USDT"
    assert snapshot.low <= snapshot.last_traded_price <= snapshot.high
    assert 0 < snapshot.buy < snapshot.sell
    assert snapshot.vol > 0
    book = seen["/spotMarket/level1:XRP-USDT"]
    assert 0 < float(book.bids[0]) < float(book.asks[0])
    kucoin.assert_well_behaved()


def test_trades_and_books(kucoin, sdk):
    history = kucoin.follow("BTC-USDT")
    received: queue.Queue = queue.Queue()
    public = sdk.ws_service().new_spot_public_ws()
    public.start()
    try:
        for subscribe in (public.trade, public.orderbook_increment, public.orderbook_level50):
            subscribe(["BTC-USDT"], lambda topic, subject, data: received.put((subject, data)))
        found: dict[str, list] = {"trade.l3match": [], "trade.l2update": [], "level2": []}
        while min(map(len, found.values())) < 10:
            subject, data = received.get(timeout=PATIENCE_S)
            found[subject].append(data)
    finally:
        stop(public)
    market = sdk.rest_service().get_spot_service().get_market_api()
    base = market.get_part_order_book(
        GetPartOrderBookReqBuilder().set_symbol("BTC-USDT").set_size("100").build()
    )
    past = market.get_trade_history(GetTradeHistoryReqBuilder().set_symbol("BTC-USDT").build()).data
    seen = [(float(each.price), float(each.size), each.side) for each in found["trade.l3match"]]
    assert history.had(seen)
    assert {each.sequence for each in past} & {each.trade_id for each in found["trade.l3match"]}
    for earlier, later in itertools.pairwise(found["trade.l2update"]):
        assert later.sequence_start == earlier.sequence_end + 1
    bids, asks = history.best(int(base.sequence), 100)
    assert [list(map(float, level)) for level in base.bids] == bids
    assert [list(map(float, level)) for level in base.asks] == asks
    for book in found["level2"]:
        assert len(book.bids) == len(book.asks) == 50
        assert float(book.bids[0][0]) < float(book.asks[0][0])
    kucoin.assert_well_behaved()


def collect(received: queue.Queue, count: int) -> dict:
    """Wait for `count` different topics; returns the newest of each."""
    seen: dict = {}
    until = time.monotonic() + PATIENCE_S
    while len(seen) < count and time.monotonic() < until:
        topic, data = received.get(timeout=PATIENCE_S)
        seen[topic] = data
    assert len(seen) == count, seen.keys()
    return seen


def test_symbols(sdk):
    answer = (
        sdk.rest_service()
        .get_spot_service()
        .get_market_api()
        .get_all_symbols(GetAllSymbolsReqBuilder().build())
    )
    by_symbol = {each.symbol: each for each in answer.data}
    assert by_symbol["FENOLD-USDT"].name == "FENNEW-USDT"
    assert by_symbol["HALTED-USDT"].enable_trading is False


# Futures.

CONTRACT = "XBTUSDTM"


def of_contract(made, symbol=CONTRACT):
    """A request about one contract."""
    return made.set_symbol(symbol).build()


def test_contracts_and_their_funding(kucoin, sdk):
    service = sdk.rest_service().get_futures_service()
    market, funding = service.get_market_api(), service.get_funding_fees_api()
    listed = {each.symbol: each for each in market.get_all_symbols().data}
    one = market.get_symbol(of_contract(futures.market.GetSymbolReqBuilder()))
    assert (one.multiplier, one.status.value, one.type.value) == (1e-5, "Open", "FFWCSX")
    assert int(one.open_interest) > 0
    assert 0 < one.next_funding_rate_time <= one.funding_rate_granularity == 8 * 3_600_000
    assert listed[CONTRACT].model_dump().keys() >= {"open_interest", "mark_price"}
    assert listed["XBTMZ26"].next_funding_rate_time is None, "it is dated, and has no funding"
    assert listed["XBTUSDM"].is_inverse
    rate = funding.get_current_funding_rate(of_contract(futures.funding.GetCurrentFundingRateReqBuilder()))
    assert (rate.symbol, rate.granularity) == (one.funding_rate_symbol, one.funding_rate_granularity)
    assert rate.funding_time - rate.time_point == rate.granularity
    assert rate.funding_rate_floor <= rate.value <= rate.funding_rate_cap
    mark = market.get_mark_price(of_contract(futures.market.GetMarkPriceReqBuilder()))
    assert abs(mark.value / mark.index_price - 1) < 0.05
    ticker = market.get_ticker(of_contract(futures.market.GetTickerReqBuilder()))
    assert 0 < float(ticker.best_bid_price) < float(ticker.best_ask_price)
    assert CONTRACT in {each.symbol for each in market.get_all_tickers().data}
    assert market.get_server_time().data > 1_600_000_000_000
    assert kucoin.state()["violations"] == []


def test_channels_of_contracts(kucoin, sdk):
    history = kucoin.follow(CONTRACT, "linear")
    received: queue.Queue = queue.Queue()
    public = sdk.ws_service().new_futures_public_ws()
    public.start()
    found: dict[str, list] = {
        "match": [], "level2": [], "ticker": [], "tickerV2": [], "snapshot.24h": [], "mark.index.price": []
    }  # fmt: skip
    found["funding.rate"] = []
    try:
        for subscribe in (
            public.execution,
            public.orderbook_increment,
            public.ticker_v1,
            public.ticker_v2,
            public.symbol_snapshot,
            public.instrument,
        ):
            subscribe(CONTRACT, lambda topic, subject, data: received.put((subject, data)))
        while not all(found.values()) or min(len(found["match"]), len(found["level2"])) < 10:
            subject, data = received.get(timeout=PATIENCE_S)
            found[subject].append(data)
    finally:
        stop(public)
    trades = [(*history.level_of(float(t.price), t.size), t.side) for t in found["match"]]
    assert history.had(trades)
    for earlier, later in itertools.pairwise(found["level2"]):
        assert later.sequence == earlier.sequence + 1
    for each in (*found["tickerV2"], *found["ticker"]):
        assert 0 < float(each.best_bid_price) < float(each.best_ask_price)
    assert found["snapshot.24h"][0].low_price <= found["snapshot.24h"][0].high_price
    mark = found["mark.index.price"][0]
    assert abs(mark.mark_price / mark.index_price - 1) < 0.05
    assert found["funding.rate"][0].granularity == 60_000, "what is predicted"
    market = sdk.rest_service().get_futures_service().get_market_api()
    base = market.get_full_order_book(of_contract(futures.market.GetFullOrderBookReqBuilder()))
    for side, truth in zip((base.bids, base.asks), history.best(base.sequence, 200), strict=True):
        assert [history.level_of(*level) for level in side][: len(truth)] == truth
    past = market.get_trade_history(of_contract(futures.market.GetTradeHistoryReqBuilder())).data
    assert {each.trade_id for each in past} & {each.trade_id for each in found["match"]}
    kucoin.assert_well_behaved()


# Balances.


def accounts(sdk, request) -> list:
    return sdk.rest_service().get_account_service().get_account_api().get_spot_account_list(request).data


def test_account_list(kucoin, private_sdk):
    everything = accounts(private_sdk, GetSpotAccountListReqBuilder().build())
    assert {(each.type.value, each.currency) for each in everything} == {
        ("trade", "BTC"),
        ("trade", "ETH"),
        ("trade", "USDT"),
        ("main", "BTC"),
        ("main", "USDT"),
    }
    request = (
        GetSpotAccountListReqBuilder().set_type(GetSpotAccountListReq.TypeEnum.TRADE).set_currency("BTC")
    )
    [bitcoin] = accounts(private_sdk, request.build())
    assert (bitcoin.balance, bitcoin.available, bitcoin.holds) == ("1.3", "1.25", "0.05")
    assert kucoin.state()["violations"] == []


def test_account_list_with_a_wrong_passphrase_fails(kucoin):
    key = credentials.KUCOIN
    sdk = make(kucoin, credentials.Credentials(key=key.key, secret=key.secret, passphrase="wrong"))
    with pytest.raises(RestError, match="400004"):
        accounts(sdk, GetSpotAccountListReqBuilder().build())


def test_account_stream(kucoin, private_sdk):
    received: queue.Queue = queue.Queue()
    private = private_sdk.ws_service().new_spot_private_ws()
    private.start()
    try:
        private.account(lambda topic, subject, data: received.put((subject, data)))
        kucoin.wait_for_topic("/account/balance")
        kucoin.fault(fault="hold", asset="USDT", amount="0.5")
        subject, event = received.get(timeout=PATIENCE_S)
    finally:
        stop(private)
    assert subject == "account.balance"
    assert (event.currency, event.total, event.available, event.hold) == ("USDT", "10250.5", "10000", "250.5")
    assert (event.available_change, event.hold_change) == ("-0.5", "0.5")
    assert event.relation_event == "trade.hold"
    assert kucoin.state()["violations"] == []
