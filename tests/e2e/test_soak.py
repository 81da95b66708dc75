"""`make soak`, short: it comes to its verdict."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import PATIENCE_S

SOAK = Path(__file__).parent.parent / "soak"


@pytest.mark.e2e
def test_a_short_soak_finds_that_every_claim_holds(tmp_path):
    command = [sys.executable, str(SOAK), "--minutes", "0.1", "--rate", "200"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    run = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=3 * PATIENCE_S, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "every claim holds" in run.stdout
    assert "FAILS" not in run.stdout
    assert list(tmp_path.iterdir()) == [], "recordings are kept only for whoever has to look at them"
