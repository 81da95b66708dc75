cimport cython

from feedhandler.data cimport raw

cdef Py_ssize_t _LEVELS_MAX, _LEVEL_SIZE, _SIZE_OFFSET, _DEPTH_MAX, _SIDE_SIZE, _ROOM_MIN
cdef double _NAN, _INFINITE
cdef bytes _NONE


cpdef bytes read_levels(text)
@cython.locals(packed=bytearray, at=Py_ssize_t, price=double, size=double)
cpdef bytes pack_levels(levels)
cpdef list pairs_of(bytes levels)


@cython.final
cdef class Levels:
    cdef readonly bint is_bids
    cdef readonly Py_ssize_t count
    cdef Py_ssize_t _first
    cdef bytearray _data

    cpdef clear(self)
    @cython.locals(price=double, size=double)
    cpdef replace(self, levels)
    @cython.locals(worst=double)
    cdef bint _is_worst(self, double price) except -1
    @cython.locals(end=Py_ssize_t)
    cdef bint _append(self, double price, double size) except -1
    @cython.locals(price=double, size=double)
    cpdef change(self, levels)
    @cython.locals(at=Py_ssize_t, count=Py_ssize_t, is_there=bint)
    cpdef set(self, double price, double size)
    @cython.locals(first=Py_ssize_t, count=Py_ssize_t, is_front=bint)
    cdef int _insert(self, Py_ssize_t at) except -1
    @cython.locals(first=Py_ssize_t, count=Py_ssize_t)
    cdef int _remove(self, Py_ssize_t at) except -1
    @cython.locals(first=Py_ssize_t)
    cdef Py_ssize_t _make_room(self) except -1
    @cython.locals(count=Py_ssize_t, index=Py_ssize_t, at=Py_ssize_t, price=double, size=double)
    cpdef replace_packed(self, bytes levels)
    @cython.locals(
        index=Py_ssize_t,
        at=Py_ssize_t,
        before=double,
        price=double,
        is_rising=bint,
        is_falling=bint,
    )
    cpdef bytes record(self, bytes levels)
    @cython.locals(index=Py_ssize_t, at=Py_ssize_t, price=double, size=double)
    cpdef take(self, bytes data, Py_ssize_t start, Py_ssize_t count)
    cpdef bytes packed(self, Py_ssize_t first=*, Py_ssize_t count=*)
    cpdef cut(self, Py_ssize_t count)
    cpdef double best_size(self) except? -1
    cpdef double best(self) except? -1
    cpdef double worst(self) except? -1
    @cython.locals(at=Py_ssize_t, is_there=bint)
    cpdef Py_ssize_t count_to(self, double price) except -1
    @cython.locals(at=Py_ssize_t, place=Py_ssize_t)
    cpdef double size_at(self, double price) except? -1
    @cython.locals(count=Py_ssize_t, used=Py_ssize_t)
    cpdef Py_ssize_t copy_best(self, bytearray target, Py_ssize_t start) except -1
    @cython.locals(at=Py_ssize_t)
    cdef Py_ssize_t _place(self, double price) except -1
    cdef int _move(self, Py_ssize_t start, Py_ssize_t to, Py_ssize_t count) except -1
