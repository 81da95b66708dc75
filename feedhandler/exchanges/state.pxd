cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from feedhandler.data cimport raw
from feedhandler.data.contracts cimport Slot
from feedhandler.exchanges.arbitration cimport Arbitration, Line

cdef int _STATISTICS, _QUOTE, _LAST
cdef double _NAN
cdef uint16_t _NOT_LIVE, _BAD_EXCHANGE_TIME
cdef uint8_t _VERSION, _CONDITION
cdef Py_ssize_t _TOPIC_SIZE, _HEADER_SIZE, _TICKER_SIZE, _VERSION_OFFSET, _KIND_OFFSET, _FLAGS_OFFSET
cdef Py_ssize_t _SESSION_OFFSET, _SEQUENCE_OFFSET
cdef Py_ssize_t _EXCHANGE_NS_OFFSET, _RECV_NS_OFFSET, _PUBLISH_NS_OFFSET
cdef Py_ssize_t _EXCHANGE_SEQUENCE_OFFSET, _LAST_OFFSET, _BID_OFFSET, _BID_SIZE_OFFSET, _ASK_OFFSET
cdef Py_ssize_t _ASK_SIZE_OFFSET, _OPEN_OFFSET, _HIGH_OFFSET, _LOW_OFFSET, _BASE_VOLUME_OFFSET
cdef Py_ssize_t _QUOTE_VOLUME_OFFSET


cdef class State:
    cdef bytes _padded
    cdef uint8_t _code
    cdef Py_ssize_t _size_max
    cdef readonly str kind
    cdef readonly str topic
    cdef readonly str native
    cdef readonly bint keeps_every
    cdef public bint takes_number
    cdef public int64_t group
    cdef public uint16_t base_flags, flags
    cdef public uint32_t session
    cdef public uint64_t sequence
    cdef public int64_t exchange_ns, recv_ns, publish_ns
    cdef public int64_t offset_ns, ahead_ns_max
    cdef public Slot slot
    cdef readonly tuple channels

    cpdef forget(self)
    cpdef renew(self, int line)
    cpdef inherit(self, int line)
    cpdef release(self, int line)

    @cython.locals(present_ns=int64_t, is_live=bint)
    cpdef bint accept(self, int channel, Line line, int64_t update_id, int64_t recv_ns, bint is_time=*) except -1
    @cython.locals(newest_ns=int64_t)
    cdef int64_t _possible_ns(self, int channel, int64_t time_ns, int64_t present_ns) except -1
    cdef bint _decide(
        self, int channel, Line line, int64_t update_id, int64_t recv_ns, int64_t present_ns, bint is_live
    ) except -1
    cpdef int heard(self, int line) except -1
    cpdef on_news(self, int64_t recv_ns)

    @cython.locals(record=bytearray)
    cpdef bytes record(self)
    cpdef Py_ssize_t pack(self, bytearray target, Py_ssize_t start) except -1
    cpdef int pack_header(self, bytearray target, Py_ssize_t start, uint8_t code, uint16_t flags) except -1


@cython.final
cdef class TickerState(State):
    cdef public uint64_t exchange_sequence
    cdef public double last, bid, bid_size, ask, ask_size
    cdef public double open_24h, high_24h, low_24h, base_volume_24h, quote_volume_24h
    cdef double _stated_bid, _stated_bid_size, _stated_ask, _stated_ask_size, _stated_last
    cdef Arbitration _statistics, _quote, _last

    cdef Arbitration _arbitration(self, int channel)
    cpdef set_quote(self, double bid, double bid_size, double ask, double ask_size)
    cpdef fill_quote(self, double bid, double bid_size, double ask, double ask_size)
    cpdef fill_last(self, double last)
    cpdef set_statistics(
        self, double open_24h, double high_24h, double low_24h, double base_volume, double quote_volume
    )


cdef class RecordState(State):
    cdef Py_ssize_t _size_min
    cdef bint _was_packed
    cdef bytes _newest
    cdef uint16_t _newest_flags

    @cython.locals(flags=uint16_t)
    cpdef forget(self)
    @cython.locals(packed=bytes)
    cpdef put(self, record)
    cpdef put_packed(self, bytes packed, uint16_t flags)
    @cython.locals(packed=bytes, size=Py_ssize_t)
    cpdef Py_ssize_t pack(self, bytearray target, Py_ssize_t start) except -1
