"""`feedhandler captures decode`, `list`, `verify` and `sizes`: does it decode, is it complete, how much is it?"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from feedhandler.cli.arguments import Commands
from feedhandler.data.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, ConfigError
from feedhandler.exchanges import EXCHANGES

BAD_SHOWN: Final = 3
LIST_EPILOG: Final = "docs/recording.md has the format."
SIZES_EPILOG: Final = """\
Bytes a message: as it was received, and what it takes in segments, as Parquet, and as a line of JSON in gzip. GB of
segments a day, at the rate of the recording. All of it is decoded, so name a directory with some minutes in it.
"""
VERIFY_EPILOG: Final = """\
exit status: 0 complete, as far as can be known; 1 something is missing: the recording tells why, or the exchange's
ids show it; 2 frames are missing that nothing tells of, a file is damaged, or nothing can be read.
docs/recording.md has what can be known.
"""


def add(commands: Commands) -> None:
    """Add the command of this module."""
    text = "look at recordings of real traffic"
    parser = commands.add_parser("captures", help=text, description=text[0].upper() + text[1:] + ".")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    text = "run every frame through the decoders and books, and count what comes of it"
    decode = actions.add_parser(
        "decode",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog="exit status: 0 all books are right; 1 one was crossed, or disagrees with a quote of the same id;"
        " 2 a file or a line of it cannot be read. docs/captures.md has the format.",
    )
    decode.add_argument("files", nargs="+", metavar="FILE", help="JSON lines, as they are or in zstd or gzip")
    decode.add_argument(
        "--exchange",
        metavar="NAME",
        help=f"whose traffic it is, where addresses in the file do not tell: {', '.join(EXCHANGES)}",
    )
    decode.add_argument("--json", action="store_true", help="one JSON object per file")
    decode.set_defaults(run=_decode, name="captures decode")
    _of_directory(actions, "list", _list, "what a directory of recordings holds").epilog = LIST_EPILOG
    sizing = _of_directory(actions, "sizes", _sizes, "what messages of each kind take on disk")
    sizing.epilog = SIZES_EPILOG
    verify = _of_directory(
        actions, "verify", _verify, "read every segment, and tell whether anything is missing"
    )
    verify.add_argument(
        "--frames-only", action="store_true", help="leave out the exchanges' ids: nothing is decoded"
    )
    verify.add_argument(
        "--hours", action="store_true", help="show every hour of every symbol, also where all is well"
    )
    verify.epilog = VERIFY_EPILOG
    verify.formatter_class = argparse.RawDescriptionHelpFormatter


def _of_directory(
    actions: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """Add an action on what the recorder has written."""
    parser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("directory", metavar="DIR", help="that of [recorder], such as recordings")
    parser.add_argument(
        "--exchange",
        action="append",
        choices=list(EXCHANGES),
        metavar="NAME",
        help="only this one (repeatable)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run, name=f"captures {name}")
    return parser


def _list(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import verifying

    return verifying.show_list(Path(arguments.directory), arguments.exchange or (), is_json=arguments.json)


def _sizes(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import sizing

    return sizing.show(Path(arguments.directory), arguments.exchange or (), is_json=arguments.json)


def _verify(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import verifying

    return verifying.verify(
        Path(arguments.directory),
        arguments.exchange or (),
        is_json=arguments.json,
        has_ids=not arguments.frames_only,
        shows_all=arguments.hours,
    )


def _decode(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import recorded_files

    name = arguments.exchange or ""
    if name and name not in EXCHANGES:
        raise ConfigError(f"--exchange {name}: is none of {', '.join(EXCHANGES)}")
    status = EXIT_OK
    for file in arguments.files:
        try:
            found = recorded_files.report(Path(file), name)
        except ConfigError as exc:
            print(f"feedhandler: {exc}", file=sys.stderr)
            status = status or EXIT_CONFIG
            continue
        lines = [found.json()] if arguments.json else recorded_files.lines(found)
        print("\n".join(lines), flush=True)
        for bad in found.bad_lines[:BAD_SHOWN]:
            print(f"feedhandler: {file}: line {bad.number} cannot be read: {bad.reason}", file=sys.stderr)
        if more := len(found.bad_lines[BAD_SHOWN:]):
            print(f"feedhandler: {file}: and {more:,} more", file=sys.stderr)
        if found.cut:
            rest = "; what is before it was read" if found.lines else ""
            print(f"feedhandler: {file}: {found.cut}{rest}", file=sys.stderr)
        if not found.is_right:
            status = EXIT_FAILED
        elif found.bad_lines or not found.lines:
            status = status or EXIT_CONFIG
    return status
