"""The layers that a model may have: what each takes and gives, and its parameters (docs/protocol.md, 11.2 and 11.7).

Between two layers a row is a flat vector. Kinds that work along time read it as a sequence: `length` steps of each
channel, all steps of one channel together, as a schema's windows have them. Nothing here needs numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from math import prod
from typing import Annotated, ClassVar, get_args

from hushfleet.errors import MalformedError
from hushfleet.wire.framing import U16, U32, Named, OneOf, Str, Table, Unsigned

ACTIVATIONS = ("none", "relu", "tanh", "sigmoid")
LARGEST_PARAMETER_COUNT = 2**32 - 1
"""A plan names the number of coordinates as a u32."""
LARGEST_VALUE_COUNT = 2**20
"""Values of a window, and the most that a layer along time may make of one row on its way."""


@dataclass(frozen=True, slots=True)
class Block:
    """Parameters that stand together in the flat vector, row by row.

    Attributes:
        shape: of the array that they make.
        fans: what bounds them in version 0, drawn within ±sqrt(6 / fans); 0 for those that are not drawn.
        start: what all of them are in version 0 if they are not drawn.
    """

    shape: tuple[int, ...]
    fans: int = 0
    start: float = 0.0

    @property
    def size(self) -> int:
        """How many they are."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Dense(Table):
    """`act(x @ weights + biases)` of a whole row."""

    KIND: ClassVar[str] = "dense"
    inputs: Annotated[int, Unsigned(32), Named("in")]
    outputs: Annotated[int, Unsigned(32), Named("out")]
    act: Str = "none"
    kind: Str = KIND

    def check(self) -> None:
        _check_words(self, self.kind, self.act)
        if not self.inputs or not self.outputs:
            raise MalformedError("dense: in and out are above 0")

    @property
    def sequence_in(self) -> tuple[int, int] | None:
        """Steps and channels that it takes; None where it takes a row as it is."""
        return None

    @property
    def sequence_out(self) -> tuple[int, int] | None:
        """Steps and channels that it gives; None where it gives a row without steps."""
        return None

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Its parameters in the order of the flat vector: weights `[in][out]`, biases."""
        return Block((self.inputs, self.outputs), self.inputs + self.outputs), Block((self.outputs,))

    @property
    def uses(self) -> int:
        """How often each of its parameters is used for one row."""
        return 1

    @property
    def spread(self) -> int:
        """The most values that it makes of one row on its way."""
        return max(self.inputs, self.outputs)


@dataclass(frozen=True, slots=True)
class _AlongTime(Table):
    """What the kinds have in common that take a sequence; what most of them are is what stands here."""

    length: U32
    channels: U16

    @property
    def inputs(self) -> int:
        """Values of a row that it takes."""
        return self.length * self.channels

    @property
    def outputs(self) -> int:
        """Values of a row that it gives."""
        return prod(self.sequence_out or ())

    @property
    def sequence_in(self) -> tuple[int, int]:
        """Steps and channels that it takes."""
        return self.length, self.channels

    @property
    def sequence_out(self) -> tuple[int, int] | None:
        """Steps and channels that it gives; None where it gives a row without steps."""
        return self.sequence_in

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Its parameters in the order of the flat vector."""
        return ()

    @property
    def uses(self) -> int:
        """How often each of its parameters is used for one row."""
        return self.length

    @property
    def spread(self) -> int:
        """The most values that it makes of one row on its way."""
        return max(self.inputs, self.outputs)

    def _check(self, kind: str, act: str = "none", window: int = 1) -> None:
        """The ranges of its numbers, in an order in which each can be reckoned."""
        _check_words(self, kind, act)
        numbers = {column.name: getattr(self, column.name) for column in fields(self)}
        zeros = [name for name, value in numbers.items() if value == 0]
        if zeros:
            raise MalformedError(f"{self.KIND}: {' and '.join(zeros)} must be above 0")
        if self.length > LARGEST_VALUE_COUNT:
            raise MalformedError(f"{self.KIND}: {self.length} steps, at most {LARGEST_VALUE_COUNT} are allowed")
        if window > self.length:
            raise MalformedError(f"{self.KIND}: a window of {window} steps does not fit in {self.length}")
        if self.spread > LARGEST_VALUE_COUNT:
            raise MalformedError(
                f"{self.KIND}: it makes {self.spread} values of one row, at most {LARGEST_VALUE_COUNT} are allowed: "
                "give it fewer steps or channels, a larger stride or a smaller kernel"
            )


