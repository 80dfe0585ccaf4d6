"""A second writing of the protocol's arithmetic: group, sharing, masks, plain codec and model. Plain and slow."""

import math
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt
from nacl import bindings as sodium
from second_wire import Fields, Refused, digest, require, u16, u32, u64

ORDER = 2**252 + 27742317777372353535851937790883648493
IDENTITY = b"\1" + bytes(31)
BITS = 16
CHUNK = 65_536
TAIL = ("weight", "examples", "training_loss", "evaluated", "evaluation_loss", "correct", "norm", "checksum")
WEIGHT_ONE = 65_536
LARGEST_COUNT, LARGEST_LOSS = 2**20, 2**42

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


# The group: scalars are Python integers below ORDER, points 32 bytes.


def times(scalar: int, point: bytes) -> bytes:
    return sodium.crypto_scalarmult_ed25519_noclamp(scalar.to_bytes(32, "little"), point)


def times_base(scalar: int) -> bytes:
    return sodium.crypto_scalarmult_ed25519_base_noclamp(scalar.to_bytes(32, "little"))


def plus(points: Iterable[bytes]) -> bytes:
    return reduce(sodium.crypto_core_ed25519_add, points)


def check_point(point: bytes) -> None:
    """Refuse what is not a point of prime order: (L − 1)·P + P is the identity, and P is not."""
    try:
        right = (
            bool(sodium.crypto_core_ed25519_is_valid_point(point))
            and point != IDENTITY
            and plus([times(ORDER - 1, point), point]) == IDENTITY
        )
    except (RuntimeError, TypeError) as error:
        raise Refused(f"a bad point: {error}") from None
    require(right, "a bad point")


def scalar(raw: bytes) -> int:
    """A scalar from the wire: 32 bytes, below L, not 0."""
    value = int.from_bytes(raw, "little")
    require(len(raw) == 32 and 0 < value < ORDER, "a bad scalar")
    return value


def scalar_bytes(value: int) -> bytes:
    return value.to_bytes(32, "little")


def drawn(vault_secret: bytes, fresh: bytes, *context: bytes) -> int:
    """A hedged secret scalar: `draw` keyed by the vault's secret, reduced."""
    wide = digest("draw", fresh, *context, key=vault_secret, size=64)
    value = int.from_bytes(sodium.crypto_core_ed25519_scalar_reduce(wide), "little")
    assert value == int.from_bytes(wide, "little") % ORDER
    return value


# Sharing: coefficients a_0 … a_{t−1} of one round, commitments to them, shares at 1 … c.


def coefficients(vault_secret: bytes, list_hash: bytes, rounds: int, threshold: int) -> list[list[int]]:
    """One dealer's polynomials, one list for each round of the epoch."""
    fresh = secrets.token_bytes(32)
    return [[drawn(vault_secret, fresh, list_hash, u16(k), u16(j)) for j in range(threshold)] for k in range(rounds)]


def share_at(polynomial: list[int], x: int) -> int:
    return sum(a * pow(x, j, ORDER) for j, a in enumerate(polynomial)) % ORDER


def committed_at(commitments: list[bytes], x: int) -> bytes:
    """Σ_j x^j·A_j."""
    return plus(times(pow(x, j, ORDER), point) for j, point in enumerate(commitments))


def interpolated(shares: dict[int, int]) -> int:
    """The secret at 0 from shares by evaluation point."""
    total = 0
    for x, share in shares.items():
        above = below = 1
        for other in shares:
            if other != x:
                above, below = above * other % ORDER, below * (other - x) % ORDER
        total += share * above * pow(below, -1, ORDER)
    return total % ORDER


def leaf(epoch: int, k: int, points: Iterable[bytes]) -> bytes:
    return digest("leaf", u32(epoch), u16(k), *points)


def chain(nonce: bytes, links: int) -> bytes:
    """link^links(nonce)."""
    for _ in range(links):
        nonce = digest("link", nonce)
    return nonce


# Masks (section 4, 11.5).


def planes(residues: npt.NDArray[np.uint16], bits: int) -> bytes:
    """Residues of that many bits, packed by folded planes."""
    if bits > 8:
        return (residues & 0xFF).astype(np.uint8).tobytes() + planes((residues >> 8).astype(np.uint16), bits - 8)
    packed, taken = b"", 0
    for plane in (8, 4, 2, 1):
        if not bits & plane:
            continue
        x, w = ((residues >> taken) & (2**plane - 1)).astype(np.uint8), plane
        while w < 8:
            half = len(x) // 2
            x, w = (x[:half] | x[half:] << w).astype(np.uint8), 2 * w
        packed, taken = packed + x.astype(np.uint8).tobytes(), taken + plane
    return packed


