"""The layer list and its one flat vector: version 0, forward pass, loss and gradient (docs/protocol.md, section 11.7).

A model is a list of dense layers; all its parameters stand in one vector of d numbers, layer by layer: the weights
`[in][out]` row by row, then the `out` biases. Whatever federated learning does (deltas, clipping, averaging) it does
to that vector; only this file knows where a layer begins.

The functions compute in the vector's own precision: float32 in the fleet, float64 where gradients are checked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from nacl.bindings import randombytes_buf_deterministic

from hushfleet.errors import ConfigurationError

Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[Any]

Head = Literal["softmax", "mean_squared"]
"""What stands on the last layer: `softmax` with cross-entropy over classes, or `mean_squared` over float targets."""

ACTIVATIONS = ("none", "relu", "tanh", "sigmoid")
LARGEST_PARAMETER_COUNT = 2**32 - 1
"""A plan names the number of coordinates as a u32."""


class LayerLike(Protocol):
    """One entry of a model spec's layer list (section 11.2, table `layer`)."""

    @property
    def kind(self) -> str:
        """Always `dense`."""

    @property
    def inputs(self) -> int:
        """Width of the rows that come in."""

    @property
    def outputs(self) -> int:
        """Width of the rows that go out."""

    @property
    def act(self) -> str:
        """One of `ACTIVATIONS`."""


@dataclass(frozen=True, slots=True)
class Dense:
    """A dense layer: `act(x @ weights + biases)`."""

    inputs: int
    outputs: int
    act: str = "none"
    kind: str = "dense"


def check_layers(layers: Sequence[LayerLike]) -> None:
    """Raise `ConfigurationError` unless the list is a model: known kinds and widths, each layer fitting the next."""
    if not layers:
        raise ConfigurationError("the layer list is empty: a model needs at least one dense layer")
    for number, layer in enumerate(layers, start=1):
        if layer.kind != "dense":
            raise ConfigurationError(f"layer {number} has kind {layer.kind!r}: only 'dense' is known")
        if layer.act not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ConfigurationError(f"layer {number} has activation {layer.act!r}: use one of {known}")
        if layer.inputs < 1 or layer.outputs < 1:
            raise ConfigurationError(f"layer {number} is {layer.inputs} to {layer.outputs} wide: both must be above 0")
    for number, (layer, following) in enumerate(pairwise(layers), start=1):
        if layer.outputs != following.inputs:
            raise ConfigurationError(
                f"layer {number} gives {layer.outputs} numbers but layer {number + 1} takes {following.inputs}: "
                "make them equal"
            )
    if (count := _count(layers)) > LARGEST_PARAMETER_COUNT:
        raise ConfigurationError(f"the layer list has {count} parameters: at most {LARGEST_PARAMETER_COUNT} fit a plan")


def parameter_count(layers: Sequence[LayerLike]) -> int:
    """d, the length of the flat vector. Raises `ConfigurationError` for a list that is no model."""
    check_layers(layers)
    return _count(layers)


def initial_flat(layers: Sequence[LayerLike], init_seed: bytes) -> npt.NDArray[np.float32]:
    """Version 0 of a model, the same bytes on every machine (section 11.7).

    One stream of u32 words w serves all weights in order: `float32((w >> 8)·2^-23 − 1)·float32(sqrt(6/(in+out)))`,
    uniform in ±sqrt(6/(in+out)) (Glorot and Bengio 2010). Biases are 0 and take no words.

    Args:
        layers: the model spec's layer list.
        init_seed: its 32-byte seed.

    Returns:
        float32[d].
    """
    if len(init_seed) != 32:
        raise ConfigurationError(f"the initialisation seed has {len(init_seed)} bytes: it must have 32")
    flat = np.zeros(parameter_count(layers), np.float32)
    weight_count = sum(layer.inputs * layer.outputs for layer in layers)
    words = np.frombuffer(randombytes_buf_deterministic(4 * weight_count, init_seed), "<u4")
    uniform = (words >> 8).astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    taken = 0
    for weights, _ in unflatten(flat, layers):
        limit = np.float32(sqrt(6.0 / sum(weights.shape)))
        weights[...] = uniform[taken : taken + weights.size].reshape(weights.shape) * limit
        taken += weights.size
    return flat


def unflatten(flat: Floats, layers: Sequence[LayerLike]) -> list[tuple[Floats, Floats]]:
    """Views (weights[in, out], biases[out]) into `flat`, layer by layer; writing to them writes to it."""
    if flat.ndim != 1 or flat.size != parameter_count(layers):
        raise ConfigurationError(f"the flat vector has shape {flat.shape}: the model has {_count(layers)} parameters")
    return list(_views(flat, layers))


def forward(flat: Floats, layers: Sequence[LayerLike], x: Floats) -> Floats:
    """The last layer's outputs, before the head.

    Args:
        flat: float[d].
        layers: the layer list.
        x: float[n, first layer's inputs].

    Returns:
        float[n, last layer's outputs], in the precision of `flat`.
    """
    return _activations(flat, layers, x)[-1]


