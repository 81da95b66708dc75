"""Signs of life of one socket: frames, data among them, answers, pings, and how long all of these stay away.

A connection has a socket for each of its market's paths; most have one. Whether a socket lives, and brings what it
should, is seen by its own signs: those of another one say nothing of it. Pure: bytes and times come in. It decides
nothing: that is `Session`'s business.
"""

from collections.abc import Callable
from typing import Final

from feedhandler.data.errors import DecodeError
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import Control, Emit, Endpoint, Market, Resubscribe
from feedhandler.feed.witness import CanaryWitness

DELIVERS_NS: Final = 3 * NS_PER_S  # data younger than this: the socket delivers
GAPS_MIN: Final = 20  # silences that were ended by data, before it is known how long they usually are
USUAL_FACTOR: Final = 5  # so many times longer than usual is unusual
FADES_NS: Final = 1800 * NS_PER_S  # what was usual so long ago counts a third: a market's bursts are shorter
ODD_MAX: Final = 3  # unusual silences, one upon the other: what was usual is so no more
# No frame for so long: a ping is sent, and without an answer in `Market.pong_timeout_s` the socket is dead.
PROBE_NS: Final = 10 * NS_PER_S

# Takes a frame that cannot be decoded, on loan, why it cannot, and when it came.
OnUndecodable = Callable[[bytes | bytearray | memoryview, str, int], None]


