"""How the bridge logs in to NATS: secrets, credentials and certificates, checked before a connection is tried.

Loads no NATS library: commands that check a configuration use this.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path

from feedhandler.data.errors import ConfigError
from feedhandler.runtime.settings import NATS_ENV, NatsConfig


def check_secrets(config: NatsConfig, secrets: Mapping[str, str], where: str) -> None:
    """Raises ConfigError for secrets that do not go together, or that would be sent in the clear."""
    user, password, token = NATS_ENV
    if (user in secrets) != (password in secrets):
        raise ConfigError(f"{user} and {password} go together: set both, or neither")
    if token in secrets and user in secrets:
        raise ConfigError(f"{token} and {user} are two ways to log in: set one of them")
    if secrets and config.credentials:
        raise ConfigError(f"{where}.credentials: is set, and so is {next(iter(secrets))}: use one of them")
    if secrets and (clear := config.clear_servers()):
        raise ConfigError(
            f"{where}.servers: {clear[0]} would get {next(iter(secrets))} in the clear; use tls://, or a"
            " credentials file, whose secret is never sent"
        )


def tls_context(config: NatsConfig, where: str) -> ssl.SSLContext | None:
    """Return what servers are checked with, None without TLS. Raises ConfigError if tls_ca cannot be used."""
    if not config.uses_tls:
        return None
    try:
        return ssl.create_default_context(cafile=config.tls_ca or None)
    except OSError as exc:
        raise ConfigError(f"{where}.tls_ca: {config.tls_ca} cannot be read as certificates: {exc}") from exc


def check_files(config: NatsConfig, where: str) -> None:
    """Raises ConfigError if a file that is named cannot be used."""
    check_credentials(config, where)
    tls_context(config, where)


def check_credentials(config: NatsConfig, where: str) -> None:
    """Raises ConfigError if the credentials file is not one."""
    if not config.credentials:
        return
    try:
        text = Path(config.credentials).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{where}.credentials: {config.credentials} cannot be read: {exc}") from exc
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise ConfigError(
            f"{where}.credentials: {config.credentials} is no credentials file as `nsc` writes it"
        )
    try:
        import nkeys  # noqa: F401
    except ImportError as exc:
        raise ConfigError(
            f"{where}.credentials: needs the package nkeys: `pip install 'feedhandler[nats]'` installs it"
        ) from exc
