"""`feedhandler feed`, `merger`, `relay`, `gateway`, `bridge`, `recorder`, `sim`: one process each.

Each imports its own room only when it runs.
"""

import argparse
from typing import Final

from feedhandler.cli.arguments import Commands, add_exchange, command, settings_of
from feedhandler.data.processes import BRIDGE, GATEWAY, MERGER, RECORDER, RELAY, SIM
from feedhandler.runtime import lifecycle
from feedhandler.runtime.settings import Config
from feedhandler.transport import files

BRIDGE_EPILOG: Final = """\
Every record is published unchanged, at ticker.binance.BTC-USDT, status.binance, heartbeat.merger and so on
(docs/bridge.md). While NATS is slower than the market, or away, the newest record of each topic waits for it.
User and password, or a token, come from the environment: FEEDHANDLER_NATS_USER and FEEDHANDLER_NATS_PASSWORD,
or FEEDHANDLER_NATS_TOKEN. Needs nats-py: pip install 'feedhandler[nats]'.
"""


def add(commands: Commands) -> None:
    """Add the commands of this module."""
    feed = command(commands, "feed", _feed, "one exchange's feed process")
    add_exchange(feed)
    feed.add_argument(
        "--shard", metavar="I/N", help="only this part of the symbols, such as 1/4; as many processes as N"
    )
    command(commands, "merger", _merger, "the merger process")
    command(commands, "relay", _relay, "the relay: answers subscribers that have missed something")
    command(commands, "gateway", _gateway, "the control plane: HTTP API, balances, dashboard, metrics")
    bridge = command(commands, "bridge", _bridge, "republish the stream to NATS, as the table [nats] says")
    bridge.add_argument("target", choices=("nats",), metavar="TARGET", help="nats")
    bridge.formatter_class = argparse.RawDescriptionHelpFormatter
    bridge.epilog = BRIDGE_EPILOG
    command(commands, "recorder", _recorder, "keep what feeds receive and send on disk, as [recorder] says")
    command(commands, "sim", _sim, "the simulated exchanges")


def _feed(arguments: argparse.Namespace) -> int:
    from feedhandler.feed import process

    settings = settings_of(arguments)
    shard = settings.shard(arguments.exchange, arguments.shard)
    name = files.feed_name(arguments.exchange, shard)
    lifecycle.set_up_logging(name, is_verbose=arguments.verbose)
    lifecycle.follow_supervisor()
    lifecycle.note_start(settings, name)
    return process.run(settings, arguments.exchange, shard)


def _merger(arguments: argparse.Namespace) -> int:
    from feedhandler.merger import process

    return process.run(_begun(arguments, MERGER))


def _relay(arguments: argparse.Namespace) -> int:
    from feedhandler.relay import process

    return process.run(_begun(arguments, RELAY))


def _gateway(arguments: argparse.Namespace) -> int:
    from feedhandler.gateway import process

    return process.run(_begun(arguments, GATEWAY))


def _bridge(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import preflight

    settings = lifecycle.note_start(settings_of(arguments), BRIDGE)
    preflight.require_nats()
    from feedhandler.bridge import process

    lifecycle.set_up_logging(BRIDGE, is_verbose=arguments.verbose)
    lifecycle.follow_supervisor()
    return process.run(settings)


def _recorder(arguments: argparse.Namespace) -> int:
    from feedhandler.recorder import process

    return process.run(_begun(arguments, RECORDER))


def _sim(arguments: argparse.Namespace) -> int:
    from feedhandler.sim import process

    return process.run(_begun(arguments, SIM))


def _begun(arguments: argparse.Namespace, name: str) -> Config:
    """Set up what processes have in common, and return the configuration."""
    lifecycle.set_up_logging(name, is_verbose=arguments.verbose)
    lifecycle.follow_supervisor()
    return lifecycle.note_start(settings_of(arguments), name)
