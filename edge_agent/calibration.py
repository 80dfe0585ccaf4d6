"""What this device's compute costs, as a firmware profile has it (docs/planning.md): `hushfleet agent calibrate`.

Everything is what an agent runs in a round. Compute is CPU time, so that whatever else the device does hardly counts;
the smallest of many runs is taken, since nothing makes code faster than it is. The commit is waited for, as an agent
does: the median of its times.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from nacl.utils import random

from edge_agent.vault import Vault
from hushfleet.codec import LocalReport, encode_plain, expanded, plain_step
from hushfleet.encoding.grid import Grid
from hushfleet.encoding.subset import coordinates
from hushfleet.errors import ConfigurationError
from hushfleet.learning.layers import initial_flat, parameter_count
from hushfleet.learning.local import train
from hushfleet.rotated import encode_rotated
from hushfleet.secagg import group
from hushfleet.secagg.masks import add_keystream
from hushfleet.secagg.residues import Vector
from hushfleet.wire.layers import Dense

ROWS = 32
SMALL, LARGE = (Dense(8, 8, "relu"), Dense(8, 4)), (Dense(64, 512, "relu"), Dense(512, 128, "relu"), Dense(128, 8))
"""Two models; from their difference comes what a step costs at all, and for each parameter and row."""
COORDS = 100_000
SYNCED = 8_192
"""Bytes of the record that is committed: a small upload."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One of a profile's compute figures as measured here.

    Attributes:
        key: its name in the profile's `[compute]`.
        value: in `unit`.
        meaning: in words.
    """

    key: str
    value: float
    unit: str
    meaning: str


def calibrate(directory: Path, seconds: float) -> Iterator[Measurement]:
    """Measure one figure after the other.

    Args:
        directory: an existing one on the storage that is to hold the vault; a file is made and removed there.
        seconds: to spend on each of the seven.

    Raises:
        ConfigurationError: the directory cannot be used.
    """
    small, large = _step_time(SMALL, seconds / 2), _step_time(LARGE, seconds / 2)
    work = [ROWS * parameter_count(layers) for layers in (SMALL, LARGE)]
    training = max((large - small) / (work[1] - work[0]), 1e-15)
    fixed = max(small - training * work[0], 1e-9)
    yield Measurement("step", 1e6 * fixed, "µs", "a training step, besides its arithmetic")
    yield Measurement("training", 1e9 * training, "ns", "training, for each parameter and row")
    yield Measurement("multiplication", 1e6 * _multiplication_time(seconds), "µs", "a scalar multiplication")
    yield Measurement("keystream", 1e9 * _keystream_time(seconds), "ns", "a mask, for each byte")
    yield Measurement("encoding", 1e9 * _encoding_time(seconds), "ns", "encoding, for each parameter")
    yield Measurement("rotation", 1e9 * _rotation_time(seconds), "ns", "rotated encoding, for each parameter")
    yield Measurement("sync", 1e3 * _sync_time(directory, seconds), "ms", "a durable commit of 8 KiB")


def _step_time(layers: tuple[Dense, ...], seconds: float) -> float:
    """Seconds of CPU of one step of 32 rows."""
    steps, generator = 10, np.random.default_rng(1)
    flat = initial_flat(layers, bytes(32))
    x = generator.standard_normal((ROWS, layers[0].inputs)).astype(np.float32)
    y = generator.integers(0, layers[-1].outputs, ROWS)

    def run() -> None:
        train(
            flat,
            layers,
            x,
            y,
            head="softmax",
            steps=steps,
            batch=ROWS,
            rate=0.01,
            momentum=0.9,
            proximal=0.0,
            order_seed=bytes(32),
        )

    return _smallest(run, seconds) / steps


def _multiplication_time(seconds: float) -> float:
    point, factor = group.base_multiply(group.scalar(7)), group.reduce(random(64))
    return _smallest(lambda: group.multiply(factor, point), seconds)


def _keystream_time(seconds: float) -> float:
    vector = Vector.zeros(COORDS, 8, 8)
    return _smallest(lambda: add_keystream(vector, bytes(32)), seconds) / len(vector.body)


def _encoding_time(seconds: float) -> float:
    delta = np.random.default_rng(1).standard_normal(COORDS).astype(np.float32)
    report = LocalReport(ROWS, 1.0, 0, 0.0, 0)

    def run() -> None:
        encode_plain(
            delta,
            1.0,
            report,
            clip=1.0,
            step=plain_step(1.0, 100),
            largest_survivor_set=100,
            checksum_seed=bytes(32),
            draw=expanded(random),
        )

    return _smallest(run, seconds) / COORDS


def _rotation_time(seconds: float) -> float:
    """A tenth of the coordinates, and back for what is dropped, as a device does it in every round anew."""
    update = np.random.default_rng(1).standard_normal(COORDS).astype(np.float32)
    report = LocalReport(ROWS, 1.0, 0, 0.0, 0)

    def run() -> None:
        grid = Grid(COORDS, coordinates(COORDS, 0.1), bytes(32))
        rotated = grid.rotated(update)
        encode_rotated(rotated, 1.0, report, grid=grid, index=1, bits=6, clip=1.0, step=0.01, checksum_seed=bytes(32))
        grid.dropped(rotated)

    return _smallest(run, seconds) / COORDS


def _sync_time(directory: Path, seconds: float) -> float:
    """Seconds until a commit is on the disk."""
    try:
        with tempfile.TemporaryDirectory(dir=directory) as place:
            vault = Vault(Path(place) / "calibrate.db", random)
            try:
                return median(_timed(lambda: _commit(vault), seconds, time.perf_counter))
            finally:
                vault.close()
    except OSError as error:
        raise ConfigurationError(f"cannot write in {directory}: {error.strerror}; name another --directory") from None


def _commit(vault: Vault) -> None:
    with vault.transaction():
        vault.save("calibration", random(SYNCED))


def _smallest(run: Callable[[], object], seconds: float) -> float:
    return min(_timed(run, seconds, time.process_time))


def _timed(run: Callable[[], object], seconds: float, clock: Callable[[], float]) -> list[float]:
    """Times of as many runs as fit, three at least, after one that does not count."""
    run()
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < 3 or time.monotonic() < end:
        begin = clock()
        run()
        times.append(clock() - begin)
    return times


def fragment(measurements: list[Measurement], where: str) -> str:
    """The `[compute]` table of a firmware profile; `where` is the source of its figures."""
    lines = [
        f"{one.key} = {{ value = {one.value:.3g}, source = {json.dumps(where)} }}  # {one.unit}: {one.meaning}"
        for one in measurements
    ]
    return "\n".join(["[compute]", *lines])
