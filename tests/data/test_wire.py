"""The bytes: layout against numbers written down here, golden files, and round trips."""

import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE_S

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError

GOLDEN = Path(__file__).parents[1] / "golden"

# Offsets as documented, not as computed from the code.
OFFSETS = {
    "topic": (0, "64s"),
    "version": (64, "B"),
    "kind": (65, "B"),
    "flags": (66, "H"),
    "session": (68, "I"),
    "sequence": (72, "Q"),
    "exchange_ns": (80, "q"),
    "recv_ns": (88, "q"),
    "publish_ns": (96, "q"),
    "exchange_sequence": (104, "Q"),
    "last": (112, "d"),
    "bid": (120, "d"),
    "bid_size": (128, "d"),
    "ask": (136, "d"),
    "ask_size": (144, "d"),
    "open_24h": (152, "d"),
    "high_24h": (160, "d"),
    "low_24h": (168, "d"),
    "base_volume_24h": (176, "d"),
    "quote_volume_24h": (184, "d"),
}

u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(0, 2**63 - 1)
topics = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=13
).map(lambda text: text.encode()[:63].decode(errors="ignore") or "t")
tickers = st.builds(
    wire.Ticker,
    topics,
    st.just(2),
    st.just(1),
    st.integers(0, 511),
    st.integers(0, 2**32 - 1),
    u64,
    i64,
    i64,
    i64,
    u64,
    *[st.floats()] * 10,
)


def fields(record):
    """A record's fields with NaN made comparable."""
    return {
        name: "NaN" if isinstance(value, float) and math.isnan(value) else value
        for name in record.__struct_fields__
        for value in [getattr(record, name)]
    }


@pytest.mark.parametrize("name", OFFSETS)
def test_each_field_stands_at_its_documented_offset(name):
    offset, code = OFFSETS[name]
    value = {"64s": b"ticker.x.A/B".ljust(64, b"\0"), "B": 1, "d": 2.5}.get(code, 3)
    record = wire.Ticker("ticker.x.A/B")
    if name != "topic":
        setattr(record, name, value)
    assert struct.unpack_from("<" + code, wire.pack_ticker(record), offset) == (value,)


def test_a_ticker_message_has_192_bytes_and_a_header_104():
    assert len(wire.pack_ticker(wire.Ticker("t"))) == 192
    assert len(wire.pack_document(wire.Document("status.x", kind=wire.STATUS))) == 104


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.bin")), ids=lambda path: path.stem)
def test_golden_bytes_stand_for_their_values_both_ways(path):
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    message = path.read_bytes()
    record = wire.unpack(message)
    for name, value in expected.items():
        if name == "hex":
            assert isinstance(record, wire.Unknown)
            got = record.body.hex()
        else:
            got = record.decode() if name == "body" else getattr(record, name)
        if name in ("bids", "asks"):
            got = [list(level) for level in got]
        assert math.isnan(got) if value is None else got == value, name
    assert wire.pack(record) == message


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("batches/*.bin")), ids=lambda path: path.stem)
def test_golden_batches_are_their_records(path):
    message, expected = path.read_bytes(), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    parts = list(wire.split(message))
    assert b"".join(parts) == message
    for part, values in zip(parts, expected, strict=True):
        record = wire.unpack(part)
        got = fields(record) | {"topic": record.topic}
        if isinstance(record, wire.Document):
            got["body"] = record.decode()
        if isinstance(record, wire.Unknown):
            got["hex"] = got.pop("body").hex()
        if isinstance(record, wire.BookRecord):
            del got["levels"]
            got["bids"], got["asks"] = (
                [list(level) for level in side] for side in (record.bids, record.asks)
            )
        if isinstance(record, wire.Depth):
            del got["bid_levels"], got["ask_levels"], got["reserved"]
            got["bids"], got["asks"] = (
                [list(level) for level in side] for side in (record.bids, record.asks)
            )
        assert got == {name: "NaN" if value is None else value for name, value in values.items()}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("refused/*.bin")), ids=lambda path: path.stem)
def test_golden_messages_that_are_no_records_are_refused(path):
    words = {
        "short": "shorter than the 104-byte header",
        "version": "wire version",
        "length": r"record of \d+ bytes, expected \d+",
        "topic": "topic has more than 63 bytes",
    }
    error = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["error"]
    with pytest.raises(DecodeError, match=words[error]):
        wire.unpack(path.read_bytes())


