"""What no channel has is asked for in turn, within bounds, while somebody wants it, and only ages by a failure."""

import itertools
import random

import msgspec
import pytest

from feedhandler.data import wire
from feedhandler.data.rest import RestRequest
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Rows
from feedhandler.exchanges.binance import BinanceLinear
from feedhandler.exchanges.kucoin import KuCoinLinear
from feedhandler.exchanges.polled import SINGLES_MAX, Poll, PolledContract
from feedhandler.feed.polling import BACKOFF_NS, DISTANCE_NS, Polling
from feedhandler.transport.http import POLL_SHARE, SPARE_SHARE, HttpRefused, RestBudget

RECV_NS = 1_790_000_000_000_000_000
ALL = Poll(fields=("open_interest",), every_s=60.0, lasts_s=180.0, request=RestRequest("/all"))
EACH = msgspec.structs.replace(ALL, request=None, is_single=True)
BOTH = msgspec.structs.replace(ALL, is_single=True)


class Market(KuCoinLinear):
    def poll_request(self, poll, native):
        return RestRequest(f"/one/{native}")


def stream(state, recv_ns=RECV_NS):
    """A connection brings it."""
    state.mark = (state.mark if state.mark == state.mark else 0.0) + 1.0
    state.update(recv_ns)


class Play:
    """A poll of some contracts, a clock, and what was emitted."""

    def __init__(self, poll, natives=("A", "B"), *, is_live=True):
        self.market = Market()
        self.states = self.market.add(natives, 0, "contract")
        for state in self.states if is_live else ():
            stream(state)
        self.emitted = []
        self.polling = Polling(
            self.market, poll, lambda state: self.emitted.append(wire.unpack(state.record()))
        )
        self.now = 10**9

    def ask(self, after_s=0.0):
        self.now += int(after_s * NS_PER_S)
        return self.polling.advance(self.now)

    def answer(self, question, value=7.0, natives=None):
        names = [state.native for state in question.states] if natives is None else natives
        rows = [PolledContract(native, {"open_interest": value}) for native in names]
        self.polling.on_answer(question, Rows(rows), RECV_NS + self.now, self.now)

    @property
    def status(self):
        return self.polling.status(self.now)


def test_one_request_has_all_and_is_sent_again_when_it_is_time():
    play = Play(ALL)
    asked = play.ask()
    assert (asked.request.path, [state.native for state in asked.states]) == ("/all", ["A", "B"])
    assert play.ask(9) is None, "one at a time"
    play.answer(asked)
    assert [(record.topic, record.open_interest) for record in play.emitted] == [
        ("contract.kucoin.linear:A", 7.0),
        ("contract.kucoin.linear:B", 7.0),
    ]
    assert play.ask(50.9) is None
    assert play.ask(0.1) is not None, "60 s after the request"


def test_of_one_by_one_who_has_waited_longest_is_next():
    play, order = Play(EACH, ("A", "B", "C")), []
    for _ in range(3):
        asked = play.ask(1)
        order.append(asked.request.path)
        play.answer(asked, natives=None)
    assert order == ["/one/A", "/one/B", "/one/C"]
    assert play.ask(1) is None, "all have their value"
    assert play.ask(57).request.path == "/one/A"


@pytest.mark.parametrize(("count", "path"), [(SINGLES_MAX, "/one/0"), (SINGLES_MAX + 1, "/all")])
def test_few_symbols_are_asked_for_alone_where_that_can_be(count, path):
    assert Play(BOTH, [str(number) for number in range(count)]).ask().request.path == path


@pytest.mark.parametrize("poll", [ALL, EACH, BOTH])
def test_nothing_is_asked_for_whom_nobody_wants_or_no_stream_brings(poll):
    assert Play(poll, ()).ask() is None
    assert Play(poll, is_live=False).ask() is None
    play = Play(poll)
    for state in play.states:
        state.flags |= wire.DOWN
    assert play.ask() is None
    assert (play.status.symbols, play.status.known, play.status.late) == (2, 0, 0)


def test_who_is_let_go_while_the_answer_is_under_way_gets_nothing():
    play = Play(ALL)
    asked = play.ask()
    gone = play.states[0]
    play.market.remove([gone])
    play.ask()
    play.answer(asked)
    assert [record.topic for record in play.emitted] == ["contract.kucoin.linear:B"]
    assert gone.open_interest != gone.open_interest
    assert play.status.symbols == 1


def test_who_is_not_brought_yet_when_all_are_asked_for_is_asked_for_once_it_is():
    play = Play(ALL)
    (late,) = play.market.add(["LATE"], 0, "contract")
    asked = play.ask()
    assert late in asked.states
    play.answer(asked)
    assert late.open_interest != late.open_interest
    assert play.ask(10) is None
    stream(late)
    play.answer(play.ask())
    assert late.open_interest == 7.0


def test_an_answer_that_was_asked_for_something_else_is_one():
    play = Play(BOTH)
    play.ask()
    play.now += NS_PER_S
    rows = Rows([PolledContract(native, {"open_interest": 3.0}) for native in ("A", "B", "X")])
    play.polling.on_other_answer(rows, RECV_NS + play.now, play.now)
    assert [record.open_interest for record in play.emitted] == [3.0, 3.0]
    assert (play.status.known, play.status.newest_ns) == (2, RECV_NS + play.now)
    assert all(each.due_mono_ns == play.now + 60 * NS_PER_S for each in play.polling._watched.values())
    assert play.ask(1) is None, "the question is still under way"


