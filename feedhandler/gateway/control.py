"""What is wanted of each exchange, as the gateway's users and their holdings have it; feeds follow the files.

Owners are kept apart: what accounts hold, what is stated to be held elsewhere, and each user of the API. What
cannot be read any more stays wanted: an error is no sale, and neither is a restart without credentials.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from feedhandler.accounts import ACCOUNTS
from feedhandler.accounts.adapter import amount
from feedhandler.accounts.positions import Dust, Watched, by_code, by_name, folded, held, is_contract, watched
from feedhandler.data.errors import ConfigError, DecodeError, SubscriptionRejected
from feedhandler.data.instruments import InstrumentTable
from feedhandler.data.wanted import DEFAULT_KINDS, HOLDINGS, OPERATOR, POSITIONS, Wanted, spelled
from feedhandler.gateway.kept_accounts import Accounts
from feedhandler.gateway.market_data import MarketData
from feedhandler.runtime.checks import check_kinds, check_symbol, is_lower_case, refusals
from feedhandler.runtime.settings import Config
from feedhandler.transport.files import (
    POSITIONS_REMEDY,
    Stamp,
    change_wanted,
    read_instruments,
    read_positions,
    read_wanted,
    wanted_stamp,
    write_positions,
)

OWNERS_MAX: Final = 100  # of one exchange
OWNER_SIZE_MAX: Final = 64
SYMBOLS_MAX: Final = 5_000  # of one owner and exchange
POSITIONS_MAX: Final = 5_000
LATER_S: Final = 5.0  # between two tries to write what could not be written

log = logging.getLogger(__name__)


class Position(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So much of an asset is held at an exchange, or because of it, in units of the asset.

    asset may be the symbol of a contract: so much of its base asset, below 0 if it is short.
    """

    exchange: str
    asset: str
    amount: Decimal


class SubscriptionRow(msgspec.Struct, kw_only=True):
    """What is wanted of one exchange, and why, as kinds of records by symbol; rejected as its feeds report.

    kinds are those that the configuration wants of each of its symbols.
    """

    configured: list[str]
    kinds: list[str]
    excluded: dict[str, list[str]]
    requested: dict[str, dict[str, list[str]]]
    wanted: dict[str, list[str]]
    rejected: dict[str, dict[str, str]] = {}


class SubscribedRow(SubscriptionRow, kw_only=True):
    """The same after a request; refused: what of it cannot be had, and why. The rest is wanted."""

    refused: dict[str, str] = {}


