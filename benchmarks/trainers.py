"""A training step on each trainer, side by side, and how far their gradients are apart.

    python benchmarks/trainers.py --json trainers.json

A step is what an agent does for a batch of 32 rows: rows chosen, loss, gradient, momentum. The trainers take turns, so
that whatever else the machine does meets all of them; what counts is processor time, the least of all turns.
"""

import os

# As the root command has it for an agent; before numpy.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from goals import Goal

from edge_agent.training.litert_trainer import LiteRtTrainer
from edge_agent.training.numpy_trainer import NumpyTrainer, Trainer
from hushfleet.errors import ConfigurationError
from hushfleet.graphs import runtime
from hushfleet.learning.layers import initial_flat, loss_and_gradient, parameter_count
from hushfleet.wire.layers import AvgPool, Conv1d, Dense, DepthwiseConv1d, GlobalAverage, Gru, Layer, LayerNorm, MaxPool

GOAL, TOLERANCE = 2.0, 1e-5
ROWS, STEPS = 32, 10
MODELS: dict[str, tuple[Layer, ...]] = {
    # 128 steps of six axes, six classes.
    "cnn": (
        Conv1d(128, 6, 16, 5, 2, "relu"),
        AvgPool(62, 16, 2),
        Conv1d(31, 16, 32, 5, 1, "relu"),
        GlobalAverage(27, 32),
        Dense(32, 6),
    ),
    "mlp": (Dense(24, 64, "relu"), Dense(64, 32, "tanh"), Dense(32, 5)),
    "light": (
        Conv1d(128, 6, 16, 1, 1),
        DepthwiseConv1d(128, 16, 5, 2),
        LayerNorm(62, 16, "relu"),
        MaxPool(62, 16, 2),
        Dense(496, 16, "sigmoid"),
        Dense(16, 6),
    ),
    "gru": (Conv1d(128, 6, 16, 5, 4, "relu"), Gru(31, 16, 24), Dense(24, 6)),
}


@dataclass(frozen=True)
class _Numbers:
    steps: int = STEPS
    batch: int = ROWS
    rate: float = 0.01
    momentum: float = 0.9
    proximal: float = 0.0


def trainers(layers: Sequence[Layer]) -> dict[str, Trainer]:
    """Numpy's, and one on every runtime that works here, by name."""
    found: dict[str, Trainer] = {"numpy": NumpyTrainer(layers, "softmax")}
    for probe in (runtime.litert, runtime.tflite_runtime):
        try:
            works = probe()
        except ConfigurationError:
            continue
        found[works.name] = LiteRtTrainer(layers, "softmax", works)
    return found


def rows(layers: Sequence[Layer], seed: int) -> tuple[Any, Any]:
    """A batch of made-up rows and classes."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, layers[0].inputs)).astype(np.float32)
    return x, generator.integers(0, layers[-1].outputs, ROWS)


def step_times(layers: Sequence[Layer], turns: int) -> dict[str, list[float]]:
    """Seconds of processor time of a step, for each turn of each trainer."""
    flat, (x, y) = initial_flat(layers, bytes(32)), rows(layers, 0)
    compared = trainers(layers)
    took: dict[str, list[float]] = {name: [] for name in compared}
    for turn in range(turns + 1):
        for name, trainer in compared.items():
            begin = time.thread_time()
            trainer.train(flat, x, y, _Numbers(), bytes(32))
            # The first turn pays for what is done once.
            if turn:
                took[name].append((time.thread_time() - begin) / STEPS)
    return took


def gradient_difference(layers: Sequence[Layer], models: int = 20) -> float:
    """The largest difference between a runtime's gradient and numpy's at the same weights, of many weights and rows."""
    largest = 0.0
    for seed in range(models):
        flat, (x, y) = initial_flat(layers, bytes([seed] * 32)), rows(layers, seed)
        _, expected = loss_and_gradient(flat, layers, x, y, "softmax")
        for trainer in trainers(layers).values():
            if isinstance(trainer, LiteRtTrainer):
                largest = max(largest, float(np.abs(trainer.loss_and_gradient(flat, x, y)[1] - expected).max()))
    return largest


@click.command()
@click.option("--turns", type=click.IntRange(1), default=200, show_default=True, help="Of each trainer on each model.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
def main(turns: int, json_path: Path | None) -> None:
    """Measure a training step on each trainer."""
    figures: dict[str, Any] = {}
    for model, layers in MODELS.items():
        took = step_times(layers, turns)
        click.echo(f"{model}, {parameter_count(layers)} parameters: µs a step, least and median of {turns} turns")
        for name, times in took.items():
            figures.setdefault(name, {})[f"{model}_step_seconds"] = min(times)
            click.echo(f"  {name:<16}{1e6 * min(times):8.0f}{1e6 * median(times):8.0f}")
    difference = max(gradient_difference(layers) for layers in MODELS.values())
    figures["largest_gradient_difference"] = difference
    if "litert" in figures:
        ratio = figures["numpy"]["cnn_step_seconds"] / figures["litert"]["cnn_step_seconds"]
        click.echo(Goal("a gradient's largest difference, 1e-6", 1e6 * difference, 1e6 * TOLERANCE, False).line())
        click.echo(Goal("numpy's time over LiteRT's, a step of the example CNN", ratio, GOAL, at_least=True).line())
    else:
        click.echo("LiteRT does not work here, so that there is no goal; hushfleet agent calibrate says why")
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
