"""Local training and local evaluation on one device: SGD with momentum over its own rows (docs/protocol.md, section 4).

With `proximal` above 0 every step is also pulled back towards the global model (FedProx, Li et al. 2020).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle, islice
from typing import Protocol

import numpy as np
import numpy.typing as npt
from nacl.bindings import randombytes_buf_deterministic

from hushfleet.errors import ConfigurationError, RefusedError
from hushfleet.hashing import digest
from hushfleet.learning.layers import (
    Head,
    Labels,
    check_labels,
    check_rows,
    forward,
    loss_and_gradient,
    losses,
    rows_at_once,
    unflatten,
)
from hushfleet.learning.passes import Floats
from hushfleet.wire.layers import Layer

LARGEST_LOSS = 64.0
"""One row's loss counts for at most this much, so that a loss lane has a public range (section 11.6)."""


class Backend(Protocol):
    """What computes a model; arguments, results and errors as the functions of these names in `layers`."""

    def forward(self, flat: npt.NDArray[np.float32], x: Floats) -> Floats:
        """The last layer's outputs, before the head."""

    def loss_and_gradient(self, flat: npt.NDArray[np.float32], x: Floats, y: Labels) -> tuple[Floats, Floats]:
        """Each row's loss, and the gradient of their mean."""


@dataclass(frozen=True, slots=True)
class NumpyBackend:
    """The backend that runs everywhere numpy does."""

    layers: Sequence[Layer]
    head: Head

    def forward(self, flat: npt.NDArray[np.float32], x: Floats) -> Floats:
        """The last layer's outputs, before the head."""
        return forward(flat, self.layers, x)

    def loss_and_gradient(self, flat: npt.NDArray[np.float32], x: Floats, y: Labels) -> tuple[Floats, Floats]:
        """Each row's loss, and the gradient of their mean."""
        return loss_and_gradient(flat, self.layers, x, y, self.head)


@dataclass(frozen=True, slots=True)
class LocalResult:
    """What one round of local training gives.

    Attributes:
        delta: float32[d], trained parameters minus the global ones; finite.
        examples: rows seen, each as often as it was seen: steps times the batch.
        training_loss_sum: sum over those rows of min(loss, 64), each taken just before the step that used it.
    """

    delta: npt.NDArray[np.float32] = field(repr=False)
    examples: int
    training_loss_sum: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a model does on rows it is not trained on.

    Attributes:
        evaluated: rows scored.
        loss_sum: sum over them of min(loss, 64).
        correct: rows whose most likely class is their label; 0 under a `mean_squared` head.
        error_sum: sum over the rows of min(error, 64), a row's error being the mean over the outputs of the absolute
            differences; 0 under a `softmax` head.
    """

    evaluated: int
    loss_sum: float
    correct: int
    error_sum: float = 0.0

    def reported_sum(self, head: Head) -> float:
        """What the device's `evaluation_loss` lane holds (section 11.6): numbers are judged by their absolute error."""
        return self.error_sum if head == "mean_squared" else self.loss_sum


def train(
    flat: npt.NDArray[np.float32],
    layers: Sequence[Layer],
    x: Floats,
    y: Labels,
    *,
    head: Head,
    steps: int,
    batch: int,
    rate: float,
    momentum: float,
    proximal: float,
    order_seed: bytes,
    balanced: bool = False,
    backend: Backend | None = None,
) -> LocalResult:
    """Take `steps` steps from the global model, over shuffled passes through the rows.

    Args:
        flat: float32[d], the global model.
        layers: its layer list.
        x: float[n, features], n at least 1, finite.
        y: int[n] classes (`softmax`) or float[n, outputs] targets (`mean_squared`).
        head: what stands on the last layer.
        steps: number of steps, at least 1.
        batch: rows a step, at least 1; all of them where there are fewer.
        rate: learning rate, above 0.
        momentum: 0 up to, not including, 1. The velocity starts at 0 in every round.
        proximal: strength of the pull back to `flat`, 0 for none.
        order_seed: decides the order of the rows and nothing else; the same seed gives the same result.
        balanced: under a `softmax` head, whether every class among the rows gets as many places in the batches, rare
            ones by coming again.
        backend: what computes the model; numpy by default.

    Raises:
        ConfigurationError: no rows, rows that do not fit the model, a value that is not finite.
        RefusedError: numbers of the plan out of their range, or ones under which training diverged.
    """
    _check_numbers(steps, batch, rate, momentum, proximal)
    _check_data(flat, layers, x, y, head)
    if len(x) == 0:
        raise ConfigurationError("there are no rows to train on: give the data source some, or a smaller holdout")
    trained = flat.copy()
    velocity = np.zeros_like(flat)
    examples, loss_sum = 0, 0.0
    backend = backend or NumpyBackend(layers, head)
    size = min(batch, len(x))
    even = balanced and head == "softmax"
    batches = balanced_batches_of(y, size, order_seed) if even else batches_of(len(x), size, order_seed)
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(1, steps + 1):
            rows = next(batches)
            row_losses, gradient = backend.loss_and_gradient(trained, x[rows], y[rows])
            if not np.isfinite(row_losses).all():
                raise _diverged(step, steps, rate)
            examples += len(rows)
            loss_sum += _capped_sum(row_losses)
            if proximal > 0:
                gradient += np.float32(proximal) * (trained - flat)
            velocity *= np.float32(momentum)
            velocity += gradient
            trained -= np.float32(rate) * velocity
        delta = trained - flat
    if not np.isfinite(delta).all():
        raise _diverged(steps, steps, rate)
    return LocalResult(delta, examples, loss_sum)


