"""Signatures, against vectors that the exchanges publish."""

from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from feedhandler.sim import credentials

# https://github.com/binance/binance-spot-api-docs/blob/master/rest-api.md, "HMAC Keys"
BINANCE_SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
TAIL = "&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"
VECTORS = [
    ("symbol=LTCBTC", "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"),
    (
        "symbol=%EF%BC%91%EF%BC%92%EF%BC%93%EF%BC%94%EF%BC%95%EF%BC%96",
        "e1353ec6b14d888f1164ae9af8228a3dbd508bc82eb867db8ab6046442f33ef3",
    ),
]


@pytest.mark.parametrize(("head", "expected"), VECTORS)
def test_binances_published_signatures_are_reproduced(head, expected):
    assert credentials.hmac_hex(BINANCE_SECRET, head + TAIL) == expected


def test_kucoins_published_signature_is_reproduced():
    # https://github.com/Kucoin/kucoin-universal-sdk, the signer's test
    expected = "jie/gxS38wLFFaBwl/cAzFbAzlI8MIny96jSXrB+iP4="
    assert credentials.hmac_base64("test_api_secret", "test_plain") == expected


def test_the_printed_private_key_fits_the_public_one():
    private = load_pem_private_key(credentials.ed25519_pem().encode(), None)
    signature = b64encode(private.sign(b"payload")).decode()
    public = credentials.ed25519_public()
    assert credentials.is_signed(public, signature, "payload")
    assert not credentials.is_signed(public, signature, "payload ")


@pytest.mark.parametrize("nonsense", ["", "=", "AAAA", "not base64!", "\ud800", "ä" * 88])
def test_what_is_no_signature_is_a_wrong_one(nonsense):
    assert not credentials.is_signed(credentials.ed25519_public(), nonsense, "payload")
    assert not credentials.is_same(nonsense, credentials.hmac_hex("secret", "payload"))


@pytest.mark.parametrize("each", [credentials.BINANCE, credentials.KUCOIN, credentials.BYBIT])
def test_credentials_print_nothing_of_themselves(each):
    for printed in (repr(each), str(each), f"{each}"):
        assert not any(part and part in printed for part in (each.key, each.secret, each.passphrase))
