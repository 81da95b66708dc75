"""The description of the bytes, against the bytes."""

import struct
import subprocess
import sys

import pytest
from patience import PATIENCE_S

from feedhandler.data import schema, wire

CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q", "f64": "d"}
TWO = {"a": ("", "one"), "b": ("", "two")}


@pytest.mark.parametrize("field", schema.TICKER.all_fields, ids=lambda field: field.name)
def test_a_field_stands_where_and_as_it_is_said_to(field):
    value = {"char": b"ticker.x.A/B", "f64": 2.5}.get(field.type, 1)
    record = wire.Ticker(b"ticker.x.A/B")
    setattr(record, field.name, value)
    code = f"{field.size}s" if field.type == "char" else CODES[field.type]
    (got,) = struct.unpack_from("<" + code, wire.pack_ticker(record), field.offset)
    assert (got.rstrip(b"\0") if field.type == "char" else got) == value
    assert field.meaning


def test_every_kind_and_flag_has_a_meaning():
    assert {kind.value: kind.name.lower() for kind in schema.KINDS} == wire.KIND_NAMES
    assert {flag.value: flag.name for flag in schema.FLAGS} == wire.FLAG_NAMES
    assert all(each.meaning for each in (*schema.KINDS, *schema.FLAGS))


def test_another_struct_is_described_by_its_packing():
    slot = schema.layout("slot", "a slot", struct.Struct("<QI4s"), {**TWO, "c": ("", "three")})
    assert [(f.name, f.type, f.offset, f.size) for f in slot.fields] == [
        ("a", "u64", 0, 8),
        ("b", "u32", 8, 4),
        ("c", "char", 12, 4),
    ]
    assert slot.size == 16
    assert schema.numpy_dtype_fields(slot)["formats"] == ["<u8", "<u4", "S4"]


@pytest.mark.parametrize(
    ("packing", "message"),
    [
        ("<QQQ", "has 3 fields"),
        ("QQ", "little-endian"),
        (">QQ", "little-endian"),
        ("<IQ", r"x.b: a u64 at offset 4 is not aligned"),
        ("<Q8x", "has 'x'"),
        ("<Qf", "has 'f'"),
    ],
)
def test_a_packing_that_other_languages_could_not_follow_is_refused(packing, message):
    with pytest.raises(ValueError, match=message):
        schema.layout("x", "", struct.Struct(packing), TWO)


def test_the_schema_needs_no_numpy():
    code = "import sys; from feedhandler.data.schema import *; numpy_dtype_fields(); print('numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], timeout=PATIENCE_S) == b"False\n"
