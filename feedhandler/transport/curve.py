"""CurveZMQ: how a ZeroMQ connection is encrypted, and how each end proves which key it has.

The mechanism as decisions, without sockets: commands of the other side come in, ours go out; boxes are libsodium's,
through PyNaCl. A connection has keys of its own, so what is recorded today cannot be read when a long-lived key
is lost tomorrow. Numbers in a direction only grow: what is repeated, left out or put in another order ends the
connection. Whatever is wrong is a ValueError that names no key.
Source: https://rfc.zeromq.org/spec/26/ (CurveZMQ), https://rfc.zeromq.org/spec/23/ (ZMTP 3.0).
"""

import hmac
import os
from collections.abc import Callable
from typing import Final

from nacl import bindings, exceptions

MECHANISM: Final = b"CURVE"
KEY_SIZE: Final = 32
SHORT_NONCE_SIZE: Final = 8
LONG_NONCE_SIZE: Final = 16
MAC_SIZE: Final = 16

HELLO: Final = b"\x05HELLO"
WELCOME: Final = b"\x07WELCOME"
INITIATE: Final = b"\x08INITIATE"
READY: Final = b"\x05READY"
MESSAGE: Final = b"\x07MESSAGE"
ERROR: Final = b"\x05ERROR"

VERSION: Final = b"\x01\x00"
PADDING: Final = bytes(
    72
)  # of HELLO, which is to be no shorter than its answer: nobody is flooded through us
COOKIE_SIZE: Final = LONG_NONCE_SIZE + MAC_SIZE + 2 * KEY_SIZE
VOUCH_SIZE: Final = LONG_NONCE_SIZE + MAC_SIZE + 2 * KEY_SIZE
HELLO_SIZE: Final = 200
WELCOME_SIZE: Final = 168
HEAD_SIZE: Final = len(MESSAGE) + SHORT_NONCE_SIZE
OVERHEAD: Final = HEAD_SIZE + MAC_SIZE + 1  # of a message: name, number, box, flags
assert len(HELLO) + len(VERSION) + len(PADDING) + KEY_SIZE + SHORT_NONCE_SIZE + MAC_SIZE + 64 == HELLO_SIZE
assert len(WELCOME) + LONG_NONCE_SIZE + MAC_SIZE + KEY_SIZE + COOKIE_SIZE == WELCOME_SIZE

# Bits of the first byte in the box of a message.
INNER_MORE: Final = 1
INNER_COMMAND: Final = 2

_beforenm = bindings.crypto_box_beforenm
_seal = bindings.crypto_box_easy_afternm


class KeyPair:
    """A Curve25519 key pair; its secret half is neither shown nor pickled."""

    __slots__ = ("public", "secret")

    def __init__(self, public: bytes, secret: bytes) -> None:
        self.public = public
        self.secret = secret

    def __repr__(self) -> str:
        return "KeyPair(…)"

    def __reduce__(self) -> str:
        raise TypeError("keys stay in memory")


def transient() -> KeyPair:
    """Return a key pair for one connection."""
    return KeyPair(*bindings.crypto_box_keypair())


def _open(box: bytes, nonce: bytes, shared: bytes, what: str) -> bytes:
    try:
        return bindings.crypto_box_open_easy_afternm(box, nonce, shared)
    except (exceptions.CryptoError, ValueError, TypeError) as exc:
        raise ValueError(f"its {what} cannot be opened with our keys") from exc


