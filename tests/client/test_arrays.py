"""Records as arrays and frames: the bytes as they came, and the same stream as in objects, however it is cut."""

import asyncio
import json
import math
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE_S
from publishing import BTC, ETH, RawPublisher, document, framed, heartbeat, ticker

from feedhandler.client import AsyncSubscriber, Subscriber, arrays
from feedhandler.client.arrays import ArraySubscriber
from feedhandler.data import wire
from feedhandler.data.errors import DecodeError
from feedhandler.transport.follower import Follower

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")
GOLDEN = Path(__file__).parent.parent / "golden"
T_NS = 1_790_000_000_123_456_789


@pytest.fixture
def stream(endpoint):
    with RawPublisher(endpoint) as publisher, ArraySubscriber(endpoint) as subscriber:
        subscriber.receive(timeout_s=0)
        publisher.accept()
        yield subscriber, publisher


def test_an_array_has_every_field_of_every_record(stream):
    subscriber, publisher = stream
    values = {name: float(n) + 0.25 for n, name in enumerate(wire.TICKER_VALUES)}
    record = wire.Ticker(BTC, wire.VERSION, wire.TICKER, 8, 100, 7, T_NS, -5, 2**62, 2**64 - 1, **values)
    publisher.send(wire.pack_ticker(record))
    (row,) = subscriber.receive(timeout_s=PATIENCE_S)
    topic, *values = row.tolist()
    assert wire.Ticker(topic.decode(), *values) == record
    assert arrays.DTYPE.names == wire.Ticker.__struct_fields__


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("ticker_*.bin")), ids=lambda path: path.stem)
def test_golden_messages_are_seen_in_place(path):
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    message = bytearray(path.read_bytes())
    (row,) = array = arrays.view(message)
    for name, value in expected.items():
        got = row[name].decode() if name == "topic" else row[name].item()
        assert math.isnan(got) if value is None else got == value, name
    assert arrays.is_live(array)[0] == wire.unpack(bytes(message)).is_live
    message[wire.FLAGS_OFFSET] |= wire.DOWN
    assert not arrays.is_live(array)[0], "nothing was copied"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (ticker(1)[:-1], "191 bytes are no whole number of records, which have 192"),
        (bytes(192), "not all ticker records of wire version 2"),
        (ticker(1) + b"t" * 64 + ticker(2)[64:], "more than 63 bytes"),
    ],
)
def test_what_is_no_record_is_not_seen_as_one(message, error):
    with pytest.raises(DecodeError, match=error):
        arrays.view(message)


def test_an_array_stays_as_it_is_when_the_next_one_comes(stream):
    subscriber, publisher = stream
    publisher.send(ticker(1), ticker(2))
    first = subscriber.receive(timeout_s=PATIENCE_S)
    kept = first.tobytes()
    publisher.send(*[ticker(number) for number in range(3, 300)])
    assert subscriber.receive(timeout_s=PATIENCE_S)["sequence"].tolist() == list(range(3, 300))
    assert first.tobytes() == kept
    first["bid"] = 1.0  # it is the caller's own


def test_no_array_has_more_records_than_were_asked_for(stream):
    subscriber, publisher = stream
    publisher.send(*map(ticker, range(1, 8)))
    sizes, seen = [], []
    while len(seen) < 7:
        array = subscriber.receive(3, timeout_s=PATIENCE_S)
        sizes.append(len(array))
        seen += array["sequence"].tolist()
    assert (sizes, seen) == ([3, 3, 1], [1, 2, 3, 4, 5, 6, 7])
    assert len(subscriber.receive(timeout_s=0)) == 0
    with pytest.raises(ValueError, match="max_count is 0"):
        subscriber.receive(0)


def test_a_batch_goes_on_until_it_is_full(stream):
    subscriber, publisher = stream
    batches = subscriber.batches(4, every_s=30.0)
    publisher.send(ticker(1) + ticker(2), ticker(3) + ticker(4) + ticker(5))
    assert next(batches)["sequence"].tolist() == [1, 2, 3, 4]
    publisher.send(*map(ticker, range(6, 9)))
    assert next(batches)["sequence"].tolist() == [5, 6, 7, 8]


