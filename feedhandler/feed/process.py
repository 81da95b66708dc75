"""One exchange's feed, or one of several that share it: REST instrument list, connections, records to the merger.

Wiring only. Reads top to bottom: lock, sockets, instruments, sessions, run, stop. It knows one exchange, by
name, and nothing about symbols' canonical form beyond the table that resolves what is wanted.
"""

import asyncio
import contextlib
import functools
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import uvloop

from feedhandler import __version__
from feedhandler.data import wire
from feedhandler.data.book import BOOK
from feedhandler.data.connecting import DailyWindow
from feedhandler.data.errors import (
    EXIT_FAILED,
    EXIT_GAVE_UP,
    EXIT_OK,
    ConfigError,
    DecodeError,
    ProtocolError,
)
from feedhandler.data.instruments import InstrumentList, InstrumentTable
from feedhandler.data.shard import Shard
from feedhandler.data.status import FEED_HEARTBEAT_NS, LISTED_MAX, ConnectionStatus, FeedStatus
from feedhandler.data.units import NS_PER_S
from feedhandler.data.wanted import OPERATOR, Kinds, Wanted, difference, listed
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Market
from feedhandler.exchanges.state import State
from feedhandler.feed.asking import Asking
from feedhandler.feed.legs import Change, Legs
from feedhandler.feed.listings import Listings
from feedhandler.feed.polling import Polling
from feedhandler.feed.publisher import Publisher
from feedhandler.feed.report import Complaints, InvalidTopics, connection_status, feed_state, left_out
from feedhandler.feed.survey import Survey
from feedhandler.feed.tap import Tap
from feedhandler.feed.universe import Universe
from feedhandler.feed.websocket import Connection
from feedhandler.recordings.plan import Plan, PlannedMarket
from feedhandler.runtime.lifecycle import (
    END_S,
    end_within,
    is_supervised,
    keep_secrets_in_memory,
    on_stop_signals,
    settle,
    use_cpus,
)
from feedhandler.runtime.settings import Config
from feedhandler.runtime.upkeep import Upkeep
from feedhandler.transport import private
from feedhandler.transport.boards import BoardWriter, board_path, open_board, retire, retire_others
from feedhandler.transport.dial import listens
from feedhandler.transport.files import (
    Stamp,
    feed_lock,
    read_requested_snapshots,
    read_wanted,
    snapshots_stamp,
    wanted_path,
    wanted_stamp,
)
from feedhandler.transport.http import (
    HttpClient,
    HttpRefused,
    RestBudget,
)
from feedhandler.transport.offer import Offer
from feedhandler.transport.shared_budget import SharedBudget, path_of
from feedhandler.transport.tasks import END_TASKS_S, Failures, end_tasks
from feedhandler.transport.timekeeper import Timekeeper

HEARTBEAT_S: Final = FEED_HEARTBEAT_NS / NS_PER_S
HEARTBEATS_PER_STATUS: Final = 5
AWAITED_S: Final = 20.0  # for a simulator to come, which takes one or two
AWAITED_EVERY_S: Final = 0.05
REFRESH_CACHED_S: Final = 60.0  # while the list in use is an old one from disk
REFRESH_WAITING_S: Final = 300.0  # while a symbol is wanted that the list does not have
RAW_QUEUE_SIZE_MAX: Final = 4 << 20  # for the recorder to read; `Tap` holds what is more
# A connection may be longer on its way than the one after it, by so much where the machine is busy. With exactly
# three a second, as permitted, an exchange saw four in one, and was left alone for half a minute.
ON_THE_WAY_S: Final = 0.5
STOP_CONNECTIONS_S: Final = 2.5  # for all of them together, at the end of the process
assert 2 * END_TASKS_S + STOP_CONNECTIONS_S < END_S, "an end in order has its time"
NEVER_READ: Final[Stamp] = (-1, -1, -1)

log = logging.getLogger(__name__)


