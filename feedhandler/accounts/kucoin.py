"""An account at KuCoin, classic API.

`/api/v1/accounts` of all types, of which those that spot trades with count here, and are summed:
`trade` and `trade_hf`, one of which an account has, or both. Three headers are signatures or nearly so, and the
passphrase is never sent as it is. Changes come on a socket of the private token, absolute for one account of one
type, and without a first state. A unified account answers as one that holds nothing, or lists other types only: its
mode is asked.

Source: https://www.kucoin.com/docs-new/websocket-api/base-info/introduction and the public spot pages,
as of 2026-11. Frames: tests/frames/kucoin/
"""

import base64
import hmac
from collections.abc import Sequence
from typing import Final

import msgspec

from feedhandler.accounts.adapter import (
    NOTHING,
    Account,
    AccountError,
    AccountStream,
    AccountUpdate,
    Balance,
    Credentials,
    Trouble,
    amount,
    balances,
)
from feedhandler.data.errors import UNDECODABLE, DecodeError, ProtocolError
from feedhandler.data.rest import RestAnswer, RestRequest
from feedhandler.exchanges.base import Endpoint, Rows, T
from feedhandler.exchanges.kucoin import OK, PING_TIMEOUT, TOKEN_INVALID, Command, KuCoinSpot, Token

KEY_VERSION: Final = "3"
BALANCE: Final = "/account/balance"
ACCOUNTS: Final = "kucoin accounts"  # in messages
TRADING: Final = ("trade", "trade_hf")  # types of accounts; main, margin and others are not traded on spot
UNIFIED_REMEDY: Final = (
    "balances of unified accounts are not read: use the key of a classic account, transfer to its trading account"
    " what is to be followed, or say what is held: `feedhandler positions kucoin BTC=0.5`"
)
TROUBLES: Final = {
    "400001": Trouble.KEY,
    "400002": Trouble.CLOCK,
    "400003": Trouble.KEY,
    "400004": Trouble.KEY,
    "400005": Trouble.KEY,
    "400006": Trouble.ADDRESS,
    "400007": Trouble.PERMISSION,
    "400008": Trouble.KEY,
    "400302": Trouble.REGION,
    "411100": Trouble.KEY,  # the user is frozen
    "420001": Trouble.RATE_LIMIT,
    "429000": Trouble.RATE_LIMIT,
    "429002": Trouble.RATE_LIMIT,
    "1015": Trouble.RATE_LIMIT,
    "501000": Trouble.MAINTENANCE,
    "503000": Trouble.MAINTENANCE,
    "500000": Trouble.MAINTENANCE,
}


class _Envelope(msgspec.Struct):
    code: str
    msg: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Mode(msgspec.Struct):
    mode: str = msgspec.field(name="selfAccountMode")


class _Holding(msgspec.Struct):
    asset: str = msgspec.field(name="currency")
    type: str
    id: str
    free: str = msgspec.field(name="available")
    locked: str = msgspec.field(name="holds")


class _Change(msgspec.Struct):
    asset: str = msgspec.field(name="currency")
    free: str = msgspec.field(name="available")
    locked: str = msgspec.field(name="hold")
    id: str = msgspec.field(name="accountId", default="")
    reason: str = msgspec.field(name="relationEvent", default="")


class _AccountFrame(msgspec.Struct):
    type: str
    topic: str = ""
    code: int = 0
    data: _Change | str | None = None


