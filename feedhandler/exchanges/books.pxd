cimport cython
from libc.stdint cimport int64_t

from feedhandler.data.levels cimport Levels, pack_levels, pairs_of
from feedhandler.exchanges.depth_state cimport DepthState


@cython.final
cdef class LineBook:
    cdef object _rule
    cdef bint _has_level_ids, _is_linked
    cdef Py_ssize_t _levels_max
    cdef readonly Levels bids, asks
    cdef readonly bint is_known
    cdef readonly object last_id  # of up to 64 bits, and compared with the next one: a number of Python's
    cdef readonly double known_from, known_to
    cdef public int64_t exchange_ns, recv_ns, order
    cdef public bint is_joining
    cdef int64_t _crossed_ns, _old_ns

    cpdef judge(self, first_id, last_id)
    @cython.locals(bid_edge=double, ask_edge=double, known_from=double, known_to=double)
    cpdef list take(self, first_id, last_id, bids, asks)
    @cython.locals(is_open=bint)
    cdef double _edge(self, Levels side, double known) except? -1
    cdef bytes _packed(self, levels)
    cdef _changes(self, levels)
    cdef _prune(self)
    cpdef bint runs_out(self, Py_ssize_t count) except -1
    cpdef bint stays_crossed(self, int64_t recv_ns) except -1


cdef class BookDepthState(DepthState):
    cdef readonly list books
    cdef list _asked_ns
