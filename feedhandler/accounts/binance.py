"""An account at Binance.

`/api/v3/account`, signed with HMAC or Ed25519 over the query as it is sent; its changes come over the
WebSocket API, where the same is signed sorted and unencoded. There is no first state, `outboundAccountPosition` has
the assets that may have changed, and `balanceUpdate` states a difference only.

Source: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams and rest-api,
as of 2026-11. Frames: tests/frames/binance/
"""

import base64
import hmac
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from feedhandler.accounts.adapter import (
    NOTHING,
    Account,
    AccountStream,
    AccountUpdate,
    Balance,
    Credentials,
    CredentialsError,
    Trouble,
    amount,
    balances,
    changes,
)
from feedhandler.data.errors import UNDECODABLE, ProtocolError
from feedhandler.data.rest import RestAnswer, RestRequest
from feedhandler.exchanges.base import Rows, decode_rest

RECV_WINDOW_MS: Final = 5000
PEM: Final = "-----BEGIN"
SUBSCRIBE_ID: Final = "account"
SAVINGS: Final = (
    "LD"  # before the asset: lent by Simple Earn, and paid out in the asset on demand. LDO is none
)
ACCOUNT: Final = "binance account"  # in messages
TROUBLES: Final = {
    -1002: Trouble.KEY,
    -1003: Trouble.RATE_LIMIT,
    -1007: Trouble.MAINTENANCE,
    -1008: Trouble.MAINTENANCE,
    -1016: Trouble.MAINTENANCE,
    -1021: Trouble.CLOCK,
    -1022: Trouble.KEY,  # the signature: a wrong secret
    -1034: Trouble.RATE_LIMIT,
    -2008: Trouble.KEY,
    -2014: Trouble.KEY,
    -2015: Trouble.KEY,  # or permission, or address: the text names all three, and nothing tells them apart
}


class _Holding(msgspec.Struct):
    asset: str
    free: str
    locked: str


class _Holdings(msgspec.Struct):
    balances: list[msgspec.Raw]  # each a _Holding


class _Refusal(msgspec.Struct):
    code: int = 0
    msg: str = ""


class _Position(msgspec.Struct):
    asset: str = msgspec.field(name="a")
    free: str = msgspec.field(name="f")
    locked: str = msgspec.field(name="l")


class _AccountEvent(msgspec.Struct):
    event: str = msgspec.field(name="e")
    positions: list[msgspec.Raw] | None = msgspec.field(name="B", default=None)  # each a _Position


class _AccountMessage(msgspec.Struct):
    """An answer to a request, or an event."""

    id: str | int | None = None
    status: int = 0
    error: _Refusal | None = None
    event: _AccountEvent | None = None


class BinanceAccount(Account):
    name = "binance"
    private_ws_url = "wss://ws-api.binance.com:443"

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        self._sign = _signer(credentials.secret)
        self._holdings = msgspec.json.Decoder(_Holdings)

    def balances_request(self, time_ms: int) -> RestRequest:
        query = f"omitZeroBalances=true&recvWindow={RECV_WINDOW_MS}&timestamp={time_ms}"
        signature = quote(self._sign(query), safe="")
        headers = (("X-MBX-APIKEY", self._credentials.key),)
        path = f"/api/v3/account?{query}&signature={signature}"
        return RestRequest(path, weight=20, headers=headers, is_signed=True)

    def decode_balances(self, answer: RestAnswer) -> Rows[Balance]:
        if answer.status != 200:
            try:
                refusal = msgspec.json.decode(answer.body, type=_Refusal)
            except UNDECODABLE:  # a proxy's page
                refusal = _Refusal()
            raise self.refusal(answer, TROUBLES.get(refusal.code), refusal.code, refusal.msg)
        rows = decode_rest(self._holdings, answer.body, ACCOUNT).balances
        return balances(_holding, rows, ACCOUNT)

    @classmethod
    def underlying(cls, asset: str) -> str:
        return asset.removeprefix(SAVINGS) if asset.startswith(SAVINGS) else ""

    def stream(self, ws_url: str, answer: RestAnswer | None) -> AccountStream:
        return _BinanceStream(self, f"{ws_url}/ws-api/v3", msgspec.json.Decoder(_AccountMessage))

    def subscription(self, time_ms: int) -> bytes:
        """Return the request for the account's events: its parameters are signed sorted, and as they are."""
        parameters: dict[str, str | int] = {
            "apiKey": self._credentials.key,
            "recvWindow": RECV_WINDOW_MS,
            "timestamp": time_ms,
        }
        parameters["signature"] = self._sign(
            "&".join(f"{name}={parameters[name]}" for name in sorted(parameters))
        )
        request = {"id": SUBSCRIBE_ID, "method": "userDataStream.subscribe.signature", "params": parameters}
        return msgspec.json.encode(request)


class _BinanceStream(AccountStream):
    _account: BinanceAccount

    def on_open(self, time_ms: int) -> Sequence[bytes]:
        return [self._account.subscription(time_ms)]

    def on_decoded(self, message: _AccountMessage, time_ms: int) -> AccountUpdate:
        if message.event is not None:
            return self._on_event(message.event)
        if message.error is not None:
            code, text = message.error.code, message.error.msg
            raise self._account.refusal(RestAnswer(message.status, b""), TROUBLES.get(code), code, text)
        if message.id == SUBSCRIBE_ID and message.status == 200:
            self.is_live = True
        return NOTHING

    def _on_event(self, event: _AccountEvent) -> AccountUpdate:
        if event.event == "outboundAccountPosition":
            return changes(_position, event.positions or (), ACCOUNT)
        if event.event in ("balanceUpdate", "externalLockUpdate"):
            return AccountUpdate(is_incomplete=True)
        if event.event in ("eventStreamTerminated", "serverShutdown"):
            raise ProtocolError(f"binance ends the account's events: {event.event}")
        return NOTHING  # orders, which are not our business


def _holding(row: msgspec.Raw) -> Balance:
    held = msgspec.json.decode(row, type=_Holding)
    return Balance(held.asset, amount(held.free, ACCOUNT), amount(held.locked, ACCOUNT))


def _position(row: msgspec.Raw) -> Balance:
    position = msgspec.json.decode(row, type=_Position)
    return Balance(position.asset, amount(position.free, ACCOUNT), amount(position.locked, ACCOUNT))


def _signer(secret: str) -> Callable[[str], str]:
    """Return what signs: Ed25519 where the secret is a private key, HMAC elsewhere. Raises CredentialsError."""
    if PEM not in secret:
        return lambda text: hmac.digest(secret.encode(), text.encode(), "sha256").hex()
    # Feeds import this file too, and need none of it.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(secret.replace("\\n", "\n").encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CredentialsError("secret", "is no private key in PEM without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise CredentialsError("secret", "is no Ed25519 key; make one of that kind, or an HMAC key")
    return lambda text: base64.b64encode(key.sign(text.encode())).decode()
