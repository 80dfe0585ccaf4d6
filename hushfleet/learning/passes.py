"""One layer at work on one batch: what it gives, and from the gradient over that, the gradients over what it took.

Rows of sequences are arrays [n, steps, channels]; other rows are [n, width]. `backward` follows a `forward` and uses
what that kept; everything is computed in the precision of the parameters.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hushfleet.wire.layers import Dense, LayerNorm

Floats = npt.NDArray[np.floating[Any]]

SMALLEST_VARIANCE = 1e-5
"""Added to a variance before it divides (docs/protocol.md, section 11.7)."""


class Pass(Protocol):
    """A layer with its parameters, views into the flat vector in the order of the layer's blocks."""

    def forward(self, x: Floats) -> Floats:
        """What the layer gives for these rows."""

    def backward(self, slope: Floats, gradients: Sequence[Floats], inward: bool) -> Floats | None:
        """Carry the gradient through the layer.

        Args:
            slope: the gradient over what `forward` gave; left as it is.
            gradients: arrays of the parameters' shapes, which are overwritten with the gradients over them.
            inward: whether the gradient over the rows is wanted.

        Returns:
            The gradient over the rows, or None.
        """


def activate(act: str, z: Floats) -> Floats:
    """`act(z)`, computed in the place of z."""
    if act == "relu":
        np.maximum(z, 0, out=z)
    elif act == "tanh":
        np.tanh(z, out=z)
    elif act == "sigmoid":
        # The same function as 1/(1+exp(-z)), without its overflow.
        z *= 0.5
        np.tanh(z, out=z)
        z += 1.0
        z *= 0.5
    return z


def before_activation(act: str, slope: Floats, activation: Floats) -> Floats:
    """The gradient over z, from the gradient over act(z) and act(z) itself."""
    if act == "relu":
        return np.where(activation > 0, slope, 0)
    if act == "tanh":
        return slope * (1.0 - np.square(activation))
    if act == "sigmoid":
        return slope * activation * (1.0 - activation)
    return slope


class DensePass:
    """`act(x @ weights + biases)`."""

    def __init__(self, layer: Dense, parameters: Sequence[Floats]) -> None:
        self._layer = layer
        self._weights, self._biases = parameters

    def forward(self, x: Floats) -> Floats:
        self._inputs = x
        z = x @ self._weights
        z += self._biases
        self._outputs = activate(self._layer.act, z)
        return self._outputs

    def backward(self, slope: Floats, gradients: Sequence[Floats], inward: bool) -> Floats | None:
        slope = before_activation(self._layer.act, slope, self._outputs)
        np.matmul(self._inputs.T, slope, out=gradients[0])
        np.sum(slope, axis=0, out=gradients[1])
        return slope @ self._weights.T if inward else None


class LayerNormPass:
    """Each step's channels brought to mean 0 and variance 1, then scaled and moved."""

    def __init__(self, layer: LayerNorm, parameters: Sequence[Floats]) -> None:
        self._layer = layer
        self._gains, self._biases = parameters

    def forward(self, x: Floats) -> Floats:
        self._normal = x - x.mean(axis=2, keepdims=True)
        variance = np.square(self._normal).mean(axis=2, keepdims=True)
        self._scale = 1.0 / np.sqrt(variance + SMALLEST_VARIANCE)
        self._normal *= self._scale
        z = self._normal * self._gains
        z += self._biases
        self._outputs = activate(self._layer.act, z)
        return self._outputs

    def backward(self, slope: Floats, gradients: Sequence[Floats], inward: bool) -> Floats | None:
        slope = before_activation(self._layer.act, slope, self._outputs)
        np.sum(slope * self._normal, axis=(0, 1), out=gradients[0])
        np.sum(slope, axis=(0, 1), out=gradients[1])
        if not inward:
            return None
        slope = slope * self._gains
        along = (slope * self._normal).mean(axis=2, keepdims=True)
        return np.asarray(self._scale * (slope - slope.mean(axis=2, keepdims=True) - self._normal * along))
