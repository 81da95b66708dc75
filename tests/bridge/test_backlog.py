"""What the bridge has still to publish."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.bridge import backlog as owed
from feedhandler.bridge.backlog import SETTLE_NS, Backlog
from feedhandler.bridge.unconfirmed import Unconfirmed
from feedhandler.data import wire


def record(symbol="A", sequence=1, *, session=100, flags=0, last=1.0):
    topic = wire.topic(wire.TICKER, "binance", symbol)
    return wire.pack_ticker(wire.Ticker(topic, flags=flags, session=session, sequence=sequence, last=last))


def beat(sequence=1, session=100):
    topic = wire.topic(wire.HEARTBEAT, "merger")
    return wire.pack_document(
        wire.Document(topic, kind=wire.HEARTBEAT, session=session, sequence=sequence, body=b"{}")
    )


def drain(backlog):
    records = []
    while chunk := backlog.take_chunk():
        records += chunk
    return records


def facts(records):
    return [(r.symbol, r.session, r.sequence, r.flags) for r in map(wire.unpack, records)]


# --- the backlog


def test_while_there_is_room_everything_is_kept_in_order():
    backlog = Backlog()
    batch = [record(symbol, n) for n in range(1, 400) for symbol in "AB"]
    backlog.take(b"".join(batch))
    backlog.take(memoryview(beat()))
    assert drain(backlog) == [*batch, beat()]
    assert not backlog.conflated and not backlog.missed and not len(backlog) and not backlog.queue_size


def test_beyond_the_limit_the_newest_of_each_topic_is_kept(monkeypatch):
    monkeypatch.setattr(owed, "QUEUE_SIZE_MAX", 3 * wire.TICKER_SIZE)
    backlog = Backlog()
    for sequence in range(1, 11):
        backlog.take(record("A", sequence))
        backlog.take(record("B", sequence))
    assert facts(drain(backlog)) == [
        ("A", 100, 1, 0),
        ("B", 100, 1, 0),
        ("A", 100, 2, 0),
        ("B", 100, 10, 0),
        ("A", 100, 10, 0),
    ]
    assert backlog.conflated == {"ticker": 15}
    backlog.take(record("A", 11))
    assert facts(drain(backlog)) == [("A", 100, 11, 0)]


@given(st.integers(0, 2**32))
def test_whatever_is_lost_and_however_slow_each_topic_ends_on_its_newest_and_never_goes_back(seed):
    chance = random.Random(seed)
    backlog, sequences, published = Backlog(), {}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owed, "QUEUE_SIZE_MAX", chance.choice([0, 3, 50]) * wire.TICKER_SIZE)
        patch.setattr(owed, "CHUNK_RECORDS", chance.choice([1, 2, 7]))
        unconfirmed = Unconfirmed()
        for _ in range(200):
            act = chance.random()
            if act < 0.6:
                symbol = chance.choice("ABCDE")
                sequences[symbol] = sequences.get(symbol, 0) + 1
                backlog.take(record(symbol, sequences[symbol]))
            elif act < 0.85:
                chunk = backlog.take_chunk()
                room = chance.randint(0, len(chunk))
                for each in chunk[:room]:
                    unconfirmed.add(each)
                backlog.return_first(chunk[room:])
            elif act < 0.95:
                arrived = unconfirmed.take_all()
                keep = chance.randint(0, len(arrived))
                for each in arrived[:keep]:
                    ticker = wire.unpack(each)
                    published.setdefault(ticker.symbol, []).append(ticker.sequence)
                backlog.put_back(arrived[keep:])
        for each in [*unconfirmed.take_all(), *drain(backlog)]:
            ticker = wire.unpack(each)
            published.setdefault(ticker.symbol, []).append(ticker.sequence)
    assert {symbol: numbers[-1] for symbol, numbers in published.items()} == sequences
    assert all(numbers == sorted(numbers) for numbers in published.values())


def test_a_chunk_that_found_no_room_goes_first_the_next_time():
    backlog = Backlog()
    records = [record("A", n) for n in range(1, 4)]
    backlog.take(b"".join(records))
    chunk = backlog.take_chunk()
    backlog.take(record("A", 4))
    backlog.return_first(chunk[1:])
    assert drain(backlog) == [*records[1:], record("A", 4)]
    assert not backlog.queue_size


def test_what_may_be_lost_is_owed_again_in_its_newest_state():
    backlog = Backlog()
    backlog.take(record("A", 1) + record("B", 1))
    handed_over = drain(backlog)
    backlog.take(record("A", 2))
    backlog.put_back(handed_over)
    assert facts(drain(backlog)) == [("A", 100, 2, 0), ("B", 100, 1, 0)]


def test_for_a_side_that_is_away_only_the_newest_waits():
    backlog = Backlog()
    backlog.put_back([])
    for sequence in (1, 2, 3):
        backlog.take(record("A", sequence))
    assert facts(drain(backlog)) == [("A", 100, 3, 0)]
    backlog.is_away = False
    backlog.take(record("A", 4) + record("A", 5))
    assert facts(drain(backlog)) == [("A", 100, 4, 0), ("A", 100, 5, 0)]


def test_a_repetition_is_news_only_if_its_flags_are():
    backlog = Backlog()
    backlog.take(record("A", 5))
    backlog.take(record("A", 5, flags=wire.SNAPSHOT))
    backlog.take(record("A", 4))
    backlog.take(record("A", 5, flags=wire.SNAPSHOT | wire.STALE))
    assert facts(drain(backlog)) == [("A", 100, 5, 0), ("A", 100, 5, wire.SNAPSHOT | wire.STALE)]


def test_a_gap_is_counted_and_all_is_asked_for_again_but_not_all_the_time():
    backlog = Backlog()
    backlog.take(record("A", 1))
    assert not backlog.on_time(0)
    backlog.take(record("A", 4))
    assert backlog.missed == 2
    assert backlog.on_time(1)
    backlog.take(record("A", 9))
    assert not backlog.on_time(2)
    assert backlog.on_time(2 + owed.REJOIN_EVERY_NS)
    assert not backlog.on_time(3 + 2 * owed.REJOIN_EVERY_NS)


@pytest.mark.parametrize("message", [b"x" * 79, record()[:-1], beat()[:64] + b"\x03" + beat()[65:]])
def test_what_cannot_be_read_is_counted_and_not_published(message):
    backlog = Backlog()
    backlog.take(message)
    damaged = bytearray(record())
    damaged[wire.VERSION_OFFSET] = 9
    backlog.take(bytes(damaged))
    assert backlog.undecodable == 2
    assert not drain(backlog)


def test_down_is_said_of_each_ticker_and_taken_back_if_the_same_merger_returns():
    backlog = Backlog()
    backlog.take(record("A", 3))
    backlog.take(record("B", 7, flags=wire.STALE))
    backlog.take(beat(1))
    drain(backlog)
    backlog.flag_down()
    down = wire.DOWN | wire.SNAPSHOT
    assert facts(drain(backlog)) == [("A", 100, 3, down), ("B", 100, 7, down | wire.STALE)]
    backlog.take(beat(2))
    backlog.clear_down()
    assert facts(drain(backlog)[1:]) == [
        ("A", 100, 3, wire.SNAPSHOT),
        ("B", 100, 7, wire.SNAPSHOT | wire.STALE),
    ]
    backlog.clear_down()
    assert not drain(backlog)


def test_what_the_next_merger_does_not_have_stays_down_and_is_forgotten():
    backlog = Backlog()
    backlog.take(record("A", 3) + record("B", 3))
    backlog.on_time(0)
    backlog.flag_down()
    drain(backlog)
    backlog.take(beat(1, session=200))
    backlog.take(record("A", 1, session=200))
    backlog.clear_down()
    assert facts(drain(backlog))[1:] == [("A", 200, 1, 0), ("A", 200, 1, wire.SNAPSHOT)]
    backlog.on_time(1)
    backlog.on_time(1 + SETTLE_NS)
    assert not drain(backlog)
    backlog.on_time(2 + SETTLE_NS)
    assert facts(drain(backlog)) == [("B", 100, 3, wire.DOWN | wire.SNAPSHOT)]
    assert len(backlog.newest) == 2


def test_what_is_lost_while_the_merger_is_silent_is_said_again_as_down():
    backlog = Backlog()
    backlog.take(record("A", 3))
    handed_over = drain(backlog)
    backlog.flag_down()
    handed_over += drain(backlog)
    backlog.put_back(handed_over)
    assert facts(drain(backlog)) == [("A", 100, 3, wire.DOWN | wire.SNAPSHOT)]


def test_everything_is_repeated_for_those_who_were_away():
    backlog = Backlog()
    backlog.take(record("A", 3))
    backlog.take(beat())
    drain(backlog)
    backlog.repeat()
    repeated = drain(backlog)
    assert facts(repeated)[0] == ("A", 100, 3, wire.SNAPSHOT)
    assert wire.unpack(repeated[1]).kind == wire.HEARTBEAT


# --- what is under way
