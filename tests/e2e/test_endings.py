"""Every process ends when it is told to, whatever it waits for, and says with what status."""

import signal
import socket

import pytest
from harness import PATIENCE_S, wait_until

from feedhandler.data.errors import EXIT_GAVE_UP, EXIT_OK


@pytest.fixture
def silent_rest(stack):
    """A stack of which REST accepts and never answers, and the socket that does so."""
    made = stack(exchanges=("binance",), sim_table=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def configure(max_attempts):
            text = made.config.read_text(encoding="utf-8")
            text = text.replace(f"http://127.0.0.1:{made.ports['binance']}", f"http://127.0.0.1:{port}")
            text = text.replace("max_attempts = 0", f"max_attempts = {max_attempts}")
            made.config.write_text(text, encoding="utf-8")
            return made

        configure.server = server
        yield configure


def test_a_feed_whose_first_question_is_never_answered_ends_when_it_is_told_to(silent_rest):
    stack = silent_rest(max_attempts=0)
    stack.start("binance")
    silent_rest.server.settimeout(PATIENCE_S)
    accepted, _ = silent_rest.server.accept()
    with accepted:
        assert stack.kill("binance", signal.SIGTERM) == EXIT_OK
    assert "left behind" not in stack.log("binance")
    assert "not ended within" not in stack.log("binance")


def test_a_gateway_whose_accounts_are_never_answered_ends_when_it_is_told_to(silent_rest, monkeypatch):
    monkeypatch.setenv("BINANCE_API_KEY", "k" * 64)
    monkeypatch.setenv("BINANCE_API_SECRET", "s" * 64)
    stack = silent_rest(max_attempts=0)
    stack.start("gateway")
    silent_rest.server.settimeout(PATIENCE_S)
    accepted, _ = silent_rest.server.accept()
    with accepted:
        assert stack.kill("gateway", signal.SIGTERM) == EXIT_OK
    assert "not ended within" not in stack.log("gateway")


def test_a_bridge_whose_server_says_nothing_ends_when_it_is_told_to(stack):
    pytest.importorskip("nats")
    made = stack(exchanges=("binance",), sim_table=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with made.config.open("a", encoding="utf-8") as file:
            file.write(f'[nats]\nservers = ["nats://127.0.0.1:{server.getsockname()[1]}"]\n')
        made.processes["bridge"] = made.popen("bridge", "nats", "-c", str(made.config), log="bridge")
        server.settimeout(PATIENCE_S)
        accepted, _ = server.accept()
        with accepted:
            assert made.kill("bridge", signal.SIGTERM) == EXIT_OK
    assert "not ended within" not in made.log("bridge")


def test_a_feed_whose_only_attempt_is_never_answered_gives_up(silent_rest):
    """Its questions for the list and for the time are over in the same turn of the loop."""
    stack = silent_rest(max_attempts=1)
    stack.start("binance")
    feed = stack.processes["binance"]
    wait_until(lambda: feed.poll() is not None, "the end of the feed")
    assert feed.returncode == EXIT_GAVE_UP
    assert "not ended within" not in stack.log("binance")
