"""What a feed offers to a recorder: all of it in order, held while nobody takes it, and what is lost is told."""

import msgspec
import pytest

from feedhandler.feed import tap as taps
from feedhandler.feed.tap import Tap
from feedhandler.recordings.packing import unpack
from feedhandler.recordings.plan import Plan, PlannedMarket
from feedhandler.recordings.traffic import Item, What

LIST = "https://x/list"
PLAN = Plan(
    exchange="x",
    session_ns=1,
    markets=[PlannedMarket(name="spot", prefix="", instruments_url=LIST)],
    wanted={"BTC/USDT": ["ticker"]},
)


class World:
    """A tap, and a recorder that is there, reads, or not."""

    def __init__(self):
        self.now = 1000
        self.is_there = True
        self.room = 10**9
        self.messages = []
        self.soon = lambda act: act()
        self.tap = Tap(self.send, self.clock, lambda: self.now, lambda act: self.soon(act))

    def clock(self):
        self.now += 1
        return self.now

    def send(self, message):
        if not self.is_there or len(message) > self.room:
            return False
        self.room -= len(message)
        self.messages.append(message)
        return True

    def taken(self):
        self.tap.flush()
        messages, self.messages = self.messages, []
        return [item for message in messages for item in unpack(message)]


@pytest.fixture
def world():
    return World()


def frames(connection, *payloads):
    for payload in payloads:
        connection.on_frame(memoryview(payload), 5)


def test_what_happens_is_offered_in_order_with_numbers(world):
    seen = []
    connection = world.tap.connection("spot", lambda payload, recv_ns: seen.append(bytes(payload)) or True)
    world.tap.begin(PLAN)
    connection.on_opened("wss://x:443/ws?token=secret")
    connection.on_sent(b"subscribe")
    assert connection.on_frame(memoryview(b"one"), 7) is True
    frames(connection, b"two")
    world.tap.answered(LIST, b"[]", 5)
    connection.on_closed("closed by us, code 1000")
    items = world.taken()
    assert seen == [b"one", b"two"]
    assert msgspec.json.decode(items[0].data, type=Plan) == PLAN
    assert [(item.what, item.connection, item.number, item.name, item.data) for item in items[1:]] == [
        (What.OPENED, "spot.1", 0, "wss://x:443/ws", b""),
        (What.SENT, "spot.1", 1, "", b"subscribe"),
        (What.RECEIVED, "spot.1", 1, "", b"one"),
        (What.RECEIVED, "spot.1", 2, "", b"two"),
        (What.ANSWERED, "", 1, LIST, b"[]"),
        (What.CLOSED, "spot.1", 2, "closed by us, code 1000", b""),
    ]
    assert items[3].wall_ns == 7
    assert not any(item.is_repeated for item in items)


def test_what_comes_between_two_flushes_is_one_message(world):
    connection = world.tap.connection("spot", lambda payload, recv_ns: False)
    frames(connection, b"one", b"two", b"three")
    assert world.messages == []
    assert len(world.taken()) == 3
    frames(connection, b"x" * taps.BATCH_SIZE)
    assert len(world.messages) == 1, "a full batch does not wait"


def test_a_full_batch_is_sent_once_when_the_records_of_the_turn_have_left(world):
    asked = []
    world.soon = asked.append
    connection = world.tap.connection("spot", lambda payload, recv_ns: False)
    frames(connection, *[b"x" * taps.BATCH_SIZE] * 5, b"last")
    assert (len(asked), world.messages) == (1, [])
    asked.pop()()
    (message,) = world.messages
    assert [item.data[-1:] for item in unpack(message)] == [b"x"] * 5 + [b"t"]
    frames(connection, b"x" * taps.BATCH_SIZE)
    assert len(asked) == 1, "and the next one is asked for again"


def test_an_answer_larger_than_a_batch_keeps_its_place(world):
    connection = world.tap.connection("spot", lambda payload, recv_ns: False)
    frames(connection, b"one")
    world.tap.answered(LIST, bytes(3 * taps.BATCH_SIZE), 5)
    frames(connection, b"two")
    assert [len(item.data) for item in world.taken()] == [3, 3 * taps.BATCH_SIZE, 3]


def test_a_frame_that_cannot_be_taken_is_offered_as_well(world):
    def fail(payload, recv_ns):
        raise ZeroDivisionError

    connection = world.tap.connection("spot", fail)
    with pytest.raises(ZeroDivisionError):
        frames(connection, b"one")
    assert [item.data for item in world.taken()] == [b"one"]


