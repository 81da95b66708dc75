"""Are the addresses free that a configuration names?"""

import socket

import pytest

from feedhandler import config
from feedhandler.errors import ConfigError
from feedhandler.transport import ports


def parse(tmp_path, text):
    merger = f'[merger]\nticks = ["ipc://{tmp_path}/ticks.ipc"]\n'
    return config.parse(f'run_dir = "{tmp_path}"\n[exchanges.binance]\n{text}\n{merger}', "my.toml")


def test_free_addresses_are_no_error(tmp_path):
    ports.check(parse(tmp_path, "shards = 2"))


@pytest.mark.parametrize(("text", "name"), [("", "binance"), ("shards = 2", "binance-2of2")])
def test_a_feeds_own_address_that_is_in_use_is_named_for_each_shard(tmp_path, text, name):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{tmp_path}/{name}.ipc")
        other.listen()
        with pytest.raises(ConfigError, match=rf"my.toml: exchanges.binance.direct: .*/{name}.ipc is in use"):
            ports.check(parse(tmp_path, text))
