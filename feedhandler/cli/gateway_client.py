"""Requests to the gateway by its operator, and what it answers, printed."""

import contextlib
import getpass
import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import quote, urlencode

from msgspec import to_builtins
from rich.markup import escape
from rich.table import Table

from feedhandler.accounts import ACCOUNTS
from feedhandler.cli import view
from feedhandler.data import hints
from feedhandler.data.errors import EXIT_FAILED, EXIT_OK, ConfigError, FeedError
from feedhandler.data.processes import ALL_WELL, DEGRADED, DOWN, Verdict
from feedhandler.gateway.access import read_token, token_path
from feedhandler.gateway.kept_accounts import credentials_of, unread
from feedhandler.runtime.settings import API_TOKEN_ENV, Config

TIMEOUT_S: Final = 40.0  # a look at an account may wait its turn
ANSWER_SIZE_MAX: Final = 64 << 20
WILDCARDS: Final = ("0.0.0.0", "::")
LISTED_MAX: Final = 1000  # instruments


class GatewayClient:
    """The gateway of a configuration, as its operator on this machine uses it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._url = config.gateway.url.rstrip("/")
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def ask(self, method: str, path: str, body: object = None, *, needs_token: bool = True) -> Any:
        """Return the decoded answer, None if it has none. Raises FeedError with what to do."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, self._headers(needs_token), method=method)
        try:
            with self._open(request, timeout=TIMEOUT_S) as answer:
                text = answer.read(ANSWER_SIZE_MAX)
            return json.loads(text) if text else None
        except urllib.error.HTTPError as exc:
            raise FeedError(f"the gateway answers {exc.code}: {_detail(exc)}") from None
        except (OSError, http.client.HTTPException, ValueError) as exc:
            reason = getattr(exc, "reason", exc)
            raise FeedError(
                f"no gateway answers at {self._url}: {reason or type(exc).__name__}; is it running?"
                " (`feedhandler run` starts it; -c FILE names another place)"
            ) from None

    def _headers(self, needs_token: bool) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        gateway = self._config.gateway
        if gateway.address[0] in WILDCARDS:
            headers["Host"] = gateway.hosts[0]  # the address that we use is none of its names
        token = os.environ.get(API_TOKEN_ENV) or read_token(self._config.run_dir)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        elif needs_token:
            raise FeedError(
                f"no token: {token_path(self._config.run_dir)} cannot be read, and {API_TOKEN_ENV} is not set;"
                " the gateway makes the file when it first runs, for its own user alone"
            )
        return headers


def _detail(exc: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(exc.read(ANSWER_SIZE_MAX))["detail"])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return f"{exc.reason}; is it the gateway that listens there?"


# --- accounts


def _accounts(config: Config, exchange: str | None, *, is_sync: bool) -> dict[str, Any]:
    gateway = GatewayClient(config)
    query = f"?{urlencode({'exchange': exchange})}" if exchange else ""
    answer = (
        gateway.ask("POST", f"/v1/balances/sync{query}") if is_sync else gateway.ask("GET", "/v1/balances")
    )
    return {name: each for name, each in answer["accounts"].items() if exchange in (None, name)}


def balances(config: Config, exchange: str | None, *, is_sync: bool, is_json: bool) -> int:
    """Print what accounts hold; is_sync: look at them first. Raises FeedError."""
    if exchange is not None:
        config.exchange(exchange)
    accounts = _accounts(config, exchange, is_sync=is_sync)
    if is_json:
        return _print_json({"accounts": accounts})
    table = _table("exchange", "asset", "free", "locked", "total")
    for name, account in accounts.items():
        for row in account["balances"]:
            table.add_row(name, row["asset"], row["free"], row["locked"], row["total"])
    if table.row_count:
        view.show(table)
    for name, account in accounts.items():
        print(hints.spelled(f"{name}: {_account_text(account)}"))
    return EXIT_FAILED if any(account["state"] == "failed" for account in accounts.values()) else EXIT_OK


def check_balances(config: Config, exchange: str | None, *, is_sync: bool, is_json: bool) -> int:
    """Say in one line whether accounts are known and followed; returns the status of `Verdict`."""
    if exchange is not None:
        config.exchange(exchange)
    try:
        accounts = _accounts(config, exchange, is_sync=is_sync)
    except FeedError as exc:
        accounts, condition = {}, Verdict.of([(DOWN, str(exc))])
    else:
        condition = Verdict.of(
            (status, f"{name}: {_account_text(account)}")
            for name, account in accounts.items()
            if (status := _account_condition(account)) != ALL_WELL
        )
    count = sum(account["state"] != "off" for account in accounts.values())
    with contextlib.suppress(BrokenPipeError):  # the status counts, whoever reads the words
        if is_json:
            _print_json({"accounts": accounts, "condition": to_builtins(condition)})
        else:
            print(condition.text(f"{count} accounts followed"))
    return condition.status


