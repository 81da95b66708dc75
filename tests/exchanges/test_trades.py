"""Which trades are new, whichever connection brings them: a table of cases, and connections that come and go."""

import random

import pytest
from seeds import seeds

from feedhandler.data import wire
from feedhandler.exchanges.arbitration import LINES_MAX, Line
from feedhandler.exchanges.trades import (
    KEPT_MAX,
    KEPT_MIN,
    KEPT_NS,
    MISSING_MAX,
    MOMENT_MAX,
    REPEATS_NS,
    SILENT_NS,
    TradeArbitration,
    TradeState,
    numbered,
)

SECOND = 1_000_000_000
MS = 1_000_000
RECV_NS = 1_790_000_000_300_000_000

FIRST, DUPLICATE, LATE = "first", "duplicate", "late"
RENEW, RELEASE, RESET = "renew", "release", "reset"


# What happens on a line: a trade's number, and the answer, or what becomes of the line. A trade is made a
# millisecond after the one with the number before, and comes then; or at times that are stated, in milliseconds.
CASES = {
    "of two lines the first to bring a trade counts": [
        ("A", 100, FIRST),
        ("B", 100, DUPLICATE),
        ("B", 101, FIRST),
        ("A", 101, DUPLICATE),
    ],
    "what one line brings twice is new once": [("A", 100, FIRST), ("A", 100, DUPLICATE), ("A", 101, FIRST)],
    "what a line missed another brings, after newer ones": [
        ("A", 100, FIRST),
        ("A", RENEW),
        ("A", 103, FIRST),
        *(("B", number, FIRST if number in (101, 102, 104) else DUPLICATE) for number in range(100, 105)),
    ],
    "numbers that skip some are not told from others": [
        ("A", 100, FIRST),
        ("B", 120, FIRST),
        ("B", 110, FIRST),
    ],
    "a replay is nothing new, whoever sends it, and what was missed is": [
        ("A", 100, FIRST),
        ("A", 101, FIRST),
        ("A", RESET),
        ("A", 100, DUPLICATE),
        ("A", 101, DUPLICATE),
        ("A", 102, FIRST),
        ("A", RELEASE),
        ("B", 101, DUPLICATE),
        ("B", 102, DUPLICATE),
    ],
    "also hours later, while nothing happened": [
        ("A", 100, FIRST),
        ("A", RESET),
        ("A", 100, DUPLICATE, 100, 7_200_000),
    ],
    "an exchange that counts anew is followed at once": [
        ("A", 100_000, FIRST, 0),
        ("B", 100_000, DUPLICATE, 0),
        ("A", 1, FIRST, 1),
        ("B", 1, DUPLICATE, 1),
        ("B", 2, FIRST, 2),
        ("A", 2, DUPLICATE, 2),
    ],
    "also when it comes by numbers that there were": [
        ("A", 100, FIRST, 0),
        ("A", 101, FIRST, 1),
        ("A", 100, FIRST, 50),
        ("B", 100, DUPLICATE, 0),  # behind, still in the old count
        ("B", 101, DUPLICATE, 1),
        ("B", 100, DUPLICATE, 50),
        ("B", 101, FIRST, 51),
    ],
    "trades without a time are known by their numbers": [
        ("A", 100, FIRST, None),
        ("B", 100, DUPLICATE, None),
        ("B", 99, FIRST, None),
    ],
}


def play(channel, steps):
    lines = {"A": Line(0), "B": Line(1)}
    for step, (name, what, *rest) in enumerate(steps):
        line = lines[name]
        if what == RESET:
            channel.reset()
        elif what in (RENEW, RELEASE):
            getattr(channel, what)(line.index)
        else:
            answer, at_ms = rest[0], rest[1] if len(rest) > 1 else what
            comes_ms = rest[2] if len(rest) > 2 else at_ms or 0
            time_ns = 0 if at_ms is None else RECV_NS + at_ms * MS
            recv_ns = RECV_NS + comes_ms * MS
            before = (line.first, line.duplicate, line.late)
            key = numbered(what, time_ns)
            is_first = channel.accept(line, key, time_ns, recv_ns, what)
            after = (line.first, line.duplicate, line.late)
            (found,) = [
                word
                for word, was, now in zip((FIRST, DUPLICATE, LATE), before, after, strict=True)
                if now != was
            ]
            assert (found, is_first) == (answer, answer == FIRST), f"step {step}"
    for line in lines.values():
        assert line.frames == line.first + line.duplicate + line.late


