"""The control plane at work: wishes reach feeds while everything runs, by API and by command, and outlive it."""

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from harness import DOWN, PATIENCE_S, wait_until
from test_holdings import CREDENTIALS, TOKEN, ask, is_up

FAILED_AT_ONCE = 50


@pytest.fixture
def s(stack, monkeypatch):
    monkeypatch.setenv("FEEDHANDLER_API_TOKEN", TOKEN)
    s = stack(rate=200, exchanges=("binance", "kucoin"))
    s.start("sim", "merger", *s.exchanges, "gateway")
    wait_until(lambda: is_up(s), "the gateway")
    s.wait_live()
    return s


def command(s, *arguments, typed=None):
    return subprocess.run(
        [sys.executable, "-m", "feedhandler", *arguments, "-c", str(s.config)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        input=typed or "",
        check=False,
    )


def state(s, exchange):
    return ask(s, "GET", "/v1/exchanges")[1]["exchanges"][exchange]["status"]["state"]


def test_a_wish_outlives_the_gateway_and_its_death_is_no_event_in_the_stream(s):
    body = {"exchange": "binance", "symbols": ["DOGE/USDT"], "owner": "desk", "kinds": ["ticker"]}
    status, problem = ask(s, "POST", "/v1/subscriptions", body | {"kinds": ["funding"]})
    assert status == 422
    assert problem["detail"].startswith("kinds: binance does not offer 'funding' (known: ticker, ")
    status, row = ask(s, "POST", "/v1/subscriptions", body)
    assert (status, row["requested"]) == (200, {"desk": {"DOGE/USDT": ["ticker"]}})
    reader = s.reader(b"ticker.")
    reader.read_until(lambda r: r.topic == "ticker.binance.DOGE/USDT" and r.is_fresh, "it streams")
    s.kill("gateway")
    records = []
    reader.read_until(lambda record: records.append(record) or len(records) > 500, "the stream goes on")
    assert reader.holes == []
    assert not any(record.flags & DOWN for record in records)
    s.start("gateway")
    wait_until(lambda: is_up(s), "the gateway")
    told = "wanted besides the configuration: binance: DOGE/USDT (desk); kucoin: nothing"
    wait_until(lambda: told in s.log("gateway"), "what is wanted is told at the start")
    assert ask(s, "GET", "/v1/subscriptions")[1]["exchanges"]["binance"]["requested"] == row["requested"]
    assert ask(s, "DELETE", "/v1/subscriptions/binance/DOGE/USDT")[0] == 404, "`api` does not want it"
    path = "/v1/subscriptions/binance/DOGE/USDT?owner=desk"
    assert ask(s, "DELETE", f"{path}&kind=funding")[0] == 422, "it does not offer that"
    status, row = ask(s, "DELETE", f"{path}&kind=ticker")
    assert (status, row["requested"]) == (200, {})
    reader.read_until(lambda r: r.topic == "ticker.binance.DOGE/USDT" and r.flags & DOWN, "its last word")


def test_exchanges_are_left_and_connected_to_and_credentials_connect_them(s):
    assert ask(s, "POST", "/v1/exchanges/kucoin/disconnect")[1]["connect"] is False
    wait_until(lambda: state(s, "kucoin") == "idle", "it is left")
    assert command(s, "connect", "kucoin").returncode == 0
    wait_until(lambda: state(s, "kucoin") == "live", "it is back")
    assert ask(s, "POST", "/v1/exchanges/kucoin/disconnect")[0] == 200
    wait_until(lambda: state(s, "kucoin") == "idle", "it is left")
    assert ask(s, "PUT", "/v1/exchanges/kucoin/credentials", CREDENTIALS["kucoin"])[0] == 204
    wait_until(lambda: state(s, "kucoin") == "live", "it is back")
    assert ask(s, "POST", "/v1/exchanges/kucoin/rollover")[0] == 200
    s.kill("kucoin")
    assert ask(s, "POST", "/v1/exchanges/kucoin/rollover")[0] == 409


def test_the_operator_asks_and_tells_by_command(s):
    done = command(s, "positions", "binance", "DOGE=0.5", "NOSUCH=3", "NO/USDT:USDT=-1")
    assert done.returncode == 0, done
    assert "watched because of them: DOGE/USDT" in done.stdout
    assert "binance: held, and not watched: NOSUCH (traded against no quote asset of yours)" in done.stdout
    refused = "binance: held, and not watched: NO/USDT:USDT (binance lists no NO/USDT:USDT"
    wait_until(lambda: refused in command(s, "positions", "binance").stdout, "the list of contracts lacks it")
    s.reader(b"ticker.binance.DOGE/USDT\0").read_until(lambda record: record.is_fresh, "what is held streams")
    shown = command(s, "subscriptions", "binance").stdout
    assert ["binance", "DOGE/USDT", "ticker", "positions"] in [line.split() for line in shown.splitlines()]
    done = command(s, "positions", "binance", "DOGE=0", "NOSUCH=0", "NO/USDT:USDT=0", "--json")
    assert json.loads(done.stdout)["positions"] == []

    done = command(s, "positions", "kucoin", "BTC/USDT:USDT=-0.5")  # nobody has asked for that list before
    assert "kucoin: watched because of them: BTC/USDT:USDT\n" in done.stdout, done
    s.reader(b"ticker.kucoin.BTC/USDT:USDT\0").read_until(
        lambda record: record.is_fresh, "a contract streams"
    )
    done = command(s, "positions", "kucoin", "BTC/USDT:USDT=0")
    assert "watched because of them: nothing" in done.stdout, done

    typed = "\n".join(CREDENTIALS["kucoin"][part] for part in ("key", "secret", "passphrase"))
    assert command(s, "credentials", "set", "kucoin", typed=typed).returncode == 0
    done = command(s, "balances", "kucoin", "--sync")
    assert ["kucoin", "BTC", "1.25", "0.05", "1.3"] in [line.split() for line in done.stdout.splitlines()]
    check = wait_until(
        lambda: (c := command(s, "balances", "--check")).returncode == 0 and c, "the private stream"
    )
    assert check.stdout == "ok: 1 accounts followed\n"
    assert command(s, "credentials", "remove", "kucoin").returncode == 0
    assert "kucoin: no credentials" in command(s, "balances").stdout
    assert command(s, "balances", "--check").stdout == "ok: 0 accounts followed\n"
    assert "DOGE-USDT" in command(s, "instruments", "kucoin", "doge/usdt").stdout
    assert command(s, "token").stdout == "in the environment: FEEDHANDLER_API_TOKEN\n"

    for arguments, typed, status, text in (
        (("positions", "binance", "BTC=x"), "", 2, "write it like BTC=0.5"),
        (("positions", "binance", "btc=1"), "", 1, "positions[0].asset: must be an asset, such as"),
        (
            ("positions", "binance", "BTC=-1"),
            "",
            1,
            "positions[0].amount: must be a number of units, 0 or more",
        ),
        (("credentials", "set", "kucoin"), "one line", 2, "passphrase in its last line"),
        (("credentials", "set", "kucoin"), "a b\nc\nd", 1, "key: has a space"),
        (("connect", "bybit"), "", 2, "no [exchanges.bybit] table"),
    ):
        done = command(s, *arguments, typed=typed)
        assert (done.returncode, text in done.stderr, "Traceback" in done.stderr) == (status, True, False), (
            done
        )
    s.kill("gateway")
    done = command(s, "balances")
    assert (done.returncode, "is it running?" in done.stderr) == (1, True)
    assert command(s, "disconnect", "kucoin").returncode == 0


def test_who_may_not_ask_is_told_why_and_no_quote_of_a_request_reaches_the_log(s):
    def refused(path="/v1/status", method="GET", **headers):
        request = urllib.request.Request(s.gateway + path, method=method, headers=headers)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=PATIENCE_S)
        body = json.loads(caught.value.read())
        assert caught.value.headers["Content-Type"].startswith("application/problem+json")
        assert body["status"] == caught.value.code
        return caught.value.code, body["field"]

    assert refused(Host="rebound.example") == (421, "Host")
    assert refused(Origin="http://evil.example") == (403, "Origin")
    assert refused("/v1/balances") == (401, "Authorization")
    assert refused("/v1/tickers?exchang=binance") == (400, "exchang")
    assert refused("/v1/tickers?exchange=kraken") == (422, "exchange")
    answers = [refused("/v1/balances/sync", "POST") for _ in range(FAILED_AT_ONCE + 5)]
    assert answers[0] == (401, "Authorization")
    assert (429, "Authorization") in answers
    assert ask(s, "GET", "/v1/balances")[0] == 200, "who has the token is not kept waiting"

    planted = "planted-0123456789abcdef"
    host, _, port = s.gateway.removeprefix("http://").partition(":")
    for header in (f"Authorization: Bearer {planted}\0", f"Authorization: Bearer {planted * 1000}"):
        with socket.create_connection((host, int(port)), PATIENCE_S) as client:
            client.sendall(f"GET /v1/status HTTP/1.1\r\nHost: {host}\r\n{header}\r\n\r\n".encode())
            assert b" 400 " in client.makefile("rb").readline()
    assert ask(s, "GET", "/v1/status")[0] == 200
    assert planted not in s.log("gateway")
