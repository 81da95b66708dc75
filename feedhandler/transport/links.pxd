cimport cython
from libc.stdint cimport int64_t

from feedhandler.data.contracts cimport Sink
from feedhandler.transport.outlet cimport Outlet
from feedhandler.transport.peer cimport Peer


cdef class Inlet(Sink):
    cdef object _events, _handshakes, _listener
    cdef Sink _sink
    cdef tuple _outlets
    cdef object _peers

    cpdef take(self, bytes data)

    @cython.locals(outlet=Outlet)
    cpdef flush(self)


@cython.final
cdef class Uplink:
    cdef object _events, _connector, _on_join
    cdef int64_t _queue_size_max
    cdef Peer _peer
    cdef bint _is_subscribed

    @cython.locals(peer=Peer)
    cpdef send(self, message)


@cython.final
cdef class Downlink:
    cdef bint _is_conflated
    cdef readonly int64_t ends
    cdef object _events, _connector
    cdef Sink _sink
    cdef list _prefixes
    cdef Peer _peer
