"""ccxt.pro, unmodified but for its URLs, receives tickers, trades, books and balances from the exchanges.

Spot only, as the simulators play nothing else: `fetchMarkets` is told so.
"""

import asyncio
import copy
import itertools

import msgspec
import pytest
from patience import PATIENCE_S

from feedhandler.sim import credentials

SPOT = {"options": {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}}}


@pytest.fixture(scope="module", autouse=True)
def _ccxt():
    """Loaded where these tests run: each worker collects them, and it takes most of a second."""
    global ccxt
    ccxt = pytest.importorskip(
        "ccxt.pro", reason="third-party client not installed: pip install -e .[third-party]"
    )


def watch(client: "ccxt.Exchange", symbol: str, **params: object) -> dict:
    """Load the markets, then wait for one ticker; the client is closed whatever happens."""

    async def run() -> dict:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await client.load_markets()
                return await client.watch_ticker(symbol, params)
        finally:
            await client.close()

    return asyncio.run(run())


def make(name: str, **urls: object) -> "ccxt.Exchange":
    client = getattr(ccxt, name)(SPOT)
    client.urls["api"] = {**client.urls["api"], **urls}
    return client


def assert_plausible(ticker: dict, symbol: str, *, has_quote: bool = True) -> None:
    assert ticker["symbol"] == symbol
    assert ticker["last"] > 0
    assert ticker["high"] >= ticker["last"] >= ticker["low"] > 0
    assert ticker["high"] >= ticker["open"] >= ticker["low"]
    assert ticker["baseVolume"] > 0
    assert ticker["quoteVolume"] > 0
    assert ticker["timestamp"] > 1_600_000_000_000
    if has_quote:
        assert 0 < ticker["bid"] < ticker["ask"]


def make_binance(simulator) -> "ccxt.Exchange":
    return make("binance", public=f"{simulator.rest_url}/api/v3", ws={"spot": f"{simulator.ws_url}/ws"})


def test_binance_watch_ticker(binance):
    ticker = watch(make_binance(binance), "BTC/USDT", name="ticker")
    assert_plausible(ticker, "BTC/USDT")
    assert ticker["average"] > 0
    binance.assert_well_behaved()


def test_binance_watch_ticker_as_is_reads_the_mini_ticker(binance):
    ticker = watch(make_binance(binance), "DOGE/USDT")
    assert_plausible(ticker, "DOGE/USDT", has_quote=False)
    binance.assert_well_behaved()


def test_binance_watch_ticker_of_a_symbol_outside_ascii(binance):
    assert_plausible(watch(make_binance(binance), "松鼠币/USDT", name="ticker"), "松鼠币/USDT")
    binance.assert_well_behaved()


def test_binance_watch_bids_asks(binance):
    async def run() -> dict:
        client = make_binance(binance)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await client.watch_bids_asks(["ETH/USDT"])
        finally:
            await client.close()

    quote = asyncio.run(run())["ETH/USDT"]
    assert 0 < quote["bid"] < quote["ask"]
    binance.assert_well_behaved()


def test_kucoin_watch_ticker(kucoin):
    client = make("kucoin", public=kucoin.rest_url)
    assert_plausible(watch(client, "ETH/USDT"), "ETH/USDT")
    kucoin.assert_well_behaved()


def test_kucoin_watch_ticker_of_a_renamed_symbol(kucoin):
    client = make("kucoin", public=kucoin.rest_url)
    # ccxt splits the permanent symbol, and so shows the name from before the rename.
    assert_plausible(watch(client, "FENOLD/USDT"), "FENOLD/USDT")
    kucoin.assert_well_behaved()


def test_bybit_watch_ticker(bybit):
    ticker = watch(make_bybit(bybit), "SOL/USDT")
    assert_plausible(ticker, "SOL/USDT", has_quote=False)
    assert ticker["bid"] is None, "Bybit's spot ticker has no quote"
    bybit.assert_well_behaved()


def make_okx(simulator) -> "ccxt.Exchange":
    return make("okx", rest=simulator.rest_url, ws=f"{simulator.ws_url}/ws/v5")


def test_okx_watch_ticker(okx):
    assert_plausible(watch(make_okx(okx), "SOL/USDT"), "SOL/USDT")
    okx.assert_well_behaved()


def test_okx_watch_bids_asks(okx):
    [quotes] = collect(make_okx(okx), "watch_bids_asks", 1, ["ETH/USDT"])
    assert 0 < quotes["ETH/USDT"]["bid"] < quotes["ETH/USDT"]["ask"]
    okx.assert_well_behaved()


