"""The README's five commands: record, verify, export, read and play again, typed one after the other."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from test_walk import ROOT, Island, environment_of

SECTION = re.compile(r"\*\*On disk, and back\*\*.*?\n\n((?:    [^\n]+\n)+)", re.DOTALL)
MINUTE, MOMENT = "make demo RECORD=1 SECONDS=60", "feedhandler demo --record --seconds 3"


@pytest.mark.e2e
def test_the_five_commands_of_the_readme_follow_each_other(tmp_path):
    for package in ("pyarrow", "polars"):
        pytest.importorskip(package)
    (section,) = SECTION.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    lines = [re.sub(r"\s+#\s.*$", "", line.strip()) for line in section.splitlines()]
    assert len(lines) == 5
    assert lines[0] == MINUTE, "which make makes of it"
    assert "$(if $(RECORD),--record)" in (ROOT / "Makefile").read_text(encoding="utf-8")
    bin_folder = Path(sys.executable).parent
    island = Island(tmp_path, environment_of(tmp_path, tmp_path, bin_folder))
    try:
        island.walk(f"{bin_folder}/{MOMENT}")
        typed = [line.replace(".venv/bin/", f"{shlex.quote(str(bin_folder))}/") for line in lines[1:]]
        verified, exported, read, replayed = map(island.walk, typed)
    finally:
        island.close()
    for exchange in ("binance", "kucoin", "bybit"):
        assert f"{exchange}: complete" in verified
    assert "missing:" not in verified
    assert "records" in exported
    assert "BTC/USDT" in read
    assert int(re.search(r"(\d+) records", replayed)[1]) > 100