def losses(outputs: Floats, y: Labels, head: Head) -> Floats:
    """The loss of each row, not negative.

    Args:
        outputs: float[n, k] as `forward` gives them.
        y: for `softmax` int[n] in 0..k-1; for `mean_squared` float[n, k].
        head: cross-entropy of the softmax, or the mean over k of the squared differences.

    Returns:
        float[n].
    """
    check_labels(y, outputs.shape[0], outputs.shape[1], head)
    if head == "softmax":
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        picked = np.take_along_axis(shifted, y[:, None], axis=1)[:, 0]
        return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - picked)
    return np.asarray(np.square(outputs - y.astype(outputs.dtype, copy=False)).mean(axis=1))


def loss_and_gradient(
    flat: Floats, layers: Sequence[LayerLike], x: Floats, y: Labels, head: Head
) -> tuple[Floats, Floats]:
    """Each row's loss, and the gradient of their mean over the flat vector.

    Args:
        flat: float[d].
        layers: the layer list.
        x: float[n, first layer's inputs], n at least 1.
        y: as `losses` takes them.
        head: `softmax` or `mean_squared`.

    Returns:
        float[n] losses and float[d] gradient of their mean, both in the precision of `flat`.

    Raises:
        ConfigurationError: shapes, types or label ranges that do not fit the model.
    """
    activations = _activations(flat, layers, x)
    if len(x) == 0:
        raise ConfigurationError("there are no rows: a gradient needs at least one")
    row_losses = losses(activations[-1], y, head)
    gradient = np.empty_like(flat)
    parameters, gradients = list(_views(flat, layers)), list(_views(gradient, layers))
    slope = _head_slope(activations[-1], y, head)
    for depth in reversed(range(len(layers))):
        slope = _before_activation(layers[depth].act, slope, activations[depth + 1])
        np.matmul(activations[depth].T, slope, out=gradients[depth][0])
        np.sum(slope, axis=0, out=gradients[depth][1])
        if depth > 0:
            slope = slope @ parameters[depth][0].T
    return row_losses, gradient


def check_rows(x: Floats, layers: Sequence[LayerLike]) -> None:
    """Raise `ConfigurationError` unless x is float[n, first layer's inputs]."""
    if x.ndim != 2 or x.shape[1] != layers[0].inputs:
        raise ConfigurationError(f"the rows have shape {x.shape}: the model takes {layers[0].inputs} features a row")
    if x.dtype.kind != "f":
        raise ConfigurationError(f"the rows have type {x.dtype}: the model takes floating-point features")


def check_labels(y: Labels, rows: int, width: int, head: Head) -> None:
    """Raise `ConfigurationError` unless y holds int[rows] classes below `width` (`softmax`), or float[rows, width]."""
    if head == "softmax":
        if y.shape != (rows,) or y.dtype.kind not in "iu":
            raise ConfigurationError(f"the labels are {y.dtype}{y.shape}: {rows} rows need one integer class each")
        if rows and (y.min() < 0 or y.max() >= width):
            raise ConfigurationError(f"a label is outside 0 to {width - 1}, the classes of the model")
    elif head == "mean_squared":
        if y.shape != (rows, width) or y.dtype.kind != "f":
            raise ConfigurationError(f"the targets are {y.dtype}{y.shape}: {rows} rows need {width} float each")
    else:
        raise ConfigurationError(f"the head {head!r} is unknown: use 'softmax' or 'mean_squared'")


def _count(layers: Sequence[LayerLike]) -> int:
    return sum((layer.inputs + 1) * layer.outputs for layer in layers)


def _views(flat: Floats, layers: Sequence[LayerLike]) -> Iterator[tuple[Floats, Floats]]:
    begin = 0
    for layer in layers:
        middle = begin + layer.inputs * layer.outputs
        end = middle + layer.outputs
        yield flat[begin:middle].reshape(layer.inputs, layer.outputs), flat[middle:end]
        begin = end


def _activations(flat: Floats, layers: Sequence[LayerLike], x: Floats) -> list[Floats]:
    parts = unflatten(flat, layers)
    check_rows(x, layers)
    activations = [x.astype(flat.dtype, copy=False)]
    for layer, (weights, biases) in zip(layers, parts, strict=True):
        activations.append(_activate(layer.act, activations[-1] @ weights + biases))
    return activations


def _activate(act: str, z: Floats) -> Floats:
    if act == "relu":
        return np.maximum(z, 0)
    if act == "tanh":
        return np.tanh(z)
    if act == "sigmoid":
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))  # the same function as 1/(1+exp(-z)), without its overflow
    return z


def _before_activation(act: str, slope: Floats, activation: Floats) -> Floats:
    """The gradient over z, from the gradient over act(z) and act(z) itself."""
    if act == "relu":
        return np.where(activation > 0, slope, 0)
    if act == "tanh":
        return slope * (1.0 - np.square(activation))
    if act == "sigmoid":
        return slope * activation * (1.0 - activation)
    return slope


def _head_slope(outputs: Floats, y: Labels, head: Head) -> Floats:
    """The gradient of the mean loss over the outputs, float[n, k]."""
    rows, width = outputs.shape
    if head == "softmax":
        slope = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        slope /= slope.sum(axis=1, keepdims=True)
        slope[np.arange(rows), y] -= 1
        return np.asarray(slope / rows)
    return np.asarray((outputs - y.astype(outputs.dtype, copy=False)) * (2.0 / (width * rows)))