# Trades and books.

MAKERS = {
    "binance": lambda simulator: make_binance(simulator),
    "kucoin": lambda simulator: make("kucoin", public=simulator.rest_url),
    "bybit": lambda simulator: make_bybit(simulator),
}
BTC = {"binance": "BTCUSDT", "kucoin": "BTC-USDT", "bybit": "BTCUSDT"}


def make_bybit(simulator) -> "ccxt.Exchange":
    ws = {"public": {"spot": f"{simulator.ws_url}/v5/public/spot"}}
    return make("bybit", spot=simulator.rest_url, public=simulator.rest_url, ws=ws)


def collect(client: "ccxt.Exchange", call: str, count: int, *arguments: object) -> list:
    """Wait for so many updates of what a client keeps, a copy of each."""

    async def run() -> list:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await client.load_markets()
                return [copy.deepcopy(await getattr(client, call)(*arguments)) for _ in range(count)]
        finally:
            await client.close()

    return asyncio.run(run())


@pytest.mark.parametrize("name", MAKERS)
def test_watch_trades(name, request):
    simulator = request.getfixturevalue(name)
    history = simulator.follow(BTC[name])
    found = {
        trade["id"]: trade
        for part in collect(MAKERS[name](simulator), "watch_trades", 20, "BTC/USDT")
        for trade in part
    }
    seen = [(trade["price"], trade["amount"], trade["side"]) for trade in found.values()]
    assert len(seen) >= 20
    assert history.had(seen)
    assert all(trade["timestamp"] > 1_600_000_000_000 for trade in found.values())
    simulator.assert_well_behaved()


@pytest.mark.parametrize(("name", "depth"), [("binance", 300), ("kucoin", 20)])
def test_watch_order_book_of_deltas_and_a_base_of_rest(name, depth, request):
    simulator = request.getfixturevalue(name)
    history = simulator.follow(BTC[name])
    books = collect(MAKERS[name](simulator), "watch_order_book", 20, "BTC/USDT")
    for book in books:
        bids, asks = history.best(book["nonce"], depth)
        assert [level[:2] for level in book["bids"][:depth]] == bids
        assert [level[:2] for level in book["asks"][:depth]] == asks
    assert len({book["nonce"] for book in books}) > 10
    simulator.assert_well_behaved()


@pytest.mark.parametrize("depth", [50, 200])
def test_bybit_watch_order_book(bybit, depth):
    history = bybit.follow("BTCUSDT")
    books = collect(make_bybit(bybit), "watch_order_book", 20, "BTC/USDT", depth)
    assert_have_been(books, history, depth)  # its nonce is the number of the message, and says not which one
    bybit.assert_well_behaved()


def test_okx_watch_trades(okx):
    """Those of one order at one price are merged, and the first is from before."""
    history = okx.follow("BTC-USDT")
    parts = collect(make_okx(okx), "watch_trades", 20, "BTC/USDT")
    found = {trade["id"]: trade for part in parts for trade in part}
    assert len(found) >= 20
    first, *others = found.values()
    for trade in others:
        merged = history.merged(int(trade["id"]), int(trade["info"]["count"]))
        assert (trade["price"], trade["amount"], trade["side"]) == merged
    ids = [(int(trade["id"]), int(trade["info"]["count"])) for trade in others]
    assert all(last - count == before for (before, _), (last, count) in itertools.pairwise(ids))
    assert int(first["id"]) < ids[0][0]
    okx.assert_well_behaved()


def test_okx_watch_order_book(okx):
    """It checks that each update names the one before."""
    history = okx.follow("BTC-USDT")
    books = collect(make_okx(okx), "watch_order_book", 20, "BTC/USDT")
    for book in books:
        bids, asks = history.best(book["nonce"], 400)
        assert [level[:2] for level in book["bids"]] == bids
        assert [level[:2] for level in book["asks"]] == asks
    assert len({book["nonce"] for book in books}) > 10
    okx.assert_well_behaved()


def test_okx_watch_order_book_of_five_levels(okx):
    history = okx.follow("BTC-USDT")
    books = collect(make_okx(okx), "watch_order_book", 10, "BTC/USDT", 5, {"depth": "books5"})
    assert_have_been(books, history, 5)
    okx.assert_well_behaved()


