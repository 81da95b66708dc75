cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from feedhandler.data cimport raw
from feedhandler.exchanges.arbitration cimport Arbitration, Line

cdef int _STATISTICS, _QUOTE, _LAST
cdef double _NAN
cdef uint16_t _NOT_LIVE, _BAD_EXCHANGE_TIME
cdef uint8_t _VERSION, _TICKER
cdef Py_ssize_t _TOPIC_SIZE, _RECORD_SIZE, _VERSION_OFFSET, _KIND_OFFSET, _FLAGS_OFFSET, _SESSION_OFFSET
cdef Py_ssize_t _SEQUENCE_OFFSET, _EXCHANGE_NS_OFFSET, _RECV_NS_OFFSET, _PUBLISH_NS_OFFSET
cdef Py_ssize_t _EXCHANGE_SEQUENCE_OFFSET, _LAST_OFFSET, _BID_OFFSET, _BID_SIZE_OFFSET, _ASK_OFFSET
cdef Py_ssize_t _ASK_SIZE_OFFSET, _OPEN_OFFSET, _HIGH_OFFSET, _LOW_OFFSET, _BASE_VOLUME_OFFSET
cdef Py_ssize_t _QUOTE_VOLUME_OFFSET


@cython.final
cdef class State:
    cdef bytes _padded
    cdef readonly str topic
    cdef readonly str native
    cdef public int64_t group
    cdef public uint16_t base_flags, flags
    cdef public uint32_t session
    cdef public uint64_t sequence, exchange_sequence
    cdef public int64_t exchange_ns, recv_ns, publish_ns
    cdef public int64_t offset_ns, ahead_ns_max
    cdef public double last, bid, bid_size, ask, ask_size
    cdef public double open_24h, high_24h, low_24h, base_volume_24h, quote_volume_24h
    cdef double _stated_bid, _stated_bid_size, _stated_ask, _stated_ask_size, _stated_last
    cdef public object slot
    cdef Arbitration _statistics, _quote, _last
    cdef readonly tuple channels

    @cython.locals(channel=Arbitration)
    cpdef forget(self)
    @cython.locals(channel=Arbitration)
    cpdef renew(self, int line)
    @cython.locals(channel=Arbitration)
    cpdef inherit(self, int line)
    @cython.locals(channel=Arbitration)
    cpdef release(self, int line)

    @cython.locals(present_ns=int64_t, is_live=bint)
    cpdef bint accept(self, int channel, Line line, int64_t update_id, int64_t recv_ns, bint is_time=*) except -1
    cdef Arbitration _arbitration(self, int channel)

    cpdef int heard(self, int line) except -1
    cpdef set_quote(self, double bid, double bid_size, double ask, double ask_size)
    cpdef fill_quote(self, double bid, double bid_size, double ask, double ask_size)
    cpdef fill_last(self, double last)
    cpdef set_statistics(
        self, double open_24h, double high_24h, double low_24h, double base_volume, double quote_volume
    )
    cpdef on_news(self, int64_t recv_ns)

    @cython.locals(record=bytearray)
    cpdef bytes record(self)
    cpdef pack(self, bytearray target, Py_ssize_t start)
