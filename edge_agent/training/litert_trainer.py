"""The trainer on LiteRT or tflite-runtime: the layer list as a graph, built here for the batch in hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.training.numpy_trainer import TrainingNumbers
from hushfleet.errors import ConfigurationError
from hushfleet.graphs.runtime import Runtime, SealedFile, Session, find_runtime
from hushfleet.graphs.training import training_file
from hushfleet.learning import local
from hushfleet.learning.layers import Head, Labels, check_labels, check_rows, parameter_count, rows_at_once
from hushfleet.learning.passes import Floats
from hushfleet.wire.layers import Layer

ROWS = 32
LARGEST_ROWS = 256
"""A graph's rows; it is called several times for more, so that its memory has a bound."""


class LiteRtTrainer:
    """A `Trainer` for one model spec.

    Args:
        layers: the model spec's layer list.
        head: what stands on the last layer.
        runtime: what runs the graph; the first that works here by default.
        balanced: whether every class among the rows gets as many places in the batches.

    Raises:
        ConfigurationError: no runtime works here, or the list is no model.
    """

    def __init__(
        self, layers: Sequence[Layer], head: Head, runtime: Runtime | None = None, balanced: bool = False
    ) -> None:
        self._layers, self._balanced = layers, balanced
        self._head: Head = head
        self._parameters = parameter_count(layers)
        self._runtime = runtime or find_runtime()
        self._largest = min(LARGEST_ROWS, rows_at_once(layers))
        self._open(min(ROWS, self._largest))

    def _open(self, rows: int) -> None:
        self._rows = rows
        file = training_file(self._runtime.schema, self._layers, self._head, rows)
        self._session = Session(self._runtime, SealedFile.of(file))

    def train(
        self, flat: npt.NDArray[np.float32], x: Floats, y: Labels, numbers: TrainingNumbers, order_seed: bytes
    ) -> local.LocalResult:
        """One round of local training with the plan's numbers."""
        rows = max(1, min(numbers.batch, len(x), self._largest))
        if rows != self._rows:
            self._open(rows)
        return local.train(
            flat,
            self._layers,
            x,
            y,
            head=self._head,
            steps=numbers.steps,
            batch=numbers.batch,
            rate=numbers.rate,
            momentum=numbers.momentum,
            proximal=numbers.proximal,
            order_seed=order_seed,
            balanced=self._balanced,
            backend=self,
        )

    def evaluate(self, flat: npt.NDArray[np.float32], x: Floats, y: Labels) -> local.Evaluation:
        """Score a model on rows kept aside."""
        return local.evaluate(flat, self._layers, x, y, head=self._head, backend=self)

    def forward(self, flat: npt.NDArray[np.float32], x: Floats) -> Floats:
        """The last layer's outputs; arguments and errors as `hushfleet.learning.layers.forward`, but float32 alone."""
        self._check(flat, x)
        outputs = np.full((len(x), self._layers[-1].outputs), np.nan, np.float32)
        if not np.isfinite(flat).all():
            return outputs
        for begin in range(0, len(x), self._rows):
            part = slice(begin, begin + self._rows)
            out = self._session.call("infer", w=flat, x=self._padded(x[part]))["out"]
            outputs[part] = out[: len(x[part])]
        return outputs

    def loss_and_gradient(self, flat: npt.NDArray[np.float32], x: Floats, y: Labels) -> tuple[Floats, Floats]:
        """Losses, and the gradient of their mean; as `hushfleet.learning.layers` has it, but float32 alone."""
        self._check(flat, x)
        check_labels(y, len(x), self._layers[-1].outputs, self._head)
        if len(x) == 0:
            raise ConfigurationError("there are no rows: a gradient needs at least one")
        y = y.astype(np.int32 if self._head == "softmax" else np.float32, copy=False)
        losses, gradient = np.full(len(x), np.nan, np.float32), np.zeros_like(flat)
        if not np.isfinite(flat).all():
            # Numpy's answer; tflite-runtime makes numbers of nan.
            return losses, np.full_like(flat, np.nan)
        for begin in range(0, len(x), self._rows):
            part = slice(begin, begin + self._rows)
            count = len(x[part])
            weights = np.zeros((self._rows, 1), np.float32)
            weights[:count] = 1
            found = self._session.call("grad", w=flat, x=self._padded(x[part]), y=self._padded(y[part]), m=weights)
            losses[part] = found["loss"][:count]
            gradient += np.float32(count / len(x)) * found["grad"]
        return losses, gradient

    def _check(self, flat: npt.NDArray[np.float32], x: Floats) -> None:
        if flat.shape != (self._parameters,) or flat.dtype != np.float32:
            raise ConfigurationError(
                f"the flat vector is {flat.dtype}{flat.shape}: the model has {self._parameters} float32 parameters"
            )
        check_rows(x, self._layers)

    def _padded(self, part: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """As many rows as the graph takes, those beyond the given ones 0."""
        if part.dtype.kind == "f":
            part = part.astype(np.float32, copy=False)
        if len(part) == self._rows:
            return part
        whole = np.zeros((self._rows, *part.shape[1:]), part.dtype)
        whole[: len(part)] = part
        return whole
