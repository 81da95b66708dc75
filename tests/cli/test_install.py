"""What make does about a C compiler, with a Python that only notes what it is asked to install."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PYTHON = """\
#!/bin/sh
case "$*" in
*"pip install"*) echo installed >> installed; if ./compiler.sh "$0" && [ ! -e broken ]; then touch compiled; fi ;;
*feedhandler.IS_COMPILED*) test -e compiled ;;
*) exec {python} "$@" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    for name in ("Makefile", "compiler.sh", "python.sh", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "feedhandler").mkdir()
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name, text in (("python", PYTHON.format(python=sys.executable)), ("feedhandler", "#!/bin/sh\n")):
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\nexit 0\n")
    compiler.chmod(0o755)
    return tmp_path


def make(checkout, compiler):
    environment = {**os.environ, "CC": compiler, "MAKEFLAGS": ""}
    result = subprocess.run(
        ["make", "--no-print-directory", "demo"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def installations(checkout):
    return (checkout / "installed").read_text().count("installed")


@pytest.mark.e2e
def test_a_compiler_that_comes_later_is_used_by_the_next_make(checkout):
    first = make(checkout, "/none")
    assert "about a minute" in first
    assert "the tick path is Python" in first
    assert "apt install gcc python3-dev" in first
    assert make(checkout, "/none") == "", "nothing is installed twice"
    later = make(checkout, "./compiler")
    assert "about a minute" in later
    assert "Python" not in later
    assert installations(checkout) == 2
    assert make(checkout, "./compiler") == ""


@pytest.mark.e2e
def test_with_a_compiler_nothing_is_said_of_it(checkout):
    assert "Python" not in make(checkout, "./compiler")
    assert make(checkout, "/none") == ""


@pytest.mark.e2e
def test_what_cannot_be_compiled_is_not_tried_again_and_again(checkout):
    (checkout / "broken").touch()
    assert "tells why" in make(checkout, "./compiler")
    assert make(checkout, "./compiler") == ""
    assert installations(checkout) == 1


@pytest.mark.e2e
def test_a_python_that_is_none_cannot_compile(checkout):
    assert subprocess.run(["./compiler.sh", "/none"], cwd=checkout, check=False).returncode != 0
