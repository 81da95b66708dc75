"""Runs one market's table of frames: frame name, then what it must decode to.

A market is named as its folder of frames: `bybit` for the main one of that exchange, `bybit_linear` for another.
"""

import math
from pathlib import Path

import msgspec
import pytest

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import Control, Market
from feedhandler.exchanges.contract_state import ContractState
from feedhandler.exchanges.depth_state import DepthState
from feedhandler.exchanges.state import State
from feedhandler.exchanges.trades import TradeState

FRAMES = Path(__file__).parent.parent / "frames"
RECV_NS = 1_790_000_000_300_000_000
NAN = math.nan
TRADE_FIELDS = (
    "trade_id",
    "price",
    "size",
    "side",
    "exchange_ns",
    "exchange_sequence",
    "bits",
    "index",
)


def trade(trade_id, price, size, side, exchange_ns, sequence=0, *, bits=0, index=0, is_last=True):
    """A trade as a row of a table has it."""
    row = (trade_id, price, size, wire.Side[side.upper()], exchange_ns, sequence, bits, index)
    return dict(zip(TRADE_FIELDS, row, strict=True)) | {"is_last": is_last}


CONTRACT_VALUES = [
    name for name in wire.Contract.__struct_fields__ if name not in wire.Ticker.__struct_fields__
]
MARKETS = {
    exchange.name if market is exchange.main else f"{exchange.name}_{market.name}": market
    for exchange in EXCHANGES.values()
    for market in exchange.markets
}


def load(exchange: str, name: str) -> bytes:
    return (FRAMES / exchange / f"{name}.json").read_bytes()


def every_frame(exchange: str) -> set[str]:
    return {path.stem for path in (FRAMES / exchange).glob("*.json")}


def every_answer(exchange: str) -> set[str]:
    """The names of the REST answers on disk."""
    return {f"rest/{path.stem}" for path in (FRAMES / exchange / "rest").glob("*.json")}


def make(exchange: str, *natives: str) -> Market:
    """A market that has read its list, and wants these symbols in tickers and depth, all values unknown."""
    instance = MARKETS[exchange]()
    if (FRAMES / exchange / "lists/instruments_ticks.json").exists():
        listed = instance.decode_instruments(load(exchange, "lists/instruments_ticks")).items
        instance.learn(map(instance.prefixed, listed))
    instance.line = Line(0)  # whose frames the tests decode
    for kind in ("ticker", "depth"):
        instance.add(natives, wire.SIMULATED, kind)
    return instance


def decoded(market: Market, payload: bytes, recv_ns: int, line: Line) -> State | Control | None:
    """What one message became: the one state that was emitted, or what was returned."""
    emitted: list[State] = []
    answer = market.decode(payload, recv_ns, line, emitted.append)
    if not emitted:
        return answer
    (state,) = emitted
    assert answer is None
    assert state.recv_ns == recv_ns
    return state


def trades(
    market: Market, payload: bytes, recv_ns: int, line: Line
) -> tuple[list[dict], type[Exception] | None]:
    """What the trades of one message became, without what is as usual, and whether an error was raised."""
    found: list[dict] = []

    def emit(state: TradeState) -> None:
        trade = wire.unpack(state.record())
        if isinstance(trade, wire.Ticker):
            return  # a channel of trades may be that of the last price as well
        assert isinstance(trade, wire.Trade | wire.Liquidation)
        assert (trade.recv_ns, trade.topic) == (recv_ns, state.topic)
        assert trade.flags & wire.SIMULATED
        row = {name: getattr(trade, name) for name in TRADE_FIELDS}
        row |= {"count": trade.count} if trade.count != 1 else {}
        found.append(row | {"is_last": bool(trade.flags & wire.LAST)})

    try:
        assert market.decode(payload, recv_ns, line, emit) is None
    except DecodeError as exc:
        return found, type(exc)
    return found, None


def check_trades(
    exchange: str,
    natives: tuple[str, ...],
    name: str,
    expected: list[dict],
    error=None,
    *,
    before=b"",
    kind="trade",
) -> None:
    """One row of a table of trades: what each is, in order, and whether an error is raised after them.

    before is a message that came first, of which nothing is published.
    A second connection brings nothing new with the same message, nor does the first, nor another after both.
    """
    market = MARKETS[exchange]()
    market.add(natives, wire.SIMULATED, kind)
    payload = memoryview(load(exchange, name))
    one, two = Line(0), Line(1)
    if before:
        assert trades(market, before, RECV_NS, one) == ([], None)
    assert trades(market, payload, RECV_NS, one) == (expected, error)
    for state in market.states[kind].values():
        state.forget()
    for line in (two, one, Line(2)):
        assert trades(market, payload, RECV_NS + 1, line) == ([], error)
        assert line.duplicate == len(expected)
    other = MARKETS[exchange]()
    other.add(natives, wire.SIMULATED)
    assert trades(other, payload, RECV_NS, Line(0)) == ([], error), "nobody wants them"


def values(state: State) -> dict[str, object]:
    """What is known: the wire's numbers that are not NaN, or levels, with id and time where stated."""
    known: dict[str, object] = {}
    if isinstance(state, DepthState):
        known = {side: levels for side in ("bids", "asks") if (levels := getattr(state, side))}
        if state.flags & wire.INVALID:
            known["is_invalid"] = True
    elif isinstance(state, ContractState):
        known = {
            name: value for name in CONTRACT_VALUES if (value := getattr(state, name)) and value == value
        }
    else:
        numbers = {name: getattr(state, name) for name in wire.TICKER_VALUES}
        known |= {name: value for name, value in numbers.items() if not math.isnan(value)}
    for name in ("exchange_ns", "exchange_sequence"):
        if getattr(state, name):
            known[name] = getattr(state, name)
    return known


def contract_of(market: Market, payload: bytes) -> dict[str, object]:
    """What a message made of the one contract that is wanted, as its record has it."""
    state = decoded(market, payload, RECV_NS, Line(0))
    assert isinstance(state, ContractState)
    record = wire.unpack(state.record())
    known = values(state)
    assert all(getattr(record, name) == value for name, value in known.items())
    return known


def without(known: dict[str, object], *names: str) -> dict[str, object]:
    """What is known, less some of it."""
    return {name: value for name, value in known.items() if name not in names}


def check_row(exchange: str, natives: tuple[str, ...], name: str, expected: object) -> None:
    """One row of a table: expected is what is known then, a control word, None, or DecodeError."""
    instance, emitted = make(exchange, *natives), []
    if expected is DecodeError:
        with pytest.raises(DecodeError):
            instance.decode(load(exchange, name), RECV_NS, instance.line, emitted.append)
        assert not any(map(values, instance.all_states)), "a bad frame leaves no trace"
        assert not emitted
        return
    result = decoded(instance, memoryview(load(exchange, name)), RECV_NS, instance.line)
    assert (values(result) if isinstance(result, State) else result) == expected


def check_answer(exchange: str, name: str, expected: object, message: str = "") -> None:
    """One row of a table of REST answers: expected is a time in Unix ns, the numbers of a quote, or an error.

    The file's name says which request it answers.
    """
    instance = MARKETS[exchange]()
    decode = instance.decode_time if name.startswith("rest/time") else instance.decode_quote
    if isinstance(expected, type):
        with pytest.raises(expected, match=message) as raised:
            decode(load(exchange, name))
        assert raised.type is expected
        return
    result = decode(load(exchange, name))
    assert repr(result if isinstance(result, int) else msgspec.structs.astuple(result)) == repr(expected)
