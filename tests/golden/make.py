"""Makes the golden vectors from docs/wire.md alone: knows offsets as numbers, and nothing of this project's code.

    python tests/golden/make.py [FOLDER]

NAME.bin is a message, NAME.json what it stands for (NaN is null). batches/: several records in a message, a list.
refused/: messages that are no record of version 2, with the word for what is wrong. follow.json: what a subscriber
makes of sessions and sequences.
"""

import json
import struct
import sys
from pathlib import Path

NAN = float("nan")
VALUES = [
    "last",
    "bid",
    "bid_size",
    "ask",
    "ask_size",
    "open_24h",
    "high_24h",
    "low_24h",
    "base_volume_24h",
    "quote_volume_24h",
]
U64_MAX, I64_MAX = 2**64 - 1, 2**63 - 1
BASE_NS = 1_790_000_000_000_000_000


def header(topic, kind, flags, session, sequence, exchange_ns, recv_ns, publish_ns):
    out = bytearray(104)
    encoded = topic.encode()
    assert len(encoded) < 64
    out[0 : len(encoded)] = encoded
    out[64] = 2
    out[65] = kind
    out[66:68] = flags.to_bytes(2, "little")
    out[68:72] = session.to_bytes(4, "little")
    out[72:80] = sequence.to_bytes(8, "little")
    out[80:88] = exchange_ns.to_bytes(8, "little", signed=True)
    out[88:96] = recv_ns.to_bytes(8, "little", signed=True)
    out[96:104] = publish_ns.to_bytes(8, "little", signed=True)
    record = {
        "topic": topic,
        "version": 2,
        "kind": kind,
        "flags": flags,
        "session": session,
        "sequence": sequence,
        "exchange_ns": exchange_ns,
        "recv_ns": recv_ns,
        "publish_ns": publish_ns,
    }
    return bytes(out), record


def ticker(topic, flags, session, sequence, times, exchange_sequence, values):
    head, record = header(topic, 1, flags, session, sequence, *times)
    body = exchange_sequence.to_bytes(8, "little")
    for value in values:
        body += struct.pack("<d", value)
    assert len(values) == 10
    record["exchange_sequence"] = exchange_sequence
    record |= {name: None if value != value else value for name, value in zip(VALUES, values, strict=True)}
    return head + body, record


def trade(topic, flags, sequence, exchange_sequence, price, size, count, side, bits, index, trade_id, kind=6):
    head, record = header(
        topic, kind, flags, 1_790_000_000, sequence, BASE_NS, BASE_NS + 1_000_111, BASE_NS + 1_100_222
    )
    body = (
        exchange_sequence.to_bytes(8, "little")
        + struct.pack("<dd", price, size)
        + count.to_bytes(4, "little")
    )
    body += bytes([side, bits]) + index.to_bytes(2, "little") + trade_id.encode().ljust(40, b"\0")
    assert len(body) == 72
    record |= {
        "exchange_sequence": exchange_sequence,
        "price": None if price != price else price,
        "size": None if size != size else size,
        "count": count,
        "side": side,
        "bits": bits,
        "index": index,
        "trade_id": trade_id,
    }
    return head + body, record


def liquidation(*values):
    """A trade in all but its kind."""
    return trade(*values, kind=10)


def contract(topic, flags, sequence, exchange_sequence, prices, next_funding_ns, interval_h, predicted):
    """Prices are mark, index, funding rate and open interest."""
    times = (BASE_NS, BASE_NS + 1_000_111, BASE_NS + 1_100_222)
    head, record = header(topic, 9, flags, 1_790_000_000, sequence, *times)
    body = exchange_sequence.to_bytes(8, "little") + struct.pack("<dddd", *prices)
    body += next_funding_ns.to_bytes(8, "little", signed=True) + struct.pack("<dd", interval_h, predicted)
    assert len(body) == 64
    names = ("mark", "index", "funding_rate", "open_interest", "funding_interval_h", "predicted_funding_rate")
    numbers = [None if value != value else value for value in (*prices, interval_h, predicted)]
    record |= {"exchange_sequence": exchange_sequence, "next_funding_ns": next_funding_ns}
    return head + body, record | dict(zip(names, numbers, strict=True))


