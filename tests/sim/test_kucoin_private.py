"""The account of the simulated KuCoin: signed requests, private tokens, the balance topic.

Shapes: https://github.com/Kucoin/kucoin-universal-sdk (spec/) and https://www.kucoin.com/docs-new/
"""

import json
from decimal import Decimal
from urllib.parse import parse_qsl, unquote

import pytest

from feedhandler.sim import credentials
from feedhandler.sim.kucoin import Kucoin, KucoinDialog, KucoinRules
from feedhandler.sim.protocol import HttpAnswer, HttpRequest, Reply

KEY = credentials.KUCOIN


@pytest.fixture
def exchange() -> Kucoin:
    exchange = Kucoin(50, seed=1)
    exchange.ws_url = "ws://127.0.0.1:1234"
    return exchange


def request(
    clock,
    path: str = "/api/v1/accounts",
    raw_query: str = "",
    method: str = "GET",
    *,
    key: credentials.Credentials = KEY,
    offset_ms: int = 0,
) -> HttpRequest:
    """Make a request that is signed as it should be."""
    timestamp = str(clock.now.unix_ms + offset_ms)
    query = f"?{unquote(raw_query)}" if raw_query else ""
    headers = {
        "KC-API-KEY": key.key,
        "KC-API-SIGN": credentials.hmac_base64(key.secret, f"{timestamp}{method}{path}{query}"),
        "KC-API-TIMESTAMP": timestamp,
        "KC-API-PASSPHRASE": credentials.hmac_base64(key.secret, key.passphrase),
        "KC-API-KEY-VERSION": "3",
    }
    return HttpRequest(
        method=method,
        path=path,
        query=parse_qsl(raw_query),
        raw_query=raw_query,
        headers=headers,
        remote="rest",
    )


def changed(signed: HttpRequest, **headers: str) -> HttpRequest:
    """Change headers after signing, `KC_API_KEY="x"`; None takes one away."""
    merged = signed.headers | {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name: value for name, value in merged.items() if value is not None}
    return HttpRequest(
        method=signed.method,
        path=signed.path,
        query=signed.query,
        raw_query=signed.raw_query,
        headers=kept,
        remote=signed.remote,
    )


def data(answer: HttpAnswer) -> object:
    body = json.loads(answer.body)
    assert (answer.status, body["code"]) == (200, "200000"), body
    assert (answer.violation, answer.remark) == ("", "")
    return body["data"]


def code(answer: HttpAnswer) -> tuple[int, str]:
    body = json.loads(answer.body)
    assert body.keys() == {"code", "msg"}
    return answer.status, body["code"]


# Requests.


def test_accounts_are_listed_by_wallet_and_currency(exchange, clock):
    answer = exchange.rest(request(clock), clock.now)
    rows = data(answer)
    assert all(row.keys() == {"id", "currency", "type", "balance", "available", "holds"} for row in rows)
    assert [
        (row["type"], row["currency"], row["balance"], row["available"], row["holds"]) for row in rows
    ] == [
        ("trade", "BTC", "1.3", "1.25", "0.05"),
        ("trade", "ETH", "12.5", "12.5", "0"),
        ("trade", "USDT", "10250.5", "10000.5", "250"),
        ("main", "BTC", "0.1", "0.1", "0"),
        ("main", "USDT", "500", "500", "0"),
    ]
    assert len({row["id"] for row in rows}) == len(rows)
    assert data(exchange.rest(request(clock), clock.now)) == rows


@pytest.mark.parametrize(
    ("raw_query", "expected"),
    [
        ("type=trade", ["BTC", "ETH", "USDT"]),
        ("type=main", ["BTC", "USDT"]),
        ("type=option", []),
        ("currency=USDT", ["USDT", "USDT"]),
        ("currency=%55SDT&type=trade", ["USDT"]),  # signed as it reads when decoded
        ("currency=DOGE", []),
    ],
)
def test_accounts_are_filtered(exchange, clock, raw_query, expected):
    rows = data(exchange.rest(request(clock, raw_query=raw_query), clock.now))
    assert [row["currency"] for row in rows] == expected


def test_a_wallet_that_there_is_not_is_refused(exchange, clock):
    answer = exchange.rest(request(clock, raw_query="type=unified"), clock.now)
    assert code(answer) == (200, "400100")


def test_the_limit_is_that_of_the_pool(exchange, clock):
    headers = exchange.rest(request(clock), clock.now).headers
    assert (headers["gw-ratelimit-limit"], headers["gw-ratelimit-remaining"]) == ("2000", "1995")
    headers = exchange.rest(request(clock, "/api/v1/bullet-private", method="POST"), clock.now).headers
    assert (headers["gw-ratelimit-limit"], headers["gw-ratelimit-remaining"]) == ("4000", "3990")
    assert 0 < int(headers["gw-ratelimit-reset"]) <= 30_000


