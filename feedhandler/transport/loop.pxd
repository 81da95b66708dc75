cimport cython
from libc.stdint cimport int64_t, uint32_t

from feedhandler.data cimport raw
from feedhandler.data.contracts cimport Readable
from feedhandler.transport cimport calls

cdef Py_ssize_t READY_MAX
cdef int64_t TIMEOUT_MS_MAX, NEVER
cdef uint32_t EPOLLOUT


@cython.final
cdef class Timer:
    cdef readonly int64_t due_mono_ns
    cdef public object callback


@cython.final
cdef class Timers:
    cdef list _heap

    @cython.locals(timer=Timer)
    cpdef int64_t due_mono_ns(self) except -1


@cython.final
cdef class Loop:
    cdef object _epoll
    cdef int _fd
    cdef bytearray _found
    cdef dict _readers, _writers
    cdef list _streams
    cdef bint _is_alone
    cdef Timers _timers
    cdef bint _is_open

    @cython.locals(until_mono_ns=int64_t)
    cpdef run_once(self, double timeout_s)
    cpdef run_until(self, int64_t mono_ns)

    @cython.locals(
        due_mono_ns=int64_t, now_mono_ns=int64_t, left_ns=int64_t, timeout_ms=int64_t, count=Py_ssize_t,
        index=Py_ssize_t, at=Py_ssize_t, mask=uint32_t, fd=uint32_t, stream=Readable,
    )
    cdef _run(self, int64_t until_mono_ns)
