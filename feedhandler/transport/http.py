"""REST requests: instrument lists, handshakes, clocks, quotes. aiohttp with limits spelled out.

`RestBudget` decides when a request may go, as exchanges count the requests of an address; the client waits, or
refuses in the exchange's place.
"""

import asyncio
import collections
import contextlib
import time
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from feedhandler.data.errors import ProtocolError
from feedhandler.data.refusal import FINAL_S, REGION_REMEDY, first_words, is_of_a_region
from feedhandler.data.rest import LimitHeader, RestAnswer, RestRequest, number_of
from feedhandler.data.units import NS_PER_DAY, NS_PER_S
from feedhandler.transport.dial import TcpConnector
from feedhandler.transport.tasks import Failures

TIMEOUT_S: Final = 10.0
CLOSE_S: Final = 0.25  # for connections to end that nobody uses
BODY_SIZE_MAX: Final = 64 << 20  # Binance's full exchangeInfo is about 10 MB
# Statuses with which exchanges ban an address for a while; if none is stated, the usual ban's length.
PATIENCE_STATUSES: Final = {429: 30.0, 418: 120.0, 403: FINAL_S, 451: FINAL_S}
FIREWALL_REMEDY: Final = (
    "a firewall of the exchange turns this address away: for some minutes if it was asked too much, for good if its"
    " country is not served; another address of this machine goes to source_addresses"
)
RETRY_AFTER_MAX_S: Final = 3 * 86400.0  # Binance bans for three days at most

# What a request may fail with; TimeoutError is an OSError.
FORESEEN: Final = (aiohttp.ClientError, OSError, ValueError)

UNLIMITED: Final = (10**12, 1.0)  # weight, per seconds

# What one feed takes of an exchange's limit for an address. The others are for other processes and programs: two
# exchanges may share an address, a feed may have been started anew, its user may trade from here.
REST_SHARE: Final = 0.1
# And what those that share an exchange take together at most: they know nothing of each other. The other half is
# never ours: beyond its share a feed goes only while the exchange itself tells that the address has that half free.
SHARDS_SHARE: Final = 0.5
WHOLE_SHARE: Final = 1.0  # of our budget, for requests of which connections are made
# For present values of all symbols in one answer: what single ones wait for must not keep that back. 500 books of
# KuCoin use all that is theirs for minutes, and quiet symbols had no ticker for one.
SURVEY_SHARE: Final = 7 / 8
# For those without which the feed goes on: they leave the rest, and wait for nothing.
SPARE_SHARE: Final = 2 / 3
POLL_SHARE: Final = 1 / 3  # and for those that never end: they leave as much to whatever has a reason
TURN_WAIT_MAX_S: Final = 5.0  # for a turn; less than the time that a connection's handshake has
assert TURN_WAIT_MAX_S < TIMEOUT_S


class HttpRefused(ProtocolError):
    """An answer other than 200, or none since we did not send; status is the answer's, also of an earlier one."""

    def __init__(self, message: str, retry_after_s: float, status: int = 0) -> None:
        super().__init__(message, retry_after_s)
        self.status = status


class Ban:
    """Until when nothing may be asked, and the status of the answer that said so; times are monotonic."""

    def __init__(self) -> None:
        self._until_ns = 0
        self._status = 0

    def check(self, now_mono_ns: int) -> None:
        """Raise HttpRefused, with the time that is left, while it lasts."""
        if now_mono_ns < self._until_ns:
            left_s = (self._until_ns - now_mono_ns) / NS_PER_S
            text = f"not asked for {left_s:.1f} s more, since the answer was HTTP {self._status}"
            raise HttpRefused(text, left_s, self._status)

    def on_answer(self, status: int, retry_after_s: float, now_mono_ns: int) -> None:
        """Take the status of an answer; those of `PATIENCE_STATUSES` forbid any request for so long."""
        until_ns = now_mono_ns + int(retry_after_s * NS_PER_S)
        if status in PATIENCE_STATUSES and until_ns > self._until_ns:
            self._until_ns, self._status = until_ns, status


