from libc.stdint cimport int64_t

from feedhandler.data cimport raw

cdef Py_ssize_t TOPIC_SIZE, RECORD_SIZE, PUBLISH_NS_OFFSET, MESSAGE_SIZE_MAX

cdef class Batch:
    cdef object _hop
    cdef object _direct
    cdef object _clock
    cdef bytearray _present
    cdef Py_ssize_t _used
    cdef public int64_t records

    cpdef emit(self, state)
    cpdef flush(self)
    cdef bytearray _taken(self)
    cdef _send(self, bytearray message)
    cdef _send_directly(self, bytearray message)
