cimport cython
from libc.stdint cimport int64_t

from feedhandler.data cimport raw
from feedhandler.data.contracts cimport Fanout
from feedhandler.exchanges.state cimport State
from feedhandler.transport cimport calls

cdef list SIZES
cdef Py_ssize_t TOPIC_SIZE, HEADER_SIZE, RECORD_SIZE, KIND_OFFSET, SEQUENCE_OFFSET, PUBLISH_NS_OFFSET, MESSAGE_SIZE_MAX

@cython.final
cdef class Batch:
    cdef object _hop
    cdef Fanout _direct
    cdef object _clock
    cdef bytearray _present
    cdef Py_ssize_t _used
    cdef int64_t _count
    cdef public int64_t records

    @cython.locals(start=Py_ssize_t, size=Py_ssize_t, takes_number=bint)
    cpdef emit(self, State state)
    cpdef flush(self)
    cdef bytearray _taken(self)
    cdef _send(self, bytearray message)
    @cython.locals(start=Py_ssize_t, size=Py_ssize_t, record=bytearray)
    cdef _send_directly(self, bytearray message)