def test_a_batch_goes_on_for_a_while(stream):
    subscriber, publisher = stream
    publisher.send(ticker(1), ticker(2))
    assert next(subscriber.batches(every_s=0.05))["sequence"].tolist() == [1, 2]


def test_what_is_no_ticker_goes_elsewhere(stream):
    subscriber, publisher = stream
    status = document("status.binance", wire.STATUS, b"{}")
    publisher.send(status, heartbeat(binance="live"), b"junk", ticker(1))
    assert subscriber.receive(timeout_s=PATIENCE_S)["topic"].tolist() == [BTC.encode()]
    assert subscriber.silence_s < math.inf
    assert subscriber.undecodable == 1


def messages_of(rng):
    """Return a stream as bad as it gets: holes, repetitions, new sessions, batches, documents, junk."""
    session, messages, numbers = 100, [], {BTC: 0, ETH: 0}
    for _ in range(rng.randrange(1, 60)):
        records = []
        for _ in range(rng.choice((1, 1, 1, 3, 20))):
            topic = rng.choice((BTC, ETH))
            numbers[topic] = max(1, numbers[topic] + rng.choice((1, 1, 1, 1, 3, -1, 0)))
            records.append(ticker(numbers[topic], session, topic, bid=rng.random(), last=1.0))
        messages.append(b"".join(records))
        if rng.random() < 0.05:
            session, numbers = session + 1, {BTC: 0, ETH: 0}
        if rng.random() < 0.1:
            messages.append(rng.choice((heartbeat(x="live"), b"junk", ticker(1)[:-1])))
    return messages


def cut(data, rng):
    """Yield the pieces in which the bytes arrive."""
    position = 0
    while position < len(data):
        size = rng.choice((1, 7, 100, 193, 194, 195, 1000, 100_000))
        yield data[position : position + size]
        position += size


def received(make, endpoint, pieces):
    """Return the records and the losses of a subscriber in this thread."""
    with RawPublisher(endpoint) as publisher, make(endpoint, ["ticker."]) as subscriber:
        is_array = make is ArraySubscriber
        take = subscriber.receive if is_array else subscriber.receive_many
        taken = [take(timeout_s=0)]
        publisher.accept()
        for piece in pieces:
            publisher.send_bytes(piece)
            taken.append(take(timeout_s=0))
        taken.append(take(timeout_s=0))
        packed = [r if is_array else b"".join(map(wire.pack_ticker, r)) for r in taken]
        return b"".join(bytes(each) for each in packed), subscriber.losses, subscriber.undecodable


def received_in_a_loop(endpoint, pieces):
    async def main():
        with RawPublisher(endpoint) as publisher:
            async with AsyncSubscriber(endpoint, ["ticker."]) as subscriber:
                publisher.accept()
                while not subscriber.is_connected:
                    await asyncio.sleep(0)
                taken = []
                for piece in pieces:
                    publisher.send_bytes(piece)
                    taken += await subscriber.receive_many(timeout_s=0)
                taken += await subscriber.receive_many(timeout_s=0)
                return b"".join(map(wire.pack_ticker, taken)), subscriber.losses, subscriber.undecodable

    return asyncio.run(main())


@pytest.mark.parametrize("seed", range(15))
def test_objects_arrays_and_a_loop_give_the_same_however_the_stream_is_cut(seed):
    rng = random.Random(seed)
    messages = messages_of(rng)
    records = []
    follower = Follower(records.append, aside={wire.HEARTBEAT: lambda document: True})
    for message in messages:
        follower.take(message)
    expected = b"".join(map(wire.pack_ticker, records)), follower.losses, follower.undecodable
    assert expected[0]
    for receive in (
        lambda *where: received(Subscriber, *where),
        lambda *where: received(ArraySubscriber, *where),
        received_in_a_loop,
    ):
        with tempfile.TemporaryDirectory() as directory:
            assert receive(f"ipc://{directory}/t.ipc", cut(framed(*messages), rng)) == expected


