"""KuCoin spot, simulated: the account, signed REST and what `/account/balance` pushes.

Pure, as the rest. The session itself is the public one's, begun with a token of another kind.

Sources:
  signing    https://www.kucoin.com/docs-new/authentication
  accounts   https://www.kucoin.com/docs-new/rest/account-info/account-funding/get-account-list-spot
  balance    https://www.kucoin.com/docs-new/3470075w0
  mode       https://www.kucoin.com/docs-new/rest/ua/get-account-mode
  errors     https://www.kucoin.com/docs-new/error-code/rest
Not in the documentation: the order in which faults are looked for; HTTP status 401 is what clients report.
Not played: orders, transfers between wallets; of the unified account no more than that it is one.
"""

from urllib.parse import unquote

import msgspec

from feedhandler.sim import credentials
from feedhandler.sim.account import Account, BalanceChange, Update, plain
from feedhandler.sim.protocol import NS_PER_MS, UNIFIED, HttpRequest, Now, Refusal, to_json

BALANCE_TOPIC = "/account/balance"
DECIMALS = 12
USER_ID = "67402d3b9be1c70001f3a5d8"
TIMESTAMP_WITHIN_MS = 5000
KEY_VERSIONS = ("2", "3")  # with either the passphrase is sent as a HMAC, in version 1 as it is
_HEADERS = ("KC-API-KEY", "KC-API-SIGN", "KC-API-TIMESTAMP", "KC-API-PASSPHRASE")
_FIRST_ACCOUNT_ID = 618_204_700_000
_FIRST_EVENT_ID = 402_118_530_000_000
# How `relationEvent` names what happened, after the wallet.
_RELATIONS = {"transfer": "transfer", "hold": "hold", "trade": "setted"}
_BAD_KEY = Refusal("400003", "KC-API-KEY not exists", 401)
_OLD_KEY = Refusal("400008", "V1 & V2 API keys are no longer supported", 401)
_BAD_TIME = Refusal("400002", "Invalid KC-API-TIMESTAMP", 401)
_ON_COMMAND = {
    "key": _BAD_KEY,
    "permission": Refusal("400007", "Access denied, require more permission.", 403),
    "address": Refusal("400006", "The requested ip address is not in the api whitelist", 401),
    "expired": _OLD_KEY,
    "maintenance": Refusal("503000", "Service unavailable", 503),
}


class KucoinPrivate:
    """The account's wallets, and the key to them."""

    def __init__(self) -> None:
        self.accounts = {wallet: Account(wallet, DECIMALS) for wallet in ("trade", "trade_hf", "main")}
        self.key_refusal = ""
        self._ids: dict[tuple[str, str], str] = {}

    def refusal(self, request: HttpRequest, now: Now) -> Refusal | None:
        """Say what is wrong with a signed request; None if nothing is."""
        if self.key_refusal and not self.is_unified:
            return msgspec.structs.replace(_ON_COMMAND[self.key_refusal], blame="command")
        key, sign, timestamp, passphrase = (request.headers.get(name, "") for name in _HEADERS)
        if not (key and sign and timestamp and passphrase):
            return Refusal(
                "400001", f"Please check the header of your request for {', '.join(_HEADERS)}", 401
            )
        if key != credentials.KUCOIN.key:
            return _BAD_KEY
        if request.headers.get("KC-API-KEY-VERSION", "1") not in KEY_VERSIONS:
            return _OLD_KEY
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 20):
            return _BAD_TIME
        if abs(int(timestamp) - now.unix_ms) > TIMESTAMP_WITHIN_MS:
            return msgspec.structs.replace(_BAD_TIME, blame="clock")
        return _bad_signature(request, sign, timestamp, passphrase)

    @property
    def is_unified(self) -> bool:
        """A fault: the account is a unified one."""
        return self.key_refusal == UNIFIED

    def print_mode(self) -> dict[str, object]:
        """Print which kind of account this is."""
        mode = "UNIFIED" if self.is_unified else "CLASSIC"
        return {"selfAccountMode": mode, "unifiedSubAccount": [], "classicSubAccount": []}

    def print_accounts(self, wallet: str | None, currency: str | None) -> list[dict[str, object]] | None:
        """Print the accounts, one per wallet and currency; None for a wallet that there is not."""
        if wallet not in (None, "option", *self.accounts):
            return None
        if self.is_unified:
            return []
        return [
            {
                "id": self._account_id(account.wallet, asset),
                "currency": asset,
                "type": account.wallet,
                "balance": plain(balance.total),
                "available": plain(balance.available),
                "holds": plain(balance.held),
            }
            for account in self.accounts.values()
            if wallet in (None, account.wallet)
            for asset, balance in account.balances.items()
            if currency in (None, asset)
        ]

    def print_events(self, update: Update) -> list[bytes]:
        """Print one push per currency that changed."""
        return [self._event(update, change, index) for index, change in enumerate(update.changes)]

    def _event(self, update: Update, change: BalanceChange, index: int) -> bytes:
        place = 100 * list(self.accounts).index(update.wallet) + index  # wallets count on their own
        event_id = str(_FIRST_EVENT_ID + 1000 * update.number + place)
        data = {
            "accountId": self._account_id(update.wallet, change.asset),
            "currency": change.asset,
            "total": plain(change.total),
            "available": plain(change.available),
            "hold": plain(change.held),
            "availableChange": plain(change.available_change),
            "holdChange": plain(change.held_change),
            "relationContext": _context(update, event_id),
            "relationEvent": f"{update.wallet}.{_RELATIONS[update.reason]}",
            "relationEventId": event_id,
            "time": str(update.unix_ns // NS_PER_MS),
        }
        return to_json(
            {
                "topic": BALANCE_TOPIC,
                "type": "message",
                "subject": "account.balance",
                "id": event_id,
                "userId": USER_ID,
                "channelType": "private",
                "data": data,
            }
        )

    def _account_id(self, wallet: str, asset: str) -> str:
        """Name an account; bounded, as assets are."""
        return self._ids.setdefault((wallet, asset), str(_FIRST_ACCOUNT_ID + len(self._ids)))


def _context(update: Update, event_id: str) -> dict[str, object]:
    """Name the order of a trade; other changes have none here."""
    if update.reason != "trade":
        return {}
    base, quote = (change.asset for change in update.changes)
    return {"symbol": f"{base}-{quote}", "orderId": f"{int(event_id[:-3]):024x}"}


def _bad_signature(request: HttpRequest, sign: str, timestamp: str, passphrase: str) -> Refusal | None:
    secret = credentials.KUCOIN.secret
    if not credentials.is_same(passphrase, credentials.hmac_base64(secret, credentials.KUCOIN.passphrase)):
        return Refusal("400004", "Invalid KC-API-PASSPHRASE", 401)
    # What is signed is the address before it was percent-encoded.
    query = f"?{unquote(request.raw_query)}" if request.raw_query else ""
    body = request.body.decode(errors="replace")
    text = f"{timestamp}{request.method}{request.path}{query}{body}"
    if not credentials.is_same(sign, credentials.hmac_base64(secret, text)):
        return Refusal("400005", "Invalid KC-API-SIGN", 401)
    return None
