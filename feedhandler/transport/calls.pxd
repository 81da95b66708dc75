# The functions of calls.py, for compiled modules: `from feedhandler.transport cimport calls`.

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

from feedhandler.data cimport raw


cdef extern from "sys/socket.h" nogil:
    enum: MSG_DONTWAIT
    enum: MSG_NOSIGNAL
    ssize_t c_send "send"(int fd, const void* data, size_t size, int flags)
    ssize_t c_recv "recv"(int fd, void* data, size_t size, int flags)


cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_wait(int epoll, epoll_event* events, int count, int timeout_ms)


cdef enum:
    READY_SIZE = 8
    GONE = -1
    READY_MAX = 64


cdef inline Py_ssize_t send(int fd, object buffer, Py_ssize_t start, Py_ssize_t end) except? -2:
    cdef const void* data = raw.readable(buffer, start, end - start)
    cdef ssize_t sent
    while True:
        sent = c_send(fd, data, end - start, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent >= 0:
            return sent
        if errno != EINTR:
            return 0 if errno == EAGAIN else GONE


cdef inline Py_ssize_t receive(int fd, object buffer, Py_ssize_t start, Py_ssize_t end) except? -2:
    cdef void* data = raw.writable(buffer, start, end - start)
    cdef ssize_t count
    while True:
        count = c_recv(fd, data, end - start, MSG_DONTWAIT)
        if count > 0:
            return count
        if count == 0:
            return GONE
        if errno != EINTR:
            return 0 if errno == EAGAIN else GONE


cdef inline Py_ssize_t wait(object epoll, int fd, object found, int timeout_ms, bint is_alone) except -1:
    cdef epoll_event events[READY_MAX]
    cdef int count, i, error
    cdef uint32_t ready_fd
    if is_alone:
        count = epoll_wait(fd, events, READY_MAX, timeout_ms)
        error = errno
    else:
        with nogil:
            count = epoll_wait(fd, events, READY_MAX, timeout_ms)
            error = errno  # at once: to take the lock again, and a signal's handler, may change it
    PyErr_CheckSignals()
    if count < 0:
        if error == EINTR:
            return 0
        raise OSError(error, "epoll_wait")
    for i in range(count):
        ready_fd = <uint32_t>events[i].data.fd
        raw.put_u32(found, i * READY_SIZE, events[i].events)
        raw.put_u32(found, i * READY_SIZE + 4, ready_fd)
    return count


cdef inline int64_t monotonic_ns() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef inline int64_t unix_ns(object clock) except? -1:
    cdef timespec now
    if clock is not None:
        return clock()
    clock_gettime(CLOCK_REALTIME, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec
