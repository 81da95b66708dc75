"""How many lines an exchange costs, or a market of one, and where they are.

    python tests/lines.py okx              all of its files, and what else names it in shared code
    python tests/lines.py bybit linear     the files of a market, and what only that market uses of the exchange's

Code is what is neither blank nor a comment nor a docstring. A market that shares its exchange's file has there the
definitions whose name has the market's in it, and those that only these use; what it has in the classes of all
markets of that exchange is not seen.
"""

import argparse
import ast
import io
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from feedhandler.exchanges import EXCHANGES

ROOT = Path(__file__).parent.parent
SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
# Of each part what it is, and its files; NAME is the exchange, or the exchange and the market.
PARTS = {
    "adapter": ("feedhandler/exchanges/NAME.py",),
    "simulator": ("feedhandler/sim/NAME.py", "feedhandler/sim/NAME_*.py"),
    "account": ("feedhandler/accounts/NAME.py",),
    "tables of frames": ("tests/exchanges/test_NAME.py", "tests/exchanges/test_NAME_*.py"),
    "tests of the simulator": ("tests/sim/test_NAME.py", "tests/sim/test_NAME_*.py"),
}
FRAMES = ("tests/frames/NAME", "tests/frames/NAME_*")


class Lines(NamedTuple):
    """Lines of code, all lines, and files."""

    code: int = 0
    all: int = 0
    files: int = 0

    def __add__(self, other: "Lines") -> "Lines":  # type: ignore[override]
        return Lines(*(one + more for one, more in zip(self, other, strict=True)))


def code_lines(text: str) -> set[int]:
    """Return the numbers of the lines that are code."""
    found = {
        number
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in SILENT
        for number in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        is_documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if is_documented and ast.get_docstring(node, clean=False) is not None:
            found -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return found


def lines_of(paths: Iterable[Path]) -> Lines:
    """Count files as a whole."""
    total = Lines()
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        code = len(code_lines(text)) if path.suffix == ".py" else sum(map(bool, text.split("\n")))
        total += Lines(code, len(text.splitlines()), 1)
    return total


def only_of(path: Path, market: str) -> Lines:
    """Count what of a file only the definitions of a market use, and these."""
    text = path.read_text(encoding="utf-8")
    places: dict[str, list[ast.stmt]] = {}
    uses: list[tuple[set[str], ast.stmt]] = []  # of each statement: what it defines
    for statement in ast.parse(text).body:
        names = set(_defined(statement))
        for name in names:
            places.setdefault(name, []).append(statement)
        uses.append((names, statement))
    own = {name for name in places if market in name.lower()}
    users = {name: [names for names, statement in uses if name in _used(statement)] for name in places}
    while more := {
        name
        for name in places.keys() - own
        # A table of all markets, such as the exchange itself, is none of theirs.
        if users[name] and all(names & own for names in users[name])
    }:
        own |= more
    lines: set[int] = set()
    for name in own:
        for statement in places[name]:
            first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))])
            lines |= set(range(first, (statement.end_lineno or first) + 1))
    return Lines(len(lines & code_lines(text)), len(lines), bool(lines))


def _defined(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.ClassDef(name) | ast.FunctionDef(name) | ast.AnnAssign(ast.Name(name)):
            yield name
        case ast.Assign(targets):
            yield from (node.id for each in targets for node in ast.walk(each) if isinstance(node, ast.Name))


def _used(statement: ast.stmt) -> set[str]:
    """Return the names that a statement reads, of its own too."""
    return {
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    } - set(_defined(statement))


def matching(patterns: Iterable[str], name: str) -> list[Path]:
    """Return the files of these names that are there."""
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern.replace("NAME", name)))]


def frames(name: str) -> list[Path]:
    return [path for folder in matching(FRAMES, name) for path in sorted(folder.rglob("*")) if path.is_file()]


def elsewhere(exchange: str) -> Iterator[tuple[Path, int, str]]:
    """Yield the lines of the package that name an exchange outside of its own files."""
    own = {path for patterns in PARTS.values() for path in matching(patterns, exchange)}
    for path in sorted((ROOT / "feedhandler").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path in own or exchange not in text.lower():
            continue
        code = code_lines(text)
        for number, line in enumerate(text.splitlines(), 1):
            if number in code and exchange in line.lower():
                yield path.relative_to(ROOT), number, line.strip()


def counted(exchange: str, market: str) -> dict[str, Lines]:
    """Return the lines of each part."""
    if not market:
        found = {part: lines_of(matching(patterns, exchange)) for part, patterns in PARTS.items()}
        return found | {"frames": lines_of(frames(exchange))}
    name = f"{exchange}_{market}"
    found = {part: lines_of(matching(patterns, name)) for part, patterns in PARTS.items()}
    for part in ("adapter", "simulator"):
        for path in matching(PARTS[part][:1], exchange):
            found[part] += only_of(path, market)
    return found | {"frames": lines_of(frames(name))}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("exchange", choices=EXCHANGES)
    parser.add_argument("market", nargs="?", default="", help="one of its markets, such as linear")
    arguments = parser.parse_args()
    markets = [market.name for market in EXCHANGES[arguments.exchange].markets]
    if arguments.market and arguments.market not in markets:
        parser.error(f"{arguments.exchange} has no market {arguments.market!r}, but {', '.join(markets)}")
    found = counted(arguments.exchange, arguments.market)
    print(f"{'':24}{'code':>8}{'lines':>8}{'files':>8}")
    for part, lines in {**found, "all": sum(found.values(), Lines())}.items():
        print(f"{part:24}{lines.code:8,}{lines.all:8,}{lines.files:8,}")
    if not arguments.market:
        named = list(elsewhere(arguments.exchange))
        print(f"\nnamed elsewhere in feedhandler/, in {len(named)} lines of code:")
        for path, number, line in named:
            print(f"  {path}:{number}: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
