"""Recordings behind the simulator's servers: what `feedhandler replay` does.

    runs of each exchange ─▶ events ─▶ Recording ─▶ SimServer ─▶ clients

All exchanges share one time. It begins when somebody has subscribed to each market that the recordings begin with,
and no more subscriptions come, or after a given while, and ends when all has been sent and read.
"""

import asyncio
import contextlib
import heapq
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
import uvloop

from feedhandler.data import wire
from feedhandler.data.errors import EXIT_OK, UNDECODABLE, ConfigError
from feedhandler.data.kinds import RECORD_WORDS
from feedhandler.exchanges import EXCHANGES
from feedhandler.recordings.decoding import place_of
from feedhandler.recordings.homes import Homes
from feedhandler.recordings.plan import Plan
from feedhandler.recordings.runs import Run, RunReader, find_runs
from feedhandler.recordings.traffic import Item, What
from feedhandler.replay import Player
from feedhandler.runtime.lifecycle import on_stop_signals
from feedhandler.sim.playback import EventKind, Playback, RecordedEvent, Recording
from feedhandler.sim.server import SimServer, SimSettings
from feedhandler.sim.simulated import SIMULATED

LOOK_S: Final = 0.1
CALM_S: Final = 2.0  # without a new subscription: feeds send a few commands a second
OTHERS_S: Final = 30.0  # without one, for clients of markets that nobody has subscribed to
LINGER_S: Final = 1.0  # at the end, for what clients still ask: books begin with answers
READ_S: Final = 10.0  # and for them to read what was sent
SHOWN_S: Final = 10.0  # between two lines of how far it is
LOOKED_AT: Final = 20_000  # items of a capture, for whose it is, and of any recording, for what is in it
SETTINGS: Final = SimSettings(instruments=1)  # nothing of a market is sent

log = logging.getLogger(__name__)

Found = dict[str, list[Run]]  # by exchange


class Timing(NamedTuple):
    """speed 0: as fast as clients read. wait_s None: until they have subscribed."""

    speed: float = 1.0
    wait_s: float | None = None
    loops: bool = False


class Contents(NamedTuple):
    """What feeds can receive of an exchange."""

    symbols: list[str]
    kinds: list[str]
    is_simulated: bool


def find(sources: Sequence[Path], only: Sequence[str], named: str) -> Found:
    """Return the runs of each exchange. Raises ConfigError for what cannot be served."""
    found: Found = {}
    for source in sources:
        for run in find_runs(source, only):
            name = run.exchange or named or _exchange_of(run)
            if name not in SIMULATED:
                raise ConfigError(
                    f"{source}: {'is of ' + name if name else 'does not tell whose traffic it is'};"
                    f" --exchange names one that can be served: {', '.join(SIMULATED)}"
                )
            if not only or name in only:
                found.setdefault(name, []).append(run)
    if not found:
        raise ConfigError(f"there is nothing of {', '.join(only)} in {', '.join(map(str, sources))}")
    return {name: found[name] for name in EXCHANGES if name in found}


def _exchange_of(run: Run) -> str:
    """Return whose traffic a capture is, by its addresses or its header; "" where they do not tell."""
    headed = ""
    for item in islice(RunReader(run), LOOKED_AT):
        if item.what is What.HEADER:
            with contextlib.suppress(*UNDECODABLE):
                stated = msgspec.json.decode(item.data, type=dict[str, Any]).get("exchange")
                headed = stated.lower() if isinstance(stated, str) else ""
        elif item.name and (exchange := place_of(item.name).exchange):
            return exchange
    return headed


def _contents(name: str, runs: Sequence[Run]) -> Contents:
    """Return it as planned, or else as the beginning of each run has it."""
    symbols: dict[str, None] = {}
    kinds: set[str] = set()
    for run in runs:
        wanted = _wanted(run)
        symbols.update(dict.fromkeys(wanted))
        kinds.update(kind for each in wanted.values() for kind in each)
        player = () if wanted else Player(run, "" if run.is_capture and _exchange_of(run) else name)
        for record in islice(player, LOOKED_AT):
            if isinstance(record, bytes):
                kind, exchange, symbol = wire.unpadded(record[: wire.TOPIC_SIZE]).split(".", 2)
                if exchange == name:
                    symbols[symbol] = None
                    kinds.add(kind)
    return Contents(
        list(symbols), [kind for kind in RECORD_WORDS if kind in kinds], any(run.is_simulated for run in runs)
    )


def _wanted(run: Run) -> Mapping[str, Sequence[str]]:
    for item in islice(RunReader(run), 1):
        with contextlib.suppress(*UNDECODABLE):
            return msgspec.json.decode(item.data, type=Plan).wanted
    return {}


