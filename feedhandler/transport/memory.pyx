"""The compiled form of `memory.py`: atomic operations, which Python has none of, and a handler of SIGBUS."""

import mmap

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t, uintptr_t
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from feedhandler.data cimport raw

BEYOND = "beyond the memory, or not aligned"
READ_ONLY = "memory that is read only"

cdef enum:
    SIZE_MAX = 1 << 20  # of a record: the number of its words is an int


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #if defined(__x86_64__) || defined(__i386__)
    #define BOARD_PAUSE() __builtin_ia32_pause()
    #elif defined(__aarch64__)
    #define BOARD_PAUSE() __asm__ __volatile__("yield")
    #else
    #define BOARD_PAUSE() ((void)0)
    #endif

    /* All as in feedhandler/data/board_layout.py. Records go word by word, each one atomic: a plain memcpy would be a
       data race, which C leaves undefined; the compiler makes the same instructions of it but for their width. */
    static void board_put(
        uint64_t *cell, uint64_t *newest, uint64_t number, const uint8_t *record, int words, int first
    ) {
        uint64_t word;
        int i = first;
        __atomic_store_n(cell, 2 * number - 1, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_RELEASE);
        for (; words - i >= 8; i += 8) {  /* a loop of one would be half of the work */
            #pragma GCC unroll 8
            for (int k = 0; k < 8; k++) {
                memcpy(&word, record + 8 * (i + k), 8);
                __atomic_store_n(cell + 1 + i + k, word, __ATOMIC_RELAXED);
            }
        }
        for (; i < words; i++) {
            memcpy(&word, record + 8 * i, 8);
            __atomic_store_n(cell + 1 + i, word, __ATOMIC_RELAXED);
        }
        __atomic_store_n(cell, 2 * number, __ATOMIC_RELEASE);
        __atomic_store_n(newest, number, __ATOMIC_RELEASE);
    }

    static int board_take(const uint64_t *cell, uint64_t number, char *record, int words) {
        uint64_t word;
        if (__atomic_load_n(cell, __ATOMIC_ACQUIRE) != 2 * number)
            return 0;
        for (int i = 0; i < words; i++) {
            word = __atomic_load_n(cell + 1 + i, __ATOMIC_RELAXED);
            memcpy(record + 8 * i, &word, 8);
        }
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        return __atomic_load_n(cell, __ATOMIC_RELAXED) == 2 * number;
    }

    static void ring_put(
        uint64_t *words, uint64_t *guard_at, uint64_t guard, const uint8_t *data, size_t size
    ) {
        uint64_t word;
        __atomic_store_n(guard_at, guard, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_RELEASE);
        for (; size >= 8; size -= 8, data += 8) {
            memcpy(&word, data, 8);
            __atomic_store_n(words++, word, __ATOMIC_RELAXED);
        }
        if (size) {
            word = 0;
            memcpy(&word, data, size);
            __atomic_store_n(words, word, __ATOMIC_RELAXED);
        }
    }

    static int ring_take(
        const uint64_t *words, const uint64_t *guard_at, uint64_t guard_max, char *data, size_t size
    ) {
        uint64_t word;
        for (; size >= 8; size -= 8, data += 8) {
            word = __atomic_load_n(words++, __ATOMIC_RELAXED);
            memcpy(data, &word, 8);
        }
        if (size) {
            word = __atomic_load_n(words, __ATOMIC_RELAXED);
            memcpy(data, &word, size);
        }
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        return __atomic_load_n(guard_at, __ATOMIC_RELAXED) <= guard_max;
    }

    static uint64_t board_load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
    """
    void board_put(
        uint64_t* cell, uint64_t* newest, uint64_t number, const uint8_t* record, int words, int first
    ) noexcept nogil
    bint board_take(const uint64_t* cell, uint64_t number, char* record, int words) noexcept nogil
    void ring_put(
        uint64_t* words, uint64_t* guard_at, uint64_t guard, const uint8_t* data, size_t size
    ) noexcept nogil
    bint ring_take(
        const uint64_t* words, const uint64_t* guard_at, uint64_t guard_max, char* data, size_t size
    ) noexcept nogil
    uint64_t board_load(const uint64_t* word) noexcept nogil
    void BOARD_PAUSE() noexcept nogil


cdef extern from *:
    """
    #include <errno.h>
    #include <signal.h>
    #include <sys/mman.h>

    /* Who has a file mapped is killed with SIGBUS when somebody cuts it short and it looks behind the end. Where that
       file is one of ours the handler puts empty memory in its place, all of it, and the look succeeds: what is read there
       is no record, what is written there is lost, and both are told by the file's size. For all else, what was there
       before decides. Only what a signal handler may do: no locks, no Python, mmap as a plain system call. */
    enum { BOARD_MAPS_MAX = 1024 };
    static struct { uintptr_t start, end; int protection; } board_maps[BOARD_MAPS_MAX];
    static struct sigaction board_bus_before;

    static void board_on_bus(int number, siginfo_t *info, void *context) {
        uintptr_t at = (uintptr_t)info->si_addr;
        int error = errno;
        for (int i = 0; i < BOARD_MAPS_MAX && info->si_code > 0; i++) {  /* else somebody has sent it */
            uintptr_t start = __atomic_load_n(&board_maps[i].start, __ATOMIC_ACQUIRE), end = board_maps[i].end;
            if (start == 0 || at < start || at >= end)
                continue;
            if (mmap((void *)start, end - start, board_maps[i].protection,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
                break;
            errno = error;
            return;
        }
        errno = error;
        if (board_bus_before.sa_flags & SA_SIGINFO) {
            board_bus_before.sa_sigaction(number, info, context);
        } else if (board_bus_before.sa_handler == SIG_DFL || board_bus_before.sa_handler == SIG_IGN) {
            sigaction(number, &board_bus_before, NULL);  /* and again, from where it came */
            if (info->si_code <= 0)
                raise(number);
        } else {
            board_bus_before.sa_handler(number);
        }
    }

    /* A place in the table, or -1: it is full, or there is no handler. */
    static int board_guard(uintptr_t start, uintptr_t size, int is_writable) {
        static int has_handler;
        struct sigaction ours;
        if (!has_handler) {
            memset(&ours, 0, sizeof ours);
            ours.sa_sigaction = board_on_bus;
            ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
            sigemptyset(&ours.sa_mask);
            if (sigaction(SIGBUS, &ours, &board_bus_before) < 0)
                return -1;
            has_handler = 1;
        }
        for (int i = 0; i < BOARD_MAPS_MAX; i++) {
            if (board_maps[i].start == 0) {
                board_maps[i].end = start + size;
                board_maps[i].protection = is_writable ? PROT_READ | PROT_WRITE : PROT_READ;
                __atomic_store_n(&board_maps[i].start, start, __ATOMIC_RELEASE);
                return i;
            }
        }
        return -1;
    }

    static void board_unguard(int place) {
        if (place >= 0)
            __atomic_store_n(&board_maps[place].start, 0, __ATOMIC_RELEASE);
    }
    """
    int board_guard(uintptr_t start, uintptr_t size, int is_writable) noexcept
    void board_unguard(int place) noexcept


cdef class Guarded:
    """The bytes of a mapped file; whoever has a view of them outlives it when the file is cut short."""

    cdef Py_buffer _view
    cdef int _place
    cdef bint _is_held

    def __cinit__(self, file not None):
        self._place = -1
        if not isinstance(file, mmap.mmap):
            raise TypeError("not a mapped file")
        PyObject_GetBuffer(file, &self._view, PyBUF_SIMPLE)
        self._is_held = True
        self._place = board_guard(<uintptr_t>self._view.buf, self._view.len, not self._view.readonly)

    def __dealloc__(self):
        board_unguard(self._place)
        if self._is_held:
            PyBuffer_Release(&self._view)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self._view.buf, self._view.len, self._view.readonly, flags)


def mapped(file):
    """As in `memory.py`; these bytes survive that the file is cut short."""
    return memoryview(Guarded(file))


@cython.final
cdef class Memory:
    """As in `memory.py`."""

    def __cinit__(self, file not None):
        self._is_held = False
        PyObject_GetBuffer(file, &self._view, PyBUF_SIMPLE)
        self._is_held = True
        if <uintptr_t>self._view.buf % 8:
            raise ValueError(BEYOND)
        self.size = self._view.len
        self.is_writable = not self._view.readonly

    def __dealloc__(self):
        if self._is_held:
            PyBuffer_Release(&self._view)

    cdef inline uint8_t* _words(self, Py_ssize_t at, Py_ssize_t size) except NULL:
        # Compared without signs, so that what is below 0 is beyond as well.
        if <size_t>at > <size_t>self.size or <size_t>size > <size_t>(self.size - at) or (at | size) & 7:
            raise IndexError(BEYOND)
        return <uint8_t*>self._view.buf + at

    cpdef uint64_t load(self, Py_ssize_t at) except? 0:
        return board_load(<const uint64_t*>self._words(at, 8))

    cpdef bytes cut(self, Py_ssize_t at, Py_ssize_t size):
        if at < 0 or size < 0 or at > self.size or size > self.size - at:
            raise IndexError(BEYOND)
        return PyBytes_FromStringAndSize(<const char*>self._view.buf + at, size)

    def paste(self, Py_ssize_t at, bytes data not None):
        if not self.is_writable:
            raise BufferError(READ_ONLY)
        if at < 0 or at > self.size or len(data) > self.size - at:
            raise IndexError(BEYOND)
        memcpy(<uint8_t*>self._view.buf + at, PyBytes_AS_STRING(data), len(data))

    cpdef put(self, Py_ssize_t at, uint64_t number, Py_ssize_t newest_at, record, Py_ssize_t start):
        cdef Py_ssize_t size = raw.size(record)
        cdef const uint8_t* data = raw.readable(record, 0, size)
        if not self.is_writable:
            raise BufferError(READ_ONLY)
        if size > SIZE_MAX or start < 0 or start > size or start % 8:
            raise IndexError(BEYOND)
        board_put(
            <uint64_t*>self._words(at, 8 + size), <uint64_t*>self._words(newest_at, 8), number, data, <int>(size // 8),
            <int>(start // 8),
        )

    cpdef bytes take(self, Py_ssize_t at, uint64_t number, Py_ssize_t size):
        cdef const uint64_t* cell
        cdef bytes record
        if size < 0 or size > SIZE_MAX:
            raise IndexError(BEYOND)
        cell = <const uint64_t*>self._words(at, 8 + size)
        if number >> 63:
            return None  # its stamp is no u64: nobody has written so many
        record = PyBytes_FromStringAndSize(NULL, size)
        if not board_take(cell, number, PyBytes_AS_STRING(record), <int>(size // 8)):
            return None
        return record

    cpdef put_guarded(self, Py_ssize_t at, data, Py_ssize_t guard_at, uint64_t guard):
        cdef Py_ssize_t size = raw.size(data)
        cdef const uint8_t* source = raw.readable(data, 0, size)
        if not self.is_writable:
            raise BufferError(READ_ONLY)
        ring_put(
            <uint64_t*>self._words(at, (size + 7) // 8 * 8), <uint64_t*>self._words(guard_at, 8), guard, source,
            <size_t>size,
        )

    cpdef bytes take_guarded(self, Py_ssize_t at, Py_ssize_t size, Py_ssize_t guard_at, uint64_t guard_max):
        cdef const uint64_t* words
        cdef const uint64_t* guard
        cdef bytes data
        if size < 0 or size > SIZE_MAX:
            raise IndexError(BEYOND)
        words = <const uint64_t*>self._words(at, (size + 7) // 8 * 8)
        guard = <const uint64_t*>self._words(guard_at, 8)
        data = PyBytes_FromStringAndSize(NULL, size)
        if not ring_take(words, guard, guard_max, PyBytes_AS_STRING(data), <size_t>size):
            return None
        return data

    def wait(self, Py_ssize_t at, uint64_t value, int64_t spin_ns):
        cdef const uint64_t* word = <const uint64_t*>self._words(at, 8)
        cdef int64_t deadline_ns
        cdef int i
        cdef bint is_other = board_load(word) != value
        if is_other:
            return True
        with nogil:  # other threads may run: who waits here needs its own processor, and nobody's lock
            deadline_ns = now_mono_ns()
            deadline_ns += min(max(spin_ns, <int64_t>0), INT64_MAX - deadline_ns)
            while True:
                for i in range(64):
                    is_other = board_load(word) != value
                    if is_other:
                        break
                    BOARD_PAUSE()
                if is_other or now_mono_ns() >= deadline_ns:
                    break
        return is_other


cdef int64_t now_mono_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec
