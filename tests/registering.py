"""Kinds that exist in tests alone: what a file of their own and a line of the registry make of others."""

import contextlib
import struct

from feedhandler.data import kinds, wire
from feedhandler.data.layout import Body, Retention
from feedhandler.transport import subscribing

TABLES = (
    *(kinds.BY_CODE, kinds.NAMES, kinds.EVERY),
    *(wire.PACKINGS, wire.COUNTS, wire.READINGS, wire.TEXTS, wire.SIZES),
)


@contextlib.contextmanager
def registered(*descriptions):
    """Have these kinds as well, for a while."""
    before, records = [table.copy() for table in TABLES], subscribing.RECORDS
    for kind in descriptions:
        code, counts = kind.code, wire.counts_of(kind)
        kinds.BY_CODE[code], kinds.NAMES[code] = kind, kind.name
        kinds.EVERY[code] = kind.retention is Retention.EVERY
        wire.PACKINGS[code] = struct.Struct(kind.layout.format)
        wire.READINGS[code], wire.TEXTS[code] = wire.readings_of(kind), wire.texts_of(kind)
        wire.COUNTS[code], wire.SIZES[code] = counts, wire.COUNTED if counts else kind.size
        if kind.has_topics and kind.body is not Body.JSON:
            subscribing.RECORDS = (*subscribing.RECORDS, f"{kind.name}.".encode())
    try:
        yield
    finally:
        subscribing.RECORDS = records
        for table, was in zip(TABLES, before, strict=True):
            if isinstance(table, list):
                table[:] = was
            else:
                table.clear()
                table.update(was)
