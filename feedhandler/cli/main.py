"""The command line: arguments in, one process or one look at the stream out.

Each module of `GROUPS` has its commands: their arguments, and what they do.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from feedhandler import FORM, __version__, examples
from feedhandler.cli import (
    capabilities,
    curve_keys,
    exporting,
    fault,
    launch,
    looking,
    operator,
    prod,
    recorded,
    replaying,
    start,
    subscribe,
)
from feedhandler.cli.arguments import DEMO
from feedhandler.data import hints
from feedhandler.data.errors import (
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_GAVE_UP,
    EXIT_OK,
    ConfigError,
    FeedError,
    one_line,
)
from feedhandler.runtime import config, lifecycle
from feedhandler.transport import files

# In the order of --help.
GROUPS: Final = (
    start,
    launch,
    prod,
    looking,
    capabilities,
    subscribe,
    operator,
    curve_keys,
    fault,
    recorded,
    exporting,
    replaying,
)
EPILOG: Final = f"""\
exit status: {EXIT_OK} done; {EXIT_FAILED} it ran, and failed; {EXIT_CONFIG} wrong configuration or arguments;
{EXIT_GAVE_UP} a feed gave up after max_attempts connections in a row that came to nothing
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        if "config" in arguments:
            hints.use(arguments.config)
            arguments.is_named = arguments.config is not None
            arguments.config = _file(arguments.config) or config.default_path()
        status = int(arguments.run(arguments))
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_output()  # else the interpreter would try once more at its end, and complain
        return status
    except FeedError as exc:
        _tell(str(exc))
        return EXIT_CONFIG if isinstance(exc, ConfigError) else EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_OK
    except BrokenPipeError:
        _drop_output()
        return EXIT_OK
    except OSError as exc:
        if exc.errno not in files.NO_ROOM:
            raise
        what = exc.filename or "a file"
        _tell(f"{what}: cannot be written: {exc.strerror}; make room")
        return EXIT_CONFIG


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments of all commands."""
    made = argparse.ArgumentParser(
        prog="feedhandler",
        description="Crypto market data, from exchange WebSockets to ZeroMQ subscribers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"feedhandler {__version__} ({FORM})")
    commands = made.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add(commands)
    return made


def _file(named: str | None) -> str | None:
    """Return the file that -c means: `demo` is the package's own, unless there is a file of that name."""
    if named == DEMO and not Path(named).exists():
        return hints.short(examples.DEMO)
    return named


def _drop_output() -> None:
    """The reader of our output has gone, as `head` does; nothing more can be printed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(text: str) -> None:
    """Say in one line why a command ends, whatever library has put it into words."""
    text = hints.spelled(one_line(text))
    if os.environ.get(lifecycle.SUPERVISED_ENV):
        logging.getLogger(__name__).critical("%s", text)
    else:
        print(f"feedhandler: {text}", file=sys.stderr)
