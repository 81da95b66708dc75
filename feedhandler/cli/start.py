"""`feedhandler run`, `demo`, `init`, `check`: what a configuration starts, is written by, and is refused for."""

import argparse
from pathlib import Path
from typing import Final

from feedhandler import examples
from feedhandler.cli.arguments import DEMO, Commands, bare_command, command, positive, seconds, settings_of
from feedhandler.data import hints
from feedhandler.data.errors import EXIT_OK, ConfigError
from feedhandler.runtime import config
from feedhandler.runtime.settings import RecorderConfig

RECORDINGS: Final = RecorderConfig().directory
FIRST_DATA_WAIT_S: Final = 60.0  # 3 s are usual, 10 s on a busy machine


def add(commands: Commands) -> None:
    """Add the commands of this module."""
    run = command(commands, "run", _run, "everything, under supervisord, in the foreground; Ctrl-C stops it")
    text = "the same with simulated exchanges, which needs no configuration and no network"
    demo = bare_command(commands, DEMO, _run, text)
    demo.set_defaults(config=DEMO, verbose=False)
    demo.add_argument(
        "--record",
        nargs="?",
        const=RECORDINGS,
        metavar="DIR",
        help=f"keep every frame on disk, too (default: {RECORDINGS}); `feedhandler captures verify DIR` afterwards",
    )
    for each in (run, demo):
        _add_span(each)
    init = bare_command(commands, "init", _init, "write a configuration with comments, to be changed")
    init.add_argument(
        "file", nargs="?", default=config.DEFAULT_PATHS[-1], metavar="FILE", help="default: %(default)s"
    )
    command(commands, "check", _check, "validate a configuration: exit 0, or 2 with file, key and remedy")


def _add_span(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds",
        type=positive,
        metavar="S",
        help="stop after so long, with a summary; counted from when each exchange has had data",
    )
    parser.add_argument(
        "--wait",
        type=seconds,
        default=FIRST_DATA_WAIT_S,
        metavar="S",
        help="with --seconds: how long at most to wait for the first data (default: %(default)g)",
    )


def _run(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import daemon, preflight, run

    if getattr(arguments, "record", None) is not None:
        arguments.config = str(examples.write_recorded(arguments.record))
    settings = settings_of(arguments)
    if settings.is_merger_elsewhere:
        raise ConfigError(
            f"{settings.path}: merger.feeds: is on another host, so there is nothing to show here; start the feeds"
            " by `feedhandler prod start` or one by one"
        )
    daemon.refuse_second(settings)
    preflight.check(settings)
    return run.run(settings, arguments.seconds, arguments.wait)


def _init(arguments: argparse.Namespace) -> int:
    examples.write(Path(arguments.file))
    hints.use(arguments.file)
    print(hints.spelled(f"{arguments.file}: written; change what is to differ, then `feedhandler run`"))
    return EXIT_OK


def _check(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import preflight, supervision

    settings = settings_of(arguments)
    preflight.check(settings, lambda text: print(f"note: {text}"))
    supervision.here(settings)
    for name, exchange in settings.exchanges.items():
        kind = "simulated" if exchange.simulated else "not simulated"
        spread = f" over {exchange.shards} processes" if exchange.shards > 1 else ""
        print(
            f"{name}: {kind}, {len(exchange.symbols)} symbols{spread}: {', '.join(exchange.symbols[:5])}",
            end="",
        )
        print(" …" if len(exchange.symbols) > 5 else "")
    has_board = settings.board and settings.exchanges
    print(f"board: {settings.run_dir}/board/" if has_board else "board: none (`board = true` turns it on)")
    print(f"{arguments.config}: ok")
    return EXIT_OK
