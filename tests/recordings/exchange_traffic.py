"""Frames of each exchange for recordings of one feed, with the ids that a test names."""

import json

from recorded import T0

from feedhandler.exchanges import EXCHANGES
from feedhandler.recordings.ids import HOUR_NS
from feedhandler.recordings.quality import Quality
from feedhandler.recordings.traffic import Item, What

HOUR = T0 - T0 % HOUR_NS
SYMBOLS = {"binance": "BTCUSDT", "kucoin": "BTC-USDT", "bybit": "BTCUSDT", "okx": "BTC-USDT"}


def binance_trade(number, symbol="BTCUSDT"):
    time_us = T0 // 1000 + number
    data = {"e": "trade", "E": time_us, "s": symbol, "t": number, "p": "10", "q": "1"}
    return {"stream": f"{symbol.lower()}@trade", "data": {**data, "T": time_us, "m": True, "M": True}}


def binance_change(first, last, symbol="BTCUSDT"):
    data = {"e": "depthUpdate", "E": T0 // 1000, "s": symbol, "U": first, "u": last}
    return {"stream": f"{symbol.lower()}@depth@100ms", "data": {**data, "b": [["9", str(last)]], "a": []}}


def binance_quote(update_id, symbol="BTCUSDT"):
    data = {"u": update_id, "s": symbol, "b": "10", "B": "1", "a": "11", "A": "1"}
    return {"stream": f"{symbol.lower()}@bookTicker", "data": data}


def kucoin_trade(number, symbol="BTC-USDT"):
    data = {"price": "10", "sequence": str(number), "side": "sell", "size": "2", "symbol": symbol}
    data |= {"time": str(T0 + number), "tradeId": str(number), "type": "match"}
    topic = f"/market/match:{symbol}"
    return {"topic": topic, "type": "message", "subject": "trade.l3match", "data": data}


def kucoin_change(first, last, symbol="BTC-USDT"):
    data = {"changes": {"asks": [], "bids": [["9", "1", str(last)]]}, "sequenceStart": first}
    data |= {"sequenceEnd": last, "symbol": symbol, "time": T0 // 10**6}
    topic = f"/market/level2:{symbol}"
    return {"topic": topic, "type": "message", "subject": "trade.l2update", "data": data}


def bybit_trade(number, symbol="BTCUSDT"):
    row = {"i": f"id-{number}", "T": T0 // 10**6 + number, "p": "10", "v": "1", "S": "Buy", "s": symbol}
    return {"topic": f"publicTrade.{symbol}", "type": "snapshot", "ts": T0 // 10**6, "data": [row]}


def bybit_change(update_id, number, *, is_base=False, symbol="BTCUSDT"):
    """A message of the book with that number of all connections."""
    data = {"s": symbol, "b": [["9", "1"]], "a": [["11", "1"]], "u": update_id, "seq": number}
    kind = "snapshot" if is_base else "delta"
    return {"topic": f"orderbook.200.{symbol}", "type": kind, "ts": T0 // 10**6, "data": data}


def okx_change(before, last, *, is_base=False, symbol="BTC-USDT"):
    """A message of the book, which names the id of the one before."""
    row = {
        "bids": [["9", "1", "0", "1"]],
        "asks": [["11", "1", "0", "1"]],
        "ts": str(T0 // 10**6),
        "checksum": 0,
    }
    action = "snapshot" if is_base else "update"
    data = [row | {"seqId": last, "prevSeqId": -1 if is_base else before}]
    return {"arg": {"channel": "books", "instId": symbol}, "action": action, "data": data}


class Traffic:
    """Items of one feed in order, and what they come to."""

    def __init__(self, exchange="binance"):
        self.exchange = exchange
        self.market = EXCHANGES[exchange].main()
        self.native = SYMBOLS[exchange]
        self.items = []
        self.now = HOUR
        self.numbers = {}

    def put(self, what, connection="spot.1", number=0, name="", data=b""):
        self.items.append(Item(what, self.now, 0, connection, number, name, data))

    def wait(self, seconds):
        self.now += int(seconds * 10**9)

    def open(self, connection="spot.1", kinds=()):
        """Open a connection, and subscribe to these kinds."""
        self.numbers[connection] = 0
        self.put(What.OPENED, connection, name="ws://127.0.0.1:1/ws")
        for kind in kinds:
            self.subscribe(kind, connection)

    def subscribe(self, kind, connection="spot.1", *, is_end=False):
        topics = self.market.topics(self.native, kind)
        for batch in self.market.batches(topics):
            command = self.market.unsubscribe if is_end else self.market.subscribe
            self.put(What.SENT, connection, 1, data=command(batch, "1"))

    def close(self, connection="spot.1"):
        self.put(What.CLOSED, connection, self.numbers[connection])

    def receive(self, frame, connection="spot.1"):
        self.numbers[connection] += 1
        self.put(What.RECEIVED, connection, self.numbers[connection], data=json.dumps(frame).encode())

    def past(self, *ids, number=1):
        """REST answers with trades of Binance."""
        rows = [
            {"id": each, "price": "10", "qty": "1", "quoteQty": "10", "time": T0 // 1000 + each}
            | {"isBuyerMaker": True, "isBestMatch": True}
            for each in ids
        ]
        url = f"https://api.binance.com/api/v3/historicalTrades?symbol=BTCUSDT&fromId={ids[0]}&limit=1000"
        self.put(What.ANSWERED, "", number, url, json.dumps(rows).encode())

    def report(self):
        quality = Quality(self.exchange)
        for item in self.items:
            quality.take(item)
        return quality.report()

    def rows(self, kind):
        """Return hour, verdict, received, recovered and missing of each row of a kind."""
        return [
            ((row.hour_ns - HOUR) // HOUR_NS, row.verdict, row.received, row.recovered, row.missing)
            for row in self.report().rows
            if row.kind == kind
        ]

    def gaps(self):
        return [(gap.kind, gap.first, gap.last) for gap in self.report().gaps]
