"""Books: how messages follow each other by the rules of each exchange, and what each line's own is published as."""

import json
import math
import random

import pytest
from table import RECV_NS, load, make

from feedhandler.data import wire
from feedhandler.exchanges.arbitration import LINES_MAX, Line
from feedhandler.exchanges.base import Resubscribe
from feedhandler.exchanges.books import ASK_AGAIN_NS, CROSSED_NS, OLD_NS, ChainRule, LineBook, Succession

OLD, NEXT, GAP = Succession.OLD, Succession.NEXT, Succession.GAP
BINANCE, KUCOIN, BYBIT = ChainRule(), ChainRule(has_level_ids=True), ChainRule(restart_id=1)
LINKED = ChainRule(is_linked=True)
BIDS, ASKS = [(100.0, 1.0), (99.0, 2.0)], [(101.0, 1.0), (102.0, 2.0)]
TOPIC = "orderbook.50.BTCUSDT"
SECOND = 1_000_000_000


def book(rule=BINANCE, last_id=100, levels_max=0):
    made = LineBook(rule, levels_max)
    made.replace(last_id, BIDS, ASKS)
    return made


# A base of id 100, then messages from their first to their last id.
CHAINS = [
    ("binance: the next", BINANCE, [(101, 104, NEXT), (105, 105, NEXT)]),
    ("binance: the base lies within the first message", BINANCE, [(98, 103, NEXT), (104, 104, NEXT)]),
    ("binance: the first ends with the base", BINANCE, [(99, 100, OLD), (101, 102, NEXT)]),
    ("binance: messages from before the base", BINANCE, [(90, 95, OLD), (96, 100, OLD), (101, 101, NEXT)]),
    ("binance: a gap behind the base", BINANCE, [(102, 104, GAP), (105, 105, GAP)]),
    ("binance: a gap later", BINANCE, [(101, 101, NEXT), (103, 103, GAP), (102, 102, GAP)]),
    ("binance: twice", BINANCE, [(101, 104, NEXT), (101, 104, OLD), (105, 106, NEXT)]),
    ("kucoin: several sequences in a message", KUCOIN, [(101, 103, NEXT), (104, 104, NEXT)]),
    ("kucoin: the base lies within a message", KUCOIN, [(99, 102, NEXT), (103, 103, NEXT)]),
    ("kucoin: a base that lags behind", KUCOIN, [(150, 150, GAP)]),
    ("bybit: the next", BYBIT, [(101, 101, NEXT), (102, 102, NEXT)]),
    ("bybit: twice", BYBIT, [(101, 101, NEXT), (101, 101, OLD), (102, 102, NEXT)]),
    ("bybit: a gap", BYBIT, [(101, 101, NEXT), (103, 103, GAP), (104, 104, GAP)]),
    ("linked: ids jump", LINKED, [(101, 131, NEXT), (132, 140, NEXT)]),
    ("linked: nothing has changed", LINKED, [(101, 100, OLD), (101, 131, NEXT), (132, 131, OLD)]),
    ("linked: ids go on lower", LINKED, [(101, 40, NEXT), (41, 40, OLD), (41, 45, NEXT)]),
    ("linked: one is missing", LINKED, [(101, 131, NEXT), (141, 150, GAP)]),
    ("linked: one overlaps", LINKED, [(101, 131, NEXT), (121, 140, GAP)]),
    ("linked: twice", LINKED, [(101, 131, NEXT), (101, 131, GAP)]),
    ("linked: nothing has changed, of another id", LINKED, [(106, 105, GAP)]),
]


@pytest.mark.parametrize(("rule", "steps"), [row[1:] for row in CHAINS], ids=[row[0] for row in CHAINS])
def test_messages_follow_as_the_exchange_s_rule_says(rule, steps):
    known = book(rule)
    for first_id, last_id, expected in steps:
        before = known.last_id
        assert known.judge(first_id, last_id) is expected
        assert known.apply(first_id, last_id, [], []) is expected
        assert known.is_known == (expected is not GAP)
        assert known.last_id == {OLD: before, NEXT: last_id, GAP: 0}[expected]


