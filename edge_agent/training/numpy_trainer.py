"""The trainer that runs everywhere numpy does: the layer list's own forward and backward passes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hushfleet.learning import local
from hushfleet.learning.layers import Head, Labels, forward
from hushfleet.learning.passes import Floats
from hushfleet.wire.layers import Layer


class TrainingNumbers(Protocol):
    """The numbers of local training, as a round plan carries them (section 11.4, table `plan`)."""

    @property
    def steps(self) -> int:
        """Local steps, at least 1."""

    @property
    def batch(self) -> int:
        """Rows a step, at least 1."""

    @property
    def rate(self) -> float:
        """Local learning rate, above 0."""

    @property
    def momentum(self) -> float:
        """0 up to, not including, 1."""

    @property
    def proximal(self) -> float:
        """Pull back to the global model, 0 for none."""


class Trainer(Protocol):
    """What the agent asks of a training back end; each is a pure function of the flat vector and the rows."""

    def train(
        self, flat: npt.NDArray[np.float32], x: Floats, y: Labels, numbers: TrainingNumbers, order_seed: bytes
    ) -> local.LocalResult:
        """One round of local training; arguments and errors as `hushfleet.learning.local.train`."""

    def evaluate(self, flat: npt.NDArray[np.float32], x: Floats, y: Labels) -> local.Evaluation:
        """Score a model on rows kept aside; arguments and errors as `hushfleet.learning.local.evaluate`."""

    def forward(self, flat: npt.NDArray[np.float32], x: Floats) -> Floats:
        """The last layer's outputs; arguments and errors as `hushfleet.learning.layers.forward`, but float32 alone."""


@dataclass(frozen=True, slots=True)
class NumpyTrainer:
    """A `Trainer` for one model spec.

    Attributes:
        layers: the model spec's layer list.
        head: what stands on the last layer.
        balanced: whether every class among the rows gets as many places in the batches.
    """

    layers: Sequence[Layer]
    head: Head
    balanced: bool = False

    def train(
        self, flat: npt.NDArray[np.float32], x: Floats, y: Labels, numbers: TrainingNumbers, order_seed: bytes
    ) -> local.LocalResult:
        """One round of local training with the plan's numbers."""
        return local.train(
            flat,
            self.layers,
            x,
            y,
            head=self.head,
            steps=numbers.steps,
            batch=numbers.batch,
            rate=numbers.rate,
            momentum=numbers.momentum,
            proximal=numbers.proximal,
            order_seed=order_seed,
            balanced=self.balanced,
        )

    def evaluate(self, flat: npt.NDArray[np.float32], x: Floats, y: Labels) -> local.Evaluation:
        """Score a model on rows kept aside."""
        return local.evaluate(flat, self.layers, x, y, head=self.head)

    def forward(self, flat: npt.NDArray[np.float32], x: Floats) -> Floats:
        """The last layer's outputs, before the head."""
        return forward(flat, self.layers, x)