@pytest.mark.e2e
def test_the_golden_files_are_what_their_maker_makes(tmp_path):
    subprocess.run([sys.executable, GOLDEN / "make.py", tmp_path], check=True, timeout=PATIENCE_S)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kept = {
        path.relative_to(GOLDEN): path.read_bytes()
        for path in GOLDEN.rglob("*")
        if path.suffix in (".bin", ".json")
    }
    assert made == kept


@given(tickers)
def test_unpacking_a_packed_ticker_gives_it_back(ticker):
    assert fields(wire.unpack(wire.pack_ticker(ticker))) == fields(ticker)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_record_or_a_decode_error(message):
    try:
        record = wire.unpack(message)
    except DecodeError:
        return
    assert isinstance(record, wire.Record)


def test_any_mutation_of_a_record_is_a_record_or_a_decode_error():
    message = wire.pack_ticker(wire.Ticker("ticker.binance.BTC/USDT"))
    for position in range(len(message)):
        changed = bytearray(message)
        changed[position] ^= 0xFF
        try:
            wire.unpack(bytes(changed))
        except DecodeError as exc:
            assert position in (63, 64, 65), exc


def test_the_widest_topic_keeps_one_nul():
    assert len(wire.topic(wire.TICKER, "binance", "X" * 48)) == 63
    with pytest.raises(ValueError, match="64 bytes, 63 fit"):
        wire.topic(wire.TICKER, "binance", "X" * 49)


def test_topics_name_kind_exchange_and_symbol():
    record = wire.Ticker(wire.topic(wire.TICKER, "binance", "A.B/USDT"))
    assert (record.topic, record.exchange, record.symbol) == (
        "ticker.binance.A.B/USDT",
        "binance",
        "A.B/USDT",
    )
    assert wire.Document(wire.topic(wire.HEARTBEAT, "merger")).symbol == ""


def test_an_exact_subscription_matches_one_topic_only():
    exact = wire.topic(wire.TICKER, "x", "BTC/USDT").encode() + b"\0"
    assert wire.pack_ticker(wire.Ticker("ticker.x.BTC/USDT")).startswith(exact)
    assert not wire.pack_ticker(wire.Ticker("ticker.x.BTC/USDTX")).startswith(exact)


def test_a_message_of_version_1_is_refused_as_such_whatever_its_times_are():
    """Where version 2 has its version and kind, version 1 had the time of receipt."""
    old = bytearray((GOLDEN / "refused" / "version_1.bin").read_bytes())
    for recv_low in range(256):
        old[wire.VERSION_OFFSET : wire.KIND_OFFSET + 1] = recv_low, wire.TICKER
        for message in (old, old[:80]):
            with pytest.raises(
                DecodeError, match="wire version 1, this is a reader of version 2: run the same"
            ):
                wire.unpack(bytes(message))
                pytest.fail(f"taken with {recv_low}, {len(message)} bytes")


def test_the_end_of_a_message_that_is_no_whole_record_is_a_part_of_its_own():
    whole = wire.pack_ticker(wire.Ticker("ticker.x.A/B"))
    assert [len(part) for part in wire.split(whole + whole + whole[:150])] == [192, 192, 150]
    assert [len(part) for part in wire.split(whole[:191])] == [191]
    assert list(wire.split(b"")) == []


def test_flag_names_follow_the_bits():
    assert wire.Ticker("t", flags=1 | 8).flag_names == ["SNAPSHOT", "SIMULATED"]


@pytest.mark.parametrize(
    ("flags", "true"),
    [
        (0, {"is_live"}),
        (wire.SNAPSHOT, {"is_live", "is_snapshot"}),
        (wire.STALE, {"is_stale"}),
        (wire.DOWN | wire.SIMULATED, {"is_down", "is_simulated"}),
        (wire.BAD_EXCHANGE_TIME | wire.LAST | wire.RECOVERED | wire.REPLAY, {"is_live", "is_replay"}),
        (wire.INVALID, set()),
    ],
)
def test_flags_are_claims(flags, true):
    record = wire.Ticker("ticker.x.A/B", flags=flags, recv_ns=5, publish_ns=12)
    names = ("is_live", "is_snapshot", "is_stale", "is_down", "is_simulated", "is_replay")
    assert {name for name in names if getattr(record, name)} == true
    assert record.latency_ns == 7
