"""What a subscriber makes of messages, in Python and compiled."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from feedhandler.data import wire
from feedhandler.transport.follower import Follower, Gatherer, Loss

CASES = json.loads((Path(__file__).parents[1] / "golden" / "follow.json").read_text(encoding="utf-8"))
BTC, ETH = (wire.topic(wire.TICKER, "binance", symbol) for symbol in ("BTC/USDT", "ETH/USDT"))


def ticker(topic=BTC, sequence=1, session=100, **fields):
    return wire.pack_ticker(wire.Ticker(topic, session=session, sequence=sequence, **fields))


@pytest.fixture
def stream():
    class Stream:
        def __init__(self):
            self.records = []
            self.follower = Follower(self.records.append)

        def take(self, *messages):
            for message in messages:
                self.follower.take(message)
            return [(record.topic, record.sequence) for record in self.records]

    return Stream()


def test_a_record_comes_out_with_every_value(stream):
    values = dict(zip(wire.TICKER_VALUES, [float(n) + 0.25 for n in range(10)], strict=True))
    whole = wire.Ticker(
        BTC,
        wire.VERSION,
        wire.TICKER,
        8,
        100,
        7,
        1_790_000_000_000_000_001,
        -5,
        2**62,
        2**64 - 1,
        *values.values(),
    )
    stream.take(wire.pack_ticker(whole))
    assert stream.records == [whole]


GOLDEN = Path(__file__).parents[1] / "golden"
MANY = sorted(path for word in ("trade", "depth", "book") for path in GOLDEN.glob(f"{word}_*.bin"))


@pytest.mark.parametrize("path", MANY, ids=lambda path: path.stem)
def test_what_there_is_much_of_comes_out_as_any_record_does(path, stream):
    """It is made in one step of its own: so is what is wrong with it found there."""
    message = path.read_bytes()
    stream.take(message, ticker())
    assert repr(stream.records[0]) == repr(wire.unpack(message))
    assert list(map(type, astuple(stream.records[0]))) == list(map(type, astuple(wire.unpack(message))))
    follower = stream.follower
    sizes = {103, 104, 127, len(message) - 1}
    for size in sizes:
        follower.take(message[:size])
    version, topic = bytearray(message), bytearray(message)
    version[wire.VERSION_OFFSET] = 1
    topic[wire.TOPIC_BYTES_MAX] = 65
    for changed in (version, topic, message + b"x"):
        follower.take(bytes(changed))
    assert (follower.undecodable, len(stream.records)) == (len(sizes) + 3, 2)


@pytest.mark.parametrize("counts", [(0, 1), (65535, 65535), (200, 57)])
def test_a_record_of_a_book_with_other_levels_than_it_counts_is_none(counts, stream):
    message = bytearray(wire.pack(wire.BookRecord.of("book.x.AB", [(1.0, 1.0)])) + bytes(256 * 16))
    offsets = wire.COUNTS[wire.BOOK]
    for at, count in zip((offsets.first, offsets.second), counts, strict=True):
        wire.COUNT.pack_into(message, at, count)
    stream.take(bytes(message[:144] if counts == (0, 1) else message))
    assert (len(stream.records), stream.follower.undecodable) == ((1, 0) if counts == (0, 1) else (0, 1))


def test_holes_are_counted_and_what_was_seen_is_no_news(stream):
    assert stream.take(*(ticker(sequence=n) for n in (5, 6, 9, 9, 7, 10))) == [
        (BTC, 5),
        (BTC, 6),
        (BTC, 9),
        (BTC, 10),
    ]
    assert stream.follower.losses == {BTC: Loss(100, 10, lost=2, gaps=1)}


def test_a_new_session_starts_over_and_old_losses_stay(stream):
    stream.take(ticker(sequence=1), ticker(sequence=3), ticker(sequence=1, session=101))
    assert stream.follower.losses == {BTC: Loss(101, 1, lost=1, gaps=1)}


def test_a_batch_is_its_records(stream):
    batch = ticker(BTC, 1) + ticker(ETH, 1) + ticker(BTC, 2)
    assert stream.take(batch) == [(BTC, 1), (ETH, 1), (BTC, 2)]


def test_a_batch_may_have_records_of_several_kinds_and_a_document_at_its_end(stream):
    condition = wire.Condition("trade.x.A/B", flags=wire.DOWN, session=100, sequence=7)
    status = wire.Document(wire.topic(wire.STATUS, "x"), kind=wire.STATUS, sequence=1, body=b"{}")
    batch = ticker(BTC) + wire.pack(condition) + ticker(BTC, 2) + wire.pack(status)
    assert stream.take(batch) == [(BTC, 1), ("trade.x.A/B", 7), (BTC, 2), ("status.x", 1)]
    assert stream.follower.undecodable == 0


@pytest.mark.parametrize("kind", [0, 99, 255])
def test_a_kind_that_is_not_known_is_handed_on_as_it_is(stream, kind):
    other = bytearray(ticker(ETH, 7))
    other[wire.KIND_OFFSET] = kind
    assert stream.take(ticker(BTC), bytes(other), bytes(other)) == [(BTC, 1), (ETH, 7), (ETH, 7)]
    record = stream.records[-1]
    assert isinstance(record, wire.Unknown)
    assert record.body == ticker()[wire.HEADER_SIZE :]
    assert stream.follower.undecodable == 0


def test_a_condition_has_no_number_of_its_own(stream):
    down, over = (wire.Condition(BTC, flags=flags, session=100, sequence=5) for flags in (wire.DOWN, 0))
    stream.take(ticker(sequence=5), wire.pack(down), wire.pack(over), ticker(sequence=6))
    assert [(record.sequence, record.flags) for record in stream.records] == [
        (5, 0),
        (5, wire.DOWN),
        (5, 0),
        (6, 0),
    ]
    assert stream.follower.losses == {BTC: Loss(100, 6)}
    assert stream.follower.newest[BTC].sequence == 6


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_table_that_all_languages_share(case, stream):
    """Every language's Follow goes through it in tests/languages; these give the same losses."""
    expected = []
    lost = 0
    for step in case["steps"]:
        if step["continuity"] != "duplicate":
            expected.append((BTC, step["sequence"]))
        lost += step["missing"]
        assert stream.take(ticker(sequence=step["sequence"], session=step["session"])) == expected
        assert stream.follower.losses[BTC].lost == lost
    assert (stream.follower.losses[BTC].lost, stream.follower.losses[BTC].gaps) == (
        case["lost"],
        case["gaps"],
    )


