"""Each language's reader, compiled and run over the golden vectors, over anything at all, and over sequences."""

import json
import random
import struct
import subprocess
from pathlib import Path

import pytest
import toolchains
from toolchains import BUILD_TIMEOUT_S, LANGUAGES, ROOT, run, tool

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError

pytestmark = pytest.mark.e2e
CHECKERS = Path(__file__).parent / "checkers"
GOLDEN = ROOT / "tests" / "golden"
HEADER = ["topic", "version", "kind", "flags", "session", "sequence", "exchange_ns", "recv_ns", "publish_ns"]
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
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def build_c(folder):
    include = f"-I{LANGUAGES / 'c'}"
    binary = folder / "check"
    try:
        toolchains.compile_c(CHECKERS / "check.c", binary, include, *SANITIZED)
    except AssertionError:  # there is a compiler without its sanitizers
        toolchains.compile_c(CHECKERS / "check.c", binary, include)
    return [binary]


def build_c_big_endian(folder):
    cc = tool("s390x-linux-gnu-gcc", package="gcc-s390x-linux-gnu libc6-dev-s390x-cross")
    emulator = tool("qemu-s390x", package="qemu-user")
    include = f"-I{LANGUAGES / 'c'}"
    run(cc, "-std=c11", "-O2", "-static", include, "-o", folder / "check", CHECKERS / "check.c")
    return [emulator, folder / "check"]


def build_rust(folder):
    rustc = tool("rustc", package="rustc")
    binary = folder / "check"
    # Debug: an overflow or an index out of range ends the checker.
    run(
        rustc,
        "--edition",
        "2018",
        "-C",
        "debug-assertions",
        "-D",
        "warnings",
        "-o",
        binary,
        CHECKERS / "check.rs",
    )
    return [binary]


def build_go(folder):
    toolchains.go_build(CHECKERS / "go", folder / "check", cgo=False)
    return [folder / "check"]


def build_node(folder):
    return [tool("node", "nodejs", package="nodejs"), CHECKERS / "check.mjs"]


BUILDS = {
    "c": build_c,
    "c_big_endian": build_c_big_endian,
    "rust": build_rust,
    "go": build_go,
    "node": build_node,
}


