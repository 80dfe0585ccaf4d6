"""A second, slow writing of the protocol's bytes and arithmetic, from docs/protocol.md and nothing of the project.

Only hashlib and struct of the standard library: msgpack, Ed25519, ChaCha20 and Shamir stand here in plain Python
integers. The field tables are tests/vectors/tables.toml. Nothing here is fast, constant-time or fit to hold a secret.
"""

import hashlib
import struct
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent.parent / "vectors"
TABLES: dict[str, dict[str, str]] = tomllib.loads((VECTORS / "tables.toml").read_text())


# ---- hashes


def hashed(name: str, data: bytes, key: bytes = b"", size: int = 32) -> bytes:
    return hashlib.blake2b(data, digest_size=size, key=key, person=b"hushfleet." + name.encode() + b".1").digest()


def signed(kind: str, fleet: bytes, body: bytes) -> bytes:
    return b"hushfleet." + kind.encode() + b"\x00" + fleet + body


def little(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


# ---- msgpack, the one canonical form


def packed(value: Any) -> bytes:
    match value:
        case int():
            for limit, mark, form in ((1 << 7, b"", ">B"), (1 << 8, b"\xcc", ">B"), (1 << 16, b"\xcd", ">H")):
                if value < limit:
                    return mark + struct.pack(form, value)
            return (b"\xce" + struct.pack(">I", value)) if value < 1 << 32 else b"\xcf" + struct.pack(">Q", value)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case bytes():
            for limit, mark, form in ((1 << 8, b"\xc4", ">B"), (1 << 16, b"\xc5", ">H"), (1 << 32, b"\xc6", ">I")):
                if len(value) < limit:
                    return mark + struct.pack(form, len(value)) + value
        case str():
            head = bytes((0xA0 + len(value),)) if len(value) < 32 else b"\xd9" + bytes((len(value),))
            return head + value.encode("ascii")
        case list() | tuple():
            head = bytes((0x90 + len(value),)) if len(value) < 16 else b"\xdc" + struct.pack(">H", len(value))
            return head + b"".join(map(packed, value))
        case dict():
            head = bytes((0x80 + len(value),)) if len(value) < 16 else b"\xde" + struct.pack(">H", len(value))
            return head + b"".join(packed(key) + packed(value[key]) for key in sorted(value))
    raise AssertionError(f"no msgpack here for {value!r}")


def unpacked(data: bytes) -> Any:
    """Reads any msgpack of the kinds that occur, canonical or not."""
    value, end = _unpacked(data, 0)
    assert end == len(data), "bytes are left over"
    return value


def _unpacked(data: bytes, at: int) -> tuple[Any, int]:
    mark, at = data[at], at + 1
    if mark < 0x80:
        return mark, at
    if 0xCC <= mark <= 0xCF:
        size = 1 << (mark - 0xCC)
        return int.from_bytes(data[at : at + size], "big"), at + size
    if mark == 0xCB:
        return struct.unpack(">d", data[at : at + 8])[0], at + 8
    if 0xC4 <= mark <= 0xC6 or mark == 0xD9 or 0xA0 <= mark < 0xC0:
        size = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1}.get(mark, 0)
        length = int.from_bytes(data[at : at + size], "big") if size else mark - 0xA0
        content = data[at + size : at + size + length]
        assert len(content) == length
        return (content if mark <= 0xC6 and mark >= 0xC4 else content.decode("ascii")), at + size + length
    if 0x90 <= mark < 0xA0 or mark == 0xDC:
        count, at = (mark - 0x90, at) if mark != 0xDC else (int.from_bytes(data[at : at + 2], "big"), at + 2)
        values = []
        for _ in range(count):
            value, at = _unpacked(data, at)
            values.append(value)
        return values, at
    assert 0x80 <= mark < 0x90 or mark == 0xDE, f"mark {mark:#x} does not occur"
    count, at = (mark - 0x80, at) if mark != 0xDE else (int.from_bytes(data[at : at + 2], "big"), at + 2)
    table = {}
    for _ in range(count):
        key, at = _unpacked(data, at)
        table[key], at = _unpacked(data, at)
    return table, at


# ---- tables