class RestBudget:
    """When requests may go: `REST_SHARE` of limit (weight, per seconds), and none during a ban.

    Pure; times are monotonic. A request heavier than the share has it for itself. feeds is how many processes
    share the exchange. What may use less than `WHOLE_SHARE` goes while all that went is within its share, and does
    not wait for that: it is repeated later.

    What has no room in the share goes beyond it, evenly, up to `SHARDS_SHARE` with all else, while header tells
    that the address has the rest free, if its turn is soon; but nothing that never ends.
    """

    def __init__(self, limit: tuple[int, float], feeds: int = 1, header: LimitHeader | None = None) -> None:
        weight, per_s = limit
        self.weight_max = max(1, int(weight * min(REST_SHARE, SHARDS_SHARE / feeds)))
        self.beyond_max = max(0, int(weight * SHARDS_SHARE / feeds) - self.weight_max)
        self._limit = weight
        self._header = header
        self._left = 0  # of the limit, for all of this address, as told and less what went since
        self._told_ns = -NS_PER_DAY
        self._beyond_at = 0  # when the next may go beyond
        self.per_s = per_s
        self._per_ns = int(per_s * NS_PER_S)
        self._turns: collections.deque[tuple[int, int]] = collections.deque()  # given: when, weight; in order
        self.ban = Ban()

    def turn_ns(self, weight: int, now_mono_ns: int, weight_max: int = 0) -> int:
        """Return when a request would have its turn: now, or after those before it."""
        weight_max = weight_max or self.weight_max
        while self._turns and self._turns[0][0] <= now_mono_ns - self._per_ns:
            self._turns.popleft()
        turn_ns = max(now_mono_ns, self._turns[-1][0]) if self._turns else now_mono_ns
        window = [turn for turn in self._turns if turn[0] > turn_ns - self._per_ns]
        used = sum(each for _, each in window)
        for at_ns, each in window:
            if used + weight <= weight_max:
                break
            turn_ns = at_ns + self._per_ns
            used -= each
        return turn_ns

    def take(self, weight: int, now_mono_ns: int, *, share: float = WHOLE_SHARE) -> int:
        """Give a turn, and return when it is. Raises HttpRefused if it is too far off, or during a ban."""
        self.ban.check(now_mono_ns)
        weight_max = max(1, int(self.weight_max * share))
        turn_ns = self.turn_ns(weight, now_mono_ns, weight_max)
        wait_s = (turn_ns - now_mono_ns) / NS_PER_S
        if wait_s <= (TURN_WAIT_MAX_S if share == WHOLE_SHARE else 0.0):
            self._turns.append((turn_ns, weight))
            self._left -= weight
            return turn_ns
        if share >= SPARE_SHARE and self._has_beyond(weight, now_mono_ns):
            turn_ns = max(now_mono_ns, self._beyond_at)
            beyond_wait_s = (turn_ns - now_mono_ns) / NS_PER_S
            if beyond_wait_s <= TURN_WAIT_MAX_S:
                self._left -= weight
                self._beyond_at = turn_ns + self._per_ns * weight // self.beyond_max
                return turn_ns
            wait_s = min(wait_s, beyond_wait_s)
        raise HttpRefused(
            f"our budget of weight {weight_max} in {self.per_s:g} s is used up,"
            f" and has {weight} free in {wait_s:.1f} s",
            wait_s,
        )

    def give_back(self, weight: int, turn_ns: int) -> None:
        """Take back a turn of which nothing came: the exchange has not seen that request."""
        with contextlib.suppress(ValueError):  # of long ago, or beyond the share
            self._turns.remove((turn_ns, weight))

    def _has_beyond(self, weight: int, now_mono_ns: int) -> bool:
        is_told = now_mono_ns - self._told_ns <= self._per_ns  # however old: the next answer tells anew
        return self.beyond_max > 0 and is_told and self._left - weight >= self._limit * (1 - SHARDS_SHARE)

    def on_headers(self, headers: Mapping[str, str], now_mono_ns: int) -> None:
        """Take what an answer tells of the address."""
        left = self._header.left(headers, self._limit) if self._header is not None else None
        if left is not None:
            self._left, self._told_ns = left, now_mono_ns


