"""The gated recurrent unit as operators, one step after the other; as `hushfleet.learning.recurrent` has it."""

from collections.abc import Sequence
from dataclasses import dataclass

from hushfleet.graphs.file import Graph, Tensor
from hushfleet.wire.layers import Gru


@dataclass(frozen=True, slots=True)
class _Step:
    """What a step has computed, [n, units] each: `gap` is the state before less the candidate."""

    state: Tensor
    update: Tensor
    reset: Tensor
    recalled: Tensor
    candidate: Tensor
    gap: Tensor


class GruOperators:
    """The layer in a graph; `back` follows `forward`.

    Args:
        parts: weights, inner weights and biases, in the shapes of the layer's blocks.
    """

    def __init__(self, graph: Graph, layer: Gru, parts: Sequence[Tensor]) -> None:
        self._graph, self._units = graph, layer.units
        self._steps, self._channels = layer.sequence_in
        self._weights, self._inner, self._biases = parts
        self._done: list[_Step] = []

    def forward(self, x: Tensor) -> Tensor:
        """The last state, [n, units], after rows of sequences [n, steps, channels]."""
        graph, rows, units = self._graph, x.shape[0], self._units
        by_steps = self._turned(x)
        self._inputs = graph.reshape(by_steps, (self._steps * rows, self._channels))
        gates = graph.binary("ADD", graph.matmul(self._inputs, self._weights), self._biases)
        parts = [graph.split(part, [rows] * self._steps) for part in self._in_three(gates)]
        state = graph.constant([[0.0] * units] * rows)
        for update_in, reset_in, candidate_in in zip(*parts, strict=True):
            update, reset, recalled = self._in_three(graph.matmul(state, self._inner))
            update = graph.unary("LOGISTIC", graph.binary("ADD", update_in, update))
            reset = graph.unary("LOGISTIC", graph.binary("ADD", reset_in, reset))
            brought = graph.binary("ADD", candidate_in, graph.binary("MUL", reset, recalled))
            candidate = graph.unary("TANH", brought)
            gap = graph.binary("SUB", state, candidate)
            self._done.append(_Step(state, update, reset, recalled, candidate, gap))
            state = graph.binary("ADD", candidate, graph.binary("MUL", update, gap))
        return state

    def back(self, slope: Tensor, wanted: bool) -> tuple[Tensor | None, list[Tensor]]:
        """From the slope over the last state those over the rows, if they are wanted, and over the parameters."""
        graph, rows = self._graph, slope.shape[0]
        over_gates: list[Tensor] = []
        over_inner: list[Tensor] = []
        for step in reversed(self._done):
            over_update = self._through_sigmoid(graph.binary("MUL", slope, step.gap), step.update)
            over_candidate = graph.binary("MUL", slope, self._rest(step.update))
            rest = self._rest(graph.unary("SQUARE", step.candidate))
            over_candidate = graph.binary("MUL", over_candidate, rest)
            over_reset = self._through_sigmoid(graph.binary("MUL", over_candidate, step.recalled), step.reset)
            recalled = graph.binary("MUL", over_candidate, step.reset)
            over_gates.append(graph.concatenate([over_update, over_reset, over_candidate], 1))
            over_inner.append(graph.concatenate([over_update, over_reset, recalled], 1))
            kept = graph.binary("MUL", slope, step.update)
            slope = graph.binary("ADD", kept, graph.matmul(over_inner[-1], self._inner, turn_b=True))
        gates = graph.concatenate(over_gates[::-1], 0)
        states = graph.concatenate([step.state for step in self._done], 0)
        inner = graph.matmul(states, graph.concatenate(over_inner[::-1], 0), turn_a=True)
        own = [graph.matmul(self._inputs, gates, turn_a=True), inner, graph.reduce("SUM", gates, [0])]
        if not wanted:
            return None, own
        before = graph.reshape(graph.matmul(gates, self._weights, turn_b=True), (self._steps, rows, self._channels))
        return self._turned(before), own

    def _turned(self, x: Tensor) -> Tensor:
        first, second, channels = x.shape
        order = self._graph.constant([1, 0, 2], "int32")
        return self._graph.apply("TRANSPOSE", [x, order], [(second, first, channels)])[0]

    def _in_three(self, gates: Tensor) -> list[Tensor]:
        """The columns of update, reset and candidate."""
        rows, units = gates.shape[0], self._units
        return [self._graph.slice(gates, (0, first * units), (rows, units)) for first in range(3)]

    def _rest(self, x: Tensor) -> Tensor:
        """1 - x."""
        return self._graph.binary("SUB", self._graph.constant(1.0), x)

    def _through_sigmoid(self, slope: Tensor, out: Tensor) -> Tensor:
        return self._graph.binary("MUL", self._graph.binary("MUL", slope, out), self._rest(out))
