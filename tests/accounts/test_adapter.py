"""The exchanges' private side: signatures as they are published, answers and refusals, the private streams."""

import base64
import hmac
import json
from decimal import Decimal
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.accounts import ACCOUNTS, binance
from feedhandler.accounts.adapter import (
    AccountError,
    AccountUpdate,
    Balance,
    Credentials,
    CredentialsError,
    Trouble,
    amount,
)
from feedhandler.data.errors import DecodeError, FeedError, ProtocolError
from feedhandler.data.rest import RestAnswer
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Rows

KEY, SECRET, PASSPHRASE = "planted-key-0000", "planted-secret-0000", "planted-passphrase"
NOW_MS = 1_763_800_000_000
TOKEN = {
    "code": "200000",
    "data": {
        "token": "t0k/en==",
        "instanceServers": [
            {"endpoint": "wss://ws.kucoin.example/", "pingInterval": 18000, "pingTimeout": 10000}
        ],
    },
}


def account(name, key=KEY, secret=SECRET):
    kind = ACCOUNTS[name]
    return kind(Credentials(key, secret, PASSPHRASE if kind.has_passphrase else ""))


def answer(body, status=200, retry_after_s=0.0):
    return RestAnswer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), retry_after_s)


def held(asset, free, locked="0", part=""):
    return Balance(asset, Decimal(free), Decimal(locked), part)


def pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_whoever_has_a_private_side_has_a_public_one():
    assert set(ACCOUNTS) <= set(EXCHANGES)


# --- signatures. The vectors are those of the exchanges' documentation and SDKs.


@pytest.mark.parametrize(
    ("payload", "signature"),
    [
        (
            "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000"
            "&timestamp=1499827319559",
            "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71",
        ),
        (
            "apiKey=vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A&price=52000.00&quantity=0.01000000"
            "&recvWindow=100&side=SELL&symbol=BTCUSDT&timeInForce=GTC&timestamp=1645423376532&type=LIMIT",
            "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24",
        ),
    ],
    ids=["REST", "WebSocket API"],
)
def test_binance_signs_as_its_documentation_shows(payload, signature):
    sign = binance._signer("NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j")
    assert sign(payload) == signature


def test_kucoin_signs_as_its_sdk_does():
    signed = ACCOUNTS["kucoin"](Credentials("k", "test_api_secret", "p"))
    assert signed._hash("test_plain") == "jie/gxS38wLFFaBwl/cAzFbAzlI8MIny96jSXrB+iP4="
    other = ACCOUNTS["kucoin"](Credentials("k", "test-api-secret", "test-passphrase"))
    assert (
        other._hash("1622185200000GET/api/ua/v1/account/ledger")
        == "A+drUvUhuK9B9lW6p+c9G0k0AbDvBaRADV4hinVgh9c="
    )
    headers = dict(other.balances_request(1).headers)
    assert headers["KC-API-PASSPHRASE"] == "fqkeR28GaLc+yzydx1yFfD3Jc46eSFoOwfG2YgL/Qos="


def test_binance_asks_with_the_signature_last_over_the_query_as_it_is_sent():
    request = account("binance").balances_request(NOW_MS)
    query = urlsplit(request.path).query
    payload, _, signature = query.rpartition("&signature=")
    assert payload == f"omitZeroBalances=true&recvWindow=5000&timestamp={NOW_MS}"
    assert signature == binance._signer(SECRET)(payload)
    assert dict(request.headers) == {"X-MBX-APIKEY": KEY}
    assert (request.weight, request.is_signed) == (20, True)


def test_binance_takes_an_ed25519_key_also_with_written_line_breaks():
    key = Ed25519PrivateKey.generate()
    for secret in (pem(key), pem(key).replace("\n", "\\n")):
        query = urlsplit(account("binance", secret=secret).balances_request(NOW_MS).path).query
        payload, _, sent = query.rpartition("&signature=")
        assert not set(sent) & set("+/="), "it is percent-encoded"
        key.public_key().verify(base64.b64decode(dict(parse_qsl(query))["signature"]), payload.encode())


def hex_of(text):
    return hmac.digest(SECRET.encode(), text.encode(), "sha256").hex()


