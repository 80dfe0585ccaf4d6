"""A `.tflite` file, written operator by operator through the flatbuffers schema of the runtime that is to read it.

Every operator stands here in its version 1, which both runtimes take. The same calls give the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from hushfleet.errors import ConfigurationError

_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_ALIGNMENT = 16
_LARGEST_OLD_CODE = 127
"""Operators with greater codes came after the field held one byte."""
MOST_OPERATORS = 8192
"""Of one graph; a `gru` has some 34 for each step."""
_TYPES = {"float32": 0, "int32": 2, "int8": 9}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value in a graph, by its number there."""

    index: int
    shape: tuple[int, ...]


class GraphFile:
    """Several graphs in one file, each a signature of its own.

    Args:
        schema: `ai_edge_litert.schema_py_generated` or `tflite`: the same functions, made of the same schema.
    """

    def __init__(self, schema: ModuleType) -> None:
        import flatbuffers

        self.schema = schema
        self._builder = flatbuffers.Builder(1 << 14)
        self._codes: list[int] = []
        self._buffers: list[int] = [self.table("Buffer")]
        self._constants: dict[tuple[str, bytes], int] = {}
        self._graphs: list[int] = []
        self._signatures: list[int] = []

    def finish(self) -> bytes:
        """The file, once every graph is finished."""
        codes = [
            self.table("OperatorCode", DeprecatedBuiltinCode=min(code, _LARGEST_OLD_CODE), BuiltinCode=code, Version=1)
            for code in self._codes
        ]
        model = self.table(
            "Model",
            Version=_SCHEMA_VERSION,
            OperatorCodes=self.tables(codes),
            Subgraphs=self.tables(self._graphs),
            Buffers=self.tables(self._buffers),
            SignatureDefs=self.tables(self._signatures),
        )
        self._builder.Finish(model, _IDENTIFIER)
        return bytes(self._builder.Output())

    def add(self, name: str, graph: int, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> None:
        """A finished graph, as signature `name`."""
        signature = self.table(
            "SignatureDef",
            Inputs=self._names(inputs),
            Outputs=self._names(outputs),
            SignatureKey=self.text(name),
            SubgraphIndex=len(self._graphs),
        )
        self._graphs.append(graph)
        self._signatures.append(signature)

    def _names(self, tensors: dict[str, Tensor]) -> int:
        return self.tables(
            [self.table("TensorMap", Name=self.text(name), TensorIndex=one.index) for name, one in tensors.items()]
        )

    def code(self, name: str) -> int:
        """The place of an operator among those that the file uses."""
        code = getattr(self.schema.BuiltinOperator, name)
        if code not in self._codes:
            self._codes.append(code)
        return self._codes.index(code)

    def buffer(self, values: npt.NDArray[Any]) -> int:
        """The number of the buffer that holds these values; the same values are stored once."""
        key = (values.dtype.name, values.tobytes())
        if key not in self._constants:
            data, builder = key[1], self._builder
            # The schema wants 16 bytes of alignment, which its Python functions know nothing of.
            builder.StartVector(1, len(data), _ALIGNMENT)
            builder.head -= len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            self._constants[key] = len(self._buffers)
            self._buffers.append(self.table("Buffer", Data=builder.EndVector()))
        return self._constants[key]

    def table(self, kind: str, **fields: Any) -> int:
        """A table of the schema; vectors and tables among its fields by their offsets."""
        getattr(self.schema, f"{kind}Start")(self._builder)
        for name, value in fields.items():
            getattr(self.schema, f"{kind}Add{name}")(self._builder, value)
        return int(getattr(self.schema, f"{kind}End")(self._builder))

    def text(self, text: str) -> int:
        """A string."""
        return int(self._builder.CreateString(text))

    def numbers(self, values: Sequence[int]) -> int:
        """A vector of int32."""
        return int(self._builder.CreateNumpyVector(np.array(values, np.int32)))

    def tables(self, offsets: Sequence[int]) -> int:
        """A vector of tables."""
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())


