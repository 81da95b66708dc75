"""What REST states of contracts: taken over with its age, beside channels, and never in place of a condition."""

import pytest
from table import FRAMES, RECV_NS, load

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import Arbitration
from feedhandler.exchanges.binance import OPEN_INTEREST, BinanceLinear
from feedhandler.exchanges.contract_state import ContractState
from feedhandler.exchanges.kucoin import KuCoinLinear
from feedhandler.exchanges.polled import Poll, PolledContract, take_polled

POLL = Poll(
    fields=("open_interest", "next_funding_ns"),
    fills=("funding_rate",),
    every_s=60.0,
    lasts_s=180.0,
    is_single=True,
)
OFFERED = [market for exchange in EXCHANGES.values() for market in exchange.markets]
STATED = {"open_interest": 7.0, "next_funding_ns": RECV_NS + 5, "funding_rate": 0.001}


def made(native="AB"):
    return ContractState((Arbitration(),), topic=f"contract.x.linear:{native}", native=native)


def polled(state, values=STATED, recv_ns=RECV_NS):
    emitted = []
    take_polled(POLL, [PolledContract(state.native, values)], [state], recv_ns, emitted.append)
    return [wire.unpack(each.record()) for each in emitted]


def live(native="AB"):
    state = made(native)
    state.mark = 1.0
    assert state.update(RECV_NS)
    return state


def test_a_live_state_is_a_record_with_what_rest_states():
    state = live()
    (record,) = polled(state, recv_ns=RECV_NS + 9)
    assert (record.mark, record.open_interest, record.next_funding_ns) == (1.0, 7.0, RECV_NS + 5)
    assert (record.funding_rate, record.recv_ns, record.flags) == (0.001, RECV_NS + 9, 0)
    assert polled(state, recv_ns=RECV_NS + 10) == [], "nothing new"


def test_nothing_is_taken_of_what_no_channel_has_brought():
    state = made()
    assert polled(state) == []
    assert not state.is_known
    state.mark = 2.0
    state.update(RECV_NS)
    assert state.open_interest != state.open_interest


@pytest.mark.parametrize("flag", [wire.STALE, wire.DOWN])
def test_what_is_not_live_keeps_its_condition_and_has_the_value_in_its_next_record(flag):
    state = live()
    state.flags |= flag
    assert polled(state) == []
    assert state.flags == flag
    state.mark = 2.0
    assert state.update(RECV_NS + 1)
    record = wire.unpack(state.record())
    assert (record.mark, record.open_interest, record.flags) == (2.0, 7.0, 0)


def test_a_value_that_is_too_old_is_unknown_in_the_next_record():
    state = live()
    polled(state)
    until_ns = RECV_NS + 180 * NS_PER_S
    assert not state.update(until_ns)
    assert state.open_interest == 7.0
    assert state.update(until_ns + 1), "that it is unknown is news"
    record = wire.unpack(state.record())
    assert (record.mark, record.open_interest != record.open_interest, record.next_funding_ns) == (
        1.0,
        True,
        0,
    )
    assert polled(state, recv_ns=until_ns + 2)[0].open_interest == 7.0


def test_what_is_left_out_grows_old_by_itself():
    state = live()
    polled(state)
    polled(state, {"next_funding_ns": 9}, RECV_NS + 170 * NS_PER_S)
    state.update(RECV_NS + 181 * NS_PER_S)
    assert (state.open_interest != state.open_interest, state.next_funding_ns) == (True, 9)


def test_an_outage_of_streams_ends_no_value_that_is_not_theirs():
    state = live()
    polled(state)
    state.forget()
    assert not state.is_known
    assert (state.open_interest, state.mark != state.mark) == (7.0, True)
    assert state.funding_rate != state.funding_rate, "it is a channel's"
    state.mark = 3.0
    state.update(RECV_NS + 181 * NS_PER_S)
    assert state.open_interest != state.open_interest, "its time goes on meanwhile"


def test_a_channels_field_is_filled_until_the_channel_has_sent():
    state = live()
    polled(state)
    polled(state, STATED | {"funding_rate": 0.002})
    assert state.funding_rate == 0.002
    state.funding_rate = 0.5
    state.update(RECV_NS)
    polled(state, STATED | {"funding_rate": 0.003, "open_interest": 8.0})
    assert (state.funding_rate, state.open_interest) == (0.5, 8.0)


