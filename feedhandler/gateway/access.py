"""Who may do what: the token, the names under which the gateway is reached, the pages that may talk to it.

A browser on this machine runs pages of anybody's, and they can send requests to loopback. So a request has to name
us as its `Host` (a page that rebinds its own name to our address cannot), one that comes from a page has to come
from ours (`Origin`), and every change has to carry a token, which no other page knows.
"""

import hmac
import logging
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from feedhandler.data.errors import ConfigError
from feedhandler.runtime.settings import API_TOKEN_ENV, Config, GatewayConfig
from feedhandler.transport import private

log = logging.getLogger(__name__)

TOKEN_SIZE_MIN: Final = 16
TOKEN_SIZE_MAX: Final = 512
TOKEN_BITS: Final = 256
SCHEME: Final = "bearer "


class Access:
    """Decides about requests by their headers. is_open: reads need no token: all come from this machine."""

    def __init__(self, gateway: GatewayConfig, token: str) -> None:
        self.is_open = gateway.is_local
        self._token = token.encode()
        host, self._port = gateway.address
        self._hosts = {host, *gateway.hosts}
        if gateway.is_local:
            self._hosts |= {"127.0.0.1", "localhost", "::1"}

    def is_token(self, token: str) -> bool:
        """Return whether this is the token, in a time that does not depend on how much of it is."""
        return hmac.compare_digest(token.encode(errors="replace"), self._token)

    def is_authorized(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request carries the token."""
        value = headers.get("Authorization", "")
        return value[: len(SCHEME)].lower() == SCHEME and self.is_token(value[len(SCHEME) :].strip())

    def is_our_host(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request means us."""
        return self._is_ours(f"//{headers.get('Host', '')}")

    def is_our_origin(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request comes from a page of ours, or from no page at all."""
        origin = headers.get("Origin")
        return origin is None or (origin.startswith(("http://", "https://")) and self._is_ours(origin))

    def _is_ours(self, url: str) -> bool:
        """A proxy before us may have another port; what matters is that others cannot take the name."""
        try:
            return urlsplit(url).hostname in self._hosts
        except ValueError:
            return False


def token_path(run_dir: str) -> Path:
    """Return the file that has the token, unless the environment has it."""
    return Path(run_dir) / private.TOKEN


def token_of(config: Config, environ: Mapping[str, str]) -> str:
    """Return the token of the environment, else that of the file, which is made if need be.

    Raises ConfigError for one that anybody could guess, and where others can reach us and none was set.
    """
    if token := environ.get(API_TOKEN_ENV, ""):
        if (
            not TOKEN_SIZE_MIN <= len(token) <= TOKEN_SIZE_MAX
            or not token.isascii()
            or not token.isprintable()
        ):
            raise ConfigError(
                f"{API_TOKEN_ENV}: must have {TOKEN_SIZE_MIN} to {TOKEN_SIZE_MAX} printable ASCII characters;"
                " `openssl rand -hex 32` makes one"
            )
        return token
    if not config.gateway.is_local:
        raise ConfigError(
            f"{config.path}: gateway.http: {config.gateway.http} can be reached by others, and {API_TOKEN_ENV}"
            " is not set; set it, or use 127.0.0.1"
        )
    token, reason = _token_in(token_path(config.run_dir))
    if reason:
        log.warning("%s: %s; another token is made, and takes its place", token_path(config.run_dir), reason)
    return token or _make_token(config.run_dir)


def read_token(run_dir: str) -> str | None:
    """Return the token of the file; None if there is none, or others may have read it."""
    return _token_in(token_path(run_dir))[0] or None


def _token_in(path: Path) -> tuple[str, str]:
    """Return the token of a file, or why it is not to be used; neither if there is no such file."""
    try:
        fd = private.open_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return "", ""
    except OSError as exc:
        return "", f"cannot be read ({exc.strerror})"
    with os.fdopen(fd, encoding="ascii", errors="replace") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return "", "is no plain file"
        if status.st_mode & 0o077 or status.st_uid != os.geteuid():
            return (
                "",
                f"is not this user's alone (mode {stat.S_IMODE(status.st_mode):04o}): others may know it",
            )
        token = file.read(TOKEN_SIZE_MAX + 1).strip()
    if not TOKEN_SIZE_MIN <= len(token) <= TOKEN_SIZE_MAX or not token.isprintable():
        return "", f"holds no token of {TOKEN_SIZE_MIN} to {TOKEN_SIZE_MAX} printable characters"
    return token, ""


def _make_token(run_dir: str) -> str:
    token = secrets.token_hex(TOKEN_BITS // 8)
    path = token_path(run_dir)
    try:
        private.make_folder(path.parent)
        private.write_whole(path, f"{token}\n".encode())
    except OSError as exc:
        raise ConfigError(
            f"{path}: cannot be written: {exc.strerror}; set {API_TOKEN_ENV}, or another run_dir"
        ) from exc
    return token