def depth(topic, flags, sequence, times, exchange_sequence, bids, asks):
    """Of each side up to 20 pairs of price and size; the rest is NaN."""
    head, record = header(topic, 7, flags, 1_790_000_000, sequence, *times)
    body = exchange_sequence.to_bytes(8, "little")
    body += len(bids).to_bytes(2, "little") + len(asks).to_bytes(2, "little") + bytes(4)
    for side in (bids, asks):
        for price, size in [*side, *[(NAN, NAN)] * (20 - len(side))]:
            body += struct.pack("<dd", price, size)
    assert len(body) == 656
    record["exchange_sequence"] = exchange_sequence
    record |= {"bid_count": len(bids), "ask_count": len(asks), "bids": bids, "asks": asks}
    return head + body, record


def book(topic, flags, sequence, ids, bids, asks, part=0, parts=1):
    """Levels are pairs of price and size, as they stand in the record."""
    head, record = header(topic, 8, flags, 1_790_000_000, sequence, BASE_NS, BASE_NS + 7, BASE_NS + 60_007)
    body = b"".join(number.to_bytes(8, "little") for number in ids)
    body += b"".join(number.to_bytes(2, "little") for number in (len(bids), len(asks), part, parts))
    for price, size in [*bids, *asks]:
        body += struct.pack("<dd", price, size)
    assert len(body) == 24 + 16 * (len(bids) + len(asks)) <= 24 + 16 * 256
    record |= {"first_id": ids[0], "last_id": ids[1], "bid_count": len(bids), "ask_count": len(asks)}
    record |= {"part": part, "parts": parts, "bids": bids, "asks": asks}
    return head + body, record


def document(topic, kind, flags, sequence, ns, body):
    head, record = header(topic, kind, flags, 1_790_000_000, sequence, 0, ns, ns)
    record["body"] = body
    return head + json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(), record


def unknown(kind, topic="later.binance.BTC/USDT", body=b"\0\x01\xfe\xff of a later release"):
    head, record = header(topic, kind, 0, 1_790_000_000, 3, BASE_NS, BASE_NS, BASE_NS)
    record["hex"] = body.hex()
    return head + body, record


def condition(topic, flags, sequence):
    return header(topic, 11, flags, 1_790_000_000, sequence, 0, BASE_NS, BASE_NS + 50_000)


def quote(sequence, flags=8, symbol="BTC/USDT", bid=97421.49):
    times = (BASE_NS, BASE_NS + 1_000_111, BASE_NS + 1_100_222)
    values = [97421.5, bid, 0.125, 97421.5, 3.75, 96000.0, 98000.25, 95500.125, 18234.5, 1770000000.0625]
    return ticker(f"ticker.binance.{symbol}", flags, 1_790_000_000, sequence, times, 79231000001, values)


