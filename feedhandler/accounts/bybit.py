"""An account at Bybit: the unified wallet.

The unified wallet, over `/v5/account/wallet-balance` and the topic `wallet` of the private socket,
which sends no first state. Many of its numbers may be empty texts. What was borrowed to trade is in
`walletBalance`, and is not held: an account may owe more of an asset than it has.

Source: https://bybit-exchange.github.io/docs/v5/ws/connect and v5/websocket/public, as of 2026-11.
Frames: tests/frames/bybit/
"""

import hmac
from collections.abc import Sequence
from typing import Final

import msgspec

from feedhandler.accounts.adapter import (
    EXACT,
    NOTHING,
    ZERO,
    Account,
    AccountError,
    AccountStream,
    AccountUpdate,
    Balance,
    Credentials,
    Trouble,
    amount,
    balances,
    changes,
)
from feedhandler.data.errors import UNDECODABLE, DecodeError
from feedhandler.data.rest import RestAnswer, RestRequest
from feedhandler.exchanges.base import Rows

RECV_WINDOW_MS: Final = 5000
AUTH_MS: Final = 10_000  # for which an authentication is good
PING: Final = b'{"op":"ping"}'
WALLET: Final = "bybit wallet"  # in messages
CLASSIC: Final = ("accounttype", "account type", "classic")  # in the text of 10001, in small letters
CLASSIC_REMEDY: Final = (
    "this is a classic account, whose balances are not read: upgrade it to a unified trading account"
)
BAD_PARAMETER: Final = 10001
TROUBLES: Final = {
    10000: Trouble.MAINTENANCE,
    10002: Trouble.CLOCK,
    10003: Trouble.KEY,
    10004: Trouble.KEY,  # the signature: a wrong secret
    10005: Trouble.PERMISSION,
    10006: Trouble.RATE_LIMIT,
    10007: Trouble.KEY,
    10010: Trouble.ADDRESS,
    10016: Trouble.MAINTENANCE,
    10018: Trouble.RATE_LIMIT,
    10429: Trouble.RATE_LIMIT,
    33004: Trouble.KEY,
}


# What refusals of an authentication are about, in small letters; the first that fits counts. "Params Error" is
# sent for a time that is not good any more, and for a signature. A wrong secret shows over REST: it is taken for
# the time.
AUTH_TEXTS: Final = (
    (("api key", "api_key", "apikey", "api-key", "wrong key"), Trouble.KEY),
    (("permission",), Trouble.PERMISSION),
    (("unmatched ip", "ip address"), Trouble.ADDRESS),
    (("request expired", "timestamp", "expires", "params error"), Trouble.CLOCK),
    (("sign", "key", "auth failed"), Trouble.KEY),
    (("too many", "rate limit"), Trouble.RATE_LIMIT),
    (("server", "system", "internal", "timeout", "busy", "try again"), Trouble.MAINTENANCE),
)
AUTH_REMEDY: Final = (
    "time or signature of the stream's authentication were refused: set this machine's clock (NTP); if balances"
    " cannot be read either, check key and secret"
)


class _Coin(msgspec.Struct):
    asset: str = msgspec.field(name="coin")
    held: str = msgspec.field(name="walletBalance")
    locked: str = ""
    borrowed: str = msgspec.field(name="spotBorrow", default="")

    def balance(self) -> Balance:
        """Return what is one's own of it. Raises DecodeError."""
        held, locked, borrowed = (
            amount(text, WALLET) if text else ZERO for text in (self.held, self.locked, self.borrowed)
        )
        return Balance(self.asset, EXACT.subtract(EXACT.subtract(held, borrowed), locked), locked)


class _Wallet(msgspec.Struct):
    coins: list[msgspec.Raw] = msgspec.field(name="coin")  # each a _Coin
    type: str = msgspec.field(name="accountType", default="UNIFIED")


def _balance(row: msgspec.Raw) -> Balance:
    return msgspec.json.decode(row, type=_Coin).balance()


class _Wallets(msgspec.Struct):
    list: list[_Wallet]


class _AccountAnswer(msgspec.Struct):
    code: int = msgspec.field(name="retCode")
    message: str = msgspec.field(name="retMsg", default="")
    result: msgspec.Raw = msgspec.Raw(b"null")


class _AccountFrame(msgspec.Struct):
    topic: str = ""
    op: str = ""
    code: int = msgspec.field(name="retCode", default=0)
    success: bool | None = None
    message: str = msgspec.field(name="ret_msg", default="")
    data: list[_Wallet] | None = None


