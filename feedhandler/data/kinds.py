"""The kinds of records, one line each: what is not listed here does not exist."""

import enum
from typing import Final, Self

from feedhandler.data import book, condition, contract, depth, documents, liquidation, ticker, trade
from feedhandler.data.layout import Body, Description, Retention


class Kind(enum.IntEnum):
    """The kinds. What is read from records is of this type, or a plain number if it is not known here."""

    description: Description

    def __new__(cls, description: Description) -> Self:
        self = int.__new__(cls, description.code)
        self._value_ = description.code
        self.description = description
        return self

    TICKER = ticker.TICKER
    STATUS = documents.STATUS
    INSTRUMENTS = documents.INSTRUMENTS
    HEARTBEAT = documents.HEARTBEAT
    NOTICE = documents.NOTICE
    TRADE = trade.TRADE
    DEPTH = depth.DEPTH
    BOOK = book.BOOK
    CONTRACT = contract.CONTRACT
    LIQUIDATION = liquidation.LIQUIDATION
    CONDITION = condition.CONDITION

    def __str__(self) -> str:
        return self.description.name

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


KINDS: Final = tuple(kind.description for kind in Kind)
BY_CODE: Final = {kind.code: kind for kind in KINDS}
assert len(Kind.__members__) == len(BY_CODE) == len({kind.name for kind in KINDS}), "a code or a name twice"
assert all(0 < kind.code < 256 for kind in KINDS)
assert all(kind.name == kind.description.name.upper() for kind in Kind)
NAMES: Final[dict[int, str]] = {kind.code: kind.name for kind in KINDS}
TOPIC_WORDS: Final = tuple(kind.name for kind in KINDS if kind.has_topics)  # that topics begin with

RECORD_WORDS: Final = tuple(kind.name for kind in KINDS if kind.has_topics and kind.body is not Body.JSON)
DOCUMENTS: Final = frozenset(kind.code for kind in KINDS if kind.body is Body.JSON)
EVERY: Final = [code in BY_CODE and BY_CODE[code].retention is Retention.EVERY for code in range(256)]


def named(name: str) -> Description:
    """Return the kind of a name. Raises KeyError if there is none."""
    for kind in BY_CODE.values():
        if kind.name == name:
            return kind
    raise KeyError(name)


def keeps_every(code: int) -> bool:
    """True for a kind of which each record counts, once; conditions are about such."""
    return EVERY[code]
