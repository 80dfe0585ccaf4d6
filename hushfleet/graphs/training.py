"""A model's layer list as a file with two signatures, both pure functions of the flat vector and the rows.

`grad(w, x, y, m)` gives `loss`, float32[rows], and `grad`, float32[d], the gradient of their mean weighted by m.
`infer(w, x)` gives `out`, float32[rows, outputs], before the head. The number of rows is fixed; those with m = 0 count
for nothing.
"""

from collections.abc import Sequence
from math import prod
from types import ModuleType

from hushfleet.graphs.file import Graph, GraphFile, Tensor
from hushfleet.graphs.layers import Back, layer_in, taken
from hushfleet.learning.layers import Head, parameter_count
from hushfleet.wire.layers import Layer


def training_file(schema: ModuleType, layers: Sequence[Layer], head: Head, rows: int) -> bytes:
    """The file; the same bytes for the same arguments and schema.

    Args:
        schema: as `GraphFile` takes it.
        layers: the model's layer list.
        head: what stands on the last layer.
        rows: how many each call takes, at least 1.

    Raises:
        ConfigurationError: the list is no model, or its graph would be too large.
    """
    file = GraphFile(schema)
    _grad(file, layers, head, rows)
    graph = Graph(file)
    out, _ = _forward(graph, layers, *_inputs(graph, layers, rows))
    graph.finish("infer", {"out": out})
    return file.finish()


def _grad(file: GraphFile, layers: Sequence[Layer], head: Head, rows: int) -> None:
    graph = Graph(file)
    flat, x = _inputs(graph, layers, rows)
    width = layers[-1].outputs
    y = graph.input("y", (rows,), "int32") if head == "softmax" else graph.input("y", (rows, width))
    weights = graph.input("m", (rows, 1))
    out, backs = _forward(graph, layers, flat, x)
    loss, slope = (_softmax if head == "softmax" else _mean_squared)(graph, out, y)
    slope = graph.binary("MUL", slope, graph.binary("DIV", weights, graph.reduce("SUM", weights, [0, 1], keep=True)))
    slopes: list[Tensor] = []
    for depth in reversed(range(len(layers))):
        before, own = backs[depth](taken(graph, slope, layers[depth].sequence_out), depth > 0)
        slopes = own + slopes
        if before is not None:
            slope = before
    flattened = [graph.reshape(one, (prod(one.shape),)) for one in slopes]
    graph.finish("grad", {"loss": graph.reshape(loss, (rows,)), "grad": graph.concatenate(flattened, 0)})


def _inputs(graph: Graph, layers: Sequence[Layer], rows: int) -> tuple[Tensor, Tensor]:
    return graph.input("w", (parameter_count(layers),)), graph.input("x", (rows, layers[0].inputs))


def _forward(graph: Graph, layers: Sequence[Layer], flat: Tensor, x: Tensor) -> tuple[Tensor, list[Back]]:
    shapes = [block.shape for layer in layers for block in layer.blocks]
    pieces = graph.split(flat, [prod(shape) for shape in shapes])
    parts = [graph.reshape(piece, shape) for piece, shape in zip(pieces, shapes, strict=True)]
    backs = []
    for layer in layers:
        own = len(layer.blocks)
        x, back = layer_in(graph, layer, taken(graph, x, layer.sequence_in), parts[:own])
        parts = parts[own:]
        backs.append(back)
    return taken(graph, x, None), backs


def _softmax(graph: Graph, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's cross-entropy, float32[rows, 1], and its slope over the outputs."""
    chosen = graph.one_hot(y, out.shape[1])
    shifted = graph.binary("SUB", out, graph.reduce("REDUCE_MAX", out, [1], keep=True))
    powers = graph.unary("EXP", shifted)
    total = graph.reduce("SUM", powers, [1], keep=True)
    picked = graph.reduce("SUM", graph.binary("MUL", chosen, shifted), [1], keep=True)
    loss = graph.binary("SUB", graph.unary("LOG", total), picked)
    return loss, graph.binary("SUB", graph.binary("DIV", powers, total), chosen)


def _mean_squared(graph: Graph, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's mean squared difference, float32[rows, 1], and its slope over the outputs."""
    difference = graph.binary("SUB", out, y)
    loss = graph.reduce("MEAN", graph.unary("SQUARE", difference), [1], keep=True)
    return loss, graph.binary("MUL", difference, 2.0 / out.shape[1])
