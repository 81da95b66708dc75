"""What our processes make of the `[curve]` table. Secret keys stay in the process that needs them."""

from feedhandler.runtime.config import Config
from feedhandler.transport.keys import Clients, load_pair, load_public
from feedhandler.transport.secure import ClientSecurity, ServerSecurity


def server_security(config: Config) -> ServerSecurity:
    """Return what our endpoints for other hosts have. Raises ConfigError that names the key and the file."""
    where = f"{config.path}: curve"
    return ServerSecurity(
        load_pair(config.curve.key, f"{where}.key"), Clients(config.curve.clients, f"{where}.clients")
    )


def client_security(config: Config) -> ClientSecurity | None:
    """Return what our feeds connect with; None if their merger is on this host. Raises ConfigError."""
    if not config.is_merger_elsewhere:
        return None
    where = f"{config.path}: curve"
    return ClientSecurity(
        load_pair(config.curve.key, f"{where}.key"), load_public(config.curve.server, f"{where}.server")
    )


def check(config: Config) -> None:
    """Look at each key file that the configuration names. Raises ConfigError."""
    where = f"{config.path}: curve"
    if config.curve.key:
        load_pair(config.curve.key, f"{where}.key")
    if config.curve.clients:
        Clients(config.curve.clients, f"{where}.clients")
    if config.curve.server:
        load_public(config.curve.server, f"{where}.server")
