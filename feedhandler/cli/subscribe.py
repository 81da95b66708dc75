"""What is wanted of an exchange's feeds: `feedhandler renew`, `subscribe`, `unsubscribe`, `connect`, `disconnect`.

What is wanted goes to a file that the exchange's feeds follow (`transport/files.py`), whether they run or not. What
became of it is looked for in the stream, where everybody finds it.
"""

import argparse
import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from feedhandler.cli.arguments import Commands, add_exchange, command, seconds, settings_of
from feedhandler.client import Subscriber
from feedhandler.data import hints, wire
from feedhandler.data.errors import EXIT_FAILED, EXIT_OK, ConfigError, SubscriptionRejected
from feedhandler.data.instruments import InstrumentTable
from feedhandler.data.status import ExchangeStatus
from feedhandler.data.wanted import DEFAULT_KINDS, OPERATOR, Kinds, Wanted, spelled
from feedhandler.exchanges import EXCHANGES
from feedhandler.runtime.checks import check_kinds, check_symbol, refusals
from feedhandler.runtime.settings import Config
from feedhandler.transport.files import (
    change_wanted,
    read_instruments,
    read_wanted,
    renew_feeds,
    running_feeds,
)

WAIT_S: Final = 15.0
NOT_REPORTING: Final = ("down", "absent")  # states of a shard that does not report what it wants
SILENCE_S: Final = 3.0  # a merger publishes the status of each exchange once a second

Pair = tuple[str, str]  # a symbol, and a kind of its records


def add(commands: Commands) -> None:
    """Add the commands of this module."""
    renew = command(commands, "renew", _renew, "make a feed renew its connections, without a gap")
    add_exchange(renew)
    more = command(commands, "subscribe", _subscribe, "want more symbols of an exchange, now and from now on")
    fewer = command(commands, "unsubscribe", _unsubscribe, "want symbols of an exchange no more")
    for each in (more, fewer):
        add_exchange(each)
        each.add_argument("symbols", nargs="+", metavar="SYMBOL", help="as BASE/QUOTE, such as DOGE/USDT")
        each.add_argument(
            "--kind",
            action="append",
            dest="kinds",
            metavar="KIND",
            help=f"which kind of records; may be repeated (default: {', '.join(DEFAULT_KINDS)})",
        )
        each.add_argument(
            "--wait",
            type=seconds,
            default=WAIT_S,
            metavar="S",
            help="how long to wait for the feed to have done it (default: %(default)g; 0: not at all)",
        )
    more.add_argument(
        "--unlisted", action="store_true", help="also what the exchange does not list, or not yet"
    )
    for name, is_wanted, text in (
        ("connect", True, "connect to an exchange from now on; its feed follows within a second"),
        ("disconnect", False, "leave an exchange unconnected until `connect`; what is wanted stays noted"),
    ):
        each = command(commands, name, _connect, text)
        add_exchange(each)
        each.set_defaults(is_wanted=is_wanted)


