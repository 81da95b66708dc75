"""Bybit V5, simulated: the unified account over signed REST, and the private stream.

Pure, as the rest.

Sources:
  signing   https://bybit-exchange.github.io/docs/v5/guide
  balance   https://bybit-exchange.github.io/docs/v5/account/wallet-balance
  stream    https://bybit-exchange.github.io/docs/v5/ws/connect,
            https://bybit-exchange.github.io/docs/v5/websocket/private/wallet
  errors    https://bybit-exchange.github.io/docs/v5/error
  limits    https://bybit-exchange.github.io/docs/v5/rate-limit
Not in the documentation: the texts of refusals on the stream ("Params Error" and "needs auth first" are
reported), and that it stays open after them.
Not played: orders, positions, the funding wallet, margin; RSA keys.
"""

import re
from collections.abc import Callable, Iterable
from decimal import Decimal

import msgspec

from feedhandler.sim import credentials
from feedhandler.sim.account import ZERO, Account, Balance, Update, plain, product
from feedhandler.sim.protocol import (
    NS_PER_S,
    Close,
    Dialog,
    HttpRequest,
    Now,
    Refusal,
    Reply,
    SlidingWindow,
    decode_object,
    to_json,
)

PRIVATE_PATH = "/v5/private"
DECIMALS = 18
RECV_WINDOW_MS = "5000"
AHEAD_MS = 1000  # a timestamp may be less than this ahead of the exchange's clock
REQUESTS_PER_S = 50  # of the wallet balance, per account
WALLET = "wallet"
TOPICS = (WALLET, "order", "execution", "execution.fast", "position", "greeks")
_ACTIVE_TIME = re.compile(r"([0-9]{1,3})([sm])")
_ACTIVE_S = (30, 600)  # what max_active_time may be; the last is the default
_HEADERS = ("X-BAPI-API-KEY", "X-BAPI-TIMESTAMP", "X-BAPI-SIGN")
_BAD_KEY = Refusal(10003, "API key is invalid.", 200)
_ON_COMMAND = {
    "key": _BAD_KEY,
    "permission": Refusal(10005, "Permission denied, please check your API key permissions.", 200),
    "address": Refusal(10010, "Unmatched IP, please check your API key's bound IP addresses.", 200),
    "expired": Refusal(33004, "Your api key has expired.", 200),
    "maintenance": Refusal(10016, "Server error.", 200),
}


