"""The shape of the tree: what is pure stays pure, and imports point one way."""

import ast
import functools
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from patience import PATIENCE_S

from feedhandler.data import errors
from feedhandler.exchanges import EXCHANGES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "feedhandler"
# From the top to the bottom: each imports only what stands below it.
ROOMS = [
    ("__main__",),
    ("cli",),
    ("sim.process",),
    ("gateway", "bridge", "relay", "recorder", "export"),
    ("feed", "client", "replay"),
    ("merger",),
    ("runtime",),
    ("accounts", "recordings"),
    ("exchanges",),
    ("transport",),
    ("examples", "research"),
    ("data",),
]
# Shells: what touches the outside. All else in the rooms of the processes is pure, and so are data and exchanges.
SHELLS = {
    "feed": {"asking.py", "listings.py", "process.py", "publisher.py", "websocket.py"},
    "merger": {"process.py"},
    "relay": {"process.py", "beyond.py"},
    "bridge": {"process.py", "connection.py", "jetstream.py", "login.py"},
    "recorder": {"process.py", "disk.py"},
    "accounts": {"keeper.py"},
    "recordings": {"directory.py"},
    "exchanges": set(),
    "data": set(),
}
PURE = sorted(
    f"{room}/{path.name}"
    for room, shells in SHELLS.items()
    for path in (PACKAGE / room).glob("*.py")
    if path.name not in shells
)
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


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """Return all of a file's syntax, the whole first."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@functools.cache
def imports(path: Path) -> set[str]:
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules() -> dict[str, Path]:
    """Return the files of the package by the names of their modules, without the package's."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@functools.cache
def used_by(name: str) -> set[str]:
    """Return the modules of ours that one imports, wherever in its file."""
    found = set()
    for used in imports(MODULES[name]):
        words = used.removeprefix("feedhandler").lstrip(".").split(".")
        if used.startswith("feedhandler"):
            found |= {
                next(".".join(words[:n]) for n in range(len(words), -1, -1) if ".".join(words[:n]) in MODULES)
            }
    return found - {name, ""}


def room(name: str) -> str:
    return name if name == "sim.process" else name.split(".")[0]


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(ROOMS) if room(name) in rooms)


def test_every_folder_is_a_room():
    known = {name for rooms in ROOMS for name in rooms}
    assert {room(name) for name in MODULES if name} - {"sim"} == known


def test_the_core_imports_nothing_that_touches_the_outside():
    used = {name: {module.split(".")[0] for module in imports(PACKAGE / name)} & OUTSIDE for name in PURE}
    assert not {name: outside for name, outside in used.items() if outside}


def test_a_room_imports_only_from_rooms_below_it():
    wrong = {
        f"{name} imports {other}"
        for name in MODULES
        if name and room(name) != "sim"
        for other in used_by(name)
        if room(other) not in (room(name), "sim") and floor(other) <= floor(name)
    }
    assert not wrong


def test_the_rooms_are_few_floors_and_few_imports():
    assert len(ROOMS) <= 12
    pairs = {(room(name), room(other)) for name in MODULES if name for other in used_by(name)}
    assert len({(one, other) for one, other in pairs if one != other}) <= 80


def test_a_client_loads_nothing_of_the_processes():
    code = "import sys, feedhandler.client; print(*(m for m in sys.modules if m.startswith('feedhandler.')))"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=PATIENCE_S).split()
    assert {name.split(".")[1] for name in loaded} == {"client", "transport", "data"}


def test_a_process_that_starts_loads_nothing_that_draws_or_plays_again():
    code = "import sys, feedhandler.cli.main; print(*(m for m in sys.modules))"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=PATIENCE_S).split()
    assert not {"rich", "hdrh", "feedhandler.cli.view", "feedhandler.replay"} & set(loaded)


def test_no_imports_make_a_circle():
    graph = {name: used_by(name) for name in MODULES if name}
    while leaves := {name for name, used in graph.items() if not used & graph.keys()}:
        graph = {name: used for name, used in graph.items() if name not in leaves}
    assert not graph


@pytest.mark.long
def test_only_the_command_line_imports_the_simulator():
    users = {
        str(p.relative_to(PACKAGE))
        for p in PACKAGE.rglob("*.py")
        if any(m.startswith("feedhandler.sim") for m in imports(p))
    }
    assert all(user.startswith(("sim/", "cli/")) for user in users)