class SocketSigns:
    """One socket of a connection, on one path; it outlives its connections."""

    def __init__(
        self, market: Market, path: str, line: Line, emit: Emit, on_undecodable: OnUndecodable
    ) -> None:
        self.path = path
        self._market = market
        self._line = line
        self._decode = market.decode
        self._emit = emit
        self._on_undecodable = on_undecodable
        self.frames = 0
        self._signs = 0  # frames that are no data: pings and pongs, answers
        self._usual_ns = 0  # the longest of the latest silences between data,
        self._gaps = 0  # how many there were,
        self._odd = 0  # and how many of the last, in a row, were unusual
        self.is_stale = False  # data should have come, and did not
        self.is_doubted = False  # nor since a connection that REST contradicted: only data are a success
        self.answers: list[Control] = []  # not looked at yet
        self.answer_ns = 0  # when the newest of them came, in Unix time
        self.reset(0)

    def reset(self, now: int) -> None:
        """Forget everything about the last connection."""
        self.is_welcome = not self._market.awaits_welcome
        self.is_well = False  # data have come that are not overdue, or there need be none, and it lives
        self.has_succeeded = False  # data have come, or a sign of life after all was acknowledged
        self.ping_due = 0
        self.pong_due = 0
        self._ping_interval_ns = int((self._market.ping_interval_s or 0) * NS_PER_S)
        self._pong_timeout_ns = int(self._market.pong_timeout_s * NS_PER_S)
        self._data_first = self._data_seen = self._data()
        self.data_mono_ns = now
        self._is_proven = False  # something came after all was acknowledged
        self.contradiction = ""  # what REST has news of, though no data have come
        self.witness = CanaryWitness(self._market)  # its own: an answer may come when the connection is gone
        self._frames_seen = self.frames
        self._frame_mono_ns = now
        # Since when a frame has come at the earliest, and data.
        self.lived_mono_ns = self.delivered_mono_ns = now
        self._pings = self._pongs = 0  # of ours, and their answers
        self._drains_with = 0  # that ping's answer comes after all that is wanted of it; 0 = nothing is
        self.answers = []
        self.answer_ns = 0

    # --- what comes

    def on_endpoint(self, endpoint: Endpoint) -> None:
        """Take over what the handshake stated about the heartbeat."""
        if endpoint.ping_interval_s is not None:
            self._ping_interval_ns = int(endpoint.ping_interval_s * NS_PER_S)
        if endpoint.pong_timeout_s is not None:
            self._pong_timeout_ns = int(endpoint.pong_timeout_s * NS_PER_S)

    def on_open(self, now: int) -> None:
        """It is open, and so are the others."""
        self.data_mono_ns = self._frame_mono_ns = now
        self.is_stale = self.is_doubted

    def on_frame(self, payload: bytes | bytearray | memoryview, recv_ns: int) -> bool:
        """Take one message, on loan until this returns; True asks for the session's `advance` now."""
        # hot: `make bench-micro`, session
        self.frames += 1
        try:
            answer = self._decode(payload, recv_ns, self._line, self._emit)
        except DecodeError as exc:
            self._on_undecodable(payload, str(exc), recv_ns)
            return False
        if answer is None:
            return False  # data, perhaps what is known already, or the canary's
        self._signs += not isinstance(answer, Resubscribe)  # that was data
        self.answers.append(answer)
        self.answer_ns = recv_ns
        return True

    def on_ping(self) -> None:
        """A protocol-level ping or pong arrived: the socket lives."""
        self.frames += 1
        self._signs += 1

    def on_pong(self) -> None:
        """Our ping was answered. That is a sign of life, as any frame is."""
        self._pongs += 1

    # --- data

    def _data(self) -> int:
        """Return how many frames brought data, of any symbol; those that cannot be decoded among them."""
        return self.frames - self._signs

    @property
    def has_data(self) -> bool:
        """True if the socket has brought any since it began."""
        return self._data() != self._data_first

    @property
    def has_new_data(self) -> bool:
        """True if some have come since the last look."""
        return self._data() != self._data_seen

    def is_delivering(self, now: int) -> bool:
        """True while data come in; a market that pauses for a second or two still counts."""
        return now - self.data_mono_ns < DELIVERS_NS

    def has_frames(self, before: int, now: int) -> bool:
        """True if any have come since the last look, which was before."""
        if self.frames == self._frames_seen:
            return False
        self._frames_seen, self._frame_mono_ns = self.frames, now
        self.lived_mono_ns = before
        self.pong_due = 0
        return True

    def note_life(self) -> None:
        """A frame has come: if all is acknowledged, that is as good as data where markets are quiet."""
        if not self.is_doubted:
            self.is_stale, self.is_well = False, True
            # Not with the answer itself: whoever hangs up after it is no success.
            self.has_succeeded = self.has_succeeded or self._is_proven
            self._is_proven = True

    def note_data(self, before: int, now: int, *, is_late: bool) -> None:
        """Data have come since the last look; is_late: we have slept, so that their silence is not known."""
        if self._data_seen != self._data_first and not is_late:
            self._learn(now - self.data_mono_ns)
        self._data_seen, self.data_mono_ns = self._data(), now
        self.delivered_mono_ns = before
        self.is_stale = self.is_doubted = False
        self.is_well = self.has_succeeded = True

    def _learn(self, gap_ns: int) -> None:
        """Note how long data usually are silent; not of a silence that was flagged, unless each is."""
        self._odd = self._odd + 1 if self.is_stale else 0
        if 0 < self._odd < ODD_MAX:
            return
        self._usual_ns = max(gap_ns, self._usual_ns - self._usual_ns * gap_ns // FADES_NS)
        self._gaps += 1

    @property
    def usual_ns(self) -> int:
        """How long silences may be, as far as is known; 0: it is not."""
        return USUAL_FACTOR * self._usual_ns if self._gaps >= GAPS_MIN else 0

    def give_up(self, *, is_promised: bool) -> None:
        """It is to end, since no data have come; is_promised: they should have from its beginning."""
        if self.has_data:
            return
        self.is_doubted = self.is_doubted or is_promised
        self._odd += 1
        if self._odd >= ODD_MAX:  # nothing on one connection after the other: what never rested does now
            self._usual_ns = self._gaps = self._odd = 0

    # --- pings

    def start(self, now: int) -> None:
        """Begin to ping, if the exchange wants to be."""
        if self._ping_interval_ns:
            # Not at once: the first one would compete with the subscriptions.
            self.ping_due = now + self._ping_interval_ns // 2

    def is_ping_due(self, now: int) -> bool:
        """True when the exchange wants to be pinged, and once whenever nothing has come for a while."""
        if self._ping_interval_ns and now >= self.ping_due:
            return True
        return not self.pong_due and now - self._frame_mono_ns >= PROBE_NS

    def on_ping_sent(self, now: int) -> None:
        """A ping of ours is on its way."""
        self._pings += 1
        self.ping_due = now + self._ping_interval_ns
        self.pong_due = self.pong_due or now + self._pong_timeout_ns

    def overdue_pong(self, now: int) -> str:
        """No frame since a ping: it is dead. A late pong never ends one that delivers anything."""
        if not self.pong_due or now < self.pong_due:
            return ""
        return f"no pong within {self._pong_timeout_ns / NS_PER_S:g} s, and no other frame"

    def drain(self, now: int) -> None:
        """Send a ping, whose answer comes after all that is under way."""
        self._drains_with = self._pings + 1
        self.ping_due = now

    @property
    def is_drained(self) -> bool:
        """True if a ping that was sent after the call of `drain` has been answered: frames come in order."""
        return 0 < self._drains_with <= self._pongs

    def stop_draining(self) -> None:
        """Forget the call of `drain`."""
        self._drains_with = 0

    # --- other connections

    def learn_from(self, other: "SocketSigns") -> None:
        """Take over from that of another connection how long its silences are, and whether it is doubted."""
        self.is_doubted = other.is_doubted
        self._usual_ns, self._gaps, self._odd = other._usual_ns, other._gaps, other._odd

    def count_on(self, other: "SocketSigns") -> None:
        """Take over the counters of the one that this one has followed."""
        self._data_first += other._data()
        self._data_seen += other._data()
        self.frames += other.frames
        self._signs += other._signs
        self._frames_seen += other.frames
