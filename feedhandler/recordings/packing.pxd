cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t

from feedhandler.data cimport raw

cdef dict _WHATS
cdef uint8_t _REPEATED, _RECEIVED, _SENT
cdef Py_ssize_t _ITEM_SIZE, _WHAT_OFFSET, _CONNECTION_SIZE_OFFSET, _NAME_SIZE_OFFSET
cdef Py_ssize_t _NUMBER_OFFSET, _WALL_NS_OFFSET, _MONO_NS_OFFSET


@cython.final
cdef class Unpacked:
    cdef bytes _data
    cdef Py_ssize_t _position
    cdef dict _connections

    @cython.locals(
        data=bytes, position=Py_ssize_t, end=Py_ssize_t, what=uint8_t, name_at=Py_ssize_t, data_at=Py_ssize_t, name=bytes
    )
    cdef _next(self)


@cython.locals(name_at=Py_ssize_t, size=Py_ssize_t, end=Py_ssize_t)
cpdef Py_ssize_t put_frame(
    bytearray target,
    Py_ssize_t at,
    uint8_t what,
    bytes connection,
    uint64_t number,
    int64_t wall_ns,
    int64_t mono_ns,
    payload,
) except -1


@cython.locals(left=Py_ssize_t, size=Py_ssize_t, connection_size=Py_ssize_t, name_size=Py_ssize_t)
cpdef Py_ssize_t size_at(data, Py_ssize_t position) except -1


@cython.final
cdef class ConnectionFrames:
    cdef readonly uint64_t first_received, last_received, first_sent, last_sent


@cython.final
cdef class FrameCounts:
    cdef readonly dict connections
    cdef readonly int64_t received, sent, first_ns, last_ns

    cpdef clear(self)
    @cython.locals(
        at=Py_ssize_t, size=Py_ssize_t, what=uint8_t, connection_size=Py_ssize_t, head_size=Py_ssize_t, wall_ns=int64_t,
        number=uint64_t, frames=ConnectionFrames,
    )
    cpdef Py_ssize_t take(self, items, Py_ssize_t start, Py_ssize_t room) except -1
    @cython.locals(frames=ConnectionFrames)
    cdef ConnectionFrames _of(self, bytes connection)
