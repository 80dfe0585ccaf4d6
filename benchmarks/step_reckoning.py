"""How far the reckoned time of a training step is from the measured one, for kinds of models and each trainer.

    python benchmarks/step_reckoning.py --json FILE

The figures of a firmware profile's [compute] are calibrated as `hushfleet agent calibrate` does it; models that are not
among those that are calibrated with are reckoned by them, and measured right afterwards.
"""

# ruff: noqa: E402  (numpy reads the number of threads when it is first imported)
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import json
from pathlib import Path

import click
from goals import Goal

from edge_agent.calibration import trainers_here, training_cost
from edge_agent.training.choice import ROWS, TrainerName, make_trainer, step_time
from firmware_profiles.catalog import Compute, Figure
from hushfleet.wire.layers import Conv1d, Dense, GlobalAverage, Gru, Layer

MODELS: dict[str, tuple[Layer, ...]] = {
    "dense": (Dense(36, 64, "relu"), Dense(64, 7)),
    "conv1d": (Conv1d(100, 6, 16, 5, 1, "relu"), GlobalAverage(96, 16), Dense(16, 4)),
    "gru": (Gru(20, 3, 8), Dense(8, 4)),
    "wide gru": (Gru(32, 6, 48), Dense(48, 4)),
}
FACTOR = 2
NOT_TRAINING = (1.0,) * 5
"""Figures of [compute] that no training step takes: they are not measured here."""


def reckoned(name: TrainerName, seconds: float) -> dict[str, float]:
    """The reckoned step of each model in parts of the measured one."""
    cost = training_cost(name, seconds)
    figures = (1e6 * cost.step, 1e9 * cost.update, 1e9 * cost.training, 1e9 * cost.sequence, 1e6 * cost.recurrence)
    compute = Compute(*map(Figure, (*figures, *NOT_TRAINING)))
    return {
        what: compute.training_step(layers, ROWS)
        / step_time(make_trainer(name, layers, "softmax"), layers, "softmax", seconds)
        for what, layers in MODELS.items()
    }


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True, help="Write the figures here.")
@click.option("--seconds", type=click.FloatRange(0.05), default=1.0, show_default=True, help="For each measurement.")
def main(json_path: Path, seconds: float) -> None:
    """Reckoned over measured time of a training step; some twenty seconds."""
    figures = {name: reckoned(name, seconds) for name in trainers_here()}
    for name, ratios in figures.items():
        for what, ratio in ratios.items():
            goal = Goal(f"{name}, {what}: reckoned over measured, or measured over reckoned", max(ratio, 1 / ratio),
                        FACTOR, False)  # fmt: skip
            click.echo(goal.line())
    try:
        json_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {json_path}: {error.strerror}; name another file") from None


if __name__ == "__main__":
    main()
