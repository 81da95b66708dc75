cimport cython
from libc.stdint cimport int64_t

from feedhandler.transport.outlet cimport Outlet
from feedhandler.transport.peer cimport Peer


@cython.final
cdef class Inlet:
    cdef object _events, _on_message, _handshakes, _listener
    cdef tuple _outlets
    cdef object _peers

    @cython.locals(outlet=Outlet)
    cpdef _on_read(self)


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
    cdef object _events, _connector, _on_message
    cdef list _prefixes
    cdef Peer _peer
