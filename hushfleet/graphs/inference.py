"""A finished model as a `.tflite` file: its parameters in it, a row in, the answer out.

The operators are those that microcontrollers and accelerators know, so that further tools, a quantizer first of all,
can work on the file; for training, where parameters are inputs, `hushfleet.graphs.training` has others.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from hushfleet.graphs.file import Graph, GraphFile, Tensor
from hushfleet.graphs.layers import ACTIVATIONS, VALID, normalized, taken
from hushfleet.learning.layers import Head, unflatten
from hushfleet.learning.passes import Floats
from hushfleet.wire.layers import AvgPool, Conv1d, Dense, DepthwiseConv1d, GlobalAverage, Gru, Layer, LayerNorm, MaxPool

SIGNATURE = "infer"
_FUSED = {"none": 0, "relu": 1}


def inference_file(schema: ModuleType, layers: Sequence[Layer], flat: Floats, head: Head, rows: int = 1) -> bytes:
    """The file, whose signature `infer` takes `x`, float32[rows, inputs], and gives `out`, float32[rows, outputs].

    Args:
        schema: as `GraphFile` takes it.
        layers: the model's layer list.
        flat: float32[d].
        head: for `softmax` the outputs are shares of 1, for `mean_squared` the targets.
        rows: how many each call takes. Files that differ in this alone have the same tensors by name.

    Raises:
        ConfigurationError: the list is no model, or its graph would be too large.
    """
    file = GraphFile(schema)
    graph = Graph(file)
    x = graph.input("x", (rows, layers[0].inputs))
    for layer, parts in zip(layers, unflatten(flat, layers), strict=True):
        x = _layer(graph, layer, taken(graph, x, layer.sequence_in), parts)
    x = taken(graph, x, None)
    if head == "softmax":
        x = graph.apply("SOFTMAX", [x], [x.shape], "SoftmaxOptions", Beta=1.0)[0]
    graph.finish(SIGNATURE, {"out": x})
    return file.finish()


def _layer(graph: Graph, layer: Layer, x: Tensor, parts: Sequence[Floats]) -> Tensor:
    match layer:
        case Dense():
            return _dense(graph, layer, x, parts)
        case Conv1d():
            weights = parts[0].transpose(2, 0, 1)[:, None]
            return _convolution(graph, layer, x, "CONV_2D", weights, parts[1], "Conv2DOptions")
        case DepthwiseConv1d():
            weights = parts[0][None, None]
            kind = "DEPTHWISE_CONV_2D"
            return _convolution(graph, layer, x, kind, weights, parts[1], "DepthwiseConv2DOptions", DepthMultiplier=1)
        case AvgPool():
            return _pool(graph, layer, x, "AVERAGE_POOL_2D")
        case MaxPool():
            return _pool(graph, layer, x, "MAX_POOL_2D")
        case GlobalAverage():
            return graph.reduce("MEAN", x, [1])
        case LayerNorm():
            normal, _ = normalized(graph, x)
            gains, biases = (graph.constant(part) for part in parts)
            moved = graph.binary("ADD", graph.binary("MUL", normal, gains), biases)
            return _activated(graph, layer.act, moved)
        case Gru():
            return _gru(graph, layer, x, parts)


def _dense(graph: Graph, layer: Dense, x: Tensor, parts: Sequence[Floats]) -> Tensor:
    out = _connected(graph, x, parts[0], parts[1], _FUSED.get(layer.act, 0))
    return out if layer.act in _FUSED else _activated(graph, layer.act, out)


def _connected(graph: Graph, x: Tensor, weights: Floats, biases: Floats, fused: int = 0) -> Tensor:
    """`x @ weights + biases`."""
    operands = [x, graph.constant(weights.T), graph.constant(biases)]
    options: dict[str, Any] = {"FusedActivationFunction": fused}
    return graph.apply("FULLY_CONNECTED", operands, [(x.shape[0], len(biases))], "FullyConnectedOptions", **options)[0]


def _gru(graph: Graph, layer: Gru, x: Tensor, parts: Sequence[Floats]) -> Tensor:
    """The last state, one step after the other; as `hushfleet.graphs.recurrent`, with the gates apart.

    Each gate has a range of its own in 8 bits then, and a first step, whose state is zero, none that is empty.
    """
    rows, (steps, channels) = x.shape[0], layer.sequence_in
    order = graph.constant([1, 0, 2], "int32")
    by_steps = graph.apply("TRANSPOSE", [x, order], [(steps, rows, channels)])[0]
    flat = graph.reshape(by_steps, (steps * rows, channels))
    weights, inner, biases = (np.split(part, 3, axis=-1) for part in parts)

    def brought(gate: int) -> list[Tensor]:
        return graph.split(_connected(graph, flat, weights[gate], biases[gate]), [rows] * steps)

    def looked_back(gate: int, state: Tensor) -> Tensor:
        return _connected(graph, state, inner[gate], np.zeros(layer.units, np.float32))

    updates, candidates = brought(0), brought(2)
    # What nobody uses must not be there: the quantizer looks for its values.
    resets = brought(1) if steps > 1 else updates
    candidate = graph.unary("TANH", candidates[0])
    state = graph.binary("SUB", candidate, graph.binary("MUL", graph.unary("LOGISTIC", updates[0]), candidate))
    for update_in, reset_in, candidate_in in zip(updates[1:], resets[1:], candidates[1:], strict=True):
        update = graph.unary("LOGISTIC", graph.binary("ADD", update_in, looked_back(0, state)))
        reset = graph.unary("LOGISTIC", graph.binary("ADD", reset_in, looked_back(1, state)))
        recalled = graph.binary("MUL", reset, looked_back(2, state))
        candidate = graph.unary("TANH", graph.binary("ADD", candidate_in, recalled))
        gap = graph.binary("SUB", state, candidate)
        state = graph.binary("ADD", candidate, graph.binary("MUL", update, gap))
    return state


def _convolution(
    graph: Graph,
    layer: Conv1d | DepthwiseConv1d,
    x: Tensor,
    operator: str,
    weights: Floats,
    biases: Floats,
    options: str,
    **more: int,
) -> Tensor:
    """A convolution over an image of height 1; `weights` as the operator takes them."""
    steps, channels = layer.sequence_out
    operands = [_wide(graph, x), graph.constant(weights), graph.constant(biases)]
    sides = {"Padding": VALID, "StrideW": layer.stride, "StrideH": 1, "DilationWFactor": 1, "DilationHFactor": 1}
    fused = {"FusedActivationFunction": _FUSED.get(layer.act, 0)}
    out = graph.apply(operator, operands, [(x.shape[0], 1, steps, channels)], options, **sides, **fused, **more)[0]
    out = graph.reshape(out, (x.shape[0], steps, channels))
    return out if layer.act in _FUSED else _activated(graph, layer.act, out)


def _pool(graph: Graph, layer: AvgPool | MaxPool, x: Tensor, operator: str) -> Tensor:
    steps, channels = layer.sequence_out
    sides = {"Padding": VALID, "StrideW": layer.size, "StrideH": 1, "FilterWidth": layer.size, "FilterHeight": 1}
    out = graph.apply(operator, [_wide(graph, x)], [(x.shape[0], 1, steps, channels)], "Pool2DOptions", **sides)[0]
    return graph.reshape(out, (x.shape[0], steps, channels))


def _wide(graph: Graph, x: Tensor) -> Tensor:
    return graph.reshape(x, (x.shape[0], 1, *x.shape[1:]))


def _activated(graph: Graph, act: str, x: Tensor) -> Tensor:
    return x if act == "none" else graph.unary(ACTIVATIONS[act], x)
