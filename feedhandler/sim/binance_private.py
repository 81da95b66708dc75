"""Binance spot, simulated: the account over REST, and the WebSocket API with its user data stream.

Pure, as the rest. The account's REST answer is a signed one; the WebSocket API takes requests by name, and
signs the parameters sorted, where REST signs them as sent.

Sources:
  requests   https://github.com/binance/binance-spot-api-docs/blob/master/web-socket-api.md
  events     https://github.com/binance/binance-spot-api-docs/blob/master/user-data-stream.md
  signing    https://github.com/binance/binance-spot-api-docs/blob/master/rest-api.md#request-security
  errors     https://github.com/binance/binance-spot-api-docs/blob/master/errors.md
Not in the documentation: which of several faults of one request is named (here: key, parameters, time,
signature), and that a key of the other kind at `session.logon` has an invalid signature, as is reported.
Not played: orders, and so `executionReport`; market data over the WebSocket API; RSA keys.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from urllib.parse import unquote_plus

import msgspec

from feedhandler.sim import credentials
from feedhandler.sim.account import Account, Update, fixed
from feedhandler.sim.protocol import (
    NS_PER_MS,
    NS_PER_S,
    NS_PER_US,
    Close,
    Dialog,
    HttpAnswer,
    HttpRequest,
    Now,
    Refusal,
    Reply,
    ServerPings,
    to_json,
)

PLACES = 8  # every amount is printed with eight decimals
UID = 354_937_101
ACCOUNT_WEIGHT = 20
CONNECT_WEIGHT = 2
RECV_WINDOW_MS = Decimal(5000)
RECV_WINDOW_MAX_MS = Decimal(60_000)
AHEAD_NS = NS_PER_S  # a timestamp may be less than this ahead of the exchange's clock
SUBSCRIPTIONS_MAX = 65_535  # in the life of one connection
_KEY_FORMAT = re.compile(r"[A-Za-z0-9\-]{8,128}")
_TIMESTAMP = re.compile(r"[0-9]{1,20}")
_RECV_WINDOW = re.compile(r"[0-9]{1,20}(\.[0-9]{1,3})?")
_MICROSECONDS_FROM = 10**14  # what is not below this many milliseconds is meant in microseconds
_WEIGHTS = {
    "ping": 1,
    "time": 1,
    "session.logon": 2,
    "session.status": 2,
    "session.logout": 2,
    "session.subscriptions": 2,
    "account.status": ACCOUNT_WEIGHT,
    "userDataStream.subscribe": 2,
    "userDataStream.subscribe.signature": 2,
    "userDataStream.unsubscribe": 2,
}
_PARAMETERS = {
    "session.logon": {"apiKey", "recvWindow", "signature", "timestamp"},
    "account.status": {"apiKey", "omitZeroBalances", "recvWindow", "signature", "timestamp"},
    "userDataStream.subscribe.signature": {"apiKey", "recvWindow", "signature", "timestamp"},
    "userDataStream.unsubscribe": {"subscriptionId"},
}
_NOT_AUTHORIZED = Refusal(-1002, "You are not authorized to execute this request.", 401)
_BAD_KEY_FORMAT = Refusal(-2014, "API-key format invalid.", 401)
_BAD_KEY = Refusal(-2015, "Invalid API-key, IP, or permissions for action.", 401)
_BAD_SIGNATURE = Refusal(-1022, "Signature for this request is not valid.", 400)
_OVERLOADED = Refusal(
    -1008,
    "Server is currently overloaded with other requests. Please try again in a few minutes.",
    503,
    "command",
)


def _missing(name: str) -> Refusal:
    return Refusal(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.", 400)


def _illegal(name: str, legal: str) -> Refusal:
    return Refusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^{legal}$'.", 400)


class BinancePrivate:
    """The account, the keys to it, and what both ways in have in common."""

    def __init__(self) -> None:
        self.account = Account("spot", PLACES)
        self.accounts = {"spot": self.account}
        self.key_refusal = ""
        self._public = credentials.ed25519_public()

    def rest_account(self, request: HttpRequest, now: Now) -> HttpAnswer:
        """Answer `GET /api/v3/account`."""
        refusal = self._rest_refusal(request, now)
        if refusal is not None:
            return refusal.answer()
        is_micro = request.headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"
        omit = request.one("omitZeroBalances") == "true"
        return HttpAnswer(body=to_json(self.print_account(omit, NS_PER_US if is_micro else NS_PER_MS)))

    def _rest_refusal(self, request: HttpRequest, now: Now) -> Refusal | None:
        """Check the query as sent: what stands before `&signature=` is what was signed."""
        payload, found, signature = request.raw_query.rpartition("signature=")
        if not found or (payload and not payload.endswith("&")):
            payload, signature = request.raw_query, ""
        if not payload.isascii():  # it must be percent-encoded before it is signed
            return _BAD_SIGNATURE
        return self.refusal(
            request.headers.get("X-MBX-APIKEY", ""),
            dict(request.query) | {"signature": unquote_plus(signature)},
            payload.removesuffix("&"),
            now,
        )

    def refusal(self, key: str, params: Mapping[str, str], payload: str, now: Now) -> Refusal | None:
        """Say what is wrong with a signed request; None if nothing is."""
        if self.key_refusal:
            is_down = self.key_refusal == "maintenance"
            return _OVERLOADED if is_down else msgspec.structs.replace(_BAD_KEY, blame="command")
        if _KEY_FORMAT.fullmatch(key) is None:
            return _BAD_KEY_FORMAT
        if key not in (credentials.BINANCE.key, credentials.BINANCE_ED25519_KEY):
            return _BAD_KEY
        return self._bad_params(params, now) or self._bad_signature(key, params["signature"], payload)

    def _bad_params(self, params: Mapping[str, str], now: Now) -> Refusal | None:
        for name in ("signature", "timestamp"):
            if not params.get(name):
                return _missing(name)
        if params.get("omitZeroBalances", "true") not in ("true", "false"):
            return Refusal(-1130, "Data sent for parameter 'omitZeroBalances' is not valid.", 400)
        window = params.get("recvWindow", str(RECV_WINDOW_MS))
        if _RECV_WINDOW.fullmatch(window) is None:
            return _illegal("recvWindow", _RECV_WINDOW.pattern)
        if Decimal(window) > RECV_WINDOW_MAX_MS:
            return Refusal(
                -1102, "'recvWindow' contains unexpected value. Cannot be greater than 60000.", 400
            )
        if _TIMESTAMP.fullmatch(params["timestamp"]) is None:
            return _illegal("timestamp", _TIMESTAMP.pattern)
        return _bad_time(int(params["timestamp"]), Decimal(window), now)

    def _bad_signature(self, key: str, signature: str, payload: str) -> Refusal | None:
        if key == credentials.BINANCE_ED25519_KEY:
            is_right = credentials.is_signed(self._public, signature, payload)
        else:  # in hex, where capitals mean the same
            expected = credentials.hmac_hex(credentials.BINANCE.secret, payload)
            is_right = credentials.is_same(signature.lower(), expected)
        return None if is_right else _BAD_SIGNATURE

    def print_account(self, is_omitting_zeros: bool, unit_ns: int) -> dict[str, object]:
        balances = self.account.balances.items()
        return {
            "makerCommission": 10,
            "takerCommission": 10,
            "buyerCommission": 0,
            "sellerCommission": 0,
            "commissionRates": {
                "maker": "0.00100000",
                "taker": "0.00100000",
                "buyer": "0.00000000",
                "seller": "0.00000000",
            },
            "canTrade": True,
            "canWithdraw": True,
            "canDeposit": True,
            "brokered": False,
            "requireSelfTradePrevention": False,
            "preventSor": False,
            "updateTime": self.account.updated_unix_ns // unit_ns,
            "accountType": "SPOT",
            "balances": [
                {"asset": asset, "free": fixed(each.available, PLACES), "locked": fixed(each.held, PLACES)}
                for asset, each in balances
                if each.total or not is_omitting_zeros
            ],
            "permissions": ["SPOT"],
            "uid": UID,
        }


def _bad_time(timestamp: int, window_ms: Decimal, now: Now) -> Refusal | None:
    is_micro = timestamp >= _MICROSECONDS_FROM
    sent_ns = timestamp * (NS_PER_US if is_micro else NS_PER_MS)
    if sent_ns >= now.unix_ns + AHEAD_NS:
        text = "Timestamp for this request was 1000ms ahead of the server's time."
        return Refusal(-1021, text, 400, "clock")
    if now.unix_ns - sent_ns > window_ms * NS_PER_MS:
        text = "Timestamp for this request is outside of the recvWindow."
        return Refusal(-1021, text, 400, "clock")
    return None


class WsApiRules(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the exchange's limits and timers that holds here."""

    ping_every_s: float
    pong_within_s: float
    max_age_s: float
    weight_per_minute: int


