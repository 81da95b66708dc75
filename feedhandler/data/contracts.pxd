from libc.stdint cimport int64_t


cdef class Readable:
    cpdef read(self)


cdef class Sink:
    cpdef take(self, bytes data)
    cpdef flush(self)


cdef class Called(Sink):
    cdef object _callback


cdef class Fanout:
    cdef public bint is_wanted

    cpdef send(self, bytes topic, message)
    cpdef flush(self)


cdef class Slot:
    cpdef write(self, record, int64_t publish_ns)
    cpdef newest(self)
