"""Memory that processes share: words stored and loaded in an order, and what happens when its file is cut short.

Compiled, this is `memory.pyx`, with atomic operations, which Python has none of, and a handler of SIGBUS. Here
an aligned word is stored and loaded by one instruction (`memoryview.cast("Q")`), in the order of the program: on
x86-64 that is all that is needed. Processors of weaker order (aarch64) may show stores in another: there the
compiled form is the one to use.
"""

import mmap
import time
from typing import Final

WORD: Final = 8
BEYOND: Final = "beyond the memory, or not aligned"
READ_ONLY: Final = "memory that is read only"


def mapped(file: mmap.mmap) -> memoryview:
    """Return the bytes of a mapped file. Compiled, they survive its being cut short; these cannot."""
    return memoryview(file)


class Memory:
    """Some bytes that others write or read at the same time. Every call looks that it stays within them."""

    def __init__(self, file: mmap.mmap | memoryview) -> None:
        self._bytes = memoryview(file)
        self.size = len(self._bytes)
        self.is_writable = not self._bytes.readonly
        self._words = self._bytes[: self.size // WORD * WORD].cast("Q")

    def load(self, at: int) -> int:
        """Return a word, and have seen all that was written before it."""
        return self._words[self._checked(at, WORD) // WORD]

    def cut(self, at: int, size: int) -> bytes:
        """Return bytes that nobody changes meanwhile."""
        if size < 0 or not 0 <= at <= self.size - size:
            raise IndexError(BEYOND)
        return bytes(self._bytes[at : at + size])

    def paste(self, at: int, data: bytes) -> None:
        """Write bytes that nobody reads meanwhile."""
        if not self.is_writable:
            raise BufferError(READ_ONLY)
        if not 0 <= at <= self.size - len(data):
            raise IndexError(BEYOND)
        self._bytes[at : at + len(data)] = data

    def put(self, at: int, number: int, newest_at: int, record: bytes | bytearray, start: int) -> None:
        """Write a record's words from start on behind a stamp, then its number: who reads meanwhile sees which.

        The stamp is twice the number, and odd while the record is being written.
        """
        if not self.is_writable:
            raise BufferError(READ_ONLY)
        size = len(record)
        self._checked(at, WORD + size)
        self._checked(newest_at, WORD)
        if size % WORD or start % WORD or not 0 <= start <= size:
            raise IndexError(BEYOND)
        self._words[at // WORD] = 2 * number - 1
        self._bytes[at + WORD + start : at + WORD + size] = record[start:]
        self._words[at // WORD] = 2 * number
        self._words[newest_at // WORD] = number

    def take(self, at: int, number: int, size: int) -> bytes | None:
        """Return the record of a number from behind its stamp; None if it is another one, or being written."""
        self._checked(at, WORD + size)
        if size < 0 or size % WORD:
            raise IndexError(BEYOND)
        if self._words[at // WORD] != 2 * number:
            return None
        record = bytes(self._bytes[at + WORD : at + WORD + size])
        return record if self._words[at // WORD] == 2 * number else None

    def put_guarded(self, at: int, data: bytes | bytearray, guard_at: int, guard: int) -> None:
        """Write bytes to whole words, after a guard by which who reads there meanwhile knows it."""
        if not self.is_writable:
            raise BufferError(READ_ONLY)
        size = -(-len(data) // WORD) * WORD
        self._checked(at, size)
        self._checked(guard_at, WORD)
        self._words[guard_at // WORD] = guard
        self._bytes[at : at + size] = bytes(data).ljust(size, b"\0")

    def take_guarded(self, at: int, size: int, guard_at: int, guard_max: int) -> bytes | None:
        """Return so many bytes; None if the guard is more than it may be: they may have been written over."""
        if size < 0:
            raise IndexError(BEYOND)
        self._checked(at, -(-size // WORD) * WORD)
        self._checked(guard_at, WORD)
        data = bytes(self._bytes[at : at + size])
        return data if self._words[guard_at // WORD] <= guard_max else None

    def wait(self, at: int, value: int, spin_ns: int) -> bool:
        """Look until a word has another value, awake, for so long at most; True if it has."""
        index = self._checked(at, WORD) // WORD
        deadline = time.monotonic_ns() + spin_ns
        while self._words[index] == value:
            if time.monotonic_ns() >= deadline:
                return False
        return True

    def _checked(self, at: int, size: int) -> int:
        if at % WORD or not 0 <= at <= self.size - size:
            raise IndexError(BEYOND)
        return at
