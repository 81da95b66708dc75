"""The HTTP API under /v1: what can be read, and what can be changed with the token.

Each operation is a line of the table at the end of `operations`; `openapi` describes them from there.
"""

import asyncio
import os
import time
from http import HTTPStatus
from typing import Annotated, Final

import msgspec

from feedhandler import __version__
from feedhandler.accounts.adapter import Credentials, CredentialsError
from feedhandler.accounts.balances import AccountStatus, plain
from feedhandler.data import wire
from feedhandler.data.errors import ConfigError, SubscriptionRejected
from feedhandler.data.instruments import SPOT
from feedhandler.data.status import Heartbeat, RecorderStatus
from feedhandler.data.wanted import DEFAULT_KINDS
from feedhandler.exchanges import EXCHANGES
from feedhandler.gateway.app import Parts
from feedhandler.gateway.control import Position, SubscribedRow, SubscriptionRow
from feedhandler.gateway.events import Event
from feedhandler.gateway.history import LatencyHistory
from feedhandler.gateway.hours import QualityTable
from feedhandler.gateway.operations import Asked, Operation, Query, known_exchange
from feedhandler.gateway.problem import Problem
from feedhandler.gateway.rows import ExchangeRow, TickerRow, ticker_row
from feedhandler.transport.files import read_recorder_status, renew_feeds

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Symbol = Annotated[str, msgspec.Meta(min_length=3, max_length=64, examples=["BTC/USDT"])]
Secret = Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]

INSTRUMENTS_DEFAULT: Final = 1000

EXCHANGE: Final = Query("exchange", "only this exchange")
OWNER: Final = Query("owner", "whose wish it is; `api` if left out")
KIND: Final = Query(
    "kind", f"which kind of records; `{DEFAULT_KINDS[0]}` if left out", example=DEFAULT_KINDS[0]
)


class Gateway(msgspec.Struct, kw_only=True):
    pid: int
    started_ns: int
    now_ns: int
    version: str


class Status(msgspec.Struct, kw_only=True):
    """merger: null if no heartbeat of it has come for 3 s."""

    gateway: Gateway
    merger: Heartbeat | None
    exchanges: dict[str, ExchangeRow]
    recorder: RecorderStatus | None = None  # null if none is configured, or it has never run


class Exchanges(msgspec.Struct):
    exchanges: dict[str, ExchangeRow]


class EventList(msgspec.Struct):
    """The newest first."""

    events: list[Event]


class InstrumentItem(msgspec.Struct):
    symbol: str
    native: str
    base: str
    quote: str
    is_trading: bool
    status: str  # the exchange's own word for the trading state,
    note: str  # and what is to be known of one that is tradable
    tick: str  # the step between prices, "" if it is not known


class Instruments(msgspec.Struct):
    exchange: str
    as_of_ns: int
    count: int  # of those that match; the list may be shorter
    instruments: list[InstrumentItem]


class Tickers(msgspec.Struct):
    tickers: list[TickerRow]


class SubscriptionList(msgspec.Struct):
    exchanges: dict[str, SubscriptionRow]


class SubscribeSymbols(msgspec.Struct, forbid_unknown_fields=True):
    """Symbols that somebody wants, each in these kinds of records, besides what others do.

    allow_unlisted: also what is not listed yet.
    """

    exchange: Name
    symbols: Annotated[list[Symbol], msgspec.Meta(min_length=1, max_length=5000)]
    kinds: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=20)] = DEFAULT_KINDS
    owner: Name = "api"
    allow_unlisted: bool = False


class PositionRow(msgspec.Struct):
    exchange: str
    asset: str
    amount: str
    source: str  # api, or account


class Positions(msgspec.Struct):
    """positions of accounts are there with the token only.

    symbols, by exchange, are wanted because of them; unpaired: what is held and not watched, and why.
    """

    positions: list[PositionRow]
    symbols: dict[str, list[str]]
    unpaired: dict[str, dict[str, str]]


class PositionItem(msgspec.Struct, forbid_unknown_fields=True):
    """asset: such as BTC, or a contract, such as BTC/USDT:USDT, of which an amount below 0 is a short position."""

    exchange: Name
    asset: Name
    amount: Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,30}(\.[0-9]{1,30})?$", examples=["1.5"])]


class ReplacePositions(msgspec.Struct, forbid_unknown_fields=True):
    """All that is held besides what accounts hold."""

    positions: Annotated[list[PositionItem], msgspec.Meta(max_length=5000)]


class Balances(msgspec.Struct):
    accounts: dict[str, AccountStatus]


class PutCredentials(msgspec.Struct, forbid_unknown_fields=True):
    """Of a key that may read the account, and nothing else. They are never given back."""

    key: Secret
    secret: Secret
    passphrase: str = ""

    def __repr__(self) -> str:
        return "PutCredentials(…)"


