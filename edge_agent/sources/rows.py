"""What every data source gives the trainer."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
    """A device's own rows: those to train on, and those kept aside to score the model with."""

    training: Rows
    evaluation: Rows


class Source(Protocol):
    """Where a device's rows come from."""

    def read(self, inputs: int, classes: int | None) -> LocalData:
        """The rows as they are now.

        Args:
            inputs: features a row, as the model's first layer takes them.
            classes: how many the model's last layer tells apart; None where y is one number to predict.

        Raises:
            ConfigurationError: the source cannot be read or does not fit the model; with place and remedy.
        """