def test_bybit_signs_time_key_window_and_query():
    request = account("bybit").balances_request(NOW_MS)
    headers = dict(request.headers)
    assert headers["X-BAPI-SIGN"] == hex_of(f"{NOW_MS}{KEY}5000accountType=UNIFIED")
    assert (headers["X-BAPI-TIMESTAMP"], headers["X-BAPI-RECV-WINDOW"]) == (str(NOW_MS), "5000")
    assert request.path == "/v5/account/wallet-balance?accountType=UNIFIED"


# --- credentials


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("kucoin", ("k", "s"), "passphrase: is missing"),
        ("binance", ("k", "s", "p"), "passphrase: binance keys have none"),
        ("binance", ("k", "-----BEGIN PRIVATE KEY-----\nhidden\n"), "secret: is no private key in PEM"),
        ("bybit", ("a b", "s"), "key: has a space or a line break"),
        ("bybit", ("k", ""), "secret: is empty"),
        ("bybit", ("k", "é"), "secret: has characters that no exchange uses"),
        ("bybit", ("k", "s" * 9000), "secret: is longer than 8192"),
    ],
)
def test_what_is_no_credential_is_refused_by_its_field_and_not_quoted(name, arguments, message):
    with pytest.raises(CredentialsError) as raised:
        ACCOUNTS[name](Credentials(*arguments))
    assert str(raised.value).startswith(message)
    assert "hidden" not in str(raised.value)


def test_an_rsa_key_is_refused_with_what_to_use_instead():
    with pytest.raises(CredentialsError, match="is no Ed25519 key; make one of that kind, or an HMAC key"):
        account("binance", secret=pem(generate_private_key(65537, 2048)))


@pytest.mark.parametrize("name", ACCOUNTS)
def test_nothing_prints_credentials(name):
    ours = account(name)
    request = ours.balances_request(NOW_MS)
    for printed in (repr(request), str(request), repr(ours), repr(ours._credentials), f"{request!r:>5}"):
        for secret in (KEY, SECRET, PASSPHRASE, "signature=", "SIGN"):
            assert secret not in printed


# --- what is held

HELD = {
    "binance": (
        {
            "balances": [
                {"asset": "BTC", "free": "1.25000000", "locked": "0.05000000"},
                {"asset": "SHIB", "free": "0.00000001", "locked": "0.00000000"},
                {"asset": "ETH", "free": "0.00000000", "locked": "0.00000000"},
            ]
        },
        [held("BTC", "1.25", "0.05"), held("SHIB", "1E-8")],
    ),
    "kucoin": (
        {
            "code": "200000",
            "data": [
                {
                    "id": "1",
                    "currency": "BTC",
                    "type": "trade",
                    "balance": "1.3",
                    "available": "1.25",
                    "holds": "0.05",
                },
                {
                    "id": "2",
                    "currency": "BTC",
                    "type": "main",
                    "balance": "9",
                    "available": "9",
                    "holds": "0",
                },
                {
                    "id": "4",
                    "currency": "BTC",
                    "type": "trade_hf",
                    "balance": "2",
                    "available": "2",
                    "holds": "0",
                },
                {
                    "id": "3",
                    "currency": "ETH",
                    "type": "trade",
                    "balance": "0",
                    "available": "0",
                    "holds": "0",
                },
            ],
        },
        [held("BTC", "1.25", "0.05", part="1"), held("BTC", "2", part="4")],
    ),
    "bybit": (
        {
            "retCode": 0,
            "retMsg": "OK",
            "result": {
                "list": [
                    {
                        "accountType": "UNIFIED",
                        "coin": [
                            {"coin": "BTC", "walletBalance": "1.3", "locked": "0.05", "spotBorrow": "0"},
                            {"coin": "SOL", "walletBalance": "5", "locked": "", "spotBorrow": "7"},
                            {"coin": "ETH", "walletBalance": "", "locked": "", "availableToWithdraw": ""},
                        ],
                    }
                ]
            },
        },
        [held("BTC", "1.25", "0.05"), held("SOL", "-2")],
    ),
}


