cimport cython
from libc.stdint cimport int64_t

cdef int _LINES_MAX, GAPS_MAX, NOBODY
cdef int64_t OVERTAKEN_NS, ANEW_NS, TINY


@cython.final
cdef class Line:
    cdef readonly int index
    cdef readonly int64_t group
    cdef public int64_t frames
    cdef public int64_t first
    cdef public int64_t duplicate
    cdef public int64_t late
    cdef public int64_t behind_ns


@cython.final
cdef class Arbitration:
    cdef readonly int64_t update_id
    cdef readonly int64_t updates
    cdef int64_t _epoch
    cdef int64_t _first_ns
    cdef int64_t _anew_ns
    cdef int64_t _before_id
    cdef bint _is_once
    cdef int _owner
    cdef int64_t[6] _ids
    cdef int64_t[6] _epochs
    cdef int64_t[6] _heard_ns
    cdef int64_t[6] _holds
    cdef tuple _gaps

    cpdef reset(self)
    cpdef renew(self, int line)
    cpdef inherit(self, int line)
    cpdef release(self, int line)
    @cython.locals(own=int, before_id=int64_t, is_overtaken=bint, is_present=bint, is_others=bint)
    cpdef bint accept(
        self, Line line, int64_t update_id, int64_t recv_ns, int64_t present_ns=*, bint is_live=*
    ) except -1
    cdef bint _is_overtaken(self, int64_t recv_ns) noexcept
    cdef bint _is_present(self, int64_t update_id, int64_t recv_ns, int64_t present_ns) noexcept
    cdef bint _is_newest(self, int own, int64_t update_id) noexcept
    @cython.locals(is_newer=bint)
    cdef bint _is_newer(self, int own, int64_t update_id) noexcept
    cdef void _note(self, int own, int64_t update_id, int64_t recv_ns) noexcept
    cdef void _take(self, int own, int64_t update_id, int64_t recv_ns) noexcept
    cdef _open_gap(self, int own, int64_t update_id)
    cdef bint _fill_gap(self, int own, int64_t update_id) except -1
    cdef _close_gaps(self, int own, int64_t before_id, int64_t update_id)
    cpdef bint is_kept(self, int line) except -1
    cpdef int64_t heard_ns(self, int line) except -1
    cpdef int64_t line_update_id(self, int line) except -1


cdef int _check(int line) except -1
cdef bint _is_far_below(int64_t update_id, int64_t newest_id) noexcept
