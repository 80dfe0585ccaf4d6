"""One round's grid: rotation, subset and dither, all from the plan's hash (docs/protocol.md, sections 6 and 11.7)."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hushfleet.encoding.dither import Integers, Words, starts
from hushfleet.encoding.rotation import Floats, Rotation
from hushfleet.encoding.subset import subset


class Grid:
    """What every device of a round rounds on.

    Attributes:
        parameters: d.
        coords: m, the coordinates that are sent.
    """

    def __init__(self, parameters: int, coords: int, plan_hash: bytes) -> None:
        """`parameters` at least 1, `coords` from 1 to `parameters`, `plan_hash` 32 bytes."""
        self.parameters, self.coords, self._plan_hash = parameters, coords, plan_hash

    @cached_property
    def rotation(self) -> Rotation:
        """Of all coordinates."""
        return Rotation.seeded(self.parameters, self._plan_hash)

    @cached_property
    def positions(self) -> Integers:
        """The rotated coordinates that are sent, ascending: int64, shape (m,)."""
        return subset(self.parameters, self.coords, self._plan_hash)

    @cached_property
    def words(self) -> Words:
        """The dither's start at each coordinate sent: uint32, shape (m,)."""
        return starts(self.coords, self._plan_hash)

    def rotated(self, vector: Floats) -> Floats:
        """A vector in the round's basis, float32, shape (d,); infinite where it overflows."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.rotation.forward(vector)

    def project(self, rotated: Floats) -> Floats:
        """The coordinates that are sent of a vector that `rotated` gave: float32, shape (d,) to (m,)."""
        return rotated[self.positions]

    def dropped(self, rotated: Floats) -> Floats:
        """What `project` leaves out, as a vector in the model's own basis: the next residual, float32, shape (d,)."""
        if self.coords == self.parameters:
            return np.zeros_like(rotated)
        left = rotated.copy()
        left[self.positions] = 0.0
        return self.rotation.inverse(left)

    def expand(self, sent: Floats) -> Floats:
        """The vector of which these are the coordinates sent, and 0 the others: float32, shape (m,) to (d,)."""
        rotated = np.zeros(self.parameters, np.float32)
        rotated[self.positions] = sent
        return self.rotation.inverse(rotated)


def update_of(centred: Integers, step: float, weight: float) -> NDArray[np.float32]:
    """The coordinates of the mean update: float32, shape (m,); float64 from left to right, one rounding at the end.

    Args:
        centred: the opened sum in units of 2^-32 steps.
        step: the plan's.
        weight: the survivors' weights together, above 0.
    """
    values = centred.astype(np.float64)
    values *= 2.0**-32
    values *= step
    values /= weight
    return values.astype(np.float32)
