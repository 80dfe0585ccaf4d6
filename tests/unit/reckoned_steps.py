"""How far the reckoned time of a training step is from the measured one, by calibrating and measuring now.

python reckoned_steps.py numpy
"""

import json
import sys

from edge_agent.calibration import _trained
from edge_agent.training.choice import ROWS, TrainerName, make_trainer, step_time
from firmware_profiles.catalog import Compute, Figure
from hushfleet.wire.layers import Conv1d, Dense, GlobalAverage, Gru, Layer

MODELS: dict[str, tuple[Layer, ...]] = {
    "dense": (Dense(36, 64, "relu"), Dense(64, 7)),
    "conv1d": (Conv1d(100, 6, 16, 5, 1, "relu"), GlobalAverage(96, 16), Dense(16, 4)),
    "gru": (Gru(20, 3, 8), Dense(8, 4)),
    "wide gru": (Gru(32, 6, 48), Dense(48, 4)),
}
"""None of them is among those that are calibrated with."""
SECONDS = 0.05


def misses(name: TrainerName) -> dict[str, float]:
    """By how many times the reckoned step of each model is too long, or too short."""
    found = _trained(name, SECONDS)
    figures = (1e6 * found.step, 1e9 * found.update, 1e9 * found.training, 1e9 * found.sequence, 1e6 * found.recurrence)
    compute = Compute(*map(Figure, (*figures, *[1.0] * 5)))
    ratios = {}
    for what, layers in MODELS.items():
        took = step_time(make_trainer(name, layers, "softmax"), layers, "softmax", SECONDS)
        ratios[what] = compute.training_step(layers, ROWS) / took
    return {what: max(ratio, 1 / ratio) for what, ratio in ratios.items()}


if __name__ == "__main__":
    (trainer,) = sys.argv[1:]
    print(json.dumps(misses("litert" if trainer == "litert" else "numpy")))
