"""A perpetual beside its spot pair, in the live table and in words."""

import pytest

from feedhandler.cli.figures import countdown
from feedhandler.cli.pairs import Pairs
from feedhandler.cli.view import plain
from feedhandler.data import wire

NOW_NS = 1_790_000_000_000_000_000
HOUR_NS = 3_600 * 10**9
SPOT, PERPETUAL = "BTC/USDT", "BTC/USDT:USDT"


def ticker(symbol, bid, ask, exchange="x", flags=0):
    return wire.Ticker(wire.topic(wire.TICKER, exchange, symbol), bid=bid, ask=ask, flags=flags)


def contract(exchange="x", **values):
    known = {"mark": 100_151.0, "funding_rate": -0.000125, "open_interest": 51234.56789}
    topic = wire.topic(wire.CONTRACT, exchange, PERPETUAL)
    return wire.Contract(topic, **(known | {"next_funding_ns": NOW_NS + 3 * HOUR_NS + 65 * 10**9} | values))


def pairs_of(*records):
    tickers = {each.topic: each for each in records if isinstance(each, wire.Ticker)}
    pairs = Pairs(tickers)
    for each in records:
        pairs.take(each)
    return pairs


BOTH = (ticker(SPOT, 99_999.0, 100_001.0), ticker(PERPETUAL, 100_149.0, 100_151.0))


def lines(pairs, rows_max=20, width=120):
    table = pairs.table(lambda _: 1, rows_max, width, NOW_NS)
    return [" ".join(line.split()) for line in plain(table, width).splitlines()] if table is not None else []


def test_a_perpetual_has_a_row_with_its_spot_pair_below():
    assert lines(pairs_of(*BOTH, contract())) == [
        "exchange symbol bid ask mark basis funding due in OI",
        "x BTC/USDT:USDT 100149.0 100151.0 100151.0 +15.0 bp -0.0125% 3:01:05 51234.6",
        "BTC/USDT 99999.0 100001.0",
    ]


def test_the_same_in_words():
    assert pairs_of(*BOTH, contract()).line(NOW_NS) == (
        "x BTC/USDT:USDT: mark 100151, basis +15.0 bp to BTC/USDT, funding -0.0125% due in 3:01:05,"
        " open interest 51234.6"
    )
    assert pairs_of(*BOTH).line(NOW_NS) == ""
    unknown = contract(funding_rate=wire.NAN, open_interest=wire.NAN, next_funding_ns=0, flags=wire.STALE)
    assert pairs_of(unknown).line(NOW_NS) == "x BTC/USDT:USDT: mark 100151, STALE"


@pytest.mark.parametrize("old", [0, 1])
@pytest.mark.parametrize("flag", [wire.STALE, wire.DOWN])
def test_there_is_no_basis_to_a_price_that_is_not_of_now(old, flag):
    records = list(BOTH)
    records[old] = ticker(records[old].symbol, 1.0, 2.0, flags=flag | wire.SIMULATED)
    assert " - -0.0125% " in lines(pairs_of(*records, contract()))[1]
    assert "basis" not in pairs_of(*records, contract()).line(NOW_NS)


def test_there_is_no_basis_to_a_price_of_nothing():
    for bid, ask in ((0.0, 0.0), (wire.NAN, 1.0)):
        pairs = pairs_of(ticker(SPOT, bid, ask), BOTH[1], contract())
        assert " - -0.0125% " in lines(pairs)[1]


def test_what_is_not_known_is_left_open_and_a_contract_that_is_not_live_says_so():
    one = contract(mark=wire.NAN, funding_rate=wire.NAN, open_interest=wire.NAN, next_funding_ns=0)
    one.flags = wire.STALE | wire.SIMULATED
    assert lines(pairs_of(BOTH[1], one)) == [
        "exchange symbol bid ask mark basis funding due in OI",
        "x BTC/USDT:USDT 100149.0 100151.0 - - - - - STALE",
    ], "and no row for a pair that nobody wants"


def test_a_short_terminal_has_fewer_and_a_narrow_one_fewer_columns():
    pairs = pairs_of(*BOTH, contract(), *(contract(exchange=name) for name in ("v", "w", "y")))
    assert [line.split()[0] for line in lines(pairs)[1:]] == ["v", "w", "x", "BTC/USDT"], "three at most"
    assert [len(lines(pairs, rows_max)) for rows_max in (-3, 2, 3, 5)] == [0, 0, 2, 3]
    heads = [lines(pairs, width=width)[0] for width in (80, 70, 64)]
    assert heads == [
        "exchange symbol bid ask mark basis funding due in",
        "exchange symbol bid ask basis funding due in",
        "symbol bid ask basis funding due in",
    ]
    for width in (40, 64, 70, 80):
        assert max(map(len, plain(pairs.table(lambda _: 1, 9, width, NOW_NS), 200).splitlines())) <= max(
            width, 55
        )


def test_a_countdown_has_hours_minutes_and_seconds_and_ends_at_none():
    assert countdown(NOW_NS + 26 * HOUR_NS - 1, NOW_NS) == "25:59:59"
    assert countdown(NOW_NS - 5, NOW_NS) == "0:00:00"
    assert countdown(0, NOW_NS) == "-"
