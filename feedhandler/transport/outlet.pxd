cimport cython
from libc.stdint cimport int64_t, uint64_t

from feedhandler.transport.peer cimport Peer

cdef Py_ssize_t HEARERS_MAX


@cython.final
cdef class Outlet:
    cdef object _events, _queues, _subscribers, _handshakes, _listener
    cdef int64_t _queue_size_max
    cdef bint _is_batched, _has_modes
    cdef int64_t _session
    cdef object _paced, _peers  # sets; an iteration over one does not look whether it is None
    cdef list _unflushed
    cdef dict _groups
    cdef uint64_t _stamp
    cdef public bint is_wanted

    @cython.locals(groups=list, group=list, peer=Peer, are_several=bint)
    cpdef send(self, bytes topic, message)

    cdef _give(self, Peer peer, bytes topic, message)
    cdef bint _is_kept_back(self, Peer peer, its_pace, bytes topic, message) except -1
    cdef bint _has_room(self, Peer peer, bytes topic, message) except -1
    cdef _overflow(self, Peer peer, bytes topic, message)

    @cython.locals(peer=Peer)
    cpdef flush(self)

    cdef list _find_groups(self, bytes topic)
