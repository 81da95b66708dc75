"""Who asks the bridge for metrics, and says nothing."""

import socket

import pytest
from patience import PATIENCE_S

from feedhandler.bridge import process
from feedhandler.runtime import config


@pytest.mark.parametrize("said", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: a\r\n"])
def test_who_says_nothing_or_half_a_request_is_closed_without_a_word(monkeypatch, capfd, said):
    monkeypatch.setattr(process, "REQUEST_S", 0.2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = config.parse(f'[exchanges.bybit]\n[nats]\nmetrics = "127.0.0.1:{port}"\n', "x.toml")
    process._listen(settings, settings.nats, None)
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as peer:
        peer.sendall(said)
        assert peer.recv(1000) == b""
    assert capfd.readouterr().err == ""