@dataclass(frozen=True)
class Vector:
    """A vector in the ring: m residues mod 2^16 and the tail's lanes mod 2^64."""

    body: npt.NDArray[np.uint16]
    tail: npt.NDArray[np.uint64]

    def plus(self, other: "Vector") -> "Vector":
        return Vector(self.body + other.body, self.tail + other.tail)

    def minus(self, other: "Vector") -> "Vector":
        return Vector(self.body - other.body, self.tail - other.tail)

    @property
    def packed(self) -> bytes:
        """As on the wire: the packed body, then the tail's lanes."""
        return planes(self.body, BITS) + self.tail.astype("<u8").tobytes()


def nothing(m: int) -> Vector:
    return Vector(np.zeros(m, np.uint16), np.zeros(len(TAIL), np.uint64))


def vector_length(m: int) -> int:
    return 2 * m + 8 * len(TAIL)


def unpacked(raw: bytes, m: int) -> Vector:
    require(len(raw) == vector_length(m), "a vector of the wrong length")
    low, high = np.frombuffer(raw, np.uint8, m), np.frombuffer(raw, np.uint8, m, m)
    body = low.astype(np.uint16) | (high.astype(np.uint16) << 8)
    return Vector(body.astype(np.uint16), np.frombuffer(raw, "<u8", len(TAIL), 2 * m).astype(np.uint64))