def test_a_pool_that_is_used_up_refuses(clock):
    exchange = Kucoin(50, seed=1, rules=KucoinRules(management_weight_per_30_s=9))
    data(exchange.rest(request(clock), clock.now))
    answer = exchange.rest(request(clock), clock.now)
    assert code(answer) == (429, "429000")
    assert answer.headers["gw-ratelimit-remaining"] == "0"
    assert answer.violation


@pytest.mark.parametrize("offset_ms", [-5000, 0, 5000])
def test_a_timestamp_may_be_5_s_off(exchange, clock, offset_ms):
    data(exchange.rest(request(clock, offset_ms=offset_ms), clock.now))


@pytest.mark.parametrize("offset_ms", [-5001, 5001])
def test_a_timestamp_further_off_is_refused_and_no_violation(exchange, clock, offset_ms):
    answer = exchange.rest(request(clock, offset_ms=offset_ms), clock.now)
    assert code(answer) == (401, "400002")
    assert (answer.violation, bool(answer.remark)) == ("", True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"KC_API_KEY": None}, "400001"),
        ({"KC_API_SIGN": None}, "400001"),
        ({"KC_API_TIMESTAMP": None}, "400001"),
        ({"KC_API_PASSPHRASE": None}, "400001"),
        ({"KC_API_TIMESTAMP": "now"}, "400002"),
        ({"KC_API_KEY": "sim-kucoin-key-of-another"}, "400003"),
        ({"KC_API_PASSPHRASE": KEY.passphrase}, "400004"),  # in clear
        ({"KC_API_PASSPHRASE": credentials.hmac_base64(KEY.secret, "wrong")}, "400004"),
        ({"KC_API_SIGN": credentials.hmac_base64(KEY.secret, "something else")}, "400005"),
        ({"KC_API_SIGN": "not base64"}, "400005"),
        ({"KC_API_KEY_VERSION": None}, "400008"),
        ({"KC_API_KEY_VERSION": "1"}, "400008"),
    ],
)
def test_each_wrong_header_has_its_code(exchange, clock, headers, expected):
    answer = exchange.rest(changed(request(clock), **headers), clock.now)
    assert code(answer) == (401, expected)
    assert answer.violation.startswith(expected)


def test_keys_of_version_2_are_still_good(exchange, clock):
    data(exchange.rest(changed(request(clock), KC_API_KEY_VERSION="2"), clock.now))


@pytest.mark.parametrize(
    "other",
    [
        {"raw_query": "type=main"},
        {"path": "/api/v1/bullet-private", "method": "POST"},
        {"body": b"{}"},
    ],
)
def test_a_signature_is_good_for_one_request(exchange, clock, other):
    signed = request(clock, raw_query="type=trade")
    fields = {name: getattr(signed, name) for name in signed.__struct_fields__} | other
    assert code(exchange.rest(HttpRequest(**fields), clock.now)) == (401, "400005")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("key", (401, "400003")),
        ("permission", (403, "400007")),
        ("address", (401, "400006")),
        ("expired", (401, "400008")),
        ("maintenance", (503, "503000")),
    ],
)
def test_a_key_is_refused_on_command_and_that_is_nobodys_violation(exchange, clock, reason, expected):
    exchange.private.key_refusal = reason
    answer = exchange.rest(request(clock), clock.now)
    assert code(answer) == expected
    assert (answer.violation, answer.remark) == ("", "")
    public = HttpRequest(method="POST", path="/api/v1/bullet-public", remote="rest")
    assert exchange.rest(public, clock.now).status == 200
    exchange.private.key_refusal = ""
    data(exchange.rest(request(clock), clock.now))


# The balance topic.


def token(exchange: Kucoin, clock, *, is_private: bool = True) -> str:
    if is_private:
        asked = request(clock, "/api/v1/bullet-private", method="POST")
    else:
        asked = HttpRequest(method="POST", path="/api/v1/bullet-public", remote="rest")
    given = data(exchange.rest(asked, clock.now))
    assert given["instanceServers"][0]["endpoint"] == "ws://127.0.0.1:1234/"
    return given["token"]


def connect(exchange: Kucoin, clock, given: str) -> tuple[KucoinDialog, Reply]:
    asked = HttpRequest(method="GET", path="/", query=[("token", given), ("connectId", "me")], remote="test")
    dialog = exchange.accept(asked, clock.now)
    assert isinstance(dialog, KucoinDialog)
    reply = dialog.on_open(clock.now)
    dialog.on_tick(clock.pass_s(0.02))  # its welcome
    return dialog, reply


@pytest.fixture
def dialog(exchange, clock) -> KucoinDialog:
    return connect(exchange, clock, token(exchange, clock))[0]


def ask(dialog: KucoinDialog, clock, kind: str, topic: str, **more: object) -> Reply:
    message = {"id": 7, "type": kind, "topic": topic, "response": True} | more
    return dialog.on_text(json.dumps(message), clock.now)