def test_the_simulator_knows_nothing_of_the_adapters():
    for path in (PACKAGE / "sim").glob("*.py"):
        if path.name != "process.py":
            assert all(m.startswith("feedhandler.sim") for m in imports(path) if m.startswith("feedhandler"))


def test_nats_is_loaded_by_the_bridge_alone_and_by_its_public_interface():
    loading = {
        name for name, path in MODULES.items() if any(m.split(".")[0] == "nats" for m in imports(path))
    }
    assert loading == {"bridge.connection", "bridge.jetstream"}
    through = {name for name in MODULES if used_by(name) & {*loading, "bridge.process"}}
    # where the bridge is started
    assert {name for name in through if room(name) != "bridge"} == {"cli.launch"}
    for name in (name for name in MODULES if room(name) == "bridge"):
        for node in nodes(MODULES[name]):
            if isinstance(node, ast.Attribute) and re.match("_(?!_)", node.attr):
                assert ast.unparse(node.value) == "self", f"{name}, line {node.lineno}: {ast.unparse(node)}"


# What lists exchanges: the registries, and what a client of a simulated one signs with.
LISTS = {"exchanges", "accounts", "sim.simulated", "sim.credentials"}
OWN = {
    name
    for name in MODULES
    if name.startswith(("exchanges.", "accounts.", "sim."))
    and any(re.fullmatch(rf"{exchange}(_\w+)?", name.split(".")[-1]) for exchange in EXCHANGES)
}
SHARED = sorted({name for name in MODULES if name} - OWN - LISTS)


def identifiers(node: ast.AST) -> list[str]:
    """Return what a piece of syntax names or uses by name."""
    match node:
        case ast.Name(name) | ast.Attribute(_, name) | ast.arg(name) | ast.keyword(str(name)):
            return [name]
        case ast.ClassDef(name) | ast.FunctionDef(name) | ast.AsyncFunctionDef(name):
            return [name]
        case ast.alias(name, other):
            return [*name.split("."), other or ""]
        case ast.ImportFrom(str(name)):
            return name.split(".")
        case _:
            return []


@functools.cache
def words_of(identifier: str) -> frozenset[str]:
    """Return the words of a name, as in `max_size`, `MAX_SIZE` and `MaxSize`."""
    capitals = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)
    return frozenset(word.lower() for word in (*capitals, *identifier.split("_")))


def named_exchanges(node: ast.AST) -> set[str]:
    """Return the exchanges that a piece of syntax is about.

    A text that explains may give one as an example; one without a space is no explanation.
    """
    found = {word for name in identifiers(node) for word in words_of(name)}
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        text = node.value if isinstance(node.value, str) else node.value.decode(errors="replace")
        if not re.search(r"\s", text):
            found |= set(re.split(r"[^a-z]+", text.lower()))
    return found & EXCHANGES.keys()


def test_no_shared_code_names_an_exchange():
    """Not as a name, nor as part of one, nor as a text of its own."""
    found = [
        f"{name}, line {getattr(node, 'lineno', '?')}: {ast.unparse(node)}"
        for name in SHARED
        for node in nodes(MODULES[name])
        if named_exchanges(node)
    ]
    assert not found


# What plays and measures whatever the tables of exchanges have; others are about one exchange.
FOLLOWING = (
    "chain*.py",
    "mixed*.py",
    "days.py",
    "chaos/*.py",
    "soak/*.py",
    "e2e/harness.py",
    "book_market.py",
    "claims.py",
)
FOLLOWING_OF_BENCH = (
    "plan.py",
    "measure.py",
    "numbered.py",
    "traffic.py",
    "report.py",
    "terminal.py",
    "page.py",
)