class Feed:
    """One exchange's feed process."""

    def __init__(
        self,
        config: Config,
        name: str,
        shard: Shard,
        http: Mapping[str, HttpClient],
        looks: Iterable[Callable[[], None]] = (),
        failures: Failures | None = None,
        awaited: Sequence[str] = (),
    ) -> None:
        """http has a client for each market; looks are further ones that see to files.

        failures are counted together with those given. awaited are addresses of what was started together with us,
        and may not listen yet.
        """
        self._name = name
        self._shard = shard
        self._settings = config.exchange(name)
        self._awaited = awaited
        self._run_dir = config.run_dir
        self._http = http
        self._markets = [make() for make in EXCHANGES[name].markets]
        self._timekeepers = [Timekeeper(market, http[market.name]) for market in self._markets]
        loop = asyncio.get_running_loop()
        group = private.group_of(config.group, f"{config.path}: group")
        self._publisher = Publisher(loop, config, name, self._markets, shard, self._greet, group)
        self._rng = random.Random()
        self._failures = failures or Failures()
        self._stop = asyncio.Event()
        self._table: InstrumentTable | None = None
        self._listing: InstrumentList | None = None  # of all
        folder = config.run_dir if self._settings.origin else ""  # a simulator's is nobody else's concern
        self._budgets: dict[str, SharedBudget] = {}
        for market in self._markets:
            # One, whatever hosts and addresses the legs have: some exchanges count by host, others by address.
            if (budget := market.connect_budget) not in self._budgets:
                url = self._settings.markets[market.name].ws_url or market.ws_url
                path = path_of(name, url, folder, budget)
                count, per_s = market.connects
                self._budgets[budget] = SharedBudget(path, count, per_s + ON_THE_WAY_S)
        flags = self._settings.origin
        retire_others(config.run_dir, name, shard)
        path = board_path(config.run_dir, name, shard)
        self._board: BoardWriter | None = None
        if config.board:  # the earliest that anybody on this host can know: written as each record is made
            self._board = open_board(path, session=self._publisher.session, group=group)
        else:
            retire(path)  # of an earlier configuration
        boards = () if self._board is None else (self._board.look,)
        self._tap: Tap | None = None
        self._offer: Offer | None = None
        if raw := self._settings.raw_of(shard):
            self._offer = offer = Offer(
                loop,
                raw,
                lambda: tap.on_join(),
                key=f"exchanges.{name}.raw",
                queue_size_max=RAW_QUEUE_SIZE_MAX,
                group=group,
            )

            def soon(act: Callable[[], object]) -> None:
                loop.call_soon(loop.call_soon, act)  # in the next turn: at the end of this one records leave

            self._tap = tap = Tap(offer.send, time.time_ns, time.monotonic_ns, soon)
        offers = () if self._offer is None else (self._offer.look,)
        self._upkeep = Upkeep(config, self._publisher.look, *boards, *offers, *looks)
        lacking = {
            market.name: text
            for market in self._markets
            if (text := config.lacking_address(name, market.name))
        }
        self._universe = Universe(self._markets, self._make_legs, flags, shard.has, self._board, lacking)
        self._surveys = {market: Survey() for market in self._markets}
        self._pollings = [
            Polling(market, poll, self._publisher.emit) for market in self._markets for poll in market.polls
        ]
        self._asking = Asking(
            http, self._pollings, self._tap, self._failures, self._publisher.flush_soon, self._note_problems
        )
        self._listings = Listings(self._markets, self._asking, config.run_dir, lacking, self._failures)
        self._besides = Wanted()  # the configuration
        self._wanted = self._kinds(self._besides)
        self._listings.want(self._wanted)
        self._wanted_stamp: Stamp | None = NEVER_READ
        self._requests_stamp = snapshots_stamp(config.run_dir)  # what was requested before has been answered
        self._stale: dict[str, str] = {}  # channels that are silent and should not be
        window = self._settings.renew_window
        self._window = DailyWindow(window) if window else None
        self._connections: list[Connection] = []
        self._connections_made = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._invalid = InvalidTopics(self._markets)
        self._complaints = Complaints()
        self._waiting: set[asyncio.Task[None]] = set()  # of them those for REST, for which nobody waits
        self._status = FeedStatus(
            exchange=name,
            shard=str(shard),
            pid=os.getpid(),
            started_ns=time.time_ns(),
            simulated=self._settings.simulated,
            replay=self._settings.replay,
            state="connecting",
            starting="connecting, attempt 1, in progress",
            wanted=dict(self._wanted),
        )
        self._plan()

    async def run(self) -> int:
        """Run until SIGTERM (returns 0), or until too many attempts in a row brought no data (75)."""
        loop = asyncio.get_running_loop()
        on_stop_signals(self._stop.set, loop)
        loop.set_exception_handler(self._failures.on_loop_exception)
        loop.add_signal_handler(signal.SIGUSR1, self._universe.renew, "by order")
        tasks: list[asyncio.Task[None]] = []

        def endure(what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
            tasks.append(asyncio.create_task(self._failures.endure(what, work)))
            tasks[-1].add_done_callback(lambda _: self._stop.set())

        status = EXIT_FAILED  # of an end by an exception
        try:
            endure("the heartbeat", self._beat)
            await self._await_others()
            for market, timekeeper in zip(self._markets, self._timekeepers, strict=True):
                endure("the exchange's clock", functools.partial(self._keep_time, market, timekeeper))
            status = await self._work()
            return status
        finally:
            end_within(END_S, status)
            await end_tasks(tasks)
            self._status.stopping = True
            self._send_status()
            self._publisher.close()
            if self._tap is not None and self._offer is not None:
                self._tap.flush()
                self._offer.close()
            if self._board is not None:
                self._board.close()
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result()  # a bug in our reasoning ends the process, with its traceback

    async def _keep_time(self, market: Market, timekeeper: Timekeeper) -> None:
        while True:
            if self._listings.is_needed(market):
                await timekeeper.run()
            await asyncio.sleep(HEARTBEAT_S)

    async def _await_others(self) -> None:
        """Wait for the simulator, so that its start is no fault; in vain, and it is one."""
        deadline_mono_s = time.monotonic() + AWAITED_S
        starting = self._status.starting
        for url in self._awaited:
            while not await listens(url) and time.monotonic() < deadline_mono_s and not self._stop.is_set():
                self._status.starting = "connecting, waits for the simulator to listen"
                await asyncio.sleep(AWAITED_EVERY_S)
        self._status.starting = starting

    async def _work(self) -> int:
        """Return the exit status once stopped, or given up."""
        first = asyncio.create_task(self._first_instruments())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait([first, stop], return_when=asyncio.FIRST_COMPLETED)
        await end_tasks([stop] if first.done() else [first, stop])  # an answer may never come
        if self._stop.is_set():
            return EXIT_OK
        if not first.result():
            return EXIT_GAVE_UP
        self._carry()
        settle()
        return await self._run_connections()

    # --- instruments

    async def _first_instruments(self) -> bool:
        """Get the list from REST, else from disk; keep trying if there is neither. False: gave up."""
        policy = self._settings.policy()
        attempt = 0
        while not self._stop.is_set():
            attempt += 1
            errors = await self._listings.fetch()
            if self._listings:
                self._take_instruments()
                return True
            error = errors[0]
            if 0 < policy.max_attempts <= attempt:
                log.error("no instrument list after %d attempts, giving up: %s", attempt, error)
                return False
            delay = max(policy.backoff_s(attempt, self._rng), _retry_after_s(errors))
            log.warning("no instrument list, attempt %d, next in %.1f s: %s", attempt, delay, error)
            await self._wait(delay, f"connecting, attempt {attempt + 1}", str(error))
        return False

    async def _wait(self, delay_s: float, what: str, error: str) -> None:
        """Sleep or be stopped, and show a countdown in the status."""
        due = time.monotonic() + delay_s
        while (left := due - time.monotonic()) > 0 and not self._stop.is_set():
            self._status.starting = f"{what}, next in {left:.1f} s, last error: {error}"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, 0.5)):
                    await self._stop.wait()
        self._status.starting = f"{what}, in progress, last error: {error}"

    def _take_instruments(self) -> None:
        self._listing = listing = self._listings.whole()
        self._table = listing.table()
        for market in self._markets:
            market.learn(each for each in self._table.by_native.values() if each.market == market.name)
        self._status.instruments = len(listing.instruments)
        self._status.instruments_as_of_ns = listing.as_of_ns
        self._note_problems()
        self._send_instruments()

    def _note_problems(self) -> None:
        """Tell, once each, what lists lack, and what is to be known of instruments that are carried."""
        assert self._table is not None
        carried = (self._table.by_native.get(native) for native in self._universe.natives)
        notes = [f"{i.symbol} is {i.note}" for i in carried if i is not None and i.note]
        surveyed = [problem for problem in self._asking.problems.values() if problem]
        known, self._status.problems = self._status.problems, [*self._table.problems, *surveyed, *notes]
        for problem in self._status.problems:
            if problem not in known:
                log.warning("%s", problem)

    async def _refresh(self) -> None:
        """Fetch the list again from time to time; what changed is published."""
        soon_s = REFRESH_CACHED_S
        while True:
            listing = self._listing
            assert listing is not None
            is_old = time.time_ns() - listing.as_of_ns > self._settings.refresh_s * NS_PER_S
            if is_old or self._listings.is_incomplete:
                await self._sleep_until_refresh(min(soon_s, self._settings.refresh_s))
                soon_s *= 2  # a market may not be had for long, or not at all
            else:
                soon_s = REFRESH_CACHED_S
                await self._sleep_until_refresh(self._settings.refresh_s)
            errors = await self._listings.fetch()
            is_in_vain = len(errors) == len(self._listings.needed())
            if not is_in_vain:
                self._take_instruments()
            self._carry()
            if is_in_vain:  # else it is one market's list that cannot be had, and the next is in its own time
                refused = [error for error in errors if isinstance(error, HttpRefused)]
                await asyncio.sleep(_retry_after_s(refused))

    async def _sleep_until_refresh(self, delay_s: float) -> None:
        """Sleep, but less if something is wanted that a newer list may have."""
        started = time.monotonic()
        while (passed_s := time.monotonic() - started) < delay_s:
            if self._universe.is_waiting and passed_s >= REFRESH_WAITING_S:
                return
            if self._listings.unasked():
                return
            await asyncio.sleep(min(1.0, delay_s - passed_s))

    def _kinds(self, wanted: Wanted) -> Kinds:
        """Return what to carry, kinds by symbol: nothing of an exchange that is not to be connected to."""
        if not wanted.is_connected(self._settings.connect):
            return {}
        return wanted.kinds(self._settings.configured)

    def _is_asked(self, symbol: str, kind: str) -> bool:
        """True unless a kind of a symbol is wanted because it is configured for all of them."""
        return kind not in self._settings.kinds or OPERATOR in self._besides.owners(symbol, kind)

    def _take_wanted(self) -> None:
        """See whether something else is wanted; not while everything is being stopped."""
        if self._stop.is_set():
            return
        stamp = wanted_stamp(self._run_dir, self._name)
        if stamp == self._wanted_stamp:
            return
        is_first = self._wanted_stamp == NEVER_READ
        self._wanted_stamp = stamp
        try:
            file = read_wanted(self._run_dir, self._name)
        except ConfigError as exc:
            log.error("what is wanted stays as it is: %s", exc)
            return
        self._status.connect = file.is_connected(self._settings.connect)
        self._besides = file
        before, self._wanted = self._wanted, self._kinds(file)
        self._listings.want(self._wanted)
        added, dropped = difference(self._wanted, before), difference(before, self._wanted)
        if is_first:  # whoever starts this is to know what was ordered long ago
            text = file.besides(self._name, self._settings.connect)
            log.info(
                "wanted besides the configuration, by %s: %s", wanted_path(self._run_dir, self._name), text
            )
        for text, changed in (("more", added), ("no more", dropped)):
            if changed and not is_first:
                log.info("wanted %s: %s", text, listed(changed))
        self._carry()
        self._send_status()

    def _take_requests(self) -> None:
        """See whether snapshots of books are requested, by a relay that has none."""
        stamp = snapshots_stamp(self._run_dir)
        if stamp == self._requests_stamp or self._table is None:
            return
        self._requests_stamp = stamp
        own = f"{BOOK.name}.{self._name}."
        topics = read_requested_snapshots(self._run_dir)
        symbols = {topic.removeprefix(own) for topic in topics if topic.startswith(own)}
        if symbols:
            table = self._table
            self._universe.repeat_books({n for n in table.by_native if table.symbol_of(n) in symbols})

    # --- connections

    def _carry(self) -> None:
        """Carry what is wanted; what the exchange does not have is reported, and tried with each new list."""
        if self._table is None:
            self._status.wanted = self._wanted
            return
        known, renamed = self._universe.rejected, self._universe.renamed
        unasked = self._listings.unasked()
        wanted = {
            symbol: kinds
            for symbol, kinds in self._wanted.items()
            if not any(market.names(symbol) for market in unasked)
        }
        change = self._universe.reconcile(self._table, wanted, time.time_ns(), self._is_asked)
        self._status.wanted = self._universe.wanted
        self._plan()
        self._status.rejected, self._status.renamed = self._universe.rejected, self._universe.renamed
        self._status.left_out = left_out(self._markets)
        for symbol, reasons in self._universe.rejected.items():
            for reason in dict.fromkeys(reasons.values()):
                if reason not in known.get(symbol, {}).values():
                    log.warning("rejected: %s", reason)
        for symbol, name in self._universe.renamed.items():
            if renamed.get(symbol) != name:
                log.warning("%s is called %s now", symbol, name)
        for state in self._universe.states:
            state.session = self._publisher.session
        self._note_problems()
        self._apply(change)
        self._status.starting = ""
        self._publisher.flush_soon()

    def _plan(self) -> None:
        """Have recorded what is to be received from now on."""
        if self._tap is not None:
            markets = [
                PlannedMarket(
                    name=market.name,
                    prefix=market.prefix,
                    instruments_url=self._asking.rest_url(market) + market.instruments_request.path,
                )
                for market in self._markets
            ]
            plan = Plan(
                exchange=self._name,
                shard=str(self._shard),
                session_ns=self._status.started_ns,
                pid=self._status.pid,
                version=__version__,
                simulated=self._settings.simulated,
                markets=markets,
                wanted=dict(self._status.wanted),
            )
            self._tap.begin(plan)

    def _make_legs(self, market: Market, states: Sequence[State]) -> Legs:
        return Legs(
            market,
            states,
            self._publisher.emit,
            count=self._settings.legs,
            policy=self._settings.policy(),
            budget=self._budgets[market.connect_budget],
            rng=self._rng,
        )

    def _apply(self, change: Change) -> None:
        """Run new connections, and stop those that are not needed any more."""
        for session in change.run:
            if session.reason:
                log.info("renewing a connection of leg %d: %s", session.leg, session.reason)
            label = f"{self._name}.{self._connections_made}"
            market = session.market
            self._connections_made += 1
            connection = Connection(
                label,
                session,
                market,
                self._http[market.name],
                self._settings.markets[market.name].leg_ws_url(session.leg) or market.ws_url,
                self._publisher.flush_soon,
                self._settings.leg_source_address(session.leg),
                failures=self._failures,
                tap=self._tap,
            )
            self._connections.append(connection)
            self._tasks.add(asyncio.create_task(self._failures.endure("a connection", connection.run)))
        for session in change.stop:
            (connection,) = (c for c in self._connections if c.session is session)
            self._connections.remove(connection)
            self._tasks.add(asyncio.create_task(self._end(connection)))
            if session.subscriptions.states:
                text = "gave up renewing" if session.reason else "renewed"
                log.info("%s a connection of leg %d", text, session.leg)
        self._on_connections()

    async def _end(self, connection: Connection) -> None:
        await self._failures.attempt("the end of a connection", connection.stop)

    async def _steer(self) -> None:
        """Renew connections that are due, and look who has fallen silent."""
        if self._window is not None and self._window.opens(time.time_ns()):
            self._universe.renew(f"the window {self._settings.renew_window}")
        for change in self._universe.advance(time.monotonic_ns()):
            for question in change.ask:
                self._spawn(self._asking.quote(question))
            for wanted in change.ask_trades:
                self._spawn(self._asking.trades(wanted))
            for base in change.ask_bases:
                self._spawn(self._asking.base(base))
            if change.run or change.stop:
                self._apply(change)
            self._publisher.flush_soon()
            await asyncio.sleep(0)  # sockets are read between groups

        for market, survey in self._surveys.items():
            legs = [legs for legs in self._universe.legs if legs.market is market]
            if survey.begin(legs, time.monotonic_ns()):
                self._spawn(self._asking.about_all(market, survey))
        for polling in self._pollings:
            if (asked := polling.advance(time.monotonic_ns())) is not None:
                self._spawn(self._asking.poll(asked))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what waits for REST, and for which nobody waits."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._waiting.discard)
        self._tasks.add(task)
        self._waiting.add(task)

    def _note_stale(self) -> None:
        """Report the channels that are silent and should not be; log which have come or gone."""
        stale = self._universe.stale()
        for topic in [topic for topic in stale if topic not in self._stale][:LISTED_MAX]:
            log.warning("stale: %s: %s", topic, stale[topic])
        if gone := [topic for topic in self._stale if topic not in stale]:
            log.info(
                "no more stale: %s%s", ", ".join(gone[:LISTED_MAX]), " …" if len(gone) > LISTED_MAX else ""
            )
        self._stale = stale
        self._status.stale = len(stale)
        self._status.stale_topics = dict(list(stale.items())[:LISTED_MAX])

    def _note_lost(self) -> None:
        """Report and log how many trades could not be had."""
        lost = self._universe.lost_trades()
        before, self._status.lost_trades = self._status.lost_trades, lost
        self._status.recovered_trades = self._universe.recovered_trades()
        for topic in [topic for topic in lost if lost[topic] != before.get(topic)][:LISTED_MAX]:
            count = str(lost[topic] - before.get(topic, 0)) if lost[topic] > 0 else "an unknown number of"
            log.warning(
                "lost: %s trades of %s, which no connection and no REST request brought", count, topic
            )

    def _on_connections(self) -> None:
        """Connections have come or gone."""
        # A single one sends at the end of each read; several share a message.
        sockets = sum(len(connection.session.sockets) for connection in self._connections)
        flush = self._publisher.flush if sockets == 1 else self._publisher.flush_soon
        for connection in self._connections:
            connection.flush = flush
        self._status.connections = [_status_of(connection) for connection in self._connections]

    async def _run_connections(self) -> int:
        """Return the exit status once stopped, or given up."""
        refresh = asyncio.create_task(self._failures.endure("the instrument list", self._refresh))
        stop = asyncio.create_task(self._stop.wait())
        try:
            while not self._stop.is_set():
                done, _ = await asyncio.wait(
                    {stop, refresh, *self._tasks}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()  # a bug in our reasoning ends the process, with its traceback
                    self._tasks.discard(task)
                await self._steer()
                if self._has_given_up():
                    log.error("giving up: %s", self._status.text(time.time_ns()))
                    return EXIT_GAVE_UP
            return EXIT_OK
        finally:
            self._stop.set()  # also if it gives up: nothing new is to begin
            ends = [asyncio.create_task(self._end(connection)) for connection in self._connections]
            await end_tasks([stop, refresh, *self._waiting])
            # Connections end by themselves, with a close frame; each of them has a limit.
            await asyncio.wait({stop, *ends, *self._tasks}, timeout=STOP_CONNECTIONS_S)
            self._publisher.flush()

    def _has_given_up(self) -> bool:
        """One connection that fails for good does not take down others that deliver."""
        sessions = [connection.session for connection in self._connections]
        return any(s.has_given_up() for s in sessions) and all(s.attempts for s in sessions)

    # --- what the merger gets besides records

    async def _beat(self) -> None:
        """Say that we live, and how; look for the merger if it is away."""
        alive = msgspec.json.encode({"pid": self._status.pid, "shard": self._status.shard})
        count = 0
        while True:
            if self._board is not None:
                self._board.beat()
            self._upkeep.on_time(time.monotonic())
            self._publisher.poll()
            if self._tap is not None:
                self._tap.flush()
            if self._publisher.take_loss():
                self._send_status()  # so that the loss is counted
                self._publisher.greet()  # a quiet symbol would not send again what was lost
                self._universe.repeat_all_books()
            self._take_wanted()
            self._take_requests()
            # A fifth of the connections at a time: to look at thousands of symbols takes milliseconds.
            self._invalid.look(count % HEARTBEATS_PER_STATUS, HEARTBEATS_PER_STATUS, time.time_ns())
            self._look_at(range(count % HEARTBEATS_PER_STATUS, len(self._connections), HEARTBEATS_PER_STATUS))
            if count % HEARTBEATS_PER_STATUS == 0 or self._state() != self._status.state:
                self._send_status()
            else:
                self._publisher.send_document(wire.HEARTBEAT, alive)
            count += 1
            await asyncio.sleep(HEARTBEAT_S)

    def _greet(self) -> None:
        """Tell a merger that joined who we are, before any record, and then all that is known."""
        self._status.resync += 1
        self._publisher.recount()
        self._send_status()
        self._send_instruments()
        self._publisher.greet()
        self._universe.repeat_all_books()

    def _state(self) -> str:
        if self._status.stopping:
            return "down"
        is_idle = not self._status.wanted
        return feed_state(self._universe.legs, is_starting=bool(self._status.starting), is_idle=is_idle)

    def _look_at(self, indices: Iterable[int]) -> None:
        """Renew the part of the status about some connections."""
        for index in indices:
            self._status.connections[index] = _status_of(self._connections[index])

    def _send_status(self) -> None:
        status, state = self._status, self._state()
        if state != status.state:
            status.state = state
            self._look_at(range(len(self._connections)))
            is_well = state in ("live", "idle") or status.stopping
            text = "" if status.stopping else f": {status.text(time.time_ns())}"
            log.log(logging.INFO if is_well else logging.WARNING, "now %s%s", state, text)
        self._note_stale()
        self._note_lost()
        for text in self._complaints.due((c.session for c in self._connections), time.time_ns()):
            log.warning("%s", text)
        status.failures = dict(self._failures.counts)
        status.hop_records = self._publisher.records
        status.books_valid, status.books_waiting = self._universe.books()
        status.polled = [each.status(time.monotonic_ns()) for each in self._pollings]
        self._invalid.report(status)
        self._timekeepers[0].report(status)
        self._publisher.send_document(wire.STATUS, msgspec.json.encode(status))

    def _send_instruments(self) -> None:
        if self._listing is not None:
            self._publisher.send_document(wire.INSTRUMENTS, msgspec.json.encode(self._listing))


def _status_of(connection: Connection) -> ConnectionStatus:
    return connection_status(connection.session, time.time_ns(), time.monotonic_ns(), connection.address)


def _retry_after_s(errors: Iterable[ProtocolError | DecodeError]) -> float:
    """Return how long the exchange asked us to wait."""
    return max((error.retry_after_s for error in errors), default=0.0)


async def _main(config: Config, name: str, shard: Shard, looks: Iterable[Callable[[], None]]) -> int:
    failures = Failures()
    budgets: dict[str, RestBudget] = {}  # as the exchange counts
    clients: dict[str, HttpClient] = {}
    async with contextlib.AsyncExitStack() as stack:
        for market in EXCHANGES[name].markets:
            made = RestBudget(market.rest_limit, shard.count, market.rest_header)
            budget = budgets.setdefault(market.rest_budget, made)
            client = HttpClient(config.rest_url(name, market.name), budget, failures, market.path_statuses)
            clients[market.name] = await stack.enter_async_context(client)
        return await Feed(config, name, shard, clients, looks, failures, _awaited(config, name)).run()


def _awaited(config: Config, name: str) -> list[str]:
    """Return the addresses of a simulator that the supervisor has started just before us; none without both."""
    exchange = config.exchange(name)
    if config.sim is None or not exchange.simulated or not is_supervised():
        return []
    return [url for url in dict.fromkeys((exchange.rest_url, exchange.ws_url)) if url]


def run(config: Config, name: str, shard: Shard) -> int:
    """Run the feed of one exchange, or of a shard of its symbols; returns the exit status."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # whoever finds our lock may send it at once
    if config.is_merger_elsewhere:
        keep_secrets_in_memory()
    with feed_lock(config.run_dir, name, shard) as looks:
        use_cpus(config.exchange(name).cpus, f"{config.path}: exchanges.{name}.cpus")
        return uvloop.run(_main(config, name, shard, looks))
