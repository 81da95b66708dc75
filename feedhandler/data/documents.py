"""Documents: records with a JSON body, for what is rare. `docs/wire.md` lists their keys."""

from typing import Any, Final

import msgspec

from feedhandler.data.errors import DecodeError
from feedhandler.data.header import HEADER, Record
from feedhandler.data.layout import Body, Description, Retention


class Document(Record):
    """A record with a JSON body: status, instruments, heartbeat or notice."""

    body: bytes = b""

    def decode(self) -> Any:
        """Return the body as Python objects. Raises DecodeError if it is not JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise DecodeError(f"{self.topic}: body is not JSON: {exc}") from exc


def _document(code: int, name: str, meaning: str, *, has_topics: bool = True) -> Description:
    return Description(code, name, meaning, Retention.LATEST, Document, HEADER, Body.JSON, has_topics)


STATUS: Final = _document(2, "status", "JSON: how an exchange is doing")
INSTRUMENTS: Final = _document(3, "instruments", "JSON: an exchange's instruments")
HEARTBEAT: Final = _document(4, "heartbeat", "JSON: the merger lives")
# To one subscriber, about itself: its topic is the mode that was declared.
NOTICE: Final = _document(
    5, "notice", "JSON: to one subscriber, about its mode, or what it missed", has_topics=False
)
