"""Accounts on real sockets: changes on command, who hears of them, what the pages show."""

import asyncio
import json
from urllib.parse import quote

import aiohttp
import pytest

from feedhandler.sim import credentials
from feedhandler.sim.binance import BinanceRules
from feedhandler.sim.simulated import ACCOUNTS

from .wire import Client, end_of, run, running, until

WALLETS = {"binance": "spot", "kucoin": "trade", "bybit": "unified"}
SECRETS = [
    part
    for each in (credentials.BINANCE, credentials.KUCOIN, credentials.BYBIT)
    for part in (each.key, each.secret, each.passphrase)
    if part
] + [credentials.BINANCE_ED25519_KEY]


async def now_ms(client: Client) -> int:
    """Read the exchange's clock: a fault may have shifted it."""
    answer = await client.rest(
        {"binance": "/api/v3/time", "kucoin": "/api/v1/timestamp", "bybit": "/v5/market/time"}[
            client.exchange
        ]
    )
    return {
        "binance": lambda: answer["serverTime"],
        "kucoin": lambda: answer["data"],
        "bybit": lambda: answer["time"],
    }[client.exchange]()


async def ask(client: Client, *, offset_ms: int = 0, method: str = "GET", path: str = "") -> tuple[int, dict]:
    """Send a signed request, by default for the balances."""
    timestamp = str(await now_ms(client) + offset_ms)
    if client.exchange == "binance":
        key, path = credentials.BINANCE, path or "/api/v3/account"
        query = f"timestamp={timestamp}"
        query += f"&signature={credentials.hmac_hex(key.secret, query)}"
        headers = {"X-MBX-APIKEY": key.key}
    elif client.exchange == "kucoin":
        key, path, query = credentials.KUCOIN, path or "/api/v1/accounts", ""
        headers = {
            "KC-API-KEY": key.key,
            "KC-API-SIGN": credentials.hmac_base64(key.secret, f"{timestamp}{method}{path}"),
            "KC-API-TIMESTAMP": timestamp,
            "KC-API-PASSPHRASE": credentials.hmac_base64(key.secret, key.passphrase),
            "KC-API-KEY-VERSION": "3",
        }
    else:
        key, path, query = credentials.BYBIT, path or "/v5/account/wallet-balance", "accountType=UNIFIED"
        headers = {
            "X-BAPI-API-KEY": key.key,
            "X-BAPI-TIMESTAMP": timestamp,
            "X-BAPI-RECV-WINDOW": "20000",
            "X-BAPI-SIGN": credentials.hmac_hex(key.secret, f"{timestamp}{key.key}20000{query}"),
        }
    url = f"{client.server.rest_url}{path}?{query}".rstrip("?")
    async with client.http.request(method, url, headers=headers) as answer:
        return answer.status, await answer.json()


def bitcoin(exchange: str, answer: dict) -> str:
    """Read how much of it is there, held by orders or not."""
    if exchange == "binance":
        [found] = [each for each in answer["balances"] if each["asset"] == "BTC"]
        return found["free"]
    if exchange == "kucoin":
        [found] = [each for each in answer["data"] if (each["type"], each["currency"]) == ("trade", "BTC")]
        return found["available"]
    [found] = [each for each in answer["result"]["list"][0]["coin"] if each["coin"] == "BTC"]
    return found["walletBalance"]


async def listen(client: Client) -> aiohttp.ClientWebSocketResponse:
    """Open a private connection that hears of the account."""
    if client.exchange == "binance":
        ws = await client.connect("/ws-api/v3")
        payload = f"apiKey={credentials.BINANCE.key}&timestamp={await now_ms(client)}"
        params = dict(pair.split("=") for pair in payload.split("&"))
        params |= {"signature": credentials.hmac_hex(credentials.BINANCE.secret, payload)}
        await ws.send_json({"id": 1, "method": "userDataStream.subscribe.signature", "params": params})
        await until(ws, lambda message: message.get("status") == 200)
    elif client.exchange == "kucoin":
        _, answer = await ask(client, method="POST", path="/api/v1/bullet-private")
        ws = await client.connect(f"/?token={quote(answer['data']['token'], safe='')}&connectId=me")
        await until(ws, lambda message: message["type"] == "welcome")
        topic = {"topic": "/account/balance", "privateChannel": True, "response": True}
        await ws.send_json({"id": "1", "type": "subscribe"} | topic)
        await until(ws, lambda message: message["type"] == "ack")
    else:
        ws = await client.connect("/v5/private")
        expires = await now_ms(client) + 20_000
        sign = credentials.hmac_hex(credentials.BYBIT.secret, f"GET/realtime{expires}")
        await ws.send_json({"op": "auth", "args": [credentials.BYBIT.key, expires, sign]})
        await until(ws, lambda message: message.get("op") == "auth" and message["success"])
        await ws.send_json({"op": "subscribe", "args": ["wallet"]})
        await until(ws, lambda message: message.get("op") == "subscribe" and message["success"])
    return ws


