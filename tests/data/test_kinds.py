"""The description of the bytes, against the bytes."""

import pickle
import struct
import subprocess
import sys
from typing import Annotated

import msgspec
import pytest
from patience import PATIENCE_S

from feedhandler.data import contract, header, kinds, liquidation, ticker, trade, wire
from feedhandler.data.layout import Body, char, f64, layout, levels, numpy_dtype_fields, u8, u16, u32, u64

CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q", "f64": "d"}
FIXED = [kind for kind in kinds.KINDS if kind.body is Body.FIXED]
FIELDS = [(kind, field) for kind in FIXED for field in kind.layout.all_fields]


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=lambda each: each.name)
def test_a_field_stands_where_and_as_it_is_said_to(kind, field):
    value = {"version": wire.VERSION, "kind": kind.code}.get(field.name)
    if value is None:
        value = {"char": "ticker.x.A/B", "f64": 2.5, "level": bytes(range(64)) * 5}.get(field.type, 1)
    record = kind.record("ticker.x.A/B")
    setattr(record, field.name, value)
    code = CODES.get(field.type, f"{field.size}s")
    packed = wire.pack(record)
    assert len(packed) == kind.size
    (got,) = struct.unpack_from("<" + code, packed, field.offset)
    assert (got.rstrip(b"\0").decode() if field.type == "char" else got) == value
    assert field.meaning


@pytest.mark.parametrize("kind", FIXED, ids=lambda kind: kind.name)
def test_a_record_of_any_kind_is_what_it_was_packed_from(kind):
    record = kind.record("x.y.z", flags=header.DOWN, session=5, sequence=7, exchange_ns=-1, publish_ns=2)
    for number, field in enumerate(kind.layout.fields):  # NaN is not equal to itself
        texts = {"char": "text", "level": b"l" * field.size}
        setattr(record, field.name, texts.get(field.type, number))
    assert wire.unpack(wire.pack(record)) == record


def test_every_kind_and_flag_has_a_name_and_a_meaning_of_its_own():
    for each in (kinds.KINDS, list(header.Flag)):
        assert len({entry.name for entry in each}) == len({entry.meaning for entry in each}) == len(each)
    assert list(header.Flag) == [1 << n for n in range(9)]


def test_kinds_and_flags_print_as_words_and_are_numbers_otherwise():
    record = wire.unpack(wire.pack(wire.Ticker("ticker.x.A/B", flags=wire.STALE | wire.SIMULATED | 1 << 15)))
    assert (f"{record.kind}", str(record.flags)) == ("ticker", "STALE|SIMULATED")
    assert (record.kind, record.flags) == (1, 2 + 8 + 32768) == (kinds.Kind.TICKER, record.flags)
    assert header.Flag.STALE in record.flags
    assert record.flags & header.Flag.STALE
    assert not record.flags & header.Flag.DOWN
    assert msgspec.json.decode(msgspec.json.encode(record))["flags"] == record.flags
    assert pickle.loads(pickle.dumps((record.kind, record.flags))) == (record.kind, record.flags)
    unknown = wire.unpack(wire.pack(wire.Ticker("later.x.A/B"))[:65] + b"\xc8" + bytes(38))
    assert (unknown.kind, str(unknown.flags)) == (200, "")


def test_records_of_every_kind_have_the_same_head():
    for kind in kinds.Kind:
        record = wire.unpack(
            wire.pack(kind.description.record("ticker.x.A.B/C", kind=kind, recv_ns=3, publish_ns=5))
        )
        assert (record.exchange, record.symbol, record.kind, record.latency_ns) == ("x", "A.B/C", kind, 2)
        assert record.is_live


def test_a_trade_has_a_side_that_prints_as_a_word_and_an_id_that_is_text():
    trade = wire.Trade("trade.x.A/B", price=2.5, size=1.0, side=wire.Side.SELL, trade_id="x" * 40)
    record = wire.unpack(wire.pack(trade))
    assert (f"{record.kind}", f"{record.side}", record.trade_id) == ("trade", "sell", "x" * 40)
    assert (record, record.side) == (trade, 2)
    later = wire.unpack(wire.pack(wire.Trade("trade.x.A/B", side=7, trade_id="né")))
    assert (later.side, later.trade_id) == (7, "né"), "a side that is not known here is a number"


def test_a_struct_is_described_by_the_annotations_of_its_fields():
    class Slot(msgspec.Struct):
        a: Annotated[int, u64("", "one")] = 0
        b: Annotated[int, u32("", "two")] = 0
        c: Annotated[bytes, char(4, "three")] = b""

    slot = layout("slot", "a slot", Slot)
    assert [(f.name, f.type, f.offset, f.size) for f in slot.fields] == [
        ("a", "u64", 0, 8),
        ("b", "u32", 8, 4),
        ("c", "char", 12, 4),
    ]
    assert (slot.size, slot.format) == (16, "<QI4s")
    assert numpy_dtype_fields(slot)["formats"] == ["<u8", "<u4", "S4"]


def test_levels_are_an_array_in_the_bytes_and_bytes_in_python():
    class Slot(msgspec.Struct):
        a: Annotated[int, u64("", "one")] = 0
        b: Annotated[bytes, levels(3, "two")] = b""

    slot = layout("slot", "a slot", Slot)
    assert [(f.declared, f.offset, f.size) for f in slot.fields] == [("u64", 0, 8), ("level[3]", 8, 48)]
    assert (slot.size, slot.format) == (56, "<Q48s")
    assert numpy_dtype_fields(slot)["formats"] == ["<u8", ([("price", "<f8"), ("size", "<f8")], (3,))]


def test_levels_that_other_languages_would_pad_are_refused():
    class Slot(msgspec.Struct):
        a: Annotated[int, u32("", "one")] = 0
        b: Annotated[bytes, levels(3, "two")] = b""

    with pytest.raises(ValueError, match=r"slot\.b: a level at offset 4 is not aligned"):
        layout("slot", "a slot", Slot)


def test_a_field_that_other_languages_would_pad_is_refused():
    class Slot(msgspec.Struct):
        a: Annotated[int, u8("", "one")] = 0
        b: Annotated[float, f64("", "two")] = 0.0

    with pytest.raises(ValueError, match=r"slot\.b: a f64 at offset 1 is not aligned"):
        layout("slot", "a slot", Slot)


def test_a_field_without_a_description_is_refused():
    class Slot(msgspec.Struct):
        a: Annotated[int, u16("", "one")] = 0
        b: int = 0

    with pytest.raises(ValueError, match=r"slot\.b: say how it stands in the bytes"):
        layout("slot", "a slot", Slot)


@pytest.mark.e2e
def test_the_description_needs_no_numpy():
    code = (
        "import sys; from feedhandler.data import ticker; from feedhandler.data.layout import numpy_dtype_fields; "
        "numpy_dtype_fields(ticker.TICKER.layout); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)


def test_records_are_as_long_as_documented():
    assert (header.HEADER.size, ticker.TICKER.size, trade.TRADE.size) == (104, 192, 176)
    assert (contract.CONTRACT.size, liquidation.LIQUIDATION.size) == (168, 176)
