"""Numbers and bytes in records and queues: the one place where the hot path reads and writes memory.

Every function looks whether what it reads or writes lies within the buffer, and raises IndexError if it does not.
`raw.pxd` has the same functions for compiled modules, which take them from there (`cimport`); the two files change
together, and tests/data/test_raw.py runs both. Little-endian, but for those named big.
"""

import struct
from collections.abc import Callable
from typing import Any, Final

Buffer = bytes | bytearray

BEYOND: Final = "beyond the buffer"


def _getter(code: str) -> Callable[[Buffer, int], Any]:
    layout = struct.Struct(code)

    def get(buffer: Buffer, at: int) -> Any:
        if not 0 <= at <= len(buffer) - layout.size:
            raise IndexError(BEYOND)
        return layout.unpack_from(buffer, at)[0]

    return get


def _putter(code: str) -> Callable[[bytearray, int, Any], None]:
    layout = struct.Struct(code)

    def put(buffer: bytearray, at: int, value: Any) -> None:
        if not 0 <= at <= len(buffer) - layout.size:
            raise IndexError(BEYOND)
        layout.pack_into(buffer, at, value)

    return put


get_u8: Callable[[Buffer, int], int] = _getter("<B")
get_u16: Callable[[Buffer, int], int] = _getter("<H")
get_u32: Callable[[Buffer, int], int] = _getter("<I")
get_u64: Callable[[Buffer, int], int] = _getter("<Q")
get_i64: Callable[[Buffer, int], int] = _getter("<q")
get_f64: Callable[[Buffer, int], float] = _getter("<d")
get_u64_big: Callable[[Buffer, int], int] = _getter(">Q")

put_u8: Callable[[bytearray, int, int], None] = _putter("<B")
put_u16: Callable[[bytearray, int, int], None] = _putter("<H")
put_u32: Callable[[bytearray, int, int], None] = _putter("<I")
put_u64: Callable[[bytearray, int, int], None] = _putter("<Q")
put_i64: Callable[[bytearray, int, int], None] = _putter("<q")
put_f64: Callable[[bytearray, int, float], None] = _putter("<d")
put_u64_big: Callable[[bytearray, int, int], None] = _putter(">Q")


def size(buffer: Buffer) -> int:
    """Return how many bytes it has: compiled, without the call that `len` is where the type is not known."""
    return len(buffer)


def copy(target: bytearray, at: int, source: Buffer, start: int, size: int) -> None:
    """Copy so many bytes; the two may be the same buffer, and overlap in it."""
    if size < 0 or not (0 <= at <= len(target) - size and 0 <= start <= len(source) - size):
        raise IndexError(BEYOND)
    target[at : at + size] = source[start : start + size]


def copy_all(target: bytearray, at: int, source: Buffer | memoryview) -> int:
    """Copy all of a buffer, which may be another's memory, lent as a view; returns how many bytes."""
    size = len(source)
    if not 0 <= at <= len(target) - size:
        raise IndexError(BEYOND)
    target[at : at + size] = source
    return size


def count_before(buffer: Buffer, at: int, step: int, count: int, value: float, is_falling: bool) -> int:
    """Return how many of so many f64, one at each step, come before a value: the larger ones, if they fall."""
    if count <= 0:
        return 0
    if step < 8 or not 0 <= at <= len(buffer) - (count - 1) * step - 8:
        raise IndexError(BEYOND)
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        other = get_f64(buffer, at + middle * step)
        if (other > value) if is_falling else (other < value):
            low = middle + 1
        else:
            high = middle
    return low


def cut(source: Buffer, start: int, size: int) -> bytes:
    """Return so many bytes."""
    if size < 0 or not 0 <= start <= len(source) - size:
        raise IndexError(BEYOND)
    return bytes(source[start : start + size])


def get_levels(text: Buffer | memoryview) -> bytes | None:
    """Return the pairs of JSON such as `[["100.25","3"],["100.5","0"]]` as f64, side by side.

    None where that is for a library: always in Python, and compiled if it is written in another way, or a number
    takes more than one division.
    """
    return None