def _account_condition(account: Mapping[str, Any]) -> int:
    if account["state"] == "off":  # nobody gave credentials, or the exchange has no accounts here
        return ALL_WELL
    if account["state"] == "failed":
        return DOWN
    is_well = account["state"] == account["stream"] == "live" and not account["incomplete"]
    return ALL_WELL if is_well else DEGRADED


def _account_text(account: Mapping[str, Any]) -> str:
    if account["exchange"] not in ACCOUNTS:
        return unread(account["exchange"])
    if account["state"] == "off":
        return f"no credentials; `feedhandler credentials set {account['exchange']}` gives them"
    error = account["error"] or account["incomplete"]
    trouble = f": {error['message']}; {error['remedy']}" if error else ""
    return f"{account['state']}, private stream {account['stream']}{trouble}"


def set_credentials(config: Config, exchange: str) -> int:
    """Give the gateway an account's credentials: of the environment, else typed or piped. Raises FeedError."""
    config.exchange(exchange)
    if exchange not in ACCOUNTS:
        raise ConfigError(unread(exchange))
    gateway = GatewayClient(config)
    given = credentials_of(os.environ, exchange)
    if given is not None:
        body = {"key": given.key, "secret": given.secret, "passphrase": given.passphrase}
    else:
        body = _asked_credentials(ACCOUNTS[exchange].has_passphrase)
    gateway.ask("PUT", f"/v1/exchanges/{exchange}/credentials", body)
    text = "taken; they are in the gateway's memory alone"
    print(hints.spelled(f"{exchange}: {text}. `feedhandler balances {exchange}` tells if they work"))
    return EXIT_OK


def _asked_credentials(has_passphrase: bool) -> dict[str, str]:
    """Ask for the parts, or read them: the key is the first line, the passphrase the last."""
    if sys.stdin.isatty():
        try:
            typed = {"key": input("key: ").strip(), "secret": getpass.getpass("secret: ")}
            return typed | ({"passphrase": getpass.getpass("passphrase: ")} if has_passphrase else {})
        except EOFError:
            raise ConfigError("credentials: nothing was entered, and nothing was changed") from None
    lines = sys.stdin.read().splitlines()
    if len(lines) < (3 if has_passphrase else 2):
        raise ConfigError(
            "credentials: standard input must have the key in its first line, then the secret"
            + (", and the passphrase in its last line" if has_passphrase else "")
            + "; or set the variables that docs/configuration.md names"
        )
    body = {"key": lines[0].strip()}
    if has_passphrase:
        body["passphrase"] = lines.pop()
    return body | {"secret": "\n".join(lines[1:]).strip()}


def remove_credentials(config: Config, exchange: str) -> int:
    """Let the gateway forget an account's credentials. Raises FeedError."""
    config.exchange(exchange)
    GatewayClient(config).ask("DELETE", f"/v1/exchanges/{exchange}/credentials")
    print(f"{exchange}: forgotten; market data go on")
    return EXIT_OK


# --- positions


def positions(config: Config, exchange: str | None, *, is_json: bool) -> int:
    """Print what is held, by accounts and elsewhere, and what is watched because of it. Raises FeedError."""
    names = list(config.exchanges) if exchange is None else [exchange]
    for name in names:
        config.exchange(name)
    answer = GatewayClient(config).ask("GET", "/v1/positions")
    answer["positions"] = [row for row in answer["positions"] if row["exchange"] in names]
    for by_exchange in (answer["symbols"], answer["unpaired"]):
        for name in set(by_exchange) - set(names):
            del by_exchange[name]
    if is_json:
        return _print_json(answer)
    table = _table("exchange", "asset", "amount", "known from")
    for row in answer["positions"]:
        table.add_row(row["exchange"], row["asset"], row["amount"], row["source"])
    if table.row_count:
        view.show(table)
    for name in names:
        print(f"{name}: watched because of them: {', '.join(answer['symbols'].get(name, ())) or 'nothing'}")
        reasons: dict[str, list[str]] = {}
        for asset, reason in answer["unpaired"].get(name, {}).items():
            reasons.setdefault(reason, []).append(asset)
        for reason, assets in reasons.items():
            print(f"{name}: held, and not watched: {', '.join(assets)} ({reason})")
    return EXIT_OK


