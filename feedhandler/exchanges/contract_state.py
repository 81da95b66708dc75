"""What a feed keeps of one derivative besides prices: mark, index, funding, open interest.

    channel of mark prices ──┐
    channel of funding ──────┼─▶ ContractState, updated in place ──▶ record
    REST, what is polled ────┘

Pure.
"""

import struct
from collections.abc import Container, Mapping
from typing import Any, Final

from feedhandler.data import wire
from feedhandler.data.contract import CONTRACT
from feedhandler.exchanges.state import State

_BODY: Final = struct.Struct("<" + CONTRACT.layout.codes)
assert wire.HEADER_SIZE + _BODY.size == CONTRACT.size
_UNKNOWN: Final = {"next_funding_ns": 0}  # of all others it is NaN


class ContractState(State):
    """The contract of one symbol. Each channel owns its fields, and sets them: then `update` says what is new."""

    def __init__(self, channels: tuple[Any, ...], *, flags: int = 0, **names: Any) -> None:
        self._until_ns: dict[str, int] = {}  # until when values count that were polled
        State.__init__(self, CONTRACT, channels, **names)
        self.forget()
        self.flags = flags

    def forget(self) -> None:
        """Make every value unknown: no line is left to keep them. What was polled is of none: it ends by itself."""
        polled = {name: getattr(self, name) for name in self._until_ns}
        State.forget(self)
        self.exchange_sequence = self.next_funding_ns = 0
        self.mark = self.index = self.open_interest = wire.NAN
        self.funding_rate = self.predicted_funding_rate = self.funding_interval_h = wire.NAN
        for name, value in polled.items():
            setattr(self, name, value)
        self._filled: dict[str, float] = {}  # what was polled of fields that a channel has
        self._published = b""

    def set_polled(self, values: Mapping[str, float], owned: Container[str], until_ns: int) -> None:
        """Take over what REST states, until then. What is not owned is filled until its channel has sent."""
        for name, value in values.items():
            known = getattr(self, name)
            if name in owned:
                self._until_ns[name] = until_ns
            elif known != known or known == self._filled.get(name):
                self._filled[name] = value
            else:
                continue
            setattr(self, name, value)

    def update(self, recv_ns: int) -> bool:
        """Note a frame by which values may have changed; True if there is something to be emitted."""
        for name, until_ns in [*self._until_ns.items()]:
            if recv_ns > until_ns:
                setattr(self, name, _UNKNOWN.get(name, wire.NAN))
                del self._until_ns[name]
        flags, before = self.flags, self._published
        self._published = self._body(0)  # a number alone is no news
        self.on_news(recv_ns)
        return self.flags != flags or self._published != before

    def _body(self, exchange_sequence: int) -> bytes:
        return _BODY.pack(
            exchange_sequence,
            self.mark,
            self.index,
            self.funding_rate,
            self.open_interest,
            self.next_funding_ns,
            self.funding_interval_h,
            self.predicted_funding_rate,
        )

    def pack(self, target: bytearray, start: int) -> int:
        """Write the record into a buffer; returns its size."""
        body = start + self.pack_header(target, start, CONTRACT.code, self.flags)
        target[body : body + _BODY.size] = self._body(self.exchange_sequence)
        return CONTRACT.size
