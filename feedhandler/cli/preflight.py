"""What a configuration needs of this machine: is it there? Asked before anything is started.

The processes would find out by themselves, each for itself, and again and again.
"""

import importlib.util
from collections.abc import Callable, Iterator

from feedhandler.cli import ports
from feedhandler.data.errors import ConfigError
from feedhandler.runtime import curve
from feedhandler.runtime.lifecycle import check_cpus
from feedhandler.runtime.settings import Config


def check(config: Config, note: Callable[[str], None] | None = None) -> None:
    """Look at files, processors and addresses; note is as `ports.check` has it. Raises ConfigError."""
    curve.check(config)
    if config.sim is not None:
        from feedhandler.sim import process

        process.check(config)
    for key, cpus in _cpus(config):
        check_cpus(cpus, f"{config.path}: {key}.cpus")
    if config.nats is not None:
        require_nats()
        from feedhandler.bridge import login

        login.check_files(config.nats, f"{config.path}: nats")
    if config.recorder is not None:
        ports.check_writable(config.recorder.directory, f"{config.path}: recorder.directory", "directory")
    ports.check(config, note)


def require_nats() -> None:
    """Raise ConfigError if the bridge's library is not installed."""
    if importlib.util.find_spec("nats") is None:
        raise ConfigError(
            "the bridge needs the package nats-py: `pip install 'feedhandler[nats]'` installs it"
        )


def _cpus(config: Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, exchange in config.exchanges.items():
        yield f"exchanges.{name}", exchange.cpus
    for key in ("merger", "relay", "gateway", "nats", "recorder"):
        if (table := getattr(config, key)) is not None:
            yield key, table.cpus
