"""Requests as they come: what is wrong with one is named, and no secret is in what is said."""

import asyncio
import json

import pytest
from aiohttp.test_utils import TestClient, TestServer
from desk import TOKEN, make

from feedhandler.accounts import ACCOUNTS
from feedhandler.data.wanted import HOLDINGS
from feedhandler.gateway import api, health
from feedhandler.gateway.app import BODY_SIZE_MAX, make_app
from feedhandler.gateway.kept_accounts import credentials_of
from feedhandler.gateway.operations import routes
from feedhandler.transport.files import change_wanted, read_wanted

HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
SECRET = "planted-secret-0123456789"
CREDENTIALS = "/v1/exchanges/bybit/credentials"


NOWHERE = """\
[exchanges.bybit]
rest_url = "http://127.0.0.1:1"
ws_url = "ws://127.0.0.1:1"
simulated = true
"""


def ask(tmp_path, *requests):
    """Send requests, (method, path, body), to a gateway without merger; returns the answers' status and text."""

    async def main():
        parts, _ = make(tmp_path, exchanges=NOWHERE)
        app = make_app(parts, [*health.routes(parts), *routes(api.operations(parts), parts)])
        answers = []
        async with TestClient(TestServer(app)) as client:
            for method, path, body, *headers in requests:
                data = json.dumps(body).encode() if not isinstance(body, bytes | None) else body
                sent = headers[0] if headers else HEADERS
                async with client.request(method, path, data=data, headers=sent) as answer:
                    answers.append((answer.status, await answer.text()))
        await parts.accounts.close()
        parts.market_data.close()
        return answers

    return asyncio.run(main())


