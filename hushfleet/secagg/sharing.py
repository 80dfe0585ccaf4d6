"""Shamir sharing mod L with Feldman commitments (docs/protocol.md, sections 3 and 11.3).

A secret s is a_0 of a polynomial f of degree t − 1; the member at position x ≥ 1 of T holds f(x), and everyone holds
the commitments A_j = a_j·B. Any t shares give s, and each share can be checked against the commitments.
Sources: Shamir, How to share a secret (1979); Feldman, A practical scheme for non-interactive VSS (1987).
"""

from collections.abc import Sequence

from hushfleet.errors import MalformedError, RefusedError
from hushfleet.secagg import group


def evaluate(coefficients: Sequence[bytes], position: int) -> bytes:
    """f(position) mod L, 32 bytes; `coefficients` are a_0 … a_{t−1}."""
    x = group.scalar(position)
    share = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        share = group.scalar_add(group.scalar_multiply(share, x), coefficient)
    return share


def commit(coefficients: Sequence[bytes]) -> list[bytes]:
    """A_j = a_j·B for each coefficient."""
    return [group.base_multiply(coefficient) for coefficient in coefficients]


def check_share(share: bytes, position: int, commitments: Sequence[bytes]) -> None:
    """Raise RefusedError unless share·B = Σ_j position^j·A_j."""
    check_shares([share], position, [commitments], [1])


def check_shares(
    shares: Sequence[bytes], position: int, commitments: Sequence[Sequence[bytes]], weights: Sequence[int]
) -> None:
    """Check one share of each of several polynomials at once, in a random linear combination.

    Args:
        shares: one scalar for each polynomial, already checked as scalars.
        position: x of the holder, from 1.
        commitments: A_{k,0} … A_{k,t−1} of each polynomial k.
        weights: a fresh random 128-bit integer for each polynomial; a wrong share passes with probability 2^-128.

    Raises:
        RefusedError: at least one share does not match its commitments.
    """
    if not len(shares) == len(commitments) == len(weights):
        raise RefusedError("not one share for each polynomial")
    total = group.scalar(0)
    expected: bytes | None = None
    try:
        for share, polynomial, weight in zip(shares, commitments, weights, strict=True):
            total = group.scalar_add(total, group.scalar_multiply(group.scalar(weight), share))
            for power, point in enumerate(polynomial):
                term = group.multiply(group.scalar(weight * position**power), point)
                expected = term if expected is None else group.add(expected, term)
        matches = group.base_multiply(total) == expected
    except MalformedError:
        matches = False
    if not matches:
        raise RefusedError("a share does not match its commitments")


def interpolate(shares: Sequence[tuple[int, bytes]]) -> bytes:
    """f(0) from t pairs (position, share) with distinct positions ≥ 1 (Lagrange at 0)."""
    positions = [position for position, _ in shares]
    if len(set(positions)) != len(positions) or min(positions, default=0) < 1:
        raise RefusedError("shares need distinct positions from 1")
    secret = group.scalar(0)
    for position, share in shares:
        numerator = denominator = 1
        for other in positions:
            if other != position:
                numerator = numerator * other % group.ORDER
                denominator = denominator * (other - position) % group.ORDER
        factor = group.scalar(numerator * pow(denominator, -1, group.ORDER))
        secret = group.scalar_add(secret, group.scalar_multiply(factor, share))
    return secret
