"""The systemd unit and Prometheus' files, as far as they can be held against the rest without either."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from feedhandler.cli.main import parser

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "conf" / "feedhandler.service"
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze (Debian: systemd)")


def test_what_the_unit_starts_is_a_command_and_stays_in_the_foreground():
    (line,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    program, *arguments = line.split()
    assert program == "/opt/feedhandler/.venv/bin/feedhandler"
    parsed = parser().parse_args(arguments)
    assert (parsed.action, parsed.foreground, parsed.config) == ("start", True, "conf/live.toml")


@pytest.mark.e2e
@needs_systemd
def test_the_unit_is_one_and_takes_away_what_it_does_not_need(tmp_path):
    unit = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8").replace("/opt/feedhandler/.venv/bin/feedhandler", "/bin/true")
    unit.write_text(text, encoding="utf-8")
    verified = subprocess.run([ANALYZE, "verify", unit], capture_output=True, text=True, check=False)
    assert UNIT.name not in verified.stderr, verified.stderr
    rated = subprocess.run(
        [ANALYZE, "security", "--offline=true", unit], capture_output=True, text=True, check=False
    )
    if "Overall exposure level" not in rated.stdout:
        pytest.skip(f"this systemd does not rate files: {rated.stderr}")
    assert float(re.search(r"exposure level for \S+: (\S+)", rated.stdout)[1]) < 2.0


def test_prometheus_asks_under_the_name_that_alerts_know():
    alerts = (ROOT / "conf" / "alerts.yml").read_text(encoding="utf-8")
    document = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    used = set(re.findall(r'job="([^"]+)"', alerts))
    assert used
    assert used <= set(re.findall(r"job_name: (\S+)", document))
