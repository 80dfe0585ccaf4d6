"""One layer at work on one batch: what it gives, and from the gradient over that, the gradients over what it took.

Rows of sequences are arrays [n, steps, channels]; other rows are [n, width]. `backward` follows a `forward` and uses
what that kept; everything is computed in the precision of the parameters.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hushfleet.wire.layers import Conv1d, Dense

Floats = npt.NDArray[np.floating[Any]]


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


class Conv1dPass:
    """A dense layer over every window of steps, which stand side by side for one multiplication of matrices."""

    def __init__(self, layer: Conv1d, parameters: Sequence[Floats]) -> None:
        self._layer = layer
        weights, self._biases = parameters
        self._weights = weights.reshape(-1, layer.filters)

    def forward(self, x: Floats) -> Floats:
        layer, (steps, filters) = self._layer, self._layer.sequence_out
        x = np.ascontiguousarray(x)
        # The strides of an axis of length 1 may be anything, even in a contiguous array: these are reckoned instead.
        step = layer.channels * x.itemsize
        windows = np.lib.stride_tricks.as_strided(
            x,
            (len(x), steps, layer.kernel * layer.channels),
            (layer.length * step, layer.stride * step, x.itemsize),
            writeable=False,
        )
        self._windows = windows.reshape(len(x) * steps, -1)
        z = self._windows @ self._weights
        z += self._biases
        self._outputs = activate(layer.act, z)
        return self._outputs.reshape(len(x), steps, filters)

    def backward(self, slope: Floats, gradients: Sequence[Floats], inward: bool) -> Floats | None:
        layer, (rows, steps, filters) = self._layer, slope.shape
        slope = before_activation(layer.act, slope.reshape(-1, filters), self._outputs)
        np.matmul(self._windows.T, slope, out=gradients[0].reshape(-1, filters))
        np.sum(slope, axis=0, out=gradients[1])
        if not inward:
            return None
        windows = (slope @ self._weights.T).reshape(rows, steps, layer.kernel, layer.channels)
        back = np.zeros((rows, layer.length, layer.channels), slope.dtype)
        for offset in range(layer.kernel):
            back[:, every(offset, steps, layer.stride)] += windows[:, :, offset]
        return back


def every(first: int, count: int, stride: int) -> slice:
    """`count` steps from `first` on, `stride` apart."""
    return slice(first, first + (count - 1) * stride + 1, stride)
