"""What can go wrong on command: requests, their mistakes, what lasts, and the nonsense that is sent."""

import json
import random
from decimal import Decimal

import pytest

from feedhandler.sim import faults, frames
from feedhandler.sim.faults import Active, FaultError, fault_kinds, parse
from feedhandler.sim.protocol import NS_PER_S

ASKED_FOR = [
    "close",
    "rst",
    "stall",
    "half_open",
    "mute",
    "mute_symbol",
    "lose_topic",
    "lose_messages",
    "unlist",
    "ack_without_data",
    "garbage",
    "oversize",
    "refuse",
    "expired_token",
    "http_status",
    "slow_rest",
    "old_books",
    "restart_books",
    "no_snapshots",
    "cross_book",
    "burst",
    "server_shutdown",
    "duplicate",
    "late",
    "fragment",
    "reject_symbol",
    "rate",
    "deposit",
    "hold",
    "trade",
    "refuse_key",
    "end_subscriptions",
    "none",
]

VALID = [
    ({"fault": "close"}, "binance"),
    ({"fault": "close", "code": 1012, "reason": "restart", "connection": 3}, "bybit"),
    ({"fault": "stall", "seconds": 5}, "kucoin"),
    ({"fault": "stall", "seconds": 0.25, "answer_pings": True}, "kucoin"),
    ({"fault": "mute_symbol", "symbol": "BTCUSDT"}, "binance"),
    ({"fault": "lose_topic", "topic": "orderbook.1.BTCUSDT", "heals": True}, "bybit"),
    ({"fault": "lose_messages", "topic": "orderbook.50.BTCUSDT", "count": 3}, "bybit"),
    ({"fault": "slow_rest", "seconds": 5, "after_s": 0.5}, "kucoin"),
    ({"fault": "old_books", "seconds": 5}, "kucoin"),
    ({"fault": "restart_books", "symbol": "BTCUSDT"}, "bybit"),
    ({"fault": "restart_books", "symbol": "BTC-USDT"}, "okx"),
    ({"fault": "no_snapshots", "seconds": 5}, "okx"),
    ({"fault": "server_shutdown"}, "okx"),
    ({"fault": "cross_book", "topic": "btcusdt@depth@100ms"}, "binance"),
    ({"fault": "burst", "symbol": "BTCUSDT", "count": 1025}, "binance"),
    ({"fault": "unlist", "symbol": "BTC-USDT", "seconds": 3}, "kucoin"),
    ({"fault": "garbage", "count": 20}, "bybit"),
    ({"fault": "oversize", "size": 1_000_000}, "bybit"),
    ({"fault": "refuse", "seconds": 1, "how": "503"}, "bybit"),
    ({"fault": "http_status", "status": 418, "retry_after": 120, "seconds": 5}, "binance"),
    ({"fault": "expired_token"}, "kucoin"),
    ({"fault": "server_shutdown"}, "binance"),
    ({"fault": "rate", "messages_per_s": 5}, "binance"),
    ({"fault": "half_open", "connection": 2}, "bybit"),
    ({"fault": "clock", "offset_s": -3600}, "binance"),
    ({"fault": "close", "private": True}, "kucoin"),
    ({"fault": "rst", "private": True}, "binance"),
    ({"fault": "deposit", "asset": "DOGE", "amount": 100, "silent": True}, "bybit"),
    ({"fault": "deposit", "asset": "DOGE", "amount": -100, "wallet": "main"}, "kucoin"),
    ({"fault": "hold", "asset": "USDT", "amount": 5}, "binance"),
    ({"fault": "trade", "symbol": "BTCUSDT", "amount": -1}, "binance"),
    ({"fault": "refuse_key", "kind": "address", "seconds": 5}, "bybit"),
    ({"fault": "end_subscriptions"}, "binance"),
    ({"fault": "refuse", "seconds": 5, "path": "/linear/public"}, "binance"),
    ({"fault": "none"}, "binance"),
]
INVALID = [
    (b"", "not JSON"),
    (b"[]", '"fault"'),
    (b'{"seconds":5}', '"fault"'),
    (b'{"fault":"stal","seconds":5}', 'did you mean "stall"'),
    (b'{"fault":7}', "unknown fault 7"),
    (b'{"fault":"stall"}', "seconds"),
    (b'{"fault":"stall","secs":5}', 'did you mean "seconds"'),
    (b'{"fault":"stall","seconds":"soon"}', "seconds"),
    (b'{"fault":"stall","seconds":-1}', "seconds must be from 0"),
    (b'{"fault":"close","code":99}', "code must be from 1000 to 4999"),
    (b'{"fault":"close","code":1000.5}', "code"),
    (b'{"fault":"mute_symbol","symbol":""}', "symbol must not be empty"),
    (b'{"fault":"lose_topic","topic":""}', "topic must not be empty"),
    (b'{"fault":"oversize","size":99999999999}', "size must be from 1"),
    (b'{"fault":"garbage","count":0}', "count must be from 1"),
    (b'{"fault":"http_status","status":200,"seconds":1}', "status must be from 400"),
    (b'{"fault":"rate","messages_per_s":100000}', "messages_per_s must be from 1 to 50000"),
    (b'{"fault":"refuse","seconds":1,"how":"maybe"}', "how must be rst or 503"),
    (b'{"fault":"expired_token"}', "exists on kucoin only"),
    (b'{"fault":"restart_books"}', "exists on bybit, okx only"),
    (b'{"fault":"lose_messages","topic":""}', "topic must not be empty"),
    (b'{"fault":"cross_book"}', "topic"),
    (b'{"fault":"burst","symbol":""}', "symbol must not be empty"),
    (b'{"fault":"slow_rest","seconds":1,"after_s":-1}', "after_s must be from 0"),
    (b'{"fault":"deposit","asset":"BTC","amount":"lots"}', "amount"),
    (b'{"fault":"deposit","asset":"BTC","amount":"NaN"}', "amount must be a number"),
    (b'{"fault":"hold","asset":"BTC","amount":"Infinity"}', "amount must be a number"),
    (b'{"fault":"deposit","asset":"","amount":1}', "asset must not be empty"),
    (b'{"fault":"trade","symbol":"","amount":1}', "symbol must not be empty"),
    (b'{"fault":"refuse_key","kind":"mood"}', "kind must be one of key, permission"),
    (b'{"fault":"none","seconds":1}', "it takes: no fields"),
]


