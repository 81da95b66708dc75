"""A small recording of two exchanges, as the recorder writes it: what tests of exports and replays read."""

import json

from captured import BINANCE, BINANCE_DEPTH, KUCOIN, changes, quote

from feedhandler.recordings import packing, segments
from feedhandler.recordings.directory import file_name
from feedhandler.recordings.traffic import Item, What

T0 = 1_790_000_000_000_000_000  # 2026-09-21, 14:13:20 UTC
DAY = 86_400 * 10**9
MIDNIGHT = (T0 // DAY + 1) * DAY
LIST = "https://api.binance.com/api/v3/exchangeInfo?showPermissionSets=false"
BASE = f"{BINANCE_DEPTH}?symbol=BTCUSDT&limit=1000"


def plan(exchange, session_ns, *, is_again=False, **fields):
    data = json.dumps({"exchange": exchange, "session_ns": session_ns, **fields}).encode()
    return Item(What.HEADER, session_ns, data=data, is_repeated=is_again)


def listed(ns=T0):
    row = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT"}
    body = {"symbols": [{**row, "isSpotTradingAllowed": True}]}
    return Item(What.ANSWERED, ns, number=1, name=LIST, data=json.dumps(body).encode())


def book_base(last_id, ns=T0, number=2):
    body = {"lastUpdateId": last_id, "bids": [["10", "1"], ["9", "2"]], "asks": [["11", "1"], ["12", "2"]]}
    return Item(What.ANSWERED, ns, number=number, name=BASE, data=json.dumps(body).encode())


def opened(address=BINANCE, ns=T0, connection="spot.1", *, is_again=False):
    return Item(What.OPENED, ns, 0, connection, name=address, is_repeated=is_again)


def received(number, ns, frame, connection="spot.1"):
    return Item(What.RECEIVED, ns, 0, connection, number, data=json.dumps(frame).encode())


def trade(number, price="10.5", size="0.5", sells=False):
    stated = {"e": "trade", "s": "BTCUSDT", "t": number, "p": price, "q": size, "m": sells}
    return {"stream": "btcusdt@trade", "data": {**stated, "T": T0 // 1000 + number}}


def match(number, price="99.5"):
    data = {"price": price, "sequence": str(number), "side": "sell", "size": "2", "symbol": "ETH-USDT"}
    data |= {"time": str(T0 + number), "tradeId": str(number), "type": "match"}
    return {"topic": "/market/match:ETH-USDT", "type": "message", "subject": "trade.l3match", "data": data}


def binance_items(rounds=20, first_ns=T0, step_ns=1_000_000, first=1):
    """Each round is a change of the book, a trade and a quote."""
    items = []
    for n in range(first, first + rounds):
        ns = first_ns + 3 * n * step_ns
        number = 3 * (n - 1)
        items += [
            received(
                number + 1, ns, changes(100 + n, 100 + n, [["10", str(n)]], [["11", "0" if n % 2 else "3"]])
            ),
            received(number + 2, ns + step_ns, trade(n, sells=bool(n % 2))),
            received(number + 3, ns + 2 * step_ns, quote(n, "10", str(n), "12", "2")),
        ]
    return items


def written(path, groups, begun_ns, *, is_closed=True):
    """Write a segment whose blocks hold these groups of items."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb", buffering=0) as file:
        writer = segments.SegmentWriter(file, begun_ns)
        for group in groups:
            writer.add(packing.packed(group))
            writer.flush()
        if is_closed:
            writer.close("time")


def put(root, feed, begun_ns, *groups, is_closed=True):
    """Write a segment of a feed."""
    path = root / feed / file_name(begun_ns)
    written(path, groups, begun_ns, is_closed=is_closed)
    return path


def small(root, rounds=20, step_ns=1_000_000):
    """Two segments of one feed that goes on, and one of another exchange; the second lacks three frames."""
    head = [plan("binance", T0), listed(), opened(), book_base(100)]
    half = rounds // 2
    items = binance_items(rounds, step_ns=step_ns)
    put(root, "binance", T0, head, items[: 3 * half])
    again = [plan("binance", T0, is_again=True), opened(is_again=True)]
    put(root, "binance", T0 + 10**9, again, items[3 * half + 3 :])
    matches = [received(n, T0 + n * step_ns * 2 + 7, match(n)) for n in range(1, rounds + 1)]
    put(root, "kucoin", T0 + 5, [plan("kucoin", T0 + 5), opened(KUCOIN, T0 + 5)], matches)
    return root