def sample():
    """Return three records, with all flags and times that frames have a word for."""
    records = [
        wire.Ticker(
            BTC, wire.VERSION, wire.TICKER, 0, 100, 1, T_NS, T_NS + 1, T_NS + 2, 2**63, bid=1.5, ask=2.5
        ),
        wire.Ticker(
            "ticker.kucoin.Ä/USDT",
            wire.VERSION,
            wire.TICKER,
            31,
            100,
            2,
            0,
            T_NS + 3,
            T_NS + 4,
            bid=3.5,
        ),
        wire.Ticker(BTC, wire.VERSION, wire.TICKER, wire.STALE, 100, 2, T_NS, T_NS + 5, T_NS + 6, bid=4.5),
    ]
    return arrays.view(b"".join(map(wire.pack_ticker, records)))


COLUMNS = [
    *("exchange", "symbol", "exchange_time", "recv_time", "publish_time"),
    *("is_snapshot", "is_stale", "is_down", "is_simulated", "has_bad_exchange_time"),
    *("session", "sequence", "exchange_sequence", *wire.TICKER_VALUES),
]


def check_rows(rows):
    assert [(row["exchange"], row["symbol"]) for row in rows] == [
        ("binance", "BTC/USDT"),
        ("kucoin", "Ä/USDT"),
        ("binance", "BTC/USDT"),
    ]
    flags = COLUMNS[5:10]
    assert [[row[name] for name in flags] for row in rows] == [
        [False] * 5,
        [True] * 5,
        [False, True, False, False, False],
    ]
    assert [row["bid"] for row in rows] == [1.5, 3.5, 4.5]
    assert [row["exchange_sequence"] for row in rows] == [2**63, 0, 0]
    assert math.isnan(rows[1]["ask"])


def test_a_pandas_frame_has_words_times_and_flags():
    frame = arrays.to_pandas(sample())
    assert list(frame.columns) == COLUMNS
    check_rows(frame.to_dict("records"))
    assert str(frame["recv_time"].dtype) == "datetime64[ns, UTC]"
    assert [time.value for time in frame["recv_time"]] == [T_NS + 1, T_NS + 3, T_NS + 5]
    assert frame["exchange_time"].isna().tolist() == [False, True, False]
    assert frame["symbol"].dtype == "category"


def test_a_polars_frame_has_words_times_and_flags():
    import polars as pl

    frame = arrays.to_polars(sample())
    assert frame.columns == COLUMNS
    check_rows(frame.to_dicts())
    assert frame["recv_time"].dtype == pl.Datetime("ns", "UTC")
    assert frame["recv_time"].cast(pl.Int64).to_list() == [T_NS + 1, T_NS + 3, T_NS + 5]
    assert frame["exchange_time"].is_null().to_list() == [False, True, False]
    assert frame["symbol"].dtype == pl.Categorical


def test_nothing_makes_an_empty_frame_with_the_same_types():
    empty = sample()[:0]
    assert list(arrays.to_pandas(empty).columns) == COLUMNS
    assert len(arrays.to_pandas(empty)) == 0
    assert arrays.to_pandas(empty).dtypes["recv_time"] == arrays.to_pandas(sample()).dtypes["recv_time"]
    assert arrays.to_polars(empty).schema == arrays.to_polars(sample()).schema
    assert type(arrays.to_pandas(empty)).__name__ == "DataFrame"


def test_a_frame_of_a_slice_is_as_good(stream):
    array = np.concatenate([sample()] * 3)[::3]
    assert arrays.to_pandas(array)["bid"].tolist() == arrays.to_polars(array)["bid"].to_list() == [1.5] * 3


@pytest.mark.parametrize(("library", "frame"), [("pandas", arrays.to_pandas), ("polars", arrays.to_polars)])
def test_a_missing_library_is_named_with_the_remedy(monkeypatch, library, frame):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"pip install 'feedhandler\[{library}\]'"):
        frame(sample())


def test_missing_numpy_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.delitem(sys.modules, "feedhandler.client.arrays")
    with pytest.raises(ImportError, match=r"pip install 'feedhandler\[numpy\]'"):
        __import__("feedhandler.client.arrays")