def subscribe(dialog: KucoinDialog, clock) -> None:
    reply = ask(dialog, clock, "subscribe", "/account/balance", privateChannel=True)
    assert [json.loads(text) for text in reply.texts] == [{"id": "7", "type": "ack"}]
    assert (reply.violation, reply.remark, reply.subscribe) == ("", "", [])


def events(dialog: KucoinDialog, clock, update) -> list[dict]:
    return [json.loads(text) for text in dialog.on_account(update, clock.now).texts]


def test_a_change_is_pushed_with_the_documented_fields(exchange, dialog, clock):
    assert dialog.is_private
    subscribe(dialog, clock)
    update = exchange.private.accounts["trade"].hold("USDT", Decimal("0.5005"), clock.now.unix_ns)
    [event] = events(dialog, clock, update)
    [row] = data(exchange.rest(request(clock, raw_query="type=trade&currency=USDT"), clock.now))
    assert event.pop("data") == {
        "accountId": row["id"],
        "currency": "USDT",
        "total": "10250.5",
        "available": "9999.9995",
        "hold": "250.5005",
        "availableChange": "-0.5005",
        "holdChange": "0.5005",
        "relationContext": {},
        "relationEvent": "trade.hold",
        "relationEventId": event["id"],
        "time": str(clock.now.unix_ms),
    }
    assert event.keys() == {"topic", "type", "subject", "id", "userId", "channelType"}
    assert (event["topic"], event["type"]) == ("/account/balance", "message")
    assert (event["subject"], event["channelType"]) == ("account.balance", "private")


def test_a_trade_is_two_pushes(exchange, dialog, clock):
    subscribe(dialog, clock)
    account = exchange.private.accounts["trade"]
    update = account.trade("ETH", "USDT", Decimal(1), Decimal(2500), clock.now.unix_ns)
    pushes = events(dialog, clock, update)
    assert [(each["data"]["currency"], each["data"]["availableChange"]) for each in pushes] == [
        ("ETH", "1"),
        ("USDT", "-2500"),
    ]
    assert {each["data"]["relationEvent"] for each in pushes} == {"trade.setted"}
    assert len({each["id"] for each in pushes}) == 2
    [context] = {json.dumps(each["data"]["relationContext"]) for each in pushes}
    assert json.loads(context).keys() == {"symbol", "orderId"}
    assert json.loads(context)["symbol"] == "ETH-USDT"


def test_each_wallet_names_itself_and_no_two_events_share_an_id(exchange, dialog, clock):
    subscribe(dialog, clock)
    ids = set()
    for wallet in ("trade", "main", "trade", "main"):
        update = exchange.private.accounts[wallet].transfer("BTC", Decimal(1), clock.now.unix_ns)
        [event] = events(dialog, clock, update)
        assert event["data"]["relationEvent"] == f"{wallet}.transfer"
        ids.add(event["id"])
    assert len(ids) == 4


def test_who_has_unsubscribed_hears_nothing(exchange, dialog, clock):
    subscribe(dialog, clock)
    ask(dialog, clock, "unsubscribe", "/account/balance", privateChannel=True)
    update = exchange.private.accounts["trade"].transfer("BTC", Decimal(1), clock.now.unix_ns)
    assert events(dialog, clock, update) == []


@pytest.mark.parametrize("more", [{}, {"privateChannel": False}])
def test_a_private_topic_must_be_asked_for_as_one(dialog, clock, more):
    reply = ask(dialog, clock, "subscribe", "/account/balance", **more)
    assert [(json.loads(text)["code"], json.loads(text)["data"]) for text in reply.texts] == [
        (403, "login is required")
    ]
    assert reply.violation
    assert dialog.topics == {}


def test_a_public_token_hears_nothing_of_an_account(exchange, clock):
    dialog, _ = connect(exchange, clock, token(exchange, clock, is_private=False))
    assert not dialog.is_private
    reply = ask(dialog, clock, "subscribe", "/account/balance", privateChannel=True)
    assert json.loads(reply.texts[0])["code"] == 403
    update = exchange.private.accounts["trade"].transfer("BTC", Decimal(1), clock.now.unix_ns)
    assert events(dialog, clock, update) == []


def test_a_private_token_carries_market_data_as_well(exchange, dialog, clock):
    subscribe(dialog, clock)
    reply = ask(dialog, clock, "subscribe", "/market/ticker:BTC-USDT")
    assert reply.subscribe == ["/market/ticker:BTC-USDT"]


def test_a_private_token_is_used_once(exchange, clock):
    given = token(exchange, clock)
    assert connect(exchange, clock, given)[1].remark == ""
    assert connect(exchange, clock, given)[1].remark == "token used for a second connection"


@pytest.mark.parametrize("is_revoked", [True, False])
def test_a_private_token_that_has_expired_is_refused(exchange, clock, is_revoked):
    given = token(exchange, clock)
    if is_revoked:
        exchange.expire_tokens(clock.now)
    else:
        clock.pass_s(86_401)
    _, reply = connect(exchange, clock, given)
    assert json.loads(reply.texts[0])["code"] == 401
    assert reply.close is not None
