"""What leaves a feed, as messages to the merger and to direct subscribers."""

import pytest

from feedhandler.data import wire
from feedhandler.data.contracts import Fanout
from feedhandler.data.errors import DecodeError
from feedhandler.data.header import HEADER
from feedhandler.data.layout import Description, Retention, layout
from feedhandler.data.ticker import TICKER
from feedhandler.exchanges.state import RecordState, State, TickerState
from feedhandler.feed import batch
from feedhandler.transport.boards import BoardReader, BoardWriter


class End(Fanout):
    """The hop, or the way to direct subscribers: keeps what is sent, and how much of it was flushed."""

    def __init__(self, is_wanted=True):
        self.is_wanted = is_wanted
        self.sent = []
        self.flushed = 0

    def send(self, *message):
        self.sent.append(tuple(map(bytes, message)))

    def flush(self):
        self.flushed = len(self.sent)


class World:
    """A batch between two ends, with a clock that moves by 1 ns each time that it is read."""

    def __init__(self, direct=True):
        self.hop, self.direct = End(), End(direct)
        self.now = 1_790_000_000_000_000_000
        self.batch = batch.Batch(self.hop, self.direct, self.clock)
        self.states = [
            TickerState(topic=wire.topic(wire.TICKER, "x", f"S{n}"), native=f"S{n}") for n in range(5)
        ]

    def clock(self):
        self.now += 1
        return self.now

    def emit(self, *numbers):
        for number in numbers:
            self.batch.emit(self.states[number])

    def records(self):
        """What came over the hop."""
        return [
            wire.unpack(message[start : start + wire.TICKER_SIZE])
            for (message,) in self.hop.sent
            for start in range(0, len(message), wire.TICKER_SIZE)
        ]


