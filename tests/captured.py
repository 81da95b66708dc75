"""Recordings as tests write them: lines of a capture, and frames in the exchanges' shapes."""

import json

BINANCE = "wss://stream.binance.com:9443/stream"
BINANCE_DEPTH = "https://api.binance.com/api/v3/depth"
KUCOIN = "wss://ws-api-spot.kucoin.com/?token=T"
KUCOIN_BOOK = "https://api.kucoin.com/api/v3/market/orderbook/level2"
BYBIT = "wss://stream.bybit.com/v5/public/spot"
BYBIT_LINEAR = "wss://stream.bybit.com/v5/public/linear"


def line(t, ts=1_790_000_000.5, conn="c", **fields):
    return json.dumps({"t": t, "conn": conn, "ts": ts, **fields}) + "\n"


def opened(addr, conn="c"):
    return line("connect", conn=conn, addr=addr)


def received(frame, conn="c", ts=1_790_000_000.5):
    return line("recv", ts, conn, data=json.dumps(frame))


def answered(url, body):
    return line("http", url=url, data=json.dumps(body))


def changes(first, last, bids=(), asks=(), symbol="BTCUSDT"):
    """A message of a book of Binance's."""
    data = {"e": "depthUpdate", "E": 1_790_000_000_500_000, "s": symbol, "U": first, "u": last}
    return {"stream": f"{symbol.lower()}@depth@100ms", "data": {**data, "b": list(bids), "a": list(asks)}}


def quote(update_id, bid, bid_size, ask, ask_size, symbol="BTCUSDT"):
    data = {"u": update_id, "s": symbol, "b": bid, "B": bid_size, "a": ask, "A": ask_size}
    return {"stream": f"{symbol.lower()}@bookTicker", "data": data}


def base(
    last_id, bids=(("10", "1"), ("9", "1")), asks=(("11", "1"), ("12", "1")), symbol="BTCUSDT", limit=1000
):
    body = {"lastUpdateId": last_id, "bids": [*bids], "asks": [*asks]}
    return answered(f"{BINANCE_DEPTH}?symbol={symbol}&limit={limit}", body)


def kucoin_changes(first, last, bids=(), asks=(), symbol="BTC-USDT"):
    data = {
        "changes": {"asks": list(asks), "bids": list(bids)},
        "sequenceStart": first,
        "sequenceEnd": last,
        "symbol": symbol,
        "time": 1_790_000_000_500,
    }
    topic = f"/market/level2:{symbol}"
    return {"topic": topic, "type": "message", "subject": "trade.l2update", "data": data}
