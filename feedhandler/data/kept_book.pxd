cimport cython
from libc.stdint cimport uint8_t, uint16_t

from feedhandler.data cimport book, raw, unpacked
from feedhandler.data.levels cimport Levels

cdef object _BOOK_KIND, _FLAGS_OF, _BookRecord
cdef Levels _NO_BIDS, _NO_ASKS
cdef uint8_t _VERSION, _CODE
cdef uint16_t _NO_CHANGES, _ORIGIN
cdef Py_ssize_t _FLAGS_OFFSET, _SESSION_OFFSET, _SEQUENCE_OFFSET
cdef Py_ssize_t _EXCHANGE_NS_OFFSET, _RECV_NS_OFFSET, _PUBLISH_NS_OFFSET
cdef Py_ssize_t _FIRST_ID_OFFSET, _LAST_ID_OFFSET, _PART_OFFSET, _PARTS_OFFSET
cdef Py_ssize_t _TOPIC_BYTES_MAX, _VERSION_OFFSET, _KIND_OFFSET, _LEVEL_SIZE, _FIRST_COUNT, _SECOND_COUNT, _SIZE_MIN, _SIZE_MAX


cpdef read(bytes data, str topic)
@cython.locals(size=Py_ssize_t)
cdef bint _is_whole(bytes data) except -1


@cython.final
cdef class Book:
    # Numbers of up to 64 bits that are compared with the next one are Python's.
    cdef readonly str topic, reason
    cdef readonly object session, sequence, last_id
    cdef readonly object exchange_ns, recv_ns, publish_ns
    cdef readonly bint is_stale
    cdef readonly object origin
    cdef Levels _bids, _asks
    cdef double _known_from, _known_to
    cdef bint _has_base
    cdef object _base_sequence, _invalid_sequence, _seen
    cdef list _parts

    @cython.locals(is_snapshot=bint)
    cpdef bint apply(self, record) except -1
    @cython.locals(bid_count=Py_ssize_t, ask_count=Py_ssize_t, flags=uint16_t)
    cpdef bint follow(self, bytes data) except -1
    cpdef bint confirm(self, sequence) except -1
    cpdef bint doubt(self, str reason) except -1
    cdef _begin(self, session, sequence)
    cdef _oldest_base(self)
    cdef bint _mark_invalid(self, sequence) except -1
    cdef bint _continues(self, record) except -1
    @cython.locals(parts=list)
    cdef bint _take(self, record, bint is_snapshot) except -1
    cdef _note(self, sequence, last_id, uint16_t flags)
    @cython.locals(edge=double, asks_start=Py_ssize_t)
    cdef int _set_levels(
        self, bytes data, Py_ssize_t start, Py_ssize_t bid_count, Py_ssize_t ask_count, bint is_snapshot
    ) except -1