def padded(coords: int) -> int:
    return -(-coords // 64) * 64


def mask_seed(
    secret: int, its: bytes, fleet: bytes, plan: bytes, number: int, i: int, h: int, y: bytes, point: bytes
) -> bytes:
    """The seed that participant i and member h share; `secret`·`its` is their Diffie-Hellman point.

    Args:
        y: the participant's point Y_i.
        point: the member's point S_{h,k}.
    """
    return digest("seed", fleet, plan, u64(number), u32(i), u32(h), y, point, key=times(secret, its))


def mask(seed: bytes, m: int) -> Vector:
    """The keystream: lane 0 in words of 2 bytes, lane 1 in words of 8."""

    def words(lane: int, count: int, size: int) -> bytes:
        stream = b""
        for n, at in enumerate(range(0, count, CHUNK)):
            sub = digest("mask", bytes([lane]), u32(n), key=seed)
            stream += sodium.randombytes_buf_deterministic(size * min(CHUNK, count - at), sub)
        return stream

    body, tail = words(0, m, 2), words(1, len(TAIL), 8)
    return Vector(np.frombuffer(body, "<u2").astype(np.uint16), np.frombuffer(tail, "<u8").astype(np.uint64))


# The plain codec (11.5 to 11.7).


def step_for(clip: float, largest: int) -> float:
    return clip * largest / (32767 - largest)


def checksum(body: Iterable[int], lanes: Iterable[int], seed: bytes) -> int:
    """Σ_j u_j·q_j mod 2^64 over the signed integers of the body and the lanes before the checksum.

    Args:
        seed: chks(plan hash).
    """
    values = [*body, *lanes]
    stream = sodium.randombytes_buf_deterministic(8 * len(values), seed)
    u = (int.from_bytes(stream[8 * j : 8 * j + 8], "little") | 1 for j in range(len(values)))
    return sum(a * b for a, b in zip(u, values, strict=True)) % 2**64


@dataclass(frozen=True)
class Contribution:
    """What one device adds: its delta in float32 and the numbers of its tail; losses are sums of min(loss, 64)."""

    delta: Floats
    weight: float = 1.0
    examples: int = 0
    training_loss: float = 0.0
    evaluated: int = 0
    evaluation_loss: float = 0.0
    correct: int = 0


def encoded(given: Contribution, clip: float, largest: int, seed: bytes, words: npt.NDArray[np.uint64]) -> Vector:
    """Residues of one device, body and tail, before masking.

    Args:
        words: one random u64 a coordinate.
    """
    step = step_for(clip, largest)
    v = given.delta.astype(np.float64) * given.weight
    norm = float(np.sqrt(np.sum(v * v)))
    v *= min(1.0, clip / norm) if norm > 0 else 1.0
    limit = 32767 // largest
    q = np.clip(np.floor(v / step + (words >> np.uint64(11)).astype(np.float64) * 2.0**-53), -limit, limit)
    body = [int(one) for one in q] + [0] * (padded(len(q)) - len(q))
    lanes = [
        round(given.weight * WEIGHT_ONE),
        min(given.examples, LARGEST_COUNT),
        min(round(given.training_loss * 2**16), LARGEST_LOSS),
        min(given.evaluated, LARGEST_COUNT),
        min(round(given.evaluation_loss * 2**16), LARGEST_LOSS),
        min(given.correct, LARGEST_COUNT),
        sum(one * one for one in body),
    ]
    lanes.append(checksum(body, lanes, seed))
    return Vector(np.array([one % 2**BITS for one in body], np.uint16), np.array(lanes, np.uint64))


@dataclass(frozen=True)
class Opened:
    """A sum that passed every check: signed body without padding, and the lanes."""

    body: Integers
    lanes: dict[str, int]


def opened(total: Vector, count: int, coords: int, policy: Fields, plan: Fields, seed: bytes) -> Opened:
    """Check and open a sum over `count` survivors (sections 5 and 11.6), or `Refused`."""
    body = total.body.astype(np.int64)
    body[body >= 2 ** (BITS - 1)] -= 2**BITS
    lanes = dict(zip(TAIL, (int(one) for one in total.tail), strict=True))
    before = [lanes[name] for name in TAIL[:-1]]
    require(lanes["checksum"] == checksum((int(one) for one in body), before, seed), "checksum")
    require(not body[coords:].any(), "padding")
    steps = plan["clip"] / plan["step"]
    highest = {
        "weight": policy["largest_weight"] * WEIGHT_ONE,
        "examples": LARGEST_COUNT,
        "training_loss": LARGEST_LOSS,
        "evaluated": LARGEST_COUNT,
        "evaluation_loss": LARGEST_LOSS,
        "correct": LARGEST_COUNT,
        "norm": (steps + len(body) ** 0.5) ** 2,
    }
    require(lanes["weight"] >= WEIGHT_ONE * count, "lane range: weight")
    for name, most in highest.items():
        require(lanes[name] <= count * most, f"lane range: {name}")
    norm = float(np.sqrt(np.sum(body.astype(np.float64) ** 2)))
    require(norm <= count * steps + (count * len(body)) ** 0.5, "norm")
    return Opened(body[:coords], lanes)


# The model (section 2, 11.7).


def model_hash(flat: Floats) -> bytes:
    return digest("modl", flat.astype("<f4").tobytes())


def next_version(flat: Floats, body: Integers, step: float, weight: int, rate: float) -> Floats:
    """`flat + float32(Q·step / (W/65536) · rate)`, from left to right in float64."""
    change = body.astype(np.float64) * step / (weight / 65536) * rate
    return flat + change.astype(np.float32)


def adam_step(state: Floats, coords: int, u: Floats, rate: float, momentum: float, adam: list[float]) -> Floats:
    """The state after a step of FedAdam: float64 from left to right, each line rounded once to float32."""
    beta, tau = adam
    after: list[list[np.float32]] = [[], [], []]
    for j in range(coords):
        flat, update = float(state[j]), float(u[j])
        first, second = 0.0, tau * tau
        if len(state) == 3 * coords:
            first, second = float(state[coords + j]), float(state[2 * coords + j])
        m = np.float32(first * momentum + update * (1 - momentum))
        v = np.float32(second * beta + update * update * (1 - beta))
        step = float(m) * rate / (math.sqrt(float(v)) + tau)
        for part, value in zip(after, (np.float32(flat + step), m, v), strict=True):
            part.append(value)
    return np.array([*after[0], *after[1], *after[2]], np.float32)


def signed_body(packed: bytes, coords: int) -> Integers:
    """The signed integers of a delta's packed body."""
    m = padded(coords)
    require(len(packed) == 2 * m, "a delta's body of the wrong length")
    body = unpacked(packed + bytes(8 * len(TAIL)), m).body.astype(np.int64)
    body[body >= 2 ** (BITS - 1)] -= 2**BITS
    require(not body[coords:].any(), "a delta's padding")
    return body[:coords]


def picked(plan: bytes, index: int, sample: int) -> bool:
    """Whether a device takes part in this plan."""
    return int.from_bytes(digest("pick", plan, u32(index))[:4], "little") < sample
