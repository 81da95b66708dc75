cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t

from feedhandler.data cimport raw
from feedhandler.data.contracts cimport Fanout, Sink
from feedhandler.recordings.carriers cimport Carrier, RecordedConnection

cdef uint8_t _CONDITION
cdef Py_ssize_t _KIND_OFFSET, _FLAGS_OFFSET, _TOPIC_SIZE
cdef list _SIZES


cdef class Unheard(Fanout):
    cpdef send(self, bytes topic, message)


cdef class Published(Fanout):
    cdef public list found
    cdef uint16_t _flags

    @cython.locals(code=uint8_t, record=bytes, changed=bytearray)
    cpdef send(self, bytes topic, message)


@cython.final
cdef class Player:
    cdef readonly object reader
    cdef object _run, _decoding, _merger
    cdef Sink _step
    cdef Published _published
    cdef int64_t _now_ns
    cdef dict _listed, _connections, _received, _sent
    cdef set _topics
    cdef readonly int64_t items
    cdef readonly object elsewhere
    cdef readonly int64_t undecodable

    @cython.locals(wall_ns=int64_t, connection=RecordedConnection, carrier=Carrier, records=list)
    cdef _take(self, item)
    cdef _take_other(self, item)
    @cython.locals(topic=bytes, record=bytes)
    cdef _publish(self, list records)