@pytest.mark.parametrize("case", CASES)
def test_which_trades_are_new(case):
    play(TradeArbitration(), CASES[case])


def fill(channel, line, count, *, start=0, per_ms=1, keyed=str):
    """Bring trades without numbers, so many a millisecond."""
    for number in range(start, start + count):
        time_ns = RECV_NS + number // per_ms * MS
        assert channel.accept(line, keyed(number), time_ns, time_ns)


def test_the_newest_are_known_however_long_ago_and_those_of_a_minute_up_to_a_limit():
    channel, line, other = TradeArbitration(), Line(0), Line(1)
    for number in range(4 * KEPT_MIN):
        time_ns = RECV_NS + number * 10 * SECOND
        assert channel.accept(line, str(number), time_ns, time_ns)
    assert channel.kept <= 2 * KEPT_MIN
    for number in range(4 * KEPT_MIN):
        assert not channel.accept(other, str(number), RECV_NS + number * 10 * SECOND, time_ns), number
    assert other.duplicate >= KEPT_MIN
    assert (other.duplicate + other.late, other.first) == (4 * KEPT_MIN, 0)


def test_a_number_that_came_and_was_forgotten_is_not_new_when_rest_states_it():
    channel, line = TradeArbitration(is_consecutive=True), Line(0)
    for number in (*range(1, 11), *range(21, 4 * KEPT_MIN)):
        time_ns = RECV_NS + number * 10 * SECOND
        assert channel.accept(line, str(number), time_ns, time_ns, number)
    assert channel.missing == [(11, 20)]
    new = [n for n in range(1, 100) if channel.add(str(n), RECV_NS + n * 10 * SECOND, time_ns, n)]
    assert new == list(range(11, 21)), "those that are missing, and no other"
    assert not channel.missing


