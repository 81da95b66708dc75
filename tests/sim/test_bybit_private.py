"""The account of the simulated Bybit: signed requests, the private stream.

Shapes: https://bybit-exchange.github.io/docs/v5/account/wallet-balance and .../v5/websocket/private/wallet
"""

import json
from decimal import Decimal
from urllib.parse import parse_qsl

import pytest

from feedhandler.sim import credentials
from feedhandler.sim.bybit import Bybit
from feedhandler.sim.bybit_private import BybitPrivateDialog
from feedhandler.sim.protocol import Close, HttpAnswer, HttpRequest, Reply

KEY = credentials.BYBIT
ACCOUNT_FIELDS = {
    "totalEquity",
    "accountIMRate",
    "accountIMRateByMp",
    "totalMarginBalance",
    "totalInitialMargin",
    "totalInitialMarginByMp",
    "accountType",
    "totalAvailableBalance",
    "accountMMRate",
    "accountMMRateByMp",
    "totalPerpUPL",
    "totalWalletBalance",
    "accountLTV",
    "totalMaintenanceMargin",
    "totalMaintenanceMarginByMp",
    "coin",
}
COIN_FIELDS = {
    "availableToBorrow",
    "bonus",
    "accruedInterest",
    "availableToWithdraw",
    "totalOrderIM",
    "equity",
    "totalPositionMM",
    "usdValue",
    "spotHedgingQty",
    "unrealisedPnl",
    "collateralSwitch",
    "borrowAmount",
    "totalPositionIM",
    "walletBalance",
    "cumRealisedPnl",
    "locked",
    "marginCollateral",
    "coin",
    "spotBorrow",
}


@pytest.fixture
def exchange() -> Bybit:
    return Bybit(50, seed=1)


# Requests.


def get(
    exchange: Bybit,
    clock,
    raw_query: str = "accountType=UNIFIED",
    *,
    secret: str = KEY.secret,
    offset_ms: int = 0,
    window: str | None = "5000",
    body: bytes = b"",
    **headers: str | None,
) -> HttpAnswer:
    """Ask for the balance with a right signature; headers are changed after signing, None takes one away."""
    timestamp = str(clock.now.unix_ms + offset_ms)
    given = {
        "X-BAPI-API-KEY": KEY.key,
        "X-BAPI-TIMESTAMP": timestamp,
        "X-BAPI-RECV-WINDOW": window,
        "X-BAPI-SIGN": credentials.hmac_hex(secret, f"{timestamp}{KEY.key}{window or ''}{raw_query}"),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    request = HttpRequest(
        method="GET",
        path="/v5/account/wallet-balance",
        query=parse_qsl(raw_query),
        raw_query=raw_query,
        headers={name: value for name, value in given.items() if value is not None},
        body=body,
        remote="rest",
    )
    return exchange.rest(request, clock.now)


def result(answer: HttpAnswer) -> dict:
    body = json.loads(answer.body)
    assert (answer.status, body["retCode"], body["retMsg"]) == (200, 0, "OK"), body
    assert (answer.violation, answer.remark) == ("", "")
    return body["result"]


def code(answer: HttpAnswer) -> int:
    body = json.loads(answer.body)
    assert answer.status == 200
    assert body.keys() == {"retCode", "retMsg", "result", "retExtInfo", "time"}
    assert body["result"] == {}
    return body["retCode"]


def test_the_balance_has_the_documented_fields(exchange, clock):
    [account] = result(get(exchange, clock))["list"]
    assert account.keys() == ACCOUNT_FIELDS
    assert all(coin.keys() == COIN_FIELDS for coin in account["coin"])
    assert account["accountType"] == "UNIFIED"
    assert [(coin["coin"], coin["walletBalance"], coin["locked"]) for coin in account["coin"]] == [
        ("BTC", "1.3", "0.05"),
        ("ETH", "12.5", "0"),
        ("USDT", "10250.5", "250"),
    ]
    values = {coin["coin"]: Decimal(coin["usdValue"]) for coin in account["coin"]}
    assert values["USDT"] == Decimal("10250.5")
    assert values["BTC"] > 10_000
    assert Decimal(account["totalEquity"]) == sum(values.values())


def test_coins_are_listed_that_are_asked_for_or_not_zero(exchange, clock):
    exchange.private.accounts["unified"].transfer("ETH", Decimal("-12.5"), clock.now.unix_ns)
    [account] = result(get(exchange, clock))["list"]
    assert [coin["coin"] for coin in account["coin"]] == ["BTC", "USDT"]
    [account] = result(get(exchange, clock, "accountType=UNIFIED&coin=ETH,DOGE"))["list"]
    assert [(coin["coin"], coin["equity"]) for coin in account["coin"]] == [("ETH", "0"), ("DOGE", "0")]


def test_the_query_is_verified_as_sent(exchange, clock):
    raw = "accountType=UNIFIED&coin=BTC%2CUSDT"
    [account] = result(get(exchange, clock, raw))["list"]
    assert [coin["coin"] for coin in account["coin"]] == ["BTC", "USDT"]
    decoded = "accountType=UNIFIED&coin=BTC,USDT"
    timestamp = str(clock.now.unix_ms)
    sign = credentials.hmac_hex(KEY.secret, f"{timestamp}{KEY.key}5000{decoded}")
    assert code(get(exchange, clock, raw, X_BAPI_SIGN=sign)) == 10004


def test_the_window_is_5_s_if_none_is_sent(exchange, clock):
    result(get(exchange, clock, window=None, offset_ms=-5000))
    assert code(get(exchange, clock, window=None, offset_ms=-5001)) == 10002


@pytest.mark.parametrize(
    ("offset_ms", "window", "expected"),
    [
        (-5000, "5000", 0),
        (-5001, "5000", 10002),
        (-20_000, "20000", 0),
        (999, "5000", 0),
        (1000, "5000", 10002),
        (0, "5s", 10001),
    ],
)
def test_a_request_is_good_for_its_window(exchange, clock, offset_ms, window, expected):
    answer = get(exchange, clock, offset_ms=offset_ms, window=window)
    assert json.loads(answer.body)["retCode"] == expected
    if expected == 10002:
        text = json.loads(answer.body)["retMsg"]
        assert f"server_timestamp[{clock.now.unix_ms}],recv_window[{window}]" in text
        assert (answer.violation, bool(answer.remark)) == ("", True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X_BAPI_API_KEY": "sim-bybit-key-of-another"}, 10003),
        ({"X_BAPI_SIGN": "0" * 64}, 10004),
        ({"X_BAPI_SIGN": "no signature"}, 10004),
        ({"X_BAPI_RECV_WINDOW": "6000"}, 10004),
        ({"X_BAPI_TIMESTAMP": "now"}, 10001),
    ],
)
def test_what_was_changed_after_signing_is_refused(exchange, clock, headers, expected):
    answer = get(exchange, clock, **headers)
    assert code(answer) == expected
    assert answer.violation.startswith(str(expected))
    assert KEY.key not in answer.violation


