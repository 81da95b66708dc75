cimport cython
from libc.stdint cimport int64_t, uint8_t

from feedhandler.data cimport raw, unpacked

cdef Py_ssize_t _END_SIZE, _PLACE_SIZE, _TOPIC_SIZE, _KIND_OFFSET, _RECV_NS_OFFSET
cdef uint8_t _TICKER, _TRADE, _DEPTH, _BOOK
cdef object _Ticker, _Trade, _Depth, _BookRecord, _TICKER_KIND, _TRADE_KIND, _DEPTH_KIND, _BOOK_KIND
cdef object _FLAGS_OF, _TOPIC_OF
cdef dict _SIDES


@cython.locals(records=list, ends=bytearray, places=bytearray, count=Py_ssize_t, end=Py_ssize_t)
cpdef tuple block_of(list found, int64_t newest_ns, is_wanted=*)
@cython.locals(code=uint8_t)
cpdef record_at(bytes data, Py_ssize_t start, Py_ssize_t size)


@cython.final
cdef class PlacedBlocks:
    cdef object _blocks
    cdef bytes _data, _ends, _places
    cdef Py_ssize_t _count, _index, _start
    cdef int64_t place_ns

    cdef bint is_there(self) except -1
    @cython.locals(start=Py_ssize_t, end=Py_ssize_t)
    cdef take(self, bint is_unpacked)
    cdef bint is_used_up(self) noexcept


@cython.final
cdef class Merged:
    cdef list _present
    cdef bint _is_unpacked

    @cython.locals(present=list, each=PlacedBlocks)
    cdef _fetch(self)
    @cython.locals(present=list, is_unpacked=bint, found=list, first=PlacedBlocks, other=PlacedBlocks)
    cdef list _taken(self)
