"""A subscriber's books, joined late, with losses, over connections that come and go: right, or not valid."""

import random

import pytest
from book_market import check
from book_play import OTHER, OTHER_NATIVE, TOPIC, Play
from seeds import seeds
from test_any_size import World

from feedhandler.client.recovery import Recovery
from feedhandler.client.subscribed_books import (
    CONFIRM_EVERY_NS,
    DOUBT_NS,
    HELD_ALL_MAX,
    HELD_MAX,
    NAMES_MAX,
    PATIENCE_NS,
    PAUSE_MAX_NS,
    PAUSE_NS,
    SubscribedBooks,
    book_prefixes,
)
from feedhandler.data import kept_book, retransmission, wire
from feedhandler.data.kept_book import Book
from feedhandler.data.units import NS_PER_MS
from feedhandler.transport.follower import Follower


class Client:
    """A subscriber's parts, as its stream has them, and the records that it hands on."""

    def __init__(self, play, *prefixes, has_recovery=True):
        self.play = play
        self.now_ns = 1
        self.out = []
        self.books = SubscribedBooks(list(prefixes) or [b"book."], self.out.append, lambda: self.now_ns)
        self.follower = Follower(self.out.append, emit_other=self.books.take)
        self.books.newest = self.follower.newest
        self.recovery = Recovery(self.follower, self.books.take, lambda: self.now_ns, takes_latest=False)
        if has_recovery:
            self.follower.on_gap = self.recovery.on_gap
            self.recovery.is_connected = True
        self.requests = 0

    def connect(self, session=100):
        """The relay is there, and the publisher's heartbeat has come."""
        self.books.is_connected = True
        self.books.on_heartbeat(session)

    def hear(self, messages):
        for message in messages:
            self.follower.take(message)

    def ask(self):
        """Return the next request."""
        request = self.books.request()
        self.requests += request is not None
        return request

    def answer(self, request):
        found = retransmission.answer(request, self.play.world.reader, {}, 0, self.play.books.last)
        assert self.books.on_answer(found.frames)

    def settle(self):
        """Ask as long as there is something to ask, and some time on."""
        for _ in range(8):
            while (request := self.recovery.request()) is not None:
                answer = retransmission.answer(request, self.play.world.reader, {}, 0, self.play.books.last)
                assert not self.books.on_answer(answer.frames)
                self.recovery.on_answer(answer.frames)
            while (request := self.ask()) is not None:
                self.answer(request)
            self.now_ns += 300 * NS_PER_MS

    @property
    def book(self):
        return self.books.by_topic[TOPIC]

    def is_current(self):
        """The book is that of the newest record; one that is made of what was handed on is the same."""
        check(self.book, self.play.market)
        mine = Book()
        for record in self.out:
            if record.topic == TOPIC:
                mine.apply(record)
                check(mine, self.play.market)
        assert (mine.is_valid, mine.bids[:], mine.last_id) == (
            self.book.is_valid,
            self.book.bids[:],
            self.book.last_id,
        )
        return self.book.is_valid and self.book.last_id == self.play.market.id

    def numbers(self):
        return [r.sequence for r in self.out if r.topic == TOPIC and not r.is_snapshot]


@pytest.fixture
def play(tmp_path):
    play = Play(tmp_path / "recent.board")
    play.snapshot()
    for _ in range(30):
        play.change()
    return play


@pytest.fixture
def client(play):
    client = Client(play)
    client.connect()
    client.settle()
    assert client.is_current()
    return client


def test_what_has_been_quiet_since_it_was_subscribed_to_is_had_of_the_relay(play):
    client = Client(play)
    assert client.ask() is None, "there is no relay, and no subscription"
    client.books.is_connected = True
    assert client.ask() is None
    client.connect()
    client.answer(client.ask())
    assert client.is_current()
    assert client.out
    assert all(record.is_snapshot for record in client.out)
    assert client.follower.newest[TOPIC] is client.out[-1]


def test_records_wait_for_the_snapshot_that_precedes_them(play):
    client = Client(play)
    client.connect()
    request = client.ask()
    messages = [message for _ in range(3) for message in play.change()]
    client.hear(messages[:1])
    assert client.out == []
    client.answer(request)
    assert client.out[-1].is_snapshot, "of the newest in the file, so nothing is left to apply"
    client.hear(messages[1:])
    assert client.is_current()
    client.hear(play.change())
    assert client.is_current()
    assert client.numbers() == [32, 33, 34, 35]


