cimport cython
from libc.stdint cimport int64_t, uint16_t

from feedhandler.exchanges.arbitration cimport Arbitration, Line
from feedhandler.exchanges.books cimport LineBook
from feedhandler.exchanges.state cimport RecordState


@cython.final
cdef class Changes:
    cdef readonly object first_id, last_id  # as in books.pxd
    cdef readonly object bids, asks
    cdef readonly int64_t exchange_ns


cdef class FullBookState(RecordState):
    cdef readonly list lines
    cdef list _kept
    cdef bint _keeps
    cdef Arbitration _order
    cdef public int leader
    cdef public int64_t snapshots

    @cython.locals(own=int, book=LineBook, leading=LineBook, bodies=list)
    cpdef take(self, Line line, Changes changes, int64_t update_id, int64_t recv_ns, emit)
    cdef _go_on(self, int own, Changes changes, list bodies, emit)
    cdef bint _is_of_another_count(self, LineBook book, Changes changes, int64_t update_id, int64_t recv_ns) except -1
    cdef list _apply(self, LineBook book, Changes changes, int64_t recv_ns)
    cdef _keep(self, int own, Changes changes, int64_t recv_ns)
    @cython.locals(book=LineBook)
    cdef _lead(self, int line, emit)
    @cython.locals(left=Py_ssize_t)
    cdef _publish(self, LineBook book, list bodies, uint16_t flags, emit)
