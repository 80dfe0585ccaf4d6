"""The gated recurrent unit (Cho et al. 2014), its reset gate after the product (docs/protocol.md, section 11.7)."""

from collections.abc import Sequence

import numpy as np

from hushfleet.learning.passes import Floats, activate
from hushfleet.wire.layers import Gru


class GruPass:
    """One step after the other; what the sequence brings in is computed for all steps at once."""

    def __init__(self, layer: Gru, parameters: Sequence[Floats]) -> None:
        self._layer = layer
        self._weights, self._inner, self._biases = parameters

    def forward(self, x: Floats) -> Floats:
        rows, (steps, channels), units = len(x), self._layer.sequence_in, self._layer.units
        self._inputs = np.ascontiguousarray(x.transpose(1, 0, 2)).reshape(steps * rows, channels)
        self._gates = (self._inputs @ self._weights).reshape(steps, rows, 3 * units)
        self._gates += self._biases
        self._recalled = np.empty((steps, rows, units), self._gates.dtype)
        self._states = np.zeros((steps + 1, rows, units), self._gates.dtype)
        for step, gates in enumerate(self._gates):
            state = self._states[step]
            inner = state @ self._inner
            self._recalled[step] = inner[:, 2 * units :]
            opened, candidate = gates[:, : 2 * units], gates[:, 2 * units :]
            opened += inner[:, : 2 * units]
            activate("sigmoid", opened)
            candidate += opened[:, units:] * self._recalled[step]
            activate("tanh", candidate)
            np.add(candidate, opened[:, :units] * (state - candidate), out=self._states[step + 1])
        return np.asarray(self._states[-1])

    def backward(self, slope: Floats, gradients: Sequence[Floats], inward: bool) -> Floats | None:
        rows, (steps, channels), units = len(slope), self._layer.sequence_in, self._layer.units
        over_inner, over_gates = np.empty_like(self._gates), np.empty_like(self._gates)
        for step in reversed(range(steps)):
            update, reset, candidate = np.split(self._gates[step], 3, axis=1)
            over_candidate = slope * (1.0 - update) * (1.0 - np.square(candidate))
            over_gates[step, :, :units] = slope * (self._states[step] - candidate) * update * (1.0 - update)
            over_gates[step, :, units : 2 * units] = over_candidate * self._recalled[step] * reset * (1.0 - reset)
            over_gates[step, :, 2 * units :] = over_candidate
            over_inner[step] = over_gates[step]
            over_inner[step, :, 2 * units :] *= reset
            slope = slope * update + over_inner[step] @ self._inner.T
        flat = over_gates.reshape(steps * rows, -1)
        np.matmul(self._inputs.T, flat, out=gradients[0])
        np.matmul(self._states[:-1].reshape(-1, units).T, over_inner.reshape(steps * rows, -1), out=gradients[1])
        np.sum(flat, axis=0, out=gradients[2])
        if not inward:
            return None
        return (flat @ self._weights.T).reshape(steps, rows, channels).transpose(1, 0, 2)
