"""Where the tick path is Python, one line says how to change that."""

import pytest

import feedhandler
from feedhandler.cli import compiled

AGAIN = "`pip install --force-reinstall --no-deps --no-cache-dir "


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        ({"url": "file:///home/a%20b/f", "dir_info": {"editable": True}}, "`make -C '/home/a b/f' run`"),
        ({"url": "file:///home/a%20b/f", "dir_info": {}}, f"{AGAIN}'/home/a b/f'`"),
        (
            {"url": "https://example.org/f.git", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            f"{AGAIN}'feedhandler @ git+https://example.org/f.git'`",
        ),
        ({"url": "file:///f-1.tar.gz", "archive_info": {}}, f"{AGAIN}/f-1.tar.gz`"),
        (
            {"url": "https://example.org/f-1.tar.gz", "archive_info": {}},
            f"{AGAIN}https://example.org/f-1.tar.gz`",
        ),
        ({"url": "file:///f-1-py3-none-any.whl", "archive_info": {}}, "its wheel is to be built again"),
        ({}, "its wheel is to be built again"),
    ],
)
def test_the_remedy_is_of_the_place_it_was_installed_from(origin, text):
    assert text in compiled.remedy(origin)


def test_nothing_is_said_where_it_is_compiled_or_python_was_asked_for(monkeypatch):
    monkeypatch.setattr(feedhandler, "IS_COMPILED", True)
    assert compiled.advice() == ""
    monkeypatch.setattr(feedhandler, "IS_COMPILED", False)
    monkeypatch.setattr(feedhandler, "IS_OLDER", False)
    monkeypatch.setenv(feedhandler.PURE_ENV, "1")
    assert compiled.advice() == ""
    monkeypatch.delenv(feedhandler.PURE_ENV)
    advice = compiled.advice()
    assert "is Python here" in advice
    assert "compile" in advice
    assert "\n" not in advice


def test_what_was_compiled_before_its_source_was_changed_is_not_taken(monkeypatch):
    monkeypatch.delenv(feedhandler.PURE_ENV, raising=False)
    monkeypatch.setattr(feedhandler, "IS_COMPILED", False)
    monkeypatch.setattr(feedhandler, "IS_OLDER", True)
    assert "before its source was changed" in compiled.advice()
