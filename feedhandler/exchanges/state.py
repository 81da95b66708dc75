"""What a feed keeps of one symbol in one kind: what each channel states of it, and its next record.

    frame ──▶ Market.decode ──▶ State, updated in place ──emit──▶ Batch

`State` is what all kinds have in common, `TickerState` a ticker, `RecordState` anything else of fixed layout. Pure.
Compiled where there is a compiler, with the types of `state.pxd`: what every frame changes are then numbers side by
side, not objects all over the heap.
"""

import struct
from typing import Any, Final

from feedhandler.data import raw, ticker, wire
from feedhandler.data.contracts import Slot
from feedhandler.data.errors import DecodeError
from feedhandler.data.layout import Description, Retention
from feedhandler.exchanges.arbitration import Arbitration, Line

# An event further than this in our future cannot be: one of the clocks is wrong. Old ones can be true. So it is
# decided as long as nothing is known of the exchange's clock; after that, `Market.set_clock` says what cannot be.
AHEAD_NS_MAX: Final = 60_000_000_000

CHANNELS_MAX: Final = 3
STATISTICS, QUOTE, LAST = range(CHANNELS_MAX)  # channels, in the order of `Market.topics`

# The same, and the layout of the record, for the class: what has a type in the .pxd is not to be had from Python.
_STATISTICS, _QUOTE, _LAST = STATISTICS, QUOTE, LAST
_NAN = wire.NAN
_NOT_LIVE = wire.NOT_LIVE  # the next update of any kind makes the state live again
_BAD_EXCHANGE_TIME = wire.BAD_EXCHANGE_TIME
_VERSION, _CONDITION = wire.VERSION, wire.CONDITION
_TOPIC_SIZE, _HEADER_SIZE, _TICKER_SIZE = wire.TOPIC_SIZE, wire.HEADER_SIZE, wire.TICKER_SIZE
_VERSION_OFFSET, _KIND_OFFSET, _FLAGS_OFFSET = wire.VERSION_OFFSET, wire.KIND_OFFSET, wire.FLAGS_OFFSET
_SESSION_OFFSET, _SEQUENCE_OFFSET = wire.SESSION_OFFSET, wire.SEQUENCE_OFFSET
_EXCHANGE_NS_OFFSET, _RECV_NS_OFFSET = wire.EXCHANGE_NS_OFFSET, wire.RECV_NS_OFFSET
_PUBLISH_NS_OFFSET = wire.PUBLISH_NS_OFFSET
_EXCHANGE_SEQUENCE_OFFSET, *_offsets = (
    ticker.TICKER.layout.offset(name) for name in ("exchange_sequence", *wire.TICKER_VALUES)
)
_LAST_OFFSET, _BID_OFFSET, _BID_SIZE_OFFSET, _ASK_OFFSET, _ASK_SIZE_OFFSET = _offsets[:5]
_OPEN_OFFSET, _HIGH_OFFSET, _LOW_OFFSET, _BASE_VOLUME_OFFSET, _QUOTE_VOLUME_OFFSET = _offsets[5:]