@pytest.mark.parametrize("name", ACCOUNTS)
def test_balances_are_exact_and_empty_ones_are_left_out(name):
    body, expected = HELD[name]
    assert account(name).decode_balances(answer(body)) == Rows(expected)


def test_a_sum_is_not_rounded():
    balance = held("X", "123456789012345678901234567890", "0.000000000000000000000000000001")
    assert f"{balance.total:f}" == "123456789012345678901234567890.000000000000000000000000000001"


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "1e400", "1e-400", "x", "", "1" * 40, "snan"])
def test_what_is_no_amount_is_a_decode_error(text):
    with pytest.raises(DecodeError):
        amount(text, "here")
    body = {"balances": [{"asset": "BTC", "free": text, "locked": "0"}]}
    with pytest.raises(AccountError, match="none of 1 rows can be read") as raised:
        account("binance").decode_balances(answer(body))
    assert raised.value.trouble is Trouble.ANSWER


ROW = {"asset": "BTC", "free": "1.5", "locked": "0"}


@pytest.mark.parametrize(
    "odd",
    [
        ROW,
        {**ROW, "asset": ""},
        {**ROW, "asset": "x" * 100},
        {**ROW, "asset": "A\n"},
        {**ROW, "asset": None},
        {"asset": "LTC"},
        {**ROW, "free": "77x"},
        17,
    ],
    ids=["twice", "no name", "long name", "odd name", "null", "no amounts", "no amount", "no row"],
)
def test_an_odd_row_of_balances_costs_itself_alone_and_no_amount_is_quoted(odd):
    rows = account("binance").decode_balances(answer({"balances": [ROW, odd, {**ROW, "asset": "ETH"}]}))
    assert rows.items == [held("BTC", "1.5"), held("ETH", "1.5")]
    assert rows.problem.startswith("binance account: 1 of 3 rows cannot be read")
    assert not {"1.5", "77x"} & set(rows.problem.replace(":", " ").split())


def kucoin_row(kind, asset, available, number):
    row = {"id": number, "currency": asset, "type": kind, "balance": available, "available": available}
    return {**row, "holds": "0"}


def kucoin_answer(*rows):
    return answer({"code": "200000", "data": list(rows)})


def test_kucoin_is_asked_for_accounts_of_all_types():
    assert account("kucoin").balances_request(NOW_MS).path == "/api/v1/accounts"


def test_kucoin_balances_in_accounts_that_are_not_traded_with_are_a_problem_and_no_holding_of_nothing():
    with pytest.raises(
        AccountError, match="no trading account, and balances in others: main, unified"
    ) as raised:
        account("kucoin").decode_balances(
            kucoin_answer(kucoin_row("unified", "BTC", "1", "1"), kucoin_row("main", "ETH", "1", "2"))
        )
    assert raised.value.trouble is Trouble.ACCOUNT
    assert "classic account" in raised.value.remedy
    nothing = kucoin_answer(kucoin_row("trade", "BTC", "0", "1"), kucoin_row("main", "ETH", "1", "2"))
    assert account("kucoin").decode_balances(nothing) == Rows([]), (
        "sold, and the rest is in the funding account"
    )


@pytest.mark.parametrize(
    ("body", "is_unified"),
    [
        ({"code": "200000", "data": {"selfAccountMode": "UNIFIED", "classicSubAccount": []}}, True),
        ({"code": "200000", "data": {"selfAccountMode": "CLASSIC", "unifiedSubAccount": []}}, False),
        ({"code": "200000", "data": {"selfAccountMode": None}}, False),
        ({"code": "400007", "msg": "Access denied"}, False),
        (b"<html>", False),
    ],
)
def test_the_mode_of_a_kucoin_account_that_holds_nothing_tells_if_it_is_unified(body, is_unified):
    ours = account("kucoin")
    assert ours.kind_request(NOW_MS).path == "/api/ua/v2/account/mode"
    if not is_unified:
        ours.check_kind(answer(body))
        return
    with pytest.raises(AccountError, match="unified account") as raised:
        ours.check_kind(answer(body))
    assert raised.value.trouble is Trouble.ACCOUNT
    assert "feedhandler positions" in raised.value.remedy


