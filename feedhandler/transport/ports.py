"""Are the addresses free, and the directory writable, that a configuration names?"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from feedhandler.config import Config
from feedhandler.errors import ConfigError
from feedhandler.transport import private
from feedhandler.transport.zmtp import is_ipc_in_use


def check(config: Config) -> None:
    """Try each address that our processes would bind. Raises ConfigError that names the key."""
    owners: dict[tuple[str, int], str] = {}
    for key, host, port in _tcp_addresses(config):
        owner = owners.setdefault(("127.0.0.1" if host == "localhost" else host, port), key)
        if owner != key and _table(owner) != _table(key):  # an exchange's ws_url and rest_url may share one
            raise ConfigError(f"{config.path}: {key}: port {port} is that of {owner}; configure another one")
        if reason := _refusal(host, port):
            raise ConfigError(
                f"{config.path}: {key}: port {port} on {host}: {reason}{_owner(config)};"
                " stop what holds it, or configure another one"
            )
    _check_run_dir(config)
    for key, endpoint in config.endpoints():
        if is_ipc_in_use(endpoint):
            raise ConfigError(
                f"{config.path}: {key}: {endpoint} is in use{_owner(config)};"
                " stop what holds it, or configure another one"
            )


def _check_run_dir(config: Config) -> None:
    """Ask the nearest directory that exists; creating the rest is for those who run."""
    directory = Path(config.run_dir).absolute()
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    if directory == Path(config.run_dir).absolute() and (reason := private.refusal(directory)):
        raise ConfigError(f"{config.path}: run_dir: {reason}")
    private.group_of(config.group, f"{config.path}: group")
    if not directory.is_dir() or not os.access(directory, os.W_OK) or directory.is_relative_to("/proc"):
        raise ConfigError(f"{config.path}: run_dir: cannot write to {directory}/; set another run_dir")


def _table(key: str) -> str:
    """Return the exchange's table that a key belongs to; other keys stand for themselves."""
    return key.rpartition(".")[0] if key.startswith("exchanges.") else key


def _tcp_addresses(config: Config) -> Iterator[tuple[str, str, int]]:
    for key, endpoint in config.endpoints():
        parts = urlsplit(endpoint)
        if parts.scheme == "tcp":
            yield key, parts.hostname or "", parts.port or 0
    if not config.is_merger_elsewhere:
        yield "gateway.http", *config.gateway.address
    if config.nats is not None and config.nats.metrics:
        yield "nats.metrics", *config.nats.metrics_address
    if config.sim is None:
        return
    for name, exchange in config.simulated().items():
        for key in ("ws_url", "rest_url"):
            parts = urlsplit(getattr(exchange, key))
            if parts.hostname:
                yield f"exchanges.{name}.{key}", parts.hostname, parts.port or 80


def _refusal(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)  # two sockets may bind with SO_REUSEADDR; only one may listen
        except OSError as exc:
            return exc.strerror or str(exc)
    return ""


def _owner(config: Config) -> str:
    """Say so if it is ourselves."""
    with contextlib.suppress(OSError):
        pid = (Path(config.run_dir) / "merger.lock").read_text(encoding="utf-8").strip()
        return f" (feedhandler runs here already, merger pid {pid})"
    return ""