class State:
    """One topic of one symbol and kind as a feed keeps it, updated in place by each frame that counts.

    topic carries the native symbol. Of several lines that bring a channel its arbitration says whose update counts;
    there are as many as the kind has channels on this exchange, of `Arbitration` or whatever has its methods.
    offset_ns is how far the exchange's clock is ahead of ours, and ahead_ns_max how much later than our receipt an
    event may be stated. takes_number: what is emitted next has the topic's next number, which a condition has not.
    `pack` is each kind's own.
    """

    def __init__(
        self,
        kind: Description,
        channels: tuple[Any, ...],
        *,
        topic: str,
        native: str,
        base_flags: int = 0,
        flags: int = 0,
        session: int = 0,
    ) -> None:
        self._padded = wire.padded(topic)
        if len(self._padded) != _TOPIC_SIZE:
            raise ValueError("topic is too long")
        self.kind = kind.name
        self._code = kind.code
        self._size_max = kind.size_max  # of a record
        self.keeps_every = kind.retention is Retention.EVERY
        self.topic = topic
        self.native = native
        self.group = 0  # whose lines carry it; what others bring of it is nobody's
        self.base_flags = base_flags
        self.flags = flags
        self.session = session
        self.sequence = 0
        self.takes_number = True
        self.exchange_ns = self.recv_ns = self.publish_ns = 0
        self.offset_ns = 0
        self.ahead_ns_max = AHEAD_NS_MAX
        self.slot: Slot | None = None  # where its records are written besides
        self.channels = channels

    @property
    def is_known(self) -> bool:
        """True if there is something to be flagged, or to be repeated to those who join."""
        return self.recv_ns != 0

    def forget(self) -> None:
        """Make every value unknown: no line is left to keep them."""
        self.flags = self.base_flags
        self.exchange_ns = self.recv_ns = 0
        for channel in self.channels:
            channel.reset()

    def renew(self, line: int) -> None:
        """Another connection has this line from now on, and has sent nothing yet."""
        for channel in self.channels:
            channel.renew(line)

    def inherit(self, line: int) -> None:
        """Channels that are silent on a line have been silent elsewhere since: what is known still holds."""
        for channel in self.channels:
            channel.inherit(line)

    def release(self, line: int) -> None:
        """A line is gone: another may repeat what it sent last."""
        for channel in self.channels:
            channel.release(line)

    def accept(self, channel: int, line: Line, update_id: int, recv_ns: int, is_time: bool = False) -> bool:
        """Note that a channel has sent an update; False if it is known, or older than what is known.

        update_id grows with each update of the channel; a connection that brings one twice does so on purpose.
        is_time: for want of an id it is the update's time, in Unix nanoseconds; clocks may be set back. One that
        cannot be counts as the exchange's present time, or as just after the newest.
        """
        # hot: `make bench-micro`, decode
        if line.group != self.group:
            return False  # another group's canary, or what was under way when the symbol left that group
        present_ns = 0
        if is_time:
            present_ns = max(1, recv_ns + self.offset_ns)
            if update_id > recv_ns + self.ahead_ns_max:
                update_id = self._possible_ns(channel, update_id, present_ns)
        is_live = not self.flags & _NOT_LIVE
        return self._decide(channel, line, update_id, recv_ns, present_ns, is_live)

    def _possible_ns(self, channel: int, time_ns: int, present_ns: int) -> int:
        """Return what a time counts as that cannot be, by our clock."""
        newest_ns: int = self.channels[channel].update_id
        # What follows closely on the newest tells that our own clock is slow, or was set back.
        if time_ns <= newest_ns + self.ahead_ns_max - self.offset_ns:
            return time_ns
        return max(present_ns, newest_ns + 1)

    def _decide(
        self, channel: int, line: Line, update_id: int, recv_ns: int, present_ns: int, is_live: bool
    ) -> bool:
        is_first: bool = self.channels[channel].accept(line, update_id, recv_ns, present_ns, is_live)
        return is_first

    def heard(self, line: int) -> int:
        """Return how many channels have sent on a line."""
        count = 0
        for channel in self.channels:
            count += channel.heard_ns(line) != 0
        return count

    def on_news(self, recv_ns: int) -> None:
        """Note when the frame came that changed this state; every flag is decided anew."""
        self.recv_ns = recv_ns
        self.flags = self.base_flags
        if self.exchange_ns > recv_ns + self.ahead_ns_max:
            self.flags |= _BAD_EXCHANGE_TIME

    def record(self) -> bytes:
        """Return the record as it is published."""
        record = bytearray(self._size_max)
        return bytes(record[: self.pack(record, 0)])

    def pack(self, target: bytearray, start: int) -> int:
        """Write what is to be sent of it into a buffer; returns its size."""
        raise NotImplementedError

    def pack_header(self, target: bytearray, start: int, code: int, flags: int) -> int:
        """Write the header of a record of this kind, or of a condition, into a buffer; returns its size."""
        raw.copy(target, start, self._padded, 0, _TOPIC_SIZE)
        raw.put_u8(target, start + _VERSION_OFFSET, _VERSION)
        raw.put_u8(target, start + _KIND_OFFSET, code)
        raw.put_u16(target, start + _FLAGS_OFFSET, flags)
        raw.put_u32(target, start + _SESSION_OFFSET, self.session)
        raw.put_u64(target, start + _SEQUENCE_OFFSET, self.sequence)
        raw.put_i64(target, start + _EXCHANGE_NS_OFFSET, self.exchange_ns)
        raw.put_i64(target, start + _RECV_NS_OFFSET, self.recv_ns)
        raw.put_i64(target, start + _PUBLISH_NS_OFFSET, self.publish_ns)
        return _HEADER_SIZE


