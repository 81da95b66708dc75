cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from feedhandler.data cimport raw, unpacked
from feedhandler.data.contracts cimport Sink

cdef Py_ssize_t TOPICS_MAX, GATHERED_SIZE_FIRST
cdef object Ticker, Trade, Depth, BookRecord, TICKER_KIND, TRADE_KIND, DEPTH_KIND, BOOK_KIND, FLAGS_OF
cdef dict SIDES
cdef uint8_t VERSION, TICKER, TRADE, DEPTH, BOOK
cdef Py_ssize_t TRADE_SIZE, DEPTH_SIZE, BIDS_OFFSET, ASKS_OFFSET, LEVEL_SIZE, BOOK_SIZE, BOOK_SIZE_MAX
cdef Py_ssize_t TOPIC_SIZE, TOPIC_BYTES_MAX, RECORD_SIZE, VERSION_OFFSET, KIND_OFFSET, SESSION_OFFSET, SEQUENCE_OFFSET


@cython.final
cdef class Loss:
    cdef public uint32_t session
    cdef public uint64_t sequence
    cdef str topic
    cdef public object lost, gaps, recovered  # beyond 64 bits, if somebody sends such numbers


cdef class Follower(Sink):
    cdef object _emit, _emit_other
    cdef public object on_gap
    cdef object _aside
    cdef dict _padded
    cdef str _topic
    cdef uint64_t _missing
    cdef readonly dict held, losses, newest
    cdef public int64_t undecodable

    @cython.locals(size=Py_ssize_t, start=Py_ssize_t, step=Py_ssize_t)
    cpdef take(self, bytes data)

    cdef _take_ticker(self, bytes data, Py_ssize_t start)
    @cython.final
    @cython.locals(left=Py_ssize_t, length=Py_ssize_t, count=Py_ssize_t, code=uint8_t)
    cdef Py_ssize_t _size_of_many(self, bytes data, Py_ssize_t start, Py_ssize_t size) except -1
    @cython.final
    @cython.locals(code=uint8_t)
    cdef _take_many(self, bytes data, Py_ssize_t start, Py_ssize_t size)
    cdef _take_other(self, bytes data)
    @cython.locals(loss=Loss)
    cdef _take_condition(self, record, bytes data)
    cdef _pass(self, record)
    cdef _hand_on(self, record)

    @cython.final
    @cython.locals(session=uint32_t, sequence=uint64_t, missing=uint64_t, padded=bytes, loss=Loss)
    cdef bint _is_news(self, bytes data, Py_ssize_t start) except -1

    @cython.locals(topic=str, known=Loss, loss=Loss)
    cdef Loss _first_of(self, bytes padded, uint32_t session, uint64_t sequence)


cdef class Gatherer(Follower):
    cdef bytearray _records
    cdef Py_ssize_t _used
