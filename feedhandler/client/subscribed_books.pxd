cimport cython

from feedhandler.data.kept_book cimport Book


@cython.final
cdef class Kept:
    cdef public Book book
    cdef public list held
    cdef public object due_ns, pause_ns, unconfirmed


@cython.final
cdef class SubscribedBooks:
    cdef readonly dict by_topic
    cdef list _prefixes
    cdef object _emit, _clock
    cdef public dict newest
    cdef dict _kept, _wanted
    cdef Py_ssize_t _held_count
    cdef object _queries, _asked, _asked_ns, _request_id
    cdef object _doubted_until_ns, _looked_ns, _confirmed_ns
    cdef readonly bint _is_subscribed
    cdef object _session
    cdef bint _is_discovered
    cdef object _discover_ns, _discover_pause_ns
    cdef public bint is_connected

    @cython.locals(kept=Kept)
    cpdef take(self, record)
    @cython.locals(kept=Kept)
    cdef Kept _kept_of(self, topic)
    cdef bint _may_ask(self, Kept kept) except -1
    @cython.locals(begins=bint)
    cdef _hold(self, Kept kept, list held, record)
    cdef _begin(self, Kept kept, list records)
    cdef _postpone(self, Kept kept)
    @cython.locals(held=list)
    cdef _release(self, Kept kept)
    @cython.locals(kept=Kept)
    cdef _give_up(self)
