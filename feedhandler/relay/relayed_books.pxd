cimport cython

from feedhandler.data.contracts cimport Sink
from feedhandler.data.kept_book cimport Book, read

cdef Py_ssize_t _TOPIC_SIZE


@cython.final
cdef class RelayedBooks:
    cdef object _ring
    cdef dict _books, _topics
    cdef set _looked_up
    cdef object _session
    cdef bint _has_joined

    @cython.locals(topic=str, book=Book)
    cpdef bint follow(self, bytes message) except -1
    @cython.locals(padded=bytes, topic=str, book=Book, is_condition=bint)
    cpdef take(self, bytes message)
    cdef _enter(self, session)
    cdef Book _book(self, str topic)
    @cython.locals(records=list)
    cdef _catch_up(self, Book book, newest)


cdef class BooksFirst(Sink):
    cdef RelayedBooks _books
    cdef object _rest
