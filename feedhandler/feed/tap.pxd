cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t

from feedhandler.data cimport raw
from feedhandler.recordings cimport packing

cdef Py_ssize_t _BATCH_SIZE, _ITEM_SIZE
cdef uint8_t _SENT, _RECEIVED


@cython.final
cdef class Tap:
    cdef object _send, _wall_ns, _mono_ns, _soon, _flush
    cdef bytearray _batch
    cdef Py_ssize_t _used
    cdef int64_t _items
    cdef bint _is_full
    cdef object _held, _greeting, _plan, _lists
    cdef int64_t _held_size, _dropped, _answers
    cdef tuple _dropped_ns
    cdef readonly int64_t dropped
    cdef dict _serials, _opened
    cdef list _planned

    @cython.locals(at=Py_ssize_t)
    cpdef frame(self, uint8_t what, bytes connection, uint64_t number, int64_t wall_ns, payload)
    @cython.locals(used=Py_ssize_t, capacity=Py_ssize_t)
    cdef Py_ssize_t _room(self, Py_ssize_t size) except -1
    cpdef flush(self)


@cython.final
cdef class TappedConnection:
    cdef Tap _tap
    cdef object _next
    cdef readonly str _name
    cdef bytes _bytes
    cdef readonly uint64_t received, sent

    cpdef on_frame(self, payload, recv_ns)
