# The function of unpacked.py, for compiled modules: `from feedhandler.data cimport unpacked`.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from feedhandler.data cimport raw

cdef enum:
    SIZE = 192  # of a ticker


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
