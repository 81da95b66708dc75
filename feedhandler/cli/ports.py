"""Are the addresses free, and the directory writable, that a configuration names?

Which process has an address that is not free, the kernel shows as far as we may see; else the locks in `run_dir`
do.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from feedhandler.data.errors import ConfigError
from feedhandler.data.processes import BRIDGE, GATEWAY, MERGER, RELAY, SIM
from feedhandler.runtime.settings import Config
from feedhandler.transport import private
from feedhandler.transport.endpoints import listener_of
from feedhandler.transport.files import feed_name, lock_owner, running_feeds

LISTENS: Final = "0A"  # TCP_LISTEN, as /proc/net/tcp has it
PROCESSES: Final = {"merger": MERGER, "relay": RELAY, "gateway": GATEWAY, "nats": BRIDGE}  # by table


def check(config: Config, note: Callable[[str], None] | None = None) -> None:
    """Try each address that our processes would bind. Raises ConfigError that names the key.

    With note, an address that the process itself holds which is to bind it is no error: it runs, and note is
    called.
    """
    owners: dict[tuple[str, int], str] = {}
    noted: dict[str, int] = {}
    for key, host, port in _tcp_addresses(config):
        owner = owners.setdefault(("127.0.0.1" if host == "localhost" else host, port), key)
        if owner != key and _table(owner) != _table(key):  # an exchange's ws_url and rest_url may share one
            raise ConfigError(f"{config.path}: {key}: port {port} is that of {owner}; configure another one")
        if reason := _refusal(host, port):
            holders = _running(config, key) if note else {}
            if name := next((name for name, pid in holders.items() if _may_listen(pid, port)), ""):
                noted[name] = holders[name]
                continue
            raise ConfigError(
                f"{config.path}: {key}: port {port} on {host}: {reason}{_owner(config)};"
                " stop what holds it, or configure another one"
            )
    _check_run_dir(config)
    for key, endpoint in config.endpoints():
        if (pid := listener_of(endpoint)) is not None:
            holders = _running(config, key) if note else {}
            if name := next((name for name, own in holders.items() if own == pid), ""):
                noted[name] = pid
                continue
            raise ConfigError(
                f"{config.path}: {key}: {endpoint} is in use{_owner(config)};"
                " stop what holds it, or configure another one"
            )
    if note is not None:
        for name, pid in noted.items():
            note(f"{name} runs already in {config.run_dir}/ (pid {pid}), and has its addresses")


def _check_run_dir(config: Config) -> None:
    """Ask who may write there, and whether we may."""
    directory = Path(config.run_dir).absolute()
    if directory.exists() and (reason := private.refusal(directory)):
        raise ConfigError(f"{config.path}: run_dir: {reason}")
    private.group_of(config.group, f"{config.path}: group")
    check_writable(config.run_dir, f"{config.path}: run_dir", "run_dir")


def check_writable(path: str, where: str, what: str) -> None:
    """Raise ConfigError if a directory cannot be written to, or made; where and what are for the message.

    The nearest that exists is asked; creating the rest is for those who run.
    """
    directory = Path(path).absolute()
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    if not directory.is_dir() or not os.access(directory, os.W_OK) or directory.is_relative_to("/proc"):
        raise ConfigError(f"{where}: cannot write to {directory}/; set another {what}")


def _table(key: str) -> str:
    """Return the exchange's table that a key belongs to; other keys stand for themselves."""
    return key.rpartition(".")[0] if key.startswith("exchanges.") else key


def _running(config: Config, key: str) -> dict[str, int]:
    """Return the processes of this `run_dir` that run, and bind the address of a key: names and pids."""
    table, *_, last = key.split(".")
    if last in ("direct", "raw"):
        exchange = key.split(".")[1]
        feeds = running_feeds(config.run_dir, exchange)
        return {feed_name(exchange, shard): pid for shard, pid in feeds.items()}
    name = PROCESSES.get(table, SIM)  # who plays the exchange whose address it is
    pid = lock_owner(config.run_dir, name)
    return {name: pid} if pid else {}


def _may_listen(pid: int, port: int) -> bool:
    """Return whether a process listens at a TCP port. True if that cannot be seen: some keep their secrets so."""
    sockets = {
        f"socket:[{fields[9]}]"
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:])
        if fields[3] == LISTENS and int(fields[1].rpartition(":")[2], 16) == port
    }
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return True
    for link in links:
        with contextlib.suppress(OSError):  # closed meanwhile
            if str(link.readlink()) in sockets:
                return True
    return False


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
