"""The dtype that stands alone, over the golden vectors."""

import importlib.util
import json

import pytest
from toolchains import LANGUAGES, ROOT

from feedhandler.data import wire
from feedhandler.data.kinds import KINDS
from feedhandler.data.layout import numpy_dtype_fields

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
        got = row[name].decode() if name in ("topic", "trade_id") else row[name].item()
        assert got != got if value is None else got == value, name


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("ticker_*.bin")), ids=lambda path: path.stem)
def test_golden_tickers_stand_for_their_values(path, dtype):
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    (row,) = dtype.records(path.read_bytes())
    same(row, record)
    assert dtype.is_live(row) == (not record["flags"] & wire.NOT_LIVE)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("trade_*.bin")), ids=lambda path: path.stem)
def test_golden_trades_stand_for_their_values(path, dtype):
    (row,) = dtype.records(path.read_bytes(), dtype.KIND_TRADE)
    same(row, json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("kind", ["contract", "liquidation"])
def test_golden_records_of_derivatives_stand_for_their_values(kind, dtype):
    paths = sorted(GOLDEN.glob(f"{kind}_*.bin"))
    assert paths
    for path in paths:
        (row,) = dtype.records(path.read_bytes(), getattr(dtype, f"KIND_{kind.upper()}"))
        same(row, json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("depth_*.bin")), ids=lambda path: path.stem)
def test_golden_depth_stands_for_its_levels(path, dtype):
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    (row,) = dtype.records(path.read_bytes(), dtype.KIND_DEPTH)
    for side in ("bids", "asks"):
        levels = row[f"{side[:-1]}_levels"]
        assert levels["price"].tolist()[: len(record[side])] == [price for price, _ in record[side]]
        assert levels["size"].tolist()[: len(record[side])] == [size for _, size in record[side]]
        assert numpy.isnan(levels["price"][len(record[side]) :]).all()
    same(row, {name: value for name, value in record.items() if name not in ("bids", "asks")})


@pytest.mark.parametrize("path", [GOLDEN / "batches" / "two.bin", GOLDEN / "batches" / "mixed.bin"], ids=str)
def test_a_batch_is_an_array_on_the_same_bytes(path, dtype):
    message = bytearray(path.read_bytes())
    found = dtype.records(message)
    for row, record in zip(found, json.loads(path.with_suffix(".json").read_text()), strict=True):
        same(row, record)
    message[wire.FLAGS_OFFSET] |= wire.DOWN
    assert not dtype.is_live(found)[0]


@pytest.mark.parametrize(
    "path",
    [
        *sorted(GOLDEN.glob("refused/*.bin")),
        *sorted(GOLDEN.glob("status*.bin")),
        *sorted(GOLDEN.glob("unknown*.bin")),
        GOLDEN / "heartbeat.bin",
        GOLDEN / "batches" / "of_two_kinds.bin",
    ],
    ids=lambda path: path.stem,
)
def test_what_is_no_ticker_record_is_refused(path, dtype):
    with pytest.raises(ValueError, match=r"whole number|wire version|not all records|no NUL"):
        dtype.records(path.read_bytes())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.size], ids=lambda kind: kind.name)
def test_the_literal_dtype_is_that_of_the_description(kind, dtype):
    expected = numpy.dtype(numpy_dtype_fields(kind.layout))
    assert getattr(dtype, kind.name.upper()) == expected
    assert dtype.DTYPE_OF.get(kind.code) == (expected if kind.layout.entries is None else None)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("book_*.bin")), ids=lambda path: path.stem)
def test_golden_records_of_books_stand_for_their_levels(path, dtype):
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    message = bytearray(path.read_bytes())
    for side, expected in zip(dtype.levels(message), (record["bids"], record["asks"]), strict=True):
        assert [list(level) for level in side.tolist()] == expected
    (row,) = numpy.frombuffer(message, dtype.BOOK, 1)
    same(row, {name: value for name, value in record.items() if name not in ("bids", "asks")})


@pytest.mark.parametrize(
    "path",
    [*sorted(GOLDEN.glob("refused/*.bin")), GOLDEN / "ticker_complete.bin"],
    ids=lambda path: path.stem,
)
def test_what_is_no_record_of_a_book_has_no_levels(path, dtype):
    with pytest.raises(ValueError, match=r"no record of|which has"):
        dtype.levels(path.read_bytes())


def test_records_of_another_kind_are_had_by_asking_for_it(dtype):
    (row,) = dtype.records((GOLDEN / "condition_down.bin").read_bytes(), dtype.KIND_CONDITION)
    assert (row["topic"], row["flags"], row["sequence"]) == (b"trade.binance.BTC/USDT", wire.DOWN, 4711)
