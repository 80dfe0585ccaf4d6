"""What this device's compute costs, as a firmware profile has it (docs/planning.md): `hushfleet agent calibrate`.

Everything is what an agent runs in a round. Compute is CPU time, so that whatever else the device does hardly counts;
the smallest of many runs is taken, since nothing makes code faster than it is. The commit is waited for, as an agent
does: the median of its times.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
from hushfleet.rotated import encode_rotated
from hushfleet.secagg import group
from hushfleet.secagg.masks import add_keystream
from hushfleet.secagg.residues import Vector
from hushfleet.wire.layers import (
    AvgPool,
    Conv1d,
    Dense,
    GlobalAverage,
    Gru,
    Layer,
    parameter_count,
    use_count,
    value_count,
)

SMALL: tuple[Layer, ...] = (Dense(8, 8, "relu"), Dense(8, 4))
LARGE: tuple[Layer, ...] = (Dense(64, 512, "relu"), Dense(512, 128, "relu"), Dense(128, 8))
ALONG: tuple[Layer, ...] = (
    Conv1d(100, 6, 16, 5, 2, "relu"),
    AvgPool(48, 16, 2),
    Conv1d(24, 16, 32, 5, 1, "relu"),
    GlobalAverage(20, 32),
    Dense(32, 4),
)
STEPS = 50
RECURRENT: tuple[Layer, ...] = (Gru(STEPS, 6, 16), Dense(16, 4))
"""Models from whose differences comes what a step costs at all, for each parameter, use, value and step of time."""
_SMALLEST = 1e-15
"""Stands for what is lost in what else was measured; a figure is above 0."""
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
        seconds: to spend on each of the ten.

    Raises:
        ConfigurationError: the directory cannot be used.
    """
    tried = trainers_here()
    trained: dict[str, TrainingCost] = {name: training_cost(name, seconds / len(tried)) for name in tried}
    names = sorted(trained, key=lambda name: trained[name].total)
    for key, scale, unit, meaning in (
        ("step", 1e6, "µs", "a training step, besides its arithmetic"),
        ("update", 1e9, "ns", "a training step, for each parameter"),
        ("training", 1e9, "ns", "training, for each use of a parameter by a row"),
        ("sequence", 1e9, "ns", "training, for each value of a row along time"),
        ("recurrence", 1e6, "µs", "training, for each step of a GRU"),
    ):
        found = {name: scale * getattr(trained[name], key) for name in names}
        yield Measurement(key, found[names[0]], unit, meaning, found)
    yield Measurement("multiplication", 1e6 * _multiplication_time(seconds), "µs", "a scalar multiplication")
    yield Measurement("keystream", 1e9 * _keystream_time(seconds), "ns", "a mask, for each byte")
    yield Measurement("encoding", 1e9 * _encoding_time(seconds), "ns", "encoding, for each parameter")
    yield Measurement("rotation", 1e9 * _rotation_time(seconds), "ns", "rotated encoding, for each parameter")
    yield Measurement("sync", 1e3 * _sync_time(directory, seconds), "ms", "a durable commit of 8 KiB")


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """What one trainer needs: the figures of training in seconds of CPU, and of all models that were tried together."""

    step: float
    update: float
    training: float
    sequence: float
    recurrence: float
    total: float


def trainers_here() -> list[TrainerName]:
    """Those that work on this device."""
    try:
        make_trainer("litert", SMALL, "softmax")
    except ConfigurationError:
        return ["numpy"]
    return ["numpy", "litert"]


def training_cost(name: TrainerName, seconds: float) -> TrainingCost:
    """Each figure from a model, or a number of rows, that differs from one before by just that."""

    def took(layers: Sequence[Layer], rows: int = ROWS) -> float:
        return step_time(make_trainer(name, layers, "softmax"), layers, "softmax", seconds, rows)

    small, large, tall = took(SMALL), took(LARGE), took(LARGE, 4 * ROWS)
    along, recurrent = took(ALONG), took(RECURRENT)
    count = parameter_count(LARGE)
    training = max((tall - large) / (3 * ROWS * count), _SMALLEST)
    update = max((large - small) / count - ROWS * training, _SMALLEST)

    def rest(seconds: float, layers: Sequence[Layer]) -> float:
        return seconds - update * parameter_count(layers) - training * ROWS * use_count(layers)

    step = max(rest(small, SMALL), _SMALLEST)
    sequence = max((rest(along, ALONG) - step) / (ROWS * value_count(ALONG)), _SMALLEST)
    loop = rest(recurrent, RECURRENT) - step - sequence * ROWS * value_count(RECURRENT)
    recurrence = max(loop / STEPS, _SMALLEST)
    return TrainingCost(step, update, training, sequence, recurrence, small + large + tall + along + recurrent)


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