class Channel:
    """An established connection: what is sent is boxed, what comes is opened."""

    def __init__(
        self, shared: bytes, own_prefix: bytes, other_prefix: bytes, number: int, other: int
    ) -> None:
        self._shared = shared
        self._own_prefix = own_prefix
        self._other_prefix = other_prefix
        self._number = number  # of the last box that we sent
        self._other_number = other  # of the last one that came

    def seal(self, flags: int, message: bytes | bytearray | memoryview) -> bytes:
        """Return the frame that carries a message; flags are the `INNER_` bits."""
        self._number += 1
        number = self._number.to_bytes(SHORT_NONCE_SIZE, "big")
        box = _seal(bytes((flags,)) + message, self._own_prefix + number, self._shared)
        return MESSAGE + number + box

    def open(self, frame: bytes) -> tuple[int, bytes]:
        """Return flags and message of a frame. Raises ValueError, and then the connection is to end."""
        if not frame.startswith(MESSAGE) or len(frame) < OVERHEAD:
            raise ValueError("it sent something other than an encrypted message")
        nonce = frame[len(MESSAGE) : HEAD_SIZE]
        number = int.from_bytes(nonce, "big")
        if number <= self._other_number:
            raise ValueError("it sent a message twice, or in another order")
        opened = _open(frame[HEAD_SIZE:], self._other_prefix + nonce, self._shared, "message")
        self._other_number = number
        return opened[0], opened[1:]


CLIENT_PREFIX: Final = b"CurveZMQMESSAGEC"
SERVER_PREFIX: Final = b"CurveZMQMESSAGES"


class Server:
    """The side that binds. `client_key` is what the client has proven to have, once there is a channel."""

    def __init__(self, keys: KeyPair, is_authorized: Callable[[bytes], bool], metadata: bytes) -> None:
        """metadata is what the client is told about our socket."""
        self._keys = keys
        self._is_authorized = is_authorized
        self._metadata = metadata
        self._cookie = b""
        self._transient = transient()
        self._client_transient = b""
        self.client_key = b""
        self.channel: Channel | None = None

    def greet(self) -> list[bytes]:
        """Return the commands to send after the greetings: the client begins."""
        return []

    def take(self, command: bytes) -> tuple[list[bytes], bytes | None]:
        """Take a command of the handshake; returns those to send, and the client's metadata when it is over.

        Raises ValueError, and then the connection is to end.
        """
        if command.startswith(HELLO) and not self._cookie:
            return [self._welcome(command)], None
        if command.startswith(INITIATE) and self._cookie and self.channel is None:
            metadata = self._initiate(command)
            return [self._ready()], metadata
        raise ValueError("it sent a command that is not expected here")

    def _welcome(self, hello: bytes) -> bytes:
        if len(hello) != HELLO_SIZE or hello[len(HELLO) : len(HELLO) + 2] != VERSION:
            raise ValueError("its HELLO is broken, or of another version")
        start = len(HELLO) + len(VERSION) + len(PADDING)
        client_transient = hello[start : start + KEY_SIZE]
        nonce = hello[start + KEY_SIZE : start + KEY_SIZE + SHORT_NONCE_SIZE]
        box = hello[start + KEY_SIZE + SHORT_NONCE_SIZE :]
        shared = _shared(client_transient, self._keys.secret)
        if any(_open(box, b"CurveZMQHELLO---" + nonce, shared, "HELLO")):
            raise ValueError("its HELLO is broken")
        self._client_transient = client_transient
        # The connection itself remembers both keys; the cookie has nothing to carry but that it is ours.
        self._cookie = os.urandom(COOKIE_SIZE)
        nonce = os.urandom(LONG_NONCE_SIZE)
        return WELCOME + nonce + _seal(self._transient.public + self._cookie, b"WELCOME-" + nonce, shared)

    def _initiate(self, initiate: bytes) -> bytes:
        start = len(INITIATE)
        cookie = initiate[start : start + COOKIE_SIZE]
        if not hmac.compare_digest(cookie, self._cookie):
            raise ValueError("its INITIATE does not follow our WELCOME")
        nonce = initiate[start + COOKIE_SIZE : start + COOKIE_SIZE + SHORT_NONCE_SIZE]
        shared = _shared(self._client_transient, self._transient.secret)
        opened = _open(
            initiate[start + COOKIE_SIZE + SHORT_NONCE_SIZE :],
            b"CurveZMQINITIATE" + nonce,
            shared,
            "INITIATE",
        )
        if len(opened) < KEY_SIZE + VOUCH_SIZE:
            raise ValueError("its INITIATE is broken")
        client_key = opened[:KEY_SIZE]
        vouch = opened[KEY_SIZE : KEY_SIZE + VOUCH_SIZE]
        vouched = _open(
            vouch[LONG_NONCE_SIZE:],
            b"VOUCH---" + vouch[:LONG_NONCE_SIZE],
            _shared(client_key, self._transient.secret),
            "vouch",
        )
        if not hmac.compare_digest(vouched, self._client_transient + self._keys.public):
            raise ValueError("its vouch is for another connection")
        self.client_key = client_key
        if not self._is_authorized(client_key):
            raise ValueError("its key is not authorized")
        number = int.from_bytes(nonce, "big")
        self.channel = Channel(shared, SERVER_PREFIX, CLIENT_PREFIX, 1, number)
        self._shared = shared
        return opened[KEY_SIZE + VOUCH_SIZE :]

    def _ready(self) -> bytes:
        nonce = (1).to_bytes(SHORT_NONCE_SIZE, "big")
        return READY + nonce + _seal(self._metadata, b"CurveZMQREADY---" + nonce, self._shared)


