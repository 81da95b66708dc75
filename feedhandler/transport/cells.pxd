cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

from feedhandler.data cimport raw, unpacked
from feedhandler.data.contracts cimport Slot
from feedhandler.transport.memory cimport Memory

cdef Py_ssize_t HEADER_SIZE, SLOT_HEADER_SIZE, CELL_SIZE, COUNT_OFFSET, CLOSED_OFFSET, HEARTBEAT_MONO_NS_OFFSET
cdef Py_ssize_t NEWEST_OFFSET, TOPIC_SIZE, RECORD_SIZE, FLAGS_OFFSET, PUBLISH_NS_OFFSET
cdef Py_ssize_t RECORD_HEADER_SIZE, RING_CELL_SIZE, RING_RECORD_SIZE_MAX, RESERVED_OFFSET, PLACE_SIZE, WORD
cdef uint64_t NUMBER_MAX
cdef int64_t DEAD_NS, AHEAD_NS_MAX
cdef int TRIES_MAX
cdef Py_ssize_t VERSION_OFFSET, KIND_OFFSET
cdef uint16_t DOWN
cdef uint8_t VERSION, TICKER
cdef object Ticker, TICKER_KIND, FLAGS_OF


@cython.locals(copy=bytearray)
cpdef bytearray as_published(record, int64_t publish_ns)


cdef class BoardSlot(Slot):
    cdef Memory _memory
    cdef Py_ssize_t _offset
    cdef uint64_t _depth
    cdef readonly bytes topic
    cdef readonly uint64_t number

    @cython.locals(number=uint64_t, cell=Py_ssize_t)
    cpdef write(self, record, int64_t publish_ns)

    @cython.locals(cell=Py_ssize_t)
    cpdef newest(self)


cdef class RingSlot(Slot):
    cdef Memory _memory
    cdef Py_ssize_t _offset, _size
    cdef uint64_t _depth, _reserved
    cdef bytearray _place
    cdef readonly bytes topic
    cdef readonly uint64_t number

    @cython.locals(
        number=uint64_t, size=Py_ssize_t, position=uint64_t, at=Py_ssize_t, cells=Py_ssize_t, ring=Py_ssize_t,
        cell=Py_ssize_t,
    )
    cpdef write(self, record, int64_t publish_ns)

    @cython.locals(cells=Py_ssize_t, place=bytes, at=Py_ssize_t)
    cpdef newest(self)


cdef class Cells:
    cdef Memory _memory
    cdef Py_ssize_t _size, _slots
    cdef uint64_t _depth
    cdef dict _names

    cpdef Py_ssize_t count(self) except -1
    cpdef bytes topic(self, Py_ssize_t index)
    @cython.locals(age_ns=int64_t)
    cpdef bint is_alive(self) except -1
    cpdef uint64_t number(self, Py_ssize_t index) except? 0

    @cython.locals(offset=Py_ssize_t, number=uint64_t, _=int)
    cpdef bytes newest(self, Py_ssize_t index)

    cdef bytes _take(self, Py_ssize_t offset, uint64_t number)
    cdef Py_ssize_t _offset(self, Py_ssize_t index) except -1


cdef class BoardCells(Cells):
    @cython.locals(cell=Py_ssize_t)
    cdef bytes _take(self, Py_ssize_t offset, uint64_t number)

    @cython.locals(name=str, record=bytes)
    cpdef ticker(self, Py_ssize_t index)

    @cython.locals(count=Py_ssize_t, used=Py_ssize_t, index=Py_ssize_t, at=Py_ssize_t, records=bytearray, record=bytes)
    cpdef bytearray copy(self, Py_ssize_t first=*)


cdef class RingCells(Cells):
    @cython.locals(
        cells=Py_ssize_t, place=bytes, position=uint64_t, size=uint64_t, ring=Py_ssize_t, ring_size=Py_ssize_t,
        at=Py_ssize_t,
    )
    cdef bytes _take(self, Py_ssize_t offset, uint64_t number)
