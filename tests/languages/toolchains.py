"""Compilers and interpreters of other languages: found, or the test is skipped and says what it needs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LANGUAGES = ROOT / "languages"
BUILD_TIMEOUT_S = 300
DEBIAN_CRATES = Path("/usr/share/cargo/registry")


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


def needs_libzmq():
    """Skip the test where libzmq's header is not installed."""
    pkg_config = tool("pkg-config", package="pkg-config")
    if subprocess.run([pkg_config, "--exists", "libzmq"], check=False).returncode:
        pytest.skip("needs libzmq (Debian: libzmq3-dev)")


def example_c(folder):
    needs_libzmq()
    source = LANGUAGES / "examples" / "c" / "subscribe.c"
    compile_c(source, folder / "subscribe", f"-I{LANGUAGES / 'c'}", "-lzmq")
    return [folder / "subscribe"]


def book_c(folder):
    needs_libzmq()
    compile_c(
        LANGUAGES / "examples" / "c" / "book.c", folder / "book", f"-I{LANGUAGES / 'c'}", "-lzmq", "-lm"
    )
    return [folder / "book"]


def example_go(folder):
    needs_libzmq()
    tool("cc", "gcc", "clang", package="gcc")
    go_build(LANGUAGES / "examples" / "go", folder / "subscribe", cgo=True)
    return [folder / "subscribe"]


def example_rust(folder):
    needs_libzmq()
    cargo = tool("cargo", package="cargo")
    if not list(DEBIAN_CRATES.glob("zmq-[0-9]*")):
        pytest.skip("needs the zmq crate (Debian: librust-zmq-dev)")
    # A copy: cargo writes beside its manifest.
    shutil.copytree(LANGUAGES, folder / "languages", ignore=shutil.ignore_patterns("node_modules"))
    source = folder / "languages" / "examples" / "rust"
    config = ('source.crates-io.replace-with="debian"', f'source.debian.directory="{DEBIAN_CRATES}"')
    run(
        cargo,
        *("build", "--quiet", "--offline", "--target-dir", folder / "target"),
        *(word for line in config for word in ("--config", line)),
        cwd=source,
    )
    return [folder / "target" / "debug" / "subscribe"]


def example_node(folder, name="subscribe.mjs"):
    node = tool("node", "nodejs", package="nodejs")
    source = LANGUAGES / "examples" / "node"
    if not (source / "node_modules" / "zeromq").is_dir():
        pytest.skip("needs the zeromq package (npm install in languages/examples/node)")
    return [node, source / name]


def book_node(folder):
    return example_node(folder, "book.mjs")


BOOKS = {"c": book_c, "node": book_node}
EXAMPLES = {"c": example_c, "go": example_go, "rust": example_rust, "node": example_node}
