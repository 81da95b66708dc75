"""Commands that documents, messages and comments name: they exist, with the options that are named beside them."""

import argparse
import functools
import re
from pathlib import Path

from feedhandler.cli import main

ROOT = Path(__file__).parents[2]
FILES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(
        path
        for path in (ROOT / "feedhandler").rglob("*")
        if path.suffix in (".py", ".pyx", ".toml", ".js", ".html")
    ),
)
COMMAND = re.compile(r"(?:`|^ {4,}|venv/bin/|& )feedhandler ([a-z]+)([^`\n#&]*)", re.MULTILINE)
TARGET = re.compile(r"(?:`|^    )make ([a-z][a-z-]*)", re.MULTILINE)
PARSER = main.parser()


@functools.cache
def subcommands(parser):
    return next(
        action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )


def named(pattern):
    """Yield what files name, with the file."""
    for path in FILES:
        for found in pattern.findall(path.read_text(encoding="utf-8")):
            yield str(path.relative_to(ROOT)), found


def test_a_command_that_is_named_is_there():
    known = subcommands(PARSER)
    missing = set()
    for path, (name, rest) in named(COMMAND):
        parser = known.get(name)
        if name in ("keys", "captures"):
            parser = subcommands(parser).get(rest.split()[0])
        options = re.findall(r"(?<=\s)\[?(-{1,2}[a-z][a-z-]*)", rest)
        if parser is None or not set(options) <= parser._option_string_actions.keys():
            missing.add(f"{path}: feedhandler {name}{rest}")
    assert not missing


def test_a_target_that_is_named_is_there():
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert not {f"{path}: make {name}" for path, name in named(TARGET) if name not in targets}


def test_what_a_package_prints_names_no_target_of_a_checkout():
    """Somebody may have the package alone; where the text is about a checkout, it says which."""
    for path in (ROOT / "feedhandler").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.search(r"""["'].*(`make |conf/demo\.toml)""", line) and '"""' not in line:
                assert "make -C" in line, f"{path.name}: {line.strip()}"
