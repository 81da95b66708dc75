"""System calls of the hot path: what a socket sends and receives, and what is ready.

`calls.pxd` has the same functions for compiled modules, without an object for each; the two files change together.
What is read and written lies within the buffer, or IndexError is raised.
"""

import os
import select
import struct
import time
from collections.abc import Callable
from typing import Final

BEYOND: Final = "beyond the buffer"
READY: Final = struct.Struct("<II")  # of one that is ready: what for, and its file descriptor
READY_SIZE = READY.size
GONE = -1


def send(fd: int, buffer: bytearray, start: int, end: int) -> int:
    """Send what the kernel takes of a part; returns how many bytes, 0 if none now, GONE if nothing will be."""
    if not 0 <= start <= end <= len(buffer):
        raise IndexError(BEYOND)
    try:
        return os.write(fd, memoryview(buffer)[start:end])
    except BlockingIOError:
        return 0
    except OSError:
        return GONE


def receive(fd: int, buffer: bytearray, start: int, end: int) -> int:
    """Receive into a part; returns how many bytes, 0 if none now, GONE if nothing will come."""
    if not 0 <= start <= end <= len(buffer):
        raise IndexError(BEYOND)
    try:
        return os.readv(fd, [memoryview(buffer)[start:end]]) or GONE
    except BlockingIOError:
        return 0
    except OSError:
        return GONE


def wait(epoll: select.epoll, fd: int, found: bytearray, timeout_ms: int, is_alone: bool) -> int:
    """Wait for what is ready, and write down as much as there is room for; fd is the epoll's. Returns how many.

    is_alone: other threads need not run meanwhile.
    """
    count = len(found) // READY_SIZE
    ready = epoll.poll(timeout_ms / 1000, count)
    for index, (its_fd, mask) in enumerate(ready):
        READY.pack_into(found, index * READY_SIZE, mask, its_fd)
    return len(ready)


def monotonic_ns() -> int:
    """Return the time of the clock that is never set."""
    return time.monotonic_ns()


def clock_of(clock: Callable[[], int]) -> Callable[[], int] | None:
    """Return what `unix_ns` reads a clock by: None for the system's, which takes no call."""
    return None if clock is time.time_ns else clock


def unix_ns(clock: Callable[[], int] | None) -> int:
    """Return the time in Unix nanoseconds."""
    return time.time_ns() if clock is None else clock()