@dataclass(frozen=True, slots=True)
class Conv1d(_AlongTime):
    """`filters` dense layers over `kernel` steps of all channels, every `stride` steps; nothing is padded."""

    KIND: ClassVar[str] = "conv1d"
    filters: U16
    kernel: U16
    stride: U16 = 1
    act: Str = "none"
    kind: Str = KIND

    def check(self) -> None:
        self._check(self.kind, self.act, self.kernel)

    @property
    def sequence_out(self) -> tuple[int, int]:
        """Steps and channels that it gives."""
        return (self.length - self.kernel) // self.stride + 1, self.filters

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Weights `[kernel][channels][filters]`, biases."""
        fans = self.kernel * (self.channels + self.filters)
        return Block((self.kernel, self.channels, self.filters), fans), Block((self.filters,))

    @property
    def uses(self) -> int:
        """How often each of its parameters is used for one row."""
        return self.sequence_out[0]

    @property
    def spread(self) -> int:
        """The most values that it makes of one row on its way: each window's steps side by side."""
        return max(self.inputs, self.outputs, self.sequence_out[0] * self.kernel * self.channels)


@dataclass(frozen=True, slots=True)
class DepthwiseConv1d(_AlongTime):
    """A weighted sum of `kernel` steps of each channel by itself, every `stride` steps; nothing is padded."""

    KIND: ClassVar[str] = "depthwise_conv1d"
    kernel: U16
    stride: U16 = 1
    act: Str = "none"
    kind: Str = KIND

    def check(self) -> None:
        self._check(self.kind, self.act, self.kernel)

    @property
    def sequence_out(self) -> tuple[int, int]:
        """Steps and channels that it gives."""
        return (self.length - self.kernel) // self.stride + 1, self.channels

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Weights `[kernel][channels]`, biases."""
        return Block((self.kernel, self.channels), 2 * self.kernel), Block((self.channels,))

    @property
    def uses(self) -> int:
        """How often each of its parameters is used for one row."""
        return self.sequence_out[0]

    @property
    def spread(self) -> int:
        """The most values that it makes of one row on its way: each window's steps side by side."""
        return max(self.inputs, self.sequence_out[0] * self.kernel * self.channels)


@dataclass(frozen=True, slots=True)
class _Pool(_AlongTime):
    """One step made of `size`, of each channel; steps that are left over are left out."""

    size: U16

    @property
    def sequence_out(self) -> tuple[int, int]:
        """Steps and channels that it gives."""
        return self.length // self.size, self.channels


@dataclass(frozen=True, slots=True)
class AvgPool(_Pool):
    """The mean of every `size` steps."""

    KIND: ClassVar[str] = "avgpool"
    kind: Str = KIND

    def check(self) -> None:
        self._check(self.kind, window=self.size)


@dataclass(frozen=True, slots=True)
class MaxPool(_Pool):
    """The largest of every `size` steps."""

    KIND: ClassVar[str] = "maxpool"
    kind: Str = KIND

    def check(self) -> None:
        self._check(self.kind, window=self.size)


@dataclass(frozen=True, slots=True)
class GlobalAverage(_AlongTime):
    """The mean of all steps, of each channel."""

    KIND: ClassVar[str] = "global_average"
    kind: Str = KIND

    def check(self) -> None:
        self._check(self.kind)

    @property
    def outputs(self) -> int:
        """Values of a row that it gives."""
        return self.channels

    @property
    def sequence_out(self) -> None:
        """It gives a row without steps."""
        return


