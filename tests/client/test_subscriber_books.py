"""Books as a program has them of a subscriber, of what its publisher sends: there is no relay here."""

import random

import pytest
from book_market import TOPIC, Market, Stream, check, condition
from patience import wait_until
from publishing import Publisher, heartbeat

from feedhandler.client import Book, Subscriber, exact
from feedhandler.data import wire


class Played:
    """A stream of one book, and a subscriber to it."""

    def __init__(self, publisher, subscriber):
        self.publisher, self.subscriber = publisher, subscriber
        self.market = Market(random.Random(3), levels=10)
        self.stream = Stream(self.market)

    def send(self, messages):
        for message in messages:
            self.publisher.send(message)
        return [self.subscriber.receive(timeout_s=60) for _ in messages]


@pytest.fixture
def played(tmp_path):
    publisher = Publisher(f"ipc://{tmp_path}/ticks.ipc")
    with Subscriber(publisher.endpoint, ["book.", "ticker."], recover=False) as subscriber:
        wait_until(
            lambda: subscriber.receive(timeout_s=0.01) or publisher.is_subscribed(), "the subscription"
        )
        publisher.send(heartbeat())
        yield Played(publisher, subscriber)
    publisher.close()


def test_five_lines_have_a_book(played):
    for record in played.send([*played.stream.snapshot(), *played.stream.change(), *played.stream.change()]):
        book = played.subscriber.books[record.topic]
        assert isinstance(book, Book)
    assert book.is_valid
    assert book is played.subscriber.book(TOPIC) is played.subscriber.book(exact(TOPIC))
    check(book, played.market)
    assert book.best.bid == book.bids[:5][0][0]


def test_a_book_of_which_nothing_has_come_is_not_valid_and_becomes_so(played):
    book = played.subscriber.book(TOPIC)
    assert (book.is_valid, book.topic, len(book.bids)) == (False, TOPIC, 0)
    played.send(played.stream.change())
    assert not book.is_valid
    played.send(played.stream.snapshot())
    assert book.is_valid


def test_waiting_for_a_topic_is_waiting_for_its_book(played):
    played.send(played.stream.change())
    with pytest.raises(TimeoutError, match="it is not valid: no snapshot has come yet"):
        played.subscriber.wait_for(TOPIC, timeout_s=0.05)
    for message in played.stream.snapshot():
        played.publisher.send(message)
    found = played.subscriber.wait_for(TOPIC, timeout_s=60)
    assert found[TOPIC].kind == wire.BOOK
    assert played.subscriber.book(TOPIC).is_valid
    assert played.subscriber.receive(timeout_s=60).is_snapshot, "nothing is taken"
    played.send([wire.pack(condition(wire.INVALID, played.stream.sequence))])
    with pytest.raises(TimeoutError, match="the feed says that it is invalid"):
        played.subscriber.wait_for(TOPIC, timeout_s=0.05)


def test_a_gap_makes_it_invalid_without_a_relay_until_the_next_snapshot(played):
    played.send(played.stream.snapshot())
    played.stream.change()
    played.send(played.stream.change())
    book = played.subscriber.book(TOPIC)
    assert (book.is_valid, book.reason) == (False, "a record was missed")
    assert played.subscriber.lost == 1
    played.send(played.stream.snapshot())
    assert book.is_valid


def test_what_cannot_be_a_book_is_refused_with_the_remedy(played, tmp_path):
    for topic, why in (
        ("ticker.x.A/B", "no topic of a book"),
        ("trade.x.A/B", "not subscribed"),
    ):
        with pytest.raises(ValueError, match=why):
            played.subscriber.book(topic)
    with Subscriber(f"ipc://{tmp_path}/ticks.ipc", [""], mode="latest") as conflated:
        assert conflated.books == {}
        with pytest.raises(ValueError, match="leave mode out"):
            conflated.book(TOPIC)
    with Subscriber(f"ipc://{tmp_path}/ticks.ipc", ["ticker."]) as tickers:
        assert tickers.books == {}
        with pytest.raises(ValueError, match="not subscribed"):
            tickers.book(TOPIC)