class Logon(msgspec.Struct, frozen=True):
    """A key that is logged on."""

    key: str
    since_ns: int


class BinanceWsApiDialog(Dialog):
    """One connection of the WebSocket API; events come to it beside the answers, unasked.

    `use_weight` counts for the client's address, REST and this together, and returns the sum of the minute
    and the seconds that it still runs.
    """

    is_private = True

    def __init__(
        self,
        private: BinancePrivate,
        rules: WsApiRules,
        use_weight: Callable[[int, Now], tuple[int, float]],
        *,
        is_micro: bool,
        with_limits: bool,
    ) -> None:
        super().__init__()
        self._private = private
        self._rules = rules
        self._use_weight = use_weight
        self._unit_ns = NS_PER_US if is_micro else NS_PER_MS
        self._with_limits = with_limits
        self._opened_ns = self._opened_unix_ns = 0
        self._session: Logon | None = None
        self._subscriptions: dict[int, bool] = {}  # id: whether it ends with the session
        self._next_subscription = 0

    def on_open(self, now: Now) -> Reply:
        self._opened_ns, self._opened_unix_ns = now
        self._pings = ServerPings(self._rules.ping_every_s, self._rules.pong_within_s, now.mono_ns)
        return Reply()

    def on_pong(self, payload: bytes, now: Now) -> Reply:
        self._pings.on_pong(payload)
        return Reply()

    def on_tick(self, now: Now) -> Reply:
        if now.mono_ns - self._opened_ns > self._rules.max_age_s * NS_PER_S:
            return Reply(close=Close(1001, "24 h"))
        if self._pings.is_late(now.mono_ns):
            text = "no pong with the ping's payload in time"
            return Reply(violation=text, close=Close(1008, "Pong timeout"))
        return Reply(ping=self._pings.due(now))

    # Requests.

    def on_text(self, text: str, now: Now) -> Reply:
        try:
            message = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return self._refuse(None, Refusal(-1135, "Invalid JSON HttpRequest", 400))
        if not isinstance(message, dict) or "id" not in message or not _is_id(message["id"]):
            return self._refuse(None, _missing("id"))
        request_id, method, params = message["id"], message.get("method"), message.get("params", {})
        method = method.removeprefix("v3/") if isinstance(method, str) else ""
        if method not in _WEIGHTS:
            return self._refuse(request_id, Refusal(-1020, "This operation is not supported.", 400))
        if not isinstance(params, dict):
            return self._refuse(
                request_id, Refusal(-1135, "JSON sent for parameter 'params' is not valid", 400)
            )
        return self._on_method(request_id, method, params, now)

    def _on_method(self, request_id: object, method: str, params: dict[str, object], now: Now) -> Reply:
        limits = params.get("returnRateLimits", self._with_limits)
        used, left_s = self._use_weight(_WEIGHTS[method], now)
        shown = self._limits(used) if limits is True else {}
        if used > self._rules.weight_per_minute:
            return self._throttled(request_id, left_s, shown, now)
        revoked = self._revoke(now)
        if revoked is not None:
            return revoked
        unread = params.keys() - _PARAMETERS.get(method, set()) - {"returnRateLimits"}
        if unread:
            known, count = len(params) - len(unread), len(params)
            text = f"Not all sent parameters were read; read '{known}' parameter(s) but was sent '{count}'."
            return self._refuse(request_id, Refusal(-1104, text, 400), shown)
        found = self._answer(method, params, now)
        if isinstance(found, Refusal):
            return self._refuse(request_id, found, shown)
        result, events = found
        answer = to_json({"id": request_id, "status": 200, "result": result} | shown)
        return Reply(texts=[answer, *events])

    def _answer(
        self, method: str, params: dict[str, object], now: Now
    ) -> tuple[object, list[bytes]] | Refusal:
        """Carry out a request: its result, and the events that it brings about."""
        match method:
            case "ping":
                return {}, []
            case "time":
                return {"serverTime": now.unix_ns // self._unit_ns}, []
            case "session.logon":
                return self._log_on(params, now)
            case "session.logout":
                self._session = None
                events = self._end_of_session(now)
                return self._status(now), events
            case "session.status":
                return self._status(now), []
            case "session.subscriptions":
                return [{"subscriptionId": number} for number in self._subscriptions], []
            case "account.status":
                refusal = self._unsigned(params, now)
                omit = params.get("omitZeroBalances") is True
                return refusal or (self._private.print_account(omit, self._unit_ns), [])
            case "userDataStream.unsubscribe":
                return self._unsubscribe(params.get("subscriptionId"), now)
            case "userDataStream.subscribe":
                return self._subscribe(True) if self._session is not None else _NOT_AUTHORIZED
            case _:
                return self._bad(params, now) or self._subscribe(False)

    def _log_on(self, params: dict[str, object], now: Now) -> tuple[object, list[bytes]] | Refusal:
        refusal = self._bad(params, now)
        if refusal is not None:
            return refusal
        if params["apiKey"] != credentials.BINANCE_ED25519_KEY:
            return _BAD_SIGNATURE
        self._session = Logon(str(params["apiKey"]), now.unix_ns)
        return self._status(now), []

    def _unsigned(self, params: dict[str, object], now: Now) -> Refusal | None:
        """Check a request that a session need not sign, but must date."""
        if self._session is None or "apiKey" in params or "signature" in params:
            return self._bad(params, now)
        return self._private._bad_params(_texts(params) | {"signature": "logged on"}, now)

    def _bad(self, params: dict[str, object], now: Now) -> Refusal | None:
        texts = _texts(params)
        if "apiKey" not in texts:
            return _missing("apiKey")
        payload = "&".join(f"{name}={texts[name]}" for name in sorted(texts) if name != "signature")
        return self._private.refusal(texts["apiKey"], {"signature": ""} | texts, payload, now)

    def _revoke(self, now: Now) -> Reply | None:
        """End a session whose key is no longer good, at the first request after that."""
        if self._session is None or self._private.key_refusal in ("", "maintenance"):
            return None
        self._session = None
        return Reply(texts=[_error(None, _BAD_KEY), *self._end_of_session(now)])

    def _status(self, now: Now) -> dict[str, object]:
        session = self._session
        return {
            "apiKey": session.key if session else None,
            "authorizedSince": session.since_ns // self._unit_ns if session else None,
            "connectedSince": self._opened_unix_ns // self._unit_ns,
            "returnRateLimits": self._with_limits,
            "serverTime": now.unix_ns // self._unit_ns,
            "userDataStream": bool(self._subscriptions),
        }

    # The user data stream.

    def _subscribe(self, is_of_session: bool) -> tuple[object, list[bytes]] | Refusal:
        if self._subscriptions:  # there is one account, and one subscription to it
            return Refusal(-2035, "User Data Stream subscription already active.", 400)
        if self._next_subscription >= SUBSCRIPTIONS_MAX:
            return Refusal(-2042, "Maximum subscription ID reached for this connection.", 400)
        number, self._next_subscription = self._next_subscription, self._next_subscription + 1
        self._subscriptions[number] = is_of_session
        self.topics[f"userDataStream {number}"] = None
        return {"subscriptionId": number}, []

    def _unsubscribe(self, number: object, now: Now) -> tuple[object, list[bytes]] | Refusal:
        wanted = [each for each in self._subscriptions if number is None or each == number]
        if not wanted:
            return Refusal(-2036, "User Data Stream subscription not active.", 400)
        return {}, self._end(wanted, now)

    def _end_of_session(self, now: Now) -> list[bytes]:
        return self._end([number for number, ends in self._subscriptions.items() if ends], now)

    def _end(self, numbers: list[int], now: Now) -> list[bytes]:
        for number in numbers:
            del self._subscriptions[number]
            del self.topics[f"userDataStream {number}"]
        event = {"e": "eventStreamTerminated", "E": now.unix_ns // self._unit_ns}
        return [_event(number, event) for number in numbers]

    def end_subscriptions(self, now: Now) -> Reply:
        """End them for a reason of the exchange's own."""
        return Reply(texts=self._end(list(self._subscriptions), now))

    def on_account(self, update: Update, now: Now) -> Reply:
        events = self._events(update, now)
        return Reply(texts=[_event(number, event) for number in self._subscriptions for event in events])

    def _events(self, update: Update, now: Now) -> list[dict[str, object]]:
        """A transfer is sent twice: by how much, and what there is now."""
        time, cleared = now.unix_ns // self._unit_ns, update.unix_ns // self._unit_ns
        transfers: list[dict[str, object]] = [
            {
                "e": "balanceUpdate",
                "E": time,
                "a": change.asset,
                "d": fixed(change.available_change, PLACES),
                "T": cleared,
            }
            for change in update.changes
            if update.reason == "transfer"
        ]
        balances = [
            {"a": each.asset, "f": fixed(each.available, PLACES), "l": fixed(each.held, PLACES)}
            for each in update.changes
        ]
        return [*transfers, {"e": "outboundAccountPosition", "E": time, "u": cleared, "B": balances}]

    def shutdown_notice(self, now: Now) -> bytes:
        return to_json({"event": {"e": "serverShutdown", "E": now.unix_ns // self._unit_ns}})

    # Answers.

    def _limits(self, used: int) -> dict[str, object]:
        limit = {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": self._rules.weight_per_minute,
            "count": used,
        }
        return {"rateLimits": [limit]}

    def _throttled(self, request_id: object, left_s: float, limits: dict[str, object], now: Now) -> Reply:
        limit = self._rules.weight_per_minute
        text = (
            f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE. Please use"
            " WebSocket Streams for live updates to avoid polling the API."
        )
        retry_ms = now.unix_ms + int(left_s * 1000) + 1
        error = {"code": -1003, "msg": text, "data": {"serverTime": now.unix_ms, "retryAfter": retry_ms}}
        answer = to_json({"id": request_id, "status": 429, "error": error} | limits)
        return Reply(texts=[answer], violation="request weight of the minute used up")

    def _refuse(self, request_id: object, refusal: Refusal, limits: dict[str, object] | None = None) -> Reply:
        return Reply(
            texts=[_error(request_id, refusal, limits)],
            violation=refusal.violation,
            remark=refusal.remark,
        )


def _error(request_id: object, refusal: Refusal, limits: dict[str, object] | None = None) -> bytes:
    error = {"code": refusal.code, "msg": refusal.text}
    return to_json({"id": request_id, "status": refusal.status, "error": error} | (limits or {}))


def _event(number: int, event: dict[str, object]) -> bytes:
    return to_json({"subscriptionId": number, "event": event})


def _is_id(value: object) -> bool:
    return value is None or (isinstance(value, int | str) and not isinstance(value, bool))


def _texts(params: Mapping[str, object]) -> dict[str, str]:
    """Print the parameters as they are signed."""
    return {name: _text(value) for name, value in params.items()}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