def is_about(asset: str):
    """Recognise the push that names an asset, on any of the three."""

    def check(message: dict) -> bool:
        coins = [
            *(each["a"] for each in message.get("event", {}).get("B", ())),
            *(coin["coin"] for each in message.get("data", ()) if "coin" in each for coin in each["coin"]),
        ]
        data = message.get("data")
        return asset in coins or (isinstance(data, dict) and data.get("currency") == asset)

    return check


@pytest.mark.parametrize("exchange", ACCOUNTS)
def test_a_deposit_is_in_the_balances_and_told(exchange):
    async def scenario() -> None:
        async with running(exchange) as client:
            ws = await listen(client)
            await client.fault(fault="deposit", asset="BTC", amount="0.5")
            await until(ws, is_about("BTC"))
            status, answer = await ask(client)
            assert status == 200
            expected = {"binance": "1.75000000", "kucoin": "1.75", "bybit": "1.8"}[exchange]
            assert bitcoin(exchange, answer) == expected
            state = await client.state()
            assert state["accounts"][WALLETS[exchange]]["BTC"] == {"available": "1.75", "held": "0.05"}
            assert (state["violations"], state["remarks"]) == ([], [])

    run(scenario())


@pytest.mark.parametrize("exchange", ACCOUNTS)
def test_a_silent_change_is_in_the_balances_alone(exchange):
    async def scenario() -> None:
        async with running(exchange) as client:
            ws = await listen(client)
            await client.fault(fault="deposit", asset="DOGE", amount="100", silent=1)
            await client.fault(fault="hold", asset="ETH", amount="1", silent=1)
            await client.fault(fault="hold", asset="USDT", amount="1")
            heard = []
            await until(ws, lambda message: heard.append(message) or is_about("USDT")(message))
            assert not any(is_about(asset)(message) for asset in ("DOGE", "ETH") for message in heard)
            account = (await client.state())["accounts"][WALLETS[exchange]]
            assert account["DOGE"] == {"available": "100", "held": "0"}
            assert account["ETH"] == {"available": "11.5", "held": "1"}

    run(scenario())


@pytest.mark.parametrize("exchange", ACCOUNTS)
def test_a_trade_at_the_market_moves_two_assets(exchange):
    async def scenario() -> None:
        async with running(exchange) as client:
            ws = await listen(client)
            symbol = "ETH-USDT" if exchange == "kucoin" else "ETHUSDT"
            await client.fault(fault="trade", symbol=symbol, amount="-2")
            heard = []
            await until(ws, lambda message: heard.append(message) or is_about("USDT")(message))
            assert any(is_about("ETH")(message) for message in heard)
            account = (await client.state())["accounts"][WALLETS[exchange]]
            assert account["ETH"]["available"] == "10.5"
            assert float(account["USDT"]["available"]) > 10_000.5

    run(scenario())


def test_each_wallet_can_be_changed():
    async def scenario() -> None:
        async with running("kucoin") as client:
            ws = await listen(client)
            await client.fault(fault="deposit", asset="USDT", amount="-500", wallet="main")
            event = await until(ws, is_about("USDT"))
            assert event["data"]["relationEvent"] == "main.transfer"
            assert (event["data"]["total"], event["data"]["availableChange"]) == ("0", "-500")

    run(scenario())


@pytest.mark.parametrize(
    ("request_body", "culprit"),
    [
        ({"fault": "deposit", "asset": "BTC", "amount": "-2"}, "1.25 BTC available"),
        ({"fault": "deposit", "asset": "btc", "amount": "1"}, "capital letters"),
        ({"fault": "deposit", "asset": "BTC", "amount": "NaN"}, "amount must be"),
        ({"fault": "deposit", "asset": "BTC", "amount": "0.0000000000001"}, "decimals"),
        ({"fault": "deposit", "asset": "BTC", "amount": "1", "wallet": "margin"}, "choose from: spot"),
        ({"fault": "hold", "asset": "BTC", "amount": "-1"}, "0.05 held"),
        ({"fault": "trade", "symbol": "BTC-USDT", "amount": "1"}, "did you mean BTCUSDT"),
        ({"fault": "trade", "symbol": "BTCUSDT", "amount": "1000"}, "USDT available"),
    ],
)
def test_an_impossible_change_is_400_and_changes_nothing(request_body, culprit):
    async def scenario() -> None:
        async with running("binance") as client:
            before = (await client.state())["accounts"]
            url = f"{client.server.rest_url}/_sim/faults"
            async with client.http.post(url, json=request_body) as answer:
                assert answer.status == 400
                assert culprit in (await answer.json())["error"]
            assert (await client.state())["accounts"] == before

    run(scenario())


@pytest.mark.parametrize("exchange", ACCOUNTS)
@pytest.mark.parametrize("kind", ["key", "maintenance"])
def test_keys_are_refused_for_a_while(exchange, kind):
    async def scenario() -> None:
        async with running(exchange) as client:
            await client.fault(fault="refuse_key", kind=kind)
            status, answer = await ask(client)
            assert status >= 400 or answer["retCode"] != 0
            await client.fault(fault="none")
            assert bitcoin(exchange, (await ask(client))[1])
            await client.fault(fault="refuse_key", kind=kind, seconds=0.1)
            await client.wait_for(lambda state: not state["faults"])
            assert bitcoin(exchange, (await ask(client))[1])
            state = await client.state()
            assert (state["violations"], state["remarks"]) == ([], [])

    run(scenario())


