cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t

from feedhandler.data cimport raw
from feedhandler.data.contracts cimport Fanout
from feedhandler.transport.peer cimport Peer

cdef Py_ssize_t HEARERS_MAX, HEADER_SIZE, KIND_OFFSET, SHORT_HEAD_SIZE, LONG_HEAD_SIZE
cdef list SIZES, EVERY
cdef uint8_t LONG, COMMAND


cdef class Outlet(Fanout):
    cdef object _events, _queues, _subscribers, _handshakes, _listener
    cdef int64_t _queue_size_max
    cdef bint _is_batched, _has_modes
    cdef int64_t _session
    cdef object _paced, _peers  # sets; an iteration over one does not look whether it is None
    cdef list _unflushed
    cdef dict _groups
    cdef uint64_t _stamp, _counted_stamp
    cdef object _counted
    cdef int64_t _skipped, _gap
    cdef Py_ssize_t _newest
    cdef bytes _head

    @cython.locals(groups=list, group=list, peer=Peer, are_several=bint)
    cpdef send(self, bytes topic, message)

    @cython.final
    cdef _give(self, Peer peer, bytes topic, message)
    cdef bint _is_kept_back(self, Peer peer, its_pace, bytes topic, message) except -1
    cdef bint _has_room(self, Peer peer, bytes topic, message) except -1
    cdef _keep(self, its_pace, bytes topic, message)
    cdef _lose(self, its_pace, message)
    @cython.locals(at=Py_ssize_t, size=Py_ssize_t, end=Py_ssize_t, flags=uint8_t)
    cdef _count(self, bytes frames, overflow)
    @cython.locals(code=uint8_t, length=Py_ssize_t)
    cdef _count_records(self, data, Py_ssize_t at, Py_ssize_t end)
    cdef _list(self, Peer peer)
    cdef _end_overflow(self, Peer peer, overflow)
    cdef _overflow(self, Peer peer, bytes topic, message)

    @cython.locals(peer=Peer)
    cpdef flush(self)

    cdef list _find_groups(self, bytes topic)
