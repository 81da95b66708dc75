"""Where things are: paths of any spelling, disks without room, files that others remove, whom they belong to."""

import subprocess
import sys

from harness import Stack


def test_everything_runs_in_a_place_of_any_spelling(tmp_path):
    """The supervisor's configuration is a format string, where `%` begins an expansion."""
    place = tmp_path / "50% %d"
    place.mkdir()
    s = Stack(place, exchanges=("bybit",))
    # A socket's path has 107 bytes at most: theirs begins in the working directory.
    s.config.write_text(s.config.read_text().replace(f"{place}/", ""))
    for arguments in (("check",), ("run", "--seconds", "20")):
        done = subprocess.run(
            [sys.executable, "-m", "feedhandler", *arguments, "-c", "test.toml"],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "publishing at" in (place / "run/log/merger.log").read_text(), "whose name was not changed"


def test_a_place_that_the_supervisor_cannot_be_told_is_refused_by_check(stack):
    s = stack(exchanges=("bybit",))
    s.config.write_text(s.config.read_text().replace('run"\n', 'my #1 run"\n', 1))
    for command in ("check", "run"):
        done = s.run(command, "-c", str(s.config))
        assert (done.returncode, "use another path" in done.stderr) == (2, True), done.stderr