def kucoin_change(number, event, available="7"):
    data = {
        "accountId": number,
        "currency": "BTC",
        "available": available,
        "hold": "0",
        "relationEvent": event,
    }
    return json.dumps({"type": "message", "topic": "/account/balance", "data": data}).encode()


def test_a_change_of_one_kucoin_account_leaves_the_asset_in_others_as_it_is():
    ours = account("kucoin")
    each = ours.stream("", answer(TOKEN))
    ours.decode_balances(
        kucoin_answer(
            kucoin_row("trade", "BTC", "1", "1"),
            kucoin_row("trade_hf", "BTC", "2", "2"),
            kucoin_row("main", "BTC", "3", "3"),
        )
    )
    push = lambda *event: each.on_message(kucoin_change(*event), NOW_MS)  # noqa: E731
    assert push("2", "trade_hf.setted") == AccountUpdate(balances=(held("BTC", "7", part="2"),))
    assert push("1", "trade_hf.setted") == AccountUpdate(balances=(held("BTC", "7", part="1"),)), (
        "its id tells"
    )
    assert push("3", "trade.setted") == AccountUpdate(), "its id tells that, too"
    assert push("4", "trade.setted") == AccountUpdate(is_incomplete=True), (
        "a third one, or the first under another id"
    )
    assert push("4", "margin.hold") == AccountUpdate()


def test_bybit_tells_who_has_no_unified_wallet_and_that_has_its_remedy():
    for body, status in (
        (refused("bybit", 10001, "accountType only support CONTRACT for a classic account"), 200),
        (b"", 404),
    ):
        with pytest.raises(AccountError) as raised:
            account("bybit").decode_balances(answer(body, status))
        assert raised.value.trouble is Trouble.ACCOUNT
        assert "upgrade it" in raised.value.remedy


BLOCKED = b"<html>The distribution is configured to block access from your country.</html>"
REGIONS = [
    ("binance", 451, {"code": 0, "msg": "Service unavailable from a restricted location"}),
    ("kucoin", 403, {"code": "400302", "msg": "Our services are currently unavailable in the U.S."}),
    ("kucoin", 200, {"code": "400302", "msg": "Our services are currently unavailable in the U.S."}),
    ("bybit", 403, BLOCKED),
    ("binance", 403, BLOCKED),
    ("kucoin", 403, BLOCKED),
]


@pytest.mark.parametrize(("name", "status", "body"), REGIONS)
def test_a_country_that_is_not_served_is_no_missing_address_of_the_key(name, status, body):
    with pytest.raises(AccountError) as raised:
        account(name).decode_balances(answer(body, status))
    assert raised.value.trouble is Trouble.REGION
    assert raised.value.trouble.needs_operator
    assert "address to the key" not in raised.value.remedy


# --- refusals


def refused(name, code, text="no"):
    return {
        "binance": {"code": code, "msg": text},
        "kucoin": {"code": str(code), "msg": text},
        "bybit": {"retCode": code, "retMsg": text, "result": {}},
    }[name]


CODES = [
    ("binance", 400, -1021, Trouble.CLOCK),
    ("binance", 400, -1022, Trouble.KEY),
    ("binance", 401, -2014, Trouble.KEY),
    ("binance", 401, -2015, Trouble.KEY),
    ("binance", 429, -1003, Trouble.RATE_LIMIT),
    ("binance", 418, -1003, Trouble.RATE_LIMIT),
    ("binance", 503, -1008, Trouble.MAINTENANCE),
    ("binance", 504, -1007, Trouble.MAINTENANCE),
    ("binance", 400, -1100, Trouble.ANSWER),
    ("kucoin", 401, 400001, Trouble.KEY),
    ("kucoin", 400, 400002, Trouble.CLOCK),
    ("kucoin", 200, 400003, Trouble.KEY),
    ("kucoin", 401, 400004, Trouble.KEY),
    ("kucoin", 401, 400005, Trouble.KEY),
    ("kucoin", 401, 400006, Trouble.ADDRESS),
    ("kucoin", 403, 400007, Trouble.PERMISSION),
    ("kucoin", 401, 400008, Trouble.KEY),
    ("kucoin", 429, 429000, Trouble.RATE_LIMIT),
    ("kucoin", 200, 503000, Trouble.MAINTENANCE),
    ("kucoin", 200, 123456, Trouble.ANSWER),
    ("bybit", 200, 10002, Trouble.CLOCK),
    ("bybit", 200, 10003, Trouble.KEY),
    ("bybit", 200, 10004, Trouble.KEY),
    ("bybit", 200, 10005, Trouble.PERMISSION),
    ("bybit", 200, 10006, Trouble.RATE_LIMIT),
    ("bybit", 200, 10010, Trouble.ADDRESS),
    ("bybit", 200, 10016, Trouble.MAINTENANCE),
    ("bybit", 200, 33004, Trouble.KEY),
    ("bybit", 200, 10001, Trouble.ANSWER),
]


