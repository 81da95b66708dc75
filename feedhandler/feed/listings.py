"""The instrument lists of an exchange's markets: which are needed, fetched page by page, kept on disk, as one.

    wanted ──names of which markets──▶ lists that are needed ──REST, else disk──▶ one list of all

The main market's is always needed, and those of markets at its host. Hosts of others are left alone until a symbol
of theirs is wanted.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.data.instruments import Instrument, InstrumentList, instrument_list
from feedhandler.data.units import NS_PER_S
from feedhandler.data.wanted import Kinds
from feedhandler.exchanges.base import Market, Rows
from feedhandler.feed.asking import Asking
from feedhandler.transport.files import read_instruments, write_instruments
from feedhandler.transport.tasks import Failures, end_tasks

OTHER_LISTS_S: Final = 5.0  # for the lists of markets that are not the main one, once that has its own
LIST_PAGES_MAX: Final = 100  # of an instrument list: some 100,000 instruments

log = logging.getLogger(__name__)


class Listings:
    """The lists of one feed. lacking: why some markets cannot be connected to, by name."""

    def __init__(
        self,
        markets: Sequence[Market],
        asking: Asking,
        run_dir: str,
        lacking: Mapping[str, str],
        failures: Failures,
    ) -> None:
        self._markets = markets
        self._exchange = markets[0].exchange
        self._main_url = asking.rest_url(markets[0])
        self._asking = asking
        self._run_dir = run_dir
        self._lacking = lacking
        self._failures = failures
        self._named: set[str] = set()  # markets of which symbols are wanted
        self._asked: set[str] = set()  # markets whose lists have been requested
        self._found: dict[str, InstrumentList] = {}  # by market

    def __bool__(self) -> bool:
        """True once a market has its list."""
        return bool(self._found)

    @property
    def is_incomplete(self) -> bool:
        """A list is needed, and not there."""
        return any(market.name not in self._found for market in self.needed())

    def want(self, wanted: Kinds) -> None:
        """Have the lists that these symbols need, of all shards."""
        # Of which markets, by their symbols' form: somebody asks five times a second.
        self._named = {market.name for market in self._markets if any(map(market.names, wanted))}

    def is_needed(self, market: Market) -> bool:
        """Return whether a market's hosts may be connected to.

        Other hosts than the main market's are left alone until the first symbol is wanted that is of their form.
        """
        if self._asking.rest_url(market) == self._main_url:
            return True
        if market.name in self._lacking:
            return False
        return market.name in self._asked or market.name in self._named

    def needed(self) -> list[Market]:
        """Return the markets whose hosts may be connected to, the main one first."""
        return [market for market in self._markets if self.is_needed(market)]

    def unasked(self) -> list[Market]:
        """Return the markets of which symbols are wanted for the first time: their lists are on the way."""
        _, *others = self.needed()
        return [market for market in others if market.name not in self._asked]

    async def fetch(self) -> list[ProtocolError | DecodeError]:
        """Fetch the lists that are needed, and keep them on disk for a start without REST; return what failed.

        The main market waits for others a little, and not for one whose host does not answer.
        """
        markets = self.needed()
        fetching = [asyncio.create_task(self._fetch_one(market)) for market in markets]
        try:
            await fetching[0]
            await asyncio.wait(fetching, timeout=OTHER_LISTS_S)
            found = [
                task.result() if task.done() else _late(self._exchange, market)
                for task, market in zip(fetching, markets, strict=True)
            ]
        finally:
            await end_tasks(fetching)
            self._asked.update(market.name for market in markets)
        errors = [error for error in found if error is not None]
        if len(errors) < len(found):
            try:
                write_instruments(self._run_dir, self._main_url, self.whole())
            except OSError as exc:
                log.warning("instrument list not kept on disk: %s", exc)
        return errors

    async def _fetch_one(self, market: Market) -> ProtocolError | DecodeError | None:
        """Fetch the list of one market, at first from disk if need be; returns why it is not a new one."""
        try:
            with self._failures.converted("the instrument list"):
                self._found[market.name] = self._listing_of(market, await self._rows_of(market))
        except (ProtocolError, DecodeError) as exc:
            if market.name not in self._found and (kept := self._kept_list(market)) is not None:
                log.warning("instrument list from disk, %s: %s", _age(kept.as_of_ns), exc)
                self._found[market.name] = kept
            elif self._found:
                log.warning("instrument list of %s not refreshed: %s", market.name, exc)
            return exc
        return None

    async def _rows_of(self, market: Market) -> Rows[Instrument]:
        """Return the instruments of a market, of all pages."""
        found: list[Instrument] = []
        problems: list[str] = []
        request = market.instruments_request
        for _ in range(LIST_PAGES_MAX):
            body, recv_ns = await self._asking.fetch(market, request)
            rows = market.decode_instruments(body)
            self._asking.take_polled(market, request, body, recv_ns)
            found += rows.items
            problems += filter(None, [rows.problem])
            rest = market.rest_of_list(request, body)
            if rest is None:
                return Rows(found, "; ".join(problems))
            request = rest
        raise ProtocolError(f"{self._exchange}: the instrument list of {market.name} has no end")

    def _listing_of(self, market: Market, rows: Rows[Instrument]) -> InstrumentList:
        if rows.problem and not rows.items:
            raise ProtocolError(rows.problem)
        # There may be a region without contracts.
        if market is self._markets[0] and not any(instrument.is_trading for instrument in rows.items):
            raise ProtocolError(f"{self._exchange} lists no tradable instrument, which cannot be")
        instruments = [market.prefixed(each) for each in rows.items]
        return instrument_list(
            self._exchange, time.time_ns(), instruments, [rows.problem] if rows.problem else []
        )

    def _kept_list(self, market: Market) -> InstrumentList | None:
        """Return a market's part of the list that is on disk."""
        kept = read_instruments(self._run_dir, self._main_url, self._exchange)
        rows = [] if kept is None else [row for row in kept.instruments if row.market == market.name]
        return InstrumentList(self._exchange, kept.as_of_ns, rows) if kept is not None and rows else None

    def whole(self) -> InstrumentList:
        """Return the lists of all markets as one, as old as the oldest."""
        lists = list(self._found.values())
        problems = [problem for each in lists for problem in each.problems]
        lacking = [market.name for market in self.needed() if market.name not in self._found]
        return InstrumentList(
            self._exchange,
            min(each.as_of_ns for each in lists),
            [row for each in lists for row in each.instruments],
            [*problems, *(f"{self._exchange}: no instrument list of {name} yet" for name in lacking)],
        )


def _age(as_of_ns: int) -> str:
    return f"{(time.time_ns() - as_of_ns) / NS_PER_S / 3600:.1f} h old"


def _late(name: str, market: Market) -> ProtocolError:
    return ProtocolError(
        f"{name}: the instrument list of {market.name} takes long, and is requested again later"
    )