@pytest.mark.parametrize("kind", [wire.TICKER, wire.HEARTBEAT])
def test_a_topic_without_nul_is_no_record(kind, stream):
    message = bytearray(ticker())
    message[: wire.TOPIC_SIZE], message[wire.KIND_OFFSET] = b"t" * wire.TOPIC_SIZE, kind
    assert stream.take(bytes(message)) == []
    assert stream.follower.undecodable == 1


def test_documents_pass_and_are_followed_too(stream):
    topic = wire.topic(wire.HEARTBEAT, "merger")
    beats = [
        wire.Document(topic, kind=wire.HEARTBEAT, session=1, sequence=n, body=b"{}") for n in (1, 2, 2, 4)
    ]
    assert stream.take(*map(wire.pack_document, beats)) == [(topic, 1), (topic, 2), (topic, 4)]
    assert stream.follower.losses[topic].lost == 1


@pytest.mark.parametrize(
    "message",
    [b"", b"x", bytes(104), bytes(192), bytes(384), ticker()[:-1], ticker()[:64] + b"\x01" + ticker()[65:]],
    ids=["empty", "short", "header", "version 0", "two of version 0", "cut", "version 1"],
)
def test_what_cannot_be_read_is_counted_and_the_stream_goes_on(stream, message):
    assert stream.take(message, ticker()) == [(BTC, 1)]
    assert stream.follower.undecodable >= 1


