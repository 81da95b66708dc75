"""What several commands take, and the configuration that they are about."""

import argparse
from collections.abc import Callable
from typing import Final, TypeAlias

from feedhandler.data.errors import ConfigError
from feedhandler.exchanges import EXCHANGES
from feedhandler.runtime import config
from feedhandler.runtime.settings import Config

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

DEMO: Final = "demo"
CONFIG_HELP: Final = (
    f"TOML configuration (default: ${config.CONFIG_ENV},"
    f" else {' or '.join(config.DEFAULT_PATHS)}, whichever is there); {DEMO}: that of `feedhandler {DEMO}`"
)


def command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """Add a command that has a configuration, and return its parser."""
    parser = bare_command(commands, name, run, text)
    add_config(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    return parser


def bare_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """Add a command of that name, and return its parser."""
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run, name=name)
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    """Take the file of the configuration."""
    parser.add_argument("-c", "--config", metavar="FILE", help=CONFIG_HELP)


def add_exchange(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """Take the name of an exchange."""
    parser.add_argument(
        "exchange", nargs=nargs, choices=list(EXCHANGES), metavar="EXCHANGE", help=", ".join(EXCHANGES)
    )


def add_check(parser: argparse.ArgumentParser, text: str) -> None:
    """Take --check; text: what makes the exit status 1, and what 2."""
    text = f"for scripts: one line, and exit 0 if all is well, 1 if {text}"
    parser.add_argument("--check", action="store_true", help=text)


def positive(text: str) -> float:
    """Return a number of seconds above 0."""
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return value


def seconds(text: str) -> float:
    """Return a number of seconds, 0 or more."""
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds, 0 or more")
    return value


def count(text: str) -> int:
    """Return a count of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive count")
    return value


def settings_of(arguments: argparse.Namespace) -> Config:
    """Return the configuration that is in use. Raises ConfigError."""
    if arguments.config is None:
        raise ConfigError(
            f"no configuration: no {' and no '.join(config.DEFAULT_PATHS)} here; `feedhandler init` writes one,"
            f" -c FILE or {config.CONFIG_ENV} names another, and `feedhandler demo` needs none"
        )
    return config.load(arguments.config)
