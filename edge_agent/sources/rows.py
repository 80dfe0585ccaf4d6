"""What every data source gives the trainer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.schema import Schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Head = Literal["softmax", "mean_squared"]
MEMORY = 32
"""MiB that a device's rows take at most, where nothing else is said."""


def rows_in(memory: int, inputs: int) -> int:
    """How many rows of so many float32 fit into so many MiB, at least 1."""
    return max(1, memory * 2**20 // (4 * inputs))


@dataclass(frozen=True, slots=True)
class Rows:
    """Features and what is to be learned from them. No repr shows a value.

    Attributes:
        x: float32[n, features], finite.
        y: int64[n], classes from 0; or float32[n, 1], finite targets.
    """

    x: "NDArray[np.float32]" = field(repr=False)
    y: "NDArray[Any]" = field(repr=False)

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class LocalData:
    """A device's own rows.

    Attributes:
        training: those to train on.
        evaluation: those kept aside to score the model with.
        head: what stands on the model's last layer for them.
    """

    training: Rows
    evaluation: Rows
    head: Head


Judge = Callable[[LocalData], "NDArray[np.float64]"]
"""As `hushfleet.judgement.judge`, of the rows kept aside."""


class Source(Protocol):
    """Where a device's rows come from."""

    def read(self, model: ModelSpec, schema: Schema | None) -> LocalData:
        """The rows as they are now.

        Args:
            model: what they are for.
            schema: what the owners signed of the model's windows, if they did.

        Raises:
            ConfigurationError: the source cannot be read or does not fit the model; with place and remedy.
        """

    def describe(self, schema: Schema, judge: "Judge") -> "NDArray[np.float64]":
        """What a statistics round sums, as `hushfleet.statistics.describe` gives it.

        Args:
            judge: how the round's base model does on rows kept aside.

        Raises:
            ConfigurationError: there is nothing to describe, or it does not fit the schema.
        """