@pytest.mark.parametrize("exchange", ACCOUNTS)
def test_private_connections_can_be_dropped_alone(exchange):
    async def scenario() -> None:
        async with running(exchange) as client:
            market = await client.connect()
            ws = await listen(client)
            state = await client.state()
            assert [each["is_private"] for each in state["connections"]] == [False, True]
            await client.fault(fault="close", code=1012, private=1)
            assert (await end_of(ws)).data == 1012
            state = await client.wait_for(lambda state: len(state["connections"]) == 1)
            assert not state["connections"][0]["is_private"]
            await client.fault(fault="rst", private=1)
            assert len((await client.state())["connections"]) == 1
            await market.close()

    run(scenario())


@pytest.mark.parametrize("exchange", ACCOUNTS)
def test_the_exchanges_clock_decides_what_is_late(exchange):
    async def scenario() -> None:
        async with running(exchange) as client:
            await client.fault(fault="clock", offset_s=-3600)
            assert bitcoin(exchange, (await ask(client))[1])
            code = {"binance": ("code", -1021), "kucoin": ("code", "400002"), "bybit": ("retCode", 10002)}
            name, expected = code[exchange]
            assert (await ask(client, offset_ms=3_600_000))[1][name] == expected
            state = await client.state()
            assert state["violations"] == []
            assert state["remarks_total"] == 1

    run(scenario())


@pytest.mark.parametrize("exchange", ACCOUNTS)
def test_neither_the_page_nor_the_log_shows_a_secret(exchange, caplog):
    async def scenario() -> None:
        async with running(exchange) as client:
            ws = await listen(client)
            await ask(client)
            await ask(client, offset_ms=-100_000)
            await client.fault(fault="refuse_key", kind="key")
            await ask(client)
            state = await client.state()
            shown = json.dumps(state) + caplog.text
            assert not [secret for secret in SECRETS if secret in shown]
            assert [each["path"] for each in state["connections"]] == [shown_path]
            await ws.close()

    paths = {"binance": "/ws-api/v3", "kucoin": "/?token=*&connectId=me", "bybit": "/v5/private"}
    shown_path = paths[exchange]
    with caplog.at_level("DEBUG", logger="feedhandler"):
        run(scenario())


def test_user_data_subscriptions_end_on_command():
    async def scenario() -> None:
        async with running("binance") as client:
            ws = await listen(client)
            await client.fault(fault="end_subscriptions")
            ended = await until(ws, lambda message: "event" in message)
            assert ended["event"]["e"] == "eventStreamTerminated"
            assert not ws.closed
            assert (await client.state())["connections"][0]["subscriptions"] == []

    run(scenario())


def test_a_shutdown_is_announced_on_private_connections_and_comes():
    async def scenario() -> None:
        async with running("binance") as client:
            ws = await listen(client)
            await client.fault(fault="server_shutdown", seconds=0.1)
            notice = await until(ws, lambda message: "event" in message)
            assert notice["event"]["e"] == "serverShutdown"
            assert (await end_of(ws)).data == 1001

    run(scenario())


def test_expired_tokens_end_private_sessions_too():
    async def scenario() -> None:
        async with running("kucoin") as client:
            ws = await listen(client)
            await client.fault(fault="expired_token")
            assert (await until(ws, lambda message: message["type"] == "error"))["code"] == 401
            assert (await end_of(ws)).data == 1000

    run(scenario())


def test_the_websocket_api_is_pinged():
    async def scenario() -> None:
        rules = BinanceRules(ping_every_s=0.05, pong_within_s=0.3)
        async with running("binance", rules=rules) as client:
            ws = await client.connect("/ws-api/v3")
            message = await ws.receive()
            assert message.type is aiohttp.WSMsgType.PING
            assert (await end_of(ws)).data == 1008
            assert (await client.state())["violations_total"] == 1

    run(scenario())


def test_a_handshake_for_which_no_weight_is_left_is_refused():
    async def scenario() -> None:
        async with running("binance", rules=BinanceRules(weight_per_minute=1)) as client:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.connect("/ws-api/v3")
            assert refused.value.status == 429

    run(scenario())


def test_market_data_flow_on_while_accounts_change():
    async def scenario() -> None:
        async with running("bybit") as client:
            ws = await client.connect()
            await client.subscribe(ws)
            for _ in range(20):
                await client.fault(fault="deposit", asset="BTC", amount="0.1")
                await until(ws, lambda message: message.get("topic") == "orderbook.1.BTCUSDT")
            assert (await client.state())["accounts"]["unified"]["BTC"]["available"] == "3.25"
            await asyncio.wait_for(ws.close(), 10)

    run(scenario())
