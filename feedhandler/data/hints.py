"""Commands in messages: whoever copies one from where it is printed runs what is meant.

The core writes them short and in backquotes, `feedhandler connect binance`. Where a process puts text before people
(a terminal, a log) `spelled` makes them what works there: the program of this installation, with the configuration
that was given by -c; and `pip install …` that of this environment.
"""

import functools
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

_COMMAND: Final = re.compile(r"`feedhandler (?P<words>(?P<name>[a-z]+)[^`]*)`")
_PIP: Final = re.compile(r"`pip (?=install )")
WITHOUT_CONFIG: Final = ("demo", "init", "keys make")
_given: list[str] = []  # what -c was: one for a process, as its arguments are


def use(config_path: str | None) -> None:
    """Have commands name this configuration; None: the one that they find without."""
    _given[:] = [config_path] if config_path else []


def spelled(text: str) -> str:
    """Return a text with its commands as they can be copied."""
    text = _PIP.sub(lambda _: f"`{shlex.quote(short(Path(sys.executable)))} -m pip ", text)
    return _COMMAND.sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    words = match["words"]
    needs_config = _given and not words.startswith(WITHOUT_CONFIG) and " -c " not in words
    option = f" -c {shlex.quote(_given[0])}" if needs_config else ""
    return f"`{program()} {words}{option}`"


@functools.cache
def program() -> str:
    """Return what starts this installation's `feedhandler` from a shell in the working directory."""
    own = Path(sys.executable).with_name("feedhandler")
    if not own.exists():
        return f"{shlex.quote(sys.executable)} -m feedhandler"
    found = shutil.which("feedhandler")
    return "feedhandler" if found and own.samefile(found) else shlex.quote(short(own))


def short(path: Path) -> str:
    """Return an absolute path as it is written from the working directory, if it is in there."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