def test_only_rows_of_the_states_count_and_what_is_absent_has_the_usual_value():
    ab, cd = live("AB"), live("CD")
    absent = Poll(
        fields=("funding_interval_h",),
        every_s=1.0,
        lasts_s=2.0,
        is_single=True,
        absent={"funding_interval_h": 8.0},
    )
    rows = [
        PolledContract("CD", {"funding_interval_h": 4.0}),
        PolledContract("XX", {"funding_interval_h": 1.0}),
    ]
    assert take_polled(absent, rows, [ab, cd], RECV_NS, [].append) == [ab, cd]
    assert (ab.funding_interval_h, cd.funding_interval_h) == (8.0, 4.0)
    assert take_polled(POLL, [], [ab], RECV_NS, [].append) == []


# --- answers


class Listed(KuCoinLinear):
    def __init__(self):
        super().__init__()
        self.learn(self.decode_instruments(load("kucoin_linear", "lists/instruments_ticks")).items)


NEXT_NS = 1_790_017_320_000_000_000
KUCOIN = {
    "one": [
        PolledContract(
            "XBTUSDTM",
            {
                "open_interest": 8053.96,
                "next_funding_ns": NEXT_NS,
                "funding_rate": 0.0001,
                "funding_interval_h": 8.0,
            },
        )
    ],
    "all": [
        PolledContract(
            "XBTUSDTM",
            {
                "open_interest": 0.012,
                "next_funding_ns": 1_790_006_400_000_000_000,
                "funding_rate": -0.0003,
                "funding_interval_h": 4.0,
            },
        )
    ],
    "one_odd": [PolledContract("XBTUSDTM", {"open_interest": 0.012})],
    "negative": DecodeError,
    "infinite": DecodeError,
    "huge_time": DecodeError,
    "unknown_symbol": ProtocolError,
    "no_data": ProtocolError,
    "text": DecodeError,
    "truncated": DecodeError,
}
BINANCE = {
    "open_interest": [PolledContract("BTCUSDT", {"open_interest": 80539.601})],
    "open_interest_refused": ProtocolError,
    "open_interest_negative": DecodeError,
    "intervals": [PolledContract("ETHUSDT", {"funding_interval_h": 4.0})],
    "intervals_odd": [PolledContract("ETHUSDT", {"funding_interval_h": 4.0})],
    "intervals_refused": DecodeError,
}


@pytest.mark.parametrize(("folder", "table"), [("kucoin_linear", KUCOIN), ("binance_linear", BINANCE)])
def test_an_answer_is_what_the_table_says(folder, table):
    assert {path.stem for path in (FRAMES / folder / "polls").glob("*.json")} == table.keys()
    market = Listed() if table is KUCOIN else BinanceLinear()
    for name, expected in table.items():
        poll = next(each for each in market.polls if name.startswith("open") == (each is OPEN_INTEREST))
        body = load(folder, f"polls/{name}")
        if isinstance(expected, type):
            with pytest.raises(expected):
                market.decode_poll(poll, body, RECV_NS)
        else:
            found = market.decode_poll(poll, body, RECV_NS)
            assert (found.items, bool(found.problem)) == (expected, name.endswith("odd")), name


def test_when_funding_is_due_is_on_the_minute_however_late_the_answer_came():
    market, body = Listed(), load("kucoin_linear", "polls/one")
    for late_ns in (0, 700_000_000, 9 * NS_PER_S):
        found = market.decode_poll(market.polls[0], body, RECV_NS + late_ns)
        assert found.items[0].values["next_funding_ns"] == NEXT_NS


@pytest.mark.parametrize("market", [*OFFERED, BinanceLinear], ids=lambda m: f"{m.exchange}.{m.name}")
def test_a_request_is_known_by_its_url_for_recordings(market):
    made = market()
    requests = [made.instruments_request, *made.survey_requests, made.quote_request("AB")]
    own = {each.request.path for each in made.polls if each.request is not None}
    for request in requests:
        if request.path not in own:
            assert made.polled_at(f"https://x.example{request.path}") is None, request.path
    for poll in made.polls:
        assert poll.request is None or made.polled_at(f"https://x.example{poll.request.path}") is poll
        assert (
            not poll.is_single
            or made.polled_at(f"https://x.example{made.poll_request(poll, 'AB').path}") is poll
        )


def test_every_field_that_is_polled_is_one_of_the_kind():
    for market in [*OFFERED, BinanceLinear]:
        for poll in market.polls:
            assert {*poll.fields, *poll.fills, *poll.absent} <= {*wire.Contract.__struct_fields__}
            assert not {*poll.fields} & {*poll.fills}
