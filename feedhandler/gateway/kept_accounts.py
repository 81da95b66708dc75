"""The accounts of which the gateway has credentials: from the environment at the start, from the API later on.

They are in this process' memory and nowhere else.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

from feedhandler.accounts import ACCOUNTS
from feedhandler.accounts.adapter import Account, Credentials, CredentialsError
from feedhandler.accounts.balances import AccountStatus
from feedhandler.accounts.keeper import Keeper
from feedhandler.data.errors import ConfigError
from feedhandler.exchanges import EXCHANGES
from feedhandler.runtime.settings import Config
from feedhandler.transport.http import HttpClient, RestBudget
from feedhandler.transport.shared_budget import SharedBudget, path_of
from feedhandler.transport.tasks import Failures

PARTS: Final = {"key": "API_KEY", "secret": "API_SECRET", "passphrase": "PASSPHRASE"}  # of credentials


def credentials_of(environ: Mapping[str, str], exchange: str) -> Credentials | None:
    """Return an exchange's credentials, None if there are none. Raises ConfigError that names the variable."""
    if exchange not in ACCOUNTS:
        return None
    variables = {part: f"{exchange.upper()}_{name}" for part, name in PARTS.items()}
    if not ACCOUNTS[exchange].has_passphrase:
        del variables["passphrase"]
    values = {part: environ.get(variable, "") for part, variable in variables.items()}
    if not any(values.values()):
        return None
    if missing := [variables[part] for part, value in values.items() if not value]:
        there = [variables[part] for part, value in values.items() if value]
        raise ConfigError(f"{' and '.join(missing)}: not set, and {' and '.join(there)} is; set all, or none")
    try:
        credentials = Credentials(**values)
        ACCOUNTS[exchange](credentials)
    except CredentialsError as exc:
        raise ConfigError(f"{variables[exc.field]}: {exc}") from None
    return credentials


def unread(exchange: str) -> str:
    """Return that an exchange has no account side here, in words."""
    return f"accounts of {exchange} are not read by this version, which has those of {', '.join(ACCOUNTS)}"


class Accounts:
    """The accounts by exchange. on_change is called with an exchange whose account's status has changed."""

    def __init__(
        self, config: Config, on_change: Callable[[str], object], failures: Failures | None = None
    ) -> None:
        self._config = config
        self._failures = failures or Failures()
        self._on_change = on_change
        self._keepers: dict[str, tuple[Keeper, contextlib.AsyncExitStack]] = {}
        self._changing = asyncio.Lock()  # one change at a time
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Wait for ever. Raises what ended a task of an account: a bug, and it would be kept no more."""
        await self._failed

    def __contains__(self, exchange: str) -> bool:
        return exchange in self._keepers

    async def put(self, exchange: str, credentials: Credentials) -> None:
        """Keep an account from now on, with these credentials. Raises CredentialsError, with nothing changed."""
        if exchange not in ACCOUNTS:
            raise CredentialsError("exchange", unread(exchange))
        account = ACCOUNTS[exchange](credentials)
        async with self._changing:
            await self._end(exchange)
            await self._begin(exchange, account)
        self._on_change(exchange)

    async def _begin(self, exchange: str, account: Account) -> None:
        settings = self._config.exchange(exchange)
        protocol = EXCHANGES[exchange].main
        ws_url = self._config.private_ws_url(exchange)
        folder = self._config.run_dir if settings.origin else ""  # a simulator's is nobody else's concern
        stack = contextlib.AsyncExitStack()
        http = await stack.enter_async_context(
            HttpClient(
                self._config.private_rest_url(exchange), RestBudget(protocol.rest_limit), self._failures
            )
        )
        keeper = Keeper(
            account,
            http,
            ws_url,
            SharedBudget(
                path_of(exchange, ws_url or protocol.ws_url, folder, protocol.connect_budget),
                *protocol.connects,
            ),
            every_s=self._config.gateway.balances_every_s,
            on_change=lambda: self._on_change(exchange),
            failures=self._failures,
        )
        stack.push_async_callback(keeper.close)
        self._keepers[exchange] = keeper, stack
        for task in keeper.start():
            task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        exc = None if task.cancelled() else task.exception()
        if exc is not None and not self._failed.done():
            self._failed.set_exception(exc)

    async def remove(self, exchange: str) -> bool:
        """Keep it no more, and forget its credentials; returns whether there were any."""
        async with self._changing:
            was_there = await self._end(exchange)
        if was_there:
            self._on_change(exchange)
        return was_there

    async def _end(self, exchange: str) -> bool:
        if exchange not in self._keepers:
            return False
        _, stack = self._keepers.pop(exchange)
        await stack.aclose()
        return True

    def status(self, exchange: str) -> AccountStatus:
        """Return what is known of one; state `off` if there are no credentials."""
        if exchange in self._keepers:
            return self._keepers[exchange][0].status()
        return AccountStatus(exchange=exchange)

    def statuses(self) -> dict[str, AccountStatus]:
        """Return what is known of each configured exchange's account."""
        return {exchange: self.status(exchange) for exchange in self._config.exchanges}

    async def sync(self, exchange: str) -> AccountStatus:
        """Look at one now; whether that succeeded is in the status."""
        if exchange in self._keepers:
            await self._keepers[exchange][0].sync()
        return self.status(exchange)

    async def close(self) -> None:
        """End all, with proper closes of their sockets."""
        async with self._changing:
            await asyncio.gather(*(self._end(exchange) for exchange in list(self._keepers)))
