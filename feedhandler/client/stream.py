"""What each subscriber is made of, whatever loop drives it: the stream's socket, the one for what was missed, and
the records that have come and were not seen before.

The loop calls back when there is something to read; `poll` is to be called whenever it turns.
"""

import collections
import functools
import logging
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from feedhandler import pace, wire
from feedhandler.exchanges.base import UNDECODABLE
from feedhandler.follow import Loss
from feedhandler.heal import Healer
from feedhandler.transport import tick, zmtp
from feedhandler.transport.router import Dealer

log = logging.getLogger(__name__)

DEFAULT_ENDPOINT: Final = "tcp://127.0.0.1:5555"
RECONNECT_S: Final = 0.1  # how often a publisher that is away is looked for: on loopback, nobody minds
RELAY_EVERY_S: Final = 1.0  # the same for the relay, which nobody waits for
TICKS_IPC: Final = "/ticks.ipc"


class Curve(NamedTuple):
    """Keys for a publisher on another host, as files: our secret key, and its public one."""

    key: str
    server: str

    def security(self) -> zmtp.Security:
        """Return what encrypts. Raises ConfigError that names the file."""
        from feedhandler.transport.keys import load_pair, load_public  # most subscribers need none of it
        from feedhandler.transport.secure import ClientSecurity

        return ClientSecurity(load_pair(self.key, "key"), load_public(self.server, "server"))


class Stream:
    """Records of the topics that start with one of the prefixes, in order, each once.

    mode is how they are wanted: "" or "all", "latest", or the milliseconds of an interval. recover is where
    missing records are asked for, None: beside the endpoint, "": nowhere; in conflated modes nothing is missing.
    """

    def __init__(
        self,
        events: zmtp.Events,
        endpoint: str,
        topics: Sequence[str],
        *,
        mode: str | int = "",
        recover: str | None = None,
        curve: Curve | None = None,
    ) -> None:
        """Raises ValueError for an endpoint or a mode that does not exist, ConfigError for keys that do not."""
        zmtp.address_of(endpoint)
        declaration = declaration_of(mode)
        is_conflated = declaration not in (b"", pace.ALL)
        prefixes = [topic.encode() for topic in topics]
        if declaration:
            prefixes.insert(0, declaration)
        self.records: collections.deque[wire.Ticker | wire.Document] = collections.deque()
        self.notice = pace.Notice()  # the last that the publisher said of this subscriber
        self._follower = tick.Follower(self.records.append, on_notice=self._on_notice)
        self._healer = Healer(self._follower, self.records.append, time.monotonic_ns)
        security = None if curve is None else curve.security()
        connect = tick.Downlink if security is None else functools.partial(zmtp.Downlink, security=security)
        self._downlink = connect(events, endpoint, prefixes, self._follower, is_conflated=is_conflated)
        self._dealer: Dealer | None = None
        where = recover_endpoint(endpoint) if recover is None else recover
        if where and not is_conflated:
            zmtp.address_of(where)
            self._dealer = Dealer(
                events, where, self._healer.on_answer, self._healer.on_disconnect, security=security
            )
            self._follower.on_hole = self._healer.on_hole
        self._relay_mono_s = -RELAY_EVERY_S
        self.is_connected = False

    @property
    def losses(self) -> dict[bytes, Loss]:
        """What is known of each topic's sequence."""
        return self._follower.losses

    @property
    def undecodable(self) -> int:
        """How many messages this version could not read."""
        return self._follower.undecodable

    @property
    def recovered(self) -> int:
        """How many records came after all, because they were asked for."""
        return self._healer.recovered

    def poll(self) -> None:
        """Connect what is not connected, and ask for what is missing."""
        # hot: `make bench`
        self.is_connected = self._downlink.poll()
        if self._dealer is not None:
            self._poll_relay(self._dealer)

    def _poll_relay(self, dealer: Dealer) -> None:
        if not dealer.is_ready:
            now_s = time.monotonic()
            if now_s - self._relay_mono_s >= RELAY_EVERY_S:
                self._relay_mono_s = now_s
                dealer.poll()
            return
        self._healer.is_connected = True
        if self._healer.is_healing:
            self._healer.on_time()
            if (request := self._healer.request()) is not None:
                dealer.send(request)

    def _on_notice(self, document: wire.Document) -> None:
        try:
            self.notice = msgspec.json.decode(document.body, type=pace.Notice)
        except UNDECODABLE:
            return
        if self.notice.error:
            log.warning("the mode that was asked for has no effect: %s", self.notice.error)

    def close(self) -> None:
        """Close the sockets; what is queued is dropped."""
        self._downlink.close()
        if self._dealer is not None:
            self._dealer.close()


def declaration_of(mode: str | int) -> bytes:
    """Return what is subscribed to for a mode. Raises ValueError with the choices."""
    if mode == "":
        return b""
    declaration = b"%s%d" % (pace.INTERVAL, mode) if isinstance(mode, int) else f"@{mode}".encode()
    if declaration not in (pace.ALL, pace.LATEST) and not isinstance(mode, int):
        raise ValueError(f'{mode!r} is no mode; choose "all", "latest", or a number of milliseconds')
    pace.Pace(declaration, 0)  # or it raises
    return declaration


def recover_endpoint(endpoint: str) -> str:
    """Return where the relay of a publisher is by default, "" if that cannot be told."""
    if endpoint.startswith("ipc://") and endpoint.endswith(TICKS_IPC):
        return endpoint.removesuffix(TICKS_IPC) + "/recover.ipc"
    if endpoint.startswith("tcp://"):
        host, _, port = endpoint.rpartition(":")
        return f"{host}:{int(port) + 1}" if int(port) < 65535 else ""
    return ""
