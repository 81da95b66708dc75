"""The account of the simulated Binance: REST as signed, the WebSocket API, its events.

Shapes: https://github.com/binance/binance-spot-api-docs, web-socket-api.md, user-data-stream.md, rest-api.md
"""

import json
from base64 import b64encode
from decimal import Decimal
from urllib.parse import parse_qsl, quote

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from feedhandler.sim import credentials
from feedhandler.sim.binance import Binance, BinanceRules
from feedhandler.sim.binance_private import BinanceWsApiDialog
from feedhandler.sim.protocol import Close, HttpAnswer, HttpRequest, Reply

HMAC, ED25519 = credentials.BINANCE.key, credentials.BINANCE_ED25519_KEY


@pytest.fixture
def exchange() -> Binance:
    return Binance(50, seed=1)


def sign(key: str, payload: str) -> str:
    """Sign as the owner of a key does."""
    if key == HMAC:
        return credentials.hmac_hex(credentials.BINANCE.secret, payload)
    private = load_pem_private_key(credentials.ed25519_pem().encode(), None)
    return b64encode(private.sign(payload.encode())).decode()


# REST.


def signed(payload: str, key: str = HMAC) -> str:
    return f"{payload}&signature={quote(sign(key, payload), safe='')}"


def get(exchange: Binance, clock, raw_query: str, key: str = HMAC, **headers: str) -> HttpAnswer:
    request = HttpRequest(
        method="GET",
        path="/api/v3/account",
        query=parse_qsl(raw_query, keep_blank_values=True),
        raw_query=raw_query,
        headers={"X-MBX-APIKEY": key} | headers,
        remote="rest",
    )
    return exchange.rest(request, clock.now)


def asked(exchange: Binance, clock, payload: str, key: str = HMAC) -> tuple[int, int]:
    """HTTP status and code of a request that is signed as it is."""
    answer = get(exchange, clock, signed(payload, key), key)
    return answer.status, json.loads(answer.body).get("code", 0)


@pytest.mark.parametrize("key", [HMAC, ED25519])
def test_the_account_has_the_documented_fields(exchange, clock, key):
    answer = get(exchange, clock, signed(f"timestamp={clock.now.unix_ms}", key), key)
    assert (answer.status, answer.violation) == (200, "")
    assert answer.headers["x-mbx-used-weight-1m"] == "20"
    account = json.loads(answer.body)
    assert account.keys() == {
        "makerCommission",
        "takerCommission",
        "buyerCommission",
        "sellerCommission",
        "commissionRates",
        "canTrade",
        "canWithdraw",
        "canDeposit",
        "brokered",
        "requireSelfTradePrevention",
        "preventSor",
        "updateTime",
        "accountType",
        "balances",
        "permissions",
        "uid",
    }
    assert account["balances"] == [
        {"asset": "BTC", "free": "1.25000000", "locked": "0.05000000"},
        {"asset": "ETH", "free": "12.50000000", "locked": "0.00000000"},
        {"asset": "USDT", "free": "10000.50000000", "locked": "250.00000000"},
        {"asset": "BNB", "free": "0.00000000", "locked": "0.00000000"},
    ]


def test_zero_balances_are_left_out_on_request(exchange, clock):
    query = signed(f"omitZeroBalances=true&timestamp={clock.now.unix_ms}")
    balances = json.loads(get(exchange, clock, query).body)["balances"]
    assert [each["asset"] for each in balances] == ["BTC", "ETH", "USDT"]


def test_the_time_of_the_last_change_is_stated_in_the_unit_asked_for(exchange, clock):
    exchange.private.accounts["spot"].transfer("BTC", Decimal(1), clock.now.unix_ns)
    query = signed(f"timestamp={clock.now.unix_ms}")
    assert json.loads(get(exchange, clock, query).body)["updateTime"] == clock.now.unix_ns // 10**6
    micro = get(exchange, clock, query, **{"X-MBX-TIME-UNIT": "MICROSECOND"})
    assert json.loads(micro.body)["updateTime"] == clock.now.unix_ns // 10**3


