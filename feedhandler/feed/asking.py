"""What a feed asks of its exchange over REST, each within its share of the budget, and who gets the answer.

    question ──its share of the budget──▶ request ──answer──▶ recorded ──decoded──▶ whoever asked
                                             └──refused, late, or it cannot be decoded: whoever asked is told

What asks is pure (`survey.py`, `freshness.py`, `missed.py`, `bases.py`, `polling.py`); here is what waits for it.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.data.rest import RestRequest
from feedhandler.exchanges.base import Market
from feedhandler.feed.bases import BaseQuestion
from feedhandler.feed.freshness import Question
from feedhandler.feed.missed import TradesQuestion
from feedhandler.feed.polling import Polling, PollQuestion
from feedhandler.feed.survey import Survey
from feedhandler.feed.tap import Tap
from feedhandler.transport.http import (
    POLL_SHARE,
    SPARE_SHARE,
    SURVEY_SHARE,
    WHOLE_SHARE,
    HttpClient,
    HttpRefused,
)
from feedhandler.transport.tasks import Failures

log = logging.getLogger(__name__)


class Asking:
    """The requests of one feed. `on_answered` is called when an answer has been taken over.

    http has a client for each market. `on_problems` is called when `problems` may have changed.
    """

    def __init__(
        self,
        http: Mapping[str, HttpClient],
        pollings: Sequence[Polling],
        tap: Tap | None,
        failures: Failures,
        on_answered: Callable[[], object],
        on_problems: Callable[[], object],
    ) -> None:
        self._http = http
        self._pollings = pollings
        self._tap = tap
        self._failures = failures
        self._on_answered = on_answered
        self._on_problems = on_problems
        self.problems: dict[tuple[str, str], str] = {}  # of the newest surveys, by market and request

    def rest_url(self, market: Market) -> str:
        """Return where a market is asked."""
        return self._http[market.name].rest_url

    async def fetch(
        self, market: Market, request: RestRequest, *, share: float = WHOLE_SHARE
    ) -> tuple[bytes, int]:
        """Return the body of an answer, as `HttpClient.fetch` does, and when it came; both are recorded."""
        http = self._http[market.name]
        body = await http.fetch(request, share=share)
        recv_ns = time.time_ns()
        if self._tap is not None:
            self._tap.answered(http.rest_url + request.path, body, recv_ns)
        return body, recv_ns

    async def about_all(self, market: Market, survey: Survey) -> None:
        """Ask the exchange for the present values of all symbols of a market."""
        has_failed, retry_after_s = True, 0.0
        try:
            for request in market.survey_requests:
                with self._failures.converted("present values"):
                    body, recv_ns = await self.fetch(market, request, share=SURVEY_SHARE)
                    rows = market.decode_survey(body)
                self.problems[market.name, request.path] = rows.problem
                self._on_problems()
                survey.on_rows(rows.items, recv_ns)
                self.take_polled(market, request, body, recv_ns)
                self._on_answered()
            has_failed = False
        except (ProtocolError, DecodeError) as exc:
            log.warning("no present values from REST, asked for again later: %s", exc)
            retry_after_s = exc.retry_after_s
        finally:
            survey.end(time.monotonic_ns(), has_failed=has_failed, retry_after_s=retry_after_s)

    async def quote(self, question: Question) -> None:
        """Ask the exchange for the quote of a symbol whose channel has fallen silent."""
        quote, market = None, question.watch.market
        try:
            with self._failures.converted("a question to REST"):
                body, _ = await self.fetch(market, market.quote_request(question.native), share=SPARE_SHARE)
                quote = market.decode_quote(body)
        except (ProtocolError, DecodeError) as exc:
            log.log(_level(exc), "no word from REST about %s, which is silent: %s", question.native, exc)
        question.watch.on_quote(question.native, quote)

    async def trades(self, question: TradesQuestion) -> None:
        """Ask the exchange for trades that no connection has brought."""
        market, native = question.watch.market, question.missed.state.native
        try:
            with self._failures.converted("past trades"):
                body, recv_ns = await self.fetch(market, question.request, share=SPARE_SHARE)
                rows = market.decode_past_trades(native, body)
        except (ProtocolError, DecodeError) as exc:
            log.log(_level(exc), "no past trades of %s from REST: %s", native, exc)
            question.watch.on_refused(question, exc.retry_after_s)
        else:
            if rows.problem:
                log.warning("past trades of %s: %s", native, rows.problem)
            answer = functools.partial(
                question.watch.on_answer, question, rows.items, recv_ns, is_whole=not rows.problem
            )
            if self._failures.attempt_now("past trades", answer) is not None:
                question.watch.on_refused(question)
        self._on_answered()

    async def base(self, question: BaseQuestion) -> None:
        """Ask the exchange for a book that is to be kept from then on."""
        market, native = question.bases.market, question.watched.state.native
        try:
            with self._failures.converted("a book"):
                body, recv_ns = await self.fetch(market, question.request, share=SPARE_SHARE)
                base = market.decode_base(native, body)
        except (ProtocolError, DecodeError) as exc:
            log.log(_level(exc), "no book of %s from REST, asked for again later: %s", native, exc)
            question.bases.on_refused(question, exc.retry_after_s)
        else:
            answer = functools.partial(question.bases.on_answer, question, base, recv_ns)
            if self._failures.attempt_now("a book", answer) is not None:
                question.bases.on_refused(question)
        self._on_answered()

    def take_polled(self, market: Market, request: RestRequest, body: bytes, recv_ns: int) -> None:
        """Take what is polled from an answer that was asked for something else, as a recording does."""

        def take(polling: Polling) -> None:
            with contextlib.suppress(ProtocolError, DecodeError):
                rows = market.decode_poll(polling.poll, body, recv_ns)
                polling.on_other_answer(rows, recv_ns, time.monotonic_ns())

        for polling in self._pollings:
            if polling.market is market and polling.poll.request == request:
                self._failures.attempt_now("a poll", functools.partial(take, polling))

    async def poll(self, question: PollQuestion) -> None:
        """Ask the exchange for what contracts lack in all channels."""
        polling, market = question.polling, question.polling.market
        try:
            with self._failures.converted("a poll"):
                body, recv_ns = await self.fetch(market, question.request, share=POLL_SHARE)
                rows = market.decode_poll(polling.poll, body, recv_ns)
        except (ProtocolError, DecodeError) as exc:
            is_ours = _is_of_our_budget(exc)
            if not is_ours:
                log.info("no %s from REST: %s", ", ".join(polling.poll.fields), exc)
            reason = "" if is_ours else str(exc)
            polling.on_refused(question, time.monotonic_ns(), reason, exc.retry_after_s)
        else:
            answer = functools.partial(polling.on_answer, question, rows, recv_ns, time.monotonic_ns())
            if self._failures.attempt_now("a poll", answer) is not None:
                polling.on_refused(question, time.monotonic_ns(), "an answer that could not be taken over")
        self._on_answered()


def _is_of_our_budget(exc: Exception) -> bool:
    """True if a request was not sent, since our own budget has no room for it."""
    return isinstance(exc, HttpRefused) and not exc.status


def _level(exc: ProtocolError | DecodeError) -> int:
    """Return how a request that has no answer is logged: hardly, if it waits for our own budget as hundreds do."""
    return logging.DEBUG if _is_of_our_budget(exc) else logging.INFO
