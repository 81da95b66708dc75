"""Legs from different source addresses and to different hosts, and what the status says of the exchange's clock."""

from harness import Stack, wait_until


def test_each_leg_has_its_own_host_and_source_address(tmp_path):
    extra = 'legs = 3\nsource_addresses = ["127.0.0.2", "127.0.0.3"]\nleg_ws_urls = ["ws://LIVE", "ws://127.0.0.1:1"]'
    stack = Stack(tmp_path, exchanges=("bybit",), extra=extra)
    text = stack.config.read_text(encoding="utf-8")
    stack.config.write_text(text.replace("LIVE", f"127.0.0.1:{stack.ports['bybit']}"), encoding="utf-8")
    try:
        stack.start()
        stack.wait_live()
        remotes = [connection["remote"] for connection in stack.sim_state("bybit")["connections"]]
        assert set(remotes) == {"127.0.0.2"}, "legs 0 and 2"

        def feed():
            status = stack.status()
            found = status and status["exchanges"]["bybit"]["feed"]
            return found if found and found["clock_offset_ms"] is not None else None

        found = wait_until(feed, "the exchange's clock")
        assert abs(found["clock_offset_ms"]) <= found["clock_uncertainty_ms"] < 60_000
        (away,) = (c for c in found["connections"] if c["leg"] == 1)
        assert away["last_error"].startswith("cannot connect to ws://127.0.0.1:1 from 127.0.0.3: ")
    finally:
        stack.close()