def test_okx_fetches_what_it_watches(okx):
    history = okx.follow("BTC-USDT")

    async def run() -> tuple:
        client = make_okx(okx)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await client.load_markets()
                assert client.markets["HALTED/USDT"]["active"] is False
                trades = await client.watch_trades("BTC/USDT")
                while len(history.fills) < 20:
                    await client.watch_trades("BTC/USDT")
                return (
                    await client.fetch_ticker("BTC/USDT"),
                    await client.fetch_order_book("BTC/USDT", 20),
                    await client.fetch_trades("BTC/USDT", limit=10),
                    trades,
                )
        finally:
            await client.close()

    ticker, book, trades, _ = asyncio.run(run())
    assert_plausible(ticker, "BTC/USDT")
    assert len(book["bids"]) == len(book["asks"]) == 20
    assert len(trades) == 10
    assert history.had([(trade["price"], trade["amount"], trade["side"]) for trade in trades])
    okx.assert_well_behaved()


SWAP = "BTC/USDT:USDT"


def make_okx_swaps(simulator) -> "ccxt.Exchange":
    client = make_okx(simulator)
    client.options |= {"defaultType": "swap", "fetchMarkets": {"types": ["spot", "swap"]}}
    return client


def test_okx_swaps_are_in_contracts(okx):
    """It knows how many coins one is, and that one of them is inverse."""

    async def run() -> tuple:
        client = make_okx_swaps(okx)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await client.load_markets()
                return (
                    client.markets,
                    await client.watch_ticker(SWAP),
                    await client.watch_mark_price(SWAP),
                    await client.watch_funding_rate(SWAP),
                    await client.fetch_open_interest(SWAP),
                    await client.fetch_funding_rates(),
                )
        finally:
            await client.close()

    markets, ticker, mark, funding, interest, rates = asyncio.run(run())
    btc = markets[SWAP]
    assert (btc["contractSize"], btc["linear"], btc["settle"], btc["active"]) == (0.01, True, "USDT", True)
    assert markets["BTC/USD:BTC"]["inverse"] is True
    assert markets["HALTED/USDT:USDT"]["active"] is False
    assert 0 < ticker["bid"] < ticker["ask"]
    assert ticker["baseVolume"] > 0
    assert mark["markPrice"] == pytest.approx(ticker["last"], rel=0.05)
    assert abs(funding["fundingRate"]) <= 0.0075
    assert funding["nextFundingTimestamp"] - funding["fundingTimestamp"] == 8 * 3_600_000
    assert interest["openInterestAmount"] > interest["openInterestValue"] / 10**6
    assert SWAP in rates
    okx.assert_well_behaved()


def test_okx_watch_trades_and_book_of_a_swap(okx):
    history = okx.follow("BTC-USDT-SWAP")
    client = make_okx_swaps(okx)
    for trade in [trade for part in collect(client, "watch_trades", 10, SWAP)[1:] for trade in part][-10:]:
        price, coins, side = history.merged(int(trade["id"]), int(trade["info"]["count"]))
        assert (trade["price"], trade["side"]) == (price, side)
        assert trade["amount"] * 0.01 == pytest.approx(coins)
    books = collect(make_okx_swaps(okx), "watch_order_book", 10, SWAP)
    for book in books:
        bids, asks = history.best(book["nonce"], 400)
        for side, truth in ((book["bids"], bids), (book["asks"], asks)):
            assert [[price, round(contracts * 0.01, 5)] for price, contracts, *_ in side] == truth
    assert okx.state()["violations"] == []


def test_okx_watch_liquidations(okx):
    async def run() -> list:
        client = make_okx_swaps(okx)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await client.load_markets()
                swaps = [symbol for symbol, market in client.markets.items() if market["swap"]]
                return await client.watch_liquidations_for_symbols(swaps)
        finally:
            await client.close()

    [found, *_] = asyncio.run(run())
    assert found["symbol"].endswith((":USDT", ":BTC"))
    assert found["price"] > 0
    assert found["contracts"] > 0
    okx.assert_well_behaved()


CONTRACT = "XBTUSDTM"


def make_kucoinfutures(simulator) -> "ccxt.Exchange":
    """Its own id, with the hosts of futures; open interest is at that of spot, with the unified interface."""
    client = ccxt.kucoinfutures()
    futures = f"{simulator.rest_url}/linear"
    urls = {"futuresPublic": futures, "public": simulator.rest_url, "uta": simulator.rest_url}
    client.urls["api"] = {**client.urls["api"], **urls}
    return client


