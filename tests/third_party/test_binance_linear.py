"""ccxt and Binance's own SDK, unmodified but for their URLs, receive USD-M contracts, each stream by its path."""

import asyncio
import copy
import itertools
import time

import pytest
from patience import PATIENCE_S

from feedhandler.sim.binance_linear import IDS_PER_CHANGE

SYMBOL, NATIVE = "BTC/USDT:USDT", "BTCUSDT"


def bounded(work):
    """Run a coroutine to its end, within what a patient user waits."""

    async def run():
        async with asyncio.timeout(PATIENCE_S):
            return await work

    return asyncio.run(run())


def assert_well_behaved(simulator, *paths):
    """Nothing was breached, and no path had to be connected to twice."""
    state = simulator.state()
    assert state["violations"] == []
    assert state["connections_opened"] == len(paths)
    assert state["messages_sent"] > 0


def assert_was(history, update_id, bids, asks):
    """A book of an id was what the levels were then."""
    assert update_id % IDS_PER_CHANGE == 0
    theirs = [[list(map(float, level[:2])) for level in side] for side in (bids, asks)]
    known_bids, known_asks = history.best(update_id // IDS_PER_CHANGE, max(map(len, theirs)))
    assert theirs == [known_bids[: len(bids)], known_asks[: len(asks)]]


def assert_are_trades(history, trades):
    """Merged trades, (first id, last id, price, size, side), none missing between them."""
    for first, last, *what in trades:
        price, size, side = history.merged(last, last - first + 1)
        assert what[::2] == [price, side]
        assert what[1] == pytest.approx(size)
    assert all(later[0] == earlier[1] + 1 for earlier, later in itertools.pairwise(trades))


# ccxt.


@pytest.fixture(scope="module")
def ccxt():
    return pytest.importorskip(
        "ccxt.pro", reason="third-party client not installed: pip install -e .[third-party]"
    )


@pytest.fixture
def use(ccxt, binance):
    """Let a function have a client that knows the markets; it is closed whatever happens."""

    def use(work):
        async def run():
            client = ccxt.binanceusdm()
            url = f"{binance.rest_url}/linear/fapi"
            client.urls["api"] |= {"fapiPublic": f"{url}/v1", "fapiPublicV2": f"{url}/v2"}
            client.urls["api"]["ws"] |= {"linear": f"{binance.ws_url}/linear/ws"}
            try:
                await client.load_markets()
                return await work(client)
            finally:
                await client.close()

        return bounded(run())

    return use


def test_ccxt_names_contracts_as_we_do(use, binance):
    async def markets(client):
        return client.markets

    found = use(markets)
    assert (found[SYMBOL]["id"], found[SYMBOL]["swap"], found[SYMBOL]["linear"]) == (NATIVE, True, True)
    assert {"BTC/USDC:USDC", "XAU/USDT:USDT", "松鼠币/USDT:USDT", "BTC/USDT:USDT-261225"} <= found.keys()
    assert [found[f"{base}/USDT:USDT"]["active"] for base in ("BTC", "HALTED", "SOONER")] == [
        True,
        False,
        False,
    ]
    assert binance.state()["violations"] == []


def test_ccxt_fetches_what_rest_has(use, binance):
    history = binance.follow(NATIVE, "linear")

    async def fetch(client):
        return (
            await client.fetch_ticker(SYMBOL),
            await client.fetch_order_book(SYMBOL, 100),
            await client.fetch_funding_rate(SYMBOL),
            await client.fetch_open_interest(SYMBOL),
            await client.fetch_funding_intervals(),
            await client.fetch_bids_asks([SYMBOL]),
            await client.fetch_trades(SYMBOL, limit=5),
        )

    ticker, book, funding, interest, intervals, quotes, trades = use(fetch)
    assert ticker["low"] <= ticker["last"] <= ticker["high"]
    assert ticker["baseVolume"] > 0
    assert len(book["bids"]) == len(book["asks"]) == 100
    assert_was(history, book["nonce"], book["bids"], book["asks"])
    assert abs(funding["markPrice"] / ticker["last"] - 1) < 0.01
    assert abs(funding["fundingRate"]) < 0.01
    assert 0 < funding["fundingTimestamp"] / 1000 - time.time() <= 8 * 3600
    assert 0 < interest["openInterestAmount"] < ticker["baseVolume"]
    assert intervals["ADA/USDT:USDT"]["interval"] == "1h"
    assert 0 < quotes[SYMBOL]["bid"] < quotes[SYMBOL]["ask"]
    assert trades
    assert binance.state()["violations"] == []


def test_ccxt_watches_a_book(use, binance):
    history = binance.follow(NATIVE, "linear")

    async def watch(client):
        return [copy.deepcopy(await client.watch_order_book(SYMBOL)) for _ in range(15)]

    books = use(watch)
    for book in books:
        assert_was(history, book["nonce"], book["bids"][:300], book["asks"][:300])
    assert len({book["nonce"] for book in books}) > 10
    assert_well_behaved(binance, "/public")


def test_ccxt_watches_single_trades(use, binance):
    history = binance.follow(NATIVE, "linear")

    async def watch(client):
        found = {}
        while len(found) < 20:
            found |= {trade["id"]: trade for trade in await client.watch_trades(SYMBOL)}
        return found.values()

    assert history.had([(trade["price"], trade["amount"], trade["side"]) for trade in use(watch)])
    assert_well_behaved(binance, "/public")


def test_ccxt_watches_merged_trades(use, binance):
    history = binance.follow(NATIVE, "linear")

    async def watch(client):
        found = {}
        while len(found) < 20:
            news = await client.watch_trades(SYMBOL, params={"name": "aggTrade"})
            found |= {trade["id"]: trade for trade in news}
        return list(found.values())

    trades = use(watch)
    numbers = [int(trade["id"]) for trade in trades]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    ids = [(int(trade["info"]["f"]), int(trade["info"]["l"])) for trade in trades]
    whats = [(trade["price"], trade["amount"], trade["side"]) for trade in trades]
    assert_are_trades(history, [(*of, *what) for of, what in zip(ids, whats, strict=True)])
    assert_well_behaved(binance, "/market")


def test_ccxt_watches_quotes_marks_and_statistics_by_their_paths(use, binance):
    async def watch(client):
        return (
            (await client.watch_bids_asks([SYMBOL]))[SYMBOL],
            await client.watch_mark_price(SYMBOL),
            await client.watch_ticker(SYMBOL, {"name": "ticker"}),
        )

    quote, mark, ticker = use(watch)
    assert 0 < quote["bid"] < quote["ask"]
    assert abs(mark["markPrice"] / mark["indexPrice"] - 1) < 0.01
    assert ticker["low"] <= ticker["last"] <= ticker["high"]
    assert ticker["bid"] is None, "as the exchange has it"
    paths = {each["path"].rpartition("/ws")[0] for each in binance.state()["connections"]}
    assert paths <= {"/linear/public", "/linear/market"}
    assert binance.state()["violations"] == []


def test_ccxt_watches_liquidations(use, binance):
    async def watch(client):
        return await client.watch_liquidations(SYMBOL)

    [liquidation] = use(watch)
    assert liquidation["symbol"] == SYMBOL
    assert liquidation["contracts"] > 0
    assert liquidation["side"] in ("buy", "sell")
    assert_well_behaved(binance, "/market")


# The SDK.


@pytest.fixture(scope="module")
def sdk():
    return pytest.importorskip(
        "binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures",
        reason="third-party client not installed: pip install -e .[third-party]",
    )


def test_the_sdk_receives_each_stream_by_its_path(sdk, binance):
    """It connects to all three paths, and checks each message against the documentation's types."""
    history = binance.follow(NATIVE, "linear")

    async def receive():
        config = sdk.ConfigurationWebSocketStreams(stream_url=f"{binance.ws_url}/linear")
        client = sdk.DerivativesTradingUsdsFutures(config_ws_streams=config).websocket_streams
        received = {}
        try:
            await client.create_connection()
            for name, count, subscribe, *options in (
                ("quote", 3, client.individual_symbol_book_ticker_streams),
                ("top", 3, client.partial_book_depth_streams, 20, None, "100ms"),
                ("changes", 5, client.diff_book_depth_streams, None, "100ms"),
                ("trade", 5, client.aggregate_trade_streams),
                ("mark", 2, client.mark_price_stream, None, "1s"),
                ("ticker", 1, client.individual_symbol_ticker_streams),
                ("mini", 1, client.individual_symbol_mini_ticker_stream),
                ("liquidation", 1, client.liquidation_order_streams),
            ):
                stream = await subscribe(NATIVE.lower(), *options)
                messages = received[name] = asyncio.Queue()
                stream.on("message", messages.put_nowait)
                received[name] = [await messages.get() for _ in range(count)]
        finally:
            await client.close_connection(close_session=True)
        return received

    received = bounded(receive())
    assert not any(each.additional_properties for messages in received.values() for each in messages)
    assert all(float(quote.b) < float(quote.a) for quote in received["quote"])
    for top in received["top"]:
        assert len(top.b) == len(top.a) == 20
        assert_was(history, top.u, top.b, top.a)
    assert all(later.pu == earlier.u for earlier, later in itertools.pairwise(received["changes"]))
    sides = {True: "sell", False: "buy"}
    assert_are_trades(
        history, [(each.f, each.l, float(each.p), float(each.q), sides[each.m]) for each in received["trade"]]
    )
    assert all(later.E > earlier.E for earlier, later in itertools.pairwise(received["mark"]))
    [ticker], [mini], [liquidation] = received["ticker"], received["mini"], received["liquidation"]
    assert float(ticker.l) <= float(ticker.w) <= float(ticker.h)
    assert (mini.s, mini.st) == (NATIVE, 1)
    assert liquidation.o.s == NATIVE
    assert_well_behaved(binance, "/market", "/public", "/private")


def test_the_sdk_requests(sdk, binance):
    history = binance.follow(NATIVE, "linear")
    config = sdk.ConfigurationRestAPI(base_path=f"{binance.rest_url}/linear", timeout=int(PATIENCE_S * 1000))
    client = sdk.DerivativesTradingUsdsFutures(config_rest_api=config).rest_api
    listed = {each.symbol: each for each in client.exchange_information().data().symbols}
    assert listed[NATIVE].contract_type == "PERPETUAL"
    book = client.order_book(NATIVE, limit=1000).data()
    assert_was(history, book.last_update_id, book.bids, book.asks)
    assert float(client.open_interest(NATIVE).data().open_interest) > 0
    premium = client.mark_price(symbol=NATIVE).data().actual_instance
    assert premium.next_funding_time / 1000 > time.time()
    hours = {each.symbol: each.funding_interval_hours for each in client.get_funding_rate_info().data()}
    assert hours["SOLUSDT"] == 4
    assert NATIVE not in hours
    trades = client.compressed_aggregate_trades_list(NATIVE, limit=1000).data()
    assert all(later.a == earlier.a + 1 for earlier, later in itertools.pairwise(trades))
    day = client.ticker24hr_price_change_statistics(symbol=NATIVE).data().actual_instance
    assert float(day.low_price) <= float(day.last_price) <= float(day.high_price)
    quote = client.symbol_order_book_ticker(symbol=NATIVE).data().actual_instance
    assert float(quote.bid_price) < float(quote.ask_price)
    assert binance.state()["violations"] == []
