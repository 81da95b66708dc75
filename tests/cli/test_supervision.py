"""What the supervisor is told to run."""

import configparser
import sys
from pathlib import Path

import pytest

from feedhandler.cli.supervision import feed_programs, here, render
from feedhandler.data.errors import ConfigError
from feedhandler.runtime import config

TEXT = "[exchanges.binance]\nshards = 4\n[exchanges.bybit]\n[exchanges.kucoin]\nshards = 2\n"


def rendered(text, **layout):
    settings = config.parse(text, "x.toml")
    parser = configparser.RawConfigParser()
    parser.read_string(render(settings, here(settings, **layout)))
    return {name.removeprefix("program:"): dict(parser[name]) for name in parser}


def test_each_shard_is_a_program_of_its_own_with_its_own_log():
    programs = rendered(TEXT)
    assert list(programs) == [
        "DEFAULT",
        "supervisord",
        "merger",
        *(f"feed-binance-{number}of4" for number in range(1, 5)),
        "feed-bybit",
        "feed-kucoin-1of2",
        "feed-kucoin-2of2",
        "relay",
        "gateway",
    ]
    shard = programs["feed-binance-3of4"]
    assert shard["command"].endswith(f"feedhandler feed binance --shard 3/4 -c {Path.cwd()}/x.toml")
    assert shard["stdout_logfile"].endswith("/log/feed-binance-3of4.log")
    assert programs["feed-bybit"]["command"].endswith(f"feed bybit -c {Path.cwd()}/x.toml")


def test_the_recorder_is_there_before_the_feeds_and_after_them():
    """Which the supervisor starts by rising priorities, and stops by falling ones."""
    programs = rendered(TEXT + "[recorder]\n")
    assert programs["recorder"]["command"].endswith(f"feedhandler recorder -c {Path.cwd()}/x.toml")
    feed = int(programs["feed-bybit"]["priority"])
    assert int(programs["merger"]["priority"]) < int(programs["recorder"]["priority"]) < feed
    elsewhere = '[merger]\nfeeds = "tcp://192.0.2.1:5550"\n[curve]\nkey = "k"\nserver = "s"\n[recorder]\n'
    assert [*rendered(TEXT + elsewhere)][-1] == "recorder", "beside the feeds, also without a merger"


def test_what_is_started_is_this_installation_and_everything_is_in_the_run_directory():
    """Wherever the package is, and whatever else runs on this host."""
    sections = rendered('run_dir = "there"\n' + TEXT, has_control=True)
    there = f"{Path.cwd()}/there"
    for name in ("merger", "feed-bybit", "gateway"):
        assert sections[name]["command"].startswith(f"{sys.executable} -P -m feedhandler ")
        assert sections[name]["directory"] == str(Path.cwd())
        assert sections[name]["stdout_logfile"] == f"{there}/log/{name}.log"
    assert sections["supervisord"]["pidfile"] == f"{there}/supervisord.pid"
    assert sections["supervisord"]["logfile"] == f"{there}/log/supervisord.log"
    assert sections["supervisord"]["childlogdir"] == f"{there}/log"
    assert sections["unix_http_server"]["file"] == f"{there}/supervisor.sock"
    assert "/tmp" not in str(sections).replace(there, "").replace(str(Path.cwd()), "")


def test_a_directory_that_is_too_deep_for_the_supervisors_socket_is_refused_where_there_is_to_be_one():
    settings = config.parse(f'run_dir = "{"d" * 90}"\n[exchanges.bybit]\n', "x.toml")
    here(settings)
    with pytest.raises(ConfigError, match=r"x.toml: run_dir: .*ddd is too deep: .* set a shorter one"):
        here(settings, has_control=True)


def test_secrets_are_for_the_process_that_needs_them_alone():
    programs = {
        name: section for name, section in rendered(TEXT + "[nats]\n").items() if "command" in section
    }
    owners = {
        "KUCOIN_PASSPHRASE": "gateway",
        "FEEDHANDLER_API_TOKEN": "gateway",
        "FEEDHANDLER_NATS_USER": "bridge-nats",
        "FEEDHANDLER_NATS_PASSWORD": "bridge-nats",
        "FEEDHANDLER_NATS_TOKEN": "bridge-nats",
    }
    assert {*owners.values()} < {*programs}
    for name, program in programs.items():
        for variable, owner in owners.items():
            assert (f'{variable}=""' in program["environment"]) == (name != owner)


def test_the_bridge_runs_where_it_is_configured():
    programs = rendered(TEXT + "[nats]\n")
    assert f"feedhandler bridge nats -c {Path.cwd()}/x.toml" in programs["bridge-nats"]["command"]
    assert int(programs["bridge-nats"]["priority"]) > int(programs["gateway"]["priority"])
    assert "bridge-nats" not in rendered(TEXT)


def test_what_is_started_is_what_the_command_line_accepts():
    settings = config.parse(TEXT, "x.toml")
    for _, arguments in feed_programs(settings):
        _, exchange, *option = arguments.split()
        shard = settings.shard(exchange, option[1] if option else None)
        assert shard.count == settings.exchange(exchange).shards
    assert [name for name, _ in feed_programs(settings, "kucoin")] == ["feed-kucoin-1of2", "feed-kucoin-2of2"]
