"""Who may read the simulated accounts, and how a signature is checked.

The keys are the same in every simulator, so that a client can be configured before one runs. They open
nothing else: they are no secret, and are treated as one all the same, so that what is written around them
is right for real ones.

    exchange   key                      secret                        signs with
    binance    sim-binance-key-hmac     sim-binance-secret            HMAC-SHA256, hex
               sim-binance-key-ed25519  `ed25519_pem()`               Ed25519, base64
    kucoin     sim-kucoin-key           sim-kucoin-secret             HMAC-SHA256, base64;
                                                                      passphrase sim-kucoin-passphrase
    bybit      sim-bybit-key            sim-bybit-secret              HMAC-SHA256, hex

Pure. Signatures are compared in constant time.
"""

import hashlib
import hmac
from base64 import b64decode, b64encode

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What a client signs with; neither printed nor logged."""

    key: str
    secret: str
    passphrase: str = ""

    def __repr__(self) -> str:
        return "Credentials(…)"


BINANCE = Credentials(key="sim-binance-key-hmac", secret="sim-binance-secret")
KUCOIN = Credentials(key="sim-kucoin-key", secret="sim-kucoin-secret", passphrase="sim-kucoin-passphrase")
BYBIT = Credentials(key="sim-bybit-key", secret="sim-bybit-secret")
BINANCE_ED25519_KEY = "sim-binance-key-ed25519"
_ED25519_SEED = hashlib.sha256(b"the simulated Binance account").digest()


def ed25519_pem() -> str:
    """Print the private half of Binance's second key, PKCS #8 in PEM: what a client is given."""
    private = Ed25519PrivateKey.from_private_bytes(_ED25519_SEED)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def ed25519_public() -> Ed25519PublicKey:
    """Return the public half: all that an exchange has of it."""
    return Ed25519PrivateKey.from_private_bytes(_ED25519_SEED).public_key()


def hmac_hex(secret: str, text: str) -> str:
    return hmac.digest(_bytes(secret), _bytes(text), "sha256").hex()


def hmac_base64(secret: str, text: str) -> str:
    return b64encode(hmac.digest(_bytes(secret), _bytes(text), "sha256")).decode()


def is_same(given: str, expected: str) -> bool:
    """Compare without showing by the time that it takes how much of `given` was right."""
    return hmac.compare_digest(_bytes(given), _bytes(expected))


def is_signed(public: Ed25519PublicKey, signature: str, text: str) -> bool:
    """Check a signature in base64; anything that is no signature is a wrong one."""
    try:
        public.verify(b64decode(_bytes(signature), validate=True), _bytes(text))
    except (InvalidSignature, ValueError):
        return False
    return True


def _bytes(text: str) -> bytes:
    """Encode whatever a client sent; what is not text cannot be signed rightly anyway."""
    return text.encode(errors="replace")