SUBSCRIBE = {"exchange": "bybit", "symbols": ["BTC/USDT"]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field", "text"),
    [
        ("POST", "/v1/subscriptions", b"", 400, None, "no JSON"),
        ("POST", "/v1/subscriptions", b"\xff", 400, None, "no JSON"),
        ("POST", "/v1/subscriptions", b"[" * 100_000, 422, None, "Expected object"),
        ("POST", "/v1/subscriptions", b"[]", 422, None, "Expected object"),
        ("POST", "/v1/subscriptions", {"exchange": "bybit"}, 422, None, "symbols"),
        ("POST", "/v1/subscriptions", {**SUBSCRIBE, "symbol": 1}, 422, "symbol", 'did you mean "symbols"'),
        ("POST", "/v1/subscriptions", {**SUBSCRIBE, "symbols": [1]}, 422, "symbols[0]", "Expected str"),
        ("POST", "/v1/subscriptions", {**SUBSCRIBE, "symbols": []}, 422, "symbols", "length >= 1"),
        ("POST", "/v1/subscriptions", {**SUBSCRIBE, "exchange": "bibit"}, 422, "exchange", '"bybit"'),
        ("POST", "/v1/subscriptions", {**SUBSCRIBE, "symbols": ["btcusdt"]}, 422, None, '"BTC/USDT"'),
        ("POST", "/v1/subscriptions", {**SUBSCRIBE, "owner": "holdings"}, 422, None, "the gateway's own"),
        ("POST", "/v1/subscriptions", b'{"exchange":"bybit","symbols":1e999}', 422, "symbols", "out of range"),
        ("PUT", "/v1/positions", {"positions": [{"exchange": "bybit", "asset": "A", "amount": 1}]}, 422,
         "positions[0].amount", "Expected str"),
        ("PUT", "/v1/positions", {"positions": [{"exchange": "bybit", "asset": "A", "amount": "1e999999999"}]},
         422, "positions[0].amount", "regex"),
        ("GET", "/v1/instruments", None, 400, "exchange", "is missing"),
        ("GET", "/v1/instruments?exchange=bybit&limit=0", None, 400, "limit", "like 100"),
        ("GET", "/v1/instruments?exchange=bybit", None, 409, "exchange", "its feed publishes it"),
        ("GET", "/v1/tickers?symbl=1", None, 400, "symbl", 'did you mean "symbol"'),
        ("GET", "/v1/tickers?symbol=A/B&symbol=A/B", None, 400, "symbol", "there twice"),
        ("POST", "/v1/exchanges/kraken/connect", None, 404, "exchange", "known: bybit"),
        ("POST", "/v1/exchanges/bybit/rollover", None, 409, "exchange", "no feed of bybit runs"),
        ("DELETE", "/v1/subscriptions/bybit/BTC/USDT", None, 404, "symbol", "does not want"),
        ("DELETE", "/v1/subscriptions/bybit/%00/%2F", None, 422, None, "is not BASE/QUOTE"),
        ("PATCH", "/v1/positions", None, 405, None, "Method Not Allowed"),
        ("GET", "/v1/nothing", None, 404, None, "Not Found"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(tmp_path, method, path, body, status, field, text):
    ((got, answer),) = ask(tmp_path, (method, path, body))
    problem = json.loads(answer)
    assert (got, problem["status"]) == (status, status), answer
    assert text in problem["detail"]
    assert field is None or problem["field"] == field


def test_a_body_must_be_json_by_its_header_and_not_too_large(tmp_path):
    form = {**HEADERS, "Content-Type": "text/plain"}
    answers = ask(
        tmp_path,
        ("POST", "/v1/subscriptions", SUBSCRIBE, form),
        ("POST", "/v1/subscriptions", b" " * (BODY_SIZE_MAX + 1)),
    )
    assert [status for status, _ in answers] == [415, 413]


@pytest.mark.parametrize(
    "body",
    [
        {"key": "k", "secret": [SECRET]},
        {"key": "k", "secret": SECRET * 1000},
        {"key": SECRET + "\n", "secret": SECRET},
        {"key": "k", "secret": SECRET, "passphrase": SECRET},  # this exchange has none
        {"key": "k", "secret": SECRET, "passphrase": 5},
        {"key": "k", "secret": SECRET, "extra": SECRET},
        json.dumps(SECRET).encode(),
        SECRET.encode(),
    ],
)
def test_no_refusal_of_credentials_quotes_them(tmp_path, body, caplog):
    refused, seen = ask(tmp_path, ("PUT", CREDENTIALS, body), ("GET", "/v1/exchanges", None))
    assert 400 <= refused[0] < 500
    assert SECRET not in refused[1] + caplog.text
    assert '"has_credentials":false' in seen[1]


def test_a_request_with_secrets_prints_as_nothing():
    assert SECRET not in repr(api.PutCredentials(key=SECRET, secret=SECRET, passphrase=SECRET))


def test_as_many_positions_as_are_taken_fit_into_a_body(tmp_path):
    row = {"exchange": "bybit", "asset": "A" * 64, "amount": "1" * 30 + "." + "1" * 30}
    ((status, answer),) = ask(tmp_path, ("PUT", "/v1/positions", {"positions": [row] * 5000}))
    assert status == 200, answer[:200]


def test_taking_credentials_back_lets_go_of_what_was_held_before_a_restart(tmp_path):
    change_wanted(str(tmp_path), "bybit", lambda wanted: wanted.replace(HOLDINGS, ["DOGE/USDT"]))
    ((status, _),) = ask(tmp_path, ("DELETE", CREDENTIALS, None))
    assert status == 204
    assert read_wanted(str(tmp_path), "bybit").requested == {}


def test_an_exchange_without_an_account_side_is_served_and_refuses_credentials_with_the_reason(
    tmp_path, monkeypatch
):
    monkeypatch.delitem(ACCOUNTS, "bybit")
    monkeypatch.setenv("BYBIT_API_KEY", SECRET)
    body = {"key": SECRET, "secret": SECRET}
    (refused, text), *others = ask(
        tmp_path,
        ("PUT", CREDENTIALS, body),
        ("GET", "/v1/balances", None),
        ("GET", "/v1/exchanges", None),
        ("DELETE", CREDENTIALS, None),
    )
    assert refused == 422
    assert "accounts of bybit are not read by this version" in text
    assert SECRET not in text
    assert [status for status, _ in others] == [200, 200, 204]
    assert json.loads(others[0][1])["accounts"]["bybit"]["state"] == "off"
    assert credentials_of({"BYBIT_API_KEY": SECRET}, "bybit") is None


def test_quality_is_asked_of_an_exchange_that_is_configured(tmp_path):
    found, unknown = ask(
        tmp_path, ("GET", "/v1/quality?symbol=BTC/USDT", None), ("GET", "/v1/quality?exchange=x", None)
    )
    assert found[0] == 200
    assert json.loads(found[1])["exchanges"] == []
    assert unknown[0] == 422


def test_the_status_has_the_recorder_where_one_is_configured(tmp_path):
    ((_, text),) = ask(tmp_path, ("GET", "/v1/status", None))
    assert json.loads(text)["recorder"] is None