def test_records_that_were_handed_on_before_there_was_anybody_to_ask_are_no_gap(play):
    client = Client(play)
    client.hear(play.change())
    assert client.numbers() == [32]
    assert not client.book.is_valid
    client.connect()
    client.hear(play.change())
    assert client.numbers() == [32]
    client.settle()
    assert client.numbers() == [32, 33]
    assert client.is_current()


def test_a_record_that_is_missing_is_asked_for_and_if_it_is_gone_the_book(play, client):
    client.hear(play.change())
    play.change()
    client.hear(play.change())
    client.settle()
    assert client.is_current()
    assert client.recovery.recovered == 1
    for _ in range(20):
        play.change()
    client.hear(play.change())
    assert not client.is_current() or client.recovery.is_recovering
    client.settle()
    assert client.is_current()
    assert client.numbers() == sorted(client.numbers())


def test_without_recovery_of_records_the_book_is_asked_for(play):
    client = Client(play, has_recovery=False)
    client.connect()
    client.settle()
    play.change()
    client.hear(play.change())
    assert (client.book.is_valid, client.book.reason) == (False, kept_book.MISSED)
    client.hear(play.change())
    client.settle()
    assert client.is_current()


def test_the_last_record_before_a_silence_is_missed_for_some_seconds_at_most(play, client):
    play.change()
    assert client.book.is_valid
    client.now_ns += CONFIRM_EVERY_NS
    client.settle()
    assert client.book.is_valid, "it may be on its way"
    client.now_ns += CONFIRM_EVERY_NS
    client.settle()
    assert client.is_current()


def test_what_is_confirmed_costs_no_snapshot(play, client):
    before = len(client.out)
    for _ in range(5):
        client.now_ns += CONFIRM_EVERY_NS
        client.settle()
    assert client.is_current()
    assert len(client.out) == before


@pytest.mark.parametrize("missed", [0, 1, 40])
def test_after_a_connection_was_lost_books_are_valid_when_it_is_known_what_was_missed(play, client, missed):
    client.books.on_disconnect()
    assert (client.book.is_valid, client.book.reason) == (False, kept_book.UNCERTAIN)
    for _ in range(missed):
        play.change()
    client.settle()
    assert not client.book.is_valid, "not before the publisher's heartbeat"
    client.connect()
    client.settle()
    assert client.is_current()


def test_after_a_connection_was_lost_the_next_record_is_enough(play, client):
    client.books.on_disconnect()
    client.hear(play.change())
    assert client.is_current()


@pytest.mark.parametrize("flag", [wire.INVALID, wire.DOWN])
def test_what_the_feed_says_of_it_is_believed_and_not_asked_about(play, client, flag):
    start = len(play.world.each.sent)
    play.condition(flag)
    client.hear(play.world.each.sent[start:])
    assert not client.book.is_valid
    requests = client.requests
    client.settle()
    assert not client.book.is_valid
    assert client.requests - requests <= 1, "numbers are compared"
    client.hear(play.snapshot())
    assert client.is_current()


def test_a_relay_that_has_no_book_is_asked_again_and_nothing_waits_meanwhile(play):
    play.restart()
    client = Client(play)
    client.connect()
    client.hear(play.change())
    assert client.numbers() == []
    client.answer(client.ask())
    client.hear(play.change())
    assert client.numbers() == [32, 33]
    requests = client.requests
    client.settle()
    assert 2 <= client.requests - requests <= 4
    client.hear(play.snapshot())
    assert client.is_current()
    for _ in range(100):
        client.now_ns += PAUSE_MAX_NS
        client.settle()
    assert client.is_current()


def test_who_joins_while_it_is_down_asks_when_that_is_over(play):
    play.condition(wire.DOWN)
    client = Client(play)
    client.hear([bytes(play.in_force())])
    client.connect()
    for _ in range(10):
        client.now_ns += PAUSE_MAX_NS
        client.settle()
    assert not client.book.is_valid
    start = len(play.world.each.sent)
    play.condition(0)
    client.hear(play.world.each.sent[start:])
    client.answer(client.ask())
    assert client.is_current()


def test_a_relay_that_does_not_answer_holds_nothing_up_for_long(play):
    client = Client(play)
    client.connect()
    assert client.ask()
    client.hear(play.change())
    assert client.ask() is None
    client.now_ns += PATIENCE_NS + 1
    assert client.ask() is None
    assert client.numbers() == [32]
    client.hear(play.change())
    assert client.numbers() == [32, 33]
    client.now_ns += DOUBT_NS
    client.settle()
    assert client.is_current()