@dataclass(frozen=True, slots=True)
class LayerNorm(_AlongTime):
    """Each step's channels brought to mean 0 and variance 1, then scaled and moved, channel by channel."""

    KIND: ClassVar[str] = "layer_norm"
    act: Str = "none"
    kind: Str = KIND

    def check(self) -> None:
        self._check(self.kind, self.act)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Gains, biases."""
        return Block((self.channels,), start=1.0), Block((self.channels,))


@dataclass(frozen=True, slots=True)
class Gru(_AlongTime):
    """A gated recurrent unit (Cho et al. 2014), the reset gate after the product, as cuDNN has it: its last state."""

    KIND: ClassVar[str] = "gru"
    units: U16
    kind: Str = KIND

    def check(self) -> None:
        self._check(self.kind)

    @property
    def outputs(self) -> int:
        """Values of a row that it gives."""
        return self.units

    @property
    def sequence_out(self) -> None:
        """It gives a row without steps."""
        return

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Weights `[channels][3·units]`, inner ones `[units][3·units]`, biases; of update, reset, candidate each."""
        width = 3 * self.units
        inner = Block((self.units, width), 2 * self.units)
        return Block((self.channels, width), self.channels + self.units), inner, Block((width,))

    @property
    def spread(self) -> int:
        """The most values that it makes of one row on its way: three gates at each step."""
        return max(self.inputs, self.length * 3 * self.units)


def _check_words(layer: Table, kind: str, act: str) -> None:
    if kind != layer.KIND or act not in ACTIVATIONS:
        raise MalformedError(f"{layer.KIND}: unknown kind or activation; activations are {', '.join(ACTIVATIONS)}")


Layer = Dense | Conv1d | DepthwiseConv1d | AvgPool | MaxPool | GlobalAverage | LayerNorm | Gru
"""One entry of a layer list."""
ANY_LAYER = OneOf("layer", get_args(Layer))


def parameter_count(layers: Sequence[Layer]) -> int:
    """d, the length of the flat vector."""
    return sum(block.size for layer in layers for block in layer.blocks)


def use_count(layers: Sequence[Layer]) -> int:
    """How often one row uses a parameter: d where all layers are dense."""
    return sum(layer.uses * block.size for layer in layers for block in layer.blocks)


def value_count(layers: Sequence[Layer]) -> int:
    """Values that the layers along time make of one row on its way; 0 where all are dense."""
    return sum(layer.spread for layer in layers if layer.sequence_in)


def check_layers(layers: Sequence[Layer]) -> None:
    """Raise MalformedError unless the list is a model: every layer in its ranges, each fitting the next."""
    if not layers:
        raise MalformedError("the layer list is empty: a model needs at least one layer")
    for number, layer in enumerate(layers, start=1):
        try:
            layer.check()
        except MalformedError as error:
            raise MalformedError(f"layer {number}, {error}") from None
    for number, (layer, following) in enumerate(pairwise(layers), start=1):
        given, taken = layer.sequence_out, following.sequence_in
        if layer.outputs != following.inputs or (given and taken and given != taken):
            raise MalformedError(
                f"layer {number} gives {_shown(layer.outputs, given)} but layer {number + 1} takes "
                f"{_shown(following.inputs, taken)}: make them equal"
            )
    if (count := parameter_count(layers)) > LARGEST_PARAMETER_COUNT:
        raise MalformedError(f"the layer list has {count} parameters: at most {LARGEST_PARAMETER_COUNT} fit a plan")


def check_personal(layers: Sequence[Layer], personal: int) -> None:
    """Raise MalformedError unless the last `personal` layers of a model can be each device's own; at least 1."""
    if personal >= len(layers):
        raise MalformedError(f"{personal} of {len(layers)} layers are personal: at least the first one is shared")
    shared = len(layers) - personal
    for which, part in (("shared", layers[:shared]), ("personal", layers[shared:])):
        if not parameter_count(part):
            raise MalformedError(f"the {which} layers have no parameters: move the border, personal = {personal}")


def _shown(values: int, sequence: tuple[int, int] | None) -> str:
    return f"{sequence[0]} steps of {sequence[1]} channels" if sequence else f"{values} numbers"