def test_connections_are_told_apart(world):
    names = [world.tap.connection(market, None)._name for market in ("spot", "linear", "spot")]
    assert names == ["spot.1", "linear.1", "spot.2"]


def test_a_recorder_that_comes_gets_what_holds_and_then_what_was_held(world):
    world.is_there = False
    world.tap.begin(PLAN)
    world.tap.answered(LIST, b"old", 5)
    world.tap.answered("https://x/other", b"", 5)
    world.tap.answered(LIST, b"new", 5)
    first = world.tap.connection("spot", lambda payload, recv_ns: False)
    first.on_opened("wss://x")
    second = world.tap.connection("spot", lambda payload, recv_ns: False)
    second.on_opened("wss://x")
    second.on_closed("lost")
    frames(first, b"one")
    assert not world.taken()
    world.is_there = True
    world.tap.on_join()
    items = world.taken()
    repeated = [item for item in items if item.is_repeated]
    assert items[: len(repeated)] == repeated
    assert [(item.what, item.data, item.connection) for item in repeated[1:]] == [
        (What.ANSWERED, b"new", ""),
        (What.OPENED, b"", "spot.1"),
    ]
    assert [item.what for item in items[len(repeated) :]] == [
        What.HEADER,
        *[What.ANSWERED] * 3,
        *[What.OPENED] * 2,
        What.CLOSED,
        What.RECEIVED,
    ]


def test_the_same_plan_is_offered_once(world):
    world.tap.begin(PLAN)
    world.tap.begin(PLAN)
    world.tap.begin(msgspec.structs.replace(PLAN, wanted={}))
    assert len(world.taken()) == 2


def test_what_cannot_be_held_any_more_is_a_gap_in_its_place(world, monkeypatch):
    monkeypatch.setattr(taps, "HELD_SIZE_MAX", 2000)
    connection = world.tap.connection("spot", lambda payload, recv_ns: False)
    world.room = 0
    for number in range(100):
        connection.on_frame(memoryview(bytes(50)), 1000 + number)
        world.tap.flush()
    world.room = 10**9
    gap, *rest = world.taken()
    assert gap.what is What.GAP
    assert gap.name == taps.NOT_TAKEN
    assert gap.wall_ns == 1000
    assert [item.number for item in rest] == list(range(gap.number + 1, 101))
    assert gap.number == world.tap.dropped > 50
    frames(connection, b"more")
    assert [item.number for item in world.taken()] == [101], "a gap is told once"


def test_a_recorder_that_reads_slowly_gets_everything_in_order(world):
    connection = world.tap.connection("spot", lambda payload, recv_ns: False)
    world.tap.begin(PLAN)
    world.tap.answered(LIST, bytes(500), 5)
    found = []
    world.room = 0
    world.tap.on_join()
    for number in range(200):
        connection.on_frame(memoryview(bytes(50)), number)
        if number % 3 == 0:
            world.room = 600
        found += world.taken()
    world.room = 10**9
    found += world.taken()
    assert [item.what for item in found[:4]] == [What.HEADER, What.ANSWERED, What.HEADER, What.ANSWERED]
    assert [item.number for item in found if item.what is What.RECEIVED] == list(range(1, 201))


def test_an_answer_that_no_message_could_carry_is_a_gap(world, monkeypatch):
    monkeypatch.setattr(taps, "ITEM_SIZE_MAX", 1000)
    world.tap.answered(LIST, bytes(1001), 5)
    (item,) = world.taken()
    assert (item.what, item.number) == (What.GAP, 1)
    assert LIST in item.name


def test_a_reason_of_any_length_is_taken(world):
    connection = world.tap.connection("spot", None)
    connection.on_closed("é" * 4000)
    (item,) = world.taken()
    assert item == Item(What.CLOSED, item.wall_ns, item.mono_ns, "spot.1", 0, "é" * 2048)


def test_a_recorder_that_comes_gets_all_pages_of_a_list(world):
    world.tap.begin(PLAN)
    world.tap.answered(LIST, b"first", 5)
    world.tap.answered(f"{LIST}?cursor=1", b"second", 5)
    world.tap.answered("https://x/other?cursor=1", b"no list", 5)
    world.taken()
    world.tap.on_join()
    repeated = [(item.name, item.data) for item in world.taken() if item.what is What.ANSWERED]
    assert repeated == [(LIST, b"first"), (f"{LIST}?cursor=1", b"second")]
