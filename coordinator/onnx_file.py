"""A finished model as ONNX, through the format's own library (extra [export]).

A flat row holds all steps of one channel together, which is ONNX's order of sequences, [n, channels, steps].
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, checker, helper, numpy_helper

from hushfleet.learning.layers import Head, unflatten
from hushfleet.learning.passes import SMALLEST_VARIANCE, Floats
from hushfleet.wire.layers import AvgPool, Conv1d, Dense, DepthwiseConv1d, GlobalAverage, Gru, Layer, LayerNorm, MaxPool

_OPERATORS, _FORMAT = 17, 8
"""The oldest operator set with layer norm, and the file format of its time."""
_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}


def onnx_file(layers: Sequence[Layer], flat: Floats, head: Head) -> bytes:
    """The file, which takes `x`, float32[n, inputs], and gives `out`, float32[n, outputs].

    Args and errors as `hushfleet.graphs.inference.inference_file`.
    """
    graph = _Nodes()
    last = "x"
    for layer, parts in zip(layers, unflatten(flat, layers), strict=True):
        if layer.sequence_in:
            steps, channels = layer.sequence_in
            last = graph.add("Reshape", last, graph.constant(np.array([-1, channels, steps], np.int64)))
        last = _layer(graph, layer, last, parts)
        act = getattr(layer, "act", "none")
        if act != "none":
            last = graph.add(_ACTIVATIONS[act], last)
        if layer.sequence_out:
            last = graph.add("Flatten", last)
    graph.nodes.append(helper.make_node("Softmax" if head == "softmax" else "Identity", [last], ["out"]))
    rows = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in (("x", layers[0].inputs), ("out", layers[-1].outputs))
    ]
    made = helper.make_graph(graph.nodes, "model", rows[:1], rows[1:], graph.constants)
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", _OPERATORS)],
        ir_version=_FORMAT,
        producer_name="hushfleet",
    )
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


class _Nodes:
    """A graph's nodes in their order, and its constants."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, values: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name


def _layer(graph: _Nodes, layer: Layer, x: str, parts: Sequence[Floats]) -> str:
    """The layer without its activation; sequences are [n, channels, steps]."""
    match layer:
        case Dense():
            return graph.add("Gemm", x, *map(graph.constant, parts))
        case Conv1d():
            weights, biases = graph.constant(parts[0].transpose(2, 1, 0)), graph.constant(parts[1])
            return graph.add("Conv", x, weights, biases, strides=[layer.stride])
        case DepthwiseConv1d():
            weights, biases = graph.constant(parts[0].T[:, None]), graph.constant(parts[1])
            return graph.add("Conv", x, weights, biases, strides=[layer.stride], group=layer.channels)
        case AvgPool():
            return graph.add("AveragePool", x, kernel_shape=[layer.size], strides=[layer.size])
        case MaxPool():
            return graph.add("MaxPool", x, kernel_shape=[layer.size], strides=[layer.size])
        case GlobalAverage():
            return graph.add("ReduceMean", x, axes=[2], keepdims=0)
        case LayerNorm():
            last = graph.add("Transpose", x, perm=[0, 2, 1])
            constants = map(graph.constant, parts)
            last = graph.add("LayerNormalization", last, *constants, axis=-1, epsilon=SMALLEST_VARIANCE)
            return graph.add("Transpose", last, perm=[0, 2, 1])
        case Gru():
            return _gru(graph, layer, x, parts)


def _gru(graph: _Nodes, layer: Gru, x: str, parts: Sequence[Floats]) -> str:
    weights, inner, biases = parts
    by_steps = graph.add("Transpose", x, perm=[2, 0, 1])
    both = np.concatenate([biases, np.zeros_like(biases)])[None]
    operands = [graph.constant(one) for one in (weights.T[None], inner.T[None], both)]
    name = f"v{len(graph.nodes)}"
    node = helper.make_node("GRU", [by_steps, *operands], ["", name], hidden_size=layer.units, linear_before_reset=1)
    graph.nodes.append(node)
    return graph.add("Squeeze", name, graph.constant(np.array([0], np.int64)))
