"""The arithmetic of a committee: sheets of round secrets, leaves, nonce chains, recovery (docs/protocol.md, 3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hushfleet.actions import Draw
from hushfleet.errors import MalformedError, RefusedError
from hushfleet.hashing import digest
from hushfleet.secagg import group, sharing


@dataclass(frozen=True, slots=True)
class Sheet:
    """One dealer's polynomials, one for each round of the epoch.

    Attributes:
        polynomials: for each round k the scalars a_{k,0} … a_{k,t−1}; a_{k,0} is the round secret s_{h,k}.
    """

    polynomials: tuple[tuple[bytes, ...], ...] = field(repr=False)

    def secrets(self) -> list[bytes]:
        """s_{h,k} for every round k."""
        return [polynomial[0] for polynomial in self.polynomials]

    def points(self) -> bytes:
        """A_{h,k,j} at position k·t + j, 32 bytes each: the `points` of the dealer's key."""
        return b"".join(point for polynomial in self.polynomials for point in sharing.commit(polynomial))

    def shares(self, position: int) -> list[bytes]:
        """f_{h,k}(position) for every round k."""
        return [sharing.evaluate(polynomial, position) for polynomial in self.polynomials]


def deal(vault_secret: bytes, draw: Draw, list_hash: bytes, rounds: int, threshold: int) -> Sheet:
    """Draw a sheet, hedged by the vault secret and the list hash against clones, snapshots and poor entropy (11.3)."""
    fresh = draw(32)
    return Sheet(
        tuple(
            tuple(
                group.reduce(
                    digest(
                        "draw",
                        fresh,
                        list_hash,
                        k.to_bytes(2, "little"),
                        j.to_bytes(2, "little"),
                        key=vault_secret,
                        size=64,
                    )
                )
                for j in range(threshold)
            )
            for k in range(rounds)
        )
    )


def commitments(points: bytes, threshold: int) -> list[list[bytes]]:
    """The `points` of a key as A_{k,0} … A_{k,t−1} for each round k."""
    flat = [points[at : at + 32] for at in range(0, len(points), 32)]
    return [flat[at : at + threshold] for at in range(0, len(flat), threshold)]


def check_keys(keys: Sequence[bytes]) -> None:
    """Check the `points` of all dealers of a list: every one valid, no two equal anywhere.

    Raises:
        MalformedError: an invalid point, the identity, or two equal ones.
    """
    seen: set[bytes] = set()
    for points in keys:
        for at in range(0, len(points), 32):
            point = group.check_point(points[at : at + 32])
            if point in seen:
                raise MalformedError("two equal points among the committee's keys")
            seen.add(point)


def round_points(keys: Sequence[bytes], threshold: int, k: int) -> bytes:
    """S_{1,k} ‖ … ‖ S_{c,k} from the dealers' `points`, in T's order."""
    at = 32 * k * threshold
    return b"".join(points[at : at + 32] for points in keys)


def leaf(epoch: int, k: int, points: bytes) -> bytes:
    """The transcript's leaf of round k over `round_points`."""
    return digest("leaf", epoch.to_bytes(4, "little"), k.to_bytes(2, "little"), points)


def check_sheet_shares(shares: Sequence[bytes], position: int, points: bytes, threshold: int, draw: Draw) -> None:
    """Check a dealer's shares of all rounds against its commitments in one random combination.

    Raises:
        MalformedError: a share is 0 or not below L.
        RefusedError: a share does not match.
    """
    for share in shares:
        group.check_scalar(share)
    weights = [int.from_bytes(draw(16), "little") for _ in shares]
    sharing.check_shares(shares, position, commitments(points, threshold), weights)


def recover(shares: Sequence[tuple[int, bytes]], round_commitments: Sequence[bytes]) -> bytes:
    """The lost member's round secret from at least t shares that were each checked; s·B = S is checked again.

    Raises:
        RefusedError: too few shares, or the scalar is not the one behind S.
    """
    threshold = len(round_commitments)
    if len(shares) < threshold:
        raise RefusedError(f"{len(shares)} shares of {threshold} needed")
    secret = sharing.interpolate(shares[:threshold])
    if group.base_multiply(secret) != round_commitments[0]:
        raise RefusedError("the recovered scalar is not behind the member's point")
    return secret


def chain(nonce: bytes, length: int) -> bytes:
    """link^length(nonce)."""
    for _ in range(length):
        nonce = digest("link", nonce)
    return nonce