class HttpClient:
    """Requests to one REST host, within a budget that clients of other hosts may share; an async context manager.

    failures are counted together with those given. path_statuses are those of answers that are about the path that
    was asked for, for this client alone; all others are about the address, and so about the budget.
    """

    def __init__(
        self,
        rest_url: str,
        budget: RestBudget | None = None,
        failures: Failures | None = None,
        path_statuses: Collection[int] = (),
    ) -> None:
        self.rest_url = rest_url
        self._path_statuses = path_statuses
        self._bans: dict[str, Ban] = {}  # by path
        self._failures = failures or Failures()
        self._budget = budget or RestBudget(UNLIMITED)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "HttpClient":
        self._session = aiohttp.ClientSession(
            connector=TcpConnector(),
            # None of aiohttp's: one that passes in the same turn as a cancellation swallows it.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            headers={"User-Agent": "feedhandler"},
            trust_env=False,  # no proxy: the WebSocket would not take it, and loopback must not
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._session.close()

    async def fetch(self, request: RestRequest, *, share: float = WHOLE_SHARE) -> bytes:
        """Return the body of a 200 answer, after waiting for our turn.

        Raises HttpRefused for any other status, or if the budget forbids it, and ProtocolError for a failed
        or oversized transfer.
        """
        answer = await self.ask(request, share=share)
        if answer.status != 200:
            text, wait_s = refusal(answer.status, answer.body)
            what = self._describe(request)
            raise HttpRefused(f"{what}: {text}", answer.retry_after_s or wait_s, answer.status)
        return answer.body

    async def ask(self, request: RestRequest, *, share: float = WHOLE_SHARE) -> RestAnswer:
        """Return the answer, whatever its status, after waiting for our turn.

        Raises HttpRefused if the budget forbids it, and ProtocolError for a failed or oversized transfer.
        """
        assert self._session is not None, "use as a context manager"
        what = self._describe(request)
        turn_ns = await self._turn(request, what, share=share)
        try:
            place = what.partition("?")[0]  # one for all symbols
            with self._failures.converted(place, *FORESEEN, is_secret=request.is_signed):
                answer, body = await self._transfer(self._session, request)
        except TimeoutError as exc:
            raise ProtocolError(f"{what}: no answer within {TIMEOUT_S:g} s") from exc
        except FORESEEN as exc:
            if isinstance(exc, aiohttp.ClientConnectorError):
                self._budget.give_back(request.weight, turn_ns)
            if request.is_signed:  # it may quote the whole address
                raise ProtocolError(f"{what}: {type(exc).__name__}") from None
            raise ProtocolError(f"{what}: {exc or type(exc).__name__}") from exc
        if len(body) > BODY_SIZE_MAX:
            raise ProtocolError(f"{what}: answer exceeds {BODY_SIZE_MAX >> 20} MiB")
        self._budget.on_headers(answer.headers, time.monotonic_ns())
        wait_s = retry_after_s(answer.headers, answer.status)
        if request.is_signed and answer.status == 403 and answer.content_type == "application/json":
            return RestAnswer(answer.status, body)  # it is about the account; a firewall sends a page
        ban = self._budget.ban
        if answer.status in self._path_statuses:
            ban = self._bans.setdefault(_path_of(request), Ban())
        ban.on_answer(answer.status, wait_s, time.monotonic_ns())
        return RestAnswer(answer.status, body, wait_s)

    async def _transfer(
        self, session: aiohttp.ClientSession, request: RestRequest
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """Ask, and return the answer with its body, or with more than the body may have."""
        url = URL(self.rest_url + request.path, encoded=request.is_signed)  # what is signed stays as it is
        # A redirected POST would arrive as a GET, and a signed request is for nobody else.
        is_safe = request.method == "GET" and not request.is_signed
        async with (
            asyncio.timeout(TIMEOUT_S),
            session.request(request.method, url, headers=request.headers, allow_redirects=is_safe) as answer,
        ):
            body = await answer.content.read(BODY_SIZE_MAX + 1)
            while len(body) <= BODY_SIZE_MAX and (more := await answer.content.read(BODY_SIZE_MAX)):
                body += more
        return answer, body

    def _describe(self, request: RestRequest) -> str:
        """Return a request for messages; a signature in its query is nobody's business."""
        path = _path_of(request) if request.is_signed else request.path
        return f"{request.method} {self.rest_url}{path}"

    async def _turn(self, request: RestRequest, what: str, *, share: float) -> int:
        """Wait until the request may go, and return since when. Raises HttpRefused if that is not soon."""
        try:
            now_mono_ns = self._checked(request)
            turn_ns = self._budget.take(request.weight, now_mono_ns, share=share)
            if turn_ns > now_mono_ns:
                await asyncio.sleep((turn_ns - now_mono_ns) / NS_PER_S)
                self._checked(request)  # those before us may have got us banned
            return turn_ns
        except HttpRefused as exc:
            raise HttpRefused(f"{what}: {exc}", exc.retry_after_s, exc.status) from exc

    def _checked(self, request: RestRequest) -> int:
        """Return the time. Raises HttpRefused during a ban, of the address or of the path."""
        now_mono_ns = time.monotonic_ns()
        self._budget.ban.check(now_mono_ns)
        if (ban := self._bans.get(_path_of(request))) is not None:
            ban.check(now_mono_ns)
        return now_mono_ns


def _path_of(request: RestRequest) -> str:
    return request.path.partition("?")[0]


def refusal(status: int, body: bytes, location: str = "") -> tuple[str, float]:
    """Return in words why an answer is not the expected one, and what can be done about it.

    And for how long to send nothing, if the answer states none: 0 for as always.
    """
    page = body.decode(errors="replace")
    text = f"HTTP {status} {first_words(page)}".rstrip()
    if 300 <= status < 400 and location:
        target = urlsplit(location)  # in its query there may be a token
        where = first_words(
            f"{target.scheme}://{target.netloc}{target.path}" if target.netloc else target.path
        )
        return (
            f"{text}, a redirect to {where}, which is not followed: configure it, if it is the exchange's",
            0.0,
        )
    if status == 451 or (status >= 400 and is_of_a_region(page)):
        return f"{text}; {REGION_REMEDY}", FINAL_S
    if status == 403:
        return f"{text}; {FIREWALL_REMEDY}", FINAL_S
    return text, PATIENCE_STATUSES.get(status, 0.0)


def retry_after_s(headers: Mapping[str, str], status: int) -> float:
    """Return how long an answer has us wait, in seconds; 0 if it states none.

    Exchanges send Retry-After in seconds, never as a date; some their own header, in milliseconds.
    """
    if status < 400:
        return 0.0
    for name, per_s in (("Retry-After", 1), ("gw-ratelimit-reset", 1000)):
        number = number_of(headers.get(name, ""))
        if number is not None:
            return min(number / per_s, RETRY_AFTER_MAX_S)
    return PATIENCE_STATUSES.get(status, 0.0)