def test_a_base_that_came_by_another_way_may_lie_within_the_first_message_of_a_linked_book():
    source = book(LINKED)
    known = LineBook(LINKED)
    known.copy(source)
    assert known.apply(90, 95, [], []) is OLD
    assert known.apply(96, 120, [(100.0, 5.0)], []) is NEXT
    assert known.apply(110, 130, [], []) is GAP
    known.copy(source)
    assert known.apply(106, 120, [], []) is GAP


def test_that_nothing_has_changed_is_no_sign_of_another_count():
    known = book(LINKED)
    for minute in range(10):
        assert known.apply(101, 100, [], []) is OLD
        assert not known.stays_old(100, minute * 60 * SECOND + 1)


def test_without_a_base_there_is_nothing_to_follow():
    unknown = LineBook(BINANCE)
    assert unknown.judge(1, 1) is GAP
    assert unknown.apply(0, 5, [(1.0, 1.0)], []) is GAP
    assert unknown.bids.pairs() == []


def test_from_a_gap_on_nothing_is_known_until_there_is_a_base():
    known = book()
    known.apply(103, 103, [], [])
    assert (known.bids.pairs(), known.asks.pairs()) == ([], [])
    known.replace(110, BIDS[:1], ASKS)
    assert known.apply(111, 111, [(99.5, 1.0)], []) is NEXT
    assert known.bids.pairs() == [(100.0, 1.0), (99.5, 1.0)]


def test_what_is_old_changes_nothing():
    known = book()
    assert known.apply(99, 100, [(100.0, 9.0)], []) is OLD
    assert known.bids.pairs() == BIDS


def test_levels_with_ids_that_the_base_has_are_left_out():
    known = book(KUCOIN)
    bids = [(100.0, 9.0, 100), (99.0, 0.0, 101), (0.0, 0.0, 102), (98.0, 5.0, 103)]
    assert known.apply(99, 103, bids, []) is NEXT
    assert known.bids.pairs() == [(100.0, 1.0), (98.0, 5.0)]
    assert known.last_id == 103


def test_a_message_that_only_counts_on_changes_no_level():
    known = book(KUCOIN)
    assert known.apply(101, 101, [], [(0.0, 0.0, 101)]) is NEXT
    assert (known.asks.pairs(), known.last_id) == (ASKS, 101)


def test_a_book_is_pruned_to_what_the_exchange_keeps_current():
    known = book(BYBIT, levels_max=3)
    known.apply(101, 101, [(101.0, 1.0), (98.0, 1.0)], [])
    assert known.bids.pairs() == [(101.0, 1.0), *BIDS]
    known.apply(102, 102, [(101.0, 0.0)], [])
    assert known.bids.pairs() == BIDS, "what left it is not known, and does not come back by itself"
    known.replace(200, [(float(price), 1.0) for price in range(1, 9)], ASKS)
    assert known.bids.pairs() == [(8.0, 1.0), (7.0, 1.0), (6.0, 1.0)]


def test_a_base_of_a_part_of_the_book_leaves_unknown_what_lies_beyond_it():
    known = book()
    assert (known.known_from, known.known_to, known.runs_out(20)) == (0.0, math.inf, False)
    known.replace(100, BIDS, ASKS, limit=3)
    assert (known.known_from, known.known_to, known.runs_out(3)) == (0.0, math.inf, False), "there is no more"
    known.replace(100, BIDS, ASKS, limit=2)
    assert (known.known_from, known.known_to) == (99.0, 102.0)
    assert (known.runs_out(2), known.runs_out(3)) == (False, True)
    known.apply(101, 101, [(99.0, 0.0), (98.0, 1.0)], [])
    assert known.known_from == 99.0, "of what is below, only what changes is known"
    assert known.runs_out(2)
    known.apply(102, 102, [(99.5, 1.0)], [])
    assert not known.runs_out(2)
    known.apply(103, 103, [], [(101.0, 0.0)])
    assert known.runs_out(2)