class BybitPrivate:
    """The account, the key to it, and its limit. `price` values an asset in USD."""

    def __init__(self, price: Callable[[str], Decimal]) -> None:
        self.account = Account("unified", DECIMALS)
        self.accounts = {"unified": self.account}
        self.key_refusal = ""
        self._price = price
        self._requests = SlidingWindow(REQUESTS_PER_S, 1.0)

    def key_fault(self) -> Refusal | None:
        """Why every key is refused, if a fault has it so."""
        if not self.key_refusal:
            return None
        return msgspec.structs.replace(_ON_COMMAND[self.key_refusal], blame="command")

    def refusal(self, request: HttpRequest, now: Now) -> Refusal | None:
        """Say what is wrong with a signed request; None if nothing is."""
        key, timestamp, sign = (request.headers.get(name, "") for name in _HEADERS)
        if request.body:
            return Refusal(403, "a GET has no body", 403)
        if not (key and timestamp and sign):
            return Refusal(401, f"{', '.join(_HEADERS)} are required", 401)
        fault = self.key_fault()
        if fault is not None:
            return fault
        if key != credentials.BYBIT.key:
            return _BAD_KEY
        window = request.headers.get("X-BAPI-RECV-WINDOW", "")
        late = _bad_time(timestamp, window or RECV_WINDOW_MS, now)
        if late is not None:
            return late
        text = f"{timestamp}{key}{window}{request.raw_query}"
        if not credentials.is_same(sign, credentials.hmac_hex(credentials.BYBIT.secret, text)):
            return Refusal(10004, f"error sign! origin_string[{text}]", 200)
        if not self._requests.admit(now.mono_ns):
            return Refusal(10006, "Too many visits!", 200)
        if request.one("accountType") != "UNIFIED":
            return Refusal(10001, "accountType only support UNIFIED.", 200)
        return None

    def limit_headers(self, now: Now) -> dict[str, str]:
        """State the limit; its reset is now unless it is used up."""
        left = max(0, self._requests.left(now.mono_ns))
        wait_ms = 0 if left else int(self._requests.reset_s(now.mono_ns) * 1000) + 1
        return {
            "X-Bapi-Limit": str(REQUESTS_PER_S),
            "X-Bapi-Limit-Status": str(left),
            "X-Bapi-Limit-Reset-Timestamp": str(now.unix_ms + wait_ms),
        }

    def print_balance(self, coins: str | None) -> dict[str, object]:
        """Print what `GET /v5/account/wallet-balance` has as its result."""
        if coins is None:
            wanted = [asset for asset, balance in self.account.balances.items() if balance.total]
        else:
            wanted = list(dict.fromkeys(coins.split(",")))
        return {"list": [self._print_account(wanted)]}

    def print_event(self, update: Update, number: str) -> bytes:
        """Print what the wallet topic pushes: the coins that changed."""
        coins = [change.asset for change in update.changes]
        event = {
            "id": number,
            "topic": WALLET,
            "creationTime": update.unix_ns // 1_000_000,
            "data": [self._print_account(coins)],
        }
        return to_json(event)

    def _print_account(self, coins: Iterable[str]) -> dict[str, object]:
        balances = self.account.balances
        value = sum((self._value(asset, each.total) for asset, each in balances.items()), ZERO)
        total = plain(value)
        return {
            "accountIMRate": "0",
            "accountIMRateByMp": "0",
            "accountMMRate": "0",
            "accountMMRateByMp": "0",
            "totalEquity": total,
            "totalWalletBalance": total,
            "totalMarginBalance": total,
            "totalAvailableBalance": total,
            "totalPerpUPL": "0",
            "totalInitialMargin": "0",
            "totalInitialMarginByMp": "0",
            "totalMaintenanceMargin": "0",
            "totalMaintenanceMarginByMp": "0",
            "coin": [self._print_coin(coin, balances.get(coin, Balance())) for coin in coins],
            "accountLTV": "0",
            "accountType": "UNIFIED",
        }

    def _print_coin(self, coin: str, balance: Balance) -> dict[str, object]:
        """Print one coin; what is held by orders is part of the wallet's balance."""
        total = plain(balance.total)
        return {
            "coin": coin,
            "equity": total,
            "usdValue": plain(self._value(coin, balance.total)),
            "walletBalance": total,
            "availableToWithdraw": "",
            "availableToBorrow": "",
            "borrowAmount": "0",
            "accruedInterest": "0",
            "totalOrderIM": "0",
            "totalPositionIM": "0",
            "totalPositionMM": "0",
            "unrealisedPnl": "0",
            "cumRealisedPnl": "0",
            "bonus": "0",
            "collateralSwitch": True,
            "marginCollateral": True,
            "locked": plain(balance.held),
            "spotHedgingQty": "0",
            "spotBorrow": "0",
        }

    def _value(self, asset: str, amount: Decimal) -> Decimal:
        return product(amount, self._price(asset), 8)


