"""Sealed boxes in libsodium's format, with the ephemeral key from the caller's randomness (docs/protocol.md, 11.1)."""

from hashlib import blake2b

from nacl import bindings
from nacl.exceptions import CryptoError

from hushfleet.actions import Draw
from hushfleet.errors import MalformedError

OVERHEAD = 48
"""Bytes that sealing adds."""


def new_key(draw: Draw) -> tuple[bytes, bytes]:
    """A fresh X25519 (secret, public) pair."""
    secret = draw(32)
    return secret, public_of(secret)


def public_of(secret: bytes) -> bytes:
    """The public key of an X25519 secret."""
    public: bytes = bindings.crypto_scalarmult_base(secret)
    return public


def check_public(public: bytes) -> bytes:
    """The key itself unless it is of small order (MalformedError), with which nothing would stay secret."""
    if len(public) != 32:
        # The binding reads 32 bytes whatever it is given.
        raise MalformedError(f"a sealing key of {len(public)} bytes")
    try:
        bindings.crypto_scalarmult(b"\x01" * 32, public)
    except (RuntimeError, TypeError, ValueError):
        raise MalformedError("a sealing key of small order") from None
    return public


def seal(plain: bytes, to: bytes, draw: Draw) -> bytes:
    """`e·B ‖ crypto_box(plain, nonce, to, e)` with e = draw(32) and nonce = BLAKE2b-192(e·B ‖ to)."""
    secret, public = new_key(draw)
    nonce = blake2b(public + to, digest_size=24).digest()
    sealed: bytes = public + bindings.crypto_box(plain, nonce, to, secret)
    return sealed


def unseal(sealed: bytes, secret: bytes) -> bytes:
    """What `seal` closed for this key; MalformedError if it does not open."""
    try:
        plain: bytes = bindings.crypto_box_seal_open(sealed, public_of(secret), secret)
    except (CryptoError, TypeError, ValueError):
        raise MalformedError("the sealed box does not open") from None
    return plain
