"""The simulator's process: where it listens, as the configuration says."""

from feedhandler import config
from feedhandler.process import sim

KUCOIN = 'simulated = true\nrest_url = "http://127.0.0.1:9102"\n'


def test_where_rest_names_the_socket_its_own_address_will_do():
    """With http:// in the token's answer no feed would ever connect."""
    (server,) = sim.servers(config.parse(f"[exchanges.kucoin]\n{KUCOIN}", "x.toml"))
    assert (server.ws_url, server.rest_url) == ("ws://127.0.0.1:9102", "http://127.0.0.1:9102")


def test_a_socket_that_is_named_is_where_it_is():
    text = f'[exchanges.kucoin]\n{KUCOIN}ws_url = "ws://127.0.0.1:9202"\n'
    (server,) = sim.servers(config.parse(text, "x.toml"))
    assert (server.ws_url, server.rest_url) == ("ws://127.0.0.1:9202", "http://127.0.0.1:9102")