def test_only_a_rule_that_has_one_knows_a_restart():
    assert [book(rule).is_restart(1) for rule in (BINANCE, KUCOIN, BYBIT)] == [False, False, True]
    assert not book(BYBIT).is_restart(0)
    assert not book(BINANCE).is_restart(0)


def test_a_book_stays_crossed_after_a_second_in_which_it_never_was_not():
    known = book()
    assert not known.stays_crossed(RECV_NS)
    known.apply(101, 101, [(101.0, 1.0)], [])
    assert known.is_crossed, "a bid at an ask's price"
    assert not known.stays_crossed(RECV_NS)
    assert not known.stays_crossed(RECV_NS + CROSSED_NS - 1)
    known.apply(102, 102, [(101.0, 0.0)], [])
    assert not known.stays_crossed(RECV_NS + CROSSED_NS)
    known.apply(103, 103, [(103.0, 1.0)], [])
    assert not known.stays_crossed(RECV_NS + 2 * CROSSED_NS)
    assert known.stays_crossed(RECV_NS + 3 * CROSSED_NS)
    known.replace(200, BIDS, ASKS)
    assert not known.stays_crossed(RECV_NS + 4 * CROSSED_NS)
    known.apply(201, 201, [], [(price, 0.0) for price, _ in ASKS])
    assert not known.is_crossed, "an empty side crosses nothing"


@pytest.mark.many
@pytest.mark.parametrize("rule", [BINANCE, KUCOIN, BYBIT], ids=["binance", "kucoin", "bybit"])
@pytest.mark.parametrize("seed", range(8))
def test_a_book_is_the_exchange_s_or_not_known_whatever_is_lost_repeated_or_late(rule, seed):
    rng = random.Random(f"{seed} {rule}")
    true = {100: ({100.0: 1.0}, {101.0: 1.0})}  # what the book was after each id
    newest, messages = 100, []
    for _ in range(300):
        first = newest + 1
        sides = [dict(side) for side in true[newest]]
        changes = ([], [])
        for _ in range(1 if rule is BYBIT else rng.randint(1, 4)):
            newest += 1
            which = rng.randrange(2)
            price = float(rng.randint(80, 100) if which == 0 else rng.randint(101, 120))
            size = float(rng.choice((0, 1, 2, 3)))
            sides[which].pop(price, None)
            if size:
                sides[which][price] = size
            level = (price, size, newest) if rule.has_level_ids else (price, size)
            # Of a price that changes twice in a message the exchange sends the last change alone.
            changes[which][:] = [other for other in changes[which] if other[0] != price] + [level]
            true[newest] = (sides[0].copy(), sides[1].copy())
        messages.append((first, newest, *changes))
    known, seen = LineBook(rule), {NEXT: 0, OLD: 0, GAP: 0}
    at = 0
    while at < len(messages):
        act = rng.random()
        if act < 0.05:
            at += rng.randint(1, 3)  # lost
            continue
        if act < 0.15:
            at = max(0, at - rng.randint(1, 3))  # again
        first, last, bids, asks = messages[at]
        found = known.apply(first, last, bids, asks)
        seen[found] += 1
        at += 1
        if found is GAP:
            assert not known.is_known
            if rng.random() < 0.5:
                # A base from around here. Where levels have no ids it must be the end of a message, or before it.
                ids = range(first, last + 1) if rule.has_level_ids else [last]
                base_id = rng.choice([*ids, messages[max(0, at - 3)][1]])
                known.replace(base_id, *(side.items() for side in true[base_id]))
        if known.is_known:
            bids, asks = true[known.last_id]
            assert known.bids.pairs() == sorted(bids.items(), reverse=True)
            assert known.asks.pairs() == sorted(asks.items())
            assert not known.is_crossed
    assert min(seen.values()) > 0


# --- each line's own


