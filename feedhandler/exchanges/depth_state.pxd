cimport cython
from libc.stdint cimport int64_t, uint16_t, uint64_t

from feedhandler.data cimport raw
from feedhandler.data.levels cimport Levels
from feedhandler.exchanges.arbitration cimport Arbitration
from feedhandler.exchanges.state cimport State

cdef Py_ssize_t _RECORD_SIZE, _SEQUENCE_OFFSET, _BODY_OFFSET, _BODY_SIZE, _ASK_COUNT_OFFSET, _BIDS_OFFSET, _ASKS_OFFSET
cdef uint16_t _NOT_LIVE, _INVALID


cdef class DepthState(State):
    cdef public uint64_t exchange_sequence
    cdef readonly bint is_crossed
    cdef Arbitration _order
    cdef Levels _bids, _asks
    cdef bytearray _body, _before

    cpdef bint replace(self, bytes bids, bytes asks, int64_t recv_ns) except -1
    @cython.locals(flags=uint16_t, was_known=bint)
    cpdef bint update(self, Levels bids, Levels asks, int64_t recv_ns) except -1
    @cython.locals(body=bytearray)
    cdef int _write(self, Levels bids, Levels asks) except -1
