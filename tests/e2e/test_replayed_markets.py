"""Spot and perpetuals, recorded together, played again and exported: the records of each are those of offline."""

import json
import signal
import time
from collections import defaultdict

import pytest
from harness import PATIENCE_S, Stack
from msgspec.structs import replace as changed
from test_replay_processes import content

from feedhandler import replay, research
from feedhandler.client import Subscriber
from feedhandler.data import wire
from feedhandler.exchanges import EXCHANGES

SPOT, PERPETUAL = "BTC/USDT", "BTC/USDT:USDT"
KINDS = ("ticker", "trade", "depth", "book", "contract", "liquidation")
OFFERED = {
    exchange.name: tuple(kind for kind in KINDS if any(kind in market.kinds for market in exchange.markets))
    for exchange in EXCHANGES.values()
    if len(exchange.markets) > 1
}
TOPICS = {
    f"{kind}.{exchange}.{symbol}"
    for exchange, kinds in OFFERED.items()
    for kind in kinds
    for symbol in (SPOT, PERPETUAL)[kind in KINDS[4:] :]
}
EVERY = ("trade.", "liquidation.", "book.")
# Of contracts, by exchange: what is asked for by the clock of the feed that asks.
POLLED = {
    exchange.name: dict.fromkeys(
        (
            field
            for market in exchange.markets
            for poll in market.polls
            for field in (*poll.fields, *poll.fills)
        ),
        0,
    )
    for exchange in EXCHANGES.values()
}
# Of tickers: what REST gives until a channel does, which may be later than the end of the recording.
FIRST = {name: 0.0 for name in wire.TICKER_VALUES if not name.startswith(("bid", "ask"))}


def record(stack, recordings):
    """Record simulated markets until there is something of each topic."""
    with stack.config.open("a", encoding="utf-8") as file:
        file.write(f'[recorder]\ndirectory = "{recordings}"\nmin_free_gb = 0\n')
    lacking = set(TOPICS)
    try:
        with Subscriber(stack.endpoint, [f"{kind}." for kind in KINDS]) as subscriber:
            stack.start("recorder", "sim", "merger", *OFFERED)
            ends = time.monotonic() + PATIENCE_S
            while lacking:
                assert time.monotonic() < ends, lacking
                lacking -= {
                    each.topic
                    for each in subscriber.receive_many(timeout_s=0.2)
                    if each.is_live and each.kind != wire.CONDITION
                }
        assert [stack.sim_state(name)["violations"] for name in OFFERED] == [[]] * len(OFFERED)
        for name in (*OFFERED, "recorder", "merger", "sim"):
            assert stack.kill(name, signal.SIGTERM) == 0
    finally:
        stack.close()


def said(records):
    """Return by topic what the exchange has said; how a book begins depends on when it was asked for."""
    found = defaultdict(list)
    for each in records:
        is_base = each.kind == wire.BOOK and each.flags & wire.SNAPSHOT
        if (
            each.topic in TOPICS
            and each.kind != wire.CONDITION
            and not each.flags & wire.DOWN
            and not is_base
        ):
            others = POLLED[each.exchange] if each.kind == wire.CONTRACT else {}
            others = FIRST if each.kind == wire.TICKER else others
            found[each.topic].append(content(changed(each, **others)))
    return found


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Return the recordings, what there is in them by topic, and processes that can play them."""
    directory = tmp_path_factory.mktemp("replayed")
    recordings = directory / "recordings"
    # All connections come soon after the recording is served, which begins 2 s after the last.
    extra = {name: f"kinds = {json.dumps(kinds)}\nbackoff_max_s = 1.0" for name, kinds in OFFERED.items()}
    stack = Stack(
        directory, exchanges=tuple(OFFERED), symbols=(SPOT, PERPETUAL), extra=extra, sim="busiest_per_s = 60"
    )
    record(stack, recordings)
    text = stack.config.read_text(encoding="utf-8").partition("[sim]")[0]
    stack.config.write_text(text.replace("simulated = true", "simulated = true\nreplay = true"), "utf-8")
    offline = said(replay.records(recordings))
    assert offline.keys() == TOPICS
    return recordings, offline, stack


@pytest.mark.parametrize("speed", ["10", "max"])
def test_records_of_both_markets_are_those_of_offline_decoding(recorded, speed):
    recordings, offline, stack = recorded
    records = []
    try:
        with Subscriber(stack.endpoint, [f"{kind}." for kind in KINDS]) as subscriber:
            stack.start("merger", *OFFERED)
            playing = stack.popen(
                "replay", str(recordings), "-c", str(stack.config), "--speed", speed, log="replay"
            )
            stack.processes["replay"] = playing
            ends = time.monotonic() + PATIENCE_S
            while (
                lacking := [topic for topic, all_ in offline.items() if all_[-1] not in said(records)[topic]]
            ) or playing.poll() is None:
                assert time.monotonic() < ends, (lacking, stack.log("replay")[-2000:])
                records += subscriber.receive_many(timeout_s=0.5)
    finally:
        stack.close()
    assert playing.returncode == 0, stack.log("replay")
    assert all(each.flags & wire.REPLAY and each.flags & wire.SIMULATED for each in records)
    found = said(records)
    for topic, all_ in offline.items():
        if topic.startswith("book."):  # here it may begin earlier, or later
            count = min(len(all_), len(found[topic]))
            assert found[topic][-count:] == all_[-count:], topic
        elif topic.startswith(EVERY):
            assert found[topic][-len(all_) :] == all_, topic
        else:  # of these a subscriber may get the newest alone, and first values are from REST
            ours = [each for each in dict.fromkeys(found[topic]) if each in set(all_)]
            rest = iter(dict.fromkeys(all_))
            assert all(each in rest for each in ours), topic


def test_a_recording_of_both_markets_is_complete_and_exported(recorded, tmp_path):
    recordings, offline, stack = recorded
    verified = stack.run("captures", "verify", str(recordings), "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    kinds = ("contract", "liquidation")
    exported = stack.run("export", str(recordings), "--to", str(tmp_path), "--kinds", ",".join(kinds))
    assert exported.returncode == 0, exported.stderr
    for kind in kinds:
        frame = research.read(tmp_path, kind=kind)
        for exchange, offered in OFFERED.items():
            rows = frame.filter((frame["exchange"] == exchange) & (frame["symbol"] == PERPETUAL))
            assert (
                len(rows) == len(offline.get(f"{kind}.{exchange}.{PERPETUAL}", ())) > 0 or kind not in offered
            )
