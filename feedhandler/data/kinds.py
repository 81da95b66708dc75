"""The kinds of records, one line each: what is not listed here does not exist."""

from typing import Final

from feedhandler.data import condition, documents, ticker
from feedhandler.data.layout import Body, Kind

KINDS: Final[tuple[Kind, ...]] = (
    ticker.KIND,
    documents.STATUS,
    documents.INSTRUMENTS,
    documents.HEARTBEAT,
    documents.NOTICE,
    condition.KIND,
)

BY_CODE: Final = {kind.code: kind for kind in KINDS}
assert len(BY_CODE) == len({kind.name for kind in KINDS}) == len(KINDS), "a code or a name twice"
assert all(0 < kind.code < 256 for kind in KINDS)
NAMES: Final = {kind.code: kind.name for kind in KINDS}
TOPIC_WORDS: Final = tuple(kind.name for kind in KINDS if kind.has_topics)  # that topics begin with
DOCUMENTS: Final = frozenset(kind.code for kind in KINDS if kind.body is Body.JSON)