def test_what_plays_all_exchanges_takes_them_from_their_tables():
    paths = [
        *(
            path
            for name in FOLLOWING
            for path in sorted((ROOT / "tests").glob(name))
            if not path.name.startswith("test_")
        ),
        *(ROOT / "bench" / name for name in FOLLOWING_OF_BENCH),
    ]
    assert len(paths) > 12
    for path in paths:
        for node in nodes(path):
            assert not named_exchanges(node), f"{path.name}, line {getattr(node, 'lineno', '?')}"


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(
    "code",
    [
        'if exchange.name == "{0}": pass',
        'if name in ("{0}",): pass',
        'if topic.startswith("ticker.{0}."): pass',
        'if b"{0}" in topic: pass',
        "match name:\n case '{0}': pass",
        "from feedhandler.exchanges.{0} import decode",
        "from feedhandler.exchanges import {0} as other",
        "import feedhandler.sim.{0}_private",
        "limits.{0} = 1",
        "def is_{0}(name): pass",
        "class {1}Session: pass",
        "make({0}=True)",
        "{2}_LIMIT = 1",
    ],
)
def test_code_that_knows_an_exchange_is_seen(exchange, code):
    planted = ast.parse(code.format(exchange, exchange.capitalize(), exchange.upper()))
    assert any(named_exchanges(node) == {exchange} for node in ast.walk(planted))


def test_a_text_that_explains_may_give_an_exchange_as_an_example():
    planted = ast.parse(
        '"""As Binance does; see binance.com."""\nraise ValueError("no exchange, such as okx")'
    )
    assert not any(named_exchanges(node) for node in ast.walk(planted))


# The simulator's side of a thing has the name of our side.
MIRRORED = {"Account", "AccountError", "Balance", "Credentials", "Exchange", "Instrument", "Trade"}
# What a module needs of a class, as a protocol of its name; a socket of this host, and libzmq's in its place.
INTERCHANGEABLE = {"Dealer", "Downlink", "Queues", "Uplink"}
# `process` wires its room's process, and `metrics` are what it counts.
ONE_A_ROOM = {"process", "metrics"}


def test_no_two_classes_have_one_name():
    found = defaultdict(list)
    for name, path in MODULES.items():
        for node in nodes(path)[0].body:
            match node:
                case ast.ClassDef(word) | ast.Assign([ast.Name(word)], ast.BinOp() | ast.Subscript()):
                    if word[0].isupper() and not word.isupper():  # an alias of types is one more class
                        found[word].append(name)
    twice = {name: where for name, where in found.items() if len(where) > 1}
    for name in MIRRORED:
        where = twice.pop(name)
        assert len(where) == 2, name
        assert sum(each.startswith("sim.") for each in where) == 1, name
    for name in INTERCHANGEABLE:
        twice.pop(name)
    assert not twice


def test_no_two_modules_have_one_name():
    names = [name.split(".")[-1] for name in MODULES if name]
    assert {name for name in names if names.count(name) > 1} <= {*ONE_A_ROOM, *EXCHANGES}


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


def test_files_that_the_map_names_are_there():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`((?:[\w-]+/)+(?:[\w-]+\.(?:py|md|toml))?)[`:]", text))
    assert len(names) > 30
    missing = {name for name in names if "NAME" not in name and not name.startswith("run/")}
    missing = {name for name in missing if not any((root / name).exists() for root in (ROOT, PACKAGE))}
    assert not missing


def test_each_room_and_where_to_begin_in_it_is_in_the_documents():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)/` \|.*\| (`[^|]+`) \|$", text, re.MULTILINE))
    folders = {room(name) for name in MODULES if name and (PACKAGE / room(name)).is_dir()}
    assert set(rows) == folders
    begin = {f"{name}/{file}" for name, files in rows.items() for file in re.findall(r"`([\w.]+)`", files)}
    assert not {name for name in begin if not (PACKAGE / name).is_file()}


def test_each_decision_has_one_short_form_and_one_long_one():
    """A merge of two documents brings paragraphs back easily."""
    numbers = {}
    for name in ("design.md", "decisions-archive.md"):
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        heads = re.findall(r"^\*\*((?:\d+, )*\d+)\.", text, re.MULTILINE)
        numbers[name] = [int(number) for head in heads for number in head.split(", ")]
        assert len(numbers[name]) == len(set(numbers[name])), name
    assert set(numbers["design.md"]) <= set(numbers["decisions-archive.md"])
    assert "Superseded by" not in (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def test_lines_of_the_documents_are_short():
    """But rows of tables, and code: what is copied and pasted is not broken."""
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        fenced = False
        for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
            fenced ^= line.startswith("```")
            if not fenced and not line.startswith(("|", "    ")):
                assert len(line) < 120, f"{document.name}, line {number}"
