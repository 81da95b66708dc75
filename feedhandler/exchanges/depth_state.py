"""Depth as a feed publishes it: the best levels of both sides.

    changes ──▶ Levels, best first ──▶ DepthState ──▶ record

Pure. Compiled where there is a compiler, with the types of `depth_state.pxd`.
"""

from typing import cast

from feedhandler.data import depth, raw, wire
from feedhandler.data.depth import BookLevel
from feedhandler.data.layout import LEVEL_SIZE
from feedhandler.data.levels import Levels
from feedhandler.exchanges.arbitration import Arbitration, Line
from feedhandler.exchanges.state import State

# For the class: what has a type in the .pxd is not to be had from Python.
_NOT_LIVE, _INVALID = wire.NOT_LIVE, wire.INVALID
_RECORD_SIZE = depth.DEPTH.size
_SEQUENCE_OFFSET = depth.DEPTH.layout.offset("exchange_sequence")
# What stands after that, from there on.
_BODY_OFFSET = depth.DEPTH.layout.offset("bid_count")
_BODY_SIZE = _RECORD_SIZE - _BODY_OFFSET
_ASK_COUNT_OFFSET = depth.DEPTH.layout.offset("ask_count") - _BODY_OFFSET
_BIDS_OFFSET = depth.DEPTH.layout.offset("bid_levels") - _BODY_OFFSET
_ASKS_OFFSET = depth.DEPTH.layout.offset("ask_levels") - _BODY_OFFSET
assert _ASKS_OFFSET - _BIDS_OFFSET == depth.LEVELS_MAX * LEVEL_SIZE


class DepthState(State):
    """The best levels of one symbol. An update that changes none of them is no record."""

    def __init__(
        self, *, topic: str, native: str, base_flags: int = 0, flags: int = 0, session: int = 0
    ) -> None:
        self._order = Arbitration()
        State.__init__(
            self,
            depth.DEPTH,
            (self._order,),
            topic=topic,
            native=native,
            base_flags=base_flags,
            session=session,
        )
        self._bids, self._asks = Levels(True), Levels(False)
        self._body, self._before = bytearray(_BODY_SIZE), bytearray(_BODY_SIZE)
        self.forget()
        self.flags = flags

    def forget(self) -> None:
        """Make every value unknown: no line is left to keep them."""
        State.forget(self)
        self.exchange_sequence = 0
        self.is_crossed = False
        self._bids.clear()
        self._asks.clear()
        self._write(self._bids, self._asks)

    def _decide(
        self, channel: int, line: Line, update_id: int, recv_ns: int, present_ns: int, is_live: bool
    ) -> bool:
        return self._order.accept(line, update_id, recv_ns, present_ns, is_live)

    def replace(self, bids: bytes, asks: bytes, recv_ns: int) -> bool:
        """Take over levels that came in full, as records have them; True if there is something to be emitted."""
        # hot: `make bench-micro`, decode
        self._bids.replace_packed(bids)
        self._asks.replace_packed(asks)
        return self.update(self._bids, self._asks, recv_ns)

    def update(self, bids: Levels, asks: Levels, recv_ns: int) -> bool:
        """Take over the best of both sides of a book; True if there is something to be emitted."""
        # hot: `make bench-micro`, decode
        flags, was_known = self.flags, self.recv_ns != 0
        self._body, self._before = self._before, self._body
        self._write(bids, asks)
        self.is_crossed = bids.best() >= asks.best()
        self.on_news(recv_ns)
        return not was_known or self.flags != flags or self._body != self._before

    def on_news(self, recv_ns: int) -> None:
        """Note when the frame came that changed this state; every flag is decided anew."""
        State.on_news(self, recv_ns)
        if self.is_crossed:
            self.flags |= _INVALID

    def _write(self, bids: Levels, asks: Levels) -> None:
        body = self._body
        raw.put_u16(body, 0, bids.copy_best(body, _BIDS_OFFSET))
        raw.put_u16(body, _ASK_COUNT_OFFSET, asks.copy_best(body, _ASKS_OFFSET))

    @property
    def bids(self) -> tuple[BookLevel, ...]:
        return self._record().bids

    @property
    def asks(self) -> tuple[BookLevel, ...]:
        return self._record().asks

    def _record(self) -> depth.Depth:
        return cast(depth.Depth, wire.unpack(self.record()))

    def pack(self, target: bytearray, start: int) -> int:
        """Write the record into a buffer; returns its size."""
        self.pack_header(target, start, self._code, self.flags)
        raw.put_u64(target, start + _SEQUENCE_OFFSET, self.exchange_sequence)
        raw.copy(target, start + _BODY_OFFSET, self._body, 0, _BODY_SIZE)
        return _RECORD_SIZE