def frame(u, bids=(), asks=(), type="delta", seq=None):
    sides = {
        side: [[str(price), str(size)] for price, size in levels]
        for side, levels in (("b", bids), ("a", asks))
    }
    data = {"s": "BTCUSDT", **sides, "u": u, "seq": 9_000_000 + 10 * u if seq is None else seq}
    return json.dumps({"topic": TOPIC, "ts": 1790000000262, "type": type, "data": data}).encode()


class Feed:
    """Bybit's depth of one symbol, on as many lines as one likes."""

    def __init__(self):
        self.market = make("bybit", "BTCUSDT")
        self.state = self.market.states["depth"]["BTCUSDT"]
        self.now = RECV_NS
        self.emitted = []
        self.answers = []

    def take(self, payload, line=0, after_ns=1):
        self.now += after_ns
        answer = self.market.decode(payload, self.now, Line(line), self.note)
        self.answers += [answer] if answer is not None else []
        return answer

    def note(self, state):
        self.emitted.append((wire.unpack(state.record()), state.exchange_sequence))

    def base(self, u=100, line=0, seq=None):
        return self.take(frame(u, BIDS, ASKS, "snapshot", seq), line)

    def published(self):
        return [(sequence, record.bids[0], str(record.flags)) for record, sequence in self.emitted]


@pytest.fixture
def feed():
    return Feed()


def test_a_base_and_its_changes_are_published_as_the_best_of_the_book(feed):
    feed.base()
    feed.take(frame(101, [(100.0, 0), (99.5, 3)]))
    feed.take(frame(102, [], [(100.5, 4)]))
    record = feed.emitted[-1][0]
    assert record.bids == ((99.5, 3.0), (99.0, 2.0))
    assert record.asks == ((100.5, 4.0), *ASKS)
    assert [sequence for _, sequence in feed.emitted] == [100, 101, 102]
    assert not feed.answers


def test_a_new_base_may_come_at_any_time_and_replaces_all(feed):
    feed.base()
    feed.take(frame(300, [(98.0, 1)], [(103.0, 1)], "snapshot"))
    assert feed.emitted[-1][0].bids == ((98.0, 1.0),)
    feed.take(frame(1, [(97.0, 1)], [(104.0, 1)], "delta", seq=9_004_000))
    assert feed.emitted[-1][0].bids == ((97.0, 1.0),), "a restart"
    feed.take(frame(2, [(97.5, 1)], seq=9_004_010))
    assert feed.emitted[-1][0].bids == ((97.5, 1.0), (97.0, 1.0))
    assert not feed.answers


def test_what_is_behind_the_best_is_kept_and_not_published(feed):
    feed.take(frame(100, [(100.0 - n, 1) for n in range(50)], ASKS, "snapshot"))
    assert feed.take(frame(101, [(60.0, 5)])) is None
    assert len(feed.emitted) == 1
    feed.take(frame(102, [(100.0 - n, 0) for n in range(30)]))
    assert feed.emitted[-1][0].bids[:11][-1] == (60.0, 5.0)


def test_a_gap_is_invalid_by_flag_until_the_base_and_subscribes_anew_once(feed):
    feed.base()
    assert feed.take(frame(103, [(99.5, 1)])) == Resubscribe(TOPIC)
    assert feed.take(frame(104, [(99.5, 2)])) is None, "asked already"
    assert feed.published() == [(100, BIDS[0], "SIMULATED"), (100, BIDS[0], "SIMULATED|INVALID")]
    feed.base(120)
    feed.take(frame(121, [(99.5, 1)]))
    assert [row[2] for row in feed.published()[2:]] == ["SIMULATED", "SIMULATED"]
    assert feed.answers == [Resubscribe(TOPIC)]


