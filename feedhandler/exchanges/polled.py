"""Values of contracts that no channel of a market has, and REST does: what is asked for, and who takes it over.

    Poll ──request──▶ REST ──answer──▶ Market.decode_poll ──rows──▶ take_polled ──▶ ContractState

Such a value has an age: it is never older than `Poll.lasts_s` in a record, and unknown after that. Streams never
wait for it, and no condition changes by it. Pure.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from feedhandler.data import wire
from feedhandler.data.rest import RestRequest
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.contract_state import ContractState

SINGLES_MAX: Final = 4  # symbols that are asked for one by one, where all can be had at once: 1 kB for 1 MB


class Poll(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for, how often of each symbol, and for how long an answer counts.

    fields are those of the kind contract that no channel has, fills others that it gives until their channel does.
    request has all symbols in its answer; None: only `Market.poll_request`, of one symbol, can be sent. is_single:
    that can be sent as well. absent: the values of symbols that an answer about all does not have.
    """

    fields: tuple[str, ...]
    every_s: float
    lasts_s: float
    fills: tuple[str, ...] = ()
    request: RestRequest | None = None
    is_single: bool = False
    absent: Mapping[str, float] = {}

    def __post_init__(self) -> None:
        assert self.request is not None or self.is_single, "something has to be sent"
        assert self.lasts_s >= 2 * self.every_s, "one answer that is lost must not cost the value"


class PolledContract(msgspec.Struct, frozen=True):
    """What an answer states of one symbol; what it leaves out is not in values."""

    native: str
    values: Mapping[str, float]


def take_polled(
    poll: Poll,
    rows: Iterable[PolledContract],
    states: Iterable[ContractState],
    recv_ns: int,
    emit: Callable[[ContractState], None],
) -> list[ContractState]:
    """Have states take over what an answer has of them; returns those of which it has something.

    Records leave only of those that are live: what is DOWN or STALE stays so, and has the value in its next record.
    Of what no channel has brought yet, nothing is taken: a recording does not know that it is wanted.
    """
    stated = {row.native: row.values for row in rows}
    until_ns = recv_ns + int(poll.lasts_s * NS_PER_S)
    found = []
    for state in states:
        values = stated.get(state.native) or poll.absent
        if not values or not state.is_known:
            continue
        state.set_polled(values, poll.fields, until_ns)
        found.append(state)
        if not state.flags & wire.NOT_LIVE and state.update(recv_ns):
            emit(state)
    return found
