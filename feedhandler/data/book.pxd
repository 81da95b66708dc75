cimport cython

from feedhandler.data cimport raw

cdef Py_ssize_t _LEVEL_SIZE, _SIZE_OFFSET, _LEVELS_SIZE_MAX


cpdef list bodies(first_id, last_id, bytes bids, bytes asks)
@cython.locals(price=double, size=double, is_edge=bint)
cpdef double edge_of(bytes data, Py_ssize_t start, Py_ssize_t count, bint is_snapshot) except? -1
