from libc.stdint cimport uint8_t, uint64_t


cdef class Memory:
    cdef Py_buffer _view
    cdef bint _is_held
    cdef readonly Py_ssize_t size
    cdef readonly bint is_writable

    cdef uint8_t* _words(self, Py_ssize_t at, Py_ssize_t size) except NULL
    cpdef uint64_t load(self, Py_ssize_t at) except? 0
    cpdef bytes cut(self, Py_ssize_t at, Py_ssize_t size)
    cpdef put(self, Py_ssize_t at, uint64_t number, Py_ssize_t newest_at, record, Py_ssize_t start)
    cpdef put_guarded(self, Py_ssize_t at, data, Py_ssize_t guard_at, uint64_t guard)
    cpdef bytes take_guarded(self, Py_ssize_t at, Py_ssize_t size, Py_ssize_t guard_at, uint64_t guard_max)
    cpdef bytes take(self, Py_ssize_t at, uint64_t number, Py_ssize_t size)