class TickerState(State):
    """The ticker of one symbol.

    Each channel owns its fields. A slower channel that carries them as well fills them until their own has first
    sent; after that what it states is evidence, and no value.
    """

    def __init__(
        self, *, topic: str, native: str, base_flags: int = 0, flags: int = 0, session: int = 0
    ) -> None:
        self._statistics, self._quote, self._last = Arbitration(), Arbitration(), Arbitration()
        State.__init__(
            self,
            ticker.TICKER,
            (self._statistics, self._quote, self._last),
            topic=topic,
            native=native,
            base_flags=base_flags,
            session=session,
        )
        self.forget()
        self.flags = flags

    def forget(self) -> None:
        """Make every value unknown: no line is left to keep them."""
        State.forget(self)
        self.last = self.bid = self.bid_size = self.ask = self.ask_size = _NAN
        self.open_24h = self.high_24h = self.low_24h = self.base_volume_24h = self.quote_volume_24h = _NAN
        self._stated_bid = self._stated_bid_size = self._stated_ask = self._stated_ask_size = _NAN
        self._stated_last = _NAN
        self.exchange_sequence = 0

    def _decide(
        self, channel: int, line: Line, update_id: int, recv_ns: int, present_ns: int, is_live: bool
    ) -> bool:
        # Types are known here: the call costs a tenth of that by name.
        return self._arbitration(channel).accept(line, update_id, recv_ns, present_ns, is_live)

    def _arbitration(self, channel: int) -> Arbitration:
        if channel == _QUOTE:
            return self._quote
        if channel == _STATISTICS:
            return self._statistics
        if channel == _LAST:
            return self._last
        raise IndexError("no such channel")

    def heard(self, line: int) -> int:
        """Return how many channels have sent on a line."""
        return (
            (self._statistics.heard_ns(line) != 0)
            + (self._quote.heard_ns(line) != 0)
            + (self._last.heard_ns(line) != 0)
        )

    def stated(self, channel: int) -> tuple[float, ...]:
        """Return what slower channels last stated of the fields of this one, NaN if they never did."""
        if channel == _QUOTE:
            return self._stated_bid, self._stated_bid_size, self._stated_ask, self._stated_ask_size
        return (self._stated_last,) if channel == _LAST else ()

    def set_quote(self, bid: float, bid_size: float, ask: float, ask_size: float) -> None:
        """Take the quote over. A price of 0 is that of an empty side."""
        self.bid, self.bid_size = bid or _NAN, bid_size
        self.ask, self.ask_size = ask or _NAN, ask_size

    def fill_quote(self, bid: float, bid_size: float, ask: float, ask_size: float) -> None:
        """Note the quote of a slower channel: a value until the quote's own has sent, evidence from then on."""
        self._stated_bid, self._stated_bid_size = bid or _NAN, bid_size
        self._stated_ask, self._stated_ask_size = ask or _NAN, ask_size
        if not self._quote.updates:
            self.set_quote(bid, bid_size, ask, ask_size)

    def fill_last(self, last: float) -> None:
        """The same of the last price. 0 is that of an instrument which never traded."""
        self._stated_last = last or _NAN
        if not self._last.updates:
            self.last = self._stated_last

    def set_statistics(
        self, open_24h: float, high_24h: float, low_24h: float, base_volume: float, quote_volume: float
    ) -> None:
        """Take the 24 h statistics over. A price of 0 is that of an instrument which never traded."""
        self.open_24h = open_24h or _NAN
        self.high_24h = high_24h or _NAN
        self.low_24h = low_24h or _NAN
        self.base_volume_24h, self.quote_volume_24h = base_volume, quote_volume

    def pack(self, target: bytearray, start: int) -> int:
        """Write the record into a buffer; returns its size."""
        # hot: `make bench-micro`, board
        self.pack_header(target, start, self._code, self.flags)
        raw.put_u64(target, start + _EXCHANGE_SEQUENCE_OFFSET, self.exchange_sequence)
        raw.put_f64(target, start + _LAST_OFFSET, self.last)
        raw.put_f64(target, start + _BID_OFFSET, self.bid)
        raw.put_f64(target, start + _BID_SIZE_OFFSET, self.bid_size)
        raw.put_f64(target, start + _ASK_OFFSET, self.ask)
        raw.put_f64(target, start + _ASK_SIZE_OFFSET, self.ask_size)
        raw.put_f64(target, start + _OPEN_OFFSET, self.open_24h)
        raw.put_f64(target, start + _HIGH_OFFSET, self.high_24h)
        raw.put_f64(target, start + _LOW_OFFSET, self.low_24h)
        raw.put_f64(target, start + _BASE_VOLUME_OFFSET, self.base_volume_24h)
        raw.put_f64(target, start + _QUOTE_VOLUME_OFFSET, self.quote_volume_24h)
        return _TICKER_SIZE


