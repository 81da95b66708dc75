"""The hot path's modules in both forms: which of them is imported, and when."""

import importlib.machinery
import os
import subprocess
import sys
from pathlib import Path

import pytest

import feedhandler

SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]
SHOW = "import feedhandler, feedhandler.feed.batch as b; print(feedhandler.IS_COMPILED, b.__file__)"


@pytest.fixture
def tree(tmp_path):
    """A source tree with one module that was compiled."""
    package = tmp_path / "package"
    for name in ("setup.py", "package/room/x.py", "package/room/x.pxd", f"package/room/x{SUFFIX}"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, ns=(1, 1))
    return package


@pytest.mark.e2e
def test_the_python_form_is_taken_where_it_was_asked_for():
    environment = {**os.environ, feedhandler.PURE_ENV: "1"}
    shown = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True)
    assert shown.stdout.split()[0] == "False", shown
    assert shown.stdout.split()[1].endswith("batch.py")


@pytest.mark.e2e
@pytest.mark.skipif(not feedhandler.IS_COMPILED, reason="not built, or FEEDHANDLER_PURE")
def test_else_the_compiled_form_is():
    shown = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True)
    assert shown.stdout.split()[0] == "True", shown
    assert shown.stdout.split()[1].endswith(SUFFIX)


def test_what_was_compiled_is_not_taken_once_its_source_was_changed(tree):
    assert not feedhandler.is_older(tree)
    for name in ("x.py", "x.pxd"):
        os.utime(tree / "room" / name, ns=(2, 2))
        assert feedhandler.is_older(tree), name
        os.utime(tree / "room" / name, ns=(1, 1))
    other = tree / "room" / "y.pxd"  # whose types any of them may have taken
    other.touch()
    assert feedhandler.is_older(tree)


def test_the_times_of_an_installed_package_say_nothing(tree):
    os.utime(tree / "room" / "x.py", ns=(2, 2))
    (tree.parent / "setup.py").unlink()
    assert not feedhandler.is_older(tree)


def test_every_module_of_the_hot_path_is_compiled_or_none_is():
    """They take each other's types: a mixture would not even be imported."""
    package = Path(feedhandler.__file__).parent
    namespace = {}
    text = (package.parent / "setup.py").read_text(encoding="utf-8")
    exec(text[text.index("COMPILED") : text.index("DIRECTIVES")].replace(": Final", ""), namespace)
    wanted = {Path(name).with_suffix("").name for name in namespace["COMPILED"]}
    made = {path.name.partition(".")[0] for path in feedhandler.extensions(package)}
    assert made in (wanted, set())
