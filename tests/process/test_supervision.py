"""What the supervisor is told to run."""

import configparser

from feedhandler import config
from feedhandler.process.supervision import checkout, feed_programs, render

TEXT = "[exchanges.binance]\nshards = 4\n[exchanges.bybit]\n[exchanges.kucoin]\nshards = 2\n"


def test_each_shard_is_a_program_of_its_own_with_its_own_log():
    parser = configparser.RawConfigParser()
    parser.read_string(render(config.parse(TEXT, "x.toml"), checkout("x.toml")))
    programs = {name: parser[name] for name in parser.sections() if name.startswith("program:")}
    assert list(programs) == [
        "program:merger",
        *(f"program:feed-binance-{number}of4" for number in range(1, 5)),
        "program:feed-bybit",
        "program:feed-kucoin-1of2",
        "program:feed-kucoin-2of2",
        "program:relay",
        "program:gateway",
    ]
    shard = programs["program:feed-binance-3of4"]
    assert shard["command"].endswith('feedhandler" feed binance --shard 3/4 -c x.toml')
    assert shard["stdout_logfile"].endswith("/log/feed-binance-3of4.log")
    assert programs["program:feed-bybit"]["command"].endswith("feed bybit -c x.toml")


def test_secrets_are_for_the_process_that_needs_them_alone():
    parser = configparser.RawConfigParser()
    parser.read_string(render(config.parse(TEXT + "[nats]\n", "x.toml"), checkout("x.toml")))
    programs = {name.removeprefix("program:"): parser[name] for name in parser if name.startswith("program:")}
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
    parser = configparser.RawConfigParser()
    parser.read_string(render(config.parse(TEXT + "[nats]\n", "x.toml"), checkout("x.toml")))
    program = parser["program:bridge-nats"]
    assert program["command"].endswith('feedhandler" bridge nats -c x.toml')
    assert int(program["priority"]) > int(parser["program:gateway"]["priority"])
    assert "bridge" not in render(config.parse(TEXT, "x.toml"), checkout("x.toml"))


def test_what_is_started_is_what_the_command_line_accepts():
    settings = config.parse(TEXT, "x.toml")
    for _, arguments in feed_programs(settings):
        _, exchange, *option = arguments.split()
        shard = settings.shard(exchange, option[1] if option else None)
        assert shard.count == settings.exchange(exchange).shards
    assert [name for name, _ in feed_programs(settings, "kucoin")] == ["feed-kucoin-1of2", "feed-kucoin-2of2"]
