"""The shape of the tree: what is pure stays pure, and imports point one way."""

import ast
import re
from pathlib import Path

import pytest

from feedhandler import errors

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "feedhandler"
PURE = [
    "wire.py",
    "board.py",
    "schema.py",
    "instruments.py",
    "clock.py",
    "shard.py",
    "subscriptions.py",
    "session.py",
    "freshness.py",
    "legs.py",
    "universe.py",
    "wanted.py",
    "balances.py",
    "positions.py",
    "feeds.py",
    "merge.py",
    "status.py",
    "processes.py",
    "follow.py",
    "conflate.py",
    "batch.py",
    "pace.py",
    "topics.py",
    "subjects.py",
    "bridge.py",
    *(f"exchanges/{p.name}" for p in (PACKAGE / "exchanges").glob("*.py")),
]
OUTSIDE = {
    "asyncio",
    "socket",
    "time",
    "zmq",
    "picows",
    "aiohttp",
    "uvloop",
    "logging",
    "os",
    "threading",
    "datetime",
}
LAYERS = [
    "wire",
    "board",
    "pace",
    "topics",
    "schema",
    "instruments",
    "clock",
    "hints",
    "shard",
    "exchanges",
    "batch",
    "subscriptions",
    "session",
    "freshness",
    "legs",
    "universe",
    "wanted",
    "balances",
    "positions",
    "status",
    "processes",
    "feeds",
    "merge",
    "follow",
    "conflate",
    "subjects",
    "bridge",
    "config",
    "examples",
    "transport",
    "client",
    "view",
    "gateway",
    "process",
    "__main__",
]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("name", PURE)
def test_the_core_imports_nothing_that_touches_the_outside(name):
    assert not {module.split(".")[0] for module in imports(PACKAGE / name)} & OUTSIDE


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_up_the_list(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own not in LAYERS:
        return
    used = {layer(m) for m in imports(path) if m.startswith("feedhandler.")} & set(LAYERS)
    assert all(LAYERS.index(other) <= LAYERS.index(own) for other in used), used


def test_only_the_command_line_imports_the_simulator():
    users = {
        str(p.relative_to(PACKAGE))
        for p in PACKAGE.rglob("*.py")
        if any(m.startswith("feedhandler.sim") for m in imports(p))
    }
    assert {user for user in users if not user.startswith("sim/")} == {"process/sim.py", "process/fault.py"}


def test_the_simulator_knows_nothing_of_the_adapters():
    for path in (PACKAGE / "sim").glob("*.py"):
        assert all(m.startswith("feedhandler.sim") for m in imports(path) if m.startswith("feedhandler"))


@pytest.mark.parametrize("exchange", ["binance", "kucoin", "bybit"])
def test_no_shared_code_names_an_exchange(exchange):
    for name in (
        "session.py",
        "feeds.py",
        "merge.py",
        "wire.py",
        "status.py",
        "process/feed.py",
        "process/merger.py",
        "transport/websocket.py",
        "transport/http.py",
    ):
        code = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
        names = {n.id.lower() for n in ast.walk(code) if isinstance(n, ast.Name)}
        assert exchange not in names, name


def test_every_error_and_exit_status_is_documented():
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for name, value in vars(errors).items():
        if name.startswith("EXIT_"):
            assert f"`{value}`" in text, name
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.FeedError):
            assert f"`{name}`" in design, name


def test_no_two_files_of_tests_have_one_name():
    """Where no package tells them apart, pytest runs one of them and refuses the other."""
    paths = [
        path for path in (ROOT / "tests").rglob("test_*.py") if not (path.parent / "__init__.py").exists()
    ]
    names = [path.name for path in paths]
    assert not [str(path.relative_to(ROOT)) for path in paths if names.count(path.name) > 1]


def test_every_picture_of_the_documents_is_there_with_words_for_it_and_small():
    found = []
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for words, name in re.findall(r"!\[(.*?)\]\((.*?)\)", document.read_text(encoding="utf-8")):
            found.append((document.parent / name).resolve())
            assert words, name
            assert found[-1].stat().st_size < 250_000, name
    assert {path.name for path in (ROOT / "docs").glob("*.png")} <= {path.name for path in found}
    assert found
