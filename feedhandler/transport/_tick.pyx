# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, auto_pickle=False
"""Compiled twins of the sockets in `zmtp`, and of what stands at each hop: a feed's states, the
merger's step in `merge`, the subscriber's in `follow`.

A process on the tick path sleeps between messages, and finds its caches cold when it wakes: the interpreter's way
through `zmtp.py` and `merge.py` takes 5 us when warm and 20 us then (docs/performance.md). Here a record goes from
the kernel's buffer to the subscribers' queues in C, and no Python object but its topic is made for it. What is rare
(handshake, subscriptions, accepting, logging) is `zmtp`'s own code, or Python in the classes below.

Behaviour, limits and messages are those of `zmtp` and `merge`; the tests run over both. A buffer that Python code
may look into is a bytearray that is never resized, so a memoryview kept for too long sees other bytes, not freed
ones. Everything is for one thread; the interpreter's lock is given up while `Loop` waits, and only then.

Four rules keep the memory whole, and `tests/transport/test_memory.py` and `make sanitize` hold us to them. What an
object cannot be without, it takes in `__cinit__`: there is none that is half made. State is reset before anything
that can raise. Whoever writes into raw memory looks in the same function whether there is room, by `<` or `>=`. A
buffer that is being read while others are called is taken out of the object, so that nobody writes into it.
"""

import collections
import functools
import logging
import sys
import time

from feedhandler.data import board_layout, modes, wire
from feedhandler.data.errors import DecodeError
from feedhandler.exchanges import base
from feedhandler.transport import private, subscribing, zmtp
from feedhandler.transport.queues import Queues

cimport cython
from feedhandler.data cimport raw
from feedhandler.exchanges.arbitration cimport Arbitration, Line
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, EINTR, ENOENT, errno
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec
from posix.unistd cimport close as c_close


cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(object mapping, object key) except? NULL


cdef extern from "sys/socket.h" nogil:
    enum: MSG_DONTWAIT
    enum: MSG_NOSIGNAL
    ssize_t c_send "send"(int fd, const void* data, size_t size, int flags)
    ssize_t c_recv "recv"(int fd, void* data, size_t size, int flags)


cdef extern from "sys/epoll.h" nogil:
    enum: EPOLLIN
    enum: EPOLLOUT
    enum: EPOLL_CTL_ADD
    enum: EPOLL_CTL_DEL
    enum: EPOLL_CTL_MOD
    enum: EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int count, int timeout_ms)


if sys.byteorder != "little":
    raise ImportError("records are copied as they are, little-endian")

log = logging.getLogger(zmtp.__name__)

cdef enum:
    RECORD_SIZE = 192  # these two are of arrays; asserted below
    TOPIC_SIZE = 64
    EVENTS_MAX = 64  # taken from the kernel at once
    QUEUE_SIZE = 1 << 13  # of a queue at first
    QUEUE_KEPT_MAX = 1 << 20  # of an empty one: what is larger is given back
    TABLE_MAX = 1 << 20  # file descriptors; the kernel's own limit is lower

assert (wire.TICKER_SIZE, wire.TOPIC_SIZE) == (RECORD_SIZE, TOPIC_SIZE), "the arrays below"
assert base.CHANNELS_MAX == 3, "the channels of a State"

cdef Py_ssize_t VERSION_OFFSET = wire.VERSION_OFFSET
cdef Py_ssize_t KIND_OFFSET = wire.KIND_OFFSET
cdef Py_ssize_t FLAGS_OFFSET = wire.FLAGS_OFFSET
cdef Py_ssize_t SESSION_OFFSET = wire.FLAGS_OFFSET + 2
cdef Py_ssize_t SEQUENCE_OFFSET = wire.FLAGS_OFFSET + 6
cdef Py_ssize_t EXCHANGE_NS_OFFSET = wire.EXCHANGE_NS_OFFSET
cdef Py_ssize_t RECV_NS_OFFSET = wire.RECV_NS_OFFSET
cdef Py_ssize_t PUBLISH_NS_OFFSET = wire.PUBLISH_NS_OFFSET
cdef Py_ssize_t HEADER_SIZE = wire.HEADER_SIZE
cdef uint8_t TICKER = wire.TICKER
cdef object TICKER_KIND = wire.TICKER
cdef object FLAGS_OF = wire.FLAGS_OF
cdef uint8_t VERSION = wire.VERSION
cdef object Ticker = wire.Ticker
assert wire.Ticker.__struct_fields__ == (
    "topic", "version", "kind", "flags", "session", "sequence", "exchange_ns", "recv_ns", "publish_ns",
    "exchange_sequence", *wire.TICKER_VALUES,
), "as Follower passes them"
assert wire.SEQUENCE_AFTER_FLAGS.format == "<HIQ", "flags, session and sequence, as the offsets above have them"

cdef double NAN = wire.NAN
cdef uint16_t BAD_EXCHANGE_TIME = wire.BAD_EXCHANGE_TIME
cdef int64_t AHEAD_NS_MAX = base.AHEAD_NS_MAX
cdef int STATISTICS = base.STATISTICS
cdef int QUOTE = base.QUOTE
cdef int LAST = base.LAST
cdef uint16_t NOT_LIVE = base.NOT_LIVE

cdef uint8_t MORE = zmtp.MORE
cdef uint8_t LONG = zmtp.LONG
cdef uint8_t COMMAND = zmtp.COMMAND
cdef uint8_t SUBSCRIBE = subscribing.SUBSCRIBE
cdef size_t GREETING_SIZE = zmtp.GREETING_SIZE
cdef size_t READ_SIZE = zmtp.READ_SIZE
cdef uint64_t HANDSHAKE_SIZE_MAX = zmtp.HANDSHAKE_SIZE_MAX
cdef Py_ssize_t HEARERS_MAX = zmtp.HEARERS_MAX
cdef size_t CHUNK_SIZE = modes.CHUNK_SIZE
cdef int64_t NEVER = modes.NEVER
cdef size_t QUEUE_SIZE_MAX = zmtp.QUEUE_SIZE_MAX
cdef int CHUNKS_MAX = modes.CHUNKS_MAX


