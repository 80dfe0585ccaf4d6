"""The layer list and its one flat vector: version 0, forward pass, loss and gradient (docs/protocol.md, section 11.7).

A model is a list of layers; all its parameters stand in one vector of d numbers, layer by layer, block by block, each
block row by row. Whatever federated learning does (deltas, clipping, averaging) it does to that vector; only this file
knows where a layer begins.

The functions compute in the vector's own precision: float32 in the fleet, float64 where gradients are checked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from math import sqrt
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from nacl.bindings import randombytes_buf_deterministic

from hushfleet.errors import ConfigurationError, MalformedError
from hushfleet.learning.passes import DensePass, Floats, LayerNormPass, Pass
from hushfleet.learning.recurrent import GruPass
from hushfleet.learning.windowed import AvgPoolPass, Conv1dPass, DepthwiseConv1dPass, GlobalAveragePass, MaxPoolPass
from hushfleet.wire import layers as wire
from hushfleet.wire.layers import (
    AvgPool,
    Conv1d,
    Dense,
    DepthwiseConv1d,
    GlobalAverage,
    Gru,
    Layer,
    LayerNorm,
    MaxPool,
)

Labels = npt.NDArray[Any]

Head = Literal["softmax", "mean_squared"]
"""What stands on the last layer: `softmax` with cross-entropy over classes, or `mean_squared` over float targets."""

_VALUES_AT_ONCE = 2**20
"""Values that all layers together make of the rows that are worked on at once: 4 MiB as float32."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each layer's blocks of parameters stand in the flat vector: (first, end, shape)."""

    count: int
    places: tuple[tuple[tuple[int, int, tuple[int, ...]], ...], ...]


def check_layers(layers: Sequence[Layer]) -> None:
    """Raise `ConfigurationError` unless the list is a model: layers in their ranges, each fitting the next."""
    _layout(tuple(layers))


@lru_cache(maxsize=16)
def _layout(layers: tuple[Layer, ...]) -> _Layout:
    try:
        wire.check_layers(layers)
    except MalformedError as error:
        raise ConfigurationError(str(error)) from None
    places, begin = [], 0
    for layer in layers:
        ends = [*accumulate((block.size for block in layer.blocks), initial=begin)]
        places.append(tuple(zip(ends, ends[1:], (block.shape for block in layer.blocks), strict=False)))
        begin = ends[-1]
    return _Layout(begin, tuple(places))


def parameter_count(layers: Sequence[Layer]) -> int:
    """d, the length of the flat vector. Raises `ConfigurationError` for a list that is no model."""
    return _layout(tuple(layers)).count


def initial_flat(layers: Sequence[Layer], init_seed: bytes) -> npt.NDArray[np.float32]:
    """Version 0 of a model, the same bytes on every machine (section 11.7).

    One stream of u32 words w serves all weights in order: `float32((w >> 8)·2^-23 − 1)·float32(sqrt(6/fans))`,
    uniform in ±sqrt(6/fans) (Glorot and Bengio 2010). Other parameters take no words.

    Args:
        layers: the model spec's layer list.
        init_seed: its 32-byte seed.

    Returns:
        float32[d].
    """
    if len(init_seed) != 32:
        raise ConfigurationError(f"the initialisation seed has {len(init_seed)} bytes: it must have 32")
    flat = np.empty(parameter_count(layers), np.float32)
    blocks = [block for layer in layers for block in layer.blocks]
    weight_count = sum(block.size for block in blocks if block.fans)
    words = np.frombuffer(randombytes_buf_deterministic(4 * weight_count, init_seed), "<u4")
    uniform = (words >> 8).astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    taken = 0
    for block, part in zip(blocks, chain.from_iterable(unflatten(flat, layers)), strict=True):
        if block.fans:
            weights = uniform[taken : taken + block.size].reshape(block.shape)
            part[...] = weights * np.float32(sqrt(6.0 / block.fans))
            taken += block.size
        else:
            part[...] = block.start
    return flat


def unflatten(flat: Floats, layers: Sequence[Layer]) -> list[tuple[Floats, ...]]:
    """Views of each layer's blocks in `flat`, for a dense one weights[in, out] and biases[out].

    Writing to them writes to it.
    """
    layout = _layout(tuple(layers))
    if flat.ndim != 1 or flat.size != layout.count:
        raise ConfigurationError(f"the flat vector has shape {flat.shape}: the model has {layout.count} parameters")
    return [tuple(flat[begin:end].reshape(shape) for begin, end, shape in blocks) for blocks in layout.places]