@pytest.mark.parametrize(("name", "status", "code", "trouble"), CODES)
def test_each_code_has_its_trouble(name, status, code, trouble):
    with pytest.raises(AccountError) as raised:
        account(name).decode_balances(answer(refused(name, code), status, 7.0))
    assert raised.value.trouble is trouble
    assert raised.value.retry_after_s == 7.0
    assert name in str(raised.value)
    assert str(code) in str(raised.value)


@pytest.mark.parametrize("name", ACCOUNTS)
@pytest.mark.parametrize(
    ("status", "trouble"),
    [(403, Trouble.ADDRESS), (451, Trouble.REGION), (429, Trouble.RATE_LIMIT), (502, Trouble.MAINTENANCE)],
)
def test_a_page_of_somebody_in_between_is_told_by_its_status(name, status, trouble):
    with pytest.raises(AccountError) as raised:
        account(name).decode_balances(answer(b"<html>go away</html>", status))
    assert raised.value.trouble is trouble


@pytest.mark.parametrize("name", ACCOUNTS)
def test_what_an_exchange_says_is_bounded_printable_and_without_what_is_ours(name):
    text = f"bad {KEY}\n\x00 of {SECRET} " + "x" * 1000
    with pytest.raises(AccountError) as raised:
        account(name).decode_balances(answer(refused(name, 1, text), 400))
    message = str(raised.value)
    assert KEY not in message
    assert SECRET not in message
    assert message.isprintable()
    assert len(message) < 300


def test_bybit_echoes_what_was_signed_and_that_is_cut_off():
    text = f"error sign! origin_string[{NOW_MS}{KEY}5000accountType=UNIFIED]"
    with pytest.raises(AccountError, match=r"^bybit: error sign! \(code 10004, HTTP 200\)$"):
        account("bybit").decode_balances(answer(refused("bybit", 10004, text)))


# --- the private streams


def stream(name):
    return account(name).stream("ws://127.0.0.1:1", answer(TOKEN) if name == "kucoin" else None)


def begin(name):
    """Return a stream that is live, and all frames that were sent."""
    each = stream(name)
    sent = [json.loads(frame) for frame in each.on_open(NOW_MS)]
    for message in BEGINNINGS[name]:
        assert not each.is_live
        update = each.on_message(json.dumps(message).encode(), NOW_MS)
        sent += [json.loads(frame) for frame in update.send]
    assert each.is_live
    return each, sent


BEGINNINGS = {
    "binance": [{"id": "account", "status": 200, "result": {"subscriptionId": 0}}],
    "kucoin": [{"id": "x", "type": "welcome"}, {"id": "y", "type": "ack"}],
    "bybit": [
        {"success": True, "ret_msg": "", "op": "auth", "conn_id": "c"},
        {"success": True, "ret_msg": "", "op": "subscribe", "conn_id": "c"},
    ],
}


def test_binance_subscribes_with_a_signature_over_sorted_parameters():
    each, (request,) = begin("binance")
    assert each.url == "ws://127.0.0.1:1/ws-api/v3"
    assert request["method"] == "userDataStream.subscribe.signature"
    parameters = request["params"]
    assert parameters.pop("signature") == binance._signer(SECRET)(
        f"apiKey={KEY}&recvWindow=5000&timestamp={NOW_MS}"
    )
    assert parameters == {"apiKey": KEY, "recvWindow": 5000, "timestamp": NOW_MS}
    assert each.ping_interval_s is None, "it pings"