def test_the_newest_of_each_topic_is_known_whoever_has_taken_it(stream):
    stream.follower.on_gap = lambda record, first: True
    assert stream.take(ticker(sequence=1), ticker(ETH, 1), ticker(sequence=4), ticker(sequence=2)) == [
        (BTC, 1),
        (ETH, 1),
    ]
    assert {topic: record.sequence for topic, record in stream.follower.newest.items()} == {BTC: 4, ETH: 1}


def test_documents_may_go_aside_and_are_followed_unless_somebody_keeps_them():
    topic, records, aside = wire.topic(wire.HEARTBEAT, "merger"), [], []
    beats = [wire.Document(topic, kind=wire.HEARTBEAT, session=1, sequence=n) for n in (1, 2)]

    def take(document):
        aside.append(document)
        return document.sequence == 1

    follower = Follower(records.append, aside={wire.HEARTBEAT: take})
    for beat in (*beats, beats[1]):
        follower.take(wire.pack_document(beat))
    assert [beat.sequence for beat in aside] == [1, 2, 2]
    assert [record.sequence for record in records] == [2]
    assert follower.losses == {topic: Loss(1, 2)}


def test_a_gatherer_copies_what_is_news():
    gatherer = Gatherer()
    beat = wire.Document(wire.topic(wire.HEARTBEAT, "merger"), kind=wire.HEARTBEAT, session=1, sequence=1)
    gatherer.take(ticker(sequence=1) + ticker(ETH, 1) + ticker(sequence=1))
    for message in (ticker(sequence=3), wire.pack_document(beat), b"junk", ticker()[:-1]):
        gatherer.take(message)
    assert gatherer.count == 3
    first = gatherer.collect()
    assert first == ticker(sequence=1) + ticker(ETH, 1) + ticker(sequence=3)
    assert (gatherer.count, gatherer.collect()) == (0, b"")
    assert gatherer.losses[BTC] == Loss(100, 3, lost=1, gaps=1)
    assert gatherer.undecodable == 2
    assert list(gatherer.newest) == [beat.topic]
    for number in range(4, 1000):
        gatherer.take(ticker(sequence=number))
    assert gatherer.collect() == b"".join(ticker(sequence=number) for number in range(4, 1000))
    assert first[:192] == ticker(sequence=1), "it has been given away"


@given(seed=st.integers(0, 10**9))
def test_both_followers_do_the_same(seed):
    rng = random.Random(seed)
    messages = []
    for _ in range(60):
        message = b"".join(
            ticker(
                rng.choice((BTC, ETH)),
                rng.randrange(1, 30),
                rng.choice((100, 100, 100, 101)),
                bid=rng.random(),
            )
            for _ in range(rng.choice((1, 1, 1, 2, 5)))
        )
        if rng.random() < 0.1:
            message = bytearray(message)
            at = rng.randrange(len(message) // wire.TICKER_SIZE) * wire.TICKER_SIZE
            # Not in the topic: as text, what is no UTF-8 is replaced.
            message[at + rng.randrange(wire.TOPIC_BYTES_MAX, wire.TICKER_SIZE)] = rng.randrange(256)
            message = bytes(message)
        messages.append(message if rng.random() < 0.95 else rng.randbytes(rng.randrange(400)))
    records = []
    follower = Follower(records.append)
    for message in messages:
        follower.take(message)
    gatherer = Gatherer()
    for message in messages:
        gatherer.take(message)
    assert gatherer.collect() == b"".join(
        wire.pack_ticker(record) for record in records if isinstance(record, wire.Ticker)
    )
    assert (gatherer.losses, gatherer.undecodable) == (follower.losses, follower.undecodable)
