"""What the log of a process says last."""

import pytest

from feedhandler.cli.logs import last_line


@pytest.mark.parametrize(
    ("log", "text"),
    [
        ('{"message": "ends: no room", "pid": 5}\n{"message": "publishing", "pid": 6}\n', "ends: no room"),
        ('{"message": "ends: no room", "pid": 6}\n', ""),
        ('{"message": "a", "pid": 5}\nKilled by hand\n\n', "Killed by hand"),
        ("", ""),
    ],
)
def test_the_end_of_a_log_is_of_the_one_that_ended_not_of_its_successor(tmp_path, log, text):
    (tmp_path / "merger.log").write_text(log)
    assert last_line(tmp_path / "merger.log", successor=6) == text
    assert last_line(tmp_path / "none.log") == ""