def test_a_wrong_signature_is_answered_with_what_should_have_been_signed(exchange, clock):
    body = json.loads(get(exchange, clock, secret="wrong").body)
    text = f"{clock.now.unix_ms}{KEY.key}5000accountType=UNIFIED"
    assert body["retMsg"] == f"error sign! origin_string[{text}]"


@pytest.mark.parametrize("name", ["X_BAPI_API_KEY", "X_BAPI_TIMESTAMP", "X_BAPI_SIGN"])
def test_a_request_without_credentials_is_unauthorized(exchange, clock, name):
    answer = get(exchange, clock, **{name: None})
    assert (answer.status, answer.body) == (401, b"")


def test_a_get_with_a_body_is_forbidden(exchange, clock):
    assert get(exchange, clock, body=b"{}").status == 403


@pytest.mark.parametrize("raw_query", ["", "accountType=SPOT", "coin=BTC"])
def test_only_the_unified_account_is_there(exchange, clock, raw_query):
    assert code(get(exchange, clock, raw_query)) == 10001


def test_fifty_requests_a_second_are_admitted(exchange, clock):
    for left in range(49, -1, -1):
        headers = get(exchange, clock).headers
        assert headers["X-Bapi-Limit"] == "50"
        assert headers["X-Bapi-Limit-Status"] == str(left)
    answer = get(exchange, clock)
    assert code(answer) == 10006
    assert answer.violation
    assert int(answer.headers["X-Bapi-Limit-Reset-Timestamp"]) > clock.now.unix_ms
    clock.pass_s(1)
    assert int(get(exchange, clock).headers["X-Bapi-Limit-Reset-Timestamp"]) == clock.now.unix_ms


REASONS = [
    ("key", 10003),
    ("permission", 10005),
    ("address", 10010),
    ("expired", 33004),
    ("maintenance", 10016),
]


