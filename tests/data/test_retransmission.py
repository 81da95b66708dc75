"""What is asked and what is answered, over boards as the merger writes them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.data import retransmission, wire
from feedhandler.data.retransmission import Head, Missing, Request
from feedhandler.transport.boards import BoardReader, BoardWriter

SESSION = 1_790_000_000
BTC, ETH = "ticker.binance.BTC/USDT", "ticker.binance.ETH/USDT"
STATUS = wire.padded("status.binance")
DOCUMENTS = {
    STATUS: wire.pack_document(wire.Document("status.binance", kind=wire.STATUS, body=b'{"state":"live"}'))
}


class Published:
    """A merger's file of the last 8 records of each topic."""

    def __init__(self, path):
        self.writer = BoardWriter(path, depth=8, slots_max=5000, session=SESSION)
        self.ring = BoardReader(path)

    def publish(self, topic, first, last):
        slot = self.writer.slot(topic)
        for number in range(first, last + 1):
            ticker = wire.Ticker(topic, session=SESSION, sequence=number, bid=float(number))
            slot.write(wire.pack_ticker(ticker), number)

    def ask(self, documents=DOCUMENTS, **request):
        """Return head, records and documents of an answer."""
        answer = retransmission.answer(msgspec.json.encode(Request(**request)), self.ring, documents)
        head, records, *found = answer.frames
        head = msgspec.json.decode(head, type=Head)
        assert len(records) == head.records * wire.TICKER_SIZE
        assert len(found) == head.documents
        assert answer.cost >= retransmission.REQUEST_COST + head.records
        starts = range(0, len(records), wire.TICKER_SIZE)
        return head, [wire.unpack(records[s : s + wire.TICKER_SIZE]) for s in starts], found


@pytest.fixture
def published(tmp_path):
    return Published(tmp_path / "recent.board")


def test_records_that_are_left_come_in_order_and_the_others_are_named(published):
    published.publish(BTC, 1, 20)
    head, records, _ = published.ask(id=7, session=SESSION, missing=[Missing(BTC, 10, 15)])
    assert (head.id, head.session) == (7, SESSION)
    assert [(r.sequence, r.bid, r.flags) for r in records] == [(13, 13.0, 0), (14, 14.0, 0), (15, 15.0, 0)]
    assert head.lost == [Missing(BTC, 10, 12)]
    assert head.rest == []


def test_what_another_merger_published_is_lost(published):
    published.publish(BTC, 1, 5)
    head, records, _ = published.ask(session=SESSION - 1, missing=[Missing(BTC, 1, 5)])
    assert (records, head.lost, head.session) == ([], [Missing(BTC, 1, 5)], SESSION)


def test_a_topic_that_nobody_has_is_lost(published):
    head, records, _ = published.ask(session=SESSION, missing=[Missing("ticker.x.Y/Z", 1, 2)])
    assert (records, head.lost) == ([], [Missing("ticker.x.Y/Z", 1, 2)])


def test_numbers_that_are_still_to_come_are_to_be_asked_for_again(published):
    published.publish(BTC, 1, 5)
    head, records, _ = published.ask(session=SESSION, missing=[Missing(BTC, 4, 2**60)])
    assert [r.sequence for r in records] == [4, 5]
    assert (head.lost, head.rest) == ([], [Missing(BTC, 6, 2**60)])


def test_last_values_of_what_matches_flagged_as_such_with_their_own_numbers(published):
    published.publish(BTC, 1, 3)
    published.publish(ETH, 1, 9)
    head, records, documents = published.ask(topics=["ticker.binance."])
    assert [(r.symbol, r.sequence, r.flag_names) for r in records] == [
        ("BTC/USDT", 3, ["SNAPSHOT"]),
        ("ETH/USDT", 9, ["SNAPSHOT"]),
    ]
    assert (documents, head.next) == ([], 0)
    _, records, documents = published.ask(topics=[BTC + "\0", "status."])
    assert [r.symbol for r in records] == ["BTC/USDT"]
    (status,) = documents
    assert wire.unpack(status).decode() == {"state": "live"}
    assert wire.unpack(status).flag_names == ["SNAPSHOT"]


