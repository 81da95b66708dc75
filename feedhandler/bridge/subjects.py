"""NATS subjects of our topics: `ticker.binance.BTC/USDT` is published at `ticker.binance.BTC-USDT`.

A subject is words with dots between, and NATS gives `*`, `>`, spaces and a leading `$` a meaning of their own.
So letters, digits and `_` stand as they are, `/` is `-`, and of everything else, a `-` included, each byte of its
UTF-8 is `%` and two digits, as in an address of the web. Every topic has a subject of its own, then, and every
subject leads back to its topic: two symbols cannot meet in one. Pure.
"""

import re
from typing import Final

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError
from feedhandler.data.processes import BRIDGE

WORDS_MAX: Final = 3  # kind, exchange, symbol
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_WORD: Final = re.compile(r"(?:[A-Za-z0-9_-]|%[0-9A-F]{2})+")
_ENCODED: Final = [
    chr(byte) if byte in _PLAIN else "-" if byte == ord("/") else f"%{byte:02X}" for byte in range(256)
]
_ESCAPE: Final = re.compile(rb"%([0-9A-F]{2})")

assert len(set(_ENCODED)) == 256, "each byte has a spelling of its own"


def subject_of(topic: bytes, prefix: str = "") -> str:
    """Return the subject of a topic, with or without its padding; prefix is words that go before.

    Raises ValueError if it is no topic of a record: it has to be UTF-8, with an exchange, and no word may be empty.
    """
    name = topic.rstrip(b"\0")
    try:
        name.decode()
    except UnicodeDecodeError as exc:
        raise ValueError(f"topic {name!r} is not UTF-8") from exc
    words = name.split(b".", WORDS_MAX - 1)
    if len(words) < 2 or not all(words):
        raise ValueError(f"topic {name!r} is not KIND.EXCHANGE or KIND.EXCHANGE.SYMBOL")
    encoded = ["".join([_ENCODED[byte] for byte in word]) for word in words]
    return ".".join([prefix, *encoded] if prefix else encoded)


def topic_of(subject: str, prefix: str = "") -> bytes:
    """Return the topic, unpadded, that has this subject. Raises DecodeError if none has."""
    start = f"{prefix}." if prefix else ""
    words = subject[len(start) :].split(".")
    is_ours = subject.startswith(start) and 2 <= len(words) <= WORDS_MAX
    if not is_ours or not all(_WORD.fullmatch(word) for word in words):
        raise DecodeError(f"{subject!r} is the subject of no topic")
    topic = b".".join(_decoded(word) for word in words)
    try:
        is_true = subject_of(topic, prefix) == subject
    except ValueError:
        is_true = False
    if not is_true:
        raise DecodeError(f"{subject!r} is the subject of no topic")
    return topic


def own_subject(prefix: str = "") -> str:
    """Return where the bridge publishes its own status."""
    words = [wire.KIND_NAMES[wire.STATUS], BRIDGE]
    return ".".join([prefix, *words] if prefix else words)


def stream_subjects(prefix: str = "") -> list[str]:
    """Return the subjects of everything that the bridge publishes, as a JetStream stream names them."""
    if prefix:
        return [f"{prefix}.>"]
    return [f"{word}.>" for word in wire.TOPIC_WORDS]


def _decoded(word: str) -> bytes:
    plain = word.replace("-", "/").encode()
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), plain)