def test_records_of_one_flush_are_one_message_and_each_topic_counts():
    world = World()
    world.emit(0, 1, 0)
    assert not world.hop.sent
    world.batch.flush()
    world.emit(0)
    world.batch.flush()
    world.batch.flush()
    assert [len(message) // wire.TICKER_SIZE for (message,) in world.hop.sent] == [3, 1]
    assert [(r.symbol, r.sequence) for r in world.records()] == [("S0", 1), ("S1", 1), ("S0", 2), ("S0", 3)]
    assert world.batch.records == 4


def test_the_first_record_of_a_message_says_when_it_left():
    world = World(direct=False)
    world.emit(0, 1)
    world.batch.flush()
    assert [r.publish_ns for r in world.records()] == [world.now, 0]


def test_direct_subscribers_get_each_record_alone_under_its_topic_with_its_own_time():
    world = World()
    world.emit(2, 3)
    world.batch.flush()
    topics, messages = zip(*world.direct.sent, strict=True)
    records = [wire.unpack(message) for message in messages]
    assert [wire.padded(record.topic) for record in records] == list(topics)
    assert [r.publish_ns for r in records] == [world.now - 2, world.now - 1]
    assert world.direct.flushed == 2


def test_without_direct_subscribers_nothing_goes_there():
    world = World(direct=False)
    world.emit(0)
    world.batch.flush()
    assert world.direct.sent == []


def test_a_record_is_what_its_state_was_when_it_was_emitted():
    world = World()
    for bid in (1.0, 2.0):
        world.states[0].set_quote(bid, 1.0, 3.0, 1.0)
        world.emit(0)
    world.batch.flush()
    assert [r.bid for r in world.records()] == [1.0, 2.0]


def test_a_message_has_its_longest_length_however_much_is_emitted():
    world = World()
    for number in range(2 * batch.RECORDS_MAX + 3):
        world.emit(number % 5)
    world.batch.flush()
    assert [len(m) // wire.TICKER_SIZE for (m,) in world.hop.sent] == [batch.RECORDS_MAX] * 2 + [3]
    assert len(world.direct.sent) == 2 * batch.RECORDS_MAX + 3


def test_what_is_repeated_goes_to_the_merger_alone_after_what_was_emitted():
    world = World()
    world.emit(0)
    count = batch.RECORDS_MAX + 1
    again = [
        wire.pack_ticker(wire.Ticker("ticker.x.A", sequence=n, flags=wire.SNAPSHOT)) for n in range(count)
    ]
    world.batch.repeat(again)
    records = world.records()
    assert (records[0].symbol, records[0].sequence) == ("S0", 1)
    assert [(r.symbol, r.sequence) for r in records[1:]] == [("A", n) for n in range(count)]
    assert len(world.direct.sent) == 1
    assert world.batch.records == count + 1


def test_a_record_is_on_the_board_before_it_leaves_under_the_canonical_topic(tmp_path):
    world = World()
    writer = BoardWriter(tmp_path / "x.board")
    reader = BoardReader(tmp_path / "x.board")
    world.states[1].slot = writer.slot("ticker.x.S/ONE")
    world.states[1].bid = 7.0
    world.emit(0, 1)
    assert not world.hop.sent
    first = reader.cells.ticker(0)
    assert (first.topic, first.sequence, first.bid, first.publish_ns) == (
        "ticker.x.S/ONE",
        1,
        7.0,
        world.now,
    )
    world.states[1].bid = 8.0
    world.emit(1)
    assert (reader.cells.ticker(0).bid, wire.unpack(reader.record(0, 1)).bid) == (8.0, 7.0)
    world.batch.flush()
    assert [(r.topic, r.bid == r.bid) for r in world.records()] == [
        ("ticker.x.S0", False),
        ("ticker.x.S1", True),
        ("ticker.x.S1", True),
    ]
    assert [r.publish_ns for r in world.records()][1:] == [0, 0], "as without a board"
    world.states[1].slot = None
    world.emit(1)
    assert reader.cells.ticker(0).sequence == 2


EACH = Description(
    TICKER.code,
    "ticker",
    "each counts",
    Retention.EVERY,
    TICKER.record,
    layout("t", "t", TICKER.record, HEADER),
)


def record_state(kind, name="S9"):
    return RecordState(
        kind, (), topic=f"ticker.x.{name}", native=name, base_flags=wire.SIMULATED, flags=wire.SIMULATED
    )


def sent(world):
    """What came over the hop, cut by the kinds of records."""
    return [wire.unpack(part) for (message,) in world.hop.sent for part in wire.split(message)]


def put(state, **fields):
    state.put(wire.Ticker("", **fields))
    state.exchange_ns = 5
    state.on_news(7)


def test_a_record_that_counts_once_is_sent_once_and_flags_of_it_are_a_condition():
    world, state = World(), record_state(EACH)
    assert not state.is_known
    for bid in (1.0, 2.0):
        put(state, bid=bid, flags=wire.LAST)
        world.batch.emit(state)
    state.flags |= wire.STALE
    world.batch.emit(state)
    world.batch.emit(state)
    put(state, bid=3.0)
    world.batch.emit(state)
    world.batch.flush()
    got = [(r.kind, r.sequence, str(r.flags), getattr(r, "bid", None)) for r in sent(world)]
    assert got == [
        (wire.TICKER, 1, "SIMULATED|LAST", 1.0),
        (wire.TICKER, 2, "SIMULATED|LAST", 2.0),
        (wire.CONDITION, 2, "STALE|SIMULATED", None),
        (wire.CONDITION, 2, "STALE|SIMULATED", None),
        (wire.TICKER, 3, "SIMULATED", 3.0),
    ]
    assert {(r.topic, r.exchange_ns, r.recv_ns) for r in sent(world)} == {("ticker.x.S9", 5, 7)}
    assert [wire.unpack(message) for _, message in world.direct.sent][2].kind == wire.CONDITION
    assert world.batch.records == 5


def test_a_record_that_counts_once_and_was_not_emitted_is_forgotten_and_the_condition_stays():
    state = record_state(EACH)
    put(state, bid=1.0)
    assert wire.unpack(state.record()).bid == 1.0
    put(state, bid=2.0)
    state.flags |= wire.DOWN
    state.forget()
    assert state.is_known, "it has had a record"
    condition = wire.unpack(state.record())
    assert (condition.kind, str(condition.flags)) == (wire.CONDITION, "DOWN|SIMULATED")
    assert not state.takes_number


@pytest.mark.parametrize("kind", [EACH, TICKER])
@pytest.mark.parametrize(
    "fields", [{"exchange_sequence": 2**64}, {"exchange_sequence": -1}, {"bid": 10**400}, {"flags": 2**16}]
)
def test_a_number_that_its_field_does_not_hold_is_refused_before_anything_changes(kind, fields):
    world, state = World(), record_state(kind)
    put(state, bid=1.0, flags=wire.LAST)
    with pytest.raises(DecodeError, match=r"ticker\.x\.S9"):
        put(state, **fields)
    world.batch.emit(state)
    with pytest.raises(DecodeError):
        put(state, **fields)
    state.flags |= wire.DOWN
    world.batch.emit(state)
    world.batch.flush()
    newest = (1, "DOWN|SIMULATED", None) if kind is EACH else (2, "DOWN|SIMULATED|LAST", 1.0)
    assert [(r.sequence, str(r.flags), getattr(r, "bid", None)) for r in sent(world)] == [
        (1, "SIMULATED|LAST", 1.0),
        newest,
    ]


def test_a_state_that_cannot_be_packed_takes_no_number():
    class Failing(RecordState):
        def pack(self, target, start):
            raise ValueError("cannot be packed")

    world = World()
    state = Failing(TICKER, (), topic="ticker.x.A", native="A")
    with pytest.raises(ValueError, match="cannot be packed"):
        world.batch.emit(state)
    assert state.sequence == 0
    world.emit(0)
    world.batch.flush()
    assert [r.symbol for r in world.records()] == ["S0"]


class OwnState(State):
    """A state of an exchange's own, in Python whatever is compiled: it packs what it has itself."""

    bid = 0.0

    def pack(self, target, start):
        record = wire.pack_ticker(wire.Ticker("", bid=self.bid))
        target[start : start + len(record)] = record
        assert self.pack_header(target, start, TICKER.code, self.flags) == wire.HEADER_SIZE
        return len(record)


def test_a_state_may_be_of_an_exchanges_own():
    world = World()
    state = OwnState(TICKER, (), topic="ticker.x.A", native="A", base_flags=wire.SIMULATED, session=3)
    state.bid = 2.0
    state.on_news(7)
    for _ in range(2):
        world.batch.emit(state)
    world.batch.flush()
    assert [(r.topic, r.sequence, r.session, r.recv_ns, str(r.flags), r.bid) for r in sent(world)] == [
        ("ticker.x.A", number, 3, 7, "SIMULATED", 2.0) for number in (1, 2)
    ]


def test_the_newest_record_of_a_latest_kind_is_sent_again_under_other_flags():
    world, state = World(), record_state(TICKER)
    assert not state.is_known
    put(state, bid=1.0)
    world.batch.emit(state)
    state.flags |= wire.STALE
    world.batch.emit(state)
    world.batch.flush()
    assert [(r.sequence, str(r.flags), r.bid) for r in sent(world)] == [
        (1, "SIMULATED", 1.0),
        (2, "STALE|SIMULATED", 1.0),
    ]
    state.forget()
    assert not state.is_known


def test_what_is_repeated_is_one_record_of_whatever_kind():
    world, state = World(), record_state(EACH)
    put(state, bid=1.0)
    world.batch.emit(state)
    world.batch.repeat([state.record(), world.states[0].record()])
    assert [(r.kind, r.sequence) for r in sent(world)] == [
        (wire.TICKER, 1),
        (wire.CONDITION, 1),
        (wire.TICKER, 0),
    ]
    for other in (b"", state.record()[:-1], state.record() * 2):
        with pytest.raises(ValueError, match="one record"):
            world.batch.repeat([other])