def test_a_hexadecimal_signature_may_be_in_capitals(exchange, clock):
    payload = f"timestamp={clock.now.unix_ms}"
    query = f"{payload}&signature={sign(HMAC, payload).upper()}"
    assert get(exchange, clock, query).status == 200


def test_a_timestamp_may_be_in_microseconds(exchange, clock):
    assert asked(exchange, clock, f"timestamp={clock.now.unix_ns // 1000}") == (200, 0)


@pytest.mark.parametrize(
    ("offset_ms", "window", "expected"),
    [
        (-5000, "", (200, 0)),
        (-5001, "", (400, -1021)),
        (-5001, "&recvWindow=5001.5", (200, 0)),
        (-60_000, "&recvWindow=60000", (200, 0)),
        (999, "", (200, 0)),
        (1001, "", (400, -1021)),
        (1001, "&recvWindow=60000", (400, -1021)),
        (0, "&recvWindow=60000.5", (400, -1102)),
        (0, "&recvWindow=5s", (400, -1100)),
        (0, "&recvWindow=", (400, -1100)),
    ],
)
def test_a_request_is_good_for_its_window(exchange, clock, offset_ms, window, expected):
    clock.elapsed_ns -= clock.now.unix_ns % 1_000_000  # a whole millisecond
    assert asked(exchange, clock, f"timestamp={clock.now.unix_ms + offset_ms}{window}") == expected


def test_a_clock_that_is_off_is_remarked_on_and_no_violation(exchange, clock):
    answer = get(exchange, clock, signed(f"timestamp={clock.now.unix_ms - 9000}"))
    assert answer.violation == ""
    assert answer.remark.startswith("-1021")


@pytest.mark.parametrize(
    ("key", "expected"),
    [("", (401, -2014)), ("two words", (401, -2014)), ("sim-binance-key-of-another", (401, -2015))],
)
def test_a_key_that_is_none_is_refused(exchange, clock, key, expected):
    answer = get(exchange, clock, signed(f"timestamp={clock.now.unix_ms}"), key)
    assert (answer.status, json.loads(answer.body)["code"]) == expected
    assert answer.violation


def test_each_key_has_its_own_way_to_sign(exchange, clock):
    query = signed(f"timestamp={clock.now.unix_ms}", HMAC)
    assert json.loads(get(exchange, clock, query, ED25519).body)["code"] == -1022
    query = signed(f"timestamp={clock.now.unix_ms}", ED25519)
    assert json.loads(get(exchange, clock, query, HMAC).body)["code"] == -1022


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda query: query.partition("&signature=")[0], -1102),
        (lambda query: query.partition("&signature=")[0] + "&signature=", -1102),
        (lambda query: query.partition("&")[2], -1102),  # without the timestamp
        (lambda query: query.replace("timestamp=", "timestamp=x"), -1100),
        (lambda query: query[:-1] + ("0" if query[-1] != "0" else "1"), -1022),
        (lambda query: f"omitZeroBalances=true&{query}", -1022),  # added after signing
        (lambda query: f"{query}&omitZeroBalances=true", -1022),
        (lambda query: f"{query}&fromId=1", -1104),
    ],
)
def test_what_was_changed_after_signing_is_refused(exchange, clock, change, code):
    answer = get(exchange, clock, change(signed(f"timestamp={clock.now.unix_ms}")))
    assert (answer.status, json.loads(answer.body)["code"]) == (400, code)


def test_the_query_is_verified_as_sent_not_as_decoded(exchange, clock):
    encoded = f"omitZeroBalances=%74rue&timestamp={clock.now.unix_ms}"
    assert asked(exchange, clock, encoded) == (200, 0)
    decoded = f"omitZeroBalances=true&timestamp={clock.now.unix_ms}"
    query = f"{encoded}&signature={sign(HMAC, decoded)}"
    assert json.loads(get(exchange, clock, query).body)["code"] == -1022