def test_what_is_kept_is_bounded_however_much_is_traded():
    channel, line = TradeArbitration(), Line(0)
    fill(channel, line, 5 * KEPT_MAX, per_ms=1000)
    assert KEPT_MAX <= channel.kept <= 2 * KEPT_MAX + 1000
    other = Line(1)
    fill_again = [
        channel.accept(other, str(n), RECV_NS + n // 1000 * MS, RECV_NS + SECOND) for n in range(5 * KEPT_MAX)
    ]
    assert not any(fill_again), "late, or a duplicate"


@pytest.mark.long
def test_the_trades_of_one_moment_are_kept_together():
    channel, line, other = TradeArbitration(), Line(0), Line(1)
    fill(channel, line, 10)
    fill(channel, line, 2 * KEPT_MAX + 5, start=1_000_000, per_ms=10_000_000)
    fill(channel, line, 10, start=20_000_000)
    for number in range(1_000_000, 1_000_000 + 2 * KEPT_MAX + 5):
        assert not channel.accept(other, str(number), RECV_NS, RECV_NS + SECOND)
    assert other.duplicate == 2 * KEPT_MAX + 5
    for number in range(3 * MOMENT_MAX):
        channel.accept(line, f"at once {number}", RECV_NS + 60 * SECOND, RECV_NS + 60 * SECOND)
    assert channel.kept <= 2 * MOMENT_MAX, "no moment has so many"


def test_a_clock_that_was_set_back_costs_no_trade():
    channel, line, other = TradeArbitration(), Line(0), Line(1)
    fill(channel, line, 3 * KEPT_MAX)
    now_ns = RECV_NS + 3 * KEPT_MAX * MS
    for number in range(100):
        time_ns = now_ns - 3600 * SECOND + number * MS
        assert channel.accept(line, f"back {number}", time_ns, now_ns + number * MS)
    for number in range(90, 110):  # another connection, that began afterwards
        time_ns = now_ns - 3600 * SECOND + number * MS
        assert channel.accept(other, f"back {number}", time_ns, now_ns + SECOND) == (number >= 100)


def test_after_a_silence_what_is_not_known_is_new_whatever_its_time():
    channel, line = TradeArbitration(), Line(0)
    fill(channel, line, 3 * KEPT_MAX)
    channel.reset()
    now_ns = RECV_NS + 3 * KEPT_MAX * MS
    time_ns = now_ns - 3600 * SECOND
    assert not channel.accept(line, "back", time_ns, now_ns + SILENT_NS - REPEATS_NS)
    assert not channel.accept(line, "back", time_ns, now_ns + SILENT_NS - SECOND)
    assert channel.accept(line, "back", time_ns, now_ns + SILENT_NS)
    assert channel.accept(line, "back again", time_ns + MS, now_ns + SILENT_NS)


def test_what_was_made_before_it_was_wanted_again_is_known_by_its_number_where_times_are_our_clock_s():
    channel, line = TradeArbitration(), Line(0)
    channel.part()
    assert channel.accept(line, 7189, RECV_NS, RECV_NS, 7189)
    assert channel.accept(line, 7196, RECV_NS + 1, RECV_NS, 7196)
    assert not channel.accept(line, 7182, RECV_NS + SECOND, RECV_NS + SECOND, 7182), "repeated"
    assert channel.accept(line, 7203, RECV_NS + SECOND, RECV_NS + SECOND, 7203)


def test_what_a_line_repeats_that_has_just_begun_is_not_new_in_a_quiet_market():
    """It was made while nobody wanted it: so it is not known."""
    channel, line, other = TradeArbitration(), Line(0), Line(1)
    assert channel.accept(line, "a", RECV_NS, RECV_NS)
    channel.part()
    assert channel.accept(line, "b", RECV_NS + SECOND, RECV_NS + SECOND)
    now_ns = RECV_NS + 2 * SILENT_NS
    for repeated in range(3):
        assert not channel.accept(other, f"before {repeated}", RECV_NS - SECOND, now_ns + repeated * MS)
    assert channel.accept(other, "c", now_ns, now_ns)


def test_a_number_beyond_all_others_is_new_whatever_its_time():
    channel, line = TradeArbitration(), Line(0)
    for number in range(1, 3 * KEPT_MAX):
        assert channel.accept(line, number, RECV_NS + number * MS, RECV_NS, number)
    channel.renew(0)
    assert channel.accept(line, 10**9, RECV_NS, RECV_NS, 10**9)
    assert not channel.accept(line, 5, RECV_NS - 1, RECV_NS, 5)
    assert line.late == 1


def test_a_number_that_is_missing_is_new_however_long_ago_it_was_and_no_other_is():
    channel, line, other = TradeArbitration(is_consecutive=True), Line(0), Line(1)
    numbers = [number for number in range(1, 4 * KEPT_MAX) if not 10 <= number < 15]
    for number in numbers:
        time_ns = RECV_NS + number * MS
        assert channel.accept(line, numbered(number, time_ns), time_ns, time_ns, number)
    assert (channel.missing, channel.missing_count) == ([(10, 14)], 5)
    for again in (other, line):
        for number in range(1, 4 * KEPT_MAX):
            time_ns = RECV_NS + number * MS
            is_new = channel.accept(again, numbered(number, time_ns), time_ns, RECV_NS + 60 * SECOND, number)
            assert is_new == (again is other and 10 <= number < 15)
    assert channel.missing == []


def test_what_there_is_no_room_to_note_as_missing_is_given_up_and_counted():
    channel, line = TradeArbitration(is_consecutive=True), Line(0)

    def accept(number):
        time_ns = RECV_NS + number * MS
        assert channel.accept(line, numbered(number, time_ns), time_ns, time_ns, number)

    for number in range(1, 4 * (MISSING_MAX + 5), 4):  # three are missing after each
        accept(number)
    assert len(channel.missing) == MISSING_MAX
    assert channel.given_up == 4 * 3
    assert channel.missing_count + channel.given_up == 3 * (MISSING_MAX + 4)
    for first, _ in channel.missing[-5:]:  # what comes of each parts it
        accept(first + 1)
    assert len(channel.missing) == MISSING_MAX
    assert channel.missing_count + channel.given_up + 5 == 3 * (MISSING_MAX + 4)


def test_what_is_missing_when_the_exchange_counts_anew_is_given_up():
    channel, line = TradeArbitration(is_consecutive=True), Line(0)
    for number, time_ns in ((1000, RECV_NS), (1004, RECV_NS + MS), (1, RECV_NS + 2 * MS)):
        assert channel.accept(line, numbered(number, time_ns), time_ns, time_ns, number)
    assert (channel.missing, channel.given_up) == ([], 3)


def test_what_is_made_while_nobody_wants_it_is_not_missing_and_what_was_made_before_is_late():
    channel, line = TradeArbitration(is_consecutive=True), Line(0)

    def accept(number):
        time_ns = RECV_NS + number * MS
        return channel.accept(line, numbered(number, time_ns), time_ns, time_ns, number)

    assert accept(100)
    assert accept(103)
    assert channel.missing == [(101, 102)]
    channel.part()
    assert not accept(102)
    assert accept(110)
    assert channel.missing == []
    assert accept(112)
    assert channel.missing == [(111, 111)]
    channel.part()
    assert accept(113), "the next one, as it happens"
    assert accept(115)
    assert channel.missing == [(114, 114)]


def test_a_trade_that_stands_for_several_is_missed_and_found_as_so_many():
    channel, one, two = TradeArbitration(is_consecutive=True), Line(0), Line(1)

    def accept(line, number, count):
        time_ns = RECV_NS + number * MS
        return channel.accept(line, numbered(number, time_ns), time_ns, time_ns, number, count)

    assert accept(one, 100, 1)
    assert accept(one, 104, 4)
    assert channel.missing == []
    assert accept(one, 120, 3)
    assert channel.missing == [(105, 117)]
    assert accept(two, 110, 4)
    assert channel.missing == [(105, 106), (111, 117)]
    assert not accept(two, 110, 4)
    assert not channel.add(109, RECV_NS, RECV_NS, 109), "it was one of those four"
    assert channel.add(105, RECV_NS, RECV_NS, 105)
    assert accept(two, 117, 7)
    assert channel.missing == [(106, 106)]
    assert channel.number == 120


def test_what_begins_with_the_last_trade_before_it_is_counted_from_there():
    names = {"topic": "trade.x.AB", "native": "AB", "is_consecutive": True, "begins_with_last": True}
    state, line, other = TradeState(**names), Line(0), Line(1)

    def accept(line, number):
        time_ns = RECV_NS + number * MS
        return state.accept_trade(line, numbered(number, time_ns), time_ns, time_ns, number)

    assert [accept(line, number) for number in (100, 101, 103)] == [False, True, True]
    assert state.trades.missing == [(102, 102)]
    assert [accept(other, number) for number in (103, 104)] == [False, True], "it begins with what is known"
    state.forget()
    assert accept(line, 108), "what was made while nothing was connected is new"
    state.trades.part()
    assert [accept(line, number) for number in (120, 121)] == [False, True]
    assert state.trades.missing == []
    state.trades.part()
    assert [accept(line, number) for number in (121, 122)] == [False, True], "none was made meanwhile"


@pytest.mark.parametrize("has_numbers", [True, False])
def test_what_a_line_repeats_of_the_time_when_nobody_wanted_it_is_late(has_numbers):
    channel, lines = TradeArbitration(), (Line(0), Line(1))

    def accept(line, number):
        time_ns = RECV_NS + number * MS
        return channel.accept(lines[line], number, time_ns, RECV_NS + 200 * MS, number * has_numbers)

    assert accept(0, 100)
    channel.part()
    assert accept(0, 110)
    assert not accept(0, 105)
    assert accept(1, 107), "what was under way on another line may be from after it was wanted"
    assert not accept(0, 110)
    assert accept(0, 111)


def test_a_line_begins_after_what_is_known_unless_nobody_wanted_it():
    channel, line = TradeArbitration(), Line(0)
    channel.accept(line, "a", RECV_NS, RECV_NS)
    channel.begin(1)
    channel.accept(line, "b", RECV_NS + MS, RECV_NS + MS)
    assert (channel.began_ns(0), channel.began_ns(1)) == (0, RECV_NS)
    channel.part()
    assert channel.began_ns(1) == 0
    channel.begin(1)
    assert channel.began_ns(1) == 0
    channel.accept(line, "c", RECV_NS + 2 * MS, RECV_NS + 2 * MS)
    channel.begin(1)
    assert channel.began_ns(1) == RECV_NS + 2 * MS
    channel.renew(1)
    assert channel.began_ns(1) == 0


def test_a_count_that_begins_anew_has_none_missing_and_goes_on_from_there():
    channel, line = TradeArbitration(is_consecutive=True), Line(0)
    for step, number in enumerate((1000, 1001, 1004, 3, 4, 7)):
        time_ns = RECV_NS + step * MS
        assert channel.accept(line, numbered(number, time_ns), time_ns, time_ns, number)
    assert (channel.missing, channel.number) == ([(5, 6)], 7)
    assert not channel.add(numbered(4, RECV_NS + 4 * MS), RECV_NS, RECV_NS, 4)
    assert channel.add("6 of REST", RECV_NS, RECV_NS, 6)
    assert channel.missing == [(5, 5)]


def test_a_duplicate_is_measured():
    channel, one, two = TradeArbitration(), Line(0), Line(1)
    channel.accept(one, "a", RECV_NS, RECV_NS)
    channel.accept(two, "a", RECV_NS, RECV_NS + 2500)
    channel.accept(one, "a", RECV_NS, RECV_NS + 9000)
    assert one.behind_ns == 0, "behind another, not behind itself"
    assert two.behind_ns == pytest.approx(2500, abs=LINES_MAX)


def test_what_is_asked_about_lines_is_as_of_any_channel():
    channel, line = TradeArbitration(), Line(2)
    assert not channel.is_kept(2)
    channel.accept(line, "a", RECV_NS, RECV_NS + 5)
    assert (channel.heard_ns(2), channel.is_kept(2), channel.updates) == (RECV_NS + 5, True, 1)
    channel.renew(2)
    assert (channel.heard_ns(2), channel.is_kept(2)) == (0, False)
    channel.inherit(2)
    assert (channel.heard_ns(2), channel.is_kept(2)) == (0, True)
    channel.accept(line, "a", RECV_NS, RECV_NS + 7)
    assert (channel.updates, channel.update_id) == (2, 1)
    channel.reset()
    assert (channel.updates, channel.update_id, channel.is_kept(2)) == (0, 1, False)


def make_state(**keys):
    return TradeState(topic="trade.binance.BTCUSDT", native="BTCUSDT", **keys)


def test_a_state_takes_trades_of_its_group_alone_and_doubts_what_cannot_be():
    state = make_state(base_flags=wire.SIMULATED)
    state.group = 3
    assert not state.accept_trade(Line(0, 2), 1, RECV_NS, RECV_NS, 1)
    line = Line(0, 3)
    assert state.accept_trade(line, 1, RECV_NS + 10**18, RECV_NS, 1)
    fill(state.trades, line, 3 * KEPT_MAX)
    assert state.accept_trade(line, "next", RECV_NS + 3 * KEPT_MAX * MS, RECV_NS + 3 * KEPT_MAX * MS)


@pytest.mark.parametrize(
    ("later_ns", "back_ns"), [(MS, 70 * SECOND), (80 * SECOND, 20 * SECOND)], ids=["soon", "much later"]
)
def test_our_own_clock_that_is_set_back_while_nobody_wants_a_symbol_costs_no_trade(later_ns, back_ns):
    """Without numbers a trade is judged by the exchange's time; a minute ahead of ours it would not be believed."""
    state = make_state()
    line = Line(0)
    assert state.accept_trade(line, "a", RECV_NS, RECV_NS)
    state.trades.part()
    state.trades.renew(line.index)
    made_ns, recv_ns = RECV_NS + later_ns, RECV_NS - back_ns
    assert not state.accept_trade(line, "before", RECV_NS - 1, recv_ns)
    assert state.accept_trade(line, "b", made_ns, recv_ns)
    assert state.accept_trade(line, "c", made_ns + MS, recv_ns + MS)
    assert not state.accept_trade(line, "b", made_ns, recv_ns + 2 * MS)


def test_a_trade_is_emitted_once_and_then_there_is_only_its_condition():
    state = make_state(base_flags=wire.SIMULATED)
    found = []

    def emit(state):
        assert state.takes_number
        found.append(wire.unpack(state.record()))

    trade = ("7", 2.5, 0.5, wire.Side.SELL)
    state.publish(trade, RECV_NS - 5, RECV_NS, emit, sequence=7, index=70_000, bits=1, flags=wire.LAST)
    [record] = found
    assert record == wire.Trade(
        "trade.binance.BTCUSDT",
        flags=wire.SIMULATED | wire.LAST,
        exchange_ns=RECV_NS - 5,
        recv_ns=RECV_NS,
        exchange_sequence=7,
        price=2.5,
        size=0.5,
        side=wire.Side.SELL,
        bits=1,
        index=65535,
        trade_id="7",
    )
    assert not state.takes_number
    condition = wire.unpack(state.record())
    assert (type(condition), condition.flags) == (wire.Condition, wire.SIMULATED)


class Connection:
    """One connection to an exchange: what it brings is in order, and behind by a time of its own."""

    def __init__(self, line, position, behind):
        self.line, self.position, self.behind = line, position, behind


@pytest.mark.parametrize("seed", seeds(40))
def test_each_trade_is_new_once_as_long_as_one_connection_has_it(seed):
    """Connections come and go, replay what was last, overtake each other; the exchange may count anew."""
    rng = random.Random(seed)
    style = rng.choice(("consecutive", "skipping", "text"))
    channel = TradeArbitration()
    made, published, brought = [], [], set()
    connections = {}
    number, now_ns = rng.choice((1, 5_000_000, 2**60)), RECV_NS
    position = {}  # in what was published, of the newest that a connection was first with
    for _ in range(3000):
        now_ns += rng.choice((0, MS // 3, MS, 20 * MS))
        act = rng.random()
        if act < 0.55:
            for _ in range(rng.choice((1, 1, 1, 2, 40))):
                number += 1 if style != "skipping" else rng.choice((1, 3, 1000))
                made.append((number, now_ns))
        elif act < 0.56 and style != "text":
            number = rng.choice((0, max(0, number - 50), number // 2))  # it counts anew
            now_ns += 2 * MS
        elif act < 0.62 and len(connections) < 3:
            index = rng.choice([index for index in range(LINES_MAX) if index not in connections])
            channel.renew(index)
            start = len(made) - rng.choice((0, 0, 10, 100))  # what it repeats on subscription
            connections[index] = Connection(Line(index), max(0, start), rng.choice((0, 0, 5, 200)))
            position[index] = -1
        elif act < 0.66 and connections:
            index = rng.choice(list(connections))
            channel.release(index)
            del connections[index]
            if not connections:
                channel.reset()
        for index, connection in connections.items():
            end = max(connection.position, len(made) - connection.behind)
            for place in range(connection.position, end):
                trade_number, time_ns = made[place]
                brought.add(place)
                key = f"id {place}" if style == "text" else numbered(trade_number, time_ns)
                count = 0 if style == "text" else trade_number
                if channel.accept(connection.line, key, time_ns, now_ns, count):
                    published.append(place)
                    assert place > position[index], "in the order of its connection"
                    position[index] = place
            connection.position = end
    assert len(published) == len(set(published)), "none twice"
    assert set(published) == brought, "none is missing that a connection had"
    assert len(published) > 1000


def test_ids_are_told_apart_by_number_and_time_whatever_the_unit():
    assert numbered(5, 1_790_000_000_123_456_789) == numbered(5, 1_790_000_000_123_000_000)
    assert numbered(5, 1_790_000_000_124_000_000) != numbered(5, 1_790_000_000_123_000_000)
    assert numbered(2**63 - 1, 2**63 - 1) != numbered(2**63 - 2, 2**63 - 1)
    assert KEPT_NS >= SILENT_NS