def _renew(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    name = arguments.exchange
    settings.exchange(name)
    try:
        asked = renew_feeds(settings.run_dir, name)
    except ConfigError as exc:
        print(f"feedhandler: {exc}", file=sys.stderr)
        return EXIT_FAILED
    for shard, pid in asked.items():
        who = f"the feed of {name}{'' if shard.is_whole else f', shard {shard},'} (pid {pid})"
        print(hints.spelled(f"asked {who}; its log and `feedhandler status` tell how it goes"))
    return EXIT_OK


def _subscribe(arguments: argparse.Namespace) -> int:
    return subscribe(
        settings_of(arguments),
        arguments.exchange,
        list(dict.fromkeys(arguments.symbols)),
        _kinds(arguments),
        is_unlisted=arguments.unlisted,
        wait_s=arguments.wait,
    )


def _unsubscribe(arguments: argparse.Namespace) -> int:
    settings, symbols = settings_of(arguments), list(dict.fromkeys(arguments.symbols))
    return unsubscribe(settings, arguments.exchange, symbols, _kinds(arguments), wait_s=arguments.wait)


def _kinds(arguments: argparse.Namespace) -> list[str]:
    return list(dict.fromkeys(arguments.kinds or DEFAULT_KINDS))


def _connect(arguments: argparse.Namespace) -> int:
    return connect(settings_of(arguments), arguments.exchange, is_wanted=arguments.is_wanted)


def subscribe(
    config: Config,
    exchange: str,
    symbols: Sequence[str],
    kinds: Sequence[str] = DEFAULT_KINDS,
    *,
    is_unlisted: bool,
    wait_s: float,
) -> int:
    """Want these kinds of these symbols too, and report until they are live; returns the exit status.

    is_unlisted also wants what the newest instrument list does not have. What cannot be had is printed, and does
    not keep the others. Raises ConfigError or SubscriptionRejected, with nothing changed, if none can be had.
    """
    settings = config.exchange(exchange)
    check_kinds(exchange, kinds, f"subscribe {exchange}: --kind")
    listing = read_instruments(config.run_dir, config.rest_url(exchange), exchange)  # that a feed has kept
    table = listing.table() if listing is not None else None
    refused = refusals(exchange, symbols, None if is_unlisted else table, f"subscribe {exchange}")
    taken = [symbol for symbol in symbols if symbol not in refused]
    if not taken:
        raise _of_all(refused)
    change_wanted(
        config.run_dir,
        exchange,
        lambda wanted: wanted.subscribe(taken, settings.configured, kinds=kinds),
    )
    for symbol, reason in refused.items():
        print(f"{symbol}: not subscribed to: {reason}")
    pairs = list(itertools.product(taken, kinds))
    watch = SubscriptionWatch(
        config, exchange, pairs, _channels(exchange, table, pairs) if table is not None else {}
    )
    watch.run(wait_s, watch.is_subscribed)
    for pair in pairs:
        print(hints.spelled(f"{_text(pair)}: {watch.subscribed_text(pair)}"))
    is_done = not watch.has_status or all(pair in watch.live for pair in pairs)
    return EXIT_OK if is_done and not refused else EXIT_FAILED


def unsubscribe(
    config: Config,
    exchange: str,
    symbols: Sequence[str],
    kinds: Sequence[str] = DEFAULT_KINDS,
    *,
    wait_s: float,
) -> int:
    """Want these kinds of these symbols no more, and report until that is done; returns the exit status.

    One that nobody wants is printed, and does not keep the others. Raises ConfigError if all are of that kind.
    """
    settings = config.exchange(exchange)
    present = _pairs(read_wanted(config.run_dir, exchange).kinds(settings.configured))
    asked = list(itertools.product(symbols, kinds))
    unknown = [pair for pair in asked if pair not in present]
    pairs = [pair for pair in asked if pair in present]
    if not pairs:
        check_symbol(exchange, unknown[0][0], f"unsubscribe {exchange}")
        check_kinds(exchange, kinds, f"unsubscribe {exchange}: --kind")
        known = ", ".join(map(_text, list(present)[:20])) + (" …" if len(present) > 20 else "")
        what = ", ".join(repr(_text(pair)) for pair in unknown)
        raise ConfigError(f"unsubscribe {exchange}: {what} is not wanted; what is: {known or 'nothing'}")
    for pair in unknown:
        print(f"{_text(pair)}: is not wanted")

    leaving = dict.fromkeys(symbol for symbol, _ in pairs)
    wanted = change_wanted(
        config.run_dir,
        exchange,
        lambda wanted: wanted.unsubscribe(leaving, settings.configured, kinds=kinds),
    )
    left = _pairs(wanted.kinds(settings.configured))
    watch = SubscriptionWatch(config, exchange, pairs)

    def is_done(pair: Pair) -> bool:
        return watch.is_unsubscribed(pair) or pair in left

    watch.run(wait_s, is_done)
    for pair in pairs:
        print(hints.spelled(f"{_text(pair)}: {_held_by(wanted, pair) or watch.unsubscribed_text(pair)}"))
    is_all_done = not watch.has_status or all(map(is_done, pairs))
    return EXIT_OK if is_all_done and not unknown else EXIT_FAILED


def connect(config: Config, exchange: str, *, is_wanted: bool) -> int:
    """Want an exchange to be connected to from now on, or not. Raises ConfigError."""
    config.exchange(exchange)

    def change(wanted: Wanted) -> None:
        wanted.connect = is_wanted

    change_wanted(config.run_dir, exchange, change)
    what = "connected" if is_wanted else "disconnected"
    if running_feeds(config.run_dir, exchange):
        text = f"{exchange}: to be {what}; its feed follows within a second, `feedhandler status` tells"
        print(hints.spelled(text))
    else:
        print(f"{exchange}: to be {what}; no feed of {exchange} runs, it will follow when it does")
    return EXIT_OK


def _of_all(refused: Mapping[str, ConfigError | SubscriptionRejected]) -> ConfigError | SubscriptionRejected:
    """Return the error of a request of which nothing can be had."""
    first = next(iter(refused.values()))
    text = "; ".join(map(str, refused.values()))
    if isinstance(first, SubscriptionRejected):
        text += "; nothing was changed (with --unlisted it is wanted all the same)"
    return type(first)(text)


def _channels(
    exchange: str, table: InstrumentTable, pairs: Iterable[Pair]
) -> dict[tuple[str, str], list[Pair]]:
    """Return what each market's channels are of, as the exchange calls them, as far as the list has them."""
    markets = {market.name: market() for market in EXCHANGES[exchange].markets}
    found: dict[tuple[str, str], list[Pair]] = {}
    for symbol, kind in pairs:
        with contextlib.suppress(SubscriptionRejected):
            instrument = table.resolve(symbol)
            market = markets[instrument.market]
            native = instrument.native.removeprefix(market.prefix)
            for topic in market.topics(native, kind) if kind in market.kinds else ():
                found.setdefault((market.name, topic), []).append((symbol, kind))
    return found


def _pairs(wanted: Kinds) -> dict[Pair, None]:
    return {(symbol, kind): None for symbol, kinds in wanted.items() for kind in kinds}


def _text(pair: Pair) -> str:
    symbol, kind = pair
    return spelled(symbol, [kind])


def _held_by(wanted: Wanted, pair: Pair) -> str:
    owners = [owner for owner in wanted.owners(*pair) if owner != OPERATOR]
    return f"still wanted by {', '.join(owners)}" if owners else ""


class SubscriptionWatch:
    """What the stream has about some kinds of some symbols of an exchange.

    channels: the pairs that are rejected with each, as far as they are known.
    """

    def __init__(
        self,
        config: Config,
        exchange: str,
        pairs: Sequence[Pair],
        channels: Mapping[tuple[str, str], Sequence[Pair]] = {},
    ) -> None:
        self._endpoint = config.merger.ticks[0]
        self._exchange = exchange
        self._topics = {f"{kind}.{exchange}.{symbol}": (symbol, kind) for symbol, kind in pairs}
        self._channels = channels
        self._status: ExchangeStatus | None = None
        self.has_looked = False
        self.live: set[Pair] = set()

    def run(self, seconds: float, is_done: Callable[[Pair], bool]) -> None:
        """Look until everything is done, or for so long; for a while only where nobody publishes."""
        self.has_looked = seconds > 0
        prefixes = [f"status.{self._exchange}\0", *(f"{topic}\0" for topic in self._topics)]
        started = time.monotonic()
        with Subscriber(self._endpoint, prefixes, recover=False) as subscriber:
            while not self._status or not all(map(is_done, self._topics.values())):
                deadline = started + (seconds if self._status else min(seconds, SILENCE_S))
                record = subscriber.receive(max(0.0, deadline - time.monotonic()))
                if record is None:
                    return
                self._take(record)

    def _take(self, record: wire.Record) -> None:
        if isinstance(record, wire.Document):
            self._status = msgspec.json.decode(record.body, type=ExchangeStatus)
        elif record.is_live:
            self.live.add(self._topics[record.topic])
        else:
            self.live.discard(self._topics[record.topic])

    @property
    def has_status(self) -> bool:
        """True if a feed's status has come."""
        return self._status is not None and self._status.feed is not None

    def is_subscribed(self, pair: Pair) -> bool:
        """True if it is live, or will not be."""
        return pair in self.live or bool(self._rejected(pair))

    def is_unsubscribed(self, pair: Pair) -> bool:
        """True if no feed wants it any more, and the status of all has come."""
        status = self._status
        if status is None or status.feed is None or any(row.state in NOT_REPORTING for row in status.shards):
            return False
        symbol, kind = pair
        return kind not in status.feed.wanted.get(symbol, ())

    def _rejected(self, pair: Pair) -> str:
        feed, (symbol, kind) = self._status.feed if self._status else None, pair
        if feed is None or kind not in feed.wanted.get(symbol, ()):
            return ""
        if reason := feed.rejected.get(symbol, {}).get(kind):
            return reason
        for connection in feed.connections:
            for topic, why in connection.rejected_topics.items():
                if pair in self._channels.get((connection.market, topic), ()):
                    return f"{topic}: {why}"
        return ""

    def subscribed_text(self, pair: Pair) -> str:
        """Return what became of a subscription, in words."""
        if pair in self.live:
            return "live"
        if reason := self._rejected(pair):
            symbol, kind = pair
            option = "" if (kind,) == DEFAULT_KINDS else f" --kind {kind}"
            remedy = f"`feedhandler unsubscribe {self._exchange} {symbol}{option}` ends that"
            return f"rejected: {reason}; it stays wanted, {remedy}"
        return self._pending_text()

    def unsubscribed_text(self, pair: Pair) -> str:
        """Return what became of the end of one, in words."""
        return "unsubscribed" if self.is_unsubscribed(pair) else self._pending_text()

    def _pending_text(self) -> str:
        if not self.has_looked:
            return "noted"
        if not self.has_status:
            return (
                f"noted; no feed of {self._exchange} reports at {self._endpoint}, it will follow when it runs"
            )
        assert self._status is not None, "it has come"
        return f"noted, and not done yet: the feed is {self._status.text(time.time_ns())}"