cdef inline int64_t clock_ns(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef class Loop:
    """Twin of `zmtp.Loop`; a Peer of this module is called without going through Python."""

    cdef int _epoll
    cdef dict _readers
    cdef dict _writers
    cdef dict _peers  # by file descriptor; owns what _table borrows
    cdef PyObject** _table
    cdef int _table_size
    cdef object _timers
    cdef int64_t _due_mono_ns  # of the first timer

    def __cinit__(self):
        self._epoll = -1
        self._table = NULL
        self._table_size = 0
        self._readers, self._writers, self._peers = {}, {}, {}
        self._timers = zmtp.Timers()
        self._due_mono_ns = NEVER
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        if self._epoll < 0:
            raise OSError(errno, "epoll_create1")

    def __dealloc__(self):
        if self._epoll >= 0:
            c_close(self._epoll)
        free(self._table)

    def run_once(self, double timeout_s):
        """Wait for something, and call back for all that is there or due."""
        if not timeout_s > 0:
            timeout_s = 0  # or no number
        self._run(clock_ns(CLOCK_MONOTONIC) + <int64_t>(min(timeout_s, 1e9) * 1e9))

    def run_until(self, int64_t mono_ns):
        """Call back for all that comes until then."""
        while clock_ns(CLOCK_MONOTONIC) < mono_ns:
            self._run(mono_ns)

    cdef int _run(self, int64_t deadline_mono_ns) except -1:
        # hot: `make bench`
        cdef epoll_event events[EVENTS_MAX]
        cdef int count, i, fd, timeout_ms
        cdef int64_t left_ns
        cdef uint32_t mask
        cdef Peer peer
        cdef bint is_timed = self._due_mono_ns != NEVER
        deadline_mono_ns = min(deadline_mono_ns, self._due_mono_ns)
        while True:
            if self._epoll < 0:
                raise ValueError("the loop is closed")
            left_ns = deadline_mono_ns - clock_ns(CLOCK_MONOTONIC)
            timeout_ms = 0 if left_ns <= 0 else <int>min(<int64_t>1000000000, (left_ns + 999999) // 1000000)
            with nogil:
                count = epoll_wait(self._epoll, events, EVENTS_MAX, timeout_ms)
            if count >= 0:
                break
            if errno != EINTR:
                raise OSError(errno, "epoll_wait")
            PyErr_CheckSignals()
        PyErr_CheckSignals()
        for i in range(count):
            fd, mask = events[i].data.fd, events[i].events
            if 0 <= fd < self._table_size and self._table[fd] != NULL:
                peer = <Peer>self._table[fd]
                if mask & ~<uint32_t>EPOLLOUT:
                    peer.read()
                if mask & EPOLLOUT and peer.is_blocked:
                    peer.write()
                continue
            if mask & ~<uint32_t>EPOLLOUT and (callback := self._readers.get(fd)) is not None:
                callback()
            if mask & EPOLLOUT and (callback := self._writers.get(fd)) is not None:
                callback()
        if is_timed and clock_ns(CLOCK_MONOTONIC) >= self._due_mono_ns:
            try:
                self._timers.run(clock_ns(CLOCK_MONOTONIC))
            finally:
                self._due_mono_ns = self._timers.due_mono_ns
        return 0

    def call_later(self, double delay, callback):
        """Call back once so many seconds have passed."""
        timer = self._timers.call_later(delay, callback)
        self._due_mono_ns = self._timers.due_mono_ns
        return timer

    def add_reader(self, int fd, callback):
        self._readers[fd] = callback
        self._update(fd)

    def remove_reader(self, int fd):
        self._readers.pop(fd, None)
        self._update(fd)

    def add_writer(self, int fd, callback):
        self._writers[fd] = callback
        self._update(fd)

    def remove_writer(self, int fd):
        self._writers.pop(fd, None)
        self._update(fd)

    cdef int add_peer(self, int fd, Peer peer) except -1:
        cdef PyObject** table
        cdef int size
        if not 0 <= fd < TABLE_MAX:
            raise ValueError("no such file descriptor")
        if fd >= self._table_size:
            size = max(64, 2 * fd)
            table = <PyObject**>realloc(self._table, size * sizeof(PyObject*))
            if table == NULL:
                raise MemoryError
            memset(table + self._table_size, 0, (size - self._table_size) * sizeof(PyObject*))
            self._table, self._table_size = table, size
        self._peers[fd] = peer
        self._table[fd] = <PyObject*>peer
        self._set(fd, EPOLLIN)
        return 0

    cdef int remove_peer(self, int fd) except -1:
        if 0 <= fd < self._table_size:
            self._table[fd] = NULL
        self._peers.pop(fd, None)
        self._set(fd, 0)
        return 0

    cdef int _update(self, int fd) except -1:
        self._set(fd, (EPOLLIN if fd in self._readers else 0) | (EPOLLOUT if fd in self._writers else 0))
        return 0

    cdef int _set(self, int fd, uint32_t wanted) except -1:
        cdef epoll_event event
        memset(&event, 0, sizeof(event))
        event.events = wanted
        event.data.fd = fd
        if self._epoll < 0:
            return 0
        if not wanted:
            epoll_ctl(self._epoll, EPOLL_CTL_DEL, fd, &event)
        elif epoll_ctl(self._epoll, EPOLL_CTL_MOD, fd, &event) < 0:
            if errno != ENOENT or epoll_ctl(self._epoll, EPOLL_CTL_ADD, fd, &event) < 0:
                raise OSError(errno, "epoll_ctl")
        return 0

    def close(self):
        if self._epoll >= 0:
            c_close(self._epoll)
            self._epoll = -1


cdef class Sink:
    """Who takes messages as C data, on loan until `take` returns; an Inlet or Downlink calls it without Python."""

    def __call__(self, message):
        """Take one message from Python."""
        cdef Py_buffer view
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            self.take(<const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int take(self, const uint8_t* data, Py_ssize_t size) except -1:
        raise NotImplementedError


@cython.final  # its methods are called without a look at a table
cdef class Peer:
    """Twin of `zmtp.Peer`."""

    cdef object _events
    cdef Loop _loop  # the same, if it is ours
    cdef object _sock
    cdef int _fd
    cdef bytes _socket_type
    cdef tuple _peer_types
    cdef object _on_ready
    cdef object _on_message
    cdef object _on_closed
    cdef Sink _sink  # instead of _on_message
    cdef tuple _outlets  # flushed after the messages of a read
    cdef uint64_t _message_size_max
    cdef bytearray _buffer  # read, and not yet a whole frame: its first _used bytes
    cdef size_t _size
    cdef size_t _size_first
    cdef size_t _size_max
    cdef size_t _used
    cdef size_t _parsed
    cdef bint _is_parsing
    cdef bint _is_paused
    cdef bint _is_greeted
    cdef bint _is_listed  # among those to be flushed
    cdef readonly bint is_ready
    cdef readonly bint is_open
    cdef readonly bint is_blocked
    cdef readonly double opened_mono_s
    cdef readonly object subscriptions
    cdef readonly object pace
    cdef public object join  # what a subscriber is still to get first
    cdef public object queues  # the limit for all of them, where there is one
    cdef public size_t room  # for the queue, as granted by that
    cdef readonly size_t sent  # bytes, since there is the connection
    cdef readonly object marks  # ends of messages, counted in the same way
    cdef public object on_room  # called after each write, if somebody waits for room
    cdef uint64_t _stamp  # the number of the last message that it was given
    cdef public Py_ssize_t dropped
    cdef uint8_t* _queue  # waits to be written: from _start to _end
    cdef size_t _queue_size
    cdef size_t _start
    cdef size_t _end

    def __cinit__(
        self, events, sock, bytes socket_type, *, tuple peer_types, on_ready, on_message, on_closed,
        message_size_max, tuple outlets=(),
    ):
        self._queue = NULL
        self._queue_size = self._start = self._end = 0
        self._fd = -1
        self._events = events
        self._loop = events if isinstance(events, Loop) else None
        self._sock = sock
        self._fd = sock.fileno()
        self._socket_type = socket_type
        self._peer_types = peer_types
        self._on_ready = on_ready
        self._on_message = on_message
        self._sink = on_message if isinstance(on_message, Sink) else None
        for outlet in outlets:
            if not isinstance(outlet, Outlet):
                raise TypeError("an outlet of another kind")
        self._outlets = outlets
        self._on_closed = on_closed
        self._message_size_max = message_size_max
        # Larger than any frame that is not whole yet, with its head, so that there is always room to read.
        self._size_max = max(self._message_size_max, HANDSHAKE_SIZE_MAX) + GREETING_SIZE
        self._size = self._size_first = min(self._size_max, READ_SIZE)
        self._buffer = PyByteArray_FromStringAndSize(NULL, self._size)
        self._used = self._parsed = 0
        self.marks = collections.deque()
        self.subscriptions = subscribing.Subscriptions()
        self.is_open = True
        self.opened_mono_s = time.monotonic()
        zmtp.prepare(sock)
        if self._loop is not None:
            self._loop.add_peer(self._fd, self)
        else:
            events.add_reader(self._fd, self._on_readable)
        self._put_bytes(zmtp.GREETING)
        self.flush()

    def __dealloc__(self):
        free(self._queue)

    def _on_readable(self):
        self.read()

    def _on_writable(self):
        if self.is_open:
            self.write()

    # --- out

    @property
    def queued(self):
        """How many bytes wait to be written."""
        return self._end - self._start

    def put(self, message):
        """Queue a message, whatever waits there already."""
        cdef Py_buffer view
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            self.append(<const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cpdef flush(self):
        """Write what is queued; the rest when the peer has read some."""
        if not self.is_blocked and self._end > self._start:
            self.write()

    cdef int _put_bytes(self, bytes data) except -1:
        """Queue bytes as they are."""
        cdef size_t size = PyBytes_GET_SIZE(data)
        self._reserve(size)
        memcpy(self._queue + self._end, PyBytes_AS_STRING(data), size)
        self._end += size
        return 0

    cdef int append(self, const uint8_t* data, size_t size) except -1:
        """Queue one message, with its head."""
        # hot: `make bench`
        cdef uint8_t* at
        cdef int i
        if not self.is_open:
            return 0
        self._reserve(size + 9)
        at = self._queue + self._end
        if size < 256:
            at[0] = 0
            at[1] = <uint8_t>size
            at += 2
        else:
            at[0] = LONG
            for i in range(8):
                at[1 + i] = <uint8_t>(<uint64_t>size >> (56 - 8 * i))
            at += 9
        memcpy(at, data, size)
        self._end = (at - self._queue) + size
        return 0

    cdef int _reserve(self, size_t count) except -1:
        """Have room for so many bytes at the end of the queue."""
        cdef size_t used, size
        cdef uint8_t* larger
        if self._queue_size - self._end >= count:
            return 0
        used = self._end - self._start
        if used <= self._start and self._queue_size - used >= count:
            if used:
                memcpy(self._queue, self._queue + self._start, used)  # at most as long as what precedes it
        else:
            size = max(<size_t>QUEUE_SIZE, self._queue_size)
            while size - used < count:
                if size > <size_t>1 << 46:
                    raise MemoryError
                size *= 2
            larger = <uint8_t*>malloc(size)
            if larger == NULL:
                raise MemoryError
            if used:
                memcpy(larger, self._queue + self._start, used)
            free(self._queue)
            self._queue, self._queue_size = larger, size
        self._start, self._end = 0, used
        return 0

    cdef int write(self) except -1:
        # hot: `make bench`
        cdef int chunks = 0
        if not self.is_open:  # the same turn of the loop may have found it readable, and at its end
            return 0
        while self._send_queue():
            if self._start < self._end or self.pace is None or not self.pace.is_waiting:
                break
            chunks += 1
            self.refill()
            if chunks == CHUNKS_MAX:
                break  # the rest in the next turn, after what others have to say
        if not self.is_open:
            return 0
        if self._start == self._end:
            self._start = self._end = 0
            if self._queue_size > QUEUE_KEPT_MAX:
                free(self._queue)
                self._queue, self._queue_size = NULL, 0
            if self.is_blocked:
                self._set_blocked(False)
            if self.room:
                self.queues.release(self)
        elif not self.is_blocked:
            self._set_blocked(True)
        if self.on_room is not None:
            self.on_room(self)
        return 0

    cdef bint _send_queue(self) except -1:
        """Write what the kernel takes of the queue; False if the connection is gone."""
        cdef size_t size = self._end - self._start
        cdef ssize_t sent = 0
        while size:
            sent = c_send(self._fd, self._queue + self._start, size, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent >= 0:
                break
            if errno == EINTR:
                continue
            if errno == EAGAIN:
                sent = 0
                break
            self.close()
            return False
        self._start += <size_t>sent
        self.sent += <size_t>sent
        return True

    def shorten(self):
        """Drop what is queued, but for the beginning of what may be on its way; returns how many bytes."""
        cdef size_t used = self._end - self._start, kept
        cdef uint8_t* smaller
        kept = min([mark - self.sent for mark in self.marks if mark >= self.sent], default=used)
        self.marks.clear()
        if kept >= used:
            return 0
        smaller = <uint8_t*>malloc(max(kept, <size_t>QUEUE_SIZE))
        if smaller == NULL:
            raise MemoryError
        if kept:
            memcpy(smaller, self._queue + self._start, kept)
        free(self._queue)
        self._queue, self._queue_size = smaller, max(kept, <size_t>QUEUE_SIZE)
        self._start, self._end = 0, kept
        return used - kept

    cdef int refill(self) except -1:
        """Queue a part of what a subscriber with a mode is due, or one that has not kept up."""
        for message in self.pace.take():
            self.put(message)
        return 0

    cdef int set_pace(self, its_pace) except -1:
        """Follow another mode from now on; what was still due in the last one goes first."""
        if self.pace is not None:
            for message in self.pace.take_all():
                self.put(message)
        self.pace = its_pace
        zmtp.set_send_buffer(self._sock, its_pace is not None and its_pace.is_conflated)
        return 0

    cdef int _set_blocked(self, bint is_blocked) except -1:
        self.is_blocked = is_blocked
        if self._loop is not None:
            self._set_wanted()
        elif is_blocked:
            self._events.add_writer(self._fd, self._on_writable)
        else:
            self._events.remove_writer(self._fd)
        return 0

    cdef int _set_wanted(self) except -1:
        self._loop._set(self._fd, (0 if self._is_paused else EPOLLIN) | (EPOLLOUT if self.is_blocked else 0))
        return 0

    # --- in

    def pause(self):
        """Read nothing more, so that the other side has to wait; what was read is kept."""
        if not self.is_open or self._is_paused:
            return
        self._is_paused = True
        if self._loop is not None:
            self._set_wanted()
        else:
            self._events.remove_reader(self._fd)

    def resume(self):
        """Go on where `pause` left off."""
        if not self.is_open or not self._is_paused:
            return
        self._is_paused = False
        if self._loop is not None:
            self._set_wanted()
        else:
            self._events.add_reader(self._fd, self._on_readable)
        if self._used and not self._is_parsing:
            self._parse(self._buffer, <uint8_t*>PyByteArray_AS_STRING(self._buffer), self._used)

    def has_hung_up(self):
        """True if the other side is gone, whatever of it is still to be read."""
        return zmtp.has_hung_up(self._fd)

    def cut_off(self, reason):
        """End the connection, and say why."""
        log.warning("a ZeroMQ peer was cut off: %s", reason)
        self.close()

    cdef int read(self) except -1:
        # hot: `make bench`
        cdef bytearray buffer = self._buffer  # kept while it is parsed, even if a callback closes us
        cdef uint8_t* data
        cdef ssize_t count
        if not self.is_open or self._is_parsing or self._is_paused:
            return 0
        if self._used >= self._size:  # there is always room to read; if not, no byte goes behind it
            self.close()
            return 0
        data = <uint8_t*>PyByteArray_AS_STRING(buffer)
        while True:
            count = c_recv(self._fd, data + self._used, self._size - self._used, MSG_DONTWAIT)
            if count >= 0 or errno != EINTR:
                break
        if count < 0 and errno == EAGAIN:
            return 0
        if count <= 0:
            self.close()
            return 0
        return self._parse(buffer, data, self._used + <size_t>count)

    cdef int _parse(self, bytearray buffer, uint8_t* data, size_t size) except -1:
        """Handle what is in the buffer, and keep what is no whole frame yet."""
        self._parsed = 0
        self._is_parsing = True
        try:
            self._take(buffer, data, size)
        except ValueError as exc:
            self.cut_off(str(exc))
        finally:
            self._is_parsing = False
            if self.is_open:
                self._keep(data, size)
        for outlet in self._outlets:
            (<Outlet>outlet).flush_peers()
        return 0

    cdef int _keep(self, uint8_t* data, size_t size) except -1:
        """Move what is no whole frame yet to the front, and make room for more."""
        cdef bytearray other
        cdef size_t rest = size - self._parsed, wanted = self._size
        if rest and self._parsed:
            memmove(data, data + self._parsed, rest)
        self._used = rest
        if rest == self._size:
            wanted = min(2 * self._size, self._size_max)
        elif not rest:
            wanted = self._size_first
        if wanted != self._size and wanted >= rest:
            other = PyByteArray_FromStringAndSize(NULL, wanted)
            memcpy(PyByteArray_AS_STRING(other), data, rest)
            self._buffer, self._size = other, wanted
        return 0

    cdef int _take(self, bytearray buffer, uint8_t* data, size_t size) except -1:
        """Handle all whole frames; _parsed says how many bytes they were. Raises ValueError for a broken peer."""
        # hot: `make bench`
        cdef size_t position = 0, start
        cdef uint64_t length
        cdef uint8_t flags
        cdef int i
        if not self._is_greeted:
            if size < GREETING_SIZE:
                return 0
            self._parsed = position = GREETING_SIZE
            zmtp.check_greeting(PyBytes_FromStringAndSize(<char*>data, GREETING_SIZE))
            self._is_greeted = True
            self._put_bytes(zmtp.ready_frame(self._socket_type))
            self.flush()
        while self.is_open and not self._is_paused and size - position >= 2:
            flags = data[position]
            if flags & LONG:
                if size - position < 9:
                    break
                length = 0
                for i in range(8):
                    length = length << 8 | data[position + 1 + i]
                start = position + 9
            else:
                length = data[position + 1]
                start = position + 2
            if length > (self._message_size_max if self.is_ready else HANDSHAKE_SIZE_MAX):
                raise ValueError(f"it announced a frame of {length} bytes")
            if length > size - start:
                break
            self._parsed = position = start + length
            if flags & COMMAND:
                self._on_command(PyBytes_FromStringAndSize(<char*>data + start, length))
            elif not self.is_ready or flags & MORE:
                raise ValueError("it sent a message before it was ready, or one of several parts")
            elif self._sink is not None:
                self._sink.take(data + start, length)
            else:
                self._on_message(self, memoryview(buffer)[start:position])
        return 0

    cdef int _on_command(self, bytes body) except -1:
        name, rest = zmtp.read_command(body, self.is_ready, self._peer_types)
        if name == b"READY" and not self.is_ready:
            self.is_ready = True
            self._on_ready(self)
        elif name == b"PING":
            if self._end - self._start > <size_t>QUEUE_SIZE_MAX:
                raise ValueError("it wants to hear from us, and does not read")
            self._put_bytes(zmtp.pong_frame(rest))
            self.flush()
        elif name in (b"SUBSCRIBE", b"CANCEL") and self.is_ready:  # as ZMTP 3.1 has it
            message = bytes((name == b"SUBSCRIBE",)) + rest
            if self._sink is not None:
                self._sink.take(<const uint8_t*>PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))
            else:
                self._on_message(self, memoryview(message))
        return 0

    cpdef close(self):
        """End the connection; what is queued is lost."""
        if not self.is_open:
            return
        self.is_open = False
        if self._loop is not None:
            self._loop.remove_peer(self._fd)
        else:
            self._events.remove_reader(self._fd)
            if self.is_blocked:
                self._events.remove_writer(self._fd)
        self.is_blocked = False
        self._sock.close()
        self._fd = -1
        free(self._queue)
        self._queue = NULL
        self._queue_size = self._start = self._end = 0
        self._buffer = None  # `read` has a reference of its own
        if self.queues is not None:
            self.queues.release(self)
        self._on_closed(self)

    def close_gently(self, wait_s):
        """End the connection, after a moment for what is queued."""
        if self.is_open and self._end > self._start:
            try:
                self._sock.settimeout(wait_s)
                self._sock.sendall(PyBytes_FromStringAndSize(<char*>self._queue + self._start, self._end - self._start))
            except OSError:
                pass
        self.close()


@cython.final  # its methods are called without a look at a table
cdef class Outlet:
    """Twin of `zmtp.Outlet`."""

    cdef object _events
    cdef object _queues
    cdef size_t _queue_size_max
    cdef bint _is_batched
    cdef bint _has_modes
    cdef uint32_t _session
    cdef set _peers
    cdef set _paced  # those that declared a mode
    cdef object _subscribers
    cdef dict _groups  # lists of subscribers by topic, padded; they follow all changes
    cdef uint64_t _version  # of that dict: whoever keeps groups of a topic looks whether it is still the same
    cdef uint64_t _stamp  # of the last message with several groups
    cdef list _unflushed
    cdef object _handshakes
    cdef object _listener
    cdef public bint is_wanted  # by a subscription that covers tickers

    def __cinit__(
        self, events, endpoints, last, *, key, queue_size_max, is_batched=False, has_modes=False, session=0,
        group=private.NOBODY, queues=None,
    ):
        self._events = events
        self._queues = Queues(sys.maxsize) if queues is None else queues
        self._queue_size_max = queue_size_max
        self._is_batched, self._has_modes, self._session = is_batched, has_modes, session
        self._peers, self._paced, self._unflushed = set(), set(), []
        self._subscribers = subscribing.Subscribers(
            events, last, is_batched=is_batched, on_mode=self._on_mode, on_wanted=self._on_wanted
        )
        self._groups = self._subscribers.by_topic
        self._version, self._stamp = 1, 0
        self.is_wanted = False
        self._handshakes = zmtp.Handshakes(events)
        self._listener = zmtp.Listener(events, endpoints, self._on_accept, key, group)

    def send(self, bytes topic, message):
        """Queue one message under its topic, padded; `flush` follows."""
        cdef Py_buffer view
        groups = self.find_groups(topic)
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            self.send_to(groups, topic, message, <const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int send_to(self, list groups, bytes topic, owner, const uint8_t* data, size_t size) except -1:
        """Queue one message; owner is what has it, and has its topic's newest later; None: nothing has it."""
        # hot: `make bench`
        cdef Peer peer
        cdef bint are_several = len(groups) > 1
        if are_several:
            self._stamp += 1
        for group in groups:
            for each in <list>group:
                peer = <Peer>each
                if are_several:
                    if peer._stamp == self._stamp:
                        continue  # it has another prefix of this topic as well
                    peer._stamp = self._stamp
                if peer.join is not None:
                    self._send_joining(peer, topic, owner, data, size)
                else:
                    self._give(peer, topic, owner, data, size)
        return 0

    cdef inline int _give(self, Peer peer, bytes topic, owner, const uint8_t* data, size_t size) except -1:
        if peer.pace is not None and self._is_kept_back(peer, topic, owner, data, size):
            return 0
        if peer._end == peer._start:
            if not peer._is_listed:
                peer._is_listed = True
                self._unflushed.append(peer)
        elif peer.is_blocked and peer._end - peer._start > peer.room:
            if not self._has_room(peer, topic, owner, data, size):
                return 0
        return peer.append(data, size)

    cdef bint _has_room(self, Peer peer, bytes topic, owner, const uint8_t* data, size_t size) except -1:
        """Find room for a message in a queue that has used what it had; False if it is not to be queued."""
        if peer._end - peer._start > self._queue_size_max:
            self._overflow(peer, topic, owner, data, size)
            return False
        return self._queues.grant(peer, self._cut)

    def _cut(self, Peer peer not None):
        """Shorten a queue; its subscriber gets the newest of each topic when it reads, this message's as well."""
        if not self._subscribers.start_anew(peer):
            return False
        lost = peer.shorten() // zmtp.MESSAGE_SIZE
        peer.dropped += lost
        if peer.pace is not None:
            peer.pace.skip(lost)
        return True

    cdef int _send_joining(self, Peer peer, bytes topic, owner, const uint8_t* data, size_t size) except -1:
        """Queue what may go to one who has not got all last values yet."""
        message = PyBytes_FromStringAndSize(<const char*>data, size)
        passed = peer.join.let_through(topic, message)
        if passed is message:
            self._give(peer, topic, owner, data, size)
        elif passed is not None:
            self._give(peer, topic, None, <const uint8_t*>PyBytes_AS_STRING(passed), PyBytes_GET_SIZE(passed))
        return 0

    cdef bint _is_kept_back(self, Peer peer, bytes topic, owner, const uint8_t* data, size_t size) except -1:
        its_pace = peer.pace
        if not its_pace.is_conflated:
            is_full = peer.is_blocked and peer._end - peer._start > self._queue_size_max
            if not is_full and not its_pace.is_waiting:
                return False
        elif its_pace.is_immediate and not peer.is_blocked and peer._end - peer._start < CHUNK_SIZE:
            return False
        its_pace.note(topic, PyBytes_FromStringAndSize(<const char*>data, size) if owner is None else owner)
        return True

    cdef int _overflow(self, Peer peer, bytes topic, owner, const uint8_t* data, size_t size) except -1:
        """A queue is full: what comes on top is kept by topic, the newest of each, until all of it has left."""
        if self._is_batched:
            peer.dropped += 1  # it would be kept by the first of its topics
            return 0
        peer.pace = modes.Pace(modes.ALL, time.monotonic_ns())  # undeclared: nobody is told
        peer.pace.note(topic, PyBytes_FromStringAndSize(<const char*>data, size) if owner is None else owner)
        return 0

    def look_mono_ns(self, now_mono_ns):
        """Return when `on_time` is to be called next, at the latest."""
        return min([(<Peer>peer).pace.look_mono_ns(now_mono_ns) for peer in self._paced], default=modes.NEVER)

    def on_time(self, now_mono_ns):
        """Let go what is due to subscribers at intervals, and tell each what it did not get."""
        cdef Peer peer
        for each in list(self._paced):  # one may go while it is written to
            peer = <Peer>each
            peer.pace.release(now_mono_ns)
            if peer._end > peer._start:
                continue  # the rest of it has to wait for room anyway
            if (notice := peer.pace.report(self._session, now_mono_ns, time.time_ns())) is not None:
                peer.put(notice)
            else:
                peer.refill()
            peer.flush()

    cdef list find_groups(self, bytes topic):
        groups = self._groups.get(topic)
        if groups is None:
            if len(self._groups) >= HEARERS_MAX:
                self._subscribers.forget()
                self._version += 1
            groups = self._subscribers.find(topic)
        return groups

    def flush(self):
        """Write what was queued; what the kernel does not take is written later."""
        self.flush_peers()

    cdef int flush_peers(self) except -1:
        # hot: `make bench`
        cdef Peer peer
        while self._unflushed:
            peer = <Peer>self._unflushed.pop()
            peer._is_listed = False
            if not peer.is_blocked and peer._end > peer._start:
                peer.write()
        return 0

    def _on_accept(self, sock):
        peer = Peer(
            self._events,
            sock,
            b"XPUB",
            peer_types=(b"SUB", b"XSUB"),
            on_ready=_do_nothing,
            on_message=self._subscribers.take,
            on_closed=self._on_closed,
            message_size_max=zmtp.REQUEST_SIZE_MAX,
        )
        if peer.is_open:  # it may have gone while it was greeted
            peer.queues = self._queues
            self._peers.add(peer)
            self._handshakes.watch(peer)

    def _on_mode(self, Peer peer not None, bytes request):
        """Take a declaration, however often it was made before, or its end."""
        if request[0] == SUBSCRIBE:
            peer.put(self._declare(peer, request[1:]))
        elif peer in self._paced and request[1:] == peer.pace.declaration:
            self._paced.discard(peer)
            peer.set_pace(None)

    def _declare(self, Peer peer not None, bytes declaration not None):
        """Take a subscriber's mode; returns the notice that says so, or why not."""
        try:
            if not self._has_modes:
                raise ValueError(zmtp.NO_MODES)
            its_pace = modes.Pace(declaration, time.monotonic_ns())
        except ValueError as exc:
            log.warning("a subscriber's declaration has no effect: %s", exc)
            return modes.refusal(declaration, str(exc), self._session, time.time_ns())
        peer.set_pace(its_pace)
        self._paced.add(peer)
        return its_pace.answer(self._session, time.time_ns())

    def _on_closed(self, Peer peer not None):
        self._peers.discard(peer)
        self._paced.discard(peer)
        self._subscribers.drop(peer)
        skipped = peer.dropped + (peer.pace.skipped if peer.pace and not peer.pace.is_conflated else 0)
        if skipped:
            log.warning("a subscriber that went had lost %d messages by not reading", skipped)

    def _on_wanted(self, is_wanted):
        self.is_wanted = is_wanted

    def look(self):
        """See that subscribers can still come, as `zmtp.Listener.look` does."""
        self._listener.look()

    def close(self, wait_s=0.2):
        """Close everything, after a moment for what is queued."""
        self._listener.close()
        self._subscribers.close()
        self._handshakes.close()
        self.flush_peers()
        deadline = time.monotonic() + wait_s  # for all together: those that read are served first, by the flush
        for peer in list(self._peers):
            if (<Peer>peer).pace is not None:
                (<Peer>peer).set_pace(None)  # what it was due is the last that it hears
            peer.close_gently(max(0.0, deadline - time.monotonic()))


def _do_nothing(peer):
    pass


def _without_peer(on_message, peer, message):
    on_message(message)


def _message_callback(on_message):
    """Return what a Peer calls: a Sink as it is, or a function of peer and message."""
    return on_message if isinstance(on_message, Sink) else functools.partial(_without_peer, on_message)


cdef class Inlet:
    """Twin of `zmtp.Inlet`; on_message may be a Sink."""

    cdef object _events
    cdef object _on_message
    cdef tuple _outlets
    cdef set _peers
    cdef object _handshakes
    cdef object _listener

    def __cinit__(self, events, endpoint, on_message, *, key, outlets=()):
        self._events = events
        self._on_message = _message_callback(on_message)
        self._outlets = tuple(outlets)
        self._peers = set()
        self._handshakes = zmtp.Handshakes(events)
        self._listener = zmtp.Listener(events, [endpoint], self._on_accept, key)

    def _on_accept(self, sock):
        peer = Peer(
            self._events,
            sock,
            b"SUB",
            peer_types=(b"PUB", b"XPUB"),
            on_ready=zmtp.subscribe_to_everything,
            on_message=self._on_message,
            on_closed=self._peers.discard,
            message_size_max=zmtp.HOP_MESSAGE_SIZE_MAX,
            outlets=self._outlets,
        )
        if peer.is_open:  # it may have gone while it was greeted
            self._peers.add(peer)
            self._handshakes.watch(peer)

    def look(self):
        """See that publishers can still come, as `zmtp.Listener.look` does."""
        self._listener.look()

    def close(self):
        """Close everything."""
        self._listener.close()
        self._handshakes.close()
        for peer in list(self._peers):
            peer.close()


cdef class Uplink:
    """Twin of `zmtp.Uplink`."""

    cdef object _events
    cdef object _endpoint
    cdef size_t _queue_size_max
    cdef Peer _peer
    cdef object _on_join
    cdef bint _is_subscribed

    def __cinit__(self, events, endpoint, on_join, *, queue_size_max):
        self._events = events
        self._endpoint = endpoint
        self._on_join = on_join
        self._queue_size_max = queue_size_max

    def poll(self):
        """Connect if there is no connection."""
        if self._peer is None:
            self._connect()

    def take_loss(self):
        """Return, once, that messages were dropped, when there is room again for what they said."""
        cdef Peer peer = self._peer
        if peer is None or not peer.dropped or peer._end - peer._start > self._queue_size_max // 2:
            return False
        peer.dropped = 0
        return True

    def send(self, message):
        """Send one message, if a subscriber is there and reads."""
        cdef Py_buffer view
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            self.send_data(<const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int send_data(self, const uint8_t* data, size_t size) except -1:
        # hot: `make bench`
        cdef Peer peer = self._peer
        if peer is None or not self._is_subscribed:
            return 0
        if peer.is_blocked and peer._end - peer._start > self._queue_size_max:
            peer.dropped += 1
            return 0
        peer.append(data, size)
        if not peer.is_blocked:
            peer.write()
        return 0

    cdef int _connect(self) except -1:
        sock = zmtp.connected(self._endpoint)
        if sock is None:
            return 0
        peer = Peer(
            self._events,
            sock,
            b"XPUB",
            peer_types=(b"SUB", b"XSUB"),
            on_ready=_do_nothing,
            on_message=self._on_request,
            on_closed=self._on_closed,
            message_size_max=zmtp.REQUEST_SIZE_MAX,
        )
        self._peer = peer if peer.is_open else None  # it may have gone while it was greeted
        return 0

    def _on_request(self, peer, message):
        if message and message[0] == SUBSCRIBE and not self._is_subscribed:
            self._is_subscribed = True
            self._on_join()

    def _on_closed(self, peer):
        self._peer = None
        self._is_subscribed = False

    def close(self, wait_s=0.2):
        """Close the connection, after a moment for what is queued."""
        if self._peer is not None:
            self._peer.close_gently(wait_s)


cdef class Downlink:
    """Twin of `zmtp.Downlink`; on_message may be a Sink."""

    cdef object _events
    cdef object _connector
    cdef list _prefixes
    cdef object _on_message
    cdef bint _is_conflated
    cdef Peer _peer

    def __cinit__(self, events, endpoint, prefixes, on_message, *, is_conflated=False, is_patient=False):
        self._is_conflated = is_conflated
        self._events = events
        self._connector = zmtp.connector(events, endpoint, self._adopt, is_patient=is_patient)
        self._prefixes = list(prefixes)
        self._on_message = _message_callback(on_message)

    @property
    def is_connected(self):
        """True while there is a connection."""
        return self._peer is not None

    def poll(self):
        """Connect if there is no connection; True if there is one."""
        if self._peer is None:
            self._connector.poll()
        return self._peer is not None

    def _adopt(self, sock):
        peer = Peer(
            self._events,
            sock,
            b"SUB",
            peer_types=(b"PUB", b"XPUB"),
            on_ready=self._subscribe,
            on_message=self._on_message,
            on_closed=self._on_closed,
            message_size_max=zmtp.HOP_MESSAGE_SIZE_MAX,
        )
        if self._is_conflated:
            zmtp.shrink_receive_buffer(sock)
        self._peer = peer if peer.is_open else None  # it may have gone while it was greeted

    def _subscribe(self, Peer peer not None):
        for prefix in self._prefixes:
            peer.put(bytes((SUBSCRIBE,)) + prefix)
        peer.flush()

    def _on_closed(self, peer):
        self._peer = None

    def close(self):
        """Close the connection."""
        self._connector.close()
        if self._peer is not None:
            self._peer.close()


# --- the feed's states, and its step

cdef class State:
    """Twin of `base.State`: its numbers lie as they do in a record, so that to pack it is to copy them."""

    cdef uint8_t _topic[TOPIC_SIZE]
    cdef readonly str topic
    cdef readonly str native
    cdef public int64_t group
    cdef public uint16_t base_flags
    cdef public int64_t offset_ns
    cdef public int64_t ahead_ns_max
    cdef public uint16_t flags
    cdef public uint32_t session
    cdef public uint64_t sequence
    cdef public int64_t exchange_ns  # from here on as in a record
    cdef public int64_t recv_ns
    cdef public int64_t publish_ns
    cdef public uint64_t exchange_sequence
    cdef public double last
    cdef public double bid
    cdef public double bid_size
    cdef public double ask
    cdef public double ask_size
    cdef public double open_24h
    cdef public double high_24h
    cdef public double low_24h
    cdef public double base_volume_24h
    cdef public double quote_volume_24h  # to here
    cdef public object slot  # where its records are written besides, None: nowhere
    cdef Arbitration _statistics
    cdef Arbitration _quote
    cdef Arbitration _last
    cdef readonly tuple channels
    cdef double[4] _stated_quote  # by slower channels,
    cdef double _stated_last  # likewise

    def __cinit__(self, *, str topic not None, str native not None, base_flags=0, flags=0, session=0):
        cdef bytes padded = wire.padded(topic)
        if PyBytes_GET_SIZE(padded) != TOPIC_SIZE:
            raise ValueError("topic is too long")
        if <uint8_t*>(&self.quote_volume_24h + 1) - <uint8_t*>&self.exchange_ns != RECORD_SIZE - EXCHANGE_NS_OFFSET:
            raise TypeError("the compiler has put the numbers of a State apart")
        memcpy(self._topic, PyBytes_AS_STRING(padded), TOPIC_SIZE)
        self.topic, self.native, self.base_flags, self.session = topic, native, base_flags, session
        self.ahead_ns_max = AHEAD_NS_MAX
        self._statistics, self._quote, self._last = self.channels = (Arbitration(), Arbitration(), Arbitration())
        self.forget()
        self.flags = flags

    def forget(self):
        """Make every value unknown: no line is left to keep them."""
        cdef Arbitration channel
        self.last = self.bid = self.bid_size = self.ask = self.ask_size = NAN
        self.open_24h = self.high_24h = self.low_24h = self.base_volume_24h = self.quote_volume_24h = NAN
        self._stated_quote[:] = [NAN, NAN, NAN, NAN]
        self._stated_last = NAN
        self.flags = self.base_flags
        self.exchange_sequence = 0
        self.exchange_ns = self.recv_ns = 0
        for channel in self.channels:
            channel.reset()

    def renew(self, int line):
        """Another connection has this line from now on, and has sent nothing yet."""
        cdef Arbitration channel
        for channel in self.channels:
            channel.renew(line)

    def inherit(self, int line):
        """Channels that are silent on a line have been silent elsewhere since: what is known still holds."""
        cdef Arbitration channel
        for channel in self.channels:
            channel.inherit(line)

    def release(self, int line):
        """A line is gone: another may repeat what it sent last."""
        cdef Arbitration channel
        for channel in self.channels:
            channel.release(line)

    def accept(self, int channel, Line line not None, int64_t update_id, int64_t recv_ns, bint is_time=False):
        """Note that a channel has sent an update; False if it is known, or older than what is known."""
        # hot: `make bench-micro`, decode
        cdef int64_t present_ns = 0
        cdef bint is_live = not self.flags & NOT_LIVE
        if line.group != self.group:
            return False  # another group's canary, or what was under way when the symbol left that group
        if is_time:
            present_ns = max(<int64_t>1, recv_ns + self.offset_ns)
            if update_id > recv_ns + self.ahead_ns_max:
                update_id = present_ns  # it cannot be
        return self._channel(channel).accept(line, update_id, recv_ns, present_ns, is_live)

    cdef inline Arbitration _channel(self, int channel):
        if channel == QUOTE:
            return self._quote
        if channel == STATISTICS:
            return self._statistics
        if channel == LAST:
            return self._last
        raise IndexError("no such channel")

    def heard(self, int line):
        """Return how many channels have sent on a line."""
        return (
            (self._statistics.heard_ns(line) != 0) + (self._quote.heard_ns(line) != 0)
            + (self._last.heard_ns(line) != 0)
        )

    def stated(self, int channel):
        """Return what slower channels last stated of the fields of this one, NaN if they never did."""
        if channel == QUOTE:
            return tuple(self._stated_quote)
        return (self._stated_last,) if channel == LAST else ()

    def set_quote(self, double bid, double bid_size, double ask, double ask_size):
        """Take the quote over. A price of 0 is that of an empty side."""
        self.bid, self.bid_size = bid if bid else NAN, bid_size
        self.ask, self.ask_size = ask if ask else NAN, ask_size

    def fill_quote(self, double bid, double bid_size, double ask, double ask_size):
        """Note the quote of a slower channel: a value until the quote's own has sent, evidence from then on."""
        self._stated_quote[0], self._stated_quote[1] = bid if bid else NAN, bid_size
        self._stated_quote[2], self._stated_quote[3] = ask if ask else NAN, ask_size
        if not self._quote.updates:
            self.set_quote(bid, bid_size, ask, ask_size)

    def fill_last(self, double last):
        """The same of the last price. 0 is that of an instrument which never traded."""
        self._stated_last = last if last else NAN
        if not self._last.updates:
            self.last = self._stated_last

    def set_statistics(
        self, double open_24h, double high_24h, double low_24h, double base_volume, double quote_volume
    ):
        """Take the 24 h statistics over. A price of 0 is that of an instrument which never traded."""
        self.open_24h = open_24h if open_24h else NAN
        self.high_24h = high_24h if high_24h else NAN
        self.low_24h = low_24h if low_24h else NAN
        self.base_volume_24h, self.quote_volume_24h = base_volume, quote_volume

    def on_news(self, int64_t recv_ns):
        """Note when the frame came that changed this state; every flag is decided anew."""
        self.recv_ns = recv_ns
        self.flags = self.base_flags
        if self.exchange_ns > recv_ns + self.ahead_ns_max:
            self.flags |= BAD_EXCHANGE_TIME

    def record(self):
        """Return the record as it is published."""
        cdef bytes record = PyBytes_FromStringAndSize(NULL, RECORD_SIZE)
        self._pack(<uint8_t*>PyBytes_AS_STRING(record))
        return record

    cpdef pack(self, target, Py_ssize_t start):
        """Write the record into a buffer."""
        self._pack(raw.writable(target, start, RECORD_SIZE))

    cdef void _pack(self, uint8_t* record) noexcept:
        memcpy(record, self._topic, TOPIC_SIZE)
        record[VERSION_OFFSET], record[KIND_OFFSET] = VERSION, TICKER
        memcpy(record + FLAGS_OFFSET, &self.flags, 2)
        memcpy(record + SESSION_OFFSET, &self.session, 4)
        memcpy(record + SEQUENCE_OFFSET, &self.sequence, 8)
        memcpy(record + EXCHANGE_NS_OFFSET, &self.exchange_ns, RECORD_SIZE - EXCHANGE_NS_OFFSET)
