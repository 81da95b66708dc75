"""Keys for CURVE, in files of ZeroMQ's own certificate format: other people's tools read and write them too.

NAME.key has the public half and may be given away; NAME.key_secret has both, and is for its owner alone. Who may
connect is a directory of public halves. Errors name files, never keys.
"""

import binascii
import contextlib
import logging
import os
import re
import struct
import time
from pathlib import Path
from typing import Final

import zmq.auth
from zmq.utils import z85

from feedhandler.data.errors import ConfigError
from feedhandler.transport import private

log = logging.getLogger(__name__)

KEY_SIZE: Final = 32
PUBLIC_SUFFIX: Final = ".key"
SECRET_SUFFIX: Final = ".key_secret"
LOOK_EVERY_S: Final = 1.0
CLIENTS_MAX: Final = 10_000
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
REMEDY: Final = "`feedhandler keys make NAME` makes one"


class KeyPair:
    """A CURVE key pair; its secret half is neither shown nor pickled."""

    __slots__ = ("public", "secret")

    def __init__(self, public: bytes, secret: bytes) -> None:
        self.public = public
        self.secret = secret

    def __repr__(self) -> str:
        return "KeyPair(…)"

    def __reduce__(self) -> str:
        raise TypeError("keys stay in memory")


def make(directory: Path, name: str) -> tuple[Path, Path]:
    """Make a key pair; returns the public and the secret file. Raises ConfigError rather than overwrite one."""
    check_name(name)
    files = directory / f"{name}{PUBLIC_SUFFIX}", directory / f"{name}{SECRET_SUFFIX}"
    for file in files:
        if file.exists():
            raise ConfigError(f"{file}: exists already; choose another name, or remove it first")
    before = os.umask(0o077)  # the secret half is for its owner alone from its first byte on
    try:
        directory.mkdir(parents=True, exist_ok=True)
        zmq.auth.create_certificates(directory, name)
    except OSError as exc:
        raise ConfigError(f"{directory}: no key can be made there: {exc.strerror}") from exc
    finally:
        os.umask(before)
    files[0].chmod(0o644)
    return files


