"""`feedhandler replay`: recordings, served as the exchanges serve their data.

What reads and serves them is imported by whoever does: every process of ours reads the arguments of all commands.
"""

import argparse
from pathlib import Path
from typing import Final

from feedhandler.cli.arguments import Commands, bare_command, seconds
from feedhandler.data.errors import EXIT_OK, ConfigError
from feedhandler.exchanges import EXCHANGES
from feedhandler.runtime import config

PORT: Final = 9201  # of the first exchange; the simulator's are from 9101 on
SPEED_MAX: Final = 1000.0
EPILOG: Final = """\
Exit status: 0 all of it was sent, or it was stopped; 2 wrong arguments, no recording, a port that is taken.
Everything on one machine, from two terminals; docs/recording.md, "Play again", has more:

    feedhandler replay recordings --print-config > replay.toml && feedhandler run -c replay.toml
    feedhandler replay recordings -c replay.toml
"""


def add(commands: Commands) -> None:
    """Add the command of this module."""
    parser = bare_command(
        commands,
        "replay",
        _replay,
        "serve recordings as the exchanges serve their data, to feeds and anybody",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a directory of recordings, a segment, or a capture in JSON lines",
    )
    parser.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="N",
        help="times as fast as it was, or max: as fast as the clients read (default: 1)",
    )
    parser.add_argument(
        "-c",
        dest="file",
        metavar="FILE",
        help="serve at the addresses of this configuration's exchanges with replay = true",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=PORT,
        metavar="P",
        help="without -c: of the first exchange on 127.0.0.1, the others follow (default: %(default)s)",
    )
    parser.add_argument("--exchanges", default="", metavar="NAMES", help="only these, of a directory")
    parser.add_argument(
        "--exchange",
        default="",
        metavar="NAME",
        help=f"whose traffic it is, where a recording does not tell: {', '.join(EXCHANGES)}",
    )
    parser.add_argument(
        "--wait",
        type=seconds,
        metavar="S",
        help="begin after so long (default: when clients have subscribed to each market, and no more come)",
    )
    parser.add_argument("--loop", action="store_true", help="begin again at the end, until it is stopped")
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print a configuration with which feeds receive it, and do no more",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")


def _speed(text: str) -> float:
    """Return how many times as fast; 0: as fast as it is read."""
    if text == "max":
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= SPEED_MAX:
        raise argparse.ArgumentTypeError(f"{text} is neither max nor a number above 0, up to {SPEED_MAX:g}")
    return value


def _replay(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import served
    from feedhandler.replay import check_exchanges
    from feedhandler.runtime import lifecycle

    only = check_exchanges([word.strip() for word in arguments.exchanges.split(",") if word.strip()])
    check_exchanges([arguments.exchange] if arguments.exchange else [])
    found = served.find([Path(source) for source in arguments.sources], only, arguments.exchange)
    if arguments.print_config:
        print(served.configuration(found, arguments.port), end="")
        return EXIT_OK
    addresses = _addresses(arguments, list(found))
    if missing := found.keys() - addresses:
        raise ConfigError(
            f"{arguments.file}: has no exchange {', '.join(sorted(missing))} with replay = true; --exchanges leaves"
            " out what is not to be served"
        )
    lifecycle.set_up_logging("replay", is_verbose=arguments.verbose)
    timing = served.Timing(arguments.speed, arguments.wait, loops=arguments.loop)
    return served.run(found, addresses, timing)


def _addresses(arguments: argparse.Namespace, names: list[str]) -> dict[str, tuple[str, str]]:
    """Return where each exchange's WebSocket and REST are served."""
    if arguments.file is None:
        hosts = {name: f"127.0.0.1:{arguments.port + number}" for number, name in enumerate(names)}
        return {name: (f"ws://{host}", f"http://{host}") for name, host in hosts.items()}
    exchanges = config.load(arguments.file).exchanges.items()
    return {
        name: (each.ws_url or each.rest_url.replace("http", "ws", 1), each.rest_url)
        for name, each in exchanges
        if each.replay
    }
