"""A connection to NATS, and the next one when it ends: for ever, with a back-off.

Each connection is a client of its own: nats-py's own reconnection keeps what was published into a dead socket
to itself, waits without end for a peer that does not read to be closed, and is over for good after some errors.
Here what was not confirmed is handed back, and the end of a connection that is stuck is not waited for.

Without a stream, a PONG confirms what was sent before its PING; with one, each record's acknowledgement does.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import PubAck

from feedhandler.bridge.jetstream import prepare_stream
from feedhandler.bridge.login import check_secrets, tls_context
from feedhandler.bridge.unconfirmed import Unconfirmed
from feedhandler.runtime.settings import NATS_ENV, NatsConfig

CONNECT_TIMEOUT_S: Final = 3  # handshake with one server
BACKOFF_MIN_S: Final = 0.25
BACKOFF_MAX_S: Final = 5.0
# What may be under way. Beyond it the newest of each topic waits here: what lies in sockets is not the newest any
# more. At 40,000 records/s this is 0.15 s, and over a way of 50 ms it lets 20 MB/s through.
WINDOW_SIZE: Final = 1 << 20
# Of nats-py's own buffer: the window and a large document, so that it never fills.
PENDING_SIZE: Final = 16 << 20
ACKS_MAX: Final = 1000  # of a stream, outstanding
ASK_EVERY_S: Final = 0.05  # for a confirmation, or when a quarter of the window is used
# Without a stream, a server that was restarted has nothing for subscribers that return later than we do.
REPEAT_AFTER_S: Final = 5.0
STALL_S: Final = 10.0  # without any confirmation; then another connection, to another server if there is one
API_TIMEOUT_S: Final = 5.0
CLOSE_S: Final = 1.0
# Connections that were given up, and whose other side neither reads nor ends: each has what was under way.
CLOSING_MAX: Final = 8

assert PENDING_SIZE > 2 * WINDOW_SIZE, "publishing does not wait for the other side"

log = logging.getLogger(__name__)


class NatsConnection:
    """Publishes while `has_room`; on_change is called when there may be room, or a connection is new or gone.

    Records that were handed over and not confirmed when a connection ended go to on_lost.
    """

    def __init__(
        self,
        config: NatsConfig,
        environment: Mapping[str, str],
        where: str,
        on_lost: Callable[[list[bytes]], object],
        on_change: Callable[[], object],
    ) -> None:
        self._config, self._where = config, where
        self._on_lost, self._on_change = on_lost, on_change
        self._secrets = {name: value for name in NATS_ENV if (value := environment.get(name, ""))}
        check_secrets(config, self._secrets, where)
        self._tls = tls_context(config, where)
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._is_given_up = False
        self._closing: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[None] | None = None
        self._asked_s = self._progress_s = self._connected_s = 0.0
        self._refused_s = 0.0  # since when, if there is a refusal
        self._is_repeat_due = False
        self._error = ""  # newest of the attempt under way
        self.unconfirmed = Unconfirmed()
        self.connects = 0
        self.refused = 0  # by the stream
        self.refusal = ""

    @property
    def is_connected(self) -> bool:
        return self._client is not None and self._client.is_connected and not self._is_given_up

    @property
    def pending_size(self) -> int:
        """Bytes that wait in this process for the socket."""
        return 0 if self._client is None else self._client.pending_data_size

    @property
    def size_max(self) -> int:
        """Bytes that one message may have: the server's limit."""
        return 0 if self._client is None else self._client.max_payload

    def has_room(self) -> bool:
        """Whether a record may be published now."""
        return (
            self.is_connected
            and self.unconfirmed.size < WINDOW_SIZE
            and (self._stream is None or len(self.unconfirmed) < ACKS_MAX)
        )

    async def publish(self, subject: str, record: bytes) -> None:
        """Hand a record over; there has to be room."""
        # hot: `python -m bench.bridge`
        assert self._client is not None, "there is room"
        if not len(self.unconfirmed):
            self._progress_s = time.monotonic()
        number = self.unconfirmed.add(record)
        client = self._client
        try:
            if self._stream is None:
                await client.publish(subject, record)
            else:
                acknowledged = await self._stream.publish_async(subject, record)
                acknowledged.add_done_callback(lambda future: self._on_ack(client, number, future))
        except (OSError, nats.errors.Error) as exc:
            # It has ended since there was room, or will not take this. What was not confirmed is handed back.
            self._error = str(exc) or type(exc).__name__
            self._is_given_up = True

    def _on_ack(self, client: Client, number: int, future: "asyncio.Future[PubAck]") -> None:
        if future.cancelled() or client is not self._client:
            return
        if (error := future.exception()) is not None:
            self.refused += 1
            if not self.refusal:
                self._refused_s = time.monotonic()
                log.warning("the stream %s refuses records: %s", self._config.stream, error)
            self.refusal = str(error)
        elif self.refusal:
            log.info("the stream %s takes records again; %d were refused", self._config.stream, self.refused)
            self.refusal = ""
        self._confirm(lambda: self.unconfirmed.confirm(number))

    def _confirm(self, confirm: Callable[[], None]) -> None:
        confirm()
        self._progress_s = time.monotonic()
        self._on_change()

    def take_repeat(self) -> bool:
        """True once, some time after a connection that was not the first: everything is to be published again."""
        is_due = self._is_repeat_due and time.monotonic() - self._connected_s > REPEAT_AFTER_S
        if is_due:
            self._is_repeat_due = False
        return is_due

    def on_time(self) -> None:
        """Ask for confirmations, and end a connection that is stuck; 20 times a second, and after publishing."""
        now = time.monotonic()
        if self._client is None or not self.is_connected:
            return
        if self.refusal and now - self._refused_s > STALL_S:
            self._is_given_up = True  # the next connection sees to the stream
            return
        if not len(self.unconfirmed):
            return
        if now - self._progress_s > STALL_S:
            log.warning("NATS has confirmed nothing for %g s: trying another connection", STALL_S)
            self._is_given_up = True
            return
        is_due = self.unconfirmed.size > WINDOW_SIZE // 4 or now - self._asked_s >= ASK_EVERY_S
        # What waits in nats-py's buffer is written after the PING: it would not be confirmed by it.
        is_due = is_due and not self._client.pending_data_size
        if self._stream is None and self._asking is None and is_due:
            self._asked_s = now
            self._asking = asyncio.create_task(self._ask(self._client))

    async def _ask(self, client: Client) -> None:
        """Send a PING, whose PONG confirms what was written before it."""
        number = self.unconfirmed.number
        try:
            # No time limit that could pass: nats-py stops reading when a PONG comes that is waited for no more.
            # Not flush(), which returns without a PONG when nats-py has stopped reading.
            await client.rtt(timeout=1 << 20)
        except (nats.errors.Error, OSError):
            return  # it is over, and what was not confirmed is handed back
        finally:
            self._asking = None
        if client is self._client and client.is_connected:
            self._confirm(lambda: self.unconfirmed.confirm_up_to(number))

    async def run(self) -> None:
        """Have a connection, for ever. Raises ConfigError if the stream cannot be what is configured."""
        try:
            await self._run()
        except Exception:
            self._forget()  # it may be begun again
            raise

    async def _run(self) -> None:
        backoff_s = BACKOFF_MIN_S
        logged = ""
        while True:
            self._error = ""
            if len(self._closing) >= CLOSING_MAX:
                log.warning("%d connections to NATS do not end: waiting for one of them", CLOSING_MAX)
                await asyncio.wait(self._closing, return_when=asyncio.FIRST_COMPLETED)
            client = Client()
            try:
                await self._connect(client)
            except (OSError, nats.errors.Error, TimeoutError) as exc:
                reason = _plain(self._error or str(exc) or type(exc).__name__)
                if reason != logged:
                    log.warning("no connection to %s: %s; trying on", ", ".join(self._config.servers), reason)
                logged = reason
                # After a failed TLS handshake nats-py would wait for ever.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_S):
                        await _close(client)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
                continue
            connected_s = time.monotonic()
            logged = ""
            await self._until_gone()
            # One that ends at once, again and again, is not hammered.
            backoff_s = BACKOFF_MIN_S if time.monotonic() - connected_s > BACKOFF_MAX_S else backoff_s
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    async def _connect(self, client: Client) -> None:
        encrypted = self._encrypted()

        async def on_error(error: Exception) -> None:
            self._error = str(error) or type(error).__name__

        def check_tls() -> None:
            if self._tls is not None and self._encrypted() == encrypted:
                raise nats.errors.Error("the server offers no TLS, and servers has tls://")

        def secret(name: str) -> Callable[[], str] | None:
            """Give it out only over what was agreed on: nats-py follows a server that offers no TLS."""

            def reveal() -> str:
                check_tls()
                return self._secrets[name]

            return reveal if name in self._secrets else None

        user, password, token = (secret(name) for name in NATS_ENV)
        await client.connect(
            list(self._config.servers),
            error_cb=on_error,
            name="feedhandler-bridge",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=CONNECT_TIMEOUT_S,
            no_echo=True,
            tls=self._tls,
            user=user,
            password=password,
            token=token,
            user_credentials=self._config.credentials or None,
            pending_size=PENDING_SIZE,
        )
        check_tls()
        stream = None
        if self._config.stream:
            stream = client.jetstream(timeout=API_TIMEOUT_S, publish_async_max_pending=ACKS_MAX)
            await prepare_stream(stream, self._config, self._where)
        self._client, self._stream, self._is_given_up = client, stream, False
        self.refusal = ""
        self.connects += 1
        self._progress_s = self._connected_s = time.monotonic()
        self._is_repeat_due = self.connects > 1 and stream is None
        url = client.connected_url
        log.info("connected to NATS at %s, connection number %d", url.netloc if url else "?", self.connects)
        self._on_change()

    def _encrypted(self) -> int:
        """Return how many connections have been encrypted, each with the server's certificate checked."""
        return 0 if self._tls is None else self._tls.session_stats()["connect_good"]

    async def _until_gone(self) -> None:
        # Looked at, rather than called back: nats-py calls back only if closing raises nothing.
        while self.is_connected:  # noqa: ASYNC110
            await asyncio.sleep(ASK_EVERY_S)
        assert self._client is not None, "it is we who forget it"
        reason = _plain(self._error or str(self._client.last_error or "closed"))
        lost = self._forget()
        log.warning("the connection to NATS is gone (%s); %d records were not confirmed", reason, len(lost))

    def _forget(self) -> list[bytes]:
        """Have no connection any more; hand back, and return, what was not confirmed."""
        self._let_go()
        lost = self.unconfirmed.take_all()
        self._on_lost(lost)
        return lost

    def _let_go(self) -> None:
        """Close the connection, if there is one, without waiting: a side that does not read may take its time."""
        client, self._client, self._stream = self._client, None, None
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        if client is not None:
            closing = asyncio.create_task(_close(client))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """End the connection, if there is one, with what it takes to be closed in order; not for long."""
        self._let_go()
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_S)


async def _close(client: Client) -> None:
    try:
        await client.close()
    except (OSError, nats.errors.Error) as exc:
        log.debug("NATS did not take the rest: %r", exc)


def _plain(reason: str) -> str:
    return reason.removeprefix("nats: ").strip("'\" ")