@pytest.mark.parametrize(("reason", "expected"), REASONS)
def test_a_key_is_refused_on_command_and_that_is_nobodys_violation(exchange, clock, reason, expected):
    exchange.private.key_refusal = reason
    answer = get(exchange, clock)
    assert code(answer) == expected
    assert (answer.violation, answer.remark) == ("", "")
    exchange.private.key_refusal = ""
    result(get(exchange, clock))


# The private stream.


def connect(exchange: Bybit, clock, **query: str) -> BybitPrivateDialog:
    request = HttpRequest(method="GET", path="/v5/private", query=list(query.items()), remote="test")
    dialog = exchange.accept(request, clock.now)
    assert isinstance(dialog, BybitPrivateDialog)
    assert dialog.on_open(clock.now) == Reply()
    return dialog


@pytest.fixture
def dialog(exchange, clock) -> BybitPrivateDialog:
    return connect(exchange, clock)


def ask(dialog: BybitPrivateDialog, clock, **message: object) -> Reply:
    return dialog.on_text(json.dumps(message), clock.now)


def only(reply: Reply) -> dict:
    [text] = reply.texts
    return json.loads(text)


def authentication(expires: object, secret: str = KEY.secret, key: str = KEY.key) -> list[object]:
    return [key, expires, credentials.hmac_hex(secret, f"GET/realtime{expires}")]


def authenticate(dialog: BybitPrivateDialog, clock) -> None:
    reply = ask(dialog, clock, op="auth", args=authentication(clock.now.unix_ms + 1000))
    assert only(reply)["success"] is True
    assert reply.violation == ""


@pytest.fixture
def listener(dialog, clock) -> BybitPrivateDialog:
    """One that hears of the wallet."""
    authenticate(dialog, clock)
    ask(dialog, clock, op="subscribe", args=["wallet"])
    return dialog


def test_who_authenticates_may_subscribe(dialog, clock):
    answer = only(ask(dialog, clock, op="auth", req_id="a", args=authentication(clock.now.unix_ms + 1)))
    connection = answer.pop("conn_id")
    assert answer == {"success": True, "ret_msg": "", "op": "auth", "req_id": "a"}
    answer = only(ask(dialog, clock, op="subscribe", args=["wallet"]))
    assert answer == {"success": True, "ret_msg": "", "op": "subscribe", "conn_id": connection}
    assert list(dialog.topics) == ["wallet"]


def test_expires_may_be_a_text(dialog, clock):
    reply = ask(dialog, clock, op="auth", args=authentication(str(clock.now.unix_ms + 1)))
    assert only(reply)["success"] is True


def test_nothing_is_subscribed_before_that(dialog, clock):
    reply = ask(dialog, clock, op="subscribe", args=["wallet"])
    assert (only(reply)["success"], only(reply)["ret_msg"]) == (False, "error:topic:wallet needs auth first")
    assert reply.violation
    assert reply.close is None
    assert dialog.topics == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda ms: authentication(ms + 1000, secret="wrong"),
        lambda ms: authentication(ms + 1000, key="sim-bybit-key-of-another"),
        lambda ms: authentication("soon"),
        lambda ms: authentication(True),
        lambda ms: authentication((ms + 1000) / 1),
        lambda ms: authentication(10**30),
        lambda ms: authentication(ms + 1000)[:2],
        lambda ms: {},
        lambda ms: None,
    ],
)
def test_a_wrong_authentication_is_refused(dialog, clock, change):
    reply = ask(dialog, clock, op="auth", args=change(clock.now.unix_ms))
    assert (only(reply)["success"], only(reply)["op"]) == (False, "auth")
    assert reply.violation
    assert only(ask(dialog, clock, op="subscribe", args=["wallet"]))["success"] is False


def test_an_authentication_that_has_expired_is_refused_and_remarked_on(dialog, clock):
    reply = ask(dialog, clock, op="auth", args=authentication(clock.now.unix_ms))
    assert (only(reply)["success"], only(reply)["ret_msg"]) == (False, "Params Error")
    assert (reply.violation, bool(reply.remark)) == ("", True)


@pytest.mark.parametrize(("reason", "expected"), REASONS)
def test_an_authentication_is_refused_on_command(exchange, dialog, clock, reason, expected):
    exchange.private.key_refusal = reason
    reply = ask(dialog, clock, op="auth", args=authentication(clock.now.unix_ms + 1000))
    assert only(reply)["success"] is False
    assert (reply.violation, reply.remark) == ("", "")


