"""Only server.py touches the outside, and the simulator knows nothing of what it is there to test."""

import ast
from pathlib import Path

import feedhandler.sim

FILES = sorted(
    set(Path(feedhandler.sim.__file__).parent.glob("*.py"))
    - {Path(feedhandler.sim.__file__).parent / "process.py"}
)
OUTSIDE = {"aiohttp", "asyncio", "logging", "picows", "socket", "threading", "time", "uvloop"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_imports():
    for path in FILES:
        names = imported(path)
        ours = {name for name in names if name.startswith("feedhandler")}
        assert all(name.startswith("feedhandler.sim") for name in ours), path.name
        if path.name != "server.py":
            assert not OUTSIDE & {name.partition(".")[0] for name in names}, path.name
