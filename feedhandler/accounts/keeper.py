"""Keeps one exchange's account known: a signed look every minute, and the private stream in between.

`balances.Ledger` decides what is held, the exchange's file how requests are made; here are sending, sockets,
pauses. Each account has tasks and a client of its own, so that one exchange's failure delays no other. Logs have
what changed of the condition, and never amounts.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

import aiohttp

from feedhandler.accounts.adapter import HTTP_TROUBLES, Account, AccountError, AccountStream, Trouble
from feedhandler.accounts.balances import SETTLE_NS, AccountProblem, AccountStatus, Ledger, problem
from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.data.refusal import first_words
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.transport.dial import TcpConnector
from feedhandler.transport.http import HttpClient, HttpRefused
from feedhandler.transport.tasks import Failures, end_tasks
from feedhandler.transport.timekeeper import Timekeeper

JITTER: Final = 0.1  # of the pause between two looks, so that accounts do not go in step
PAUSE_MIN_S: Final = 1.0  # between two looks, whoever orders them
# And before one that the stream makes necessary: 20 a minute are two thirds of our share at Binance.
HURRY_MIN_S: Final = 3.0
OPERATOR_S: Final = 600.0  # between two tries while somebody has to change something first
HANDSHAKE_S: Final = 10.0
MESSAGE_SIZE_MAX: Final = 4 << 20
MAX_AGE_S: Final = 23 * 3600.0  # of a private connection: exchanges end it at 24 h, and a look follows each
CLOSE_S: Final = 1.0  # for the other side's close frame
END_S: Final = 2 * CLOSE_S  # for all tasks of an account

log = logging.getLogger(__name__)


class Keeper:
    """One account. ws_url is where its private stream is, "" where the exchange names it.

    on_change is called whenever the status has changed in any respect.
    """

    def __init__(
        self,
        account: Account,
        http: HttpClient,
        ws_url: str,
        budget: ConnectBudget,
        *,
        every_s: float,
        on_change: Callable[[], object],
        failures: Failures,
    ) -> None:
        self.name = account.name
        self._place = f"{account.name}'s account"  # of a failure
        self._account = account
        self._http = http
        self._ws_url = ws_url
        self._budget = budget
        self._every_s = every_s
        self._on_change = on_change
        self._unforeseen = failures
        self._timekeeper = Timekeeper(EXCHANGES[account.name].main(), http)
        self._policy = Policy(backoff_max_s=every_s)
        self._rng = random.Random()
        self._ledger = Ledger()
        self._status = AccountStatus(exchange=account.name, state="syncing")
        self._failures = 0  # of syncs in a row,
        self._retry_after_s = 0.0  # after which the exchange wants to be left alone for so long
        self._synced_mono = float("-inf")  # when the last one began
        self._syncing: asyncio.Task[None] | None = None
        self._due_mono = 0.0  # when the next one does
        self._is_hurried = False  # something has changed since the last one began, which it may not have
        self._replanned = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # --- what others see and do

    def status(self) -> AccountStatus:
        """Return what is known now."""
        self._status.balances = self._ledger.rows()
        self._status.drifts, self._status.drifted = self._ledger.drifts, self._ledger.drifted
        return self._status

    def start(self) -> Sequence[asyncio.Task[None]]:
        """Begin to keep it; returns the tasks, none of which ends by itself but by a bug."""
        for work in (self._timekeeper.run, self._run_syncs, self._run_stream, self._settle):
            self._tasks.append(asyncio.create_task(self._unforeseen.endure(self._place, work)))
        return self._tasks

    async def sync(self) -> AccountStatus:
        """Look now, or wait for the look that is under way; whether it succeeded is in the status."""
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(self._sync())
        look = self._syncing
        await asyncio.wait([look])  # neither cancels the other: a caller may go, and so may the account
        if not look.cancelled():
            look.result()
        return self.status()

    async def close(self) -> None:
        """End everything, with a proper close of the socket."""
        tasks = [*self._tasks, *([self._syncing] if self._syncing else [])]
        await end_tasks(tasks, END_S)
        for task in tasks:
            if task.done() and not task.cancelled() and (exc := task.exception()) is not None:
                log.error("%s: a task of the account failed", self.name, exc_info=exc)

    # --- REST

    async def _run_syncs(self) -> None:
        while True:
            await self.sync()
            while (wait_s := self._due_mono - time.monotonic()) > 0:
                self._replanned.clear()
                # Not `wait_for`: in Python 3.11 it loses a cancellation that comes with what it waits for.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._replanned.wait()

    def _hurry(self) -> None:
        """Look soon, since the stream does not state all; but what keeps failing keeps its pauses."""
        self._is_hurried = True
        if not self._failures:
            self._plan(max(0.0, self._due_mono - time.monotonic()))

    def _plan(self, pause_s: float) -> None:
        """Look again after so long, or before, if that was planned."""
        now = time.monotonic()
        due_mono = now + pause_s
        if self._is_hurried and not self._failures:
            due_mono = min(due_mono, max(now, self._synced_mono + HURRY_MIN_S))
        self._due_mono = due_mono
        self._status.next_sync_ns = time.time_ns() + int((due_mono - now) * NS_PER_S)
        self._replanned.set()

    def _pause_s(self) -> float:
        """Return how long until the next look: less after a failure, unless that needs patience."""
        if not self._failures:
            return self._every_s * self._rng.uniform(1 - JITTER, 1 + JITTER)
        error = self._status.error
        if error is not None and Trouble(error.kind).needs_operator:
            return OPERATOR_S
        return max(PAUSE_MIN_S, self._policy.backoff_s(self._failures, self._rng), self._retry_after_s)

    async def _sync(self) -> None:
        """Look once; a second time if the request's time was refused, after a request for the exchange's."""
        await asyncio.sleep(max(0.0, self._synced_mono + PAUSE_MIN_S - time.monotonic()))
        self._synced_mono = time.monotonic()
        self._is_hurried = False
        self._retry_after_s = 0.0
        try:
            with self._unforeseen.converted(self._place, is_secret=True):
                await self._look_twice()
        except (AccountError, ProtocolError, DecodeError) as exc:
            self._failures += 1
            self._retry_after_s = getattr(exc, "retry_after_s", 0.0)
            error = self._known_better(exc) or _problem_of(exc)
            self._status.failures = {
                **self._status.failures,
                error.kind: self._status.failures.get(error.kind, 0) + 1,
            }
            self._set_state("failed", error)
        else:
            self._failures = 0
            self._status.syncs += 1
            self._set_state("live", None)

    async def _look_twice(self) -> None:
        try:
            await self._look()
        except AccountError as exc:
            if exc.trouble is not Trouble.CLOCK:
                raise
            await self._timekeeper.refresh()
            await self._look()

    def _known_better(self, exc: Exception) -> AccountProblem | None:
        """Return the known problem where a ban is its consequence: the ban's status alone has less."""
        known = self._status.error
        is_ban = isinstance(exc, HttpRefused) and exc.status == HTTPStatus.FORBIDDEN
        return known if is_ban and known is not None and known.kind == Trouble.REGION.value else None

    async def _look(self) -> None:
        asked_mono_ns = time.monotonic_ns()
        answer = await self._http.ask(self._account.balances_request(self._timekeeper.now_ms()))
        rows = self._account.decode_balances(answer)
        if not rows.items and (request := self._account.kind_request(self._timekeeper.now_ms())) is not None:
            self._account.check_kind(await self._http.ask(request))
        is_complete = not rows.problem
        self._ledger.on_sync(rows.items, asked_mono_ns, time.monotonic_ns(), is_complete=is_complete)
        self._note_incomplete(rows.problem)
        self._status.as_of_ns = time.time_ns()
        if self._ledger.is_open(asked_mono_ns):
            asyncio.get_running_loop().call_later(SETTLE_NS / NS_PER_S, self._hurry)

    def _note_incomplete(self, text: str) -> None:
        if text and self._status.incomplete is None:
            log.warning("%s: %s", self.name, text)
        self._status.incomplete = problem(Trouble.ANSWER, text) if text else None

    def _set_state(self, state: str, error: AccountProblem | None) -> None:
        """Note how a look has ended, and when the next one is."""
        before = self._status.state, self._status.error and self._status.error.kind
        self._status.state, self._status.error = state, error
        if before != (state, error and error.kind):
            if error is None:
                log.info("%s: balances are known", self.name)
            else:
                log.warning("%s: no balances: %s; %s", self.name, error.message, error.remedy)
        self._plan(self._pause_s())
        self._on_change()

    async def _settle(self) -> None:
        """Look from time to time whether stream and REST contradict each other."""
        while True:
            await asyncio.sleep(SETTLE_NS / NS_PER_S)
            if self._ledger.settle(time.monotonic_ns()):
                log.warning("%s: the private stream has missed a change, which REST has", self.name)
                self._on_change()

    # --- the private stream

    async def _run_stream(self) -> None:
        """Converse, again and again."""
        failures = 0
        async with aiohttp.ClientSession(
            connector=TcpConnector(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # ours, as in `HttpClient`
            headers={"User-Agent": "feedhandler"},
            trust_env=False,
        ) as session:
            while True:
                began = time.monotonic()
                try:
                    with self._unforeseen.converted(self._place, is_secret=True):
                        await self._converse(session)
                    failures = 0
                except (AccountError, ProtocolError, DecodeError) as exc:
                    was_live = self._status.stream == "live"
                    failures = 1 if was_live or time.monotonic() - began > OPERATOR_S else failures + 1
                    self._set_stream("connecting", _problem_of(exc))
                    if isinstance(exc, AccountError) and exc.trouble is Trouble.CLOCK:
                        await self._timekeeper.refresh()
                    await asyncio.sleep(self._stream_pause_s(exc, failures))
                finally:
                    self._ledger.on_stream_lost()

    def _stream_pause_s(self, exc: Exception, failures: int) -> float:
        error = self._status.error  # REST may know better why we are refused
        if isinstance(exc, AccountError) and (
            exc.trouble.needs_operator or (error is not None and Trouble(error.kind).needs_operator)
        ):
            return OPERATOR_S
        return max(self._policy.backoff_s(failures, self._rng), getattr(exc, "retry_after_s", 0.0))

    async def _converse(self, session: aiohttp.ClientSession) -> None:
        """Hold one connection until it grows old. Raises what ends it otherwise."""
        self._set_stream("connecting", self._status.stream_error)
        request = self._account.stream_request(self._timekeeper.now_ms())
        answer = None if request is None else await self._http.ask(request)
        stream = self._account.stream(self._ws_url, answer)
        await self._permission()
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                socket = await session.ws_connect(
                    stream.url,
                    autoping=False,
                    autoclose=False,
                    max_msg_size=MESSAGE_SIZE_MAX,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                )
        except aiohttp.WSServerHandshakeError as exc:
            raise ProtocolError(f"{self.name}: the private stream answers HTTP {exc.status}") from None
        except (TimeoutError, aiohttp.ClientError, OSError) as exc:
            # Its text may have the address, and in it a token.
            raise ProtocolError(f"{self.name}: no private stream: {type(exc).__name__}") from None
        self._status.stream_connects += 1
        try:
            await self._listen(socket, stream)
        finally:
            with contextlib.suppress(ConnectionError):  # a cancellation is not the close's: it ends us
                await socket.close()

    async def _permission(self) -> None:
        """Wait until the budget for new connections permits one more."""
        while not self._budget.take(now := time.monotonic_ns()):
            wait_s = (self._budget.next_mono_ns(now) - now) / NS_PER_S
            await asyncio.sleep(max(0.25, wait_s))

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse, stream: AccountStream) -> None:
        """Answer and take what comes, until the connection is old."""
        opened = received = time.monotonic()
        next_ping = opened + stream.ping_interval_s if stream.ping_interval_s else float("inf")
        await _send(socket, *stream.on_open(self._timekeeper.now_ms()))
        while (now := time.monotonic()) < opened + MAX_AGE_S:
            if now >= next_ping:
                next_ping = now + (stream.ping_interval_s or 0.0)
                await _send(socket, stream.ping(self._timekeeper.now_ms()))
            if now >= received + stream.silence_s:
                raise ProtocolError(f"{self.name}: the private stream is silent for {stream.silence_s:g} s")
            if not stream.is_live and now >= opened + HANDSHAKE_S:
                raise ProtocolError(
                    f"{self.name}: the private stream acknowledged nothing in {HANDSHAKE_S:g} s"
                )
            until = min(next_ping, received + stream.silence_s, opened + MAX_AGE_S)
            if not stream.is_live:
                until = min(until, opened + HANDSHAKE_S)
            try:
                message = await socket.receive(max(0.0, until - now))
            except TimeoutError:
                continue
            received = time.monotonic()
            await self._take(socket, stream, message)

    async def _take(
        self, socket: aiohttp.ClientWebSocketResponse, stream: AccountStream, message: aiohttp.WSMessage
    ) -> None:
        if message.type is aiohttp.WSMsgType.PING:
            with contextlib.suppress(ConnectionError):
                await socket.pong(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            await self._take_text(socket, stream, message.data.encode())
        elif message.type is aiohttp.WSMsgType.BINARY:  # of which nothing is quoted: it may hold amounts
            raise ProtocolError(f"{self.name}: the private stream sends bytes in place of text")
        elif message.type is aiohttp.WSMsgType.ERROR:
            said = first_words(str(socket.exception() or "no more is known"))
            raise ProtocolError(
                f"{self.name}: we closed the private stream, which broke the protocol: {said}"
            )
        elif message.type is not aiohttp.WSMsgType.PONG:
            code = f", code {socket.close_code}" if socket.close_code else ""
            raise ProtocolError(f"{self.name}: the private stream was closed by the exchange{code}")

    async def _take_text(
        self, socket: aiohttp.ClientWebSocketResponse, stream: AccountStream, payload: bytes
    ) -> None:
        try:
            received = stream.on_message(payload, self._timekeeper.now_ms())
            is_changed = self._ledger.on_stream(received.balances, time.monotonic_ns())
        except DecodeError as exc:
            self._status.undecodable += 1
            if self._status.undecodable == 1:  # it may hold amounts: only what is wrong with it is logged
                log.warning("%s: the private stream sends what is not understood: %s", self.name, exc)
            self._hurry()
            return
        await _send(socket, *received.send)
        if stream.is_live and self._status.stream != "live":
            self._ledger.on_stream_live(time.monotonic_ns())
            self._set_stream("live", None)
            self._hurry()  # no exchange sends the state first
        if received.is_incomplete:
            self._hurry()
        if is_changed:
            self._on_change()

    def _set_stream(self, state: str, error: AccountProblem | None) -> None:
        before = self._status.stream, self._status.stream_error
        self._status.stream, self._status.stream_error = state, error
        if before == (state, error):
            return
        if error is not None and error != before[1]:
            log.warning("%s: no private stream: %s; %s", self.name, error.message, error.remedy)
        elif state == "live":
            log.info("%s: the private stream is live", self.name)
        self._on_change()


async def _send(socket: aiohttp.ClientWebSocketResponse, *frames: bytes) -> None:
    try:
        for frame in frames:
            await socket.send_str(frame.decode())
    except ConnectionError as exc:
        raise ProtocolError(f"the private stream is gone: {type(exc).__name__}") from None


def _problem_of(exc: Exception) -> AccountProblem:
    if isinstance(exc, AccountError):
        return problem(exc.trouble, str(exc), exc.remedy)
    if isinstance(exc, HttpRefused):
        return problem(HTTP_TROUBLES.get(exc.status, Trouble.RATE_LIMIT), str(exc))
    if isinstance(exc, DecodeError):
        return problem(Trouble.ANSWER, str(exc))
    return problem(Trouble.NETWORK, str(exc))
