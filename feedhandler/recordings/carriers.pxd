cimport cython
from libc.stdint cimport int64_t, uint16_t

from feedhandler.data cimport raw
from feedhandler.exchanges.arbitration cimport Line
from feedhandler.exchanges.state cimport State

cdef class Carrier


cdef class Met(dict):
    cdef Carrier _carrier
    cdef object _kind, _base_flags

    cdef _made(self, native)


cdef class RecordedConnection:
    cdef readonly str where
    cdef readonly bint is_guessed
    cdef public Carrier carrier
    cdef Line line
    cdef readonly dict lines
    cdef readonly set topics
    cdef public RecordedConnection beside


cdef class Carrier:
    cdef readonly object market
    cdef readonly dict states
    cdef dict _bases, _taken
    cdef public set listed
    cdef list _topics, _lines, _records
    cdef readonly State met
    cdef readonly object control
    cdef readonly str problem
    cdef readonly bint was_known, was_crossed, has_lost
    cdef RecordedConnection _connection
    cdef Line _line
    cdef bint _is_of_another_line
    cdef bytearray _buffer
    cdef readonly dict begun_ns
    cdef object _decode, _emit

    @cython.locals(met=State)
    cpdef list receive(self, item, RecordedConnection connection)
    cdef _decoded(self, data, recv_ns, RecordedConnection connection)
    cdef _attempt(self, data, recv_ns)
    cdef bint note(self, State state) except -1
    cdef _meet(self, State state, index)
    @cython.locals(size=Py_ssize_t)
    cpdef emit(self, State state)
    cpdef list take_records(self)
    cpdef join(self, RecordedConnection connection, native)