class ControlPlane:
    """The control plane. Files are written in a thread: a disk that is slow holds up nobody else."""

    def __init__(self, config: Config, market_data: MarketData, accounts: Accounts) -> None:
        self._config = config
        self._market_data = market_data
        self._accounts = accounts
        self._dust = Dust(config.gateway.dust, config.gateway.dust_of)
        self._due: set[str] = set()  # exchanges whose holdings are to be looked at
        self._wake = asyncio.Event()
        self._kept: dict[str, InstrumentTable] = {}  # lists that feeds have kept on disk
        self._held: dict[tuple[str, str], list[str]] = {}  # assets, by exchange and owner
        self._connects: dict[str, tuple[Stamp | None, bool]] = {}  # as of a file: whether to connect
        self._placing = asyncio.Lock()  # one caller's positions at a time,
        # and one look at a time at what is held: an older one that is held up is not to undo a newer one.
        self._watching = {exchange: asyncio.Lock() for exchange in config.exchanges}
        self.watched: dict[str, Watched] = {}
        self.positions: list[Position] = []
        self._is_placed = True  # they are known; while they cannot be read, what they led to stays wanted
        self._read_positions()

    # --- subscriptions

    async def row(self, exchange: str) -> SubscriptionRow:
        """Return what is wanted of an exchange. Raises ConfigError."""
        self._config.exchange(exchange)
        return self._row(exchange, await asyncio.to_thread(read_wanted, self._config.run_dir, exchange))

    def _row(self, exchange: str, wanted: Wanted) -> SubscriptionRow:
        configured = self._config.exchange(exchange).configured
        status = self._market_data.statuses.get(exchange)
        return SubscriptionRow(
            configured=list(configured.symbols),
            kinds=list(configured.kinds),
            excluded=wanted.excluded,
            requested=wanted.requested,
            wanted=wanted.kinds(configured),
            rejected=dict(status.feed.rejected) if status and status.feed else {},
        )

    async def subscribe(
        self,
        exchange: str,
        symbols: Sequence[str],
        owner: str,
        *,
        is_unlisted: bool,
        kinds: Sequence[str] = DEFAULT_KINDS,
    ) -> SubscribedRow:
        """Want symbols for an owner, as many of them as can be had, each in all of these kinds.

        Raises ConfigError or SubscriptionRejected, with nothing changed, if none can.
        """
        settings = self._config.exchange(exchange)
        check_owner(owner)
        check_kinds(exchange, kinds, "kinds")
        table = None if is_unlisted else await self._table(exchange)
        refused = refusals(exchange, symbols, table, "symbols")
        taken = [symbol for symbol in symbols if symbol not in refused]
        if not taken:
            raise next(iter(refused.values()))

        def change(wanted: Wanted) -> None:
            if owner not in wanted.requested and len(wanted.requested) >= OWNERS_MAX:
                raise ConfigError(
                    f"owner: there are {OWNERS_MAX} already; take back what one of them wants first"
                )
            wanted.subscribe(taken, settings.configured, owner, kinds)
            if len(wanted.requested.get(owner, ())) > SYMBOLS_MAX:
                raise ConfigError(f"symbols: {owner} would want more than {SYMBOLS_MAX} of {exchange}")

        row = self._row(exchange, await self._change(exchange, change))
        reasons = {symbol: str(exc) for symbol, exc in refused.items()}
        return SubscribedRow(**msgspec.structs.asdict(row), refused=reasons)

    async def unsubscribe(
        self, exchange: str, symbol: str, owner: str, kind: str = DEFAULT_KINDS[0]
    ) -> SubscriptionRow:
        """Want a kind of a symbol no more, as far as an owner is concerned.

        Raises ConfigError, SubscriptionRejected.
        """
        settings = self._config.exchange(exchange)
        check_owner(owner)
        check_symbol(exchange, symbol, "symbol")
        present = await self.row(exchange)
        is_own = kind in present.requested.get(owner, {}).get(symbol, ())
        if not is_own and not (owner == OPERATOR and kind in present.wanted.get(symbol, ())):
            check_kinds(exchange, [kind], "kind")
            raise SubscriptionRejected(f"{owner} does not want {spelled(symbol, [kind])} of {exchange}")
        return self._row(
            exchange,
            await self._change(
                exchange, lambda wanted: wanted.unsubscribe([symbol], settings.configured, owner, [kind])
            ),
        )

    async def connect(self, exchange: str, is_wanted: bool) -> None:
        """Want an exchange to be connected to, or not. Raises ConfigError."""
        self._config.exchange(exchange)

        def change(wanted: Wanted) -> None:
            wanted.connect = is_wanted

        await self._change(exchange, change)
        log.info("%s: to be %s by order", exchange, "connected" if is_wanted else "disconnected")

    def is_connected(self, exchange: str) -> bool:
        """Return whether an exchange is to be connected to, as its file has it, whoever has changed it.

        A file that cannot be understood changes nothing: feeds see it so, too. Raises ConfigError.
        """
        stamp = wanted_stamp(self._config.run_dir, exchange)
        if exchange not in self._connects or self._connects[exchange][0] != stamp:
            configured = self._config.exchange(exchange).connect
            _, before = self._connects.get(exchange, (None, configured))
            try:
                before = read_wanted(self._config.run_dir, exchange).is_connected(configured)
            except ConfigError as exc:
                log.error("%s: whether to connect stays as it was: %s", exchange, exc)
            self._connects[exchange] = stamp, before
        return self._connects[exchange][1]

    async def _change(self, exchange: str, change: Callable[[Wanted], None]) -> Wanted:
        return await asyncio.to_thread(change_wanted, self._config.run_dir, exchange, change)

    async def _table(self, exchange: str) -> InstrumentTable | None:
        """Return the exchange's instruments: as its feed publishes them, else as one has kept them."""
        if exchange in self._market_data.tables:
            return self._market_data.tables[exchange]
        if exchange not in self._kept:
            listing = await asyncio.to_thread(
                read_instruments, self._config.run_dir, self._config.rest_url(exchange), exchange
            )
            if listing is None:
                return None
            self._kept[exchange] = listing.table()
        return self._kept[exchange]

    # --- holdings

    def _read_positions(self) -> None:
        """Take the positions that were kept, as critically as those of a caller: anybody may have written them."""
        try:
            kept = read_positions(self._config.run_dir, list[Position]) or []
            if len(kept) > POSITIONS_MAX:
                raise ConfigError(f"positions: at most {POSITIONS_MAX}; {POSITIONS_REMEDY}")
            for index, position in enumerate(kept):
                if position.exchange in self._config.exchanges:  # one that is not may come back
                    _check_position(self._config, position, f"positions.json: [{index}]")
        except ConfigError as exc:
            self._is_placed = False
            log.error("positions are not known, what they led to stays wanted: %s", exc)
        else:
            self.positions = [each for each in kept if each.exchange in self._config.exchanges]

    async def replace_positions(self, positions: Sequence[Position]) -> None:
        """Take what is held elsewhere; it is remembered over restarts. Raises ConfigError, with nothing changed."""
        if len(positions) > POSITIONS_MAX:
            raise ConfigError(f"positions: at most {POSITIONS_MAX}")
        for index, position in enumerate(positions):
            _check_position(self._config, position, f"positions[{index}]")
        async with self._placing:
            await asyncio.to_thread(write_positions, self._config.run_dir, positions)
            self.positions, self._is_placed = list(positions), True
        await asyncio.gather(*(self._watch(exchange) for exchange in self._config.exchanges))

    async def release(self, exchange: str) -> None:
        """Want no more what the account holds: its credentials were taken back. Raises ConfigError."""
        async with self._watching[exchange]:
            self._held.pop((exchange, HOLDINGS), None)
            await self._change(exchange, lambda wanted: wanted.replace(HOLDINGS, []))
        await self._watch(exchange)

    def touch(self, exchange: str) -> None:
        """Holdings or instruments of an exchange may be different now."""
        self._due.add(exchange)
        self._wake.set()

    async def run(self) -> None:
        """Let what is wanted follow what is held; for ever."""
        self._due.update(self._config.exchanges)
        while True:
            due, self._due = self._due, set()
            self._wake.clear()
            for exchange in due:
                try:
                    await self._watch(exchange)
                except ConfigError as exc:
                    log.error("%s: what is held is not followed: %s", exchange, exc)
                    asyncio.get_running_loop().call_later(LATER_S, self.touch, exchange)
            await self._wake.wait()

    async def _watch(self, exchange: str) -> None:
        """Want what is held of one exchange, if that has changed."""
        async with self._watching[exchange]:
            await self._watch_alone(exchange)

    async def _watch_alone(self, exchange: str) -> None:
        table = await self._table(exchange)
        if table is None:
            return  # `touch` comes again with the list
        symbols: dict[str, list[str]] = {}
        unpaired: dict[str, str] = {}
        for owner, amounts in self._amounts(exchange):
            if owner == HOLDINGS:
                amounts, find = folded(amounts, ACCOUNTS[exchange].underlying, table), by_code(table)
            else:
                find = by_name(table)
            before = self._held.get((exchange, owner), ())
            assets = self._held[exchange, owner] = held(amounts, self._dust, before)
            refused = refusals(exchange, filter(is_contract, assets), table, "asset")
            found = watched(assets, self._config.gateway.quotes, find, refused)
            symbols[owner] = found.symbols[:SYMBOLS_MAX]
            unpaired |= found.unpaired
        everything = dict.fromkeys(symbol for each in symbols.values() for symbol in each)
        self.watched[exchange] = Watched(list(everything), unpaired)
        wanted = await asyncio.to_thread(read_wanted, self._config.run_dir, exchange)
        kinds = self._config.exchange(exchange).kinds
        now = {owner: {symbol: list(kinds) for symbol in each} for owner, each in symbols.items()}
        if all(wanted.requested.get(owner, {}) == each for owner, each in now.items()):
            return

        def change(wanted: Wanted) -> None:
            for owner, each in symbols.items():
                wanted.replace(owner, each, kinds)

        await self._change(exchange, change)
        log.info("%s: held, and so wanted: %s", exchange, ", ".join(everything) or "nothing")

    def _amounts(self, exchange: str) -> Iterable[tuple[str, dict[str, Decimal]]]:
        """Yield what is held by owner, as far as it is known: how much, long and short alike.

        A long and a short position of one contract are two positions, and not none.
        """
        elsewhere: dict[str, Decimal] = {}
        for position in self.positions:
            if position.exchange == exchange:
                elsewhere[position.asset] = elsewhere.get(position.asset, Decimal(0)) + abs(position.amount)
        if self._is_placed:
            yield POSITIONS, elsewhere
        status = self._accounts.status(exchange)
        if status.as_of_ns:  # else nothing is known of it, or not yet
            yield HOLDINGS, {row.asset: Decimal(row.total) for row in status.balances}