def test_every_kind_asked_for_exists_and_has_one_line_of_help():
    kinds = fault_kinds()
    assert set(ASKED_FOR) <= set(kinds)
    assert all(text and "\n" not in text for text in kinds.values())


@pytest.mark.parametrize(("request_body", "exchange"), VALID)
def test_a_valid_request(request_body, exchange):
    fault = parse(json.dumps(request_body).encode(), exchange)
    assert {name: getattr(fault, name) for name in request_body if name != "fault"} == {
        name: value for name, value in request_body.items() if name != "fault"
    }


def test_an_amount_is_exact_however_it_is_written():
    for body in (
        b'{"fault":"deposit","asset":"BTC","amount":"0.1"}',
        b'{"fault":"deposit","asset":"BTC","amount":0.1}',
    ):
        fault = parse(body, "binance")
        assert isinstance(fault, faults.Deposit)
        assert fault.amount == Decimal("0.1")


def test_a_command_line_has_texts_only():
    fault = parse(b'{"fault":"deposit","asset":"BTC","amount":"1","silent":"1"}', "binance")
    assert fault == faults.Deposit(asset="BTC", amount=Decimal(1), silent=True)


@pytest.mark.parametrize(("body", "culprit"), INVALID)
def test_a_bad_request_names_the_culprit(body, culprit):
    with pytest.raises(FaultError) as caught:
        parse(body, "binance")
    assert culprit in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_lasts_ends_by_itself_or_on_command():
    active = Active()
    active.add(faults.Mute(seconds=5), 0)
    active.add(faults.MuteSymbol(symbol="A", seconds=2), 0)
    active.add(faults.MuteSymbol(symbol="B"), 0)
    assert active.symbols("mute_symbol") == {"A", "B"}
    assert not active.expire(NS_PER_S)
    assert active.expire(3 * NS_PER_S)
    assert active.symbols("mute_symbol") == {"B"}
    assert active.get("mute") is not None
    assert active.expire(6 * NS_PER_S)
    assert active.get("mute") is None
    active.clear()
    assert not active


def test_the_same_again_replaces_and_what_is_kept_is_bounded():
    active = Active()
    active.add(faults.Mute(seconds=5), 0)
    active.add(faults.Mute(seconds=1), 0)
    assert active.describe(0) == [{"fault": "mute", "seconds": 1, "path": "", "seconds_left": 1}]
    for number in range(Active.SYMBOLS + 50):
        active.add(faults.RejectSymbol(symbol=str(number)), 0)
    assert len(active.describe(0)) == Active.SYMBOLS


SAMPLE = b'{"u":17,"s":"BTCUSDT","b":"86420.10000000","B":"1.5","a":"86420.20000000","A":"0.25"}'


def test_garbage_is_the_same_for_the_same_seed_and_has_every_kind():
    one = faults.garbage(random.Random(1), SAMPLE, 80)
    assert one == faults.garbage(random.Random(1), SAMPLE, 80)
    assert one != faults.garbage(random.Random(2), SAMPLE, 80)
    payloads = [frames.payload_of(each) for each in one]
    assert any(each[0] & 0x0F == frames.BINARY for each in one)
    assert any(_is_bad_utf8(payload) for payload in payloads)
    assert any(b"nan" in payload.lower() for payload in payloads)
    assert any(str(2**64).encode() in payload for payload in payloads)
    assert any(b"-" in payload for payload in payloads)


@pytest.mark.parametrize("sample", [b"", b"{}", SAMPLE])
def test_garbage_can_be_made_of_any_sample(sample):
    assert len(faults.garbage(random.Random(3), sample, 100)) == 100


def test_an_oversized_message_is_json_of_that_size():
    payload = frames.payload_of(faults.oversized(100_000))
    assert len(payload) == 100_000
    json.loads(payload)


def _is_bad_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return True
    return False
