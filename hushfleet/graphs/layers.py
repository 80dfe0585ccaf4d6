"""Each layer of the layer list as operators of a graph: what it gives, and how a slope comes back through it.

The arithmetic is that of `hushfleet.learning.passes`, in float32; rows of sequences are [n, steps, channels] here too.
"""

from collections.abc import Callable, Sequence

from hushfleet.graphs.file import Graph, Tensor
from hushfleet.graphs.recurrent import GruOperators
from hushfleet.learning.passes import SMALLEST_VARIANCE
from hushfleet.wire.layers import AvgPool, Conv1d, Dense, DepthwiseConv1d, GlobalAverage, Gru, Layer, LayerNorm, MaxPool

Parts = Sequence[Tensor]
Back = Callable[[Tensor, bool], tuple[Tensor | None, list[Tensor]]]
"""From the slope over a layer's output: that over its input, if it is wanted, and those over its parameters."""

VALID = 1
"""Of paddings, the one that pads nothing."""
ACTIVATIONS = {"relu": "RELU", "tanh": "TANH", "sigmoid": "LOGISTIC"}


def layer_in(graph: Graph, layer: Layer, x: Tensor, parts: Parts) -> tuple[Tensor, Back]:
    """One layer, and its way back.

    Args:
        x: the rows in the form that the layer takes, as `taken` gives them.
        parts: its parameters, in the shapes of its blocks.
    """
    match layer:
        case Dense():
            return _dense(graph, layer, x, parts)
        case Conv1d():
            return _conv1d(graph, layer, x, parts)
        case DepthwiseConv1d():
            return _depthwise_conv1d(graph, layer, x, parts)
        case AvgPool():
            return _avgpool(graph, layer, x)
        case MaxPool():
            return _maxpool(graph, layer, x)
        case GlobalAverage():
            return _global_average(graph, layer, x)
        case LayerNorm():
            return _layer_norm(graph, layer, x, parts)
        case Gru():
            unit = GruOperators(graph, layer, parts)
            return unit.forward(x), unit.back


def taken(graph: Graph, x: Tensor, sequence: tuple[int, int] | None) -> Tensor:
    """What a layer gave, in the form that the next one takes: [n, steps, channels], or [n, width] for None.

    A flat row holds all steps of one channel together.
    """
    rows = x.shape[0]
    if sequence is None:
        if len(x.shape) == 2:
            return x
        return graph.reshape(_turned(graph, x), (rows, x.shape[1] * x.shape[2]))
    if len(x.shape) == 3:
        return x
    steps, channels = sequence
    return _turned(graph, graph.reshape(x, (rows, channels, steps)))


def _turned(graph: Graph, x: Tensor) -> Tensor:
    rows, first, second = x.shape
    if 1 in (first, second):
        return graph.reshape(x, (rows, second, first))
    return graph.apply("TRANSPOSE", [x, graph.constant([0, 2, 1], "int32")], [(rows, second, first)])[0]