def check_owner(owner: str) -> None:
    """Raises ConfigError for a name that no user of the API can have."""
    if not owner or len(owner) > OWNER_SIZE_MAX or not owner.isprintable():
        raise ConfigError(f"owner: must have 1 to {OWNER_SIZE_MAX} printable characters")
    if owner in (HOLDINGS, POSITIONS):
        raise ConfigError(f"owner: {owner!r} is the gateway's own; take another name")


def _check_position(config: Config, position: Position, where: str) -> None:
    if position.exchange not in config.exchanges:
        known = ", ".join(config.exchanges)
        raise ConfigError(f"{where}.exchange: {position.exchange!r} is not configured (known: {known})")
    if not _is_named(position):
        raise ConfigError(
            f'{where}.asset: must be an asset, such as "BTC", or a contract, such as "BTC/USDT:USDT", in upper case'
        )
    lowest, text = Decimal(0), "0 or more, such as 1.5"
    if is_contract(position.asset):
        lowest, text = Decimal("-Infinity"), "such as 1.5, or -1.5 if it is short"
    try:
        is_sound = amount(position.amount, where) >= lowest
    except DecodeError:
        is_sound = False
    if not is_sound:
        raise ConfigError(f"{where}.amount: must be a number of units, {text}")


def _is_named(position: Position) -> bool:
    """Return whether the spelling is that of an asset or of a contract."""
    asset = position.asset
    if is_contract(asset):
        return len(asset) <= OWNER_SIZE_MAX and not refusals(position.exchange, [asset], None, "asset")
    is_sound = 0 < len(asset) <= OWNER_SIZE_MAX and asset.isprintable() and "/" not in asset
    return is_sound and not is_lower_case(asset)