SINGLES = {
    "ticker_complete": ticker(
        "ticker.binance.BTC/USDT",
        8,
        1_790_000_000,
        42,
        (BASE_NS + 123_456_789_000, BASE_NS + 123_457_000_111, BASE_NS + 123_457_100_222),
        79231000001,
        [97421.5, 97421.49, 0.125, 97421.5, 3.75, 96000.0, 98000.25, 95500.125, 18234.5, 1770000000.0625],
    ),
    "ticker_unknown": ticker(
        "ticker.kucoin.NEW/USDT",
        0,
        1_790_000_000,
        1,
        (0, BASE_NS + 200_000_000_001, BASE_NS + 200_000_050_002),
        0,
        [NAN] * 10,
    ),
    "ticker_widest": ticker(
        "ticker.binance.汉字币长名称A/USDT",
        511,
        2**32 - 1,
        U64_MAX,
        (I64_MAX,) * 3,
        U64_MAX,
        [1.7976931348623157e308, 5e-324, 0.0, NAN, 0.0, 1e-08, 123456789.12345679, 1e-300, 0.1, 0.2],
    ),
    "ticker_before_1970": ticker(
        "ticker.x.A.B/C", 0, 0, 0, (-1, -(2**63), -BASE_NS), 1, [0.0, 1e15, 2.0**53 + 2, 1 / 3, *[0.5] * 6]
    ),
    "ticker_longest_topic": quote(2**53 + 1, symbol="X" * 43 + "/USDT"),
    "ticker_empty_side": quote(44, bid=NAN),
    **{
        f"ticker_flag_{name}": quote(n, flag)
        for n, (name, flag) in enumerate(
            {
                "snapshot": 1,
                "stale": 2,
                "down": 4,
                "simulated": 8,
                "bad_exchange_time": 16,
                "last": 32,
                "recovered": 64,
                "invalid": 128,
                "replay": 256,
                "unassigned": 32768,
            }.items(),
            60,
        )
    },
    "status": document(
        "status.bybit",
        2,
        8,
        7,
        BASE_NS + 300_000_000_000,
        {"exchange": "bybit", "state": "live", "since_ns": BASE_NS + 1_000_000_000, "topics": 5},
    ),
    "instruments": document(
        "instruments.kucoin",
        3,
        0,
        1,
        BASE_NS + 2_000_000_000,
        {
            "exchange": "kucoin",
            "as_of_ns": BASE_NS + 1_500_000_000,
            "instruments": [
                {
                    "symbol": "NEU/USDT",
                    "native": "ALT-USDT",
                    "base": "NEU",
                    "quote": "USDT",
                    "trading": True,
                    "status": "open",
                }
            ],
        },
    ),
    "heartbeat": document(
        "heartbeat.merger", 4, 0, 300, BASE_NS + 300_000_000_000, {"pid": 4711, "records": 123456}
    ),
    "notice": document(
        "@interval=100", 5, 0, 2, BASE_NS, {"mode": "interval", "interval_ms": 100, "skipped": 12}
    ),
    # 192 and 384 bytes, as ticker records have: the kind decides, not the length.
    "status_as_long_as_a_ticker": document(
        "status.kucoin", 2, 6, 8, BASE_NS, {"reason": "汉" * 22, "x": "yz"}
    ),
    "status_as_long_as_a_batch": document("status.kucoin", 2, 4, 9, BASE_NS, {"reason": "r" * 267}),
    "trade_one": trade(
        "trade.binance.BTC/USDT", 8, 42, 5454512345, 97421.49, 0.00012, 1, 1, 0, 0, "5454512345"
    ),
    "trade_of_a_block": trade(
        "trade.bybit.ETH/USDT",
        32,
        7,
        0,
        3000.25,
        1000.0,
        1,
        2,
        1,
        1023,
        "0f5c1e0a-0000-5000-8000-00000000abcd",
    ),
    "trade_widest": trade(
        "trade.kucoin.汉/USDT", 96, U64_MAX, U64_MAX, NAN, 5e-324, 2**32 - 1, 255, 255, 65535, "9" * 40
    ),
    "trade_of_nothing": trade("trade.kucoin.NEW/USDT", 0, 1, 0, NAN, NAN, 0, 0, 0, 0, ""),
    "depth_complete": depth(
        "depth.binance.BTC/USDT",
        8,
        42,
        (0, BASE_NS + 1_000_111, BASE_NS + 1_100_222),
        160_000_000_001,
        [[97421.4 - level / 10, 0.125 + level] for level in range(20)],
        [[97421.5 + level / 10, 0.25 + level] for level in range(20)],
    ),
    "depth_of_few_levels": depth(
        "depth.kucoin.NEW/USDT", 1, 7, (BASE_NS,) * 3, 0, [[1e-08, 1.7976931348623157e308]], []
    ),
    "depth_invalid": depth(
        "depth.bybit.BTC/USDT", 8 | 128, U64_MAX, (I64_MAX,) * 3, U64_MAX, [[2.0, 1.0]], [[1.0, 5e-324]] * 2
    ),
    # Of the best bid is a part gone, one is new; an ask goes, one that was not known, too.
    "book_changes": book(
        "book.binance.BTC/USDT",
        8 | 32,
        4711,
        (160_000_000_001, 160_000_000_004),
        [[97421.4, 0.125], [97421.3, 2.5]],
        [[97421.5, 0.0], [97500.0, 0.0], [97421.75, 1e-08]],
    ),
    "book_of_one_empty_side": book("book.kucoin.NEW/USDT", 1 | 32, 1, (7, 7), [], [[5e-324, 1e308]]),
    "book_without_a_change": book("book.kucoin.NEW/USDT", 32, 2, (8, 8), [], []),
    # Two parts; of the asks nothing is known above 97423.0, so the first of them has no size.
    "book_snapshot_1_of_2": book(
        "book.binance.BTC/USDT",
        1 | 8,
        4712,
        (160_000_000_004,) * 2,
        [[97421.4, 0.125], [97421.3, 2.5]],
        [],
        0,
        2,
    ),
    "book_snapshot_2_of_2": book(
        "book.binance.BTC/USDT",
        1 | 8 | 32,
        4713,
        (160_000_000_004,) * 2,
        [],
        [[97423.0, 0.0], [97421.75, 1e-08], [97422.5, 0.25], [97423.0, 1.0]],
        1,
        2,
    ),
    "book_of_most_levels": book(
        "book.bybit.BTC/USDT",
        1,
        U64_MAX,
        (U64_MAX, U64_MAX),
        [[1000.0 - level / 8, 1.0 + level] for level in range(200)],
        [[1000.5 + level / 8, 2.0 + level] for level in range(56)],
        65_534,
        65_535,
    ),
    "contract_complete": contract(
        "contract.bybit.BTC/USDT:USDT",
        8,
        42,
        88_000_000_001,
        [97421.55, 97420.25, -0.000125, 51234.875],
        BASE_NS + 14_400_000_000_000,
        8.0,
        0.0001,
    ),
    "contract_unknown": contract(
        "contract.bybit.NEW/USDT:USDT", 1 | 4, 1, 0, [NAN, NAN, NAN, NAN], 0, NAN, NAN
    ),
    "contract_widest": contract(
        "contract.binance.汉/USDT:USDT",
        511,
        U64_MAX,
        U64_MAX,
        [1.7976931348623157e308, 5e-324, -1.0, 0.0],
        -I64_MAX - 1,
        1.0,
        NAN,
    ),
    "liquidation_of_a_long": liquidation(
        "liquidation.bybit.BTC/USDT:USDT", 8 | 32, 42, 0, 96000.5, 0.125, 1, 2, 0, 3, ""
    ),
    "liquidation_widest": liquidation(
        "liquidation.okx.汉/USDT:USDT",
        96,
        U64_MAX,
        U64_MAX,
        NAN,
        5e-324,
        2**32 - 1,
        255,
        255,
        65535,
        "9" * 40,
    ),
    "condition_down": condition("trade.binance.BTC/USDT", 4, 4711),
    "condition_over": condition("trade.binance.BTC/USDT", 0, 0),
    **{f"unknown_{kind}": unknown(kind) for kind in (0, 200, 255)},
    "unknown_without_a_body": unknown(99, body=b""),
    "unknown_as_long_as_a_ticker": unknown(77, body=b"k" * 88),
}
assert [len(SINGLES[f"status_as_long_as_a_{name}"][0]) for name in ("ticker", "batch")] == [192, 384]