def test_the_pong_has_the_private_shape(dialog, clock):
    answer = only(ask(dialog, clock, op="ping", req_id="p"))
    assert answer.pop("conn_id")
    assert answer == {"req_id": "p", "op": "pong", "args": [str(clock.now.unix_ms)]}
    assert "req_id" not in only(ask(dialog, clock, op="ping"))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"op": "subscribe", "args": ["wallet", "walet"]}, "error:handler not found,topic:walet"),
        ({"op": "subscribe", "args": ["tickers.BTCUSDT"]}, "error:handler not found,topic:tickers.BTCUSDT"),
        ({"op": "subscribe", "args": ["wallet", "wallet"]}, "error:already subscribed,topic:wallet"),
        ({"op": "subscribe", "args": [{}]}, "error:handler not found,topic:{}"),
        ({"op": "subscribe", "args": []}, "error:args is empty"),
        ({"op": "subscribe"}, "error:args is empty"),
        ({"op": "order.create"}, "error:invalid op"),
        ({}, "error:invalid op"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_the_connection_stays(dialog, clock, message, text):
    authenticate(dialog, clock)
    reply = ask(dialog, clock, **message)
    assert (only(reply)["success"], only(reply)["ret_msg"]) == (False, text)
    assert reply.violation
    assert reply.close is None
    assert dialog.topics == {}


def test_what_is_not_json_is_refused_without_being_repeated(dialog, clock):
    reply = dialog.on_text('{"op":"auth","args":["secret', clock.now)
    assert only(reply)["success"] is False
    assert "secret" not in reply.violation


def test_a_change_is_pushed_with_the_documented_fields(exchange, listener, clock):
    update = exchange.private.accounts["unified"].transfer("BTC", Decimal("0.1"), clock.now.unix_ns)
    event = only(listener.on_account(update, clock.now))
    [account] = event.pop("data")
    assert event.pop("id")
    assert event == {"topic": "wallet", "creationTime": clock.now.unix_ms}
    assert account.keys() == ACCOUNT_FIELDS
    [coin] = account["coin"]
    assert coin.keys() == COIN_FIELDS
    assert (coin["coin"], coin["walletBalance"], coin["locked"]) == ("BTC", "1.4", "0.05")


def test_a_trade_is_one_push_about_both_coins(exchange, listener, clock):
    account = exchange.private.accounts["unified"]
    update = account.trade("ETH", "USDT", Decimal(-1), Decimal(2500), clock.now.unix_ns)
    coins = only(listener.on_account(update, clock.now))["data"][0]["coin"]
    assert [(coin["coin"], coin["walletBalance"]) for coin in coins] == [("ETH", "11.5"), ("USDT", "12750.5")]


def test_who_has_unsubscribed_hears_nothing(exchange, listener, clock):
    assert only(ask(listener, clock, op="unsubscribe", args=["wallet"]))["success"] is True
    update = exchange.private.accounts["unified"].transfer("BTC", Decimal(1), clock.now.unix_ns)
    assert listener.on_account(update, clock.now) == Reply()


def test_a_market_connection_hears_nothing_of_an_account(exchange, clock):
    request = HttpRequest(method="GET", path="/v5/public/spot", remote="test")
    dialog = exchange.accept(request, clock.now)
    update = exchange.private.accounts["unified"].transfer("BTC", Decimal(1), clock.now.unix_ns)
    assert dialog.on_account(update, clock.now) == Reply()


@pytest.mark.parametrize(
    ("asked", "seconds"), [("1m", 60), ("45s", 45), ("11m", 600), ("5s", 600), ("x", 600)]
)
def test_a_connection_without_ping_and_data_is_cut(exchange, clock, asked, seconds):
    dialog = connect(exchange, clock, max_active_time=asked)
    assert dialog.on_tick(clock.pass_s(seconds)) == Reply()
    ask(dialog, clock, op="ping")
    assert dialog.on_tick(clock.pass_s(seconds)) == Reply()
    cut = dialog.on_tick(clock.pass_s(1))
    assert cut.close == Close(0)
    assert cut.violation


def test_data_keeps_a_connection(exchange, listener, clock):
    clock.pass_s(500)
    update = exchange.private.accounts["unified"].transfer("BTC", Decimal(1), clock.now.unix_ns)
    listener.on_account(update, clock.now)
    assert listener.on_tick(clock.pass_s(500)) == Reply()