def evaluate(
    flat: npt.NDArray[np.float32],
    layers: Sequence[Layer],
    x: Floats,
    y: Labels,
    *,
    head: Head,
    backend: Backend | None = None,
) -> Evaluation:
    """Score a model; no rows at all score as zeros.

    Args and errors are those of `train`; a model whose loss or error is not finite on some row counts 64 there.
    """
    _check_data(flat, layers, x, y, head)
    backend = backend or NumpyBackend(layers, head)
    loss_sum, correct, error_sum = 0.0, 0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in _slices(layers, len(x)):
            outputs = backend.forward(flat, x[rows])
            loss_sum += _capped_sum(losses(outputs, y[rows], head))
            if head == "softmax":
                correct += int(np.count_nonzero(outputs.argmax(axis=1) == y[rows]))
            else:
                error_sum += _capped_sum(np.abs(outputs - y[rows]).mean(axis=1))
    return Evaluation(len(x), loss_sum, correct, error_sum)


def row_losses(
    flat: npt.NDArray[np.float32], layers: Sequence[Layer], x: Floats, y: Labels, *, head: Head
) -> npt.NDArray[np.float64]:
    """min(loss, 64) of each row, float64[n]; arguments and errors as for `evaluate`."""
    _check_data(flat, layers, x, y, head)
    found = np.empty(len(x))
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in _slices(layers, len(x)):
            found[rows] = np.fmin(losses(forward(flat, layers, x[rows]), y[rows], head), LARGEST_LOSS)
    return found


def _slices(layers: Sequence[Layer], count: int) -> Iterator[slice]:
    """All rows, so many together that memory stays small."""
    at_once = rows_at_once(layers)
    return (slice(begin, begin + at_once) for begin in range(0, count, at_once))


def batches_of(rows: int, batch: int, order_seed: bytes) -> Iterator[npt.NDArray[np.intp]]:
    """Row numbers, `batch` at a time and for ever: one shuffled pass after another, the last few joined to the next."""
    waiting = _shuffled(rows, 0, order_seed)
    for number in count(1):
        while len(waiting) >= batch:
            yield waiting[:batch]
            waiting = waiting[batch:]
        waiting = np.concatenate([waiting, _shuffled(rows, number, order_seed)])


def balanced_batches_of(labels: Labels, batch: int, order_seed: bytes) -> Iterator[npt.NDArray[np.intp]]:
    """Row numbers as `batches_of` gives them, but of each class one in turn: each class passes over its own rows.

    Args:
        labels: int[n] classes, n at least 1.
        batch: rows a step, at least 1.
        order_seed: decides the order of each class's rows.
    """
    turns = cycle([_passes(np.flatnonzero(labels == label), order_seed) for label in np.unique(labels)])
    while True:
        yield np.array([next(turn) for turn in islice(turns, batch)])


def _passes(rows: npt.NDArray[np.intp], order_seed: bytes) -> Iterator[np.intp]:
    """These row numbers in shuffled passes, for ever."""
    for number in count():
        yield from rows[_shuffled(len(rows), number, order_seed)]


def _shuffled(rows: int, number: int, order_seed: bytes) -> npt.NDArray[np.intp]:
    """Row numbers in the order of random keys; numpy's own generators would cost a gateway 1.8 MB of memory."""
    seed = digest("ordr", number.to_bytes(8, "little"), order_seed)
    return np.argsort(np.frombuffer(randombytes_buf_deterministic(8 * rows, seed), "<u8"))


def _capped_sum(row_losses: Floats) -> float:
    return float(np.fmin(row_losses, LARGEST_LOSS).sum(dtype=np.float64))  # fmin counts a nan as 64 too


def _check_data(flat: npt.NDArray[np.float32], layers: Sequence[Layer], x: Floats, y: Labels, head: Head) -> None:
    unflatten(flat, layers)
    check_rows(x, layers)
    check_labels(y, len(x), layers[-1].outputs, head)
    for name, values in (("feature", x), ("target", y)):
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise ConfigurationError(f"a {name} in row {row} is nan or infinite: clean the data source")


def _check_numbers(steps: int, batch: int, rate: float, momentum: float, proximal: float) -> None:
    for name, value, fits, allowed in (
        ("steps", steps, steps >= 1, "at least 1"),
        ("batch", batch, batch >= 1, "at least 1"),
        ("rate", rate, 0 < rate < np.inf, "above 0"),
        ("momentum", momentum, 0 <= momentum < 1, "at least 0 and below 1"),
        ("proximal", proximal, 0 <= proximal < np.inf, "at least 0"),
    ):
        if not fits:
            raise RefusedError(f"the plan's {name} is {value}: it must be {allowed}")


def _diverged(step: int, steps: int, rate: float) -> RefusedError:
    return RefusedError(
        f"local training diverged at step {step} of {steps}: the learning rate {rate} is too high for these rows; "
        "lower the plan's rate, or look for outliers in the data source"
    )
