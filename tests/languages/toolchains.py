"""Compilers and interpreters of other languages: found, or the test is skipped and says what it needs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LANGUAGES = ROOT / "languages"
BUILD_TIMEOUT_S = 300


def tool(*names, package):
    """Return the path of the first program of these that there is; skips the test otherwise."""
    for name in names:
        if found := shutil.which(name):
            return found
    return pytest.skip(f"needs {' or '.join(names)} (Debian: {package})")


def run(*command, **settings):
    """Run a command to its end; its output is shown if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=BUILD_TIMEOUT_S,
        check=False,
        **settings,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")
    return done.stdout


def compile_c(source, binary, *arguments):
    cc = tool("cc", "gcc", "clang", package="gcc")
    run(cc, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-o", binary, source, *arguments)


def go_build(folder, binary, *, cgo):
    go = tool("go", package="golang-go")
    # Nothing is fetched: what is imported is the standard library and the package beside.
    environment = os.environ | {"GOPROXY": "off", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "1" if cgo else "0"}
    run(go, "build", "-o", binary, ".", cwd=folder, env=environment)