def configuration(found: Found, port: int) -> str:
    """Print what feeds have to know."""
    lines = [
        "# Feeds receive a recording: `feedhandler run -c FILE`, and `feedhandler replay SOURCE -c FILE`.",
        "",
        'run_dir = "run/replay"    # of its own: what is subscribed to here is not wanted in production',
        "board = true",
    ]
    for number, (name, runs) in enumerate(found.items()):
        content = _contents(name, runs)
        lines += [
            "",
            f"[exchanges.{name}]",
            f'ws_url = "ws://127.0.0.1:{port + number}"',
            f'rest_url = "http://127.0.0.1:{port + number}"',
            "replay = true             # the flag REPLAY on every record",
            *(["simulated = true          # and of no real exchange"] if content.is_simulated else []),
            f"symbols = {json.dumps(content.symbols, ensure_ascii=False)}",
            f"kinds = {json.dumps(content.kinds)}",
            "backoff_max_s = 1.0       # so that all connections come soon: it begins 2 s after the last",
            "max_attempts = 0          # the recording may begin later",
        ]
    return "\n".join(lines) + "\n"


# What a recording says, in the simulator's words.


def events(name: str, runs: Sequence[Run]) -> Iterator[RecordedEvent]:
    """Yield what was received of an exchange's markets, over all its feeds, in the order of receipt."""
    feeds: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        feeds.setdefault((str(run.files[0].parent) if not run.is_capture else run.name, run.feed), []).append(
            run
        )
    streams = [_of_feed(name, str(number), each) for number, each in enumerate(feeds.values())]
    return streams[0] if len(streams) == 1 else heapq.merge(*streams, key=lambda event: event.at_ns)


def _of_feed(name: str, feed: str, runs: Sequence[Run]) -> Iterator[RecordedEvent]:
    for run in runs:
        homes = Homes()
        markets: dict[str, str | None] = {}  # of each connection; None: of none
        is_first = True
        for item in RunReader(run):
            if is_first and len(runs) > 1:
                yield RecordedEvent(EventKind.RESET, item.wall_ns)
            is_first = False
            connection = f"{feed} {item.connection}"
            if item.what is What.HEADER:
                homes.read(item.data)
            elif item.what is What.OPENED or (item.what is What.SENT and item.name):
                if not item.is_repeated and markets.get(item.connection) is not None:
                    yield RecordedEvent(EventKind.CLOSED, item.wall_ns, connection)
                markets[item.connection] = _market_of(name, item)
            elif item.what is What.RECEIVED:
                if item.connection not in markets:
                    markets[item.connection] = _market_of(name, item)
                if (market := markets[item.connection]) is not None:
                    yield RecordedEvent(EventKind.RECEIVED, item.wall_ns, connection, "", item.data, market)
            elif item.what is What.CLOSED:
                yield RecordedEvent(EventKind.CLOSED, item.wall_ns, connection)
            elif item.what is What.ANSWERED:
                was_ahead = run.is_capture and not item.is_repeated
                if not was_ahead and place_of(item.name).exchange in ("", name):
                    asked = _asked(name, homes.at_home(item).name)
                    yield RecordedEvent(EventKind.ANSWERED, item.wall_ns, connection, asked, item.data)
            elif item.what is What.GAP:
                log.warning("the recording lacks something: %s", item.name)
                yield RecordedEvent(EventKind.RESET, item.wall_ns)


def _market_of(name: str, item: Item) -> str | None:
    """Return of what market a connection is, by address or else by name: "" the main one, None: none of ours."""
    main, place = EXCHANGES[name].main, place_of(item.name, item.connection)
    market = place.market if place.exchange == name else None
    if not place.exchange:
        word = item.connection.partition(".")[0]
        market = next((each for each in EXCHANGES[name].markets if each.name == word), main)
    if market is None:
        return None
    return "" if market is main else market.name


def _asked(name: str, url: str) -> str:
    """Return path and query under which an answer is asked for here: markets with hosts of their own are below."""
    market, parts = place_of(url).market, urlsplit(url)
    is_below = market is not None and market.rest_url != EXCHANGES[name].main.rest_url
    path = f"/{market.name}{parts.path}" if market is not None and is_below else parts.path
    return f"{path}?{parts.query}" if parts.query else path


# Life.


class _Served(NamedTuple):
    name: str
    server: SimServer
    recording: Recording


def run(found: Found, addresses: Mapping[str, tuple[str, str]], timing: Timing) -> int:
    """Serve until all is sent, or a signal comes; returns the exit status. Raises ConfigError."""
    return uvloop.run(_main(found, addresses, timing))


