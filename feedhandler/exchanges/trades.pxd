cimport cython
from libc.stdint cimport int64_t, uint16_t

from feedhandler.exchanges.arbitration cimport Line
from feedhandler.exchanges.state cimport RecordState


@cython.final
cdef class TradeArbitration:
    cdef bint _is_consecutive
    cdef public list missing
    cdef public object given_up
    cdef readonly bint is_parted
    cdef readonly int64_t parts
    cdef int64_t _returned_ns, _returned_at
    cdef object _returned_number
    cdef readonly int64_t updates, update_id
    cdef dict _recent, _before
    cdef int64_t _recent_since_ns, _recent_ns, _before_ns, _forgotten_ns
    cdef readonly object number  # of up to 64 bits: a number of Python's
    cdef readonly int64_t first_ns
    cdef list _heard_ns, _first_heard_ns, _reached_ns, _earlier_ns, _began_ns, _holds

    @cython.locals(own=int, since_ns=int64_t)
    cpdef bint accept(
        self, Line line, key, int64_t time_ns, int64_t recv_ns, number=*, int64_t count=*
    ) except -1
    @cython.locals(is_before=bint)
    cdef bint _is_unwanted(self, int own, int64_t time_ns, int64_t recv_ns, number) except -1
    cdef _count(self, first_number, number, int64_t time_ns)
    @cython.locals(kept=Py_ssize_t, is_old=bint, is_later=bint)
    cdef _note(self, key, int own, int64_t time_ns, int64_t recv_ns, number, int64_t count=*)
    cdef int64_t _newest_ns(self) noexcept


cdef class TradeState(RecordState):
    cdef readonly TradeArbitration trades
    cdef public bint is_followed
    cdef bint _begins_with_last
    cdef int64_t _begun
    cdef list _held

    @cython.locals(trades=TradeArbitration, is_first=bint, newest_ns=int64_t)
    cpdef bint accept_trade(
        self, Line line, key, int64_t time_ns, int64_t recv_ns, number=*, int64_t count=*
    ) except -1
    cdef _emit(self, tuple held, emit)
