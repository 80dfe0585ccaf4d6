"""Which trainer a model gets: the one that the owner names, or the faster one here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np

from edge_agent.training.numpy_trainer import NumpyTrainer, Trainer
from hushfleet.errors import ConfigurationError
from hushfleet.learning.layers import Head, initial_flat
from hushfleet.wire.layers import Layer

TrainerName = Literal["numpy", "litert"]
Wanted = TrainerName | Literal["auto"]
ROWS = 32
_STEPS = 3


@dataclass(frozen=True, slots=True)
class Choice:
    """A trainer and how it was chosen.

    Attributes:
        name: `numpy` or `litert`.
        why: in words, for the owner.
        trainer: of this name.
    """

    name: TrainerName
    why: str
    trainer: Trainer


@dataclass(frozen=True, slots=True)
class _Numbers:
    steps: int = _STEPS
    batch: int = ROWS
    # So small that nothing can diverge.
    rate: float = 1e-6
    momentum: float = 0.9
    proximal: float = 0.0


def make_trainer(name: TrainerName, layers: Sequence[Layer], head: Head, balanced: bool = False) -> Trainer:
    """The trainer `numpy` or `litert` for a model; with `balanced`, classes get as many places in the batches.

    Raises:
        ConfigurationError: it does not work here, or not for this model.
    """
    if name == "numpy":
        return NumpyTrainer(layers, head, balanced)
    # Most gateways have none; half a megabyte of graphs would be loaded there for nothing.
    if not any(find_spec(module) for module in ("ai_edge_litert", "tflite_runtime")):
        raise ConfigurationError('LiteRT is not installed: pip install "hushfleet[tflite]"')
    from edge_agent.training.litert_trainer import LiteRtTrainer

    return LiteRtTrainer(layers, head, balanced=balanced)


def litert_trouble() -> str:
    """Why LiteRT does not work here; empty if it does."""
    from hushfleet.graphs.runtime import find_runtime

    try:
        find_runtime()
    except ConfigurationError as error:
        return str(error)
    return ""


def choose(wanted: Wanted, layers: Sequence[Layer], head: Head, balanced: bool = False) -> Choice:
    """The trainer for a model, as `make_trainer`; numpy's where the other does not work, whatever is wanted."""
    numpy = NumpyTrainer(layers, head, balanced)
    if wanted == "numpy":
        return Choice("numpy", "as the settings say", numpy)
    try:
        litert = make_trainer("litert", layers, head, balanced)
        litert_took = step_time(litert, layers, head, 0)
    except ConfigurationError as error:
        return Choice("numpy", str(error), numpy)
    if wanted == "litert":
        return Choice("litert", "as the settings say", litert)
    took = {"numpy": step_time(numpy, layers, head, 0), "litert": litert_took}
    why = ", ".join(f"{name} {1e6 * seconds:.0f} µs a step" for name, seconds in took.items())
    if took["litert"] < took["numpy"]:
        return Choice("litert", why, litert)
    return Choice("numpy", why, numpy)


def step_time(trainer: Trainer, layers: Sequence[Layer], head: Head, seconds: float, rows: int = ROWS) -> float:
    """Seconds of CPU of one step of so many rows: the least of as many runs as fit into `seconds`, three at least."""
    flat = initial_flat(layers, bytes(32))
    # Made-up rows without numpy's generators, which are not loaded otherwise.
    x = np.sin(np.arange(rows * layers[0].inputs, dtype=np.float32)).reshape(rows, -1)
    outputs = layers[-1].outputs
    y = np.arange(rows) % outputs if head == "softmax" else np.zeros((rows, outputs), np.float32)
    took: list[float] = []
    end = time.monotonic() + seconds
    while len(took) < 4 or time.monotonic() < end:
        begin = time.thread_time()
        trainer.train(flat, x, y, _Numbers(batch=rows), bytes(32))
        took.append((time.thread_time() - begin) / _STEPS)
    # The first run pays for what is done once.
    return min(took[1:])
