cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from feedhandler.data cimport raw
from feedhandler.transport cimport calls
from feedhandler.data.contracts cimport Fanout, Sink, Slot

cdef int64_t LATENCY_NS_MAX
cdef uint16_t NOT_FRESH, NO_REPLAY
cdef list SIZES, COUNTS
cdef uint8_t VERSION
cdef Py_ssize_t VERSION_OFFSET
cdef Py_ssize_t TOPIC_SIZE, HEADER_SIZE, RECORD_SIZE, KIND_OFFSET, FLAGS_OFFSET, SESSION_OFFSET, SEQUENCE_OFFSET
cdef Py_ssize_t RECV_NS_OFFSET, PUBLISH_NS_OFFSET


@cython.final
cdef class Traffic:
    cdef public bint is_heard
    cdef public int64_t records, messages, sample_mask, newest_recv_ns
    cdef public list latencies


@cython.final
cdef class Route:
    cdef readonly bytes topic
    cdef public Traffic traffic
    cdef public uint64_t sequence
    cdef public Slot slot
    cdef readonly uint8_t code
    cdef readonly bytearray record
    cdef readonly bint keeps_every
    cdef uint16_t mask
    cdef public uint16_t condition
    cdef bytearray cell

    @cython.locals(record=bytearray)
    cpdef resize(self, Py_ssize_t length)
    cpdef keep(self, int64_t publish_ns)


cdef class Step(Sink):
    cdef dict _routes
    cdef object _find_route, _on_document, _clock
    cdef Fanout _each, _batches
    cdef uint32_t _session

    @cython.locals(size=Py_ssize_t, start=Py_ssize_t, end=Py_ssize_t, step=Py_ssize_t)
    cpdef take(self, bytes data)

    @cython.final
    @cython.locals(
        code=uint8_t, kind=uint8_t, known=Py_ssize_t, start=Py_ssize_t, newest=Py_ssize_t, length=Py_ssize_t,
        used=Py_ssize_t, count=int64_t, is_each_wanted=bint, is_batch_wanted=bint, batch=bytearray, record=bytearray, native_topic=bytes, route=Route, last=Route,
        publish_ns=int64_t,
    )
    cdef Py_ssize_t _take_run(self, bytes data, Py_ssize_t first, Py_ssize_t size) except -1

    @cython.final
    @cython.locals(count=Py_ssize_t, length=Py_ssize_t)
    cdef Py_ssize_t _counted(self, uint8_t code, bytes data, Py_ssize_t start, Py_ssize_t size) except -1

    @cython.final
    @cython.locals(record=bytearray)
    cdef bytearray _number(self, Route route, bytes data, Py_ssize_t start, Py_ssize_t length, int64_t publish_ns)

    @cython.final
    @cython.locals(recv_ns=int64_t, sent_ns=int64_t, first_ns=int64_t, last_ns=int64_t)
    cdef _note(
        self, Traffic traffic, bytes data, Py_ssize_t first, Py_ssize_t newest, int64_t records, int64_t publish_ns
    )