def test_kucoin_subscribes_after_its_welcome_on_a_socket_of_the_private_token():
    each, (request,) = begin("kucoin")
    assert each.url.startswith("wss://ws.kucoin.example/?token=t0k%2Fen%3D%3D&connectId=")
    assert each.ping_interval_s == 18.0
    assert (request["type"], request["topic"]) == ("subscribe", "/account/balance")
    assert request["privateChannel"] is request["response"] is True
    assert json.loads(each.ping(NOW_MS))["type"] == "ping"


def test_bybit_authenticates_and_then_subscribes():
    (request,) = (json.loads(frame) for frame in stream("bybit").on_open(NOW_MS))
    expires_ms = NOW_MS + 10_000
    assert request["args"] == [KEY, expires_ms, hex_of(f"GET/realtime{expires_ms}")]
    each, (_, subscription) = begin("bybit")
    assert subscription == {"op": "subscribe", "args": ["wallet"]}
    assert json.loads(each.ping(NOW_MS)) == {"op": "ping"}


CHANGES = [
    (
        "binance",
        {
            "subscriptionId": 0,
            "event": {
                "e": "outboundAccountPosition",
                "E": NOW_MS,
                "u": NOW_MS,
                "B": [{"a": "ETH", "f": "10.5", "l": "0.5"}, {"a": "DOGE", "f": "0.0", "l": "0.0"}],
            },
        },
        [held("ETH", "10.5", "0.5"), held("DOGE", "0")],
    ),
    (
        "kucoin",
        {
            "type": "message",
            "topic": "/account/balance",
            "data": {
                "accountId": "8",
                "currency": "USDT",
                "total": "21.5",
                "available": "20",
                "hold": "1.5",
                "relationEvent": "trade.hold",
                "time": "1730269283892",
            },
        },
        [held("USDT", "20", "1.5", part="8")],
    ),
    (
        "kucoin",
        {
            "type": "message",
            "topic": "/account/balance",
            "data": {"currency": "USDT", "available": "20", "hold": "0", "relationEvent": "main.deposit"},
        },
        [],
    ),
    (
        "bybit",
        {
            "topic": "wallet",
            "creationTime": NOW_MS,
            "data": [
                {
                    "accountType": "UNIFIED",
                    "coin": [{"coin": "BTC", "walletBalance": "1", "locked": "0.25", "spotBorrow": ""}],
                }
            ],
        },
        [held("BTC", "0.75", "0.25")],
    ),
    (
        "bybit",
        {
            "topic": "wallet",
            "data": [{"accountType": "CONTRACT", "coin": [{"coin": "X", "walletBalance": "1"}]}],
        },
        [],
    ),
    ("bybit", {"req_id": "1", "op": "pong", "args": ["1"], "conn_id": "c"}, []),
    ("kucoin", {"id": "1", "type": "pong", "timestamp": 1}, []),
    ("binance", {"subscriptionId": 0, "event": {"e": "executionReport", "s": "BTCUSDT"}}, []),
]


@pytest.mark.parametrize(("name", "message", "expected"), CHANGES)
def test_changes_are_absolute_and_what_is_another_accounts_is_ignored(name, message, expected):
    each, _ = begin(name)
    update = each.on_message(json.dumps(message).encode(), NOW_MS)
    assert list(update.balances) == expected
    assert not update.is_incomplete


@pytest.mark.parametrize("event", ["balanceUpdate", "externalLockUpdate"])
def test_binance_tells_some_changes_as_differences_and_rest_is_to_be_asked(event):
    each, _ = begin("binance")
    message = {"subscriptionId": 0, "event": {"e": event, "E": NOW_MS, "a": "BTC", "d": "100.0", "T": NOW_MS}}
    assert each.on_message(json.dumps(message).encode(), NOW_MS).is_incomplete


