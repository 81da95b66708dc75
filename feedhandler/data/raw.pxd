# The functions of raw.py, for compiled modules: `from feedhandler.data cimport raw`. They take bytes and bytearrays
# alone, and each looks whether what it reads or writes lies within the buffer, as that is then.

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove


cdef extern from *:
    """
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "numbers are copied as they are, little-endian"
    #endif
    """


cdef inline const uint8_t* readable(object buffer, Py_ssize_t at, Py_ssize_t size) except NULL:
    """Return where so many bytes may be read, until something else is done with the buffer."""
    cdef const uint8_t* data
    cdef Py_ssize_t length
    if PyBytes_CheckExact(buffer):
        data, length = <const uint8_t*>PyBytes_AS_STRING(buffer), PyBytes_GET_SIZE(buffer)
    elif PyByteArray_CheckExact(buffer):
        data, length = <const uint8_t*>PyByteArray_AS_STRING(buffer), PyByteArray_GET_SIZE(buffer)
    else:
        raise TypeError("neither bytes nor a bytearray")
    if at < 0 or size < 0 or at > length or size > length - at:
        raise IndexError("beyond the buffer")
    return data + at


cdef inline uint8_t* writable(object buffer, Py_ssize_t at, Py_ssize_t size) except NULL:
    """Return where so many bytes may be written, until something else is done with the buffer."""
    cdef Py_ssize_t length
    if not PyByteArray_CheckExact(buffer):
        raise TypeError("not a bytearray")
    length = PyByteArray_GET_SIZE(buffer)
    if at < 0 or size < 0 or at > length or size > length - at:
        raise IndexError("beyond the buffer")
    return <uint8_t*>PyByteArray_AS_STRING(buffer) + at


cdef inline uint8_t get_u8(object buffer, Py_ssize_t at) except? 255:
    return readable(buffer, at, 1)[0]


cdef inline uint16_t get_u16(object buffer, Py_ssize_t at) except? 65535:
    cdef uint16_t value
    memcpy(&value, readable(buffer, at, 2), 2)
    return value


cdef inline uint32_t get_u32(object buffer, Py_ssize_t at) except? 4294967295:
    cdef uint32_t value
    memcpy(&value, readable(buffer, at, 4), 4)
    return value


cdef inline uint64_t get_u64(object buffer, Py_ssize_t at) except? 18446744073709551615:
    cdef uint64_t value
    memcpy(&value, readable(buffer, at, 8), 8)
    return value


cdef inline int64_t get_i64(object buffer, Py_ssize_t at) except? -1:
    cdef int64_t value
    memcpy(&value, readable(buffer, at, 8), 8)
    return value


cdef inline double get_f64(object buffer, Py_ssize_t at) except? -1:
    cdef double value
    memcpy(&value, readable(buffer, at, 8), 8)
    return value


cdef inline uint64_t get_u64_big(object buffer, Py_ssize_t at) except? 18446744073709551615:
    cdef const uint8_t* data = readable(buffer, at, 8)
    cdef uint64_t value = 0
    cdef int i
    for i in range(8):
        value = value << 8 | data[i]
    return value


cdef inline int put_u8(object buffer, Py_ssize_t at, uint8_t value) except -1:
    writable(buffer, at, 1)[0] = value
    return 0


cdef inline int put_u16(object buffer, Py_ssize_t at, uint16_t value) except -1:
    memcpy(writable(buffer, at, 2), &value, 2)
    return 0


cdef inline int put_u32(object buffer, Py_ssize_t at, uint32_t value) except -1:
    memcpy(writable(buffer, at, 4), &value, 4)
    return 0


cdef inline int put_u64(object buffer, Py_ssize_t at, uint64_t value) except -1:
    memcpy(writable(buffer, at, 8), &value, 8)
    return 0


cdef inline int put_i64(object buffer, Py_ssize_t at, int64_t value) except -1:
    memcpy(writable(buffer, at, 8), &value, 8)
    return 0


cdef inline int put_f64(object buffer, Py_ssize_t at, double value) except -1:
    memcpy(writable(buffer, at, 8), &value, 8)
    return 0


cdef inline int put_u64_big(object buffer, Py_ssize_t at, uint64_t value) except -1:
    cdef uint8_t* data = writable(buffer, at, 8)
    cdef int i
    for i in range(8):
        data[i] = <uint8_t>(value >> (56 - 8 * i))
    return 0


cdef inline int copy(object target, Py_ssize_t at, object source, Py_ssize_t start, Py_ssize_t size) except -1:
    cdef const uint8_t* data = readable(source, start, size)
    memmove(writable(target, at, size), data, size)
    return 0


cdef inline bytes cut(object source, Py_ssize_t start, Py_ssize_t size):
    return PyBytes_FromStringAndSize(<const char*>readable(source, start, size), size)