def test_what_is_not_percent_encoded_before_signing_is_refused(exchange, clock):
    payload = f"omitZeroBalances=wäre&timestamp={clock.now.unix_ms}"
    assert asked(exchange, clock, payload) == (400, -1022)


def test_an_ed25519_signature_must_be_percent_encoded(exchange, clock):
    for second in range(50):  # about one signature in four has no + in it
        clock.pass_s(second)
        payload = f"timestamp={clock.now.unix_ms}"
        signature = sign(ED25519, payload)
        if "+" in signature:
            break
    answer = get(exchange, clock, f"{payload}&signature={signature}", ED25519)
    assert json.loads(answer.body)["code"] == -1022
    assert get(exchange, clock, signed(payload, ED25519), ED25519).status == 200


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("key", (401, -2015)),
        ("permission", (401, -2015)),
        ("address", (401, -2015)),
        ("expired", (401, -2015)),
        ("maintenance", (503, -1008)),
    ],
)
def test_a_key_is_refused_on_command_and_that_is_nobodys_violation(exchange, clock, reason, expected):
    exchange.private.key_refusal = reason
    answer = get(exchange, clock, signed(f"timestamp={clock.now.unix_ms}"))
    assert (answer.status, json.loads(answer.body)["code"]) == expected
    assert (answer.violation, answer.remark) == ("", "")
    exchange.private.key_refusal = ""
    assert asked(exchange, clock, f"timestamp={clock.now.unix_ms}") == (200, 0)


def test_the_weight_is_counted_with_that_of_the_websocket_api(clock):
    exchange = Binance(50, seed=1, rules=BinanceRules(weight_per_minute=45))
    dialog = connect(exchange, clock, remote="rest")  # 2
    assert asked(exchange, clock, f"timestamp={clock.now.unix_ms}") == (200, 0)  # 22
    assert only(ask(dialog, clock, "account.status", signed_params(clock)))["status"] == 200  # 42
    assert asked(exchange, clock, f"timestamp={clock.now.unix_ms}") == (429, -1003)
    reply = ask(dialog, clock, "time")
    assert reply.violation
    refused = only(reply)
    assert (refused["status"], refused["error"]["code"]) == (429, -1003)
    assert refused["error"]["data"]["retryAfter"] > clock.now.unix_ms


# The WebSocket API.


def connect(
    exchange: Binance, clock, remote: str = "ws", query: list[tuple[str, str]] | None = None
) -> BinanceWsApiDialog:
    request = HttpRequest(method="GET", path="/ws-api/v3", query=query or [], remote=remote)
    dialog = exchange.accept(request, clock.now)
    assert isinstance(dialog, BinanceWsApiDialog)
    assert dialog.on_open(clock.now) == Reply()
    return dialog


@pytest.fixture
def dialog(exchange, clock) -> BinanceWsApiDialog:
    return connect(exchange, clock)


def ask(
    dialog: BinanceWsApiDialog,
    clock,
    method: object,
    params: dict | None = None,
    request_id: object = "me",
) -> Reply:
    message = {"id": request_id, "method": method} | ({} if params is None else {"params": params})
    return dialog.on_text(json.dumps(message), clock.now)


def signed_params(clock, key: str = HMAC, **more: object) -> dict[str, object]:
    params = {"timestamp": clock.now.unix_ms, "apiKey": key} | more
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in params.items()}
    payload = "&".join(f"{name}={texts[name]}" for name in sorted(texts))
    return params | {"signature": sign(key, payload)}


def only(reply: Reply) -> dict:
    [text] = reply.texts
    return json.loads(text)


def refused(reply: Reply) -> tuple[int, int]:
    answer = only(reply)
    assert "result" not in answer
    return answer["status"], answer["error"]["code"]


def result(reply: Reply) -> object:
    answer = only(reply)
    assert answer["status"] == 200, answer
    assert (reply.violation, reply.remark) == ("", "")
    return answer["result"]


