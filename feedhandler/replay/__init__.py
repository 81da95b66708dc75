"""Recordings played again offline: the records that subscribers got, or would have got, at full speed.

    for record in replay.records("recordings", kinds=["trade", "book"]):
        ...                                    # what a Subscriber yields, in the order in which it was received

    items ──▶ Decoding ──▶ a Merger of its own, a run ──▶ records

Topics, symbols and numbers are the merger's. session is the second in which the feed was started, or the capture
begins; publish_ns is the time of receipt; REPLAY is set. What only a running feed knows is not there: STALE, and
first values of tickers over REST.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from feedhandler.data import wire
from feedhandler.data.errors import ConfigError
from feedhandler.data.kinds import RECORD_WORDS
from feedhandler.exchanges import EXCHANGES
from feedhandler.recordings.runs import Run, find_runs
from feedhandler.replay.player import Player, RecordingGap
from feedhandler.replay.streams import PlayedFeed, played

__all__ = ["Player", "RecordingGap", "check_exchanges", "check_kinds", "check_symbols", "messages", "records"]


def messages(
    *sources: str | Path,
    kinds: Iterable[str] = (),
    symbols: Iterable[str] = (),
    exchanges: Iterable[str] = (),
    exchange: str = "",
) -> Iterator[bytes]:
    """Yield records as bytes, in the order in which they were received, over all exchanges.

    sources are directories of recordings, segments or captures. kinds, symbols and exchanges are those wanted, all
    of them if none is named; conditions come with the kinds that they are about. exchange is whose traffic it is
    where a recording does not tell. Raises ConfigError for what is no recording or no kind.
    """
    return played(_streams(sources, kinds, symbols, exchanges, exchange), is_unpacked=False)


def records(
    *sources: str | Path,
    kinds: Iterable[str] = (),
    symbols: Iterable[str] = (),
    exchanges: Iterable[str] = (),
    exchange: str = "",
) -> Iterator[wire.Record]:
    """Yield records as a `Subscriber` does; arguments and errors as for `messages`."""
    return played(_streams(sources, kinds, symbols, exchanges, exchange), is_unpacked=True)


def _streams(
    sources: Iterable[str | Path],
    kinds: Iterable[str],
    symbols: Iterable[str],
    exchanges: Iterable[str],
    exchange: str,
) -> list[PlayedFeed]:
    """Return what is to be read, a stream a feed."""
    wanted, names, only = check_kinds(kinds), frozenset(check_symbols(symbols)), check_exchanges(exchanges)
    check_exchanges([exchange] if exchange else [])
    feeds: dict[tuple[str, str], list[Run]] = {}
    for source in sources:
        for run in find_runs(Path(source), only):
            key = (str(source), run.feed)
            feeds.setdefault(key, []).append(run)
    return [PlayedFeed(tuple(runs), exchange, wanted, names, frozenset(only)) for runs in feeds.values()]


def check_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return kinds of records, all if none is named. Raises ConfigError for what is none."""
    named = tuple(dict.fromkeys(kinds))
    for kind in named:
        if kind not in RECORD_WORDS:
            raise ConfigError(f"{kind!r} is no kind of records; they are {', '.join(RECORD_WORDS)}")
    return named or RECORD_WORDS


def check_symbols(symbols: Iterable[str]) -> tuple[str, ...]:
    """Return symbols. Raises ConfigError for what is spelled as an exchange does."""
    named = tuple(symbols)
    for symbol in named:
        if "/" not in symbol:
            raise ConfigError(f"{symbol!r} is no symbol of ours; they are spelled BTC/USDT")
    return named


def check_exchanges(names: Iterable[str]) -> tuple[str, ...]:
    """Return exchanges. Raises ConfigError for what is none."""
    named = tuple(names)
    for name in named:
        if name not in EXCHANGES:
            raise ConfigError(f"{name!r} is no exchange; they are {', '.join(EXCHANGES)}")
    return named
