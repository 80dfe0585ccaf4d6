"""Points and scalars of Ed25519's prime-order subgroup, all through libsodium (docs/protocol.md, section 2).

Points and scalars are 32 bytes each. Everything from the wire passes `check_point` or `check_scalar` before use.
"""

from functools import cache

from nacl import bindings

from hushfleet.errors import MalformedError

ORDER = 2**252 + 27742317777372353535851937790883648493
"""L, the order of the subgroup."""

_MINUS_ONE = (ORDER - 1).to_bytes(32, "little")
_ORDER_TWO_POINT = (2**255 - 20).to_bytes(32, "little")
"""(0, −1), the point of order two."""


def check_point(point: bytes) -> bytes:
    """The point itself, if it is canonical, in the prime-order subgroup and not the identity.

    Raises:
        MalformedError: otherwise.
    """
    if len(point) != 32 or not bindings.crypto_core_ed25519_is_valid_point(point):
        raise MalformedError("not a valid point of the group")
    if not _library_refuses_small_order_parts():
        negated = point[:31] + bytes((point[31] ^ 0x80,))
        if multiply(_MINUS_ONE, point) != negated:
            raise MalformedError("not a valid point of the group")
    return point


@cache
def _library_refuses_small_order_parts() -> bool:
    """Whether this libsodium's own check sees B + (0, −1), which some releases accept (CVE-2025-69277)."""
    mixed = bindings.crypto_core_ed25519_add(base_multiply(scalar(1)), _ORDER_TWO_POINT)
    return not bindings.crypto_core_ed25519_is_valid_point(mixed)


def check_scalar(value: bytes) -> bytes:
    """The scalar itself, if it is 32 bytes, below L and not 0; MalformedError otherwise."""
    if len(value) != 32 or not 0 < int.from_bytes(value, "little") < ORDER:
        raise MalformedError("not a valid scalar")
    return value


def scalar(value: int) -> bytes:
    """A small public integer as a scalar."""
    return (value % ORDER).to_bytes(32, "little")


def reduce(wide: bytes) -> bytes:
    """64 uniform bytes as a scalar mod L."""
    reduced: bytes = bindings.crypto_core_ed25519_scalar_reduce(wide)
    return reduced


def base_multiply(factor: bytes) -> bytes:
    """factor·B."""
    try:
        product: bytes = bindings.crypto_scalarmult_ed25519_base_noclamp(factor)
    except (RuntimeError, TypeError):
        raise MalformedError("the product is no valid point") from None
    return product


def multiply(factor: bytes, point: bytes) -> bytes:
    """factor·point; MalformedError if the point is invalid or the product the identity."""
    try:
        product: bytes = bindings.crypto_scalarmult_ed25519_noclamp(factor, point)
    except (RuntimeError, TypeError):
        raise MalformedError("the product is no valid point") from None
    return product


def add(one: bytes, other: bytes) -> bytes:
    """one + other."""
    try:
        total: bytes = bindings.crypto_core_ed25519_add(one, other)
    except (RuntimeError, TypeError):
        raise MalformedError("the sum is no valid point") from None
    return total


def scalar_add(one: bytes, other: bytes) -> bytes:
    """one + other mod L."""
    total: bytes = bindings.crypto_core_ed25519_scalar_add(one, other)
    return total


def scalar_multiply(one: bytes, other: bytes) -> bytes:
    """one·other mod L."""
    product: bytes = bindings.crypto_core_ed25519_scalar_mul(one, other)
    return product
