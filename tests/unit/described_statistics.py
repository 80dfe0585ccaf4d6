"""The golden vectors of statistics rounds: from a device's readings to the opened sums."""

from typing import Any

import numpy as np
from described_fleet import Section
from golden_fleet import fixed
from numpy.typing import NDArray

from hushfleet.codec import PLAIN_BITS
from hushfleet.judgement import judge
from hushfleet.secagg.residues import Vector, add_into
from hushfleet.statistics import TAIL, Digits, coordinates, describe, encode_statistics, open_statistics
from hushfleet.wire.schema import ANOMALY, CLASSES, FORECAST, Channel, Schema

SEED = bytes(range(32))


def schema_of(channels: int, classes: int, task: str = FORECAST) -> Schema:
    """A schema with so many channels and classes; one without classes is a forecast, or another task."""
    return Schema(
        fleet=bytes(16),
        issued=1,
        protocol=1,
        version=1,
        model=bytes(32),
        channels=tuple(Channel(f"channel {number}", "V", 0.0, 1.0) for number in range(channels)),
        rate=1.0,
        samples=2,
        step=1,
        missing=0.5,
        mask=0,
        task=CLASSES if classes else task,
        classes=tuple(f"class {number}" for number in range(classes)),
        target=0,
        horizon=int(not classes and task == FORECAST),
    )


def readings(seed: str, count: int) -> NDArray[np.float64]:
    """Measured samples as shares of a range, exact in a few bits."""
    return np.frombuffer(fixed(seed)(count), np.uint8) / 256.0


def rows_kept(seed: str, schema: Schema, count: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """What a model gives for so many rows, and what is right; exact in a few bits."""
    width = schema.outputs()
    outputs = np.frombuffer(fixed(f"outputs {seed}")(count * width), np.int8).reshape(count, width) / 32
    right = np.frombuffer(fixed(f"right {seed}")(count * width), np.uint8).reshape(count, width)
    targets = right[:, 0].astype(np.int64) % len(schema.classes) if schema.classes else (right / 256).astype(np.float32)
    return outputs.astype(np.float32), targets


def statistics() -> Section:
    """Cases for fleets of different largest survivor sets: three devices each, the last one without any reading."""
    return [_case(31, 2, 2), _case(10_000, 1, 0), _case(16_383, 1, 3), _case(100, 1, 0, ANOMALY)]


def _case(largest: int, channels: int, classes: int, task: str = FORECAST) -> dict[str, Any]:
    schema, digits = schema_of(channels, classes, task), Digits.of(largest)
    devices, total = [], Vector.zeros(coordinates(schema, digits), PLAIN_BITS, 2)
    for name, windows, count in (("one", 9, 40), ("two", 10_000, 6), ("three", 0, 0)):
        labels = np.arange(min(windows, 5), dtype=np.int64) % classes if classes else np.zeros(0, np.int64)
        values = [readings(f"{name} {channel}", count) for channel in range(channels)]
        missing = [1.0 if not count else channel / 4 for channel in range(channels)]
        outputs, targets = rows_kept(name, schema, min(count, 9))
        numbers = describe(schema, windows, labels, values, missing, judge(schema, [(outputs, targets)]))
        words = fixed(f"rounding {name}")(8 * len(numbers))
        vector = encode_statistics(numbers, digits=digits, checksum_seed=SEED, draw=lambda _, words=words: words)  # type: ignore[misc]
        devices.append(
            {
                "windows": windows,
                "labels": labels.tolist(),
                "values": [one.tolist() for one in values],
                "missing": missing,
                "outputs": outputs.tolist(),
                "targets": targets.tolist(),
                "numbers": numbers.tolist(),
                "randomness": words.hex(),
                "vector": vector.to_bytes(PLAIN_BITS).hex(),
            }
        )
        add_into(total, vector)
    sums = open_statistics(total, len(devices), schema, digits=digits, checksum_seed=SEED)
    return {
        "largest_survivor_set": largest,
        "channels": channels,
        "classes": classes,
        "task": schema.task,
        "tail": TAIL,
        "base": digits.base,
        "digits": digits.count,
        "step": digits.step,
        "coords": coordinates(schema, digits),
        "checksum_seed": SEED.hex(),
        "devices": devices,
        "total": total.to_bytes(PLAIN_BITS).hex(),
        "sums": sums.tolist(),
    }
