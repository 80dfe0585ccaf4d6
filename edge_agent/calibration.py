"""What this device's compute costs, as a firmware profile has it (docs/planning.md): `hushfleet agent calibrate`.

Everything is what an agent runs in a round. Compute is CPU time, so that whatever else the device does hardly counts;
the smallest of many runs is taken, since nothing makes code faster than it is. The commit is waited for, as an agent
does: the median of its times.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from nacl.utils import random

from edge_agent.training.choice import ROWS, TrainerName, make_trainer, step_time
from edge_agent.vault import Vault
from hushfleet.codec import LocalReport, encode_plain, expanded, plain_step
from hushfleet.encoding.grid import Grid
from hushfleet.encoding.subset import coordinates
from hushfleet.errors import ConfigurationError
from hushfleet.learning.layers import parameter_count
from hushfleet.rotated import encode_rotated
from hushfleet.secagg import group
from hushfleet.secagg.masks import add_keystream
from hushfleet.secagg.residues import Vector
from hushfleet.wire.layers import Dense

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
        trainers: for a figure of training, what each trainer needs, the fastest first; `value` is the first.
    """

    key: str
    value: float
    unit: str
    meaning: str
    trainers: dict[str, float] = field(default_factory=dict)


def calibrate(directory: Path, seconds: float) -> Iterator[Measurement]:
    """Measure one figure after the other.

    Args:
        directory: an existing one on the storage that is to hold the vault; a file is made and removed there.
        seconds: to spend on each of the seven.

    Raises:
        ConfigurationError: the directory cannot be used.
    """
    trained = _training_times(seconds)
    steps = {name: 1e6 * fixed for name, (fixed, _) in trained.items()}
    rates = {name: 1e9 * rate for name, (_, rate) in trained.items()}
    best = next(iter(trained))
    yield Measurement("step", steps[best], "µs", "a training step, besides its arithmetic", steps)
    yield Measurement("training", rates[best], "ns", "training, for each parameter and row", rates)
    yield Measurement("multiplication", 1e6 * _multiplication_time(seconds), "µs", "a scalar multiplication")
    yield Measurement("keystream", 1e9 * _keystream_time(seconds), "ns", "a mask, for each byte")
    yield Measurement("encoding", 1e9 * _encoding_time(seconds), "ns", "encoding, for each parameter")
    yield Measurement("rotation", 1e9 * _rotation_time(seconds), "ns", "rotated encoding, for each parameter")
    yield Measurement("sync", 1e3 * _sync_time(directory, seconds), "ms", "a durable commit of 8 KiB")


def _training_times(seconds: float) -> dict[str, tuple[float, float]]:
    """Seconds of CPU of a step at all, and for each parameter and row, by trainer; the fastest first."""
    names: list[TrainerName] = ["numpy"]
    with suppress(ConfigurationError):
        make_trainer("litert", SMALL, "softmax")
        names.append("litert")
    work = [ROWS * parameter_count(layers) for layers in (SMALL, LARGE)]
    found: dict[str, tuple[float, float]] = {}
    total: dict[str, float] = {}
    for name in names:
        small, large = (
            step_time(make_trainer(name, layers, "softmax"), layers, "softmax", seconds / len(names))
            for layers in (SMALL, LARGE)
        )
        rate = max((large - small) / (work[1] - work[0]), 1e-15)
        found[name], total[name] = (max(small - rate * work[0], 1e-9), rate), small + large
    return {name: found[name] for name in sorted(names, key=total.__getitem__)}


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