def log_on(dialog: BinanceWsApiDialog, clock) -> object:
    return result(ask(dialog, clock, "session.logon", signed_params(clock, ED25519)))


def test_ping_and_time_need_no_key(dialog, clock):
    answer = only(ask(dialog, clock, "ping", request_id=17))
    limit = {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": "MINUTE",
        "intervalNum": 1,
        "limit": 6000,
        "count": 3,
    }
    assert answer == {"id": 17, "status": 200, "result": {}, "rateLimits": [limit]}
    assert result(ask(dialog, clock, "v3/time", {})) == {"serverTime": clock.now.unix_ms}


def test_limits_are_left_out_on_request(exchange, dialog, clock):
    assert "rateLimits" not in only(ask(dialog, clock, "time", {"returnRateLimits": False}))
    quiet = connect(exchange, clock, query=[("returnRateLimits", "false")])
    assert "rateLimits" not in only(ask(quiet, clock, "time"))
    assert "rateLimits" in only(ask(quiet, clock, "time", {"returnRateLimits": True}))


def test_times_are_in_microseconds_on_request(exchange, clock):
    dialog = connect(exchange, clock, query=[("timeUnit", "microsecond")])
    assert result(ask(dialog, clock, "time")) == {"serverTime": clock.now.unix_ns // 1000}


@pytest.mark.parametrize("key", [HMAC, ED25519])
def test_the_account_over_the_websocket_is_that_over_rest(exchange, dialog, clock, key):
    rest = json.loads(get(exchange, clock, signed(f"timestamp={clock.now.unix_ms}")).body)
    assert result(ask(dialog, clock, "account.status", signed_params(clock, key))) == rest
    params = signed_params(clock, key, omitZeroBalances=True, recvWindow=60000)
    some = result(ask(dialog, clock, "account.status", params))
    assert [each["asset"] for each in some["balances"]] == ["BTC", "ETH", "USDT"]


@pytest.mark.parametrize("key", [HMAC, ED25519])
def test_a_signature_subscribes_to_the_user_data(dialog, clock, key):
    reply = ask(
        dialog, clock, "userDataStream.subscribe.signature", signed_params(clock, key, recvWindow=1000)
    )
    assert result(reply) == {"subscriptionId": 0}
    assert list(dialog.topics) == ["userDataStream 0"]
    assert result(ask(dialog, clock, "session.subscriptions", {})) == [{"subscriptionId": 0}]
    again = ask(dialog, clock, "userDataStream.subscribe.signature", signed_params(clock, key))
    assert refused(again) == (400, -2035)


def test_a_session_subscribes_without_another_signature(dialog, clock):
    session = log_on(dialog, clock)
    assert session == {
        "apiKey": ED25519,
        "authorizedSince": clock.now.unix_ms,
        "connectedSince": clock.now.unix_ms,
        "returnRateLimits": True,
        "serverTime": clock.now.unix_ms,
        "userDataStream": False,
    }
    assert result(ask(dialog, clock, "userDataStream.subscribe")) == {"subscriptionId": 0}
    assert result(ask(dialog, clock, "session.status"))["userDataStream"] is True
    assert "balances" in result(ask(dialog, clock, "account.status", {"timestamp": clock.now.unix_ms}))
    late = ask(dialog, clock, "account.status", {"timestamp": clock.now.unix_ms - 6000})
    assert refused(late) == (400, -1021)


def test_a_subscription_of_a_session_ends_with_it(dialog, clock):
    log_on(dialog, clock)
    ask(dialog, clock, "userDataStream.subscribe")
    status, event = map(json.loads, ask(dialog, clock, "session.logout").texts)
    assert (status["result"]["apiKey"], status["result"]["userDataStream"]) == (None, False)
    assert event == {"subscriptionId": 0, "event": {"e": "eventStreamTerminated", "E": clock.now.unix_ms}}
    assert dialog.topics == {}


def test_a_subscription_by_signature_outlives_a_session(dialog, clock):
    log_on(dialog, clock)
    ask(dialog, clock, "userDataStream.subscribe.signature", signed_params(clock))
    assert result(ask(dialog, clock, "session.logout"))["apiKey"] is None
    assert list(dialog.topics) == ["userDataStream 0"]


@pytest.mark.parametrize("params", [None, {"subscriptionId": 0}])
def test_who_unsubscribes_hears_that_the_stream_ended(dialog, clock, params):
    ask(dialog, clock, "userDataStream.subscribe.signature", signed_params(clock))
    answer, event = map(json.loads, ask(dialog, clock, "userDataStream.unsubscribe", params).texts)
    assert (answer["status"], answer["result"]) == (200, {})
    assert event["event"]["e"] == "eventStreamTerminated"
    assert refused(ask(dialog, clock, "userDataStream.unsubscribe", params)) == (400, -2036)
    again = ask(dialog, clock, "userDataStream.subscribe.signature", signed_params(clock))
    assert result(again) == {"subscriptionId": 1}


def without(params: dict, name: str) -> dict:
    return {key: value for key, value in params.items() if key != name}


@pytest.mark.parametrize("method", ["userDataStream.subscribe.signature", "session.logon", "account.status"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda params: without(params, "apiKey"), (400, -1102)),
        (lambda params: without(params, "timestamp"), (400, -1102)),
        (lambda params: without(params, "signature"), (400, -1102)),
        (lambda params: params | {"timestamp": "now"}, (400, -1100)),
        (lambda params: params | {"timestamp": params["timestamp"] - 6000}, (400, -1021)),
        (lambda params: params | {"timestamp": params["timestamp"] + 1}, (400, -1022)),
        (lambda params: params | {"recvWindow": 70_000}, (400, -1102)),
        (lambda params: params | {"apiKey": "?"}, (401, -2014)),
        (lambda params: params | {"apiKey": "sim-binance-key-of-another"}, (401, -2015)),
        (lambda params: params | {"apiKey": HMAC}, (400, -1022)),
        (lambda params: params | {"symbol": "BTCUSDT"}, (400, -1104)),
    ],
)
def test_a_signed_request_with_anything_wrong_is_refused(dialog, clock, method, change, expected):
    assert refused(ask(dialog, clock, method, change(signed_params(clock, ED25519)))) == expected
    assert dialog.topics == {}


