cimport cython
from libc.stdint cimport int64_t, uint16_t, uint64_t

from feedhandler.data cimport raw
from feedhandler.exchanges.state cimport State

cdef Py_ssize_t _LEVELS_MAX, _LEVEL_SIZE, _SIZE_OFFSET, _DEPTH_MAX, _RECORD_SIZE, _SEQUENCE_OFFSET, _BODY_OFFSET
cdef Py_ssize_t _BODY_SIZE, _ASK_COUNT_OFFSET, _BIDS_OFFSET, _ASKS_OFFSET, _SIDE_SIZE
cdef uint16_t _NOT_LIVE, _INVALID
cdef double _NAN
cdef bytes _NONE


@cython.final
cdef class Levels:
    cdef readonly bint is_bids
    cdef readonly Py_ssize_t count
    cdef bytearray _data

    cpdef clear(self)
    cpdef replace(self, levels)
    @cython.locals(price=double, size=double)
    cpdef change(self, levels)
    @cython.locals(at=Py_ssize_t, count=Py_ssize_t, is_there=bint)
    cpdef set(self, double price, double size)
    cpdef cut(self, Py_ssize_t count)
    cpdef double best(self) except? -1
    cpdef double worst(self) except? -1
    @cython.locals(at=Py_ssize_t, is_there=bint)
    cpdef Py_ssize_t count_to(self, double price) except -1
    @cython.locals(at=Py_ssize_t)
    cpdef double size_at(self, double price) except? -1
    @cython.locals(count=Py_ssize_t, used=Py_ssize_t)
    cpdef Py_ssize_t copy_best(self, bytearray target, Py_ssize_t start) except -1
    @cython.locals(low=Py_ssize_t, high=Py_ssize_t, middle=Py_ssize_t, other=double)
    cdef Py_ssize_t _place(self, double price) except -1
    cdef int _move(self, Py_ssize_t start, Py_ssize_t to, Py_ssize_t count) except -1


cdef class DepthState(State):
    cdef public uint64_t exchange_sequence
    cdef readonly bint is_crossed
    cdef Levels _bids, _asks
    cdef bytearray _body, _before

    cpdef bint replace(self, bids, asks, int64_t recv_ns) except -1
    @cython.locals(flags=uint16_t, was_known=bint)
    cpdef bint update(self, Levels bids, Levels asks, int64_t recv_ns) except -1
    @cython.locals(body=bytearray)
    cdef int _write(self, Levels bids, Levels asks) except -1