def test_a_base_that_does_not_come_is_asked_for_again(feed):
    feed.base()
    feed.take(frame(103))
    for u in range(104, 108):
        feed.take(frame(u), after_ns=ASK_AGAIN_NS // 2)
    assert feed.answers == [Resubscribe(TOPIC)] * 3
    assert len(feed.emitted) == 2


def test_a_new_count_whose_beginning_has_not_come_is_no_continuation(feed):
    feed.base()
    feed.take(frame(101))
    assert feed.take(frame(101)) is None, "twice"
    published = len(feed.emitted)
    # The exchange counts anew, and is heard again when its ids are about to reach those of the book.
    assert feed.take(frame(100, [(98.5, 1)], seq=9_002_000)) == Resubscribe(TOPIC)
    feed.take(frame(101, [(98.0, 1)], seq=9_002_010))
    feed.take(frame(102, [(97.5, 1)], seq=9_002_020))
    assert [row[2] for row in feed.published()[published:]] == ["SIMULATED|INVALID"]
    feed.base(110, seq=9_002_100)
    assert feed.published()[-1][2] == "SIMULATED"


def test_what_follows_by_an_id_that_is_used_again_and_was_made_before_is_no_continuation(feed):
    feed.base(5, seq=9_000_000)
    feed.take(frame(1, BIDS, ASKS, "snapshot", seq=9_000_100))
    feed.take(frame(2, [(99.5, 1)], seq=9_000_110))
    published = len(feed.emitted)
    assert feed.take(frame(3, [(98.5, 1)], seq=9_000_050)) == Resubscribe(TOPIC), "of the first count"
    assert [row[2] for row in feed.published()[published:]] == ["SIMULATED|INVALID"]


@pytest.mark.parametrize(("u", "wait_ns"), [(50, 1), (100, OLD_NS)], ids=["far below", "long enough"])
def test_what_stays_old_is_of_a_new_count_whatever_its_place_among_all(feed, u, wait_ns):
    feed.base()
    feed.take(frame(101))
    if wait_ns > 1:
        assert feed.take(frame(u, seq=1)) is None
    assert feed.take(frame(u, seq=1), after_ns=wait_ns) == Resubscribe(TOPIC)


def test_what_is_old_now_and_then_is_a_repetition(feed):
    feed.base()
    for u in range(101, 110):
        feed.take(frame(u, [(99.5, u)]))
        assert feed.take(frame(u, [(99.5, u)]), after_ns=OLD_NS // 2) is None


def test_a_delta_before_any_base_is_no_record(feed):
    assert feed.take(frame(101, [(99.5, 1)])) == Resubscribe(TOPIC)
    assert feed.emitted == []
    assert not feed.state.is_known


def test_a_gap_on_one_line_is_nothing_where_another_has_the_book(feed):
    feed.base(100, 0)
    feed.base(500, 1, seq=9_000_000 + 1000)  # the ids of connections are their own
    feed.take(frame(102, [(99.5, 1)]), 0)
    feed.take(frame(501, [(99.5, 7)], seq=9_001_010), 1)
    assert feed.answers == [Resubscribe(TOPIC)]
    assert [row[2] for row in feed.published()] == ["SIMULATED", "SIMULATED"]
    assert feed.emitted[-1][0].bids[1] == (99.5, 7.0)
    feed.take(frame(503, [], seq=9_001_030), 1)
    assert feed.published()[-1][2] == "SIMULATED|INVALID", "now there is none"


def test_a_line_whose_book_is_lost_keeps_nothing_current(feed):
    feed.base(100, 0)
    feed.base(100, 1)
    (channel,) = feed.state.channels
    assert (channel.is_kept(0), channel.is_kept(1)) == (True, True)
    feed.take(frame(102), 0)
    assert (channel.is_kept(0), channel.is_kept(1)) == (False, True)
    feed.base(103, 0)
    assert channel.is_kept(0)


def test_of_two_lines_the_first_to_bring_an_update_is_published(feed):
    feed.base(100, 0)
    feed.base(100, 1)
    for u in range(101, 105):
        first, second = (0, 1) if u % 2 else (1, 0)
        feed.take(frame(u, [(99.5, u)]), first)
        feed.take(frame(u, [(99.5, u)]), second)
    assert [sequence for _, sequence in feed.emitted] == [100, 101, 102, 103, 104]
    assert not feed.answers


def test_another_connection_begins_with_a_book_of_its_own(feed):
    for end in (feed.state.renew, feed.state.release):
        feed.base(100, 0)
        end(0)
        assert feed.take(frame(101)) == Resubscribe(TOPIC)
    feed.base(100, 0)
    feed.state.forget()
    assert not any(feed.state.books[line].is_known for line in range(LINES_MAX))
    assert feed.take(frame(101)) == Resubscribe(TOPIC)


def test_a_book_that_stays_crossed_is_flagged_at_once_and_subscribed_to_anew_after_a_second(feed):
    feed.base()
    assert feed.take(frame(101, [(101.5, 1)])) is None
    assert feed.published()[-1][2] == "SIMULATED|INVALID"
    assert feed.take(frame(102, [(90.0, 1)]), after_ns=CROSSED_NS) == Resubscribe(TOPIC)
    feed.base(110)
    assert feed.published()[-1][2] == "SIMULATED"


def test_another_group_s_frames_touch_no_book(feed):
    feed.base()
    feed.state.group = 7
    assert feed.take(frame(105)) is None
    assert feed.state.books[0].is_known


def test_the_quote_of_depth_is_no_ticker(feed):
    ticker = feed.market.tickers["BTCUSDT"]
    before = ticker.record()
    feed.base()
    feed.take(frame(101, [(99.5, 1)]))
    assert ticker.record() == before
    feed.market.decode(load("bybit", "orderbook"), feed.now, Line(0), lambda state: None)
    assert feed.state.bids[0] == BIDS[0]


@pytest.mark.many
@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_lost_on_two_lines_what_is_published_is_the_exchange_s_or_invalid(seed):
    """An exchange with a book, two lines that lose frames and fall behind, and a session that subscribes anew."""
    rng = random.Random(seed)
    feed = Feed()
    book = {"b": {100.0: 1.0}, "a": {101.0: 1.0}}
    history = {}  # sequence of the exchange → the best of it then
    queues, counts = [[], []], [rng.randint(2, 1000), rng.randint(2, 1000)]
    sequence = 9_000_000

    def whole():
        return [sorted(book["b"].items(), reverse=True), sorted(book["a"].items())]

    for line in (0, 1):
        queues[line].append(frame(counts[line], *whole(), "snapshot", sequence))
    history[sequence] = tuple(tuple(side[:20]) for side in whole())
    for _ in range(400):
        sequence += rng.randint(1, 5)
        changes = {"b": [], "a": []}
        for _ in range(rng.randint(1, 6)):
            side = rng.choice("ba")
            price, size = (
                float(rng.randint(60, 100) if side == "b" else rng.randint(101, 140)),
                rng.randint(0, 3),
            )
            book[side].pop(price, None)
            if size:
                book[side][price] = float(size)
            changes[side] = [level for level in changes[side] if level[0] != price] + [(price, size)]
        history[sequence] = tuple(tuple(side[:20]) for side in whole())
        for line in (0, 1):
            counts[line] += 1
            queues[line].append(frame(counts[line], changes["b"], changes["a"], "delta", sequence))
            if rng.random() < 0.02:
                queues[line].pop()
            while queues[line] and rng.random() < 0.8:
                if feed.take(queues[line].pop(0), line) is not None:
                    queues[line].append(frame(counts[line], *whole(), "snapshot", sequence))
                    feed.now += ASK_AGAIN_NS
    for line in (0, 1):
        while queues[line]:
            if feed.take(queues[line].pop(0), line) is not None:
                queues[line].append(frame(counts[line], *whole(), "snapshot", sequence))
    sound = {(bids, asks) for bids, asks in history.values()}
    for record, _ in feed.emitted:
        assert record.flags & wire.INVALID or (record.bids, record.asks) in sound
    last, _ = feed.emitted[-1]
    assert (last.bids, last.asks) == history[sequence]
    assert last.flags == wire.SIMULATED
    assert feed.answers, "something was lost"
