"""Which feed process has a symbol."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.data.shard import SHARDS_MAX, WHOLE, Shard, parse, shard_number, shards

NATIVES = st.text(min_size=1, max_size=30)


@given(native=NATIVES, count=st.integers(1, SHARDS_MAX))
def test_each_symbol_is_in_exactly_one_shard(native, count):
    owners = [shard for shard in shards(count) if shard.has(native)]
    assert owners == [Shard(shard_number(native, count), count)]


@given(native=NATIVES)
def test_the_whole_has_every_symbol(native):
    assert WHOLE.has(native)


def test_a_symbols_place_never_changes_between_versions_or_processes():
    assert [shard_number(n, 4) for n in ("BTCUSDT", "BTC-USDT", "ETHUSDT", "币安人生USDT")] == [4, 4, 1, 1]


def test_thousands_of_symbols_are_spread_evenly():
    rng = random.Random(1)
    natives = {
        "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.randrange(2, 6))) + "USDT"
        for _ in range(3200)
    }
    for count in (2, 3, 4, 16):
        sizes = [sum(shard.has(native) for native in natives) for shard in shards(count)]
        assert sum(sizes) == len(natives)
        assert max(sizes) - min(sizes) < 0.4 * len(natives) / count


def test_what_is_written_is_read_again():
    for shard in (shard for count in range(1, SHARDS_MAX + 1) for shard in shards(count)):
        assert parse(str(shard)) == shard


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no shard; write number/count"),
        ("1", "is no shard"),
        ("0/4", "is no shard"),
        ("1/0", "is no shard"),
        ("-1/4", "is no shard"),
        ("1/4/2", "is no shard"),
        ("1 / 4", "is no shard"),
        ("1/4\n", "is no shard"),
        ("٣/٤", "is no shard"),
        ("1/99999999999999999999", "is no shard"),
        ("5/4", "there is no shard 5 of 4; they are 1/4 to 4/4"),
        ("1/17", "16 shards at most"),
    ],
)
def test_anything_else_is_refused_with_what_is_wrong(text, message):
    with pytest.raises(ValueError, match=message.replace("'", ".")):
        parse(text)


def test_names_carry_the_shard_and_those_of_the_whole_do_not():
    assert (f"feed-x{Shard(1, 4).suffix}", f"feed-x{WHOLE.suffix}") == ("feed-x-1of4", "feed-x")