def set_positions(config: Config, exchange: str, amounts: Sequence[str], *, is_json: bool) -> int:
    """Say what is held besides accounts, as `ASSET=AMOUNT`; 0 ends one, others stay. Raises FeedError.

    An asset may be a contract's symbol.
    """
    config.exchange(exchange)
    changes = dict(_amount(text) for text in amounts)
    gateway = GatewayClient(config)
    rows = [row for row in gateway.ask("GET", "/v1/positions")["positions"] if row["source"] == "api"]
    kept = [row for row in rows if row["exchange"] != exchange or row["asset"] not in changes]
    body = [{name: row[name] for name in ("exchange", "asset", "amount")} for row in kept]
    body += [{"exchange": exchange, "asset": a, "amount": n} for a, n in changes.items() if Decimal(n)]
    gateway.ask("PUT", "/v1/positions", {"positions": body})
    return positions(config, exchange, is_json=is_json)


def _amount(text: str) -> tuple[str, str]:
    asset, _, number = text.partition("=")
    try:
        amount = Decimal(number)
    except InvalidOperation:
        amount = Decimal("nan")
    if not asset or not amount.is_finite():
        raise ConfigError(
            f"positions: {text!r} is not ASSET=AMOUNT; write it like BTC=0.5, or BTC=0 to end it"
        )
    return asset, f"{amount:f}"


# --- what is listed and wanted


def subscriptions(config: Config, exchange: str | None, *, is_json: bool) -> int:
    """Print what is wanted, by whom, and what of it was rejected. Raises FeedError."""
    if exchange is not None:
        config.exchange(exchange)
    query = f"?{urlencode({'exchange': exchange})}" if exchange else ""
    answer = GatewayClient(config).ask("GET", f"/v1/subscriptions{query}", needs_token=False)
    if is_json:
        return _print_json(answer)
    table = _table("exchange", "symbol", "kind", "wanted by", "")
    for name, row in answer["exchanges"].items():
        for symbol, kind in _pairs(row["wanted"]):
            owners = [owner for owner, own in row["requested"].items() if kind in own.get(symbol, ())]
            is_excluded = kind in row["excluded"].get(symbol, ())
            is_configured = symbol in row["configured"] and kind in row["kinds"] and not is_excluded
            by = [*(["configuration"] if is_configured else []), *owners]
            reason = row["rejected"].get(symbol, {}).get(kind)
            text = escape(f"rejected: {reason}") if reason else ""
            table.add_row(name, symbol, kind, ", ".join(by) or "default", text)
        for symbol, kind in _pairs(row["excluded"]):
            table.add_row(name, symbol, kind, "", "configured, and left out by hand")
    view.show(table)
    return EXIT_OK


def _pairs(kinds: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(symbol, kind) for symbol, each in kinds.items() for kind in each]


def instruments(config: Config, exchange: str, search: str, *, is_json: bool) -> int:
    """Print what an exchange lists. Raises FeedError."""
    config.exchange(exchange)
    query = urlencode({"exchange": exchange, "search": search, "limit": LISTED_MAX}, quote_via=quote)
    answer = GatewayClient(config).ask("GET", f"/v1/instruments?{query}", needs_token=False)
    if is_json:
        return _print_json(answer)
    table = _table("symbol", f"at {exchange}", "")
    for row in answer["instruments"]:
        status = f", {row['status']}" if row["status"] else ""
        table.add_row(
            row["symbol"], row["native"], row["note"] if row["is_trading"] else f"not trading{status}"
        )
    if not answer["instruments"]:
        print(f"feedhandler: {exchange} lists nothing with {search!r} in it", file=sys.stderr)
        return EXIT_FAILED
    view.show(table)
    if (more := answer["count"] - len(answer["instruments"])) > 0:
        print(f"… and {more} more; search for less")
    return EXIT_OK


def token(config: Config) -> int:
    """Print where the token is, not the token: terminals are recorded. Returns 1 if it cannot be read."""
    if os.environ.get(API_TOKEN_ENV):
        print(f"in the environment: {API_TOKEN_ENV}")
        return EXIT_OK
    print(token_path(config.run_dir))
    if read_token(config.run_dir) is not None:
        return EXIT_OK
    print(
        "feedhandler: it cannot be read, or others could: the gateway makes it when it runs, for its own user",
        file=sys.stderr,
    )
    return EXIT_FAILED


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(
            name, no_wrap=True, justify="right" if name in ("free", "locked", "total") else "left"
        )
    return table


def _print_json(answer: object) -> int:
    print(json.dumps(answer, indent=2, ensure_ascii=False))
    return EXIT_OK
