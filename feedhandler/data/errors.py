"""Every error the project raises on purpose; the type decides what the process does.

| error | who is wrong | what happens |
| --- | --- | --- |
| `ConfigError` | us, before start | stop with `EXIT_CONFIG`, name the file and the key |
| `SubscriptionRejected` | usually the configuration | that symbol is reported, the others stream on |
| `DecodeError` | one message | counted, its first bytes kept, dropped |
| `ProtocolError` | the exchange | a new connection, after a back-off |
"""

from typing import Final

import msgspec

EXIT_OK = 0
EXIT_FAILED = 1  # the command ran, and what it was to do did not happen
EXIT_CONFIG = 2  # the configuration or the arguments are wrong: starting again will not help
EXIT_GAVE_UP = 75  # EX_TEMPFAIL: `max_attempts` connections in a row came to nothing; supervisord decides

# Everything that msgspec raises for bytes that are not what was expected; RecursionError: "[[[[[…".
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def one_line(text: object) -> str:
    """Return a message in one line, however a library has laid it out."""
    lines = (line.strip() for line in str(text).splitlines())
    return " ".join(line for line in lines if line)


class FeedError(Exception):
    """Base of all errors that the project raises on purpose; its message has one line, whoever is quoted in it."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigError(FeedError):
    """The configuration cannot be used; the message names file, key and remedy."""


class SubscriptionRejected(FeedError):
    """A wanted symbol cannot be had from this exchange; retrying will not help."""


class DecodeError(FeedError):
    """One message is not what the exchange documents; it says nothing of when to ask again."""

    retry_after_s: Final = 0.0


class ProtocolError(FeedError):
    """The exchange broke its own protocol, or ended the conversation.

    retry_after_s is for how long it wants no requests, 0 if it states none.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