BATCHES = {
    "two": [quote(1), quote(2)],
    "of_two_kinds": [quote(1), condition("trade.binance.BTC/USDT", 2, 7), quote(2)],
    "of_trades": [SINGLES["trade_one"], SINGLES["trade_widest"], quote(1), SINGLES["trade_of_a_block"]],
    "of_derivatives": [
        SINGLES["contract_complete"],
        SINGLES["liquidation_of_a_long"],
        quote(1),
        SINGLES["contract_widest"],
    ],
    "with_depth": [quote(1), SINGLES["depth_complete"], quote(2), SINGLES["depth_of_few_levels"]],
    "with_books": [SINGLES[f"book_{name}"] for name in ("changes", "snapshot_1_of_2", "snapshot_2_of_2")],
    "with_a_document": [quote(1), SINGLES["status"]],
    "with_an_unknown_kind": [condition("trade.binance.BTC/USDT", 2, 7), unknown(200)],
    "mixed": [
        SINGLES[f"ticker_{name}"] for name in ("complete", "widest", "unknown", "flag_down", "empty_side")
    ],
}


def with_byte(message, at, value):
    return message[:at] + bytes([value]) + message[at + 1 :]


def with_count(message, asks):
    """Return a record of a book that says that it has so many asks."""
    return message[:122] + asks.to_bytes(2, "little") + message[124:]


TICKER = quote(1)[0]
# As it was: topic in 40 bytes, then version, kind, flags, session, sequence, three times, 11 numbers.
VERSION_1 = struct.pack(
    "<40sBBHIQqqqQ10d", b"ticker.binance.BTC/USDT", 1, 1, 8, 5, 9, *[BASE_NS] * 3, 1, *[0.5] * 10
)
REFUSED = {
    "empty": (b"", "short"),
    "half_a_header": (TICKER[:103], "short"),
    "header_of_a_ticker": (TICKER[:104], "length"),
    "one_byte_missing": (TICKER[:-1], "length"),
    "version_0": (with_byte(TICKER, 64, 0), "version"),
    "version_1": (VERSION_1, "version"),
    "version_3": (with_byte(TICKER, 64, 3), "version"),
    "version_3_of_another_length": (with_byte(TICKER, 64, 3) + b"\0" * 8, "version"),
    "topic_without_nul": (b"t" * 64 + TICKER[64:], "topic"),
    "book_cut_short": (SINGLES["book_changes"][0][:-1], "length"),
    "book_of_one_level_too_many": (
        with_count(SINGLES["book_of_most_levels"][0], 57) + struct.pack("<dd", 1100.0, 1.0),
        "length",
    ),
}

