"""Commands in messages, as they can be copied."""

import sys
from pathlib import Path

import pytest

from feedhandler.data import hints

OWN = Path(sys.executable).with_name("feedhandler")


@pytest.fixture(autouse=True)
def nothing_is_kept():
    hints.program.cache_clear()
    yield
    hints.use(None)
    hints.program.cache_clear()


@pytest.fixture
def on_the_path(monkeypatch):
    monkeypatch.setenv("PATH", str(OWN.parent))


def test_a_command_names_the_configuration_that_was_given(on_the_path):
    hints.use("my conf.toml")
    text = "gone: `feedhandler connect binance` ends that"
    assert hints.spelled(text) == "gone: `feedhandler connect binance -c 'my conf.toml'` ends that"
    hints.use(None)
    assert hints.spelled(text) == text


@pytest.mark.parametrize("command", ["demo", "init", "init x.toml", "keys make NAME", "check -c other.toml"])
def test_a_command_that_takes_no_configuration_or_has_one_is_left_alone(on_the_path, command):
    hints.use("my.toml")
    assert hints.spelled(f"`feedhandler {command}`") == f"`feedhandler {command}`"


def test_pip_is_that_of_this_environment():
    python = hints.short(Path(sys.executable))
    assert hints.spelled("`pip install 'x[y]'` does") == f"`{python} -m pip install 'x[y]'` does"


def test_all_commands_of_a_text_are_spelled_and_what_is_none_is_not(on_the_path):
    hints.use("my.toml")
    text = "feedhandler: `feedhandler status` or `feedhandler tail`, of `feedhandler`; `feedhandler.client`"
    assert hints.spelled(text) == (
        "feedhandler: `feedhandler status -c my.toml` or `feedhandler tail -c my.toml`,"
        " of `feedhandler`; `feedhandler.client`"
    )


def test_a_program_that_is_not_on_the_path_is_named_by_where_it_is(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(OWN.parent.parent.parent)
    assert hints.spelled("`feedhandler run`") == f"`{OWN.relative_to(Path.cwd())} run`"
    hints.program.cache_clear()
    monkeypatch.chdir("/")
    assert hints.program() == str(OWN).lstrip("/")


def test_another_installation_on_the_path_is_not_ours(monkeypatch, tmp_path):
    other = tmp_path / "feedhandler"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert hints.program() == str(OWN)


def test_without_a_program_of_its_own_the_interpreter_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    assert hints.program() == f"{tmp_path}/python3 -m feedhandler"