def test_a_large_answer_comes_in_parts(published):
    for number in range(4500):
        published.publish(f"ticker.binance.S{number}/USDT", 1, 1)
    seen, start, parts = [], 0, 0
    while parts == 0 or start:
        head, records, documents = published.ask(topics=[""], start=start)
        assert len(records) <= retransmission.RECORDS_MAX
        assert len(documents) == (1 if start == 0 else 0)
        seen += [r.symbol for r in records]
        start, parts = head.next, parts + 1
    assert seen == [f"S{number}/USDT" for number in range(4500)]
    assert parts == 3


def test_many_holes_come_in_parts_too(published):
    topics = [f"ticker.binance.S{number}/USDT" for number in range(400)]
    for topic in topics:
        published.publish(topic, 1, 8)
    missing, got = [Missing(topic, 1, 8) for topic in topics], set()
    while missing:
        head, records, _ = published.ask(session=SESSION, missing=missing)
        assert len(records) <= retransmission.RECORDS_MAX
        assert head.lost == []
        got |= {(r.topic, r.sequence) for r in records}
        missing = head.rest
    assert got == {(topic, number) for topic in topics for number in range(1, 9)}


def test_before_the_first_merger_the_answer_says_so():
    answer = retransmission.answer(msgspec.json.encode(Request(id=3, topics=[""])), None, {})
    head = msgspec.json.decode(answer.frames[0], type=Head)
    assert (head.id, head.error) == (3, "nothing has been published here yet; is the merger running?")


BAD = [
    (b"", "this is no request"),
    (b"\xff\xfe", "this is no request"),
    (b"[" * 10_000, "this is no request"),
    (b'{"topcs": [""]}', "unknown field `topcs`"),
    (b'{"missing": [["t", 0, 5]]}', "numbers begin at 1"),
    (b'{"missing": [["t", 5, 4]]}', "numbers begin at 1"),
    (b'{"missing": [["t", 1]]}', "length"),
    (b'{"topics": [""], "start": -1}', "numbers begin at 1"),
    (b'{"id": 7}', "neither topics nor missing"),
    (msgspec.json.encode({"topics": ["x"] * 101}), "more than 100 prefixes"),
    (msgspec.json.encode({"missing": [["t", 1, 1]] * 1001}), "1000 ranges"),
]


@pytest.mark.parametrize(("request_", "error"), BAD, ids=[error + str(n) for n, (_, error) in enumerate(BAD)])
def test_what_is_no_request_is_answered_with_what_is_wrong(published, request_, error):
    answer = retransmission.answer(request_, published.ring, DOCUMENTS)
    head = msgspec.json.decode(answer.frames[0], type=Head)
    assert error in head.error
    assert answer.frames[1:] == [b""]
    assert head.id == (7 if b'"id": 7' in request_ else 0)


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(request_):
    assert len(retransmission.answer(request_, None, {}).frames) >= 2


@pytest.mark.long
@given(
    st.lists(
        st.tuples(st.sampled_from([BTC, ETH, "x"]), st.integers(-2, 2**66), st.integers(-2, 2**66)),
        max_size=5,
    ),
    st.integers(-1, 2**66),
)
def test_any_numbers_are_answered_within_bounds(tmp_path_factory, ranges, start):
    published = Published(tmp_path_factory.mktemp("board") / "recent.board")
    published.publish(BTC, 1, 20)
    document = {"session": SESSION, "missing": ranges, "topics": [""], "start": start}
    answer = retransmission.answer(msgspec.json.encode(document), published.ring, DOCUMENTS)
    assert sum(map(len, answer.frames[1:])) <= retransmission.RECORDS_MAX * wire.TICKER_SIZE + 1000