# Of one topic: session, sequence, what the record is, how many are missing before it.
S = 1_790_000_000
FOLLOW = {
    "in order": [(S, 1, "first", 0), (S, 2, "next", 0), (S, 3, "next", 0)],
    "joined late": [(S, 5000, "first", 0), (S, 5001, "next", 0)],
    "a gap": [(S, 1, "first", 0), (S, 2, "next", 0), (S, 6, "gap", 3), (S, 7, "next", 0)],
    "two gaps": [(S, 1, "first", 0), (S, 3, "gap", 1), (S, 10, "gap", 6)],
    "a snapshot of what is known": [(S, 7, "first", 0), (S, 7, "duplicate", 0), (S, 8, "next", 0)],
    "a snapshot after a gap": [(S, 7, "first", 0), (S, 9, "gap", 1), (S, 9, "duplicate", 0)],
    "an old one": [(S, 7, "first", 0), (S, 3, "duplicate", 0), (S, 8, "next", 0)],
    "an old one in a gap is not made good": [
        (S, 1, "first", 0),
        (S, 4, "gap", 2),
        (S, 2, "duplicate", 0),
        (S, 5, "next", 0),
    ],
    "a restart": [(S, 70, "first", 0), (S + 9, 1, "new_session", 0), (S + 9, 2, "next", 0)],
    "a restart, joined late": [(S, 70, "first", 0), (S + 9, 900, "new_session", 0), (S + 9, 902, "gap", 1)],
    "a restart with the same number": [
        (S, 7, "first", 0),
        (S + 1, 7, "new_session", 0),
        (S + 1, 8, "next", 0),
    ],
    "a restart after a clock was set back": [(S, 7, "first", 0), (S - 60, 1, "new_session", 0)],
    "gaps over restarts": [
        (S, 1, "first", 0),
        (S, 3, "gap", 1),
        (S + 1, 1, "new_session", 0),
        (S + 1, 1, "duplicate", 0),
        (S + 1, 4, "gap", 2),
    ],
    "beyond what a double can count": [
        (S, 2**53, "first", 0),
        (S, 2**53 + 1, "next", 0),
        (S, 2**53 + 3, "gap", 1),
    ],
    "the widest": [
        (2**32 - 1, 1, "first", 0),
        (2**32 - 1, U64_MAX, "gap", U64_MAX - 2),
        (2**32 - 1, U64_MAX, "duplicate", 0),
        (0, 0, "new_session", 0),
        (0, 0, "duplicate", 0),
        (0, 1, "next", 0),
    ],
    "zero is a number": [(0, 0, "first", 0), (0, 0, "duplicate", 0), (0, 2, "gap", 1)],
}


def text(value):
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def follow_case(name, steps):
    rows = ",\n".join(
        f'   {{"session": {session}, "sequence": {sequence}, "continuity": "{continuity}", "missing": {missing}}}'
        for session, sequence, continuity, missing in steps
    )
    gaps = [missing for *_, missing in steps if missing]
    return (
        f' {{\n  "name": "{name}",\n  "steps": [\n{rows}\n  ],\n'
        f'  "lost": {sum(gaps)},\n  "gaps": {len(gaps)}\n }}'
    )


def files():
    """Return each file's content by its path."""
    made = {}
    for name, (message, record) in SINGLES.items():
        made |= {f"{name}.bin": message, f"{name}.json": text(record).encode()}
    for name, records in BATCHES.items():
        made[f"batches/{name}.bin"] = b"".join(message for message, _ in records)
        made[f"batches/{name}.json"] = text([record for _, record in records]).encode()
    for name, (message, error) in REFUSED.items():
        made |= {f"refused/{name}.bin": message, f"refused/{name}.json": text({"error": error}).encode()}
    cases = ",\n".join(follow_case(name, steps) for name, steps in FOLLOW.items())
    made["follow.json"] = f"[\n{cases}\n]\n".encode()
    return made


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, content in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