def test_kucoinfutures_knows_contracts_and_their_funding(kucoin):
    async def run() -> tuple:
        client = make_kucoinfutures(kucoin)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await client.load_markets()
                return (
                    client.markets,
                    await client.watch_ticker(SWAP),
                    await client.watch_bids_asks([SWAP]),
                    await client.fetch_funding_rate(SWAP),
                    await client.fetch_open_interest(SWAP),
                    await client.fetch_mark_price(SWAP),
                    await client.fetch_ticker(SWAP),
                    await client.fetch_tickers(),
                )
        finally:
            await client.close()

    markets, ticker, quotes, funding, interest, mark, asked, all_of_them = asyncio.run(run())
    btc = markets[SWAP]
    assert (btc["contractSize"], btc["linear"], btc["settle"], btc["active"]) == (1e-5, True, "USDT", True)
    assert markets["BTC/USD:BTC"]["inverse"] is True
    assert any(market["future"] for market in markets.values())
    assert markets["HALTED/USDT:USDT"]["active"] is False
    for each in (ticker, asked, quotes[SWAP]):
        assert 0 < each["bid"] < each["ask"]
        assert each["symbol"] == SWAP
    assert ticker["last"] > 0
    assert mark["markPrice"] == pytest.approx(ticker["last"], rel=0.05)
    assert abs(funding["fundingRate"]) <= 0.0075
    assert funding["fundingTimestamp"] - funding["previousFundingTimestamp"] == 8 * 3_600_000
    assert funding["interval"] == "8h"
    assert interest["openInterestAmount"] > 0
    assert interest["symbol"] == SWAP
    assert all_of_them[SWAP]["baseVolume"] > 0
    kucoin.assert_well_behaved()


def test_kucoinfutures_watch_trades_and_book(kucoin):
    """Its sizes are contracts, of which it knows how much one is."""
    history = kucoin.follow(CONTRACT, "linear")
    client = make_kucoinfutures(kucoin)
    parts = collect(client, "watch_trades", 10, SWAP)
    found = {trade["id"]: trade for part in parts for trade in part}
    assert len(found) >= 10
    assert history.had(
        [(*history.level_of(trade["price"], trade["amount"]), trade["side"]) for trade in found.values()]
    )
    for depth in (None, 50):
        books = collect(make_kucoinfutures(kucoin), "watch_order_book", 10, SWAP, depth)
        for book in books:
            assert book["nonce"] > 0
            sides = history.best(book["nonce"], depth or 100)
            for side, truth in zip((book["bids"], book["asks"]), sides, strict=True):
                assert [history.level_of(*level[:2]) for level in side[: len(truth)]] == truth
    assert kucoin.state()["violations"] == []


def assert_have_been(books: list, history, depth: int) -> None:
    """Each is what the best levels have been at some time, one after the other."""
    states = (levels for _, levels in history.states(depth))
    now = next(states)
    for book in books:
        wanted = ([level[:2] for level in book["bids"]], [level[:2] for level in book["asks"]])
        assert len(wanted[0]) == len(wanted[1]) == depth
        while now != wanted:
            now = next(states, None)
            assert now is not None, "a book that has never been"


def test_kucoin_watch_order_book_of_whole_depth(kucoin):
    history = kucoin.follow("BTC-USDT")
    books = collect(MAKERS["kucoin"](kucoin), "watch_order_book", 10, "BTC/USDT", 50)
    assert_have_been(books, history, 50)
    kucoin.assert_well_behaved()


# Balances.


async def load(client: "ccxt.Exchange", key: credentials.Credentials) -> None:
    """Load the markets, and have the keys only then: with keys it asks for margin and coins as well."""
    await client.load_markets()
    client.apiKey, client.secret, client.password = key.key, key.secret, key.passphrase


def fetch_balance(client: "ccxt.Exchange", key: credentials.Credentials) -> dict:
    async def run() -> dict:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await load(client, key)
                return await client.fetch_balance()
        finally:
            await client.close()

    return asyncio.run(run())


def watch_balance(
    client: "ccxt.Exchange", key: credentials.Credentials, simulator, topic: str, **change: object
) -> dict:
    """Wait for one push of the account; the change is made when the client is subscribed."""

    async def run() -> dict:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await load(client, key)
                watching = asyncio.create_task(client.watch_balance())
                await asyncio.to_thread(simulator.wait_for_topic, topic)
                await asyncio.to_thread(lambda: simulator.fault(**change))
                return await watching
        finally:
            await client.close()

    return asyncio.run(run())


def assert_opening(found: dict) -> None:
    for coin, free, used in (("BTC", 1.25, 0.05), ("USDT", 10000.5, 250.0)):
        assert found[coin]["free"] == free
        assert found[coin]["used"] == used
        assert found[coin]["total"] == free + used