class KuCoinAccount(Account):
    name = "kucoin"
    private_ws_url = ""
    has_passphrase = True

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        # As REST has stated last: the type of each account by its id, and which ids of each asset are traded with.
        self._types: dict[str, str] = {}
        self._traded: dict[str, list[str]] = {}

    def balances_request(self, time_ms: int) -> RestRequest:
        return self._signed("GET", "/api/v1/accounts", time_ms, weight=5)

    def decode_balances(self, answer: RestAnswer) -> Rows[Balance]:
        types: dict[str, str] = {}
        traded: dict[str, list[str]] = {}
        elsewhere: set[str] = set()

        def read(row: msgspec.Raw) -> Balance | None:
            held = msgspec.json.decode(row, type=_Holding, strict=False)
            balance = Balance(held.asset, amount(held.free, ACCOUNTS), amount(held.locked, ACCOUNTS), held.id)
            types[held.id] = held.type
            if held.type not in TRADING:
                if balance.free or balance.locked:
                    elsewhere.add(held.type)
                return None
            traded.setdefault(held.asset, []).append(held.id)
            return balance

        rows = balances(read, self._data(answer, list[msgspec.Raw], ACCOUNTS), ACCOUNTS)
        if elsewhere and not traded and not rows.problem:
            raise AccountError(
                Trouble.ACCOUNT,
                f"kucoin: no trading account, and balances in others: {', '.join(sorted(elsewhere))}",
                remedy=UNIFIED_REMEDY,
            )
        self._types, self._traded = types, traded
        return rows

    def kind_request(self, time_ms: int) -> RestRequest | None:
        return self._signed("GET", "/api/ua/v2/account/mode", time_ms, weight=20)

    def check_kind(self, answer: RestAnswer) -> None:
        try:
            mode = self._data(answer, _Mode, "kucoin account mode").mode
        except (AccountError, DecodeError):
            return
        if mode == "UNIFIED":
            raise AccountError(Trouble.ACCOUNT, "kucoin: this is a unified account", remedy=UNIFIED_REMEDY)

    def is_traded(self, change: _Change) -> bool:
        """Return whether a change is of an account that spot trades with."""
        kind = self._types.get(change.id) or change.reason.partition(".")[0]
        return kind in TRADING

    def is_known(self, change: _Change) -> bool:
        """Return whether it is sure which part of an asset a change is about.

        REST has stated that part, or none of the asset.
        """
        known = self._traded.get(change.asset, ())
        return bool(change.id) and (change.id in known or not known)

    def stream_request(self, time_ms: int) -> RestRequest | None:
        return self._signed("POST", "/api/v1/bullet-private", time_ms, weight=10)

    def stream(self, ws_url: str, answer: RestAnswer | None) -> AccountStream:
        assert answer is not None, "it has requested a token"
        self._data(answer, Token, "kucoin private token")
        try:
            return _KuCoinStream(self, KuCoinSpot().endpoint(ws_url, answer.body, "account"))
        except ProtocolError as exc:
            raise AccountError(Trouble.ANSWER, str(exc)) from None

    def _data(self, answer: RestAnswer, kind: type[T], what: str) -> T:
        """Return the data of an answer. Raises AccountError or DecodeError."""
        try:
            body = msgspec.json.decode(answer.body, type=_Envelope)
        except UNDECODABLE:  # a proxy's page
            if answer.status != 200:
                raise self.refusal(answer, None, "none", "") from None
            raise DecodeError(f"{what}: the answer is no JSON of the exchange's") from None
        if body.code != OK:
            raise self.refusal(answer, TROUBLES.get(body.code), body.code, body.msg)
        try:
            return msgspec.json.decode(body.data, type=kind, strict=False)
        except UNDECODABLE as exc:
            raise DecodeError(f"{what}: {exc}") from exc

    def _signed(self, method: str, path: str, time_ms: int, *, weight: int) -> RestRequest:
        headers = (
            ("KC-API-KEY", self._credentials.key),
            ("KC-API-TIMESTAMP", str(time_ms)),
            ("KC-API-SIGN", self._hash(f"{time_ms}{method}{path}")),
            ("KC-API-PASSPHRASE", self._hash(self._credentials.passphrase)),
            ("KC-API-KEY-VERSION", KEY_VERSION),
            ("Content-Type", "application/json"),
        )
        return RestRequest(path, method, weight, headers, is_signed=True)

    def _hash(self, text: str) -> str:
        digest = hmac.digest(self._credentials.secret.encode(), text.encode(), "sha256")
        return base64.b64encode(digest).decode()


class _KuCoinStream(AccountStream):
    _account: KuCoinAccount

    def __init__(self, account: KuCoinAccount, endpoint: Endpoint) -> None:
        assert endpoint.ping_interval_s is not None, "the token's answer has it"
        super().__init__(account, endpoint.url, msgspec.json.Decoder(_AccountFrame, strict=False))
        self.ping_interval_s = endpoint.ping_interval_s
        self.silence_s = 2 * endpoint.ping_interval_s + (endpoint.pong_timeout_s or 0.0)

    def on_open(self, time_ms: int) -> Sequence[bytes]:
        return ()  # not before its welcome

    def on_decoded(self, frame: _AccountFrame, time_ms: int) -> AccountUpdate:
        if frame.type == "welcome":
            return AccountUpdate(
                send=(msgspec.json.encode(Command(str(time_ms), "subscribe", BALANCE, True, True)),)
            )
        if frame.type == "ack":
            self.is_live = True
        elif frame.type == "error":
            self._refuse(frame)
        elif frame.type == "message" and frame.topic == BALANCE:
            return self._on_change(frame.data)
        return NOTHING

    def _on_change(self, data: _Change | str | None) -> AccountUpdate:
        if not isinstance(data, _Change):
            raise DecodeError("kucoin account: a balance without data")
        if not self._account.is_traded(data):
            return NOTHING
        if not self._account.is_known(data):
            return AccountUpdate(is_incomplete=True)  # it would be counted twice, or stand for all
        what = "kucoin account"
        balance = Balance(data.asset, amount(data.free, what), amount(data.locked, what), data.id)
        return AccountUpdate(balances=(balance,))

    def _refuse(self, frame: _AccountFrame) -> None:
        text = self._account.scrubbed(frame.data if isinstance(frame.data, str) else "")
        if frame.code == TOKEN_INVALID or PING_TIMEOUT in text:
            raise ProtocolError(f"kucoin ends the account's stream: {text} (code {frame.code})")
        raise AccountError(Trouble.ANSWER, f"kucoin refuses the account's stream: {text} (code {frame.code})")

    def ping(self, time_ms: int) -> bytes:
        return msgspec.json.encode(Command(str(time_ms), "ping"))