def check_name(name: str) -> None:
    """Raise ConfigError for what is no name of a key."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name for a key; use letters, digits, '-', '_' and '.', as in desk-3"
        )


def load_pair(path: str, where: str) -> KeyPair:
    """Return the keys in a secret file. Raises ConfigError; where is the key of the configuration."""
    public, secret = _load(path, where)
    if secret is None:
        raise ConfigError(f"{where}: {path} has only a public key; name the file {SECRET_SUFFIX!r} beside it")
    if Path(path).stat().st_mode & 0o077:
        log.warning("%s: %s is readable by others; `chmod 600` keeps it to its owner", where, path)
    return KeyPair(public, secret)


def load_public(path: str, where: str) -> bytes:
    """Return the key in a public file. Raises ConfigError, for a secret one as well: it is to stay at home."""
    public, secret = _load(path, where)
    if secret is not None:
        raise ConfigError(
            f"{where}: {path} has a secret key, which belongs on the host of its owner alone;"
            f" use the file {PUBLIC_SUFFIX!r} beside it"
        )
    return public


def _load(path: str, where: str) -> tuple[bytes, bytes | None]:
    if not Path(path).exists():
        raise ConfigError(f"{where}: {path}: no such file; {REMEDY}")
    try:
        public, secret = zmq.auth.load_certificate(path)
        keys = [z85.decode(key) for key in (public, secret) if key is not None]
    except OSError as exc:
        raise ConfigError(f"{where}: {path} cannot be read: {exc.strerror}") from exc
    except (ValueError, KeyError, IndexError, binascii.Error, struct.error):
        keys = [b""]
    if any(len(key) != KEY_SIZE for key in keys):
        raise ConfigError(f"{where}: {path} is no key file; {REMEDY}")
    return keys[0], keys[1] if len(keys) > 1 else None


class Clients:
    """A directory of public keys: who may connect. It is looked at again when it has changed.

    One that is not there, or not yet, is an empty one: the first `authorize` makes it. withdrawn counts how often
    somebody was no longer among them.
    """

    def __init__(self, directory: str, where: str) -> None:
        """Raises ConfigError for something else than a directory."""
        self._directory = Path(directory)
        if self._directory.exists() and not self._directory.is_dir():
            raise ConfigError(f"{where}: {directory} is no directory; name one for public keys")
        if not self._directory.exists():
            log.info("%s: is not there yet, so nobody may connect", directory)
        self._stamps: dict[str, tuple[int, int, int]] = {}
        self._keys: dict[str, bytes] = {}  # by file name
        self._known: frozenset[bytes] = frozenset()
        self.withdrawn = 0
        self._looked_mono_s = -LOOK_EVERY_S
        self._look()

    def has(self, public_key: bytes) -> bool:
        """Return whether somebody with this key may connect."""
        self.look()
        return public_key in self._known

    def look(self) -> None:
        """See whether something has changed, once a second."""
        if time.monotonic() - self._looked_mono_s >= LOOK_EVERY_S:
            self._look()

    def names(self) -> dict[str, bytes]:
        """Return the keys by name."""
        return {name.removesuffix(PUBLIC_SUFFIX): key for name, key in sorted(self._keys.items())}

    def _look(self) -> None:
        self._looked_mono_s = time.monotonic()
        try:
            found = self._scan()
        except OSError as exc:
            if isinstance(exc, FileNotFoundError) and not self._known:
                return  # not there yet; one that was there may be on its way to be replaced
            log.error("%s: who may connect stays as it is: %s", self._directory, exc.strerror)
            return
        if found == self._stamps:
            return
        for name in [name for name in self._keys if name not in found]:
            del self._keys[name]
        for name, stamp in found.items():
            if self._stamps.get(name) != stamp:
                self._read(name)
        self._stamps = found
        if (known := frozenset(self._keys.values())) != self._known:
            log.info("%s: %d keys may connect", self._directory, len(known))
            self.withdrawn += not self._known <= known
            self._known = known

    def _scan(self) -> dict[str, tuple[int, int, int]]:
        found: dict[str, tuple[int, int, int]] = {}
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(PUBLIC_SUFFIX) and len(found) < CLIENTS_MAX:
                    with contextlib.suppress(FileNotFoundError):  # it goes while we look
                        status = entry.stat()
                        found[entry.name] = status.st_ino, status.st_mtime_ns, status.st_size
        return found

    def _read(self, name: str) -> None:
        self._keys.pop(name, None)
        try:
            self._keys[name] = load_public(str(self._directory / name), "a key that may connect")
        except ConfigError as exc:
            log.warning("passed over: %s", exc)


def authorize(file: str, directory: Path) -> Path:
    """Copy a public key into the directory of those who may connect. Raises ConfigError."""
    load_public(file, "authorize")
    check_name(Path(file).name.removesuffix(PUBLIC_SUFFIX))
    target = directory / (Path(file).name.removesuffix(PUBLIC_SUFFIX) + PUBLIC_SUFFIX)
    if target.exists():
        raise ConfigError(f"{target}: exists already; revoke it first, or give the file another name")
    try:
        private.make_folder(directory)
        private.write_whole(target, Path(file).read_bytes(), mode=0o644)
    except OSError as exc:
        raise ConfigError(f"{directory}: {exc.strerror}") from exc
    return target


def revoke(name: str, directory: Path) -> Path:
    """Remove a public key. Raises ConfigError if it is not there."""
    check_name(name)
    target = directory / f"{name}{PUBLIC_SUFFIX}"
    try:
        target.unlink()
    except FileNotFoundError as exc:
        raise ConfigError(f"{target}: no such key; `feedhandler keys list` shows those there are") from exc
    return target