class RecordState(State):
    """A state of any kind of fixed layout: it has the record that was put there to be emitted next.

    Of a kind that keeps every record, a record is gone once it was packed. What is packed until the next one is put
    there is a condition: so no record is ever sent twice, and what is flagged goes out as it should.
    """

    def __init__(
        self,
        kind: Description,
        channels: tuple[Any, ...],
        *,
        topic: str,
        native: str,
        base_flags: int = 0,
        flags: int = 0,
        session: int = 0,
    ) -> None:
        State.__init__(
            self,
            kind,
            channels,
            topic=topic,
            native=native,
            base_flags=base_flags,
            flags=flags,
            session=session,
        )
        self._size_min = kind.size  # of a record
        self._was_packed = False  # a record, or the condition
        self._newest: bytes | None = None  # its header is yet to be written
        self._newest_flags = 0
        self.takes_number = not self.keeps_every

    @property
    def is_known(self) -> bool:
        """True if there is something to be flagged, or to be repeated to those who join."""
        return self._was_packed if self.keeps_every else self.recv_ns != 0

    def forget(self) -> None:
        """Make every value unknown: no line is left to keep them.

        Of a kind that keeps every record there are no values: that there were records holds, and so does the
        condition that was published.
        """
        flags = self.flags & _NOT_LIVE if self.keeps_every else 0
        State.forget(self)
        self.flags |= flags
        self._newest = None
        self.takes_number = not self.keeps_every

    def put(self, record: wire.Record) -> None:
        """Have this record emitted next. Of its header only the flags count, beside those of the state.

        Raises DecodeError for a number that its field does not hold; then everything is as it was.
        """
        try:
            packed = wire.pack(record)
        except (struct.error, ValueError, OverflowError) as exc:
            raise DecodeError(f"{self.topic}: {exc}") from exc
        self.put_packed(packed, record.flags)

    def put_packed(self, packed: bytes, flags: int) -> None:
        """The same of a record's bytes, whose header may be anything."""
        if not self._size_min <= len(packed) <= self._size_max:
            raise ValueError("not the size of a record of this kind")
        self._newest, self._newest_flags = packed, flags
        self.takes_number = True

    def pack(self, target: bytearray, start: int) -> int:
        """Write the record, or else the condition, into a buffer; returns its size."""
        self._was_packed = True
        packed = self._newest
        if packed is None:
            self.pack_header(target, start, _CONDITION, self.flags)
            return _HEADER_SIZE
        size = len(packed)
        raw.copy(target, start, packed, 0, size)
        self.pack_header(target, start, self._code, self.flags | self._newest_flags)
        if self.keeps_every:
            self._newest, self.takes_number = None, False
        return size