ENDS = [
    ("binance", {"subscriptionId": 0, "event": {"e": "eventStreamTerminated", "E": 1}}, ProtocolError, None),
    ("binance", {"event": {"e": "serverShutdown", "E": 1}}, ProtocolError, None),
    (
        "binance",
        {"id": None, "status": 401, "error": {"code": -2015, "msg": "no"}},
        AccountError,
        Trouble.KEY,
    ),
    (
        "binance",
        {"id": "account", "status": 400, "error": {"code": -1021, "msg": "no"}},
        AccountError,
        Trouble.CLOCK,
    ),
    ("kucoin", {"type": "error", "code": 401, "data": "token is expired"}, ProtocolError, None),
    ("kucoin", {"type": "error", "code": 404, "data": "topic is not found"}, AccountError, Trouble.ANSWER),
    *(
        ("bybit", {"success": False, "ret_msg": text, "op": "auth"}, AccountError, trouble)
        for text, trouble in (
            ("wrong key", Trouble.KEY),
            ("Your api key has expired.", Trouble.KEY),
            ("error:verify signature fail", Trouble.KEY),
            ("Params Error", Trouble.CLOCK),
            ("error:request expired", Trouble.CLOCK),
            ("Permission denied, please check your API permissions", Trouble.PERMISSION),
            ("Unmatched IP, please check your bound addresses", Trouble.ADDRESS),
            ("System error. Please try again later.", Trouble.MAINTENANCE),
            ("Internal error", Trouble.MAINTENANCE),
            ("what nobody has read before", Trouble.ANSWER),
            ("", Trouble.ANSWER),
        )
    ),
    ("bybit", {"success": False, "retCode": 10004, "ret_msg": "", "op": "auth"}, AccountError, Trouble.KEY),
    (
        "bybit",
        {"success": False, "retCode": 10016, "ret_msg": "", "op": "auth"},
        AccountError,
        Trouble.MAINTENANCE,
    ),
    (
        "bybit",
        {"success": False, "ret_msg": "no such topic", "op": "subscribe"},
        AccountError,
        Trouble.ANSWER,
    ),
]


@pytest.mark.parametrize(("name", "message", "error", "trouble"), ENDS)
def test_an_end_and_a_refusal_are_told_apart(name, message, error, trouble):
    with pytest.raises(error) as raised:
        stream(name).on_message(json.dumps(message).encode(), NOW_MS)
    assert getattr(raised.value, "trouble", None) is trouble


def test_a_refused_token_is_the_accounts_trouble():
    body = {"code": "400006", "msg": "The requested ip address is not in the api whitelist"}
    with pytest.raises(AccountError) as raised:
        account("kucoin").stream("", answer(body, 401))
    assert raised.value.trouble is Trouble.ADDRESS
    with pytest.raises(AccountError):
        account("kucoin").stream(
            "", answer({"code": "200000", "data": {"token": "t", "instanceServers": []}})
        )


# --- anything at all

FIELDS = (
    *("balances", "asset", "free", "locked", "code", "msg", "data", "currency", "type", "available", "holds"),
    *("retCode", "result", "list", "coin", "walletBalance", "topic", "op", "success", "event", "e", "B", "a"),
    *("f", "l", "id", "status", "error", "relationEvent"),
)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
BYTES = st.binary(max_size=60) | JSONS.map(lambda value: json.dumps(value).encode())


@pytest.mark.long
@pytest.mark.parametrize("name", ACCOUNTS)
@given(body=BYTES, status=st.sampled_from([200, 400, 401, 403, 429, 500]))
def test_any_answer_is_balances_or_one_of_our_errors(name, body, status):
    try:
        rows = account(name).decode_balances(RestAnswer(status, body))
    except FeedError as exc:
        assert isinstance(exc, AccountError | DecodeError)
    else:
        assert all(row.total.is_finite() for row in rows.items)


@pytest.mark.long
@pytest.mark.parametrize("name", ACCOUNTS)
@given(payload=BYTES)
def test_any_message_of_a_stream_is_decoded_or_one_of_our_errors(name, payload):
    each = stream(name)
    try:
        update = each.on_message(payload, NOW_MS)
    except FeedError as exc:
        assert isinstance(exc, AccountError | DecodeError | ProtocolError)
    else:
        assert all(balance.total.is_finite() for balance in update.balances)