def _activated(graph: Graph, act: str, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """An activation, and from the slope over its output that over its input."""
    if act == "none":
        return x, lambda slope: slope
    out = graph.unary(ACTIVATIONS[act], x)

    def back(slope: Tensor) -> Tensor:
        if act == "relu":
            return graph.binary("MUL", slope, graph.unary("SIGN", out))
        if act == "tanh":
            return graph.binary("MUL", slope, graph.binary("SUB", graph.constant(1.0), graph.unary("SQUARE", out)))
        rest = graph.binary("SUB", graph.constant(1.0), out)
        return graph.binary("MUL", slope, graph.binary("MUL", out, rest))

    return out, back


def _affine(graph: Graph, act: str, x: Tensor, weights: Tensor, biases: Tensor) -> tuple[Tensor, Back]:
    """`act(x @ weights + biases)` of rows [n, width]; what every layer with weights comes down to."""
    out, activation_back = _activated(graph, act, graph.binary("ADD", graph.matmul(x, weights), biases))

    def back(slope: Tensor, wanted: bool) -> tuple[Tensor | None, list[Tensor]]:
        slope = activation_back(slope)
        own = [graph.matmul(x, slope, turn_a=True), graph.reduce("SUM", slope, [0])]
        return graph.matmul(slope, weights, turn_b=True) if wanted else None, own

    return out, back


def _dense(graph: Graph, layer: Dense, x: Tensor, parts: Parts) -> tuple[Tensor, Back]:
    return _affine(graph, layer.act, x, *parts)


def _conv1d(graph: Graph, layer: Conv1d, x: Tensor, parts: Parts) -> tuple[Tensor, Back]:
    weights, biases = parts
    rows, (steps, filters) = x.shape[0], layer.sequence_out
    width = layer.kernel * layer.channels
    windows = _Windows(rows, layer.length, layer.channels, steps, layer.kernel, layer.stride)
    flat = graph.reshape(windows.cut(graph, x), (rows * steps, width))
    out, affine_back = _affine(graph, layer.act, flat, graph.reshape(weights, (width, filters)), biases)

    def back(slope: Tensor, wanted: bool) -> tuple[Tensor | None, list[Tensor]]:
        before, own = affine_back(graph.reshape(slope, (rows * steps, filters)), wanted)
        if before is not None:
            before = windows.put_back(graph, graph.reshape(before, (rows, steps, width)))
        return before, own

    return graph.reshape(out, (rows, steps, filters)), back


def _depthwise_conv1d(graph: Graph, layer: DepthwiseConv1d, x: Tensor, parts: Parts) -> tuple[Tensor, Back]:
    weights, biases = parts
    rows, (steps, channels) = x.shape[0], layer.sequence_out
    windows = _Windows(rows, layer.length, channels, steps, layer.kernel, layer.stride)
    apart = graph.reshape(windows.cut(graph, x), (rows * steps, layer.kernel, channels))
    summed = graph.binary("ADD", graph.reduce("SUM", graph.binary("MUL", apart, weights), [1]), biases)
    out, activation_back = _activated(graph, layer.act, summed)

    def back(slope: Tensor, wanted: bool) -> tuple[Tensor | None, list[Tensor]]:
        slope = activation_back(graph.reshape(slope, (rows * steps, channels)))
        each = graph.reshape(slope, (rows * steps, 1, channels))
        own = [graph.reduce("SUM", graph.binary("MUL", apart, each), [0]), graph.reduce("SUM", slope, [0])]
        if not wanted:
            return None, own
        before = graph.binary("MUL", each, graph.reshape(weights, (1, layer.kernel, channels)))
        return windows.put_back(graph, graph.reshape(before, (rows, steps, layer.kernel * channels))), own

    return graph.reshape(out, (rows, steps, channels)), back


def _avgpool(graph: Graph, layer: AvgPool, x: Tensor) -> tuple[Tensor, Back]:
    rows, (steps, channels), size = x.shape[0], layer.sequence_out, layer.size
    wide = graph.reshape(x, (rows, 1, layer.length, channels))
    sides = {"Padding": VALID, "StrideW": size, "StrideH": 1, "FilterWidth": size, "FilterHeight": 1}
    out = graph.apply("AVERAGE_POOL_2D", [wide], [(rows, 1, steps, channels)], "Pool2DOptions", **sides)[0]

    def back(slope: Tensor, wanted: bool) -> tuple[Tensor | None, list[Tensor]]:
        share = graph.binary("MUL", slope, 1.0 / size)
        return (_pooled_back(graph, [share] * size, layer.length) if wanted else None), []

    return graph.reshape(out, (rows, steps, channels)), back


def _maxpool(graph: Graph, layer: MaxPool, x: Tensor) -> tuple[Tensor, Back]:
    rows, (steps, channels), size = x.shape[0], layer.sequence_out, layer.size
    units = graph.reshape(_fitted(graph, x, steps * size), (rows, steps, size * channels))
    pieces = [graph.slice(units, (0, 0, first * channels), (rows, steps, channels)) for first in range(size)]
    largest = pieces[0]
    for piece in pieces[1:]:
        largest = graph.binary("MAXIMUM", largest, piece)

    def back(slope: Tensor, wanted: bool) -> tuple[Tensor | None, list[Tensor]]:
        if not wanted:
            return None, []
        # What is left for the next step: all of the slope, until one step has been the largest.
        shares = []
        for piece in pieces[:-1]:
            later = graph.binary("MUL", slope, graph.unary("SIGN", graph.binary("SUB", largest, piece)))
            shares.append(graph.binary("SUB", slope, later))
            slope = later
        return _pooled_back(graph, [*shares, slope], layer.length), []

    return largest, back


def _pooled_back(graph: Graph, shares: Sequence[Tensor], length: int) -> Tensor:
    """A pool's slopes over the steps of each window, [n, windows, channels] each, as those of the whole sequence."""
    rows, steps, channels = shares[0].shape
    together = graph.concatenate(shares, 2) if len(shares) > 1 else shares[0]
    return _fitted(graph, graph.reshape(together, (rows, steps * len(shares), channels)), length)


def _global_average(graph: Graph, layer: GlobalAverage, x: Tensor) -> tuple[Tensor, Back]:
    rows, length, channels = x.shape

    def back(slope: Tensor, wanted: bool) -> tuple[Tensor | None, list[Tensor]]:
        if not wanted:
            return None, []
        shares = graph.constant([[[1.0 / length]] * length])
        return graph.binary("MUL", graph.reshape(slope, (rows, 1, channels)), shares), []

    return graph.reduce("MEAN", x, [1]), back


def _layer_norm(graph: Graph, layer: LayerNorm, x: Tensor, parts: Parts) -> tuple[Tensor, Back]:
    gains, biases = parts
    rows, steps, channels = x.shape
    normal, scale = normalized(graph, graph.reshape(x, (rows * steps, channels)))
    moved = graph.binary("ADD", graph.binary("MUL", normal, gains), biases)
    out, activation_back = _activated(graph, layer.act, moved)

    def back(slope: Tensor, wanted: bool) -> tuple[Tensor | None, list[Tensor]]:
        slope = activation_back(graph.reshape(slope, (rows * steps, channels)))
        own = [graph.reduce("SUM", graph.binary("MUL", slope, normal), [0]), graph.reduce("SUM", slope, [0])]
        if not wanted:
            return None, own
        slope = graph.binary("MUL", slope, gains)
        along = graph.reduce("MEAN", graph.binary("MUL", slope, normal), [1], keep=True)
        slope = graph.binary("SUB", slope, graph.reduce("MEAN", slope, [1], keep=True))
        slope = graph.binary("MUL", graph.binary("SUB", slope, graph.binary("MUL", normal, along)), scale)
        return graph.reshape(slope, (rows, steps, channels)), own

    return graph.reshape(out, (rows, steps, channels)), back


def normalized(graph: Graph, x: Tensor) -> tuple[Tensor, Tensor]:
    """The last axis brought to mean 0 and variance 1, and what its distance from the mean was multiplied with."""
    last = [len(x.shape) - 1]
    centred = graph.binary("SUB", x, graph.reduce("MEAN", x, last, keep=True))
    variance = graph.reduce("MEAN", graph.unary("SQUARE", centred), last, keep=True)
    scale = graph.unary("RSQRT", graph.binary("ADD", variance, SMALLEST_VARIANCE))
    return graph.binary("MUL", centred, scale), scale


def _fitted(graph: Graph, x: Tensor, length: int) -> Tensor:
    """A sequence cut off, or filled up with zeros, to this many steps."""
    if length > x.shape[1]:
        return graph.pad(x, [(0, 0), (0, length - x.shape[1]), (0, 0)])
    if length < x.shape[1]:
        return graph.slice(x, (0, 0, 0), (x.shape[0], length, x.shape[2]))
    return x


class _Windows:
    """The windows of a sequence side by side, [n, steps, kernel · channels], and their slopes back in their places.

    As many steps as the windows move by are one unit, so that a window is a few units and the rest of one, each cut out
    of all rows at once.
    """

    def __init__(self, rows: int, length: int, channels: int, steps: int, kernel: int, stride: int) -> None:
        self._rows, self._length, self._channels, self._steps, self._stride = rows, length, channels, steps, stride
        self._widths = [min(stride, kernel - first) * channels for first in range(0, kernel, stride)]
        self._units = steps - 1 + len(self._widths)

    def cut(self, graph: Graph, x: Tensor) -> Tensor:
        x = _fitted(graph, x, self._units * self._stride)
        units = graph.reshape(x, (self._rows, self._units, self._stride * self._channels))
        pieces = [
            graph.slice(units, (0, first, 0), (self._rows, self._steps, width))
            for first, width in enumerate(self._widths)
        ]
        return graph.concatenate(pieces, 2) if len(pieces) > 1 else pieces[0]

    def put_back(self, graph: Graph, slope: Tensor) -> Tensor:
        unit, begin, total = self._stride * self._channels, 0, None
        for first, width in enumerate(self._widths):
            piece = graph.slice(slope, (0, 0, begin), (self._rows, self._steps, width))
            around = [(0, 0), (first, self._units - self._steps - first), (0, unit - width)]
            piece = graph.pad(piece, around)
            total = piece if total is None else graph.binary("ADD", total, piece)
            begin += width
        assert total is not None
        whole = graph.reshape(total, (self._rows, self._units * self._stride, self._channels))
        return _fitted(graph, whole, self._length)
