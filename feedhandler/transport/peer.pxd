cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t

from feedhandler.data cimport raw
from feedhandler.data.contracts cimport Sink, Readable
from feedhandler.transport cimport calls

cdef Py_ssize_t QUEUE_SIZE, QUEUE_KEPT_MAX, HEAD_SIZE_MAX, GREETING_SIZE, HANDSHAKE_SIZE_MAX, READ_SIZE
cdef int MORE, LONG, COMMAND, CHUNKS_MAX


@cython.final
cdef class Peer(Readable):
    cdef object _events, _sock
    cdef int _fd
    cdef bytes _socket_type
    cdef tuple _peer_types
    cdef object _on_ready, _on_message, _on_closed, _on_parts
    cdef Sink _sink
    cdef list _parts
    cdef uint64_t _message_size_max
    cdef bytearray _buffer, _queue
    cdef Py_ssize_t _size_first, _size_max, _used, _parsed, _start
    cdef bint _is_parsing, _is_paused, _is_greeted
    cdef readonly bint is_ready, is_open, is_blocked
    cdef readonly double opened_mono_s
    cdef readonly object subscriptions, marks
    cdef public object pace, join, queues, on_room
    cdef public Py_ssize_t room, dropped
    cdef Py_ssize_t gathered_size
    cdef readonly Py_ssize_t queued
    cdef readonly int64_t sent
    cdef bint is_listed
    cdef uint64_t stamp

    cpdef put(self, message)
    cpdef flush(self)
    @cython.locals(buffer=bytearray, count=Py_ssize_t)
    cdef _receive(self)
    @cython.locals(chunks=int)
    cpdef write(self)

    @cython.locals(queue=bytearray, end=Py_ssize_t, size=Py_ssize_t)
    cdef _append(self, int flags, message)

    @cython.locals(used=Py_ssize_t, size=Py_ssize_t, larger=bytearray)
    cdef _reserve(self, Py_ssize_t count)

    @cython.locals(sent=Py_ssize_t)
    cdef bint _send_queue(self) except -1

    cpdef refill(self)
    cdef _set_blocked(self, bint is_blocked)
    cdef _parse(self, bytearray buffer, Py_ssize_t size)

    @cython.locals(rest=Py_ssize_t, wanted=Py_ssize_t, other=bytearray)
    cdef _keep(self, bytearray buffer, Py_ssize_t size)

    @cython.locals(position=Py_ssize_t, start=Py_ssize_t, flags=int, length=uint64_t)
    cdef _take(self, bytearray buffer, Py_ssize_t size)

    cdef _put_bytes(self, bytes data)
    cdef _hand_on(self, bytes message)
    cdef _on_frame(self, int flags, bytes frame)
    cdef _on_command(self, bytes body)