def _auth_trouble(frame: _AccountFrame) -> Trouble:
    """Return why an authentication was refused: by its code, where there is one, else by its text."""
    if frame.code in TROUBLES:
        return TROUBLES[frame.code]
    text = frame.message.lower()
    return next((trouble for words, trouble in AUTH_TEXTS if any(w in text for w in words)), Trouble.ANSWER)


class BybitAccount(Account):
    name = "bybit"
    private_ws_url = "wss://stream.bybit.com"

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        self._answers = msgspec.json.Decoder(_AccountAnswer)

    def balances_request(self, time_ms: int) -> RestRequest:
        query = "accountType=UNIFIED"
        key = self._credentials.key
        headers = (
            ("X-BAPI-API-KEY", key),
            ("X-BAPI-TIMESTAMP", str(time_ms)),
            ("X-BAPI-RECV-WINDOW", str(RECV_WINDOW_MS)),
            ("X-BAPI-SIGN", self.sign(f"{time_ms}{key}{RECV_WINDOW_MS}{query}")),
        )
        return RestRequest(f"/v5/account/wallet-balance?{query}", headers=headers, is_signed=True)

    def decode_balances(self, answer: RestAnswer) -> Rows[Balance]:
        try:
            body = self._answers.decode(answer.body)
        except UNDECODABLE:  # a proxy's page
            if answer.status == 404:  # the host's answer where there is no wallet of the requested kind
                raise AccountError(
                    Trouble.ACCOUNT, "bybit: no unified wallet (HTTP 404)", remedy=CLASSIC_REMEDY
                ) from None
            if answer.status != 200:
                raise self.refusal(answer, None, "none", "") from None
            raise DecodeError(f"{WALLET}: the answer is no JSON of the exchange's") from None
        if body.code != 0:
            text = body.message.partition("origin_string")[0]  # it goes on with what was signed
            if body.code == BAD_PARAMETER and any(word in text.lower() for word in CLASSIC):
                raise self.refusal(answer, Trouble.ACCOUNT, body.code, text, remedy=CLASSIC_REMEDY)
            raise self.refusal(answer, TROUBLES.get(body.code), body.code, text)
        try:
            wallets = msgspec.json.decode(body.result, type=_Wallets).list
        except UNDECODABLE as exc:
            raise DecodeError(f"{WALLET}: {exc}") from exc
        return balances(_balance, (coin for wallet in wallets for coin in wallet.coins), WALLET)

    def stream(self, ws_url: str, answer: RestAnswer | None) -> AccountStream:
        return _BybitStream(self, f"{ws_url}/v5/private", msgspec.json.Decoder(_AccountFrame))

    def authentication(self, time_ms: int) -> bytes:
        """Return the request that makes a private connection this account's."""
        expires_ms = time_ms + AUTH_MS
        signature = self.sign(f"GET/realtime{expires_ms}")
        return msgspec.json.encode({"op": "auth", "args": [self._credentials.key, expires_ms, signature]})

    def sign(self, text: str) -> str:
        """Return a signature."""
        return hmac.digest(self._credentials.secret.encode(), text.encode(), "sha256").hex()


class _BybitStream(AccountStream):
    _account: BybitAccount
    ping_interval_s = 20.0
    silence_s = 50.0  # two pongs missing

    def on_open(self, time_ms: int) -> Sequence[bytes]:
        return [self._account.authentication(time_ms)]

    def on_decoded(self, frame: _AccountFrame, time_ms: int) -> AccountUpdate:
        if frame.topic == "wallet":
            wallets = [wallet for wallet in frame.data or () if wallet.type == "UNIFIED"]
            return changes(_balance, (coin for wallet in wallets for coin in wallet.coins), WALLET)
        if frame.success is False:
            trouble = _auth_trouble(frame) if frame.op == "auth" else Trouble.ANSWER
            text = self._account.scrubbed(frame.message) or "no reason given"
            remedy = AUTH_REMEDY if trouble is Trouble.CLOCK else ""
            raise AccountError(
                trouble, f"bybit refuses the account's stream: {text} ({frame.op})", remedy=remedy
            )
        if frame.op == "auth":
            return AccountUpdate(send=(b'{"op":"subscribe","args":["wallet"]}',))
        if frame.op == "subscribe":
            self.is_live = True
        return NOTHING

    def ping(self, time_ms: int) -> bytes:
        return PING
