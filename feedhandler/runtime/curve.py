"""What our processes make of the `[curve]` table. Secret keys stay in the process that needs them."""

from feedhandler.runtime.settings import Config
from feedhandler.transport.keys import Clients, KeyPair, load_pair, load_public


def server_keys(config: Config) -> tuple[KeyPair, Clients]:
    """Return the relay's own keys, and those that may connect to it. Raises ConfigError: key and file."""
    where = f"{config.path}: curve"
    return load_pair(config.curve.key, f"{where}.key"), Clients(config.curve.clients, f"{where}.clients")


def client_keys(config: Config) -> tuple[KeyPair, bytes]:
    """Return a feed's own keys, and the public one of the relay it connects to. Raises ConfigError."""
    where = f"{config.path}: curve"
    return load_pair(config.curve.key, f"{where}.key"), load_public(config.curve.server, f"{where}.server")


def check(config: Config) -> None:
    """Look at each key file that the configuration names. Raises ConfigError."""
    where = f"{config.path}: curve"
    if config.curve.key:
        load_pair(config.curve.key, f"{where}.key")
    if config.curve.clients:
        Clients(config.curve.clients, f"{where}.clients")
    if config.curve.server:
        load_public(config.curve.server, f"{where}.server")