def _is_time(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20


def _bad_time(timestamp: str, window: str, now: Now) -> Refusal | None:
    if not (_is_time(timestamp) and _is_time(window)):
        return Refusal(10001, "params error: timestamp or recv_window invalid", 200)
    if now.unix_ms - int(window) <= int(timestamp) < now.unix_ms + AHEAD_MS:
        return None
    text = (
        "invalid request, please check your server timestamp or recv_window param."
        f" req_timestamp[{timestamp}],server_timestamp[{now.unix_ms}],recv_window[{window}]"
    )
    return Refusal(10002, text, 200, "clock")


class BybitPrivateDialog(Dialog):
    """One private connection: first who it is, then what it subscribes to. Requests that fail leave it open."""

    is_private = True

    def __init__(self, private: BybitPrivate, connection_id: str, active_time: str | None) -> None:
        super().__init__()
        self._private = private
        self._connection_id = connection_id
        self._active_s = _active_s(active_time)
        self._is_authenticated = False
        self._alive_ns = 0  # pinged, or sent data

    def on_open(self, now: Now) -> Reply:
        self._alive_ns = now.mono_ns
        return Reply()

    def on_tick(self, now: Now) -> Reply:
        if now.mono_ns - self._alive_ns > self._active_s * NS_PER_S:
            return Reply(close=Close(0), violation="no data and no ping in time")
        return Reply()

    def on_account(self, update: Update, now: Now) -> Reply:
        if WALLET not in self.topics:
            return Reply()
        self._alive_ns = now.mono_ns
        return Reply(texts=[self._private.print_event(update, f"{self._connection_id}-{update.number}")])

    def on_text(self, text: str, now: Now) -> Reply:
        message = decode_object(text)
        if message is None:
            return self._refuse("Failed to decode incoming data", {}, "")
        match message.get("op"):
            case "ping":
                self._alive_ns = now.mono_ns
                return Reply(texts=[self._pong(message, now)])
            case "auth":
                return self._on_auth(message, now)
            case "subscribe":
                return self._on_subscribe(message)
            case "unsubscribe":
                return self._on_unsubscribe(message)
            case operation:
                return self._refuse("error:invalid op", message, str(operation or ""))

    def _on_auth(self, message: dict[str, object], now: Now) -> Reply:
        match message.get("args"):
            case [str(key), (int() | str()) as given, str(signature)] if _is_time(str(given)):
                expires = int(given)
            case _:
                return self._refuse("Params Error", message, "auth")
        fault = self._private.key_fault()
        if fault is not None:
            return Reply(texts=[self._answer(False, fault.text, message, "auth")])
        if key != credentials.BYBIT.key:
            return self._refuse(_BAD_KEY.text, message, "auth")
        if expires <= now.unix_ms:
            text = "Params Error"
            return Reply(texts=[self._answer(False, text, message, "auth")], remark=f"{text}: expired")
        expected = credentials.hmac_hex(credentials.BYBIT.secret, f"GET/realtime{expires}")
        if not credentials.is_same(signature, expected):
            return self._refuse("Params Error", message, "auth")
        self._is_authenticated = True
        return Reply(texts=[self._answer(True, "", message, "auth")])

    def _on_subscribe(self, message: dict[str, object]) -> Reply:
        args = message.get("args")
        if not isinstance(args, list) or not args:
            return self._refuse("error:args is empty", message, "subscribe")
        if not self._is_authenticated:
            return self._refuse(f"error:topic:{args[0]} needs auth first", message, "subscribe")
        for index, topic in enumerate(args):
            if topic not in TOPICS:
                return self._refuse(f"error:handler not found,topic:{topic}", message, "subscribe")
            if topic in self.topics or topic in args[:index]:
                return self._refuse(f"error:already subscribed,topic:{topic}", message, "subscribe")
        self.topics.update(dict.fromkeys(args))
        return Reply(texts=[self._answer(True, "", message, "subscribe")])

    def _on_unsubscribe(self, message: dict[str, object]) -> Reply:
        args = message.get("args")
        for topic in args if isinstance(args, list) else []:
            if isinstance(topic, str):
                self.topics.pop(topic, None)
        return Reply(texts=[self._answer(True, "", message, "unsubscribe")])

    def _pong(self, message: dict[str, object], now: Now) -> bytes:
        answer: dict[str, object] = {"req_id": str(message["req_id"])} if "req_id" in message else {}
        answer |= {"op": "pong", "args": [str(now.unix_ms)], "conn_id": self._connection_id}
        return to_json(answer)

    def _refuse(self, text: str, message: dict[str, object], operation: str) -> Reply:
        return Reply(
            texts=[self._answer(False, text, message, operation)],
            violation=f"{operation or 'message'}: {text}",
        )

    def _answer(self, is_success: bool, text: str, message: dict[str, object], operation: str) -> bytes:
        answer: dict[str, object] = {"success": is_success, "ret_msg": text, "op": operation}
        if "req_id" in message:
            answer["req_id"] = str(message["req_id"])
        return to_json(answer | {"conn_id": self._connection_id})


def _active_s(wanted: str | None) -> int:
    """Read `max_active_time`, such as 30s or 1m; what makes no sense is the default."""
    found = _ACTIVE_TIME.fullmatch(wanted or "")
    if found is None:
        return _ACTIVE_S[1]
    seconds = int(found[1]) * (60 if found[2] == "m" else 1)
    return seconds if _ACTIVE_S[0] <= seconds <= _ACTIVE_S[1] else _ACTIVE_S[1]
