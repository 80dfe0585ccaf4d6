"""The rotated codec written a second time, slowly, from section 11.7 alone; and its golden vectors.

Run as a program it writes tests/vectors/rotated.json anew.
"""

import hashlib
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
from codec_reference import REPORT, SEED, any_delta, textbook_checksum
from codec_reference import VECTORS as PLAIN_VECTORS
from nacl.bindings import randombytes_buf_deterministic

from hushfleet.codec import LocalReport, Opened
from hushfleet.encoding.grid import Grid, update_of
from hushfleet.encoding.keyframe import eight_bit, open_eight_bit
from hushfleet.encoding.steps import bits_for, first_step
from hushfleet.encoding.subset import coordinates
from hushfleet.replay import replay
from hushfleet.rotated import encode_rotated, open_delta, open_rotated
from hushfleet.secagg.residues import Vector, add_into, pack, padded, word_dtype
from hushfleet.wire.round import ROTATED, Delta

VECTORS = PLAIN_VECTORS.with_name("rotated.json")
F = np.float32
GOLDEN_RATIO = 0x9E3779B9


# ---- the second writing


def stream(purpose: bytes, name: bytes, size: int) -> bytes:
    person = b"hushfleet." + purpose + b".1"
    return randombytes_buf_deterministic(size, hashlib.blake2b(name, digest_size=32, person=person).digest())


def words(purpose: bytes, name: bytes, count: int) -> list[int]:
    data = stream(purpose, name, 4 * count)
    return [int.from_bytes(data[4 * j : 4 * j + 4], "little") for j in range(count)]


def textbook_transform(values: list[Any]) -> list[Any]:
    """float32 values, a power of two of them."""
    values, stride = list(values), len(values) // 2
    while stride:
        for at in range(len(values)):
            if not at & stride:
                left, right = values[at], values[at + stride]
                values[at], values[at + stride] = left + right, left - right
        stride //= 2
    return [value * F(1 / math.sqrt(len(values))) for value in values]


