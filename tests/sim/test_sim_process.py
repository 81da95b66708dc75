"""The simulator's process: where it listens, as the configuration says."""

import pytest

from feedhandler.cli import preflight
from feedhandler.data.errors import ConfigError
from feedhandler.runtime import config
from feedhandler.sim import process

KUCOIN = 'simulated = true\nrest_url = "http://127.0.0.1:9102"\n'


def test_where_rest_names_the_socket_its_own_address_will_do():
    """With http:// in the token's answer no feed would ever connect."""
    (server,) = process.servers(config.parse(f"[exchanges.kucoin]\n{KUCOIN}", "x.toml"))
    assert (server.ws_url, server.rest_url) == ("ws://127.0.0.1:9102", "http://127.0.0.1:9102")


def test_a_socket_that_is_named_is_where_it_is():
    text = f'[exchanges.kucoin]\n{KUCOIN}ws_url = "ws://127.0.0.1:9202"\n'
    (server,) = process.servers(config.parse(text, "x.toml"))
    assert (server.ws_url, server.rest_url) == ("ws://127.0.0.1:9202", "http://127.0.0.1:9102")


def test_an_exchange_without_a_simulator_is_named_before_anything_starts(monkeypatch):
    monkeypatch.setattr(process, "SIMULATED", ("binance", "bybit"))
    played = config.parse(f"[exchanges.kucoin]\n{KUCOIN}[sim]\n", "x.toml")
    message = (
        r"exchanges\.kucoin\.simulated: there is no simulator of kucoin, but of binance, bybit; .*\[sim\]"
    )
    with pytest.raises(ConfigError, match=message):
        preflight.check(played)
    with pytest.raises(ConfigError, match=message):
        process.servers(played)
