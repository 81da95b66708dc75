"""ccxt.pro, unmodified but for its URLs, receives tickers from all three simulated exchanges.

Spot only, as the simulators play nothing else: `fetchMarkets` is told so.
"""

import asyncio

import pytest

pytest.importorskip("ccxt.pro", reason="third-party client not installed: pip install -e .[third-party]")

import ccxt.pro

WITHIN_S = 30.0
SPOT = {"options": {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}}}


def watch(client: "ccxt.pro.Exchange", symbol: str, **params: object) -> dict:
    """Load the markets, then wait for one ticker; the client is closed whatever happens."""

    async def run() -> dict:
        try:
            async with asyncio.timeout(WITHIN_S):
                await client.load_markets()
                return await client.watch_ticker(symbol, params)
        finally:
            await client.close()

    return asyncio.run(run())


def make(name: str, **urls: object) -> "ccxt.pro.Exchange":
    client = getattr(ccxt.pro, name)(SPOT)
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


def make_binance(simulator) -> "ccxt.pro.Exchange":
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
            async with asyncio.timeout(WITHIN_S):
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
    ws = {"public": {"spot": f"{bybit.ws_url}/v5/public/spot"}}
    client = make("bybit", spot=bybit.rest_url, public=bybit.rest_url, ws=ws)
    ticker = watch(client, "SOL/USDT")
    assert_plausible(ticker, "SOL/USDT", has_quote=False)
    assert ticker["bid"] is None, "Bybit's spot ticker has no quote"
    bybit.assert_well_behaved()
