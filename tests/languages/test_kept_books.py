"""Books in other languages, on the same streams as ours, whatever is lost, repeated or cut short: line by line."""

import random
import struct
import subprocess
from pathlib import Path

import pytest
import toolchains
from book_market import Market, Stream, packed
from toolchains import BUILD_TIMEOUT_S, LANGUAGES, tool

from feedhandler.data import book, kept_book, wire
from feedhandler.data.kept_book import Book

pytestmark = pytest.mark.e2e
CHECKERS = Path(__file__).parent / "checkers"
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def build_c(folder):
    include = f"-I{LANGUAGES / 'c'}"
    try:
        toolchains.compile_c(CHECKERS / "book.c", folder / "book", include, *SANITIZED)
    except AssertionError:  # there is a compiler without its sanitizers
        toolchains.compile_c(CHECKERS / "book.c", folder / "book", include)
    return [folder / "book"]


def build_node(folder):
    return [tool("node", "nodejs", package="nodejs"), CHECKERS / "book.mjs"]


@pytest.fixture(scope="module", params=[build_c, build_node], ids=["c", "node"])
def command(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("book"))


def bits(value):
    return struct.pack(">d", value).hex()


def side(levels):
    return [str(len(levels)), *(bits(number) for level in levels for number in level)]


def line(kept):
    words = [str(int(kept.is_valid)), str(int(kept.lacks_snapshot))]
    if kept.is_valid:
        words += [str(int(kept.is_stale)), str(kept.sequence), str(kept.last_id)]
        words += [bits(kept.known_from), bits(kept.known_to), *side(kept.bids), *side(kept.asks)]
    return " ".join([*words, kept.reason])


def compare(command, messages):
    """Have both read the same messages; an empty one is the end of a connection."""
    kept, expected = Book(), []
    for message in messages:
        if message:
            kept.apply(message)
        else:
            kept.suspend(kept_book.UNCERTAIN)
        expected.append(line(kept))
    given = b"".join(struct.pack("<I", len(message)) + message for message in messages)
    done = subprocess.run(
        [*map(str, command)], input=given, capture_output=True, timeout=BUILD_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    for number, (got, wanted) in enumerate(zip(done.stdout.decode().splitlines(), expected, strict=True)):
        assert got == wanted, number
    return expected


def edges(market, stream):
    """A snapshot, and then changes, that say where what is known of the bids ends."""
    bids, asks = (book.packed_levels(each) for each in market.at[market.id])
    worst = market.at[market.id][0][-1]
    first, second = market.id + 1, market.id + 2
    market.id += 2
    market._note()
    yield from stream.publish(
        book.bodies(first - 1, first - 1, book.edge(worst[0]) + bids, asks), wire.SNAPSHOT
    )
    yield from stream.publish(book.bodies(first, first, book.packed_levels([(worst[0], 0.0)]), b""))
    changes = book.edge(worst[0]) + book.packed_levels([worst])
    yield from stream.publish(book.bodies(second, second, changes, b""))


@pytest.mark.parametrize("seed", range(12))
def test_other_languages_make_the_same_books(seed, command):
    rng = random.Random(seed)
    market = Market(rng, levels=rng.choice((5, 40, 200)))
    stream, kept, messages = Stream(market), Book(), []
    for _ in range(300):
        draw = rng.random()
        if draw < 0.05:
            made = stream.snapshot()
        elif draw < 0.06:
            made = list(edges(market, stream))
        elif draw < 0.09:
            made = [stream.condition(rng.choice((0, wire.STALE, wire.DOWN, wire.INVALID)))]
        elif draw < 0.11:
            made = stream.change(400)
        elif draw < 0.115:
            stream.restart(stream.session + 1)
            made = []
        elif draw < 0.13:
            market.change()
            made = []
        elif draw < 0.15:
            made = [b""]
        elif draw < 0.17:
            made = kept.snapshot()  # as a relay sends it
        else:
            made = stream.change()
        if rng.random() < 0.01:
            rng.shuffle(made)
        for message in made:
            if rng.random() < 0.01:
                continue
            if message and rng.random() < 0.003:
                message = message[: rng.randrange(1, len(message))]
            for _ in range(1 + (rng.random() < 0.03)):
                messages.append(message)
                kept.apply(message) if message else kept.suspend(kept_book.UNCERTAIN)
    lines = compare(command, messages)
    assert sum(each.startswith("1") for each in lines) > 20


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("is_price", [True, False])
def test_what_is_no_number_makes_no_level(command, number, is_price):
    stream = Stream(Market(random.Random(1)))
    level = (number, 1.0) if is_price else (1.0, number)
    [body] = book.bodies(stream.market.id + 1, stream.market.id + 1, book.packed_levels([level]), b"")
    messages = stream.snapshot()
    messages.append(packed(body, sequence=stream.sequence + 1))
    assert compare(command, messages)[-1].endswith(kept_book.DAMAGED)