def test_only_ed25519_can_log_on(dialog, clock):
    reply = ask(dialog, clock, "session.logon", signed_params(clock, HMAC))
    assert refused(reply) == (400, -1022)
    assert reply.violation


def test_without_a_session_nothing_unsigned_is_subscribed(dialog, clock):
    assert refused(ask(dialog, clock, "userDataStream.subscribe")) == (401, -1002)


@pytest.mark.parametrize(
    ("text", "request_id", "code"),
    [
        ("{", None, -1135),
        ("[]", None, -1102),
        ('{"method":"time"}', None, -1102),
        ('{"id":true,"method":"time"}', None, -1102),
        ('{"id":1}', 1, -1020),
        ('{"id":1,"method":7}', 1, -1020),
        ('{"id":1,"method":{}}', 1, -1020),
        ('{"id":1,"method":"userDataStream.start"}', 1, -1020),
        ('{"id":null,"method":"time","params":[]}', None, -1135),
        ('{"id":1,"method":"time","params":{"x":1}}', 1, -1104),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_the_connection_stays(
    dialog, clock, text, request_id, code
):
    reply = dialog.on_text(text, clock.now)
    answer = only(reply)
    assert (answer["id"], answer["status"], answer["error"]["code"]) == (request_id, 400, code)
    assert reply.violation
    assert reply.close is None


def test_a_deposit_is_told_twice(exchange, dialog, clock):
    ask(dialog, clock, "userDataStream.subscribe.signature", signed_params(clock))
    update = exchange.private.accounts["spot"].transfer("BTC", Decimal("-0.25"), clock.now.unix_ns)
    time_ms = clock.now.unix_ms
    assert [json.loads(text) for text in dialog.on_account(update, clock.now).texts] == [
        {
            "subscriptionId": 0,
            "event": {"e": "balanceUpdate", "E": time_ms, "a": "BTC", "d": "-0.25000000", "T": time_ms},
        },
        {
            "subscriptionId": 0,
            "event": {
                "e": "outboundAccountPosition",
                "E": time_ms,
                "u": time_ms,
                "B": [{"a": "BTC", "f": "1.00000000", "l": "0.05000000"}],
            },
        },
    ]


def test_a_trade_is_one_event_about_both_assets(exchange, dialog, clock):
    ask(dialog, clock, "userDataStream.subscribe.signature", signed_params(clock))
    account = exchange.private.accounts["spot"]
    update = account.trade("ETH", "USDT", Decimal(1), Decimal(2500), clock.now.unix_ns)
    event = only(dialog.on_account(update, clock.now))["event"]
    assert event["e"] == "outboundAccountPosition"
    assert event["B"] == [
        {"a": "ETH", "f": "13.50000000", "l": "0.00000000"},
        {"a": "USDT", "f": "7500.50000000", "l": "250.00000000"},
    ]


def test_who_is_not_subscribed_hears_nothing(exchange, dialog, clock):
    log_on(dialog, clock)
    update = exchange.private.accounts["spot"].transfer("BTC", Decimal(1), clock.now.unix_ns)
    assert dialog.on_account(update, clock.now) == Reply()
    market = exchange.accept(HttpRequest(method="GET", path="/ws", remote="x"), clock.now)
    assert market.on_account(update, clock.now) == Reply()


def test_a_session_whose_key_is_refused_is_revoked_at_its_next_request(exchange, dialog, clock):
    log_on(dialog, clock)
    ask(dialog, clock, "userDataStream.subscribe")
    exchange.private.key_refusal = "permission"
    revoked, event = map(json.loads, ask(dialog, clock, "time").texts)
    assert revoked == {
        "id": None,
        "status": 401,
        "error": {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."},
    }
    assert event["event"]["e"] == "eventStreamTerminated"
    assert result(ask(dialog, clock, "session.status"))["apiKey"] is None
    assert refused(ask(dialog, clock, "session.logon", signed_params(clock, ED25519))) == (401, -2015)


def test_subscriptions_end_on_command(exchange, dialog, clock):
    ask(dialog, clock, "userDataStream.subscribe.signature", signed_params(clock))
    event = only(exchange.end_subscriptions(dialog, clock.now))
    assert event == {"subscriptionId": 0, "event": {"e": "eventStreamTerminated", "E": clock.now.unix_ms}}
    assert exchange.end_subscriptions(dialog, clock.now) == Reply()


def test_a_shutdown_is_announced_as_an_event_of_no_subscription(exchange, dialog, clock):
    notice = exchange.shutdown_notice(dialog, clock.now)
    assert json.loads(notice) == {"event": {"e": "serverShutdown", "E": clock.now.unix_ms}}


def test_pings_come_every_20_s_and_want_an_answer(dialog, clock):
    payload = dialog.on_tick(clock.pass_s(20)).ping
    assert payload is not None
    assert dialog.on_tick(clock.pass_s(1)) == Reply()
    dialog.on_pong(payload, clock.now)
    clock.pass_s(19)
    assert dialog.on_tick(clock.now).ping is not None
    late = [dialog.on_tick(clock.pass_s(1)) for _ in range(61)][-1]
    assert isinstance(late.close, Close)
    assert late.violation


def test_a_connection_ends_after_24_h(exchange, clock):
    dialog = connect(exchange, clock)
    assert dialog.on_tick(clock.pass_s(86_401)).close == Close(1001, "24 h")


def test_a_ping_is_answered(dialog, clock):
    assert dialog.on_ping(b"x", clock.now) == Reply(pong=b"x")
