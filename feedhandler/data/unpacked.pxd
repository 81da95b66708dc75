# The functions of unpacked.py, for compiled modules: `from feedhandler.data cimport unpacked`.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from feedhandler.data cimport raw

cdef enum:
    SIZE = 192  # of a ticker
    TRADE_SIZE = 176
    ID_OFFSET = 136  # of the text at its end
    DEPTH_SIZE = 760
    BIDS_OFFSET = 120
    ASKS_OFFSET = 440
    SIDE_SIZE = 320
    BOOK_SIZE = 128  # without levels


# As in raw.pxd, of memory that was looked at before: once for a record, and not for each of its numbers.
cdef inline uint16_t _u16(const uint8_t* at) noexcept:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return value


cdef inline uint32_t _u32(const uint8_t* at) noexcept:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline uint64_t _u64(const uint8_t* at) noexcept:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return value


cdef inline int64_t _i64(const uint8_t* at) noexcept:
    return <int64_t>_u64(at)


cdef inline double _f64(const uint8_t* at) noexcept:
    cdef double value
    memcpy(&value, at, 8)
    return value


cdef inline object ticker(make, str topic, kind, flags_of, bytes data, Py_ssize_t start):
    cdef const uint8_t* at = raw.readable(data, start, SIZE)
    return make(
        topic,
        at[64],
        kind,
        flags_of[_u16(at + 66)],
        _u32(at + 68),
        _u64(at + 72),
        _i64(at + 80),
        _i64(at + 88),
        _i64(at + 96),
        _u64(at + 104),
        _f64(at + 112),
        _f64(at + 120),
        _f64(at + 128),
        _f64(at + 136),
        _f64(at + 144),
        _f64(at + 152),
        _f64(at + 160),
        _f64(at + 168),
        _f64(at + 176),
        _f64(at + 184),
    )


cdef inline object trade(make, str topic, kind, flags_of, dict sides, bytes data, Py_ssize_t start):
    cdef const uint8_t* at = raw.readable(data, start, TRADE_SIZE)
    cdef object side = at[132]
    return make(
        topic,
        at[64],
        kind,
        flags_of[_u16(at + 66)],
        _u32(at + 68),
        _u64(at + 72),
        _i64(at + 80),
        _i64(at + 88),
        _i64(at + 96),
        _u64(at + 104),
        _f64(at + 112),
        _f64(at + 120),
        _u32(at + 128),
        sides.get(side, side),
        at[133],
        _u16(at + 134),
        raw.cut(data, start + ID_OFFSET, TRADE_SIZE - ID_OFFSET).rstrip(b"\0").decode("utf-8", "replace"),
    )


cdef inline object depth(make, str topic, kind, flags_of, bytes data, Py_ssize_t start):
    cdef const uint8_t* at = raw.readable(data, start, DEPTH_SIZE)
    return make(
        topic,
        at[64],
        kind,
        flags_of[_u16(at + 66)],
        _u32(at + 68),
        _u64(at + 72),
        _i64(at + 80),
        _i64(at + 88),
        _i64(at + 96),
        _u64(at + 104),
        _u16(at + 112),
        _u16(at + 114),
        _u32(at + 116),
        raw.cut(data, start + BIDS_OFFSET, SIDE_SIZE),
        raw.cut(data, start + ASKS_OFFSET, SIDE_SIZE),
    )


cdef inline object book(make, str topic, kind, flags_of, bytes data, Py_ssize_t start, Py_ssize_t size):
    cdef const uint8_t* at = raw.readable(data, start, BOOK_SIZE)
    return make(
        topic,
        at[64],
        kind,
        flags_of[_u16(at + 66)],
        _u32(at + 68),
        _u64(at + 72),
        _i64(at + 80),
        _i64(at + 88),
        _i64(at + 96),
        _u64(at + 104),
        _u64(at + 112),
        _u16(at + 120),
        _u16(at + 122),
        _u16(at + 124),
        _u16(at + 126),
        raw.cut(data, start + BOOK_SIZE, size - BOOK_SIZE),
    )
