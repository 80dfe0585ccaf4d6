"""The layer list as fleet.toml writes it; a layer along time takes what the one before it gives, unless it says so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from hushfleet.configuration import Key, Range
from hushfleet.errors import ConfigurationError, MalformedError
from hushfleet.wire.layers import (
    LARGEST_VALUE_COUNT,
    AvgPool,
    Conv1d,
    Dense,
    DepthwiseConv1d,
    GlobalAverage,
    Gru,
    Layer,
    LayerNorm,
    MaxPool,
    check_layers,
)

Activation = Literal["none", "relu", "tanh", "sigmoid"]
_U16, _U32 = Range(1, 2**16 - 1), Range(1, 2**32 - 1)


@dataclass(frozen=True, slots=True)
class DenseRow:
    """A dense layer; the kind that is meant where none is said."""

    inputs: Annotated[int, Key("in"), _U32]
    outputs: Annotated[int, Key("out"), _U32]
    act: Activation
    kind: Literal["dense"] = "dense"

    def layer(self) -> Layer:
        """As the model spec holds it."""
        return Dense(self.inputs, self.outputs, self.act)


@dataclass(frozen=True, slots=True, kw_only=True)
class _AlongTime:
    """What layers along time take; 0 for what the layer before gives."""

    length: Annotated[int, Range(1, LARGEST_VALUE_COUNT)] = 0
    channels: Annotated[int, _U16] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv1dRow(_AlongTime):
    """A convolution along time."""

    kind: Literal["conv1d"]
    filters: Annotated[int, _U16]
    kernel: Annotated[int, _U16]
    stride: Annotated[int, _U16] = 1
    act: Activation

    def layer(self, length: int, channels: int) -> Layer:
        """As the model spec holds it."""
        return Conv1d(length, channels, self.filters, self.kernel, self.stride, self.act)


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthwiseConv1dRow(_AlongTime):
    """A convolution of each channel by itself."""

    kind: Literal["depthwise_conv1d"]
    kernel: Annotated[int, _U16]
    stride: Annotated[int, _U16] = 1
    act: Activation

    def layer(self, length: int, channels: int) -> Layer:
        """As the model spec holds it."""
        return DepthwiseConv1d(length, channels, self.kernel, self.stride, self.act)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool(_AlongTime):
    """One step made of so many."""

    size: Annotated[int, _U16]


@dataclass(frozen=True, slots=True, kw_only=True)
class AvgPoolRow(_Pool):
    """The mean of so many steps."""

    kind: Literal["avgpool"]

    def layer(self, length: int, channels: int) -> Layer:
        """As the model spec holds it."""
        return AvgPool(length, channels, self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPoolRow(_Pool):
    """The largest of so many steps."""

    kind: Literal["maxpool"]

    def layer(self, length: int, channels: int) -> Layer:
        """As the model spec holds it."""
        return MaxPool(length, channels, self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalAverageRow(_AlongTime):
    """The mean of all steps."""

    kind: Literal["global_average"]

    def layer(self, length: int, channels: int) -> Layer:
        """As the model spec holds it."""
        return GlobalAverage(length, channels)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNormRow(_AlongTime):
    """Each step's channels normalised."""

    kind: Literal["layer_norm"]
    act: Activation

    def layer(self, length: int, channels: int) -> Layer:
        """As the model spec holds it."""
        return LayerNorm(length, channels, self.act)


@dataclass(frozen=True, slots=True, kw_only=True)
class GruRow(_AlongTime):
    """A gated recurrent unit."""

    kind: Literal["gru"]
    units: Annotated[int, _U16]

    def layer(self, length: int, channels: int) -> Layer:
        """As the model spec holds it."""
        return Gru(length, channels, self.units)


LayerRow = (
    DenseRow | Conv1dRow | DepthwiseConv1dRow | AvgPoolRow | MaxPoolRow | GlobalAverageRow | LayerNormRow | GruRow
)
"""One entry of the layer list."""


def layer_list(rows: Sequence[LayerRow]) -> tuple[Layer, ...]:
    """The layers as the model spec holds them.

    Raises:
        ConfigurationError: they are no model, or a layer along time follows none that gives steps, and does not say how
            many it takes.
    """
    layers: list[Layer] = []
    for number, row in enumerate(rows, start=1):
        if isinstance(row, DenseRow):
            layers.append(row.layer())
            continue
        length, channels = (layers[-1].sequence_out if layers else None) or (0, 0)
        length, channels = row.length or length, row.channels or channels
        if not length or not channels:
            raise ConfigurationError(
                f"layer {number}, {row.kind}: give it length (steps) and channels; it can only do without after a "
                "layer that gives steps"
            )
        layers.append(row.layer(length, channels))
    try:
        check_layers(layers)
    except MalformedError as error:
        raise ConfigurationError(str(error)) from None
    return tuple(layers)
