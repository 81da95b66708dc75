"""Condition: STALE, DOWN or INVALID of a topic whose kind keeps every record, of which none may be repeated.

Its topic is the one that it is about, its sequence that of the topic's last record (0: none yet); it takes no
number itself. It holds until the topic's next record or condition, INVALID until its next snapshot.
"""

from typing import Final

from feedhandler.data.header import HEADER, Record
from feedhandler.data.layout import Description, Retention, layout

CODE: Final = 11


class Condition(Record):
    """The condition of a topic, in its flags."""

    kind: int = CODE


CONDITION: Final = Description(
    CODE,
    "condition",
    "header only: the flags of a topic whose kind keeps every record",
    Retention.LATEST,
    Condition,
    layout("condition", "STALE, DOWN or INVALID of a topic, without a record of it", Condition, HEADER),
    has_topics=False,
)
assert CONDITION.size == HEADER.size
