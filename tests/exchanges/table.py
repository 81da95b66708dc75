"""Runs one exchange's table of frames: frame name, then what it must decode to."""

import math
from pathlib import Path

import msgspec
import pytest

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import Control, Market
from feedhandler.exchanges.state import TickerState

FRAMES = Path(__file__).parent.parent / "frames"
RECV_NS = 1_790_000_000_300_000_000
NAN = math.nan


def load(exchange: str, name: str) -> bytes:
    return (FRAMES / exchange / f"{name}.json").read_bytes()


def every_frame(exchange: str) -> set[str]:
    return {path.stem for path in (FRAMES / exchange).glob("*.json")}


def every_answer(exchange: str) -> set[str]:
    """The names of the REST answers on disk."""
    return {f"rest/{path.stem}" for path in (FRAMES / exchange / "rest").glob("*.json")}


def make(exchange: str, *natives: str) -> Market:
    """An exchange that wants these symbols, all values unknown."""
    instance = EXCHANGES[exchange].main()
    instance.line = Line(0)  # whose frames the tests decode
    instance.add(natives, wire.SIMULATED)
    return instance


def decoded(market: Market, payload: bytes, recv_ns: int, line: Line) -> TickerState | Control | None:
    """What one message became: the one state that was emitted, or what was returned."""
    emitted: list[TickerState] = []
    answer = market.decode(payload, recv_ns, line, emitted.append)
    if not emitted:
        return answer
    (state,) = emitted
    assert answer is None
    assert state.recv_ns == recv_ns
    return state


def values(state: TickerState) -> dict[str, float]:
    """What is known: the wire's numbers that are not NaN, with id and time where stated."""
    known = {name: getattr(state, name) for name in wire.TICKER_VALUES}
    known = {name: value for name, value in known.items() if not math.isnan(value)}
    for name in ("exchange_ns", "exchange_sequence"):
        if getattr(state, name):
            known[name] = getattr(state, name)
    return known


def without(known: dict[str, float], *names: str) -> dict[str, float]:
    """What is known, less some of it."""
    return {name: value for name, value in known.items() if name not in names}


def check_row(exchange: str, natives: tuple[str, ...], name: str, expected: object) -> None:
    """One row of a table: expected is what is known then, a control word, None, or DecodeError."""
    instance, emitted = make(exchange, *natives), []
    if expected is DecodeError:
        with pytest.raises(DecodeError):
            instance.decode(load(exchange, name), RECV_NS, instance.line, emitted.append)
        assert not any(map(values, instance.tickers.values())), "a bad frame leaves no trace"
        assert not emitted
        return
    result = decoded(instance, memoryview(load(exchange, name)), RECV_NS, instance.line)
    assert (values(result) if isinstance(result, TickerState) else result) == expected


def check_answer(exchange: str, name: str, expected: object, message: str = "") -> None:
    """One row of a table of REST answers: expected is a time in Unix ns, the numbers of a quote, or an error.

    The file's name says which request it answers.
    """
    instance = EXCHANGES[exchange].main()
    decode = instance.decode_time if name.startswith("rest/time") else instance.decode_quote
    if isinstance(expected, type):
        with pytest.raises(expected, match=message) as raised:
            decode(load(exchange, name))
        assert raised.type is expected
        return
    result = decode(load(exchange, name))
    assert repr(result if isinstance(result, int) else msgspec.structs.astuple(result)) == repr(expected)