@pytest.fixture(scope="module", params=BUILDS)
def check(request, tmp_path_factory):
    """Give a function from the checker's argument and input to its output."""
    command = BUILDS[request.param](tmp_path_factory.mktemp(request.param))

    def ask(what, given):
        done = subprocess.run(
            [*map(str, command), what],
            input=given,
            capture_output=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
        return done.stdout.decode()

    return ask


def join(messages):
    return b"".join(struct.pack("<I", len(message)) + message for message in messages)


def split(output):
    """Return for each message the lines about its records."""
    messages = output.split(".\n")
    assert messages.pop() == ""
    return [message.splitlines() for message in messages]


def hexadecimal(value):
    return "nan" if value is None else struct.pack(">d", value).hex()


def expected_line(record, message):
    topic = record["topic"]
    words = [*topic.split(".", 2), "", ""]
    is_live = not record["flags"] & (2 | 4 | 128)
    line = ["ok", topic, words[1], words[2], *(record[name] for name in HEADER[1:4]), int(is_live)]
    line += [record[name] for name in HEADER[4:]]
    if record["kind"] == 1:
        line.append(record["exchange_sequence"])
        line += [hexadecimal(record[name]) for name in VALUES]
    elif record["kind"] in (6, 10):
        line.append(record["exchange_sequence"])
        line += [hexadecimal(record[name]) for name in ("price", "size")]
        line += [record[name] for name in ("count", "side", "bits", "index", "trade_id")]
    elif record["kind"] == 9:
        line.append(record["exchange_sequence"])
        line += [hexadecimal(record[name]) for name in ("mark", "index", "funding_rate", "open_interest")]
        line.append(record["next_funding_ns"])
        line += [hexadecimal(record[name]) for name in ("funding_interval_h", "predicted_funding_rate")]
    elif record["kind"] == 7:
        line += [record[name] for name in ("exchange_sequence", "bid_count", "ask_count")]
        for side in (record["bids"], record["asks"]):
            for level in [*side, *[(None, None)] * (20 - len(side))]:
                line += map(hexadecimal, level)
    elif record["kind"] == 8:
        names = ("first_id", "last_id", "bid_count", "ask_count", "part", "parts")
        line += [record[name] for name in names]
        for level in [*record["bids"], *record["asks"]]:
            line += map(hexadecimal, level)
    elif "body" in record:
        assert json.loads(message[104:]) == record["body"]
        line.append(message[104:].decode())
    elif "hex" in record:
        line.append(f"unknown {record['hex']}")
    return "|".join(map(str, line))


def golden(pattern):
    paths = sorted(GOLDEN.glob(pattern))
    assert paths
    return [(p.read_bytes(), json.loads(p.with_suffix(".json").read_text(encoding="utf-8"))) for p in paths]


def test_golden_messages_stand_for_their_values(check):
    vectors = golden("*.bin")
    got = split(check("records", join(message for message, _ in vectors)))
    assert got == [[expected_line(record, message)] for message, record in vectors]


def test_golden_batches_are_their_records(check):
    vectors = golden("batches/*.bin")
    got = split(check("records", join(message for message, _ in vectors)))
    assert got == [
        [expected_line(record, part) for record, part in zip(records, wire.split(message), strict=True)]
        for message, records in vectors
    ]


def test_golden_messages_that_are_no_records_are_refused_with_the_reason(check):
    vectors = golden("refused/*.bin")
    got = split(check("records", join(message for message, _ in vectors)))
    assert got == [[expected["error"]] for _, expected in vectors]


def verdicts(message):
    """What the one definition says of each record in a message."""
    words = {"shorter": "short", "wire version": "version", "expected": "length", "topic": "topic"}
    found = []
    for part in list(wire.split(message)) or [message]:
        try:
            wire.unpack(part)
            found.append("ok")
        except DecodeError as exc:
            found.append(next(word for text, word in words.items() if text in str(exc)))
    return found


def test_any_bytes_are_a_record_or_an_error_and_all_languages_agree(check):
    """Every truncation, every byte turned over, batches of damaged records, and noise."""
    numbers = random.Random(7)
    sources = [message for message, _ in golden("*.bin") + golden("batches/*.bin")]
    messages = [message[:size] for message in sources for size in range(len(message))]
    for message in sources[:6]:
        messages += [
            message[:at] + bytes([message[at] ^ 0xFF]) + message[at + 1 :] for at in range(len(message))
        ]
    whole = [message for message in messages if len(message) in (104, 192)]
    messages += [b"".join(numbers.choices(whole, k=numbers.randint(2, 5))) for _ in range(200)]
    messages += [numbers.randbytes(numbers.randint(0, 400)) for _ in range(500)]
    expected = [verdicts(message) for message in messages]
    assert {word for words in expected for word in words} == {
        "ok",
        "short",
        "version",
        "length",
        "topic",
    }
    assert split(check("verdicts", join(messages))) == expected


def test_sequences_are_followed_as_in_python(check):
    cases = json.loads((GOLDEN / "follow.json").read_text(encoding="utf-8"))
    given, expected = [], []
    for case in cases:
        given.append("new")
        lost = gaps = 0
        for step in case["steps"]:
            given.append(f"{step['session']} {step['sequence']}")
            lost += step["missing"]
            gaps += step["missing"] > 0
            expected.append(f"{step['continuity']} {step['missing']} {lost} {gaps}")
    assert check("follow", "".join(line + "\n" for line in given).encode()).splitlines() == expected


def test_the_c_header_is_c_plus_plus_too(tmp_path):
    compiler = tool("c++", "g++", "clang++", package="g++")
    source = tmp_path / "header.cc"
    source.write_text(
        '#include "feedhandler.h"\nint main() { fh_record r; return fh_decode("", 0, &r) == FH_OK; }\n'
    )
    run(
        compiler,
        *("-std=c++11", "-Wall", "-Wextra", "-Werror", "-pedantic"),
        f"-I{LANGUAGES / 'c'}",
        "-o",
        tmp_path / "header",
        source,
    )
    run(tmp_path / "header")


def test_go_code_is_formatted_and_vetted():
    gofmt, go = tool("gofmt", package="golang-go"), tool("go", package="golang-go")
    assert run(gofmt, "-l", LANGUAGES, CHECKERS) == b""
    run(go, "vet", ".", cwd=LANGUAGES / "go")


def test_the_types_are_those_of_the_module(tmp_path):
    tsc = tool("tsc", package="node-typescript")
    run(
        tsc,
        *("--strict", "--noEmit", "--typeRoots", tmp_path, "--target", "es2022"),
        *("--module", "nodenext", "--moduleResolution", "nodenext", "--lib", "es2022,dom"),
        CHECKERS / "check.mts",
    )
