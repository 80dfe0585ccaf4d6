"""A second, slow writing of the plain codec (sections 11.6 and 11.7), and the golden vectors.

Run as a program it writes tests/vectors/codec.json anew.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from nacl.bindings import randombytes_buf_deterministic
from numpy.typing import NDArray

from hushfleet import codec
from hushfleet.actions import Draw
from hushfleet.codec import LocalReport, Opened
from hushfleet.learning.server import model_hash
from hushfleet.secagg.residues import Vector, add_into, pack, unpack

VECTORS = Path(__file__).parent.parent / "vectors" / "codec.json"
SEED = bytes(range(32))
REPORT = LocalReport(examples=640, training_loss_sum=512.75, evaluated=90, evaluation_loss_sum=71.5, correct=61)


def seeded(seed: int) -> Draw:
    """Bytes that look random and are the same in every run."""
    return lambda size: randombytes_buf_deterministic(size, seed.to_bytes(32, "little"))


def always(octet: int) -> Draw:
    return lambda size: bytes([octet]) * size


def any_delta(seed: int, coords: int, scale: float = 1.0) -> NDArray[np.float32]:
    words = np.frombuffer(seeded(seed)(4 * coords), "<u4")
    return ((words / 2.0**31 - 1) * scale).astype(np.float32)


def encode(delta: NDArray[np.float32], largest: int, draw: Draw, **changed: Any) -> Vector:
    arguments: dict[str, Any] = {
        "weight": 1.0,
        "report": REPORT,
        "clip": 1.0,
        "step": codec.plain_step(1.0, largest),
        "largest_survivor_set": largest,
        "checksum_seed": SEED,
        "draw": draw,
    }
    return codec.encode_plain(delta, **(arguments | changed))


def opened(total: Vector, survivors: int, coords: int, largest: int, **changed: Any) -> Opened:
    arguments: dict[str, Any] = {
        "coords": coords,
        "clip": 1.0,
        "step": codec.plain_step(1.0, largest),
        "largest_weight": 1.0,
        "checksum_seed": SEED,
    }
    return codec.open_plain(total, survivors, **(arguments | changed))


def textbook_checksum(integers: list[int]) -> int:
    stream = randombytes_buf_deterministic(8 * len(integers), SEED)
    words = [int.from_bytes(stream[8 * j : 8 * j + 8], "little") | 1 for j in range(len(integers))]
    return sum(u * q for u, q in zip(words, integers, strict=True)) % 2**64


def with_checksum(integers: list[int], tail: list[int]) -> Vector:
    """A vector of 128 residues that a liar can make: any body, any lanes, and the checksum that goes with them."""
    integers = integers + [0] * (128 - len(integers))
    tail = [*tail, textbook_checksum(integers + tail)]
    return Vector(np.array(integers, np.int64).astype(np.uint16), np.array(tail, np.uint64))


def textbook_encode(
    delta: list[float], weight: float, report: LocalReport, clip: float, step: float, largest: int, randomness: bytes
) -> bytes:
    v = [x * weight for x in delta]
    norm = math.sqrt(math.fsum(x * x for x in v))
    v = [x * min(1.0, clip / norm) for x in v] if norm else v
    cut = 32767 // largest
    q = []
    for j, x in enumerate(v):
        r = int.from_bytes(randomness[8 * j : 8 * j + 8], "little") >> 11
        q.append(min(max(math.floor(x / step + r * 2.0**-53), -cut), cut))
    q += [0] * (-len(q) % 64)
    tail = [
        round(weight * 2**16),
        report.examples,
        round(2**16 * report.training_loss_sum),
        report.evaluated,
        round(2**16 * report.evaluation_loss_sum),
        report.correct,
        sum(x * x for x in q),
    ]
    tail.append(textbook_checksum(q + tail))
    residues = [x % 2**16 for x in q]
    low_then_high = bytes(x & 255 for x in residues) + bytes(x >> 8 for x in residues)
    return low_then_high + b"".join(lane.to_bytes(8, "little") for lane in tail)


def golden_examples() -> dict[str, list[dict[str, Any]]]:
    """Inputs and outputs for other implementations: bytes as hex, little-endian; floats in shortest form."""
    packing, encoding, opening, versions = [], [], [], []
    for bits in range(2, 17):
        packed = seeded(bits)(8 * bits * 2)
        words = unpack(packed, bits, 128)
        assert pack(words, bits) == packed
        packing.append({"bits": bits, "residues": words.astype("<u2").tobytes().hex(), "packed": packed.hex()})
    for coords, scale, weight, largest, clip, devices in [
        (1, 1e-3, 1.0, 100, 1.0, 3),
        (5, 10.0, 2.5, 16_383, 0.5, 2),
        (70, 0.05, 1.0, 8, 2.0, 8),
        (3, 0.0, 1.0, 1, 1.0, 1),
    ]:
        step = codec.plain_step(clip, largest)
        total = Vector.zeros(coords, codec.PLAIN_BITS, 8)
        for device in range(devices):
            delta, randomness = any_delta(device, coords, scale), seeded(100 + device)(8 * coords)
            vector = encode(delta, largest, seeded(100 + device), weight=weight, clip=clip, step=step)
            add_into(total, vector)
            encoding.append(
                {
                    "delta": delta.astype("<f4").tobytes().hex(),
                    "weight": weight,
                    "examples": REPORT.examples,
                    "training_loss_sum": REPORT.training_loss_sum,
                    "evaluated": REPORT.evaluated,
                    "evaluation_loss_sum": REPORT.evaluation_loss_sum,
                    "correct": REPORT.correct,
                    "clip": clip,
                    "largest_survivor_set": largest,
                    "step": step,
                    "checksum_seed": SEED.hex(),
                    "randomness": randomness.hex(),
                    "vector": vector.to_bytes(codec.PLAIN_BITS).hex(),
                }
            )
        result = opened(total, devices, coords, largest, clip=clip, step=step, largest_weight=4.0)
        body = codec.pack_opened(result.residues, codec.PLAIN_BITS)
        opening.append(
            {
                "total": total.to_bytes(codec.PLAIN_BITS).hex(),
                "survivors": devices,
                "coords": coords,
                "clip": clip,
                "step": step,
                "largest_weight": 4.0,
                "checksum_seed": SEED.hex(),
                "residues": result.residues.tolist(),
                "body": body.hex(),
                "weight": result.weight,
                "training_loss": result.metrics.training_loss,
                "evaluation_loss": result.metrics.evaluation_loss,
                "norm": result.metrics.norm,
            }
        )
        flat = any_delta(99, coords)
        after = codec.apply_delta(flat, body, bits=codec.PLAIN_BITS, step=step, weight=result.weight, rate=1.0)
        versions.append(
            {
                "flat": flat.astype("<f4").tobytes().hex(),
                "hash": model_hash(flat).hex(),
                "body": body.hex(),
                "bits": codec.PLAIN_BITS,
                "step": step,
                "weight": result.weight,
                "rate": 1.0,
                "next_flat": after.astype("<f4").tobytes().hex(),
                "next_hash": model_hash(after).hex(),
            }
        )
    return {"packing": packing, "encoding": encoding, "opening": opening, "versions": versions}


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(golden_examples(), indent=1) + "\n")
