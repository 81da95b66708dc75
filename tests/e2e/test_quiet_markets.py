"""Symbols that rest for minutes, and nothing else: real processes, and a subscriber that must not be alarmed."""

from harness import DOWN, EXCHANGES, STALE

from feedhandler.sim.market import universe

# minutes between two changes of each
QUIET = [f"{each.base}/{each.quote}" for each in universe(1, 110, ())][-20:]
WATCHED_S = 32.0  # long enough for a flag, and for a connection that is given up
BID, ASK = 1, 3


def test_a_portfolio_of_quiet_symbols_has_quotes_and_is_neither_flagged_nor_connected_anew(stack):
    s = stack(
        symbols=QUIET,
        sim="instruments = 120\nbusy_symbols = 5",
        extra="stale_after_s = 10\nreconnect_after_s = 20",
    )
    s.start()
    reader = s.reader(b"ticker.")
    missing = {f"ticker.{exchange}.{symbol}" for exchange in EXCHANGES for symbol in QUIET}

    def all_have_quotes(record):
        if all(record.values[place] == record.values[place] for place in (BID, ASK)):
            missing.discard(record.topic)
        return not missing

    reader.read_until(all_have_quotes, f"a quote of {sorted(missing)}")
    records = reader.read(WATCHED_S)
    assert {record.topic for record in records if record.flags & (STALE | DOWN)} == set()
    assert reader.holes == []
    for exchange in EXCHANGES:
        state = s.sim_state(exchange)
        assert (state["connections_opened"], state["violations"]) == (1, [])