def rows_at_once(layers: Sequence[Layer]) -> int:
    """How many rows to work on together, so that memory stays small whatever a layer makes of a row; at least 1."""
    return max(1, _VALUES_AT_ONCE // sum(layer.spread for layer in layers))


def forward(flat: Floats, layers: Sequence[Layer], x: Floats) -> Floats:
    """The last layer's outputs, before the head.

    Args:
        flat: float[d].
        layers: the layer list.
        x: float[n, first layer's inputs].

    Returns:
        float[n, last layer's outputs], in the precision of `flat`.
    """
    parts = unflatten(flat, layers)
    check_rows(x, layers)
    values = x.astype(flat.dtype, copy=False)
    for layer, part in zip(layers, parts, strict=True):
        values = _pass(layer, part).forward(_taken(values, layer.sequence_in))
    return _taken(values, None)


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


def loss_and_gradient(flat: Floats, layers: Sequence[Layer], x: Floats, y: Labels, head: Head) -> tuple[Floats, Floats]:
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
    parts = unflatten(flat, layers)
    check_rows(x, layers)
    if len(x) == 0:
        raise ConfigurationError("there are no rows: a gradient needs at least one")
    check_labels(y, len(x), layers[-1].outputs, head)
    row_losses, gradient = np.empty(len(x), flat.dtype), np.zeros_like(flat)
    at_once = rows_at_once(layers)
    for begin in range(0, len(x), at_once):
        rows = slice(begin, begin + at_once)
        passes = [_pass(layer, part) for layer, part in zip(layers, parts, strict=True)]
        values = x[rows].astype(flat.dtype, copy=False)
        for layer, one in zip(layers, passes, strict=True):
            values = one.forward(_taken(values, layer.sequence_in))
        row_losses[rows] = losses(_taken(values, None), y[rows], head)
        part = np.empty_like(flat)
        slope = _head_slope(_taken(values, None), y[rows], head, len(x))
        _carry_back(layers, passes, slope, unflatten(part, layers))
        gradient += part
    return row_losses, gradient


def check_rows(x: Floats, layers: Sequence[Layer]) -> None:
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


def _pass(layer: Layer, parameters: Sequence[Floats]) -> Pass:
    match layer:
        case Dense():
            return DensePass(layer, parameters)
        case Conv1d():
            return Conv1dPass(layer, parameters)
        case DepthwiseConv1d():
            return DepthwiseConv1dPass(layer, parameters)
        case AvgPool():
            return AvgPoolPass(layer, parameters)
        case MaxPool():
            return MaxPoolPass(layer, parameters)
        case GlobalAverage():
            return GlobalAveragePass(layer, parameters)
        case LayerNorm():
            return LayerNormPass(layer, parameters)
        case Gru():
            return GruPass(layer, parameters)


def _taken(values: Floats, sequence: tuple[int, int] | None) -> Floats:
    """What a layer gave, in the form that the next one takes: [n, steps, channels], or [n, width] for None.

    A flat row holds all steps of one channel together.
    """
    if sequence is None:
        return values if values.ndim == 2 else values.transpose(0, 2, 1).reshape(len(values), -1)
    if values.ndim == 3:
        return values
    steps, channels = sequence
    return values.reshape(-1, channels, steps).transpose(0, 2, 1)


def _carry_back(
    layers: Sequence[Layer], passes: Sequence[Pass], slope: Floats, gradients: Sequence[Sequence[Floats]]
) -> None:
    """Write every layer's gradients, from the gradient over the last one's outputs."""
    back: Floats | None = slope
    for depth in reversed(range(len(layers))):
        assert back is not None
        given = _taken(back, layers[depth].sequence_out)
        back = passes[depth].backward(given, gradients[depth], depth > 0)


def _head_slope(outputs: Floats, y: Labels, head: Head, count: int) -> Floats:
    """The gradient over the outputs, float[n, k], of the mean loss of `count` rows of which these are some."""
    rows, width = outputs.shape
    if head == "softmax":
        slope = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        slope /= slope.sum(axis=1, keepdims=True)
        slope[np.arange(rows), y] -= 1
        return np.asarray(slope / count)
    return np.asarray((outputs - y.astype(outputs.dtype, copy=False)) * (2.0 / (width * count)))
