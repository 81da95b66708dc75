"""What an account holds is watched: from credentials over the API to the browsers, with real processes."""

import asyncio
import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

import aiohttp
import msgspec
import pytest
from harness import PATIENCE_S, is_alive, wait_until

from feedhandler.sim.simulated import ACCOUNTS

CREDENTIALS = {
    name: {field: value for field, value in msgspec.to_builtins(each).items() if value}
    for name, each in ACCOUNTS.items()
}
TOKEN = "0123456789abcdef0123456789abcdef"


def ask(stack, method, path, body=None, token=TOKEN):
    """Return status and decoded body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(stack.gateway + path, data, method=method)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as exc:
        return exc.code, json.loads(exc.read())


def is_up(stack):
    try:
        return ask(stack, "GET", "/live")[0] == 200
    except OSError:
        return False


def balances(stack, exchange):
    status, body = ask(stack, "GET", "/v1/balances")
    assert status == 200
    account = body["accounts"].get(exchange, {"balances": []})
    return {row["asset"]: row["total"] for row in account["balances"]}


def first_update(stack, topic, patience_s):
    """Return the seconds until a browser gets a fresh market_update about a topic."""

    async def watch():
        started = time.monotonic()
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(stack.gateway.replace("http", "ws") + "/ws") as socket,
        ):
            while True:
                message = json.loads(await socket.receive_str())
                if message["type"] == "market_update" and message["data"]["topic"] == topic:
                    ticker = message["data"]
                    if ticker["last"] is not None and not {"DOWN", "STALE"} & set(ticker["flags"]):
                        return time.monotonic() - started

    return asyncio.run(asyncio.wait_for(watch(), patience_s))


@pytest.fixture
def trading(stack, monkeypatch):
    """Returns what starts everything; the gateway has no credentials yet."""
    monkeypatch.setenv("FEEDHANDLER_API_TOKEN", TOKEN)

    def start(every_s):
        s = stack(rate=300, gateway=f"balances_every_s = {every_s}")
        s.start("sim", "merger", *s.exchanges, "gateway")
        wait_until(lambda: is_up(s), "the gateway")
        s.wait_live()
        return s

    return start


def put_credentials(stack, exchange):
    """Wait for the balances and the private stream."""
    assert ask(stack, "PUT", f"/v1/exchanges/{exchange}/credentials", CREDENTIALS[exchange])[0] == 204
    held = wait_until(lambda: balances(stack, exchange), "the first balances")

    def is_streaming():
        account = ask(stack, "GET", "/v1/balances")[1]["accounts"][exchange]
        return account["stream"] == "live" and account["syncs"] >= 2  # the second follows the stream

    wait_until(is_streaming, "the private stream")
    return held


def test_a_new_asset_on_an_account_streams_to_browsers_long_before_a_sync(trading):
    s = trading(every_s=3600)
    for exchange in CREDENTIALS:
        held = put_credentials(s, exchange)
        assert (held["BTC"], held["USDT"]) == ("1.3", "10250.5")
        s.fault(exchange, "deposit", asset="DOGE", amount="100")
        seconds = first_update(s, f"ticker.{exchange}.DOGE/USDT", PATIENCE_S)
        print(f"{exchange}: {seconds:.2f} s from the deposit to the ticker")
        assert balances(s, exchange)["DOGE"] == "100"
        _, body = ask(s, "GET", f"/v1/subscriptions?exchange={exchange}")
        assert "DOGE/USDT" in body["exchanges"][exchange]["wanted"]
        assert ask(s, "GET", "/v1/balances")[1]["accounts"][exchange]["drifts"] == 0


def test_what_the_private_stream_does_not_tell_the_sync_finds_and_calls_drift(trading):
    s = trading(every_s=5)
    put_credentials(s, "binance")
    s.fault("binance", "deposit", asset="LTC", amount="3", silent=True)
    seconds = first_update(s, "ticker.binance.LTC/USDT", PATIENCE_S)
    print(f"{seconds:.2f} s from the deposit to the ticker, at one sync in 5 s")

    def drifting():
        account = ask(s, "GET", "/v1/balances")[1]["accounts"]["binance"]
        if account["drifts"]:
            return account
        # The first may have been found before the stream was old enough to be blamed for it.
        s.fault("binance", "deposit", asset="LTC", amount="1", silent=True)
        return None

    account = wait_until(drifting, "the drift is told")
    assert {row["asset"] for row in account["drifted"]} == {"LTC"}


def written_in(path):
    """Yield what a file has, without its holes: of a ring of gigabytes nearly all is one."""
    with path.open("rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # there is no more
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield os.pread(file.fileno(), end - start, start)


def test_no_secret_reaches_anything_that_is_written_or_said(trading):
    """Right and wrong credentials, refused requests, a killed stream: then everything is searched for them."""
    trading = trading(every_s=3600)
    planted = [TOKEN]
    for exchange, credentials in CREDENTIALS.items():
        wrong = {**credentials, "secret": f"planted-secret-of-{exchange}-{'x' * 20}"}
        planted += [credentials["secret"], wrong["secret"], credentials.get("passphrase", TOKEN)]
        assert ask(trading, "PUT", f"/v1/exchanges/{exchange}/credentials", wrong)[0] == 204
    said = []
    for exchange in CREDENTIALS:

        def failed(exchange=exchange):
            account = ask(trading, "GET", "/v1/balances")[1]["accounts"][exchange]
            return account["error"] if account["state"] == "failed" else None

        assert wait_until(failed, f"{exchange} refuses")["kind"] == "key"
    for exchange, credentials in CREDENTIALS.items():
        assert ask(trading, "PUT", f"/v1/exchanges/{exchange}/credentials", credentials)[0] == 204
        assert wait_until(lambda e=exchange: balances(trading, e), "balances")
        trading.fault(exchange, "close", code=1012)
    for path in (
        "/",
        "/metrics",
        "/v1/status",
        "/v1/balances",
        "/v1/exchanges",
        "/v1/subscriptions",
        "/v1/positions",
    ):
        request = urllib.request.Request(trading.gateway + path)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            said.append(answer.read())
    bad = {"key": "k", "secret": planted[1], "passphrase": planted[1], "extra": planted[1]}
    for answered in (
        ask(trading, "PUT", "/v1/exchanges/bybit/credentials", bad),
        ask(trading, "PUT", "/v1/exchanges/bybit/credentials", planted[1]),
        trading.status(),
    ):
        said.append(json.dumps(answered).encode())
    written = [p for p in Path(trading.directory).rglob("*") if p.is_file()]
    for path in written:
        with contextlib.suppress(
            FileNotFoundError
        ):  # what takes the place of another file is gone in a moment
            said += written_in(path)
    assert any(b"ticker.binance.BTC/USDT\0" in text for text in said), (
        "the merger's records are searched as well"
    )
    for secret in planted:
        assert not any(secret.encode() in text for text in said), "a secret was said or written"
    gateway = trading.processes["gateway"].pid
    assert "Max core file size        0" in Path(f"/proc/{gateway}/limits").read_text()
    for name in ("merger", "binance"):
        assert is_alive(trading.processes[name].pid)
