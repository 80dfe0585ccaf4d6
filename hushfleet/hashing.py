"""The one hash of the protocol: BLAKE2b with a purpose for each use (docs/protocol.md, sections 2 and 4)."""

from hashlib import blake2b


def digest(purpose: str, *parts: bytes, key: bytes = b"", size: int = 32) -> bytes:
    """BLAKE2b over the concatenated `parts`, personalised with "hushfleet." ‖ purpose ‖ ".1".

    Args:
        purpose: four ASCII characters, one name for each use in the protocol (`body`, `seed`, `mask`, ...).
        parts: what is hashed, in order.
        key: up to 64 bytes; empty means unkeyed.
        size: digest size in bytes, 1 to 64. Different sizes are different functions, not truncations.
    """
    person = b"hushfleet." + purpose.encode("ascii") + b".1"
    state = blake2b(digest_size=size, key=key, person=person)
    for part in parts:
        state.update(part)
    return state.digest()


def key_id(public_key: bytes) -> bytes:
    """The 8-byte name of a root, signer or freshness key: the head of its plain BLAKE2b-256 (section 11.1)."""
    return blake2b(public_key, digest_size=32).digest()[:8]
