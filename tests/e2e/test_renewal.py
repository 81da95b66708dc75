"""Legs and renewals end to end: real processes, and an independent client of the exchange as witness."""

import pytest
from harness import DOWN, MAJORS, STALE, wait_until
from witness import Witness


def ids_of(records):
    """Update ids of the quotes in records, by exchange and symbol."""
    ids = {}
    for record in records:
        _, exchange, symbol = record.topic.split(".", 2)
        ids.setdefault((exchange, symbol), []).append(record.exchange_sequence)
    return ids


def runs_missing(seen, got):
    """Return the runs of ids that were sent and never published, in the order in which they were sent."""
    published, runs, is_open = set(got), [], False
    for number in seen:
        if number <= got[0]:
            continue
        if number in published:
            is_open = False
        elif is_open:
            runs[-1].append(number)
        else:
            runs.append([number])
            is_open = True
    return runs


def watch(s, seconds, each_second=lambda second: None, is_done=lambda: True):
    """Read for so long beside witnesses, and until it is done; nothing may be flagged, lost, or out of order.

    A connection that begins may be ahead of the others, by what a busy feed has not read of them yet. Its newer
    quotes are published at once, and what they replace never is: one run of ids for each new connection, at most.
    """
    reader = s.wait_live()
    reader.read(1)
    witnesses = {exchange: Witness(exchange, s.ports[exchange]) for exchange in s.exchanges}
    wait_until(lambda: all(w.hears_all for w in witnesses.values()), "the witnesses see everything")
    before = {exchange: opened(s, exchange) for exchange in s.exchanges}
    records = []
    for second in range(seconds):
        each_second(second)
        records += reader.read(1)
    wait_until(lambda: is_done() or records.extend(reader.read(0.5)), "all of it has happened")
    for witness in witnesses.values():
        witness.close()
    records += reader.read(1)
    assert not reader.holes
    assert not [record.topic for record in records if record.flags & (STALE | DOWN)]
    ids = ids_of(records)
    for exchange, witness in witnesses.items():
        for symbol, seen in witness.seen.items():
            got = ids[exchange, symbol]
            assert got == sorted(got), "never backwards"
            expected = {u for u in seen if u > got[0]}
            assert len(expected) > seconds, "a market that lives"
            missing = runs_missing(seen, got)
            assert len(missing) <= opened(s, exchange) - before[exchange], f"{exchange} {symbol}: {missing}"
            assert sum(map(len, missing)) < len(expected) / 2, f"{exchange} {symbol}: {missing}"
    return records


def opened(s, exchange):
    """How many connections were made so far, by anybody."""
    return s.sim_state(exchange)["connections_opened"]


@pytest.mark.parametrize("legs", [1, 2])
def test_renewed_connections_lose_no_update_id_under_load(stack, legs):
    s = stack(exchanges=("binance", "bybit"), rate=1500, extra=f"max_age_s = 4.0\nlegs = {legs}")
    s.start()
    renewed = "renewed a connection"
    watch(s, 8, is_done=lambda: all(s.log(e).count(renewed) >= 2 * legs for e in s.exchanges))
    for exchange in s.exchanges:
        assert s.sim_state(exchange)["violations"] == []


def test_of_two_legs_one_may_be_unplugged_at_any_time(stack):
    s = stack(exchanges=("binance", "bybit"), rate=1500, extra="legs = 2")
    s.start()
    s.wait_live()

    def unplug(second):
        """Each four seconds one of the two, in turn, once both are subscribed to everything."""
        if second % 4 == 0:
            for exchange in s.exchanges:
                ours = wait_until(lambda exchange=exchange: subscribed(s, exchange), "both legs subscribed")
                wait_until(lambda exchange=exchange: is_heard(s, exchange), "both legs have heard everything")
                s.fault(exchange, "rst", connection=ours[second // 4 % 2])

    watch(s, 14, unplug)
    for exchange in s.exchanges:
        status = s.status()["exchanges"][exchange]["feed"]
        assert {c["leg"] for c in status["connections"]} == {0, 1}
        assert sum(c["connects"] for c in status["connections"]) >= 5
        assert all(c["duplicate"] > 0 for c in status["connections"])
        assert s.sim_state(exchange)["violations"] == []


def is_heard(s, exchange):
    """True if both connections have heard every channel, as the feed says."""
    connections = s.status()["exchanges"][exchange]["feed"]["connections"]
    return len(connections) == 2 and all(c["phase"] == "running" and not c["quiet"] for c in connections)


def subscribed(s, exchange):
    """The numbers of our connections, if there are two and each has all its subscriptions and some data."""
    ours = [c for c in s.sim_state(exchange)["connections"] if len(c["subscriptions"]) == 2 * len(MAJORS)]
    return [c["connection"] for c in ours] if len(ours) == 2 else None


def test_an_exchange_that_announces_its_end_is_left_without_a_gap(stack):
    s = stack(exchanges=("binance", "bybit"), rate=1500)
    s.start()
    s.wait_live()

    def announce(second):
        if second == 2:
            s.fault("binance", "server_shutdown")

    watch(s, 8, announce)
    assert "renewing a connection of leg 0: serverShutdown announced" in s.log("binance")
    wait_until(lambda: "renewed a connection of leg 0" in s.log("binance"), "it is left")


def test_an_operator_renews_connections_without_a_gap(stack):
    s = stack(exchanges=("binance", "bybit"), rate=1500, extra="legs = 2")
    s.start()
    s.wait_live()

    def order(second):
        if second == 2:
            for exchange in s.exchanges:
                assert s.run("renew", exchange, "-c", str(s.config)).returncode == 0

    watch(s, 8, order)
    for exchange in s.exchanges:
        wait_until(lambda e=exchange: s.log(e).count("renewed a connection") == 2, "both legs are renewed")
        assert s.log(exchange).count(": by order") == 2


def test_to_renew_what_does_not_run_says_so(stack):
    s = stack(exchanges=("binance",))
    result = s.run("renew", "binance", "-c", str(s.config))
    assert result.returncode == 1
    assert "no feed of binance runs in" in result.stderr
    result = s.run("renew", "bybit", "-c", str(s.config))
    assert result.returncode == 2
