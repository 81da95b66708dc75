"""The programs in docs/wire.md, run as they stand there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "wire.md"


def program(language):
    return re.search(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL).group(1)


def has_libzmq():
    return (
        shutil.which("pkg-config")
        and not subprocess.run(["pkg-config", "--exists", "libzmq"], check=False).returncode
    )


@pytest.mark.skipif(
    not shutil.which("cc") or not has_libzmq(), reason="needs a C compiler and libzmq (libzmq3-dev)"
)
def test_the_c_program_compiles_without_a_warning_and_prints_the_stream(stack):
    s = stack(exchanges=("binance",))
    source, binary = s.directory / "tail.c", s.directory / "tail"
    source.write_text(program("c").replace("tcp://127.0.0.1:5555", s.endpoint), encoding="utf-8")
    subprocess.run(
        ["cc", "-Wall", "-Wextra", "-Werror", "-o", binary, source, "-lzmq"], check=True, timeout=60
    )
    s.start()
    s.wait_live()
    with subprocess.Popen([binary], stdout=subprocess.PIPE, bufsize=0) as process:
        output = b""
        while output.count(b"\n") < 20:
            output += process.stdout.read(1)
        process.kill()
    assert re.search(
        rb"^ticker\.binance\.BTC/USDT last [0-9.]+ bid [0-9.]+ ask [0-9.]+$", output, re.MULTILINE
    )
