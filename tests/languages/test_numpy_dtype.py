"""The dtype that stands alone, over the golden vectors."""

import importlib.util
import json

import pytest
from toolchains import LANGUAGES, ROOT

from feedhandler.data import schema

numpy = pytest.importorskip("numpy")
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture(scope="module")
def dtype():
    spec = importlib.util.spec_from_file_location("dtype", LANGUAGES / "numpy" / "feedhandler_dtype.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same(row, record):
    for name, value in record.items():
        got = row[name].decode() if name == "topic" else row[name].item()
        assert got != got if value is None else got == value, name


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("ticker_*.bin")), ids=lambda path: path.stem)
def test_golden_tickers_stand_for_their_values(path, dtype):
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    (row,) = dtype.records(path.read_bytes())
    same(row, record)
    assert dtype.is_live(row) == (not record["flags"] & 6)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("batches/*.bin")), ids=lambda path: path.stem)
def test_a_batch_is_an_array_on_the_same_bytes(path, dtype):
    message = bytearray(path.read_bytes())
    found = dtype.records(message)
    for row, record in zip(found, json.loads(path.with_suffix(".json").read_text()), strict=True):
        same(row, record)
    message[42] |= 4
    assert not dtype.is_live(found)[0]


@pytest.mark.parametrize(
    "path",
    [*sorted(GOLDEN.glob("refused/*.bin")), *sorted(GOLDEN.glob("status*.bin")), GOLDEN / "heartbeat.bin"],
    ids=lambda path: path.stem,
)
def test_what_is_no_ticker_record_is_refused(path, dtype):
    with pytest.raises(ValueError, match=r"whole number|wire version|not a ticker|no NUL"):
        dtype.records(path.read_bytes())


@pytest.mark.parametrize("layout", [schema.HEADER, schema.TICKER], ids=lambda layout: layout.name)
def test_the_literal_dtype_is_that_of_the_schema(layout, dtype):
    assert getattr(dtype, layout.name.upper()) == numpy.dtype(schema.numpy_dtype_fields(layout))