class Api:
    """The handlers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._started_ns = time.time_ns()

    # --- what is

    async def status(self, asked: Asked) -> Status:
        market_data, config, now_ns = self._parts.market_data, self._parts.config, time.time_ns()
        return Status(
            gateway=Gateway(pid=os.getpid(), started_ns=self._started_ns, now_ns=now_ns, version=__version__),
            merger=market_data.heartbeat if market_data.is_merger_up else None,
            exchanges=self._parts.rows(),
            recorder=read_recorder_status(config.run_dir) if config.recorder is not None else None,
        )

    async def exchanges(self, asked: Asked) -> Exchanges:
        return Exchanges(self._parts.rows())

    async def latency(self, asked: Asked) -> LatencyHistory:
        return self._parts.history.latency()

    async def events(self, asked: Asked) -> EventList:
        return EventList(self._parts.events.newest_first(time.time_ns()))

    async def quality(self, asked: Asked) -> QualityTable:
        exchange = asked.query.get("exchange")
        if exchange is not None:
            known_exchange(self._parts, exchange)
        table = self._parts.hours.table(time.time_ns(), exchange, asked.query.get("symbol"))
        for row in table.symbols:
            row.unproven = _unproven(row.exchange, row.symbol, row.kind)
        return table

    async def instruments(self, asked: Asked) -> Instruments:
        exchange = asked.query["exchange"]
        known_exchange(self._parts, exchange)
        listing = self._parts.market_data.listings.get(exchange)
        if listing is None:
            raise Problem(
                HTTPStatus.CONFLICT,
                f"no list of {exchange}'s instruments is known yet: its feed publishes it when it runs",
                field="exchange",
            )
        word = asked.query.get("search", "").casefold()
        found = [row for row in listing.instruments if word in row.symbol.casefold()]
        limit = int(asked.query.get("limit", INSTRUMENTS_DEFAULT))
        items = [
            InstrumentItem(r.symbol, r.native, r.base, r.quote, r.trading, r.status, r.note, r.tick)
            for r in found[:limit]
        ]
        return Instruments(exchange, listing.as_of_ns, len(found), items)

    async def tickers(self, asked: Asked) -> Tickers:
        exchange, symbol = asked.query.get("exchange"), asked.query.get("symbol")
        if exchange is not None:
            known_exchange(self._parts, exchange)
        market_data = self._parts.market_data
        flags = 0 if market_data.is_merger_up else wire.DOWN
        return Tickers(
            [
                ticker_row(ticker, flags, market_data.tick_of(ticker))
                for ticker in market_data.tickers.values()
                if exchange in (None, ticker.exchange) and symbol in (None, ticker.symbol)
            ]
        )

    # --- what is wanted

    async def subscriptions(self, asked: Asked) -> SubscriptionList:
        names = [asked.query["exchange"]] if "exchange" in asked.query else list(self._parts.config.exchanges)
        for name in names:
            known_exchange(self._parts, name)
        return SubscriptionList({name: await self._parts.control.row(name) for name in names})

    async def subscribe(self, asked: Asked) -> SubscribedRow:
        body: SubscribeSymbols = asked.body
        known_exchange(self._parts, body.exchange)
        symbols = list(dict.fromkeys(body.symbols))
        return await self._parts.control.subscribe(
            body.exchange,
            symbols,
            body.owner,
            is_unlisted=body.allow_unlisted,
            kinds=list(dict.fromkeys(body.kinds)),
        )

    async def unsubscribe(self, asked: Asked) -> SubscriptionRow:
        exchange, symbol = asked.path["exchange"], f"{asked.path['base']}/{asked.path['quote']}"
        try:
            owner, kind = asked.query.get("owner", "api"), asked.query.get("kind", DEFAULT_KINDS[0])
            return await self._parts.control.unsubscribe(exchange, symbol, owner, kind)
        except SubscriptionRejected as exc:
            raise Problem(HTTPStatus.NOT_FOUND, str(exc), field="symbol") from None

    async def positions(self, asked: Asked) -> Positions:
        control = self._parts.control
        rows = [PositionRow(p.exchange, p.asset, plain(p.amount), "api") for p in control.positions]
        if asked.is_authorized:
            for name, account in self._parts.accounts.statuses().items():
                rows += [PositionRow(name, row.asset, row.total, "account") for row in account.balances]
        return Positions(
            rows,
            {name: each.symbols for name, each in control.watched.items()},
            {name: each.unpaired for name, each in control.watched.items()} if asked.is_authorized else {},
        )

    async def replace_positions(self, asked: Asked) -> Positions:
        body: ReplacePositions = asked.body
        positions = [msgspec.convert(msgspec.to_builtins(item), Position) for item in body.positions]
        await self._parts.control.replace_positions(positions)
        return await self.positions(asked)

    # --- accounts

    async def balances(self, asked: Asked) -> Balances:
        return Balances(self._parts.accounts.statuses())

    async def sync(self, asked: Asked) -> Balances:
        names = [asked.query["exchange"]] if "exchange" in asked.query else list(self._parts.config.exchanges)
        for name in names:
            known_exchange(self._parts, name)
        statuses = await asyncio.gather(*(self._parts.accounts.sync(name) for name in names))
        return Balances(dict(zip(names, statuses, strict=True)))

    async def put_credentials(self, asked: Asked) -> None:
        exchange, body = asked.path["exchange"], asked.body
        try:
            await self._parts.accounts.put(exchange, Credentials(body.key, body.secret, body.passphrase))
        except CredentialsError as exc:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(exc), field=exc.field) from None
        if not self._parts.control.is_connected(exchange):
            await self._parts.control.connect(exchange, True)

    async def delete_credentials(self, asked: Asked) -> None:
        await self._parts.accounts.remove(asked.path["exchange"])
        await self._parts.control.release(asked.path["exchange"])  # also what was held before a restart

    # --- exchanges

    async def connect(self, asked: Asked) -> ExchangeRow:
        return await self._connect(asked.path["exchange"], True)

    async def disconnect(self, asked: Asked) -> ExchangeRow:
        return await self._connect(asked.path["exchange"], False)

    async def _connect(self, exchange: str, is_wanted: bool) -> ExchangeRow:
        await self._parts.control.connect(exchange, is_wanted)
        return self._parts.row(exchange)

    async def rollover(self, asked: Asked) -> ExchangeRow:
        exchange = asked.path["exchange"]
        try:
            renew_feeds(self._parts.config.run_dir, exchange)
        except ConfigError as exc:
            raise Problem(HTTPStatus.CONFLICT, str(exc), field="exchange") from None
        return self._parts.row(exchange)


def _unproven(exchange: str, symbol: str, kind: str) -> str:
    """Return what cannot be known of a kind there, in words; "" if nothing is said of it."""
    is_spot = ":" not in symbol
    for market in EXCHANGES[exchange].markets if exchange in EXCHANGES else ():
        if (market.name == SPOT) == is_spot and kind in market.capabilities:
            return market.capabilities[kind].unproven
    return ""


def operations(parts: Parts) -> list[Operation]:
    """Return the whole API."""
    api = Api(parts)
    missing = (HTTPStatus.NOT_FOUND,)
    busy = (HTTPStatus.CONFLICT,)
    one = "/v1/exchanges/{exchange}"
    symbol = Query("symbol", "only this symbol", r"[^/]+/[^/]+", "BTC/USDT")
    search = Query("search", "only symbols with this in them")
    limit = Query("limit", f"at most so many; {INSTRUMENTS_DEFAULT} if left out", r"[1-9][0-9]{0,4}", "100")
    read = [
        Operation("GET", "/v1/status", api.status, "everything that processes report of themselves", Status),
        Operation("GET", "/v1/exchanges", api.exchanges, "the configured exchanges", Exchanges),
        Operation(
            "GET",
            "/v1/instruments",
            api.instruments,
            "what an exchange lists",
            Instruments,
            query=(Query("exchange", "whose", is_required=True), search, limit),
            problems=busy,
        ),
        Operation("GET", "/v1/latency", api.latency, "the last ten minutes, a row a second", LatencyHistory),
        Operation("GET", "/v1/events", api.events, "what happened in the last hour", EventList),
        Operation(
            "GET",
            "/v1/quality",
            api.quality,
            "what came, is missing or was wrong in the last 24 hours, by hour",
            QualityTable,
            query=(EXCHANGE, symbol),
        ),
        Operation("GET", "/v1/tickers", api.tickers, "last values", Tickers, query=(EXCHANGE, symbol)),
        Operation(
            "GET",
            "/v1/subscriptions",
            api.subscriptions,
            "what is wanted, and by whom",
            SubscriptionList,
            query=(EXCHANGE,),
        ),
        Operation(
            "GET", "/v1/positions", api.positions, "what is held, and watched because of it", Positions
        ),
        Operation("GET", "/v1/balances", api.balances, "what accounts hold", Balances, is_private=True),
    ]
    change = [
        Operation(
            "POST", "/v1/subscriptions", api.subscribe, "want symbols", SubscribedRow, SubscribeSymbols
        ),
        Operation(
            "DELETE",
            "/v1/subscriptions/{exchange}/{base}/{quote}",
            api.unsubscribe,
            "want a kind of a symbol no more",
            SubscriptionRow,
            query=(OWNER, KIND),
            problems=missing,
        ),
        Operation(
            "PUT",
            "/v1/positions",
            api.replace_positions,
            "replace what is stated to be held besides accounts",
            Positions,
            ReplacePositions,
        ),
        Operation("POST", "/v1/balances/sync", api.sync, "look at accounts now", Balances, query=(EXCHANGE,)),
        Operation(
            "POST", f"{one}/connect", api.connect, "connect to an exchange", ExchangeRow, problems=missing
        ),
        Operation(
            "POST",
            f"{one}/disconnect",
            api.disconnect,
            "disconnect from an exchange",
            ExchangeRow,
            problems=missing,
        ),
        Operation(
            "POST",
            f"{one}/rollover",
            api.rollover,
            "renew an exchange's connections, without a gap",
            ExchangeRow,
            problems=missing + busy,
        ),
        Operation(
            "PUT",
            f"{one}/credentials",
            api.put_credentials,
            "keep an account known, with these credentials; an exchange that was off is connected to",
            body=PutCredentials,
            problems=missing,
        ),
        Operation(
            "DELETE",
            f"{one}/credentials",
            api.delete_credentials,
            "forget an account's credentials",
            problems=missing,
        ),
    ]
    return read + change
