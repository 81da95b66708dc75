"""What the hot path calls on what it is given: base classes, so that compiled code calls compiled code directly.

A record crosses five of these on its way, and a call by name is looked up each time; a method of a class with a
base here is found without a name. Python classes may have these bases as well. Compiled where there is a
compiler, with the types of `contracts.pxd`.
"""

from collections.abc import Callable


class Readable:
    """A connection that a loop looks after."""

    def read(self) -> None:
        """Take what the kernel has."""
        raise NotImplementedError


class Sink:
    """Takes messages."""

    def take(self, data: bytes) -> None:
        """Take one message."""
        raise NotImplementedError

    def flush(self) -> None:
        """What was read together has been taken."""


class Called(Sink):
    """Hands messages to a callable."""

    def __init__(self, callback: Callable[[bytes], object]) -> None:
        self._callback = callback

    def take(self, data: bytes) -> None:
        self._callback(data)


def sink_of(target: Sink | Callable[[bytes], object]) -> Sink:
    """Return what hands messages to a sink, or to a callable."""
    return target if isinstance(target, Sink) else Called(target)


class Fanout:
    """The way to subscribers; it copies messages. is_wanted: while at least one subscription covers records."""

    def __init__(self) -> None:
        self.is_wanted = False

    def send(self, topic: bytes, message: bytes | bytearray) -> None:
        """Queue one message under its topic, padded."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send what is queued."""
        raise NotImplementedError


class Slot:
    """Where one topic's records are written, under that topic, as published at a time in Unix nanoseconds."""

    def write(self, record: bytes | bytearray, publish_ns: int) -> None:
        """Write a record."""
        raise NotImplementedError

    def newest(self) -> bytes | None:
        """Return the newest record, None if there is none yet."""
        raise NotImplementedError