@pytest.mark.parametrize("how", ["gone", "closed"])
def test_what_waits_is_handed_on_when_there_is_nobody_to_wait_for(play, how):
    client = Client(play)
    client.connect()
    request = client.ask()
    client.hear(play.change())
    assert client.out == []
    if how == "gone":
        client.books.on_relay_gone()
    else:
        client.books.on_disconnect()
    assert client.numbers() == [32]
    client.answer(request)
    assert not client.book.is_valid, "an answer that comes too late is none"
    client.connect()
    client.hear(play.change())
    client.settle()
    assert client.is_current()


def test_a_snapshot_in_the_stream_is_waited_for_no_longer(play):
    client = Client(play)
    client.connect()
    request = client.ask()
    client.hear(play.change())
    client.hear(play.snapshot())
    assert client.is_current()
    client.answer(request)
    assert client.is_current()
    assert client.numbers() == [32]


@pytest.mark.parametrize(("topics", "each"), [(1, HELD_MAX + 1), (HELD_ALL_MAX // HELD_MAX + 1, HELD_MAX)])
def test_of_records_that_wait_there_are_not_too_many(play, topics, each):
    client = Client(play)
    client.connect()
    assert client.ask()
    handed_on = client.out
    for number in range(topics):
        for sequence in range(1, each + 1):
            record = wire.BookRecord(f"book.x.{number}", session=100, sequence=sequence, first_id=sequence)
            record.last_id = sequence
            client.hear([wire.pack(record)])
    assert len(handed_on) >= HELD_MAX


def test_another_merger_begins_anew(play, client, tmp_path):
    client.books.on_disconnect()
    play.world = World(tmp_path / "next.board", session=101)
    client.connect(101)
    assert (client.book.is_valid, client.book.reason) == (False, kept_book.RESTARTED)
    client.settle()
    assert not client.book.is_valid
    messages = play.snapshot()
    client.hear(messages[:-1])
    client.settle()
    assert client.is_current()
    client.hear(messages[-1:])
    client.hear(play.change())
    assert client.is_current()


def test_an_answer_for_another_session_is_none(play):
    client = Client(play)
    client.connect(101)
    client.settle()
    assert TOPIC not in client.books.by_topic
    client.hear(play.change())
    client.settle()
    assert not client.book.is_valid


@pytest.mark.parametrize(
    "frames",
    [
        lambda head: [head, b"half a record"],
        lambda head: [head],
        lambda head: [head, wire.pack(wire.BookRecord("book.x.Y", session=100, sequence=1))[:-1]],
        lambda head: [head, wire.pack_ticker(wire.Ticker("ticker.x.Y", session=100))],
        lambda head: [head, wire.pack(wire.BookRecord("book.x.Y", session=7, sequence=1, flags=1))],
    ],
)
def test_an_answer_that_makes_no_sense_makes_no_book(play, frames):
    client = Client(play)
    client.connect()
    client.ask()
    head = b'{"id":-1,"session":100}'
    assert client.books.on_answer(frames(head))
    assert not any(book.is_valid for book in client.books.by_topic.values())
    client.now_ns += PAUSE_NS + DOUBT_NS
    client.settle()
    assert client.is_current()


def test_answers_of_others_are_not_taken(play, client):
    for frames in ([], [b"{}"], [b'{"id":7}', b""], [b"\xff"]):
        assert not client.books.on_answer(frames)
    assert client.books.on_answer([b'{"id":-77,"session":100}', b""])
    assert client.is_current()


def test_many_topics_are_asked_for_some_at_a_time(play):
    client = Client(play)
    client.connect()
    client.settle()
    names = [f"book.binance.C{number}/USDT" for number in range(2 * NAMES_MAX + 1)]
    for name in names:
        client.hear([wire.pack(wire.BookRecord(name, session=100, sequence=5, first_id=1, last_id=1))])
    asked = []
    while (request := client.ask()) is not None:
        asked.append(request)
        client.answer(request)
    assert len(asked) == 3
    assert [record.topic for record in client.out if not record.is_snapshot] == names, "nobody has them"


def test_two_topics_do_not_disturb_each_other(play):
    play.send(play.market.snapshot(), wire.SNAPSHOT, native=OTHER_NATIVE)
    client = Client(play)
    client.connect()
    client.settle()
    assert client.books.by_topic.keys() == {TOPIC, OTHER}
    assert client.books.by_topic[OTHER].is_valid
    play.send(play.market.change(), native=OTHER_NATIVE)
    client.hear(play.send(play.market.change(), native=OTHER_NATIVE))
    assert client.books.by_topic[TOPIC].is_valid


def test_only_books_are_kept_and_other_records_pass(play):
    client = Client(play, b"")
    ticker = wire.Ticker("ticker.x.Y", session=100, sequence=1)
    condition = wire.Condition("trade.x.Y", session=100, sequence=1)
    client.hear([wire.pack_ticker(ticker), wire.pack(condition)])
    assert [record.topic for record in client.out] == ["ticker.x.Y", "trade.x.Y"]
    assert client.books.by_topic == {}


@pytest.mark.parametrize(
    ("prefixes", "found"),
    [
        ([b""], ["book."]),
        ([b"bo", b"ticker."], ["book."]),
        (
            [b"book.binance.BTC/USDT\0", b"book.kucoin.", b"status."],
            ["book.binance.BTC/USDT\0", "book.kucoin."],
        ),
        ([b"ticker.", b"books."], []),
    ],
)
def test_what_is_asked_for_first_is_what_is_subscribed_to(prefixes, found):
    assert book_prefixes(prefixes) == found


@pytest.mark.parametrize("seed", seeds(60))
def test_whatever_is_lost_or_starts_again_a_book_is_right_or_not_valid_and_right_in_the_end(seed, tmp_path):
    """Records, answers and conditions are lost; relay, merger and connections come and go; some join late."""
    rng = random.Random(seed)
    play = Play(tmp_path / "recent.board", rng, recent=rng.choice((4, 16)))
    session, path = 100, 0
    clients = []
    play.snapshot()
    valid = 0
    for _ in range(250):
        if len(clients) < 3 and rng.random() < 0.1:
            clients.append(Client(play, has_recovery=rng.random() < 0.7))
            clients[-1].connect(session)
        start = len(play.world.each.sent)
        draw, is_heard = rng.random(), rng.random() < 0.95
        if draw < 0.02:
            play.snapshot(is_heard=is_heard)
        elif draw < 0.03:
            play.condition(rng.choice((wire.INVALID, wire.DOWN, wire.STALE, 0)))
        elif draw < 0.04:
            play.market.change()  # lost before the merger
        elif draw < 0.05:
            play.restart()
            in_force = play.in_force()
            if in_force is not None:
                play.books.take(bytes(in_force))
        elif draw < 0.055:
            session, path, start = session + 1, path + 1, 0
            play.world = World(tmp_path / f"recent{path}.board", session=session)
            play.restart()
            for client in clients:
                client.books.on_disconnect()
            play.snapshot()
        elif draw < 0.08:
            play.send(play.market.change(300), is_heard=is_heard)
        else:
            play.change(is_heard=is_heard)
        messages = play.world.each.sent[start:]
        for client in clients:
            client.now_ns += rng.randrange(400) * NS_PER_MS
            if rng.random() < 0.01:
                client.books.on_disconnect()
                continue
            if not client.books._is_subscribed:
                in_force = play.in_force()
                if in_force is not None and in_force[wire.KIND_OFFSET] == wire.CONDITION:
                    client.hear([bytes(in_force)])
                client.connect(session)
            if rng.random() < 0.005:
                client.books.on_relay_gone()
            client.books.is_connected = True
            client.hear(message for message in messages if rng.random() < 0.97)
            if rng.random() < 0.5 and (request := client.recovery.request()) is not None:
                answer = retransmission.answer(request, play.world.reader, {}, 0, play.books.last)
                client.recovery.on_answer(answer.frames)
            client.recovery.on_time()
            if rng.random() < 0.5 and (request := client.ask()) is not None and rng.random() < 0.9:
                client.answer(request)
            for book in client.books.by_topic.values():
                check(book, play.market)
                valid += book.is_valid
    assert valid > 10
    # All is well from now on: a book that is valid at the relay is soon so at each of them, of the newest record.
    play.snapshot()
    play.change()
    for client in clients:
        client.recovery.on_disconnect()
        client.recovery.is_connected = True
        client.books.is_connected = True
        client.connect(session)
        client.now_ns += PAUSE_MAX_NS
        for _ in range(3):
            client.now_ns += DOUBT_NS
            client.settle()
        check(client.book, play.market)
        assert client.book.is_valid
        assert client.book.last_id == play.market.id
