"""Layers over windows of steps: convolutions and pooling. Rows are arrays [n, steps, channels]."""

from collections.abc import Sequence

import numpy as np

from hushfleet.learning.passes import Floats, activate, before_activation
from hushfleet.wire.layers import AvgPool, Conv1d, DepthwiseConv1d, GlobalAverage, MaxPool


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


class DepthwiseConv1dPass:
    """A weighted sum of the steps of each window, channel by channel."""

    def __init__(self, layer: DepthwiseConv1d, parameters: Sequence[Floats]) -> None:
        self._layer = layer
        self._weights, self._biases = parameters

    def forward(self, x: Floats) -> Floats:
        layer, (steps, channels) = self._layer, self._layer.sequence_out
        self._inputs = x
        z = np.empty((len(x), steps, channels), self._weights.dtype)
        z[...] = self._biases
        for offset, weights in enumerate(self._weights):
            z += x[:, every(offset, steps, layer.stride)] * weights
        self._outputs = activate(layer.act, z)
        return self._outputs

    def backward(self, slope: Floats, gradients: Sequence[Floats], inward: bool) -> Floats | None:
        layer, steps = self._layer, self._layer.sequence_out[0]
        slope = before_activation(layer.act, slope, self._outputs)
        np.sum(slope, axis=(0, 1), out=gradients[1])
        back = np.zeros(self._inputs.shape, slope.dtype) if inward else None
        for offset, weights in enumerate(self._weights):
            taken = every(offset, steps, layer.stride)
            np.sum(slope * self._inputs[:, taken], axis=(0, 1), out=gradients[0][offset])
            if back is not None:
                back[:, taken] += slope * weights
        return back


class AvgPoolPass:
    """The mean of every `size` steps."""

    def __init__(self, layer: AvgPool, parameters: Sequence[Floats]) -> None:
        self._layer = layer

    def forward(self, x: Floats) -> Floats:
        steps, size = self._layer.sequence_out[0], self._layer.size
        total = x[:, every(0, steps, size)].copy()
        for offset in range(1, size):
            total += x[:, every(offset, steps, size)]
        total /= size
        return total

    def backward(self, slope: Floats, gradients: Sequence[Floats], inward: bool) -> Floats | None:
        steps, size = self._layer.sequence_out[0], self._layer.size
        if not inward:
            return None
        back = np.zeros((len(slope), *self._layer.sequence_in), slope.dtype)
        share = slope / size
        for offset in range(size):
            back[:, every(offset, steps, size)] = share
        return back


class MaxPoolPass:
    """The largest of every `size` steps; of several equal ones the first gets the gradient."""

    def __init__(self, layer: MaxPool, parameters: Sequence[Floats]) -> None:
        self._layer = layer

    def forward(self, x: Floats) -> Floats:
        steps, size = self._layer.sequence_out[0], self._layer.size
        largest = x[:, every(0, steps, size)].copy()
        self._where = np.zeros(largest.shape, np.uint16)
        for offset in range(1, size):
            later = x[:, every(offset, steps, size)]
            larger = later > largest
            self._where[larger] = offset
            np.maximum(largest, later, out=largest)
        return largest

    def backward(self, slope: Floats, gradients: Sequence[Floats], inward: bool) -> Floats | None:
        steps, size = self._layer.sequence_out[0], self._layer.size
        if not inward:
            return None
        back = np.zeros((len(slope), *self._layer.sequence_in), slope.dtype)
        for offset in range(size):
            back[:, every(offset, steps, size)] = np.where(self._where == offset, slope, 0)
        return back


class GlobalAveragePass:
    """The mean of all steps."""

    def __init__(self, layer: GlobalAverage, parameters: Sequence[Floats]) -> None:
        self._layer = layer

    def forward(self, x: Floats) -> Floats:
        return np.asarray(x.mean(axis=1))

    def backward(self, slope: Floats, gradients: Sequence[Floats], inward: bool) -> Floats | None:
        share = slope / self._layer.length
        return np.broadcast_to(share[:, None], (len(slope), *self._layer.sequence_in)) if inward else None


def every(first: int, count: int, stride: int) -> slice:
    """`count` steps from `first` on, `stride` apart."""
    return slice(first, first + (count - 1) * stride + 1, stride)