class Client:
    """The side that connects, and knows the server's key beforehand."""

    def __init__(self, keys: KeyPair, server_key: bytes, metadata: bytes) -> None:
        self._keys = keys
        self._server_key = server_key
        self._metadata = metadata
        self._transient = transient()
        self._shared = b""
        self.channel: Channel | None = None

    def greet(self) -> list[bytes]:
        """Return the commands to send after the greetings."""
        nonce = (1).to_bytes(SHORT_NONCE_SIZE, "big")
        shared = _shared(self._server_key, self._transient.secret)
        box = _seal(bytes(64), b"CurveZMQHELLO---" + nonce, shared)
        return [HELLO + VERSION + PADDING + self._transient.public + nonce + box]

    def take(self, command: bytes) -> tuple[list[bytes], bytes | None]:
        """Take a command of the handshake; as `Server.take`."""
        if command.startswith(WELCOME) and not self._shared:
            return [self._initiate(command)], None
        if command.startswith(READY) and self._shared and self.channel is None:
            nonce = command[len(READY) : len(READY) + SHORT_NONCE_SIZE]
            box = command[len(READY) + SHORT_NONCE_SIZE :]
            metadata = _open(box, b"CurveZMQREADY---" + nonce, self._shared, "READY")
            number = int.from_bytes(nonce, "big")
            self.channel = Channel(self._shared, CLIENT_PREFIX, SERVER_PREFIX, 2, number)
            return [], metadata
        raise ValueError("it sent a command that is not expected here")

    def _initiate(self, welcome: bytes) -> bytes:
        if len(welcome) != WELCOME_SIZE:
            raise ValueError("its WELCOME is broken")
        nonce = welcome[len(WELCOME) : len(WELCOME) + LONG_NONCE_SIZE]
        opened = _open(
            welcome[len(WELCOME) + LONG_NONCE_SIZE :],
            b"WELCOME-" + nonce,
            _shared(self._server_key, self._transient.secret),
            "WELCOME",
        )
        server_transient, cookie = opened[:KEY_SIZE], opened[KEY_SIZE:]
        self._shared = _shared(server_transient, self._transient.secret)
        vouch_nonce = os.urandom(LONG_NONCE_SIZE)
        vouch = vouch_nonce + _seal(
            self._transient.public + self._server_key,
            b"VOUCH---" + vouch_nonce,
            _shared(server_transient, self._keys.secret),
        )
        nonce = (2).to_bytes(SHORT_NONCE_SIZE, "big")
        box = _seal(self._keys.public + vouch + self._metadata, b"CurveZMQINITIATE" + nonce, self._shared)
        return INITIATE + cookie + nonce + box


def _shared(public: bytes, secret: bytes) -> bytes:
    try:
        return _beforenm(public, secret)
    except (exceptions.CryptoError, ValueError, TypeError) as exc:
        raise ValueError("it sent a key that is none") from exc