class Graph:
    """One graph of a file: tensors of fixed shapes, and the operators between them in their order."""

    def __init__(self, file: GraphFile) -> None:
        self._file = file
        self._tensors: list[int] = []
        self._operators: list[int] = []
        self._inputs: dict[str, Tensor] = {}

    def finish(self, name: str, outputs: dict[str, Tensor]) -> None:
        """Put the graph into the file, as signature `name`."""
        file = self._file
        graph = file.table(
            "SubGraph",
            Tensors=file.tables(self._tensors),
            Inputs=file.numbers([one.index for one in self._inputs.values()]),
            Outputs=file.numbers([one.index for one in outputs.values()]),
            Operators=file.tables(self._operators),
        )
        file.add(name, graph, self._inputs, outputs)

    def input(self, name: str, shape: Sequence[int], dtype: str = "float32") -> Tensor:
        """What the caller gives, under this name."""
        self._inputs[name] = self._tensor(shape, dtype)
        return self._inputs[name]

    def constant(self, values: npt.ArrayLike, dtype: str = "float32") -> Tensor:
        """Values that stand in the file."""
        array = np.asarray(values, dtype)
        return self._tensor(array.shape, dtype, self._file.buffer(array))

    def _tensor(self, shape: Sequence[int], dtype: str = "float32", buffer: int = 0) -> Tensor:
        file = self._file
        place, name = file.numbers(shape), file.text(str(len(self._tensors)))
        self._tensors.append(file.table("Tensor", Shape=place, Type=_TYPES[dtype], Buffer=buffer, Name=name))
        return Tensor(len(self._tensors) - 1, tuple(int(length) for length in shape))

    def apply(
        self, operator: str, inputs: Sequence[Tensor], shapes: Sequence[Sequence[int]], options: str = "", **fields: Any
    ) -> list[Tensor]:
        """One operator and what it gives.

        Args:
            operator: its name in the schema.
            inputs: its operands.
            shapes: of its results.
            options: the table of its options, where they are not the usual ones.
            fields: those options.

        Raises:
            ConfigurationError: there are too many operators for a device to make and keep.
        """
        file = self._file
        if len(self._operators) == MOST_OPERATORS:
            raise ConfigurationError(
                f"the graph for LiteRT would have more than {MOST_OPERATORS} operators: this model needs numpy"
            )
        outputs = [self._tensor(shape) for shape in shapes]
        said = {}
        if options:
            kind = getattr(file.schema.BuiltinOptions, options)
            said = {"BuiltinOptionsType": kind, "BuiltinOptions": file.table(options, **fields)}
        operands = file.numbers([one.index for one in inputs])
        results = file.numbers([one.index for one in outputs])
        code = file.code(operator)
        self._operators.append(file.table("Operator", OpcodeIndex=code, Inputs=operands, Outputs=results, **said))
        return outputs

    def unary(self, operator: str, a: Tensor) -> Tensor:
        """An operator on each number."""
        return self.apply(operator, [a], [a.shape])[0]

    def binary(self, operator: str, a: Tensor, b: Tensor | float) -> Tensor:
        """An operator on pairs of numbers; axes of length 1 are stretched."""
        other = b if isinstance(b, Tensor) else self.constant(b)
        return self.apply(operator, [a, other], [np.broadcast_shapes(a.shape, other.shape)])[0]

    def matmul(self, a: Tensor, b: Tensor, turn_a: bool = False, turn_b: bool = False) -> Tensor:
        """The product of the last two axes, either of them turned."""
        rows, columns = a.shape[-1 if turn_a else -2], b.shape[-2 if turn_b else -1]
        shape = (*a.shape[:-2], rows, columns)
        return self.apply("BATCH_MATMUL", [a, b], [shape], "BatchMatMulOptions", AdjX=turn_a, AdjY=turn_b)[0]

    def reduce(self, operator: str, a: Tensor, axes: Sequence[int], keep: bool = False) -> Tensor:
        """`SUM`, `MEAN` or `REDUCE_MAX` over axes, which stay with length 1 if `keep`."""
        lengths = [1 if axis in axes else length for axis, length in enumerate(a.shape)]
        shape = [length for axis, length in enumerate(lengths) if keep or axis not in axes]
        along = self.constant(axes, "int32")
        return self.apply(operator, [a, along], [shape], "ReducerOptions", KeepDims=keep)[0]

    def reshape(self, a: Tensor, shape: Sequence[int]) -> Tensor:
        """The same numbers in another shape."""
        assert prod(shape) == prod(a.shape)
        return self.apply("RESHAPE", [a, self.constant(shape, "int32")], [shape])[0]

    def split(self, a: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """The first axis in pieces."""
        if len(sizes) == 1:
            return [a]
        operands = [a, self.constant(sizes, "int32"), self.constant(0, "int32")]
        shapes = [(size, *a.shape[1:]) for size in sizes]
        return self.apply("SPLIT_V", operands, shapes, "SplitVOptions", NumSplits=len(sizes))

    def slice(self, a: Tensor, begin: Sequence[int], size: Sequence[int]) -> Tensor:
        """A part of every axis."""
        return self.apply("SLICE", [a, self.constant(begin, "int32"), self.constant(size, "int32")], [size])[0]

    def pad(self, a: Tensor, around: Sequence[tuple[int, int]]) -> Tensor:
        """Zeros before and after, for each axis."""
        shape = [length + before + after for length, (before, after) in zip(a.shape, around, strict=True)]
        return self.apply("PAD", [a, self.constant(around, "int32")], [shape])[0]

    def concatenate(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        """Parts in a row along one axis."""
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        return self.apply("CONCATENATION", parts, [shape], "ConcatenationOptions", Axis=axis)[0]

    def one_hot(self, classes: Tensor, depth: int) -> Tensor:
        """1 at each row's class, 0 elsewhere; from int32[n] to float32[n, depth]."""
        operands = [classes, self.constant(depth, "int32"), self.constant(1.0), self.constant(0.0)]
        return self.apply("ONE_HOT", operands, [(*classes.shape, depth)], "OneHotOptions", Axis=-1)[0]