def flips(purpose: bytes, name: bytes, count: int) -> list[bool]:
    data = stream(purpose, name, -(-count // 8))
    return [bool(data[j // 8] >> j % 8 & 1) for j in range(count)]


def flipped(values: list[Any], signs: list[bool]) -> list[Any]:
    return [-value if sign else value for value, sign in zip(values, signs, strict=True)]


def textbook_rotate(values: list[Any], name: bytes) -> list[Any]:
    count = len(values)
    power = 2 ** (count.bit_length() - 1)
    values = flipped(values, flips(b"rot1", name, count))
    values = textbook_transform(values[:power]) + values[power:]
    values = flipped(values, flips(b"rot2", name, count))
    return values[: count - power] + textbook_transform(values[count - power :])


def textbook_rotate_back(values: list[Any], name: bytes) -> list[Any]:
    count = len(values)
    power = 2 ** (count.bit_length() - 1)
    values = values[: count - power] + textbook_transform(values[count - power :])
    values = flipped(values, flips(b"rot2", name, count))
    values = textbook_transform(values[:power]) + values[power:]
    return flipped(values, flips(b"rot1", name, count))


def textbook_subset(parameters: int, coords: int, name: bytes) -> list[int]:
    edges = [n * parameters // coords for n in range(coords + 1)]
    drawn = words(b"subs", name, coords)
    return [low + (word * (high - low) >> 32) for low, high, word in zip(edges, edges[1:], drawn, strict=False)]


def textbook_offsets(coords: int, name: bytes, index: int) -> list[int]:
    """In units of 2^-32."""
    return [(start + index * GOLDEN_RATIO) % 2**32 - 2**31 for start in words(b"dith", name, coords)]


def textbook_encode(
    update: list[float], name: bytes, coords: int, index: int, bits: int, clip: float, step: float, weight: float
) -> bytes:
    rotated = textbook_rotate([F(value) for value in update], name)
    sent = [float(rotated[j]) for j in textbook_subset(len(update), coords, name)]
    norm = math.sqrt(math.fsum(value * value for value in sent))
    shrink = clip / norm if norm > clip else 1.0
    offsets = textbook_offsets(coords, name, index)
    q = [round(value * shrink / step + offset / 2**32) for value, offset in zip(sent, offsets, strict=True)]
    q += [0] * (padded(coords) - coords)
    tail = [
        round(weight * 2**16),
        REPORT.examples,
        round(2**16 * REPORT.training_loss_sum),
        REPORT.evaluated,
        round(2**16 * REPORT.evaluation_loss_sum),
        REPORT.correct,
        sum(value * value for value in q),
    ]
    tail.append(textbook_checksum(q + tail))
    body = np.array([value % 2**bits for value in q]).astype(word_dtype(bits))
    return pack(body, bits) + b"".join((lane % 2**64).to_bytes(8, "little") for lane in tail)


def textbook_centred(residues: list[int], indices: list[int], name: bytes, bits: int) -> list[int]:
    """The opened sum without its offsets, nearest to 0, in units of 2^-32."""
    everyone = [textbook_offsets(len(residues), name, index) for index in indices]
    centred = []
    for residue, offsets in zip(residues, zip(*everyone, strict=True), strict=True):
        value = (residue * 2**32 - sum(offsets)) % 2 ** (bits + 32)
        centred.append(value - 2 ** (bits + 32) if value >= 2 ** (bits + 31) else value)
    return centred


def textbook_update(
    centred: list[int], parameters: int, name: bytes, step: float, weight: float
) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """The mean update of a round."""
    rotated = [F(0)] * parameters
    for at, value in zip(textbook_subset(parameters, len(centred), name), centred, strict=True):
        rotated[at] = F(float(value) * 2.0**-32 * step / weight)
    return np.array(textbook_rotate_back(rotated, name), F)


# ---- rounds to test with


def name_of(seed: int) -> bytes:
    """A plan hash."""
    return hashlib.blake2b(str(seed).encode(), digest_size=32).digest()


def encoded(update: Any, grid: Grid, index: int, bits: int, step: float, clip: float = 1.0) -> Vector:
    """A vector with the usual report."""
    return encode_rotated(
        grid.rotated(update), 1.0, REPORT, grid=grid, index=index, bits=bits, clip=clip, step=step, checksum_seed=SEED
    )


def summed(vectors: list[Vector], coords: int, bits: int) -> Vector:
    """The sum of some vectors, through the wire."""
    total = Vector.zeros(coords, bits, 8)
    for vector in vectors:
        add_into(total, Vector.from_bytes(vector.to_bytes(bits), bits, coords, 8))
    return total


def opened(total: Vector, indices: list[int], grid: Grid, bits: int, step: float, clip: float = 1.0) -> Opened:
    """Opened with the usual rules."""
    return open_rotated(
        total, indices, grid=grid, bits=bits, clip=clip, step=step, largest_weight=4.0, checksum_seed=SEED
    )


# ---- golden vectors

CASES = [(1, 1.0, [7]), (5, 0.1, [1, 2, 3]), (70, 1.0, [3, 5, 9, 70_000]), (200, 0.3, [1, 2, 4, 8, 16, 32])]
LARGE = [(1000, 0.1), (4810, 0.05), (65_536, 0.1), (100_000, 0.1)]


def golden_rotated() -> dict[str, list[dict[str, Any]]]:
    """Inputs and outputs for other implementations: whole for small models, hashed for large ones."""
    rounds = [_golden_round(*case) for case in CASES]
    return {
        "rounds": rounds,
        "large": [_golden_large(*case) for case in LARGE],
        "fedadam": [_golden_step(rounds[0], 15), _golden_step(rounds[2], 16)],
    }


def _golden_round(parameters: int, keep: float, indices: list[int]) -> dict[str, Any]:
    name, coords, bits = name_of(parameters), coordinates(parameters, keep), bits_for(len(indices))
    grid, step = Grid(parameters, coords, name), first_step(1.0, len(indices), bits, coords)
    updates = [any_delta(n, parameters, 0.1) for n, _ in enumerate(indices)]
    vectors = [encoded(update, grid, index, bits, step) for update, index in zip(updates, indices, strict=True)]
    total = summed(vectors, coords, bits)
    result = opened(total, indices, grid, bits, step)
    packed = pack(total.body, bits)
    centred = open_delta(packed, bits, indices, grid)
    return {
        "plan_hash": name.hex(),
        "parameters": parameters,
        "keep": keep,
        "coords": coords,
        "bits": bits,
        "clip": 1.0,
        "step": step,
        "checksum_seed": SEED.hex(),
        "report": [REPORT.examples, REPORT.training_loss_sum, *_evaluation(REPORT)],
        "rotated": grid.rotation.forward(updates[0]).astype("<f4").tobytes().hex(),
        "subset": grid.positions.tolist(),
        "starts": grid.words.tolist(),
        "dropped": grid.dropped(grid.rotated(updates[0])).astype("<f4").tobytes().hex(),
        "devices": [
            {"index": index, "update": update.astype("<f4").tobytes().hex(), "vector": vector.to_bytes(bits).hex()}
            for index, update, vector in zip(indices, updates, vectors, strict=True)
        ],
        "total": total.to_bytes(bits).hex(),
        "residues": result.residues.tolist(),
        "centred": centred.tolist(),
        "weight": result.weight,
        "norm": float(f"{result.metrics.norm:.12g}"),
        "update": grid.expand(update_of(centred, step, result.weight / 65_536)).astype("<f4").tobytes().hex(),
        "keyframe_16": eight_bit(updates[0], parameters, 16).hex(),
        "after_keyframe": open_eight_bit(eight_bit(updates[0], parameters, 16), parameters, 16)
        .astype("<f4")
        .tobytes()
        .hex(),
    }


def _golden_step(case: dict[str, Any], version: int) -> dict[str, Any]:
    """A step of FedAdam with the sum of a golden round, after two others with it that began without moments."""
    parameters, indices = case["parameters"], [device["index"] for device in case["devices"]]
    body = pack(np.array(case["residues"] + [0] * (-parameters % 64)).astype(np.uint8), case["bits"])
    plan, weight, adam = bytes.fromhex(case["plan_hash"]), case["weight"], (0.99, 0.001)
    delta = Delta(0, 1, plan, case["bits"], body, case["step"], weight, 0.03, ROTATED, 0.9, adam)
    states = [any_delta(version, parameters, 0.1)]
    for number in (1, 2, version):
        after = replay(states[-1], replace(delta, version=number), indices, parameters, case["clip"])
        states.append(after.state)
    return {
        "round": parameters,
        "version": version,
        "rate": delta.rate,
        "momentum": delta.momentum,
        "adam": list(adam),
        "states": [state.astype("<f4").tobytes().hex() for state in states],
        "snapshot": after.snapshot.hex(),
    }


def _evaluation(report: LocalReport) -> list[float]:
    return [report.evaluated, report.evaluation_loss_sum, report.correct]


def _golden_large(parameters: int, keep: float) -> dict[str, Any]:
    return {"parameters": parameters, "keep": keep, **large_hashes(parameters, keep)}


def large_hashes(parameters: int, keep: float) -> dict[str, str]:
    """What a device makes of a body of pseudo-random residues, on any machine: BLAKE2b-256 without a person."""
    name, coords, bits = name_of(parameters), coordinates(parameters, keep), 5
    grid = Grid(parameters, coords, name)
    body = randombytes_buf_deterministic(padded(coords) * bits // 8, name)
    if coords % 64:
        raise AssertionError("the padding would not be 0")
    centred = open_delta(body, bits, list(range(1, 51)), grid)
    update = grid.expand(update_of(centred, 0.001, 50.0))
    snapshot = eight_bit(update, parameters, 32)
    return {
        "centred": hashed(centred.astype("<i8").tobytes()),
        "update": hashed(update.astype("<f4").tobytes()),
        "dropped": hashed(grid.dropped(grid.rotated(update)).astype("<f4").tobytes()),
        "keyframe_32": hashed(snapshot),
        "after_keyframe": hashed(open_eight_bit(snapshot, parameters, 32).astype("<f4").tobytes()),
    }


def hashed(data: bytes) -> str:
    """BLAKE2b-256, hex."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(golden_rotated(), indent=1) + "\n")
