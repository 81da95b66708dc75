"""What is kept of a derivative, and which of its updates are records."""

from feedhandler.data import wire
from feedhandler.data.contract import CONTRACT
from feedhandler.exchanges.arbitration import Arbitration
from feedhandler.exchanges.contract_state import ContractState

RECV_NS = 1_790_000_000_300_000_000


def made():
    names = {"topic": "contract.x.linear:AB", "native": "AB", "base_flags": wire.SIMULATED}
    return ContractState((Arbitration(), Arbitration()), flags=wire.SIMULATED, **names)


def test_nothing_is_known_of_a_new_one():
    state = made()
    assert not state.is_known
    record = wire.unpack(state.record())
    assert (record.kind, record.flags, len(state.record())) == (wire.CONTRACT, wire.SIMULATED, CONTRACT.size)
    names = ("mark", "index", "funding_rate", "open_interest", "funding_interval_h", "predicted_funding_rate")
    assert all(getattr(record, name) != getattr(record, name) for name in names)
    assert record.next_funding_ns == record.exchange_sequence == 0


def test_a_record_has_what_all_channels_have_set():
    state = made()
    state.mark, state.index, state.exchange_sequence = 97421.5, 97420.0, 7
    assert state.update(RECV_NS)
    state.funding_rate, state.next_funding_ns, state.exchange_ns = -0.0001, RECV_NS + 1, RECV_NS - 5
    state.exchange_sequence = 8
    assert state.update(RECV_NS + 9)
    record = wire.unpack(state.record())
    assert (record.mark, record.index, record.funding_rate) == (97421.5, 97420.0, -0.0001)
    assert (record.next_funding_ns, record.recv_ns, record.exchange_ns) == (
        RECV_NS + 1,
        RECV_NS + 9,
        RECV_NS - 5,
    )
    assert record.exchange_sequence == 8


def test_what_changes_no_value_is_no_record_unless_it_ends_a_condition():
    state = made()
    state.mark, state.exchange_sequence = 97421.5, 7
    assert state.update(RECV_NS)
    state.exchange_sequence = 8
    assert not state.update(RECV_NS + 1)
    assert state.recv_ns == RECV_NS + 1, "a sign of life all the same"
    state.flags |= wire.STALE
    assert state.update(RECV_NS + 2)
    assert state.flags == wire.SIMULATED


def test_what_is_forgotten_is_news_when_it_comes_again():
    state = made()
    state.mark = 97421.5
    state.update(RECV_NS)
    state.forget()
    assert (state.mark != state.mark, state.is_known, state.flags) == (True, False, wire.SIMULATED)
    state.mark = 97421.5
    assert state.update(RECV_NS)