def wrong(key: credentials.Credentials, /, **parts: str) -> credentials.Credentials:
    return msgspec.structs.replace(key, **parts)


ED25519 = credentials.Credentials(key=credentials.BINANCE_ED25519_KEY, secret=credentials.ed25519_pem())


def make_private_binance(simulator) -> "ccxt.Exchange":
    client = make_binance(simulator)
    client.urls["api"]["private"] = f"{simulator.rest_url}/api/v3"
    client.urls["api"]["ws"]["ws-api"] = {"spot": f"{simulator.ws_url}/ws-api/v3"}
    return client


@pytest.mark.parametrize("key", [credentials.BINANCE, ED25519], ids=["hmac", "ed25519"])
def test_binance_fetch_balance(binance, key):
    assert_opening(fetch_balance(make_private_binance(binance), key))
    assert binance.state()["violations"] == []


def test_binance_fetch_balance_with_a_wrong_secret_fails(binance):
    with pytest.raises(ccxt.AuthenticationError, match="-1022"):
        fetch_balance(make_private_binance(binance), wrong(credentials.BINANCE, secret="wrong"))
    assert binance.state()["violations_total"] == 1


@pytest.mark.parametrize("key", [credentials.BINANCE, ED25519], ids=["hmac", "ed25519"])
def test_binance_watch_balance(binance, key):
    change = {"fault": "deposit", "asset": "BTC", "amount": "0.5"}
    found = watch_balance(make_private_binance(binance), key, binance, "userDataStream 0", **change)
    assert found["BTC"]["free"] == 1.75
    assert binance.state()["violations"] == []


def make_private_kucoin(simulator) -> "ccxt.Exchange":
    client = make("kucoin", public=simulator.rest_url, private=simulator.rest_url)
    client.options["uta"] = False
    return client


def test_kucoin_fetch_balance(kucoin):
    assert_opening(fetch_balance(make_private_kucoin(kucoin), credentials.KUCOIN))
    assert kucoin.state()["violations"] == []


@pytest.mark.parametrize(
    ("part", "code"), [("key", "400003"), ("passphrase", "400004"), ("secret", "400004")]
)
def test_kucoin_fetch_balance_with_anything_wrong_fails(kucoin, part, code):
    with pytest.raises(ccxt.AuthenticationError, match=code):
        fetch_balance(make_private_kucoin(kucoin), wrong(credentials.KUCOIN, **{part: "wrong"}))


def test_kucoin_watch_balance(kucoin):
    change = {"fault": "deposit", "asset": "BTC", "amount": "0.5"}
    client = make_private_kucoin(kucoin)
    found = watch_balance(client, credentials.KUCOIN, kucoin, "/account/balance", **change)
    assert found["BTC"]["free"] == 1.75
    assert kucoin.state()["violations"] == []


def make_private_bybit(simulator) -> "ccxt.Exchange":
    """Make a client that is told the kind of its account: the simulator does not play who says that."""
    private = dict.fromkeys(("spot", "contract", "usdc", "unified"), f"{simulator.ws_url}/v5/private")
    ws = {"public": {"spot": f"{simulator.ws_url}/v5/public/spot"}, "private": private}
    client = make("bybit", **dict.fromkeys(("spot", "public", "private"), simulator.rest_url), ws=ws)
    client.options |= {"enableUnifiedMargin": False, "enableUnifiedAccount": True}
    return client


def test_bybit_fetch_balance(bybit):
    assert_opening(fetch_balance(make_private_bybit(bybit), credentials.BYBIT))
    assert bybit.state()["violations"] == []


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("key", "AuthenticationError"),
        ("permission", "PermissionDenied"),
        ("address", "PermissionDenied"),
        ("expired", "AuthenticationError"),
        ("maintenance", "ExchangeError"),
    ],
)
def test_bybit_fetch_balance_understands_why_a_key_is_refused(bybit, kind, error):
    bybit.fault(fault="refuse_key", kind=kind)
    with pytest.raises(getattr(ccxt, error)):
        fetch_balance(make_private_bybit(bybit), credentials.BYBIT)
    assert bybit.state()["violations"] == []


def test_bybit_watch_balance(bybit):
    change = {"fault": "deposit", "asset": "BTC", "amount": "0.5"}
    found = watch_balance(make_private_bybit(bybit), credentials.BYBIT, bybit, "wallet", **change)
    assert found["BTC"]["total"] == 1.8
    assert bybit.state()["violations"] == []