async def _main(found: Found, addresses: Mapping[str, tuple[str, str]], timing: Timing) -> int:
    stop = asyncio.Event()
    on_stop_signals(stop.set, asyncio.get_running_loop())
    while not stop.is_set():
        await serve(found, addresses, timing, stop)
        if not timing.loops:
            break
    return EXIT_OK


async def serve(
    found: Found, addresses: Mapping[str, tuple[str, str]], timing: Timing, stop: asyncio.Event
) -> None:
    """Serve it once. Raises ConfigError if there is nothing in it, or an address cannot be had."""
    playback = Playback(timing.speed)
    served = []
    for name, runs in found.items():
        recording = Recording(SIMULATED[name].reading, events(name, runs), playback)
        ws_url, rest_url = addresses[name]
        server = SimServer(name, SETTINGS, ws_url=ws_url, rest_url=rest_url, recording=recording)
        served.append(_Served(name, server, recording))
    try:
        for each in served:
            try:
                await each.server.start()
            except OSError as exc:
                raise ConfigError(f"{each.name}: {each.server.ws_url}: {exc.strerror or exc}") from exc
            print(f"{each.name}: {each.server.ws_url} {each.server.rest_url}", flush=True)
        await _play(served, playback, timing, stop)
    finally:
        await asyncio.gather(*(each.server.close() for each in served))
        for each in served:
            print("\n".join(_told(each)), flush=True)


async def _play(served: Sequence[_Served], playback: Playback, timing: Timing, stop: asyncio.Event) -> None:
    if timing.wait_s is None:
        await _subscribed(served, stop)
    elif not stop.is_set():
        await _sleep(timing.wait_s, stop)
    first_ns = min((each.recording.first_ns for each in served if each.recording.first_ns), default=1)
    playback.begin(first_ns, time.monotonic_ns())
    log.info("begins")
    shown_s = time.monotonic()
    while not stop.is_set() and not all(each.recording.is_over for each in served):
        await _sleep(LOOK_S, stop)
        if time.monotonic() - shown_s >= SHOWN_S:
            shown_s += SHOWN_S
            for each in served:
                log.info("%s: %d frames so far", each.name, each.recording.recorded.total())
    await _sleep(LINGER_S, stop)
    ends_s = time.monotonic() + READ_S
    while not stop.is_set() and time.monotonic() < ends_s and any(each.server.unread_size for each in served):
        await _sleep(LOOK_S, stop)


async def _subscribed(served: Sequence[_Served], stop: asyncio.Event) -> None:
    """Wait until clients have subscribed to each market, or no more of them come."""
    log.info("begins when clients have subscribed to %s", ", ".join(_unsubscribed(served)) or "anything")
    counts, most, told = [0] * len(served), 0, ""
    changed_s = grown_s = 0.0
    while not stop.is_set():
        await _sleep(LOOK_S, stop)
        now_s = time.monotonic()
        if (present := [each.server.topics for each in served]) != counts:
            counts, changed_s = present, now_s
            if sum(counts) > most:
                most, grown_s = sum(counts), now_s
        if not any(counts) or now_s - changed_s < CALM_S:
            continue
        lacking = ", ".join(_unsubscribed(served))
        if not lacking:
            return
        if now_s - grown_s >= OTHERS_S:
            log.warning("nobody has subscribed to %s: what is sent there nobody gets", lacking)
            return
        if lacking != told:
            told = lacking
            log.info("waits for subscriptions to %s, for %g s after the last one", lacking, OTHERS_S)


def _unsubscribed(served: Sequence[_Served]) -> list[str]:
    """Return the markets that nobody has subscribed to, in words; an exchange, where data come later."""
    found = []
    for each in served:
        if each.recording.begins_later and not each.server.topics:
            found.append(each.name)
        found += [
            f"{each.name} {market or EXCHANGES[each.name].main.name}"
            for market in each.recording.unsubscribed
        ]
    return found


async def _sleep(span_s: float, stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(span_s):
            await stop.wait()


def _told(served: _Served) -> Iterator[str]:
    """Yield in words what was sent."""
    recording = served.recording
    yield f"{served.name}: {recording.sent.total():,} of {recording.recorded.total():,} frames sent"
    for channel, count in sorted(recording.recorded.items()):
        sent = recording.sent[channel]
        yield f"  {channel}: {sent:,}" + (f" of {count:,}" if sent != count else "")
    yield from _noted("answered 503, as there is nothing recorded", recording.unanswered)


def _noted(what: str, counts: Counter[str]) -> Iterator[str]:
    if counts:
        yield f"  {what}: " + ", ".join(f"{path} ({count:,})" for path, count in counts.most_common())