def test_symbols_that_come_one_after_the_other_share_requests_about_all():
    play, requests = Play(ALL), []
    for number in range(40):
        (state,) = play.market.add([f"N{number}"], 0, "contract")
        stream(state)
        if asked := play.ask(0.1):
            requests.append(play.now)
            play.answer(asked)
    assert len(requests) >= 2
    assert min(b - a for a, b in itertools.pairwise(requests)) >= DISTANCE_NS


def test_a_refusal_is_followed_by_growing_patience_and_what_the_exchange_requires():
    play, waits = Play(ALL), []
    asked = play.ask()
    for _ in range(9):
        play.polling.on_refused(asked, play.now, "HTTP 503")
        refused = play.now
        while (asked := play.ask(0.2)) is None:
            pass
        waits.append(play.now - refused)
    assert waits[0] == BACKOFF_NS[0]
    assert waits[-1] == BACKOFF_NS[1]
    play.polling.on_refused(asked, play.now, "HTTP 429", 500.0)
    assert play.ask(499.9) is None
    assert play.ask(0.1) is not None


def test_a_full_budget_is_no_failure():
    play = Play(ALL)
    for _ in range(5):
        asked = play.ask()
        play.polling.on_refused(asked, play.now, "", 0.4)
        assert play.ask(0.3) is None
        play.now += NS_PER_S // 10
    assert (play.status.problem, play.status.text(RECV_NS)) == ("", "")


def test_values_grow_old_visibly_and_nothing_else_changes():
    play = Play(ALL)
    play.answer(play.ask())
    came = play.now
    for _ in range(30):
        if asked := play.ask(10):
            play.polling.on_refused(asked, play.now, "HTTP 503 Service Unavailable")
        for state in play.states:
            stream(state, RECV_NS + play.now)
            assert state.flags == 0
            is_old = play.now - came > 180 * NS_PER_S
            assert (state.open_interest != state.open_interest) == is_old
    status = play.status
    assert (status.symbols, status.known, status.late, status.oldest_ns) == (2, 0, 2, 0)
    assert (
        status.text(RECV_NS)
        == "open_interest of linear from REST: 0 of 2 known: HTTP 503 Service Unavailable"
    )
    while (asked := play.ask(1)) is None:
        pass
    play.answer(asked, 9.0)
    assert [record.open_interest for record in play.emitted[-2:]] == [9.0, 9.0]
    assert (play.status.known, play.status.late, play.status.problem) == (2, 0, "")
    assert play.status.oldest_ns == RECV_NS + play.now


def test_a_symbol_that_is_never_in_the_answer_is_late_alone():
    play = Play(ALL)
    play.answer(play.ask(), natives=["A"])
    while play.now < 200 * NS_PER_S:
        if asked := play.ask(1):
            play.answer(asked, natives=["A"])
    status = play.status
    assert (status.known, status.late) == (1, 1)
    assert "1 of 2 known, the oldest" in status.text(status.newest_ns)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_rest_does_requests_are_few_and_values_are_never_too_old(seed):
    rng = random.Random(seed)
    play = Play(rng.choice([ALL, EACH, BOTH]), [str(n) for n in range(rng.randint(1, 7))])
    asked, sent, answered = None, 0, {}
    for _ in range(3000):
        play.now += NS_PER_S // 5
        if asked is None and (asked := play.polling.advance(play.now)) is not None:
            sent += 1
        elif asked is not None:
            assert play.polling.advance(play.now) is None
            what = rng.random()
            if what < 0.2:
                play.polling.on_refused(asked, play.now, "odd", rng.choice([0.0, 0.0, 30.0]))
                asked = None
            elif what < 0.5:
                natives = [state.native for state in asked.states if rng.random() < 0.9]
                play.answer(asked, float(play.now), natives)
                answered.update((native, play.now) for native in natives)
                asked = None
        for state in rng.sample(play.states, 1):
            state.update(RECV_NS + play.now)
            if state.open_interest == state.open_interest:
                assert answered[state.native] == state.open_interest
                assert play.now - answered[state.native] <= 180 * NS_PER_S
            assert state.flags == 0
    assert sent <= 600 / 60 * len(play.states) + 600 / 4, f"seed {seed}"


# --- the budget


POLLED = [*(m for exchange in EXCHANGES.values() for m in exchange.markets), BinanceLinear]


@pytest.mark.parametrize("market", [m for m in POLLED if m.polls], ids=lambda m: m.exchange)
@pytest.mark.parametrize("feeds", [1, 2, 6])
def test_what_is_polled_leaves_the_budget_to_what_has_a_reason(market, feeds):
    made, budget, now = market(), RestBudget(market.rest_limit, feeds), 10**9
    request = max(
        (poll.request or made.poll_request(poll, "AB") for poll in market.polls), key=lambda each: each.weight
    )
    with pytest.raises(HttpRefused) as refused:
        for _ in range(10**6):
            assert budget.take(request.weight, now, share=POLL_SHARE) == now
    assert not refused.value.status
    assert budget.take(1, now, share=SPARE_SHARE) == now
    assert budget.take(made.instruments_request.weight, now) == now
