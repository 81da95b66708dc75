"""The programs that the documents show, whole and against the real thing."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from harness import wait_until
from toolchains import EXAMPLES, LANGUAGES

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "languages.md"
SOURCES = {
    "c": "c/subscribe.c",
    "go": "go/main.go",
    "rust": "rust/src/main.rs",
    "js": "node/subscribe.mjs",
}


@pytest.mark.parametrize("language", SOURCES)
def test_what_the_document_shows_is_part_of_an_example_that_is_run(language):
    shown = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert shown
    source = (LANGUAGES / "examples" / SOURCES[language]).read_text(encoding="utf-8")
    for part in shown:
        assert part in source


@pytest.mark.parametrize("language", EXAMPLES)
def test_an_example_prints_the_stream(language, stack, tmp_path):
    s = stack(exchanges=("binance",))
    command = EXAMPLES[language](tmp_path)
    s.start()
    s.wait_live()
    with subprocess.Popen([*map(str, command), s.endpoint], stdout=subprocess.PIPE, bufsize=0) as process:
        os.set_blocking(process.stdout.fileno(), False)
        output = bytearray()

        def has_enough():
            output.extend(process.stdout.read(65536) or b"")
            return output.count(b"\n") >= 50

        try:
            wait_until(has_enough, "50 lines")
        finally:
            process.kill()
    complete = output[: output.rindex(b"\n")].decode().splitlines()
    number = r"\d+(\.\d+)?(e-?\d+)?"
    for text in complete:
        assert re.fullmatch(
            rf"ticker\.binance\.[A-Z]+/USDT #\d+ last {number} bid {number} ask {number}( NOT LIVE)?", text
        ), text
    assert any(text.startswith("ticker.binance.BTC/USDT #") for text in complete)