def conforms(value: Any, kind: str) -> bool:
    """Whether a decoded value is of a type as section 11.1 writes it."""
    if kind.startswith("[") and kind.endswith("]"):
        return type(value) is list and all(conforms(item, kind[1:-1]) for item in value)
    if kind.startswith("{"):
        # A {layer} or {channel} with a kind is the table of that name.
        table = TABLES[value.get("kind", kind[1:-1]) if kind in ("{layer}", "{channel}") else kind[1:-1]]
        return list(value) == list(table) and all(conforms(value[name], table[name]) for name in table)
    if kind.startswith("u"):
        return type(value) is int and value < 1 << int(kind[1:])
    if kind == "s":
        return type(value) is str and value.isascii() and len(value) <= 64
    if kind == "f":
        return type(value) is float and abs(value) < float("inf")
    size = kind.removeprefix("b")
    if size.endswith("*"):
        return type(value) is bytes and len(value) % int(size[:-1]) == 0
    return type(value) is bytes and (not size or len(value) == int(size))


def readable(value: Any) -> Any:
    """A decoded value as the vectors show it: bytes as hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: readable(item) for key, item in value.items()}
    return [readable(item) for item in value] if isinstance(value, list) else value


# ---- layers (section 11.7)


def blocks(layer: dict[str, Any]) -> list[tuple[int, int, float]]:
    """(parameters, fans, start) of each block: drawn within ±sqrt(6/fans), or all `start` where fans are 0."""
    match layer:
        case {"kind": "dense", "in": inputs, "out": outputs}:
            return [(inputs * outputs, inputs + outputs, 0), (outputs, 0, 0)]
        case {"kind": "conv1d", "kernel": kernel, "channels": channels, "filters": filters}:
            return [(kernel * channels * filters, kernel * channels + kernel * filters, 0), (filters, 0, 0)]
        case {"kind": "depthwise_conv1d", "kernel": kernel, "channels": channels}:
            return [(kernel * channels, 2 * kernel, 0), (channels, 0, 0)]
        case {"kind": "layer_norm", "channels": channels}:
            return [(channels, 0, 1), (channels, 0, 0)]
        case {"kind": "gru", "channels": channels, "units": units}:
            return [(3 * units * channels, channels + units, 0), (3 * units * units, 2 * units, 0), (3 * units, 0, 0)]
        case {"kind": "avgpool" | "maxpool" | "global_average"}:
            return []
    raise AssertionError(layer)


# ---- Ed25519 (RFC 8032)

PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, PRIME) % PRIME
_ROOT = pow(2, (PRIME - 1) // 4, PRIME)

Point = tuple[int, int]


def _x(y: int, sign: int) -> int:
    square = (y * y - 1) * pow(_D * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if (x * x - square) % PRIME:
        x = x * _ROOT % PRIME
    assert (x * x - square) % PRIME == 0, "no point"
    return PRIME - x if x & 1 != sign else x


BASE: Point = (_x(4 * pow(5, -1, PRIME) % PRIME, 0), 4 * pow(5, -1, PRIME) % PRIME)
IDENTITY: Point = (0, 1)

_Extended = tuple[int, int, int, int]


def _sum(one: _Extended, other: _Extended) -> _Extended:
    a = (one[1] - one[0]) * (other[1] - other[0])
    b = (one[1] + one[0]) * (other[1] + other[0])
    c = 2 * one[3] * other[3] * _D
    d = 2 * one[2] * other[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % PRIME, g * h % PRIME, f * g % PRIME, e * h % PRIME


def _extended(point: Point) -> _Extended:
    return point[0], point[1], 1, point[0] * point[1] % PRIME


def _affine(point: _Extended) -> Point:
    inverse = pow(point[2], -1, PRIME)
    return point[0] * inverse % PRIME, point[1] * inverse % PRIME


def add(one: Point, other: Point) -> Point:
    return _affine(_sum(_extended(one), _extended(other)))


def multiply(factor: int, point: Point) -> Point:
    total, power = _extended(IDENTITY), _extended(point)
    while factor:
        if factor & 1:
            total = _sum(total, power)
        power, factor = _sum(power, power), factor >> 1
    return _affine(total)


def point_bytes(point: Point) -> bytes:
    return little(point[1] | (point[0] & 1) << 255, 32)


def point_of(data: bytes) -> Point:
    value = int.from_bytes(data, "little")
    y = value & (1 << 255) - 1
    return _x(y, value >> 255), y


# ---- points that must not come in

_ORDER_EIGHT = point_of(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"))
TORSION = [multiply(factor, _ORDER_EIGHT) for factor in range(8)]
"""The identity and the seven other points of small order."""

GOOD = multiply(12345, BASE)
MIXED = [point_bytes(add(GOOD, small)) for small in TORSION[1:]]
NOT_CANONICAL = [
    (PRIME + 1).to_bytes(32, "little"),
    (PRIME + 3).to_bytes(32, "little"),
    (2**255 - 1).to_bytes(32, "little"),
    (1 | 1 << 255).to_bytes(32, "little"),
]
OFF_THE_CURVE = (2).to_bytes(32, "little")
BAD_POINTS = {
    **{f"of small order {factor}": point_bytes(point) for factor, point in enumerate(TORSION)},
    **{f"with a part of small order {factor}": point for factor, point in enumerate(MIXED, start=1)},
    **{f"not canonical {number}": point for number, point in enumerate(NOT_CANONICAL)},
    "off the curve": OFF_THE_CURVE,
    "31 bytes": point_bytes(GOOD)[:31],
    "33 bytes": point_bytes(GOOD) + b"\0",
    "no bytes": b"",
}


# ---- signatures


def _expanded(seed: bytes) -> tuple[int, bytes]:
    wide = hashlib.sha512(seed).digest()
    return int.from_bytes(wide[:32], "little") & (1 << 254) - 8 | 1 << 254, wide[32:]


def public_key(seed: bytes) -> bytes:
    return point_bytes(multiply(_expanded(seed)[0], BASE))


def signature(seed: bytes, message: bytes) -> bytes:
    secret, prefix = _expanded(seed)
    r = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % ORDER
    commitment = point_bytes(multiply(r, BASE))
    challenge = int.from_bytes(hashlib.sha512(commitment + public_key(seed) + message).digest(), "little")
    return commitment + little((r + challenge * secret) % ORDER, 32)


# ---- the generator (ChaCha20 of RFC 8439, nonce "LibsodiumDRG", counter 0)


def _block(key: tuple[int, ...], counter: int) -> bytes:
    start = [*struct.unpack("<4I", b"expand 32-byte k"), *key, counter, *struct.unpack("<3I", b"LibsodiumDRG")]
    state = list(start)
    columns = [(i, 4 + i, 8 + i, 12 + i) for i in range(4)]
    diagonals = [(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4) for i in range(4)]
    for _ in range(10):
        for a, b, c, d in (*columns, *diagonals):
            for left, right, target, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                state[left] = state[left] + state[right] & 0xFFFFFFFF
                mixed = state[target] ^ state[left]
                state[target] = (mixed << turn | mixed >> 32 - turn) & 0xFFFFFFFF
    return struct.pack("<16I", *((word + begin) & 0xFFFFFFFF for word, begin in zip(state, start, strict=True)))


def generated(size: int, seed: bytes) -> bytes:
    key = struct.unpack("<8I", seed)
    return b"".join(_block(key, counter) for counter in range(-(-size // 64)))[:size]


def words(data: bytes, size: int) -> list[int]:
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


# ---- Shamir


def share(coefficients: Sequence[int], position: int) -> int:
    total: int = sum(a * position**power for power, a in enumerate(coefficients))
    return total % ORDER


def secret(shares: Sequence[tuple[int, int]]) -> int:
    total = 0
    for x, value in shares:
        for other, _ in shares:
            if other != x:
                value = value * other * pow(other - x, -1, ORDER)
        total += value
    return total % ORDER


# ---- vectors with the plain codec's 16 bits: low bytes, then high bytes, then the lanes


def vector_bytes(body: Sequence[int], tail: Sequence[int]) -> bytes:
    low, high = bytes(q & 255 for q in body), bytes(q >> 8 & 255 for q in body)
    return low + high + b"".join(little(lane % 2**64, 8) for lane in tail)


def vector_of(data: bytes, m: int) -> tuple[list[int], list[int]]:
    return [low | high << 8 for low, high in zip(data[:m], data[m : 2 * m], strict=True)], words(data[2 * m :], 8)


def mask(seed: bytes, m: int, lanes: int) -> tuple[list[int], list[int]]:
    """One pair's keystream for a body of m ≤ 65,536 residues of 16 bits and a tail."""
    body = generated(2 * m, hashed("mask", little(0, 1) + little(0, 4), key=seed))
    tail = generated(8 * lanes, hashed("mask", little(1, 1) + little(0, 4), key=seed))
    return words(body, 2), words(tail, 8)
