"""Lists of rows that an exchange sends: one odd row costs itself, and is told of."""

import json

import msgspec
import pytest
from table import load

from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import read_rows

# A list of each exchange with odd rows among two sound ones: a null, a lacking field, another type, no object.
LISTS = {name: json.loads(load(name, "lists/instruments_odd_rows")) for name in EXCHANGES}
ROWS = {
    "binance": lambda body: body["symbols"],
    "bybit": lambda body: body["result"]["list"],
    "kucoin": lambda body: body["data"],
    "okx": lambda body: body["data"],
}


@pytest.mark.parametrize("name", EXCHANGES)
def test_an_odd_row_of_an_instrument_list_costs_itself_alone_and_is_told_of(name):
    rows = EXCHANGES[name].main().decode_instruments(json.dumps(LISTS[name]).encode())
    assert [i.symbol for i in rows.items if i.is_trading] == ["BTC/USDT", "ETH/USDT"]
    count = len(ROWS[name](LISTS[name]))
    assert f"{count - 2} of {count} rows cannot be read and are left out" in rows.problem
    assert "NEWUSDT" in rows.problem.replace("-", ""), "which one the first of them is"


@pytest.mark.parametrize("name", EXCHANGES)
def test_a_list_of_odd_rows_alone_is_a_changed_protocol(name):
    body = json.loads(json.dumps(LISTS[name]))
    del ROWS[name](body)[0], ROWS[name](body)[-1]
    with pytest.raises(ProtocolError, match=r"none of [0-9] rows can be read"):
        EXCHANGES[name].main().decode_instruments(json.dumps(body).encode())


def test_an_empty_number_in_a_row_is_unknown_and_the_row_is_read():
    rows = [
        {"symbol": "BTCUSDT", "lastPrice": "97421.5", "openPrice": "", "highPrice": None, "lowPrice": "1"},
        {"symbol": "ETHUSDT", "lastPrice": "x"},
    ]
    found = EXCHANGES["binance"].main().decode_survey(json.dumps(rows).encode())
    assert [(row.native, row.last, row.statistics) for row in found.items] == [("BTCUSDT", 97421.5, None)]
    assert "1 of 2 rows cannot be read" in found.problem


def test_a_row_is_refused_by_its_reader_or_by_its_type_and_quoted_in_bounds():
    def read(row):
        if len(bytes(row)) > 100:
            raise DecodeError("too long")
        return msgspec.json.decode(row, type=int)

    raw = [msgspec.Raw(text) for text in (b"1", b'"x"', b"2", b"9" * 5000)]
    rows = read_rows(read, raw, "some list")
    assert rows.items == [1, 2]
    assert rows.problem.startswith("some list: 2 of 4 rows")
    assert len(rows.problem) < 400
    assert read_rows(read, [], "some list").items == []
    assert read_rows(read, raw[:1], "some list").problem == ""


@pytest.mark.parametrize("name", EXCHANGES)
def test_the_tick_of_prices_is_what_the_exchange_states_and_unknown_if_it_states_none(name):
    rows = EXCHANGES[name].main().decode_instruments(load(name, "lists/instruments_ticks"))
    ticks = {instrument.base: instrument.tick for instrument in rows.items}
    assert ticks == {"BTC": "0.01", "SHIB": "0.00000001", "BIG": "10", "NONE": "", "ODD": ""}
    assert not rows.problem, "a tick that cannot be read costs no instrument"
